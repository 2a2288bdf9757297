"""Fan-out and replies: Celery's exchanges for events and remote control, over connections of their own.

Nothing is confirmed and nothing is kept: what nobody listens to vanishes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.amqp.errors import AmqpError, Malformed
from celeriac.amqp.messages import Publication
from celeriac.errors import ImproperlyConfigured, OperationalError, PublishRejected
from celeriac.transports.amqp.errors import operational
from celeriac.transports.amqp.link import Line, Link
from celeriac.transports.amqp.topology import Topology, arguments_of
from celeriac.transports.base import Envelope, Heard, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.amqp.blocking import BlockingConnection
    from celeriac.amqp.messages import Message
    from celeriac.transports.amqp.addresses import Addresses
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import Outgoing, QueueSpec

#: seconds for connecting and declaring
_OPEN_TIMEOUT = 10.0
#: seconds without a word after which a listener asks whether the broker is still there, and how long it has to answer
_SILENCE, _PROBE_TIMEOUT = 30.0, 5.0
_CLOSE_TIMEOUT = 1.0


class AmqpBroadcast:
    def __init__(self, addresses: Addresses, specs: Specs, max_bytes: int) -> None:
        self._addresses = addresses
        self._specs = specs
        self._max_bytes = max_bytes
        self._link = Link(addresses, "broadcast")

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        publications = []
        for outgoing in batch:
            envelope, route = outgoing.envelope, outgoing.route
            if len(envelope.body) > self._max_bytes:
                raise PublishRejected(
                    f"A message has {len(envelope.body)} bytes; broker_max_message_bytes allows {self._max_bytes}."
                )
            publications.append(
                Publication(route.exchange, route.routing_key, envelope.properties, envelope.headers, envelope.body)
            )
        if not publications:
            return
        with self._link.line(deadline) as line:
            channel = line.publishing(False, deadline)
            topology = Topology(line, self._specs, "", deadline)
            for route in {outgoing.route for outgoing in batch}:
                topology.ensure_exchange(route.exchange, route.exchange_type)
            channel.publish(publications, deadline)

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> AmqpSubscription:
        deadline = time.monotonic() + _OPEN_TIMEOUT
        connection = self._addresses.open("subscription", deadline)
        try:
            return AmqpSubscription(connection, self._specs, queue, keys, deadline)
        except (AmqpError, OSError) as error:
            raise operational(error, f"Subscribing queue {queue.name!r}") from error
        except (OperationalError, ImproperlyConfigured):
            connection.close(time.monotonic() + _CLOSE_TIMEOUT)
            raise

    def close(self) -> None:
        """Subscriptions close by themselves."""
        self._link.close()


class AmqpSubscription:
    """A queue of its own; its connection has no heartbeats, since nobody serves it while nobody receives."""

    def __init__(
        self, connection: BlockingConnection, specs: Specs, queue: QueueSpec, keys: Sequence[str], deadline: float
    ) -> None:
        self._connection = connection
        self._queue = queue.name
        line = Line(connection)
        topology = Topology(line, specs, "", deadline)
        topology.ensure_exchange(queue.exchange, queue.exchange_type)
        self._channel = line.asking(deadline)
        self._channel.declare_queue(
            queue.name, durable=queue.durable, auto_delete=queue.auto_delete, exclusive=queue.exclusive,
            arguments=arguments_of(queue), deadline=deadline,
        )  # fmt: skip
        for key in (keys or (queue.routing_key,)) if queue.exchange else ():
            self._channel.bind_queue(
                queue.name, queue.exchange, key, arguments=queue.binding_arguments, deadline=deadline
            )
        self._channel.consume(queue.name, no_ack=True, deadline=deadline)
        self._heard_at = time.monotonic()
        self._closed = False

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        if self._is_over():
            return []
        try:
            messages = self._channel.receive(limit, wait)
            now = time.monotonic()
            if messages:
                self._heard_at = now
            elif now - self._heard_at > _SILENCE:
                self._channel.qos(0, deadline=now + _PROBE_TIMEOUT)
                self._heard_at = now
        except (AmqpError, OSError) as error:
            if self._is_over():
                return []
            self._connection.abandon()
            raise operational(error, f"Listening in queue {self._queue!r}") from error
        return [_heard(message) for message in messages]

    def _is_over(self) -> bool:
        """Another thread may close it at any moment."""
        return self._closed

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._connection.interrupt()
        self._connection.close(time.monotonic() + _CLOSE_TIMEOUT)


def _heard(message: Message) -> Heard:
    """Perhaps of what cannot be understood: at most once means that nobody misses it."""
    try:
        properties, headers = message.decoded()
    except Malformed as error:
        return Heard(Envelope(b"", {}, {}), Route(message.exchange, message.routing_key), str(error))
    return Heard(Envelope(message.body, headers, properties), Route(message.exchange, message.routing_key))
