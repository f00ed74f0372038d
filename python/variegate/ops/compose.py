"""Compositions: a whole pipeline is one op, and one call into the core.

The path of an op keys its draws: its `name`, or its kind and its ordinal among its siblings of that kind, as in
``TokenDropout#0``. `OneOf`, `SomeOf`, `Sometimes`, `Repeat` and a named `Compose` put their own path before their
children's (``Sometimes#0/TokenDropout#0``). So inserting an op of another kind reseeds nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from variegate.ops._base import Op

__all__ = ["Compose", "OneOf", "Repeat", "SomeOf", "Sometimes"]


@dataclass(frozen=True, repr=False)
class Compose(Op):
    """Runs ops one after another, row by row, in one pass.

    Sources compose and edits add up: ``source`` and ``edited`` of the result are relative to the batch that went in.
    Without a `name` it draws nothing and adds nothing to paths: ``Compose([op])`` gives what ``op`` gives, and
    ``Compose([a, Compose([b, c])])`` what ``Compose([a, b, c])`` gives.

    Attributes:
        ops: The ops (or their specs). Ops on text among ops on tokens edit the text that the tokens decode to.

    Raises:
        InvalidInput: No op; two ops of one name.

    Example:
        >>> import variegate as vg
        >>> pipe = vg.Compose([vg.ops.TokenDropout(rate=0.5), vg.ops.TokenSwap(rate=0.5)])
        >>> out = pipe(vg.TokenBatch.from_lists([[5, 6, 7, 8]], ids=[1]), seed=7, return_source=True)
        >>> [5 + s for s in out.source.tolist()] == out.tokens.tolist()
        True
    """

    ops: tuple[Op, ...]


@dataclass(frozen=True, repr=False)
class OneOf(Op):
    """Runs one of several ops on each row, drawn by weight.

    Attributes:
        ops: The ops (or their specs) to choose from.
        weights: One number per op, not negative; probabilities are right to 2^-24. None makes all equal.

    Raises:
        InvalidInput: No op, or weights that are not one per op, negative, or all 0.

    Example:
        >>> import variegate as vg
        >>> op = vg.OneOf([vg.ops.TokenDropout(rate=0.2), vg.ops.TokenSwap(rate=0.2)], weights=[3, 1])
        >>> op.paths
        ['OneOf#0/TokenDropout#0', 'OneOf#0/TokenSwap#0']
    """

    ops: tuple[Op, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, repr=False)
class SomeOf(Op):
    """Runs some of several ops on each row, drawn without replacement, in the order given.

    Attributes:
        ops: The ops (or their specs) to choose from, at most 64.
        k: How many run; all choices of as many are equally likely.
        at_most: Draws the number of ops too, from `k` to `at_most`, all equally likely; None takes `k`.

    Raises:
        InvalidInput: No op, or numbers that are not in order within [0, ops].

    Example:
        >>> import variegate as vg
        >>> op = vg.SomeOf([vg.ops.TokenDropout(rate=0.2), vg.ops.TokenSwap(rate=0.2)], k=1, at_most=2)
        >>> op.paths
        ['SomeOf#0/TokenDropout#0', 'SomeOf#0/TokenSwap#0']
    """

    ops: tuple[Op, ...]
    k: int
    at_most: int | None = None


@dataclass(frozen=True, repr=False)
class Sometimes(Op):
    """Runs an op on each row with a probability, and leaves the row as it is otherwise.

    A row that is left by an op with labels has labels of -100 (or those that it had); one that is left by an op with
    targets has an empty row there.

    Attributes:
        op: The op, or its spec.
        p: The probability, in [0, 1].

    Raises:
        InvalidInput: A probability outside [0, 1].

    Example:
        >>> import variegate as vg
        >>> op = vg.Sometimes(vg.ops.TokenDropout(rate=0.5), p=0.0)
        >>> op(vg.TokenBatch.from_lists([[5, 6, 7]], ids=[1]), seed=7).to_lists()
        [[5, 6, 7]]
    """

    op: Op
    p: float


@dataclass(frozen=True, repr=False)
class Repeat(Op):
    """Makes `n` variants of each row, next to each other; what follows in a `Compose` runs on each of them.

    Variant k of the row with id i has the id ``H64(i, path, k)``: the first 8 bytes, little-endian, of the SHA-256
    over these three (id and k as 8 little-endian bytes), each preceded by its length as 8 little-endian bytes. So
    variants draw differently, and a row's variants are the same in any batch. The rows of the result have ``parent``
    (uint64, the id of the row that the variant was made from) and ``variant`` (int32, k). The original is not among
    them.

    Attributes:
        op: The op, or its spec.
        n: How many variants, at least 1.

    Raises:
        InvalidInput: An `n` below 1.

    Example:
        >>> import variegate as vg
        >>> op = vg.Repeat(vg.ops.TokenDropout(rate=0.5), n=3)
        >>> out = op(vg.TokenBatch.from_lists([[5, 6], [7, 8]], ids=[11, 12]), seed=7)
        >>> out.rows["parent"].tolist(), out.rows["variant"].tolist()
        ([11, 11, 11, 12, 12, 12], [0, 1, 2, 0, 1, 2])
    """

    op: Op
    n: int
