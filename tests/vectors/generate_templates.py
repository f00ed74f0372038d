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
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from math import gcd, isqrt, lcm
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
            case ("hide", name, values):
                for i, value in enumerate(values):
                    yield text, spans, {**env, name: value}, p / len(values), (*path, i)
            case ("set", name, value):
                yield text, spans, {**env, name: value(env)}, p, path
            case ("bind", name, items):
                for inner in self.items(items, (text, spans, env, p, path)):
                    yield inner[0], inner[1], {**inner[2], name: inner[0][len(text) :]}, *inner[3:]
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
            case ("draw" | "hide", _, values):
                yield below(source, len(values), 32)
            case ("bind", _, items):
                for inner in items:
                    yield from self.draw_item(inner, source)
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


def decimals(low: str, high: str, step: str) -> list[Decimal]:
    found, value = [], Decimal(low)
    while value <= Decimal(high):
        found.append(value.quantize(Decimal(step)))
        value += Decimal(step)
    return found


def rounded(value: Fraction, places: int) -> str:
    """Half away from zero."""
    whole = (abs(value) * 10**places + Fraction(1, 2)).__floor__()
    sign = "-" if value < 0 and whole else ""
    return f"{sign}{whole // 10**places}.{whole % 10**places:0{places}}"


def truth(value: bool) -> str:
    return str(value).lower()


DAYS = [date(2023, 12, 28) + timedelta(7 * i) for i in range(11)]
PLURALS = {"apple": "apples", "mouse": "mice", "box": "boxes", "cherry": "cherries", "key": "keys", "wolf": "wolves"}
ARTICLES = {"apple": "an", "hour": "an", "unicorn": "a", "MRI": "an", "European": "a", "URL": "a", "11": "an", "7": "a"}
NUMBERS = [
    (0, "zero", "0th", "0"),
    (7, "seven", "7th", "7"),
    (19, "nineteen", "19th", "19"),
    (42, "forty-two", "42nd", "42"),
    (111, "one hundred eleven", "111th", "111"),
    (-1005020, "minus one million five thousand twenty", "-1005020th", "-1,005,020"),
]
GIVEN = {
    "sources": {
        "lexicons": {"fruit": ["fig", "lime"], "often": {"yes": 5, "no": 2, "maybe": 1}},
        "rows": {"city": ["Rome", "Oslo", "Bern"], "size": [3, -1, 7], "flat": [True, False, True]},
    }
}

