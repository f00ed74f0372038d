"""Keep order: which of two duplicates comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from variegate.batch import TextBatch, TokenBatch

Keep = Literal["longest", "first", "none"]


class Order:
    """What decides between rows before their length does, batch by batch: order, source, score, generation.

    Args:
        keep: ``"first"`` leaves generations aside.
        priority: Names of sources, the best first.

    Raises:
        InvalidInput: `priority` is not a sequence of names.
    """

    def __init__(self, keep: Keep, priority: Sequence[str] | None) -> None:
        """Checks the arguments."""
        self.keep = keep
        if isinstance(priority, str) or not isinstance(priority, Sequence | None):
            raise InvalidInput(f"priority must be a sequence of names of sources, not {type(priority).__name__}")
        self.priority = None if priority is None else list(priority)
        self.rows = 0
        self.columns: dict[str, list[NDArray[Any]]] = {"order": [], "priority": [], "score": [], "generation": []}

    def read(
        self, batch: TokenBatch | TextBatch, order: ArrayLike | None, score: ArrayLike | str | None
    ) -> dict[str, NDArray[Any] | None]:
        """What is known of the rows of a batch.

        Raises:
            InvalidInput: Numbers of the wrong kind or another length than there are rows, a NaN, or a rows column that
                the batch does not have.
        """
        rows = len(batch)
        generation = None if self.keep == "first" else batch.rows.get("generation")
        return {
            "order": _whole("order", order, rows),
            "priority": self._ranks(batch),
            "score": _scores(batch.rows, rows, score),
            "generation": _whole("generation", generation, rows),
        }

    def add(self, rows: int, known: dict[str, NDArray[Any] | None]) -> None:
        """Takes what `read` gave for some rows; where it gave nothing, rows are of 0."""
        for name, column in known.items():
            if column is not None and column.any():
                missing = self.rows - sum(map(len, self.columns[name]))
                self.columns[name] += [np.zeros(missing, column.dtype), column]
        self.rows += rows

    def places(self) -> NDArray[np.int64] | None:
        """int64[rows]: lower is kept first, equal where length and id are to decide; None if that is all rows."""
        keys = []
        for parts in self.columns.values():
            if parts:
                column = np.concatenate(parts)
                keys.append(np.concatenate([column, np.zeros(self.rows - len(column), column.dtype)]))
        if not keys:
            return None
        if len(keys) == 1 and keys[0].dtype == np.int64:
            return keys[0]
        sequence = np.lexsort(keys[::-1])
        steps = np.zeros(self.rows, np.int64)
        for key in keys:
            steps[1:] |= key[sequence[1:]] != key[sequence[:-1]]
        places = np.empty(self.rows, np.int64)
        places[sequence] = np.cumsum(steps)
        return places

    def _ranks(self, batch: TokenBatch | TextBatch) -> NDArray[np.int64] | None:
        if self.priority is None:
            return None
        if "source" not in batch.rows:
            raise InvalidInput("priority= needs a rows column 'source', and the batch has none")
        names, which = np.unique(batch.rows["source"].astype(str), return_inverse=True)
        place = {name: at - len(self.priority) for at, name in reversed(list(enumerate(self.priority)))}
        return np.array([place.get(name, 0) for name in names.tolist()], np.int64)[which]


def ranked(rows: int, order: ArrayLike | None, score: ArrayLike | None) -> NDArray[np.int64]:
    """int64[rows]: the rows by `order`, then by falling `score`, then as they come.

    Raises:
        InvalidInput: Numbers of the wrong kind or another length than there are rows, or a NaN.
    """
    keys = [_scores({}, rows, score), _whole("order", order, rows)]
    return np.lexsort([np.arange(rows), *(key for key in keys if key is not None)])


def _scores(columns: dict[str, NDArray[Any]], rows: int, score: ArrayLike | str | None) -> NDArray[np.float64] | None:
    if score is None:
        return None
    if isinstance(score, str):
        if score not in columns:
            raise InvalidInput(f"score '{score}' is no rows column of the batch (it has {sorted(columns)})")
        score = columns[score]
    scores = np.asarray(score)
    if scores.size == 0:
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or scores.dtype.kind not in "fiub":
        raise InvalidInput(f"score must be one-dimensional and of numbers (it is {scores.dtype}{list(scores.shape)})")
    if len(scores) != rows:
        raise InvalidInput(f"score must hold one number a row ({len(scores)} for {rows} rows)")
    scores = scores.astype(np.float64)
    if np.isnan(scores).any():
        raise InvalidInput(f"score must not be NaN (row {int(np.isnan(scores).argmax())})")
    return -scores


def _whole(name: str, values: ArrayLike | None, rows: int) -> NDArray[np.int64] | None:
    if values is None:
        return None
    places = np.asarray(values)
    if places.size == 0:
        places = places.astype(np.int64)
    if places.ndim != 1 or not np.issubdtype(places.dtype, np.integer):
        raise InvalidInput(f"{name} must be one-dimensional and of integers (it is {places.dtype}{list(places.shape)})")
    if len(places) != rows:
        raise InvalidInput(f"{name} must hold one number a row ({len(places)} for {rows} rows)")
    if places.dtype == np.uint64 and places.size and places.max() > np.iinfo(np.int64).max:
        row = int(places.argmax())
        raise InvalidInput(f"{name} must lie below 2^63 (row {row}: {places[row]})")
    return np.ascontiguousarray(places, np.int64)
