"""Subword ops, word maps and text ops on tokens, against Hugging Face's own tokenizers and against brute force."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples, token_batches, unigram, with_tokenizer
from test_ops import SEEDS, TEXT, check_spans, lists, with_own_tags
from test_tokenizer import MODELS, SAMPLE, library, pair
from test_tokenizer import TEXT as STRINGS
from variegate import ops
from variegate.errors import InvalidInput
from variegate.tokenizer import Tokenizer

hf = pytest.importorskip("tokenizers")

BPE = ["byte_level", "byte_level_trimmed", "llama3", "llama2"]
STYLES = ["default", *MODELS]
many = examples(300)


def ours(name: str) -> Tokenizer:
    if name == "default":
        return Tokenizer.default()
    return unigram() if name == "unigram" else pair(name)[1]


def texts_of(batch: vg.TokenBatch) -> list[str]:
    """What the tokens spell, the first of each row as it stands alone: `decode` without its tidying up."""
    tokenizer = batch.tokenizer
    table = tokenizer.token_bytes
    out = []
    for row in batch.to_lists():
        if not row:
            out.append("")
            continue
        head = tokenizer.decode(vg.TokenBatch.from_lists([row[:1]])).texts[0]
        first = table[row[0]] if "\ufffd" in head else head.encode()
        out.append(b"".join([first, *(table[t] for t in row[1:])]).decode())
    return out


# Word maps -----------------------------------------------------------------------------------------------------------


# Python also takes the separators U+001C to U+001F for white space.
SPACED = re.compile(r" ?[\S\x1c-\x1f]+|[^\S\x1c-\x1f]+(?![\S\x1c-\x1f])|[^\S\x1c-\x1f]+")


def counted(words: list[Any], special: list[bool]) -> list[int]:
    """Words by any names as numbers from 0, -1 for special tokens."""
    out, number, last = [], -1, None
    for word, apart in zip(words, special, strict=True):
        number += not apart and (last is None or word != last)
        out.append(-1 if apart else number)
        last = None if apart else word
    return out


def reference_words(name: str, text: str) -> list[int]:
    """Hugging Face's `Encoding.word_ids`; where it has no pre-tokenizer, words by white space."""
    theirs, mine = pair(name)
    encoding = theirs.encode(text, add_special_tokens=False)
    unknown = {theirs.token_to_id(token) for token in ("<unk>", "[UNK]")}
    special = [token in set(mine.special_ids.tolist()) - unknown for token in encoding.ids]
    if name != "llama2":
        return counted(encoding.word_ids, special)
    out: list[Any] = []
    table = mine.token_bytes
    for apart, run in itertools.groupby(zip(encoding.ids, special, strict=True), lambda item: item[1]):
        ids = [token for token, _ in run]
        spelled = b"".join(table[token] for token in ids).decode(errors="replace")
        if "\ufffd" in spelled:
            return []
        ends = [len(spelled[: match.end()].encode()) for match in SPACED.finditer(spelled)]
        starts = np.cumsum([0, *(len(table[token]) for token in ids)])[:-1]
        out += [None] * len(ids) if apart else [(len(out), int(np.searchsorted(ends, s, "right"))) for s in starts]
    names = [None if word is None else word for word in out]
    return counted(names, special)


@pytest.mark.parametrize("name", MODELS)
def test_words_are_the_reference_s_on_the_library(name: str) -> None:
    batch = pair(name)[1].encode(SAMPLE)
    words = lists(pair(name)[1].word_ids(batch), batch.offsets)
    assert words == [reference_words(name, text) for text in SAMPLE]


@pytest.mark.parametrize("name", MODELS)
@examples(100)
@given(text=STRINGS)
def test_words_are_the_reference_s(name: str, text: str) -> None:
    mine = pair(name)[1]
    expected = reference_words(name, text)
    if expected:
        assert mine.word_ids(mine.encode([text])).tolist() == expected


def test_words_of_plain_english_are_those_between_spaces() -> None:
    text = "the quick brown fox jumps over the lazy dog and then it naps for hours"
    for name in STYLES:
        mine = ours(name)
        batch = mine.with_word_ids(mine.encode([text, ""]))
        words = batch.columns["word_ids"]
        assert words.dtype == np.int32
        spelled: dict[int, bytes] = {}
        for token, word in zip(batch.tokens.tolist(), words.tolist(), strict=True):
            spelled[word] = spelled.get(word, b"") + mine.token_bytes[token]
        assert [word.decode().strip() for word in spelled.values()] == text.split()
        assert list(spelled) == list(range(len(spelled)))


