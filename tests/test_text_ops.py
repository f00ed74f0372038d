"""Ops on text: what each one promises, on any Unicode, and its statistics. What every op owes is in test_ops.py."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples, text_batches
from variegate import ops
from variegate.errors import InvalidInput

LEXICON = ops.Lexicon([("good", "a", "fine", "nice"), ("car", "n", "bus", "automobile")])
RULES = {"good": "fine | nice", "the {x:word} car": "the car {x}", "do not {x:word}": "don't {x}", "{x} cars": "{x}"}
NAMES = ("Ada", "Grace Hopper", "Bob")
MAKE: dict[str, Any] = {
    "CaseNoise": ops.CaseNoise,
    "CharDelete": ops.CharDelete,
    "CharInsert": ops.CharInsert,
    "CharSubstitute": ops.CharSubstitute,
    "CharTranspose": ops.CharTranspose,
    "Contraction": ops.Contraction,
    "Diacritics": lambda **p: ops.Diacritics(mode="add", **p),
    "EntitySwap": lambda **p: ops.EntitySwap(tag="PER", entities=NAMES, **p),
    "Homoglyph": ops.Homoglyph,
    "KeyboardTypo": ops.KeyboardTypo,
    "Misspelling": ops.Misspelling,
    "OcrNoise": ops.OcrNoise,
    "PunctuationInsert": ops.PunctuationInsert,
    "Rewriter": lambda **p: ops.Rewriter(RULES, **p),
    "Synonym": lambda **p: ops.Synonym(lexicon=LEXICON, **p),
    "WhitespaceNoise": lambda **p: ops.WhitespaceNoise(split_rate=p["rate"], **p),
    "WordDelete": ops.WordDelete,
    "WordInsert": lambda **p: ops.WordInsert(lexicon=LEXICON, **p),
    "WordSwap": ops.WordSwap,
}
GUARDED = ["EntitySwap", "Misspelling", "PunctuationInsert", "Synonym", "WordDelete", "WordInsert", "WordSwap"]
SEEDS = st.integers(0, 2**64 - 1)


def batch_of(texts: list[str], **more: Any) -> vg.TextBatch:
    return vg.TextBatch.from_texts(texts, ids=range(len(texts)), **more)


def runs(out: vg.TextBatch) -> list[tuple[int, int, int, int]]:
    """The edits: row, start, end, length."""
    return list(zip(*(part.tolist() for part in out.edits), strict=True))


def test_every_text_op_is_here():
    kinds = {name for name in ops.__all__ if isinstance(getattr(ops, name), type)}
    text = {name for name in kinds if getattr(ops, name).__module__.endswith((".characters", ".rewriting", ".words"))}
    assert set(MAKE) == text


# Any text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKE)
@examples(300)
@given(st.one_of(text_batches(), st.lists(st.text(max_size=40), max_size=4).map(batch_of)), SEEDS, st.floats(0, 1))
def test_edits_replay_to_the_output(kind, batch, seed, rate):
    """What no edit replaced is as it was, and every row is text."""
    out = MAKE[kind](rate=rate)(batch, seed=seed, return_source=True)
    edits = itertools.groupby(runs(out), key=lambda run: run[0])
    by_row = {row: list(group) for row, group in edits}
    for row, (before, after) in enumerate(zip(batch.texts, out.texts, strict=True)):
        old, new, at, moved = before.encode(), after.encode(), 0, 0
        for _, start, end, length in by_row.get(row, []):
            assert at <= start <= end
            assert old[at:start] == new[moved : moved + start - at]
            moved, at = moved + start - at + length, end
            for cut in (old[:start], old[start:end], new[:moved]):
                cut.decode()
        assert old[at:] == new[moved:]
    (stats,) = out.stats.values()
    assert stats["edited"] == len(runs(out))
    assert stats["inserted"] - stats["deleted"] == len(out.data) - len(batch.data)
    if batch.spans is not None:
        assert len(batch.spans.row) == len(out.spans.row) + stats["spans_dropped"]


@pytest.mark.parametrize("kind", MAKE)
@given(st.text(max_size=60), SEEDS)
def test_grapheme_clusters_stay_whole(kind, text, seed):
    """An edit holds whole clusters, before and after; all others are as they were."""
    clusters = pytest.importorskip("regex").compile(r"\X")
    out = MAKE[kind](rate=0.5)(batch_of([text]), seed=seed, return_source=True)

    def bounds(text: str) -> set[int]:
        return {0} | {len(text[: match.end()].encode()) for match in clusters.finditer(text)}

    old, new, shift = bounds(text), bounds(out.texts[0]), 0
    for _, start, end, length in runs(out):
        # The standard grew between the two libraries: what either takes for one cluster is no proof.
        if {start, end} <= old:
            assert {start + shift, start + shift + length} <= new
        shift += length - (end - start)


@pytest.mark.parametrize("kind", MAKE)
def test_edges(kind):
    long = "Good car, do not cry because "
    for rate in (0.0, 1.0):
        op = MAKE[kind](rate=rate)
        assert op(batch_of([]), seed=1).texts == []
        empty = op(batch_of(["", " ", "é", "a", "not", "", "."]), seed=1, return_source=True)
        assert empty.texts[0] == empty.texts[5] == ""
        assert empty.texts[6] == "."
        batch = batch_of(["", long * 170_000], spans=[(1, 0, 4, "PER")])
        out = op(batch, seed=1)
        assert (out.texts == batch.texts) == (rate == 0.0)
    shut = batch_of([long], spans=[(0, 0, len(long), "all"), (0, 0, 4, "PER")])
    for p in ({"protect": ops.Protect(spans=("all",))}, {"spans": "forbid"}):
        out = MAKE[kind](rate=1.0, **p)(shut, seed=1, return_source=True)
        assert out.texts == [long]
        assert out.spans.to_list() == shut.spans.to_list()
        assert not runs(out)


@pytest.mark.parametrize(
    "kind", sorted(set(MAKE) - {"CharDelete", "CharTranspose", "OcrNoise", "WordSwap", "WordDelete"})
)
def test_a_higher_rate_keeps_the_edits(kind):
    batch = batch_of(["The good car is because I do not see it, o no. " * 20] * 5, spans=[(0, 0, 3, "PER")])
    low, high = (MAKE[kind](rate=rate)(batch, seed=3, return_source=True) for rate in (0.2, 0.6))
    places = [{run[:2] for run in runs(out)} for out in (low, high)]
    if kind == "WhitespaceNoise":
        return  # What is doubled at a low rate is removed at a high one.
    assert places[0] <= places[1]


@pytest.mark.parametrize("kind", MAKE)
def test_scripts_survive(kind):
    """Right to left, stacked marks, conjuncts, emoji and flags: at rate 1, no more is touched than the op is about."""
    texts = ["שָׁלוֹם עוֹלָם", "السَّلَامُ عَلَيْكُم", "क्षत्रिय हिन्दी", "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽", "한국어 각", "z̷̢̛a̵l̶g̷o̴"]
    out = MAKE[kind](rate=1.0)(batch_of(texts), seed=5)
    marks = [
        re.findall(r"[\u0300-\u036f\u0591-\u05c7\u064b-\u0652\u200d\U0001f000-\U0001ffff]", text) for text in texts
    ]
    for before, after, kept in zip(texts, out.texts, marks, strict=True):
        if kind not in ("CharDelete", "WordDelete"):
            found = Counter(after)
            assert not Counter(kept) - found, (before, after)
    emoji = texts[3]
    if kind != "WhitespaceNoise":
        assert out.texts[3] == emoji


# Statistics ----------------------------------------------------------------------------------------------------------

N = 1_000_000
RATE = 0.07


def near(count: int, n: int, share: float) -> bool:
    """Within three standard errors."""
    return abs(count - n * share) < 3 * math.sqrt(n * share * (1 - share))


def uniform(counts: list[int]) -> bool:
    """Chi-square with p > 1e-3, by the cube-root law of Wilson and Hilferty."""
    k, mean = len(counts) - 1, sum(counts) / len(counts)
    chi = sum((count - mean) ** 2 / mean for count in counts)
    return chi < k * (1 - 2 / (9 * k) + 3.0902 * math.sqrt(2 / (9 * k))) ** 3


@pytest.mark.parametrize(
    ("op", "unit"),
    [
        (ops.CaseNoise(rate=RATE), "g"),
        (ops.CharDelete(rate=RATE), "g"),
        (ops.CharInsert(rate=RATE), "g"),
        (ops.CharSubstitute(rate=RATE), "Ж"),
        (ops.Contraction(rate=RATE), "do not, "),
        (ops.Diacritics(rate=RATE, mode="add"), "e"),
        (ops.Diacritics(rate=RATE), "é"),
        (ops.Homoglyph(rate=RATE), "о"),
        (ops.KeyboardTypo(rate=RATE), "g"),
        (ops.KeyboardTypo(rate=RATE, layout="jcuken"), "п"),
        (ops.Misspelling(rate=RATE), "because "),
        (ops.OcrNoise(rate=RATE), "0"),
        (ops.PunctuationInsert(rate=RATE), "good "),
        (ops.Rewriter({"big {x:word}": "large {x}"}, rate=RATE), "big car, "),
        (ops.Synonym(rate=RATE), "cars "),
        (ops.WhitespaceNoise(rate=RATE), "g "),
        (ops.WhitespaceNoise(rate=0.0, split_rate=RATE), "g"),
        (ops.WordDelete(rate=RATE), "good, "),
        (ops.WordInsert(rate=RATE), "good "),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else type(value).__name__,
)
def test_rates_are_what_they_say(op, unit):
    """A million places in rows of a thousand; each edit is one, but where two insertions meet."""
    batch = batch_of([unit * 1000] * 1000)
    (stats,) = op(batch, seed=11).stats.values()
    n = N - 1000 if op.to_spec().get("WhitespaceNoise", {}).get("rate") == 0.0 else N
    if isinstance(op, ops.WordInsert):
        assert near(stats["inserted"] // 5, n, RATE)
    else:
        assert near(stats["edited"], n, RATE)


def test_transpositions_and_entities_come_at_their_rates():
    (stats,) = ops.CharTranspose(rate=RATE)(batch_of(["ab" * 500] * 1000), seed=11).stats.values()
    # A pair is passed over, so an edit comes at 1 letter in 1 / rate + 1; the variance is that of a renewal.
    assert abs(stats["edited"] - N * RATE / (1 + RATE)) < 3 * math.sqrt(N * RATE * (1 - RATE) / (1 + RATE) ** 3) + 100
    spans = [(row, 4 * k, 4 * k + 3, "PER") for row in range(100) for k in range(1000)]
    swap = ops.EntitySwap(rate=RATE, tag="PER", entities=NAMES)
    out = swap(batch_of(["Eve " * 1000] * 100, spans=spans), seed=11)
    assert near(out.stats["EntitySwap#0"]["edited"], 100_000, RATE)
    assert len(out.spans.row) == 100_000


def test_what_is_drawn_is_uniform():
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = batch_of(["g" * 1000] * 300)
    found = Counter("".join(ops.CharSubstitute(rate=1.0)(many, seed=7).texts))
    assert set(found) == set(letters) - {"g"}
    assert uniform(list(found.values()))
    found = Counter(itertools.chain(*(text[1::2] for text in ops.CharInsert(rate=1.0)(many, seed=7).texts)))
    assert set(found) == set(letters)
    assert uniform(list(found.values()))
    found = Counter("".join(ops.KeyboardTypo(rate=1.0, layout="jcuken")(batch_of(["п" * 1000] * 50), seed=7).texts))
    assert set(found) == set("енарми")
    assert uniform(list(found.values()))
    words = batch_of(["good " * 1000] * 50)
    found = Counter(re.findall(r"[.;?:!,]", "".join(ops.PunctuationInsert(rate=1.0)(words, seed=7).texts)))
    assert len(found) == 6
    assert uniform(list(found.values()))
    lexicon = ops.Lexicon({"good": ["a", "b", "c", "d", "e"]})
    found = Counter("".join(ops.Synonym(rate=1.0, lexicon=lexicon)(words, seed=7).texts).split())
    assert uniform([found[word] for word in "abcde"])
    out = ops.WhitespaceNoise(rate=1.0)(words, seed=7, return_source=True)
    assert uniform([int((out.edits.length == 0).sum()), int((out.edits.length == 1).sum())])
    places = ops.WordInsert(rate=1.0, lexicon=ops.Lexicon({"good": ["x"]}))(
        batch_of(["good one two three four five six seven"] * 40_000), seed=7
    )
    found = Counter(text.split().index("x") for text in places.texts)
    assert len(found) == 8
    assert uniform(list(found.values()))
    swapped = ops.WordSwap(rate=RATE)(batch_of(["a b c d e f g h i j"] * 30_000), seed=7)
    moved = Counter(i for text in swapped.texts for i, word in enumerate(text.split()) if word != "abcdefghij"[i])
    assert uniform(list(moved.values()))


# Guards --------------------------------------------------------------------------------------------------------------


def test_negations_are_the_cores():
    """The list of Python is that of Rust: a sentence of all of them has nothing to edit."""
    text = " ".join([*ops.NEGATIONS, "isn\u2019t", "NEVER", "Can't"])
    for kind in ("WordDelete", "PunctuationInsert", "WordSwap"):
        assert MAKE[kind](rate=1.0)(batch_of([text]), seed=1).texts == [text]
    for word in ops.NEGATIONS:
        assert ops.Misspelling(rate=1.0, table={word: ["x"]})(batch_of([word]), seed=1).texts == [word]
    shut = ops.Protect(words=ops.NEGATIONS)
    assert ops.CharDelete(rate=1.0, protect=shut)(batch_of([text]), seed=1).texts == [text]
    assert ops.CharDelete(rate=1.0, protect=shut)(batch_of(["no know"]), seed=1).texts == ["no w"]
    both = vg.Compose([ops.CaseNoise(rate=1.0), ops.CharDelete(rate=1.0)], protect=shut)
    assert both(batch_of(["no know"]), seed=1).texts == ["no W"]


@pytest.mark.parametrize("kind", GUARDED)
@given(text_batches(), SEEDS)
def test_negations_are_neither_touched_nor_parted(kind, batch, seed):
    out = MAKE[kind](rate=1.0)(batch, seed=seed, return_source=True)
    for row, text in enumerate(batch.texts):
        edits = [(start, end) for r, start, end, _ in runs(out) if r == row]
        for match in re.finditer(
            r"(?<![\w'\u0300-\u036f\u05b0-\u05ff\u200d-])(not|don't)(?![\w'\u0300-\u036f\u05b0-\u05ff\u200d-])", text
        ):
            a, b = (len(text[:k].encode()) for k in match.span())
            assert not any(start < b and end > a for start, end in edits)
            after = re.match(r"[ ]?", text[match.end() :])
            if kind in ("PunctuationInsert", "WordInsert") and after is not None:
                assert (b + len(after[0]),) * 2 not in edits


def test_edits_are_capped_and_counted():
    text = "good car because one two three four five six seven"
    batch = batch_of([text] * 50, spans=[(row, 0, 4, "PER") for row in range(50)])
    for kind in GUARDED:
        if kind == "WordSwap":
            batch = batch_of([text] * 50)
        free = MAKE[kind](rate=1.0)(batch, seed=3, return_source=True)
        out = MAKE[kind](rate=1.0, max_edits=0.2)(batch, seed=3, return_source=True)
        per_row = np.bincount(out.edits.row, minlength=50)
        assert per_row.max() <= 2
        (stats,), (all_of_them,) = out.stats.values(), free.stats.values()
        assert all_of_them["held"] == 0
        if kind not in ("EntitySwap", "Misspelling", "Synonym", "WordInsert"):
            assert stats["held"] > 0
        none = MAKE[kind](rate=1.0, max_edits=0.0)(batch, seed=3)
        assert none.texts == batch.texts
    held = ops.WordDelete(rate=1.0, max_edits=0.2)(batch, seed=3).stats["WordDelete#0"]
    assert (held["edited"], held["held"]) == (100, 400)


def test_a_negation_keeps_its_neighbours():
    batch = batch_of(["a b c not d e f"])
    for seed in range(20):
        swapped = ops.WordSwap(rate=1.0)(batch, seed=seed).texts[0]
        assert " c not d " in swapped
        assert sorted(swapped) == sorted(batch.texts[0])
        assert " c not d" in " " + ops.WordDelete(rate=0.7)(batch, seed=seed).texts[0]
        assert "c not d" in ops.PunctuationInsert(rate=1.0)(batch, seed=seed).texts[0]


# What each op promises -----------------------------------------------------------------------------------------------


def test_spans_survive_or_are_counted():
    text = "Ada met Bob in Rome"
    spans = [(0, 0, 3, "PER"), (0, 8, 11, "PER"), (0, 15, 19, "LOC")]
    swap = ops.EntitySwap(rate=1.0, tag="PER", entities=("Grace Hopper",))
    out = swap(batch_of([text], spans=spans), seed=1)
    data = out.texts[0]
    assert [data[a:b] for _, a, b, _ in out.spans.to_list()] == ["Grace Hopper", "Grace Hopper", "Rome"]
    drop = ops.EntitySwap(rate=1.0, tag="PER", entities=("Grace Hopper",), spans="drop")
    out = drop(batch_of([text], spans=spans), seed=1)
    assert [tag for *_, tag in out.spans.to_list()] == ["LOC"]
    assert out.stats["EntitySwap#0"]["spans_dropped"] == 2
    # A word of a span does not move, and one that is dropped takes its span along, which the stats say.
    for seed in range(10):
        moved = ops.WordSwap(rate=1.0)(batch_of([text], spans=spans), seed=seed)
        assert [moved.texts[0][a:b] for _, a, b, _ in moved.spans.to_list()] == ["Ada", "Bob", "Rome"]
    gone = ops.WordDelete(rate=1.0)(batch_of([text], spans=spans), seed=1)
    assert len(gone.spans.row) + gone.stats["WordDelete#0"]["spans_dropped"] == 3
    # Tags that nothing protects, and a second op over what the first one made.
    twice = vg.Compose([swap, ops.EntitySwap(rate=1.0, tag="LOC", entities=("Paris",))])
    assert twice(batch_of([text], spans=spans), seed=1).texts == ["Grace Hopper met Grace Hopper in Paris"]


@given(st.lists(st.sampled_from(["Ada", "not", "Don't", "x"]), max_size=12), st.data())
def test_entities_stay_where_they_hold_a_negation(words, data):
    text = " ".join(words)
    cuts = st.integers(0, len(text))
    spans = sorted(tuple(sorted(pair)) for pair in data.draw(st.lists(st.tuples(cuts, cuts), max_size=6)))
    batch = batch_of([text], spans=[(0, start, end, "PER") for start, end in spans])
    swap = ops.EntitySwap(rate=1.0, tag="PER", entities=("Bo", "Cy"))
    taken = {(start, end) for _, start, end, _ in runs(swap(batch, seed=1, return_source=True))}
    held = [match.span() for match in re.finditer(r"(not|Don't)", text)]
    reach, expected = 0, set()
    for start, end in spans:
        if reach <= start < end and not any(a < end and start < b for a, b in held):
            expected.add((start, end))
        reach = max(reach, end)
    assert taken == expected


def test_entities_that_overlap_are_replaced_once():
    spans = [(0, 0, 8, "PER"), (0, 4, 8, "PER"), (0, 9, 9, "PER"), (0, 9, 12, "PER")]
    swap = ops.EntitySwap(rate=1.0, tag="PER", entities=("X",))
    out = swap(batch_of(["New York Bob not"], spans=spans), seed=1, return_source=True)
    assert out.texts == ["X X not"]
    assert runs(out) == [(0, 0, 8, 1), (0, 9, 12, 1)]


def test_words_swap_and_nothing_else():
    text = "One, two (three) four\nfive; cafe\u0301 שָׁלוֹם 3.14!"
    for seed in range(20):
        out = ops.WordSwap(rate=0.8)(batch_of([text]), seed=seed).texts[0]
        words = re.findall(r"3\.14|[^\W]+[\u0300-\u05ff\w]*", text)
        assert sorted(re.findall(r"3\.14|[^\W]+[\u0300-\u05ff\w]*", out)) == sorted(words)
        assert re.sub(r"3\.14|\w[\w\u0300-\u05ff]*", "#", out) == re.sub(r"3\.14|\w[\w\u0300-\u05ff]*", "#", text)


def test_a_row_keeps_a_word_and_a_word_keeps_a_letter():
    out = ops.WordDelete(rate=1.0)(batch_of(["one two three", "one", "", "one, two"] * 20), seed=1)
    assert {len(re.findall(r"\w+", text)) for text in out.texts} == {0, 1}
    assert out.texts[2] == ""
    assert set(out.texts[3::4]) <= {"one,", ", two", ",two"}
    out = ops.CharDelete(rate=1.0)(batch_of(["hello, e\u0301e\u0301! don't"]), seed=1)
    assert out.texts == ["o, e\u0301! n't"]


def test_synonyms_carry_form_case_and_article():
    lexicon = [
        ("car", "n", "bus"),
        ("stop", "v", "quit", "carry on"),
        ("idea", "n", "image", "notion"),
        ("big", "a", "old"),
    ]
    synonym = ops.Synonym(rate=1.0, lexicon=ops.Lexicon(lexicon), pos=())
    texts = ["CARS stopping", "Car's cars", "an idea, a big idea", "A big one. Stopped."]
    outs = {tuple(synonym(batch_of(texts), seed=seed).texts) for seed in range(40)}
    found = [sorted({out[k] for out in outs}) for k in range(4)]
    assert found[0] == ["BUSES carrying on", "BUSES quitting"]
    assert found[1] == ["Car's buses"]
    # "a big" takes no "old".
    assert found[2] == ["an image, a big image", "an image, a big notion"]
    assert found[3] == ["A big one. Carried on.", "A big one. Quit."]
    nouns = ops.Synonym(rate=1.0, lexicon=ops.Lexicon(lexicon), pos=("n",))
    assert nouns(batch_of(["The car stopped"]), seed=1).texts == ["The bus stopped"]


def test_contractions_of_english():
    text = "I do not know. They're late; he's gone. Can't we go? We can not. It is good, it is."
    made = {
        mode: ops.Contraction(rate=1.0, mode=mode)(batch_of([text]), seed=1).texts[0] for mode in ("contract", "expand")
    }
    assert made["contract"] == "I don't know. They're late; he's gone. Can't we go? We can't. It's good, it is."
    assert made["expand"] == "I do not know. They are late; he's gone. Can't we go? We can not. It is good, it is."


def test_diacritics_go_and_come():
    text = "Cre\u0300me brûlée, Việt Nam, Ёлка, йод, Ελλάδα, שָׁלוֹם"
    assert ops.Diacritics(rate=1.0)(batch_of([text]), seed=1).texts == [
        "Creme brulee, Viet Nam, Елка, йод, Ελλαδα, שלום"
    ]
    added = ops.Diacritics(rate=1.0, mode="add")(batch_of(["Abc e\u0301 é"]), seed=1).texts[0]
    assert ops.Diacritics(rate=1.0)(batch_of([added]), seed=1).texts == ["Abc e e"]


def test_every_precomposed_letter_of_latin_and_greek_loses_its_diacritics():
    """Against Unicode's decompositions."""
    scripts = [*range(0xC0, 0x250), *range(0x370, 0x400), *range(0x1E00, 0x2000)]
    letters = [c for c in map(chr, scripts) if c.isalpha() and len(unicodedata.normalize("NFD", c)) > 1]
    assert len(letters) > 700
    out = ops.Diacritics(rate=1.0)(batch_of(letters), seed=1)
    assert out.texts == [unicodedata.normalize("NFD", c)[0] for c in letters]


