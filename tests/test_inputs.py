import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import recipe as recipes
from variegate.errors import InvalidInput
from variegate.run import _inputs, _parse, _records, _units, check, plan, run


@pytest.fixture
def small(monkeypatch):
    """Units and records of a few kilobytes, so that small files have many of one and too large ones of the other."""
    monkeypatch.setattr(_inputs, "UNIT_BYTES", 1000)
    monkeypatch.setattr(_inputs, "MAX_RECORD", 3000)


def source(folder, path, *, strict=False, **fields):
    """A recipe with one source."""
    return recipes.Recipe.model_validate(
        {"version": 1, "strict": strict, "sources": [{"name": "s", "path": str(folder / path), **fields}]}
    )


class Read:
    """All that a source gives, and the file each of it comes from."""

    def __init__(self, recipe):
        self.inputs = _inputs.list_inputs(recipe)
        self.like = _records.schema(_units.kept_types(recipe, self.inputs), tokens=False, spans=False)
        self.digests, tables, self.problems = {}, [self.like.empty_table()], []
        self.units = list(_units.units(recipe, self.inputs, self.digests))
        for unit in self.units:
            table, problems = _parse.parse(unit, self.inputs, self.like)
            table.validate(full=True)
            tables.append(table)
            self.problems += problems
        self.table = pa.concat_tables(tables)
        self.texts = self.table["text"].to_pylist()
        self.rows = self.table["row"].to_pylist()
        names = [item.where.name for item in self.inputs]
        self.entries = [(names[p.file], p.row, p.reason) for p in self.problems]
        for index, item in enumerate(self.inputs):
            if item.where.is_file() and os.access(item.where, os.R_OK) and not recipe.strict:
                assert self.digests[index] == _inputs.hash_file(item.where)

    def kept(self, name):
        return self.table[_records.KEPT + name].to_pylist()


def refusal(recipe):
    """What a strict run says."""
    out = Path(recipe.sources[0].path).parent / "refused"
    with pytest.raises(InvalidInput) as caught:
        run(recipe, out)
    assert not out.exists()
    return str(caught.value)


