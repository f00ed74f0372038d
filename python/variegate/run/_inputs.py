"""Reading sources: files in order, cut into units of a few megabytes, each of them a table or a problem a line.

Cutting needs little parsing and depends on nothing but the content, so that parts are the same whoever reads them. No
more of a file is in memory than a unit and one record, and no record is larger than `MAX_RECORD`. Files are hashed as
they are read. What cannot be read is a `Problem`; it is for the caller to say whether that stops the run.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate import _core, provenance
from variegate.errors import InvalidInput
from variegate.recipe import Recipe, Source, Templates
from variegate.run import _records as records

__all__ = ["Input", "Problem", "Unit", "complaint", "hash_file", "kept_types", "list_inputs", "parse", "rows", "units"]

UNIT_BYTES = 4 << 20
"""About how many bytes of input make a part."""

MAX_RECORD = 64 << 20
"""Bytes that a record may have; at least `UNIT_BYTES`."""

SHOWN_BYTES = 200
"""How much of a record that is too large goes into the ledger."""

ROWS_AT_ONCE = 8192
"""Most rows to take from a column file at a time: values that repeat may be small in the file and large in memory."""

FEED_BYTES = 16 << 10
"""Compressed bytes to decompress at a time: what comes before damage is lost by no more than this."""

EMPTY_FILE = "empty_file"
"""The reason of a ledger entry for a file among others that holds nothing; no error even where a recipe is strict."""

_UNKNOWN = "unknown"
"""The format of a file whose name does not tell."""
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
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"
# What pyarrow raises on damaged files: its own exceptions, and those of Python where a name or a number is nonsense.
_DAMAGE = (OSError, pa.ArrowException, EOFError, ValueError, OverflowError, MemoryError, LookupError)


@dataclass(frozen=True)
class Input:
    """A file that the output depends on.

    Attributes:
        source: Name of its source or stage.
        path: As the ledger and the manifest name it: relative to the recipe's folder where it lies below it.
        where: Where it is now.
        format: How to read it; empty for a grammar or a tokenizer.
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


class Problem(NamedTuple):
    """A record that could not be read, or a file; `row` is 0 where it is the file as a whole."""

    file: int
    row: int
    reason: str
    message: str
    raw: bytes


class Unit(NamedTuple):
    """What becomes one part: chunks of one source.

    Attributes:
        source: The source.
        format: Of the chunks.
        chunks: What to parse.
        problems: What was found wrong while the files were cut.
        digest: SHA-256, in hexadecimal, of what has been read of the source so far.
    """

    source: Source
    format: str
    chunks: list[Chunk]
    problems: list[Problem]
    digest: str


Parsed = tuple[dict[str, Any], npt.NDArray[np.int64], list[Problem]]
"""Columns (keys under ""), the row of each record, and what could not be read."""

Piece = Chunk | Problem


class _Damage(Exception):
    """Reading a file ends here; what came before counts."""

    def __init__(self, reason: str, message: str, row: int = 0) -> None:
        super().__init__(message)
        self.reason, self.message, self.row = reason, message, row


def list_inputs(recipe: Recipe, out: Path | None = None) -> list[Input]:
    """All files of a recipe in a fixed order: by source, then by path.

    What a glob finds in the run directory `out` is no input, or the set that a run writes would be one of the next.

    Files of sources are not opened: where the recipe is not strict, one that cannot be read is listed all the same.

    Raises:
        InvalidInput: If nothing matches a path, a grammar or tokenizer cannot be read, or, where the recipe is strict,
            a file is not there or its format is not known.
    """
    found: list[Input] = []
    for source in recipe.sources:
        matches = sorted(glob.glob(str(Path(glob.escape(str(recipe.base))) / source.path), recursive=True))
        if glob.has_magic(source.path):
            matches = [match for match in matches if not os.path.isdir(match)]
            if out is not None and (out / "journal.log").exists():
                folder, inside = Path(os.path.realpath(out)), lru_cache(os.path.realpath)
                matches = [m for m in matches if not Path(inside(os.path.dirname(m))).is_relative_to(folder)]
        if not matches:
            raise InvalidInput(f"source '{source.name}': no file matches {recipe.base / source.path}")
        for match in matches:
            where = Path(match)
            item = Input(source.name, _shown(where, recipe), where, _format(where, source))
            if item.format == _UNKNOWN and recipe.strict:
                raise InvalidInput(f"cannot tell the format of {where}: {_say_format(source)}")
            found.append(_sized(item, strict=recipe.strict))
    for stage in recipe.stages:
        if isinstance(stage, Templates) and stage.path is not None:
            where = recipe.base / stage.path
            found.append(_hashed(Input(stage.label, _shown(where, recipe), where, "")))
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
        raise InvalidInput(f"cannot read {where}: {_why(error)}") from None


def kept_types(recipe: Recipe, inputs: list[Input]) -> dict[str, pa.DataType]:
    """Column types of the fields that sources keep; fields of JSON files are strings.

    A type is that of the first file that has the field, without dictionaries; files after it are not opened.

    Raises:
        InvalidInput: Where the recipe is strict, if a file that was opened cannot be used.
    """
    return {name: kind for name, (kind, _) in _kept(recipe, inputs).items()}


