"""Token noise: dropout, insertion, masking, replacement, swaps, local shuffling.

What becomes of spans is the same for all ops. ``follow``: a span moves with its tokens; it shifts and shrinks, splits
where a token from outside comes between, and goes when none of its tokens is left. ``drop``: a span goes when an edit
touches it. ``forbid``: no edit touches a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from variegate import _core
from variegate.batch import TokenBatch
from variegate.errors import InvalidInput
from variegate.ops._base import Op

__all__ = [
    "LocalShuffle",
    "TokenDropout",
    "TokenInsert",
    "TokenMask",
    "TokenReplace",
    "TokenSwap",
    "kneser_ney",
]


@dataclass(frozen=True, kw_only=True, repr=False)
class LocalShuffle(Op):
    """Permutes each row so that no token moves more than `k` places (Lample et al., ICLR 2018).

    Token i gets the key i + U(0, k + 1), and the row is sorted by the keys. A protected token keeps its place and no
    token passes it. A token that moved counts as edited.

    Attributes:
        k: How far a token may move, in places; 0 leaves the rows as they are.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A `k` outside [0, 2^30].

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> out = LocalShuffle(k=2)(batch, seed=7, return_source=True)
        >>> max(abs(int(s) - i) for i, s in enumerate(out.source)) <= 2
        True
    """

    k: int
    spans: Literal["follow", "drop", "forbid"] = "follow"


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
class TokenInsert(Op):
    """Puts a drawn token beside each token with probability `rate`.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24. A protected token gets no neighbour.
        vocab_size: Draw uniformly from the ids below it. Either this or `weights`.
        weights: Draw id i in proportion to ``weights[i]``; by alias table, in integers.
        side: ``before`` or ``after``: on which side of a token its neighbour comes.
        inserted: What a drawn token has in columns:
            ``ignore`` (as in padding: -100 in ``labels``, -1 in ``word_ids``, 0 elsewhere), or ``inherit`` the values
            of the left neighbour (at the start of a row, the right one).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; both or neither of `vocab_size` and `weights`; weights that are negative,
            not finite, or all 0.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7]], ids=[11])
        >>> TokenInsert(rate=1.0, weights=[0, 0, 1], side="after")(batch, seed=7).to_lists()
        [[5, 2, 6, 2, 7, 2]]
    """

    rate: float
    vocab_size: int | None = None
    weights: tuple[float, ...] | None = None
    side: Literal["before", "after"] = "before"
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenMask(Op):
    """Replaces each token with probability `rate` by a mask token ("blank noising" of Xie et al., ICLR 2017).

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        mask_id: The id of the mask token.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or an id that is no token id.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[1, 7, 8]], ids=[11])
        >>> TokenMask(rate=1.0, mask_id=4, protect=vg.ops.Protect(ids=(1,)))(batch, seed=7).to_lists()
        [[1, 4, 4]]
    """

    rate: float
    mask_id: int
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenReplace(Op):
    """Replaces each token with probability `rate` by one drawn from a vocabulary (Xie et al., ICLR 2017).

    The drawn token may be the one that was there; it counts as edited all the same.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        vocab_size: Draw uniformly from the ids below it. Either this or `weights`.
        weights: Draw id i in proportion to ``weights[i]`` (unigram noise takes counts); by alias table, in integers.
        rates: Replace a token of id i with probability ``rate * rates[i]``, and one of an id beyond never; None
            replaces all alike. `kneser_ney` counts `weights` and `rates` from a batch.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate or one of `rates` outside [0, 1]; both or neither of `vocab_size` and `weights`; weights
            that are negative, not finite, or all 0.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7]], ids=[11])
        >>> TokenReplace(rate=1.0, weights=[0, 0, 1])(batch, seed=7).to_lists()
        [[2, 2, 2]]
    """

    rate: float
    vocab_size: int | None = None
    weights: tuple[float, ...] | None = None
    rates: tuple[float, ...] | None = None
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


def kneser_ney(batch: TokenBatch, *, vocab_size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What `TokenReplace` needs for Kneser-Ney noise, counted from a batch (Xie et al., ICLR 2017).

    A token that stands in many contexts is a good replacement, and one that many different tokens follow can be
    replaced without harm: a word that is always followed by the same one stays. Bigrams lie within rows.

    Args:
        batch: The rows to count; nothing is drawn.
        vocab_size: Above every token of the batch; at most 2^26.

    Returns:
        ``weights``, per id the number of different tokens before it, N1+(., x), and ``rates``, per id the number of
        different tokens after it over its count, N1+(x, .) / c(x), 0 for an id that does not occur.

    Raises:
        InvalidInput: A token that is not below `vocab_size`; a batch without two tokens in a row.

    Cost: one pass, 8 bytes a token and 44 an id.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[1, 2, 1, 3], [1, 2]], ids=[11, 12])
        >>> weights, rates = kneser_ney(batch, vocab_size=4)
        >>> weights, [round(rate, 2) for rate in rates]
        ((0.0, 1.0, 1.0, 1.0), [0.0, 0.67, 0.5, 0.0])
        >>> TokenReplace(rate=0.2, weights=weights, rates=rates)(batch, seed=7).lengths.tolist()
        [4, 2]
    """
    count, left, right = _core.neighbours(batch.tokens, batch.offsets, vocab_size)
    if not left.any():
        raise InvalidInput("kneser_ney needs a row of two tokens or more, to count what stands beside what")
    return tuple(left.astype(float).tolist()), tuple((right / np.maximum(count, 1)).tolist())
