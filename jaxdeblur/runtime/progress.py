"""A live line on the terminal."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jaxdeblur.errors import printable


class ProgressLine:
    """One live bar with a message on a terminal, plain lines elsewhere; a context manager.

    Args:
      total: what `update` counts up to.
      completed: where it starts.
      quiet: whether to print nothing, as all processes of a job but one.
    """

    def __init__(self, description: str, total: int, completed: int = 0, quiet: bool = False):
        self._console = Console(stderr=True, quiet=quiet)
        self._description = description
        self._total = total
        self._start = (completed, time.monotonic())
        self._progress = Progress(
            TextColumn(description),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[message]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            description, total=total, completed=completed, message=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, completed: int, message: str | None = None) -> None:
        """Moves the bar; a message replaces the last one, or is printed if there is no bar."""
        self._progress.update(self._task, completed=completed)
        if message is None:
            return
        self._progress.update(self._task, message=message)
        if not self._console.is_terminal:
            first, started = self._start
            pace = (time.monotonic() - started) / max(completed - first, 1)
            left = duration(pace * (self._total - completed))
            self.print(f"{self._description} {completed}/{self._total}  {message}  {left} left")

    def print(self, line: str) -> None:
        """Prints a line that stays, above the bar."""
        line = printable(line)
        self._console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


def duration(seconds: float) -> str:
    """Returns a time as hours, minutes and seconds, with days before them where there are any."""
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    told = f"{days} day{'s' * (days > 1)} " if days else ""
    return f"{told}{hours:02d}:{minutes:02d}:{seconds_left:02d}"
