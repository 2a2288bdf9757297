"""The processes of a run: workers and helpers that the laboratory starts, watches and kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def children_of(pid: int) -> list[int]:
    """Pids of every process below this one."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                kids = [int(word) for word in (task / "children").read_text().split()]
                found += kids
                queue += kids
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def peak_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def figures_of(pid: int) -> dict[str, float]:
    """What a process holds of what can leak; nothing of one that is gone."""
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        fds, threads = sum(1 for _ in (folder / "fd").iterdir()), sum(1 for _ in (folder / "task").iterdir())
        return {"rss_kib": resident_kib(pid), "fds": fds, "threads": threads}
    return {}


class Helper:
    """A process with a log file, in a session of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self._command = list(command)
        self._environment = {**environment, "LAB_PROC": name}
        self._folder = folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} has not been started"
        return self.process.pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll() if self.process is not None else None

    def wait(self, timeout: float) -> int | None:
        """The exit status, or None when it has not ended in time."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout)
        return None

    def words(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Everything of its session, at once."""
        if self.process is not None:
            family = children_of(self.process.pid)
            for pid in (self.process.pid, *family):
                for kill in (os.killpg, os.kill):
                    with contextlib.suppress(OSError):
                        kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)


class Worker(Helper):
    """A worker; ``again`` starts another one under its name."""

    def children(self) -> list[int]:
        return children_of(self.pid)

    def started(self) -> int:
        """How often a worker of this name has reported for work."""
        return self.words().count(f"{self.name}@lab ready")

    def kill(self) -> list[int]:
        """``kill -9`` of the parent alone; the pids that should be gone by that."""
        family = [self.pid, *self.children()]
        os.kill(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)
        return family

    def stop(self, timeout: float) -> int | None:
        """Warm; the exit status, None when it did not end in time."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)


def until(condition: Callable[[], object], timeout: float, pause: float = 0.02) -> bool:
    """Wait for an effect of other processes; whether it came in time."""
    ends = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(pause)
    return True
