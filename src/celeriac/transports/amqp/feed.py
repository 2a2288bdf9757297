"""One consumed queue: its channel, its consumer and the messages that were handed out of it.

Every queue has a channel of its own, so that what the broker closes for the sake of one queue leaves the others alone.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from celeriac.amqp.errors import ConsumerCancelled
from celeriac.transports.amqp.deliveries import Deliveries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from celeriac.amqp.asynchronous import AsyncConnection
    from celeriac.amqp.asynchronous_channel import AsyncChannel
    from celeriac.amqp.messages import Message
    from celeriac.transports.base import Delivery, QueueSpec

#: channel's number among all this process has opened, and delivery tag there
Receipt = tuple[int, int]

_serials = count(1)


class Feed:
    """A queue's channel, from its opening to its end."""

    def __init__(self, spec: QueueSpec, channel: AsyncChannel, crash_budget: int) -> None:
        self.spec = spec
        self.channel = channel
        self.serial = next(_serials)
        self.tag = ""
        #: nothing more is consumed; what was handed out is still to be settled
        self.is_retired = False
        #: handed out and not settled, in the order of their delivery tags
        self.held: dict[int, Message] = {}
        self._deliveries = Deliveries(spec.name, crash_budget)

    @classmethod
    async def open(
        cls, connection: AsyncConnection, spec: QueueSpec, prefetch: int, crash_budget: int,
        on_news: Callable[[], None], deadline: float,
    ) -> Feed:  # fmt: skip
        """Raises the AMQP room's errors."""
        channel = await connection.channel(deadline)
        channel.on_news = on_news
        feed = cls(spec, channel, crash_budget)
        try:
            await feed.consume(prefetch, deadline)
        except BaseException:
            await channel.close(deadline)
            raise
        return feed

    @property
    def is_over(self) -> bool:
        return self.channel.is_closed

    @property
    def lying(self) -> int:
        """How many messages are here and not handed out."""
        return self.channel.waiting

    async def consume(self, prefetch: int, deadline: float) -> None:
        """Have messages sent, up to ``prefetch`` unsettled ones."""
        await self.channel.qos(prefetch, deadline=deadline)
        self.tag = await self.channel.consume(self.spec.name, deadline=deadline)
        self.is_retired = False

    async def retire(self, deadline: float) -> None:
        """Have nothing more sent; what lies here goes back, what was handed out stays valid."""
        self.is_retired = True
        if self.tag in self.channel.consumer_tags:
            await self.channel.cancel(self.tag, deadline=deadline)
        for message in await self.channel.receive(self.lying, 0.0):
            self.channel.nack(message.delivery_tag, requeue=True)

    async def resize(self, prefetch: int, deadline: float) -> None:
        """Another number: a consumer keeps its own, so a new one replaces it. What was delivered stays valid."""
        old = self.tag
        await self.consume(prefetch, deadline)
        if old in self.channel.consumer_tags:
            await self.channel.cancel(old, deadline=deadline)

    async def give_back(self) -> None:
        """What lies here goes back to the broker, for others; but no message twice, since quorum queues count it."""
        for message in await self.channel.receive(self.lying, 0.0):
            if message.redelivered:
                self.channel.put_back(message)
            else:
                self.channel.nack(message.delivery_tag, requeue=True)

    async def take(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` of what is here. Raises ``ConsumerCancelled``, ``ChannelClosed``, ``ConnectionClosed``."""
        serial, held, read = self.serial, self.held, self._deliveries.read
        found = []
        for message in await self.channel.receive(limit, 0.0):
            held[message.delivery_tag] = message
            found.append(read(message, (serial, message.delivery_tag)))
        return found

    def acknowledge(self, tags: Collection[int]) -> None:
        """The oldest together, as far as they follow each other; the others one by one."""
        held = self.held
        run = 0
        last = 0
        for tag in held:
            if tag not in tags:
                break
            last = tag
            run += 1
        if run:
            self.channel.ack(last, multiple=run > 1)
        for tag in tags:
            if tag in held:
                del held[tag]
                if tag > last:
                    self.channel.ack(tag)

    def release(self, tags: Collection[int]) -> None:
        for tag in sorted(tags):
            if self.held.pop(tag, None) is not None:
                self.channel.nack(tag, requeue=True)

    def discard(self, tag: int) -> None:
        """The broker's own dead-letter exchange gets it, if there is one."""
        if self.held.pop(tag, None) is not None:
            self.channel.nack(tag, requeue=False)

    async def told(self, prefetch: int, deadline: float) -> None:
        """Wait until the broker has read what was acknowledged: a channel works off what it is told in order."""
        await self.channel.qos(prefetch, deadline=deadline)

    async def end(self, deadline: float) -> None:
        """Stop the messages and give back all that is unsettled."""
        if self.tag in self.channel.consumer_tags:
            await self.channel.cancel(self.tag, deadline=deadline)
        waiting = await self._rest()
        last = max([*self.held, *waiting], default=0)
        if last:
            self.channel.nack(last, requeue=True, multiple=True)
        self.held.clear()

    async def _rest(self) -> list[int]:
        try:
            return [message.delivery_tag for message in await self.channel.receive(self.lying, 0.0)]
        except ConsumerCancelled:
            return []
