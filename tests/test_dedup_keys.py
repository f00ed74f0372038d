"""Keys and components: rows that share no key are deduplicated apart, with the result of all of them together."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import token_batches
from variegate._core import Components, NearParams
from variegate.dedup import near
from variegate.errors import InvalidInput

BATCHES = token_batches(limit=2**32, dressed=False)
PAIRS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2**31, 2**32, 2**32 + 1, 2**64 - 1]), st.integers(0, 19)), max_size=12
)


def params(*, threshold=0.8, ngram=2, recall=0.999, closure="leader", keep="longest", seed=0):
    return NearParams(threshold, ngram, "lsh", recall, closure, keep, seed)


def joined(rows, pairs):
    """The lowest row of each row's component, by relabelling."""
    label = np.arange(rows)
    for key, row in pairs:
        for other in (other for k, other in pairs if k == key):
            low, high = sorted((label[row], label[other]))
            label[label == high] = low
    return label


@given(BATCHES, st.integers(1, 16), st.integers(0, 6), st.sampled_from([0, 1, 2**64 - 1]))
def test_keys_of_a_row_are_its_own(batch, ngram, cut, seed):
    """Shape, type, 0 for short rows, and neither the other rows nor its place change the keys of a row."""
    made = params(ngram=ngram, seed=seed)
    keys = made.keys(batch.tokens, batch.offsets)
    assert keys.shape == (1 + made.bands, len(batch))
    assert keys.dtype == np.uint64
    assert keys.flags.c_contiguous
    assert not keys[1:, batch.lengths < ngram].any()
    parts = [made.keys(part.tokens, part.offsets) for part in (batch[:cut], batch[cut:])]
    assert np.array_equal(np.concatenate(parts, axis=1), keys)
    rows = batch.to_lists()
    for a in range(len(rows)):
        for b in range(a):
            assert (keys[0, a] == keys[0, b]) == (rows[a] == rows[b])
            assert rows[a] != rows[b] or np.array_equal(keys[:, a], keys[:, b])


def test_bands_are_those_of_the_statistics():
    batch = vg.TokenBatch.from_lists([[1, 2, 3]])
    for threshold in (0.5, 0.8, 1.0):
        assert params(threshold=threshold).bands == near(batch, threshold=threshold, ngram=2).stats["bands"]


@pytest.mark.parametrize("rows", [[], [[]], [[], [], [2**32 - 1]]])
def test_keys_of_nothing(rows):
    batch = vg.TokenBatch.from_lists(rows)
    keys = params().keys(batch.tokens, batch.offsets)
    assert keys.shape == (1 + params().bands, len(rows))
    assert not keys[1:].any()
    assert len(set(keys[0].tolist())) == len({tuple(row) for row in rows})


@given(st.lists(PAIRS, max_size=4))
def test_components_are_those_of_joining_all_pairs(calls):
    components = Components(20)
    expected = np.arange(20)
    for pairs in calls:
        keys, rows = zip(*pairs, strict=True) if pairs else ((), ())
        components.join(np.array(keys, np.uint64), np.array(rows, np.uint32))
        roots = joined(20, pairs)
        for row in range(20):
            low, high = sorted((expected[row], expected[roots[row]]))
            expected[expected == high] = low
        found = components.roots()
        assert found.dtype == np.uint32
        assert np.array_equal(found, expected)


def test_no_rows_are_no_components():
    components = Components(0)
    components.join(np.zeros(0, np.uint64), np.zeros(0, np.uint32))
    assert len(components.roots()) == 0


@pytest.mark.parametrize(
    ("keys", "rows", "message"),
    [
        ([1, 1], [0], "keys must hold one key a row (2 for 1 rows)"),
        ([1, 1, 1], [0, 2, 3], "rows must lie below 3 (position 2: 3)"),
        ([1], [2**32 - 1], "rows must lie below 3 (position 0: 4294967295)"),
    ],
)
def test_bad_joins_are_refused_and_join_nothing(keys, rows, message):
    components = Components(3)
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        components.join(np.array(keys, np.uint64), np.array(rows, np.uint32))
    assert components.roots().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (-1, "rows must not be negative (it is -1)"),
        (2**32 - 1, "deduplication takes at most 4294967294 rows (it has 4294967295)"),
    ],
)
def test_bad_counts_are_refused(rows, message):
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        Components(rows)


def test_keys_need_contiguous_arrays():
    with pytest.raises(InvalidInput, match="must be C-contiguous"):
        params().keys(np.zeros(8, np.uint32)[::2], np.array([0, 4]))


@given(
    st.lists(st.lists(st.sampled_from([0, 1, 2, 2**32 - 1]), max_size=12), max_size=14),
    st.sampled_from(["leader", "transitive"]),
    st.sampled_from(["longest", "first"]),
    st.sampled_from([0.5, 0.8]),
    st.data(),
)
def test_components_one_by_one_make_the_result_of_the_whole(rows, closure, keep, threshold, data):
    ids = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    order = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=len(rows), max_size=len(rows))), np.int64)
    batch = vg.TokenBatch.from_lists(rows, ids=np.array(ids, np.uint64))
    whole = near(batch, threshold=threshold, ngram=2, closure=closure, keep=keep, order=order)

    made = params(threshold=threshold, closure=closure, keep=keep)
    every = np.arange(len(batch), dtype=np.uint32)
    content, *bands = made.keys(batch.tokens, batch.offsets)
    components = Components(len(batch))
    components.join(content, every)
    long = batch.lengths >= 2
    for band in bands:
        components.join(band[long], every[long])
    roots = components.roots()
    for root in np.unique(roots):
        part = np.flatnonzero(roots == root)
        chosen = batch.take(part)
        keeper, _, similarity, _ = made.tokens(chosen.tokens, chosen.offsets, chosen.ids, order[part])
        assert np.array_equal(part[keeper], whole.keeper[part])
        assert np.array_equal(similarity, whole.similarity[part])
