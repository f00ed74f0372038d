"""Writes philox.json: random words and what is made of them, by plain Python integers.

Written from the paper (Salmon et al., SC 2011) and the scheme's contract, sharing no code with the engine. Whoever
runs it again must get the same file; another file is another version of the scheme.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

U32, U64 = 2**32, 2**64
DOMAINS = {"ops": 8, "templates": 9}


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10, as the paper's Figure 4 has it: two S-boxes, crossed, the key raised after each round."""
    left, right = [counter[0], counter[2]], [counter[1], counter[3]]
    for r in range(10):
        round_key = [(key[0] + r * 0x9E3779B9) % U32, (key[1] + r * 0xBB67AE85) % U32]
        products = [0xD2511F53 * left[0], 0xCD9E8D57 * left[1]]
        high, low = [p // U32 for p in products], [p % U32 for p in products]
        left = [high[1] ^ right[0] ^ round_key[0], high[0] ^ right[1] ^ round_key[1]]
        right = [low[1], low[0]]
    return [left[0], right[0], left[1], right[1]]


def mix(x: int) -> int:
    """The finaliser of SplitMix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % U64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % U64
    return x ^ x >> 31


def fold(parts: list[int]) -> int:
    """mix64: h = mix(h + golden * (x + 1)) from 0."""
    h = 0
    for x in parts:
        h = mix((h + 0x9E3779B97F4A7C15 * (x + 1)) % U64)
    return h


def fnv1a(text: str) -> int:
    """64-bit FNV-1a of the text's UTF-8."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % U64
    return h


def word(key: int, epoch: int, row: int, lane: int, index: int) -> int:
    """Word `index` of a lane: lane in the top four bits of the block, four words a block."""
    counter = [lane * 2**28 + index // 4, epoch, row % U32, row // U32]
    return philox(counter, [key % U32, key // U32])[index % 4]


def below(draw: object, n: int, bits: int) -> int:
    """A uniform integer below n: the high half of word * n, drawn again while the low half is one of the surplus."""
    size = 2**bits
    while True:
        product = draw() * n  # type: ignore[operator]
        if product % size >= size % n:
            return product // size


def bounded(key: int, epoch: int, row: int, lane: int, n: int, count: int) -> dict[str, object]:
    """`count` integers below n, one word each (two above 2^32), with the number of words that were used."""
    used = 0

    def one() -> int:
        nonlocal used
        used += 1
        return word(key, epoch, row, lane, used - 1)

    draw, bits = (one, 32) if n < U32 else (lambda: one() * U32 + one(), 64)
    values = [below(draw, n, bits) for _ in range(count)]
    return {"n": n, "values": values, "words_used": used}


def main() -> None:
    rng = np.random.default_rng(20_110_112)

    def u32(n: int) -> list[int]:
        return [int(x) for x in rng.integers(0, U32, n, dtype=np.uint64)]

    def u64() -> int:
        return int(rng.integers(0, U64 - 1, dtype=np.uint64, endpoint=True))

    # Random123's kat_vectors: the oracle itself is held to them.
    known = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([U32 - 1] * 4, [U32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for counter, key, words in known:
        assert philox(counter, key) == words
    inputs = [(counter, key) for counter, key, _ in known] + [(u32(4), u32(2)) for _ in range(61)]
    blocks = [{"counter": c, "key": k, "words": philox(c, k)} for c, k in inputs]

    paths = ["", "TokenDropout#0", "TokenDropout#1", "Compose#0/MaskedLM#0", "häufig", "x" * 100]
    keys = []
    for domain, tag in DOMAINS.items():
        for path in paths:
            for seed, variant in [(0, 0), (7, 0), (7, 1), (U64 - 1, 3), (u64(), u64())]:
                key = fold([tag, seed, fnv1a(path), variant])
                keys.append({"domain": domain, "seed": seed, "path": path, "variant": variant, "key": key})

    streams = []
    for i in range(12):
        key, epoch, row, lane = u64(), u32(1)[0] if i % 3 else 0, u64() if i else U64 - 1, i % 16
        words = [word(key, epoch, row, lane, j) for j in range(70)]
        far = [[j, word(key, epoch, row, lane, j)] for j in (2**20, 2**30 - 1)]
        bounds = [1, 2, 3, 1000, 2**31 + 1, U32 - 1, 2**33 + 1, 2**63 + 1, U64 - 1]
        integers = [bounded(key, epoch, row, lane, n, 8) for n in bounds]
        stream = {"key": key, "epoch": epoch, "id": row, "lane": lane, "words": words, "far": far}
        streams.append({**stream, "below": integers, "unit": [(w // 256) / 2**24 for w in words]})

    vectors = {"scheme": 1, "blocks": blocks, "keys": keys, "streams": streams}
    path = Path(__file__).with_name("philox.json")
    path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")).replace("},{", "},\n{") + "\n", "utf-8")


if __name__ == "__main__":
    main()
