"""Repeated substrings, and what rows share with evaluation items or a protected corpus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from variegate import _core
from variegate.batch import TextBatch, TokenBatch
from variegate.dedup._near import _batches
from variegate.dedup._units import Normalize, Units
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Batches = TokenBatch | TextBatch | Iterable[TokenBatch | TextBatch]

Occurrence = Literal["first", "none"]


class RepeatSpans(NamedTuple):
    """Spans that repeat an earlier place, one entry each, in reading order.

    Attributes:
        row: int64[k], the row.
        start: int64[k], first token (or byte, of a TextBatch) of the span in its row.
        end: int64[k], first one after it.
        source_row: int64[k], the row that it repeats; it may be the same.
        source_start: int64[k], where in that row.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    source_row: NDArray[np.int64]
    source_start: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SubstringResult:
    """What repeats in a batch.

    Attributes:
        mask: uint8 of each token (or byte) of the batch: 1, or 0 where it is to go.
        spans: The repeats, each with the place that it repeats.
        stats: Counts: ``rows``, ``units`` (tokens or words), ``spans``, ``masked`` (units that go).
    """

    mask: NDArray[np.uint8]
    spans: RepeatSpans
    stats: dict[str, int]

    def __repr__(self) -> str:
        """The counts."""
        return f"SubstringResult({', '.join(f'{name}={count}' for name, count in self.stats.items())})"

    def cut(self, batch: TokenBatch | TextBatch) -> TokenBatch | TextBatch:
        """The batch without what is to go.

        Rows keep their places and ids, and may become empty; columns lose the same tokens; spans shrink, and those that
        lose everything are dropped.

        Raises:
            InvalidInput: The batch is of another size than the mask, or has targets.

        Example:
            >>> import variegate as vg
            >>> batch = vg.TokenBatch.from_lists([[1, 2, 3, 4], [9, 2, 3, 4, 8]])
            >>> vg.dedup.substring(batch, length=3).cut(batch).to_lists()
            [[1, 2, 3, 4], [9, 8]]
        """
        if len(batch._values) != len(self.mask):
            raise InvalidInput(f"cut needs the batch that the mask is of ({len(batch._values)} != {len(self.mask)})")
        stays = self.mask.astype(bool)
        before = np.concatenate([[0], np.cumsum(stays)])
        offsets = before[batch.offsets]
        spans = batch.spans
        if spans is not None:
            base, new = batch.offsets[spans.row], offsets[spans.row]
            moved = spans._replace(start=before[base + spans.start] - new, end=before[base + spans.end] - new)
            spans = moved.take(np.flatnonzero((moved.start < moved.end) | (spans.start == spans.end)))
        if isinstance(batch, TextBatch):
            return TextBatch(batch.data[stays], offsets, ids=batch.ids, rows=batch.rows, spans=spans)
        if batch.targets is not None:
            raise InvalidInput("cut cannot change a batch with targets: cut before the objective is applied")
        columns = {name: column[stays] for name, column in batch.columns.items()}
        return TokenBatch(
            batch.tokens[stays],
            offsets,
            ids=batch.ids,
            columns=columns,
            rows=batch.rows,
            spans=spans,
            tokenizer=batch.tokenizer,
        )


