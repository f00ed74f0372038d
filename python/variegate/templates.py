"""Template grammars: texts with alternatives, drawn values and computed answers, counted exactly and drawn in parallel.

A grammar is a few rules. Its derivations are numbered, so that the k-th can be had without the others, a sample can be
drawn without repeats in constant memory, and every row can be made again from its seed and number. The language is
described in the chapter "Writing grammars".
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Self, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from variegate import _core
from variegate._tables import read_lexicon, read_rows
from variegate.batch import Spans, TextBatch, TokenBatch
from variegate.errors import InvalidInput
from variegate.tokenizer import Tokenizer

__all__ = ["Derivation", "Grammar", "Span", "Step", "read_lexicon", "read_rows"]


Value = int | str | bool | Decimal | datetime.date
"""What a binding can hold."""

_TYPES: dict[str, type[Any]] = {"int": int, "str": str, "bool": bool, "decimal": Decimal, "date": datetime.date}


class _Given(NamedTuple):
    """What a text refers to, as the core takes it."""

    lexicons: list[tuple[str, list[str], list[int] | None]]
    rows: int
    values: list[tuple[str, str, int, NDArray[np.int64]]]
    texts: list[tuple[str, list[str]]]


class Span(NamedTuple):
    """A tagged part of a text: ``text[start:end]``.

    Attributes:
        start: First character.
        end: The character after the last.
        tag: The tag's name.
    """

    start: int
    end: int
    tag: str


@dataclass(frozen=True)
class Derivation:
    """One way through a grammar.

    Attributes:
        text: What it says, without tags.
        spans: Where the tags were, in characters of the text, outer before inner.
        bindings: The value that each drawn name had at the end: an int, str, bool, `decimal.Decimal` or
            `datetime.date`.
        index: Its number among all derivations of the grammar.
        row: The number of the source row that it uses; None in a grammar without ``col:``.
    """

    text: str
    spans: tuple[Span, ...]
    bindings: dict[str, Value]
    index: int
    row: int | None = None


class Step(NamedTuple):
    """A part of a derivation.

    Attributes:
        depth: How many parts it lies in.
        kind: ``rule``, ``group``, ``draw``, ``compute`` or ``tag``.
        name: Of the rule, the binding or the tag; a computed or filtered slot as it is written; empty for a group.
        value: What was drawn for a binding, as text.
        choice: Which alternative was taken of how many, where there was a choice; (0, n) for a group left out.
        text: What came of it.
    """

    depth: int
    kind: str
    name: str
    value: str | None
    choice: tuple[int, int] | None
    text: str


class Grammar:
    """A compiled grammar.

    Args:
        text: The rules.
        start: The rule that derivations begin with; the first rule if None.
        name: Keeps the draws and ids of two grammars apart under one seed; the start rule's name if None.
        lexicons: What ``{x=lex:name}`` draws from, by name: a sequence of strings, all alike, or a mapping of strings
            to whole numbers, their weights (`read_lexicon` reads a file).
        rows: What ``{x=col:name}`` takes, by name: columns of equal length of integers, strings, truth values,
            `decimal.Decimal` or dates (``datetime64`` or `datetime.date`). All that one derivation takes is of one row.
            `read_rows` reads a file.
        root: The folder that ``include "path"`` reads from; None refuses to include.

    Raises:
        InvalidInput: The text is no grammar; ``line`` and ``column`` of the error say where, its message why, and in
            which file if it is an included one. Or a lexicon or column is empty, of another type, or of another length.

    Example:
        >>> g = Grammar("sum = {a=int 1..3}+{b=int 1..3}=<answer>{=a+b}</answer>")
        >>> g.count()
        9
        >>> g.nth(5).text, g.nth(5).spans, g.nth(5).bindings
        ('2+3=5', (Span(start=4, end=5, tag='answer'),), {'a': 2, 'b': 3})
        >>> g.sample(3, seed=1).texts == g.sample(5, seed=1).texts[:3]
        True
    """

    __slots__ = ("_bindings", "_core", "_given", "_name", "_options", "_strings", "_tags", "_text")

    def __init__(
        self,
        text: str,
        *,
        start: str | None = None,
        name: str | None = None,
        lexicons: Mapping[str, Sequence[str] | Mapping[str, int]] | None = None,
        rows: Mapping[str, Sequence[Value] | NDArray[Any]] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(text, str):
            raise InvalidInput(f"text must be a str, not {type(text).__name__}: Grammar.from_file reads files")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"text must be valid Unicode (character {error.start} is a lone surrogate)") from None
        given = _Given(_lexicons(lexicons or {}), *_columns(rows or {}))
        self._compile(text, (start, name), given, root=None if root is None else (os.fspath(root), None), files=None)

    def _compile(
        self,
        text: str,
        options: tuple[str | None, str | None],
        given: _Given,
        *,
        root: tuple[str, str | None] | None,
        files: list[tuple[str, str]] | None,
    ) -> None:
        start, name = options
        for what, value in (("start", start), ("name", name)):
            if value is not None and not (isinstance(value, str) and _encodable(value)):
                raise InvalidInput(f"{what} must be a str of valid Unicode (it is {value!r})")
        self._core = _core.Grammar(text, start, *given, root, files)
        self._text = text
        self._options = options
        self._given = given
        self._name = self._core.start if name is None else name
        self._bindings = self._core.bindings
        self._strings = _objects(self._core.strings)
        self._tags = _objects(self._core.tags)

    @classmethod
    def _made(
        cls,
        text: str,
        options: tuple[str | None, str | None],
        given: _Given,
        *,
        root: tuple[str, str | None] | None = None,
        files: list[tuple[str, str]] | None = None,
    ) -> Self:
        grammar = cls.__new__(cls)
        grammar._compile(text, options, given, root=root, files=files)
        return grammar

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        start: str | None = None,
        name: str | None = None,
        lexicons: Mapping[str, Sequence[str] | Mapping[str, int]] | None = None,
        rows: Mapping[str, Sequence[Value] | NDArray[Any]] | None = None,
    ) -> Self:
        """Reads a grammar from a UTF-8 file; what it includes is read from beside it.

        Raises:
            InvalidInput: As the constructor, with the path before the message; or the file is not UTF-8.
            OSError: The file cannot be read.
        """
        path = os.fspath(path)
        with open(path, "rb") as file:
            raw = file.read()
        given = _Given(_lexicons(lexicons or {}), *_columns(rows or {}))
        try:
            return cls._made(raw.decode("utf-8-sig"), (start, name), given, root=os.path.split(path))
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path}: not UTF-8 (byte {error.start})") from None
        except InvalidInput as error:
            located = InvalidInput(f"{path}: {error}")
            located.line, located.column = error.line, error.column
            raise located from None

    @property
    def text(self) -> str:
        """The rules as they were given."""
        return self._text

    @property
    def start(self) -> str:
        """The rule that derivations begin with."""
        return self._core.start

    @property
    def name(self) -> str:
        """What keeps the draws and ids of two grammars apart under one seed."""
        return self._name

    @property
    def canonical(self) -> str:
        """The same grammar in one way of writing: the start first, a line a rule, without comments and includes.

        The SHA-256 of each lexicon and column that it uses stands at the end, in a comment.
        """
        return self._core.canonical

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `canonical`, in hexadecimal: equal for grammars with the same derivations in the same order."""
        return self._core.fingerprint

    @property
    def bindings(self) -> dict[str, type[Any]]:
        """The bindings that become columns of a sample, in the order of the text, with the type of their values.

        The types are int, str, bool, `decimal.Decimal` and `datetime.date`.
        """
        return {name: _TYPES[kind] for name, kind, *_ in self._bindings}

    def count(self) -> int:
        """How many derivations there are, exactly; two of them may give the same text.

        Example:
            >>> Grammar("hello = hi( {name=choice Anna, Ben})?").count()
            3
        """
        return int.from_bytes(self._core.count(), "little")

    def rule_counts(self) -> dict[str, int]:
        r"""How many derivations each rule has where it goes deepest, and 0 if none calls it; in the order of the text.

        Example:
            >>> Grammar("x = {y} {y}\ny = a | b | {n=int 1..8}\nz = c").rule_counts()
            {'x': 100, 'y': 10, 'z': 0}
        """
        return {name: int.from_bytes(count or b"", "little") for name, count in self._core.rule_counts()}

    def explain(self, index: int) -> tuple[Step, ...]:
        r"""The parts that the derivation ``index`` is made of, in the order of the text, outer before inner.

        Raises:
            InvalidInput: As `nth`.

        Example:
            >>> for step in Grammar("x = {who}( is {age=int 7..9})?\nwho = Anna | Ben").explain(7):
            ...     print("  " * step.depth, step.kind, step.name, step.value, step.choice, repr(step.text))
             rule x None None 'Ben is 9'
               rule who None (2, 2) 'Ben'
               group  None (1, 1) ' is 9'
                 draw age 9 None '9'
        """
        index = _integer("nth: the index", index)
        if index < 0:
            raise InvalidInput("nth: the index must not be below 0")
        text, steps = self._core.explain(_bytes(index))
        raw = text.encode()
        return tuple(
            Step(depth, kind, name, value, choice, raw[start:end].decode())
            for depth, kind, name, value, choice, start, end in steps
        )

    def nth(self, index: int) -> Derivation:
        """The derivation ``index``, without making the others.

        Derivations are in the order of the text, the last part turning fastest: alternatives as written, an optional
        group first left out, numbers from low to high. Cost: the length of the text, times the size of the index where
        that exceeds 64 bits.

        Raises:
            InvalidInput: The index is below 0 or not below `count`, or a computed slot has no value there.

        Example:
            >>> [Grammar("x = a | b(c)?").nth(k).text for k in range(3)]
            ['a', 'b', 'bc']
        """
        index = _integer("nth: the index", index)
        if index < 0:
            raise InvalidInput("nth: the index must not be below 0")
        data, _, (_, start, end, tag), columns, made, sources = self._core.nth(_bytes(index))
        raw = data.tobytes()
        places = [(len(raw[:a].decode()), len(raw[:b].decode())) for a, b in zip(start, end, strict=True)]
        spans = tuple(Span(a, b, self._tags[t]) for (a, b), t in zip(places, tag, strict=True))
        bindings: dict[str, Value] = {}
        for (name, kind, digits, always, makes), (values, drawn) in zip(self._bindings, columns, strict=True):
            if always or drawn[0]:
                value = int(values[0])
                match kind:
                    case "str":
                        bindings[name] = made[value] if makes else self._strings[value]
                    case "bool":
                        bindings[name] = bool(value)
                    case "decimal":
                        bindings[name] = Decimal(value).scaleb(-digits)
                    case "date":
                        bindings[name] = datetime.date.fromordinal(value + _EPOCH)
                    case _:
                        bindings[name] = value
        return Derivation(raw.decode(), spans, bindings, index, int(sources[0]) if len(sources) else None)

    def index_of(self, derivation: Derivation | str, *, bindings: Mapping[str, Value | None] | None = None) -> int:
        """The index of a derivation, or the lowest one with a text: the inverse of `nth`.

        A text is read by walking the grammar along it. Places that were left are remembered, so the cost grows with the
        places and not with the ways to them; where the text tells the alternatives apart it is a few walks. Values
        drawn hidden (``{!a=int 1..99}``) stay unknown until the text shows them, or a number computed from them; those
        behind computed strings are tried one after the other. The search gives up after 2**21 tries.

        Args:
            derivation: A derivation of `nth`, of this grammar or of another with the same texts; or a text.
            bindings: With a text, values that the derivation must have at the end, and None for names that it must not
                draw; any others are free.

        Raises:
            InvalidInput: No derivation has this text, with how far it can be read, or none with these bindings; an
                unknown binding; the search gives up.

        Example:
            >>> g = Grammar("sum = {a=int 1..3}+{b=int 1..3}={=a+b}")
            >>> g.index_of(g.nth(5)), g.index_of("2+3=5")
            (5, 5)
            >>> Grammar("x = {!a=int 1..9}{=a//4}").index_of("1", bindings={"a": 6})
            5
        """
        if isinstance(derivation, Derivation):
            if bindings is not None:
                raise InvalidInput("index_of: bindings go with a text; a derivation has its own")
            if 0 <= derivation.index < self.count() and self.nth(derivation.index) == derivation:
                return derivation.index
            bindings = {name: derivation.bindings.get(name) for name in self.bindings}
            text = derivation.text
        elif isinstance(derivation, str):
            text = derivation
        else:
            raise InvalidInput(f"index_of takes a Derivation or a str, not {type(derivation).__name__}")
        wanted: list[tuple[int | None, str | None] | None] = [None] * len(self._bindings)
        names = [name for name, *_ in self._bindings]
        for name, value in (bindings or {}).items():
            if name not in names:
                raise InvalidInput(f"index_of: there is no binding {name!r} (there are {', '.join(names) or 'none'})")
            _, kind, places, _, _ = self._bindings[names.index(name)]
            if value is None:
                wanted[names.index(name)] = (None, None)
            elif type(value) is not _TYPES[kind]:
                what = "an" if kind == "int" else "a"
                raise InvalidInput(f"index_of: the binding {name!r} holds {what} {kind} (it is {value!r})")
            else:
                wanted[names.index(name)] = _held(name, value, places)
        try:
            return int.from_bytes(self._core.index_of(text, wanted), "little")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"index_of: the text must be valid Unicode (character {error.start} is a lone surrogate)"
            ) from None

    @overload
    def sample(
        self,
        n: int,
        *,
        seed: int,
        law: Literal["weights", "uniform"] = "weights",
        replace: bool = True,
        shard: tuple[int, int] = (0, 1),
        distinct: bool = False,
        tokenizer: None = None,
        special_tokens: bool = False,
    ) -> TextBatch: ...

    @overload
    def sample(
        self,
        n: int,
        *,
        seed: int,
        law: Literal["weights", "uniform"] = "weights",
        replace: bool = True,
        shard: tuple[int, int] = (0, 1),
        distinct: bool = False,
        tokenizer: Tokenizer,
        special_tokens: bool = False,
    ) -> TokenBatch: ...

    def sample(
        self,
        n: int,
        *,
        seed: int,
        law: Literal["weights", "uniform"] = "weights",
        replace: bool = True,
        shard: tuple[int, int] = (0, 1),
        distinct: bool = False,
        tokenizer: Tokenizer | None = None,
        special_tokens: bool = False,
    ) -> TextBatch | TokenBatch:
        """Draws n texts, or their tokens.

        Row i is draw ``k = r + i * R`` of shard ``(r, R)``, and draw k is a function of grammar, name, seed, law and k
        alone: a shorter sample is the beginning of a longer one, and the shards of one seed together are the whole.

        Args:
            n: How many.
            seed: Of the job, in [0, 2**64).
            law: Each choice by its weights (an optional group that states none is there in half of the draws), or all
                derivations alike.
            replace: False draws no derivation twice, over all shards: the derivations at a seeded permutation of
                their indices, in constant memory, all alike.
            shard: (r, R), the part of the draws that is wanted; n counts in the shard.
            distinct: Whether to leave out each row whose text an earlier row of this call has; there may be fewer
                than n. Strings that two shards draw stay in both. All n texts are held until then.
            tokenizer: Given one, the rows are the tokens of the texts, each as its `Tokenizer.encode` makes them. Parts
                that come again are encoded once where the tokenizer keeps words apart, so this is much faster than
                encoding texts; a tokenizer of another kind encodes each text as a whole, with the same result.
            special_tokens: Whether the tokenizer's post-processor adds its tokens (BOS, EOS, ...).

        Returns:
            The texts, with the tags' spans in bytes; or the tokens, with the spans over the tokens that they touch.
            ``rows`` has a column for each binding (its last value): int64 for integers, bool for truth values,
            datetime64[D] for dates, float64 for decimals (the nearest one; the text has all digits), object for
            strings; where some derivations draw it and others do not, object, with None. It also has ``_k``, the draw,
            and, where `count` is at most 2**64 - 1, ``_index``, the index of the derivation (both uint64), and
            ``_row``, the source row (int64), where the grammar uses them. ``ids`` are a 64-bit hash of seed, name and
            k. Cost: a few hundred nanoseconds a row.

        Raises:
            InvalidInput: An argument out of range; ``replace=False`` with weights and no ``law="uniform"``, with more
                draws than derivations, or with more than 2**128 of them; a computed slot without a value (division by
                zero, overflow), named with its place, its bindings and its draw; a text that the tokenizer's model
                cannot encode; tags with ``special_tokens`` that a post-processor puts elsewhere than around the text.

        Example:
            >>> g = Grammar("coin = {side=choice head, tail}")
            >>> sorted(g.sample(2, seed=7, replace=False).rows["side"])
            ['head', 'tail']
            >>> len(g.sample(100, seed=7, distinct=True))
            2
            >>> from variegate import Tokenizer
            >>> tokens = g.sample(9, seed=7, tokenizer=Tokenizer.default())
            >>> tokens.tokenizer.decode(tokens).texts == g.sample(9, seed=7).texts
            True
        """
        n = _integer("n", n)
        seed = _integer("seed", seed)
        if not 0 <= n < 2**63:
            raise InvalidInput(f"n must be a number of rows, 0 or more (it is {n})")
        if not 0 <= seed < 2**64:
            raise InvalidInput(f"seed must be in [0, 2**64) (it is {seed})")
        if law not in ("weights", "uniform"):
            raise InvalidInput(f"law must be 'weights' or 'uniform' (it is {law!r})")
        try:
            r, shards = (_integer("shard", part) for part in shard)
        except (TypeError, ValueError):
            raise InvalidInput(f"shard must be (r, R), two integers (it is {shard!r})") from None
        if not 0 <= r < shards < 2**64:
            raise InvalidInput(f"shard must be (r, R) with 0 <= r < R (it is {shard!r})")
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            raise InvalidInput(f"tokenizer must be a variegate.Tokenizer, not {type(tokenizer).__name__}")
        if special_tokens and tokenizer is None:
            raise InvalidInput("special_tokens=True needs a tokenizer")
        how: dict[str, Any] = {"seed": seed, "name": self._name, "uniform": law == "uniform"}
        how |= {"replace": bool(replace), "shard": (r, shards)}
        kept = None
        batch: TextBatch | TokenBatch
        if tokenizer is None or distinct:
            made, draws = self._core.sample(n, **how)
            if distinct:
                keeper = _core.exact_texts(made[0], made[1], draws[1], np.arange(n), "longest")[0]
                kept = np.flatnonzero(keeper == np.arange(n))
        if tokenizer is None:
            rows, spans = self._rows(n, made, draws)
            batch = TextBatch._trusted(made[0], made[1], draws[1], rows, spans)
        else:
            made_tokens, draws = self._core.sample_tokens(
                n, **how, tokenizer=tokenizer._hf, special_tokens=bool(special_tokens)
            )
            rows, spans = self._rows(n, made_tokens, draws)
            tokens, offsets = made_tokens[:2]
            batch = TokenBatch._trusted(tokens, offsets, draws[1], {}, rows, spans, None, tokenizer)
        return batch if kept is None else batch.take(kept)

    def _rows(self, n: int, made: Any, draws: Any) -> tuple[dict[str, NDArray[Any]], Spans | None]:
        """The columns of n rows that the core made, and their spans."""
        _, _, (row, start, end, tag), columns, made_strings, sources = made
        rows: dict[str, NDArray[Any]] = {}
        own = _objects(made_strings)
        for (name, kind, places, always, makes), (values, drawn) in zip(self._bindings, columns, strict=True):
            strings = own if makes else self._strings
            if always:
                rows[name] = _column(kind, places, values, strings)
            else:
                rows[name] = np.full(n, None, object)
                rows[name][drawn] = _column(kind, places, values[drawn], strings)
        if self._core.uses_rows:
            rows["_row"] = sources
        rows["_k"] = draws[0]
        if draws[2] is not None:
            rows["_index"] = draws[2]
        return rows, Spans(row, start, end, self._tags[tag]) if len(self._tags) else None

    def reweight(
        self, derivations: TextBatch | TokenBatch | ArrayLike | Iterable[Derivation | int], *, floor: float = 0.05
    ) -> Grammar:
        r"""The grammar with the weights that make the given derivations most likely.

        What a filter, a judge or a trained model accepted of a sample says which alternatives to take more often. Each
        choice gets the frequencies with which its alternatives were taken; where recursion at its depth leaves only
        some of them, it is estimated among these (Luce's choice axiom, by the iteration of Hunter 2004). Groups get the
        frequency of being left out. Drawn values (``int``, ``choice``) have no weights, and a choice that no derivation
        makes keeps its own.

        Args:
            derivations: A sample (or part of one) with ``rows["_index"]``, indices, or derivations of `nth`.
            floor: The least weight of an alternative, as a part of the mean weight of its choice, in (0, 1]; so no
                alternative dies, however few derivations there are.

        Returns:
            A grammar of the same derivations in the same order, with this one's start and name. Its text is the
            canonical one, with probabilities for weights. Cost: about that of drawing the derivations.

        Raises:
            InvalidInput: A floor out of range, no index below `count`, or a batch without ``_index``.

        Example:
            >>> g = Grammar("x = a | b( c)?")
            >>> g.reweight([0, 0, 0, 1, 2], floor=0.01).text
            'x = a::0.600000000|b(::0.500000000|\\ c::0.500000000)?::0.400000000\n'
        """
        if isinstance(derivations, TextBatch | TokenBatch):
            if "_index" not in derivations.rows:
                raise InvalidInput("reweight: the batch has no rows['_index'], the indices of a sample's derivations")
            derivations = derivations.rows["_index"]
        more: list[bytes] = []
        if isinstance(derivations, np.ndarray) and derivations.dtype == np.uint64 and derivations.ndim == 1:
            indices = np.ascontiguousarray(derivations)
        else:
            if not isinstance(derivations, Iterable):
                raise InvalidInput(
                    f"reweight: derivations must be indices or derivations, not {type(derivations).__name__}"
                )
            indices = np.empty(0, np.uint64)
            for item in cast("Iterable[Derivation | int]", derivations):
                index = item.index if isinstance(item, Derivation) else _integer("reweight: an index", item)
                if index < 0:
                    raise InvalidInput("reweight: an index must not be below 0")
                more.append(_bytes(index))
        if isinstance(floor, str) or not hasattr(floor, "__float__"):
            raise InvalidInput(f"reweight: floor must be a number (it is {floor!r})")
        text = self._core.reweight(indices, more, float(floor))
        return type(self)._made(text, (self._options[0], self._name), self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self._text, self._options, self._given, self._core.included)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grammar):
            return NotImplemented
        return self.fingerprint == other.fingerprint and self._name == other._name

    def __hash__(self) -> int:
        return hash((self.fingerprint, self._name))

    def __repr__(self) -> str:
        start, name = self._options
        given = "".join(f", {key}={value!r}" for key, value in (("start", start), ("name", name)) if value is not None)
        lexicons = {name for name, _, _ in self._given.lexicons}
        columns = {name for name, _, _, _ in self._given.values} | {name for name, _ in self._given.texts}
        for key, names in (("lexicons", lexicons), ("rows", columns)):
            if names:
                given += f", {key}=<{', '.join(sorted(names))}>"
        return f"Grammar({self._text!r}{given})"


