"""Field tables: the headers and arguments of AMQP, as RabbitMQ and py-amqp read them.

Tables come from strangers: reading is iterative and bounded (depth, keys, bytes), and nothing but ``Malformed`` leaves
it. Speed matters, a task message carries some twenty headers: the table is decoded as Latin-1 once, and strings are
cut from that, for slicing text is half the price of decoding bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from struct import Struct
from struct import error as struct_error
from typing import Any, cast

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.shapes import Shapes
from celeriac.wire.json_types import Model

DEPTH_LIMIT = 8
KEYS_LIMIT = 256
TABLE_LIMIT_BYTES = 64 * 1024

_UINT32 = Struct(">I").unpack_from
_UINT64 = Struct(">Q").unpack_from
_INT32 = Struct(">i").unpack_from
_PACK_UINT32 = Struct(">I").pack
_PACK_INT32 = Struct(">ci").pack
_PACK_INT64 = Struct(">cq").pack
_PACK_DOUBLE = Struct(">cd").pack
_PACK_TIMESTAMP = Struct(">cQ").pack
_PACK_DECIMAL = Struct(">cBi").pack

#: type octet → how its fixed bytes are read, and how many they are. Both 64-bit letters are signed: py-amqp writes
#: ``L`` for negative numbers, too, and RabbitMQ sends ``l``.
_NUMBERS = {
    ord(letter): (Struct(">" + form).unpack_from, Struct(">" + form).size)
    for letter, form in {
        "b": "b", "B": "B", "s": "h", "U": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q", "f": "f", "d": "d",
    }.items()
}  # fmt: skip
_S, _V, _I, _t, _A, _F, _T, _D, _x = b"SVItAFTDx"
_CONTAINERS = (_A, _F)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_LAST_SECOND = 253402300799  # of the year 9999, the last that datetime knows

_shapes = Shapes()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def decode_table(data: bytes) -> dict[str, Any]:
    """Read a table without its length prefix. Raises ``Malformed``."""
    if len(data) > TABLE_LIMIT_BYTES:
        raise Malformed(f"A table of {len(data)} bytes is over the limit of {TABLE_LIMIT_BYTES}.")
    try:
        text = data.decode("latin-1")
        found = _shapes.read(data, text)
        if found is None:
            found = _table(data, text)
            _shapes.learn(data, found, lambda: _ends(data, text))
        return found
    except (IndexError, struct_error):
        raise Malformed("A table ends in the middle of a value.") from None


def _ends(data: bytes, text: str) -> list[int]:
    """Where each entry of a sound table ends."""
    found: list[int] = []
    at = 0
    while at < len(data):
        at += data[at] + 1
        kind = data[at]
        at = at + 5 + _UINT32(data, at + 1)[0] if kind in _CONTAINERS else _scalar(data, text, kind, at + 1)[1]
        found.append(at)
    return found


def _table(data: bytes, text: str) -> dict[str, Any]:
    end = len(data)
    at = 0
    found: dict[str, Any] = {}
    while at < end:
        key_end = at + data[at] + 1
        kind = data[key_end]
        key = text[at + 1 : key_end]
        if not key.isascii():
            key = _key(key)
        if kind == _S:
            start = key_end + 5
            at = start + _UINT32(data, key_end + 1)[0]
            value = text[start:at]
            found[key] = value if value.isascii() else _string(value)
        elif kind == _V:
            found[key] = None
            at = key_end + 1
        elif kind == _I:
            found[key] = _INT32(data, key_end + 1)[0]
            at = key_end + 5
        elif kind == _t:
            found[key] = data[key_end + 1] != 0
            at = key_end + 2
        elif kind in _CONTAINERS:
            start = key_end + 5
            at = start + _UINT32(data, key_end + 1)[0]
            if at > end:
                break
            found[key] = _nested(data, text, kind, start, at)
        else:
            found[key], at = _scalar(data, text, kind, key_end + 1)
    if at != end:
        raise Malformed("A value in a table is longer than the table.")
    if len(found) > KEYS_LIMIT:
        raise Malformed(f"A table has more than {KEYS_LIMIT} keys.")
    return found


def _nested(data: bytes, text: str, kind: int, at: int, end: int) -> Any:
    """What stands between ``at`` and ``end``, an array or a table; with a stack of its own, for it may be hostile."""
    container: Any = [] if kind == _A else {}
    enclosing: list[tuple[Any, int]] = []
    while True:
        while at == end:
            if type(container) is dict and len(container) > KEYS_LIMIT:
                raise Malformed(f"A table has more than {KEYS_LIMIT} keys.")
            if not enclosing:
                return container
            container, end = enclosing.pop()
        key = None
        if type(container) is dict:
            key_end = at + data[at] + 1
            key = _key(text[at + 1 : key_end])
            at = key_end
        kind = data[at]
        value: Any
        if kind in _CONTAINERS:
            value = [] if kind == _A else {}
            stop = at + 5 + _UINT32(data, at + 1)[0]
            at += 5
        else:
            value, at = _scalar(data, text, kind, at + 1)
            stop = at
        if stop > end:
            raise Malformed("A value in a table is longer than the table.")
        if key is None:
            cast("list[Any]", container).append(value)
        else:
            container[key] = value
        if kind in _CONTAINERS:
            enclosing.append((container, end))
            # the top-level table, and the container this call began with, are the first two levels
            if len(enclosing) + 2 > DEPTH_LIMIT:
                raise Malformed(f"A table is nested deeper than {DEPTH_LIMIT} levels.")
            container, end = value, stop


def _scalar(data: bytes, text: str, kind: int, at: int) -> tuple[Any, int]:
    """The value of type ``kind`` at ``at``, and where it ends, which may be behind the end of the data."""
    number = _NUMBERS.get(kind)
    if number is not None:
        return number[0](data, at)[0], at + number[1]
    if kind == _S:
        end = at + 4 + _UINT32(data, at)[0]
        return _string(text[at + 4 : end]), end
    if kind == _V:
        return None, at
    if kind == _t:
        return data[at] != 0, at + 1
    if kind == _x:
        end = at + 4 + _UINT32(data, at)[0]
        return data[at + 4 : end], end
    if kind == _T:
        seconds = _UINT64(data, at)[0]
        if seconds > _LAST_SECOND:
            raise Malformed("A timestamp in a table is beyond the year 9999.")
        return datetime.fromtimestamp(seconds, UTC), at + 8
    if kind == _D:
        digits = _INT32(data, at + 1)[0]
        return Decimal((digits < 0, tuple(map(int, str(abs(digits)))), -data[at])), at + 5
    raise Malformed(f"A table holds a value of the unknown type {kind:#04x}.")


def _key(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed("A key of a table is not UTF-8.") from None


def _string(text: str) -> str | bytes:
    """Text, or bytes where it is none: AMQP's long strings are both."""
    if text.isascii():
        return text
    raw = text.encode("latin-1")
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

