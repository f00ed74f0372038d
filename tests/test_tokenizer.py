"""Tokenizers against Hugging Face's own library: ids, offsets, decoding; then engines, threads, forks and refusals."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import sysconfig
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples
from variegate import _gigatoken
from variegate._messages import SEGMENTS
from variegate.errors import InvalidInput, MissingExtra
from variegate.tokenizer import Tokenizer

hf = pytest.importorskip("tokenizers")
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def library(pattern: str = "*.py", size: int = 4000) -> list[str]:
    """The first characters of files of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    return [path.read_text(encoding="utf-8")[:size] for path in sorted(root.glob(pattern))]


SAMPLE = library("*.py") + library("json/*.py") + library("encodings/[a-k]*.py", 1500)
TRAINING = [*SAMPLE[::3], "naïve café 日本語 😀 " * 20]


def byte_level(*, trim: bool, prefix: bool) -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    if trim:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=prefix)
    return tokenizer


def llama3() -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(hf.Regex(LLAMA3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    begin = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), begin])
    return tokenizer


def llama2() -> hf.Tokenizer:
    """BPE over ▁-marked text, with bytes to fall back on."""
    tokenizer = hf.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1100, special_tokens=special + fallback, limit_alphabet=90, show_progress=False
    )
    tokenizer.train_from_iterator([line for text in TRAINING for line in text.splitlines()], trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    content["model"]["byte_fallback"] = True
    return hf.Tokenizer.from_str(json.dumps(content))


def t5() -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING[::4], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def bert() -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


MODELS = {
    "byte_level": lambda: byte_level(trim=False, prefix=False),
    "byte_level_trimmed": lambda: byte_level(trim=True, prefix=True),
    "llama3": llama3,
    "llama2": llama2,
    "t5": t5,
    "bert": bert,
}
_MADE: dict[str, tuple[hf.Tokenizer, Tokenizer]] = {}


def pair(name: str) -> tuple[hf.Tokenizer, Tokenizer]:
    """Hugging Face's tokenizer and ours around it."""
    if name not in _MADE:
        theirs = hf.Tokenizer.from_str(MODELS[name]().to_str())  # a Unigram's scores are rounded on the way
        _MADE[name] = theirs, Tokenizer(theirs)
    return _MADE[name]


def their_ids(theirs: hf.Tokenizer, texts: list[str], special: bool) -> list[list[int]]:
    return [theirs.encode(text, add_special_tokens=special).ids for text in texts]


def their_offsets(theirs: hf.Tokenizer, text: str, special: bool) -> list[tuple[int, int]]:
    """Hugging Face's offsets count characters; these count bytes."""
    at = np.cumsum([0, *(len(c.encode()) for c in text)])
    return [(int(at[s]), int(at[e])) for s, e in theirs.encode(text, add_special_tokens=special).offsets]


HARD = st.sampled_from(
    [
        "<|endoftext|>",
        "<s>",
        "</s>",
        "[CLS]",
        "<0x0A>",
        "▁",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "é",
        "e\u0301",
        "😀",
        "日",
        "\x00",
        "'s",
        "123",
        "the",
    ]
)
TEXT = st.lists(HARD | st.text(max_size=12), max_size=8).map("".join)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_the_reference_on_the_library(name: str, special: bool) -> None:
    theirs, ours = pair(name)
    batch = ours.encode(SAMPLE, special_tokens=special)
    assert batch.to_lists() == their_ids(theirs, SAMPLE, special)
    assert batch.tokenizer is ours


@pytest.mark.parametrize("name", MODELS)
@examples(60)
@given(texts=st.lists(TEXT, max_size=4), special=st.booleans())
def test_ids_offsets_and_text_are_those_of_the_reference(name: str, texts: list[str], special: bool) -> None:
    theirs, ours = pair(name)
    batch = ours.encode(texts, special_tokens=special, return_offsets=True)
    assert batch.to_lists() == their_ids(theirs, texts, special)
    expected = [place for text in texts for place in their_offsets(theirs, text, special)]
    assert list(zip(batch.columns["start"].tolist(), batch.columns["end"].tolist(), strict=True)) == expected
    assert batch.columns["start"].dtype == np.int64
    for skip in (False, True):
        decoded = ours.decode(batch, skip_special_tokens=skip).texts
        assert decoded == [theirs.decode(row, skip_special_tokens=skip) for row in batch.to_lists()]


@pytest.mark.parametrize("name", MODELS)
@examples(60)
@given(texts=st.lists(TEXT, max_size=4))
def test_the_fast_engine_gives_the_ids_of_the_reference(name: str, texts: list[str]) -> None:
    """Straight through the engine, as `encode` leaves small batches to the reference."""
    _, ours = pair(name)
    if ours._fast is None:
        return
    batch = vg.TextBatch.from_texts(texts)
    tokens, offsets = ours._fast.encode(batch.data, batch.offsets)
    right, right_at = ours._hf.encode(batch.data, batch.offsets, False)
    np.testing.assert_array_equal(tokens, right)
    np.testing.assert_array_equal(offsets, right_at)
    assert (tokens.dtype, offsets.dtype) == (np.uint32, np.int64)


@pytest.mark.parametrize("name", MODELS)
def test_offsets_lie_on_characters_of_the_library(name: str) -> None:
    theirs, ours = pair(name)
    start, end = ours.offsets(SAMPLE[:40])
    expected = [place for text in SAMPLE[:40] for place in their_offsets(theirs, text, False)]
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == expected
    again = ours.offsets(SAMPLE[:40], ours.encode(SAMPLE[:40]))
    assert np.array_equal(again[0], start)
    assert np.array_equal(again[1], end)


def test_byte_level_text_survives() -> None:
    for tokenizer in (pair("byte_level")[1], pair("llama3")[1], Tokenizer.default()):
        batch = tokenizer.encode(SAMPLE)
        assert tokenizer.decode(batch).texts == SAMPLE
        table = tokenizer.token_bytes
        assert b"".join(table[t] for t in batch[0].tokens) == SAMPLE[0].encode()


def test_token_bytes_are_what_a_token_adds() -> None:
    for name, token, added in [
        ("byte_level", "Ġ", b" "),
        ("llama2", "<0x0A>", b"\n"),
        ("llama2", "▁", b" "),
        ("t5", "▁", b" "),
        ("bert", "##e", b"e"),
        ("bert", "e", b" e"),
    ]:
        ours = pair(name)[1]
        token_id = ours.token_to_id(token)
        assert token_id is not None
        assert ours.token_bytes[token_id] == added
        assert ours.id_to_token(token_id) == token
    assert pair("bert")[1].id_to_token(-1) is None
    assert pair("bert")[1].id_to_token(10**6) is None
    assert pair("bert")[1].token_to_id("no such token") is None


def test_whole_characters_are_those_that_decode_alone() -> None:
    ours = Tokenizer.default()
    for whole, raw in zip(ours.whole_characters.tolist(), ours.token_bytes, strict=True):
        assert whole == (raw.decode(errors="replace").encode() == raw)
    with pytest.raises(ValueError, match="read-only"):
        ours.whole_characters[0] = 0


def test_ids_rows_and_spans_are_carried() -> None:
    texts = vg.TextBatch.from_texts(
        ["ab cd ef", "naïve é"],
        ids=[7, 9],
        rows={"kind": [1, 2]},
        spans=[(0, 3, 5, "x"), (0, 3, 3, "none"), (1, 2, 4, "ï")],
    )
    ours = Tokenizer.default()
    batch = ours.encode(texts, return_offsets=True)
    assert batch.ids.tolist() == [7, 9]
    assert batch.rows["kind"].tolist() == [1, 2]
    assert ours.encode(texts, ids=[1, 2]).ids.tolist() == [1, 2]
    assert ours.encode(["a"]).ids.tolist() == vg.TextBatch.from_texts(["a"]).ids.tolist()
    spans = batch.spans
    assert spans is not None
    for row, start, end, tag in spans.to_list():
        tokens = batch[row].tokens[start:end].tolist()
        text = b"".join(ours.token_bytes[t] for t in tokens).decode()
        assert {"x": "cd" in text and len(text) <= 3, "none": text == "", "ï": "ï" in text}[tag]
    back = ours.decode(batch)
    assert back.texts == texts.texts
    assert back.ids.tolist() == [7, 9]
    begun = pair("llama3")[1]
    plain, special = begun.encode(texts).spans, begun.encode(texts, special_tokens=True).spans
    assert plain is not None
    assert special is not None
    assert (special.start - plain.start).tolist() == [1, 1, 1]
    assert (special.end - plain.end).tolist() == [1, 1, 1]


def test_sources_are_files_directories_and_objects(tmp_path: Path) -> None:
    theirs, ours = pair("byte_level")
    theirs.save(str(tmp_path / "tokenizer.json"))
    for source in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path), theirs):
        assert Tokenizer(source) == ours
        assert hash(Tokenizer(source)) == hash(ours)
    transformers = pytest.importorskip("transformers")
    wrapped = Tokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=theirs))
    assert wrapped.encode(SAMPLE).to_lists() == ours.encode(SAMPLE).to_lists()
    assert ours != Tokenizer.default()
    assert ours != "ours"


