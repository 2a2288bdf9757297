"""Who of the consumers is alive: each locks a file of its own as long as it lives.

The kernel drops the lock with the process, however that ends, so a vanished consumer is seen at once, from any
container that shares the folder; its leases need not run out first. Where the lock file cannot be made, nothing is
listed and the leases decide.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from celeriac.embedded.doorbell import directory_for, leave_directory, make_private


class Life:
    """The lock file of one consumer, named by its first token."""

    def __init__(self, database: Path, first_token: int) -> None:
        self._path = lock_path(database, first_token)
        self._descriptor = -1

    def begin(self) -> bool:
        """Lock; False when that is not possible here."""
        if not make_private(self._path.parent):
            return False
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.end()
            return False
        return True

    def end(self) -> None:
        """Unlock and remove the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(descriptor)
            leave_directory(self._path.parent)


def lock_path(database: Path, first_token: int) -> Path:
    # "h" is no kind of bell, so ringing passes over these files
    return directory_for(database) / f"h-{first_token:x}"


def is_gone(database: Path, first_token: int) -> bool:
    """Whether the consumer of these tokens has certainly vanished.

    A missing file proves nothing (somebody may have tidied the folder): then the leases decide.
    """
    try:
        descriptor = os.open(lock_path(database, first_token), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
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


def remove(database: Path, first_token: int) -> None:
    """Remove the lock file of a consumer that is gone, once what it held is given back."""
    with contextlib.suppress(OSError):
        os.unlink(lock_path(database, first_token))
