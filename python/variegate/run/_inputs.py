"""Reading sources: files in order, cut into units of a few megabytes, each of them a table or a problem a line.

Cutting needs no parsing and depends on nothing but the content, so that parts are the same whoever reads them.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate import _core, provenance
from variegate.errors import InvalidInput
from variegate.recipe import Recipe, Source, Templates
from variegate.run import _records as records

__all__ = ["Input", "Problem", "Unit", "is_utf8", "kept_types", "list_inputs", "parse", "units"]

UNIT_BYTES = 4 << 20
"""About how many bytes of input make a part."""

EMPTY_FILE = "empty_file"
"""The reason of a ledger entry for a file among others that holds nothing; no error even where a recipe is strict."""

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Input:
    """A file that the output depends on.

    Attributes:
        source: Name of its source or stage.
        path: As the ledger and the manifest name it: relative to the recipe's folder where it lies below it.
        where: Where it is now.
        format: How to read it; empty for a grammar or a tokenizer.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
    """

    source: str
    path: str
    where: Path = field(compare=False)
    format: str
    bytes: int = 0
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the journal and the manifest hold of it."""
        return {"source": self.source, "path": self.path, "bytes": self.bytes, "sha256": self.sha256}


class Chunk(NamedTuple):
    """A piece of a file: bytes that end at a line's end, or a batch of rows; `row` is the first line or row, from 1."""

    file: int
    row: int
    data: Any


class Unit(NamedTuple):
    """What becomes one part: chunks of one source."""

    source: Source
    format: str
    chunks: list[Chunk]


class Problem(NamedTuple):
    """A record that could not be read."""

    file: int
    row: int
    reason: str
    message: str
    raw: bytes


Parsed = tuple[dict[str, Any], npt.NDArray[np.int64], list[Problem]]
"""Columns (keys under ""), the row of each record, and what could not be read."""


def list_inputs(recipe: Recipe, *, hashed: bool = True) -> list[Input]:
    """All files of a recipe in a fixed order: by source, then by path.

    Raises:
        InvalidInput: If nothing matches a path, a file cannot be read, or its format is not known.
    """
    found: list[Input] = []
    for source in recipe.sources:
        matches = sorted(glob.glob(str(Path(glob.escape(str(recipe.base))) / source.path), recursive=True))
        if glob.has_magic(source.path):
            matches = [match for match in matches if not os.path.isdir(match)]
        if not matches:
            raise InvalidInput(f"source '{source.name}': no file matches {recipe.base / source.path}")
        for match in matches:
            where = Path(match)
            found.append(Input(source.name, _shown(where, recipe), where, _format(where, source)))
    for stage in recipe.stages:
        if isinstance(stage, Templates) and stage.path is not None:
            where = recipe.base / stage.path
            found.append(Input(stage.label, _shown(where, recipe), where, ""))
    if recipe.tokenizer != "default":
        where = recipe.base / recipe.tokenizer
        where = where / "tokenizer.json" if where.is_dir() else where
        found.append(Input("tokenizer", _shown(where, recipe), where, ""))
    if not hashed:
        return [_sized(item) for item in found]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_hashed, found))


def kept_types(recipe: Recipe, inputs: list[Input]) -> dict[str, pa.DataType]:
    """Column types of the fields that sources keep; fields of JSON and text files are strings.

    Raises:
        InvalidInput: If a file lacks such a column, or two files disagree about its type.
    """
    types: dict[str, tuple[pa.DataType, Path]] = {}
    sources = {source.name: source for source in recipe.sources}
    for item in inputs:
        source = sources.get(item.source)
        if source is None or not source.keep or not item.format:
            continue
        if item.format == "text":
            raise InvalidInput(f"source '{source.name}': a text file has no fields to keep ({item.where})")
        columns = _columns(item) if item.format in ("parquet", "arrow") else dict.fromkeys(source.keep, pa.string())
        for name in source.keep:
            if name not in columns:
                raise _no_column(item, name, columns)
            kind = columns[name]
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            first = types.setdefault(name, (kind, item.where))
            if first[0] != kind:
                raise InvalidInput(f"field '{name}' is {first[0]} in {first[1]}, but {kind} in {item.where}")
    return {name: kind for name, (kind, _) in types.items()}


