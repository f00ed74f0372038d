"""Batches: what goes in comes out, bad input is named, layouts keep every value."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from variegate.batch import Spans
from variegate.errors import InvalidInput

ROWS = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=9)
TEXTS = st.lists(st.text(max_size=9), max_size=9)


def dressed(rows: list[list[int]]) -> vg.TokenBatch:
    """A batch with everything that can travel beside tokens."""
    plain = vg.TokenBatch.from_lists(rows)
    n = len(plain.tokens)
    spans = [(r, 0, len(row), f"row{r}") for r, row in enumerate(rows)]
    spans += [(r, len(row) // 2, len(row), "half") for r, row in enumerate(rows)]
    return vg.TokenBatch(
        plain.tokens,
        plain.offsets,
        columns={"labels": np.arange(n, dtype=np.int32), "loss_mask": np.ones(n, np.uint8)},
        rows={"score": np.arange(len(rows), dtype=np.float32)},
        spans=spans,
        targets=plain,
    )


@given(ROWS)
def test_lists_come_back(rows):
    batch = vg.TokenBatch.from_lists(rows)
    assert batch.to_lists() == rows
    assert len(batch) == len(rows)
    assert batch.tokens.dtype == np.uint32
    assert batch.equals(vg.TokenBatch.from_lists([np.array(row, np.int64) for row in rows]))
    assert batch.equals(vg.TokenBatch.from_lists([tuple(row) for row in rows]))
    assert batch.equals(vg.TokenBatch.from_lists([np.array(row, np.uint32) for row in rows]))


@given(ROWS, st.data())
def test_take_moves_everything_that_belongs_to_a_row(rows, data):
    batch = dressed(rows)
    indices = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=9) if rows else st.just([]))
    taken = batch.take(indices)
    assert taken.to_lists() == [rows[i] for i in indices]
    assert taken.targets.to_lists() == [rows[i] for i in indices]
    assert taken.ids.tolist() == [batch.ids.tolist()[i] for i in indices]
    assert taken.rows["score"].tolist() == [batch.rows["score"].tolist()[i] for i in indices]
    labels = [list(range(a, b)) for a, b in itertools.pairwise(batch.offsets.tolist())]
    assert taken.columns["labels"].tolist() == [label for i in indices for label in labels[i]]
    expected = [
        (k, *span[1:]) for k, i in enumerate(indices) for span in batch.spans.to_list() if span[0] == i % len(rows)
    ]
    assert taken.spans.to_list() == expected


@given(ROWS)
def test_replace_changes_what_is_named_and_nothing_else(rows):
    batch = dressed(rows)
    assert batch.replace().equals(batch)
    bare = batch.replace(columns={}, spans=None, targets=None, ids=np.arange(len(rows)))
    assert (bare.columns, bare.spans, bare.targets) == ({}, None, None)
    assert bare.ids.tolist() == list(range(len(rows)))
    assert bare.rows["score"] is batch.rows["score"]


@given(ROWS, st.integers(0, 9))
def test_cut_and_concat_is_the_identity(rows, at):
    batch = dressed(rows)
    assert vg.TokenBatch.concat([batch[:at], batch[at:]]).equals(batch)
    assert all(batch[r].to_lists() == [rows[r]] for r in range(len(rows)))


@given(ROWS)
def test_arrow_round_trip_without_a_copy(rows):
    batch = dressed(rows)
    back = vg.TokenBatch.from_arrow(pa.table(batch))
    assert back.to_lists() == rows
    assert back.ids.tolist() == batch.ids.tolist()
    assert back.columns["labels"].tolist() == batch.columns["labels"].tolist()
    assert back.rows["score"].tolist() == batch.rows["score"].tolist()
    if len(batch.tokens):
        assert np.shares_memory(vg.TokenBatch.from_arrow(batch).tokens, batch.tokens)
    sliced = pa.array(rows, pa.list_(pa.uint32()))[1:]
    assert vg.TokenBatch.from_arrow(sliced).to_lists() == rows[1:]
    assert vg.TokenBatch.from_arrow(pa.chunked_array([sliced, sliced])).to_lists() == rows[1:] * 2


@given(ROWS, st.sampled_from(["right", "left"]), st.integers(0, 2**32 - 1))
def test_padding_and_back(rows, side, pad_id):
    padded = dressed(rows).to_padded(pad_id=pad_id, side=side)
    back = vg.TokenBatch.from_padded(padded["tokens"], attention_mask=padded["attention_mask"])
    assert back.to_lists() == rows
    free = padded["attention_mask"] == 0
    assert (padded["tokens"][free] == pad_id).all()
    assert (padded["labels"][free] == -100).all()
    assert (padded["loss_mask"] == padded["attention_mask"]).all()
    if side == "right":
        lengths = [len(row) for row in rows]
        assert vg.TokenBatch.from_padded(padded["tokens"], lengths=lengths).to_lists() == rows


@given(ROWS, st.integers(1, 12))
def test_packing_keeps_every_row_together(rows, length):
    packed = dressed(rows).to_packed(length)
    assert len({array.shape for array in packed.values()}) == 1
    pieces = []
    for block in range(len(packed["tokens"])):
        segments = packed["segment_ids"][block]
        for segment in range(1, segments.max(initial=0) + 1):
            cells = segments == segment
            assert packed["position_ids"][block][cells].tolist() == list(range(cells.sum()))
            pieces.append(packed["tokens"][block][cells].tolist())
    assert sorted(pieces) == sorted(row[i : i + length] for row in rows for i in range(0, len(row), length))


@given(ROWS, st.integers(0, 9), st.sampled_from(["right", "left"]))
def test_truncate_cuts_tokens_columns_and_spans_alike(rows, length, side):
    batch = dressed(rows)
    cut = batch.truncate(length, side=side)
    assert cut.to_lists() == [row[:length] if side == "right" else row[max(len(row) - length, 0) :] for row in rows]
    whole = {(row, 0, min(len(rows[row]), length)) for row in range(len(rows)) if rows[row] and length}
    assert whole <= {span[:3] for span in cut.spans.to_list()}
    assert all(0 <= start <= end <= cut.lengths[row] for row, start, end, _ in cut.spans.to_list())


@given(TEXTS)
def test_texts_come_back(texts):
    batch = vg.TextBatch.from_texts(texts)
    assert batch.texts == texts
    assert batch.offsets.tolist() == np.cumsum([0, *(len(text.encode()) for text in texts)]).tolist()
    for kind in (pa.string(), pa.large_string()):
        assert vg.TextBatch.from_arrow(pa.array(texts, kind)[1:]).texts == texts[1:]
    assert vg.TextBatch.from_arrow(batch).equals(batch)
    assert vg.TextBatch.concat([batch, batch]).texts == texts * 2
    assert batch.take(list(range(len(texts)))[::-1]).texts == texts[::-1]


def test_views_and_dictionaries_come_in_as_what_they_hold():
    texts = ["naïve", "", "x"]
    for array in (pa.array(texts, pa.string_view()), pa.array(texts).dictionary_encode()):
        assert vg.TextBatch.from_arrow(array[1:]).texts == texts[1:]


def test_ids_are_a_documented_hash_of_the_content():
    """H64(source name, content): SHA-256 over length-prefixed fields, its first eight bytes, little-endian."""
    content = np.array([5, 6], "<u4").tobytes()
    fields = b"".join(len(field).to_bytes(8, "little") + field for field in (b"", content))
    expected = int.from_bytes(hashlib.sha256(fields).digest()[:8], "little")
    assert vg.TokenBatch.from_lists([[9], [5, 6]]).ids[1] == expected
    assert vg.TokenBatch.from_lists([[5, 6]]).ids[0] == expected


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_ids_come_back_from_a_list_whatever_their_size(ids):
    assert vg.TokenBatch.from_lists([[]] * len(ids), ids=ids).ids.tolist() == ids


def test_a_batch_iterates_over_its_rows():
    assert [row.to_lists() for row in vg.TokenBatch.from_lists([[1, 2], [], [3]])] == [[[1, 2]], [[]], [[3]]]
    assert [row.texts for row in vg.TextBatch.from_texts(["é", ""])] == [["é"], [""]]


def test_a_batch_equals_no_batch_of_another_kind():
    tokens, texts = vg.TokenBatch.from_lists([]), vg.TextBatch.from_texts([])
    assert not tokens.equals(texts)
    assert not texts.equals(tokens)
    assert not tokens.equals(None)


def test_concat_keeps_the_byte_order_of_a_column():
    batch = vg.TokenBatch([5, 6], [0, 1, 2], columns={"swapped": np.array([1, 2], ">i4")})
    assert vg.TokenBatch.concat([batch[:1], batch[1:]]).equals(batch)


def test_truncate_takes_any_large_length():
    batch = vg.TokenBatch.from_lists([[1, 2], [3]])
    assert batch.truncate(10**30).equals(batch)


def test_flat_arrays_are_wrapped_not_copied():
    tokens, offsets = np.arange(4, dtype=np.uint32), np.array([0, 1, 4])
    batch = vg.TokenBatch.from_arrays(tokens, offsets)
    assert np.shares_memory(batch.tokens, tokens)
    assert np.shares_memory(batch.offsets, offsets)
    assert vg.TokenBatch(tokens[::2], [0, 2]).to_lists() == [[0, 2]]


def test_tokens_export_dlpack():
    batch = vg.TokenBatch.from_lists([[1, 2], [3]])
    assert np.shares_memory(np.from_dlpack(batch.tokens), batch.tokens)


BAD = [
    ("tokens must lie in 0..4294967295 (position 1: -1)", lambda: vg.TokenBatch(np.array([1, -1]), [0, 2])),
    ("tokens must lie in 0..4294967295 (position 1: 4294967296)", lambda: vg.TokenBatch([1, 2**32], [0, 2])),
    ("tokens must be integers, not float64", lambda: vg.TokenBatch([1.5], [0, 1])),
    ("offsets must not decrease (row 1: 2 > 1)", lambda: vg.TokenBatch([1, 2], [0, 2, 1])),
    ("offsets must start at 0 (it starts at 1)", lambda: vg.TokenBatch([1, 2], [1, 2])),
    ("offsets must end at the number of values (1 != 2)", lambda: vg.TokenBatch([1, 2], [0, 1])),
    (
        "offsets must hold rows + 1 numbers, but it is empty: pass [0] for no rows",
        lambda: vg.TokenBatch([], []),
    ),
    ("ids must lie in 0..18446744073709551615 (position 0: -1)", lambda: vg.TokenBatch([1], [0, 1], ids=[-1])),
    ("ids must hold one number per row (2 != 1)", lambda: vg.TokenBatch([1], [0, 1], ids=[1, 2])),
    (
        "columns['labels'] must hold one value per token ((2,) != (1,))",
        lambda: vg.TokenBatch([1], [0, 1], columns={"labels": [1, 2]}),
    ),
    (
        "spans[0] must lie in its row: row 0, 0..2 of 1 rows",
        lambda: vg.TokenBatch([1], [0, 1], spans=[(0, 0, 2, "x")]),
    ),
    (
        "rows must fit length=1 (row 1 has 2 tokens): use truncate first",
        lambda: vg.TokenBatch.from_lists([[1], [2, 3]]).to_padded(1),
    ),
    ("length must be at least 1 (it is 0)", lambda: vg.TokenBatch.from_lists([[1]]).to_packed(0)),
    (
        "length must be below 2^31 (it is 4611686018427387904)",
        lambda: vg.TokenBatch.from_lists([[1]]).to_packed(1 << 62),
    ),
    (
        "length must be below 2^31 (it is 4611686018427387904)",
        lambda: vg.TokenBatch.from_lists([[1]]).to_padded(1 << 62),
    ),
    ("length must be at least 0 (it is -1)", lambda: vg.TokenBatch.from_lists([]).to_padded(-1)),
    ("length must be at least 0 (it is -1)", lambda: vg.TokenBatch.from_lists([[1]]).truncate(-1)),
    ("length must be an integer (it is 1.5)", lambda: vg.TokenBatch.from_lists([[1]]).truncate(1.5)),
    (
        "spans must hold as many rows, starts, ends and tags (they hold [1, 2, 1, 1])",
        lambda: vg.TokenBatch(
            [1], [0, 1], spans=Spans(np.zeros(1, int), np.zeros(2, int), np.ones(1, int), np.array(["x"], object))
        ),
    ),
    (
        "a row mask must have one dimension (it has 2)",
        lambda: vg.TokenBatch.from_lists([[1]]).take(np.ones((1, 2), bool)),
    ),
    (
        "concat needs a TokenBatch at each place (batch 1 is TextBatch)",
        lambda: vg.TokenBatch.concat([vg.TokenBatch.from_lists([]), vg.TextBatch.from_texts([])]),
    ),
    ("side must be 'right' or 'left', not 'up'", lambda: vg.TokenBatch.from_lists([[1]]).to_padded(side="up")),
    ("pad_id must lie in 0..4294967295 (it is -1)", lambda: vg.TokenBatch.from_lists([[1]]).to_padded(pad_id=-1)),
    (
        "indices must name rows of the batch (position 1: 3, rows: 1)",
        lambda: vg.TokenBatch.from_lists([[1]]).take([0, 3]),
    ),
    ("concat needs at least one batch", lambda: vg.TokenBatch.concat([])),
    (
        "from_padded needs either lengths= or attention_mask=: padding cannot be told from ids",
        lambda: vg.TokenBatch.from_padded([[1]]),
    ),
    ("lengths must lie in 0..1 (row 0: 2)", lambda: vg.TokenBatch.from_padded([[1]], lengths=[2])),
    ("'tokens' must not hold nulls (row 1)", lambda: vg.TokenBatch.from_arrow(pa.array([[1], None]))),
    ("'tokens' must be lists of integers, not string", lambda: vg.TokenBatch.from_arrow(pa.array(["a"]))),
    (
        "from_arrow needs __arrow_c_array__ or __arrow_c_stream__, which list lacks",
        lambda: vg.TokenBatch.from_arrow([1]),
    ),
    ("texts must be str (row 1 is int)", lambda: vg.TextBatch.from_texts(["a", 3])),
    (
        "texts must be valid Unicode (row 0 has a lone surrogate): encode it with errors='replace'",
        lambda: vg.TextBatch.from_texts(["\ud800"]),
    ),
    ("texts must be a sequence of str, not one str: pass [text]", lambda: vg.TextBatch.from_texts("ab")),
    (
        "text must be UTF-8 (row 0, byte 0)",
        lambda: vg.TextBatch(np.frombuffer("é".encode(), np.uint8), [0, 1, 2]),
    ),
    ("'text' must be strings, not int64", lambda: vg.TextBatch.from_arrow(pa.array([1]))),
]
ID = "a token id must be an integer in 0..=4294967295"
BAD_LISTS = [
    (f"{ID} (row 1, position 1: -1)", [[1], [2, -1]]),
    (f"{ID} (row 0, position 0: 4294967296)", [[2**32]]),
    (f"{ID} (row 0, position 0: 1.5)", [[1.5]]),
    (f"{ID} (row 0, position 1: -7)", [np.array([1, -7])]),
    ("row 0 is a str, not token ids: use TextBatch, or encode it with a Tokenizer", ["ab"]),
    ("row 1 must be a sequence of token ids, not int", [[1], 2]),
]


@pytest.mark.parametrize(
    ("message", "call"), [*BAD, *((m, lambda rows=rows: vg.TokenBatch.from_lists(rows)) for m, rows in BAD_LISTS)]
)
def test_bad_input_is_named(message, call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message
    assert isinstance(error.value, ValueError)


@given(st.lists(st.binary(max_size=6), max_size=5))
def test_any_bytes_are_a_text_batch_or_an_error(rows):
    data, offsets = np.frombuffer(b"".join(rows), np.uint8), np.cumsum([0, *map(len, rows)])
    try:
        expected = [row.decode() for row in rows]
    except UnicodeDecodeError:
        with pytest.raises(InvalidInput, match="text must be UTF-8"):
            vg.TextBatch(data, offsets)
    else:
        assert vg.TextBatch(data, offsets).texts == expected


def test_an_unknown_simd_level_is_refused_at_import():
    env = {**os.environ, "VARIEGATE_SIMD": "sse9"}
    run = subprocess.run([sys.executable, "-c", "import variegate"], env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert "VARIEGATE_SIMD must be portable, avx2 or avx512, not 'sse9'" in run.stderr
