"""RabbitMQ: ``amqp://``, ``amqps://``, ``pyamqp://`` and ``librabbitmq://``, over the house's own AMQP 0-9-1.

Two connections per worker, one to publish and one to consume, so that an alarm that stops the publishing lets
acknowledgements through; a third for declarations, as long as they are needed.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, ClassVar, Protocol

from celeriac.transports.amqp.addresses import Addresses, ConnectionSettings
from celeriac.transports.amqp.admin import AmqpAdmin
from celeriac.transports.amqp.broadcast import AmqpBroadcast
from celeriac.transports.amqp.delays import MAX_DELAY
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.publisher import AmqpPublisher, PublisherSettings
from celeriac.transports.amqp.settling import Copies
from celeriac.transports.amqp.topology import Specs
from celeriac.transports.base import Capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.transports.amqp.consumer import AmqpConsumer
    from celeriac.transports.base import QueueSpec


class AmqpSettings(ConnectionSettings, PublisherSettings, Protocol):
    """What of the settings this driver reads."""

    broker_publish_timeout: float
    task_crash_budget: int

    task_dead_letter_expires: float


class AmqpTransport:
    """The broker. Construction does no I/O."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        leases=True, delays=True, priorities=255, fanout=True, counts_attempts=True, confirms=True, dead_letters=True,
        ordered=True, survives_restart=True, celery=True, max_batch=1000, max_delay=float(MAX_DELAY),
        delay_resolution=1.0, max_body_bytes=128 * 1024 * 1024,
    )  # fmt: skip

    def __init__(self, url: str, settings: AmqpSettings, clock: Clock) -> None:
        self._addresses = Addresses(url, settings, Random())
        first = self._addresses.urls[0]
        self.engine_key: tuple[str, ...] = ("amqp", f"{first.host}:{first.port or ''}/{first.path}")
        self._settings = settings
        self._clock = clock
        self._specs = Specs()
        self._publishing = Link(self._addresses, "publisher")
        self._asking = Link(self._addresses, "admin")

    def expect(self, queue_of: Callable[[str], QueueSpec]) -> None:
        """How queues that this process publishes to are declared; asked when one is published to first."""
        self._specs.ask(queue_of)

    def publisher(self) -> AmqpPublisher:
        return AmqpPublisher(self._publishing, self._specs, self._settings, self._clock)

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> AmqpConsumer:
        from celeriac.transports.amqp.consumer import AmqpConsumer  # asyncio is nothing that publishers should load

        for spec in queues:
            self._specs.tell(spec)
        copies = Copies(self.publisher(), self._specs, self._settings.task_dead_letter_expires, self._clock)
        return AmqpConsumer(self._addresses, queues, owner, self.admin(), copies, self._settings, self._clock)

    def admin(self) -> AmqpAdmin:
        ladder_type = self._settings.broker_native_delayed_delivery_queue_type
        return AmqpAdmin(self._asking, self._specs, self.publisher(), ladder_type)

    def broadcast(self) -> AmqpBroadcast:
        return AmqpBroadcast(self._addresses, self._specs, self._settings.broker_max_message_bytes)

    def close(self) -> None:
        """Consumers, broadcasts and subscriptions close by themselves."""
        self._publishing.close()
        self._asking.close()
