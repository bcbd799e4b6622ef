"""Progress on stderr: a rich bar when somebody watches a terminal, else a plain line now and then.

with progress("importing", total=39_309, unit="rows") as bar:
    bar.advance(4_096)
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from bezant.cli.output import write_remark

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S: Final = 10.0
"""Seconds between two plain lines: enough to see life in a log file, without filling it."""


class Bar(Protocol):
    """What a command tells about its progress."""

    def advance(self, count: int) -> None:
        """So many more units are done."""

    def update(self, done: int, total: int) -> None:
        """So many units are done in all, of so many."""


class _RichBar:
    """A bar on a terminal."""

    def __init__(self, display: "Progress", task: "TaskID") -> None:
        self._display = display
        self._task = task

    def advance(self, count: int) -> None:
        self._display.advance(self._task, count)

    def update(self, done: int, total: int) -> None:
        self._display.update(self._task, completed=done, total=total)


class _PlainBar:
    """Lines for a file or a pipe; says nothing about work that ends within LINE_EVERY_S."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title = title
        self._done = 0
        self._total = total
        self._unit = unit
        self._line_due_s = time.monotonic() + LINE_EVERY_S

    def advance(self, count: int) -> None:
        self.update(self._done + count, self._total)

    def update(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if time.monotonic() < self._line_due_s:
            return
        self._line_due_s = time.monotonic() + LINE_EVERY_S
        write_remark(f"{self._title}: {done:,} of {total:,} {self._unit}")


@contextmanager
def progress(title: str, *, total: int, unit: str, stream: TextIO | None = None) -> Iterator[Bar]:
    """Show progress on `stream` (stderr) while the block runs. `total` counts `unit`s; `Bar.update` may correct it."""
    target = stream or sys.stderr
    if not target.isatty():
        yield _PlainBar(title, total, unit)
        return
    # rich takes 60 ms to load: only for someone who sees it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<17}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=target)) as display:
        yield _RichBar(display, display.add_task(title, total=total))
