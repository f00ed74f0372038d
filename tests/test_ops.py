"""Ops: what every op owes (shape, determinism, split-invariance, identity, alignment), and what each one promises."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import Spelled, examples, text_batches, token_batches, unigram, with_tokenizer
from variegate import ops
from variegate.errors import InvalidInput

PROTECT = ops.Protect(ids=(3,), columns=("special",), spans=("a",))
TEXT_PROTECT = ops.Protect(spans=("a",))
MLM: dict[str, Any] = {"mask_id": 4, "vocab_size": 100}
T5: dict[str, Any] = {"sentinel_id": 99}
FIM: dict[str, Any] = {"prefix_id": 101, "middle_id": 102, "suffix_id": 103}
LEXICON = ops.Lexicon([("good", "a", "fine", "e\u0301"), ("car", "n", "bus"), ("a", "", "the", "not", "\u0301x")])
RULES = {"good {x:word}": "{x} good | e\u0301 {x} :: 2", "cars": "\u0301x", "{x} car": "a {x}", "a": "the", "é": "e"}
SOME = ops.TokenDropout(rate=0.4)

EXAMPLES: dict[str, list[ops.Op]] = {
    "BpeDropout": [
        ops.BpeDropout(rate=0.3),
        ops.BpeDropout(rate=0.8, protect=PROTECT),
        ops.BpeDropout(rate=1.0, spans="drop", name="bpe"),
        ops.BpeDropout(rate=0.5, spans="forbid"),
    ],
    "CaseNoise": [ops.CaseNoise(rate=0.5), ops.CaseNoise(rate=1.0, spans="drop", protect=TEXT_PROTECT)],
    "CharDelete": [ops.CharDelete(rate=0.5), ops.CharDelete(rate=1.0, spans="drop", protect=TEXT_PROTECT)],
    "CharInsert": [
        ops.CharInsert(rate=0.5),
        ops.CharInsert(rate=1.0, alphabet="x\u0301", spans="forbid", protect=TEXT_PROTECT),
    ],
    "CharSubstitute": [
        ops.CharSubstitute(rate=0.5),
        ops.CharSubstitute(rate=1.0, alphabet="xyz", spans="drop", protect=TEXT_PROTECT),
    ],
    "CharTranspose": [ops.CharTranspose(rate=0.5), ops.CharTranspose(rate=1.0, spans="forbid", protect=TEXT_PROTECT)],
    "Compose": [
        vg.Compose([SOME, ops.MaskedLM(mlm_probability=0.5, **MLM), ops.TokenSwap(rate=0.5)], protect=PROTECT),
        vg.Compose([ops.MaskedLM(mlm_probability=0.5, **MLM), SOME, SOME, ops.SpanCorruption(**T5), SOME]),
        vg.Compose([ops.KeyboardTypo(rate=0.5), ops.KeyboardTypo(rate=0.5, layout="dvorak")]),
        vg.Compose([SOME, ops.KeyboardTypo(rate=0.5), ops.BpeDropout(rate=0.5), ops.TokenSwap(rate=0.5)]),
        vg.Compose([ops.KeyboardTypo(rate=0.9), vg.Repeat(ops.BpeDropout(rate=0.5), n=2)], protect=PROTECT),
    ],
    "Contraction": [
        ops.Contraction(rate=0.5),
        ops.Contraction(rate=1.0, mode="contract", spans="drop", protect=TEXT_PROTECT),
        ops.Contraction(rate=1.0, mode="expand", spans="forbid"),
    ],
    "Diacritics": [
        ops.Diacritics(rate=0.5),
        ops.Diacritics(rate=1.0, mode="add", spans="drop", protect=TEXT_PROTECT),
    ],
    "EntitySwap": [
        ops.EntitySwap(rate=0.5, tag="b", entities=("Ada", "Grace Hopper")),
        ops.EntitySwap(rate=1.0, tag="b", entities=("é",), spans="drop", protect=TEXT_PROTECT, max_edits=0.3),
    ],
    "FillInMiddle": [
        ops.FillInMiddle(fim_rate=0.8, **FIM),
        ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, inserted="inherit", **FIM),
        ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=1.0, protect=PROTECT, **FIM),
        ops.FillInMiddle(fim_rate=1.0, spans="drop", **FIM),
        ops.FillInMiddle(fim_rate=1.0, spans="forbid", **FIM),
        ops.FillInMiddle(fim_rate=0.9, level="character", **FIM),
        ops.FillInMiddle(fim_rate=1.0, level="character", spans="drop", protect=PROTECT, **FIM),
        ops.FillInMiddle(fim_rate=1.0, level="character", inserted="inherit", spans="forbid", **FIM),
    ],
    "Homoglyph": [ops.Homoglyph(rate=0.5), ops.Homoglyph(rate=1.0, spans="drop", protect=TEXT_PROTECT)],
    "KeyboardTypo": [
        ops.KeyboardTypo(rate=0.5),
        ops.KeyboardTypo(rate=0.9, layout="jcuken", protect=ops.Protect(words=ops.NEGATIONS)),
        ops.KeyboardTypo(rate=0.9, layout="azerty", spans="drop", protect=TEXT_PROTECT),
        ops.KeyboardTypo(rate=1.0, layout="qwertz", spans="forbid"),
    ],
    "LocalShuffle": [
        ops.LocalShuffle(k=3),
        ops.LocalShuffle(k=2, protect=PROTECT),
        ops.LocalShuffle(k=100, spans="drop"),
        ops.LocalShuffle(k=2**30, spans="forbid"),
    ],
    "MaskedLM": [
        ops.MaskedLM(**MLM),
        ops.MaskedLM(mlm_probability=0.9, mask_replace_prob=0.2, random_replace_prob=0.7, protect=PROTECT, **MLM),
        ops.MaskedLM(mlm_probability=0.5, spans="drop", name="mlm", **MLM),
        ops.MaskedLM(mlm_probability=1.0, spans="forbid", **MLM),
    ],
    "Misspelling": [
        ops.Misspelling(rate=0.5),
        ops.Misspelling(rate=1.0, table=LEXICON, negations=("a",), spans="drop", protect=TEXT_PROTECT, max_edits=0.5),
    ],
    "NgramMask": [
        ops.NgramMask(**MLM),
        ops.NgramMask(mlm_probability=0.9, ngram_weights=[0, 1, 1], protect=PROTECT, **MLM),
        ops.NgramMask(mlm_probability=0.5, random_replace_prob=0.2, spans="drop", **MLM),
        ops.NgramMask(mlm_probability=1.0, spans="forbid", **MLM),
    ],
    "OcrNoise": [ops.OcrNoise(rate=0.5), ops.OcrNoise(rate=1.0, spans="forbid", protect=TEXT_PROTECT)],
    "OneOf": [
        vg.OneOf([SOME, ops.TokenSwap(rate=0.9), ops.MaskedLM(mlm_probability=0.9, **MLM)], weights=[1, 2, 1]),
        vg.OneOf([vg.Repeat(SOME, n=2), ops.SpanCorruption(eos_id=1, **T5)]),
        vg.OneOf([ops.KeyboardTypo(rate=0.9), vg.Repeat(ops.KeyboardTypo(rate=0.9), n=2)]),
    ],
    "PrefixLM": [
        ops.PrefixLM(),
        ops.PrefixLM(form="labels"),
        ops.PrefixLM(min_prefix=0.2, max_prefix=0.8, protect=PROTECT),
        ops.PrefixLM(max_prefix=0.1, form="labels", protect=PROTECT),
        ops.PrefixLM(max_prefix=0.0, spans="drop"),
        ops.PrefixLM(spans="forbid"),
    ],
    "PunctuationInsert": [
        ops.PunctuationInsert(rate=0.5),
        ops.PunctuationInsert(rate=1.0, marks="¡", spans="drop", protect=TEXT_PROTECT, max_edits=0.5),
    ],
    "Repeat": [
        vg.Repeat(SOME, n=3),
        vg.Compose([SOME, vg.Repeat(vg.Repeat(ops.TokenSwap(rate=0.5), n=2), n=2), ops.MaskedLM(**MLM)]),
        vg.Compose([ops.KeyboardTypo(rate=0.5), vg.Repeat(ops.KeyboardTypo(rate=0.5), n=2)]),
    ],
    "Rewriter": [
        ops.Rewriter(),
        ops.Rewriter(RULES, rate=1.0, spans="drop", protect=TEXT_PROTECT),
        ops.Rewriter(RULES, rate=0.7, negations=(), spans="forbid"),
    ],
    "SentencePermute": [
        ops.SentencePermute(end_ids=[1, 2, 5]),
        ops.SentencePermute(end_column="special", permute_sentence_ratio=0.5),
        ops.SentencePermute(end_ids=[0, 1, 2], protect=PROTECT),
        ops.SentencePermute(end_column="loss_mask", spans="drop"),
        ops.SentencePermute(sentence_tag="a", protect=ops.Protect(spans=("b",))),
        ops.SentencePermute(end_ids=[1, 2, 4, 6, 7], spans="forbid"),
    ],
    "SomeOf": [
        vg.SomeOf([SOME, ops.TokenSwap(rate=0.9), ops.MaskedLM(mlm_probability=0.9, **MLM)], k=2),
        vg.SomeOf([vg.Repeat(SOME, n=2), ops.TextInfilling(mask_id=4), SOME], k=0, at_most=3),
        vg.SomeOf([ops.KeyboardTypo(rate=0.9), vg.Repeat(ops.KeyboardTypo(rate=0.9), n=2)], k=1, at_most=2),
    ],
    "Sometimes": [
        vg.Sometimes(vg.Compose([SOME, ops.MaskedLM(**MLM)]), p=0.5),
        vg.Sometimes(ops.SpanCorruption(**T5), p=0.5),
        vg.Sometimes(ops.KeyboardTypo(rate=0.9), p=0.5),
    ],
    "SpanCorruption": [
        ops.SpanCorruption(noise_density=0.4, **T5),
        ops.SpanCorruption(noise_density=0.5, mean_noise_span_length=1.0, eos_id=1, inserted="inherit", **T5),
        ops.SpanCorruption(noise_density=0.6, num_sentinels=2, sentinel_step=1, protect=PROTECT, **T5),
        ops.SpanCorruption(noise_density=1.0, spans="drop", **T5),
        ops.SpanCorruption(noise_density=0.5, spans="forbid", **T5),
    ],
    "Synonym": [
        ops.Synonym(rate=0.5),
        ops.Synonym(rate=1.0, lexicon=LEXICON, pos=("n",), spans="drop", protect=TEXT_PROTECT, max_edits=0.5),
        ops.Synonym(rate=1.0, lexicon=LEXICON, negations=(), spans="forbid"),
    ],
    "TextInfilling": [
        ops.TextInfilling(mask_id=4),
        ops.TextInfilling(mask_ratio=0.8, poisson_lambda=0.5, inserted="inherit", mask_id=4),
        ops.TextInfilling(mask_ratio=1.0, mask_id=4, protect=PROTECT),
        ops.TextInfilling(mask_ratio=0.5, mask_id=4, spans="drop"),
        ops.TextInfilling(mask_ratio=0.5, poisson_lambda=0.5, mask_id=4, spans="forbid"),
    ],
    "TokenDropout": [
        SOME,
        ops.TokenDropout(rate=1.0),
        ops.TokenDropout(rate=0.7, protect=PROTECT),
        ops.TokenDropout(rate=0.5, spans="drop"),
        ops.TokenDropout(rate=0.9, spans="forbid"),
    ],
    "TokenInsert": [
        ops.TokenInsert(rate=0.5, vocab_size=100),
        ops.TokenInsert(rate=0.5, weights=(1, 0, 3), side="after", inserted="inherit", protect=PROTECT),
        ops.TokenInsert(rate=1.0, vocab_size=2**32 - 1, spans="drop"),
        ops.TokenInsert(rate=1.0, vocab_size=1, side="after", spans="forbid"),
    ],
    "TokenMask": [
        ops.TokenMask(rate=0.5, mask_id=4),
        ops.TokenMask(rate=1.0, mask_id=4, protect=PROTECT),
        ops.TokenMask(rate=0.5, mask_id=4, spans="drop"),
        ops.TokenMask(rate=1.0, mask_id=4, spans="forbid"),
    ],
    "TokenReplace": [
        ops.TokenReplace(rate=0.5, vocab_size=100),
        ops.TokenReplace(rate=0.5, weights=(1, 0, 3), protect=PROTECT),
        ops.TokenReplace(rate=1.0, vocab_size=2**32 - 1, spans="drop"),
        ops.TokenReplace(rate=1.0, vocab_size=1, spans="forbid"),
        ops.TokenReplace(rate=0.9, vocab_size=100, rates=[0, 0.25, 1, 0.5]),
    ],
    "TokenSwap": [
        ops.TokenSwap(rate=0.5),
        ops.TokenSwap(rate=1.0, protect=PROTECT),
        ops.TokenSwap(rate=0.5, spans="drop"),
        ops.TokenSwap(rate=1.0, spans="forbid"),
    ],
    "UL2": [
        ops.UL2(eos_id=1, **T5),
        ops.UL2(weights=[1, 1, 1], r_id=101, s_id=102, x_id=103, protect=PROTECT, **T5),
        ops.UL2(r_id=101, inserted="inherit", spans="drop", **T5),
        ops.UL2(num_sentinels=2, sentinel_step=1, spans="forbid", **T5),
    ],
    "UnigramSample": [
        ops.UnigramSample(alpha=0.3),
        ops.UnigramSample(alpha=0.0, rate=0.5, protect=PROTECT),
        ops.UnigramSample(alpha=1.0, spans="drop"),
        ops.UnigramSample(alpha=0.1, spans="forbid"),
    ],
    "WhitespaceNoise": [
        ops.WhitespaceNoise(rate=0.5, split_rate=0.2),
        ops.WhitespaceNoise(rate=1.0, split_rate=1.0, spans="drop", protect=TEXT_PROTECT),
    ],
    "WholeWordMask": [
        ops.WholeWordMask(**MLM),
        ops.WholeWordMask(mlm_probability=0.9, random_replace_prob=0.2, protect=PROTECT, **MLM),
        ops.WholeWordMask(mlm_probability=0.5, spans="drop", **MLM),
        ops.WholeWordMask(mlm_probability=1.0, spans="forbid", **MLM),
    ],
    "WordDelete": [
        ops.WordDelete(rate=0.5),
        ops.WordDelete(rate=1.0, negations=(), spans="drop", protect=TEXT_PROTECT, max_edits=0.5),
    ],
    "WordInsert": [
        ops.WordInsert(rate=0.5),
        ops.WordInsert(rate=1.0, lexicon=LEXICON, spans="forbid", protect=TEXT_PROTECT, max_edits=0.5),
    ],
    "WordSwap": [
        ops.WordSwap(rate=0.5),
        ops.WordSwap(rate=1.0, negations=(), spans="drop", protect=TEXT_PROTECT, max_edits=0.5),
    ],
}
IDLE: dict[str, ops.Op] = {
    "BpeDropout": ops.BpeDropout(rate=0.0),
    "Compose": vg.Compose([ops.TokenDropout(rate=0.0), ops.TokenSwap(rate=0.0)]),
    "FillInMiddle": ops.FillInMiddle(fim_rate=0.0, **FIM),
    "CaseNoise": ops.CaseNoise(rate=0.0),
    "CharDelete": ops.CharDelete(rate=0.0),
    "CharInsert": ops.CharInsert(rate=0.0),
    "CharSubstitute": ops.CharSubstitute(rate=0.0),
    "CharTranspose": ops.CharTranspose(rate=0.0),
    "Contraction": ops.Contraction(rate=0.0),
    "Diacritics": ops.Diacritics(rate=0.0),
    "EntitySwap": ops.EntitySwap(rate=0.0, tag="a", entities=("Ada",)),
    "Homoglyph": ops.Homoglyph(rate=0.0),
    "KeyboardTypo": ops.KeyboardTypo(rate=0.0),
    "LocalShuffle": ops.LocalShuffle(k=0),
    "MaskedLM": ops.MaskedLM(mlm_probability=0.0, **MLM),
    "NgramMask": ops.NgramMask(mlm_probability=0.0, **MLM),
    "OneOf": vg.OneOf([ops.TokenDropout(rate=0.0), ops.TokenReplace(rate=0.0, vocab_size=9)]),
    "PrefixLM": ops.PrefixLM(min_prefix=1.0),
    "Misspelling": ops.Misspelling(rate=0.0),
    "OcrNoise": ops.OcrNoise(rate=0.0),
    "PunctuationInsert": ops.PunctuationInsert(rate=0.0),
    "Repeat": vg.Repeat(ops.TokenDropout(rate=0.0), n=1),
    "Rewriter": ops.Rewriter(RULES, rate=0.0),
    "SentencePermute": ops.SentencePermute(permute_sentence_ratio=0.0, end_ids=[1]),
    "SomeOf": vg.SomeOf([ops.TokenDropout(rate=1.0), ops.TokenSwap(rate=1.0)], k=0),
    "Sometimes": vg.Sometimes(ops.TokenDropout(rate=1.0), p=0.0),
    "SpanCorruption": ops.SpanCorruption(noise_density=0.0, **T5),
    "TextInfilling": ops.TextInfilling(mask_ratio=0.0, mask_id=4),
    "Synonym": ops.Synonym(rate=0.0),
    "TokenDropout": ops.TokenDropout(rate=0.0),
    "TokenInsert": ops.TokenInsert(rate=0.0, vocab_size=9),
    "TokenMask": ops.TokenMask(rate=0.0, mask_id=4),
    "TokenReplace": ops.TokenReplace(rate=0.0, vocab_size=9),
    "TokenSwap": ops.TokenSwap(rate=0.0),
    "UL2": vg.Sometimes(ops.UL2(**T5), p=0.0),
    "WholeWordMask": ops.WholeWordMask(mlm_probability=0.0, **MLM),
    "WhitespaceNoise": ops.WhitespaceNoise(rate=0.0),
    "WordDelete": ops.WordDelete(rate=0.0),
    "WordInsert": ops.WordInsert(rate=0.0),
    "WordSwap": ops.WordSwap(rate=0.0),
    "UnigramSample": ops.UnigramSample(alpha=0.1, rate=0.0),
}
KINDS = sorted(
    name
    for name in ops.__all__
    if isinstance(getattr(ops, name), type) and issubclass(getattr(ops, name), ops.Op) and name != "Op"
)
ALL = [pytest.param(op, id=f"{kind}-{k}") for kind in KINDS for k, op in enumerate(EXAMPLES[kind])]
TEXT = [param for param in ALL if param.values[0].domain == "text"]
TOKEN = [param for param in ALL if param.values[0].domain == "token"]
SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 2**32 - 1)
many = examples(300)
TOKEN_KINDS = sorted({type(param.values[0]).__name__ for param in TOKEN})


def any_of(kind: str, data: st.DataObject, domain: str | None = None) -> ops.Op:
    """One of the examples of a kind, of a domain where one is named."""
    return data.draw(st.sampled_from([op for op in EXAMPLES[kind] if domain in (None, op.domain)]))


def batch_for(op: ops.Op, data: st.DataObject) -> Any:
    return data.draw(text_batches()) if op.domain == "text" else fitted(op, data.draw(token_batches()))


def fitted(op: ops.Op, batch: vg.TokenBatch) -> vg.TokenBatch:
    """The batch with the tokenizer that the op needs, if it needs one."""
    spec = op.to_json()
    if "UnigramSample" in spec:
        return with_tokenizer(batch, unigram())
    texts = any(type(param.values[0]).__name__ in spec for param in TEXT)
    needed = texts or "BpeDropout" in spec or '"character"' in spec
    return with_tokenizer(batch, vg.Tokenizer.default()) if needed else batch


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, source map and all."""
    if isinstance(a, vg.TextBatch):
        edits = [None if x.edits is None else [part.tolist() for part in x.edits] for x in (a, b)]
        return a.equals(b) and edits[0] == edits[1]
    targets = (a.targets is None) == (b.targets is None) and (a.targets is None or same(a.targets, b.targets))
    maps = [(None if x.source is None else (x.source.tolist(), x.edited.tolist())) for x in (a, b)]
    return a.equals(b) and maps[0] == maps[1] and targets


