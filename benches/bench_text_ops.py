"""Ops on text: English documents of 100 words, one thread, through Python, against what a user would otherwise run.

Each case first checks rows spread over the batch against the oracle of the golden vectors, byte for byte. The peers
take and give a list of str; they are set to the same share of letters or words, and none says where it edited.
"""

from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

import variegate as vg
from _harness import Compare
from variegate import ops

SEED = 7
RATE = 0.1
ROWS, LENGTH = 200, 100
CHECKED_ROWS = 10
ENGLISH = """
the of and to in a is that it was for on are as with his they at be this from have or by one had but what all were when
we there can an your which their said if do will each about how up out them then she many some so these would other
into has more her two like him see time could make than first been its who now people my made over did down only way
find use may water long little very after words called just where most know good car house idea stop stopped small
large city road answer answered friend friends problem important different because believe receive
"""
RUSSIAN = """
и в не на я быть он с что это по к но мы как из у который то за свой весь год от так для ты же все тот
"""
LEXICON = [
    ["good", "a", "fine", "nice"],
    ["car", "n", "bus", "auto"],
    ["house", "n", "home", "place"],
    ["stop", "v", "halt", "cease"],
    ["answer", "v", "reply", "respond"],
    ["friend", "n", "pal", "mate"],
    ["small", "a", "little", "tiny"],
    ["people", "n", "folk"],
    ["make", "v", "create"],
    ["water", "n", "liquid"],
]


def load(path: Path) -> Any:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def textaugment(name: str) -> Any:
    """A module of textaugment by itself: the package imports translators and torch."""
    pytest.importorskip("nltk")
    found = importlib.util.find_spec("textaugment")
    if found is None or found.origin is None:
        pytest.skip("textaugment is not installed")
    return load(Path(found.origin).with_name(f"{name}.py"))


def documents(words: str, rows: int = ROWS) -> vg.TextBatch:
    """Rows of words with a comma or full stop after one in eight."""
    rng = random.Random(rows)
    known = words.split()
    mark = [",", "."] + [""] * 14
    texts = [" ".join(rng.choice(known) + rng.choice(mark) for _ in range(LENGTH)) for _ in range(rows)]
    return vg.TextBatch.from_texts(texts, ids=np.arange(rows, dtype=np.uint64) + 2**40)


@pytest.fixture(scope="module")
def batch() -> vg.TextBatch:
    return documents(ENGLISH)


