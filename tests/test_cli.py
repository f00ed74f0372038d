"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from variegate import TextBatch, __version__, _core, _dedup_files, _doctor, cli, dedup, demo, errors, recipe
from variegate import run as runs
from variegate._progress import show
from variegate.run import Event

RECIPE = """\
version: 1
seed: 7
sources:
  - {name: py, path: in.jsonl, text: text, id: id, license: PSF-2.0, kind: human}
stages:
  - augment: {variants: 2, ops: [{TokenDropout: {rate: 0.1}}, {KeyboardTypo: {rate: 0.05}}]}
  - dedup: {threshold: 0.8}
output: {format: parquet, rows_per_shard: 50}
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def variegate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["variegate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a recipe and its input."""
    records = [{"id": f"r{n}", "text": f"Line {n} of the input says {n * n} and little else."} for n in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def refused(done: Done, code: int, message: str) -> None:
    """One line on stderr, nothing on stdout, no traceback."""
    assert done.err == f"variegate: {message}\n"
    assert (done.code, done.out) == (code, "")


def test_version(variegate: Any) -> None:
    assert variegate("--version") == Done(0, f"variegate {__version__}\n", "")


def test_help_names_every_command_and_exit_code(variegate: Any) -> None:
    done = variegate("--help")
    assert done.code == 0
    for command in ("run", "validate", "plan", "demo", "report", "check", "diff", "dedup", "doctor", "schema"):
        assert f"│ {command} " in done.out
    for code, meaning in cli.EXIT_CODES.items():
        assert f"{code:>3}  {meaning}" in done.out


def test_the_documentation_has_every_exit_code() -> None:
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    for code, meaning in cli.EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text


def test_no_command_shows_the_help_and_is_a_mistake(variegate: Any) -> None:
    done = variegate()
    assert done.code == 2
    assert "Usage: variegate [OPTIONS] COMMAND" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["walk"], "No such command 'walk' (see variegate --help)"),
        (["run", "r.yaml"], "Missing option '--out' / '-o' (see variegate run --help)"),
    ],
)
def test_a_wrong_command_line(variegate: Any, arguments: list[str], message: str) -> None:
    refused(variegate(*arguments), 2, message)


def test_too_few_workers(variegate: Any, made: Path) -> None:
    done = variegate("run", made / "recipe.yaml", "-o", made / "out", "--workers", "0")
    assert done.code == 2
    assert done.err.startswith("variegate: Invalid value for '--workers' / '-w': ")
    assert done.err.endswith(" (see variegate run --help)\n")
    assert not (made / "out").exists()


def test_a_missing_recipe(variegate: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    message = f"{path}: cannot read the recipe: No such file or directory"
    for command in ("validate", "plan"):
        refused(variegate(command, path), 2, message)
    refused(variegate("run", path, "-o", tmp_path / "out"), 2, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threshold", "treshold"), "7:13: unknown key 'treshold' (did you mean 'threshold'?)"),
        (("TokenDropout", "TokenDropuot"), "6:34: there is no op 'TokenDropuot' (did you mean 'TokenDropout'?)"),
        (("version: 1", "version: 2"), "1:1: version is 2: write 'version: 1', which this release reads"),
    ],
)
def test_a_wrong_recipe(variegate: Any, made: Path, change: tuple[str, str], message: str) -> None:
    path = made / "recipe.yaml"
    path.write_text(RECIPE.replace(*change), encoding="utf-8")
    refused(variegate("validate", path), 2, f"{path}:{message}")
    refused(variegate("run", path, "-o", made / "out"), 2, f"{path}:{message}")
    assert not (made / "out").exists()


def test_validate(variegate: Any, made: Path) -> None:
    path = made / "recipe.yaml"
    digest = recipe.load(path).hash()[:12]
    done = variegate("validate", path)
    assert done == Done(0, f"{path} is valid: 1 source, 2 stages, seed 7, hash {digest}\n", "")


def test_plan_shows_rows_and_writes_nothing(variegate: Any, made: Path) -> None:
    before = sorted(made.iterdir())
    done = variegate("plan", made / "recipe.yaml")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert any(line[:2] == ["py", "1"] and line[-1] == "60" for line in lines)
    taken, passed, rejected = next(map(int, line[1:4]) for line in lines if line[:1] == ["augment"])
    assert (taken, passed + rejected) == (60, 180)
    assert any(line[:2] == ["would", "take"] and "disk" in line for line in lines)
    assert re.match(r"would write \d+ records with ", done.out.splitlines()[-2])
    assert sorted(made.iterdir()) == before


