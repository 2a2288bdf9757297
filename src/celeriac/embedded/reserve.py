"""A mebibyte set aside beside the embedded file, for the day the disk is full.

When SQLite reports a full disk while a worker acknowledges or stores a result, the reserve is given up so that work
already queued can still be finished; until it is back, nothing new is accepted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20
#: free bytes wanted before the reserve is taken again, so that it does not flap on a nearly full disk
_COMFORT = 4 * SIZE


class Reserve:
    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-reserve")
        self._name = os.fspath(self.path)

    def restore(self) -> bool:
        """Make sure that the reserve is there; False when the disk has no room for it."""
        if os.path.exists(self._name):
            return True
        try:
            space = os.statvfs(self.path.parent)
            if space.f_bavail * space.f_frsize < _COMFORT:
                return False
            return self._allocate()
        except OSError:
            return False

    def _allocate(self) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._name, flags, 0o600)
        except FileExistsError:
            return True
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, SIZE)
            else:
                os.write(descriptor, bytes(SIZE))
        except OSError:
            self.give_up()
            return False
        finally:
            os.close(descriptor)
        return True

    def give_up(self) -> bool:
        """Free the space; False when it was already gone."""
        try:
            os.unlink(self._name)
        except OSError:
            return False
        return True
