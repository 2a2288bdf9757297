"""Processes that a measurement starts: their CPU time from /proc, their last words, and their certain end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")


def family_of(roots: Iterable[int]) -> set[int]:
    """The processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def cpu_seconds(pids: Iterable[int], *, main_thread: bool = False) -> float:
    """User and system time of the processes, or of their main threads alone; ended ones count as nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/task/{pid}/stat" if main_thread else f"/proc/{pid}/stat")
            fields = stat.read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory figure for process {pid}")


@dataclass
class Workers:
    """The worker processes of one product, as many as its configuration starts."""

    processes: list[subprocess.Popen[bytes]]
    words: Path

    @property
    def roots(self) -> list[int]:
        return [process.pid for process in self.processes]

    def check(self) -> None:
        """Raises ``RuntimeError`` with what it printed, if one has ended."""
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError(f"the worker ended with {process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        return self.words.read_text("utf-8", errors="replace")[-1500:].strip()

    def end(self) -> None:
        """At once: what they held is thrown away with the broker's data."""
        for pid in family_of(self.roots):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(10)


@contextlib.contextmanager
def workers(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path, directory: Path
) -> Iterator[Workers]:
    """Start them all; end them whatever happens. What they print goes to a file: a full pipe would stop them."""
    words = folder / f"words-{time.monotonic_ns()}"
    started = Workers([], words)
    try:
        with words.open("wb") as output:
            for command in commands:
                process = subprocess.Popen(
                    command, env=dict(environment), cwd=directory, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=output, start_new_session=True,
                )  # fmt: skip
                started.processes.append(process)
        yield started
    finally:
        started.end()
