"""Units, normalisation and presets of deduplication, against plain Python."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from variegate.dedup import Deduper, Normalize, near
from variegate.errors import InvalidInput
from variegate.tokenizer import Tokenizer

SURE = 0.999999
TEXTS = st.lists(st.text("abAB .,-_$©12٣éÉe\u0301ﬁℌßİ \t\n\u2003", max_size=24), max_size=8)
NORMALIZES = st.builds(
    Normalize,
    unicode=st.sampled_from([None, "NFC", "NFD", "NFKC", "NFKD"]),
    accents=st.booleans(),
    case=st.booleans(),
    punctuation=st.booleans(),
    digits=st.booleans(),
    whitespace=st.booleans(),
)


def piece(text: str, how: Normalize) -> str:
    """One run of characters, normalised."""
    if how.unicode is not None:
        text = unicodedata.normalize(how.unicode, text)
    if how.accents:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    if how.case:
        text = text.lower()
    if how.punctuation:
        text = "".join(c for c in text if unicodedata.category(c)[0] != "P" and c not in "$+<=>^`|~")
    return re.sub(r"\d+", "0", text) if how.digits else text


def words(text: str, how: Normalize) -> list[str]:
    return [word for word in (piece(run, how) for run in text.split()) if word]


def normal(text: str, how: Normalize) -> str:
    return " ".join(words(text, how)) if how.whitespace else piece(text, how)


def keepers(lists, ngram, threshold):
    """The keepers where rows are these lists of units."""
    number = {unit: i for i, unit in enumerate(sorted({unit for row in lists for unit in row}))}
    batch = vg.TokenBatch.from_lists([[number[unit] for unit in row] for row in lists], ids=np.arange(len(lists)))
    return near(batch, threshold=threshold, ngram=ngram, recall=SURE).keeper.tolist()


@given(TEXTS, NORMALIZES)
def test_texts_are_normalised_as_plain_python_does_it(texts, how):
    batch = vg.TextBatch.from_texts(texts, ids=np.arange(len(texts)), rows={"source": np.array(["x"] * len(texts))})
    applied = how.apply(batch)
    assert applied.texts == [normal(text, how) for text in texts]
    assert np.array_equal(applied.ids, batch.ids)
    assert applied.rows.keys() == {"source"}


@given(TEXTS, NORMALIZES, st.sampled_from(["word", "char"]), st.integers(1, 3))
def test_units_are_those_of_the_normalised_text(texts, how, unit, ngram):
    batch = vg.TextBatch.from_texts(texts, ids=np.arange(len(texts)))
    found = near(batch, threshold=0.5, ngram=ngram, unit=unit, normalize=how, recall=SURE)
    units = [words(text, how) if unit == "word" else list(normal(text, how)) for text in texts]
    assert found.keeper.tolist() == keepers(units, ngram, 0.5)


TOKENS = st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=12)


@given(
    TOKENS, st.lists(st.integers(0, 12), max_size=3), st.none() | st.lists(st.integers(0, 5), min_size=10, max_size=12)
)
def test_tokens_are_skipped_and_folded(rows, skip, fold):
    batch = vg.TokenBatch.from_lists(rows, ids=np.arange(len(rows)))
    found = near(batch, threshold=0.5, ngram=2, skip=skip, fold=fold, recall=SURE)
    assert found.keeper.tolist() == keepers(
        [[token if fold is None else fold[token] for token in row if token not in skip] for row in rows], 2, 0.5
    )
    parts = Deduper(threshold=0.5, ngram=2, skip=skip, fold=fold, recall=SURE)
    parts.add(batch[: len(rows) // 2])
    parts.add(batch[len(rows) // 2 :])
    assert np.array_equal(parts.result().keeper, found.keeper)


def test_a_tokenizer_makes_tokens_the_unit():
    tokenizer = Tokenizer.default()
    texts = vg.TextBatch.from_texts(["The cat sat on the mat.", "the cat sat on the  MAT.", "A dog ran", "a dog ran"])
    plain = near(texts, tokenizer=tokenizer, threshold=0.9, ngram=2)
    tokens = tokenizer.encode(texts)
    assert np.array_equal(plain.keeper, near(tokens, threshold=0.9, ngram=2).keeper)
    assert plain.keep.all()
    lower = near(texts, tokenizer=tokenizer, normalize=Normalize(), threshold=0.9, ngram=2, keep="first")
    assert lower.keeper.tolist() == [0, 0, 2, 2]
    dot = tokenizer.encode(["."]).tokens
    assert near(texts, unit="token", tokenizer=tokenizer, skip=dot, ngram=2).stats["rows"] == 4


def test_presets_are_their_parts():
    rng = np.random.default_rng(4)
    texts = []
    for _ in range(60):
        base = ["".join(rng.choice(list("abcdé"), 4)) for _ in range(40)]
        texts.append(" ".join(base))
        base[int(rng.integers(40))] = "X"
        texts.append(", ".join(base).upper())
    batch = vg.TextBatch.from_texts(texts)
    fineweb = Normalize(accents=True, punctuation=True, digits=True)
    slimpajama = Normalize(unicode="NFC", punctuation=True)
    nemo = Normalize(case=False, whitespace=False)
    for preset, unit, ngram, threshold, normalize in [
        ("fineweb", "word", 5, 0.75, fineweb),
        ("slimpajama", "char", 13, 0.8, slimpajama),
        ("nemo", "char", 24, 0.8, nemo),
    ]:
        parts = {"unit": unit, "ngram": ngram, "threshold": threshold, "normalize": normalize}
        found = near(batch, preset=preset)
        assert np.array_equal(found.keeper, near(batch, **parts).keeper)
        assert (found.stats["near"] > 20) == (preset != "nemo")
        other = near(batch, preset=preset, threshold=0.95, ngram=3)
        assert np.array_equal(other.keeper, near(batch, **(parts | {"threshold": 0.95, "ngram": 3})).keeper)
        assert not np.array_equal(other.keeper, found.keeper) or preset == "nemo"
    tokens = vg.TokenBatch.from_lists([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 9]])
    found = near(tokens, preset="fineweb", unit="token", threshold=0.5)
    assert found.keep.sum() == 1


def test_long_shingles():
    row = list(range(100))
    batch = vg.TokenBatch.from_lists([row, [*row[:-1], 7], [*row[:40], 1000, *row[41:]]], ids=[1, 2, 3])
    found = near(batch, threshold=0.9, ngram=32)
    assert found.keeper.tolist() == [0, 0, 2]
    assert found.similarity[1] == np.float32(68 / 70)


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        ("text", {"preset": "c4"}, "preset must be 'fineweb', 'slimpajama' or 'nemo' (it is 'c4')"),
        ("token", {"preset": "fineweb"}, "unit 'word' needs a TextBatch, and this is a TokenBatch"),
        ("text", {"normalize": "NFC"}, "normalize must be a Normalize, not str"),
        ("token", {"normalize": Normalize()}, "normalize= is for a TextBatch, and this is a TokenBatch"),
        ("token", {"tokenizer": Tokenizer.default()}, "tokenizer= is for a TextBatch, and this is a TokenBatch"),
        ("text", {"unit": "char", "skip": [1]}, "skip= is for unit 'token' (the unit is 'char')"),
        ("text", {"unit": "word", "fold": [1]}, "fold= is for unit 'token' (the unit is 'word')"),
        ("text", {"skip": [1]}, "skip= and fold= need tokens, and this is a TextBatch: give a tokenizer="),
        ("token", {"fold": [1, 2]}, "fold must hold a number for every token (row 1: token 2, 2 numbers)"),
        ("token", {"skip": [-1]}, "skip must lie in 0..4294967295 (position 0: -1)"),
        ("text", {"ngram": 33}, "ngram must lie in 1 to 32 (it is 33)"),
    ],
)
def test_bad_arguments_are_refused(batch, arguments, message):
    rows = vg.TokenBatch.from_lists([[1], [2]]) if batch == "token" else vg.TextBatch.from_texts(["a", "b"])
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        near(rows, **arguments)


def test_a_form_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match=r"^unicode must be 'NFC', 'NFD', 'NFKC', 'NFKD' or None \(it is 'nfc'\)$"):
        Normalize(unicode="nfc")
    with pytest.raises(InvalidInput, match=r"^deduplication needs a TokenBatch or a TextBatch, not list$"):
        Normalize().apply(["a"])
