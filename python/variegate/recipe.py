"""Recipes: what a run reads, does and writes, from YAML or from Python.

A recipe says everything that the output depends on. Unknown keys, wrong types and values out of range are errors with
file, line, column and, where a name was close to a known one, a suggestion.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WrapSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from variegate.errors import InvalidInput, RecipeError
from variegate.provenance import licenses

__all__ = [
    "Augment",
    "Decontaminate",
    "Dedup",
    "Kind",
    "Measure",
    "Mix",
    "Output",
    "Overlap",
    "Paraphrase",
    "Recipe",
    "Source",
    "Stage",
    "Templates",
    "load",
    "loads",
]

Kind = Literal["human", "unknown", "augmented", "templated", "generated"]


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        message = "a name must be 1 to 64 letters, digits, '.', '_' or '-', and start with a letter or digit"
        raise PydanticCustomError("name", message)
    return value


def _license(value: str) -> str:
    try:
        return licenses.parse(value)
    except InvalidInput as error:
        raise PydanticCustomError("license", "{why}", {"why": str(error)}) from None


def _op(spec: Any) -> Any:
    """Checks one op spec by making the op; the recipe holds the spec with its defaults filled in."""
    from variegate import ops

    if isinstance(spec, str):
        spec = {spec: {}}
    try:
        op = ops.from_spec(spec)
    except InvalidInput as error:
        raise PydanticCustomError("op", "{why}", {"why": str(error)}) from None
    made: dict[str, Any] = op.to_spec()
    for kind in _kinds(made):
        if kind in _NOT_FOR_TEXT:
            raise PydanticCustomError("op", "{why}", {"why": f"{kind} {_NOT_FOR_TEXT[kind]}"})
    return made


_NOT_FOR_TEXT = {
    **dict.fromkeys(
        ("MaskedLM", "NgramMask", "WholeWordMask"), "makes labels, which a text cannot hold: use it in a loader"
    ),
    **dict.fromkeys(
        ("PrefixLM", "SentencePermute", "SpanCorruption", "TextInfilling", "UL2"),
        "makes targets, which a text cannot hold: use it in a loader",
    ),
    "Repeat": "changes the number of records: use 'variants' of the stage",
}


def _kinds(spec: Any) -> list[str]:
    """Names of all ops in a spec, nested ones included."""
    if isinstance(spec, dict) and len(spec) == 1:
        ((kind, parameters),) = spec.items()
        if isinstance(kind, str) and kind[:1].isupper() and isinstance(parameters, dict):
            inner = [*(parameters.get("ops") or []), parameters.get("op")]
            return [kind, *(name for item in inner for name in _kinds(item))]
    return []


def _memory(value: Any) -> Any:
    """Bytes, from a number or from text like 512MB (powers of ten) or 512MiB (powers of two)."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B", value.strip())
    if found is None:
        message = "memory must be a number of bytes or a size like '512MB' or '2GiB', not '{value}'"
        raise PydanticCustomError("memory", message, {"value": value})
    unit = found[2] or ""
    return round(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** " kMGT".index(unit[:1] or " "))


MEMORY = 2_000_000_000
LEAST_MEMORY = 256_000_000

