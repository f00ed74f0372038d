"""Back-translation: a real engine over real text, engines that die or lie, the cache under fire, the filter by hand."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import variegate as vg
from variegate.errors import EngineFailed, InvalidInput, MissingExtra
from variegate.paraphrase import (
    Apertium,
    BackTranslate,
    CTranslate2,
    RoundTrip,
    Transformers,
    TranslationCache,
)

HAS_APERTIUM = shutil.which("apertium") and Path("/usr/share/apertium/modes/eng-spa.mode").exists()
needs_apertium = pytest.mark.skipif(
    not HAS_APERTIUM, reason="Apertium is not installed: apt install apertium apertium-eng-spa"
)
PLAIN = re.compile(r"[A-Za-z0-9 ,.;:'()-]{40,160}")
EVERYTHING = RoundTrip(overlap=(0, 1), length=(0, 1e9), negations=(), numbers=False, untranslated=10**9)


def batch_of(texts: list[str]) -> vg.TextBatch:
    return vg.TextBatch.from_texts(texts, ids=np.arange(len(texts)) + 1)


def sentences(n: int) -> list[str]:
    """Sentences of Python's own documentation."""
    text = re.sub(r"\s+", " ", " ".join(topics[key] for key in sorted(topics)))
    found = [part for part in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if PLAIN.fullmatch(part)]
    return list(dict.fromkeys(found))[:n]


class Toy:
    """Words reversed on the way there and back again, but for `changes`; it counts what it is asked for."""

    def __init__(self, changes: dict[str, str] | None = None, dies_at: int | None = None) -> None:
        self.changes, self.dies_at = changes or {}, dies_at
        self.asked: list[str] = []

    def identity(self, source: str, target: str) -> str:
        return "toy 1"

    def translate(self, texts, source, target):
        if self.dies_at is not None and len(self.asked) >= self.dies_at:
            raise EngineFailed("the engine is gone")
        self.asked += texts
        back = [" ".join(word[::-1] for word in text.split(" ")) for text in texts]
        return back if target == "es" else [" ".join(self.changes.get(w, w) for w in text.split(" ")) for text in back]


# A real engine --------------------------------------------------------------------------------------------------------


@needs_apertium
def test_two_hundred_sentences_through_apertium_and_its_cache(tmp_path):
    batch = batch_of(sentences(200))
    assert len(batch) == 200
    back = BackTranslate(Apertium(), cache=tmp_path / "cache.sqlite", batch_size=64)
    told: list[tuple[int, int]] = []
    out = back(batch, progress=lambda done, of: told.append((done, of)))
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]
    stats = out.stats["BackTranslate"]
    assert stats["rows"] == 200
    assert stats["translated"] > 300
    assert stats["accepted"] + sum(stats["refused"].values()) == 200
    assert 100 <= len(out) == stats["accepted"] < 200
    assert "negation" in stats["refused"]

    class Forbidden(Apertium):
        def translate(self, texts, source, target):
            raise AssertionError("the second run must make no call")

    again = BackTranslate(Forbidden(), cache=tmp_path / "cache.sqlite")(batch)
    assert again.equals(out)
    assert again.stats["BackTranslate"] == {**stats, "translated": 0}

    sources = batch.texts
    for text, parent in zip(out.texts, out.rows["_parent"], strict=True):
        verdict = RoundTrip().judge(sources[parent], text)
        assert not verdict.reason
        assert text != sources[parent]
        assert "*" not in text
        assert "  " not in text
    assert (np.diff(out.rows["_parent"]) > 0).all()

    # Neither partition nor order matters.
    parts = [back(batch[:70]), back(batch[70:])]
    assert [text for part in parts for text in part.texts] == out.texts
    assert np.concatenate([part.ids for part in parts]).tolist() == out.ids.tolist()
    assert sorted(back(batch.take(np.arange(200)[::-1])).texts) == sorted(out.texts)


