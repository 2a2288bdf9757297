"""The machine's clock, which a test may push forward."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.clock import Clock


class SteppedClock:
    """Runs as the machine's clock does; a test may let time pass. Real sleeps, so drivers with threads work."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._passed = 0.0

    def advance(self, seconds: float) -> None:
        """So much time passes."""
        self._ahead += seconds
        self._passed += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock, or the machine was asleep."""
        self._ahead += seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._passed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class WrongClock:
    """Runs as another one, whose wall clock it is this many seconds ahead of."""

    def __init__(self, right: Clock, ahead: float) -> None:
        self._right = right
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return self._right.time() + self._ahead

    def monotonic(self) -> float:
        return self._right.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)
