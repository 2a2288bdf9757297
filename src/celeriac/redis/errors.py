"""What went wrong with Redis, in celeriac's terms: one table, and a context manager for each side that uses it.

No exception of redis-py, of hiredis or of the socket leaves a driver. Whether trying again makes sense is told by the
class: not for :class:`~celeriac.errors.ImproperlyConfigured`, which names the setting to look at.
"""

from __future__ import annotations

import ssl
from enum import Enum
from typing import TYPE_CHECKING, Literal

import hiredis
from redis import exceptions as vendor

from celeriac.errors import (
    BackendError,
    BackendStoreError,
    BrokerFull,
    BrokerUnavailable,
    CeleriacError,
    ImproperlyConfigured,
    OperationalError,
)

if TYPE_CHECKING:
    from types import TracebackType


class Fault(Enum):
    """Kinds of trouble, by what can be done about them."""

    UNREACHABLE = "cannot be reached"
    SLOW = "did not answer in time"
    STANDBY = "cannot serve now"  #: loading, a replica, a cluster that is rearranging itself
    FULL = "has no room left"
    REFUSED = "refuses these credentials or commands"
    MISPLACED = "is not what the URL says"  #: no such database, no TLS, another protocol
    NO_SCRIPT = "has forgotten a script"  #: callers load it again; nobody else should meet this
    OTHER = "reports an error"


#: the first word of an error reply → what it means
CODES: dict[str, Fault] = {
    "READONLY": Fault.STANDBY,
    "LOADING": Fault.STANDBY,
    "MASTERDOWN": Fault.STANDBY,
    "TRYAGAIN": Fault.STANDBY,
    "CLUSTERDOWN": Fault.STANDBY,
    "MOVED": Fault.STANDBY,
    "ASK": Fault.STANDBY,
    "NOREPLICAS": Fault.STANDBY,
    "UNBLOCKED": Fault.STANDBY,
    "BUSY": Fault.STANDBY,
    "OOM": Fault.FULL,
    "MISCONF": Fault.FULL,
    "NOAUTH": Fault.REFUSED,
    "WRONGPASS": Fault.REFUSED,
    "NOPERM": Fault.REFUSED,
    "DENIED": Fault.REFUSED,
    "CROSSSLOT": Fault.MISPLACED,
    "NOPROTO": Fault.MISPLACED,
    "NOSCRIPT": Fault.NO_SCRIPT,
}

#: words in error replies that have no code of their own (``ERR …``)
PHRASES: tuple[tuple[str, Fault], ...] = (
    # scripts of servers before 7.0 wrap the reply of the command that failed
    ("-READONLY ", Fault.STANDBY),
    ("-OOM ", Fault.FULL),
    ("-MISCONF ", Fault.FULL),
    ("max number of clients reached", Fault.UNREACHABLE),
    ("without any password configured", Fault.REFUSED),
    ("invalid password", Fault.REFUSED),
    ("invalid username-password pair", Fault.REFUSED),
    ("DB index is out of range", Fault.MISPLACED),
    ("invalid DB index", Fault.MISPLACED),
    ("SELECT is not allowed in cluster mode", Fault.MISPLACED),
    ("cluster support disabled", Fault.MISPLACED),
)

#: exceptions of redis-py, which drops the code from their text; the first that fits
CLASSES: tuple[tuple[type[BaseException], Fault], ...] = (
    (vendor.AuthenticationError, Fault.REFUSED),
    (vendor.NoPermissionError, Fault.REFUSED),
    (vendor.BusyLoadingError, Fault.STANDBY),
    (vendor.ReadOnlyError, Fault.STANDBY),
    (vendor.ClusterDownError, Fault.STANDBY),  # MasterDownError too
    (vendor.TryAgainError, Fault.STANDBY),
    (vendor.AskError, Fault.STANDBY),  # MovedError too
    (vendor.OutOfMemoryError, Fault.FULL),
    (vendor.NoScriptError, Fault.NO_SCRIPT),
    (vendor.InvalidResponse, Fault.MISPLACED),
    (hiredis.ProtocolError, Fault.MISPLACED),
    (vendor.TimeoutError, Fault.SLOW),
    (TimeoutError, Fault.SLOW),
    (ssl.SSLError, Fault.MISPLACED),
    (vendor.ConnectionError, Fault.UNREACHABLE),
    (OSError, Fault.UNREACHABLE),
)

