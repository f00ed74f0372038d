"""Lexicons: words and what may stand in their place."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from variegate.errors import InvalidInput

__all__ = ["NEGATIONS", "Lexicon"]

NEGATIONS: tuple[str, ...] = (
    "barely",
    "cannot",
    "hardly",
    "n't",
    "neither",
    "never",
    "no",
    "nobody",
    "none",
    "noone",
    "nor",
    "not",
    "nothing",
    "nowhere",
    "rarely",
    "scarcely",
    "without",
)
"""English words that turn a sentence around: what word ops leave alone. ``n't`` stands for all words that end so."""

FUNCTION_WORDS = """
a about above after again against all am among an and any are as at be because been before being below between
both but by can could did do does doing down during each few for from further had has have having he her here hers
herself him himself his how i if in into is it its itself just may me might more most must my myself of off on
once only or other our ours ourselves out over own same shall she should so some such than that the their theirs
them themselves then there these they this those through to too under until up us very was we were what when where
which while who whom why will with would you your yours yourself yourselves
"""
"""English words that hold a sentence together; large lexicons know them only as something else (IT, an)."""

HELD = frozenset(FUNCTION_WORDS.split())

Row = tuple[str, ...]


class Lexicon:
    """Words and what may stand in their place, by part of speech.

    In the spec of an op, a lexicon that was made from rows is its rows, so that the JSON replays anywhere. One that was
    read from files is the format, the path and the SHA-256 of what was read, so that the JSON stays small; to load it
    again the files must be there and the same, or `InvalidInput` says which are not. `embedded` makes the second kind
    the first.

    Args:
        rows: ``(word, part of speech, replacement, ...)``; the part of speech is ``n``, ``v``, ``a`` (adjective),
            ``r`` (adverb) or ``""`` for any. Or a mapping from words to replacements, for any part of speech.

    Raises:
        InvalidInput: A row that is no sequence of a word, a part of speech and replacements.

    Example:
        >>> lexicon = Lexicon({"big": ["large", "great"]})
        >>> lexicon.rows
        (('big', '', 'large', 'great'),)
        >>> len(Lexicon([("big", "a", "large"), ("car", "n", "automobile")]))
        2
    """

    __slots__ = ("_rows", "_source")

    def __init__(self, rows: Mapping[str, Iterable[str]] | Iterable[Iterable[str]]) -> None:
        if isinstance(rows, Mapping):
            rows = [
                (word, "", *([to] if isinstance(to, str) or not hasattr(to, "__iter__") else to))
                for word, to in rows.items()
            ]
        if isinstance(rows, str) or not hasattr(rows, "__iter__"):
            raise InvalidInput(f"lexicon: rows must be a sequence of rows, or a mapping (they are {rows!r})")
        self._rows = tuple(_row(i, row) for i, row in enumerate(rows))
        self._source: dict[str, Any] | None = None

    @classmethod
    def from_tsv(cls, path: str | Path, *, pos: bool = False) -> Lexicon:
        """A lexicon of lines ``word<TAB>replacement<TAB>...``, in UTF-8.

        Args:
            path: The file.
            pos: Whether the second column is a part of speech.

        Raises:
            InvalidInput: A file that cannot be read, or a line without a replacement, which it names.
        """
        return cls._read({"format": "tsv", "path": str(path), **({"pos": True} if pos else {})})

    @classmethod
    def from_mythes(cls, path: str | Path) -> Lexicon:
        """The synonyms of a MyThes thesaurus, the format of LibreOffice (``th_en_US_v2.dat``).

        Antonyms, terms that are marked as related, similar or more general, and the words that hold an English sentence
        together (as "it", "in") are left out.

        Raises:
            InvalidInput: A file that cannot be read, or that is not in the format.
        """
        return cls._read({"format": "mythes", "path": str(path)})

    @classmethod
    def from_wordnet(cls, path: str | Path = "/usr/share/wordnet", *, senses: int = 1) -> Lexicon:
        """The synonyms of WordNet's database files (``index.noun``, ``data.noun``, ...; Debian's wordnet-base).

        The words that hold a sentence together (as "it", "in") are left out, as EDA leaves out stop words.

        Args:
            path: The folder.
            senses: How many senses of a word count, from the most frequent on.

        Raises:
            InvalidInput: Files that cannot be read, or are not in the format; fewer senses than one.
        """
        return cls._read({"format": "wordnet", "path": str(path), "senses": senses})

    @classmethod
    def from_spec(cls, spec: Any) -> Lexicon:
        """The lexicon of a spec, as `to_spec` writes it, or of a mapping; a lexicon is returned as it is.

        Raises:
            InvalidInput: A spec that is none, or files that are not what they were.
        """
        if isinstance(spec, Lexicon):
            return spec
        if not isinstance(spec, Mapping) or not {"format", "path"} <= set(spec):
            return cls(spec)
        unknown = set(spec) - {"format", "path", "sha256", *OPTIONS}
        if unknown:
            raise InvalidInput(f"lexicon: there is no {sorted(unknown)[0]!r} beside format and path")
        return cls._read(dict(spec))

    @classmethod
    def _read(cls, source: dict[str, Any]) -> Lexicon:
        reader = READERS.get(source["format"])
        if reader is None:
            known = ", ".join(sorted(READERS))
            raise InvalidInput(f"lexicon: format must be one of {known} (it is {source['format']!r})")
        senses = source.get("senses", 1)
        if isinstance(senses, bool) or not isinstance(senses, int) or senses < 1:
            raise InvalidInput(f"lexicon: senses must be at least 1 (it is {senses!r})")
        files, rows = reader
        folder = Path(source["path"])
        digest = hashlib.sha256()
        for name in files:
            path = folder / name if name else folder
            try:
                content = path.read_bytes()
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise InvalidInput(f"lexicon: {str(path)!r} cannot be read ({why})") from None
            digest.update(hashlib.sha256(content).digest())
        expected, found = source.get("sha256"), digest.hexdigest()
        if expected not in (None, found):
            raise InvalidInput(f"lexicon: {folder} is not what it was (SHA-256 {found}, the spec says {expected})")
        lexicon = cls.__new__(cls)
        options = tuple((name, source[name]) for name in OPTIONS if name in source)
        lexicon._rows = _parsed(rows, str(folder), found, options)
        lexicon._source = {**source, "sha256": found}
        return lexicon

    @property
    def rows(self) -> tuple[Row, ...]:
        """``(word, part of speech, replacement, ...)``."""
        return self._rows

    def embedded(self) -> Lexicon:
        """The same lexicon, whose spec holds all of its rows."""
        lexicon = Lexicon.__new__(Lexicon)
        lexicon._rows, lexicon._source = self._rows, None
        return lexicon

    def to_spec(self) -> Any:
        """The lexicon as plain values, rows or an object that names files; `from_spec` makes it a lexicon again."""
        return [list(row) for row in self._rows] if self._source is None else dict(self._source)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lexicon) and (self._source, self._rows) == (other._source, other._rows)

    def __hash__(self) -> int:
        return hash(self._rows if self._source is None else json.dumps(self._source))

    def __repr__(self) -> str:
        """The call that makes the lexicon."""
        if self._source is None:
            return f"Lexicon({[tuple(row) for row in self._rows]!r})"
        options = "".join(f", {name}={self._source[name]!r}" for name in OPTIONS if name in self._source)
        return f"Lexicon.from_{self._source['format']}({self._source['path']!r}{options})"

    def __reduce__(self) -> tuple[Callable[[Any], Lexicon], tuple[Any]]:
        return Lexicon.from_spec, (self.to_spec(),)


