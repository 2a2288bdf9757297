"""Counters in memory: one set per URL and process, as the memory broker has its queues. For tests and ``memory://``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from celeriac.rules.counting import Answer, Demand, Lease, Permit, Permits, decide
from celeriac.transports.url import BrokerUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock

#: calls between two looks for what has run out
_TIDY = 256


class _Tables:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rates: dict[str, float] = {}
        self.permits: Permits = {}
        self.calls = 0

    def tidy(self, now: float) -> None:
        """A counter that has run out is as good as none."""
        self.calls += 1
        if self.calls % _TIDY:
            return
        for key in [key for key, tat in self.rates.items() if tat <= now]:
            del self.rates[key]
        for key, held in list(self.permits.items()):
            for holder in [holder for holder, lease in held.items() if not lease.is_good(now)]:
                del held[holder]
            if not held:
                del self.permits[key]


_tables: dict[str, _Tables] = {}


class MemoryLimiter:
    """Counts for the workers of this process. URLs with the same name lead to the same counters."""

    def __init__(self, url: str, settings: object, clock: Clock, origin: str = "task_limit_store") -> None:
        parsed = BrokerUrl.parse(url.removeprefix("cache+"))
        self._tables = _tables.setdefault(f"{parsed.host or ''}/{parsed.path}", _Tables())
        self._clock = clock

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        tables, now = self._tables, self._clock.monotonic()
        with tables.lock:
            tables.tidy(now)
            return decide(demands, quota, now, lease, tables.rates, tables.permits)

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        tables, now = self._tables, self._clock.monotonic()
        lapsed = []
        with tables.lock:
            for permit in permits:
                held = tables.permits.setdefault(permit.key, {})
                found = held.get(permit.holder)
                if found is None or not found.is_good(now):
                    lapsed.append(permit)
                held[permit.holder] = Lease(now, now + lease)
        return lapsed

    def release(self, permits: Sequence[Permit]) -> None:
        with self._tables.lock:
            for permit in permits:
                self._tables.permits.get(permit.key, {}).pop(permit.holder, None)

    def close(self) -> None:
        """The counters stay."""
