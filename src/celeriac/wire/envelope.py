"""What travels between processes: an envelope and where it is to go.

The values every transport moves. An envelope's body is opaque bytes (serialized, perhaps compressed); headers and
properties are plain data as AMQP defines them and kombu writes them to JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A message as it travels. Treat as immutable once published or received."""

    body: bytes
    headers: dict[str, Any]
    #: content_type, content_encoding, correlation_id, reply_to, delivery_mode, priority, expiration …
    properties: dict[str, Any]


class Route(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a message goes. ``exchange=''`` means: straight to the queue named ``routing_key``."""

    exchange: str
    routing_key: str
    exchange_type: str = "direct"


class Outgoing(msgspec.Struct, array_like=True, gc=False):
    """A message with its destination and, if it is to wait, its time."""

    envelope: Envelope
    route: Route
    #: seconds since the epoch (broker's clock decides); ``None``: now. Transports without delays deliver at once and
    #: the worker keeps the message until then.
    not_before: float | None = None
    #: seconds since the epoch after which nobody wants it; ``None``: never
    expires: float | None = None
