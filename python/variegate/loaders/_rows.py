"""What all loaders share: where the rows of a batch lie, what keys their randomness, which row came from which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from variegate import _core
from variegate.batch import TextBatch, TokenBatch
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from variegate import ops as vg_ops

Ids = Literal["record", "content", "position"]
"""What keys the randomness of a row: its id field, its content, or its number."""

Batch = TokenBatch | TextBatch

ORIGIN = "__origin__"
"""The per-row value that carries the number of the source row through an op."""


class Op(Protocol):
    """Anything that turns a batch into a batch by contract: `variegate.ops`, or an op of the user's own."""

    def __call__(
        self, batch: Any, /, *, seed: int, epoch: int = 0, variant: int = 0, return_source: bool = False
    ) -> Any:
        """The op's answer for one batch."""
        ...


def as_op(ops: Op | Sequence[vg_ops.Op]) -> Op:
    """One op as it is, several as a `Compose`."""
    if callable(ops):
        return ops
    from variegate.ops import Compose

    return Compose(tuple(ops))


def is_text(op: Op | None) -> bool:
    """Whether an op reads text rather than tokens."""
    return getattr(op, "domain", "token") == "text"


def reads(op: Op | None) -> dict[str, str]:
    """The columns that an op reads or protects, and their dtypes."""
    return dict(getattr(op, "reads", {}))


def check_ids(ids: str) -> None:
    """Refuses a word that is not one of `Ids`."""
    if ids not in ("record", "content", "position"):
        raise InvalidInput(f"ids must be 'record', 'content' or 'position', not {ids!r}")


def check_epoch(epoch: int) -> int:
    """The epoch, if it fits the counter that it becomes a part of."""
    if not hasattr(epoch, "__index__"):
        raise InvalidInput(f"epoch must be an integer (it is {epoch!r})")
    if not 0 <= epoch < 1 << 32:
        raise InvalidInput(f"epoch must lie in 0..4294967295 (it is {epoch})")
    return int(epoch)


def token_rows(
    rows: Sequence[Mapping[str, Any]],
    *,
    field: str,
    id_field: str,
    ids: Ids,
    columns: Iterable[str] = (),
    dtypes: Mapping[str, str] | None = None,
    positions: NDArray[np.int64] | None = None,
) -> TokenBatch:
    """A batch from dict rows; `positions` number the rows where ``ids="position"``, `dtypes` are as in `column`.

    Rows whose ``attention_mask`` says that they hold padding are refused: an op would take it for text.
    """
    tokens, offsets = _core.gather_tokens(rows, field)
    columns = tuple(columns)
    if "attention_mask" not in columns:
        _refuse_padded(rows)
    keys = row_ids(rows, id_field=id_field, ids=ids, positions=positions)
    parts = {
        name: column([_field(row, name, r) for r, row in enumerate(rows)], offsets, name, dtypes) for name in columns
    }
    return TokenBatch(tokens, offsets, ids=keys, columns=parts)


def text_rows(
    rows: Sequence[Mapping[str, Any]],
    *,
    field: str,
    id_field: str,
    ids: Ids,
    positions: NDArray[np.int64] | None = None,
) -> TextBatch:
    """A text batch from dict rows; see `token_rows`."""
    texts = [_field(row, field, r) for r, row in enumerate(rows)]
    return TextBatch.from_texts(texts, ids=row_ids(rows, id_field=id_field, ids=ids, positions=positions))


def row_ids(
    rows: Sequence[Mapping[str, Any]], *, id_field: str, ids: Ids, positions: NDArray[np.int64] | None = None
) -> NDArray[np.uint64] | None:
    """The identities of dict rows; None leaves them to be derived from the content."""
    if ids == "record":
        return _core.gather_ids(rows, id_field)
    if ids == "position":
        return (np.arange(len(rows)) if positions is None else positions).astype(np.uint64)
    return None


def column_ids(keys: Any, rows: int, *, id_field: str, ids: Ids) -> NDArray[np.uint64] | None:
    """The identities from one column of keys, which may be None where the batch has no such column."""
    if ids == "content":
        return None
    if ids == "position":
        return np.arange(rows, dtype=np.uint64)
    if keys is None:
        raise InvalidInput(
            f"the batch has no '{id_field}', which keys the randomness of its rows: add a column of int or str keys, "
            "or pass ids='content' or ids='position'"
        )
    return _core.key_ids(keys, id_field)


def run(op: Op, batch: Batch, *, seed: int, epoch: int, variant: int = 0, return_source: bool = False) -> Any:
    """Calls `op` and returns its batch; each row's number in `batch` comes back in ``rows[ORIGIN]``."""
    batch.rows[ORIGIN] = np.arange(len(batch), dtype=np.int64)
    return op(batch, seed=seed, epoch=epoch, variant=variant, return_source=return_source)


def origin(out: Batch, rows: int) -> NDArray[np.int64] | None:
    """For each row of `out` its row in the source; None where the rows are the same in the same order."""
    numbers = out.rows.pop(ORIGIN, None)
    if numbers is None and len(out) != rows:
        raise InvalidInput(f"an op that makes {len(out)} rows of {rows} must carry batch.rows along")
    if numbers is None or (len(numbers) == rows and bool((numbers == np.arange(rows)).all())):
        return None
    return numbers


def column(
    values: Sequence[Any], offsets: NDArray[np.int64], name: str, dtypes: Mapping[str, str] | None = None
) -> NDArray[Any]:
    """One flat per-token column from a list per row: as `dtypes` say, else uint8 for ``...mask`` and else int32."""
    parts = [_array(value) for value in values]
    lengths = np.diff(offsets)
    for r, part in enumerate(parts):
        if part.shape != (lengths[r],):
            raise InvalidInput(f"'{name}' must hold one value per token (row {r}: {part.shape} != ({lengths[r]},))")
        if part.size and part.dtype.kind not in "iub":
            raise InvalidInput(f"'{name}' must be integers (row {r}: {part.dtype})")
    flat = np.concatenate([part.astype(np.int64) for part in parts]) if parts else np.zeros(0, np.int64)
    dtype = np.dtype((dtypes or {}).get(name, "uint8" if name.endswith("mask") else "int32"))
    limits = np.iinfo(dtype)
    bad = (flat < limits.min) | (flat > limits.max)
    if bad.any():
        at = int(bad.argmax())
        row = int(np.searchsorted(offsets, at, "right")) - 1
        raise InvalidInput(
            f"'{name}' must lie in {limits.min}..{limits.max} (row {row}, position {at - offsets[row]}: {flat[at]})"
        )
    return flat.astype(dtype)


def _refuse_padded(rows: Sequence[Mapping[str, Any]]) -> None:
    """Looks at the ends of each row only, where padding is."""
    for r, row in enumerate(rows):
        mask: Any = row.get("attention_mask")
        if mask is None:
            continue
        ends = mask.numpy() if hasattr(mask, "numpy") else mask
        if len(ends) and not (ends[0] and ends[-1]):
            raise InvalidInput(
                f"row {r} holds padding (its attention_mask begins or ends with 0): pass rows as they were before it"
            )


def _array(value: Any) -> NDArray[Any]:
    """One row's values; None, which tokenizers give special tokens for their word, is -1."""
    array = np.asarray(value)
    if array.dtype == object:
        return np.asarray([-1 if item is None else item for item in value])
    return array


def _field(row: Mapping[str, Any], name: str, r: int) -> Any:
    try:
        return row[name]
    except KeyError:
        raise InvalidInput(f"row {r} has no '{name}': every row must be a dict that has it") from None
