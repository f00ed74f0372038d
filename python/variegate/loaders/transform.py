"""One batch callable for every pipeline that maps a function over batches of rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from variegate.batch import TextBatch, TokenBatch
from variegate.errors import InvalidInput
from variegate.loaders import _rows
from variegate.loaders._rows import Ids, Op

if TYPE_CHECKING:
    from variegate import ops as vg_ops

__all__ = ["Transform"]


@dataclass(frozen=True)
class Transform:
    """Applies ops to a batch of rows held by columns, and gives the batch back in the same form.

    Works unchanged in ``datasets.Dataset.map(batched=True)`` (also streaming, also in Arrow format),
    ``Dataset.with_transform``, ``ray.data.Dataset.map_batches(batch_format="pyarrow")``, and on plain dicts of lists.
    What a row becomes depends on its key, never on the batch it is in, so batch sizes and processes are free. The
    object is small and picklable, and `datasets` caches by its parameters.

    Attributes:
        ops: One op, or several to be composed.
        seed: 0..2^64-1.
        epoch: Another epoch, other draws; `dataclasses.replace(transform, epoch=1)` makes the next one.
        variant: Another variant of the same epoch.
        field: The column that the ops change; ``input_ids`` for token ops and ``text`` for text ops if None.
        id_field: The column of keys, int or str.
        ids: What keys a row's randomness: ``record`` (its key), ``content``, or ``position`` in the batch.
        columns: Columns with one integer per token that must move with the tokens (``attention_mask``, ``labels``).
            Those that the ops read (``word_ids``) need not be named.
        return_source: Adds ``source`` and ``edited``, one value per output token.

    Raises:
        InvalidInput: `ids`, `epoch` or `columns` out of their domain; at a call, a column that is missing or of
            another type, with its name and row.

    Example:
        >>> from variegate import ops
        >>> transform = Transform(ops.TokenDropout(rate=0.5), seed=7)
        >>> batch = {"id": ["a", "b"], "input_ids": [[5, 6, 7, 8], [9, 5]], "lang": ["en", "de"]}
        >>> sorted(transform(batch))
        ['id', 'input_ids', 'lang']
        >>> one = transform({name: column[1:] for name, column in batch.items()})
        >>> one["input_ids"] == transform(batch)["input_ids"][1:]
        True
    """

    ops: Op | Sequence[vg_ops.Op]
    seed: int
    _: KW_ONLY
    epoch: int = 0
    variant: int = 0
    field: str | None = None
    id_field: str = "id"
    ids: Ids = "record"
    columns: tuple[str, ...] = ()
    return_source: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", _rows.as_op(self.ops))
        object.__setattr__(self, "columns", tuple(dict.fromkeys([*self.columns, *_rows.reads(self._op)])))
        object.__setattr__(self, "epoch", _rows.check_epoch(self.epoch))
        _rows.check_ids(self.ids)
        if self.columns and _rows.is_text(self._op):
            raise InvalidInput("columns belong to tokens, but the ops change text: leave columns empty")

    @property
    def _op(self) -> Op:
        op = self.ops
        assert callable(op)
        return op

    @property
    def _field(self) -> str:
        return self.field or ("text" if _rows.is_text(self._op) else "input_ids")

    def __call__(self, batch: Any) -> Any:
        """The batch after the ops: a dict of lists for a mapping, a pyarrow table for a table.

        Columns that the ops do not change come back as they are, repeated or left out along with their rows; an op
        that makes several rows of one gives each its own id. What the ops add (``labels``) becomes a column; the
        second sequence of an objective becomes ``labels``.

        Args:
            batch: A mapping from column names to lists, arrays or tensors with one entry per row, or a
                `pyarrow.Table` or `pyarrow.RecordBatch`.

        Returns:
            A dict or a table with the columns of `batch` and those that the ops added.
        """
        if isinstance(batch, Mapping):
            return self._mapped(dict(batch))
        if type(batch).__module__.startswith("pyarrow"):
            return self._table(batch)
        raise InvalidInput(
            f"Transform takes a mapping of columns or a pyarrow table, not {type(batch).__name__}: "
            "set batched=True, or batch_format='pyarrow'"
        )

    def _mapped(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._require(batch)
        main = batch[self._field]
        ids = _rows.column_ids(batch.get(self.id_field), len(main), id_field=self.id_field, ids=self.ids)
        made: TokenBatch | TextBatch
        if _rows.is_text(self._op):
            made = TextBatch.from_texts(main, ids=ids)
        else:
            made = TokenBatch.from_lists([_plain(row) for row in main], ids=ids)
            made.columns = {
                name: _rows.column(batch[name], made.offsets, name, _rows.reads(self._op)) for name in self.columns
            }
        out, taken, derived = self._run(made)
        if taken is not None:
            batch = {name: [column[i] for i in taken.tolist()] for name, column in batch.items()}
        if derived is not None and self.id_field in batch:
            batch[self.id_field] = derived.tolist()
        if isinstance(out, TextBatch):
            return batch | {self._field: out.texts}
        added = {name: _lists(values, offsets) for name, (values, offsets) in self._outputs(out).items()}
        return batch | added

    def _table(self, batch: Any) -> Any:
        import pyarrow as pa

        table = pa.table(batch)
        self._require(table.column_names)
        main = table[self._field]
        keys = table[self.id_field].to_pylist() if self.id_field in table.column_names else None
        ids = _rows.column_ids(keys, len(table), id_field=self.id_field, ids=self.ids)
        made: TokenBatch | TextBatch
        if _rows.is_text(self._op):
            text = TextBatch.from_arrow(main)
            made = TextBatch(text.data, text.offsets, ids=ids)
        else:
            plain = TokenBatch.from_arrow(main)
            columns = {
                name: _rows.column(table[name].to_numpy(), plain.offsets, name, _rows.reads(self._op))
                for name in self.columns
            }
            made = TokenBatch(plain.tokens, plain.offsets, ids=ids, columns=columns)
        out, taken, derived = self._run(made)
        if taken is not None:
            table = table.take(pa.array(taken))
        if derived is not None and self.id_field in table.column_names:
            table = _with_column(table, self.id_field, pa.array(derived))
        if isinstance(out, TextBatch):
            return _with_column(table, self._field, out.to_arrow().cast(main.type))
        for name, (values, offsets) in self._outputs(out).items():
            array = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
            known = table.column_names
            kind = table.schema.field(name).type if name in known else pa.list_(array.type.value_type)
            table = _with_column(table, name, array.cast(kind))
        return table

    def _require(self, names: Any) -> None:
        for name in (self._field, *self.columns):
            if name not in names:
                raise InvalidInput(f"the batch has no column '{name}' (there are {sorted(names)})")

    def _run(self, made: TokenBatch | TextBatch) -> tuple[Any, NDArray[np.int64] | None, NDArray[np.uint64] | None]:
        """The ops' answer, the source row of each of its rows, and the ids of rows that multiplied."""
        out = _rows.run(
            self._op,
            made,
            seed=self.seed,
            epoch=self.epoch,
            variant=self.variant,
            return_source=self.return_source,
        )
        taken = _rows.origin(out, len(made))
        derived = taken is not None and not np.array_equal(out.ids, made.ids[taken])
        return out, taken, out.ids if derived else None

    def _outputs(self, out: TokenBatch) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
        found: dict[str, tuple[NDArray[Any], NDArray[np.int64]]] = {self._field: (out.tokens, out.offsets)}
        found |= {name: (values, out.offsets) for name, values in out.columns.items()}
        if out.targets is not None:
            found["labels"] = (out.targets.tokens, out.targets.offsets)
        if self.return_source:
            assert out.source is not None
            assert out.edited is not None
            found |= {"source": (out.source, out.offsets), "edited": (out.edited, out.offsets)}
        return found


def _plain(row: Any) -> Any:
    """A tensor as the array it is; anything else as it is."""
    return row.numpy() if hasattr(row, "numpy") else row


def _lists(values: NDArray[Any], offsets: NDArray[np.int64]) -> list[list[int]]:
    flat, bounds = values.tolist(), offsets.tolist()
    return [flat[start:end] for start, end in itertools.pairwise(bounds)]


def _with_column(table: Any, name: str, array: Any) -> Any:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, array)
    return table.append_column(name, array)
