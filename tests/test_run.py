import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import _store
from variegate import recipe as recipes
from variegate.errors import CorruptRun, InvalidInput, RecipeError, RunConflict
from variegate.run import _engine, _inputs, _journal, _records, check, plan, run

WORDS = ["alpha", "beta", "gämma", "delta", "epsilon", "漢字", "zeta\n", "eta", "theta", "iota", "kappa", "lambda"]


def lines(rows, seed=1, words=60):
    """Records of random words, each with a key."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(WORDS), (rows, words))
    return [{"text": " ".join(WORDS[i] for i in row), "id": f"r{n}"} for n, row in enumerate(picks)]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def make(folder, text, records=None):
    """A recipe in a folder, with its input."""
    folder.mkdir(exist_ok=True)
    if records is not None:
        write_lines(folder / "in.jsonl", records)
    (folder / "recipe.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    return recipes.load(folder / "recipe.yaml")


PLAIN = """\
version: 1
seed: 7
sources:
  - {name: py, path: in.jsonl, id: id, license: PSF-2.0, kind: human}
"""
AUGMENTED = (
    PLAIN
    + """\
stages:
  - augment: {variants: 2, ops: [{KeyboardTypo: {rate: 0.01}}]}
output: {rows_per_shard: 150}
"""
)


def content(out):
    """What must not depend on how a run went: the data files and the manifest, by name and SHA-256."""
    files = [*sorted((out / "data").iterdir()), out / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(out):
    return pq.read_table(out / "data").to_pylist()


def snapshots(recipe, out, folder):
    """Runs, and copies the directory after every commit; returns the copies, in order."""
    taken = []

    def copy(event):
        taken.append(folder / f"{len(taken):03d}-{event.stage}")
        shutil.copytree(out, taken[-1], ignore=shutil.ignore_patterns(".tmp-*"))

    run(recipe, out, workers=2, progress=copy)
    return taken


def read_parts(recipe, out, stage="00-read"):
    """Runs, and returns the parts of a stage as they are when the output begins."""
    found = []

    def look(event):
        if event.stage == "output" and not found:
            found.extend(pq.read_table(path) for path in sorted((out / "stages" / stage).iterdir()))

    run(recipe, out, progress=look)
    return pa.concat_tables(found)


def rejects_of(out):
    return [row for path in sorted((out / "rejects").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_run_keeps_every_record_with_its_provenance(tmp_path):
    records = lines(50)
    recipe = make(tmp_path, PLAIN, records)
    result = run(recipe, tmp_path / "out")
    assert (result.rows, result.rejected, result.files) == (50, 0, 1)
    rows = rows_of(tmp_path / "out")
    assert [row["text"] for row in rows] == [record["text"] for record in records]
    expected = hashlib.sha256(b"".join(len(f).to_bytes(8, "little") + f for f in (b"py", b"r3"))).hexdigest()[:32]
    assert rows[3]["provenance"] == {
        "record_id": expected,
        "parents": [],
        "source": "py",
        "license": "PSF-2.0",
        "kind": "human",
        "generation": 0,
        "ops": None,
        "generator": None,
        "generator_terms": None,
        "seed": None,
        "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCreation",
    }
    names = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {"data", "rejects", "journal.log", "manifest.json", "recipe.lock.yaml", "report.json", ".lock"}
    assert names == wanted
    checked = check(tmp_path / "out")
    assert (checked.rows, checked.files, checked.merkle_root) == (50, 1, result.merkle_root)


def test_variants_know_their_parents_and_the_ledger_adds_up(tmp_path):
    records = lines(80)
    out = tmp_path / "out"
    run(make(tmp_path, AUGMENTED.replace("0.01", "0.002"), records), out)
    rows = rows_of(out)
    originals = {row["provenance"]["record_id"]: row["text"] for row in rows if row["provenance"]["kind"] == "human"}
    assert len(originals) == 80
    derived = [row for row in rows if row["provenance"]["kind"] == "augmented"]
    manifest = json.loads((out / "manifest.json").read_text())
    for row in derived:
        (parent,) = row["provenance"]["parents"]
        assert row["text"] != originals[parent]
        assert row["provenance"]["seed"] == 7
        (op,) = manifest["ops"][row["provenance"]["ops"]]["augment"]["ops"]
        assert op["KeyboardTypo"]["rate"] == 0.002
    ids = [row["provenance"]["record_id"] for row in rows]
    assert len(set(ids)) == len(ids)
    rejected = rejects_of(out)
    assert {row["reason"] for row in rejected} == {"unchanged"}
    assert len(derived) + len(rejected) == 160
    assert all(row["file"] == "in.jsonl" and row["text"] in originals.values() for row in rejected)
    report = json.loads((out / "report.json").read_text())
    for stage in report["stages"]:
        assert stage["in"] + stage["created"] == stage["out"] + stage["rejected"]
    assert report["stages"][1]["reasons"] == {"unchanged": len(rejected)}


def test_without_keep_source_the_originals_are_in_the_ledger(tmp_path):
    text = AUGMENTED.replace("{variants: 2,", "{variants: 2, keep_source: false,")
    run(make(tmp_path, text, lines(10)), tmp_path / "out")
    assert {row["provenance"]["kind"] for row in rows_of(tmp_path / "out")} == {"augmented"}
    assert sum(row["reason"] == "replaced" for row in rejects_of(tmp_path / "out")) == 10
    check(tmp_path / "out")


@pytest.fixture
def small_units(monkeypatch):
    """Parts of a few kilobytes, so that small inputs have many."""
    monkeypatch.setattr(_inputs, "UNIT_BYTES", 8192)


@pytest.mark.usefixtures("small_units")
def test_workers_and_place_leave_no_trace(tmp_path):
    first = make(tmp_path / "a", AUGMENTED, lines(300))
    second = make(tmp_path / "b", AUGMENTED, lines(300))
    run(first, tmp_path / "one", workers=1)
    run(second, tmp_path / "deep" / "two", workers=2)
    run(second, tmp_path / "four", workers=4)
    assert content(tmp_path / "one") == content(tmp_path / "deep" / "two") == content(tmp_path / "four")
    assert len(list((tmp_path / "one" / "data").iterdir())) > 3
    records, _ = _journal.replay((tmp_path / "one" / "journal.log").read_bytes())
    assert sum(record["record"] == "part" and record["stage"] == 1 for record in records) > 5


@pytest.mark.usefixtures("small_units")
def test_the_order_of_records_changes_no_variant(tmp_path):
    records = lines(100)
    run(make(tmp_path / "a", AUGMENTED, records), tmp_path / "one")
    run(make(tmp_path / "b", AUGMENTED, records[::-1]), tmp_path / "two")
    one, two = ({row["provenance"]["record_id"]: row for row in rows_of(tmp_path / name)} for name in ("one", "two"))
    assert one == two


def test_jsonl_output_says_the_same(tmp_path):
    recipe = make(tmp_path, AUGMENTED, lines(40))
    run(recipe, tmp_path / "one")
    lined = make(tmp_path, AUGMENTED.replace("{rows_per", "{format: jsonl.zst, rows_per"))
    run(lined, tmp_path / "two")
    check(tmp_path / "two")
    rows = []
    for path in sorted((tmp_path / "two" / "data").iterdir()):
        assert path.name.endswith(".jsonl.zst")
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            rows.extend(json.loads(line) for line in stream.read().decode().splitlines())
    assert rows == rows_of(tmp_path / "one")


def test_a_finished_run_is_left_alone(tmp_path):
    recipe = make(tmp_path, AUGMENTED, lines(20))
    first = run(recipe, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name != ".lock"}
    again = run(recipe, tmp_path / "out")
    assert again.already_complete
    assert not first.already_complete
    assert (again.rows, again.merkle_root) == (first.rows, first.merkle_root)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name != ".lock"}


def test_another_recipe_is_refused_with_the_difference(tmp_path):
    run(make(tmp_path, AUGMENTED, lines(20)), tmp_path / "out")
    changed = make(tmp_path, AUGMENTED.replace("0.01", "0.02"))
    before = content(tmp_path / "out")
    with pytest.raises(RunConflict) as caught:
        run(changed, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'} belongs to another recipe: choose a new directory, or undo\n"
        "  -        rate: 0.01\n"
        "  +        rate: 0.02"
    )
    assert content(tmp_path / "out") == before


def test_changed_inputs_are_refused(tmp_path):
    recipe = make(tmp_path, PLAIN, lines(20))
    run(recipe, tmp_path / "out")
    write_lines(tmp_path / "in.jsonl", lines(21))
    with pytest.raises(RunConflict) as caught:
        run(recipe, tmp_path / "out")
    message = "input in.jsonl of 'py' has changed since this run began: choose a new directory"
    assert str(caught.value) == f"{tmp_path / 'out'}: {message}"


def test_a_directory_of_something_else_is_refused(tmp_path):
    recipe = make(tmp_path, PLAIN, lines(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(RunConflict) as caught:
        run(recipe, tmp_path / "out")
    message = f"{tmp_path / 'out'} holds other files ('thesis.txt') and no run: choose a new directory"
    assert str(caught.value) == message
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_a_second_run_at_once_is_refused(tmp_path):
    recipe = make(tmp_path, PLAIN, lines(2))
    (tmp_path / "out").mkdir()
    with _store.lock(tmp_path / "out"), pytest.raises(RunConflict) as caught:
        run(recipe, tmp_path / "out")
    message = f"{tmp_path / 'out'} is in use by process {os.getpid()} on host {os.uname().nodename}"
    assert str(caught.value) == f"{message}: wait for it to end, or stop it"
    run(recipe, tmp_path / "out")


BAD = {
    "empty file": (b"", "{path} holds no record: it is empty"),
    "one empty line": (b"\n", "{path} holds no record: it has only blank lines"),
    "invalid UTF-8": (
        b'{"text": "a", "id": 1}\n{"text": "\xff", "id": 2}\n',
        "{path}:2: invalid UTF-8 at byte 11 of the line",
    ),
    "invalid JSON in line 7": (
        b'{"text": "a", "id": %d}\n' * 6 % (1, 2, 3, 4, 5, 6) + b'{"text": "a" "id": 7}\n',
        "{path}:7: invalid JSON at column 14: expected `,` or `}}`",
    ),
    "missing field": (b'{"body": "a", "id": 1}\n', "{path}:1: no field 'text' (it has 'body', 'id')"),
    "wrong type": (b'\n{"text": ["a"], "id": 1}\n', "{path}:2: field 'text' must be a string, not a list"),
    "wrong type of key": (
        b'{"text": "a", "id": 1.5}\n',
        "{path}:1: field 'id' must be a string or an integer, not a number",
    ),
    "not an object": (b'"a"\n', "{path}:1: a record must be a JSON object, not a string"),
    "duplicate keys": (
        b'{"text": "a", "id": 1}\n{"text": "b", "id": 2}\n\n{"text": "c", "id": "1"}\n',
        "{path}:4: same 'id' as {path}:1: keys must be unique in source 'py'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_leaves_nothing(case, tmp_path):
    data, message = BAD[case]
    recipe = make(tmp_path, PLAIN)
    (tmp_path / "in.jsonl").write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        run(recipe, tmp_path / "out")
    assert str(caught.value) == message.format(path=tmp_path / "in.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "recipe.yaml"]


def test_unreadable_inputs_are_named(tmp_path):
    recipe = make(tmp_path, PLAIN)
    cases = {}
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(InvalidInput) as caught:
        run(recipe, tmp_path / "out")
    cases["Is a directory"] = str(caught.value)
    (tmp_path / "in.jsonl").rmdir()
    with pytest.raises(InvalidInput) as caught:
        run(recipe, tmp_path / "out")
    assert str(caught.value) == f"source 'py': no file matches {tmp_path / 'in.jsonl'}"
    (tmp_path / "in.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput) as caught:
        run(recipe, tmp_path / "out")
    cases["No such file or directory"] = str(caught.value)
    if os.geteuid():
        (tmp_path / "in.jsonl").unlink()
        (tmp_path / "in.jsonl").touch(mode=0)
        with pytest.raises(InvalidInput) as caught:
            run(recipe, tmp_path / "out")
        cases["Permission denied"] = str(caught.value)
    assert cases == {why: f"cannot read {tmp_path / 'in.jsonl'}: {why}" for why in cases}
    assert not (tmp_path / "out").exists()


def test_without_strict_bad_lines_go_to_the_ledger(tmp_path):
    recipe = make(tmp_path, PLAIN + "strict: false\n")
    data = b'{"text": "a", "id": 1}\n{"text": 5, "id": 2}\nnonsense \xff\n\n{"text": "b", "id": 3}\n'
    (tmp_path / "in.jsonl").write_bytes(data)
    result = run(recipe, tmp_path / "out")
    assert (result.rows, result.rejected) == (2, 2)
    found = [(row["reason"], row["row"], row["text"], row["message"]) for row in rejects_of(tmp_path / "out")]
    assert found == [
        ("wrong_type", 2, '{"text": 5, "id": 2}', "field 'text' must be a string, not a number"),
        ("invalid_utf8", 3, "nonsense �", "invalid UTF-8 at byte 10 of the line"),
    ]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["inputs"][0]["rejected"] == 2
    assert report["stages"][0]["in"] == 4
    check(tmp_path / "out")


@pytest.mark.parametrize("data", [b"{\n[1]\n", b"\n\xff\n"])
def test_a_source_without_any_record_is_an_error_even_without_strict(data, tmp_path):
    recipe = make(tmp_path, PLAIN + "strict: false\n")
    (tmp_path / "in.jsonl").write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        run(recipe, tmp_path / "out")
    assert str(caught.value) == f"source 'py': no line or row of {tmp_path / 'in.jsonl'} holds a record"
    assert not (tmp_path / "out").exists()


def test_strings_of_columns_are_checked_for_utf8(tmp_path):
    raw = pa.array([b"good", b"ab\xff", b"fine"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": texts, "id": [1, 2, 3]}), tmp_path / "in.parquet")
    text = PLAIN.replace("in.jsonl", "in.parquet")
    message = "invalid UTF-8 at byte 3 of field 'text'"
    with pytest.raises(InvalidInput) as caught:
        run(make(tmp_path, text), tmp_path / "out")
    assert str(caught.value) == f"{tmp_path / 'in.parquet'}:2: {message}"
    assert not (tmp_path / "out").exists()
    assert run(make(tmp_path, text + "strict: false\n"), tmp_path / "out").rows == 2
    (reject,) = rejects_of(tmp_path / "out")
    assert (reject["reason"], reject["row"], reject["message"]) == ("invalid_utf8", 2, message)


def test_a_blank_line_is_one_whatever_stands_beside_it(tmp_path):
    recipe = make(tmp_path, "version: 1\nstrict: false\nsources: [{name: t, path: in.txt, split: line}]\n")
    for name, data in {"clean": b"", "damaged": b"\xff\n"}.items():
        (tmp_path / "in.txt").write_bytes(b"a\n \t\r\n\xc2\xa0\n\nb\n" + data)
        run(recipe, tmp_path / name)
        assert [row["text"] for row in rows_of(tmp_path / name)] == ["a", "\xa0", "b"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([["a"], ["b"], [1]], names=["text", "text", "id"]), tmp_path / "in.parquet")
    with pytest.raises(InvalidInput) as caught:
        run(make(tmp_path, PLAIN.replace("in.jsonl", "in.parquet")), tmp_path / "out")
    assert str(caught.value) == f"{tmp_path / 'in.parquet'}: it has two fields 'text': rename one"
    assert not (tmp_path / "out").exists()


def test_signs_of_a_glob_in_the_recipe_folder_are_no_glob(tmp_path):
    assert run(make(tmp_path / "set[1]", PLAIN, lines(3)), tmp_path / "out").rows == 3


def test_every_format_reads_the_same_records(tmp_path):
    records = [{**record, "year": 1990 + n} for n, record in enumerate(lines(30))]
    table = pa.Table.from_pylist(records)
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    (tmp_path / "in.jsonl").write_bytes(text)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "in.jsonl.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    pq.write_table(table, tmp_path / "in.parquet")
    pa.feather.write_feather(table, tmp_path / "in.arrow")
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    found = {}
    for name in ("in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.parquet", "in.arrow", "stream.arrow"):
        recipe = make(tmp_path, PLAIN.replace("in.jsonl", name).replace("kind:", "keep: [year], kind:"))
        run(recipe, tmp_path / f"out-{name}")
        check(tmp_path / f"out-{name}")
        found[name] = [{**row, "year": int(row["year"])} for row in rows_of(tmp_path / f"out-{name}")]
    first = found["in.jsonl"]
    assert [row["year"] for row in first] == [record["year"] for record in records]
    assert all(rows == first for rows in found.values())


def test_text_files_split_as_asked(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\n\r\n two é \nthree\n\n\n\nfour".encode())
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"five\n")
    expected = {
        "document": ["one\r\n\r\n two é \nthree\n\n\n\nfour", "five\n"],
        "paragraph": ["one", " two é \nthree", "four", "five"],
        "line": ["one", " two é ", "three", "four", "five"],
    }
    places = {"document": [1, 1], "paragraph": [1, 3, 8, 1], "line": [1, 3, 4, 8, 1]}
    for split, texts in expected.items():
        recipe = make(tmp_path, f"version: 1\nsources: [{{name: t, path: '*.txt', split: {split}}}]\n")
        out = tmp_path / f"out-{split}"
        assert read_parts(recipe, out)["row"].to_pylist() == places[split]
        assert [row["text"] for row in rows_of(out)] == texts
        assert [(row["reason"], row["file"]) for row in rejects_of(out)] == [("empty_file", "b.txt")]
    (tmp_path / "c.txt").write_bytes(b"good\nbad \xff\n")
    for split, message in (
        ("document", "c.txt:1: invalid UTF-8 at byte 10 of the document"),
        ("line", "c.txt:2: invalid UTF-8 at byte 5 of the line"),
    ):
        recipe = make(tmp_path, f"version: 1\nsources: [{{name: t, path: '*.txt', split: {split}}}]\n")
        with pytest.raises(InvalidInput) as caught:
            run(recipe, tmp_path / "out")
        assert str(caught.value) == str(tmp_path / message)


def test_columns_are_checked_before_anything_is_written(tmp_path):
    pq.write_table(pa.table({"text": [1, 2], "id": ["a", "b"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no PAR1")
    pq.write_table(pa.table({"text": ["x", None], "id": ["a", "b"]}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "d.parquet")
    messages = {
        "a": "{path}: field 'text' must be a string, not int64",
        "c": "{path}:2: field 'text' must be a string, not null",
        "d": "{path}: no field 'text' (it has 'body')",
    }
    for name, message in messages.items():
        recipe = make(tmp_path, PLAIN.replace("in.jsonl", f"{name}.parquet"))
        with pytest.raises(InvalidInput) as caught:
            run(recipe, tmp_path / "out")
        assert str(caught.value) == message.format(path=tmp_path / f"{name}.parquet")
    with pytest.raises(InvalidInput, match=r"cannot read .*b.parquet: "):
        run(make(tmp_path, PLAIN.replace("in.jsonl", "b.parquet")), tmp_path / "out")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(os.urandom(5000).hex().encode())[:2000])
    with pytest.raises(InvalidInput, match=r"cannot read .*cut.jsonl.gz: "):
        run(make(tmp_path, PLAIN.replace("in.jsonl", "cut.jsonl.gz")), tmp_path / "out")
    with pytest.raises(InvalidInput, match=r"cannot tell the format of .*recipe.yaml: say it as 'format: ...'"):
        run(make(tmp_path, PLAIN.replace("in.jsonl", "recipe.yaml")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_licences_that_forbid_it_are_refused_with_their_line(tmp_path):
    recipe = make(tmp_path, AUGMENTED.replace("PSF-2.0", "CC-BY-ND-4.0"), lines(2))
    with pytest.raises(RecipeError) as caught:
        run(recipe, tmp_path / "out")
    message = "stage 'augment' derives from source 'py', but licence CC-BY-ND-4.0 forbids derived works"
    assert str(caught.value) == f"{tmp_path / 'recipe.yaml'}:4:40: {message}"
    assert not (tmp_path / "out").exists()


def test_the_mix_caps_and_retains(tmp_path):
    text = AUGMENTED + "mix: {max_synthetic: 0.25, by: bytes, retain_real: 1.0}\n"
    run(make(tmp_path, text, lines(200)), tmp_path / "out")
    check(tmp_path / "out")
    shares = json.loads((tmp_path / "out" / "manifest.json").read_text())["shares"]["kind"]
    assert shares["human"]["rows"] == 200
    share = shares["augmented"]["bytes"] / (shares["augmented"]["bytes"] + shares["human"]["bytes"])
    assert 0.24 < share <= 0.25
    capped = [row["record_id"] for row in rejects_of(tmp_path / "out") if row["reason"] == "max_synthetic"]
    kept = [row["provenance"]["record_id"] for row in rows_of(tmp_path / "out") if row["provenance"]["kind"] != "human"]
    assert max(kept) < min(capped)
    text = AUGMENTED.replace("{variants: 2,", "{variants: 2, keep_source: false,") + "mix: {retain_real: 0.5}\n"
    with pytest.raises(InvalidInput) as caught:
        run(make(tmp_path, text), tmp_path / "none")
    assert str(caught.value) == (
        "retain_real 0.5 is not met: 0 of 200 human records remain (0.0000) "
        f"(what was done until then is in {tmp_path / 'none'}: another recipe needs a new directory)"
    )
    assert not any((tmp_path / "none" / "data").iterdir())
    text = AUGMENTED.replace("kind: human", "kind: unknown") + "mix: {max_synthetic: 0.25}\n"
    for refused in (lambda recipe: run(recipe, tmp_path / "more"), plan):
        with pytest.raises(RecipeError, match=r":\d+:\d+: max_synthetic 0.25 cannot be met: no source is human"):
            refused(make(tmp_path, text))
    assert not (tmp_path / "more").exists()


def test_a_plan_counts_without_writing(tmp_path):
    records = lines(100)
    recipe = make(tmp_path, AUGMENTED, records)
    planned = plan(recipe)
    assert planned.sources[0].rows == 100
    assert planned.sources[0].exact
    assert planned.exact
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "recipe.yaml"]
    made = run(recipe, tmp_path / "out")
    assert [stage.rows_out for stage in planned.stages] == [100, made.rows, made.rows]
    assert planned.stages[1].rejected == 300 - made.rows
    assert planned.rows == made.rows
    once = sum(len(record["text"].encode()) for record in records)
    assert planned.text_bytes == pytest.approx(once * made.rows / 100, rel=0.02)
    assert 0 < planned.disk_bytes <= planned.peak_bytes


@pytest.mark.usefixtures("small_units")
def test_a_plan_looks_on_where_a_sample_is_of_no_use(tmp_path):
    bad = b"no JSON\n" * 400
    recipe = make(tmp_path, "strict: false\n" + AUGMENTED, lines(100))
    (tmp_path / "in.jsonl").write_bytes(bad + (tmp_path / "in.jsonl").read_bytes())
    planned = plan(recipe)
    assert planned.sources[0].rows > 0
    assert planned.rows > 0
    grammar = "  - templates: {count: 150, grammar: 'task = {a=int 0..99}'}\n"
    with pytest.raises(InvalidInput, match="asks for 150 records, but its grammar has 100"):
        plan(make(tmp_path, AUGMENTED.replace("output:", grammar + "output:"), lines(4000)))


def test_templates_draw_from_files(tmp_path):
    (tmp_path / "cities.tsv").write_text("Rome\t3\nOslo\t1\n")
    (tmp_path / "people.csv").write_text("name,age\nAda,36\nAlan,41\n")
    text = """\
