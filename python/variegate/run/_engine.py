"""Running a recipe: parts through stages, each committed before it counts.

Tasks of a stage run on threads, a bounded number ahead; their commits enter the journal in order. What is in the
journal is never done again, so that the same command on the same directory continues where it was.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
import platform
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from variegate import _core, provenance
from variegate import _store as store
from variegate.collapse import Sketch
from variegate.errors import CorruptRun, InvalidInput, RunConflict
from variegate.recipe import Recipe
from variegate.recipe import load as load_recipe
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run._context import Context, threads, token_batch
from variegate.run._journal import Journal, replay
from variegate.run._output import Shards, summed
from variegate.run._parts import Committed, Part
from variegate.run._passes import (
    Pass,
    Record,
    RecordPass,
    Task,
    filter_tasks,
    made_parts,
    passes,
    steps,
)
from variegate.run._sets import SetStep, check_unique, count_distinct
from variegate.run._stages import AugmentStep, MeasureStep, Read, Step, check_recipe, plain

__all__ = ["Event", "RunResult", "committed_files", "run", "verify_file"]

DOCUMENTS = ("manifest.json", "recipe.lock.yaml", "report.json")
"""Files that say what a finished run did."""
PARTS = ("stages", "rejects", "data")
"""Folders of a run directory that hold what passes have made."""
ALL_TOKENS = "all tokens"
"""Where a pass leaves the token counts of its rows, among the results that stages leave under their names."""
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{16}\.(parquet|jsonl\.zst)")


@dataclass(frozen=True)
class Event:
    """How far a run is; sent at the start of every stage, after every part, and at the end.

    Attributes:
        stage: Name of the stage.
        index: Its number, from 0.
        stages: How many there are.
        parts: Parts done.
        parts_total: Parts that there will be, or None while that is not known.
        rows_in: Rows that it took, or made.
        rows_out: Rows that it passed on.
        rejected: Rows that it rejected.
        top_reason: The most frequent reason, or None.
        seconds: Since the stage began, in this process.
        rows_per_second: Rows in, per second.
        tokens_per_second: Tokens out per second, 0 where the run does not count tokens.
        finished: Whether the stage is done.
    """

    stage: str
    index: int
    stages: int
    parts: int
    parts_total: int | None
    rows_in: int
    rows_out: int
    rejected: int
    top_reason: str | None
    seconds: float
    rows_per_second: float
    tokens_per_second: float
    finished: bool


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        out: The run directory.
        rows: Records in the final set.
        rejected: Records in the ledger.
        files: Data files.
        seconds: Of this call.
        merkle_root: Of the final set, in hexadecimal.
        already_complete: True where there was nothing left to do.
        continued: True where an earlier call had begun.
    """

    out: Path
    rows: int
    rejected: int
    files: int
    seconds: float
    merkle_root: str
    already_complete: bool
    continued: bool


