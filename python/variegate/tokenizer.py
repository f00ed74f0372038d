"""Text to tokens and back, in batches.

Hugging Face ``tokenizers`` is the reference for what a ``tokenizer.json`` means. Where gigatoken is installed and
gives the reference's ids on a large set of hard texts, it does the encoding, tens of times faster.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from variegate import _core
from variegate.batch import Spans, TextBatch, TokenBatch
from variegate.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from variegate._gigatoken import Gigatoken

__all__ = ["Tokenizer"]

Engine = Literal["auto", "gigatoken", "tokenizers"]

_SMALL_BYTES = 2048
"""Text that the reference has encoded before the fast engine has been called."""


class Tokenizer:
    """Encodes text batches into token batches and decodes them.

    Args:
        source: A path to a ``tokenizer.json``, or to a directory that holds one; a ``tokenizers.Tokenizer``; or a fast
            tokenizer of ``transformers``. Its truncation and padding are left out: batches are ragged.
        engine: What encodes. ``auto`` takes gigatoken where it is installed and agrees with the reference, and
            ``tokenizers`` otherwise; the other two insist. Ids are the same either way; `engine_reason` says why.

    Raises:
        InvalidInput: No such file, or not a tokenizer; one that encodes at random (BPE dropout); an engine that is
            insisted on and does not agree.
        MissingExtra: ``engine="gigatoken"`` without gigatoken.

    Example:
        >>> tokenizer = Tokenizer.default()
        >>> batch = tokenizer.encode(["Hello, world", "naïve"])
        >>> tokenizer.decode(batch).texts
        ['Hello, world', 'naïve']
    """

    def __init__(self, source: str | os.PathLike[str] | object, *, engine: Engine = "auto") -> None:
        if isinstance(source, str | os.PathLike):
            path = _file(Path(source))
            try:
                self._load(_read(path), engine)
            except MissingExtra:
                raise
            except InvalidInput as error:
                raise InvalidInput(f"{path}: {error}") from None
        else:
            self._load(_json_of(source), engine)

    def _load(self, json: str, engine: Engine) -> None:
        if engine not in ("auto", "gigatoken", "tokenizers"):
            raise InvalidInput(f"engine must be 'auto', 'gigatoken' or 'tokenizers', not {engine!r}")
        self._asked: Engine = engine
        self._packaged = False
        self._hf = _core.HfTokenizer(json)
        if engine == "gigatoken" and self._fast is None:
            if self.engine_reason.startswith("gigatoken is not installed"):
                raise MissingExtra(
                    "variegate.Tokenizer(engine='gigatoken') needs gigatoken: pip install 'variegate[fast]'"
                )
            raise InvalidInput(f"engine='gigatoken' does not fit this tokenizer: {self.engine_reason}")

    @classmethod
    def train(
        cls,
        texts: TextBatch | Iterable[str] | Any,
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = ("<|endoftext|>",),
        engine: Engine = "auto",
    ) -> Tokenizer:
        """A byte-level BPE with GPT-2's pre-tokenizer, trained on texts.

        Ids: the special tokens in the order given, then the 256 bytes, then the merges (Sennrich et al. 2016). The same
        texts, in any order, give the same tokenizer. Some 5 MB of text a second on a core.

        Args:
            texts: A TextBatch, strings, or an Arrow array of strings.
            vocab_size: Ids in all; fewer are made where the texts run out of pairs.
            special_tokens: Tokens that text never splits.
            engine: As for the constructor.

        Raises:
            InvalidInput: No room for the bytes and special tokens; an empty or repeated special token.

        Example:
            >>> tokenizer = Tokenizer.train(["low lower lowest"] * 9, 270)
            >>> tokenizer.encode(["lower lowest"]).lengths
            array([4])
        """
        batch = _text_batch(texts)
        trained = _core.HfTokenizer.train(batch.data, batch.offsets, vocab_size, list(special_tokens))
        return _from_json(trained.json, engine)

    @classmethod
    @functools.cache
    def default(cls) -> Tokenizer:
        """The tokenizer that ships with variegate: a byte-level BPE of 8192 tokens.

        Trained once on the text and code of Python's standard library, never on a run's input, so that runs compare.
        Special tokens: ``<|endoftext|>`` 0, ``<|pad|>`` 1, ``<|mask|>`` 2, ``<|im_start|>`` 3, ``<|im_end|>`` 4,
        ``<|fim_prefix|>`` 5, ``<|fim_middle|>`` 6, ``<|fim_suffix|>`` 7, and ``<extra_id_0>`` .. ``<extra_id_99>`` 8
        to 107.

        Example:
            >>> Tokenizer.default().token_to_id("<|mask|>")
            2
        """
        tokenizer = cls(Path(__file__).with_name("data") / "default_tokenizer.json")
        tokenizer._packaged = True
        return tokenizer

    def encode(
        self,
        texts: TextBatch | Iterable[str] | Any,
        *,
        ids: ArrayLike | None = None,
        special_tokens: bool = False,
        return_offsets: bool = False,
    ) -> TokenBatch:
        """Tokens of each text.

        Ids and rows of a TextBatch are carried over; its spans become spans of the tokens that they touch.

        Args:
            texts: A TextBatch, strings, or an Arrow array of strings.
            ids: Row identities in place of those of the texts (by default a hash of each text).
            special_tokens: Whether the tokenizer's post-processor adds its tokens (BOS, EOS, ...).
            return_offsets: Whether to add the columns ``start`` and ``end`` (int64): where each token lies in its text,
                in bytes, widened to whole characters. Tokens that come from no text have 0 and 0.

        Returns:
            A TokenBatch whose `tokenizer` is this one.

        Raises:
            InvalidInput: Something that is not a str, a lone surrogate, or a text that the model cannot encode, with
                its row.

        Example:
            >>> batch = Tokenizer.default().encode(["ab", ""], ids=[1, 2], return_offsets=True)
            >>> batch.columns["end"].max(), batch.lengths[1]
            (np.int64(2), np.int64(0))
        """
        batch = _text_batch(texts)
        tokens, offsets, places = self._encode(batch, special_tokens, return_offsets)
        encoded = TokenBatch(
            tokens,
            offsets,
            ids=batch.ids if ids is None else ids,
            columns=dict(zip(("start", "end"), places, strict=False)),
            rows=batch.rows,
            tokenizer=self,
        )
        if batch.spans is not None:
            encoded.spans = self._spans(batch, batch.spans, special_tokens)
        return encoded

    def _forget(self) -> None:
        """Lets go of what the fast encoder remembers of earlier texts."""
        if self._fast is not None:
            self._fast.forget()

    def _encode(
        self, texts: TextBatch, special_tokens: bool, located: bool
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
        """Tokens, offsets, and (starts, ends) or nothing."""
        data, at = texts.data, texts.offsets
        affixes = self._affixes if special_tokens else None
        slow = len(data) < _SMALL_BYTES or (special_tokens and (located or affixes is None))
        if slow or self._fast is None:
            if located:
                (tokens, offsets), places = self._hf.encode_with_offsets(data, at, special_tokens)
                return tokens, offsets, places
            return *self._hf.encode(data, at, special_tokens), ()
        tokens, offsets = self._fast.encode(data, at)
        if affixes is not None:
            tokens, offsets = _core.surround_rows(tokens, offsets, *affixes)
        return tokens, offsets, self._hf.offsets(data, at, tokens, offsets, True) if located else ()

    def _spans(self, texts: TextBatch, spans: Spans, special_tokens: bool) -> Spans:
        """The spans of a text, over the tokens that they touch."""
        before = 0
        if special_tokens:
            if self._affixes is None:
                raise InvalidInput(
                    "spans cannot follow this tokenizer's special tokens: encode with special_tokens=False"
                )
            before = len(self._affixes[0])
        tokens, offsets, _ = self._encode(texts, False, False)
        start, end = self._hf.offsets(texts.data, texts.offsets, tokens, offsets, False)
        base = np.repeat(texts.offsets[:-1], np.diff(offsets))
        row = spans.row
        first = np.searchsorted(end + base, texts.offsets[row] + spans.start, "right")
        last = np.searchsorted(start + base, texts.offsets[row] + spans.end, "left")
        first = np.clip(first, offsets[row], offsets[row + 1])
        last = np.where(spans.end > spans.start, np.clip(last, first, offsets[row + 1]), first)
        return spans._replace(start=first - offsets[row] + before, end=last - offsets[row] + before)

    def offsets(
        self, texts: TextBatch | Iterable[str] | Any, tokens: TokenBatch | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each token lies in its text: int64[n] first bytes and int64[n] last bytes + 1, counted in the row.

        Ranges are widened to whole characters. Cheap for a byte-level BPE, an encoding by the reference otherwise.

        Args:
            texts: The texts.
            tokens: Their encoding without special tokens, or None to encode them here.

        Raises:
            InvalidInput: Tokens that are not the encoding of the texts.

        Example:
            >>> Tokenizer.default().offsets(["é"])[1].tolist()[-1]
            2
        """
        batch = _text_batch(texts)
        if tokens is None:
            _, _, (start, end) = self._encode(batch, False, True)
            return start, end
        return self._hf.offsets(batch.data, batch.offsets, tokens.tokens, tokens.offsets, True)

    def decode(self, tokens: TokenBatch, *, skip_special_tokens: bool = False) -> TextBatch:
        """The text of each row; bytes that make no character become U+FFFD. Ids and rows are carried over.

        Args:
            tokens: Rows of this tokenizer's ids.
            skip_special_tokens: Whether to leave out special tokens.

        Raises:
            InvalidInput: An id that the vocabulary does not have, with its row and position.

        Example:
            >>> tokenizer = Tokenizer.default()
            >>> tokenizer.decode(tokenizer.encode(["a<|endoftext|>"]), skip_special_tokens=True).texts
            ['a']
        """
        data, offsets = self._hf.decode(tokens.tokens, tokens.offsets, skip_special_tokens)
        return TextBatch._trusted(data, offsets, tokens.ids, tokens.rows, None)

    def word_ids(self, tokens: TokenBatch) -> NDArray[np.int32]:
        """Which word of its row each token belongs to: int32[n], from 0, and -1 for special tokens.

        Words are what the tokenizer's pre-tokenizer makes of the text between special tokens, as in Hugging Face's
        ``Encoding.word_ids``; where it has none (Llama 2) they are the runs without white space, each with the space
        before it. A token that lies in several words belongs to the first of them. The unknown token is text.

        Args:
            tokens: Rows of this tokenizer's ids.

        Raises:
            InvalidInput: An id that the vocabulary does not have, with its row and position.

        Example:
            >>> tokenizer = Tokenizer.default()
            >>> tokenizer.word_ids(tokenizer.encode(["Unbelievably good!<|endoftext|>"])).tolist()
            [0, 0, 0, 0, 0, 0, 1, 2, -1]
        """
        return self._hf.word_ids(tokens.tokens, tokens.offsets)

    def with_word_ids(self, tokens: TokenBatch) -> TokenBatch:
        """The batch with `word_ids` as its column ``word_ids``, which ops on whole words read.

        Example:
            >>> tokenizer = Tokenizer.default()
            >>> tokenizer.with_word_ids(tokenizer.encode(["a b"])).columns["word_ids"].tolist()
            [0, 1]
        """
        return tokens.replace(columns=tokens.columns | {"word_ids": self.word_ids(tokens)})

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the length of an array indexed by token."""
        return self._hf.vocab_size

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it (byte-level BPE: ``Ġ`` for a space), or None."""
        return self._hf.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The vocabulary's spelling of a token, or None for an id that it skips."""
        return self._hf.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None

    @functools.cached_property
    def special_ids(self) -> NDArray[np.uint32]:
        """uint32: the ids of the special tokens, ascending; read-only."""
        return _frozen(self._hf.special_ids())

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each token adds to a text when it follows another; empty for an id that is skipped.

        Example:
            >>> tokenizer = Tokenizer.default()
            >>> tokenizer.token_bytes[tokenizer.token_to_id("Ġthe")]
            b' the'
        """
        data, offsets = self._hf.token_bytes()
        joined, at = data.tobytes(), offsets.tolist()
        return [joined[at[i] : at[i + 1]] for i in range(self.vocab_size)]

    @functools.cached_property
    def whole_characters(self) -> NDArray[np.uint8]:
        """uint8[vocab_size]: 1 where a token's bytes are whole characters, 0 where it holds a part of one; read-only.

        Text stays decodable as long as an op moves, drops or inserts tokens of the first kind only.
        """
        return _frozen(self._hf.whole_characters())

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the file that `save` writes; equal tokenizers have equal ones."""
        return self._hf.fingerprint()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a ``tokenizer.json``, whole or not at all.

        Args:
            path: The file, or a directory to put ``tokenizer.json`` in.

        Returns:
            The file.
        """
        target = Path(path)
        if target.is_dir():
            target = target / "tokenizer.json"
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            part.write_text(self._hf.json, encoding="utf-8")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    @property
    def engine(self) -> Literal["gigatoken", "tokenizers"]:
        """What encodes; chosen when it is first needed."""
        return "tokenizers" if self._fast is None else "gigatoken"

    @property
    def engine_reason(self) -> str:
        """Why `engine` is what it is."""
        return self._choice[1]

    @property
    def _fast(self) -> Gigatoken | None:
        return self._choice[0]

    @functools.cached_property
    def _choice(self) -> tuple[Gigatoken | None, str]:
        if self._asked == "tokenizers":
            return None, "engine='tokenizers' was asked for"
        from variegate import _gigatoken

        version = _gigatoken.version()
        if version is None:
            return None, "gigatoken is not installed: pip install 'variegate[fast]'"
        try:
            encoder = _gigatoken.Gigatoken(self._hf.json)
            odd = _gigatoken.disagreement(encoder, self._hf)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a panic of its core is no Exception
            message = str(error).splitlines() or [type(error).__name__]
            return None, f"gigatoken {version} does not take this tokenizer: {message[0]}"
        if odd is not None:
            return None, f"gigatoken {version} and tokenizers give different ids for {_shortened(odd)!r}"
        return encoder, f"gigatoken {version} gives the ids of tokenizers on all sample texts"

    @functools.cached_property
    def _affixes(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]] | None:
        return self._hf.affixes()

    def __eq__(self, other: object) -> bool:
        """Whether the other is a tokenizer that encodes and decodes the same way."""
        return self is other or (isinstance(other, Tokenizer) and self.fingerprint == other.fingerprint)

    def __hash__(self) -> int:
        """A hash of the fingerprint."""
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the ``tokenizer.json`` and the engine that was asked for; the packaged one by name alone."""
        return (Tokenizer.default, ()) if self._packaged else (_from_json, (self._hf.json, self._asked))

    def __repr__(self) -> str:
        """Size, beginning of the fingerprint, and the engine if it is chosen."""
        engine = self.engine if "_choice" in self.__dict__ else self._asked
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint='{self.fingerprint[:12]}', engine='{engine}')"


