"""Repeated substrings, decontamination and overlap against brute force, and the promises that need no oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from variegate.dedup import Normalize, decontaminate, overlap, substring
from variegate.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parent / "vectors" / "dedup_windows.json").read_text("utf-8"))

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=24), max_size=10)


def tokens(rows, **more):
    return vg.TokenBatch.from_lists(rows, **more)


def texts_of(rows, separators=(" ", "\n", "  ")):
    """Texts with a word for each token, and rows' words joined by different white space."""
    return vg.TextBatch.from_texts(
        [separators[r % len(separators)].join(f"Wörd{token}" for token in row) for r, row in enumerate(rows)]
    )


def span_rows(spans):
    return [list(span) for span in zip(*(column.tolist() for column in spans), strict=True)]


def hit_rows(found, items):
    """Row, start, end, item, start in the item, covered tokens of the item."""
    h = found.hits
    covered = [round(c * len(items[t])) for c, t in zip(h.coverage.tolist(), h.eval_row.tolist(), strict=True)]
    columns = [h.train_row, h.train_start, h.train_end, h.eval_row, h.eval_start]
    return [[*hit, count] for hit, count in zip(span_rows(columns), covered, strict=True)]


def repeated(rows, length, keep):
    """The mask, by definition: all windows and where they are."""
    places = {}
    for r, row in enumerate(rows):
        for i in range(len(row) - length + 1):
            places.setdefault(tuple(row[i : i + length]), []).append((r, i))
    masks = [[1] * len(row) for row in rows]
    for found in places.values():
        for r, i in found if keep == "none" and len(found) > 1 else found[1:]:
            masks[r][i : i + length] = [0] * length
    return [value for mask in masks for value in mask]


@pytest.mark.parametrize("case", VECTORS["substring"], ids=lambda case: f"{case['length']}-{case['keep']}")
def test_golden_repeats(case):
    found = substring(tokens(case["rows"]), length=case["length"], keep=case["keep"])
    assert span_rows(found.spans) == case["spans"]
    assert found.mask.tolist() == case["mask"]


@pytest.mark.parametrize("case", VECTORS["decontaminate"], ids=lambda case: f"{case['ngram']}-{case['shortest']}")
def test_golden_hits(case):
    rows, items = tokens(case["rows"]), tokens(case["items"])
    found = decontaminate(rows, items, ngram=case["ngram"], shortest=case["shortest"])
    assert hit_rows(found, case["items"]) == case["hits"]
    assert (found.hits.eval_end - found.hits.eval_start == found.hits.train_end - found.hits.train_start).all()


@given(ROWS, st.integers(1, 6), st.sampled_from(["first", "none"]))
def test_the_mask_is_the_definition_and_spans_repeat_their_source(rows, length, keep):
    found = substring(tokens(rows), length=length, keep=keep)
    assert found.mask.tolist() == repeated(rows, length, keep)
    inside = [[1] * len(row) for row in rows]
    for row, start, end, source, source_start in span_rows(found.spans):
        assert end - start >= length
        assert rows[row][start:end] == rows[source][source_start : source_start + end - start]
        assert (source, source_start) < (row, start)
        inside[row][start:end] = [0] * (end - start)
        after = source_start + end - start
        assert end == len(rows[row]) or after == len(rows[source]) or rows[row][end] != rows[source][after]
    if keep == "first":
        assert [value for mask in inside for value in mask] == found.mask.tolist()
    assert found.stats["masked"] == found.mask.tolist().count(0)


@given(ROWS, st.integers(1, 6), st.sampled_from(["first", "none"]))
def test_texts_repeat_where_their_words_do(rows, length, keep):
    texts = texts_of(rows)
    found, expected = substring(texts, length=length, keep=keep), substring(tokens(rows), length=length, keep=keep)
    assert found.stats == expected.stats
    assert found.spans.row.tolist() == expected.spans.row.tolist()
    assert found.spans.source_row.tolist() == expected.spans.source_row.tolist()
    whole = [text.encode() for text in texts.texts]
    for k, (row, start, end, source, source_start) in enumerate(span_rows(found.spans)):
        words = [int(word[4:]) for word in whole[row][start:end].decode().split()]
        assert words == rows[row][expected.spans.start[k] : expected.spans.end[k]]
        before = whole[source][:source_start].decode().split()
        assert len(before) == expected.spans.source_start[k]
    left = [[int(word[4:]) for word in text.split()] for text in found.cut(texts).texts]
    assert left == expected.cut(tokens(rows)).to_lists()


