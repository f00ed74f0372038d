"""The demo: what its corpus holds, that its answers are right, and the whole job on a part of it."""

from __future__ import annotations

import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from variegate import demo, recipe, run, templates
from variegate.errors import CorruptRun, InvalidInput
from variegate.report import problems, render

ONLY = ("json", "email", "encodings", "pydoc_data")


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, str]]:
    return list(demo.records(only=ONLY))


def test_keys_are_unique_and_the_order_is_that_of_the_modules(corpus: list[tuple[str, str]]) -> None:
    keys = [key for key, _ in corpus]
    assert len(set(keys)) == len(keys)
    modules = [key.partition(":")[0] for key in keys]
    assert modules == sorted(modules)
    assert {module.partition(".")[0] for module in modules} == set(ONLY)
    assert corpus == list(demo.records(only=ONLY))


def test_records_are_of_a_sensible_size(corpus: list[tuple[str, str]]) -> None:
    sizes = sorted(len(text) for _, text in corpus)
    assert sizes[0] >= 20
    assert sizes[len(sizes) // 2] > 200
    assert sum(size > 3000 for size in sizes) < 0.03 * len(sizes)


def test_no_line_of_a_module_is_lost() -> None:
    source = Path(sysconfig.get_path("stdlib"), "json", "decoder.py").read_text("utf-8")
    texts = [text for key, text in demo.records(only=["json"]) if key.startswith("json.decoder:")]
    lines = {line.strip() for text in texts for line in text.split("\n")}
    missing = {line.strip() for line in source.split("\n")} - lines
    # A longer docstring is a text of its own, as it reads: without quotes and escapes.
    assert {line.strip('"').replace("\\\\", "\\") for line in missing} <= lines | {"r", ""}


def test_a_longer_docstring_is_a_text_and_leaves_the_code() -> None:
    texts = dict(demo.records(only=["json"]))
    doc = texts["json:dumps:doc:0"]
    assert doc.startswith("Serialize ``obj`` to a JSON formatted ``str``.")
    code = next(text for key, text in texts.items() if key.startswith("json:dumps:code:"))
    assert code.startswith("def dumps(obj, *, skipkeys=False")
    assert "Serialize ``obj``" not in code


def test_tests_are_left_out() -> None:
    keys = [key for key, _ in demo.records(only=["test", "unittest", "ctypes", "idlelib", "site-packages"])]
    assert keys
    assert not [key for key in keys if {"test", "tests", "idle_test"} & set(key.partition(":")[0].split("."))]


def test_the_whole_library_is_ten_megabytes_of_text(tmp_path: Path) -> None:
    prepared = demo.prepare(tmp_path)
    assert prepared.bytes >= 10_000_000
    lines = [json.loads(line) for line in (tmp_path / "stdlib.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == prepared.rows
    assert sum(len(line["text"].encode()) for line in lines) == prepared.bytes


def test_a_python_without_sources_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nothing"))
    with pytest.raises(InvalidInput) as caught:
        demo.prepare(tmp_path)
    message = f"this Python carries no library sources in {tmp_path / 'nothing'}: run the demo with one that does"
    assert str(caught.value) == message


ARITHMETIC = {
    r"(\d+) plus (\d+)\? (\d+)": lambda a, b, c: a + b == c,
    r"Add (\d+) to (\d+)\. (\d+)": lambda a, b, c: a + b == c,
    r"(\d+) minus (\d+)\? (\d+)": lambda a, b, c: a - b == c,
    r"(\d+) times (\d+)\? (\d+)": lambda a, b, c: a * b == c,
    r"Divide (\d+) by (\d+)\. The quotient is (\d+), the remainder (\d+)": lambda a, b, q, r: divmod(a, b) == (q, r),
    r"(\d+) \w+ and then (\d+) more, \D+(\d+)\.": lambda a, b, c: a + b == c,
}


def test_every_question_of_the_grammar_has_the_right_answer() -> None:
    batch = templates.Grammar(demo.GRAMMAR).sample(2000, seed=3)
    seen = set()
    for text in batch.texts:
        pattern = next(pattern for pattern in ARITHMETIC if re.search(pattern, text))
        match = re.search(pattern, text)
        assert match is not None
        assert ARITHMETIC[pattern](*map(int, match.groups())), text
        seen.add(pattern)
    assert seen == ARITHMETIC.keys()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("demo")
    prepared = demo.prepare(folder / "input", only=ONLY)
    # The tables of encodings, a small part of the whole, are mostly copies of each other.
    smaller = demo.RECIPE.replace("count: 20000", "count: 500").replace("retain_real: 0.9", "retain_real: 0.6")
    prepared.recipe.write_text(smaller, encoding="utf-8")
    run.run(recipe.load(prepared.recipe), folder / "out", workers=2)
    return prepared.recipe, folder / "out"


def test_the_demo_adds_up_and_is_accepted(finished: tuple[Path, Path]) -> None:
    _, out = finished
    report: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
    assert problems(report) == []
    kinds = {stage["kind"] for stage in report["stages"]}
    assert kinds == {"read", "measure", "augment", "templates", "dedup", "mix"}
    assert sum(stage["rejected"] for stage in report["stages"]) > 0
    assert {"human", "augmented", "templated"} == report["shares"]["kind"].keys()
    checked = run.check(out)
    assert checked.rows == report["output"]["rows"] > 1000
    page = render(out).read_text("utf-8")
    assert "Every record is accounted for" in page
    assert "<del>" in page
    assert '<span class="tag">answer</span>' in page


def test_another_worker_count_gives_the_same_set(finished: tuple[Path, Path], tmp_path: Path) -> None:
    made, out = finished
    run.run(recipe.load(made), tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
    shards = {path.name: path.read_bytes() for path in (out / "data").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()} == shards


def test_one_flipped_byte_is_found(finished: tuple[Path, Path], tmp_path: Path) -> None:
    made, _ = finished
    out = tmp_path / "out"
    run.run(recipe.load(made), out, workers=2)
    shard = min((out / "data").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptRun, match=re.escape(shard.name)):
        run.check(out)
