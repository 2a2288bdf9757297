"""Counting for limits that a whole cluster shares: how often (GCRA) and how many at one time (leased permits).

Pure: tables, time and questions in, answers out. The drivers in ``limiters/`` keep the tables; the one for Redis does
the same in Lua. GCRA is the "virtual scheduling" of ATM Forum TM 4.0: one number per counter, the theoretical arrival
time (TAT) of the next start; a start is allowed up to ``(burst - 1)`` intervals ahead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Need(msgspec.Struct, frozen=True, array_like=True):
    """What one limit asks of a start: a turn (``interval``) or a permit (``most``)."""

    key: str  #: names the counter
    interval: float = 0.0  #: seconds between two turns; 0: this need is a permit
    burst: int = 1  #: turns that may be taken at one moment after a pause
    most: int = 0  #: permits there are


class Demand(msgspec.Struct, frozen=True, array_like=True):
    """All that one task needs to start: it gets everything or nothing."""

    holder: str  #: names this start; asking again under the same name takes no second permit
    needs: tuple[Need, ...]


class Permit(msgspec.Struct, frozen=True, array_like=True):
    """One of the permits of a counter, and who has it."""

    key: str
    holder: str


class Granted(msgspec.Struct, frozen=True):
    """It may start now."""


class Refused(msgspec.Struct, frozen=True):
    """It may not. ``need``: which of its needs is not met, the first of them."""

    need: int
    wait: float  #: seconds until it may be; 0: not known, a permit comes back when its holder is done
    #: of a permit: how many were ever given out, which tells whoever asks again how fast they come back
    served: int = 0


class Unasked(msgspec.Struct, frozen=True):
    """As many were granted as were wanted before its turn came."""


Answer = Granted | Refused | Unasked
GRANTED: Final = Granted()
UNASKED: Final = Unasked()


class Lease(msgspec.Struct):
    """How long a permit is good for. ``since`` tells a lease from one of a clock that has started anew."""

    since: float
    until: float

    def is_good(self, now: float) -> bool:
        return self.since <= now < self.until


class Tables(msgspec.Struct):
    """What is counted: all of it, or the part that a question is about."""

    rates: dict[str, float] = {}  #: counter → TAT
    permits: dict[str, dict[str, Lease]] = {}  #: counter → holder → lease
    served: dict[str, int] = {}  #: counter → permits ever given out


def turn(tat: float | None, now: float, interval: float, burst: int) -> tuple[float, float]:
    """(wait, next TAT): ``wait`` 0 means that a turn may be taken now, after which the TAT is ``next``.

    A TAT further ahead than it can have come by honest means was written under another clock, and is forgotten.
    """
    if tat is None or tat > now + burst * interval + 1e-6:
        tat = now
    wait = tat - (burst - 1) * interval - now
    # what is a rounding error away has come
    return (0.0 if wait <= 1e-9 else wait), max(tat, now) + interval


def decide(demands: Sequence[Demand], quota: int, now: float, lease: float, tables: Tables) -> list[Answer]:
    """Answer in order and write down what was granted, at most ``quota`` of them."""
    answers: list[Answer] = []
    for demand in demands:
        if quota <= 0:
            answers.append(UNASKED)
            continue
        refused = _refusal(demand, now, tables)
        if refused is not None:
            answers.append(refused)
            continue
        _take(demand, now, lease, tables)
        quota -= 1
        answers.append(GRANTED)
    return answers


def _refusal(demand: Demand, now: float, tables: Tables) -> Refused | None:
    for index, need in enumerate(demand.needs):
        if need.most:
            held = tables.permits.get(need.key, {})
            if demand.holder not in held and sum(one.is_good(now) for one in held.values()) >= need.most:
                return Refused(index, 0.0, tables.served.get(need.key, 0))
            continue
        wait, _ = turn(tables.rates.get(need.key), now, need.interval, need.burst)
        if wait > 0:
            return Refused(index, wait)
    return None


def _take(demand: Demand, now: float, lease: float, tables: Tables) -> None:
    for need in demand.needs:
        if need.most:
            held = tables.permits.setdefault(need.key, {})
            if demand.holder not in held:
                tables.served[need.key] = tables.served.get(need.key, 0) + 1
            held[demand.holder] = Lease(now, now + lease)
        else:
            tables.rates[need.key] = turn(tables.rates.get(need.key), now, need.interval, need.burst)[1]
