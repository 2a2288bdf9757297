"""Time, as the only door to it.

Everything that needs the time takes a :class:`Clock`, so that tests run hours in milliseconds. The order of what
several machines do is no question of time: for that there is :class:`LamportClock`.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The wall clock: aware, UTC; for meaning."""
        ...

    def time(self) -> float:
        """The wall clock in seconds since the epoch; the cheap form of :meth:`now`."""
        ...

    def monotonic(self) -> float:
        """Seconds for durations and deadlines; never jumps."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        import asyncio  # callers that never await must not pay for it: half of the package's import time

        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


class LamportClock:
    """Counts events, so that messages of many processes can be put in an order (Lamport 1978). Thread-safe."""

    def __init__(self, value: int = 0) -> None:
        self._lock = threading.Lock()
        self.value = value

    def forward(self) -> int:
        """Something happens here: the next number."""
        with self._lock:
            self.value += 1
            return self.value

    def adjust(self, other: int) -> int:
        """A message came that was sent when the other clock stood at ``other``: be ahead of both."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value
