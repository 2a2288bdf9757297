"""Fan-out and replies for events and remote control, on Celery's channels and lists.

Fan-out and topics are published on ``<prefix>/<db>.<exchange>[/<key>]`` and heard by pattern; direct exchanges are
lists that the bound queues read. At most once.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.errors import MessageError
from celeriac.redis.connect import Links, Wake, open_link
from celeriac.redis.errors import ReplyError
from celeriac.redis.keys import binding_member, read_binding
from celeriac.transports.base import Heard
from celeriac.transports.bindings import topic_matches
from celeriac.transports.redis.looking import BLOCKING_ANSWER, Looker
from celeriac.transports.redis.sending import encoded
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.kombu_json import decode_envelope
from celeriac.wire.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.redis.address import Address
    from celeriac.redis.connect import Command, Link
    from celeriac.redis.errors import Translating
    from celeriac.redis.keys import Keys
    from celeriac.transports.base import Outgoing, QueueSpec, Subscription

#: seconds of silence after which a connection is tried, and that the answer may take
_SILENCE, _ANSWER = 25.0, 5.0
#: seconds that replies wait for somebody who may be gone
_REPLIES_KEPT = 300


class RedisBroadcast:
    """Publishes and subscribes. Thread-safe."""

    def __init__(
        self, address: Address, keys: Keys, max_bytes: int, translating: Translating, options: Mapping[str, Any]
    ) -> None:  # fmt: skip
        self._address = address
        self._keys = keys
        self._max_bytes = max_bytes
        self._translating = translating
        self._channels = Channels(keys.prefix, address.db, options)
        self._links = Links(address)

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        payloads = [encoded(outgoing, self._max_bytes) for outgoing in batch]
        with self._translating, self._links.borrow(deadline) as link:
            commands: list[Command] = []
            replied: dict[str, list[tuple[str, str]]] = {}
            for outgoing, payload in zip(batch, payloads, strict=True):
                route = outgoing.route
                if route.exchange_type != "direct":
                    commands.append(("PUBLISH", self._channels.name(route.exchange, route.routing_key), payload))
                    continue
                for name in self._listeners(link, replied, route, deadline):
                    commands += [("LPUSH", name, payload), ("EXPIRE", name, _REPLIES_KEPT)]
            for answer in link.call_many(commands, deadline) if commands else ():
                if isinstance(answer, ReplyError):
                    raise answer

    def _listeners(
        self, link: Link, known: dict[str, list[tuple[str, str]]], route: Route, deadline: float
    ) -> list[str]:  # fmt: skip
        if not route.exchange:
            return [self._keys.list_of(route.routing_key)]
        if route.exchange not in known:
            members = link.call("SMEMBERS", self._keys.binding(route.exchange), deadline=deadline)
            known[route.exchange] = [pair for member in members if (pair := read_binding(self._keys, member))]
        return [self._keys.list_of(queue) for key, queue in known[route.exchange] if key == route.routing_key]

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> Subscription:
        with self._translating:
            if queue.exchange_type == "direct":
                return _Replies(self._address, self._keys, queue, keys, self._max_bytes, self._translating)
            return _Listening(self._address, self._channels, queue, keys, self._max_bytes, self._translating)

    def close(self) -> None:
        self._links.close()


class Channels:
    """Names channels as kombu does: ``fanout_prefix`` and ``fanout_patterns`` of the transport options decide."""

    def __init__(self, keyprefix: str, db: int, options: Mapping[str, Any]) -> None:
        prefix = options.get("fanout_prefix", True)
        self._prefix = keyprefix + (str(prefix) if isinstance(prefix, str) else "/{db}." if prefix else "").format(
            db=db
        )
        self._patterns = bool(options.get("fanout_patterns", True))

    def name(self, exchange: str, key: str) -> str:
        return f"{self._prefix}{exchange}/{key}" if key and self._patterns else self._prefix + exchange

    def patterns(self, queue: QueueSpec, keys: Sequence[str]) -> dict[bytes, re.Pattern[bytes]]:
        """What to subscribe to, in the server's spelling and in ours."""
        wanted = list(dict.fromkeys(keys or (queue.routing_key,)))
        names = [self.name(queue.exchange, "")] if queue.exchange_type == "fanout" or not self._patterns else []
        if self._patterns:
            # a fan-out without a key hears everything, whatever key was sent with it
            names += [self.name(queue.exchange, key.replace("#", "*") or "*") for key in wanted]
        return {
            re.sub(r"([\[\]?\\])", r"\\\1", name).encode(): re.compile(
                ".*".join(re.escape(part) for part in name.split("*")).encode(), re.DOTALL
            )
            for name in names
        }


