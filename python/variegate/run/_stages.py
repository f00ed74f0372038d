"""The stages of a run: what each does to a part, and which parts it needs to see first.

A stage gets the parts that reach it and says which tasks it has; a task makes one part and depends on nothing but the
content of the parts before it, so that it can be done again, by any worker, and give the same bytes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import mix, provenance
from variegate.errors import InvalidInput
from variegate.provenance import licenses
from variegate.recipe import Augment, Dedup, Measure, Recipe, Templates
from variegate.run import _inputs as inputs
from variegate.run import _records as records

if TYPE_CHECKING:
    from variegate.batch import TextBatch, TokenBatch
    from variegate.run._engine import Context, Part

__all__ = ["Outcome", "Step", "check_licenses", "needs_tokens", "steps"]

EXAMPLE_PARTS = 8
EXAMPLES = 3
EXAMPLE_CHARACTERS = 900
DUPLICATE_CHARACTERS = 4000  # more, for duplicates may differ anywhere


@dataclass
class Outcome:
    """What a task made: rows that stay, rows that do not, and how many of both are new."""

    rows: pa.Table | None
    rejects: pa.Table | None = None
    seen: int = 0
    created: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


Task = Callable[[], Outcome]


class Step:
    """One stage of a run; subclasses say what it does.

    Attributes:
        kind: The stage's key in a recipe.
        label: Its name.
        spec: What it makes records by, for the manifest; empty where it makes none.
        ops_hash: The spec's name in the manifest's table.
    """

    kind = ""
    ops_hash = ""

    def __init__(self, context: Context, label: str) -> None:
        self.context, self.label = context, label
        self.spec: dict[str, Any] = {}

    def tasks(self, parts: list[Part]) -> Iterator[tuple[int, Task]]:
        """Tasks by number, in order; the default has one for each part."""
        for number, part in enumerate(parts):
            yield number, lambda number=number, part=part: self.work(number, part)  # type: ignore[misc]

    def count(self, parts: list[Part]) -> int | None:
        """How many tasks there will be, or None if only doing them tells."""
        return len(parts)

    def work(self, number: int, part: Part) -> Outcome:
        """Makes part `number` from the part of that number."""
        raise NotImplementedError

    def output(self, parts: list[Part], made: list[Part]) -> list[Part]:
        """The parts that the next stage gets."""
        return made

    def result(self, parts: list[Part]) -> dict[str, Any]:
        """What the stage says about the parts that it passes on, once they are all there."""
        return {}

    def reject(self, rows: pa.Table, reasons: Any, **more: Any) -> pa.Table:
        """Ledger entries of this stage."""
        return records.rejects_table(self.label, rows, reasons, self.context.files, **more)


class Read(Step):
    """Reads the sources."""

    kind = "read"

    def tasks(self, parts: list[Part]) -> Iterator[tuple[int, Task]]:
        """One task for each unit of input."""
        for number, unit in enumerate(inputs.units(self.context.recipe, self.context.inputs, {})):
            yield number, lambda unit=unit: self.unit(unit)  # type: ignore[misc]

    def count(self, parts: list[Part]) -> int | None:
        """Not known: units are cut while the files are read."""
        return None

    def unit(self, unit: inputs.Unit) -> Outcome:
        """Parses one unit."""
        context = self.context
        rows, problems = inputs.parse(unit, context.inputs, context.schema)
        fatal = [problem for problem in problems if problem.reason != inputs.EMPTY_FILE]
        if fatal and context.recipe.strict:
            raise InvalidInput(inputs.complaint(fatal[0], context.inputs))
        rejects = None
        if problems:
            columns = {
                "stage": self.label,
                "reason": pa.array([p.reason for p in problems]),
                "text": pa.array([p.raw.decode(errors="replace") for p in problems]),
                "file": pa.array([context.files[p.file] for p in problems]),
                "row": pa.array([p.row for p in problems], pa.int64()),
                "message": pa.array([p.message for p in problems]),
            }
            rejects = records.table(columns, records.REJECTS, len(problems))
        return Outcome(context.tokenized(rows), rejects, seen=len(rows) + len(problems))

    def result(self, parts: list[Part]) -> dict[str, Any]:
        """Checks that no two records are the same one, and counts what each source gave."""
        context = self.context
        columns = [context.read(part, ["record_id", "file", "row", "source", "kind"]) for part in parts]
        if not columns:
            return {"human": 0, "files": {}}
        rows = pa.concat_tables(columns)
        there = set(pc.unique(rows["source"]).to_pylist())
        for source in context.recipe.sources:
            if source.name not in there:
                where = context.recipe.base / source.path
                raise InvalidInput(f"source '{source.name}': no line or row of {where} holds a record")
        self.check_unique(rows)
        kinds = pc.equal(rows["kind"], "human")
        counted = rows.group_by("file").aggregate([([], "count_all")])
        files = dict(zip(counted["file"].to_pylist(), counted["count_all"].to_pylist(), strict=True))
        return {"human": pc.sum(kinds).as_py() or 0, "files": {str(file): files[file] for file in sorted(files)}}

    def check_unique(self, rows: pa.Table) -> None:
        """Refuses records that share a key."""
        ids = np.ascontiguousarray(records.ids_of(rows["record_id"])).view("V16").reshape(-1)
        order = np.argsort(ids, kind="stable")
        same = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
        if len(same) == 0:
            return
        # The first record, in reading order, whose key has been seen before.
        at = same[np.argmin(order[same + 1])]
        first, second = (rows.slice(int(order[at + i]), 1).to_pylist()[0] for i in (0, 1))
        source = next(s for s in self.context.recipe.sources if s.name == second["source"])
        places = [f"{self.context.inputs[row['file']].where}:{row['row']}" for row in (second, first)]
        raise InvalidInput(
            f"{places[0]}: same '{source.id}' as {places[1]}: keys must be unique in source '{source.name}'"
        )


class AugmentStep(Step):
    """Derives variants."""

    kind = "augment"

    def __init__(self, context: Context, stage: Augment) -> None:
        super().__init__(context, stage.label)
        self.stage = stage
        said: dict[str, Any] = {"name": stage.label, "ops": stage.ops}
        if any(op.domain == "token" for op in made_ops(stage)):
            said["tokenizer"] = context.tokenizer.fingerprint
        self.spec = {"augment": said}
        self.ops_hash = ops_hash(self.spec)
        self.seed = stage_seed(context.recipe.seed, stage.label)
        self.groups = grouped(stage, context)

    def work(self, number: int, part: Part) -> Outcome:
        """All variants of the records of a part."""
        rows = self.context.read(part)
        outputs, rejects = [], []
        examples: list[dict[str, Any]] = []
        if self.stage.keep_source:
            outputs.append(rows)
        else:
            rejects.append(self.reject(rows, "replaced"))
        for k in range(self.stage.variants):
            made = self.variant(rows, k)
            same = np.asarray(pc.equal(made["text"], rows["text"]))
            empty = np.asarray(pc.equal(pc.binary_length(made["text"]), 0))
            bad = same | empty
            if bad.any():
                reasons = pa.array(np.where(same, "unchanged", "empty")[bad])
                rejects.append(self.reject(made.filter(pa.array(bad)), reasons))
                kept = made.filter(pa.array(~bad))
                source = rows.filter(pa.array(~bad))
            else:
                kept, source = made, rows
            if number < EXAMPLE_PARTS and len(examples) < EXAMPLES:
                examples.extend(self.examples(source, kept)[:1])
            outputs.append(self.context.tokenized(kept))
        ledger = pa.concat_tables(rejects) if rejects else None
        return Outcome(pa.concat_tables(outputs), ledger, len(rows), self.stage.variants * len(rows), examples)

    def variant(self, rows: pa.Table, k: int) -> pa.Table:
        """Variant `k` of every row, without tokens."""
        from variegate.batch import TextBatch, TokenBatch

        ids = records.flat(rows["id"]).to_numpy()
        batch: TextBatch | TokenBatch = TextBatch(*records.ragged(rows["text"]), ids=ids)
        if "tokens" in rows.column_names and self.groups[0][0] == "token":
            batch = TokenBatch(*records.token_arrays(rows["tokens"]), ids=ids)
        for domain, op in self.groups:
            if domain == "token" and isinstance(batch, TextBatch):
                batch = self.context.tokenizer.encode(batch)
            elif domain == "text" and isinstance(batch, TokenBatch):
                batch = self.context.tokenizer.decode(batch)
            batch = op(batch, seed=self.seed, variant=k)
        texts: TextBatch = self.context.tokenizer.decode(batch) if isinstance(batch, TokenBatch) else batch
        parents = records.ids_of(rows["record_id"])
        count = np.full(len(rows), k, np.int64)
        made = provenance.child_record_ids(
            parents, spec=bytes.fromhex(self.ops_hash), seed=self.context.recipe.seed, k=count
        )
        columns = {name: rows[name] for name in rows.column_names if name not in ("tokens", "spans", "bindings")}
        columns |= {
            "text": records.strings(texts.data, texts.offsets),
            "record_id": records.id_column(made),
            "id": pa.array(provenance.child_ids(ids, stage=self.label, k=count)),
            "parents": pa.ListArray.from_arrays(
                pa.array(np.arange(len(rows) + 1, dtype=np.int32)), records.flat(rows["record_id"])
            ),
            "kind": "augmented",
            "ops": self.ops_hash,
            "seed": self.context.recipe.seed,
        }
        return records.table(columns, self.context.schema, len(rows))

    def examples(self, before: pa.Table, after: pa.Table) -> list[dict[str, Any]]:
        """A few variants beside what they were made from."""
        short = np.flatnonzero(np.asarray(pc.less(pc.utf8_length(before["text"]), EXAMPLE_CHARACTERS)))
        chosen = short[:EXAMPLES] if len(short) else np.arange(min(EXAMPLES, len(before)))
        label = " + ".join(next(iter(op)) for op in self.stage.ops)
        found = []
        for row in chosen.tolist():
            old, new = before["text"][row].as_py(), after["text"][row].as_py()
            edits = text_edits(old[:EXAMPLE_CHARACTERS], new[:EXAMPLE_CHARACTERS])
            if len(old) > EXAMPLE_CHARACTERS and edits:
                edits = [edit for edit in edits if max(edit[1], edit[3]) < EXAMPLE_CHARACTERS * 0.9]
            record_id = after["record_id"][row].as_py().hex()
            example = {"op": label, "record_id": record_id, "edits": edits}
            found.append({**example, "before": old[:EXAMPLE_CHARACTERS], "after": new[:EXAMPLE_CHARACTERS]})
        return found


class TemplatesStep(Step):
    """Adds records from a grammar."""

    kind = "templates"
    rows_per_part = 16384

    def __init__(self, context: Context, stage: Templates) -> None:
        super().__init__(context, stage.label)
        from variegate.templates import Grammar

        self.stage = stage
        if stage.path is None:
            try:
                self.grammar = Grammar(stage.grammar or "", name=stage.label)
            except InvalidInput as error:
                raise InvalidInput(f"grammar of stage '{stage.label}': {error}") from None
        else:
            self.grammar = Grammar.from_file(context.recipe.base / stage.path, name=stage.label)
        said = {"name": stage.label, "grammar": self.grammar.fingerprint, "law": stage.law}
        self.spec = {"templates": said}
        self.ops_hash = ops_hash(self.spec)
        possible = self.grammar.count()
        if stage.law == "uniform" and stage.count > possible:
            message = f"stage '{stage.label}' asks for {stage.count} records, but its grammar has {possible}"
            raise InvalidInput(f"{message}: lower count, or repeat some with law: weights")

    def tasks(self, parts: list[Part]) -> Iterator[tuple[int, Task]]:
        """One task for each part to make."""
        for number in range(self.made_parts()):
            yield number, lambda number=number: self.make(number)  # type: ignore[misc]

    def made_parts(self) -> int:
        """How many parts the stage makes."""
        return -(-self.stage.count // self.rows_per_part)

    def count(self, parts: list[Part]) -> int | None:
        """As many as parts are made."""
        return self.made_parts()

    def output(self, parts: list[Part], made: list[Part]) -> list[Part]:
        """What came, then what was made."""
        return parts + made

    def make(self, number: int) -> Outcome:
        """Draws number, number + parts, number + 2 parts and so on: no part needs another."""
        context, stage = self.context, self.stage
        of = self.made_parts()
        count = len(range(number, stage.count, of))
        weights = stage.law == "weights"
        batch = self.grammar.sample(count, seed=context.recipe.seed, law=stage.law, replace=weights, shard=(number, of))
        k = batch.rows["_k"].astype(np.int64)
        none = np.empty((count, 0), np.uint8)
        made = provenance.child_record_ids(none, spec=bytes.fromhex(self.ops_hash), seed=context.recipe.seed, k=k)
        columns: dict[str, Any] = {
            "text": records.strings(batch.data, batch.offsets),
            "record_id": records.id_column(made),
            "id": pa.array(provenance.child_ids(np.zeros(count, np.uint64), stage=self.label, k=k)),
            "parents": pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], records.ID)),
            "source": self.label,
            "license": stage.license,
            "kind": "templated",
            "generation": 0,
            "ops": self.ops_hash,
            "seed": context.recipe.seed,
            "spans": character_spans(batch),
            "bindings": records.json_objects({name: batch.rows[name] for name in self.grammar.bindings}, count),
        }
        rows = context.tokenized(records.table(columns, context.schema, count))
        examples = []
        if number == 0:
            for row in rows.slice(0, EXAMPLES).to_pylist():
                spans = [[span["start"], span["end"], span["tag"]] for span in row["spans"] or []]
                examples.append({"text": row["text"][:EXAMPLE_CHARACTERS], "spans": spans})
        return Outcome(rows, None, 0, count, examples)


class Filter(Step):
    """A stage that looks at all parts before it keeps some of their rows."""

    decision: Decision | None = None

    def decide(self, parts: list[Part]) -> Decision:
        """Which rows stay."""
        raise NotImplementedError

    def tasks(self, parts: list[Part]) -> Iterator[tuple[int, Task]]:
        """One task for each part; the decision is made when the first of them is needed."""
        starts = np.cumsum([0, *(part.rows for part in parts)]).tolist()

        def task(number: int, part: Part) -> Outcome:
            with self.context.barrier:
                if self.decision is None:
                    self.decision = self.decide(parts)
            return self.apply(number, part, starts[number], self.decision)

        for number, part in enumerate(parts):
            yield number, lambda number=number, part=part: task(number, part)  # type: ignore[misc]

    def apply(self, number: int, part: Part, start: int, decision: Decision) -> Outcome:
        """Splits one part by the decision."""
        rows = self.context.read(part)
        keep = decision.keep[start : start + len(rows)]
        if keep.all():
            return Outcome(rows, None, len(rows))
        dropped = rows.filter(pa.array(~keep))
        at = np.flatnonzero(~keep) + start
        more: dict[str, Any] = {}
        if decision.kept is not None:
            more["kept"] = records.hex_ids(decision.kept[at])
        if decision.similarity is not None:
            more["similarity"] = pa.array(decision.similarity[at])
        ledger = self.reject(dropped, pa.array(decision.reasons[at]), **more)
        examples = self.examples(ledger, at, decision) if number < EXAMPLE_PARTS else []
        return Outcome(rows.filter(pa.array(keep)), ledger, len(rows), 0, examples)

    def examples(self, ledger: pa.Table, at: npt.NDArray[np.int64], decision: Decision) -> list[dict[str, Any]]:
        """A few rejects."""
        found = ledger.slice(0, EXAMPLES).select(["reason", "record_id", "text"]).to_pylist()
        return [{**row, "text": row["text"][:EXAMPLE_CHARACTERS]} for row in found]


@dataclass
class Decision:
    """Per row of all parts: whether it stays, why not, and for whom."""

    keep: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.str_]
    kept: npt.NDArray[np.uint8] | None = None
    similarity: npt.NDArray[np.float32] | None = None
    keeper: npt.NDArray[np.int64] | None = None
    parts: list[Part] = field(default_factory=list)


class DedupStep(Filter):
    """Keeps one record of each group of duplicates."""

    kind = "dedup"

    def __init__(self, context: Context, stage: Dedup) -> None:
        super().__init__(context, stage.label)
        self.stage = stage

    def decide(self, parts: list[Part]) -> Decision:
        """Real before synthetic, low before high generation, long before short, then by record id."""
        from variegate import dedup
        from variegate.batch import TokenBatch

        if not parts:
            return Decision(np.empty(0, bool), np.empty(0, str))
        context = self.context
        columns = ["record_id", "id", "kind", "generation", "text", "tokens"]
        ids, keys, kinds, generations, digests, tokens, lengths = [], [], [], [], [], [], []
        for part in parts:
            rows = context.read(part, columns)
            ids.append(records.ids_of(rows["record_id"]))
            keys.append(records.flat(rows["id"]).to_numpy())
            kinds.append(np.asarray(pc.not_equal(rows["kind"], "human")))
            generations.append(records.flat(rows["generation"]).to_numpy())
            digests.append(provenance.record_hashes([records.ragged(rows["text"])])[:, :16])
            flat, offsets = records.token_arrays(rows["tokens"])
            tokens.append(flat)
            lengths.append(np.diff(offsets))
        identity, content = np.concatenate(ids), np.concatenate(digests)
        length = np.concatenate(lengths)
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        high, low = np.ascontiguousarray(identity).view(">u8").astype(np.uint64).T
        ranked = np.lexsort((low, high, -length, np.concatenate(generations), np.concatenate(kinds)))
        order = np.empty(len(ranked), np.int64)
        order[ranked] = np.arange(len(ranked))
        batch = TokenBatch(np.concatenate(tokens), offsets, ids=np.concatenate(keys))
        if self.stage.threshold is None:
            found = dedup.exact(batch, order=order)
        else:
            found = dedup.near(batch, threshold=self.stage.threshold, ngram=self.stage.ngram, order=order)
        keeper = np.asarray(found.keeper)
        equal = (content == content[keeper]).all(axis=1)
        reasons = np.where(equal, "duplicate", "near_duplicate")
        similarity = np.asarray(found.similarity, np.float32)
        return Decision(np.asarray(found.keep), reasons, identity[keeper], similarity, keeper, parts)

    def examples(self, ledger: pa.Table, at: npt.NDArray[np.int64], decision: Decision) -> list[dict[str, Any]]:
        """Duplicates beside the record that was kept; near ones first."""
        assert decision.keeper is not None
        near = pc.equal(ledger["reason"], "near_duplicate").to_numpy(zero_copy_only=False)
        chosen = [*np.flatnonzero(near)[:2].tolist(), *np.flatnonzero(~near)[:1].tolist()]
        starts = np.cumsum([0, *(part.rows for part in decision.parts)])
        found = []
        for row in chosen:
            keeper = int(decision.keeper[at[row]])
            part = int(np.searchsorted(starts, keeper, side="right")) - 1
            kept = self.context.read(decision.parts[part], ["text"])["text"][keeper - int(starts[part])].as_py()
            lost = ledger.slice(row, 1).to_pylist()[0]
            example = {"reason": lost["reason"], "similarity": round(lost["similarity"], 4)}
            example["kept"] = {"record_id": lost["kept"], "text": kept[:DUPLICATE_CHARACTERS]}
            example["dropped"] = {"record_id": lost["record_id"], "text": lost["text"][:DUPLICATE_CHARACTERS]}
            found.append(example)
        return found


class MixStep(Filter):
    """Keeps the final set within the limits of the recipe's mix."""

    kind = "mix"

    def decide(self, parts: list[Part]) -> Decision:
        """All real records, and synthetic ones in the order of their ids up to the cap."""
        rule = self.context.recipe.mix
        assert rule is not None
        if rule.max_synthetic is None:
            rows = sum(part.rows for part in parts)
            return Decision(np.ones(rows, bool), np.full(rows, ""))
        ids, real, sizes = [], [], []
        for part in parts:
            table = self.context.read(part, ["record_id", "kind", "tokens" if rule.by == "tokens" else "text"])
            ids.append(records.ids_of(table["record_id"]))
            real.append(np.asarray(pc.equal(table["kind"], "human")))
            counted = records.token_counts(table) if rule.by == "tokens" else records.text_bytes(table["text"])
            assert counted is not None
            sizes.append(counted)
        identity = np.concatenate(ids)
        keep = mix.cap_synthetic(
            np.concatenate(real), np.concatenate(sizes), identity, max_synthetic=rule.max_synthetic
        )
        return Decision(keep, np.full(len(keep), "max_synthetic"))

    def result(self, parts: list[Part]) -> dict[str, Any]:
        """Checks that enough of the real records are still there."""
        rule, context = self.context.recipe.mix, self.context
        assert rule is not None
        if rule.retain_real is None:
            return {}
        read = context.results["read"]["human"]
        kept = 0
        for part in parts:
            rows = context.read(part, ["kind"])
            kept += pc.sum(pc.equal(rows["kind"], "human")).as_py() or 0
        mix.check_retained(kept, read, retain_real=rule.retain_real)
        return {"human": kept}


