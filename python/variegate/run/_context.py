"""What the stages of a run share: recipe, inputs, tokenizer, columns, and how much memory there is."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import _core, provenance
from variegate.recipe import Augment, Dedup, Measure, Recipe, Templates
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run._parts import Files, Part
from variegate.run._units import Unit, kept_types, units

if TYPE_CHECKING:
    from variegate.batch import TokenBatch

__all__ = ["Context", "needs_tokens", "threads", "token_batch"]

T = TypeVar("T")
U = TypeVar("U")

TASK_BYTES = 80 << 20
"""About how much memory one task holds while it makes a part."""
INTERPRETER_BYTES = 200 << 20
"""What Python, its libraries and a tokenizer take; `memory` does not count it."""


class Context:
    """What the stages of a run share."""

    def __init__(self, recipe: Recipe, listed: list[inputs.Input], out: Path) -> None:
        self.recipe, self.inputs, self.out = recipe, listed, out
        self.files = Files(out)
        self.paths = [item.path for item in listed]
        self.wants_tokens = needs_tokens(recipe)
        self.wants_content = any(
            isinstance(stage, Measure) or (isinstance(stage, Dedup) and stage.threshold is None)
            for stage in recipe.stages
        )
        spans = any(isinstance(stage, Templates) for stage in recipe.stages)
        kept = kept_types(recipe, listed)
        self.schema = records.schema(kept, tokens=self.wants_tokens, spans=spans)
        self.results: dict[str, dict[str, Any]] = {}
        self.pool: ThreadPoolExecutor | None = None
        self.at_once = 1
        self._thread = threading.local()

    @contextmanager
    def at_work(self, wanted: int) -> Iterator[ThreadPoolExecutor]:
        """The threads of a run: as many as wanted, or as the memory allows."""

        def enlist() -> None:
            self._thread.ours = True

        self.at_once = self.workers(wanted)
        with (
            ThreadPoolExecutor(self.at_once, "variegate", initializer=enlist) as self.pool,
            threads(wanted),
        ):
            yield self.pool

    @property
    def ahead(self) -> int:
        """How many tasks may wait."""
        return 2 * self.at_once

    def units(self, digests: dict[int, str]) -> Iterator[Unit]:
        """The content of all sources, cut into units; `digests` get the SHA-256 of each file."""
        return units(self.recipe, self.inputs, digests)

    @property
    def memory(self) -> int:
        """Bytes that a stage may hold."""
        return self.recipe.memory

    def workers(self, wanted: int) -> int:
        """How many tasks may be at work at once without exceeding the memory."""
        return max(1, min(wanted, self.memory // TASK_BYTES - 1))

    @cached_property
    def tokenizer(self) -> Any:
        """The recipe's tokenizer."""
        from variegate import Tokenizer

        name = self.recipe.tokenizer
        return Tokenizer.default() if name == "default" else Tokenizer(self.recipe.base / name)

    @cached_property
    def partial_tokens(self) -> tuple[int, ...]:
        """Tokens that are not whole characters: changing one by itself would leave no valid text."""
        return tuple(np.flatnonzero(self.tokenizer.whole_characters == 0).tolist())

    def encode(self, rows: pa.Table) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Tokens and offsets of the rows' texts."""
        from variegate.batch import TextBatch

        ids = np.zeros(len(rows), np.uint64)  # the tokens do not depend on them
        batch = self.tokenizer.encode(TextBatch(*records.ragged(rows["text"]), ids=ids))
        return batch.tokens, batch.offsets

    @cached_property
    def cell(self) -> type[np.unsignedinteger[Any]]:
        """What holds any token."""
        return np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32

    def content(self, tokens: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """A hash of each row of tokens, `uint8[rows, 16]`, to tell rows of one run apart."""
        return np.ascontiguousarray(provenance.record_hashes([records.cells(tokens, offsets, self.cell)])[:, :16])

    def tokenized(self, rows: pa.Table) -> pa.Table:
        """The rows with their tokens, where the run needs them."""
        if not self.wants_tokens:
            return rows
        column = records.token_lists(*self.encode(rows))
        return rows.set_column(rows.column_names.index("tokens"), self.schema.field("tokens"), column)

    def map(self, work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Does the work for each item on the threads of the run, a few ahead; the results come in order.

        Called by one of those threads it does the work there.
        """
        if self.pool is None or hasattr(self._thread, "ours"):
            yield from map(work, items)
            return
        waiting: deque[Future[U]] = deque()
        with ExitStack() as stack:
            stack.enter_context(threads(1))
            stack.callback(lambda: [future.cancel() for future in waiting])
            for item in items:
                waiting.append(self.pool.submit(work, item))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def pieces(self, parts: Iterable[Part], columns: list[str]) -> Iterator[pa.Table]:
        """Pieces of some parts, read by several threads."""
        for tables in self.map(lambda part: list(self.files.pieces(part, columns)), parts):
            yield from tables

    def forget(self) -> None:
        """Lets go of what speeds up a pass and is not needed after it."""
        if "tokenizer" in self.__dict__:
            self.tokenizer._forget()
        self.give_back()

    def give_back(self) -> None:
        """Gives memory that is free in this process back to the system, where its allocator is that of glibc."""
        pa.default_memory_pool().release_unused()
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)

    @property
    def text_columns(self) -> list[str]:
        """Columns of a part that `readable` makes its texts of."""
        return ["text", "tokens"] if self.wants_tokens else ["text"]

    def stored_tokens(self, piece: pa.Table) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Tokens and offsets of rows of a part."""
        return records.cell_tokens(piece["tokens"], self.cell)

    def readable(self, piece: pa.Table) -> pa.Table:
        """Rows of a part with their texts, and without their tokens."""
        if not self.wants_tokens:
            return piece
        texts = self._decoded(*self.stored_tokens(piece))
        if piece["text"].null_count < len(piece):
            texts = pc.coalesce(piece["text"], texts)
        return piece.set_column(piece.column_names.index("text"), "text", texts).drop_columns("tokens")

    def _decoded(self, tokens: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> pa.Array:
        texts = self.tokenizer.decode(token_batch(tokens, offsets))
        return records.strings(texts.data, texts.offsets)

    def stored_schema(self, sketches: dict[str, _core.NearParams]) -> pa.Schema:
        """Columns of a part: those of the rows, and what later stages need of them."""
        fields = [pa.field("tokens", pa.binary()) if field.name == "tokens" else field for field in self.schema]
        fields.append(pa.field("n_bytes", pa.uint32()))
        if self.wants_tokens:
            fields.append(pa.field("n_tokens", pa.uint32()))
        if self.wants_content:
            fields.append(pa.field("content", records.ID))
        for name, params in sketches.items():
            fields += [pa.field(records.key_name(name, band), pa.uint64()) for band in range(1 + params.bands)]
        return pa.schema(fields)

    def stored(self, rows: pa.Table, sketches: dict[str, _core.NearParams], like: pa.Schema) -> pa.Table:
        """The rows as a part holds them: a text that its tokens spell is not laid down, for they are half as large."""
        columns = {field.name: rows[field.name] for field in self.schema if field.name != "tokens"}
        columns["n_bytes"] = pa.array(records.text_bytes(rows["text"]).astype(np.uint32))
        if not self.wants_tokens:
            return pa.table(columns, schema=like)
        tokens, offsets = records.token_arrays(rows["tokens"])
        spelt = pc.equal(rows["text"], self._decoded(tokens, offsets))
        all_spelt = pc.all(spelt).as_py()
        columns["text"] = pa.nulls(len(rows), pa.string()) if all_spelt else pc.if_else(spelt, None, rows["text"])
        columns["tokens"] = records.cell_column(*records.cells(tokens, offsets, self.cell))
        columns["n_tokens"] = pa.array(np.diff(offsets).astype(np.uint32))
        if self.wants_content:
            columns["content"] = records.id_column(self.content(tokens, offsets))
        for name, params in sketches.items():
            for band, keys in enumerate(params.keys(tokens, offsets)):
                columns[records.key_name(name, band)] = pa.array(keys)
        return pa.table(columns, schema=like)


def token_batch(tokens: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> TokenBatch:
    """Rows of tokens of which nothing is drawn, so that they need no ids."""
    from variegate.batch import TokenBatch

    return TokenBatch(tokens, offsets, ids=np.zeros(len(offsets) - 1, np.uint64))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets the core use so many threads."""
    before = _core.get_num_threads()
    _core.set_num_threads(count)
    try:
        yield
    finally:
        _core.set_num_threads(before)


def needs_tokens(recipe: Recipe) -> bool:
    """Whether any stage works on tokens."""
    from variegate.run._stages import made_ops

    for stage in recipe.stages:
        if isinstance(stage, Dedup | Measure):
            return True
        if isinstance(stage, Augment) and any(op.domain == "token" for op in made_ops(stage)):
            return True
    return recipe.mix is not None and recipe.mix.max_synthetic is not None and recipe.mix.by == "tokens"
