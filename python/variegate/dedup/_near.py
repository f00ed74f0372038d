"""Exact copies and near-duplicates."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from variegate import _core
from variegate.batch import TextBatch, TokenBatch
from variegate.dedup._order import Keep, Order
from variegate.dedup._spill import Listener, Spill, bytes_of
from variegate.dedup._units import Normalize, Preset, Unit, Units, _texts, preset_of
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from variegate.tokenizer import Tokenizer


Closure = Literal["leader", "transitive"]
Mode = Literal["lsh", "exact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DedupResult:
    """What becomes of each row.

    Attributes:
        keep: bool[rows], whether the row stays.
        keeper: int64[rows], the row that is kept in favour of this one: the row itself if it stays. Where ``keep`` was
            ``"none"`` it is the row that would be kept, and goes with its cluster.
        keeper_ids: uint64[rows], the `ids` of those rows.
        cluster: int64[rows], a number for each keeper, counted from 0 by first appearance.
        similarity: float32[rows], exact Jaccard similarity of the row with its keeper; 1 for a row that stays and
            for a copy.
        stats: Counts. ``rows`` = ``kept`` + ``exact`` (copies) + ``near`` (near-duplicates). ``short``: contents with
            fewer units than a shingle, which only the exact stage compares. ``compared``: pairs compared exactly,
            ``similar`` of them at or over the threshold. ``bands`` and ``band_width``: the sketch.
            ``largest_bucket``: documents of the largest bucket. ``capped_buckets``, ``capped_rows``: where a bucket
            was so large that comparisons were left out, and how often; 0 means that the recall asked for holds.
    """

    keep: NDArray[np.bool_]
    keeper: NDArray[np.int64]
    keeper_ids: NDArray[np.uint64]
    cluster: NDArray[np.int64]
    similarity: NDArray[np.float32]
    stats: dict[str, int]

    def __repr__(self) -> str:
        """The counts of rows."""
        rows, kept, copies, near_ = (self.stats[name] for name in ("rows", "kept", "exact", "near"))
        return f"DedupResult(rows={rows}, kept={kept}, exact={copies}, near={near_})"


def exact(
    batch: TokenBatch | TextBatch,
    *,
    keep: Keep = "longest",
    order: ArrayLike | None = None,
    score: ArrayLike | str | None = None,
    priority: Sequence[str] | None = None,
) -> DedupResult:
    """Finds rows that repeat another, token by token or byte by byte.

    Linear in the values, however many copies there are; equal hashes are confirmed by comparing the rows.

    Args:
        batch: The rows.
        keep: As in `near`; of equal rows ``"longest"`` is the one with the lowest id, then the first.
        order: As in `near`, and so are the others.
        score: Numbers [rows], or the name of a rows column: higher is kept first.
        priority: Names of sources, the best first.

    Raises:
        InvalidInput: As `near`.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[7, 8], [9], [7, 8]])
        >>> vg.dedup.exact(batch).keeper
        array([0, 1, 0])
        >>> batch.take(vg.dedup.exact(batch).keep).to_lists()
        [[7, 8], [9]]
        >>> batch.take(vg.dedup.exact(batch, keep="none").keep).to_lists()
        [[9]]
    """
    ranks = Order(keep, priority)
    if not isinstance(batch, TokenBatch):
        _texts(batch)
    ranks.add(len(batch), ranks.read(batch, order, score))
    if isinstance(batch, TokenBatch):
        found = _core.exact_tokens(batch.tokens, batch.offsets, batch.ids, ranks.places(), keep)
    else:
        found = _core.exact_texts(batch.data, batch.offsets, batch.ids, ranks.places(), keep)
    return _result(found, batch.ids, keep)


def near(
    batch: TokenBatch | TextBatch | Iterable[TokenBatch | TextBatch],
    *,
    threshold: float | None = None,
    ngram: int | None = None,
    mode: Mode = "lsh",
    recall: float = 0.999,
    closure: Closure = "leader",
    keep: Keep = "longest",
    order: ArrayLike | None = None,
    score: ArrayLike | str | None = None,
    priority: Sequence[str] | None = None,
    preset: Preset | None = None,
    unit: Unit | None = None,
    normalize: Normalize | None = None,
    tokenizer: Tokenizer | None = None,
    skip: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    seed: int = 0,
    memory: int | str | None = None,
    directory: str | os.PathLike[str] | None = None,
    progress: Listener | None = None,
) -> DedupResult:
    """Finds near-duplicates: rows whose sets of shingles have Jaccard similarity of at least `threshold`.

    Every pair that counts is compared exactly, so no row goes without a row that is as similar as the threshold. Rows
    with fewer units than a shingle are duplicates only of equal rows. Rows are read once and compared in parallel;
    the result depends on neither threads nor instruction sets. Cost: linear, but for the pairs compared.

    A preset stands for the settings of a published pipeline, so that its threshold means here what it means there.
    ``"fineweb"``: words, 5-grams, 0.75, without case, punctuation, accents, and with one number for all (datatrove's
    MinHash defaults; Penedo et al., "The FineWeb Datasets", 2024; its 14 buckets of 8 hashes find 77 % of the pairs at
    0.75). ``"slimpajama"``: characters, 13-grams, 0.8, in NFC, without case and punctuation (Soboleva et al.,
    "SlimPajama", 2023). ``"nemo"``: characters, 24-grams, 0.8, of the text as it is (NVIDIA NeMo Curator's fuzzy
    deduplication, 20 bands of 13 hashes).

    Args:
        batch: The rows; or batches of rows, which are taken one after another (see `Deduper`).
        threshold: Least similarity of duplicates, in (0, 1]; 0.8 where no preset says otherwise.
        ngram: Units in a shingle, 1 to 32; 5 where no preset says otherwise.
        mode: Which pairs are compared. ``"lsh"``: those that share a band of their MinHash sketches. ``"exact"``: all
            that can reach the threshold, by a prefix-filter join; several times slower, and slower still where rows
            share rare shingles without being similar.
        recall: Least probability, in (0, 1), that a pair at the threshold is compared in mode ``"lsh"``; the number of
            bands and the size of the sketch follow from it; the more similar a pair, the higher its own probability.
        closure: ``"leader"``: in keep order, a row goes if a row already kept is similar; the first such row is its
            keeper, so every row that goes has at least `threshold` with the one kept. ``"transitive"``: rows joined
            by a chain of similar pairs are one cluster, of which the first in keep order stays.
        keep: Which row of a cluster stays. ``"longest"``: in keep order the lowest generation comes first (an original
            before its variants, where the batch has a rows column ``generation``), then most units, then the lowest
            id, then the first. ``"first"``: the first. ``"none"``: no row of a cluster of two or more stays.
        order: Integer [rows]: lower is kept first; decides before all else. Not for batches of rows: give it to a
            `Deduper`.
        score: Numbers [rows], or the name of a rows column: higher is kept first. Decides after `priority`.
        priority: Names of sources, the best first; rows have theirs in the rows column ``source``, and those of other
            sources come last. Decides after `order`.
        preset: ``"fineweb"``, ``"slimpajama"`` or ``"nemo"``; what is given beside it goes first.
        unit: What a shingle is made of: ``"token"`` of a TokenBatch, or of a TextBatch with a tokenizer; ``"word"``
            (default) or ``"char"`` of a TextBatch. Words are runs of characters other than white space; characters
            are code points.
        normalize: Which differences between texts do not count; by default case and white space, as `Normalize()`
            says, and nothing for tokens of texts.
        tokenizer: Encodes texts, after what `normalize` does to them; the unit is then the token.
        skip: Token ids that are passed over as if they did not stand there: padding, BOS, tokens of a template.
        fold: uint32[vocabulary]: what each token id counts as, to pass over case, for instance.
        seed: Key of the hash functions, below 2^64.
        memory: Bytes, or a size like ``"256MB"``: what this may take beside the batches and the arrays returned; units
            and keys wait on disk then (see `Deduper`). The result is the same. None for no limit. Not with mode
            ``"exact"`` or keep ``"none"``.
        directory: Where they wait; None for the system's temporary directory.
        progress: Called with a `Progress` as rows are read, joined and compared; only with `memory`.

    Returns:
        Arrays of length rows; see `DedupResult`.

    Raises:
        InvalidInput: A parameter out of range, a unit that the batch does not have, arguments that do not go together,
            an `order` or a `score` that does not hold one number per row, or a missing rows column.

    Example:
        >>> import variegate as vg
        >>> texts = ["the quick brown fox jumps over it", "The quick brown fox jumps over me", "something else"]
        >>> found = vg.dedup.near(vg.TextBatch.from_texts(texts), threshold=0.7, ngram=2)
        >>> found.keep
        array([ True, False,  True])
        >>> found.keeper[1], round(float(found.similarity[1]), 3)
        (np.int64(0), 0.714)
        >>> texts = ["Café No. 1, and what was said there", "cafe no 23 -- and what was said there!"]
        >>> vg.dedup.near(vg.TextBatch.from_texts(texts), preset="fineweb").keeper
        array([1, 1])
    """
    deduper = Deduper(
        threshold=threshold,
        ngram=ngram,
        mode=mode,
        recall=recall,
        closure=closure,
        keep=keep,
        priority=priority,
        preset=preset,
        unit=unit,
        normalize=normalize,
        tokenizer=tokenizer,
        skip=skip,
        fold=fold,
        seed=seed,
        memory=memory,
        directory=directory,
        progress=progress,
    )
    if not isinstance(batch, TokenBatch | TextBatch):
        if order is not None:
            raise InvalidInput("order= is for one batch: give that of batches to Deduper.add")
        if not isinstance(score, str | None):
            raise InvalidInput("score= must be the name of a rows column where batches are given")
        for part in _batches(batch):
            deduper.add(part, score=score)
        return deduper.result()
    if memory is None and deduper._units.of(batch) == "token":
        deduper._order.add(len(batch), deduper._order.read(batch, order, score))
        found = deduper._params.tokens(*deduper._units.tokens(batch), batch.ids, deduper._order.places())
        return _result(found, batch.ids, keep)
    deduper.add(batch, order=order, score=score)
    return deduper.result()


class Deduper:
    """`near` for rows that come in batches: the result is that of one call with all of them.

    Memory: 20 bytes a row, and 8 for each of what decides which is kept; for each different content its units (4 bytes
    a token or character, 8 a word) and about 30 bytes; while the result is made, about 12 bytes a band of each content
    (21 bands at the defaults).

    With `memory`, the units and keys of the rows wait in files: units as above, and 24 bytes and 4 a band a row. Rows
    that share a key are joined into components, and components are compared by themselves, as many together as fit.
    The result is the same, counts included, and takes 29 bytes a row besides. A component that does not fit by itself
    is taken in blocks; its counts of comparisons and buckets are then those within blocks, and its rows those of a
    comparison without the limit unless buckets were capped. With closure ``"transitive"`` it is compared at once, and
    exceeds the limit.

    Args:
        threshold: As in `near`, and so are the others.
        ngram: Units in a shingle.
        mode: Which pairs are compared.
        recall: Least probability that a pair at the threshold is compared.
        closure: Which rows of a cluster go.
        keep: Which row of a cluster stays.
        priority: Names of sources, the best first.
        preset: Settings of a published pipeline.
        unit: What a shingle is made of; None takes the default of the first batch.
        normalize: Which differences between texts do not count.
        tokenizer: Encodes texts, whose unit is then the token.
        skip: Token ids that are passed over.
        fold: What each token id counts as.
        seed: Key of the hash functions.
        memory: What this may take, at least 16 MiB.
        directory: Where units and keys wait.
        progress: Called with a `Progress`.

    Raises:
        InvalidInput: A parameter out of range, or arguments that do not go together.

    Example:
        >>> import variegate as vg
        >>> deduper = vg.dedup.Deduper(threshold=0.7, ngram=2)
        >>> deduper.add(vg.TextBatch.from_texts(["one two three four five six", "seven"]))
        >>> deduper.add(vg.TextBatch.from_texts(["one two three four five six seven"]), order=[-1])
        >>> deduper.result().keeper
        array([2, 1, 2])
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        ngram: int | None = None,
        mode: Mode = "lsh",
        recall: float = 0.999,
        closure: Closure = "leader",
        keep: Keep = "longest",
        priority: Sequence[str] | None = None,
        preset: Preset | None = None,
        unit: Unit | None = None,
        normalize: Normalize | None = None,
        tokenizer: Tokenizer | None = None,
        skip: ArrayLike | None = None,
        fold: ArrayLike | None = None,
        seed: int = 0,
        memory: int | str | None = None,
        directory: str | os.PathLike[str] | None = None,
        progress: Listener | None = None,
    ) -> None:
        """Checks the parameters; nothing is held yet."""
        if not 0 <= operator.index(seed) < 1 << 64:
            raise InvalidInput(f"seed must lie in [0, 2^64) (it is {seed})")
        pipeline = preset_of(preset)
        if pipeline is not None:
            threshold = pipeline.threshold if threshold is None else threshold
            ngram = pipeline.ngram if ngram is None else ngram
            if unit is None and tokenizer is None:
                unit = pipeline.unit
            if normalize is None and unit != "token":
                normalize = pipeline.normalize
        threshold = 0.8 if threshold is None else threshold
        ngram = 5 if ngram is None else ngram
        self._units = Units(unit, normalize, tokenizer, skip, fold)
        self._params = _core.NearParams(threshold, ngram, mode, recall, closure, keep, seed)
        self._order = Order(keep, priority)
        self._unit: Unit = unit or "token"
        self._core = self._params.deduper(self._unit, self._units.core())
        self._ids: list[NDArray[np.uint64]] = []
        self._rows = 0
        self._spill: Spill | None = None
        if memory is None:
            for name, value in (("directory", directory), ("progress", progress)):
                if value is not None:
                    raise InvalidInput(f"{name}= goes with memory=: without it nothing waits on disk")
        else:
            for name, said, odd in (("mode", mode, "exact"), ("keep", keep, "none")):
                if said == odd:
                    raise InvalidInput(f"{name} '{odd}' needs all rows at once: leave out memory=")
            self._spill = Spill(
                self._params,
                ngram=ngram,
                leader=closure == "leader",
                first=keep == "first",
                memory=bytes_of(memory),
                directory=directory,
                progress=progress,
            )

    def __len__(self) -> int:
        """Rows so far."""
        return self._rows

    def add(
        self,
        batch: TokenBatch | TextBatch,
        *,
        order: ArrayLike | None = None,
        score: ArrayLike | str | None = None,
    ) -> None:
        """Takes the rows of a batch; they are numbered on from those before.

        Args:
            batch: The rows; all batches are of one kind.
            order: Integer [rows]: lower is kept first. Batches without it are of order 0.
            score: Numbers [rows], or the name of a rows column: higher is kept first. Batches without it are of
                score 0.

        Raises:
            InvalidInput: A batch of another kind than the unit needs or the batches before, or what `near` refuses.
                Nothing is taken then.
        """
        unit = self._units.of(batch)
        known = self._order.read(batch, order, score)
        if self._spill is not None:
            self._spill.add(*self._units.split(batch), batch.ids)
        else:
            if unit != self._unit:
                self._core, self._unit = self._params.deduper(unit, self._units.core()), unit
            if isinstance(batch, TokenBatch) or unit == "token":
                self._core.add_tokens(*self._units.tokens(batch), batch.ids)
            else:
                self._core.add_texts(batch.data, batch.offsets, batch.ids)
            self._ids.append(batch.ids)
        self._order.add(len(batch), known)
        self._units.unit = unit
        self._rows += len(batch)

    def result(self) -> DedupResult:
        """What becomes of all rows so far, in the order they came. More may be added afterwards."""
        if self._spill is not None:
            return _result(self._spill.result(self._order.places()), self._spill.ids(), self._order.keep)
        ids = np.concatenate(self._ids) if self._ids else np.zeros(0, np.uint64)
        return _result(self._core.result(self._order.places()), ids, self._order.keep)


def _batches(batches: Iterable[TokenBatch | TextBatch]) -> Iterable[TokenBatch | TextBatch]:
    """The batches of an iterable.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return iter(batches)
    except TypeError:
        raise InvalidInput(
            f"deduplication needs a TokenBatch, a TextBatch, or batches of one kind, not {type(batches).__name__}"
        ) from None


def _result(
    found: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], dict[str, int]],
    ids: NDArray[np.uint64],
    keep: Keep,
) -> DedupResult:
    keeper, cluster, similarity, stats = found
    stays = keeper == np.arange(len(keeper))
    if keep == "none":
        stays &= np.bincount(cluster)[cluster] == 1
    return DedupResult(
        keep=stays,
        keeper=keeper,
        keeper_ids=ids[keeper],
        cluster=cluster,
        similarity=similarity,
        stats=stats,
    )
