"""Basic properties: the fixed fields of a message, among them the header table.

They stay bytes until somebody asks; :func:`split` finds the table without reading it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.tables import TABLE_LIMIT_BYTES, decode_table, encode_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_UINT16 = Struct(">H").unpack_from
_UINT32 = Struct(">I").unpack_from
_UINT64 = Struct(">Q").unpack_from
_PACK_UINT16 = Struct(">H").pack
_PACK_UINT64 = Struct(">Q").pack

_SHORT, _OCTET, _STAMP, _TABLE = range(4)
#: in the order of their bytes: flag, name, type
_FIELDS = (
    (0x8000, "content_type", _SHORT), (0x4000, "content_encoding", _SHORT), (0x2000, "headers", _TABLE),
    (0x1000, "delivery_mode", _OCTET), (0x0800, "priority", _OCTET), (0x0400, "correlation_id", _SHORT),
    (0x0200, "reply_to", _SHORT), (0x0100, "expiration", _SHORT), (0x0080, "message_id", _SHORT),
    (0x0040, "timestamp", _STAMP), (0x0020, "type", _SHORT), (0x0010, "user_id", _SHORT),
    (0x0008, "app_id", _SHORT), (0x0004, "cluster_id", _SHORT),
)  # fmt: skip
_HEADERS_FLAG = 0x2000
_UNKNOWN_FLAGS = 0x0003  # the low one says that more flags follow: no field of this class needs them

#: flags → the fields they announce; bounded by _PLANS_KEPT
_readers: dict[int, list[tuple[str, int]]] = {}
#: names of properties that occur together → the flags, and how each is written
_writers: dict[tuple[str, ...], tuple[int, list[tuple[str, int]]]] = {}
_PLANS_KEPT = 256


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The properties without headers, and the header table undecoded (empty if there is none). Raises ``Malformed``."""
    try:
        flags = _UINT16(data, 0)[0]
        fields = _readers.get(flags)
        if fields is None:
            fields = _reader(flags)
        found: dict[str, Any] = {}
        table = b""
        at = 2
        for name, kind in fields:
            if kind == _SHORT:
                start = at + 1
                at = start + data[at]
                found[name] = data[start:at].decode()
            elif kind == _OCTET:
                found[name] = data[at]
                at += 1
            elif kind == _TABLE:
                start = at + 4
                at = start + _UINT32(data, at)[0]
                if at > len(data):
                    break
                table = data[start:at]
            else:
                found[name] = _UINT64(data, at)[0]
                at += 8
    except (IndexError, struct_error):
        raise Malformed("The properties of a message end in the middle of a field.") from None
    except UnicodeDecodeError:
        raise Malformed("A property of a message is not UTF-8.") from None
    if at != len(data):
        raise Malformed("The properties of a message are not as long as they say.")
    return found, table


def decode_properties(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The properties, and the decoded headers. Raises ``Malformed``."""
    found, table = split(data)
    return found, decode_table(table)


def _reader(flags: int) -> list[tuple[str, int]]:
    if flags & _UNKNOWN_FLAGS:
        raise Malformed(f"The properties of a message have unknown flags: {flags:#06x}.")
    fields = [(name, kind) for flag, name, kind in _FIELDS if flags & flag]
    if len(_readers) < _PLANS_KEPT:
        _readers[flags] = fields
    return fields


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────


def encode_properties(properties: Mapping[str, Any], headers: Mapping[str, Any] | bytes | None) -> bytes:
    """Flags and fields. ``None`` values and names that AMQP does not have are left out. Raises ``Unencodable``.

    ``headers``: a table to encode, or the bytes of one as :func:`split` gave them, to be passed on unchanged.
    """
    names = tuple(properties)
    plan = _writers.get(names)
    if plan is None:
        plan = _writer(names)
    flags, fields = plan
    parts = [b""]
    for name, kind in fields:
        if kind == _TABLE:
            if not headers:
                continue
            flags |= _HEADERS_FLAG
            parts.append(_raw_table(headers) if isinstance(headers, bytes) else encode_table(headers))
            continue
        value = properties[name]
        if value is None:
            flags ^= _FLAG_OF[name]
        elif kind == _SHORT:
            parts.append(_short(name, value))
        else:
            parts.append(_number(name, kind, value))
    parts[0] = _PACK_UINT16(flags)
    return b"".join(parts)


_FLAG_OF = {name: flag for flag, name, _ in _FIELDS}


def _writer(names: tuple[str, ...]) -> tuple[int, list[tuple[str, int]]]:
    # whoever keeps headers among the properties passes them separately
    known = [(flag, name, kind) for flag, name, kind in _FIELDS if name in names or kind == _TABLE]
    plan = (sum(flag for flag, _, kind in known if kind != _TABLE), [(name, kind) for _, name, kind in known])
    if len(_writers) < _PLANS_KEPT:
        _writers[names] = plan
    return plan


_OCTETS = [bytes((number,)) for number in range(256)]


def _short(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        if not isinstance(value, int):
            raise Unencodable(f"The property {name} must be a string, not {type(value).__name__}.")
        value = str(value)
    try:
        data = value.encode()
        return _OCTETS[len(data)] + data
    except UnicodeEncodeError:
        raise Unencodable(f"The property {name} holds a lone surrogate.") from None
    except IndexError:
        raise Unencodable(f"The property {name} is longer than 255 bytes.") from None


def _number(name: str, kind: int, value: object) -> bytes:
    if isinstance(value, datetime):
        value = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    limit = 0xFF if kind == _OCTET else 0xFFFFFFFFFFFFFFFF
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise Unencodable(f"The property {name} must be a whole number from 0 to {limit}.")
    return _OCTETS[value] if kind == _OCTET else _PACK_UINT64(value)


def _raw_table(data: bytes) -> bytes:
    if len(data) > TABLE_LIMIT_BYTES:
        raise Unencodable(f"Headers of {len(data)} bytes are over the limit of {TABLE_LIMIT_BYTES}.")
    return len(data).to_bytes(4, "big") + data
