"""What two runs differ in: real runs, and made-up sets of records against a comparison with plain dictionaries."""

from __future__ import annotations

import hashlib
import json
import shutil
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import provenance
from variegate.errors import CorruptRun, InvalidInput
from variegate.run import Fate, _diff, _records, diff, run
from variegate.run._journal import MAGIC, frame

RECIPE = """\
version: 1
seed: 7
sources:
  - {name: py, path: in.jsonl, id: id, license: PSF-2.0, kind: human, keep: [note]}
stages:
  - augment: {variants: 1, ops: [{KeyboardTypo: {rate: 0.05}}]}
  - dedup: {threshold: 0.99, ngram: 2}
output: {rows_per_shard: 25}
"""


WORDS = ["alpha", "beta", "gämma", "delta", "epsilon", "漢字", "zeta\n", "eta", "theta", "iota", "kappa", "lambda"]


def lines(count: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(3)
    words = [" ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 40)) for _ in range(count)]
    return [{"id": f"r{n}", "note": f"n{n}", "text": f"line {n}: {text}"} for n, text in enumerate(words)]


def make(folder: Path, text: str = RECIPE, rows: list[dict[str, str]] | None = None) -> Path:
    """A finished run of a recipe."""
    folder.mkdir()
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or lines(60)), "utf-8")
    (folder / "recipe.yaml").write_text(textwrap.dedent(text), "utf-8")
    run(folder / "recipe.yaml", folder / "out")
    return folder / "out"


def numbers(found: Any) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("same", "text", "provenance", "fields", "only_a", "only_b")}


def test_equal_runs_are_identical_and_no_record_is_read(tmp_path, monkeypatch):
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    monkeypatch.setattr(_diff, "_compare", None)
    found = diff(a, b)
    assert (found.identical, found.same, found.recipe, found.versions, found.inputs) == (True, True, (), {}, ())
    assert (found.shares, found.measures) == ((), {})
    assert not any(stage.differs for stage in found.stages)
    assert numbers(found.records) == {"same": 120, "text": 0, "provenance": 0, "fields": 0, "only_a": 0, "only_b": 0}
    assert repr(found) == f"<RunDiff of {a} and {b}: identical>"


def test_a_changed_rate_makes_the_variants_anew(tmp_path):
    a, b = make(tmp_path / "a"), make(tmp_path / "b", RECIPE.replace("0.05", "0.2"))
    found = diff(a, b, examples=2)
    assert [line for line in found.recipe if line[:1] in "+-"][2:] == ["-        rate: 0.05", "+        rate: 0.2"]
    assert numbers(found.records) == {"same": 60, "text": 0, "provenance": 0, "fields": 0, "only_a": 60, "only_b": 60}
    assert found.records.fates_a == found.records.fates_b == (Fate("same_parents", None, None, 60),)
    assert [(group.kind, group.source, group.same, group.only_a) for group in found.records.groups] == [
        ("augmented", "py", 0, 60),
        ("human", "py", 60, 0),
    ]
    assert [example.what for example in found.records.examples] == ["same_parents"] * 2
    rows = {
        side: {row["provenance"]["record_id"]: row for row in pq.read_table(side / "data").to_pylist()}
        for side in (a, b)
    }
    for example in found.records.examples:
        mine, other = rows[a][example.record_id], rows[b][example.counterpart]
        assert mine["provenance"]["parents"] == other["provenance"]["parents"]
        assert mine["text"].find(example.a.strip("…")) == other["text"].find(example.b.strip("…")) >= 0
        assert example.a != example.b
    assert [(share.by, share.value) for share in found.shares] == [
        ("kind", "augmented"),
        ("source", "py"),
        ("license", "PSF-2.0"),
        ("generation", "0"),
    ]
    assert not found.same
    assert json.loads(json.dumps(found.to_dict()))["records"]["only_a"] == 60