def test_words_of_a_pre_tokenizer_that_is_not_known_are_its_own() -> None:
    content = json.loads(pair("byte_level")[0].to_str())
    digits = {"type": "Digits", "individual_digits": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
    theirs = hf.Tokenizer.from_str(json.dumps(content))
    mine = Tokenizer(theirs)
    batch = mine.encode(SAMPLE)
    expected = [theirs.encode(text).word_ids for text in SAMPLE]
    assert lists(mine.word_ids(batch), batch.offsets) == [counted(words, [False] * len(words)) for words in expected]
    drawn = ops.BpeDropout(rate=0.5)(batch, seed=1)
    assert mine.decode(drawn).texts == SAMPLE
    assert all((mine.word_ids(drawn)[:-1] <= mine.word_ids(drawn)[1:]) | (mine.word_ids(drawn)[1:] == 0))


@given(token_batches())
def test_any_tokens_have_words(batch: vg.TokenBatch) -> None:
    for name in STYLES:
        fitted = with_tokenizer(batch, ours(name))
        words = ours(name).word_ids(fitted)
        for row, special in zip(
            lists(words, batch.offsets),
            lists(np.isin(fitted.tokens, ours(name).special_ids), batch.offsets),
            strict=True,
        ):
            plain = [word for word in row if word >= 0]
            assert plain == sorted(plain)
            assert set(plain) == set(range(len(set(plain))))
            assert all(bool(s) or word >= 0 for word, s in zip(row, special, strict=True))


def test_tokens_without_a_word_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"^row 1: token 9000 at position 1 is not in the vocabulary \(size 8192\)$"):
        Tokenizer.default().word_ids(vg.TokenBatch.from_lists([[5], [400, 9000]]))
    assert Tokenizer.default().word_ids(vg.TokenBatch.from_lists([])).tolist() == []


# Subword ops ---------------------------------------------------------------------------------------------------------


def test_the_vectors_are_the_oracle_s() -> None:
    script = Path(__file__).parent / "vectors" / "generate_subword.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("name", ["default", *BPE, "t5"])
@examples(60)
@given(texts=st.lists(STRINGS, max_size=4), seed=SEEDS, rate=st.sampled_from([0.1, 0.5, 1.0]))
def test_the_text_stays_and_so_do_words_that_were_not_drawn(
    name: str, texts: list[str], seed: int, rate: float
) -> None:
    mine = ours(name)
    batch = mine.encode(texts)
    kind = ops.UnigramSample(alpha=rate) if name == "t5" else ops.BpeDropout(rate=rate)
    out = kind(batch, seed=seed, return_source=True)
    assert mine.decode(out).texts == mine.decode(batch).texts
    still = ops.UnigramSample(alpha=rate, rate=0.0) if name == "t5" else ops.BpeDropout(rate=0.0)
    assert still(batch, seed=seed).to_lists() == batch.to_lists() == mine.encode(texts).to_lists()
    # From the text in one call.
    again = kind(vg.TextBatch.from_texts(texts), seed=seed, tokenizer=mine)
    assert again.to_lists() == out.to_lists()


def dropped(theirs: Any, rate: float) -> Any:
    content = json.loads(theirs.to_str())
    content["model"]["dropout"] = rate
    return hf.Tokenizer.from_str(json.dumps(content))


def words(size: int) -> list[str]:
    """Words of the library, each a text: what no pre-tokenizer splits."""
    found = re.findall(r"[A-Za-z]{1,14}", " ".join(library("*.py", 20000)))
    return found[:size]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["byte_level", "llama3", "llama2"])
def test_dropout_has_the_law_of_tokenizers(name: str, rate: float) -> None:
    """Numbers and lengths of the tokens of 60,000 words: the same laws, by chi-square and mean."""
    theirs, mine = pair(name)
    texts = words(60_000)
    out = ops.BpeDropout(rate=rate)(mine.encode(vg.TextBatch.from_texts(texts, ids=range(len(texts)))), seed=5)
    random = [encoding.ids for encoding in dropped(theirs, rate).encode_batch(texts, add_special_tokens=False)]
    counts = [len(row) for row in random]
    spread = math.hypot(np.std(counts), np.std(out.lengths)) / math.sqrt(len(texts))
    assert abs(np.mean(counts) - np.mean(out.lengths)) < 3 * spread
    lengths = [len(token) for token in mine.token_bytes]
    both = [Counter(int(t) for t in out.tokens), Counter(t for row in random for t in row)]
    by_length = [Counter(), Counter()]
    for tally, counter in zip(by_length, both, strict=True):
        for token, n in counter.items():
            tally[lengths[token]] += n
    for tallies in (both, by_length):
        assert p_value(*tallies) > 1e-3


