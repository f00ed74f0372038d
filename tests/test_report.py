"""The report: it parses, it needs nothing, it escapes, and its sums are the run's."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate.errors import CorruptRun
from variegate.report import page, problems, render
from variegate.report._html import Html, tag
from variegate.report._html import text as escaped
from variegate.report._marks import difference, side_by_side, spans, tightened

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u202egnp\ud800\x00\"'"

REPORT: dict[str, Any] = {
    "version": 1,
    "variegate": "0.1.0",
    "recipe_hash": "5f1d0c4e" * 8,
    "recipe": "version: 1\nseed: 7\nsources: []\n",
    "seed": 7,
    "workers": 2,
    "seconds": 12.5,
    "inputs": [
        {
            "source": "stdlib",
            "kind": "human",
            "license": "PSF-2.0",
            "files": 1,
            "bytes": 11_500_000,
            "rows": 1000,
            "rejected": 3,
        }
    ],
    "stages": [
        {
            "name": "read",
            "kind": "read",
            "in": 1003,
            "created": 0,
            "out": 1000,
            "rejected": 3,
            "reasons": {"empty_text": 3},
            "seconds": 1.0,
            "tokens": 3_000_000,
            "bytes": 11_500_000,
            "examples": [],
        },
        {
            "name": "augment",
            "kind": "augment",
            "in": 1000,
            "created": 3000,
            "out": 4000,
            "rejected": 0,
            "reasons": {},
            "seconds": 2.5,
            "tokens": 3_000_000,
            "bytes": 12_000_000,
            "examples": [
                {
                    "op": "KeyboardTypo",
                    "record_id": "ab" * 16,
                    "before": "def f(x):\n    return x\n",
                    "after": "def g(x):\n    retirn xy\n",
                    "edits": [[4, 5, 4, 5], [17, 18, 17, 18], [22, 22, 22, 23]],
                }
            ],
        },
        {
            "name": "templates",
            "kind": "templates",
            "in": 4000,
            "created": 500,
            "out": 4500,
            "rejected": 0,
            "reasons": {},
            "seconds": 0.5,
            "tokens": 9000,
            "bytes": 30_000,
            "examples": [{"text": "what is 2 plus 3? 5", "spans": [[18, 19, "answer"]]}],
        },
        {
            "name": "dedup",
            "kind": "dedup",
            "in": 4500,
            "created": 0,
            "out": 4300,
            "rejected": 200,
            "reasons": {"near_duplicate": 150, "duplicate": 50},
            "seconds": 4.0,
            "tokens": 3_000_000,
            "bytes": 12_000_000,
            "examples": [
                {
                    "reason": "near_duplicate",
                    "similarity": 0.875,
                    "kept": {"record_id": "01" * 16, "text": "Return the first item, or raise KeyError."},
                    "dropped": {"record_id": "02" * 16, "text": "Return the last item, or raise IndexError."},
                },
                {"reason": "near_duplicate", "record_id": "03" * 16, "text": "alone"},
            ],
        },
    ],
    "measures": {
        "reference": {
            "types": 7900,
            "tokens": 3_000_000,
            "entropy": 9.81,
            "coverage": 1.0,
            "tail_coverage": 1.0,
            "duplicate_share": 0.004,
        },
        "output": {
            "types": 7000,
            "tokens": 12_000_000,
            "entropy": 9.62,
            "coverage": 0.98,
            "tail_coverage": 0.91,
            "duplicate_share": 0.0,
        },
    },
    "shares": {
        "kind": {"human": {"rows": 950, "bytes": 11_000_000}, "augmented": {"rows": 3350, "bytes": 33_000_000}},
        "source": {"stdlib": {"rows": 4300, "bytes": 44_000_000}},
        "license": {"PSF-2.0": {"rows": 4300, "bytes": 44_000_000}},
        "generation": {"0": {"rows": 4300, "bytes": 44_000_000}},
    },
    "output": {
        "format": "parquet",
        "rows": 4300,
        "bytes": 14_000_000,
        "files": [{"path": "data/part-00000.parquet", "rows": 4300, "bytes": 14_000_000, "sha256": "ef" * 32}],
        "merkle_root": "cd" * 32,
    },
}


class Page(HTMLParser):
    """Collects what a browser would act on, and checks that the elements nest."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append((self.open[-1] if self.open else "", data))

    def inside(self, *names: str) -> list[str]:
        return [data for name, data in self.pieces if name in names]

    @property
    def text(self) -> str:
        return "".join(data for _, data in self.pieces)


