"""Writes the measured figures into README.md: the newest line of each case in a results file, and nothing else.

    python benches/quote.py benches/results/<machine>.jsonl

A test holds the README to what this writes.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"<!-- figures of (?P<file>\S+) -->\n(?P<table>.*?)<!-- end of figures -->\n", re.S)
"""A table in README.md; each results file has at most one."""


def newest(path: Path) -> list[dict[str, Any]]:
    """The last line of each case, in the order in which the cases first appeared."""
    lines: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines():
        measured = json.loads(line)
        lines[measured["case"]] = measured
    return list(lines.values())


def markdown(lines: list[dict[str, Any]]) -> str:
    """The cases that have a goal or a peer, as a table under the machine's name."""
    quoted = [line for line in lines if line.get("peer") or line.get("goals")]
    rows = ["| case | Variegate | peer | ratio | goal |", "|---|---|---|---|---|"]
    for line in quoted:
        peer, goals = line.get("peer"), line.get("goals", {})
        theirs = f"{peer['name']} {peer['version'] or ''}".strip() + f": {quantity(peer['rate'])}/s" if peer else ""
        ours = f"{quantity(line['rate'])} {line['unit']}/s" if line["units"] > 1 else duration(line["best"])
        ours = f"{duration(line['best'])} a call" if "best" in goals and line["units"] > 1 else ours
        ratio = f"{line['ratio']:.1f}x" if peer else ""
        goal = ", ".join(goal_text(key, goal) for key, goal in goals.items())
        missed = " **missed**" if line.get("met") is False else ""
        rows.append(f"| {line['case']} | {ours} | {theirs} | {ratio} | {goal}{missed} |")
    last = quoted[-1]
    where = f"{last['processor']}, {last['cores']} cores, {last['simd']}; threads: {last['threads']}"
    return "\n".join([*rows, "", f"{where}; Python {last['python']}, numpy {last['numpy']}.", ""])


def goal_text(key: str, goal: float) -> str:
    """One goal as text; rates and ratios are floors, the others are ceilings."""
    return {
        "rate": f">= {quantity(goal)}/s",
        "ratio": f">= {goal:g}x",
        "best": f"<= {duration(goal)}",
        "first_row_seconds": f"first row <= {duration(goal)}",
        "peak_memory_bytes": f"memory <= {quantity(goal)}B",
        "peak_disk_ratio": f"disk <= {goal:g}x the output",
    }[key]


def quantity(value: float) -> str:
    """A count with three digits and a unit prefix."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


if __name__ == "__main__":
    results = Path(sys.argv[1]).resolve()
    name = results.relative_to(README.parent).as_posix()
    block = f"<!-- figures of {name} -->\n{markdown(newest(results))}<!-- end of figures -->\n"
    text = README.read_text("utf-8")
    if [found["file"] for found in BLOCK.finditer(text)].count(name) != 1:
        sys.exit(f"README.md must hold one block of the figures of {name}")
    README.write_text(BLOCK.sub(lambda found: block if found["file"] == name else found[0], text), "utf-8")
