"""Writes the golden vectors of the ops on text beside this file, by a plain Python oracle.

The oracle is written from the documented scheme (docs/ops.md) and shares no code with the package; its randomness is
that of generate_ops.py. It knows no more of Unicode than `unicodedata` does, and its tables hold what its texts need;
for `Diacritics` it asks Unicode's decompositions.

    python tests/vectors/generate_text_ops.py            # writes
    python tests/vectors/generate_text_ops.py --check    # fails if a file differs
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def load(name: str) -> Any:
    """A module beside this file."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DRAWS = load("generate_ops")
limit = DRAWS.limit
Edit = tuple[int, int, str]
Parameters = dict[str, Any]


# Text ----------------------------------------------------------------------------------------------------------------


SPACES = " \t\u00a0\u3000"
"""White space of the texts that ends no line."""


class Row:
    """A text as grapheme clusters (a character and the marks behind it), each with its first byte."""

    def __init__(self, text: str, spans: list[list[Any]], p: Parameters) -> None:
        self.text, self.bytes = text, text.encode()
        self.clusters: list[tuple[int, str]] = []
        at = 0
        for c in text:
            if self.clusters and (unicodedata.combining(c) or c == "\u200d"):
                start, cluster = self.clusters.pop()
                self.clusters.append((start, cluster + c))
            else:
                self.clusters.append((at, c))
            at += len(c.encode())
        guard = p.get("protect") or {}
        self.tagged = [(start, end) for start, end, tag in spans if tag == p.get("tag")]
        self.shut = [False] * len(self.bytes)
        every = p.get("spans") == "forbid" or p.get("moves")
        for start, end, tag in spans:
            if every or tag in guard.get("spans", ()):
                self.shut[start:end] = [True] * (end - start)
        for start, end in self.words():
            if self.bytes[start:end].decode().lower() in guard.get("words", ()):
                self.shut[start:end] = [True] * (end - start)

    def free(self, start: int, end: int) -> bool:
        return not any(self.shut[start:end])

    def open(self, at: int) -> bool:
        return not (0 < at < len(self.shut) and self.shut[at - 1] and self.shut[at])

    def letters(self) -> list[tuple[int, int, str]]:
        """Start, end and text of each cluster that is a letter."""
        return [(at, at + len(c.encode()), c) for at, c in self.clusters if c[0].isalpha()]

    def words(self) -> list[tuple[int, int]]:
        """Start and end of each word."""
        found: list[tuple[int, int]] = []
        k, n = 0, len(self.clusters)

        def part(k: int) -> bool:
            return k < n and (self.clusters[k][1][0].isalnum() or self.clusters[k][1][0] == "_")

        while k < n:
            if not part(k):
                k += 1
                continue
            start = k
            while part(k) or (
                k + 1 < n
                and part(k + 1)
                and (
                    self.clusters[k][1] in "'\u2019-"
                    or (
                        self.clusters[k][1] in ".,"
                        and self.clusters[k - 1][1].isdigit()
                        and self.clusters[k + 1][1].isdigit()
                    )
                )
            ):
                k += 1
            found.append((self.clusters[start][0], self.clusters[k][0] if k < n else len(self.bytes)))
        return found

    def of(self, place: tuple[int, int]) -> str:
        return self.bytes[place[0] : place[1]].decode()


def cased(letter: str, model: str) -> str:
    return letter.upper() if model.isupper() and len(letter.upper()) == 1 else letter


def like(word: str, model: str) -> str:
    letters = [c for c in model if c.isalpha()]
    if not letters or not letters[0].isupper():
        return word
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return word.upper()
    return word[:1].upper() + word[1:]


# Characters: (row, stream, parameters) -> edits ----------------------------------------------------------------------

