"""The passes of a run: its stages, joined where rows can go through several of them without being laid down between.

Consecutive record-wise stages are one pass, which leaves parts. A stage that looks at all rows is a pass by itself; it
leaves ledgers, and the parts stay as they are.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from variegate import _core
from variegate.recipe import Augment, Decontaminate, Dedup, Measure, Overlap, Paraphrase, Templates
from variegate.run import _records as records
from variegate.run._context import token_batch
from variegate.run._parts import Committed, ParquetDraft, Part
from variegate.run._sets import Decision, DedupStep, MixStep, SetStep, targets
from variegate.run._stages import (
    EXAMPLE_PARTS,
    EXAMPLES,
    AugmentStep,
    EachStep,
    MeasureStep,
    Outcome,
    OverlapStep,
    ParaphraseStep,
    Read,
    Step,
    TemplatesStep,
)
from variegate.run._units import Unit

if TYPE_CHECKING:
    from variegate.run._context import Context

__all__ = ["Pass", "Record", "RecordPass", "Task", "filter_tasks", "made_parts", "passes", "steps"]

Record = dict[str, Any]
"""A record of the journal."""


@dataclass
class Pass:
    """One sweep over the data."""

    context: Context
    steps: list[Step]

    @property
    def index(self) -> int:
        """Number of its last stage, by which the journal knows it."""
        return self.steps[-1].index

    @property
    def folder(self) -> str:
        """Name of its last stage with the number, as folders are called."""
        return folder(self.steps[-1])


def folder(step: Step) -> str:
    """A stage's name with its number."""
    return f"{step.index:02d}-{step.label}"


class Tally:
    """What a stage did to the rows of one part, with the ledger of those it rejected."""

    def __init__(self, context: Context, step: Step, number: int, stack: ExitStack) -> None:
        self.context, self.step, self.number, self.stack = context, step, number, stack
        self.seen = self.created = self.out = self.tokens = self.text_bytes = 0
        self.seconds = 0.0
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.examples: list[dict[str, Any]] = []
        self.ledger: ParquetDraft | None = None
        self.lost_tokens = self.lost_bytes = 0

    def passed(self, rows: pa.Table) -> None:
        """Counts rows that the stage passes on."""
        self.out += len(rows)
        self.text_bytes += int(records.text_bytes(rows["text"]).sum())
        counts = records.token_counts(rows)
        self.tokens += 0 if counts is None else int(counts.sum())

    def reject(self, entries: pa.Table, tokens: int = 0) -> None:
        """Writes entries into the ledger."""
        if self.ledger is None:
            name = f"part-{self.number:05d}"
            draft = ParquetDraft(self.context.out, f"rejects/{folder(self.step)}", name, records.REJECTS)
            self.ledger = self.stack.enter_context(draft)
        self.ledger.add(entries)
        for item in pc.value_counts(entries["reason"]).to_pylist():
            self.reasons[item["values"]] += item["counts"]
        self.lost_tokens += tokens
        self.lost_bytes += int(records.text_bytes(pc.fill_null(entries["text"], "")).sum())

    def commit(self) -> Record:
        """Commits the ledger; returns what the journal says of the stage and this part."""
        rejects = None
        if self.ledger is not None:
            rejects = self.ledger.commit() | {"tokens": self.lost_tokens, "text_bytes": self.lost_bytes}
        return {
            "in": self.seen,
            "created": self.created,
            "out": self.out,
            "rejects": rejects,
            "reasons": dict(sorted(self.reasons.items())),
            "tokens": self.tokens,
            "text_bytes": self.text_bytes,
            "counts": dict(sorted(self.counts.items())),
            "seconds": round(self.seconds, 4),
            "examples": self.examples,
        }


