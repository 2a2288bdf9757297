"""kombu's JSON envelope: how brokers that only keep bytes (Redis, SQL, SQS, files …) hold a message.

``{"body": base64, "content-type", "content-encoding", "headers", "properties"}``, with the route in
``properties.delivery_info``. Source: ``kombu.transport.virtual`` of kombu 5.7.
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from celeriac.errors import DecodeError
from celeriac.ids import unique_tag
from celeriac.wire import json_types
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.limits import DEFAULT_LIMITS, Limits, check_json, check_size


class _Wire(msgspec.Struct, gc=False):
    """The envelope as it stands in the JSON text."""

    body: str
    headers: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)
    redelivered: bool = False


class _Outgoing(msgspec.Struct, gc=False):
    """The same for writing: in kombu's order, the body base64 by itself."""

    body: bytes
    content_encoding: Any = msgspec.field(name="content-encoding")
    content_type: Any = msgspec.field(name="content-type")
    headers: dict[str, Any]
    properties: dict[str, Any]


#: levels of nesting that headers and properties may have
_ROOM = DEFAULT_LIMITS.depth - 1

_encode_fast = msgspec.json.Encoder().encode
_decode_fast = msgspec.json.Decoder(_Wire).decode


def encode_envelope(envelope: Envelope, route: Route, delivery_tag: str | None = None) -> bytes:
    """The JSON text of a message. ``delivery_tag=None``: a new one."""
    body, headers, given = envelope.body, envelope.headers, envelope.properties
    properties = {"priority": 0, **given}
    content_type = properties.pop("content_type", None)
    content_encoding = properties.pop("content_encoding", None)
    plain = json_types.is_plain(headers, _ROOM) and json_types.is_plain(given, _ROOM)
    properties["body_encoding"] = "base64"
    properties["delivery_tag"] = delivery_tag or unique_tag()
    properties["delivery_info"] = {"exchange": route.exchange, "routing_key": route.routing_key}
    if plain:
        try:
            return _encode_fast(_Outgoing(body, content_encoding, content_type, headers, properties))
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass  # a lone surrogate, or what the careful way complains about
    return json_types.encode(
        {
            "body": binascii.b2a_base64(body, newline=False).decode("ascii"),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers,
            "properties": properties,
        }
    )


def decode_envelope(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Envelope, Route]:
    """The message and its route. ``delivery_tag`` stays among the properties. Raises ``DecodeError``.

    A redelivered message has ``redelivered: true`` among its headers, wherever the sender wrote it.
    """
    check_size(data, limits.wire_bytes, "The envelope")
    check_json(data, limits)
    wire = _parse(data, limits)
    headers, properties = wire.headers, wire.properties
    if len(headers) > limits.header_keys or len(properties) > limits.header_keys:
        raise DecodeError(f"The envelope has more than {limits.header_keys} headers or properties")
    body = _body(wire.body, properties.pop("body_encoding", None))
    info = properties.pop("delivery_info", None)
    if not isinstance(info, dict):
        info = {}
    if wire.redelivered or info.get("redelivered"):
        headers["redelivered"] = True
    if wire.content_type is not None:
        properties["content_type"] = wire.content_type
    if wire.content_encoding is not None:
        properties["content_encoding"] = wire.content_encoding
    exchange, routing_key = info.get("exchange"), info.get("routing_key")
    route = Route(exchange if isinstance(exchange, str) else "", routing_key if isinstance(routing_key, str) else "")
    return Envelope(body, headers, properties), route


def _parse(data: bytes, limits: Limits) -> _Wire:
    if b'"__type__"' not in data:
        try:
            return _decode_fast(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # NaN in a header, or not an envelope: the careful way tells
    try:
        return msgspec.convert(json_types.decode(data, limits), _Wire)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"Not a message envelope of kombu: {error}") from error


def _body(text: str, encoding: Any) -> bytes:
    if encoding == "base64":
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass  # perhaps in lines, as some languages' libraries write it
        try:
            return binascii.a2b_base64("".join(text.split()), strict_mode=True)
        except ValueError as error:
            raise DecodeError(f"The envelope's body is not base64: {error}") from error
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DecodeError(f"The envelope's body is not text: {error}") from error
