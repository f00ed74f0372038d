"""Columns in memory: their types, and whether what they hold is sound."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = [
    "DAMAGE",
    "copy",
    "has_dictionary",
    "is_key",
    "is_sound",
    "is_text",
    "is_valid",
    "plain",
    "plain_type",
    "stored_type",
    "string_bytes",
    "string_lengths",
]

DAMAGE = (OSError, pa.ArrowException, EOFError, ValueError, OverflowError, MemoryError, LookupError)
"""What pyarrow raises on damaged data: its own exceptions, and those of Python where a name or a number is nonsense."""


def is_valid(make: Callable[..., pa.Array], *arguments: Any) -> bool:
    """Whether a column can be made and holds what its type says."""
    try:
        make(*arguments).validate(full=True)
    except DAMAGE:
        return False
    return True


def is_sound(column: pa.Array) -> bool:
    """Whether a column can be used at all; strings may be anything."""
    return any(is_valid(column.view, kind) for kind in (column.type, _bytes_type(column.type)))


def plain(column: pa.Array) -> pa.Array:
    """A column without dictionaries and views."""
    kind = plain_type(column.type)
    return column if column.type == kind else column.cast(kind)


def copy(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that shares no memory with the one it came from."""
    arrays = [column.cast(plain_type(column.type)) if _has_views(column.type) else column for column in batch.columns]
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays(arrays, batch.schema.names)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def string_lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each string."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return string_lengths(column.storage)
    if pa.types.is_dictionary(kind):
        inner = string_lengths(column.dictionary)
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return inner[codes] if len(inner) else np.zeros(len(codes), np.int64)
    if _is_view(kind):
        cells = np.frombuffer(column.buffers()[1] or b"", np.int32)[column.offset * 4 :][: len(column) * 4]
        return cells[::4].astype(np.int64)
    lengths = pc.fill_null(pc.binary_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def string_bytes(column: pa.Array, row: int) -> bytes:
    """The bytes of a string, be they UTF-8 or not."""
    cell = column.take(pa.array([row]))
    cell = cell.storage if isinstance(cell.type, pa.BaseExtensionType) else cell
    cell = cell.dictionary_decode() if pa.types.is_dictionary(cell.type) else cell
    value = cell.view(_bytes_type(cell.type))[0]
    return bytes(value.as_buffer()) if value.is_valid else b""


@lru_cache(maxsize=1024)
def stored_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that a column comes back with from the files between stages; None if they cannot hold it."""
    kind = plain_type(kind)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"x": pa.nulls(0, kind)}), sink)
        stored: pa.DataType = pq.read_schema(pa.BufferReader(sink.getvalue())).field(0).type
    except DAMAGE:
        return None
    return stored


@lru_cache(maxsize=4096)
def plain_type(kind: pa.DataType, *, wide: bool = True) -> pa.DataType:
    """A type without dictionaries and views, and without names that mean nothing; without large ones unless `wide`."""
    types = pa.types

    def inner(of: pa.Field, name: str | None = None) -> pa.Field:
        return pa.field(of.name if name is None else name, plain_type(of.type, wide=wide))

    if types.is_dictionary(kind):
        return plain_type(kind.value_type, wide=wide)
    if types.is_struct(kind):
        return pa.struct([inner(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(plain_type(kind.key_type, wide=wide), plain_type(kind.item_type, wide=wide))
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field, "item"), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind) or _is_kind(kind, "list_view", "large_list_view"):
        large = wide and (types.is_large_list(kind) or _is_kind(kind, "large_list_view"))
        return (pa.large_list if large else pa.list_)(inner(kind.value_field, "item"))
    if _is_kind(kind, "string_view") or (types.is_large_string(kind) and not wide):
        return pa.string()
    if _is_kind(kind, "binary_view") or (types.is_large_binary(kind) and not wide):
        return pa.binary()
    return kind


@lru_cache(maxsize=4096)
def has_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary or has one inside."""
    return pa.types.is_dictionary(kind) or any(has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of strings."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)) or _is_kind(kind, "string_view")


def is_key(kind: pa.DataType) -> bool:
    """Whether a type is one of strings or integers."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_text(kind) or bool(pa.types.is_integer(kind))


@lru_cache(maxsize=4096)
def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """A type of the same layout with bytes for strings."""
    types = pa.types

    def inner(of: pa.Field) -> pa.Field:
        return of.with_type(_bytes_type(of.type))

    if types.is_string(kind):
        return pa.binary()
    if types.is_large_string(kind):
        return pa.large_binary()
    if _is_kind(kind, "string_view"):
        return pa.binary_view()
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _bytes_type(kind.value_type), kind.ordered)
    if types.is_struct(kind):
        return pa.struct([inner(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.large_list if types.is_large_list(kind) else pa.list_)(inner(kind.value_field))
    return kind


@lru_cache(maxsize=4096)
def _has_views(kind: pa.DataType) -> bool:
    if _is_view(kind) or _is_kind(kind, "list_view", "large_list_view"):
        return True
    return any(_has_views(kind.field(i).type) for i in range(kind.num_fields))


def _is_view(kind: pa.DataType) -> bool:
    return _is_kind(kind, "string_view", "binary_view")


def _is_kind(kind: pa.DataType, *names: str) -> bool:
    """Whether a type is one of those that older versions of pyarrow do not have."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)
