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
        before = {"id": int(batch.ids[row]), "tokens": tokens, "source": list(range(len(tokens)))}
        (expected,) = run.rows(op.to_spec(), [before | {"edited": [0] * len(tokens), "labels": [-100] * len(tokens)}])
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
        goal_rate=80e6,
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
        goal_rate=80e6,
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
        goal_rate=100e6,
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
        goal_rate=150e6,
        note="400 documents, inputs and targets",
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
        goal_seconds=30e-6,
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
