"""Comparing two finished runs: their recipes and inputs, their funnels, their records, their shares and measures.

Records are compared by `record_id`. What is read of each is digested at once into a row of 96 bytes; the rows of both
runs are cut by the prefix of their ids into parts that fit into memory, and wait in temporary files when there is more
than one part.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate import provenance
from variegate.errors import CorruptRun, InvalidInput
from variegate.provenance.records import Ragged
from variegate.run import _records as records
from variegate.run._check import finished, line_blocks, read_lines

__all__ = ["Example", "Fate", "GroupDiff", "InputDiff", "RecordDiff", "RunDiff", "ShareDiff", "StageDiff", "diff"]

Rows = npt.NDArray[Any]
"""Records of numpy, of type `_ROW`, `_DROPPED` or `_PICK`."""


@dataclass(frozen=True)
class InputDiff:
    """An input file that the runs do not share.

    Attributes:
        source: Name of the source or stage that read it.
        path: As the recipe has it.
        change: "new" (only in B), "gone" (only in A) or "changed".
        a: Its SHA-256 in A, or None.
        b: Its SHA-256 in B, or None.
    """

    source: str
    path: str
    change: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class StageDiff:
    """A stage in both runs.

    Attributes:
        name: Of the stage.
        kind: Of the stage.
        a: Its line of A's funnel (`in`, `created`, `out`, `rejected`, `reasons`), or None where A has no such stage.
        b: The same of B.
    """

    name: str
    kind: str
    a: dict[str, Any] | None
    b: dict[str, Any] | None

    @property
    def differs(self) -> bool:
        """Whether any number differs."""
        return self.a != self.b


@dataclass(frozen=True)
class GroupDiff:
    """How the records of one kind and source compare; the numbers mean what they mean in `RecordDiff`.

    Attributes:
        kind: Of the records, in A where they are in both.
        source: Of the records, in A where they are in both.
        same: Equal records.
        text: Records with another text.
        provenance: Records with equal text and other provenance.
        fields: Records that differ in other fields only.
        only_a: Records that B has not.
        only_b: Records that A has not.
    """

    kind: str
    source: str
    same: int
    text: int
    provenance: int
    fields: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class Fate:
    """What became, in the other run, of records that only one run has.

    Attributes:
        fate: "rejected": the other run's ledger has the id. Else "same_text": the text is there under an id that only
            the other run has. Else "same_parents": the other run made another record of that kind from the same
            parents. Else "not_made".
        stage: That rejected them, or None.
        reason: Of the reject, or None.
        records: How many.
    """

    fate: str
    stage: str | None
    reason: str | None
    records: int


@dataclass(frozen=True)
class Example:
    """One record, or a pair, that differs.

    Attributes:
        what: "text", "provenance" or "fields" for a record in both runs; "same_text" or "same_parents" for a record of
            A and its counterpart in B; "only_a" or "only_b" for a record without one.
        record_id: In hexadecimal.
        counterpart: The record id of the counterpart, or None.
        kind: Of the record.
        source: Of the record.
        rejected: Stage and reason where the other run rejected it, or None.
        a: An excerpt of the text in A, around the first difference, or None.
        b: The same of B.
        changes: For "provenance" and "fields", the fields that differ, each with A's and B's value.
    """

    what: str
    record_id: str
    counterpart: str | None
    kind: str
    source: str
    rejected: tuple[str, str] | None
    a: str | None
    b: str | None
    changes: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RecordDiff:
    """How the records of the final sets compare, by `record_id`. Each record counts once.

    Attributes:
        same: Records in both, equal.
        text: In both, with another text.
        provenance: In both, with equal text and other provenance.
        fields: In both, equal but for the further fields of the row (kept fields, spans, bindings).
        fields_compared: False where the further fields were not compared, as one run wrote Parquet and the other JSON.
        only_a: Only in A.
        only_b: Only in B.
        fates_a: What became, in B, of those that only A has.
        fates_b: What became, in A, of those that only B has.
        groups: The same numbers by kind and source; none where both runs have the same files.
        examples: For each kind of difference some records, those with the smallest ids.
    """

    same: int
    text: int
    provenance: int
    fields: int
    fields_compared: bool
    only_a: int
    only_b: int
    fates_a: tuple[Fate, ...]
    fates_b: tuple[Fate, ...]
    groups: tuple[GroupDiff, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class ShareDiff:
    """A part of the final sets that differs in size.

    Attributes:
        by: "kind", "source", "license" or "generation".
        value: Of that field.
        a: `rows`, `bytes` of text, and `tokens` where A counted them; empty where A has none.
        b: The same of B.
    """

    by: str
    value: str
    a: dict[str, int]
    b: dict[str, int]


@dataclass(frozen=True)
class RunDiff:
    """What two finished runs, A and B, differ in.

    Attributes:
        a: Directory of A.
        b: Directory of B.
        identical: Whether the files of the final sets are the same, byte for byte.
        same: Whether the final sets hold the same records; their order and their division into files may differ.
        recipe: A unified diff of the resolved recipes, line by line; empty where they are equal.
        versions: What made the runs, where it differs: name to A's and B's version.
        inputs: Input files that are not the same in both.
        output: `format`, `rows`, `bytes`, `files` and `merkle_root` of the final sets: name to A's and B's value.
        stages: The funnels side by side, in B's order.
        records: How the records compare.
        shares: Shares of the final sets that differ.
        measures: Measures that differ: "set.measure" to A's and B's value, None where one has not measured it.
    """

    a: Path
    b: Path
    identical: bool
    same: bool
    recipe: tuple[str, ...]
    versions: dict[str, tuple[Any, Any]]
    inputs: tuple[InputDiff, ...]
    output: dict[str, tuple[Any, Any]]
    stages: tuple[StageDiff, ...]
    records: RecordDiff
    shares: tuple[ShareDiff, ...]
    measures: dict[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain

    def __repr__(self) -> str:
        names = ("same", "text", "provenance", "fields", "only_a", "only_b")
        numbers = ", ".join(f"{name}={getattr(self.records, name)}" for name in names)
        return f"<RunDiff of {self.a} and {self.b}: {'identical' if self.identical else numbers}>"


def diff(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, examples: int = 5, memory: int = 256 << 20
) -> RunDiff:
    """Compares two finished runs.

    Where the final sets are the same files, which their manifests say, no record is read. The data files are taken as
    they are: `check` is what verifies them.

    Args:
        a: Directory of the run to compare with.
        b: Directory of the other run.
        examples: How many to give of each kind of difference.
        memory: Bytes to use, about; the result does not depend on it. What does not fit waits in temporary files, 96
            bytes a record.

    Raises:
        InvalidInput: There is no run in a directory.
        CorruptRun: A run is not finished, or a file cannot be read.
    """
    if examples < 0:
        raise InvalidInput(f"examples must be 0 or more, not {examples}")
    if memory < 1:
        raise InvalidInput(f"memory must be 1 or more bytes, not {memory}")
    old, new = _Run(Path(a)), _Run(Path(b))
    identical = [_content(run.manifest) for run in (old, new)]
    same_files = identical[0] == identical[1]
    if same_files:
        compared = RecordDiff(old.manifest["rows"], 0, 0, 0, True, 0, 0, (), (), (), ())
    else:
        compared = _compare((old, new), examples, memory)
    differing = compared.text + compared.provenance + compared.fields + compared.only_a + compared.only_b
    versions = {name: (old.versions.get(name), new.versions.get(name)) for name in {**old.versions, **new.versions}}
    sizes = [{**run.manifest, "files": len(run.manifest["files"])} for run in (old, new)]
    return RunDiff(
        a=old.folder,
        b=new.folder,
        identical=same_files,
        same=not differing,
        recipe=tuple(difflib.unified_diff(old.recipe, new.recipe, "A", "B", lineterm="")),
        versions={name: pair for name, pair in versions.items() if pair[0] != pair[1]},
        inputs=tuple(_inputs(old.manifest["inputs"], new.manifest["inputs"])),
        output={name: (sizes[0][name], sizes[1][name]) for name in ("format", "rows", "bytes", "files", "merkle_root")},
        stages=tuple(_funnel(old.manifest["stages"], new.manifest["stages"])),
        records=compared,
        shares=tuple(_shares(old.manifest["shares"], new.manifest["shares"])),
        measures=_measures(old.measures, new.measures),
    )


class _Run:
    """A finished run: what its files say, without the records."""

    def __init__(self, folder: Path) -> None:
        import yaml

        self.folder = folder
        _, self.manifest = finished(folder)
        path = folder / "recipe.lock.yaml"
        try:
            lock = yaml.safe_load(path.read_text("utf-8"))
            self.recipe = yaml.safe_dump(lock["recipe"], sort_keys=False, allow_unicode=True, width=120).splitlines()
            self.versions: dict[str, Any] = {**lock["versions"], "tokenizer": self.manifest["tokenizer"]}
            path = folder / "report.json"
            self.measures: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["measures"]
        except FileNotFoundError:
            raise CorruptRun(f"{path} is missing") from None
        except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise CorruptRun(f"{path} was altered: {str(error).splitlines()[0]}") from None
        self.files = [folder / item["path"] for item in self.manifest["files"]]
        self.rejected = sum(stage["rejected"] for stage in self.manifest["stages"])

    def names(self) -> list[str]:
        """Fields of each row."""
        if not self.files:
            return []
        with _readable(self.files[0]):
            if self.manifest["format"] == "parquet":
                names: list[str] = pq.read_schema(self.files[0]).names
                return names
            return list(json.loads(next(line_blocks(self.files[0], 1 << 20), b"{}").partition(b"\n")[0]))

    def ledger(self) -> list[Path]:
        """Files of the ledger, stage by stage."""
        return sorted((self.folder / "rejects").rglob("*.parquet"))


def _content(manifest: dict[str, Any]) -> list[str]:
    return [manifest["merkle_root"], *(item["sha256"] for item in manifest["files"])]


def _inputs(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[InputDiff]:
    before = {(item["source"], item["path"]): item["sha256"] for item in old}
    after = {(item["source"], item["path"]): item["sha256"] for item in new}
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        if a != b:
            yield InputDiff(*key, "new" if key not in before else "gone" if key not in after else "changed", a, b)


def _funnel(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[StageDiff]:
    before, after = [{(stage["name"], stage["kind"]): stage for stage in stages} for stages in (old, new)]
    order, last = list(after), -1
    for key in before:
        if key not in after:
            order.insert(last + 1, key)
        last = order.index(key)
    wanted = ("in", "created", "out", "rejected", "reasons")
    for key in order:
        sides = [None if key not in side else {name: side[key][name] for name in wanted} for side in (before, after)]
        yield StageDiff(*key, *sides)


def _shares(old: dict[str, Any], new: dict[str, Any]) -> Iterator[ShareDiff]:
    for by in {**old, **new}:
        before, after = old.get(by, {}), new.get(by, {})
        for value in sorted(before.keys() | after.keys()):
            if before.get(value) != after.get(value):
                yield ShareDiff(by, value, before.get(value, {}), after.get(value, {}))


def _measures(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    flat = [{f"{name}.{key}": value for name, of in side.items() for key, value in of.items()} for side in (old, new)]
    pairs = {key: (flat[0].get(key), flat[1].get(key)) for key in {**flat[0], **flat[1]}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


_ROW = np.dtype(
    [(name, "S16") for name in ("id", "text", "provenance", "fields", "origin")]
    + [("group", "<u4"), ("file", "<u4"), ("row", "<u8")]
)
"""A record: its id, digests of its text, of the rest of its provenance, of its further fields, of its parents and kind
(zero without parents), the number of its kind and source, and where it is."""
_DROPPED = np.dtype([("id", "S16"), ("fate", "<u4")])
"""A reject: the id, and the number of its stage and reason."""
_PICK = np.dtype([("x", _ROW), ("y", _ROW), ("fate", "<u4")])
"""An example: a record, its counterpart, and the number of its fate."""
_MOST_BITS = 12
_SAME, _TEXT, _PROVENANCE, _FIELDS, _ONLY_A, _ONLY_B = range(6)
_NOT_MADE, _SAME_TEXT, _SAME_PARENTS = range(3)


def _compare(runs: tuple[_Run, _Run], examples: int, memory: int) -> RecordDiff:
    """The records of both runs, part by part of the range of ids."""
    names = [set(run.names()) - {"text", "provenance"} for run in runs]
    one_format = runs[0].manifest["format"] == runs[1].manifest["format"]
    further = one_format and bool(names[0] or names[1])
    size = 3 * _ROW.itemsize * sum(run.manifest["rows"] + run.rejected for run in runs)
    bits = next((bits for bits in range(_MOST_BITS) if size >> bits <= memory // 2), _MOST_BITS)
    groups: dict[tuple[str, str], int] = {}
    fates: dict[tuple[str, str | None, str | None], int] = {
        ("not_made", None, None): _NOT_MADE,
        ("same_text", None, None): _SAME_TEXT,
        ("same_parents", None, None): _SAME_PARENTS,
    }
    picks = _Picks(examples)
    with ExitStack() as stack:

        def piles(key: str, kind: np.dtype[Any] = _ROW) -> tuple[_Pile, _Pile]:
            made = [stack.enter_context(_Pile(kind, key, bits, memory // 16)) for _ in runs]
            return made[0], made[1]

        whole, dropped = piles("id"), piles("id", _DROPPED)
        for run, pile, drops in zip(runs, whole, dropped, strict=True):
            for rows in _digests(run, groups, memory // 32, further=further, bare=names[0] != names[1]):
                pile.add(rows)
            for rows in _drops(run, fates):
                drops.add(rows)
        tally = np.zeros((len(groups), 6), np.int64)
        became = np.zeros((2, len(fates)), np.int64)

        # First by id: what both have, and of the rest what the other run rejected.
        rest = piles("text")
        for part in range(1 << bits):
            a, b = (_by_id(run, pile.part(part)) for run, pile in zip(runs, whole, strict=True))
            at, both = _find(a["id"], b["id"])
            x, y = a[both], b[at[both]]
            different = [x[name] != y[name] for name in ("text", "provenance", "fields")]
            outcome = np.select(different, [_TEXT, _PROVENANCE, _FIELDS], _SAME)
            tally += np.bincount(x["group"].astype(np.int64) * 6 + outcome, minlength=tally.size).reshape(-1, 6)
            for code, what in ((_TEXT, "text"), (_PROVENANCE, "provenance"), (_FIELDS, "fields")):
                picks.offer(what, x[outcome == code], y[outcome == code])
            left = np.ones(len(b), bool)
            left[at[both]] = False
            for side, alone in enumerate((a[~both], b[left])):
                tally[:, _ONLY_A + side] += np.bincount(alone["group"], minlength=len(tally))
                rejects = dropped[1 - side].part(part)
                rejects = rejects[np.argsort(rejects["id"], kind="stable")]
                at, hit = _find(alone["id"], rejects["id"])
                fate = rejects["fate"][at[hit]]
                became[side] += np.bincount(fate, minlength=len(fates))
                picks.offer(("only_a", "only_b")[side], alone[hit], fate=fate)
                rest[side].add(alone[~hit])

        # Then by text, and what remains by parents.
        remade = piles("origin")
        for side, found, partner, others in _partners(rest):
            became[side, _SAME_TEXT] += len(found)
            if side == 0:
                picks.offer("same_text", found, partner)
            with_parents = others["origin"] != b""
            remade[side].add(others[with_parents])
            became[side, _NOT_MADE] += np.count_nonzero(~with_parents)
            picks.offer(("only_a", "only_b")[side], others[~with_parents])
        for side, found, partner, others in _partners(remade):
            became[side, _SAME_PARENTS] += len(found)
            if side == 0:
                picks.offer("same_parents", found, partner)
            became[side, _NOT_MADE] += len(others)
            picks.offer(("only_a", "only_b")[side], others)
    listed = [
        tuple(
            sorted(
                (Fate(*key, int(count)) for key, count in zip(fates, side, strict=True) if count),
                key=lambda fate: (-fate.records, fate.fate, fate.stage or "", fate.reason or ""),
            )
        )
        for side in became
    ]
    same, text, other, fields, only_a, only_b = tally.sum(axis=0).tolist()
    return RecordDiff(
        same=same,
        text=text,
        provenance=other,
        fields=fields,
        fields_compared=one_format or not (names[0] or names[1]),
        only_a=only_a,
        only_b=only_b,
        fates_a=listed[0],
        fates_b=listed[1],
        groups=tuple(GroupDiff(*key, *tally[number].tolist()) for key, number in sorted(groups.items())),
        examples=tuple(_examples(runs, picks, list(groups), list(fates), memory // 32)),
    )


class _Pile:
    """Rows in parts by the first bits of a key; they wait in a temporary file unless there is one part."""

    def __init__(self, kind: np.dtype[Any], key: str, bits: int, room: int) -> None:
        self.kind, self.key, self.bits, self.room = kind, key, bits, max(room, 1 << 12)
        self.waiting: list[Rows] = []
        self.waiting_bytes = 0
        self.file: IO[bytes] | None = None
        self.written: list[tuple[int, list[int]]] = []

    def __enter__(self) -> _Pile:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, rows: Rows) -> None:
        """Adds rows."""
        if len(rows):
            self.waiting.append(rows)
            self.waiting_bytes += rows.nbytes
            if self.bits and self.waiting_bytes > self.room:
                self.write()

    def write(self) -> None:
        """Sends what waits to the file, in the order of the parts."""
        rows = np.concatenate(self.waiting)
        self.waiting, self.waiting_bytes = [], 0
        keys = np.ascontiguousarray(rows[self.key])
        parts = keys.view(">u2").reshape(-1, 8)[:, 0] >> (16 - self.bits)
        order = np.argsort(parts, kind="stable")
        starts = np.searchsorted(parts[order], np.arange((1 << self.bits) + 1))
        if self.file is None:
            self.file = tempfile.TemporaryFile(prefix="variegate-diff-")  # noqa: SIM115
        self.written.append((self.file.seek(0, os.SEEK_END), (starts * self.kind.itemsize).tolist()))
        self.file.write(rows[order].tobytes())

    def pieces(self, part: int) -> Iterator[Rows]:
        """The rows of a part in the order in which they came, in pieces of limited size."""
        if self.bits and self.waiting:
            self.write()
        pieces: list[Rows] = list(self.waiting)
        size = 0
        for start, ends in self.written:
            length = ends[part + 1] - ends[part]
            if length and self.file is not None:
                self.file.seek(start + ends[part])
                pieces.append(np.frombuffer(self.file.read(length), self.kind))
                size += length
                if size > self.room:
                    yield np.concatenate(pieces)
                    pieces, size = [], 0
        if pieces:
            yield np.concatenate(pieces)

    def part(self, part: int) -> Rows:
        """The rows of a part."""
        return np.concatenate([np.empty(0, self.kind), *self.pieces(part)])


class _Picks:
    """The first records of each kind of difference, by id."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: dict[str, Rows] = {}

    def offer(self, what: str, x: Rows, y: Rows | None = None, fate: Rows | None = None) -> None:
        """Takes those with the smallest ids."""
        order = np.argsort(x["id"], kind="stable")[: self.most]
        new = np.zeros(len(order), _PICK)
        new["x"] = x[order]
        if y is not None:
            new["y"] = y[order]
        if fate is not None:
            new["fate"] = fate[order]
        rows = np.concatenate([self.rows.get(what, np.empty(0, _PICK)), new])
        self.rows[what] = rows[np.argsort(rows["x"]["id"], kind="stable")[: self.most]]


