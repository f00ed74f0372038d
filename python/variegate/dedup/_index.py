"""An index on disk: which of many stored rows are similar to given ones.

A directory holds segments, files that are never changed, and a manifest that says which of them count. A change
writes its files first and then replaces the manifest in one step, so whoever opens the index finds it as it was before
the change or as it is after. docs/dedup-index.md has the layout of the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from variegate import _core
from variegate import _store as files
from variegate.batch import TextBatch, TokenBatch
from variegate.dedup._units import Units
from variegate.errors import CorruptRun, InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from variegate.dedup._units import Unit

__all__ = ["Added", "Index", "Matches"]

MANIFEST, FORMAT, VERSION = "index.json", "variegate index", 1
MAGIC = b"variegate index\n"
HEAD = struct.Struct("<16sIIQQQII8x")
"""Magic, version, bytes of a unit, rows, units, rows without a shingle, bands, 0."""

FAN = 4
"""Segments of about one size, or less, that become one; sizes are told apart by factors of it."""

PIECE = 1 << 16
"""Rows that are copied at a time where some of them are gone."""

_OURS = re.compile(rf"(segment|removed)-[0-9a-f]{{16}}\.bin|{re.escape(files.TEMPORARY)}.*")


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Pairs of a queried row and a record of the index that are similar, by row and then by record.

    Attributes:
        left: int64[n], the row of the query.
        right: int64[n], the number of the record in the index, in the order of arrival; numbers change when the
            index does.
        left_ids: uint64[n], the `ids` of those rows.
        right_ids: uint64[n], the ids of those records.
        similarity: float32[n], their exact Jaccard similarity, `threshold` or more.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    left_ids: NDArray[np.uint64]
    right_ids: NDArray[np.uint64]
    similarity: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.left)

    def __repr__(self) -> str:
        """Counts."""
        return f"Matches(pairs={len(self)}, rows={len(np.unique(self.left))})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """What became of rows that came to an index.

    Attributes:
        keep: bool[rows], whether neither a record of the index nor an earlier row that was stored is similar.
        keeper_ids: uint64[rows], the id of the first record that is similar; the row's own if there is none.
        keeper: int64[rows], the row of the batch that this record is: the row itself if there is none, -1 if the
            record was in the index before.
        similarity: float32[rows], exact Jaccard similarity with that record; 1 for a row that has none.
        stored: How many rows became records.
    """

    keep: NDArray[np.bool_]
    keeper_ids: NDArray[np.uint64]
    keeper: NDArray[np.int64]
    similarity: NDArray[np.float32]
    stored: int

    def __repr__(self) -> str:
        """Counts."""
        known, within = int((self.keeper < 0).sum()), int((~self.keep & (self.keeper >= 0)).sum())
        return f"Added(rows={len(self.keep)}, stored={self.stored}, known={known}, within={within})"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Segment:
    """Rows with their keys, as the core takes them."""

    ids: NDArray[np.uint64]
    units: NDArray[np.uint32] | NDArray[np.uint64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    short_keys: NDArray[np.uint64]
    short_rows: NDArray[np.uint32]
    runs: NDArray[np.uint32]
    removed: NDArray[np.uint8]
    entry: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def gone(self) -> int:
        return int(np.count_nonzero(self.removed))

    def pieces(self) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Units and lengths of the rows that stay."""
        if not self.gone:
            yield self.units, np.diff(self.offsets)
            return
        for start in range(0, len(self), PIECE):
            offsets = self.offsets[start : start + PIECE + 1]
            stays = self.removed[start : start + PIECE] == 0
            lengths = np.diff(offsets)
            yield self.units[offsets[0] : offsets[-1]][np.repeat(stays, lengths)], lengths[stays]

    def gathered(self) -> tuple[Any, NDArray[np.int64]]:
        """Units and offsets of the rows that stay."""
        pieces, lengths = zip(*self.pieces(), strict=True)
        units = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return units, np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)

    def staying(self, values: NDArray[Any]) -> NDArray[Any]:
        """Those of values, one a row, whose rows stay."""
        return values[self.removed == 0] if self.gone else values


