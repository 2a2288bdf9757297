"""``rpc://``: results travel as messages to the process that asked and are kept there, in memory, until they are read.

Each process listens in one reply queue for all that it has outstanding. A result exists once: another process can't
read it, and one that nobody is there to take is gone. Goes over the broker, whichever it is. Source of the format:
Celery 5.7's rpc backend (queue named after the client, ``correlation_id`` = task id, body = the record).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from celeriac import plugins
from celeriac.errors import BackendGetMetaError, BackendStoreError, ImproperlyConfigured, OperationalError
from celeriac.results.base import ResultRecord, StoreCapabilities
from celeriac.results.waiting import Interruptions
from celeriac.rules.states import READY_STATES
from celeriac.transports.base import Envelope, Outgoing, QueueSpec, Route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import Broadcast, Heard, Subscription, Transport

#: results that wait in this process to be read; beyond it the oldest are dropped
KEPT = 100_000
#: messages taken from the reply queue at one time
_BATCH = 1000


class RpcSettings(Protocol):
    @property
    def broker_url(self) -> Any: ...
    @property
    def broker_write_url(self) -> Any: ...
    @property
    def broker_publish_timeout(self) -> float: ...
    @property
    def result_persistent(self) -> bool | None: ...
    @property
    def result_expires(self) -> Any: ...


class _Head(msgspec.Struct):
    """As much of a JSON record as tells what it is."""

    status: str = "PENDING"
    task_id: str | None = None


class RpcStore:
    """The driver. Thread-safe, fork-safe; connects on first use."""

    capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
        persistent=False, expires=True, watch=True, groups=False, counts_chords=False
    )

    def __init__(self, url: str, settings: RpcSettings, clock: Clock) -> None:
        self.engine_key: tuple[str, ...] = ("rpc",)
        broker = settings.broker_write_url or settings.broker_url
        if not broker:
            raise ImproperlyConfigured(
                "result_backend 'rpc://' sends results through a broker, and broker_url is not set. The embedded "
                "broker keeps results itself: leave result_backend unset."
            )
        self._broker = str(broker)
        self._settings = settings
        self._clock = clock
        self._persistent = bool(settings.result_persistent)
        self._transport: Transport | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._receiving = threading.Lock()
        self._address = str(uuid.uuid4())
        self._broadcast: Broadcast | None = None
        self._subscription: Subscription | None = None
        self._records: OrderedDict[str, ResultRecord] = OrderedDict()
        self._interruptions = Interruptions()
        self._transport = None

    def _here(self) -> None:
        """What a fork copied belongs to the parent: its queue, its connection and the results in it."""
        if self._pid != os.getpid():
            self._reset()

    # ── the asking side ──────────────────────────────────────────────────────────────────────────────────────

    def reply_address(self) -> str:
        if self._subscription is None or self._pid != os.getpid():
            self._listen()
        return self._address

    def _listen(self) -> Subscription:
        self._here()
        with self._lock:
            if self._subscription is None:
                expires = self._settings.result_expires
                seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
                queue = QueueSpec(
                    name=self._address, routing_key=self._address, durable=True, auto_delete=True,
                    expires=float(seconds) if seconds else None,
                )  # fmt: skip
                try:
                    self._subscription = self._channel().subscribe(queue)
                except OperationalError as error:
                    raise BackendGetMetaError(f"Results can't be received: {error}") from error
            return self._subscription

    def _channel(self) -> Broadcast:
        with self._lock:
            if self._broadcast is None:
                scheme = self._broker.partition("://")[0]
                transport: Transport = plugins.load("transport", scheme)(self._broker, self._settings, self._clock)
                self._transport = transport
                self._broadcast = transport.broadcast()
            return self._broadcast

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        self._here()
        if self._subscription is not None:
            self._receive(0.0)
        with self._lock:
            return {task_id: self._records[task_id] for task_id in ids if task_id in self._records}

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        ends = time.monotonic() + wait
        self._listen()
        while True:
            with self._lock:
                kept = self._records
                found = {
                    task_id: record
                    for task_id in ids
                    if (record := kept.get(task_id)) is not None and record.status in READY_STATES
                }
            left = ends - time.monotonic()
            if found or left <= 0 or self._interruptions.take():
                return found
            self._receive(left)

    def interrupt(self) -> None:
        self._interruptions.add()
        subscription = self._subscription
        if subscription is not None:
            subscription.interrupt()

    def _receive(self, wait: float) -> None:
        """Take what has come. Another thread that is at it takes it for us."""
        if not self._receiving.acquire(timeout=wait):
            return
        try:
            heard = self._listen().receive(_BATCH, wait)
        except OperationalError as error:
            self._drop()
            raise BackendGetMetaError(f"The connection that results come over was lost: {error}") from error
        finally:
            self._receiving.release()
        with self._lock:
            for one in heard:
                record = _record(one)
                if record is not None:
                    self._keep(record)

    def _keep(self, record: ResultRecord) -> None:
        kept = self._records.get(record.task_id)
        if kept is not None and kept.status in READY_STATES and record.status not in READY_STATES:
            return  # messages of several connections may overtake each other
        self._records[record.task_id] = record
        self._records.move_to_end(record.task_id)
        if len(self._records) > KEPT:
            self._records.popitem(last=False)

    def _drop(self) -> None:
        """A broken connection: the next use makes another, and listens in the same queue."""
        with self._lock:
            subscription, self._subscription = self._subscription, None
            broadcast, self._broadcast = self._broadcast, None
        for part in (subscription, broadcast):
            if part is not None:
                part.close()

    def forget(self, ids: Sequence[str]) -> None:
        with self._lock:
            for task_id in ids:
                self._records.pop(task_id, None)

    def cleanup(self) -> int:
        return 0

    # ── the answering side ───────────────────────────────────────────────────────────────────────────────────

    def write(self, records: Sequence[ResultRecord]) -> None:
        """Send each record to whoever asked; those of calls that named no address are nobody's."""
        self._here()
        batch = [self._message(record) for record in records if record.reply_to]
        if not batch:
            return
        try:
            self._channel().publish(batch, time.monotonic() + self._settings.broker_publish_timeout)
        except OperationalError as error:
            raise BackendStoreError(f"Results can't be sent: {error}") from error

    def _message(self, record: ResultRecord) -> Outgoing:
        assert record.reply_to is not None
        properties = {
            "content_type": record.content_type,
            "content_encoding": record.content_encoding,
            "correlation_id": record.task_id,
            "delivery_mode": 2 if self._persistent else 1,
        }
        return Outgoing(Envelope(record.payload, {}, properties), Route("", record.reply_to))

    def close(self) -> None:
        if self._pid == os.getpid():
            self._drop()
            transport, self._transport = self._transport, None
            if transport is not None:
                transport.close()


def _record(heard: Heard) -> ResultRecord | None:
    """The record in a message; None for a message that is none."""
    properties = heard.envelope.properties
    task_id = properties.get("correlation_id")
    if not isinstance(task_id, str) or not task_id:
        return None
    content_type = properties.get("content_type") or "application/json"
    status = _status(heard.envelope.body, content_type)
    encoding = properties.get("content_encoding") or "utf-8"
    return ResultRecord(task_id, status, heard.envelope.body, content_type, encoding)


def _status(body: bytes, content_type: str) -> str:
    """What state the record tells of. Pickle and YAML are not read for that: a word in them decides."""
    try:
        if content_type == "application/json":
            return msgspec.json.decode(body, type=_Head).status
        if content_type == "application/x-msgpack":
            return msgspec.msgpack.decode(body, type=_Head).status
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return next((state for state in READY_STATES if state.encode() in body), "STARTED")
