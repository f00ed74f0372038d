"""Writes the golden vectors of the subword ops beside this file, by a plain Python oracle.

Written from the documented scheme (docs/ops.md, "How an op draws"): a queue that is a sorted list, a lattice that is a
dict, tokenizers of a few merges and pieces that are made here. It shares the Philox of generate_ops.py and nothing with
the package.

    python tests/vectors/generate_subword.py            # writes
    python tests/vectors/generate_subword.py --check    # fails if a file differs
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generate_ops import MASK64, Stream, limit, main, mix, op_key  # noqa: E402

WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
"""GPT-2's words, for ASCII."""


# Tokenizers ----------------------------------------------------------------------------------------------------------


def byte_letters() -> list[str]:
    """The letter that spells each byte in a byte-level vocabulary."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, other = [], 0
    for byte in range(256):
        if byte in plain:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + other))
            other += 1
    return letters


MERGES = [
    *("t h", "i n", "th e", "Ġ the", "Ġ a", "e r", "o n", "l o", "lo w", "Ġ lo", "Ġlo w", "low er", "Ġlow er"),
    *("r e", "in g", "a b", "ab ab", "b a", "a ba", "Ġ n", "n e", "ne w", "Ġn ew", "Ġne w", "e s", "es t", "1 1"),
]


def byte_level() -> dict[str, Any]:
    merges = [merge.split() for merge in MERGES]
    parts = [token for merge in merges for token in (*merge, "".join(merge))]
    vocabulary = dict.fromkeys(["<|end|>", *byte_letters(), *parts])
    spaces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [added(0, "<|end|>")],
        "pre_tokenizer": spaces,
        "decoder": spaces,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(vocabulary)}, "merges": merges},
    }


def added(token_id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content} | flags


PIECES = {
    "<unk>": 0.0, "</s>": 0.0, "▁": -2.0, "a": -2.5, "b": -3.0, "c": -3.25, "n": -3.0, "é": -6.5, "ab": -3.5,
    "ba": -4.0, "▁a": -2.75, "▁ab": -4.5, "an": -3.125, "ana": -4.25, "▁ban": -5.0, "na": -3.0, "cab": -6.0,
    "aba": -4.625, "né": -5.0, "▁an": -3.875,
}  # fmt: skip


def unigram() -> dict[str, Any]:
    marks = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "added_tokens": [added(0, "<unk>"), added(1, "</s>")],
        "pre_tokenizer": marks,
        "decoder": marks,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [[piece, score] for piece, score in PIECES.items()]},
    }


# BPE dropout ---------------------------------------------------------------------------------------------------------


def branch(stream: Stream, part: int) -> Stream:
    """A stream of its own for a part of a row."""
    h = 0
    for number in (stream.key, part):
        h = mix((h + 0x9E3779B97F4A7C15 * ((number + 1) & MASK64)) & MASK64)
    return Stream(h, stream.epoch, stream.row_id)


def merged(letters: list[str], ranks: dict[tuple[str, str], int], made: list[str], dropped: Any) -> list[str]:
    """BPE of one word; `dropped(k)` says whether the k-th candidate that is looked at is passed over."""
    symbols: list[str | None] = list(letters)

    def right(at: int) -> int | None:
        return next((j for j in range(at + 1, len(symbols)) if symbols[j] is not None), None)

    def left(at: int) -> int | None:
        return next((j for j in range(at - 1, -1, -1) if symbols[j] is not None), None)

    def rank(at: int | None) -> int | None:
        other = None if at is None or symbols[at] is None else right(at)
        return None if other is None else ranks.get((symbols[at], symbols[other]))

    queue = sorted((rank(at), at) for at in range(len(symbols)) if rank(at) is not None)
    passed: list[tuple[int, int]] = []
    looked = 0
    while queue:
        top = queue.pop(0)
        looked += 1
        if dropped(looked - 1):
            passed.append(top)
            continue
        queue, passed = sorted(queue + passed), []
        now = rank(top[1])
        if now is None or made[now] != made[top[0]]:
            continue
        at, gone = top[1], right(top[1])
        symbols[at], symbols[gone] = made[now], None
        queue = sorted(queue + [(rank(j), j) for j in (left(at), at) if rank(j) is not None])
    return [symbol for symbol in symbols if symbol is not None]


def bpe_words(text: str, base: int, rate: float, stream: Stream, model: dict[str, Any]) -> list[tuple[str, bool]]:
    """The tokens of a text and whether the word of each had a merge dropped."""
    letters = byte_letters()
    merges = [tuple(merge) for merge in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    made = ["".join(pair) for pair in merges]
    out = []
    for match in WORD.finditer(text):
        at, n = base + match.start(), len(match[0])
        hits = []
        further = branch(stream, at)

        def dropped(k: int, at: int = at, n: int = n, hits: list[bool] = hits, further: Stream = further) -> bool:
            word = stream.word(0, 3 * at + k) if k < 3 * n else further.word(0, k - 3 * n)
            hits.append(word >> 8 < limit(rate))
            return hits[-1]

        tokens = merged([letters[ord(c)] for c in match[0]], ranks, made, dropped)
        out += [(token, any(hits)) for token in tokens]
    return out


# Unigram sampling ----------------------------------------------------------------------------------------------------


def exp(x: float) -> tuple[float, int]:
    """e^x as mantissa in [1, 2) and exponent, by additions and multiplications in a fixed order."""
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * 0.6931471228599548) - k * 5.769999040475414e-08
    total = 1.0
    for n in range(14, 0, -1):
        total = 1.0 + total * r / n
    return normal(total, k)


def normal(mantissa: float, exponent: int) -> tuple[float, int]:
    half, power = math.frexp(mantissa)
    return half * 2, exponent + power - 1


def times(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    return normal(a[0] * b[0], a[1] + b[1])


def plus(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    large, small = (b, a) if a[1] < b[1] else (a, b)
    gap = small[1] - large[1]
    return normal(large[0] + (math.ldexp(small[0], gap) if gap >= -64 else 0.0), large[1])


def below(stream: Stream, place: int, n: int) -> int:
    """64 bits of a place from two lanes, again from the next two while the result would be biased."""
    for lane in range(1, 15, 2):
        bits = stream.word(lane, place) << 32 | stream.word(lane + 1, place)
        high, low = divmod(bits * n, 2**64)
        if low >= (2**64 - n) % n or lane == 13:
            return high
    raise AssertionError


def sampled(word: str, base: int, alpha: float, stream: Stream) -> list[str]:
    raw = word.encode()
    weights = {piece.encode(): exp(alpha * score) for piece, score in PIECES.items() if piece[0] != "<"}
    sums: dict[int, tuple[float, int]] = {0: (1.0, 0)}
    into: dict[int, list[tuple[int, bytes]]] = {}
    for start in range(len(raw)):
        for end in range(start + 1, len(raw) + 1):
            piece = raw[start:end]
            if start in sums and piece in weights:
                way = times(sums[start], weights[piece])
                sums[end] = plus(sums[end], way) if end in sums else way
                into.setdefault(end, []).insert(0, (start, piece))
    out: list[str] = []
    end = len(raw)
    while end:
        ways = [times(sums[start], weights[piece]) for start, piece in into[end]]
        top = max(exponent for _, exponent in ways)
        counts = [math.floor(math.ldexp(mantissa, 40 + exponent - top)) for mantissa, exponent in ways]
        chosen = 0
        if len(ways) > 1:
            left = below(stream, base + end - 1, sum(counts))
            while left >= counts[chosen]:
                left -= counts[chosen]
                chosen += 1
        end, piece = into[end][chosen]
        out.insert(0, piece.decode())
    return out


def unigram_words(text: str, base: int, p: dict[str, Any], stream: Stream) -> list[tuple[str, bool]]:
    out = []
    for match in re.finditer("▁?[^▁]*", text):
        at = base + len(text[: match.start()].encode())
        if match[0]:
            hit = stream.word(0, at) >> 8 < limit(p["rate"])
            alpha = p["alpha"] if hit else None
            pieces = sampled(match[0], at, alpha, stream) if hit else best(match[0])
            out += [(piece, hit) for piece in pieces]
    return out


def best(word: str) -> list[str]:
    """The segmentation of the highest score."""
    found: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
    for end in range(1, len(word) + 1):
        options = [
            (found[start][0] + PIECES[word[start:end]], [*found[start][1], word[start:end]])
            for start in range(end)
            if start in found and word[start:end] in PIECES
        ]
        if options:
            found[end] = max(options, key=lambda option: option[0])
    return found[len(word)][1]


# Fill in the middle, at characters -----------------------------------------------------------------------------------


def fill_in_middle(text: str, p: dict[str, Any], stream: Stream) -> list[tuple[int | str, int, int, int]]:
    """Tokens (or the numbers of sentinels), and the part of the text that each stands for; clusters are characters.

    Every part is encoded from its start, which is what the op does with less work.
    """
    whether, spm = (stream.word(0, k) >> 8 < limit(p[rate]) for k, rate in enumerate(("fim_rate", "fim_spm_rate")))
    stream.at[0] = 2
    held = len(text) - len(text.removesuffix("<|end|>"))
    size = len(text) - held

    def encoded(start: int, end: int) -> list[tuple[int | str, int, int, int]]:
        out, at = [], start
        for token, _, stop in tokens_of("BpeDropout", text[start:end], {"rate": 0.0}, None):
            length = len("<|end|>") if token == "<|end|>" else len(token)
            out.append((token, at, at + length, stop))
            at += length
        return out

    if not whether or not size:
        return encoded(0, len(text))
    cuts: list[int] = []
    while len(cuts) < 2:
        at = stream.next_below(0, size + 1)
        marks = [match.span() for match in re.finditer(re.escape("<|end|>"), text)]
        if not any(start < at < end for start, end in marks):
            cuts.append(at)
    a, b = sorted(cuts)
    prefix, middle, suffix = encoded(0, a), encoded(a, b), encoded(b, size)
    sentinel = {name: [(p[f"{name}_id"], -1, -1, 0)] for name in ("prefix", "middle", "suffix")}
    if spm:
        out = sentinel["prefix"] + sentinel["suffix"] + suffix + sentinel["middle"] + prefix + middle
    else:
        out = sentinel["prefix"] + prefix + sentinel["suffix"] + suffix + sentinel["middle"] + middle
    return out + encoded(size, len(text))


def middle_case(spec: dict[str, Any], seed: int, epoch: int, variant: int) -> dict[str, Any]:
    p = spec["FillInMiddle"]
    vocabulary = TOKENIZERS["BpeDropout"]["model"]["vocab"]
    before, out = [], {name: [] for name in ("tokens", "source", "edited", "special")}
    for row_id, text in zip(IDS, TEXTS["FillInMiddle"], strict=True):
        stream = Stream(op_key(seed, "FillInMiddle#0", variant), epoch, row_id)
        old, at = [], 0
        for token, _, _ in tokens_of("BpeDropout", text, {"rate": 0.0}, None):
            length = len("<|end|>") if token == "<|end|>" else len(token)
            old.append((token, at, at + length))
            at += length
        before.append([vocabulary[token] for token, _, _ in old])
        new = fill_in_middle(text, p, stream)
        held = [next((i for i, (_, _, end) in enumerate(old) if end > start), -1) if start >= 0 else -1
                for _, start, _, _ in new]  # fmt: skip
        out["tokens"].append([vocabulary[token] if isinstance(token, str) else token for token, *_ in new])
        out["source"].append(held)
        out["edited"].append([int(k < 0 or old[k] != one[:3]) for k, one in zip(held, new, strict=True)])
        out["special"].append([int(k >= 0 and k % 6 == 0) for k in held])
    special = [[int(i % 6 == 0) for i in range(len(row))] for row in before]
    call = {"spec": spec, "seed": seed, "epoch": epoch, "variant": variant}
    tokenizer = TOKENIZERS["BpeDropout"]
    return call | {"tokens": before, "special": special, "ids": IDS, "tokenizer": tokenizer, "out": out}


# Cases ---------------------------------------------------------------------------------------------------------------

IDS = [0, 1, 2**32 - 1, 2**64 - 1, 11]
TEXTS = {
    "BpeDropout": [
        "",
        "a",
        "lower the ababa, newest",
        "the<|end|> lowering   new 1111's\n\nabababababab",
        " lower" * 9,
    ],
    "FillInMiddle": [
        "",
        "a",
        "lower the ababa, newest",
        "the<|end|> lowering   new 1111's\n\n  abababababab<|end|>",
        " lower the, new" * 9,
    ],
    "UnigramSample": ["", "▁a", "▁banana▁cab", "▁ab</s>▁né▁cabana", "▁banabanabanabanabanabanana" * 3],
}
TOKENIZERS = {"BpeDropout": byte_level(), "UnigramSample": unigram()}
SPECS = {
    "bpe_dropout": [
        {"BpeDropout": {"rate": 0.1}},
        {"BpeDropout": {"rate": 0.5}},
        {"BpeDropout": {"rate": 1.0}},
        {"BpeDropout": {"rate": 0.9, "name": "x"}},
    ],
    "fill_in_middle_character": [
        {
            "FillInMiddle": {
                "fim_rate": rate,
                "fim_spm_rate": spm,
                "prefix_id": 901,
                "middle_id": 902,
                "suffix_id": 903,
                "level": "character",
            }
        }
        for rate, spm in ((1.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.0, 0.5))
    ],
    "unigram_sample": [
        {"UnigramSample": {"alpha": 0.3, "rate": 1.0}},
        {"UnigramSample": {"alpha": 0.0, "rate": 0.5}},
        {"UnigramSample": {"alpha": 1.0, "rate": 1.0}},
    ],
}
CALLS = [(7, 0, 0), (2**64 - 1, 2**32 - 1, 2**64 - 1), (1, 3, 5)]


def tokens_of(kind: str, text: str, p: dict[str, Any], stream: Stream | None) -> list[tuple[str, bool, int]]:
    """Tokens, whether their word was drawn, and the end of each in bytes; without a stream, the tokenizer's own."""
    out: list[tuple[str, bool, int]] = []
    at = 0
    for part in re.split(r"(<\|end\|>|</s>)", text):
        if part.startswith("<"):
            out.append((part, False, at))
        elif part and kind == "BpeDropout":
            quiet = Stream(0, 0, 0)
            model = TOKENIZERS[kind]["model"]
            words = bpe_words(part, at, p["rate"] if stream else 0.0, stream or quiet, model)
        elif part:
            words = unigram_words(part, at, p, stream) if stream else [(piece, False) for piece in plain(part)]
        if part and not part.startswith("<"):
            for token, drawn in words:
                at += len(token) if kind == "BpeDropout" else len(token.encode())
                out.append((token, drawn, at))
    return out