CASES = {
    "filters": (
        "x = {what|a|cap}, {n=int 1..2} {thing|plural(n)}\n"
        "what = apple | hour | unicorn | MRI | European | URL | <n>11</n> | 7\n"
        "thing = apple | mouse | box | cherry | key | wolf",
        {
            "x": [(1, [("call", "what"), ", ", ("draw", "n", [1, 2]), " ", ("call", "thing")])],
            "what": [
                (1, [f"{article.capitalize()} ", ("tag", "n", [word]) if word == "11" else word])
                for word, article in ARTICLES.items()
            ],
            "thing": [
                (1, [("show", lambda e, one=one, many=many: one if e["n"] == 1 else many)])
                for one, many in PLURALS.items()
            ],
        },
    ),
    "numbers": (
        "x = {n=choice 0, 7, 19, 42, 111, -1005020|words}, {n|ordinal}, {n|commas}, {=n|words|title}",
        {
            "x": [
                (
                    1,
                    [
                        ("hide", "n", [n for n, *_ in NUMBERS]),
                        ("show", lambda e: {n: f"{w}, {o}, {c}, " for n, w, o, c in NUMBERS}[e["n"]]),
                        (
                            "show",
                            lambda e: " ".join(
                                w[0].upper() + w[1:] for w in {n: w for n, w, *_ in NUMBERS}[e["n"]].split()
                            ),
                        ),
                    ],
                )
            ]
        },
    ),
    "decimals": (
        "x = {a=float -1.5..2 step 0.25} {b=float 0.5..2 step 0.5}: {=a+b} {=a*b} {=a-1} {=round(a/b, 3)} {=a//b} "
        "{=a%b} {=round(a, 1)} {=a < b} {=max(a, b)} {=abs(a)} {=short(a)} {=-a}",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "a", decimals("-1.50", "2", "0.25")),
                        " ",
                        ("draw", "b", decimals("0.5", "2", "0.5")),
                        ": ",
                        ("show", lambda e: f"{e['a'] + e['b']} {e['a'] * e['b']} {e['a'] - 1} "),
                        ("show", lambda e: rounded(Fraction(e["a"]) / Fraction(e["b"]), 3) + " "),
                        ("show", lambda e: f"{Fraction(e['a']) // Fraction(e['b'])} "),
                        ("show", lambda e: rounded(Fraction(e["a"]) % Fraction(e["b"]), 2) + " "),
                        ("show", lambda e: rounded(Fraction(e["a"]), 1) + f" {truth(e['a'] < e['b'])} "),
                        ("show", lambda e: f"{max(e['a'], e['b']).quantize(Decimal('0.01'))} {abs(e['a'])} "),
                        ("show", lambda e: f"{int(e['a']) if e['a'] == int(e['a']) else float(e['a'])} "),
                        ("show", lambda e: str(-e["a"]) if e["a"] else "0.00"),
                    ],
                )
            ]
        },
    ),
    "dates": (
        "x = {d=date 2023-12-28..2024-03-07 step 7} {n=int -1..1}: {=d+n*100} {=weekday(d)} {=month_name(d)} "
        "{=year(d)*10000+month(d)*100+day(d)} {=d - date(2024, 2, 29)} {=long(d)} {=leap(year(d))} {=iso(d) == str(d)}",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "d", DAYS),
                        " ",
                        ("draw", "n", [-1, 0, 1]),
                        ": ",
                        (
                            "show",
                            lambda e: f"{e['d'] + timedelta(100 * e['n'])} {e['d']:%A} {e['d']:%B} {e['d']:%Y%m%d} ",
                        ),
                        (
                            "show",
                            lambda e: f"{(e['d'] - date(2024, 2, 29)).days} {e['d'].day} {e['d']:%B} {e['d'].year} ",
                        ),
                        ("show", lambda e: f"{truth(e['d'].year == 2024)} true"),
                    ],
                )
            ]
        },
    ),
    "truth": (
        "x = {p=choice true, false} {q=choice false, true}: {=p and q} {=p or q} {=not p or q == p} "
        "{='both' if p and q else 'one' if p or q else 'none'} {=p != q}",
        {
            "x": [
                (
                    1,
                    [
                        ("hide", "p", [True, False]),
                        ("show", lambda e: truth(e["p"]) + " "),
                        ("hide", "q", [False, True]),
                        ("show", lambda e: truth(e["q"]) + ": "),
                        ("show", lambda e: f"{truth(e['p'] and e['q'])} {truth(e['p'] or e['q'])} "),
                        ("show", lambda e: truth(not e["p"] or e["q"] == e["p"]) + " "),
                        ("show", lambda e: ["none", "one", "both"][e["p"] + e["q"]] + f" {truth(e['p'] != e['q'])}"),
                    ],
                )
            ]
        },
    ),
    "strings": (
        "x = {s=choice Ångström, ab ba, ÉÉ}{!t=(s + '-' + reverse(s))}: {t} {=len(s)} {=at(s, 1)}{=at(s, -1)} "
        "{=slice(s, 1, -1)} {=find(s, 'b')} {=count(s, 'b')} {=replace(s, 'b', 'bb')} {=contains(s, 'str')} "
        "{=repeat('=', len(s))} {=upper(s)} {=lower(s)} {=cap(s)} {=starts(s, 'a')} {=ends(t, 'a')} "
        "{=int('42') + len(t)}",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "s", ["Ångström", "ab ba", "ÉÉ"]),
                        ("set", "t", lambda e: e["s"] + "-" + e["s"][::-1]),
                        ("show", lambda e: f": {e['t']} {len(e['s'])} {e['s'][1]}{e['s'][-1]} {e['s'][1:-1]} "),
                        ("show", lambda e: f"{e['s'].find('b')} {e['s'].count('b')} {e['s'].replace('b', 'bb')} "),
                        ("show", lambda e: f"{truth('str' in e['s'])} {'=' * len(e['s'])} {e['s'].upper()} "),
                        ("show", lambda e: f"{e['s'].lower()} {e['s'][0].upper() + e['s'][1:]} "),
                        ("show", lambda e: f"{truth(e['s'][0] == 'a')} {truth(e['t'][-1] == 'a')} {42 + len(e['t'])}"),
                    ],
                )
            ]
        },
    ),
    "integers": (
        "x = {a=int 4..8 step 2} {b=int 6..9 step 3}: {=gcd(a, b)} {=lcm(a, b)} {=pow(a, b)} {=isqrt(a*b)} "
        "{=min(a, b, 5)} {=max(a, b)} {=abs(a-b)} {=round(a/b)} {=a*b/2*2//b} {=a if a > b else b}",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "a", [4, 6, 8]),
                        " ",
                        ("draw", "b", [6, 9]),
                        ": ",
                        ("show", lambda e: f"{gcd(e['a'], e['b'])} {lcm(e['a'], e['b'])} {e['a'] ** e['b']} "),
                        ("show", lambda e: f"{isqrt(e['a'] * e['b'])} {min(e['a'], e['b'], 5)} {max(e['a'], e['b'])} "),
                        ("show", lambda e: f"{abs(e['a'] - e['b'])} {(2 * e['a'] + e['b']) // (2 * e['b'])} {e['a']} "),
                        ("show", lambda e: max(e["a"], e["b"])),
                    ],
                )
            ]
        },
    ),
    "agreement": (
        "x = {n=int 1..3} {thing[num=n]}, {who=name}: {they[gender=who]|cap} {be[num=n]} {who}"
        " | {many[num=pl]} of {name[gender=f]}\n"
        "thing = apple | mouse[pl=mice] | {fruit}\n"
        "fruit = cherry | box[pl=Boxen] :: 2\n"
        "many = red {fruit[num]} | blue {fruit} | scissors[num=pl] | hammer[num=sg]\n"
        "name = Anna[gender=f] | Ben[gender=m] :: 3 | {more}\n"
        "more = Chloé[gender=f] :: 2 | Dan[gender=m]\n"
        "they = she[gender=f] | he[gender=m]\n"
        "be = is[pl=are]",
        {
            "x": [
                (
                    1,
                    [
                        ("draw", "n", [1, 2, 3]),
                        " ",
                        ("call", "thing"),
                        ", ",
                        ("bind", "who", [("call", "name")]),
                        ": ",
                        ("show", lambda e: "She" if e["who"] in ("Anna", "Chloé") else "He"),
                        ("show", lambda e: " is " if e["n"] == 1 else " are "),
                        show("who"),
                    ],
                ),
                (1, [("call", "many"), " of ", ("call", "woman")]),
            ],
            "thing": [
                (1, [("show", lambda e: "apple" if e["n"] == 1 else "apples")]),
                (1, [("show", lambda e: "mouse" if e["n"] == 1 else "mice")]),
                (1, [("call", "fruit")]),
            ],
            "fruit": [
                (1, [("show", lambda e: "cherry" if e["n"] == 1 else "cherries")]),
                (2, [("show", lambda e: "box" if e["n"] == 1 else "Boxen")]),
            ],
            "fruits": [(1, ["cherries"]), (2, ["Boxen"])],
            "blue": [(1, ["cherries"]), (2, ["boxes"])],
            "many": [(1, ["red ", ("call", "fruits")]), (1, ["blue ", ("call", "blue")]), (1, ["scissors"])],
            "name": [(1, ["Anna"]), (3, ["Ben"]), (1, [("call", "more")])],
            "more": [(2, ["Chloé"]), (1, ["Dan"])],
            "woman": [(1, ["Anna"]), (1, [("call", "more woman")])],
            "more woman": [(2, ["Chloé"])],
        },
    ),
    "sources": (
        "x = {f=lex:fruit} {o=lex:often} {c=col:city} {n=col:size} {=n*2} ({c} )?{b=col:flat}",
        {
            "x": [
                (
                    1,
                    [
                        ("hide", "_row", [0, 1, 2]),
                        ("draw", "f", ["fig", "lime"]),
                        " ",
                        ("call", "often"),
                        " ",
                        ("set", "c", lambda e: ["Rome", "Oslo", "Bern"][e["_row"]]),
                        show("c"),
                        " ",
                        ("set", "n", lambda e: [3, -1, 7][e["_row"]]),
                        ("show", lambda e: f"{e['n']} {e['n'] * 2} "),
                        ("optional", [(1, [show("c"), " "])]),
                        ("set", "b", lambda e: e["_row"] != 1),
                        ("show", lambda e: truth(e["b"])),
                    ],
                )
            ],
            "often": [
                (5, [("draw", "o", ["yes"])]),
                (2, [("draw", "o", ["no"])]),
                (1, [("draw", "o", ["maybe"])]),
            ],
        },
    ),
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
        "given": GIVEN.get(name, {}),
        "derivations": [
            [text, spans, {k: v for k, v in env.items() if k[0] != "_"}] for text, spans, env, _, _ in found
        ],
        "probabilities": [str(p) for *_, p, _ in found],
        "draws": draws,
    }


if __name__ == "__main__":
    cases = [vectors(name, *case) for name, case in CASES.items()]
    path = Path(__file__).with_name("templates.json")
    path.write_text(
        json.dumps({"cases": cases}, ensure_ascii=False, indent=None, separators=(",", ":"), default=str) + "\n"
    )
