"""How this process was started, and what starts another one like it: for restarts, and for going to the background."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from celeriac.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from types import FrameType

    from celeriac.worker.restart import Restart

#: set for the process that a detaching one starts, and for what it becomes later
DETACHED = "CELERIAC_DETACHED"
#: what the option ``--load-only`` is called in the environment
REHEARSAL = {"CELERIAC_WORKER_LOAD_ONLY": "1"}


class Origin(msgspec.Struct, frozen=True):
    """Where and how this process was called."""

    folder: str
    command: tuple[str, ...]
    since: float  #: seconds since the epoch

    @classmethod
    def of_this_process(cls) -> Origin:
        """To be asked before anybody changes the working directory."""
        return cls(_folder(), (sys.executable, *sys.orig_argv[1:]), SYSTEM_CLOCK.time())

    def as_restart(self, is_detached: bool, *, on_hangup: bool, on_change: bool) -> Restart:
        from celeriac.worker.restart import Restart

        return Restart(
            command=self.command, folder=self.folder, rehearsal=REHEARSAL,
            environment={DETACHED: "1"} if is_detached else {}, on_hangup=on_hangup, on_change=on_change,
            since=self.since,
        )  # fmt: skip


def _folder() -> str:
    """The working directory under the name that it was entered by: a link may lead to another release by now."""
    here = os.getcwd()
    entered = os.environ.get("PWD", "")
    try:
        return entered if os.path.isabs(entered) and os.path.samefile(entered, here) else here
    except OSError:
        return here


def pop_marker(name: str) -> bool:
    """Whether this process has the marker; those that it starts shall not."""
    return os.environ.pop(name, "") != ""


class EarlyHangup:
    """Notes a hang-up that comes while the app is being loaded, instead of dying of it."""

    def __init__(self) -> None:
        self.has_come = False
        #: whoever starts us may have asked that hang-ups are ignored (nohup); on a terminal one means its end
        self.means_restart = (
            hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and not _on_terminal()
        )
        if self.means_restart:
            signal.signal(signal.SIGHUP, self._note)
        if hasattr(signal, "SIGHUP"):
            # blocked by the process that has become this one
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True


def _on_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
