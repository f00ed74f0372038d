"""Ops on ragged documents of 50 to 500 tokens, one thread, through Python, against what a user would otherwise run.

Each case first checks rows spread over the batch against the numpy oracle of the golden vectors, token for token.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import variegate as vg
from _harness import Compare
from variegate import ops

SEED = 7
VOCABULARY = 32_000
CHECKED_ROWS = 25


def load_oracle() -> Any:
    """tests/vectors/generate_ops.py as a module."""
    path = Path(__file__).parents[1] / "tests" / "vectors" / "generate_ops.py"
    spec = importlib.util.spec_from_file_location("generate_ops", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(rows: int) -> vg.TokenBatch:
    """Ragged rows of 50 to 500 tokens, uniformly."""
    rng = np.random.default_rng(rows)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(50, 501, rows))])
    tokens = rng.integers(5, VOCABULARY, offsets[-1], np.uint32)
    return vg.TokenBatch.from_arrays(tokens, offsets, ids=rng.integers(0, 2**64, rows, np.uint64))


@pytest.fixture(scope="module")
def batch() -> vg.TokenBatch:
    return documents(4000)


def right(op: ops.Op, batch: vg.TokenBatch, out: vg.TokenBatch) -> bool:
    """Whether rows spread over the batch are what the oracle makes of them."""
    oracle = load_oracle()
    run = oracle.Run(SEED, 0, 0)
    for row in range(0, len(batch), max(1, len(batch) // CHECKED_ROWS)):
        tokens = batch[row].tokens.tolist()
        before: dict[str, Any] = {"tokens": tokens, "source": list(range(len(tokens))), "edited": [0] * len(tokens)}
        before |= {"labels": [-100] * len(tokens)}
        before |= {name: values.tolist() for name, values in batch[row].columns.items()}
        (expected,) = run.rows(op.to_spec(), [before | {"id": int(batch.ids[row]), "input": before}])
        place = slice(out.offsets[row], out.offsets[row + 1])
        found: dict[str, Any] = {"tokens": out.tokens[place]}
        if out.source is not None and out.edited is not None:
            found |= {"source": out.source[place], "edited": out.edited[place]}
        if "labels" in out.columns:
            found["labels"] = out.columns["labels"][place]
        if any(values.tolist() != expected[name] for name, values in found.items()):
            return False
        if out.targets is not None and out.targets[row].tokens.tolist() != expected["targets"]["tokens"]:
            return False
    return True


MASKED_LM = ops.MaskedLM(mlm_probability=0.15, mask_id=4, vocab_size=VOCABULARY)


def bench_masked_lm(compare: Compare):
    """The peer does the same work as users get it: dicts of lists in, padded arrays and labels out."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{i}": i for i in range(VOCABULARY)} | {"[PAD]": VOCABULARY, "[MASK]": VOCABULARY + 1}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", mask_token="[MASK]")
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, return_tensors="np")
    batch = documents(256)
    rows = [{"input_ids": row} for row in batch.to_lists()]
    compare(
        "masked_lm",
        lambda: MASKED_LM(batch, seed=SEED),
        lambda: collator(rows),
        check=lambda ours, theirs: (
            right(MASKED_LM, batch, ours)
            and bool(abs((ours.columns["labels"] != -100).sum() / (theirs["labels"] != -100).sum() - 1) < 0.05)
        ),
        units=len(batch.tokens),
        peer_name="DataCollatorForLanguageModeling",
        peer_package="transformers",
        goal_rate=90e6,
        goal_ratio=50,
        note="256 documents; ours takes and gives a batch, the peer takes dicts of lists and pads",
    )


