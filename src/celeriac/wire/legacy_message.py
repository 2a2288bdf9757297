"""Celery's first message protocol: one mapping in the body; and hybrids that have both headers and such a body.

Old clients and libraries in other languages still send it, so it is read and rewritten to protocol 2; it is written
only when ``task_protocol=1`` asks for it. Source: Celery 5.7 ``worker/strategy.py`` and ``amqp.as_task_v1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.errors import InvalidTaskError
from celeriac.wire.envelope import Envelope
from celeriac.wire.limits import Limits
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import accept_set, serializer_for
from celeriac.wire.task_message import TaskCall, check_arguments, iso_text, load_body, seal

#: formats whose decoding runs no code; whether the worker wants them is decided when the body is read
_HARMLESS = accept_set(["json", "yaml", "msgpack"])


def encode_legacy_task(call: TaskCall, now: float) -> Envelope:
    """The protocol-1 message of a call. A chain becomes nested callbacks, since the protocol has no chains."""
    callbacks = list(call.callbacks) if call.callbacks is not None else None
    if call.chain:
        callbacks = [*(callbacks or []), _linked(call.chain)]
    body: dict[str, Any] = {
        "task": call.task,
        "id": call.id,
        "args": check_arguments(call.args, call.kwargs, call.task),
        "kwargs": call.kwargs,
        "group": call.group_id,
        "group_index": call.group_index,
        "retries": call.retries,
        "eta": None if call.eta is None else iso_text(call.eta),
        "expires": None if call.expires is None else iso_text(call.expires),
        "utc": True,
        "callbacks": callbacks,
        "errbacks": call.errbacks,
        "timelimit": [call.time_limit, call.soft_time_limit],
        "taskset": call.group_id,
        "chord": call.chord,
    }
    return seal(call, body, dict(call.headers or {}), now)


def _linked(chain: Sequence[Any]) -> dict[str, Any]:
    """A chain (the next step last) as its next step, each step carrying the one after it as a link."""
    following: dict[str, Any] | None = None
    for step in chain:
        signature = dict(step)
        if following is not None:
            options = dict(signature.get("options") or {})
            options["link"] = [*_as_list(options.get("link")), following]
            signature["options"] = options
        following = signature
    assert following is not None  # callers pass chains that have steps
    return following


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def modernize(envelope: Envelope, limits: Limits, accept: frozenset[str] | None) -> Envelope:
    """A protocol-1 or hybrid message as protocol 2. Raises ``MessageError``."""
    body = load_body(envelope, _HARMLESS | (accept or frozenset()), limits)
    if not isinstance(body, Mapping) or ("task" not in body and "task" not in envelope.headers):
        raise InvalidTaskError(
            f"Not a task message: it lacks the headers task or id, and its body is no mapping that has them: "
            f"{safe_repr(body, 100)}"
        )
    if "args" not in body and "task" in envelope.headers:
        raise InvalidTaskError(f"The body of a task message is [args, kwargs, embed], not {safe_repr(body, 100)}")
    args = body.get("args", ())
    kwargs = body.get("kwargs", {})
    if not isinstance(args, list | tuple):
        raise InvalidTaskError(f"The task's arguments are not a list: {safe_repr(args, 100)}")
    if not isinstance(kwargs, Mapping):
        raise InvalidTaskError(f"The task's keyword arguments are not a mapping: {safe_repr(kwargs, 100)}")
    headers = _headers(body, args, kwargs, envelope.headers)
    embed = {key: body.get(key) for key in ("callbacks", "errbacks", "chain", "chord")}
    serializer = serializer_for(envelope.properties["content_type"])
    return Envelope(serializer.encode([args, kwargs, embed]), headers, envelope.properties)


def _time_limits(value: Any) -> list[Any]:
    if not value:
        return [None, None]
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InvalidTaskError(f"timelimit is [hard, soft], not {safe_repr(value, 100)}")
    return list(value)


def _headers(body: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Protocol-2 headers from the body's fields; a hybrid's own headers win."""
    group = body.get("taskset")
    headers: dict[str, Any] = {
        "lang": "py",
        "task": body.get("task"),
        "id": body.get("id"),
        "shadow": body.get("shadow"),
        "eta": body.get("eta"),
        "expires": body.get("expires"),
        "group": body.get("group") if group is None else group,
        "group_index": body.get("group_index"),
        "retries": body.get("retries") or 0,
        "timelimit": _time_limits(body.get("timelimit")),
        "root_id": body.get("root_id") or body.get("id"),
        "parent_id": body.get("parent_id"),
        "argsrepr": safe_repr(args),
        "kwargsrepr": safe_repr(kwargs),
        "origin": body.get("origin") or "",
        "ignore_result": body.get("ignore_result"),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    if body.get("utc") is False:
        # times without a zone are then in the application's zone, which only the worker knows
        headers["utc"] = False
    headers.update(given)
    headers.pop("compression", None)  # the rewritten body is not compressed
    return headers