def p_value(a: Counter[int], b: Counter[int]) -> float:
    """Chi-square of two samples having one law, rare values together; by the cube root of Wilson and Hilferty."""
    keys = sorted(set(a) | set(b), key=lambda key: -(a[key] + b[key]))
    common = [key for key in keys if a[key] + b[key] >= 40]
    cells = [(a[key], b[key]) for key in common]
    rest = (a.total() - sum(x for x, _ in cells), b.total() - sum(y for _, y in cells))
    cells += [rest] if sum(rest) >= 40 else []
    share = a.total() / (a.total() + b.total())
    chi = sum((x - (x + y) * share) ** 2 / ((x + y) * share * (1 - share)) for x, y in cells)
    degrees = len(cells) - 1
    z = ((chi / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return 0.5 * math.erfc(z / math.sqrt(2))


def test_dropout_of_nothing_and_of_all() -> None:
    mine = Tokenizer.default()
    batch = mine.encode(SAMPLE[:20])
    letters = ops.BpeDropout(rate=1.0)(batch, seed=1)
    assert all(len(mine.token_bytes[t]) == 1 for t in letters.tokens)
    assert ops.BpeDropout(rate=0.0)(batch, seed=1).equals(batch)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_segmentations_are_drawn_by_the_law(alpha: float) -> None:
    """All segmentations of one word, enumerated: chi-square of 40,000 draws."""
    mine = unigram()
    scores = dict(json.loads(mine._hf.json)["model"]["vocab"])
    word = "▁thebabhing"

    def ways(rest: str) -> list[list[str]]:
        heads = [rest[:n] for n in range(1, len(rest) + 1) if rest[:n] in scores]
        return [[head, *tail] for head in heads for tail in ways(rest[len(head) :])] if rest else [[]]

    everything = ways(word)
    weights = np.exp([alpha * sum(scores[piece] for piece in way) for way in everything])
    n = 40_000
    texts = vg.TextBatch.from_texts(["thebabhing"] * n, ids=range(n))
    out = ops.UnigramSample(alpha=alpha)(mine.encode(texts), seed=3)
    drawn = Counter(map(tuple, out.to_lists()))
    expected = weights / weights.sum() * n
    keys = [tuple(mine.token_to_id(piece) for piece in way) for way in everything]
    assert set(drawn) <= set(keys)
    chi = sum((drawn[key] - e) ** 2 / e for key, e in zip(keys, expected, strict=True))
    degrees = len(keys) - 1
    z = ((chi / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    assert len(keys) > 20
    assert abs(z) < 3.3


def test_a_large_alpha_gives_the_best_segmentation() -> None:
    """The tokenizer's own encoding, but for the order of pieces whose sum is the same."""
    mine = pair("t5")[1]
    scores = dict(json.loads(mine._hf.json)["model"]["vocab"])
    batch = mine.encode(SAMPLE)
    out = ops.UnigramSample(alpha=1000.0)(batch, seed=1)
    for before, after in zip(batch.to_lists(), out.to_lists(), strict=True):
        sums = [sum(scores[mine.id_to_token(token)] for token in row) for row in (before, after)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-6)
        assert len(before) == len(after)


def test_the_share_of_words_that_are_drawn() -> None:
    mine = unigram()
    n = 50_000
    texts = vg.TextBatch.from_texts(["abababababababababababababab"] * n, ids=range(n))
    batch = mine.encode(texts)
    out = ops.UnigramSample(alpha=0.0, rate=0.2)(batch, seed=1)
    changed = sum(a != b for a, b in zip(batch.to_lists(), out.to_lists(), strict=True))
    # One segmentation in hundreds is the one that was there.
    assert abs(changed - 0.2 * n) < 3 * math.sqrt(n * 0.16) + 0.002 * n


def test_long_words_and_rows() -> None:
    """A million letters without a space, and a million tokens in a row."""
    mine = Tokenizer.default()
    text = "abcdefghij" * 100_000
    batch = mine.encode([text, "a b" * 400_000])
    for rate in (0.0, 0.1, 1.0):
        out = ops.BpeDropout(rate=rate)(batch, seed=1)
        assert mine.decode(out).texts == mine.decode(batch).texts
    long = unigram().encode(["ab" * 300_000])
    out = ops.UnigramSample(alpha=0.5)(long, seed=1)
    assert unigram().decode(out).texts == unigram().decode(long).texts
    typed = ops.KeyboardTypo(rate=0.01)(batch, seed=1)
    assert typed.to_lists() == mine.encode(vg.TextBatch.from_texts(texts_of(typed))).to_lists()


def test_protected_tokens_and_their_words_stay() -> None:
    mine = Tokenizer.default()
    batch = mine.encode(["unbelievable<|endoftext|> unbelievable"], ids=[1])
    first = int(batch.tokens[0])
    out = ops.BpeDropout(rate=1.0, protect=ops.Protect(ids=(first,)))(batch, seed=1, return_source=True)
    assert (out.tokens[: batch.to_lists()[0].index(0) + 1] == batch.tokens[: batch.to_lists()[0].index(0) + 1]).all()
    assert len(out.tokens) > len(batch.tokens)


def refuse(op: ops.Op, batch: Any, **call: Any) -> str:
    with pytest.raises(InvalidInput) as error:
        op(batch, seed=1, **call)
    return str(error.value)


def test_bad_calls_are_named() -> None:
    bare = vg.TokenBatch.from_lists([])
    assert refuse(ops.BpeDropout(rate=0.1), bare) == (
        "BpeDropout needs a tokenizer: give the batch one, batch.replace(tokenizer=...)"
    )
    assert refuse(ops.BpeDropout(rate=0.1), bare, tokenizer=unigram()) == (
        "BpeDropout needs a BPE tokenizer, and this one is Unigram"
    )
    assert refuse(ops.UnigramSample(alpha=0.1), bare, tokenizer=Tokenizer.default()) == (
        "UnigramSample needs a Unigram tokenizer, and this one is BPE"
    )
    assert refuse(ops.UnigramSample(alpha=0.1), bare, tokenizer=pair("bert")[1]) == (
        "UnigramSample cannot use this tokenizer: its model is WordPiece, not BPE or Unigram"
    )
    assert refuse(ops.BpeDropout(rate=0.1), vg.TextBatch.from_texts(["a"])) == (
        "BpeDropout#0 works on tokens, and this is a batch of text: encode it with a tokenizer first"
    )
    unknown = vg.TokenBatch.from_lists([[5], [5, 9000]])
    for op in (ops.BpeDropout(rate=0.1), ops.KeyboardTypo(rate=0.1)):
        assert refuse(op, unknown, tokenizer=Tokenizer.default()) == (
            "token 9000 at position 1 is not in the vocabulary (size 8192) (row 1)"
        )
    for alpha in (-0.5, 1001):
        with pytest.raises(InvalidInput, match=rf"^UnigramSample: alpha must lie in \[0, 1000\] \(it is {alpha}\)$"):
            ops.UnigramSample(alpha=alpha)


# Text ops on tokens --------------------------------------------------------------------------------------------------

OVER_TOKENS = [param for param in TEXT if "Repeat" not in param.values[0].to_json()]
PLAIN = [
    param
    for param in OVER_TOKENS
    if not param.values[0].to_json().count("protect") and param.values[0].to_json().count("forbid") == 0
]


@pytest.mark.parametrize("name", STYLES)
@many
@given(data=st.data(), texts=st.lists(STRINGS, max_size=3), seed=SEEDS)
def test_edited_tokens_are_the_encoding_of_the_edited_text(name: str, data: Any, texts: list[str], seed: int) -> None:
    """For text whose special tokens the op leaves alone, as it leaves those of the batch."""
    mine = ours(name)
    op = data.draw(st.sampled_from([param.values[0] for param in PLAIN]))
    batch = mine.encode(texts, ids=range(len(texts)))
    specials = set(mine.special_ids.tolist())
    if mine._hf.token_to_id("<unk>") is not None:
        specials.add(mine._hf.token_to_id("<unk>"))
    if specials & set(batch.tokens.tolist()):
        return
    decoded = texts_of(batch)
    if mine.encode(decoded).to_lists() != batch.to_lists():
        return
    out = op(batch, seed=seed, return_source=True)
    edited = op(vg.TextBatch.from_texts(decoded, ids=batch.ids), seed=seed)
    assert out.to_lists() == mine.encode(edited).to_lists()
    law(batch, out)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("op", PLAIN)
def test_edited_files_are_encoded_as_their_text(name: str, op: ops.Op) -> None:
    mine = ours(name)
    texts = SAMPLE[:60]
    batch = mine.encode(vg.TextBatch.from_texts(texts, ids=range(len(texts))))
    decoded = texts_of(batch)
    whole = [a == b for a, b in zip(mine.encode(decoded).to_lists(), batch.to_lists(), strict=True)]
    unknown = mine._hf.token_to_id("<unk>")
    apart = [*mine.special_ids.tolist(), -1 if unknown is None else unknown]
    rows = [row for row, same in enumerate(whole) if same and not np.isin(apart, batch[row].tokens).any()]
    assert len(rows) > 20
    batch = batch.take(rows)
    edited = op(vg.TextBatch.from_texts([decoded[row] for row in rows], ids=batch.ids), seed=2)
    out = op(batch, seed=2, return_source=True)
    assert out.to_lists() == mine.encode(edited).to_lists()
    # These texts have no marks and no entities, and one tokenizer makes all letters small.
    kind = type(op).__name__
    idle = kind in ("Diacritics", "EntitySwap") or (kind == "CaseNoise" and name == "bert")
    assert (out.to_lists() == batch.to_lists()) == idle
    assert out.edited.mean() < 1
    law(batch, out)


def law(batch: vg.TokenBatch, out: vg.TokenBatch) -> None:
    row = np.repeat(np.arange(len(out)), out.lengths)
    known = out.source >= 0
    at = batch.offsets[:-1][row] + out.source
    assert (out.source >= -1).all()
    assert (out.source[known] < batch.lengths[row][known]).all()
    assert (out.edited[~known] == 1).all()
    kept = known & (out.edited == 0)
    assert (out.tokens[kept] == batch.tokens[at[kept]]).all()
    for source in lists(out.source, out.offsets):
        ascending = [s for s in source if s >= 0]
        assert ascending == sorted(ascending)
    # A token is kept once.
    assert len(set(at[kept].tolist())) == kept.sum()


@pytest.mark.parametrize("op", OVER_TOKENS)
@many
@given(data=st.data(), batch=token_batches(), seed=SEEDS)
def test_any_tokens_obey_the_law(op: ops.Op, data: Any, batch: vg.TokenBatch, seed: int) -> None:
    """Tokens that no text has: parts of characters, special tokens in any place. What is fenced stays."""
    mine = ours(data.draw(st.sampled_from(STYLES)))
    batch = with_tokenizer(batch, mine)
    named = data.draw(st.booleans())
    batch = with_own_tags(batch) if named else batch
    out = op(batch, seed=seed, return_source=True)
    law(batch, out)
    if named:
        check_spans(op, batch, out)
    assert op(batch, seed=seed).equals(out)
    special = np.isin(batch.tokens, mine.special_ids)
    row = np.repeat(np.arange(len(out)), out.lengths)
    at = batch.offsets[:-1][row] + out.source
    kept = set(at[(out.source >= 0) & (out.edited == 0)].tolist())
    assert set(np.flatnonzero(special).tolist()) <= kept
    at = np.clip(at, 0, None)
    for name, column in batch.columns.items():
        assert (out.columns[name][out.source >= 0] == column[at[out.source >= 0]]).all()
    order = data.draw(st.permutations(range(len(batch))))
    shuffled = op(batch.take(order), seed=seed)
    assert shuffled.to_lists() == [out.to_lists()[row] for row in order]


@pytest.mark.parametrize("kind", sorted({type(param.values[0]).__name__ for param in OVER_TOKENS}))
def test_a_row_of_a_million_tokens_and_all_protected(kind: str) -> None:
    op = next(param.values[0] for param in OVER_TOKENS if type(param.values[0]).__name__ == kind)
    batch = long_row()
    out = op(batch, seed=1, return_source=True)
    law(batch, out)
    assert (out.edited.any() or len(out.tokens) < len(batch.tokens)) == (kind != "Diacritics")
    shut = batch.replace(columns={"shut": np.ones(len(batch.tokens), bool)})
    kept = vg.Compose([op], protect=ops.Protect(columns=("shut",)))(shut, seed=1, return_source=True)
    assert kept.to_lists() == batch.to_lists()
    assert not kept.edited.any()
    assert kept.spans.to_list() == batch.spans.to_list()


@functools.cache
def long_row() -> vg.TokenBatch:
    """An empty row and one of more than a million tokens, with 60,000 entities and as many negations, tagged "b"."""
    said = "Ada came in order to see the good car, because I am here, but they do not cry. "
    text, spans = said * 60_000, [(1, len(said) * k, len(said) * k + 3, "b") for k in range(60_000)]
    batch = Tokenizer.default().encode(vg.TextBatch.from_texts(["", text], ids=[1, 2], spans=spans))
    assert batch.lengths[1] > 1_000_000
    return batch


@examples(100)
@given(texts=st.lists(STRINGS, min_size=1, max_size=3), seed=SEEDS, data=st.data())
def test_protected_tokens_stay_in_edited_text(texts: list[str], seed: int, data: Any) -> None:
    mine = ours(data.draw(st.sampled_from(STYLES)))
    batch = mine.encode(texts)
    shut = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch.tokens), max_size=len(batch.tokens))), bool)
    batch = batch.replace(columns={"shut": shut})
    op = data.draw(st.sampled_from([param.values[0] for param in PLAIN]))
    guarded = vg.Compose([op], protect=ops.Protect(columns=("shut",)))
    out = guarded(batch, seed=seed, return_source=True)
    row = np.repeat(np.arange(len(out)), out.lengths)
    kept = (batch.offsets[:-1][row] + out.source)[(out.source >= 0) & (out.edited == 0)]
    assert set(np.flatnonzero(shut).tolist()) <= set(kept.tolist())