#: type and length of short strings, which most are
_SHORT_STRING = [b"S" + _PACK_UINT32(length) for length in range(256)]
_INT32_MAX = 0x7FFFFFFF
_TRUE, _FALSE, _NONE = b"t\x01", b"t\x00", b"V"

#: key → its length and bytes. Keys come from code and repeat; if they don't, the cache stops growing
_keys: dict[str, bytes] = {}
_KEYS_KEPT = 2048


#: what mappings have in common → the bytes before, between and behind the texts in which they differ
_models: dict[Model, list[bytes]] = {}
_MODELS_KEPT = 256


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Write a table with its length prefix. Raises ``Unencodable``."""
    model = getattr(table, "model", None)
    data = None if model is None else _fill(model, table)
    if data is None:
        data = _encode_entries(table, 1)
    if len(data) > TABLE_LIMIT_BYTES:
        raise Unencodable(f"Headers of {len(data)} bytes are over the limit of {TABLE_LIMIT_BYTES}.")
    return _PACK_UINT32(len(data)) + data


def _fill(model: Model, table: Mapping[str, Any]) -> bytes | None:
    """A table that differs from others in a few texts; None if there is more to it than that."""
    if len(table) != len(model.shared):
        return None
    pieces = _models.get(model)
    if pieces is None:
        pieces = _cut(model)
    written = [pieces[0]]
    try:
        for key, behind in zip(model.varying, pieces[1:], strict=True):
            text = table[key].encode()
            written += (_SHORT_STRING[len(text)], text, behind)
    except (UnicodeEncodeError, IndexError):  # a lone surrogate, a long text
        return None
    return b"".join(written)


def _cut(model: Model) -> list[bytes]:
    pieces = [b""]
    for key, value in model.shared.items():
        if key in model.varying:
            pieces[-1] += _encode_key(key)
            pieces.append(b"")
        else:
            pieces[-1] += _encode_entries({key: value}, 1)
    if len(_models) >= _MODELS_KEPT:
        _models.clear()
    _models[model] = pieces
    return pieces


def _encode_entries(table: Mapping[str, Any], depth: int) -> bytes:
    if len(table) > KEYS_LIMIT:
        raise Unencodable(f"Headers of {len(table)} keys are over the limit of {KEYS_LIMIT}.")
    parts: list[bytes] = []
    add = parts.append
    keys = _keys
    for key, value in table.items():
        try:
            add(keys[key])
        except (KeyError, TypeError):
            add(_encode_key(key))
        kind = type(value)
        if kind is str:
            try:
                data = value.encode()
            except UnicodeEncodeError:
                data = value.encode("utf-8", "surrogatepass")
            length = len(data)
            add(_SHORT_STRING[length] if length < 256 else b"S" + _PACK_UINT32(length))
            add(data)
        elif value is None:
            add(_NONE)
        elif kind is int and -_INT32_MAX <= value <= _INT32_MAX:
            add(_PACK_INT32(b"I", value))
        elif kind is bool:
            add(_TRUE if value else _FALSE)
        elif kind is list or kind is dict:
            add(_encode_container(value, depth + 1))
        else:
            add(_encode_value(value, depth))
    return b"".join(parts)


def _encode_key(key: object) -> bytes:
    if not isinstance(key, str):
        raise Unencodable(f"The header name {key!r:.100} is not a string.")
    data = key.encode("utf-8", "surrogatepass")
    if len(data) > 255:
        raise Unencodable(f"The header name {key[:40]!r}… is longer than 255 bytes.")
    encoded = bytes((len(data),)) + data
    if len(_keys) < _KEYS_KEPT:
        _keys[key] = encoded
    return encoded


def _encode_value(value: object, depth: int) -> bytes:
    """Any value with its type octet. Recursion ends at the depth limit."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"S" + _PACK_UINT32(len(data)) + data
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        # as py-amqp does it: -2**31 takes the long form
        if -_INT32_MAX <= value <= _INT32_MAX:
            return _PACK_INT32(b"I", value)
        if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
            return _PACK_INT64(b"L", value)
        raise Unencodable("An integer in the headers needs more than 64 bits.")
    if value is None:
        return _NONE
    if isinstance(value, float):
        return _PACK_DOUBLE(b"d", value)
    if isinstance(value, Mapping | list | tuple):
        return _encode_container(value, depth + 1)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return b"x" + _PACK_UINT32(len(data)) + data
    if isinstance(value, datetime):
        return _encode_timestamp(value)
    if isinstance(value, Decimal):
        return _encode_decimal(value)
    raise Unencodable(f"AMQP has no form for a value of type {type(value).__name__} in the headers.")


