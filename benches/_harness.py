"""How every case is timed: check the answer first, alternate with the peer, write down what was measured.

A case is a test that asks for the `compare` fixture:

    def bench_masked_lm(compare):
        compare(
            "masked_lm",
            lambda: op(batch, seed=7),
            lambda: collator(rows),
            check=lambda ours, peer: bool(same_shape(ours, peer)),
            units=batch.tokens.size,
            unit="tokens",
            peer_name="DataCollatorForLanguageModeling",
            peer_package="transformers",
            goal_rate=80e6,
            goal_ratio=8,
        )

One test times one case. `check` sees the two results and returns True, or the case fails before anything is timed.
Each measurement is one line in results/<machine>.jsonl; the README quotes nothing else.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from quote import duration, goal_text, quantity
from variegate import _core

RESULTS = Path(__file__).parent / "results"
ROUND_SECONDS = 0.005
CASE_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one call, over the rounds of a case.

    Attributes:
        best: The fastest round; ratios and rates come from it, as noise only ever adds.
        median: The middle round, to show how noisy the machine was.
        rounds: How many rounds there were.
    """

    best: float
    median: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        return cls(best=min(seconds), median=statistics.median(seconds), rounds=len(seconds))


@dataclass(kw_only=True)
class Ledger:
    """The lines that this session measured, in order; each is in the file before the next case starts."""

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: str, **figures: Any) -> dict[str, Any]:
        """Appends one measurement, with when, where and with what it was made."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"case": case, **environment(), "at": now, **figures}
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        return line


class Compare:
    """The `compare` fixture: one checked, timed and recorded case."""

    def __init__(self, benchmark: BenchmarkFixture, ledger: Ledger) -> None:
        self.benchmark = benchmark
        self.ledger = ledger

    def __call__(
        self,
        name: str,
        ours: Callable[[], Any],
        peer: Callable[[], Any] | None = None,
        *,
        check: Callable[[Any, Any], bool],
        units: float,
        unit: str = "tokens",
        peer_name: str | None = None,
        peer_package: str | None = None,
        goal_rate: float | None = None,
        goal_ratio: float | None = None,
        goal_seconds: float | None = None,
        note: str | None = None,
    ) -> dict[str, Any]:
        """Checks, times and records one case.

        Args:
            name: The case, named as the feature is everywhere else.
            ours: One call of what is measured; returns what `check` looks at.
            peer: One call of what a user would otherwise pick, on the same work; None where nobody does it.
            check: Told both results (None for no peer); must return True.
            units: How much work one call is.
            unit: What `units` counts.
            peer_name: What the peer is called; needed with `peer`.
            peer_package: The distribution the peer is in, for its version.
            goal_rate: Units a second that ours should reach.
            goal_ratio: How many times faster than the peer ours should be.
            goal_seconds: How long one call may take.
            note: What a reader must know about the data or the peer's settings.

        Returns:
            The recorded line; empty under `--benchmark-disable`, which only checks.
        """
        if (peer is None) != (peer_name is None):
            raise TypeError(f"{name}: peer and peer_name come together")
        result, first = timed(ours)
        peer_result, peer_first = timed(peer) if peer else (None, 0.0)
        verdict = check(result, peer_result)
        assert verdict is True, f"{name}: wrong answer, nothing timed (check returned {verdict!r}, must be True)"
        del result, peer_result
        if self.benchmark.disabled:
            return {}

        calls, peer_calls = repeats(first), repeats(peer_first)
        rounds = max(5, min(200, math.ceil(CASE_SECONDS / max(calls * first + peer_calls * peer_first, 1e-9))))
        peer_seconds: list[float] = []

        def alternate() -> None:
            if peer:
                peer_seconds.append(loop(peer, peer_calls))

        gc.collect()
        seconds: list[float] = []
        self.benchmark.extra_info.update(case=name, calls=calls, units=units)
        self.benchmark.pedantic(lambda: seconds.append(loop(ours, calls)), setup=alternate, rounds=rounds)

        best = Times.of(seconds)
        figures: dict[str, Any] = {"unit": unit, "units": units, "rate": units / best.best, **vars(best)}
        if peer:
            theirs = Times.of(peer_seconds)
            version = metadata.version(peer_package) if peer_package else None
            figures["peer"] = {"name": peer_name, "version": version, "rate": units / theirs.best, **vars(theirs)}
            figures["ratio"] = theirs.best / best.best
        goals = {"rate": goal_rate, "ratio": goal_ratio, "best": goal_seconds}
        figures["goals"] = {key: goal for key, goal in goals.items() if goal is not None}
        figures["met"] = met(figures)
        if note:
            figures["note"] = note
        return self.ledger.add(name, **figures)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of the second of two calls and how long it took: the first one warms caches and lazy imports."""
    call()
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


def repeats(seconds: float) -> int:
    """How many calls make a round long enough for the clock."""
    return max(1, math.ceil(ROUND_SECONDS / max(seconds, 1e-9)))


def loop(call: Callable[[], Any], calls: int) -> float:
    """Seconds of one call, averaged over a round."""
    start = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - start) / calls


def met(figures: dict[str, Any]) -> bool | None:
    """Whether every goal was reached; None for a case without goals. `rate` and `ratio` are floors, others ceilings."""
    goals: dict[str, float] = figures["goals"]
    if not goals:
        return None
    floors = ("rate", "ratio")
    return all(figures.get(key, 0.0) >= goal if key in floors else figures[key] <= goal for key, goal in goals.items())


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code: versions, processor, vector level, threads."""
    return {
        "variegate": _core.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "simd": _core.simd_levels()[0],
        "threads": int(os.environ["RAYON_NUM_THREADS"]),
    }


def processor() -> str:
    """The processor's model, as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def machine() -> str:
    """A file name for this kind of machine: processor and cores."""
    words = f"{processor()} {environment()['cores']} cores {_core.simd_levels()[0]}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def table(lines: list[dict[str, Any]]) -> list[str]:
    """The measurements as aligned text: rate or time of one call, peer, ratio, goals."""
    rows = [("case", "ours", "peer", "ratio", "goals")]
    for line in lines:
        peer = line.get("peer")
        theirs = f"{peer['name']} {quantity(peer['rate'])}/s" if peer else "-"
        ratio = f"{line['ratio']:.1f}x" if peer else "-"
        goals = ", ".join(goal_text(key, goal) for key, goal in line.get("goals", {}).items())
        verdict = {True: f"{goals} met", False: f"{goals} MISSED", None: "-"}[line.get("met")]
        rows.append(
            (
                line["case"],
                f"{quantity(line['rate'])} {line['unit']}/s, {duration(line['best'])}",
                theirs,
                ratio,
                verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