def test_text_and_token_ops_compose() -> None:
    mine = Tokenizer.default()
    batch = mine.encode(SAMPLE[:50])
    typo, drop, bpe = ops.KeyboardTypo(rate=0.05), ops.TokenDropout(rate=0.1), ops.BpeDropout(rate=0.2)
    pipe = vg.Compose([typo, drop, bpe])
    assert (pipe.domain, pipe.paths) == ("token", ["KeyboardTypo#0", "TokenDropout#0", "BpeDropout#0"])
    out = pipe(batch, seed=3, return_source=True)
    step = bpe(drop(typo(batch, seed=3), seed=3), seed=3)
    assert out.to_lists() == step.to_lists()
    assert list(out.stats) == pipe.paths
    kept = (out.source >= 0) & (out.edited == 0)
    row = np.repeat(np.arange(len(out)), out.lengths)
    assert (out.tokens[kept] == batch.tokens[(batch.offsets[:-1][row] + out.source)[kept]]).all()


def test_columns_spans_and_stats_follow_an_edit() -> None:
    mine = Tokenizer.default()
    texts = vg.TextBatch.from_texts(
        ["The capital of France is Paris<|endoftext|>"], ids=[3], spans=[(0, 15, 21, "place")]
    )
    batch = mine.encode(texts)
    batch = batch.replace(columns={"n": np.arange(len(batch.tokens))})
    out = ops.KeyboardTypo(rate=0.3)(batch, seed=4, return_source=True)
    assert out.tokens[-1] == 0
    assert (out.columns["n"] == out.source).all()
    ((row, start, end, tag),) = out.spans.to_list()
    assert (row, tag) == (0, "place")
    spelled = b"".join(mine.token_bytes[t] for t in out.tokens[start:end]).decode()
    edited = mine.decode(out).texts[0]
    assert spelled.strip() == edited[15:21]
    (stats,) = out.stats.values()
    assert stats["seen"] == len(batch.tokens)
    assert stats["edited"] == int(out.edited.sum())
    forbid = ops.KeyboardTypo(rate=1.0, spans="forbid")(batch, seed=4, return_source=True)
    assert mine.decode(forbid).texts[0][15:21] == "France"