def _encode_container(value: Mapping[str, Any] | list[Any] | tuple[Any, ...], depth: int) -> bytes:
    if not value:
        return b"A\0\0\0\0" if isinstance(value, list | tuple) else b"F\0\0\0\0"
    if depth > DEPTH_LIMIT:
        raise Unencodable(f"Headers are nested deeper than {DEPTH_LIMIT} levels.")
    if isinstance(value, Mapping):
        data = _encode_entries(value, depth)
        return b"F" + _PACK_UINT32(len(data)) + data
    if len(value) > TABLE_LIMIT_BYTES:
        raise Unencodable(f"Headers are over the limit of {TABLE_LIMIT_BYTES} bytes.")
    data = b"".join([_NONE if item is None else _encode_value(item, depth) for item in value])
    return b"A" + _PACK_UINT32(len(data)) + data


def _encode_timestamp(value: datetime) -> bytes:
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // _SECOND
    if seconds < 0:
        raise Unencodable("AMQP's timestamps begin in 1970.")
    return _PACK_TIMESTAMP(b"T", seconds)


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 9 and len(digits) <= 10:
        number = int("".join(map(str, digits)) or "0") * 10 ** max(0, exponent)
        if number <= _INT32_MAX:
            return _PACK_DECIMAL(b"D", max(0, -exponent), -number if sign else number)
    raise Unencodable("AMQP's decimals have 31 bits and up to 255 places.")
