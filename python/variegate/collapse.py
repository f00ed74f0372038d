"""Measures that show model collapse: how much of the real data's variety a training set still has.

A `Sketch` holds the token counts of the real data, and can be shipped where the text cannot. `measure` streams over
batches and compares them with it. Rare types go first when a model learns from its own output, while their share of
the mass stays the same in the mean; so `Measures.tail_coverage` counts which of them are still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from variegate import _core
from variegate.batch import TextBatch, TokenBatch
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Measures", "Meter", "Sketch", "measure"]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The measures of one corpus.

    Attributes:
        rows: Number of rows.
        tokens: Number of tokens.
        types: Number of different tokens.
        entropy: Shannon entropy of the token distribution, in bits; 0 for no tokens.
        coverage: Share of the reference's types that occur; None without a reference.
        tail_coverage: Share of the types in the reference's tail that occur; None without a reference, or where it
            has no tail.
        duplicate_share: Share of rows that repeat an earlier row token by token; 0 for no rows.
    """

    rows: int
    tokens: int
    types: int
    entropy: float
    coverage: float | None
    tail_coverage: float | None
    duplicate_share: float


class Sketch:
    """Mergeable statistics of a reference corpus: how often each token occurs.

    Only integers are held, so a sketch does not depend on how the data was split, ordered or merged. Memory: eight
    bytes for each id up to the highest below 2^18, and about 24 for each different one above.

    Example:
        >>> import variegate as vg
        >>> real = vg.TokenBatch.from_lists([[5] * 90, [6] * 6 + [7, 8, 8, 9]])
        >>> sketch = Sketch.build(real)
        >>> sketch
        Sketch(rows=2, tokens=100, types=5)
        >>> sketch.tail
        array([7, 8, 9], dtype=uint32)
        >>> Sketch.from_bytes(sketch.to_bytes()) == sketch
        True
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        """A sketch of nothing."""
        self._counts = _core.Counts()

    @classmethod
    def build(cls, data: TokenBatch | Iterable[TokenBatch]) -> Sketch:
        """A sketch of a batch, or of a stream of them, which is read once.

        Raises:
            InvalidInput: A batch of text: what counts are tokens.
        """
        sketch = cls()
        for batch in _batches(data):
            sketch.update(batch)
        return sketch

    def update(self, batch: TokenBatch) -> None:
        """Counts the tokens of a batch too. One increment a token.

        Raises:
            InvalidInput: A batch of text.
        """
        batch = _tokens(batch)
        self._counts.add(batch.tokens, batch.offsets)

    def merge(self, other: Sketch) -> None:
        """Adds what `other` counted, as if this sketch had seen both.

        Raises:
            InvalidInput: The sums exceed 64 bits; nothing is added.
        """
        self._counts.merge(other._counts.clone() if other is self else other._counts)

    def subtract(self, other: Sketch) -> None:
        """Takes back what `other` counted, so that a set less some of its rows need not be counted anew.

        Raises:
            InvalidInput: `other` counted more of something than this sketch; nothing is taken back.

        Example:
            >>> import variegate as vg
            >>> sketch = Sketch.build(vg.TokenBatch.from_lists([[5, 6], [5, 7]]))
            >>> sketch.subtract(Sketch.build(vg.TokenBatch.from_lists([[5, 7]])))
            >>> sketch == Sketch.build(vg.TokenBatch.from_lists([[5, 6]]))
            True
        """
        self._counts.subtract(other._counts.clone() if other is self else other._counts)

    def measures(self, *, distinct: int, reference: Sketch | None = None) -> Measures:
        """The measures of the corpus that was counted, where `distinct` of its rows differ from all earlier ones.

        Raises:
            InvalidInput: The reference has no tokens, or there are more different rows than rows.
        """
        return _measures(self._counts.measures(distinct, reference._counts if reference is not None else None))

    def to_bytes(self) -> bytes:
        """A form to store and ship, with version and checksum; equal sketches have equal bytes."""
        return self._counts.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Reads what `to_bytes` wrote.

        Raises:
            InvalidInput: The bytes are something else, of another version, torn or altered; the message says which.
        """
        sketch = cls()
        sketch._counts = _core.Counts.from_bytes(bytes(data))
        return sketch

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._counts.rows

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self._counts.tokens

    @property
    def types(self) -> int:
        """Number of different tokens."""
        return self._counts.types

    @property
    def counts(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """The tokens that occur, lowest first, as uint32[types], and how often, as uint64[types]."""
        return self._counts.sorted()

    @property
    def tail(self) -> NDArray[np.uint32]:
        """uint32[k]: the types outside the top 95 % of the mass, lowest first.

        The head is the shortest prefix of the types, by falling count and then rising id, that holds at least 95 % of
        all tokens; the tail is the rest.
        """
        return self._counts.tail()

    def __eq__(self, other: object) -> bool:
        """Whether both counted the same."""
        return isinstance(other, Sketch) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The numbers of rows, tokens and types."""
        return f"Sketch(rows={self.rows}, tokens={self.tokens}, types={self.types})"

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        """Pickles as its bytes."""
        return Sketch.from_bytes, (self.to_bytes(),)


class Meter:
    """`measure` for data that comes in parts; the result is that of the whole, in any order and split.

    Memory: that of a `Sketch`, and about 32 bytes for each different row.

    Example:
        >>> import variegate as vg
        >>> meter = Meter()
        >>> meter.update(vg.TokenBatch.from_lists([[5, 6], [7, 8]]))
        >>> meter.update(vg.TokenBatch.from_lists([[5, 6], [7, 8]]))
        >>> measures = meter.result()
        >>> measures.entropy, measures.duplicate_share
        (2.0, 0.5)
    """

    __slots__ = ("_meter", "_reference")

    def __init__(self, *, reference: Sketch | None = None) -> None:
        """Measures nothing yet, against `reference` if there is one."""
        self._meter = _core.Meter()
        self._reference = reference

    def update(self, batch: TokenBatch) -> None:
        """Takes a batch in. Cost: a SHA-256 of each row and one increment a token.

        Raises:
            InvalidInput: A batch of text.
        """
        batch = _tokens(batch)
        self._meter.add(batch.tokens, batch.offsets)

    def merge(self, other: Meter) -> None:
        """Takes in what `other` has; the reference stays this meter's.

        Raises:
            InvalidInput: The sums exceed 64 bits; nothing is taken.
        """
        self._meter.merge(other._meter.clone() if other is self else other._meter)

    def sketch(self) -> Sketch:
        """The token counts so far, to be a reference for other data."""
        sketch = Sketch()
        sketch._counts = self._meter.counts()
        return sketch

    def result(self) -> Measures:
        """The measures so far.

        Raises:
            InvalidInput: The reference has no tokens.
        """
        return _measures(self._meter.measures(self._reference._counts if self._reference is not None else None))


def measure(data: TokenBatch | Iterable[TokenBatch], *, reference: Sketch | None = None) -> Measures:
    """Measures a batch, or a stream of them, which is read once.

    Args:
        data: The rows.
        reference: A sketch of the real data, for coverage.

    Returns:
        Numbers that do not depend on the split into batches, the order of rows or threads.

    Raises:
        InvalidInput: A batch of text (encode it first); a reference without tokens.

    Example:
        >>> import variegate as vg
        >>> real = vg.TokenBatch.from_lists([[5] * 90, [6] * 6 + [7, 8, 8, 9]])
        >>> made = vg.TokenBatch.from_lists([[5, 5, 6, 6], [5, 5, 9, 9]])
        >>> measures = measure(made, reference=Sketch.build(real))
        >>> measures.entropy, measures.coverage, round(measures.tail_coverage, 3)
        (1.5, 0.6, 0.333)
    """
    meter = Meter(reference=reference)
    for batch in _batches(data):
        meter.update(batch)
    return meter.result()


def _measures(numbers: tuple[int, int, int, float, float | None, float | None, float]) -> Measures:
    rows, tokens, types, entropy, coverage, tail_coverage, duplicate_share = numbers
    return Measures(
        rows=rows,
        tokens=tokens,
        types=types,
        entropy=entropy,
        coverage=coverage,
        tail_coverage=tail_coverage,
        duplicate_share=duplicate_share,
    )


def _batches(data: TokenBatch | Iterable[TokenBatch]) -> Iterable[TokenBatch]:
    return (data,) if isinstance(data, TokenBatch | TextBatch) else data


def _tokens(batch: TokenBatch) -> TokenBatch:
    if isinstance(batch, TextBatch):
        raise InvalidInput("measures count tokens, and this is a TextBatch: encode it first")
    if not isinstance(batch, TokenBatch):
        raise InvalidInput(f"measures need a TokenBatch, not {type(batch).__name__}")
    return batch
