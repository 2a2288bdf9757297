"""Task messages: a call → protocol-2 envelope, and an envelope's body → arguments, when somebody asks.

Headers tell everything a worker needs to route, admit and log; the body stays bytes until the child that runs the
task reads it. Source of the layout: Celery's protocol 2 as its 5.7 writes it (``Celery.amqp.as_task_v2``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import msgspec

from celeriac.errors import DecodeError, EncodeError, InvalidTaskError
from celeriac.ids import is_safe_id
from celeriac.wire import json_types
from celeriac.wire.compression import compress, decompress
from celeriac.wire.envelope import Envelope
from celeriac.wire.json_types import is_plain
from celeriac.wire.limits import DEFAULT_LIMITS, Limits, check_json, check_size
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import dumps, json_is_plain, loads


class TaskCall(msgspec.Struct, kw_only=True):
    """One call of a task, all options resolved: what :func:`encode_task` writes."""

    task: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    #: a datetime without a zone is UTC; text is passed on as it is
    eta: datetime | str | None = None
    expires: datetime | str | None = None
    group_id: str | None = None
    group_index: int | None = None
    retries: int = 0
    time_limit: float | None = None
    soft_time_limit: float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    shadow: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: Sequence[str] | None = None
    stamps: Mapping[str, Any] | None = None
    callbacks: Sequence[Any] | None = None
    errbacks: Sequence[Any] | None = None
    #: the remaining signatures, the next one last
    chain: Sequence[Any] | None = None
    chord: Any = None
    origin: str = ""
    reply_to: str = ""
    priority: int | None = None
    delivery_mode: int = 2
    serializer: str = "json"
    compression: str | None = None
    #: merged over the standard headers, at top level
    headers: Mapping[str, Any] | None = None
    #: merged over the standard properties
    properties: Mapping[str, Any] | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    repr_levels: int = 3
    protocol: int = 2


#: what may change a message before it is serialized: gets body, headers, properties
Before = Callable[[Any, dict[str, Any], dict[str, Any]], object]


class TaskBody(NamedTuple):
    """What the body of a task message holds."""

    args: list[Any]
    kwargs: dict[str, Any]
    callbacks: list[Any] | None
    errbacks: list[Any] | None
    chain: list[Any] | None
    chord: Any


_TEXT = frozenset({str})
#: levels of nesting that args and kwargs may have
ARGUMENT_ROOM = DEFAULT_LIMITS.depth - 1
#: the third part of the body, where nothing follows
NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────


def encode_task(call: TaskCall, now: float, before: Before | None = None) -> Envelope:
    """The message of a call. ``now``: seconds since the epoch, for the ``expiration`` property.

    ``before``: gets the body ``(args, kwargs, embed)``, headers and properties, and may change them in place.
    Raises ``EncodeError`` when the serializer can't express an argument, ``TypeError`` when args or kwargs are of
    the wrong shape.
    """
    if call.protocol == 1:
        from celeriac.wire.legacy_message import encode_legacy_task  # the old protocol builds on this one

        return encode_legacy_task(call, now)
    args = check_arguments(call.args, call.kwargs, call.task)
    kwargs = call.kwargs
    headers: dict[str, Any] = {
        "lang": "py",
        "task": call.task,
        "id": call.id,
        "shadow": call.shadow,
        "eta": None if call.eta is None else iso_text(call.eta),
        "expires": None if call.expires is None else iso_text(call.expires),
        "group": call.group_id,
        "group_index": call.group_index,
        "retries": call.retries,
        "timelimit": [call.time_limit, call.soft_time_limit],
        "root_id": call.root_id or call.id,
        "parent_id": call.parent_id,
        "argsrepr": safe_repr(args, 1024, call.repr_levels) if call.argsrepr is None else call.argsrepr,
        "kwargsrepr": safe_repr(kwargs, 1024, call.repr_levels) if call.kwargsrepr is None else call.kwargsrepr,
        "origin": call.origin,
        "ignore_result": call.ignore_result,
        "replaced_task_nesting": call.replaced_task_nesting,
        "stamped_headers": call.stamped_headers,
        "stamps": dict(call.stamps) if call.stamps else {},
    }
    if call.headers:
        headers.update(call.headers)
    if call.callbacks is None and call.errbacks is None and call.chain is None and call.chord is None:
        embed = NO_EMBED
        plain = call.serializer == "json" and is_plain(args, ARGUMENT_ROOM) and is_plain(kwargs, ARGUMENT_ROOM)
    else:
        plain = False
        embed = {"callbacks": call.callbacks, "errbacks": call.errbacks, "chain": call.chain, "chord": call.chord}
    if before is not None:
        return seal(call, (args, kwargs, dict(embed)), headers, now, None, before)
    return seal(call, (args, kwargs, embed), headers, now, plain or None)


def seal(
    call: TaskCall, body: Any, headers: dict[str, Any], now: float, plain: bool | None = None,
    before: Before | None = None,
) -> Envelope:  # fmt: skip
    """Serialize and compress the body and add the properties. ``plain``: as ``json_types.encode`` takes it."""
    changed: dict[str, Any] = {}
    if before is not None:
        changed = properties_of(call, now)
        before(body, headers, changed)
    try:
        if call.serializer == "json":
            data, content_type, content_encoding = json_types.encode(body, plain), "application/json", "utf-8"
        else:
            data, content_type, content_encoding = dumps(body, call.serializer)
    except EncodeError as error:
        raise not_sendable(call.task, error) from error
    if call.compression:
        data, headers["compression"] = compress(data, call.compression)
    properties = {"content_type": content_type, "content_encoding": content_encoding}
    properties.update(changed or properties_of(call, now))
    return Envelope(data, headers, properties)


def properties_of(call: TaskCall, now: float) -> dict[str, Any]:
    """The properties, but for what the body's form decides."""
    properties: dict[str, Any] = {
        "correlation_id": call.id,
        "reply_to": call.reply_to,
        "delivery_mode": call.delivery_mode,
        "priority": 0 if call.priority is None else call.priority,
    }
    if call.expires is not None:
        properties["expiration"] = _expiration_ms(call.expires, now)
    if call.properties:
        properties.update(call.properties)
    return properties