def substring(
    batch: TokenBatch | TextBatch,
    *,
    length: int = 50,
    keep: Occurrence = "first",
    normalize: Normalize | None = None,
) -> SubstringResult:
    """Finds runs of at least `length` tokens that occurred before, in the same row or another.

    Reading order is row by row. A window of `length` tokens repeats if an equal one starts earlier (the two may
    overlap; none crosses the end of a row), and what is masked are exactly the tokens of such windows. Spans say where
    they come from. From left to right in a row, a span starts at a window that repeats, and takes the first occurrence
    of that window for its source; it goes on to the right for as long as both agree, and to the left as well, though
    not past the window at which the span before it was found; the next window looked at is the first one not inside.

    Exact: windows are found by hash and confirmed by comparison. Candidates are the windows whose minimizer recurs
    (Roberts et al. 2004). Linear in the tokens for a given `length`, however much repeats; memory about 5 bytes a
    token, and 13 where all of it repeats.

    Args:
        batch: The rows. The unit is the token of a TokenBatch, the word of a TextBatch.
        length: Units in a window, 1 to 65536.
        keep: ``"first"``: all but the first occurrence are masked. ``"none"``: that one too.
        normalize: Which differences between words do not count, by default case and white space. Words are compared as
            64-bit hashes.

    Returns:
        Mask and spans; of a TextBatch in bytes, where what lies between two words that go goes with them.

    Raises:
        InvalidInput: A parameter out of range, a `normalize` for tokens, or more than 2^33 units.

    Example:
        >>> import variegate as vg
        >>> found = vg.dedup.substring(vg.TokenBatch.from_lists([[1, 2, 3, 4], [9, 2, 3, 4, 8]]), length=3)
        >>> found.mask
        array([1, 1, 1, 1, 1, 0, 0, 0, 1], dtype=uint8)
        >>> [column.tolist() for column in found.spans]
        [[1], [1], [4], [0], [1]]
    """
    rows = _Rows.of(batch, Units(normalize=normalize))
    find = _core.substring_tokens if rows.places is None else _core.substring_words
    (row, start, end, source_row, source_start), mask = find(rows.units, rows.offsets, length, keep)
    masked = len(mask) - int(np.count_nonzero(mask))
    stats = {"rows": len(batch), "units": len(mask), "spans": len(row), "masked": masked}
    if rows.places is not None:
        mask = rows.bytes_of(mask, batch)
        source_start = rows.start(source_row, source_start)
    spans = RepeatSpans(row, rows.start(row, start), rows.end(row, end), source_row, source_start)
    return SubstringResult(mask=mask, spans=spans, stats=stats)


class Hits(NamedTuple):
    """Spans that training rows share with evaluation items, one entry each, by training row and start.

    Attributes:
        train_row: int64[k], the training row, numbered over all batches.
        train_id: uint64[k], its id.
        train_start: int64[k], first token (or byte, of a TextBatch) of the span in the row.
        train_end: int64[k], first one after it.
        eval_row: int64[k], the evaluation item.
        eval_id: uint64[k], its id.
        eval_start: int64[k], first token (or byte) of the span in the item.
        eval_end: int64[k], first one after it.
        coverage: float64[k], the share of the item's tokens (or words) that lie in n-grams which are in the row,
            wherever they stand: the same for all spans of a row and an item.
    """

    train_row: NDArray[np.int64]
    train_id: NDArray[np.uint64]
    train_start: NDArray[np.int64]
    train_end: NDArray[np.int64]
    eval_row: NDArray[np.int64]
    eval_id: NDArray[np.uint64]
    eval_start: NDArray[np.int64]
    eval_end: NDArray[np.int64]
    coverage: NDArray[np.float64]

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_]) -> Hits:
        """The chosen ones, in the order given."""
        chosen: list[Any] = [column[indices] for column in self]
        return Hits(*chosen)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecontaminationResult:
    """Which training rows contain parts of which evaluation items.

    Attributes:
        hits: The spans that they share.
        keep: bool[training rows], whether no item's coverage by the row reaches the threshold.
        score: float64[training rows], the largest coverage of an item by the row; 0 without a hit.
        leaked: float64[evaluation items], the share of the item that all training rows together cover.
        short: bool[evaluation items], whether the item is too short to be looked for.
        stats: Counts: ``rows``, ``kept``, ``items``, ``short``, ``leaked`` (items of which anything was found),
            ``hits``, ``ngrams`` (different ones that were looked for).
    """

    hits: Hits
    keep: NDArray[np.bool_]
    score: NDArray[np.float64]
    leaked: NDArray[np.float64]
    short: NDArray[np.bool_]
    stats: dict[str, int]

    def __repr__(self) -> str:
        """The counts."""
        return f"DecontaminationResult({', '.join(f'{name}={count}' for name, count in self.stats.items())})"

    def by_item(self) -> Hits:
        """The hits ordered by evaluation item, then training row: which items leak, and where."""
        return self.hits.take(np.lexsort((self.hits.train_start, self.hits.train_row, self.hits.eval_row)))