def test_rejects_of_the_other_run_are_found_in_its_ledger(tmp_path):
    rows = lines(30)
    twins = [{**row, "id": f"twin-{row['id']}"} for row in rows[:10]]
    a = make(tmp_path / "a", RECIPE.replace("  - dedup: {threshold: 0.99, ngram: 2}\n", ""), rows + twins)
    b = make(tmp_path / "b", RECIPE, rows + twins)
    found = diff(a, b)
    [fate] = [fate for fate in found.records.fates_a if fate.reason == "duplicate"]
    assert (fate.fate, fate.stage, fate.records) == ("rejected", "dedup", 10)
    assert sum(fate.records for fate in found.records.fates_a) == found.records.only_a
    assert found.records.only_b == 0
    assert [(stage.name, stage.a is None) for stage in found.stages] == [
        ("read", False),
        ("augment", False),
        ("dedup", True),
    ]
    examples = [example for example in found.records.examples if example.what == "only_a"]
    assert len(examples) == 5
    assert all(example.rejected == ("dedup", "duplicate") and example.b is None for example in examples)


def test_an_edited_record_keeps_its_id_and_so_do_its_variants(tmp_path):
    rows = lines(40)
    edited = [{**row, "text": "now " + row["text"]} if n == 7 else row for n, row in enumerate(rows)]
    a, b = make(tmp_path / "a", rows=rows), make(tmp_path / "b", rows=edited)
    found = diff(a, b)
    assert numbers(found.records) == {"same": 78, "text": 2, "provenance": 0, "fields": 0, "only_a": 0, "only_b": 0}
    [one] = found.inputs
    assert (one.source, one.path, one.change) == ("py", "in.jsonl", "changed")
    [example] = [example for example in found.records.examples if example.kind == "human"]
    assert (example.a, example.b) == (rows[7]["text"][:90] + "…" * (len(rows[7]["text"]) > 90), example.b)
    assert example.b.startswith("now line 7: ")


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
def test_kept_fields_and_provenance_count_too(tmp_path, form):
    rows = lines(20)
    noted = [{**row, "note": "2020-01-01"} if n < 3 else row for n, row in enumerate(rows)]
    recipe = RECIPE.replace("rows_per_shard: 25", f"rows_per_shard: 25, format: {form}")
    a, b = make(tmp_path / "a", recipe, rows), make(tmp_path / "b", recipe, noted)
    found = diff(a, b)
    assert numbers(found.records) == {"same": 34, "text": 0, "provenance": 0, "fields": 6, "only_a": 0, "only_b": 0}
    assert all(pair[1] == "2020-01-01" for example in found.records.examples for pair in example.changes.values())
    assert not found.same
    c = make(tmp_path / "c", recipe.replace("PSF-2.0", "MIT"), rows)
    found = diff(a, c)
    assert numbers(found.records)["provenance"] == 40
    assert found.records.examples[0].changes == {"license": ("PSF-2.0", "MIT")}


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
def test_fields_that_only_one_run_has_count_where_they_are_filled(tmp_path, form):
    recipe = RECIPE.replace("rows_per_shard: 25", f"rows_per_shard: 25, format: {form}")
    grammar = "stages:\n  - templates: {grammar: 'task = say {a=int 2..99}', count: 5, license: CC0-1.0}\n"
    a, b = make(tmp_path / "a", recipe), make(tmp_path / "b", recipe.replace("stages:\n", grammar))
    found = diff(a, b)
    assert numbers(found.records)["fields"] == 0
    without = make(tmp_path / "c", recipe.replace(", keep: [note]", ""))
    assert numbers(diff(a, without).records)["fields"] == 120


def test_other_files_with_the_same_records_are_the_same_set(tmp_path):
    a = make(tmp_path / "a")
    b = make(tmp_path / "b", RECIPE.replace("rows_per_shard: 25", "rows_per_shard: 40, format: jsonl.zst"))
    found = diff(a, b)
    assert (found.identical, found.same, found.records.fields_compared) == (False, True, False)
    assert found.output["format"] == ("parquet", "jsonl.zst")
    assert found.output["files"] == (5, 3)
    c = make(tmp_path / "c", RECIPE.replace("rows_per_shard: 25", "rows_per_shard: 40"))
    found = diff(a, c)
    assert (found.identical, found.same, found.records.fields_compared) == (False, True, True)


