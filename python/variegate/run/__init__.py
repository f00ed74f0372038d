"""Runs: a recipe into a directory, exactly once, every record accounted for.

`run` does it or continues it, `plan` says what it would do, `check` verifies what it left.
"""

from __future__ import annotations

from variegate.run._check import CheckResult, check
from variegate.run._engine import Event, RunResult, run
from variegate.run._plan import Plan, PlannedSource, PlannedStage, plan

__all__ = [
    "CheckResult",
    "Event",
    "Plan",
    "PlannedSource",
    "PlannedStage",
    "RunResult",
    "check",
    "plan",
    "run",
]