def plain(text: str) -> list[str]:
    return [piece for word in re.findall("▁?[^▁]+|▁", text) for piece in best(word)]


def case(spec: dict[str, Any], seed: int, epoch: int, variant: int) -> dict[str, Any]:
    ((kind, p),) = spec.items()
    if kind == "FillInMiddle":
        return middle_case(spec, seed, epoch, variant)
    tokenizer = TOKENIZERS[kind]
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    before, out = [], {"tokens": [], "source": [], "edited": [], "special": []}
    for row_id, text in zip(IDS, TEXTS[kind], strict=True):
        stream = Stream(op_key(seed, p.get("name", f"{kind}#0"), variant), epoch, row_id)
        old = tokens_of(kind, text, p, None)
        new = tokens_of(kind, text, p, stream)
        before.append([vocabulary[token] for token, _, _ in old])
        source, edited, start = [], [], 0
        for token, _, end in new:
            # The old token that holds the first byte; an added token spells none and is found in its place.
            if token.startswith("<"):
                held = next(i for i, (other, _, stop) in enumerate(old) if other == token and stop == end)
            else:
                held = next(i for i, (_, _, stop) in enumerate(old) if stop > start)
            begin = old[held - 1][2] if held else 0
            source.append(held)
            edited.append(int((old[held][0], begin, old[held][2]) != (token, start, end)))
            start = end
        out["tokens"].append([vocabulary[token] for token, _, _ in new])
        out["source"].append(source)
        out["edited"].append(edited)
        out["special"].append([held % 6 == 0 for held in source])
    out["special"] = [[int(flag) for flag in row] for row in out["special"]]
    special = [[int(i % 6 == 0) for i in range(len(row))] for row in before]
    call = {"spec": spec, "seed": seed, "epoch": epoch, "variant": variant}
    return call | {"tokens": before, "special": special, "ids": IDS, "tokenizer": tokenizer, "out": out}


def vectors() -> dict[str, str]:
    """File name -> text of every vector file."""
    files = {}
    for name, specs in SPECS.items():
        cases = [case(spec, *CALLS[k % len(CALLS)]) for k, spec in enumerate(specs)]
        lines = ",\n".join(json.dumps(one, ensure_ascii=True) for one in cases)
        files[f"{name}.json"] = f"[\n{lines}\n]\n"
    return files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], vectors()))