def jsonl(*texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


GOOD = jsonl("one", "two")

BAD_FILES = {
    "UTF-16 with a mark": (jsonl("x").decode().encode("utf-16"), 0, "encoding", "it seems to be UTF-16: convert"),
    "UTF-16, big, with a mark": (b"\xfe\xff\0{\0}", 0, "encoding", "it seems to be UTF-16: convert"),
    "UTF-16 without a mark": (jsonl("x").decode().encode("utf-16-le"), 0, "encoding", "seems to be UTF-16LE"),
    "UTF-16, big, without a mark": (jsonl("x").decode().encode("utf-16-be"), 0, "encoding", "seems to be UTF-16BE"),
    "UTF-32 with a mark": (jsonl("x").decode().encode("utf-32"), 0, "encoding", "it seems to be UTF-32: convert"),
    "UTF-32 without a mark": (jsonl("x").decode().encode("utf-32-le"), 0, "encoding", "seems to be UTF-32LE"),
    "UTF-32, big, without a mark": (jsonl("x").decode().encode("utf-32-be"), 0, "encoding", "seems to be UTF-32BE"),
    "Latin-1": ('{"text": "é"}\n'.encode("latin-1"), 1, "invalid_utf8", "invalid UTF-8 at byte 11 of the line"),
    "NUL bytes": (b'{"text": "a\0b"}\n', 1, "invalid_json", "control character"),
    "a hole": (b"\0" * 500 + b"\n", 1, "invalid_json", "invalid JSON at column"),
    "deep nesting": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 1, "wrong_type", "not a list"),
    "deep nesting without an end": (b'{"text": ' + b"[" * 100_000 + b"\n", 1, "invalid_json", "EOF"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_text_is_an_entry_and_costs_nothing_else(case, tmp_path):
    data, row, reason, message = BAD_FILES[case]
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(data + (GOOD if row else b""))
    (tmp_path / "c.jsonl").write_bytes(GOOD)
    read = Read(source(tmp_path, "*.jsonl"))
    assert read.texts == ["one", "two"] * (3 if row else 2)
    assert read.entries == [("b.jsonl", row, reason)]
    assert message in read.problems[0].message
    said = refusal(source(tmp_path, "*.jsonl", strict=True))
    assert said.startswith(f"{tmp_path / 'b.jsonl'}:{row}: " if row else f"{tmp_path / 'b.jsonl'}: ")
    assert said.endswith(read.problems[0].message)


def test_what_is_fine_is_taken(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + f'{{"x": {deep}, "text": "deep"}}'.encode())
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfmarked")
    read = Read(source(tmp_path, "a.jsonl", keep=["x"], strict=True))
    assert (read.texts, read.kept("x"), read.problems) == (["one", "two", "deep"], [None, None, deep], [])
    assert Read(source(tmp_path, "b.txt", strict=True)).texts == ["marked"]


def test_text_with_nul_bytes_is_an_entry(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\nba\0d\nbad\n\nfine\n")
    place = {"line": (3, ["good", "bad", "fine"]), "paragraph": (3, ["good", "fine"]), "document": (1, [])}
    for split, (row, texts) in place.items():
        (tmp_path / "b.txt").write_bytes(b"also")
        read = Read(source(tmp_path, "*.txt", split=split))
        assert read.texts == [*texts, "also"]
        assert read.entries == [("a.txt", row, "nul_byte")]
        assert "NUL byte at byte" in read.problems[0].message


# Records that are too large.


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_lines_are_skipped_where_they_are_too_long(compress, tmp_path):
    name = "a.jsonl" if compress(b"") == b"" else "a.jsonl.gz"
    frame = len(jsonl("")) - 1
    sizes = [1, 10, 2999 - frame, 3000 - frame, 3001 - frame, 5, 10_000, 2500, 2500, 9_000, 1, 4000]
    lines = [jsonl("x" * size) for size in sizes]
    for end in (b"\n", b""):
        (tmp_path / name).write_bytes(compress(b"".join(lines).removesuffix(b"\n") + end))
        read = Read(source(tmp_path, name))
        expected = [(row, size) for row, size in enumerate(sizes, 1) if size + frame <= 3000]
        assert list(zip(read.rows, map(len, read.texts), strict=True)) == expected
        assert read.entries == [(name, row, "oversized") for row in (5, 7, 10, 12)]
        assert f"the line has {10_000 + frame} bytes, larger than the 3000 bytes" in read.problems[1].message
        assert read.problems[1].raw == lines[6][:200]
    assert f"{name}:5: the line has" in refusal(source(tmp_path, name, strict=True))


@pytest.mark.usefixtures("small")
@given(data=st.data())
@examples(60)
def test_paragraphs_do_not_depend_on_where_blocks_end(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("p")
    breaks = st.sampled_from(["\n\n", "\r\n\r\n", "\n \t\n", "\n\n\n", "\n" + " " * 1200 + "\n"])
    inner = st.sampled_from(["a", "b c", "x" * 300, "\n", "y\n", " z", "w" * 950, "\r\n"])
    pieces = st.lists(st.tuples(st.lists(inner, min_size=1, max_size=14).map("".join), breaks), max_size=6)
    text = data.draw(st.sampled_from(["", "\n", " \n"])) + "".join(a + b for a, b in data.draw(pieces)) + "end"
    (folder / "a.txt").write_bytes(text.encode())
    expected, row = {}, 1
    lines = [*text.split("\n"), ""]
    for number, line in enumerate(lines, 1):
        if not line.strip(" \t\r"):
            part = "\n".join(lines[row - 1 : number - 1]).strip("\r\n")
            if part.strip():
                expected[row] = part
            row = number + 1
    read = Read(source(folder, "a.txt", split="paragraph"))
    found = dict(zip(read.rows, read.texts, strict=True))
    large = {row for _, row, _ in read.entries}
    assert {reason for _, _, reason in read.entries} <= {"oversized"}
    assert found.keys() | large == expected.keys()
    assert all(found[row] == expected[row] for row in found)
    assert all((row in large) == (len(part.rstrip()) > 3000) for row, part in expected.items())


@pytest.mark.usefixtures("small")
def test_paragraphs_are_skipped_where_they_are_too_long(tmp_path):
    text = "a\n\n" + "b" * 2999 + "\n\nc\n\n" + "d\n" * 4000 + " \t\n\ne\n\n" + "f" * 3001
    (tmp_path / "a.txt").write_text(text)
    read = Read(source(tmp_path, "a.txt", split="paragraph"))
    assert [text[:1] for text in read.texts] == ["a", "b", "c", "e"]
    assert read.rows == [1, 3, 5, 4009]
    assert read.entries == [("a.txt", 7, "oversized"), ("a.txt", 4011, "oversized")]
    assert read.problems[0].raw == b"d\n" * 100


@pytest.mark.usefixtures("small")
def test_documents_are_skipped_where_they_are_too_long(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 3000)
    (tmp_path / "b.txt").write_text("b" * 30_001)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"c" * 100_000))
    (tmp_path / "d.txt").write_text("d")
    read = Read(source(tmp_path, "*"))
    assert [text[0] for text in read.texts] == ["a", "d"]
    assert read.entries == [("b.txt", 1, "oversized"), ("c.txt.gz", 1, "oversized")]
    assert {problem.raw for problem in read.problems} == {b"b" * 200, b"c" * 200}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_cells_are_skipped_where_they_are_too_large(name, kind, tmp_path):
    texts = ["a", "b" * 3000, "c" * 3001, "d", "e" * 9000, "f" * 1500, "g" * 1500]
    table = pa.table({"text": pa.array(texts).cast(kind), "id": range(7), "k": ["x"] * 6 + ["y" * 4000]})
    write_table(table, tmp_path / name)
    read = Read(source(tmp_path, name, id="id"))
    assert [text[0] for text in read.texts] == list("abdfg")
    assert read.rows == [1, 2, 4, 6, 7]
    assert read.entries == [(name, 3, "oversized"), (name, 5, "oversized")]
    assert (read.problems[0].raw, "field 'text' has 3001" in read.problems[0].message) == (b"c" * 200, True)
    read = Read(source(tmp_path, name, keep=["k"]))
    assert [row for _, row, _ in read.entries] == [3, 5, 7]


PEAK = """
import resource, sys
from variegate import recipe as recipes
from variegate.run import _inputs, _units
recipe = recipes.loads(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
listed = _inputs.list_inputs(recipe)
found = [(len(unit.chunks), [(p.row, p.reason) for p in unit.problems]) for unit in _units.units(recipe, listed, {})]
print(found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_line_of_any_length_takes_bounded_memory(tmp_path):
    with open(tmp_path / "a.jsonl", "wb") as file:
        file.write(GOOD)
        file.truncate(300 << 20)  # a hole: zeros that take no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + GOOD)
    text = f"{{version: 1, strict: false, sources: [{{name: s, path: {tmp_path / 'a.jsonl'}}}]}}"
    done = subprocess.run([sys.executable, "-c", PEAK, text], capture_output=True, text=True, timeout=60, check=True)
    found, megabytes = done.stdout.rsplit(" ", 1)
    assert found == "[(2, [(3, 'oversized')])]"
    assert int(megabytes) < 100


# Compressed files.

TEXT = b"".join(jsonl(f"{n} {n * 7919 % 1000}") for n in range(2000))


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


CODECS = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize("suffix", CODECS)
def test_cut_streams_are_read_up_to_the_cut(suffix, tmp_path):
    text = b"".join(jsonl(f"{n} {n * 7919 % 100_003}") for n in range(30_000))
    whole = CODECS[suffix](text)
    (tmp_path / "z.jsonl").write_bytes(GOOD)
    name = f"a.jsonl.{suffix}"
    counts = []
    for cut in [1, 2, 9, 17, 18, 500, len(whole) // 2, len(whole) - 9, len(whole) - 1]:
        (tmp_path / name).write_bytes(whole[:cut])
        read = Read(source(tmp_path, "*.*"))
        rows = len(read.texts) - 2
        assert text.startswith(jsonl(*read.texts[:-2]))
        assert read.entries == [(name, rows + 1, "truncated")]
        counts.append(rows)
        said = refusal(source(tmp_path, "*.*", strict=True))
        assert said == f"cannot read {tmp_path / name}: {read.problems[0].message}"
        assert f"data end too early, in row {rows + 1}: copy the file again" in said
    assert counts == sorted(counts)
    assert counts[-1] > 25_000
    assert counts[6] > 5_000


@pytest.mark.parametrize("suffix", CODECS)
def test_every_member_is_read_and_what_follows_the_last_is_an_entry(suffix, tmp_path):
    compress, name = CODECS[suffix], f"a.jsonl.{suffix}"
    members = compress(TEXT[:30_000]) + compress(b"") + compress(TEXT[30_000:])
    (tmp_path / name).write_bytes(members)
    read = Read(source(tmp_path, name, strict=True))
    assert (jsonl(*read.texts), read.problems) == (TEXT, [])
    for garbage in (b"\0" * 40, b"garbage!" * 10_000, b"\n"):
        (tmp_path / name).write_bytes(members + garbage)
        read = Read(source(tmp_path, name))
        assert jsonl(*read.texts) == TEXT
        assert [(row, reason) for _, row, reason in read.entries] in ([(2001, "unreadable")], [(2001, "truncated")])
        assert refusal(source(tmp_path, name, strict=True)).startswith(f"cannot read {tmp_path / name}: ")


@pytest.mark.parametrize("split", ["line", "paragraph", "document"])
def test_a_cut_record_is_none(split, tmp_path):
    words = [f"{n} {n * 7919 % 1000}" for n in range(9000)]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(words).encode())[:-9000])
    (tmp_path / "b.txt").write_text("fine")
    read = Read(source(tmp_path, "*", split=split))
    assert read.texts[-1] == "fine"
    assert read.texts[:-1] == words[: len(read.texts) - 1]
    assert (len(read.texts) > 1000) == (split != "document")
    assert read.entries == [("a.txt.gz", 1 if split == "document" else 2 * len(read.texts) - 1, "truncated")]


# Files of columns.


def write_table(table, path, **more):
    if path.suffix == ".parquet":
        pq.write_table(table, path, **more)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, more.get("row_group_size"))
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, more.get("row_group_size"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_bad_column_files_are_entries(suffix, tmp_path):
    good = pa.table({"text": ["one", "two"], "id": [1, 2], "year": [3, 4]})
    tables = {
        "a": good,
        "b": good.drop_columns(["text"]),
        "c": good.drop_columns(["id"]),
        "d": good.drop_columns(["year"]),
        "e": good.set_column(0, "text", pa.array([1, 2])),
        "f": good.set_column(0, "text", pa.array([["x"], ["y"]])),
        "g": good.set_column(0, "text", pa.array([{"x": "y"}, {"x": "z"}])),
        "h": good.set_column(1, "id", pa.array([1.5, 2.5])),
        "i": good.set_column(2, "year", pa.array(["3", "4"])),
        "j": pa.table([["a"], ["b"], [1], [2]], names=["text", "text", "id", "year"]),
        "l": pa.table({"text": ["three", None], "id": [3, 4], "year": [5, None]}),
    }
    for name, table in tables.items():
        write_table(table, tmp_path / f"{name}.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"k.{suffix}").write_bytes(whole[:-20] + b"\xff" * 20)
    (tmp_path / f"m.{suffix}").write_bytes(b"")
    asked = {"id": "id", "keep": ["year"]}
    read = Read(source(tmp_path, f"*.{suffix}", **asked))
    assert (read.texts, read.kept("year")) == (["one", "two", "three"], [3, 4, 5])
    found = [(name[0], row, reason) for name, row, reason in read.entries]
    assert found == [
        ("b", 0, "no_field"),
        ("c", 0, "no_field"),
        ("d", 0, "no_field"),
        ("e", 0, "wrong_type"),
        ("f", 0, "wrong_type"),
        ("g", 0, "wrong_type"),
        ("h", 0, "wrong_type"),
        ("i", 0, "schema"),
        ("j", 0, "schema"),
        ("k", 0, "unreadable"),
        ("l", 2, "wrong_type"),
        ("m", 0, "empty_file"),
    ]
    messages = dict(zip([name for name, _, _ in found], [p.message for p in read.problems], strict=True))
    assert messages["b"] == "no field 'text' (it has 'id', 'year')"
    assert messages["f"].startswith("field 'text' must be a string, not list<")
    assert f"field 'year' is string here, but int64 in {tmp_path.as_posix()}/a.{suffix}" in messages["i"]
    for name, message in messages.items():
        if name not in "am":
            said = refusal(source(tmp_path, f"[{name.replace('i', 'ai')}].{suffix}", strict=True, **asked))
            assert f"{name}.{suffix}" in said
            assert said.endswith(message)


def test_one_damaged_page_costs_the_rest_of_its_row_group(tmp_path):
    table = pa.table({"text": [f"{n} " + "x" * 90 for n in range(3000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"1500 x") if b"1500 x" in data else len(data) // 2] ^= 255
    path.write_bytes(data)
    read = Read(source(tmp_path, "a.parquet"))
    assert read.rows == [*range(1, 1001), *range(2001, 3001)]
    assert read.entries == [("a.parquet", 1001, "unreadable")]
    assert "rows 1001 to 2000 cannot be read: " in read.problems[0].message
    assert "rows 1001 to 2000" in refusal(source(tmp_path, "a.parquet", strict=True))


def test_a_cut_stream_of_batches_is_read_up_to_the_cut(tmp_path):
    table = pa.table({"text": [f"{n} " + "x" * 90 for n in range(3000)]})
    path = tmp_path / "a.stream.arrow"
    write_table(table, tmp_path / "a.stream", row_group_size=1000)
    whole = (tmp_path / "a.stream").read_bytes()
    for cut in (8, 4, 100, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        read = Read(source(tmp_path, "*.arrow"))
        assert len(read.texts) in (1000, 2000, 3000)
        ((_, row, reason),) = read.entries
        assert (row, reason in ("truncated", "unreadable")) == (len(read.texts) + 1, True)
    path.write_bytes(whole)
    assert Read(source(tmp_path, "*.arrow", strict=True)).rows == list(range(1, 3001))


def test_contradicting_arrow_data_cost_their_batch(tmp_path):
    table = pa.table({"text": ["word"] * 300})
    path = tmp_path / "a.arrow"
    write_table(table, path, row_group_size=100)
    data = bytearray(path.read_bytes())
    offsets = np.arange(0, 404, 4, dtype=np.int32).tobytes()
    second = data.index(offsets, data.index(offsets) + 1)
    data[second + 40 : second + 44] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    read = Read(source(tmp_path, "a.arrow"))
    assert read.rows == [*range(1, 101), *range(201, 301)]
    assert read.entries == [("a.arrow", 101, "unreadable")]


def test_codes_without_a_meaning_cost_their_batch(tmp_path):
    path = tmp_path / "a.parquet"
    text = pa.array(["a", "b", "c"] * 20).dictionary_encode()
    pq.write_table(pa.table({"text": text}), path, row_group_size=20, compression="none")
    whole, seen = path.read_bytes(), set()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(4, footer):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        read = Read(source(tmp_path, "a.parquet"))
        assert len(read.texts) >= 40
        seen |= {problem.message for problem in read.problems}
    assert "rows 1 to 20 cannot be read: their data contradict themselves" in seen


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl"])
def test_dots_lead_into_structs(name, tmp_path):
    rows = [{"m": {"content": f"t{n}", "key": n, "meta": {"lang": "en"}}, "x": n} for n in range(3)] + [
        {"m": None, "x": 3},
        {"m": {"content": None, "key": 5, "meta": None}, "x": 4},
    ]
    if name == "a.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_table(pa.Table.from_pylist(rows), tmp_path / name)
    asked = {"text": "m.content", "id": "m.key", "keep": ["m.meta.lang", "x"]}
    read = Read(source(tmp_path, name, **asked))
    assert (read.texts, read.kept("m.meta.lang")) == (["t0", "t1", "t2"], ["en"] * 3)
    assert [(row, reason in ("wrong_type", "missing_field")) for _, row, reason in read.entries] == [
        (4, True),
        (5, True),
    ]
    with pytest.raises(InvalidInput, match=r"m.content.x|holds a record"):
        run(source(tmp_path, name, text="m.content.x"), tmp_path / "out")


def test_a_name_with_dots_comes_before_a_path(tmp_path):
    table = pa.table({"m": [{"content": "inner"}], "m.content": ["outer"]})
    write_table(table, tmp_path / "a.parquet")
    write_table(table, tmp_path / "a.arrow")
    for name in ("a.parquet", "a.arrow"):
        assert Read(source(tmp_path, name, text="m.content")).texts == ["outer"]


NESTED = {
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "list": pa.array([["a", None], [], None]),
    "list of structs": pa.array([[{"a": 1}], None, [{"a": 2}, None]]),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "nothing": pa.nulls(3),
    "dictionary": pa.array(["a", "b", None]).dictionary_encode(),
    "dictionary inside": pa.ListArray.from_arrays([0, 1, 1, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
    "struct of dictionary": pa.StructArray.from_arrays([pa.array(["a", "b", "a"]).dictionary_encode()], ["d"]),
    "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    "large list": pa.array([["a"], None, []], pa.large_list(pa.large_string())),
    "date": pa.array([0, 86_400_000, None], pa.date64()),
    "seconds": pa.array([1, 2, None], pa.time32("s")),
    "timestamp": pa.array([1, 2, None], pa.timestamp("s", "UTC")),
    "decimal": pa.array([1, 2, None], pa.decimal128(9, 2)),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_kept_columns_of_any_type_are_carried(kind, suffix, tmp_path):
    column = NESTED[kind]
    write_table(pa.table({"text": ["a", "b", "c"], "k": column}), tmp_path / f"a.{suffix}")
    for form in ("parquet", "jsonl.zst"):
        recipe = source(tmp_path, f"a.{suffix}", keep=["k"], strict=True)
        recipe = recipe.model_copy(update={"output": recipes.Output(format=form)})
        out = tmp_path / form
        assert run(recipe, out).rows == 3
        check(out)
        (path,) = (out / "data").iterdir()
        if form == "parquet":
            assert pq.read_table(path)["k"].to_pylist() == column.to_pylist()
        else:
            lines = pa.input_stream(path, compression="zstd").read().splitlines()
            assert [json.loads(line)["text"] for line in lines] == ["a", "b", "c"]
            assert [json.loads(line)["k"] is None for line in lines] == [v is None for v in column.to_pylist()]


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no views")
def test_views_are_read_as_strings(tmp_path):
    views = pa.array(["a", "b" * 100, "c"], pa.string_view())
    write_table(pa.table({"text": views, "k": views, "l": pa.array([["x"]] * 3)}), tmp_path / "a.arrow")
    read = Read(source(tmp_path, "a.arrow", keep=["k", "l"], strict=True))
    assert read.texts == read.kept("k") == ["a", "b" * 100, "c"]


def test_a_type_that_cannot_be_kept_is_an_entry(tmp_path):
    write_table(pa.table({"text": ["a"], "k": pa.array([{}], pa.struct([]))}), tmp_path / "a.arrow")
    write_table(pa.table({"text": ["b"], "k": [1]}), tmp_path / "b.arrow")
    read = Read(source(tmp_path, "*.arrow", keep=["k"]))
    assert (read.texts, read.entries) == (["b"], [("a.arrow", 0, "wrong_type")])
    assert "which Parquet cannot hold" in refusal(source(tmp_path, "*.arrow", keep=["k"], strict=True))


def test_types_that_differ_in_layout_only_are_one(tmp_path):
    kinds = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
    for number, kind in enumerate(kinds):
        table = pa.table({"text": pa.array(["a"]).cast(kind), "k": pa.array(["x"]).cast(kind)})
        write_table(table, tmp_path / f"{number}.parquet")
    read = Read(source(tmp_path, "*.parquet", keep=["k"], strict=True))
    assert (read.texts, read.kept("k")) == (["a"] * 3, ["x"] * 3)
    assert read.like.field(_records.KEPT + "k").type == pa.string()


def test_invalid_utf8_inside_of_what_is_kept_is_an_entry(tmp_path):
    raw = pa.array([b"good", b"ab\xff", b"fine"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    column = pa.ListArray.from_arrays([0, 1, 2, 3], texts)
    for name in ("a.parquet", "a.arrow"):
        write_table(pa.table({"text": ["a", "b", "c"], "k": column}), tmp_path / name)
        read = Read(source(tmp_path, name, keep=["k"]))
        assert (read.texts, read.entries) == (["a", "c"], [(name, 2, "invalid_utf8")])


# Files that are not there, or change.


def test_files_that_cannot_be_opened_are_entries(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "c.jsonl")
    (tmp_path / "d.xyz").write_bytes(b"who knows")
    expected = [("b.jsonl", 0, "unreadable"), ("c.jsonl", 0, "unreadable"), ("d.xyz", 0, "unreadable")]
    if os.geteuid():
        (tmp_path / "e.jsonl").write_bytes(GOOD)
        (tmp_path / "e.jsonl").chmod(0)
        expected.append(("e.jsonl", 0, "unreadable"))
    read = Read(source(tmp_path, "*.*"))
    assert (read.texts, read.entries) == (["one", "two"], expected)
    assert [p.message.split(":")[0] for p in read.problems][:2] == [
        "No such file or directory",
        "it is no regular file",
    ]
    assert "say it as 'format: ...' in source 's'" in read.problems[2].message
    result = run(source(tmp_path, "*.*"), tmp_path / "out")
    assert (result.rows, result.rejected) == (2, len(expected))
    assert plan(source(tmp_path, "*.*")).sources[0].files == len(expected) + 1
    assert f"cannot read {tmp_path / 'b.jsonl'}: No such" in refusal(source(tmp_path, "[ab]*", strict=True))
    assert "cannot tell the format of" in refusal(source(tmp_path, "[ad]*", strict=True))


def test_a_file_that_two_names_lead_to_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "in" / "a.jsonl")
    assert Read(source(tmp_path, "linked/*.jsonl")).texts == ["one", "two"]
    assert Read(source(tmp_path, "*.jsonl")).texts == ["one", "two"] * 2
    for path, names in (
        ("*/*.jsonl", ("in/a.jsonl", "linked/a.jsonl")),
        ("**/[ac].jsonl", ("c.jsonl", "in/a.jsonl")),
    ):
        first, second = (tmp_path / name for name in names)
        assert refusal(source(tmp_path, path)) == (
            f"source 's': {first} and {second} are the same file, and a file is read once: remove the link, or write "
            "a path that does not match both"
        )


def test_a_file_that_vanishes_is_an_entry(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_bytes(GOOD)
    recipe = source(tmp_path, "*.jsonl")
    listed = _inputs.list_inputs(recipe)
    (tmp_path / "b.jsonl").unlink()
    (unit,) = _units.units(recipe, listed, {})
    assert ([chunk.file for chunk in unit.chunks], [p.file for p in unit.problems]) == ([0, 2], [1])


def test_no_record_in_any_file_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes("x".encode("utf-16"))
    (tmp_path / "b.jsonl").write_bytes(b"")
    said = refusal(source(tmp_path, "*.jsonl"))
    assert said.startswith(f"source 's' gave no record: {tmp_path / 'a.jsonl'}: it seems to be UTF-16")
    (tmp_path / "d.jsonl").mkdir()
    assert refusal(source(tmp_path, "d.jsonl")).endswith(f"cannot read {tmp_path / 'd.jsonl'}: Is a directory")
    assert refusal(source(tmp_path, "d.jsonl", strict=True)) == f"cannot read {tmp_path / 'd.jsonl'}: Is a directory"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow"])
def test_a_file_that_changes_stops_the_run(name, strict, tmp_path):
    path = tmp_path / name
    words = [f"{n} {n * 7919 % 1000} " + "word" * 20 for n in range(5000)]
    if "jsonl" in name:
        path.write_bytes(gzip.compress(jsonl(*words)) if name.endswith("gz") else jsonl(*words))
    else:
        write_table(pa.table({"text": words}), path, row_group_size=1000)
    whole = path.read_bytes()
    recipe = source(tmp_path, name, strict=strict)
    for change in (lambda: path.write_bytes(whole[:-5000]), lambda: path.write_bytes(whole + b"more")):
        for early in (True, False):
            path.write_bytes(whole)
            listed = _inputs.list_inputs(recipe)
            if early:
                change()
            units = _units.units(recipe, listed, {})
            with pytest.raises(InvalidInput) as caught:  # noqa: PT012
                next(units)
                change()
                list(units)
            assert str(caught.value).startswith(f"{path} changed while it was read: it had {len(whole)} bytes, and now")
    path.write_bytes(whole)
    os.utime(path, (0, 0))  # clocks of file systems may be slower than this test
    units = _units.units(recipe, _inputs.list_inputs(recipe), {})
    next(units)
    path.write_bytes(whole)
    with pytest.raises(InvalidInput, match=r"still has \d+ bytes, but was written to"):
        list(units)


def test_units_know_what_has_been_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_inputs, "UNIT_BYTES", 1000)
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(TEXT[:5000])
    first = Read(source(tmp_path, "*.jsonl"))
    again = Read(source(tmp_path, "*.jsonl"))
    digests = [unit.digest for unit in first.units]
    assert digests == [unit.digest for unit in again.units]
    assert len(set(digests)) > 6
    changed = bytearray(TEXT[:5000])
    changed[2600] ^= 1
    (tmp_path / "a.jsonl").write_bytes(changed)
    other = [unit.digest for unit in Read(source(tmp_path, "*.jsonl")).units]
    same = [a == b for a, b in zip(digests, other, strict=True)]
    assert 1 <= sum(same) < 4
    assert same == sorted(same, reverse=True)
    hashes = [hashlib.sha256(bytes.fromhex(again.digests[0]) + bytes.fromhex(again.digests[1])).hexdigest()]
    assert digests[-1:] == hashes


# Whatever the bytes are.


def samples():
    """Good files of each kind, by name."""
    words = [f"{n} {n * 7919 % 1000} é" for n in range(60)]
    lines = b"".join(json.dumps({"text": w, "id": n, "k": [n]}).encode() + b"\n" for n, w in enumerate(words))
    table = pa.table({"text": words, "id": range(60), "k": [[str(n)] for n in range(60)]})
    coded = table.set_column(0, "text", table["text"].dictionary_encode())
    out = {"a.jsonl": lines, "a.jsonl.gz": gzip.compress(lines), "a.jsonl.zst": zstd(lines), "a.txt": lines}
    out["a.txt.gz"] = out["a.jsonl.gz"]
    for number, (kind, options) in enumerate([(table, None), (coded, None), (table, "lz4")]):
        for name in ("arrow", "stream.arrow"):
            sink = pa.BufferOutputStream()
            make = pa.ipc.new_file if name == "arrow" else pa.ipc.new_stream
            with make(sink, kind.schema, options=pa.ipc.IpcWriteOptions(compression=options)) as writer:
                writer.write_table(kind, None if kind is coded else 20)
            out[f"{number}.{name}"] = sink.getvalue().to_pybytes()
        sink = pa.BufferOutputStream()
        pq.write_table(kind, sink, row_group_size=20, compression=options or "none", use_dictionary=kind is coded)
        out[f"{number}.parquet"] = sink.getvalue().to_pybytes()
    return out


SAMPLES = samples()


@given(data=st.data())
@examples(400)
def test_no_damage_breaks_the_reading(data, tmp_path_factory):
    name = data.draw(st.sampled_from(sorted(SAMPLES)))
    whole = SAMPLES[name]
    how = data.draw(st.sampled_from(["flip", "cut", "random", "insert", "zero"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        at = len(whole) - 1 - at % 200  # footers deserve more of it
    if how == "flip":
        damaged = bytearray(whole)
        for place in [at, *data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3))]:
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        damaged = whole[:at]
    elif how == "random":
        damaged = data.draw(st.binary(max_size=300))
    elif how == "insert":
        damaged = whole[:at] + data.draw(st.binary(min_size=1, max_size=20)) + whole[at:]
    else:
        damaged = bytearray(whole)
        damaged[at : at + 16] = b"\0" * len(damaged[at : at + 16])
    folder = tmp_path_factory.mktemp("f")
    (folder / name).write_bytes(damaged)
    columns = not name.startswith("a.")
    good = f"-{name[1:]}" if columns else "-.jsonl"  # read first: what is kept has its types
    (folder / good).write_bytes(whole if columns else b'{"text": "first", "id": "z", "k": 1}\n')
    asked = {}
    if ".txt" in name:
        asked["split"] = data.draw(st.sampled_from(["line", "paragraph", "document"]))
    else:
        asked = {"id": data.draw(st.sampled_from(["id", None])), "keep": ["k"]}
    read = Read(source(folder, "*", **asked))
    assert read.table["file"].to_pylist().count(0) == (60 if columns else 1)
    assert 1 in read.table["file"].to_pylist() or read.problems or name != "a.txt"
    places = list(zip(read.table["file"].to_pylist(), read.rows, strict=True))
    assert places == sorted(set(places))
    strict = source(folder, "*", strict=True, **asked)
    fatal = [problem for problem in read.problems if problem.reason != _inputs.EMPTY_FILE]
    assert len(Read(strict).problems) >= (1 if fatal else 0)
    if data.draw(st.integers(0, 9)) == 0 and asked.get("id") is None:
        result = run(source(folder, "*", **asked), folder / "out")
        assert (result.rows, result.rejected) == (len(read.texts), len(read.problems))


@given(block=st.binary(max_size=400), name=st.sampled_from(["a.jsonl", "a.txt"]))
@examples(200)
def test_records_and_problems_add_up_to_the_lines(block, name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    (folder / name).write_bytes(block)
    (folder / "z.jsonl").write_bytes(GOOD)
    read = Read(source(folder, "*", **({"split": "line"} if name == "a.txt" else {})))
    if {reason for _, _, reason in read.entries} & {"encoding", "empty_file"}:
        assert len(read.texts) == 2
        return
    content = block.removeprefix(b"\xef\xbb\xbf")
    filled = sum(bool(line.strip()) for line in content.split(b"\n"))
    assert len(read.texts) - 2 + len(read.problems) == filled
