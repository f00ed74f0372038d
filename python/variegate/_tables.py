"""Files of what grammars draw from: lexicons and rows of columns."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from variegate.errors import InvalidInput


def read_lexicon(path: str | os.PathLike[str]) -> list[str] | dict[str, int]:
    r"""Reads a lexicon for `Grammar` from a UTF-8 file: a string a line, or a string, a tab and its weight.

    Empty lines are passed over. Weights are whole numbers; either all lines have one or none has.

    Returns:
        The strings in their order; as a mapping to their weights where they have some.

    Raises:
        InvalidInput: Names the file and the line: no UTF-8, no weight or no whole one, a string that comes twice; or
            there is no string at all.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "cities.tsv")
        >>> _ = path.write_text("Rome\t5\nOslo\t1\n")
        >>> read_lexicon(path)
        {'Rome': 5, 'Oslo': 1}
    """
    path = os.fspath(path)
    strings: list[str] = []
    weights: dict[str, int] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        text, tab, weight = line.partition("\t")
        if (strings or weights) and bool(weights) != bool(tab):
            raise InvalidInput(f"{path}:{number}: a lexicon gives all strings a weight, or none")
        if not tab:
            strings.append(text)
            continue
        if not (weight.isascii() and weight.isdigit() and int(weight) > 0):
            raise InvalidInput(f"{path}:{number}: the weight must be a whole number above 0 (it is '{weight}')")
        if text in weights:
            raise InvalidInput(f"{path}:{number}: '{text}' comes twice: give it one weight")
        weights[text] = int(weight)
    if not strings and not weights:
        raise InvalidInput(f"{path}: a lexicon needs a string")
    return weights or strings


def read_rows(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Reads columns for `Grammar` from a CSV (with a header), JSONL or Parquet file, by the ending of its name.

    Whole numbers, truth values, dates and strings stay what they are; other numbers become `decimal.Decimal`, as they
    are written. In CSV a column has the type that all its cells can be read as; JSON has no dates.

    Returns:
        The columns by name, all of one length.

    Raises:
        InvalidInput: Names the file and the place: another ending, no such table, a cell without a value.
        OSError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    path = os.fspath(path)
    ending = Path(path).suffix.lower()
    if ending == ".jsonl":
        columns = _json_columns(path)
    elif ending in (".csv", ".parquet"):
        with open(path, "rb") as file:  # an error of the system keeps its kind
            try:
                if ending == ".csv":
                    options = pa.csv.ConvertOptions(strings_can_be_null=False, decimal_point=".")
                    table = pa.csv.read_csv(file, convert_options=options)
                else:
                    table = pa.parquet.read_table(file)
            except pa.ArrowInvalid as error:
                raise InvalidInput(f"{path}: {error}") from None
        columns = {name: table[name].to_pylist() for name in table.column_names}
    else:
        raise InvalidInput(f"{path}: rows are read from a .csv, .jsonl or .parquet file")
    for name, values in columns.items():
        for row, value in enumerate(values):
            if value is None:
                raise InvalidInput(f"{path}: row {row} has no value in column '{name}'")
        if {type(value) for value in values} in ({float}, {Decimal}, {float, int}, {Decimal, int}):
            columns[name] = [Decimal(repr(value) if isinstance(value, float) else value) for value in values]
    return columns


def _json_columns(path: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    rows = 0
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise InvalidInput(f"{path}:{number}: a row must be an object")
        if not rows:
            columns = {name: [] for name in record}
        if record.keys() != columns.keys():
            odd = sorted(record.keys() ^ columns.keys())[0]
            raise InvalidInput(f"{path}:{number}: all rows must have the same columns ('{odd}' is not in all)")
        for name, value in record.items():
            columns[name].append(value)
        rows += 1
    return columns


def _text(path: str) -> str:
    with open(path, "rb") as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 (byte {error.start})") from None
