"""What a process writes, read as it comes, for tests that wait for a line of it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

_END = "<end of output>"


class ProcessLog:
    """The lines of a process's standard output, from a thread that reads them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self._add(line.rstrip("\n"))
        self._add(_END)

    def _add(self, line: str) -> None:
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def wait_for(self, text: str, timeout: float, start: int = 0, who: str = "") -> str:
        """The first line with ``text``, from line ``start`` on, waiting for it; fails with the log, and ``who``."""
        ends = time.monotonic() + timeout
        with self._news:
            while True:
                for line in self.lines[start:]:
                    if text in line:
                        return line
                start = len(self.lines)
                left = ends - time.monotonic()
                if left <= 0 or _END in self.lines:
                    log = "\n".join(line[:300] for line in self.lines[-200:])
                    pytest.fail(f"{who}{text!r} did not appear within {timeout} s:\n{log}")
                self._news.wait(left)

    def join(self, timeout: float) -> None:
        """Until everything has been read."""
        self._reader.join(timeout)

    def all_of_it(self) -> list[str]:
        """The lines; of a process that has ended, also those that the thread has yet to read."""
        if self.process.poll() is not None:
            self.join(10)
        return self.lines