@functools.lru_cache(8)
def _from_json(json: str, engine: Engine) -> Tokenizer:
    """A tokenizer from its pickle, the same one for all batches that come from a worker."""
    tokenizer = Tokenizer.__new__(Tokenizer)
    tokenizer._load(json, engine)
    return tokenizer


def _file(path: Path) -> Path:
    if path.is_dir():
        if not (path / "tokenizer.json").is_file():
            raise InvalidInput(f"{path}: the directory holds no tokenizer.json")
        return path / "tokenizer.json"
    if not path.exists():
        raise InvalidInput(f"{path}: no such file; pass a tokenizer.json or a directory that holds one")
    return path


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not a tokenizer.json: not UTF-8 (byte {error.start})") from None


def _json_of(source: object) -> str:
    for candidate in (source, getattr(source, "backend_tokenizer", None)):
        to_str = getattr(candidate, "to_str", None)
        if callable(to_str):
            return str(to_str())
    raise InvalidInput(
        "source must be a path, a tokenizers.Tokenizer or a fast tokenizer of transformers, "
        f"not {type(source).__name__}"
    )


def _text_batch(texts: Any) -> TextBatch:
    if isinstance(texts, TextBatch):
        return texts
    if hasattr(texts, "__arrow_c_stream__") or hasattr(texts, "__arrow_c_array__"):
        return TextBatch.from_arrow(texts)
    return TextBatch.from_texts(texts)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
