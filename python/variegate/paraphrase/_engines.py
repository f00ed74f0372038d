"""Engines that translate: what one must offer, and adapters."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from variegate.errors import EngineFailed, InvalidInput, MissingExtra

__all__ = ["Apertium", "CTranslate2", "Transformers", "Translator"]


class Translator(Protocol):
    """What an engine must offer.

    An engine that marks the words that it does not know says so with an attribute `unknown_mark`, the str that it puts
    before them.

    Example:
        >>> class Upper:
        ...     def identity(self, source, target):
        ...         return "upper 1"
        ...
        ...     def translate(self, texts, source, target):
        ...         return [text.upper() for text in texts]
    """

    def identity(self, source: str, target: str) -> str:
        """What determines the translations between two languages: the engine's name, its version, a hash of its data.

        It must not change while the translations stay the same: it is part of the key under which they are kept.
        """
        ...

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The translations, one for each text and in order; ``""`` where there is none."""
        ...


class TextRefused(InvalidInput):
    """A text that an engine cannot take; `index` is its position."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"texts[{index}] {why}")
        self.index, self.why = index, why


_THREE_LETTERS = {
    "ar": "ara", "ca": "cat", "cs": "ces", "cy": "cym", "de": "deu", "en": "eng", "eo": "epo", "es": "spa", "eu": "eus",
    "fr": "fra", "gl": "glg", "it": "ita", "mk": "mkd", "nl": "nld", "pl": "pol", "pt": "por", "ro": "ron", "ru": "rus",
    "sv": "swe", "uk": "ukr",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Apertium:
    """`Apertium <https://apertium.org>`_, rule-based translation by dictionaries, as programs of the system.

    It needs no network and no GPU, and a text always becomes the same, whatever is translated beside it. Words that it
    does not know are left as they are, with a ``*`` before them. Cost: 0.1 s a call, and some milliseconds a text.

    Attributes:
        datadir: The folder that holds ``modes``.
        timeout: Seconds that one call may take.

    Raises:
        MissingExtra: In a call, where Apertium or the pair of languages is not installed.
        EngineFailed: In a call, where a program stops early, takes too long or gives something unexpected.
        InvalidInput: In a call, a text with a NUL character.

    Example:
        >>> Apertium(timeout=60.0)
        Apertium(datadir='/usr/share/apertium', timeout=60.0)
    """

    datadir: str = "/usr/share/apertium"
    timeout: float = 300.0

    unknown_mark = "*"

    def identity(self, source: str, target: str) -> str:
        """Apertium's version, the mode, and a hash of the mode's data files."""
        return _apertium_identity(self._mode(source, target))

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The translations; line breaks and other space stay where they are."""
        pipeline = _pipeline(self._mode(source, target))
        if not texts:
            return []
        sent = b"".join(_to_stream(i, text).encode() for i, text in enumerate(texts))
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", pipeline, "bash", "-g", ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(sent, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"Apertium gave no answer to {len(texts)} texts in {self.timeout:g} s") from None
        finally:
            if process.poll() is None:
                # The shell has a pipeline under it: all of it must go.
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        said = errors.decode(errors="replace").strip() or "no message"
        if process.returncode:
            code = process.returncode
            # A shell gives 128 + n for a program that signal n killed.
            by = -code if code < 0 else code - 128
            how = f"was killed by signal {by}" if by > 0 else f"failed with exit status {code}"
            raise EngineFailed(f"Apertium {how} while it translated {len(texts)} texts ({said})")
        parts = output.split(b"\0")
        results = []
        for i in range(len(texts)):
            end = f".[{i}]".encode()
            if i >= len(parts) or not parts[i].endswith(end):
                raise EngineFailed(f"Apertium stopped after {i} of {len(texts)} texts ({said})")
            results.append(_from_stream(parts[i].removesuffix(end).decode()))
        return results

    def _mode(self, source: str, target: str) -> Path:
        if shutil.which("apertium") is None:
            raise MissingExtra(
                "Apertium is not installed: apt install apertium apertium-eng-spa (on Debian and Ubuntu; "
                "https://wiki.apertium.org elsewhere)"
            )
        codes = [_THREE_LETTERS.get(code, code) for code in (source, target)]
        folder = Path(self.datadir, "modes")
        path = folder / f"{'-'.join(codes)}.mode"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.mode"))) or "none"
            pair = "-".join(sorted(codes))
            raise MissingExtra(f"Apertium has no mode {path.stem}: apt install apertium-{pair} (installed: {known})")
        return path


@lru_cache(maxsize=64)
def _apertium_identity(mode: Path) -> str:
    version = subprocess.run(["apertium", "-V"], capture_output=True, text=True, check=False).stdout.strip()
    digest = hashlib.sha256()
    for part in mode.read_text().split("'"):
        file = Path(part)
        digest.update(_sha256(file) if file.is_absolute() and file.is_file() else part.encode())
    return f"{version} {mode.stem} {digest.hexdigest()}"


