"""SPDX licence expressions: reading them, and the licence of what is made from several works.

The table of incompatible pairs is short and holds only what is widely agreed on. It is a guard against plain mistakes,
not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from variegate.errors import InvalidInput

__all__ = ["INCOMPATIBLE", "NO_DERIVATIVES", "combine", "derive", "parse"]

NO_DERIVATIVES = re.compile(r"CC-BY(-NC)?-ND-\d\.\d.*")
"""Licences that forbid passing on what was made from the work."""

INCOMPATIBLE: tuple[tuple[str, str, str], ...] = (
    (r"GPL-2\.0-only", r"A?GPL-3\.0-(only|or-later)", "version 2 only and version 3 of the GPL exclude each other"),
    (r"GPL-2\.0-only", r"Apache-2\.0", "the patent terms of Apache-2.0 are further restrictions under GPL-2.0"),
    (r"A?GPL-\d\.\d-(only|or-later)", r"CC-BY-NC(-SA)?-\d\.\d.*", "the GPL allows no ban on commercial use"),
    (r"CC-BY-SA-\d\.\d.*", r"CC-BY-NC(-SA)?-\d\.\d.*", "share-alike allows no further ban on commercial use"),
    (r"CC-BY-SA-\d\.\d.*", r"(A?GPL-2\.0-only|AGPL-3\.0-(only|or-later))", "both ask for themselves on the whole"),
)
"""Pairs (pattern, pattern, why) that cannot be combined in one work, in either order."""

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9][A-Za-z0-9.+:-]*)")


def parse(expression: str) -> str:
    """An SPDX expression in normal form: operators in capitals, single spaces, no needless parentheses.

    Raises:
        InvalidInput: If it is not an expression of SPDX 2.3 (annex D).

    Example:
        >>> parse("(mit)  or Apache-2.0")
        'mit OR Apache-2.0'
    """
    tree, rest = _either(_tokens(expression), expression)
    if rest:
        raise InvalidInput(f"'{expression}' is not an SPDX expression: '{rest[0]}' is not expected there")
    return _written(tree)


def combine(expressions: Iterable[str]) -> str:
    """The licence of a work made from works under `expressions`.

    Equal licences give themselves, different ones `A AND B` with the parts in alphabetical order, and an unknown one
    (NOASSERTION, or NONE) makes the whole unknown.

    Raises:
        InvalidInput: If there are none, one is not an SPDX expression, or two cannot be combined (`INCOMPATIBLE`).

    Example:
        >>> combine(["MIT", "Apache-2.0", "MIT"])
        'Apache-2.0 AND MIT'
    """
    parts: set[str] = set()
    for expression in expressions:
        tree, _ = _either(_tokens(parse(expression)), expression)
        parts.update(_written(part, "AND") for part in _factors(tree))
    if not parts:
        raise InvalidInput("combine needs at least one licence")
    ordered = sorted(parts)
    for a, b in combinations(ordered, 2):
        for left, right, why in INCOMPATIBLE:
            if any(re.fullmatch(left, x) and re.fullmatch(right, y) for x, y in ((a, b), (b, a))):
                raise InvalidInput(f"licences {a} and {b} cannot be combined: {why}")
    if unknown := parts & {"NOASSERTION", "NONE"}:
        return min(unknown)
    return ordered[0].removeprefix("(").removesuffix(")") if len(ordered) == 1 else " AND ".join(ordered)


def derive(expressions: Iterable[str]) -> str:
    """`combine`, for a work that changes the others.

    Raises:
        InvalidInput: As `combine`, and where a licence forbids derivatives.

    Example:
        >>> derive(["CC-BY-ND-4.0"])
        Traceback (most recent call last):
        variegate.errors.InvalidInput: licence CC-BY-ND-4.0 forbids derived works
    """
    listed = list(expressions)
    for expression in listed:
        tree, _ = _either(_tokens(parse(expression)), expression)
        for part in map(_written, _factors(tree)):
            if NO_DERIVATIVES.fullmatch(part):
                raise InvalidInput(f"licence {part} forbids derived works")
    return combine(listed)


_Tree = tuple[str, "str | list[_Tree]"]


def _factors(tree: _Tree) -> list[_Tree]:
    """The parts that hold together: operands of AND, or the whole."""
    return tree[1] if tree[0] == "AND" and not isinstance(tree[1], str) else [tree]


def _tokens(expression: str) -> list[str]:
    tokens, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidInput(f"'{expression}' is not an SPDX expression: unexpected character at {at + 1}")
        tokens.append(match[1].upper() if match[1].upper() in ("AND", "OR", "WITH") else match[1])
        at = match.end()
    return tokens


def _either(tokens: list[str], text: str) -> tuple[_Tree, list[str]]:
    return _joined("OR", _both, tokens, text)


def _both(tokens: list[str], text: str) -> tuple[_Tree, list[str]]:
    return _joined("AND", _single, tokens, text)


def _joined(word: str, inner, tokens: list[str], text: str) -> tuple[_Tree, list[str]]:  # type: ignore[no-untyped-def]
    first, tokens = inner(tokens, text)
    parts = [first]
    while tokens and tokens[0] == word:
        part, tokens = inner(tokens[1:], text)
        parts.append(part)
    if len(parts) == 1:
        return first, tokens
    flat: list[_Tree] = []
    for part in parts:
        flat.extend(part[1] if part[0] == word else [part])
    return (word, flat), tokens


def _single(tokens: list[str], text: str) -> tuple[_Tree, list[str]]:
    if not tokens:
        raise InvalidInput(f"'{text}' is not an SPDX expression: it ends too early")
    if tokens[0] == "(":
        tree, rest = _either(tokens[1:], text)
        if not rest or rest[0] != ")":
            raise InvalidInput(f"'{text}' is not an SPDX expression: a ')' is missing")
        return tree, rest[1:]
    if tokens[0] in (")", "AND", "OR", "WITH"):
        raise InvalidInput(f"'{text}' is not an SPDX expression: '{tokens[0]}' is not expected there")
    if tokens[1:2] == ["WITH"]:
        if tokens[2:3] in ([], ["("], [")"], ["AND"], ["OR"], ["WITH"]):
            raise InvalidInput(f"'{text}' is not an SPDX expression: WITH needs the name of an exception")
        return ("ID", f"{tokens[0]} WITH {tokens[2]}"), tokens[3:]
    return ("ID", tokens[0]), tokens[1:]


def _written(tree: _Tree, around: str = "") -> str:
    kind, content = tree
    if isinstance(content, str):
        return content
    text = f" {kind} ".join(_written(part, kind) for part in content)
    return f"({text})" if kind == "OR" and around == "AND" else text
