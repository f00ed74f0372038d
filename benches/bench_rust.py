"""The benches of benches/rust: each prints its checked measurements as JSON lines, kept here with the others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from _harness import Ledger

ROOT = Path(__file__).parents[1]


def bench_rust(ledger: Ledger):
    """A bench that finds a wrong answer exits with an error before it prints a figure."""
    done = subprocess.run(
        ["cargo", "bench", "--quiet", "-p", "variegate-core", "--benches"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        ledger.add(line.pop("case"), **line)