def _pipeline(mode: Path) -> str:
    """The shell command of a mode, for texts that end with NUL.

    Apertium's tagger carries something from one text to the next, so that each text gets a process of its own there.
    """
    stages = []
    for stage in mode.read_text().strip().split("|"):
        program, *rest = stage.split(maxsplit=1)
        if program == "apertium-tagger":
            stage = f"while IFS= read -r -d '' text; do printf '%s' \"$text\" | {stage} && printf '\\0' || exit; done"
        else:
            stage = " ".join([program, "-z", *rest])
        stages.append(stage)
    return " | ".join(stages)


def _to_stream(i: int, text: str) -> str:
    """A text in Apertium's stream format, followed by what ends a sentence, its number and NUL.

    Signs of the format are escaped; what is in brackets goes through unchanged, as do the signs of its marks there.
    """
    if "\0" in text:
        raise TextRefused(i, "holds a NUL character, which Apertium takes for its end")
    escaped = re.sub(r"([\[\]{}^$/\\@<>])", r"\\\1", text)
    return re.sub(r"^ | $|\s{2,}|[^\S ]|[*#~]", r"[\g<0>]", escaped) + f".[{i}]\0"


def _from_stream(output: str) -> str:
    """What the stream says; words that failed at a later stage, marked by @ and #, get the mark of unknown words.

    Space that the text had stands in brackets; what else is doubled comes from words that fell away.
    """
    output = re.sub(r"(?<![\\\[])[@#](?=\w)", "*", output.strip(" "))
    return re.sub(r"\\(.)|\[((?:[^\]\\]|\\.)*)\]|( ) +", _plain_of, output, flags=re.S)


def _plain_of(match: re.Match[str]) -> str:
    escaped, blank, space = match.groups()
    return escaped or space or re.sub(r"\\(.)", r"\1", blank, flags=re.S)


class _Models:
    """Models that translate in one direction each, with their tokenizers."""

    _what: str

    def __init__(self, models: Mapping[tuple[str, str], tuple[Any, Any]]) -> None:
        self._models: dict[tuple[str, str], tuple[Any, Any]] = dict(models)
        for pair, model in self._models.items():
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(model, tuple) and len(model) == 2):
                raise InvalidInput(
                    f"{self._what}: models must map (source, target) to (model, tokenizer) (it maps {pair!r})"
                )
        self._identities: dict[tuple[str, str], str] = {}

    def _of(self, source: str, target: str) -> tuple[Any, Any]:
        try:
            return self._models[source, target]
        except KeyError:
            known = ", ".join(f"{a} to {b}" for a, b in self._models) or "none"
            raise InvalidInput(
                f"{self._what}: there is no model from {source} to {target} (there are: {known})"
            ) from None

    def __repr__(self) -> str:
        return f"{self._what}({', '.join(f'{a} to {b}' for a, b in self._models)})"


def _encoded(tokenizer: Any, texts: Sequence[str], most: int | None) -> list[list[int]]:
    """The ids of each text, none of them longer than the model takes."""
    encoded: list[list[int]] = [list(ids) for ids in tokenizer(list(texts))["input_ids"]]
    for i, ids in enumerate(encoded):
        if most is not None and len(ids) > most:
            raise TextRefused(i, f"has {len(ids)} tokens, and the model takes {most}: split it into sentences")
    return encoded