class MeasureStep(Step):
    """Measures what reaches it."""

    kind = "measure"

    def __init__(self, context: Context, stage: Measure) -> None:
        super().__init__(context, stage.label)
        self.stage = stage

    def tasks(self, parts: list[Part]) -> Iterator[tuple[int, Task]]:
        """None: every part passes as it is."""
        return iter(())

    def count(self, parts: list[Part]) -> int | None:
        """None of them."""
        return 0

    def output(self, parts: list[Part], made: list[Part]) -> list[Part]:
        """What came."""
        return parts

    def result(self, parts: list[Part]) -> dict[str, Any]:
        """The measures of the set, and of the reference."""
        from variegate import collapse

        measures: dict[str, Any] = {}
        sketch = None
        if self.stage.reference is not None:
            reference = list(self.reference(self.stage.reference))
            sketch = collapse.Sketch.build(reference)
            measures[self.stage.reference] = plain(collapse.measure(reference, reference=sketch))
        measures[self.label] = plain(collapse.measure(map(self.batch, parts), reference=sketch))
        return {"measures": measures}

    def batch(self, part: Part) -> TokenBatch:
        """The tokens of a part."""
        from variegate.batch import TokenBatch

        return TokenBatch(*records.token_arrays(self.context.read(part, ["tokens"])["tokens"]))

    def reference(self, source: str) -> Iterator[TokenBatch]:
        """The tokens of a source as it was read."""
        from variegate.batch import TokenBatch

        for part in self.context.read_parts:
            rows = self.context.read(part, ["tokens", "source"])
            rows = rows.filter(pc.equal(rows["source"], source))
            if len(rows):
                yield TokenBatch(*records.token_arrays(rows["tokens"]))