version: 1
stages:
  - templates:
      count: 4
      grammar: "task = {who=col:name}, {age=col:age}, of {city=lex:city}"
      lexicons: {city: cities.tsv}
      rows: people.csv
"""
    (tmp_path / "recipe.yaml").write_text(text)
    run(recipes.load(tmp_path / "recipe.yaml"), tmp_path / "out")
    texts = {row["text"] for row in rows_of(tmp_path / "out")}
    assert texts == {f"{who} of {city}" for who in ("Ada, 36,", "Alan, 41,") for city in ("Rome", "Oslo")}
    (tmp_path / "cities.tsv").write_text("Rome\nParis\n")
    with pytest.raises(RunConflict, match=re.escape("cities.tsv")):
        run(recipes.load(tmp_path / "recipe.yaml"), tmp_path / "out")


def test_progress_is_told(tmp_path):
    events = []
    run(make(tmp_path, AUGMENTED, lines(30)), tmp_path / "out", progress=events.append)
    finished = [event for event in events if event.finished]
    assert [event.stage for event in finished] == ["read", "augment", "output"]
    assert finished[1].rows_in == 90
    assert finished[1].rows_out + finished[1].rejected == 90
    assert all(event.stages == 3 for event in events)


WHOLE = """\
version: 1
seed: 7
sources:
  - {name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human, keep: [id]}
  - {name: made, path: made.jsonl, license: MIT, kind: generated, generation: 1, generator: m@1}
