"""Writes the golden vectors beside this file: what each op makes of small batches, by a plain numpy oracle.

The oracle is written from the documented scheme (docs/ops.md, "How an op draws") and shares no code with the package:
its Philox, its keys and its ops are its own, one row and one token at a time. Rust and Python tests read the vectors.
A changed vector is a breaking change.

    python tests/vectors/generate_ops.py            # writes
    python tests/vectors/generate_ops.py --check    # fails if a file differs
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import sys
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MASK64 = 2**64 - 1
OPS = 8
"""The domain number of ops in the randomness scheme."""


# Randomness ----------------------------------------------------------------------------------------------------------


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 (Salmon et al., 2011): one block of four words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def philox_blocks(blocks: np.ndarray, epoch: int, row_id: int, key: int) -> np.ndarray:
    """The same for many blocks of a row at once, uint64 arithmetic in numpy: [blocks, 4]."""
    low = np.uint64(0xFFFFFFFF)
    shape = len(blocks)
    c = [blocks.astype(np.uint64)]
    c += [np.full(shape, word, np.uint64) for word in (epoch, row_id & 0xFFFFFFFF, row_id >> 32)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        thirty_two = np.uint64(32)
        c = [p1 >> thirty_two ^ c[1] ^ np.uint64(k[0]), p1 & low, p0 >> thirty_two ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, 1).astype(np.uint32)


def mix(x: int) -> int:
    """The finaliser of SplitMix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK64
    return x ^ x >> 31


def op_key(seed: int, path: str, variant: int) -> int:
    """The key of an op: domain, seed, FNV-1a of its path, variant, folded in this order."""
    fnv = 0xCBF29CE484222325
    for byte in path.encode():
        fnv = (fnv ^ byte) * 0x100000001B3 & MASK64
    h = 0
    for part in (OPS, seed, fnv, variant):
        h = mix((h + 0x9E3779B97F4A7C15 * ((part + 1) & MASK64)) & MASK64)
    return h