Name = Annotated[str, AfterValidator(_name)]
Memory = Annotated[int, BeforeValidator(_memory)]
Exhausted = Literal["keep", "error"]
License = Annotated[str, AfterValidator(_license)]
Share = Annotated[float, Field(ge=0, le=1)]
Op = Annotated[Any, BeforeValidator(_op)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Model):
    """Records to read: files of one kind, licence and format."""

    name: Name = Field(description="Name of the source, unique in the recipe; part of every record's identity.")
    path: str = Field(description="File, or glob ('**' crosses folders), relative to the recipe's folder.")
    format: Literal["auto", "jsonl", "parquet", "arrow", "text"] = Field(
        default="auto",
        description="How to read the files; auto goes by the name (.jsonl, .parquet, .arrow, .txt, .gz, .zst).",
    )
    text: str = Field(default="text", min_length=1, description="Field that holds the text.")
    id: str | None = Field(
        default=None, min_length=1, description="Field that identifies a record; without it content, file and row do."
    )
    license: License = Field(default="NOASSERTION", description="SPDX expression.")
    kind: Kind = Field(default="unknown", description="Who made the text; every kind but human counts as synthetic.")
    generation: int = Field(default=0, ge=0, le=2**31 - 1, description="How many models the text has passed through.")
    generator: str | None = Field(default=None, description="Name and revision of the model that made the text.")
    generator_terms: str | None = Field(default=None, description="Terms that the generator puts on its output.")
    keep: list[str] = Field(default=[], description="Further fields to carry into the output.")
    split: Literal["document", "paragraph", "line"] = Field(
        default="document", description="What is one record of a plain text file."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Source:
        clash = sorted({*self.keep} & {self.text, "text", "provenance", "spans", "bindings"})
        if clash:
            raise PydanticCustomError(
                "keep", "keep must not name '{key}': the output has that column", {"key": clash[0]}
            )
        if len({*self.keep}) < len(self.keep):
            raise PydanticCustomError("keep", "keep must name each field once")
        return self


class Stage(_Model):
    """What all stages have; `stage` is the key they go by in YAML."""

    stage: str
    name: Name | None = Field(
        default=None, description="Name of the stage, unique in the recipe; the kind of stage if absent."
    )

    @property
    def label(self) -> str:
        """The stage's name, or the key it goes by."""
        return self.name or self.stage


def _enough(candidates: int | None, name: str, wanted: int) -> None:
    if candidates is not None and candidates < wanted:
        numbers = {"candidates": candidates, "name": name, "wanted": wanted}
        message = "candidates must be at least {name}: {candidates} cannot give {wanted}"
        raise PydanticCustomError("candidates", message, numbers)


class Augment(Stage):
    """Derives variants from every record."""

    stage: Literal["augment"] = "augment"
    variants: int = Field(default=1, ge=1, le=1000, description="Derived records per record.")
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Most variants to try for each record, until enough are accepted; as many as variants if absent.",
    )
    exhausted: Exhausted = Field(
        default="keep", description="Whether a record whose candidates give fewer variants keeps those, or is an error."
    )
    ops: list[Op] = Field(min_length=1, description="Ops in order, each one name with its parameters.")
    keep_source: bool = Field(default=True, description="Pass the originals on.")

    @model_validator(mode="after")
    def _enough_candidates(self) -> Augment:
        _enough(self.candidates, "variants", self.variants)
        return self


class Paraphrase(Stage):
    """Derives variants from every record that say the same in another way, all of them distinct."""

    stage: Literal["paraphrase"] = "paraphrase"
    variants: int = Field(default=1, ge=1, le=1000, description="Distinct variants per record.")
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Most variants to try for each record, until enough differ; 4 * variants + 4 if absent.",
    )
    exhausted: Exhausted = Field(
        default="keep", description="Whether a record whose candidates give fewer variants keeps those, or is an error."
    )
    rules: str | None = Field(
        default=None,
        min_length=1,
        description="File of rewriting rules, relative to the recipe's folder; a set for English if absent.",
    )
    lexicon: str | None = Field(
        default=None,
        min_length=1,
        description="TSV file of words and their synonyms, relative to the recipe's folder; English words if absent.",
    )
    rate: Share = Field(default=0.5, description="Share of the matches of rules that are rewritten.")
    contractions: Share = Field(default=0.2, description="Share of English contractions that are made or undone.")
    synonyms: Share = Field(default=0.1, description="Share of the words of the lexicon that are replaced.")
    keep_source: bool = Field(default=True, description="Pass the originals on.")

    @model_validator(mode="after")
    def _enough_candidates(self) -> Paraphrase:
        _enough(self.candidates, "variants", self.variants)
        return self