def test_plan_scales_a_source_of_several_units(variegate: Any, made: Path) -> None:
    line = json.dumps({"id": "r{}", "text": "A line of the input that says little. " * 25})
    (made / "in.jsonl").write_text("".join(line.replace("{}", str(n)) + "\n" for n in range(12_000)), encoding="utf-8")
    cells = variegate("plan", made / "recipe.yaml").out.splitlines()[1].split()
    assert cells[:2] == ["py", "1"]
    assert cells[-1].startswith("~")
    assert abs(int(cells[-1][1:].replace(",", "")) - 12_000) < 120


def test_schema_is_json_schema(variegate: Any) -> None:
    done = variegate("schema")
    assert done.code == 0
    assert json.loads(done.out) == recipe.Recipe.json_schema()


def test_run_check_report(variegate: Any, made: Path) -> None:
    out = made / "out"
    done = variegate("run", made / "recipe.yaml", "-o", out, "-w", "2")
    assert done.code == 0
    report = json.loads((out / "report.json").read_text("utf-8"))
    rows, rejected = report["output"]["rows"], sum(stage["rejected"] for stage in report["stages"])
    lines = done.out.splitlines()
    assert lines[0] == f"{rows:,} records in {out / 'data'}, {rejected:,} in {out / 'rejects'}"
    assert lines[1].startswith("finished in ")
    assert lines[2] == f"report: {out / 'report.html'}"
    events = [json.loads(line) for line in done.err.splitlines()]
    assert [event["stage"] for event in events if event["finished"]] == ["read", "augment", "dedup", "output"]

    again = variegate("run", made / "recipe.yaml", "-o", out, "--progress", "none")
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines()[0] == f"{out} was already complete: nothing to do"

    checked = variegate("check", out)
    assert checked.code == 0
    assert checked.out.startswith(f"{out} is intact: {rows:,} records in ")
    assert checked.out.splitlines()[1] == f"merkle root {report['output']['merkle_root']}"

    (out / "report.html").unlink()
    assert variegate("report", out) == Done(0, f"{out / 'report.html'}\n", "")
    assert (out / "report.html").stat().st_size > 10_000


SUMS = "task = {a=int 2..99}{sign}{b=int 2..99} = <answer>{=a+b}</answer>( ok)?\nsign = \\ +\\ \n"


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.grammar"
    path.write_text(SUMS)
    return path


def test_grammar_explain_counts_rules(variegate: Any, sums: Path) -> None:
    done = variegate("grammar", "explain", sums)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "19,208 derivations from 'task', 2 rules\n\nrule  derivations\ntask       19,208\nsign            1\n"
    )
    done = variegate("grammar", "explain", sums, "--start", "sign")
    assert done.out.startswith("1 derivation from 'sign', 2 rules\n")
    sums.write_text("x = " + "".join(f"{{x{i}=int 1..99}}" for i in range(50)))
    assert variegate("grammar", "explain", sums).out.splitlines()[-1].split() == ["x", "about", "6.050e99"]


def test_grammar_explain_shows_derivations(variegate: Any, sums: Path) -> None:
    done = variegate("grammar", "explain", sums, "--index", "10")
    assert done.code == 0
    assert done.out == (
        "19,208 derivations from 'task', 2 rules\n\n"
        "derivation 10\n"
        '  task: "2 + 7 = 9"\n'
        "    a = 2\n"
        '    sign: " + "\n'
        "    b = 7\n"
        '    <answer>: "9"\n'
        '      {=a+b}: "9"\n'
        "    (...)?, left out\n"
        "bindings: a = 2, b = 7\n"
        "text: 2 + 7 = 9\n"
    )
    found = json.loads(variegate("grammar", "explain", sums, "--sample", "3", "--seed", "1", "--json").out)
    assert (found["count"], found["rules"]) == (19208, {"task": 19208, "sign": 1})
    assert len(found["derivations"]) == 3
    for one in found["derivations"]:
        assert one["steps"][0]["text"] == one["text"]
        assert one["bindings"].keys() == {"a", "b"}
        (answer,) = one["spans"]
        assert int(one["text"][answer["start"] : answer["end"]]) == one["bindings"]["a"] + one["bindings"]["b"]