def test_what_is_no_finished_run_is_refused_as_check_does(tmp_path):
    a = make(tmp_path / "a")
    with pytest.raises(InvalidInput, match=r"holds no run: there is no journal\.log"):
        diff(a, tmp_path)
    torn = shutil.copytree(a, tmp_path / "torn")
    journal = (torn / "journal.log").read_bytes()
    (torn / "journal.log").write_bytes(journal[: journal.rindex(b'{"record":"finish"') - 8])
    with pytest.raises(CorruptRun, match="is not finished: run the same command again to continue"):
        diff(torn, a)
    with pytest.raises(InvalidInput, match="examples must be 0 or more, not -1"):
        diff(a, a, examples=-1)
    with pytest.raises(InvalidInput, match="memory must be 1 or more bytes, not 0"):
        diff(a, a, memory=0)


def test_files_that_cannot_be_read_are_named(tmp_path):
    a, b = make(tmp_path / "a"), make(tmp_path / "b", RECIPE.replace("0.05", "0.2"))
    file = min((b / "data").iterdir())
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CorruptRun, match=f"{file} cannot be read: "):
        diff(a, b)
    file.unlink()
    with pytest.raises(CorruptRun, match=f"{file} is missing, though the manifest has it"):
        diff(a, b)
    (a / "recipe.lock.yaml").write_text("recipe: [", "utf-8")
    with pytest.raises(CorruptRun, match=r"recipe\.lock\.yaml was altered: "):
        diff(a, b)
    (a / "recipe.lock.yaml").unlink()
    with pytest.raises(CorruptRun, match=r"recipe\.lock\.yaml is missing"):
        diff(a, b)


# Made-up sets of records


@dataclass(frozen=True)
class Record:
    text: str
    parents: tuple[str, ...]
    kind: str
    source: str
    note: str | None


@dataclass(frozen=True)
class Set:
    """Records by id, and the stage and reason of rejects by id."""

    records: dict[str, Record]
    rejects: dict[str, tuple[str, str]]


IDS = [(bytes([n * 21]) + bytes(14) + bytes([n % 3])).hex() for n in range(12)]
RECORD = st.builds(
    Record,
    text=st.sampled_from(["", "a", "b", "ä\n", "b" * 200]),
    parents=st.sampled_from([(), (IDS[0],), (IDS[1],), (IDS[0], IDS[1])]),
    kind=st.sampled_from(["human", "augmented"]),
    source=st.sampled_from(["py", "web"]),
    note=st.sampled_from([None, "", "x", "2020-01-01", "1"]),
)


@st.composite
def sets(draw: st.DrawFn) -> tuple[Set, Set]:
    """Two sets that share many of their records."""
    common = draw(st.dictionaries(st.sampled_from(IDS), RECORD, max_size=12))
    made = []
    for _ in range(2):
        own = draw(st.dictionaries(st.sampled_from(IDS), RECORD, max_size=4))
        gone = draw(st.sets(st.sampled_from(IDS), max_size=5))
        records = {key: record for key, record in {**common, **own}.items() if key not in gone}
        reason = st.sampled_from([("dedup", "duplicate"), ("mix", "max_synthetic")])
        made.append(Set(records, {key: draw(reason) for key in sorted(gone) if draw(st.booleans())}))
    return made[0], made[1]


