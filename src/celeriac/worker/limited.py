"""Which limits a message falls under, and what it therefore needs to start.

Reads arguments in the worker's own process where a key asks for them, and plain data only: a body that could run code
is not read here, all of those count under one key.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.rules.limit import BoundLimit, Limit, LimitChange, bind, limits_of, same_under_one_name
from celeriac.wire.sealed import opened
from celeriac.wire.serializers import accept_set
from celeriac.wire.task_message import read_body

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from celeriac.executors.base import Runnable, RunnableOptions
    from celeriac.rules.counting import Need
    from celeriac.wire.limits import Limits
    from celeriac.worker.claims import Claim

logger = logging.getLogger("celeriac.worker")

#: what is plain data, whoever wrote it
_PLAIN = accept_set(("json", "msgpack", "yaml"))
_NO_ARGUMENTS: tuple[tuple[Any, ...], dict[str, Any], bool] = ((), {}, True)
#: bodies of more bytes are read off the loop
LARGE = 64 << 10
#: limits that an error text names
_SHOWN = 10


class Limited:
    """The limits of this worker's tasks and of the queues. Truth value: whether there are any."""

    def __init__(self, tasks: Mapping[str, Runnable], queue_limits: object, limits: Limits) -> None:
        self._options: dict[str, RunnableOptions] = {name: task.runnable_options for name, task in tasks.items()}
        self._tasks = {name: options.limits for name, options in self._options.items() if options.limits}
        self._queues = _queue_limits(queue_limits)
        self._limits = limits
        self._unread: set[str] = set()
        #: (queue, task) → what applies
        self._known: dict[tuple[str, str], tuple[BoundLimit, ...]] = {}
        every = [(f"task {name}", one) for name, bound in self._tasks.items() for one in bound]
        for queue, given in self._queues.items():
            where = f"task_queue_limits[{queue!r}]"
            every += [(where, one) for one in bind(given, where, f"queue/{queue}", lambda: None, strict=False)]
        same_under_one_name(every)
        #: by the name of their counters, as the code has them
        self._bound = {one.counter: one for _, one in every}
        self._changes: dict[str, LimitChange] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks or self._queues)

    @property
    def first(self) -> str:
        """One of those who have limits, for error texts."""
        if self._tasks:
            return f"task {next(iter(self._tasks))}"
        return f"task_queue_limits ({next(iter(self._queues))})"

    def applies(self, claim: Claim) -> bool:
        """What is only to be concluded runs no task."""
        request = claim.request
        return (request.task in self._tasks or request.queue in self._queues) and request.failure is None

    def is_large(self, claim: Claim) -> bool:
        """Whether finding its needs may take a while."""
        message = claim.request.message
        size = len(message if isinstance(message, bytes) else message.body)
        return size > LARGE and any(one.reads_arguments for one in self._of(claim))

    def needs_of(self, claim: Claim) -> tuple[Need, ...]:
        """What it needs to start. Never raises for what a message contains."""
        bound = self._of(claim)
        args, kwargs, known = _NO_ARGUMENTS
        if not any(one.selectors for one in bound):
            return tuple(need for one in bound for need in one.needs(args, kwargs, {}))
        message = claim.request.message
        # not ``request.envelope``, which would be handed to the child instead of the bytes
        envelope = opened(message) if isinstance(message, bytes) else message
        if any(one.reads_arguments for one in bound):
            try:
                body = read_body(envelope, _PLAIN, self._limits)
                args, kwargs = tuple(body.args), body.kwargs
            except Exception as error:  # a child says what is wrong with it; types of users may be in it
                logger.debug("the arguments of task %s cannot be read here: %r", claim.id, error)
                known = False
        return tuple(need for one in bound for need in one.needs(args, kwargs, envelope.headers, known))

    def _of(self, claim: Claim) -> tuple[BoundLimit, ...]:
        queue, task = claim.request.queue, claim.request.task
        found = self._known.get((queue, task))
        if found is None:
            given = self._queues.get(queue, ())
            options = self._options.get(task)
            parameters = None if options is None else options.parameters
            where = f"task_queue_limits[{queue!r}]"
            of_queue = bind(given, where, f"queue/{queue}", lambda: parameters, strict=False)
            found = (*self._tasks.get(task, ()), *of_queue)
            found = self._known[(queue, task)] = tuple(one.changed(self._changes.get(one.counter)) for one in found)
        return found

    # ── changed while workers run ────────────────────────────────────────────────────────────────────────────────

    def all(self) -> list[BoundLimit]:
        """As they are now."""
        return [one.changed(self._changes.get(one.counter)) for one in self._bound.values()]

    def find(self, wanted: str, fields: Collection[str] = ()) -> BoundLimit:
        """The limit that is called so. By its handle; or by its task (``NAME``, ``task/NAME``) or queue
        (``queue/NAME``), if only one limit of that has these fields. Raises ``ValueError``."""
        found = [one for one in self._bound.values() if wanted in (one.handle, one.counter)]
        if not found:
            bare = [one for one in self._bound.values() if one.counter.rpartition("|")[0] in (wanted, f"task/{wanted}")]
            having = [one for one in bare if any(getattr(one.limit, field, None) is not None for field in fields)]
            found = having if len(having) == 1 else bare
        if len(found) > 1:
            raise ValueError(f"{wanted!r} has several limits: say which of {', '.join(one.handle for one in found)}")
        if not found:
            there = ", ".join([one.handle for one in self._bound.values()][:_SHOWN]) or "none"
            raise ValueError(f"there is no limit {wanted!r} here; there are: {there}")
        return found[0]

    def apply(self, kept: Mapping[str, bytes]) -> bool:
        """Heed what the store keeps of changes, and say what is new; whether anything is."""
        changes: dict[str, LimitChange] = {}
        for counter, one in self._bound.items():
            if counter not in kept:
                continue
            try:
                changes[counter] = read_change(kept[counter])
                one.changed(changes[counter])
            except (msgspec.MsgspecError, ImproperlyConfigured) as error:
                changes.pop(counter, None)
                if counter not in self._unread:
                    logger.warning("what the store keeps of limit %s is not heeded: %s", one.handle, error)
                    self._unread.add(counter)
        if changes == self._changes:
            return False
        before, self._changes = self._changes, changes
        self._known.clear()
        for counter in before.keys() | changes.keys():
            if before.get(counter) != changes.get(counter):
                one = self._bound[counter].changed(changes.get(counter))
                logger.info("limit %s is %s, %s", one.handle, described(one.values), "as changed by remote control"
                            if one.change else "as in the code")  # fmt: skip
        return True


def read_change(kept: bytes) -> LimitChange:
    """Raises ``msgspec.MsgspecError``."""
    return msgspec.json.decode(kept, type=LimitChange)


def described(values: Mapping[str, Any]) -> str:
    """``rate 10/s, concurrency 5``; what is not limited is left out."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None) or "without limit"


def _queue_limits(given: object) -> dict[str, tuple[Limit, ...]]:
    if not given:
        return {}
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"task_queue_limits is a dict of queue to limits, not {given!r}")
    limits = {str(queue): limits_of(some, f"task_queue_limits[{queue!r}]") for queue, some in given.items()}
    return {queue: some for queue, some in limits.items() if some}