def test_grammar_sample_writes_json_lines(variegate: Any, sums: Path, tmp_path: Path) -> None:
    sums.write_text("x = é {a=int 1..3}({w=choice p, q})? <t>{a}</t>")
    shown = variegate("grammar", "sample", sums, "-n", "9", "--seed", "4", "--no-replace")
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert len({row["text"] for row in rows}) == 9
    for row in rows:
        (span,) = row["spans"]
        assert row["text"][span["start"] : span["end"]] == str(row["bindings"]["a"])
        assert ("w" in row["bindings"]) == (row["text"][3] in "pq")
    out = tmp_path / "out.jsonl"
    done = variegate("grammar", "sample", sums, "-n", "9", "--seed", "4", "--no-replace", "-o", out)
    assert done.out == f"9 texts in {out}\n"
    assert out.read_text(encoding="utf-8") == shown.out


def test_grammar_commands_take_lexicons_and_rows(variegate: Any, tmp_path: Path) -> None:
    for name, text in {
        "x.grammar": "x = {c=lex:city} {n=col:n}",
        "c.txt": "Rome\nOslo\n",
        "r.jsonl": '{"n": 7}\n',
    }.items():
        (tmp_path / name).write_text(text)
    given = (tmp_path / "x.grammar", "--lexicon", f"city={tmp_path / 'c.txt'}", "--rows", tmp_path / "r.jsonl")
    assert variegate("grammar", "explain", *given).out.startswith("2 derivations")
    lines = variegate("grammar", "sample", "-n", "2", "--no-replace", *given).out.splitlines()
    assert sorted(json.loads(line)["text"] for line in lines) == ["Oslo 7", "Rome 7"]
    done = variegate("grammar", "explain", tmp_path / "x.grammar", "--lexicon", "city")
    assert done.code == 2
    assert "--lexicon must be NAME=FILE" in done.err


def test_grammar_commands_write_dates_and_decimals_as_json(variegate: Any, sums: Path) -> None:
    sums.write_text("x = {p=float 0.5..2.0 step 0.5} {d=date 2024-02-28..2024-02-29} {b=choice true, false}")
    found = json.loads(variegate("grammar", "explain", sums, "--index", "0", "--json").out)
    expected = {"p": 0.5, "d": "2024-02-28", "b": True}
    assert found["derivations"][0]["bindings"] == expected
    drawn = [
        json.loads(line) for line in variegate("grammar", "sample", sums, "-n", "16", "--no-replace").out.splitlines()
    ]
    assert expected in [row["bindings"] for row in drawn]
    assert all(f"{row['bindings']['p']:.1f} {row['bindings']['d']} " in row["text"] for row in drawn)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--index", "19208"], 1, "nth: the index must be below count() = 19208 (it is 19208)"),
        (["--index", "x"], 2, "--index must be a whole number, 0 or more (it is x)"),
        (["--index", "1", "--sample", "1"], 2, "give --index or --sample, not both"),
        (["--start", "sing"], 1, "start: there is no rule 'sing' (did you mean 'sign'?)"),
    ],
)
def test_grammar_explain_says_what_is_wrong(
    variegate: Any, sums: Path, arguments: list[str], code: int, message: str
) -> None:
    done = variegate("grammar", "explain", sums, *arguments)
    assert done.code == code
    assert message in done.err
    assert done.out == ""


def test_grammar_explain_writes_counts_of_thousands_of_digits(variegate: Any, sums: Path) -> None:
    sums.write_text("".join(f"r{i} = {{r{i + 1}}}{{r{i + 1}}}\n" for i in range(14)) + "r14 = a | b\n", "utf-8")
    done = variegate("grammar", "explain", sums, "--json")
    assert done.code == 0
    assert json.loads(done.out)["count"] == 2**16384
    assert (
        variegate("grammar", "explain", sums, "--index", str(2**16384 - 1)).out.splitlines()[-1]
        == "text: " + "b" * 16384
    )


def test_a_grammar_with_a_mistake_is_shown_with_its_place(variegate: Any, sums: Path) -> None:
    sums.write_text("x = {nmae}\nname = a")
    done = variegate("grammar", "explain", sums)
    assert done.code == 1
    assert f"{sums}: line 1, column 6: undefined rule 'nmae' (did you mean 'name'?)" in done.err


def test_a_directory_of_another_recipe(variegate: Any, made: Path) -> None:
    out = made / "out"
    assert variegate("run", made / "recipe.yaml", "-o", out).code == 0
    other = made / "other.yaml"
    other.write_text(RECIPE.replace("seed: 7", "seed: 8"), encoding="utf-8")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = variegate("run", other, "-o", out, "--progress", "none")
    refused(done, 3, f"{out} belongs to another recipe: choose a new directory, or undo\n  -seed: 7\n  +seed: 8")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_directory_with_other_files(variegate: Any, made: Path) -> None:
    done = variegate("run", made / "recipe.yaml", "-o", made, "--progress", "none")
    refused(done, 3, f"{made} holds other files ('in.jsonl') and no run: choose a new directory")


