"""Deduplication against comparing every pair, and the promises that do not need an oracle."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from variegate.dedup import Deduper, exact, near
from variegate.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parent / "vectors" / "dedup.json").read_text("utf-8"))
SURE = 0.999999
"""A recall at which no pair of these small corpora is missed."""

CORPORA = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=14)


def shingles(row, ngram):
    return {tuple(row[i : i + ngram]) for i in range(len(row) - ngram + 1)}


def jaccard(a, b, ngram):
    left, right = shingles(a, ngram), shingles(b, ngram)
    return len(left & right) / len(left | right) if left | right else float(a == b)


def edited(rng, row, share, vocabulary):
    """A copy of `row` with about a share of its tokens replaced."""
    row = row.copy()
    at = rng.random(len(row)) < share
    row[at] = rng.integers(0, vocabulary, at.sum())
    return row


def planted(seed, *, bases, low, high, vocabulary=20_000, shares=(0.0, 0.01, 0.02, 0.05, 0.1)):
    """Rows of `low` to `high` tokens; each base has one edited copy per share, all of them shuffled."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(bases):
        base = rng.integers(0, vocabulary, rng.integers(low, high + 1))
        rows += [base, *(edited(rng, base, share, vocabulary) for share in shares)]
    return [rows[i].tolist() for i in rng.permutation(len(rows))]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['closure']}-{case['keep']}-{case['ngram']}")
def test_golden_vectors(case):
    batch = vg.TokenBatch.from_lists(case["rows"], ids=case["ids"])
    params = {name: case[name] for name in ("threshold", "ngram", "closure", "keep", "order")}
    found = near(batch, **params, recall=SURE)
    assert found.keeper.tolist() == case["keeper"]
    assert found.cluster.tolist() == case["cluster"]
    assert found.similarity.tolist() == case["similarity"]


def test_the_arrays_and_their_types():
    batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10], [9, 5], [5, 6, 7, 8, 9, 10]], ids=[11, 12, 3])
    found = near(batch, threshold=0.8, ngram=5)
    assert found.keep.tolist() == [False, True, True]
    assert found.keeper.tolist() == [2, 1, 2]
    assert found.keeper_ids.tolist() == [3, 12, 3]
    assert found.cluster.tolist() == [0, 1, 0]
    assert found.similarity.tolist() == [1, 1, 1]
    kinds = [found.keep, found.keeper, found.keeper_ids, found.cluster, found.similarity]
    assert [array.dtype for array in kinds] == [bool, np.int64, np.uint64, np.int64, np.float32]
    assert repr(found) == "DedupResult(rows=3, kept=2, exact=1, near=0)"
    with pytest.raises(AttributeError):
        found.keep = None


def test_nothing_comes_of_nothing():
    for batch in (vg.TokenBatch.from_lists([]), vg.TextBatch.from_texts([])):
        for found in (near(batch), exact(batch)):
            assert len(found.keep) == len(found.keeper_ids) == 0
            assert found.stats["rows"] == 0
    assert len(Deduper().result().keep) == 0


@pytest.mark.parametrize(("threshold", "ngram"), [(0.7, 3), (0.7, 5), (0.8, 3), (0.8, 5)])
@pytest.mark.parametrize(("low", "high"), [(5, 30), (30, 100), (100, 500)])
def test_recall_precision_and_the_guarantee_of_leaders(threshold, ngram, low, high):
    """Every row that goes is similar to its keeper; of the kept rows hardly any two are similar."""
    rows = planted(7, bases=120, low=low, high=high)
    found = near(vg.TokenBatch.from_lists(rows), threshold=threshold, ngram=ngram)
    sets = [shingles(row, ngram) for row in rows]
    gone = np.flatnonzero(~found.keep)
    assert len(gone) > 150
    for r in gone.tolist():
        k = int(found.keeper[r])
        assert found.keep[k]
        similarity = jaccard(rows[r], rows[k], ngram)
        assert similarity >= threshold
        assert found.similarity[r] == np.float32(similarity)
    holders = {}
    for r in np.flatnonzero(found.keep).tolist():
        for shingle in sets[r]:
            holders.setdefault(shingle, []).append(r)
    sharing = {(a, b) for rows_ in holders.values() for a in rows_ for b in rows_ if a < b}
    missed = sum(jaccard(rows[a], rows[b], ngram) >= threshold for a, b in sharing)
    assert missed <= max(1, 0.001 * len(gone))


