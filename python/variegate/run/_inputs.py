"""Inputs: the files that a recipe names, one of them while it is read, and what is found in it.

No record is larger than `MAX_RECORD`. Files are hashed as they are read. What cannot be read is a `Problem`; it is for
the caller to say whether that stops the run.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from variegate.errors import InvalidInput
from variegate.recipe import Decontaminate, Overlap, Recipe, Source, Templates

__all__ = [
    "COMPRESSIONS",
    "EMPTY_FILE",
    "MAX_RECORD",
    "SHOWN_BYTES",
    "UNIT_BYTES",
    "UNKNOWN",
    "Chunk",
    "Damage",
    "File",
    "Input",
    "Piece",
    "Problem",
    "cause",
    "complaint",
    "format_advice",
    "format_of",
    "hash_file",
    "list_inputs",
    "oversized",
    "sized",
]

UNIT_BYTES = 4 << 20
"""About how many bytes of input make a part."""

MAX_RECORD = 64 << 20
"""Bytes that a record may have; at least `UNIT_BYTES`."""

SHOWN_BYTES = 200
"""How much of a record that is too large goes into the ledger."""

EMPTY_FILE = "empty_file"
"""The reason of a ledger entry for a file among others that holds nothing; no error even where a recipe is strict."""

UNKNOWN = "unknown"
"""The format of a file whose name does not tell."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Codecs of files of bytes, by the end of the name."""

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}


@dataclass(frozen=True)
class Input:
    """A file that the output depends on.

    Attributes:
        source: Name of its source or stage.
        path: As the ledger and the manifest name it: relative to the recipe's folder where it lies below it.
        where: Where it is now.
        format: How to read it; empty for a file of a stage or a tokenizer.
        bytes: Its size.
        sha256: Of its content, in hexadecimal; empty for a file of a source, which is hashed while it is read.
        mtime_ns: When it was last changed.
    """

    source: str
    path: str
    where: Path = field(compare=False)
    format: str
    bytes: int = 0
    sha256: str = ""
    mtime_ns: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """What the journal and the manifest hold of it."""
        return {"source": self.source, "path": self.path, "bytes": self.bytes, "sha256": self.sha256}


class Chunk(NamedTuple):
    """A piece of a file: bytes that end where a record does, or a batch of rows; `row` is its first one, from 1."""

    file: int
    row: int
    data: Any

    @property
    def bulk(self) -> int:
        """Bytes that it takes."""
        return len(self.data) if isinstance(self.data, bytes) else int(self.data.nbytes)


class Problem(NamedTuple):
    """A record that could not be read, or a file; `row` is 0 where it is the file as a whole."""

    file: int
    row: int
    reason: str
    message: str
    raw: bytes

    @property
    def bulk(self) -> int:
        """About how many bytes it takes."""
        return 256 + len(self.raw)


Piece = Chunk | Problem
"""What a file is cut into."""


class Damage(Exception):
    """Reading a file ends here; what came before counts."""

    def __init__(self, reason: str, message: str, row: int = 0) -> None:
        super().__init__(message)
        self.reason, self.message, self.row = reason, message, row

    def problem(self, file: int) -> Problem:
        """What to say of the file with that number."""
        return Problem(file, self.row, self.reason, self.message, b"")