@needs_apertium
def test_apertium_translates_what_it_should():
    engine = Apertium()
    assert engine.translate(["The house is big.", "", "three dogs"], "en", "es") == [
        "La casa es grande.",
        "",
        "Tres perros",
    ]
    assert engine.translate(["La casa es grande."], "es", "en") == ["The house is big."]
    assert engine.translate(["the zzyzx"], "en", "es") == ["El *zzyzx"]
    assert engine.translate([], "en", "es") == []
    kept = " 3 [5] {2}\n\n\t^$ \\ / <7> @  # + ~ 🙂  "
    assert engine.translate([kept], "en", "es") == [kept]
    one = engine.identity("en", "es")
    assert one.startswith("Apertium 3.")
    assert one == Apertium(timeout=1.0).identity("en", "es") != engine.identity("es", "en")
    with pytest.raises(InvalidInput, match=r"BackTranslate: row 2, en to es: the text holds a NUL character"):
        BackTranslate(engine)(batch_of(["a", "b", "c\0d"]))
    assert pickle.loads(pickle.dumps(engine)) == engine


@needs_apertium
@settings(max_examples=4)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30), min_size=1, max_size=60))
def test_apertium_answers_each_text_by_itself(texts):
    out = Apertium().translate(texts, "en", "es")
    assert len(out) == len(texts)
    assert Apertium().translate([*texts[1:], texts[0]], "en", "es") == [*out[1:], out[0]]


def staged(folder: Path, script: str) -> str:
    """A folder of modes like Apertium's own, with a program of ours before each."""
    program = folder / "stage"
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    (folder / "modes").mkdir()
    for mode in ("eng-spa", "spa-eng"):
        pipeline = Path(f"/usr/share/apertium/modes/{mode}.mode").read_text()
        (folder / "modes" / f"{mode}.mode").write_text(f"{program} | {pipeline}")
    return str(folder)


@needs_apertium
def test_an_engine_that_is_killed_loses_nothing_that_was_kept(tmp_path):
    """The real engine, whose pipeline is killed at the third call."""
    count = tmp_path / "count"
    datadir = staged(tmp_path, f"echo >> {count}; [ $(wc -l < {count}) = 3 ] && kill -9 $$; exec cat")
    texts = sentences(30)
    cache = tmp_path / "cache.sqlite"
    back = BackTranslate(Apertium(datadir=datadir), cache=cache, batch_size=10)
    with pytest.raises(EngineFailed) as caught:
        back(batch_of(texts))
    assert re.fullmatch(
        r"BackTranslate: rows 10 to 19, en to es: Apertium was killed by signal 9 while it translated 10 texts \(.*\)"
        r"; what was translated before is kept, and a new run goes on from there",
        str(caught.value),
        flags=re.DOTALL,
    )
    assert len(TranslationCache(cache)) == 20
    out = back(batch_of(texts))
    assert out.stats["BackTranslate"]["translated"] == 40
    assert out.equals(BackTranslate(Apertium())(batch_of(texts)))


@needs_apertium
@pytest.mark.parametrize(
    ("script", "timeout", "message"),
    [
        ("echo 'no such thing' >&2; exit 3", 60, r"failed with exit status 3 while it translated 3 texts \(no such"),
        ("sleep 1000", 0.3, r"gave no answer to 3 texts in 0.3 s"),
        ("kill -9 $$", 60, r"was killed by signal 9"),
        ("head -c 25", 60, r"stopped after 1 of 3 texts"),
        ("cat > /dev/null", 60, r"stopped after 0 of 3 texts"),
        ("tr -d '\\0'", 60, r"stopped after 0 of 3 texts"),
        ("exec 0<&-", 60, r"stopped after 0 of 3 texts"),
    ],
)
def test_a_bad_engine_is_named(tmp_path, script, timeout, message):
    engine = Apertium(datadir=staged(tmp_path, script), timeout=timeout)
    with pytest.raises(EngineFailed, match=f"^Apertium {message}"):
        engine.translate(["a dog runs here"] * 3, "en", "es")


@needs_apertium
def test_what_takes_too_long_is_gone(tmp_path):
    datadir = staged(tmp_path, f"ps -o pgid= $$ > {tmp_path}/group; (sleep 600; true) | cat")
    with pytest.raises(EngineFailed, match=r"gave no answer to 1 texts in 0.5 s"):
        Apertium(datadir=datadir, timeout=0.5).translate(["a"], "en", "es")
    group = int((tmp_path / "group").read_text())
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process is left")