def test_a_bad_line_of_the_data(variegate: Any, made: Path) -> None:
    with (made / "in.jsonl").open("a", encoding="utf-8") as file:
        file.write("{\n")
    done = variegate("run", made / "recipe.yaml", "-o", made / "out", "--progress", "none")
    assert done.code == 1
    assert done.err.startswith(f"variegate: {made / 'in.jsonl'}:61: ")
    assert done.err.count("\n") == 1
    assert not (made / "out").exists()


def test_check_finds_a_flipped_byte(variegate: Any, made: Path) -> None:
    out = made / "out"
    assert variegate("run", made / "recipe.yaml", "-o", out).code == 0
    shard = min((out / "data").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    refused(variegate("check", out), 1, f"{shard} was altered: its SHA-256 is not the one in the journal")


def test_check_and_report_where_no_run_is(variegate: Any, tmp_path: Path) -> None:
    refused(variegate("check", tmp_path), 1, f"{tmp_path} holds no run: there is no journal.log")
    path = tmp_path / "report.json"
    message = f"{path} is missing: finish the run first (variegate run RECIPE -o {tmp_path})"
    refused(variegate("report", tmp_path), 1, message)


@pytest.fixture
def two(variegate: Any, made: Path) -> tuple[Path, Path]:
    """Two finished runs that differ in a rate."""
    (made / "other.yaml").write_text(RECIPE.replace("{rate: 0.1}", "{rate: 0.2}"), encoding="utf-8")
    folders = made / "a", made / "b"
    for recipe_file, out in zip(("recipe.yaml", "other.yaml"), folders, strict=True):
        assert variegate("run", made / recipe_file, "-o", out, "--progress", "none").code == 0
    return folders


def test_diff_shows_what_changed(variegate: Any, two: tuple[Path, Path]) -> None:
    a, b = two
    found = runs.diff(a, b)
    done = variegate("diff", a, b, "--examples", "1")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"A: {a}, {found.output['rows'][0]} records (")
    assert lines[2] == "The final sets differ."
    changed = [line.split() for line in lines if line.startswith(("-  ", "+  "))]
    assert changed == [["-", "rate:", "0.1"], ["+", "rate:", "0.2"]]
    table = {line.split("  ")[0]: line.split() for line in lines}
    counts = found.records
    assert table["all"] == ["all", *(f"{n:,}" for n in (counts.same, counts.only_a, counts.only_b))]
    assert table["human, py"] == ["human,", "py", "60", "0", "0"]
    assert [line for line in lines if line.startswith("  made otherwise in B from the same parents")]
    [pair] = [number for number, line in enumerate(lines) if "(augmented, py): same parents as " in line]
    assert [line[:4] for line in lines[pair + 1 : pair + 3]] == ["  - ", "  + "]
    assert "\nstage " in done.out
    assert "\nshare " in done.out
    assert not [line for line in lines if line != line.rstrip()]


def test_diff_as_json_is_the_whole_of_it(variegate: Any, two: tuple[Path, Path]) -> None:
    done = variegate("diff", *two, "--json", "--examples", "2")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == runs.diff(*two, examples=2).to_dict()


def test_diff_tells_a_script_whether_the_sets_differ(variegate: Any, two: tuple[Path, Path]) -> None:
    a, b = two
    assert variegate("diff", a, b, "--exit-code").code == 1
    assert variegate("diff", a, b, "--exit-code", "--json").code == 1
    done = variegate("diff", a, a, "--exit-code")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[2:] == ["The final sets are identical, byte for byte.", "The recipes are the same."]


def test_diff_says_which_rejects_are_behind_it(variegate: Any, made: Path) -> None:
    out = made / "a", made / "b"
    strict = RECIPE.replace("threshold: 0.8", "threshold: 0.5, ngram: 1")
    for text, folder in ((RECIPE.replace("  - dedup: {threshold: 0.8}\n", ""), out[0]), (strict, out[1])):
        (made / "recipe.yaml").write_text(text, encoding="utf-8")
        assert variegate("run", made / "recipe.yaml", "-o", folder, "--progress", "none").code == 0
    done = variegate("diff", *out)
    assert "\nOf those only in A:\n  rejected in B by dedup (near_duplicate)  " in done.out
    assert "Of those only in B" not in done.out
    assert ": only in A, rejected in B by dedup (near_duplicate)\n" in done.out
    assert "\ndedup (only in B) " in done.out


