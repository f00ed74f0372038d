"""Units: the files of sources in order, cut into pieces of a few megabytes, each of which becomes a part.

Cutting needs little parsing and depends on nothing but the content, so that parts are the same whoever reads them. No
more of a file is in memory than a unit and one record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from variegate.errors import InvalidInput
from variegate.recipe import Recipe, Source
from variegate.run import _columns as columns
from variegate.run import _inputs as inputs
from variegate.run import _lines as lines
from variegate.run._columns import Kept
from variegate.run._inputs import (
    EMPTY_FILE,
    UNKNOWN,
    Chunk,
    Damage,
    File,
    Input,
    Piece,
    Problem,
    complaint,
    format_advice,
)

__all__ = ["Unit", "kept_types", "units"]


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


def kept_types(recipe: Recipe, listed: list[Input]) -> dict[str, pa.DataType]:
    """Column types of the fields that sources keep; fields of JSON files are strings.

    A type is that of the first file that has the field, without dictionaries; files after it are not opened.

    Raises:
        InvalidInput: Where the recipe is strict, if a file that was opened cannot be used.
    """
    return {name: kind for name, (kind, _) in _kept(recipe, listed).items()}


def units(recipe: Recipe, listed: list[Input], digests: dict[int, str]) -> Iterator[Unit]:
    """The content of all sources in order, cut into units.

    Where the recipe is strict, the unit with the first problem of a file is the last one.

    Args:
        recipe: Says which sources there are.
        listed: All files of the recipe.
        digests: Gets the SHA-256 of each file, in hexadecimal, once it has been read to its end.

    Raises:
        InvalidInput: If a file has changed since it was listed, or no file of a source holds anything.
    """
    kept = _kept(recipe, listed)
    for source in recipe.sources:
        if (yield from _source_units(source, listed, kept, digests, strict=recipe.strict)):
            return


def _kept(recipe: Recipe, listed: list[Input]) -> Kept:
    """The type of each field that is kept, and the file that it comes from."""
    types: Kept = {}
    for source in recipe.sources:
        for index, item in enumerate(listed):
            missing = [name for name in source.keep if name not in types]
            if not missing:
                break
            if item.source != source.name or item.format in ("", UNKNOWN) or not item.bytes:
                continue
            if item.format == "jsonl":
                types.update(dict.fromkeys(missing, (pa.string(), item.path)))
                continue
            damage: Damage | None = None
            try:
                if item.format == "text":
                    raise _no_fields()
                fields = columns.fields(item)
            except Damage as error:
                damage, missing = error, []
            for name in missing:
                try:
                    types[name] = (columns.keepable(fields, name), item.path)
                except Damage as error:
                    damage = damage or error
            if damage is not None and recipe.strict:
                raise InvalidInput(complaint(damage.problem(index), listed))
    wanted = (name for source in recipe.sources for name in source.keep)
    return {name: types.get(name, (pa.string(), "")) for name in dict.fromkeys(wanted)}


def _source_units(
    source: Source,
    listed: list[Input],
    kept: Kept,
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
    for index, item in enumerate(listed):
        if item.source != source.name or not item.format:
            continue
        last = item
        file = File(item)
        for piece in _pieces(index, file, source, kept):
            if (chunks or problems) and (size + piece.bulk > inputs.UNIT_BYTES or (chunks and form != item.format)):
                yield Unit(source, form, chunks, problems, file.digest_after(before))
                chunks, problems, size = [], [], 0
            size += piece.bulk
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
        raise InvalidInput(f"source '{source.name}' gave no record: {complaint(found, listed)}")
    if chunks or problems:
        yield Unit(source, form, chunks, problems, before.hexdigest())
    return False


def _pieces(index: int, file: File, source: Source, kept: Kept) -> Iterator[Piece]:
    """What a file holds; one that holds nothing gives a problem that says so."""
    filled = False
    for piece in _read(index, file, source, kept):
        filled = True
        yield piece
    if not filled:
        yield Problem(index, 0, EMPTY_FILE, f"the file holds no record: {_emptiness(file.item)}", b"")


def _read(index: int, file: File, source: Source, kept: Kept) -> Iterator[Piece]:
    """What a file holds, to its end or to the damage that ends it, without what is blank."""
    try:
        with file:
            try:
                for piece in _cut(index, file, source, kept):
                    if isinstance(piece, Problem) or not _is_blank(piece.data):
                        yield piece
            except Damage as damage:
                yield damage.problem(index)
            file.read_rest()
    except Damage as damage:
        yield damage.problem(index)


def _cut(index: int, file: File, source: Source, kept: Kept) -> Iterator[Piece]:
    """A file in pieces, as its format asks."""
    form = file.item.format
    if form == UNKNOWN:
        raise Damage("unreadable", f"its name does not tell its format: {format_advice(source)}")
    if not file.item.bytes:
        return iter(())
    if form in ("parquet", "arrow"):
        return columns.pieces(index, file, source, kept)
    if form == "text" and source.keep:
        raise _no_fields()
    for name in source.keep:
        columns.same_type(name, pa.string(), kept)
    return lines.pieces(index, file, "line" if form == "jsonl" else source.split)


def _no_fields() -> Damage:
    return Damage("no_field", "a text file has no fields to keep")


def _is_blank(data: Any) -> bool:
    return data.isspace() if isinstance(data, bytes) else len(data) == 0


def _emptiness(item: Input) -> str:
    if not item.bytes:
        return "it is empty"
    return "it has no rows" if item.format in ("parquet", "arrow") else "it has only blank lines"
