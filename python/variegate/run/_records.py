"""Tables of records as they pass between stages, columnar from end to end.

Internal columns: `text`, `tokens` where a stage needs them, `record_id`, `id`, `parents`, the fields of provenance,
`file` and `row` (the place of the source record, inherited by what is derived from it), `spans` and `bindings` of what
a grammar made, and what sources keep.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import _core, provenance
from variegate.errors import InvalidInput
from variegate.provenance.records import Ragged

__all__ = ["REJECTS", "hex_ids", "output_table", "ragged", "rejects_table", "schema", "strings", "to_jsonl"]

ID = pa.binary(16)
SPANS = pa.list_(pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32()), pa.field("tag", pa.string())]))
REJECTS = pa.schema(
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("record_id", pa.string()),
        ("kept", pa.string()),
        ("similarity", pa.float32()),
        ("text", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("message", pa.string()),
    ]
)
"""Columns of the ledger: ids in hexadecimal, `kept` the record that a duplicate lost to, `row` from 1."""


KEPT = "keep."
"""Before the names of columns that sources keep, so that they cannot be mistaken for ours."""


def schema(keep: dict[str, pa.DataType], *, tokens: bool, spans: bool) -> pa.Schema:
    """Columns of every part of a run."""
    fields = [
        ("text", pa.string()),
        *([("tokens", pa.list_(pa.uint32()))] if tokens else []),
        ("record_id", ID),
        ("id", pa.uint64()),
        ("parents", pa.list_(ID)),
        ("source", pa.string()),
        ("license", pa.string()),
        ("kind", pa.string()),
        ("generation", pa.int32()),
        ("ops", pa.string()),
        ("generator", pa.string()),
        ("generator_terms", pa.string()),
        ("seed", pa.uint64()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        *([("spans", SPANS), ("bindings", pa.string())] if spans else []),
        *((KEPT + name, kind) for name, kind in keep.items()),
    ]
    return pa.schema(fields)


def table(columns: dict[str, Any], like: pa.Schema, rows: int) -> pa.Table:
    """A table of the given schema: arrays as they are, scalars repeated, what is absent null."""
    arrays = []
    for field in like:
        value = columns.get(field.name)
        if value is None:
            value = pa.nulls(rows, field.type)
        elif not isinstance(value, (pa.Array, pa.ChunkedArray)):
            value = pa.repeat(pa.scalar(value, field.type), rows)
        arrays.append(value if value.type == field.type else value.cast(field.type))
    return pa.table(arrays, schema=like)


def key_name(stage: str, band: int) -> str:
    """The column that holds a band's keys of the sketches of a stage; band 0 is the key of the whole content."""
    return f"key.{stage}.{band}"


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.ChunkedArray):
        return (
            column.chunk(0)
            if column.num_chunks == 1
            else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
        )
    return column


def ragged(column: pa.ChunkedArray | pa.Array) -> Ragged:
    """Bytes and offsets of a column of strings or fixed-size binaries without nulls, mostly without a copy."""
    array = flat(column)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        cells = np.frombuffer(array.buffers()[1] or b"", np.uint8)[array.offset * width :][: len(array) * width]
        return cells, np.arange(len(array) + 1, dtype=np.int64) * width
    kind = np.int64 if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type) else np.int32
    _, offsets_buffer, values_buffer = array.buffers()
    if len(array) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offsets_buffer, kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    values = np.frombuffer(values_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]


def strings(values: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], present: Any = None) -> pa.Array:
    """A string array over UTF-8 bytes; where `present` is 0, null."""
    if offsets[-1] >= 2**31:
        buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(values))]
        out: pa.Array = pa.LargeStringArray.from_buffers(len(offsets) - 1, buffers[1], buffers[2])
    else:
        out = pa.StringArray.from_buffers(
            len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(values))
        )
    return out if present is None else pc.if_else(pa.array(np.asarray(present).astype(bool)), out, None)


def token_lists(tokens: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> pa.Array:
    """A list column over flat tokens."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens, pa.uint32()))


def token_arrays(column: pa.ChunkedArray | pa.Array) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Flat tokens and offsets of a list column."""
    array = flat(column)
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    tokens = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return tokens.astype(np.uint32, copy=False), offsets - offsets[0]


def cells(tokens: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64], width: type[np.unsignedinteger]) -> Ragged:
    """Tokens as little-endian bytes of a narrower type that they fit."""
    narrow = tokens.astype(np.dtype(width).newbyteorder("<"), copy=False)
    return narrow.view(np.uint8), offsets * narrow.itemsize


def cell_column(values: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> pa.Array:
    """Bytes as a column of binaries."""
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(values)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def cell_tokens(
    column: pa.ChunkedArray | pa.Array, width: type[np.unsignedinteger]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Tokens and offsets of a column that `cell_column` made of `cells`."""
    values, offsets = ragged(column)
    kind = np.dtype(width).newbyteorder("<")
    return values.view(kind).astype(np.uint32), offsets // kind.itemsize


def ids_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    """Record ids as `uint8[rows, 16]`."""
    return ragged(column)[0].reshape(-1, 16)


def id_column(ids: npt.NDArray[np.uint8]) -> pa.Array:
    """`uint8[rows, 16]` as a column of record ids."""
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids))])


_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[_HEX] = np.arange(16)


def hex_ids(ids: npt.NDArray[np.uint8]) -> pa.Array:
    """`uint8[rows, n]` as strings of 2 n hexadecimal digits."""
    rows, width = ids.shape
    digits = np.empty((rows, width, 2), np.uint8)
    digits[..., 0] = _HEX[ids >> 4]
    digits[..., 1] = _HEX[ids & 15]
    return strings(digits.reshape(-1), np.arange(rows + 1, dtype=np.int64) * 2 * width)


def ids_of_hex(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    """Strings of 32 hexadecimal digits, as `hex_ids` writes them, as `uint8[rows, 16]`.

    Raises:
        InvalidInput: If one is something else, or null.
    """
    array = flat(column)
    values, offsets = ragged(pc.fill_null(array, ""))
    digits = _NIBBLES[values]
    wrong = np.asarray(np.diff(offsets) != 32)
    if not wrong.any():
        wrong = np.any(digits.reshape(-1, 32) > 15, axis=1)
    if wrong.any():
        raise InvalidInput(f"record_id {array[int(wrong.argmax())].as_py()!r} is not 32 hexadecimal digits")
    pairs = digits.reshape(-1, 16, 2)
    return (pairs[..., 0] << 4 | pairs[..., 1]).astype(np.uint8, copy=False)


def hex_parents(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Lists of record ids as lists of strings."""
    array = flat(column)
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    inner = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), hex_ids(ids_of(inner)))


