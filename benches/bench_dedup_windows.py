"""Repeated substrings, decontamination and overlap, on the corpus of near-duplicates.

Peers are what people write: sets of n-grams in Python, and a sort of all window hashes in numpy. Spans that
were planted are found first, all of them and with exact bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import variegate as vg
from _harness import Compare
from bench_dedup import PART, corpus, words

LENGTH = 50
NGRAM = 13
ITEMS = 5_000
"""Evaluation items, of 20 to 150 tokens; of a tenth a part is planted in the training rows."""


@cache
def planted() -> tuple[vg.TokenBatch, vg.TokenBatch, NDArray[np.int64]]:
    """The corpus with spans of items planted in it; the items; row, start, end, item and start there of each span.

    Items are runs of tokens that the corpus does not have.
    """
    rng = np.random.default_rng(11)
    new = int(words().max()) + 1
    items = [rng.integers(new, new + 50_000, n).astype(np.uint32) for n in rng.integers(20, 151, ITEMS)]
    documents = np.split(corpus().tokens, corpus().offsets[1:-1])
    spans = []
    rows = rng.permutation(len(documents))[: ITEMS // 10].tolist()
    for row, item in zip(rows, rng.permutation(ITEMS).tolist(), strict=False):
        size = int(rng.integers(NGRAM, len(items[item]) + 1))
        start = int(rng.integers(0, len(items[item]) - size + 1))
        at = int(rng.integers(0, len(documents[row]) + 1))
        documents[row] = np.insert(documents[row], at, items[item][start : start + size])
        spans.append((row, at, at + size, item, start))
    return batch_of(documents), batch_of(items), np.array(sorted(spans))


def batch_of(rows: list[NDArray[np.uint32]]) -> vg.TokenBatch:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return vg.TokenBatch.from_arrays(np.concatenate(rows), offsets, ids=np.arange(len(rows)))


def window_hashes(batch: vg.TokenBatch, length: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A polynomial hash of every window, and whether it lies in one row."""
    tokens = batch.tokens.astype(np.uint64)
    keys = np.zeros(max(0, len(tokens) - length + 1), np.uint64)
    for j in range(length):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + tokens[j : j + len(keys)]
    row = np.repeat(np.arange(len(batch)), batch.lengths)
    return keys, row[: len(keys)] == row[length - 1 :][: len(keys)]


def numpy_repeats(batch: vg.TokenBatch) -> NDArray[np.uint8]:
    """The mask from a stable sort of all window hashes."""
    keys, inside = window_hashes(batch, LENGTH)
    place = np.flatnonzero(inside)
    order = place[np.argsort(keys[place], kind="stable")]
    again = order[1:][keys[order[1:]] == keys[order[:-1]]]
    edges = np.zeros(len(batch.tokens) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + LENGTH, -1)
    return (np.cumsum(edges[:-1]) == 0).astype(np.uint8)


def set_hits(batch: vg.TokenBatch, items: vg.TokenBatch) -> set[tuple[int, int]]:
    """Rows and items that share an n-gram, from a dictionary of tuples."""
    table: dict[tuple[int, ...], list[int]] = {}
    for item, row in enumerate(items.to_lists()):
        for i in range(len(row) - NGRAM + 1):
            table.setdefault(tuple(row[i : i + NGRAM]), []).append(item)
    found = set()
    for r, row in enumerate(batch.to_lists()):
        for i in range(len(row) - NGRAM + 1):
            for item in table.get(tuple(row[i : i + NGRAM]), ()):
                found.add((r, item))
    return found


def numpy_hits(batch: vg.TokenBatch, items: vg.TokenBatch) -> set[int]:
    """Rows with an n-gram of any item, from sorted hashes."""
    known = np.unique(window_hashes(items, NGRAM)[0][window_hashes(items, NGRAM)[1]])
    keys, inside = window_hashes(batch, NGRAM)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    hit = np.flatnonzero(inside & (known[at] == keys))
    return set((np.searchsorted(batch.offsets, hit, side="right") - 1).tolist())


def check_planted(of: vg.TokenBatch, spans: NDArray[np.int64]) -> Callable[[vg.dedup.DecontaminationResult], bool]:
    """Whether the hits are the planted spans, grown only where the tokens beside them happen to agree."""

    def checked(found: vg.dedup.DecontaminationResult) -> bool:
        hits = found.hits
        columns = [hits.train_row, hits.train_start, hits.train_end, hits.eval_row, hits.eval_start]
        mine = spans[spans[:, 0] < len(of)]
        exact = np.array_equal(np.stack(columns, 1), mine)
        print(f"\nplanted {len(mine)}, found {len(hits.train_row)}, bounds {'exact' if exact else 'WRONG'}")
        return exact

    return checked