class _Listening:
    """A subscription to channels."""

    def __init__(
        self, address: Address, channels: Channels, queue: QueueSpec, keys: Sequence[str], max_bytes: int,
        translating: Translating,
    ) -> None:  # fmt: skip
        self._topics = tuple(keys or (queue.routing_key,)) if queue.exchange_type == "topic" else None
        self._patterns = channels.patterns(queue, keys)
        self._limits = Limits(wire_bytes=max_bytes)
        self._translating = translating
        self._pending: deque[Heard] = deque()
        self._interrupted = threading.Event()
        self._closed = False
        self._heard_at = time.monotonic()
        self._wake = Wake()
        self._link = open_link(address)
        try:
            self._link.wake_by(self._wake)
            # subscribing has no reply of its own unless it is refused; what is published after the PONG is heard
            ends = time.monotonic() + address.answer_timeout
            self._link.send_many([("PSUBSCRIBE", *self._patterns), ("PING",)], ends)
            answer = self._link.receive(ends)
            if isinstance(answer, ReplyError):
                raise answer
        except BaseException:
            self._link.close()
            self._wake.close()
            raise

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        ends = time.monotonic() + wait
        try:
            while True:
                left = ends - time.monotonic()
                if not (self._pending or self._closed or self._interrupted.is_set()):
                    self._listen(max(0.0, left))
                if self._pending or left <= 0 or self._closed or self._interrupted.is_set():
                    return [self._pending.popleft() for _ in range(min(limit, len(self._pending)))]
        finally:
            self._interrupted.clear()

    def _listen(self, wait: float) -> None:
        with self._translating:
            pushes = self._link.listen(min(wait, _SILENCE))
            now = time.monotonic()
            if pushes:
                self._heard_at = now
            elif now - self._heard_at > _SILENCE:
                self._link.call("PING", deadline=now + _ANSWER)
                self._heard_at = now
        for push in pushes:
            self._take(push)

    def _take(self, push: list[Any]) -> None:
        if push[0] != b"pmessage":
            return
        _, pattern, channel, payload = push
        # several patterns of ours may fit, and the server sends one copy for each
        first = next((name for name, fits in self._patterns.items() if fits.fullmatch(channel)), pattern)
        if first != pattern:
            return
        heard = _read(payload, self._limits)
        topics = None if heard.malformed is not None else self._topics
        if topics is None or any(topic_matches(topic, heard.route.routing_key) for topic in topics):
            self._pending.append(heard)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._wake.ring()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pending.clear()
            self._wake.ring()
            self._link.close()
            self._wake.close()


class _Replies:
    """A queue of one's own at a direct exchange: a list, and the binding that leads to it."""

    def __init__(
        self, address: Address, keys: Keys, queue: QueueSpec, routing_keys: Sequence[str], max_bytes: int,
        translating: Translating,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._queue = queue
        self._name = keys.list_of(queue.name)
        self._limits = Limits(wire_bytes=max_bytes)
        self._translating = translating
        self._interrupted = threading.Event()
        self._closed = False
        self._members = [
            binding_member(keys, queue.name, key, queue.exchange_type) for key in routing_keys or (queue.routing_key,)
        ]
        self._links = Links(address)
        if queue.exchange:
            self._call([("SADD", keys.binding(queue.exchange), *self._members)])
        self._looker = Looker(partial(open_link, address, answer_timeout=BLOCKING_ANSWER), self._name)

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        ends = time.monotonic() + wait
        try:
            while True:
                found: list[Heard] = []
                with self._translating:
                    (payloads,) = self._call([("RPOP", self._name, limit)])
                found += [_read(payload, self._limits) for payload in payloads or ()]
                left = ends - time.monotonic()
                if found or left <= 0 or self._closed or self._interrupted.is_set():
                    return found
                self._looker.sleep(min(left, 1.0))
        finally:
            self._interrupted.clear()

    def _call(self, commands: Sequence[Command]) -> list[Any]:
        with self._links.borrow() as link:
            answers = link.call_many(commands)
        for answer in answers:
            if isinstance(answer, ReplyError):
                raise answer
        return answers

    def interrupt(self) -> None:
        self._interrupted.set()
        self._looker.interrupt()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        commands: list[Command] = [("UNLINK", self._name)]
        if self._queue.exchange:
            commands.append(("SREM", self._keys.binding(self._queue.exchange), *self._members))
        try:
            with self._translating:
                self._call(commands)
        finally:
            self._looker.close()
            self._links.close()


def _read(payload: bytes, limits: Limits) -> Heard:
    """Perhaps of what is no message: a channel is open to everybody."""
    try:
        return Heard(*decode_envelope(payload, limits))
    except MessageError as error:
        return Heard(Envelope(b"", {}, {}), Route("", ""), str(error))
