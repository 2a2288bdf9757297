"""One child, as the parent sees it: its sockets, its slate, and what it has been given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Literal, NamedTuple

from celeriac.executors.base import Cancel, Lost, Request
from celeriac.executors.children import pipes
from celeriac.executors.children.pipes import Item, Kind, ParentPipe
from celeriac.executors.children.slate import Running, Slate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celeriac.executors.children.link import NurseryLink
    from celeriac.executors.time_limits import Cause

#: ``starting`` → ``ready`` → ``leaving`` → gone; ``doomed``: to be killed, whatever it does
State = Literal["starting", "ready", "leaving", "doomed"]
#: why a process is killed on account of a task
Sentence = Literal["hard_limit", "revoked", "stopped"]


class Verdict(NamedTuple):
    """A hard end that is tried by asking first."""

    deadline: float  #: monotonic
    cause: Sentence
    detail: str


class Member:
    """A child of the pool. Belongs to the worker's loop."""

    def __init__(
        self, key: int, place: int, slots: int, loop: asyncio.AbstractEventLoop, link: NurseryLink,
        on_frame: Callable[[Member, int, memoryview], None], on_end: Callable[[Member], None],
    ) -> None:  # fmt: skip
        self.key = key
        self.slots = slots
        self.link = link  #: to the nursery that it comes from
        self.place = place  #: among those of its time, from 1; its successor may have the same
        self.name = f"ChildProcess-{place}"
        self.pid = 0
        self.state: State = "starting"
        #: given and not yet answered, by number; in the order given
        self.outstanding: dict[int, Request] = {}
        #: how many requests this child has taken in its life
        self.taken = 0
        #: numbers of outstanding requests that have a time limit
        self.limited: set[int] = set()
        #: numbers that have been told of their soft limit
        self.warned: set[int] = set()
        #: numbers whose cancellation waits for word on whether they have started
        self.to_cancel: dict[int, Cancel] = {}
        #: numbers on whose account the process is killed, and why
        self.condemned: dict[int, tuple[Sentence, str]] = {}
        self.heard_at = 0.0  #: monotonic, last sign of life
        self.ready_at: float | None = None
        #: numbers that have been asked to end, by an exception: until when, and what else they are killed for
        self.asked: dict[int, Verdict] = {}
        #: it is told to leave as soon as it has given back what it has not started, and is not replaced on leaving
        self.is_retiring = False
        #: a recall is under way: nothing may be given until it is answered
        self.recalling = False
        #: it was silent with work waiting behind what it runs; it gets no more than its slots until it answers
        self.is_stuck = False
        self.boot_timer: asyncio.TimerHandle | None = None
        self.slate = Slate.create(slots)
        ours, self._theirs = socket.socketpair()
        self._bell, self._their_bell = socket.socketpair()
        self._bell.setblocking(False)
        self.pipe = ParentPipe(ours, loop, lambda kind, payload: on_frame(self, kind, payload), lambda: on_end(self))

    def childs_fds(self) -> tuple[int, int, int]:
        return self._theirs.fileno(), self._their_bell.fileno(), self.slate.fd

    def close_childs_ends(self) -> None:
        """After the nursery has them."""
        self._theirs.close()
        self._their_bell.close()

    def close(self) -> None:
        if self.boot_timer is not None:
            self.boot_timer.cancel()
        self.close_childs_ends()
        self.pipe.close()
        self._bell.close()
        self.slate.close()

    @property
    def load(self) -> int:
        return len(self.outstanding)

    def give(self, items: list[Item]) -> None:
        """Send them. Raises what the encoder raises, with nothing given."""
        data = pipes.requests_frame(items)
        # First, since sending may find out that the child is dead, and then what it had is answered for.
        self.outstanding.update(items)
        self.taken += len(items)
        self.pipe.send_frame(data)

    def forget(self, number: int) -> Request | None:
        """The request is answered; ``None`` if it was not here."""
        request = self.outstanding.pop(number, None)
        if request is not None and self.limited:
            self.limited.discard(number)
            self.warned.discard(number)
        if self.asked:
            self.asked.pop(number, None)
        return request

    def recall(self) -> None:
        """Ask for everything that is not started, and for outcomes that wait for company."""
        if not self.recalling:
            self.recalling = True
            self._ring(pipes.recall_order())

    def interrupt(self, number: int, cause: Cause) -> None:
        self._ring(pipes.interrupt_order(number, cause))

    def _ring(self, order: bytes) -> None:
        with contextlib.suppress(OSError):  # it is dying, or has thousands of orders to heed already
            self._bell.send(order)

    def tell_to_leave(self) -> None:
        """Let it finish what it has and exit."""
        if self.state in ("starting", "ready"):
            self.state = "leaving"
        self.pipe.send(Kind.LEAVE)

    def retire(self) -> None:
        """Let it give back what it has not started, finish what it runs, and exit."""
        self.is_retiring = True
        if self.state == "ready":
            self.state = "leaving"  # told so when it has answered
            self.recall()
        else:
            self.tell_to_leave()

    def running(self) -> list[Running]:
        """What runs now and is not answered."""
        return [running for running in self.slate.running() if running.number in self.outstanding]

    def leftover(self) -> list[pipes.Ended]:
        """After its death: outcomes that it had finished but not sent."""
        items, count = self.slate.leftover()
        return pipes.decode_outcomes(pipes.batch_of(items, count)[pipes.HEAD_BYTES :]) if count else []

    def verdicts(self, detail: str) -> tuple[list[Lost], list[Request]]:
        """After its death, with everything read: what was lost, and what was never started."""
        started = {running.number for running in self.running()}
        lost: list[Lost] = []
        unstarted: list[Request] = []
        for number, request in self.outstanding.items():
            condemned = self.condemned.get(number)
            if condemned is not None:
                lost.append(Lost(request.id, number in started, condemned[0], condemned[1]))
            elif number not in started:
                unstarted.append(request)
            elif self.condemned:
                lost.append(Lost(request.id, True, "stopped", _neighbours(self.condemned.values())))
            else:
                lost.append(Lost(request.id, True, "died", detail, len(started) == 1))
        return lost, unstarted


def _neighbours(verdicts: Iterable[tuple[str, str]]) -> str:
    return "its process was ended on account of another task: " + "; ".join(sorted({text for _, text in verdicts}))


def describe_exit(status: int) -> str:
    """``signal 9 (SIGKILL)`` or ``exit status 1`` from a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
