"""The memory that a child and its parent both see: what runs, since when, and finished outcomes not yet sent.

The child writes, the parent reads. It survives the child, so that after a crash the parent knows exactly which
requests were started, and reads outcomes that were finished but still waiting to be sent.

Layout, in 8-byte words: the outbox state ``count << 32 | bytes``; then per slot the number of the request that runs
there (0: none) and its start (monotonic seconds); then the outbox: room for a frame head and items of outcomes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import NamedTuple

from celeriac.executors.children.pipes import BATCH_HEAD_BYTES

#: room for about 200 small outcomes; a batch has 64
OUTBOX_BYTES = 128 * 1024


class Running(NamedTuple):
    """What a slot is busy with."""

    number: int
    since: float  #: monotonic; the clock is the machine's, the same in all processes


class Slate:
    """One child's shared memory. ``fd`` travels to the child; both sides map it."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self._slots = slots
        self._memory = mmap.mmap(fd, size_of(slots))
        whole = memoryview(self._memory)
        words = whole[: 8 * (1 + 2 * slots)]
        self._words = words.cast("Q")
        self._times = words.cast("d")
        self._outbox = whole[8 * (1 + 2 * slots) :]
        self._whole = whole
        self._count = 0
        self._used = BATCH_HEAD_BYTES

    @classmethod
    def create(cls, slots: int) -> Slate:
        """A fresh one, all zero."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("celeriac-slate", os.MFD_CLOEXEC)
        else:
            fd, path = tempfile.mkstemp(prefix="celeriac-slate-")
            os.unlink(path)
        os.ftruncate(fd, size_of(slots))
        return cls(fd, slots)

    def close(self) -> None:
        for view in (self._words, self._times, self._outbox, self._whole):
            view.release()
        self._memory.close()
        os.close(self.fd)

    # ── the child's side ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, slot: int, number: int, now: float) -> None:
        """The slot enters user code for the request ``number``."""
        position = 1 + 2 * slot
        self._times[position + 1] = now
        self._words[position] = number

    def finish(self, slot: int) -> None:
        self._words[1 + 2 * slot] = 0

    def keep(self, item: bytes) -> bool:
        """Put an encoded outcome into the outbox; ``False``: no room."""
        used = self._used
        end = used + len(item)
        if end > OUTBOX_BYTES:
            return False
        self._outbox[used:end] = item
        self._used = end
        self._count += 1
        # One aligned 8-byte store: a kill between any two instructions leaves a readable state.
        self._words[0] = self._count << 32 | end
        return True

    @property
    def kept(self) -> int:
        """How many outcomes wait in the outbox."""
        return self._count

    def outbox(self) -> tuple[memoryview, int]:
        """The outbox up to its last item, the room for the frame's head in front; and how many items it has."""
        return self._outbox[: self._used], self._count

    def empty(self) -> None:
        """The outbox has been sent."""
        self._words[0] = 0
        self._count = 0
        self._used = BATCH_HEAD_BYTES

    # ── the parent's side ────────────────────────────────────────────────────────────────────────────────────

    def running(self) -> list[Running]:
        """The occupied slots. May contain a request that has just been finished."""
        words, times = self._words, self._times
        found = []
        for position in range(1, 1 + 2 * self._slots, 2):
            number = words[position]
            if number:
                found.append(Running(number, times[position + 1]))
        return found

    def leftover(self) -> tuple[bytes, int]:
        """After the child's death: the items that were not sent (or not marked as sent), and how many."""
        state = self._words[0]
        count, used = state >> 32, state & 0xFFFFFFFF
        if not count or not BATCH_HEAD_BYTES <= used <= OUTBOX_BYTES:
            return b"", 0
        return bytes(self._outbox[BATCH_HEAD_BYTES:used]), count


def size_of(slots: int) -> int:
    return 8 * (1 + 2 * slots) + OUTBOX_BYTES
