"""Decisions about whole sets: that they are those of deciding everything at once, however little memory there is."""

import json
import textwrap
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import dedup, mix, provenance
from variegate import recipe as recipes
from variegate.batch import TokenBatch
from variegate.errors import CorruptRun, InvalidInput, RecipeError
from variegate.report import render
from variegate.run import _context, _inputs, _sets, check, diff, plan, run

WORDS = [f"word{n}" for n in range(400)]


def texts(rows, seed, *, copies=0.1, near=0.2):
    """Random texts, some of them repeated, exactly or but for a word."""
    rng = np.random.default_rng(seed)
    made = []
    for row in range(rows):
        kind = rng.random()
        if row and kind < copies + near:
            words = made[rng.integers(row)].split()
            if kind >= copies:
                words[rng.integers(len(words))] = f"other{row}"
        else:
            words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 60))]
        made.append(" ".join(words))
    return made


def write(folder, text, rows=(), **files):
    folder.mkdir(exist_ok=True)
    for name, lines in {"in": rows, **files}.items():
        data = "".join(json.dumps({"text": line, "id": n}) + "\n" for n, line in enumerate(lines))
        (folder / f"{name}.jsonl").write_text(data)
    (folder / "recipe.yaml").write_text(textwrap.dedent(text))
    return recipes.load(folder / "recipe.yaml")


def rows_of(out):
    return pq.read_table(out / "data").to_pylist()


def rejects_of(out):
    return [row for path in sorted((out / "rejects").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_inputs, "UNIT_BYTES", 4096)


DEDUP = """\
version: 1
sources: [{name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human}]
stages: [{dedup: {threshold: THRESHOLD, ngram: 2, closure: CLOSURE}}]
"""


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("threshold", "closure"), [("0.7", "leader"), ("0.7", "transitive"), ("null", "leader")])
@pytest.mark.parametrize("memory", [1 << 30, 8_000_000, 4_000])
def test_duplicates_are_those_of_comparing_all_rows_at_once(threshold, closure, memory, tmp_path, monkeypatch):
    """In 4 kB components do not fit, and keys are joined in ranges."""
    made = texts(600, seed=5)
    recipe = write(tmp_path, DEDUP.replace("THRESHOLD", threshold).replace("CLOSURE", closure), made)
    monkeypatch.setattr(_context.Context, "memory", memory)
    crowds = []
    compare_crowd = _sets.DedupStep.compare_crowd
    monkeypatch.setattr(
        _sets.DedupStep, "compare_crowd", lambda self, *a: crowds.append(len(a[1])) or compare_crowd(self, *a)
    )
    run(recipe, tmp_path / "out", workers=2)
    check(tmp_path / "out")
    assert bool(crowds) == (memory == 4_000)

    import variegate as vg

    encoded = vg.Tokenizer.default().encode(made)
    keys = [str(n).encode() for n in range(len(made))]
    cells = np.frombuffer(b"".join(keys), np.uint8), np.cumsum([0, *map(len, keys)])
    ids = provenance.source_record_ids("real", cells, content=cells, file="", row=np.arange(len(made)))
    order = np.empty(len(made), np.int64)
    order[sorted(range(len(made)), key=lambda n: (-encoded.lengths[n], ids[n].tobytes()))] = np.arange(len(made))
    batch = TokenBatch(encoded.tokens, encoded.offsets, ids=np.zeros(len(made), np.uint64))
    if threshold == "null":
        whole = dedup.exact(batch, order=order)
    else:
        whole = dedup.near(batch, threshold=0.7, ngram=2, closure=closure, order=order)
    expected = {
        ids[row].tobytes().hex(): (ids[keeper].tobytes().hex(), pytest.approx(float(similarity)))
        for row, (keeper, similarity) in enumerate(zip(whole.keeper, whole.similarity, strict=True))
        if keeper != row
    }
    found = {row["record_id"]: (row["kept"], row["similarity"]) for row in rejects_of(tmp_path / "out")}
    assert found == expected
    assert len(expected) > 50
    kept = [row["text"] for row in rows_of(tmp_path / "out")]
    assert kept == [text for text, stays in zip(made, whole.keep, strict=True) if stays]


MIXED = """\
version: 1
sources:
  - {name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human}
  - {name: made, path: made.jsonl, id: id, license: MIT, kind: generated}
stages:
  - templates: {name: sums, count: 40, candidates: 90, law: weights, license: CC0-1.0, grammar: "task = {a=int 0..99}"}
  - dedup: {threshold: null}
mix: {max_synthetic: 0.3, by: bytes}
"""