@pytest.mark.parametrize(("threshold", "band_width"), [(0.7, 4), (0.8, 5)])
def test_pairs_just_over_the_threshold_are_found(threshold, band_width):
    """Pairs with similarity in [t, t + 0.05): 999 of 1000 meet, and pairs under t never count as similar."""
    rng = np.random.default_rng(3)
    rows, pairs = [], []
    for trial in range(10_000):
        n = int(rng.integers(5, 101))
        base = rng.integers(0, 1 << 31, n)
        other = base.copy()
        most = int(n * (1 - threshold) / (1 + threshold))
        k = most if trial % 2 else int(rng.integers(0, most + 2))
        other[rng.permutation(n)[:k]] = rng.integers(0, 1 << 31, k)
        pairs.append(jaccard(base.tolist(), other.tolist(), 1))
        rows += [base.tolist(), other.tolist()]
    found = near(vg.TokenBatch.from_lists(rows), threshold=threshold, ngram=1, keep="first")
    gone = ~found.keep[1::2]
    pairs = np.array(pairs)
    assert found.stats["band_width"] == band_width
    assert not gone[pairs < threshold].any()
    for low, high in [(threshold, threshold + 0.05), (threshold, 1.01)]:
        there = (pairs >= low) & (pairs < high)
        assert there.sum() > 3000
        assert gone[there].mean() >= 0.999


@given(CORPORA, st.integers(1, 3), st.sampled_from([0.4, 0.5, 0.75, 1.0]), st.sampled_from(["lsh", "exact"]), st.data())
def test_leaders_are_those_of_comparing_all_pairs(rows, ngram, threshold, mode, data):
    order = data.draw(st.none() | st.lists(st.integers(-2, 2), min_size=len(rows), max_size=len(rows)))
    batch = vg.TokenBatch.from_lists(rows, ids=np.arange(len(rows))[::-1])
    found = near(batch, threshold=threshold, ngram=ngram, order=order, mode=mode, recall=SURE)
    kept = []
    ranked = sorted(range(len(rows)), key=lambda r: (order[r] if order else 0, -len(rows[r]), int(batch.ids[r])))
    for r in ranked:
        similar = (k for k in kept if rows[k] == rows[r] or jaccard(rows[k], rows[r], ngram) >= threshold)
        keeper = next((k for k in similar if rows[k] == rows[r] or len(rows[k]) >= ngram), r)
        assert found.keeper[r] == keeper
        if keeper == r:
            kept.append(r)


@given(CORPORA, st.sampled_from([0.5, 0.75]), st.sampled_from(["lsh", "exact"]))
def test_transitive_clusters_are_the_components_of_similar_pairs(rows, threshold, mode):
    batch = vg.TokenBatch.from_lists(rows)
    found = near(batch, threshold=threshold, ngram=2, mode=mode, recall=SURE, closure="transitive")
    label = list(range(len(rows)))
    for _ in rows:
        for a in range(len(rows)):
            for b in range(len(rows)):
                if rows[a] == rows[b] or (
                    min(len(rows[a]), len(rows[b])) > 1 and jaccard(rows[a], rows[b], 2) >= threshold
                ):
                    label[a] = min(label[a], label[b])
    same = np.equal.outer(label, label) if rows else np.zeros((0, 0), bool)
    assert (np.equal.outer(found.cluster, found.cluster) == same).all()
    assert found.keep.sum() == len(set(label))
    assert found.keep[found.keeper].all()
    for r, k in enumerate(found.keeper.tolist()):
        assert found.similarity[r] == np.float32(1.0 if rows[r] == rows[k] else jaccard(rows[r], rows[k], 2))