def _by_id(run: _Run, rows: Rows) -> Rows:
    """Rows in the order of their ids, which must differ."""
    rows = rows[np.argsort(rows["id"], kind="stable")]
    twice = rows["id"][1:] == rows["id"][:-1]
    if twice.any():
        twin = rows["id"][int(twice.argmax())].ljust(16, b"\0").hex()
        raise CorruptRun(f"{run.folder}: two records have the record_id {twin}")
    return rows


def _find(wanted: Rows, known: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each key is among sorted ones, and whether it is there at all."""
    if not len(known):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    known, wanted = np.ascontiguousarray(known), np.ascontiguousarray(wanted)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return at, known[at] == wanted


def _partners(piles: tuple[_Pile, _Pile]) -> Iterator[tuple[int, Rows, Rows, Rows]]:
    """Rows whose key the other side has: side, rows, a partner for each (the one with the smallest id), other rows.

    A key may come any number of times: of each part only the different keys of one side are in memory at a time.
    """
    key = piles[0].key
    for part in range(1 << piles[0].bits):
        for side in (0, 1):
            known = np.empty(0, _ROW)
            for piece in piles[1 - side].pieces(part):
                known = np.concatenate([known, piece])
                known = known[np.lexsort((known["id"], known[key]))]
                known = known[np.append(True, known[key][1:] != known[key][:-1])]
            for piece in piles[side].pieces(part):
                at, hit = _find(piece[key], known[key])
                yield side, piece[hit], known[at[hit]], piece[~hit]


def _digests(run: _Run, groups: dict[tuple[str, str], int], size: int, *, further: bool, bare: bool) -> Iterator[Rows]:
    """The records of a run as rows."""
    for number, path in enumerate(run.files):
        start = 0
        with _readable(path):
            for table, lines in _batches(path, size, further=further, bare=bare):
                rows = _digested(table, lines if further else None, groups, further=further)
                rows["file"] = number
                rows["row"] = np.arange(start, start + len(rows))
                start += len(rows)
                yield rows


def _digested(table: pa.Table, lines: Ragged | None, groups: dict[tuple[str, str], int], *, further: bool) -> Rows:
    struct = records.flat(table["provenance"])
    cells = {name: records.provenance_cells(struct, name) for name in provenance.FIELDS[1:]}
    rows = np.zeros(len(table), _ROW)
    rows["id"] = _keys(records.ids_of_hex(pc.struct_field(struct, "record_id")))
    rows["text"] = _keys(provenance.record_hashes([records.ragged(table["text"])]))
    rows["provenance"] = _keys(provenance.record_hashes(list(cells.values())))
    origin = _keys(provenance.record_hashes([cells["parents"], cells["kind"]]))
    rows["origin"] = np.where(np.diff(cells["parents"][1]) > 0, origin, b"")
    if lines is not None:
        rows["fields"] = _keys(provenance.record_hashes([lines]))
    elif further:
        rows["fields"] = _keys(_further(table))
    kinds, sources = (_encoded(pc.struct_field(struct, name)) for name in ("kind", "source"))
    pairs, place = np.unique(kinds[0] * max(len(sources[1]), 1) + sources[0], return_inverse=True)
    found = [(kinds[1][pair // len(sources[1])], sources[1][pair % len(sources[1])]) for pair in pairs.tolist()]
    rows["group"] = np.array([groups.setdefault(pair, len(groups)) for pair in found], np.uint32)[place]
    return rows


def _keys(digests: npt.NDArray[np.uint8]) -> Rows:
    """The first 16 bytes of each digest; numpy orders and compares such cells as bytes."""
    return np.ascontiguousarray(digests[:, :16]).view("S16").reshape(-1)


def _encoded(column: pa.Array) -> tuple[npt.NDArray[np.int64], list[str]]:
    codes = records.flat(pc.fill_null(column, "")).dictionary_encode()
    return codes.indices.to_numpy().astype(np.int64), codes.dictionary.to_pylist()


def _drops(run: _Run, fates: dict[tuple[str, str | None, str | None], int]) -> Iterator[Rows]:
    """The rejects of a run that were records."""
    for path in run.ledger():
        with _readable(path), pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(columns=["stage", "reason", "record_id"], use_threads=False):
                known = batch.filter(pc.is_valid(batch["record_id"]))
                rows = np.zeros(len(known), _DROPPED)
                rows["id"] = _keys(records.ids_of_hex(known["record_id"]))
                (stage, stages), (reason, reasons) = (_encoded(known[name]) for name in ("stage", "reason"))
                pairs, place = np.unique(stage * max(len(reasons), 1) + reason, return_inverse=True)
                keys = [("rejected", stages[p // len(reasons)], reasons[p % len(reasons)]) for p in pairs.tolist()]
                rows["fate"] = np.array([fates.setdefault(key, len(fates)) for key in keys], np.uint32)[place]
                yield rows


def _batches(path: Path, size: int, *, further: bool, bare: bool) -> Iterator[tuple[pa.Table, Ragged | None]]:
    """The rows of a data file in batches of about `size` bytes, and of JSON the lines, `bare` of what is null."""
    size = min(max(size, 1 << 16), 1 << 22)  # more is slower, as it leaves the cache
    if path.suffix == ".parquet":
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
            about = file.metadata
            whole = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            rows = min(max(size * about.num_rows // max(whole, 1), 16), 1 << 16)
            columns = None if further else ["text", "provenance"]
            for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch]), None
        return
    for block in line_blocks(path, size):
        lines = np.frombuffer(_NULL.sub(b"", block) if bare else block, np.uint8)
        yield read_lines(block), (lines, np.append(0, np.flatnonzero(lines == ord("\n")) + 1))


_NULL = re.compile(rb'"[^"\\]*":null,?')
"""A field that is null, as JSON is written here; within a string its quotes would be escaped."""


def _further(table: pa.Table) -> npt.NDArray[np.uint8]:
    """A digest of the fields beside text and provenance; one that is null counts like one that is not there."""
    total = np.zeros((len(table), 32), np.uint8)
    for name in table.column_names:
        if name not in ("text", "provenance"):
            column = records.flat(table[name])
            title = np.frombuffer(name.encode(), np.uint8)
            titles = np.tile(title, len(table)), np.arange(len(table) + 1, dtype=np.int64) * len(title)
            valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
            total ^= np.where(valid[:, None], provenance.record_hashes([titles, _cells(column)]), np.uint8(0))
    return total


def _cells(array: pa.Array) -> Ragged:
    """Each value of an array of any type as bytes; a nested one as the digests of what is in it."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _cells(array.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType):
        return _cells(array.storage)
    if pa.types.is_null(kind):
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    if pa.types.is_map(kind):
        entries = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        return _cells(array.cast(pa.list_(entries)))
    if pa.types.is_struct(kind):
        return _digest([_marked(pc.struct_field(array, field)) for field in range(kind.num_fields)], len(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        return _marked(array.flatten())[0], np.append(0, np.cumsum(lengths, dtype=np.int64)) * 32
    if pa.types.is_boolean(kind):
        return _cells(array.cast(pa.uint8()))
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        width = kind.bit_width // 8
        values = np.frombuffer(array.buffers()[1] or b"", np.uint8)[array.offset * width :][: len(array) * width]
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        values = np.where(valid[:, None], values.reshape(len(array), width), np.uint8(0))
        return values.reshape(-1), np.arange(len(array) + 1, dtype=np.int64) * width
    text = pa.types.is_string(kind) or str(kind) == "string_view"
    column = array.cast(pa.large_string() if text or pa.types.is_large_string(kind) else pa.large_binary())
    return records.ragged(pc.fill_null(column, ""))


def _marked(array: pa.Array) -> Ragged:
    """The digest of each value and of whether it is null."""
    marks = pc.is_valid(array).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return _digest([_cells(array), (marks, np.arange(len(array) + 1, dtype=np.int64))], len(array))


def _digest(cells: list[Ragged], rows: int) -> Ragged:
    offsets = np.arange(rows + 1, dtype=np.int64)
    hashed = provenance.record_hashes(cells) if cells else np.zeros((rows, 32), np.uint8)
    return hashed.reshape(-1), offsets * 32


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong in reading a file into an error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise CorruptRun(f"{path} is missing, though the manifest has it") from None
    except (OSError, pa.ArrowException, InvalidInput, KeyError, ValueError) as error:
        raise CorruptRun(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _examples(
    runs: tuple[_Run, _Run],
    picks: _Picks,
    groups: list[tuple[str, str]],
    fates: list[tuple[str, str | None, str | None]],
    size: int,
) -> Iterator[Example]:
    """The picked records with excerpts of their texts."""
    order = ("text", "provenance", "fields", "same_text", "same_parents", "only_a", "only_b")
    picked = [(what, pick) for what in order for pick in picks.rows.get(what, ())]
    places = [_places(what, pick) for what, pick in picked]
    texts = [_fetch(run, [place[side] for place in places], size) for side, run in enumerate(runs)]
    for (what, pick), place in zip(picked, places, strict=True):
        x = pick["x"]
        a, b = (None if at is None else texts[side][at] for side, at in enumerate(place))
        excerpts = _excerpts(*(None if row is None else row["text"] for row in (a, b)))
        changes = {}
        if what in ("provenance", "fields") and a is not None and b is not None:
            before, after = (row["provenance"] if what == "provenance" else row for row in (a, b))
            changes = {
                name: (before.get(name), after.get(name))
                for name in {**before, **after}
                if name != "provenance" and before.get(name) != after.get(name)
            }
        kind, source = groups[x["group"]]
        fate, stage, reason = fates[pick["fate"]]
        rejected = (stage or "", reason or "") if fate == "rejected" else None
        counterpart = _hex(pick["y"]["id"]) if what in ("same_text", "same_parents") else None
        yield Example(what, _hex(x["id"]), counterpart, kind, source, rejected, *excerpts, changes)


def _places(what: str, pick: Any) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """File and row of an example in A and in B."""
    x, y = ((int(pick[name]["file"]), int(pick[name]["row"])) for name in "xy")
    return (None, x) if what == "only_b" else (x, None) if what == "only_a" else (x, y)


def _hex(key: bytes) -> str:
    return key.ljust(16, b"\0").hex()


def _fetch(run: _Run, places: Iterable[tuple[int, int] | None], size: int) -> dict[tuple[int, int], dict[str, Any]]:
    """The rows at some places, whole."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    wanted: dict[int, set[int]] = {}
    for place in places:
        if place is not None:
            wanted.setdefault(place[0], set()).add(place[1])
    for number, rows in sorted(wanted.items()):
        start = 0
        with _readable(run.files[number]):
            for table, lines in _batches(run.files[number], size, further=True, bare=False):
                for row in sorted(row for row in rows if start <= row < start + len(table)):
                    if lines is None:
                        found[number, row] = table.slice(row - start, 1).to_pylist()[0]
                    else:
                        values, offsets = lines
                        cells = values[offsets[row - start] : offsets[row - start + 1]]
                        found[number, row] = json.loads(cells.tobytes())
                    rows.discard(row)
                start += len(table)
                if not rows:
                    break
    return found


_WIDTH = 90
_BEFORE = 30


def _excerpts(a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """Pieces of two texts around their first difference, or the beginning of one."""
    start = 0
    if a is not None and b is not None and a != b:
        common = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        start = max(0, common - _BEFORE) if common + _BEFORE > _WIDTH else 0
    cut = [
        None
        if text is None
        else ("…" if start else "") + text[start : start + _WIDTH] + ("…" if len(text) > start + _WIDTH else "")
        for text in (a, b)
    ]
    return cut[0], cut[1]
