"""Files of a run directory: written whole or not at all, named after their content, held by one process.

A commit writes a temporary file in the same folder, syncs it, renames it to its content-named file and syncs the
folder; the journal record that makes it count comes after (`_journal`).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from variegate.errors import RunConflict

__all__ = ["TEMPORARY", "commit", "fsync_folder", "lock", "sha256_file", "write_atomic"]

TEMPORARY = ".tmp-"
"""Prefix of files that are not committed; whatever has it may be deleted when no run holds the directory."""


def fsync_folder(folder: Path) -> None:
    """Makes renames in a folder durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(folder: Path, stem: str, suffix: str, write: Callable[[BinaryIO], None]) -> tuple[Path, str, int]:
    """Writes a file and gives it the name `stem-HASH.suffix`; returns its path, SHA-256 and size."""
    temporary = folder / f"{TEMPORARY}{stem}.{suffix}"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_file(temporary)
        size = temporary.stat().st_size
        final = folder / f"{stem}-{digest[:16]}.{suffix}"
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(folder)
    return final, digest, size


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a small text file in one step."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        fsync_folder(path.parent)


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Holds a run directory against other processes until the block ends or the process does.

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