def decontaminate(
    train: Batches,
    evaluation: TokenBatch | TextBatch,
    *,
    ngram: int = 13,
    threshold: float = 0.5,
    shortest: int = 8,
    max_items: int | None = None,
    normalize: Normalize | None = None,
) -> DecontaminationResult:
    r"""Finds the evaluation items that training rows contain, in whole or in part.

    A hit is a span of at least `ngram` tokens that a row and an item share; it extends as far as both agree, and never
    over the end of either. Lines do not matter. From left to right in a row and for each item, a span starts at an
    n-gram of the item. Of the first 16 occurrences in the item it takes the one that agrees furthest to the right; it
    goes on to the left as well, though not past the n-gram at which the span before it was found; the next n-gram
    looked at is the first one not inside.

    Exact: no hit without equal tokens, and no shared n-gram without a hit. One pass over the training rows; n-grams of
    13 words are what Brown et al. ("Language models are few-shot learners", 2020) looked for. The cost grows with
    the hits: an n-gram of a thousand items is a thousand hits wherever it occurs, see `max_items`. Memory about 80
    bytes for each token of the items, and 150 for each hit.

    Args:
        train: The training rows: a batch, or an iterable of batches, whose rows are numbered on.
        evaluation: The items, of the same kind: tokens are compared with tokens, words of texts with words of texts.
        ngram: Units in an n-gram, 1 to 65536.
        threshold: A row goes if it has a hit and covers at least this share of the item, in [0, 1]; at 0 every hit
            counts.
        shortest: Items of fewer than `ngram` but at least so many units are looked for whole; shorter ones not at all.
        max_items: N-grams that are in more items than this are not looked for (what many prompts begin with, say), and
            count as not covered; None looks for all.
        normalize: Which differences between words do not count; by default case, white space and punctuation. Words are
            compared as 64-bit hashes.

    Returns:
        Hits with both sides' rows, ids and spans; spans of texts in bytes.

    Raises:
        InvalidInput: A parameter out of range, batches of different kinds, or a `normalize` for tokens.

    Example:
        >>> import variegate as vg
        >>> texts = ["He asked:\nWhat is the capital\nof France?", "Nothing to see here."]
        >>> train = vg.TextBatch.from_texts(texts, ids=[7, 8])
        >>> questions = vg.TextBatch.from_texts(["What is the capital of France?"], ids=[100])
        >>> found = vg.dedup.decontaminate(train, questions, ngram=4)
        >>> hits = found.hits
        >>> hits.train_id, hits.train_start, hits.train_end, hits.eval_id, hits.coverage
        (array([7], dtype=uint64), array([10]), array([40]), array([100], dtype=uint64), array([1.]))
        >>> found.keep, found.leaked
        (array([False,  True]), array([1.]))
    """
    if not 0 <= threshold <= 1:
        raise InvalidInput(f"threshold must lie in [0, 1] (it is {threshold})")
    items = Items(evaluation, ngram=ngram, shortest=shortest, max_items=max_items, normalize=normalize)
    found = items.scan(train)
    coverage = items.coverage(found)
    score = np.zeros(len(found.lengths))
    np.maximum.at(score, found.row, coverage)
    keep = np.ones(len(found.lengths), bool)
    keep[found.row[coverage >= threshold]] = False
    leaked = items.table.covered() / np.maximum(items.lengths, 1)
    short = items.lengths < min(shortest, ngram)
    hits = Hits(
        found.row,
        found.ids,
        found.start,
        found.end,
        found.item,
        _ids(evaluation, found.item),
        found.item_start,
        found.item_end,
        coverage,
    )
    stats = {
        "rows": len(keep),
        "kept": int(keep.sum()),
        "items": len(short),
        "short": int(short.sum()),
        "leaked": int(np.count_nonzero(leaked)),
        "hits": len(hits.train_row),
        "ngrams": items.table.count,
    }
    return DecontaminationResult(hits=hits, keep=keep, score=score, leaked=leaked, short=short, stats=stats)