def _remake(text: str, options: tuple[str | None, str | None], given: _Given, files: list[tuple[str, str]]) -> Grammar:
    return Grammar._made(text, options, given, files=files)


_EPOCH = datetime.date(1970, 1, 1).toordinal()


def _column(kind: str, places: int, values: NDArray[np.int64], strings: NDArray[np.object_]) -> NDArray[Any]:
    """The values of a binding as they stand in `rows`."""
    match kind:
        case "str":
            return strings[values]
        case "bool":
            return values.astype(np.bool_)
        case "date":
            return values.astype("datetime64[D]")
        case "decimal":
            if len(values) == 0 or np.abs(values).max() < 2**53:
                return values / 10.0**places  # exact on both sides, so the quotient is the nearest
            return np.array([float(Decimal(value).scaleb(-places)) for value in values.tolist()])
        case _:
            return values


def _lexicons(
    lexicons: Mapping[str, Sequence[str] | Mapping[str, int]],
) -> list[tuple[str, list[str], list[int] | None]]:
    found: list[tuple[str, list[str], list[int] | None]] = []
    for name, items in _named("lexicons", lexicons):
        if isinstance(items, str):
            raise InvalidInput(f"lexicons: '{name}' must be a sequence of strings, not one string")
        texts = _strings(f"lexicons: '{name}'", items)
        weights = None
        if isinstance(items, Mapping):
            what = f"lexicons: a weight in '{name}'"
            weights = [_integer(what, weight) for weight in items.values()]
            if min(weights, default=1) < 1 or sum(weights) >= 2**32:
                raise InvalidInput(f"lexicons: the weights of '{name}' must be above 0 and sum to less than 2**32")
        found.append((name, texts, weights))
    return found


