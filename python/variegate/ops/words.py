"""Word noise on text.

A *word* is a run of letters, digits, marks and ``_``, joined by single apostrophes and hyphens, or between digits by a
point or comma. In a script that puts no spaces between words, a run of letters is one. A position is the number of a
word in its row, from 0.

These ops change what a text says, so they have guards besides `Protect`: `negations` are never touched, nor is a word
next to one moved, dropped or parted from it; `max_edits` bounds the share of a row's words that are edited. Where more
are drawn, those with the lowest draws are edited, and ``held`` in the stats counts the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op
from variegate.ops.lexicon import Lexicon

__all__ = ["EntitySwap", "Misspelling", "Synonym", "WordDelete", "WordInsert", "WordSwap"]


@dataclass(frozen=True, kw_only=True, repr=False)
class EntitySwap(Op):
    """Replaces the spans of a tag by other names of the same kind.

    Each span of the `tag` is hit with probability `rate` and its text becomes one of the `entities` other than itself,
    all equally likely; the span then holds the new name. A span that overlaps one that was hit before it stays, and so
    does one that holds a negation. It needs spans.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        tag: The tag of the spans.
        entities: The names to draw from.
        negations: Words whose spans stay; None stands for `NEGATIONS`, () for none.
        max_edits: The largest number of edits of a row, as a share of its words.
        spans: What becomes of spans that an edit touches; with ``forbid``, nothing is replaced.

    Raises:
        InvalidInput: A rate or share outside [0, 1], no entities, or an empty one; in the call, a `TokenBatch` without
            a tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["Ada met Bob."], ids=[1], spans=[(0, 0, 3, "PER"), (0, 8, 11, "PER")])
        >>> out = EntitySwap(rate=1.0, tag="PER", entities=("Grace Hopper",))(batch, seed=2)
        >>> out.texts, out.spans.to_list()
        (['Grace Hopper met Grace Hopper.'], [(0, 0, 12, 'PER'), (0, 17, 29, 'PER')])
    """

    rate: float
    tag: str
    entities: tuple[str, ...]
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Misspelling(Op):
    """Replaces words by common misspellings.

    Each word of the table is hit with probability `rate` and becomes one of its misspellings, all equally likely; its
    case stays.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        table: The words and their misspellings; None is a table of some 150 English words.
        negations: Words that stay; None stands for `NEGATIONS`, () for none.
        max_edits: The largest share of a row's words that are edited.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate or share outside [0, 1], or a table that is none; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["Definitely a FRIEND"], ids=[1])
        >>> Misspelling(rate=1.0, table=vg.ops.Lexicon({"friend": ["freind"]}))(batch, seed=2).texts
        ['Definitely a FREIND']
    """

    rate: float
    table: Lexicon | None = None
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class Synonym(Op):
    """Replaces words by others of the same meaning (Wei and Zou, "EDA", EMNLP 2019: synonym replacement).

    Each word that the lexicon knows is hit with probability `rate` and becomes one of its replacements, all equally
    likely. A form of a known English word (a plural, -s, past, participle, -ing) gets the same form of the replacement,
    irregular ones included; the case stays; after "a" and "an" only what goes with them is drawn. The words before tell
    past and participle apart ("she", "has"); where they do not, a word that may be both becomes only such another.
    Nothing looks at the meaning: a word of several may get a replacement for another one.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        lexicon: The words and their replacements; None is a small English lexicon.
        pos: The parts of speech (``n``, ``v``, ``a``, ``r``) whose entries are used; () uses all.
        negations: Words that stay; None stands for `NEGATIONS`, () for none.
        max_edits: The largest share of a row's words that are edited.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate or share outside [0, 1], or a lexicon that is none; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["Two Cars stopped"], ids=[1])
        >>> lexicon = vg.ops.Lexicon([("car", "n", "bus"), ("stop", "v", "quit", "drop by")])
        >>> Synonym(rate=1.0, lexicon=lexicon)(batch, seed=4).texts
        ['Two Buses dropped by']
    """

    rate: float
    lexicon: Lexicon | None = None
    pos: tuple[str, ...] = ()
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class WordDelete(Op):
    """Drops words (Wei and Zou, "EDA", EMNLP 2019: random deletion).

    Each word is hit with probability `rate` and goes, and with it the space before it, or if none is left there the one
    after it; punctuation stays. A row that would lose all of its words keeps the one whose draw was highest.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        negations: Words that stay, with their neighbours; None stands for `NEGATIONS`, () for none.
        max_edits: The largest share of a row's words that are dropped.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate or share outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["It was not bad, really it was."], ids=[1])
        >>> WordDelete(rate=1.0)(batch, seed=2).texts
        ['was not bad,.']
    """

    rate: float
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class WordInsert(Op):
    """Adds synonyms of words (Wei and Zou, "EDA", EMNLP 2019: random insertion).

    For each word that the lexicon knows, with probability `rate`, one of its replacements (in its form) is put before
    a word of the row, all places and replacements equally likely.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        lexicon: The words and their replacements; None is a small English lexicon.
        pos: The parts of speech (``n``, ``v``, ``a``, ``r``) whose entries are used; () uses all.
        negations: Words that nothing is put before or behind; None stands for `NEGATIONS`, () for none.
        max_edits: The largest number of words added, as a share of the row's words.
        spans: What becomes of spans that an edit touches; what is put at the edge of a span is outside it.

    Raises:
        InvalidInput: A rate or share outside [0, 1], or a lexicon that is none; in the call, a `TokenBatch` without a
            tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["so good"], ids=[1])
        >>> sorted(WordInsert(rate=1.0)(batch, seed=2).texts[0].split())
        ['fine', 'good', 'so']
    """

    rate: float
    lexicon: Lexicon | None = None
    pos: tuple[str, ...] = ()
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class WordSwap(Op):
    """Lets words change places (Wei and Zou, "EDA", EMNLP 2019: random swap).

    Each word is hit with probability `rate` and changes places with any other word of the row, all equally likely, one
    swap after the other from the left; spaces and punctuation stay where they are. A span cannot follow a word that
    moves, so with ``spans="follow"`` the words of spans stay, as with ``forbid``.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        negations: Words that stay, with their neighbours; None stands for `NEGATIONS`, () for none.
        max_edits: The largest share of a row's words that move.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate or share outside [0, 1]; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["one, two; not three"], ids=[1])
        >>> WordSwap(rate=1.0, negations=())(batch, seed=2).texts[0].count(",")
        1
    """

    rate: float
    negations: tuple[str, ...] | None = None
    max_edits: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"
