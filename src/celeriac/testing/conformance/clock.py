"""The machine's clock, which a test may push forward."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class SteppedClock:
    """Runs as the machine's clock does; :meth:`advance` makes it jump. Real sleeps, so drivers with threads work."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
