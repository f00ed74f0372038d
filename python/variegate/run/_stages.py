"""The record-wise stages of a run: what each makes of the rows that come to it.

A stage takes a table of a few megabytes and yields outcomes of about that size, whatever it multiplies; they depend on
nothing but those rows, so that a task can be done again, by any worker, and give the same bytes. `_sets` has the
stages that need to see all rows.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from variegate import provenance
from variegate.errors import InvalidInput
from variegate.provenance import licenses
from variegate.recipe import Augment, Decontaminate, Measure, Overlap, Paraphrase, Recipe, Templates
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run._parse import parse
from variegate.run._units import Unit, units

if TYPE_CHECKING:
    from variegate.batch import TextBatch, TokenBatch
    from variegate.dedup._windows import Found
    from variegate.run._context import Context

__all__ = [
    "AugmentStep",
    "EachStep",
    "MeasureStep",
    "Outcome",
    "OverlapStep",
    "ParaphraseStep",
    "Read",
    "Step",
    "TemplatesStep",
    "check_recipe",
]

EXAMPLE_PARTS = 8
EXAMPLES = 3
EXAMPLE_CHARACTERS = 900


@dataclass
class Outcome:
    """Some rows that a stage passes on, the ledger of those it rejects, and how many it took and made for both.

    `counts` are further numbers that the stage wants summed up.
    """

    rows: pa.Table | None
    rejects: pa.Table | None = None
    seen: int = 0
    created: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Step:
    """One stage of a run; subclasses say what it does.

    Attributes:
        kind: The stage's key in a recipe.
        index: Its number, from 0.
        label: Its name.
        spec: What it makes records by, for the manifest; empty where it makes none.
        ops_hash: The spec's name in the manifest's table.
    """

    kind = ""
    ops_hash = ""

    def __init__(self, context: Context, index: int, label: str) -> None:
        self.context, self.index, self.label = context, index, label
        self.spec: dict[str, Any] = {}

    def reject(self, rows: pa.Table, reasons: Any, **more: Any) -> pa.Table:
        """Ledger entries of this stage."""
        return records.rejects_table(self.label, rows, reasons, self.context.paths, **more)


class Read(Step):
    """Reads the sources."""

    kind = "read"

    def produce(self, unit: Unit) -> Iterator[Outcome]:
        """Parses one unit."""
        context = self.context
        rows, problems = parse(unit, context.inputs, context.schema)
        fatal = [problem for problem in problems if problem.reason != inputs.EMPTY_FILE]
        if fatal and context.recipe.strict:
            raise InvalidInput(inputs.complaint(fatal[0], context.inputs))
        rejects = None
        if problems:
            columns = {
                "stage": self.label,
                "reason": pa.array([p.reason for p in problems]),
                "text": pa.array([p.raw.decode(errors="replace") for p in problems]),
                "file": pa.array([context.paths[p.file] for p in problems]),
                "row": pa.array([p.row for p in problems], pa.int64()),
                "message": pa.array([p.message for p in problems]),
            }
            rejects = records.table(columns, records.REJECTS, len(problems))
        files, counts = np.unique(records.flat(rows["file"]).to_numpy(), return_counts=True)
        counted = {f"file {file}": int(count) for file, count in zip(files, counts, strict=True)}
        counted |= Counter(f"refused {problem.file}" for problem in problems)
        counted["human"] = len(rows) if unit.source.kind == "human" else 0
        yield Outcome(context.tokenized(rows), rejects, seen=len(rows) + len(problems), counts=counted)

    def result(self, counts: Counter[str]) -> dict[str, Any]:
        """What each file gave and what of it was refused, and how many records people wrote.

        Raises:
            InvalidInput: A source gave none.
        """
        every = range(len(self.context.inputs))
        files = {number: counts[f"file {number}"] for number in every}
        for source in self.context.recipe.sources:
            numbers = [n for n, item in enumerate(self.context.inputs) if item.source == source.name and item.format]
            if not any(files[number] for number in numbers):
                where = self.context.recipe.base / source.path
                raise InvalidInput(f"source '{source.name}': no line or row of {where} holds a record")
        refused = {str(number): counts[f"refused {number}"] for number in every if counts[f"refused {number}"]}
        given = {str(number): count for number, count in files.items() if count}
        return {"human": counts["human"], "files": given, "refused": refused}


class EachStep(Step):
    """A stage that looks at each row by itself."""

    def derive(self, rows: pa.Table, *, examples: bool) -> Iterator[Outcome]:
        """What becomes of the rows."""
        raise NotImplementedError


class AugmentStep(EachStep):
    """Derives variants."""

    kind = "augment"
    stage: Augment | Paraphrase
    shown: str  # what examples are captioned by

    def __init__(self, context: Context, index: int, stage: Augment) -> None:
        super().__init__(context, index, stage.label)
        self.stage = stage
        self.shown = " + ".join(next(iter(op)) for op in stage.ops)
        said: dict[str, Any] = {"name": stage.label, "ops": stage.ops}
        if any(op.domain == "token" for op in made_ops(stage)):
            said["tokenizer"] = context.tokenizer.fingerprint
        self.spec = {"augment": said}
        self.ops_hash = ops_hash(self.spec)
        self.seed = stage_seed(context.recipe.seed, stage.label)
        self.groups = grouped(stage, context)

    def derive(self, rows: pa.Table, *, examples: bool) -> Iterator[Outcome]:
        """The rows, then their variants: candidate 0 of every row, then candidate 1 of those that still need one."""
        stage = self.stage
        yield self.originals(rows)
        missing = np.full(len(rows), stage.variants)
        shown = 0
        for k in range(stage.candidates or stage.variants):
            if len(rows) == 0:
                return
            made = self.variant(rows, k)
            same = np.asarray(pc.equal(made["text"], rows["text"]))
            empty = np.asarray(pc.equal(pc.binary_length(made["text"]), 0))
            bad = same | empty
            kept, source, ledger = made, rows, None
            if bad.any():
                reasons = pa.array(np.where(same, "unchanged", "empty")[bad])
                ledger = self.reject(made.filter(pa.array(bad)), reasons)
                kept, source = made.filter(pa.array(~bad)), rows.filter(pa.array(~bad))
            found = self.examples(source, kept)[:1] if examples and shown < EXAMPLES else []
            shown += len(found)
            yield Outcome(self.context.tokenized(kept), ledger, 0, len(rows), found)
            missing -= ~bad
            if (missing == 0).any():
                rows, missing = rows.filter(pa.array(missing > 0)), missing[missing > 0]
        yield self.short(rows, stage.variants - missing, stage.candidates or stage.variants)

    def originals(self, rows: pa.Table) -> Outcome:
        """What becomes of the rows themselves."""
        if self.stage.keep_source:
            return Outcome(rows, None, len(rows))
        return Outcome(None, self.reject(rows, "replaced"), len(rows))

    def short(self, rows: pa.Table, got: npt.NDArray[np.int64], candidates: int) -> Outcome:
        """Counts the rows that have fewer variants than asked for.

        Raises:
            InvalidInput: There is one, and the stage says that this is an error.
        """
        stage = self.stage
        if len(rows) and stage.exhausted == "error":
            raise InvalidInput(
                f"stage '{self.label}': record {rows['record_id'][0].as_py().hex()} has {got[0]} of {stage.variants} "
                f"variants after {candidates} candidates: raise candidates, or set exhausted: keep"
            )
        return Outcome(None, counts={"short": len(rows)})

    def variant(self, rows: pa.Table, k: int) -> pa.Table:
        """Variant `k` of every row, without tokens."""
        from variegate.batch import TextBatch, TokenBatch

        ids = records.flat(rows["id"]).to_numpy()
        batch: TextBatch | TokenBatch = TextBatch(*records.ragged(rows["text"]), ids=ids)
        if "tokens" in rows.column_names and self.groups[0][0] == "token":
            batch = TokenBatch(*records.token_arrays(rows["tokens"]), ids=ids, tokenizer=self.context.tokenizer)
        for domain, op in self.groups:
            if domain == "token" and isinstance(batch, TextBatch):
                batch = self.context.tokenizer.encode(batch)
            elif domain == "text" and isinstance(batch, TokenBatch):
                batch = self.context.tokenizer.decode(batch)
            batch = op(batch, seed=self.seed, variant=k)
        texts: TextBatch = self.context.tokenizer.decode(batch) if isinstance(batch, TokenBatch) else batch
        return self.derived(rows, records.strings(texts.data, texts.offsets), np.full(len(rows), k, np.int64))

    def derived(self, rows: pa.Table, texts: pa.Array, k: npt.NDArray[np.int64]) -> pa.Table:
        """A table of texts made from the rows, each with its number."""
        parents = records.ids_of(rows["record_id"])
        ids = records.flat(rows["id"]).to_numpy()
        made = provenance.child_record_ids(
            parents, spec=bytes.fromhex(self.ops_hash), seed=self.context.recipe.seed, k=k
        )
        columns = {name: rows[name] for name in rows.column_names if name not in ("tokens", "spans", "bindings")}
        columns |= {
            "text": texts,
            "record_id": records.id_column(made),
            "id": pa.array(provenance.child_ids(ids, stage=self.label, k=k)),
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
        found = []
        for row in chosen.tolist():
            old, new = before["text"][row].as_py(), after["text"][row].as_py()
            edits = text_edits(old[:EXAMPLE_CHARACTERS], new[:EXAMPLE_CHARACTERS])
            if len(old) > EXAMPLE_CHARACTERS and edits:
                edits = [edit for edit in edits if max(edit[1], edit[3]) < EXAMPLE_CHARACTERS * 0.9]
            record_id = after["record_id"][row].as_py().hex()
            example = {"op": self.shown, "record_id": record_id, "edits": edits}
            found.append({**example, "before": old[:EXAMPLE_CHARACTERS], "after": new[:EXAMPLE_CHARACTERS]})
        return found


class ParaphraseStep(AugmentStep):
    """Derives variants that differ from their record and from each other."""

    kind = "paraphrase"

    def __init__(self, context: Context, index: int, stage: Paraphrase) -> None:
        Step.__init__(self, context, index, stage.label)
        from variegate import ops

        self.stage = stage
        base = context.recipe.base
        rules = None if stage.rules is None else ops.Rules.from_file(base / stage.rules)
        lexicon = None if stage.lexicon is None else ops.Lexicon.from_tsv(base / stage.lexicon)
        self.using = (
            ops.Rewriter(rules, rate=stage.rate),
            ops.Contraction(rate=stage.contractions),
            ops.Synonym(rate=stage.synonyms, lexicon=lexicon),
        )
        self.shown = " + ".join(type(op).__name__ for op in self.using)
        said = {name: getattr(stage, name) for name in ("rate", "contractions", "synonyms")}
        files = {"rules": rules and rules.to_spec()["sha256"], "lexicon": lexicon and lexicon.to_spec()["sha256"]}
        self.spec = {"paraphrase": {"name": stage.label, **said, **files}}
        self.ops_hash = ops_hash(self.spec)
        self.seed = stage_seed(context.recipe.seed, stage.label)
        self.candidates = stage.candidates or 4 * stage.variants + 4

    def derive(self, rows: pa.Table, *, examples: bool) -> Iterator[Outcome]:
        """The rows, then the variants of some at a time."""
        n = self.stage.variants
        yield self.originals(rows)
        size = max(1, len(rows) // n)
        shown = 0
        for first in range(0, len(rows), size):
            part = rows.slice(first, size)
            wanted = examples and shown < EXAMPLES
            outcome, got = self.variants(part, examples=wanted)
            shown += len(outcome.examples)
            yield outcome
            less = np.flatnonzero(got < n)
            yield self.short(part.take(pa.array(less)), got[less], self.candidates)

    def variants(self, rows: pa.Table, *, examples: bool) -> tuple[Outcome, npt.NDArray[np.int64]]:
        """The variants of some rows, an entry of the ledger for each that could not be had, and how many each has."""
        from variegate.batch import TextBatch
        from variegate.paraphrase import paraphrase

        n = self.stage.variants
        batch = TextBatch(*records.ragged(rows["text"]), ids=records.flat(rows["id"]).to_numpy())
        out = paraphrase(batch, n, seed=self.seed, using=self.using, candidates=self.candidates)
        parents = out.rows["_parent"]
        source = rows.take(pa.array(parents))
        made = self.derived(source, records.strings(out.data, out.offsets), out.rows["_variant"])
        got = np.bincount(parents, minlength=len(rows))
        ledger = None
        if (got < n).any():
            reason = np.full(len(rows), "", object)
            for name, short in (out.stats or {})["paraphrase"]["short"].items():
                reason[short] = name
            lost = np.repeat(np.arange(len(rows)), n - got)
            # What was not had is numbered behind all candidates.
            number = self.candidates + np.arange(len(lost)) - np.searchsorted(lost, lost)
            without = rows.take(pa.array(lost))
            ledger = self.reject(self.derived(without, without["text"], number), pa.array(reason[lost], pa.string()))
        found = self.examples(source, made) if examples and len(made) else []
        return Outcome(self.context.tokenized(made), ledger, 0, n * len(rows), found), got


class OverlapStep(EachStep):
    """Rejects rows for what they share with the texts of some files: evaluation items, or protected documents."""

    def __init__(self, context: Context, index: int, stage: Decontaminate | Overlap) -> None:
        super().__init__(context, index, stage.label)
        from variegate.batch import TextBatch
        from variegate.dedup._windows import Items

        self.stage, self.kind = stage, stage.stage
        reading = stage.reading(context.recipe)
        listed = inputs.list_inputs(reading, context.out)
        like = records.schema({}, tokens=False, spans=False)
        tables = [like.empty_table()]
        digests: dict[int, str] = {}
        for unit in units(reading, listed, digests):
            table, problems = parse(unit, listed, like)
            fatal = [problem for problem in problems if problem.reason != inputs.EMPTY_FILE]
            if fatal:
                raise InvalidInput(f"stage '{self.label}': {inputs.complaint(fatal[0], listed)}")
            tables.append(table)
        hashed = {item.path: item.sha256 for item in context.inputs if item.source == self.label}
        for item, digest in zip(listed, digests.values(), strict=True):
            if hashed[item.path] != digest:
                raise InvalidInput(f"{item.where} changed while it was read: start again when nobody writes it")
        texts = pa.concat_tables(tables)
        self.files = [item.path for item in listed]
        self.places = [records.flat(texts[name]).to_numpy() for name in ("file", "row")]
        data, offsets = records.ragged(texts["text"])
        shortest = stage.shortest if isinstance(stage, Decontaminate) else None
        ids = np.zeros(len(texts), np.uint64)  # nobody asks for them
        self.items = Items(
            TextBatch(data, offsets, ids=ids), ngram=stage.ngram, shortest=shortest, max_items=stage.max_items
        )

    def derive(self, rows: pa.Table, *, examples: bool) -> Iterator[Outcome]:
        """The rows that stay, and an entry of the ledger for each that goes."""
        from variegate.batch import TextBatch

        ids = np.zeros(len(rows), np.uint64)
        batch = TextBatch(*records.ragged(rows["text"]), ids=ids)
        found = self.items.scan(batch, covered=isinstance(self.stage, Decontaminate))
        coverage, longest = found.overlap()
        # Of several spans of a row the ledger names the one with most of this.
        weight: npt.NDArray[Any] = found.units_end - found.units_start
        goes = np.zeros(len(rows), bool)
        if isinstance(self.stage, Overlap):
            goes = (coverage >= self.stage.threshold) & (longest > 0)
            if self.stage.longest is not None:
                goes |= longest >= self.stage.longest
            share = coverage
        else:
            covered = self.items.coverage(found)
            goes[found.row[covered >= self.stage.threshold]] = True
            share = np.zeros(len(rows))
            np.maximum.at(share, found.row, covered)
            weight = covered
        if not goes.any():
            yield Outcome(rows, None, len(rows))
            return
        order = np.lexsort((found.start, -weight, found.row))
        first = order[np.unique(found.row[order], return_index=True)[1]]
        messages = [self.message(found, k) for k in first[goes[found.row[first]]].tolist()]
        gone = rows.filter(pa.array(goes))
        reason = "contaminated" if isinstance(self.stage, Decontaminate) else "protected"
        similarity = pa.array(share[goes], pa.float32())
        ledger = self.reject(gone, reason, similarity=similarity, message=pa.array(messages, pa.string()))
        yield Outcome(rows.filter(pa.array(~goes)), ledger, len(rows))

    def message(self, found: Found, k: int) -> str:
        """Where a span lies, and where it comes from."""
        file, row = (int(place[found.item[k]]) for place in self.places)
        return f"bytes {found.start[k]} to {found.end[k]} are in {self.files[file]}:{row}"


class TemplatesStep(Step):
    """Adds records from a grammar."""

    kind = "templates"
    rows_per_part = 16384
    slices = 4  # of a part: how many pieces its rows are drawn in

    def __init__(self, context: Context, index: int, stage: Templates) -> None:
        super().__init__(context, index, stage.label)
        from variegate.templates import Grammar, read_lexicon, read_rows

        self.stage = stage
        base = context.recipe.base
        lexicons = {name: read_lexicon(base / path) for name, path in stage.lexicons.items()}
        rows = None if stage.rows is None else read_rows(base / stage.rows)
        if stage.path is None:
            try:
                self.grammar = Grammar(stage.grammar or "", name=stage.label, lexicons=lexicons, rows=rows)
            except InvalidInput as error:
                raise InvalidInput(f"grammar of stage '{stage.label}': {error}") from None
        else:
            self.grammar = Grammar.from_file(base / stage.path, name=stage.label, lexicons=lexicons, rows=rows)
        said = {"name": stage.label, "grammar": self.grammar.fingerprint, "law": stage.law}
        self.spec = {"templates": said}
        self.ops_hash = ops_hash(self.spec)
        self.candidates = stage.candidates or stage.count
        possible = self.grammar.count()
        if stage.law == "uniform" and self.candidates > possible:
            message = f"stage '{stage.label}' asks for {self.candidates} records, but its grammar has {possible}"
            raise InvalidInput(f"{message}: lower count, or repeat some with law: weights")

    def parts(self) -> int:
        """How many parts the stage makes."""
        return -(-self.candidates // self.rows_per_part)

    def produce(self, number: int) -> Iterator[Outcome]:
        """Draws number, number + parts, number + 2 parts and so on: no part needs another."""
        of = self.parts()
        for shard in range(number, of * self.slices, of):
            yield self.draw(shard, of * self.slices, examples=shard == 0)

    def draw(self, shard: int, of: int, *, examples: bool) -> Outcome:
        """Draws shard, shard + of, shard + 2 of and so on."""
        context, stage = self.context, self.stage
        count = len(range(shard, self.candidates, of))
        weights = stage.law == "weights"
        batch = self.grammar.sample(count, seed=context.recipe.seed, law=stage.law, replace=weights, shard=(shard, of))
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
        found = []
        for row in rows.slice(0, EXAMPLES if examples else 0).to_pylist():
            spans = [[span["start"], span["end"], span["tag"]] for span in row["spans"] or []]
            found.append({"text": row["text"][:EXAMPLE_CHARACTERS], "spans": spans})
        return Outcome(rows, None, 0, count, found)


class MeasureStep(Step):
    """Measures what reaches it."""

    kind = "measure"

    def __init__(self, context: Context, index: int, stage: Measure) -> None:
        super().__init__(context, index, stage.label)
        self.stage = stage


def check_recipe(recipe: Recipe) -> None:
    """Refuses to derive from what may not be changed, and to cap what is synthetic where nothing is human.

    Raises:
        RecipeError: Names the source and the licence, or the cap, at its line.
    """
    share = None if recipe.mix is None else recipe.mix.max_synthetic
    if share is not None and share < 1 and all(source.kind != "human" for source in recipe.sources):
        message = (
            f"max_synthetic {share} cannot be met: no source is human (kind: human), so all of the set is synthetic"
        )
        raise recipe.error(message, at=("mix", "max_synthetic"))
    for stage in recipe.stages:
        if not isinstance(stage, Augment | Paraphrase):
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
