"""Loaders: what a record becomes is the same for any batch size, worker count, start method and resume point."""

from __future__ import annotations

import array
import copy
import dataclasses
import itertools
import pickle
import re
import subprocess
import sys
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import variegate as vg
from strategies import examples
from variegate.errors import InvalidInput, MissingExtra
from variegate.loaders import Transform
from variegate.loaders.torch import AugmentedDataset, AugmentedMapDataset, Collator

# Four workers on two cores are slow, not wrong; and torchdata calls what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:'set_vital' is deprecated")

MASK = vg.ops.MaskedLM(mlm_probability=0.3, mask_id=4, vocab_size=1000)
NOISE = vg.Compose([vg.ops.TokenDropout(rate=0.2), MASK])
SPANS = vg.ops.SpanCorruption(noise_density=0.3, mean_noise_span_length=2.0, sentinel_id=999, eos_id=1)

generator = np.random.default_rng(20)
ROWS = [
    {"id": f"doc-{i}", "input_ids": generator.integers(5, 1000, int(n)).tolist()}
    for i, n in enumerate(generator.integers(0, 40, 53))
]


def by_op(rows: list[dict[str, Any]], op: Any, epoch: int = 0) -> dict[Any, tuple[list[int], list[int]]]:
    """Key -> (tokens, labels), by one call of the op on the whole batch: what every loader must give."""
    from variegate import _core

    keys = [row["id"] for row in rows]
    batch = vg.TokenBatch.from_lists([row["input_ids"] for row in rows], ids=_core.key_ids(keys, "id"))
    out = op(batch, seed=3, epoch=epoch)
    labels = out.columns["labels"].tolist()
    bounds = list(zip(out.offsets.tolist(), out.offsets.tolist()[1:], strict=False))
    return {
        key: (tokens, labels[start:end]) for key, tokens, (start, end) in zip(keys, out.to_lists(), bounds, strict=True)
    }


def unpadded(batches: Any) -> list[tuple[list[int], list[int]]]:
    """(tokens, labels) of every row of collated batches."""
    rows = []
    for batch in batches:
        for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            assert (labels[mask == 0] == -100).all()
            rows.append((tokens[mask == 1].tolist(), labels[mask == 1].tolist()))
    return rows


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in row.items()}