def test_diff_cannot_drive_the_terminal(variegate: Any, made: Path) -> None:
    lines = (made / "in.jsonl").read_text("utf-8")
    assert variegate("run", made / "recipe.yaml", "-o", made / "a", "--progress", "none").code == 0
    bad = json.dumps({"id": "bad", "text": "first\n\x1b[2J and the rest of a longer line"})
    (made / "in.jsonl").write_text(lines + bad + "\n", encoding="utf-8")
    assert variegate("run", made / "recipe.yaml", "-o", made / "b", "--progress", "none").code == 0
    done = variegate("diff", made / "a", made / "b", "--examples", "99")
    assert "  + first\\n\\x1b[2J and the rest of a longer line\n" in done.out
    assert "\ninput in.jsonl of py: changed\n" in done.out
    assert "\x1b" not in done.out


def test_diff_where_no_finished_run_is(variegate: Any, made: Path, two: tuple[Path, Path]) -> None:
    refused(variegate("diff", two[0], made), 1, f"{made} holds no run: there is no journal.log")
    (two[1] / "manifest.json").unlink()
    refused(variegate("diff", *two), 1, f"{two[1] / 'manifest.json'} is missing")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RecipeError("m", file="f", line=3), 2),
        (errors.RunConflict("m"), 3),
        (errors.MissingExtra("m"), 4),
        (errors.SandboxUnavailable("m"), 4),
        (errors.CorruptRun("m"), 1),
        (errors.InvalidInput("m"), 1),
        (errors.VariegateError("m"), 1),
        (OSError(28, "No space left on device", "/out/data"), 1),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 1),
    ],
)
def test_every_kind_of_error_has_its_code_and_one_line(
    variegate: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(path: object) -> None:
        raise error

    monkeypatch.setattr(runs, "check", fail)
    done = variegate("check", "out")
    assert done.code == code
    assert code in cli.EXIT_CODES
    assert done.err.startswith("variegate: ")
    assert done.err.count("\n") == 1


def test_a_bug_shows_its_traceback(variegate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "check", lambda path: 1 // 0)
    done = variegate("check", "out")
    assert done.code == 70
    assert "ZeroDivisionError" in done.err
    assert done.err.endswith("variegate: this is a bug in Variegate: please report the lines above\n")


def test_an_error_cannot_drive_the_terminal(variegate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise errors.CorruptRun("bad \x1b[2J\x07\x9b text é 漢")

    monkeypatch.setattr(runs, "check", fail)
    assert variegate("check", "out").err == "variegate: bad \\x1b[2J\\x07\\x9b text é 漢\n"


LINES = [
    b'{"text":"one two three four five six seven eight nine ten eleven twelve", "n": 1e2}\n',
    b'{"n":2,  "text": "Something else."}\r\n',
    b"  \n",
    b'{"text": "one two three four five six seven eight nine ten eleven twelve thirteen"}\n',
    b'{"text": "caf\\u00e9 caf\xc3\xa9"}',
]
MORE = [b'{"text": "Something else.", "n": [3]}\n', b'{"text": "new here"}\n']


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two files of JSON lines that share a record."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_bytes(b"".join(LINES))
    Path("b.jsonl").write_bytes(b"".join(MORE))
    return tmp_path


def removed(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "removed.jsonl").read_text("utf-8").splitlines()]


def test_dedup_keeps_lines_as_they_are(variegate: Any, lines: Path) -> None:
    done = variegate("dedup", "a.jsonl", "b.jsonl", "-o", "out", "--progress", "json")
    assert done.code == 0
    assert done.out.splitlines()[0] == "6 records read, 4 kept in out; removed: 1 copy, 1 near-duplicate"
    events = [json.loads(line) for line in done.err.splitlines()]
    assert [(e["stage"], e["rows_in"], e["rows_out"]) for e in events if e["finished"]] == [
        ("read", 6, 6),
        ("compare", 6, 4),
        ("write", 6, 6),
    ]
    # The longest of similar records stays.
    assert Path("out/kept.jsonl").read_bytes() == LINES[1] + LINES[3] + LINES[4] + b"\n" + MORE[1]
    near, copy = removed("out")
    assert near == {
        "file": "a.jsonl",
        "row": 1,
        "duplicate_of": "a.jsonl:4",
        "similarity": pytest.approx(8 / 9, abs=1e-6),
        "record": json.loads(LINES[0]),
    }
    assert copy == {
        "file": "b.jsonl",
        "row": 1,
        "duplicate_of": "a.jsonl:2",
        "similarity": 1.0,
        "record": json.loads(MORE[0]),
    }
    assert {path.name for path in lines.iterdir()} == {"a.jsonl", "b.jsonl", "out"}


def test_dedup_options_reach_the_comparison(variegate: Any, lines: Path) -> None:
    def kept(*options: str) -> int:
        out = f"out{len(list(lines.iterdir()))}"
        assert variegate("dedup", "a.jsonl", "b.jsonl", "-o", out, *options).code == 0
        rows = len(Path(out, "kept.jsonl").read_bytes().splitlines())
        assert rows + len(removed(out)) == 6
        return rows

    assert kept("--threshold", "1") == 5
    assert kept("--threshold", "0.9") == 5
    assert kept("--mode", "exact") == 4
    assert kept("--ngram", "12") == 5  # 1 of 2 shingles
    assert kept("--keep", "none") == 2
    assert [(line["row"], line["duplicate_of"]) for line in removed("out6")][:2] == [
        (1, "a.jsonl:4"),
        (2, None),
    ]
    for preset in ("fineweb", "slimpajama"):
        assert kept("--preset", preset) == 4
    assert kept("--preset", "nemo", "--threshold", "0.95") == 5
    assert kept("--unit", "char", "--seed", "3") == 4


def test_dedup_is_the_same_in_little_memory_and_over_many_units(
    variegate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"record {n % 70} has the words {n % 70} and {n % 7} and so on" + " x" * (n % 3) for n in range(400)]
    records = [json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)]
    Path("a.jsonl").write_text("".join(records), encoding="utf-8")
    assert variegate("dedup", "a.jsonl", "-o", "all").code == 0
    assert variegate("dedup", "a.jsonl", "-o", "little", "--memory", "16MiB").code == 0
    monkeypatch.setattr("variegate.run._inputs.UNIT_BYTES", 500)
    with gzip.open("a.jsonl.gz", "wb") as file:
        file.write(Path("a.jsonl").read_bytes())
    assert variegate("dedup", "a.jsonl.gz", "-o", "units").code == 0
    kept = [Path(out, "kept.jsonl").read_text("utf-8") for out in ("all", "little", "units")]
    assert kept[0] == kept[1] == kept[2]
    gone = [[(line["row"], line["similarity"], line["record"]) for line in removed(out)] for out in ("all", "units")]
    assert gone[0] == gone[1]
    assert sorted(kept[0].splitlines() + [json.dumps(line[2]) for line in gone[0]]) == sorted(
        "".join(records).split("\n")[:-1]
    )
    assert 0 < len(gone[0]) < 400
    found = dedup.near(TextBatch.from_texts(texts, ids=range(len(texts))))
    assert [json.loads(line)["n"] for line in kept[0].splitlines()] == found.keep.nonzero()[0].tolist()
    assert [line["duplicate_of"] for line in removed("all")] == [
        f"a.jsonl:{keeper + 1}" for keeper in found.keeper[~found.keep]
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from([b"", b" ", b"\r"]),
                st.builds(
                    lambda words, ascii, end: json.dumps({"text": " ".join(words)}, ensure_ascii=ascii).encode() + end,
                    st.lists(st.sampled_from(["a", "b", "\u00e9", "\U0001f600", '"', "\n"]), max_size=7),
                    st.booleans(),
                    st.sampled_from([b"", b" ", b"\r"]),
                ),
            ),
            max_size=12,
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(20, 200),
)
def test_dedup_loses_no_line(files: list[list[bytes]], unit: int) -> None:
    records = [(f, r, line) for f, lines in enumerate(files) for r, line in enumerate(lines, 1) if line.strip()]
    assume(records)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("variegate.run._inputs.UNIT_BYTES", unit)
        paths = [Path(folder, f"{number}.jsonl") for number in range(len(files))]
        for path, lines in zip(paths, files, strict=True):
            path.write_bytes(b"\n".join(lines))
        out = Path(folder, "out")
        found = _dedup_files.deduplicate(paths, out, dedup.Deduper(threshold=0.5, ngram=2))
        texts = [json.loads(line)["text"] for _, _, line in records]
        batch = TextBatch.from_texts(texts, ids=range(len(texts)))
        assert found.keep.tolist() == dedup.near(batch, threshold=0.5, ngram=2).keep.tolist()
        kept = b"".join(line + b"\n" for (_, _, line), stays in zip(records, found.keep, strict=True) if stays)
        assert (out / "kept.jsonl").read_bytes() == kept
        gone = [
            (str(paths[f]), r, json.loads(line))
            for (f, r, line), stays in zip(records, found.keep, strict=True)
            if not stays
        ]
        assert [(one["file"], one["row"], one["record"]) for one in removed(str(out))] == gone


