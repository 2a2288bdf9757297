"""Serializers by name and by content type: json, yaml, msgpack, pickle, raw; strangers register their own.

What may be *read* is decided by the caller's accept set, and pickle is never read unless that set names it: loading a
pickle runs whatever code it holds. Every decoder raises only ``DecodeError``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from celeriac.errors import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MessageError,
    MissingExtra,
)
from celeriac.wire import json_types
from celeriac.wire.limits import DEFAULT_LIMITS, Limits, check_msgpack, check_size

#: readable by every Python that celeriac and Celery 5 run on
PICKLE_PROTOCOL = 4

#: what is read when the caller names nothing
DEFAULT_ACCEPT = frozenset({"json", "application/json"})

#: opaque bytes: nothing is interpreted, so nothing needs to be allowed
TRUSTED_CONTENT = frozenset({"application/data", "application/text"})


class Serializer(Protocol):
    """Turns values into bytes and back. ``encode`` raises ``EncodeError``, ``decode`` ``DecodeError``."""

    @property
    def name(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def content_encoding(self) -> str: ...
    def encode(self, value: Any) -> bytes: ...
    def decode(self, data: bytes, limits: Limits) -> Any: ...


class JsonSerializer:
    name = "json"
    content_type = "application/json"
    content_encoding = "utf-8"

    def encode(self, value: Any) -> bytes:
        return json_types.encode(value)

    def decode(self, data: bytes, limits: Limits) -> Any:
        return json_types.decode(data, limits)


class PickleSerializer:
    name = "pickle"
    content_type = "application/x-python-serialize"
    content_encoding = "binary"

    def encode(self, value: Any) -> bytes:
        import pickle  # dear to import, and few write it

        try:
            return pickle.dumps(value, protocol=PICKLE_PROTOCOL)
        except Exception as error:
            raise EncodeError(f"The value cannot be pickled: {error}") from error

    def decode(self, data: bytes, limits: Limits) -> Any:
        check_size(data, limits.decompressed_bytes, "The pickle")
        from celeriac.wire.unpickling import unpickle

        try:
            return unpickle(data)
        except Exception as error:
            raise DecodeError(f"The pickle cannot be read: {error!r:.500}") from error


class MsgpackSerializer:
    name = "msgpack"
    content_type = "application/x-msgpack"
    content_encoding = "binary"

    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder().decode

    def encode(self, value: Any) -> bytes:
        plain = _msgpack_plain(value, DEFAULT_LIMITS.depth)
        try:
            return self._encode(plain)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise EncodeError(f"The value cannot be written as MessagePack: {error}") from error

    def decode(self, data: bytes, limits: Limits) -> Any:
        check_msgpack(data, limits)
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise DecodeError(f"Not MessagePack: {error}") from error


_MSGPACK_FLAT = frozenset({str, int, bool, float, bytes, type(None)})


def _msgpack_plain(value: Any, room: int) -> Any:
    """``value`` in the types that MessagePack has; msgspec would invent encodings for others, kombu refuses them."""
    if type(value) in _MSGPACK_FLAT:
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
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [_msgpack_plain(item, room - 1) for item in value]
    if isinstance(value, dict):
        return {_msgpack_plain(key, room - 1): _msgpack_plain(item, room - 1) for key, item in value.items()}
    raise EncodeError(f"MessagePack has no way to write a value of type {type(value).__qualname__}: convert it first")


class YamlSerializer:
    name = "yaml"
    content_type = "application/x-yaml"
    content_encoding = "utf-8"

    def encode(self, value: Any) -> bytes:
        yaml = _yaml()
        try:
            text: str = yaml.dump(value, Dumper=_dumper_without_aliases(yaml))
        except Exception as error:
            raise EncodeError(f"The value cannot be written as YAML: {error}") from error
        return text.encode("utf-8")

    def decode(self, data: bytes, limits: Limits) -> Any:
        check_size(data, limits.decompressed_bytes, "The YAML text")
        try:
            yaml = _yaml()
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            text = data.decode("utf-8")
            _check_yaml_events(yaml.parse(text, Loader=loader), yaml, limits)
            return yaml.load(text, Loader=loader)  # a safe loader: plain values only
        except MessageError:
            raise
        except Exception as error:
            raise DecodeError(f"The YAML text cannot be read: {error}") from error


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Serializer 'yaml' needs a package that is not installed: pip install 'celeriac[yaml]'"
        ) from error


def _dumper_without_aliases(yaml: Any) -> Any:
    """A dumper that writes shared objects twice, since our reader takes no aliases (they blow up exponentially)."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # the base is only known at run time
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Dumper


#: a number of PyYAML's; those with colons (base 60) cost it quadratic time
_YAML_NUMBER = re.compile(r"[-+]?[0-9][0-9_:.]*")


def _is_long_number(event: Any, digits: int) -> bool:
    """Whether it is an unquoted scalar (the first flag of ``implicit``) that may be taken for an over-long number."""
    text = event.value
    return len(text) > digits and event.implicit[0] and _YAML_NUMBER.fullmatch(text) is not None


