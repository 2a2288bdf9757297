"""Looks after queues. Blocking, thread-safe; over a connection of its own, which no alarm holds up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.amqp.errors import ChannelClosed
from celeriac.errors import OperationalError
from celeriac.transports.amqp.burial import grave_of
from celeriac.transports.amqp.errors import NOT_FOUND, operational
from celeriac.transports.amqp.graves import Graves
from celeriac.transports.amqp.topology import Topology
from celeriac.transports.base import QueueCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.transports.amqp.link import Line, Link
    from celeriac.transports.amqp.publisher import AmqpPublisher
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import Buried, QueueSpec

#: seconds that one question may take, connecting included
_TIMEOUT = 10.0


class AmqpAdmin:
    def __init__(self, link: Link, specs: Specs, publisher: AmqpPublisher, ladder_type: str) -> None:
        self._link = link
        self._specs = specs
        self._ladder_type = ladder_type
        self._graves = Graves(link, publisher)

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Raises ``OperationalError`` naming the queue if none of them can be had; one among others is warned of."""
        deadline = time.monotonic() + _TIMEOUT
        failures: list[OperationalError] = []
        with self._link.line(deadline) as line:
            topology = Topology(line, self._specs, self._ladder_type, deadline)
            for spec in queues:
                self._specs.tell(spec)
                try:
                    topology.declare(spec)
                    topology.rebind_delayed(spec.name)
                except OperationalError as error:
                    failures.append(error)
        if failures and len(failures) == len(queues):
            raise failures[0]
        for failure in failures:
            self._specs.warn(str(failure))

    def delete(self, queue: str) -> None:
        deadline = time.monotonic() + _TIMEOUT
        with self._link.line(deadline) as line:
            line.asking(deadline).delete_queue(queue, deadline=deadline)
            line.queues.discard(queue)
            self._specs.forget(queue)

    def purge(self, queue: str) -> int:
        deadline = time.monotonic() + _TIMEOUT
        with self._link.line(deadline) as line:
            try:
                return line.asking(deadline).purge_queue(queue, deadline=deadline)
            except ChannelClosed as error:
                if error.code == NOT_FOUND:
                    return 0
                raise operational(error, f"Purging queue {queue!r}") from error

    def depth(self, queue: str) -> int:
        """Delayed messages are on the ladder and not counted: nobody knows whose they are."""
        deadline = time.monotonic() + _TIMEOUT
        with self._link.line(deadline) as line:
            return _waiting(line, queue, deadline)

    def counts(self, queue: str) -> QueueCounts:
        deadline = time.monotonic() + _TIMEOUT
        with self._link.line(deadline) as line:
            waiting, dead, quarantined = (
                _waiting(line, name, deadline) for name in (queue, grave_of(queue, False), grave_of(queue, True))
            )
        return QueueCounts(waiting=waiting, delayed=None, held=None, dead=dead, quarantined=quarantined)

    def buried(self, queues: Sequence[str], limit: int) -> Sequence[Buried]:
        return self._graves.newest(queues, limit)

    def replay(self, chosen: Sequence[Buried]) -> int:
        return self._graves.remove(chosen, put_back=True)

    def discard(self, chosen: Sequence[Buried]) -> int:
        return self._graves.remove(chosen, put_back=False)

    def queues(self) -> Sequence[str]:
        """Those that this process has declared: the broker tells its list to its management pages only."""
        return self._specs.names()

    def close(self) -> None:
        """The connection stays with the transport."""


def _waiting(line: Line, queue: str, deadline: float) -> int:
    try:
        return line.asking(deadline).declare_queue(queue, passive=True, deadline=deadline).messages
    except ChannelClosed as error:
        if error.code == NOT_FOUND:
            return 0
        raise operational(error, f"Looking at queue {queue!r}") from error