def check_arguments(args: Any, kwargs: Any, task: str) -> Sequence[Any]:
    """The positional arguments. Raises ``TypeError`` as Celery does, since callers that are not type-checked give
    anything."""
    if type(args) is not tuple and not isinstance(args, list | tuple):
        if isinstance(args, str | bytes) or not isinstance(args, Sequence):
            raise TypeError(f"The arguments of task {task!r} must be a list or tuple, not {type(args).__name__}")
        args = list(args)
    if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError(f"The keyword arguments of task {task!r} must be a mapping")
    return cast("Sequence[Any]", args)


def not_sendable(task: str, error: EncodeError) -> EncodeError:
    return EncodeError(f"The arguments of task {task!r} cannot be sent. {error}")


def iso_text(moment: datetime | str) -> str:
    """ISO-8601 text; a datetime without a zone is UTC, text is passed on."""
    if isinstance(moment, str):
        return moment
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).isoformat()


def _expiration_ms(expires: datetime | str, now: float) -> str:
    moment = timestamp_of(expires)
    return "0" if moment is None or moment <= now else str(int((moment - now) * 1000))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def normalize(envelope: Envelope, limits: Limits = DEFAULT_LIMITS, accept: frozenset[str] | None = None) -> Envelope:
    """The envelope in protocol-2 form; protocol 2 passes untouched, its body unread.

    Protocol 1 and hybrids are read and rewritten. ``accept`` is only asked for content that can run code (pickle);
    the rest is refused, where it must be, by :func:`read_body`. Raises ``MessageError``.
    """
    headers = envelope.headers
    if len(headers) > limits.header_keys:
        raise InvalidTaskError(f"The message has {len(headers)} headers, the limit is {limits.header_keys}")
    if len(envelope.body) > limits.wire_bytes:
        check_size(envelope.body, limits.wire_bytes, "The body")
    if "task" not in headers or "id" not in headers or envelope.body[:1] == b"{":
        from celeriac.wire.legacy_message import modernize  # the old protocol builds on this one

        envelope = modernize(envelope, limits, accept)
        headers = envelope.headers
    check_identity(headers)
    return envelope


def check_identity(headers: Mapping[str, Any]) -> None:
    """Raise ``InvalidTaskError`` unless the headers name a task and carry an id fit for keys and file names."""
    task = headers.get("task")
    if type(task) is not str or not task:
        raise InvalidTaskError(f"The message names no task: {safe_repr(task, 100)}")
    task_id = headers.get("id")
    if not is_safe_id(task_id):
        raise InvalidTaskError(
            f"Task {task[:100]!r} has the id {safe_repr(task_id, 300)}; ids are 1 to 255 characters of A-Za-z0-9_.:@-"
        )


def read_body(envelope: Envelope, accept: frozenset[str] | None, limits: Limits = DEFAULT_LIMITS) -> TaskBody:
    """Decompress and decode the body and check its shape. Raises ``MessageError``."""
    return shape_body(load_body(envelope, accept, limits))


