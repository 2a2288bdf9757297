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
    made = Table(title="Scorecard", title_justify="left", show_lines=False)
    for heading in ("#", "experiment", "broker", *products, "figures", "s"):
        made.add_column(heading, justify="right" if heading in ("#", "s") else "left")
    for row in rows(outcomes):
        verdicts = " | ".join(row.verdict(product) for product in products)
        where = f"{row.broker} {row.shown.broker_version}".strip()
        tail = f"{figures(row.shown.numbers)} | {row.shown.seconds:.0f}"
        lines.append(f"| {row.number} | {row.name} | {where} | {verdicts} | {tail} |")
    lines += [f"\n```\n{text}\n```" for text in failures(outcomes)]
    (folder / "scorecard.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