stages:
  - augment:
      variants: 2
      ops:
        - TokenDropout: {rate: 0.02}
        - KeyboardTypo: {rate: 0.01}
        - TokenDropout: {rate: 0.02}
  - templates:
      name: sums
      count: 300
      license: CC0-1.0
      grammar: "task = what is {a=int 2..99} plus {b=int 2..99}? <answer>é{=a+b}</answer>"
  - dedup: {threshold: 0.8}
  - measure: {reference: real}
mix: {max_synthetic: 0.7, retain_real: 0.9}
output: {rows_per_shard: 150}
"""


def whole(folder):
    recipe = make(folder, WHOLE, [*lines(200), *({**record, "id": record["id"] + "x"} for record in lines(20))])
    write_lines(folder / "made.jsonl", [{"text": record["text"]} for record in [*lines(5), *lines(20, seed=2)]])
    return recipe


@pytest.mark.usefixtures("small_units")
def test_all_stages_together(tmp_path):
    recipe = whole(tmp_path)
    out = tmp_path / "out"
    run(recipe, out, workers=2)
    run(recipe, tmp_path / "one", workers=1)
    assert content(out) == content(tmp_path / "one")
    check(out)
    rows = rows_of(out)
    report = json.loads((out / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == ["read", "augment", "sums", "dedup", "measure", "mix"]
    for stage in report["stages"]:
        assert stage["in"] + stage["created"] == stage["out"] + stage["rejected"]
        assert stage["tokens"] > 0
    rejected = rejects_of(out)
    assert len(rejected) == sum(stage["rejected"] for stage in report["stages"])

    # Of equal texts the real one stays, then the one with the smaller id.
    texts = {row["provenance"]["record_id"]: row for row in rows}
    copies = [row for row in rejected if row["reason"] == "duplicate"]
    assert len([row for row in copies if row["stage"] == "dedup"]) >= 25
    seen = texts | {row["record_id"]: row for row in rejected}
    for row in copies:
        assert seen[row["kept"]]["text"] == row["text"]
        assert row["similarity"] == 1
    for row in rejected:
        if row["reason"] == "near_duplicate":
            assert row["kept"] in seen
            assert 0.8 <= row["similarity"] <= 1
    human = [row for row in rows if row["provenance"]["kind"] == "human"]
    assert len(human) == 200
    assert all(row["provenance"]["parents"] == [] for row in human)
    assert sorted({row["provenance"]["source"] for row in rows}) == ["made", "real", "sums"]

    sums = [row for row in rows if row["provenance"]["kind"] == "templated"]
    assert len({row["text"] for row in sums}) == len(sums) > 0
    for row in sums:
        bound, (span,) = json.loads(row["bindings"]), row["spans"]
        assert row["text"][span["start"] : span["end"]] == f"é{bound['a'] + bound['b']}"
        assert span["tag"] == "answer"
        assert row["text"].startswith(f"what is {bound['a']} plus {bound['b']}?")
    for row in rows:
        if row["provenance"]["generator"] == "m@1":
            assert row["provenance"]["generation"] == 1
        assert (row["id"] is None) == (row["provenance"]["source"] != "real")

    tokens = {kind: share["tokens"] for kind, share in report["shares"]["kind"].items()}
    synthetic = sum(count for kind, count in tokens.items() if kind != "human")
    assert synthetic <= 0.7 * sum(tokens.values())
    assert report["measures"]["real"]["coverage"] == 1
    assert report["measures"]["measure"]["tail_coverage"] == 1
    assert report["measures"]["measure"]["duplicate_share"] == 0
    example = next(e for e in report["stages"][3]["examples"] if e["reason"] == "duplicate")
    assert example["kept"]["text"] == example["dropped"]["text"]


@pytest.mark.usefixtures("small_units")
def test_a_cut_run_of_all_stages_continues_to_the_same_bytes(tmp_path):
    recipe = whole(tmp_path)
    taken = snapshots(recipe, tmp_path / "out", tmp_path / "taken")
    before = content(tmp_path / "out")
    stages = [path.name.split("-")[1] for path in taken]
    assert set(stages) == {"read", "augment", "sums", "dedup", "measure", "mix", "output"}
    for path in taken[:: max(1, len(taken) // 20)]:
        run(recipe, path, workers=3)
        assert content(path) == before, path
        check(path)


def test_two_stages_of_the_same_ops_draw_different_noise(tmp_path):
    text = (
        PLAIN
        + """\