class OverlapSpans(NamedTuple):
    """Spans that documents share with protected ones, one entry each, by document and start.

    Attributes:
        row: int64[k], the document, numbered over all batches.
        start: int64[k], first token (or byte, of a TextBatch) of the span in it.
        end: int64[k], first one after it.
        protected_row: int64[k], the protected document.
        protected_id: uint64[k], its id.
        protected_start: int64[k], first token (or byte) of the span in it.
        protected_end: int64[k], first one after it.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    protected_row: NDArray[np.int64]
    protected_id: NDArray[np.uint64]
    protected_start: NDArray[np.int64]
    protected_end: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlapResult:
    """How much of each document is in a protected corpus.

    Attributes:
        covered: float64[documents], the share of its tokens (or words) that lie in n-grams of the corpus.
        longest: int64[documents], tokens (or words) of its longest span.
        spans: The spans, each with its place in the corpus.
        stats: Counts: ``rows``, ``touched`` (documents with any span), ``items``, ``spans``, ``ngrams``.
    """

    covered: NDArray[np.float64]
    longest: NDArray[np.int64]
    spans: OverlapSpans
    stats: dict[str, int]

    def __repr__(self) -> str:
        """The counts."""
        return f"OverlapResult({', '.join(f'{name}={count}' for name, count in self.stats.items())})"


def overlap(
    docs: Batches,
    protected: TokenBatch | TextBatch,
    *,
    ngram: int = 13,
    max_items: int | None = None,
    normalize: Normalize | None = None,
) -> OverlapResult:
    """Says how much of each document is, word for word, in a protected corpus, and where.

    Spans are those of `decontaminate`, with the protected documents as items, and so are exactness and cost.

    Args:
        docs: The documents: a batch, or an iterable of batches, whose rows are numbered on.
        protected: The protected documents, of the same kind. Those of fewer than `ngram` units are not looked for.
        ngram: Least units of a span, 1 to 65536.
        max_items: N-grams that are in more protected documents than this are not looked for; None looks for all.
        normalize: Which differences between words do not count; by default case, white space and punctuation. Words are
            compared as 64-bit hashes.

    Raises:
        InvalidInput: A parameter out of range, batches of different kinds, or a `normalize` for tokens.

    Example:
        >>> import variegate as vg
        >>> book = vg.TokenBatch.from_lists([range(100, 200)], ids=[1])
        >>> docs = vg.TokenBatch.from_lists([[1, 2, *range(150, 170)], [3, 4]])
        >>> found = vg.dedup.overlap(docs, book)
        >>> found.covered.round(3), found.longest
        (array([0.909, 0.   ]), array([20,  0]))
        >>> [column.tolist() for column in found.spans]
        [[0], [2], [22], [0], [1], [50], [70]]
    """
    items = Items(protected, ngram=ngram, max_items=max_items, normalize=normalize)
    found = items.scan(docs, covered=False)
    covered, longest = found.overlap()
    spans = OverlapSpans(
        found.row, found.start, found.end, found.item, _ids(protected, found.item), found.item_start, found.item_end
    )
    stats = {
        "rows": len(covered),
        "touched": int(np.count_nonzero(longest)),
        "items": len(protected),
        "spans": len(spans.row),
        "ngrams": items.table.count,
    }
    return OverlapResult(covered=covered, longest=longest, spans=spans, stats=stats)


def _covered(row: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """How many units of each row lie in its spans, which are in order of row and start."""
    if len(row) == 0:
        return np.zeros(rows, np.int64)
    stride = int(end.max()) + 1
    low, high = row * stride + start, row * stride + end
    done = np.concatenate([[0], np.maximum.accumulate(high)[:-1]])
    counts = np.zeros(rows, np.int64)
    np.add.at(counts, row, np.maximum(high - np.maximum(low, done), 0))
    return counts


@dataclass(frozen=True)
class _Rows:
    """Rows as units, and for words where each lies in its text: first byte and the one after the last."""

    units: NDArray[Any]
    offsets: NDArray[np.int64]
    places: tuple[NDArray[np.int64], NDArray[np.int64]] | None

    @classmethod
    def of(cls, batch: TokenBatch | TextBatch, units: Units) -> _Rows:
        units.of(batch)
        if isinstance(batch, TokenBatch):
            return cls(batch.tokens, batch.offsets, None)
        words, offsets, starts, ends = _core.word_spans(batch.data, batch.offsets, units.core())
        return cls(words, offsets, (starts, ends))

    def start(self, row: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int64]:
        """Starts in units, as starts in bytes."""
        return start if self.places is None else self.places[0][self.offsets[row] + start]

    def end(self, row: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ends of spans that are not empty, as ends in bytes."""
        return end if self.places is None else self.places[1][self.offsets[row] + end - 1]

    def bytes_of(self, mask: NDArray[np.uint8], batch: TokenBatch | TextBatch) -> NDArray[np.uint8]:
        """A mask of words as one of bytes."""
        assert self.places is not None
        goes = np.flatnonzero(mask == 0)
        row = np.searchsorted(self.offsets, goes, side="right") - 1
        first = np.flatnonzero((np.diff(goes, prepend=-2) > 1) | (np.diff(row, prepend=-1) > 0))
        last = np.append(first[1:], len(goes))[: len(first)] - 1
        base = batch.offsets[row[first]]
        edges = np.zeros(len(batch._values) + 1, np.int8)
        # Starts and ends may meet between rows: an end takes back what a start adds.
        np.add.at(edges, base + self.places[0][goes[first]], 1)
        np.add.at(edges, base + self.places[1][goes[last]], -1)
        return 1 - np.cumsum(edges[:-1], dtype=np.int8).astype(np.uint8)