class File:
    """An input while it is read: what has been read of it is counted and hashed."""

    def __init__(self, item: Input) -> None:
        self.item, self.hash = item, hashlib.sha256()
        self.size, self.failed = 0, False
        self.file: Any = None
        self.status = (0, 0)  # size and time when it was opened

    def __enter__(self) -> File:
        try:
            self.file = _opened(self.item.where)
        except OSError as error:
            raise Damage("unreadable", cause(error)) from None
        self.status = self._status()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for at the end only."""
        try:
            data: bytes = self.file.read(size)
        except OSError as error:
            self.failed = True
            raise Damage("unreadable", cause(error)) from None
        self.hash.update(data)
        self.size += len(data)
        if self.size > self.item.bytes or (not data and self.size < self.item.bytes):
            raise self.changed()
        return data

    def read_rest(self) -> None:
        """Counts and hashes what is left, and fails where somebody has written to the file meanwhile."""
        while not self.failed and self.read(UNIT_BYTES):
            pass
        self.require_same()

    def is_same(self) -> bool:
        """Whether nobody has written to the file since it was opened."""
        return self._status() == self.status

    def require_same(self) -> None:
        """Fails where somebody has written to the file since it was opened."""
        if not self.is_same():
            raise self.changed()

    def changed(self) -> InvalidInput:
        """What to raise where the file is not what was listed."""
        size, _ = self._status()
        message = f"it had {self.item.bytes} bytes, and now has {size}"
        if size == self.item.bytes:
            message = f"it still has {size} bytes, but was written to"
        return InvalidInput(
            f"{self.item.where} changed while it was read: {message}: start again when nobody writes it"
        )

    def digest_after(self, before: Any) -> str:
        """SHA-256 over digests of earlier files and of what has been read of this one."""
        running = before.copy()
        running.update(self.hash.digest())
        digest: str = running.hexdigest()
        return digest

    def _status(self) -> tuple[int, int]:
        now = os.fstat(self.file.fileno())
        return now.st_size, now.st_mtime_ns


def list_inputs(recipe: Recipe, out: Path | None = None) -> list[Input]:
    """All files of a recipe in a fixed order: by source, then by path.

    What a glob finds in the run directory `out` is no input, or the set that a run writes would be one of the next.

    Files of sources are not opened: where the recipe is not strict, one that cannot be read is listed all the same.

    Raises:
        InvalidInput: If nothing matches a path, a path matches a file by two names, a file of a stage or a tokenizer
            cannot be read, or, where the recipe is strict, a file is not there or its format is not known.
    """
    found: list[Input] = []
    inside = lru_cache(os.path.realpath)
    for source in recipe.sources:
        matches = sorted(glob.glob(str(Path(glob.escape(str(recipe.base))) / source.path), recursive=True))
        if glob.has_magic(source.path):
            matches = [match for match in matches if not os.path.isdir(match)]
            if out is not None and (out / "journal.log").exists():
                folder = Path(os.path.realpath(out))
                matches = [m for m in matches if not Path(inside(os.path.dirname(m))).is_relative_to(folder)]
        if not matches:
            raise InvalidInput(f"source '{source.name}': no file matches {recipe.base / source.path}")
        places: dict[str, str] = {}
        for match in matches:
            head, tail = os.path.split(match)
            place = os.path.realpath(match) if os.path.islink(match) else os.path.join(inside(head), tail)
            if (other := places.setdefault(place, match)) is not match:
                raise InvalidInput(
                    f"source '{source.name}': {other} and {match} are the same file, and a file is read once: remove "
                    "the link, or write a path that does not match both"
                )
            where = Path(match)
            item = Input(source.name, _shown(where, recipe), where, format_of(where, source))
            if item.format == UNKNOWN and recipe.strict:
                raise InvalidInput(f"cannot tell the format of {where}: {format_advice(source)}")
            found.append(sized(item, strict=recipe.strict))
    for stage in recipe.stages:
        if isinstance(stage, Templates):
            for path in (stage.path, *stage.lexicons.values(), stage.rows):
                if path is not None:
                    where = recipe.base / path
                    found.append(_hashed(Input(stage.label, _shown(where, recipe), where, "")))
        elif isinstance(stage, Decontaminate | Overlap):
            texts = list_inputs(stage.reading(recipe), out)
            found += [_hashed(dataclasses.replace(item, format="")) for item in texts]
    if recipe.tokenizer != "default":
        where = recipe.base / recipe.tokenizer
        where = where / "tokenizer.json" if where.is_dir() else where
        found.append(_hashed(Input("tokenizer", _shown(where, recipe), where, "")))
    return found


def hash_file(where: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        InvalidInput: If it cannot be read.
    """
    try:
        with _opened(Path(where)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"cannot read {where}: {cause(error)}") from None


def complaint(problem: Problem, inputs: list[Input]) -> str:
    """What to say where a problem stops the run: names the file, and the line or row where there is one."""
    where = inputs[problem.file].where
    if problem.reason in ("unreadable", "truncated"):
        return f"cannot read {where}: {problem.message}"
    return f"{where}:{problem.row}: {problem.message}" if problem.row else f"{where}: {problem.message}"


def oversized(file: int, row: int, what: str, size: int | None, begin: bytes) -> Problem:
    """What to say of a record, or a part of one, that has too many bytes; `size` is None where nobody counted."""
    bulk = "is" if size is None else f"has {size} bytes,"
    message = f"the {what} {bulk} larger than the {MAX_RECORD} bytes that a record may have: split it or leave it out"
    return Problem(file, row, "oversized", message, begin[:SHOWN_BYTES])


def format_advice(source: Source) -> str:
    """What to do where the name of a file does not tell its format."""
    return f"say it as 'format: ...' in source '{source.name}'"


def cause(error: BaseException) -> str:
    """What an exception says, in one line and without a number or a path."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]


def format_of(where: Path, source: Source) -> str:
    """How to read a file: what the source says, or else the end of its name."""
    if source.format != "auto":
        return source.format
    suffixes = [suffix.lower() for suffix in where.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1], UNKNOWN) if suffixes else UNKNOWN


def _shown(where: Path, recipe: Recipe) -> str:
    if not where.is_absolute() or where.is_relative_to(recipe.base):
        where = Path(os.path.relpath(where, recipe.base))
    # A name that is not UTF-8 can stand in no journal: its bytes are shown as escapes.
    return os.fsencode(where.as_posix()).decode("utf-8", "backslashreplace")


def sized(item: Input, *, strict: bool) -> Input:
    """The input with the size that the file has now.

    Raises:
        InvalidInput: If it is strict and the file cannot be read.
    """
    try:
        status = item.where.stat()
        if strict and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "")
    except OSError as error:
        if strict:
            raise InvalidInput(f"cannot read {item.where}: {cause(error)}") from None
        return item
    return dataclasses.replace(item, bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _hashed(item: Input) -> Input:
    return dataclasses.replace(sized(item, strict=True), sha256=hash_file(item.where))


def _opened(where: Path) -> BufferedReader:
    # Asked before it is opened, which would wait for a writer where it is a pipe.
    kind = where.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError("it is no regular file")
    return open(where, "rb")
