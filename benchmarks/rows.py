"""What is measured on which broker, and what celeriac has to reach (ARCHITECTURE's table of numbers).

A row is one figure for every contender. Sizes follow from the rate of the run before, so that slow products get
fewer tasks and nobody takes longer than the time for one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import measures
from places import Far, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from contenders import Product

#: added network round trip of the far rows, in seconds
FAR = 0.002
#: the limit of round trips: publish, hand to a child, call, store the result, tell the caller, and again
ROUND_TRIP = "bare round trip: publish, pipe, call, store, tell"
#: seconds of draining and of sending in one run, at full scale
DRAIN, SEND = 2.0, 1.5


@dataclass(frozen=True)
class Goal:
    """Met when any of its conditions is."""

    text: str
    least: float | None = None
    most: float | None = None
    #: at least this share of a limit measured in the same run: the goal itself, or the way out that the issue leaves.
    #: Limits are rates; a figure in milliseconds counts as so many per second.
    share: float = 0.0
    limit: str = ""
    #: at least so many times the best run of products whose name begins so
    times: float = 0.0
    product: str = ""


@dataclass(frozen=True)
class Row:
    broker: str
    key: str
    title: str
    unit: str
    #: one run: ``measure(product, place, expected rate, scale)``
    measure: Callable[[Product, Place, float, float], dict[str, Any]]
    #: seconds that one run takes, roughly
    seconds: float
    goal: Goal | None = None
    who: Callable[[Product], bool] = lambda product: True
    #: the figure of ``measure`` that is the row's
    figure: str = "rate"

    @property
    def name(self) -> str:
        return f"{self.broker}.{self.key}"

    @property
    def more_is_better(self) -> bool:
        return self.unit == "/s"

    def as_rate(self, value: float) -> float:
        """Per second, one after another."""
        return value if self.more_is_better else 1000 / value


def _drain(
    product: Product, place: Place, expected: float, scale: float, *, results: bool, far: bool = False
) -> dict[str, Any]:
    count = max(200, min(200_000, int(expected * max(0.4, DRAIN * scale))))
    if not far:
        return measures.drain(product, place, count, results=results)
    with Far(place, FAR) as line:
        return measures.drain(product, line, count, results=results)


def _send(
    product: Product, place: Place, expected: float, scale: float, *, action: str, confirms: bool = True,
    far: bool = False,
) -> dict[str, Any]:  # fmt: skip
    amount = 10_000 if action == "bulk" else max(0.4, SEND * scale)
    if not far:
        return measures.send(product, place, action, amount, confirms=confirms)
    with Far(place, FAR) as line:
        return measures.send(product, line, action, amount, confirms=confirms)


def _round_trip(product: Product, place: Place, expected: float, scale: float) -> dict[str, Any]:
    return measures.round_trip(product, place, max(0.4, SEND * scale))


def _slow_stores(product: Product, place: Place, expected: float, scale: float) -> dict[str, Any]:
    """Celery looks for results in SQLAlchemy's store about once a second."""
    if "BENCH_TRANSPORT" in product.environment:
        return measures.round_trip(product, place, max(1.0, 8.0 * scale), warm_up=1)
    return _round_trip(product, place, expected, scale)


def trip(most: float) -> Goal:
    """``most``: milliseconds, there and back; where the machine is too slow for that, a share of what it can do."""
    return Goal(f"< {most:g}", most=most, share=0.6, limit=ROUND_TRIP)


def _is_concurrent(product: Product) -> bool:
    return product.concurrent


def _has_unconfirmed(product: Product) -> bool:
    return product.unconfirmed


def _ours_and_celery(product: Product) -> bool:
    return product.own or product.name.startswith("Celery")


