"""Running a recipe: parts through stages, each committed before it counts.

Tasks of a stage run on threads, a bounded number ahead; their commits enter the journal in order. What is in the
journal is never done again, so that the same command on the same directory continues where it was.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import platform
import re
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variegate import _core, provenance
from variegate.errors import CorruptRun, InvalidInput, RunConflict
from variegate.recipe import Recipe, Templates
from variegate.recipe import load as load_recipe
from variegate.run import _inputs as inputs
from variegate.run import _records as records
from variegate.run import _stages as stages
from variegate.run import _store as store
from variegate.run._journal import Journal

__all__ = ["Context", "Event", "Part", "RunResult", "run"]

_REPEATED = (
    "source",
    "license",
    "kind",
    "ops",
    "generator",
    "generator_terms",
    "digital_source_type",
    "stage",
    "reason",
)
"""Columns with few different values: written with a dictionary."""
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


@dataclass(frozen=True)
class Part:
    """A committed part: its record in the journal."""

    record: dict[str, Any]

    @property
    def rows(self) -> int:
        """Rows in the part."""
        rows: int = self.record["out"]
        return rows


class Context:
    """What the stages of a run share."""

    def __init__(self, recipe: Recipe, listed: list[inputs.Input], out: Path) -> None:
        self.recipe, self.inputs, self.out = recipe, listed, out
        self.files = [item.path for item in listed]
        self.wants_tokens = stages.needs_tokens(recipe)
        spans = any(isinstance(stage, Templates) for stage in recipe.stages)
        kept = inputs.kept_types(recipe, listed)
        self.schema = records.schema(kept, tokens=self.wants_tokens, spans=spans)
        self.results: dict[str, dict[str, Any]] = {}
        self.read_parts: list[Part] = []
        self.barrier = threading.Lock()

    @cached_property
    def tokenizer(self) -> Any:
        """The recipe's tokenizer."""
        from variegate import Tokenizer

        name = self.recipe.tokenizer
        return Tokenizer.default() if name == "default" else Tokenizer(self.recipe.base / name)

    @cached_property
    def partial_tokens(self) -> tuple[int, ...]:
        """Tokens that are not whole characters: changing one by itself would leave no valid text."""
        return tuple(np.flatnonzero(self.tokenizer.whole_characters == 0).tolist())

    def tokenized(self, rows: pa.Table) -> pa.Table:
        """The rows with their tokens, where the run needs them."""
        if not self.wants_tokens:
            return rows
        from variegate.batch import TextBatch

        ids = records.flat(rows["id"]).to_numpy()
        batch = self.tokenizer.encode(TextBatch(*records.ragged(rows["text"]), ids=ids))
        column = records.token_lists(batch.tokens, batch.offsets)
        return rows.set_column(rows.column_names.index("tokens"), self.schema.field("tokens"), column)

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """Rows of a committed part."""
        path = part.record["path"]
        if path is None:
            table = self.schema.empty_table()
            return table if columns is None else table.select(columns)
        try:
            with pq.ParquetFile(self.out / path, pre_buffer=False) as file:
                return file.read(columns=columns, use_threads=False)
        except FileNotFoundError:
            raise CorruptRun(f"{self.out / path} is missing, though the journal has it") from None
        except (OSError, pa.ArrowException) as error:
            raise CorruptRun(f"{self.out / path} cannot be read: {str(error).splitlines()[0]}") from None


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
    started = time.monotonic()
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be 1 or more, not {workers}")
    workers = workers or _processors()
    stages.check_licenses(recipe)
    listed = [_hashed(item) for item in inputs.list_inputs(recipe)]
    folder = Path(out)
    context = Context(recipe, listed, folder)
    steps = stages.steps(context)
    made_folder = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {os.strerror(error.errno or 0)}") from None
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a directory")
    with store.lock(folder):
        strangers = [p.name for p in folder.iterdir() if p.name not in (".lock", "journal.log")]
        if strangers and not (folder / "journal.log").exists():
            raise RunConflict(f"{folder} holds other files ('{min(strangers)}') and no run: choose a new directory")
        fresh = not (folder / "journal.log").exists()
        journal = Journal(folder / "journal.log")
        try:
            engine = _Engine(context, steps, journal, workers, progress, started)
            try:
                return engine.run()
            except (InvalidInput, RunConflict):
                if fresh and engine.stage == 0:
                    journal.close()
                    _empty(folder)
                    if made_folder:
                        folder.rmdir()
                raise
        finally:
            journal.close()