def units(recipe: Recipe, inputs: list[Input]) -> Iterator[Unit]:
    """The content of all sources in order, cut into units.

    Raises:
        InvalidInput: If a file cannot be read or decompressed, or no file of a source holds anything.
    """
    for source in recipe.sources:
        pending: list[Chunk] = []
        size, form, last, filled = 0, "", None, False
        for chunk, item in _source_chunks(source, inputs):
            bulk = 0 if chunk.data is None else len(chunk.data) if isinstance(chunk.data, bytes) else chunk.data.nbytes
            if pending and (form != item.format or size + bulk > UNIT_BYTES):
                yield Unit(source, form, pending)
                pending, size = [], 0
            pending.append(chunk)
            size, form, last = size + bulk, item.format, item
            filled = filled or chunk.data is not None
        if not filled and last is not None:
            raise InvalidInput(f"{last.where} holds no record: {_emptiness(last)}")
        if pending:
            yield Unit(source, form, pending)


def _source_chunks(source: Source, inputs: list[Input]) -> Iterator[tuple[Chunk, Input]]:
    """The chunks of all files of a source; a file that holds nothing gives one without data."""
    for index, item in enumerate(inputs):
        if item.source != source.name or not item.format:
            continue
        filled = False
        for chunk in _chunks(index, item, source):
            blank = not chunk.data or chunk.data.isspace() if isinstance(chunk.data, bytes) else len(chunk.data) == 0
            if not blank:
                filled = True
                yield chunk, item
        if not filled:
            yield Chunk(index, 1, None), item


def _emptiness(item: Input) -> str:
    if not item.bytes:
        return "it is empty"
    return "it has no rows" if item.format in ("parquet", "arrow") else "it has only blank lines"


def parse(unit: Unit, inputs: list[Input], like: pa.Schema) -> tuple[pa.Table, list[Problem]]:
    """The records of a unit, without tokens, and what could not be read."""
    tables, problems = [], []
    for chunk in unit.chunks:
        if chunk.data is None:
            problem = f"the file holds no record: {_emptiness(inputs[chunk.file])}"
            problems.append(Problem(chunk.file, 1, EMPTY_FILE, problem, b""))
            continue
        reader = {"jsonl": _parse_jsonl, "text": _parse_text}.get(unit.format, _parse_rows)
        columns, rows, bad = reader(unit.source, chunk, inputs[chunk.file])
        problems.extend(bad)
        if len(rows):
            tables.append(_identified(unit.source, inputs[chunk.file], chunk.file, columns, rows, like))
    return (pa.concat_tables(tables) if tables else like.empty_table()), problems


def _identified(
    source: Source, item: Input, file: int, columns: dict[str, Any], rows: npt.NDArray[np.int64], like: pa.Schema
) -> pa.Table:
    content = records.ragged(columns["text"])
    key = columns.pop("", None)
    identity = provenance.source_record_ids(source.name, key, content=content, file=item.path, row=rows)
    constant = {
        "record_id": records.id_column(identity),
        "id": pa.array(provenance.source_ids(source.name, content if key is None else key)),
        "parents": pa.ListArray.from_arrays(pa.array(np.zeros(len(rows) + 1, np.int32)), pa.array([], records.ID)),
        "source": source.name,
        "license": source.license,
        "kind": source.kind,
        "generation": source.generation,
        "generator": source.generator,
        "generator_terms": source.generator_terms,
        "file": file,
        "row": pa.array(rows),
    }
    return records.table({**columns, **constant}, like, len(rows))


def _parse_jsonl(source: Source, chunk: Chunk, item: Input) -> Parsed:
    wanted = [
        (source.text, "text"),
        *([(source.id, "key")] if source.id else []),
        *((name, "any") for name in source.keep),
    ]
    scan = _core.jsonl_scan(chunk.data, wanted)
    fields = scan["fields"]
    columns: dict[str, Any] = {"text": records.strings(*fields[0][:2])}
    if source.id:
        columns[""] = fields[1][:2]
    for name, (values, offsets, present) in zip(source.keep, fields[2 if source.id else 1 :], strict=True):
        columns[records.KEPT + name] = records.strings(values, offsets, present)
    problems = [
        Problem(chunk.file, chunk.row + line, reason, message, chunk.data[start:end])
        for line, start, end, reason, message in scan["problems"]
    ]
    return columns, scan["lines"] + chunk.row, problems


