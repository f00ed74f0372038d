"""Runs under faults: whatever happens, what was committed stays, and the same command ends with the same bytes.

Instants are drawn from fixed seeds, but where they fall is up to the machine: nothing here relies on it. A kill that
came too late is drawn again.

`FAULTS=300` asks for as many kills, and writes what came of it to benches/results/soak.jsonl.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import faults
from faults import Files, Outcome, Zygote, content, journal, shim
from variegate.errors import CorruptRun, InvalidInput, RunConflict
from variegate.run import _journal, check, run

SOAK = "FAULTS" in os.environ
KILLS = int(os.environ.get("FAULTS") or (300 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 60))
MORE = max(1, KILLS // 60)
"""How many times longer than usual the other tests are."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    process = Zygote(faults.build_shim(tmp_path_factory.mktemp("shim")))
    yield process
    process.close()


@pytest.fixture
def shimmed(zygote):
    if zygote.shim is None:
        pytest.skip("needs Linux and a C compiler (cc) for the shim of system calls")
    return zygote


class Reference:
    """An uninterrupted run, and what is known of it."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.recipe = faults.case(folder)
        self.out = folder / "reference"
        started = time.monotonic()
        zygote.run(self.recipe, self.out, workers=2).ok()
        self.seconds = time.monotonic() - started
        self.content = content(self.out)
        self.files = Files(self.out)
        self.files.finished(self.content)
        self.length = (self.out / "journal.log").stat().st_size
        self.stages: dict[int, list[int]] = {}
        at = len(_journal.MAGIC)
        for record in self.files.records:
            at += len(_journal.frame(record))
            if "stage" in record:
                self.stages.setdefault(record["stage"], []).append(at)
        # Those that are gone again, too.
        self.bytes = self.length + sum(file["bytes"] for file in faults.committed(self.files.records).values())


@pytest.fixture(scope="module")
def reference(zygote, tmp_path_factory):
    return Reference(zygote, tmp_path_factory.mktemp("reference"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def finish(zygote: Zygote, reference: Reference, files: Files, **job) -> Outcome:
    """Runs to the end, and holds what is there to the reference."""
    outcome = zygote.run(reference.recipe, files.out, **job).ok()
    files.finished(reference.content)
    return outcome


def begun(zygote: Zygote, reference: Reference, out: Path, share: float, *, recipe: Path | None = None) -> Files:
    """A run that was killed when its journal had so much of its length: drawn again if it was too fast."""
    files = Files(out)
    for _ in range(50):
        child = zygote.start(recipe or reference.recipe, out)
        if child.until(out / "journal.log", int(share * reference.length)) and child.kill().killed:
            files.look()
            return files
        shutil.rmtree(out)
    raise AssertionError("every run ended before it could be killed")


def note(case: str, seconds: float, monkeypatch, **figures) -> None:
    """Writes what a soak came to into the results, where one was asked for."""
    if SOAK:
        from _harness import RESULTS, Ledger

        monkeypatch.setenv("RAYON_NUM_THREADS", os.environ.get("RAYON_NUM_THREADS", str(os.cpu_count() or 1)))
        Ledger(path=RESULTS / "soak.jsonl").add(case, seconds=round(seconds, 1), **figures)


def test_the_reference_has_what_these_tests_need(reference):
    counts = {stage: len(ends) for stage, ends in reference.stages.items()}
    assert sum(count >= 5 for count in counts.values()) >= 4, f"parts are not small any more: {counts}"
    names = faults.committed(reference.files.records)
    assert {name.split("/")[0] for name in names} == {"data", "rejects", "stages"}
    manifest = json.loads((reference.out / "manifest.json").read_text("utf-8"))
    kinds = [stage["kind"] for stage in manifest["stages"]]
    assert kinds == ["read", "augment", "templates", "dedup", "measure", "mix"]
    reasons = Counter(reason for stage in manifest["stages"] for reason in stage["reasons"])
    assert {"duplicate", "near_duplicate", "max_synthetic"} <= reasons.keys()


# Kills.


def test_a_run_killed_anywhere_continues_to_the_same_bytes(zygote, reference, tmp_path, monkeypatch):
    draw = random.Random(2026)
    started = time.monotonic()
    kills, late, hits, committed = 0, 0, Counter(), []
    workers = itertools.cycle([1, 2, 3, 4])
    # A stage without parts of its own has one record, after which the next stage follows at once.
    aims = {stage for stage, ends in reference.stages.items() if len(ends) > 1}
    while kills < KILLS or aims - hits.keys():
        assert late < 10 * KILLS, f"runs end before they can be killed: {kills} kills"
        assert kills < 3 * KILLS, f"no kill hits a stage that has committed something: {hits}"
        files = Files(tmp_path / f"killed-{kills}-{late}")
        instants = [draw.randrange(len(_journal.MAGIC), reference.length) for _ in range(6)]
        for stage in sorted(aims - hits.keys())[:6]:
            ends = reference.stages[stage]  # aim at what no kill has hit, with a record of its own behind it
            instants[stage % 6] = draw.randrange(ends[0], ends[-1])
        for instant in sorted(instants)[: max(1, KILLS - kills)]:
            child = zygote.start(reference.recipe, files.out, workers=next(workers))
            if child.until(files.out / "journal.log", instant):
                time.sleep(draw.choice([0, draw.random()]) * 0.02)
            if not child.kill().killed:
                assert child.outcome.status == 0, child.outcome
                late += 1
                break
            kills += 1
            records = files.look()
            committed.append(len(files.seen))
            if records and "stage" in records[-1]:
                hits[records[-1]["stage"]] += 1
        finish(zygote, reference, files, workers=next(workers))
        shutil.rmtree(files.out)
    assert kills >= KILLS
    assert hits.keys() >= aims
    stages = {str(stage): hits[stage] for stage in sorted(hits)}
    seconds = time.monotonic() - started
    note("runs killed at random instants", seconds, monkeypatch, kills=kills, late=late, by_stage=stages)


STEPS = {
    "make a temporary file": ("c", "t", 0),
    "write a temporary file": ("w", "t", 0),
    "write half to a temporary file": ("w", "t", 1),
    "sync a temporary file": ("s", "t", 0),
    "rename": ("r", "*", 0),
    "sync a folder": ("s", "f", 0),
    "write the journal": ("w", "j", 0),
    "write half to the journal": ("w", "j", 1),
    "sync the journal": ("s", "j", 0),
    "make a folder": ("m", "*", 0),
    "any": ("*", "*", 0),
}
"""Steps of the protocol, as the shim knows them: op, kind of file, whether half of it is done."""


def test_a_run_killed_before_every_step_continues_to_the_same_bytes(shimmed, reference, tmp_path, monkeypatch):
    draw = random.Random(5)
    started = time.monotonic()
    hits = Counter()
    for turn in range(MORE):
        files = Files(tmp_path / f"steps-{turn}")
        for number, (op, kind, torn) in enumerate(STEPS.values()):
            # The first of its kind once, a later one once: what starts differs from what goes on.
            for at in (1, draw.randrange(2, 9)):
                spec = shim(files.out, kill=f"{at},{op},{kind}", torn=torn)
                outcome = shimmed.run(reference.recipe, files.out, shim=spec, workers=1 + number % 4)
                assert outcome.killed or outcome.ok()
                hits[op, kind, torn] += outcome.killed
                if not outcome.killed:
                    files.finished(reference.content)
                    shutil.rmtree(files.out)
                    files = Files(files.out)
                files.look()
        finish(shimmed, reference, files)
        shutil.rmtree(files.out)
    assert all(hits[step] for step in STEPS.values()), hits
    seconds = time.monotonic() - started
    note("runs killed before a step", seconds, monkeypatch, kills=sum(hits.values()))


def test_a_run_killed_at_every_so_many_calls_continues_to_the_same_bytes(shimmed, reference, tmp_path, monkeypatch):
    draw = random.Random(17)
    started = time.monotonic()
    kills = 0
    for turn in range(MORE):
        files = Files(tmp_path / f"calls-{turn}")
        for attempt in itertools.count():
            assert attempt < 500, "killed runs do not get ahead"
            spec = shim(files.out, kill=f"{draw.randrange(20, 80)},wsrumt,*", torn=attempt % 2)
            outcome = shimmed.run(reference.recipe, files.out, shim=spec, workers=1 + attempt % 4)
            if not outcome.killed:
                outcome.ok()
                break
            kills += 1
            files.look()
        files.finished(reference.content)
        shutil.rmtree(files.out)
    assert kills >= 5 * MORE
    note("runs killed every so many calls", time.monotonic() - started, monkeypatch, kills=kills)


# System calls.


@pytest.fixture(scope="module")
def logged(zygote, reference, tmp_path_factory):
    """A whole run with the log of its calls."""
    folder = tmp_path_factory.mktemp("logged")
    out, log = folder / "out", folder / "calls.log"
    if zygote.shim is None:
        pytest.skip("needs Linux and a C compiler (cc) for the shim of system calls")
    zygote.run(reference.recipe, out, shim=shim(folder, log=log), workers=2).ok()
    assert content(out) == reference.content
    return out, faults.calls(log)


def test_every_committed_file_is_synced_before_it_counts(logged, reference):
    out, calls = logged
    assert faults.disorder(calls, out) == []
    counted = sum(call.op == "write" and call.kind == "j" for call in calls)
    assert counted > 40
    assert len(faults.committed(journal(out)[0])) > 40


def test_the_order_of_calls_is_really_looked_at(logged):
    out, calls = logged
    name = next(path for path in faults.committed(journal(out)[0]) if path.startswith("data/"))
    full = str(out / name)
    rename = next(at for at, call in enumerate(calls) if call.op == "rename" and call.other == full)
    temporary, folder = calls[rename].path, str(Path(full).parent)
    before = max(at for at in range(rename) if calls[at].op == "sync" and calls[at].path == temporary)
    after = {at for at, call in enumerate(calls) if call.op == "sync" and call.path == folder}
    without = {
        "not synced between its last write and its rename": {before},
        "its folder is not synced between the rename and the record": after,
        "not renamed before its record was written": {rename},
        "its record is not synced": {at for at, call in enumerate(calls) if call.op == "sync" and call.kind == "j"},
    }
    for lack, dropped in without.items():
        kept = [call for at, call in enumerate(calls) if at not in dropped]
        assert any(line.startswith(f"{name}: ") and lack in line for line in faults.disorder(kept, out)), lack
    late = [call for at, call in enumerate(calls) if at != rename] + [calls[rename]]
    assert f"{name}: not renamed before its record was written" in faults.disorder(late, out)


def test_new_folders_are_synced_into_their_parents(logged):
    """Without that, a power cut may take a folder with all its committed files, though each was synced."""
    out, calls = logged
    assert faults.loose_folders(calls, out) == []


@pytest.mark.parametrize(
    "keys",
    [{"short": 40, "seed": 1}, {"eintr": 25, "seed": 2}, {"short": 70, "eintr": 40, "seed": 3}],
    ids=lambda keys: " and ".join(key for key in keys if key != "seed"),
)
def test_short_writes_and_interrupted_calls_change_nothing(keys, shimmed, reference, out):
    log = out.with_name("calls.log")
    files = Files(out)
    finish(shimmed, reference, files, shim=shim(out, log=log, **keys))
    failed = sum(call.result == -errno.EINTR for call in faults.calls(log))
    assert (failed > 20) == ("eintr" in keys)


@pytest.mark.parametrize("monotonic", [0, 1])
def test_jumps_of_the_clock_change_nothing(monotonic, shimmed, reference, out):
    keys = {"clock": 1, "monotonic": monotonic}
    files = Files(out)
    assert shimmed.run(reference.recipe, out, shim=shim(out, kill="200,wsr,*", seed=1, **keys)).killed
    files.look()
    finish(shimmed, reference, files, shim=shim(out, seed=2, **keys))


FAILING = {
    "full disk": (errno.ENOSPC, "wcm", "*"),
    "full disk under the journal": (errno.ENOSPC, "w", "j"),
    "broken disk": (errno.EIO, "w", "*"),
    "broken disk under the journal": (errno.EIO, "w", "j"),
    "sync fails": (errno.EIO, "s", "*"),
    "sync of the journal fails": (errno.EIO, "s", "j"),
    "rename fails": (errno.EIO, "r", "*"),
}


@pytest.mark.parametrize("how", FAILING)
def test_a_run_whose_calls_fail_stops_and_continues(how, shimmed, reference, logged, tmp_path):
    number, ops, kinds = FAILING[how]
    draw = random.Random(how)
    made = [call for call in logged[1] if call.op[0] in ops and kinds in ("*", call.kind)]
    for attempt in range(MORE):
        files = Files(tmp_path / f"failing-{attempt}")
        failures = 0
        for step in range(3):
            at = draw.randrange(1, len(made) // 3)
            spec = shim(files.out, fail=f"{number},{at},{ops},{kinds}", partial=draw.randrange(2))
            outcome = shimmed.run(reference.recipe, files.out, shim=spec, workers=1 + (attempt + step) % 4)
            files.look()
            if outcome.status:
                failed(outcome)
                failures += 1
        assert failures
        finish(shimmed, reference, files)
        shutil.rmtree(files.out)


def failed(outcome: Outcome) -> None:
    """A call of `run` ended with an error of the system's, or one that tells of it; not by a signal or a bug."""
    assert outcome.status == 1, outcome
    said = outcome.told["message"]
    assert any(os.strerror(number) in said for number in (errno.ENOSPC, errno.EIO, errno.EACCES)), outcome
    assert outcome.told["error"] != "CorruptRun", outcome


