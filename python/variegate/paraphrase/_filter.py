"""What a text that went through another language must keep to count as a paraphrase."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from variegate.errors import InvalidInput
from variegate.ops.lexicon import NEGATIONS

__all__ = ["RoundTrip", "Verdict"]

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

_NAMED = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
}  # fmt: skip


class Verdict(NamedTuple):
    """What a filter says of one text.

    Attributes:
        reason: Why the text was refused; ``""`` if it was accepted.
        overlap: The share of words in common, in [0, 1].
        length: Words of the result by words of the source; 0 where the source has none.
    """

    reason: str
    overlap: float
    length: float


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """Accepts what kept the meaning of its source, as far as words can tell.

    The checks, in this order; the first that fails is the reason:

    - ``empty``: the result has no word.
    - ``unchanged``: the result is its source, but for case and spaces.
    - ``untranslated``: more than `untranslated` words were left in another language.
    - ``negation``: the numbers of negations differ ("do not" and "don't" hold one each).
    - ``number``: the numbers named differ, in digits or in words ("12" is "twelve"; "one" and ordinals do not count).
    - ``length``: the words of the result by those of the source are outside `length`.
    - ``overlap``: the overlap of words is outside `overlap`. It is the F1 of the two bags of words, in lower case:
      twice the words in common, by the words of both.

    The word lists are English; give `negations` for other languages, and ``numbers=False``.

    Attributes:
        overlap: Lowest and highest overlap. A low one lets flips of meaning through, a high one wants copies.
        length: Lowest and highest length.
        negations: Words that turn a sentence around; None stands for `NEGATIONS`, () switches the check off.
        numbers: Whether the numbers must be the same.
        untranslated: The most words that may be left in another language.

    Raises:
        InvalidInput: A range whose ends are not in order, or not in the measure's range.

    Example:
        >>> RoundTrip().judge("I do not like the big dog.", "I don't like the large dog.")
        Verdict(reason='', overlap=0.6153846153846154, length=0.8571428571428571)
        >>> RoundTrip().judge("I do not like the big dog.", "I like the big dog.").reason
        'negation'
    """

    overlap: tuple[float, float] = (0.5, 1.0)
    length: tuple[float, float] = (0.6, 1.6)
    negations: tuple[str, ...] | None = None
    numbers: bool = True
    untranslated: int = 0

    def __post_init__(self) -> None:
        for name, most in (("overlap", 1.0), ("length", float("inf"))):
            value = getattr(self, name)
            try:
                low, high = value
                good = 0 <= low <= high <= most
            except (TypeError, ValueError):
                good = False
            if not good:
                bound = ", at most 1" if most == 1.0 else ""
                raise InvalidInput(
                    f"RoundTrip: {name} must be (lowest, highest), 0 or more, in order{bound} (it is {value!r})"
                )
            object.__setattr__(self, name, (low, high))
        if self.negations is not None:
            if isinstance(self.negations, str) or not all(isinstance(word, str) for word in self.negations):
                raise InvalidInput(f"RoundTrip: negations must be a sequence of str (it is {self.negations!r})")
            object.__setattr__(self, "negations", tuple(self.negations))
        if isinstance(self.untranslated, bool) or not isinstance(self.untranslated, int) or self.untranslated < 0:
            raise InvalidInput(f"RoundTrip: untranslated must be 0 or more (it is {self.untranslated!r})")

    def judge(self, source: str, result: str, *, untranslated: int = 0) -> Verdict:
        """The verdict on one text.

        Args:
            source: The text.
            result: What came back.
            untranslated: How many words of the result the engine left in another language, if it says so.
        """
        words, others = _words(source), _words(result)
        common = sum((Counter(words) & Counter(others)).values())
        overlap = 2 * common / (len(words) + len(others)) if words or others else 1.0
        length = len(others) / len(words) if words else 0.0
        negations = NEGATIONS if self.negations is None else self.negations
        checks = (
            ("empty", not others),
            ("unchanged", source.casefold().split() == result.casefold().split()),
            ("untranslated", untranslated > self.untranslated),
            ("negation", _negations(words, negations) != _negations(others, negations)),
            ("number", self.numbers and _numbers(source, words) != _numbers(result, others)),
            ("length", not self.length[0] <= length <= self.length[1]),
            ("overlap", not self.overlap[0] <= overlap <= self.overlap[1]),
        )
        return Verdict(next((reason for reason, failed in checks if failed), ""), overlap, length)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def _negations(words: Sequence[str], negations: Iterable[str]) -> int:
    known = {word.lower().replace("\u2019", "'") for word in negations}
    ends = "n't" in known
    return sum(word in known or (ends and word.endswith("n't")) for word in words)


def _numbers(text: str, words: Sequence[str]) -> Counter[str]:
    """The numbers of a text: in digits, without what groups them, and in words, tens and ones taken together."""
    found = Counter(re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(text))
    tens = 0
    for word in "-".join(words).split("-"):
        value = _NAMED.get(word, 1 if word == "one" and tens else 0)
        if tens and 0 < value < 10:
            found[str(tens + value)] += 1
            tens = 0
            continue
        if tens:
            found[str(tens)] += 1
        tens = value if 20 <= value < 100 else 0
        if value and not tens:
            found[str(value)] += 1
    if tens:
        found[str(tens)] += 1
    return found