class TestCollator:
    @pytest.mark.parametrize("workers", [0, 2, 4])
    @pytest.mark.parametrize("batch_size", [1, 7, 53])
    def test_batch_size_and_workers_change_nothing(self, workers: int, batch_size: int) -> None:
        loader = DataLoader(ROWS, batch_size, num_workers=workers, collate_fn=Collator(NOISE, seed=3))
        assert unpadded(loader) == list(by_op(ROWS, NOISE).values())

    @pytest.mark.parametrize(("workers", "persistent"), [(0, False), *itertools.product((1, 2, 4), (False, True))])
    def test_the_next_epoch_differs_and_batches_of_16_and_32_do_not(self, workers: int, persistent: bool) -> None:
        first, second = (by_op(ROWS, NOISE, epoch) for epoch in (0, 1))
        long = [row["id"] for row in ROWS if len(row["input_ids"]) > 15]
        assert sum(first[key] != second[key] for key in long) > 0.9 * len(long)
        for size in (16, 32):
            collator = Collator(NOISE, seed=3)
            loader = DataLoader(ROWS, size, num_workers=workers, collate_fn=collator, persistent_workers=persistent)
            for epoch, expected in enumerate((first, second)):
                collator.set_epoch(epoch)
                assert unpadded(loader) == list(expected.values())

    def test_order_changes_nothing(self) -> None:
        turned = ROWS[20:] + ROWS[:20]
        expected = by_op(ROWS, NOISE)
        assert unpadded([Collator(NOISE, seed=3)(turned)]) == [expected[row["id"]] for row in turned]

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_epochs_reach_persistent_workers(self, method: str) -> None:
        collator = Collator(NOISE, seed=3)
        loader = DataLoader(
            ROWS, 9, num_workers=2, collate_fn=collator, persistent_workers=True, multiprocessing_context=method
        )
        for epoch in (0, 1, 0):
            collator.set_epoch(epoch)
            assert unpadded(loader) == list(by_op(ROWS, NOISE, epoch).values())
        assert by_op(ROWS, NOISE, 0) != by_op(ROWS, NOISE, 1)

    @pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
    def test_an_epoch_waits_for_the_next_iteration(self, workers: int, persistent: bool) -> None:
        collator = Collator(NOISE, seed=3)
        loader = DataLoader(ROWS, 4, num_workers=workers, collate_fn=collator, persistent_workers=persistent)
        iteration = iter(loader)
        first = next(iteration)
        collator.set_epoch(1)
        assert unpadded([first, *iteration]) == list(by_op(ROWS, NOISE, 0).values())
        assert unpadded(loader) == list(by_op(ROWS, NOISE, 1).values())

    def test_workers_that_start_late_keep_the_epoch_of_their_iteration(self) -> None:
        collator = Collator(NOISE, seed=3)
        iteration = iter(DataLoader(ROWS, 4, num_workers=2, collate_fn=collator))
        collator.set_epoch(1)
        assert unpadded(iteration) == list(by_op(ROWS, NOISE, 0).values())

    def test_without_workers_two_iterations_keep_their_own_epochs(self) -> None:
        collator = Collator(NOISE, seed=3)
        loader = DataLoader(ROWS, 53, collate_fn=lambda rows: collator(rows))
        zero = iter(DataLoader(ROWS, 26, collate_fn=collator))
        head = next(zero)
        collator.set_epoch(1)
        assert unpadded(loader) == list(by_op(ROWS, NOISE, 1).values())
        assert unpadded([head, *zero]) == list(by_op(ROWS, NOISE, 0).values())
        assert unpadded([collator(ROWS)]) == list(by_op(ROWS, NOISE, 1).values())

    def test_state_carries_the_epoch(self) -> None:
        collator = Collator(NOISE, seed=3)
        collator.set_epoch(5)
        other = Collator(NOISE, seed=3)
        other.load_state_dict(collator.state_dict())
        assert other.epoch == 5
        assert unpadded([other(ROWS)]) == list(by_op(ROWS, NOISE, 5).values())
        with pytest.raises(InvalidInput, match=r"^this is no state of Collator \(version None, needed 1\)$"):
            other.load_state_dict({})

    def test_copies_are_independent(self) -> None:
        collator = Collator(NOISE, seed=3, epoch=2)
        for other in (pickle.loads(pickle.dumps(collator)), copy.deepcopy(collator)):
            other.set_epoch(3)
            assert (collator.epoch, other.epoch) == (2, 3)

    def test_keys_shapes_and_padding_are_those_of_transformers(self) -> None:
        import tokenizers
        from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

        model = tokenizers.models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w1")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(model), mask_token="w4", pad_token="w0", unk_token="w1"
        )
        rows = [{"input_ids": row["input_ids"]} for row in ROWS if row["input_ids"]]
        theirs = DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=8)(rows)
        ours = Collator(None, seed=0, ids="content", pad_to_multiple_of=8)(rows)
        assert list(ours) == list(theirs)
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype
            assert ours[name].equal(tensor)
        masked = DataCollatorForLanguageModeling(tokenizer, mlm=True)(rows)
        ours = Collator(MASK, seed=0, ids="content")(rows)
        assert [(n, t.dtype, t.shape) for n, t in ours.items()] == [(n, t.dtype, t.shape) for n, t in masked.items()]

    @pytest.mark.parametrize("step", [None, 8])
    @pytest.mark.parametrize("kind", ["list", "numpy", "torch", "BatchEncoding"])
    def test_encoded_rows_give_what_transformers_gives(self, kind: str, step: int | None) -> None:
        """Special tokens stay, segments come along, cell by cell; only which tokens are masked is drawn otherwise."""
        import tokenizers
        from transformers import BatchEncoding, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, 1000))]
        model = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
        model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        model.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, **names)
        texts = [" ".join(f"w{token}" for token in row["input_ids"]) for row in ROWS]
        encoded = tokenizer(texts, texts[::-1], return_special_tokens_mask=True, return_token_type_ids=True)
        convert = {"numpy": np.array, "torch": torch.tensor}.get(kind, list)
        rows: list[Any] = [
            {name: convert(encoded[name][i]) for name in encoded} | ({} if kind == "BatchEncoding" else {"id": i})
            for i in range(len(ROWS))
        ]
        rows = [BatchEncoding(row) for row in rows] if kind == "BatchEncoding" else rows
        protect = vg.ops.Protect(columns=("special_tokens_mask",))
        op = vg.ops.MaskedLM(mask_id=4, vocab_size=1000, mlm_probability=0.4, protect=protect)
        ours = Collator(op, seed=3, ids="content", columns=["token_type_ids"], pad_to_multiple_of=step)(rows)
        plain_rows = [{name: list(map(int, encoded[name][i])) for name in encoded} for i in range(len(ROWS))]
        theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, pad_to_multiple_of=step)(plain_rows)
        assert sorted(ours) == sorted(theirs)
        assert {name: (t.dtype, t.shape) for name, t in ours.items()} == {
            n: (t.dtype, t.shape) for n, t in theirs.items()
        }
        for name in ("attention_mask", "token_type_ids"):
            assert ours[name].equal(theirs[name])
        whole = [torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"]) for batch in (ours, theirs)]
        assert whole[0].equal(whole[1])
        for batch in (ours, theirs):
            chosen = batch["labels"] != -100
            assert not chosen[batch["attention_mask"] == 0].any()
            assert not torch.isin(batch["labels"], torch.tensor([2, 3])).any()
            assert abs(int(chosen.sum()) / (ours["attention_mask"].sum() - 3 * len(ROWS)) - 0.4) < 0.05

    @pytest.mark.parametrize("step", [None, 8])
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_labels_of_the_rows_are_padded_as_transformers_does(self, side: Any, step: int | None) -> None:
        import tokenizers
        from transformers import DataCollatorForSeq2Seq, DataCollatorForTokenClassification, PreTrainedTokenizerFast

        model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"w0": 0, "w1": 1}, "w1"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="w0", unk_token="w1", padding_side=side)
        rows = [
            {"input_ids": row["input_ids"], "labels": [t if t % 3 else -100 for t in row["input_ids"]]}
            for row in ROWS
            if row["input_ids"]
        ]
        ours = Collator(None, seed=0, ids="content", columns=["labels"], side=side, pad_to_multiple_of=step)(rows)
        for kind in (DataCollatorForSeq2Seq, DataCollatorForTokenClassification):
            theirs = kind(tokenizer, pad_to_multiple_of=step)([dict(row) for row in rows])
            assert {name: t.tolist() for name, t in ours.items()} == {name: t.tolist() for name, t in theirs.items()}
            assert {t.dtype for t in theirs.values()} == {torch.int64}

    def test_padded_rows_are_refused(self) -> None:
        row = {"id": 1, "input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]}
        other = row | {"input_ids": [0, 5, 6], "attention_mask": np.array([0, 1, 1])}
        message = "row 1 holds padding (its attention_mask begins or ends with 0): pass rows as they were before it"
        whole = {"id": 2, "input_ids": [5, 6], "attention_mask": torch.ones(2)}
        for bad in (row, other):
            for load in (Collator(MASK, seed=3), lambda rows: list(AugmentedDataset(rows, MASK, seed=3))):
                with pytest.raises(InvalidInput) as caught:
                    load([whole, bad])
                assert str(caught.value) == message
        assert Collator(MASK, seed=3)([whole])["attention_mask"].tolist() == [[1, 1]]

    def test_every_kind_of_row_is_read_alike(self) -> None:
        ids = [5, 6, 70, 8]
        kinds = [
            ids,
            tuple(ids),
            array.array("H", ids),
            *(np.array(ids, dtype) for dtype in ("u1", "i4", "u4", "i8", "u8")),
            np.array(ids * 2)[::2] * 0 + ids,
            *(torch.tensor(ids, dtype=dtype) for dtype in (torch.int16, torch.int32, torch.int64)),
        ]
        collator = Collator(MASK, seed=3)
        expected = collator([{"id": "a", "input_ids": ids}])
        for kind in kinds:
            for row in ({"id": "a", "input_ids": kind}, UserDict(id="a", input_ids=kind)):
                got = collator([row])
                assert all(got[name].equal(expected[name]) for name in expected)

    def test_integer_keys_are_the_ids_themselves(self) -> None:
        lists = [[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]]
        out = MASK(vg.TokenBatch.from_lists(lists, ids=np.array([11, 2**64 - 1], np.uint64)), seed=3)
        rows = [{"id": 11, "input_ids": lists[0]}, {"id": np.uint64(2**64 - 1), "input_ids": lists[1]}]
        assert Collator(MASK, seed=3)(rows)["input_ids"].tolist() == out.to_lists()

    def test_content_and_position_key_rows_without_ids(self) -> None:
        rows = [{"input_ids": list(range(5, 40))}] * 2
        first, second = Collator(MASK, seed=3, ids="content")(rows)["input_ids"].tolist()
        assert first == second
        first, second = Collator(MASK, seed=3, ids="position")(rows)["input_ids"].tolist()
        assert first != second
        ids = np.arange(2)
        out = MASK(vg.TokenBatch.from_lists([row["input_ids"] for row in rows], ids=ids), seed=3)
        assert [first, second] == out.to_lists()

    def test_columns_move_with_the_tokens_and_protect_them(self) -> None:
        rows = [
            {"id": i, "input_ids": row["input_ids"], "special_tokens_mask": [t % 3 == 0 for t in row["input_ids"]]}
            for i, row in enumerate(ROWS)
            if any(token % 3 == 0 for token in row["input_ids"])
        ]
        protect = vg.ops.Protect(columns=("special_tokens_mask",))
        op = vg.ops.TokenDropout(rate=1.0, protect=protect)
        batch = Collator(op, seed=3, columns=["special_tokens_mask"])(rows)
        kept = [[token for token in row["input_ids"] if token % 3 == 0] for row in rows]
        assert [tokens for tokens, _ in unpadded([batch])] == kept
        assert batch["special_tokens_mask"].equal(batch["attention_mask"])
        assert batch["special_tokens_mask"].dtype == torch.int64

    def test_a_loss_mask_hides_labels(self) -> None:
        rows = [
            {"id": 1, "input_ids": [5, 6, 7], "loss_mask": [0, 1, 1]},
            {"id": 2, "input_ids": [8], "loss_mask": [1]},
        ]
        batch = Collator(None, seed=0, columns=["loss_mask"])(rows)
        assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
        assert batch["loss_mask"].tolist() == [[0, 1, 1], [1, 0, 0]]

    def test_labels_of_the_rows_stay_their_own(self) -> None:
        rows = [{"id": 1, "input_ids": [5, 6, 7], "labels": [-100, 1, 0]}]
        assert Collator(None, seed=0, columns=["labels"], length=4)(rows)["labels"].tolist() == [[-100, 1, 0, -100]]

    def test_second_sequences_become_labels(self) -> None:
        rows = [row for row in ROWS if len(row["input_ids"]) > 2]
        batch = Collator(SPANS, seed=3)(rows)
        from variegate import _core

        source = vg.TokenBatch.from_lists(
            [row["input_ids"] for row in rows], ids=_core.key_ids([row["id"] for row in rows], "id")
        )
        out = SPANS(source, seed=3)
        assert [row[row != -100].tolist() for row in batch["labels"]] == out.targets.to_lists()
        assert [
            row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ] == (out.to_lists())

    @given(
        rows=st.lists(st.lists(st.integers(1, 2**32 - 1), max_size=9), min_size=1, max_size=9),
        length=st.integers(1, 9),
        cut=st.sampled_from(["right", "left"]),
        side=st.sampled_from(["right", "left"]),
        pad=st.sampled_from([0, 7, 2**32 - 1]),
    )
    @examples(60)
    def test_padding_and_truncation_against_lists(
        self, rows: list[list[int]], length: int, cut: Any, side: Any, pad: int
    ) -> None:
        dicts = [{"id": i, "input_ids": row} for i, row in enumerate(rows)]
        batch = Collator(None, seed=0, pad_id=pad, length=length, truncation=cut, side=side)(dicts)
        for i, row in enumerate(rows):
            kept = row[:length] if cut == "right" else row[-length:]
            free = length - len(kept)
            padded = kept + [pad] * free if side == "right" else [pad] * free + kept
            masked = [1] * len(kept) + [0] * free if side == "right" else [0] * free + [1] * len(kept)
            assert batch["input_ids"][i].tolist() == padded
            assert batch["attention_mask"][i].tolist() == masked
            assert batch["labels"][i].tolist() == [t if m else -100 for t, m in zip(padded, masked, strict=True)]

    @given(rows=st.lists(st.lists(st.integers(5, 999), max_size=12), min_size=1, max_size=9), length=st.integers(1, 9))
    @examples(60)
    def test_packing_keeps_every_document(self, rows: list[list[int]], length: int) -> None:
        dicts = [{"id": i, "input_ids": row} for i, row in enumerate(rows)]
        collator = Collator(MASK, seed=3, length=length, packing=True, pad_id=0)
        batch = collator(dicts)
        assert all(tensor.shape[1:] == (length,) and tensor.dtype == torch.int64 for tensor in batch.values())
        pieces = []
        for block in range(len(batch["input_ids"])):
            segments = batch["segment_ids"][block]
            assert batch["attention_mask"][block].equal((segments != 0).long())
            assert (batch["labels"][block][segments == 0] == -100).all()
            for segment in range(1, int(segments.max()) + 1):
                cells = segments == segment
                assert batch["position_ids"][block][cells].tolist() == list(range(int(cells.sum())))
                pieces.append((batch["input_ids"][block][cells].tolist(), batch["labels"][block][cells].tolist()))
        whole = by_op([row for row in dicts if row["input_ids"]], MASK)
        cut = [
            (tokens[start : start + length], labels[start : start + length])
            for tokens, labels in whole.values()
            for start in range(0, len(tokens), length)
        ]
        assert sorted(pieces) == sorted(cut)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                [{"id": 1, "input_ids": [5]}, {"input_ids": [6]}],
                "row 1 has no 'id', which keys its randomness: give every row an int or str key, or pass ids='content' "
                "or ids='position'",
            ),
            ([{"id": 1}], "row 0 has no 'input_ids': every row must be a dict that has it"),
            ([[5, 6]], "row 0 must be a dict, not list"),
            (
                [{"id": 1, "input_ids": [5, -1]}],
                "a token id must be an integer in 0..=4294967295 (row 0, position 1: -1)",
            ),
            (
                [{"id": 1, "input_ids": np.array([5, 2**32])}],
                "a token id must be an integer in 0..=4294967295 (row 0, position 1: 4294967296)",
            ),
            ([{"id": 1.5, "input_ids": [5]}], "'id' must be an int or a str (row 0: 1.5)"),
            ([{"id": -1, "input_ids": [5]}], "'id' must lie in 0..18446744073709551615 (row 0: -1)"),
            (
                [{"id": np.int64(-1), "input_ids": [5]}],
                "'id' must lie in 0..18446744073709551615 (row 0: np.int64(-1))",
            ),
            (
                [{"id": "\ud800", "input_ids": [5]}],
                "'id' must be valid Unicode (row 0 has a lone surrogate): use another key",
            ),
        ],
    )
    def test_bad_rows_are_named(self, rows: list[Any], message: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            Collator(MASK, seed=3)(rows)
        assert str(caught.value) == message

    def test_bad_columns_are_named(self) -> None:
        row = {"id": 1, "input_ids": [5, 6]}
        for value, message in (
            ([1], "'loss_mask' must hold one value per token (row 0: (1,) != (2,))"),
            ([1.0, 0.5], "'loss_mask' must be integers (row 0: float64)"),
            ([1, -1], "'loss_mask' must lie in 0..255 (row 0, position 1: -1)"),
        ):
            with pytest.raises(InvalidInput) as caught:
                Collator(None, seed=0, columns=["loss_mask"])([row | {"loss_mask": value}])
            assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"pad_id": -1}, "pad_id must lie in 0..4294967295 (it is -1)"),
            ({"length": 0}, "length must be at least 1 (it is 0)"),
            ({"packing": True}, "packing needs a length"),
            ({"truncation": "right"}, "truncation needs a length"),
            ({"truncation": "both", "length": 4}, "truncation must be None, 'right' or 'left', not 'both'"),
            ({"side": "up"}, "side must be 'right' or 'left', not 'up'"),
            (
                {"pad_to_multiple_of": 8, "length": 4},
                "pad_to_multiple_of must be at least 1, and goes with length=None",
            ),
            ({"ids": "key"}, "ids must be 'record', 'content' or 'position', not 'key'"),
            ({"epoch": -1}, "epoch must lie in 0..4294967295 (it is -1)"),
            (
                {"columns": ["attention_mask"]},
                "columns must not name 'attention_mask', which the collator makes itself",
            ),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            Collator(MASK, seed=3, **arguments)
        assert str(caught.value) == message

    def test_text_ops_and_long_rows_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"^Collator takes token ops, but this op reads text: apply it before"):
            Collator(vg.ops.KeyboardTypo(rate=0.1), seed=3)
        with pytest.raises(InvalidInput, match=r"^rows must fit length=2 \(row 0 has 3 tokens\): pass truncation=$"):
            Collator(MASK, seed=3, length=2)([{"id": 1, "input_ids": [5, 6, 7]}])
        with pytest.raises(InvalidInput, match=r"^packing takes one sequence per row"):
            Collator(SPANS, seed=3, length=9, packing=True)([{"id": 1, "input_ids": [5, 6, 7]}])


