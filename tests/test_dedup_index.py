"""The index on disk: against a plain list and comparing every pair, and against kills and damage at every place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import faults
import variegate as vg
from strategies import examples
from variegate import _core
from variegate.dedup import Index, _index, near
from variegate.errors import CorruptRun, InvalidInput, RunConflict

SURE = 0.999999
"""A recall at which no pair of these small rows is missed."""

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=8)
NGRAM = 2


def similarity(a, b):
    """Exact Jaccard similarity; of rows without a shingle, whether they are equal."""
    left, right = ({tuple(row[i : i + NGRAM]) for i in range(len(row) - NGRAM + 1)} for row in (a, b))
    return len(left & right) / len(left | right) if left and right else float(a == b)


def batch_of(rows, ids=None):
    return vg.TokenBatch.from_lists(rows, ids=range(len(rows)) if ids is None else ids)


def pairs(found):
    arrays = (found.left, found.right, found.left_ids, found.right_ids, found.similarity)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def edited(rng, rows, length, vocabulary=5000):
    """Rows of which two in five are edited copies of earlier ones."""
    made = []
    for _ in range(rows):
        if made and rng.random() < 0.4:
            row = made[rng.integers(len(made))].copy()
            at = rng.random(len(row)) < rng.random() * 0.2
            row[at] = rng.integers(0, vocabulary, at.sum())
        else:
            row = rng.integers(0, vocabulary, rng.integers(1, length))
        made.append(row)
    return [row.tolist() for row in made]


class Machine(RuleBasedStateMachine):
    """An index beside a list of (id, row), each compared with all."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index"
        self.model: list[tuple[int, list[int]]] = []

    @initialize(threshold=st.sampled_from([0.4, 0.5, 0.75, 1.0]))
    def start(self, threshold):
        self.threshold = threshold
        self.index = Index.create(self.path, threshold=threshold, ngram=NGRAM, recall=SURE)

    def arrive(self, rows, ids, which):
        """What must become of rows, which the model takes."""
        known = len(self.model)
        places, expected = list(range(known)), []
        places = [-1] * known
        for r, (row, name) in enumerate(zip(rows, ids, strict=True)):
            found = [(k, similarity(row, other)) for k, (_, other) in enumerate(self.model)]
            found = [(k, s) for k, s in found if s >= self.threshold]
            if found:
                k, s = found[0]
                expected.append((False, self.model[k][0], places[k], float(np.float32(s))))
            else:
                expected.append((True, name, r, 1.0))
            if which == "all" or not found:
                self.model.append((name, row))
                places.append(r)
        return expected

    @staticmethod
    def told(added):
        arrays = (added.keep, added.keeper_ids, added.keeper, added.similarity)
        return list(zip(*(array.tolist() for array in arrays), strict=True))

    @rule(rows=ROWS, data=st.data(), which=st.sampled_from(["new", "all"]))
    def add(self, rows, data, which):
        ids = data.draw(st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
        before = len(self.model)
        expected = self.arrive(rows, ids, which)
        added = self.index.add(batch_of(rows, ids), store=which)
        assert self.told(added) == expected
        assert added.stored == len(self.model) - before

    @rule(rows=ROWS, gone=st.integers(0, 9), which=st.sampled_from(["new", "all"]))
    def merge(self, rows, gone, which):
        other = self.path.with_name("other")
        with Index.create(other, threshold=self.threshold, ngram=NGRAM, recall=SURE) as index:
            ids = list(range(len(rows)))
            for start in range(0, len(rows), 3):
                index.add(batch_of(rows[start : start + 3], ids[start : start + 3]), store="all")
            index.remove([gone])
            kept = [(i, row) for i, row in zip(ids, rows, strict=True) if i != gone]
            expected = self.arrive([row for _, row in kept], [i for i, _ in kept], which)
            assert self.told(self.index.merge(index, store=which)) == expected
            assert len(index) == len(kept)
        shutil.rmtree(other)

    @rule(ids=st.lists(st.integers(0, 9), max_size=3))
    def remove(self, ids):
        left = [(name, row) for name, row in self.model if name not in ids]
        assert self.index.remove(ids) == len(self.model) - len(left)
        self.model = left

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.stats["removed"] == 0
        assert self.index.stats["segments"] == bool(self.model)

    @rule()
    def reopen(self):
        self.index.close()
        self.index = Index.open(self.path, mode="a")

    @rule(rows=ROWS)
    def query(self, rows):
        expected = [
            (r, k, r + 100, name, float(np.float32(similarity(row, other))))
            for r, row in enumerate(rows)
            for k, (name, other) in enumerate(self.model)
            if similarity(row, other) >= self.threshold
        ]
        batch = batch_of(rows, [r + 100 for r in range(len(rows))])
        assert pairs(self.index.query(batch)) == expected
        with Index.open(self.path) as reader:
            assert pairs(reader.query(batch)) == expected

    @invariant()
    def counted(self):
        if hasattr(self, "index"):
            assert len(self.index) == len(self.model)
            assert self.index.ids.tolist() == [name for name, _ in self.model]
            there = sorted(p.name for p in self.path.iterdir())
            assert len(there) == 2 + sum(1 + bool(s.entry["removed"]) for s in self.index._segments) - twins(self.index)

    def teardown(self):
        if hasattr(self, "index"):
            self.index.close()
        self.folder.cleanup()


def twins(index):
    """Files that several segments share, as their content is the same."""
    names = [f["path"] for s in index._segments for f in (s.entry, s.entry["removed"]) if f]
    return len(names) - len(set(names))


TestMachine = Machine.TestCase
TestMachine.settings = examples(60)


def near_pairs(rows, threshold, ngram):
    sets = [{tuple(row[i : i + ngram]) for i in range(len(row) - ngram + 1)} for row in rows]
    holders = {}
    for r, shingles in enumerate(sets):
        for shingle in shingles:
            holders.setdefault(shingle, []).append(r)
    sharing = {(a, b) for held in holders.values() for a in held for b in held}
    return {(a, b) for a, b in sharing if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold}


@pytest.mark.parametrize(("threshold", "ngram"), [(0.7, 3), (0.8, 5)])
def test_recall_and_precision_are_those_promised(threshold, ngram, tmp_path):
    rows = edited(np.random.default_rng(5), 1500, 80)
    with Index.create(tmp_path / "index", threshold=threshold, ngram=ngram) as index:
        for start in range(0, 1500, 200):
            index.add(batch_of(rows[start : start + 200], range(start, min(start + 200, 1500))), store="all")
        found = index.query(batch_of(rows))
    shingled = {r for r, row in enumerate(rows) if len(row) >= ngram}
    got = {(a, b) for a, b in zip(found.left.tolist(), found.right.tolist(), strict=True) if a in shingled}
    true = near_pairs(rows, threshold, ngram)
    assert len(true) > 1500
    assert got <= true
    assert len(got) >= 0.999 * len(true)
    assert np.array_equal(found.right, found.right_ids)
    assert (found.similarity[found.left == found.right] == 1).all()


@pytest.mark.parametrize("unit", ["token", "word", "char"])
@pytest.mark.parametrize("cut", [1000, 77])
def test_what_is_stored_is_what_near_keeps(unit, cut, tmp_path):
    """In whatever batches rows come: closure leader, the earlier row first."""
    rows = edited(np.random.default_rng(6), 1000, 40)
    if unit == "token":
        batch = batch_of(rows)
    else:
        batch = vg.TextBatch.from_texts([" ".join(f"w{token % 97}" for token in row) for row in rows], ids=range(1000))
    whole = near(batch, threshold=0.7, ngram=3, keep="first", unit=unit)
    with Index.create(tmp_path / "index", threshold=0.7, ngram=3, unit=unit) as index:
        parts = [index.add(batch[start : start + cut]) for start in range(0, 1000, cut)]
        assert index.ids.tolist() == np.flatnonzero(whole.keep).tolist()
        assert index.parameters["unit"] == unit
    assert np.array_equal(np.concatenate([part.keep for part in parts]), whole.keep)
    assert np.array_equal(np.concatenate([part.keeper_ids for part in parts]), whole.keeper_ids)
    assert np.array_equal(np.concatenate([part.similarity for part in parts]), whole.similarity)
    assert 100 < whole.keep.sum() < 900


def test_any_number_of_threads_gives_the_same(tmp_path):
    batch = batch_of(edited(np.random.default_rng(8), 3000, 60))
    said = []
    try:
        for threads in (1, 2):
            vg.set_num_threads(threads)
            with Index.create(tmp_path / str(threads), threshold=0.7) as index:
                index.add(batch[:2000])
                said.append((pairs(index.query(batch[1000:])), [s.entry["sha256"] for s in index._segments]))
    finally:
        vg.set_num_threads(0)
    assert said[0] == said[1]
    assert len(said[0][0]) > 500


def test_a_crowd_of_copies_takes_no_time_out_of_bounds(tmp_path):
    row = list(range(60))
    with Index.create(tmp_path / "index") as index:
        added = index.add(batch_of([row] * 30_000), store="all")
        assert added.keep.sum() == 1
        assert (added.keeper == 0).all()
        found = index.query(batch_of([row, row[:-1]]))
        assert found.left.tolist() == [0] * 30_000 + [1] * 30_000
        assert index.add(batch_of([row] * 30_000)).stored == 0


def test_few_segments_are_left_of_many_additions(tmp_path):
    rows = np.random.default_rng(3).integers(0, 1 << 30, (400, 12)).tolist()
    with Index.create(tmp_path / "index") as index:
        for at in range(0, 400, 2):
            index.add(batch_of(rows[at : at + 2], [at, at + 1]))
        assert index.stats["segments"] <= 14
        assert index.ids.tolist() == list(range(400))
        assert index.stats["units"] == 400 * 12


def test_what_is_said_of_an_index(tmp_path):
    path = tmp_path / "index"
    with Index.create(path, threshold=0.7, ngram=3, seed=2**64 - 1) as index:
        assert repr(index) == f"Index('{path}', mode='a', threshold=0.7, ngram=3, unit=None, 0 records)"
        added = index.add(batch_of([[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7]]))
        assert repr(added) == "Added(rows=3, stored=2, known=0, within=1)"
        assert repr(index.query(batch_of([[5, 6, 7]]))) == "Matches(pairs=1, rows=1)"
        assert len(index.query(batch_of([]))) == 0
        index.remove([0])
        assert len(index) == 1
        size = sum(p.stat().st_size for p in path.glob("*.bin"))
        assert index.stats == {"records": 1, "removed": 1, "units": 7, "segments": 1, "bytes": size}
    assert repr(index) == f"Index('{path}', mode='a', threshold=0.7, ngram=3, unit='token', closed)"
    with Index.open(path) as index:
        assert index.parameters == {"threshold": 0.7, "ngram": 3, "recall": 0.999, "unit": "token", "seed": 2**64 - 1}
        assert index.ids.tolist() == [2]


def test_wrong_calls_are_named(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(InvalidInput, match=r"holds no index: Index\.create makes one"):
        Index.open(path)
    with pytest.raises(InvalidInput, match="mode must be 'r' or 'a' \\(it is 'w'\\)"):
        Index.open(path, mode="w")
    for wrong in ({"threshold": 2}, {"ngram": 0}, {"recall": 1}, {"unit": "line"}, {"seed": -1}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            Index.create(path, **wrong)
        assert not path.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"holds other files \('notes\.txt'\)"):
        Index.create(tmp_path / "other")
    index = Index.create(path)
    with pytest.raises(RunConflict, match=f"in use by process {os.getpid()}"):
        Index.create(path)
    with pytest.raises(InvalidInput, match="store must be 'new' or 'all'"):
        index.add(batch_of([[1]]), store="some")
    index.add(batch_of([[1]]))
    for call in (index.add, index.query):
        with pytest.raises(InvalidInput, match="unit 'token' needs a TokenBatch"):
            call(vg.TextBatch.from_texts(["a"]))
    with pytest.raises(InvalidInput, match="not list"):
        index.query([[1, 2]])
    for ids, message in (([0.5], "integers"), ([-1], "2\\^64")):
        with pytest.raises(InvalidInput, match=message):
            index.remove(ids)
    index.close()
    index.close()
    with pytest.raises(InvalidInput, match="holds an index already"):
        Index.create(path)
    for call in (lambda: index.query(batch_of([])), lambda: index.add(batch_of([])), lambda: len(index)):
        with pytest.raises(InvalidInput, match="is closed"):
            call()
    with Index.open(path) as reader:
        for call in (
            lambda: reader.add(batch_of([])),
            lambda: reader.remove([1]),
            reader.compact,
            lambda: reader.merge(reader),
        ):
            with pytest.raises(InvalidInput, match="open to read: open it with mode='a'"):
                call()


@pytest.mark.parametrize("other", [{"threshold": 0.9}, {"ngram": 4}, {"recall": 0.9}, {"seed": 1}, {"unit": "word"}])
def test_only_indexes_with_the_same_parameters_merge(other, tmp_path):
    name = next(iter(other))
    Index.create(tmp_path / "one", unit="char").close()
    Index.create(tmp_path / "two", **{"unit": "char", **other}).close()
    with (
        Index.open(tmp_path / "one", mode="a") as one,
        Index.open(tmp_path / "two") as two,
        pytest.raises(InvalidInput, match=rf"the same parameters \({name}: "),
    ):
        one.merge(two)
    with Index.create(tmp_path / "three") as three, Index.open(tmp_path / "one") as one:
        three.merge(one)
        assert three.parameters["unit"] == "char"


def small(path):
    """An index of four segments, of which one has lost a record."""
    index = Index.create(path, threshold=0.5, ngram=NGRAM)
    rows = edited(np.random.default_rng(1), 51, 9)
    for number, part in enumerate((rows[:32], rows[32:40], rows[40:46], rows[46:])):
        index.add(batch_of(part, [100 * number + i for i in range(len(part))]), store="all")
    index.remove([3])
    assert index.stats["segments"] == 4
    return index


def state(path):
    with Index.open(path) as index:
        return index.ids.tolist(), pairs(index.query(batch_of(edited(np.random.default_rng(1), 51, 9))))


def tree(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != ".lock"}


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path):
    """In every file; what stays unseen would be a wrong answer."""
    path = tmp_path / "index"
    small(path).close()
    rng = np.random.default_rng(0)
    for name, data in tree(path).items():
        file = path / name
        for at in sorted({0, 17, 21, len(data) - 1, *rng.integers(0, len(data), 40).tolist()}):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
            with pytest.raises(CorruptRun, match=name):
                Index.open(path)
        for size in sorted({0, 1, min(64, len(data)) - 1, len(data) - 1, *rng.integers(0, len(data), 10).tolist()}):
            file.write_bytes(data[:size])
            with pytest.raises(CorruptRun, match=name):
                Index.open(path)
        file.write_bytes(data + b"\n")
        with pytest.raises(CorruptRun, match=name):
            Index.open(path)
        file.unlink()
        with pytest.raises(CorruptRun, match=name):
            Index.open(path, mode="a")
        file.write_bytes(data)
    assert len(state(path)[0]) == 50


def test_damage_that_was_not_looked_for_is_no_crash(tmp_path):
    """Without verification an answer may be wrong, or an error; nothing else."""
    path = tmp_path / "index"
    small(path).close()
    rng = np.random.default_rng(2)
    batch = batch_of(edited(np.random.default_rng(1), 51, 9))
    refused = 0
    for name, data in tree(path).items():
        if name == "index.json":
            continue
        for _ in range(150):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 3).tolist():
                broken[at] ^= 1 << int(rng.integers(8))
            (path / name).write_bytes(broken)
            try:
                with Index.open(path, verify=False) as index:
                    index.query(batch)
            except CorruptRun:
                refused += 1
        (path / name).write_bytes(data)
    assert refused > 50


