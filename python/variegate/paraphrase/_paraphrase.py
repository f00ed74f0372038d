"""Distinct variants of records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from variegate import _core
from variegate.batch import Edits, TextBatch, TokenBatch
from variegate.errors import InvalidInput
from variegate.ops import Compose, Contraction, Op, Rewriter, Synonym
from variegate.ops._base import Batch, _whole
from variegate.provenance import child_ids

__all__ = ["paraphrase"]

MOST = 1000


def paraphrase(
    batch: Batch,
    n: int,
    *,
    seed: int,
    epoch: int = 0,
    using: Sequence[Op] | Op | None = None,
    back_translate: Callable[[TextBatch], TextBatch] | None = None,
    candidates: int | None = None,
    return_source: bool = False,
) -> Batch:
    """Makes up to `n` variants of each record that differ from the record and from each other.

    Candidate k of a record is what the ops make of it as ``variant=k``. With `back_translate`, a record whose
    translation was accepted has the translation itself as candidate 0, and its other candidates of even k start from
    the translation. Candidates are taken in order, those that say what the record or an earlier one says are passed
    over, and the first `n` that are left are the variants. So they depend on the record, its id and the arguments, and
    on nothing else, and fewer variants are the first of more.

    Args:
        batch: The records. Tokens are compared as tokens; they need their tokenizer where the ops are on text.
        n: Variants of each record, from 1 to 1000.
        seed: The job's seed, below 2^64.
        epoch: The pass over the data, below 2^32.
        using: The ops, in order; None stands for `Rewriter`, `Contraction` and `Synonym` with their own English rules
            and words: ``(Rewriter(), Contraction(rate=0.2), Synonym(rate=0.1))``.
        back_translate: A `BackTranslate`, for a `TextBatch`; spans are not carried through it.
        candidates: Most candidates of a record, at least n; None tries ``4 * n + 4``.
        return_source: Whether to set ``source`` and ``edited`` (on text: ``edits``), relative to the record; not with
            `back_translate`.

    Returns:
        A batch of the same kind, the variants of a record side by side. Its ``rows`` are those of the records, with
        ``_parent`` (int64, the row of the record) and ``_variant`` (int64, the number of the candidate); spans are
        carried along; its ids are a 64-bit hash of the record's id and the number. ``stats["paraphrase"]`` has the
        counts ``rows``, ``variants`` and ``candidates``, the candidates passed over as ``unchanged`` and ``repeated``,
        and ``short``: by reason, the rows (int64) with fewer than `n` variants, where ``unchanged`` says that no
        candidate differed from the record, and ``repeated`` that none of the others was new.

    Raises:
        InvalidInput: A number out of its bounds, no ops, an op that changes the number of rows, or all that the ops
            refuse.

    Cost: that of the ops times the candidates that were needed, and a hash of each.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["A large number of people left in order to vote.", "Yes."], ids=[1, 2])
        >>> out = paraphrase(batch, 3, seed=1)
        >>> out.rows["_parent"].tolist()
        [0, 0, 0]
        >>> out.stats["paraphrase"]["short"]["unchanged"].tolist()
        [1]
    """
    if not isinstance(batch, TokenBatch | TextBatch):
        raise InvalidInput(f"paraphrase takes a TokenBatch or a TextBatch, not {type(batch).__name__}")
    n, most = _numbers(n, candidates)
    seed, epoch = _whole("seed", seed, 64), _whole("epoch", epoch, 32)
    op = _op(using)
    bases: list[Any] = [batch]
    start = np.zeros(len(batch), np.int64)
    if back_translate is not None:
        if not callable(back_translate):
            raise InvalidInput(
                f"paraphrase: back_translate must be a BackTranslate or a callable (it is {back_translate!r})"
            )
        if not isinstance(batch, TextBatch):
            raise InvalidInput("paraphrase: back_translate works on text, and this is a TokenBatch: decode it first")
        if return_source:
            raise InvalidInput("paraphrase: return_source has no answer for what was translated: leave one of them out")
        translated = back_translate(batch)
        if not isinstance(translated, TextBatch) or "_parent" not in translated.rows:
            raise InvalidInput(
                "paraphrase: back_translate must return a TextBatch with the column _parent, as BackTranslate"
            )
        accepted = translated.rows["_parent"]
        start[accepted] = 1
        bases.append(_like(translated, batch, accepted))
    place = np.cumsum(start) - 1
    found = _Variants(batch, n)
    for k in range(most):
        missing = found.missing()
        if len(missing) == 0:
            break
        even = np.full(len(missing), k % 2 == 0) & (start[missing] == 1)
        for base, rows in ((0, missing[~even]), (1, missing[even])):
            if len(rows) == 0:
                continue
            chosen = bases[base].take(place[rows] if base else rows)
            if k > 0 or base == 0:
                chosen = op(chosen, seed=seed, epoch=epoch, variant=k, return_source=return_source)
            found.offer(chosen, rows, k)
    return cast("Batch", found.batch(return_source))


def _numbers(n: Any, candidates: Any) -> tuple[int, int]:
    n = _whole("paraphrase: n", n, 63)
    if not 1 <= n <= MOST:
        raise InvalidInput(f"paraphrase: n must lie in [1, {MOST}] (it is {n})")
    most = 4 * n + 4 if candidates is None else _whole("paraphrase: candidates", candidates, 63)
    if most < n:
        raise InvalidInput(f"paraphrase: candidates must be at least n: {most} cannot give {n}")
    return n, most


def _op(using: Sequence[Op] | Op | None) -> Op:
    if using is None:
        using = (Rewriter(), Contraction(rate=0.2), Synonym(rate=0.1))
    op = using if isinstance(using, Op) else Compose(tuple(using))
    if '"Repeat"' in op.to_json():
        raise InvalidInput("paraphrase: using must not hold a Repeat, which changes the number of rows: raise n")
    return op


def _like(translated: TextBatch, batch: TextBatch, accepted: NDArray[np.int64]) -> TextBatch:
    """Translations with the ids and rows of their records."""
    rows = {name: column[accepted] for name, column in batch.rows.items()}
    return TextBatch(translated.data, translated.offsets, ids=batch.ids[accepted], rows=rows)


class _Variants:
    """The variants found so far, and the hashes that new ones are compared with."""

    def __init__(self, batch: TokenBatch | TextBatch, n: int) -> None:
        self.source, self.n = batch, n
        self.count = np.zeros(len(batch), np.int64)
        self.changed = np.zeros(len(batch), bool)
        self.seen = np.zeros((len(batch), 1 + n, 2), np.uint64)
        self.seen[:, 0] = _hashes(batch)
        self.parts: list[Any] = []
        self.rows: list[NDArray[np.int64]] = []
        self.numbers: list[NDArray[np.int64]] = []
        self.edits: list[Edits] = []
        self.tried = self.unchanged = self.repeated = 0

    def missing(self) -> NDArray[np.int64]:
        """The rows that have fewer than n variants."""
        return np.flatnonzero(self.count < self.n)

    def offer(self, made: Any, rows: NDArray[np.int64], k: int) -> None:
        """Keeps what is new of candidate k of some rows."""
        hashes = _hashes(made)
        same = (self.seen[rows] == hashes[:, None]).all(2) & (np.arange(1 + self.n) <= self.count[rows, None])
        unchanged, repeated = same[:, 0], same[:, 1:].any(1)
        self.changed[rows[~unchanged]] = True
        self.tried += len(rows)
        self.unchanged += int(unchanged.sum())
        self.repeated += int(repeated.sum())
        new = np.flatnonzero(~(unchanged | repeated))
        if len(new) == 0:
            return
        kept = rows[new]
        self.count[kept] += 1
        self.seen[kept, self.count[kept]] = hashes[new]
        if getattr(made, "edits", None) is not None:
            at = np.full(len(rows), -1)
            at[new] = np.arange(len(new)) + sum(map(len, self.rows))
            here = at[made.edits.row] >= 0
            moved = Edits(*(part[here] for part in made.edits))
            self.edits.append(moved._replace(row=at[moved.row]))
        self.parts.append(made.take(new))
        self.rows.append(kept)
        self.numbers.append(np.full(len(new), k, np.int64))

    def batch(self, return_source: bool) -> Any:
        """All variants, by record."""
        nothing = self.source.take(np.zeros(0, np.int64))
        parts = self.parts or [nothing]
        parent = np.concatenate([*self.rows, np.zeros(0, np.int64)])
        number = np.concatenate([*self.numbers, np.zeros(0, np.int64)])
        order = np.argsort(parent, kind="stable")
        joined = type(nothing).concat(parts)
        if isinstance(joined, TokenBatch) and return_source:
            empty = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)]
            joined.source = np.concatenate([part.source for part in self.parts] or empty[0])
            joined.edited = np.concatenate([part.edited for part in self.parts] or empty[1])
        out = joined.take(order)
        parent, number = parent[order], number[order]
        out._ids = child_ids(self.source.ids[parent], stage="paraphrase", k=number)
        out.rows = {**out.rows, "_parent": parent, "_variant": number}
        if isinstance(out, TextBatch) and return_source:
            out.edits = self._edits(order)
        short = self.count < self.n
        out.stats = {
            "paraphrase": {
                "rows": len(self.source),
                "variants": len(out),
                "candidates": self.tried,
                "unchanged": self.unchanged,
                "repeated": self.repeated,
                "short": {
                    "unchanged": np.flatnonzero(short & ~self.changed),
                    "repeated": np.flatnonzero(short & self.changed),
                },
            }
        }
        return out

    def _edits(self, order: NDArray[np.int64]) -> Edits:
        """The edits of all variants, whose rows come in another order."""
        where = np.empty(len(order), np.int64)
        where[order] = np.arange(len(order))
        none = np.zeros(0, np.int64)
        parts = [(none,) * 4, *self.edits]
        row, start, end, length = (np.concatenate(part) for part in zip(*parts, strict=True))
        row = where[row]
        sorted_ = np.argsort(row, kind="stable")
        return Edits(row[sorted_], start[sorted_], end[sorted_], length[sorted_])


def _hashes(batch: TokenBatch | TextBatch) -> NDArray[np.uint64]:
    """128 bits of a hash of each row, uint64[rows, 2]."""
    values, offsets = batch._values.view(np.uint8), batch.offsets * batch._values.itemsize
    return _core.identity_digest([(values, offsets)], len(batch), 16).view(np.uint64).reshape(-1, 2)
