"""The child's desk: requests come in, outcomes go out, orders from the parent are heeded while user code runs.

The crew takes requests and hands in outcomes; the desk keeps the slate, decides when a batch of outcomes is sent, and
gives unstarted requests back when the parent recalls them. The courier, a thread that sleeps on the bell, does what
cannot wait until the crew has time. Both use the system's own locks, threads and sockets, whatever a prelude replaces.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Protocol

from celeriac.clock import SYSTEM_CLOCK, Clock
from celeriac.executors.base import Failed
from celeriac.executors.children import natives, pipes
from celeriac.executors.children.pipes import ORDER_BYTES, FrameBuffer, Item, Kind
from celeriac.wire.safe_repr import safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.executors.base import Outcome
    from celeriac.executors.children.slate import Slate
    from celeriac.executors.time_limits import Cause

#: outcomes per batch; half of what the parent gives ahead, so that it can refill while the other half runs
FLUSH_COUNT = 64
#: seconds that a finished outcome may wait for company
FLUSH_AGE = 0.002

_READ_BYTES = 1 << 18
_READABLE = 1  # POLLIN; a prelude may leave no select.POLLIN


class Crew(Protocol):
    """What runs a child's share of the requests."""

    def run(self) -> None:
        """Work until the desk says to leave. Main thread."""
        ...

    def accept(self, items: Sequence[Item]) -> None:
        """Requests have come. Called by whoever reads, under the desk's reading lock."""
        ...

    def take_back(self) -> list[int]:
        """Give up everything that is not started; the numbers. Any thread."""
        ...

    def has_more(self) -> bool:
        """Whether requests wait in the inbox, so that another outcome is sure to follow. Any thread."""
        ...

    def interrupt(self, number: int, cause: Cause) -> None:
        """Raise in the request ``number`` if it runs. Any thread."""
        ...


class ParentGone(Exception):
    """The other end of the socket is closed: nobody wants what this process does."""


class Desk:
    """Where one child meets its parent. Thread-safe."""

    def __init__(
        self, data: natives.NativeSocket, bell: natives.NativeSocket, slate: Slate, clock: Clock = SYSTEM_CLOCK,
        max_memory_kib: int | None = None,
    ) -> None:  # fmt: skip
        self._data = data
        self.stay_blocking()
        self._bell = bell
        self._slate = slate
        self._monotonic = clock.monotonic
        self._max_memory_kib = max_memory_kib
        self._frames = FrameBuffer()
        self._room = memoryview(bytearray(_READ_BYTES))
        self._poll = natives.poll()
        self._poll.register(data.fileno(), _READABLE)
        self._reading = natives.allocate_lock()
        self._writing = natives.allocate_lock()
        self._oldest = 0.0
        self._crew: Crew | None = None
        #: the crew is to finish what it has and return from ``run``
        self.leaving = False

    @property
    def fileno(self) -> int:
        return self._data.fileno()

    def stay_blocking(self) -> None:
        """Writing waits for room; reading never does."""
        self._data.setblocking(True)

    def attach(self, crew: Crew) -> None:
        """The crew is ready: tell the parent, and start the courier."""
        self._crew = crew
        natives.start_new_thread(self._courier, ())
        self.send(Kind.READY, os.getpid())

    def send(self, kind: Kind, payload: object) -> None:
        with self._writing:
            self._write(pipes.frame(kind, payload))

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self) -> None:
        """Block until there is something to :meth:`read`, then read it."""
        self._poll.poll()
        self.read()

    def read(self) -> None:
        """Hand what has arrived to the crew; does not block. Raises ``ParentGone``."""
        crew = self._crew
        assert crew is not None
        with self._reading:
            try:
                count = self._data.recv_into(self._room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:  # the courier was faster
                return
            except OSError:
                count = 0
            if count == 0:
                raise ParentGone
            for kind, payload in self._frames.feed(self._room[:count]):
                if kind == Kind.GIVE:
                    crew.accept(pipes.decode_requests(payload))
                elif kind == Kind.LEAVE:
                    self.leaving = True

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, slot: int, number: int) -> None:
        """The slot is about to run this request."""
        self._slate.start(slot, number, self._monotonic())

    def hand_in(self, slot: int, number: int, outcome: Outcome) -> None:
        """The request has ended. Its outcome may wait for company while the crew has more at hand."""
        crew = self._crew
        assert crew is not None
        try:
            item = pipes.encode_outcome(number, outcome)
        except Exception as error:  # follow-up messages with headers that are not plain data
            item = pipes.encode_outcome(number, _unsendable(outcome, error))
        if self._max_memory_kib is not None and not self.leaving:
            # Before the outcome is sent, since that makes the parent give the next request.
            self._check_memory(self._max_memory_kib)
        slate = self._slate
        with self._writing:
            if not slate.keep(item):
                self._flush()
                if not slate.keep(item):  # larger than the outbox: it goes alone
                    self._write(pipes.batch_of(item, 1))
            slate.finish(slot)
            kept = slate.kept
            # Asked under the lock: whoever takes what is there now comes here after us, and sends ours with its own.
            if kept >= FLUSH_COUNT or not crew.has_more():
                self._flush()
            elif kept == 1:
                self._oldest = self._monotonic()
            elif kept and self._monotonic() - self._oldest >= FLUSH_AGE:
                self._flush()

    def flush(self) -> None:
        with self._writing:
            self._flush()

    def _flush(self) -> None:
        room, count = self._slate.outbox()
        if count:
            pipes.write_batch_head(room, count)
            self._write(room)
            self._slate.empty()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._data.sendall(data)
        except OSError:
            # The parent is gone, or a task has closed our socket. Any thread may be the one that finds out, and the
            # others may sleep for ever; what is finished stays readable on the slate.
            os._exit(1)

    # ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self, reason: str) -> None:
        """Take no more work: what is not started goes back, what runs is finished. The crew then returns."""
        crew = self._crew
        assert crew is not None
        self.leaving = True
        self.send(Kind.LEAVING, reason)
        self._give_back(crew)

    def _check_memory(self, limit_kib: int) -> None:
        used = resident_kib()
        if used > limit_kib:
            self.leave(f"it uses {used} KiB of memory, worker_max_memory_per_child is {limit_kib} KiB")

    def _give_back(self, crew: Crew) -> None:
        numbers = crew.take_back()
        with self._writing:
            self._flush()
            self._write(pipes.frame(Kind.RECALLED, numbers))

    # ── the courier ──────────────────────────────────────────────────────────────────────────────────────────

    def _courier(self) -> None:
        # Signals are for the main thread, whose system calls they are to interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        crew = self._crew
        assert crew is not None
        rest = b""
        while True:
            try:
                data = self._bell.recv(64 * ORDER_BYTES)
            except OSError:
                data = b""
            if not data:  # the parent is gone; so is the reason to run
                os.kill(os.getpid(), signal.SIGKILL)
            rest += data
            while len(rest) >= ORDER_BYTES:
                number, cause = pipes.read_order(rest[:ORDER_BYTES])
                rest = rest[ORDER_BYTES:]
                try:
                    if cause is None:
                        self.read()
                        self._give_back(crew)
                    else:
                        crew.interrupt(number, cause)
                except (ParentGone, OSError):
                    os.kill(os.getpid(), signal.SIGKILL)


def _unsendable(outcome: Outcome, error: Exception) -> Failed:
    text = safe_repr(error)
    return Failed(outcome.id, None, [], 0.0, f"EncodeError({text})", f"The outcome cannot be sent: {text}\n", False)


def resident_kib() -> int:
    """This process's resident memory."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