WORDS = [[-1 if i % 9 == 0 else i // 3 for i in range(len(row["input_ids"]))] for row in ROWS]
OBJECTIVES: dict[str, vg.ops.Op] = {
    "mlm": MASK,
    "whole words": vg.ops.WholeWordMask(mlm_probability=0.3, mask_id=4, vocab_size=1000),
    "n-grams": vg.ops.NgramMask(mlm_probability=0.3, mask_id=4, vocab_size=1000),
    "span corruption": SPANS,
    "prefix": vg.ops.PrefixLM(),
    "UL2": vg.ops.UL2(sentinel_id=999, r_id=1, s_id=2, x_id=3),
    "BART": vg.Compose([vg.ops.SentencePermute(end_column="ends"), vg.ops.TextInfilling(mask_id=4)]),
    "FIM": vg.ops.FillInMiddle(fim_rate=0.9, prefix_id=1, middle_id=2, suffix_id=3),
}


def dressed_rows() -> list[dict[str, Any]]:
    """The rows, with the word of each token (None for special ones) and the ends of sentences."""
    return [
        row | {"word_ids": [w if w >= 0 else None for w in words], "ends": [t % 7 == 0 for t in row["input_ids"]]}
        for row, words in zip(ROWS, WORDS, strict=True)
    ]


def cells(batches: Any) -> list[list[list[int]]]:
    """Every row of collated batches, key by key, without its padding."""
    rows = []
    for batch in batches:
        assert list(batch) == ["input_ids", "attention_mask", "labels"]
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        for tokens, mask, labels in zip(*batch.values(), strict=True):
            own = labels[: int(labels.ne(-100).nonzero().max()) + 1] if labels.ne(-100).any() else labels[:0]
            rows.append([tokens[mask == 1].tolist(), own.tolist()])
    return rows


class TestObjectives:
    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_a_row_is_the_same_for_any_batch_size_and_workers_and_another_in_the_next_epoch(self, name: str) -> None:
        rows = dressed_rows()
        epochs = []
        for epoch in (0, 1):
            collator = Collator(OBJECTIVES[name], seed=3, epoch=epoch)
            expected = cells([collator(rows)])
            assert expected == [row for single in rows for row in cells([collator([single])])]
            for workers, size in ((0, 7), (1, 16), (2, 32)):
                assert cells(DataLoader(rows, size, num_workers=workers, collate_fn=collator)) == expected
            epochs.append(expected)
        long = [k for k, row in enumerate(rows) if len(row["input_ids"]) > 15]
        assert sum(epochs[0][k] != epochs[1][k] for k in long) > 0.8 * len(long)

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("name", ["UL2", "BART"])
    def test_persistent_workers_take_the_next_epoch(self, name: str, workers: int) -> None:
        rows = dressed_rows()
        collator = Collator(OBJECTIVES[name], seed=3)
        loader = DataLoader(rows, 9, num_workers=workers, collate_fn=collator, persistent_workers=True)
        for epoch in (0, 1):
            collator.set_epoch(epoch)
            assert cells(loader) == cells([Collator(OBJECTIVES[name], seed=3, epoch=epoch)(rows)])

    def test_words_come_from_the_rows_and_none_is_no_word(self) -> None:
        rows = dressed_rows()
        batch = Collator(OBJECTIVES["whole words"], seed=3, columns=["word_ids"])(rows)
        for labels, words, own in zip(batch["labels"], batch["word_ids"], WORDS, strict=True):
            assert words[: len(own)].tolist() == own
            chosen = (labels != -100)[: len(own)].numpy()
            for word in set(own):
                hits = {bool(chosen[i]) for i, other in enumerate(own) if other == word}
                assert hits == {False} if word < 0 else len(hits) == 1

    def test_denoising_labels_are_the_rows(self) -> None:
        batch = Collator(OBJECTIVES["BART"], seed=3)(dressed_rows())
        assert [row[row != -100].tolist() for row in batch["labels"]] == [row["input_ids"] for row in ROWS]

    def test_decoder_inputs_are_the_labels_shifted_as_transformers_does(self) -> None:
        from transformers.models.bart.modeling_bart import shift_tokens_right

        for name in ("span corruption", "UL2", "BART", "prefix"):
            collator = Collator(OBJECTIVES[name], seed=3, decoder_start_id=7, pad_id=5, pad_to_multiple_of=8)
            batch = collator(dressed_rows())
            assert batch["decoder_input_ids"].equal(shift_tokens_right(batch["labels"], 5, 7))
        with pytest.raises(InvalidInput, match=r"^decoder_start_id needs an op that makes a second sequence"):
            Collator(MASK, seed=3, decoder_start_id=7)(ROWS)
        with pytest.raises(InvalidInput, match=r"^decoder_start_id goes with side='right'"):
            Collator(SPANS, seed=3, decoder_start_id=7, side="left")

    def test_fim_keeps_loss_masks_exact(self) -> None:
        rows = [row | {"loss_mask": [int(t % 2) for t in row["input_ids"]]} for row in ROWS]
        batch = Collator(OBJECTIVES["FIM"], seed=3, columns=["loss_mask"])(rows)
        for tokens, mask, labels in zip(batch["input_ids"], batch["loss_mask"], batch["labels"], strict=True):
            odd = (tokens % 2 == 1) & (tokens > 4)
            assert mask.equal(odd.long())
            assert labels.equal(torch.where(odd, tokens, -100))

    def test_datasets_take_what_the_op_reads(self) -> None:
        rows = dressed_rows()
        dataset = AugmentedDataset(rows, OBJECTIVES["whole words"], seed=3, batch_size=8)
        got = [(row["input_ids"].tolist(), row["labels"].tolist()) for row in dataset]
        batch = Collator(OBJECTIVES["whole words"], seed=3)(rows)
        assert got == unpadded([batch])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_user(workers: int) -> None:
    loader = DataLoader([{"input_ids": [5]}], num_workers=workers, collate_fn=Collator(MASK, seed=3))
    with pytest.raises(InvalidInput, match=r"row 0 has no 'id'"):
        list(loader)


def test_nothing_hangs_when_the_parent_used_the_pool_before_forking() -> None:
    code = """
import faulthandler, numpy as np, variegate as vg
from torch.utils.data import DataLoader
from variegate.loaders.torch import Collator
faulthandler.dump_traceback_later(100, exit=True)
vg.set_num_threads(2)
rows = [{"id": i, "input_ids": np.arange(5, 2000)} for i in range(400)]
op = vg.ops.MaskedLM(mlm_probability=0.15, mask_id=4, vocab_size=32000)
collator = Collator(op, seed=3)
before = collator(rows)
for _ in range(2):
    (batch,) = DataLoader(rows, 400, num_workers=1, collate_fn=collator, multiprocessing_context="fork")
    assert all(batch[name].equal(before[name]) for name in before)
after = collator(rows)
assert all(after[name].equal(before[name]) for name in before)
print("same")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "same\n", done.stderr


class TestAugmentedDataset:
    @pytest.mark.parametrize("workers", [0, 2, 4])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_batches_are_the_same_for_any_number_of_workers(self, workers: int, shuffle: bool) -> None:
        dataset = AugmentedDataset(ROWS, NOISE, seed=3, batch_size=5, shuffle=shuffle)
        collate = Collator(None, seed=0, columns=["labels"])
        got = unpadded(DataLoader(dataset, 5, num_workers=workers, collate_fn=collate))
        expected = by_op(ROWS, NOISE)
        keys = [row["id"] for row in dataset]
        assert got == [expected[key] for key in keys]
        assert (keys == list(expected)) is not shuffle
        assert sorted(keys) == sorted(expected)

    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_any_batch_size_gives_the_same_rows(self, batch_size: int) -> None:
        dataset = AugmentedDataset(ROWS, NOISE, seed=3, batch_size=batch_size)
        assert [(row["id"], (row["input_ids"].tolist(), row["labels"].tolist())) for row in dataset] == list(
            by_op(ROWS, NOISE).items()
        )

    @pytest.mark.parametrize(("workers", "after"), [(0, 1), (0, 6), (0, 11), (2, 0), (2, 3), (4, 5)])
    def test_a_stateful_loader_resumes_exactly(self, workers: int, after: int) -> None:
        def loader() -> StatefulDataLoader:
            dataset = AugmentedDataset(ROWS, NOISE, seed=3, batch_size=4, shuffle=True)
            dataset.set_epoch(2)
            collate = Collator(None, seed=0, columns=["labels"])
            return StatefulDataLoader(dataset, 5, num_workers=workers, collate_fn=collate)

        first = loader()
        iteration = iter(first)
        for _ in range(after):
            next(iteration)
        state = pickle.loads(pickle.dumps(first.state_dict()))
        rest = unpadded(iteration)
        resumed = loader()
        resumed.dataset.set_epoch(0)
        resumed.load_state_dict(state)
        assert unpadded(resumed) == rest
        # The epoch after the interrupted one is whole, and it is still epoch 2 here.
        assert sorted(unpadded(resumed)) == sorted(by_op(ROWS, NOISE, 2).values())

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_stateful_loader_over_plain_rows_resumes_exactly(self, workers: int) -> None:
        def loader() -> StatefulDataLoader:
            return StatefulDataLoader(ROWS, 5, num_workers=workers, collate_fn=Collator(NOISE, seed=3, epoch=1))

        first = loader()
        iteration = iter(first)
        next(iteration), next(iteration), next(iteration)
        resumed = loader()
        resumed.load_state_dict(first.state_dict())
        assert unpadded(resumed) == unpadded(iteration) == list(by_op(ROWS, NOISE, 1).values())[15:]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_epochs_reach_persistent_workers(self, method: str) -> None:
        dataset = AugmentedDataset(ROWS, NOISE, seed=3, batch_size=6)
        loader = DataLoader(
            dataset,
            6,
            num_workers=2,
            collate_fn=Collator(None, seed=0, columns=["labels"]),
            persistent_workers=True,
            multiprocessing_context=method,
        )
        for epoch in (0, 1, 0):
            dataset.set_epoch(epoch)
            assert unpadded(loader) == list(by_op(ROWS, NOISE, epoch).values())

    def test_a_row_in_the_middle_of_several_variants_is_a_place_to_resume(self) -> None:
        dataset = AugmentedDataset(ROWS[:7], vg.Repeat(NOISE, n=3), seed=3, batch_size=2)
        whole = [plain(row) for row in dataset]
        assert len(whole) == 21
        assert len({row["id"] for row in whole}) == 21
        reader = iter(dataset)
        for taken in range(21):
            again = iter(dataset)
            again.load_state_dict(reader.state_dict())
            assert [plain(row) for row in again] == whole[taken:]
            next(reader)

    def test_the_state_is_small_and_knows_its_shard(self) -> None:
        reader = iter(AugmentedDataset(ROWS, NOISE, seed=3, batch_size=4))
        for _ in range(9):
            next(reader)
        state = reader.state_dict()
        assert (state["epoch"], state["block"], state["row"]) == (0, 2, 1)
        other = iter(AugmentedDataset(ROWS, NOISE, seed=3, batch_size=8))
        with pytest.raises(InvalidInput) as caught:
            other.load_state_dict(state)
        assert str(caught.value) == "the state was saved with batch_size=4, but this dataset has batch_size=8"

    def test_resuming_reads_nothing_before_its_place(self) -> None:
        read = []

        class Counted(list[Any]):
            def __getitem__(self, place: Any) -> Any:
                read.append(place)
                return super().__getitem__(place)

        rows = Counted(ROWS)
        dataset = AugmentedDataset(rows, NOISE, seed=3, batch_size=4)
        reader = iter(dataset)
        for _ in range(41):
            next(reader)
        again = iter(dataset)
        read.clear()
        again.load_state_dict(reader.state_dict())
        next(again)
        assert read == [40, 41, 42, 43]

    @pytest.mark.parametrize("world_size", [2, 3])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_ranks_split_by_record(self, world_size: int, shuffle: bool) -> None:
        def shares(rows: list[Any], drop_last: bool = False) -> list[list[str]]:
            return [
                [
                    row["id"]
                    for row in AugmentedDataset(
                        rows, MASK, seed=3, rank=r, world_size=world_size, shuffle=shuffle, drop_last=drop_last
                    )
                ]
                for r in range(world_size)
            ]

        one = shares(ROWS)
        assert {len(share) for share in one} == {-(-53 // world_size)}
        assert {key for share in one for key in share} == {row["id"] for row in ROWS}
        turned = shares(ROWS[17:] + ROWS[:17])
        assert [set(share) for share in one] == [set(share) for share in turned]
        assert (one == turned) is shuffle
        dropped = shares(ROWS, drop_last=True)
        assert {len(share) for share in dropped} == {53 // world_size}
        assert len({key for share in dropped for key in share}) == 53 // world_size * world_size

    def test_shuffling_goes_by_epoch_and_key(self) -> None:
        dataset = AugmentedDataset(ROWS, MASK, seed=3, shuffle=True)
        turned = AugmentedDataset(ROWS[9:] + ROWS[:9], MASK, seed=3, shuffle=True)
        orders = []
        for epoch in (0, 1, 0):
            dataset.set_epoch(epoch)
            turned.set_epoch(epoch)
            orders.append([row["id"] for row in dataset])
            assert orders[-1] == [row["id"] for row in turned]
        assert orders[0] == orders[2] != orders[1]

    def test_batches_and_texts_are_sources(self) -> None:
        batch = vg.TokenBatch.from_lists([row["input_ids"] for row in ROWS], ids=range(53))
        got = [row["input_ids"].tolist() for row in AugmentedDataset(batch, MASK, seed=3, batch_size=8)]
        assert got == MASK(batch, seed=3).to_lists()
        typo = vg.ops.KeyboardTypo(rate=0.3)
        texts = ["the quick brown fox", "jumps over", ""]
        expected = typo(vg.TextBatch.from_texts(texts, ids=[0, 1, 2]), seed=3).texts
        rows = [{"id": i, "text": text, "lang": "en"} for i, text in enumerate(texts)]
        got = list(AugmentedDataset(rows, typo, seed=3, batch_size=2))
        assert got == [{"id": i, "text": text, "lang": "en"} for i, text in enumerate(expected)]
        texts_only = vg.TextBatch.from_texts(texts, ids=[0, 1, 2], rows={"lang": np.array(["en"] * 3)})
        assert list(AugmentedDataset(texts_only, typo, seed=3)) == got

    @pytest.mark.parametrize("ids", ["content", "position"])
    def test_rows_without_keys(self, ids: Any) -> None:
        rows = [{"input_ids": row["input_ids"]} for row in ROWS]
        keys = range(53) if ids == "position" else None
        out = MASK(vg.TokenBatch.from_lists([row["input_ids"] for row in rows], ids=keys), seed=3)
        got = [plain(row)["input_ids"] for row in AugmentedDataset(rows, MASK, seed=3, ids=ids, batch_size=4)]
        assert got == out.to_lists()
        shuffled = [plain(r)["input_ids"] for r in AugmentedDataset(rows, MASK, seed=3, ids=ids, shuffle=True)]
        assert sorted(shuffled) == sorted(got)

    def test_bad_arguments_are_named(self) -> None:
        for arguments, message in (
            ({"batch_size": 0}, "batch_size must be at least 1 (it is 0)"),
            ({"rank": 2, "world_size": 2}, "rank must lie in 0..1 (it is 2)"),
        ):
            with pytest.raises(InvalidInput) as caught:
                AugmentedDataset(ROWS, MASK, seed=3, **arguments)
            assert str(caught.value) == message
        with pytest.raises(InvalidInput, match=r"^rows must have len\(\) and \[\], which generator lacks"):
            AugmentedDataset((row for row in ROWS), MASK, seed=3)
        with pytest.raises(InvalidInput, match=r"^row 0 has no 'id', which keys its randomness"):
            AugmentedDataset([{"input_ids": [5]}], MASK, seed=3, shuffle=True)


class TestAugmentedMapDataset:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_any_sampler_gives_the_same_rows(self, workers: int) -> None:
        dataset = AugmentedMapDataset(ROWS, NOISE, seed=3)
        collate = Collator(None, seed=0, columns=["labels"])
        sampler = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=4)
        got = unpadded(DataLoader(dataset, 7, sampler=sampler, num_workers=workers, collate_fn=collate))
        expected = list(by_op(ROWS, NOISE).values())
        assert got == [expected[i] for i in sampler]
        assert plain(dataset[-1])["input_ids"] == expected[-1][0]
        with pytest.raises(IndexError, match=r"^index 53 is outside 0\.\.52$"):
            dataset[53]

    def test_an_epoch_waits_for_the_next_iteration(self) -> None:
        dataset = AugmentedMapDataset(ROWS, NOISE, seed=3)
        collate = Collator(None, seed=0, columns=["labels"])
        loader = DataLoader(dataset, 4, num_workers=2, collate_fn=collate, persistent_workers=True)
        iteration = iter(loader)
        first = next(iteration)
        dataset.set_epoch(1)
        assert unpadded([first, *iteration]) == list(by_op(ROWS, NOISE, 0).values())
        assert unpadded(loader) == list(by_op(ROWS, NOISE, 1).values())
        other = AugmentedMapDataset(ROWS, NOISE, seed=3)
        other.load_state_dict(dataset.state_dict())
        assert other.epoch == 1

    def test_ops_that_multiply_rows_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"^AugmentedMapDataset needs an op that keeps rows one for one"):
            AugmentedMapDataset(ROWS, vg.Repeat(MASK, n=2), seed=3)[0]


COLUMNS = {"id": [row["id"] for row in ROWS], "input_ids": [row["input_ids"] for row in ROWS]}


class TestTransform:
    def test_columns_that_ops_protect_are_taken(self):
        protect = vg.ops.Protect(columns=("shut",))
        for op in (
            vg.ops.TokenDropout(rate=1.0, protect=protect),
            vg.Sometimes(vg.Compose([vg.ops.TokenDropout(rate=1.0, protect=protect)]), p=1.0),
        ):
            assert op.reads == {"shut": "uint8"}
            out = Transform(op, seed=1)({"id": [1], "input_ids": [[5, 6, 7]], "shut": [[0, True, 0]]})
            assert out == {"id": [1], "input_ids": [[6]], "shut": [[1]]}

    def test_columns_that_an_op_reads_are_taken(self):
        transform = Transform(vg.ops.WholeWordMask(mlm_probability=1.0, mask_id=1, vocab_size=9), seed=1)
        out = transform({"id": [1], "input_ids": [[5, 6, 7]], "word_ids": [[0, 0, None]]})
        assert out["labels"] == [[5, 6, -100]]

    def check(self, got: Any, epoch: int = 0) -> None:
        assert list(got["input_ids"]) == [tokens for tokens, _ in by_op(ROWS, NOISE, epoch).values()]
        assert list(got["labels"]) == [labels for _, labels in by_op(ROWS, NOISE, epoch).values()]
        assert list(got["id"]) == COLUMNS["id"]

    def test_plain_dicts_of_lists(self) -> None:
        transform = Transform([vg.ops.TokenDropout(rate=0.2), MASK], 3)
        self.check(transform(COLUMNS))
        self.check(dataclasses.replace(transform, epoch=4)(COLUMNS), epoch=4)
        self.check(pickle.loads(pickle.dumps(transform))(COLUMNS))
        assert pickle.loads(pickle.dumps(transform)) == transform

    @pytest.mark.parametrize("batch_size", [1, 10, 1000])
    def test_datasets_map(self, batch_size: int) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(COLUMNS)
        self.check(data.map(Transform(NOISE, 3), batched=True, batch_size=batch_size))
        arrow = data.with_format("arrow").map(Transform(NOISE, 3), batched=True, batch_size=batch_size)
        self.check(arrow.with_format(None))
        stream = data.to_iterable_dataset().map(Transform(NOISE, 3), batched=True, batch_size=batch_size)
        rows = list(stream)
        self.check({name: [row[name] for row in rows] for name in rows[0]})

    @pytest.mark.parametrize("kind", ["numpy", "torch"])
    def test_datasets_formats(self, kind: str) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(COLUMNS).with_format(kind)
        self.check(data.map(Transform(NOISE, 3), batched=True, batch_size=6).with_format(None))

    def test_datasets_with_transform_and_loader(self) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(COLUMNS).with_transform(Transform(NOISE, 3))
        self.check(data[:])
        assert data[7]["input_ids"] == by_op(ROWS, NOISE)["doc-7"][0]
        collate = Collator(None, seed=0, columns=["labels"])
        assert unpadded(DataLoader(data, 6, num_workers=2, collate_fn=collate)) == list(by_op(ROWS, NOISE).values())

    def test_datasets_as_sources(self) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(COLUMNS)
        got = {row["id"]: plain(row) for row in AugmentedDataset(data, NOISE, seed=3, shuffle=True, batch_size=9)}
        assert {key: (row["input_ids"], row["labels"]) for key, row in got.items()} == by_op(ROWS, NOISE)

    def test_arrow_tables_keep_their_types(self) -> None:
        table = pa.table(
            {
                "id": pa.array(COLUMNS["id"]),
                "input_ids": pa.array(COLUMNS["input_ids"], pa.list_(pa.int64())),
                "lang": pa.array(["en"] * 53),
            }
        )
        whole = Transform(NOISE, 3)(table)
        assert whole.schema.field("input_ids").type == pa.list_(pa.int64())
        assert whole.schema.field("labels").type == pa.list_(pa.int32())
        self.check(whole.to_pydict())
        parts = [Transform(NOISE, 3)(batch) for batch in table.to_batches(max_chunksize=8)]
        assert pa.concat_tables(parts).combine_chunks() == whole.combine_chunks()
        chunked = pa.concat_tables([table.slice(0, 20), table.slice(20)])
        assert Transform(NOISE, 3)(chunked).combine_chunks() == whole.combine_chunks()

    def test_rows_that_multiply_take_their_columns_along(self) -> None:
        batch = {"id": [1, 2], "input_ids": [[5, 6, 7, 8]] * 2, "lang": ["en", "de"]}
        transform = Transform(vg.Repeat(MASK, n=2), 3)
        out = transform(batch)
        assert out["lang"] == ["en", "en", "de", "de"]
        assert len(set(out["id"])) == 4
        repeated = vg.Repeat(MASK, n=2)(vg.TokenBatch.from_lists(batch["input_ids"], ids=[1, 2]), seed=3)
        assert out["id"] == repeated.ids.tolist()
        assert out["input_ids"] == repeated.to_lists()
        table = transform(pa.table(batch))
        assert table.to_pydict() == out

    def test_text_ops(self) -> None:
        typo = vg.ops.KeyboardTypo(rate=0.3)
        batch = {"id": [1, 2], "text": ["the quick brown fox", "naïve"], "n": [1, 2]}
        expected = typo(vg.TextBatch.from_texts(batch["text"], ids=[1, 2]), seed=3).texts
        assert Transform(typo, 3)(batch) == batch | {"text": expected}
        table = Transform(typo, 3)(pa.table(batch))
        assert table.to_pydict() == batch | {"text": expected}
        assert table.schema.field("text").type == pa.string()

    def test_second_sequences_sources_and_columns(self) -> None:
        batch = {"id": [1, 2], "input_ids": [list(range(5, 25))] * 2, "attention_mask": [[1] * 20] * 2}
        out = Transform(SPANS, 3)(batch)
        made = SPANS(vg.TokenBatch.from_lists(batch["input_ids"], ids=[1, 2]), seed=3)
        assert out["labels"] == made.targets.to_lists()
        moved = Transform(vg.ops.TokenDropout(rate=0.5), 3, columns=("attention_mask",), return_source=True)
        for made in (moved(batch), moved(pa.table(batch)).to_pydict()):
            for source, tokens, mask, edited in zip(
                made["source"], made["input_ids"], made["attention_mask"], made["edited"], strict=True
            ):
                assert [batch["input_ids"][0][i] for i in source] == tokens
                assert (mask, edited) == ([1] * len(tokens), [0] * len(tokens))

    def test_bad_batches_are_named(self) -> None:
        for batch, message in (
            ({"id": [1]}, "the batch has no column 'input_ids' (there are ['id'])"),
            (
                {"input_ids": [[5]]},
                "the batch has no 'id', which keys the randomness of its rows: add a column of int or str keys, or "
                "pass ids='content' or ids='position'",
            ),
            (
                [1],
                "Transform takes a mapping of columns or a pyarrow table, not list: set batched=True, or "
                "batch_format='pyarrow'",
            ),
            ({"id": [None], "input_ids": [[5]]}, "'id' must be an int or a str (row 0: None)"),
        ):
            with pytest.raises(InvalidInput) as caught:
                Transform(MASK, 3)(batch)
            assert str(caught.value) == message
        with pytest.raises(InvalidInput, match=r"^columns belong to tokens, but the ops change text"):
            Transform(vg.ops.KeyboardTypo(rate=0.1), 3, columns=("labels",))
        for epoch in ("x", 1.5, None):
            with pytest.raises(InvalidInput, match=r"^epoch must be an integer \(it is "):
                Transform(MASK, 3, epoch=epoch)  # type: ignore[arg-type]


def test_torch_is_asked_for_by_name_when_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import variegate.loaders as loaders

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "variegate.loaders.torch")
    monkeypatch.delattr(loaders, "torch")
    with pytest.raises(MissingExtra) as caught:
        loaders.torch  # noqa: B018
    assert str(caught.value) == "variegate.loaders.torch needs PyTorch: pip install 'variegate[torch]'"


def test_the_transform_needs_no_torch() -> None:
    code = "import sys, variegate as vg; vg.loaders.Transform; sys.exit(bool({'torch', 'pyarrow'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_chapter_runs_as_written() -> None:
    pytest.importorskip("datasets")
    chapter = (Path(__file__).parents[1] / "docs" / "loaders.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", chapter, re.S)
    assert len(snippets) == 6
    exec(compile("\n".join(snippets), "loaders.md", "exec"), {"__name__": "chapter"})


def test_the_example_measures_its_throughput_and_resumes() -> None:
    example = Path(__file__).parents[1] / "examples" / "dataloader.py"
    command = [sys.executable, "-W", "ignore", example, "--rows", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    measured = re.findall(
        r"^(\d) workers: ([\d,]+) tokens, first batch after \d+\.\d+ s, then [1-9][\d,]* tokens/s$", done.stdout, re.M
    )
    assert [workers for workers, _ in measured] == ["0", "1", "2"]
    assert len({tokens for _, tokens in measured}) == 1
    assert "the same losses: True" in done.stdout
