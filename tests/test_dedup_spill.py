"""Deduplication out of memory: the result is that of doing it in memory, however little there is."""

from __future__ import annotations

import gc
import itertools
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples
from variegate._core import shared_rows
from variegate.dedup import Deduper, Progress, _spill, near
from variegate.errors import InvalidInput

CORPORA = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=14)
COMPARISONS = ("compared", "similar", "largest_bucket", "capped_buckets", "capped_rows")


@pytest.fixture(autouse=True)
def any_memory(monkeypatch):
    monkeypatch.setattr(_spill, "LEAST", 1)


def edited(rng, rows, length, vocabulary=5000):
    """Rows of which half are copies of earlier ones, most of them edited."""
    made = []
    for _ in range(rows):
        if made and rng.random() < 0.5:
            row = made[rng.integers(len(made))].copy()
            at = rng.random(len(row)) < max(0, rng.random() * 0.3 - 0.06)
            row[at] = rng.integers(0, vocabulary, at.sum())
        else:
            row = rng.integers(0, vocabulary, rng.integers(0, length))
        made.append(row)
    return [row.tolist() for row in made]


def same(a, b, *, comparisons=True):
    for name in ("keep", "keeper", "keeper_ids", "cluster", "similarity"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype
        assert np.array_equal(left, right), name
    kinds = [name for name in a.stats if comparisons or name not in COMPARISONS]
    assert {name: a.stats[name] for name in kinds} == {name: b.stats[name] for name in kinds}


@pytest.mark.parametrize("closure", ["leader", "transitive"])
@pytest.mark.parametrize("keep", ["longest", "first"])
@pytest.mark.parametrize(("unit", "ngram"), [("token", 2), ("word", 3), ("char", 9)])
@pytest.mark.parametrize("memory", [1 << 30, 1_000_000, 20_000])
def test_the_result_is_that_in_memory(unit, ngram, keep, closure, memory, monkeypatch):
    """Counts, too, where no component was taken in blocks."""
    rng = np.random.default_rng(3)
    rows = edited(rng, 1200, 50)
    ids = rng.integers(0, 1 << 60, 1200)
    if unit == "token":
        batch = vg.TokenBatch.from_lists(rows, ids=ids)
    else:
        batch = vg.TextBatch.from_texts([" ".join(f"w{token % 997}" for token in row) for row in rows], ids=ids)
    order = rng.integers(-1, 2, 1200)
    params = {"threshold": 0.7, "ngram": ngram, "closure": closure, "keep": keep, "unit": unit}
    crowds = []
    by_blocks = _spill.by_blocks
    monkeypatch.setattr(_spill, "by_blocks", lambda *a: crowds.append(1) or by_blocks(*a))
    whole = near(batch, **params, order=order)
    same(near(batch, **params, order=order, memory=memory), whole, comparisons=not crowds)
    assert bool(crowds) == (memory == 20_000 and closure == "leader")
    deduper = Deduper(**params, memory=memory)
    for start in range(0, 1200, 171):
        deduper.add(batch[start : start + 171], order=order[start : start + 171])
        if start == 342:
            same(deduper.result(), near(batch[:513], **params, order=order[:513]), comparisons=not crowds)
    assert len(deduper) == 1200
    same(deduper.result(), whole, comparisons=not crowds)
    same(near((batch[i : i + 100] for i in range(0, 1200, 100)), **params), near(batch, **params))
    assert whole.stats["exact"] > 50
    assert whole.stats["near"] > 50


@examples(60)
@given(
    CORPORA,
    st.integers(1, 3),
    st.sampled_from([0.4, 0.75, 1.0]),
    st.sampled_from(["leader", "transitive"]),
    st.sampled_from([1, 3000, 1 << 24]),
    st.integers(1, 15),
)
def test_any_rows_in_any_memory(rows, ngram, threshold, closure, memory, cut):
    batch = vg.TokenBatch.from_lists(rows, ids=range(len(rows)))
    params = {"threshold": threshold, "ngram": ngram, "closure": closure}
    parts = (batch[start : start + cut] for start in range(0, len(rows), cut))
    blocks = memory < 1 << 24 and closure == "leader"
    same(near(parts, **params, memory=memory), near(batch, **params), comparisons=not blocks)


def test_keys_are_joined_in_ranges_where_they_do_not_fit():
    batch = vg.TokenBatch.from_lists(edited(np.random.default_rng(4), 3000, 20), ids=range(3000))
    same(near(batch, ngram=2, memory=60_000), near(batch, ngram=2), comparisons=False)


@pytest.mark.parametrize("rows", [[[1, 2, 3, 4, 5, 6]] * 5000, [[]] * 5000, [[r, *range(60)] for r in range(5000)]])
def test_a_crowd_is_decided_in_blocks(rows):
    """Copies, empty rows, near-copies: linear, and with the counts of rows that they have at once."""
    batch = vg.TokenBatch.from_lists(rows, ids=range(5000))
    same(near(batch, memory=1 << 18), near(batch), comparisons=False)


@given(st.lists(st.integers(0, 8), max_size=9))
def test_rows_that_share_a_root_stand_together(parents):
    roots = np.array([min(p, r) for r, p in enumerate(parents)], np.uint32)
    for row in range(len(roots)):
        roots[row] = roots[roots[row]]
    expected = [row for root in range(len(roots)) for row in np.flatnonzero(roots == root) if (roots == root).sum() > 1]
    assert shared_rows(roots).tolist() == expected


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(1, 14), st.sampled_from([1, 2, 5, 1 << 16]), st.randoms())
def test_groups_are_whole_components_that_fit(sizes, share, block, random):
    places = list(range(sum(sizes)))
    random.shuffle(places)
    roots = np.empty(len(places), np.uint32)
    components = []
    for size in sizes:
        rows, places = sorted(places[:size]), places[size:]
        roots[rows] = rows[0]
        components.append(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_spill, "BLOCK", block)
        groups = list(_spill.whole_components(roots, lambda rows: np.ones(len(rows), np.int64), share))
    expected = sorted(rows for rows in components if len(rows) > 1)
    taken = []
    for rows, fits in groups:
        mine = [component for component in expected if component[0] in rows]
        assert rows.tolist() == sorted(itertools.chain(*mine))
        assert fits == (len(rows) <= share)
        assert fits or len(mine) == 1
        taken += mine
    assert taken == expected
    assert all(len(a[0]) + len(b[0]) > share or not (a[1] and b[1]) for a, b in itertools.pairwise(groups)) or share > 1


