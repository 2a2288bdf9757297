"""Remote control on the wire: requests to workers and their replies, as kombu's pidbox writes them.

Pure. Everything that comes in is checked here, once: its size, its names and its shape; pickle is never read. Source
of the layout: Celery 5.7 on Redis and RabbitMQ (``tests/wire/golden/control.json``).
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import msgspec

from celeriac.errors import EncodeError, InvalidTaskError
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.limits import Limits
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import dumps
from celeriac.wire.task_message import load_body

#: what one request or reply may cost; a list of 50,000 revoked ids has 2 MB
CONTROL_LIMITS = Limits(wire_bytes=4 << 20, decompressed_bytes=8 << 20, items=200_000, header_keys=64)

_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}\Z")
_NAME_LENGTH = 255
_ARGUMENTS = 100
_DESTINATIONS = 10_000
#: a pattern may repeat at most this often and no group of it, or matching could take for ever
_REPEATS = 4
_REPEAT = re.compile(r"(?<!\\)[*+{]")
_REPEATED_GROUP = re.compile(r"\)[*+{?]")

#: would run code when it is read, in a process that must never run any
_PICKLE = frozenset({"pickle", "application/x-python-serialize"})


class ReplyTo(msgspec.Struct, frozen=True):
    """Where the replies go."""

    exchange: str
    routing_key: str

    @property
    def route(self) -> Route:
        return Route(self.exchange, self.routing_key, "direct")


class ControlRequest(msgspec.Struct, kw_only=True):
    """What workers are asked, or told."""

    method: str
    arguments: dict[str, Any] = {}
    destination: list[str] | None = None  #: node names; None: everybody
    pattern: str | None = None
    matcher: str | None = None  #: ``glob`` or ``pcre``
    ticket: str | None = None
    reply_to: ReplyTo | None = None  #: None: no reply is wanted
    clock: int = 0

    def is_for(self, node: str) -> bool:
        """Whether the worker called ``node`` is meant. Raises ``MessageError`` for a pattern that is not matched."""
        if self.destination is not None:
            return node in self.destination
        if self.pattern and self.matcher:
            return _matches(node, self.pattern, self.matcher)
        return True


class ControlReply(msgspec.Struct, kw_only=True):
    """What one worker said."""

    ticket: str
    clock: int
    by_node: dict[str, Any]


def readable(accept: frozenset[str] | None) -> frozenset[str] | None:
    """What of the accepted content control messages and events may use: all of it but pickle."""
    return None if accept is None else accept - _PICKLE


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────


def encode_request(request: ControlRequest, *, expires: float, serializer: str = "json") -> Envelope:
    """``expires``: seconds since the epoch after which nobody waits for a reply; 0: it is not said.

    Raises ``EncodeError`` for arguments that the serializer cannot express.
    """
    body: dict[str, Any] = {
        "method": request.method,
        "arguments": request.arguments,
        "destination": request.destination,
        "pattern": request.pattern,
        "matcher": request.matcher,
    }
    if request.reply_to is not None:
        body["ticket"] = request.ticket
        reply_to = request.reply_to
        body["reply_to"] = {"exchange": reply_to.exchange, "routing_key": reply_to.routing_key}
    return _sealed(body, {"clock": request.clock, "expires": expires}, serializer, delivery_mode=2)


def decode_request(
    envelope: Envelope, accept: frozenset[str] | None = None, limits: Limits = CONTROL_LIMITS
) -> ControlRequest:
    """Raises ``MessageError`` for whatever is not a sound request."""
    body = _mapping(load_body(envelope, readable(accept), limits), "A control request")
    method = body.get("method")
    if not isinstance(method, str) or _METHOD.match(method) is None:
        raise InvalidTaskError(f"A control request with the method {safe_repr(method, 100)}")
    arguments = body.get("arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict) or len(arguments) > _ARGUMENTS or not all(map(_is_name, arguments)):
        raise InvalidTaskError(f"The arguments of control request {method!r} are no mapping of names")
    destination = body.get("destination")
    if destination is not None:
        if not isinstance(destination, list | tuple) or len(destination) > _DESTINATIONS:
            raise InvalidTaskError(f"The destination of control request {method!r} is no list of node names")
        destination = [node for node in destination if isinstance(node, str)]
    return ControlRequest(
        method=method,
        arguments=arguments,
        destination=destination,
        pattern=_optional_name(body, "pattern"),
        matcher=_optional_name(body, "matcher"),
        ticket=_optional_name(body, "ticket"),
        reply_to=_reply_to(body.get("reply_to")),
        clock=_clock(envelope),
    )


def _reply_to(value: Any) -> ReplyTo | None:
    if not value:
        return None
    found = _mapping(value, "reply_to of a control request")
    exchange: Any = found.get("exchange")
    key: Any = found.get("routing_key")
    # never the default exchange: it leads to any queue by its name, those of tasks too
    if not _is_name(exchange) or not _is_name(key) or not exchange:
        raise InvalidTaskError(f"reply_to of a control request is {safe_repr(value, 200)}")
    return ReplyTo(exchange, key)


def _matches(node: str, pattern: str, matcher: str) -> bool:
    if matcher == "glob":
        return fnmatch.fnmatchcase(node, pattern)
    if matcher != "pcre":
        raise InvalidTaskError(f"A control request with the matcher {matcher[:20]!r}; there are glob and pcre")
    if len(_REPEAT.findall(pattern)) > _REPEATS or _REPEATED_GROUP.search(pattern):
        raise InvalidTaskError(f"The pattern {pattern[:100]!r} repeats too much to be matched safely")
    try:
        return re.match(pattern, node) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidTaskError(f"The pattern {pattern[:100]!r} is no regular expression: {error}") from error


# ── replies ──────────────────────────────────────────────────────────────────────────────────────────────────


def encode_reply(node: str, reply: Any, *, ticket: str | None, clock: int, serializer: str = "json") -> Envelope:
    """A reply that cannot be expressed becomes an error that says so."""
    headers = {"ticket": ticket, "clock": clock}
    try:
        return _sealed({node: reply}, headers, serializer, delivery_mode=1)
    except EncodeError as error:
        return _sealed({node: {"error": f"the reply cannot be sent: {error}"}}, headers, serializer, delivery_mode=1)


def decode_reply(
    envelope: Envelope, accept: frozenset[str] | None = None, limits: Limits = CONTROL_LIMITS
) -> ControlReply:
    """Raises ``MessageError`` for whatever is not a sound reply."""
    body = _mapping(load_body(envelope, readable(accept), limits), "A reply to a control request")
    if len(body) > _DESTINATIONS or not all(map(_is_name, body)):
        raise InvalidTaskError("A reply to a control request is no mapping of node names")
    ticket = envelope.headers.get("ticket")
    return ControlReply(ticket=ticket if isinstance(ticket, str) else "", clock=_clock(envelope), by_node=body)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _sealed(body: dict[str, Any], headers: dict[str, Any], serializer: str, delivery_mode: int) -> Envelope:
    data, content_type, content_encoding = dumps(body, serializer)
    properties = {"content_type": content_type, "content_encoding": content_encoding, "delivery_mode": delivery_mode}
    return Envelope(data, headers, {**properties, "priority": 0})


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidTaskError(f"{what} is no mapping: {safe_repr(value, 100)}")
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _NAME_LENGTH


def _optional_name(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not _is_name(value):
        raise InvalidTaskError(f"{key} of a control request is {safe_repr(value, 100)}")
    return str(value)


def _clock(envelope: Envelope) -> int:
    clock = envelope.headers.get("clock")
    return clock if type(clock) is int and 0 <= clock < 1 << 62 else 0
