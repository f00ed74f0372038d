"""Files of a directory: written whole or not at all, named after their content, held by one process.

A commit writes a temporary file in the same folder, syncs it and renames it to its content-named file (`Draft`); then
the folder is synced, and what makes the file count comes after: a record in the journal of a run, the manifest of an
index.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from variegate.errors import RunConflict

__all__ = ["TEMPORARY", "Draft", "fsync_folder", "lock", "make_folder", "named", "sha256_file", "write_atomic"]

TEMPORARY = ".tmp-"
"""Prefix of files that are not committed; whatever has it may be deleted when no run holds the directory."""


def named(error: OSError, path: Path) -> OSError:
    """The error with the name of the file, which calls on handles do not know."""
    return OSError(error.errno, error.strerror, str(path))


def fsync_folder(folder: Path) -> None:
    """Makes renames in a folder durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


BUFFER_BYTES = 1 << 18
"""How much waits before it is written: Parquet comes in many small pieces."""


class Draft:
    """A file that is being written; it is not there until `committed` gives it the name `stem-HASH.suffix`.

    Takes `write` as a binary file does, and hashes what it is given on the way. As a context it discards the file
    where it was not committed.
    """

    closed = False

    def __init__(self, folder: Path, stem: str, suffix: str) -> None:
        make_folder(folder)
        self._folder, self._stem, self._suffix = folder, stem, suffix
        self._temporary = folder / f"{TEMPORARY}{stem}.{suffix}"
        self._hash = hashlib.sha256()
        self._size = 0
        self._waiting = bytearray()
        self._handle = os.open(
            self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666
        )

    def write(self, data: Any) -> int:
        """Appends bytes; does nothing once the file is discarded, when writers still empty themselves."""
        view = memoryview(data).cast("B")
        if not self.closed:
            self._size += len(view)
            if len(self._waiting) + len(view) > BUFFER_BYTES:
                self._empty()
            if len(view) > BUFFER_BYTES:
                self._write(view)
            else:
                self._waiting += view
        return len(view)

    def _empty(self) -> None:
        """Writes what waits."""
        waiting, self._waiting = self._waiting, bytearray()
        self._write(memoryview(waiting))

    def _write(self, view: memoryview) -> None:
        self._hash.update(view)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise named(error, self._temporary) from None

    def tell(self) -> int:
        """Bytes so far."""
        return self._size

    def flush(self) -> None:
        """Nothing: `committed` writes what waits."""

    def close(self) -> None:
        """Nothing: who writes is done, but only `committed` makes a file of it."""

    def writable(self) -> bool:
        """Yes."""
        return True

    def committed(self, out: Path, rows: int) -> dict[str, Any]:
        """Syncs the file and gives it its name; returns what the journal or manifest in `out` says of it.

        The folder must be synced before that is written.
        """
        self._empty()
        digest = self._hash.hexdigest()
        final = self._folder / f"{self._stem}-{digest[:16]}.{self._suffix}"
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise named(error, self._temporary) from None
        self._close()
        os.replace(self._temporary, final)
        return {"path": final.relative_to(out).as_posix(), "rows": rows, "sha256": digest, "bytes": self._size}

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._handle)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a small text file in one step."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise named(error, path) from None
    os.replace(temporary, path)
    if durable:
        fsync_folder(path.parent)


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Holds a directory against other processes until the block ends or the process does.

    Raises:
        RunConflict: If another process holds it; names its pid and host.
    """
    with open(out / ".lock", "a+", encoding="utf-8") as file:
        if not _try_lock(file):
            file.seek(0)
            raise RunConflict(f"{out} is in use by {_holder(file.read())}: wait for it to end, or stop it")
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id()}, file)
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder: Any = json.loads(text)
        return f"process {holder['pid']} on host {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


if os.name == "nt":
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        file.seek(1 << 30)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
