"""A large JSONL from text at hand: documents put together from random lines of the standard library's text.

Two documents share hardly a shingle, but for those that are planted: copies, and copies of which a few words changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from variegate import demo

COPIES, NEAR = 0.02, 0.05
"""Shares of documents that are copies, and near-duplicates, of an earlier one."""
LINES = 25
BLOCK = 20_000


def write(path: Path, size: int, *, seed: int = 1) -> tuple[int, int]:
    """Writes about `size` bytes of records with keys; returns records and bytes. One Python gives the same bytes."""
    rng = np.random.default_rng(seed)
    lines = sorted({line for _, text in demo.records() for line in text.split("\n") if len(line) > 20})
    encoded = [json.dumps(line, ensure_ascii=False)[1:-1] + "\\n" for line in lines]
    rows = written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while written < size:
            picks = rng.integers(0, len(encoded), (BLOCK, LINES)).tolist()
            kinds, sources = rng.random(BLOCK).tolist(), rng.integers(0, BLOCK, BLOCK).tolist()
            block: list[str] = []
            for at in range(BLOCK):
                chosen = picks[sources[at] % at] if at and kinds[at] < COPIES + NEAR else picks[at]
                body = [encoded[line] for line in chosen]
                if COPIES <= kinds[at] < COPIES + NEAR:
                    body[at % LINES] = "another line\\n"
                block.append(f'{{"id": {rows + at}, "text": "{"".join(body)}"}}\n')
            text = "".join(block)
            file.write(text)
            rows, written = rows + BLOCK, written + len(text.encode())
    return rows, written
