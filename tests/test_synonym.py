"""Synonyms in the form of the words that they replace: a table of English forms, and the real WordNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import variegate as vg
from variegate import ops

TABLE = Path(__file__).parent / "inflections.tsv"
ROWS = [line.split("\t") for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]
NOUNS = [tuple(forms) for part, *forms in ROWS if part == "n"]
VERBS = [tuple(forms) for part, *forms in ROWS if part == "v"]
FRAMES = ("They {}", "She {}", "He quickly {} it", "They were not {}", "It is {} here")
"""Where a verb stands in each of its forms."""

WORDNET = Path("/usr/share/wordnet")
needs_wordnet = pytest.mark.skipif(
    not (WORDNET / "data.noun").exists(), reason="WordNet is not installed: apt install wordnet-base"
)


def replaced(texts: list[str], *rows: tuple[str, ...]) -> list[str]:
    batch = vg.TextBatch.from_texts(texts, ids=np.arange(len(texts)))
    return ops.Synonym(rate=1.0, lexicon=ops.Lexicon(rows))(batch, seed=1).texts


def test_the_table_has_two_hundred_words():
    assert len({tuple(row[:2]) for row in ROWS}) == len(ROWS) == 200
    assert len(NOUNS) > 70
    assert len(VERBS) > 120


@pytest.mark.parametrize("forms", NOUNS, ids=lambda forms: forms[0])
def test_nouns_keep_their_number(forms):
    one, many = forms
    assert replaced(["Cat", "two CATS", "cats"], ("cat", "n", one)) == [one.capitalize(), f"two {many.upper()}", many]
    back = ["cat", "two cats"] if one != many else ["cat", "two cat"]
    assert replaced([one, f"two {many}"], (one, "n", "cat")) == back


@pytest.mark.parametrize("forms", VERBS, ids=lambda forms: forms[0])
def test_verbs_keep_their_form(forms):
    def framed(words: tuple[str, ...]) -> list[str]:
        return [frame.format(word) for frame, word in zip(FRAMES, words, strict=True)]

    base, _, past, participle, ing = forms
    go = ("go", "goes", "went", "gone", "going")
    regular = ("mend", "mends", "mended", "mended", "mending")
    assert replaced(framed(go), ("go", "v", base)) == framed(forms)
    assert replaced(framed(forms), (base, "v", "go")) == framed(go)
    assert replaced(framed(regular), ("mend", "v", base)) == framed(forms)
    assert replaced(framed(forms), (base, "v", "mend")) == framed(regular)
    # Without what tells the two apart, a past that may be a participle becomes one that may be, or stays.
    alone = [past.capitalize()] if past == participle else ["Mended"]
    assert replaced(["Mended"], ("mend", "v", base)) == alone
    assert replaced(["Mending"], ("mend", "v", base)) == [ing.capitalize()]
    assert replaced(["Mending"], ("mend", "v", f"{base} up")) == [f"{ing} up".capitalize()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She found it", "She saw it"),
        ("They found a school", "They saw a school"),
        ("to found a school", "to establish a school"),
        ("It was found there", "It was seen there"),
        ("It hasn't yet been found", "It hasn't yet been seen"),
        ("He's found it", "He's seen it"),
        ("He put it there", "He laid it there"),
        ("Did he put it there", "Did he lay it there"),
        ("They put it there", "They lay it there"),
        ("They've never put it there", "They've never laid it there"),
        ("She. Put it there", "She. Lay it there"),
        ("It is a set", "It is a kit"),
        ("all views", "all points of view"),
        ("Went home", "Drove home"),
        ("has gone home", "has driven home"),
    ],
)
def test_the_words_before_tell_the_form(text, expected):
    rows = [
        ("find", "v", "see"),
        ("found", "v", "establish"),
        ("put", "v", "lay"),
        ("set", "n", "kit"),
        ("view", "n", "point of view"),
        ("go", "v", "drive"),
    ]
    assert replaced([text], *rows) == [expected]


@needs_wordnet
def test_the_table_agrees_with_wordnet():
    """Where WordNet lists a form as irregular, it lists it for the same word."""
    for part, name in (("n", "noun"), ("v", "verb")):
        listed: dict[str, set[str]] = {}
        for line in (WORDNET / f"{name}.exc").read_text("utf-8").splitlines():
            form, *bases = line.split()
            listed.setdefault(form, set()).update(bases)
        checked = 0
        for kind, base, *forms in ROWS:
            for form in set(forms) - {base} if kind == part else ():
                checked += form in listed
                assert base in listed.get(form, {base}), (base, form)
        assert checked > 30


@needs_wordnet
def test_wordnet_itself_is_read_and_replaces():
    lexicon = ops.Lexicon.from_wordnet()
    assert len(lexicon) > 50_000
    found = {(word, part): others for word, part, *others in lexicon.rows}
    assert found["car", "n"] == ["auto", "automobile", "machine", "motorcar"]
    assert found["large", "a"] == ["big"]
    assert found["begin", "v"] == ["get down", "get", "start out", "start", "set about", "set out", "commence"]
    assert found["quickly", "r"] == ["rapidly", "speedily", "chop-chop", "apace"]
    assert {"the", "in", "it", "an"}.isdisjoint(word for word, _ in found)
    held = "She was as his, has it, and does this during its less."
    op = ops.Synonym(rate=1.0, lexicon=lexicon, pos=("n", "v"))
    assert op(vg.TextBatch.from_texts([held]), seed=1).texts == [held]
    assert len(ops.Lexicon.from_wordnet(senses=3)) > len(lexicon)
    op = ops.Synonym(rate=1.0, lexicon=lexicon, pos=("v",))
    text = "She bought a car and he hid it; they were chosen."
    outs = {op(vg.TextBatch.from_texts([text], ids=[i]), seed=1).texts[0] for i in range(60)}
    words = {word for out in outs for word in out.rstrip(".").replace(";", "").split()}
    assert {"purchased", "concealed", "taken", "selected", "picked"} <= words
    assert words.isdisjoint({"buy", "bought", "hide", "pick", "choose", "chosen", "select", "purchase", "took"})