def right(op: ops.Op, batch: vg.TextBatch, out: vg.TextBatch) -> bool:
    """Whether rows spread over the batch are what the oracle makes of them."""
    vectors = Path(__file__).parents[1] / "tests" / "vectors"
    oracle, plain = load(vectors / "generate_text_ops.py"), load(vectors / "generate_ops.py")
    ((kind, p),) = op.to_spec().items()
    for row in range(0, len(batch), max(1, len(batch) // CHECKED_ROWS)):
        stream = plain.Stream(plain.op_key(SEED, f"{kind}#0", 0), 0, int(batch.ids[row]))
        text = batch.texts[row]
        if p.get("layout") == "qwerty":
            expected, _ = plain.keyboard_typo(text, [False] * len(text), stream, p)
        else:
            expected, _ = oracle.run(kind, p, text, [], stream)
        if out.texts[row] != expected:
            return False
    return True


def changed(batch: vg.TextBatch, texts: list[str]) -> float:
    """The share of words that are no longer what they were."""
    pairs = [
        (a, b) for x, y in zip(batch.texts, texts, strict=True) for a, b in zip(x.split(), y.split(), strict=False)
    ]
    return sum(a != b for a, b in pairs) / len(pairs)


def bench_keyboard_typo(compare: Compare, batch: vg.TextBatch):
    """The peer hits one letter in ten of every word, with neighbours on the same keyboard, capitals and digits off."""
    nac = pytest.importorskip("nlpaug.augmenter.char")
    op = ops.KeyboardTypo(rate=RATE)
    few = batch[:20]
    settings = {"include_special_char": False, "include_numeric": False, "include_upper_case": False}
    peer = nac.KeyboardAug(aug_char_p=RATE, aug_word_p=1.0, aug_word_max=None, min_char=1, **settings)
    texts = few.texts
    compare(
        "keyboard_typo beside nlpaug",
        lambda: op(few, seed=SEED),
        lambda: peer.augment(texts),
        check=lambda ours, theirs: right(op, few, ours) and changed(few, theirs) > 0.2,
        units=len(few) * LENGTH,
        unit="words",
        peer_name="nlpaug KeyboardAug",
        peer_package="nlpaug",
        goal_rate=15e6,
        note="20 documents; the peer edits at least one letter of a word",
    )


@pytest.mark.parametrize("layout", ["qwerty", "jcuken"])
def bench_keyboard_layouts(compare: Compare, layout: str):
    words = RUSSIAN if layout == "jcuken" else ENGLISH
    op = ops.from_spec({"KeyboardTypo": {"rate": RATE, "layout": layout}})
    many = documents(words, 2000)
    compare(
        f"keyboard_typo {layout}",
        lambda: op(many, seed=SEED, return_source=True),
        check=lambda ours, _: right(op, many, ours),
        units=len(many) * LENGTH,
        unit="words",
        goal_rate=15e6,
        note="2000 documents, with edit runs",
    )


def bench_ocr_noise(compare: Compare):
    """Words of letters that the oracle's table knows. The peer hits one letter in ten of every word."""
    nac = pytest.importorskip("nlpaug.augmenter.char")
    op = ops.OcrNoise(rate=RATE)
    few = documents("clod corn loom moon cool 1010 doom cocoon condor", 20)
    peer = nac.OcrAug(aug_char_p=RATE, aug_word_p=1.0, aug_word_max=None, min_char=1)
    texts = few.texts
    compare(
        "ocr_noise",
        lambda: op(few, seed=SEED),
        lambda: peer.augment(texts),
        check=lambda ours, theirs: right(op, few, ours) and changed(few, theirs) > 0.2,
        units=len(few) * LENGTH,
        unit="words",
        peer_name="nlpaug OcrAug",
        peer_package="nlpaug",
        goal_rate=15e6,
        note="20 documents; the peer edits at least one letter of a word, and knows no pairs",
    )


def bench_synonym(compare: Compare, batch: vg.TextBatch):
    """The peer looks words up in a table of the same entries; it carries no endings over."""
    naw = pytest.importorskip("nlpaug.augmenter.word")
    op = ops.Synonym(rate=0.3, lexicon=ops.Lexicon(LEXICON))
    few = batch[:20]
    table = [[row[0], *row[2:]] for row in LEXICON]
    peer = naw.ReservedAug(reserved_tokens=table, aug_p=0.3, aug_max=None)
    texts = few.texts
    compare(
        "synonym",
        lambda: op(few, seed=SEED),
        lambda: peer.augment(texts),
        check=lambda ours, theirs: right(op, few, ours) and 0 < changed(few, theirs) < 0.3,
        units=len(few) * LENGTH,
        unit="words",
        peer_name="nlpaug ReservedAug",
        peer_package="nlpaug",
        goal_rate=2e6,
        note="20 documents, a table of ten entries",
    )


@pytest.mark.parametrize("rate", [0.1, 1.0])
def bench_synonym_own_lexicon(compare: Compare, rate: float):
    """The lexicon that comes along, and every form of a word looked for; the words that changed were known to it."""
    op = ops.Synonym(rate=rate)
    many = documents(ENGLISH, 2000)
    once = ops.Synonym(rate=1.0)(many[:10], seed=SEED)

    def check(ours: vg.TextBatch, _: Any) -> bool:
        (stats,) = ours.stats.values()
        known = changed(many[:10], once.texts)
        return abs(stats["edited"] / (len(many) * LENGTH) - rate * known) < 0.05

    compare(
        f"synonym at rate {rate:g}",
        lambda: op(many, seed=SEED, return_source=True),
        check=check,
        units=len(many) * LENGTH,
        unit="words",
        goal_rate=2e6,
        note="2000 documents, the lexicon that comes along, with edit runs",
    )


@pytest.mark.parametrize("rate", [0.1, 1.0])
def bench_synonym_wordnet(compare: Compare, rate: float):
    """All of WordNet over Python's documentation: a word that it lists becomes a synonym that it lists for the word."""
    if not Path("/usr/share/wordnet/data.noun").exists():
        pytest.skip("WordNet is not installed: apt install wordnet-base")
    lexicon = ops.Lexicon.from_wordnet()
    known: dict[str, set[str]] = {}
    for word, _, *others in lexicon.rows:
        known.setdefault(word, set()).update(other.lower() for other in others)
    words = re.findall(r"[a-z]+", " ".join(topics[key] for key in sorted(topics)).lower())
    many = vg.TextBatch.from_texts([" ".join(words[at : at + LENGTH]) for at in range(0, len(words), LENGTH)])
    op = ops.Synonym(rate=rate, lexicon=lexicon)

    def check(ours: vg.TextBatch, _: Any) -> bool:
        edits, sources, results = ours.edits, many.texts, ours.texts
        right = listed = moved = 0
        row = -1
        for r, start, end, length in zip(*(part.tolist() for part in edits), strict=True):
            row, moved = (row, moved) if r == row else (r, 0)
            word, new = sources[r][start:end], results[r][start + moved : start + moved + length]
            moved += length - (end - start)
            if word in known:
                listed += 1
                right += new.lower() in known[word]
        (stats,) = ours.stats.values()
        # The others are forms that it does not list: "she found" is no founding.
        return stats["edited"] == len(edits.row) > 0.2 * rate * len(words) and right > 0.97 * listed > 0

    compare(
        f"synonym of WordNet at rate {rate:g}",
        lambda: op(many, seed=SEED, return_source=True),
        check=check,
        units=len(words),
        unit="words",
        goal_rate=2e6,
        note=f"{len(words)} words, {len(lexicon)} entries, with edit runs",
    )


def bench_word_swap(compare: Compare, batch: vg.TextBatch):
    """The peer swaps as many pairs of words, and joins the words by spaces."""
    eda = textaugment("eda").EDA
    op = ops.WordSwap(rate=RATE)
    few = batch[:20]
    peer = eda.__new__(eda)  # Its constructor downloads a list of stop words.
    texts = few.texts
    compare(
        "word_swap",
        lambda: op(few, seed=SEED),
        lambda: [peer.random_swap(text, n=int(RATE * LENGTH)) for text in texts],
        check=lambda ours, theirs: right(op, few, ours) and 0.05 < changed(few, theirs) < 0.4,
        units=len(few) * LENGTH,
        unit="words",
        peer_name="textaugment EDA.random_swap",
        peer_package="textaugment",
        note="20 documents; ours under the negation guard",
    )


def bench_word_delete(compare: Compare, batch: vg.TextBatch):
    eda = textaugment("eda").EDA
    op = ops.WordDelete(rate=RATE)
    few = batch[:20]
    peer = eda.__new__(eda)
    texts = few.texts
    compare(
        "word_delete",
        lambda: op(few, seed=SEED),
        lambda: [peer.random_deletion(text, p=RATE) for text in texts],
        check=lambda ours, theirs: (
            right(op, few, ours) and all(len(b) < len(a) for a, b in zip(texts, theirs, strict=True))
        ),
        units=len(few) * LENGTH,
        unit="words",
        peer_name="textaugment EDA.random_deletion",
        peer_package="textaugment",
        note="20 documents; ours under the negation guard",
    )


def bench_punctuation_insert(compare: Compare, batch: vg.TextBatch):
    """The peer draws how many marks a text gets, up to a third of its words: one in six on average."""
    aeda = textaugment("aeda").AEDA()
    op = ops.PunctuationInsert(rate=1 / 6)
    few = batch[:20]
    texts = few.texts
    compare(
        "punctuation_insert",
        lambda: op(few, seed=SEED),
        lambda: [aeda.punct_insertion(text) for text in texts],
        check=lambda ours, theirs: (
            right(op, few, ours) and all(len(b) > len(a) for a, b in zip(texts, theirs, strict=True))
        ),
        units=len(few) * LENGTH,
        unit="words",
        peer_name="textaugment AEDA",
        peer_package="textaugment",
        note="20 documents; ours under the negation guard",
    )


@pytest.mark.parametrize(
    "op",
    [
        ops.CaseNoise(rate=RATE),
        ops.CharDelete(rate=RATE),
        ops.CharInsert(rate=RATE),
        ops.CharSubstitute(rate=RATE),
        ops.CharTranspose(rate=RATE),
        ops.WhitespaceNoise(rate=RATE, split_rate=0.01),
        ops.WordDelete(rate=RATE),
        ops.WordSwap(rate=RATE),
        ops.PunctuationInsert(rate=RATE),
    ],
    ids=lambda op: type(op).__name__,
)
def bench_other_text_ops(compare: Compare, op: ops.Op):
    many = documents(ENGLISH, 2000)
    compare(
        f"{type(op).__name__} on 2000 documents",
        lambda: op(many, seed=SEED, return_source=True),
        check=lambda ours, _: right(op, many, ours),
        units=len(many) * LENGTH,
        unit="words",
        note="with edit runs",
    )