def test_saving_writes_what_the_fingerprint_names(tmp_path: Path) -> None:
    ours = Tokenizer.default()
    assert ours.save(tmp_path) == tmp_path / "tokenizer.json"
    path = ours.save(tmp_path / "mine.json")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == ours.fingerprint
    assert Tokenizer(path) == ours
    assert sorted(os.listdir(tmp_path)) == ["mine.json", "tokenizer.json"]


def test_truncation_and_padding_of_a_file_are_left_out() -> None:
    theirs, ours = pair("byte_level")
    cut = hf.Tokenizer.from_str(theirs.to_str())
    cut.enable_truncation(2)
    cut.enable_padding(length=50)
    assert Tokenizer(cut) == ours
    assert Tokenizer(cut).encode(SAMPLE[:3]).equals(ours.encode(SAMPLE[:3]))


def test_the_default_tokenizer_is_what_its_documentation_says() -> None:
    ours = Tokenizer.default()
    names = ["endoftext", "pad", "mask", "im_start", "im_end", "fim_prefix", "fim_middle", "fim_suffix"]
    special = [f"<|{name}|>" for name in names] + [f"<extra_id_{i}>" for i in range(100)]
    assert ours.vocab_size == 8192
    assert [ours.token_to_id(token) for token in special] == list(range(108))
    assert ours.special_ids.tolist() == list(range(108))
    assert Tokenizer.default() is ours
    assert ours.fingerprint == "e43a0bd28f8f2de1e54626ba37bf0a92ec8ba24c029b65f8c8f3f6be7d0cc8d9"
    texts = library()
    assert sum(map(len, texts)) / len(ours.encode(texts).tokens) > 3.3


