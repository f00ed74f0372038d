"""Texts and tokens from a template, numbers drawn and answers computed: against what people use, one thread."""

from __future__ import annotations

import functools
import importlib
import random
import re
from decimal import Decimal

import jinja2
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from variegate import Tokenizer
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


SPECIAL = ["<unk>", "<eos>"]


@functools.cache
def tokenizer(kind: str) -> tokenizers.Tokenizer:
    """A tokenizer of a kind, trained on texts of the grammar."""
    bpe = functools.partial(trainers.BpeTrainer, vocab_size=1000, special_tokens=SPECIAL, show_progress=False)
    match kind:
        case "byte-level BPE":
            tok, trainer = tokenizers.Tokenizer(models.BPE()), bpe(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
            tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        case "metaspace BPE":
            tok, trainer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>")), bpe()
            tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        case "Unigram":
            tok = tokenizers.Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(
                vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
            )
            tok.normalizer, tok.pre_tokenizer, tok.decoder = (
                normalizers.NFKC(),
                pre_tokenizers.Metaspace(),
                decoders.Metaspace(),
            )
        case _:
            tok = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
            trainer = trainers.WordPieceTrainer(vocab_size=1000, special_tokens=SPECIAL, show_progress=False)
            tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
            tok.decoder = decoders.WordPiece()
    tok.train_from_iterator(GRAMMAR.sample(2000, seed=1).texts, trainer)
    return tok


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


TASK = Grammar("""
task  = ({intro} )?{a=int 2..99}, {b=int 2..99}: {ask} <answer>{=a+b}</answer>
ask   = what is {a} plus {b}? :: 3 | add {b} to {a}.
intro = {name} has two {thing[num=pl]}. | Now you.
name  = Anna | Ben
thing = apple | mouse[pl=mice]
""")
TASK_SHAPE = re.compile(
    r"((Anna|Ben) has two (apples|mice|mouses)\. |Now you\. )?"
    r"(\d+), (\d+): (what is \4 plus \5\?|add \5 to \4\.)( (\d+))?"
)
TASK_IN_TRACERY = {
    "task": ["#[a:#number#][b:#number#]said#"],
    "said": ["#intro# #a#, #b#: #ask#", "#a#, #b#: #ask#"],
    "ask": ["what is #a# plus #b#?"] * 3 + ["add #b# to #a#."],
    "intro": ["#name# has two #thing.s#.", "Now you."],
    "name": ["Anna", "Ben"],
    "thing": ["apple", "mouse"],
    "number": NUMBERS,
}


def rightly_asked(texts: list[str], *, answered: bool) -> bool:
    """Whether every text is one of the task, with its answer or without."""
    found = [TASK_SHAPE.fullmatch(text) for text in texts]
    return all(m and (int(m[8]) == int(m[4]) + int(m[5]) if answered else m[8] is None) for m in found)


def bench_sample_over_tracery(compare):
    tracery = pytest.importorskip("tracery")
    peer = tracery.Grammar(TASK_IN_TRACERY)
    peer.add_modifiers(importlib.import_module("tracery.modifiers").base_english)
    compare(
        "templates, sample with rules, over tracery",
        lambda: TASK.sample(PEER_ROWS, seed=3),
        lambda: [peer.flatten("#task#") for _ in range(PEER_ROWS)],
        check=lambda ours, theirs: rightly_asked(ours.texts, answered=True) and rightly_asked(theirs, answered=False),
        units=PEER_ROWS,
        unit="strings",
        peer_name="tracery",
        peer_package="tracery",
        goal_rate=2e6,
        goal_ratio=500,
        note="five rules, an optional part, a plural; the peer leaves out the answer, which it cannot compute",
    )


def bench_sample_of_one_sentence_over_tracery(compare):
    tracery = pytest.importorskip("tracery")
    peer = tracery.Grammar({"task": "what is #a# plus #b#? ", "a": NUMBERS, "b": NUMBERS})
    compare(
        "templates, sample of one sentence, over tracery",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3),
        lambda: [peer.flatten("#task#") for _ in range(PEER_ROWS)],
        check=lambda ours, theirs: right(ours.texts) and all(SHAPE.fullmatch(text + "0") for text in theirs),
        units=PEER_ROWS,
        unit="strings",
        peer_name="tracery",
        peer_package="tracery",
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


@pytest.mark.parametrize("kind", ["byte-level BPE", "metaspace BPE", "Unigram", "WordPiece"])
def bench_sample_tokens(compare, kind):
    theirs, ours = tokenizer(kind), Tokenizer(tokenizer(kind))
    texts = GRAMMAR.sample(PEER_ROWS, seed=3).texts
    compare(
        f"templates, sample(tokenizer=), {kind}",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3, tokenizer=ours),
        lambda: theirs.encode_batch_fast(texts, add_special_tokens=False),
        check=lambda tokens, encodings: tokens.to_lists() == [encoding.ids for encoding in encodings],
        units=PEER_ROWS,
        unit="expansions",
        peer_name="encode_batch_fast of the texts",
        peer_package="tokenizers",
        goal_rate=1e6,
        goal_ratio=5,
        note="ours also draws, and makes spans, bindings and ids; the peer is given its texts",
    )


def bench_sample_tokens_over_encode(compare):
    ours = Tokenizer(tokenizer("byte-level BPE"))
    texts = GRAMMAR.sample(PEER_ROWS, seed=3)
    compare(
        "templates, sample(tokenizer=), over Tokenizer.encode",
        lambda: GRAMMAR.sample(PEER_ROWS, seed=3, tokenizer=ours),
        lambda: ours.encode(texts),
        check=lambda tokens, encoded: tokens.equals(encoded),
        units=PEER_ROWS,
        unit="expansions",
        peer_name=f"Tokenizer.encode with spans, engine {ours.engine}",
        note="ours also draws; the peer is given a batch with spans",
    )


def bench_index_of(compare):
    texts = GRAMMAR.sample(200, seed=3).texts
    compare(
        "templates, index_of",
        lambda: [GRAMMAR.index_of(text) for text in texts],
        check=lambda ours, _: [GRAMMAR.nth(index).text for index in ours] == texts,
        units=200,
        unit="texts",
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