def steps(context: Context) -> list[Step]:
    """The stages of a run in order, but for the output."""
    made: list[Step] = [Read(context, "read")]
    for stage in context.recipe.stages:
        match stage:
            case Augment():
                made.append(AugmentStep(context, stage))
            case Templates():
                made.append(TemplatesStep(context, stage))
            case Dedup():
                made.append(DedupStep(context, stage))
            case Measure():
                made.append(MeasureStep(context, stage))
    if context.recipe.mix is not None:
        made.append(MixStep(context, "mix"))
    return made


def needs_tokens(recipe: Recipe) -> bool:
    """Whether any stage works on tokens."""
    for stage in recipe.stages:
        if isinstance(stage, (Dedup, Measure)):
            return True
        if isinstance(stage, Augment) and any(op.domain == "token" for op in made_ops(stage)):
            return True
    return recipe.mix is not None and recipe.mix.max_synthetic is not None and recipe.mix.by == "tokens"


def check_licenses(recipe: Recipe) -> None:
    """Refuses to derive from what may not be changed.

    Raises:
        RecipeError: Names the source and the licence, at the source's line.
    """
    for stage in recipe.stages:
        if not isinstance(stage, Augment):
            continue
        for index, source in enumerate(recipe.sources):
            try:
                licenses.derive([source.license])
            except InvalidInput as error:
                message = f"stage '{stage.label}' derives from source '{source.name}', but {error}"
                raise recipe.error(message, at=("sources", index, "license")) from None