def test_training_depends_on_the_texts_alone() -> None:
    first = Tokenizer.train(TRAINING, 500, special_tokens=["<a>", "<b>"])
    assert first == Tokenizer.train(TRAINING[::-1], 500, special_tokens=["<a>", "<b>"])
    assert first.vocab_size == 500
    assert (first.token_to_id("<b>"), first.token_to_id("!")) == (1, 2)
    theirs = hf.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<a>", "<b>"], initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(TRAINING, trainer)
    assert first.encode(SAMPLE).to_lists() == their_ids(theirs, SAMPLE, False)


def test_engines_are_chosen_by_what_they_give() -> None:
    pytest.importorskip("gigatoken")
    version = _gigatoken.version()
    ours = pair("byte_level")[1]
    assert ours.engine == "gigatoken"
    assert ours.engine_reason == f"gigatoken {version} gives the ids of tokenizers on all sample texts"
    assert pair("llama3")[1].engine == "gigatoken"
    slow = Tokenizer(pair("byte_level")[0], engine="tokenizers")
    assert (slow.engine, slow.engine_reason) == ("tokenizers", "engine='tokenizers' was asked for")
    assert Tokenizer(pair("byte_level")[0], engine="gigatoken").engine == "gigatoken"
    for name in ("t5", "bert"):
        assert pair(name)[1].engine == "tokenizers"
        assert pair(name)[1].engine_reason.startswith(f"gigatoken {version} does not take this tokenizer: ")
        with pytest.raises(InvalidInput, match=r"^engine='gigatoken' does not fit this tokenizer: gigatoken "):
            Tokenizer(pair(name)[0], engine="gigatoken")


