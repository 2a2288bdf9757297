"""What an experiment is, the list of them, and the checks that most of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scorecard import checkers

if TYPE_CHECKING:
    from collections.abc import Callable

    from scorecard.history import History
    from scorecard.lab import Lab

#: seconds that a claim lasts without a sign of life, as the products have it by default
LEASE = 30.0


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """``run`` does things to the lab and leaves its checks in ``lab.findings``."""

    number: int
    name: str
    brokers: tuple[str, ...]
    #: seconds after which it counts as failed, in its short and its full form; None: there is no short form
    quick: float | None
    full: float
    run: Callable[[Lab], None]
    #: of a Redis made for it: options of redis-server; of RabbitMQ: lines of a configuration, for a node of its own
    redis_options: tuple[str, ...] = ()
    rabbit_configuration: str = ""
    #: which other products can take part
    peers: tuple[str, ...] = ("celery",)

    def deadline(self, quick: bool) -> float:
        return self.quick if quick and self.quick is not None else self.full


CATALOGUE: list[Experiment] = []


def experiment(
    number: int, name: str, *, brokers: tuple[str, ...], quick: float | None, full: float,
    redis_options: tuple[str, ...] = (), rabbit_configuration: str = "", peers: tuple[str, ...] = ("celery",),
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:  # fmt: skip
    """Enter a function into the catalogue."""

    def enter(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        CATALOGUE.append(
            Experiment(
                number=number, name=name, brokers=brokers, quick=quick, full=full, run=run,
                redis_options=redis_options, rabbit_configuration=rabbit_configuration, peers=peers,
            )
        )  # fmt: skip
        CATALOGUE.sort(key=lambda one: one.number)
        return run

    return enter


def judge(
    lab: Lab, *, lease: float = LEASE, stored: bool = True, at_most: int | None = None, grace: float = 1.0,
    buried: frozenset[str] = frozenset(),
) -> History:  # fmt: skip
    """What must hold whatever was done; returns the history for further checks."""
    history = lab.history()
    lab.findings.add(
        checkers.no_loss(history, stored=stored, buried=buried),
        checkers.no_ghosts(history),
        checkers.duplicates_are_explained(history, at_most=at_most, grace=grace),
        checkers.no_overlap(history, lease=lease),
        checkers.calls_end_in_time(history),
    )
    if stored:
        lab.findings.add(checkers.results_are_right(history), checkers.one_end(history))
    starts = sum(map(len, history.runs.values()))
    lab.findings.numbers.update(tasks=len(history.accepted), starts=starts)
    return history
