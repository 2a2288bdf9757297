"""From outgoing messages to what ``_send.lua`` reads: encoded, routed, sorted by list.

Nothing is stored before the whole batch has passed: too large, unwritable and unroutable messages are refused here.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from celeriac.errors import EncodeError, PublishRejected
from celeriac.ids import task_id
from celeriac.redis.keys import Keys, binding_member, read_binding
from celeriac.transports.bindings import Binding, destinations
from celeriac.wire.kombu_json import encode_envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.redis.connect import Argument
    from celeriac.transports.base import Outgoing, QueueSpec
    from celeriac.wire.envelope import Route

#: seconds that bindings are believed in
_REMEMBERED = 5.0


class Bindings:
    """What is bound to which exchange, as it stands in the server; remembered shortly. Thread-safe."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        #: exchange → (when it was read, routing keys and queues); entries are only ever replaced whole
        self._known: dict[str, tuple[float, list[tuple[str, str]]]] = {}

    def queues_for(self, route: Route, ask: Callable[[str], set[bytes]]) -> list[str]:
        """Where ``route`` leads. ``ask``: reads a set. Raises ``Unroutable``."""
        known = self._known.get(route.exchange)
        if known is not None and time.monotonic() - known[0] < _REMEMBERED:
            found = [Binding(route.exchange_type, key, queue) for key, queue in known[1]]
            if route.exchange_type != "direct" or any(one.routing_key == route.routing_key for one in found):
                return destinations(route, found)
        members = ask(self._keys.binding(route.exchange))
        bound = [pair for member in sorted(members) if (pair := read_binding(self._keys, member)) is not None]
        self._known[route.exchange] = (time.monotonic(), bound)
        return destinations(route, [Binding(route.exchange_type, key, queue) for key, queue in bound])

    def forget(self) -> None:
        self._known.clear()


def declaration(keys: Keys, spec: QueueSpec) -> list[tuple[Argument, ...]]:
    """The commands that make a queue known, to Celery's processes as well."""
    commands: list[tuple[Argument, ...]] = [("SADD", keys.queues, spec.name)]
    if spec.exchange:
        member = binding_member(keys, spec.name, spec.routing_key, spec.exchange_type)
        commands.append(("SADD", keys.binding(spec.exchange), member))
        if not spec.expires:
            commands.append(("SADD", keys.permanent_binding(spec.exchange), member))
    return commands


class Delayed(NamedTuple):
    due: int  #: ms since the epoch
    queue: str
    step: int
    payload: bytes


class Sends:
    """A batch, sorted."""

    __slots__ = ("delayed", "lists")

    def __init__(self) -> None:
        self.lists: dict[tuple[str, int], list[bytes]] = {}
        self.delayed: list[Delayed] = []

    def write(self, keys: Keys, nonces: Nonces, names: list[str | bytes], arguments: list[Argument]) -> None:
        """Append what ``_send.lua`` reads."""
        arguments.append(len(self.lists))
        for (queue, step), payloads in self.lists.items():
            names += (keys.list_of(queue, step), keys.wake(queue))
            arguments.append(len(payloads))
            arguments += payloads
        arguments.append(len(self.delayed))
        for one in self.delayed:
            queue = one.queue
            names += (keys.delayed(queue), keys.wake(queue), keys.list_of(queue, one.step), keys.served(queue))
            arguments += (one.due, f"{nonces.next()}|{one.step}|", one.payload)


class Nonces:
    """Make the members of a set different, and keep those of one sender in order. Thread-safe."""

    def __init__(self) -> None:
        self._sender = task_id().rpartition("-")[2]
        self._numbers = count()

    def next(self) -> str:
        return f"{next(self._numbers):010x}{self._sender}"


class Sorter:
    """Encodes and routes batches. Thread-safe."""

    def __init__(self, keys: Keys, bindings: Bindings, max_bytes: int) -> None:
        self._keys = keys
        self._bindings = bindings
        self._max_bytes = max_bytes

    def sort(self, batch: Sequence[Outgoing], ask: Callable[[str], set[bytes]]) -> Sends:
        """Raises ``PublishRejected`` and ``Unroutable`` for the whole batch. ``ask``: reads a set, for bindings."""
        sends = Sends()
        lists, step_of = sends.lists, self._keys.step_of
        for outgoing in batch:
            envelope, route, not_before = outgoing.envelope, outgoing.route, outgoing.not_before
            payload = encoded(outgoing, self._max_bytes)
            priority = envelope.properties.get("priority")
            step = step_of(priority) if priority else 0
            queues = self._bindings.queues_for(route, ask) if route.exchange else (route.routing_key,)
            for queue in queues:
                if not_before is not None:
                    sends.delayed.append(Delayed(int(not_before * 1000), queue, step, payload))
                    continue
                place = (queue, step)
                if place in lists:
                    lists[place].append(payload)
                else:
                    lists[place] = [payload]
        return sends


def encoded(outgoing: Outgoing, max_bytes: int) -> bytes:
    """kombu's envelope. Raises ``PublishRejected``."""
    try:
        payload = encode_envelope(outgoing.envelope, outgoing.route)
    except (EncodeError, TypeError, ValueError) as error:
        raise PublishRejected(f"A message cannot be written as JSON: {error}") from error
    if len(payload) > max_bytes:
        raise PublishRejected(
            f"A message has {len(payload)} bytes; broker_max_message_bytes allows {max_bytes}. Store the data "
            f"elsewhere and send a reference, or raise the setting."
        )
    return payload