def made_ops(stage: Augment) -> list[Any]:
    """The ops of a stage."""
    from variegate import ops

    return [ops.from_spec(spec) for spec in stage.ops]


def grouped(stage: Augment, context: Context) -> list[tuple[str, Any]]:
    """Runs of ops of one domain, each composed into one call.

    An op of a later run whose kind has been there before gets a name, so that the two do not draw the same noise. Ops
    on tokens leave tokens alone that are not whole characters.
    """
    from variegate import ops

    groups: list[tuple[str, list[Any]]] = []
    earlier: Counter[str] = Counter()
    for op in made_ops(stage):
        kind = type(op).__name__
        again = bool(groups) and any(type(o).__name__ == kind for d, members in groups[:-1] for o in members)
        if again and op.name is None and kind != "Compose":
            op = dataclasses.replace(op, name=f"{kind}.{earlier[kind]}")
        earlier[kind] += 1
        if groups and groups[-1][0] == op.domain:
            groups[-1][1].append(op)
        else:
            groups.append((op.domain, [op]))
    protect = {"token": ops.Protect(ids=context.partial_tokens)} if any(d == "token" for d, _ in groups) else {}
    return [(domain, ops.Compose(tuple(members), protect=protect.get(domain))) for domain, members in groups]


def ops_hash(spec: dict[str, Any]) -> str:
    """The name of a spec in the manifest's table of ops: SHA-256 of its canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(spec)).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def stage_seed(seed: int, label: str) -> int:
    """The seed of a stage: two stages draw different noise for the same record."""
    fields = (seed.to_bytes(8, "little"), label.encode())
    packed = b"".join(len(part).to_bytes(8, "little") + part for part in fields)
    return int.from_bytes(hashlib.sha256(packed).digest()[:8], "little")


def plain(measures: Any) -> dict[str, Any]:
    """Measures as numbers that JSON can hold."""
    values = dataclasses.asdict(measures)
    wanted = ("types", "tokens", "entropy", "coverage", "tail_coverage", "duplicate_share")
    return {name: values[name] for name in wanted if name in values}


def character_spans(batch: TextBatch) -> pa.Array:
    """The spans of a batch of texts as a column, counted in characters."""
    if batch.spans is None:
        return pa.nulls(len(batch), records.SPANS)
    rows, starts, ends, tags = (np.asarray(column) for column in batch.spans)
    before = np.concatenate([[0], np.cumsum((batch.data & 0xC0) != 0x80)])
    base = batch.offsets[rows]
    first = before[base]
    fields = {
        "start": pa.array(before[base + starts] - first, pa.int32()),
        "end": pa.array(before[base + ends] - first, pa.int32()),
        "tag": pa.array(tags.tolist(), pa.string()),
    }
    counts = np.bincount(rows, minlength=len(batch))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(list(fields.values()), list(fields)))


def text_edits(before: str, after: str) -> list[list[int]]:
    """Differences of two texts, word by word and within changed words by character: [start, end, start, end]."""
    old, new = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (before, after))
    old_at, new_at = (np.cumsum([0, *map(len, words)]).tolist() for words in (old, new))
    edits = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        start, other = old_at[a], new_at[c]
        inner = difflib.SequenceMatcher(None, before[start : old_at[b]], after[other : new_at[d]], autojunk=False)
        for kind, i, j, k, m in inner.get_opcodes():
            if kind != "equal":
                edits.append([start + i, start + j, other + k, other + m])
    return edits