def test_dedup_of_text_and_of_parquet(variegate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(b'a "line"\r\n\nother\nA "line"\n')
    assert variegate("dedup", "a.txt", "-o", "text").code == 0
    assert Path("text/kept.txt").read_bytes() == b'a "line"\r\nother\n'
    assert [(line["row"], line["duplicate_of"], line["record"]) for line in removed("text")] == [
        (4, "a.txt:1", 'A "line"')
    ]
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int16()),
            "content": ["x y", "z", "x y", "z z"],
            "tags": [["a"], None, [], ["b", "c"]],
            "kind": pa.array(["k", "k", "l", None]).dictionary_encode(),
        }
    ).replace_schema_metadata({"made": "here"})
    pq.write_table(table, "a.parquet", row_group_size=3)
    pq.write_table(table.slice(3), "b.parquet")
    done = variegate("dedup", "a.parquet", "b.parquet", "-o", "rows", "--text", "content")
    assert done.code == 0, done.err
    kept = pq.read_table("rows/kept.parquet")
    assert kept.equals(table.take([0, 1, 3]))
    assert kept.schema.equals(pq.read_schema("a.parquet"), check_metadata=True)
    gone = pq.read_table("rows/removed.parquet").to_pylist()
    assert [(row["file"], row["row"], row["duplicate_of"], row["similarity"]) for row in gone] == [
        ("a.parquet", 3, "a.parquet:1", 1.0),
        ("b.parquet", 1, "a.parquet:4", 1.0),
    ]
    assert [row["record"] for row in gone] == table.take([2, 3]).to_pylist()
    pq.write_table(table.drop(["tags"]), "c.parquet")
    done = variegate("dedup", "a.parquet", "c.parquet", "-o", "two", "--text", "content")
    refused(
        done,
        1,
        "c.parquet has other columns than a.parquet: give both the same, or deduplicate them by themselves",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bad.jsonl"], 1, "bad.jsonl:2: field 'text' must be a string, not a number"),
        (["a.jsonl", "a.jsonl"], 1, "a.jsonl and a.jsonl are the same file: name it once"),
        (["a.jsonl", "no.jsonl"], 1, "cannot read no.jsonl: No such file or directory"),
        (["empty.jsonl"], 1, "empty.jsonl holds no record: it is empty"),
        (["a.jsonl", "a.txt"], 1, "a.txt is text, but a.jsonl is jsonl: give files of one format"),
        (
            ["a.csv"],
            1,
            "cannot deduplicate a.csv: its name must end in .jsonl, .txt (or with .gz or .zst after it) or .parquet",
        ),
        (["a.jsonl", "--text", ""], 1, "text must name a field (it is empty)"),
        (
            ["a.jsonl", "--threshold", "2"],
            2,
            "Invalid value: threshold must lie in (0, 1] (it is 2) (see variegate dedup --help)",
        ),
        (
            ["a.jsonl", "--unit", "token"],
            2,
            "Invalid value: --unit must be word or char (it is token) (see variegate dedup --help)",
        ),
        (
            ["a.jsonl", "--mode", "exact", "--memory", "1GB"],
            2,
            "Invalid value: mode 'exact' needs all rows at once: leave out memory= (see variegate dedup --help)",
        ),
    ],
)
def test_dedup_says_what_is_wrong_and_writes_nothing(
    variegate: Any, lines: Path, arguments: list[str], code: int, message: str
) -> None:
    Path("bad.jsonl").write_bytes(LINES[0] + b'{"text": 3}\n')
    Path("empty.jsonl").touch()
    Path("a.txt").write_text("text", encoding="utf-8")
    before = sorted(lines.iterdir())
    done = variegate("dedup", *arguments, "-o", "out", "--progress", "none")
    refused(done, code, message)
    assert sorted(lines.iterdir()) == before