NAMED = [
    param
    for param in PLAIN
    if type(param.values[0]).__name__
    not in ("CharInsert", "WhitespaceNoise", "Compose", "OneOf", "SomeOf", "Sometimes")
    and param.values[0].to_spec()[type(param.values[0]).__name__]["spans"] == "follow"
]


@pytest.mark.parametrize("name", ["default", "byte_level", "llama3"])
@pytest.mark.parametrize("op", NAMED)
@examples(30)
@given(
    pieces=st.lists(st.sampled_from(["Ada", "Grace Hopper", "I am", "Cars", "3.14", "the", "so", "not", "good", ","]))
)
def test_entities_hold_what_they_hold_in_the_text(op: ops.Op, name: str, pieces: list[str]) -> None:
    """A word before an entity is none of it, nor is a space; entities are whole words between spaces."""
    starts = np.cumsum([0, *(len(piece) + 1 for piece in pieces)])
    spans = [(0, int(s), int(s) + len(p), "b") for s, p in zip(starts, pieces, strict=False) if p[0].isupper()]
    texts = vg.TextBatch.from_texts([" ".join(pieces)], ids=[3], spans=spans)
    mine = ours(name)
    tokens = op(mine.encode(texts), seed=3)
    edited = op(texts, seed=3)
    expected = [edited.texts[0].encode()[start:end].decode().strip() for _, start, end, _ in edited.spans.to_list()]
    found = [spelled(mine, tokens.tokens[start:end].tolist()).strip() for _, start, end, _ in tokens.spans.to_list()]
    assert found == expected


