"""Semantic deduplication against comparing every pair in exact arithmetic."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from variegate.dedup import _semantic, semantic
from variegate.errors import InvalidInput

VECTORS = st.integers(0, 4).flatmap(
    lambda width: st.lists(st.lists(st.integers(-3, 3), min_size=width, max_size=width), max_size=14).map(
        lambda rows: np.array(rows, np.float32).reshape(len(rows), width)
    )
)


def reaches(a, b, threshold):
    """Whether the cosine is at least a positive threshold, without rounding."""
    a, b = ([Fraction(float(x)) for x in v] for v in (a, b))
    dot, squares = sum(x * y for x, y in zip(a, b, strict=True)), sum(x * x for x in a) * sum(y * y for y in b)
    return squares > 0 and dot > 0 and dot * dot >= Fraction(threshold) ** 2 * squares


@given(VECTORS, st.sampled_from([0.3, 0.75, 0.9]), st.booleans(), st.booleans(), st.integers(1, 5))
def test_leaders_are_those_of_comparing_all_pairs(rows, threshold, ordered, scored, block):
    order = [r * 7 % 3 for r in range(len(rows))] if ordered else None
    score = [r * 5 % 4 / 2 for r in range(len(rows))] if scored else None
    sequence = sorted(range(len(rows)), key=lambda r: (order[r] if ordered else 0, -score[r] if scored else 0, r))
    kept = []
    expected = list(range(len(rows)))
    for r in sequence:
        expected[r] = next((k for k in kept if reaches(rows[r], rows[k], threshold)), r)
        if expected[r] == r:
            kept.append(r)
    found = semantic(rows, threshold, ids=np.arange(len(rows)) + 7, order=order, score=score)
    assert found.keeper.tolist() == expected
    assert (found.keeper_ids == found.keeper + 7).all()
    assert found.keep.tolist() == [k == r for r, k in enumerate(expected)]
    counts = found.stats
    assert (counts["rows"], counts["kept"]) == (len(rows), len(kept))
    assert counts["kept"] + counts["exact"] + counts["near"] == len(rows)
    assert counts["zero"] == (rows == 0).all(axis=1).sum()
    seen: dict[int, int] = {}
    assert found.cluster.tolist() == [seen.setdefault(k, len(seen)) for k in expected]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_semantic, "BLOCK", block)
        patch.setattr(_semantic, "LEADERS", block + 1)
        other = semantic(rows, threshold, order=order, score=score)
    assert np.array_equal(other.keeper, found.keeper)
    assert np.array_equal(other.similarity, found.similarity)


@pytest.mark.parametrize("block", [1, 37, 1024])
def test_blocks_do_not_matter_where_pairs_stand_at_the_threshold(block, monkeypatch):
    """Copies of a few directions, perturbed in the last digits, at a threshold that is one of their cosines."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal((20, 300)).astype(np.float32)
    rows = np.repeat(base, 20, axis=0)
    rows += rng.standard_normal(rows.shape).astype(np.float32) * np.float32(0.1)
    rows[1:] += (rng.random((len(rows) - 1, 1)) < 0.5) * rows[:-1] * np.float32(1e-7)
    a, b = rows[0].astype(np.float64), rows[5].astype(np.float64)
    threshold = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    whole = semantic(rows, threshold)
    assert whole.keeper[5] == 0
    assert whole.stats["decided"] > 0
    monkeypatch.setattr(_semantic, "BLOCK", block)
    parts = semantic(rows, threshold)
    assert np.array_equal(parts.keeper, whole.keeper)
    assert np.array_equal(parts.similarity, whole.similarity)
    gone = np.flatnonzero(~whole.keep)
    wide = rows.astype(np.float64)
    kept = whole.keeper[gone]
    exact = (
        (wide[gone] * wide[kept]).sum(axis=1) / np.linalg.norm(wide[gone], axis=1) / np.linalg.norm(wide[kept], axis=1)
    )
    assert np.abs(whole.similarity[gone] - exact).max() < 1e-6
    assert (exact >= threshold - 1e-12).all()


def test_scale_and_memory_order_do_not_matter():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((60, 8)).astype(np.float32)
    rows[30:] = rows[:30] * np.float32(2)
    for form in (rows, np.asfortranarray(rows), np.hstack([rows, rows])[:, :8], rows * np.float32(2**60)):
        found = semantic(form, 0.9999)
        assert found.keeper[30:].tolist() == list(range(30))
        assert (found.similarity == 1).all()
    assert vg.dedup.semantic(np.zeros((3, 4), np.float32), 0.5).keep.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]], 0.5), "embeddings must be float32[rows, d], not list"),
        ((np.zeros((2, 3)), 0.5), "embeddings must be float32[rows, d] (they are float64[2, 3])"),
        ((np.zeros(3, np.float32), 0.5), "embeddings must be float32[rows, d] (they are float32[3])"),
        ((np.array([[1], [np.nan]], np.float32), 0.5), "embeddings must be finite (row 1 is not)"),
        ((np.ones((1, 1), np.float32), 1.5), "threshold must lie in (0, 1] (it is 1.5)"),
        ((np.ones((1, 1), np.float32), float("nan")), "threshold must lie in (0, 1] (it is nan)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        semantic(*arguments)
    with pytest.raises(InvalidInput, match=r"^ids must hold one number a row \(1 for 2 rows\)$"):
        semantic(np.ones((2, 1), np.float32), 0.5, ids=[1])
    with pytest.raises(InvalidInput, match=r"^score must hold one number a row \(1 for 2 rows\)$"):
        semantic(np.ones((2, 1), np.float32), 0.5, score=[1])
