"""The methods of AMQP 0-9-1 that we speak, as a table, and how their arguments are written and read.

``tx`` is not needed, ``basic.recover`` and ``exchange.unbind`` neither. Numbers and names are the protocol's.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.tables import TABLE_LIMIT_BYTES, decode_table, encode_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLE = """
10 10 connection.start          major:octet minor:octet server_properties:table mechanisms:long locales:long
10 11 connection.start-ok       client_properties:table mechanism:short response:bytes locale:short
10 20 connection.secure         challenge:bytes
10 21 connection.secure-ok      response:bytes
10 30 connection.tune           channel_max:uint16 frame_max:uint32 heartbeat:uint16
10 31 connection.tune-ok        channel_max:uint16 frame_max:uint32 heartbeat:uint16
10 40 connection.open           virtual_host:short reserved_1:short reserved_2:bit
10 41 connection.open-ok        reserved_1:short
10 50 connection.close          reply_code:uint16 reply_text:short failing_class:uint16 failing_method:uint16
10 51 connection.close-ok
10 60 connection.blocked        reason:short
10 61 connection.unblocked
10 70 connection.update-secret  new_secret:bytes reason:short
10 71 connection.update-secret-ok
20 10 channel.open              reserved_1:short
20 11 channel.open-ok           reserved_1:long
20 20 channel.flow              active:bit
20 21 channel.flow-ok           active:bit
20 40 channel.close             reply_code:uint16 reply_text:short failing_class:uint16 failing_method:uint16
20 41 channel.close-ok
40 10 exchange.declare          reserved_1:uint16 exchange:short type:short passive:bit durable:bit auto_delete:bit \
internal:bit no_wait:bit arguments:table
40 11 exchange.declare-ok
40 20 exchange.delete           reserved_1:uint16 exchange:short if_unused:bit no_wait:bit
40 21 exchange.delete-ok
40 30 exchange.bind             reserved_1:uint16 destination:short source:short routing_key:short no_wait:bit \
arguments:table
40 31 exchange.bind-ok
50 10 queue.declare             reserved_1:uint16 queue:short passive:bit durable:bit exclusive:bit auto_delete:bit \
no_wait:bit arguments:table
50 11 queue.declare-ok          queue:short message_count:uint32 consumer_count:uint32
50 20 queue.bind                reserved_1:uint16 queue:short exchange:short routing_key:short no_wait:bit \
arguments:table
50 21 queue.bind-ok
50 30 queue.purge               reserved_1:uint16 queue:short no_wait:bit
50 31 queue.purge-ok            message_count:uint32
50 40 queue.delete              reserved_1:uint16 queue:short if_unused:bit if_empty:bit no_wait:bit
50 41 queue.delete-ok           message_count:uint32
50 50 queue.unbind              reserved_1:uint16 queue:short exchange:short routing_key:short arguments:table
50 51 queue.unbind-ok
60 10 basic.qos                 prefetch_size:uint32 prefetch_count:uint16 global_:bit
60 11 basic.qos-ok
60 20 basic.consume             reserved_1:uint16 queue:short consumer_tag:short no_local:bit no_ack:bit \
exclusive:bit no_wait:bit arguments:table
60 21 basic.consume-ok          consumer_tag:short
60 30 basic.cancel              consumer_tag:short no_wait:bit
60 31 basic.cancel-ok           consumer_tag:short
60 40 basic.publish             reserved_1:uint16 exchange:short routing_key:short mandatory:bit immediate:bit
60 50 basic.return              reply_code:uint16 reply_text:short exchange:short routing_key:short
60 60 basic.deliver             consumer_tag:short delivery_tag:uint64 redelivered:bit exchange:short routing_key:short
60 70 basic.get                 reserved_1:uint16 queue:short no_ack:bit
60 71 basic.get-ok              delivery_tag:uint64 redelivered:bit exchange:short routing_key:short \
message_count:uint32
60 72 basic.get-empty           reserved_1:short
60 80 basic.ack                 delivery_tag:uint64 multiple:bit
60 90 basic.reject              delivery_tag:uint64 requeue:bit
60 120 basic.nack               delivery_tag:uint64 multiple:bit requeue:bit
85 10 confirm.select            no_wait:bit
85 11 confirm.select-ok
"""

_NUMBERS = {"octet": Struct(">B"), "uint16": Struct(">H"), "uint32": Struct(">I"), "uint64": Struct(">Q")}
_EMPTY_OF: dict[str, Any] = {"short": "", "long": "", "bytes": b"", "table": {}, "bit": False}


class Layout(msgspec.Struct, frozen=True):
    """A method: its name, its numbers as they stand on the wire, its arguments in order with their types."""

    name: str
    index: bytes
    fields: tuple[tuple[str, str], ...]


class Method(msgspec.Struct, frozen=True):
    """A method that came in."""

    name: str
    arguments: dict[str, Any]

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]


def _layouts() -> list[Layout]:
    lines = [line.split() for line in _TABLE.splitlines() if line]
    return [
        Layout(
            name,
            int(class_id).to_bytes(2, "big") + int(method_id).to_bytes(2, "big"),
            tuple((field.partition(":")[0], field.partition(":")[2]) for field in fields),
        )
        for class_id, method_id, name, *fields in lines
    ]


BY_NAME = {layout.name: layout for layout in _layouts()}
BY_INDEX = {layout.index: layout for layout in BY_NAME.values()}
#: methods that a header and a body follow
WITH_CONTENT = frozenset({"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"})


def encode_method(name: str, arguments: Mapping[str, Any] | None = None) -> bytes:
    """The payload of a method frame; arguments that are not given are zero or empty. Raises ``Unencodable``."""
    layout = BY_NAME[name]
    given = arguments or {}
    parts = [layout.index]
    bits: list[bool] = []
    for field, kind in layout.fields:
        value = given.get(field)
        if kind == "bit":
            bits.append(bool(value))
            continue
        _flush(bits, parts)
        parts.append(_encode(kind, _EMPTY_OF.get(kind, 0) if value is None else value, field))
    _flush(bits, parts)
    return b"".join(parts)


def _flush(bits: list[bool], parts: list[bytes]) -> None:
    if bits:
        parts.append(bytes((sum(1 << place for place, bit in enumerate(bits) if bit),)))
        bits.clear()


def _encode(kind: str, value: Any, field: str) -> bytes:
    if kind == "short":
        return short_string(value, field)
    if kind == "table":
        return encode_table(value)
    if kind in ("long", "bytes"):
        data: bytes = value.encode() if isinstance(value, str) else value
        return len(data).to_bytes(4, "big") + data
    try:
        return _NUMBERS[kind].pack(value)
    except struct_error:
        raise Unencodable(f"{field}={value!r:.50} is out of range.") from None


def short_string(value: str, field: str) -> bytes:
    """At most 255 bytes with their length before them. Raises ``Unencodable``."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Unencodable(f"The {field} {value!a:.100} holds a lone surrogate.") from None
    if len(data) > 255:
        raise Unencodable(f"The {field} {value[:40]!r}… is longer than 255 bytes.")
    return bytes((len(data),)) + data


