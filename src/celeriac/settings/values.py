"""Turning what a user gave into what a declaration promises: objects are checked, text from outside is read.

Owns the rules of conversion and nothing else; knows no setting by name.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta, tzinfo
from os import PathLike, fspath
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args, get_origin

_TRUE = frozenset(("true", "yes", "on", "1"))
_FALSE = frozenset(("false", "no", "off", "0"))
_NOTHING = frozenset(("none", "null", ""))


class Seconds:
    """Annotation of a duration: give seconds or a ``timedelta``, read seconds."""

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> float: ...
        def __set__(self, instance: object, value: float | timedelta) -> None: ...


class MaybeSeconds:
    """Annotation of a duration that may be None."""

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> float | None: ...
        def __set__(self, instance: object, value: float | timedelta | None) -> None: ...


class Url:
    """Annotation of one or several URLs: give text or a sequence of texts, read one text joined with ``;``."""

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> str | None: ...
        def __set__(self, instance: object, value: str | Sequence[str] | None) -> None: ...


class Mismatch(Exception):
    """The value is not of the declared type; the caller knows which setting it was for."""


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a declared type: ``int | None`` → ``(int, NoneType)``."""
    if annotation is MaybeSeconds:
        return (Seconds, NoneType)
    if annotation is Url:
        return (Url, NoneType)
    origin = get_origin(annotation)
    if origin is None or origin is Literal or (isinstance(origin, type) and issubclass(origin, Collection | type)):
        return (annotation,)
    return get_args(annotation)


def coerce(value: Any, annotation: Any) -> Any:
    """``value`` as the declared type, changed only where nothing is lost. Raises ``Mismatch``."""
    choices = members(annotation)
    if value is None and NoneType in choices:
        return None
    for choice in choices:
        if _is_already(value, choice):
            return float(value) if _is_number(value) and (choice is float or choice is Seconds) else value
    for choice in choices:
        changed = _convert(value, choice)
        if changed is not None:
            return changed
    raise Mismatch


def _is_already(value: Any, choice: Any) -> bool:
    if choice is Any:
        return True
    if choice is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if choice is float or choice is Seconds:
        return _is_number(value)
    if choice is Url:
        return isinstance(value, str)
    origin = get_origin(choice)
    if origin is Literal:
        return value in get_args(choice)
    if origin is type:
        return isinstance(value, type)
    if origin is Mapping:
        return is_mapping(value)
    return origin is None and isinstance(value, choice)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # NaN is no number


def _is_path(value: Any) -> "TypeGuard[PathLike[str]]":
    return hasattr(value, "__fspath__") and isinstance(fspath(value), str)


def _is_texts(value: Any) -> TypeGuard[Sequence[str]]:
    return is_list(value) and len(value) > 0 and all(isinstance(part, str) for part in value)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether ``value`` is a sequence that is not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether ``value`` is a mapping, of whatever."""
    return isinstance(value, Mapping)


def _is_set(value: object) -> TypeGuard[Collection[Any]]:
    return isinstance(value, set | frozenset)


def _convert(value: Any, choice: Any) -> Any:
    """``value`` made into ``choice``, or None when that would be a guess."""
    if choice is Seconds and isinstance(value, timedelta):
        return value.total_seconds()
    if choice is bool and _is_number(value) and value in (0, 1):
        return bool(value)
    if choice is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if choice is str and _is_path(value):
        return fspath(value)
    if choice is bytes and isinstance(value, str):
        return value.encode()
    if choice is Url and _is_texts(value):
        return ";".join(value)
    return _to_tuple(value, get_origin(choice))


def _to_tuple(value: Any, origin: Any) -> tuple[Any, ...] | None:
    if origin is not Sequence and origin is not Collection:
        return None
    if isinstance(value, str):
        return (value,)
    if _is_set(value):
        return tuple(sorted(value, key=str))
    return tuple(value) if is_list(value) else None


def read_text(text: str, annotation: Any) -> Any:
    """The declared type out of ``text`` given on a command line or in the environment. Raises ``Mismatch``.

    Numbers as Python writes them; booleans as true/yes/on/1 and false/no/off/0; mappings as JSON; lists as JSON or
    separated by commas; ``none``, ``null`` or nothing stands for None where text itself is not a possible value.
    """
    choices = members(annotation)
    if NoneType in choices and str not in choices and Url not in choices and text.strip().lower() in _NOTHING:
        return None
    for choice in choices:
        try:
            return _read(text, choice)
        except ValueError:
            continue
    raise Mismatch


def _read(text: str, choice: Any) -> Any:
    if choice is str or choice is Any or choice is Url:
        return text
    if choice is bool:
        return read_bool(text)
    if choice is int:
        return int(text)
    if choice is float or choice is Seconds:
        return float(text)
    if choice is bytes:
        return text.encode()
    origin = get_origin(choice)
    if origin is Literal and text in get_args(choice):
        return text
    if origin is Sequence or origin is Collection:
        return _read_list(text)
    if origin is Mapping and is_mapping(found := _read_json(text)):
        return found
    raise ValueError(text)


def _read_list(text: str) -> tuple[Any, ...]:
    if text.lstrip().startswith("["):
        return tuple(_read_json(text))
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read_json(text: str) -> Any:
    import json  # here, since importing the settings must stay quick

    return json.loads(text)


def read_bool(text: str) -> bool:
    """A boolean word. Raises ``ValueError``."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(text)


_WORDS: dict[Any, str] = {
    NoneType: "None",
    Any: "anything",
    Seconds: "seconds or timedelta",
    Url: "URL",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    tzinfo: "tzinfo",
}


def describe(annotation: Any) -> str:
    """The declared type in words a user knows, e.g. ``int or None``."""
    return " or ".join(_describe_one(choice) for choice in members(annotation))


def _describe_one(choice: Any) -> str:
    if choice in _WORDS:
        return _WORDS[choice]
    origin = get_origin(choice)
    if origin is Literal:
        return " or ".join(repr(value) for value in get_args(choice))
    if origin is type:
        return "class"
    if origin is Sequence or origin is Collection:
        return f"list of {_describe_one(get_args(choice)[0])}"
    if origin is Mapping:
        return "dict"
    return str(getattr(choice, "__name__", choice))
