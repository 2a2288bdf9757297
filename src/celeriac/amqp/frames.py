"""Frames: the pieces that an AMQP connection is cut into.

A frame is a type, a channel, a length, that many bytes and an end octet. A message is a method frame, a header frame
and as many body frames as ``frame_max`` makes of it.
"""

from __future__ import annotations

from struct import Struct

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
#: type, channel and length before the payload; the end octet after it
FRAME_HEAD_BYTES = 7
FRAME_OVERHEAD_BYTES = 8
#: what every peer must accept, and what is in force until both have agreed on more
FRAME_MIN_BYTES = 4096

HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
END_OCTET = b"\xce"

#: type, channel, length
frame_head = Struct(">BHI").unpack_from
pack_frame_head = Struct(">BHI").pack
#: class, weight, body size
content_head = Struct(">HHQ").unpack_from
#: frame type, channel, length, class, weight, body size
pack_content_head = Struct(">BHIHHQ").pack
CONTENT_HEAD_BYTES = 12
BASIC_CLASS = 60
#: the class and method numbers of basic.deliver; with basic.ack the methods common enough to be looked for first
DELIVER = b"\x00\x3c\x00\x3c"
#: of basic.ack, which confirms what was published; the payload is as long as this with a tag and an octet of bits
ACK = b"\x00\x3c\x00\x50"
ACK_BYTES = 13


def method_frame(channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (pack_frame_head(METHOD, channel, len(payload)), payload)


def content_frames(channel: int, properties: bytes, body: bytes, body_limit: int) -> list[bytes]:
    """Header and body frames of a message, as pieces to be joined. ``body_limit``: bytes in one body frame."""
    size = len(body)
    pieces = [
        pack_content_head(HEADER, channel, CONTENT_HEAD_BYTES + len(properties), BASIC_CLASS, 0, size),
        properties,
    ]
    if size <= body_limit:
        if size:
            pieces += (b"\xce" + pack_frame_head(BODY, channel, size), body)
    else:
        for start in range(0, size, body_limit):
            chunk = body[start : start + body_limit]
            pieces += (b"\xce" + pack_frame_head(BODY, channel, len(chunk)), chunk)
    pieces.append(END_OCTET)
    return pieces
