"""Writes collapse.json: measures and sketch bytes from the definitions of docs/collapse.md, with plain numpy.

Nothing of Variegate is imported. Run it from anywhere:

    python tests/vectors/generate_collapse.py
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np

Rows = list[list[int]]


def flat(rows: Rows) -> np.ndarray:
    return np.array([token for row in rows for token in row], np.uint32)


def tail(rows: Rows) -> list[int]:
    """The types that the most frequent, until they hold 95 % of the tokens, leave."""
    types, counts = np.unique(flat(rows), return_counts=True)
    ranked = np.lexsort((types, -counts))
    before = np.cumsum(counts[ranked]) - counts[ranked]
    return sorted(types[ranked][100 * before >= 95 * counts.sum()].tolist())


def measures(rows: Rows, reference: Rows | None) -> dict[str, float | int | None]:
    tokens = flat(rows)
    types, counts = np.unique(tokens, return_counts=True)
    p = counts / max(len(tokens), 1)

    def covered(of: list[int]) -> float | None:
        return float(np.isin(of, types).mean()) if len(of) else None

    distinct = len({tuple(row) for row in rows})
    return {
        "rows": len(rows),
        "tokens": len(tokens),
        "types": len(types),
        "entropy": math.fsum(-p * np.log2(p)) if len(p) else 0.0,
        "coverage": covered(np.unique(flat(reference)).tolist()) if reference is not None else None,
        "tail_coverage": covered(tail(reference)) if reference is not None else None,
        "duplicate_share": (len(rows) - distinct) / len(rows) if rows else 0.0,
    }


def leb128(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def sketch(rows: Rows) -> bytes:
    types, counts = np.unique(flat(rows), return_counts=True)
    body = b"VGSKETCH" + (1).to_bytes(4, "little")
    for number in (len(rows), int(counts.sum()), len(types)):
        body += number.to_bytes(8, "little")
    previous = -1
    for token, count in zip(types.tolist(), counts.tolist(), strict=True):
        body += leb128(token - previous - 1) + leb128(count)
        previous = token
    return body + hashlib.sha256(len(body).to_bytes(8, "little") + body).digest()[:8]


def corpus(rng: np.random.Generator, rows: int, types: int, power: float) -> Rows:
    """Rows of Zipf-like tokens, some of them repeated, ids spread over all of u32."""
    spread = rng.integers(0, 1 << 32, types)
    spread[: types // 2] = np.arange(types // 2)
    weights = 1 / np.arange(1, types + 1) ** power
    out = [rng.choice(spread, rng.integers(0, 30), p=weights / weights.sum()).tolist() for _ in range(rows)]
    return [out[i] if rng.random() < 0.8 else out[rng.integers(0, i + 1)] for i in range(rows)]


def main() -> None:
    rng = np.random.default_rng(30)
    cases = []
    for rows, types, power in [(1, 1, 1.0), (3, 2, 0.0), (40, 50, 1.0), (200, 3000, 1.2), (200, 400, 2.0)]:
        reference = [[0, 7], *corpus(rng, rows, types, power)]
        data = corpus(rng, rows, types, power) + reference[: rows // 2]
        cases.append({"reference": reference, "rows": data})
    cases.append({"reference": None, "rows": []})
    cases.append({"reference": None, "rows": [[], [], [4294967295]]})
    for case in cases:
        case["measures"] = measures(case["rows"], case["reference"])
        case["tail"] = tail(case["rows"]) if flat(case["rows"]).size else []
        case["sketch"] = sketch(case["rows"]).hex()
    path = Path(__file__).with_name("collapse.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
