"""Ops: what every op owes (shape, determinism, split-invariance, identity, alignment), and what each one promises."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import variegate as vg
from strategies import text_batches, token_batches
from variegate import ops

PROTECT = ops.Protect(ids=(3,), columns=("special",), spans=("a",))
TEXT_PROTECT = ops.Protect(spans=("a",))
MLM: dict[str, Any] = {"mask_id": 4, "vocab_size": 100}
T5: dict[str, Any] = {"sentinel_id": 99}
SOME = ops.TokenDropout(rate=0.4)

EXAMPLES: dict[str, list[ops.Op]] = {
    "Compose": [
        vg.Compose([SOME, ops.MaskedLM(mlm_probability=0.5, **MLM), ops.TokenSwap(rate=0.5)], protect=PROTECT),
        vg.Compose([ops.MaskedLM(mlm_probability=0.5, **MLM), SOME, SOME, ops.SpanCorruption(**T5), SOME]),
        vg.Compose([ops.KeyboardTypo(rate=0.5), ops.KeyboardTypo(rate=0.5, layout="dvorak")]),
    ],
    "KeyboardTypo": [
        ops.KeyboardTypo(rate=0.5),
        ops.KeyboardTypo(rate=0.9, layout="azerty", spans="drop", protect=TEXT_PROTECT),
        ops.KeyboardTypo(rate=1.0, layout="qwertz", spans="forbid"),
    ],
    "MaskedLM": [
        ops.MaskedLM(**MLM),
        ops.MaskedLM(mlm_probability=0.9, mask_replace_prob=0.2, random_replace_prob=0.7, protect=PROTECT, **MLM),
        ops.MaskedLM(mlm_probability=0.5, spans="drop", name="mlm", **MLM),
        ops.MaskedLM(mlm_probability=1.0, spans="forbid", **MLM),
    ],
    "OneOf": [
        vg.OneOf([SOME, ops.TokenSwap(rate=0.9), ops.MaskedLM(mlm_probability=0.9, **MLM)], weights=[1, 2, 1]),
        vg.OneOf([vg.Repeat(SOME, n=2), ops.SpanCorruption(eos_id=1, **T5)]),
        vg.OneOf([ops.KeyboardTypo(rate=0.9), vg.Repeat(ops.KeyboardTypo(rate=0.9), n=2)]),
    ],
    "Repeat": [
        vg.Repeat(SOME, n=3),
        vg.Compose([SOME, vg.Repeat(vg.Repeat(ops.TokenSwap(rate=0.5), n=2), n=2), ops.MaskedLM(**MLM)]),
        vg.Compose([ops.KeyboardTypo(rate=0.5), vg.Repeat(ops.KeyboardTypo(rate=0.5), n=2)]),
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
    "TokenDropout": [
        SOME,
        ops.TokenDropout(rate=1.0),
        ops.TokenDropout(rate=0.7, protect=PROTECT),
        ops.TokenDropout(rate=0.5, spans="drop"),
        ops.TokenDropout(rate=0.9, spans="forbid"),
    ],
    "TokenReplace": [
        ops.TokenReplace(rate=0.5, vocab_size=100),
        ops.TokenReplace(rate=0.5, weights=(1, 0, 3), protect=PROTECT),
        ops.TokenReplace(rate=1.0, vocab_size=2**32 - 1, spans="drop"),
        ops.TokenReplace(rate=1.0, vocab_size=1, spans="forbid"),
    ],
    "TokenSwap": [
        ops.TokenSwap(rate=0.5),
        ops.TokenSwap(rate=1.0, protect=PROTECT),
        ops.TokenSwap(rate=0.5, spans="drop"),
        ops.TokenSwap(rate=1.0, spans="forbid"),
    ],
}
IDLE: dict[str, ops.Op] = {
    "Compose": vg.Compose([ops.TokenDropout(rate=0.0), ops.TokenSwap(rate=0.0)]),
    "KeyboardTypo": ops.KeyboardTypo(rate=0.0),
    "MaskedLM": ops.MaskedLM(mlm_probability=0.0, **MLM),
    "OneOf": vg.OneOf([ops.TokenDropout(rate=0.0), ops.TokenReplace(rate=0.0, vocab_size=9)]),
    "Repeat": vg.Repeat(ops.TokenDropout(rate=0.0), n=1),
    "Sometimes": vg.Sometimes(ops.TokenDropout(rate=1.0), p=0.0),
    "SpanCorruption": ops.SpanCorruption(noise_density=0.0, **T5),
    "TokenDropout": ops.TokenDropout(rate=0.0),
    "TokenReplace": ops.TokenReplace(rate=0.0, vocab_size=9),
    "TokenSwap": ops.TokenSwap(rate=0.0),
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
few = settings(max_examples=25)


def batch_for(op: ops.Op, data: st.DataObject) -> Any:
    return data.draw(text_batches() if op.domain == "text" else token_batches())


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


@pytest.mark.parametrize("op", ALL)
@few
@given(st.data(), SEEDS, EPOCHS, SEEDS)
def test_valid_and_the_same_again(op, data, seed, epoch, variant):
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


@pytest.mark.parametrize("op", ALL)
@few
@given(st.data(), SEEDS)
def test_split_order_and_threads_change_nothing(op, data, seed):
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
        tokens = rng.integers(0, 100, n, np.uint32)
        batch = vg.TokenBatch.from_arrays(tokens, offsets, ids=ids, columns=columns, spans=spans)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(op(batch, seed=1, return_source=True))
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert results[0].stats == results[1].stats == results[2].stats


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("op", TOKEN)
@few
@given(st.data(), SEEDS)
def test_alignment_law_and_columns_follow_the_source(op, data, seed):
    batch = batch_for(op, data)
    out = op(batch, seed=seed, return_source=True)
    parents = np.searchsorted(np.sort(batch.ids), origin_ids(batch, out))
    parents = np.argsort(batch.ids, kind="stable")[parents] if len(batch) else parents
    writes_labels = "MaskedLM" in op.to_json()
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
                fill = -100 if name == "labels" else 0
                assert (strand.columns[name][~known] == fill).all()


def origin_ids(batch: vg.TokenBatch, out: Any) -> np.ndarray:
    """For each output row, the id of the input row: follows the chain of parents."""
    if "parent" not in out.rows:
        return out.ids
    return batch.ids[out.rows["score"].astype(np.int64)]


@pytest.mark.parametrize("op", TOKEN)
@few
@given(st.data(), SEEDS)
def test_spans_follow_their_tokens(op, data, seed):
    """Every token of an output span comes from the input span of that tag, and no survivor of it is outside."""
    batch = data.draw(token_batches())
    named = batch.spans._replace(tag=np.array([f"{k}{tag}" for k, tag in enumerate(batch.spans.tag)], object))
    relevant = "drop" in op.to_json() or "protect" in op.to_json() or "Repeat" in op.to_json()
    if relevant:
        return
    batch = vg.TokenBatch.from_arrays(
        batch.tokens, batch.offsets, ids=batch.ids, columns=batch.columns, rows=batch.rows, spans=named
    )
    out = op(batch, seed=seed, return_source=True)
    for row, start, end, tag in batch.spans.to_list():
        if start == end:
            continue
        a, b = out.offsets[row], out.offsets[row + 1]
        source = out.source[a:b]
        mine = {j for j in range(b - a) if start <= source[j] < end}
        covered = {j for r, s, e, t in out.spans.to_list() if (r, t) == (row, tag) for j in range(s, e)}
        assert {j for j in covered if source[j] >= 0} == mine
