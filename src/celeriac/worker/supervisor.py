"""Starts services in order, restarts one that fails with back-off, stops them in reverse.

A service that keeps failing ends the worker with a clear message: a worker that limps is worse than one that is
started anew by whoever watches it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from celeriac import telemetry
from celeriac.errors import ImproperlyConfigured
from celeriac.rules.retry import reconnect_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from celeriac.clock import Clock

logger = logging.getLogger("celeriac.worker")

#: this many failures of one service within this many seconds are too many
_FAILURES = 5
_WINDOW = 60.0
#: seconds a service may take to report that it has started
_START_TIMEOUT = 30.0


class Service(Protocol):
    """A part that runs until it is cancelled; both orders of starting and cancelling must be safe."""

    name: str

    async def run(self, started: Callable[[], None]) -> None: ...


class ServiceGaveUp(RuntimeError):
    """A service failed too often to be restarted once more."""


class Supervisor:
    """Owns the tasks of the services."""

    def __init__(self, services: Sequence[Service], clock: Clock, random: Random) -> None:
        self._services = services
        self._clock = clock
        self._random = random
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: done as soon as the worker can't go on; its exception says why
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start every service, each after the one before has reported. Raises what keeps one from starting."""
        for service in self._services:
            started = asyncio.Event()
            task = asyncio.create_task(self._keep(service, started.set), name=service.name)
            self._tasks[service.name] = task
            waiting = asyncio.create_task(started.wait())
            try:
                async with asyncio.timeout(_START_TIMEOUT):
                    await asyncio.wait((waiting, self.failed), return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise ServiceGaveUp(f"service {service.name!r} did not start within {_START_TIMEOUT:g} s") from None
            finally:
                waiting.cancel()
            if self.failed.done():
                self.failed.result()

    async def _keep(self, service: Service, started: Callable[[], None]) -> None:
        """Run it; run it again when it fails; a return is its own wish."""
        failures: deque[float] = deque(maxlen=_FAILURES)
        while True:
            try:
                await service.run(started)
                return
            except ImproperlyConfigured as error:
                self._fail(error)
                return
            except Exception as error:
                now = self._clock.monotonic()
                failures.append(now)
                delay = reconnect_delay(len(failures), self._random)
                logger.exception("service %s failed", service.name)
                if len(failures) == _FAILURES and now - failures[0] < _WINDOW:
                    gave_up = ServiceGaveUp(
                        f"service {service.name!r} failed {_FAILURES} times within {_WINDOW:g} s, last: {error}"
                    )
                    gave_up.__cause__ = error
                    self._fail(gave_up)
                    return
                telemetry.emit(telemetry.ServiceFailed(service=service.name, error=str(error), retry_in=delay))
            await self._clock.sleep(delay)

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def stop(self) -> None:
        """Cancel in reverse order; each is gone before the next."""
        for service in reversed(self._services):
            task = self._tasks.pop(service.name, None)
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        if not self.failed.cancel() and not self.failed.cancelled():
            self.failed.exception()  # seen by whoever asked, or not at all
