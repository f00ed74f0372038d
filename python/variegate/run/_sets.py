"""The set-wise stages of a run: they look at all rows before they reject some.

Nothing here holds the rows. A decision reads the columns that it needs part by part, and what it must hold at once is
cut into ranges of keys or groups of rows that fit the recipe's memory. Decisions go by record ids and content, never by
the order in which rows come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import _core, mix
from variegate.dedup._spill import by_blocks, comparison_bytes, runs_of, whole_components
from variegate.errors import InvalidInput
from variegate.recipe import Dedup, Mix, Templates
from variegate.run import _records as records
from variegate.run._parts import Committed, Part
from variegate.run._stages import Step

if TYPE_CHECKING:
    from variegate.run._context import Context

__all__ = ["DedupStep", "MixStep", "SetStep", "check_unique", "count_distinct"]

DUPLICATE_CHARACTERS = 4000  # of an example: more than elsewhere, for duplicates may differ anywhere
NEAR_EXAMPLES, COPY_EXAMPLES = 12, 6
Rows = npt.NDArray[np.int64]
"""Numbers of rows, counted over all parts."""


class SetStep(Step):
    """A stage that looks at all parts before it rejects some of their rows."""

    def decide(self, parts: list[Part]) -> tuple[Decision, dict[str, Any]]:
        """Which rows go, and what the stage says about the set."""
        raise NotImplementedError


class Decision:
    """Which rows go: `ledger` gives the entries of a part, whose first row has number `start`, piece by piece."""

    def ledger(self, part: Part, start: int) -> Iterator[tuple[pa.Table, int]]:
        """Entries for the rows of a part that go, and how many tokens those have."""
        raise NotImplementedError


class DedupStep(SetStep):
    """Keeps one record of each group of duplicates.

    Real before synthetic, low before high generation, long before short, then by record id. Rows that share a key (of
    a band of their sketches, or of their content) are joined into components, and only rows of one component can be
    duplicates. So components are decided by themselves, as many together as fit the memory, and the answer is that of
    deciding all at once. Resident are about 30 bytes a row.
    """

    kind = "dedup"

    def __init__(self, context: Context, index: int, stage: Dedup) -> None:
        super().__init__(context, index, stage.label)
        self.stage = stage
        self.budget = context.memory // 4

    @property
    def sketch(self) -> _core.NearParams | None:
        """How the keys of rows are made; None where only copies are looked for."""
        stage = self.stage
        if stage.threshold is None:
            return None
        return _core.NearParams(stage.threshold, stage.ngram, "lsh", stage.recall, stage.closure, "longest", 0)

    def decide(self, parts: list[Part]) -> tuple[Decision, dict[str, Any]]:
        """Finds the duplicates."""
        loader = _Loader(self.context, parts)
        lengths = np.empty(loader.rows, np.uint32)
        at = 0
        for piece in self.context.pieces(parts, ["n_tokens"]):
            lengths[at : at + len(piece)] = records.flat(piece["n_tokens"]).to_numpy()
            at += len(piece)
        duplicates = _Duplicates(self)
        crowds: list[Rows] = []

        def groups() -> Iterator[Rows]:
            for rows, fits in self.groups(self.components(parts, lengths), lengths):
                if fits:
                    yield rows
                else:
                    crowds.append(rows)

        for found in self.context.map(lambda rows: self.compare(loader, rows), groups()):
            duplicates.add(found)
            self.context.give_back()
        for rows in crowds:
            duplicates.add(self.compare_crowd(loader, rows, lengths))
            self.context.give_back()
        return duplicates, {"examples": self.examples(loader, duplicates)}

    def components(self, parts: list[Part], lengths: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """For each row the lowest row of its component."""
        joined = _core.Components(len(lengths))
        every = np.arange(len(lengths), dtype=np.uint32)
        if self.sketch is None:
            names, shingled = ["content"], every
        else:
            names = [records.key_name(self.label, band) for band in range(1 + self.sketch.bands)]
            shingled = every[lengths >= self.stage.ngram]
        room, need = self.context.memory // 4, max(1, len(lengths))
        together = min(len(names), max(1, (room - 16 * need) // (8 * need)))
        ranges = -(-24 * need // room) if together == 1 else 1
        for first in range(0, len(names), together):
            for number in range(ranges):
                low, high = (number << 64) // ranges, ((number + 1) << 64) // ranges - 1
                chosen = names[first : first + together]
                found: dict[str, list[npt.NDArray[np.uint64]]] = {name: [] for name in chosen}
                for piece in self.context.pieces(parts, chosen):
                    for name in chosen:
                        found[name].append(_keys(piece[name]))
                for name in chosen:
                    keys = np.concatenate(found.pop(name)) if found[name] else np.empty(0, np.uint64)
                    rows = every if name in (names[0], "content") else shingled
                    keys = keys if len(rows) == len(keys) else keys[rows]
                    if ranges > 1:
                        mine = (keys >= np.uint64(low)) & (keys <= np.uint64(high))
                        keys, rows = keys[mine], rows[mine]
                    joined.join(keys, rows)
        return joined.roots()

    def groups(self, roots: npt.NDArray[np.uint32], lengths: npt.NDArray[np.uint32]) -> Iterator[tuple[Rows, bool]]:
        """Whole components that fit one thread's share of the budget together, or one that does not by itself.

        Rows are ascending.
        """
        share = self.budget // self.context.at_once
        return whole_components(roots, lambda rows: comparison_bytes(lengths[rows]), share)

    def compare(self, loader: _Loader, rows: Rows) -> _Found:
        """Decides rows, ascending, as if there were no others."""
        from variegate import dedup
        from variegate.batch import TokenBatch

        if len(rows) == 0:
            return _Found.none()
        loaded = loader.load(rows)
        order = np.empty(len(rows), np.int64)
        order[loaded.ranked()] = np.arange(len(rows))
        batch = TokenBatch(loaded.tokens, loaded.offsets, ids=np.zeros(len(rows), np.uint64))
        if self.stage.threshold is None:
            result = dedup.exact(batch, order=order)
        else:
            stage = self.stage
            result = dedup.near(
                batch,
                threshold=stage.threshold,
                ngram=stage.ngram,
                recall=stage.recall,
                closure=stage.closure,
                order=order,
            )
        gone = np.flatnonzero(~np.asarray(result.keep))
        keeper = np.asarray(result.keeper)[gone]
        similarity = np.asarray(result.similarity, np.float32)[gone]
        copy = (similarity == 1) & (loaded.lengths[gone] == loaded.lengths[keeper])
        one, other = batch.take(gone[copy]), batch.take(keeper[copy])
        differing = np.concatenate([[0], np.cumsum(one.tokens != other.tokens)])
        copy[copy] = differing[one.offsets[1:]] == differing[one.offsets[:-1]]
        return _Found(rows[gone], rows[keeper], loaded.identity[keeper], similarity, copy)

    def compare_crowd(self, loader: _Loader, rows: Rows, lengths: npt.NDArray[np.uint32]) -> _Found:
        """Decides a component that does not fit the budget, block by block in keep order.

        With closure transitive any row may join two blocks, so they are decided at once, beyond the budget.
        """
        if self.stage.threshold is not None and self.stage.closure == "transitive":
            return self.compare(loader, rows)
        ranked = rows[loader.load(rows, lengths).ranked()]
        blocks = lambda rows: runs_of(rows, lengths, self.budget // 2)  # noqa: E731
        return _Found.joined(by_blocks(ranked, blocks, lambda rows: self.compare(loader, rows)))

    def examples(self, loader: _Loader, duplicates: _Duplicates) -> list[dict[str, Any]]:
        """Duplicates beside the record that was kept; near ones first."""
        some = duplicates.first()
        near, copies = np.flatnonzero(~some.copy)[:NEAR_EXAMPLES], np.flatnonzero(some.copy)[:COPY_EXAMPLES]
        some = some.take(np.concatenate([near, copies]))
        rows = np.unique(np.concatenate([some.row, some.keeper]))
        texts: dict[int, tuple[str, str]] = {}
        for part in loader.holding(rows):
            for numbers, table in loader.tables(part, rows, ["record_id", *self.context.text_columns]):
                readable = self.context.readable(table)
                for number, row in zip(numbers.tolist(), readable.to_pylist(), strict=True):
                    texts[number] = (row["record_id"].hex(), row["text"][:DUPLICATE_CHARACTERS])
        shown = []
        for row, keeper, similarity, copy in zip(some.row, some.keeper, some.similarity, some.copy, strict=True):
            example: dict[str, Any] = {"reason": _reason(copy), "similarity": round(float(similarity), 4)}
            for name, number in (("kept", int(keeper)), ("dropped", int(row))):
                example[name] = dict(zip(("record_id", "text"), texts[number], strict=True))
            shown.append(example)
        return shown


def _tokens(rows: pa.Table) -> int:
    return int(pc.sum(rows["n_tokens"]).as_py() or 0) if "n_tokens" in rows.column_names else 0


def _reason(copy: bool) -> str:
    return "duplicate" if copy else "near_duplicate"


def _keys(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    if pa.types.is_fixed_size_binary(column.type):
        return np.ascontiguousarray(records.ids_of(column)[:, :8]).view(np.uint64).reshape(-1)
    keys: npt.NDArray[np.uint64] = records.flat(column).to_numpy()
    return keys


class _Found(NamedTuple):
    """Rows that go, each with the row that is kept instead, its record id, and how similar the two are."""

    row: Rows
    keeper: Rows
    kept: npt.NDArray[np.uint8]
    similarity: npt.NDArray[np.float32]
    copy: npt.NDArray[np.bool_]

    def take(self, which: Any) -> _Found:
        return _Found(*(column[which] for column in self))

    @staticmethod
    def none() -> _Found:
        rows = np.empty(0, np.int64)
        return _Found(rows, rows, np.empty((0, 16), np.uint8), np.empty(0, np.float32), np.empty(0, bool))

    @staticmethod
    def joined(found: list[_Found]) -> _Found:
        return _Found(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


class _Duplicates(Decision):
    """The rows that go, in a temporary file without a name: by group, and in a group by row."""

    def __init__(self, step: DedupStep) -> None:
        self.step = step
        self.scratch = tempfile.TemporaryFile(dir=step.context.out)  # noqa: SIM115
        self.groups: list[tuple[int, int]] = []

    def add(self, found: _Found) -> None:
        """Takes the decisions of one group."""
        if len(found.row):
            self.groups.append((self.scratch.tell(), len(found.row)))
            for column in found.take(np.argsort(found.row)):
                self.scratch.write(np.ascontiguousarray(column).tobytes())
            self.scratch.flush()

    def _group(self, at: int, rows: int) -> _Found:
        columns: list[Any] = []
        for dtype, width in ((np.int64, 1), (np.int64, 1), (np.uint8, 16), (np.float32, 1), (np.bool_, 1)):
            shape = (rows, width) if width > 1 else (rows,)
            columns.append(np.memmap(self.scratch, dtype, "r", at, shape))
            at += columns[-1].nbytes
        return _Found(*columns)

    def first(self) -> _Found:
        """Decisions of the first group."""
        return self._group(*self.groups[0]) if self.groups else _Found.none()

    def between(self, start: int, stop: int) -> _Found:
        """Decisions about the rows from `start` up to `stop`, by row."""
        found = []
        for at, rows in self.groups:
            group = self._group(at, rows)
            low, high = np.searchsorted(group.row, (start, stop))
            if low < high:
                found.append(group.take(slice(low, high)))
        joined = _Found.joined(found or [_Found.none()])
        return joined.take(np.argsort(joined.row))

    def ledger(self, part: Part, start: int) -> Iterator[tuple[pa.Table, int]]:
        """Entries for the rows of a part that go, and how many tokens those have."""
        found = self.between(start, start + part.rows)
        if not len(found.row):
            return
        context = self.step.context
        columns = ["record_id", "n_tokens", *context.text_columns, "file", "row"]
        for piece in context.files.pieces(part, columns):
            low, high = np.searchsorted(found.row, (start, start + len(piece)))
            if low < high:
                mine = found.take(slice(low, high))
                reasons = pa.array(np.where(mine.copy, _reason(True), _reason(False)))
                more = {"kept": records.hex_ids(mine.kept), "similarity": pa.array(mine.similarity)}
                gone = context.readable(piece.take(pa.array(mine.row - start)))
                yield self.step.reject(gone, reasons, **more), _tokens(gone)
            start += len(piece)


class _Loaded(NamedTuple):
    """What is compared of some rows."""

    identity: npt.NDArray[np.uint8]
    synthetic: npt.NDArray[np.bool_]
    generation: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.uint32]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def ranked(self) -> Rows:
        """The rows in keep order."""
        high, low = _halves(self.identity)
        return np.lexsort((low, high, -self.lengths, self.generation, self.synthetic))


class _Loader:
    """Rows of parts by their numbers."""

    def __init__(self, context: Context, parts: list[Part]) -> None:
        self.context, self.parts = context, parts
        self.starts = np.cumsum([0, *(part.rows for part in parts)])
        self.rows = int(self.starts[-1])

    def tables(self, number: int, rows: Rows, columns: list[str]) -> Iterator[tuple[Rows, pa.Table]]:
        """Those of the rows, ascending, that are in one part, a few megabytes at a time."""
        start = int(self.starts[number])
        for piece in self.context.files.pieces(self.parts[number], columns):
            low, high = np.searchsorted(rows, (start, start + len(piece)))
            if low < high:
                yield rows[low:high], piece.take(pa.array(rows[low:high] - start))
            start += len(piece)

    def holding(self, rows: Rows) -> list[int]:
        """The parts that hold any of the rows."""
        found: list[int] = np.flatnonzero(np.diff(np.searchsorted(rows, self.starts))).tolist()
        return found

    def load(self, rows: Rows, lengths: npt.NDArray[np.uint32] | None = None) -> _Loaded:
        """What is compared of the rows; where `lengths` are given, only what ranks them."""
        loaded = list(self.context.map(lambda number: self._part(number, rows, lengths), self.holding(rows)))
        return _Loaded(*(np.concatenate(columns) for columns in zip(*loaded, strict=True)))

    def _part(self, number: int, rows: Rows, lengths: npt.NDArray[np.uint32] | None) -> _Loaded:
        light = lengths is not None
        columns = ["record_id", "kind", "generation", *([] if light else ["tokens"])]
        found = list(self.tables(number, rows, columns))
        mine = np.concatenate([numbers for numbers, _ in found])
        table = pa.concat_tables(table for _, table in found)
        identity = records.ids_of(table["record_id"])
        synthetic = np.asarray(pc.not_equal(table["kind"], "human"))
        generation = records.flat(table["generation"]).to_numpy()
        if lengths is not None:
            sizes = lengths[mine].astype(np.int64)
            return _Loaded(identity, synthetic, generation, sizes, np.empty(0, np.uint32))
        tokens, offsets = self.context.stored_tokens(table)
        return _Loaded(identity, synthetic, generation, np.diff(offsets), tokens)


class MixStep(SetStep):
    """Keeps the final set within the targets of its stages and the limits of the recipe's mix."""

    kind = "mix"

    def __init__(self, context: Context, index: int) -> None:
        super().__init__(context, index, "mix")
        self.rule = context.recipe.mix or Mix()
        self.targets = targets(context.recipe.stages)

    def decide(self, parts: list[Part]) -> tuple[Decision, dict[str, Any]]:
        """Of a stage with more records than its target, and of synthetic ones over the cap, the first by id stay."""
        result: dict[str, Any] = {}
        limits: dict[str, _Limit] = {}
        for stage in self.targets:
            made = lambda piece, label=stage.label: _made_by(piece, label)  # noqa: E731
            ids = self.ids(parts, made, lambda piece: np.ones(len(piece), np.int64))
            accepted = sum(len(high) for high, _, _ in ids())
            candidates = stage.candidates or stage.count
            said = {"wanted": stage.count, "candidates": candidates, "accepted": min(accepted, stage.count)}
            result.setdefault("targets", {})[stage.label] = said
            if accepted < stage.count and stage.exhausted == "error":
                raise InvalidInput(
                    f"stage '{stage.label}': {accepted} of {stage.count} records wanted are left of its {candidates} "
                    "candidates: raise candidates, lower count, or set exhausted: keep"
                )
            limits[stage.label] = _Limit(made, _first_over(ids, stage.count), "over_target")
        human = real = 0
        for piece in self.context.pieces(parts, ["kind", self.sized]):
            mine = np.asarray(pc.equal(piece["kind"], "human"))
            human += int(mine.sum())
            real += int(self.sizes(piece)[mine].sum())
        rows = sum(part.rows for part in parts)
        if self.rule.retain_real is not None:
            read = self.context.results["read"]["human"]
            mix.check_retained(human, read, retain_real=self.rule.retain_real)
            result["human"] = human
        if self.rule.max_synthetic is not None and self.rule.max_synthetic < 1 and human < rows:
            surplus = list(limits.values())

            def synthetic(piece: pa.Table) -> npt.NDArray[np.bool_]:
                mine = np.asarray(pc.not_equal(piece["kind"], "human"))
                for limit in surplus:
                    mine &= ~limit.over(piece)
                return mine

            room = mix.synthetic_room(real, rows, max_synthetic=self.rule.max_synthetic)
            first = _first_over(self.ids(parts, synthetic, self.sizes), room)
            limits["mix"] = _Limit(synthetic, first, "max_synthetic")
        return _Surplus(self, [limit for limit in limits.values() if limit.first is not None]), result

    @property
    def sized(self) -> str:
        """The column that sizes are taken from."""
        return "n_tokens" if self.rule.by == "tokens" and self.context.wants_tokens else "n_bytes"

    def sizes(self, piece: pa.Table) -> npt.NDArray[np.int64]:
        """Tokens or bytes of each row."""
        sizes: npt.NDArray[np.int64] = records.flat(piece[self.sized]).to_numpy().astype(np.int64)
        return sizes

    def ids(
        self,
        parts: list[Part],
        which: Callable[[pa.Table], npt.NDArray[np.bool_]],
        sizes: Callable[[pa.Table], npt.NDArray[np.int64]],
    ) -> Callable[[], _Ids]:
        """A sweep over the ids and sizes of some rows, to be made as often as wanted."""

        def sweep() -> _Ids:
            for piece in self.context.pieces(parts, ["record_id", "kind", "source", self.sized]):
                chosen = which(piece)
                high, low = _halves(records.ids_of(piece["record_id"])[chosen])
                yield high, low, sizes(piece)[chosen]

        return sweep


