"""Parsing units: a table of the records in one, and a problem for each line or row that holds none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import _core, provenance
from variegate.provenance.records import Ragged
from variegate.recipe import Source
from variegate.run import _arrow as arrow
from variegate.run import _records as records
from variegate.run._inputs import Chunk, Input, Problem
from variegate.run._lines import blank_lines_end
from variegate.run._units import Unit

__all__ = ["parse", "texts"]

_BREAKS = re.compile(rb"\n(?:[ \t\r]*\n)+|\Z")


def parse(unit: Unit, listed: list[Input], like: pa.Schema) -> tuple[pa.Table, list[Problem]]:
    """The records of a unit, without tokens, and what could not be read, both in the order of the files."""
    tables, problems = [], list(unit.problems)
    for chunk in unit.chunks:
        parsed = _parse_chunk(unit, chunk)
        problems.extend(parsed.problems)
        if len(parsed.rows):
            tables.append(_identified(unit.source, listed[chunk.file], chunk.file, parsed, like))
    problems.sort(key=lambda problem: problem[:2])
    return (pa.concat_tables(tables) if tables else like.empty_table()), problems


def texts(unit: Unit) -> tuple[list[tuple[int, pa.Array, npt.NDArray[np.int64]]], list[Problem]]:
    """File, texts and rows of each chunk of a unit, and what could not be read, as `parse` has them."""
    found, problems = [], list(unit.problems)
    for chunk in unit.chunks:
        parsed = _parse_chunk(unit, chunk)
        problems.extend(parsed.problems)
        found.append((chunk.file, parsed.columns["text"], parsed.rows))
    problems.sort(key=lambda problem: problem[:2])
    return found, problems


class _Parsed(NamedTuple):
    """What a chunk holds: columns, the row of each record, what could not be read, and keys if the source has them."""

    columns: dict[str, Any]
    rows: npt.NDArray[np.int64]
    problems: list[Problem]
    keys: Ragged | None = None


def _parse_chunk(unit: Unit, chunk: Chunk) -> _Parsed:
    reader = {"jsonl": _parse_jsonl, "text": _parse_text}.get(unit.format, _parse_rows)
    return reader(unit.source, chunk)


def _identified(source: Source, item: Input, file: int, parsed: _Parsed, like: pa.Schema) -> pa.Table:
    """A table of what was parsed, with ids and what the source says of all of its records."""
    columns, rows, _, keys = parsed
    content = records.ragged(columns["text"])
    identity = provenance.source_record_ids(source.name, keys, content=content, file=item.path, row=rows)
    constant = {
        "record_id": records.id_column(identity),
        "id": pa.array(provenance.source_ids(source.name, content if keys is None else keys)),
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


def _parse_jsonl(source: Source, chunk: Chunk) -> _Parsed:
    wanted = [
        (source.text, "text"),
        *([(source.id, "key")] if source.id else []),
        *((name, "any") for name in source.keep),
    ]
    scan = _core.jsonl_scan(chunk.data, wanted)
    fields = scan["fields"]
    columns: dict[str, Any] = {"text": records.strings(*fields[0][:2])}
    keys = fields[1][:2] if source.id else None
    for name, (values, offsets, present) in zip(source.keep, fields[2 if source.id else 1 :], strict=True):
        columns[records.KEPT + name] = records.strings(values, offsets, present)
    problems = [
        Problem(chunk.file, chunk.row + line, reason, message, chunk.data[start:end])
        for line, start, end, reason, message in scan["problems"]
    ]
    return _Parsed(columns, scan["lines"] + chunk.row, problems, keys)


def _parse_text(source: Source, chunk: Chunk) -> _Parsed:
    if source.split == "line" and b"\0" not in chunk.data and _is_utf8(chunk.data):
        column, filled = _sound_lines(chunk.data)
        return _Parsed({"text": column}, filled + chunk.row, [])
    texts: list[str] = []
    rows: list[int] = []
    problems: list[Problem] = []
    for line, piece in _spans(chunk.data, source.split):
        if not piece.strip():
            continue
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            reason, message = "invalid_utf8", f"invalid UTF-8 at byte {error.start + 1} of the {source.split}"
        else:
            nul = piece.find(b"\0")
            if nul < 0:
                texts.append(text)
                rows.append(chunk.row + line)
                continue
            place = f"a NUL byte at byte {nul + 1} of the {source.split}"
            reason, message = "nul_byte", f"{place}: the file is damaged, or no text"
        problems.append(Problem(chunk.file, chunk.row + line, reason, message, piece))
    return _Parsed({"text": pa.array(texts, pa.string())}, np.array(rows, np.int64), problems)


def _sound_lines(data: bytes) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The lines of UTF-8 without NUL bytes that are not blank, and the number of each, from 0."""
    values = np.frombuffer(data, np.uint8)
    inner = values != 10
    inner[:-1] &= (values[:-1] != 13) | inner[1:]
    ends = np.flatnonzero(values == 10)
    if data and data[-1] != 10:
        ends = np.append(ends, len(data))
    offsets = np.concatenate([[0], np.cumsum(inner)[ends - 1] * (ends > 0)]).astype(np.int64)
    texts = records.strings(values[inner], offsets)
    filled = np.flatnonzero(np.asarray(pc.not_equal(pc.ascii_trim_whitespace(texts), "")))
    return texts.take(pa.array(filled)), filled.astype(np.int64)