def test_progress_is_told():
    batch = vg.TokenBatch.from_lists(edited(np.random.default_rng(4), 400, 20), ids=range(400))
    told = []
    near((batch[:300], batch[300:]), ngram=2, memory=20_000, progress=told.append)
    assert all(isinstance(event, Progress) and event.seconds >= 0 for event in told)
    stages = [event.stage for event in told]
    assert stages == sorted(stages, key=["read", "join", "compare"].index)
    assert [(e.done, e.total) for e in told if e.stage == "read"] == [(300, None), (400, None)]
    assert [(e.done, e.total) for e in told if e.stage == "join"] == [(n, 22) for n in range(1, 23)]
    compared = [e.done for e in told if e.stage == "compare"]
    assert len(compared) > 3
    assert compared == sorted(compared)
    assert compared[-1] == 400


def test_files_go_with_the_deduper(tmp_path):
    deduper = Deduper(memory="1MB", directory=tmp_path)
    deduper.add(vg.TokenBatch.from_lists([[1, 2, 3, 4, 5, 6]] * 2, ids=[1, 2]))
    assert len(list(tmp_path.iterdir())) == 1
    assert deduper.result().keeper.tolist() == [0, 0]
    del deduper
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("2GiB", 2 << 30), (" 1.5 kB", 1500), ("70", 70), (1 << 24, 1 << 24)]
)
def test_sizes(text, size):
    assert _spill.bytes_of(text) == size


def test_wrong_calls_are_named(monkeypatch, tmp_path):
    monkeypatch.undo()
    batch = vg.TokenBatch.from_lists([[1]])
    for wrong in ("much", "-1", "1e9", ""):
        with pytest.raises(InvalidInput, match=re.escape(f"like '512MB' or '2GiB' (it is '{wrong}')")):
            near(batch, memory=wrong)
    for wrong in (0, -5, 1.5, True, "15MB"):
        with pytest.raises(InvalidInput, match=re.escape(f"memory must be at least 16 MiB (it is {wrong!r})")):
            near(batch, memory=wrong)
    with pytest.raises(InvalidInput, match="directory= goes with memory="):
        near(batch, directory=tmp_path)
    with pytest.raises(InvalidInput, match="progress= goes with memory="):
        near(batch, progress=print)
    with pytest.raises(InvalidInput, match="order= is for one batch"):
        near([batch], order=[1])
    for odd in ({"mode": "exact"}, {"keep": "none"}):
        with pytest.raises(InvalidInput, match="needs all rows at once: leave out memory="):
            near(batch, memory="16MiB", **odd)
    with pytest.raises(InvalidInput, match="or batches of one kind, not int"):
        near(3)
    with pytest.raises(InvalidInput, match="not list"):
        near([[1, 2]], memory="1GB")
    deduper = Deduper(memory="16MiB")
    deduper.add(batch)
    with pytest.raises(InvalidInput, match="unit 'token' needs a TokenBatch"):
        deduper.add(vg.TextBatch.from_texts(["a"]))
    assert len(deduper) == 1


BOUNDED = """
import sys
import numpy as np
import variegate as vg
sys.path.insert(0, sys.argv[1])
from big_stream import batches, peak
vg.set_num_threads(1)
kind, documents = sys.argv[2], int(sys.argv[3])
len(list(batches(kind, 4096)))
before = peak()
found = vg.dedup.near(batches(kind, documents), threshold=0.7, memory="32MB")
print(peak() - before, found.stats["kept"], found.stats["near"], found.stats["exact"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["mixed", "crowd"])
def test_memory_is_held(kind):
    """50,000 documents, 40 MB of tokens: what is taken over the interpreter and one batch, in a process of its own."""
    benches = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "benches")
    command = [sys.executable, "-c", BOUNDED, benches, kind, "50000"]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    taken, kept, near_, copies = map(int, done.stdout.split())
    assert taken < 32_000_000
    assert kept + near_ + copies == 50_000
    assert near_ > 5_000