def run(
    recipe: Recipe | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Callable[[Event], None] | None = None,
) -> RunResult:
    """Runs a recipe into a directory, or continues what an earlier call began there.

    Nothing that is written to ``data/`` or ``manifest.json`` depends on time, place or workers.

    Args:
        recipe: A recipe, or the path of one.
        out: The run directory; made if it is not there.
        workers: Parts at a time; as many as there are processors if None.
        progress: Called after every part, from the calling thread.

    Raises:
        RecipeError: The recipe is wrong.
        InvalidInput: An input cannot be used; a directory that was new is gone again.
        RunConflict: The directory belongs to another recipe or other inputs, is no run directory, or is in use.
        CorruptRun: A committed file is missing or altered.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be 1 or more, not {workers}")
    check_recipe(recipe)
    return run_in(Context(recipe, inputs.list_inputs(recipe, Path(out)), Path(out)), workers or processors(), progress)


def run_in(context: Context, workers: int, progress: Callable[[Event], None] | None = None) -> RunResult:
    """What `run` does, once it is known what is to be read."""
    started = time.monotonic()
    stages = steps(context)
    folder = context.out
    made_folder = not folder.exists()
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder} is not a directory")
    try:
        store.make_folder(folder)
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {os.strerror(error.errno or 0)}") from None
    with store.lock(folder):
        strangers = [p.name for p in folder.iterdir() if p.name not in (".lock", "journal.log")]
        if strangers and not (folder / "journal.log").exists():
            raise RunConflict(f"{folder} holds other files ('{min(strangers)}') and no run: choose a new directory")
        fresh = not (folder / "journal.log").exists()
        refuse_lost_journal(folder)
        journal = Journal(folder / "journal.log")
        try:
            engine = _Engine(context, stages, journal, workers, progress, started)
            try:
                return engine.run()
            except (InvalidInput, RunConflict) as error:
                if fresh and engine.first:
                    journal.close()
                    _empty(folder)
                    if made_folder:
                        folder.rmdir()
                elif isinstance(error, InvalidInput):
                    message = f"{error} (what was done until then is in {folder}: another recipe needs a new directory)"
                    raise InvalidInput(message) from None
                raise
        finally:
            journal.close()


def refuse_lost_journal(out: Path) -> None:
    """Refuses a directory with parts of which the journal says nothing any more, and leaves both as they are."""
    path = out / "journal.log"
    records, _ = replay(path.read_bytes() if path.exists() else b"")
    if not records and any(next((out / top).rglob("part-*"), None) for top in PARTS):
        raise CorruptRun(f"{path} is damaged at its start, though there are parts: choose a new directory")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


class _Engine:
    """One call of `run` on a locked directory."""

    def __init__(
        self,
        context: Context,
        stages: list[Step],
        journal: Journal,
        workers: int,
        progress: Callable[[Event], None] | None,
        started: float,
    ) -> None:
        self.context, self.steps, self.journal = context, stages, journal
        self.passes = passes(context, stages)
        self.workers, self.progress, self.started = workers, progress, started
        self.out, self.recipe = context.out, context.recipe
        self.first = True
        self.done: dict[tuple[int, int], Record] = {}
        self.finished: dict[int, Record] = {}
        self.last_poll = 0.0

    def run(self) -> RunResult:
        """Does what is left to do."""
        continued = bool(self.journal.records)
        if continued:
            for record in self.journal.records:
                if record["record"] == "part":
                    self.done[record["stage"], record["part"]] = record
                elif record["record"] == "stage":
                    self.finished[record["stage"]] = record
            self.same_run(self.journal.records[0])
            last = self.journal.records[-1]
            if last["record"] == "finish":
                # What is left where the run was killed after its last record.
                self.journal.cut()
                self.tidy()
                return self.told(last, already=True, continued=True)
        self.recover()
        if not continued:
            self.journal.append(self.head())
        for name in PARTS:
            store.make_folder(self.out / name)
        parts: list[Part] = []
        funnel: list[Record] = []
        with self.context.at_work(self.workers) as pool:
            for work in self.passes:
                parts = self.run_pass(pool, work, parts, funnel)
                self.first = False
            shards = self.write_shards(pool, parts)
        finish = self.finish(funnel, shards)
        return self.told(finish, already=False, continued=continued)

    def head(self) -> Record:
        """The first record of the journal: what makes this run this run."""
        return {
            "record": "start",
            "format": 3,
            "variegate": _core.__version__,
            "randomness": _core.RANDOMNESS_SCHEME,
            "recipe_hash": self.recipe.hash(),
            "recipe": self.recipe.to_yaml(),
            "inputs": [item.to_json() | {"mtime_ns": item.mtime_ns} for item in self.context.inputs],
        }

    def same_run(self, old: Record) -> None:
        """Refuses to continue a run of something else, and shows the difference."""
        if old.get("record") != "start":
            raise CorruptRun(f"{self.out / 'journal.log'} does not begin with the start of a run")
        new = self.head()
        if old.get("format") != new["format"]:
            message = f"has a journal of format {old.get('format')}, and this release writes {new['format']}"
            raise RunConflict(f"{self.out} {message}: choose a new directory")
        if old["recipe_hash"] != new["recipe_hash"]:
            before, after = (
                [line for line in head["recipe"].splitlines() if not line.startswith("memory:")] for head in (old, new)
            )
            lines = difflib.unified_diff(before, after, n=0, lineterm="")
            changes = "\n".join(f"  {line}" for line in list(lines)[2:] if not line.startswith("@@"))
            raise RunConflict(f"{self.out} belongs to another recipe: choose a new directory, or undo\n{changes}")
        read = self.finished[self.passes[0].index]["inputs"] if self.passes[0].index in self.finished else {}
        known_inputs = {(item["source"], item["path"]): item for item in old["inputs"]}
        listed = {(item["source"], item["path"]) for item in new["inputs"]}
        for number, item in enumerate(old["inputs"]):
            item["sha256"] = item["sha256"] or read.get(str(number), "")
        for key in sorted(known_inputs.keys() | listed):
            if key not in known_inputs or key not in listed:
                what = "is new" if key in listed else "is gone"
                raise self.other_input(f"input {key[1]} of '{key[0]}' {what}")
        for item in self.context.inputs:
            known = known_inputs[item.source, item.path]
            changed = self.other_input(f"input {item.path} of '{item.source}' has changed")
            if item.bytes != known["bytes"] or (item.sha256 and item.sha256 != known["sha256"]):
                raise changed
            # A file that was not touched holds what it held; one half read is compared as it is read again.
            touched = item.mtime_ns != known["mtime_ns"]
            if touched and known["sha256"] and inputs.hash_file(item.where) != known["sha256"]:
                raise changed
        for name in ("variegate", "randomness"):
            if old[name] != new[name]:
                message = f"was begun with {name} {old[name]}, and this is {new[name]}: choose a new directory"
                raise RunConflict(f"{self.out} {message}")

    def other_input(self, what: str) -> RunConflict:
        """An input is not what it was."""
        return RunConflict(f"{self.out}: {what} since this run began: choose a new directory")

    def recover(self) -> None:
        """Checks what is committed and needed, then deletes what never was committed or is no longer needed.

        Where the check fails nothing is touched: the journal may be damaged, and not what it says nothing of.
        """
        if (self.out / "manifest.json").exists() and len(self.steps) not in self.finished:
            message = "is damaged, though there is the manifest of a finished run"
            raise CorruptRun(f"{self.journal.path} {message}: restore it from a copy, or choose a new directory")
        committed = committed_files(self.journal.records)
        released = {path for record in self.journal.records for path in record.get("released", ())}
        for name, item in committed.items():
            if name not in released:
                verify_file(self.out, name, item)
        self.journal.cut()
        found = [path for top in PARTS for path in sorted((self.out / top).rglob("part-*"))]
        for path in found:
            name = path.relative_to(self.out).as_posix()
            if path.is_file() and (name in released or (name not in committed and _PART.fullmatch(path.name))):
                path.unlink()
        self.sweep()

    def tidy(self) -> None:
        """Deletes what only a run at work needs."""
        (self.out / "progress.json").unlink(missing_ok=True)
        shutil.rmtree(self.out / "stages", ignore_errors=True)
        self.sweep()

    def sweep(self) -> None:
        """Deletes files that were being written."""
        for path in self.out.rglob(f"{store.TEMPORARY}*"):
            if path.is_file():
                path.unlink()

    def run_pass(self, pool: ThreadPoolExecutor, work: Pass, parts: list[Part], funnel: list[Record]) -> list[Part]:
        """Does one pass; adds its stages to the funnel and returns the parts it passes on."""
        meters = [_Meter(self, step.index, step.label) for step in work.steps]
        index = work.index
        if index in self.finished:
            made = [self.done[index, number] for number in range(self.finished[index]["parts"])]
            results = self.finished[index]["results"]
        else:
            for meter in meters:
                meter.tell()
            made, results, digests = self.do_pass(pool, work, parts, meters)
            seconds = split_seconds(meters[0].seconds, made, work.steps)
            record = {
                "record": "stage",
                "stage": index,
                "parts": len(made),
                "seconds": seconds,
                "results": results,
                "inputs": {str(number): digest for number, digest in sorted(digests.items())},
            }
            self.journal.append(record)
            self.finished[index] = record
            for meter in meters:
                meter.finish()
        self.context.results |= results
        after = made_parts(work, parts, made)
        for step in work.steps:
            funnel.append(self.funnel_entry(step, parts, after, made))
        return after

    def do_pass(
        self, pool: ThreadPoolExecutor, work: Pass, parts: list[Part], meters: list[_Meter]
    ) -> tuple[list[Record], dict[str, Any], dict[int, str]]:
        """The work of a pass: its records, what its stages say, and the digests of what it read."""
        step = work.steps[-1]
        digests: dict[int, str] = {}
        if isinstance(work, RecordPass):
            made = self.in_order(pool, work.index, work.tasks(parts, digests), meters, work.count(parts))
            return made, self.summary(work, parts, made), digests
        if isinstance(step, MeasureStep):
            return [], {step.label: self.measure(step, parts)}, digests
        assert isinstance(step, SetStep)
        decision, said = step.decide(parts)
        tasks = filter_tasks(self.context, step, decision, parts)
        return self.in_order(pool, work.index, tasks, meters, len(parts)), {step.label: said}, digests

    def in_order(
        self, pool: ThreadPoolExecutor, index: int, tasks: Iterator[Task], meters: list[_Meter], total: int | None
    ) -> list[Record]:
        """Runs tasks a few ahead, and commits their records in order; what the journal has is not done again."""
        made: list[Record] = []
        queue: deque[tuple[list[Record], Future[list[Record]] | None, Task]] = deque()

        def is_ready() -> bool:
            future = queue[0][1] if queue else None
            return bool(queue) and (future is None or (future.done() and not future.exception()))

        def settle(most: int) -> None:
            """Waits until at most `most` tasks are left; what is ready is committed together."""
            while len(queue) > most or is_ready():
                ready = [queue.popleft()]
                while is_ready():
                    ready.append(queue.popleft())
                fresh: list[Record] = []
                for known, future, task in ready:
                    new = [] if future is None else [record | {"digest": task.digest} for record in _result(future)]
                    fresh += new
                    made.extend(known + new)
                    for record in known + new:
                        for meter in meters:
                            meter.add(record, total)
                if fresh:
                    # The files are renamed; their folders are synced here, each once, and then the records count.
                    for folder in sorted({str(Path(path).parent) for path in committed_files(fresh)}):
                        store.fsync_folder(self.out / folder)
                    self.journal.append(*fresh)
                for record in fresh:
                    self.done[index, record["part"]] = record
                    for path in record["released"]:
                        (self.out / path).unlink(missing_ok=True)
                for meter in meters:
                    meter.tell()

        # Every task has a thread of its own, so none of them needs several.
        with ExitStack() as stack:
            stack.enter_context(threads(1))
            stack.callback(lambda: [future.cancel() or wait([future]) for _, future, _ in queue if future])
            for task in tasks:
                known = [self.done[index, number] for number in task.numbers if (index, number) in self.done]
                if known and known[0]["digest"] != task.digest:
                    raise self.other_input(f"an input of '{task.source}' has changed")
                future = pool.submit(task.make, len(known)) if len(known) < len(task.numbers) else None
                queue.append((known, future, task))
                settle(self.context.ahead)
            settle(0)
        self.context.forget()
        return made

    def summary(self, work: RecordPass, parts: list[Part], made: list[Record]) -> dict[str, Any]:
        """What the stages of a record-wise pass say, once all of its parts are there."""
        context = self.context
        results: dict[str, Any] = {}
        for step in work.steps:
            counts: Counter[str] = Counter()
            for record in made:
                counts.update(record["stages"][str(step.index)]["counts"])
            if isinstance(step, Read):
                results[step.label] = step.result(counts)
                after = made_parts(work, parts, made)
                ledgers = [s["rejects"] for record in made for s in record["stages"].values() if s["rejects"]]
                check_unique(context, after, ledgers)
            elif isinstance(step, AugmentStep):
                results[step.label] = {"short": counts["short"]}
        files = [record["file"] for record in made if record["file"]]
        sketches = {f"sketch {name}": name for name in work.references} | ({"sketch": ""} if work.total else {})
        for note, name in sketches.items():
            sketch = Sketch()
            for file in files:
                sketch.merge(Sketch.from_bytes(context.files.note(file, note)))
            said: Record = {"sketch": base64.b64encode(sketch.to_bytes()).decode()}
            if name:

                def content(name: str = name) -> Iterator[npt.NDArray[np.uint8]]:
                    for file in files:
                        yield np.frombuffer(context.files.note(file, f"content {name}"), np.uint8).reshape(-1, 16)

                said["distinct"] = count_distinct(content, sketch.rows, context.memory)
            results[f"tokens of {name}" if name else ALL_TOKENS] = said
        return results

    def measure(self, step: MeasureStep, parts: list[Part]) -> dict[str, Any]:
        """The measures of the rows of all parts, and of the reference as it was read."""
        context = self.context
        sketch = self.sketch(ALL_TOKENS)

        def lost(ledger: Committed) -> list[Sketch]:
            pieces = context.files.groups(ledger, ["text"])
            return [Sketch.build(token_batch(*context.encode(piece))) for piece in pieces]

        for counts in context.map(lost, [ledger for part in parts for ledger in part.dropped]):
            for count in counts:
                sketch.subtract(count)

        def content() -> Iterator[npt.NDArray[np.uint8]]:
            return (records.ids_of(piece["content"]) for piece in context.pieces(parts, ["content"]))

        distinct = count_distinct(content, sketch.rows, context.memory)
        measures: dict[str, Any] = {}
        reference = None
        if step.stage.reference is not None:
            name = f"tokens of {step.stage.reference}"
            reference = self.sketch(name)
            if not reference.tokens:
                source = step.stage.reference
                raise InvalidInput(f"stage '{step.label}': all records of its reference '{source}' are empty")
            own = reference.measures(distinct=context.results[name]["distinct"], reference=reference)
            measures[step.stage.reference] = plain(own)
        measures[step.label] = plain(sketch.measures(distinct=distinct, reference=reference))
        return {"measures": measures}

    def sketch(self, name: str) -> Sketch:
        """Token counts that an earlier pass has left."""
        return Sketch.from_bytes(base64.b64decode(self.context.results[name]["sketch"]))

    def funnel_entry(self, step: Step, before: list[Part], after: list[Part], made: list[Record]) -> Record:
        """A stage's line of the funnel."""
        entries = [record["stages"][str(step.index)] for record in made]
        said = self.context.results.get(step.label, {})
        if isinstance(step, MeasureStep):
            rows = sum(part.rows for part in before)
            tokens, size = sum(part.tokens for part in before), sum(part.text_bytes for part in before)
            entries = [{**dict.fromkeys(("in", "out"), rows), "tokens": tokens, "text_bytes": size}]
        reasons: Counter[str] = Counter()
        for entry in entries:
            reasons.update(entry.get("reasons", {}))
        sums = {
            name: sum(entry.get(name, 0) for entry in entries)
            for name in ("in", "created", "out", "tokens", "text_bytes")
        }
        return {
            "name": step.label,
            "kind": step.kind,
            **{name: sums[name] for name in ("in", "created", "out")},
            "rejected": sum(reasons.values()),
            "reasons": dict(sorted(reasons.items())),
            "seconds": next(p["seconds"][step.label] for p in self.finished.values() if step.label in p["seconds"]),
            "tokens": sums["tokens"],
            "bytes": sums["text_bytes"],
            "examples": [*said.get("examples", ()), *(e for entry in entries for e in entry.get("examples", ()))],
            **{name: said[name] for name in ("short", "targets") if said.get(name)},
        }

    def write_shards(self, pool: ThreadPoolExecutor, parts: list[Part]) -> list[Record]:
        """Writes the final set."""
        index = len(self.steps)
        shards = Shards(self.context, index, parts)
        meter = _Meter(self, index, "output")
        meter.tell()
        made = self.in_order(pool, index, shards.tasks(), [meter], shards.count)
        meter.finish()
        if index not in self.finished:
            self.finished[index] = {
                "record": "stage",
                "stage": index,
                "parts": len(made),
                "seconds": {"output": round(meter.seconds, 3)},
                "results": {},
                "inputs": {},
            }
            self.journal.append(self.finished[index])
        return made

    def finish(self, funnel: list[Record], shards: list[Record]) -> Record:
        """Checks the sums, writes manifest and report, and closes the journal."""
        for before, stage in zip([None, *funnel], funnel, strict=False):
            check_sum(self.out, stage, before)
        rows = sum(shard["rows"] for shard in shards)
        if rows != funnel[-1]["out"]:
            raise CorruptRun(f"{self.out}: {funnel[-1]['out']} rows left the last stage, but {rows} were written")
        root = provenance.merkle_root(
            np.frombuffer(b"".join(bytes.fromhex(shard["merkle_root"]) for shard in shards), np.uint8)
        ).hex()
        shares = summed(shards)
        files = [
            {name: (shard["file"] | shard)[name] for name in ("path", "rows", "bytes", "sha256", "merkle_root")}
            for shard in shards
        ]
        head = self.journal.records[0]
        read = self.finished[self.passes[0].index]["inputs"]
        listed = [
            {**{name: item[name] for name in ("source", "path", "bytes")}, "sha256": read.get(str(n), item["sha256"])}
            for n, item in enumerate(head["inputs"])
        ]
        manifest = {
            "version": 1,
            "variegate": head["variegate"],
            "randomness": head["randomness"],
            "recipe_hash": head["recipe_hash"],
            "seed": self.recipe.seed,
            "tokenizer": self.context.tokenizer.fingerprint if self.context.wants_tokens else None,
            "inputs": listed,
            "ops": {step.ops_hash: step.spec for step in self.steps if step.spec},
            "stages": [
                {name: stage[name] for name in ("name", "kind", "in", "created", "out", "rejected", "reasons")}
                for stage in funnel
            ],
            "shares": shares,
            "format": self.recipe.output.format,
            "rows": rows,
            "bytes": sum(file["bytes"] for file in files),
            "files": files,
            "merkle_root": root,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        store.write_atomic(self.out / "manifest.json", text)
        store.write_atomic(self.out / "recipe.lock.yaml", self.lock_text(head, listed))
        report = self.report(head, funnel, manifest)
        store.write_atomic(self.out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        record = {
            "record": "finish",
            "sha256": {name: store.sha256_file(self.out / name) for name in DOCUMENTS},
            "rows": rows,
            "rejected": sum(stage["rejected"] for stage in funnel),
            "files": len(files),
            "merkle_root": root,
        }
        self.journal.append(record)
        self.tidy()
        return record

    def report(self, head: Record, funnel: list[Record], manifest: Record) -> Record:
        """What the report shows."""
        listed: dict[str, Record] = {}
        read = self.context.results["read"]
        for source in self.recipe.sources:
            entry = {"source": source.name, "kind": source.kind, "license": source.license}
            listed[source.name] = {**entry, "files": 0, "bytes": 0, "rows": 0, "rejected": 0}
        for number, item in enumerate(self.context.inputs):
            if item.source in listed and item.format:
                listed[item.source]["files"] += 1
                listed[item.source]["bytes"] += item.bytes
                listed[item.source]["rows"] += read["files"].get(str(number), 0)
                listed[item.source]["rejected"] += read["refused"].get(str(number), 0)
        measures: Record = {}
        for result in self.context.results.values():
            measures |= result.get("measures", {})
        output = {name: manifest[name] for name in ("format", "rows", "bytes", "files", "merkle_root")}
        return {
            "version": 1,
            "variegate": head["variegate"],
            "recipe_hash": head["recipe_hash"],
            "recipe": head["recipe"],
            "seed": self.recipe.seed,
            "workers": self.workers,
            "seconds": round(sum(sum(record["seconds"].values()) for record in self.finished.values()), 3),
            "inputs": list(listed.values()),
            "stages": funnel,
            "measures": measures,
            "shares": manifest["shares"],
            "output": output,
        }

    def told(self, finish: Record, *, already: bool, continued: bool) -> RunResult:
        """The result of a finished run."""
        seconds = time.monotonic() - self.started
        numbers = {name: finish[name] for name in ("rows", "rejected", "files", "merkle_root")}
        return RunResult(out=self.out, seconds=seconds, already_complete=already, continued=continued, **numbers)

    def lock_text(self, head: Record, listed: list[Record]) -> str:
        """What recipe.lock.yaml holds: the resolved recipe, then versions and inputs as comments of its own section."""
        import yaml

        versions = {
            "variegate": _core.__version__,
            "randomness": _core.RANDOMNESS_SCHEME,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        }
        locked = {"recipe": yaml.safe_load(head["recipe"]), "recipe_hash": head["recipe_hash"], "versions": versions}
        text: str = yaml.safe_dump({**locked, "inputs": listed}, sort_keys=False, allow_unicode=True, width=120)
        return text

    def say(self, event: Event) -> None:
        """Tells whoever listens, and whoever polls."""
        now = time.monotonic()
        if now - self.last_poll > 0.5 or event.finished:
            self.last_poll = now
            store.write_atomic(self.out / "progress.json", json.dumps(vars(event)) + "\n", durable=False)
        if self.progress is not None:
            self.progress(event)


class _Meter:
    """Counts what passes through a stage."""

    def __init__(self, engine: _Engine, index: int, label: str) -> None:
        self.engine, self.index, self.label = engine, index, label
        self.started = time.monotonic()
        self.parts_total: int | None = None
        self.parts = self.rows_in = self.rows_out = self.tokens = 0
        self.reasons: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.started

    def add(self, record: Record, parts_total: int | None) -> None:
        """Counts a part."""
        self.parts_total = parts_total
        self.parts += 1
        if "stages" in record:
            entry = record["stages"][str(self.index)]
        else:
            entry = {"in": record["rows"], "created": 0, "out": record["rows"], "reasons": {}} | record
        self.rows_in += entry["in"] + entry["created"]
        self.rows_out += entry["out"]
        self.tokens += entry["tokens"]
        self.reasons.update(entry["reasons"])

    def finish(self) -> None:
        """Says that the stage is done."""
        self.parts_total = self.parts
        self.tell(finished=True)

    def tell(self, *, finished: bool = False) -> None:
        """Says how far the stage is."""
        seconds = max(self.seconds, 1e-9)
        top = min(self.reasons, key=lambda reason: (-self.reasons[reason], reason)) if self.reasons else None
        event = Event(
            stage=self.label,
            index=self.index,
            stages=len(self.engine.steps) + 1,
            parts=self.parts,
            parts_total=self.parts_total,
            rows_in=self.rows_in,
            rows_out=self.rows_out,
            rejected=sum(self.reasons.values()),
            top_reason=top,
            seconds=round(seconds, 3),
            rows_per_second=round(self.rows_in / seconds, 1),
            tokens_per_second=round(self.tokens / seconds, 1),
            finished=finished,
        )
        self.engine.say(event)


def _result(future: Future[list[Record]]) -> list[Record]:
    """What a task made; one that asks for the end of the process is no success."""
    try:
        return future.result()
    except SystemExit as error:
        raise RuntimeError(f"a worker asked for the end of the process (exit status {error.code})") from error


def committed_files(journal: list[Record]) -> dict[str, Committed]:
    """All files that the records of a journal commit, by path."""
    found: dict[str, Committed] = {}
    for record in journal:
        if record["record"] == "part":
            ledgers = (entry["rejects"] for entry in record.get("stages", {}).values())
            found |= {file["path"]: file for file in (record["file"], *ledgers) if file}
    return found


def split_seconds(seconds: float, made: list[Record], steps: list[Step]) -> dict[str, float]:
    """The time of a pass, split over its stages by the time that each has used."""
    used = {step.label: sum(r["stages"][str(step.index)]["seconds"] for r in made) for step in steps}
    total = sum(used.values())
    return {label: round(seconds * (mine / total if total else 1 / len(used)), 3) for label, mine in used.items()}


def verify_file(out: Path, name: str, item: dict[str, Any]) -> None:
    """Compares a committed file with what the journal says of it.

    Raises:
        CorruptRun: If it is missing, shorter, longer or altered.
    """
    path = out / name
    if not path.is_file():
        raise CorruptRun(f"{path} is missing, though the journal has it")
    size = path.stat().st_size
    if size != item["bytes"]:
        what = "truncated" if size < item["bytes"] else "longer than it was"
        raise CorruptRun(f"{path} is {what}: {size} bytes instead of {item['bytes']}")
    if store.sha256_file(path) != item["sha256"]:
        raise CorruptRun(f"{path} was altered: its SHA-256 is not the one in the journal")


def check_sum(out: Path, stage: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Checks that a stage's ledger adds up.

    Raises:
        CorruptRun: With the numbers.
    """
    left, right = stage["in"] + stage["created"], stage["out"] + stage["rejected"]
    if left != right:
        sides = "in {in} + created {created} is not out {out} + rejected {rejected}".format(**stage)
        raise CorruptRun(f"{out}: the ledger of stage '{stage['name']}' does not add up: {sides}")
    if before is not None and before["out"] != stage["in"]:
        took = f"stage '{stage['name']}' took {stage['in']} records"
        raise CorruptRun(f"{out}: {took}, but '{before['name']}' passed on {before['out']}")
