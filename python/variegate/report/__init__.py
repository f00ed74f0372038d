"""The report of a run: one HTML file that needs no network, no script and no other file.

`render` reads `report.json` of a run directory and writes `report.html` beside it. The JSON is the record of the run,
the page is only a view of it: a program should read the JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from variegate.errors import CorruptRun
from variegate.report._page import page, problems

__all__ = ["page", "problems", "render"]

_VERSION = 1


def render(out: str | os.PathLike[str]) -> Path:
    """Writes `report.html` from `report.json` of the run directory `out` and returns its path.

    The page is written to a temporary file and renamed, so that a reader never sees half of it.

    Raises:
        CorruptRun: `report.json` is missing, is not JSON, or lacks what a report must have.
    """
    source = Path(out) / "report.json"
    target = source.with_suffix(".html")
    try:
        report: Any = json.loads(source.read_bytes())
    except FileNotFoundError:
        raise CorruptRun(f"{source} is missing: finish the run first (variegate run RECIPE -o {out})") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptRun(f"{source} is not JSON ({error}): run the recipe again to write it anew") from None
    if not isinstance(report, dict) or report.get("version") != _VERSION:
        found = report.get("version") if isinstance(report, dict) else type(report).__name__
        raise CorruptRun(f"{source}: this Variegate reads reports of version {_VERSION}, found {found!r}")
    try:
        html = page(report, out=str(out))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptRun(f"{source} lacks what a report must have ({type(error).__name__}: {error})") from error
    temporary = target.with_suffix(".html.tmp")
    temporary.write_text(html, encoding="utf-8", newline="\n")
    temporary.replace(target)
    return target