class _Embed(msgspec.Struct, gc=False):
    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None


_decode_plain = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Embed]).decode


def read_plain_body(data: bytes, accept: frozenset[str] | None, limits: Limits) -> TaskBody | None:
    """The usual body, uncompressed JSON, in one step; ``None``: that of another kind, to be read part by part."""
    if len(data) > limits.wire_bytes or (accept is not None and "application/json" not in accept):
        return None
    if b'"__type__"' in data or not json_is_plain():
        return None
    if len(data) > 2 * limits.depth:  # shorter ones, as most are, cannot be nested too deep and be well formed
        check_json(data, limits)
    try:
        args, kwargs, embed = _decode_plain(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    callbacks, errbacks, chain, chord = embed.callbacks, embed.errbacks, embed.chain, embed.chord
    if callbacks is None and errbacks is None and chain is None:
        return TaskBody(args, kwargs, None, None, None, chord)
    return None


def shape_body(body: Any) -> TaskBody:
    """The parts of a decoded body. Raises ``InvalidTaskError``."""
    if isinstance(body, dict) and "args" in body:  # a hybrid whose serializer does not show it from outside
        embed: Any = body
        args, kwargs = body["args"], body.get("kwargs", {})
    elif isinstance(body, list | tuple) and len(body) == 3:
        args, kwargs, embed = body
    else:
        raise InvalidTaskError(
            f"The body of a task message is [args, kwargs, embed], not {type(body).__name__} {safe_repr(body, 100)}"
        )
    if type(args) is not list:
        if not isinstance(args, list | tuple):
            raise InvalidTaskError(f"The task's arguments are not a list: {safe_repr(args, 100)}")
        args = list(args)
    if not isinstance(kwargs, dict) or not _TEXT.issuperset(map(type, kwargs)):
        raise InvalidTaskError(f"The task's keyword arguments are not a mapping of names: {safe_repr(kwargs, 100)}")
    if not embed:
        return TaskBody(args, kwargs, None, None, None, None)
    if not isinstance(embed, dict):
        raise InvalidTaskError(f"The third part of the task's body is not a mapping: {safe_repr(embed, 100)}")
    if not any(embed.values()):
        return TaskBody(args, kwargs, None, None, None, None)
    return TaskBody(
        args,
        kwargs,
        _signatures(embed, "callbacks"),
        _signatures(embed, "errbacks"),
        _signatures(embed, "chain"),
        embed.get("chord"),
    )


def _signatures(embed: Mapping[str, Any], key: str) -> list[Any] | None:
    value = embed.get(key)
    if value is None:
        return None
    if isinstance(value, dict):  # a single signature: old senders
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidTaskError(f"{key} of the task's body is not a list of signatures: {safe_repr(value, 100)}")


def load_body(envelope: Envelope, accept: frozenset[str] | None, limits: Limits) -> Any:
    """The decompressed, decoded body, whatever its shape. Raises ``MessageError``."""
    headers, properties = envelope.headers, envelope.properties
    return load(
        envelope.body, headers.get("compression"), properties.get("content_type"), properties.get("content_encoding"),
        accept, limits,
    )  # fmt: skip


def load(
    data: bytes, compression: Any, content_type: Any, encoding: Any, accept: frozenset[str] | None, limits: Limits
) -> Any:
    """As :func:`load_body`, of its parts."""
    if len(data) > limits.wire_bytes:
        check_size(data, limits.wire_bytes, "The body")
    if compression:
        data = decompress(data, compression, limits)
    if content_type is not None and not isinstance(content_type, str):
        raise DecodeError(f"The content type is not text: {safe_repr(content_type, 100)}")
    return loads(data, content_type, encoding if isinstance(encoding, str) else None, accept, limits)


def timestamp_of(moment: datetime | str | None) -> float | None:
    """ISO-8601 text (or a datetime) of a header → seconds since the epoch; without a zone it is UTC.

    Raises ``InvalidTaskError`` when it is neither.
    """
    if moment is None:
        return None
    given: Any = moment  # headers come from outside: it may be anything
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError as error:
            raise InvalidTaskError(f"Not an ISO-8601 time: {given[:100]!r}") from error
    if not isinstance(given, datetime):
        raise InvalidTaskError(f"A time is ISO-8601 text or a datetime, not {safe_repr(given, 100)}")
    try:
        return (given.replace(tzinfo=UTC) if given.tzinfo is None else given).timestamp()
    except (OverflowError, ValueError) as error:
        raise InvalidTaskError(f"A time out of range: {given!r}") from error
