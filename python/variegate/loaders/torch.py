"""Feeding a PyTorch training loop: a collator that applies an objective, and datasets that shard and resume.

What a record becomes depends on (op, seed, epoch, key of the record) and on nothing else: not on the batch size, the
number of workers, the start method of their processes, or where a run was interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from variegate import _core
from variegate.batch import IGNORE_INDEX, TextBatch, TokenBatch, _padding
from variegate.errors import InvalidInput, MissingExtra
from variegate.loaders import _rows
from variegate.loaders._rows import Ids, Op

if TYPE_CHECKING:
    from variegate import ops

try:
    import torch
except ImportError as error:
    raise MissingExtra("variegate.loaders.torch needs PyTorch: pip install 'variegate[torch]'") from error

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.fetch import _IterableDatasetFetcher, _MapDatasetFetcher

__all__ = ["AugmentedDataset", "AugmentedMapDataset", "Collator"]


class Collator:
    """Turns a list of dict rows into padded or packed tensors, with an op applied: the `collate_fn` of a DataLoader.

    A drop-in for Hugging Face's ``DataCollatorForLanguageModeling`` and ``DataCollatorForSeq2Seq``: the same keys,
    int64 everywhere, -100 where a label must be skipped. Unlike theirs, a row's mask is a function of the row's key,
    the seed and the epoch, so that batch size and workers change nothing, and the next epoch differs. Rows come without
    padding; special tokens are masked too unless the op protects them.

    Args:
        op: A token op or objective (`variegate.ops`), or None to pad only.
        seed: 0..2^64-1.
        pad_id: The token id in free cells.
        length: Width of the matrices, or of the blocks of `packing`; None takes the longest row of the batch.
        truncation: What happens to a row longer than `length`: None refuses it, ``right`` cuts its end, ``left`` its
            start. Rows are cut before the op, and again if the op lengthens them.
        packing: Lays several rows into blocks of `length` (best fit in row order) instead of padding each.
        pad_to_multiple_of: Rounds the width up; for `length` None.
        side: Which end of a row holds the padding.
        ids: What keys a row's randomness: ``record`` (its `id_field`), ``content``, or ``position`` in the batch,
            which gives every batch the same draws.
        field: The key of a row's token ids: a list of int, an integer array or a CPU tensor.
        id_field: The key of a row's key: an int in 0..2^64-1, or a str.
        columns: Further keys with one integer per token (``token_type_ids``), which move with the tokens and are
            returned as matrices too. Columns that the op reads (``word_ids``, where None counts as -1) or protects
            (``special_tokens_mask``) are taken from the rows without being named here, and not returned.
        decoder_start_id: Adds ``decoder_input_ids``: the second sequence of the objective shifted right behind this
            token, `pad_id` after its end; for `side` right. None leaves that to the model.
        epoch: The first epoch.

    Raises:
        InvalidInput: Arguments that contradict each other; at a call, a row without key or tokens, a token id out of
            range, a row too long, each with its row.

    Example:
        >>> from variegate import ops
        >>> collator = Collator(ops.MaskedLM(mlm_probability=0.15, mask_id=4, vocab_size=32000), seed=3)
        >>> batch = collator([{"id": "a", "input_ids": [5, 6, 7]}, {"id": "b", "input_ids": [8]}])
        >>> {name: tuple(tensor.shape) for name, tensor in batch.items()}
        {'input_ids': (2, 3), 'attention_mask': (2, 3), 'labels': (2, 3)}
    """

    def __init__(
        self,
        op: Op | Sequence[ops.Op] | None,
        *,
        seed: int,
        pad_id: int = 0,
        length: int | None = None,
        truncation: Literal["right", "left"] | None = None,
        packing: bool = False,
        pad_to_multiple_of: int | None = None,
        side: Literal["right", "left"] = "right",
        ids: Ids = "record",
        field: str = "input_ids",
        id_field: str = "id",
        columns: Sequence[str] = (),
        decoder_start_id: int | None = None,
        epoch: int = 0,
    ) -> None:
        self.op = None if op is None else _rows.as_op(op)
        if _rows.is_text(self.op):
            raise InvalidInput("Collator takes token ops, but this op reads text: apply it before tokenising")
        if not 0 <= pad_id < 1 << 32:
            raise InvalidInput(f"pad_id must lie in 0..4294967295 (it is {pad_id})")
        if decoder_start_id is not None and not 0 <= decoder_start_id < 1 << 32:
            raise InvalidInput(f"decoder_start_id must lie in 0..4294967295 (it is {decoder_start_id})")
        if length is not None and length < 1:
            raise InvalidInput(f"length must be at least 1 (it is {length})")
        if truncation not in (None, "right", "left"):
            raise InvalidInput(f"truncation must be None, 'right' or 'left', not {truncation!r}")
        if side not in ("right", "left"):
            raise InvalidInput(f"side must be 'right' or 'left', not {side!r}")
        if length is None and (packing or truncation):
            raise InvalidInput(f"{'packing' if packing else 'truncation'} needs a length")
        if pad_to_multiple_of is not None and (pad_to_multiple_of < 1 or length is not None):
            raise InvalidInput("pad_to_multiple_of must be at least 1, and goes with length=None")
        if decoder_start_id is not None and (packing or side == "left"):
            raise InvalidInput("decoder_start_id goes with side='right' and packing=False")
        made = ["input_ids", "attention_mask", *(["position_ids", "segment_ids"] if packing else [])]
        if decoder_start_id is not None:
            made.append("decoder_input_ids")
        for name in made:
            if name in columns:
                raise InvalidInput(f"columns must not name '{name}', which the collator makes itself")
        _rows.check_ids(ids)
        self.seed = seed
        self.decoder_start_id = decoder_start_id
        self.pad_id = pad_id
        self.length = length
        self.truncation = truncation
        self.packing = packing
        self.pad_to_multiple_of = pad_to_multiple_of
        self.side = side
        self.ids: Ids = ids
        self.field = field
        self.id_field = id_field
        self.columns = tuple(columns)
        self._reads = _rows.reads(self.op)
        self._epoch = _Epoch(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration takes."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, in this process and in every worker that has a copy of this collator.

        An iteration of a DataLoader keeps the epoch that it began with; the next ``iter()`` takes the new one. A call
        outside a DataLoader takes the current one.
        """
        self._epoch.value = epoch

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs: the epoch. Everything else is in the constructor and in the rows."""
        return {"version": 1, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the collator did whose `state_dict` this is."""
        _check_version(state, "Collator")
        self.set_epoch(state["epoch"])

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch.

        Args:
            rows: Mappings with `field`, `id_field` and `columns`; other keys are left out.

        Returns:
            int64 tensors [rows, width]: ``input_ids``, ``attention_mask`` (1 on tokens), ``labels`` and `columns`.
            Labels are the op's own; or the second sequence of its objective, [rows, longest]; or, where it makes
            none, the tokens themselves, -100 where a ``loss_mask`` is 0. With `decoder_start_id`
            ``decoder_input_ids``, as wide as the labels. With `packing` [blocks, length] each, and
            ``position_ids`` and ``segment_ids`` (from 1, 0 in free cells) besides. In shared memory in a worker.
        """
        batch = _rows.token_rows(
            rows,
            field=self.field,
            id_field=self.id_field,
            ids=self.ids,
            columns=dict.fromkeys([*self.columns, *self._reads]),
            dtypes=self._reads,
        )
        if not self.packing:
            batch = self._fit(batch)
        out = batch
        if self.op is not None:
            out = self.op(batch, seed=self.seed, epoch=self._epoch.of_iteration())
        return self._packed(out) if self.packing else self._padded(self._fit(out))

    def _fit(self, batch: TokenBatch) -> TokenBatch:
        if self.length is None or int(batch.lengths.max(initial=0)) <= self.length:
            return batch
        if self.truncation is None:
            row = int((batch.lengths > self.length).argmax())
            raise InvalidInput(
                f"rows must fit length={self.length} (row {row} has {batch.lengths[row]} tokens): pass truncation="
            )
        return batch.truncate(self.length, side=self.truncation)

    def _padded(self, batch: TokenBatch) -> dict[str, Tensor]:
        width = self.length or self._rounded(int(batch.lengths.max(initial=0)))
        left = self.side == "left"

        def lay(values: NDArray[Any], pad: int) -> Tensor:
            matrix = _empty(len(batch), width)
            _core.pad_into(_wide(values), batch.offsets, matrix.numpy(), left, pad)
            return matrix

        mask = _empty(len(batch), width)
        _core.mask_into(batch.offsets, mask.numpy(), left)
        tensors = {"input_ids": lay(batch.tokens, self.pad_id), "attention_mask": mask}
        if batch.targets is None:
            tensors["labels"] = lay(_labels(batch), IGNORE_INDEX)
        else:
            longest = self._rounded(int(batch.targets.lengths.max(initial=0)))
            tensors["labels"] = _empty(len(batch), longest)
            _core.pad_into(batch.targets.tokens, batch.targets.offsets, tensors["labels"].numpy(), left, IGNORE_INDEX)
        if self.decoder_start_id is not None:
            if batch.targets is None:
                raise InvalidInput("decoder_start_id needs an op that makes a second sequence, and this one makes none")
            tensors["decoder_input_ids"] = self._shifted(batch.targets, tensors["labels"].shape[1])
        return tensors | {
            name: lay(batch.columns[name], _padding(name)) for name in self.columns if name not in tensors
        }

    def _packed(self, batch: TokenBatch) -> dict[str, Tensor]:
        if batch.targets is not None:
            raise InvalidInput("packing takes one sequence per row, but this op makes a second one: use packing=False")
        assert self.length is not None
        own = {name: batch.columns[name] for name in self.columns}
        flat = TokenBatch(batch.tokens, batch.offsets, columns=own | {"labels": _labels(batch)})
        blocks = flat.to_packed(self.length, pad_id=self.pad_id)
        blocks["input_ids"] = blocks.pop("tokens")
        blocks["attention_mask"] = blocks["segment_ids"] != 0
        names = ["input_ids", "attention_mask", "labels", "position_ids", "segment_ids"]
        tensors = {}
        for name in [*names, *(name for name in self.columns if name not in names)]:
            tensors[name] = _empty(*blocks[name].shape)
            np.copyto(tensors[name].numpy(), blocks[name])
        return tensors

    def _shifted(self, targets: TokenBatch, width: int) -> Tensor:
        """The second sequences without their last cell, behind the start token."""
        matrix = _empty(len(targets), width)
        if width:
            cells = matrix.numpy()
            whole = np.empty_like(cells)
            _core.pad_into(targets.tokens, targets.offsets, whole, False, self.pad_id)
            cells[:, 0], cells[:, 1:] = self.decoder_start_id, whole[:, :-1]
        return matrix

    def _rounded(self, width: int) -> int:
        step = self.pad_to_multiple_of or 1
        return -(-width // step) * step

    def __repr__(self) -> str:
        """The op, the seed and the epoch."""
        return f"Collator({self.op!r}, seed={self.seed}, epoch={self.epoch})"


class _Augmented:
    """What both datasets do: read rows, call the op, hand out dict rows."""

    def __init__(
        self,
        rows: Any,
        op: Op | Sequence[ops.Op],
        *,
        seed: int,
        epoch: int,
        field: str | None,
        id_field: str,
        ids: Ids,
        columns: Sequence[str],
    ) -> None:
        if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise InvalidInput(
                f"rows must have len() and [], which {type(rows).__name__} lacks: resuming would have to read it from "
                "the start. Map variegate.loaders.Transform over a stream instead"
            )
        _rows.check_ids(ids)
        self.rows = rows
        self.op = _rows.as_op(op)
        self.seed = seed
        self.field = field or ("text" if _rows.is_text(self.op) else "input_ids")
        self.id_field = id_field
        self.ids: Ids = ids
        self._reads = _rows.reads(self.op)
        self.columns = tuple(dict.fromkeys([*columns, *self._reads]))
        self._epoch = _Epoch(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration takes."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, in this process and in every worker that has a copy; see `Collator.set_epoch`."""
        self._epoch.value = epoch

    def _augmented(self, positions: NDArray[np.int64], epoch: int) -> tuple[list[dict[str, Any]], bool]:
        """The rows that come of those at `positions`, and whether they still stand one for one."""
        rows, batch = self._read(positions)
        out = _rows.run(self.op, batch, seed=self.seed, epoch=epoch)
        origin = _rows.origin(out, len(batch))
        if origin is not None:
            rows = [rows[i] for i in origin.tolist()]
            if not np.array_equal(out.ids, batch.ids[origin]):
                rows = [row | {self.id_field: key} for row, key in zip(rows, out.ids.tolist(), strict=True)]
        made = (
            [{self.field: text} for text in out.texts] if isinstance(out, TextBatch) else _token_dicts(out, self.field)
        )
        return [row | new for row, new in zip(rows, made, strict=True)], origin is None

    def _read(self, positions: NDArray[np.int64]) -> tuple[list[dict[str, Any]], TokenBatch | TextBatch]:
        if isinstance(self.rows, TokenBatch | TextBatch):
            batch = self.rows.take(positions)
            known = {self.id_field: batch.ids.tolist()} | {name: values.tolist() for name, values in batch.rows.items()}
            return [dict(zip(known, row, strict=True)) for row in zip(*known.values(), strict=True)], batch
        places = positions.tolist()
        if hasattr(self.rows, "__getitems__"):
            rows = [dict(row) for row in self.rows.__getitems__(places)]
        else:
            rows = [dict(self.rows[place]) for place in places]
        fields: dict[str, Any] = {"field": self.field, "id_field": self.id_field, "ids": self.ids}
        if _rows.is_text(self.op):
            return rows, _rows.text_rows(rows, positions=positions, **fields)
        return rows, _rows.token_rows(rows, positions=positions, columns=self.columns, dtypes=self._reads, **fields)