@given(ROWS, ROWS, st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_hits_are_real_and_complete(rows, items, ngram, shortest, cut):
    found = decontaminate(tokens(rows), tokens(items), ngram=ngram, shortest=shortest, threshold=0.6)
    lengths = [min(len(item), ngram) for item in items]
    score = np.zeros(len(rows))
    pairs = {}
    for row, start, end, item, item_start, count in hit_rows(found, items):
        assert rows[row][start:end] == items[item][item_start : item_start + end - start]
        assert end - start >= lengths[item] >= min(shortest, ngram)
        pairs.setdefault((row, item), (set(), count))[0].update(range(start, end))
    for r, row in enumerate(rows):
        for t, item in enumerate(items):
            n = lengths[t]
            grams = {tuple(item[j : j + n]) for j in range(len(item) - n + 1)} if n >= min(shortest, ngram) else set()
            inside = {k for i in range(len(row) - n + 1) if tuple(row[i : i + n]) in grams for k in range(i, i + n)}
            of_row = {tuple(row[i : i + n]) for i in range(len(row) - n + 1)}
            covered = {
                k
                for j in range(len(item) - n + 1)
                if n and tuple(item[j : j + n]) in of_row & grams
                for k in range(j, j + n)
            }
            assert pairs.get((r, t), (set(), 0)) == (inside, len(covered))
            score[r] = max(score[r], len(covered) / max(1, len(item)))
    assert np.allclose(found.score, score)
    assert found.keep.tolist() == (score < 0.6).tolist()
    assert found.short.tolist() == [n < min(shortest, ngram) for n in lengths]
    assert (found.leaked >= 0).all()
    assert (found.leaked <= 1).all()
    # Batches of a stream are numbered on, and their words are those of texts.
    batch = tokens(rows)
    stream = decontaminate(iter([batch[:cut], batch[cut:]]), tokens(items), ngram=ngram, shortest=shortest)
    assert all(np.array_equal(a, b) for a, b in zip(stream.hits, found.hits, strict=True))
    assert np.array_equal(stream.leaked, found.leaked)
    assert hit_rows(found, items) == words_hits(rows, items, ngram, shortest)
    by_item = found.by_item()
    assert sorted(by_item.eval_row.tolist()) == by_item.eval_row.tolist()


def words_hits(rows, items, ngram, shortest):
    """The hits of texts with a word for each token, in words."""
    train, evaluation = texts_of(rows), texts_of(items, separators=("\t", " \n"))
    found = decontaminate(train, evaluation, ngram=ngram, shortest=shortest)
    hits = []
    for row, _, start, end, item, _, item_start, item_end, coverage in span_rows(found.hits):
        text, other = train.texts[row].encode(), evaluation.texts[item].encode()
        words = text[start:end].split()
        assert words == other[item_start:item_end].split()
        first, item_first = len(text[:start].split()), len(other[:item_start].split())
        hits.append([row, first, first + len(words), item, item_first, round(coverage * len(items[item]))])
    return hits


@given(ROWS, ROWS, st.integers(1, 5))
def test_overlap_counts_what_is_in_the_corpus(rows, protected, ngram):
    found = overlap(tokens(rows), tokens(protected), ngram=ngram)
    grams = {tuple(doc[i : i + ngram]) for doc in protected for i in range(len(doc) - ngram + 1)}
    for r, row in enumerate(rows):
        inside = {
            k for i in range(len(row) - ngram + 1) if tuple(row[i : i + ngram]) in grams for k in range(i, i + ngram)
        }
        assert found.covered[r] == len(inside) / max(1, len(row))
    sizes = found.spans.end - found.spans.start
    expected = [max([0, *sizes[found.spans.row == r].tolist()]) for r in range(len(rows))]
    assert found.longest.tolist() == expected
    for row, start, end, item, _, item_start, item_end in span_rows(found.spans):
        assert rows[row][start:end] == protected[item][item_start:item_end]


def test_planted_spans_are_found_with_exact_bounds():
    rng = np.random.default_rng(5)
    rows = [rng.integers(0, 1 << 31, rng.integers(80, 400)) for _ in range(600)]
    sources, planted = rows[:300], {}
    for r in range(300, 600):
        source = int(rng.integers(300))
        size = int(rng.integers(50, 80))
        start = int(rng.integers(0, len(sources[source]) - size + 1))
        at = int(rng.integers(0, len(rows[r])))
        rows[r] = np.concatenate([rows[r][:at], sources[source][start : start + size], rows[r][at:]])
        planted[r] = (at, at + size, source, start)
    batch = tokens(rows, ids=np.arange(600))
    spans = span_rows(substring(batch, length=50).spans)
    seen = {}
    for row, start, end, source, source_start in spans:
        seen.setdefault((source, source_start), row)
        assert planted[row] == (start, end, source, source_start) or source >= 300
    # A place that was planted before is found where it first was: all rows are, and only those.
    assert [row for row, *_ in spans] == sorted(planted)
    assert [(start, end) for _, start, end, *_ in spans] == [planted[r][:2] for r in sorted(planted)]

    found = decontaminate(batch[300:], batch[:300])
    hits = span_rows([found.hits.train_id, *found.hits[2:5], found.hits.eval_start])
    assert hits == [[r, *planted[r]] for r in sorted(planted)]
    covered = overlap(batch[300:], batch[:300])
    assert covered.longest.tolist() == [planted[r][1] - planted[r][0] for r in sorted(planted)]


def test_disjoint_random_text_has_no_hits():
    rng = np.random.default_rng(6)
    train = tokens([rng.integers(0, 50_000, 500) for _ in range(2000)])
    evaluation = tokens([rng.integers(0, 50_000, 60) for _ in range(5000)])
    found = decontaminate(train, evaluation, ngram=8)
    assert found.stats["hits"] == 0
    assert found.keep.all()
    assert not found.leaked.any()
    assert found.stats["ngrams"] == 5000 * 53
    assert substring(train, length=8).stats["spans"] == 0


def test_threads_and_instruction_sets_do_not_change_the_result():
    script = (
        "import hashlib, numpy as np, variegate as vg\n"
        "rng = np.random.default_rng(1)\n"
        "base = rng.integers(0, 5000, 4000)\n"
        "rows = [base[s : s + n] if n % 3 else rng.integers(0, 3, n) "
        "for s, n in zip(rng.integers(0, 3900, 9000), rng.integers(0, 200, 9000))]\n"
        "batch = vg.TokenBatch.from_lists(rows)\n"
        "made = hashlib.sha256()\n"
        "for found in (vg.dedup.substring(batch, length=20), vg.dedup.substring(batch, length=3, keep='none')):\n"
        "    [made.update(a.tobytes()) for a in (found.mask, *found.spans)]\n"
        "found = vg.dedup.decontaminate(batch[100:], batch[:100])\n"
        "[made.update(a.tobytes()) for a in (*found.hits, found.keep, found.leaked)]\n"
        "print(found.stats, made.hexdigest())"
    )
    said = set()
    for level in vg._core.simd_levels()[1]:
        for threads in "12":
            environment = os.environ | {"VARIEGATE_SIMD": level, "RAYON_NUM_THREADS": threads}
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
            )
            said.add(done.stdout)
    assert len(said) == 1