JCUKEN = ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
LATIN, CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"
HOMOGLYPHS = ["aа", "cсϲ", "eе", "iіι", "oоοօ", "pрρ", "AАΑ", "EЕΕ", "IІΙӀ", "PРΡ", "TТΤ"]
OCR = {
    "cl": ["d"], "rn": ["m"], "m": ["rn", "nn"], "d": ["cl"], "0": ["O", "o", "D"], "1": ["l", "I", "i"],
    "l": ["1", "I", "i"], "c": ["e", "o"], "o": ["0", "c"], "n": ["u", "ri"], "O": ["0", "Q", "D"],
}  # fmt: skip


def keyboard_typo(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    for start, end, c in row.letters():
        near = ""
        for r, keys in enumerate(JCUKEN):
            if c.lower() in keys:
                k = keys.index(c.lower())
                places = [(r - 1, k), (r - 1, k + 1), (r, k - 1), (r, k + 1), (r + 1, k - 1), (r + 1, k)]
                near = "".join(JCUKEN[i][j] for i, j in places if 0 <= i < 3 and 0 <= j < len(JCUKEN[i]))
        if near and row.free(start, end) and rolls[start] < limit(p["rate"]):
            edits.append((start, end, cased(near[stream.below_at(1, start, len(near))], c)))
    return edits


def ocr_noise(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits, done = stream.rolls(len(row.bytes)), [], 0
    whole = {at for at, _ in row.clusters} | {len(row.bytes)}
    for start, _ in row.clusters:
        if start < done or row.shut[start] or rolls[start] >= limit(p["rate"]):
            continue
        for size in (2, 1):
            end = start + size
            read = OCR.get(row.bytes[start:end].decode("latin-1"), []) if end <= len(row.bytes) else []
            if read and end in whole and row.free(start, end):
                edits.append((start, end, read[stream.below_at(1, start, len(read))]))
                done = end
                break
    return edits


def homoglyph(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    for start, end, c in row.letters():
        others = "".join(s for s in HOMOGLYPHS if c in s).replace(c, "")
        if others and row.free(start, end) and rolls[start] < limit(p["rate"]):
            edits.append((start, end, others[stream.below_at(1, start, len(others))]))
    return edits


def alphabet(c: str, p: Parameters) -> str:
    if p.get("alphabet"):
        return p["alphabet"]
    return next((a for a in (LATIN, CYRILLIC, HEBREW) if c[0].lower() in a), "")


def char_insert(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    for start, end, c in row.letters():
        letters = alphabet(c, p)
        if letters and row.free(start, end) and rolls[start] < limit(p["rate"]):
            edits.append((end, end, cased(letters[stream.below_at(1, start, len(letters))], c[0])))
    return edits


def char_substitute(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    for start, end, c in row.letters():
        others = [x for x in alphabet(c, p) if x != c.lower()]
        if others and len(c) == 1 and row.free(start, end) and rolls[start] < limit(p["rate"]):
            edits.append((start, end, cased(others[stream.below_at(1, start, len(others))], c)))
    return edits


def char_delete(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    letters = [c[0].isalpha() for _, c in row.clusters]
    kept = list(letters)
    for k, (start, c) in enumerate(row.clusters):
        end = start + len(c.encode())
        if not letters[k] or not row.free(start, end) or rolls[start] >= limit(p["rate"]):
            continue
        first = k
        while first and letters[first - 1]:
            first -= 1
        if any(kept[first:k]) or (k + 1 < len(letters) and letters[k + 1]):
            kept[k] = False
            edits.append((start, end, ""))
    return edits


def char_transpose(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits, done = stream.rolls(len(row.bytes)), [], 0
    letters = row.letters()
    for (start, mid, a), (other, end, b) in itertools.pairwise(letters):
        hit = start >= done and mid == other and row.free(start, end) and rolls[start] < limit(p["rate"])
        if hit and a != b:
            edits.append((start, end, b + a))
            done = end
    return edits


def case_noise(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    for start, end, c in row.letters():
        other = c[0].lower() if c[0].isupper() else c[0].upper()
        if len(other) == 1 and other != c[0] and row.free(start, end) and rolls[start] < limit(p["rate"]):
            edits.append((start, end, other + c[1:]))
    return edits


def whitespace_noise(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    before = ""
    for start, c in row.clusters:
        end, roll = start + len(c.encode()), rolls[start]
        if c in SPACES and not row.shut[start]:
            if roll < limit(p["rate"] / 2):
                edits.append((start, end, ""))
            elif roll < limit(p["rate"]):
                edits.append((end, end, c))
        elif c[0].isalpha() and before.isalpha() and not row.shut[start] and roll < limit(p["split_rate"]):
            edits.append((start, start, " "))
        before = c[0]
    return edits


def base(c: str) -> str:
    """A letter of Latin or Greek, or the Cyrillic yo, without its diacritics."""
    ranges = (range(0xC0, 0x250), range(0x370, 0x400), (0x401, 0x451), range(0x1E00, 0x2000))
    return unicodedata.normalize("NFD", c)[0] if any(ord(c) in r for r in ranges) else c


def diacritics(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits = stream.rolls(len(row.bytes)), []
    ranges = (*range(0xC0, 0x180), *range(0x386, 0x3CF), 0x401, 0x451)
    for start, end, c in row.letters():
        if not row.free(start, end) or rolls[start] >= limit(p["rate"]):
            continue
        if p["mode"] == "drop":
            other = base(c[0]) + "".join(m for m in c[1:] if not unicodedata.combining(m))
        else:
            accented = [x for x in map(chr, ranges) if base(x) == c and len(unicodedata.normalize("NFD", x)) == 2]
            accented = [x for x in accented if x != c]
            other = accented[stream.below_at(1, start, len(accented))] if accented else c
        if other != c:
            edits.append((start, end, other))
    return edits


CONTRACT = {"do not": "don't", "will not": "won't", "i am": "I'm", "we will": "we'll", "it is": "it's"}
EXPAND = {"don't": "do not", "won't": "will not", "i'm": "i am", "we'll": "we will"}


def contraction(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words, edits, done = row.words(), [], 0
    rolls = stream.rolls(len(words))
    text = [row.of(word).lower().replace("\u2019", "'") for word in words]

    def joined(i: int) -> bool:
        return i + 1 < len(words) and row.bytes[words[i][1] : words[i + 1][0]] == b" "

    for i, (start, end) in enumerate(words):
        if rolls[i] >= limit(p["rate"]) or start < done:
            continue
        to, last = None, end
        if p["mode"] != "contract" and text[i] in EXPAND:
            question = text[i].endswith("n't") and joined(i) and text[i + 1] in ("you", "we", "i", "it")
            to = None if question else EXPAND[text[i]]
        if to is None and p["mode"] != "expand" and joined(i):
            to = CONTRACT.get(f"{text[i]} {text[i + 1]}")
            last = words[i + 1][1]
            if text[i + 1] != "not" and not joined(i + 1):
                to = None
        if to is not None and row.free(start, last):
            edits.append((start, last, like(to, row.of((start, last)))))
            done = last
    return edits


# Words ---------------------------------------------------------------------------------------------------------------


class Words:
    """The words of a row under the guards of a word op."""

    def __init__(self, row: Row, p: Parameters) -> None:
        self.row, self.places = row, row.words()
        self.text = [row.of(place) for place in self.places]
        given = p.get("negations")
        listed = ["not", "no", "never", "cannot", "n't"] if given is None else given
        low = [word.lower().replace("\u2019", "'") for word in self.text]
        self.negation = [word in listed or ("n't" in listed and word.endswith("n't")) for word in low]

    def free(self, i: int) -> bool:
        return self.row.free(*self.places[i]) and not self.negation[i]

    def loose(self, i: int) -> bool:
        return self.free(i) and not any(self.negation[max(i - 1, 0) : i + 2])

    def open(self, i: int) -> bool:
        return self.row.open(self.places[i][0]) and not any(self.negation[max(i - 1, 0) : i + 1])

    def chosen(self, rolls: list[int], p: Parameters, fit: Any, most: float | None = None) -> list[int]:
        hits = [i for i in range(len(self.places)) if rolls[i] < limit(p["rate"]) and fit(i)]
        room = int((p["max_edits"] if most is None else most) * len(self.places))
        return sorted(sorted(hits, key=lambda i: (rolls[i], i))[:room])


def punctuation_insert(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words = Words(row, p)
    hits = words.chosen(stream.rolls(len(words.places)), p, lambda i: words.free(i) and words.open(i))
    starts = [words.places[i][0] for i in hits]
    return [
        (at, at, p["marks"][stream.below_at(1, i, len(p["marks"]))] + " ") for i, at in zip(hits, starts, strict=True)
    ]


def word_delete(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words, edits, done = Words(row, p), [], 0
    rolls = stream.rolls(len(words.places))
    hits = words.chosen(rolls, p, words.loose)
    if hits and len(hits) == len(words.places):
        hits.remove(max(hits, key=lambda i: (rolls[i], -i)))
    for i in hits:
        start, end = words.places[i]
        before, after = row.bytes[:start].decode()[-1:], row.bytes[end:].decode()[:1]
        left = start - len(before.encode()) if before and before in SPACES else start
        right = end + len(after.encode()) if after and after in SPACES else end
        if left < start and left >= done and row.free(left, start):
            start = left
        elif row.free(end, right):
            end = right
        edits.append((start, end, ""))
        done = end
    return edits


def word_swap(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words = Words(row, p)
    loose = [i for i in range(len(words.places)) if words.loose(i)]
    most = p["max_edits"] / 2 if p["max_edits"] < 1 else 1.0
    rolls = stream.rolls(len(words.places))
    hits = words.chosen(rolls, p, lambda i: len(loose) > 1 and i in loose, most)
    order = list(loose)
    for i in hits:
        k = loose.index(i)
        other = [x for x in range(len(loose)) if x != k][stream.below_at(1, i, len(loose) - 1)]
        order[k], order[other] = order[other], order[k]
    pairs = zip(loose, order, strict=True)
    return [(*words.places[to], words.text[of]) for to, of in pairs if words.text[to] != words.text[of]]


def plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def past(word: str) -> str:
    known = {"make": "made", "leave": "left", "stop": "stopped", "plan": "planned"}
    if word in known:
        return known[word]
    if word.endswith("e"):
        return word + "d"
    return word[:-1] + "ied" if word.endswith("y") and word[-2] not in "aeiou" else word + "ed"


def progressive(word: str) -> str:
    known = {"stop": "stopping", "plan": "planning"}
    return known.get(word) or (word[:-1] if word.endswith("e") else word) + "ing"


def choices(word: str, p: Parameters) -> list[str]:
    """What may stand in the place of a word, in its form."""
    rows = [row for row in p["lexicon"] if not p.get("pos") or row[1] in p["pos"]]
    word = word.lower()
    exact = [to for row in rows if row[0] == word for to in row[2:]]
    if exact:
        return list(dict.fromkeys(exact))
    forms = {"n": [plural], "v": [plural, past, progressive], "": [plural, past, progressive]}
    for form in (plural, past, progressive):
        found = [form(to) for row in rows if form in forms.get(row[1], []) and form(row[0]) == word for to in row[2:]]
        if found:
            return list(dict.fromkeys(found))
    return []


def synonym(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words = Words(row, p)
    vowels = ("a", "e", "i", "o", "u", "hour")

    def options(i: int) -> list[str]:
        found = choices(words.text[i], p)
        article = words.text[i - 1].lower() if i else ""
        if article in ("a", "an"):
            found = [to for to in found if to.lower().startswith(vowels) == (article == "an")]
        return found

    rolls = stream.rolls(len(words.places))
    hits = words.chosen(rolls, p, lambda i: words.free(i) and bool(options(i)))
    edits = []
    for i in hits:
        found = options(i)
        edits.append((*words.places[i], like(found[stream.below_at(1, i, len(found))], words.text[i])))
    return edits


def word_insert(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words = Words(row, p)
    n = len(words.places)

    def place(i: int) -> int:
        return stream.below_at(8, i, n)

    def fit(i: int) -> bool:
        return words.free(i) and bool(choices(words.text[i], p)) and words.open(place(i))

    made: dict[int, str] = {}
    for i in words.chosen(stream.rolls(n), p, fit):
        found = choices(words.text[i], p)
        made[place(i)] = made.get(place(i), "") + found[stream.below_at(1, i, len(found))] + " "
    return [(words.places[j][0], words.places[j][0], made[j]) for j in sorted(made)]


def misspelling(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    words = Words(row, p)
    table = {entry[0]: entry[2:] for entry in p["table"]}
    hits = words.chosen(stream.rolls(len(words.places)), p, lambda i: words.free(i) and words.text[i].lower() in table)
    edits = []
    for i in hits:
        found = table[words.text[i].lower()]
        edits.append((*words.places[i], like(found[stream.below_at(1, i, len(found))], words.text[i])))
    return edits


def entity_swap(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    rolls, edits, reach = stream.rolls(len(row.tagged)), [], 0
    for i, (start, end) in enumerate(row.tagged):
        if rolls[i] >= limit(p["rate"]):
            continue
        others = [name for name in p["entities"] if name != row.of((start, end))]
        if start >= reach and end > start and row.free(start, end) and others:
            edits.append((start, end, others[stream.below_at(1, i, len(others))]))
        reach = max(reach, end)
    return edits


# Rules are matched by regular expressions, tried at every place.
LETTER = r"[\w\u0300-\u036f]"
WORD = rf"(?>{LETTER}+(?:(?:['\u2019-]|(?<=[0-9])[.,](?=[0-9])){LETTER}+)*)"
SPACE = r"(?> *(?: |\r?\n) *)(?![\r\n])"
WORDS = rf"{WORD}(?:{SPACE}{WORD}){{0,11}}"
OPENS = rf"(?<!{LETTER})(?<!{LETTER}['\u2019-])(?<![0-9][.,](?=[0-9]))"
SHUTS = rf"(?!{LETTER})(?!['\u2019-]{LETTER})(?!(?<=[0-9])[.,][0-9])"
KINDS = {"": rf"{WORDS}?", "word": WORD, "int": rf"[0-9]++{SHUTS}"}
STARTERS = ("The", "A", "An", "It", "He")


def same(c: str) -> str:
    """What a character of a pattern matches."""
    if c == " ":
        return SPACE
    if c == "'":
        return "['\u2019]"
    return re.escape(c) if c == c.upper() else f"[{re.escape(c)}{re.escape(c.upper())}]"


def expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression with a group for each capture."""
    made = ""
    for text, name, kind in re.findall(r"([^{]*)(?:\{(\w+)(?::(\w+))?\})?", pattern):
        made += "".join(map(same, text))
        if name:
            made += f"(?P<{name}>{KINDS[kind]})"
    first, last = pattern.startswith("{"), pattern.endswith("}")
    if first and ":" not in pattern[: pattern.index("}")]:
        made = rf"(?<!{LETTER} )" + made
    if last and ":" not in pattern[pattern.rindex("{") :]:
        made = made.removesuffix("?)") + rf"+)(?!{SPACE}{WORD})"
    return re.compile(OPENS + made + SHUTS)


def rewriter(row: Row, stream: Any, p: Parameters) -> list[Edit]:
    found: list[tuple[int, int, int, re.Match[str]]] = []
    for number, (pattern, _) in enumerate(p["rules"]):
        for match in (expression(pattern).match(row.text, at) for at in range(len(row.text))):
            if match:
                found.append((match.start(), -match.end(), number, match))
    chosen: list[tuple[int, re.Match[str]]] = []
    for _, _, number, match in sorted(found, key=lambda one: one[:3]):
        if not chosen or match.start() >= chosen[-1][1].end():
            chosen.append((number, match))
    rolls, edits = stream.rolls(len(chosen)), []
    for i, (number, match) in enumerate(chosen):
        if rolls[i] < limit(p["rate"]):
            edits += rewritten(row, match, *p["rules"][number], stream.word(1, i), p)
    return edits


def rewritten(row: Row, match: re.Match[str], pattern: str, alternatives: str, word: int, p: Parameters) -> list[Edit]:
    text, named = row.text, match.groupdict()
    negations = p.get("negations", ["no", "not", "never", "won't", "don't"])
    before = re.search(r"(\S*) $", text[: match.start()])
    after = re.match(r" (\S*)", text[match.end() :])
    beside = [*(before.groups() if before else ()), *(after.groups() if after else ()), *named.values()]
    if any(one.lower() in negations for part in beside for one in re.findall(WORD, part)):
        return []
    options = []
    for alternative in alternatives.split("|"):
        said, _, weight = alternative.partition("::")
        first = re.sub(r"\{(\w+)\}", lambda m: named[m[1]], said.strip()).lower()
        article = before[1].lower() if before else ""
        if article not in ("a", "an") or first.startswith(("a", "e", "i", "o", "u")) == (article == "an"):
            options.append((said.strip(), round(float(weight or 1) * 10**9)))
    drawn = word * sum(weight for _, weight in options) >> 32
    sums = itertools.accumulate(weight for _, weight in options)
    said = next((said for (said, _), top in zip(options, sums, strict=True) if drawn < top), None)
    if said is None:
        return []
    lead = pattern.startswith("{")
    own = [match.start(name) for name in named]
    ends = [match.end(name) for name in named]
    gaps = list(zip([match.start(), *ends], [*own, match.end()], strict=True))
    letters = [c for a, b in gaps for c in text[a:b] if c.isalpha()]
    shouted = len(letters) > 1 and all(c.isupper() for c in letters) and pattern == pattern.lower()
    opens = not lead or re.search(r"(^|[.!?:\n])[ \"'(]*$", text[: match.start()])
    capital = not shouted and text[match.start()].isupper() and pattern[0].islower() | lead and bool(opens)
    pieces = [piece for piece in re.split(r"(\{\w+\})", said) if piece]
    names = [piece[1:-1] for piece in pieces if piece.startswith("{")]

    def cased(piece: str, start: bool, change: bool = True) -> str:
        if shouted and change:
            return piece.upper()
        return piece[:1].upper() + piece[1:] if capital and start else piece

    ordered = names == list(named) and lead == said.startswith("{") and pattern.endswith("}") == said.endswith("}")
    if ordered:
        texts = re.split(r"\{\w+\}", said)
        made = [(a, b, cased(to, k == 0)) for k, ((a, b), to) in enumerate(zip(gaps, texts, strict=True))]
        edits = [edit for edit in made if text[edit[0] : edit[1]] != edit[2]]
    else:
        out = ""
        for piece in pieces:
            value = named[piece[1:-1]] if piece.startswith("{") else piece
            moved = lead and capital and out and piece == "{" + next(iter(named)) + "}"
            if moved and value.split()[0] in STARTERS:
                out += value[0].lower() + value[1:]
            else:
                out += cased(value, not out, not piece.startswith("{"))
        edits = [(match.start(), match.end(), out)]
    at = [len(text[:i].encode()) for i in range(len(text) + 1)]
    places = [(at[start], at[end], to) for start, end, to in edits]
    return places if all(row.free(start, end) for start, end, _ in places) else []


# Cases ---------------------------------------------------------------------------------------------------------------

TEXTS = [
    "",
    "a",
    "Don't you know? I do not, and I won't stop. It is never 10.",
    "Cars and BOXES: the clown makes a car, an idea; we will plan it (I am sure).",
    "modern Calm corn 1010 lOl; cloud\tand\u00a0clan\nrn e\u0301cole no\u0308 cafe\u0301!",
    "Привет, Мир! Ёлка и йод. ТАК",
    "שָׁלוֹם עולם naïve Việt Straße éa",
    "He made 3.14 well-known stops, then left. An apple, a car and the boxes left him stopped, planning.",
]
OWN_TEXTS = {
    "Homoglyph": ["", "a", "pace a TIE ripe bro\u0308 Tap, аптека А, Αρι", "cafe\u0301 0 Ра Το οικο ն օ"],
    "OcrNoise": ["", "l", "corn clod rn\u0308 moc\u0301 1010 lOl; loom", "Мир cl0n rnm ddlc\tnrn"],
}
"""Texts for the ops whose tables this file holds in part."""
SPANS = [
    (2, 0, 5, "KEEP"),
    (2, 6, 9, "PER"),
    (3, 0, 4, "PER"),
    (3, 9, 14, "PER"),
    (3, 12, 20, "PER"),
    (3, 26, 31, "KEEP"),
    (7, 0, 2, "PER"),
    (7, 43, 48, "PER"),
]
IDS = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 11, 12, 13]
PROTECT = {"spans": ["KEEP"]}
LEXICON = [
    ["car", "n", "bus", "automobile", "box"],
    ["box", "n", "case", "body"],
    ["make", "v", "create", "try"],
    ["stop", "v", "leave", "pass"],
    ["leave", "v", "stop"],
    ["plan", "v", "devise"],
    ["idea", "n", "thought", "image", "hour"],
    ["idea", "", "image", "notion"],
    ["sure", "a", "certain"],
]
TABLE = [["know", "", "konw", "now"], ["sure", "", "shure"], ["apple", "", "aple"], ["and", "", "adn", "an"]]
GUARDS: Parameters = {"max_edits": 1.0}
NAMES = ["Ada", "Cars", "Ибн Сина"]
RULES = [
    ["the {x:word} makes {y}", "{y} comes from the {x}"],
    ["the clown", "a man"],
    ["{x} and {y}", "{y} and {x} | both {x} and {y} :: 2"],
    ["a car", "an auto | a bus :: 2.5"],
    ["idea", "image | thought | aim"],
    ["it is", "it's"],
    ["I am {x:word}", "{x} I am"],
    ["is never {n:int}", "is {n} at no time"],
    ["{n:int} stops", "stops of {n}"],
    ["him {x}, {y:word}", "him {x} by {y}"],
    ["ёлка и {x}", "{x}, ёлка"],
    ["так", "вот так"],
    ["do not", "don't"],
    ["don't you {x:word}", "{x} you | is it so that you {x}"],
    ["boxes", "cases"],
]

OPS = {
    "CaseNoise": case_noise,
    "CharDelete": char_delete,
    "CharInsert": char_insert,
    "CharSubstitute": char_substitute,
    "CharTranspose": char_transpose,
    "Contraction": contraction,
    "Diacritics": diacritics,
    "EntitySwap": entity_swap,
    "Homoglyph": homoglyph,
    "KeyboardTypo": keyboard_typo,
    "Misspelling": misspelling,
    "OcrNoise": ocr_noise,
    "PunctuationInsert": punctuation_insert,
    "Rewriter": rewriter,
    "Synonym": synonym,
    "WhitespaceNoise": whitespace_noise,
    "WordDelete": word_delete,
    "WordInsert": word_insert,
    "WordSwap": word_swap,
}


def plain(*own: Parameters) -> list[Parameters]:
    """A middling rate, and all but what is protected, for each of the op's own parameters."""
    return [p | extra for p in own or ({},) for extra in ({"rate": 0.4}, {"rate": 1.0, "protect": PROTECT})]


def guarded(own: Parameters) -> list[Parameters]:
    """The same for a word op, and with fewer edits than are drawn."""
    return [
        own | GUARDS | {"rate": 0.5},
        own | GUARDS | {"rate": 1.0, "protect": PROTECT, "name": "all"},
        own | {"rate": 1.0, "max_edits": 0.3, "negations": []},
    ]


CASES: dict[str, list[Parameters]] = {
    "CaseNoise": plain(),
    "CharDelete": plain(),
    "CharInsert": [*plain(), {"rate": 1.0, "alphabet": "xyz", "spans": "forbid"}],
    "CharSubstitute": [*plain(), {"rate": 1.0, "alphabet": "xe", "protect": {"words": ["cars", "know"]}}],
    "CharTranspose": plain(),
    "Contraction": plain({"mode": "both"}, {"mode": "contract"}, {"mode": "expand"}),
    "Diacritics": plain({"mode": "drop"}, {"mode": "add"}),
    "EntitySwap": guarded({"tag": "PER", "entities": NAMES}),
    "Homoglyph": plain(),
    "KeyboardTypo": [{"rate": 0.5, "layout": "jcuken"}, {"rate": 1.0, "layout": "jcuken", "name": "all"}],
    "Misspelling": guarded({"table": TABLE}),
    "OcrNoise": plain(),
    "PunctuationInsert": guarded({"marks": ".;?:!,"}),
    "Rewriter": [
        {"rules": RULES, "rate": 0.5},
        {"rules": RULES, "rate": 1.0, "protect": PROTECT, "name": "all"},
        {"rules": RULES, "rate": 1.0, "negations": [], "spans": "forbid"},
        {"rules": RULES[2:4] + RULES[:1], "rate": 1.0, "negations": []},
    ],
    "Synonym": [*guarded({"lexicon": LEXICON}), {"lexicon": LEXICON, "pos": ["n"], "rate": 1.0} | GUARDS],
    "WhitespaceNoise": plain({"split_rate": 0.1}, {"split_rate": 1.0}),
    "WordDelete": guarded({}),
    "WordInsert": guarded({"lexicon": LEXICON}),
    "WordSwap": guarded({}),
}


def run(kind: str, p: Parameters, text: str, spans: list[list[Any]], stream: Any) -> tuple[str, list[list[int]]]:
    """What an op makes of a row, and the edits in bytes; edits of which one is empty and touches another are one."""
    moves = kind == "WordSwap" and p.get("spans", "follow") == "follow"
    row = Row(text, spans, {**p, "moves": moves})
    out, at = b"", 0
    runs: list[list[int]] = []
    for start, end, new in OPS[kind](row, stream, p):
        made = new.encode()
        out, at = out + row.bytes[at:start] + made, end
        if runs and runs[-1][1] == start and (start == end or runs[-1][0] == runs[-1][1]):
            runs[-1] = [runs[-1][0], end, runs[-1][2] + len(made)]
        else:
            runs.append([start, end, len(made)])
    return (out + row.bytes[at:]).decode(), runs


def case(kind: str, p: Parameters, seed: int, epoch: int, variant: int) -> dict[str, Any]:
    """One spec over the rows: the inputs, and what comes out."""
    made: dict[str, list[Any]] = {"texts": [], "edits": []}
    texts, all_spans = OWN_TEXTS.get(kind, TEXTS), [(2, 2, 7, "KEEP")] if kind in OWN_TEXTS else SPANS
    for r, (text, row_id) in enumerate(zip(texts, IDS, strict=False)):
        stream = DRAWS.Stream(DRAWS.op_key(seed, p.get("name") or f"{kind}#0", variant), epoch, row_id)
        spans = [[start, end, tag] for row, start, end, tag in all_spans if row == r]
        out, edits = run(kind, p, text, spans, stream)
        made["texts"].append(out)
        made["edits"].append(edits)
    call = {"spec": {kind: p}, "seed": seed, "epoch": epoch, "variant": variant}
    return call | {"texts": texts, "ids": IDS[: len(texts)], "spans": all_spans, "out": made}


def file_of(kind: str) -> str:
    """The file of an op; that of the Latin keyboards is another generator's."""
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).strip("_")
    return "keyboard_typo_jcuken.json" if kind == "KeyboardTypo" else f"{name}.json"


def vectors() -> dict[str, str]:
    """File name -> text of every vector file."""
    files = {}
    for kind, parameters in CASES.items():
        cases = [case(kind, p, *DRAWS.CALLS[k % len(DRAWS.CALLS)]) for k, p in enumerate(parameters)]
        lines = ",\n".join(json.dumps(one, ensure_ascii=True) for one in cases)
        files[file_of(kind)] = f"[\n{lines}\n]\n"
    return files


if __name__ == "__main__":
    sys.exit(DRAWS.main(sys.argv[1:], vectors()))
