"""What was measured, as tables on the terminal, Markdown and JSON. Knows figures, not how they came about."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from contenders import Product
    from rows import Row

RESULTS = Path(__file__).resolve().parent / "results"
TITLES = {"redis": "Redis", "rabbitmq": "RabbitMQ", "sqlite": "SQLite, embedded"}


@dataclass
class Figure:
    """One row of one product: its runs."""

    row: Row
    product: Product
    runs: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""

    def median(self, name: str) -> float | None:
        values = [run[name] for run in self.runs if name in run]
        return statistics.median(values) if values else None

    @property
    def value(self) -> float | None:
        return self.median(self.row.figure)

    @property
    def note(self) -> str:
        notes = [run["note"] for run in self.runs if run.get("note")]
        return self.failure or (notes[-1] if notes else "")

    def as_dict(self) -> dict[str, Any]:
        return {
            "row": self.row.name, "title": self.row.title, "product": self.product.name, "median": self.value,
            "unit": self.row.unit, "runs": self.runs, "note": self.note,
        }  # fmt: skip


@dataclass
class Grid:
    title: str
    header: list[str]
    rows: list[list[str]]

    def as_rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", show_lines=any("\n" in "".join(row) for row in self.rows))
        for place, name in enumerate(self.header):
            table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("\n", " · ").replace("|", "\\|") for cell in cells) + " |"

        ruler = "|---|" + "---:|" * (len(self.header) - 1)
        return "\n".join([f"### {self.title}", "", line(self.header), ruler, *map(line, self.rows), ""])


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    number = f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
    return number + unit if unit.startswith("/") else f"{number} {unit}"


class Report:
    """Gathers figures in the order in which they come."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.began = time.time()
        self.load_before = os.getloadavg()[0]
        self.figures: list[Figure] = []
        self.limits: dict[str, dict[str, float]] = {}
        #: free lines: broker, what, value, unit, goal
        self.extras: list[dict[str, Any]] = []
        self.stages: dict[str, dict[str, tuple[float, float]]] = {}  #: wall and processor time
        self.versions: dict[str, str] = {}

    def figure(self, row: Row, product: Product) -> Figure:
        for figure in self.figures:
            if figure.row is row and figure.product is product:
                return figure
        self.figures.append(Figure(row, product))
        return self.figures[-1]

    # ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────

    def own(self, row: Row) -> float | None:
        return next((one.value for one in self.figures if one.row is row and one.product.own), None)

    def verdict(self, row: Row) -> tuple[str, str]:
        """What was to be reached and measured beside it, and whether it was."""
        goal, value = row.goal, self.own(row)
        assert goal is not None
        against, is_met, is_known = [], False, False
        if goal.least is not None or goal.most is not None:
            is_known = True
            is_met = value is not None and (value >= goal.least if goal.least is not None else value < (goal.most or 0))
        runs = next((one.runs for one in self.figures if one.row is row and one.product.own), [])
        shares = [row.as_rate(run[row.figure]) / run["limit"] for run in runs if run.get("limit")]
        if shares:
            is_known = True
            share, limit = statistics.median(shares), statistics.median(run["limit"] for run in runs)
            against.append(f"{share:.0%} of {shown(limit, '/s')} ({goal.limit})")
            is_met = is_met or share >= goal.share
        if goal.times:
            rivals = [
                one.value for one in self.figures
                if one.row is row and not one.product.own and one.product.name.startswith(goal.product) and one.value
            ]  # fmt: skip
            if rivals and value is not None:
                is_known = True
                against.append(f"{value / max(rivals):,.1f} × {shown(max(rivals), '/s')}")
                is_met = is_met or value >= goal.times * max(rivals)
        if not is_known or value is None:
            return "; ".join(against), "?"
        return "; ".join(against), "reached" if is_met else "MISSED"

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────

    def grids(self) -> list[Grid]:
        found: list[Grid] = []
        for broker in TITLES:
            figures = [one for one in self.figures if one.row.broker == broker]
            if figures:
                found.append(self._side_by_side(broker, figures))
                found += self._processor_time(broker, figures)
        rows = list({id(one.row): one.row for one in self.figures if one.row.goal and one.product.own}.values())
        if rows:
            lines = [
                [
                    f"{TITLES[row.broker]}: {row.title}", shown(self.own(row), row.unit), row.goal.text,
                    *self.verdict(row),
                ]
                for row in rows if row.goal is not None
            ]  # fmt: skip
            found.append(Grid("what celeriac had to reach", ["figure", "celeriac", "goal", "beside it", ""], lines))
        if self.extras:
            lines = [
                [one["what"], shown(one["value"], one["unit"]), one["goal"], one.get("verdict", "")]
                for one in self.extras
            ]  # fmt: skip
            found.append(Grid("more figures", ["figure", "value", "goal", ""], lines))
        for broker, limits in self.limits.items():
            lines = [[name, shown(value, "/s")] for name, value in limits.items()]
            found.append(
                Grid(f"{TITLES[broker]}: limits of this machine, no product involved", ["what", "rate"], lines)
            )
        if self.stages:
            names = list(dict.fromkeys(name for stages in self.stages.values() for name in stages))
            lines = [
                [name, *(_wall_and_cpu(stages[name]) if name in stages else "–" for stages in self.stages.values())]
                for name in names
            ]  # fmt: skip
            header = ["stage", *(f"{TITLES[broker]}: wall, processor" for broker in self.stages)]
            found.append(Grid("celeriac, stage by stage, µs per message", header, lines))
        return found

    def _side_by_side(self, broker: str, figures: list[Figure]) -> Grid:
        rows = list({id(one.row): one.row for one in figures}.values())
        products = list({one.product.name: one.product for one in figures}.values())
        lines = []
        for product in products:
            line = [product.name]
            for row in rows:
                figure = next((one for one in figures if one.row is row and one.product is product), None)
                line.append(self._cell(row, figure))
            lines.append(line)
        header = [f"{row.title}, {row.unit}" if row.unit == "ms" else row.title for row in rows]
        return Grid(f"{TITLES[broker]} (below each rival: how much better celeriac is)", ["", *header], lines)

    def _cell(self, row: Row, figure: Figure | None) -> str:
        if figure is None:
            return ""
        if figure.value is None:
            return "failed" if figure.failure else "–"
        text = shown(figure.value, row.unit) + ("*" if figure.note else "")
        if row.unit == "ms" and (tail := figure.median("p99")) is not None:
            text = f"{figure.value:,.2f}, p99 {tail:,.1f}" + ("*" if figure.note else "")
        mine = self.own(row)
        if mine and not figure.product.own:
            ratio = mine / figure.value if row.more_is_better else figure.value / mine
            text += f"\n{ratio:,.1f} ×"
        return text

    def _processor_time(self, broker: str, figures: list[Figure]) -> list[Grid]:
        figures = [one for one in figures if one.row.key in ("drain", "drain-results") and one.value]
        if not figures:
            return []
        cores = os.cpu_count() or 1
        header = [
            "", "row", "all worker processes", "its parent", "parent's loop", "broker and store",
            f"{cores} cores allow",
        ]  # fmt: skip
        lines = [
            [
                one.product.name, one.row.title,
                *(shown(one.median(name), "µs") for name in ("worker_us", "parent_us", "loop_us", "server_us")),
                shown(cores * 1e6 / ((one.median("worker_us") or 0) + (one.median("server_us") or 0)), "/s"),
            ]
            for one in figures
        ]  # fmt: skip
        return [Grid(f"{TITLES[broker]}: processor time per task", header, lines)]

    def notes(self) -> list[str]:
        lines = [
            f"{one.row.name}, {one.product.name}: {' '.join(one.note.split())[-300:]}"
            for one in self.figures
            if one.note
        ]
        configurations: dict[str, str] = {}
        for one in self.figures:
            name = f"{one.product.name} ({TITLES[one.row.broker]})"
            configurations[name] = one.product.note
        lines += [f"{name}: {note}" for name, note in configurations.items()]
        return lines

    def facts(self) -> dict[str, str]:
        model = ""
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        return {
            "command": self.command,
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.began)),
            "took": f"{(time.time() - self.began) / 60:.1f} minutes",
            "machine": f"{os.cpu_count()} cores, {model or platform.machine()}, {platform.platform(terse=True)}",
            "load": f"{self.load_before:.2f} before the run (other work on the machine makes everything slower)",
            "Python": platform.python_version(),
            "commit": _commit(),
            **self.versions,
        }

    # ── where they go ────────────────────────────────────────────────────────────────────────────────────────

    def show(self, console: Console) -> None:
        console.print()
        for grid in self.grids():
            console.print(grid.as_rich())
        for note in self.notes():
            console.print(f"* {note}", style="dim", highlight=False, markup=False)
        for name, value in self.facts().items():
            console.print(f"{name}: {value}", style="dim", highlight=False, markup=False)

    def save(self) -> Path:
        """JSON for programs, Markdown for people; the path without its ending."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / time.strftime("bench-%Y%m%d-%H%M%S", time.gmtime(self.began))
        document = {
            "about": self.facts(), "figures": [one.as_dict() for one in self.figures], "limits": self.limits,
            "extras": self.extras, "stages": self.stages, "notes": self.notes(),
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
        parts = ["# celeriac and its peers", ""]
        parts += [f"- {name}: {value}" for name, value in self.facts().items()]
        parts += ["", *(grid.as_markdown() for grid in self.grids())]
        parts += [f"- {note}" for note in self.notes()]
        path.with_suffix(".md").write_text("\n".join(parts) + "\n")
        return path


def _wall_and_cpu(spent: tuple[float, float]) -> str:
    return ", ".join(f"{value:,.1f}" for value in spent)


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