#: what drivers catch: everything that redis-py, hiredis and sockets raise
VENDOR_ERRORS = (vendor.RedisError, hiredis.HiredisError, OSError)


class ReplyError(vendor.ResponseError):
    """An error reply, its code included. The server is well and the command was not executed."""


class LinkBroken(vendor.ConnectionError):
    """The connection is of no more use. ``sent``: the server may have executed what was asked of it."""

    def __init__(self, text: str, fault: Fault, *, sent: bool) -> None:
        super().__init__(text)
        self.fault = fault
        self.sent = sent


def fault_of(error: BaseException) -> Fault:
    """The row of the table that ``error`` belongs to."""
    if isinstance(error, LinkBroken):
        return error.fault
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLError) and not isinstance(inner, TimeoutError):
        # a connection that ends within TLS may be a server that goes down
        return Fault.UNREACHABLE if isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError) else Fault.MISPLACED
    if isinstance(error, vendor.RedisError) and (named := _named(str(error))) is not None:
        return named
    for kind, fault in CLASSES:
        if isinstance(error, kind):
            return fault
    return Fault.OTHER


def _innermost(error: BaseException) -> BaseException:
    """What the socket raised, which redis-py wraps while it connects; else the error itself."""
    found: BaseException | None = error
    for _ in range(5):
        if found is None or isinstance(found, OSError):
            break
        found = found.__cause__ or found.__context__
    return found if isinstance(found, OSError) and isinstance(error, vendor.ConnectionError | OSError) else error


def _named(text: str) -> Fault | None:
    code, _, rest = text.partition(" ")
    if code in CODES:
        return CODES[code]
    return next((fault for phrase, fault in PHRASES if phrase in rest or phrase in text), None)


def describe(error: BaseException) -> str:
    """What happened, in the server's or the system's own words."""
    inner = error if isinstance(error, LinkBroken) else _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {getattr(inner, 'verify_message', inner)}"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__


_ADVICE = {
    Fault.REFUSED: "Check the user name, the password and the user's rules (ACL).",
    Fault.MISPLACED: "Check scheme, port and database number, and for TLS the certificate options (ssl_ca_certs).",
}

_SIDES: dict[str, tuple[type[CeleriacError], type[CeleriacError], type[CeleriacError]]] = {
    # passing trouble, no room, anything else
    "broker": (BrokerUnavailable, BrokerFull, OperationalError),
    "reading": (BackendError, BackendError, BackendError),
    "writing": (BackendStoreError, BackendStoreError, BackendStoreError),
}


class Translating:
    """``with translating: …`` turns what redis-py raises into errors of one side. Reusable and thread-safe.

    ``setting``: the setting that holds the URL, ``shown``: the URL without its secrets.
    """

    __slots__ = ("_classes", "_place")

    def __init__(self, side: Literal["broker", "reading", "writing"], setting: str, shown: str) -> None:
        self._classes = _SIDES[side]
        self._place = f"Redis at {shown} ({setting})"

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, VENDOR_ERRORS) and not isinstance(error, CeleriacError):
            raise self.translated(error) from error

    def translated(self, error: BaseException) -> CeleriacError:
        fault = fault_of(error)
        text = f"{self._place} {fault.value}: {describe(error)}"
        if fault in _ADVICE:
            return ImproperlyConfigured(f"{text.rstrip('.')}. {_ADVICE[fault]}")
        passing, full, other = self._classes
        if fault is Fault.FULL:
            return full(text)
        return (other if fault in (Fault.OTHER, Fault.NO_SCRIPT) else passing)(text)
