"""Faults for runs: kills, full disks, failing calls, stopped processes, and what must be true after each.

A `Zygote` imports the library once and forks a process for every run, so that a run starts in milliseconds and can be
killed like any other. `Files` remembers what a run has committed and holds later runs to it. The C source beside this
file is preloaded into the zygote where there is a compiler: it logs system calls, makes them fail, and kills at the
nth of them (`shim`).

This file is also the zygote's program: it relies on `variegate.run.run` and `check`, on the journal's framing, on
`_inputs.UNIT_BYTES` and `TemplatesStep.rows_per_part` to make parts small, and on pyarrow's `ParquetWriter` to break
a worker, and on nothing else of the engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
"""Seconds after which a run counts as hanging; they take about one."""

RECIPE = """\
version: 1
seed: 7
sources:
  - {name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human}
  - {name: made, path: made.jsonl, license: MIT, kind: generated, generation: 1, generator: m@1}
stages:
  - augment: {variants: 2, ops: [{TokenDropout: {rate: 0.02}}, {KeyboardTypo: {rate: 0.01}}]}
  - templates:
      name: sums
      count: 200
      license: CC0-1.0
      grammar: "task = what is {a=int 2..99} plus {b=int 2..99}? <answer>é{=a+b}</answer>"
  - dedup: {threshold: 0.8}
  - measure: {reference: real}
