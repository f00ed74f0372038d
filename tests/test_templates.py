"""Grammars through Python: derivations and draws against brute force, exact probabilities, refusals by their words."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples
from variegate.errors import InvalidInput
from variegate.templates import Grammar, Span

ROOT = Path(__file__).parents[1]
VECTORS = json.loads((ROOT / "tests/vectors/templates.json").read_text())
CASES = [pytest.param(case, id=case["name"]) for case in VECTORS["cases"]]

SUM = """
task = what is {a=int 2..99} plus {b=int 2..99}? <answer>{=a+b}</answer>
"""
CHAPTER = """
task     = ({intro} )?{a=int 2..99}, {b=int 2..99}: {ask} <answer>{=a+b}</answer>
ask      = what is {a} plus {b}? :: 3 | add {b} to {a}.
intro    = {name} has two {thing}. | Now you.
name     = Anna | Ben
thing    = apples | mice
"""
HUGE = "x = " + "".join(f"{{x{i}=choice 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}" for i in range(100))


def refusal(call) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call()
    return caught.value


def chi_square(counts: np.ndarray, probabilities: list[Fraction]) -> float:
    expected = np.array([float(p) for p in probabilities]) * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def limit(degrees: int) -> float:
    """About the 1e-6 quantile of chi-square (Wilson and Hilferty)."""
    z = 4.7534
    return degrees * (1 - 2 / (9 * degrees) + z * (2 / (9 * degrees)) ** 0.5) ** 3


@pytest.mark.parametrize("case", CASES)
def test_every_derivation_is_the_oracles(case):
    g = Grammar(case["source"], name=case["name"], **case["given"])
    assert g.count() == len(case["derivations"])
    for index, (text, spans, bindings) in enumerate(case["derivations"]):
        found = g.nth(index)
        shown = {k: v if isinstance(v, int | str) else str(v) for k, v in found.bindings.items()}
        assert (found.text, shown, found.index) == (text, bindings, index)
        assert found.spans == tuple(Span(*span) for span in spans)


@pytest.mark.parametrize("case", CASES)
def test_every_draw_is_the_oracles(case):
    g = Grammar(case["source"], name=case["name"], **case["given"])
    for draw in case["draws"]:
        s = g.sample(len(draw["indices"]), seed=draw["seed"], law=draw["law"], replace=draw["replace"])
        assert s.rows["_index"].tolist() == draw["indices"]
        assert s.ids.tolist() == draw["ids"]
        assert s.texts == [case["derivations"][index][0] for index in draw["indices"]]


@pytest.mark.parametrize("case", CASES)
def test_weighted_draws_have_the_exact_probabilities(case):
    probabilities = [Fraction(p) for p in case["probabilities"]]
    assert sum(probabilities) == 1
    if len(probabilities) == 1:
        return
    n = 200_000
    counts = np.bincount(
        Grammar(case["source"], **case["given"]).sample(n, seed=5).rows["_index"], minlength=len(probabilities)
    )
    assert min(probabilities) * n >= 5
    assert chi_square(counts, probabilities) < limit(len(probabilities) - 1)


@pytest.mark.parametrize("case", CASES)
def test_uniform_draws_have_equal_probabilities(case):
    size = len(case["derivations"])
    if size == 1:
        return
    counts = np.bincount(
        Grammar(case["source"], **case["given"]).sample(200_000, seed=6, law="uniform").rows["_index"], minlength=size
    )
    assert chi_square(counts, [Fraction(1, size)] * size) < limit(size - 1)


def test_the_sum_grammar_counts_and_answers():
    g = Grammar(SUM)
    assert g.count() == 9604
    s = g.sample(10_000, seed=1)
    for text in s.texts:
        a, b, answer = re.fullmatch(r"what is (\d+) plus (\d+)\? (\d+)", text).groups()
        assert int(a) + int(b) == int(answer)
    assert s.spans.row.tolist() == list(range(10_000))
    raw = s.data.tobytes()
    for row, start, end, tag in s.spans.to_list():
        base = s.offsets[row]
        assert tag == "answer"
        assert int(raw[base + start : base + end]) == s.rows["a"][row] + s.rows["b"][row]


def test_rows_spans_and_ids_have_their_types():
    s = Grammar("x = é{a=int 1..3}({w=choice p, q})? <t>{a}</t>").sample(50, seed=3)
    assert isinstance(s, vg.TextBatch)
    assert s.rows["a"].dtype == np.int64
    assert s.rows["w"].dtype == object
    assert set(s.rows["w"]) == {"p", "q", None}
    assert s.rows["_k"].dtype == s.rows["_index"].dtype == s.ids.dtype == np.uint64
    assert s.rows["_k"].tolist() == list(range(50))
    assert len(set(s.ids.tolist())) == 50
    for text, row, start, end in zip(s.texts, s.spans.row, s.spans.start, s.spans.end, strict=True):
        assert text.encode()[start:end].decode() == str(s.rows["a"][row])
    assert list(Grammar("x = {a=int 1..3}{w=choice p, q}").bindings.items()) == [("a", int), ("w", str)]
    optional = Grammar("x = ({a=int 1..3})?").sample(50, seed=3).rows["a"]
    assert optional.dtype == object
    assert set(optional) == {1, 2, 3, None}
    without = Grammar("x = y").sample(2, seed=0)
    assert without.spans is None
    assert set(without.rows) == {"_k", "_index"}


@pytest.mark.parametrize("kwargs", [{}, {"law": "uniform"}, {"law": "uniform", "replace": False}])
def test_a_draw_depends_on_nothing_but_its_number(kwargs):
    g = Grammar(CHAPTER)
    whole = g.sample(20_001, seed=9, **kwargs)
    assert g.sample(5, seed=9, **kwargs).equals(whole[:5])
    assert g.sample(0, seed=9, **kwargs).equals(whole[:0])
    threads = vg.get_num_threads()
    try:
        for n in (1, 2, 3):
            vg.set_num_threads(n)
            assert g.sample(20_001, seed=9, **kwargs).equals(whole)
    finally:
        vg.set_num_threads(threads)
    parts = [g.sample(len(range(r, 20_001, 4)), seed=9, shard=(r, 4), **kwargs) for r in range(4)]
    for r, part in enumerate(parts):
        assert part.equals(whole.take(np.arange(r, 20_001, 4)))
    assert g.sample(20_001, seed=10, **kwargs).texts != whole.texts
    assert Grammar(CHAPTER, name="other").sample(20_001, seed=9, **kwargs).texts != whole.texts


def test_without_replacement_no_derivation_comes_twice():
    g = Grammar(SUM)
    indices = np.concatenate([g.sample(2401, seed=2, replace=False, shard=(r, 4)).rows["_index"] for r in range(4)])
    assert np.array_equal(np.sort(indices), np.arange(9604))
    assert not np.array_equal(indices, np.arange(9604))
    wide = Grammar("x = {a=int 0..999999} {b=int 0..999999} {c=int 0..9999}")
    assert wide.count() == 10**16
    drawn = wide.sample(200_000, seed=2, replace=False).rows["_index"]
    assert len(np.unique(drawn)) == 200_000
    assert abs(drawn.astype(float).mean() / 1e16 - 0.5) < 0.005


def test_counts_and_indices_are_exact_beyond_64_bits():
    g = Grammar(HUGE)
    assert g.count() == 10**100
    index = 31415926535897932384626433832795028841971 * 10**50 + 7
    found = g.nth(index)
    assert found.text == f"{index:0100}"
    assert found.index == index
    s = g.sample(1000, seed=1, law="uniform")
    assert "_index" not in s.rows
    assert len(set(s.texts)) == 1000
    digits = np.bincount(s.data - ord("0"), minlength=10)
    assert chi_square(digits, [Fraction(1, 10)] * 10) < limit(9)
    assert Grammar("x = {a=int 0..4294967295}{b=int 0..4294967295}").count() == 2**64
    assert "_index" not in Grammar("x = {a=int 0..4294967295}{b=int 0..4294967295}").sample(1, seed=0).rows


def test_five_thousand_rules_compile():
    lines = [f"r{i} = w{i} {{r{i + 1}}} | v{i} {{r{i + 1}}}" for i in range(5000)]
    assert Grammar("\n".join([*lines, "r5000 = end"])).count() == 2**5000


def test_a_grammar_travels():
    g = Grammar(CHAPTER, name="mine")
    for again in (pickle.loads(pickle.dumps(g)), eval(repr(g)), Grammar(g.canonical, name="mine")):
        assert again == g
        assert hash(again) == hash(g)
        assert again.sample(100, seed=4).equals(g.sample(100, seed=4))
    assert repr(Grammar("a = b\nc = d", start="c")) == r"Grammar('a = b\nc = d', start='c')"
    assert g != Grammar(CHAPTER)
    assert g != 3
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_sample_texts, (g,)) == g.sample(20_000, seed=1).texts


def _sample_texts(g: Grammar) -> list[str]:
    return g.sample(20_000, seed=1).texts


def test_the_fingerprint_is_of_the_meaning():
    g = Grammar("x = a b | {c=int 1..2}\ny = z")
    assert g.fingerprint == hashlib.sha256(g.canonical.encode()).hexdigest()
    assert Grammar("# words\nx = a b\n  | { c = int 1 .. 2 step 1 } # more\n\ny = z").fingerprint == g.fingerprint
    assert Grammar("x = a b | {c=int 1..3}\ny = z").fingerprint != g.fingerprint
    assert Grammar("x = a b | {c=int 1..2}\ny = z", start="y").fingerprint != g.fingerprint
    assert Grammar("y = z\nx = a b | {c=int 1..2}", start="x").fingerprint == g.fingerprint


def test_the_start_can_be_chosen():
    g = Grammar(CHAPTER, start="name")
    assert (g.start, g.name, g.count()) == ("name", "name", 2)
    assert Grammar(CHAPTER).name == "task"
    assert (
        str(refusal(lambda: Grammar(CHAPTER, start="nmae"))) == "start: there is no rule 'nmae' (did you mean 'name'?)"
    )


def test_errors_have_a_place_and_a_caret(tmp_path):
    error = refusal(lambda: Grammar("task = hello {nmae}\nname = Anna"))
    assert str(error) == (
        "line 1, column 15: undefined rule 'nmae' (did you mean 'name'?)\n  task = hello {nmae}\n                ^"
    )
    assert (error.line, error.column) == (1, 15)
    assert isinstance(error, ValueError)
    path = tmp_path / "bad.grammar"
    path.write_text("a = b\na = c\n")
    error = refusal(lambda: Grammar.from_file(path))
    assert str(error) == f"{path}: line 2, column 1: duplicate rule 'a': it is defined in line 1\n  a = c\n  ^"
    assert (error.line, error.column) == (2, 1)
    path.write_bytes(b"a = \xff")
    assert str(refusal(lambda: Grammar.from_file(path))) == f"{path}: not UTF-8 (byte 4)"
    path.write_bytes(b"\xef\xbb\xbfa = b\r\n")
    assert Grammar.from_file(path).nth(0).text == "b"
    with pytest.raises(FileNotFoundError):
        Grammar.from_file(tmp_path / "none.grammar")


def test_division_by_zero_names_its_place():
    g = Grammar("x = {a=int 1..1}{b=int 0..1}{=a//b}")
    assert g.nth(1).text == "111"
    error = refusal(lambda: g.nth(0))
    assert str(error).splitlines()[0] == (
        "line 1, column 32: division by zero in {=a//b} with a = 1, b = 0 (derivation 0)"
    )
    error = refusal(lambda: g.sample(100, seed=1))
    assert re.match(r"line 1, column 32: division by zero in \{=a//b\} with a = 1, b = 0 \(draw \d+\)\n", str(error))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.nth(-1), "nth: the index must not be below 0"),
        (lambda g: g.nth(9604), "nth: the index must be below count() = 9604 (it is 9604)"),
        (lambda g: g.nth(1.5), "nth: the index must be an integer (it is 1.5)"),
        (lambda g: g.sample(-1, seed=0), "n must be a number of rows, 0 or more (it is -1)"),
        (lambda g: g.sample(1, seed=-1), "seed must be in [0, 2**64) (it is -1)"),
        (lambda g: g.sample(1, seed=2**64), "seed must be in [0, 2**64) (it is 18446744073709551616)"),
        (lambda g: g.sample(1, seed=True), "seed must be an integer (it is True)"),
        (lambda g: g.sample(1, seed=0, law="zipf"), "law must be 'weights' or 'uniform' (it is 'zipf')"),
        (lambda g: g.sample(1, seed=0, shard=(4, 4)), "shard must be (r, R) with 0 <= r < R (it is (4, 4))"),
        (lambda g: g.sample(1, seed=0, shard=3), "shard must be (r, R), two integers (it is 3)"),
        (
            lambda g: g.sample(9605, seed=0, replace=False),
            "replace=False: n = 9605 in shard (0, 1) needs 9605 derivations, the grammar has 9604",
        ),
        (
            lambda _: Grammar(CHAPTER).sample(1, seed=0, replace=False),
            'replace=False draws all derivations alike, but the grammar has weights: pass law="uniform" to ignore them',
        ),
        (
            lambda _: Grammar(HUGE).sample(1, seed=0, replace=False),
            f"replace=False takes grammars of up to 2^128 derivations, this has {10**100}: "
            "with so many, pass replace=True",
        ),
        (lambda _: Grammar(b"a = b"), "text must be a str, not bytes: Grammar.from_file reads files"),
        (lambda _: Grammar("a = \ud800"), "text must be valid Unicode (character 4 is a lone surrogate)"),
        (lambda _: Grammar("a = b", start=3), "start must be a str of valid Unicode (it is 3)"),
        (lambda _: Grammar("a = b", name="\ud800"), "name must be a str of valid Unicode (it is '\\ud800')"),
        (lambda _: Grammar("a = b", lexicons=["c"]), "lexicons must be a mapping by name (it is ['c'])"),
        (lambda _: Grammar("a = b", rows={1: [2]}), "rows must be a mapping by name (it is {1: [2]})"),
        (
            lambda g: g.sample(2**62, seed=0),
            "n = 4611686018427387904 rows do not fit into memory: draw them in parts",
        ),
        (
            lambda g: g.sample(2**62, seed=0, tokenizer=vg.Tokenizer.default()),
            "n = 4611686018427387904 rows do not fit into memory: draw them in parts",
        ),
        (lambda _: Grammar("# nothing"), "the grammar has no rule: write name = text"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    assert str(refusal(lambda: call(Grammar(SUM)))) == message


@examples(300)
@given(st.binary(max_size=80))
def test_any_file_compiles_or_is_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "any.grammar"
    path.write_bytes(raw)
    try:
        g = Grammar.from_file(path)
    except InvalidInput as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        assert g.count() >= 1


@examples(60)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=4))
def test_mixed_radix_is_the_product_of_its_ranges(ranges):
    slots = "".join(f"<t>{{x{i}=int {a}..{a + more} step {step}}}</t>," for i, (a, more, step) in enumerate(ranges))
    g = Grammar(f"x = {slots}")
    sizes = [len(range(a, a + more + 1, step)) for a, more, step in ranges]
    assert g.count() == np.prod(sizes)
    for index in range(0, g.count(), max(1, g.count() // 20)):
        digits = np.unravel_index(index, sizes)
        values = [a + int(d) * step for (a, _, step), d in zip(ranges, digits, strict=True)]
        found = g.nth(index)
        assert list(found.bindings.values()) == values
        assert [int(found.text[span.start : span.end]) for span in found.spans] == values


UNSEEN = (
    "x = "
    + "".join(f"{{!x{i}=choice a, b, c, d, e, f, g, h, i}}" for i in range(8))
    + "{=" + "+".join(f"x{i}" for i in range(8)) + "}"
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_index_of_inverts_the_oracles_derivations(case):
    g = Grammar(case["source"], name=case["name"], **case["given"])
    first = {}
    for index, (text, _, _) in enumerate(case["derivations"]):
        derivation = g.nth(index)
        assert g.index_of(derivation) == index
        assert g.index_of(text) == first.setdefault(text, index)
        again = g.nth(g.index_of(text, bindings=derivation.bindings))
        assert (again.text, again.bindings | derivation.bindings) == (text, again.bindings)
        assert next(step for step in g.explain(index) if step.kind == "rule").text == text


def test_enumeration_is_a_bijection_with_index_of():
    g = Grammar("s = {e} ends\ne[depth=3] = ({e} {e}) | {n=choice 1, 2} | <t>{w=choice p, q}</t>( {n2=int 8..9})?")
    texts = [g.nth(k).text for k in range(g.count())]
    assert len(set(texts)) == g.count() > 4000
    for k in range(0, g.count(), 7):
        assert g.index_of(texts[k]) == k


def test_index_of_reads_texts_of_the_example_grammar():
    g = Grammar.from_file(ROOT / "examples/grammars/arithmetic.grammar")
    s = g.sample(100, seed=5)
    for text, index in zip(s.texts, s.rows["_index"], strict=True):
        found = g.index_of(text)
        assert found <= index
        assert g.nth(found).text == text
        assert g.index_of(g.nth(int(index))) == index


def test_index_of_solves_for_hidden_values():
    g = Grammar(
        "x = {!a=int 1..900}{!b=int 1..900}{!c=int 1..900}( so)? {=a+b*c} and {=a-b}, {=b > c}; {c}|{!a=int 7..8}no"
    )
    for text in g.sample(40, seed=2).texts:
        index = g.index_of(text)
        assert g.nth(index).text == text
        same = [k for k in (index - 1, index + 1) if 0 <= k < g.count() and g.nth(k).text == text]
        assert all(k >= index for k in same)
    wide = Grammar("x = {!a=float 0.00..99999999.99 step 0.01}{!d=date 0001-01-01..9999-12-31}{d} {a} {=a > 2.5}")
    for index in (0, 12345, wide.count() // 3, wide.count() - 1):
        assert wide.index_of(wide.nth(index).text) == index
    free = Grammar("x = {!a=int 1..9}{!b=int 1..9}{!a=int 3..9}{=a*b}")
    texts = [free.nth(k).text for k in range(free.count())]
    assert [free.index_of(text) for text in texts] == [texts.index(text) for text in texts]


RICH = """
story = {who=name} buys {n=int 2..4} {thing[num=n]} at {price=float 0.25..1.25 step 0.25} each on \\
        {!d=date 2024-01-30..2024-02-02}{d|long}. {they[gender=who]|cap} pays {=n * price}, and has {thing|a} too.
