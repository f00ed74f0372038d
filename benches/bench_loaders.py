"""From dict rows, as a DataLoader hands them over, to the tensors of a training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

import variegate as vg
from _harness import Compare
from variegate.loaders.torch import Collator

VOCABULARY = 32_000
MASK_ID = 4
OP = vg.ops.MaskedLM(mlm_probability=0.15, mask_id=MASK_ID, vocab_size=VOCABULARY)
LAYOUT = "documents of 50-500 tokens as Python lists; padding, masking and labels included"


def documents(rows: int) -> list[list[int]]:
    """Ragged documents of 50 to 500 ids above the special ones."""
    draw = np.random.default_rng(rows)
    return [draw.integers(5, VOCABULARY, int(length)).tolist() for length in draw.integers(50, 501, rows)]


def hugging_face() -> DataCollatorForLanguageModeling:
    """The peer, over a vocabulary of words w0, w1, ...: it needs a tokenizer for its special ids."""
    torch.set_num_threads(1)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1")),
        mask_token=f"w{MASK_ID}",
        pad_token="w0",
        unk_token="w1",
    )
    return DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15)


def masked_well(batch: dict[str, Any], docs: list[list[int]]) -> bool:
    """Whether a collated batch is these documents, padded, with about 15 % masked 80/10/10 and labelled."""
    inputs, mask, labels = (batch[name].numpy() for name in ("input_ids", "attention_mask", "labels"))
    width = max(map(len, docs))
    truth = np.array([doc + [0] * (width - len(doc)) for doc in docs])
    cells = np.array([[1] * len(doc) + [0] * (width - len(doc)) for doc in docs])
    chosen = labels != -100
    near = 5 / np.sqrt(cells.sum())
    return bool(
        (inputs.dtype, mask.dtype, labels.dtype) == (np.int64,) * 3
        and (mask == cells).all()
        and not (chosen & (cells == 0)).any()
        and (labels[chosen] == truth[chosen]).all()
        and (inputs[~chosen] == truth[~chosen]).all()
        and abs(chosen.sum() / cells.sum() - 0.15) < near
        and abs((inputs[chosen] == MASK_ID).mean() - 0.8) < 3 * near
        and abs((inputs[chosen] == truth[chosen]).mean() - 0.1) < 3 * near
    )


@pytest.mark.parametrize("rows", [32, 256])
def bench_collator(compare: Compare, rows: int) -> None:
    docs = documents(rows)
    keyed = [{"input_ids": doc, "id": f"doc-{i}"} for i, doc in enumerate(docs)]
    plain = [{"input_ids": doc} for doc in docs]
    ours, theirs = Collator(OP, seed=7), hugging_face()
    compare(
        f"collator_{rows}_rows",
        lambda: ours(keyed),
        lambda: theirs(plain),
        check=lambda mine, peer: masked_well(mine, docs) and masked_well(peer, docs),
        units=sum(map(len, docs)),
        unit="tokens",
        peer_name="DataCollatorForLanguageModeling",
        peer_package="transformers",
        goal_ratio=8,
        note=LAYOUT,
    )


def bench_whole_word_collator(compare: Compare) -> None:
    """The peer needs rows of one length, and offsets instead of word ids."""
    rows, length = 64, 256
    draw = np.random.default_rng(5)
    starts = draw.random((rows, length)) < 0.7
    starts[:, 0] = True
    words = np.cumsum(starts, axis=1) - 1
    docs = draw.integers(5, VOCABULARY, (rows, length)).tolist()
    keyed = [{"input_ids": doc, "id": i, "word_ids": words[i].tolist()} for i, doc in enumerate(docs)]
    # A token is three characters long; a gap of one character starts a word.
    begin = 3 * np.arange(length) + words
    plain = [
        {
            "input_ids": doc,
            "special_tokens_mask": [0] * length,
            "offset_mapping": list(zip(begin[i].tolist(), (begin[i] + 3).tolist(), strict=True)),
        }
        for i, doc in enumerate(docs)
    ]
    ours, theirs = Collator(vg.ops.WholeWordMask(mask_id=MASK_ID, vocab_size=VOCABULARY), seed=7), hugging_face()
    theirs.whole_word_mask = True

    def whole(labels: np.ndarray) -> bool:
        chosen = labels != -100
        same = words[:, 1:] == words[:, :-1]
        return bool((chosen[:, 1:] == chosen[:, :-1])[same].all() and abs(chosen.mean() - 0.15) < 0.02)

    compare(
        "collator, whole words",
        lambda: ours(keyed),
        lambda: theirs([dict(row) for row in plain]),
        check=lambda mine, peer: whole(mine["labels"].numpy()) and whole(peer["labels"].numpy()),
        units=rows * length,
        unit="tokens",
        peer_name="DataCollatorForLanguageModeling(whole_word_mask)",
        peer_package="transformers",
        goal_ratio=8,
        note="64 rows of 256 tokens as Python lists; padding, masking and labels included",
    )


def bench_span_corruption_collator(compare: Compare) -> None:
    """The peer is T5's law in numpy, a document at a time, and padding by torch, as in the examples of transformers."""
    docs = documents(256)
    keyed = [{"input_ids": doc, "id": i} for i, doc in enumerate(docs)]
    sentinel = VOCABULARY + 99
    ours = Collator(vg.ops.SpanCorruption(sentinel_id=sentinel, eos_id=1), seed=7)
    draw = np.random.default_rng(0)

    def segments(items: int, parts: int) -> np.ndarray:
        first = np.arange(items - 1) < parts - 1
        draw.shuffle(first)
        return np.bincount(np.cumsum(np.concatenate([[False], first])), minlength=parts)

    def corrupt(doc: list[int]) -> list[torch.Tensor]:
        tokens = np.array(doc)
        noise = min(max(int(np.round(len(tokens) * 0.15)), 1), len(tokens) - 1)
        spans = max(int(np.round(noise / 3.0)), 1)
        parts = np.stack([segments(len(tokens) - noise, spans), segments(noise, spans)], 1).ravel()
        noisy = np.repeat(np.arange(2 * spans) % 2 == 1, parts)
        starts = np.concatenate([[True], noisy[1:] != noisy[:-1]])
        strands = []
        for mask in (noisy, ~noisy):
            kept = np.where(mask, sentinel - (np.cumsum(starts & mask) - 1), tokens)[~mask | starts & mask]
            strands.append(torch.from_numpy(np.append(kept, 1)))
        return strands

    def peer() -> dict[str, torch.Tensor]:
        strands = [corrupt(row["input_ids"]) for row in keyed]
        pad = torch.nn.utils.rnn.pad_sequence
        inputs = [inputs for inputs, _ in strands]
        return {
            "input_ids": pad(inputs, batch_first=True),
            "attention_mask": pad([torch.ones_like(row) for row in inputs], batch_first=True),
            "labels": pad([targets for _, targets in strands], batch_first=True, padding_value=-100),
        }

    def restored(batch: dict[str, Any]) -> bool:
        """Whether the documents come back when each span takes the place of its sentinel."""
        for doc, inputs, labels in zip(docs, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            spans: dict[int, list[int]] = {}
            for token in labels[: labels.index(1)]:
                if token >= VOCABULARY:
                    spans[token] = []
                else:
                    spans[list(spans)[-1]].append(token)
            if [t for token in inputs[: inputs.index(1)] for t in spans.get(token, [token])] != doc:
                return False
        return True

    compare(
        "collator, span corruption",
        lambda: ours(keyed),
        peer,
        check=lambda mine, theirs: (
            restored(mine) and restored(theirs) and mine["labels"].shape == theirs["labels"].shape
        ),
        units=sum(map(len, docs)),
        unit="tokens",
        peer_name="numpy, a document at a time",
        peer_package="numpy",
        goal_ratio=8,
        note=LAYOUT,
    )