class Templates(Stage):
    """Adds records from a grammar."""

    stage: Literal["templates"] = "templates"
    grammar: str | None = Field(default=None, description="Grammar text.")
    path: str | None = Field(default=None, description="File with the grammar, relative to the recipe's folder.")
    lexicons: dict[str, str] = Field(
        default_factory=dict, description="Files of what lex: draws from, by name: a string a line, a tab and a weight."
    )
    rows: str | None = Field(default=None, description="CSV, JSONL or Parquet file of the columns that col: takes.")
    count: int = Field(ge=1, le=2**40, description="Records that the final set should have from this stage.")
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=2**41,
        description="Records to make, of which later stages may reject some; as many as count if absent.",
    )
    exhausted: Exhausted = Field(
        default="keep", description="Whether a final set with fewer records of this stage is kept, or is an error."
    )
    law: Literal["uniform", "weights"] = Field(
        default="uniform", description="uniform: no derivation twice, all alike; weights: each choice by its weights."
    )
    license: License = Field(default="NOASSERTION", description="SPDX expression of the records made.")

    @model_validator(mode="after")
    def _enough_candidates(self) -> Templates:
        _enough(self.candidates, "count", self.count)
        return self

    @model_validator(mode="after")
    def _one_grammar(self) -> Templates:
        if (self.grammar is None) == (self.path is None):
            raise PydanticCustomError("grammar", "templates needs either grammar (text) or path (a file)")
        return self


class Dedup(Stage):
    """Keeps one record of each group of duplicates: real before synthetic, then the longest."""

    stage: Literal["dedup"] = "dedup"
    threshold: float | None = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Least Jaccard similarity of near-duplicates; null compares whole texts only.",
    )
    ngram: int = Field(default=5, ge=1, le=32, description="Tokens per shingle.")
    recall: float = Field(
        default=0.999, gt=0, lt=1, description="Least probability that two records at the threshold are compared."
    )
    closure: Literal["leader", "transitive"] = Field(
        default="leader",
        description="leader: a record goes if one that is kept is similar; transitive: if a chain leads to one.",
    )


class _Against(Stage):
    """Drops records for what they share with the texts of some files."""

    text: str = Field(default="text", min_length=1, description="Field that holds the text of those files.")
    split: Literal["document", "paragraph", "line"] = Field(
        default="document", description="What is one text of a plain text file."
    )
    ngram: int = Field(default=13, ge=1, le=65536, description="Least words in a row that count as shared.")
    threshold: Share = Field(default=0.5, description="Least share at which a record goes.")
    max_items: int | None = Field(
        default=None, ge=1, description="Runs of words that are in more texts of those files are not looked for."
    )

    @property
    def against(self) -> str:
        """The file or glob of the texts."""
        raise NotImplementedError

    def reading(self, recipe: Recipe) -> Recipe:
        """A recipe that reads the texts, and does nothing else."""
        source = Source(name=self.label, path=self.against, text=self.text, split=self.split)
        reading = Recipe(version=1, sources=[source])
        reading._base = recipe.base
        return reading


class Decontaminate(_Against):
    """Drops records that contain evaluation items: those of which a record covers at least a share."""

    stage: Literal["decontaminate"] = "decontaminate"
    evaluation: str = Field(
        min_length=1, description="File or glob of evaluation items, relative to the recipe's folder."
    )
    shortest: int = Field(
        default=8, ge=1, le=65536, description="Items of fewer words than ngram are looked for whole from here on."
    )

    @property
    def against(self) -> str:
        """The file or glob of the items."""
        return self.evaluation


class Overlap(_Against):
    """Drops records of which at least a share is, word for word, in a protected corpus."""

    stage: Literal["overlap"] = "overlap"
    protected: str = Field(
        min_length=1, description="File or glob of protected documents, relative to the recipe's folder."
    )
    longest: int | None = Field(default=None, ge=1, description="A record with so many shared words in a row goes too.")

    @property
    def against(self) -> str:
        """The file or glob of the documents."""
        return self.protected


class Measure(Stage):
    """Measures the records that reach it; changes nothing."""

    stage: Literal["measure"] = "measure"
    reference: str | None = Field(default=None, description="Source whose records, as read, are the reference.")


class Mix(_Model):
    """Limits on what the final set is made of."""

    max_synthetic: Share | None = Field(default=None, description="Largest share of records that are not human.")
    retain_real: Share | None = Field(
        default=None, description="Least share of the human records read that must remain."
    )
    by: Literal["tokens", "bytes"] = Field(default="tokens", description="What max_synthetic counts.")


class Output(_Model):
    """What the final set is written as."""

    format: Literal["parquet", "jsonl.zst"] = Field(default="parquet", description="File format of the shards.")
    rows_per_shard: int = Field(default=100_000, ge=1, le=2**31 - 1, description="Records per file.")