name  = Anna[gender=f] | Ben[gender=m]
they  = she[gender=f] | he[gender=m]
thing = apple | mouse[pl=mice] | hourglass
"""


def test_index_of_explain_and_tokens_know_the_whole_language():
    g = Grammar(RICH)
    step = 37
    for k in range(0, g.count(), step):
        text = g.nth(k).text
        found = g.index_of(text)
        assert g.nth(found).text == text
        assert found <= k
        assert g.index_of(g.nth(k)) == k
        assert g.nth(g.index_of(text, bindings=g.nth(k).bindings)).bindings == g.nth(k).bindings
        steps = g.explain(k)
        assert steps[0].text == text
        drawn = {step.name: step.value for step in steps if step.kind == "draw"}
        assert drawn["price"] == str(g.nth(k).bindings["price"])
        (article,) = (step.text for step in steps if step.kind == "compute" and step.name == "thing|a")
        assert f"has {article} too" in text
    tok = vg.Tokenizer.default()
    s = g.sample(500, seed=3)
    assert g.sample(500, seed=3, tokenizer=tok).equals(tok.encode(s))
    lexicon = Grammar("x = {c=lex:city} <t>{n=col:n}</t>{w=col:w}", lexicons={"city": {"Rome": 3, "Oslo": 1}},
                      rows={"n": [3, 5], "w": ["p", "q r"]})  # fmt: skip
    for k in range(lexicon.count()):
        assert lexicon.index_of(lexicon.nth(k).text) == k
        facts = {step.name: step.value for step in lexicon.explain(k) if step.kind == "draw"}
        assert facts == {"_row": str(lexicon.nth(k).row), "c": lexicon.nth(k).bindings["c"]}
    assert lexicon.sample(50, seed=3, tokenizer=tok).equals(tok.encode(lexicon.sample(50, seed=3)))


def test_index_of_reads_texts_of_local_bindings():
    for text in (
        "start = {f} is {=v}\nf[depth=3] = {v=choice true, false} | \\({f}{!_l=(v)} and {f}{!v=(_l and v)}\\)",
        "start = {x} = {=t}\nx[depth=3] = {t=int 1..9} | \\({x}{!_l=(t)} + {x}{!t=(_l + t)}\\)",
        "s = {!a=int 1..9}{!_b=int 1..9}{w}{w} {=a*_b}\nw = {!_b=int 3..5}x{_b}",
    ):
        g = Grammar(text)
        for k in np.random.default_rng(5).integers(0, g.count(), 60).tolist():
            found = g.index_of(g.nth(k).text)
            assert found <= k == g.index_of(g.nth(k))
            assert g.nth(found).text == g.nth(k).text


def test_index_of_is_exact_beyond_64_bits():
    g = Grammar(HUGE)
    index = 31415926535897932384626433832795028841971 * 10**50 + 7
    assert g.index_of(f"{index:0100}") == index
    assert g.index_of(g.nth(index)) == index
    assert Grammar(HUGE + "{x100=int 0..99}").index_of(f"{index:0100}7") == index * 100 + 7


def test_index_of_takes_derivations_of_another_order():
    a, b = Grammar("x = p {n=int 1..9} | q"), Grammar("x = q | p {n=int 1..9}")
    assert [b.index_of(a.nth(k)) for k in range(10)] == [*range(1, 10), 0]
    assert a.index_of("p 3", bindings={"n": 3}) == 2
    hidden = Grammar("x = {!a=int 1..9}( {w=choice p, q})?{=a//4}")
    assert hidden.index_of("1") == 9
    assert hidden.nth(hidden.index_of("1", bindings={"a": 6})).bindings == {"a": 6}
    assert hidden.nth(hidden.index_of(" q1", bindings={"a": 6, "w": "q"})).bindings == {"a": 6, "w": "q"}
    assert hidden.nth(hidden.index_of("1", bindings={"w": None})).index == 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g: g.index_of("what is 7 plus é?"),
            "index_of: no derivation has this text: it can be read up to character 15, "
            'between "what is 7 plus " and "é?"',
        ),
        (
            lambda g: g.index_of("what is 7 plus 8? 16"),
            "index_of: no derivation has this text: it can be read up to character 19, "
            'between "what is 7 plus 8? 1" and "6"',
        ),
        (
            lambda g: g.index_of("what is 7 plus 8? 15", bindings={"a": 8}),
            "index_of: no derivation with this text has these bindings",
        ),
        (
            lambda g: g.index_of("what is 7 plus 8? 15", bindings={"c": 8}),
            "index_of: there is no binding 'c' (there are a, b)",
        ),
        (
            lambda g: g.index_of("what is 7 plus 8? 15", bindings={"a": "8"}),
            "index_of: the binding 'a' holds an int (it is '8')",
        ),
        (
            lambda g: g.index_of("x", bindings={"a": 2**63}),
            f"index_of: the binding 'a' cannot be {2**63}",
        ),
        (lambda g: g.index_of(7), "index_of takes a Derivation or a str, not int"),
        (
            lambda g: g.index_of(g.nth(0), bindings={}),
            "index_of: bindings go with a text; a derivation has its own",
        ),
        (
            lambda g: g.index_of("\ud800"),
            "index_of: the text must be valid Unicode (character 0 is a lone surrogate)",
        ),
        (
            lambda _: Grammar(UNSEEN).index_of("aaaaaaaz"),
            "index_of: gave up after 2097152 tries: the text can be read in too many ways",
        ),
    ],
)
def test_index_of_says_why_not(call, message):
    assert str(refusal(lambda: call(Grammar(SUM)))) == message


def test_four_shards_are_the_whole_draw_without_replacement():
    g = Grammar("x = {a=int 0..999999} {b=int 0..999999} {c=int 0..9}")
    assert g.count() == 10**13
    n = 1_000_000
    whole = g.sample(n, seed=11, replace=False).rows["_index"]
    assert len(np.unique(whole)) == n
    shards = [g.sample(n // 4, seed=11, replace=False, shard=(r, 4)).rows["_index"] for r in range(4)]
    for r, shard in enumerate(shards):
        assert np.array_equal(shard, whole[r::4])
    assert len(np.unique(np.concatenate(shards))) == n


def test_draws_without_replacement_need_no_memory_but_their_rows():
    g = Grammar("x = {a=int 0..999999}{b=int 0..999999}")
    code = (
        "import resource; from variegate.templates import Grammar\n"
        f"g = Grammar({g.text!r})\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "g.sample(25_000, seed=1, replace=False)\n"
        "before = peak()\n"
        "for r in range(40): g.sample(25_000, seed=1, replace=False, shard=(r, 40))\n"
        "print(peak() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) < 20_000  # kB, for a million draws of a trillion


def test_explain_names_rules_choices_and_values():
    g = Grammar(CHAPTER)
    index = 88_300
    steps = g.explain(index)
    assert [(step.depth, step.kind, step.name, step.choice) for step in steps if step.kind != "draw"] == [
        (0, "rule", "task", None),
        (1, "group", "", (1, 1)),
        (2, "rule", "intro", (1, 2)),
        (3, "rule", "name", (2, 2)),
        (3, "rule", "thing", (2, 2)),
        (1, "rule", "ask", (1, 2)),
        (1, "tag", "answer", None),
        (2, "compute", "=a+b", None),
    ]
    assert steps[0].text == g.nth(index).text
    draws = {step.name: int(step.value) for step in steps if step.kind == "draw"}
    assert draws == g.nth(index).bindings
    assert g.rule_counts() == {"task": 115248, "ask": 2, "intro": 5, "name": 2, "thing": 2}
    assert Grammar("e[depth=3] = ({e}) | x\nu = y").rule_counts() == {"e": 3, "u": 0}
    assert str(refusal(lambda: g.explain(-1))) == "nth: the index must not be below 0"


WEIGHTED = """
x = {a} {b}(:: 3 | , {c} | ; {a} :: 2)?
a = p :: 5 | q :: 3 | r{n=int 0..3} :: 1.5 | s :: 0.5
b[depth=3] = <{b}> :: 2 | [{b}] | t :: 3
c = u | v
"""
WEIGHTS = {"a": [5, 3, 1.5, 0.5], "b": [2, 1, 3], "c": [1, 1], "(": [3, 1, 2]}


def test_reweight_recovers_the_weights_of_a_sample():
    known = Grammar(WEIGHTED)
    flat = Grammar(re.sub(r" :: [0-9.]+", "", WEIGHTED).replace("( |", "(").replace("(|", "("))
    n = 40_000
    found = flat.reweight(known.sample(n, seed=3), floor=0.001)
    assert found.count() == known.count()
    assert found.name == flat.name
    lines = dict(line.split(" = ") for line in re.sub(r"\[depth=\d+\]", "", found.text).splitlines())
    lines["("] = lines.pop("x").partition("(")[2]
    for name, weights in WEIGHTS.items():
        shares = np.array([float(w) for w in re.findall(r"::([0-9.]+)", lines[name])])
        expected = np.array(weights) / sum(weights)
        least = n / 8 if name == "c" else n
        assert (np.abs(shares - expected) <= 3 * np.sqrt(expected * (1 - expected) / least)).all(), (name, shares)


def test_reweight_takes_batches_indices_and_derivations():
    g = Grammar(CHAPTER, name="mine")
    s = g.sample(300, seed=2)
    indices = [int(i) for i in s.rows["_index"]]
    expected = g.reweight(s)
    for same in (s.rows["_index"], indices, iter(indices), [g.nth(i) for i in indices]):
        assert g.reweight(same) == expected
    assert expected.sample(100, seed=4).texts == Grammar(expected.text, name="mine").sample(100, seed=4).texts
    assert expected.nth(77) == g.nth(77)
    rare = g.reweight([0] * 100, floor=0.1)
    assert min(float(w) for w in re.findall(r"::([0-9.]+)", rare.text)) == pytest.approx(0.05)
    big = Grammar(HUGE + " | no")
    assert "::0.025" in big.reweight([10**99] * 3).text
    for call, message in [
        (lambda: g.reweight([1], floor=0), "floor must be in (0, 1] (it is 0)"),
        (lambda: g.reweight([1], floor=float("nan")), "floor must be in (0, 1] (it is NaN)"),
        (lambda: g.reweight([-1]), "reweight: an index must not be below 0"),
        (lambda: g.reweight(None), "reweight: derivations must be indices or derivations, not NoneType"),
        (lambda: g.reweight([0], floor="a"), "reweight: floor must be a number (it is 'a')"),
        (
            lambda: g.reweight(np.zeros((1, 1), np.uint64)),
            "reweight: an index must be an integer (it is array([0], dtype=uint64))",
        ),
        (lambda: g.nth(-(10**5000)), "nth: the index must not be below 0"),
        (lambda: g.reweight(["a"]), "reweight: an index must be an integer (it is 'a')"),
        (
            lambda: g.reweight([1, 10**9]),
            f"reweight: indices must be below count() = {g.count()} (item 1 is 1000000000)",
        ),
        (
            lambda: g.reweight(vg.TextBatch.from_texts(["a"])),
            "reweight: the batch has no rows['_index'], the indices of a sample's derivations",
        ),
    ]:
        assert str(refusal(call)) == message


def test_a_group_may_state_the_weight_of_leaving_it_out():
    g = Grammar("x = a(:: 3 | b | c :: 2)?")
    counts = np.bincount(g.sample(60_000, seed=4).rows["_index"], minlength=3)
    assert chi_square(counts, [Fraction(1, 2), Fraction(1, 6), Fraction(1, 3)]) < limit(2)
    assert [g.nth(k).text for k in range(3)] == ["a", "ab", "ac"]
    assert Grammar("x = a( :: 3 |b| c :: 2)?") == g
    assert Grammar(g.canonical, name="x") == g
    for text, message in [
        ("x = a(:: 3)?", "the weight of leaving a group out stands before its alternatives: (:: 3 | text)?"),
        ("x = a(:: 3 | )?", "empty group: it needs text or a slot"),
    ]:
        assert str(refusal(lambda text=text: Grammar(text))).splitlines()[0].partition(": ")[2] == message
