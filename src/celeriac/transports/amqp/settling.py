"""What the broker is told about held messages.

Verdicts that an acknowledgement cannot express (counted releases, parking, burials) are copies, which the broker
confirms before the original is acknowledged: a crash in between makes two of a message, never none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from celeriac.amqp.errors import AmqpError, Malformed
from celeriac.amqp.messages import Publication
from celeriac.transports.amqp.burial import burial, grave_of, grave_spec
from celeriac.transports.amqp.deliveries import counted
from celeriac.transports.amqp.errors import as_operational, operational
from celeriac.transports.base import Ack, Bury, Park, Release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.amqp.messages import Message
    from celeriac.clock import Clock
    from celeriac.transports.amqp.feed import Feed, Receipt
    from celeriac.transports.amqp.publisher import AmqpPublisher
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import QueueSpec, Settlement, Verdict
    from celeriac.transports.threads import Lane

#: seconds for one question to the broker
_ANSWER_TIMEOUT = 10.0


class Settler:
    """Sorts verdicts and carries them out. On the loop. ``feeds``: those of the consumer, by serial."""

    def __init__(
        self, feeds: Mapping[int, Feed], copies: Copies, lane: Lane, publish_timeout: float, clock: Clock
    ) -> None:  # fmt: skip
        self._feeds = feeds
        self._copies = copies
        self._lane = lane
        self._publish_timeout = publish_timeout
        self._clock = clock

    def holding(self, receipt: Receipt) -> Feed | None:
        """Where the message still is ours."""
        feed = self._feeds.get(receipt[0])
        return feed if feed is not None and receipt[1] in feed.held and not feed.is_over else None

    async def settle(self, batch: Sequence[Settlement], prefetch: int) -> Sequence[Receipt]:
        lost: list[Receipt] = []
        acks: dict[Feed, set[int]] = {}
        releases: dict[Feed, list[int]] = {}
        copies: list[tuple[Feed, int, Verdict]] = []
        for settlement in batch:
            receipt: Receipt = settlement.receipt
            feed = self.holding(receipt)
            if feed is None:
                lost.append(receipt)
                continue
            verdict = settlement.verdict
            if isinstance(verdict, Ack):
                acks.setdefault(feed, set()).add(receipt[1])
            elif isinstance(verdict, Release) and not verdict.count_attempt:
                releases.setdefault(feed, []).append(receipt[1])
            else:
                copies.append((feed, receipt[1], verdict))
        if copies:
            await self._copy(copies)
            for feed, tag, _ in copies:
                if self.holding((feed.serial, tag)) is None:
                    lost.append((feed.serial, tag))
                elif feed.held[tag].oversize:
                    feed.discard(tag)
                else:
                    acks.setdefault(feed, set()).add(tag)
        await self._tell(acks, releases, lost, prefetch)
        return lost

    async def _copy(self, copies: list[tuple[Feed, int, Verdict]]) -> None:
        batch = [(feed.held[tag], feed.spec, verdict) for feed, tag, verdict in copies]
        deadline = self._clock.monotonic() + self._publish_timeout
        await self._lane.run(lambda: self._copies.publish(batch, deadline))

    async def _tell(
        self, acks: dict[Feed, set[int]], releases: dict[Feed, list[int]], lost: list[Receipt], prefetch: int
    ) -> None:  # fmt: skip
        """Write, and wait until the broker has read it."""
        told: list[Feed] = []
        for feed in {**acks, **releases}:
            if feed.is_over:
                lost += [(feed.serial, tag) for tag in (*acks.get(feed, ()), *releases.get(feed, ()))]
                continue
            feed.acknowledge(acks.get(feed, ()))
            feed.release(releases.get(feed, ()))
            told.append(feed)
        deadline = self._clock.monotonic() + _ANSWER_TIMEOUT
        for feed in told:
            try:
                await feed.told(prefetch, deadline)
            except (AmqpError, OSError) as error:
                raise as_operational(operational(error, f"Acknowledging in queue {feed.spec.name!r}")) from error


class Copies:
    """Publishes what verdicts ask for. Blocking."""

    def __init__(self, publisher: AmqpPublisher, specs: Specs, kept_for: float, clock: Clock) -> None:
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
                    grave = grave_of(spec.name, verdict.quarantine)
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