class AugmentedDataset(_Augmented, IterableDataset[dict[str, Any]]):
    """Augmented rows in order or shuffled, split over ranks and workers, resumable in constant time.

    Each row is the source's row with its tokens (an int64 tensor) or its text replaced, and what the op adds
    (``labels``) beside them. Ranks and shuffling go by the key of a record, so that the order of files changes
    neither; workers take turns by blocks of `batch_size`, so that with the DataLoader's own batch size the batches
    are the same, in the same order, for any number of workers.

    Args:
        rows: Dict rows with len() and []: a list, a `datasets.Dataset`, any map-style dataset; or a `TokenBatch` or
            `TextBatch`.
        op: One op, or several to be composed.
        seed: 0..2^64-1; of the op and of the shuffling.
        batch_size: The batch size of the DataLoader; also the number of rows in one call of the op.
        shuffle: Reads in an order drawn from seed, epoch and keys.
        rank: This process's number in distributed training, where nothing else deals the rows out.
        world_size: The number of such processes.
        drop_last: Ranks have equally many records: False repeats a few to get there, True leaves a few out.
        epoch: The first epoch.
        field: The key of token ids or text; None takes ``input_ids`` or ``text``.
        id_field: The key of a row's key.
        ids: What keys randomness: ``record``, ``content`` (hashes all rows at the start if they are split or
            shuffled), or ``position`` in `rows`.
        columns: Further keys with one integer per token, which move with the tokens; those that the op reads are added.

    Raises:
        InvalidInput: Arguments out of their domain; `rows` that cannot be addressed; a row without its key.

    Cost: O(1) to start and to resume without ranks and shuffling; else one pass over the keys at construction, 16
    bytes a record, and O(n log n) an epoch for shuffling.

    Example:
        >>> from variegate import ops
        >>> rows = [{"id": i, "input_ids": [i, i, i, i]} for i in range(6)]
        >>> dataset = AugmentedDataset(rows, ops.TokenDropout(rate=0.3), seed=1, batch_size=2)
        >>> reader = iter(dataset)
        >>> _ = [next(reader) for _ in range(3)]
        >>> state = reader.state_dict()
        >>> rest = [row["id"] for row in reader]
        >>> again = iter(dataset)
        >>> again.load_state_dict(state)
        >>> [row["id"] for row in again] == rest == [3, 4, 5]
        True
    """

    def __init__(
        self,
        rows: Any,
        op: Op | Sequence[ops.Op],
        *,
        seed: int,
        batch_size: int = 32,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        epoch: int = 0,
        field: str | None = None,
        id_field: str = "id",
        ids: Ids = "record",
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, op, seed=seed, epoch=epoch, field=field, id_field=id_field, ids=ids, columns=columns)
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be at least 1 (it is {batch_size})")
        self.batch_size = batch_size
        self.shuffle = shuffle
        if not 0 <= rank < world_size:
            raise InvalidInput(f"rank must lie in 0..{world_size - 1} (it is {rank})")
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self._keys = self._all_keys() if shuffle or self.world_size > 1 else None

    def __len__(self) -> int:
        """Source records that this rank reads in an epoch."""
        share, rest = divmod(len(self.rows), self.world_size)
        return share + (rest > 0 and not self.drop_last)

    def __iter__(self) -> _Reader:
        """The rows of one epoch that fall to this rank and worker, with `state_dict` and `load_state_dict`."""
        return _Reader(self, self._epoch.at_start())

    def state_dict(self) -> dict[str, Any]:
        """The epoch; where an iteration stands is in the state of its iterator, which StatefulDataLoader keeps too."""
        return {"version": 1, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the epoch of a `state_dict`."""
        _check_version(state, "AugmentedDataset")
        self.set_epoch(state["epoch"])

    def _all_keys(self) -> NDArray[np.uint64]:
        if isinstance(self.rows, TokenBatch | TextBatch):
            return self.rows.ids
        if self.ids == "position":
            return np.arange(len(self.rows), dtype=np.uint64)
        if self.ids == "record" and hasattr(self.rows, "column_names") and self.id_field in self.rows.column_names:
            return _core.key_ids(self.rows[self.id_field], self.id_field)
        if self.ids == "record":
            return _core.gather_ids([self.rows[i] for i in range(len(self.rows))], self.id_field)
        starts = range(0, len(self.rows), 1024)
        stops = (min(start + 1024, len(self.rows)) for start in starts)
        parts = [self._read(np.arange(start, stop))[1].ids for start, stop in zip(starts, stops, strict=True)]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)

    def _order(self, epoch: int) -> NDArray[np.int64] | None:
        """Positions in reading order; None is all of them as they stand."""
        if self._keys is None:
            return None
        order = _core.shuffled(self._keys, self.seed, epoch if self.shuffle else 0)
        if self.world_size > 1:
            total = len(self) * self.world_size
            order = np.resize(order, total)[self.rank :: self.world_size] if len(order) else order
        return order if self.shuffle else np.sort(order)


class _Reader(Iterator[dict[str, Any]]):
    """One epoch of an `AugmentedDataset`, for one rank and one worker."""

    def __init__(self, dataset: AugmentedDataset, epoch: int) -> None:
        info = get_worker_info()
        self._dataset = dataset
        self._worker, self._workers = (0, 1) if info is None else (info.id, info.num_workers)
        self._start(epoch, block=self._worker, row=0)

    def _start(self, epoch: int, block: int, row: int) -> None:
        self._epoch = epoch
        self._order = self._dataset._order(epoch)
        # The block being read, how many rows of it were given out, and all its rows once they are made.
        self._block, self._row = block, row
        self._made: list[dict[str, Any]] | None = None

    def __next__(self) -> dict[str, Any]:
        while True:
            if self._made is None:
                positions = self._positions(self._block)
                if not len(positions):
                    raise StopIteration
                self._made, _ = self._dataset._augmented(positions, self._epoch)
            if self._row < len(self._made):
                self._row += 1
                return self._made[self._row - 1]
            self._made, self._block, self._row = None, self._block + self._workers, 0

    def _positions(self, block: int) -> NDArray[np.int64]:
        size = self._dataset.batch_size
        if self._order is None:
            return np.arange(block * size, min((block + 1) * size, len(self._dataset)))
        return self._order[block * size : (block + 1) * size]

    def _shard(self) -> dict[str, int]:
        dataset = self._dataset
        return {
            "records": len(dataset.rows),
            "batch_size": dataset.batch_size,
            "rank": dataset.rank,
            "world_size": dataset.world_size,
            "worker": self._worker,
            "workers": self._workers,
        }

    def state_dict(self) -> dict[str, Any]:
        """Where this reader stands: a few numbers, however far it is."""
        return {"version": 1, "epoch": self._epoch, "block": self._block, "row": self._row, "shard": self._shard()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the reader stood whose `state_dict` this is; reads at most one block again."""
        _check_version(state, "AugmentedDataset")
        ours = self._shard()
        for name, value in state["shard"].items():
            if ours[name] != value:
                raise InvalidInput(f"the state was saved with {name}={value}, but this dataset has {name}={ours[name]}")
        self._start(state["epoch"], state["block"], state["row"])


class AugmentedMapDataset(_Augmented, Dataset[dict[str, Any]]):
    """Augmented rows by position, for samplers: `DataLoader(shuffle=True)`, `DistributedSampler`.

    Rows are as in `AugmentedDataset`. The op must keep rows one for one. A batch of positions is one call of the op.

    Args:
        rows: Dict rows with len() and [], or a `TokenBatch` or `TextBatch`.
        op: One op, or several to be composed.
        seed: 0..2^64-1.
        epoch: The first epoch.
        field: The key of token ids or text; None takes ``input_ids`` or ``text``.
        id_field: The key of a row's key.
        ids: What keys randomness: ``record``, ``content``, or ``position`` in `rows`.
        columns: Further keys with one integer per token, which move with the tokens; those that the op reads are added.

    Raises:
        InvalidInput: As `AugmentedDataset`; an op that drops or multiplies rows.

    Example:
        >>> from variegate import ops
        >>> rows = [{"id": i, "input_ids": [i, i, i, i]} for i in range(6)]
        >>> dataset = AugmentedMapDataset(rows, ops.TokenDropout(rate=0.3), seed=1)
        >>> len(dataset), dataset[5]["id"]
        (6, 5)
    """

    def __init__(
        self,
        rows: Any,
        op: Op | Sequence[ops.Op],
        *,
        seed: int,
        epoch: int = 0,
        field: str | None = None,
        id_field: str = "id",
        ids: Ids = "record",
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, op, seed=seed, epoch=epoch, field=field, id_field=id_field, ids=ids, columns=columns)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at `index`, augmented."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows at `indices`, augmented in one call."""
        rows, aligned = self._augmented(np.asarray(indices, np.int64), self._epoch.of_iteration())
        if not aligned:
            raise InvalidInput("AugmentedMapDataset needs an op that keeps rows one for one: use AugmentedDataset")
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The epoch; the sampler knows the position."""
        return {"version": 1, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the epoch of a `state_dict`."""
        _check_version(state, "AugmentedMapDataset")
        self.set_epoch(state["epoch"])


class _Epoch:
    """An epoch in shared memory: what one process sets, all that were forked or spawned from it read.

    A DataLoader does not tell a collator when an iteration begins. Every iteration has a fetcher of its own, though,
    which is on the stack when the collator runs: the first call from a fetcher fixes the epoch for all its calls.
    A worker process that is just starting takes the epoch that it was forked or pickled with, which is that of the
    `iter()` that started it, whatever was set since.
    """

    def __init__(self, epoch: int) -> None:
        self._cell = torch.tensor([_rows.check_epoch(epoch)]).share_memory_()  # type: ignore[no-untyped-call]
        self._sent = epoch
        self._process: int | None = os.getpid()
        self._running: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        _LIVE.add(self)

    @property
    def value(self) -> int:
        return int(self._cell[0])

    @value.setter
    def value(self, epoch: int) -> None:
        self._sent = self._cell[0] = _rows.check_epoch(epoch)

    def at_start(self) -> int:
        """The epoch of an iteration that begins now."""
        fresh, self._process = self._process != os.getpid(), os.getpid()
        return self._sent if fresh and get_worker_info() is not None else self.value

    def of_iteration(self) -> int:
        """The epoch of the iteration that this call is a part of, or the current one outside a DataLoader."""
        fetcher = _calling_fetcher()
        if fetcher is None:
            return self.value
        if fetcher not in self._running:
            self._running[fetcher] = self.at_start()
        return self._running[fetcher]

    def __getstate__(self) -> dict[str, Any]:
        return {"cell": self._cell, "sent": self.value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cell = state["cell"] if state["cell"].is_shared() else state["cell"].share_memory_()
        self._sent = state["sent"]
        self._process = None
        self._running = WeakKeyDictionary()
        _LIVE.add(self)


_LIVE: WeakSet[_Epoch] = WeakSet()


def _before_fork() -> None:
    for epoch in list(_LIVE):
        epoch._sent = epoch.value


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)

_FETCHES = (_IterableDatasetFetcher.fetch.__code__, _MapDatasetFetcher.fetch.__code__)


def _calling_fetcher() -> object | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _FETCHES:
            fetcher: object = frame.f_locals["self"]
            return fetcher
        frame = frame.f_back
    return None


def _empty(rows: int, width: int) -> Tensor:
    """An int64 matrix, not filled; in a worker in shared memory, so that sending it is not another copy."""
    if get_worker_info() is None or rows * width == 0:
        return torch.empty((rows, width), dtype=torch.int64)
    storage = torch.UntypedStorage._new_shared(rows * width * 8)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.int64).set_(storage, 0, (rows, width), (width, 1))


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype in (np.uint32, np.int32) else values.astype(np.int32)


def _labels(batch: TokenBatch) -> NDArray[Any]:
    """The labels of a batch with one sequence per row, flat."""
    if "labels" in batch.columns:
        return batch.columns["labels"]
    if "loss_mask" not in batch.columns:
        return batch.tokens
    return np.where(batch.columns["loss_mask"] != 0, batch.tokens.astype(np.int64), IGNORE_INDEX)


def _token_dicts(batch: TokenBatch, field: str) -> list[dict[str, Any]]:
    flat = {field: batch.tokens} | batch.columns
    lengths = batch.lengths.tolist()
    split = {name: torch.split(torch.from_numpy(values.astype(np.int64)), lengths) for name, values in flat.items()}
    if batch.targets is not None:
        targets = torch.from_numpy(batch.targets.tokens.astype(np.int64))
        split["labels"] = torch.split(targets, batch.targets.lengths.tolist())
    return [dict(zip(split, parts, strict=True)) for parts in zip(*split.values(), strict=True)]


def _check_version(state: Mapping[str, Any], name: str) -> None:
    if state.get("version") != 1:
        raise InvalidInput(f"this is no state of {name} (version {state.get('version')!r}, needed 1)")
