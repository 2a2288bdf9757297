"""Messages in kombu's JSON that are passed on unopened: the little that is read of them, and by whom.

The worker's parent looks at what decides about admission, the child at what running needs; headers as a mapping are
made when somebody asks for them. Both readers take the usual form only and leave everything else to
:mod:`celeriac.wire.kombu_json`, which knows what is wrong with it.
"""

from __future__ import annotations

import binascii

import msgspec

from celeriac.errors import MessageError
from celeriac.wire.envelope import Envelope
from celeriac.wire.kombu_json import decode_envelope
from celeriac.wire.limits import DEFAULT_LIMITS, Limits

#: bytes besides the body up to which a message is of the usual form; more may be a thousand headers
_MOST_HEADS = 16 * 1024
#: how base64 goes on after the ``e`` of a brace: a body that is one mapping is protocol 1
_BRACE = frozenset("wxyz0123456789+/")
#: how a body may begin that must be looked at; or it is empty
_BRACES = frozenset(("{", "e", ""))


class Heads(msgspec.Struct, gc=False):
    """What decides whether a protocol-2 message runs here and now, and the message."""

    task: str
    id: str
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[float | None, float | None] | None = None
    redelivered: bool = False
    #: the whole message; set by whoever decodes, and not by its sender
    payload: bytes = b""

    def opened(self, limits: Limits = DEFAULT_LIMITS) -> Envelope:
        """With its headers. Raises ``DecodeError``: nobody has looked at most of it before."""
        return decode_envelope(self.payload, limits)[0]


class _Info(msgspec.Struct, gc=False):
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool | None = None


class _Properties(msgspec.Struct, gc=False):
    delivery_info: _Info
    body_encoding: str = ""


class Sealed(msgspec.Struct, gc=False):
    """A message and its route, as far as it was read."""

    body: str
    headers: Heads
    properties: _Properties
    redelivered: bool = False


_decode_sealed = msgspec.json.Decoder(Sealed).decode


def read_sealed(data: bytes, limits: Limits) -> Sealed | None:
    """What the parent needs; ``None``: not of the usual form, if a message at all."""
    if len(data) > limits.wire_bytes:
        return None
    try:
        found = _decode_sealed(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    body = found.body
    if len(data) - len(body) > _MOST_HEADS or (body[:1] in _BRACES and (body[:1] != "e" or body[1:2] in _BRACE)):
        return None
    heads = found.headers
    heads.payload = data
    info = found.properties.delivery_info
    if found.redelivered or info.redelivered:
        heads.redelivered = True
    return found


def opened(payload: bytes) -> Envelope:
    """The message of :attr:`Heads.payload`; without headers where they turn out to be unreadable."""
    try:
        return decode_envelope(payload)[0]
    except MessageError:
        return Envelope(payload, {}, {})


# ── the child's view ─────────────────────────────────────────────────────────────────────────────────────────


class Essentials(msgspec.Struct, gc=False):
    """What running a task needs of its message."""

    body: bytes
    content_type: str | None
    content_encoding: str | None
    compression: str | None
    ignore_result: bool | None
    group: str | None
    parent_id: str | None
    reply_to: str | None


class _RunHeads(msgspec.Struct, gc=False):
    compression: str | None = None
    ignore_result: bool | None = None
    group: str | None = None
    parent_id: str | None = None


class _RunProperties(msgspec.Struct, gc=False):
    body_encoding: str = ""
    reply_to: str | None = None


class _Run(msgspec.Struct, gc=False):
    body: str
    headers: _RunHeads
    properties: _RunProperties
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)


_decode_run = msgspec.json.Decoder(_Run).decode


def essentials_of(message: Envelope | bytes, limits: Limits = DEFAULT_LIMITS) -> Essentials:
    """Raises ``MessageError``."""
    if type(message) is bytes:
        try:
            found = _decode_run(message)
            if found.properties.body_encoding == "base64":
                heads = found.headers
                return Essentials(
                    binascii.a2b_base64(found.body, strict_mode=True), found.content_type, found.content_encoding,
                    heads.compression, heads.ignore_result, heads.group, heads.parent_id, found.properties.reply_to,
                )  # fmt: skip
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # the careful way tells
        message = decode_envelope(message, limits)[0]
    assert not isinstance(message, bytes)
    headers, properties = message.headers, message.properties
    kind, encoding = properties.get("content_type"), properties.get("content_encoding")
    return Essentials(
        message.body, kind, encoding, headers.get("compression"), headers.get("ignore_result"), headers.get("group"),
        headers.get("parent_id"), properties.get("reply_to"),
    )  # fmt: skip