def _parse_text(source: Source, chunk: Chunk, item: Input) -> Parsed:
    data: bytes = chunk.data
    problems: list[Problem] = []
    if source.split == "line" and is_utf8(data):
        values = np.frombuffer(data, np.uint8)
        inner = values != 10
        inner[:-1] &= (values[:-1] != 13) | inner[1:]
        ends = np.flatnonzero(values == 10)
        if data and data[-1] != 10:
            ends = np.append(ends, len(data))
        offsets = np.concatenate([[0], np.cumsum(inner)[ends - 1] * (ends > 0)]).astype(np.int64)
        texts = records.strings(values[inner], offsets)
        filled = np.flatnonzero(np.asarray(pc.not_equal(pc.ascii_trim_whitespace(texts), "")))
        return {"text": texts.take(pa.array(filled))}, filled.astype(np.int64) + chunk.row, problems
    if source.split == "line":
        spans = [(line, piece.removesuffix(b"\r")) for line, piece in enumerate(data.split(b"\n"))]
    elif source.split == "paragraph":
        spans, at, line = [], 0, 0
        for match in re.finditer(rb"\n(?:[ \t\r]*\n)+|\Z", data):
            piece = data[at : match.start()]
            spans.append((line + len(piece) - len(piece.lstrip(b"\n")), piece.strip(b"\r\n")))
            line += data.count(b"\n", at, match.end())
            at = match.end()
    else:
        spans = [(0, data)]
    kept, rows = [], []
    for line, piece in spans:
        if not piece.strip():
            continue
        try:
            kept.append(piece.decode())
        except UnicodeDecodeError as error:
            place = f"invalid UTF-8 at byte {error.start + 1} of the {source.split}"
            problems.append(Problem(chunk.file, chunk.row + line, "invalid_utf8", place, piece))
            continue
        rows.append(chunk.row + line)
    return {"text": pa.array(kept, pa.string())}, np.array(rows, np.int64), problems


def _parse_rows(source: Source, chunk: Chunk, item: Input) -> Parsed:
    rows = np.arange(chunk.row, chunk.row + len(chunk.data), dtype=np.int64)
    cells = {name: _plain(chunk.data[name]) for name in chunk.data.schema.names}
    problems: list[Problem] = []
    good = np.ones(len(rows), bool)
    for name in (source.text, *([source.id] if source.id else [])):
        for row in np.flatnonzero(np.asarray(cells[name].is_null()) & good):
            wanted = "a string" if name == source.text else "a string or an integer"
            message = f"field '{name}' must be {wanted}, not null"
            problems.append(Problem(chunk.file, int(rows[row]), "wrong_type", message, b""))
            good[row] = False
    for name in cells:
        for index, raw, at in _invalid_utf8(cells[name]):
            if good[index]:
                message = f"invalid UTF-8 at byte {at} of field '{name}'"
                problems.append(Problem(chunk.file, int(rows[index]), "invalid_utf8", message, raw))
                good[index] = False
    if problems:
        cells, rows = {name: cells[name].filter(pa.array(good)) for name in cells}, rows[good]
        problems.sort(key=lambda problem: problem.row)
    columns: dict[str, Any] = {"text": cells[source.text].cast(pa.string())}
    if source.id:
        columns[""] = records.ragged(cells[source.id].cast(pa.string()))
    for name in source.keep:
        columns[records.KEPT + name] = cells[name]
    return columns, rows, problems


