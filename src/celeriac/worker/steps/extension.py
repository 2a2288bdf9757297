"""Drives the steps of one worker: made before the pool, started after it, stopped in reverse.

Consumer steps follow the connection: they are stopped when it is lost and started when it is back. Each call has its
time; a step that cannot start ends the worker, one that cannot stop is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.errors import CeleriacError, ImproperlyConfigured
from celeriac.wire.serializers import accept_set
from celeriac.worker.steps.bridge import Bridge, Timer
from celeriac.worker.steps.classes import RUN, Blueprint
from celeriac.worker.steps.handles import Connection, ConsumerHandle, Dispatcher, WorkerHandle
from celeriac.worker.steps.receiving import Receiving
from celeriac.worker.supervisor import ServiceGaveUp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from celeriac.worker.assembly import Parts, Pipeline, Show
    from celeriac.worker.options import UserSteps

logger = logging.getLogger("celeriac.worker")

#: Celery's own steps, by their class and their label: there are no objects behind, but others may require them
WORKER_PARTS = ("Timer", "Hub", "Pool", "Autoscaler", "WorkerComponent", "Beat", "StateDB", "Consumer")
CONSUMER_PARTS = (
    "Connection", "Events", "Mingle", "Gossip", "Tasks", "DelayedDelivery", "Heart", "Control", "Agent", "Evloop",
)  # fmt: skip

#: seconds
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 15.0


class Extension:
    """Belongs to the worker's loop; the steps have a thread of their own."""

    def __init__(self, steps: UserSteps, parts: Parts, show: Show, stop: Callable[[bool], None]) -> None:
        """Make the worker's steps. Raises what they raise, and ``ImproperlyConfigured``."""
        self._steps = steps
        self._parts = parts
        self._show = show
        self._bridge = Bridge()
        self._timer = Timer(self._bridge)
        self._blueprint = Blueprint(_classes(steps.worker), "Worker", known=WORKER_PARTS)
        self.worker = WorkerHandle(
            steps.app, parts.plan, show.options, dict(steps.options), self._blueprint, parts.executor, self._bridge,
            self._timer, stop,
        )  # fmt: skip
        self._of_consumer = Blueprint(_classes(steps.consumer), "Consumer", known=CONSUMER_PARTS)
        self._consumer: ConsumerHandle
        self._receiving: Receiving
        self._is_up: bool | None = None
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._has_left = False
        self._ends: list[Callable[[], None]] = []
        self.failed: asyncio.Future[None] = self._bridge.loop.create_future()
        _made(self._blueprint, self.worker, steps.options)

    async def start(self, pipeline: Pipeline, random: Random) -> None:
        """The pool is there. Raises ``ServiceGaveUp`` when a step cannot start."""
        parts, show = self._parts, self._show
        self._receiving = Receiving(
            self._bridge, parts.transport, pipeline.lane, f"{parts.plan.hostname}.steps", self._steps.queue_of,
            accept_set(show.settings.accept_content), parts.limits, parts.plan.lease, parts.clock, random,
        )  # fmt: skip
        events = None if pipeline.plane is None else pipeline.plane.events.tell_worker

        async def change_queue(queue: Any, is_wanted: bool) -> None:
            spec = self._steps.queue_of(queue)
            await pipeline.session.change_queues(
                lambda now: [*(known for known in now if known.name != spec.name), *([spec] if is_wanted else [])]
            )

        self._consumer = self.worker.consumer = ConsumerHandle(
            self.worker, self._of_consumer, Connection(self._receiving, show.transport),
            Dispatcher(self._bridge, events, parts.plan.hostname), change_queue,
        )  # fmt: skip
        await self._do("start", _START_TIMEOUT, partial(self._start_worker_steps))
        self._ends = [
            telemetry.subscribe(telemetry.BrokerLost, lambda _: self._follow(False)),
            telemetry.subscribe(telemetry.BrokerBack, lambda _: self._follow(True)),
        ]
        self._following = asyncio.create_task(self._follow_connection(pipeline))

    def _start_worker_steps(self) -> None:
        _made(self._of_consumer, self._consumer, self._steps.options)
        self._blueprint.start(self.worker)

    async def _do(self, what: str, timeout: float, call: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._bridge.run(call)
        except TimeoutError:
            raise ServiceGaveUp(f"the bootsteps did not {what} within {timeout:g} s") from None
        except CeleriacError:
            raise
        except Exception as error:
            logger.exception("a bootstep could not %s", what)
            raise ServiceGaveUp(f"a bootstep could not {what}: {type(error).__name__}: {error}") from error

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, is_up: bool) -> None:
        self._is_up = is_up
        self._changed.set()

    async def _follow_connection(self, pipeline: Pipeline) -> None:
        await pipeline.session.first_contact.wait()
        self._is_up = True
        is_started = False
        try:
            while True:
                self._changed.clear()
                if self._is_up and not is_started:
                    self._consumer.restart_count += 1
                    await self._do("start", _START_TIMEOUT, lambda: self._of_consumer.start(self._consumer))
                elif not self._is_up and is_started:
                    await self._do("stop", _STOP_TIMEOUT, lambda: self._of_consumer.restart(self._consumer))
                is_started = bool(self._is_up)
                await self._changed.wait()
        except (ServiceGaveUp, CeleriacError) as error:
            if not self.failed.done():
                self.failed.set_exception(error)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    async def leave(self) -> None:
        """The worker begins to stop: receive no more."""
        if self._following is None or self._has_left:
            return
        self._has_left = True
        for end in self._ends:
            end()
        self._following.cancel()
        await asyncio.wait((self._following,), timeout=_STOP_TIMEOUT)

        def stop() -> None:
            self._of_consumer.stop(self._consumer)
            self._of_consumer.send_all(self._consumer, "shutdown", propagate=False)

        await self._try(stop)
        await self._receiving.close()

    async def stop(self, code: int) -> None:
        """The tasks have ended."""
        await self.leave()
        self.worker.exitcode = code
        if self._blueprint.state == RUN:
            await self._try(lambda: self._blueprint.stop(self.worker, terminate=code != 0))
        self._timer.clear()
        self._bridge.close()
        if not self.failed.cancel() and not self.failed.cancelled():
            self.failed.exception()  # seen by whoever asked, or not at all

    async def _try(self, call: Callable[[], Any]) -> None:
        try:
            await self._do("stop", _STOP_TIMEOUT, call)
        except (ServiceGaveUp, CeleriacError) as error:
            logger.error("%s", error)


def _classes(given: Iterable[Any]) -> list[Any]:
    from celeriac.plugins import resolve

    return [resolve(each) if isinstance(each, str) else each for each in given]


def _made(blueprint: Blueprint, parent: Any, options: dict[str, Any]) -> None:
    try:
        blueprint.apply(parent, **options)
    except CeleriacError:
        raise
    except Exception as error:
        logger.exception("a bootstep cannot be made")
        raise ImproperlyConfigured(f"a bootstep cannot be made: {type(error).__name__}: {error}") from error
