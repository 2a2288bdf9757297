"""JSON as kombu writes it: the extra types as ``{"__type__": …, "__value__": …}``, at msgspec's speed.

msgspec would write datetimes, UUIDs, bytes, sets and enums in its own way, so values are scanned first: plain ones go
straight to msgspec, others are rewritten to plain ones. What msgspec can't express (NaN, Infinity, lone surrogates)
goes through the standard library's ``json``, as it does in kombu. Source: ``kombu.utils.json`` of kombu 5.7.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from celeriac.errors import DecodeError, EncodeError, MessageError
from celeriac.wire.limits import DEFAULT_LIMITS, Limits, check_json

Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]


class PlainDict(dict[str, Any]):
    """A mapping that whoever made it knows to be plain (:func:`is_plain`): looking again costs more than writing it."""

    __slots__ = ("model",)

    #: what it was copied from, if all that was changed is the texts it names; only writers look at it
    model: Model


class Model:
    """What many mappings have in common, and the keys of the texts in which they differ. Compared by identity."""

    __slots__ = ("shared", "varying")

    def __init__(self, shared: dict[str, Any], varying: tuple[str, ...]) -> None:
        self.shared = shared
        self.varying = varying


#: types that every JSON writer agrees on; exact types, since subclasses (enums) need rewriting
FLAT = frozenset({str, int, bool, type(None), PlainDict})
_TEXT = frozenset({str})
_MARKER_KEYS = {"__type__", "__value__"}

_encoders: dict[type, tuple[str | None, Encoder]] = {}
_decoders: dict[str, Decoder] = {}

_fast_encode = msgspec.json.Encoder().encode
_fast_decode = msgspec.json.Decoder().decode


def register_type(cls: type, marker: str | None, encoder: Encoder, decoder: Decoder | None = None) -> None:
    """Teach JSON a type. Subclasses count as ``cls`` unless registered earlier; ``marker=None``: written unmarked."""
    _encoders[cls] = (marker, encoder)
    if marker is not None and decoder is not None:
        _decoders[marker] = decoder


# ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────


def is_plain(value: Any, room: int = DEFAULT_LIMITS.depth) -> bool:
    """Whether msgspec and kombu write ``value`` alike. ``room``: levels of nesting that are left.

    Measured by ``benchmarks`` as part of ``encode_task``; the C-level ``issuperset`` pass decides most cases.
    """
    kind = type(value)
    if kind in FLAT:
        return True
    if kind is float:
        return bool(value - value == 0.0)  # false for NaN and the infinities
    if room <= 0:
        return False
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    if FLAT.issuperset(map(type, items)):
        return True
    for item in items:  # noqa: SIM110 - a generator costs more than the loop
        if type(item) not in FLAT and not is_plain(item, room - 1):
            return False
    return True


def encode(value: Any, plain: bool | None = None) -> bytes:
    """JSON text of ``value``. Raises ``EncodeError``. ``plain``: what :func:`is_plain` says, if the caller knows."""
    if plain is None:
        plain = is_plain(value)
    if not plain:
        value = simplify(value, DEFAULT_LIMITS.depth)
        plain = is_plain(value)
    try:
        return _fast_encode(value) if plain else _encode_leniently(value)
    except UnicodeEncodeError:  # a lone surrogate
        return _encode_leniently(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EncodeError(f"The value cannot be written as JSON: {error}") from error


def _encode_leniently(value: Any) -> bytes:
    """NaN, infinities, lone surrogates: what kombu writes and msgspec does not. ``value`` is simplified."""
    import json  # here, since most processes never need it

    try:
        return json.dumps(value, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodeError(f"The value cannot be written as JSON: {error}") from error


def simplify(value: Any, room: int) -> Any:
    """``value`` rewritten to str, int, float, bool, None, list and dict. Raises ``EncodeError``."""
    kind = type(value)
    if kind in FLAT or kind is float:
        return value
    if room <= 0:
        raise EncodeError(
            f"The value is nested deeper than {DEFAULT_LIMITS.depth} levels (or contains itself); receivers refuse that"
        )
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list | tuple):
        return [simplify(item, room - 1) for item in value]
    if isinstance(value, dict):
        return {_key(key): simplify(item, room - 1) for key, item in value.items()}
    return _simplify_object(value, room)


def _key(key: Any) -> str:
    """A mapping's key as the standard library's ``json`` writes it."""
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    if key is True:
        return "true"
    if key is False:
        return "false"
    if key is None:
        return "null"
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        return _float_text(key)
    raise EncodeError(f"JSON has no mapping keys of type {type(key).__qualname__}: use strings or numbers")


def _float_text(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


def _simplify_object(value: Any, room: int) -> Any:
    try:
        reducer = getattr(value, "__json__", None)
        if reducer is not None:
            return simplify(reducer(), room - 1)
        if _is_lazy_text(value):
            return str(value)
        for cls, (marker, encoder) in _encoders.items():
            if isinstance(value, cls):
                if marker is None:
                    return simplify(encoder(value), room - 1)
                if isinstance(value, bytes):
                    return _mark_bytes(value)
                return {"__type__": marker, "__value__": simplify(encoder(value), room - 1)}
    except MessageError:
        raise
    except Exception as error:
        raise EncodeError(f"A value of type {type(value).__qualname__} cannot be written as JSON: {error!r}") from error
    raise EncodeError(
        f"JSON has no way to write a value of type {type(value).__module__}.{type(value).__qualname__}: convert it, "
        f"give it a __json__() method, or call register_type()"
    )


def _is_lazy_text(value: Any) -> bool:
    """Whether it is one of Django's translated-later strings; Django is not imported to find out."""
    module = sys.modules.get("django.utils.functional")
    promise = getattr(module, "Promise", None) if module is not None else None
    return promise is not None and isinstance(value, promise)