def _invalid_utf8(column: pa.Array) -> Iterator[tuple[int, bytes, int]]:
    """Row, bytes and first wrong byte (from 1) of the strings that are not UTF-8: files of columns do not check."""
    if not _is_text(column.type):
        return
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
        for row, value in enumerate(raw.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                yield row, value, error.start + 1


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _chunks(index: int, item: Input, source: Source) -> Iterator[Chunk]:
    """A file in pieces, as its format asks."""
    if item.format in ("parquet", "arrow"):
        return _rows(index, item, source)
    if item.format == "text" and source.split != "line":
        return _whole(index, item)
    return _blocks(index, item)


def _blocks(index: int, item: Input) -> Iterator[Chunk]:
    """A file of lines, in blocks that end where a line does."""
    rest, row, first = b"", 1, True
    with _opened(item) as stream:
        while True:
            data = _read(stream, item)
            if first and data.startswith(b"\xef\xbb\xbf"):
                data = data[3:]
            first = False
            block = rest + data
            if not data:
                if block:
                    yield Chunk(index, row, block)
                return
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if cut:
                block = block[:cut]
                yield Chunk(index, row, block)
                row += block.count(b"\n")


def _whole(index: int, item: Input) -> Iterator[Chunk]:
    with _opened(item) as stream:
        data = b"".join(iter(lambda: _read(stream, item), b""))
    yield Chunk(index, 1, data.removeprefix(b"\xef\xbb\xbf"))


def _opened(item: Input) -> Any:
    compression = _COMPRESSIONS.get(item.where.suffix.lower())
    stream = _guarded(item, lambda: pa.OSFile(str(item.where), "rb"))
    return stream if compression is None else pa.CompressedInputStream(stream, compression)


def _read(stream: Any, item: Input) -> bytes:
    data: bytes = _guarded(item, lambda: stream.read(UNIT_BYTES))
    return data


def _rows(index: int, item: Input, source: Source) -> Iterator[Chunk]:
    """The rows of a Parquet or Arrow file, in batches."""
    columns = _columns(item)
    wanted = [source.text, *([source.id] if source.id else []), *source.keep]
    for name in wanted:
        if name not in columns:
            raise _no_column(item, name, columns)
    if not _is_text(columns[source.text]):
        raise InvalidInput(f"{item.where}: field '{source.text}' must be a string, not {columns[source.text]}")
    if source.id is not None and not _is_key(columns[source.id]):
        message = f"field '{source.id}' must be a string or an integer, not {columns[source.id]}"
        raise InvalidInput(f"{item.where}: {message}")
    row = 1
    for batch in _batches(item, list(dict.fromkeys(wanted))):
        yield Chunk(index, row, batch)
        row += len(batch)


def _batches(item: Input, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if item.format == "parquet":
        with pq.ParquetFile(item.where) as file:
            bulk = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            rows = max(1, min(65536, UNIT_BYTES * file.metadata.num_rows // max(1, bulk)))
            batches = file.iter_batches(batch_size=rows, columns=columns)
            while (batch := _guarded(item, lambda: next(batches, None))) is not None:
                yield batch
        return
    with pa.memory_map(str(item.where)) as mapped, _arrow_reader(mapped) as reader:
        if isinstance(reader, pa.RecordBatchFileReader):
            stream = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            stream = iter(reader)
        while (batch := _guarded(item, lambda: next(stream, None))) is not None:
            rows = max(1, min(65536, UNIT_BYTES * len(batch) // max(1, batch.nbytes)))
            for start in range(0, len(batch), rows):
                yield batch.slice(start, rows).select(columns)


def _arrow_reader(mapped: Any) -> Any:
    try:
        return pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped)


def _columns(item: Input) -> dict[str, pa.DataType]:
    def read() -> pa.Schema:
        if item.format == "parquet":
            return pq.read_schema(item.where)
        with pa.memory_map(str(item.where)) as mapped, _arrow_reader(mapped) as reader:
            return reader.schema

    found = _guarded(item, read)
    twice = sorted({name for name in found.names if found.names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{item.where}: it has two fields '{twice[0]}': rename one")
    return dict(zip(found.names, found.types, strict=True))


def _guarded(item: Input, action: Any) -> Any:
    """Does something with a file; what goes wrong names the file."""
    try:
        return action()
    except (OSError, pa.ArrowException, EOFError) as error:
        raise _unreadable(item.where, error) from None


def _unreadable(where: Path, error: Exception) -> InvalidInput:
    if isinstance(error, OSError) and error.errno is not None:
        return InvalidInput(f"cannot read {where}: {os.strerror(error.errno)}")
    return InvalidInput(f"cannot read {where}: {str(error).splitlines()[0]}")


def _no_column(item: Input, name: str, columns: dict[str, Any]) -> InvalidInput:
    there = ", ".join(f"'{column}'" for column in list(columns)[:5]) or "no columns"
    return InvalidInput(f"{item.where}: no field '{name}' (it has {there}{', ...' if len(columns) > 5 else ''})")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_key(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _format(where: Path, source: Source) -> str:
    if source.format != "auto":
        return source.format
    suffixes = [suffix.lower() for suffix in where.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    if suffixes and suffixes[-1] in _FORMATS:
        return _FORMATS[suffixes[-1]]
    raise InvalidInput(f"cannot tell the format of {where}: say it as 'format: ...' in source '{source.name}'")


def _shown(where: Path, recipe: Recipe) -> str:
    if where.is_absolute() and not where.is_relative_to(recipe.base):
        return where.as_posix()
    return Path(os.path.relpath(where, recipe.base)).as_posix()


def _sized(item: Input) -> Input:
    try:
        return Input(item.source, item.path, item.where, item.format, item.where.stat().st_size)
    except OSError as error:
        raise _unreadable(item.where, error) from None


def _hashed(item: Input) -> Input:
    try:
        with open(item.where, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise _unreadable(item.where, error) from None
    return Input(item.source, item.path, item.where, item.format, size, digest)
