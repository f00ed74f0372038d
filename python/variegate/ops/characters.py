"""Character noise on text.

All of these edit whole grapheme clusters: a letter keeps its marks, and an edit that would cut a cluster or join two is
not made. A *letter* is any that Unicode calls alphabetic. Digits, spaces and punctuation stay as they are unless the op
is about them. A position is the byte at which a letter starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = [
    "CaseNoise",
    "CharDelete",
    "CharInsert",
    "CharSubstitute",
    "CharTranspose",
    "Contraction",
    "Diacritics",
    "Homoglyph",
    "KeyboardTypo",
    "OcrNoise",
    "PunctuationInsert",
    "WhitespaceNoise",
]


@dataclass(frozen=True, kw_only=True, repr=False)
class CaseNoise(Op):
    """Changes the case of letters.

    Each letter that has two cases is hit with probability `rate` and takes the other one; its marks stay. A letter
    whose other case is more than one character (ß) stays.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> CaseNoise(rate=1.0)(vg.TextBatch.from_texts(["Straße 7"], ids=[1]), seed=2).texts
        ['sTRAßE 7']
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class CharDelete(Op):
    """Drops letters.

    Each letter is hit with probability `rate` and goes, with its marks; a run of letters keeps at least one.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> CharDelete(rate=1.0)(vg.TextBatch.from_texts(["Hello, world 42!"], ids=[1]), seed=2).texts
        ['o, d 42!']
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class CharInsert(Op):
    """Puts letters between letters.

    After each letter comes, with probability `rate`, a drawn one of its case. Without an `alphabet` it is one of the
    script of the letter before it (Latin, Cyrillic, Greek, Hebrew, Arabic, Armenian, Georgian); after letters of other
    scripts, and after accented ones, nothing is put.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        alphabet: The characters to draw from, all equally likely, for letters of any script.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or an alphabet of no letters; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> CharInsert(rate=1.0, alphabet="x")(vg.TextBatch.from_texts(["Two 2"], ids=[1]), seed=2).texts
        ['TXwxox 2']
    """

    rate: float
    alphabet: str | None = None
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class CharSubstitute(Op):
    """Replaces letters by others.

    Each letter that carries no mark is hit with probability `rate` and becomes another of its alphabet (see
    `CharInsert`), all equally likely; its case stays.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        alphabet: The characters to draw from, for letters of any script.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or an alphabet of no letters; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> CharSubstitute(rate=1.0, alphabet="ab")(vg.TextBatch.from_texts(["Abba"], ids=[1]), seed=2).texts
        ['Baab']
    """

    rate: float
    alphabet: str | None = None
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class CharTranspose(Op):
    """Lets neighbouring letters change places.

    Walks each row from the left: a letter changes places with the letter right after it with probability `rate`, and a
    pair that did is passed over. Marks and case go with their letter; two that are the same stay.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> CharTranspose(rate=1.0)(vg.TextBatch.from_texts(["from here"], ids=[1]), seed=2).texts
        ['rfmo eher']
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Contraction(Op):
    """Contracts English ("do not" to "don't") and expands it ("don't" to "do not").

    At each word where one of the two is possible it happens with probability `rate`; the case stays. What would change
    the sense is left: "he's" and "he'd", which are two verbs each, and "Don't you" are not expanded; "it is" at the end
    of a clause, and "have" where it is the main verb, are not contracted.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        mode: ``contract``, ``expand`` or ``both``.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or a mode that is not there; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["I do not know. We'll see."], ids=[1])
        >>> Contraction(rate=1.0)(batch, seed=2).texts
        ["I don't know. We will see."]
    """

    rate: float
    mode: Literal["both", "contract", "expand"] = "both"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Diacritics(Op):
    """Drops diacritics, or adds some.

    With ``drop``, each letter that has diacritics, as one character or as marks behind it, loses them all with
    probability `rate`: Latin, Greek (of any age), the Cyrillic yo, the points of Hebrew and the vowel signs of Arabic.
    With ``add``, each bare letter that has an accented form in Latin-1, Latin Extended-A or Greek becomes one of these,
    all equally likely.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        mode: ``drop`` or ``add``.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or a mode that is not there; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> Diacritics(rate=1.0)(vg.TextBatch.from_texts(["Việt Nam, garçon, ёлка"], ids=[1]), seed=2).texts
        ['Viet Nam, garcon, елка']
    """

    rate: float
    mode: Literal["add", "drop"] = "drop"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Homoglyph(Op):
    """Replaces letters by letters of other scripts that look the same.

    Each letter of Latin, Cyrillic, Greek or Armenian that has a double is hit with probability `rate` and becomes one
    of its doubles, all equally likely.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> out = Homoglyph(rate=1.0)(vg.TextBatch.from_texts(["pay"], ids=[1]), seed=2)
        >>> out.texts[0] == "pay", len(out.texts[0])
        (False, 3)
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class KeyboardTypo(Op):
    """Replaces letters by their neighbours on the keyboard.

    Each letter of the layout (either case) is hit with probability `rate` and becomes one of the letters whose keys
    touch its own, all equally likely; its case stays. Spaces, digits, punctuation and letters that the layout lacks
    stay, and so does a letter that carries a combining mark: no grapheme cluster is cut. With ``return_source=True``
    the ``edits`` of a `TextBatch` say which bytes changed.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        layout: ``qwerty``, ``qwertz``, ``azerty``, ``dvorak``, or ``jcuken`` (ЙЦУКЕН, Cyrillic).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or a layout that is not there; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> out = KeyboardTypo(rate=0.2)(vg.TextBatch.from_texts(["Hello there, world!"], ids=[1]), seed=2)
        >>> len(out.texts[0])
        19
    """

    rate: float
    layout: Literal["azerty", "dvorak", "jcuken", "qwerty", "qwertz"] = "qwerty"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class OcrNoise(Op):
    """Replaces characters by what optical character recognition takes them for.

    Each letter and digit of the table, and each pair such as rn (m), cl (d), vv (w), is hit with probability `rate` and
    becomes one of what it is confused with (0 and O, 1 and l, m and rn, ...), all equally likely. Where a pair stands,
    it is taken before its first letter. Digits may become letters and the other way round.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> out = OcrNoise(rate=1.0)(vg.TextBatch.from_texts(["rn vv"], ids=[1]), seed=2, return_source=True)
        >>> out.texts, out.edits.length.tolist()
        (['m w'], [1, 1])
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class PunctuationInsert(Op):
    """Puts punctuation between words (Karimi, Rossi and Prati, "AEDA", Findings of EMNLP 2021).

    Before each word comes, with probability `rate`, one of the `marks` and a space; the paper draws the number of marks
    uniformly from 1 to a third of the words, for which a rate of 1/6 is the mean.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        marks: The characters to draw from, all equally likely.
        negations: Words that nothing is put before or behind; None stands for `NEGATIONS`, () for none.
        max_edits: The largest share of a row's words that get a mark; of more, those with the lowest draws do, and
            ``held`` in the stats counts the rest.
        spans: What becomes of spans that an edit touches; what is put at the edge of a span is outside it.

    Raises:
        InvalidInput: A rate or share outside [0, 1], or no marks; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["a sad but not dull film"], ids=[1])
        >>> PunctuationInsert(rate=1.0, marks=",")(batch, seed=2).texts
        [', a , sad , but not dull , film']
    """

    rate: float
    marks: str = ".;?:!,"
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class WhitespaceNoise(Op):
    """Removes and doubles spaces, and puts some into words.

    Each space (of any kind, but no line end) is hit with probability `rate`; it goes, or comes twice, one as often as
    the other. Between two letters comes a space with probability `split_rate`.

    Attributes:
        rate: The probability that a space is hit, in [0, 1]; drawn to 2^-24.
        split_rate: The probability of a space between two letters, in [0, 1].
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> WhitespaceNoise(rate=0.0, split_rate=1.0)(vg.TextBatch.from_texts(["at 10"], ids=[1]), seed=2).texts
        ['a t 10']
    """

    rate: float
    split_rate: float = 0.0
    spans: Literal["follow", "drop", "forbid"] = "follow"
