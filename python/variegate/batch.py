"""Batches: ragged rows of tokens or text in flat numpy arrays.

Row ``r`` of a batch is ``values[offsets[r]:offsets[r + 1]]``. Everything that belongs to a token or a row travels
beside it: per-token columns, per-row values, spans, the row's identity. A batch is immutable by convention: methods
return new ones, which share the arrays that they did not change.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np

from variegate import _core
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from variegate.tokenizer import Tokenizer

__all__ = ["Edits", "Spans", "TextBatch", "TokenBatch"]

IGNORE_INDEX = -100
"""The label that losses skip; padding and inserted tokens get it."""


class Spans(NamedTuple):
    """Half-open spans within rows, sorted by row, then start.

    Attributes:
        row: int64[k], the row.
        start: int64[k], first element of the row inside the span.
        end: int64[k], first element after it.
        tag: object[k], the span's name, a str.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    tag: NDArray[np.object_]

    @classmethod
    def of(cls, items: Iterable[tuple[int, int, int, str]]) -> Spans:
        """Spans from (row, start, end, tag) tuples, in any order.

        Example:
            >>> Spans.of([(1, 0, 2, "name")]).end
            array([2])
        """
        rows = sorted(items)
        places = np.array([item[:3] for item in rows], np.int64).reshape(-1, 3)
        tag = np.empty(len(rows), object)
        tag[:] = [item[3] for item in rows]
        row, start, end = np.ascontiguousarray(places.T)
        return cls(row, start, end, tag)

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_]) -> Spans:
        """The chosen spans: positions in order, or one bool per span."""
        return Spans(self.row[indices], self.start[indices], self.end[indices], self.tag[indices])

    def to_list(self) -> list[tuple[int, int, int, str]]:
        """The spans as (row, start, end, tag) tuples."""
        return list(zip(self.row.tolist(), self.start.tolist(), self.end.tolist(), self.tag.tolist(), strict=True))


class Edits(NamedTuple):
    """What a text op did: runs of source bytes and how many bytes stand in their place.

    Attributes:
        row: int64[k], the row.
        start: int64[k], first byte of the run in the row's source text.
        end: int64[k], first byte after it.
        length: int64[k], bytes that replaced the run.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    length: NDArray[np.int64]


class _Ragged:
    """What tokens and text share: rows, identities, spans, selection."""

    __slots__ = ("_ids", "_values", "offsets", "rows", "spans", "stats")

    _dtype: type[np.integer[Any]]
    _noun: str
    _values: NDArray[Any]
    offsets: NDArray[np.int64]
    _ids: NDArray[np.uint64] | None
    rows: dict[str, NDArray[Any]]
    spans: Spans | None
    stats: dict[str, Any] | None

    def _init(
        self,
        values: ArrayLike,
        offsets: ArrayLike,
        ids: ArrayLike | None,
        rows: Mapping[str, ArrayLike] | None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None,
    ) -> None:
        self._values = _integers(self._noun, values, self._dtype)
        self.offsets = _integers("offsets", offsets, np.int64)
        _core.check_offsets(self.offsets, len(self._values))
        self._ids = None if ids is None else _integers("ids", ids, np.uint64)
        if self._ids is not None and len(self._ids) != len(self):
            raise InvalidInput(f"ids must hold one number per row ({len(self._ids)} != {len(self)})")
        self.rows = {name: _column(f"rows['{name}']", value, len(self), "row") for name, value in (rows or {}).items()}
        self.spans = None if spans is None else self._checked_spans(spans)
        self.stats = None

    def _checked_spans(self, spans: Spans | Iterable[tuple[int, int, int, str]]) -> Spans:
        if not isinstance(spans, Spans):
            spans = Spans.of(spans)
        row, start, end, _ = spans
        sizes = [len(part) for part in spans]
        if len(set(sizes)) != 1:
            raise InvalidInput(f"spans must hold as many rows, starts, ends and tags (they hold {sizes})")
        bad = (row < 0) | (row >= len(self))
        if not bad.any():
            bad = (start < 0) | (end < start) | (end > self.lengths[row])
        if bad.any():
            k = int(bad.argmax())
            raise InvalidInput(
                f"spans[{k}] must lie in its row: row {row[k]}, {start[k]}..{end[k]} of {len(self)} rows"
            )
        if not (np.diff(row) >= 0).all() or ((np.diff(row) == 0) & (np.diff(start) < 0)).any():
            order = np.lexsort((end, start, row))
            return spans.take(order)
        return spans

    @property
    def ids(self) -> NDArray[np.uint64]:
        """uint64[rows]: what keys the randomness of each row.

        Rows made without ids get a 64-bit hash of their content, so that neither position nor batch matters.
        """
        if self._ids is None:
            values = self._values.view(np.uint8)
            self._ids = _core.content_ids("", values, self._values.itemsize, self.offsets)
        return self._ids

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64[rows]: elements in each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def _flat_indices(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the elements of the chosen rows lie, and the offsets of the chosen rows."""
        lengths = self.lengths[indices]
        offsets = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        return flat, offsets

    def _indices(self, indices: ArrayLike) -> NDArray[np.int64]:
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            if chosen.ndim != 1:
                raise InvalidInput(f"a row mask must have one dimension (it has {chosen.ndim})")
            if len(chosen) != len(self):
                raise InvalidInput(f"a row mask must hold one value per row ({len(chosen)} != {len(self)})")
            return np.flatnonzero(chosen)
        chosen = _integers("indices", chosen, np.int64)
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        bad = (chosen < 0) | (chosen >= len(self))
        if bad.any():
            k = int(bad.argmax())
            raise InvalidInput(f"indices must name rows of the batch (position {k}: {chosen[k]}, rows: {len(self)})")
        return chosen

    def _taken_spans(self, indices: NDArray[np.int64]) -> Spans | None:
        if self.spans is None:
            return None
        first = np.searchsorted(self.spans.row, indices, "left")
        counts = np.searchsorted(self.spans.row, indices, "right") - first
        starts = np.cumsum(counts) - counts
        flat = np.arange(counts.sum()) + np.repeat(first - starts, counts)
        return self.spans.take(flat)._replace(row=np.repeat(np.arange(len(indices)), counts))

    def __getitem__(self, key: int | slice) -> Self:
        """The rows of a slice, or the one row of an index, as a batch."""
        if isinstance(key, slice):
            return self.take(np.arange(*key.indices(len(self))))
        return self.take([key])

    def __iter__(self) -> Iterator[Self]:
        """The rows, each as a batch of one; `to_lists` and `texts` are the fast way to their contents."""
        return (self.take([row]) for row in range(len(self)))

    def take(self, indices: ArrayLike) -> Self:
        """The chosen rows, in the order given; `indices` are row numbers (negative from the end) or a bool mask."""
        raise NotImplementedError

    def _equal_rows(self, other: _Ragged) -> bool:
        return (
            np.array_equal(self._values, other._values)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.ids, other.ids)
            and _equal_columns(self.rows, other.rows)
            and (self.spans.to_list() if self.spans else []) == (other.spans.to_list() if other.spans else [])
        )


