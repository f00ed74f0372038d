"""Runs: a recipe into a directory, exactly once, every record accounted for.

`run` does it or continues it, `plan` says what it would do, `check` verifies what it left, `diff` compares two.
"""

from __future__ import annotations

from variegate.run._check import CheckResult, check
from variegate.run._diff import (
    Example,
    Fate,
    GroupDiff,
    InputDiff,
    RecordDiff,
    RunDiff,
    ShareDiff,
    StageDiff,
    diff,
)
from variegate.run._engine import Event, RunResult, run
from variegate.run._plan import Plan, PlannedSource, PlannedStage, plan

__all__ = [
    "CheckResult",
    "Event",
    "Example",
    "Fate",
    "GroupDiff",
    "InputDiff",
    "Plan",
    "PlannedSource",
    "PlannedStage",
    "RecordDiff",
    "RunDiff",
    "RunResult",
    "ShareDiff",
    "StageDiff",
    "check",
    "diff",
    "plan",
    "run",
]
