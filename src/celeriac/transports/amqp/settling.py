"""Verdicts that an acknowledgement cannot express: counted releases, parking and burials are copies that the broker
confirms before the original is acknowledged. A crash in between makes two of a message, never none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from celeriac.amqp.errors import Malformed
from celeriac.amqp.messages import Publication
from celeriac.transports.amqp.burial import burial, grave_of, grave_spec
from celeriac.transports.amqp.deliveries import counted
from celeriac.transports.base import Ack, Bury, Park, Release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.amqp.messages import Message
    from celeriac.clock import Clock
    from celeriac.transports.amqp.publisher import AmqpPublisher
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import QueueSpec, Verdict


class Copies:
    """Publishes what verdicts ask for. Blocking."""

    def __init__(self, publisher: AmqpPublisher, specs: Specs, kept_for: float | None, clock: Clock) -> None:
        self._publisher = publisher
        self._specs = specs
        self._kept_for = kept_for
        self._clock = clock

    def publish(self, batch: Sequence[tuple[Message, QueueSpec, Verdict]], deadline: float) -> None:
        """Returns when the broker has all of them. Raises as ``AmqpPublisher.publish``."""
        publications: list[Publication] = []
        queues: dict[str, None] = {}
        delayed: dict[str, None] = {}
        for message, spec, verdict in batch:
            match verdict:
                case Ack():
                    continue
                case Release(count_attempt=count):
                    publications.append(_copy(message, "", spec.name, count))
                    queues[spec.name] = None
                case Park(until=until, count_attempt=count):
                    exchange, key = self._publisher.delayed(spec.name, until)
                    publications.append(_copy(message, exchange, key, count))
                    (delayed if exchange else queues)[spec.name] = None
                case Bury():
                    grave = grave_of(spec.name, verdict)
                    self._specs.tell(grave_spec(grave, spec.arguments), hidden=True)
                    publications.append(burial(message, spec.name, verdict, self._clock.time(), self._kept_for))
                    queues[grave] = None
                case _:
                    assert_never(verdict)
        self._publisher.send(publications, queues, delayed, deadline)


def _copy(message: Message, exchange: str, routing_key: str, count_attempt: bool) -> Publication:
    """Body, properties and headers as they came, but for the count and the broker's own marks."""
    try:
        properties, headers = message.decoded()
    except Malformed:  # nobody parks what could not be read; but nothing is lost if somebody does
        properties, table = message.split()
        return Publication(exchange, routing_key, properties, table, message.body, True)
    headers = counted(headers, 1 if count_attempt else 0)
    return Publication(exchange, routing_key, properties, headers, message.body, True)
