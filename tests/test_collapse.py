"""Measures and sketches against plain numpy, and the promise that splits do not matter."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples
from variegate.collapse import Measures, Meter, Sketch, measure
from variegate.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parent / "vectors" / "collapse.json").read_text("utf-8"))

TOKENS = st.one_of(st.integers(0, 6), st.integers(2**18 - 2, 2**18 + 2), st.integers(0, 2**32 - 1))
CORPORA = st.lists(st.lists(TOKENS, max_size=6), max_size=20)


def batch_of(rows):
    return vg.TokenBatch.from_lists(rows)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['measures']['tokens']}-tokens")
def test_golden_vectors(case):
    reference = Sketch.build(batch_of(case["reference"])) if case["reference"] is not None else None
    measures = measure(batch_of(case["rows"]), reference=reference)
    for name, value in case["measures"].items():
        exact = value is None or isinstance(value, int)
        assert getattr(measures, name) == (value if exact else pytest.approx(value, rel=1e-9))
    sketch = Sketch.build(batch_of(case["rows"]))
    assert sketch.to_bytes().hex() == case["sketch"]
    assert sketch.tail.tolist() == case["tail"]


@given(CORPORA)
def test_counts_are_those_of_numpy(rows):
    sketch = Sketch.build(batch_of(rows))
    flat = np.array([token for row in rows for token in row], np.uint32)
    types, counts = np.unique(flat, return_counts=True)
    assert np.array_equal(sketch.counts[0], types)
    assert np.array_equal(sketch.counts[1], counts)
    assert (sketch.rows, sketch.tokens, sketch.types) == (len(rows), len(flat), len(types))
    p = counts / max(1, len(flat))
    measures = measure(batch_of(rows))
    assert measures.entropy == pytest.approx(-(p * np.log2(p)).sum(), rel=1e-9, abs=1e-12)
    assert (measures.coverage, measures.tail_coverage) == (None, None)


@examples(40)
@given(CORPORA, st.lists(st.integers(0, 20), max_size=4), st.randoms(use_true_random=False))
def test_neither_split_nor_order_matters(rows, cuts, random):
    whole, reference = batch_of(rows), Sketch.build(batch_of([[0, 1, 2, 3], *rows[::2]]))
    expected = measure(whole, reference=reference)
    cuts = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [whole[start:end] for start, end in itertools.pairwise(cuts)]
    random.shuffle(parts)
    assert measure(iter(parts), reference=reference) == expected
    assert Sketch.build(iter(parts)).to_bytes() == Sketch.build(whole).to_bytes()
    meter, sketch = Meter(reference=reference), Sketch()
    for part in parts:
        one = Meter()
        one.update(part)
        meter.merge(one)
        sketch.merge(one.sketch())
    assert meter.result() == expected
    assert meter.sketch() == sketch == Sketch.build(whole)


def test_threads_do_not_change_the_result():
    rng = np.random.default_rng(4)
    lengths = rng.integers(0, 300, 3000)
    tokens = rng.zipf(1.3, lengths.sum()) % 2**32
    batch = vg.TokenBatch.from_arrays(tokens, np.concatenate([[0], np.cumsum(lengths)]))
    threads = vg.get_num_threads()
    try:
        results = []
        for n in (1, 3):
            vg.set_num_threads(n)
            results.append(measure(batch, reference=Sketch.build(batch[:100])))
    finally:
        vg.set_num_threads(threads)
    assert results[0] == results[1]


def test_a_collapsed_corpus_loses_its_tail_first():
    """Resampling from its own counts, a corpus keeps its entropy longer than its tail."""
    rng = np.random.default_rng(5)
    p = 1 / np.arange(1, 5001)
    real = rng.choice(5000, 20_000, p=p / p.sum())
    reference = Sketch.build(batch_of([real.tolist()]))
    tail_coverage, data = [], real
    for _ in range(4):
        measures = measure(batch_of([data.tolist()]), reference=reference)
        tail_coverage.append(measures.tail_coverage)
        assert measures.coverage > measures.tail_coverage or not len(tail_coverage) > 1
        data = rng.choice(data, len(data))
    assert tail_coverage[0] == 1
    assert sorted(tail_coverage, reverse=True) == tail_coverage
    assert tail_coverage[-1] < 0.5
    assert measures.entropy > 0.9 * measure(batch_of([real.tolist()])).entropy


def test_merging_with_itself_doubles():
    meter = Meter()
    meter.update(batch_of([[1, 2], [3]]))
    meter.merge(meter)
    assert meter.result() == measure([batch_of([[1, 2], [3]])] * 2)
    sketch = Sketch.build(batch_of([[1, 1, 9]]))
    sketch.merge(sketch)
    assert sketch.counts[1].tolist() == [4, 2]


def test_a_sketch_survives_bytes_and_pickle():
    sketch = Sketch.build(batch_of([[1, 1, 2**32 - 1], []]))
    for copy in (Sketch.from_bytes(sketch.to_bytes()), pickle.loads(pickle.dumps(sketch))):
        assert copy == sketch
        assert repr(copy) == "Sketch(rows=2, tokens=3, types=2)"
        copy.update(batch_of([[5]]))
        assert copy != sketch
    assert sketch != "sketch"


def test_bytes_that_are_no_sketch_are_refused():
    good = Sketch.build(batch_of([[1, 2, 3]])).to_bytes()
    for data, message in [
        (b"", "not a sketch: the 0 bytes do not begin with VGSKETCH"),
        (b"hello, world", "not a sketch: the 12 bytes do not begin with VGSKETCH"),
        (good[:20], "sketch is torn or altered: its checksum does not fit its 20 bytes"),
        (good + b"\0", f"sketch is torn or altered: its checksum does not fit its {len(good) + 1} bytes"),
        (good[:8] + b"\2" + good[9:], "sketch has version 2, but this Variegate reads version 1"),
    ]:
        with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
            Sketch.from_bytes(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_without_harm(data):
    with pytest.raises(InvalidInput):
        Sketch.from_bytes(data)
    with pytest.raises(InvalidInput):
        Sketch.from_bytes(b"VGSKETCH\1\0\0\0" + data)


def test_bad_arguments_are_refused():
    texts = vg.TextBatch.from_texts(["a"])
    for call, message in [
        (lambda: measure(texts), "measures count tokens, and this is a TextBatch: encode it first"),
        (lambda: Sketch.build([texts]), "measures count tokens, and this is a TextBatch: encode it first"),
        (lambda: measure([[1, 2]]), "measures need a TokenBatch, not list"),
        (lambda: measure([], reference=Sketch()), "reference has no tokens: build it from the real data first"),
    ]:
        with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
            call()


def test_measures_are_frozen_and_of_nothing_are_zero():
    measures = measure([])
    assert measures == Measures(
        rows=0, tokens=0, types=0, entropy=0.0, coverage=None, tail_coverage=None, duplicate_share=0.0
    )
    with pytest.raises(AttributeError):
        measures.rows = 1