mix: {max_synthetic: 0.6, retain_real: 0.9}
output: {rows_per_shard: 60}
"""
WORDS = ["alpha", "beta", "gämma", "delta", "epsilon", "漢字", "zeta\n", "eta", "theta", "iota", "kappa", "lambda"]


def case(folder: Path, *, rows: int = 120) -> Path:
    """Writes the recipe and its inputs into a folder; returns the recipe's path."""
    draw = random.Random(11)

    def said() -> str:
        return " ".join(draw.choices(WORDS, k=60))

    texts = [said() for _ in range(rows)]
    copies = [*texts[: rows // 10], *(said() for _ in range(rows // 10))]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        ("in.jsonl", [{"text": text, "id": n} for n, text in enumerate([*texts, *texts[: rows // 10]])]),
        ("made.jsonl", [{"text": text} for text in copies]),
    ):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


# What a run left.


def content(out: Path) -> dict[str, str]:
    """What must not depend on how a run went: the data files and the manifest, by name and SHA-256."""
    files = [*sorted((out / "data").iterdir()), out / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def journal(out: Path) -> tuple[list[dict[str, Any]], int, int]:
    """The records of a journal, the bytes they take, and the bytes it has; none where there is no journal."""
    from variegate.run._journal import replay

    path = out / "journal.log"
    data = path.read_bytes() if path.exists() else b""
    records, whole = replay(data)
    return records, whole, len(data)


def files_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every description of a file in a journal record, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str) and "sha256" in value and "bytes" in value:
            yield value
        for inner in value.values():
            yield from files_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from files_in(inner)


def committed(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The files that a journal commits, by path; those of its start are inputs, and not the run's."""
    return {item["path"]: item for record in records if record["record"] != "start" for item in files_in(record)}


def ledger_adds_up(out: Path) -> None:
    """Counts the rows of data and rejects again, and holds the manifest's sums to them."""
    import pyarrow.parquet as pq

    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    kept = sum(pq.read_metadata(path).num_rows for path in (out / "data").glob("*.parquet"))
    rejected: Counter[str] = Counter()
    for path in (out / "rejects").rglob("*.parquet"):
        rejected.update(pq.read_table(path, columns=["stage"])["stage"].to_pylist())
    before = None
    for stage in manifest["stages"]:
        assert stage["in"] + stage["created"] == stage["out"] + stage["rejected"], stage
        assert stage["rejected"] == rejected[stage["name"]] == sum(stage["reasons"].values()), stage
        assert before is None or before["out"] == stage["in"], (before, stage)
        before = stage
    assert before is not None
    assert before["out"] == manifest["rows"] == kept


class Files:
    """The committed files of a run directory, as they were when they were first seen.

    A file that was committed is never touched again. It may only go, and for good, if it lies under stages/: its rows
    are in later files then.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.records: list[dict[str, Any]] = []
        self.seen: dict[str, tuple[int, int, int, str]] = {}
        self.gone: set[str] = set()

    def look(self) -> list[dict[str, Any]]:
        """Compares what is there with what was; only while no process runs. Returns the journal's records."""
        records, whole, size = journal(self.out)
        assert whole <= size
        assert records[: len(self.records)] == self.records, "a record of the journal changed or went"
        self.records = records
        for name, item in committed(records).items():
            path = self.out / name
            if not path.exists():
                assert name.startswith("stages/"), f"{name} was committed and is gone"
                self.gone.add(name)
                continue
            assert name not in self.gone, f"{name} was released and came back"
            status = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert (digest, status.st_size) == (item["sha256"], item["bytes"]), f"{name} is not what was committed"
            found = (status.st_ino, status.st_mtime_ns, status.st_size, digest)
            assert self.seen.setdefault(name, found) == found, f"{name} was written again"
        return records

    def finished(self, reference: dict[str, str]) -> None:
        """Looks a last time, and holds the finished run to another one's content."""
        from variegate.run import check

        records = self.look()
        _, whole, size = journal(self.out)
        assert whole == size
        assert records[-1]["record"] == "finish"
        assert content(self.out) == reference
        check(self.out)
        ledger_adds_up(self.out)
        assert not list(self.out.rglob(".tmp-*"))


# Processes.


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status (negative for a signal), what it told, what it printed."""

    status: int
    told: dict[str, Any]
    printed: str

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.status == -signal.SIGKILL

    def ok(self) -> Outcome:
        """Itself, if the process ended well."""
        assert self.status == 0, self
        assert "error" not in self.told, self
        return self


class Child:
    """A process of the zygote's."""

    def __init__(self, zygote: Zygote, pid: int, pipe: int, printed: Any) -> None:
        self.zygote, self.pid, self.pipe, self.printed = zygote, pid, pipe, printed
        self.told = b""
        self.outcome: Outcome | None = None

    def ended(self, within: float = 0.0) -> bool:
        """Whether the process is gone; waits as long as asked."""
        end = time.monotonic() + within
        while self.outcome is None and select.select([self.pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            data = os.read(self.pipe, 1 << 16)
            self.told += data
            if not data:
                self.finish()
        return self.outcome is not None

    def finish(self) -> None:
        os.close(self.pipe)
        status = self.zygote.ask({"reap": self.pid})["status"]
        self.printed.seek(0)
        printed = self.printed.read().decode(errors="replace")
        self.printed.close()
        self.outcome = Outcome(status, json.loads(self.told or b"{}"), printed)

    def wait(self, timeout: float = TIMEOUT) -> Outcome:
        """Waits for the end; a process that does not come to one is killed, and an error."""
        if not self.ended(timeout):
            self.kill()
            raise AssertionError(f"a run did not end in {timeout:g} seconds")
        assert self.outcome is not None
        return self.outcome

    def signal(self, number: int) -> None:
        """Sends a signal, unless the process was seen to be gone: until then its pid stays its own."""
        if not self.ended():
            os.kill(self.pid, number)

    def kill(self) -> Outcome:
        """SIGKILL, and what became of it: the process may have ended just before."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self) -> bool:
        """SIGSTOP; whether it has stopped, and not ended before."""
        self.signal(signal.SIGSTOP)
        return self.outcome is None and self.zygote.ask({"stopped": self.pid})["stopped"]

    def until(self, journal: Path, size: int) -> bool:
        """Waits until a journal has so many bytes; False if the process ended first."""
        end = time.monotonic() + TIMEOUT
        while not (journal.exists() and journal.stat().st_size >= size):
            if self.ended():
                return False
            assert time.monotonic() < end, "a run neither got there nor ended"
            time.sleep(0.0003)
        return True


class Zygote:
    """A process that has the library imported, and no threads of its own, and forks one for each run."""

    def __init__(self, shim: Path | None = None) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TERM": "dumb"}
        if shim is not None:
            environment["LD_PRELOAD"] = str(shim)
        command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self.socket = ours
        self.shim = shim

    def ask(self, question: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """One question, one answer."""
        socket.send_fds(self.socket, [json.dumps(question).encode()], list(descriptors))
        answer = self.socket.recv(1 << 16)
        if not answer:
            raise RuntimeError("the zygote is gone")
        told: dict[str, Any] = json.loads(answer)
        return told

    def start(self, recipe: Path, out: Path, **job: Any) -> Child:
        """Starts a run; see `_child` for what a job may ask."""
        read, write = os.pipe()
        printed = tempfile.TemporaryFile()  # noqa: SIM115
        question = {"recipe": str(recipe), "out": str(out), **job}
        pid = self.ask(question, (write, printed.fileno()))["pid"]
        os.close(write)
        return Child(self, pid, read, printed)

    def run(self, recipe: Path, out: Path, **job: Any) -> Outcome:
        """Starts a run and waits for its end."""
        return self.start(recipe, out, **job).wait()

    def close(self) -> None:
        """Ends the zygote."""
        self.socket.close()
        self.process.wait(TIMEOUT)


def serve(handle: int) -> None:
    """The zygote: forks when asked, reaps when asked; a child returns from here with its job and does it."""
    connection = socket.socket(fileno=handle)
    ended: dict[int, int] = {}
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 2)
        if not data:
            return
        question = json.loads(data)
        if "stopped" in question:
            pid, status = os.waitpid(question["stopped"], os.WUNTRACED)
            answer = {"stopped": os.WIFSTOPPED(status)}
            if not answer["stopped"]:
                ended[pid] = status
        elif "reap" in question:
            pid = question["reap"]
            status = ended.pop(pid) if pid in ended else os.waitpid(pid, 0)[1]
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                connection.close()
                sys.exit(_child(question, *descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            answer = {"pid": pid}
        connection.sendall(json.dumps(answer).encode())


def _child(job: dict[str, Any], pipe: int, printed: int) -> int:
    """Does a job and tells of it through a pipe whose end is the process's end.

    Keys of a job: `recipe`, `out`, `workers`; `command` (a command line of `variegate` instead of a call of `run`);
    `shim` (a spec); `humble` (root obeys the modes of files); `failure` and `at` (what the nth write of a worker thread
    raises).
    """
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    from variegate.run import _inputs, _stages

    _inputs.UNIT_BYTES = 8192
    _stages.TemplatesStep.rows_per_part = 40
    told: dict[str, Any] = {}
    try:
        if job.get("humble"):
            _drop_capabilities()
        if job.get("failure"):
            _break_worker(job["failure"], job["at"], told)
        if job.get("shim"):
            assert ctypes.CDLL(None).faults_arm(job["shim"].encode()) == 0
        if job.get("command"):
            return _command(job["command"])
        from variegate.run import run

        result = run(job["recipe"], job["out"], workers=job.get("workers", 2))
        told |= {"rows": result.rows, "continued": result.continued, "complete": result.already_complete}
    except BaseException as error:
        traceback.print_exc()
        told |= {"error": type(error).__name__, "message": str(error), "errno": getattr(error, "errno", None)}
        return 1
    else:
        return 0
    finally:
        os.write(pipe, json.dumps(told).encode())


def _drop_capabilities() -> None:
    """Takes from root what lets it pass by the modes of files; does nothing to other users."""
    if os.geteuid() == 0:
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, data) == 0


def _command(words: list[str]) -> int:
    """`variegate` with these words; its exit code."""
    from variegate import cli

    sys.argv = ["variegate", *words]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


class Panic(BaseException):
    """As pyo3's PanicException: no Exception, so that nothing catches it by the way."""


def _break_worker(failure: str, at: int, told: dict[str, Any]) -> None:
    """Makes the nth write of a Parquet file outside the main thread fail, once, while the file is half written."""
    import pyarrow.parquet as pq

    real, lock, left = pq.ParquetWriter.write_table, threading.Lock(), [at]

    def write_table(self: Any, *args: Any, **named: Any) -> Any:
        real(self, *args, **named)
        if threading.current_thread() is threading.main_thread():
            return
        with lock:
            left[0] -= 1
            now = left[0] == 0
        if now:
            told["broken"] = True
            if failure == "os._exit":
                os._exit(7)
            raised: dict[str, BaseException] = {
                "MemoryError": MemoryError("no more"),
                "SystemExit": SystemExit(0),
                "KeyboardInterrupt": KeyboardInterrupt(),
                "RecursionError": RecursionError("too deep"),
                "Panic": Panic("explicit panic"),
            }
            raise raised[failure]

    pq.ParquetWriter.write_table = write_table


# System calls.


def build_shim(folder: Path) -> Path | None:
    """Compiles the shim; None where that cannot be."""
    if sys.platform != "linux":
        return None
    source, library = Path(__file__).with_suffix(".c"), folder / "faults.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-lpthread"]
    try:
        built = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    assert built.returncode == 0, built.stderr
    return library


def shim(root: Path, **keys: Any) -> str:
    """A spec of the shim, as its source explains them."""
    return ";".join(f"{key}={value}" for key, value in {"root": root, **keys}.items())


@dataclass(frozen=True)
class Call:
    """A line of the shim's log; `result` is -errno where the call failed."""

    op: str
    kind: str
    result: int
    offset: int
    path: str
    other: str


def calls(log: Path) -> list[Call]:
    """The calls of a log, in order."""
    found = []
    for line in log.read_text("utf-8").splitlines():
        op, kind, result, offset, path, other = line.split("\t")
        found.append(Call(op, kind, int(result), int(offset), path, other))
    return found


def disorder(made: list[Call], out: Path) -> list[str]:
    """What a run's calls lack of the protocol, one line for each lack.

    For every committed file: written and synced under a temporary name, renamed, its folder synced, then the record
    that commits it written, and synced before anything builds on it: before any file goes, and before the end.
    """
    lacks = []
    done = [call for call in made if call.result >= 0]
    log = str(out / "journal.log")
    writes = [(at, c.offset, c.offset + c.result) for at, c in enumerate(done) if c.op == "write" and c.path == log]
    syncs = [at for at, c in enumerate(done) if c.op == "sync" and c.path == log]
    if writes and not any(at > writes[-1][0] for at in syncs):
        lacks.append("the journal's end is not synced")
    for name, (start, stop) in _extents(out).items():
        commits = [at for at, first, last in writes if first < stop and last > start]
        if not commits:
            lacks.append(f"{name}: no write of its record was seen")
            continue
        full = str(out / name)
        renames = [at for at, c in enumerate(done) if c.op == "rename" and c.other == full and at < commits[0]]
        if not renames:
            lacks.append(f"{name}: not renamed before its record was written")
            continue
        rename = renames[-1]
        temporary = done[rename].path
        mine = [at for at in range(rename) if done[at].path == temporary]
        mine = [at for at in mine if not any(done[i].op == "rename" for i in mine if i > at)]
        written = [at for at in mine if done[at].op == "write"]
        synced = [at for at in mine if done[at].op == "sync"]
        if done[rename].kind != "t" or not written:
            lacks.append(f"{name}: not written under a temporary name")
        if not synced or (written and synced[-1] < written[-1]):
            lacks.append(f"{name}: not synced between its last write and its rename")
        folder = str(Path(full).parent)
        if not any(done[at].op == "sync" and done[at].path == folder for at in range(rename, commits[0])):
            lacks.append(f"{name}: its folder is not synced between the rename and the record")
        if not any(at > commits[-1] for at in syncs):
            lacks.append(f"{name}: its record is not synced")
    for at, call in enumerate(done):
        if call.op == "unlink" and call.kind == "o" and call.path.endswith((".parquet", ".jsonl.zst")):
            last = max((w for w, _, _ in writes if w < at), default=-1)
            if not any(last < s < at for s in syncs):
                lacks.append(f"{call.path}: deleted before the journal was synced")
    return lacks


def loose_folders(made: list[Call], out: Path) -> list[str]:
    """Folders that a run made and did not sync into their parents before a record built on them."""
    lacks = []
    done = [call for call in made if call.result >= 0]
    log = str(out / "journal.log")
    writes = [(at, c.offset, c.offset + c.result) for at, c in enumerate(done) if c.op == "write" and c.path == log]
    for at, call in enumerate(done):
        below = [extent for name, extent in _extents(out).items() if (out / name).is_relative_to(call.path)]
        if call.op != "mkdir" or not below:
            continue
        commits = [w for w, first, last in writes if any(first < stop and last > start for start, stop in below)]
        parent = str(Path(call.path).parent)
        synced = [i for i in range(at, min(commits)) if done[i].op == "sync" and done[i].path == parent]
        if not synced:
            lacks.append(f"{call.path}: made, and not synced into {parent} before a file in it counts")
    return lacks


def _extents(out: Path) -> dict[str, tuple[int, int]]:
    """Where in the journal the record of each committed file lies; that of the finish commits the manifest."""
    from variegate.run._journal import MAGIC, frame

    found, at = {}, len(MAGIC)
    for record in journal(out)[0]:
        stop = at + len(frame(record))
        for name in committed([record]):
            found[name] = (at, stop)
        if record["record"] == "finish":
            found["manifest.json"] = (at, stop)
        at = stop
    return found


# File systems.


@contextlib.contextmanager
def small_disk(where: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A tmpfs of so many bytes; yields a function that remounts it with other options.

    Raises:
        PermissionError: Where this may not be done.
    """
    where.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise PermissionError(f"cannot mount a tmpfs: {getattr(error, 'stderr', error)!r}") from None

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(where)], check=True, capture_output=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True, capture_output=True)


if __name__ == "__main__":
    for _module in ("pyarrow.parquet", "variegate.run", "variegate.cli", "tokenizers", "gigatoken"):
        with contextlib.suppress(ImportError):
            importlib.import_module(_module)
    serve(int(sys.argv[1]))
