"""Paraphrases of records: rewriting by rules, synonyms and back-translation, as distinct variants.

What is described here changes how a text says something and leaves alone what it says, as far as rules, word lists and
a translator's filter can tell.
"""

from __future__ import annotations

from variegate.ops import Rewriter, Rules
from variegate.paraphrase._cache import TranslationCache
from variegate.paraphrase._engines import Apertium, CTranslate2, Transformers, Translator
from variegate.paraphrase._filter import RoundTrip, Verdict
from variegate.paraphrase._paraphrase import paraphrase
from variegate.paraphrase._translate import BackTranslate

__all__ = [
    "Apertium",
    "BackTranslate",
    "CTranslate2",
    "Rewriter",
    "RoundTrip",
    "Rules",
    "Transformers",
    "TranslationCache",
    "Translator",
    "Verdict",
    "paraphrase",
]