def write(folder: Path, content: Set, form: str, per_file: int) -> Path:
    """The set as the files of a finished run."""
    for name in ("data", "rejects/01-x"):
        (folder / name).mkdir(parents=True)
    files = []
    keys = list(content.records)
    for start in range(0, len(keys), per_file):
        rows = [(key, content.records[key]) for key in keys[start : start + per_file]]
        columns: dict[str, Any] = {
            name: pa.array([getattr(record, name) for _, record in rows], pa.string()) for name in ("kind", "source")
        }
        columns["record_id"] = pa.array([key for key, _ in rows], pa.string())
        columns["parents"] = pa.array([record.parents for _, record in rows], pa.list_(pa.string()))
        nothing = pa.nulls(len(rows), pa.string())
        struct = pa.StructArray.from_arrays(
            [columns.get(name, nothing) for name in provenance.FIELDS], provenance.FIELDS
        )
        texts = pa.array([record.text for _, record in rows], pa.string())
        notes = pa.array([record.note for _, record in rows], pa.string())
        table = pa.table([texts, notes, struct], names=["text", "note", "provenance"])
        path = folder / "data" / f"part-{start}.{form}"
        if form == "parquet":
            pq.write_table(table, path)
        else:
            path.write_bytes(pa.compress(_records.to_jsonl(table), codec="zstd", asbytes=True))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(
            {"path": f"data/{path.name}", "rows": len(rows), "bytes": 1, "sha256": digest, "merkle_root": digest}
        )
    entries = [{"stage": stage, "reason": reason, "record_id": key} for key, (stage, reason) in content.rejects.items()]
    entries.append({"stage": "read", "reason": "json", "record_id": None})
    pq.write_table(pa.Table.from_pylist(entries, _records.REJECTS), folder / "rejects/01-x/part-0.parquet")
    stage = {"name": "x", "kind": "x", "in": 0, "created": 0, "out": 0, "rejected": len(entries), "reasons": {}}
    manifest = {"tokenizer": None, "inputs": [], "stages": [stage], "shares": {}, "format": form, "rows": len(keys)}
    manifest |= {"bytes": 1, "files": files, "merkle_root": hashlib.sha256(json.dumps(files).encode()).hexdigest()}
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (folder / "recipe.lock.yaml").write_text(yaml.safe_dump({"recipe": {}, "versions": {}}))
    (folder / "report.json").write_text('{"measures": {}}')
    finish = {"record": "finish", "sha256": {"manifest.json": hashlib.sha256(text.encode()).hexdigest()}}
    (folder / "journal.log").write_bytes(MAGIC + frame({"record": "start"}) + frame(finish))
    return folder


def expected(a: Set, b: Set) -> tuple[Counter[tuple[str, str, str]], list[Counter[Any]]]:
    """(kind, source, class) counted, and the fates of what only one side has."""
    tally: Counter[tuple[str, str, str]] = Counter()
    for key in a.records.keys() & b.records.keys():
        x, y = a.records[key], b.records[key]
        what = "same"
        if x.text != y.text:
            what = "text"
        elif replace(x, note=None) != replace(y, note=None):
            what = "provenance"
        elif x.note != y.note:
            what = "fields"
        tally[x.kind, x.source, what] += 1
    alone = []
    for name, mine, other in (("only_a", a, b), ("only_b", b, a)):
        keys = mine.records.keys() - other.records.keys()
        tally.update((mine.records[key].kind, mine.records[key].source, name) for key in keys)
        alone.append({key: mine.records[key] for key in keys - other.rejects.keys()})
    fates = []
    for side, (mine, other) in enumerate(((a, b), (b, a))):
        fate: Counter[Any] = Counter()
        texts = [{record.text for record in group.values()} for group in alone]
        left = [
            {
                (record.parents, record.kind)
                for record in group.values()
                if record.parents and record.text not in texts[1 - n]
            }
            for n, group in enumerate(alone)
        ]
        for key in mine.records.keys() - other.records.keys():
            record = mine.records[key]
            if key in other.rejects:
                fate["rejected", *other.rejects[key]] += 1
            elif record.text in texts[1 - side]:
                fate["same_text", None, None] += 1
            elif (record.parents, record.kind) in left[1 - side]:
                fate["same_parents", None, None] += 1
            else:
                fate["not_made", None, None] += 1
        fates.append(fate)
    return tally, fates


@given(sets(), st.sampled_from(["parquet", "jsonl.zst"]), st.integers(1, 5))
@examples(60)
def test_records_compare_as_dictionaries_do_at_any_size_of_memory(tmp_path_factory, pair, form, per_file):
    folder = tmp_path_factory.mktemp("sets")
    a, b = (write(folder / name, content, form, per_file) for name, content in zip("ab", pair, strict=True))
    found = diff(a, b, examples=3)
    tally, fates = expected(*pair)
    if not found.identical:
        got = Counter(
            {
                (group.kind, group.source, name): count
                for group in found.records.groups
                for name, count in numbers(group).items()
            }
        )
        assert +got == +tally
        for listed, wanted in zip((found.records.fates_a, found.records.fates_b), fates, strict=True):
            assert {(fate.fate, fate.stage, fate.reason): fate.records for fate in listed} == wanted
    totals = Counter()
    for (_, _, name), count in tally.items():
        totals[name] += count
    assert +Counter(numbers(found.records)) == totals
    assert found.same == (totals.keys() <= {"same"})
    per_kind = Counter(example.what for example in found.records.examples)
    assert all(per_kind[name] == min(3, totals[name]) for name in ("text", "provenance", "fields"))
    assert diff(a, b, examples=3, memory=1 << 10) == found
    shutil.rmtree(folder)


