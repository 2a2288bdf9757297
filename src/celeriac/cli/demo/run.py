"""A run of the demo that survives being interrupted: which files, and how many of them are already in the queue.

Kept in a small file next to the queue. A folder has at most one unfinished run; a task's id follows from the run and
the file, so that running again finds the results that are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from pathlib import Path
from typing import IO

import msgspec

#: parts of a path that hold other people's packages or no source
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", ".git", ".venv", "node_modules"}


class DemoRun(msgspec.Struct, kw_only=True):
    """What was asked for and how far the sending got."""

    id: str
    folder: str
    files: list[str]
    started: float  #: seconds since the epoch
    sent: int = 0  #: how many of ``files``, in their order, the broker has accepted

    @property
    def queue(self) -> str:
        return f"demo-{folder_key(Path(self.folder))}"

    def task_id(self, file: str) -> str:
        return str(uuid.uuid5(uuid.UUID(self.id), file))

    def task_ids(self) -> dict[str, str]:
        """Task id → file, in the order of sending."""
        return {self.task_id(file): file for file in self.files}


def folder_key(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:10]


def python_files(folder: Path) -> list[str]:
    """Every ``.py`` file below ``folder`` whose name can travel, without those of installed packages."""
    found: list[str] = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        found.extend(os.path.join(top, name) for name in sorted(names) if name.endswith(".py"))
    return [path for path in found if path.isprintable() and os.path.isfile(path)]


class RunBook:
    """Keeps the unfinished run of one folder; holds a lock, so that two demos do not share a run."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.path = home / f"demo-{folder_key(folder)}.json"
        self._folder = folder
        self._lock: IO[bytes] | None = None

    def open(self) -> DemoRun | None:
        """Take the lock and return the unfinished run, if there is one. Raises ``BlockingIOError`` when taken."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self.path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise
        self._lock = lock
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=DemoRun)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def begin(self, now: float) -> DemoRun:
        run = DemoRun(id=str(uuid.uuid4()), folder=str(self._folder), files=python_files(self._folder), started=now)
        self.save(run)
        return run

    def save(self, run: DemoRun) -> None:
        """Replace the file as a whole: a reader sees the old run or the new one."""
        draft = self.path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(run))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)

    def finish(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
