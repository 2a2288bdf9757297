"""Events on the wire: what workers and clients tell monitors, one by one or as batches (``task.multi``).

Pure. An event is a mapping of plain values with ``type``, ``hostname``, ``timestamp``, ``pid``, ``clock`` and
``utcoffset``; the rest depends on its type. Source of the layout: Celery 5.7 (``tests/wire/golden/control.json``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.errors import InvalidTaskError
from celeriac.wire import json_types
from celeriac.wire.control_message import CONTROL_LIMITS, readable
from celeriac.wire.envelope import Envelope
from celeriac.wire.limits import Limits
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import dumps
from celeriac.wire.task_message import load_body

#: one event: read by strangers, written by strangers
EventFields = dict[str, Any]

_TYPE = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*\Z")
_TYPE_LENGTH = 100
_NAME_LENGTH = 255
_FIELDS = 100
#: events in one message
_MOST = 10_000


class Sender(msgspec.Struct, frozen=True):
    """Who tells: the fields that all events of one process have in common."""

    hostname: str
    pid: int
    utcoffset: float  #: hours west of UTC


def utc_offset(seconds_east: float) -> float:
    """Hours *west* of UTC, as events carry them: Tokyo is -9.0."""
    return 0.0 - seconds_east / 3600


def event(sender: Sender, kind: str, clock: int | None, at: float, fields: EventFields) -> EventFields:
    """One event, its fields in Celery's order. ``at``: seconds since the epoch."""
    return {
        "hostname": sender.hostname, "utcoffset": sender.utcoffset, "pid": sender.pid, "clock": clock, **fields,
        "timestamp": at, "type": kind,
    }  # fmt: skip


def routing_key_of(kind: str) -> str:
    return kind.replace("-", ".")


def encode_event(fields: EventFields, serializer: str = "json") -> Envelope:
    """A message of one event."""
    return _sealed(fields, fields["hostname"], serializer)


def encode_batch(events: Sequence[EventFields], serializer: str = "json", *, is_plain: bool = False) -> Envelope:
    """A message of many events of one group and one sender, for the routing key ``<group>.multi``.

    ``is_plain``: the caller knows that there is nothing in them that JSON has no notation for.
    """
    return _sealed(list(events), events[0]["hostname"], serializer, is_plain)


def _sealed(body: Any, hostname: str, serializer: str, is_plain: bool = False) -> Envelope:
    if is_plain and serializer == "json":  # half the price of looking into every value
        data, content_type, content_encoding = json_types.encode(body, True), "application/json", "utf-8"
    else:
        data, content_type, content_encoding = dumps(body, serializer)
    properties = {"content_type": content_type, "content_encoding": content_encoding, "delivery_mode": 1, "priority": 0}
    return Envelope(data, {"hostname": hostname}, properties)


class Heard(msgspec.Struct):
    """The events of one message, and how many of them could not be understood."""

    events: list[EventFields]
    refused: int = 0


def decode_events(envelope: Envelope, accept: frozenset[str] | None = None, limits: Limits = CONTROL_LIMITS) -> Heard:
    """Raises ``MessageError`` when nothing of it can be read."""
    body = load_body(envelope, readable(accept), limits)
    given = body if isinstance(body, list | tuple) else [body]
    if len(given) > _MOST:
        raise InvalidTaskError(f"A message of {len(given)} events; the limit is {_MOST}")
    events = [one for one in given if is_sound(one)]
    if not events and given:
        raise InvalidTaskError(f"Not an event: {safe_repr(given[0], 100)}")
    return Heard(events, len(given) - len(events))


def is_sound(one: Any) -> bool:
    """Whether the common fields of an event are what they should be, so that readers need not look."""
    if not isinstance(one, dict) or len(one) > _FIELDS:
        return False
    kind, hostname = one.get("type"), one.get("hostname")
    at: Any = one.get("timestamp")
    if not isinstance(kind, str) or len(kind) > _TYPE_LENGTH or _TYPE.match(kind) is None:
        return False
    if not isinstance(hostname, str) or not 0 < len(hostname) <= _NAME_LENGTH:
        return False
    if type(at) not in (int, float) or not -1e12 < at < 1e12:  # also false for nan
        return False
    clock, pid, offset = one.get("clock"), one.get("pid"), one.get("utcoffset")
    if clock is not None and (type(clock) is not int or not 0 <= clock < 1 << 62):
        return False
    if pid is not None and type(pid) is not int:
        return False
    if offset is not None and (type(offset) not in (int, float) or not -48 <= offset <= 48):
        return False
    uuid = one.get("uuid")
    return uuid is None or (isinstance(uuid, str) and 0 < len(uuid) <= _NAME_LENGTH)