def test_the_page_parses_and_needs_no_other_file() -> None:
    source = page(REPORT, out="out")
    parsed = Page(source)
    names = {name for name, _ in parsed.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "svg"}
    assert not re.search(r"(?i)https?:|//[a-z]|url\(|@import", source)
    for _, attributes in parsed.tags:
        assert not {key for key in attributes if key.startswith("on")}
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_has_the_structure_that_a_screen_reader_needs() -> None:
    parsed = Page(page(REPORT, out="out"))
    levels = [int(name[1]) for name, _ in parsed.tags if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    names = [name for name, _ in parsed.tags]
    assert names.count("table") == names.count("caption") == names.count("thead") > 5
    assert all(attributes.get("scope") in ("row", "col") for name, attributes in parsed.tags if name == "th")
    assert ("html", {"lang": "en"}) in parsed.tags
    targets = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = {attributes["href"] for name, attributes in parsed.tags if name == "a"}
    assert links <= {f"#{target}" for target in targets}


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        return value + HOSTILE if isinstance(value, str) else value

    report = poisoned(REPORT) | {"version": 1}
    report["stages"][3]["reasons"] = {HOSTILE: 200}
    report["shares"]["source"] = {HOSTILE: {"rows": 4300, "bytes": 1}}
    report["measures"] = {HOSTILE: REPORT["measures"]["output"]}
    source = page(report, out=HOSTILE)
    source.encode("utf-8")
    parsed = Page(source)
    assert {name for name, _ in parsed.tags}.isdisjoint({"script", "img"})
    assert "<script>alert(1)</script>" in parsed.text
    assert "\u202e" not in source
    assert "\x00" not in source
    assert "U+202E" in parsed.text
    assert "U+D800" in parsed.text


def test_the_funnel_adds_up_and_shows_every_reason() -> None:
    assert problems(REPORT) == []
    parsed = Page(page(REPORT, out="out"))
    assert "1,003 read + 3,500 created = 4,300 written + 203 dropped." in parsed.text
    for reason, count in (("empty text", "3"), ("near duplicate", "150"), ("duplicate", "50")):
        assert f"{count} {reason}" in parsed.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["stages"][3].update(out=4301), "stage dedup: 4,500 in + 0 created is not 4,301 out + 200 dropped"),
        (
            lambda r: r["stages"][3]["reasons"].pop("duplicate"),
            "stage dedup: its reasons explain 150 of 200 dropped records",
        ),
        (lambda r: r["inputs"][0].update(rows=999), "the sources hold 999 records, stage read passed on 1,000"),
        (lambda r: r["stages"].pop(2), "stage augment passed on 4,000 records, stage dedup took 4,500"),
        (lambda r: r["output"].update(rows=9), "stage dedup passed on 4,300 records, the output holds 9"),
    ],
)
def test_a_sum_that_does_not_come_out_is_the_first_thing_on_the_page(change: Any, message: str) -> None:
    report = copy.deepcopy(REPORT)
    change(report)
    assert message in problems(report)
    parsed = Page(page(report, out="out"))
    assert "Every record is accounted for" not in parsed.text
    assert message in parsed.text


def test_edits_are_marked_at_their_offsets() -> None:
    parsed = Page(page(REPORT, out="out"))
    assert parsed.inside("del")[:2] == ["f", "u"]
    assert parsed.inside("ins")[:3] == ["g", "i", "y"]
    assert "firstKeyError" in "".join(parsed.inside("del"))
    assert "lastIndexError" in "".join(parsed.inside("ins"))
    assert parsed.inside("mark") == ["5"]


def test_edits_are_tightened_to_what_changed() -> None:
    assert tightened("a b c", "a bb c", [(0, 5, 0, 6)]) == [(3, 3, 3, 4)]
    assert tightened("same", "same", [(0, 4, 0, 4)]) == []


