"""What `import variegate` adds to `import numpy`: fresh interpreters, the two in turn, medians."""

from __future__ import annotations

import statistics
import subprocess
import sys

from _harness import Ledger

ROUNDS = 25
GOAL_SECONDS = 0.030
SCRIPT = """
import sys, time
start = time.perf_counter()
import {name}
seconds = time.perf_counter() - start
heavy = {{"torch", "pyarrow", "pydantic"}} & sys.modules.keys()
assert not heavy, heavy
print(seconds)
"""


def seconds(name: str) -> float:
    script = SCRIPT.format(name=name)
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def bench_import(ledger: Ledger):
    pairs = [(seconds("numpy"), seconds("variegate")) for _ in range(ROUNDS + 1)][1:]
    numpy, both = (statistics.median(times) for times in zip(*pairs, strict=True))
    added = both - numpy
    assert added > 0, "the machine is too busy: variegate, numpy included, came in before numpy alone"
    ledger.add(
        "import variegate, over import numpy",
        unit="imports",
        units=1,
        rate=1 / added,
        best=added,
        median=added,
        rounds=ROUNDS,
        numpy_seconds=numpy,
        goals={"best": GOAL_SECONDS},
        met=added <= GOAL_SECONDS,
        note="difference of the medians of alternating fresh interpreters",
    )
