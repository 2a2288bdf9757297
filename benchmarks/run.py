"""Measures celeriac and its peers on Redis, RabbitMQ and SQLite, side by side in one run: ``make bench``.

Every figure is the median of several runs, and the products take turns within each, so that what else the machine
does falls on all of them; only the ratios carry over to another machine. The brokers are private instances of this
run. Prints tables and writes JSON and Markdown to benchmarks/results/.

    --only redis                       everything on Redis
    --only redis.drain,rabbitmq.delay  two rows; --list names them all
    --own --scale 0.1 --runs 1         a short look at celeriac alone
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import celeriac
from celeriac.testing.servers import ServerMissing
from contenders import OLD_REDIS, PEERS, contenders
from places import Place, Rabbit, Redis, Sqlite
from report import TITLES, Report, shown
from rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from contenders import Product
    from rows import Row

ROOT = Path(__file__).resolve().parent.parent
PLACES: dict[str, type[Place]] = {"redis": Redis, "rabbitmq": Rabbit, "sqlite": Sqlite}
#: what is measured of a broker beside the rows that products share, and how many seconds it takes at full scale
BESIDE = {
    "redis": {"limits": 14.0, "stages": 40.0}, "rabbitmq": {"limits": 14.0, "stages": 40.0},
    "sqlite": {"limits": 4.0, "million": 75.0, "start": 30.0, "stages": 40.0},
}  # fmt: skip


@dataclass
class Step:
    """One thing to do, and how many seconds it may take."""

    title: str
    seconds: float
    work: Callable[[Place], None]


class Bench:
    """Goes through everything that was asked for, broker by broker."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self.arguments = arguments
        self.console = console
        self.wanted = [name for name in arguments.only.split(",") if name]
        self.report = Report("make bench" + f" BENCH_ARGS={shlex.quote(shlex.join(sys.argv[1:]))}" * bool(sys.argv[1:]))
        self.expected: dict[tuple[str, str], float] = {}

    def names(self) -> list[str]:
        return [
            name for broker in PLACES
            for name in [*(f"{broker}.{key}" for key in BESIDE[broker]), *(row.name for row in rows_of(broker))]
        ]  # fmt: skip

    def is_wanted(self, name: str) -> bool:
        broker = name.partition(".")[0]
        return not self.wanted or name in self.wanted or broker in self.wanted

    # ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self, broker: str) -> list[Step]:
        products = contenders(broker, with_peers=not self.arguments.own)
        steps = []
        if self.is_wanted(f"{broker}.limits"):
            steps.append(self._beside(broker, "limits", lambda place: self.limits(broker, place)))
        for row in rows_of(broker):
            if self.is_wanted(row.name):
                who = [product for product in products if row.who(product)]
                for _ in range(self.arguments.runs):
                    steps += [self._step(row, product) for product in who]
        for key in BESIDE[broker]:
            if key != "limits" and self.is_wanted(f"{broker}.{key}"):
                steps.append(self._beside(broker, key, partial(self.beside, broker, key, products)))
        return steps

    def _beside(self, broker: str, key: str, work: Callable[[Place], None]) -> Step:
        return Step(f"{TITLES[broker]}: {key}", BESIDE[broker][key] * max(0.2, self.arguments.scale), work)

    def _step(self, row: Row, product: Product) -> Step:
        seconds = 2.0 + (row.seconds - 2.0) * max(0.2, self.arguments.scale)
        title = f"{TITLES[row.broker]}: {row.title}: {product.name}"
        return Step(title, seconds, lambda place: self.run(row, product, place))

    # ── the work ─────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, row: Row, product: Product, place: Place) -> None:
        figure = self.report.figure(row, product)
        if figure.failure:
            return  # it would fail again, and take its time for it
        known = self.expected.get((row.name, product.name), product.guess)
        try:
            measured = row.measure(product, place, known, self.arguments.scale)
        except Exception as error:  # whatever a product does, the others are measured
            figure.failure = f"{type(error).__name__}: {error}"
            last = " ".join(str(error).split())[-150:]
            self.say(row.name, product.name, f"failed: {last}")
            return
        figure.runs.append(measured)
        if "rate" in measured:
            self.expected[row.name, product.name] = measured["rate"]
        note = measured.get("note", "")
        if product.own and row.goal is not None and row.goal.limit:
            import machine_limits

            # at once, so that what else the machine does falls on both
            assert isinstance(place, Redis | Rabbit)
            limit = measured["limit"] = machine_limits.one(row.goal.limit, place, 0.7)
            note = f"{row.as_rate(measured[row.figure]) / limit:.0%} of {shown(limit, '/s')} {note}"
        self.say(row.name, product.name, shown(measured[row.figure], row.unit), note)

    def limits(self, broker: str, place: Place) -> None:
        import machine_limits

        for name, value in machine_limits.of(place, max(0.2, self.arguments.scale), PEERS / "python"):
            self.report.limits.setdefault(broker, {})[name] = value
            self.say(f"{broker}.limits", name, shown(value, "/s"))

    def beside(self, broker: str, key: str, products: list[Product], place: Place) -> None:
        if key == "stages":
            self.stages(broker, place)
            return
        import embedded

        assert isinstance(place, Sqlite)
        if key == "million":
            self.extras(embedded.million(products[0], place, self.arguments.scale))
        else:
            self.extras(embedded.starts(products, place))

    def stages(self, broker: str, place: Place) -> None:
        import stages

        for name, (wall, cpu) in stages.of(place, self.arguments.scale):
            self.report.stages.setdefault(broker, {})[name] = (wall, cpu)
            self.say(f"{broker}.stages", name, shown(wall, "µs"), f"cpu {shown(cpu, 'µs')}")

    def extras(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            self.report.extras.append(line)
            self.say("sqlite", line["what"], shown(line["value"], line["unit"]), line["verdict"])

    def say(self, row: str, who: str, what: str, note: str = "") -> None:
        elapsed = time.strftime("%M:%S", time.gmtime(time.time() - self.report.began))
        self.console.print(f"{elapsed}  {row:<26} {who:<44} {what:>16}  {note}", markup=False, highlight=False)

    # ── in order ─────────────────────────────────────────────────────────────────────────────────────────────

    def go(self, progress: Progress) -> None:
        brokers = [broker for broker in PLACES if any(self.is_wanted(n) for n in self.names() if n.startswith(broker))]
        plans = {broker: self.steps(broker) for broker in brokers}
        planned = sum(step.seconds for steps in plans.values() for step in steps)
        clock = Clock(planned)
        bar = progress.add_task("", total=planned, left=clock.left())
        for broker in brokers:
            progress.update(bar, description=f"{TITLES[broker]}: starting it")
            try:
                with PLACES[broker]() as place:
                    self.versions(broker, place)
                    for step in plans[broker]:
                        progress.update(bar, description=step.title)
                        self._do(step, place)
                        clock.done(step.seconds)
                        progress.update(bar, advance=step.seconds, left=clock.left())
            except ServerMissing as missing:
                self.say(broker, str(missing), "left out")

    def _do(self, step: Step, place: Place) -> None:
        try:
            step.work(place)
        except Exception as error:  # a limit or a stage that fails leaves the rest standing
            self.say(place.name, step.title, "failed", f"{type(error).__name__}: {error}"[-300:])

    def versions(self, broker: str, place: Place) -> None:
        self.report.versions["celeriac"] = celeriac.__version__
        if isinstance(place, Sqlite):
            self.report.versions["SQLite"] = sqlite3.sqlite_version
        if isinstance(place, Redis | Rabbit):
            self.report.versions[TITLES[broker]] = place.version().partition(" ")[2]


class Clock:
    """Guesses the time left from how the plan has held so far."""

    def __init__(self, planned: float) -> None:
        self._planned = planned
        self._done = 0.0
        self._began = time.monotonic()

    def done(self, seconds: float) -> None:
        self._done += seconds

    def left(self) -> str:
        # the plan counts as a minute of experience, so that the first step does not decide
        pace = (time.monotonic() - self._began + 60) / (self._done + 60)
        seconds = (self._planned - self._done) * pace
        return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"


def peer_versions() -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json\n"
        "names = 'celery kombu amqp dramatiq pika taskiq taskiq-redis taskiq-aio-pika aio-pika huey rq arq saq redis "
        "hiredis uvloop'\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(', '.join(f'{n} {found[n]}' for n in names.split() if n in found))"
    )
    answers = {}
    for name, python in (("peers", PEERS / "python"), ("peers, older redis-py", OLD_REDIS / "python")):
        if python.exists():
            done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
            answers[name] = done.stdout.strip()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs per figure; the median is shown (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full length of each run (default 1)")
    parser.add_argument("--only", default="", help="comma list of brokers and rows, such as redis,rabbitmq.drain")
    parser.add_argument("--own", action="store_true", help="leave the peers out")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    arguments = parser.parse_args()
    console = Console(width=max(150, Console().width) if not sys.stdout.isatty() else None)
    bench = Bench(arguments, console)
    if arguments.list:
        console.print("\n".join(bench.names()))
        return
    unknown = [name for name in bench.wanted if name not in bench.names() and name not in PLACES]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (--list names them)")
    if not arguments.own:
        bench.report.versions.update(peer_versions())
        if not (PEERS / "python").exists():
            console.print("the peers are not installed (make bench installs them); measuring celeriac alone")
    facts = f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}"
    console.print(facts, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            bench.go(progress)
    except KeyboardInterrupt:
        console.print("interrupted; what was measured until now:")
    bench.report.show(console)
    path = bench.report.save()
    console.print(f"written: {path.relative_to(ROOT)}.md and .json", highlight=False)


if __name__ == "__main__":
    main()
