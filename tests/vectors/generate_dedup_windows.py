"""Writes dedup_windows.json: repeated substrings and overlaps, from the definitions of docs/dedup-windows.md.

Plain Python and numpy's random numbers; nothing of Variegate is imported. Run it from anywhere:

    python tests/vectors/generate_dedup_windows.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Row = list[int]
TRIED = 16


def agree(a: Row, i: int, b: Row, j: int) -> int:
    """How many tokens from `a[i]` on equal those from `b[j]` on."""
    n = 0
    while i + n < len(a) and j + n < len(b) and a[i + n] == b[j + n]:
        n += 1
    return n


def agree_before(a: Row, i: int, b: Row, j: int, least: int) -> int:
    """How many tokens before `a[i]`, not further back than `a[least]`, equal those before `b[j]`."""
    n = 0
    while i - n > least and j - n > 0 and a[i - n - 1] == b[j - n - 1]:
        n += 1
    return n


def substring(rows: list[Row], length: int, keep: str) -> dict[str, object]:
    """Spans (row, start, end, source row, source start) and the mask of each row."""
    places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for r, row in enumerate(rows):
        for i in range(len(row) - length + 1):
            places.setdefault(tuple(row[i : i + length]), []).append((r, i))
    masks = [[1] * len(row) for row in rows]
    for found in places.values():
        for r, i in found[1:] if keep == "first" or len(found) == 1 else found:
            masks[r][i : i + length] = [0] * length
    spans = []
    for r, row in enumerate(rows):
        i = before = 0
        while i + length <= len(row):
            q, j = places[tuple(row[i : i + length])][0]
            if (q, j) == (r, i):
                i += 1
                continue
            right, left = agree(row, i, rows[q], j), agree_before(row, i, rows[q], j, before)
            spans.append([r, i - left, i + right, q, j - left])
            before, i = i, i + right - length + 1
    return {"spans": spans, "mask": [value for mask in masks for value in mask]}


def decontaminate(rows: list[Row], items: list[Row], ngram: int, shortest: int) -> list[list[int]]:
    """Hits: row, start, end, item, start in the item, tokens of the item in n-grams that the row has."""
    hits = []
    for r, row in enumerate(rows):
        for t, item in enumerate(items):
            n = min(len(item), ngram)
            if n < min(shortest, ngram):
                continue
            grams = {tuple(row[i : i + n]) for i in range(len(row) - n + 1)}
            inside = {k for j in range(len(item) - n + 1) if tuple(item[j : j + n]) in grams for k in range(j, j + n)}
            i = before = 0
            while i + n <= len(row):
                there = [j for j in range(len(item) - n + 1) if item[j : j + n] == row[i : i + n]][:TRIED]
                if not there:
                    i += 1
                    continue
                j = max(there, key=lambda j: (agree(row, i, item, j), -j))
                right, left = agree(row, i, item, j), agree_before(row, i, item, j, before)
                hits.append([r, i - left, i + right, t, j - left, len(inside)])
                before, i = i, i + right - n + 1
    return sorted(hits, key=lambda hit: (hit[0], hit[1], hit[3], hit[2], hit[4]))


def corpus(rng: np.random.Generator, rows: int, vocabulary: int) -> list[Row]:
    """Rows of 0 to 60 tokens, pasted together from parts of a few."""
    bases = [rng.integers(0, vocabulary, rng.integers(1, 40)).tolist() for _ in range(max(1, rows // 3))]
    out = []
    for _ in range(rows):
        row: Row = []
        for _ in range(rng.integers(0, 4)):
            base = bases[rng.integers(len(bases))]
            start = int(rng.integers(len(base)))
            row += base[start : start + int(rng.integers(1, 30))]
            row += rng.integers(0, vocabulary, rng.integers(0, 4)).tolist()
        out.append(row)
    return out


def main() -> None:
    rng = np.random.default_rng(41)
    repeats, overlaps = [], []
    for length in (1, 2, 3, 5, 8, 13, 20):
        for keep in ("first", "none"):
            for vocabulary in (2, 50):
                rows = corpus(rng, 14, vocabulary)
                repeats.append({"rows": rows, "length": length, "keep": keep, **substring(rows, length, keep)})
    for ngram, shortest in [(1, 1), (2, 1), (3, 3), (5, 2), (8, 20), (13, 8)]:
        for vocabulary in (2, 50):
            both = corpus(rng, 20, vocabulary)
            rows, items = both[:12], both[12:]
            hits = decontaminate(rows, items, ngram, shortest)
            overlaps.append({"rows": rows, "items": items, "ngram": ngram, "shortest": shortest, "hits": hits})
    path = Path(__file__).with_name("dedup_windows.json")
    parts = []
    for name, cases in (("substring", repeats), ("decontaminate", overlaps)):
        parts.append(f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
