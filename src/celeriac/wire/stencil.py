"""Messages of calls that differ in nothing but id and arguments: whatever they share is written once.

``delay(2, 2)`` of one task makes the same headers and properties again and again; a copy of those costs a third of
writing them anew (:func:`~celeriac.wire.task_message.encode_task`, which stays the definition of what they are).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.errors import EncodeError
from celeriac.wire import json_types
from celeriac.wire.envelope import Envelope
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.task_message import ARGUMENT_ROOM, NO_EMBED, TaskCall, check_arguments, encode_task, not_sendable

#: fields of a call that make its headers, properties or body depend on more than id and arguments
_MORE = (
    "eta", "expires", "root_id", "callbacks", "errbacks", "chain", "chord", "compression", "headers", "properties",
    "stamps", "argsrepr", "kwargsrepr",
)  # fmt: skip


def fits(call: TaskCall) -> bool:
    """Whether a stencil can be made of it."""
    return call.serializer == "json" and call.protocol == 2 and not any(getattr(call, field) for field in _MORE)


class Stencil:
    """Writes the messages of calls like one that :func:`fits`. Thread-safe."""

    __slots__ = ("_headers", "_levels", "_model", "_properties", "_task", "_time_limits")

    def __init__(self, call: TaskCall) -> None:
        shared = encode_task(call, 0.0)
        self._task = call.task
        self._levels = call.repr_levels
        self._headers = shared.headers
        # in the order in which they stand among the headers
        self._model = json_types.Model(shared.headers, ("id", "root_id", "argsrepr", "kwargsrepr"))
        self._properties = shared.properties
        self._time_limits: list[float | None] = shared.headers["timelimit"]

    def write(self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], reply_to: str | None) -> Envelope:
        """Raises what :func:`~celeriac.wire.task_message.encode_task` raises. ``reply_to``: None: as in the model."""
        args = check_arguments(args, kwargs, self._task)
        # the keys are there already: filling them in keeps Celery's order
        headers = json_types.PlainDict(self._headers)
        headers.model = self._model
        headers["id"] = headers["root_id"] = task_id
        headers["argsrepr"] = safe_repr(args, 1024, self._levels)
        if kwargs:
            headers["kwargsrepr"] = safe_repr(kwargs, 1024, self._levels)
        headers["timelimit"] = self._time_limits.copy()  # messages share nothing that can be changed
        headers["stamps"] = {}
        properties = json_types.PlainDict(self._properties)
        properties["correlation_id"] = task_id
        if reply_to is not None:
            properties["reply_to"] = reply_to
        plain = json_types.is_plain(args, ARGUMENT_ROOM) and (not kwargs or json_types.is_plain(kwargs, ARGUMENT_ROOM))
        try:
            body = json_types.encode((args, kwargs, NO_EMBED), plain or None)
        except EncodeError as error:
            raise not_sendable(self._task, error) from error
        return Envelope(body, headers, properties)