_STAGES: dict[str, type[Stage]] = {
    "augment": Augment,
    "decontaminate": Decontaminate,
    "dedup": Dedup,
    "measure": Measure,
    "overlap": Overlap,
    "paraphrase": Paraphrase,
    "templates": Templates,
}


def _flatten_stage(value: Any) -> Any:
    """`{augment: {...}}` -> `{stage: augment, ...}`; models pass."""
    if isinstance(value, Stage):
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise PydanticCustomError("stage", "a stage must be one name with its parameters, like dedup: {threshold: 0.8}")
    ((key, parameters),) = value.items()
    if key not in _STAGES:
        raise PydanticCustomError("unknown_key", "there is no stage '{key}'", {"key": key, "known": sorted(_STAGES)})
    if parameters is not None and not isinstance(parameters, dict):
        raise PydanticCustomError("stage", "the parameters of '{key}' must be a mapping", {"key": key})
    if "stage" in (parameters or {}):
        raise PydanticCustomError("extra", "unknown key '{key}'", {"key": "stage"})
    return {"stage": key, **(parameters or {})}


def _unflatten_stage(value: Stage, handler: Any) -> dict[str, Any]:
    dumped = handler(value)
    dumped.pop("stage")
    return {value.stage: dumped}


AnyStage = Annotated[
    Annotated[
        Augment | Paraphrase | Templates | Decontaminate | Dedup | Overlap | Measure, Field(discriminator="stage")
    ],
    BeforeValidator(_flatten_stage),
    WrapSerializer(_unflatten_stage),
]


class Recipe(_Model):
    """Everything that the output of a run depends on, but for the content of its inputs.

    Example:
        >>> recipe = Recipe(
        ...     version=1,
        ...     sources=[Source(name="py", path="in.jsonl", license="PSF-2.0", kind="human")],
        ...     stages=[Dedup(threshold=0.8)],
        ... )
        >>> recipe.seed, recipe.stages[0].label
        (0, 'dedup')
    """

    version: Literal[1] = Field(description="Version of this format.")
    seed: int = Field(default=0, ge=0, lt=2**64, description="Seed of all randomness.")
    tokenizer: str = Field(
        default="default",
        min_length=1,
        description="'default' (8k byte-level BPE), or a tokenizer.json or the folder that holds it.",
    )
    strict: bool = Field(default=True, description="Stop at a line that holds no record; false puts it into rejects/.")
    memory: Memory = Field(
        default=MEMORY,
        ge=LEAST_MEMORY,
        description="Bytes that a run may hold besides the interpreter, like 512MB; changes nothing in the output.",
    )
    sources: list[Source] = Field(default=[], description="Where records come from.")
    stages: list[AnyStage] = Field(default=[], description="What happens to them, in order.")
    mix: Mix | None = Field(default=None, description="Limits on the final set.")
    output: Output = Field(default=Output(), description="What is written.")

    _base: Path = PrivateAttr(default_factory=Path)
    _file: str | None = PrivateAttr(default=None)

    Version: ClassVar[int] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.sources and not any(isinstance(stage, Templates) for stage in self.stages):
            raise PydanticCustomError("empty", "a recipe needs a source or a templates stage")
        _unique([source.name for source in self.sources], "sources", "two sources are called '{key}'")
        labels = [stage.label for stage in self.stages]
        _unique(labels, "stages", "two stages are called '{key}': give one of them a name")
        clash = [label for label in labels if label in {"read", "mix", "output", *(s.name for s in self.sources)}]
        if clash:
            raise PydanticCustomError(
                "name", "a stage must not be called '{key}': the name is taken", {"key": clash[0]}
            )
        names = [source.name for source in self.sources]
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Measure) and stage.reference is not None and stage.reference not in names:
                context = {"key": stage.reference, "known": names, "at": ["stages", index, "measure", "reference"]}
                raise PydanticCustomError("unknown_key", "there is no source '{key}'", context)
        return self

    @property
    def base(self) -> Path:
        """Folder that the paths of the recipe are relative to."""
        return self._base

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema (2020-12) of the YAML form, for editors.

        Example:
            >>> schema = Recipe.json_schema()
            >>> schema["properties"]["stages"]["items"]["oneOf"][0]["required"]
            ['augment']
        """
        schema = cls.model_json_schema(mode="validation")
        forms = []
        for key, model in _STAGES.items():
            definition = schema["$defs"][model.__name__]
            definition["properties"].pop("stage")
            reference = {"$ref": f"#/$defs/{model.__name__}"}
            forms.append(
                {"type": "object", "properties": {key: reference}, "required": [key], "additionalProperties": False}
            )
            if "required" not in definition:
                forms[-1]["properties"] = {key: {"anyOf": [reference, {"type": "null"}]}}
        schema["$defs"]["Augment"]["properties"]["ops"]["items"] = {
            "anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]
        }
        schema["properties"]["stages"]["items"] = {"oneOf": forms}
        size = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kMGT]i?)?B$"}
        memory = schema["properties"]["memory"]
        number = {name: memory.pop(name) for name in ("type", "minimum")}
        memory["anyOf"] = [number, size]
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Variegate recipe", **schema}

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, every default filled in."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; `loads` reads it back to an equal recipe."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)
        return text

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, wherever they were read."""
        return isinstance(other, Recipe) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.hash())

    def hash(self) -> str:
        """SHA-256 of the resolved recipe, in hexadecimal; not of the content of its inputs, and not of `memory`."""
        said = {name: value for name, value in self.to_dict().items() if name != "memory"}
        return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def error(self, message: str, *, at: tuple[str | int, ...] = (), suggestion: str | None = None) -> RecipeError:
        """A `RecipeError` for the part of the recipe that `at` leads to, with its line where there is a file."""
        line = column = None
        if self._file is not None:
            node = _compose(Path(self._file).read_text("utf-8"), self._file)
            line, column = _position(node, at)
        return RecipeError(message, file=self._file, line=line, column=column, suggestion=suggestion)