def _kept(recipe: Recipe, inputs: list[Input]) -> dict[str, tuple[pa.DataType, str]]:
    """The type of each field that is kept, and the file that it comes from."""
    types: dict[str, tuple[pa.DataType, str]] = {}
    for source in recipe.sources:
        for index, item in enumerate(inputs):
            missing = [name for name in source.keep if name not in types]
            if not missing:
                break
            if item.source != source.name or not item.format or not item.bytes:
                continue
            if item.format == "jsonl":
                types.update(dict.fromkeys(missing, (pa.string(), item.path)))
                continue
            damage: _Damage | None = None
            try:
                fields = _fields(item)
            except _Damage as error:
                damage, missing = error, []
            for name in missing:
                try:
                    types[name] = (_keepable(fields, name), item.path)
                except _Damage as error:
                    damage = damage or error
            if damage is not None and recipe.strict:
                raise InvalidInput(complaint(_problem(index, damage), inputs))
    wanted = (name for source in recipe.sources for name in source.keep)
    return {name: types.get(name, (pa.string(), "")) for name in dict.fromkeys(wanted)}


def _fields(item: Input) -> list[pa.Field]:
    if item.format == "text":
        raise _no_fields()
    if item.format == _UNKNOWN:
        return []
    with _File(item):
        return list(_schema(item))


def units(recipe: Recipe, inputs: list[Input], digests: dict[int, str]) -> Iterator[Unit]:
    """The content of all sources in order, cut into units.

    Where the recipe is strict, the unit with the first problem of a file is the last one.

    Args:
        recipe: Says which sources there are.
        inputs: All files of the recipe.
        digests: Gets the SHA-256 of each file, in hexadecimal, once it has been read to its end.

    Raises:
        InvalidInput: If a file has changed since it was listed, or no file of a source holds anything.
    """
    kept = _kept(recipe, inputs)
    for source in recipe.sources:
        if (yield from _source_units(source, inputs, kept, digests, strict=recipe.strict)):
            return


def _source_units(
    source: Source,
    inputs: list[Input],
    kept: dict[str, tuple[pa.DataType, str]],
    digests: dict[int, str],
    *,
    strict: bool,
) -> Generator[Unit, None, bool]:
    """The units of a source; returns whether a problem ended them."""
    before = hashlib.sha256()
    chunks: list[Chunk] = []
    problems: list[Problem] = []
    size, form, last, filled = 0, "", None, False
    found: Problem | None = None
    for index, item in enumerate(inputs):
        if item.source != source.name or not item.format:
            continue
        last = item
        file = _File(item)
        for piece in _pieces(index, file, source, kept):
            bulk = _bulk(piece)
            if (chunks or problems) and (size + bulk > UNIT_BYTES or (chunks and form != item.format)):
                yield Unit(source, form, chunks, problems, file.digest_after(before))
                chunks, problems, size = [], [], 0
            size += bulk
            if isinstance(piece, Chunk):
                chunks.append(piece)
                form, filled = item.format, True
                continue
            problems.append(piece)
            if piece.reason != EMPTY_FILE:
                found = found or piece
                if strict:
                    yield Unit(source, form, chunks, problems, file.digest_after(before))
                    return True
        digests[index] = file.hash.hexdigest()
        before.update(file.hash.digest())
    if not filled and last is not None:
        if found is None:
            raise InvalidInput(f"{last.where} holds no record: {_emptiness(last)}")
        raise InvalidInput(f"source '{source.name}' gave no record: {complaint(found, inputs)}")
    if chunks or problems:
        yield Unit(source, form, chunks, problems, before.hexdigest())
    return False


def _bulk(piece: Piece) -> int:
    if isinstance(piece, Problem):
        return 256 + len(piece.raw)
    return len(piece.data) if isinstance(piece.data, bytes) else int(piece.data.nbytes)


def _pieces(index: int, file: _File, source: Source, kept: dict[str, tuple[pa.DataType, str]]) -> Iterator[Piece]:
    """What a file holds; one that holds nothing gives a problem that says so."""
    filled = False
    try:
        with file:
            try:
                for piece in _cut(index, file, source, kept):
                    if isinstance(piece, Problem) or not _is_blank(piece.data):
                        filled = True
                        yield piece
            except _Damage as damage:
                filled = True
                yield _problem(index, damage)
            file.read_rest()
    except _Damage as damage:
        filled = True
        yield _problem(index, damage)
    if not filled:
        yield Problem(index, 0, EMPTY_FILE, f"the file holds no record: {_emptiness(file.item)}", b"")


def _problem(index: int, damage: _Damage) -> Problem:
    return Problem(index, damage.row, damage.reason, damage.message, b"")


def _is_blank(data: Any) -> bool:
    return data.isspace() if isinstance(data, bytes) else len(data) == 0


def _emptiness(item: Input) -> str:
    if not item.bytes:
        return "it is empty"
    return "it has no rows" if item.format in ("parquet", "arrow") else "it has only blank lines"


def complaint(problem: Problem, inputs: list[Input]) -> str:
    """What to say where a problem stops the run: names the file, and the line or row where there is one."""
    where = inputs[problem.file].where
    if problem.reason in ("unreadable", "truncated"):
        return f"cannot read {where}: {problem.message}"
    return f"{where}:{problem.row}: {problem.message}" if problem.row else f"{where}: {problem.message}"


def _opened(where: Path) -> BufferedReader:
    # Asked before it is opened, which would wait for a writer where it is a pipe.
    kind = where.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError("it is no regular file")
    return open(where, "rb")