def test_crowds_and_long_rows_are_linear():
    one = np.arange(100) * 7
    crowd = vg.TokenBatch.from_arrays(np.tile(one, 100_000), np.arange(0, 10_000_001, 100), ids=np.arange(100_000))
    found = substring(crowd, length=50)
    assert found.stats["spans"] == 99_999
    assert found.mask[:100].all()
    assert not found.mask[100:].any()
    hits = decontaminate(crowd, tokens([one])).hits
    assert hits.train_row.tolist() == list(range(100_000))
    assert (hits.coverage == 1).all()
    equal = vg.TokenBatch.from_arrays(np.full(1_000_000, 5), [0, 1_000_000])
    assert span_rows(substring(equal, length=50).spans) == [[0, 1, 1_000_000, 0, 0]]
    assert decontaminate(equal, equal).leaked.tolist() == [1]
    assert overlap(equal, equal).longest.tolist() == [1_000_000]
    rng = np.random.default_rng(2)
    long = vg.TokenBatch.from_arrays(rng.integers(0, 1 << 32, 10_000_000), [0, 10_000_000], ids=[0])
    assert substring(long, length=50).stats["spans"] == 0
    empty = vg.TokenBatch.from_arrays([], np.zeros(1_000_001, np.int64), ids=np.zeros(1_000_000, np.uint64))
    assert substring(empty).stats["spans"] == 0
    assert decontaminate(empty, tokens([one])).keep.all()


def test_boilerplate_may_be_left_out():
    prompt = list(range(20))
    items = tokens([[*prompt, *range(100 * k, 100 * k + 30)] for k in range(1, 6)])
    train = tokens([[7, *prompt, 8], [*range(200, 230)]])
    assert decontaminate(train, items, ngram=13).stats["hits"] == 6
    found = decontaminate(train, items, ngram=13, max_items=4)
    assert found.hits.train_row.tolist() == [1]
    assert found.hits.eval_row.tolist() == [1]
    assert found.hits.coverage.tolist() == [30 / 50]
    assert overlap(train, items, max_items=4).longest.tolist() == [0, 30]