@dataclass
class RecordPass(Pass):
    """Record-wise stages: every task takes some rows, or makes them, through all of them, and leaves a part.

    Attributes:
        sketches: How the keys are made that later stages need, by the stage's name.
        total: Whether the tokens of all rows are counted, for a stage that measures them.
        references: Sources whose rows are counted as they are read.
    """

    sketches: dict[str, _core.NearParams] = field(default_factory=dict)
    total: bool = False
    references: tuple[str, ...] = ()

    def tasks(self, parts: list[Part], digests: dict[int, str]) -> Iterator[Task]:
        """Units of input or earlier parts first, then what is made from nothing; `digests` get those of the inputs."""
        numbers = itertools.count()
        first = self.steps[0]
        if isinstance(first, Read):
            for unit in self.context.units(digests):
                yield self._task(next(numbers), 0, partial(first.produce, unit), unit=unit)
        else:
            for part in parts:
                yield self._task(next(numbers), 0, partial(self.incoming, part), part=part)
        for at, step in enumerate(self.steps):
            if isinstance(step, TemplatesStep):
                for number in range(step.parts()):
                    yield self._task(next(numbers), at, partial(step.produce, number))

    def count(self, parts: list[Part]) -> int | None:
        """How many tasks there will be, or None if only reading tells."""
        if isinstance(self.steps[0], Read) and self.context.recipe.sources:
            return None
        made = sum(step.parts() for step in self.steps if isinstance(step, TemplatesStep))
        return made + (0 if isinstance(self.steps[0], Read) else len(parts))

    def incoming(self, part: Part) -> Iterator[Outcome]:
        """The rows of an earlier part, as the first stage takes them."""
        first = self.steps[0]
        context = self.context
        for piece in context.files.pieces(part, context.schema.names):
            rows = context.readable(piece)
            columns = dict(zip(rows.column_names, rows.columns, strict=True))
            if context.wants_tokens:
                columns["tokens"] = records.token_lists(*context.stored_tokens(piece))
            rows = records.table(columns, context.schema, len(piece))
            if isinstance(first, EachStep):
                yield from first.derive(rows, examples=part.number < EXAMPLE_PARTS)
            else:
                yield Outcome(rows, None, len(rows))

    def _task(
        self,
        number: int,
        at: int,
        outcomes: Callable[[], Iterator[Outcome]],
        *,
        unit: Unit | None = None,
        part: Part | None = None,
    ) -> Task:
        released = [] if part is None or part.file is None else [part.file["path"]]
        digest, source = ("", "") if unit is None else (unit.digest, unit.source.name)
        return Task([number], lambda _: [self.make(number, at, outcomes(), released)], digest, source)

    def make(self, number: int, at: int, outcomes: Iterator[Outcome], released: list[str]) -> Record:
        """Takes what stage `at` makes through the others and commits it; returns the record that will make it count."""
        from variegate.collapse import Sketch

        context = self.context
        schema = context.stored_schema(self.sketches)
        with ExitStack() as stack:
            tallies = [Tally(context, step, number, stack) for step in self.steps]
            draft = stack.enter_context(
                ParquetDraft(context.out, f"stages/{self.folder}", f"part-{number:05d}", schema)
            )
            total = Sketch()
            references = {name: _Reference(context) for name in self.references}
            for rows in self._flow(at, outcomes, tallies, references):
                started = time.perf_counter()
                draft.add(context.stored(rows, self.sketches, schema))
                if self.total:
                    total.update(token_batch(*records.token_arrays(rows["tokens"])))
                tallies[-1].seconds += time.perf_counter() - started
            notes = {"sketch": total.to_bytes()} if self.total else {}
            for name, reference in references.items():
                notes[f"sketch {name}"] = reference.sketch.to_bytes()
                notes[f"content {name}"] = b"".join(reference.content)
            counted = {str(tally.step.index): tally.commit() for tally in tallies}
            file: Committed | None = None
            if draft.rows or notes:
                last = tallies[-1]
                file = draft.commit(notes) | {"tokens": last.tokens, "text_bytes": last.text_bytes}
        return {
            "record": "part",
            "stage": self.index,
            "part": number,
            "file": file,
            "stages": counted,
            "released": released,
        }

    def _flow(
        self, at: int, outcomes: Iterator[Outcome], tallies: list[Tally], references: dict[str, _Reference]
    ) -> Iterator[pa.Table]:
        """Counts what stage `at` makes, and takes it through the stages after it."""
        tally = tallies[at]
        while True:
            started = time.perf_counter()
            outcome = next(outcomes, None)
            tally.seconds += time.perf_counter() - started
            if outcome is None:
                return
            tally.seen += outcome.seen
            tally.created += outcome.created
            tally.counts.update(outcome.counts)
            tally.examples += outcome.examples
            if outcome.rejects is not None and len(outcome.rejects):
                tally.reject(outcome.rejects)
            if outcome.rows is not None and len(outcome.rows):
                if isinstance(tally.step, Read):
                    name = outcome.rows["source"][0].as_py()
                    if name in references:
                        references[name].add(outcome.rows)
                tally.passed(outcome.rows)
                yield from self._through(at + 1, outcome.rows, tallies)

    def _through(self, at: int, rows: pa.Table, tallies: list[Tally]) -> Iterator[pa.Table]:
        if at == len(self.steps):
            yield rows
            return
        step = self.steps[at]
        if isinstance(step, EachStep):
            examples = tallies[at].number < EXAMPLE_PARTS and len(tallies[at].examples) < EXAMPLES
            yield from self._flow(at, step.derive(rows, examples=examples), tallies, {})
        else:  # templates: what comes passes by what is made
            tallies[at].seen += len(rows)
            tallies[at].passed(rows)
            yield from self._through(at + 1, rows, tallies)