class Transformers(_Models):
    """Sequence-to-sequence models of Hugging Face's transformers, such as Marian's.

    Decoding is greedy or by beams, never by chance. Texts that go into a batch together are padded to one length, which
    can change the last digits of a score, and so in rare cases a translation: what is in the cache stays.

    Args:
        models: ``(source, target)`` to the model of that direction and its tokenizer.
        num_beams: Beams; 1 is greedy.
        max_new_tokens: The most tokens of a translation.

    Raises:
        InvalidInput: Models that are no such mapping; in a call, a direction without a model, or a text that is longer
            than the tokenizer's ``model_max_length``.
        MissingExtra: In a call, without torch.

    Example:
        >>> Transformers({}).translate(["dog"], "en", "es")
        Traceback (most recent call last):
        variegate.errors.InvalidInput: Transformers: there is no model from en to es (there are: none)
    """

    _what = "Transformers"

    def __init__(
        self, models: Mapping[tuple[str, str], tuple[Any, Any]], *, num_beams: int = 1, max_new_tokens: int = 256
    ) -> None:
        super().__init__(models)
        self.num_beams, self.max_new_tokens = num_beams, max_new_tokens

    def identity(self, source: str, target: str) -> str:
        """A hash of the model's configuration, weights and tokenizer, and how it decodes; seconds for large models."""
        model, tokenizer = self._of(source, target)
        if (source, target) not in self._identities:
            torch = _torch()
            digest = hashlib.sha256(_plain(model.config.to_dict()))
            digest.update(_plain(model.generation_config.to_dict()) + _tokenizer_hash(tokenizer))
            for name, weight in sorted(model.state_dict().items()):
                raw = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode() + raw.tobytes())
            self._identities[source, target] = digest.hexdigest()
        how = f"num_beams={self.num_beams} max_new_tokens={self.max_new_tokens}"
        return f"transformers {type(model).__name__} {how} {self._identities[source, target]}"

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The translations, of all texts in one batch of the model."""
        model, tokenizer = self._of(source, target)
        torch = _torch()
        if not texts:
            return []
        _encoded(tokenizer, texts, tokenizer.model_max_length)
        padded = tokenizer(list(texts), return_tensors="pt", padding=True).to(model.device)
        inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            outputs = model.generate(
                **inputs, do_sample=False, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens
            )
        decoded: list[str] = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        return decoded


class CTranslate2(_Models):
    """Models that `CTranslate2 <https://opennmt.net/CTranslate2>`_ converted, with the tokenizer of the original.

    Args:
        models: ``(source, target)`` to the folder of the converted model and the Hugging Face tokenizer.
        device: "cpu", "cuda" or "auto".
        compute_type: The numbers to compute with, such as "int8"; "default" takes those of the model.
        beam_size: Beams; 1 is greedy.
        max_input_length: The most tokens of a text.
        max_decoding_length: The most tokens of a translation.

    Raises:
        InvalidInput: Models that are no such mapping; in a call, a direction without a model, a folder without one, or
            a text that is too long.
        MissingExtra: In a call, without the package ctranslate2.

    Example:
        >>> CTranslate2({}, device="cpu")
        CTranslate2()
    """

    _what = "CTranslate2"

    def __init__(
        self,
        models: Mapping[tuple[str, str], tuple[str | os.PathLike[str], Any]],
        *,
        device: str = "cpu",
        compute_type: str = "default",
        beam_size: int = 1,
        max_input_length: int = 512,
        max_decoding_length: int = 256,
    ) -> None:
        super().__init__(models)
        self.device, self.compute_type = device, compute_type
        self.beam_size, self.max_input_length = beam_size, max_input_length
        self.max_decoding_length = max_decoding_length
        self._loaded: dict[tuple[str, str], Any] = {}

    def identity(self, source: str, target: str) -> str:
        """A hash of the model's files and tokenizer, the package's version, and how it computes and decodes."""
        path, tokenizer = self._of(source, target)
        ctranslate2 = _ctranslate2()
        if (source, target) not in self._identities:
            digest = hashlib.sha256(_tokenizer_hash(tokenizer))
            for file in self._files(path):
                digest.update(file.name.encode() + _sha256(file))
            self._identities[source, target] = digest.hexdigest()
        how = f"{self.device} {self.compute_type} {self.beam_size=} {self.max_decoding_length=}".replace("self.", "")
        return f"ctranslate2 {ctranslate2.__version__} {how} {self._identities[source, target]}"

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The translations; the model is loaded at the first call and kept."""
        path, tokenizer = self._of(source, target)
        ctranslate2 = _ctranslate2()
        if not texts:
            return []
        if (source, target) not in self._loaded:
            self._files(path)
            self._loaded[source, target] = ctranslate2.Translator(
                os.fspath(path), device=self.device, compute_type=self.compute_type
            )
        encoded = _encoded(tokenizer, texts, self.max_input_length)
        results = self._loaded[source, target].translate_batch(
            [tokenizer.convert_ids_to_tokens(ids) for ids in encoded],
            beam_size=self.beam_size,
            max_decoding_length=self.max_decoding_length,
        )
        return [
            tokenizer.decode(tokenizer.convert_tokens_to_ids(result.hypotheses[0]), skip_special_tokens=True)
            for result in results
        ]

    def _files(self, path: str | os.PathLike[str]) -> list[Path]:
        folder = Path(path)
        if not (folder / "model.bin").is_file():
            raise InvalidInput(f"CTranslate2: {folder} holds no converted model (model.bin)")
        return sorted(file for file in folder.iterdir() if file.is_file())


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("Transformers needs PyTorch: pip install 'variegate[torch]' transformers") from error
    return torch


def _ctranslate2() -> Any:
    try:
        import ctranslate2
    except ImportError as error:
        raise MissingExtra("CTranslate2 needs its package: pip install 'variegate[translate]'") from error
    return ctranslate2


def _plain(value: Mapping[str, Any]) -> bytes:
    """A configuration without what says where and by what it was saved."""
    kept = {key: item for key, item in value.items() if key not in ("_name_or_path", "transformers_version")}
    return json.dumps(kept, sort_keys=True, default=str).encode()


def _tokenizer_hash(tokenizer: Any) -> bytes:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{type(tokenizer).__name__}\n{state}".encode()).digest()


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
