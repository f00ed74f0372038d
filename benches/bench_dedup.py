"""Near-duplicates against rensa and datasketch, from u32 tokens, shingling included, recall and precision checked.

The corpus: documents of stdlib words, two in five of them edited copies of another at a rate of 0 to 40 %. The truth
comes from an exact prefix-filter join in numpy (Bayardo, Ma and Srikant, "Scaling up all pairs similarity search",
2007), itself checked by comparing every pair of a part.
"""

from __future__ import annotations

import itertools
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import variegate as vg
from _harness import Compare

DOCUMENTS = 60_000
PART = 2_000
"""Documents for the peers that take a minute over all of them."""
NGRAM = 5
THRESHOLDS = (0.7, 0.8)


@cache
def words() -> NDArray[np.uint32]:
    """The words of the standard library's sources, numbered."""
    home = Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in home.rglob("*.py") if not {"site-packages", "test", "tests"} & set(p.parts))
    text = [word for path in files for word in path.read_text("utf-8", errors="replace").split()]
    return np.unique(np.array(text, object).astype(str), return_inverse=True)[1].astype(np.uint32)


@cache
def corpus() -> vg.TokenBatch:
    """Documents of 20 to 1500 words in random order, made of runs of consecutive words."""
    rng = np.random.default_rng(7)
    source = words()
    documents: list[NDArray[np.uint32]] = []
    while len(documents) < DOCUMENTS:
        if documents and rng.random() < 0.4:
            document = documents[rng.integers(len(documents))].copy()
            rate = rng.random() * 0.4
            document = document[rng.random(len(document)) >= rate / 4]
            at = rng.random(len(document)) < rate * 3 / 4
            document[at] = rng.choice(source, at.sum())
        else:
            length = int(np.clip(rng.lognormal(5.3, 0.5), 20, 1500))
            runs = rng.integers(8, 40, length // 8 + 1)
            runs = runs[: int(np.searchsorted(np.cumsum(runs), length)) + 1]
            starts = rng.integers(0, len(source) - 40, len(runs))
            document = np.concatenate([source[s : s + n] for s, n in zip(starts, runs, strict=True)])[:length]
        documents.append(document)
    documents = [documents[i] for i in rng.permutation(DOCUMENTS)]
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])])
    return vg.TokenBatch.from_arrays(np.concatenate(documents), offsets, ids=np.arange(DOCUMENTS))


def shingle_keys(batch: vg.TokenBatch) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A 64-bit key of every shingle, row by row, and the offsets: what a user of a peer has to make first."""
    tokens = batch.tokens.astype(np.uint64)
    rng = np.random.default_rng(1)
    keys = np.zeros(max(0, len(tokens) - NGRAM + 1), np.uint64)
    for j, m in enumerate(rng.integers(1 << 62, 1 << 63, NGRAM, np.uint64) * np.uint64(2) + np.uint64(1)):
        keys += m * tokens[j : j + len(keys)]
    keys ^= keys >> np.uint64(32)
    counts = np.maximum(batch.lengths - NGRAM + 1, 0)
    inside = np.ones(len(tokens), bool)
    for j in range(1, NGRAM):
        ends = batch.offsets[1:] - j
        inside[ends[ends >= batch.offsets[:-1]]] = False
    return keys[inside[: len(keys)]], np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True)
class Truth:
    """All pairs of documents (a < b) of at least `least`, and their similarity."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def of(self, threshold: float, below: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        there = (self.similarity >= threshold) & (self.b < below)
        return self.a[there], self.b[there]


@cache
def truth() -> Truth:
    """Every pair at or over the lower threshold, by an exact join over the rarest shingles of each document."""
    least = min(THRESHOLDS)
    keys, offsets = shingle_keys(corpus())
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    document = np.repeat(np.arange(DOCUMENTS), np.diff(offsets))
    members = np.unique(document << 32 | rank[inverse])
    sizes = np.bincount(members >> 32, minlength=DOCUMENTS)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    place = np.arange(len(members)) - np.repeat(starts[:-1], sizes)
    prefix = np.repeat(sizes - np.ceil(least * sizes).astype(int) + 1, sizes)
    chosen = members[place < prefix]
    by_shingle = np.sort((chosen & 0xFFFFFFFF) << 32 | chosen >> 32)
    shingle, holder = by_shingle >> 32, by_shingle & 0xFFFFFFFF
    pairs = [np.zeros(0, np.int64)]
    for step in itertools.count(1):
        same = shingle[step:] == shingle[:-step]
        if not same.any():
            break
        a, b = holder[:-step][same], holder[step:][same]
        fits = np.minimum(sizes[a], sizes[b]) >= least * np.maximum(sizes[a], sizes[b])
        pairs.append(np.unique((a << 32 | b)[fits]))
    pairs_ = np.unique(np.concatenate(pairs))
    a, b = pairs_ >> 32, pairs_ & 0xFFFFFFFF
    similarity = np.concatenate(
        [similarities(members, starts, a[i : i + 20_000], b[i : i + 20_000]) for i in range(0, len(a), 20_000)]
    )
    found = similarity >= least
    result = Truth(a[found], b[found], similarity[found])
    brute_force(result)
    return result