@pytest.mark.usefixtures("small_parts")
def test_targets_count_what_is_accepted_and_the_cap_counts_what_is_left(tmp_path):
    recipe = write(tmp_path, MIXED, texts(100, 1, copies=0, near=0), made=texts(80, 2, copies=0, near=0))
    run(recipe, tmp_path / "out")
    check(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["sums"]["created"] == 90
    duplicates = stages["dedup"]["rejected"]
    assert duplicates > 5
    assert stages["mix"]["targets"] == {"sums": {"wanted": 40, "candidates": 90, "accepted": 40}}
    rejected = [row for row in rejects_of(tmp_path / "out") if row["stage"] == "mix"]
    reasons = Counter(row["reason"] for row in rejected)
    assert reasons["over_target"] == 90 - duplicates - 40
    kept = rows_of(tmp_path / "out")
    synthetic = [row for row in kept if row["provenance"]["kind"] != "human"]
    # Both limits keep the records with the lowest ids.
    capped = [row["record_id"] for row in rejected if row["reason"] == "max_synthetic"]
    assert max(row["provenance"]["record_id"] for row in synthetic) < min(capped)
    over = [row["record_id"] for row in rejected if row["reason"] == "over_target"]
    accepted = [r["provenance"]["record_id"] for r in synthetic if r["provenance"]["source"] == "sums"]
    assert max(accepted) < min(over)
    size = {
        kind: sum(len(r["text"].encode()) for r in kept if (r["provenance"]["kind"] == "human") == kind)
        for kind in (1, 0)
    }
    assert size[0] <= 0.3 * (size[0] + size[1])


def test_an_exhausted_budget_is_told_or_refused(tmp_path):
    text = """\
    version: 1
    stages:
      - templates: {name: sums, count: 90, candidates: 120, law: weights, grammar: "task = {a=int 0..99}"}
      - dedup: {threshold: null}
    """
    run(write(tmp_path, text), tmp_path / "kept")
    report = json.loads((tmp_path / "kept" / "report.json").read_text())
    (target,) = report["stages"][-1]["targets"].values()
    assert target["accepted"] == len(rows_of(tmp_path / "kept")) < 90
    shown = render(tmp_path / "kept").read_text("utf-8")
    assert f"sums: {target['accepted']} of 90 wanted, from 120 candidates: the budget is exhausted" in shown
    with pytest.raises(InvalidInput) as caught:
        run(write(tmp_path, text.replace("count: 90,", "count: 90, exhausted: error,")), tmp_path / "refused")
    assert str(caught.value).startswith(
        f"stage 'sums': {target['accepted']} of 90 records wanted are left of its 120 candidates: "
        "raise candidates, lower count, or set exhausted: keep (what was done until then is in "
    )


VARIANTS = """\
version: 1
sources: [{name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human}]
stages: [{augment: {variants: 2, BUDGET ops: [{KeyboardTypo: {rate: 0.02}}]}}]
"""


def test_variants_count_what_is_accepted(tmp_path):
    made = texts(60, 3, copies=0, near=0)
    counts = {}
    for budget in ("", "candidates: 3,", "candidates: 40,"):
        out = tmp_path / f"out{len(counts)}"
        run(write(tmp_path, VARIANTS.replace("BUDGET", budget), made), out)
        check(out)
        derived = [row for row in rows_of(out) if row["provenance"]["kind"] == "augmented"]
        of = Counter(row["provenance"]["parents"][0] for row in derived)
        assert max(of.values()) <= 2
        stage = json.loads((out / "report.json").read_text())["stages"][1]
        assert stage["created"] == len(derived) + stage["rejected"]
        assert stage.get("short", 0) == 60 - sum(count == 2 for count in of.values())
        counts[budget] = len(derived)
    assert counts[""] < counts["candidates: 3,"] < counts["candidates: 40,"] == 120
    with pytest.raises(InvalidInput, match=r"^stage 'augment': record [0-9a-f]{32} has [01] of 2 variants"):
        run(write(tmp_path, VARIANTS.replace("BUDGET", "exhausted: error,"), made), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    with pytest.raises(RecipeError, match="candidates must be at least variants: 1 cannot give 2"):
        write(tmp_path, VARIANTS.replace("BUDGET", "candidates: 1,"), made)


@pytest.mark.usefixtures("small_parts")
def test_stages_in_any_order_are_joined_and_cut_right(tmp_path):
    """Two passes of record-wise stages, with a set-wise one and measures between and around them."""
    text = """\
    version: 1
    sources: [{name: real, path: in.jsonl, id: id, license: PSF-2.0, kind: human}]
    stages:
      - measure: {name: first, reference: real}
      - dedup: {threshold: null, name: copies}
      - augment: {name: one, variants: 1, keep_source: false, ops: [{TokenDropout: {rate: 0.1}}]}
      - measure: {name: second, reference: real}
      - templates: {count: 50, grammar: "task = {a=int 0..999} words are there"}
      - augment: {name: two, ops: [{KeyboardTypo: {rate: 0.05}}]}
      - dedup: {threshold: 0.6}
      - measure: {name: third, reference: real}
    output: {rows_per_shard: 37}
    """
    recipe = write(tmp_path, text, texts(150, 4))
    run(recipe, tmp_path / "out", workers=2)
    run(recipe, tmp_path / "one", workers=1)
    check(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "one" / "manifest.json").read_bytes()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["read", "first", "copies", "one", "second", "templates", "two", "dedup", "third"]
    before = None
    for stage in report["stages"]:
        assert stage["in"] + stage["created"] == stage["out"] + stage["rejected"]
        assert before is None or stage["in"] == before
        before = stage["out"]
    rows = rows_of(tmp_path / "out")
    assert before == len(rows)
    assert stages["third"]["tokens"] == sum(share["tokens"] for share in report["shares"]["kind"].values())

    import variegate as vg

    tokenizer = vg.Tokenizer.default()
    real = tokenizer.encode([json.loads(line)["text"] for line in (tmp_path / "in.jsonl").read_text().splitlines()])
    sketch = vg.collapse.Sketch.build(real)
    for name, batch in {"first": real, "third": tokenizer.encode([row["text"] for row in rows])}.items():
        measured = vg.collapse.measure(batch, reference=sketch)
        for key, value in report["measures"][name].items():
            assert getattr(measured, key) == pytest.approx(value, rel=1e-12), (name, key)
    own = vg.collapse.measure(real, reference=sketch)
    assert report["measures"]["real"]["duplicate_share"] == pytest.approx(own.duplicate_share) != 0


def ids(numbers):
    """Record ids in order of the numbers, spread over all ranges."""
    return np.array([list(int(n * (2**128 // 257) + 5).to_bytes(16, "big")) for n in numbers], np.uint8).reshape(-1, 16)


@given(st.lists(st.tuples(st.integers(0, 256), st.integers(0, 9)), unique_by=lambda x: x[0], max_size=40), st.data())
@examples(200)
def test_the_first_id_over_a_limit_is_that_of_sorting_all(rows, data):
    cuts = data.draw(st.integers(1, 5))
    limit = data.draw(st.integers(0, sum(size for _, size in rows) + 1))

    def sweep():
        for at in range(cuts):
            mine = rows[at::cuts]
            yield *_sets._halves(ids([n for n, _ in mine])), np.array([size for _, size in mine], np.int64)

    found = _sets._first_over(sweep, limit)
    total, expected = 0, None
    for number, size in sorted(rows):
        total += size
        if total > limit:
            expected = tuple(int(half[0]) for half in _sets._halves(ids([number])))
            break
    assert found == expected


@given(st.lists(st.integers(0, 256), max_size=60), st.integers(64, 4000))
@examples(200)
def test_distinct_rows_are_counted_in_any_memory(numbers, memory):
    found = _sets.count_distinct(lambda: iter([ids(numbers[:7]), ids(numbers[7:])]), len(numbers), memory)
    assert found == len(set(numbers))


def test_rows_that_share_half_an_id_are_not_the_same():
    one = ids([1, 1, 2])
    one[1, 15] ^= 1
    assert _sets.count_distinct(lambda: iter([one, one[:1]]), 4, 1 << 20) == 3


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 6))
@examples(200)
def test_a_merkle_tree_in_parts_has_the_root_of_the_whole(sizes, leaves):
    rng = np.random.default_rng(len(sizes))
    tree = provenance.MerkleTree()
    tree.leaves = 1 << leaves
    entries = [rng.integers(0, 256, (size, 32), dtype=np.uint8) for size in sizes]
    for part in entries:
        tree.update(part)
    whole = np.concatenate([np.empty((0, 32), np.uint8), *entries])
    assert tree.root() == provenance.merkle_root(whole)


@given(st.integers(1, 10**9), st.floats(0, 0.999))
def test_the_room_for_synthetic_data_is_the_largest(real, share):
    room = mix.synthetic_room(real, 1, max_synthetic=share)
    from fractions import Fraction

    exact = Fraction(str(share))
    assert Fraction(room, room + real) <= exact < Fraction(room + 1, room + 1 + real)


@pytest.mark.parametrize(
    ("given_", "bytes_"),
    [
        ("512MB", 512_000_000),
        ("1.5GB", 1_500_000_000),
        ("256MiB", 256 << 20),
        ("2 GiB", 2 << 30),
        (300_000_000, 300_000_000),
    ],
)
def test_memory_is_a_size(given_, bytes_):
    said = recipes.loads(f"version: 1\nmemory: {given_}\nsources: [{{name: a, path: a.jsonl}}]")
    assert said.memory == bytes_
    assert recipes.loads(said.to_yaml()) == said
    assert said.hash() == recipes.loads("version: 1\nsources: [{name: a, path: a.jsonl}]").hash()


@pytest.mark.parametrize(
    ("wrong", "words"), [("lots", "not 'lots'"), ("1MB", "greater than or equal"), ("512 mb", "not '512 mb'")]
)
def test_memory_that_is_none_is_refused(wrong, words):
    with pytest.raises(RecipeError, match=words):
        recipes.loads(f"version: 1\nmemory: {wrong}\nsources: [{{name: a, path: a.jsonl}}]")


ODD = {
    "one derivation": "stages: [{templates: {count: 1, grammar: 't = x'}}]",
    "all the same": "stages: [{templates: {count: 5, law: weights, grammar: 't = x'}}, {dedup: {threshold: null}}]",
    "nothing is left": "SOURCE\nstages: [{augment: {keep_source: false, ops: [{TokenDropout: {rate: 0}}]}}]",
    "nothing is left to measure": (
        "SOURCE\nstages: [{augment: {keep_source: false, ops: [{TokenDropout: {rate: 0}}]}}, {dedup: {}}, "
        "{measure: {reference: a}}]\noutput: {format: jsonl.zst}"
    ),
    "many variants": "SOURCE\nstages: [{augment: {variants: 300, ops: [{KeyboardTypo: {rate: 0.2}}]}}]",
    "nothing synthetic": "SOURCE\nmix: {max_synthetic: 0.5, retain_real: 1}",
    "no room": "SOURCE\nstages: [{augment: {ops: [{KeyboardTypo: {rate: 0.1}}]}}]\nmix: {max_synthetic: 0}",
    "a file a record": "SOURCE\noutput: {rows_per_shard: 1}",
    "a target alone": "SOURCE\nstages: [{templates: {count: 2, candidates: 9, grammar: 't = x {a=int 0..99}'}}]",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_recipes_run_whole(name, tmp_path):
    source = "sources: [{name: a, path: in.jsonl, id: id, kind: human, license: MIT}]"
    recipe = write(tmp_path, "version: 1\n" + ODD[name].replace("SOURCE", source) + "\n", ["hello world again", "ä"])
    outs = [tmp_path / "one", tmp_path / "three"]
    results = [run(recipe, out, workers=workers) for out, workers in zip(outs, (1, 3), strict=True)]
    planned = plan(recipe)
    for out, result in zip(outs, results, strict=True):
        assert check(out).rows == result.rows == planned.rows
        assert render(out).exists()
        assert not (out / "stages").exists()
        assert run(recipe, out).already_complete
    assert diff(*outs).identical


def test_a_stage_may_be_called_like_anything(tmp_path):
    text = """\
    version: 1
    sources: [{name: a, path: in.jsonl, id: id, kind: human}]
    stages: [{augment: {name: tokens, ops: [{KeyboardTypo: {rate: 0.1}}]}}, {measure: {reference: a}}]
    """
    run(write(tmp_path, text, texts(20, 6)), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["measures"]["measure"]["tokens"] == report["stages"][1]["tokens"]


def test_what_a_run_writes_is_no_input_of_the_next_call(tmp_path):
    text = "version: 1\nsources: [{name: a, path: '**/*.parquet', kind: human}]\n"
    recipe = write(tmp_path, text)
    pq.write_table(pa.table({"text": texts(20, 7)}), tmp_path / "in.parquet")
    run(recipe, tmp_path / "out")
    assert run(recipe, tmp_path / "out").already_complete


def test_damage_to_a_journal_deletes_nothing(tmp_path):
    """A record that is damaged makes those after it unreadable; what they commit stays where it is."""
    recipe = write(tmp_path, "version: 1\nsources: [{name: a, path: in.jsonl, id: id, kind: human}]\n", texts(50, 8))
    run(recipe, tmp_path / "out")
    journal = tmp_path / "out" / "journal.log"
    data = bytearray(journal.read_bytes())
    data[len(data) // 3] ^= 1
    journal.write_bytes(data)
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.read_bytes() for path in found}
    with pytest.raises(CorruptRun, match=r"journal.log is damaged"):
        run(recipe, tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before