@needs_apertium
def test_an_engine_is_known_by_its_data(tmp_path):
    engine = Apertium(datadir=staged(tmp_path, "exec cat"))
    assert engine.identity("en", "es") != Apertium().identity("en", "es")


def test_a_missing_engine_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="Apertium is not installed: apt install apertium apertium-eng-spa"):
        BackTranslate(Apertium())(batch_of(["a"]))


@needs_apertium
def test_a_missing_pair_is_named(tmp_path):
    datadir = staged(tmp_path, "exec cat")
    with pytest.raises(
        MissingExtra, match=r"no mode eng-deu: apt install apertium-deu-eng \(installed: eng-spa, spa-eng\)"
    ):
        Apertium(datadir=datadir).translate(["a"], "en", "de")


# Any engine -----------------------------------------------------------------------------------------------------------


def test_decisions_are_shown_and_rows_go_along(tmp_path):
    engine = Toy({"big": "large", "not": "", "7": "8"})
    texts = ["one big dog ran", "a dog ran", "it is not big here", "", "take 7 of them", "one big dog ran"]
    batch = vg.TextBatch.from_texts(texts, ids=np.arange(6) + 1, rows={"score": np.arange(6)})
    back = BackTranslate(engine, cache=tmp_path / "c")
    shown = back.candidates(batch)
    assert shown.texts == [
        "one large dog ran",
        "a dog ran",
        "it is  large here",
        "",
        "take 8 of them",
        "one large dog ran",
    ]
    assert shown.rows["reason"].tolist() == ["", "unchanged", "negation", "empty", "number", ""]
    assert shown.rows["accepted"].tolist() == [True, False, False, False, False, True]
    assert shown.rows["overlap"].tolist() == [0.75, 1.0, 6 / 9, 1.0, 0.75, 0.75]
    assert shown.rows["length"].tolist() == [1.0, 1.0, 0.8, 0.0, 1.0, 1.0]
    assert shown.rows["pivot"][0] == "eno gib god nar"
    assert engine.asked.count("one big dog ran") == 1
    out = back(batch)
    assert out.texts == ["one large dog ran"] * 2
    assert out.rows["_parent"].tolist() == [0, 5]
    assert out.rows["score"].tolist() == [0, 5]
    assert len(set(out.ids.tolist()) | set(batch.ids.tolist())) == 8
    assert out.ids.tolist() == shown.ids[[0, 5]].tolist()
    assert out.stats == {
        "BackTranslate": {
            "rows": 6,
            "accepted": 2,
            "translated": 0,
            "refused": {"empty": 1, "negation": 1, "number": 1, "unchanged": 1},
        }
    }
    assert len(back(batch_of([]))) == 0


def test_the_cache_is_by_engine_and_language(tmp_path):
    class Other(Toy):
        def identity(self, source, target):
            return "toy 2"

    batch = batch_of(["a big dog"])
    for engine, pivot, asked in ((Toy(), "es", 2), (Toy(), "es", 0), (Toy(), "fr", 2), (Other(), "es", 2)):
        BackTranslate(engine, pivot=pivot, cache=tmp_path / "c")(batch)
        assert len(engine.asked) == asked


