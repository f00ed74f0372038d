"""Rules of rewriting, distinct variants, and the rules that come along."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import text_batches
from variegate import ops
from variegate.errors import InvalidInput
from variegate.paraphrase import Rewriter, Rules, paraphrase

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "rust" / "core" / "src" / "ops" / "tables" / "rewrites.tsv"
TEXTS = [
    "In order to win, a large number of people made use of it. For example, the old man left because it was late.",
    "It is clear that we do not know.",
    "",
    "Nothing here.",
    "They took part in the vote once again; in fact, it took place at the present time.",
]


def batch_of(texts: list[str], **more: Any) -> vg.TextBatch:
    return vg.TextBatch.from_texts(texts, ids=np.arange(len(texts)) + 7, **more)


def oracle() -> Any:
    """The generator of the golden vectors, whose oracle matches by regular expressions."""
    path = Path(__file__).parent / "vectors" / "generate_text_ops.py"
    spec = importlib.util.spec_from_file_location("generate_text_ops", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ORACLE = oracle()

# Rules ---------------------------------------------------------------------------------------------------------------

PART = st.sampled_from(["a", "b", "it", "The", "{x:word}", "{y}", "{n:int}", "a b"])
PATTERNS = st.lists(PART, min_size=1, max_size=4).map(" ".join)
ALTERNATIVE = st.lists(st.sampled_from(["{x}", "{y}", "{n}", "an", "see", "the"]), min_size=1, max_size=4).map(" ".join)
RULES = st.lists(st.tuples(PATTERNS, st.lists(ALTERNATIVE, min_size=1, max_size=3).map(" | ".join)), max_size=5)
PIECE = st.sampled_from(
    ["a", "b", "it", "The", "A", "B", "AN", "not", "7", "1.5", "a's", *" " * 8, "  ", " \n", "\n\n", ",", ". ", "("]
)


@given(RULES, st.lists(PIECE, max_size=20).map("".join), st.integers(0, 2**64 - 1), st.sampled_from([0.5, 1.0]))
def test_rewriting_is_what_the_oracle_makes(rules, text, seed, rate):
    kept: list[tuple[str, str]] = []
    for rule in rules:
        try:
            Rules([*kept, rule])
        except InvalidInput:
            continue
        kept.append(rule)
    p = {"rules": kept, "rate": rate}
    stream = ORACLE.DRAWS.Stream(ORACLE.DRAWS.op_key(seed, "Rewriter#0", 0), 0, 7)
    expected, edits = ORACLE.run("Rewriter", p, text, [], stream)
    out = Rewriter(kept, rate=rate)(batch_of([text]), seed=seed, return_source=True)
    assert out.texts == [expected]
    assert [list(run[1:]) for run in zip(*(part.tolist() for part in out.edits), strict=True)] == edits


@given(st.text(max_size=60), st.text(max_size=60), text_batches())
def test_any_rules_are_read_or_refused(pattern, alternatives, batch):
    try:
        op = Rewriter([(pattern, alternatives)], rate=1.0)
    except InvalidInput:
        return
    out = op(batch, seed=1)
    assert len(out.texts) == len(batch)


@given(st.binary(max_size=80))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("rules") / "rules.tsv"
    path.write_bytes(content)
    read = None
    try:
        read = Rules.from_file(path)
    except InvalidInput as error:
        message = str(error)
    if read is None:
        assert str(path) in message
    else:
        assert len(Rewriter(read)(batch_of(["a b c"]), seed=1).texts) == 1


def test_a_bad_line_is_named_with_file_line_column_and_caret(tmp_path):
    path = tmp_path / "rules.tsv"
    path.write_text("# comment\nin order to\tto\nmake use of {thing}\tuse {thng}\n", "utf-8")
    with pytest.raises(InvalidInput) as caught:
        Rewriter.from_file(path)
    assert (caught.value.line, caught.value.column) == (3, 25)
    assert str(caught.value).splitlines() == [
        f"rules: {path}: line 3, column 25: the pattern has no capture 'thng' (did you mean 'thing'?)",
        "  make use of {thing} use {thng}",
        "                          ^",
    ]
    with pytest.raises(InvalidInput, match="cannot be read"):
        Rules.from_file(tmp_path / "none.tsv")
    path.write_bytes(b"a\tb\xff")
    with pytest.raises(InvalidInput, match=r"not UTF-8 \(byte 3\)"):
        Rules.from_file(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rewriter({"a": "b"}, rate=2.0), "Rewriter: rate must lie in [0, 1] (it is 2)"),
        (
            lambda: Rewriter(3),
            "Rewriter: rules: rows must be pairs of a pattern and its alternatives, or a mapping (3)",
        ),
        (lambda: Rewriter([("a",)]), "Rewriter: rules: row 0 must be a pattern and its alternatives, both str"),
        (lambda: Rules([("a\tb", "c")]), "rules: row 0 must hold no tab or line end"),
        (lambda: Rules([("", "c")]), "rules: row 0 must hold no tab or line end"),
        (lambda: Rules([("\ud800", "c")]), "rules: row 0 must hold no lone surrogate"),
        (lambda: Rules({"a": "b", "A {x": "c"}), "rules: line 2, column 3: a capture is {name}"),
        (lambda: Rewriter({"a": "b"})(batch_of(["a"]), n=0, seed=1), "paraphrase: n must lie in [1, 1000] (it is 0)"),
        (lambda: Rewriter({"a": "b"})(batch_of(["a"]), n=1, variant=1, seed=1), "Rewriter: variant must not be given"),
        (
            lambda: paraphrase(batch_of(["a"]), 3, seed=1, candidates=2),
            "candidates must be at least n: 2 cannot give 3",
        ),
        (lambda: paraphrase(batch_of(["a"]), 3, seed=-1), "seed must lie in [0, 2^64) (it is -1)"),
        (lambda: paraphrase(batch_of(["a"]), 3, seed=1, using=()), "Compose: ops must hold at least one op"),
        (lambda: paraphrase(["a"], 3, seed=1), "paraphrase takes a TokenBatch or a TextBatch, not list"),
        (
            lambda: paraphrase(batch_of(["a"]), 1, seed=1, using=vg.Repeat(Rewriter(), n=2)),
            "paraphrase: using must not hold a Repeat",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert message in str(caught.value)


def test_rules_are_plain_values_and_a_changed_file_is_refused(tmp_path):
    rules = Rules({"in order to": "to", "{x} because {y}": "because {y}, {x} :: 2"})
    assert eval(repr(rules), {"Rules": Rules}) == rules == Rules.from_spec(rules.to_spec())
    assert pickle.loads(pickle.dumps(rules)) == rules
    op = Rewriter(rules, rate=1.0, name="say")
    assert ops.from_json(op.to_json()) == op == pickle.loads(pickle.dumps(op))
    path = tmp_path / "rules.tsv"
    path.write_text(rules.text, "utf-8")
    read = Rewriter.from_file(path, rate=1.0)
    assert len(read.to_json()) < 300
    assert ops.from_json(read.to_json()) == read
    assert read(batch_of(TEXTS), seed=3).equals(Rewriter(rules, rate=1.0)(batch_of(TEXTS), seed=3))
    path.write_text("a\tb\n", "utf-8")
    with pytest.raises(InvalidInput, match=r"is not what it was \(SHA-256 "):
        ops.from_json(read.to_json())


def test_alternatives_come_as_often_as_they_weigh():
    batch = vg.TextBatch.from_texts(["so"] * 40_000, ids=range(40_000))
    texts = Rewriter({"so": "a | b :: 3 | c :: 0.5"}, rate=1.0)(batch, seed=5).texts
    counts = [texts.count(word) for word in "abc"]
    for count, weight in zip(counts, (1, 3, 0.5), strict=True):
        share = weight / 4.5
        assert abs(count - 40_000 * share) < 4 * (40_000 * share * (1 - share)) ** 0.5


# The rules that come along -------------------------------------------------------------------------------------------

PAIRS = [line.split("\t") for line in SHIPPED.read_text("utf-8").splitlines() if "\t" in line]


def test_every_rule_that_comes_along_rewrites_its_own_pattern():
    """At rate 1 a sentence of each pattern, its captures filled in, becomes one of its alternatives."""
    fill = {"": "money", "word": "careful", "int": "12"}
    filled = []
    for pattern, alternatives in PAIRS:
        said = [pattern, *(alternative.strip() for alternative in alternatives.split("|"))]
        for name, kind in re.findall(r"\{(\w+):?(\w*)\}", pattern):
            said = [re.sub(rf"\{{{name}(:\w+)?\}}", fill[kind], one) for one in said]
        filled.append(said)
    texts = [f"we saw {pattern}" if pattern[0].isalnum() else f"we saw it{pattern}" for pattern, *_ in filled]
    out = Rewriter(rate=1.0)(batch_of(texts), seed=1).texts
    for text, made, (pattern, *alternatives) in zip(texts, out, filled, strict=True):
        assert made in [text.replace(pattern, alternative) for alternative in alternatives]


def test_rules_that_come_along_touch_no_negation_and_are_many():
    assert len(PAIRS) > 500
    for pattern, alternatives in PAIRS:
        assert not {*pattern.lower().split()} & {*ops.NEGATIONS}, pattern
        words = {word for alternative in alternatives.split("|") for word in alternative.lower().split()}
        assert words & {*ops.NEGATIONS} <= {"cannot", "not", "without"}, pattern


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A large number of the files are able to wait.", "Many of the files can wait."),
        ("such a large number of files", "so many files"),
        ("x is greater than or equal to y", "x is greater than or equal to y"),
        ("They were not able to come in order not to lose.", "They were not able to come in order not to lose."),
        ("IN ORDER TO WIN", "TO WIN"),
        ("It works in a very\nsimple manner.", "It works in a very\nsimple manner."),
        ("He behaved in a careful manner.", "He behaved in a careful way."),
        ("They went back and forth.", "They went back and forth."),
        ("As far as the money is concerned, we won.", "As for the money, we won."),
    ],
)
def test_rules_that_come_along_keep_the_sense(text, expected):
    found = {Rewriter(rate=1.0)(batch_of([text]), seed=seed).texts[0] for seed in range(40)}
    assert expected in found
    if text == expected:
        assert found == {text}


# Variants ------------------------------------------------------------------------------------------------------------


def test_the_calls_of_the_chapter_run(tmp_path):
    path = tmp_path / "rules.tsv"
    path.write_text("in order to\tto | so as to\n", "utf-8")
    out = vg.paraphrase.Rewriter.from_file(path)(batch_of(TEXTS), n=3, seed=1)
    assert sorted(out.texts) == [TEXTS[0].replace("In order to", said) for said in ("So as to", "To")]
    more = vg.paraphrase.paraphrase(batch_of(TEXTS), n=3, seed=1)
    assert len(more) >= 7


@given(text_batches(), st.integers(1, 4), st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_variants_are_distinct_counted_and_each_record_stands_alone(batch, n, seed, cut):
    using = (Rewriter({"good": "fine | nice", "car": "bus"}), ops.Contraction(rate=0.5), ops.Synonym(rate=0.3))
    out = paraphrase(batch, n, seed=seed, using=using, return_source=True)
    parents, texts = out.rows["_parent"], out.texts
    assert (np.diff(parents) >= 0).all()
    pairs = list(zip(parents.tolist(), texts, strict=True))
    assert len({*pairs}) == len(pairs)
    assert all(batch.texts[parent] != text for parent, text in pairs)
    counts = np.bincount(parents, minlength=len(batch))
    assert counts.max(initial=0) <= n
    stats = out.stats["paraphrase"]
    short = np.concatenate(list(stats["short"].values()))
    assert sorted(short.tolist()) == np.flatnonzero(counts < n).tolist()
    assert stats["candidates"] == stats["variants"] + stats["unchanged"] + stats["repeated"]
    assert out.rows["score"].tolist() == batch.rows["score"][parents].tolist()
    # What the edits say is what happened.
    for row, text in enumerate(texts):
        source, made, at = batch.texts[parents[row]].encode(), b"", 0
        for r, start, end, length in zip(*(part.tolist() for part in out.edits), strict=True):
            if r == row:
                made += source[at:start]
                made, at = made + text.encode()[len(made) : len(made) + length], end
        assert made + source[at:] == text.encode()
    # Candidates are those of the ops.
    op = vg.Compose(using)
    for k in {*out.rows["_variant"].tolist()}:
        whole = op(batch, seed=seed, variant=k).texts
        assert all(texts[i] == whole[parents[i]] for i in np.flatnonzero(out.rows["_variant"] == k))
    # Any part of the batch gives its part of the result, and fewer variants are the first of more.
    cut = min(cut, len(batch))
    parts = [paraphrase(part, n, seed=seed, using=using) for part in (batch[:cut], batch[cut:])]
    assert [text for part in parts for text in part.texts] == texts
    assert np.concatenate([part.ids for part in parts]).tolist() == out.ids.tolist()
    fewer = paraphrase(batch, 1, seed=seed, using=using, candidates=4 * n + 4)
    firsts = np.flatnonzero(np.diff(parents, prepend=-1))
    assert fewer.texts == [texts[i] for i in firsts]


def test_spans_and_columns_go_along():
    text = "We met Ada in order to vote."
    batch = batch_of([text], spans=[(0, 7, 10, "PER")], rows={"label": np.array(["x"])})
    out = paraphrase(batch, 2, seed=1, using=Rewriter({"in order to": "to", "we met {x:word}": "I saw {x}"}))
    assert len(out) == 2
    assert {out.texts[row][start:end] for row, start, end, _ in out.spans.to_list()} == {"Ada"}
    assert out.rows["label"].tolist() == ["x", "x"]
    held = ops.Protect(spans=("PER",))
    shut = Rewriter({"met {x:word}": "saw {x}", "we": "I"}, rate=1.0, protect=held)(batch, seed=1)
    assert shut.texts == ["I saw Ada in order to vote."]


def test_tokens_have_the_variants_of_their_text():
    tokenizer = vg.Tokenizer.default()
    batch = batch_of(TEXTS)
    tokens = tokenizer.encode(batch)
    texts = paraphrase(batch, 3, seed=2)
    out = paraphrase(tokens, 3, seed=2, return_source=True)
    assert tokenizer.decode(out).texts == texts.texts
    assert out.ids.tolist() == texts.ids.tolist()
    for row, parent in enumerate(out.rows["_parent"]):
        made = out.tokens[out.offsets[row] : out.offsets[row + 1]]
        source = out.source[out.offsets[row] : out.offsets[row + 1]]
        edited = out.edited[out.offsets[row] : out.offsets[row + 1]]
        record = tokens.tokens[tokens.offsets[parent] : tokens.offsets[parent + 1]]
        kept = (source >= 0) & (edited == 0)
        assert (record[source[kept]] == made[kept]).all()
    direct = Rewriter()(batch, n=2, seed=4, tokenizer=tokenizer)
    assert tokenizer.decode(direct).texts == Rewriter()(batch, n=2, seed=4).texts


def test_translations_are_variants_and_are_rewritten():
    def back(batch: vg.TextBatch) -> vg.TextBatch:
        kept = [row for row, text in enumerate(batch.texts) if "order" in text]
        texts = [batch.texts[row].replace("people", "persons") for row in kept]
        return vg.TextBatch.from_texts(texts, rows={"_parent": np.array(kept, np.int64)})

    batch = batch_of(TEXTS, rows={"label": np.arange(len(TEXTS))})
    out = paraphrase(batch, 4, seed=1, back_translate=back)
    first = [text for text, parent in zip(out.texts, out.rows["_parent"], strict=True) if parent == 0]
    assert first[0] == TEXTS[0].replace("people", "persons")
    assert len(first) == 4
    assert sum("persons" in text for text in first) >= 2
    assert any("people" in text for text in first)
    plain = paraphrase(batch, 4, seed=1)
    rest = [text for text, parent in zip(out.texts, out.rows["_parent"], strict=True) if parent > 0]
    assert rest == [text for text, parent in zip(plain.texts, plain.rows["_parent"], strict=True) if parent > 0]
    with pytest.raises(InvalidInput, match="return_source has no answer"):
        paraphrase(batch, 2, seed=1, back_translate=back, return_source=True)
    with pytest.raises(InvalidInput, match="back_translate must return a TextBatch with the column _parent"):
        paraphrase(batch, 2, seed=1, back_translate=lambda batch: batch)
    with pytest.raises(InvalidInput, match="back_translate must be a BackTranslate or a callable"):
        paraphrase(batch, 2, seed=1, back_translate="apertium")
    with pytest.raises(InvalidInput, match="back_translate works on text"):
        paraphrase(vg.Tokenizer.default().encode(batch), 2, seed=1, back_translate=back)


def test_a_translator_and_its_filter_are_taken_as_they_are():
    words = {("en", "es"): {"people": "gente"}, ("es", "en"): {"gente": "persons"}}

    class Toy:
        def identity(self, source: str, target: str) -> str:
            return "toy 1"

        def translate(self, texts: list[str], source: str, target: str) -> list[str]:
            known = words[source, target]
            return [" ".join(known.get(word, word) for word in text.split(" ")) for text in texts]

    back = vg.paraphrase.BackTranslate(Toy())
    out = paraphrase(batch_of(TEXTS), 2, seed=1, back_translate=back)
    first = [text for text, parent in zip(out.texts, out.rows["_parent"], strict=True) if parent == 0]
    assert first[0] == TEXTS[0].replace("people", "persons")
    assert len(first) == 2
