"""How often a task may start: rates as Celery writes them, and the order in which starts are given out.

Pure: the time is an argument. The algorithm is GCRA (ATM Forum TM 4.0, "virtual scheduling") without a burst: one
start at a time, a steady interval apart, as Celery's token bucket of capacity 1 gives them out.
"""

from __future__ import annotations

import re
from collections import deque

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

#: slots that one task's pace remembers; whoever comes after them asks again when they are over
REMEMBERED = 10_000


def parse_rate(rate: str | float | None) -> float | None:
    """Starts per second: ``10/m`` is a sixth; a bare number is per second; None and 0: no limit.

    Raises ``ValueError`` for what is no rate.
    """
    if rate is None:
        return None
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        number, unit = float(rate), None
    else:
        found = _RATE.fullmatch(rate.strip()) if isinstance(rate, str) else None
        if found is None:
            raise ValueError(f"{rate!r} is no rate; write 10/s, 10/m or 10/h")
        number, unit = float(found[1]), found[2]
    if not 0 <= number < float("inf"):
        raise ValueError(f"{rate!r} is no rate; it must be 0 or more")
    return number / _SECONDS[unit] or None


class Pace:
    """Gives each id a time to start at, in the order of asking. An id that comes again keeps its time."""

    def __init__(self, per_second: float) -> None:
        self.interval = 1.0 / per_second
        self._next = 0.0  #: when the next newcomer may start
        self._slots: dict[str, float] = {}
        self._order: deque[str] = deque()

    def slot(self, identifier: str, now: float) -> float:
        """When ``identifier`` may start; ``now`` or earlier: at once, and then its slot is used up."""
        slot = self._slots.get(identifier)
        if slot is None:
            slot = max(self._next, now)
            if slot > now and len(self._slots) >= REMEMBERED:
                return slot  # it gets one of its own when it comes again
            self._next = slot + self.interval
            if slot > now:
                self._slots[identifier] = slot
                self._order.append(identifier)
        if slot <= now:
            self._slots.pop(identifier, None)
        self._forget(now)
        return slot

    def _forget(self, now: float) -> None:
        """Slots that nobody came for: their messages went to another worker."""
        order, slots = self._order, self._slots
        while order:
            slot = slots.get(order[0])
            if slot is not None and slot > now - 2 * max(self.interval, 60.0):
                return
            slots.pop(order.popleft(), None)
