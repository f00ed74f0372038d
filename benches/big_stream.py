"""Synthetic documents without end, in batches, and the most memory that this process has had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import variegate as vg

ROWS = 4096
"""Documents of a batch."""

LENGTH = 200
"""Tokens of a document, about."""


def batches(kind: str, documents: int) -> Iterator[vg.TokenBatch]:
    """Documents of random tokens.

    ``"mixed"``: two in five are copies of an earlier document, most of them with up to a twentieth of the tokens
    replaced. ``"crowd"``: four in five are copies of the first document, most with up to a fiftieth replaced.
    """
    for start in range(0, documents, ROWS):
        rows = min(ROWS, documents - start)
        numbers = np.arange(start, start + rows)
        rng = np.random.default_rng([1, start])
        draw = rng.random(rows)
        base = np.where(draw < 0.8, 0, numbers) if kind == "crowd" else numbers
        if kind == "mixed":
            base = np.where((draw < 0.4) & (numbers > 0), (rng.random(rows) * numbers).astype(np.int64), numbers)
        tokens = np.empty((rows, LENGTH), np.uint32)
        # A document is drawn from its number, so that a copy of one long gone can be made.
        step = np.arange(LENGTH, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (base.astype(np.uint64)[:, None] + np.uint64(1)) * np.uint64(0xD1342543DE82EF95) + step
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        tokens[:] = (mixed >> np.uint64(32)) % np.uint64(50_000)
        most = 0.02 if kind == "crowd" else 0.05
        share = np.where((base != numbers) & (rng.random(rows) > 0.1), rng.random(rows) * most, 0)
        edit = rng.random((rows, LENGTH)) < share[:, None]
        tokens[edit] = rng.integers(0, 50_000, int(edit.sum()))
        yield vg.TokenBatch.from_arrays(tokens.reshape(-1), np.arange(rows + 1) * LENGTH, ids=numbers)


def peak() -> int:
    """The most bytes of memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