def manifest(path, **changes):
    said = {**json.loads((path / "index.json").read_text()), **changes}
    for name in ("format", "version", "sha256"):
        said.pop(name) if name not in changes else None
    (path / "index.json").write_text(_index._text(said))


def test_foreign_and_newer_files_are_named(tmp_path):
    path = tmp_path / "index"
    small(path).close()
    good = (path / "index.json").read_text()
    for text, message in (
        ("[1]", "is not the manifest of an index"),
        ('{"format": "other"}', "is not the manifest of an index"),
        ("not json", "is torn or damaged"),
        (good.replace('"version": 1', '"version": 2'), "has version 2, and this Variegate reads 1: upgrade"),
        (good.replace('"ngram": 2', '"ngram": 3'), "is not what its checksum says"),
        (good.rstrip(), "is not what its checksum says"),
    ):
        (path / "index.json").write_text(text)
        with pytest.raises(CorruptRun, match=message) as caught:
            Index.open(path)
        assert str(path / "index.json") in str(caught.value)
    (path / "index.json").write_text(good)
    manifest(path, keys="0" * 16)
    with pytest.raises(CorruptRun, match="other hash functions"):
        Index.open(path)
    (path / "index.json").unlink()
    with pytest.raises(CorruptRun, match=r"index\.json is missing, though there are segments"):
        Index.open(path)
    (path / "index.json").write_text(good)
    entries = json.loads(good)["segments"]
    file = path / entries[0]["path"]
    data = file.read_bytes()
    for head, message in (
        (b"another format!!" + data[16:], "is no segment of an index"),
        (data[:16] + struct.pack("<I", 9) + data[20:], "has version 9"),
        (data[:24] + struct.pack("<Q", 1 << 40) + data[32:], "does not fit its length"),
    ):
        file.write_bytes(head)
        entries[0]["sha256"] = hashlib.sha256(head).hexdigest()
        manifest(path, segments=entries)
        with pytest.raises(CorruptRun, match=message):
            Index.open(path)


