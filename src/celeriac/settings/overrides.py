"""Settings given on a command line: ``worker.prefetch_multiplier=1``, ``broker.heartbeat=(int)0``."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from celeriac.errors import ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.base import Declaration, unknown_setting
from celeriac.settings.values import Mismatch, read_bool, read_text

_CAST = re.compile(r"\((\w+)\)")


def _json(text: str) -> Any:
    import json

    return json.loads(text)


def _json_as(wanted: Callable[[Any], Any], shape: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        found = _json(text)
        if not isinstance(found, shape):
            raise ValueError(text)
        return wanted(found)

    return read


_CASTS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "string": str,
    "int": int,
    "float": float,
    "bool": read_bool,
    "json": _json,
    "list": _json_as(list, list),
    "tuple": _json_as(tuple, list),
    "dict": _json_as(dict, dict),
}


def parse_overrides(arguments: Iterable[str], default_namespace: str = "") -> dict[str, Any]:
    """Name → value, in the declared types. ``.key`` is a key of ``default_namespace``; later arguments win.

    Raises ``UnknownSetting`` or ``ImproperlyConfigured``.
    """
    return dict(_parse(argument, default_namespace) for argument in arguments)


def _parse(argument: str, default_namespace: str) -> tuple[str, Any]:
    key, equals, text = argument.partition("=")
    if not equals or not key.strip():
        raise ImproperlyConfigured(f"{argument!r} sets nothing; write it as namespace.key=value")
    declared = _declaration(key.strip(), default_namespace)
    return declared.name, _value(text, declared)


def _declaration(key: str, default_namespace: str) -> Declaration:
    name = key.lower().replace(".", "_")
    known = Settings.declarations
    if name.startswith("_"):
        name = default_namespace + name
    declared = known.get(name) or known.get(f"{default_namespace}_{name}")
    if declared is None:
        raise unknown_setting(name, known, "The configuration")
    return declared


def _value(text: str, declared: Declaration) -> Any:
    cast = _CAST.match(text)
    try:
        if cast is None:
            return read_text(text, declared.annotation)
        reader = _CASTS.get(cast.group(1))
        if reader is None:
            raise ImproperlyConfigured(
                f"{declared.name}: there is no cast ({cast.group(1)}); known are {', '.join(sorted(_CASTS))}"
            )
        return declared.coerced(reader(text[cast.end() :]))
    except (Mismatch, ValueError):
        shown = "the given text" if declared.secret else repr(text)
        raise ImproperlyConfigured(f"{declared.name} must be {declared.type_text}, which {shown} is not") from None
