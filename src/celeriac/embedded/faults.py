"""What SQLite says went wrong, in our words.

The one table from SQLite's result codes to the exceptions of ``errors``; everything that touches the file goes
through :func:`translated`.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from celeriac.errors import (
    BrokerFull,
    BrokerUnavailable,
    CeleriacError,
    ImproperlyConfigured,
    OperationalError,
    PublishRejected,
)

if TYPE_CHECKING:
    from pathlib import Path

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSED = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH})
#: errors that say nothing about the connection, which stays in use
_HARMLESS = _BUSY | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT}

#: the shared-memory index of a log begins with 32 KiB
_ROOM_TO_OPEN_BYTES = 64 << 10


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the Python module itself raised."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    return primary_code(error) in _BUSY


def is_full(error: sqlite3.Error, path: Path) -> bool:
    """Whether the disk is full. Opening then fails with other codes (no room for the shared-memory index)."""
    code = primary_code(error)
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code == sqlite3.SQLITE_FULL
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _ROOM_TO_OPEN_BYTES


def spoils_connection(error: sqlite3.Error) -> bool:
    """Whether the connection should be closed and made anew."""
    return primary_code(error) not in _HARMLESS


def translated(error: sqlite3.Error, path: Path) -> CeleriacError:
    """The exception of ours that says what ``error`` means for the file at ``path``."""
    code = primary_code(error)
    detail = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    if code in _BUSY:
        return locked(path)
    if code == sqlite3.SQLITE_FULL:
        return full(path)
    if code in _BROKEN:
        return ImproperlyConfigured(
            f"{path} is damaged or not a SQLite file ({detail}). Stop all workers, move it away together with its "
            f"-wal and -shm files, and save what can be saved with: sqlite3 {path} .recover"
        )
    if code in _REFUSED:
        return ImproperlyConfigured(
            f"{path} cannot be opened for writing ({detail}). Check the permissions of the file and its directory."
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return PublishRejected(f"A message is too large for {path} ({detail}). Store the data elsewhere, send a key.")
    return OperationalError(f"{path} could not be used ({detail}).")


def locked(path: Path) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{path} stayed locked by another process until the deadline. Look for a program that keeps a write "
        f"transaction open, or allow more time."
    )


def full(path: Path) -> BrokerFull:
    return BrokerFull(f"No space is left for {path}. Free disk space; workers go on with what is already queued.")
