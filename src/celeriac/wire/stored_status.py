"""What a stored record says of itself before it is decoded: its state, its serializer, whether it is compressed.

Nothing here builds values of the user's: a pickle is read as opcodes, never run. Formats: see ``result_record.py``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from celeriac.errors import DecodeError
from celeriac.wire.compression import compress, decompress
from celeriac.wire.limits import DEFAULT_LIMITS, RATIO_FLOOR_BYTES, Limits, check_json, check_msgpack

#: how Celery 5.7 marks a compressed record: this, the MIME type, a zero byte, the data
COMPRESSED = b"\x00celery-compressed\x00"

_JSON_HEAD = re.compile(rb'\{"status": ?"([A-Za-z0-9_.-]+)"')
_YAML_LINE = re.compile(rb"^status: *['\"]?([^\r\n'\"]+?)['\"]? *\r?$", re.MULTILINE)
#: opcodes of a pickle that are looked at before giving up
_PICKLE_OPCODES = 64


class Stored(NamedTuple):
    """What can be told without decoding."""

    status: str
    content_type: str
    content_encoding: str


class _Status(msgspec.Struct):
    status: str


_read_json = msgspec.json.Decoder(_Status).decode
_read_msgpack = msgspec.msgpack.Decoder(_Status).decode


def stored_status(value: bytes, limits: Limits = DEFAULT_LIMITS) -> Stored:
    """Read it off a record of any serializer that Celery ships. Raises ``DecodeError``."""
    found = _JSON_HEAD.match(value)  # by far the most
    if found is not None:
        return Stored(found[1].decode(), "application/json", "utf-8")
    value = plain(value, limits)
    first = value[:2]
    try:
        if first[:1] == b"{":
            check_json(value, limits)
            return Stored(_read_json(value).status, "application/json", "utf-8")
        if first[:1] == b"\x80" and first[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return Stored(_pickled_status(value), "application/x-python-serialize", "binary")
        if b"\x80" <= first[:1] <= b"\x8f" or first[:1] in (b"\xde", b"\xdf"):
            check_msgpack(value, limits)
            return Stored(_read_msgpack(value).status, "application/x-msgpack", "binary")
    except msgspec.MsgspecError as error:
        raise DecodeError(f"The stored record is no result: {error}") from error
    line = _YAML_LINE.search(value)
    if line is None:
        raise DecodeError("The stored record is no result: its status cannot be found")
    return Stored(line[1].decode("utf-8", "replace"), "application/x-yaml", "utf-8")


def _pickled_status(value: bytes) -> str:
    """The text after the text "status"."""
    import pickletools  # late: it brings pickle with it

    seen = False
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(value)):
            if isinstance(argument, str) and "UNICODE" in opcode.name:
                if seen:
                    return argument
                seen = argument == "status"
            if count > _PICKLE_OPCODES:
                break
    except Exception as error:  # whatever malformed bytes make it raise
        raise DecodeError(f"The stored record is not a pickle: {error}") from error
    raise DecodeError("The stored record is no result: its status cannot be found")


def plain(value: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The record without its compression. Raises ``DecodeError``."""
    if not value.startswith(COMPRESSED):
        return value
    method, _, data = value[len(COMPRESSED) :].partition(b"\x00")
    return decompress(data, method.decode("ascii", "replace"), limits)


def packed(value: bytes, method: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The record compressed; as it is, where that makes it no smaller or where :func:`plain` would refuse it."""
    data, mime = compress(value, method)
    if len(data) > limits.wire_bytes or len(value) > max(limits.ratio * len(data), RATIO_FLOOR_BYTES):
        return value
    whole = b"%b%b\x00%b" % (COMPRESSED, mime.encode(), data)
    return whole if len(whole) < len(value) else value
