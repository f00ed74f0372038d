"""Rewriting by ten thousand rules, and paraphrases of real English: docstrings of the standard library, one thread.

Each case first checks rows spread over the batch against the oracle of the golden vectors, which tries every rule at
every place, and the case with a peer compares all texts.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import variegate as vg
from _harness import Compare
from variegate import ops

SEED = 7
RULES = 10_000
CHECKED_ROWS = 5
CAPTURES = ("{x:word}", "{x}")


@cache
def docstrings() -> vg.TextBatch:
    """The docstrings of the standard library, a row each."""
    texts = []
    for path in sorted(Path(ast.__file__).parent.rglob("*.py")):
        if {"site-packages", "test"} & {*path.parts}:
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
        texts += [text for text in found if text]
    return vg.TextBatch.from_texts(texts, ids=np.arange(len(texts), dtype=np.uint64))


@cache
def rules(captures: bool) -> dict[str, str]:
    """Phrases of two to four words of the text, and other words for them; a tenth with a capture."""
    rng = random.Random(SEED)
    runs = [run.split() for run in re.findall(r"[a-z]{2,}(?: [a-z]{2,})+", "\n".join(docstrings().texts).lower())]
    made: dict[str, str] = {}
    while len(made) < RULES:
        words = rng.choice(runs)
        first = rng.randrange(len(words) - 1)
        phrase = words[first : first + rng.choice([2, 2, 3, 3, 4])]
        said = f"thing {len(made) % 97}"
        if captures and len(phrase) > 2 and rng.random() < 0.2:
            phrase[1] = rng.choice(CAPTURES)
            said = f"{{x}} {said}"
        made.setdefault(" ".join(phrase), said)
    return made


@cache
def oracle() -> Any:
    """The generator of the golden vectors."""
    path = Path(__file__).parents[1] / "tests" / "vectors" / "generate_text_ops.py"
    spec = importlib.util.spec_from_file_location("generate_text_ops", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def right(op: ops.Rewriter, table: dict[str, str], batch: vg.TextBatch, out: vg.TextBatch) -> bool:
    """Whether rows are what the oracle makes of them by the rules whose words they hold."""
    truth = oracle()
    short = [row for row in range(len(batch)) if 60 < batch.lengths[row] < 400]
    for row in short[:: len(short) // CHECKED_ROWS]:
        text = batch.texts[row]
        held = {*re.findall("[a-z]+", text.lower())}
        near = [(p, to) for p, to in table.items() if {*re.findall("[a-z]+", re.sub(r"\{.*?\}", "", p))} <= held]
        stream = truth.DRAWS.Stream(truth.DRAWS.op_key(SEED, "Rewriter#0", 0), 0, int(batch.ids[row]))
        parameters = {"rules": near, "rate": op.rate, "negations": []}
        if truth.run("Rewriter", parameters, text, [], stream)[0] != out.texts[row]:
            return False
    return True


def bench_rewriter(compare: Compare):
    """Ten thousand rules, a tenth of them with a capture."""
    batch, table = docstrings(), rules(captures=True)
    op = ops.Rewriter(table, rate=0.5, negations=())
    compare(
        "rewriter, 10,000 rules",
        lambda: op(batch, seed=SEED),
        check=lambda ours, _: right(op, table, batch, ours),
        units=len(batch.data),
        unit="bytes",
        goal_rate=20e6,
        note="docstrings of the standard library; half of all matches rewritten",
    )


def bench_rewriter_against_re(compare: Compare):
    """The peer joins the phrases into one regular expression; the texts lack "an", which suits no "thing"."""
    table = rules(captures=False)
    plain = (re.sub(r"[^a-z.,\n]+", " ", text.lower()).replace("\n", ". ") for text in docstrings()[:100].texts)
    plain = (re.sub(r" +", " ", re.sub(r"\ban\b", " ", text)) for text in plain)
    few = vg.TextBatch.from_texts(plain, ids=np.arange(100))
    op = ops.Rewriter(table, rate=1.0, negations=())
    peer = re.compile(r"\b(?:" + "|".join(sorted(table, key=len, reverse=True)) + r")\b")
    texts = few.texts
    compare(
        "rewriter, 10,000 rules without captures",
        lambda: op(few, seed=SEED),
        lambda: [peer.sub(lambda found: table[found[0]], text) for text in texts],
        check=lambda ours, theirs: ours.texts == theirs and theirs != texts,
        units=len(few.data),
        unit="bytes",
        peer_name="re",
        goal_ratio=100,
        note="100 docstrings in small letters; every match rewritten",
    )


@pytest.mark.parametrize("n", [1, 3])
def bench_paraphrase(compare: Compare, n: int):
    """Distinct variants with the rules and words that come along."""
    batch = docstrings()
    whole = vg.Compose([ops.Rewriter(), ops.Contraction(rate=0.2), ops.Synonym(rate=0.1)])

    def check(out: vg.TextBatch, _: Any) -> bool:
        sources, parents, texts = batch.texts, out.rows["_parent"].tolist(), out.texts
        pairs = list(zip(parents, texts, strict=True))
        first = whole(batch, seed=SEED, variant=0).texts
        opened = {parent: text for (parent, text), k in zip(pairs, out.rows["_variant"], strict=True) if k == 0}
        return (
            len({*pairs}) == len(pairs)
            and all(sources[parent] != text for parent, text in pairs)
            and opened == {row: text for row, text in enumerate(first) if text != sources[row]}
        )

    compare(
        f"paraphrase, n={n}",
        lambda: vg.paraphrase.paraphrase(batch, n, seed=SEED),
        check=check,
        units=len(batch.data),
        unit="bytes",
        note=f"docstrings of the standard library; up to {n} variants of each, up to {4 * n + 4} candidates",
    )
