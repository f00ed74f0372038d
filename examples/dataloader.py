"""Train on masked text, get interrupted, go on: the batches are those of a run that never stopped.

    python examples/dataloader.py

Needs variegate[torch] and torchdata. The text is the standard library's own, one token per byte.
"""

from __future__ import annotations

import inspect
import json
import string
import textwrap
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

import variegate as vg
from variegate.loaders.torch import AugmentedDataset, Collator

PAD, MASK, VOCABULARY = 0, 256, 257
EPOCHS, BATCH, STOP = 2, 16, 11


def documents() -> list[dict[str, Any]]:
    """One row per function of two modules: a key that stays with it, and its bytes as token ids."""
    rows = []
    for module in (json, string, textwrap, inspect):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            source = inspect.getsource(function).encode()[:400]
            rows.append({"id": f"{module.__name__}.{name}", "input_ids": list(source)})
    return rows


def loader(rows: list[dict[str, Any]], epoch: int) -> StatefulDataLoader:
    """Noise and masks drawn per record and epoch, two workers."""
    ops = [vg.ops.TokenDropout(rate=0.05), vg.ops.MaskedLM(mlm_probability=0.15, mask_id=MASK, vocab_size=VOCABULARY)]
    dataset = AugmentedDataset(rows, ops, seed=7, batch_size=BATCH, shuffle=True, epoch=epoch)
    pad = Collator(None, seed=7, pad_id=PAD, columns=["labels"])
    return StatefulDataLoader(dataset, batch_size=BATCH, num_workers=2, collate_fn=pad)


def train(rows: list[dict[str, Any]], stop: int | None) -> list[float]:
    """The loss of every step of a small model; with `stop`, the run is torn down and resumed after that step."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(VOCABULARY, 64), torch.nn.Conv1d(64, 64, 9, padding=4), torch.nn.Linear(64, VOCABULARY)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    for epoch in range(EPOCHS):
        batches = loader(rows, epoch)
        steps = iter(batches)
        while (batch := next(steps, None)) is not None:
            hidden = model[1](model[0](batch["input_ids"]).transpose(1, 2)).transpose(1, 2)
            logits = model[2](torch.relu(hidden))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if len(losses) == stop:
                state = batches.state_dict()
                del steps, batches
                batches = loader(rows, epoch=0)
                batches.load_state_dict(state)
                steps = iter(batches)
    return losses


def main() -> None:
    """Two runs, one of them interrupted in the middle of the second epoch."""
    torch.use_deterministic_algorithms(True)
    rows = documents()
    whole, interrupted = train(rows, stop=None), train(rows, stop=STOP)
    print(f"{len(rows)} documents, {len(whole)} steps, loss {whole[0]:.3f} -> {whole[-1]:.3f}")
    print(f"interrupted after step {STOP}: the same losses: {whole == interrupted}")


if __name__ == "__main__":
    main()
