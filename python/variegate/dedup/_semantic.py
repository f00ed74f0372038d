"""Semantic duplicates: rows whose embeddings point the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from variegate.batch import _integers
from variegate.dedup._near import DedupResult
from variegate.dedup._order import ranked
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BLOCK = 1024
LEADERS = 8192
"""Rows and leaders of one product of matrices: at most 32 MiB."""


def semantic(
    embeddings: NDArray[np.float32],
    threshold: float,
    *,
    ids: ArrayLike | None = None,
    order: ArrayLike | None = None,
    score: ArrayLike | None = None,
) -> DedupResult:
    """Finds rows whose embeddings have a cosine of at least `threshold` (leader clustering).

    In keep order, a row goes if a row already kept is similar; the first such row is its keeper. Where the product of
    matrices in float32 leaves a doubt, a pair is decided by the sum of its products in float64, element after element,
    so the result depends on neither block sizes nor threads. A row of zeros points nowhere: it is similar to none and
    stays. The embeddings are yours: no model is inside (Abbas et al., "SemDeDup", 2023, compares such vectors within
    clusters of k-means; here every pair counts).

    Cost: rows times rows that stay times `d` multiplications; a normalised copy of the embeddings.

    Args:
        embeddings: float32[rows, d].
        threshold: Least cosine of duplicates, in (0, 1].
        ids: uint64[rows]: what `keeper_ids` are taken from; by default the numbers of the rows.
        order: Integer [rows]: lower is kept first.
        score: Numbers [rows]: higher is kept first. Decides after `order`; then the first row comes first.

    Returns:
        As of `near`; `similarity` is the cosine with the keeper, and 1 for a row that stays. ``stats``: ``rows`` =
        ``kept`` + ``exact`` (of the same numbers as the keeper) + ``near``; ``zero``: rows of zeros; ``decided``: pairs
        that were decided in float64.

    Raises:
        InvalidInput: Embeddings that are not float32[rows, d], or hold NaN or infinity (the row is named); a threshold
            out of range; ids, order or score of another length.

    Example:
        >>> import numpy as np, variegate as vg
        >>> found = vg.dedup.semantic(np.array([[1, 0], [0, 1], [2, 0.1]], np.float32), 0.99)
        >>> found.keeper
        array([0, 1, 0])
        >>> round(float(found.similarity[2]), 4)
        0.9988
    """
    if not isinstance(embeddings, np.ndarray):
        raise InvalidInput(f"embeddings must be float32[rows, d], not {type(embeddings).__name__}")
    if embeddings.dtype != np.float32 or embeddings.ndim != 2:
        raise InvalidInput(f"embeddings must be float32[rows, d] (they are {embeddings.dtype}{list(embeddings.shape)})")
    if not 0 < threshold <= 1:
        raise InvalidInput(f"threshold must lie in (0, 1] (it is {threshold})")
    rows, width = embeddings.shape
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise InvalidInput(f"embeddings must be finite (row {int(finite.argmin())} is not)")
    names = np.arange(rows, dtype=np.uint64) if ids is None else _integers("ids", ids, np.uint64)
    if len(names) != rows:
        raise InvalidInput(f"ids must hold one number a row ({len(names)} for {rows} rows)")
    sequence = ranked(rows, order, score)
    squares = np.empty(rows)
    units = np.empty_like(embeddings, order="C")
    for at in range(0, rows, BLOCK):
        block = embeddings[at : at + BLOCK]
        squares[at : at + BLOCK] = _dots(block, block)
        lengths = np.sqrt(squares[at : at + BLOCK])
        units[at : at + BLOCK] = block / np.where(lengths > 0, lengths, 1)[:, None]
    # The most by which a product in float32 may be off, in whatever order it is summed.
    doubt = np.float32((width + 4) * 2.0**-23)
    keeper = np.arange(rows)
    leaders: list[NDArray[np.int64]] = []
    decided = 0

    def first_similar(r: int, candidates: NDArray[np.int64], cosines: NDArray[np.float32]) -> int | None:
        nonlocal decided
        for other, cosine in zip(candidates.tolist(), cosines.tolist(), strict=True):
            if cosine >= threshold + doubt:
                return int(other)
            decided += 1
            if _cosine(embeddings, squares, r, other) >= threshold:
                return int(other)
        return None

    for at in range(0, rows, BLOCK):
        left = sequence[at : at + BLOCK]
        left = left[squares[left] > 0]
        for some in _chunks(leaders):
            cosines = units[left] @ units[some].T
            near = cosines >= threshold - doubt
            for i in np.flatnonzero(near.any(axis=1)).tolist():
                columns = np.flatnonzero(near[i])
                found = first_similar(int(left[i]), some[columns], cosines[i, columns])
                if found is not None:
                    keeper[left[i]] = found
            left = left[keeper[left] == left]
        cosines = units[left] @ units[left].T
        near = np.tril(cosines >= threshold - doubt, -1)
        stays = np.ones(len(left), bool)
        for i in np.flatnonzero(near.any(axis=1)).tolist():
            columns = np.flatnonzero(near[i] & stays)
            found = first_similar(int(left[i]), left[columns], cosines[i, columns])
            if found is not None:
                keeper[left[i]], stays[i] = found, False
        leaders.append(left[stays])
    return _result(embeddings, squares, keeper, names, decided)


def _chunks(leaders: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    if not leaders:
        return []
    together = np.concatenate(leaders)
    return [together[at : at + LEADERS] for at in range(0, len(together), LEADERS)]


def _dots(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each pair of rows, in float64, where a product of two float32 is exact."""
    dots: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=-1)
    return dots


def _cosine(embeddings: NDArray[np.float32], squares: NDArray[np.float64], r: int, other: int) -> float:
    dot = _dots(embeddings[r : r + 1], embeddings[other : other + 1])[0]
    return float(dot / np.sqrt(squares[r] * squares[other]))


def _result(
    embeddings: NDArray[np.float32],
    squares: NDArray[np.float64],
    keeper: NDArray[np.int64],
    ids: NDArray[np.uint64],
    decided: int,
) -> DedupResult:
    rows = len(keeper)
    keep = keeper == np.arange(rows)
    similarity = np.ones(rows, np.float32)
    copies = 0
    gone = np.flatnonzero(~keep)
    for at in range(0, len(gone), BLOCK):
        some = gone[at : at + BLOCK]
        kept = keeper[some]
        similarity[some] = _dots(embeddings[some], embeddings[kept]) / np.sqrt(squares[some] * squares[kept])
        copies += int((embeddings[some] == embeddings[kept]).all(axis=1).sum())
    _, first, inverse = np.unique(keeper, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    stats = {
        "rows": rows,
        "kept": int(keep.sum()),
        "exact": copies,
        "near": len(gone) - copies,
        "zero": int((squares == 0).sum()),
        "decided": decided,
    }
    return DedupResult(
        keep=keep,
        keeper=keeper,
        keeper_ids=ids[keeper],
        cluster=number[inverse],
        similarity=similarity,
        stats=stats,
    )