@pytest.mark.parametrize(("threshold", "ngram"), [(0.7, 3), (0.7, 5), (0.8, 3), (0.8, 5)])
@pytest.mark.parametrize(("low", "high"), [(5, 100), (100, 500)])
def test_the_join_misses_no_pair_and_lsh_one_of_a_thousand(threshold, ngram, low, high):
    """Against all pairs that share a shingle, also those just over the threshold; leaders guarantee what they say."""
    rows = planted(11, bases=150, low=low, high=high, shares=np.linspace(0, 0.12, 9).tolist())
    rows = list({tuple(row): row for row in rows if len(row) >= ngram}.values())
    sets = [shingles(row, ngram) for row in rows]
    holders = {}
    for r, set_ in enumerate(sets):
        for shingle in set_:
            holders.setdefault(shingle, []).append(r)
    sharing = {(a, b) for rows_ in holders.values() for a, b in itertools.combinations(rows_, 2)}
    similar = {pair: jaccard(rows[pair[0]], rows[pair[1]], ngram) for pair in sharing}
    similar = {pair: value for pair, value in similar.items() if value >= threshold}
    edge = [pair for pair, value in similar.items() if value < threshold + 0.05]
    assert len(edge) > 40
    batch = vg.TokenBatch.from_lists(rows, ids=np.arange(len(rows)))
    for mode, recall in [("exact", 1.0), ("lsh", 0.999)]:
        found = near(batch, threshold=threshold, ngram=ngram, mode=mode)
        for r in np.flatnonzero(~found.keep).tolist():
            pair = (min(r, found.keeper[r]), max(r, found.keeper[r]))
            assert found.similarity[r] == np.float32(similar[pair])
        for pairs in (edge, list(similar)):
            assert np.mean([not (found.keep[a] and found.keep[b]) for a, b in pairs]) >= recall
        joined = near(batch, threshold=threshold, ngram=ngram, mode=mode, closure="transitive")
        for pairs in (edge, list(similar)):
            assert np.mean([joined.cluster[a] == joined.cluster[b] for a, b in pairs]) >= recall
        if mode == "exact":
            label = np.arange(len(rows))
            for _ in range(20):
                for a, b in similar:
                    label[a] = label[b] = min(label[a], label[b])
            assert len(set(zip(label.tolist(), joined.cluster.tolist(), strict=True))) == len(set(label.tolist()))
            assert len(set(label.tolist())) == joined.cluster.max() + 1


@given(CORPORA, st.lists(st.integers(0, 14), max_size=4), st.sampled_from(["leader", "transitive"]))
def test_batches_fed_one_by_one_give_the_result_of_one_call(rows, cuts, closure):
    batch = vg.TokenBatch.from_lists(rows, ids=np.arange(len(rows)) % 3)
    order = np.arange(len(rows)) % 2
    params = {"threshold": 0.6, "ngram": 2, "closure": closure}
    whole = near(batch, order=order, **params)
    deduper = Deduper(**params)
    cuts = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in itertools.pairwise(cuts):
        deduper.add(batch[start:end], order=order[start:end])
    assert len(deduper) == len(rows)
    parts = deduper.result()
    for name in ("keep", "keeper", "keeper_ids", "cluster", "similarity"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))
    assert parts.stats == whole.stats


def test_a_result_may_be_asked_for_between_batches():
    deduper = Deduper(threshold=0.5, ngram=2)
    deduper.add(vg.TokenBatch.from_lists([[1, 2, 3, 4]]))
    assert deduper.result().keeper.tolist() == [0]
    deduper.add(vg.TokenBatch.from_lists([[1, 2, 3, 4, 5]]))
    assert deduper.result().keeper.tolist() == [1, 1]


def test_threads_do_not_change_the_result():
    batch = vg.TokenBatch.from_lists(planted(5, bases=300, low=20, high=400))
    threads = vg.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            vg.set_num_threads(n)
            results.append(near(batch, ngram=3))
    finally:
        vg.set_num_threads(threads)
    for other in results[1:]:
        assert np.array_equal(other.keeper, results[0].keeper)
        assert np.array_equal(other.similarity, results[0].similarity)
        assert other.stats == results[0].stats