class Index:
    """Rows on disk, and which of them are similar to given ones. Made by `create` and `open`.

    Many processes may have an index open to read, and one of them to append. A reader sees the index as it was when
    it was opened. Files are mapped, not read: what is not looked at takes no memory.

    An index is a context: leaving it closes it.

    Attributes:
        path: Its directory.
        mode: ``"r"`` or ``"a"``.

    Example:
        >>> import tempfile
        >>> import variegate as vg
        >>> folder = tempfile.TemporaryDirectory()
        >>> texts = ["the quick brown fox jumps over it", "something else"]
        >>> with vg.dedup.Index.create(f"{folder.name}/seen", ngram=2, threshold=0.7) as index:
        ...     added = index.add(vg.TextBatch.from_texts(texts, ids=[10, 11]))
        ...     again = index.add(vg.TextBatch.from_texts(["the quick brown fox jumps over me"], ids=[12]))
        >>> added.keep, again.keep, again.keeper_ids
        (array([ True,  True]), array([False]), array([10], dtype=uint64))
        >>> with vg.dedup.Index.open(f"{folder.name}/seen") as index:
        ...     found = index.query(vg.TextBatch.from_texts(["Something ELSE"], ids=[7]))
        >>> found.left_ids, found.right_ids, found.similarity
        (array([7], dtype=uint64), array([11], dtype=uint64), array([1.], dtype=float32))
    """

    def __init__(self, path: Path, mode: str, manifest: dict[str, Any], held: contextlib.ExitStack) -> None:
        """For `create` and `open`."""
        self.path, self.mode = path, mode
        self._manifest, self._held = manifest, held
        self._unit: str | None = manifest["unit"]
        self._segments: list[_Segment] | None = []
        self._params = _core.NearParams(
            manifest["threshold"], manifest["ngram"], "lsh", manifest["recall"], "leader", "first", manifest["seed"]
        )

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        threshold: float = 0.8,
        ngram: int = 5,
        recall: float = 0.999,
        unit: Unit | None = None,
        seed: int = 0,
    ) -> Index:
        """Makes an empty index, open to append.

        Args:
            path: A directory that is empty or not there yet.
            threshold: Least similarity of two duplicates, in (0, 1].
            ngram: Units in a shingle, 1 to 32.
            recall: Least probability, in (0, 1), that a pair whose similarity is the threshold is compared.
            unit: What a shingle is made of, as in `near`; None takes the default of the first batch.
            seed: Key of the hash functions, below 2^64.

        Raises:
            InvalidInput: A parameter out of range, or a directory that holds something.
            RunConflict: Another process is at it.
        """
        params = {"threshold": float(threshold), "ngram": ngram, "recall": float(recall), "seed": seed}
        if not 0 <= seed < 1 << 64:
            raise InvalidInput(f"seed must lie in [0, 2^64) (it is {seed})")
        made = _core.NearParams(threshold, ngram, "lsh", recall, "leader", "first", seed)
        Units(unit)  # refuses a unit that is none
        folder = Path(path)
        files.make_folder(folder)
        with contextlib.ExitStack() as held:
            held.enter_context(files.lock(folder))
            there = sorted(name for name in os.listdir(folder) if name != ".lock" and not _OURS.fullmatch(name))
            if MANIFEST in there:
                raise InvalidInput(f"{folder} holds an index already: open it, or choose another directory")
            if there:
                raise InvalidInput(f"{folder} holds other files ('{there[0]}'): choose an empty directory")
            manifest: dict[str, Any] = {**params, "unit": unit, "keys": _fingerprint(made), "segments": []}
            index = cls(folder, "a", manifest, held.pop_all())
        index._commit([], unit)
        return index

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: Literal["r", "a"] = "r", *, verify: bool = True) -> Index:
        """Opens an index.

        Args:
            path: Its directory.
            mode: ``"r"`` to query it, ``"a"`` to change it too.
            verify: Whether all files are read and held to their checksums first (about a gigabyte a second). Without
                it, only lengths and headers are: damage may then give wrong answers.

        Raises:
            InvalidInput: There is no index, or another mode.
            CorruptRun: A file is missing, altered, cut off, no part of an index, or of a newer version.
            RunConflict: Another process has it open to append.
        """
        if mode not in ("r", "a"):
            raise InvalidInput(f"mode must be 'r' or 'a' (it is '{mode}')")
        folder = Path(path)
        if not (folder / MANIFEST).exists():
            left = sorted(p.name for p in folder.glob("*.bin")) if folder.is_dir() else []
            if left:
                raise CorruptRun(f"{folder / MANIFEST} is missing, though there are segments ({left[0]})")
            raise InvalidInput(f"{folder} holds no index: Index.create makes one")
        with contextlib.ExitStack() as held:
            if mode == "a":
                held.enter_context(files.lock(folder))
            while True:
                data = (folder / MANIFEST).read_bytes()
                index = cls(folder, mode, _parsed(folder / MANIFEST, data), held)
                try:
                    index._segments = [index._mapped(entry, verify=verify) for entry in index._manifest["segments"]]
                    break
                except CorruptRun:
                    # A writer may have replaced the files since the manifest was read.
                    if (folder / MANIFEST).read_bytes() == data:
                        raise
            if index._manifest["keys"] != _fingerprint(index._params):
                raise CorruptRun(
                    f"{folder / MANIFEST} is of an index with other hash functions: make it anew with this Variegate"
                )
            index._held = held.pop_all()
        if mode == "a":
            index._sweep()
        return index

    def __len__(self) -> int:
        """Records, less those that were removed."""
        return sum(len(segment) - segment.gone for segment in self._open())

    def __repr__(self) -> str:
        """Path, mode, parameters and how many records."""
        state = "closed" if self._segments is None else f"{len(self)} records"
        said = ", ".join(f"{name}={self._manifest[name]!r}" for name in ("threshold", "ngram", "unit"))
        return f"Index('{self.path}', mode='{self.mode}', {said}, {state})"

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; an index that was open to append can be opened so by others. Nothing is lost."""
        self._segments = None
        self._held.close()

    @property
    def parameters(self) -> dict[str, Any]:
        """What was given to `create`; `unit` is None until the first rows come."""
        return {name: self._manifest[name] for name in ("threshold", "ngram", "recall", "unit", "seed")}

    @property
    def stats(self) -> dict[str, int]:
        """Counts: ``records`` (as `len`), ``removed`` (still in files), ``units``, ``segments``, ``bytes`` on disk."""
        segments = self._open()
        removed = sum(segment.gone for segment in segments)
        parts = [file for s in segments for file in (s.entry, s.entry["removed"]) if file]
        return {
            "records": len(self),
            "removed": removed,
            "units": sum(len(segment.units) for segment in segments),
            "segments": len(segments),
            "bytes": sum(file["bytes"] for file in parts),
        }

    @property
    def ids(self) -> NDArray[np.uint64]:
        """uint64[len]: the ids of the records, in the order of arrival."""
        return np.concatenate([np.empty(0, np.uint64), *(segment.staying(segment.ids) for segment in self._open())])

    def query(self, batch: TokenBatch | TextBatch) -> Matches:
        """Finds the records that are similar to rows.

        A row that is a record itself finds it, with similarity 1. Rows shorter than a shingle are similar to equal
        ones. No bucket is capped: all copies are found, at the cost of their number. Cost: sketching the rows, a search
        a band and segment, a pass over each row and record that share a band, and, once a call, a pass over the
        offsets of all records: ask about many rows at a time.

        Args:
            batch: The rows, of the kind that the index has.

        Raises:
            InvalidInput: A batch of another kind, or an index that is closed.
        """
        segments = self._open()
        units = Units(cast("Unit | None", self._unit))
        mine = self._keyed(*units.split(batch), batch.ids)
        lefts, rights, ids, similarities = [np.empty(0, np.uint32)], [np.empty(0, np.int64)], [], []
        first = 0
        for segment in segments:
            left, right, similarity = self._ask(_core.index_matches, mine, segment)
            numbers = right.astype(np.int64)
            if segment.gone:
                numbers = np.cumsum(segment.removed == 0)[right] - 1
            lefts.append(left)
            rights.append(first + numbers)
            ids.append(segment.ids[right])
            similarities.append(similarity)
            first += len(segment) - segment.gone
        left = np.concatenate(lefts)
        order = np.argsort(left, kind="stable")
        left = left[order].astype(np.int64)
        return Matches(
            left=left,
            right=np.concatenate(rights)[order],
            left_ids=batch.ids[left],
            right_ids=np.concatenate([np.empty(0, np.uint64), *ids])[order],
            similarity=np.concatenate([np.empty(0, np.float32), *similarities])[order],
        )

    def add(self, batch: TokenBatch | TextBatch, *, store: Literal["new", "all"] = "new") -> Added:
        """Compares rows with the records and with the rows before them, in the order of arrival, and stores them.

        A row is compared with the records, the oldest first, then with the rows of the batch that were stored before
        it. With ``"new"`` this is what `near` does with closure ``"leader"`` and keep ``"first"`` to all rows
        that ever came, in that order; a longer row that comes later does not take the place of a record.

        When it returns, the rows are on disk. If it fails, or the process is killed, the index is as it was. Every
        call writes and syncs files: add many rows at a time.

        Args:
            batch: The rows; their `ids` become those of the records, and need not differ from others.
            store: Which rows become records: ``"new"``, those that are similar to none; or ``"all"``.

        Raises:
            InvalidInput: A batch of another kind, an index that is closed or open to read, or another `store`.
        """
        segments = self._writable()
        units = Units(cast("Unit | None", self._unit))
        mine = self._keyed(*units.split(batch), batch.ids)
        added, fresh = self._compared([(segment, -1) for segment in segments], mine, store)
        self._append([fresh], units.of(batch))
        return added

    def merge(self, other: Index, *, store: Literal["new", "all"] = "new") -> Added:
        """Adds the records of another index, in their order, as `add` does; the other stays as it is.

        Args:
            other: An index with the same parameters.
            store: As in `add`.

        Returns:
            What became of each record of `other`.

        Raises:
            InvalidInput: Parameters that differ, or an index that is closed or open to read.
        """
        known = [(segment, -1) for segment in self._writable()]
        for name, value in other.parameters.items():
            mine = self.parameters[name]
            if mine != value and not (name == "unit" and None in (mine, value)):
                raise InvalidInput(f"indexes must have the same parameters ({name}: {mine!r} and {value!r})")
        fresh: list[_Segment] = []
        added: list[Added] = [_nothing()]
        start = 0
        for segment in other._open():
            rows = self._keyed(*segment.gathered(), segment.staying(segment.ids))
            one, new = self._compared(known, rows, store, start)
            known.append((new, start))
            start += len(rows)
            added.append(one)
            fresh.append(new)
        self._append(fresh, self._unit or other._unit)
        return Added(
            keep=np.concatenate([one.keep for one in added]),
            keeper_ids=np.concatenate([one.keeper_ids for one in added]),
            keeper=np.concatenate([one.keeper for one in added]),
            similarity=np.concatenate([one.similarity for one in added]),
            stored=sum(one.stored for one in added),
        )

    def remove(self, ids: ArrayLike) -> int:
        """Removes every record that has one of the ids; returns how many there were.

        Removed records take room until they are merged away, as more is added or by `compact`.

        Args:
            ids: Integers [n], below 2^64; one that no record has is passed over.

        Raises:
            InvalidInput: Not integers, or an index that is closed or open to read.
        """
        segments = self._writable()
        asked = np.atleast_1d(np.asarray(ids))
        if asked.size and not np.issubdtype(asked.dtype, np.integer):
            raise InvalidInput(f"ids must be integers (they are {asked.dtype})")
        if asked.size and int(asked.min()) < 0:
            raise InvalidInput(f"ids must lie in [0, 2^64) (one is {int(asked.min())})")
        wanted = asked.astype(np.uint64).reshape(-1)
        left: list[_Segment] = []
        for segment in segments:
            hit = np.isin(segment.ids, wanted)
            if segment.gone:
                hit &= segment.removed == 0
            if not hit.any():
                left.append(segment)
                continue
            removed = hit.astype(np.uint8) | segment.removed if segment.gone else hit.astype(np.uint8)
            if removed.all():
                continue
            with files.Draft(self.path, "removed", "bin") as draft:
                draft.write(removed)
                file = draft.committed(self.path, len(removed))
            left.append(replace(segment, removed=removed, entry={**segment.entry, "removed": file}))
        before = len(self)
        if [id(s) for s in left] != [id(s) for s in segments]:
            self._commit(left, self._unit)
        return before - len(self)

    def compact(self) -> None:
        """Makes one segment of all, without the records that were removed: queries are fastest then.

        Raises:
            InvalidInput: An index that is closed or open to read.
        """
        segments = self._writable()
        if len(segments) > 1 or any(segment.gone for segment in segments):
            self._commit([self._written(segments)], self._unit)

    def _open(self) -> list[_Segment]:
        if self._segments is None:
            raise InvalidInput(f"the index {self.path} is closed")
        return self._segments

    def _writable(self) -> list[_Segment]:
        segments = self._open()
        if self.mode != "a":
            raise InvalidInput(f"the index {self.path} is open to read: open it with mode='a'")
        return segments

    def _keyed(self, units: Any, offsets: NDArray[np.int64], ids: NDArray[np.uint64]) -> _Segment:
        sizes, short_keys, short_rows, runs = _core.index_keys(self._params, units, offsets)
        return _Segment(
            ids=ids,
            units=units,
            offsets=offsets,
            sizes=sizes,
            short_keys=short_keys,
            short_rows=short_rows,
            runs=runs,
            removed=np.empty(0, np.uint8),
            entry={},
        )

    def _ask(self, search: Any, mine: _Segment, segment: _Segment, *args: Any) -> Any:
        """Searches a segment; what does not fit in it is damage that was not looked for."""
        try:
            return search(self._params, mine, segment, *args)
        except InvalidInput as error:
            name = segment.entry.get("path", "a new segment")
            raise CorruptRun(f"{self.path / name} is damaged: {error}") from None

    def _compared(
        self, known: list[tuple[_Segment, int]], mine: _Segment, which: str, start: int = 0
    ) -> tuple[Added, _Segment]:
        """What becomes of rows, the first of which is number `start`, and the rows as a segment, of which some stay.

        `known` has with each segment the number of its first row, or -1 where its rows were records before.
        """
        if which not in ("new", "all"):
            raise InvalidInput(f"store must be 'new' or 'all' (it is '{which}')")
        rows = len(mine)
        keep, similarity = np.ones(rows, np.uint8), np.ones(rows, np.float32)
        keeper, keeper_ids = np.arange(start, start + rows), mine.ids.copy()
        for segment, first in known:
            open_ = replace(mine, removed=1 - keep)
            left, right, found = self._ask(_core.index_first_matches, open_, segment, False)
            keep[left], similarity[left], keeper_ids[left] = 0, found, segment.ids[right]
            keeper[left] = -1 if first < 0 else first + right.astype(np.int64)
        open_ = replace(mine, removed=1 - keep)
        if which == "all":
            left, right, found = self._ask(_core.index_first_matches, open_, mine, True)
        elif keep.any():
            rest = np.flatnonzero(keep)
            kept, _, found, _ = self._params.tokens(*open_.gathered(), mine.ids[rest], None)
            gone = np.flatnonzero(kept != np.arange(len(rest)))
            left, right, found = rest[gone], rest[kept[gone]], found[gone]
        else:
            left = right = found = np.empty(0, np.int64)
        keep[left], similarity[left], keeper_ids[left] = 0, found, mine.ids[right]
        keeper[left] = start + right.astype(np.int64)
        fresh = mine if which == "all" else replace(mine, removed=1 - keep)
        added = Added(
            keep=keep.view(np.bool_),
            keeper_ids=keeper_ids,
            keeper=keeper,
            similarity=similarity,
            stored=rows - fresh.gone,
        )
        return added, fresh

    def _append(self, fresh: list[_Segment], unit: str | None) -> None:
        """Commits new rows, together with so many of the last segments as are about their size."""
        segments = self._open()
        fresh = [segment for segment in fresh if len(segment) > segment.gone]
        if not fresh:
            if unit != self._unit:
                self._commit(segments, unit)
            return
        taken, left = fresh, len(segments)
        while like := _like(segments[:left], sum(len(s) - s.gone for s in taken)):
            taken, left = [*segments[left - like : left], *taken], left - like
        self._commit([*segments[:left], self._written(taken)], unit)

    def _written(self, parts: list[_Segment]) -> _Segment:
        """The rows of segments that stay as one segment on disk, which does not count yet."""
        whole = len(parts) == 1 and not parts[0].gone
        short_keys, short_rows = (
            (parts[0].short_keys, parts[0].short_rows) if whole else _core.index_merge_short(self._params, parts)
        )
        rows = sum(len(part) - part.gone for part in parts)
        lengths = np.concatenate([lengths for part in parts for _, lengths in part.pieces()])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        size, bands = parts[0].units.itemsize, self._params.bands
        with files.Draft(self.path, "segment", "bin") as draft:
            draft.write(HEAD.pack(MAGIC, VERSION, size, rows, int(offsets[-1]), len(short_keys), bands, 0))
            for part in parts:
                draft.write(_little(part.staying(part.ids)))
            draft.write(_little(offsets))
            draft.write(_little(short_keys))
            for part in parts:
                for units, _ in part.pieces():
                    draft.write(_little(units))
            draft.write(_little(short_rows))
            for part in parts:
                draft.write(_little(part.staying(part.sizes)))
            if whole:
                draft.write(_little(parts[0].runs))
            else:
                for band in range(bands):
                    draft.write(_little(_core.index_merge_run(self._params, parts, band)))
            entry = draft.committed(self.path, rows)
        return self._mapped({**entry, "removed": None}, verify=False)

    def _mapped(self, entry: dict[str, Any], *, verify: bool) -> _Segment:
        """The segment of an entry of the manifest."""
        file = self.path / entry["path"]
        data = _checked(file, entry, verify=verify)
        if len(data) < HEAD.size:
            raise CorruptRun(f"{file} is cut off: it has {len(data)} bytes, less than a header")
        magic, version, size, rows, units, short, bands, _ = HEAD.unpack_from(data)
        if magic != MAGIC:
            raise CorruptRun(f"{file} is no segment of an index")
        if version > VERSION:
            raise CorruptRun(f"{file} has version {version}, and this Variegate reads {VERSION}: upgrade Variegate")
        shingled = rows - short
        expected = HEAD.size + 8 * rows + 8 * (rows + 1) + 12 * short + size * units + 4 * rows + 8 * bands * shingled
        if size not in (4, 8) or bands != self._params.bands or shingled < 0 or expected != len(data):
            raise CorruptRun(f"{file} is damaged: its header does not fit its length, or the parameters of the index")
        at = HEAD.size

        def take(dtype: str, count: int) -> Any:
            nonlocal at
            array = np.frombuffer(data, dtype, count, at)
            at += array.nbytes
            return array

        made: dict[str, Any] = {"ids": take("<u8", rows), "offsets": take("<i8", rows + 1)}
        made |= {"short_keys": take("<u8", short), "units": take(f"<u{size}", units)}
        made |= {
            "short_rows": take("<u4", short),
            "sizes": take("<u4", rows),
            "runs": take("<u4", 2 * bands * shingled),
        }
        removed = np.empty(0, np.uint8)
        if entry["removed"]:
            gone = self.path / entry["removed"]["path"]
            removed = np.frombuffer(_checked(gone, entry["removed"], verify=verify), np.uint8)
            if len(removed) != rows:
                raise CorruptRun(f"{gone} is damaged: it marks {len(removed)} rows, and the segment has {rows}")
        return _Segment(removed=removed, entry=entry, **made)

    def _commit(self, segments: list[_Segment], unit: str | None) -> None:
        """Makes these the segments of the index, in one step."""
        manifest = {**self._manifest, "unit": unit, "segments": [segment.entry for segment in segments]}
        files.fsync_folder(self.path)
        files.write_atomic(self.path / MANIFEST, _text(manifest))
        self._manifest, self._unit, self._segments = manifest, unit, segments
        self._sweep()

    def _sweep(self) -> None:
        """Deletes files that no longer count, or never did."""
        entries = self._manifest["segments"]
        counted = {file["path"] for entry in entries for file in (entry, entry["removed"]) if file}
        for name in os.listdir(self.path):
            if name not in counted and _OURS.fullmatch(name):
                # Where files that are mapped cannot go, they go later.
                with contextlib.suppress(PermissionError):
                    (self.path / name).unlink(missing_ok=True)


def _like(segments: list[_Segment], rows: int) -> int:
    """How many of the last segments are to become one with so many new rows; none, or `FAN` - 1 and more."""

    def level(rows: int) -> int:
        return (rows.bit_length() - 1) // (FAN.bit_length() - 1)

    like = len(list(takewhile(lambda segment: level(len(segment) - segment.gone) <= level(rows), reversed(segments))))
    return like if like >= FAN - 1 else 0


def _little(values: NDArray[Any]) -> NDArray[Any]:
    little = values if sys.byteorder == "little" else values.astype(values.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little).view(np.uint8)


def _nothing() -> Added:
    rows = np.empty(0, np.int64)
    return Added(
        keep=rows.astype(bool),
        keeper_ids=rows.astype(np.uint64),
        keeper=rows,
        similarity=rows.astype(np.float32),
        stored=0,
    )


def _fingerprint(params: _core.NearParams) -> str:
    """What a fixed row comes to: two programs with one fingerprint make the same keys of all rows."""
    row = np.arange(64, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = params.keys(row, np.array([0, len(row)]))
    return hashlib.sha256(_little(keys.reshape(-1)).tobytes()).hexdigest()[:16]


def _text(manifest: dict[str, Any]) -> str:
    said = {"format": FORMAT, "version": VERSION, **manifest}
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return json.dumps({**said, "sha256": digest}, indent=1) + "\n"


def _parsed(file: Path, data: bytes) -> dict[str, Any]:
    """The manifest in a file, which is whole."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptRun(f"{file} is torn or damaged: it is not JSON") from None
    if not isinstance(said, dict) or said.pop("format", None) != FORMAT:
        raise CorruptRun(f"{file} is not the manifest of an index")
    version = said.pop("version", None)
    if isinstance(version, int) and version > VERSION:
        raise CorruptRun(f"{file} has version {version}, and this Variegate reads {VERSION}: upgrade Variegate")
    said.pop("sha256", None)
    if version != VERSION or _text(said).encode() != data:
        raise CorruptRun(f"{file} is damaged: it is not what its checksum says")
    return said


def _checked(file: Path, entry: dict[str, Any], *, verify: bool) -> mmap.mmap:
    """A file as the manifest describes it, mapped."""
    try:
        with open(file, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != entry["bytes"]:
                raise CorruptRun(f"{file} has {size} bytes, and the manifest says {entry['bytes']}")
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise CorruptRun(f"{file} is missing") from None
    if verify and files.sha256_file(file) != entry["sha256"]:
        raise CorruptRun(f"{file} is damaged: its SHA-256 is not what the manifest says")
    return data
