"""Fan-out and replies through the embedded file, for events and remote control.

A short table is the memory, doorbells wake who waits. At most once: what is older than a minute, or was followed by
ten thousand others before somebody read it, is gone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from celeriac.embedded import doorbell, messages
from celeriac.embedded.messages import milliseconds
from celeriac.errors import PublishRejected
from celeriac.transports.base import Envelope, Heard, Route
from celeriac.transports.bindings import bindings_of, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.embedded.doorbell import Doorbells
    from celeriac.embedded.file import Link
    from celeriac.transports.base import Outgoing, QueueSpec, Subscription


class SqliteBroadcast:
    """Fan-out and replies through a short table: subscribers read what is newer than what they have seen.

    An exchange that nobody has a bell for has no subscribers, and what is published to it is not even written.
    """

    def __init__(self, link: Link, bells: Callable[[], Doorbells], max_bytes: int, clock: Clock) -> None:
        self._link = link
        self._bells = bells
        self._max_bytes = max_bytes
        self._clock = clock

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        rows = [self._row(outgoing) for outgoing in batch if self.anybody(outgoing.route.exchange)]
        if not rows:
            return
        now = milliseconds(self._clock.time())
        messages.cast(self._link, rows, now, max(0.0, deadline - time.monotonic()))
        for exchange in {exchange for exchange, _ in rows}:
            self._bells().ring(doorbell.broadcasts(exchange), [exchange])

    def _row(self, outgoing: Outgoing) -> tuple[str, bytes]:
        try:
            data = _ENCODE(Heard(outgoing.envelope, outgoing.route))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise PublishRejected(f"The headers of a message cannot be written: {error}") from error
        if len(data) > self._max_bytes:
            raise PublishRejected(
                f"A message has {len(data)} bytes; broker_max_message_bytes allows {self._max_bytes}."
            )
        return outgoing.route.exchange, data

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> Subscription:
        # before the bell hangs: whoever sees it, and sends, is heard
        seen = messages.last_cast(self._link)
        bell = self._bells().bell(doorbell.broadcasts(queue.exchange))
        try:
            return _Subscription(self._link, bell, seen, queue, keys, self._clock)
        except BaseException:
            bell.close()
            raise

    def anybody(self, exchange: str) -> bool:
        return self._bells().anybody(doorbell.broadcasts(exchange))

    def close(self) -> None:
        self._link.close()


class _Subscription:
    def __init__(
        self, link: Link, bell: doorbell.Bell, seen: int, queue: QueueSpec, keys: Sequence[str], clock: Clock
    ) -> None:  # fmt: skip
        self._link = link
        self._bell = bell
        self._exchange = queue.exchange
        self._bindings = bindings_of(queue, keys)
        self._max_age_ms = None if queue.message_ttl is None else milliseconds(queue.message_ttl)
        self._clock = clock
        self._seen = seen
        self._pending: deque[Heard] = deque()
        self._interrupted = threading.Event()
        self._closed = False

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        ends = time.monotonic() + wait
        try:
            while True:
                self._bell.drain()
                more = self._read(limit)
                left = ends - time.monotonic()
                if self._pending or (left <= 0 and not more) or self._closed or self._interrupted.is_set():
                    return [self._pending.popleft() for _ in range(min(limit, len(self._pending)))]
                if not more:
                    self._bell.wait(min(left, doorbell.POLL))
        finally:
            self._interrupted.clear()

    def _read(self, limit: int) -> bool:
        """Fill up to ``limit``; whether there may be more at once."""
        if self._closed or len(self._pending) >= limit:
            return False
        oldest = 0 if self._max_age_ms is None else milliseconds(self._clock.time()) - self._max_age_ms
        self._seen, found, more = messages.casts_since(self._link, self._seen, self._exchange, oldest)
        for data in found:
            try:
                heard = _DECODE(data)
            except (msgspec.MsgspecError, RecursionError) as error:
                self._pending.append(Heard(Envelope(b"", {}, {}), Route("", ""), str(error)))
                continue
            if any(matches(binding, heard.route.routing_key) for binding in self._bindings):
                self._pending.append(heard)
        return more

    def interrupt(self) -> None:
        self._interrupted.set()
        self._bell.interrupt()

    def close(self) -> None:
        self._closed = True
        self._pending.clear()
        self._bell.interrupt()
        self._bell.close()


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Heard).decode