def _named(what: str, given: object) -> list[tuple[str, Any]]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) and _encodable(name) for name in given):
        raise InvalidInput(f"{what} must be a mapping by name (it is {given!r})")
    return list(given.items())


def _strings(what: str, items: Iterable[object]) -> list[str]:
    texts: list[str] = []
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise InvalidInput(f"{what} must hold strings (item {i} is {item!r})")
        try:
            item.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"{what} must hold valid Unicode (item {i} has a lone surrogate)") from None
        texts.append(str(item))
    return texts


def _columns(
    rows: Mapping[str, Sequence[Value] | NDArray[Any]],
) -> tuple[int, list[tuple[str, str, int, NDArray[np.int64]]], list[tuple[str, list[str]]]]:
    """How many source rows there are, and their columns as the core takes them."""
    values: list[tuple[str, str, int, NDArray[np.int64]]] = []
    texts: list[tuple[str, list[str]]] = []
    count = 0
    for name, column in _named("rows", rows):
        if isinstance(column, str) or not hasattr(column, "__len__"):
            kind = "one string" if isinstance(column, str) else type(column).__name__
            raise InvalidInput(f"rows: column '{name}' must be a sequence, not {kind}")
        count = len(column)
        if count == 0:
            raise InvalidInput(f"rows: column '{name}' has no values: it needs some")
        if isinstance(column, np.ndarray) and column.dtype.kind == "M":
            days = column.astype("datetime64[D]")
            if (days != column).any():
                raise InvalidInput(f"rows: column '{name}' must hold dates without a time")
            values.append((name, "date", 0, _days(name, days.astype(np.int64))))
            continue
        items = list(column.tolist() if isinstance(column, np.ndarray) else column)
        types = {type(item) for item in items}
        if types == {bool}:
            values.append((name, "bool", 0, np.array(items, np.int64)))
        elif types == {int}:
            if not -(2**63) <= min(items) <= max(items) < 2**63:
                raise InvalidInput(f"rows: column '{name}' must hold integers of 64 bits")
            values.append((name, "int", 0, np.array(items, np.int64)))
        elif types == {datetime.date}:
            days = np.array([item.toordinal() - _EPOCH for item in items], np.int64)
            values.append((name, "date", 0, days))
        elif types == {Decimal}:
            values.append((name, "decimal", *_decimals(name, items)))
        elif items and all(isinstance(item, str) for item in items):
            texts.append((name, _strings(f"rows: column '{name}'", items)))
        else:
            known = "integers, strings, truth values, Decimals or dates, all of one type"
            odd = next((item for item in items if type(item) not in (int, bool, datetime.date, Decimal, str)), None)
            shown = "" if odd is None else f" ({odd!r} is none of them)"
            raise InvalidInput(f"rows: column '{name}' must hold {known}{shown}")
    return count, values, texts


