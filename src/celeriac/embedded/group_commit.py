"""Publishing from many threads at once: whoever gets the connection commits for all who wait.

A commit costs a disk sync however many messages it holds, so threads that would queue up share one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from celeriac.embedded.messages import send
from celeriac.errors import BrokerUnavailable, PublishTimeout, PublishUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.embedded.file import Link
    from celeriac.embedded.messages import Row

#: rows that one commit gathers from several threads; a larger batch of one thread still goes in one transaction
_GATHERED_ROWS = 1024


class _Entry:
    __slots__ = ("alone", "error", "rows", "state")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.alone = False  #: not to share a commit again: one that it was part of failed
        self.state = "waiting"  # → taken → done
        self.error: BaseException | None = None


class GroupCommit:
    """Sends rows over one link. Thread-safe, fork-safe."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[_Entry] = deque()
        self._turn = threading.Lock()
        self._list = threading.Lock()

    def send(self, rows: Sequence[Row], patience: float) -> None:
        """Returns when ``rows`` are on disk. Raises as :meth:`Link.write`, or ``PublishTimeout``."""
        if self._pid != os.getpid():  # the entries are those of the parent's threads
            self._reset()
        ends = time.monotonic() + patience
        if self._turn.acquire(blocking=False):  # nobody else is sending
            try:
                send(self._link, rows, patience)
            finally:
                self._turn.release()
            return
        entry = _Entry(rows)
        with self._list:
            self._waiting.append(entry)
        if not self._turn.acquire(timeout=max(0.0, patience)):
            self._give_up(entry)
            return
        try:
            if entry.state != "done":
                self._send_all(self._take(entry), ends)
        finally:
            self._turn.release()
        if entry.error is not None:
            raise entry.error

    def _take(self, mine: _Entry) -> list[_Entry]:
        taken = [mine]
        count = len(mine.rows)
        with self._list:
            self._waiting.remove(mine)
            if not mine.alone:
                for entry in list(self._waiting):
                    if not entry.alone and count + len(entry.rows) <= _GATHERED_ROWS:
                        count += len(entry.rows)
                        taken.append(entry)
                        self._waiting.remove(entry)
            for entry in taken:
                entry.state = "taken"
        return taken

    def _send_all(self, taken: list[_Entry], ends: float) -> None:
        mine, others = taken[0], taken[1:]
        try:
            send(self._link, [row for entry in taken for row in entry.rows], ends - time.monotonic())
        except PublishUnknown as error:
            _end(taken, error)
        except Exception as error:
            # whose fault it was is not known: the others try by themselves, within deadlines of their own
            with self._list:
                for entry in others:
                    entry.state, entry.alone = "waiting", True
                    self._waiting.append(entry)
            if others and time.monotonic() < ends:
                self._send_all([mine], ends)
            else:
                _end([mine], error)
        except BaseException:  # Ctrl-C may have come just after the commit
            _end(others, PublishUnknown("The thread that was committing this message was interrupted."))
            raise
        else:
            _end(taken, None)

    def _give_up(self, entry: _Entry) -> None:
        with self._list:
            if entry.state == "waiting":
                self._waiting.remove(entry)
                raise BrokerUnavailable("The embedded file stayed busy until the deadline; the message was not stored.")
        if entry.state == "taken":
            raise PublishTimeout("The deadline passed while the message was being committed; it may be stored.")
        if entry.error is not None:
            raise entry.error


def _end(entries: Sequence[_Entry], error: BaseException | None) -> None:
    for entry in entries:
        entry.error = error
        entry.state = "done"