def test_dedup_leaves_what_is_there(variegate: Any, lines: Path) -> None:
    Path("out").mkdir()
    done = variegate("dedup", "a.jsonl", "-o", "out")
    refused(done, 1, "out is there already: name a folder that is not")
    assert list(Path("out").iterdir()) == []


def test_dedup_passes_over_an_empty_file_among_others(variegate: Any, lines: Path) -> None:
    Path("empty.jsonl").touch()
    assert variegate("dedup", "empty.jsonl", "b.jsonl", "-o", "out").code == 0
    assert Path("out/kept.jsonl").read_bytes() == b"".join(MORE)
    assert removed("out") == []


def test_dedup_notices_a_file_that_changes_between_reading_and_copying(
    variegate: Any, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = dedup.Deduper.result

    def late(self: dedup.Deduper) -> dedup.DedupResult:
        Path("b.jsonl").write_bytes(b"".join(MORE).replace(b"new", b"old"))
        return result(self)

    monkeypatch.setattr(dedup.Deduper, "result", late)
    done = variegate("dedup", "a.jsonl", "b.jsonl", "-o", "out", "--progress", "none")
    refused(done, 1, "b.jsonl changed while it was read: start again when nobody writes it")
    assert {path.name for path in lines.iterdir()} == {"a.jsonl", "b.jsonl"}


def event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "stage": "dedup",
        "index": 1,
        "stages": 3,
        "parts": 2,
        "parts_total": 8,
        "rows_in": 2000,
        "rows_out": 1500,
        "rejected": 500,
        "top_reason": "near_duplicate",
        "seconds": 2.0,
        "rows_per_second": 1000.0,
        "tokens_per_second": 250_000.0,
        "finished": False,
    }
    return Event(**{**values, **changes})