def _days(name: str, days: NDArray[np.int64]) -> NDArray[np.int64]:
    first, last = datetime.date.min.toordinal() - _EPOCH, datetime.date.max.toordinal() - _EPOCH
    if len(days) and not first <= days.min() <= days.max() <= last:
        raise InvalidInput(f"rows: column '{name}' must hold dates of the years 1 to 9999")
    return days


def _decimals(name: str, items: list[Decimal]) -> tuple[int, NDArray[np.int64]]:
    exponents = [item.as_tuple().exponent for item in items]
    finite = [exponent for exponent in exponents if isinstance(exponent, int)]
    places = max(0, -min(finite, default=0))
    if len(finite) == len(items) and places <= 18:
        units = [int(item.scaleb(places)) for item in items]
        if -(2**63) <= min(units) <= max(units) < 2**63:
            return places, np.array(units, np.int64)
    raise InvalidInput(f"rows: column '{name}' must hold finite decimals of at most 18 digits")


def _integer(what: str, value: object) -> int:
    if isinstance(value, bool | np.ndarray) or not hasattr(value, "__index__"):
        raise InvalidInput(f"{what} must be an integer (it is {value!r})")
    return int(value.__index__())


def _bytes(index: int) -> bytes:
    return index.to_bytes((index.bit_length() + 7) // 8, "little")


def _held(name: str, value: Value, places: int) -> tuple[int | None, str | None]:
    """What the core holds of a value: a number, or a string."""
    if isinstance(value, str):
        return None, value
    if isinstance(value, datetime.date):
        return value.toordinal() - _EPOCH, None
    scaled = value.scaleb(places) if isinstance(value, Decimal) else value
    if scaled != int(scaled) or not -(2**63) <= scaled < 2**63:
        raise InvalidInput(f"index_of: the binding {name!r} cannot be {value!r}")
    return int(scaled), None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _objects(items: list[str]) -> NDArray[np.object_]:
    out = np.empty(len(items), object)
    out[:] = items
    return out
