"""The fast encoder: gigatoken over the buffers of a batch, for tokenizers on which it agrees with the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from variegate import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = tuple[NDArray[np.uint32], NDArray[np.int64]]

__all__ = ["Gigatoken", "disagreement", "version"]

_THREAD_BYTES = 1 << 18
"""Text below which another thread costs more than it brings."""

_CACHE_BYTES = 1 << 27
"""Text after which an encoder is made anew: it remembers every word it ever saw."""


def version() -> str | None:
    """The installed version of gigatoken, or None."""
    try:
        import awkward  # noqa: F401
        import gigatoken.gigatoken_rs  # noqa: F401
    except ImportError:
        return None
    from importlib import metadata

    return metadata.version("gigatoken")


class Gigatoken:
    """Encoders of one tokenizer: one for each thread, as an encoder works for one thread at a time.

    An encoder at work is in nobody's list, so that a process forked at that moment does not inherit a locked one.
    gigatoken's own pool of threads, which would not survive the fork, is never used.
    """

    def __init__(self, json: str) -> None:
        """Loads the tokenizer; raises whatever gigatoken raises for one that it does not take."""
        self._json = json
        self._idle: list[tuple[Any, int]] = []
        self._idle.append(self._new())

    def _new(self) -> tuple[Any, int]:
        from gigatoken.gigatoken_rs import load_hf_json

        return load_hf_json(self._json), 0

    def forget(self) -> None:
        """Lets go of the encoders and the words they remember; the next call makes new ones."""
        self._idle.clear()

    def encode(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Tokens:
        """Tokens uint32 and offsets int64 of UTF-8 rows, with as many threads as variegate may use."""
        rows, size = len(offsets) - 1, int(offsets[-1])
        parts = min(_core.get_num_threads(), rows, size // _THREAD_BYTES)
        if parts < 2:
            return self._encode(data, offsets)
        cuts = np.searchsorted(offsets, np.arange(1, parts) * (size / parts)).tolist()
        bounds = list(zip([0, *cuts], [*cuts, rows], strict=True))
        with ThreadPoolExecutor(parts) as threads:
            done = list(threads.map(lambda cut: self._encode(data, offsets[cut[0] : cut[1] + 1]), bounds))
        firsts = np.cumsum([0, *(len(tokens) for tokens, _ in done)])
        own = [part[1:] + first for (_, part), first in zip(done, firsts, strict=False)]
        return np.concatenate([tokens for tokens, _ in done]), np.concatenate([np.zeros(1, np.int64), *own])

    def _encode(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Tokens:
        import awkward as ak

        characters = ak.contents.NumpyArray(data, parameters={"__array__": "char"})
        texts = ak.contents.ListOffsetArray(ak.index.Index64(offsets), characters, parameters={"__array__": "string"})
        try:
            encoder, seen = self._idle.pop()
        except IndexError:
            encoder, seen = self._new()
        encoded = encoder.encode_batch(ak.Array(texts), parallel=False)
        seen += int(offsets[-1] - offsets[0])
        if seen < _CACHE_BYTES:
            self._idle.append((encoder, seen))
        layout = ak.to_layout(encoded).to_ListOffsetArray64(True)
        ends = np.asarray(layout.offsets.data)
        return np.asarray(layout.content.data)[: ends[-1]], ends


def disagreement(encoder: Gigatoken, reference: _core.HfTokenizer) -> str | None:
    """The first sample text on which the encoders differ, or None."""
    data, offsets = _core.text_rows(_samples(reference))
    ours, ours_at = encoder.encode(data, offsets)
    theirs, theirs_at = reference.encode(data, offsets, False)
    if np.array_equal(ours, theirs) and np.array_equal(ours_at, theirs_at):
        return None
    for row in range(len(offsets) - 1):
        mine, right = ours[ours_at[row] : ours_at[row + 1]], theirs[theirs_at[row] : theirs_at[row + 1]]
        if not np.array_equal(mine, right):
            return data[offsets[row] : offsets[row + 1]].tobytes().decode()
    return None


_TRICKY = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "   leading and trailing   ",
    "The quick brown fox jumps over the lazy dog. It doesn't mind; they'll say we've, I'm, you're, he'd, SHE'S, CAN'T.",
    "don’t ‘quote’ “me” — or… «toi»",
    "one\ntwo\r\nthree\rfour\n\n\nfive\r\n\r\n\tsix\t\tseven \n eight\n  nine",
    "\n",
    "\r\n",
    "\t\t",
    "a  b   c    d     e",
    "1 12 123 1234 12345 123456789 0.5 1,000,000.00 1e-9 0xFF ½ ² ٣٤٥ Ⅷ 一二三 1st",
    "def f(x: int = 0) -> str:\n    '''Doc.'''\n    if x != -1 and x <= 10_000:\n        return f\"{x!r:>8}\"  # ok\n",
    "for(int i=0;i<n;++i){a[i]+=b[i]*2;}//x\n\t}\n\n\n",
    '<div class="a b">&nbsp;&#x27;</div> https://ex.org/a_b?c=d&e=%20#f me@ex.org C:\\dir\\file.txt',
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case x.y.z a/b/c",
    "!!!??? ... ,,, ;;; ::: --- ___ *** ((())) [[[]]] {{{}}} ~~~ ``` $$$",
    "%%% ^^^ &&& @@@ ### +++ === <<< >>> ||| \\\\\\ a!b?c.d,e;f:g -> => != <= >= == // ** ++ --",
    "\x00 nul \x00\x00 \x01\x02\x1b[0m \x7f \x80\x85\x9f",
    "\u00a0no\u00a0break\u2003em\u200bzero\u200c\u200d\u2028line\u2029paragraph\u3000wide\ufeffbom\u00adsoft\u202ertl\u202c",
    "naïve café ÀÉÎÕÜ ñ ß ẞ ﬁ ﬀ Œ æ ø đ ł İ ı ǆ ǅ ʰ ª º µ",
    "e\u0301 o\u0308\u0304 n\u0303 \u0301alone a\u0300\u0301\u0302\u0303 Z̴̡͙a̷l̶g̵o̸",
    "Привет, мир! Ελληνικά Ωμέγα. שָׁלוֹם עולם. مرحبا بالعالم ١٢٣ العَرَبِيَّة.",
    "हिन्दी में पाठ। ไทยภาษา ភាសាខ្មែរ বাংলা தமிழ் ქართული ՀԱՅ",
    "日本語のテキスト、漢字とカナ。中文测试，繁體。한국어 문장입니다. ㄱㄴ 𠀀𠮷 ㍿ ｶﾅ ＦＵＬＬ　ＷＩＤＴＨ",
    "😀😃 👍🏽 👨‍👩‍👧‍👦 🇫🇷🇯🇵 ❤️ ☕︎ 🏳️‍🌈 ©™ ←→ ∀x∈ℝ: ⌈x⌉ ∑∫√∞ 𝒜𝓑 ①②",
    "\ue000\uf8ff \ufffd \ufffe\uffff \U000e0001 \U0001ffff \U0010fffd\U0010ffff",
    "a" * 300,
    " " * 300,
    "\n" * 100,
    " \n" * 60 + "x",
    "\t " * 40,
    "ab" * 200,
    "0123456789" * 20,
    "é" * 100,
    "日" * 100,
    "😀" * 40,
    "-" * 200 + " " + "=" * 77,
    "thequickbrownfox" * 20,
    "x" * 4096,
]


def _samples(reference: _core.HfTokenizer) -> list[str]:
    """Texts that are hard to split, every special token between all kinds of neighbours, and much of the vocabulary."""
    import unicodedata

    samples = list(_TRICKY)
    samples += [
        a + b for a in ("x", " ", "\n", "é", "7", ".") for b in (" y", "  y", "\n\ny", "\r\n y", "'s", "12", "?")
    ]
    for token in reference.special_ids()[:32].tolist():
        s = reference.id_to_token(token) or ""
        samples += [s, s + s, f"a{s}b", f" {s} ", f"a  {s}  b", f"\n{s}\n", s[:-1], s + s[1:], s.upper(), s[1:] + s]
    points = [c for c in range(0x20, 0x11000, 37) if not 0xD800 <= c < 0xE000]
    samples += ["".join(map(chr, points[i : i + 64])) for i in range(0, len(points), 64)]
    marks = [chr(c) for c in range(0x300, 0x2100) if unicodedata.category(chr(c)).startswith("M")]
    samples += ["".join(marks), "-".join(marks), "".join("a" + mark for mark in marks)]

    data, at = reference.token_bytes()
    whole = np.flatnonzero(reference.whole_characters())
    words = [data[at[t] : at[t + 1]].tobytes().decode() for t in whole[:: max(1, len(whole) // 4096)].tolist()]
    for joint in ("", " ", "\n"):
        samples += [joint.join(words[i : i + 64]) for i in range(0, len(words), 64)]
    return samples
