"""Writes templates.json: small grammars, expanded and drawn by brute force.

The oracle knows nothing of the parser: each case states its grammar twice, as source and as plain Python data, and
every derivation is enumerated from the data. Draws follow the chapter "Writing grammars" (Philox words, alias tables,
Feistel permutation), in plain Python integers.

    python tests/vectors/generate_templates.py
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

M32, M64 = 2**32 - 1, 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & M32, (p0 >> 32) ^ c[3] ^ k[1], p0 & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def mix64(parts: list[int]) -> int:
    h = 0
    for x in parts:
        h = mix((h + 0x9E3779B97F4A7C15 * (x + 1)) & M64)
    return h


def op_key(seed: int, name: str, variant: int) -> int:
    path = 0xCBF29CE484222325
    for byte in name.encode():
        path = ((path ^ byte) * 0x100000001B3) & M64
    return mix64([9, seed, path, variant])


def words(key: int, k: int) -> Iterator[int]:
    for block in itertools.count():
        yield from philox([block, 0, k & M32, k >> 32], [key & M32, key >> 32])


def below(source: Iterator[int], n: int, bits: int) -> int:
    """Uniform below n: multiply-high, again while the low half falls in the uneven part."""
    while True:
        word = 0
        for _ in range(bits // 32):
            word = word << 32 | next(source)
        high, low = divmod(word * n, 1 << bits)
        if low >= (1 << bits) % n:
            return high


def weighted(source: Iterator[int], weights: list[int]) -> int:
    n, total = len(weights), sum(weights)
    if n == 1:
        return 0
    column = below(source, n, 32)
    if len(set(weights)) == 1:
        return column
    mass = [w * n for w in weights]
    share, alias = [total] * n, list(range(n))
    under = [i for i in range(n) if mass[i] < total]
    over = [i for i in range(n) if mass[i] >= total]
    while under and over:
        low, high = under.pop(), over[-1]
        share[low], alias[low] = mass[low], high
        mass[high] -= total - mass[low]
        if mass[high] < total:
            under.append(over.pop())
    return column if below(source, total, 32) < share[column] else alias[column]


def permuted(key: int, size: int, i: int) -> int:
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = i >> half, i & mask
        for turn in range(8):
            noise = philox([right & M32, right >> 32, turn, 0], [key & M32, key >> 32])
            left, right = right, left ^ ((noise[0] | noise[1] << 32) & mask)
        i = left << half | right
        if i < size:
            return i


class Oracle:
    """A grammar as data: rules are lists of (weight, items)."""

    def __init__(self, rules: dict[str, list[tuple[int, list[Any]]]]) -> None:
        self.rules = rules

    def all(self) -> list[tuple[str, list[Any], dict[str, Any], Fraction, tuple[int, ...]]]:
        start = next(iter(self.rules))
        return list(self.arms(self.rules[start], ("", (), {}, Fraction(1), ())))

    def arms(self, arms, state):
        total = sum(weight for weight, _ in arms)
        for i, (weight, items) in enumerate(arms):
            text, spans, env, p, path = state
            path = (*path, i) if len(arms) > 1 else path
            yield from self.items(items, (text, spans, env, p * Fraction(weight, total), path))

    def items(self, items, state):
        if not items:
            yield state
            return
        for after in self.item(items[0], state):
            yield from self.items(items[1:], after)

    def item(self, item, state):
        text, spans, env, p, path = state
        match item:
            case str():
                yield text + item, spans, env, p, path
            case ("call", rule):
                yield from self.arms(self.rules[rule], state)
            case ("draw", name, values):
                for i, value in enumerate(values):
                    yield text + str(value), spans, {**env, name: value}, p / len(values), (*path, i)
            case ("show", value):
                yield text + str(value(env)), spans, env, p, path
            case ("optional", arms):
                yield text, spans, env, p / 2, (*path, 0)
                yield from self.arms(arms, (text, spans, env, p / 2, (*path, 1)))
            case ("tag", tag, items):
                for inner in self.items(items, (text, (*spans, None), env, p, path)):
                    closed = list(inner[1])
                    closed[len(spans)] = (len(text), len(inner[0]), tag)
                    yield inner[0], tuple(closed), *inner[2:]

    def draw(self, source: Iterator[int]) -> tuple[int, ...]:
        start = next(iter(self.rules))
        return tuple(self.draw_arms(self.rules[start], source))

    def draw_arms(self, arms, source):
        i = weighted(source, [weight for weight, _ in arms])
        if len(arms) > 1:
            yield i
        for item in arms[i][1]:
            yield from self.draw_item(item, source)

    def draw_item(self, item, source):
        match item:
            case ("call", rule):
                yield from self.draw_arms(self.rules[rule], source)
            case ("draw", _, values):
                yield below(source, len(values), 32)
            case ("optional", arms):
                there = below(source, 2, 32)
                yield there
                if there:
                    yield from self.draw_arms(arms, source)
            case ("tag", _, items):
                for inner in items:
                    yield from self.draw_item(inner, source)


def show(name):
    return ("show", lambda env: env[name])


CASES = {
    "sum": (
        "task = what is {a=int 2..7} plus {b=int 2..7}? <answer>{=a+b}</answer>",
        {
            "task": [
                (
                    1,
                    [
                        "what is ",
                        ("draw", "a", range(2, 8)),
                        " plus ",
                        ("draw", "b", range(2, 8)),
                        "? ",
                        ("tag", "answer", [("show", lambda e: e["a"] + e["b"])]),
                    ],
                )
            ]
        },
    ),
    "chapter": (
        "task  = ({intro} )?{a=int 2..4}, {b=int 2..4}: {ask} <answer>{=a+b}</answer>\n"
        "ask   = what is {a} plus {b}? :: 3 | add {b} to {a}.\n"
        "intro = {name} has two {thing}. | Now you.\n"
        "name  = Anna | Ben\n"
        "thing = apples | mice",
        {
            "task": [
                (
                    1,
                    [
                        ("optional", [(1, [("call", "intro"), " "])]),
                        ("draw", "a", range(2, 5)),
                        ", ",
                        ("draw", "b", range(2, 5)),
                        ": ",
                        ("call", "ask"),
                        " ",
                        ("tag", "answer", [("show", lambda e: e["a"] + e["b"])]),
                    ],
                )
            ],
            "ask": [
                (3, ["what is ", show("a"), " plus ", show("b"), "?"]),
                (1, ["add ", show("b"), " to ", show("a"), "."]),
            ],
            "intro": [(1, [("call", "name"), " has two ", ("call", "thing"), "."]), (1, ["Now you."])],
            "name": [(1, ["Anna"]), (1, ["Ben"])],
            "thing": [(1, ["apples"]), (1, ["mice"])],
        },
    ),
    "weights": (
        "x = a :: 5 | b :: 0.5 | c{y} :: 2.5 | d | e :: 7\ny = 1 :: 2 | 2 :: 3 | 3 :: 2",
        {
            "x": [(10, ["a"]), (1, ["b"]), (5, ["c", ("call", "y")]), (2, ["d"]), (14, ["e"])],
            "y": [(2, ["1"]), (3, ["2"]), (2, ["3"])],
        },
    ),
    "nested tags": (
        "x = <out>é <in>{w=choice ä, bc}</in>({n=choice 1, -20}!)?</out> <in>{w}</in>",
        {
            "x": [
                (
                    1,
                    [
                        (
                            "tag",
                            "out",
                            [
                                "é ",
                                ("tag", "in", [("draw", "w", ["ä", "bc"])]),
                                ("optional", [(1, [("draw", "n", [1, -20]), "!"])]),
                            ],
                        ),
                        " ",
                        ("tag", "in", [show("w")]),
                    ],
                )
            ]
        },
    ),
    "expressions": (
        "x = {a=int -7..7 step 7} {b=int -2..3 step 5}: {=a*b-3*(a+1)} {=a//b} {=a%b} {=a<b} "
        "{='<' + \"b\"}{= a == -7 }",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "a", range(-7, 8, 7)),
                        " ",
                        ("draw", "b", range(-2, 4, 5)),
                        ": ",
                        ("show", lambda e: e["a"] * e["b"] - 3 * (e["a"] + 1)),
                        " ",
                        ("show", lambda e: e["a"] // e["b"]),
                        " ",
                        ("show", lambda e: e["a"] % e["b"]),
                        " ",
                        ("show", lambda e: str(e["a"] < e["b"]).lower()),
                        " <b",
                        ("show", lambda e: str(e["a"] == -7).lower()),
                    ],
                )
            ]
        },
    ),
    "groups": (
        "x = f(a, b) so?( or c |{y} d :: 2)?\ny = ({n=int 0..2}, )?e | \\(f\\)?",
        {
            "x": [(1, ["f(a, b) so?", ("optional", [(1, [" or c"]), (2, [("call", "y"), " d"])])])],
            "y": [(1, [("optional", [(1, [("draw", "n", range(3)), ", "])]), "e"]), (1, ["(f)?"])],
        },
    ),
    "depth": (
        "e[depth=3] = \\({e}\\)+1 | {n=int 1..2}",
        {
            "e": [(1, ["(", ("call", "e2"), ")+1"]), (1, [("draw", "n", [1, 2])])],
            "e2": [(1, ["(", ("call", "e1"), ")+1"]), (1, [("draw", "n", [1, 2])])],
            "e1": [(1, [("draw", "n", [1, 2])])],
        },
    ),
}
DRAWS = 64


def vectors(name: str, source: str, rules: dict[str, Any]) -> dict[str, Any]:
    oracle = Oracle(rules)
    found = oracle.all()
    index = {path: i for i, (*_, path) in enumerate(found)}
    draws = []
    for seed in (0, 2**64 - 1):
        key = op_key(seed, name, 0)
        ids = [mix64([key, k]) for k in range(DRAWS)]
        alike = [below(words(key, k), len(found), 64) for k in range(DRAWS)]
        chosen = [index[oracle.draw(words(key, k))] for k in range(DRAWS)]
        once = [permuted(op_key(seed, name, 1), len(found), k) for k in range(min(DRAWS, len(found)))]
        for law, replace, indices in (("weights", True, chosen), ("uniform", True, alike), ("uniform", False, once)):
            draws.append({"seed": seed, "law": law, "replace": replace, "indices": indices, "ids": ids[: len(indices)]})
    return {
        "name": name,
        "source": source,
        "derivations": [[text, spans, env] for text, spans, env, _, _ in found],
        "probabilities": [str(p) for *_, p, _ in found],
        "draws": draws,
    }


if __name__ == "__main__":
    cases = [vectors(name, *case) for name, case in CASES.items()]
    path = Path(__file__).with_name("templates.json")
    path.write_text(json.dumps({"cases": cases}, ensure_ascii=False, indent=None, separators=(",", ":")) + "\n")