class _Reference:
    """The rows of a source as they were read: token counts, and a hash of each."""

    def __init__(self, context: Context) -> None:
        from variegate.collapse import Sketch

        self.context, self.sketch = context, Sketch()
        self.content: list[bytes] = []

    def add(self, rows: pa.Table) -> None:
        batch = token_batch(*records.token_arrays(rows["tokens"]))
        self.sketch.update(batch)
        self.content.append(self.context.content(batch.tokens, batch.offsets).tobytes())


def steps(context: Context) -> list[Step]:
    """The stages of a run in order, but for the output."""
    made: list[Step] = [Read(context, 0, "read")]
    for index, stage in enumerate(context.recipe.stages, 1):
        match stage:
            case Augment():
                made.append(AugmentStep(context, index, stage))
            case Paraphrase():
                made.append(ParaphraseStep(context, index, stage))
            case Templates():
                made.append(TemplatesStep(context, index, stage))
            case Decontaminate() | Overlap():
                made.append(OverlapStep(context, index, stage))
            case Dedup():
                made.append(DedupStep(context, index, stage))
            case Measure():
                made.append(MeasureStep(context, index, stage))
    if context.recipe.mix is not None or targets(context.recipe.stages):
        made.append(MixStep(context, len(made)))
    return made


def passes(context: Context, made: list[Step]) -> list[Pass]:
    """The stages, joined into passes."""
    found: list[Pass] = []
    last: RecordPass | None = None
    for step in made:
        if isinstance(step, SetStep | MeasureStep):
            found.append(Pass(context, [step]))
            assert last is not None
            if isinstance(step, MeasureStep):
                last.total = True
            if isinstance(step, DedupStep) and step.sketch is not None:
                last.sketches[step.label] = step.sketch
        elif last is not None and found[-1] is last:
            last.steps.append(step)
        else:
            last = RecordPass(context, [step])
            found.append(last)
    references = {step.stage.reference for step in made if isinstance(step, MeasureStep)} - {None}
    assert isinstance(found[0], RecordPass)
    found[0].references = tuple(sorted(name for name in references if name is not None))
    return found


@dataclass(frozen=True)
class Task:
    """Work that makes parts of consecutive numbers, the first few of which may be there already.

    Attributes:
        numbers: Of the parts.
        make: Takes how many of them there are, and makes the others.
        digest: Of what is read for them; empty where that is the content of earlier parts.
        source: Where that is read from.
    """

    numbers: list[int]
    make: Callable[[int], list[Record]]
    digest: str = ""
    source: str = ""


def filter_tasks(context: Context, step: SetStep, decision: Decision, parts: list[Part]) -> Iterator[Task]:
    """A task for each part: the ledger of what a decision rejects of it."""

    def make(part: Part, start: int, _: int) -> list[Record]:
        started = time.perf_counter()
        with ExitStack() as stack:
            tally = Tally(context, step, part.number, stack)
            for entries, tokens in decision.ledger(part, start):
                tally.reject(entries, tokens)
            tally.seen = part.rows
            tally.out = part.rows - sum(tally.reasons.values())
            tally.tokens, tally.text_bytes = part.tokens - tally.lost_tokens, part.text_bytes - tally.lost_bytes
            tally.seconds = time.perf_counter() - started
            counted = {str(step.index): tally.commit()}
        return [
            {
                "record": "part",
                "stage": step.index,
                "part": part.number,
                "file": None,
                "stages": counted,
                "released": [],
            }
        ]

    start = 0
    for part in parts:
        yield Task([part.number], partial(make, part, start))
        start += part.rows


def made_parts(work: Pass, parts: list[Part], made: list[Record]) -> list[Part]:
    """The parts that a pass passes on."""
    if isinstance(work, RecordPass):
        return [Part(record["part"], record["file"]) for record in made]
    if not made:
        return parts
    index = str(work.index)
    return [part.without(record["stages"][index]["rejects"]) for part, record in zip(parts, made, strict=True)]