def test_every_op_is_here():
    assert sorted(EXAMPLES) == sorted(IDLE) == KINDS


@pytest.mark.parametrize("kind", KINDS)
@many
@given(st.data(), SEEDS, EPOCHS, SEEDS)
def test_valid_and_the_same_again(kind, data, seed, epoch, variant):
    op = any_of(kind, data)
    batch = batch_for(op, data)
    before = copy.deepcopy(batch)
    out = op(batch, seed=seed, epoch=epoch, variant=variant, return_source=True)
    assert batch.equals(before)
    arguments: dict[str, Any] = {"ids": out.ids, "rows": out.rows, "spans": out.spans}
    if op.domain == "text":
        checked: Any = vg.TextBatch(out.data, out.offsets, **arguments)
    else:
        checked = vg.TokenBatch(out.tokens, out.offsets, columns=out.columns, targets=out.targets, **arguments)
        for name, column in batch.columns.items():
            assert out.columns[name].dtype == column.dtype
    assert checked.equals(out)
    assert same(op(batch, seed=seed, epoch=epoch, variant=variant, return_source=True), out)
    plain = op(batch, seed=seed, epoch=epoch, variant=variant)
    assert plain.equals(out)
    again = ops.from_json(op.to_json())
    assert same(again(batch, seed=seed, epoch=epoch, variant=variant, return_source=True), out)


@pytest.mark.parametrize("kind", KINDS)
@many
@given(st.data(), SEEDS)
def test_split_order_and_threads_change_nothing(kind, data, seed):
    op = any_of(kind, data)
    batch = batch_for(op, data)
    whole = op(batch, seed=seed, return_source=op.domain == "token")
    cut = data.draw(st.integers(0, len(batch)))
    parts = [op(part, seed=seed, return_source=op.domain == "token") for part in (batch[:cut], batch[cut:])]
    assert same(type(batch).concat(parts), whole)
    order = data.draw(st.permutations(range(len(batch))))
    singles = [op(batch[int(row)], seed=seed, return_source=op.domain == "token") for row in range(len(batch))]
    shuffled = op(batch.take(order), seed=seed, return_source=op.domain == "token")
    assert not singles or same(type(batch).concat([singles[row] for row in order]), shuffled)


