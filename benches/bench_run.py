"""Whole runs, as commands on all processors: how fast, in how much memory and disk, and how soon.

The corpus is made by `big_corpus` once, in the temporary directory: 2 GB, or what RUN_BYTES says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import big_corpus
import variegate as vg
from _harness import RESULTS, Ledger, machine, met
from variegate import demo, recipe, run
from variegate.batch import TokenBatch
from variegate.run import _context, _inputs, _parse, _passes, _records

SIZE = int(os.environ.get("RUN_BYTES", 2_000_000_000))
WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SOURCE = "  - {name: stdlib, path: PATH, text: text, id: id, license: PSF-2.0, kind: human}\n"
EMPTY = f"version: 1\nmemory: 512MB\nsources:\n{SOURCE}"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Where these cases write: a file of their own, as they use all processors."""
    monkeypatch.setenv("RAYON_NUM_THREADS", str(WORKERS))
    return Ledger(path=RESULTS / f"{machine()}-runs.jsonl")


@dataclass
class Watched:
    """A command, and what it took."""

    seconds: float = 0.0
    first_row: float = 0.0
    peak_memory: int = 0
    peak_disk: int = 0
    stages: dict[str, float] = field(default_factory=dict)


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from tree(int(child))
    except OSError:
        return


def resident(pid: int) -> int:
    """Bytes of memory that a process and all below it hold."""
    total = 0
    for process in tree(pid):
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        except OSError:
            continue
    return total


def used(folder: Path) -> int:
    """Bytes of disk that a folder takes."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue
    return total


def watch(path: Path, out: Path) -> Watched:
    """Runs a recipe as a command and looks at it every 20 ms."""
    command = [sys.executable, "-m", "variegate", "run", str(path), "-o", str(out), "--progress", "json"]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    log = out.with_suffix(".log")
    found = Watched()
    started = time.perf_counter()
    with log.open("w+") as told:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=told)
        while process.poll() is None:
            found.peak_memory = max(found.peak_memory, resident(process.pid))
            if int((time.perf_counter() - started) * 50) % 25 == 0:
                found.peak_disk = max(found.peak_disk, used(out))
            if not found.first_row and out.joinpath("journal.log").exists():
                journal = out.joinpath("journal.log").read_bytes()
                found.first_row = time.perf_counter() - started if b'"record":"part"' in journal else 0.0
            time.sleep(0.02)
        found.seconds = time.perf_counter() - started
        assert process.returncode == 0, log.read_text()[-2000:]
        events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    found.stages = {event["stage"]: event["seconds"] for event in events if event["finished"]}
    return found


@pytest.fixture(scope="module")
def corpus() -> Path:
    """The corpus, and how many records it has."""
    folder = Path(tempfile.gettempdir(), f"variegate-bench-{SIZE}")
    if not (folder / "rows").exists():
        folder.mkdir(exist_ok=True)
        rows, _ = big_corpus.write(folder / "in.jsonl", SIZE)
        (folder / "rows").write_text(str(rows))
    return folder / "in.jsonl"


def note(runs: Ledger, case: str, **figures: Any) -> None:
    """Writes a line, and shows it, as it is not in the table of the other cases."""
    print(json.dumps(runs.add(case, **figures, met=met(figures)), indent=1))


def write_recipe(folder: Path, text: str, corpus: Path) -> Path:
    (folder / "questions.txt").write_text(demo.GRAMMAR)
    (folder / "recipe.yaml").write_text(text.replace("PATH", str(corpus)).replace("stdlib.jsonl", str(corpus)))
    return folder / "recipe.yaml"


def whole() -> str:
    """The demo's recipe, with 512 MB of memory."""
    return demo.RECIPE.replace("seed: 7", "seed: 7\nmemory: 512MB").replace("20000}\n", "100000}\n")


