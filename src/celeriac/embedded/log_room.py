"""Makes room in the write-ahead log before it is needed.

A commit that makes the log file longer costs the file system an entry in its own journal besides the data: twice the
time and twice the CPU of a commit that overwrites what is there (ext4, one small commit: 270 µs against 120 µs;
``benchmarks/run.py``, delay one at a time). SQLite overwrites the log only after its first checkpoint, so whoever
commits often lengthens it up to that size with zeros, which SQLite takes for the end of the log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

#: commits of one connection between two steps: who sends a few messages and ends does not pay for it
_COMMITS = 48
_STEP_BYTES = 4 << 20
#: free bytes of the disk wanted beyond a step
_COMFORT_BYTES = 64 << 20


class LogRoom:
    """Counts the commits of one connection; one thread at a time."""

    def __init__(self, goal_bytes: int) -> None:
        self._goal = goal_bytes
        self._left = _COMMITS

    def committed(self, connection: sqlite3.Connection, database: str) -> None:
        """After a commit: perhaps make the log longer. Never fails."""
        self._left -= 1
        if self._left:
            return
        self._left = _COMMITS
        name = f"{database}-wal"
        try:
            if os.stat(name).st_size >= self._goal or not _is_roomy(database):
                return
            connection.execute("BEGIN IMMEDIATE")  # nobody else may write to the log meanwhile
        except (OSError, sqlite3.Error):
            return
        try:
            with contextlib.suppress(OSError):
                _lengthen(name, self._goal)
        finally:
            connection.execute("ROLLBACK")


def _is_roomy(database: str) -> bool:
    space = os.statvfs(os.path.dirname(database))
    return space.f_bavail * space.f_frsize > _STEP_BYTES + _COMFORT_BYTES


def _lengthen(name: str, goal: int) -> None:
    # SQLite keeps no locks on the log itself, so closing a descriptor of it drops none
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        try:
            os.pwrite(descriptor, bytes(max(0, min(_STEP_BYTES, goal - size))), size)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
