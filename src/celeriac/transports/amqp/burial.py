"""Where messages go that will not run: ``<queue>.dead`` and ``<queue>.quarantine``, with an epitaph.

The epitaph is JSON as on every broker without rows of its own (``transports/box.py``); body and header table are kept
byte for byte. Pure.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.amqp.errors import Malformed
from celeriac.amqp.messages import Publication
from celeriac.transports.base import QueueSpec

if TYPE_CHECKING:
    from celeriac.amqp.messages import Message
    from celeriac.transports.base import Bury


def grave_of(queue: str, verdict: Bury) -> str:
    """The queue that a message of ``queue`` is set aside in."""
    return f"{queue}.{'quarantine' if verdict.quarantine else 'dead'}"


def grave_spec(name: str, arguments: dict[str, Any]) -> QueueSpec:
    """Of the same type as the queue whose dead it takes; reached by its name alone."""
    kept = {key: value for key, value in arguments.items() if key == "x-queue-type"}
    return QueueSpec(name=name, arguments=kept)


def burial(message: Message, queue: str, verdict: Bury, now: float, kept_for: float | None) -> Publication:
    """The message as it is set aside. ``kept_for``: seconds; None: until somebody takes it away."""
    epitaph: dict[str, Any] = {
        "reason": verdict.reason,
        "queue": queue,
        "worker": verdict.worker,
        "buried_at": now,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "payload": _base64(message.body),
    }
    properties: dict[str, Any] = {
        "content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2
    }  # fmt: skip
    try:
        theirs, table = message.split()
        epitaph["properties"] = theirs
        epitaph["header_table"] = _base64(table)
        properties["correlation_id"] = theirs.get("correlation_id")
    except Malformed:
        epitaph["raw_properties"] = _base64(message.raw_properties)
    if kept_for:
        properties["expiration"] = str(int(kept_for * 1000))
    return Publication("", grave_of(queue, verdict), properties, None, msgspec.json.encode(epitaph), True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
