"""The index on disk against datasketch's in memory, and deduplication of a million documents in 256 MB."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import variegate as vg
from _harness import Compare, Ledger, met
from bench_dedup import NGRAM, PART, corpus, shingle_keys, truth

THRESHOLD = 0.7
STREAMS = {"mixed": 1_000_000, "crowd": 200_000}
"""Documents of the synthetic streams, of 200 tokens each."""
MEMORY = 256_000_000


def sketches(batch: vg.TokenBatch) -> list[Any]:
    import datasketch

    keys, offsets = shingle_keys(batch)
    made = []
    for start, end in itertools.pairwise(offsets.tolist()):
        sketch = datasketch.MinHash(num_perm=128, hashfunc=int)
        sketch.update_batch(keys[start:end] & np.uint64(0xFFFFFFFF))
        made.append(sketch)
    return made


def filled(batch: vg.TokenBatch) -> Any:
    """datasketch's index of a batch, from tokens."""
    import datasketch

    index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=128)
    for r, sketch in enumerate(sketches(batch)):
        index.insert(r, sketch)
    return index


def added(folder: Path, batch: vg.TokenBatch) -> Path:
    """An index of a batch, synced to disk; each in a folder of its own."""
    path = folder / str(sum(1 for _ in folder.iterdir()))
    with vg.dedup.Index.create(path, threshold=THRESHOLD, ngram=NGRAM) as index:
        index.add(batch, store="all")
    return path


def judged(batch: vg.TokenBatch, left: Any, right: Any) -> tuple[float, float]:
    """Recall and precision of pairs of a batch with itself."""
    a, b = truth().of(THRESHOLD, len(batch))
    true = set(zip(a.tolist(), b.tolist(), strict=True))
    got = {(x, y) for x, y in zip(left, right, strict=True) if x < y}
    return len(got & true) / len(true), len(got & true) / len(got)


def right(batch: vg.TokenBatch, path: Path) -> bool:
    """Whether the index finds the similar pairs and no other."""
    with vg.dedup.Index.open(path) as index:
        found = index.query(batch)
        size = index.stats["bytes"] / len(index) - 4 * len(batch.tokens) / len(batch)
    recall, precision = judged(batch, found.left.tolist(), found.right.tolist())
    print(f"\n{len(batch)} documents: pairs: recall {recall:.4f}, precision {precision:.4f}; {size:.0f} bytes + tokens")
    return recall >= 0.999 and precision == 1.0


def bench_index_add(compare: Compare, tmp_path: Path) -> None:
    batch = corpus()
    compare(
        "dedup.index add",
        lambda: added(tmp_path, batch),
        check=lambda path, _: right(batch, path),
        units=batch.tokens.size,
        note=f"{len(batch)} documents, all stored, synced to disk",
    )


def bench_index_add_datasketch(compare: Compare, tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    batch = corpus()[:PART]
    compare(
        f"dedup.index add, {PART} documents",
        lambda: added(tmp_path, batch),
        lambda: filled(batch),
        check=lambda path, peer: right(batch, path) and len(peer.keys) == PART,
        units=batch.tokens.size,
        peer_name="datasketch MinHashLSH, from tokens, in memory",
        peer_package="datasketch",
        goal_ratio=4,
        note="ours synced to disk",
    )


def bench_index_query(compare: Compare, tmp_path: Path) -> None:
    batch = corpus()
    path = added(tmp_path, batch)
    with vg.dedup.Index.open(path) as index:
        compare(
            "dedup.index query",
            lambda: index.query(batch),
            check=lambda _, __: right(batch, path),
            units=batch.tokens.size,
            note=f"{len(batch)} documents in an index of the same, every match verified",
        )


def bench_index_query_datasketch(compare: Compare, tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    batch = corpus()[:PART]
    path, peer = added(tmp_path, batch), filled(batch)

    def theirs() -> list[tuple[int, int]]:
        return [(r, other) for r, sketch in enumerate(sketches(batch)) for other in peer.query(sketch)]

    def check(_: vg.dedup.Matches, pairs: list[tuple[int, int]]) -> bool:
        recall, precision = judged(batch, *zip(*pairs, strict=True))
        print(f"\ndatasketch: pairs: recall {recall:.4f}, precision {precision:.4f}")
        return right(batch, path)

    with vg.dedup.Index.open(path) as index:
        compare(
            f"dedup.index query, {PART} documents",
            lambda: index.query(batch),
            theirs,
            check=check,
            units=batch.tokens.size,
            peer_name="datasketch MinHashLSH, from tokens, candidates",
            peer_package="datasketch",
            goal_ratio=4,
            note="ours verified",
        )


STREAMED = """
import hashlib, json, sys, time
import numpy as np
import variegate as vg
sys.path.insert(0, sys.argv[1])
from big_stream import LENGTH, batches, peak
kind, documents, memory = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
start = peak()
began = time.perf_counter()
limits = {"memory": memory, "directory": sys.argv[5]} if memory else {}
found = vg.dedup.near(batches(kind, documents), threshold=0.7, **limits)
seconds = time.perf_counter() - began
arrays = (found.keep, found.keeper, found.keeper_ids, found.cluster, found.similarity)
content = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
said = {"peak": peak(), "start": start, "seconds": seconds, "content": content, "stats": found.stats}
print(json.dumps(said))
"""


def streamed(kind: str, memory: int, folder: Path) -> dict[str, Any]:
    """What a process of its own comes to, and its peak memory, the interpreter and all else included."""
    command = [
        sys.executable,
        "-c",
        STREAMED,
        str(Path(__file__).parent),
        kind,
        str(STREAMS[kind]),
        str(memory),
        str(folder),
    ]
    said: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", list(STREAMS))
def bench_near_out_of_memory(ledger: Ledger, tmp_path: Path, kind: str) -> None:
    whole = streamed(kind, 0, tmp_path)
    small = streamed(kind, MEMORY, tmp_path)
    assert small["content"] == whole["content"]
    if kind == "mixed":
        assert small["stats"] == whole["stats"]
    figures: dict[str, Any] = {
        "unit": "documents",
        "units": STREAMS[kind],
        "rate": STREAMS[kind] / small["seconds"],
        "best": small["seconds"],
        "peak_memory_bytes": small["peak"],
        "peak_at_start": small["start"],
        "peak_without_limit": whole["peak"],
        "seconds_without_limit": whole["seconds"],
        "goals": {"peak_memory_bytes": MEMORY},
    }
    note = f"{STREAMS[kind]} documents of 200 tokens, memory={MEMORY}; time includes making the documents"
    line = ledger.add(f"dedup.near out of memory, {kind}", **figures, met=met(figures), note=note)
    print(json.dumps(line, indent=1))
