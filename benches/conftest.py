"""One thread for everyone, set before anything that makes threads is imported; the `compare` fixture; the table."""

from __future__ import annotations

import os

THREADS = os.environ.setdefault("RAYON_NUM_THREADS", "1")
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = THREADS
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if THREADS == "1" else "true")

import pytest  # noqa: E402
from pytest_benchmark.fixture import BenchmarkFixture  # noqa: E402

from _harness import RESULTS, Compare, Ledger, machine, table  # noqa: E402

LEDGER = Ledger(path=RESULTS / f"{machine()}.jsonl")


@pytest.fixture
def ledger() -> Ledger:
    """Where a case that times itself writes its line."""
    return LEDGER


@pytest.fixture
def compare(benchmark: BenchmarkFixture, ledger: Ledger) -> Compare:
    """Checks, times against a peer, and records one case; see `_harness.Compare`."""
    return Compare(benchmark, ledger)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what was measured."""
    if LEDGER.lines:
        terminalreporter.section(f"measured -> {os.path.relpath(LEDGER.path)}")
        for line in table(LEDGER.lines):
            terminalreporter.write_line(line)