def targets(stages: Iterable[Any]) -> list[Templates]:
    """The stages whose records are counted at the end."""
    return [
        stage
        for stage in stages
        if isinstance(stage, Templates) and ((stage.candidates or 0) > stage.count or stage.exhausted == "error")
    ]


def _made_by(piece: pa.Table, label: str) -> npt.NDArray[np.bool_]:
    made = pc.and_(pc.equal(piece["source"], label), pc.equal(piece["kind"], "templated"))
    return np.array(made)


_Ids = Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]]
"""High and low halves of record ids, and sizes."""


class _Limit(NamedTuple):
    """Rows that `which` picks go where their id is `first` or higher."""

    which: Callable[[pa.Table], npt.NDArray[np.bool_]]
    first: tuple[int, int] | None
    reason: str

    def over(self, piece: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a piece go."""
        if self.first is None:
            return np.zeros(len(piece), bool)
        high, low = _halves(records.ids_of(piece["record_id"]))
        first, second = (np.uint64(half) for half in self.first)
        later: npt.NDArray[np.bool_] = (high > first) | ((high == first) & (low >= second))
        return self.which(piece) & later


class _Surplus(Decision):
    """What is over a limit."""

    def __init__(self, step: MixStep, limits: list[_Limit]) -> None:
        self.step, self.limits = step, limits

    def ledger(self, part: Part, start: int) -> Iterator[tuple[pa.Table, int]]:
        """Entries for the rows of a part that go, and how many tokens those have."""
        if not self.limits:
            return
        context = self.step.context
        counted = ["n_tokens"] if context.wants_tokens else []
        columns = ["record_id", "kind", "source", *context.text_columns, "file", "row", *counted]
        for piece in context.files.pieces(part, columns):
            reasons = np.full(len(piece), "", "U16")
            for limit in self.limits:
                reasons[limit.over(piece)] = limit.reason
            gone = reasons != ""
            if gone.any():
                rows = context.readable(piece.filter(pa.array(gone)))
                yield self.step.reject(rows, pa.array(reasons[gone])), _tokens(rows)


def _halves(ids: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Record ids as two numbers that sort as they do."""
    high, low = np.ascontiguousarray(ids).view(">u8").astype(np.uint64).T
    return high, low


def _first_over(sweep: Callable[[], _Ids], limit: int) -> tuple[int, int] | None:
    """The lowest id with which the sizes, added up in the order of ids, exceed the limit; None if they never do.

    Two sweeps; held are one counter for each of 2^16 ranges of ids, then the ids of one range.
    """
    sums = np.zeros(1 << 16, np.int64)
    for high, _, sizes in sweep():
        sums += np.bincount((high >> np.uint64(48)).astype(np.int64), weights=sizes, minlength=1 << 16).astype(np.int64)
    totals = np.cumsum(sums)
    if totals[-1] <= limit:
        return None
    bucket = int(np.argmax(totals > limit))
    found = []
    for high, low, sizes in sweep():
        mine = high >> np.uint64(48) == bucket
        found.append((high[mine], low[mine], sizes[mine]))
    high, low, sizes = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((low, high))
    at = order[np.argmax(totals[bucket] - sums[bucket] + np.cumsum(sizes[order]) > limit)]
    return int(high[at]), int(low[at])


def _ranges(sweep: Callable[[], Iterator[npt.NDArray[np.uint8]]], rows: int, memory: int) -> Iterator[Any]:
    """All ids, as halves, a range of ids at a time that fits the memory; equal ids come together."""
    count = max(1, -(-64 * rows // memory))
    for number in range(count):
        low_end, high_end = (number << 16) // count, ((number + 1) << 16) // count
        found = []
        for ids in sweep():
            high, low = _halves(ids)
            if count > 1:
                top = high >> np.uint64(48)
                mine = (top >= low_end) & (top < high_end)
                high, low = high[mine], low[mine]
            found.append((high, low))
        if found:
            yield tuple(np.concatenate(halves) for halves in zip(*found, strict=True))


def _tied(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> tuple[int, npt.NDArray[np.uint64]]:
    """How many ids repeat another, and the high halves of those."""
    ordered = np.sort(high)
    ties = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(ties):
        return 0, ties
    at = np.searchsorted(ties, high)
    mine = np.flatnonzero(ties[np.minimum(at, len(ties) - 1)] == high)
    order = mine[np.lexsort((low[mine], high[mine]))]
    same = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
    return int(same.sum()), np.unique(high[order[1:][same]])


def count_distinct(sweep: Callable[[], Iterator[npt.NDArray[np.uint8]]], rows: int, memory: int) -> int:
    """How many of `rows` hashes, which a sweep gives as `uint8[n, 16]` at a time, differ from all before them."""
    return rows - sum(_tied(high, low)[0] for high, low in _ranges(sweep, rows, memory // 2))


def check_unique(context: Context, parts: list[Part], ledgers: list[Committed]) -> None:
    """Refuses source records that share a key, wherever a stage has put them.

    Raises:
        InvalidInput: With both places.
    """
    if not any(source.id for source in context.recipe.sources):
        return
    columns = ["record_id", "file", "row"]

    def tables() -> Iterator[pa.Table]:
        for piece in context.pieces(parts, columns):
            yield piece.filter(pc.is_valid(piece["file"]))
        for ledger in ledgers:
            for piece in context.files.groups(ledger, columns):
                piece = piece.filter(pc.and_(pc.is_valid(piece["record_id"]), pc.is_valid(piece["file"])))
                paths = pa.array(context.paths, pa.string())
                files = pc.cast(pc.index_in(piece["file"], value_set=paths), pa.int32())
                yield pa.table(
                    [records.id_column(records.ids_of_hex(piece["record_id"])), files, piece["row"]], names=columns
                )

    rows = sum(part.rows for part in parts) + sum(ledger["rows"] for ledger in ledgers)
    twice: list[npt.NDArray[np.uint64]] = []

    def ids() -> Iterator[npt.NDArray[np.uint8]]:
        return (records.ids_of(table["record_id"]) for table in tables())

    for high, low in _ranges(ids, rows, context.memory // 2):
        twice.append(_tied(high, low)[1])
    if not any(map(len, twice)):
        return
    halves = np.concatenate(twice)
    found = []
    for table in tables():
        mine = np.isin(_halves(records.ids_of(table["record_id"]))[0], halves)
        found += table.filter(pa.array(mine)).to_pylist()
    found.sort(key=lambda row: (row["file"], row["row"]))
    seen: dict[bytes, dict[str, Any]] = {}
    for second in found:
        first = seen.setdefault(second["record_id"], second)
        if first is not second and (first["file"], first["row"]) != (second["file"], second["row"]):
            item = context.inputs[second["file"]]
            source = next(s for s in context.recipe.sources if s.name == item.source)
            places = [f"{context.inputs[row['file']].where}:{row['row']}" for row in (second, first)]
            raise InvalidInput(
                f"{places[0]}: same '{source.id}' as {places[1]}: keys must be unique in source '{source.name}'"
            )