def test_more_parts_and_more_pieces_than_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    keys = [rng.bytes(16).hex() for _ in range(3000)]
    record = Record("t", (), "human", "py", None)
    parents = [(keys[n % 40],) for n in range(3000)]
    a = Set({key: replace(record, text=f"t{n % 700}", parents=parents[n]) for n, key in enumerate(keys[:2500])}, {})
    b = Set(
        {key: replace(record, text=f"t{n % 900}", parents=parents[n]) for n, key in enumerate(keys) if n % 3},
        dict.fromkeys(keys[:600:3], ("dedup", "duplicate")),
    )
    folders = [write(tmp_path / name, content, "parquet", 1000) for name, content in (("a", a), ("b", b))]
    whole = diff(*folders)
    tally, fates = expected(a, b)
    assert {(fate.fate, fate.stage, fate.reason): fate.records for fate in whole.records.fates_a} == fates[0]
    assert sum(tally.values()) == sum(numbers(whole.records).values())
    opened = []
    real = _diff.tempfile.TemporaryFile
    monkeypatch.setattr(_diff.tempfile, "TemporaryFile", lambda **how: opened.append(real(**how)) or opened[-1])
    assert diff(*folders, memory=1 << 16) == whole
    assert len(opened) >= 4
    assert all(file.closed for file in opened)


def test_an_id_that_comes_twice_is_refused(tmp_path):
    record = Record("t", (), "human", "py", None)
    a = write(tmp_path / "a", Set({IDS[0]: record}, {}), "parquet", 1)
    b = write(tmp_path / "b", Set({IDS[0]: record, IDS[1]: record}, {}), "parquet", 1)
    shutil.copy(b / "data" / "part-0.parquet", b / "data" / "part-1.parquet")
    with pytest.raises(CorruptRun, match=f"{b}: two records have the record_id {IDS[0]}"):
        diff(a, b)
    shutil.copy(
        write(tmp_path / "c", Set({"A" * 32: record}, {}), "parquet", 1) / "data" / "part-0.parquet",
        b / "data" / "part-1.parquet",
    )
    with pytest.raises(
        CorruptRun, match=f"part-1.parquet cannot be read: record_id '{'A' * 32}' is not 32 hexadecimal"
    ):
        diff(a, b)


VALUES = [
    pa.array(["a", None, "", "a"]),
    pa.array([b"\0", None, b"", b"\0"], pa.large_binary()),
    pa.array([1, None, 0, 1], pa.int16()),
    pa.array([True, None, False, True]),
    pa.array([float("nan"), None, 0.0, float("nan")]),
    pa.array([1, None, 0, 1], pa.timestamp("us", "UTC")),
    pa.array([1, None, 0, 1], pa.decimal128(9, 2)),
    pa.array(["a", None, "", "a"]).dictionary_encode(),
    pa.array([[1, None], None, [], [1, None]]),
    pa.array([[1, 2], None, [0, 0], [1, 2]], pa.list_(pa.int8(), 2)),
    pa.array([[("k", 1)], None, [], [("k", 1)]], pa.map_(pa.string(), pa.int32())),
    pa.array([{"x": "a", "y": [{"z": 1}]}, None, {"x": "a", "y": []}, {"x": "a", "y": [{"z": 1}]}]),
    pa.array(["a", None, "", "a"], pa.string_view()),
    pa.array([b"ab", None, b"\0\0", b"ab"], pa.binary(2)),
]


@pytest.mark.parametrize("column", VALUES, ids=lambda column: str(column.type))
def test_further_fields_of_every_type_are_digested(column):
    rows = pa.table({"text": ["t"] * 4, "f": column})
    digests = [bytes(row) for row in _diff._further(rows)]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3
    assert digests[1] == bytes(32), "null is like a field that is not there"
    assert [bytes(row) for row in _diff._further(rows.slice(1, 3))] == digests[1:]
    assert [bytes(row) for row in _diff._further(rows.slice(2, 0))] == []
    renamed = pa.table({"text": ["t"] * 4, "g": column})
    assert bytes(_diff._further(renamed)[0]) != digests[0]
