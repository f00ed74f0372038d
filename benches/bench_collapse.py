"""Measures over a stream of tokens; the answer is checked against plain numpy."""

from __future__ import annotations

import numpy as np

import variegate as vg
from _harness import Compare

TOKENS = 20_000_000
TYPES = 50_000


def corpus() -> vg.TokenBatch:
    """Rows of 50 to 500 Zipf-like tokens."""
    rng = np.random.default_rng(3)
    p = 1 / np.arange(1, TYPES + 1)
    tokens = rng.choice(TYPES, TOKENS, p=p / p.sum()).astype(np.uint32)
    ends = np.cumsum(rng.integers(50, 500, TOKENS // 50))
    offsets = np.concatenate([[0], ends[ends < TOKENS], [TOKENS]])
    return vg.TokenBatch.from_arrays(tokens, offsets)


def numpy_measures(batch: vg.TokenBatch, reference: vg.TokenBatch) -> tuple[float, ...]:
    """Types, entropy, coverage, tail coverage and copies, the way one would write them down."""
    counts, real = (np.bincount(b.tokens, minlength=TYPES) for b in (batch, reference))
    p = counts[counts > 0] / counts.sum()
    ranked = np.lexsort((np.arange(TYPES), -real))
    before = np.cumsum(real[ranked]) - real[ranked]
    tail = ranked[(100 * before >= 95 * real.sum()) & (real[ranked] > 0)]
    rows = np.split(batch.tokens, batch.offsets[1:-1])
    copies = 1 - len({row.tobytes() for row in rows}) / len(rows)
    entropy = -(p * np.log2(p)).sum()
    return (counts > 0).sum(), entropy, (counts[real > 0] > 0).mean(), (counts[tail] > 0).mean(), copies


def same(ours: vg.collapse.Measures, theirs: tuple[float, ...]) -> bool:
    mine = (ours.types, ours.entropy, ours.coverage, ours.tail_coverage, ours.duplicate_share)
    return bool(np.allclose(np.array(mine, float), np.array(theirs, float), rtol=1e-9, atol=0))


def bench_measure(compare: Compare) -> None:
    batch = corpus()
    real = batch[: len(batch) // 4]
    reference = vg.collapse.Sketch.build(real)
    compare(
        "collapse.measure",
        lambda: vg.collapse.measure(batch, reference=reference),
        lambda: numpy_measures(batch, real),
        check=same,
        units=TOKENS,
        peer_name="numpy",
        peer_package="numpy",
        goal_rate=20e6,
    )
