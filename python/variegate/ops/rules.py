"""Rules of rewriting: patterns and what may stand in their place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from variegate import _core
from variegate.errors import InvalidInput
from variegate.ops.lexicon import lone_surrogate

__all__ = ["Rules"]


class Rules:
    r"""Patterns and what may stand in their place.

    A rule is ``make use of {x}`` and ``use {x} | employ {x} :: 2``. A small letter of a pattern matches a capital too,
    a capital only itself; a space matches a run of spaces, which may hold one line end; what matches is whole words. A
    capture ``{x}`` holds one to twelve words with only spaces between them, as few as can be; at the start or end of a
    pattern it holds all words up to punctuation. ``{x:word}`` holds one word, ``{n:int}`` digits. Alternatives stand
    between ``|``, each perhaps with its weight behind ``::``. A backslash escapes any sign. A rule whose alternative is
    its own pattern keeps a phrase from shorter rules.

    In the spec of an op, rules that were made from rows are their rows. Those of a file are its path and the SHA-256 of
    what was read, as with `Lexicon`.

    Args:
        rows: Pairs of a pattern and its alternatives, or a mapping from the one to the other.

    Raises:
        InvalidInput: What is no rule; ``line`` is the number of the row, from 1, and ``column`` the character of the
            pattern, a tab and the alternatives.

    Example:
        >>> len(Rules({"in order to": "to | so as to", "{x} because {y}": "because {y}, {x}"}))
        2
        >>> Rules({"make use of {name}": "use {nam}"})
        Traceback (most recent call last):
        variegate.errors.InvalidInput: rules: line 1, column 24: the pattern has no capture 'nam' (did you mean 'name'?)
          make use of {name} use {nam}
                                 ^
    """

    __slots__ = ("_count", "_source", "_text")

    def __init__(self, rows: Mapping[str, str] | Iterable[Iterable[str]]) -> None:
        pairs = rows.items() if isinstance(rows, Mapping) else rows
        if isinstance(pairs, str) or not hasattr(pairs, "__iter__"):
            raise InvalidInput(f"rules: rows must be pairs of a pattern and its alternatives, or a mapping ({rows!r})")
        self._text = "".join(_line(i, row) for i, row in enumerate(pairs))
        self._source: dict[str, str] | None = None
        self._count = _counted(self._text, "rules")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Rules:
        """The rules of a UTF-8 file of lines ``pattern<TAB>alternatives``.

        Empty lines and lines that begin with ``#`` are skipped.

        Raises:
            InvalidInput: A file that cannot be read, or a line that is no rule, with file, line, column and a caret.
        """
        return cls._read({"path": os.fspath(path)})

    @classmethod
    def from_spec(cls, spec: Any) -> Rules:
        """The rules of a spec, as `to_spec` writes it, or of pairs or a mapping; rules are returned as they are.

        Raises:
            InvalidInput: A spec that is none, or a file that is not what it was.
        """
        if isinstance(spec, Rules):
            return spec
        if isinstance(spec, Mapping) and isinstance(spec.get("path"), str) and set(spec) <= {"path", "sha256"}:
            return cls._read(dict(spec))
        return cls(spec)

    @classmethod
    def _read(cls, source: dict[str, str]) -> Rules:
        path = source["path"]
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InvalidInput(f"rules: {path} cannot be read ({error.strerror})") from None
        expected, found = source.get("sha256"), hashlib.sha256(content).hexdigest()
        if expected not in (None, found):
            raise InvalidInput(f"rules: {path} is not what it was (SHA-256 {found}, the spec says {expected})")
        rules = cls.__new__(cls)
        try:
            rules._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"rules: {path}: not UTF-8 (byte {error.start})") from None
        rules._source = {"path": path, "sha256": found}
        rules._count = _counted(rules._text, f"rules: {path}")
        return rules

    @property
    def text(self) -> str:
        """The rules as lines of a file."""
        return self._text

    def to_spec(self) -> Any:
        """The rules as plain values, pairs or an object that names the file; `from_spec` makes them rules again."""
        if self._source is not None:
            return dict(self._source)
        return [line.split("\t", 1) for line in self._text.splitlines()]

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and (self._source, self._text) == (other._source, other._text)

    def __hash__(self) -> int:
        return hash(self._text if self._source is None else json.dumps(self._source))

    def __repr__(self) -> str:
        """The call that makes the rules."""
        if self._source is None:
            return f"Rules({[tuple(pair) for pair in self.to_spec()]!r})"
        return f"Rules.from_file({self._source['path']!r})"

    def __reduce__(self) -> tuple[Callable[[Any], Rules], tuple[Any]]:
        return Rules.from_spec, (self.to_spec(),)


def _line(i: int, row: Any) -> str:
    pair = () if isinstance(row, str) or not hasattr(row, "__iter__") else tuple(row)
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise InvalidInput(f"rules: row {i} must be a pattern and its alternatives, both str (it is {row!r})")
    line = "\t".join(pair)
    if line.count("\t") > 1 or len(line.splitlines()) > 1 or not pair[0].strip() or pair[0].startswith("#"):
        raise InvalidInput(
            f"rules: row {i} must hold no tab or line end (write \\t, \\n), and a pattern that is not empty or a "
            f"comment (it is {row!r})"
        )
    if lone_surrogate(line):
        raise InvalidInput(f"rules: row {i} must hold no lone surrogate (it is {row!r})")
    return line + "\n"


def _counted(text: str, where: str) -> int:
    try:
        return _core.count_rules(text)
    except InvalidInput as error:
        located = InvalidInput(f"{where}: {error}")
        located.line, located.column = error.line, error.column
        raise located from None