@pytest.fixture
def threads():
    yield vg.set_num_threads
    vg.set_num_threads(0)


@pytest.mark.parametrize("op", ALL)
def test_threads_change_nothing(op, threads):
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 400, 1500)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n, ids = int(offsets[-1]), rng.integers(0, 2**64, 1500, np.uint64)
    spans = [(row, 0, int(length) // 2, "ab"[row % 2]) for row, length in enumerate(lengths)]
    if op.domain == "text":
        batch: Any = vg.TextBatch.from_arrays(rng.integers(97, 123, n, np.uint8), offsets, ids=ids, spans=spans)
    else:
        columns = {"special": np.arange(n) % 7 == 0, "weight": np.arange(n, dtype=np.float32)}
        columns |= {"word_ids": np.arange(n, dtype=np.int32) // 2, "loss_mask": np.arange(n) % 9 == 0}
        tokens = rng.integers(0, 100, n, np.uint32)
        batch = fitted(op, vg.TokenBatch.from_arrays(tokens, offsets, ids=ids, columns=columns, spans=spans))
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(op(batch, seed=1, return_source=True))
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert results[0].stats == results[1].stats == results[2].stats


def test_the_first_row_that_fails_is_named_by_any_number_of_threads(threads):
    tokens = np.full(600_000, 7, np.uint32)
    tokens[[123_456, 250_000, 599_999]] = 2**31
    batch = vg.TokenBatch.from_arrays(tokens, np.arange(0, 600_001, 100), ids=np.arange(6000))
    for count in (1, 2, 3):
        threads(count)
        for op in (ops.MaskedLM(**MLM), vg.Compose([ops.TokenDropout(rate=0.0), ops.NgramMask(**MLM)])):
            with pytest.raises(InvalidInput, match=r"token 2147483648 does not fit an int32 label \(row 1234\)$"):
                op(batch, seed=1)


@pytest.mark.parametrize("kind", KINDS)
@many
@given(st.data(), SEEDS)
def test_rate_zero_is_the_identity(kind, data, seed):
    op = IDLE[kind]
    batch = batch_for(op, data)
    out = op(batch, seed=seed, return_source=True)
    if op.domain == "text":
        assert out.texts == batch.texts
        assert [len(part) for part in out.edits] == [0, 0, 0, 0]
    else:
        assert out.to_lists() == batch.to_lists()
        assert out.source.tolist() == [i for row in batch.to_lists() for i in range(len(row))]
        assert not out.edited.any()
        for name, column in batch.columns.items():
            assert name == "labels" or out.columns[name].tobytes() == column.tobytes()
    assert out.spans.to_list() == batch.spans.to_list()


@pytest.mark.parametrize("kind", TOKEN_KINDS)
@many
@given(st.data(), SEEDS)
def test_alignment_law_and_columns_follow_the_source(kind, data, seed):
    op = any_of(kind, data, "token")
    batch = batch_for(op, data)
    out = op(batch, seed=seed, return_source=True)
    parents = np.searchsorted(np.sort(batch.ids), origin_ids(batch, out))
    parents = np.argsort(batch.ids, kind="stable")[parents] if len(batch) else parents
    writes_labels = op._pipeline.labels
    for strand in [out] if out.targets is None else [out, out.targets]:
        row = np.repeat(parents, np.diff(strand.offsets))
        source, known = strand.source, strand.source >= 0
        at = batch.offsets[:-1][row] + source
        assert (source[known] < batch.lengths[row][known]).all()
        assert (source >= -1).all()
        assert (strand.edited[~known] == 1).all()
        kept = known & (strand.edited == 0)
        assert (strand.tokens[kept] == batch.tokens[at[kept]]).all()
        for name, column in batch.columns.items():
            if not (writes_labels and name == "labels"):
                assert (strand.columns[name][known] == column[at[known]]).all()
            if "inherit" not in op.to_json():
                fill = {"labels": -100, "word_ids": -1}.get(name, 0)
                assert (strand.columns[name][~known] == fill).all()


def origin_ids(batch: vg.TokenBatch, out: Any) -> np.ndarray:
    """For each output row, the id of the input row: follows the chain of parents."""
    if "parent" not in out.rows:
        return out.ids
    return batch.ids[out.rows["score"].astype(np.int64)]


def with_own_tags(batch: Any) -> Any:
    """The batch with a tag of its own for each span."""
    names = batch.spans._replace(tag=np.array([f"{k}{tag}" for k, tag in enumerate(batch.spans.tag)], object))
    arguments: dict[str, Any] = {"ids": batch.ids, "rows": batch.rows, "spans": names}
    if isinstance(batch, vg.TextBatch):
        return vg.TextBatch(batch.data, batch.offsets, **arguments)
    return vg.TokenBatch(
        batch.tokens,
        batch.offsets,
        columns=batch.columns,
        tokenizer=batch.tokenizer,
        targets=batch.targets,
        **arguments,
    )


def check_spans(op: ops.Op, batch: vg.TokenBatch, out: vg.TokenBatch) -> None:
    """Every token of an output span comes from the input span of that tag, and no survivor of it is outside.

    Each span has a tag of its own. What is not there is counted, and with "drop" it was touched and nothing else was.
    """
    drop = '"drop"' in op.to_json()
    gone = split = 0
    for row, start, end, tag in batch.spans.to_list():
        a, b = out.offsets[row], out.offsets[row + 1]
        source, edited = out.source[a:b].tolist(), out.edited[a:b].tolist()
        pieces = [(s, e) for r, s, e, t in out.spans.to_list() if (r, t) == (row, tag)]
        gone += not pieces
        split += len(pieces) > 1
        mine = {j for j in range(len(source)) if start <= source[j] < end}
        at = source.index(start) if start in source else 0
        whole = source[at : at + end - start] == list(range(start, end)) and not any(edited[at : at + end - start])
        if drop and (not pieces or whole):
            assert bool(pieces) == whole or len(out.stats) > 1 or start == end
        if pieces or not drop:
            covered = {j for s, e in pieces for j in range(s, e)}
            assert {j for j in covered if source[j] >= 0} == mine
    if len(out.stats) == 1:
        (stats,) = out.stats.values()
        assert (stats["spans_dropped"], stats["spans_split"]) == (gone, split)


@pytest.mark.parametrize("kind", TOKEN_KINDS)
@many
@given(st.data(), SEEDS)
def test_spans_follow_their_tokens(kind, data, seed):
    op = any_of(kind, data, "token")
    if "Repeat" not in op.to_json():
        batch = fitted(op, with_own_tags(data.draw(token_batches())))
        check_spans(op, batch, op(batch, seed=seed, return_source=True))


@pytest.mark.parametrize("op", [param for param in TEXT if "Repeat" not in param.values[0].to_json()])
@many
@given(batch=text_batches(), seed=SEEDS)
def test_spans_of_text_hold_what_became_of_it(op, batch, seed):
    """Where no edit lies across the end of a span; what is put at an end is outside."""
    out = op(batch, seed=seed, return_source=True)
    edits: dict[int, list[tuple[int, int, int]]] = {}
    for row, *edit in zip(*(part.tolist() for part in out.edits), strict=True):
        edits.setdefault(row, []).append(tuple(edit))
    expected, across = [], set()
    for row, start, end, tag in batch.spans.to_list():
        own = edits.get(row, [])
        if any(a < cut < b for a, b, _ in own for cut in (start, end)):
            across.add(row)
        grown = [length - (b - a) for a, b, length in own]
        head = sum(more for more, (_, b, _) in zip(grown, own, strict=True) if b <= start)
        inner = [k for k, (a, b, _) in enumerate(own) if start <= a and b <= end and (a < b or start < a < end)]
        size = end - start + sum(grown[k] for k in inner)
        if start == end or (size and not (inner and op.to_spec()[type(op).__name__].get("spans") == "drop")):
            expected.append((row, start + head, start + head + size, tag))
    found = out.spans.to_list()
    assert [s for s in sorted(found) if s[0] not in across] == [s for s in sorted(expected) if s[0] not in across]
    if len(out.stats) == 1:
        assert sum(stats["spans_dropped"] for stats in out.stats.values()) == len(batch.spans.row) - len(found)


# Golden vectors ------------------------------------------------------------------------------------------------------

VECTORS = Path(__file__).parent / "vectors"
CASES = [
    pytest.param(case, id=f"{file.stem}-{k}")
    for file in sorted(VECTORS.glob("*.json"))
    if file.stem
    in (
        "fill_in_middle_character",
        "keyboard_typo_jcuken",
        *(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower() for kind in KINDS),
    )
    for k, case in enumerate(json.loads(file.read_text()))
]


def lists(values: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [values[a:b].astype(int).tolist() for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize("case", CASES)
def test_golden_vectors(case):
    op = ops.from_spec(case["spec"])
    call = {name: case[name] for name in ("seed", "epoch", "variant")}
    ids, expected = np.array(case["ids"], np.uint64), case["out"]
    if op.domain == "text":
        spans = [tuple(span) for span in case.get("spans", [])]
        out = op(vg.TextBatch.from_texts(case["texts"], ids=ids, spans=spans), return_source=True, **call)
        assert out.texts == expected["texts"]
        runs = zip(*(part.tolist() for part in out.edits), strict=True)
        assert list(runs) == [(row, *edit) for row, edits in enumerate(expected["edits"]) for edit in edits]
        return
    dtypes = {"special": np.uint8, "word_ids": np.int32, "ends": np.uint8}
    columns = {
        name: np.array(list(itertools.chain(*case[name])), dtype) for name, dtype in dtypes.items() if name in case
    }
    tokenizer = vg.Tokenizer(Spelled(case["tokenizer"])) if "tokenizer" in case else None
    batch = vg.TokenBatch.from_lists(case["tokens"], ids=ids, columns=columns, tokenizer=tokenizer)
    out = op(batch, return_source=True, **call)
    made: dict[str, Any] = {}
    strands = {"out": out} if out.targets is None else {"out": out, "targets": out.targets}
    for name, strand in strands.items():
        columns = {"tokens": strand.tokens, "source": strand.source, "edited": strand.edited} | strand.columns
        made[name] = {column: lists(values, strand.offsets) for column, values in columns.items()}
    found = made["out"] | ({"targets": made["targets"]} if "targets" in made else {})
    if "ids" in expected:
        found |= {"ids": out.ids.tolist()} | {name: out.rows[name].tolist() for name in ("parent", "variant")}
    assert found == expected


@pytest.mark.parametrize("generator", ["generate_ops.py", "generate_text_ops.py"])
def test_the_vectors_are_the_oracles(generator):
    run = subprocess.run([sys.executable, VECTORS / generator, "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


# What each op promises -----------------------------------------------------------------------------------------------


def rows_of(n: int, length: int, seed: int = 0) -> vg.TokenBatch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10, 1000, n * length, np.uint32)
    return vg.TokenBatch.from_arrays(
        tokens, np.arange(n + 1) * length, ids=np.arange(n, dtype=np.uint64), rows={"n": np.arange(n)}
    )


@given(token_batches(), SEEDS, st.floats(0, 1))
def test_dropout_keeps_order_and_never_empties_a_row(batch, seed, rate):
    out = ops.TokenDropout(rate=rate)(batch, seed=seed, return_source=True)
    assert ((out.lengths > 0) == (batch.lengths > 0)).all()
    for source in lists(out.source, out.offsets):
        assert source == sorted(set(source))


def test_retuning_the_rate_keeps_the_draws():
    batch = rows_of(50, 100)
    few_out, more_out = (ops.TokenDropout(rate=rate)(batch, seed=3, return_source=True) for rate in (0.1, 0.3))
    for few_kept, more_kept in zip(
        lists(few_out.source, few_out.offsets), lists(more_out.source, more_out.offsets), strict=True
    ):
        assert set(few_kept) > set(more_kept)


def test_rates_are_what_they_say():
    batch = rows_of(2000, 100)
    n = len(batch.tokens)
    out = ops.MaskedLM(mask_id=4, vocab_size=10)(batch, seed=1)
    chosen = out.columns["labels"] != -100
    assert (out.columns["labels"][chosen] == batch.tokens[chosen]).all()
    kinds = Counter(np.where(out.tokens == 4, "mask", np.where(out.tokens < 10, "random", "same"))[chosen].tolist())
    # Five standard deviations of each count; a random token is the mask token once in ten.
    for share, count in ((0.15, chosen.sum()), (0.15 * 0.81, kinds["mask"]), (0.15 * 0.09, kinds["random"])):
        assert abs(count - n * share) < 5 * np.sqrt(n * share * (1 - share))
    assert (out.tokens[~chosen] == batch.tokens[~chosen]).all()
    replaced = ops.TokenReplace(rate=0.2, weights=[0, 1, 3])(batch, seed=1)
    ones, twos = int((replaced.tokens == 1).sum()), int((replaced.tokens == 2).sum())
    assert abs(ones - n * 0.05) < 5 * np.sqrt(n * 0.05)
    assert abs(twos - n * 0.15) < 5 * np.sqrt(n * 0.15)
    swapped = ops.TokenSwap(rate=1.0)(batch, seed=1, return_source=True)
    pairs = np.arange(100).reshape(-1, 2)[:, ::-1].ravel()
    assert (swapped.source == np.tile(pairs, 2000)).all()


@given(token_batches(), SEEDS, st.floats(0, 1), st.floats(1, 5), st.booleans())
def test_span_corruption_can_be_undone(batch, seed, density, mean, guarded):
    """Putting each target span back in the place of its sentinel gives the row; the numbers are T5's."""
    low = vg.TokenBatch.from_arrays(batch.tokens % 1000, batch.offsets, ids=batch.ids, columns=batch.columns)
    protect = ops.Protect(columns=("special",)) if guarded else None
    op = ops.SpanCorruption(
        noise_density=density, mean_noise_span_length=mean, sentinel_id=5000, eos_id=9999, protect=protect
    )
    out = op(low, seed=seed, return_source=True)
    for row, before in enumerate(low.to_lists()):
        inputs, targets = out[row].to_lists()[0], out.targets[row].to_lists()[0]
        assert inputs.pop() == targets.pop() == 9999
        spans: dict[int, list[int]] = {}
        for token in targets:
            if 4000 < token <= 5000:
                spans[token] = []
            else:
                spans[list(spans)[-1]].append(token)
        assert list(spans) == [5000 - k for k in range(len(spans))]
        rebuilt = [t for token in inputs for t in (spans[token] if 4000 < token <= 5000 else [token])]
        assert rebuilt == before
        n = len(before)
        if not guarded and n > 1 and density > 0:
            noise = min(max(int(np.rint(n * density)), 1), n - 1)
            assert sum(map(len, spans.values())) == noise
            assert len(spans) == min(max(int(np.rint(noise / mean)), 1), noise, n - noise)


def test_span_corruption_cuts_uniformly():
    """Eight tokens, four of them noise in two spans: 3 x 3 ways, all equally likely."""
    batch = rows_of(18000, 8)
    op = ops.SpanCorruption(noise_density=0.5, mean_noise_span_length=2.0, sentinel_id=5000)
    out = op(batch, seed=1, return_source=True)
    counts = Counter(map(tuple, lists(out.source, out.offsets)))
    assert len(counts) == 9
    chi = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert chi < 42.7  # the 1e-6 quantile for eight degrees of freedom


def test_span_corruption_has_one_span_for_each_sentinel_at_most():
    out = ops.SpanCorruption(sentinel_id=5000, num_sentinels=2)(rows_of(5, 500), seed=1)
    assert all((row > 4000).sum() == 2 for row in np.array(out.to_lists()))
    assert out.targets.lengths.tolist() == [77] * 5


@given(token_batches(), SEEDS)
def test_protected_tokens_stay(batch, seed):
    shut = batch.columns["special"] | (batch.tokens == 3)
    for row, start, end, tag in batch.spans.to_list():
        shut[batch.offsets[row] :][start:end] |= tag == "a"
    for op in (
        ops.TokenDropout(rate=1.0, protect=PROTECT),
        ops.TokenSwap(rate=1.0, protect=PROTECT),
        ops.TokenReplace(rate=1.0, vocab_size=7, protect=PROTECT),
        ops.MaskedLM(mlm_probability=1.0, protect=PROTECT, **MLM),
        ops.SpanCorruption(noise_density=1.0, protect=PROTECT, **T5),
        ops.TokenInsert(rate=1.0, vocab_size=7, protect=PROTECT),
        ops.TokenMask(rate=1.0, mask_id=4, protect=PROTECT),
        ops.LocalShuffle(k=9, protect=PROTECT),
        ops.WholeWordMask(mlm_probability=1.0, protect=PROTECT, **MLM),
        ops.NgramMask(mlm_probability=1.0, protect=PROTECT, **MLM),
        ops.PrefixLM(max_prefix=0.0, protect=PROTECT),
        ops.UL2(protect=PROTECT, **T5),
        ops.TextInfilling(mask_ratio=1.0, mask_id=4, protect=PROTECT),
        ops.SentencePermute(end_ids=[1, 2, 5], protect=PROTECT),
        ops.FillInMiddle(fim_rate=1.0, protect=PROTECT, **FIM),
        vg.Sometimes(vg.Compose([ops.TokenDropout(rate=1.0)]), p=1.0, protect=PROTECT),
    ):
        out = op(batch, seed=seed, return_source=True)
        row = np.repeat(np.arange(len(out)), out.lengths)
        at = np.where(out.source >= 0, batch.offsets[:-1][row] + out.source, -1)
        assert np.isin(np.flatnonzero(shut), at).all()
        assert not out.edited[np.isin(at, np.flatnonzero(shut))].any()


@pytest.mark.parametrize("policy", ["drop", "forbid"])
@given(st.data(), SEEDS)
def test_spans_stay_whole_or_go(policy, data, seed):
    batch = data.draw(token_batches())
    for op in (
        ops.TokenDropout(rate=0.5, spans=policy),
        ops.TokenSwap(rate=0.5, spans=policy),
        ops.TokenReplace(rate=0.5, vocab_size=2, spans=policy),
        ops.SpanCorruption(noise_density=0.5, spans=policy, **T5),
        ops.TokenInsert(rate=0.5, vocab_size=2, spans=policy),
        ops.TokenInsert(rate=0.5, vocab_size=2, side="after", spans=policy),
        ops.TokenMask(rate=0.5, mask_id=4, spans=policy),
        ops.LocalShuffle(k=2, spans=policy),
        ops.WholeWordMask(mlm_probability=0.5, spans=policy, **MLM),
        ops.NgramMask(mlm_probability=0.5, spans=policy, **MLM),
        ops.PrefixLM(spans=policy),
        ops.UL2(spans=policy, **T5),
        ops.TextInfilling(mask_ratio=0.5, poisson_lambda=0.5, mask_id=4, spans=policy),
        ops.SentencePermute(end_ids=[1, 2, 5, 7], spans=policy),
        ops.FillInMiddle(fim_rate=1.0, spans=policy, **FIM),
    ):
        out = op(batch, seed=seed, return_source=True)
        for row, start, end, _ in out.spans.to_list():
            place = slice(out.offsets[row] + start, out.offsets[row] + end)
            assert not out.edited[place].any()
            assert (np.diff(out.source[place]) == 1).all()
        gone = len(batch.spans.row) - len(out.spans.row)
        (stats,) = out.stats.values()
        assert stats["spans_dropped"] == gone
        assert policy == "drop" or gone == 0


@given(text_batches(), SEEDS, st.sampled_from(["qwerty", "qwertz", "azerty", "dvorak"]))
def test_typos_touch_letters_that_stand_alone_and_keep_their_case(batch, seed, layout):
    out = ops.KeyboardTypo(rate=0.7, layout=layout)(batch, seed=seed, return_source=True)
    chosen = set()
    for row, start, end, length in zip(*(part.tolist() for part in out.edits), strict=True):
        assert (end, length) == (start + 1, 1)
        chosen.add((row, start))
    for row, (before, after) in enumerate(zip(batch.texts, out.texts, strict=True)):
        old, new = before.encode(), after.encode()
        assert len(old) == len(new)
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            assert (a != b) == ((row, i) in chosen)
            if a != b:
                assert chr(a).isalpha()
                assert chr(b).isalpha()
                assert chr(a).isupper() == chr(b).isupper()
                assert not re.match("[\u0300-\u036f\u200d]", old[i + 1 :].decode())
                assert not old[:i].decode().endswith("\u0600")


def test_repeat_makes_variants_that_differ_and_travels_with_the_row():
    batch = vg.TokenBatch.from_lists([[1, 2, 3, 4, 5] * 8, [6]], ids=[11, 12], rows={"word": np.array(["a", "b"])})
    out = vg.Repeat(SOME, n=3)(batch, seed=1, return_source=True)
    assert out.rows["word"].tolist() == ["a", "a", "a", "b", "b", "b"]
    assert out.rows["parent"].dtype == np.uint64
    assert out.rows["variant"].tolist() == [0, 1, 2, 0, 1, 2]
    assert len({tuple(row) for row in out.to_lists()[:3]}) == 3
    assert len(set(out.ids.tolist())) == 6
    alone = vg.Repeat(SOME, n=1)(batch[:1], seed=1)
    assert alone.to_lists() == out.to_lists()[:1]


def test_composition_laws():
    batch = rows_of(40, 30)
    a, b, c = ops.TokenDropout(rate=0.2), ops.TokenSwap(rate=0.3), ops.TokenDropout(rate=0.1)
    mask = ops.MaskedLM(**MLM)
    assert same(vg.Compose([a])(batch, seed=1), a(batch, seed=1))
    assert same(vg.Compose([a, vg.Compose([b, c])])(batch, seed=1), vg.Compose([a, b, c])(batch, seed=1))
    # An op of another kind, and a name, reseed nobody else.
    assert vg.Compose([mask, a, b]).paths == ["MaskedLM#0", "TokenDropout#0", "TokenSwap#0"]
    assert vg.Compose([ops.TokenDropout(rate=0.2, name="x"), c]).paths == ["x", "TokenDropout#1"]
    nested = vg.Compose([vg.Sometimes(vg.OneOf([a, c]), p=1.0), vg.Compose([a], name="late")])
    assert nested.paths == [
        "Sometimes#0/OneOf#0/TokenDropout#0",
        "Sometimes#0/OneOf#0/TokenDropout#1",
        "late/TokenDropout#0",
    ]
    assert vg.Sometimes(a, p=1.0)(batch, seed=1).lengths.tolist() != a(batch, seed=1).lengths.tolist()
    named = [ops.TokenDropout(rate=0.2, name="x"), vg.Compose([ops.TokenDropout(rate=0.2, name="x")])]
    assert same(named[0](batch, seed=1), named[1](batch, seed=1))
    for call in ({"seed": 2}, {"seed": 1, "epoch": 1}, {"seed": 1, "variant": 1}):
        assert not same(a(batch, **call), a(batch, seed=1))


def test_gates_choose_as_often_as_they_say():
    batch = rows_of(20000, 2)
    one = vg.OneOf([ops.TokenReplace(rate=1.0, weights=[float(k == i) for k in range(3)]) for i in range(3)], [1, 2, 0])
    counts = np.bincount(one(batch, seed=1).tokens[::2], minlength=3)
    assert counts[2] == 0
    assert abs(counts[0] - 20000 / 3) < 5 * np.sqrt(20000 * 2 / 9)
    some = vg.Sometimes(ops.TokenDropout(rate=1.0), p=0.25)(batch, seed=1)
    assert abs(int((some.lengths == 1).sum()) - 5000) < 5 * np.sqrt(20000 * 3 / 16)


def test_labels_and_targets_of_rows_that_are_passed_over():
    batch = rows_of(50, 10)
    out = vg.Sometimes(ops.MaskedLM(mlm_probability=1.0, **MLM), p=0.5)(batch, seed=1)
    labels = out.columns["labels"].reshape(50, 10)
    assert out.columns["labels"].dtype == np.int32
    assert set((labels == -100).all(1) ^ (labels == batch.tokens.reshape(50, 10)).all(1)) == {True}
    out = vg.Sometimes(ops.SpanCorruption(**T5), p=0.5)(batch, seed=1)
    assert ((out.targets.lengths == 0) == (out.lengths == 10)).all()
    assert 0 < (out.targets.lengths == 0).sum() < 50


def test_what_did_not_change_is_shared():
    columns = {"loss_mask": np.ones(3, np.uint8), "labels": np.arange(3, dtype=np.int32)}
    batch = vg.TokenBatch.from_lists([[5, 6], [7]], columns=columns)
    out = ops.MaskedLM(**MLM)(batch, seed=1)
    assert out.offsets is batch.offsets
    assert out.columns["loss_mask"] is batch.columns["loss_mask"]
    assert batch.columns["labels"].tolist() == [0, 1, 2]


def test_stats_add_up():
    batch = rows_of(20, 50)
    out = vg.Compose([ops.TokenDropout(rate=0.3), ops.SpanCorruption(eos_id=1, **T5)])(
        batch, seed=1, return_source=True
    )
    drop, cut = out.stats["TokenDropout#0"], out.stats["SpanCorruption#0"]
    assert (drop["rows"], drop["seen"], drop["edited"], drop["inserted"]) == (20, 1000, 0, 0)
    assert cut["seen"] == 1000 - drop["deleted"]
    assert len(out.tokens) == cut["seen"] - cut["deleted"] + cut["inserted"]
    assert cut["edited"] == cut["inserted"] == int((out.source < 0).sum())
    assert cut["deleted"] == int((out.targets.source >= 0).sum())


# Token noise ---------------------------------------------------------------------------------------------------------

LONG = 1_000_000


def near(count: float, n: int, share: float) -> bool:
    """Whether a count is within three standard errors of n * share."""
    return abs(count - n * share) <= 3 * np.sqrt(n * share * (1 - share))


def test_rates_of_noise_over_a_million_tokens():
    batch = rows_of(1000, 1000)
    out = ops.TokenInsert(rate=0.2, vocab_size=9)(batch, seed=1, return_source=True)
    assert near(len(out.tokens) - LONG, LONG, 0.2)
    assert ((out.source < 0) == (out.tokens < 9)).all()
    assert near((ops.TokenMask(rate=0.15, mask_id=4)(batch, seed=1).tokens == 4).sum(), LONG, 0.15)
    assert near((ops.TokenReplace(rate=0.3, vocab_size=9)(batch, seed=1).tokens < 9).sum(), LONG, 0.3)
    assert near(LONG - len(ops.TokenDropout(rate=0.1)(batch, seed=1).tokens), LONG, 0.1)


@given(token_batches(), SEEDS, st.sampled_from(["before", "after"]))
def test_insertion_adds_a_token_on_its_side(batch, seed, side):
    op = ops.TokenInsert(rate=1.0, weights=[0, 1], side=side, protect=ops.Protect(columns=("special",)))
    out = op(batch, seed=seed)
    shut = lists(batch.columns["special"], batch.offsets)
    pairs = [[(t, s) for t, s in zip(row, own, strict=True)] for row, own in zip(batch.to_lists(), shut, strict=True)]
    beside = {"before": lambda t: [1, t], "after": lambda t: [t, 1]}[side]
    assert out.to_lists() == [[x for t, s in row for x in ([t] if s else beside(t))] for row in pairs]


def test_an_inserted_token_inherits_what_its_neighbour_has():
    columns = {"loss_mask": np.array([0, 1, 1], np.uint8), "labels": np.array([-100, 6, 7], np.int32)}
    batch = vg.TokenBatch.from_lists([[5, 6, 7]], ids=[1], columns=columns)
    for inserted, loss, labels in (
        ("ignore", [0, 0, 0, 1, 0, 1], [-100, -100, -100, 6, -100, 7]),
        ("inherit", [0, 0, 0, 1, 1, 1], [-100, -100, -100, 6, 6, 7]),
    ):
        out = ops.TokenInsert(rate=1.0, vocab_size=2, inserted=inserted)(batch, seed=1)
        assert out.columns["loss_mask"].tolist() == loss
        assert out.columns["labels"].tolist() == labels


@given(token_batches(), SEEDS, st.sampled_from([0, 1, 3, 40, 2**30]), st.booleans())
def test_local_shuffle_moves_no_token_far_and_none_past_a_protected_one(batch, seed, k, guarded):
    op = ops.LocalShuffle(k=k, protect=ops.Protect(columns=("special",)) if guarded else None)
    out = op(batch, seed=seed, return_source=True)
    for row, source in enumerate(lists(out.source, out.offsets)):
        assert sorted(source) == list(range(len(source)))
        assert all(abs(i - s) <= k for i, s in enumerate(source))
        if guarded:
            shut = np.flatnonzero(batch[row].columns["special"])
            walls = np.searchsorted(shut, np.arange(len(source)))
            assert (walls[source] == walls).all()
            assert (np.array(source, int)[shut] == shut).all()


def test_local_shuffle_has_the_law_of_sorted_keys():
    """Of three tokens with k = 1, by hand: P(1, 0, 2) = P(0, 2, 1) = 1/8 and the rest stays; no other order can be."""
    out = ops.LocalShuffle(k=1)(rows_of(100_000, 3), seed=1, return_source=True)
    counts = Counter(map(tuple, lists(out.source, out.offsets)))
    keys = np.random.default_rng(2).random((100_000, 3)) * 2 + np.arange(3)
    expected = Counter(map(tuple, np.argsort(keys, axis=1).tolist()))
    assert set(counts) == set(expected)
    for order, count in counts.items():
        assert abs(count - expected[order]) < 5 * np.sqrt(2 * expected[order])


def test_kneser_ney_counts_are_those_of_plain_python():
    batch = vg.TokenBatch.from_lists(np.random.default_rng(3).integers(0, 30, (50, 40)).tolist(), ids=range(50))
    weights, rates = ops.kneser_ney(batch, vocab_size=31)
    pairs = {pair for row in batch.to_lists() for pair in itertools.pairwise(row)}
    counts = Counter(batch.tokens.tolist())
    assert weights == tuple(float(sum(b == x for _, b in pairs)) for x in range(31))
    assert rates == tuple(sum(a == x for a, _ in pairs) / counts[x] if counts[x] else 0.0 for x in range(31))
    with pytest.raises(InvalidInput, match=r"^vocab_size must exceed every token \(row 0 has token 2\d, it is 9\)$"):
        ops.kneser_ney(batch, vocab_size=9)
    with pytest.raises(InvalidInput, match=r"^kneser_ney needs a row of two tokens or more"):
        ops.kneser_ney(rows_of(3, 1), vocab_size=1000)


def test_a_token_is_replaced_at_its_own_rate():
    tokens = np.tile(np.arange(10, 14, dtype=np.uint32), LONG // 4)
    batch = vg.TokenBatch.from_arrays(tokens, [0, LONG], ids=[1])
    rates = [0.0] * 10 + [0.0, 0.2, 1.0]
    out = ops.TokenReplace(rate=0.5, weights=[1, 1], rates=rates)(batch, seed=1, return_source=True)
    hits = np.bincount(tokens[out.edited == 1], minlength=14)[10:]
    assert (hits[0], hits[3]) == (0, 0)
    assert near(hits[1], LONG // 4, 0.1)
    assert near(hits[2], LONG // 4, 0.5)


# Objectives ----------------------------------------------------------------------------------------------------------


@given(token_batches(), SEEDS, st.floats(0, 1))
def test_whole_words_are_chosen_as_a_whole_and_others_never(batch, seed, rate):
    op = ops.WholeWordMask(mlm_probability=rate, protect=ops.Protect(columns=("special",)), **MLM)
    out = op(batch, seed=seed, return_source=True)
    for row in range(len(batch)):
        words, special = batch[row].columns["word_ids"], batch[row].columns["special"]
        chosen = out.edited[out.offsets[row] : out.offsets[row + 1]]
        labels = out[row].columns["labels"]
        assert (labels[chosen == 1] == batch[row].tokens[chosen == 1]).all()
        assert (labels[chosen == 0] == -100).all()
        for word in np.unique(words):
            hits = chosen[words == word]
            assert len(set(hits.tolist())) == 1
            assert not (hits.any() and (word < 0 or special[words == word].any()))


def test_an_inserted_token_is_no_part_of_a_word():
    words = {"word_ids": np.zeros(40, np.int32)}
    batch = vg.TokenBatch.from_lists([list(range(10, 50))], ids=[1], columns=words)
    op = vg.Compose([ops.TokenInsert(rate=0.5, vocab_size=2), ops.WholeWordMask(mlm_probability=1.0, **MLM)])
    out = op(batch, seed=1, return_source=True)
    assert (out.source < 0).any()
    assert ((out.columns["labels"] != -100) == (out.source >= 0)).all()


def mixture(out: vg.TokenBatch, batch: vg.TokenBatch) -> tuple[int, int, int]:
    """How many chosen tokens became the mask token 4, a random one below 4, or stayed."""
    chosen = out.columns["labels"] != -100
    assert (out.columns["labels"][chosen] == batch.tokens[chosen]).all()
    assert (out.tokens[~chosen] == batch.tokens[~chosen]).all()
    tokens = out.tokens[chosen]
    return int((tokens == 4).sum()), int((tokens < 4).sum()), int((tokens >= 10).sum())


def test_shares_of_whole_word_and_ngram_masks_over_a_million_tokens():
    batch = rows_of(1000, 1000)
    batch.columns["word_ids"] = np.arange(LONG, dtype=np.int32) // 2
    out = ops.WholeWordMask(mask_id=4, vocab_size=4)(batch, seed=1)
    mask, random, stayed = mixture(out, batch)
    chosen = mask + random + stayed
    assert near(chosen / 2, LONG // 2, 0.15)
    assert near(mask, chosen, 0.8)
    assert near(random, chosen, 0.1)
    out = ops.NgramMask(mask_id=4, vocab_size=4, ngram_weights=[1, 1])(batch, seed=1, return_source=True)
    chosen = sum(mixture(out, batch))
    assert chosen == LONG * 0.15
    # Runs share their fate, so the shares are those of runs, of which a few touch.
    runs = np.flatnonzero(np.diff(np.concatenate([[0], out.edited])) == 1)
    assert abs((out.tokens[runs] == 4).mean() - 0.8) < 4 * np.sqrt(0.16 / len(runs))
    short = ops.NgramMask(mask_id=4, vocab_size=4, mlm_probability=0.03)(rows_of(100_000, 10), seed=1)
    assert near((short.columns["labels"] != -100).sum(), LONG, 0.03)


@given(token_batches(), SEEDS, st.floats(0, 1), st.booleans())
def test_ngrams_hold_their_share_in_runs(batch, seed, rate, guarded):
    protect = ops.Protect(columns=("special",)) if guarded else None
    op = ops.NgramMask(mlm_probability=rate, ngram_weights=[0, 1], protect=protect, **MLM)
    out = op(batch, seed=seed, return_source=True)
    for row in range(len(batch)):
        free = int((~batch[row].columns["special"]).sum()) if guarded else len(batch[row].tokens)
        hits = int(out.edited[out.offsets[row] : out.offsets[row + 1]].sum())
        assert np.floor(free * rate) <= hits <= np.ceil(free * rate)


@given(token_batches(), SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_a_prefix_and_the_rest_are_the_row(batch, seed, a, b):
    shares = {"min_prefix": min(a, b), "max_prefix": max(a, b)}
    out = ops.PrefixLM(**shares)(batch, seed=seed, return_source=True)
    rows = zip(out.to_lists(), out.targets.to_lists(), batch.to_lists(), strict=True)
    for prefix, rest, row in rows:
        assert prefix + rest == row
        n = len(row)
        low = max(int(np.ceil(n * shares["min_prefix"])), min(n, 1))
        assert low <= len(prefix) <= max(low, min(n - 1, int(n * shares["max_prefix"])))
    labelled = ops.PrefixLM(form="labels", **shares)(batch, seed=seed)
    assert labelled.to_lists() == batch.to_lists()
    expected = [[-100] * len(p) + r for p, r in zip(out.to_lists(), out.targets.to_lists(), strict=True)]
    assert lists(labelled.columns["labels"], batch.offsets) == expected


def test_prefixes_are_uniform():
    out = ops.PrefixLM()(rows_of(90_000, 10), seed=1)
    counts = np.bincount(out.lengths, minlength=11)
    assert counts[[0, 10]].sum() == 0
    assert ((counts[1:10] - 10_000) ** 2 / 10_000).sum() < 26.1  # the 1e-3 quantile for eight degrees of freedom


def test_a_mixture_of_denoisers_has_the_shares_and_the_laws_that_it_says():
    batch = rows_of(30_000, 40)
    out = ops.UL2(weights=[2, 1, 3], r_id=1, s_id=2, x_id=3, sentinel_id=9000)(batch, seed=1)
    kinds = out.tokens[out.offsets[:-1]]
    counts = np.bincount(kinds, minlength=4)[1:]
    expected = 30_000 * np.array([2, 1, 3]) / 6
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # the 1e-3 quantile for two degrees of freedom
    noise = np.array([(np.array(row) < 8000).sum() for row in out.targets.to_lists()])
    spans = np.array([(np.array(row) > 8000).sum() for row in out.to_lists()])
    assert set(zip(noise[kinds == 1].tolist(), spans[kinds == 1].tolist(), strict=True)) == {(6, 2), (6, 1)}
    assert set(zip(noise[kinds == 2].tolist(), spans[kinds == 2].tolist(), strict=True)) == {(10, 1)}
    extreme = Counter(zip(noise[kinds == 3].tolist(), spans[kinds == 3].tolist(), strict=True))
    assert set(extreme) == {(20, 7), (20, 2), (6, 1), (20, 1)}
    quarter = counts[2] / 4
    assert sum((count - quarter) ** 2 / quarter for count in extreme.values()) < 16.3
    for row in np.flatnonzero(kinds == 2)[:50]:
        assert out[row].to_lists()[0] == [2, *batch[row].to_lists()[0][:30], 9000]
        assert out.targets[row].to_lists()[0][:11] == [9000, *batch[row].to_lists()[0][30:]]


def test_one_denoiser_is_that_span_corruption():
    batch = rows_of(50, 60)
    mixed = ops.UL2(weights=[0, 1, 0], s_id=2, eos_id=1, name="x", **T5)(batch, seed=1, return_source=True)
    law = {"noise_density": 0.25, "mean_noise_span_length": 1e9, "prefix_id": 2, "eos_id": 1}
    assert same(mixed, ops.SpanCorruption(name="x", **law, **T5)(batch, seed=1, return_source=True))


def test_lengths_of_infilled_spans_are_poisson():
    """In one long row, the gaps at masks that stand alone, against the law that scipy's pmf would give."""
    batch = vg.TokenBatch.from_arrays(np.full(LONG, 7, np.uint32), [0, LONG], ids=[1])
    out = ops.TextInfilling(mask_ratio=0.3, mask_id=4)(batch, seed=1, return_source=True)
    assert out.stats["TextInfilling#0"]["deleted"] == 300_000
    padded = np.concatenate([[-1], out.source, [LONG]])
    at = np.flatnonzero(padded[1:-1] < 0) + 1
    alone = at[(padded[at - 1] >= 0) & (padded[at + 1] >= 0)]
    lengths = np.minimum(padded[alone + 1] - padded[alone - 1] - 1, 11)
    law = np.exp(-3.0) * np.cumprod(np.concatenate([[1.0], 3.0 / np.arange(1, 12)]))
    law[11] = 1 - law[:11].sum()
    expected = law * len(alone)
    counts = np.bincount(lengths, minlength=12)
    assert ((counts - expected) ** 2 / expected).sum() < 31.3  # the 1e-3 quantile for eleven degrees of freedom
    assert counts[0] > 0.04 * len(alone)


@given(token_batches(), SEEDS, st.floats(0, 1), st.floats(0.5, 5))
def test_infilling_removes_its_share_and_keeps_the_row_as_targets(batch, seed, ratio, mean):
    out = ops.TextInfilling(mask_ratio=ratio, poisson_lambda=mean, mask_id=4)(batch, seed=seed, return_source=True)
    kept = np.array([(np.array(row) >= 0).sum() for row in lists(out.source, out.offsets)], int)
    assert (batch.lengths - kept == np.ceil(batch.lengths * ratio)).all()
    assert (out.tokens[out.source < 0] == 4).all()
    assert out.targets.to_lists() == batch.to_lists()
    for name, column in batch.columns.items():
        assert (out.targets.columns[name] == column).all()


def test_the_targets_of_denoising_are_what_went_in():
    batch = rows_of(20, 40)
    noise = vg.Compose(
        [ops.TokenDropout(rate=0.3), ops.SentencePermute(end_ids=list(range(10, 200))), ops.TextInfilling(mask_id=4)]
    )
    out = noise(batch, seed=1, return_source=True)
    assert out.targets.to_lists() == batch.to_lists()
    assert out.targets.source.tolist() == list(range(40)) * 20
    assert not out.targets.edited.any()
    many = vg.Compose([vg.Repeat(ops.TokenDropout(rate=0.3), n=2), ops.TextInfilling(mask_id=4)])(batch, seed=1)
    assert many.targets.to_lists() == [row for row in batch.to_lists() for _ in range(2)]


@given(token_batches(), SEEDS, st.sampled_from([0.0, 0.4, 1.0]), st.booleans())
def test_sentences_stay_whole(batch, seed, ratio, guarded):
    protect = ops.Protect(columns=("special",)) if guarded else None
    op = ops.SentencePermute(permute_sentence_ratio=ratio, end_ids=[1, 3, 5], protect=protect)
    out = op(batch, seed=seed, return_source=True)
    assert out.targets.to_lists() == batch.to_lists()
    for row, source in enumerate(lists(out.source, out.offsets)):
        assert sorted(source) == list(range(len(source)))
        tokens = batch[row].tokens
        for i, j in itertools.pairwise(source):
            assert j == i + 1 or i + 1 == len(source) or tokens[i] in (1, 3, 5) or guarded


@given(token_batches(), SEEDS)
def test_spans_can_be_the_sentences(batch, seed):
    """The same as a column with a mark before each span and at its end."""
    ends = np.zeros(len(batch.tokens) + 1, np.uint8)
    for row, start, end, tag in batch.spans.to_list():
        if tag == "a" and end > start:
            ends[batch.offsets[row] + end - 1] = 1
            ends[batch.offsets[row] + start - 1 if start else -1] = 1
    marked = batch.replace(columns=batch.columns | {"ends": ends[:-1]})
    for more in ({}, {"protect": ops.Protect(columns=("special",))}):
        op = ops.SentencePermute(sentence_tag="a", name="x", **more)(marked, seed=seed, return_source=True)
        assert same(op, ops.SentencePermute(end_column="ends", name="x", **more)(marked, seed=seed, return_source=True))


def test_orders_of_sentences_are_equally_likely():
    batch = vg.TokenBatch.from_lists([[9, 1, 1, 8, 8, 1]] * 60_000, ids=range(60_000))
    out = ops.SentencePermute(end_ids=[1])(batch, seed=1, return_source=True)
    counts = Counter(map(tuple, lists(out.source, out.offsets)))
    assert len(counts) == 6
    assert sum((count - 10_000) ** 2 / 10_000 for count in counts.values()) < 20.5  # 1e-3, five degrees of freedom
    pairs = ops.SentencePermute(end_ids=[1], permute_sentence_ratio=0.5)(batch, seed=1, return_source=True)
    moved = Counter(map(tuple, lists(pairs.source, pairs.offsets)))
    assert len(moved) == 4
    assert near(moved[tuple(range(6))], 60_000, 0.5)


@given(token_batches(), SEEDS, st.sampled_from([0.0, 1.0]), st.booleans())
def test_fim_can_be_undone_and_columns_stay_with_their_tokens(batch, seed, spm, guarded):
    low = vg.TokenBatch.from_arrays(batch.tokens % 100, batch.offsets, ids=batch.ids, columns=batch.columns)
    protect = ops.Protect(columns=("special",)) if guarded else None
    op = ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=spm, protect=protect, **FIM)
    out = op(low, seed=seed, return_source=True)
    known = out.source >= 0
    row_of = np.repeat(np.arange(len(out)), out.lengths)
    at = low.offsets[:-1][row_of[known]] + out.source[known]
    assert sorted(at.tolist()) == list(range(len(low.tokens)))
    for name in ("labels", "loss_mask"):
        assert (out.columns[name][known] == low.columns[name][at]).all()
        assert (out.columns[name][~known] == (-100 if name == "labels" else 0)).all()
    for row, before in enumerate(low.to_lists()):
        tokens, shut = out[row].to_lists()[0], low[row].columns["special"]
        free = np.flatnonzero(~shut) if guarded else np.arange(len(before))
        if not len(free):
            assert tokens == before
            continue
        head, tail = int(free[0]), len(before) - int(free[-1]) - 1
        assert tokens[:head] == before[:head]
        assert tokens[len(tokens) - tail :] == before[len(before) - tail :]
        inner = tokens[head : len(tokens) - tail]
        p, s, m = (inner.index(FIM[f"{name}_id"]) for name in ("prefix", "suffix", "middle"))
        assert p == 0
        assert s < m
        if spm:
            assert s == 1
            undone = inner[m + 1 :] + inner[2:m]
        else:
            undone = inner[1:s] + inner[m + 1 :] + inner[s + 1 : m]
        assert undone == before[head : len(before) - tail]


def test_fim_cuts_anywhere_and_as_often_as_it_says():
    batch = rows_of(100_000, 3)
    out = ops.FillInMiddle(fim_rate=0.9, fim_spm_rate=0.4, prefix_id=1, middle_id=2, suffix_id=3)(batch, seed=1)
    first, second = out.tokens[out.offsets[:-1]], out.tokens[out.offsets[:-1] + 1]
    rearranged = int((first == 1).sum())
    assert near(rearranged, 100_000, 0.9)
    # An empty prefix in PSM (7 of 16 cuts) looks like SPM; the middle tells them apart in the rest.
    assert near(int((second == 3).sum()), rearranged, 0.4 + 0.6 * 7 / 16)


def test_some_of_runs_as_many_as_it_says():
    marks = [ops.TokenInsert(rate=1.0, weights=[float(k == i) for k in range(4)]) for i in range(4)]
    batch = rows_of(40_000, 1)
    out = vg.SomeOf(marks, k=2)(batch, seed=1)
    sets = Counter(frozenset(row) - {t} for row, (t,) in zip(out.to_lists(), batch.to_lists(), strict=True))
    assert len(sets) == 6
    assert all(len(chosen) == 2 for chosen in sets)
    assert sum((count - 40_000 / 6) ** 2 / (40_000 / 6) for count in sets.values()) < 20.5
    out = vg.SomeOf(marks, k=0, at_most=1)(batch, seed=1)
    assert near(int((out.lengths == 1).sum()), 40_000, 0.5)
    assert vg.SomeOf(marks, k=4)(batch[:1], seed=1).stats.keys() == {f"SomeOf#0/TokenInsert#{i}" for i in range(4)}


@pytest.mark.parametrize("op", TOKEN)
def test_a_row_of_a_million_tokens_and_all_protected(op):
    """No limit of a buffer or a counter is near, and protection of everything leaves everything."""
    rng = np.random.default_rng(9)
    offsets = [0, 0, 1, 1 + LONG]
    columns = {"word_ids": np.arange(1 + LONG, dtype=np.int32) // 3, "special": np.zeros(1 + LONG, bool)}
    columns |= {"loss_mask": columns["special"]}
    tokens = rng.integers(10, 90, 1 + LONG, np.uint32)
    rows = {"n": np.arange(3)}
    batch = fitted(op, vg.TokenBatch.from_arrays(tokens, offsets, ids=[1, 2, 3], columns=columns, rows=rows))
    out = op(batch, seed=1, return_source=True)
    assert len(out) >= 3
    closed = batch.replace(columns=batch.columns | {"shut": np.ones(1 + LONG, bool)})
    kept = vg.Compose([op], protect=ops.Protect(columns=("shut",)))(closed, seed=1, return_source=True)
    known = kept.source >= 0
    assert (kept.tokens[known] == batch.take(kept.rows["n"]).tokens).all()
    assert not kept.edited[known].any()


@pytest.mark.parametrize("op", ALL)
def test_tiny_rows(op):
    """Batches of no row, empty rows and rows of one, open and shut."""
    guard = ops.Protect(spans=("shut",))
    closed = vg.Compose([op], protect=guard)
    for rows in ([], [""], ["a"], ["", "a", "", "not", "\u0301", "."], [" "], ["é"]):
        about: dict[str, Any] = {"ids": range(len(rows)), "rows": {"n": np.arange(len(rows))}}
        spans = [(row, 0, len(text.encode()), "shut") for row, text in enumerate(rows)]
        batch: Any = vg.TextBatch.from_texts(rows, spans=spans, **about)
        if op.domain == "token":
            lists = [[1, 5][:n] for n in map(len, rows)]
            n = sum(map(len, lists))
            columns = {"word_ids": np.zeros(n, np.int32), "special": np.zeros(n, bool), "loss_mask": np.ones(n, bool)}
            spans = [(row, 0, len(tokens), "shut") for row, tokens in enumerate(lists)]
            batch = fitted(op, vg.TokenBatch.from_lists(lists, columns=columns, spans=spans, **about))
        op(batch, seed=1, return_source=True)
        kept = closed(batch, seed=1, return_source=True)
        for name, stats in kept.stats.items():
            assert stats["deleted"] == stats["spans_dropped"] == 0, name
        if op.domain == "text":
            assert kept.texts == batch.take(kept.rows["n"]).texts
        else:
            assert (kept.tokens[kept.source >= 0] == batch.take(kept.rows["n"]).tokens).all()


def test_replay_in_another_process(tmp_path):
    """Spec, seed, epoch, variant and the row with its id give what became of it among others."""
    texts = ["I do not know a good car, because of it.", "Ada, a friend of cafés", "o no"]
    lists = [[1, 5, 9], list(range(10, 40)), [3]]
    n, about = sum(map(len, lists)), {"ids": [7, 2**63, 9], "rows": {"n": np.arange(3)}}
    columns = {"word_ids": np.arange(n, dtype=np.int32) // 2, "special": np.arange(n) % 7 == 0}
    columns |= {"loss_mask": np.arange(n) % 9 == 0}
    spans = [(row, 0, 1, tag) for row in range(3) for tag in "ab"]
    jobs, expected = [], []
    for number, param in enumerate(ALL):
        op = param.values[0]
        batch: Any = vg.TextBatch.from_texts(texts, spans=spans, **about)
        if op.domain == "token":
            batch = fitted(op, vg.TokenBatch.from_lists(lists, columns=columns, spans=spans, **about))
        call = {"seed": 2**64 - 1 - number, "epoch": 2**32 - 1 - number, "variant": 2**63 + number}
        jobs.append((op.to_json(), batch[1], call | {"return_source": op.domain == "token"}))
        out = op(batch, **jobs[-1][2])
        expected.append(out.take(np.flatnonzero(out.rows["n"] == 1)))
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    code = """
import pickle, sys
from pathlib import Path
from variegate import ops
folder = Path(sys.argv[1])
jobs = pickle.loads((folder / "jobs").read_bytes())
(folder / "done").write_bytes(pickle.dumps([ops.from_json(spec)(row, **call) for spec, row, call in jobs]))
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=300)
    done = pickle.loads((tmp_path / "done").read_bytes())
    assert len(done) == len(expected)
    assert [spec for (spec, _, _), *pair in zip(jobs, done, expected, strict=True) if not same(*pair)] == []


# Specs and bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ALL)
def test_specs_survive_json_pickle_copy_and_repr(op):
    for again in (
        ops.from_json(op.to_json()),
        type(op).from_json(op.to_json()),
        ops.from_spec(op.to_spec()),
        pickle.loads(pickle.dumps(op)),
        copy.deepcopy(op),
        eval(repr(op), {name: getattr(ops, name) for name in ops.__all__}),
    ):
        assert again == op
        assert hash(again) == hash(op)
        assert repr(again) == repr(op)
    assert op.to_json() == json.dumps(json.loads(op.to_json()))


def test_specs_take_what_recipes_say():
    spec = {"Compose": {"ops": [{"TokenDropout": {"rate": 0.1, "protect": {"ids": [1]}}}, {"TokenSwap": {"rate": 1}}]}}
    expected = vg.Compose([ops.TokenDropout(rate=0.1, protect=ops.Protect(ids=(1,))), ops.TokenSwap(rate=1.0)])
    assert ops.from_spec(spec) == expected
    assert vg.Compose(spec["Compose"]["ops"]) == expected
    assert ops.TokenReplace(rate=np.float32(0.5), weights=np.array([1, 2])).weights == (1.0, 2.0)


BAD: list[tuple[Any, str]] = [
    (lambda: ops.TokenDropout(rate=1.5), "TokenDropout: rate must lie in [0, 1] (it is 1.5)"),
    (lambda: ops.TokenSwap(rate=-0.25), "TokenSwap: rate must lie in [0, 1] (it is -0.25)"),
    (lambda: ops.KeyboardTypo(rate=float("nan")), "KeyboardTypo: rate must be a finite number (it is nan)"),
    (lambda: ops.TokenDropout(rate="0.1"), "TokenDropout: rate must be a finite number (it is '0.1')"),
    (lambda: ops.TokenDropout(rate=True), "TokenDropout: rate must be a finite number (it is True)"),
    (lambda: ops.MaskedLM(mask_id=-1, vocab_size=9), "MaskedLM: mask_id must lie in [0, 4294967295] (it is -1)"),
    (
        lambda: ops.MaskedLM(mask_id=2**32, vocab_size=9),
        "MaskedLM: mask_id must lie in [0, 4294967295] (it is 4294967296)",
    ),
    (
        lambda: ops.MaskedLM(mask_id=2**70, vocab_size=9),
        "MaskedLM: mask_id must fit 64 bits (it is 1180591620717411303424)",
    ),
    (lambda: ops.MaskedLM(mask_id=1.0, vocab_size=9), "MaskedLM: mask_id must be an integer (it is 1.0)"),
    (lambda: ops.MaskedLM(mask_id=1, vocab_size=0), "MaskedLM: vocab_size must lie in [1, 4294967295] (it is 0)"),
    (
        lambda: ops.MaskedLM(mask_id=1, vocab_size=9, mask_replace_prob=0.9, random_replace_prob=0.2),
        "MaskedLM: mask_replace_prob + random_replace_prob must not exceed 1 (it is 1.1)",
    ),
    (lambda: ops.TokenReplace(rate=0.1), "TokenReplace: pass vocab_size or weights, one of them"),
    (
        lambda: ops.TokenReplace(rate=0.1, vocab_size=2, weights=[1]),
        "TokenReplace: pass vocab_size or weights, one of them",
    ),
    (
        lambda: ops.TokenReplace(rate=0.1, weights=[1, -2]),
        "TokenReplace: weights must be finite and not negative (weights[1] is -2)",
    ),
    (
        lambda: ops.TokenReplace(rate=0.1, vocab_size=2, rates=[0, 1.5]),
        "TokenReplace: rates must lie in [0, 1] (rates[1] is 1.5)",
    ),
    (lambda: ops.TokenInsert(rate=0.1), "TokenInsert: pass vocab_size or weights, one of them"),
    (
        lambda: ops.TokenInsert(rate=0.1, vocab_size=2, side="left"),
        "TokenInsert: side must be one of before, after (it is 'left')",
    ),
    (lambda: ops.TokenMask(rate=2.0, mask_id=1), "TokenMask: rate must lie in [0, 1] (it is 2)"),
    (lambda: ops.LocalShuffle(k=-1), "LocalShuffle: k must lie in [0, 1073741824] (it is -1)"),
    (
        lambda: ops.NgramMask(ngram_weights=[1, -1], **MLM),
        "NgramMask: ngram_weights must be finite and not negative (ngram_weights[1] is -1)",
    ),
    (lambda: ops.NgramMask(ngram_weights=[], **MLM), "NgramMask: ngram_weights must hold a positive number"),
    (
        lambda: ops.PrefixLM(min_prefix=0.5, max_prefix=0.25),
        "PrefixLM: min_prefix must not exceed max_prefix (0.5 > 0.25)",
    ),
    (lambda: ops.UL2(weights=[1, 2], **T5), "UL2: weights must hold three numbers, of R, S and X (2)"),
    (
        lambda: ops.UL2(weights=[0, 0, 0], **T5),
        "UL2: weights must not be negative nor all 0 (they are [0.0, 0.0, 0.0])",
    ),
    (
        lambda: ops.UL2(sentinel_id=9),
        "UL2: sentinel_id + sentinel_step * (num_sentinels - 1) must lie in [0, 4294967295] (it is -90)",
    ),
    (lambda: ops.UL2(s_id=-1, **T5), "UL2: s_id must lie in [0, 4294967295] (it is -1)"),
    (
        lambda: ops.PrefixLM(form=["labels"]),
        "PrefixLM: form must be one of targets, labels (it is ['labels'])",
    ),
    (
        lambda: ops.UL2(inserted="copy", **T5),
        "UL2: inserted must be one of ignore, inherit (it is 'copy')",
    ),
    (
        lambda: ops.TextInfilling(mask_id=4, poisson_lambda=0.0),
        "TextInfilling: poisson_lambda must lie in [0.5, 100] (it is 0)",
    ),
    (lambda: ops.SentencePermute(), "SentencePermute: pass end_ids, end_column or sentence_tag, one of them"),
    (lambda: ops.SentencePermute(end_ids=3), "SentencePermute: end_ids must be a sequence of integers (it is 3)"),
    (
        lambda: ops.SentencePermute(end_ids=[-3]),
        "SentencePermute: end_ids must lie in [0, 4294967295] (it is -3)",
    ),
    (lambda: ops.FillInMiddle(fim_rate=-0.5, **FIM), "FillInMiddle: fim_rate must lie in [0, 1] (it is -0.5)"),
    (
        lambda: ops.FillInMiddle(level="word", **FIM),
        "FillInMiddle: level must be one of token, character (it is 'word')",
    ),
    (
        lambda: ops.FillInMiddle(level="character", **FIM)(rows_of(1, 1), seed=1),
        "FillInMiddle needs a tokenizer for level 'character': give the batch one, batch.replace(tokenizer=...)",
    ),
    (lambda: vg.SomeOf([SOME], k=2), "SomeOf: k must lie in [0, 1] (it is 2)"),
    (lambda: vg.SomeOf([SOME, SOME], k=1, at_most=0), "SomeOf: at_most must lie in [1, 2] (it is 0)"),
    (lambda: vg.SomeOf([SOME] * 65, k=1), "SomeOf: ops must hold at most 64 ops (65)"),
    (
        lambda: ops.WholeWordMask(**MLM)(rows_of(1, 1), seed=1),
        "WholeWordMask#0 reads column 'word_ids', and the batch has []",
    ),
    (
        lambda: ops.WholeWordMask(**MLM)(vg.TokenBatch.from_lists([[1]], columns={"word_ids": np.zeros(1)}), seed=1),
        "an op reads column 'word_ids' as int32 (it is float64)",
    ),
    (
        lambda: ops.SentencePermute(end_column="e")(
            vg.TokenBatch.from_lists([[1]], columns={"e": np.zeros(1, np.int8)}), seed=1
        ),
        "an op reads column 'e' as bool or uint8 (it is int8)",
    ),
    (
        lambda: ops.NgramMask(**MLM)(vg.TokenBatch.from_lists([[2**31]], ids=[1]), seed=1),
        "NgramMask: token 2147483648 does not fit an int32 label (row 0)",
    ),
    (lambda: ops.TokenReplace(rate=0.1, weights=5), "TokenReplace: weights must be a sequence of numbers (it is 5)"),
    (
        lambda: ops.SpanCorruption(sentinel_id=9, mean_noise_span_length=0.5),
        "SpanCorruption: mean_noise_span_length must lie in [1, 1e9] (it is 0.5)",
    ),
    (
        lambda: ops.SpanCorruption(sentinel_id=9, sentinel_step=2),
        "SpanCorruption: sentinel_step must be 1 or -1 (it is 2)",
    ),
    (
        lambda: ops.SpanCorruption(sentinel_id=9),
        "SpanCorruption: sentinel_id + sentinel_step * (num_sentinels - 1) must lie in [0, 4294967295] (it is -90)",
    ),
    (
        lambda: ops.KeyboardTypo(rate=0.1, layout="colemak"),
        "KeyboardTypo: layout must be one of azerty, dvorak, jcuken, qwerty, qwertz (it is 'colemak')",
    ),
    (
        lambda: ops.TokenDropout(rate=0.1, spans="keep"),
        "TokenDropout: spans must be one of follow, drop, forbid (it is 'keep')",
    ),
    (
        lambda: ops.TokenDropout(rate=0.1, name="a/b"),
        "TokenDropout: name must not be empty or contain '/' or '#' (it is 'a/b')",
    ),
    (
        lambda: SOME(vg.TokenBatch.from_lists([[1]], columns={"\ud800": np.zeros(1, np.uint8)}), seed=1),
        "columns must have names without a lone surrogate (one is '\\ud800')",
    ),
    (lambda: ops.Protect(ids=[-1]), "protect: ids must lie in [0, 4294967295] (it holds -1)"),
    (lambda: ops.Protect(columns="special"), "protect: columns must be a sequence (it is 'special')"),
    (
        lambda: ops.TokenDropout(rate=0.1, protect=[1, 2]),
        "TokenDropout: protect must be a Protect, or an object with ids, columns, spans or words (it is [1, 2])",
    ),
    (
        lambda: ops.KeyboardTypo(rate=0.1, protect=ops.Protect(ids=(1,)))(vg.TextBatch.from_texts([]), seed=1),
        "KeyboardTypo#0: protect.ids and protect.columns name tokens, and this is a batch of text: protect spans",
    ),
    (lambda: vg.Compose([]), "Compose: ops must hold at least one op"),
    (lambda: vg.Compose(SOME), "Compose: ops must be a sequence of ops (it is TokenDropout(rate=0.4))"),
    (lambda: vg.Compose([3]), "Compose: ops[0] must be an op (it is 3)"),
    (
        lambda: vg.Compose([ops.TokenDropout(rate=0.1, name="x"), ops.TokenSwap(rate=0.1, name="x")]),
        "TokenSwap: two ops have the name 'x'",
    ),
    (lambda: vg.Sometimes(SOME, p=2.0), "Sometimes: p must lie in [0, 1] (it is 2)"),
    (lambda: vg.Repeat(SOME, n=0), "Repeat: n must lie in [1, 4294967295] (it is 0)"),
    (lambda: vg.OneOf([SOME], weights=[1, 2]), "OneOf: weights must hold one number per op (2 for 1 ops)"),
    (lambda: vg.OneOf([SOME], weights=[0]), "OneOf: weights must not be negative nor all 0 (they are [0.0])"),
    (
        lambda: ops.from_spec({"TokenDropuot": {"rate": 0.1}}),
        "there is no op 'TokenDropuot' (did you mean 'TokenDropout'?)",
    ),
    (
        lambda: ops.from_spec({"TokenDropout": {"rat": 0.1}}),
        "TokenDropout: there is no parameter 'rat' (did you mean 'rate'?)",
    ),
    (lambda: ops.from_spec({"TokenDropout": None}), "TokenDropout: parameter 'rate' is missing"),
    (
        lambda: ops.from_spec({"TokenDropout": 0.1}),
        "TokenDropout: parameters must be an object, such as {'rate': 0.1} (not 0.1)",
    ),
    (lambda: ops.from_spec([]), "an op is an object with one key, such as {'TokenDropout': {'rate': 0.1}} (not [])"),
    (
        lambda: ops.from_json("{"),
        "the spec is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    (lambda: ops.TokenSwap.from_json(SOME.to_json()), "the spec is of TokenDropout, not of TokenSwap"),
    (lambda: SOME(rows_of(1, 1), seed=-1), "seed must lie in [0, 2^64) (it is -1)"),
    (lambda: SOME(rows_of(1, 1), seed=1.5), "seed must be an integer (it is 1.5)"),
    (lambda: SOME(rows_of(1, 1), seed=1, epoch=2**32), "epoch must lie in [0, 2^32) (it is 4294967296)"),
    (lambda: SOME([[1]], seed=1), "TokenDropout takes a TokenBatch or a TextBatch, not list"),
    (
        lambda: SOME(vg.TextBatch.from_texts(["a"]), seed=1),
        "TokenDropout#0 works on tokens, and this is a batch of text: encode it with a tokenizer first",
    ),
    (
        lambda: ops.KeyboardTypo(rate=0.1)(rows_of(1, 1), seed=1),
        "KeyboardTypo#0 works on text, and this batch of tokens has no tokenizer: "
        "give it one, batch.replace(tokenizer=...)",
    ),
    (
        lambda: ops.TokenDropout(rate=0.1, protect=ops.Protect(columns=("x",)))(rows_of(1, 1), seed=1),
        "TokenDropout#0: protect names column 'x', and the batch has []",
    ),
    (
        lambda: ops.MaskedLM(**MLM)(vg.TokenBatch.from_lists([[1], [2**31, 5]], ids=[1, 2]), seed=1),
        "MaskedLM: token 2147483648 does not fit an int32 label (row 1)",
    ),
    (
        lambda: ops.MaskedLM(**MLM)(vg.TokenBatch.from_lists([[1]], columns={"labels": np.zeros(1, np.int64)}), seed=1),
        "an op that writes 'labels' needs it as int32 (it is int64)",
    ),
    (
        lambda: SOME(vg.TokenBatch.from_lists([[1]], columns={"x": np.array(["a"])}), seed=1),
        "columns['x'] must hold numbers of at most 8 bytes, or bools (it is <U1)",
    ),
    (
        lambda: ops.SpanCorruption(**T5, num_sentinels=2)(ops.SpanCorruption(**T5)(rows_of(1, 9), seed=1), seed=1),
        "an op makes targets, and the batch has some: pass batch.replace(targets=None)",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
