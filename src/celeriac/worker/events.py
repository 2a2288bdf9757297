"""What happens here, as Celery's event messages: a sink of telemetry that gathers, and a service that sends batches.

It costs nothing while nobody wants events, or nobody listens. When a task started is not told by anybody: it is read
from the executor's own memory, and at the latest from the outcome.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.errors import EncodeError
from celeriac.executors.base import Inspectable
from celeriac.transports.base import Outgoing
from celeriac.wire.envelope import Route
from celeriac.wire.event_message import (
    EventFields,
    Sender,
    encode_batch,
    encode_event,
    event,
    routing_key_of,
    utc_offset,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock, LamportClock
    from celeriac.executors.base import Executor
    from celeriac.worker.announcer import Announcer

logger = logging.getLogger("celeriac.worker")

#: seconds in which events are gathered
_GATHER = 0.1
#: seconds between two looks for listeners, and for tasks that have started
_LOOK = 0.5
#: events of one message; more are split
_BATCH = 500
#: events kept while they can't be sent; then the oldest are dropped
_MOST = 20_000
#: characters of a text that a message brought
_SHOWN = 4096


class Events:
    """``worker-*`` events always, ``task-*`` events while they are enabled."""

    name = "events"

    def __init__(
        self, announcer: Announcer, executor: Executor, hostname: str, exchange: str, serializer: str,
        lamport: LamportClock, clock: Clock, *, enabled: bool,
    ) -> None:  # fmt: skip
        self._announcer = announcer
        self._executor = executor if isinstance(executor, Inspectable) else None
        self._sender = Sender(hostname, os.getpid(), utc_offset(time.localtime().tm_gmtoff))
        self._exchange = exchange
        self._serializer = serializer
        self._lamport = lamport
        self._clock = clock
        self._is_enabled = enabled
        self._end: Callable[[], None] | None = None
        self._gathered: deque[EventFields] = deque(maxlen=_MOST)
        self._is_stirred = asyncio.Event()
        #: ids of tasks whose start has been told
        self._started: set[str] = set()
        #: task events that were gathered
        self.told = 0

    @property
    def is_enabled(self) -> bool:
        """Whether ``task-*`` events are wanted."""
        return self._is_enabled

    def enable(self) -> bool:
        """False: they were."""
        was, self._is_enabled = self._is_enabled, True
        self._attend(True)  # who asks for them listens, or will tell soon that nobody does
        self._is_stirred.set()
        return not was

    def disable(self) -> bool:
        """False: they were not wanted anyway."""
        was, self._is_enabled = self._is_enabled, False
        self._attend(False)
        return was

    def look(self) -> None:
        """Somebody has come to listen: find out now."""
        self._is_stirred.set()

    async def tell_worker(self, kind: str, fields: EventFields) -> None:
        """One ``worker-*`` event, now; what was gathered before goes first."""
        await self._flush()
        if await self._announcer.has_audience(self._exchange):
            made = event(self._sender, kind, self._lamport.forward(), self._clock.time(), fields)
            envelope = encode_event(made, self._serializer)
            await self._announcer.say([Outgoing(envelope, self._route(routing_key_of(kind)))])

    # ── the service ──────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, started: Callable[[], None]) -> None:
        started()
        try:
            while True:
                self._is_stirred.clear()
                if self._is_enabled:
                    self._attend(await self._announcer.has_audience(self._exchange))
                if self._end is not None:
                    self._note_starts()
                    await self._flush()
                await self._rest()
        finally:
            self._attend(False)

    async def _rest(self) -> None:
        """A moment while there are listeners, until stirred while nothing is wanted."""
        if not self._is_enabled:
            await self._is_stirred.wait()
        elif not self._gathered:
            try:
                async with asyncio.timeout(_LOOK):
                    await self._is_stirred.wait()
            except TimeoutError:
                pass
        await self._clock.sleep(_GATHER)

    def _attend(self, wanted: bool) -> None:
        if wanted and self._end is None:
            self._end = telemetry.subscribe(tuple(_FIELDS), self._gather)
        elif not wanted and self._end is not None:
            self._end()
            self._end = None
            self._started.clear()

    async def _flush(self) -> None:
        while self._gathered:
            batch = [self._gathered.popleft() for _ in range(min(_BATCH, len(self._gathered)))]
            try:
                envelope = encode_batch(batch, self._serializer, is_plain=True)
            except EncodeError as error:
                logger.error("%d events could not be written: %s", len(batch), error)
                continue
            if not await self._announcer.say([Outgoing(envelope, self._route("task.multi"))]):
                return

    def _route(self, key: str) -> Route:
        return Route(self._exchange, key, "topic")

    # ── the sink ─────────────────────────────────────────────────────────────────────────────────────────────

    def _gather(self, found: Any) -> None:
        if type(found) is telemetry.TaskRejected and not found.requeue:  # a failure, and told as one, too
            self._gather(_as_failed(found))
        kind, fields_of = _FIELDS[type(found)]
        fields = fields_of(found)
        if fields is None:
            return
        at = found.at or self._clock.time()
        if kind in _ENDINGS and found.id not in self._started:
            runtime = getattr(found, "runtime", None)
            if runtime is not None:  # it has run, and was quicker than our looks
                self._add("task-started", {"uuid": found.id}, at - runtime)
        self._started.discard(found.id)
        self._add(kind, fields, at)
        if not self._is_stirred.is_set():
            self._is_stirred.set()

    def _note_starts(self) -> None:
        if self._executor is None:
            return
        offset = self._clock.time() - self._clock.monotonic()
        for work in self._executor.in_work():
            if work.id not in self._started:
                self._started.add(work.id)
                self._add("task-started", {"uuid": work.id}, offset + work.since)

    def _add(self, kind: str, fields: EventFields, at: float) -> None:
        self.told += 1
        self._gathered.append(event(self._sender, kind, self._lamport.forward(), at, fields))


# ── telemetry → fields ───────────────────────────────────────────────────────────────────────────────────────────


def _received(found: telemetry.TaskReceived) -> EventFields:
    headers = found.request.envelope.headers if found.request is not None else {}
    retries = headers.get("retries")
    retries = retries if type(retries) is int and abs(retries) < 1 << 53 else 0
    return {
        "uuid": found.id, "name": found.name, "args": _text(headers.get("argsrepr")) or "",
        "kwargs": _text(headers.get("kwargsrepr")) or "", "root_id": _text(headers.get("root_id")),
        "parent_id": _text(headers.get("parent_id")), "retries": retries, "eta": _text(headers.get("eta")),
        "expires": _text(headers.get("expires")),
    }  # fmt: skip


def _text(value: Any) -> str | None:
    """Headers are a stranger's: only text is passed on, and not too much of it."""
    if type(value) is not str:
        return None
    return value if len(value) <= _SHOWN else value[:_SHOWN] + "..."