def _hashed(item: inputs.Input) -> inputs.Input:
    try:
        return item if item.sha256 else dataclasses.replace(item, sha256=inputs.hash_file(item.where))
    except InvalidInput:
        return item


def _processors() -> int:
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
        steps: list[stages.Step],
        journal: Journal,
        workers: int,
        progress: Callable[[Event], None] | None,
        started: float,
    ) -> None:
        self.context, self.steps, self.journal = context, steps, journal
        self.workers, self.progress, self.started = workers, progress, started
        self.out, self.recipe = context.out, context.recipe
        self.stage = 0
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        self.finished: dict[int, dict[str, Any]] = {}
        self.last_poll = 0.0

    def run(self) -> RunResult:
        """Does what is left to do."""
        head = self.head()
        continued = bool(self.journal.records)
        if continued:
            self.same_run(self.journal.records[0], head)
            last = self.journal.records[-1]
            if last["record"] == "finish":
                return self.told(last, already=True, continued=True)
        self.recover()
        if not continued:
            self.journal.append(head)
        for record in self.journal.records:
            if record["record"] == "part":
                self.done[record["stage"], record["part"]] = record
            elif record["record"] == "stage":
                self.finished[record["stage"]] = record
        for name in ("stages", "rejects", "data"):
            (self.out / name).mkdir(exist_ok=True)
        store.write_atomic(self.out / "recipe.lock.yaml", self.lock_text(head))
        parts: list[Part] = []
        funnel: list[dict[str, Any]] = []
        with ThreadPoolExecutor(self.workers, thread_name_prefix="variegate") as pool:
            for index, step in enumerate(self.steps):
                before = sum(part.rows for part in parts)
                parts, entry = self.run_stage(pool, index, step, parts)
                if index == 0:
                    self.context.read_parts = parts
                    before = entry["in"]
                funnel.append({"name": step.label, "kind": step.kind, **entry, "in": before})
            shards = self.write_shards(pool, len(self.steps), parts)
        finish = self.finish(head, funnel, shards)
        return self.told(finish, already=False, continued=continued)

    def head(self) -> dict[str, Any]:
        """The first record of the journal: what makes this run this run."""
        return {
            "record": "start",
            "format": 1,
            "variegate": _core.__version__,
            "randomness": _core.RANDOMNESS_SCHEME,
            "recipe_hash": self.recipe.hash(),
            "recipe": self.recipe.to_yaml(),
            "inputs": [item.to_json() for item in self.context.inputs],
        }

    def same_run(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Refuses to continue a run of something else, and shows the difference."""
        if old.get("record") != "start":
            raise CorruptRun(f"{self.out / 'journal.log'} does not begin with the start of a run")
        if old["recipe_hash"] != new["recipe_hash"]:
            lines = difflib.unified_diff(old["recipe"].splitlines(), new["recipe"].splitlines(), n=0, lineterm="")
            changes = "\n".join(f"  {line}" for line in list(lines)[2:] if not line.startswith("@@"))
            raise RunConflict(f"{self.out} belongs to another recipe: choose a new directory, or undo\n{changes}")
        before = {(item["source"], item["path"]): item["sha256"] for item in old["inputs"]}
        after = {(item["source"], item["path"]): item["sha256"] for item in new["inputs"]}
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                what = "is new" if key not in before else "is gone" if key not in after else "has changed"
                message = f"input {key[1]} of '{key[0]}' {what} since this run began: choose a new directory"
                raise RunConflict(f"{self.out}: {message}")
        for name in ("variegate", "randomness"):
            if old[name] != new[name]:
                message = f"was begun with {name} {old[name]}, and this is {new[name]}: choose a new directory"
                raise RunConflict(f"{self.out} {message}")

    def recover(self) -> None:
        """Deletes what was never committed, and checks what was."""
        committed: dict[str, dict[str, Any]] = {}
        for record in self.journal.records:
            if record["record"] == "part":
                for item in (record, record["rejects"]):
                    if item and item["path"]:
                        committed[item["path"]] = item
        found = [path for top in ("stages", "rejects", "data") for path in sorted((self.out / top).rglob("part-*"))]
        if found and not self.journal.records:
            message = f"{self.out / 'journal.log'} is damaged at its start, though there are parts"
            raise CorruptRun(f"{message}: choose a new directory")
        for path in found:
            if path.relative_to(self.out).as_posix() not in committed and _PART.fullmatch(path.name):
                path.unlink()
        for path in self.out.rglob(f"{store.TEMPORARY}*"):
            path.unlink()
        for name, item in committed.items():
            verify_file(self.out, name, item)

    def run_stage(
        self, pool: ThreadPoolExecutor, index: int, step: stages.Step, parts: list[Part]
    ) -> tuple[list[Part], dict[str, Any]]:
        """Does one stage; returns the parts it passes on and its line of the funnel."""
        self.stage = index
        meter = _Meter(self, index, step.label, step.count(parts))
        if index in self.finished:
            numbers = sorted(number for stage, number in self.done if stage == index)
            made = [self.done[index, number] for number in numbers]
        else:
            meter.tell(finished=False)
            made = list(self.run_tasks(pool, index, step, parts, meter))
        outputs = step.output(parts, [Part(record) for record in made])
        if index not in self.finished:
            result = step.result(outputs)
            meter.close()
            self.finished[index] = {
                "record": "stage",
                "stage": index,
                "name": step.label,
                "parts": len(made),
                "seconds": round(meter.seconds, 3),
                "result": result,
            }
            self.journal.append(self.finished[index])
        self.context.results[step.label] = self.finished[index]["result"]
        reasons: Counter[str] = Counter()
        for record in made:
            reasons.update(record["reasons"])
        entry: dict[str, Any] = {
            "in": sum(record["in"] for record in made),
            "created": sum(record["created"] for record in made),
            "out": sum(part.rows for part in outputs),
            "rejected": sum(reasons.values()),
            "reasons": dict(sorted(reasons.items())),
            "seconds": self.finished[index]["seconds"],
            "tokens": sum(part.record["tokens"] for part in outputs),
            "bytes": sum(part.record["text_bytes"] for part in outputs),
            "examples": [example for record in made for example in record["examples"]],
        }
        return outputs, entry

    def run_tasks(
        self, pool: ThreadPoolExecutor, index: int, step: stages.Step, parts: list[Part], meter: _Meter
    ) -> Iterator[dict[str, Any]]:
        """Runs the tasks of a stage a few ahead, and commits them in order."""

        def work(number: int, task: stages.Task) -> dict[str, Any]:
            return self.commit_part(index, step, number, task())

        yield from self.in_order(pool, index, step.tasks(parts), work, meter)

    def in_order(
        self,
        pool: ThreadPoolExecutor,
        index: int,
        tasks: Iterator[tuple[int, Any]],
        work: Callable[[int, Any], dict[str, Any]],
        meter: _Meter,
    ) -> Iterator[dict[str, Any]]:
        waiting: deque[Future[dict[str, Any]] | dict[str, Any]] = deque()

        def first() -> dict[str, Any]:
            head = waiting.popleft()
            if isinstance(head, Future):
                record = head.result()
                self.journal.append(record)
                self.done[index, record["part"]] = record
                head = record
            meter.add(head)
            return head

        try:
            for number, task in tasks:
                known = self.done.get((index, number))
                waiting.append(known if known is not None else pool.submit(work, number, task))
                if len(waiting) > 2 * self.workers:
                    yield first()
            while waiting:
                yield first()
        finally:
            for item in waiting:
                if isinstance(item, Future):
                    item.cancel()
            for item in waiting:
                if isinstance(item, Future) and not item.cancelled():
                    item.exception()

    def commit_part(self, index: int, step: stages.Step, number: int, outcome: stages.Outcome) -> dict[str, Any]:
        """Writes what a task made; returns the journal record that will make it count."""
        rows = outcome.rows if outcome.rows is not None else self.context.schema.empty_table()
        record: dict[str, Any] = {"record": "part", "stage": index, "part": number, "path": None}
        if len(rows):
            record |= self.write(f"stages/{index:02d}-{step.label}", number, rows, "parquet")
        counts = records.token_counts(rows)
        reasons: dict[str, int] = {}
        rejects = None
        if outcome.rejects is not None and len(outcome.rejects):
            rejects = self.write(f"rejects/{index:02d}-{step.label}", number, outcome.rejects, "parquet")
            counted = pc.value_counts(outcome.rejects["reason"]).to_pylist()
            reasons = {item["values"]: item["counts"] for item in sorted(counted, key=lambda item: item["values"])}
        return record | {
            "in": outcome.seen,
            "created": outcome.created,
            "out": len(rows),
            "rejects": rejects,
            "reasons": reasons,
            "tokens": 0 if counts is None else int(counts.sum()),
            "text_bytes": int(records.text_bytes(rows["text"]).sum()),
            "examples": outcome.examples,
        }

    def write(self, folder: str, number: int, rows: pa.Table, suffix: str) -> dict[str, Any]:
        """Commits a file; returns what the journal says of it."""
        where = self.out / folder
        where.mkdir(exist_ok=True)

        def parquet(file: BinaryIO) -> None:
            write_parquet(rows, file, final=folder == "data")

        def lines(file: BinaryIO) -> None:
            file.write(pa.compress(records.to_jsonl(rows), codec="zstd", asbytes=True))

        path, digest, size = store.commit(
            where, f"part-{number:05d}", suffix, parquet if suffix == "parquet" else lines
        )
        return {"path": path.relative_to(self.out).as_posix(), "rows": len(rows), "sha256": digest, "bytes": size}

    def write_shards(self, pool: ThreadPoolExecutor, index: int, parts: list[Part]) -> list[dict[str, Any]]:
        """Writes the final set."""
        self.stage = index
        step = self.recipe.output.rows_per_shard
        meter = _Meter(self, index, "output", -(-sum(part.rows for part in parts) // step))

        def work(number: int, pieces: list[tuple[Part, int, int]]) -> dict[str, Any]:
            tables = [self.context.read(part).slice(start, stop - start) for part, start, stop in pieces]
            return self.commit_shard(index, number, pa.concat_tables(tables))

        made = list(self.in_order(pool, index, _shards(parts, step), work, meter))
        if index not in self.finished:
            meter.close()
            record = {"record": "stage", "stage": index, "name": "output", "parts": len(made)}
            self.finished[index] = {**record, "seconds": round(meter.seconds, 3), "result": {}}
            self.journal.append(self.finished[index])
        return made

    def commit_shard(self, index: int, number: int, rows: pa.Table) -> dict[str, Any]:
        """Writes one file of the final set, with its Merkle root and its shares."""
        final = records.output_table(rows)
        root = provenance.merkle_root(records.output_hashes(final))
        sizes = records.text_bytes(rows["text"])
        tokens = records.token_counts(rows)
        shares: dict[str, dict[str, dict[str, int]]] = {}
        for name in ("kind", "source", "license", "generation"):
            codes = records.flat(rows[name]).dictionary_encode()
            index_of = codes.indices.to_numpy()
            values = codes.dictionary.to_pylist()
            shares[name] = {
                str(value): {
                    "rows": int((index_of == i).sum()),
                    "bytes": int(sizes[index_of == i].sum()),
                    **({} if tokens is None else {"tokens": int(tokens[index_of == i].sum())}),
                }
                for i, value in sorted(enumerate(values), key=lambda item: str(item[1]))
            }
        return {
            "record": "part",
            "stage": index,
            "part": number,
            **self.write("data", number, final, self.recipe.output.format),
            "merkle_root": root.hex(),
            "in": len(rows),
            "created": 0,
            "out": len(rows),
            "rejects": None,
            "reasons": {},
            "tokens": 0 if tokens is None else int(tokens.sum()),
            "text_bytes": int(sizes.sum()),
            "shares": shares,
            "examples": [],
        }

    def finish(
        self, head: dict[str, Any], funnel: list[dict[str, Any]], shards: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Checks the sums, writes manifest and report, and closes the journal."""
        for before, stage in zip([None, *funnel], funnel, strict=False):
            check_sum(self.out, stage, before)
        rows = sum(shard["rows"] for shard in shards)
        if rows != funnel[-1]["out"]:
            raise CorruptRun(f"{self.out}: {funnel[-1]['out']} rows left the last stage, but {rows} were written")
        root = provenance.merkle_root(
            np.frombuffer(b"".join(bytes.fromhex(shard["merkle_root"]) for shard in shards), np.uint8)
        ).hex()
        shares = _summed(shards)
        files = [{name: shard[name] for name in ("path", "rows", "bytes", "sha256", "merkle_root")} for shard in shards]
        manifest = {
            "version": 1,
            "variegate": head["variegate"],
            "randomness": head["randomness"],
            "recipe_hash": head["recipe_hash"],
            "seed": self.recipe.seed,
            "tokenizer": self.context.tokenizer.fingerprint if self.context.wants_tokens else None,
            "inputs": head["inputs"],
            "ops": {step.ops_hash: step.spec for step in self.steps if step.spec},
            "stages": [
                {name: stage[name] for name in ("name", "kind", "in", "created", "out", "rejected", "reasons")}
                for stage in funnel
            ],
            "shares": shares,
            "format": self.recipe.output.format,
            "rows": rows,
            "bytes": sum(shard["bytes"] for shard in shards),
            "files": files,
            "merkle_root": root,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        store.write_atomic(self.out / "manifest.json", text)
        report = self.report(head, funnel, manifest)
        store.write_atomic(self.out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        record = {
            "record": "finish",
            "manifest": store.sha256_file(self.out / "manifest.json"),
            "rows": rows,
            "rejected": sum(stage["rejected"] for stage in funnel),
            "files": len(files),
            "merkle_root": root,
        }
        self.journal.append(record)
        (self.out / "progress.json").unlink(missing_ok=True)
        return record

    def report(self, head: dict[str, Any], funnel: list[dict[str, Any]], manifest: dict[str, Any]) -> dict[str, Any]:
        """What the report shows."""
        listed: dict[str, dict[str, Any]] = {}
        counts = self.context.results["read"].get("files", {})
        refused: Counter[str] = Counter()
        for (stage, _), record in self.done.items():
            if stage == 0 and record["rejects"]:
                refused.update(
                    pq.read_table(self.out / record["rejects"]["path"], columns=["file"])["file"].to_pylist()
                )
        for source in self.recipe.sources:
            entry = {"source": source.name, "kind": source.kind, "license": source.license}
            listed[source.name] = {**entry, "files": 0, "bytes": 0, "rows": 0, "rejected": 0}
        for number, item in enumerate(self.context.inputs):
            if item.source in listed and item.format:
                listed[item.source]["files"] += 1
                listed[item.source]["bytes"] += item.bytes
                listed[item.source]["rows"] += counts.get(str(number), 0)
                listed[item.source]["rejected"] += refused[item.path]
        measures: dict[str, Any] = {}
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
            "seconds": round(sum(record["seconds"] for record in self.finished.values()), 3),
            "inputs": list(listed.values()),
            "stages": funnel,
            "measures": measures,
            "shares": manifest["shares"],
            "output": output,
        }

    def told(self, finish: dict[str, Any], *, already: bool, continued: bool) -> RunResult:
        """The result of a finished run."""
        seconds = time.monotonic() - self.started
        numbers = {name: finish[name] for name in ("rows", "rejected", "files", "merkle_root")}
        return RunResult(out=self.out, seconds=seconds, already_complete=already, continued=continued, **numbers)

    def lock_text(self, head: dict[str, Any]) -> str:
        """What recipe.lock.yaml holds: the resolved recipe, then versions and inputs as comments of its own section."""
        import yaml

        versions = {
            "variegate": head["variegate"],
            "randomness": head["randomness"],
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        }
        locked = {"recipe": self.recipe.to_dict(), "recipe_hash": head["recipe_hash"], "versions": versions}
        text: str = yaml.safe_dump({**locked, "inputs": head["inputs"]}, sort_keys=False, allow_unicode=True, width=120)
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

    def __init__(self, engine: _Engine, index: int, label: str, parts_total: int | None) -> None:
        self.engine, self.index, self.label, self.parts_total = engine, index, label, parts_total
        self.started = time.monotonic()
        self.parts = self.rows_in = self.rows_out = self.tokens = self.new_rows = self.new_tokens = 0
        self.reasons: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.started

    def add(self, record: dict[str, Any]) -> None:
        """Counts a part."""
        self.parts += 1
        self.rows_in += record["in"] + record["created"]
        self.rows_out += record["out"]
        self.tokens += record["tokens"]
        self.reasons.update(record["reasons"])
        self.tell(finished=False)

    def close(self) -> None:
        """Says that the stage is done."""
        self.tell(finished=True)

    def tell(self, *, finished: bool) -> None:
        seconds = max(self.seconds, 1e-9)
        top = min(self.reasons, key=lambda reason: (-self.reasons[reason], reason)) if self.reasons else None
        event = Event(
            stage=self.label,
            index=self.index,
            stages=len(self.engine.steps) + 1,
            parts=self.parts,
            parts_total=self.parts if finished else self.parts_total,
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


def write_parquet(rows: pa.Table, file: BinaryIO, *, final: bool) -> None:
    """Writes a table the same way each time."""
    dictionary = [name for name in _REPEATED if name in rows.column_names]
    if final:
        dictionary = [f"provenance.{name}" for name in _REPEATED if name in provenance.FIELDS]
    pq.write_table(
        rows,
        file,
        compression="zstd",
        compression_level=3 if final else 1,
        use_dictionary=dictionary,
        write_statistics=final,
        row_group_size=1 << 16,
    )


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


def _shards(parts: list[Part], step: int) -> Iterator[tuple[int, list[tuple[Part, int, int]]]]:
    """Which rows of which parts make each file of the final set."""
    number, room = 0, step
    pieces: list[tuple[Part, int, int]] = []
    for part in parts:
        start = 0
        while start < part.rows:
            stop = min(part.rows, start + room)
            pieces.append((part, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield number, pieces
                number, room, pieces = number + 1, step, []
    if pieces:
        yield number, pieces


def _summed(shards: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """The shares of all shards together."""
    total: dict[str, dict[str, Counter[str]]] = {}
    for shard in shards:
        for name, values in shard["shares"].items():
            for value, counts in values.items():
                total.setdefault(name, {}).setdefault(value, Counter()).update(counts)
    return {name: {value: dict(values[value]) for value in sorted(values)} for name, values in total.items()}
