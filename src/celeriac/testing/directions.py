"""One way through the fault proxy: which toxics are at work there, for all connections."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from celeriac.testing.toxics import CutAt, Hold, Latency, Search, Toxic

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
#: has something done in the proxy's thread, and waits until it is
Order = Callable[[Callable[[], None]], None]


class Placed:
    """A toxic at work."""

    def __init__(self, direction: Direction, toxic: Toxic) -> None:
        self.toxic = toxic
        self._direction = direction
        self._struck = threading.Semaphore(0)
        #: how often the marker has passed (``CutAt``)
        self.seen = 0
        #: how many connections it has ended (``CutAt``, ``Limit``)
        self.strikes = 0

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended a connection that no earlier ``wait`` has returned for; whether it did in time."""
        return self._struck.acquire(timeout=timeout)

    def remove(self) -> None:
        self._direction.remove(self)

    def strike(self) -> None:
        self.strikes += 1
        self._struck.release()


class Direction:
    """The bytes that flow one way, on every connection, and the toxics they meet. Thread-safe."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._placed: list[Placed] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        #: bytes that have been handed on
        self.passed = 0

    def add(self, toxic: Toxic) -> Placed:
        """Let ``toxic`` work from now on. It holds for open and for new connections."""
        placed = Placed(self, toxic)
        if isinstance(toxic, CutAt):
            Search(toxic.marker)  # raises for a marker without bytes, here and not in the proxy's thread
        self._order(lambda: self._set([*self._placed, placed]))
        return placed

    def remove(self, placed: Placed) -> None:
        """Take a toxic away; no error when it is gone already."""
        self._order(lambda: self._set([other for other in self._placed if other is not placed]))

    def clear(self) -> None:
        self._order(lambda: self._set([]))

    def _set(self, placed: list[Placed]) -> None:
        self._placed = placed
        if any(isinstance(one.toxic, Hold) for one in placed):
            self.flowing.clear()
        else:
            self.flowing.set()

    # ── from the proxy's thread ─────────────────────────────────────────────────────────────────────────────────

    def of_kind(self, kind: type[T]) -> Iterator[tuple[Placed, T]]:
        for placed in self._placed:
            if isinstance(placed.toxic, kind):
                yield placed, placed.toxic

    def delay(self, dice: random.Random) -> float:
        return sum(
            max(0.0, toxic.seconds + dice.uniform(-toxic.jitter, toxic.jitter)) for _, toxic in self.of_kind(Latency)
        )
