"""How much of a set may be synthetic, and how much of the real data must stay.

`cap_synthetic` decides which records of a set stay under a cap; `check_retained` refuses a set that lost too much of
what people wrote. Every kind but human counts as synthetic.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from variegate.errors import InvalidInput

__all__ = ["cap_synthetic", "check_retained", "synthetic_room"]


def cap_synthetic(
    real: npt.NDArray[np.bool_],
    sizes: npt.NDArray[np.int64],
    record_ids: npt.NDArray[np.uint8],
    *,
    max_synthetic: float,
) -> npt.NDArray[np.bool_]:
    """Which records stay so that at most `max_synthetic` of the set's size is synthetic.

    All real records stay. Synthetic ones stay in the order of their record ids, up to the first that would break the
    cap, so that the choice depends on neither the order nor the sharding of the input.

    Args:
        real: bool[rows], true where the kind is human.
        sizes: int64[rows], tokens or bytes of each record.
        record_ids: uint8[rows, 16].
        max_synthetic: Largest share, from 0 to 1; compared exactly, as the decimal fraction it is written as.

    Returns:
        bool[rows], true for the records that stay. Cost: one sort of the synthetic records.

    Raises:
        InvalidInput: If the share is not in 0..1, or no set but the empty one could keep it.

    Example:
        >>> real = np.array([True, False, False])
        >>> ids = np.arange(48, dtype=np.uint8).reshape(3, 16)
        >>> cap_synthetic(real, np.array([4, 4, 4]), ids, max_synthetic=0.5)
        array([ True,  True, False])
    """
    if not 0 <= max_synthetic <= 1:
        raise InvalidInput(f"max_synthetic must be between 0 and 1, not {max_synthetic}")
    keep = np.asarray(real, bool).copy()
    synthetic = np.flatnonzero(~keep)
    if max_synthetic == 1 or len(synthetic) == 0:
        return np.ones(len(keep), bool)
    cap = synthetic_room(int(sizes[keep].sum()), len(keep), max_synthetic=max_synthetic)
    high, low = np.ascontiguousarray(record_ids[synthetic]).view(">u8").astype(np.uint64).T
    order = synthetic[np.lexsort((low, high))]
    keep[order[np.cumsum(sizes[order]) <= cap]] = True
    return keep


def synthetic_room(real: int, rows: int, *, max_synthetic: float) -> int:
    """How much synthetic data a set of `rows` records may hold beside `real` tokens or bytes of real data.

    Raises:
        InvalidInput: If there is no real data, so that only the empty set could keep the cap.

    Example:
        >>> synthetic_room(300, 10, max_synthetic=0.25)
        100
    """
    if real == 0:
        raise InvalidInput(
            f"max_synthetic {max_synthetic} cannot be met: of {rows} records none that is human (kind: human) holds "
            "anything, so any synthetic record makes the set wholly synthetic"
        )
    share = Fraction(str(float(max_synthetic)))
    return real * share.numerator // (share.denominator - share.numerator)


def check_retained(kept: int, read: int, *, retain_real: float) -> None:
    """Refuses a set that holds too few of the human records that were read.

    Raises:
        InvalidInput: With both numbers.

    Example:
        >>> check_retained(90, 100, retain_real=0.95)
        Traceback (most recent call last):
        variegate.errors.InvalidInput: retain_real 0.95 is not met: 90 of 100 human records remain (0.9000)
    """
    if kept < Fraction(str(float(retain_real))) * read:
        share = kept / read
        raise InvalidInput(f"retain_real {retain_real} is not met: {kept} of {read} human records remain ({share:.4f})")
