"""Deduplication of files: one folder with the records that stay, as they were, and those that go, with their keepers.

The files are read twice: once to decide, once to copy. In between, 12 bytes a record are held beside what
`variegate.dedup.Deduper` holds.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from variegate import _store as store
from variegate.batch import TextBatch
from variegate.dedup import Deduper, DedupResult
from variegate.errors import InvalidInput
from variegate.recipe import Recipe, Source
from variegate.run import Event
from variegate.run import _arrow as arrow
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run._inputs import EMPTY_FILE, Chunk, Damage, File, Input
from variegate.run._parse import texts
from variegate.run._units import Unit, units

__all__ = ["ENDINGS", "deduplicate"]

ENDINGS = {"jsonl": "jsonl", "text": "txt", "parquet": "parquet"}
"""The formats that are read, and how the names of the files end that are written for them."""

_STAGES = ("read", "compare", "write")

_ROWS_AT_ONCE = 8192
"""Rows of a Parquet file that are copied at a time."""


def deduplicate(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    deduper: Deduper,
    *,
    text: str = "text",
    progress: Callable[[Event], None] | None = None,
) -> DedupResult:
    """Writes the records of files to `out/kept.*` and `out/removed.*`; each record goes to exactly one of them.

    ``kept`` has the lines as they were, or the rows with all their columns, in the order of the files. ``removed`` has
    file, row, ``duplicate_of`` (file and row of the record that is kept in its favour, null where that is the record
    itself, as ``keep="none"`` has it), ``similarity`` and the record. Lines of text files are records; blank lines are
    none.

    Args:
        files: JSONL, text (both as they are, .gz or .zst) or Parquet, all of one format.
        out: A folder, which must not be there; it appears with all that belongs into it or not at all.
        deduper: Has no rows yet.
        text: The field that holds the text.
        progress: Called with an `Event` as it goes.

    Raises:
        InvalidInput: If `out` is there, a file cannot be read, is named twice or changes meanwhile, formats or schemas
            differ, a line or row holds no text, or there is no record.
    """
    job = _Job([Path(file) for file in files], Path(out), deduper, text, progress or (lambda event: None))
    return job.run()


class _Job:
    """One deduplication: what is read, and the place of each record."""

    def __init__(
        self, files: list[Path], out: Path, deduper: Deduper, text: str, progress: Callable[[Event], None]
    ) -> None:
        if os.path.lexists(out):
            raise InvalidInput(f"{out} is there already: name a folder that is not")
        if not text:
            raise InvalidInput("text must name a field (it is empty)")
        self.out, self.deduper, self.progress = out, deduper, progress
        self.source = Source(name="input", path="*", text=text, split="line")
        self.recipe = Recipe(version=1, sources=[self.source])
        self.listed = _listed(files, self.source)
        self.format = self.listed[0].format
        self.digests: dict[int, str] = {}
        self.began = time.monotonic()
        self.rows: list[list[np.ndarray[Any, np.dtype[np.int64]]]] = [[] for _ in self.listed]

    def run(self) -> DedupResult:
        """Decides, then copies."""
        schema = self.schema() if self.format == "parquet" else None
        self.read()
        self.places = [np.concatenate([np.zeros(0, np.int64), *rows]) for rows in self.rows]
        self.starts = np.cumsum([0, *(len(rows) for rows in self.places)])
        count = int(self.starts[-1])
        self.began = time.monotonic()
        self.tell(1, 0, None)
        self.found = self.deduper.result()
        self.tell(1, count, self.found, finished=True)
        with _folder(self.out) as folder:
            if schema is None:
                self.copy_lines(folder)
            else:
                self.copy_rows(folder, schema)
        self.tell(2, count, None, finished=True)
        return self.found

    def read(self) -> None:
        """Gives all texts to the deduper, file by file."""
        self.tell(0, 0, None)
        for unit in self.units(self.digests):
            parts, problems = texts(unit)
            for problem in problems:
                if problem.reason != EMPTY_FILE:
                    raise InvalidInput(inputs.complaint(problem, self.listed))
            for file, column, rows in parts:
                start = len(self.deduper)
                ids = np.arange(start, start + len(rows), dtype=np.uint64)
                self.deduper.add(TextBatch(*records.ragged(column), ids=ids))
                self.rows[file].append(rows)
            self.tell(0, len(self.deduper), None)
        self.tell(0, len(self.deduper), None, finished=True)

    def units(self, digests: dict[int, str]) -> Iterator[Unit]:
        """The content of the files."""
        self.began = time.monotonic()
        return units(self.recipe, self.listed, digests)

    def copy_lines(self, folder: Path) -> None:
        """Writes the lines that stay as they are, and the others as JSON."""
        digests: dict[int, str] = {}
        copied = [0 for _ in self.listed]
        kept_name = folder / f"kept.{ENDINGS[self.format]}"
        with open(kept_name, "wb") as kept, open(folder / "removed.jsonl", "wb") as removed:
            for unit in self.units(digests):
                for chunk in unit.chunks:
                    copied[chunk.file] += self.copy_chunk(chunk, copied[chunk.file], kept, removed)
                self.tell(2, sum(copied), None)
            for file in (kept, removed):
                file.flush()
                os.fsync(file.fileno())
        for index, item in enumerate(self.listed):
            if digests.get(index) != self.digests.get(index) or copied[index] != len(self.places[index]):
                raise _changed(item)

    def copy_chunk(self, chunk: Chunk, at: int, kept: Any, removed: Any) -> int:
        """Writes the records of a chunk, the first of which is number `at` of its file; returns how many there are."""
        lines = chunk.data.removesuffix(b"\n").split(b"\n")
        places = self.places[chunk.file]
        end = int(np.searchsorted(places, chunk.row + len(lines)))
        first = int(self.starts[chunk.file])
        stays = self.found.keep[first + at : first + end].tolist()
        for number, row, stay in zip(range(first + at, first + end), places[at:end].tolist(), stays, strict=True):
            line = lines[row - chunk.row]
            if stay:
                kept.write(line + b"\n")
                continue
            record = (
                line.strip() if self.format == "jsonl" else _json(line.removesuffix(b"\r").decode(errors="replace"))
            )
            removed.write(b"".join([_json(self.about(number))[:-1], b', "record": ', record, b"}\n"]))
        return end - at

    def copy_rows(self, folder: Path, schema: pa.Schema) -> None:
        """Writes the rows that stay as they are, and the others as a column of structs."""
        plain = schema.remove_metadata()
        about = [
            ("file", pa.string()),
            ("row", pa.int64()),
            ("duplicate_of", pa.string()),
            ("similarity", pa.float32()),
        ]
        beside = pa.schema([*about, ("record", pa.struct(list(plain)))])
        options: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
        self.began = time.monotonic()
        done = 0
        with (
            pq.ParquetWriter(folder / "kept.parquet", schema, **options) as kept,
            pq.ParquetWriter(folder / "removed.parquet", beside, **options) as removed,
        ):
            for index, item in enumerate(self.listed):
                number = int(self.starts[index])
                for batch in self.batches(index, item):
                    stays = self.found.keep[number : number + len(batch)]
                    if stays.any():
                        kept.write_batch(batch.filter(pa.array(stays)).cast(schema))
                    number, done = number + len(batch), done + len(batch)
                    self.tell(2, done, None)
                    if stays.all():
                        continue
                    gone = batch.filter(pa.array(~stays))
                    facts = [self.about(number - len(batch) + int(at)) for at in np.flatnonzero(~stays)]
                    columns = [pa.array([fact[name] for fact in facts], kind) for name, kind in about]
                    struct = pa.StructArray.from_arrays(gone.columns, fields=list(plain))
                    removed.write_batch(pa.RecordBatch.from_arrays([*columns, struct], schema=beside))
                if number != self.starts[index + 1]:
                    raise _changed(item)

    def batches(self, index: int, item: Input) -> Iterator[pa.RecordBatch]:
        """The rows of a Parquet file with all columns."""
        try:
            with File(item) as file:
                file.read_rest()
                if file.hash.hexdigest() != self.digests[index]:
                    raise _changed(item)
                with pq.ParquetFile(item.where, pre_buffer=False, page_checksum_verification=True) as opened:
                    batches = opened.iter_batches(_ROWS_AT_ONCE, use_threads=False)
                    while (batch := _next(batches, item)) is not None:
                        yield batch
                file.require_same()
        except Damage as damage:
            raise InvalidInput(inputs.complaint(damage.problem(index), self.listed)) from None

    def schema(self) -> pa.Schema:
        """The schema that all Parquet files share, with the metadata of the first."""
        first: pa.Schema | None = None
        for item in self.listed:
            try:
                found = pq.read_schema(item.where)
            except arrow.DAMAGE as error:
                raise InvalidInput(f"cannot read {item.where}: {inputs.cause(error)}") from None
            first = found if first is None else first
            if not found.equals(first):
                raise InvalidInput(
                    f"{item.where} has other columns than {self.listed[0].where}: give both the same, or deduplicate "
                    "them by themselves"
                )
        return first

    def about(self, number: int) -> dict[str, Any]:
        """What is said of a record that goes."""
        keeper = int(self.found.keeper[number])
        file, row = self.place(number)
        return {
            "file": file,
            "row": row,
            "duplicate_of": None if keeper == number else "{}:{}".format(*self.place(keeper)),
            "similarity": round(float(self.found.similarity[number]), 6),
        }

    def place(self, number: int) -> tuple[str, int]:
        """File and row of a record."""
        file = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.listed[file].path, int(self.places[file][number - self.starts[file]])

    def tell(self, stage: int, rows: int, found: DedupResult | None, *, finished: bool = False) -> None:
        """Sends an event."""
        seconds = time.monotonic() - self.began
        gone = 0 if found is None else found.stats["rows"] - found.stats["kept"]
        self.progress(
            Event(
                stage=_STAGES[stage],
                index=stage,
                stages=len(_STAGES),
                parts=int(finished),
                parts_total=None,
                rows_in=rows,
                rows_out=rows - gone,
                rejected=gone,
                top_reason=None if not gone else "duplicate",
                seconds=seconds,
                rows_per_second=rows / seconds if seconds else 0.0,
                tokens_per_second=0.0,
                finished=finished,
            )
        )


def _listed(files: list[Path], source: Source) -> list[Input]:
    """The files as inputs, all of one format."""
    listed: list[Input] = []
    places: dict[str, Path] = {}
    for where in files:
        form = inputs.format_of(where, source)
        if form not in ENDINGS:
            raise InvalidInput(
                f"cannot deduplicate {where}: its name must end in .jsonl, .txt (or with .gz or .zst after it) or "
                ".parquet"
            )
        if listed and form != listed[0].format:
            raise InvalidInput(
                f"{where} is {form}, but {listed[0].where} is {listed[0].format}: give files of one format"
            )
        other = places.setdefault(os.path.realpath(where), where)
        if other is not where:
            raise InvalidInput(f"{other} and {where} are the same file: name it once")
        shown = os.fsencode(where).decode("utf-8", "backslashreplace")
        listed.append(inputs.sized(Input(source.name, shown, where, form), strict=True))
    if not listed:
        raise InvalidInput("deduplication needs at least one file")
    return listed


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` if the block ends well, and goes otherwise."""
    out = Path(os.path.abspath(out))
    store.make_folder(out.parent)
    folder = out.with_name(f"{store.TEMPORARY}{out.name}-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        store.fsync_folder(folder)
        if os.path.lexists(out):
            raise InvalidInput(f"{out} is there by now: name a folder that is not")
        folder.rename(out)
        store.fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _next(batches: Iterator[pa.RecordBatch], item: Input) -> pa.RecordBatch | None:
    """The next rows of a Parquet file, None at its end."""
    try:
        return next(batches, None)
    except arrow.DAMAGE as error:
        raise InvalidInput(f"cannot read {item.where}: {inputs.cause(error)}") from None


def _changed(item: Input) -> InvalidInput:
    return InvalidInput(f"{item.where} changed while it was read: start again when nobody writes it")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
