"""What a run of the scorecard leaves: a table for people, ``scorecard.json`` for programs, and Markdown for a page."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from scorecard.run import Outcome

#: verdicts, the best first
_STYLES = {"skipped": "dim", "pass": "green", "fail": "bold red", "error": "bold magenta"}


class Row(NamedTuple):
    """An experiment on a broker, with the outcomes of each product: one for each seed."""

    number: int
    name: str
    broker: str
    outcomes: dict[str, list[Outcome]]

    def verdict(self, product: str) -> str:
        """The worst, and of several how many passed."""
        found = [outcome.verdict for outcome in self.outcomes.get(product, ())]
        if not found:
            return "–"
        worst = max(found, key=list(_STYLES).index)
        return worst if len(found) == 1 else f"{worst} ({found.count('pass')} of {len(found)})"

    @property
    def shown(self) -> Outcome:
        """The one whose figures stand in the table."""
        return next(iter(self.outcomes.values()))[0]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    found: dict[tuple[int, str], Row] = {}
    for outcome in outcomes:
        key = (outcome.number, outcome.broker)
        row = found.setdefault(key, Row(outcome.number, outcome.name, outcome.broker, {}))
        row.outcomes.setdefault(outcome.product, []).append(outcome)
    return list(found.values())


def table(outcomes: Sequence[Outcome], products: Sequence[str]) -> Table:
    made = Table(title="Scorecard", title_justify="left")
    for heading in ("#", "experiment", "broker", *products, "figures", "s"):
        made.add_column(heading, justify="right" if heading in ("#", "s") else "left")
    for row in rows(outcomes):
        verdicts = [row.verdict(product) for product in products]
        styled = [f"[{_STYLES.get(text.split()[0], 'none')}]{text}[/]" for text in verdicts]
        numbers, seconds = figures(row.shown.numbers), f"{row.shown.seconds:.0f}"
        made.add_row(str(row.number), row.name, row.broker, *styled, numbers, seconds)
    return made


def figures(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in numbers.items())


def _short(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """A paragraph for each outcome that is no success."""
    found = []
    for outcome in outcomes:
        if outcome.verdict not in ("fail", "error"):
            continue
        broken = [check for check in outcome.checks if "BROKEN" in check]
        lines = [f"{outcome.title}, seed {outcome.seed}:"]
        lines += [f"  {line}" for line in [*broken, *outcome.reason.strip().splitlines()]]
        lines += [f"  history and logs: {outcome.kept}"] if outcome.kept else []
        found.append("\n".join(lines))
    return found


def write(folder: Path, outcomes: Sequence[Outcome], products: Sequence[str], settings: dict[str, Any]) -> None:
    """``scorecard.json`` and ``scorecard.md`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"), "python": platform.python_version(),
        "machine": platform.platform(), **settings,
    }  # fmt: skip
    whole = msgspec.json.encode({"about": about, "outcomes": list(outcomes)})
    (folder / "scorecard.json").write_bytes(msgspec.json.format(whole))
    lines = ["# Scorecard", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [f"| # | experiment | broker | {' | '.join(products)} | figures | seconds |"]
    lines += [f"|---|---|---|{'---|' * len(products)}---|---|"]
    for row in rows(outcomes):
        verdicts = " | ".join(row.verdict(product) for product in products)
        where = f"{row.broker} {row.shown.broker_version}".strip()
        tail = f"{figures(row.shown.numbers)} | {row.shown.seconds:.0f}"
        lines.append(f"| {row.number} | {row.name} | {where} | {verdicts} | {tail} |")
    lines += [f"\n```\n{text}\n```" for text in failures(outcomes)]
    (folder / "scorecard.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