@pytest.mark.parametrize("dies_at", [1, 4, 8])
def test_a_run_goes_on_where_its_engine_died(tmp_path, dies_at):
    texts = [f"dog {i} is big" for i in range(10)]
    changes = {"big": "large"}
    with pytest.raises(EngineFailed, match=r"rows \d to \d, .*the engine is gone; what was translated before is kept"):
        BackTranslate(Toy(changes, dies_at=dies_at), cache=tmp_path / "c", batch_size=2)(batch_of(texts))
    kept = len(TranslationCache(tmp_path / "c"))
    assert kept >= dies_at
    engine = Toy(changes)
    out = BackTranslate(engine, cache=tmp_path / "c", batch_size=2)(batch_of(texts))
    assert len(engine.asked) == 20 - kept
    assert out.texts == [f"dog {i} is large" for i in range(10)]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (lambda texts: texts[1:], "2 texts had 1 translations"),
        (lambda texts: None, "the engine answered None, which is no list of texts"),
        (lambda texts: "ab", "the engine answered 'ab', which is no list of texts"),
        (lambda texts: [None for _ in texts], "'dog' became None, which is no text"),
        (lambda texts: ["\ud800" for _ in texts], "which is no text"),
    ],
)
def test_an_engine_that_gives_no_translations_is_refused(tmp_path, results, message):
    engine = SimpleNamespace(identity=lambda a, b: "x", translate=lambda texts, a, b: results(texts))
    with pytest.raises(EngineFailed, match=f"BackTranslate: rows 0 to 1, en to es: .*{message}"):
        BackTranslate(engine, cache=tmp_path / "c")(batch_of(["dog", "cat"]))
    assert len(TranslationCache(tmp_path / "c")) == 0


def test_an_error_of_the_engine_says_where():
    def fail(texts, source, target):
        raise ZeroDivisionError("oh")

    engine = SimpleNamespace(identity=lambda a, b: "x", translate=fail)
    with pytest.raises(ZeroDivisionError) as caught:
        BackTranslate(engine)(batch_of(["dog"]))
    assert caught.value.__notes__ == ["BackTranslate: rows 0 to 0, en to es"]


def test_words_that_were_left_are_seen_by_their_marks():
    class Marks:
        unknown_mark = "*"

        def identity(self, source, target):
            return "marks"

        def translate(self, texts, source, target):
            there = {"one": "uno", "a house": "casa", "the dog Ada": "perro *Ada"}
            back = {"uno": "one", "casa": "*casa", "perro Ada": "dog *Ada", "y*z": "y**z"}
            return [(there if target == "es" else back).get(text, text) for text in texts]

    texts = ["one", "a house", "the dog Ada", "2*x", "y*z"]
    out = BackTranslate(Marks(), filter=EVERYTHING).candidates(batch_of(texts))
    assert out.texts == ["one", "casa", "dog Ada", "2*x", "y**z"]
    assert out.rows["pivot"].tolist() == ["uno", "casa", "perro Ada", "2*x", "y*z"]
    strict = BackTranslate(Marks(), filter=RoundTrip(overlap=(0, 1), length=(0, 9)))
    found = strict.candidates(batch_of(texts)).rows["reason"].tolist()
    assert found == ["unchanged", "untranslated", "", "unchanged", "untranslated"]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=12), st.integers(1, 5))
def test_candidates_are_a_function_of_the_text(texts, size):
    batch = batch_of(texts)
    back = BackTranslate(Toy({"a": "b"}), batch_size=size)
    whole = back.candidates(batch)
    assert whole.equals(BackTranslate(Toy({"a": "b"})).candidates(batch))
    order = np.arange(len(texts))[::-1]
    assert back.candidates(batch.take(order)).equals(whole.take(order))
    accepted = np.flatnonzero(whole.rows["accepted"])
    out = back(batch)
    assert out.texts == [whole.texts[row] for row in accepted]
    assert out.rows["_parent"].tolist() == accepted.tolist()


# The filter -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "result", "reason"),
    [
        ("the big dog ran home", "the large dog ran home", ""),
        ("the big dog ran home", "", "empty"),
        ("the big dog ran home", "...", "empty"),
        ("the big dog ran home", "The  big dog RAN home", "unchanged"),
        ("I don\u2019t like big dogs", "I do not like large dogs", ""),
        ("I do not like big dogs", "I like large dogs here", "negation"),
        ("he never said so", "he always said so", "negation"),
        ("she has nothing left here", "she has not left here", ""),
        ("the 3 dogs ran home", "the three dogs ran to home", ""),
        ("the 3 dogs ran home", "the 4 dogs ran home", "number"),
        ("in 1,000 days from now", "in 1000 days since now", ""),
        ("twenty-five dogs ran home", "25 dogs ran to home", ""),
        ("twenty one dogs ran home", "the 21 dogs ran home", ""),
        ("thirty dogs ran home now", "30 dogs now ran home", ""),
        ("a pi of 3.14 is good", "a pi of 3.15 is good", "number"),
        ("the one dog ran home", "a dog ran home", ""),
        ("the big dog ran home", "the big dog", ""),
        ("the big dog ran home", "the dog", "length"),
        ("the dog ran", "the dog ran and ran and ran", "length"),
        ("the big dog ran home", "some large hounds went back", "overlap"),
    ],
)
def test_the_filter_by_hand(source, result, reason):
    assert RoundTrip().judge(source, result).reason == reason