def test_instruction_sets_do_not_change_the_result():
    script = (
        "import numpy as np, variegate as vg\n"
        "rng = np.random.default_rng(1)\n"
        "rows = [rng.integers(0, 9, rng.integers(0, 40)).tolist() for _ in range(400)]\n"
        "found = vg.dedup.near(vg.TokenBatch.from_lists(rows), threshold=0.3, ngram=2)\n"
        "print(found.keeper.tolist(), found.similarity.tolist(), sorted(found.stats.items()))"
    )
    said = {}
    for level in vg._core.simd_levels()[1]:
        environment = os.environ | {"VARIEGATE_SIMD": level}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        said[level] = done.stdout
    assert len(set(said.values())) == 1
    assert "portable" in said


def test_a_stream_of_batches_gives_the_result_of_one_call():
    batch = vg.TokenBatch.from_lists(planted(6, bases=40, low=5, high=60))
    stream = near((batch[at : at + 17] for at in range(0, len(batch), 17)), ngram=3)
    whole = near(batch, ngram=3)
    assert np.array_equal(stream.keeper, whole.keeper)
    assert np.array_equal(stream.keeper_ids, whole.keeper_ids)
    assert stream.stats == whole.stats
    assert len(near(iter([])).keep) == 0
    with pytest.raises(InvalidInput, match=r"^order= is for one batch: give that of batches to Deduper.add$"):
        near([batch], order=[1])
    with pytest.raises(InvalidInput, match=r"^deduplication needs a TokenBatch, a TextBatch, or batches .*, not int$"):
        near(3)


@pytest.mark.parametrize("closure", ["leader", "transitive"])
@pytest.mark.parametrize("mode", ["lsh", "exact"])
def test_crowds_are_linear(closure, mode):
    """100,000 copies, empty rows and near-copies: each row is compared at most about once."""
    n = 100_000
    copies = np.tile(np.arange(30, dtype=np.uint32), (n, 1))
    near_copies = copies.copy()
    near_copies[:, 0] += np.arange(n, dtype=np.uint32)
    lengths = np.full(n, 30)
    ids = np.arange(n)
    for tokens, size, compared in [(copies, lengths, 0), (copies[:0], 0 * lengths, 0), (near_copies, lengths, 2 * n)]:
        offsets = np.concatenate([[0], np.cumsum(size)])
        found = near(
            vg.TokenBatch.from_arrays(tokens.reshape(-1), offsets, ids=ids), ngram=3, closure=closure, mode=mode
        )
        assert found.keep.sum() == 1
        assert found.keep[0]
        assert found.stats["compared"] <= compared
        assert found.stats["capped_buckets"] == 0


def test_texts_by_word_and_by_character():
    texts = ["One two  three FOUR five", "one\ttwo three four\nfive", "one two three four fivE!", "", "  \n"]
    batch = vg.TextBatch.from_texts(texts, ids=[5, 4, 3, 2, 1])
    words = near(batch, threshold=0.5, ngram=2)
    assert words.keeper.tolist() == [2, 2, 2, 4, 4]
    assert words.similarity.tolist() == [np.float32(0.6)] * 2 + [1] * 3
    chars = near(batch, threshold=0.5, ngram=3, unit="char")
    assert chars.keeper.tolist() == [2, 2, 2, 4, 4]
    assert chars.similarity[0] == np.float32(jaccard("one two three four five", "one two three four five!", 3))
    assert exact(batch).keep.all()


@given(st.lists(st.text("abAB .\né", max_size=20), max_size=10))
def test_a_unit_of_words_is_what_splitting_gives(texts):
    """The same documents as lists of words, numbered: the same answer."""
    split = [text.lower().split() for text in texts]
    number = {word: i for i, word in enumerate(sorted({word for words in split for word in words}))}
    tokens = vg.TokenBatch.from_lists([[number[word] for word in words] for words in split], ids=np.arange(len(texts)))
    params = {"threshold": 0.5, "ngram": 2, "recall": SURE}
    found = near(vg.TextBatch.from_texts(texts, ids=np.arange(len(texts))), **params)
    assert np.array_equal(found.keeper, near(tokens, **params).keeper)


