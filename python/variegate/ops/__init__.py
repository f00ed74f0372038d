"""Ops: noise, training objectives, typing errors, and how they compose.

Every op is a frozen dataclass of its parameters, called as ``op(batch, *, seed, epoch=0, variant=0,
return_source=False)``. What a row becomes depends on the op's spec, those numbers, the row and its id, and on nothing
else: not on the batch that it is in, its place there, or the number of threads.
"""

from __future__ import annotations

from variegate.ops._base import Op, Protect, from_json, from_spec
from variegate.ops.characters import (
    CaseNoise,
    CharDelete,
    CharInsert,
    CharSubstitute,
    CharTranspose,
    Contraction,
    Diacritics,
    Homoglyph,
    KeyboardTypo,
    OcrNoise,
    PunctuationInsert,
    WhitespaceNoise,
)
from variegate.ops.compose import Compose, OneOf, Repeat, SomeOf, Sometimes
from variegate.ops.lexicon import NEGATIONS, Lexicon
from variegate.ops.noise import LocalShuffle, TokenDropout, TokenInsert, TokenMask, TokenReplace, TokenSwap, kneser_ney
from variegate.ops.objectives import (
    UL2,
    FillInMiddle,
    MaskedLM,
    NgramMask,
    PrefixLM,
    SentencePermute,
    SpanCorruption,
    TextInfilling,
    WholeWordMask,
)
from variegate.ops.rewriting import Rewriter
from variegate.ops.rules import Rules
from variegate.ops.subword import BpeDropout, UnigramSample
from variegate.ops.words import EntitySwap, Misspelling, Synonym, WordDelete, WordInsert, WordSwap

__all__ = [
    "NEGATIONS",
    "UL2",
    "BpeDropout",
    "CaseNoise",
    "CharDelete",
    "CharInsert",
    "CharSubstitute",
    "CharTranspose",
    "Compose",
    "Contraction",
    "Diacritics",
    "EntitySwap",
    "FillInMiddle",
    "Homoglyph",
    "KeyboardTypo",
    "Lexicon",
    "LocalShuffle",
    "MaskedLM",
    "Misspelling",
    "NgramMask",
    "OcrNoise",
    "OneOf",
    "Op",
    "PrefixLM",
    "Protect",
    "PunctuationInsert",
    "Repeat",
    "Rewriter",
    "Rules",
    "SentencePermute",
    "SomeOf",
    "Sometimes",
    "SpanCorruption",
    "Synonym",
    "TextInfilling",
    "TokenDropout",
    "TokenInsert",
    "TokenMask",
    "TokenReplace",
    "TokenSwap",
    "UnigramSample",
    "WhitespaceNoise",
    "WholeWordMask",
    "WordDelete",
    "WordInsert",
    "WordSwap",
    "from_json",
    "from_spec",
    "kneser_ney",
]
