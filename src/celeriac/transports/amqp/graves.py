"""Dead letters and quarantined messages: looked into, put back, thrown away.

AMQP has no way to look without taking: everything in a grave is fetched, and goes back in its old order when the
channel is closed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.amqp.errors import AmqpError, ChannelClosed
from celeriac.transports.amqp.burial import exhumed, grave_id, grave_of, read_grave
from celeriac.transports.amqp.errors import NOT_FOUND, operational

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celeriac.amqp.blocking_channel import BlockingChannel
    from celeriac.amqp.messages import Message
    from celeriac.transports.amqp.link import Link
    from celeriac.transports.amqp.publisher import AmqpPublisher
    from celeriac.transports.base import Buried

#: the most that is looked at in one grave, and seconds for it
_MOST, _PATIENCE = 100_000, 30.0


class Graves:
    def __init__(self, link: Link, publisher: AmqpPublisher) -> None:
        self._link = link
        self._publisher = publisher

    def newest(self, queues: Sequence[str], limit: int) -> list[Buried]:
        deadline = time.monotonic() + _PATIENCE
        found: list[Buried] = []
        with self._link.line(deadline) as line:
            for queue in queues:
                for quarantined in (False, True):
                    channel = line.connection.channel(deadline)
                    lying = _contents(channel, grave_of(queue, quarantined), deadline)
                    found += [read_grave(message, queue, quarantined) for message in lying]
                    channel.close(deadline)
        found.sort(key=lambda one: one.buried_at, reverse=True)
        return found[:limit]

    def remove(self, chosen: Sequence[Buried], *, put_back: bool) -> int:
        """How many were still there, and could be put back."""
        wanted: dict[tuple[str, bool], set[str]] = {}
        for one in chosen:
            wanted.setdefault((one.queue, one.quarantined), set()).add(one.id)
        return sum(self._remove(*grave, ids, put_back) for grave, ids in wanted.items())

    def _remove(self, queue: str, quarantined: bool, ids: set[str], put_back: bool) -> int:
        deadline = time.monotonic() + _PATIENCE
        removed = 0
        with self._link.line(deadline) as line:
            channel = line.connection.channel(deadline)
            try:
                # the oldest first, as they had come
                for message in _contents(channel, grave_of(queue, quarantined), deadline):
                    if grave_id(message) not in ids:
                        continue
                    if put_back:
                        publication = exhumed(message, queue)
                        if publication is None:
                            continue
                        self._publisher.send([publication], [queue], (), deadline)
                    channel.ack(message.delivery_tag)
                    removed += 1
                channel.flush(deadline)
            finally:
                channel.close(deadline)
        return removed


def _contents(channel: BlockingChannel, grave: str, deadline: float) -> Iterator[Message]:
    """Everything that lies there; it stays taken until the channel is closed."""
    for _ in range(_MOST):
        try:
            message = channel.get(grave, deadline=deadline)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return
            raise operational(error, f"Looking into {grave!r}") from error
        except AmqpError as error:
            raise operational(error, f"Looking into {grave!r}") from error
        if message is None:
            return
        yield message
