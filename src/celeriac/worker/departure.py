"""What signals ask of a worker: to end warm or cold, or to begin again with the code of today.

Knows how far that has come, so that a second signal means more than the first. Belongs to the worker's loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

from celeriac.worker.logs import escape_lines
from celeriac.worker.reload import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.worker.assembly import Worker
    from celeriac.worker.restart import Restart

logger = logging.getLogger("celeriac.worker")


class Departure:
    """``restart``: None where the worker cannot begin again; a hang-up then means to end."""

    def __init__(self, worker: Worker, stop: asyncio.Event, restart: Restart | None, *, term_is_cold: bool) -> None:
        self._worker = worker
        self._stop = stop
        self._restart = restart
        self._term_is_cold = term_is_cold
        self._rehearsing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        #: asked for once more while the code was being tried: it may have changed since
        self._is_outdated = False

    def listen(self) -> None:
        """Take the signals from now on. Main thread."""
        loop = asyncio.get_running_loop()
        meanings: dict[str, Callable[[str], None]] = {
            "SIGTERM": self._cold if self._term_is_cold else self._warm, "SIGINT": self._warm, "SIGQUIT": self._cold,
            "SIGHUP": self._again if self._restart is not None and self._restart.on_hangup else self._warm,
        }  # fmt: skip
        for name, meaning in meanings.items():
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):  # nohup
                continue
            loop.add_signal_handler(number, meaning, name)

        if self._restart is not None and self._restart.on_change:
            self._watching = asyncio.create_task(Watch(self._on_change, self._restart.since).run())

    def close(self) -> None:
        for task in (self._rehearsing, self._watching):
            if task is not None:
                task.cancel()

    # ── what the signals mean ────────────────────────────────────────────────────────────────────────────────

    def _warm(self, name: str) -> None:
        worker = self._worker
        worker.note_signal(name)
        if worker.is_restarting:  # not again, then: but it is the first word to end
            worker.is_restarting = False
            if worker.pipeline is not None:
                worker.pipeline.shutdown.hasten()
        elif self._stop.is_set():
            worker.force()
        self._stop.set()

    def _cold(self, name: str) -> None:
        self._worker.note_signal(name)
        self._worker.is_restarting = False
        self._worker.force()
        self._stop.set()

    def _again(self, name: str) -> None:
        self.begin_again(f"told to by {name}")

    def _on_change(self, files: list[str]) -> None:
        names = ", ".join(map(os.path.basename, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        self.begin_again(f"{names} changed", patient=False)

    # ── beginning again ──────────────────────────────────────────────────────────────────────────────────────

    def begin_again(self, why: str, *, patient: bool = True) -> None:
        """End warm, and start anew with the code of today, if it loads.

        ``patient``: what runs is let end, however long that takes; else it has the grace of any other stop.
        """
        if self._stop.is_set():
            return
        if self._rehearsing is not None and not self._rehearsing.done():
            self._is_outdated = True
            return
        self._rehearsing = asyncio.create_task(self._rehearse(why, patient))

    async def _rehearse(self, why: str, patient: bool) -> None:
        worker, restart = self._worker, self._restart
        if restart is None:
            return
        while True:
            self._is_outdated = False
            trouble = await restart.rehearse()
            if not self._is_outdated:
                break
        if self._stop.is_set():
            return
        if trouble:
            logger.error(
                "%s: no restart (%s), since the code does not load; the worker goes on with what it has\n%s",
                worker.hostname, why, escape_lines(trouble),
            )  # fmt: skip
            return
        logger.warning("%s: restart (%s)", worker.hostname, why)
        worker.is_restarting = True
        if worker.pipeline is not None:
            worker.pipeline.shutdown.is_restart = patient
        self._stop.set()
