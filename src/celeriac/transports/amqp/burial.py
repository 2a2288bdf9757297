"""Where messages go that will not run, ``<queue>.dead`` and ``<queue>.quarantine``, and what stands on their graves.

The epitaph is that of every broker without rows of its own (``transports/epitaph.py``), and besides it the content
header as it came, so that a replay is the same to the byte. Pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.amqp.errors import Malformed
from celeriac.amqp.messages import Message, Publication
from celeriac.transports.amqp.deliveries import ATTEMPTS, attempts_of, counted
from celeriac.transports.base import Buried, Envelope, QueueSpec

if TYPE_CHECKING:
    from celeriac.transports.base import Bury


class Grave(msgspec.Struct, frozen=True, kw_only=True):
    """An :class:`~celeriac.transports.epitaph.Epitaph` and the message's content header."""

    reason: str
    queue: str
    worker: str
    buried_at: float  #: seconds since the epoch
    attempts: int = 0
    payload: bytes  #: the body; base64 in the JSON text, as all bytes
    content_header: bytes = b""  #: flags, properties and header table


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Grave).decode


def grave_of(queue: str, quarantined: bool) -> str:
    """The queue that a message of ``queue`` is set aside in."""
    return f"{queue}.{'quarantine' if quarantined else 'dead'}"


def grave_spec(name: str, arguments: dict[str, Any]) -> QueueSpec:
    """Of the same type as the queue whose dead it takes; reached by its name alone."""
    kept = {key: value for key, value in arguments.items() if key == "x-queue-type"}
    return QueueSpec(name=name, arguments=kept)


def burial(message: Message, queue: str, verdict: Bury, now: float, kept_for: float) -> Publication:
    """The message as it is set aside. ``kept_for``: seconds; 0: until somebody takes it away."""
    properties: dict[str, Any] = {
        "content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2
    }  # fmt: skip
    attempts = 0
    try:
        theirs, headers = message.decoded()
        properties["correlation_id"] = theirs.get("correlation_id")
        attempts = attempts_of(headers)
    except Malformed:
        pass
    if kept_for:
        properties["expiration"] = str(int(kept_for * 1000))
    grave = Grave(
        reason=verdict.reason.encode("utf-8", "replace").decode(), queue=queue, worker=verdict.worker, buried_at=now,
        attempts=attempts, payload=message.body, content_header=message.raw_properties,
    )  # fmt: skip
    return Publication("", grave_of(queue, verdict.quarantine), properties, None, _encode(grave), True)


def grave_id(message: Message) -> str:
    return hashlib.sha1(message.body, usedforsecurity=False).hexdigest()[:16]


def read_grave(message: Message, queue: str, quarantined: bool) -> Buried:
    """What lies in a grave, whoever has put it there."""
    try:
        grave = _decode(message.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Buried(
            id=grave_id(message), queue=queue, quarantined=quarantined, reason=f"Not an epitaph: {error}", worker="",
            buried_at=0.0, raw=message.body,
        )  # fmt: skip
    try:
        properties, headers = _inside(grave).decoded()
        headers.pop(ATTEMPTS, None)
        envelope = Envelope(grave.payload, headers, properties)
    except Malformed:
        envelope = None
    return Buried(
        id=grave_id(message), queue=queue, quarantined=quarantined, reason=grave.reason, worker=grave.worker,
        buried_at=grave.buried_at, attempts=grave.attempts, envelope=envelope, raw=grave.payload,
    )  # fmt: skip


def exhumed(message: Message, queue: str) -> Publication | None:
    """The message as it was, for ``queue``, its starts forgotten; None if it cannot be written again."""
    try:
        inside = _inside(_decode(message.body))
        properties, table = inside.split()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Malformed):
        return None
    try:
        headers = inside.headers
    except Malformed:
        return Publication("", queue, properties, table, inside.body, True)
    if ATTEMPTS not in headers:
        return Publication("", queue, properties, table, inside.body, True)
    del headers[ATTEMPTS]
    return Publication("", queue, properties, counted(headers, 0), inside.body, True)


def _inside(grave: Grave) -> Message:
    return Message("", grave.queue, 0, False, "", grave.content_header, grave.payload)
