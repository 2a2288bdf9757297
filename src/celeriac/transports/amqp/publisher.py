"""Sends: what a batch becomes on the wire, and what the broker's answers mean for who sent it.

Blocking, thread-safe, fork-safe. Confirms are pipelined: a batch is written at once and its confirms are waited for
together. Queues are declared before the first message goes to them, as Celery does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celeriac.amqp.errors import ChannelClosed, ConnectionClosed
from celeriac.amqp.messages import CONFIRMED, Publication
from celeriac.errors import (
    PublishRejected,
    PublishTimeout,
    PublishUnknown,
    Unroutable,
)
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.errors import NOT_FOUND
from celeriac.transports.amqp.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celeriac.amqp.blocking import BlockingChannel
    from celeriac.amqp.messages import Fate
    from celeriac.clock import Clock
    from celeriac.transports.amqp.link import Line, Link
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import Outgoing

#: seconds; a shorter delay is not worth a trip through the broker, the worker keeps the message
_LEAST_DELAY = 1


class PublisherSettings(Protocol):
    broker_transport_options: Mapping[str, Any]
    broker_max_message_bytes: int
    broker_native_delayed_delivery_queue_type: str


class AmqpPublisher:
    def __init__(self, link: Link, specs: Specs, settings: PublisherSettings, clock: Clock) -> None:
        self._link = link
        self._specs = specs
        self._clock = clock
        self._max_bytes = settings.broker_max_message_bytes
        self._confirms = settings.broker_transport_options.get("confirm_publish") is not False
        self._ladder_type = settings.broker_native_delayed_delivery_queue_type

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        publications: list[Publication] = []
        queues: dict[str, None] = {}
        delayed: dict[str, None] = {}
        for outgoing in batch:
            route, envelope = outgoing.route, outgoing.envelope
            self.check_size(envelope.body)
            properties = envelope.properties
            if "delivery_mode" not in properties:
                properties = {**properties, "delivery_mode": 2}
            exchange, key = route.exchange, route.routing_key
            if not exchange:
                if not key:
                    raise Unroutable("A message names neither an exchange nor a queue.")
                queues[key] = None
                if outgoing.not_before is not None:
                    exchange, key = self._delayed(key, outgoing.not_before)
                    if exchange:
                        delayed[route.routing_key] = None
            elif outgoing.not_before is not None:
                # other delays through a named exchange are the worker's: the ladder cannot keep two exchanges apart
                served = self._specs.served_by_ladder(exchange, key)
                entrance, laddered = self._delayed(key, outgoing.not_before) if served else ("", key)
                if served and entrance:
                    exchange, key = entrance, laddered
                    delayed[served.name] = None
            publications.append(
                Publication(exchange, key, properties, envelope.headers, envelope.body, self._confirms)
            )  # fmt: skip
        self.send(publications, queues, delayed, deadline)

    def check_size(self, body: bytes) -> None:
        if len(body) > self._max_bytes:
            raise PublishRejected(
                f"A message body has {len(body)} bytes; broker_max_message_bytes allows {self._max_bytes}. Store the "
                f"data elsewhere and send a reference, or raise the setting."
            )

    def _delayed(self, queue: str, not_before: float) -> tuple[str, str]:
        seconds = delays.seconds_of(not_before, self._clock.time())
        if seconds >= _LEAST_DELAY:
            key = delays.delayed_key(seconds, queue)
            if key is not None:
                return delays.ENTRANCE, key
        return "", queue

    def delayed(self, queue: str, until: float) -> tuple[str, str]:
        """Exchange and routing key that bring a message to ``queue`` at about ``until``."""
        return self._delayed(queue, until)

    def send(
        self, publications: Sequence[Publication], queues: Iterable[str], delayed: Iterable[str], deadline: float
    ) -> None:
        """Publish what is ready to be written. ``queues`` have to be there, ``delayed`` at the end of the ladder."""
        if not publications:
            return
        with self._link.line(deadline) as line:
            channel = line.publishing(self._confirms, deadline)
            if line.connection.is_blocked:
                channel.publish((), deadline)  # waits, since a declaration would do so without saying why
            self._prepare(line, queues, delayed, deadline)
            attempt = _Attempt(line, channel, publications, deadline)
            attempt.run()
            if attempt.lost_queues():
                self._prepare(line, queues, delayed, deadline)
                attempt.run_again()
            if attempt.is_silent:
                self._link.give_up(line)
            attempt.report()

    def _prepare(self, line: Line, queues: Iterable[str], delayed: Iterable[str], deadline: float) -> None:
        missing = [queue for queue in queues if queue not in line.queues]
        unbound = [queue for queue in delayed if queue not in line.delayed]
        if missing or unbound:
            topology = Topology(line, self._specs, self._ladder_type, deadline)
            for queue in missing:
                topology.ensure(queue)
            for queue in unbound:
                topology.ensure_delayed(queue)

    def close(self) -> None:
        self._link.close()


class _Attempt:
    """One batch on its way: what became of each message so far."""

    def __init__(
        self, line: Line, channel: BlockingChannel, publications: Sequence[Publication], deadline: float
    ) -> None:
        self._line = line
        self._channel = channel
        self._publications = publications
        self._deadline = deadline
        self._fates: list[Fate | None] = [None] * len(publications)
        #: the messages that came back because their queue was gone, while there is a second try for them
        self._returned: list[int] = []

    def run(self) -> None:
        """Send everything; messages for places that nothing has reached before first, one for each.

        So a message that leads nowhere is known before its neighbours are stored.
        """
        places = range(len(self._publications))
        proven = self._line.proven
        unproven: dict[tuple[str, str], int] = {}
        for place in places:
            one = self._publications[place]
            if one.exchange and one.mandatory and one.exchange != delays.ENTRANCE:
                address = (one.exchange, one.routing_key)
                if address not in proven:
                    unproven.setdefault(address, place)
        if unproven:
            probes = list(unproven.values())
            self._send(probes)
            if any(self._fates[place] is not CONFIRMED for place in probes):
                return
            proven.update(unproven)
            if len(proven) > 10_000:  # routing keys may be made up by the caller
                proven.clear()
            self._send([place for place in places if self._fates[place] is None])
        else:
            self._send(places)

    def _send(self, places: Sequence[int]) -> None:
        if not places:
            return
        chosen = self._publications
        if len(places) < len(chosen):
            chosen = [chosen[place] for place in places]
        for place, fate in zip(places, self._channel.publish(chosen, self._deadline), strict=True):
            self._fates[place] = fate

    def lost_queues(self) -> bool:
        """Whether messages came back from queues that were there before; what is remembered of those is forgotten."""
        for place, fate in enumerate(self._fates):
            if fate is None or fate.kind != "returned":
                continue
            one = self._publications[place]
            if not one.exchange:
                self._line.queues.discard(one.routing_key)
                self._line.delayed.discard(one.routing_key)
                self._returned.append(place)
            elif one.exchange == delays.ENTRANCE:
                self._line.has_ladder = False
                self._line.delayed.clear()
                self._line.queues.clear()
                self._returned.append(place)
            else:
                self._line.proven.discard((one.exchange, one.routing_key))
        return bool(self._returned)

    def run_again(self) -> None:
        self._send(self._returned)

    @property
    def is_silent(self) -> bool:
        """No answer, and no reason for it that the broker has told."""
        connection = self._line.connection
        return any(fate is not None and fate.kind == "unknown" for fate in self._fates) and not (
            connection.is_closed or connection.is_blocked or self._channel.is_closed
        )

    def report(self) -> None:
        """Return if the broker has everything; else raise what the sender has to know."""
        fates = self._fates
        if all(fate is CONFIRMED for fate in fates):
            return
        kinds = [fate.kind if fate is not None else "unsent" for fate in fates]
        stored = kinds.count("confirmed")
        if "unknown" in kinds:
            raise self._unknown(kinds)
        if stored:
            raise PublishUnknown(
                f"RabbitMQ took {stored} of {len(kinds)} messages and refused the others: {self._complaint()}"
            )
        if "returned" in kinds:
            raise Unroutable(self._complaint())
        raise PublishRejected(self._complaint())

    def _complaint(self) -> str:
        for place, fate in enumerate(self._fates):
            if fate is None or fate is CONFIRMED:
                continue
            one = self._publications[place]
            where = f"exchange {one.exchange!r} with routing key {one.routing_key!r}"
            if fate.kind == "returned":
                return f"No queue takes what is sent to {where}. Declare the queue in task_queues."
            return f"RabbitMQ did not store a message for {where}: its queue is full or has failed."
        return ""

    def _unknown(self, kinds: list[str]) -> Exception:
        error = self._channel.error
        if isinstance(error, ChannelClosed):
            # a channel dies of the first bad message: if there was only one, that is certain
            if len([kind for kind in kinds if kind != "unsent"]) == 1:
                where = self._publications[kinds.index("unknown")]
                if where.exchange == delays.ENTRANCE:  # it was there: the next attempt declares it anew
                    return PublishUnknown(f"Somebody has deleted the exchanges that keep delayed messages: {error}")
                if error.code == NOT_FOUND:
                    return Unroutable(f"There is no exchange {where.exchange!r}: {error}")
                return PublishRejected(f"RabbitMQ refused the message: {error}")
            return PublishUnknown(f"RabbitMQ closed the channel, some messages may be stored: {error}")
        if isinstance(error, ConnectionClosed):
            return PublishUnknown(
                f"The connection was lost before RabbitMQ confirmed; it may have the message: {error}"
            )
        if self._line.connection.is_blocked:
            return PublishTimeout(
                "RabbitMQ stopped taking messages (memory or disk is short) while this one was under way; it may be "
                "stored when the alarm is over."
            )
        return PublishTimeout("RabbitMQ did not confirm within the deadline; it may have the message.")