def test_the_filter_can_be_set():
    source, result = "I do not like 3 dogs", "I do like dogs"
    assert RoundTrip().judge(source, result).reason == "negation"
    assert RoundTrip(negations=()).judge(source, result).reason == "number"
    assert not RoundTrip(negations=(), numbers=False).judge(source, result).reason
    assert RoundTrip(negations=("DOGS",), numbers=False).judge(source, "I do like it").reason == "negation"
    assert RoundTrip(overlap=(0.0, 0.5)).judge("a b c", "a b d").reason == "overlap"
    assert RoundTrip().judge("a b c", "a b d", untranslated=1).reason == "untranslated"
    assert not RoundTrip(untranslated=1).judge("a b c", "a b d", untranslated=1).reason


@given(
    st.lists(st.sampled_from(["a", "b", "c", "not", "7", "twelve"]), max_size=9),
    st.lists(st.sampled_from("abcd"), max_size=9),
)
def test_overlap_is_f1_over_bags(one, other):
    common = 0
    rest = list(other)
    for word in one:
        if word in rest:
            rest.remove(word)
            common += 1
    overlap = 2 * common / (len(one) + len(other)) if one or other else 1.0
    verdict = RoundTrip().judge(" ".join(one), " ".join(other))
    back = RoundTrip().judge(" ".join(other), " ".join(one))
    assert verdict.overlap == back.overlap == overlap
    assert verdict.length == (len(other) / len(one) if one else 0.0)


# The cache ------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from variegate.paraphrase import TranslationCache
path, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
cache = TranslationCache(path)
for i in range(n):
    cache.put("e", "en", "es", {f"{name} {i} {j}": f"{i}" for j in range(5)} | {f"shared {i}": name})
    print(i, flush=True)
"""


def writer(path: Path, name: str, n: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(n)], stdout=subprocess.PIPE, text=True)


def test_the_cache_survives_kills_and_writers_beside_each_other(tmp_path):
    path = tmp_path / "cache.sqlite"
    writers = {name: writer(path, name, 100 if name == "b" else 10**6) for name in ("a", "b", "c")}
    assert writers["b"].wait(timeout=300) == 0
    said = {}
    for name, process in writers.items():
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        said[name] = len(process.communicate()[0].splitlines())
    assert said["b"] == 100
    cache = TranslationCache(path)
    for name, done in said.items():
        texts = [f"{name} {i} {j}" for i in range(done) for j in range(5)]
        assert len(cache.get("e", "en", "es", texts)) == 5 * done
    first = cache.get("e", "en", "es", [f"shared {i}" for i in range(100)])
    assert set(first.values()) <= {"a", "b", "c"}
    assert len(first) == 100
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@settings(max_examples=20)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=9), st.text(st.characters(codec="utf-8"), max_size=9)
    )
)
def test_the_cache_gives_what_it_got(tmp_path_factory, translations):
    path = tmp_path_factory.mktemp("cache") / "c"
    cache = TranslationCache(path)
    cache.put("e", "en", "es", translations)
    cache.put("e", "en", "es", dict.fromkeys(translations, "later"))
    assert TranslationCache(path).get("e", "en", "es", list(translations)) == translations
    assert cache.get("e", "en", "e", list(translations)) == {}
    assert len(cache) == len(translations)
    many = [f"{i}" for i in range(1200)]
    assert set(cache.get("e", "en", "es", many)) == set(many) & set(translations)


def test_another_file_is_no_cache(tmp_path):
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    with pytest.raises(InvalidInput, match=r"cache: .*text cannot be used \(file is not a database\)"):
        TranslationCache(text)
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (x)")
    connection.close()
    with pytest.raises(InvalidInput, match=r"cache: .*other is no cache of translations"):
        BackTranslate(Toy(), cache=other)(batch_of(["a"]))
    assert Counter(os.listdir(tmp_path)) == Counter(["text", "other"])
    with pytest.raises(InvalidInput, match=r"cache: .*nowhere.* cannot be opened"):
        TranslationCache(tmp_path / "nowhere" / "c")


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """A Marian model of random weights over thirteen words, and its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["</s>", "<unk>", *["the", "a", "dog", "house", "runs", "big", "not", "perro", "casa", "no"], "<pad>"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=32
    )

    def model(seed: int):
        torch.manual_seed(seed)
        config = transformers.MarianConfig(
            vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
            pad_token_id=12, eos_token_id=0, decoder_start_token_id=12, forced_eos_token_id=None, init_std=1.0,
        )  # fmt: skip
        return transformers.MarianMTModel(config).eval()

    return model, tokenizer


