"""Texts from a template, numbers drawn and answers computed: against str.format, Jinja2 and tracery, one thread."""

from __future__ import annotations

import random
import re
from decimal import Decimal

import jinja2
import pytest

from variegate.templates import Grammar

ROWS = 200_000
PEER_ROWS = 20_000
GRAMMAR = Grammar("task = what is {a=int 2..99} plus {b=int 2..99}? <answer>{=a+b}</answer>")
SHAPE = re.compile(r"what is (\d+) plus (\d+)\? (\d+)")
FORMAT = "what is {a} plus {b}? {answer}"
JINJA = jinja2.Environment(autoescape=False).from_string("what is {{ a }} plus {{ b }}? {{ a + b }}")
NUMBERS = [str(number) for number in range(2, 100)]
STORY = Grammar("""
story = {who=name} buys {n=int 2..9} {thing[num=n]} at {price=float 0.25..9.75 step 0.25} each on \\
        {d=date 2024-01-01..2024-12-31|long}. {they[gender=who]|cap} pays {=n * price}, and has {thing|a} too.
name  = Anna[gender=f] | Ben[gender=m] | Chloe[gender=f] | Dan[gender=m]
they  = she[gender=f] | he[gender=m]
thing = apple | mouse[pl=mice] | hourglass | unicorn
""")


def str_format() -> list[str]:
    draw = random.Random(3).randint
    texts = []
    for _ in range(PEER_ROWS):
        a, b = draw(2, 99), draw(2, 99)
        texts.append(FORMAT.format(a=a, b=b, answer=a + b))
    return texts


def jinja() -> list[str]:
    draw = random.Random(3).randint
    return [JINJA.render(a=draw(2, 99), b=draw(2, 99)) for _ in range(PEER_ROWS)]


def right(texts: list[str]) -> bool:
    """Whether every text has the shape, its numbers lie in range, and its answer is their sum."""
    found = [SHAPE.fullmatch(text) for text in texts]
    values = [tuple(map(int, match.groups())) for match in found if match]
    return len(values) == len(texts) and all(2 <= a <= 99 and 2 <= b <= 99 and a + b == c for a, b, c in values)


@pytest.mark.parametrize(("peer", "name", "package", "ratio"), [
    (str_format, "random.randint, str.format", None, 10),
    (jinja, "random.randint, Jinja2", "jinja2", 30),
], ids=["str.format", "jinja2"])  # fmt: skip
def bench_sample(compare, peer, name, package, ratio):
    # Both sides make PEER_ROWS rows a call, so that units and ratio are of the same work.
    compare(
        f"templates, sample, over {name.rpartition(' ')[2]}",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3),
        peer,
        check=lambda ours, theirs: right(ours.texts) and right(theirs) and len(ours) == len(theirs) == PEER_ROWS,
        units=PEER_ROWS,
        unit="strings",
        peer_name=name,
        peer_package=package,
        goal_rate=2e6,
        goal_ratio=ratio,
        note="ours makes one flat buffer with spans, bindings and ids; the peer a list of str",
    )


def bench_sample_over_tracery(compare):
    tracery = pytest.importorskip("tracery")
    grammar = tracery.Grammar({"task": "what is #a# plus #b#? ", "a": NUMBERS, "b": NUMBERS})
    compare(
        "templates, sample, over tracery",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3),
        lambda: [grammar.flatten("#task#") for _ in range(PEER_ROWS)],
        check=lambda ours, theirs: right(ours.texts) and all(SHAPE.fullmatch(text + "0") for text in theirs),
        units=PEER_ROWS,
        unit="strings",
        peer_name="tracery",
        peer_package="tracery",
        goal_rate=2e6,
        goal_ratio=500,
        note="the peer makes the question without the answer, which it cannot compute",
    )


def bench_sample_of_a_story(compare):
    shape = re.compile(
        r"(\w+) buys (\d) (\w+) at (\S+) each on \d+ \w+ 2024\. (She|He) pays (\S+), and has (an? \w+) too\."
    )

    def told(texts: list[str]) -> bool:
        found = [shape.fullmatch(text).groups() for text in texts]
        articles = {"an apple", "a mouse", "an hourglass", "a unicorn"}
        return all(
            Decimal(price) * int(n) == Decimal(paid)
            and (who in ("Anna", "Chloe")) == (they == "She")
            and things in ("apples", "mice", "hourglasses", "unicorns")
            and thing in articles
            for who, n, things, price, they, paid, thing in found
        )

    compare(
        "templates, sample with agreement, decimals, dates, filters",
        lambda: STORY.sample(PEER_ROWS, seed=3),
        check=lambda ours, _: told(ours.texts),
        units=PEER_ROWS,
        unit="strings",
    )


def bench_sample_as_strings(compare):
    compare(
        "templates, sample().texts",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3).texts,
        str_format,
        check=lambda ours, theirs: right(ours) and right(theirs),
        units=PEER_ROWS,
        unit="strings",
        peer_name="random.randint, str.format",
        note="both end in a list of str",
    )


def bench_sample_without_replacement(compare):
    wide = Grammar("x = {a=int 0..999999} {b=int 0..999999} {c=int 0..9999}")
    compare(
        "templates, sample(replace=False) of 1e16",
        lambda: wide.sample(ROWS, seed=3, replace=False),
        check=lambda ours, _: len(set(ours.rows["_index"].tolist())) == ROWS == len(set(ours.texts)),
        units=ROWS,
        unit="strings",
        goal_rate=1e6,
    )


def bench_compile(compare):
    rules = [f"r{i} = w{i} {{r{i + 1}}} | v{i} {{r{i + 1}}}" for i in range(5000)]
    source = "\n".join([*rules, "r5000 = end"])
    compare(
        "templates, compile 5,001 rules",
        lambda: Grammar(source),
        check=lambda ours, _: ours.count() == 2**5000,
        units=5001,
        unit="rules",
        goal_seconds=1.0,
    )