def test_exact_keeps_the_first_in_order():
    batch = vg.TokenBatch.from_lists([[1, 2], [3], [1, 2], [], [3], []], ids=[9, 8, 7, 6, 8, 6])
    found = exact(batch)
    assert found.keeper.tolist() == [2, 1, 2, 3, 1, 3]
    assert found.stats["exact"] == 3
    assert exact(batch, order=[0, 2, 1, 1, 1, 0]).keeper.tolist() == [0, 4, 0, 5, 4, 5]
    assert exact(vg.TextBatch.from_texts(["a", "A", "a"], ids=[1, 2, 3])).keeper.tolist() == [0, 1, 0]


FEW = st.integers(0, 2)


@given(
    st.lists(st.tuples(FEW, FEW, FEW, FEW, FEW, st.integers(1, 3), FEW), max_size=12),
    st.sampled_from(["longest", "first", "none"]),
    st.sampled_from(list(itertools.product([False, True], repeat=4))),
)
def test_keep_order_goes_by_one_thing_after_another(rows, keep, given_):
    """Rows of one content (each of three contents, so copies) or of one set of shingles but another length."""
    ordered, ranked, scored, generations = given_
    lists = [[content] * (3 + length) for content, *_, length, _ in rows]
    names = ["wiki", "web", "other"]
    columns = {"source": np.array([names[row[2]] for row in rows], object)}
    if generations:
        columns["generation"] = np.array([row[4] for row in rows], np.uint32)
    batch = vg.TokenBatch.from_lists(lists, ids=[row[6] for row in rows], rows=columns)
    order = [row[1] for row in rows] if ordered else None
    score = [row[3] / 2 for row in rows] if scored else None
    priority = ["web", "wiki"] if ranked else None

    def place(r):
        _, order, source, score, generation, length, id_ = rows[r]
        first = (ordered * order, ranked * [1, 0, 2][source], -scored * score)
        return (*first, r) if keep == "first" else (*first, generations * generation, -length, id_, r)

    best = [min((k for k in range(len(rows)) if rows[k][0] == row[0]), key=place) for row in rows]
    found = near(batch, threshold=1, ngram=2, keep=keep, order=order, score=score, priority=priority, recall=SURE)
    assert found.keeper.tolist() == best
    alone = [best.count(k) == 1 for k in best]
    assert found.keep.tolist() == (alone if keep == "none" else [k == r for r, k in enumerate(best)])
    counts = found.stats
    assert counts["kept"] == found.keep.sum()
    assert counts["kept"] + counts["exact"] + counts["near"] == len(rows)
    same = exact(batch, keep=keep, order=order, score=score, priority=priority)
    for r, keeper in enumerate(same.keeper.tolist()):
        assert keeper == min((k for k in range(len(rows)) if lists[k] == lists[r]), key=place)
    assert same.keep.sum() == same.stats["kept"]
    parts = Deduper(threshold=1, ngram=2, keep=keep, priority=priority, recall=SURE)
    half = len(rows) // 2
    parts.add(batch[:half], order=order and order[:half], score=score and score[:half])
    parts.add(batch[half:], order=order and order[half:], score=score and score[half:])
    assert np.array_equal(parts.result().keeper, found.keeper)


def test_scores_come_from_a_column_too():
    rows = {"quality": np.array([0.5, np.inf, -1])}
    batch = vg.TokenBatch.from_lists([[1, 2, 3]] * 3, ids=[1, 2, 3], rows=rows)
    assert near(batch, score="quality").keeper.tolist() == [1, 1, 1]
    assert near((batch[r : r + 1] for r in range(3)), score="quality").keeper.tolist() == [1, 1, 1]
    with pytest.raises(InvalidInput, match=r"^score= must be the name of a rows column where batches are given$"):
        near([batch], score=[1, 2, 3])


