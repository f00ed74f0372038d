"""Grammars into tokens: every row and span against encoding the rendered text, under tokenizers trained here."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import variegate as vg
from variegate.errors import InvalidInput
from variegate.templates import Grammar

ROOT = Path(__file__).parents[1]

NASTY = r"""
task = {!n=int 0..12}( )?{head}{body}{body}( {tail})?
head = {who} has {n=int 0..120} {thing}; | <q>Don't {thing}</q>, | \ \ {n=int -5..5}\n
     | {!n=int 1..1}naïve café — {who}'s
body = \ and {n}{thing} | , <t> {thing}</t> | \  {=n*n} <t>x</t> | <t>({who})</t>: | -{n}
     | \ <u>{w=choice I'm,\ you\ ,we're 7,Ünï,日本 語,\t}</u>
     | <t>ends here. And begins again with a longer text that has many words in it</t>
tail = \<eos> | ok\<eos> after | <v>\<eos></v> {who}? | {thing}\<mask> \<mask>{thing}
who  = Anna | Émile :: 2 | O'Neil | A B | ﬁn
thing = marbles | an apple | 3 books | x=1;y = 2 | "quoted  text"
"""
CORPUS = [
    *Grammar(NASTY).sample(600, seed=99).texts,
    *Grammar.from_file(ROOT / "examples/grammars/arithmetic.grammar").sample(800, seed=99).texts,
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<eos>", "<mask>"]


def trained(model, trainer, *, normalizer=None, pre_tokenizer=None, decoder=None, post_processor=None, mask=None):
    tok = tokenizers.Tokenizer(model)
    tok.normalizer, tok.pre_tokenizer, tok.decoder = normalizer, pre_tokenizer, decoder
    tok.train_from_iterator(CORPUS, trainer)
    if post_processor is not None:
        tok.post_processor = post_processor
    if mask is not None:
        tok.add_special_tokens([mask])
    return tok


@functools.cache
def tokenizer(kind: str) -> tokenizers.Tokenizer:
    bpe = functools.partial(trainers.BpeTrainer, vocab_size=700, special_tokens=SPECIAL, show_progress=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    metaspace, underscore = pre_tokenizers.Metaspace(), decoders.Metaspace()
    unigram = functools.partial(
        trainers.UnigramTrainer, vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    wordpiece = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=[*SPECIAL, "[CLS]", "[SEP]"], show_progress=False
    )
    spaces, around = tokenizers.Regex(" {2,}"), [("<eos>", 1), ("<mask>", 2)]
    llama = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    match kind:
        case "byte-level BPE":
            return trained(
                models.BPE(), bpe(initial_alphabet=alphabet), pre_tokenizer=byte_level, decoder=decoders.ByteLevel()
            )
        case "byte-level BPE, NFC":
            return trained(
                models.BPE(), bpe(initial_alphabet=alphabet), normalizer=normalizers.NFC(), pre_tokenizer=byte_level,
                decoder=decoders.ByteLevel(), post_processor=processors.ByteLevel(trim_offsets=True),
            )  # fmt: skip
        case "byte-level BPE, prefix, trimmed":
            return trained(
                models.BPE(), bpe(initial_alphabet=alphabet),
                pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True),
                decoder=decoders.ByteLevel(), post_processor=processors.ByteLevel(trim_offsets=True),
                mask=tokenizers.AddedToken("<mask>", lstrip=True, special=True),
            )  # fmt: skip
        case "Llama 3 BPE":
            split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated")
            pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            return trained(
                models.BPE(), bpe(initial_alphabet=alphabet),
                pre_tokenizer=pre_tokenizers.Sequence([split, pieces]), decoder=decoders.ByteLevel(),
                post_processor=processors.ByteLevel(trim_offsets=False),
            )  # fmt: skip
        case "digits and metaspace BPE":
            plain = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
            steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation(), metaspace]
            return trained(
                models.BPE(unk_token="<unk>", byte_fallback=True), bpe(),
                normalizer=normalizers.Sequence(plain),
                pre_tokenizer=pre_tokenizers.Sequence(steps), decoder=underscore,
            )  # fmt: skip
        case "metaspace BPE":
            return trained(
                models.BPE(unk_token="<unk>", fuse_unk=True), bpe(), pre_tokenizer=metaspace, decoder=underscore
            )
        case "Llama BPE":
            return trained(
                models.BPE(unk_token="<unk>", fuse_unk=True), bpe(max_token_length=9), normalizer=llama,
                decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
            )  # fmt: skip
        case "Unigram":
            return trained(
                models.Unigram(), unigram(),
                normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(spaces, " ")]),
                pre_tokenizer=metaspace, decoder=underscore,
                post_processor=processors.TemplateProcessing("<mask> $A <eos>", special_tokens=around),
            )  # fmt: skip
        case "Unigram, unsplit":
            return trained(
                models.Unigram(), unigram(), pre_tokenizer=pre_tokenizers.Metaspace(split=False), decoder=underscore
            )
        case "WordPiece":
            return trained(
                models.WordPiece(unk_token="<unk>"), wordpiece, normalizer=normalizers.BertNormalizer(),
                pre_tokenizer=pre_tokenizers.BertPreTokenizer(), decoder=decoders.WordPiece(),
                post_processor=processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3)),
            )  # fmt: skip
        case "WordLevel":
            trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
            return trained(models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizer=pre_tokenizers.Whitespace())
        case "mask takes space behind":
            return trained(
                models.BPE(), bpe(initial_alphabet=alphabet), pre_tokenizer=byte_level, decoder=decoders.ByteLevel(),
                mask=tokenizers.AddedToken("<mask>", rstrip=True, special=True),
            )  # fmt: skip
    raise AssertionError(kind)


KINDS = [
    "byte-level BPE",
    "byte-level BPE, NFC",
    "byte-level BPE, prefix, trimmed",
    "Llama 3 BPE",
    "digits and metaspace BPE",
    "metaspace BPE",
    "Llama BPE",
    "Unigram",
    "Unigram, unsplit",
    "WordPiece",
    "WordLevel",
    "mask takes space behind",
]


def assert_encodes(g: Grammar, kind: str, n: int, **kwargs) -> None:
    """Every row of tokens is the Hugging Face encoding of its text, and every span the one of `Tokenizer.encode`."""
    ours = vg.Tokenizer(tokenizer(kind))
    special = kwargs.pop("special_tokens", False)
    texts = g.sample(n, **kwargs)
    tokens = g.sample(n, tokenizer=ours, special_tokens=special, **kwargs)
    encodings = tokenizer(kind).encode_batch_fast(texts.texts, add_special_tokens=special)
    expected = [encoding.ids for encoding in encodings]
    found = tokens.to_lists()
    wrong = [i for i, row in enumerate(expected) if row != found[i]]
    assert not wrong, (kind, texts.texts[wrong[0]], expected[wrong[0]], found[wrong[0]])
    assert np.array_equal(tokens.ids, texts.ids)
    assert tokens.rows.keys() == texts.rows.keys()
    assert all(np.array_equal(tokens.rows[name], texts.rows[name]) for name in texts.rows)
    assert tokens.tokenizer == ours
    if texts.spans is None:
        assert tokens.spans is None
        return
    spans = ours.encode(texts, special_tokens=special).spans
    for name in ("row", "start", "end", "tag"):
        assert np.array_equal(getattr(tokens.spans, name), getattr(spans, name)), (kind, name)


@pytest.mark.parametrize("kind", ["byte-level BPE", "Unigram", "WordPiece"])
def test_tokens_are_those_of_the_texts_over_many_expansions(kind):
    g = Grammar(NASTY.replace("<q>", "").replace("</q>", "").replace("<v>", "").replace("</v>", ""))
    assert_encodes(g, kind, 100_000, seed=7)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_spans_are_those_of_the_texts(kind):
    assert_encodes(Grammar(NASTY), kind, 3000, seed=8)
    assert_encodes(Grammar.from_file(ROOT / "examples/grammars/arithmetic.grammar"), kind, 2000, seed=9)
    assert_encodes(Grammar(NASTY), kind, 300, seed=10, law="uniform", replace=False, shard=(2, 5))


@pytest.mark.parametrize("kind", ["byte-level BPE", "Unigram", "WordPiece"])
def test_tokens_may_have_those_of_the_post_processor(kind):
    assert_encodes(Grammar(NASTY), kind, 500, seed=8, special_tokens=True)


PIECES = [
    " ", "  ", "a", " a", "a ", "b.", " b", "\\n", "\\t", "é", " é", "é ", "日", " 日", "'s", "'", "12", " 1", ".",
    ". ", "<eos>", " <mask>", "<mask> ", "ﬁ", "e\u0301", " \u0301", "\u00a0", "▁", "▁a", "a b", "ab c d", "x y ",
    "΄", "Ω ω",
]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3), st.integers(0, 3)), min_size=1, max_size=4
    ),
)
def test_any_seam_is_exact(kind, parts):
    rules, items = [], []
    for i, (texts, form) in enumerate(parts):
        escaped = [text.replace(" ", "\\ ").replace("<", "\\<") for text in texts]
        rules.append(f"r{i} = " + " | ".join(escaped))
        items.append(["{r%d}", "<t>{r%d}</t>", "({r%d})?", "{n%d=int 8..11}"][form] % i)
    assert_encodes(Grammar("x = " + "".join(items) + "\n" + "\n".join(rules)), kind, 60, seed=3)


def test_threads_and_earlier_samples_change_no_token():
    g, tok = Grammar(NASTY), vg.Tokenizer(tokenizer("byte-level BPE"))
    whole = g.sample(20_001, seed=9, tokenizer=tok)
    threads = vg.get_num_threads()
    try:
        for n in (1, 3):
            vg.set_num_threads(n)
            assert g.sample(20_001, seed=9, tokenizer=tok).equals(whole)
            assert Grammar(NASTY).sample(20_001, seed=9, tokenizer=tok).equals(whole)
    finally:
        vg.set_num_threads(threads)
    g.sample(100, seed=1, tokenizer=vg.Tokenizer(tokenizer("WordPiece")))
    assert g.sample(100, seed=9, tokenizer=tok).equals(whole[:100])


def test_more_parts_than_are_remembered():
    g = Grammar("x = {a=int 0..9999999} and {b=int 0..9999999}, <t>{=a+b}</t> {a}")
    assert_encodes(g, "byte-level BPE", 120_000, seed=3)
    g.sample(60_000, seed=4, tokenizer=vg.Tokenizer(tokenizer("WordPiece")))
    assert_encodes(g, "WordPiece", 2_000, seed=5)


def test_distinct_keeps_the_first_row_of_each_text():
    g = Grammar("x = {a=int 1..3} <t>{w=choice p, q}</t>| 1 p | 2 q :: 3")
    whole = g.sample(400, seed=3)
    first = {text: i for i, text in reversed(list(enumerate(whole.texts)))}
    kept = sorted(first.values())
    found = g.sample(400, seed=3, distinct=True)
    assert found.equals(whole.take(np.array(kept)))
    assert len(found) == 6
    part = g.sample(100, seed=3, shard=(1, 4), distinct=True)
    assert part.texts == list(dict.fromkeys(whole.texts[1::4]))
    tok = vg.Tokenizer(tokenizer("WordPiece"))
    assert g.sample(400, seed=3, distinct=True, tokenizer=tok).equals(
        g.sample(400, seed=3, tokenizer=tok).take(np.array(kept))
    )
    same = Grammar("x = Ab | ab").sample(50, seed=1, distinct=True, tokenizer=tok)
    assert len(same) == 2
    assert len(g.sample(0, seed=3, distinct=True)) == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tokenizer": "gpt2"}, "tokenizer must be a variegate.Tokenizer, not str"),
        ({"special_tokens": True}, "special_tokens=True needs a tokenizer"),
    ],
)
def test_bad_tokenizers_are_refused(kwargs, message):
    with pytest.raises(InvalidInput) as caught:
        Grammar("x = a").sample(1, seed=0, **kwargs)
    assert str(caught.value) == message


def test_a_text_that_the_model_cannot_encode_is_named():
    tok = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InvalidInput, match=r'cannot encode "a c": .* \(draw \d\)'):
        Grammar("x = a c | a c").sample(3, seed=0, tokenizer=vg.Tokenizer(tok))