def rows_of(broker: str) -> list[Row]:
    row = partial(Row, broker)
    drain, drain_results = partial(_drain, results=False), partial(_drain, results=True)
    far_drain, far_bulk = partial(_drain, results=False, far=True), partial(_send, action="bulk", far=True)
    far_delay = partial(_send, action="delay", far=True)
    delay, bulk = partial(_send, action="delay"), partial(_send, action="bulk")
    concurrent = partial(_send, action="concurrent")
    ten_times = Goal("≥ 10 × Celery", times=10, product="Celery")
    if broker == "redis":
        of_limit = Goal("≥ 80 % of one LPUSH by redis-py", share=0.8, limit="one LPUSH, redis-py")
        # a single call cannot take less than one round trip, so nobody can be ten times another here
        far_lpush = Goal("≥ 80 % of one LPUSH over the line", share=0.8, limit="+2 ms: one LPUSH, bare socket")
        return [
            row("drain", "drained, no results", "/s", drain, 5.0, Goal("≥ 60,000", 60_000)),
            row("drain-results", "drained, results stored", "/s", drain_results, 5.5, Goal("≥ 33,000", 33_000)),
            row("delay", "delay() one at a time", "/s", delay, 2.1, of_limit),
            row("bulk", "10,000 at once", "/s", bulk, 2.3, Goal("≥ 60,000", 60_000)),
            row("concurrent", "200 coroutines", "/s", concurrent, 2.4, who=_is_concurrent),
            row("roundtrip", "delay().get() p50", "ms", _round_trip, 3.2, trip(0.8), figure="p50"),
            row("far-drain", "+2 ms: drained", "/s", far_drain, 5.5, ten_times, _ours_and_celery),
            row("far-bulk", "+2 ms: 10,000 at once", "/s", far_bulk, 4.5, ten_times, _ours_and_celery),
            row("far-delay", "+2 ms: delay()", "/s", far_delay, 2.5, far_lpush, _ours_and_celery),
        ]
    if broker == "rabbitmq":
        confirmed = Goal("≥ 80 % of one confirmed publish", share=0.8, limit="one confirmed publish, bare frames")
        pipelined = Goal("≥ 12,000", 12_000, share=0.6, limit="confirmed, 1000 per write, bare frames")
        unconfirmed = Goal("≥ 12,000", 12_000, share=0.6, limit="unconfirmed, one per write, bare frames")
        consume = Goal("≥ 20,000", 20_000, share=0.6, limit="consume, acknowledge by 100, bare frames")
        # Celery's acknowledgements do not wait for the network either, so a fast consumer is not slowed much by it
        far_consume = Goal(
            ten_times.text, times=10, product="Celery", share=0.6,
            limit="+2 ms: consume, acknowledge by 100, bare frames",
        )  # fmt: skip
        far_publish = Goal("≥ 80 % of one over the line", share=0.8, limit="+2 ms: one confirmed publish, bare frames")
        free = partial(_send, action="delay", confirms=False)
        free_bulk = partial(_send, action="bulk", confirms=False)
        return [
            row("drain", "drained, no results", "/s", drain, 5.0, consume),
            row("drain-results", "drained, results in Redis", "/s", drain_results, 5.5),
            row("delay-confirmed", "delay() confirmed", "/s", delay, 2.1, confirmed),
            row("delay", "delay() unconfirmed", "/s", free, 2.1, unconfirmed, _has_unconfirmed),
            row("bulk-confirmed", "10,000 at once, confirmed", "/s", bulk, 4.0, pipelined),
            row("bulk", "10,000 at once, unconfirmed", "/s", free_bulk, 2.3, who=_has_unconfirmed),
            row("concurrent", "200 coroutines, confirmed", "/s", concurrent, 2.4, pipelined, _is_concurrent),
            row("roundtrip", "delay().get() p50", "ms", _round_trip, 3.2, trip(1.0), figure="p50"),
            row("far-drain", "+2 ms: drained", "/s", far_drain, 5.5, far_consume, _ours_and_celery),
            row("far-bulk", "+2 ms: 10,000 confirmed", "/s", far_bulk, 4.5, ten_times, _ours_and_celery),
            row("far-delay", "+2 ms: delay() confirmed", "/s", far_delay, 2.5, far_publish, _ours_and_celery),
        ]
    return [
        row("drain-results", "drained, results stored", "/s", drain_results, 5.5, Goal("≥ 10,000", 10_000)),
        row("delay", "delay() one at a time", "/s", delay, 2.1, Goal("≥ 3,000", 3_000)),
        row("bulk", "10,000 at once", "/s", bulk, 2.3, Goal("≥ 50,000", 50_000)),
        row("roundtrip", "delay().get() p50", "ms", _slow_stores, 3.2, Goal("< 2", most=2.0), figure="p50"),
    ]
