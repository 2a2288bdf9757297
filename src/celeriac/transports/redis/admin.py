"""Looks after queues: Celery's lists and bindings, and what of ours belongs to them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celeriac.errors import BrokerFull
from celeriac.redis.errors import ReplyError
from celeriac.redis.keys import read_binding, read_field
from celeriac.redis.scripts import script
from celeriac.transports.base import QueueCounts
from celeriac.transports.redis.graves import Graves
from celeriac.transports.redis.legacy import Unacked
from celeriac.transports.redis.sending import declaration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.redis.connect import Command, Link, Links
    from celeriac.redis.errors import Translating
    from celeriac.redis.keys import Keys
    from celeriac.transports.base import Buried, QueueSpec, Stranded
    from celeriac.transports.redis.sending import Bindings
    from celeriac.wire.envelope import Route

_UNDELAY = script("undelay")
#: seconds that one operation may take
_PATIENCE = 30.0
#: exchanges whose queues are no task queues: remote control, its replies, events
_NOT_FOR_TASKS = ("pidbox", "celeryev")


class RedisAdmin:
    """Blocking, thread-safe."""

    def __init__(
        self, links: Links, keys: Keys, bindings: Bindings, translating: Translating, options: Mapping[str, Any],
        clock: Clock,
    ) -> None:  # fmt: skip
        self._options = options
        self._clock = clock
        self._links = links
        self._keys = keys
        self._bindings = bindings
        self._translating = translating

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        commands = [command for spec in queues for command in declaration(self._keys, spec)]
        try:
            self._ask(commands)
        except BrokerFull:
            # a full server takes no member, not even one that it has: a worker must be able to start and drain it
            if not all(self._ask([("SISMEMBER", *command[1:]) for command in commands])):
                raise
        self._bindings.forget()

    def delete(self, queue: str) -> None:
        """The queue, its bindings and what waits in it. What workers hold is not touched."""
        keys = self._keys
        with self._translating, self._links.borrow() as link:
            commands: list[Command] = [
                ("UNLINK", *keys.lists(queue), keys.delayed(queue), keys.wake(queue)),
                ("SREM", keys.queues, queue),
            ]
            for name, member in self._bindings_of(link):
                if (bound := read_binding(keys, member)) is not None and bound[1] == queue:
                    commands.append(("SREM", name, member))
            _answers(link, commands)
        self._bindings.forget()

    def purge(self, queue: str) -> int:
        """Remove every waiting message; returns how many."""
        keys = self._keys
        names = keys.lists(queue)
        counts: list[Command] = [("LLEN", name) for name in names]
        *_, done = self._ask(
            [("MULTI",), *counts, ("ZCARD", keys.delayed(queue)), ("UNLINK", *names, keys.delayed(queue)), ("EXEC",)]
        )  # fmt: skip
        return sum(done[:-1])

    def depth(self, queue: str) -> int:
        keys = self._keys
        commands: list[Command] = [("LLEN", name) for name in keys.lists(queue)]
        return sum(self._ask([*commands, ("ZCARD", keys.delayed(queue))]))

    def counts(self, queue: str) -> QueueCounts:
        """What is in ``queue``; delayed messages whose time has come count as waiting, whoever moves them."""
        keys = self._keys
        with self._translating, self._links.borrow() as link:
            (seconds, microseconds), owners = _answers(link, [("TIME",), ("ZRANGE", keys.owners, 0, -1)])
            now = int(seconds) * 1000 + int(microseconds) // 1000
            lists: list[Command] = [("LLEN", name) for name in keys.lists(queue)]
            *waiting, due, delayed, dead, quarantined = _answers(
                link,
                [
                    *lists, ("ZCOUNT", keys.delayed(queue), "-inf", now),
                    ("ZCOUNT", keys.delayed(queue), f"({now}", "+inf"),
                    ("LLEN", keys.buried(queue, False)), ("LLEN", keys.buried(queue, True)),
                ],
            )  # fmt: skip
            fields = _answers(link, [("HKEYS", keys.held(owner.decode())) for owner in owners])
        held = sum(read_field(field.decode()).queue == queue for found in fields for field in found)
        return QueueCounts(
            waiting=sum(waiting) + due, delayed=delayed, held=held, dead=dead, quarantined=quarantined
        )  # fmt: skip

    def queues(self) -> Sequence[str]:
        keys = self._keys
        with self._translating, self._links.borrow() as link:
            (declared,) = _answers(link, [("SMEMBERS", keys.queues)])
            found = {name.decode("utf-8", "replace") for name in declared}
            for name, member in self._bindings_of(link):
                if not keys.exchange_of(name).endswith(_NOT_FOR_TASKS):
                    bound = read_binding(keys, member)
                    if bound is not None:
                        found.add(bound[1])
        return sorted(found)

    def _bindings_of(self, link: Link) -> list[tuple[str, bytes]]:
        """Key and member of every binding there is, Celery's too."""
        keys = self._keys
        names: list[str] = []
        for pattern in (keys.binding("*"), keys.permanent_binding("*")):
            cursor = b"0"
            while True:
                cursor, found = link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "set")
                names += [name.decode("utf-8", "surrogateescape") for name in found]
                if cursor == b"0":
                    break
        members = _answers(link, [("SMEMBERS", name) for name in names])
        return [(name, member) for name, bound in zip(names, members, strict=True) for member in bound]

    # ── what was set aside ───────────────────────────────────────────────────────────────────────────────────────

    def buried(self, queues: Sequence[str], limit: int) -> Sequence[Buried]:
        """The newest dead letters and quarantined messages of these queues."""
        with self._translating, self._links.borrow() as link:
            return Graves(link, self._keys).newest(queues, limit)

    def replay(self, chosen: Sequence[Buried]) -> int:
        """Put them back into their queues, attempts forgotten; how many were still there."""
        with self._translating, self._links.borrow() as link:
            return Graves(link, self._keys).remove(chosen, put_back=True)

    def discard(self, chosen: Sequence[Buried]) -> int:
        with self._translating, self._links.borrow() as link:
            return Graves(link, self._keys).remove(chosen, put_back=False)

    # ── what Celery's workers left behind ────────────────────────────────────────────────────────────────────────

    def stranded(self, older_than: float) -> Sequence[Stranded]:
        """What stands in Celery's ``unacked`` for longer than that."""
        with self._translating, self._links.borrow() as link:
            return self._unacked(link).stranded(older_than)

    def rescue(self, older_than: float) -> int:
        with self._translating, self._links.borrow() as link:
            return self._unacked(link).restore(older_than)

    def undelay(self, queue: str) -> int:
        keys, moved = self._keys, 0
        names = (keys.delayed(queue), keys.list_of(queue), keys.wake(queue))
        with self._translating, self._links.borrow() as link:
            while brought := _UNDELAY.run(link, names, (keys.separator,), time.monotonic() + _PATIENCE):
                moved += brought
        return moved

    def _unacked(self, link: Link) -> Unacked:
        def queues_for(route: Route) -> list[str]:
            return self._bindings.queues_for(route, lambda key: set(link.call("SMEMBERS", key)))

        return Unacked(link, self._keys, self._options, queues_for, self._clock)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        with self._translating, self._links.borrow() as link:
            return _answers(link, commands)

    def close(self) -> None:
        """The connections are the transport's."""


def _answers(link: Link, commands: Sequence[Command]) -> list[Any]:
    if not commands:
        return []
    answers = link.call_many(commands, time.monotonic() + _PATIENCE)
    for answer in answers:
        if isinstance(answer, ReplyError):
            raise answer
    return answers
