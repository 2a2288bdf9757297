"""Which exception class is called what on the wire, and stand-ins for classes that this process does not have.

Celery's, billiard's and kombu's exceptions are read as celeriac's of the same name, and celeriac's are written under
those names, so that either side catches what it knows.
"""

from __future__ import annotations

from typing import Any

from celeriac import errors
from celeriac.errors import RemoteError

CELERY = "celery.exceptions"
_BILLIARD = "billiard.exceptions"
_KOMBU = "kombu.exceptions"

_BILLIARD_NAMES = ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated")
_KOMBU_NAMES = ("OperationalError", "DecodeError", "EncodeError", "ContentDisallowed")
_CELERY_NAMES = (
    "CeleryError", "ImproperlyConfigured", "QueueNotFound", "BackendError", "BackendGetMetaError", "BackendStoreError",
    "InvalidTaskError", "NotRegistered", "TimeoutError", "AlreadyRegistered", "IncompleteStream", "ChordError",
    "SecurityError", "TaskPredicate", "Ignore", "Reject", "Retry", "MaxRetriesExceededError", "TaskRevokedError",
    "WorkerShutdown", "WorkerTerminate", "CeleryWarning", "AlwaysEagerIgnored", "DuplicateNodenameWarning",
    "FixupWarning", "NotConfigured", "SecurityWarning",
)  # fmt: skip

#: (module on the wire, name) → our class. celery.exceptions re-exports billiard's and kombu's, so both are read.
OUR_CLASSES: dict[tuple[str, str], type[BaseException]] = {
    (module, name): getattr(errors, name)
    for module, names in (
        (CELERY, (*_BILLIARD_NAMES, "OperationalError", *_CELERY_NAMES)),
        (_BILLIARD, _BILLIARD_NAMES),
        (_KOMBU, _KOMBU_NAMES),
    )
    for name in names
}

#: our class → (module, name) on the wire
WIRE_NAMES: dict[type[BaseException], tuple[str, str]] = {
    **{getattr(errors, name): (CELERY, name) for name in _CELERY_NAMES},
    **{getattr(errors, name): (_KOMBU, name) for name in _KOMBU_NAMES},
    **{getattr(errors, name): (_BILLIARD, name) for name in _BILLIARD_NAMES},
}

_MAX_NAME_LENGTH = 255
#: stand-ins are kept so that one name stays one class; hostile names must not pile up
_MAX_STAND_INS = 1024
_stand_ins: dict[tuple[str, str], type[RemoteError]] = {}


def is_class_name(text: Any) -> bool:
    """Whether ``text`` may name a class or a module."""
    return isinstance(text, str) and 0 < len(text) <= _MAX_NAME_LENGTH and text.isprintable()


def stand_in(module: str, name: str) -> type[RemoteError]:
    """A subclass of ``RemoteError`` that is called ``name`` and travels on under ``module``."""
    key = (module, name)
    cls = _stand_ins.get(key)
    if cls is None:
        cls = type(name.rpartition(".")[2] or name, (RemoteError,), {"__module__": module, "__qualname__": name})
        if len(_stand_ins) < _MAX_STAND_INS:
            _stand_ins[key] = cls
    return cls


def unwrap_unpicklable(module: Any, name: Any, arguments: Any = (), text: Any = None) -> BaseException:
    """What Celery's pickled stand-in for an exception that could not be pickled means here."""
    if not (is_class_name(module) and is_class_name(name)):
        return RemoteError(text)
    return stand_in(module, name)(*arguments)
