"""Who of the consumers is alive: each locks a file of its own as long as it lives.

The kernel drops the lock with the process, however that ends, so a vanished consumer is seen at once, from any
container that shares the folder; its leases need not run out first. Where the lock file cannot be made, nothing is
listed and the leases decide.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.embedded import messages
from celeriac.embedded.doorbell import directory_for, leave_directory, make_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.embedded.file import Link
    from celeriac.embedded.messages import Receipt


class Life:
    """One consumer, as the others see it: its range of tokens, and the file that it locks."""

    def __init__(self, database: Path, first_token: int, last_token: int) -> None:
        self._path = lock_path(database, first_token)
        self._first = first_token
        self._last = last_token
        self._descriptor = -1
        _lives.add(self)

    def begin(self, link: Link) -> None:
        """Lock, and enter the list; leave it at that where locking is not possible."""
        if self._lock():
            messages.arrive(link, self._first, self._last)

    def check(self, link: Link, listed: bool) -> None:
        """Begin anew when somebody has tidied our file away, or has put another database in the place of ours."""
        if self._descriptor < 0 or (listed and self._is_there()):
            return
        self._unlock()
        self.begin(link)

    def leave(self, link: Link, kept: Sequence[Receipt] = ()) -> bool:
        """Give back what is held, but for ``kept``; True when that was all, and this life is over."""
        messages.leave(link, self._first, self._last, kept)
        if kept and messages.holds_any(link, self._first, self._last):
            return False
        if self._descriptor >= 0 and self._is_there():
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._unlock()
        leave_directory(self._path.parent)
        return True

    def abandon(self) -> None:
        """Unlock only: what could not be given back is taken by whoever finds that nobody lives here."""
        self._unlock()

    def _lock(self) -> bool:
        if not make_private(self._path.parent):
            return False
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            return False
        return True

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def _unlock(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def inherited(self) -> None:
        """In a forked child, which must not keep the lock alive longer than its parent does."""
        self._unlock()


def lock_path(database: Path, first_token: int) -> Path:
    # "h" is no kind of bell, so ringing passes over these files
    return directory_for(database) / f"h-{first_token:x}"


def is_gone(database: Path, first_token: int) -> bool | None:
    """Whether the consumer of these tokens has certainly vanished.

    None: there is no file, which proves nothing (somebody may have tidied the folder); then the leases decide.
    """
    try:
        descriptor = os.open(lock_path(database, first_token), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def recover(link: Link, database: Path, mine: Life) -> bool:
    """Give back what vanished consumers held; whether there was one. Looks after one's own entry as well."""
    found = False
    listed = False
    for first, last in messages.holders(link):
        if first == mine._first:
            listed = True
            continue
        gone = is_gone(database, first)
        if gone:
            messages.forsake(link, first, last)
            with contextlib.suppress(OSError):
                os.unlink(lock_path(database, first))
            found = True
        elif gone is None and not messages.holds_any(link, first, last):
            messages.leave(link, first, last)  # strikes it from the list, which would grow for ever
    mine.check(link, listed)
    return found


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for life in list(_lives):
        life.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