def test_words_behind_an_insertion_keep_their_tokens() -> None:
    mine = Tokenizer.default()
    batch = mine.encode(["The car is good and the idea is big, they say"])
    for op in (ops.PunctuationInsert(rate=1.0), ops.WordInsert(rate=1.0)):
        out = op(batch, seed=1, return_source=True)
        assert len(out.tokens) > len(batch.tokens) + 2
        # The first word of a row is another token behind a space.
        assert out.tokens[out.edited == 0].tolist()[-len(batch.tokens) + 1 :] == batch.tokens[1:].tolist()


def test_guards_and_tagged_spans_reach_the_text_behind_tokens() -> None:
    tokenizer = vg.Tokenizer.default()
    text = "Ada never met Grace Hopper in Paris."
    spans = [(0, 0, 3, "name"), (0, 14, 26, "name")]
    texts = vg.TextBatch.from_texts([text], ids=[5], spans=spans)
    swap = ops.EntitySwap(rate=1.0, tag="name", entities=("Emmy Noether",))
    out = swap(tokenizer.encode(texts), seed=1)
    assert tokenizer.decode(out).texts == ["Emmy Noether never met Emmy Noether in Paris."] == swap(texts, seed=1).texts
    assert next(iter(out.stats.values()))["edited"] > 0
    guarded = ops.CharDelete(rate=1.0, protect=ops.Protect(words=("never", "Paris")))
    assert tokenizer.decode(guarded(tokenizer.encode(texts), seed=1)).texts == guarded(texts, seed=1).texts
    assert "never" in guarded(texts, seed=1).texts[0]
    moved = ops.WordSwap(rate=1.0)(tokenizer.encode(texts), seed=1)
    assert [tag for *_, tag in moved.spans.to_list()] == ["name", "name"]


