"""The worker of the demo: another process, started with the command that users type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

#: seconds a worker gets to end by itself before it is killed
GRACE = 20.0


class WorkerProcess:
    """Starts ``celeriac -A celeriac.cli.demo.tasks worker`` and never leaves it behind.

    It runs in a session of its own, so that Ctrl-C reaches the demo alone, which then ends it in order.
    """

    def __init__(self, queue: str, concurrency: int | None, log: Path) -> None:
        self.log = log
        self.command = [
            sys.executable, "-m", "celeriac", "-A", "celeriac.cli.demo.tasks",
            "worker", "-Q", queue, "-l", "WARNING", "-n", "demo@%h",
        ]  # fmt: skip
        if concurrency:
            self.command += ["-c", str(concurrency)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ended(self) -> int | None:
        """Its exit status, or ``None`` while it runs."""
        return self._process.poll() if self._process else None

    def stop(self) -> None:
        """Ask it to end, wait, and kill what is left of it after ``GRACE``. Idempotent."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # too slow, or asked a second time
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=GRACE)

    def last_words(self, count: int = 5) -> list[str]:
        """The last lines of its log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        except OSError:
            return []
