"""Which limits a message falls under, and what it therefore needs to start.

Reads arguments in the worker's own process where a key asks for them, and plain data only: a body that could run code
is not read here, all of those count under one key.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celeriac.errors import ImproperlyConfigured
from celeriac.rules.limit import BoundLimit, Limit, bind, limits_of, same_under_one_name
from celeriac.wire.sealed import opened
from celeriac.wire.serializers import accept_set
from celeriac.wire.task_message import read_body

if TYPE_CHECKING:
    from collections.abc import Mapping

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


class Limited:
    """The limits of this worker's tasks and of the queues. Truth value: whether there are any."""

    def __init__(self, tasks: Mapping[str, Runnable], queue_limits: object, limits: Limits) -> None:
        self._options: dict[str, RunnableOptions] = {name: task.runnable_options for name, task in tasks.items()}
        self._tasks = {name: options.limits for name, options in self._options.items() if options.limits}
        self._queues = _queue_limits(queue_limits)
        self._limits = limits
        #: (queue, task) → what applies
        self._known: dict[tuple[str, str], tuple[BoundLimit, ...]] = {}
        every = [(f"task {name}", one) for name, bound in self._tasks.items() for one in bound]
        for queue, given in self._queues.items():
            where = f"task_queue_limits[{queue!r}]"
            every += [(where, one) for one in bind(given, where, f"queue/{queue}", lambda: None, strict=False)]
        same_under_one_name(every)

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
            found = self._known[(queue, task)] = (*self._tasks.get(task, ()), *of_queue)
        return found


def _queue_limits(given: object) -> dict[str, tuple[Limit, ...]]:
    if not given:
        return {}
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"task_queue_limits is a dict of queue to limits, not {given!r}")
    limits = {str(queue): limits_of(some, f"task_queue_limits[{queue!r}]") for queue, some in given.items()}
    return {queue: some for queue, some in limits.items() if some}
