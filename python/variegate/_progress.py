"""How far a run is: a live table with one line a stage on a terminal, JSON lines otherwise."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.table import Table

    from variegate.run import Event

__all__ = ["show"]

Listener = Callable[["Event"], None]

_EVERY = 0.5  # seconds between two JSON lines of one stage


@contextmanager
def show(kind: Literal["live", "json", "none"] | str, stream: TextIO) -> Iterator[Listener | None]:
    """Gives what to pass to `variegate.run.run` as `progress`, and draws on `stream` until the block ends."""
    if kind == "live":
        from rich.console import Console
        from rich.live import Live

        lines: dict[int, Event] = {}
        console = Console(file=stream, highlight=False)
        # The spinner and the clock move between events, so the table is made anew at every refresh.
        began = time.monotonic()
        with Live(
            console=console,
            get_renderable=lambda: _table(lines, console.width, time.monotonic() - began),
            refresh_per_second=8,
        ) as live:
            yield lambda event: lines.__setitem__(event.index, event)
            live.refresh()
    elif kind == "json":
        said: dict[int, float] = {}

        def say(event: Event) -> None:
            now = time.monotonic()
            if event.finished or now - said.get(event.index, -_EVERY) >= _EVERY:
                said[event.index] = now
                stream.write(json.dumps(dataclasses.asdict(event)) + "\n")
                stream.flush()

        yield say
    else:
        yield None


def _table(lines: dict[int, Event], width: int, elapsed: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    wide, medium = width >= 100, width >= 72
    table.add_column("", width=1)
    table.add_column("stage", no_wrap=True)
    for title, shown in (("rows", True), ("accepted", True), ("rows/s", medium), ("tokens/s", wide)):
        if shown:
            table.add_column(title, justify="right", no_wrap=True)
    if wide:
        table.add_column("top reject reason", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for _, event in sorted(lines.items()):
        mark = Text("✓", "green") if event.finished else Text("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(elapsed * 8) % 10], "cyan")
        cells: list[str | Text] = [
            mark,
            Text(event.stage, "" if event.finished else "bold"),
            f"{event.rows_in:,}" if event.rows_in else "–",
            _share(event),
        ]
        if medium:
            cells.append(_rate(event.rows_per_second) if event.rows_in else "–")
        if wide:
            cells.append(_rate(event.tokens_per_second) if event.tokens_per_second else "–")
            reason = "" if event.top_reason is None else f"{event.rejected:,} rejected, most: {event.top_reason}"
            cells.append(Text(reason, "yellow"))
        cells.append(_time(event) if medium else f"{event.seconds:.1f} s")
        table.add_row(*cells)
    return table


def _share(event: Event) -> str:
    return f"{event.rows_out / event.rows_in:.1%}" if event.rows_in else "–"


def _rate(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _time(event: Event) -> str:
    spent = f"{event.seconds:.1f} s"
    left = _left(event)
    return spent if left is None else f"{spent}, {left:.0f} s left"


def _left(event: Event) -> float | None:
    """Seconds to go in this stage, if it is known how many parts it has."""
    if event.finished or not event.parts or event.parts_total is None:
        return None
    return event.seconds * (event.parts_total - event.parts) / event.parts