# Disks.


@pytest.fixture
def disk(tmp_path):
    """A small disk, and a function to give it other options."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("needs Linux and root to mount a small tmpfs")
    try:
        with faults.small_disk(tmp_path / "disk", 1 << 16) as remount:
            yield tmp_path / "disk", remount
    except PermissionError as error:
        pytest.skip(f"needs to be allowed to mount a small tmpfs: {error}")


def command(zygote: Zygote, recipe: Path, out: Path, *, workers: int = 2, **job) -> Outcome:
    """`variegate run` as people type it."""
    words = ["run", str(recipe), "-o", str(out), "--workers", str(workers), "--progress", "none"]
    return zygote.run(recipe, out, command=words, **job)


def full(outcome: Outcome) -> None:
    """A command ended because its disk is full."""
    assert outcome.status == 1, outcome
    assert "Traceback" not in outcome.printed
    assert "No space left on device" in outcome.printed


def test_a_full_disk_stops_the_run_and_a_larger_one_lets_it_continue(zygote, reference, disk):
    where, remount = disk
    files, failures = Files(where / "out"), 0
    for share in (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 2.0):
        remount(f"size={int(share * reference.bytes)}")
        outcome = command(zygote, reference.recipe, files.out)
        files.look()
        if outcome.status == 0:
            break
        full(outcome)
        failures += 1
    assert failures >= 3
    files.finished(reference.content)


def test_a_disk_may_be_full_under_any_file(shimmed, reference, disk):
    """Something else takes all room just before a certain write, and gives it back when the run has stopped."""
    where, remount = disk
    remount("size=16m")
    out, log, ballast = where / "out", where.with_name("calls.log"), where / "ballast"
    page, draw, files, met = os.sysconf("SC_PAGESIZE"), random.Random(3), Files(out), Counter()
    tops = ["stages", "journal.log", "stages", "journal.log", "rejects", "journal.log", "data", "journal.log"]
    for _ in range(40):
        if not tops:
            break
        top = tops[0]
        kind, nth = "t", draw.randrange(1, 4) if top != "rejects" else 1  # a ledger may fit the page that it has
        if top == "journal.log":
            kind, nth = "j", crossing(files, reference, page) if (out / "journal.log").exists() else 1
        log.unlink(missing_ok=True)
        spec = shim(out, log=log, ballast=ballast, fill=f"{nth},w,{kind},/{top}")
        outcome = command(shimmed, reference.recipe, out, workers=draw.randrange(1, 4), shim=spec)
        if outcome.status == 0:
            # Records that were committed together made fewer writes than was reckoned: begin anew.
            shutil.rmtree(out)
            files = Files(out)
            ballast.unlink(missing_ok=True)
            continue
        tops.pop(0)
        assert ballast.exists()
        full(outcome)
        paths = {call.path for call in faults.calls(log) if call.result == -errno.ENOSPC}
        met.update({Path(path).relative_to(out).parts[0] for path in paths})
        files.look()
        ballast.unlink()
    assert not tops, f"no run was stopped under {tops[0]}"
    assert command(shimmed, reference.recipe, out).status == 0
    files.finished(reference.content)
    assert {"stages", "rejects", "data", "journal.log"} <= met.keys(), met


def crossing(files: Files, reference: Reference, page: int) -> int:
    """Which of the journal's next writes needs a new page, if its records are as long as the reference's."""
    at = files.out.joinpath("journal.log").stat().st_size
    for number, record in enumerate(reference.files.records[len(files.records) :], 1):
        end = at + len(_journal.frame(record))
        if end // page > at // page:
            return number
        at = end
    raise AssertionError("the journal needs no more pages")


def test_a_full_disk_is_one_clear_error(zygote, reference, disk):
    where, remount = disk
    out = where / "out"
    for share in (0.02, 0.3, 0.6, 0.8):
        remount(f"size={int(share * reference.bytes)}")
        outcome = command(zygote, reference.recipe, out)
        assert outcome.status == 1, outcome
        lines = outcome.printed.strip().splitlines()
        assert len(lines) == 1, outcome.printed
        assert lines[0].startswith("variegate: ")
        assert str(out) in lines[0], "the message names no file"
        assert "No space left on device" in lines[0]
        assert "same command" in lines[0], "the message does not say what to do"
        shutil.rmtree(out)


def test_a_read_only_disk_is_a_clear_error_and_nothing_changes(zygote, reference, disk):
    where, remount = disk
    remount("size=64m")
    out = where / "out"

    def refused(file: Path) -> None:
        remount("ro")
        outcome = command(zygote, reference.recipe, out)
        remount("rw")
        assert outcome.status == 1, outcome
        (line,) = outcome.printed.strip().splitlines()
        assert line.startswith("variegate: ")
        assert str(file) in line
        assert "Read-only file system" in line

    refused(out)
    assert not out.exists()
    files = begun(zygote, reference, out, 0.4)
    refused(out)
    files.look()
    finish(zygote, reference, files)
    remount("ro")
    check(out)
    remount("rw")


def protect(out: Path, *, writable: bool) -> None:
    for path in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        path.chmod(0o755 if writable else 0o555)


def test_a_protected_directory_is_a_clear_error_and_nothing_changes(zygote, reference, tmp_path):
    out = tmp_path / "place" / "out"
    out.parent.mkdir()

    protect(out.parent, writable=False)
    outcome = command(zygote, reference.recipe, out, humble=True)
    protect(out.parent, writable=True)
    assert outcome.status == 1, outcome
    (line,) = outcome.printed.strip().splitlines()
    assert str(out) in line
    assert "Permission denied" in line
    assert not out.exists()

    files, refused = Files(out), 0
    for share in (0.1, 0.3, 0.5, 0.7):
        child = zygote.start(reference.recipe, out, humble=True)
        if child.until(out / "journal.log", int(share * reference.length)):
            child.stop()
            protect(out, writable=False)
            child.signal(signal.SIGCONT)
        outcome = child.wait()
        protect(out, writable=True)
        files.look()
        if outcome.status:
            failed(outcome)
            assert "Permission denied" in outcome.told["message"]
            refused += 1
    assert refused
    finish(zygote, reference, files)


# Processes and threads.


def test_a_stopped_run_keeps_its_directory_and_goes_on(zygote, reference, tmp_path):
    draw = random.Random(9)
    refused = 0
    for turn in range(1 + MORE):
        files = Files(tmp_path / f"stopped-{turn}")
        child = zygote.start(reference.recipe, files.out, workers=1 + turn % 4)
        for instant in sorted(draw.randrange(len(_journal.MAGIC), reference.length) for _ in range(4)):
            if not child.until(files.out / "journal.log", instant):
                break
            if not child.stop():
                break
            begin = time.monotonic()
            other = zygote.run(reference.recipe, files.out)
            assert other.told.get("error") == "RunConflict", other
            place = f"process {child.pid} on host {os.uname().nodename}"
            assert other.told["message"].startswith(f"{files.out} is in use by {place}: ")
            refused += 1
            files.look()
            time.sleep(max(0.0, draw.uniform(0.05, 0.2) - (time.monotonic() - begin)))
            child.signal(signal.SIGCONT)
        child.wait().ok()
        files.finished(reference.content)
    assert refused >= 2


@pytest.mark.parametrize("failure", ["MemoryError", "SystemExit", "KeyboardInterrupt", "RecursionError", "Panic"])
def test_a_worker_that_dies_stops_the_run_which_then_continues(failure, zygote, reference, out):
    draw = random.Random(failure)
    files = Files(out)
    for _ in range(2):
        workers = draw.randrange(1, 5)
        outcome = zygote.run(reference.recipe, out, failure=failure, at=draw.randrange(2, 12), workers=workers)
        assert outcome.told.get("broken"), "no worker writes Parquet any more: the tests need another way to break one"
        assert outcome.status == 1, outcome
        assert outcome.told["error"] in (failure, "VariegateError", "CorruptRun", "RuntimeError"), outcome
        records = files.look()
        assert records[-1]["record"] != "finish"
        assert not (out / "manifest.json").exists()
        with pytest.raises(CorruptRun, match="not finished"):
            check(out)
    finish(zygote, reference, files, workers=draw.randrange(1, 5))


def test_a_worker_that_asks_for_the_exit_is_no_success(zygote, reference, out):
    """A command line that ends with 0 says that the set is there."""
    outcome = command(zygote, reference.recipe, out, failure="SystemExit", at=20)
    assert outcome.told.get("broken")
    assert outcome.status != 0, "the command claims to have finished"


def test_a_process_that_a_worker_ends_continues(zygote, reference, out):
    files = Files(out)
    for at in (3, 30):
        assert zygote.run(reference.recipe, out, failure="os._exit", at=at, workers=3).status == 7
        files.look()
    finish(zygote, reference, files)


# Copies.


@pytest.mark.skipif(shutil.which("cp") is None, reason="needs cp")
@pytest.mark.parametrize("flags", ["-a", "-r"])
def test_a_copy_of_a_begun_run_continues_and_so_does_the_original(flags, zygote, reference, tmp_path):
    here, there = tmp_path / "here", tmp_path / "deep" / "there"
    recipe = faults.case(here)
    files = begun(zygote, reference, here / "out", 0.55, recipe=recipe)
    there.parent.mkdir()
    subprocess.run(["cp", flags, str(here), str(there)], check=True)
    for folder, known in ((there, Files(there / "out")), (here, files)):
        assert known.look()
        outcome = zygote.run(folder / "recipe.yaml", folder / "out", workers=3).ok()
        assert outcome.told["continued"]
        known.finished(reference.content)
    shutil.rmtree(here)
    check(there / "out")
    assert zygote.run(there / "recipe.yaml", there / "out").ok().told["complete"]


# Surgery.


TINY = """\
version: 1
seed: 7
sources:
  - {name: py, path: in.jsonl, id: id, license: PSF-2.0, kind: human}
