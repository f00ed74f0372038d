"""Batches for property tests: empty ones, empty rows, rows of one token, the largest ids, everything that travels."""

from __future__ import annotations

import functools
import json

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import variegate as vg

ID = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**32 - 1, 2**32, 2**64 - 1]))


def examples(count: int) -> settings:
    """So many examples, unless a profile that was asked for says how many."""
    return settings(max_examples=count) if settings.get_current_profile_name() == "variegate" else settings()


def tokens(limit: int = 2**32) -> st.SearchStrategy[int]:
    """Token ids below `limit`, often small (so that they repeat) or the largest."""
    return st.one_of(st.integers(0, 9), st.integers(0, limit - 1), st.just(limit - 1))


@st.composite
def token_batches(draw: st.DrawFn, limit: int = 2**31, dressed: bool = True) -> vg.TokenBatch:
    """A batch with distinct ids and, if `dressed`, columns of every width, rows and spans."""
    lists = draw(st.lists(st.lists(tokens(limit), max_size=12), max_size=6))
    ids = draw(st.lists(ID, min_size=len(lists), max_size=len(lists), unique=True))
    plain = vg.TokenBatch.from_lists(lists, ids=np.array(ids, np.uint64))
    if not dressed:
        return plain
    n = len(plain.tokens)
    spans = []
    for row, length in enumerate(map(len, lists)):
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, length))
            spans.append((row, start, draw(st.integers(start, length)), draw(st.sampled_from(["a", "b"]))))
    columns = {
        "labels": np.arange(n, dtype=np.int32),
        "loss_mask": (np.arange(n) % 3 > 0).astype(np.uint8),
        "special": np.arange(n) % 5 == 0,
        "half": np.arange(n).astype(np.float16),
        "weight": np.arange(n, dtype=np.float32) / 7,
        "position": np.arange(n, dtype=np.int64) + 1,
        "word_ids": (np.arange(n, dtype=np.int32) * 2 // 3) - 1,
    }
    return vg.TokenBatch.from_arrays(
        plain.tokens,
        plain.offsets,
        ids=plain.ids,
        columns=columns,
        rows={"score": np.arange(len(lists), dtype=np.float32), "word": np.array([f"w{i}" for i in range(len(lists))])},
        spans=spans,
    )


class Spelled:
    """A `tokenizer.json` as an object that `variegate.Tokenizer` takes."""

    def __init__(self, content: object) -> None:
        self.content = content

    def to_str(self) -> str:
        return json.dumps(self.content)


@functools.cache
def unigram() -> vg.Tokenizer:
    """A small Unigram tokenizer."""
    marks = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    pieces = [
        "<unk>",
        *"▁abcdefghijklmnopqrstuvwxyz",
        "▁a",
        "ab",
        "▁the",
        "th",
        "he",
        "in",
        "ing",
        "é",
        "語",
        "e\u0301",
    ]
    return vg.Tokenizer(
        Spelled(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": marks,
                "decoder": marks,
                "model": {"type": "Unigram", "unk_id": 0, "vocab": [[p, -3 - i / 9] for i, p in enumerate(pieces)]},
            }
        )
    )


def with_tokenizer(batch: vg.TokenBatch, tokenizer: vg.Tokenizer) -> vg.TokenBatch:
    """The batch with its ids folded into the vocabulary of a tokenizer, which is with it."""
    tokens = batch.tokens % np.uint32(tokenizer.vocab_size)
    columns = {"columns": batch.columns, "rows": batch.rows, "spans": batch.spans}
    return vg.TokenBatch(tokens, batch.offsets, ids=batch.ids, tokenizer=tokenizer, **columns)


@st.composite
def text_batches(draw: st.DrawFn) -> vg.TextBatch:
    """Texts with distinct ids, rows and spans; letters with marks, other scripts, emoji, flags; words that ops know."""
    signs = [
        *"abcXYZ .,7",
        "é",
        "e\u0301",
        "n\u0303",
        "ß",
        "語",
        "👩‍👩‍👧",
        "\u0600",
        "🇩",
        "🇪",
        "ж",
        "שָׁ",
        "ع",
        "क्ष",
        "\r",
        "\n",
    ]
    words = ["not ", "good", " car", "Cars", "don't ", "I am ", "do not", " because ", "rn", "cl"]
    letters = st.sampled_from(signs + words)
    pieces = draw(st.lists(st.lists(letters, max_size=12), max_size=6))
    texts = ["".join(piece) for piece in pieces]
    ids = draw(st.lists(ID, min_size=len(texts), max_size=len(texts), unique=True))
    spans = []
    for row, piece in enumerate(pieces):
        cuts = [len("".join(piece[:k]).encode()) for k in range(len(piece) + 1)]
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(cuts) - 1))
            spans.append((row, cuts[start], cuts[draw(st.integers(start, len(cuts) - 1))], draw(st.sampled_from("ab"))))
    return vg.TextBatch.from_texts(
        texts, ids=np.array(ids, np.uint64), rows={"score": np.arange(len(texts), dtype=np.float32)}, spans=spans
    )
