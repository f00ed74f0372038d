"""Encoding text that the tokenizer has not seen: code of the installed packages, after a warm-up on Python's library.

The ids of every document are compared with those of Hugging Face's tokenizers before anything is timed.
"""

from __future__ import annotations

import statistics
import sysconfig
from importlib import metadata
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

import variegate as vg
from _harness import Ledger

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("gigatoken")

SEEN_BYTES = 8_000_000
UNSEEN_BYTES = 20_000_000
ROUNDS = 7
GOAL_RATE = 15e6


def texts(folder: str, size: int) -> list[str]:
    """Files under a folder, in order of their paths, until there are `size` bytes."""
    found: list[str] = []
    for path in sorted(Path(folder).rglob("*.py")):
        inside = path.relative_to(folder).parts
        if ("site-packages" in inside) or not path.stat().st_size:
            continue
        try:
            found.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
        size -= path.stat().st_size
        if size <= 0:
            break
    return found


def fresh(documents: list[str]) -> vg.TextBatch:
    """A batch that has not yet hashed its rows, so that a round pays for it."""
    return vg.TextBatch.from_texts(documents)


def bench_tokenizer(ledger: Ledger, tmp_path: Path):
    file = vg.Tokenizer.default().save(tmp_path)
    seen = texts(sysconfig.get_path("stdlib"), SEEN_BYTES)
    known = set(seen)
    unseen = [text for text in texts(sysconfig.get_path("purelib"), UNSEEN_BYTES) if text not in known]
    reference = tokenizers.Tokenizer.from_file(str(file))
    reference.encode_batch_fast(seen, add_special_tokens=False)
    start = perf_counter()
    encodings = reference.encode_batch_fast(unseen, add_special_tokens=False)
    their_seconds = perf_counter() - start
    expected = [encoding.ids for encoding in encodings]
    del encodings

    seconds, cold = [], []
    for _ in range(ROUNDS):
        tokenizer = vg.Tokenizer(file)
        assert tokenizer.engine == "gigatoken", tokenizer.engine_reason
        batch = fresh(seen)
        start = perf_counter()
        tokens = tokenizer.encode(batch).tokens.size
        cold.append((perf_counter() - start) / tokens)
        batch = fresh(unseen)
        start = perf_counter()
        encoded = tokenizer.encode(batch)
        seconds.append(perf_counter() - start)
        assert encoded.to_lists() == expected, "other ids than Hugging Face's"

    units = encoded.tokens.size
    best = min(seconds)
    ledger.add(
        "tokenizer",
        unit="tokens",
        units=units,
        rate=units / best,
        best=best,
        median=statistics.median(seconds),
        rounds=ROUNDS,
        cold_rate=1 / min(cold),
        documents=len(unseen),
        bytes=int(np.sum(batch.lengths)),
        peer={
            "name": "tokenizers encode_batch_fast",
            "version": metadata.version("tokenizers"),
            "rate": units / their_seconds,
            "best": their_seconds,
            "median": their_seconds,
            "rounds": 1,
        },
        ratio=their_seconds / best,
        goals={"rate": GOAL_RATE},
        met=units / best >= GOAL_RATE,
        note="unseen text after a warm-up on other text, 8k byte-level BPE, record ids hashed; "
        f"gigatoken {metadata.version('gigatoken')}",
    )