class TokenBatch(_Ragged):
    """Ragged rows of token ids.

    Attributes:
        tokens: uint32[n], the ids of all rows, one row after another.
        offsets: int64[rows + 1], where each row starts, and the end of the last.
        columns: Arrays of length n, one value per token (``labels`` int32, ``loss_mask`` uint8, ...).
        rows: Arrays of length rows.
        spans: Named spans within rows, or None.
        targets: The second sequences of an objective (T5, UL2, BART) with the same ids, or None.
        tokenizer: The tokenizer that made the ids, where known; ops that need one raise without it.
        source: int32[n] after an op with ``return_source=True``: the source token's index in its row, or -1.
        edited: uint8[n] beside `source`: 1 where an op chose the token.
        stats: What the last op counted, or None.

    Example:
        >>> batch = TokenBatch.from_lists([[5, 6, 7], [9]], ids=[11, 12])
        >>> batch
        TokenBatch(rows=2, tokens=4)
        >>> batch.take([1]).to_lists()
        [[9]]
    """

    __slots__ = ("columns", "edited", "source", "targets", "tokenizer")

    _dtype = np.uint32
    _noun = "tokens"
    columns: dict[str, NDArray[Any]]
    targets: TokenBatch | None
    tokenizer: Tokenizer | None
    source: NDArray[np.int32] | None
    edited: NDArray[np.uint8] | None

    def __init__(
        self,
        tokens: ArrayLike,
        offsets: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
        targets: TokenBatch | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Wraps flat arrays: no copy for C-contiguous arrays of the right dtype, one copy otherwise.

        Raises:
            InvalidInput: Offsets that do not start at 0, decrease, or do not end at n; an id outside 0..2^32-1; a
                column of another length; a span outside its row. The message names the place.
        """
        self._init(tokens, offsets, ids, rows, spans)
        n = len(self.tokens)
        self.columns = {k: _column(f"columns['{k}']", value, n, "token") for k, value in (columns or {}).items()}
        if targets is not None and len(targets) != len(self):
            raise InvalidInput(f"targets must have as many rows as the batch ({len(targets)} != {len(self)})")
        self.targets = targets
        self.tokenizer = tokenizer
        self.source = None
        self.edited = None

    @classmethod
    def from_arrays(
        cls,
        tokens: ArrayLike,
        offsets: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Self:
        """The constructor under the name that its siblings have."""
        return cls(tokens, offsets, ids=ids, columns=columns, rows=rows, spans=spans, tokenizer=tokenizer)

    @classmethod
    def _trusted(
        cls,
        tokens: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        ids: NDArray[np.uint64] | None,
        columns: dict[str, NDArray[Any]],
        rows: dict[str, NDArray[Any]],
        spans: Spans | None,
        targets: TokenBatch | None,
        tokenizer: Tokenizer | None,
    ) -> Self:
        """Wraps what the core made, which is valid by construction: no checks, for the fixed cost of a call."""
        batch = cls.__new__(cls)
        batch._values, batch.offsets, batch._ids = tokens, offsets, ids
        batch.columns, batch.rows, batch.spans, batch.targets = columns, rows, spans, targets
        batch.tokenizer = tokenizer
        batch.source = batch.edited = batch.stats = None
        return batch

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """uint32[n]: the ids of all rows, one row after another."""
        return self._values

    @classmethod
    def from_lists(
        cls,
        lists: Iterable[Sequence[int]],
        *,
        ids: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Self:
        """A batch from one sequence of ids per row (lists, tuples or integer arrays).

        Raises:
            InvalidInput: An id that is not an integer in 0..2^32-1, with its row and position.

        Example:
            >>> TokenBatch.from_lists([[1, 2], []]).offsets
            array([0, 2, 2])
        """
        tokens, offsets = _core.token_rows(lists)
        return cls(tokens, offsets, ids=ids, columns=columns, rows=rows, spans=spans, tokenizer=tokenizer)

    @classmethod
    def from_texts(
        cls, texts: TextBatch | Iterable[str] | Any, tokenizer: Tokenizer, *, ids: ArrayLike | None = None
    ) -> TokenBatch:
        """The tokens of texts (a TextBatch, strings, or an Arrow array of strings); `Tokenizer.encode` has more to say.

        Example:
            >>> from variegate.tokenizer import Tokenizer
            >>> TokenBatch.from_texts(["ab", ""], Tokenizer.default()).lengths.tolist()[1]
            0
        """
        return tokenizer.encode(texts, ids=ids)

    @classmethod
    def from_messages(
        cls,
        conversations: Iterable[Sequence[Mapping[str, str]]],
        tokenizer: Tokenizer,
        *,
        template: str | Mapping[str, tuple[str, str]] = "chatml",
        ids: ArrayLike | None = None,
    ) -> TokenBatch:
        """The tokens of conversations, with whose turn it is and what an assistant is to learn.

        A conversation is laid out by the template and encoded as one text, so that the ids are those of that text;
        markers that stand in a content count as markers. A token belongs to the part that its first byte lies in.

        Args:
            conversations: One list per row of mappings with ``role`` and ``content``.
            tokenizer: Encodes the laid-out text.
            template: For each role, what stands before and after the content; or ``chatml``.
            ids: Row identities; by default a hash of the laid-out text.

        Returns:
            A batch with the columns ``segment`` uint8 (1 system, 2 user, 3 assistant, 4 tool, 5 developer, 6 and on for
            other roles in template order) and ``loss_mask`` uint8: 1 on the content of assistant turns and on the
            marker that ends them (the text after the content without its trailing white space), 0 elsewhere.

        Raises:
            InvalidInput: A message without role or content, or a role that the template lacks, with its place.

        Example:
            >>> from variegate.tokenizer import Tokenizer
            >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
            >>> batch = TokenBatch.from_messages([chat], Tokenizer.default())
            >>> learned = batch.tokens[batch.columns["loss_mask"] == 1]
            >>> b"".join(batch.tokenizer.token_bytes[t] for t in learned)
            b'Hello<|im_end|>'
        """
        from variegate._messages import encode_messages

        return encode_messages(conversations, tokenizer, template=template, ids=ids)

    @classmethod
    def from_padded(
        cls,
        matrix: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Self:
        """A batch from a [rows, width] matrix, padding left out.

        Args:
            matrix: Integer [rows, width].
            lengths: Integer [rows]: the first so many ids of each row count.
            attention_mask: [rows, width], non-zero where an id counts; either this or `lengths`.
            ids: Row identities.
            tokenizer: The tokenizer that made the ids.

        Raises:
            InvalidInput: Both or neither of `lengths` and `attention_mask`; shapes that differ.

        Example:
            >>> TokenBatch.from_padded([[7, 8, 0], [9, 0, 0]], lengths=[2, 1]).to_lists()
            [[7, 8], [9]]
        """
        matrix = np.asarray(matrix)
        if matrix.ndim != 2:
            raise InvalidInput(f"matrix must have two dimensions (it has {matrix.ndim})")
        if (lengths is None) == (attention_mask is None):
            raise InvalidInput("from_padded needs either lengths= or attention_mask=: padding cannot be told from ids")
        if attention_mask is not None:
            mask = np.asarray(attention_mask) != 0
        else:
            counts = _integers("lengths", lengths, np.int64)
            if counts.shape != matrix.shape[:1]:
                raise InvalidInput(f"lengths must hold one number per row ({len(counts)} != {len(matrix)})")
            if ((counts < 0) | (counts > matrix.shape[1])).any():
                row = int(((counts < 0) | (counts > matrix.shape[1])).argmax())
                raise InvalidInput(f"lengths must lie in 0..{matrix.shape[1]} (row {row}: {counts[row]})")
            mask = np.arange(matrix.shape[1]) < counts[:, None]
        if mask.shape != matrix.shape:
            raise InvalidInput(f"attention_mask must have the shape of matrix ({mask.shape} != {matrix.shape})")
        return cls(matrix[mask], _offsets(mask.sum(1)), ids=ids, tokenizer=tokenizer)

    @classmethod
    def from_arrow(cls, data: Any, *, tokenizer: Tokenizer | None = None) -> Self:
        """A batch from anything with ``__arrow_c_array__`` or ``__arrow_c_stream__``.

        Takes an array of integer lists, or a struct array or table as `TokenBatch` exports it: ``tokens`` (lists),
        optionally ``id`` (uint64), further lists of the same lengths (columns) and flat fields (rows). Contiguous
        uint32 values come in without a copy.

        Raises:
            InvalidInput: Another type, a null, or lists whose lengths differ from the tokens'.
        """
        fields = _arrow_fields(data, "tokens")
        tokens, offsets = _arrow_list("tokens", fields.pop("tokens"))
        ids = fields.pop("id", None)
        columns: dict[str, NDArray[Any]] = {}
        rows: dict[str, NDArray[Any]] = {}
        for name, array in fields.items():
            if _is_list(array.type):
                columns[name], own = _arrow_list(name, array)
                if not np.array_equal(own, offsets):
                    raise InvalidInput(f"'{name}' must have one value per token, but its lists differ in length")
            else:
                rows[name] = _arrow_flat(name, array)
        return cls(
            tokens,
            offsets,
            ids=None if ids is None else _arrow_flat("id", ids),
            columns=columns,
            rows=rows,
            tokenizer=tokenizer,
        )

    def take(self, indices: ArrayLike) -> Self:
        """The chosen rows, in the order given.

        Args:
            indices: Row numbers (negative ones count from the end), or a bool per row.

        Raises:
            InvalidInput: A number outside the batch, with its position.
        """
        chosen = self._indices(indices)
        flat, offsets = self._flat_indices(chosen)
        taken = type(self)(
            self.tokens[flat],
            offsets,
            ids=self.ids[chosen],
            columns={name: column[flat] for name, column in self.columns.items()},
            rows={name: row[chosen] for name, row in self.rows.items()},
            spans=self._taken_spans(chosen),
            targets=None if self.targets is None else self.targets.take(chosen),
            tokenizer=self.tokenizer,
        )
        taken.source = None if self.source is None else self.source[flat]
        taken.edited = None if self.edited is None else self.edited[flat]
        return taken

    @classmethod
    def concat(cls, batches: Iterable[TokenBatch]) -> Self:
        """All rows of several batches; columns and rows must have the same names.

        Raises:
            InvalidInput: No batch, or names that differ.
        """
        parts = list(batches)
        tokens, offsets, ids, rows, spans = _concatenated(cls, parts)
        same = [part.targets for part in parts if part.targets is not None]
        if same and len(same) != len(parts):
            raise InvalidInput("concat needs targets on every batch or on none")
        joined = cls(
            tokens,
            offsets,
            ids=ids,
            columns=_joined("columns", [part.columns for part in parts]),
            rows=rows,
            spans=spans,
            targets=TokenBatch.concat(same) if same else None,
            tokenizer=parts[0].tokenizer,
        )
        if all(part.source is not None for part in parts):
            joined.source = np.concatenate([part.source for part in parts if part.source is not None])
        if all(part.edited is not None for part in parts):
            joined.edited = np.concatenate([part.edited for part in parts if part.edited is not None])
        return joined

    def equals(self, other: object) -> bool:
        """Whether tokens, offsets, ids, columns, rows, spans and targets are the same, dtypes included."""
        if not isinstance(other, TokenBatch):
            return False
        if (self.targets is None) != (other.targets is None):
            return False
        if self.targets is not None and other.targets is not None and not self.targets.equals(other.targets):
            return False
        return self._equal_rows(other) and _equal_columns(self.columns, other.columns)

    def to_lists(self) -> list[list[int]]:
        """The ids of each row as a Python list."""
        tokens, offsets = self.tokens.tolist(), self.offsets.tolist()
        return [tokens[start:end] for start, end in itertools.pairwise(offsets)]

    def to_padded(
        self,
        length: int | None = None,
        *,
        pad_id: int = 0,
        side: Literal["right", "left"] = "right",
    ) -> dict[str, NDArray[Any]]:
        """The rows as matrices [rows, length].

        Args:
            length: Width; None takes the longest row.
            pad_id: The id in free cells.
            side: Which end holds the padding.

        Returns:
            ``tokens`` uint32, ``attention_mask`` uint8 (1 on tokens), and every column, padded with -100 where its
            name is ``labels``, with -1 where it is ``word_ids``, and with 0 elsewhere.

        Raises:
            InvalidInput: A row longer than `length` (use `truncate` first), or a length below 0 or of 2^31 and more.

        Example:
            >>> TokenBatch.from_lists([[7, 8], [9]]).to_padded(pad_id=1)["tokens"].tolist()
            [[7, 8], [9, 1]]
        """
        lengths = self.lengths
        longest = int(lengths.max(initial=0))
        width = longest if length is None else _width(length, 0)
        if longest > width:
            row = int((lengths > width).argmax())
            raise InvalidInput(
                f"rows must fit length={width} (row {row} has {lengths[row]} tokens): use truncate first"
            )
        if side not in ("right", "left"):
            raise InvalidInput(f"side must be 'right' or 'left', not {side!r}")

        def lay(values: NDArray[Any], pad: int) -> NDArray[Any]:
            item = np.array([pad], values.dtype).tobytes()
            flat = _core.pad_rows(values.view(np.uint8), self.offsets, width, side == "left", item)
            return flat.view(values.dtype).reshape(len(self), width)

        pad = _token_id("pad_id", pad_id)
        padded = {"tokens": lay(self.tokens, pad), "attention_mask": lay(np.ones(len(self.tokens), np.uint8), 0)}
        return padded | {name: lay(column, _padding(name)) for name, column in self.columns.items()}

    def to_packed(self, length: int, *, pad_id: int = 0) -> dict[str, NDArray[Any]]:
        """Rows laid into blocks of one length, for training without padding.

        Best fit in row order: a row goes to the fullest block with room for it. Only rows longer than a block are cut.

        Args:
            length: Cells of a block.
            pad_id: The id in free cells.

        Returns:
            [blocks, length] each: ``tokens`` uint32, ``segment_ids`` int32 (from 1 within a block, 0 in free cells),
            ``position_ids`` int32 (from 0 in each piece), and every column as in `to_padded`.

        Raises:
            InvalidInput: A length below 1 or of 2^31 and more.

        Example:
            >>> packed = TokenBatch.from_lists([[7, 8], [5, 5, 5], [9]]).to_packed(3)
            >>> packed["tokens"].tolist(), packed["segment_ids"].tolist()
            ([[7, 8, 9], [5, 5, 5]], [[1, 1, 2], [1, 1, 1]])
        """
        length = _width(length, 1)
        packed = _core.Packed(self.offsets, length)

        def lay(values: NDArray[Any], pad: int) -> NDArray[Any]:
            flat = packed.place(values.view(np.uint8), np.array([pad], values.dtype).tobytes())
            return flat.view(values.dtype).reshape(packed.blocks, length)

        segments, positions = packed.segments_and_positions()
        blocks = {
            "tokens": lay(self.tokens, _token_id("pad_id", pad_id)),
            "segment_ids": segments.reshape(packed.blocks, length),
            "position_ids": positions.reshape(packed.blocks, length),
        }
        return blocks | {name: lay(column, _padding(name)) for name, column in self.columns.items()}

    def replace(
        self,
        *,
        ids: ArrayLike | EllipsisType | None = ...,
        columns: Mapping[str, ArrayLike] | EllipsisType = ...,
        rows: Mapping[str, ArrayLike] | EllipsisType = ...,
        spans: Spans | Iterable[tuple[int, int, int, str]] | EllipsisType | None = ...,
        targets: TokenBatch | EllipsisType | None = ...,
        tokenizer: Tokenizer | EllipsisType | None = ...,
    ) -> Self:
        """The same tokens with other things beside them; what is not named stays. ``ids=None`` derives them anew.

        Raises:
            InvalidInput: As the constructor.

        Example:
            >>> TokenBatch.from_lists([[5]]).replace(columns={"labels": np.array([5], np.int32)})
            TokenBatch(rows=1, tokens=1, columns=['labels'])
        """
        return type(self)(
            self.tokens,
            self.offsets,
            ids=self._ids if ids is ... else ids,
            columns=self.columns if columns is ... else columns,
            rows=self.rows if rows is ... else rows,
            spans=self.spans if spans is ... else spans,
            targets=self.targets if targets is ... else targets,
            tokenizer=self.tokenizer if tokenizer is ... else tokenizer,
        )

    def truncate(self, length: int, *, side: Literal["right", "left"] = "right") -> Self:
        """Rows cut to at most `length` tokens, at the end (``right``) or the start; spans are cut along."""
        length = min(_length(length, 0), len(self.tokens))
        if side not in ("right", "left"):
            raise InvalidInput(f"side must be 'right' or 'left', not {side!r}")
        kept = np.minimum(self.lengths, length)
        first = np.zeros_like(kept) if side == "right" else self.lengths - kept
        offsets = _offsets(kept)
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] + first - offsets[:-1], kept)
        spans = self.spans
        if spans is not None:
            start = np.clip(spans.start - first[spans.row], 0, kept[spans.row])
            end = np.clip(spans.end - first[spans.row], 0, kept[spans.row])
            left = (end > start) | (spans.start == spans.end)
            spans = spans._replace(start=start, end=end).take(left)
        cut = type(self)(
            self.tokens[flat],
            offsets,
            ids=self.ids,
            columns={name: column[flat] for name, column in self.columns.items()},
            rows=self.rows,
            spans=spans,
            targets=self.targets,
            tokenizer=self.tokenizer,
        )
        cut.source = None if self.source is None else self.source[flat]
        cut.edited = None if self.edited is None else self.edited[flat]
        return cut

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Exports one Arrow struct array (``id``, ``tokens``, columns as lists, rows flat) over the same memory."""
        import pyarrow as pa

        def lists(values: NDArray[Any]) -> Any:
            return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(values))

        fields = {"id": pa.array(self.ids), "tokens": lists(self.tokens)}
        fields |= {name: lists(column) for name, column in self.columns.items()}
        fields |= {name: pa.array(row) for name, row in self.rows.items()}
        struct = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        capsules: tuple[object, object] = struct.__arrow_c_array__(requested_schema)
        return capsules

    def __repr__(self) -> str:
        """Rows, tokens and the names of what travels with them."""
        return f"TokenBatch(rows={len(self)}, tokens={len(self.tokens)}{_names(columns=self.columns, rows=self.rows)})"


