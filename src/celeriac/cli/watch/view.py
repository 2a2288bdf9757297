"""The model as something that rich can draw. Everything that came in an event is escaped."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from celeriac.cli.output import lines, one_line
from celeriac.cli.watch.model import FILTERS, KEYS
from celeriac.rules import states

if TYPE_CHECKING:
    from rich.console import RenderableType

    from celeriac.cli.watch.model import Model
    from celeriac.rules.cluster import Task

_COLORS = {
    states.SUCCESS: "green", states.FAILURE: "red", states.REVOKED: "magenta", states.REJECTED: "magenta",
    states.STARTED: "cyan", states.RECEIVED: "blue", states.RETRY: "yellow", states.PENDING: "dim",
}  # fmt: skip
#: lines that the frames, headings and the last line take
_FRAME = 3
_MOST_WORKERS = 12


def draw(model: Model, title: str, width: int, height: int) -> RenderableType:
    """The whole screen."""
    workers = model.state.workers
    workers_height = min(len(workers), _MOST_WORKERS) + _FRAME if workers else _FRAME
    info_height = height // 2 if model.shows_info else 0
    tasks_height = max(height - 2 - workers_height - info_height, _FRAME + 1)
    layout = Layout()
    parts = [
        Layout(_heading(model, title), size=1),
        Layout(_workers(model), size=workers_height),
        Layout(_tasks(model, tasks_height - _FRAME, width), size=tasks_height),
    ]
    if model.shows_info:
        parts.append(Layout(_info(model.selected_task()), size=info_height))
    parts.append(Layout(_last_line(model), size=1))
    layout.split_column(*parts)
    return layout


def _heading(model: Model, title: str) -> Text:
    rates = model.rates
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(" celeriac events ", "bold reverse")
    text.append(f" {one_line(title)}   ")
    for label, kinds, style in (
        ("received", ("task-received",), "blue"),
        ("succeeded", ("task-succeeded",), "green"),
        ("failed", ("task-failed",), "red"),
        ("retried", ("task-retried",), "yellow"),
    ):
        text.append(f"{label} ", "dim")
        text.append(f"{rates.of(*kinds):,.1f}/s  ", style)
    return text


def _workers(model: Model) -> RenderableType:
    alive = {worker.hostname for worker in model.state.alive_workers()}
    workers = sorted(model.state.workers.values(), key=lambda worker: worker.hostname)[:_MOST_WORKERS]
    if not workers:
        return Text("\n  No worker has given a sign of life yet.", "dim")
    drawn = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    drawn.add_column("worker", ratio=3, no_wrap=True, overflow="ellipsis")
    for column in ("active", "processed", "load"):
        drawn.add_column(column, justify="right")
    drawn.add_column("software", ratio=2, no_wrap=True, overflow="ellipsis")
    for worker in workers:
        there = worker.hostname in alive
        name = Text("● ", "green" if there else "red") + Text(one_line(worker.hostname), "" if there else "dim")
        load = " ".join(f"{value:.2f}" for value in worker.loadavg or [])
        software = " ".join(filter(None, (worker.sw_ident, worker.sw_ver, worker.sw_sys)))
        drawn.add_row(
            name, _number(worker.active), _number(worker.processed), load, Text(one_line(software), "dim")
        )  # fmt: skip
    return drawn


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _tasks(model: Model, room: int, width: int) -> RenderableType:
    tasks = model.tasks()
    if not tasks:
        kind = FILTERS[model.filter][0]
        hint = "No task yet." if kind == "all" else f"No {kind} task."
        if not model.wants_events and kind == "all":
            hint += " Workers without -E send task events when they are told to: press e."
        return Text(f"\n  {hint}", "dim")
    ids = [task.uuid for task in tasks]
    place = ids.index(model.selected) if model.selected in ids else 0
    first = max(0, min(place - room // 2, len(tasks) - room))
    drawn = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    drawn.add_column("time", no_wrap=True)
    drawn.add_column("task", ratio=3, no_wrap=True, overflow="ellipsis")
    drawn.add_column("id", ratio=2, no_wrap=True, overflow="ellipsis")
    if width >= 110:
        drawn.add_column("worker", ratio=2, no_wrap=True, overflow="ellipsis")
    drawn.add_column("state", no_wrap=True)
    drawn.add_column("runtime", justify="right", no_wrap=True)
    for task in tasks[first : first + max(room, 1)]:
        cells: list[RenderableType] = [
            _time(task.timestamp), one_line(task.name or "?"), Text(one_line(task.uuid), "dim"),
        ]  # fmt: skip
        if width >= 110:
            cells.append(Text(one_line(task.worker or "-"), "dim"))
        cells.append(Text(one_line(task.state), _COLORS.get(task.state, "white")))
        cells.append("" if task.runtime is None else f"{task.runtime:.3f} s")
        drawn.add_row(*cells, style="reverse" if task.uuid == model.selected else "")
    return drawn


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "-"


def _info(task: Task | None) -> RenderableType:
    if task is None:
        return Panel(Text("It is not remembered any more.", "dim"))
    text = Text()
    for name, value in (("id", task.uuid), ("state", task.state), ("worker", task.worker), *task.info().items()):
        text.append(f"{name:>12}  ", "dim")
        text.append(f"{one_line(value)}\n")
    parts: list[RenderableType] = [text]
    if task.traceback:
        parts.append(Text(lines(task.traceback), "red"))
    return Panel(Group(*parts), title=Text(one_line(task.name or task.uuid)), title_align="left")


def _last_line(model: Model) -> Text:
    if model.question is not None:
        return Text(f" {one_line(model.question)} ", "bold reverse")
    text = Text(f" {KEYS}", "dim", no_wrap=True, overflow="ellipsis")
    marks = [FILTERS[model.filter][0]] if model.filter else []
    if model.is_paused:
        marks.append("paused")
    if marks:
        text.append(f"   [{', '.join(marks)}]", "bold")
    if model.message:
        text.append(f"   {one_line(model.message)}", "yellow")
    return text
