"""The demo's progress: a bar on a terminal, a line now and then in a pipe, nothing when quiet."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from celeriac.cli.output import console, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: in a pipe, a line for each such part of the whole
_PARTS = 10


class Meter(Protocol):
    """Shows how far it is."""

    def show(self, done: int, failed: int) -> None: ...


class NoMeter:
    def show(self, done: int, failed: int) -> None:
        pass


class LineMeter:
    """Ten lines from nothing to all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = 0

    def show(self, done: int, failed: int) -> None:
        if done >= self._next:
            say(f"  {done:,} of {self._total:,} files done, {failed} failed")
            while self._next <= done:
                self._next += max(1, self._total // _PARTS)


class BarMeter:
    """rich's bar with rate and time left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, done: int, failed: int) -> None:
        shown = f", {failed} failed" if failed else ""
        speed = self._progress.tasks[0].speed or 0.0
        self._progress.update(self._task, completed=done, note=f"{speed:,.0f} tasks/s{shown}")


def open_meter(stack: ExitStack, total: int, done: int, *, color: bool, quiet: bool) -> Meter:
    """The meter that fits where we print; ``stack`` closes it."""
    if quiet:
        return NoMeter()
    if not sys.stdout.isatty():
        return LineMeter(total)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = stack.enter_context(
        Progress(
            TextColumn("parsing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("time left"),
            TimeRemainingColumn(),
            console=console(color),
            transient=True,
        )
    )
    return BarMeter(progress, progress.add_task("parsing", total=total, completed=done, note=""))