def load(path: str | os.PathLike[str]) -> Recipe:
    """Reads a recipe from a YAML file; its paths are relative to the file's folder.

    Raises:
        RecipeError: With file, line, column and suggestion.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start + 1}"
        raise RecipeError(f"cannot read the recipe: {why}", file=os.fspath(path)) from None
    recipe = _parse(text, os.fspath(path))
    recipe._base = Path(path).parent
    recipe._file = os.fspath(path)
    return recipe


def loads(text: str, *, base: str | os.PathLike[str] = ".") -> Recipe:
    r"""Reads a recipe from YAML text; `base` is the folder that its paths are relative to.

    Raises:
        RecipeError: With line, column and suggestion.

    Example:
        >>> loads("version: 1\nsources: [{name: a, path: a.jsonl}]\nstages: [{dedup: {treshold: 0.8}}]")
        Traceback (most recent call last):
        variegate.errors.RecipeError: 3:19: unknown key 'treshold' (did you mean 'threshold'?)
    """
    recipe = _parse(text, None)
    recipe._base = Path(base)
    return recipe


def _parse(text: str, file: str | None) -> Recipe:
    node = _compose(text, file)
    _substitute(node, file)
    _no_double_keys(node, file)
    loader = yaml.SafeLoader("")
    try:
        values = loader.construct_document(node)
    except (yaml.MarkedYAMLError, ValueError) as error:
        raise _yaml_error(error, file) from None
    if not isinstance(values, dict):
        raise RecipeError("a recipe must be a mapping of sections", file=file, line=1, column=1)
    if values.get("version") != Recipe.Version:
        line, column = _position(node, ("version",))
        found = f"version is {values['version']!r}" if "version" in values else "'version' is missing"
        message = f"{found}: write 'version: {Recipe.Version}', which this release reads"
        raise RecipeError(message, file=file, line=line, column=column)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _recipe_error(error, node, file) from None


def _compose(text: str, file: str | None) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _yaml_error(error, file) from None
    if node is None:
        raise RecipeError("the recipe is empty", file=file)
    return node


def _yaml_error(error: Exception, file: str | None) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    return RecipeError(f"not valid YAML: {what}", file=file, line=line, column=column)


def _substitute(node: yaml.Node, file: str | None) -> None:
    """Replaces `${env:NAME}` in scalars; a plain scalar takes the type of what it becomes."""

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            mark = scalar.start_mark
            message = f"environment variable {name} is not set"
            raise RecipeError(message, file=file, line=mark.line + 1, column=mark.column + 1)
        return os.environ[name]

    resolver = yaml.SafeLoader("")
    for scalar in _scalars(node, set()):
        if "${env:" in scalar.value:
            scalar.value = re.sub(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}", value_of, scalar.value)
            if scalar.style is None:
                scalar.tag = resolver.resolve(  # type: ignore[no-untyped-call]
                    yaml.ScalarNode, scalar.value, (True, False)
                )


def _scalars(node: yaml.Node, seen: set[int]) -> list[yaml.ScalarNode]:
    if id(node) in seen:
        return []
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return [node]
    if isinstance(node, yaml.MappingNode):
        return [scalar for _, value in node.value for scalar in _scalars(value, seen)]
    return [scalar for value in node.value for scalar in _scalars(value, seen)]


def _no_double_keys(node: yaml.Node, file: str | None) -> None:
    stack, seen_nodes = [node], set()
    while stack:
        node = stack.pop()
        if id(node) in seen_nodes:
            continue
        seen_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                mark = key.start_mark
                if key.value in seen:
                    message = f"key '{key.value}' is given twice (first in line {seen[key.value]})"
                    raise RecipeError(message, file=file, line=mark.line + 1, column=mark.column + 1)
                seen[key.value] = mark.line + 1
                stack.append(value)
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)


def _position(node: yaml.Node, at: tuple[str | int, ...]) -> tuple[int, int]:
    """Line and column of the key or item that `at` leads to, as far as it leads."""
    mark = node.start_mark
    for part in at:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                continue
            mark, node = found[0][0].start_mark, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
    return mark.line + 1, mark.column + 1


_OURS = frozenset(
    ("name", "license", "keep", "grammar", "op", "stage", "extra", "empty", "duplicate", "memory", "candidates")
)
"""Kinds of errors that this module raises, in words for users."""


def _recipe_error(error: ValidationError, node: yaml.Node | None, file: str | None) -> RecipeError:
    """The first complaint of pydantic, in our words and with its place."""
    first = error.errors()[0]
    at, context = tuple(first["loc"]), first.get("ctx", {})
    kind, suggestion = first["type"], None
    if kind == "extra_forbidden":
        message = f"unknown key '{at[-1]}'"
        suggestion = _closest(str(at[-1]), _fields_at(at[:-1]))
    elif kind == "missing":
        message = f"'{at[-1]}' is missing"
    elif kind == "unknown_key":
        message, suggestion = first["msg"], _closest(str(context["key"]), context["known"])
        at = tuple(context.get("at", (*at, context["key"])))
    elif kind == "literal_error":
        given = first["input"]
        message = f"'{at[-1]}' must be {context['expected']}, not {given!r}"
        suggestion = _closest(str(given), re.findall(r"'([^']*)'", context["expected"]))
    elif kind in _OURS:
        message = first["msg"]
        at = tuple(context.get("at", at))
    else:
        what = first["msg"][0].lower() + first["msg"][1:]
        what = what.replace("input should be", "must be")
        name = next((str(part) for part in reversed(at) if isinstance(part, str)), "the recipe")
        message = f"'{name}' {what}, not {_shown(first['input'])}"
    line, column = _position(node, at) if node is not None else (None, None)
    return RecipeError(message, file=file, line=line, column=column, suggestion=suggestion)


def _fields_at(at: tuple[str | int, ...]) -> list[str]:
    """Keys that are known at a place of a recipe."""
    names = [part for part in at if isinstance(part, str)]
    if not names:
        return list(Recipe.model_fields)
    if names[0] == "stages" and len(names) > 1:
        return [name for name in _STAGES[names[1]].model_fields if name != "stage"]
    sections: dict[str, type[BaseModel]] = {"sources": Source, "mix": Mix, "output": Output}
    return list(sections[names[0]].model_fields) if names[0] in sections else []


def _closest(name: str, known: list[str]) -> str | None:
    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(names: list[str], section: str, message: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PydanticCustomError("duplicate", message, {"key": name, "at": [section, index]})