# Lexicons ------------------------------------------------------------------------------------------------------------


def test_a_lexicon_of_rows_is_its_rows():
    lexicon = ops.Lexicon({"car": ["bus"], "big": "large"})
    assert lexicon.rows == (("car", "", "bus"), ("big", "", "large"))
    assert lexicon.to_spec() == [["car", "", "bus"], ["big", "", "large"]]
    op = ops.from_spec({"Synonym": {"rate": 1.0, "lexicon": {"car": ["bus"], "big": "large"}}})
    assert op == ops.Synonym(rate=1.0, lexicon=lexicon)
    assert hash(op) == hash(ops.Synonym(rate=1.0, lexicon=lexicon))
    assert op != ops.Synonym(rate=1.0, lexicon=ops.Lexicon({"car": ["bus"]}))
    assert op(batch_of(["big car"]), seed=1).texts == ["large bus"]


def test_a_lexicon_of_a_file_is_its_path_and_digest(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("car\tbus\ttram\n\nbig\tlarge\n", "utf-8")
    lexicon = ops.Lexicon.from_tsv(path)
    op = vg.Compose([ops.Synonym(rate=1.0, lexicon=lexicon)])
    spec = op.to_spec()["Compose"]["ops"][0]["Synonym"]["lexicon"]
    assert {**spec, "sha256": len(spec["sha256"])} == {"format": "tsv", "path": str(path), "sha256": 64}
    assert lexicon.rows == (("car", "", "bus", "tram"), ("big", "", "large"))
    again = ops.from_json(op.to_json())
    assert again == op
    assert again.to_json() == op.to_json()
    assert eval(repr(lexicon), {"Lexicon": ops.Lexicon}) == lexicon
    assert again(batch_of(["big"]), seed=1).texts == ["large"]
    within = ops.Synonym(rate=1.0, lexicon=lexicon.embedded())
    path.write_text("car\tbus\n", "utf-8")
    with pytest.raises(InvalidInput, match=r"Synonym: lexicon: .*words.tsv is not what it was \(SHA-256 "):
        ops.from_json(op.to_json())
    assert ops.from_json(within.to_json())(batch_of(["big"]), seed=1).texts == ["large"]
    parts = tmp_path / "parts.tsv"
    parts.write_text("car\tn\tbus\n", "utf-8")
    assert ops.Lexicon.from_tsv(parts, pos=True).rows == (("car", "n", "bus"),)


def test_mythes_is_read(tmp_path):
    path = tmp_path / "th.dat"
    path.write_text(
        "UTF-8\ncar|2\n(noun)|auto|vehicle (generic term)|bike (antonym)\n(noun)|gondola (related term)\n"
        "big|1\n(adj)|large|great\nin|1\n(noun)|inch\n",
        "utf-8",
    )
    assert ops.Lexicon.from_mythes(path).rows == (("car", "n", "auto"), ("big", "a", "large", "great"))
    path.write_text("UTF-8\ncar|2\n(noun)|auto\n", "utf-8")
    with pytest.raises(InvalidInput, match="is no MyThes thesaurus"):
        ops.Lexicon.from_mythes(path)
    path.write_text("UTF-8\ncar\n", "utf-8")
    with pytest.raises(InvalidInput, match=r"line 2: must be a word and a count \('car'\)"):
        ops.Lexicon.from_mythes(path)


def wordnet(folder: Any) -> None:
    """A WordNet of two nouns and two adjectives."""
    files = {name: "" for kind in ("index", "data") for name in (f"{kind}.{p}" for p in ("noun", "verb", "adj", "adv"))}
    files["data.noun"] = (
        "  1 A licence\n00000010 06 n 03 car 0 auto 0 motor_car 0 000 | four wheels\n"
        "00000020 06 n 02 car 1 gondola 0 000 | of an airship\n"
    )
    files["index.noun"] = (
        "  1 A licence\nauto n 1 0 1 1 00000010\ncar n 2 1 @ 2 1 00000010 00000020\nmotor_car n 1 0 1 0 00000010\n"
    )
    files["data.adj"] = "00000030 00 a 02 big(a) 0 Large 0 000 | of size\n"
    files["index.adj"] = "big a 1 0 1 1 00000030\nin a 1 0 1 1 00000030\nlarge a 1 0 1 1 00000030\n"
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")


def test_wordnet_is_read(tmp_path):
    wordnet(tmp_path)
    assert ops.Lexicon.from_wordnet(tmp_path).rows == (
        ("auto", "n", "car", "motor car"),
        ("car", "n", "auto", "motor car"),
        ("big", "a", "Large"),
        ("large", "a", "big"),
    )
    two = ops.Lexicon.from_wordnet(tmp_path, senses=2)
    assert two.rows[1] == ("car", "n", "auto", "motor car", "gondola")
    assert eval(repr(two), {"Lexicon": ops.Lexicon}) == two
    cars = ops.Synonym(rate=1.0, lexicon=two, pos=("n",))
    found = {cars(batch_of(["big cars"]), seed=seed).texts[0] for seed in range(30)}
    assert found == {"big autos", "big motor cars", "big gondolas"}
    (tmp_path / "data.noun").write_text("nonsense\n", "utf-8")
    with pytest.raises(InvalidInput, match=r"holds no WordNet database \(noun\)"):
        ops.Lexicon.from_wordnet(tmp_path)


BAD: list[tuple[Any, str]] = [
    (lambda: ops.CharInsert(rate=2.0), "CharInsert: rate must lie in [0, 1] (it is 2)"),
    (lambda: ops.CharInsert(rate=0.1, alphabet=""), "CharInsert: alphabet must hold at least one letter (it is '')"),
    (
        lambda: ops.CharSubstitute(rate=0.1, alphabet=["a"]),
        "CharSubstitute: alphabet must be a str (it is ['a'])",
    ),
    (
        lambda: ops.WhitespaceNoise(rate=0.1, split_rate=-1.0),
        "WhitespaceNoise: split_rate must lie in [0, 1] (it is -1)",
    ),
    (
        lambda: ops.PunctuationInsert(rate=0.1, marks=""),
        "PunctuationInsert: marks must hold at least one character (it is '')",
    ),
    (lambda: ops.WordSwap(rate=0.1, max_edits=1.5), "WordSwap: max_edits must lie in [0, 1] (it is 1.5)"),
    (
        lambda: ops.WordSwap(rate=0.1, negations="not"),
        "WordSwap: negations must be a sequence of str (it is 'not')",
    ),
    (lambda: ops.WordSwap(rate=0.1, negations=(1,)), "WordSwap: negations[0] must be a str (it is 1)"),
    (
        lambda: ops.Diacritics(rate=0.1, mode="both"),
        "Diacritics: mode must be one of add, drop (it is 'both')",
    ),
    (
        lambda: ops.EntitySwap(rate=0.1, tag="PER", entities=()),
        "EntitySwap: entities must hold at least one name, and none that is empty (they are [])",
    ),
    (
        lambda: ops.EntitySwap(rate=0.1, tag="PER", entities=("a", "")),
        'EntitySwap: entities must hold at least one name, and none that is empty (they are ["a", ""])',
    ),
    (
        lambda: ops.Synonym(rate=0.1, lexicon=3),
        "Synonym: lexicon: rows must be a sequence of rows, or a mapping (they are 3)",
    ),
    (
        lambda: ops.Synonym(rate=0.1, lexicon={"car": 1}),
        "Synonym: lexicon: row 0 must hold a word, a part of speech and replacements, all str (it is ('car', '', 1))",
    ),
    (
        lambda: ops.PunctuationInsert(rate=0.1, marks="\ud800"),
        "PunctuationInsert: marks must hold no lone surrogate (it is '\\ud800')",
    ),
    (
        lambda: ops.WordSwap(rate=0.1, negations=("\udfff",)),
        "WordSwap: negations[0] must hold no lone surrogate (it is '\\udfff')",
    ),
    (
        lambda: ops.Synonym(rate=0.1, lexicon=[("car",)]),
        "Synonym: lexicon: row 0 must hold a word, a part of speech and replacements, all str (it is ('car',))",
    ),
    (
        lambda: ops.Lexicon([("car", "n", 3)]),
        "lexicon: row 0 must hold a word, a part of speech and replacements, all str (it is ('car', 'n', 3))",
    ),
    (
        lambda: ops.Lexicon.from_spec({"format": "csv", "path": "x"}),
        "lexicon: format must be one of mythes, tsv, wordnet (it is 'csv')",
    ),
    (
        lambda: ops.Lexicon.from_spec({"format": "tsv", "path": "x", "sep": ","}),
        "lexicon: there is no 'sep' beside format and path",
    ),
    (lambda: ops.Lexicon.from_wordnet("x", senses=0), "lexicon: senses must be at least 1 (it is 0)"),
    (
        lambda: ops.Lexicon.from_tsv("/nowhere.tsv"),
        "lexicon: '/nowhere.tsv' cannot be read (No such file or directory)",
    ),
    (lambda: ops.Lexicon.from_tsv("a\0b"), "lexicon: 'a\\x00b' cannot be read (embedded null byte)"),
    (
        lambda: ops.Synonym(rate=0.1, lexicon={"car": ["bus", "\ud800"]}),
        "Synonym: lexicon: row 0 must hold no lone surrogate (it holds '\\ud800')",
    ),
    (
        lambda: ops.Protect(columns=("ok", "\ud800")),
        "protect: columns must hold no lone surrogate (it is '\\ud800')",
    ),
    (
        lambda: ops.TokenDropout(rate=0.1, protect=ops.Protect(words=("a",))),
        "TokenDropout: protect.words names words of text, and this op works on tokens: protect ids, columns or spans",
    ),
    (
        lambda: ops.WordSwap(rate=0.1)(vg.TokenBatch.from_lists([[1]]), seed=1),
        "WordSwap#0 works on text, and this batch of tokens has no tokenizer: "
        "give it one, batch.replace(tokenizer=...)",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def test_an_entity_that_is_part_of_a_negation_stays():
    texts = vg.TextBatch.from_texts(["Don't ask Don."], ids=[1], spans=[(0, 0, 3, "PER"), (0, 10, 13, "PER")])
    out = ops.EntitySwap(rate=1.0, tag="PER", entities=("Ada",))(texts, seed=3)
    assert out.texts == ["Don't ask Ada."]