class TextBatch(_Ragged):
    """Ragged rows of UTF-8 text.

    Attributes:
        data: uint8[n], the bytes of all rows, one row after another.
        offsets: int64[rows + 1], where each row starts, in bytes, and the end of the last.
        rows: Arrays of length rows.
        spans: Named spans within rows, in bytes, or None.
        edits: What the last op changed, or None.
        stats: What the last op counted, or None.

    Example:
        >>> TextBatch.from_texts(["naïve", ""]).offsets
        array([0, 6, 6])
    """

    __slots__ = ("edits",)

    _dtype = np.uint8
    _noun = "data"
    edits: Edits | None

    def __init__(
        self,
        data: ArrayLike,
        offsets: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
    ) -> None:
        """Wraps flat arrays; each row must be valid UTF-8 by itself.

        Raises:
            InvalidInput: As `TokenBatch`, and for a row that is not valid UTF-8.
        """
        self._init(data, offsets, ids, rows, spans)
        self.edits = None
        _core.check_utf8(self.data, self.offsets)

    @classmethod
    def from_arrays(
        cls,
        data: ArrayLike,
        offsets: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
    ) -> Self:
        """The constructor under the name that its siblings have."""
        return cls(data, offsets, ids=ids, rows=rows, spans=spans)

    @classmethod
    def _trusted(
        cls,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        ids: NDArray[np.uint64] | None,
        rows: dict[str, NDArray[Any]],
        spans: Spans | None,
    ) -> Self:
        """Wraps what the core made, which is valid by construction: no checks."""
        batch = cls.__new__(cls)
        batch._values, batch.offsets, batch._ids, batch.rows, batch.spans = data, offsets, ids, rows, spans
        batch.edits = batch.stats = None
        return batch

    @property
    def data(self) -> NDArray[np.uint8]:
        """uint8[n]: the bytes of all rows, one row after another."""
        return self._values

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        ids: ArrayLike | None = None,
        rows: Mapping[str, ArrayLike] | None = None,
        spans: Spans | Iterable[tuple[int, int, int, str]] | None = None,
    ) -> Self:
        """A batch from strings.

        Raises:
            InvalidInput: Something that is not a str, or a lone surrogate, with its row.
        """
        if isinstance(texts, str):
            raise InvalidInput("texts must be a sequence of str, not one str: pass [text]")
        data, offsets = _core.text_rows(texts)
        return cls(data, offsets, ids=ids, rows=rows, spans=spans)

    @classmethod
    def from_arrow(cls, data: Any) -> Self:
        """A batch from an Arrow array or stream of strings, or of structs with ``text`` and optionally ``id``.

        Offsets of 32 bits are widened; the bytes come in without a copy where the array is one chunk.

        Raises:
            InvalidInput: Another type, or a null.
        """
        import pyarrow as pa

        fields = _arrow_fields(data, "text")
        text = fields.pop("text")
        if text.null_count:
            raise InvalidInput(f"'text' must not hold nulls (row {_first_null(text)})")
        if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
            raise InvalidInput(f"'text' must be strings, not {text.type}")
        wide = pa.types.is_large_string(text.type)
        _, offset_buffer, value_buffer = text.buffers()
        offsets = np.zeros(1, np.int64)
        if len(text):
            raw = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
            offsets = raw[text.offset : text.offset + len(text) + 1].astype(np.int64)
        values = np.zeros(0, np.uint8) if value_buffer is None else np.frombuffer(value_buffer, np.uint8)
        ids = fields.pop("id", None)
        return cls(
            values[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            ids=None if ids is None else _arrow_flat("id", ids),
            rows={name: _arrow_flat(name, array) for name, array in fields.items()},
        )

    @property
    def texts(self) -> list[str]:
        """The rows as Python strings, made anew at each call."""
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        return [data[start:end].decode() for start, end in itertools.pairwise(offsets)]

    def take(self, indices: ArrayLike) -> Self:
        """The chosen rows, in the order given; see `TokenBatch.take`."""
        chosen = self._indices(indices)
        flat, offsets = self._flat_indices(chosen)
        return type(self)(
            self.data[flat],
            offsets,
            ids=self.ids[chosen],
            rows={name: row[chosen] for name, row in self.rows.items()},
            spans=self._taken_spans(chosen),
        )

    @classmethod
    def concat(cls, batches: Iterable[TextBatch]) -> Self:
        """All rows of several batches; rows must have the same names.

        Raises:
            InvalidInput: No batch, or names that differ.
        """
        data, offsets, ids, rows, spans = _concatenated(cls, list(batches))
        return cls(data, offsets, ids=ids, rows=rows, spans=spans)

    def equals(self, other: object) -> bool:
        """Whether data, offsets, ids, rows and spans are the same, dtypes included."""
        return isinstance(other, TextBatch) and self._equal_rows(other)

    def to_arrow(self) -> Any:
        """The rows as a pyarrow ``large_string`` array over the same memory."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(pa.large_string(), len(self), buffers)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Exports one Arrow struct array: ``id``, ``text`` and rows; the bytes are not copied."""
        import pyarrow as pa

        fields = {"id": pa.array(self.ids), "text": self.to_arrow()}
        fields |= {name: pa.array(row) for name, row in self.rows.items()}
        struct = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        capsules: tuple[object, object] = struct.__arrow_c_array__(requested_schema)
        return capsules

    def __repr__(self) -> str:
        """Rows, bytes and the names of what travels with them."""
        return f"TextBatch(rows={len(self)}, bytes={len(self.data)}{_names(rows=self.rows)})"


def _integers(name: str, values: ArrayLike | None, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """One contiguous dimension of `dtype`; the same memory where it fits, a checked copy where it does not."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension (it has {array.ndim})")
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind == "f" and not hasattr(values, "dtype"):
        array = np.asarray(values, object)  # numpy rounds a list with small and 64-bit integers to floats
    if array.dtype.kind == "O" and all(isinstance(value, int) for value in array):
        pass  # it keeps integers beyond 64 bits as objects
    elif array.dtype.kind not in "iub":
        raise InvalidInput(f"{name} must be integers, not {np.asarray(values).dtype}")
    limits = np.iinfo(dtype)
    for at in (int(array.argmin()), int(array.argmax())):
        if not limits.min <= int(array[at]) <= limits.max:
            raise InvalidInput(f"{name} must lie in {limits.min}..{limits.max} (position {at}: {array[at]})")
    return array.astype(dtype)


def _column(name: str, values: ArrayLike, length: int, unit: str) -> NDArray[Any]:
    array = np.ascontiguousarray(values)
    if array.shape != (length,):
        raise InvalidInput(f"{name} must hold one value per {unit} ({array.shape} != ({length},))")
    return array


def _token_id(name: str, value: int) -> int:
    if not 0 <= value < 1 << 32:
        raise InvalidInput(f"{name} must lie in 0..4294967295 (it is {value})")
    return value


def _length(length: int, least: int) -> int:
    if isinstance(length, bool) or not isinstance(length, numbers.Integral):
        raise InvalidInput(f"length must be an integer (it is {length!r})")
    if length < least:
        raise InvalidInput(f"length must be at least {least} (it is {length})")
    return int(length)


def _width(length: int, least: int) -> int:
    """The width of a matrix: one that int32 positions reach."""
    width = _length(length, least)
    if width >= 1 << 31:
        raise InvalidInput(f"length must be below 2^31 (it is {width})")
    return width


def _padding(name: str) -> int:
    """What a column has where there is no token of the row: in ``word_ids``, no word."""
    return {"labels": IGNORE_INDEX, "word_ids": -1}.get(name, 0)


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _names(**groups: Mapping[str, object]) -> str:
    return "".join(f", {group}={sorted(names)}" for group, names in groups.items() if names)


def _equal_columns(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> bool:
    return ours.keys() == theirs.keys() and all(
        column.dtype == theirs[name].dtype and column.tobytes() == theirs[name].tobytes()
        if column.dtype.kind != "O"
        else np.array_equal(column, theirs[name])
        for name, column in ours.items()
    )


def _joined(what: str, parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    for k, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            raise InvalidInput(
                f"concat needs the same {what} on all batches: {sorted(parts[0])} != {sorted(part)} (batch {k})"
            )
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]}


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays end to end; numpy alone would turn their byte order to the machine's."""
    same = all(array.dtype == arrays[0].dtype for array in arrays)
    return np.concatenate(arrays, dtype=arrays[0].dtype if same else None)


def _concatenated(
    kind: type[_Ragged], parts: Sequence[_Ragged]
) -> tuple[Any, Any, Any, dict[str, NDArray[Any]], Spans | None]:
    if not parts:
        raise InvalidInput("concat needs at least one batch")
    for k, part in enumerate(parts):
        if not isinstance(part, kind):
            raise InvalidInput(f"concat needs a {kind.__name__} at each place (batch {k} is {type(part).__name__})")
    spans = None
    if any(part.spans is not None for part in parts):
        firsts = np.cumsum([0, *(len(part) for part in parts)])
        moved = [
            part.spans._replace(row=part.spans.row + first)
            for part, first in zip(parts, firsts, strict=False)
            if part.spans is not None
        ]
        row, start, end, tag = (np.concatenate(arrays) for arrays in zip(*moved, strict=True))
        spans = Spans(row, start, end, tag)
    return (
        np.concatenate([part._values for part in parts]),
        _offsets(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.ids for part in parts]),
        _joined("rows", [part.rows for part in parts]),
        spans,
    )


def _arrow_fields(data: Any, main: str) -> dict[str, Any]:
    """The fields of an Arrow object as single-chunk arrays; an array that is no struct is the `main` field."""
    import pyarrow as pa

    if hasattr(data, "__arrow_c_stream__"):
        data = pa.chunked_array(data).combine_chunks()
    elif hasattr(data, "__arrow_c_array__"):
        data = pa.array(data)
    else:
        raise InvalidInput(
            f"from_arrow needs __arrow_c_array__ or __arrow_c_stream__, which {type(data).__name__} lacks"
        )
    if not pa.types.is_struct(data.type):
        return {main: _plain_layout(data)}
    fields = {field.name: _plain_layout(array) for field, array in zip(data.type, data.flatten(), strict=True)}
    if main not in fields:
        raise InvalidInput(f"from_arrow needs a field '{main}' (there are {sorted(fields)})")
    return fields


def _plain_layout(array: Any) -> Any:
    """String views and dictionaries (polars and pandas export them) copied into offsets and values."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain_layout(array.dictionary_decode())
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string())
    return array


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _arrow_list(name: str, array: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    import pyarrow as pa

    if array.null_count:
        raise InvalidInput(f"'{name}' must not hold nulls (row {_first_null(array)})")
    if not _is_list(array.type):
        raise InvalidInput(f"'{name}' must be lists of integers, not {array.type}")
    values = array.flatten()
    if pa.types.is_fixed_size_list(array.type):
        offsets = np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
    else:
        offsets = np.asarray(array.offsets, np.int64)
        offsets = offsets - offsets[0]
    return _arrow_flat(name, values), offsets


def _arrow_flat(name: str, array: Any) -> NDArray[Any]:
    if array.null_count:
        raise InvalidInput(f"'{name}' must not hold nulls (row {_first_null(array)})")
    flat: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return flat


def _first_null(array: Any) -> int:
    return int(np.asarray(array.is_null()).argmax())