stages:
  - augment: {name: first, ops: [{KeyboardTypo: {rate: 0.05}}]}
  - augment: {name: second, ops: [{KeyboardTypo: {rate: 0.05}}]}
"""
    )
    run(make(tmp_path, text, lines(20)), tmp_path / "out")
    texts = [row["text"] for row in rows_of(tmp_path / "out")]
    assert len(texts) == 80
    assert len(set(texts)) == 80


PARAPHRASED = (
    PLAIN
    + """\
stages:
  - paraphrase: {variants: 3, rules: rules.tsv}
output: {rows_per_shard: 150}
"""
)


def sayings(folder, text=PARAPHRASED):
    """A recipe whose records can be said in many ways, in one other way, or in none."""
    (folder / "rules.tsv").write_text("in order to\tto | so as to\nalpha\tfirst letter\n", "utf-8")
    parts = ["In order to win in order to lose, gämma %d.", "alpha%d", "So it was in order to %d, once."]
    return make(folder, text, [{"text": parts[n % 3] % n, "id": f"r{n}"} for n in range(120)])


@pytest.mark.usefixtures("small_units")
def test_paraphrases_are_distinct_and_the_ledger_says_which_could_not_be_had(tmp_path):
    out = tmp_path / "out"
    recipe = sayings(tmp_path)
    run(recipe, out, workers=2)
    check(out)
    rows, rejected = rows_of(out), rejects_of(out)
    originals = {row["provenance"]["record_id"]: row["text"] for row in rows if row["provenance"]["kind"] == "human"}
    made = {}
    manifest = json.loads((out / "manifest.json").read_text())
    for row in rows:
        if row["provenance"]["kind"] == "human":
            continue
        assert (row["provenance"]["kind"], row["provenance"]["license"]) == ("augmented", "PSF-2.0")
        said = manifest["ops"][row["provenance"]["ops"]]["paraphrase"]
        assert said["rules"] == hashlib.sha256((tmp_path / "rules.tsv").read_bytes()).hexdigest()
        (parent,) = row["provenance"]["parents"]
        made.setdefault(originals[parent], []).append(row["text"])
    assert len(originals) == 120
    assert all(text not in said and len({*said}) == len(said) <= 3 for text, said in made.items())
    assert {len(said) for text, said in made.items() if text.startswith("In order")} == {3}
    assert {len(said) for text, said in made.items() if text.startswith("So it")} <= {1, 2, 3}
    assert not [text for text in made if text.startswith("alpha")]
    assert {row["reason"] for row in rejected} == {"unchanged", "repeated"}
    assert all(row["reason"] == "unchanged" for row in rejected if row["text"].startswith("alpha"))
    assert sum(map(len, made.values())) + len(rejected) == 360
    ids = [row["provenance"]["record_id"] for row in rows] + [row["record_id"] for row in rejected]
    assert len({*ids}) == len(ids)
    stage = json.loads((out / "report.json").read_text())["stages"][1]
    assert stage["in"] + stage["created"] == stage["out"] + stage["rejected"]
    assert stage["short"] == sum(len(made.get(text, [])) < 3 for text in originals.values())
    assert stage["examples"][0]["op"] == "Rewriter + Contraction + Synonym"
    planned = plan(recipe).stages[1]
    assert (planned.rows_in, planned.rows_out, planned.rejected) == (120, len(rows), len(rejected))
    with pytest.raises(InvalidInput, match=r"has 0 of 3 variants after 16 candidates: raise candidates"):
        run(sayings(tmp_path, PARAPHRASED.replace("{variants", "{exhausted: error, variants")), tmp_path / "error")


@pytest.mark.usefixtures("small_units")
def test_a_cut_run_of_paraphrases_continues_to_the_same_bytes(tmp_path):
    recipe = sayings(tmp_path)
    taken = snapshots(recipe, tmp_path / "out", tmp_path / "taken")
    for path in taken[:: max(1, len(taken) // 8)]:
        run(recipe, path, workers=3)
        assert content(path) == content(tmp_path / "out"), path
        check(path)


def test_rules_of_a_stage_are_placed(tmp_path):
    recipe = sayings(tmp_path)
    (tmp_path / "rules.tsv").write_text("a {x}\t{y}\n", "utf-8")
    with pytest.raises(InvalidInput, match=rf"^rules: {tmp_path}/rules.tsv: line 1, column 7: the pattern has no"):
        run(recipe, tmp_path / "out")
    (tmp_path / "rules.tsv").unlink()
    with pytest.raises(InvalidInput, match=r"rules.tsv cannot be read"):
        plan(recipe)
    assert not (tmp_path / "out").exists()


def test_a_broken_grammar_is_placed(tmp_path):
    text = 'version: 1\nstages: [{templates: {count: 3, grammar: "a = {b"}}]\n'
    with pytest.raises(InvalidInput, match=r"^grammar of stage 'templates': line 1, column \d+: "):
        run(make(tmp_path, text), tmp_path / "out")
    (tmp_path / "g.txt").write_text("a = hello\nb = {c")
    text = "version: 1\nstages: [{templates: {count: 3, path: g.txt}}]\n"
    with pytest.raises(InvalidInput, match=rf"^{tmp_path}/g.txt: line 2, column \d+: "):
        run(make(tmp_path, text), tmp_path / "out")
    text = "version: 1\nstages: [{templates: {count: 3, grammar: 'a = x | y'}}]\n"
    with pytest.raises(InvalidInput) as caught:
        run(make(tmp_path, text), tmp_path / "out")
    message = (
        "stage 'templates' asks for 3 records, but its grammar has 2: lower count, or repeat some with law: weights"
    )
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
    repeated = run(make(tmp_path, text.replace("count: 3", "count: 3, law: weights")), tmp_path / "out")
    assert repeated.rows == 3


# What a killed run leaves, and what becomes of it.


@pytest.mark.usefixtures("small_units")
def test_what_was_committed_is_never_done_again(tmp_path):
    recipe = make(tmp_path, AUGMENTED, lines(300))
    taken = snapshots(recipe, tmp_path / "whole", tmp_path / "taken")
    rng = np.random.default_rng(3)
    for cut in taken[:: max(1, len(taken) // 9)]:
        journal = cut / "journal.log"
        committed, whole = _journal.replay(journal.read_bytes())
        assert whole == journal.stat().st_size
        torn = _journal.frame({"record": "part", "never": "finished"})
        journal.write_bytes(journal.read_bytes() + torn[: rng.integers(1, len(torn))])
        (cut / "stages" / "01-augment").mkdir(parents=True, exist_ok=True)
        (cut / "stages" / "01-augment" / ".tmp-part-00099.parquet").write_bytes(b"half")
        (cut / "stages" / "01-augment" / "part-00099-0123456789abcdef.parquet").write_bytes(b"not in the journal")
        kept = [name for name in _engine.committed_files(committed) if (cut / name).exists()]
        assert kept or len(committed) < 2
        before = {name: (cut / name).stat().st_mtime_ns for name in kept}
        result = run(recipe, cut, workers=1 + len(committed) % 2)
        assert result.continued
        assert content(cut) == content(tmp_path / "whole"), cut
        left = [name for name in kept if (cut / name).exists()]
        assert all(before[name] == (cut / name).stat().st_mtime_ns for name in left)
        assert [name for name in kept if not name.startswith("stages/")] == [n for n in left if "stages" not in n]
        check(cut)


CHILD = """
import os, signal, sys
from variegate import _store
from variegate.run import _inputs, _journal, run
_inputs.UNIT_BYTES = 8192
left, where = int(sys.argv[3]), sys.argv[4]
def count(function, name):
    def counted(*args, **named):
        global left
        if name == where:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **named)
    return counted