def _check_yaml_events(events: Iterable[Any], yaml: Any, limits: Limits) -> None:
    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, yaml.AliasEvent):
            raise DecodeError("The YAML text uses an alias (*name); aliases are not read")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > limits.depth:
                raise DecodeError(f"The YAML text is nested deeper than {limits.depth}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and _is_long_number(event, limits.integer_digits):
            raise DecodeError(f"The YAML text holds a number of more than {limits.integer_digits} digits")
        if count > 2 * limits.items:
            raise DecodeError(f"The YAML text holds more than {limits.items} items")


class RawSerializer:
    """Bytes as they are; text as UTF-8."""

    name = "raw"
    content_type = "application/data"
    content_encoding = "binary"

    def encode(self, value: Any) -> bytes:
        if isinstance(value, str):
            return value.encode("utf-8")
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise EncodeError(f"Serializer 'raw' takes bytes or text, not {type(value).__qualname__}")

    def decode(self, data: bytes, limits: Limits) -> Any:
        check_size(data, limits.decompressed_bytes, "The body")
        return data


class FunctionSerializer:
    """A serializer made of two functions, as kombu's ``register`` takes them."""

    def __init__(
        self, name: str, encoder: Callable[[Any], bytes | str], decoder: Callable[[bytes], Any], content_type: str,
        content_encoding: str = "utf-8",
    ) -> None:  # fmt: skip
        self.name = name
        self.content_type = content_type
        self.content_encoding = content_encoding
        self._encoder = encoder
        self._decoder = decoder

    def encode(self, value: Any) -> bytes:
        try:
            encoded = self._encoder(value)
        except MessageError:
            raise
        except Exception as error:
            raise EncodeError(f"Serializer {self.name!r} cannot write the value: {error!r}") from error
        return encoded.encode("utf-8") if isinstance(encoded, str) else encoded

    def decode(self, data: bytes, limits: Limits) -> Any:
        check_size(data, limits.decompressed_bytes, "The body")
        try:
            return self._decoder(data)
        except MessageError:
            raise
        except Exception as error:
            raise DecodeError(f"Serializer {self.name!r} cannot read the data: {error!r}") from error


_JSON = JsonSerializer()
_by_name: dict[str, Serializer] = {}
_by_content_type: dict[str, Serializer] = {}


def register_serializer(serializer: Serializer) -> None:
    """Make a serializer known under its name and its content type; a later one replaces an earlier one."""
    _by_name[serializer.name] = serializer
    _by_content_type[serializer.content_type] = serializer


for _built_in in (_JSON, PickleSerializer(), MsgpackSerializer(), YamlSerializer(), RawSerializer()):
    register_serializer(_built_in)


def json_is_plain() -> bool:
    """Whether JSON is read and written by :mod:`celeriac.wire.json_types`: nobody has registered another way."""
    return _by_content_type["application/json"] is _JSON


def serializer_names() -> list[str]:
    return list(_by_name)


def serializer_named(name: str) -> Serializer:
    """The serializer called ``name`` (or of that content type). Raises ``ImproperlyConfigured``."""
    found = _by_name.get(name) or _by_content_type.get(name)
    if found is None:
        import difflib

        close = difflib.get_close_matches(str(name), _by_name, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(_by_name)}."
        raise ImproperlyConfigured(f"Serializer {name!r} does not exist. {hint}")
    return found


def serializer_for(content_type: str) -> Serializer:
    """The serializer of a content type. Raises ``ContentDisallowed``: what nobody can read is refused."""
    found = _by_content_type.get(content_type)
    if found is None:
        raise ContentDisallowed(f"No serializer reads the content type {str(content_type)[:100]!r}")
    return found


def accept_set(names: Iterable[str]) -> frozenset[str]:
    """Names or MIME types → both spellings of each. Raises ``ImproperlyConfigured`` for an unknown one."""
    accepted: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        serializer = serializer_named(name)
        accepted |= {serializer.name, serializer.content_type}
    return frozenset(accepted)


def dumps(value: Any, serializer: str) -> tuple[bytes, str, str]:
    """``value`` as bytes, with content type and content encoding. Raises ``EncodeError``."""
    if serializer == "json":
        return json_types.encode(value), "application/json", "utf-8"
    chosen = serializer_named(serializer)
    encoding = "utf-8" if chosen.name == "raw" and isinstance(value, str) else chosen.content_encoding
    return chosen.encode(value), chosen.content_type, encoding


def loads(
    data: bytes, content_type: str | None, content_encoding: str | None, accept: frozenset[str] | None,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:  # fmt: skip
    """The value of ``data``. Raises ``ContentDisallowed`` or ``DecodeError``.

    ``accept``: what may be read, from :func:`accept_set`; ``None`` means JSON only.
    """
    if content_type == "application/json" and (accept is None or content_type in accept):
        serializer = _by_content_type[content_type]
        return json_types.decode(data, limits) if serializer is _JSON else serializer.decode(data, limits)
    kind = content_type or "application/data"
    allowed = DEFAULT_ACCEPT if accept is None else accept
    if kind in TRUSTED_CONTENT:
        check_size(data, limits.decompressed_bytes, "The body")
        return _text(data) if (content_encoding or "").lower() in ("utf-8", "us-ascii") else data
    if kind not in allowed:
        raise ContentDisallowed(
            f"Refusing to read content of type {kind[:100]!r}: only {', '.join(sorted(allowed))} are accepted "
            f"(accept_content)"
        )
    return serializer_for(kind).decode(data, limits)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"The body says it is UTF-8 and is not: {error}") from error
