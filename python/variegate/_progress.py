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

        lines: dict[int, tuple[Event, float]] = {}
        console = Console(file=stream, highlight=False)
        # The spinner and the clock move between events, so the table is made anew at every refresh.
        with Live(
            console=console,
            get_renderable=lambda: _table(lines, console.width, time.monotonic()),
            refresh_per_second=8,
        ) as live:
            yield lambda event: lines.__setitem__(event.index, (event, time.monotonic()))
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


def _table(lines: dict[int, tuple[Event, float]], width: int, now: float) -> Table:
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
    for _, (event, told) in sorted(lines.items()):
        since = 0.0 if event.finished else now - told
        mark = Text("✓", "green") if event.finished else Text("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(now * 8) % 10], "cyan")
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
        cells.append(_time(event, since, left=medium))
        table.add_row(*cells)
    return table


def _share(event: Event) -> str:
    return f"{event.rows_out / event.rows_in:.1%}" if event.rows_in else "–"


def _rate(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _time(event: Event, since: float, *, left: bool) -> str:
    """How long the stage has taken, and how long it will where its number of parts is known."""
    spent = f"{event.seconds + since:.1f} s"
    if not left or event.finished or not event.parts or event.parts_total is None:
        return spent
    to_go = event.seconds * (event.parts_total - event.parts) / event.parts - since
    return f"{spent}, {max(to_go, 0):.0f} s left"
