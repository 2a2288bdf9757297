"""Single keys from a terminal, without waiting for Enter."""

from __future__ import annotations

import os
import select
import sys
from types import TracebackType
from typing import Any

#: what terminals send for the keys that have no character
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[5~": "page up",
    b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1b[F": "end", b"\x1b": "escape", b"\r": "enter", b"\n": "enter",
    b"\x03": "q", b"\x7f": "backspace",
}  # fmt: skip


class Keyboard:
    """While it is entered, the terminal hands over every key at once and shows none. Without a terminal it is mute."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: Any = None
        self._typed = b""  #: read and not handed out

    def __enter__(self) -> Keyboard:
        try:
            import termios
            import tty

            fd = sys.stdin.fileno()
            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd)
            self._fd = fd
        except Exception:  # no terminal, or none that can do this (termios.error is no OSError)
            self._fd = -1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._fd = -1

    def key(self, wait: float) -> str | None:
        """The next key within ``wait`` seconds: a character, or a name such as ``up``."""
        if self._typed:
            return self._next()
        if self._fd < 0:
            select.select([], [], [], wait)
            return None
        ready, _, _ = select.select([self._fd], [], [], wait)
        if not ready:
            return None
        self._typed = os.read(self._fd, 256)
        return self._next() if self._typed else "q"  # the terminal is gone

    def _next(self) -> str | None:
        """The first key of what was typed."""
        for sequence, name in _SEQUENCES.items():
            if self._typed.startswith(sequence):
                self._typed = self._typed[len(sequence) :]
                return name
        first, self._typed = self._typed[:1], self._typed[1:]
        return first.decode("ascii", "ignore") or None