def bench_masked_lm_in_numpy(compare: Compare, batch: vg.TokenBatch):
    """The peer is the masking of transformers' numpy collator, on the flat array: no padding, no dicts, no ids."""
    rng = np.random.default_rng(0)

    def peer() -> tuple[np.ndarray, np.ndarray]:
        tokens = batch.tokens.copy()
        chosen = rng.random(len(tokens)) < 0.15
        labels = np.where(chosen, tokens, -100).astype(np.int32)
        masked = (rng.random(len(tokens)) < 0.8) & chosen
        tokens[masked] = 4
        drawn = (rng.random(len(tokens)) < 0.5) & chosen & ~masked
        tokens[drawn] = rng.integers(0, VOCABULARY, int(drawn.sum()), np.uint32)
        return tokens, labels

    compare(
        "masked_lm against flat numpy",
        lambda: MASKED_LM(batch, seed=SEED),
        peer,
        check=lambda ours, theirs: (
            right(MASKED_LM, batch, ours)
            and bool(abs((ours.columns["labels"] != -100).mean() - (theirs[1] != -100).mean()) < 0.01)
        ),
        units=len(batch.tokens),
        peer_name="numpy, one flat array",
        peer_package="numpy",
        goal_rate=90e6,
    )


def bench_token_dropout(compare: Compare, batch: vg.TokenBatch):
    """The peer drops on the flat array, and makes neither a source map nor the same result twice."""
    op = ops.TokenDropout(rate=0.1)
    rng = np.random.default_rng(0)

    def peer() -> tuple[np.ndarray, np.ndarray]:
        kept = rng.random(len(batch.tokens)) >= 0.1
        counts = np.add.reduceat(kept, batch.offsets[:-1])
        return batch.tokens[kept], np.concatenate([[0], np.cumsum(counts)])

    compare(
        "token_dropout",
        lambda: op(batch, seed=SEED, return_source=True),
        peer,
        check=lambda ours, theirs: (
            right(op, batch, ours) and abs(len(ours.tokens) - len(theirs[0])) < 0.01 * len(batch.tokens)
        ),
        units=len(batch.tokens),
        peer_name="numpy, one flat array, no source map",
        peer_package="numpy",
        goal_rate=120e6,
        note="with source map",
    )


def bench_span_corruption(compare: Compare, batch: vg.TokenBatch):
    """The peer is the usual numpy code for one document at a time, as in the T5 examples of transformers."""
    op = ops.SpanCorruption(sentinel_id=VOCABULARY + 99, eos_id=1)
    rng = np.random.default_rng(0)
    part = batch[:400]

    def segments(items: int, parts: int) -> np.ndarray:
        first = np.arange(items - 1) < parts - 1
        rng.shuffle(first)
        return np.bincount(np.cumsum(np.concatenate([[False], first])), minlength=parts)

    def peer() -> list[tuple[np.ndarray, np.ndarray]]:
        out = []
        for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            tokens = part.tokens[a:b]
            noise = min(max(int(np.round(len(tokens) * 0.15)), 1), len(tokens) - 1)
            spans = max(int(np.round(noise / 3.0)), 1)
            parts = np.stack([segments(len(tokens) - noise, spans), segments(noise, spans)], 1).ravel()
            noisy = np.repeat(np.arange(2 * spans) % 2 == 1, parts)
            starts = np.concatenate([[True], noisy[1:] != noisy[:-1]])
            strands = []
            for mask in (noisy, ~noisy):
                sentinel = VOCABULARY + 99 - (np.cumsum(starts & mask) - 1)
                kept = np.where(mask, sentinel, tokens)[~mask | starts & mask]
                strands.append(np.append(kept, 1).astype(np.uint32))
            out.append((strands[0], strands[1]))
        return out

    def check(ours: vg.TokenBatch, theirs: list[tuple[np.ndarray, np.ndarray]]) -> bool:
        assert ours.targets is not None
        lengths = list(zip(ours.lengths.tolist(), ours.targets.lengths.tolist(), strict=True))
        return right(op, part, ours) and lengths == [(len(inputs), len(targets)) for inputs, targets in theirs]

    compare(
        "span_corruption",
        lambda: op(part, seed=SEED),
        peer,
        check=check,
        units=len(part.tokens),
        peer_name="numpy, a document at a time",
        peer_package="numpy",
        goal_rate=250e6,
        note="400 documents, inputs and targets",
    )