def _failed(found: telemetry.TaskFailed) -> EventFields:
    return {"uuid": found.id, "exception": found.error, "traceback": found.traceback}


def _as_failed(found: telemetry.TaskRejected) -> telemetry.TaskFailed:
    error = f"Reject({found.reason}, requeue=False)"
    return telemetry.TaskFailed(at=found.at, id=found.id, name=found.name, runtime=0.0, error=error, traceback="")


def _lost(found: telemetry.TaskLost) -> EventFields | None:
    if found.outcome != "failed":  # retried: nothing has ended; dead: told as such
        return None
    return {"uuid": found.id, "exception": found.detail, "traceback": ""}


def _revoked(found: telemetry.TaskRevoked) -> EventFields:
    signum = found.signum if found.signum is not None or not found.terminated else int(signal.SIGTERM)
    return {"uuid": found.id, "terminated": found.terminated, "signum": signum, "expired": found.expired}


#: event → (type, its own fields)
_FIELDS: dict[type[telemetry.Event], tuple[str, Callable[[Any], EventFields | None]]] = {
    telemetry.TaskReceived: ("task-received", _received),
    telemetry.TaskSucceeded: (
        "task-succeeded",
        lambda found: {"uuid": found.id, "result": found.result, "runtime": found.runtime},
    ),
    telemetry.TaskFailed: ("task-failed", _failed),
    telemetry.TaskRetried: (
        "task-retried",
        lambda found: {"uuid": found.id, "exception": f"Retry({found.when}: {found.error})", "traceback": ""},
    ),
    telemetry.TaskRejected: ("task-rejected", lambda found: {"uuid": found.id, "requeue": found.requeue}),
    telemetry.TaskRevoked: ("task-revoked", _revoked),
    telemetry.TaskLost: ("task-failed", _lost),
    telemetry.MessageDead: ("task-failed", lambda found: {"uuid": found.id, "exception": found.reason}),
    telemetry.MessageQuarantined: (
        "task-failed",
        lambda found: {"uuid": found.id, "exception": found.reason} if found.id else None,
    ),
}
_ENDINGS = frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected"})