os.replace = count(os.replace, "before rename")
_store.fsync_folder = count(_store.fsync_folder, "after rename")
write = _journal._write_all
def torn(file, data):
    global left
    if where == "in journal":
        left -= 1
        if left < 0:
            file.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    write(file, data)
_journal._write_all = torn
run(sys.argv[1], sys.argv[2], workers=2)
"""


@pytest.mark.parametrize("where", ["before rename", "after rename", "in journal"])
def test_killed_runs_continue_to_the_same_bytes(where, tmp_path, small_units):
    recipe = make(tmp_path, AUGMENTED, lines(300))
    run(recipe, tmp_path / "whole")
    out = tmp_path / "killed"
    for steps in (1, 9, 21):
        command = [sys.executable, "-c", CHILD, str(tmp_path / "recipe.yaml"), str(out), str(steps), where]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
    run(recipe, out, workers=1)
    assert content(out) == content(tmp_path / "whole")
    check(out)


@given(st.binary(max_size=200))
@examples(300)
def test_any_bytes_are_a_journal_with_a_torn_tail(data):
    for prefix in (b"", _journal.MAGIC, _journal.MAGIC + _journal.frame({"record": "start"})):
        records, whole = _journal.replay(prefix + data)
        assert 0 <= whole <= len(prefix + data)
        assert len(records) >= prefix.count(b"start")
        again, same = _journal.replay((prefix + data)[:whole])
        assert (again, same) == (records, whole)


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=9)), max_size=5), st.data())
@examples(100)
def test_journals_lose_no_more_than_what_is_damaged(records, data):
    frames = [_journal.frame(record) for record in records]
    whole = _journal.MAGIC + b"".join(frames)
    assert _journal.replay(whole) == (records, len(whole))
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    before = sum(len(_journal.MAGIC) + sum(map(len, frames[: i + 1])) <= at for i in range(len(frames)))
    found, _ = _journal.replay(bytes(flipped))
    assert found == (records[:before] if at >= len(_journal.MAGIC) else [])


def finished(tmp_path):
    out = tmp_path / "out"
    run(make(tmp_path, AUGMENTED, lines(200)), out)
    return out


def corrupt(out):
    with pytest.raises(CorruptRun) as caught:
        check(out)
    return str(caught.value)


def test_every_kind_of_damage_has_its_message(tmp_path):
    out = finished(tmp_path)
    path = sorted((out / "data").iterdir())[1]
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert corrupt(out) == f"{path} was altered: its SHA-256 is not the one in the journal"
    path.write_bytes(data[:-1])
    assert corrupt(out) == f"{path} is truncated: {len(data) - 1} bytes instead of {len(data)}"
    path.write_bytes(data + b"x")
    assert corrupt(out) == f"{path} is longer than it was: {len(data) + 1} bytes instead of {len(data)}"
    path.unlink()
    assert corrupt(out) == f"{path} is missing, though the journal has it"
    path.write_bytes(data)
    extra = out / "data" / "more.parquet"
    extra.write_bytes(data)
    assert corrupt(out) == f"{extra} does not belong to the set: the journal does not list it"
    extra.unlink()
    extra = out / "rejects" / "more.parquet"
    extra.write_bytes(data)
    assert corrupt(out) == f"{extra} does not belong to the ledger: the journal does not list it"
    extra.unlink()
    for name in ("manifest.json", "recipe.lock.yaml", "report.json"):
        document = out / name
        text = document.read_text()
        document.write_text(text.replace("human", "humane", 1))
        assert corrupt(out) == f"{document} was altered: its SHA-256 is not the one in the journal"
        document.unlink()
        assert corrupt(out) == f"{document} is missing"
        document.write_text(text)
    rejects = next((out / "rejects").rglob("*.parquet"), None) or next((out / "stages").rglob("*.parquet"))
    held = rejects.read_bytes()
    rejects.write_bytes(held[:-1] + bytes([held[-1] ^ 128]))
    assert corrupt(out) == f"{rejects} was altered: its SHA-256 is not the one in the journal"
    rejects.write_bytes(held)
    journal = out / "journal.log"
    held = journal.read_bytes()
    journal.write_bytes(held + b"xx")
    assert corrupt(out) == f"{journal} is torn or altered at byte {len(held)}"
    journal.write_bytes(held)
    check(out)
    with pytest.raises(InvalidInput) as caught:
        check(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no run: there is no journal.log"


def test_an_unfinished_run_is_not_a_checked_one(tmp_path):
    out = finished(tmp_path)
    records, _ = _journal.replay((out / "journal.log").read_bytes())
    (out / "journal.log").write_bytes(_journal.MAGIC + b"".join(map(_journal.frame, records[:-1])))
    assert corrupt(out) == f"{out} is not finished: run the same command again to continue"


@pytest.mark.usefixtures("small_units")
def test_a_damaged_part_stops_the_run_that_would_continue(tmp_path):
    recipe = make(tmp_path, AUGMENTED, lines(200))
    out = snapshots(recipe, tmp_path / "whole", tmp_path / "taken")[-4]
    part = sorted((out / "stages" / "01-augment").iterdir())[-1]
    data = part.read_bytes()
    part.unlink()
    with pytest.raises(CorruptRun) as caught:
        run(recipe, out)
    assert str(caught.value) == f"{part} is missing, though the journal has it"
    part.write_bytes(data[:-4] + b"oops")
    with pytest.raises(CorruptRun) as caught:
        run(recipe, out)
    assert str(caught.value) == f"{part} was altered: its SHA-256 is not the one in the journal"
    part.write_bytes(data)
    run(recipe, out)
    check(out)


def test_a_journal_that_lost_its_start_is_not_begun_anew(tmp_path):
    out = finished(tmp_path)
    (out / "journal.log").write_bytes(_journal.MAGIC[:5])
    with pytest.raises(CorruptRun) as caught:
        run(recipes.load(tmp_path / "recipe.yaml"), out)
    message = f"{out / 'journal.log'} is damaged at its start, though there are parts: choose a new directory"
    assert str(caught.value) == message


def test_a_moved_run_still_verifies_and_continues(tmp_path):
    (tmp_path / "here").mkdir()
    finished(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    out = tmp_path / "there" / "out"
    check(out)
    assert run(recipes.load(tmp_path / "there" / "recipe.yaml"), out).already_complete


def test_files_are_synced_before_they_count(tmp_path, monkeypatch):
    recipe = make(tmp_path, PLAIN, lines(5))
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        real_fsync(handle)

    def replace(old, new):
        calls.append(("rename", os.path.basename(new)))
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    run(recipe, tmp_path / "out", workers=1)
    renamed = [at for at, (what, name) in enumerate(calls) if what == "rename" and name.startswith("part-")]
    assert len(renamed) == 2
    for at, folder in zip(renamed, ("00-read", "data"), strict=True):
        assert calls[at - 1] == ("fsync", ".tmp-part-00000.parquet")
        assert calls[at + 1 : at + 3] == [("fsync", folder), ("fsync", "journal.log")]
    assert calls[-1] == ("fsync", "journal.log")


@pytest.mark.parametrize(
    ("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (b"\xff", r"b'\xff'"), ([b"x"], "[b'x']")]
)
def test_what_json_cannot_write_is_refused_by_field(value, shown):
    table = pa.table({"extra": pa.array([value])})
    with pytest.raises(InvalidInput) as error:
        _records.to_jsonl(table)
    assert str(error.value) == f"JSON has no way to write {shown} of field 'extra': choose format parquet"


QUESTIONS = [
    "What is the largest moon of the planet that has the most rings of all?",
    "Why do the leaves of a maple turn red before they fall in the autumn?",
    "name the moon",
]

AGAINST = (
    PLAIN
    + """\