def name_of(raw: bytes) -> str:
    """A short string. Names and routing keys may be any bytes; :func:`short_string` gives the same ones back."""
    return raw.decode("utf-8", "surrogateescape")


def decode_method(data: bytes) -> Method:
    """Read the payload of a method frame. Raises ``Malformed``."""
    layout = BY_INDEX.get(data[:4])
    if layout is None:
        raise Malformed(f"An unknown method came: {data[:4].hex()}.")
    arguments: dict[str, Any] = {}
    at = 4
    place = 0
    try:
        for field, kind in layout.fields:
            if kind == "bit":
                # bits in a row share octets
                arguments[field] = bool(data[at] >> place & 1)
                place += 1
                continue
            if place:
                at, place = at + 1, 0
            arguments[field], at = _decode(data, kind, at)
    except (IndexError, struct_error):
        raise Malformed(f"{layout.name} ends in the middle of an argument.") from None
    except UnicodeDecodeError:
        raise Malformed(f"{layout.name} has an argument that is not UTF-8.") from None
    if at + bool(place) != len(data):
        raise Malformed(f"{layout.name} is not as long as its arguments say.")
    return Method(layout.name, arguments)


def _decode(data: bytes, kind: str, at: int) -> tuple[Any, int]:
    """The argument at ``at`` and where it ends, which may be behind the end of the data."""
    if kind == "short":
        end = at + 1 + data[at]
        return name_of(data[at + 1 : end]), end
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return number.unpack_from(data, at)[0], at + number.size
    length = int.from_bytes(data[at : at + 4], "big")
    end = at + 4 + length
    if end > len(data) or length > TABLE_LIMIT_BYTES:
        raise Malformed("An argument of a method is too long.")
    content = data[at + 4 : end]
    if kind == "table":
        return decode_table(content), end
    return (content.decode() if kind == "long" else content), end