def test_the_threshold_decides_what_is_kept():
    item = list(range(40))
    train = tokens([item[:20], item[:30], item, [99] * 40])
    for threshold, keep in [
        (0, [False, False, False, True]),
        (0.5, [False, False, False, True]),
        (0.6, [True, False, False, True]),
        (1, [True, True, False, True]),
    ]:
        found = decontaminate(train, tokens([item, [1, 2, 3]]), threshold=threshold)
        assert found.keep.tolist() == keep
    assert found.score.tolist() == [0.5, 0.75, 1, 0]
    assert found.short.tolist() == [False, True]
    assert repr(found) == "DecontaminationResult(rows=4, kept=3, items=2, short=1, leaked=1, hits=3, ngrams=28)"
    assert found.by_item().train_row.tolist() == [0, 1, 2]


def test_normalisation_says_what_differs():
    train = vg.TextBatch.from_texts(["So:\n«What  IS the\n– capital of France?» he said."])
    item = vg.TextBatch.from_texts(["what is the capital of france"])
    found = decontaminate(train, item, ngram=6)
    assert found.hits.coverage.tolist() == [1]
    start, end = int(found.hits.train_start[0]), int(found.hits.train_end[0])
    assert train.texts[0].encode()[start:end].decode() == "«What  IS the\n– capital of France?»"
    assert decontaminate(train, item, ngram=6, normalize=Normalize()).stats["hits"] == 0
    twice = vg.TextBatch.from_texts(["One two, three.", "so one TWO, three. Four"])
    assert substring(twice, length=3).cut(twice).texts == ["One two, three.", "so  Four"]
    assert substring(twice, length=3, normalize=Normalize(case=False)).stats["spans"] == 0


def test_cut_carries_columns_rows_and_spans():
    batch = vg.TokenBatch.from_lists(
        [[1, 2, 3, 4], [9, 2, 3, 4, 8]],
        ids=[5, 6],
        columns={"labels": np.arange(9, dtype=np.int32)},
        rows={"kind": np.array([3, 4])},
        spans=[(1, 0, 2, "a"), (1, 1, 3, "b"), (1, 2, 5, "c"), (1, 4, 4, "d")],
    )
    cut = substring(batch, length=3).cut(batch)
    assert cut.to_lists() == [[1, 2, 3, 4], [9, 8]]
    assert cut.columns["labels"].tolist() == [0, 1, 2, 3, 4, 8]
    assert cut.rows["kind"].tolist() == [3, 4]
    assert cut.ids.tolist() == [5, 6]
    assert cut.spans.to_list() == [(1, 0, 1, "a"), (1, 1, 2, "c"), (1, 1, 1, "d")]
    with pytest.raises(InvalidInput, match=r"^cut needs the batch that the mask is of \(4 != 9\)$"):
        substring(batch, length=3).cut(batch[:1])
    both = vg.TokenBatch.from_lists([[1]], ids=[1])
    both.targets = vg.TokenBatch.from_lists([[2]], ids=[1])
    with pytest.raises(InvalidInput, match=r"^cut cannot change a batch with targets"):
        substring(both).cut(both)


def test_nothing_comes_of_nothing():
    for batch in (tokens([]), vg.TextBatch.from_texts([])):
        assert substring(batch).mask.tolist() == []
        assert decontaminate(batch, batch).keep.tolist() == []
        assert overlap(batch, batch).covered.tolist() == []
    assert decontaminate([], tokens([[1] * 20])).leaked.tolist() == [0]
    with pytest.raises(InvalidInput, match=r"^deduplication needs a TokenBatch, a TextBatch, or batches .*, not int$"):
        decontaminate(3, tokens([]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: substring(b, length=0), r"length must lie in 1 to 65536 \(it is 0\)"),
        (lambda b: substring(b, length=-3), r"length must lie in 1 to 65536 \(it is -3\)"),
        (lambda b: substring(b, keep="last"), r"keep must be 'first' or 'none' \(it is 'last'\)"),
        (lambda b: substring(b, normalize=Normalize()), r"normalize= is for a TextBatch, and this is a TokenBatch"),
        (lambda b: decontaminate(b, b, ngram=0), r"ngram must lie in 1 to 65536 \(it is 0\)"),
        (lambda b: decontaminate(b, b, shortest=0), r"shortest must lie in 1 to 65536 \(it is 0\)"),
        (lambda b: decontaminate(b, b, threshold=1.5), r"threshold must lie in \[0, 1\] \(it is 1.5\)"),
        (lambda b: decontaminate(b, b, threshold=float("nan")), r"threshold must lie in \[0, 1\] \(it is nan\)"),
        (lambda b: overlap(b, b, max_items=0), r"max_items must be at least 1, or None \(it is 0\)"),
        (
            lambda b: overlap(vg.TextBatch.from_texts(["a"]), b),
            r"rows and items must be of one kind: the items are a TokenBatch, and the rows a TextBatch",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(call, message):
    with pytest.raises(InvalidInput, match=f"^{message}$"):
        call(tokens([[1, 2, 3]]))