class Terminal:
    """A stream that says it is a terminal and remembers what was drawn."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.drawn = ""

    def write(self, text: str) -> int:
        self.drawn += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_live_table_has_a_line_for_each_stage(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    terminal: Any = Terminal()
    with show("live", terminal) as told:
        assert told is not None
        told(event(stage="read", index=0, finished=True, rejected=0, rows_out=2000, top_reason=None))
        told(event())
    for shown in ("read", "dedup", "2,000", "75.0%", "100.0%"):
        assert shown in terminal.drawn
    assert ("near_duplicate" in terminal.drawn) == (width == 140)
    assert ("250k" in terminal.drawn) == (width == 140)


def test_json_progress_is_limited_but_never_loses_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    with show("json", sys.stderr) as told:
        assert told is not None
        for part in range(100):
            told(event(parts=part))
        told(event(parts=100, finished=True))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["parts"] == 0
    assert lines[-1]["finished"]
    assert len(lines) < 10


def test_doctor_passes_here(variegate: Any) -> None:
    done = variegate("doctor")
    assert (done.code, done.err) == (0, "")
    marks = {line[:3].strip() for line in done.out.splitlines()}
    assert marks <= {"ok", "-"}
    for what in ("variegate", "instructions", "philox", "streams", "tokenizer", "run", "check"):
        assert f"ok   {what} " in done.out


def test_doctor_finds_wrong_random_words(variegate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counter, key, words = _doctor._PHILOX[1]
    monkeypatch.setattr(_doctor, "_PHILOX", ((counter, key, (*words[:3], 0)), _doctor._PHILOX[0]))
    done = variegate("doctor")
    assert done.code == 1
    assert f"bad  philox          1 of 2 known answers are wrong, first for counter {counter}" in done.out
    assert done.err == "variegate: 1 check failed: see the lines marked 'bad' above\n"


def test_words_of_a_lane_that_is_not_there_are_refused() -> None:
    with pytest.raises(errors.InvalidInput, match=r"a stream has lanes 0\.\.16 of 2\^30 words: lane 16, 1 words"):
        _core.stream_words(0, 0, 0, 16, 1)


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _tokenizer() -> Any:
        raise OSError("no such tokenizer")

    monkeypatch.setattr(_doctor, "_tokenizer", _tokenizer)
    lines: list[str] = []
    assert _doctor.examine(lines.append) == 1
    assert "bad  tokenizer       OSError: no such tokenizer" in lines


def test_demo(variegate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = demo.prepare
    monkeypatch.setattr(demo, "prepare", lambda folder: prepare(folder, only=["json", "email"]))
    monkeypatch.setattr(demo, "RECIPE", demo.RECIPE.replace("count: 20000", "count: 200"))
    out = tmp_path / "out"
    done = variegate("demo", "-o", out, "--progress", "none")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"reading the standard library of this Python into {tmp_path / 'out-input'}"
    assert lines[1].startswith("corpus: ")
    assert lines[2] == f"recipe: {tmp_path / 'out-input' / 'recipe.yaml'}"
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert variegate("check", out).code == 0


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "variegate", *arguments], capture_output=True, text=True, check=False)


def test_the_module_is_the_command() -> None:
    done = in_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"variegate {__version__}\n", "")


def test_a_short_command_imports_nothing_heavy() -> None:
    script = (
        "import sys, variegate.cli; print(sorted({'pyarrow', 'pydantic', 'yaml', 'torch', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m variegate schema | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
