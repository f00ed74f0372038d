"""What rows are compared by: units, normalisation, and the settings of known pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from variegate import _core
from variegate.batch import TextBatch, TokenBatch, _integers
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from variegate.tokenizer import Tokenizer

Unit = Literal["token", "word", "char"]
Preset = Literal["fineweb", "slimpajama", "nemo"]


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Which differences between texts do not count.

    What is named is done in the order of the fields; words are split at white space before, so that each is normalised
    by itself, and one of which nothing is left is no word.

    Attributes:
        unicode: The normalisation form that texts are brought to (UAX 15), or None.
        accents: Whether to take accents off: NFD, less its nonspacing marks (``Mn``).
        case: Whether to put texts in lower case.
        punctuation: Whether to take punctuation out: ``P`` in Unicode, and the symbols of ASCII.
        digits: Whether to make one 0 of every run of decimal digits (``Nd``).
        whitespace: Whether to make one space of every run of white space, and none at the ends. Words are split at
            white space in any case.

    Raises:
        InvalidInput: `unicode` is no normalisation form.

    Example:
        >>> import variegate as vg
        >>> texts = vg.TextBatch.from_texts(["In  1984, he said: Né!"])
        >>> vg.dedup.Normalize(accents=True, punctuation=True, digits=True).apply(texts).texts
        ['in 0 he said ne']
    """

    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None
    accents: bool = False
    case: bool = True
    punctuation: bool = False
    digits: bool = False
    whitespace: bool = True

    def __post_init__(self) -> None:
        """Checks the form."""
        if self.unicode not in (None, "NFC", "NFD", "NFKC", "NFKD"):
            raise InvalidInput(f"unicode must be 'NFC', 'NFD', 'NFKC', 'NFKD' or None (it is '{self.unicode}')")

    def apply(self, batch: TextBatch) -> TextBatch:
        """The texts as they are compared, with the ids and rows of the batch; spans are left behind."""
        data, offsets = _core.normalize_texts(_texts(batch).data, batch.offsets, self._fields)
        return TextBatch._trusted(data, offsets, batch.ids, batch.rows, None)

    @property
    def _fields(self) -> tuple[str | None, bool, bool, bool, bool, bool]:
        return self.unicode, self.accents, self.case, self.punctuation, self.digits, self.whitespace


class _Pipeline(NamedTuple):
    unit: Unit
    ngram: int
    threshold: float
    normalize: Normalize


PRESETS: dict[str, _Pipeline] = {
    "fineweb": _Pipeline("word", 5, 0.75, Normalize(accents=True, punctuation=True, digits=True)),
    "slimpajama": _Pipeline("char", 13, 0.8, Normalize(unicode="NFC", punctuation=True)),
    "nemo": _Pipeline("char", 24, 0.8, Normalize(case=False, whitespace=False)),
}
"""Sources: see `near`."""


def preset_of(name: str | None) -> _Pipeline | None:
    """The settings of a preset.

    Raises:
        InvalidInput: There is no such preset.
    """
    if name is None:
        return None
    if name not in PRESETS:
        raise InvalidInput(f"preset must be 'fineweb', 'slimpajama' or 'nemo' (it is '{name}')")
    return PRESETS[name]


class Units:
    """How the rows of a batch become units.

    Args:
        unit: What a shingle is made of; None takes the default of the batch.
        normalize: What is done to texts first; None is `Normalize()`, and for tokens of texts nothing.
        tokenizer: Encodes texts whose unit is the token.
        skip: Token ids that are left out.
        fold: uint32[vocabulary]: what each token id counts as.

    Raises:
        InvalidInput: A unit that there is not, or arguments that do not go together.
    """

    def __init__(
        self,
        unit: Unit | None = None,
        normalize: Normalize | None = None,
        tokenizer: Tokenizer | None = None,
        skip: ArrayLike | None = None,
        fold: ArrayLike | None = None,
    ) -> None:
        """Checks the arguments."""
        if unit not in (None, "token", "word", "char"):
            raise InvalidInput(f"unit must be 'token', 'word' or 'char' (it is '{unit}')")
        if not isinstance(normalize, Normalize | None):
            raise InvalidInput(f"normalize must be a Normalize, not {type(normalize).__name__}")
        self.unit, self.normalize, self.tokenizer = unit, normalize, tokenizer
        self.skip = _integers("skip", () if skip is None else skip, np.uint32)
        self.fold = _integers("fold", () if fold is None else fold, np.uint32)
        if unit in ("word", "char"):
            for name, value in [("tokenizer", tokenizer), ("skip", skip), ("fold", fold)]:
                if value is not None:
                    raise InvalidInput(f"{name}= is for unit 'token' (the unit is '{unit}')")

    def of(self, batch: TokenBatch | TextBatch) -> Unit:
        """The unit that rows of this batch are compared by.

        Raises:
            InvalidInput: The batch does not have the unit, or does not go with the other arguments.
        """
        if isinstance(batch, TokenBatch):
            if self.unit not in (None, "token"):
                raise InvalidInput(f"unit '{self.unit}' needs a TextBatch, and this is a TokenBatch")
            for name, value in [("tokenizer", self.tokenizer), ("normalize", self.normalize)]:
                if value is not None:
                    raise InvalidInput(f"{name}= is for a TextBatch, and this is a TokenBatch")
            return "token"
        _texts(batch)
        if self.tokenizer is None and self.unit == "token":
            raise InvalidInput(
                "unit 'token' needs a TokenBatch, and this is a TextBatch: encode it first, or give a tokenizer="
            )
        unit = self.unit or ("word" if self.tokenizer is None else "token")
        if unit != "token" and len(self.skip) + len(self.fold):
            raise InvalidInput("skip= and fold= need tokens, and this is a TextBatch: give a tokenizer=")
        return unit

    def tokens(self, batch: TokenBatch | TextBatch) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The tokens that are compared, and their offsets: those of the batch itself where nothing is to be done.

        Raises:
            InvalidInput: A token that `fold` has no number for, or a text that the tokenizer cannot encode.
        """
        if isinstance(batch, TextBatch):
            assert self.tokenizer is not None
            batch = self.tokenizer.encode(batch if self.normalize is None else self.normalize.apply(batch))
        if len(self.skip) + len(self.fold) == 0:
            return batch.tokens, batch.offsets
        return _core.select_tokens(batch.tokens, batch.offsets, self.skip, self.fold)

    def split(self, batch: TokenBatch | TextBatch) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """What the shingles of each row are made of: uint32 tokens or code points, or uint64 words; and the offsets.

        Raises:
            InvalidInput: As `of` and `tokens`.
        """
        unit = self.of(batch)
        if isinstance(batch, TokenBatch) or unit == "token":
            return self.tokens(batch)
        made = _core.text_chars if unit == "char" else _core.text_words
        return made(batch.data, batch.offsets, self.core())

    def core(self) -> tuple[str | None, bool, bool, bool, bool, bool]:
        """The normalisation of words and characters, as the core takes it."""
        return (self.normalize or Normalize())._fields


def _texts(batch: TokenBatch | TextBatch) -> TextBatch:
    if not isinstance(batch, TextBatch):
        raise InvalidInput(f"deduplication needs a TokenBatch or a TextBatch, not {type(batch).__name__}")
    return batch