def _mark_bytes(value: bytes) -> dict[str, str]:
    try:
        return {"__type__": "bytes", "__value__": value.decode("utf-8")}
    except UnicodeDecodeError:
        import base64

        return {"__type__": "base64", "__value__": base64.b64encode(value).decode("ascii")}


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────────────


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of JSON text. Raises ``DecodeError``, whatever the bytes are."""
    check_json(data, limits)
    try:
        value = _fast_decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        value = _decode_leniently(data, limits)
    except RecursionError as error:
        raise DecodeError("JSON text is nested deeper than this stack allows") from error
    return restore(value) if b'"__type__"' in data else value


def _decode_leniently(data: bytes, limits: Limits) -> Any:
    """NaN, infinities, lone surrogates: what kombu's reader accepts and msgspec does not."""
    import json

    def bounded_int(digits: str) -> int:
        if len(digits) > limits.integer_digits:
            raise DecodeError(f"JSON text holds an integer of more than {limits.integer_digits} digits")
        return int(digits)

    try:
        return json.loads(data.decode("utf-8"), parse_int=bounded_int)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"Not JSON: {error}") from error


def restore(value: Any) -> Any:
    """``value`` with every marked object, innermost first, turned into what it stands for. Changes it in place."""
    try:
        return _restore(value)
    except MessageError:
        raise
    except RecursionError as error:
        raise DecodeError("JSON text is nested deeper than this stack allows") from error


def _restore(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        for index, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                value[index] = _restore(item)
        return value
    if kind is not dict:
        return value
    for key, item in value.items():
        if type(item) is dict or type(item) is list:
            value[key] = _restore(item)
    if len(value) != 2 or value.keys() != _MARKER_KEYS:
        return value
    marker = value["__type__"]
    decoder = _decoders.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(f"JSON text holds an object of the unknown type {str(marker)[:100]!r}")
    try:
        return decoder(value["__value__"])
    except Exception as error:
        raise DecodeError(f"JSON text holds a senseless {marker}: {str(error)[:200]}") from error


def _read_uuid(value: Any) -> UUID:
    return UUID(hex=value["hex"] if isinstance(value, dict) else value)


def _read_date(value: str) -> date:
    return datetime.fromisoformat(value).date()


def _read_base64(value: str) -> bytes:
    import base64

    return base64.b64decode(value, validate=True)


register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, _read_date)
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(Decimal, "decimal", str, Decimal)
register_type(UUID, "uuid", lambda value: {"hex": value.hex}, _read_uuid)
register_type(bytes, "bytes", lambda value: value, str.encode)
_decoders["base64"] = _read_base64
