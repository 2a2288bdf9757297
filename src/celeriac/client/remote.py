"""Talking to workers while they run: send a request to all or some of them, collect what they say.

Blocking, thread-safe, fork-safe. Knows the wire and the seam of the brokers; knows no commands.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from celeriac.errors import MessageError, OperationalError
from celeriac.transports.base import QueueSpec
from celeriac.wire.control_message import ControlRequest, ReplyTo, decode_reply, encode_request
from celeriac.wire.envelope import Outgoing, Route
from celeriac.wire.serializers import accept_set

if TYPE_CHECKING:
    from celeriac.clock import Clock, LamportClock
    from celeriac.settings import Settings
    from celeriac.transports.base import Broadcast, Subscription, Transport

#: seconds that sending a request may take
_PATIENCE = 10.0
#: replies that one request may have; more are noise
_MOST = 10_000
#: replies keep a collection open for another timeout, but not longer than so many of them
_LONGEST = 5.0
_AT_ONCE = 100


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What requests and replies go through: the ``control_*`` settings."""

    exchange: str = "celery"
    durable: bool = False
    exclusive: bool = True
    expires: float | None = 10.0
    ttl: float | None = 300.0
    serializer: str = "json"
    accept: frozenset[str] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Channel:
        serializer = settings.task_serializer
        return cls(
            exchange=settings.control_exchange,
            durable=settings.control_queue_durable,
            exclusive=settings.control_queue_exclusive,
            expires=settings.control_queue_expires,
            ttl=settings.control_queue_ttl,
            serializer="json" if serializer == "pickle" else serializer,  # workers refuse it in requests
            accept=accept_set(settings.accept_content),
        )

    @property
    def requests(self) -> Route:
        return Route(f"{self.exchange}.pidbox", "", "fanout")

    def reply_queue(self, key: str) -> QueueSpec:
        exchange = f"reply.{self.exchange}.pidbox"
        return QueueSpec(
            name=f"{key}.{exchange}", exchange=exchange, exchange_type="direct", routing_key=key, durable=self.durable,
            auto_delete=True, exclusive=self.exclusive, expires=self.expires, message_ttl=self.ttl,
        )  # fmt: skip


class Question(msgspec.Struct, kw_only=True):
    """A request and how long to listen for its answers."""

    method: str
    arguments: dict[str, Any] = {}
    destination: Sequence[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    timeout: float = 1.0  #: seconds without another reply
    limit: int | None = None  #: replies that are enough; None: one for each destination, or all that come
    callback: Callable[[dict[str, Any]], Any] | None = None  #: called with every reply as it comes


class Remote:
    """Sends and collects. One per app."""

    def __init__(
        self, transport: Callable[[], Transport], channel: Callable[[], Channel], lamport: LamportClock, clock: Clock
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._lamport = lamport
        self._clock = clock
        self._lock = threading.Lock()
        self._broadcast: Broadcast | None = None
        self._owner = 0  # pid of the process that opened it
        #: replies that were not understood
        self.refused = 0

    def tell(self, question: Question) -> None:
        """Send, and wait for nobody. Raises ``OperationalError`` and its kin."""
        self._send(question, None, None)

    def ask(self, question: Question) -> list[dict[str, Any]]:
        """Send, and collect ``{node: reply}`` in order of arrival until there are enough or nobody adds one in time.

        Raises ``OperationalError`` and its kin, ``ImproperlyConfigured`` where the broker has no fan-out.
        """
        ticket, key = str(uuid4()), str(uuid4())
        queue = self._channel().reply_queue(key)
        subscription = self._opened().subscribe(queue)
        try:
            self._send(question, ticket, ReplyTo(queue.exchange, key))
            return self._collect(subscription, question, ticket)
        finally:
            subscription.close()

    def _send(self, question: Question, ticket: str | None, reply_to: ReplyTo | None) -> None:
        destination = question.destination
        channel = self._channel()
        request = ControlRequest(
            method=question.method, arguments=question.arguments,
            destination=None if destination is None else list(destination), pattern=question.pattern,
            matcher=question.matcher, ticket=ticket, reply_to=reply_to, clock=self._lamport.forward(),
        )  # fmt: skip
        expires = self._clock.time() + question.timeout if reply_to is not None else 0
        envelope = encode_request(request, expires=expires, serializer=channel.serializer)
        try:
            self._opened().publish([Outgoing(envelope, channel.requests)], self._clock.monotonic() + _PATIENCE)
        except OperationalError:
            self.close()
            raise

    def _collect(self, subscription: Subscription, question: Question, ticket: str) -> list[dict[str, Any]]:
        limit = question.limit
        if limit is None and question.destination is not None:
            limit = len(question.destination)
        limit = _MOST if limit is None else min(limit, _MOST)
        found: list[dict[str, Any]] = []
        last_call = self._clock.monotonic() + question.timeout * _LONGEST
        until = self._clock.monotonic() + question.timeout
        while len(found) < limit and (left := min(until, last_call) - self._clock.monotonic()) > 0:
            for heard in subscription.receive(_AT_ONCE, left):
                if heard.malformed is not None:
                    self.refused += 1
                    continue
                try:
                    reply = decode_reply(heard.envelope, self._channel().accept)
                except MessageError:
                    self.refused += 1
                    continue
                if reply.ticket != ticket:
                    continue  # an answer to somebody else
                self._lamport.adjust(reply.clock)
                found.append(reply.by_node)
                until = self._clock.monotonic() + question.timeout
                if question.callback is not None:
                    question.callback(reply.by_node)
        return found[:limit]

    def _opened(self) -> Broadcast:
        pid = os.getpid()
        if self._owner not in (0, pid):  # a fork: the lock may be held by a thread that is not here
            self._lock, self._broadcast = threading.Lock(), None
        with self._lock:
            if self._broadcast is None:
                self._broadcast = self._transport().broadcast()
                self._owner = pid
            return self._broadcast

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        broadcast, self._broadcast = self._broadcast, None
        if broadcast is not None and self._owner == os.getpid():
            broadcast.close()
