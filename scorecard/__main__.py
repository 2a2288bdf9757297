"""``make scorecard``: run experiments, show a table, write ``scorecard/results/``. Status 1 when celeriac fails one."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from scorecard import report
from scorecard.experiments import CATALOGUE
from scorecard.products import CELERIAC, celery
from scorecard.run import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scorecard.experiments import Experiment
    from scorecard.products import Product
    from scorecard.run import Outcome

RESULTS = Path(__file__).resolve().parent / "results"
BROKERS = ("sqlite", "redis", "rabbitmq")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("make scorecard SCORECARD_ARGS='…'", description=__doc__)
    parser.add_argument("--only", metavar="1,5", help="numbers of experiments")
    parser.add_argument("--broker", default=",".join(BROKERS), help="some of: %(default)s")
    parser.add_argument("--quick", action="store_true", help="the short forms, some 20 s each")
    parser.add_argument("--peer", choices=["celery"], help="run them with this product, too")
    parser.add_argument("--product", choices=["celeriac", "celery"], help="run them with this product alone")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance (%(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="with as many seeds, one after the other")
    parser.add_argument("--keep", action="store_true", help="keep histories and logs of successes, too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (%(default)s)")
    parser.add_argument("--list", action="store_true", help="say which experiments there are, and end")
    return parser.parse_args(words)


def rounds(
    chosen: Sequence[Experiment], brokers: Sequence[str], products: Sequence[Product]
) -> Iterator[tuple[Experiment, str, Product]]:
    """What is run, in order: the products beside each other."""
    for one in chosen:
        for broker in brokers:
            for product in products:
                if broker in one.brokers and (product is CELERIAC or product.name in one.peers):
                    yield one, broker, product


def main(words: Sequence[str]) -> int:
    asked = arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    numbers = {int(word) for word in asked.only.split(",")} if asked.only else {one.number for one in CATALOGUE}
    chosen = [one for one in CATALOGUE if one.number in numbers]
    if unknown := sorted(numbers - {one.number for one in CATALOGUE}):
        console.print(f"There is no experiment {', '.join(map(str, unknown))}; --list names them.")
        return 2
    if asked.list:
        for one in CATALOGUE:
            console.print(f"{one.number:3}  {one.name}  ({', '.join(one.brokers)})", markup=False)
        return 0
    peer = celery() if "celery" in (asked.peer, asked.product) else None
    if peer is None and "celery" in (asked.peer, asked.product):
        console.print("CELERIAC_INTEROP_PYTHON names no interpreter with Celery (make interop-env)")
        return 2
    products = [product for product in (None if asked.product == "celery" else CELERIAC, peer) if product]
    brokers = [word for word in asked.broker.split(",") if word]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    outcomes: list[Outcome] = []
    with console.status("") as status:
        for seed in range(asked.seed, asked.seed + asked.repeat):
            runner = Runner(asked.results, quick=asked.quick, seed=seed, keep=asked.keep, show=status.update)
            try:
                for one, broker, product in rounds(chosen, brokers, products):
                    outcome = runner.run(one, broker, product)
                    outcomes.append(outcome)
                    tell = f" ({outcome.reason})" if outcome.verdict == "skipped" else ""
                    console.print(f"{outcome.verdict:8} {outcome.seconds:6.1f} s  {outcome.title}{tell}", markup=False)
            finally:
                runner.close()
    names = [product.name for product in products]
    report.write(
        asked.results, outcomes, names, {"quick": asked.quick, "seed": asked.seed, "repeat": asked.repeat}
    )  # fmt: skip
    console.print(report.table(outcomes, names))
    for text in report.failures(outcomes):
        console.print(text, markup=False)
    console.print(f"written: {asked.results}/scorecard.json, scorecard.md")
    judged = [outcome for outcome in outcomes if outcome.product == products[0].name]
    return int(any(outcome.verdict in ("fail", "error") for outcome in judged))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
