"""The bench harness: no figure without a right answer, every figure with its circumstances, no quote without a line."""

from __future__ import annotations

import json
import re

import pytest

import _harness
import quote
from _harness import Compare, Ledger, table


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setattr(_harness, "ROUND_SECONDS", 1e-6)
    monkeypatch.setattr(_harness, "CASE_SECONDS", 1e-6)


class Bench:
    """Calls as pytest-benchmark's fixture does, without its statistics."""

    def __init__(self, *, disabled: bool = False):
        self.disabled = disabled
        self.extra_info: dict[str, object] = {}
        self.calls: list[str] = []

    def pedantic(self, target, *, setup, rounds):
        for _ in range(rounds):
            setup()
            target()


def ledger(tmp_path) -> Ledger:
    return Ledger(path=tmp_path / "results" / "machine.jsonl")


def test_a_wrong_answer_is_never_timed(tmp_path):
    record = ledger(tmp_path)
    for verdict in (False, None, 1):
        with pytest.raises(
            AssertionError, match=re.escape(f"sum: wrong answer, nothing timed (check returned {verdict!r}")
        ):
            Compare(Bench(), record)("sum", lambda: 4, check=lambda ours, _, verdict=verdict: verdict, units=1)
    assert record.lines == []
    assert not record.path.exists()


def test_ours_and_the_peer_take_turns_and_the_line_says_what_was_measured(tmp_path):
    record, turns = ledger(tmp_path), []
    line = Compare(Bench(), record)(
        "sum",
        lambda: turns.append("ours") or 3,
        lambda: turns.append("peer") or 3,
        check=lambda ours, peer: ours == peer,
        units=10,
        unit="numbers",
        peer_name="numpy.sum",
        peer_package="numpy",
        goal_rate=1.0,
        goal_ratio=1e12,
    )
    assert turns[:4] == ["ours", "ours", "peer", "peer"], "each side warms up before it is timed"
    assert line["rounds"] == line["peer"]["rounds"] == 5
    timed = "".join(turn[0] for turn in turns[4:])
    assert re.fullmatch(r"(p+o+){5}", timed)
    assert line == json.loads(record.path.read_text("utf-8")) == record.lines[0]
    assert line["rate"] == 10 / line["best"]
    assert line["ratio"] == line["peer"]["best"] / line["best"]
    assert line["peer"]["version"] == line["numpy"]
    assert line["met"] is False, "a ratio of 1e12 is out of reach"
    assert {"variegate", "python", "processor", "cores", "simd", "threads", "at"} <= line.keys()
    assert "MISSED" in "\n".join(table(record.lines))


def test_when_benchmarks_are_disabled_the_answer_is_still_checked(tmp_path):
    record = ledger(tmp_path)
    assert Compare(Bench(disabled=True), record)("sum", lambda: 4, check=lambda ours, _: ours == 4, units=1) == {}
    with pytest.raises(AssertionError, match="wrong answer"):
        Compare(Bench(disabled=True), record)("sum", lambda: 4, check=lambda ours, _: ours == 5, units=1)
    assert record.lines == []


def test_a_peer_needs_its_name(tmp_path):
    with pytest.raises(TypeError, match="sum: peer and peer_name come together"):
        Compare(Bench(), ledger(tmp_path))("sum", lambda: 4, lambda: 4, check=lambda ours, peer: ours == peer, units=1)


@pytest.mark.parametrize(
    ("goals", "met"),
    [({}, None), ({"rate": 9}, True), ({"rate": 11}, False), ({"best": 0.2}, True), ({"rate": 9, "ratio": 2}, False)],
)
def test_goals_are_floors_but_for_time(goals, met):
    assert _harness.met({"rate": 10.0, "best": 0.1, "goals": goals}) is met


def test_the_newest_line_of_a_case_is_quoted(tmp_path):
    record = ledger(tmp_path)
    for rate in (1e6, 2e6):
        record.add("a", unit="tokens", units=10, rate=rate, best=10 / rate, goals={"rate": 1.5e6}, met=rate > 1.5e6)
    record.add("no goal, no peer", unit="words", units=10, rate=1.0, best=10.0)
    text = quote.markdown(quote.newest(record.path))
    assert "| a | 2M tokens/s |  |  | >= 1.5M/s |" in text
    assert "missed" not in text
    assert "no goal" not in text