def test_keys_on_disk_do_not_change_unawares():
    """An index outlives the program that made it: other keys of the same rows need a new version of the format."""
    made = _index._fingerprint(_core.NearParams(0.7, 5, "lsh", 0.999, "leader", "first", 0))
    assert made == "b908646a80ec9bae"


CHANGES = {
    "create": lambda index: None,
    "add": lambda index: index.add(batch_of(edited(np.random.default_rng(4), 3, 9), range(900, 903)), store="all"),
    "absorb": lambda index: index.add(batch_of(edited(np.random.default_rng(4), 4, 9), range(900, 904)), store="all"),
    "remove": lambda index: index.remove([5, 101]),
    "compact": lambda index: index.compact(),
    "merge": lambda index: index.merge(index, store="all"),
}


def change(path, name):
    if name == "create":
        Index.create(path, threshold=0.5, ngram=NGRAM).close()
        return
    with Index.open(path, mode="a") as index:
        CHANGES[name](index)


CHILD = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
import faults
import test_dedup_index as tests
from pathlib import Path
for number in range(int(sys.argv[4])):
    folder = Path(sys.argv[2]) / str(number)
    pid = os.fork()
    if pid == 0:
        spec = faults.shim(folder, kill=f"{number + 1},*,*", torn=1)
        assert ctypes.CDLL(None).faults_arm(spec.encode()) == 0
        tests.change(folder / "index", sys.argv[3])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(number, status, flush=True)
    if status == 0:
        break
