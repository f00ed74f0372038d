"""Parts: what one pass over the data leaves for the next, on disk, read back a few megabytes at a time.

A part is a committed Parquet file together with the ledgers of the stages that have rejected some of its rows since.
The file is never written again: whoever reads the part leaves those rows out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate import _store as store
from variegate import provenance
from variegate.errors import CorruptRun
from variegate.run import _records as records

__all__ = ["Committed", "Files", "ParquetDraft", "Part"]

PIECE_BYTES = 8 << 20
"""About how many bytes of columns a row group holds, so how much is in memory when a part is read."""
PIECE_ROWS = 1 << 16

Committed = dict[str, Any]
"""What the journal says of a committed file: path, rows, bytes, sha256; of rows also their tokens and text_bytes."""

_REPEATED = (
    "source",
    "license",
    "kind",
    "ops",
    "generator",
    "generator_terms",
    "digital_source_type",
    "stage",
    "reason",
)
"""Columns with few different values: written with a dictionary."""


@dataclass(frozen=True)
class Part:
    """Rows that a stage passes on: those of a file, less those in the ledgers of later stages."""

    number: int
    file: Committed | None
    dropped: tuple[Committed, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that are left."""
        return self._left("rows")

    @property
    def tokens(self) -> int:
        """Tokens of those rows, 0 where the run does not count them."""
        return self._left("tokens")

    @property
    def text_bytes(self) -> int:
        """Bytes of their texts."""
        return self._left("text_bytes")

    def _left(self, what: str) -> int:
        count: int = 0 if self.file is None else self.file[what] - sum(ledger[what] for ledger in self.dropped)
        return count

    def without(self, ledger: Committed | None) -> Part:
        """The part less the rows of one more ledger."""
        return self if ledger is None else replace(self, dropped=(*self.dropped, ledger))


class Files:
    """The committed files of a run directory, to be read."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def pieces(self, part: Part, columns: list[str]) -> Iterator[pa.Table]:
        """The rows of a part, a row group at a time."""
        if part.file is None:
            return
        gone = self._dropped_ids(part)
        asked = columns if "record_id" in columns or not len(gone) else [*columns, "record_id"]
        for piece in self.groups(part.file, asked):
            if len(gone):
                piece = piece.filter(pc.invert(pc.is_in(piece["record_id"], value_set=gone)))
            yield piece.select(columns)

    def _dropped_ids(self, part: Part) -> pa.Array:
        found = [pa.array([], records.ID)]
        for ledger in part.dropped:
            found += [
                records.id_column(records.ids_of_hex(piece["record_id"]))
                for piece in self.groups(ledger, ["record_id"])
            ]
        return pa.concat_arrays(found)

    def groups(self, file: Committed, columns: list[str]) -> Iterator[pa.Table]:
        """A committed file, a row group at a time."""
        with self._opened(file) as opened:
            for index in range(opened.num_row_groups):
                yield opened.read_row_group(index, columns=columns, use_threads=False)

    def note(self, file: Committed, name: str) -> bytes:
        """A note that was written with a file."""
        with self._opened(file) as opened:
            found: bytes = opened.metadata.metadata[name.encode()]
            return found

    @contextmanager
    def _opened(self, file: Committed) -> Iterator[pq.ParquetFile]:
        path = self.out / file["path"]
        try:
            with pq.ParquetFile(path, pre_buffer=False) as opened:
                yield opened
        except FileNotFoundError:
            raise CorruptRun(f"{path} is missing, though the journal has it") from None
        except (OSError, pa.ArrowException) as error:
            raise CorruptRun(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


class ParquetDraft:
    """A Parquet file that is being written, a row group for every few megabytes; not there until it is committed.

    As a context it discards the file where it was not committed.
    """

    def __init__(self, out: Path, folder: str, stem: str, schema: pa.Schema, *, final: bool = False) -> None:
        self._out = out
        self._draft = store.Draft(out / folder, stem, "parquet")
        names = [f"provenance.{name}" for name in _REPEATED if name in provenance.FIELDS] if final else _REPEATED
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_nested(field.type)]
        self._writer = pq.ParquetWriter(
            self._draft,
            schema,
            compression="zstd" if final else dict.fromkeys(texts, "zstd"),
            compression_level=1 if final else dict.fromkeys(texts, 1),
            use_dictionary=[name for name in names if final or name in schema.names] or False,
            write_statistics=final,
        )
        self._pending: list[pa.Table] = []
        self._bytes = self._waiting = 0
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Appends rows."""
        self._pending.append(rows)
        self.rows += len(rows)
        self._waiting += len(rows)
        self._bytes += rows.nbytes
        if self._bytes >= PIECE_BYTES or self._waiting >= PIECE_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._pending), row_group_size=self._waiting)
        self._pending, self._bytes, self._waiting = [], 0, 0

    def commit(self, notes: dict[str, bytes] | None = None) -> Committed:
        """Makes the file durable under its name; returns what the journal says of it."""
        self._flush()
        if notes:
            self._writer.add_key_value_metadata(notes)
        self._writer.close()
        return self._draft.committed(self._out, self.rows)

    def __enter__(self) -> ParquetDraft:
        return self

    def __exit__(self, *error: object) -> None:
        self._draft.__exit__(*error)