def test_an_engine_that_gives_other_ids_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    right = _gigatoken.Gigatoken.encode

    def wrong(self, data, offsets):
        tokens, at = right(self, data, offsets)
        tokens = tokens.copy()
        tokens[-1] ^= 1
        return tokens, at

    monkeypatch.setattr(_gigatoken.Gigatoken, "encode", wrong)
    ours = Tokenizer(pair("byte_level")[0])
    assert ours.engine == "tokenizers"
    assert ours.engine_reason.startswith(f"gigatoken {_gigatoken.version()} and tokenizers give different ids for '")
    assert ours.encode(SAMPLE[:5]).to_lists() == their_ids(pair("byte_level")[0], SAMPLE[:5], False)


def test_without_gigatoken_the_reference_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    ours = Tokenizer(pair("byte_level")[0])
    assert ours.engine == "tokenizers"
    assert ours.engine_reason == "gigatoken is not installed: pip install 'variegate[fast]'"
    with pytest.raises(MissingExtra) as error:
        Tokenizer(pair("byte_level")[0], engine="gigatoken")
    assert str(error.value) == "variegate.Tokenizer(engine='gigatoken') needs gigatoken: pip install 'variegate[fast]'"


@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
def test_threads_and_cuts_change_nothing(engine: str) -> None:
    ours = Tokenizer(pair("llama3")[0], engine=engine)
    texts = vg.TextBatch.from_texts(["", "long é " * 200_000, "", *SAMPLE, "x"])
    try:
        vg.set_num_threads(1)
        whole = ours.encode(texts, return_offsets=True)
        back = ours.decode(whole)
        vg.set_num_threads(3)
        assert ours.encode(texts, return_offsets=True).equals(whole)
        assert ours.decode(whole).equals(back)
    finally:
        vg.set_num_threads(0)
    parts = [ours.encode(texts[i : i + 50], return_offsets=True) for i in range(0, len(texts), 50)]
    assert vg.TokenBatch.concat(parts).equals(whole)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