"""


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_that_is_killed_leaves_the_index_as_it_was(name, tmp_path):
    """Killed before every call that opens, writes, syncs, renames or deletes, and in the middle of every write."""
    library = faults.build_shim(tmp_path)
    if library is None:
        pytest.skip("needs Linux and a C compiler (cc) for the shim of system calls")
    start = tmp_path / "start"
    if name != "create":
        small(start).close()
        before = state(start)
        shutil.copytree(start, tmp_path / "after")
    change(tmp_path / "after", name)
    after = state(tmp_path / "after")
    most = 200
    for number in range(most):
        folder = tmp_path / "cases" / str(number)
        if name == "create":
            folder.mkdir(parents=True)
        else:
            shutil.copytree(start, folder / "index")
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path / "cases"), name, str(most)]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ended = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert ended[-1][1] == 0, done.stderr
    assert all(status == -signal.SIGKILL for _, status in ended[:-1])
    assert len(ended) > 8
    seen = set()
    for number, _ in ended:
        path = tmp_path / "cases" / str(number) / "index"
        if name == "create" and not (path / "index.json").exists():
            change(path, name)
        else:
            found = state(path)
            assert found in ((after,) if name == "create" else (before, after)), number
            seen.add(found == after)
            with Index.open(path, mode="a") as index:
                assert len(index) == len(found[0])
        assert not list(path.glob(".tmp-*"))
        with Index.open(path) as index:
            names = {f["path"] for s in index._segments for f in (s.entry, s.entry["removed"]) if f}
        assert {p.name for p in path.iterdir()} == names | {"index.json", ".lock"}, number
    assert name in ("create", "compact") or seen == {False, True}


def test_a_change_that_fails_leaves_the_index_as_it_was(tmp_path, monkeypatch):
    """A full disk at any write, and the same index goes on afterwards."""
    path = tmp_path / "index"
    small(path).close()
    before = state(path)
    with Index.open(path, mode="a") as index:
        write, left = os.write, 0

        def full(handle, data):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
            return write(handle, data)

        for name in ("add", "remove", "compact", "merge"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                left = 0
                with pytest.raises(OSError, match="No space left"):
                    CHANGES[name](index)
            assert state(path) == before
        CHANGES["add"](index)
    assert len(state(path)[0]) == len(before[0]) + 3


READER = """
import sys
import numpy as np
import variegate as vg
with vg.dedup.Index.open(sys.argv[1]) as index:
    print("open", flush=True)
    sys.stdin.readline()
    print(len(index.query(vg.TokenBatch.from_lists([[1, 2, 3, 4], [5, 6, 7, 8]], ids=[0, 1]))))
