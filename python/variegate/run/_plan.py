"""What a run would do, from file sizes and from really running a sample in a temporary directory."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from variegate.recipe import Mix, Recipe, Templates
from variegate.recipe import load as load_recipe
from variegate.run import _inputs as inputs
from variegate.run._columns import count_rows
from variegate.run._context import Context
from variegate.run._engine import committed_files, processors, run_in
from variegate.run._journal import replay
from variegate.run._parse import parse
from variegate.run._passes import steps
from variegate.run._stages import check_recipe
from variegate.run._units import Unit, units

__all__ = ["Plan", "PlannedSource", "PlannedStage", "plan"]

COMPRESSION = 4
"""How much smaller compressed text is assumed to be."""
TEMPLATE_ROWS = 16384
"""How many records of a templates stage are made where nothing else says how large the sample is."""


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
    """A stage as the plan sees it: what it takes, passes on and rejects, and how long it takes."""

    name: str
    kind: str
    rows_in: int
    rows_out: int
    rejected: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run would do, estimated.

    Rejects of stages that compare records with each other grow with the set, so a small sample shows too few of them.
    Whether a run would meet what makes it fail at its end (``retain_real``, ``exhausted: error``) is not foretold.

    Attributes:
        sources: What would be read.
        stages: What would be done, in order.
        exact: Whether the sample was the whole input, so that the rows are those of the run.
        rows: Records that would be written.
        text_bytes: Bytes of text in them.
        seconds: Time with this many workers on this machine, without the start.
        disk_bytes: What the run would leave: the final set and the ledger.
        peak_bytes: The most it would take while it goes on.
    """

    sources: tuple[PlannedSource, ...]
    stages: tuple[PlannedStage, ...]
    exact: bool
    rows: int
    text_bytes: int
    seconds: float
    disk_bytes: int
    peak_bytes: int


class _Sample(Context):
    """The context of a run over a few units."""

    taken: tuple[Unit, ...] = ()

    def units(self, digests: dict[int, str]) -> Iterator[Unit]:
        """The units of the sample."""
        return iter(self.taken)


def plan(recipe: Recipe | str | os.PathLike[str], *, workers: int | None = None) -> Plan:
    """Estimates rows, time and disk of a run: runs its first few megabytes of each source in a temporary directory.

    Args:
        recipe: A recipe, or the path of one.
        workers: As for `run`.

    Raises:
        RecipeError: The recipe is wrong.
        InvalidInput: An input cannot be used.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    check_recipe(recipe)
    listed = inputs.list_inputs(recipe)
    context = Context(recipe, listed, Path())
    steps(context)  # refuses what the sample would be too small to refuse
    sources, taken, sampled = [], [], 0
    for source in recipe.sources:
        files = [item for item in listed if item.source == source.name]
        cut = units(recipe.model_copy(update={"sources": [source]}), listed, {})
        total = sum(item.bytes * (COMPRESSION if item.where.suffix in (".gz", ".zst") else 1) for item in files)
        seen = found = 0
        for unit in cut:
            taken.append(unit)
            seen += sum(chunk.bulk for chunk in unit.chunks)
            found += len(parse(unit, listed, context.schema)[0])
            if found:
                break
        rows, whole = found, next(cut, None) is None
        if not whole and all(item.format == "parquet" for item in files):
            rows, exact = sum(count_rows(item) or 0 for item in files), True
        else:
            rows, exact = found if whole else round(found * max(1.0, total / max(1, seen))), whole
        sources.append(PlannedSource(source.name, len(files), sum(item.bytes for item in files), rows, exact))
        sampled += found
    made = [stage.candidates or stage.count for stage in recipe.stages if isinstance(stage, Templates)]
    scale = (
        sum(source.rows for source in sources) / sampled if sampled else max(1.0, max(made, default=0) / TEMPLATE_ROWS)
    )
    with tempfile.TemporaryDirectory(prefix="variegate-plan-") as folder:
        sample = _Sample(_scaled(recipe, scale), listed, Path(folder, "run"))
        sample.taken = tuple(taken)
        if sample.wants_tokens:
            sample.tokenizer.encode(["The tokenizer is loaded before the clock starts."])
        started = time.monotonic()
        result = run_in(sample, workers or processors())
        seconds = time.monotonic() - started
        report = json.loads((sample.out / "report.json").read_text("utf-8"))
        journal, _ = replay((sample.out / "journal.log").read_bytes())
    sizes: dict[str, int] = {}
    for path, file in committed_files(journal).items():
        top = "/".join(path.split("/")[: 2 if path.startswith("stages/") else 1])
        sizes[top] = sizes.get(top, 0) + file["bytes"]
    ledger = sizes.pop("rejects", 0)
    stages = [
        PlannedStage(
            name=stage["name"],
            kind=stage["kind"],
            rows_in=round(stage["in"] * scale),
            rows_out=round(stage["out"] * scale),
            rejected=round(stage["rejected"] * scale),
            seconds=round(stage["seconds"] * scale, 2),
        )
        for stage in report["stages"]
    ]
    rows = round(result.rows * scale)
    spent = round((report["seconds"] - sum(stage["seconds"] for stage in report["stages"])) * scale, 2)
    return Plan(
        sources=tuple(sources),
        stages=(*stages, PlannedStage("output", "output", rows, rows, 0, max(0.0, spent))),
        exact=scale == 1 and all(source.exact for source in sources),
        rows=rows,
        text_bytes=round(sum(share["bytes"] for share in report["shares"].get("kind", {}).values()) * scale),
        seconds=round(seconds * scale, 2),
        disk_bytes=round((sizes.get("data", 0) + ledger) * scale),
        peak_bytes=round((max(sizes.values(), default=0) + ledger) * scale),
    )


def _scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe with as much of what it makes as goes with a sample, and without what a sample may fail by chance."""
    stages = []
    for stage in recipe.stages:
        if isinstance(stage, Templates):
            candidates = None if stage.candidates is None else math.ceil(stage.candidates / scale)
            changes = {"count": math.ceil(stage.count / scale), "candidates": candidates, "exhausted": "keep"}
            stage = stage.model_copy(update=changes)
        stages.append(stage)
    mix = recipe.mix and Mix(max_synthetic=recipe.mix.max_synthetic, by=recipe.mix.by)
    return recipe.model_copy(update={"stages": stages, "mix": mix})