# Fill in the middle, at characters -----------------------------------------------------------------------------------

SENTINELS: dict[str, Any] = {"prefix_id": 2**31, "middle_id": 2**31 + 1, "suffix_id": 2**31 + 2, "level": "character"}


def parts_of(row: list[int], spm: bool) -> list[list[int]]:
    """Prefix, middle and suffix of a row that was rearranged; with SPM prefix and middle together, and no middle."""
    p, m, s = (row.index(2**31 + k) for k in range(3))
    if spm:
        assert (p, s) == (0, 1)
        return [row[m + 1 :], [], row[s + 1 : m]]
    assert p == 0
    return [row[1:s], row[m + 1 :], row[s + 1 : m]]


def spelled(mine: Tokenizer, row: list[int]) -> str:
    return b"".join(mine.token_bytes[token] for token in row).decode()


@pytest.mark.parametrize("name", ["default", "byte_level", "llama3"])
@many
@given(texts=st.lists(STRINGS, max_size=4), seed=SEEDS, spm=st.booleans())
def test_parts_cut_at_characters_are_encoded_as_their_text(name: str, texts: list[str], seed: int, spm: bool) -> None:
    mine = ours(name)
    batch = mine.encode(texts)
    if np.isin(batch.tokens, mine.special_ids).any():
        return
    op = ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=float(spm), **SENTINELS)
    out = op(batch, seed=seed, return_source=True)
    for row, text in zip(out.to_lists(), texts, strict=True):
        if not text:
            assert row == []
            continue
        parts = parts_of(row, spm)
        pieces = [spelled(mine, part) for part in parts]
        assert "".join(pieces) == text
        if not spm:
            assert mine.encode(pieces).to_lists() == parts
        assert mine.encode([pieces[2]]).to_lists() == parts[2:]
    fim_law(batch, out)


@pytest.mark.parametrize("name", ["default", "byte_level", "llama3"])
def test_files_cut_at_characters_are_encoded_as_their_parts(name: str) -> None:
    mine = ours(name)
    texts = vg.TextBatch.from_texts(SAMPLE, ids=range(len(SAMPLE)))
    batch = mine.encode(texts)
    op = ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, **SENTINELS)
    inside = 0
    for seed in range(4):
        out = op(batch, seed=seed, return_source=True)
        fim_law(batch, out)
        rows = [parts_of(row, False) for row in out.to_lists() if row]
        parts = [part for row in rows for part in row]
        pieces = [spelled(mine, part) for part in parts]
        assert ["".join(pieces[k : k + 3]) for k in range(0, len(pieces), 3)] == [text for text in SAMPLE if text]
        assert mine.encode(pieces).to_lists() == parts
        # Little is encoded again, and many cuts go through a token.
        assert out.edited.sum() < 0.05 * len(out.tokens)
        inside += int(out.edited.sum()) - 3 * len(rows)
    assert inside > len(SAMPLE)


def fim_law(batch: vg.TokenBatch, out: vg.TokenBatch) -> None:
    row = np.repeat(np.arange(len(out)), out.lengths)
    known = out.source >= 0
    at = batch.offsets[:-1][row] + out.source
    assert ((out.tokens >= 2**31) == ~known).all()
    assert (out.source[known] < batch.lengths[row][known]).all()
    kept = known & (out.edited == 0)
    assert (out.tokens[kept] == batch.tokens[at[kept]]).all()
    assert len(set(at[kept].tolist())) == kept.sum()
    (stats,) = out.stats.values()
    assert stats["deleted"] == len(batch.tokens) - len(set(at[known].tolist()))
    assert stats["inserted"] == (~known).sum()