"""


def test_many_read_while_one_writes(tmp_path):
    """A reader keeps what it opened, though its files are deleted meanwhile."""
    path = tmp_path / "index"
    command = [sys.executable, "-c", READER, str(path)]
    with Index.create(path, ngram=NGRAM) as index:
        index.add(batch_of([[1, 2, 3, 4], [5, 6, 7, 8]]))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        readers = [subprocess.Popen(command, **pipes) for _ in range(4)]
        assert [reader.stdout.readline() for reader in readers] == ["open\n"] * 4
        with pytest.raises(RunConflict, match="in use by process"):
            Index.open(path, mode="a")
        index.add(batch_of([[1, 2, 3, 4]] * 5), store="all")
        index.compact()
        assert index.remove([0]) == 2
        assert [reader.communicate("go\n")[0] for reader in readers] == ["2\n"] * 4
    with Index.open(path, mode="a") as index:
        assert len(index) == 5


@given(ROWS, st.integers(0, 5))
def test_any_batch_is_taken_or_refused(rows, cut):
    with tempfile.TemporaryDirectory() as folder, Index.create(f"{folder}/index", ngram=NGRAM, recall=SURE) as index:
        index.add(batch_of(rows[:cut]), store="all")
        index.add(batch_of(rows[cut:], range(cut, max(cut, len(rows)))), store="all")
        found = index.query(batch_of(rows))
        assert {(r, r) for r in range(len(rows))} <= set(zip(found.left.tolist(), found.right.tolist(), strict=True))
