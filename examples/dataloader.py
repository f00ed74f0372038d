"""Mask text in a DataLoader: how fast that is, and that an interrupted training goes on with the same batches.

    python examples/dataloader.py [--rows N]

Needs variegate[torch] and torchdata. The text is the standard library's own, one token per byte.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import variegate as vg
from variegate.loaders.torch import AugmentedDataset, Collator

PAD, MASK, VOCABULARY = 0, 256, 257
LENGTH = 1024
EPOCHS, BATCH, STOP = 2, 16, 11
OPS = [vg.ops.TokenDropout(rate=0.05), vg.ops.MaskedLM(mlm_probability=0.15, mask_id=MASK, vocab_size=VOCABULARY)]


def documents(limit: int) -> list[dict[str, Any]]:
    """Pieces of the standard library's modules: a key that stays with each, and its bytes as token ids."""
    rows = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        source = np.frombuffer(path.read_bytes(), np.uint8)
        for start in range(0, len(source), LENGTH):
            rows.append({"id": f"{path.stem}:{start}", "input_ids": source[start : start + LENGTH]})
    return rows[:limit]


def throughput(rows: list[dict[str, Any]], workers: int) -> tuple[int, float, float]:
    """(tokens, seconds to the first batch, tokens a second after it) of an epoch; the start of the workers counts."""
    collator = Collator(OPS, seed=7, pad_id=PAD)
    batches = DataLoader(rows, batch_size=64, shuffle=True, num_workers=workers, collate_fn=collator)
    counts = []
    start = first = perf_counter()
    for batch in batches:
        if not counts:
            first = perf_counter()
        counts.append(int(batch["attention_mask"].sum()))
    return sum(counts), first - start, sum(counts[1:]) / (perf_counter() - first)


def loader(rows: list[dict[str, Any]], epoch: int) -> StatefulDataLoader:
    """Noise and masks drawn per record and epoch, two workers."""
    dataset = AugmentedDataset(rows, OPS, seed=7, batch_size=BATCH, shuffle=True, epoch=epoch)
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
    """Measures, then trains twice, once interrupted in the middle of the second epoch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000, help="how many pieces of text at most, more than 64")
    rows = documents(parser.parse_args().rows)
    for workers in (0, 1, 2):
        tokens, first, rate = throughput(rows, workers)
        print(f"{workers} workers: {tokens:,} tokens, first batch after {first:.3f} s, then {rate:,.0f} tokens/s")
    torch.use_deterministic_algorithms(True)
    rows = [row | {"input_ids": row["input_ids"][:400]} for row in rows[:100]]
    whole, interrupted = train(rows, stop=None), train(rows, stop=STOP)
    print(f"{len(rows)} documents, {len(whole)} steps, loss {whole[0]:.3f} -> {whole[-1]:.3f}")
    print(f"interrupted after step {STOP}: the same losses: {whole == interrupted}")


if __name__ == "__main__":
    main()
