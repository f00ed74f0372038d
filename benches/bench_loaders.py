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
