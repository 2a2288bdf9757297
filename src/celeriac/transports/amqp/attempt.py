"""One batch on its way to the broker: in which order it is written, and what the broker's answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.amqp.errors import ChannelClosed, ConnectionClosed
from celeriac.amqp.messages import CONFIRMED
from celeriac.errors import PublishRejected, PublishTimeout, PublishUnknown, Unroutable
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.errors import NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.amqp.blocking_channel import BlockingChannel
    from celeriac.amqp.messages import Fate, Publication
    from celeriac.transports.amqp.link import Line


class Attempt:
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
        fates = self._channel.publish(chosen, self._deadline)
        if chosen is self._publications:
            self._fates[:] = fates
            return
        for place, fate in zip(places, fates, strict=True):
            self._fates[place] = fate

    @property
    def is_confirmed(self) -> bool:
        """The broker has them all."""
        return self._fates.count(CONFIRMED) == len(self._fates)

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

    def verdict(self, start: int, stop: int) -> Exception | None:
        """What the sender of these messages has to know; None if the broker has them all."""
        fates = self._fates[start:stop]
        if all(fate is CONFIRMED for fate in fates):
            return None
        kinds = [fate.kind if fate is not None else "unsent" for fate in fates]
        stored = kinds.count("confirmed")
        if "unknown" in kinds:
            return self._unknown()
        complaint = self._complaint(start, stop)
        if stored:
            return PublishUnknown(
                f"RabbitMQ took {stored} of {len(kinds)} messages and refused the others: {complaint}"
            )
        return Unroutable(complaint) if "returned" in kinds else PublishRejected(complaint)

    def _complaint(self, start: int, stop: int) -> str:
        for place in range(start, stop):
            fate = self._fates[place]
            if fate is None or fate is CONFIRMED:
                continue
            one = self._publications[place]
            where = f"exchange {one.exchange!r} with routing key {one.routing_key!r}"
            if fate.kind == "returned":
                return f"No queue takes what is sent to {where}. Declare the queue in task_queues."
            return f"RabbitMQ did not store a message for {where}: its queue is full or has failed."
        return ""

    def _unknown(self) -> Exception:
        error = self._channel.error
        if isinstance(error, ChannelClosed):
            sent = [place for place, fate in enumerate(self._fates) if fate is not None]
            # a channel dies of the first bad message: if there was only one, that is certain
            if len(sent) == 1:
                where = self._publications[sent[0]]
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