def test_names_differ_as_a_whole() -> None:
    assert difference("x.__lt__(y)", "x.__le__(y)") == [(2, 8, 2, 8)]


def test_of_many_examples_of_one_reason_a_few_are_shown() -> None:
    report = copy.deepcopy(REPORT)
    report["stages"][3]["examples"] = [{"reason": "long", "record_id": "ab", "text": f"text {n}"} for n in range(30)]
    assert page(report, out="out").count("dropped: long") == 4


def test_a_dropped_line_break_is_visible() -> None:
    left, right = side_by_side("a\nb", "ab", [(1, 2, 1, 1)])
    assert left == "a<del>↵\n</del>b"
    assert right == "ab"


def test_offsets_outside_the_text_are_clipped_and_not_an_error() -> None:
    left, right = side_by_side("abc", "", [(2, 9, 5, 7), (-4, 1, 0, 0)])
    assert left == "<del>a</del>b<del>c</del>"
    assert right == ""


def test_of_nested_spans_the_outer_one_is_drawn() -> None:
    assert Page(spans("abcdef", [(1, 5, "outer"), (2, 3, "inner")])).inside("mark") == ["bcde"]


words = st.lists(st.sampled_from(["a", "bb", "_", "é", " ", "\n", ".", "漢"]), max_size=40).map("".join)


@examples(150)
@given(words, words)
def test_a_difference_turns_one_text_into_the_other(kept: str, dropped: str) -> None:
    rebuilt, at = "", 0
    for start, end, out_start, out_end in difference(kept, dropped):
        rebuilt += kept[at:start] + dropped[out_start:out_end]
        at = end
    assert rebuilt + kept[at:] == dropped


@examples(150)
@given(words, st.lists(st.tuples(*[st.integers(-2, 60)] * 4), max_size=8))
def test_marked_text_is_the_text(value: str, edits: list[tuple[int, int, int, int]]) -> None:
    for pane in side_by_side(value, value, edits):
        assert Page(pane).text.replace("↵", "") == value


def test_a_long_text_is_shortened_around_its_edits_and_says_by_how_much() -> None:
    rng = random.Random(3)
    value = "".join(rng.choice("abcd ") for _ in range(20_000))
    left, _ = side_by_side(value, value, [(1000, 1004, 1000, 1004), (1900, 1901, 1900, 1901)])
    parsed = Page(left)
    assert parsed.inside("del") == [value[1000:1004], value[1900:1901]]
    hidden = sum(int(number.replace(",", "")) for number in re.findall(r"… ([\d,]+) characters …", parsed.text))
    shown = len(re.sub(r" … [\d,]+ characters … ", "", parsed.text))
    assert hidden + shown == len(value)
    assert shown < 1000


def test_differences_of_very_long_texts_are_bounded() -> None:
    edits = difference("x" + "a b " * 500_000, "y" + "b a " * 500_000)
    assert edits[-1][1] > 1_000_000


def test_escaping_leaves_ordinary_text_alone() -> None:
    assert escaped("a\tb\nñ 漢 👩‍👩‍👧") == "a\tb\nñ 漢 👩‍👩‍👧"
    assert tag("a", Html("<b>"), "<b>", title='"', hidden=None) == '<a title="&quot;"><b>&lt;b&gt;</a>'


def test_an_empty_run_still_has_a_report() -> None:
    report = copy.deepcopy(REPORT)
    report["inputs"], report["stages"], report["measures"], report["shares"] = [], [], {}, {}
    report["output"].update(rows=0, bytes=0, files=[])
    report["seconds"] = 0.0
    parsed = Page(page(report, out="out"))
    assert "0 read + 0 created = 0 written + 0 dropped." in parsed.text


def test_render_writes_beside_the_json(tmp_path: Any) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    assert render(tmp_path) == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(REPORT, out=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing: finish the run first (variegate run RECIPE -o"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "this Variegate reads reports of version 1, found 'list'"),
        (b'{"version": 2}', "this Variegate reads reports of version 1, found 2"),
        (b'{"version": 1}', "lacks what a report must have (KeyError: 'stages')"),
    ],
)
def test_a_report_that_cannot_be_read_says_why(tmp_path: Any, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(CorruptRun) as caught:
        render(tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "report.html").exists()
