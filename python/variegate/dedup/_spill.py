"""Deduplication of more rows than memory holds: units and keys wait on disk, and components are decided in groups."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from variegate import _core
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

ROW_BYTES, UNIT_BYTES = 600, 16
"""About what a row and a unit cost while they are compared with others."""

BLOCK = 1 << 16
"""Rows that are looked at together where all are passed over."""

LEAST = 1 << 24
"""Least `memory`: below it the parts would be too small to be worth their files."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a deduplication is; sent as it goes, and at the end of each stage.

    Attributes:
        stage: ``"read"`` (rows taken in), ``"join"`` (keys joined) or ``"compare"`` (rows decided).
        done: Rows taken in or decided, or bands joined.
        total: How many there will be, or None while that is not known.
        seconds: Since the call began, or the first rows came.
    """

    stage: Literal["read", "join", "compare"]
    done: int
    total: int | None
    seconds: float


Listener = Callable[[Progress], None]


def bytes_of(memory: int | str) -> int:
    """A number of bytes, or a size like '256MB' or '2GiB'.

    Raises:
        InvalidInput: Neither, or less than 16 MiB.
    """
    size = memory
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\s*", memory, re.IGNORECASE)
        if not found:
            raise InvalidInput(f"memory must be a number of bytes or a size like '512MB' or '2GiB' (it is '{memory}')")
        number, prefix, binary = found.groups()
        size = int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " "))
    if isinstance(size, bool) or not isinstance(size, int) or size < LEAST:
        raise InvalidInput(f"memory must be at least 16 MiB (it is {memory!r})")
    return size


def whole_components(
    roots: NDArray[np.uint32], costs: Callable[[NDArray[np.uint32]], NDArray[np.int64]], share: int
) -> Iterator[tuple[Rows, bool]]:
    """Whole components, as many together as cost no more than `share`, or one that does not fit by itself.

    Components of one row are left out. Rows are ascending. Holds four bytes for each row that shares a component, and
    what it gives.

    Args:
        roots: The lowest row of each row's component.
        costs: What it costs to compare each of some rows.
        share: How much the rows of one group may cost.
    """
    members = _core.shared_rows(roots)
    lasts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    sums: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    spent = 0
    for start in range(0, len(members), BLOCK):
        some = roots[members[start : start + BLOCK + 1]]
        last = np.flatnonzero(some[1:] != some[:-1])
        if start + BLOCK >= len(members):
            last = np.append(last, len(members) - 1 - start)
        total = spent + np.cumsum(costs(members[start : start + BLOCK]))
        lasts.append(start + last)
        sums.append(total[last])
        spent = int(total[-1])
    ends, upto = np.concatenate(lasts) + 1, np.concatenate(sums)
    done = at = first = 0
    while at < len(ends):
        next_ = max(at + 1, int(np.searchsorted(upto, done + share, side="right")))
        rows = np.sort(members[first : ends[next_ - 1]]).astype(np.int64)
        yield rows, int(upto[next_ - 1]) - done <= share
        done, first, at = int(upto[next_ - 1]), int(ends[next_ - 1]), next_


def comparison_bytes(lengths: NDArray[np.uint32]) -> NDArray[np.int64]:
    """About what it takes to compare rows with so many units."""
    return ROW_BYTES + UNIT_BYTES * lengths.astype(np.int64)


def runs_of(rows: Rows, lengths: NDArray[np.uint32], most: int) -> list[Rows]:
    """Rows in runs that take about so many bytes to compare, and at least a row each."""
    costs = np.cumsum(comparison_bytes(lengths[rows]))
    cuts = np.flatnonzero(np.diff(costs // max(1, most))) + 1
    return [block for block in np.split(rows, cuts) if len(block)]


class Part(Protocol):
    """What some rows came to: those that go, each with the row that is kept instead."""

    @property
    def row(self) -> Rows:
        """Rows that go."""

    @property
    def keeper(self) -> Rows:
        """The row that is kept instead of each."""

    def take(self, which: Any) -> Self:
        """Some of them."""


Found = TypeVar("Found", bound=Part)


def by_blocks(
    ranked: Rows,
    blocks: Callable[[Rows], list[Rows]],
    compare: Callable[[Rows], Found],
    against: Callable[[Rows, Rows], Found] | None = None,
) -> list[Found]:
    """What a component that is too large to be compared at once comes to, with closure leader.

    A row that goes is of no concern to later ones, so what a block needs of those before it are the rows kept. So near-
    copies of one row take linear time, and rows that are all kept as many comparisons of blocks as there are pairs.

    Args:
        ranked: The rows in keep order.
        blocks: Cuts rows into runs of which two can be compared at once.
        compare: What becomes of rows, ascending, as if there were no others.
        against: Which of rows, ascending, go in favour of others, which are kept; None to compare all of them.
    """

    def among_all(before: Rows, left: Rows) -> Found:
        near = compare(np.sort(np.concatenate([before, left])))
        return near.take(np.isin(near.keeper, before) & np.isin(near.row, left))

    against = against or among_all
    found: list[Found] = []
    kept: list[Rows] = []
    for block in blocks(ranked):
        left = np.sort(block)
        for before in kept:
            found.append(against(before, left))
            left = np.setdiff1d(left, found[-1].row, assume_unique=True)
        found.append(compare(left))
        stay = np.setdiff1d(left, found[-1].row, assume_unique=True)
        kept = [*kept[:-1], *blocks(np.concatenate([*kept[-1:], stay]))]
    return found


class Keyed(NamedTuple):
    """Rows with their keys, as the core searches them."""

    units: NDArray[np.uint32] | NDArray[np.uint64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    short_keys: NDArray[np.uint64]
    short_rows: NDArray[np.uint32]
    runs: NDArray[np.uint32]
    removed: NDArray[np.uint8] = np.empty(0, np.uint8)


class _Gone(NamedTuple):
    row: Rows
    keeper: Rows
    similarity: NDArray[np.float32]

    def take(self, which: Any) -> _Gone:
        return _Gone(*(column[which] for column in self))


class Spill:
    """Rows that wait on disk until they are decided, in a directory that goes with this object.

    Resident are 4 bytes a row as rows come, 12 and a quarter of `memory` while keys are joined, then 24 and what a
    group of components takes: a quarter of `memory`, unless one component takes more and its closure is not leader.

    Args:
        params: How near-duplicates are found.
        ngram: Units in a shingle.
        leader: Whether the closure is leader.
        first: Whether the earlier row comes first in keep order, and not the longest.
        memory: Bytes.
        directory: Where the files go; None for the system's temporary directory.
        progress: Called with a `Progress`.
    """

    def __init__(
        self,
        params: _core.NearParams,
        *,
        ngram: int,
        leader: bool,
        first: bool,
        memory: int,
        directory: str | os.PathLike[str] | None = None,
        progress: Listener | None = None,
    ) -> None:
        """Makes the directory."""
        self._params, self._ngram, self._leader, self._first = params, ngram, leader, first
        self._memory, self._progress = memory, progress
        self._folder = tempfile.TemporaryDirectory(prefix="variegate-dedup-", dir=directory)
        self._path = Path(self._folder.name)
        self._dtype: Any = np.dtype(np.uint32)
        self._lengths: list[NDArray[np.uint32]] = [np.empty(0, np.uint32)]
        self._rows = self._units = 0
        self._started: float | None = None

    def add(self, units: Any, offsets: NDArray[np.int64], ids: NDArray[np.uint64]) -> None:
        """Takes rows of units, which are uint32 or uint64, always the same."""
        if self._started is None:
            self._started = time.monotonic()
        self._dtype = units.dtype
        step = max(1, self._memory // 8 // (16 * (1 + self._params.bands)))
        for start in range(0, len(ids), step):
            some = offsets[start : start + step + 1]
            mine = units[some[0] : some[-1]]
            keys = self._params.keys(mine, some - some[0])
            self._append("content", keys[0])
            for band, column in enumerate(keys[1:]):
                self._append(f"band-{band}", (column >> np.uint64(32)).astype(np.uint32))
            self._append("units", mine)
            self._append("offsets", some[:-1] - some[0] + self._units)
            self._append("ids", ids[start : start + step])
            self._lengths.append(np.diff(some).astype(np.uint32))
            self._units += len(mine)
            self._rows += len(some) - 1
        self._say("read", self._rows, None)

    def result(
        self, order: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], dict[str, int]]:
        """What the core's deduper says of all rows: keeper, cluster, similarity, counts."""
        lengths = np.concatenate(self._lengths)
        self._lengths = [lengths]
        roots = self._components(lengths)
        empty = np.empty(0, np.uint64)
        stats = self._params.tokens(empty.astype(self._dtype), np.zeros(1, np.int64), empty, None)[3]
        keeper, similarity = np.arange(self._rows), np.ones(self._rows, np.float32)
        grouped = shingled = 0
        for rows, fits in whole_components(roots, lambda rows: comparison_bytes(lengths[rows]), self._memory // 4):
            if fits or not self._leader:
                found, counts = self._compare(rows, order)
            else:
                found, counts = self._crowd(rows, order, lengths)
            keeper[found.row], similarity[found.row] = found.keeper, found.similarity
            for name, count in counts.items():
                stats[name] = max(stats[name], count) if name in SAME else stats[name] + count
            grouped += len(rows)
            shingled += int(np.count_nonzero(lengths[rows] >= self._ngram))
            self._say("compare", grouped, self._rows)
        alone = self._rows - grouped
        stats["kept"] += alone
        stats["rows"] += alone
        stats["short"] += alone - (int(np.count_nonzero(lengths >= self._ngram)) - shingled)
        if alone or not self._rows:
            self._say("compare", self._rows, self._rows)
        del roots
        return keeper, _core.clusters(keeper), similarity, stats

    def ids(self) -> NDArray[np.uint64]:
        """The ids of all rows."""
        ids: NDArray[np.uint64] = self._read("ids", np.uint64)
        return ids

    def _components(self, lengths: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The lowest row of each row's component.

        Rows join that share half a key, as buckets do, so that a component is compared as it would be among all rows.
        """
        joined = _core.Components(self._rows)
        bands = self._params.bands
        rows = np.flatnonzero(lengths < self._ngram).astype(np.uint32)
        self._join(joined, "content", np.uint64, rows)
        self._say("join", 1, 1 + bands)
        rows = np.flatnonzero(lengths >= self._ngram).astype(np.uint32)
        for band in range(bands):
            self._join(joined, f"band-{band}", np.uint32, rows)
            self._say("join", 2 + band, 1 + bands)
        return joined.roots()

    def _join(self, joined: _core.Components, name: str, dtype: Any, rows: NDArray[np.uint32]) -> None:
        """Joins rows, ascending, by their keys, a range of keys at a time that fits the memory."""
        ranges = max(1, -(-24 * len(rows) // max(1, self._memory // 4)))
        shift = np.uint64(64 - 8 * np.dtype(dtype).itemsize)
        for number in range(ranges):
            low, high = (number << 64) // ranges, ((number + 1) << 64) // ranges - 1
            keys: list[NDArray[np.uint64]] = []
            found: list[NDArray[np.uint32]] = []
            for start in range(0, self._rows, BLOCK * 16):
                a, b = np.searchsorted(rows, (start, start + BLOCK * 16))
                block = self._read(name, dtype, start, min(BLOCK * 16, self._rows - start))
                wide = block[rows[a:b] - np.uint32(start)].astype(np.uint64) << shift
                mine = rows[a:b]
                if ranges > 1:
                    within = (wide >= np.uint64(low)) & (wide <= np.uint64(high))
                    wide, mine = wide[within], mine[within]
                keys.append(wide)
                found.append(mine)
            if keys:
                joined.join(np.concatenate(keys), np.concatenate(found))

    def _compare(self, rows: Rows, order: NDArray[np.int64] | None) -> tuple[_Gone, dict[str, int]]:
        """Decides rows, ascending, as if there were no others."""
        units, offsets = self._load(rows)
        places = None if order is None else order[rows]
        keeper, _, similarity, stats = self._params.tokens(units, offsets, self._ids_of(rows), places)
        gone = np.flatnonzero(keeper != np.arange(len(rows)))
        return _Gone(rows[gone], rows[keeper[gone]], similarity[gone]), stats

    def _crowd(
        self, rows: Rows, order: NDArray[np.int64] | None, lengths: NDArray[np.uint32]
    ) -> tuple[_Gone, dict[str, int]]:
        """Decides a component that does not fit, block by block."""
        keys: list[Any] = [rows]
        if not self._first:
            keys += [self._ids_of(rows), -lengths[rows].astype(np.int64)]
        if order is not None:
            keys.append(order[rows])
        counted: dict[str, int] = {}

        def compare(some: Rows) -> _Gone:
            found, counts = self._compare(some, order)
            for name in ("compared", "similar", "capped_buckets", "capped_rows"):
                counted[name] = counted.get(name, 0) + counts[name]
            counted["largest_bucket"] = max(counted.get("largest_bucket", 0), counts["largest_bucket"])
            return found

        ranked = rows[np.lexsort(keys)]
        rank = np.empty(len(rows), np.int64)
        rank[np.searchsorted(rows, ranked)] = np.arange(len(rows))

        def against(before: Rows, left: Rows) -> _Gone:
            before = before[np.argsort(rank[np.searchsorted(rows, before)])]
            mine, kept = self._keyed(left), self._keyed(before)
            row, keeper, similarity = _core.index_first_matches(self._params, mine, kept, False)
            return _Gone(left[row], before[keeper], similarity)

        parts = by_blocks(ranked, lambda some: runs_of(some, lengths, self._memory // 8), compare, against)
        found = _Gone(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        content = self._ranges("content", rows, np.uint64)
        distinct = len(np.unique(content))
        short = len(np.unique(content[lengths[rows] < self._ngram]))
        exact = len(rows) - distinct
        return found, {
            **counted,
            "rows": len(rows),
            "kept": len(rows) - len(found.row),
            "exact": exact,
            "near": len(found.row) - exact,
            "short": short,
        }

    def _keyed(self, rows: Rows) -> Keyed:
        units, offsets = self._load(rows)
        return Keyed(units, offsets, *_core.index_keys(self._params, units, offsets))

    def _load(self, rows: Rows) -> tuple[Any, NDArray[np.int64]]:
        """Units and offsets of rows."""
        starts = self._ranges("offsets", rows, np.int64)
        lengths = self._lengths[0][rows]
        size = self._dtype.itemsize
        data = _core.read_ranges(str(self._path / "units"), starts * size, (starts + lengths) * size)
        return data.view(self._dtype), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def _ids_of(self, rows: Rows) -> NDArray[np.uint64]:
        ids: NDArray[np.uint64] = self._ranges("ids", rows, np.uint64)
        return ids

    def _ranges(self, name: str, rows: Rows, dtype: Any) -> Any:
        """The values of rows in a file that has one of eight bytes for each."""
        return _core.read_ranges(str(self._path / name), rows * 8, rows * 8 + 8).view(dtype)

    def _read(self, name: str, dtype: Any, start: int = 0, count: int = -1) -> Any:
        path = self._path / name
        if not self._rows:
            return np.empty(0, dtype)
        return np.fromfile(path, dtype, count, offset=start * np.dtype(dtype).itemsize)

    def _append(self, name: str, values: Any) -> None:
        with open(self._path / name, "ab") as file:
            np.ascontiguousarray(values).tofile(file)

    def _say(self, stage: Literal["read", "join", "compare"], done: int, total: int | None) -> None:
        if self._progress is not None:
            seconds = 0.0 if self._started is None else time.monotonic() - self._started
            self._progress(Progress(stage=stage, done=done, total=total, seconds=seconds))


SAME = ("bands", "band_width", "largest_bucket")
"""Counts that do not add up over groups."""
