"""The journal of a run: length and CRC framed JSON records, the only authority on what has been done.

A frame is the length of its payload and the payload's CRC-32, both as four little-endian bytes, then the payload: a
JSON object in UTF-8. The file starts with `MAGIC`. What comes after the last whole frame was never committed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from variegate._store import fsync_folder, named
from variegate.errors import CorruptRun

__all__ = ["MAGIC", "Journal", "replay"]

MAGIC = b"variegate journal 1\n"
_HEAD = struct.Struct("<II")
MAX_RECORD = 1 << 28


def frame(record: dict[str, Any]) -> bytes:
    """One record as it stands in the file."""
    payload = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def replay(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole records of a journal's bytes, and how many bytes they and the magic take.

    Reading stops at the first frame that is cut, fails its checksum, or is no JSON object; never raises. A file that
    does not start with the magic has no records and takes no bytes.
    """
    if not data.startswith(MAGIC):
        return [], 0
    records: list[dict[str, Any]] = []
    at = len(MAGIC)
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if not 2 <= length <= MAX_RECORD or len(payload) < length or zlib.crc32(payload) != checksum:
            break
        try:
            record = json.loads(payload)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict):
            break
        records.append(record)
        at += _HEAD.size + length
    return records, at


class Journal:
    """An open journal, ready to append; what is torn stays until `cut`, for it may be damage that somebody can mend.

    A file that is no journal, or is damaged at its start so that nothing of it can be read, is left as it is.

    Attributes:
        records: The records found when it was opened, then those appended.
        torn: Bytes at its end that are no record.

    Raises:
        CorruptRun: The file is no journal.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        self.path = path
        self.records, whole = replay(data)
        if not whole and not MAGIC.startswith(data):
            raise CorruptRun(f"{path} is no journal of a run, or damaged at its start: choose a new directory")
        self.torn = len(data) - whole
        self._file: BinaryIO = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        self._whole = whole
        if not whole:
            self.cut()

    def cut(self) -> None:
        """Cuts off what is torn; a journal without any record begins anew."""
        if self.torn or not self._whole:
            with self._named():
                self._file.truncate(self._whole)
                self._file.seek(self._whole)
                if not self._whole:
                    _write_all(self._file, MAGIC)
                os.fsync(self._file.fileno())
            fsync_folder(self.path.parent)
        self.torn, self._whole = 0, self._whole or len(MAGIC)

    def append(self, *records: dict[str, Any]) -> None:
        """Adds records and returns when they are on disk; `cut` comes before."""
        with self._named():
            self._file.seek(0, os.SEEK_END)
            _write_all(self._file, b"".join(map(frame, records)))
            os.fsync(self._file.fileno())
        self.records += records

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise named(error, self.path) from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
