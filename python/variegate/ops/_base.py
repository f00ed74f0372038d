"""What every op is: parameters, their JSON, and one call into the core."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import math
import numbers
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from variegate import _core
from variegate.batch import Edits, Spans, TextBatch, TokenBatch, _padding
from variegate.errors import InvalidInput
from variegate.ops.lexicon import Lexicon, lone_surrogate
from variegate.ops.rules import Rules

if TYPE_CHECKING:
    from variegate.tokenizer import Tokenizer

__all__ = ["Op", "Protect", "from_json", "from_spec"]

_READABLE = {1: ("bool", "uint8"), 4: ("int32",)}
"""The dtypes of a column that an op reads, by the bytes of a value."""

Batch = TypeVar("Batch", TokenBatch, TextBatch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protect:
    """What an op must leave as it is.

    Attributes:
        ids: Token ids, such as those of special tokens.
        columns: Names of bool or uint8 columns; a token is protected where one of them is not 0.
        spans: Tags; tokens (or bytes of text) in a span of such a tag are protected.
        words: Words of a text, in any case, such as `NEGATIONS`; ``n't`` stands for all words that end so.

    Raises:
        InvalidInput: An id that is no token id, or a name that is no str.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[1, 7, 8, 2]], ids=[5])
        >>> vg.ops.TokenDropout(rate=1.0, protect=Protect(ids=(1, 2)))(batch, seed=0).to_lists()
        [[1, 2]]
    """

    ids: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    spans: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ids", "columns", "spans", "words"):
            value = getattr(self, name)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise InvalidInput(f"protect: {name} must be a sequence (it is {value!r})")
            one = _token if name == "ids" else _text
            object.__setattr__(self, name, tuple(one(f"protect: {name}", item) for item in value))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Op:
    """An op, or a composition of ops: parameters that are checked and compiled once, and called on batches.

    Attributes:
        name: What keys the op's draws, in place of its kind and ordinal; unique among its siblings.
        protect: What the op must leave as it is; on a composition, what all ops in it must.
    """

    name: str | None = None
    protect: Protect | None = None
    _pipeline: _core.Pipeline = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for field in _parameters(self):
            value = _checked(f"{kind}: {field.name}", str(field.type), getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        object.__setattr__(self, "_pipeline", _core.Pipeline(json.dumps(self._spec(_compiled), allow_nan=False)))

    @overload
    def __call__(
        self,
        batch: Batch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: None = None,
    ) -> Batch: ...

    @overload
    def __call__(
        self,
        batch: TokenBatch | TextBatch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: Tokenizer,
    ) -> TokenBatch: ...

    def __call__(
        self,
        batch: TokenBatch | TextBatch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: Tokenizer | None = None,
    ) -> TokenBatch | TextBatch:
        """Runs over a batch, in one call into the core, without the GIL.

        An op on text that gets a `TokenBatch` edits the decoded text and encodes again what it touched.

        Args:
            batch: A `TokenBatch`, or a `TextBatch` for ops on text alone; it is not changed.
            seed: The job's seed, below 2^64.
            epoch: The pass over the data, below 2^32.
            variant: Which of several variants of the same rows, below 2^64.
            return_source: Whether to set ``source`` and ``edited`` (on text: ``edits``), relative to `batch`.
            tokenizer: Encodes a `TextBatch` before the op runs, so that what comes out is tokens, and takes the place
                of the one that a `TokenBatch` has.

        Returns:
            A batch of the same kind, which shares the arrays that did not change; ``stats`` says what each op did.

        Raises:
            InvalidInput: A text for an op on tokens, a number out of its bounds, a protected column that is missing, no
                tokenizer for an op that needs one.
        """
        if tokenizer is not None:
            batch = tokenizer.encode(batch) if isinstance(batch, TextBatch) else batch.replace(tokenizer=tokenizer)
        call = (_whole("seed", seed, 64), _whole("epoch", epoch, 32), _whole("variant", variant, 64), return_source)
        if isinstance(batch, TokenBatch):
            return _run_tokens(self._pipeline, batch, call)
        if isinstance(batch, TextBatch):
            return _run_texts(self._pipeline, batch, call)
        raise InvalidInput(f"{type(self).__name__} takes a TokenBatch or a TextBatch, not {type(batch).__name__}")

    @property
    def domain(self) -> str:
        """``token`` or ``text``: what the op works on; an op on text takes tokens too, given their tokenizer."""
        return self._pipeline.domain

    @property
    def reads(self) -> dict[str, str]:
        """The columns that the op reads or protects, and their dtypes."""
        shut = dict.fromkeys(_protected(self), _READABLE[1][-1]) if self.domain == "token" else {}
        return shut | {name: _READABLE[width][-1] for name, width in self._pipeline.reads}

    @property
    def paths(self) -> list[str]:
        """The path of each op within: what keys its draws, and its name in ``stats``."""
        return self._pipeline.paths

    def to_spec(self) -> dict[str, Any]:
        """The op as an object of plain values with one key, its kind; `from_spec` makes it an op again."""
        return self._spec(_plain)

    def _spec(self, plain: Callable[[Any], Any]) -> dict[str, Any]:
        parameters = {field.name: plain(getattr(self, field.name)) for field in _parameters(self)}
        return {type(self).__name__: {name: value for name, value in parameters.items() if value is not None}}

    def to_json(self) -> str:
        """The spec as JSON. With seed, epoch, variant and the rows' ids it replays what the op did."""
        return json.dumps(self.to_spec(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The op of a JSON spec.

        Raises:
            InvalidInput: Text that is no spec, or a spec of another kind than this class.
        """
        op = from_json(text)
        if not isinstance(op, cls):
            raise InvalidInput(f"the spec is of {type(op).__name__}, not of {cls.__name__}")
        return op

    def __repr__(self) -> str:
        """The call that makes the op, without the parameters that have their defaults."""
        given = [f for f in _parameters(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in given)})"

    def __reduce__(self) -> tuple[Callable[[str], Op], tuple[str]]:
        """Pickles as JSON: a worker process compiles the op anew."""
        return from_json, (self.to_json(),)


def from_json(text: str) -> Op:
    """The op of a JSON spec, as `Op.to_json` writes it.

    Raises:
        InvalidInput: Text that is not JSON, and all that `from_spec` refuses.
    """
    try:
        spec = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the spec is not JSON: {error}") from None
    return from_spec(spec)


def from_spec(spec: Mapping[str, Any] | Op) -> Op:
    """The op of a spec: an object with one key, the kind, and the parameters as an object.

    Args:
        spec: As in a recipe; an op is returned as it is.

    Raises:
        InvalidInput: An op or a parameter that does not exist (with the nearest that does), is missing, or is refused.

    Example:
        >>> from_spec({"TokenDropout": {"rate": 0.1}})
        TokenDropout(rate=0.1)
    """
    from variegate import ops

    if isinstance(spec, Op):
        return spec
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise InvalidInput(
            f"an op is an object with one key, such as {{'TokenDropout': {{'rate': 0.1}}}} (not {spec!r})"
        )
    ((kind, parameters),) = spec.items()
    exported = {name: getattr(ops, name) for name in ops.__all__}
    kinds = [name for name, cls in exported.items() if isinstance(cls, type) and issubclass(cls, Op) and cls is not Op]
    if kind not in kinds:
        raise InvalidInput(f"there is no op {kind!r}{_nearest(kind, kinds)}")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, Mapping):
        raise InvalidInput(f"{kind}: parameters must be an object, such as {{'rate': 0.1}} (not {parameters!r})")
    cls: type[Op] = exported[kind]
    known = [field for field in dataclasses.fields(cls) if field.init]
    for name in parameters:
        if name not in {field.name for field in known}:
            raise InvalidInput(f"{kind}: there is no parameter {name!r}{_nearest(name, [f.name for f in known])}")
    for field in known:
        if field.default is dataclasses.MISSING and field.name not in parameters:
            raise InvalidInput(f"{kind}: parameter '{field.name}' is missing")
    return cls(**parameters)


def _run_tokens(pipeline: _core.Pipeline, batch: TokenBatch, call: tuple[int, int, int, bool]) -> TokenBatch:
    columns = [_column(name, column) for name, column in batch.columns.items()]
    if pipeline.labels and "labels" in batch.columns and batch.columns["labels"].dtype != np.int32:
        raise InvalidInput(f"an op that writes 'labels' needs it as int32 (it is {batch.columns['labels'].dtype})")
    for name, width in pipeline.reads:
        if name in batch.columns and batch.columns[name].dtype not in _READABLE[width]:
            needed = " or ".join(_READABLE[width])
            raise InvalidInput(f"an op reads column '{name}' as {needed} (it is {batch.columns[name].dtype})")
    if batch.targets is not None and pipeline.targets:
        raise InvalidInput("an op makes targets, and the batch has some: pass batch.replace(targets=None)")
    ids, spans = batch.ids, batch.spans
    tokenizer = None if batch.tokenizer is None else batch.tokenizer._hf
    arrays = _span_arrays(pipeline, spans)
    out = pipeline.run_tokens(batch.tokens, batch.offsets, ids, columns, arrays, tokenizer, *call)
    ids, rows, parents = _lineage(out, ids, batch.rows)
    targets = batch.targets
    if "targets" in out:
        made = out["targets"]
        targets = TokenBatch._trusted(
            made["tokens"], made["offsets"], ids, _typed(made["columns"], batch), {}, None, None, batch.tokenizer
        )
        targets.source, targets.edited = made.get("source"), made.get("edited")
    elif targets is not None and parents is not None:
        targets = targets.take(parents)
        targets._ids = ids
    changed = _typed(out["columns"], batch)
    result = TokenBatch._trusted(
        out["tokens"],
        out.get("offsets", batch.offsets),
        ids,
        batch.columns | changed if changed else batch.columns,
        rows,
        _moved_spans(out, spans),
        targets,
        batch.tokenizer,
    )
    result.source, result.edited, result.stats = out.get("source"), out.get("edited"), out["stats"]
    return result


def _run_texts(pipeline: _core.Pipeline, batch: TextBatch, call: tuple[int, int, int, bool]) -> TextBatch:
    ids, spans = batch.ids, batch.spans
    out = pipeline.run_texts(batch.data, batch.offsets, ids, _span_arrays(pipeline, spans), *call)
    ids, rows, _ = _lineage(out, ids, batch.rows)
    result = TextBatch._trusted(out["data"], out["offsets"], ids, rows, _moved_spans(out, spans))
    result.edits = Edits(*out["edits"]) if "edits" in out else None
    result.stats = out["stats"]
    return result


def _column(name: str, column: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any], bytes]:
    """A column as bytes, and the value of an inserted token: as in padding."""
    if lone_surrogate(name):
        raise InvalidInput(f"columns must have names without a lone surrogate (one is {name!r})")
    if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8:
        raise InvalidInput(f"columns['{name}'] must hold numbers of at most 8 bytes, or bools (it is {column.dtype})")
    return name, column.view(np.uint8), np.array([_padding(name)]).astype(column.dtype).tobytes()


def _typed(columns: dict[str, np.ndarray[Any, Any]], batch: TokenBatch) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of bytes as what they were before; new ones are labels."""
    return {
        name: column.view(batch.columns[name].dtype if name in batch.columns else np.int32)
        for name, column in columns.items()
    }


def _span_arrays(pipeline: _core.Pipeline, spans: Spans | None) -> Any:
    if spans is None:
        return None
    numbers_of = {tag: number for number, tag in enumerate(pipeline.tags)}
    if numbers_of:
        tags = np.array([numbers_of.get(tag, -1) for tag in spans.tag], np.int32)
    else:
        tags = np.full(len(spans.row), -1, np.int32)
    row, start, end = (np.ascontiguousarray(part, np.int64) for part in spans[:3])
    return row, start, end, tags


def _moved_spans(out: dict[str, Any], spans: Spans | None) -> Spans | None:
    if spans is None or "spans" not in out:
        return spans
    row, start, end, origin = out["spans"]
    return Spans(row, start, end, np.asarray(spans.tag)[origin])


def _lineage(out: dict[str, Any], ids: Any, rows: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """Ids and rows of the result, and where they come from if they are not the input's."""
    if "lineage" not in out:
        return ids, rows, None
    ids, row, parent, variant = out["lineage"]
    return ids, {name: values[row] for name, values in rows.items()} | {"parent": parent, "variant": variant}, row


def _parameters(op: Op) -> list[dataclasses.Field[Any]]:
    """The parameters of an op, its own before those that every op has."""
    fields = [field for field in dataclasses.fields(op) if field.init]
    return sorted(fields, key=lambda field: field.name in ("name", "protect"))


def _protected(value: Any) -> Iterator[str]:
    """The columns that an op and those within it protect."""
    if isinstance(value, Protect):
        yield from value.columns
    elif isinstance(value, tuple):
        for item in value:
            yield from _protected(item)
    elif isinstance(value, Op):
        for field in _parameters(value):
            yield from _protected(getattr(value, field.name))


def _plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if isinstance(value, Op | Lexicon | Rules):
        return value.to_spec()
    if isinstance(value, Protect):
        given = {field.name: list(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: items for name, items in given.items() if items or name != "words"}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _compiled(value: Any) -> Any:
    """A parameter as the core takes it: a lexicon as its rows and rules as lines, wherever they come from."""
    if isinstance(value, Op):
        return value._spec(_compiled)
    if isinstance(value, Lexicon):
        return value.rows
    if isinstance(value, Rules):
        return value.text
    if isinstance(value, tuple):
        return [_compiled(item) for item in value]
    return _plain(value)


def _checked(where: str, annotation: str, value: Any) -> Any:
    """A parameter as its annotation says, or `InvalidInput`; bounds are the core's to check."""
    base, _, optional = annotation.partition(" | ")
    if value is None and optional == "None":
        return None
    one: dict[str, Callable[[str, Any], Any]] = {
        "float": _real,
        "int": _integer,
        "str": _text,
        "Lexicon": _lexicon,
        "Op": _op,
        "Protect": _protect,
        "Rules": _rules,
        "tuple[float, ...]": _reals,
        "tuple[int, ...]": _integers,
        "tuple[str, ...]": _texts,
        "tuple[Op, ...]": _ops,
    }
    if base.startswith("Literal["):
        return _choice(where, base, value)
    return one[base](where, value)


def _real(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InvalidInput(f"{where} must be a finite number (it is {value!r})")
    return float(value)


def _integer(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidInput(f"{where} must be an integer (it is {value!r})")
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidInput(f"{where} must fit 64 bits (it is {number})")
    return number


def _token(where: str, value: Any) -> int:
    if not 0 <= (token := _integer(where, value)) < 1 << 32:
        raise InvalidInput(f"{where} must lie in [0, 4294967295] (it holds {value})")
    return token


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{where} must be a str (it is {value!r})")
    if lone_surrogate(value):
        raise InvalidInput(f"{where} must hold no lone surrogate (it is {value!r})")
    return value


def _choice(where: str, annotation: str, value: Any) -> str:
    known = ast.literal_eval(f"({annotation.removeprefix('Literal[').removesuffix(']')},)")
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{where} must be one of {', '.join(known)} (it is {value!r})")
    return value


def _protect(where: str, value: Any) -> Protect:
    if isinstance(value, Protect):
        return value
    names = [field.name for field in dataclasses.fields(Protect)]
    if isinstance(value, Mapping) and all(name in names for name in value):
        return Protect(**value)
    raise InvalidInput(f"{where} must be a Protect, or an object with ids, columns, spans or words (it is {value!r})")


def _lexicon(where: str, value: Any) -> Lexicon:
    try:
        return Lexicon.from_spec(value)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {str(error).removeprefix('lexicon: ')}") from None


def _rules(where: str, value: Any) -> Rules:
    try:
        return Rules.from_spec(value)
    except InvalidInput as error:
        located = InvalidInput(f"{where}: {str(error).removeprefix('rules: ')}")
        located.line, located.column = error.line, error.column
        raise located from None


def _texts(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{where} must be a sequence of str (it is {value!r})")
    return tuple(_text(f"{where}[{i}]", item) for i, item in enumerate(value))


def _reals(where: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{where} must be a sequence of numbers (it is {value!r})")
    return tuple(_real(f"{where}[{i}]", item) for i, item in enumerate(value))


def _integers(where: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{where} must be a sequence of integers (it is {value!r})")
    return tuple(_integer(f"{where}[{i}]", item) for i, item in enumerate(value))


def _op(where: str, value: Any) -> Op:
    if not isinstance(value, Op | Mapping):
        raise InvalidInput(f"{where} must be an op (it is {value!r})")
    return from_spec(value)


def _ops(where: str, value: Any) -> tuple[Op, ...]:
    if isinstance(value, str | Mapping | Op) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{where} must be a sequence of ops (it is {value!r})")
    return tuple(_op(f"{where}[{i}]", item) for i, item in enumerate(value))


def _whole(name: str, value: Any, bits: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name} must be an integer (it is {value!r})") from None
    if not 0 <= number < 1 << bits:
        raise InvalidInput(f"{name} must lie in [0, 2^{bits}) (it is {number})")
    return number


def _nearest(word: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(word), known, 1)
    return f" (did you mean '{near[0]}'?)" if near else f" (there are {', '.join(sorted(known))})"
