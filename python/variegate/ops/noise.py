"""Token noise: dropout, replacement, swaps.

What becomes of spans is the same for all ops. ``follow``: a span moves with its tokens; it shifts and shrinks, splits
where a token from outside comes between, and goes when none of its tokens is left. ``drop``: a span goes when an edit
touches it. ``forbid``: no edit touches a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = ["TokenDropout", "TokenReplace", "TokenSwap"]


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenDropout(Op):
    """Drops each token with probability `rate`.

    A row that would lose all of its tokens keeps the one whose draw was highest, so that no row becomes empty.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1].

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> out = TokenDropout(rate=0.5)(batch, seed=7, return_source=True)
        >>> out.tokens.tolist() == [5 + s for s in out.source.tolist()]
        True
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenReplace(Op):
    """Replaces each token with probability `rate` by one drawn from a vocabulary (Xie et al., ICLR 2017).

    The drawn token may be the one that was there; it counts as edited all the same.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        vocab_size: Draw uniformly from the ids below it. Either this or `weights`.
        weights: Draw id i in proportion to ``weights[i]`` (unigram noise takes counts); by alias table, in integers.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; both or neither of `vocab_size` and `weights`; weights that are negative,
            not finite, or all 0.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7]], ids=[11])
        >>> TokenReplace(rate=1.0, weights=[0, 0, 1])(batch, seed=7).to_lists()
        [[2, 2, 2]]
    """

    rate: float
    vocab_size: int | None = None
    weights: tuple[float, ...] | None = None
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenSwap(Op):
    """Lets neighbours change places.

    Walks each row from the left: a token changes places with its right neighbour with probability `rate`, and a pair
    that did is passed over, so no token moves further than one place. Both tokens of a pair count as edited.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1].

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9]], ids=[11])
        >>> TokenSwap(rate=1.0)(batch, seed=7).to_lists()
        [[6, 5, 8, 7, 9]]
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"