def test_a_row_of_a_shingle_less_is_only_compared_exactly():
    batch = vg.TokenBatch.from_lists([[1, 2, 3], [1, 2, 4], [1, 2, 3]], ids=[1, 2, 3])
    found = near(batch, threshold=0.1, ngram=4)
    assert found.keeper.tolist() == [0, 1, 0]
    assert found.stats["short"] == 2


def test_the_seed_changes_the_sketch_and_not_the_answer():
    batch = vg.TokenBatch.from_lists(planted(2, bases=50, low=50, high=100))
    results = [near(batch, ngram=3, recall=SURE, seed=seed) for seed in (0, 1, 2**64 - 1)]
    assert len({result.stats["largest_bucket"] for result in results} | {r.stats["compared"] for r in results}) > 1
    assert all(np.array_equal(result.keeper, results[0].keeper) for result in results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, "threshold must lie in (0, 1] (it is 1.5)"),
        ({"threshold": 0.0}, "threshold must lie in (0, 1] (it is 0)"),
        ({"recall": 1.0}, "recall must lie in (0, 1) (it is 1)"),
        (
            {"threshold": 0.01},
            "threshold 0.01 at recall 0.999 needs more than 256 slots: raise the threshold or lower the recall",
        ),
        ({"mode": "fast"}, "mode must be 'lsh' or 'exact' (it is 'fast')"),
        ({"mode": "exact", "threshold": 0.0}, "threshold must lie in (0, 1] (it is 0)"),
        ({"ngram": 0}, "ngram must lie in 1 to 32 (it is 0)"),
        ({"ngram": -3}, "ngram must lie in 1 to 32 (it is -3)"),
        ({"closure": "single"}, "closure must be 'leader' or 'transitive' (it is 'single')"),
        ({"keep": "last"}, "keep must be 'longest', 'first' or 'none' (it is 'last')"),
        ({"score": "quality"}, "score 'quality' is no rows column of the batch (it has [])"),
        ({"score": [1.0, float("nan")]}, "score must not be NaN (row 1)"),
        ({"score": [1]}, "score must hold one number a row (1 for 2 rows)"),
        ({"score": [None, 1]}, "score must be one-dimensional and of numbers (it is object[2])"),
        ({"priority": "wiki"}, "priority must be a sequence of names of sources, not str"),
        ({"priority": ["wiki"]}, "priority= needs a rows column 'source', and the batch has none"),
        ({"seed": -1}, "seed must lie in [0, 2^64) (it is -1)"),
        ({"unit": "sentence"}, "unit must be 'token', 'word' or 'char' (it is 'sentence')"),
        ({"unit": "word"}, "unit 'word' needs a TextBatch, and this is a TokenBatch"),
        ({"order": [1]}, "order must hold one number a row (1 for 2 rows)"),
        ({"order": [0.5, 1]}, "order must be one-dimensional and of integers (it is float64[2])"),
        ({"order": np.array([1, 2**63], np.uint64)}, "order must lie below 2^63 (row 1: 9223372036854775808)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        near(vg.TokenBatch.from_lists([[1], [2]]), **arguments)


def test_batches_of_another_kind_are_refused():
    tokens, texts = vg.TokenBatch.from_lists([[1]]), vg.TextBatch.from_texts(["a"])
    for first, second, message in [
        (
            tokens,
            texts,
            "unit 'token' needs a TokenBatch, and this is a TextBatch: encode it first, or give a tokenizer=",
        ),
        (texts, tokens, "unit 'word' needs a TextBatch, and this is a TokenBatch"),
        (tokens, ["a"], "deduplication needs a TokenBatch or a TextBatch, not list"),
    ]:
        deduper = Deduper()
        deduper.add(first)
        with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
            deduper.add(second)
        assert len(deduper) == len(deduper.result().keep) == 1
    with pytest.raises(InvalidInput, match=r"^deduplication needs a TokenBatch or a TextBatch, not list$"):
        exact([[1]])