stages:
  - decontaminate: {evaluation: 'evals/*.jsonl', text: question, ngram: 8}
  - overlap: {protected: book.txt, ngram: 10, threshold: 0.6, longest: 25}
"""
)


def against(folder, text=AGAINST):
    """A recipe whose records hold evaluation items and parts of a book, or none of them."""
    (folder / "evals").mkdir(exist_ok=True)
    (folder / "evals" / "a.jsonl").write_text(json.dumps({"question": QUESTIONS[0]}) + "\n", "utf-8")
    lines_ = [json.dumps({"question": question}) for question in QUESTIONS[1:]]
    (folder / "evals" / "b.jsonl").write_text("\n".join(lines_) + "\n", "utf-8")
    (folder / "book.txt").write_text(" ".join(f"word{n}" for n in range(200)) + "\n", "utf-8")
    texts = [
        f"Quiz:\n{QUESTIONS[0].upper()}\nTitan, of course.",
        "Why do the leaves of most trees turn red, then?",
        "He said: why do the leaves of a maple turn red before they drop",
        "Name the moon. Then tell me what the others are called, all of them",
        " ".join(f"Word{n}," for n in range(50, 70)),
        " ".join([f"word{n}" for n in range(30)] + [f"own{n}" for n in range(70)]),
        " ".join([f"word{n}" for n in range(20)] + [f"own{n}" for n in range(80)]),
    ]
    return make(folder, text, [{"text": text, "id": f"r{n}"} for n, text in enumerate(texts)])


def test_records_go_for_what_they_share_with_evaluation_items_or_protected_texts(tmp_path):
    out = tmp_path / "out"
    recipe = against(tmp_path)
    run(recipe, out)
    check(out)
    rows, rejected = rows_of(out), {row["text"]: row for row in rejects_of(out)}
    starts = sorted(row["text"][:9] for row in rows)
    assert starts == sorted(["Why do th", "Name the ", "word0 wor"])
    assert next(row["text"] for row in rows if row["text"].startswith("word0")).count("own") == 80
    reasons = {text[:6]: (row["stage"], row["reason"]) for text, row in rejected.items()}
    assert reasons == {
        "Quiz:\n": ("decontaminate", "contaminated"),
        "He sai": ("decontaminate", "contaminated"),
        "Word50": ("overlap", "protected"),
        "word0 ": ("overlap", "protected"),
    }
    for text, row in rejected.items():
        start, end, place = re.fullmatch(r"bytes (\d+) to (\d+) are in (.*)", row["message"]).groups()
        part = text.encode()[int(start) : int(end)].decode()
        expected = {
            "Quiz:\n": (QUESTIONS[0].upper(), "evals/a.jsonl:1", 1),
            "He sai": ("why do the leaves of a maple turn red before they", "evals/b.jsonl:1", 11 / 15),
            "Word50": (text, "book.txt:1", 1),
            "word0 ": (" ".join(f"word{n}" for n in range(30)), "book.txt:1", 0.3),
        }[text[:6]]
        assert (part, place) == expected[:2]
        assert row["similarity"] == pytest.approx(expected[2])
    stages = json.loads((out / "report.json").read_text())["stages"]
    assert [stage["rejected"] for stage in stages[1:3]] == [2, 2]
    assert [stage.rejected for stage in plan(recipe).stages[1:3]] == [2, 2]
    read = {item["path"]: item["sha256"] for item in json.loads((out / "manifest.json").read_text())["inputs"]}
    assert read["book.txt"] == hashlib.sha256((tmp_path / "book.txt").read_bytes()).hexdigest()
    assert {"evals/a.jsonl", "evals/b.jsonl"} <= read.keys()
    (tmp_path / "book.txt").write_text("another book\n", "utf-8")
    with pytest.raises(RunConflict, match=r"input book\.txt of 'overlap' has changed"):
        run(recipe, out)
    with pytest.raises(InvalidInput, match=r"no file matches .*nothing\*\.jsonl"):
        run(against(tmp_path, AGAINST.replace("evals/*", "nothing*")), tmp_path / "none")
    with pytest.raises(InvalidInput, match=r"has no field 'answer'|'answer'"):
        run(against(tmp_path, AGAINST.replace("text: question", "text: answer")), tmp_path / "none")
    assert not (tmp_path / "none").exists()