class _File:
    """An input while it is read: what has been read of it is counted and hashed."""

    def __init__(self, item: Input) -> None:
        self.item, self.hash = item, hashlib.sha256()
        self.size = 0
        self.file: Any = None
        self.failed = False

    def __enter__(self) -> _File:
        try:
            self.file = _opened(self.item.where)
        except OSError as error:
            raise _Damage("unreadable", _why(error)) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for at the end only."""
        try:
            data: bytes = self.file.read(size)
        except OSError as error:
            self.failed = True
            raise _Damage("unreadable", _why(error)) from None
        self.hash.update(data)
        self.size += len(data)
        if self.size > self.item.bytes or (not data and self.size < self.item.bytes):
            raise self.changed()
        return data

    def read_rest(self) -> None:
        """Counts and hashes what is left."""
        while not self.failed and self.read(UNIT_BYTES):
            pass

    def changed(self) -> InvalidInput:
        """What to raise where the file is not what was listed."""
        size = os.fstat(self.file.fileno()).st_size
        message = f"it had {self.item.bytes} bytes, and now has {size}"
        if size == self.item.bytes:
            message = f"it still has {size} bytes, but not the same ones"
        return InvalidInput(
            f"{self.item.where} changed while it was read: {message}: start again when nobody writes it"
        )

    def version(self) -> tuple[int, int]:
        """Differs where somebody has written to the file."""
        now = os.fstat(self.file.fileno())
        return now.st_size, now.st_mtime_ns

    def digest_after(self, before: Any) -> str:
        """SHA-256 over digests of earlier files and of what has been read of this one."""
        running = before.copy()
        running.update(self.hash.digest())
        digest: str = running.hexdigest()
        return digest


def _cut(index: int, file: _File, source: Source, kept: dict[str, tuple[pa.DataType, str]]) -> Iterator[Piece]:
    """A file in pieces, as its format asks."""
    form = file.item.format
    if form == _UNKNOWN:
        raise _Damage("unreadable", f"its name does not tell its format: {_say_format(source)}")
    if not file.item.bytes:
        return iter(())
    if form in ("parquet", "arrow"):
        return _rows(index, file, source, kept)
    if form == "text" and source.keep:
        raise _no_fields()
    for name in source.keep:
        _same_type(name, pa.string(), kept)
    blocks = _utf8_blocks(file)
    if form == "jsonl" or source.split == "line":
        return _lines(index, blocks)
    return _paragraphs(index, blocks) if source.split == "paragraph" else _document(index, blocks)


def _blocks(file: _File) -> Iterator[bytes]:
    """What a file holds once it is decompressed, in blocks of `UNIT_BYTES` but for the last one."""
    codec = _COMPRESSIONS.get(file.item.where.suffix.lower())
    if codec is None:
        while data := file.read(UNIT_BYTES):
            yield data
        return
    feed = _Feed(file)
    with pa.CompressedInputStream(pa.PythonFile(feed, mode="r"), codec) as stream:
        while True:
            block = bytearray(UNIT_BYTES)
            try:
                size = stream.readinto(block)
            except Exception as error:
                if feed.error is not None and not isinstance(feed.error, _Damage):
                    raise feed.error from None
                # It does not say how much it has read. What it has not is zero, and so is nothing that ends a record.
                yield bytes(block).rstrip(b"\0")
                if feed.error is not None:
                    raise feed.error from None
                if feed.ended:
                    message = f"its {codec} data end too early, in row {{row}}: copy the file again"
                    raise _Damage("truncated", message) from None
                message = f"its {codec} data are damaged in row {{row}}, or something else follows them: {_why(error)}"
                raise _Damage("unreadable", message) from None
            if size == 0:
                return
            yield bytes(memoryview(block)[:size])


class _Feed:
    """The file object that a decompressor reads: gives little at a time, and keeps what went wrong."""

    closed = False

    def __init__(self, file: _File) -> None:
        self.file, self.ended = file, False
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            data = self.file.read(min(size, FEED_BYTES))
        except (_Damage, InvalidInput) as error:
            self.error = error
            raise
        self.ended = not data
        return data

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _utf8_blocks(file: _File) -> Iterator[bytes]:
    """The blocks of a text file without a byte order mark."""
    first = True
    for block in _blocks(file):
        if first:
            encoding = _encoding(block)
            if encoding is not None:
                advice = f"iconv -f {encoding} -t UTF-8"
                raise _Damage("encoding", f"it seems to be {encoding}: convert it to UTF-8 ({advice})")
            block, first = block.removeprefix(_BOM), False
        if block:
            yield block


def _encoding(head: bytes) -> str | None:
    """The encoding that the first bytes of a file show where it is not UTF-8."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    # Without a mark: the high bytes of most characters are zero, and their low bytes never are.
    cells = np.frombuffer(head[:4096], np.uint8)
    zero = cells[: len(cells) // 4 * 4].reshape(-1, 4) == 0
    if not zero.any():
        return None
    if not zero[:, 0].any() and zero[:, 2:].all():
        return "UTF-32LE"
    if not zero[:, 3].any() and zero[:, :2].all():
        return "UTF-32BE"
    low, high = zero[:, 0::2], zero[:, 1::2]
    if not low.any() and high.mean() > 0.3:
        return "UTF-16LE"
    if not high.any() and low.mean() > 0.3:
        return "UTF-16BE"
    return None


def _lines(index: int, blocks: Iterator[bytes]) -> Iterator[Piece]:
    """Blocks that end where a line does."""
    row = 1
    rest: list[bytes] = []  # the beginning of a line that has not ended yet
    held = 0
    skipped: bytes | None = None  # its beginning, where it is too long to keep; `held` bytes have passed
    try:
        for data in blocks:
            start = 0
            cut = data.rfind(b"\n") + 1
            if cut and held:
                end = data.find(b"\n")
                if held + end > MAX_RECORD:
                    begin = skipped if skipped is not None else b"".join([*rest, data[:SHOWN_BYTES]])
                    yield _oversized(index, row, "line", held + end, begin)
                    row, start, rest, skipped = row + 1, end + 1, [], None
            if cut > start:
                block = b"".join([*rest, memoryview(data)[start:cut]])
                yield Chunk(index, row, block)
                row += int(np.count_nonzero(np.frombuffer(block, np.uint8) == 10))  # faster than count
            if cut:
                rest, held = [data[cut:]], len(data) - cut
                continue
            held += len(data)
            if skipped is None:
                rest.append(data)
                if held > MAX_RECORD:
                    skipped, rest = b"".join(rest)[:SHOWN_BYTES], []
    except _Damage as damage:
        raise _placed(damage, row) from None
    if skipped is not None:
        yield _oversized(index, row, "line", held, skipped)
    elif held:
        yield Chunk(index, row, b"".join(rest))


_BLANK_LINE = re.compile(rb"[ \t\r]*\n")
_BLANK_LINES = re.compile(rb"(?:[ \t\r]*\n)*")
_PARAGRAPH_END = re.compile(rb"\n[ \t\r]*\n")
_BREAKS = re.compile(rb"\n(?:[ \t\r]*\n)+|\Z")


def _paragraphs(index: int, blocks: Iterator[bytes]) -> Iterator[Piece]:
    """Blocks that end with a blank line."""
    row = 1
    rest = b""  # the beginning of a paragraph that has not ended yet
    skipping, held, lines, blank = False, 0, 0, True  # of one too long to keep; `blank`: its last line, so far
    try:
        for data in blocks:
            if skipping:
                match = _BLANK_LINE.match(data) if blank else None
                match = match or _PARAGRAPH_END.search(data)
                if match is None:
                    held, lines = held + len(data), lines + data.count(b"\n")
                    last = data.rfind(b"\n") + 1
                    blank = (blank or last > 0) and not data[last:].strip(b" \t\r")
                    continue
                yield _oversized(index, row, "paragraph", held + match.start(), rest)
                row += lines + data.count(b"\n", 0, match.end())
                data, rest, skipping = data[match.end() :], b"", False
            block = rest + data
            cut = _last_blank_line(block, len(rest))
            if not cut:
                rest = block
                bulk = len(block)
                if bulk > MAX_RECORD and (bulk > MAX_RECORD + UNIT_BYTES or len(block.rstrip()) > MAX_RECORD):
                    skipping, held, lines, rest = True, bulk, block.count(b"\n"), block[:SHOWN_BYTES]
                    blank = not block[block.rfind(b"\n") + 1 :].strip(b" \t\r")
                continue
            start = 0
            if cut > MAX_RECORD:
                # Only the first one can be too long: the others begin in this block.
                first = _BLANK_LINES.match(block)
                end = _PARAGRAPH_END.search(block, first.end() if first else 0)
                if first and end and len(block[first.end() : end.start()].rstrip()) > MAX_RECORD:
                    row += block.count(b"\n", 0, first.end())
                    yield _oversized(index, row, "paragraph", end.start() - first.end(), block[first.end() :])
                    row += block.count(b"\n", first.end(), end.end())
                    start = end.end()
            rest = block[cut:]
            if cut > start:
                yield Chunk(index, row, block[start:cut])
                row += block.count(b"\n", start, cut)
    except _Damage as damage:
        raise _placed(damage, row) from None
    if skipping:
        yield _oversized(index, row, "paragraph", held, rest)
    elif rest:
        yield Chunk(index, row, rest)


def _last_blank_line(data: bytes, since: int) -> int:
    """The end of the last blank line that ends at `since` or later; 0 if there is none."""
    end = data.rfind(b"\n")
    while end >= since:
        start = data.rfind(b"\n", 0, end) + 1
        if not data[start:end].strip(b" \t\r"):
            return end + 1
        end = start - 1
    return 0


def _document(index: int, blocks: Iterator[bytes]) -> Iterator[Piece]:
    """A file as one block."""
    pieces: list[bytes] = []
    size = 0
    try:
        for data in blocks:
            size += len(data)
            if size > MAX_RECORD:
                yield _oversized(index, 1, "document", None, b"".join([*pieces, data]))
                return
            pieces.append(data)
    except _Damage as damage:
        raise _placed(damage, 1) from None
    if pieces:
        yield Chunk(index, 1, b"".join(pieces))


def _placed(damage: _Damage, row: int) -> _Damage:
    if damage.reason == "encoding":
        return damage
    return _Damage(damage.reason, damage.message.replace("{row}", str(row)), row)


def _oversized(index: int, row: int, what: str, size: int | None, begin: bytes) -> Problem:
    bulk = "is" if size is None else f"has {size} bytes,"
    message = f"the {what} {bulk} larger than the {MAX_RECORD} bytes that a record may have: split it or leave it out"
    return Problem(index, row, "oversized", message, begin[:SHOWN_BYTES])


def _rows(index: int, file: _File, source: Source, kept: dict[str, tuple[pa.DataType, str]]) -> Iterator[Piece]:
    """The rows of a Parquet or Arrow file, in batches whose columns are those that the source names."""
    file.read_rest()
    version = file.version()
    fields = list(_schema(file.item))
    text = _needed(fields, source.text)
    if not _is_text(text):
        raise _Damage("wrong_type", f"field '{source.text}' must be a string, not {text}")
    if source.id is not None and not _is_key(key := _needed(fields, source.id)):
        raise _Damage("wrong_type", f"field '{source.id}' must be a string or an integer, not {key}")
    for name in source.keep:
        _same_type(name, _keepable(fields, name), kept)
    wanted = list(dict.fromkeys([source.text, *([source.id] if source.id else []), *source.keep]))

    def detached(batch: pa.RecordBatch) -> pa.RecordBatch:
        if file.item.format == "parquet":
            return batch
        if file.version() != version:
            raise file.changed()
        return _copy(batch)

    batches = _parquet_batches if file.item.format == "parquet" else _arrow_batches
    for piece in batches(index, file, wanted):
        if file.version() != version:
            raise file.changed()
        if isinstance(piece, Problem):
            yield piece
            continue
        yield from _slices(piece, detached)
    if file.version() != version:
        raise file.changed()


def _parquet_batches(index: int, file: _File, wanted: list[str]) -> Iterator[Piece]:
    """Rows by row group; a damaged one is a problem at the row where the damage is, and reading goes on after it."""
    with _damage(), pa.OSFile(str(file.item.where)) as raw, _parquet(raw) as parquet:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
        bulk, total = sum(group.total_byte_size for group in groups), sum(group.num_rows for group in groups)
        at_once = max(1, min(ROWS_AT_ONCE, UNIT_BYTES * total // max(1, bulk)))
        row = 1
        for number, group in enumerate(groups):
            end = row + max(0, group.num_rows)
            why = "there are fewer of them than the file says"
            try:
                batches = parquet.iter_batches(at_once, row_groups=[number], columns=wanted, use_threads=False)
                while (batch := next(batches, None)) is not None:
                    # The decoder checks all that it decodes, but not the codes of what is to stay a dictionary.
                    if all(_is_sound(column) for column in batch.columns if _has_dictionary(column.type)):
                        yield Chunk(index, row, _selected(batch, wanted))
                    else:
                        yield _contradiction(index, row, len(batch))
                    row += len(batch)
            except _DAMAGE as error:
                why = _why(error)
            if row < end:
                message = f"rows {row} to {end - 1} cannot be read: {why}"
                yield Problem(index, row, "unreadable", message, b"")
                row = end


def _arrow_batches(index: int, file: _File, wanted: list[str]) -> Iterator[Piece]:
    """Rows by record batch, mapped into memory; they must be copied before anybody else gets them.

    A batch that is not compressed takes no memory, so that one may be of any size; of those that are, one is in memory.
    """
    version = file.version()
    with _damage(), pa.memory_map(str(file.item.where)) as mapped:
        row = 1
        with _arrow_reader(mapped) as reader:
            heads = {_find(list(reader.schema), name)[0][0] for name in wanted}  # type: ignore[index]
            if isinstance(reader, pa.RecordBatchFileReader):
                stream = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                stream = iter(reader)
            while True:
                if file.version() != version:
                    return  # to touch what was cut off would end the process
                try:
                    batch = next(stream, None)
                except _DAMAGE as error:
                    message = f"rows from {row} on cannot be read: {_why(error)}"
                    raise _Damage("unreadable", message, row) from None
                if batch is None:
                    break
                if len(batch):
                    if all(_is_sound(batch.column(i)) for i in heads):
                        yield Chunk(index, row, _selected(batch, wanted))
                    else:
                        yield _contradiction(index, row, len(batch))
                row += len(batch)
            if not isinstance(reader, pa.RecordBatchFileReader) and mapped.size() > 8:
                mapped.seek(mapped.size() - 8)
                if not mapped.read(8).endswith(b"\0\0\0\0"):
                    message = f"it ends without the mark that ends a stream, at row {row}: write it again"
                    raise _Damage("truncated", message, row)


def _contradiction(index: int, row: int, rows: int) -> Problem:
    message = f"rows {row} to {row + rows - 1} cannot be read: their data contradict themselves"
    return Problem(index, row, "unreadable", message, b"")


def _is_sound(column: pa.Array) -> bool:
    """Whether a column can be used at all; strings may be anything."""
    for kind in (column.type, _bytes_type(column.type)):
        try:
            column.view(kind).validate(full=True)
            return True
        except _DAMAGE:
            pass
    return False


def _slices(chunk: Chunk, detached: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Iterator[Piece]:
    """A batch in pieces of about `UNIT_BYTES`; a record with a value that is too large is a problem."""
    batch = chunk.data
    if batch.nbytes <= UNIT_BYTES:
        yield chunk._replace(data=detached(batch))
        return
    lengths = {name: _lengths(batch[name]) for name in batch.schema.names if _is_text(batch[name].type)}
    weights = sum(lengths.values(), np.zeros(len(batch)))
    weights += max(0, batch.nbytes - weights.sum()) / len(batch)
    large = np.zeros(len(batch), bool)
    for values in lengths.values():
        large |= values > MAX_RECORD
    at = np.flatnonzero(large)
    cuts = np.flatnonzero(np.diff(np.cumsum(weights * ~large) // UNIT_BYTES)) + 1
    bounds = np.unique(np.concatenate([[0], cuts, at, at + 1, [len(batch)]])).tolist()
    for start, end in pairwise(bounds):
        row = chunk.row + start
        piece = batch.slice(start, end - start)
        if large[start]:
            name = next(name for name in lengths if lengths[name][start] > MAX_RECORD)
            yield _oversized(chunk.file, row, f"field '{name}'", int(lengths[name][start]), _bytes(piece[name], 0))
        else:
            yield Chunk(chunk.file, row, detached(piece))


def _copy(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that shares no memory with the one it came from."""
    arrays = [column.cast(_plain_type(column.type)) if _has_views(column.type) else column for column in batch.columns]
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays(arrays, batch.schema.names)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def _selected(batch: pa.RecordBatch, wanted: list[str]) -> pa.RecordBatch:
    """The named fields of a batch, those inside of structs too."""
    arrays = []
    for name in wanted:
        path, _ = _find(list(batch.schema), name) or ((), None)
        array = batch.column(path[0])
        arrays.append(pc.struct_field(array, list(path[1:])) if path[1:] else array)
    return pa.RecordBatch.from_arrays(arrays, wanted)


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each string."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _lengths(column.storage)
    if pa.types.is_dictionary(kind):
        inner = _lengths(column.dictionary)
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return inner[codes] if len(inner) else np.zeros(len(codes), np.int64)
    if _is_view(kind):
        cells = np.frombuffer(column.buffers()[1] or b"", np.int32)[column.offset * 4 :][: len(column) * 4]
        return cells[::4].astype(np.int64)
    lengths = pc.fill_null(pc.binary_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def _bytes(column: pa.Array, row: int) -> bytes:
    """The beginning of a string, be it one or not."""
    cell = column.take(pa.array([row]))
    cell = cell.storage if isinstance(cell.type, pa.BaseExtensionType) else cell
    cell = cell.dictionary_decode() if pa.types.is_dictionary(cell.type) else cell
    value = cell.view(_bytes_type(cell.type))[0]
    return bytes(value.as_buffer()) if value.is_valid else b""


def _schema(item: Input) -> pa.Schema:
    with _damage():
        if item.format == "parquet":
            with pa.OSFile(str(item.where)) as raw, _parquet(raw) as parquet:
                schema = parquet.schema_arrow
        else:
            with pa.OSFile(str(item.where)) as raw, _arrow_reader(raw) as reader:
                schema = reader.schema
        for field in schema:
            _read_names(field)
        return schema


def _read_names(field: pa.Field) -> None:
    """Fails where a name is not UTF-8, as asking for it would later."""
    _ = field.name
    for i in range(field.type.num_fields):
        _read_names(field.type.field(i))


def _parquet(raw: Any) -> pq.ParquetFile:
    # Buffered: a column of a row group is read a piece at a time instead of whole.
    return pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 18, page_checksum_verification=True)


def _arrow_reader(raw: Any) -> Any:
    try:
        return pa.ipc.open_file(raw)
    except pa.ArrowInvalid:
        raw.seek(0)
        return pa.ipc.open_stream(raw)


@contextmanager
def _damage() -> Iterator[None]:
    """Says of what pyarrow raises that the file is damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise _Damage("unreadable", _why(error)) from None


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find(fields: list[pa.Field], name: str) -> tuple[tuple[int, ...], pa.DataType] | None:
    """Where a field is, and its type: one of that name, or one inside of structs that dots lead to."""
    names = [field.name for field in fields]
    if names.count(name) > 1:
        raise _Damage("schema", f"it has two fields '{name}': rename one")
    if name in names:
        return (names.index(name),), fields[names.index(name)].type
    head, _, rest = name.partition(".")
    if rest and names.count(head) == 1 and pa.types.is_struct(kind := fields[names.index(head)].type):
        inner = _find([kind.field(i) for i in range(kind.num_fields)], rest)
        if inner is not None:
            return (names.index(head), *inner[0]), inner[1]
    return None


def _needed(fields: list[pa.Field], name: str) -> pa.DataType:
    """The type of a field that must be there."""
    found = _find(fields, name)
    if found is None:
        there = ", ".join(f"'{field.name}'" for field in fields[:5]) or "no columns"
        raise _Damage("no_field", f"no field '{name}' (it has {there}{', ...' if len(fields) > 5 else ''})")
    return found[1]


def _keepable(fields: list[pa.Field], name: str) -> pa.DataType:
    """The type that a field is kept as."""
    kind = _needed(fields, name)
    stored = _stored(kind)
    if stored is None:
        message = f"field '{name}' has type {kind}, which Parquet cannot hold: leave it out of 'keep'"
        raise _Damage("wrong_type", message)
    return stored


def _no_fields() -> _Damage:
    return _Damage("no_field", "a text file has no fields to keep")


def _same_type(name: str, kind: pa.DataType, kept: dict[str, tuple[pa.DataType, str]]) -> None:
    first, path = kept[name]
    if _plain_type(first, wide=False) != _plain_type(kind, wide=False):
        raise _Damage("schema", f"field '{name}' is {kind} here, but {first} in {path}: give it one type")


@lru_cache(maxsize=1024)
def _stored(kind: pa.DataType) -> pa.DataType | None:
    """The type that a column comes back with from the files between stages; None if they cannot hold it."""
    kind = _plain_type(kind)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"x": pa.nulls(0, kind)}), sink)
        stored: pa.DataType = pq.read_schema(pa.BufferReader(sink.getvalue())).field(0).type
    except _DAMAGE:
        return None
    return stored


@lru_cache(maxsize=4096)
def _plain_type(kind: pa.DataType, *, wide: bool = True) -> pa.DataType:
    """A type without dictionaries and views, and without names that mean nothing; without large ones unless `wide`."""
    types = pa.types

    def inner(of: pa.Field, name: str | None = None) -> pa.Field:
        return pa.field(of.name if name is None else name, _plain_type(of.type, wide=wide))

    if types.is_dictionary(kind):
        return _plain_type(kind.value_type, wide=wide)
    if types.is_struct(kind):
        return pa.struct([inner(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type, wide=wide), _plain_type(kind.item_type, wide=wide))
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field, "item"), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind) or _is_kind(kind, "list_view", "large_list_view"):
        large = wide and (types.is_large_list(kind) or _is_kind(kind, "large_list_view"))
        return (pa.large_list if large else pa.list_)(inner(kind.value_field, "item"))
    if _is_kind(kind, "string_view") or (types.is_large_string(kind) and not wide):
        return pa.string()
    if _is_kind(kind, "binary_view") or (types.is_large_binary(kind) and not wide):
        return pa.binary()
    return kind


@lru_cache(maxsize=4096)
def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """A type of the same layout with bytes for strings."""
    types = pa.types

    def inner(of: pa.Field) -> pa.Field:
        return of.with_type(_bytes_type(of.type))

    if types.is_string(kind):
        return pa.binary()
    if types.is_large_string(kind):
        return pa.large_binary()
    if _is_kind(kind, "string_view"):
        return pa.binary_view()
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _bytes_type(kind.value_type), kind.ordered)
    if types.is_struct(kind):
        return pa.struct([inner(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.large_list if types.is_large_list(kind) else pa.list_)(inner(kind.value_field))
    return kind


def _is_kind(kind: pa.DataType, *names: str) -> bool:
    """Whether a type is one of those that older versions of pyarrow do not have."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def _is_view(kind: pa.DataType) -> bool:
    return _is_kind(kind, "string_view", "binary_view")


@lru_cache(maxsize=4096)
def _has_views(kind: pa.DataType) -> bool:
    if _is_view(kind) or _is_kind(kind, "list_view", "large_list_view"):
        return True
    return any(_has_views(kind.field(i).type) for i in range(kind.num_fields))


@lru_cache(maxsize=4096)
def _has_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)) or _is_kind(kind, "string_view")


def _is_key(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def rows(item: Input) -> int | None:
    """Rows of a Parquet file by what it says itself; None if it cannot be read."""
    try:
        with _File(item), _damage(), pa.OSFile(str(item.where)) as raw, _parquet(raw) as parquet:
            return int(parquet.metadata.num_rows)
    except _Damage:
        return None


def parse(unit: Unit, inputs: list[Input], like: pa.Schema) -> tuple[pa.Table, list[Problem]]:
    """The records of a unit, without tokens, and what could not be read, both in the order of the files."""
    tables, problems = [], list(unit.problems)
    for chunk in unit.chunks:
        reader = {"jsonl": _parse_jsonl, "text": _parse_text}.get(unit.format, _parse_rows)
        columns, rows, bad = reader(unit.source, chunk)
        problems.extend(bad)
        if len(rows):
            tables.append(_identified(unit.source, inputs[chunk.file], chunk.file, columns, rows, like))
    problems.sort(key=lambda problem: problem[:2])
    return (pa.concat_tables(tables) if tables else like.empty_table()), problems


def _identified(
    source: Source, item: Input, file: int, columns: dict[str, Any], rows: npt.NDArray[np.int64], like: pa.Schema
) -> pa.Table:
    content = records.ragged(columns["text"])
    key = columns.pop("", None)
    identity = provenance.source_record_ids(source.name, key, content=content, file=item.path, row=rows)
    constant = {
        "record_id": records.id_column(identity),
        "id": pa.array(provenance.source_ids(source.name, content if key is None else key)),
        "parents": pa.ListArray.from_arrays(pa.array(np.zeros(len(rows) + 1, np.int32)), pa.array([], records.ID)),
        "source": source.name,
        "license": source.license,
        "kind": source.kind,
        "generation": source.generation,
        "generator": source.generator,
        "generator_terms": source.generator_terms,
        "file": file,
        "row": pa.array(rows),
    }
    return records.table({**columns, **constant}, like, len(rows))


def _parse_jsonl(source: Source, chunk: Chunk) -> Parsed:
    wanted = [
        (source.text, "text"),
        *([(source.id, "key")] if source.id else []),
        *((name, "any") for name in source.keep),
    ]
    scan = _core.jsonl_scan(chunk.data, wanted)
    fields = scan["fields"]
    columns: dict[str, Any] = {"text": records.strings(*fields[0][:2])}
    if source.id:
        columns[""] = fields[1][:2]
    for name, (values, offsets, present) in zip(source.keep, fields[2 if source.id else 1 :], strict=True):
        columns[records.KEPT + name] = records.strings(values, offsets, present)
    problems = [
        Problem(chunk.file, chunk.row + line, reason, message, chunk.data[start:end])
        for line, start, end, reason, message in scan["problems"]
    ]
    return columns, scan["lines"] + chunk.row, problems


def _parse_text(source: Source, chunk: Chunk) -> Parsed:
    data: bytes = chunk.data
    problems: list[Problem] = []
    if source.split == "line" and _is_utf8(data) and b"\0" not in data:
        values = np.frombuffer(data, np.uint8)
        inner = values != 10
        inner[:-1] &= (values[:-1] != 13) | inner[1:]
        ends = np.flatnonzero(values == 10)
        if data and data[-1] != 10:
            ends = np.append(ends, len(data))
        offsets = np.concatenate([[0], np.cumsum(inner)[ends - 1] * (ends > 0)]).astype(np.int64)
        texts = records.strings(values[inner], offsets)
        filled = np.flatnonzero(np.asarray(pc.not_equal(pc.ascii_trim_whitespace(texts), "")))
        return {"text": texts.take(pa.array(filled))}, filled.astype(np.int64) + chunk.row, problems
    if source.split == "line":
        spans = [(line, piece.removesuffix(b"\r")) for line, piece in enumerate(data.split(b"\n"))]
    elif source.split == "paragraph":
        first = _BLANK_LINES.match(data)
        at = first.end() if first else 0
        spans, line = [], data.count(b"\n", 0, at)
        for match in _BREAKS.finditer(data, at):
            spans.append((line, data[at : match.start()].strip(b"\r\n")))
            line += data.count(b"\n", at, match.end())
            at = match.end()
    else:
        spans = [(0, data)]
    kept, rows = [], []
    for line, piece in spans:
        if not piece.strip():
            continue
        nul = piece.find(b"\0")
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            place = f"invalid UTF-8 at byte {error.start + 1} of the {source.split}"
            problems.append(Problem(chunk.file, chunk.row + line, "invalid_utf8", place, piece))
            continue
        if nul >= 0:
            place = f"a NUL byte at byte {nul + 1} of the {source.split}: the file is damaged, or no text"
            problems.append(Problem(chunk.file, chunk.row + line, "nul_byte", place, piece))
            continue
        kept.append(text)
        rows.append(chunk.row + line)
    return {"text": pa.array(kept, pa.string())}, np.array(rows, np.int64), problems


def _parse_rows(source: Source, chunk: Chunk) -> Parsed:
    data: pa.RecordBatch = chunk.data
    rows = np.arange(chunk.row, chunk.row + len(data), dtype=np.int64)
    problems: dict[int, Problem] = {}

    def drop(found: Iterator[tuple[int, str, str, bytes]]) -> None:
        nonlocal data, rows
        good = np.ones(len(rows), bool)
        for at, reason, message, raw in found:
            row = int(rows[at])
            problems.setdefault(row, Problem(chunk.file, row, reason, message, raw))
            good[at] = False
        if not good.all():
            data, rows = data.filter(pa.array(good)), rows[good]

    for name in data.schema.names:
        drop(_invalid_utf8(name, data[name]))
    for name in (source.text, *([source.id] if source.id else [])):
        wanted = "a string" if name == source.text else "a string or an integer"
        message = f"field '{name}' must be {wanted}, not null"
        nulls = np.flatnonzero(np.asarray(_plain(data[name]).is_null())).tolist()
        drop((at, "wrong_type", message, b"") for at in nulls)
    columns: dict[str, Any] = {"text": _plain(data[source.text]).cast(pa.string())}
    if source.id:
        columns[""] = records.ragged(_plain(data[source.id]).cast(pa.string()))
    for name in source.keep:
        columns[records.KEPT + name] = _plain(data[name])
    return columns, rows, list(problems.values())


def _invalid_utf8(name: str, column: pa.Array) -> Iterator[tuple[int, str, str, bytes]]:
    """Row, reason, message and bytes of what is not UTF-8: files of columns do not check."""
    try:
        _plain(column).validate(full=True)
        return
    except _DAMAGE:
        pass
    for row in range(len(column)):
        try:
            _plain(column.take(pa.array([row]))).validate(full=True)
            continue
        except _DAMAGE:
            raw, place = b"", ""
        if _is_text(column.type):
            raw = _bytes(column, row)
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                place = f" at byte {error.start + 1}"
        yield row, "invalid_utf8", f"invalid UTF-8{place} of field '{name}'", raw


def _plain(column: pa.Array) -> pa.Array:
    """A column without dictionaries and views."""
    kind = _plain_type(column.type)
    return column if column.type == kind else column.cast(kind)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _format(where: Path, source: Source) -> str:
    if source.format != "auto":
        return source.format
    suffixes = [suffix.lower() for suffix in where.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1], _UNKNOWN) if suffixes else _UNKNOWN


def _say_format(source: Source) -> str:
    return f"say it as 'format: ...' in source '{source.name}'"


def _shown(where: Path, recipe: Recipe) -> str:
    if not where.is_absolute() or where.is_relative_to(recipe.base):
        where = Path(os.path.relpath(where, recipe.base))
    # A name that is not UTF-8 can stand in no journal: its bytes are shown as escapes.
    return os.fsencode(where.as_posix()).decode("utf-8", "backslashreplace")


def _sized(item: Input, *, strict: bool) -> Input:
    try:
        status = item.where.stat()
        if strict and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "")
    except OSError as error:
        if strict:
            raise InvalidInput(f"cannot read {item.where}: {_why(error)}") from None
        return item
    return dataclasses.replace(item, bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _hashed(item: Input) -> Input:
    return dataclasses.replace(_sized(item, strict=True), sha256=hash_file(item.where))