def greedy(model, tokenizer, text: str, steps: int) -> str:
    """Decoding by hand: the best next token, never padding, until the end."""
    import torch

    given = torch.tensor([tokenizer(text)["input_ids"]])
    out = [model.config.decoder_start_token_id]
    for _ in range(steps):
        with torch.inference_mode():
            logits = model(input_ids=given, decoder_input_ids=torch.tensor([out])).logits[0, -1].clone()
        # Marian never puts out padding.
        order = logits.argsort(descending=True).tolist()
        out.append(next(token for token in order if token != model.config.pad_token_id))
        if out[-1] == model.config.eos_token_id:
            break
    return tokenizer.decode(out, skip_special_tokens=True)


TEXTS = ["the dog runs", "a house", "the big dog runs not the house"]


def test_transformers_models_translate_as_by_hand(tiny, tmp_path):
    model, tokenizer = tiny
    pairs = {("en", "es"): (model(1), tokenizer), ("es", "en"): (model(2), tokenizer)}
    engine = Transformers(pairs, max_new_tokens=8)
    there = engine.translate(TEXTS, "en", "es")
    assert there == [greedy(model(1), tokenizer, text, 8) for text in TEXTS]
    assert len(set(there)) > 1
    assert engine.translate([], "en", "es") == []
    same = Transformers({("en", "es"): (model(1), tokenizer)}, max_new_tokens=8)
    assert same.identity("en", "es") == engine.identity("en", "es") != engine.identity("es", "en")
    assert Transformers(pairs, max_new_tokens=9).identity("en", "es") != engine.identity("en", "es")
    with pytest.raises(InvalidInput, match=r"no model from en to fr \(there are: en to es, es to en\)"):
        engine.translate(TEXTS, "en", "fr")
    with pytest.raises(InvalidInput, match=r"row 1, en to es: the text has 51 tokens, and the model takes 32"):
        BackTranslate(engine)(batch_of(["dog", "the " * 50]))
    back = BackTranslate(engine, filter=EVERYTHING, cache=tmp_path / "c")
    expected = [text and engine.translate([text], "es", "en")[0] for text in there]
    assert back.candidates(batch_of(TEXTS)).texts == expected
    assert back(batch_of(TEXTS)).stats["BackTranslate"]["translated"] == 0


def test_ctranslate2_gives_what_transformers_gives(tiny, tmp_path):
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install 'variegate[translate]'")
    from ctranslate2.converters import TransformersConverter

    model, tokenizer = tiny
    model(1).save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    TransformersConverter(str(tmp_path / "hf")).convert(str(tmp_path / "ct2"))
    engine = CTranslate2({("en", "es"): (tmp_path / "ct2", tokenizer)}, max_decoding_length=8)
    expected = Transformers({("en", "es"): (model(1), tokenizer)}, max_new_tokens=8).translate(TEXTS, "en", "es")
    assert engine.translate(TEXTS, "en", "es") == expected
    one = engine.identity("en", "es")
    assert one == CTranslate2({("en", "es"): (tmp_path / "ct2", tokenizer)}, max_decoding_length=8).identity("en", "es")
    (tmp_path / "ct2" / "config.json").write_text(json.dumps({}))
    assert one != CTranslate2({("en", "es"): (tmp_path / "ct2", tokenizer)}).identity("en", "es")