@pytest.mark.parametrize("name", STYLES)
@many
@given(data=st.data(), batch=token_batches(), seed=SEEDS)
def test_any_tokens_are_cut_at_characters(name: str, data: Any, batch: vg.TokenBatch, seed: int) -> None:
    """Tokens that no text has, too. Special and protected tokens stay, and keep their places at the ends of a row."""
    mine = ours(name)
    batch = with_tokenizer(batch, mine)
    shut = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch.tokens), max_size=len(batch.tokens))), bool)
    shut &= data.draw(st.booleans())
    batch = batch.replace(columns=batch.columns | {"shut": shut})
    op = ops.FillInMiddle(fim_rate=1.0, protect=ops.Protect(columns=("shut",)), **SENTINELS)
    out = op(batch, seed=seed, return_source=True)
    fim_law(batch, out)
    unknown = [mine._hf.token_to_id(token) for token in ("<unk>", "[UNK]")]
    shut = shut | np.isin(batch.tokens, [token for token in mine.special_ids.tolist() if token not in unknown])
    row = np.repeat(np.arange(len(out)), out.lengths)
    kept = (out.source >= 0) & (out.edited == 0)
    assert set(np.flatnonzero(shut).tolist()) <= set((batch.offsets[:-1][row] + out.source)[kept].tolist())
    for before, after, closed in zip(batch.to_lists(), out.to_lists(), lists(shut, batch.offsets), strict=True):
        head = next((k for k, c in enumerate(closed) if not c), len(before))
        assert after[:head] == before[:head]
        assert head == len(before) or after[head] == 2**31


@pytest.mark.parametrize("name", ["byte_level_trimmed", "llama2", "t5", "bert"])
def test_other_tokenizers_encode_the_parts_as_a_whole(name: str) -> None:
    """The parts of the decoded text are known from where the law puts the cuts: all pieces add up to it."""
    mine = ours(name)
    texts = ["a cat sat on the mat and it was there", "def area(width, height): return width * height"]
    batch = mine.encode(vg.TextBatch.from_texts(texts * 20, ids=range(40)))
    decoded = texts_of(batch)
    out = ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, **SENTINELS)(batch, seed=1, return_source=True)
    fim_law(batch, out)
    for row, text in zip(out.to_lists(), decoded, strict=True):
        parts = parts_of(row, False)
        cuts = [
            (i, j)
            for i in range(len(text) + 1)
            for j in range(i, len(text) + 1)
            if mine.encode([text[:i], text[i:j], text[j:]]).to_lists() == parts
        ]
        assert cuts


def test_cuts_at_characters_are_uniform() -> None:
    """Two independent places among the ends of four clusters, sorted: chi-square over 15 pairs."""
    mine = Tokenizer.default()
    n, text = 30_000, "ae\u0301👩‍👩‍👧z"
    clusters = ["a", "e\u0301", "👩‍👩‍👧", "z"]
    batch = mine.encode(vg.TextBatch.from_texts([text] * n, ids=range(n)))
    out = ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, **SENTINELS)(batch, seed=1)
    ends = ["".join(clusters[:k]) for k in range(5)]
    counts: Counter[tuple[int, int]] = Counter()
    for row in out.to_lists():
        prefix, middle, _ = (spelled(mine, part) for part in parts_of(row, False))
        counts[ends.index(prefix), ends.index(prefix + middle)] += 1
    assert len(counts) == 15
    expected = {(i, j): n * (1 if i == j else 2) / 25 for i in range(5) for j in range(i, 5)}
    assert sum((counts[k] - e) ** 2 / e for k, e in expected.items()) < 36.1  # p = 1e-3, 14 degrees of freedom


def test_columns_and_spans_follow_a_token_that_is_cut() -> None:
    mine = Tokenizer.default()
    texts = vg.TextBatch.from_texts(["international understanding<|endoftext|>"] * 50, ids=range(50))
    batch = mine.encode(texts)
    batch = batch.replace(columns={"n": np.concatenate([np.arange(k) for k in batch.lengths]).astype(np.int32)})
    out = ops.FillInMiddle(fim_rate=1.0, **SENTINELS)(batch, seed=3, return_source=True)
    known = out.source >= 0
    assert (out.columns["n"][known] == out.source[known]).all()
    assert (out.columns["n"][~known] == 0).all()
    assert (out.tokens[out.offsets[1:] - 1] == 0).all()
    assert any(len(set(source)) < len(source) - 2 for source in lists(out.source, out.offsets))