class Stream:
    """The words of one op for one row."""

    def __init__(self, key: int, epoch: int, row_id: int) -> None:
        self.key, self.epoch, self.row_id = key, epoch, row_id
        self.at: dict[int, int] = {}

    def word(self, lane: int, index: int) -> int:
        counter = [lane << 28 | index >> 2, self.epoch, self.row_id & 0xFFFFFFFF, self.row_id >> 32]
        return philox(counter, [self.key & 0xFFFFFFFF, self.key >> 32])[index & 3]

    def lane(self, lane: int, n: int) -> np.ndarray:
        blocks = (lane << 28) + np.arange((n + 3) // 4)
        return philox_blocks(blocks, self.epoch, self.row_id, self.key).reshape(-1)[:n]

    def rolls(self, n: int) -> list[int]:
        """Per position, 24 uniform bits of lane 0."""
        return [int(word) >> 8 for word in self.lane(0, n)]

    def next_below(self, lane: int, n: int) -> int:
        """A uniform integer below n from the next words of a lane: multiply-high with rejection."""
        while True:
            index = self.at.get(lane, 0)
            self.at[lane] = index + 1
            high, low = divmod(self.word(lane, index) * n, 2**32)
            if low >= (2**32 - n) % n:
                return high

    def below_at(self, first: int, i: int, n: int) -> int:
        """A uniform integer below n for position i: word i of lanes `first`, `first` + 1, ... until one is fair."""
        for lane in range(first, 16):
            high, low = divmod(self.word(lane, i) * n, 2**32)
            if low >= (2**32 - n) % n or lane == 15:
                return high
        raise AssertionError


def limit(p: float) -> int:
    """A roll below this has probability p."""
    return math.ceil(p * 2**24)


# Ops on tokens: (tokens, protected, stream, parameters) -> source, tokens, edited, and what else they make ------------


def token_dropout(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rolls = stream.rolls(len(tokens))
    kept = [i for i in range(len(tokens)) if shut[i] or rolls[i] >= limit(p["rate"])]
    if tokens and not kept:
        kept = [max(range(len(tokens)), key=lambda i: (rolls[i], -i))]
    return {"source": kept, "tokens": [tokens[i] for i in kept], "edited": [0] * len(kept)}


def token_swap(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rolls = stream.rolls(len(tokens))
    source, edited, i = list(range(len(tokens))), [0] * len(tokens), 0
    while i + 1 < len(tokens):
        if rolls[i] < limit(p["rate"]) and not shut[i] and not shut[i + 1]:
            source[i], source[i + 1] = i + 1, i
            edited[i] = edited[i + 1] = 1
            i += 1
        i += 1
    return {"source": source, "tokens": [tokens[i] for i in source], "edited": edited}


def token_replace(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rolls = stream.rolls(len(tokens))
    rates = [p["rate"]] * len(tokens)
    if p.get("rates"):
        rates = [p["rate"] * p["rates"][token] if token < len(p["rates"]) else 0.0 for token in tokens]
    edited = [int(roll < limit(rate) and not s) for roll, rate, s in zip(rolls, rates, shut, strict=True)]
    out = [vocabulary(stream, p, i) if hit else tokens[i] for i, hit in enumerate(edited)]
    return {"source": list(range(len(tokens))), "tokens": out, "edited": edited}


def vocabulary(stream: Stream, p: dict[str, Any], i: int) -> int:
    """The token that noise draws for position i."""
    if not p.get("weights"):
        return stream.below_at(1, i, p["vocab_size"])
    table = alias(tuple(p["weights"]))
    column = stream.below_at(2, i, len(table))
    own, other = table[column]
    return column if stream.word(1, i) < own else other


@functools.cache
def alias(weights: tuple[float, ...]) -> list[tuple[int, int]]:
    """Vose's alias table in fractions: (limit of 2^32, other) per column. Small and large columns are stacks that
    start in ascending order; a large column that became small goes on the stack of small ones."""
    most = max(weights)
    whole = [max(round(Fraction(w / most * 2.0**52)), int(w > 0)) for w in weights]
    mean = Fraction(sum(whole), len(whole))
    left = [Fraction(w) for w in whole]
    table = [(2**32, i) for i in range(len(whole))]
    small = [i for i in range(len(whole)) if left[i] < mean]
    large = [i for i in range(len(whole)) if left[i] >= mean]
    while small and large:
        s, big = small.pop(), large[-1]
        table[s] = (math.floor(left[s] / mean * 2**32), big)
        left[big] -= mean - left[s]
        if left[big] < mean:
            large.pop()
            small.append(big)
    return table


def masked_lm(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rate, mask, rand = p["mlm_probability"], p["mask_replace_prob"], p["random_replace_prob"]
    rolls = stream.rolls(len(tokens))
    out, edited, labels = list(tokens), [0] * len(tokens), [-100] * len(tokens)
    for i, token in enumerate(tokens):
        if shut[i] or rolls[i] >= limit(rate):
            continue
        edited[i], labels[i] = 1, token
        if rolls[i] < limit(rate * mask):
            out[i] = p["mask_id"]
        elif rolls[i] < limit(rate * (mask + rand)):
            out[i] = stream.below_at(1, i, p["vocab_size"])
    return {"source": list(range(len(tokens))), "tokens": out, "edited": edited, "labels": labels}


def span_corruption(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    density, mean = p["noise_density"], p["mean_noise_span_length"]
    sentinels, step, eos = p["num_sentinels"], p["sentinel_step"], p.get("eos_id")
    free = [i for i in range(len(tokens)) if not shut[i]]
    n = len(free)
    noisy = [False] * len(tokens)
    starts = [False] * len(tokens)
    if n >= 2 and density > 0:
        noise = min(max(int(np.rint(n * density)), 1), n - 1)
        spans = min(max(int(np.rint(noise / mean)), 1), noise, n - noise, sentinels)
        at = 0
        noise_parts, rest_parts = partition(stream, 0, noise, spans), partition(stream, 1, n - noise, spans)
        for quiet, loud in zip(rest_parts, noise_parts, strict=True):
            at += quiet
            starts[free[at]] = True
            for i in free[at : at + loud]:
                noisy[i] = True
            at += loud
    # A noise span of the row starts where one was drawn, or after a protected token within one.
    runs: list[list[int]] = []
    for i in range(len(tokens)):
        if noisy[i] and (starts[i] or not noisy[i - 1]):
            runs.append([])
        if noisy[i]:
            runs[-1].append(i)
    runs = runs[:sentinels]
    where = {i: k for k, run in enumerate(runs) for i in run}
    inputs: list[tuple[int, int]] = [] if p.get("prefix_id") is None else [(p["prefix_id"], -1)]
    targets: list[tuple[int, int]] = []
    for i, token in enumerate(tokens):
        if i not in where:
            inputs.append((token, i))
            continue
        sentinel = (p["sentinel_id"] + step * where[i], -1)
        if i == runs[where[i]][0]:
            inputs.append(sentinel)
            targets.append(sentinel)
        targets.append((token, i))
    if tokens and len(tokens) - 1 not in where and len(runs) < sentinels:
        targets.append((p["sentinel_id"] + step * len(runs), -1))
    if eos is not None:
        inputs.append((eos, -1))
        targets.append((eos, -1))

    return strand(inputs) | {"targets": strand(targets)}


def strand(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Tokens and where they come from, -1 for those that were inserted."""
    tokens, source = [t for t, _ in pairs], [s for _, s in pairs]
    return {"source": source, "tokens": tokens, "edited": [int(s < 0) for s in source]}


def partition(stream: Stream, lane: int, items: int, parts: int) -> list[int]:
    """The lengths of `parts` parts of `items` items, all cuts equally likely: Floyd's sampling of the cuts."""
    chosen: set[int] = set()
    for top in range(items - parts, items - 1):
        place = stream.next_below(lane, top + 1)
        chosen.add(top if place in chosen else place)
    ends = [*(place + 1 for place in sorted(chosen)), items]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def token_insert(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rolls = stream.rolls(len(tokens))
    pairs: list[tuple[int, int]] = []
    for i, token in enumerate(tokens):
        own = [(token, i)]
        if rolls[i] < limit(p["rate"]) and not shut[i]:
            new = [(vocabulary(stream, p, i), -1)]
            own = new + own if p["side"] == "before" else own + new
        pairs += own
    return strand(pairs)


def token_mask(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    edited = [int(r < limit(p["rate"]) and not s) for r, s in zip(stream.rolls(len(tokens)), shut, strict=True)]
    out = [p["mask_id"] if hit else token for hit, token in zip(edited, tokens, strict=True)]
    return {"source": list(range(len(tokens))), "tokens": out, "edited": edited}


def local_shuffle(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    rolls, source = stream.rolls(len(tokens)), list(range(len(tokens)))
    walls = [-1, *(i for i in source if shut[i]), len(tokens)]
    for left, right in itertools.pairwise(walls):
        span = range(left + 1, right)
        source[left + 1 : right] = sorted(span, key=lambda i: i + Fraction(rolls[i], 2**24) * (p["k"] + 1))
    return {
        "source": source,
        "tokens": [tokens[i] for i in source],
        "edited": [int(i != s) for i, s in enumerate(source)],
    }


def whole_word_mask(
    tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any], column: list[int]
) -> dict[str, Any]:
    rolls, hows = stream.rolls(len(tokens)), [int(word) >> 8 for word in stream.lane(1, len(tokens))]
    out, edited, labels = list(tokens), [0] * len(tokens), [-100] * len(tokens)
    words: list[list[int]] = []
    for i, word in enumerate(column):
        if i == 0 or word != column[i - 1]:
            words.append([])
        words[-1].append(i)
    for word in words:
        if column[word[0]] < 0 or rolls[word[0]] >= limit(p["mlm_probability"]) or any(shut[i] for i in word):
            continue
        for i in word:
            edited[i], labels[i] = 1, tokens[i]
            out[i] = hidden(stream, p, hows[i], 2, i, tokens[i])
    return {"source": list(range(len(tokens))), "tokens": out, "edited": edited, "labels": labels}


def hidden(stream: Stream, p: dict[str, Any], how: int, lane: int, i: int, token: int) -> int:
    """What a chosen token becomes by a roll of its own."""
    mask = p["mask_replace_prob"]
    if how < limit(mask):
        return int(p["mask_id"])
    if how < limit(mask + p["random_replace_prob"]):
        return stream.below_at(lane, i, p["vocab_size"])
    return token


def ngram_mask(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    free = [i for i in range(len(tokens)) if not shut[i]]
    noise = int(len(free) * p["mlm_probability"] + (stream.word(3, 0) >> 8) / 2**24)
    spans = scattered(stream, len(free), min(noise, len(free)), [0.0, *p["ngram_weights"]])
    out, edited, labels = list(tokens), [0] * len(tokens), [-100] * len(tokens)
    for k, (span, _) in enumerate(around(spans, free)):
        how = stream.word(4, k) >> 8
        for i in span:
            edited[i], labels[i] = 1, tokens[i]
            out[i] = hidden(stream, p, how, 5, i, tokens[i])
    return {"source": list(range(len(tokens))), "tokens": out, "edited": edited, "labels": labels}


def scattered(stream: Stream, n: int, noise: int, weights: list[float]) -> list[range]:
    """Spans of lengths drawn by weight that hold `noise` of n tokens, at places that are all equally likely."""
    total, ends = sum(map(Fraction, weights)), []
    for k in range(len(weights)):
        ends.append(math.floor(sum(map(Fraction, weights[: k + 1])) / total * 2**32))
    lengths: list[int] = []
    while sum(lengths) < noise:
        word = stream.word(0, len(lengths))
        lengths.append(min(sum(end <= word for end in ends), noise - sum(lengths)))
    if not lengths:
        return []
    first = stream.next_below(2, len(lengths))
    lengths = lengths[first:] + lengths[:first]
    # A row of slots, one for each span and one for each token outside: the spans' slots are drawn.
    gaps = partition(stream, 1, n - noise + len(lengths) + 1, len(lengths) + 1)
    spans, at = [], 0
    for gap, length in zip(gaps, lengths, strict=False):
        at += gap - 1
        spans.append(range(at, at + length))
        at += length
    return spans


def around(spans: list[range], free: list[int]) -> list[tuple[list[int], int]]:
    """Spans over the free tokens as tokens of the row, cut where a protected one comes between, and their starts."""
    out = []
    for span in spans:
        pieces: list[list[int]] = []
        for k in span:
            if not pieces or free[k] != free[k - 1] + 1:
                pieces.append([])
            pieces[-1].append(free[k])
        out += [(piece, piece[0]) for piece in pieces]
        if not pieces:
            out.append(([], free[span.start] if span.start < len(free) else free[-1] + 1))
    return out


def text_infilling(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    free = [i for i in range(len(tokens)) if not shut[i]]
    noise = min(math.ceil(len(free) * p["mask_ratio"]), len(free))
    weights, rest = [1.0], 1.0
    while len(weights) - 1 <= p["poisson_lambda"] or weights[-1] >= rest * 2.0**-40:
        weights.append(weights[-1] * p["poisson_lambda"] / len(weights))
        rest += weights[-1]
    pairs: list[tuple[int, int]] = []
    at = 0
    for span, start in around(scattered(stream, len(free), noise, weights), free):
        pairs += [(tokens[i], i) for i in range(at, start)] + [(p["mask_id"], -1)]
        at = start + len(span)
    return strand(pairs + [(tokens[i], i) for i in range(at, len(tokens))]) | {"restores": True}


def sentence_permute(
    tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any], column: list[int]
) -> dict[str, Any]:
    free = [i for i in range(len(tokens)) if not shut[i]]
    sentences: list[list[int]] = [[]]
    for i in range(free[0], free[-1] + 1) if free else []:
        sentences[-1].append(i)
        if column[i] if "end_column" in p else tokens[i] in p["end_ids"]:
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    movers = [k for k, sentence in enumerate(sentences) if not any(shut[i] for i in sentence)]
    chosen = math.ceil(len(movers) * p["permute_sentence_ratio"])
    for k in range(chosen):
        other = k + stream.next_below(0, len(movers) - k)
        movers[k], movers[other] = movers[other], movers[k]
    order = list(range(len(sentences)))
    for place, k in zip(sorted(movers[:chosen]), movers, strict=False):
        order[place] = k
    source = list(range(free[0])) if free else list(range(len(tokens)))
    edited = [0] * len(source)
    for place, k in enumerate(order):
        source += sentences[k]
        edited += [int(place != k)] * len(sentences[k])
    source += range(len(source), len(tokens))
    edited += [0] * (len(tokens) - len(edited))
    return {"source": source, "tokens": [tokens[i] for i in source], "edited": edited, "restores": True}


def prefix_lm(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    free = [i for i in range(len(tokens)) if not shut[i]]
    n = len(free)
    low = min(max(math.ceil(p["min_prefix"] * n), 1), n)
    high = max(min(int(p["max_prefix"] * n), n - 1), low)
    rest = set(free[low + stream.next_below(0, high - low + 1) :])
    if p["form"] == "labels":
        return {
            "source": list(range(len(tokens))),
            "tokens": tokens,
            "edited": [int(i in rest) for i in range(len(tokens))],
            "labels": [token if i in rest else -100 for i, token in enumerate(tokens)],
        }
    pairs = [(token, i) for i, token in enumerate(tokens)]
    return strand([pair for pair in pairs if pair[1] not in rest]) | {
        "targets": strand([pair for pair in pairs if pair[1] in rest])
    }


def ul2(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    r, s, x = p["weights"]
    settings = [(r / 2, "r_id", 0.15, 3.0), (r / 2, "r_id", 0.15, 8.0), (s, "s_id", 0.25, 1e9)]
    settings += [
        (x / 4, "x_id", density, mean) for density, mean in ((0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0))
    ]
    weights = [setting[0] for setting in settings]
    roll = stream.word(2, 0) >> 8
    k = sum(limit(sum(weights[: k + 1]) / sum(weights)) <= roll for k in range(7))
    _, name, density, mean = settings[k]
    own = {"noise_density": density, "mean_noise_span_length": mean, "prefix_id": p.get(name)}
    return span_corruption(tokens, shut, stream, p | own)


def fill_in_middle(tokens: list[int], shut: list[bool], stream: Stream, p: dict[str, Any]) -> dict[str, Any]:
    free = [i for i in range(len(tokens)) if not shut[i]]
    pairs = [(token, i) for i, token in enumerate(tokens)]
    if not free or stream.word(0, 0) >> 8 >= limit(p["fim_rate"]):
        return strand(pairs)
    first, last = free[0], free[-1] + 1
    places = [i for i in range(first, last + 1) if i in (first, last) or not (shut[i - 1] and shut[i])]
    stream.at[0] = 2
    cuts = sorted(places[stream.next_below(0, len(places))] for _ in range(2))
    prefix, middle, suffix = pairs[first : cuts[0]], pairs[cuts[0] : cuts[1]], pairs[cuts[1] : last]
    pre, mid, suf = ([(p[f"{name}_id"], -1)] for name in ("prefix", "middle", "suffix"))
    if stream.word(0, 1) >> 8 < limit(p["fim_spm_rate"]):
        moved = pre + suf + suffix + mid + prefix + middle
    else:
        moved = pre + prefix + suf + suffix + mid + middle
    return strand(pairs[:first] + moved + pairs[last:])


TOKEN_OPS = {
    "FillInMiddle": fill_in_middle,
    "LocalShuffle": local_shuffle,
    "MaskedLM": masked_lm,
    "NgramMask": ngram_mask,
    "PrefixLM": prefix_lm,
    "SentencePermute": sentence_permute,
    "SpanCorruption": span_corruption,
    "TextInfilling": text_infilling,
    "TokenDropout": token_dropout,
    "TokenInsert": token_insert,
    "TokenMask": token_mask,
    "TokenReplace": token_replace,
    "TokenSwap": token_swap,
    "UL2": ul2,
    "WholeWordMask": whole_word_mask,
}
READS = {"WholeWordMask": "word_ids", "SentencePermute": "end_column"}
"""The ops that read a column, and the parameter that names it."""


# Ops on text ---------------------------------------------------------------------------------------------------------

QWERTY = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "weadzx", "d": "ersfxc", "f": "rtdgcv", "g": "tyfhvb", "h": "yugjbn", "j": "uihknm",
    "k": "iojlm", "l": "opk", "z": "asx", "x": "sdzc", "c": "dfxv", "v": "fgcb", "b": "ghvn", "n": "hjbm", "m": "jkn",
}  # fmt: skip


def keyboard_typo(text: str, shut: list[bool], stream: Stream, p: dict[str, Any]) -> tuple[str, list[list[int]]]:
    """The text after, and the edits in bytes; `shut` is per byte."""
    rolls = stream.rolls(len(text.encode()))
    out, edits, at = "", [], 0
    for k, letter in enumerate(text):
        i, at = at, at + len(letter.encode())
        around = QWERTY.get(letter.lower(), "") if letter.isascii() else ""
        marked = k + 1 < len(text) and (unicodedata.combining(text[k + 1]) or text[k + 1] == "\u200d")
        if around and not marked and not shut[i] and rolls[i] < limit(p["rate"]):
            other = around[stream.below_at(1, i, len(around))]
            letter = other.upper() if letter.isupper() else other
            edits.append([i, i + 1, 1])
        out += letter
    return out, edits


# Compositions --------------------------------------------------------------------------------------------------------


class Run:
    """One row through a spec, the slow way: every op on plain lists, sources composed as they go."""

    def __init__(self, seed: int, epoch: int, variant: int) -> None:
        self.seed, self.epoch, self.variant = seed, epoch, variant

    def stream(self, path: str, row: dict[str, Any]) -> Stream:
        return Stream(op_key(self.seed, path, self.variant), self.epoch, row["id"])

    def rows(self, spec: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (first,) = self.program([spec], "", {}, {})
        return [out for row in rows for out in first(row)]

    def program(self, specs: list[Any], prefix: str, counts: dict[str, int], protect: dict[str, Any]) -> list[Any]:
        """One function from a row to rows per spec; children of a nameless Compose count with their parents."""
        made = []
        for spec in specs:
            ((kind, p),) = spec.items()
            guard = {
                k: [*protect.get(k, []), *(p.get("protect") or {}).get(k, [])] for k in ("ids", "columns", "spans")
            }
            if kind == "Compose" and not p.get("name"):
                made.append(chain(self.program(p["ops"], prefix, counts, guard)))
                continue
            ordinal = counts[kind] = counts.get(kind, -1) + 1
            path = prefix + (p.get("name") or f"{kind}#{ordinal}")
            inner = p.get("ops") or ([p["op"]] if "op" in p else [])
            children = self.program(inner, path + "/", {}, guard)
            made.append(self.one(kind, p, path, children, guard))
        return made

    def one(self, kind: str, p: dict[str, Any], path: str, children: list[Any], guard: dict[str, Any]) -> Any:
        if kind == "Compose":
            return chain(children)
        if kind == "Sometimes":
            return lambda row: children[0](row) if self.stream(path, row).rolls(1)[0] < limit(p["p"]) else [row]
        if kind == "OneOf":
            weights = p.get("weights") or [1.0] * len(children)
            ends = [limit(sum(weights[: k + 1]) / sum(weights)) for k in range(len(weights))]
            return lambda row: children[sum(e <= self.stream(path, row).rolls(1)[0] for e in ends)](row)
        if kind == "SomeOf":
            return lambda row: chain([children[i] for i in sorted(self.some(path, row, p, len(children)))])(row)
        if kind == "Repeat":

            def repeat(row: dict[str, Any]) -> list[dict[str, Any]]:
                out = []
                for k in range(p["n"]):
                    fields = [row["id"].to_bytes(8, "little"), path.encode(), k.to_bytes(8, "little")]
                    packed = b"".join(len(field).to_bytes(8, "little") + field for field in fields)
                    child = int.from_bytes(hashlib.sha256(packed).digest()[:8], "little")
                    out += children[0](row | {"id": child, "parent": row["id"], "variant": k})
                return out

            return repeat
        return lambda row: [self.leaf(kind, p, path, row, guard)]

    def some(self, path: str, row: dict[str, Any], p: dict[str, Any], n: int) -> set[int]:
        """The options that a row draws: how many, and then which, by Floyd's sampling."""
        stream, most = self.stream(path, row), p.get("at_most") or p["k"]
        k = p["k"] + stream.next_below(0, most - p["k"] + 1)
        chosen: set[int] = set()
        for top in range(n - k, n):
            option = stream.next_below(0, top + 1)
            chosen.add(top if option in chosen else option)
        return chosen

    def leaf(self, kind: str, p: dict[str, Any], path: str, row: dict[str, Any], guard: dict[str, Any]) -> Any:
        stream = self.stream(path, row)
        if kind == "KeyboardTypo":
            size = len(row["text"].encode())
            text, edits = keyboard_typo(row["text"], [False] * size, stream, p)
            return row | {"text": text, "edits": edits}
        tokens, old = row["tokens"], row["source"]
        special = row.get("special") or [0] * len(tokens)
        shut = [token in guard["ids"] or bool(special[i] and guard["columns"]) for i, token in enumerate(tokens)]
        column = [row[p[READS[kind]]]] if p.get(READS.get(kind, "")) else [[]] * (kind in READS)
        made = TOKEN_OPS[kind](tokens, shut, stream, p, *column)

        def follow(strand: dict[str, Any]) -> dict[str, Any]:
            source = strand["source"]
            edited = [e | (row["edited"][s] if s >= 0 else 0) for s, e in zip(source, strand["edited"], strict=True)]
            return {
                "tokens": strand["tokens"],
                "source": [old[s] if s >= 0 else -1 for s in source],
                "edited": edited,
                **{name: [row[name][s] if s >= 0 else 0 for s in source] for name in COLUMNS if name in row},
            }

        out = row | follow(made)
        if "labels" in row:
            out["labels"] = [row["labels"][s] if s >= 0 else -100 for s in made["source"]]
        if "labels" in made:
            out["labels"] = made["labels"]
        if made.get("restores"):
            out["targets"] = row["input"]
        if "targets" in made:
            out["targets"] = follow(made["targets"])
            if "labels" in row:
                out["targets"]["labels"] = [row["labels"][s] if s >= 0 else -100 for s in made["targets"]["source"]]
        return out


def chain(steps: list[Any]) -> Any:
    def run(row: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [row]
        for step in steps:
            rows = [out for row in rows for out in step(row)]
        return rows

    return run


# Cases ---------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(20)
TOKENS = [[], [7], [5, 6], [3, 1, 3, 1, 3], *([int(t) for t in RNG.integers(0, 30, n)] for n in (9, 40, 130))]
IDS = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 11, 12]
COLUMNS = ("special", "word_ids", "ends")
"""The columns of the vectors: protected tokens, words of one to three tokens, ends of sentences."""
SPECIAL = [[int(i % 6 == 0) for i in range(len(row))] for row in TOKENS]
WORD_IDS = [[-1 if i % 11 == 10 else (i * 5 + i // 3) // 10 for i in range(len(row))] for row in TOKENS]
ENDS = [[int(i % 7 == 5) for i in range(len(row))] for row in TOKENS]
TEXTS = [
    "",
    "a",
    "Hello, World! It's 7 o'clock.",
    "naïve cafe\u0301 Ünïcödé e\u0301e",
    "語 abc XYZ qwerty",
    "PLM pl;m" * 6,
]
PROTECT = {"ids": [3, 9], "columns": ["special"]}
MLM = {
    "mlm_probability": 0.15,
    "mask_id": 4,
    "vocab_size": 1000,
    "mask_replace_prob": 0.8,
    "random_replace_prob": 0.1,
}
T5 = {
    "noise_density": 0.15,
    "mean_noise_span_length": 3.0,
    "sentinel_id": 32099,
    "sentinel_step": -1,
    "num_sentinels": 100,
}

SPECS: dict[str, list[dict[str, Any]]] = {
    "token_dropout": [{"TokenDropout": p} for p in ({"rate": 0.3}, {"rate": 1.0}, {"rate": 0.8, "protect": PROTECT})],
    "token_swap": [{"TokenSwap": p} for p in ({"rate": 0.3}, {"rate": 1.0}, {"rate": 0.9, "protect": PROTECT})],
    "token_replace": [
        {"TokenReplace": p}
        for p in (
            {"rate": 0.3, "vocab_size": 50},
            {"rate": 1.0, "vocab_size": 2**31 + 1},
            {"rate": 0.8, "weights": [5.0, 0.0, 1.0, 3.0, 0.001, 0.5], "protect": PROTECT},
            {"rate": 0.9, "weights": [0.0, 2.0, 1.0], "rates": [k / 25 for k in range(25)]},
        )
    ],
    "token_insert": [
        {"TokenInsert": p}
        for p in (
            {"rate": 0.3, "vocab_size": 50, "side": "before"},
            {"rate": 1.0, "vocab_size": 2**31 + 1, "side": "after", "inserted": "ignore"},
            {"rate": 0.8, "weights": [5.0, 0.0, 1.0], "side": "before", "protect": PROTECT},
        )
    ],
    "token_mask": [{"TokenMask": {"mask_id": 4} | p} for p in ({"rate": 0.3}, {"rate": 0.9, "protect": PROTECT})],
    "local_shuffle": [{"LocalShuffle": p} for p in ({"k": 3}, {"k": 40}, {"k": 5, "protect": PROTECT})],
    "whole_word_mask": [
        {"WholeWordMask": MLM | {"word_ids": "word_ids"} | p}
        for p in (
            {},
            {"mlm_probability": 0.6, "mask_replace_prob": 0.3, "random_replace_prob": 0.5, "vocab_size": 2**31 + 1},
            {"mlm_probability": 1.0, "protect": PROTECT},
        )
    ],
    "ngram_mask": [
        {"NgramMask": MLM | {"ngram_weights": [6.0, 3.0, 2.0]} | p}
        for p in (
            {},
            {"mlm_probability": 0.6, "mask_replace_prob": 0.3, "random_replace_prob": 0.5, "vocab_size": 2**31 + 1},
            {"mlm_probability": 0.5, "ngram_weights": [0.0, 0.0, 1.0], "protect": PROTECT},
        )
    ],
    "prefix_lm": [
        {"PrefixLM": {"min_prefix": 0.0, "max_prefix": 1.0} | p}
        for p in (
            {"form": "targets"},
            {"form": "labels", "min_prefix": 0.25, "max_prefix": 0.75},
            {"form": "targets", "protect": PROTECT},
        )
    ],
    "text_infilling": [
        {"TextInfilling": {"mask_ratio": 0.3, "poisson_lambda": 3.0, "mask_id": 4} | p}
        for p in ({}, {"mask_ratio": 0.6, "poisson_lambda": 0.7}, {"mask_ratio": 0.5, "protect": PROTECT})
    ],
    "sentence_permute": [
        {"SentencePermute": {"permute_sentence_ratio": 1.0} | p}
        for p in (
            {"end_ids": [3, 9, 12, 20]},
            {"end_column": "ends", "permute_sentence_ratio": 0.5},
            {"end_ids": [1, 5, 7, 20], "protect": {"ids": [3, 9]}},
        )
    ],
    "fill_in_middle": [
        {"FillInMiddle": {"fim_rate": 1.0, "fim_spm_rate": 0.5, "prefix_id": 1, "middle_id": 2, "suffix_id": 3} | p}
        for p in (
            {},
            {"fim_rate": 0.5, "fim_spm_rate": 1.0},
            {"protect": {"ids": [3, 9, 12, 13], "columns": ["special"]}},
        )
    ],
    "ul2": [
        {"UL2": {name: T5[name] for name in ("sentinel_id", "sentinel_step", "num_sentinels")} | p}
        for p in (
            {"weights": [2.0, 1.0, 4.0], "eos_id": 1},
            {"weights": [1.0, 1.0, 1.0], "r_id": 40, "s_id": 41, "x_id": 42, "protect": PROTECT},
            {"weights": [0.0, 1.0, 0.0], "s_id": 41},
        )
    ],
    "masked_lm": [
        {"MaskedLM": MLM | p}
        for p in (
            {},
            {
                "mlm_probability": 0.6,
                "mask_replace_prob": 0.3,
                "random_replace_prob": 0.5,
                "vocab_size": 2**31 + 1,  # every other draw is unfair, and drawn again
                "name": "mlm",
            },
            {"mlm_probability": 1.0, "protect": PROTECT},
        )
    ],
    "span_corruption": [
        {"SpanCorruption": T5 | p}
        for p in (
            {"eos_id": 1},
            {"noise_density": 0.5, "mean_noise_span_length": 1.0},
            {"noise_density": 0.4, "num_sentinels": 3, "sentinel_step": 1, "prefix_id": 77, "protect": PROTECT},
        )
    ],
    "keyboard_typo": [
        {"KeyboardTypo": {"rate": 0.3, "layout": "qwerty"}},
        {"KeyboardTypo": {"rate": 1.0, "layout": "qwerty", "name": "all"}},
    ],
    "compose": [
        {"Compose": {"ops": [{"TokenDropout": {"rate": 0.2}}, {"MaskedLM": MLM}, {"TokenDropout": {"rate": 0.2}}]}},
        {
            "Compose": {
                "protect": {"ids": [3]},
                "ops": [
                    {"Compose": {"ops": [{"TokenSwap": {"rate": 0.5}}, {"TokenSwap": {"rate": 0.5}}]}},
                    {"Sometimes": {"op": {"TokenDropout": {"rate": 0.5}}, "p": 0.5}},
                    {"TokenSwap": {"rate": 0.5}},
                ],
            }
        },
        {
            "Compose": {
                "ops": [
                    {
                        "OneOf": {
                            "ops": [{"MaskedLM": MLM}, {"TokenDropout": {"rate": 0.5}}, {"TokenSwap": {"rate": 0.9}}],
                            "weights": [1.0, 2.0, 0.5],
                        }
                    },
                    {"Compose": {"name": "late", "ops": [{"SpanCorruption": T5}]}},
                ]
            }
        },
        {
            "Compose": {
                "ops": [
                    {"Repeat": {"op": {"TokenDropout": {"rate": 0.3}}, "n": 3}},
                    {"TokenReplace": {"rate": 0.2, "vocab_size": 50}},
                ]
            }
        },
        {
            "Compose": {
                "ops": [
                    {
                        "SomeOf": {
                            "k": 1,
                            "at_most": 3,
                            "ops": [
                                {"TokenDropout": {"rate": 0.5}},
                                {"Repeat": {"op": {"TokenSwap": {"rate": 0.9}}, "n": 2}},
                                {"MaskedLM": MLM},
                                {"TokenDropout": {"rate": 0.5}},
                            ],
                        }
                    },
                    {"TokenDropout": {"rate": 0.3}},
                    {"TextInfilling": {"mask_ratio": 0.3, "poisson_lambda": 3.0, "mask_id": 4}},
                ]
            }
        },
    ],
}


def case(spec: dict[str, Any], seed: int, epoch: int, variant: int) -> dict[str, Any]:
    """One spec over the rows: the inputs, and what comes out."""
    run = Run(seed, epoch, variant)
    call = {"spec": spec, "seed": seed, "epoch": epoch, "variant": variant}
    if "KeyboardTypo" in spec:
        rows = [{"id": i, "text": text, "edits": []} for i, text in zip(IDS, TEXTS, strict=False)]
        out = run.rows(spec, rows)
        made = {"texts": [row["text"] for row in out], "edits": [row["edits"] for row in out]}
        return call | {"texts": TEXTS, "ids": IDS[: len(TEXTS)], "out": made}
    text = json.dumps(spec)
    labelled = any(name in text for name in ("MaskedLM", "WholeWordMask", "NgramMask", '"labels"'))
    read = {"word_ids": WORD_IDS} if "WholeWordMask" in text else {"ends": ENDS} if "end_column" in text else {}
    rows = []
    for k, (row_id, tokens) in enumerate(zip(IDS, TOKENS, strict=True)):
        row: dict[str, Any] = {"tokens": tokens, "source": list(range(len(tokens))), "edited": [0] * len(tokens)}
        row |= {"special": SPECIAL[k]} | {name: values[k] for name, values in read.items()}
        row |= {"labels": [-100] * len(tokens)} if labelled else {}
        rows.append(row | {"id": row_id, "parent": row_id, "variant": 0, "input": row})
    out = run.rows(spec, rows)
    names = ["tokens", "source", "edited", "special", *read, *(["labels"] if labelled else [])]
    made: dict[str, Any] = {name: [row[name] for row in out] for name in names}
    if any("targets" in row for row in out):
        empty: dict[str, list[int]] = {name: [] for name in names}
        made["targets"] = {name: [row.get("targets", empty)[name] for row in out] for name in empty}
    if "Repeat" in text:
        made |= {"ids": [row["id"] for row in out], "parent": [row["parent"] for row in out]}
        made["variant"] = [row["variant"] for row in out]
    return call | {"tokens": TOKENS, "special": SPECIAL, **read, "ids": IDS, "out": made}


CALLS = [(7, 0, 0), (2**64 - 1, 2**32 - 1, 2**64 - 1), (1, 3, 5)]


def vectors() -> dict[str, str]:
    """File name -> text of every vector file."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    files = {}
    for name, specs in SPECS.items():
        cases = [case(spec, *CALLS[k % len(CALLS)]) for k, spec in enumerate(specs)]
        lines = ",\n".join(json.dumps(one, ensure_ascii=True) for one in cases)
        files[f"{name}.json"] = f"[\n{lines}\n]\n"
    return files


def main(arguments: list[str], vectors: dict[str, str]) -> int:
    """Writes the files, or says which differ."""
    stale = []
    for name, text in vectors.items():
        path = HERE / name
        if arguments == ["--check"]:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print("these vectors differ from the oracle's:", *stale)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], vectors()))