def bench_whole_word_mask(compare: Compare):
    """The peer finds words by offsets and needs rows of one length; ours takes ragged rows and a word map."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{i}": i for i in range(VOCABULARY)} | {"[PAD]": VOCABULARY, "[MASK]": VOCABULARY + 1}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", mask_token="[MASK]")
    collator = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.15, whole_word_mask=True, return_tensors="np"
    )
    rows, length = 64, 256
    rng = np.random.default_rng(5)
    starts = rng.random((rows, length)) < 0.7
    starts[:, 0] = True
    ids = np.cumsum(starts, axis=1, dtype=np.int32) - 1
    tokens = rng.integers(5, VOCABULARY, rows * length, np.uint32)
    batch = vg.TokenBatch.from_arrays(
        tokens,
        np.arange(rows + 1) * length,
        ids=rng.integers(0, 2**64, rows, np.uint64),
        columns={"word_ids": ids.ravel()},
    )
    # A token is three characters long; a gap of one character starts a word.
    begin = 3 * np.arange(length) + ids
    theirs = [
        {
            "input_ids": row,
            "special_tokens_mask": [0] * length,
            "offset_mapping": list(zip(a.tolist(), (a + 3).tolist(), strict=True)),
        }
        for row, a in zip(batch.to_lists(), begin, strict=True)
    ]
    op = ops.WholeWordMask(mask_id=4, vocab_size=VOCABULARY)
    compare(
        "whole_word_mask",
        lambda: op(batch, seed=SEED),
        lambda: collator([dict(row) for row in theirs]),
        check=lambda ours, peer: (
            right(op, batch, ours)
            and bool(abs((ours.columns["labels"] != -100).sum() / (peer["labels"] != -100).sum() - 1) < 0.15)
        ),
        units=len(batch.tokens),
        peer_name="DataCollatorForLanguageModeling(whole_word_mask)",
        peer_package="transformers",
        goal_rate=40e6,
        note="64 rows of 256 tokens; ours takes and gives a batch, the peer takes dicts of lists",
    )


def bench_fill_in_middle(compare: Compare, batch: vg.TokenBatch):
    """The peer is the usual numpy code for one document at a time, on tokens: no decoding, no columns."""
    op = ops.FillInMiddle(fim_rate=0.9, prefix_id=1, middle_id=2, suffix_id=3)
    rng = np.random.default_rng(0)
    part = batch[:400]
    sentinels = [np.array([k], np.uint32) for k in (1, 2, 3)]

    def peer() -> list[np.ndarray]:
        out = []
        for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            tokens = part.tokens[a:b]
            if rng.random() < 0.9:
                start, end = sorted(rng.integers(0, len(tokens) + 1, 2))
                prefix, middle, suffix = tokens[:start], tokens[start:end], tokens[end:]
                pre, mid, suf = sentinels
                if rng.random() < 0.5:
                    tokens = np.concatenate([pre, suf, suffix, mid, prefix, middle])
                else:
                    tokens = np.concatenate([pre, prefix, suf, suffix, mid, middle])
            out.append(tokens)
        return out

    compare(
        "fill_in_middle",
        lambda: op(part, seed=SEED),
        peer,
        check=lambda ours, theirs: (
            right(op, part, ours) and abs(len(ours.tokens) - sum(map(len, theirs))) < 0.01 * len(part.tokens)
        ),
        units=len(part.tokens),
        peer_name="numpy, a document at a time",
        peer_package="numpy",
        goal_rate=500e6,
        note="400 documents, fim_rate 0.9",
    )


def bench_fill_in_middle_with_loss_mask(compare: Compare, batch: vg.TokenBatch):
    """A loss mask moves with the tokens."""
    op = ops.FillInMiddle(fim_rate=0.9, prefix_id=1, middle_id=2, suffix_id=3)
    part = batch[:400]
    part = part.replace(columns={"loss_mask": (part.tokens % 3 > 0).astype(np.uint8)})

    def check(ours: vg.TokenBatch, _: None) -> bool:
        exact = np.where(ours.tokens < 4, 0, ours.tokens % 3 > 0)
        return right(op, part, ours) and bool((ours.columns["loss_mask"] == exact).all())

    compare(
        "fill_in_middle with loss_mask",
        lambda: op(part, seed=SEED),
        check=check,
        units=len(part.tokens),
        note="400 documents, fim_rate 0.9, a uint8 column besides",
    )


def bench_text_infilling(compare: Compare, batch: vg.TokenBatch):
    """The peer draws Poisson lengths and scatters them, a document at a time."""
    op = ops.TextInfilling(mask_id=4)
    rng = np.random.default_rng(0)
    part = batch[:400]

    def peer() -> list[np.ndarray]:
        out = []
        for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            tokens = part.tokens[a:b]
            noise = int(np.ceil(len(tokens) * 0.3))
            lengths = rng.poisson(3.0, noise)
            while lengths.sum() < noise:
                lengths = np.append(lengths, rng.poisson(3.0, noise))
            lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), noise)) + 1]
            lengths[-1] -= lengths.sum() - noise
            rest = len(tokens) - noise
            slots = np.sort(rng.choice(rest + len(lengths), len(lengths), replace=False))
            starts = slots - np.arange(len(lengths)) + np.cumsum(lengths) - lengths
            kept = np.ones(len(tokens), bool)
            kept[np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(noise)] = False
            places = np.cumsum(np.concatenate([[0], kept]))[starts]
            out.append(np.insert(tokens[kept], places, 4))
        return out

    compare(
        "text_infilling",
        lambda: op(part, seed=SEED),
        peer,
        check=lambda ours, theirs: (
            right(op, part, ours)
            and abs(len(ours.tokens) / sum(map(len, theirs)) - 1) < 0.01
            and ours.targets is not None
            and bool((ours.targets.tokens == part.tokens).all())
        ),
        units=len(part.tokens),
        peer_name="numpy, a document at a time",
        peer_package="numpy",
        note="400 documents, inputs and targets; the peer makes inputs only",
    )


def bench_ngram_mask(compare: Compare, batch: vg.TokenBatch):
    op = ops.NgramMask(mask_id=4, vocab_size=VOCABULARY)
    compare(
        "ngram_mask",
        lambda: op(batch, seed=SEED),
        check=lambda ours, _: right(op, batch, ours),
        units=len(batch.tokens),
    )


def bench_ul2(compare: Compare, batch: vg.TokenBatch):
    op = ops.UL2(sentinel_id=VOCABULARY + 99, r_id=1, s_id=2, x_id=3)
    compare(
        "ul2",
        lambda: op(batch, seed=SEED),
        check=lambda ours, _: right(op, batch, ours),
        units=len(batch.tokens),
        note="inputs and targets",
    )


def bench_local_shuffle(compare: Compare, batch: vg.TokenBatch):
    """The peer is the published code: sort i + U(0, k + 1), a document at a time."""
    op = ops.LocalShuffle(k=3)
    rng = np.random.default_rng(0)
    part = batch[:400]

    def peer() -> list[np.ndarray]:
        rows = (part.tokens[a:b] for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True))
        return [row[(np.arange(len(row)) + rng.random(len(row)) * 4).argsort()] for row in rows]

    compare(
        "local_shuffle",
        lambda: op(part, seed=SEED, return_source=True),
        peer,
        check=lambda ours, theirs: (
            right(op, part, ours) and sorted(np.concatenate(theirs).tolist()) == sorted(part.tokens.tolist())
        ),
        units=len(part.tokens),
        peer_name="numpy, a document at a time, no source map",
        peer_package="numpy",
        note="400 documents, with source map",
    )


def bench_token_insert(compare: Compare, batch: vg.TokenBatch):
    """The peer inserts into the flat array; its rows have no bounds afterwards."""
    op = ops.TokenInsert(rate=0.1, vocab_size=VOCABULARY)
    rng = np.random.default_rng(0)

    def peer() -> np.ndarray:
        places = np.flatnonzero(rng.random(len(batch.tokens)) < 0.1)
        return np.insert(batch.tokens, places, rng.integers(0, VOCABULARY, len(places), np.uint32))

    compare(
        "token_insert",
        lambda: op(batch, seed=SEED, return_source=True),
        peer,
        check=lambda ours, theirs: right(op, batch, ours) and abs(len(ours.tokens) / len(theirs) - 1) < 0.01,
        units=len(batch.tokens),
        peer_name="numpy, one flat array, no source map",
        peer_package="numpy",
        note="with source map",
    )


def bench_kneser_ney(compare: Compare, batch: vg.TokenBatch):
    """The peer sorts the bigrams, which here do not cross rows either."""

    def peer() -> tuple[np.ndarray, np.ndarray]:
        tokens = batch.tokens.astype(np.int64)
        within = np.ones(len(tokens) - 1, bool)
        within[batch.offsets[1:-1] - 1] = False
        pairs = np.unique((tokens[:-1] << 32 | tokens[1:])[within])
        left = np.bincount(pairs & 0xFFFFFFFF, minlength=VOCABULARY)
        right_ = np.bincount(pairs >> 32, minlength=VOCABULARY)
        return left, right_ / np.maximum(np.bincount(tokens, minlength=VOCABULARY), 1)

    compare(
        "kneser_ney",
        lambda: ops.kneser_ney(batch, vocab_size=VOCABULARY),
        peer,
        check=lambda ours, theirs: all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)),
        units=len(batch.tokens),
        peer_name="numpy, unique of bigrams",
        peer_package="numpy",
    )


@pytest.mark.parametrize(
    "op",
    [
        MASKED_LM,
        ops.TokenDropout(rate=0.1),
        ops.SpanCorruption(sentinel_id=VOCABULARY + 99),
        ops.TextInfilling(mask_id=4),
    ],
    ids=lambda op: type(op).__name__,
)
def bench_two_threads(compare: Compare, op: ops.Op):
    """The peer is one thread; results are equal."""
    big = documents(8000)

    def run(threads: int) -> vg.TokenBatch:
        vg.set_num_threads(threads)
        out = op(big, seed=SEED)
        vg.set_num_threads(0)
        return out

    compare(
        f"{type(op).__name__} on two threads",
        lambda: run(2),
        lambda: run(1),
        check=lambda ours, theirs: ours.equals(theirs),
        units=len(big.tokens),
        peer_name="one thread",
        goal_ratio=1.8,
        note="8000 documents",
    )


def bench_fixed_cost(compare: Compare):
    """What a call costs before it does any work: 32 rows of one token."""
    op = ops.TokenDropout(rate=0.1)
    tiny = vg.TokenBatch.from_lists([[5 + row] for row in range(32)], ids=range(32))
    compare(
        "one call on 32 rows",
        lambda: op(tiny, seed=SEED, return_source=True),
        check=lambda ours, _: right(op, tiny, ours),
        units=1,
        unit="calls",
        goal_seconds=15e-6,
        note="token_dropout with source map, rows of one token",
    )


def bench_small_batch(compare: Compare):
    """A whole call on 32 documents, the size that a data loader passes."""
    small = documents(32)
    compare(
        "masked_lm on 32 documents",
        lambda: MASKED_LM(small, seed=SEED),
        check=lambda ours, _: right(MASKED_LM, small, ours),
        units=len(small.tokens),
        goal_seconds=30e-6,
    )
