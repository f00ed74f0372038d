"""The exact join, signatures and crowds; and near-duplicates against FastSketchLSH and gaoya, from u32 tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import variegate as vg
from _harness import Compare
from bench_dedup import DOCUMENTS, NGRAM, PART, THRESHOLDS, check, corpus, judged, shingle_keys, truth
from variegate import _core


def fast_sketch_flags(batch: vg.TokenBatch, threshold: float) -> NDArray[np.bool_]:
    """FastSketchLSH's fastest way: sketches of flat keys, flags in one call."""
    import FastSketchLSH

    keys, offsets = shingle_keys(batch)
    sketcher = FastSketchLSH.FastSimilaritySketch(128, 42)
    sketches = sketcher.batch_csr(keys, offsets.astype(np.uint64), prehashed=True, num_threads=1)
    index = FastSketchLSH.LSH(128, 16 if threshold > 0.75 else 32, num_threads=1)
    return np.asarray(index.insert_and_query_duplicates(sketches)).astype(bool)


def gaoya_flags(batch: vg.TokenBatch, threshold: float) -> NDArray[np.bool_]:
    """gaoya's index over texts of token numbers, which it splits into words and shingles itself."""
    from gaoya.minhash import MinHashStringIndex

    texts = [" ".join(map(str, row)) for row in batch.to_lists()]
    bands, width = (25, 5) if threshold > 0.75 else (32, 4)
    index = MinHashStringIndex(32, threshold, bands, width, None, "word", False, (NGRAM, NGRAM), "vec")
    numbers = list(range(len(texts)))
    index.par_bulk_insert_docs(numbers, texts)
    return np.array([len(found) > 1 for found in index.par_bulk_query(texts)])


@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_near_fast_sketch(compare: Compare, threshold: float) -> None:
    pytest.importorskip("FastSketchLSH")
    batch = corpus()
    compare(
        f"dedup.near {threshold}, over FastSketchLSH",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM),
        lambda: fast_sketch_flags(batch, threshold),
        check=check(batch, threshold, "FastSketchLSH"),
        units=batch.tokens.size,
        peer_name="FastSketchLSH, flat keys, from tokens",
        peer_package="FastSketchLSH",
        goal_ratio=4,
        note="word 5-grams, 128 slots; ours verified exactly, the peer flags candidates, on one thread",
    )


@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_near_gaoya(compare: Compare, threshold: float) -> None:
    pytest.importorskip("gaoya")
    batch = corpus()[:PART]
    compare(
        f"dedup.near {threshold}, over gaoya",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM),
        lambda: gaoya_flags(batch, threshold),
        check=check(batch, threshold, "gaoya"),
        units=batch.tokens.size,
        peer_name="gaoya, from texts of token numbers",
        peer_package="gaoya",
        goal_ratio=4,
        note="word 5-grams, 125 or 128 slots; the peer verifies by its sketches",
    )


@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_exact_join(compare: Compare, threshold: float) -> None:
    """Recall and precision 1 over the whole corpus, against the join in numpy."""
    batch = corpus()
    compare(
        f"dedup.near exact {threshold}",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM, mode="exact"),
        check=lambda ours, _: judged(batch, ours, threshold) == (1.0, 1.0),
        units=batch.tokens.size,
        goal_rate=25e6,
        note=f"{DOCUMENTS} documents, every pair at or over the threshold compared",
    )


@pytest.mark.parametrize("width", [0.05, 1.0])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_recall(compare: Compare, threshold: float, width: float) -> None:
    """Recall of pairs over the whole corpus, also of those just over the threshold; precision 1."""
    batch = corpus()
    all_ = truth()

    def checked(ours: vg.dedup.DedupResult, _: Any) -> bool:
        there = (all_.similarity >= threshold) & (all_.similarity < threshold + width)
        recall = float((~ours.keep[all_.a[there]] | ~ours.keep[all_.b[there]]).mean())
        precision = judged(batch, ours, threshold)[1]
        print(f"\nwithin {width} of {threshold}: {there.sum()} pairs, recall {recall:.5f}, precision {precision:.4f}")
        return recall >= 0.999 and precision == 1.0

    compare(
        f"dedup.near {threshold}, pairs within {width}",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM),
        check=checked,
        units=batch.tokens.size,
    )


def bench_signatures(compare: Compare) -> None:
    """Shingles, sketches and the keys of their bands."""
    batch = corpus()
    params = _core.NearParams(0.8, NGRAM, "lsh", 0.999, "leader", "longest", 0)

    def checked(ours: NDArray[np.uint64], _: Any) -> bool:
        a, b = truth().of(0.8, len(batch))
        return bool((ours[1:, a] == ours[1:, b]).any(axis=0).mean() >= 0.999)

    compare(
        "dedup signatures",
        lambda: params.keys(batch.tokens, batch.offsets),
        check=checked,
        units=batch.tokens.size,
        goal_rate=400e6,
        note=f"{params.bands} bands of the sketch of each document, from tokens; 64-bit keys, written band by band",
    )


def crowds() -> dict[str, tuple[vg.TokenBatch, int]]:
    """Corpora that are quadratic for many, and how many documents of each stay."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 50_000, 200, np.uint32)
    near = np.tile(base, (100_000, 1))
    near[np.arange(100_000), rng.integers(0, 200, 100_000)] = rng.integers(0, 50_000, 100_000)
    long = rng.integers(0, 50_000, 10_000_000, np.uint32)

    def batch(tokens: NDArray[np.uint32], lengths: NDArray[np.int64]) -> vg.TokenBatch:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return vg.TokenBatch.from_arrays(tokens.reshape(-1), offsets, ids=np.arange(len(lengths)))

    return {
        "100,000 copies": (batch(np.tile(base, (100_000, 1)), np.full(100_000, 200)), 1),
        "100,000 near-copies": (batch(near, np.full(100_000, 200)), 1),
        "1,000,000 empty documents": (batch(near[:0], np.zeros(1_000_000, np.int64)), 1),
        "one document of 10,000,000 tokens": (batch(long, np.array([len(long)])), 1),
    }


@pytest.mark.parametrize("mode", ["lsh", "exact"])
@pytest.mark.parametrize(
    "name", ["100,000 copies", "100,000 near-copies", "1,000,000 empty documents", "one document of 10,000,000 tokens"]
)
def bench_crowds(compare: Compare, name: str, mode: Any) -> None:
    """Linear time: each document is compared about once, or never."""
    batch, stay = crowds()[name]

    def checked(ours: vg.dedup.DedupResult, _: Any) -> bool:
        return bool(ours.keep.sum() == stay and ours.stats["compared"] <= 2 * len(batch))

    compare(
        f"dedup.near {mode}, {name}",
        lambda: vg.dedup.near(batch, mode=mode),
        check=checked,
        units=max(batch.tokens.size, len(batch)),
        goal_seconds=2.0,
    )
