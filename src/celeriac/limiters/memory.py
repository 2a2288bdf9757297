"""Counters in memory: one set per URL and process, as the memory broker has its queues. For tests and ``memory://``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from celeriac.rules.counting import Answer, Demand, Lease, Permit, Tables, decide
from celeriac.transports.url import BrokerUrl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock

#: calls between two looks for what has run out
_TIDY = 256


class _Counters:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tables = Tables()
        self.changes: dict[str, bytes] = {}
        self.calls = 0

    def tidy(self, now: float) -> None:
        """A counter that has run out is as good as none."""
        self.calls += 1
        if self.calls % _TIDY:
            return
        tables = self.tables
        for key in [key for key, tat in tables.rates.items() if tat <= now]:
            del tables.rates[key]
        for key, held in list(tables.permits.items()):
            for holder in [holder for holder, lease in held.items() if not lease.is_good(now)]:
                del held[holder]
            if not held:
                del tables.permits[key]
                tables.served.pop(key, None)


_counters: dict[str, _Counters] = {}


class MemoryLimiter:
    """Counts for the workers of this process. URLs with the same name lead to the same counters."""

    def __init__(self, url: str, settings: object, clock: Clock, origin: str = "task_limit_store") -> None:
        parsed = BrokerUrl.parse(url.removeprefix("cache+"))
        self._counters = _counters.setdefault(f"{parsed.host or ''}/{parsed.path}", _Counters())
        self._clock = clock

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        counters, now = self._counters, self._clock.monotonic()
        with counters.lock:
            counters.tidy(now)
            return decide(demands, quota, now, lease, counters.tables)

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        counters, now = self._counters, self._clock.monotonic()
        lapsed = []
        with counters.lock:
            for permit in permits:
                held = counters.tables.permits.setdefault(permit.key, {})
                found = held.get(permit.holder)
                if found is None or not found.is_good(now):
                    lapsed.append(permit)
                held[permit.holder] = Lease(now, now + lease)
        return lapsed

    def release(self, permits: Sequence[Permit]) -> None:
        with self._counters.lock:
            for permit in permits:
                self._counters.tables.permits.get(permit.key, {}).pop(permit.holder, None)

    def change(self, counter: str, change: bytes | None) -> None:
        with self._counters.lock:
            if change is None:
                self._counters.changes.pop(counter, None)
            else:
                self._counters.changes[counter] = change

    def changes(self) -> Mapping[str, bytes]:
        with self._counters.lock:
            return dict(self._counters.changes)

    def close(self) -> None:
        """The counters stay."""