def similarities(
    members: NDArray[np.int64], starts: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Exact similarity of each pair: the members of one looked up among those of the other."""
    sizes = starts[a + 1] - starts[a]
    firsts = np.cumsum(sizes) - sizes
    flat = np.arange(sizes.sum()) + np.repeat(starts[a] - firsts, sizes)
    wanted = np.repeat(b, sizes) << 32 | members[flat] & 0xFFFFFFFF
    at = np.minimum(np.searchsorted(members, wanted), len(members) - 1)
    common = np.add.reduceat(members[at] == wanted, firsts).astype(np.float64)
    return common / (sizes + starts[b + 1] - starts[b] - common)


def brute_force(found: Truth, documents: int = 400) -> None:
    """Fails unless the join has exactly the pairs that comparing all pairs of some documents gives."""
    related = np.unique(np.concatenate([found.a[:documents], found.b[:documents], np.arange(documents)]))
    rows = corpus().take(related).to_lists()
    sets = [{tuple(row[i : i + NGRAM]) for i in range(len(row) - NGRAM + 1)} for row in rows]
    expected = set()
    for (x, left), (y, right) in itertools.combinations(zip(related.tolist(), sets, strict=True), 2):
        common = len(left & right)
        if common and common / (len(left) + len(right) - common) >= min(THRESHOLDS):
            expected.add((x, y))
    inside = np.isin(found.a, related) & np.isin(found.b, related)
    assert expected == set(zip(found.a[inside].tolist(), found.b[inside].tolist(), strict=True))
    assert len(expected) > documents // 4


def judged(batch: vg.TokenBatch, result: vg.dedup.DedupResult, threshold: float) -> tuple[float, float]:
    """Share of similar pairs of which a side goes; share of documents that go whose keeper is similar."""
    a, b = truth().of(threshold, len(batch))
    similar = set(zip(a.tolist(), b.tolist(), strict=True))
    gone = np.flatnonzero(~result.keep).tolist()
    right = sum((min(r, k), max(r, k)) in similar for r, k in zip(gone, result.keeper[gone].tolist(), strict=True))
    return float((~result.keep[a] | ~result.keep[b]).mean()), right / len(gone)


def flags(batch: vg.TokenBatch, flagged: NDArray[np.bool_], threshold: float) -> str:
    """Recall and precision of a bool per document against those that have a similar one."""
    similar = np.zeros(len(batch), bool)
    for side in truth().of(threshold, len(batch)):
        similar[side] = True
    both = (flagged & similar).sum()
    return f"recall {both / similar.sum():.4f}, precision {both / flagged.sum():.4f}"


def check(batch: vg.TokenBatch, threshold: float, peer: str) -> Any:
    def checked(ours: vg.dedup.DedupResult, theirs: NDArray[np.bool_]) -> bool:
        recall, precision = judged(batch, ours, threshold)
        all_ = vg.dedup.near(batch, threshold=threshold, ngram=NGRAM, closure="transitive")
        clusters = np.bincount(all_.cluster)[all_.cluster] > 1
        print(f"\n{threshold}: pairs: recall {recall:.4f}, precision {precision:.4f}")
        print(f"{threshold}: documents: {flags(batch, clusters, threshold)}; {peer}: {flags(batch, theirs, threshold)}")
        return recall >= 0.999 and precision == 1.0

    return checked


def rensa_flags(batch: vg.TokenBatch, threshold: float) -> NDArray[np.bool_]:
    """rensa's fastest way that looks at all shingles: a matrix of digests from flat keys, flags in one call."""
    import rensa

    keys, offsets = shingle_keys(batch)
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(keys, offsets, 128, 42)
    bands = 16 if threshold > 0.75 else 32
    index = rensa.RMinHashLSH(threshold=threshold, num_perm=128, num_bands=bands)
    return np.array(index.query_duplicate_flags_matrix_one_shot(digests))


def datasketch_flags(batch: vg.TokenBatch, threshold: float) -> NDArray[np.bool_]:
    import datasketch

    keys, offsets = shingle_keys(batch)
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=128)
    sketches = []
    for r, (start, end) in enumerate(itertools.pairwise(offsets.tolist())):
        sketch = datasketch.MinHash(num_perm=128, hashfunc=int)
        sketch.update_batch(keys[start:end] & np.uint64(0xFFFFFFFF))
        index.insert(r, sketch)
        sketches.append(sketch)
    return np.array([len(index.query(sketch)) > 1 for sketch in sketches])


@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_near_rensa(compare: Compare, threshold: float) -> None:
    pytest.importorskip("rensa")
    batch = corpus()
    compare(
        f"dedup.near {threshold}",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM),
        lambda: rensa_flags(batch, threshold),
        check=check(batch, threshold, "rensa"),
        units=batch.tokens.size,
        peer_name="rensa, all shingles, from tokens",
        peer_package="rensa",
        goal_ratio=4,
        note=f"{DOCUMENTS} documents, word 5-grams, 128 slots; ours verified exactly, the peer flags candidates",
    )


@pytest.mark.parametrize("threshold", THRESHOLDS)
def bench_near_datasketch(compare: Compare, threshold: float) -> None:
    pytest.importorskip("datasketch")
    batch = corpus()[:PART]
    compare(
        f"dedup.near {threshold}, {PART} documents",
        lambda: vg.dedup.near(batch, threshold=threshold, ngram=NGRAM),
        lambda: datasketch_flags(batch, threshold),
        check=check(batch, threshold, "datasketch"),
        units=batch.tokens.size,
        peer_name="datasketch, from tokens",
        peer_package="datasketch",
        goal_ratio=4,
        note="word 5-grams, 128 slots",
    )


def bench_exact(compare: Compare) -> None:
    batch = corpus()
    expected = len({row.tobytes() for row in np.split(batch.tokens, batch.offsets[1:-1])})
    compare(
        "dedup.exact",
        lambda: vg.dedup.exact(batch),
        check=lambda ours, _: bool(ours.keep.sum() == expected),
        units=batch.tokens.size,
    )