def test_children_encode_after_the_parent_has(start: str, engine: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    ours = Tokenizer(pair("byte_level")[0], engine=engine)
    try:
        vg.set_num_threads(2)
        Tokenizer.train(TRAINING, 300)
        expected = ours.encode(SAMPLE * 2).tokens
        with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as child:
            batch = child.submit(ours.encode, SAMPLE * 2).result(timeout=60)
            chosen = child.submit(getattr, ours, "engine").result(timeout=60)
    finally:
        vg.set_num_threads(0)
    assert np.array_equal(batch.tokens, expected)
    assert batch.tokenizer == ours
    assert chosen == ours.engine


def test_a_pickle_is_the_tokenizer() -> None:
    ours = pair("t5")[1]
    again = pickle.loads(pickle.dumps(ours))
    assert again == ours
    assert again.encode(SAMPLE[:3]).equals(ours.encode(SAMPLE[:3]))
    assert pickle.loads(pickle.dumps(ours)) is again
    default = pickle.dumps(Tokenizer.default())
    assert pickle.loads(default) is Tokenizer.default()
    assert len(default) < 200


def test_repr_shows_size_and_fingerprint() -> None:
    ours = Tokenizer(pair("byte_level")[0], engine="tokenizers")
    assert repr(ours) == f"Tokenizer(vocab_size=900, fingerprint='{ours.fingerprint[:12]}', engine='tokenizers')"


def test_arrow_strings_come_in() -> None:
    pa = pytest.importorskip("pyarrow")
    ours = Tokenizer.default()
    expected = ours.encode(["ab", "", "é"])
    for kind in (pa.string(), pa.large_string()):
        assert ours.encode(pa.array(["ab", "", "é"], kind)).equals(expected)
        assert ours.encode(pa.chunked_array([["ab", ""], ["é"]], kind)).equals(expected)
    assert vg.TokenBatch.from_texts(["ab", "", "é"], ours).equals(expected)
    assert len(ours.encode([])) == 0


def test_importing_the_tokenizer_loads_nothing_heavy() -> None:
    heavy = {"awkward", "gigatoken", "pyarrow", "tokenizers", "torch"}
    code = f"import sys, variegate.tokenizer; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def refuse(make) -> str:
    with pytest.raises(InvalidInput) as error:
        make()
    return str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    assert (
        refuse(lambda: Tokenizer(file)) == f"{file}: no such file; pass a tokenizer.json or a directory that holds one"
    )
    assert refuse(lambda: Tokenizer(tmp_path)) == f"{tmp_path}: the directory holds no tokenizer.json"
    file.write_text("")
    assert (
        refuse(lambda: Tokenizer(file)) == f"{file}: not a tokenizer.json: EOF while parsing a value at line 1 column 0"
    )
    file.write_text('{"version": "1.0",\n "model": }')
    assert refuse(lambda: Tokenizer(file)) == f"{file}: not a tokenizer.json: expected value at line 2 column 11"
    file.write_bytes(b'{"version": "\xff"}')
    assert refuse(lambda: Tokenizer(file)) == f"{file}: not a tokenizer.json: not UTF-8 (byte 13)"
    file.write_text('{"version": "9.9"}')
    assert (
        refuse(lambda: Tokenizer(file))
        == f"{file}: not a tokenizer.json: Unknown tokenizer version '9.9' at line 1 column 18"
    )
    file.write_text(pair("byte_level")[0].to_str().replace('"dropout":null', '"dropout":0.25'))
    assert refuse(lambda: Tokenizer(tmp_path)) == (
        f"{file}: the tokenizer drops BPE merges at random, so no two encodings agree: "
        "set model.dropout to null (it is 0.25)"
    )
    assert refuse(lambda: Tokenizer(3)) == (
        "source must be a path, a tokenizers.Tokenizer or a fast tokenizer of transformers, not int"
    )
    assert refuse(lambda: Tokenizer(pair("bert")[0], engine="fast")) == (
        "engine must be 'auto', 'gigatoken' or 'tokenizers', not 'fast'"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    file = Tokenizer.default().save(tmp_path)
    file.chmod(0)
    assert refuse(lambda: Tokenizer(file)) == f"{file}: cannot be read: Permission denied"


def test_bad_texts_and_tokens_are_named() -> None:
    ours = Tokenizer.default()
    assert refuse(lambda: ours.encode(["a", "b\ud800"])) == (
        "texts must be valid Unicode (row 1 has a lone surrogate): encode it with errors='replace'"
    )
    assert refuse(lambda: ours.encode(["a", 3])) == "texts must be str (row 1 is int)"
    assert refuse(lambda: ours.encode("a")) == "texts must be a sequence of str, not one str: pass [text]"
    assert refuse(lambda: ours.decode(vg.TokenBatch.from_lists([[1], [2, 9000]]))) == (
        "row 1: token 9000 at position 1 is not in the vocabulary (size 8192)"
    )
    assert refuse(lambda: ours.offsets(["ab"], vg.TokenBatch.from_lists([[5]]))) == (
        "row 0: the tokens are not the encoding of its text"
    )
    assert refuse(lambda: ours.offsets(["ab"], vg.TokenBatch.from_lists([]))) == (
        "texts and tokens must have the same number of rows (1 != 0)"
    )
    assert refuse(lambda: Tokenizer.train(["a"], 256)) == (
        "vocab_size must be at least 257, for 256 bytes and 1 special tokens (it is 256)"
    )
    assert refuse(lambda: Tokenizer.train(["a"], 300, special_tokens=["<s>", "<s>"])) == (
        "special_tokens must differ ('<s>' is there twice)"
    )


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "naïve?\n"},
    {"role": "assistant", "content": " Yes é. "},
]


