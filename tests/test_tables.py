"""Lexicons and rows from files."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variegate.errors import InvalidInput
from variegate.templates import Grammar, read_lexicon, read_rows

WORDS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1).filter(str.strip)


@given(st.dictionaries(WORDS, st.integers(1, 99), min_size=1), st.booleans())
def test_a_lexicon_is_read_as_it_was_written(tmp_path_factory, weights, weighted):
    path = tmp_path_factory.mktemp("lexicon") / "words.txt"
    lines = [f"{text}\t{weight}" if weighted else text for text, weight in weights.items()]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    assert read_lexicon(path) == (weights if weighted else list(weights))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Rome\nOslo\t1\n", ":2: a lexicon gives all strings a weight, or none"),
        ("Rome\t5\nOslo\n", ":2: a lexicon gives all strings a weight, or none"),
        ("Rome\t0\n", ":1: the weight must be a whole number above 0 (it is '0')"),
        ("Rome\tmany\n", ":1: the weight must be a whole number above 0 (it is 'many')"),
        ("Rome\t1\nRome\t2\n", ":2: 'Rome' comes twice: give it one weight"),
        ("\n \n", ": a lexicon needs a string"),
    ],
)
def test_a_bad_lexicon_is_named(tmp_path, text, message):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(f"words.txt{message}")):
        read_lexicon(tmp_path / "words.txt")


def test_rows_keep_their_types(tmp_path):
    (tmp_path / "people.csv").write_text(
        "name,age,born,height,left\nAda,36,1815-12-10,1.65,true\n,41,1912-06-23,1.7,false\n"
    )
    columns = {
        "name": ["Ada", ""],
        "age": [36, 41],
        "born": [datetime.date(1815, 12, 10), datetime.date(1912, 6, 23)],
        "height": [Decimal("1.65"), Decimal("1.7")],
        "left": [True, False],
    }
    assert read_rows(tmp_path / "people.csv") == columns
    pq.write_table(pa.table(columns), tmp_path / "people.parquet")
    assert read_rows(tmp_path / "people.parquet") == columns
    (tmp_path / "people.jsonl").write_text('{"name": "Ada", "height": 1.65}\n\n{"name": "Alan", "height": 2}\n')
    assert read_rows(tmp_path / "people.jsonl") == {"name": ["Ada", "Alan"], "height": [Decimal("1.65"), Decimal(2)]}
    g = Grammar("x = {who=col:name}, {h=col:height}", rows=read_rows(tmp_path / "people.jsonl"))
    assert [g.nth(k).text for k in range(g.count())] == ["Ada, 1.65", "Alan, 2.00"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n,3\n", "a.csv: row 1 has no value in column 'x'"),
        ("a.csv", "", "a.csv: "),
        ("a.txt", "x", "a.txt: rows are read from a .csv, .jsonl or .parquet file"),
        ("a.parquet", "x", "a.parquet: "),
        ("a.jsonl", '{"x": 1}\n{"y": 1}\n', "a.jsonl:2: all rows must have the same columns ('x' is not in all)"),
        ("a.jsonl", "[1]", "a.jsonl:1: a row must be an object"),
        ("a.jsonl", "{", "a.jsonl:1: not JSON: "),
        ("a.jsonl", '{"x": null}', "a.jsonl: row 0 has no value in column 'x'"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        read_rows(tmp_path / name)