def _row(i: int, row: Any) -> Row:
    made = () if isinstance(row, str) or not hasattr(row, "__iter__") else tuple(row)
    if len(made) < 2 or not all(isinstance(item, str) for item in made):
        raise InvalidInput(
            f"lexicon: row {i} must hold a word, a part of speech and replacements, all str (it is {row!r})"
        )
    for item in made:
        if lone_surrogate(item):
            raise InvalidInput(f"lexicon: row {i} must hold no lone surrogate (it holds {item!r})")
    return made


def lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no UTF-8 has."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


@lru_cache(maxsize=8)
def _parsed(
    rows: Callable[..., Iterator[Row]], path: str, digest: str, options: tuple[tuple[str, Any], ...]
) -> tuple[Row, ...]:
    """The rows of files; `digest` is what they hold, so that changed files are read anew."""
    return tuple(rows(Path(path), **dict(options)))


def _lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    with path.open(encoding=encoding, newline="") as file:
        try:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
        except UnicodeDecodeError:
            raise InvalidInput(f"lexicon: {path} is not {encoding}") from None


def _tsv(path: Path, pos: bool = False) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        word, *rest = line.split("\t")
        row = (word, *rest) if pos else (word, "", *rest)
        if len(row) < 3:
            raise InvalidInput(f"lexicon: {path}, line {number}: there is no replacement ({line!r})")
        yield row


PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def _mythes(path: Path) -> Iterator[Row]:
    (_, encoding), *_ = [*_lines(path, "latin-1")][:1] or [(1, "")]
    try:
        lines = _lines(path, encoding.strip())
        next(lines)
        for number, head in lines:
            word, _, count = head.partition("|")
            if not count.isdigit():
                raise InvalidInput(f"lexicon: {path}, line {number}: must be a word and a count ({head!r})")
            for _ in range(int(count)):
                _, meaning = next(lines)
                part, *terms = meaning.split("|")
                plain = [term for term in terms if term and not term.endswith(")")]
                if plain and word not in HELD:
                    yield (word, PARTS.get(part.strip("()"), ""), *plain)
    except (LookupError, StopIteration):
        raise InvalidInput(f"lexicon: {path} is no MyThes thesaurus") from None


def _wordnet(path: Path, senses: int = 1) -> Iterator[Row]:
    for name, part in PARTS.items():
        sets: dict[str, list[str]] = {}
        try:
            for _, line in _lines(path / f"data.{name}"):
                if line.startswith(" "):
                    continue
                offset, _, _, count, *rest = line.split(" ")
                words = rest[: 2 * int(count, 16) : 2]
                sets[offset] = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words]
            for _, line in _lines(path / f"index.{name}"):
                word, *rest = line.split()
                if line.startswith(" ") or "_" in word or word in HELD:
                    continue
                offsets = rest[-int(rest[1]) :][:senses]
                found = {other: None for at in offsets for other in sets[at] if other.lower() != word}
                if found:
                    yield (word, part, *found)
        except (KeyError, ValueError, IndexError):
            raise InvalidInput(f"lexicon: {path} holds no WordNet database ({name})") from None


OPTIONS = ("pos", "senses")
READERS: dict[str, tuple[tuple[str, ...], Callable[..., Iterator[Row]]]] = {
    "mythes": (("",), _mythes),
    "tsv": (("",), _tsv),
    "wordnet": (tuple(f"{kind}.{name}" for name in PARTS for kind in ("data", "index")), _wordnet),
}