@pytest.mark.parametrize("name", ["default", "llama3", "llama2"])
def test_messages_are_one_text_with_segments_and_a_loss_mask(name: str) -> None:
    ours = Tokenizer.default() if name == "default" else pair(name)[1]
    batch = vg.TokenBatch.from_messages([CHAT, [], CHAT[1:]], ours, ids=[1, 2, 3])
    texts = [
        "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat) for chat in (CHAT, [], CHAT[1:])
    ]
    assert batch.to_lists() == ours.encode(texts).to_lists()
    assert batch.ids.tolist() == [1, 2, 3]
    assert sorted(batch.columns) == ["loss_mask", "segment"]
    segment, mask = batch[0].columns["segment"], batch[0].columns["loss_mask"]
    assert (segment.dtype, mask.dtype) == (np.uint8, np.uint8)
    assert np.unique(segment).tolist() == [1, 2, 3]
    assert (np.diff(segment.astype(int)) >= 0).all()
    assert set(segment[mask == 1].tolist()) == {SEGMENTS["assistant"]}
    if name == "default":
        learned = b"".join(ours.token_bytes[t] for t in batch[0].tokens[mask == 1])
        assert learned.decode() == " Yes é. <|im_end|>"
        turn = b"".join(ours.token_bytes[t] for t in batch[0].tokens[segment == 2])
        assert turn.decode() == "<|im_start|>user\nnaïve?\n<|im_end|>\n"


def test_templates_may_be_ones_own() -> None:
    ours = Tokenizer.default()
    template = {"judge": ("[J]", "[/J]"), "assistant": ("[A]", " [/A] "), "critic": ("[C]", "")}
    chat = [{"role": r, "content": "x"} for r in ("critic", "assistant", "judge")]
    batch = vg.TokenBatch.from_messages([chat], ours, template=template)
    assert ours.decode(batch).texts == ["[C]x[A]x [/A] [J]x[/J]"]
    assert sorted(set(batch.columns["segment"].tolist())) == [3, 6, 7]
    learned = batch.tokens[batch.columns["loss_mask"] == 1]
    assert b"".join(ours.token_bytes[t] for t in learned).startswith(b"x [/A]")


def test_bad_messages_are_named() -> None:
    def make(*messages, **options):
        return lambda: vg.TokenBatch.from_messages([CHAT, list(messages)], Tokenizer.default(), **options)

    assert refuse(make({"role": "user"})) == (
        "conversation 1, message 0 must be a mapping with 'role' and 'content' (it has ['role'])"
    )
    assert refuse(make("hello")) == "conversation 1, message 0 must be a mapping with 'role' and 'content' (it is str)"
    assert refuse(make(CHAT[0], {"role": "user", "content": None})) == (
        "conversation 1, message 1: 'content' must be str, not NoneType"
    )
    assert refuse(make({"role": "bot", "content": ""}, template={"user": ("", ""), "system": ("", "")})) == (
        "conversation 0, message 2: the template has no role 'assistant', only ['user', 'system']"
    )
    assert refuse(make(template="alpaca")) == (
        "template must be a mapping of role to (before, after) or one of ['chatml'], not 'alpaca'"
    )