def text_bytes(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each text."""
    lengths: npt.NDArray[np.int64] = flat(pc.binary_length(column)).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def token_counts(rows: pa.Table) -> npt.NDArray[np.int64] | None:
    """Tokens of each record, or None where the run does not count them."""
    if "tokens" not in rows.column_names:
        return None
    counts: npt.NDArray[np.int64] = (
        flat(pc.list_value_length(rows["tokens"])).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return counts


def rejects_table(stage: str, rows: pa.Table, reasons: Any, files: list[str], **more: Any) -> pa.Table:
    """Ledger entries for whole records; `reasons` is one reason or an array of them."""
    paths = pa.array(files, pa.string())
    columns = {
        "stage": stage,
        "reason": reasons,
        "record_id": hex_ids(ids_of(rows["record_id"])),
        "text": rows["text"],
        "file": pc.take(paths, rows["file"]) if files else None,
        "row": rows["row"],
        **more,
    }
    return table(columns, REJECTS, len(rows))


def output_table(rows: pa.Table) -> pa.Table:
    """Rows as people get them: text, what sources keep, spans, provenance."""
    kinds = pa.array(list(provenance.DIGITAL_SOURCE_TYPES), pa.string())
    terms = pa.array(list(provenance.DIGITAL_SOURCE_TYPES.values()), pa.string())
    columns = {name: flat(rows[name]) for name in rows.column_names if name in provenance.FIELDS}
    columns["record_id"] = hex_ids(ids_of(rows["record_id"]))
    columns["parents"] = hex_parents(rows["parents"])
    columns["digital_source_type"] = pc.take(terms, pc.index_in(columns["kind"], kinds))
    struct = pa.StructArray.from_arrays([columns[name] for name in provenance.FIELDS], list(provenance.FIELDS))
    further = [name for name in rows.column_names if name in ("spans", "bindings") or name.startswith(KEPT)]
    arrays = [flat(rows["text"]), *(flat(rows[name]) for name in further), struct]
    return pa.table(arrays, names=["text", *(name.removeprefix(KEPT) for name in further), "provenance"])


def output_hashes(rows: pa.Table) -> npt.NDArray[np.uint8]:
    """The hash of each output row, `uint8[rows, 32]`: SHA-256 over text and provenance.

    The fields are text, record_id (hexadecimal), parents (hexadecimal, joined by commas), source, license, kind,
    generation, ops, generator, generator_terms and seed, each as text, empty where null.
    """
    struct = flat(rows["provenance"])
    columns = [provenance_cells(struct, name) for name in provenance.FIELDS[:-1]]
    return provenance.record_hashes([ragged(rows["text"]), *columns])


def provenance_cells(struct: pa.StructArray, name: str) -> Ragged:
    """A field of output rows' provenance as it goes into hashes: as text, lists joined by commas, empty where null."""
    column = pc.struct_field(struct, name)
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, ",")
    return ragged(pc.fill_null(column.cast(pa.string()), ""))


def json_objects(columns: dict[str, Any], rows: int) -> pa.Array:
    """One JSON object a row, as text, from arrays of numbers or of strings and None."""
    arrays = [pa.array(values, from_pandas=False) for values in columns.values()]
    return strings(*_objects(list(columns), arrays, rows, newline=False))


def to_jsonl(rows: pa.Table) -> bytes:
    """The rows as lines of JSON."""
    return _objects(rows.column_names, [flat(c) for c in rows.columns], len(rows), newline=True)[0].tobytes()


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_text)
    except (TypeError, ValueError):
        raise InvalidInput(f"JSON has no way to write {value!r} of field '{name}': choose format parquet") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError
    return str(value)


def _objects(names: list[str], columns: list[pa.Array], rows: int, *, newline: bool) -> Ragged:
    cells = []
    for name, column in zip(names, columns, strict=True):
        kind = column.type
        present = (
            np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), np.uint8) if column.null_count else None
        )
        quote = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if quote:
            texts = ragged(pc.fill_null(column, "") if column.null_count else column)
        elif pa.types.is_struct(kind):
            inner = [pc.struct_field(column, i) for i in range(kind.num_fields)]
            texts = _objects([field.name for field in kind], inner, rows, newline=False)
        elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            texts = ragged(pc.fill_null(column.cast(pa.string()), ""))
        else:
            plain = [_json(name, value) for value in column.to_pylist()]
            texts = ragged(pa.array(plain, pa.string()))
        cells.append((*texts, present, quote))
    values, offsets = _core.jsonl_objects(names, cells, rows, newline)
    return values, offsets
