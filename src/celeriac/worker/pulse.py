"""The worker's signs of life: ``worker-online``, a heartbeat every two seconds, ``worker-offline``."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from celeriac import signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.wire.event_message import EventFields
    from celeriac.worker.claims import Claims
    from celeriac.worker.events import Events
    from celeriac.worker.session import Session

#: how we call ourselves in events (Celery: ``py-celery``)
SOFTWARE = "py-celeriac"
#: what a heartbeat says that was asked for: when the next may be expected at the latest (Celery's number)
_ASKED_FREQUENCY = 5


def software() -> EventFields:
    """Which program this is."""
    from celeriac import __version__

    return {"sw_ident": SOFTWARE, "sw_ver": __version__, "sw_sys": platform.system()}


def load_average() -> list[float]:
    if not hasattr(os, "getloadavg"):
        return [0.0, 0.0, 0.0]
    return [round(load, 2) for load in os.getloadavg()]


class Pulse:
    """Beats while the worker has a broker."""

    name = "pulse"

    def __init__(self, events: Events, session: Session, claims: Claims, interval: float, clock: Clock) -> None:
        self._events = events
        self._session = session
        self._claims = claims
        self._interval = interval
        self._clock = clock
        self._is_online = False

    async def run(self, started: Callable[[], None]) -> None:
        started()
        await self._session.first_contact.wait()
        await self._beat("worker-online")
        self._is_online = True
        while True:
            await self._clock.sleep(self._interval)
            if self._session.is_up:
                await self._beat("worker-heartbeat")

    async def answer(self) -> None:
        """A heartbeat that somebody asked for; the others go on as they do."""
        self._events.look()
        await self._events.tell_worker("worker-heartbeat", {"freq": _ASKED_FREQUENCY, **software()})

    async def farewell(self) -> None:
        """Say that the worker leaves, if it had said that it is there."""
        if self._is_online:
            self._is_online = False
            await self._beat("worker-offline")

    async def _beat(self, kind: str) -> None:
        fields: EventFields = {
            "freq": self._interval,
            "active": len(self._claims.running_ids()),
            "processed": self._claims.totals.total(),
            "loadavg": load_average(),
            **software(),
        }
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)
        await self._events.tell_worker(kind, fields)
