"""Exceptions as data: ``{exc_type, exc_message, exc_module}`` and back.

Reading never imports and never follows a module's lazy attributes: a class is taken only from modules that are loaded
already, and only if it is an exception class. Anything else becomes a :class:`~celeriac.errors.RemoteError` of the
recorded name. Source of the format: ``Backend.prepare_exception`` and ``exception_to_python`` of Celery 5.7.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from celeriac.errors import DecodeError, EncodeError, RemoteError, SecurityError
from celeriac.wire.error_names import CELERY, OUR_CLASSES, WIRE_NAMES, is_class_name, stand_in
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import PICKLE_PROTOCOL, serializer_named

# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────


def exception_to_wire(exc: BaseException, serializer: str = "json") -> Any:
    """``exc`` as the ``result`` of a FAILURE record: a mapping, or with pickle the exception itself if it can travel.

    Arguments that the serializer can't express are replaced by their repr, one by one. Never raises for ``exc``'s
    own faults.
    """
    cls = type(exc)
    if serializer == "pickle" and _may_be_pickled(cls) and _survives_pickle(exc):
        return exc
    module, name = WIRE_NAMES.get(cls) or (cls.__module__, cls.__qualname__)
    return {"exc_type": name, "exc_message": _wire_arguments(exc, serializer), "exc_module": module}


def _wire_arguments(exc: BaseException, serializer: str) -> list[Any]:
    encode = serializer_named(serializer).encode
    arguments: list[Any] = []
    for argument in exc.args:
        try:
            encode(argument)
        except EncodeError:
            arguments.append(safe_repr(argument))
        else:
            arguments.append(argument)
    return arguments


def _may_be_pickled(cls: type[BaseException]) -> bool:
    """Not our own classes (a reader with Celery alone has no celeriac), nor stand-ins for classes nobody has here."""
    return not issubclass(cls, RemoteError) and cls.__module__.partition(".")[0] != "celeriac"


def _survives_pickle(exc: BaseException) -> bool:
    """Whether a reader gets an exception of the same class; the bytes are our own, so loading them is safe."""
    import pickle  # dear to import, and few send exceptions that way

    try:
        return type(pickle.loads(pickle.dumps(exc, protocol=PICKLE_PROTOCOL))) is type(exc)
    except Exception:
        return False


def traceback_text(exc: BaseException) -> str:
    """The traceback as Python prints it, causes included."""
    import traceback  # who only sends has no use for it

    try:
        return "".join(traceback.format_exception(exc))
    except Exception as error:  # a __str__ or __cause__ property of the user's that raises
        return f"{type(exc).__name__} (its traceback cannot be shown: {error!r})\n"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def exception_from_wire(data: Any) -> BaseException:
    """The exception a record tells of. Raises ``DecodeError`` for another shape, ``SecurityError`` for a class that
    is loaded here but is no exception.
    """
    if isinstance(data, BaseException):
        return data
    if not isinstance(data, Mapping):
        raise DecodeError(f"A recorded exception is a mapping with exc_type, not {safe_repr(data, 200)}")
    name: Any = data.get("exc_type")
    module: Any = data.get("exc_module")
    if not is_class_name(name):
        raise DecodeError(f"A recorded exception has no usable exc_type: {safe_repr(name, 200)}")
    if not is_class_name(module):
        module = CELERY
    message = data.get("exc_message", ())
    arguments = tuple(message) if isinstance(message, list | tuple) else (message,)
    cls = _exception_class(module, name)
    if cls is None:
        return stand_in(module, name)(*arguments)
    try:
        rebuilt: Any = cls(*arguments)
    except Exception:  # a constructor that wants other arguments than it passed on as .args
        return stand_in(module, name)(*arguments)
    # a __new__ may return anything
    return rebuilt if isinstance(rebuilt, BaseException) else stand_in(module, name)(*arguments)


def _exception_class(module: str, name: str) -> type[BaseException] | None:
    ours = OUR_CLASSES.get((module, name))
    if ours is not None:
        return ours
    found: Any = sys.modules.get(module)
    if not isinstance(found, ModuleType):
        return None
    for part in name.split("."):
        # __dict__, not getattr: a module's __getattr__ may import
        if not isinstance(found, ModuleType | type) or part not in vars(found):
            return None
        found = vars(found)[part]
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise SecurityError(f"The record names {module}.{name} as an exception class, which it is not: refused")
    return found
