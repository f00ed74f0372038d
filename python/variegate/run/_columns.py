"""Files of columns, Parquet and Arrow: their fields, and their rows in batches.

A file may be damaged anywhere, and is not to change while it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate.recipe import Source
from variegate.run import _arrow as arrow
from variegate.run import _inputs as inputs
from variegate.run._inputs import Chunk, Damage, File, Input, Piece, Problem, cause, oversized

__all__ = ["Kept", "count_rows", "fields", "keepable", "pieces", "same_type"]

Kept = dict[str, tuple[pa.DataType, str]]
"""The type of each field that is kept, and the file that it comes from."""

_ROWS_AT_ONCE = 8192
"""Most rows to take from a file at a time: values that repeat may be small in the file and large in memory."""


def pieces(index: int, file: File, source: Source, kept: Kept) -> Iterator[Piece]:
    """The rows of a file, in batches whose columns are those that the source names."""
    file.read_rest()
    found = list(_schema(file.item))
    _, text = _needed(found, source.text)
    if not arrow.is_text(text):
        raise Damage("wrong_type", f"field '{source.text}' must be a string, not {text}")
    if source.id is not None and not arrow.is_key(key := _needed(found, source.id)[1]):
        raise Damage("wrong_type", f"field '{source.id}' must be a string or an integer, not {key}")
    for name in source.keep:
        same_type(name, keepable(found, name), kept)
    wanted = list(dict.fromkeys([source.text, *([source.id] if source.id else []), *source.keep]))
    mapped = file.item.format == "arrow"
    for batch in (_arrow_batches if mapped else _parquet_batches)(index, file, wanted):
        file.require_same()
        for piece in _slices(batch):
            if mapped and isinstance(piece, Chunk):
                file.require_same()
                yield piece._replace(data=arrow.copy(piece.data))
            else:
                yield piece
    file.require_same()


def fields(item: Input) -> list[pa.Field]:
    """The fields of a file."""
    with File(item):
        return list(_schema(item))


def keepable(fields: list[pa.Field], name: str) -> pa.DataType:
    """The type that a field is kept as."""
    _, kind = _needed(fields, name)
    stored = arrow.stored_type(kind)
    if stored is None:
        message = f"field '{name}' has type {kind}, which Parquet cannot hold: leave it out of 'keep'"
        raise Damage("wrong_type", message)
    return stored


def same_type(name: str, kind: pa.DataType, kept: Kept) -> None:
    """Fails where a field has another type than in the file that its type comes from."""
    first, path = kept[name]
    if arrow.plain_type(first, wide=False) != arrow.plain_type(kind, wide=False):
        raise Damage("schema", f"field '{name}' is {kind} here, but {first} in {path}: give it one type")


def count_rows(item: Input) -> int | None:
    """Rows of a Parquet file by what it says itself; None if it cannot be read."""
    try:
        with File(item), _damage(), pa.OSFile(str(item.where)) as raw, _parquet(raw) as parquet:
            return int(parquet.metadata.num_rows)
    except Damage:
        return None


def _parquet_batches(index: int, file: File, wanted: list[str]) -> Iterator[Piece]:
    """Rows by row group; a damaged one is a problem at the row where the damage is, and reading goes on after it."""
    with _damage(), pa.OSFile(str(file.item.where)) as raw, _parquet(raw) as parquet:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
        bulk, total = sum(group.total_byte_size for group in groups), sum(group.num_rows for group in groups)
        at_once = max(1, min(_ROWS_AT_ONCE, inputs.UNIT_BYTES * total // max(1, bulk)))
        row = 1
        for number, group in enumerate(groups):
            end = row + max(0, group.num_rows)
            why = "there are fewer of them than the file says"
            try:
                batches = parquet.iter_batches(at_once, row_groups=[number], columns=wanted, use_threads=False)
                while (batch := next(batches, None)) is not None:
                    # The decoder checks all that it decodes, but not the codes of what is to stay a dictionary.
                    doubtful = (column for column in batch.columns if arrow.has_dictionary(column.type))
                    yield _checked(index, row, batch, wanted, doubtful)
                    row += len(batch)
            except arrow.DAMAGE as error:
                why = cause(error)
            if row < end:
                yield _unreadable(index, row, end, why)
                row = end


def _arrow_batches(index: int, file: File, wanted: list[str]) -> Iterator[Piece]:
    """Rows by record batch, mapped into memory; they must be copied before anybody else gets them.

    A batch that is not compressed takes no memory, so that one may be of any size; of those that are, one is in memory.
    """
    with _damage(), pa.memory_map(str(file.item.where)) as mapped:
        row = 1
        with _arrow_reader(mapped) as reader:
            heads = {_needed(list(reader.schema), name)[0][0] for name in wanted}
            if isinstance(reader, pa.RecordBatchFileReader):
                stream = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                stream = iter(reader)
            while True:
                if not file.is_same():
                    return  # to touch what was cut off would end the process
                try:
                    batch = next(stream, None)
                except arrow.DAMAGE as error:
                    message = f"rows from {row} on cannot be read: {cause(error)}"
                    raise Damage("unreadable", message, row) from None
                if batch is None:
                    break
                if len(batch):
                    yield _checked(index, row, batch, wanted, (batch.column(i) for i in heads))
                row += len(batch)
            if not isinstance(reader, pa.RecordBatchFileReader) and mapped.size() > 8:
                mapped.seek(mapped.size() - 8)
                if not mapped.read(8).endswith(b"\0\0\0\0"):
                    message = f"it ends without the mark that ends a stream, at row {row}: write it again"
                    raise Damage("truncated", message, row)


def _checked(index: int, row: int, batch: pa.RecordBatch, wanted: list[str], doubtful: Iterable[pa.Array]) -> Piece:
    """The named fields of a batch, or a problem where one of the doubtful columns is not sound."""
    if all(arrow.is_sound(column) for column in doubtful):
        return Chunk(index, row, _selected(batch, wanted))
    return _unreadable(index, row, row + len(batch), "their data contradict themselves")


def _unreadable(index: int, row: int, end: int, why: str) -> Problem:
    return Problem(index, row, "unreadable", f"rows {row} to {end - 1} cannot be read: {why}", b"")


def _slices(whole: Piece) -> Iterator[Piece]:
    """A batch in pieces of about `UNIT_BYTES`; a record with a value that is too large is a problem."""
    if isinstance(whole, Problem) or whole.bulk <= inputs.UNIT_BYTES:
        yield whole
        return
    batch = whole.data
    lengths = {
        name: arrow.string_lengths(batch[name]) for name in batch.schema.names if arrow.is_text(batch[name].type)
    }
    weights = sum(lengths.values(), np.zeros(len(batch)))
    weights += max(0, batch.nbytes - weights.sum()) / len(batch)
    large = np.zeros(len(batch), bool)
    for values in lengths.values():
        large |= values > inputs.MAX_RECORD
    at = np.flatnonzero(large)
    cuts = np.flatnonzero(np.diff(np.cumsum(weights * ~large) // inputs.UNIT_BYTES)) + 1
    bounds = np.unique(np.concatenate([[0], cuts, at, at + 1, [len(batch)]])).tolist()
    for start, end in pairwise(bounds):
        row = whole.row + start
        piece = batch.slice(start, end - start)
        if large[start]:
            name = next(name for name in lengths if lengths[name][start] > inputs.MAX_RECORD)
            yield oversized(
                whole.file, row, f"field '{name}'", int(lengths[name][start]), arrow.string_bytes(piece[name], 0)
            )
        else:
            yield Chunk(whole.file, row, piece)


def _selected(batch: pa.RecordBatch, wanted: list[str]) -> pa.RecordBatch:
    """The named fields of a batch, those inside of structs too."""
    arrays = []
    for name in wanted:
        path, _ = _needed(list(batch.schema), name)
        array = batch.column(path[0])
        arrays.append(pc.struct_field(array, list(path[1:])) if path[1:] else array)
    return pa.RecordBatch.from_arrays(arrays, wanted)


def _needed(fields: list[pa.Field], name: str) -> tuple[tuple[int, ...], pa.DataType]:
    """Where a field is that must be there, and its type."""
    found = _find(fields, name)
    if found is None:
        there = ", ".join(f"'{field.name}'" for field in fields[:5]) or "no columns"
        raise Damage("no_field", f"no field '{name}' (it has {there}{', ...' if len(fields) > 5 else ''})")
    return found


def _find(fields: list[pa.Field], name: str) -> tuple[tuple[int, ...], pa.DataType] | None:
    """Where a field is, and its type: one of that name, or one inside of structs that dots lead to."""
    names = [field.name for field in fields]
    if names.count(name) > 1:
        raise Damage("schema", f"it has two fields '{name}': rename one")
    if name in names:
        return (names.index(name),), fields[names.index(name)].type
    head, _, rest = name.partition(".")
    if rest and names.count(head) == 1 and pa.types.is_struct(kind := fields[names.index(head)].type):
        inner = _find([kind.field(i) for i in range(kind.num_fields)], rest)
        if inner is not None:
            return (names.index(head), *inner[0]), inner[1]
    return None


def _schema(item: Input) -> pa.Schema:
    with _damage(), pa.OSFile(str(item.where)) as raw:
        if item.format == "parquet":
            with _parquet(raw) as parquet:
                schema = parquet.schema_arrow
        else:
            with _arrow_reader(raw) as reader:
                schema = reader.schema
        for field in schema:
            _read_names(field)
        return schema


def _read_names(field: pa.Field) -> None:
    """Fails where a name is not UTF-8, as asking for it would later."""
    _ = field.name
    for i in range(field.type.num_fields):
        _read_names(field.type.field(i))


def _parquet(raw: Any) -> pq.ParquetFile:
    # Buffered: a column of a row group is read a piece at a time instead of whole.
    return pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 18, page_checksum_verification=True)


def _arrow_reader(raw: Any) -> Any:
    try:
        return pa.ipc.open_file(raw)
    except pa.ArrowInvalid:
        raw.seek(0)
        return pa.ipc.open_stream(raw)


@contextmanager
def _damage() -> Iterator[None]:
    """Says of what pyarrow raises that the file is damaged."""
    try:
        yield
    except arrow.DAMAGE as error:
        raise Damage("unreadable", cause(error)) from None
