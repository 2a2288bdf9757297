"""What the worker says to everybody and to whoever asked: events and replies, from a thread of their own.

At most once: while the broker is away, or slower than what is said, it is not said. Nothing here can hold up a task.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from celeriac.errors import CeleriacError
from celeriac.transports.base import Audience
from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import Broadcast, Outgoing, QueueSpec, Subscription, Transport

#: seconds that one publication may take
_PATIENCE = 5.0


class Announcer:
    """Owns the worker's :class:`Broadcast`."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._lane = Lane("celeriac-announce")
        self._broadcast: Broadcast | None = None
        self._audience: Audience | None = None
        #: messages that could not be said
        self.unheard = 0

    async def say(self, batch: Sequence[Outgoing]) -> bool:
        """Publish; False: the broker did not take it."""
        try:
            await self._lane.run(lambda: self._publish(batch))
        except CeleriacError:
            self.unheard += len(batch)
            return False
        return True

    def _publish(self, batch: Sequence[Outgoing]) -> None:
        self._opened().publish(batch, self._clock.monotonic() + _PATIENCE)

    def _opened(self) -> Broadcast:
        if self._broadcast is None:
            self._broadcast = self._transport.broadcast()
            self._audience = self._broadcast if isinstance(self._broadcast, Audience) else None
        return self._broadcast

    async def has_audience(self, exchange: str) -> bool:
        """Whether somebody listens there; True where the broker can't tell."""

        def look() -> bool:
            self._opened()
            return self._audience is None or self._audience.anybody(exchange)

        try:
            return await self._lane.run(look)
        except CeleriacError:
            return False

    def subscribe(self, queue: QueueSpec) -> Subscription:
        """Blocking, in the thread of whoever listens."""
        return self._opened().subscribe(queue)

    async def close(self) -> None:
        def close() -> None:
            if self._broadcast is not None:
                with contextlib.suppress(CeleriacError):
                    self._broadcast.close()

        await self._lane.run(close)
        self._lane.close()