def _spans(data: bytes, split: str) -> Iterator[tuple[int, bytes]]:
    """The lines, paragraphs or document in data, and the line that each begins with, from 0."""
    if split == "line":
        for line, piece in enumerate(data.split(b"\n")):
            yield line, piece.removesuffix(b"\r")
    elif split == "paragraph":
        at = blank_lines_end(data)
        line = data.count(b"\n", 0, at)
        for match in _BREAKS.finditer(data, at):
            yield line, data[at : match.start()].strip(b"\r\n")
            line += data.count(b"\n", at, match.end())
            at = match.end()
    else:
        yield 0, data


def _parse_rows(source: Source, chunk: Chunk) -> _Parsed:
    data: pa.RecordBatch = chunk.data
    rows = np.arange(chunk.row, chunk.row + len(data), dtype=np.int64)
    problems: list[Problem] = []

    def drop(found: Iterator[tuple[int, str, str, bytes]]) -> None:
        nonlocal data, rows
        good = np.ones(len(rows), bool)
        for at, reason, message, raw in found:
            problems.append(Problem(chunk.file, int(rows[at]), reason, message, raw))
            good[at] = False
        if not good.all():
            data, rows = data.filter(pa.array(good)), rows[good]

    for name in data.schema.names:
        drop(_invalid_utf8(name, data[name]))
    for name in (source.text, *([source.id] if source.id else [])):
        wanted = "a string" if name == source.text else "a string or an integer"
        message = f"field '{name}' must be {wanted}, not null"
        nulls = np.flatnonzero(np.asarray(arrow.plain(data[name]).is_null())).tolist()
        drop((at, "wrong_type", message, b"") for at in nulls)
    columns: dict[str, Any] = {"text": arrow.plain(data[source.text]).cast(pa.string())}
    keys = records.ragged(arrow.plain(data[source.id]).cast(pa.string())) if source.id else None
    for name in source.keep:
        columns[records.KEPT + name] = arrow.plain(data[name])
    return _Parsed(columns, rows, problems, keys)


def _invalid_utf8(name: str, column: pa.Array) -> Iterator[tuple[int, str, str, bytes]]:
    """Row, reason, message and bytes of what is not UTF-8: files of columns do not check."""
    if arrow.is_valid(arrow.plain, column):
        return
    for row in range(len(column)):
        if arrow.is_valid(_cell, column, row):
            continue
        raw, place = b"", ""
        if arrow.is_text(column.type):
            raw = arrow.string_bytes(column, row)
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                place = f" at byte {error.start + 1}"
        yield row, "invalid_utf8", f"invalid UTF-8{place} of field '{name}'", raw


def _cell(column: pa.Array, row: int) -> pa.Array:
    return arrow.plain(column.take(pa.array([row])))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