"""


def tiny(folder: Path, name: str = "x") -> tuple[Path, Path]:
    """A recipe of one part, and its finished run."""
    folder.mkdir()
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": f"{name} {n}", "id": n}) + "\n" for n in range(5)))
    (folder / "recipe.yaml").write_text(TINY)
    run(folder / "recipe.yaml", folder / "out", workers=1)
    return folder / "recipe.yaml", folder / "out"


def ends(data: bytes) -> list[int]:
    """Where each record of a journal ends, and the magic before them."""
    found = [len(_journal.MAGIC)]
    for record in _journal.replay(data)[0]:
        found.append(found[-1] + len(_journal.frame(record)))
    return found


def test_a_torn_tail_of_any_length_is_cut(tmp_path):
    recipe, out = tiny(tmp_path / "case")
    whole, expected = (out / "journal.log").read_bytes(), content(out)
    *_, start, stop = ends(whole)
    for cut in range(start, stop):
        (out / "journal.log").write_bytes(whole[:cut])
        result = run(recipe, out, workers=1)
        assert result.continued, cut
        assert not result.already_complete
        assert content(out) == expected, cut
        assert journal(out)[0][-1]["record"] == "finish"
    check(out)


def test_a_torn_tail_of_a_part_leaves_its_file_to_be_made_again(tmp_path):
    recipe, out = tiny(tmp_path / "case")
    expected, begun = content(out), tmp_path / "begun"

    def keep(event):
        """Keeps the directory as it is when the first part counts, and nothing else does."""
        if event.parts and not begun.exists():
            shutil.copytree(tmp_path / "again", begun, ignore=shutil.ignore_patterns(".tmp-*"))

    run(recipe, tmp_path / "again", workers=1, progress=keep)
    whole = (begun / "journal.log").read_bytes()
    *_, start, stop = found = ends(whole)
    assert _journal.replay(whole)[0][-1]["record"] == "part"
    tails = [whole[start:cut] for cut in [*range(start, stop, 1 if MORE > 1 else 13), stop - 1]]
    for tail in (*tails, b"\0" * 7, b"\0" * 4096, bytes(range(256)), whole[found[0] : found[1]][:-1]):
        torn = tmp_path / "torn"
        shutil.copytree(begun, torn)
        (torn / "journal.log").write_bytes(whole[:start] + tail)
        assert run(recipe, torn, workers=1).continued
        assert content(torn) == expected, tail[:9]
        shutil.rmtree(torn)


@pytest.fixture
def half(zygote, reference, tmp_path):
    """A run that was killed while it wrote the final set, and its files."""
    third = sorted(reference.stages.items())[-1][1][2]
    return begun(zygote, reference, tmp_path / "out", third / reference.length)


def test_files_that_no_record_has_are_deleted(half, zygote, reference):
    stray = [
        half.out / folder / f"part-0009{n}-{'ab' * 8}.parquet"
        for n, folder in enumerate(sorted({str(Path(name).parent) for name in half.seen}))
    ]
    stray += [half.out / "data" / ".tmp-part-00099.parquet", half.out / ".tmp-manifest.json"]
    assert len({path.relative_to(half.out).parts[0] for path in stray}) >= 4
    for path in stray:
        path.write_bytes(b"PAR1 half of something")
    finish(zygote, reference, half)
    assert not any(path.exists() for path in stray)


@pytest.mark.parametrize("top", ["data", "rejects", "stages"])
def test_a_committed_file_that_is_gone_or_altered_stops_the_run(top, half, zygote, reference):
    # The last of its kind: an early stage's files may be gone for a good reason.
    name = [name for name in faults.committed(half.records) if name.startswith(f"{top}/") and name in half.seen][-1]
    path = half.out / name
    status, data = path.stat(), path.read_bytes()
    shorter, longer, altered = data[:-1], data + b"x", data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]
    for damaged, message in (
        (None, "is missing, though the journal has it"),
        (shorter, f"is truncated: {len(shorter)} bytes instead of {len(data)}"),
        (longer, f"is longer than it was: {len(longer)} bytes instead of {len(data)}"),
        (altered, "was altered: its SHA-256 is not the one in the journal"),
    ):
        held = path.with_name("held")
        if damaged is None:
            path.rename(held)
        else:
            path.write_bytes(damaged)
        outcome = zygote.run(reference.recipe, half.out)
        assert outcome.told.get("error") == "CorruptRun", outcome
        assert outcome.told["message"] == f"{path} {message}"
        if damaged is None:
            held.rename(path)
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    finish(zygote, reference, half)


def test_a_damaged_record_costs_what_follows_it_and_no_more(zygote, reference, tmp_path):
    draw = random.Random(21)
    for turn in range(2 * MORE):
        out = tmp_path / f"flipped-{turn}"
        begun(zygote, reference, out, 0.8)
        data = bytearray((out / "journal.log").read_bytes())
        found = ends(bytes(data))
        at = draw.randrange(found[1], len(data))
        data[at] ^= 1 << draw.randrange(8)
        (out / "journal.log").write_bytes(data)
        files = Files(out)
        assert len(files.look()) == sum(end <= at for end in found) - 1
        finish(zygote, reference, files)
        shutil.rmtree(out)


def tree(out: Path) -> dict[str, bytes]:
    """Every file of a directory, but for the lock."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_the_journal_of_another_recipe_is_refused_and_nothing_is_touched(half, reference, tmp_path):
    _, other = tiny(tmp_path / "other")
    shutil.copy(other / "journal.log", half.out / "journal.log")
    before = tree(half.out)
    with pytest.raises(RunConflict, match="belongs to another recipe"):
        run(reference.recipe, half.out)
    assert tree(half.out) == before
    check(other)


