"""``--reload``: looks whether files of the app have changed. For development; a look costs about a millisecond."""

from __future__ import annotations

import asyncio
import os
import site
import sys
import sysconfig
import time
from typing import TYPE_CHECKING

from celeriac.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: seconds between two looks
_LOOK = 0.4
#: seconds in which nothing more may change until the change counts: an editor may save several files
_CALM = 0.2
#: files of one folder that are looked at, beyond those that are imported
_MOST = 500

#: path → what changes when the file does
Snapshot = dict[str, tuple[int, int]]


def snapshot(folders: Iterable[str] = ()) -> Snapshot:
    """The files of all imported modules that are not installed ones, and those beside them or in ``folders``."""
    imported = [name for module in list(sys.modules.values()) if (name := getattr(module, "__file__", None))]
    files = {os.path.abspath(name) for name in imported if name.endswith(".py") and not _is_installed(name)}
    for folder in {*folders, *(os.path.dirname(file) for file in files)}:
        files.update(_beside(folder))
    found: Snapshot = {}
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        found[file] = (status.st_mtime_ns, status.st_size)
    return found


def changed(before: Snapshot, now: Snapshot) -> list[str]:
    """What is different, and was not just imported late."""
    gone = [file for file in before if file not in now]
    return [file for file in now if before.get(file) != now[file]] + gone


def _beside(folder: str) -> list[str]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".py") and not name.startswith((".", "#"))]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names[:_MOST]]


_INSTALLED = tuple(
    os.path.join(os.path.abspath(path), "")
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(), site.getusersitepackages(),
    }
)  # fmt: skip


def _is_installed(file: str) -> bool:
    return os.path.abspath(file).startswith(_INSTALLED)


class Watch:
    """Calls back with the names of files that have changed."""

    def __init__(self, on_change: Callable[[list[str]], None], since: float) -> None:
        """``since``: when loading began, in seconds since the epoch. What was saved meanwhile has changed, too."""
        self._on_change = on_change
        self._before = baseline(since)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            now = self._look()
            if not changed(self._before, now):
                continue
            while True:
                await asyncio.sleep(_CALM)
                later = self._look()
                if later == now:
                    break
                now = later
            different, self._before = changed(self._before, now), now
            self._on_change(different)

    def _look(self) -> Snapshot:
        now = snapshot()
        for file in now.keys() - self._before.keys():
            if _is_imported_late(file, now[file]):
                self._before[file] = now[file]
        return now


def _is_imported_late(file: str, facts: tuple[int, int]) -> bool:
    """A file that is older than our last look was there before, and only nobody had imported it."""
    return facts[0] < (SYSTEM_CLOCK.time() - 2 * _LOOK) * 1e9


def baseline(since: float, folders: Iterable[str] = ()) -> Snapshot:
    """What there is now; what has changed since then is bound to be found different."""
    return {
        file: facts if facts[0] < since * 1e9 else (0, 0) for file, facts in snapshot(folders).items()
    }  # fmt: skip


def wait_for_change(before: Snapshot, folders: Iterable[str]) -> list[str]:
    """Block until a file is not as it was; which are."""
    chosen = list(folders)
    while True:
        found = changed(before, snapshot(chosen))
        time.sleep(_CALM if found else _LOOK)
        if found:
            return found
