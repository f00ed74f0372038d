"""Subword ops, word maps and text ops on tokens: text of the standard library, one thread, through Python.

Each case first checks its answer: the text stays to the byte, token counts are those of the peer's law, ids and
words are those of Hugging Face.
"""

from __future__ import annotations

import json
import math
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import variegate as vg
from _harness import Compare
from variegate import ops

tokenizers = pytest.importorskip("tokenizers")

SEED = 7


@pytest.fixture(scope="module")
def texts() -> vg.TextBatch:
    """The first characters of files of the standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return vg.TextBatch.from_texts([file.read_text(encoding="utf-8")[:6000] for file in files])


@pytest.fixture(scope="module")
def batch(texts: vg.TextBatch) -> vg.TokenBatch:
    return vg.Tokenizer.default().encode(texts)


def reference(tmp_path: Path, dropout: float | None = None) -> Any:
    content = json.loads(vg.Tokenizer.default().save(tmp_path).read_text(encoding="utf-8"))
    content["model"]["dropout"] = dropout
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize("start", ["tokens", "texts"])
def bench_bpe_dropout(compare: Compare, texts: vg.TextBatch, batch: vg.TokenBatch, tmp_path: Path, start: str):
    """The peer drops merges too, but nobody can say which: it cannot be seeded."""
    op = ops.BpeDropout(rate=0.1)
    theirs = reference(tmp_path, 0.1)
    documents = texts.texts
    tokenizer = vg.Tokenizer.default()

    def check(ours: vg.TokenBatch, encodings: list[Any]) -> bool:
        assert tokenizer.decode(ours).texts == documents
        lengths = [len(encoding.ids) for encoding in encodings]
        # The lengths of two draws of one document differ by chance; their sum over documents hardly.
        spread = math.sqrt(sum((a - b) ** 2 for a, b in zip(ours.lengths.tolist(), lengths, strict=True)))
        return abs(len(ours.tokens) - sum(lengths)) < 4 * spread and len(ours.tokens) > 1.02 * len(batch.tokens)

    compare(
        f"bpe_dropout from {start}",
        lambda: op(batch, seed=SEED) if start == "tokens" else op(texts, seed=SEED, tokenizer=tokenizer),
        lambda: theirs.encode_batch_fast(documents, add_special_tokens=False),
        check=check,
        units=len(op(batch, seed=SEED).tokens),
        peer_name="tokenizers with dropout, unseeded",
        peer_package="tokenizers",
        goal_rate=8e6 if start == "tokens" else None,
        note="rate 0.1, 8k byte-level BPE, tokens that come out",
    )


def bench_unigram_sample(compare: Compare, texts: vg.TextBatch, tmp_path: Path):
    """The peer samples from the same pieces; one thread of its own, and one document a call."""
    sentencepiece = pytest.importorskip("sentencepiece")
    documents = [" ".join(text.split()) for text in texts.texts]
    (tmp_path / "lines.txt").write_text("\n".join(document[:4000] for document in documents), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"),
        model_prefix=str(tmp_path / "unigram"),
        vocab_size=4000,
        normalization_rule_name="identity",
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        num_threads=1,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "unigram.model"))
    pieces = [(theirs.id_to_piece(i), theirs.get_score(i)) for i in range(theirs.get_piece_size())]
    model = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=False))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    tokenizer = vg.Tokenizer(model)
    batch = tokenizer.encode(documents, ids=np.arange(len(documents), dtype=np.uint64))
    op = ops.UnigramSample(alpha=0.5)

    def peer() -> list[list[int]]:
        return [theirs.encode(document, enable_sampling=True, alpha=0.5, nbest_size=-1) for document in documents]

    def check(ours: vg.TokenBatch, rows: list[list[int]]) -> bool:
        assert tokenizer.decode(ours).texts == tokenizer.decode(batch).texts
        lengths = [len(row) for row in rows]
        spread = math.sqrt(sum((a - b) ** 2 for a, b in zip(ours.lengths.tolist(), lengths, strict=True)))
        return abs(len(ours.tokens) - sum(lengths)) < 4 * spread and len(ours.tokens) > 1.02 * len(batch.tokens)

    compare(
        "unigram_sample",
        lambda: op(batch, seed=SEED),
        peer,
        check=check,
        units=len(op(batch, seed=SEED).tokens),
        peer_name="sentencepiece, nbest_size=-1",
        peer_package="sentencepiece",
        note="alpha 0.5, 4k pieces, tokens that come out",
    )


def bench_word_ids(compare: Compare, texts: vg.TextBatch, batch: vg.TokenBatch, tmp_path: Path):
    """The peer encodes, as its word ids come with the encoding."""
    theirs = reference(tmp_path)
    documents = texts.texts
    tokenizer = vg.Tokenizer.default()

    def check(ours: np.ndarray, encodings: list[Any]) -> bool:
        return ours.tolist() == [word for encoding in encodings for word in encoding.word_ids]

    compare(
        "word_ids",
        lambda: tokenizer.word_ids(batch),
        lambda: theirs.encode_batch(documents, add_special_tokens=False),
        check=check,
        units=len(batch.tokens),
        peer_name="Encoding.word_ids",
        peer_package="tokenizers",
        goal_rate=20e6,
    )


def bench_typos_on_tokens(compare: Compare, batch: vg.TokenBatch):
    """The peer is our own three steps: decode, edit, encode again. It has no source map and loses the columns."""
    op = ops.KeyboardTypo(rate=0.01)
    tokenizer = vg.Tokenizer.default()

    compare(
        "keyboard_typo on tokens",
        lambda: op(batch, seed=SEED, return_source=True),
        lambda: tokenizer.encode(op(tokenizer.decode(batch), seed=SEED)),
        check=lambda ours, theirs: np.array_equal(ours.tokens, theirs.tokens),
        units=len(batch.tokens),
        peer_name="decode, edit, encode",
        note="rate 0.01, with source map",
    )


def bench_fill_in_middle_at_characters(compare: Compare, texts: vg.TextBatch, batch: vg.TokenBatch, tmp_path: Path):
    """The peer does what the trainers of code models do: decode, cut the text, encode the three parts."""
    prefix, middle, suffix = (len(vg.Tokenizer.default().token_bytes) + k for k in range(3))
    op = ops.FillInMiddle(
        fim_rate=1.0, fim_spm_rate=0.0, prefix_id=prefix, middle_id=middle, suffix_id=suffix, level="character"
    )
    theirs = reference(tmp_path)
    lists = batch.to_lists()
    rng = np.random.default_rng(0)

    def peer() -> list[list[int]]:
        out = []
        for text in theirs.decode_batch(lists, skip_special_tokens=False):
            a, b = sorted(rng.integers(0, len(text) + 1, 2))
            parts = [text[:a], text[b:], text[a:b]]
            first, last, moved = (e.ids for e in theirs.encode_batch_fast(parts, add_special_tokens=False))
            out.append([prefix, *first, suffix, *last, middle, *moved])
        return out

    def check(ours: vg.TokenBatch, rows: list[list[int]]) -> bool:
        for row, text in zip(ours.to_lists(), texts.texts, strict=True):
            s, m = row.index(suffix), row.index(middle)
            parts = [row[1:s], row[m + 1 :], row[s + 1 : m]]
            pieces = theirs.decode_batch(parts, skip_special_tokens=False)
            encoded = theirs.encode_batch_fast(pieces, add_special_tokens=False)
            if "".join(pieces) != text or [encoding.ids for encoding in encoded] != parts:
                return False
        return abs(len(ours.tokens) / sum(map(len, rows)) - 1) < 0.01

    compare(
        "fill_in_middle character",
        lambda: op(batch, seed=SEED),
        peer,
        check=check,
        units=len(batch.tokens),
        peer_name="decode, cut, encode",
        peer_package="tokenizers",
        note="fim_rate 1, 8k byte-level BPE",
    )