def bench_run_empty(corpus: Path, tmp_path: Path, runs: Ledger):
    """Reading, hashing and writing, and nothing else."""
    path = write_recipe(tmp_path, EMPTY, corpus)
    found = [watch(path, tmp_path / f"out{n}") for n in range(3)]
    assert run.check(tmp_path / "out0").rows == int((corpus.parent / "rows").read_text())
    best = min(watched.seconds for watched in found)
    size = corpus.stat().st_size
    note(
        runs,
        "run.empty",
        unit="bytes",
        units=size,
        rate=size / best,
        best=best,
        median=sorted(watched.seconds for watched in found)[1],
        rounds=len(found),
        first_row_seconds=min(watched.first_row for watched in found),
        goals={"rate": 150e6, "first_row_seconds": 2},
    )


def bench_run_in_little_memory(corpus: Path, tmp_path: Path, runs: Ledger):
    """The demo's recipe with memory: 512MB; peaks of the process tree and of the run directory."""
    path = write_recipe(tmp_path, whole(), corpus)
    watched = watch(path, tmp_path / "out")
    checked = run.check(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    made = sum(stage["created"] for stage in manifest["stages"]) + int((corpus.parent / "rows").read_text())
    assert made == checked.rows + checked.rejected
    output = used(tmp_path / "out" / "data")
    size = corpus.stat().st_size
    note(
        runs,
        "run.memory",
        unit="bytes",
        units=size,
        rate=size / watched.seconds,
        best=watched.seconds,
        median=watched.seconds,
        rounds=1,
        first_row_seconds=watched.first_row,
        peak_memory_bytes=watched.peak_memory,
        peak_disk_ratio=round(watched.peak_disk / output, 3),
        stages=watched.stages,
        goals={"peak_memory_bytes": 712e6, "peak_disk_ratio": 2, "first_row_seconds": 2},
        note="memory: 512MB; the demo's recipe on 2 GB",
    )


def bench_run_against_its_slowest_stage(tmp_path: Path, runs: Ledger):
    """The whole recipe, and each of its stages alone over the same records in memory, with as many threads."""
    corpus = tmp_path / "in.jsonl"
    rows, _ = big_corpus.write(corpus, 300_000_000)
    path = write_recipe(tmp_path, whole(), corpus)
    found = [watch(path, tmp_path / f"out{n}") for n in range(3)]
    assert run.check(tmp_path / "out0").rows > rows
    best = min(watched.seconds for watched in found)

    loaded = recipe.load(path)
    context = _context.Context(loaded, _inputs.list_inputs(loaded), tmp_path / "none")
    steps = {step.kind: step for step in _passes.steps(context)}
    parsed = [_parse.parse(unit, context.inputs, context.schema)[0] for unit in context.units({})]
    source = pa.concat_tables(map(context.tokenized, parsed)).combine_chunks()
    vg.set_num_threads(WORKERS)
    try:
        derive = steps["augment"].derive
        made = pa.concat_tables(outcome.rows for outcome in derive(source, examples=False) if outcome.rows)
        tokens, offsets = _records.token_arrays(made["tokens"])
        batch = TokenBatch(tokens, offsets, ids=np.zeros(len(offsets) - 1, np.uint64))
        alone = {
            "augment": lambda: deque(derive(source, examples=False), maxlen=0),
            "dedup": lambda: vg.dedup.near(batch, threshold=0.8, ngram=5),
            "measure": lambda: vg.collapse.measure(batch),
        }
        seconds = {name: min(timeit.repeat(work, number=1, repeat=3)) for name, work in alone.items()}
    finally:
        vg.set_num_threads(1)
    slowest = max(seconds, key=lambda name: seconds[name])
    size = corpus.stat().st_size
    ratio = seconds[slowest] / best
    note(
        runs,
        "run.whole",
        unit="bytes",
        units=size,
        rate=size / best,
        best=best,
        median=sorted(watched.seconds for watched in found)[1],
        rounds=len(found),
        peer={"name": f"{slowest} alone, in memory", "version": None, "rate": size / seconds[slowest]},
        ratio=ratio,
        alone=seconds,
        goals={"ratio": 0.6},
        note="a command on 300 MB, its start, its commits and its checks included",
    )
