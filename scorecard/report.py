"""What a run of the scorecard leaves: a table for people, ``scorecard.json`` for programs, and Markdown for a page."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from scorecard.run import Outcome

_STYLES = {"pass": "green", "fail": "bold red", "error": "bold magenta", "skipped": "dim"}


def cells(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, list[Outcome]]]:
    """One row per experiment and broker: number, name, broker, and the outcome of each product."""
    rows: dict[tuple[int, str], list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.number, outcome.broker), []).append(outcome)
    return [(str(number), found[0].name, broker, found) for (number, broker), found in rows.items()]


def table(outcomes: Sequence[Outcome], products: Sequence[str]) -> Table:
    made = Table(title="Scorecard", title_justify="left", show_lines=False)
    for heading in ("#", "experiment", "broker", *products, "figures", "s"):
        made.add_column(heading, justify="right" if heading in ("#", "s") else "left")
    for number, name, broker, found in cells(outcomes):
        by_product = {outcome.product: outcome for outcome in found}
        verdicts = [
            f"[{_STYLES[by_product[product].verdict]}]{by_product[product].verdict}[/]"
            if product in by_product
            else "–"
            for product in products
        ]
        made.add_row(number, name, broker, *verdicts, figures(found[0].numbers), f"{found[0].seconds:.0f}")
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
    for number, name, broker, found in cells(outcomes):
        by_product = {outcome.product: outcome for outcome in found}
        verdicts = " | ".join(by_product[product].verdict if product in by_product else "–" for product in products)
        row = f"| {number} | {name} | {broker} {found[0].broker_version} | {verdicts} |"
        lines.append(f"{row} {figures(found[0].numbers)} | {found[0].seconds:.0f} |")
    lines += [f"\n```\n{text}\n```" for text in failures(outcomes)]
    (folder / "scorecard.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
