"""Writes dedup.json: what comparing every pair says, from the definitions of docs/dedup.md.

Plain Python sets and numpy's random numbers; nothing of Variegate is imported. Run it from anywhere:

    python tests/vectors/generate_dedup.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Row = list[int]


def shingles(row: Row, ngram: int) -> set[tuple[int, ...]]:
    return {tuple(row[i : i + ngram]) for i in range(len(row) - ngram + 1)}


def similarity(a: Row, b: Row, ngram: int) -> float:
    """Jaccard similarity of two rows; copies are similar whatever their length, short rows to nothing else."""
    if a == b:
        return 1.0
    left, right = shingles(a, ngram), shingles(b, ngram)
    return len(left & right) / len(left | right) if left | right else 0.0


def keep_order(rows: list[Row], ids: list[int], order: list[int] | None, keep: str) -> list[int]:
    def key(r: int) -> tuple[int, ...]:
        place = order[r] if order else 0
        return (place, -len(rows[r]), ids[r], r) if keep == "longest" else (place, r)

    return sorted(range(len(rows)), key=key)


def leader(ranked: list[int], jaccard: np.ndarray, threshold: float) -> list[int]:
    """Each row's keeper: the first row kept so far that is similar, or itself."""
    keeper, kept = list(range(len(ranked))), []
    for r in ranked:
        found = [k for k in kept if jaccard[r, k] >= threshold]
        if found:
            keeper[r] = found[0]
        else:
            kept.append(r)
    return keeper


def transitive(ranked: list[int], jaccard: np.ndarray, threshold: float) -> list[int]:
    """Each row's keeper: the first row, in keep order, of those that a chain of similar pairs leads to."""
    joined = jaccard >= threshold
    np.fill_diagonal(joined, True)
    for _ in ranked:
        joined = joined | (joined.astype(int) @ joined.astype(int) > 0)
    return [next(k for k in ranked if joined[r, k]) for r in range(len(ranked))]


def expected(
    rows: list[Row],
    *,
    ids: list[int],
    order: list[int] | None,
    threshold: float,
    ngram: int,
    closure: str,
    keep: str,
) -> dict[str, object]:
    """Keeper, cluster and similarity of every row."""
    jaccard = np.array([[similarity(a, b, ngram) for b in rows] for a in rows]).reshape(len(rows), len(rows))
    ranked = keep_order(rows, ids, order, keep)
    keeper = (leader if closure == "leader" else transitive)(ranked, jaccard, threshold)
    numbers: dict[int, int] = {}
    return {
        "keeper": keeper,
        "cluster": [numbers.setdefault(k, len(numbers)) for k in keeper],
        "similarity": [float(np.float32(jaccard[r, k])) for r, k in enumerate(keeper)],
    }


def corpus(rng: np.random.Generator, rows: int) -> list[Row]:
    """Rows of 0 to 40 tokens, most of them edited copies of a few."""
    bases = [rng.integers(0, 30, rng.integers(0, 40)).tolist() for _ in range(max(1, rows // 5))]
    out = []
    for _ in range(rows):
        row = list(bases[rng.integers(len(bases))])
        for _ in range(rng.integers(0, 4)):
            if row:
                row[rng.integers(len(row))] = int(rng.integers(0, 30))
        out.append(row[: len(row) - int(rng.integers(0, 3))] if len(row) > 2 else row)
    return out


def main() -> None:
    rng = np.random.default_rng(20)
    cases = []
    for ngram, threshold in [(1, 0.5), (2, 0.6), (3, 0.7), (5, 0.8), (3, 1.0)]:
        for closure in ("leader", "transitive"):
            for keep in ("longest", "first"):
                rows = corpus(rng, 30)
                ids = rng.integers(0, 1 << 63, len(rows)).tolist()
                order = rng.integers(-2, 2, len(rows)).tolist() if len(cases) % 3 == 0 else None
                params = {
                    "ids": ids,
                    "order": order,
                    "threshold": threshold,
                    "ngram": ngram,
                    "closure": closure,
                    "keep": keep,
                }
                cases.append({"rows": rows, **params, **expected(rows, **params)})
    path = Path(__file__).with_name("dedup.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