def test_the_journal_of_other_inputs_is_refused_and_nothing_is_touched(tmp_path):
    recipe, out = tiny(tmp_path / "one")
    _, other = tiny(tmp_path / "two", name="y")
    shutil.copy(other / "journal.log", out / "journal.log")
    before = tree(out)
    with pytest.raises(RunConflict, match=re.escape("input in.jsonl of 'py' has changed")):
        run(recipe, out)
    assert tree(out) == before
    with pytest.raises(CorruptRun):
        check(out)


def test_the_journal_of_a_twin_is_no_substitute_for_its_files(half, zygote, reference, tmp_path):
    out = tmp_path / "twin"
    out.mkdir()
    shutil.copy(half.out / "journal.log", out / "journal.log")
    with pytest.raises(CorruptRun, match="is missing, though the journal has it"):
        run(reference.recipe, out)
    shutil.copy(reference.out / "journal.log", out / "journal.log")
    with pytest.raises(CorruptRun, match="is missing"):
        check(out)


@pytest.mark.parametrize("beside", [True, False])
def test_a_journal_of_something_else_is_not_overwritten(beside, tmp_path):
    recipe, _ = tiny(tmp_path / "case")
    out = tmp_path / "out"
    out.mkdir()
    (out / "journal.log").write_text("Monday: it rained.\n" * 9)
    if beside:
        (out / "thesis.txt").write_text("precious")
    before = tree(out)
    with pytest.raises((RunConflict, CorruptRun, InvalidInput)):
        run(recipe, out)
    assert tree(out) == before


def test_a_journal_damaged_at_its_start_is_left_as_it_is(tmp_path):
    """What is left of it may still be of use to whoever looks into the damage."""
    recipe, out = tiny(tmp_path / "case")
    data = (out / "journal.log").read_bytes()
    for at in (3, len(_journal.MAGIC) + 1, len(_journal.MAGIC) + 20):
        (out / "journal.log").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        before = tree(out)
        with pytest.raises(CorruptRun, match="damaged at its start, though there are parts"):
            run(recipe, out)
        assert tree(out) == before, at