class FakeCTranslate2:
    """The calls that the adapter makes, answered by upper case."""

    __version__ = "4.0"

    def __init__(self) -> None:
        self.loaded: list[tuple[str, dict[str, object]]] = []

    def Translator(self, path, **options):  # noqa: N802
        self.loaded.append((path, options))
        answer = lambda tokens: SimpleNamespace(hypotheses=[[token.upper() for token in tokens]])  # noqa: E731
        return SimpleNamespace(translate_batch=lambda batch, **_: [answer(tokens) for tokens in batch])


class Letters:
    """A tokenizer whose tokens are letters."""

    def __call__(self, texts):
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}

    def convert_ids_to_tokens(self, ids):
        return [chr(i) for i in ids]

    def convert_tokens_to_ids(self, tokens):
        return [ord(token) for token in tokens]

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(i) for i in ids)

    def get_vocab(self):
        return {"a": 97}


def test_ctranslate2_is_loaded_once_and_its_files_are_its_identity(tmp_path, monkeypatch):
    fake = FakeCTranslate2()
    monkeypatch.setitem(sys.modules, "ctranslate2", fake)
    engine = CTranslate2({("en", "es"): (tmp_path, Letters())}, max_input_length=5)
    with pytest.raises(InvalidInput, match=r"holds no converted model \(model.bin\)"):
        engine.translate(["dog"], "en", "es")
    (tmp_path / "model.bin").write_bytes(b"1")
    assert engine.translate(["dog", "cat"], "en", "es") == ["DOG", "CAT"]
    assert engine.translate(["a"], "en", "es") == ["A"]
    assert fake.loaded == [(str(tmp_path), {"device": "cpu", "compute_type": "default"})]
    with pytest.raises(InvalidInput, match=r"texts\[1\] has 6 tokens, and the model takes 5"):
        engine.translate(["dog", "letter"], "en", "es")
    one = engine.identity("en", "es")
    (tmp_path / "model.bin").write_bytes(b"2")
    other = CTranslate2({("en", "es"): (tmp_path, Letters())}, max_input_length=5).identity("en", "es")
    assert other != one
    assert other.startswith("ctranslate2 4.0 cpu")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    pair = {("en", "es"): (tmp_path, None)}
    with pytest.raises(MissingExtra, match=r"pip install 'variegate\[translate\]'"):
        CTranslate2(pair).translate(["a"], "en", "es")
    with pytest.raises(MissingExtra, match=r"pip install 'variegate\[torch\]' transformers"):
        Transformers(pair).translate(["a"], "en", "es")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BackTranslate(3), "BackTranslate: engine must have a method identity (it is 3)"),
        (lambda: BackTranslate(Toy(), batch_size=0), "BackTranslate: batch_size must be at least 1 (it is 0)"),
        (lambda: BackTranslate(Toy(), pivot=""), "BackTranslate: pivot must be the code of a language (it is '')"),
        (lambda: BackTranslate(Toy())(["a"]), "BackTranslate: batch must be a TextBatch, not list"),
        (
            lambda: RoundTrip(overlap=(0.5, 1.5)),
            "RoundTrip: overlap must be (lowest, highest), 0 or more, in order, at most 1 (it is (0.5, 1.5))",
        ),
        (
            lambda: RoundTrip(length=(2, 1)),
            "RoundTrip: length must be (lowest, highest), 0 or more, in order (it is (2, 1))",
        ),
        (lambda: RoundTrip(length=1), "RoundTrip: length must be (lowest, highest), 0 or more, in order (it is 1)"),
        (lambda: RoundTrip(negations="not"), "RoundTrip: negations must be a sequence of str (it is 'not')"),
        (lambda: RoundTrip(untranslated=-1), "RoundTrip: untranslated must be 0 or more (it is -1)"),
        (
            lambda: Transformers({"en-es": 1}),
            "Transformers: models must map (source, target) to (model, tokenizer) (it maps 'en-es')",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
