"""What a run would do, from file sizes and a sample, without running it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from variegate.recipe import Recipe
from variegate.recipe import load as load_recipe
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run import _stages as stages
from variegate.run._context import Context

__all__ = ["Plan", "PlannedSource", "PlannedStage", "plan"]

SAMPLE_ROWS = 200
COMPRESSION = 4
"""How much smaller compressed text is assumed to be."""


@dataclass(frozen=True)
class PlannedSource:
    """A source as the plan sees it; rows are exact where `exact`, else scaled up from the first few megabytes."""

    name: str
    files: int
    bytes: int
    rows: int
    exact: bool


@dataclass(frozen=True)
class PlannedStage:
    """A stage as the plan sees it: rows out are the most there can be; seconds are rough, for one worker."""

    name: str
    kind: str
    rows_in: int
    rows_out: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        sources: What would be read.
        stages: What would be done, in order.
        rows: Records that would be written, at most.
        text_bytes: Bytes of text in them, at most.
        seconds: Rough time with one worker.
    """

    sources: tuple[PlannedSource, ...]
    stages: tuple[PlannedStage, ...]
    rows: int
    text_bytes: int
    seconds: float


def plan(recipe: Recipe | str | os.PathLike[str]) -> Plan:
    """Estimates rows, bytes and time of a run; reads the first few megabytes of each source and writes nothing.

    Raises:
        RecipeError: The recipe is wrong.
        InvalidInput: An input cannot be used.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    stages.check_licenses(recipe)
    listed = inputs.list_inputs(recipe)
    context = Context(recipe, listed, Path())
    sources, text_bytes, reading = [], 0, 0.0
    sample = context.schema.empty_table()
    for source in recipe.sources:
        files = [item for item in listed if item.source == source.name]
        started = time.monotonic()
        units = iter(inputs.units(recipe.model_copy(update={"sources": [source]}), listed, {}))
        unit = next(units, None)
        parsed = context.schema.empty_table() if unit is None else inputs.parse(unit, listed, context.schema)[0]
        spent = time.monotonic() - started
        total = sum(item.bytes * (COMPRESSION if item.where.suffix in (".gz", ".zst") else 1) for item in files)
        seen = 0 if unit is None else sum(_bulk(chunk.data) for chunk in unit.chunks)
        whole = next(units, None) is None
        if all(item.format == "parquet" for item in files):
            rows, whole = sum(inputs.rows(item) or 0 for item in files), True
        else:
            rows = len(parsed) if whole else round(len(parsed) * max(1.0, total / max(1, seen)))
        scale = rows / max(1, len(parsed))
        sources.append(PlannedSource(source.name, len(files), sum(item.bytes for item in files), rows, whole))
        text_bytes += round(int(records.text_bytes(parsed["text"]).sum()) * scale)
        reading += spent * scale
        if len(sample) < SAMPLE_ROWS:
            sample = parsed.slice(0, SAMPLE_ROWS)
    rows = sum(source.rows for source in sources)
    planned = [PlannedStage("read", "read", 0, rows, round(reading, 2))]
    for step in stages.steps(context)[1:]:
        before, seconds = rows, 0.0
        if isinstance(step, stages.AugmentStep):
            factor = step.stage.variants + step.stage.keep_source
            if len(sample):
                tokenized = context.tokenized(sample)  # loads the tokenizer, which is no cost of a row
                started = time.monotonic()
                context.tokenized(step.variant(tokenized, 0))
                seconds = (time.monotonic() - started) * step.stage.variants * rows / len(sample)
            rows, text_bytes = rows * factor, text_bytes * factor
        elif isinstance(step, stages.TemplatesStep):
            rows += step.stage.count
        planned.append(PlannedStage(step.label, step.kind, before, rows, round(seconds, 2)))
    planned.append(PlannedStage("output", "output", rows, rows, 0.0))
    total_seconds = round(sum(stage.seconds for stage in planned), 2)
    return Plan(tuple(sources), tuple(planned), rows, text_bytes, total_seconds)


def _bulk(data: object) -> int:
    return len(data) if isinstance(data, bytes) else int(data.nbytes)  # type: ignore[attr-defined]
