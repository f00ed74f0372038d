"""Writing the final set: shards of equally many rows, made from the parts that the last stage passes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from variegate import _store as store
from variegate import provenance
from variegate.run import _records as records
from variegate.run._context import Context
from variegate.run._parts import Committed, ParquetDraft, Part
from variegate.run._passes import Record, Task

__all__ = ["Shards", "summed"]

SHARED = ("kind", "source", "license", "generation")
"""What the shares of the final set are counted by."""


class Shards:
    """The files of the final set: shard n holds the rows from n * step up to (n + 1) * step of all parts."""

    def __init__(self, context: Context, index: int, parts: list[Part]) -> None:
        self.context, self.index, self.parts = context, index, parts
        self.step = context.recipe.output.rows_per_shard
        self.starts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
        self.rows: int = self.starts[-1]
        self.columns = [name for name in context.schema.names if name != "id"]
        if context.wants_tokens:
            self.columns.append("n_tokens")

    @property
    def count(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.step)

    def tasks(self) -> Iterator[Task]:
        """The shards that begin in one part are one task, so that each part is read about once."""
        for number in range(len(self.parts)):
            first, last = -(-self.starts[number] // self.step), -(-self.starts[number + 1] // self.step)
            if first < last:
                shards = list(range(first, last))
                yield Task(shards, partial(self.write, shards))

    def write(self, shards: list[int], done: int) -> list[Record]:
        """Writes consecutive shards, but for the first `done`, in one go over the parts."""
        wanted = shards[done:]
        stop = min(self.rows, (wanted[-1] + 1) * self.step)
        rows = self.pieces(wanted[0] * self.step, stop)
        rest: list[pa.Table] = []

        def until(room: int) -> Iterator[pa.Table]:
            while room:
                piece = rest.pop() if rest else next(rows)
                if len(piece) > room:
                    rest.append(piece.slice(room))
                    piece = piece.slice(0, room)
                room -= len(piece)
                yield piece

        return [self.shard(n, until(min(stop, (n + 1) * self.step) - n * self.step)) for n in wanted]

    def pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        """The rows from `start` up to `stop`."""
        number = int(np.searchsorted(self.starts, start, side="right")) - 1
        at = self.starts[number]
        while at < stop:
            for piece in self.context.files.pieces(self.parts[number], self.columns):
                low, high = max(start - at, 0), min(stop - at, len(piece))
                if low < high:
                    yield self.context.readable(piece.slice(low, high - low))
                at += len(piece)
            number += 1

    def shard(self, shard: int, pieces: Iterator[pa.Table]) -> Record:
        """Writes one shard, with its Merkle root and its shares."""
        start, stop = shard * self.step, min(self.rows, (shard + 1) * self.step)
        shares = _Shares()
        tree = provenance.MerkleTree()
        tokens = text_bytes = 0
        with ExitStack() as stack:
            file = self.draft(shard)
            stack.enter_context(file)
            for piece in pieces:
                final = records.output_table(piece)
                tree.update(records.output_hashes(final))
                file.add(final)
                sizes = records.text_bytes(piece["text"])
                counts = records.flat(piece["n_tokens"]).to_numpy() if self.context.wants_tokens else None
                shares.add(piece, sizes, counts)
                text_bytes += int(sizes.sum())
                tokens += 0 if counts is None else int(counts.sum())
            committed = file.commit()
        released = [
            part.file["path"]
            for part, end in zip(self.parts, self.starts[1:], strict=True)
            if part.file is not None and start < end <= stop
        ]
        return {
            "record": "part",
            "stage": self.index,
            "part": shard,
            "file": committed,
            "rows": committed["rows"],
            "merkle_root": tree.root().hex(),
            "tokens": tokens,
            "text_bytes": text_bytes,
            "shares": shares.counted,
            "released": released,
        }

    def draft(self, shard: int) -> ParquetDraft | LinesDraft:
        """An empty file for a shard."""
        name = f"part-{shard:05d}"
        if self.context.recipe.output.format != "parquet":
            return LinesDraft(self.context, name)
        like = self.context.schema.empty_table().select(
            [name for name in self.columns if name not in ("tokens", "n_tokens")]
        )
        return ParquetDraft(self.context.out, "data", name, records.output_table(like).schema, final=True)


class LinesDraft:
    """A file of JSON lines, compressed, that is not there until it is committed."""

    def __init__(self, context: Context, stem: str) -> None:
        self._out = context.out
        self._draft = store.Draft(context.out / "data", stem, "jsonl.zst")
        self._stream = pa.CompressedOutputStream(pa.PythonFile(self._draft, mode="w"), "zstd")
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Appends rows."""
        self._stream.write(records.to_jsonl(rows))
        self.rows += len(rows)

    def commit(self) -> Committed:
        """Makes the file durable under its name; returns what the journal says of it."""
        self._stream.close()
        return self._draft.committed(self._out, self.rows)

    def __enter__(self) -> LinesDraft:
        return self

    def __exit__(self, *error: object) -> None:
        self._draft.__exit__(*error)


@dataclass
class _Shares:
    """Rows, bytes and tokens by kind, source, licence and generation."""

    counted: dict[str, dict[str, dict[str, int]]] = field(default_factory=lambda: {name: {} for name in SHARED})

    def add(self, rows: pa.Table, sizes: Any, tokens: Any) -> None:
        """Counts rows with the bytes and tokens of each."""
        for name in SHARED:
            codes = records.flat(rows[name]).dictionary_encode()
            at, values = codes.indices.to_numpy(), codes.dictionary.to_pylist()
            columns = {"rows": None, "bytes": sizes, **({} if tokens is None else {"tokens": tokens})}
            for what, weights in columns.items():
                sums = np.bincount(at, weights=weights, minlength=len(values))
                for value, count in zip(values, sums.tolist(), strict=True):
                    share = self.counted[name].setdefault(str(value), {})
                    share[what] = share.get(what, 0) + int(count)


def summed(shards: list[Record]) -> dict[str, dict[str, dict[str, int]]]:
    """The shares of all shards together, by name."""
    total: dict[str, dict[str, Counter[str]]] = {name: {} for name in SHARED}
    for shard in shards:
        for name, values in shard["shares"].items():
            for value, counts in values.items():
                total[name].setdefault(value, Counter()).update(counts)
    return {name: {value: dict(values[value]) for value in sorted(values)} for name, values in total.items()}
