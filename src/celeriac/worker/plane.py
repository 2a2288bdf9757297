"""The control plane of one worker, composed: remote control, events and signs of life.

None of it is on the way of a message; without fan-out in the broker there is none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from celeriac.transports.base import QueueSpec
from celeriac.wire.serializers import accept_set
from celeriac.worker.announcer import Announcer
from celeriac.worker.commands.state import WorkerState
from celeriac.worker.control import Control
from celeriac.worker.events import Events
from celeriac.worker.mingle import Mingle
from celeriac.worker.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from celeriac.worker.assembly import Parts, Pipeline, Show
    from celeriac.worker.commands.state import Counts
    from celeriac.worker.supervisor import Service

#: seconds for the last words
_LAST_WORDS = 3.0


class ControlPlane:
    """Its services run under the worker's supervisor."""

    def __init__(
        self,
        announcer: Announcer,
        events: Events,
        pulse: Pulse | None,
        control: Control | None,
        mingle: Mingle | None,
        counts: Counts,
    ) -> None:
        self._announcer = announcer
        self.counts = counts
        self.events = events
        self.control = control
        self._pulse = pulse
        self.services: list[Service] = [events]
        if pulse is not None:
            self.services.append(pulse)
        if control is not None:
            self.services.append(control)
        self.mingle = mingle
        if mingle is not None:
            self.services.append(mingle)

    @property
    def unheard(self) -> int:
        """Messages that the broker did not take."""
        return self._announcer.unheard

    async def close(self) -> None:
        """The services have stopped: say goodbye and let go of the broker."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LAST_WORDS):
                if self._pulse is not None:
                    await self._pulse.farewell()
        if self.control is not None:
            self.control.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LAST_WORDS):
                await self._announcer.close()


def plane_of(
    pipeline: Pipeline, parts: Parts, show: Show, stop: Callable[[], None], random: Random
) -> ControlPlane | None:
    """What the plan asks for; None where the broker has no fan-out, or nothing is asked for."""
    plan, clock, settings, lamport = parts.plan, parts.clock, show.settings, pipeline.lamport
    wanted = plan.remote_control or plan.task_events or plan.heartbeat is not None
    if not wanted or not parts.transport.capabilities.fanout:
        return None
    announcer = Announcer(parts.transport, clock)
    events = Events(
        announcer, parts.executor, plan.hostname, settings.event_exchange, _plain(settings.event_serializer), lamport,
        clock, enabled=plan.task_events,
    )  # fmt: skip
    pulse = Pulse(events, pipeline.session, pipeline.claims, plan.heartbeat or 2.0, clock)
    state = WorkerState(
        hostname=plan.hostname, plan=plan, settings=settings, tasks=parts.tasks, facts=pipeline.facts,
        claims=pipeline.claims, admission=pipeline.admission, pacing=pipeline.pacing, session=pipeline.session,
        executor=parts.executor, transport=parts.transport, announcer=announcer, events=events, pulse=pulse,
        lamport=lamport, clock=clock, app_name=show.options.app_name, broker=show.transport, results=show.results,
        started_at=clock.monotonic(), find_queue=show.find_queue or _bound_to_itself, stop=stop,
        autoscaler=pipeline.autoscaler, revocations=pipeline.revocations, cancelling=pipeline.cancelling,
        store=parts.store, lane=pipeline.lane, gate=pipeline.gate,
    )  # fmt: skip
    control = Control(state, accept_set(settings.accept_content), random) if plan.remote_control else None
    mingle = None
    if control is not None and plan.mingle and (parts.transport.capabilities.celery or pipeline.revocations is None):
        mingle = Mingle(state, control.listening)
    return ControlPlane(announcer, events, None if plan.heartbeat is None else pulse, control, mingle, state.counts)


def _plain(serializer: str) -> str:
    """Readers refuse pickle in events and replies."""
    return "json" if serializer == "pickle" else serializer


def _bound_to_itself(name: str) -> QueueSpec:
    return QueueSpec(name=name, exchange=name, routing_key=name)
