"""Remote control: listens where Celery's workers listen, runs the command, answers whoever asked.

Requests come from strangers. What is not understood, not allowed or too much changes nothing, is counted and, where
somebody waits for it, answered as an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.errors import CeleriacError, ImproperlyConfigured, MessageError, OperationalError
from celeriac.rules.retry import reconnect_delay
from celeriac.transports.base import Outgoing, QueueSpec
from celeriac.wire.control_message import decode_request, encode_reply
from celeriac.worker.commands.panel import PANEL, control_command, inspect_command
from celeriac.worker.lane import Lane
from celeriac.worker.logs import escape

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from celeriac.settings import Settings
    from celeriac.transports.base import Heard, Subscription
    from celeriac.wire.control_message import ControlRequest
    from celeriac.worker.commands.panel import Entry
    from celeriac.worker.commands.state import WorkerState

__all__ = ["PANEL", "Control", "control_command", "inspect_command"]

logger = logging.getLogger("celeriac.worker")

#: requests taken at one time, and worked on at one time
_BATCH, _AT_ONCE = 100, 50
#: seconds that the broker is asked to wait for a request
_WAIT = 1.0
#: seconds that a command may take
_PATIENCE = 60.0


def inbox(node: str, settings: Settings) -> QueueSpec:
    """The queue that requests for ``node`` come to, with Celery's arguments."""
    exchange = f"{settings.control_exchange}.pidbox"
    return QueueSpec(
        name=f"{node}.{exchange}", exchange=exchange, exchange_type="fanout", durable=settings.control_queue_durable,
        auto_delete=True, exclusive=settings.control_queue_exclusive, expires=settings.control_queue_expires,
        message_ttl=settings.control_queue_ttl,
    )  # fmt: skip


class Control:
    """The service that listens and answers."""

    name = "control"

    def __init__(self, state: WorkerState, accept: frozenset[str] | None, random: Random) -> None:
        self._state = state
        self._accept = accept
        self._random = random
        self._queue = inbox(state.hostname, state.settings)
        self._reply_exchange = f"reply.{state.settings.control_exchange}.pidbox"
        serializer = state.settings.task_serializer
        self._serializer = "json" if serializer == "pickle" else serializer
        self._lane = Lane("celeriac-control")
        #: user's commands may block, which the worker's loop must not
        self._users = Lane("celeriac-commands")
        self._subscription: Subscription | None = None
        self._working: set[asyncio.Task[None]] = set()
        #: from when on requests are heard
        self.listening = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        # why there is no broker is said once, by who needs it most
        await self._state.session.first_contact.wait()
        failures = 0
        while True:
            try:
                self._subscription = await self._lane.run(partial(self._state.announcer.subscribe, self._queue))
                failures = 0
                self.listening.set()
                if self._state.revocations is not None:
                    self._state.revocations.look_soon()  # at what nobody here could hear
                await self._listen(self._subscription)
            except ImproperlyConfigured as error:
                logger.warning("no remote control: %s", error)
                return
            except OperationalError as error:
                failures += 1
                delay = reconnect_delay(failures, self._random)
                log = logger.warning if failures == 1 else logger.debug
                log("remote control lost the broker (%s); again in %.1f s", escape(error), delay)
                await self._state.clock.sleep(delay)
            finally:
                await self._leave()

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            for heard in await self._lane.run(partial(subscription.receive, _BATCH, _WAIT)):
                self._take(heard)

    async def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.interrupt()
            with contextlib.suppress(CeleriacError, RuntimeError):
                await asyncio.shield(self._lane.run(subscription.close))

    def close(self) -> None:
        """After the service has ended."""
        for task in self._working:
            task.cancel()
        self._lane.close()
        self._users.close()

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, heard: Heard) -> None:
        state = self._state
        try:
            if heard.malformed is not None:
                raise MessageError(heard.malformed)
            request = decode_request(heard.envelope, self._accept)
            state.lamport.adjust(request.clock)
            if not request.is_for(state.hostname):
                return
            if request.reply_to is not None and request.reply_to.exchange != self._reply_exchange:
                raise MessageError(f"replies go to {self._reply_exchange!r} only")
        except MessageError as error:
            self._refuse(str(error))
            return
        if len(self._working) >= _AT_ONCE:
            self._refuse(f"{_AT_ONCE} requests are being worked on")
            return
        task = asyncio.create_task(self._answer(request))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _refuse(self, reason: str) -> None:
        counts = self._state.counts
        counts.refused += 1
        if counts.refused & (counts.refused - 1) == 0:  # the first, second, fourth, eighth …: nobody can fill the log
            logger.warning("control request %d refused: %s", counts.refused, escape(reason)[:300])

    async def _answer(self, request: ControlRequest) -> None:
        state = self._state
        entry = PANEL.find(request.method)
        try:
            if entry is None:
                raise KeyError(request.method)
            async with asyncio.timeout(_PATIENCE):
                reply = await self._run(entry, request)
            state.counts.answered += 1
        except Exception as error:
            self._refuse(f"{request.method}: {error!r}")
            reply = {"error": repr(error)[:1000]}
        if request.reply_to is not None and not (entry is not None and entry.name == "shutdown" and reply is None):
            envelope = encode_reply(
                state.hostname, reply, ticket=request.ticket, clock=state.lamport.forward(), serializer=self._serializer
            )
            await state.announcer.say([Outgoing(envelope, request.reply_to.route)])

    async def _run(self, entry: Entry, request: ControlRequest) -> Any:
        arguments = {**request.arguments, "request": request} if entry.sees_request else request.arguments
        call = partial(entry.function, self._state, **arguments)
        if inspect.iscoroutinefunction(entry.function):
            return await call()
        return call() if entry.is_ours else await self._users.run(call)
