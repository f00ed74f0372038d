"""Files of bytes: decompressed, told by their encoding, and cut where a line, a paragraph or the document ends.

No more of a file is in memory than a block and one record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from variegate.errors import InvalidInput
from variegate.run import _inputs as inputs
from variegate.run._inputs import COMPRESSIONS, SHOWN_BYTES, Chunk, Damage, File, Piece, cause, oversized

__all__ = ["blank_lines_end", "pieces"]

_FEED_BYTES = 16 << 10
"""Compressed bytes to decompress at a time: what comes before damage is lost by no more than this."""

_BOM = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"[ \t\r]*\n")
_PARAGRAPH_END = re.compile(rb"\n[ \t\r]*\n")
_BLANK_LINES = re.compile(rb"(?:[ \t\r]*\n)*")


def pieces(index: int, file: File, split: str) -> Iterator[Piece]:
    """The content of a file, cut where a line, a paragraph or the document ends, as `split` says."""
    cut = {"line": _lines, "paragraph": _paragraphs, "document": _document}[split]
    return cut(index, _utf8_blocks(file))


def blank_lines_end(data: bytes) -> int:
    """Where the blank lines that data begin with end."""
    match = _BLANK_LINES.match(data)
    return match.end() if match else 0


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
                if held + end > inputs.MAX_RECORD:
                    begin = skipped if skipped is not None else b"".join([*rest, data[:SHOWN_BYTES]])
                    yield oversized(index, row, "line", held + end, begin)
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
                if held > inputs.MAX_RECORD:
                    skipped, rest = b"".join(rest)[:SHOWN_BYTES], []
    except Damage as damage:
        raise _placed(damage, row) from None
    if skipped is not None:
        yield oversized(index, row, "line", held, skipped)
    elif held:
        yield Chunk(index, row, b"".join(rest))


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
                    blank = (blank or last > 0) and _is_blank(data[last:])
                    continue
                yield oversized(index, row, "paragraph", held + match.start(), rest)
                row += lines + data.count(b"\n", 0, match.end())
                data, rest, skipping = data[match.end() :], b"", False
            block = rest + data
            cut = _last_blank_line(block, len(rest))
            if not cut:
                rest = block
                bulk, most = len(block), inputs.MAX_RECORD
                if bulk > most and (bulk > most + inputs.UNIT_BYTES or len(block.rstrip()) > most):
                    skipping, held, lines, rest = True, bulk, block.count(b"\n"), block[:SHOWN_BYTES]
                    blank = _is_blank(block[block.rfind(b"\n") + 1 :])
                continue
            start = 0
            if cut > inputs.MAX_RECORD:
                # Only the first one can be too long: the others begin in this block.
                first = blank_lines_end(block)
                end = _PARAGRAPH_END.search(block, first)
                if end and len(block[first : end.start()].rstrip()) > inputs.MAX_RECORD:
                    row += block.count(b"\n", 0, first)
                    yield oversized(index, row, "paragraph", end.start() - first, block[first:])
                    row += block.count(b"\n", first, end.end())
                    start = end.end()
            rest = block[cut:]
            if cut > start:
                yield Chunk(index, row, block[start:cut])
                row += block.count(b"\n", start, cut)
    except Damage as damage:
        raise _placed(damage, row) from None
    if skipping:
        yield oversized(index, row, "paragraph", held, rest)
    elif rest:
        yield Chunk(index, row, rest)


def _document(index: int, blocks: Iterator[bytes]) -> Iterator[Piece]:
    """A file as one block."""
    pieces: list[bytes] = []
    size = 0
    try:
        for data in blocks:
            size += len(data)
            if size > inputs.MAX_RECORD:
                yield oversized(index, 1, "document", None, b"".join([*pieces, data]))
                return
            pieces.append(data)
    except Damage as damage:
        raise _placed(damage, 1) from None
    if pieces:
        yield Chunk(index, 1, b"".join(pieces))


def _placed(damage: Damage, row: int) -> Damage:
    """The same with its row; an encoding is one of the file as a whole."""
    if damage.reason == "encoding":
        return damage
    return Damage(damage.reason, damage.message.replace("{row}", str(row)), row)


def _last_blank_line(data: bytes, since: int) -> int:
    """The end of the last blank line that ends at `since` or later; 0 if there is none."""
    end = data.rfind(b"\n")
    while end >= since:
        start = data.rfind(b"\n", 0, end) + 1
        if _is_blank(data[start:end]):
            return end + 1
        end = start - 1
    return 0


def _is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r")


def _utf8_blocks(file: File) -> Iterator[bytes]:
    """The blocks of a text file without a byte order mark."""
    first = True
    for block in _blocks(file):
        if first:
            encoding = _encoding(block)
            if encoding is not None:
                advice = f"iconv -f {encoding} -t UTF-8"
                raise Damage("encoding", f"it seems to be {encoding}: convert it to UTF-8 ({advice})")
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


def _blocks(file: File) -> Iterator[bytes]:
    """What a file holds once it is decompressed, in blocks of `UNIT_BYTES` but for the last one."""
    codec = COMPRESSIONS.get(file.item.where.suffix.lower())
    if codec is None:
        while data := file.read(inputs.UNIT_BYTES):
            yield data
        return
    feed = _Feed(file)
    with pa.CompressedInputStream(pa.PythonFile(feed, mode="r"), codec) as stream:
        while True:
            block = bytearray(inputs.UNIT_BYTES)
            try:
                size = stream.readinto(block)
            except Exception as error:
                if feed.error is not None and not isinstance(feed.error, Damage):
                    raise feed.error from None
                # It does not say how much it has read. What it has not is zero, and so is nothing that ends a record.
                yield bytes(block).rstrip(b"\0")
                if feed.error is not None:
                    raise feed.error from None
                if feed.ended:
                    message = f"its {codec} data end too early, in row {{row}}: copy the file again"
                    raise Damage("truncated", message) from None
                message = f"its {codec} data are damaged in row {{row}}, or something else follows them"
                raise Damage("unreadable", f"{message}: {cause(error)}") from None
            if size == 0:
                return
            yield bytes(memoryview(block)[:size])


class _Feed:
    """The file object that a decompressor reads: gives little at a time, and keeps what went wrong."""

    closed = False

    def __init__(self, file: File) -> None:
        self.file, self.ended = file, False
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            data = self.file.read(min(size, _FEED_BYTES))
        except (Damage, InvalidInput) as error:
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
