from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import mix
from variegate.errors import InvalidInput


def naive(real, sizes, ids, share):
    """Synthetic records in the order of their ids, one by one, until the first that breaks the cap."""
    kept = {i for i, is_real in enumerate(real) if is_real}
    total, synthetic = sum(sizes[i] for i in kept), 0
    if share == 1:
        return [True] * len(real)
    for i in sorted((i for i in range(len(real)) if not real[i]), key=lambda i: ids[i].tobytes()):
        synthetic += sizes[i]
        if Fraction(synthetic, max(1, synthetic + total)) > share:
            break
        kept.add(i)
    return [i in kept for i in range(len(real))]


rows = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=30)


@given(rows, st.integers(0, 100), st.integers(0, 2**32 - 1))
@examples(200)
def test_the_cap_is_that_of_the_naive_loop(records, percent, seed):
    real, sizes = np.array([r for r, _ in records]), np.array([n for _, n in records], np.int64)
    if not real.any():
        real[0] = True
    ids = np.random.default_rng(seed).integers(0, 256, (len(real), 16), dtype=np.uint8)
    keep = mix.cap_synthetic(real, sizes, ids, max_synthetic=percent / 100)
    assert keep.tolist() == naive(real, sizes, ids, Fraction(percent, 100))
    assert keep[real].all()
    order = np.random.default_rng(seed + 1).permutation(len(real))
    again = mix.cap_synthetic(real[order], sizes[order], ids[order], max_synthetic=percent / 100)
    assert (again == keep[order]).all()


def test_what_cannot_be_met_is_said():
    ids = np.zeros((2, 16), np.uint8)
    with pytest.raises(InvalidInput) as caught:
        mix.cap_synthetic(np.array([False, False]), np.array([1, 1]), ids, max_synthetic=0.5)
    assert str(caught.value) == (
        "max_synthetic 0.5 cannot be met: of 2 records none that is human (kind: human) holds anything, "
        "so any synthetic record makes the set wholly synthetic"
    )
    with pytest.raises(InvalidInput, match=r"^max_synthetic must be between 0 and 1, not 1\.5$"):
        mix.cap_synthetic(np.array([True]), np.array([1]), ids[:1], max_synthetic=1.5)


def test_retaining_is_checked_exactly():
    mix.check_retained(7, 10, retain_real=0.7)
    mix.check_retained(0, 0, retain_real=1.0)
    with pytest.raises(
        InvalidInput, match=r"^retain_real 0\.7 is not met: 69 of 100 human records remain \(0\.6900\)$"
    ):
        mix.check_retained(69, 100, retain_real=0.7)