def bench_substring(compare: Compare) -> None:
    batch = corpus()
    compare(
        "dedup.substring",
        lambda: vg.dedup.substring(batch, length=LENGTH),
        lambda: numpy_repeats(batch),
        check=lambda ours, peer: bool(np.array_equal(ours.mask, peer)),
        units=batch.tokens.size,
        peer_name="numpy, sort of window hashes",
        peer_package="numpy",
        goal_rate=40e6,
        goal_ratio=10,
        note=f"{len(batch)} documents, windows of {LENGTH} tokens; ours compares tokens and gives sources",
    )


def bench_decontaminate(compare: Compare) -> None:
    batch, items, spans = planted()
    right = check_planted(batch, spans)
    compare(
        "dedup.decontaminate",
        lambda: vg.dedup.decontaminate(batch, items, ngram=NGRAM),
        lambda: numpy_hits(batch, items),
        check=lambda ours, peer: right(ours) and set(ours.hits.train_row.tolist()) == peer,
        units=batch.tokens.size,
        peer_name="numpy, sorted n-gram hashes",
        peer_package="numpy",
        goal_rate=200e6,
        goal_ratio=10,
        note=f"{len(batch)} documents against {ITEMS} items; their table made each time; the peer flags rows",
    )


def bench_decontaminate_sets(compare: Compare) -> None:
    batch, items, spans = planted()
    batch = batch[:PART]
    right = check_planted(batch, spans)
    compare(
        f"dedup.decontaminate, {PART} documents",
        lambda: vg.dedup.decontaminate(batch, items, ngram=NGRAM),
        lambda: set_hits(batch, items),
        check=lambda ours, peer: (
            right(ours) and set(zip(ours.hits.train_row.tolist(), ours.hits.eval_row.tolist(), strict=True)) == peer
        ),
        units=batch.tokens.size,
        peer_name="Python, dictionary of n-grams",
        goal_ratio=10,
        note="the table of the items made each time, which is most of the time; the peer gives pairs of rows and items",
    )


def bench_decontaminate_random(compare: Compare) -> None:
    """Text that shares nothing with the items: what remains is the scan."""
    batch, items, _ = planted()
    apart = vg.TokenBatch(batch.tokens | np.uint32(1 << 31), batch.offsets, ids=batch.ids)
    compare(
        "dedup.decontaminate, nothing shared",
        lambda: vg.dedup.decontaminate(apart, items, ngram=NGRAM),
        check=lambda ours, _: ours.stats["hits"] == 0,
        units=batch.tokens.size,
        goal_rate=200e6,
    )


def bench_overlap(compare: Compare) -> None:
    """The first half of the corpus against the second as the protected corpus: 7M tokens, 7M n-grams."""
    batch = corpus()
    half = len(batch) // 2
    docs, protected = batch[:half], batch[half:]

    def covered(docs: vg.TokenBatch) -> NDArray[np.float64]:
        """The share of each document, from sorted hashes."""
        keys, inside = window_hashes(protected, LENGTH)
        known = np.unique(keys[inside])
        keys, inside = window_hashes(docs, LENGTH)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        hit = np.flatnonzero(inside & (known[at] == keys))
        edges = np.zeros(len(docs.tokens) + 1, np.int64)
        np.add.at(edges, hit, 1)
        np.add.at(edges, hit + LENGTH, -1)
        counted = np.concatenate([[0], np.cumsum(np.cumsum(edges[:-1]) > 0)])
        return np.diff(counted[docs.offsets]) / np.maximum(docs.lengths, 1)

    def same(ours: vg.dedup.OverlapResult, peer: Any) -> bool:
        return bool(np.array_equal(ours.covered, peer))

    compare(
        "dedup.overlap",
        lambda: vg.dedup.overlap(docs, protected, ngram=LENGTH),
        lambda: covered(docs),
        check=same,
        units=docs.tokens.size + protected.tokens.size,
        peer_name="numpy, sorted window hashes",
        peer_package="numpy",
        note=f"{half} documents against {len(protected)}, runs of {LENGTH} tokens; the table made each time",
    )


@pytest.mark.parametrize("what", ["copies", "one token", "one document"])
def bench_substring_crowds(compare: Compare, what: str) -> None:
    """Input that is all repeats, or one row."""
    tokens: Any = {
        "copies": np.tile(np.arange(140, dtype=np.uint32), 100_000),
        "one token": np.full(14_000_000, 7, np.uint32),
        "one document": np.random.default_rng(3).integers(0, 1 << 32, 14_000_000, np.uint32),
    }[what]
    rows = 100_000 if what == "copies" else 1
    offsets = np.linspace(0, len(tokens), rows + 1).astype(np.int64)
    batch = vg.TokenBatch(tokens, offsets, ids=np.arange(rows, dtype=np.uint64))
    expected = {"copies": len(tokens) - 140, "one token": len(tokens) - 1, "one document": 0}[what]
    compare(
        f"dedup.substring, {what}",
        lambda: vg.dedup.substring(batch, length=LENGTH),
        check=lambda ours, _: ours.stats["masked"] == expected,
        units=len(tokens),
    )