@dataclass(frozen=True)
class Found:
    """What a scan found, with rows numbered over all batches; `lengths` of the rows in units, all else of the spans."""

    lengths: NDArray[np.int64]
    row: NDArray[np.int64]
    ids: NDArray[np.uint64]
    units_start: NDArray[np.int64]
    units_end: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    item: NDArray[np.int64]
    item_start: NDArray[np.int64]
    item_end: NDArray[np.int64]
    covered: NDArray[np.int64]

    def overlap(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The share of each row that lies in its spans, and the units of its longest one."""
        rows = len(self.lengths)
        longest = np.zeros(rows, np.int64)
        np.maximum.at(longest, self.row, self.units_end - self.units_start)
        return _covered(self.row, self.units_start, self.units_end, rows) / np.maximum(self.lengths, 1), longest


class Items:
    """What is looked for, to be used again and again: arguments as those of `decontaminate`."""

    def __init__(
        self,
        batch: TokenBatch | TextBatch,
        *,
        ngram: int,
        shortest: int | None = None,
        max_items: int | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        """Makes the table of n-grams."""
        if normalize is None and isinstance(batch, TextBatch):
            normalize = Normalize(punctuation=True)
        if max_items is not None and max_items < 1:
            raise InvalidInput(f"max_items must be at least 1, or None (it is {max_items})")
        self.kind, self.units = type(batch), Units(normalize=normalize)
        self.rows = _Rows.of(batch, self.units)
        self.lengths = np.diff(self.rows.offsets)
        make = _core.NgramTable.tokens if self.rows.places is None else _core.NgramTable.words
        least = ngram if shortest is None else shortest
        self.table = make(self.rows.units, self.rows.offsets, ngram, least, max_items or 0)

    def coverage(self, found: Found) -> NDArray[np.float64]:
        """For each span the share of its item that is in its row."""
        coverage: NDArray[np.float64] = found.covered / np.maximum(self.lengths, 1)[found.item]
        return coverage

    def scan(self, batches: Batches, *, covered: bool = True) -> Found:
        """Finds the items in rows; `covered` says whether to count what of an item is in a row."""
        ids: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        lengths: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        columns: list[tuple[NDArray[np.int64], ...]] = [(np.zeros(0, np.int64),) * 8]
        base = 0
        for batch in [batches] if isinstance(batches, TokenBatch | TextBatch) else _batches(batches):
            if type(batch) is not self.kind:
                raise InvalidInput(
                    f"rows and items must be of one kind: the items are a {self.kind.__name__}, and the rows a "
                    f"{type(batch).__name__}"
                )
            rows = _Rows.of(batch, self.units)
            scan = self.table.scan_tokens if rows.places is None else self.table.scan_words
            row, start, end, item, item_start, count = scan(rows.units, rows.offsets, covered)
            places = rows.start(row, start), rows.end(row, end)
            columns.append((row + base, start, end, *places, item, item_start, count))
            ids.append(_ids(batch, row))
            lengths.append(np.diff(rows.offsets))
            base += len(batch)
        row, start, end, first, last, item, item_start, count = (np.concatenate(c) for c in zip(*columns, strict=True))
        return Found(
            np.concatenate(lengths),
            row,
            np.concatenate(ids),
            start,
            end,
            first,
            last,
            item,
            self.rows.start(item, item_start),
            self.rows.end(item, item_start + end - start),
            count,
        )


def _ids(batch: TokenBatch | TextBatch, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Ids of some rows, so that the others need none."""
    if batch._ids is not None:
        return batch._ids[rows]
    chosen, back = np.unique(rows, return_inverse=True)
    return batch.take(chosen).ids[back]
