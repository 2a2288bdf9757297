"""How many children there are, and that there are so many: births, deaths, growing, shrinking, replacing.

What children are given and what they answer is the pool's business; it is told of every death before the next birth.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Protocol

from celeriac import telemetry
from celeriac.errors import CeleriacError, ImproperlyConfigured, OperationalError
from celeriac.executors.children.link import NurseryLink
from celeriac.executors.children.member import Member, describe_exit
from celeriac.executors.children.nursery import Born, Gone, Unborn

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.executors.base import Loader, PoolOptions
    from celeriac.executors.children.nursery import Report

_log = logging.getLogger("celeriac.executors")

#: a child that ends this soon after its start without having run anything counts as a failed start
_EARLY_DEATH = 1.0
#: children that are started while stopping, for what is still to be done
_LAST_STARTS = 3
#: seconds between two attempts to start processes, at most
_LONGEST_PAUSE = 30.0
#: failed starts in a row after which the executor gives up
_MAX_FAILED_STARTS = 5


class Household(Protocol):
    """Whom births tell."""

    def on_frame(self, member: Member, kind: int, payload: memoryview) -> None: ...
    def on_ready(self) -> None:
        """A child takes work."""
        ...

    def on_death(self, member: Member, detail: str) -> None:
        """The child is dead, and out of ``members``: read what it left, and answer for what it had."""
        ...

    def on_change(self) -> None:
        """Something has changed that somebody may wait for; perhaps ``failure`` is set."""
        ...


class Births:
    """Keeps as many children as are wanted. Belongs to the worker's loop."""

    def __init__(
        self, options: PoolOptions, loader: Loader, prelude: str, monotonic: Callable[[], float], household: Household
    ) -> None:
        self.members: dict[int, Member] = {}
        self.wanted = options.children
        #: why the pool cannot go on
        self.failure: CeleriacError | None = None
        self.is_started = False
        self.is_stopping = False
        self.link: NurseryLink | None = None
        self._options = options
        self._loader = loader
        self._prelude = prelude
        self._monotonic = monotonic
        self._household = household
        self._key = 0
        self._failed_starts = 0
        self._last_starts = _LAST_STARTS
        self._mending: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        #: nurseries that have been replaced, each until its last child is gone
        self._former: set[NurseryLink] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Returns when every child takes work. Raises ``ImproperlyConfigured`` when the user's code can't load."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.link = await self._start_nursery()
        self._start_missing()
        while any(member.state == "starting" for member in self.members.values()) and self.failure is None:
            await self.next_change()
        if self.failure is not None:
            raise self.failure
        self.is_started = True

    async def close(self) -> None:
        """End what is left, children and all."""
        self.is_stopping = True
        for task in (self._mending, self._renewing):
            if task is not None:
                task.cancel()
        for link in (self.link, *self._former):
            if link is not None:
                await link.close()
        for member in list(self.members.values()):
            self._bury(member, "the worker stopped")
        if self._closing:
            await asyncio.wait(self._closing)

    # ── how many ─────────────────────────────────────────────────────────────────────────────────────────────

    def resize(self, children: int) -> None:
        """Have so many from now on. Those that go finish what they run."""
        self.wanted = max(children, 1)
        self._start_missing()
        surplus = [member for member in self.members.values() if not member.is_retiring and member.state != "doomed"]
        surplus.sort(key=lambda member: (member.state == "ready", member.load, -member.key))
        for member in surplus[: max(len(surplus) - self.wanted, 0)]:
            member.retire()

    def renew(self, reload: bool) -> None:
        """Replace every child, one by one, each as soon as its successor takes work.

        ``reload``: by children of a new nursery, in which the user's code is imported anew.
        """
        if reload and not self._loader.argument:
            raise ImproperlyConfigured("The app has no importable name, so its code cannot be loaded anew")
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = self._loop.create_task(self._renew(reload))

    async def _renew(self, reload: bool) -> None:
        if reload:
            try:
                link = await self._start_nursery(fresh=True)
            except CeleriacError as error:
                _log.error("The pool goes on with the code it has: %s", error)
                return
            former, self.link = self.link, link
            if former is not None:
                self._former.add(former)
        for member in list(self.members.values()):
            if member.key not in self.members or member.is_retiring:
                continue
            newest = self._key
            member.retire()
            self._start_missing()
            while any(m.key > newest and m.state == "starting" for m in self.members.values()):
                await self.next_change()
        self._close_former()

    def _close_former(self) -> None:
        """Nurseries without children are not needed any more."""
        for link in list(self._former):
            if not any(member.link is link for member in self.members.values()):
                self._former.discard(link)
                closing = self._loop.create_task(link.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def kill(self, member: Member) -> None:
        """End its process now."""
        member.link.kill_child(member.key)

    # ── births ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _start_nursery(self, fresh: bool = False) -> NurseryLink:
        link = NurseryLink(self._options, self._loader, self._on_report, self._on_nursery_lost, self._prelude)
        await link.start(fresh)
        return link

    def _start_missing(self) -> None:
        present = sum(not member.is_retiring for member in self.members.values())
        for _ in range(self.wanted - present):
            if self.is_stopping or self.failure is not None or self.link is None or not self.link.is_open:
                return
            self._start_member(self.link)

    def start_last(self) -> bool:
        """While stopping: have a child for what is still to be done, a new one if need be; whether there is one."""
        if any(member.state in ("starting", "ready") for member in self.members.values()):
            return True
        if self.failure is not None or self.link is None or not self.link.is_open or not self._last_starts:
            return False
        self._last_starts -= 1
        self._start_member(self.link)
        return True

    def _start_member(self, link: NurseryLink) -> None:
        self._key += 1
        household = self._household
        try:
            member = Member(
                self._key,
                self._free_place(),
                self._options.slots_per_child,
                self._loop,
                link,
                household.on_frame,
                self._on_pipe_end,
            )
        except OSError as error:  # no file descriptors or no memory left
            self._note_failed_start(OperationalError(f"A child process cannot be started: {error}"))
            self._start_later()
            return
        self.members[member.key] = member
        link.start_child(member.key, member.name, member.childs_fds())
        member.close_childs_ends()
        member.boot_timer = self._loop.call_later(self._options.start_timeout, self._on_start_timeout, member)

    def _free_place(self) -> int:
        taken = {member.place for member in self.members.values()}
        return next(place for place in itertools.count(1) if place not in taken)

    def on_ready(self, member: Member, pid: int) -> None:
        """The child says that it takes work."""
        member.pid = pid
        if member.boot_timer is not None:
            member.boot_timer.cancel()
        if member.state != "starting":
            return
        member.state = "ready"
        member.heard_at = member.ready_at = self._monotonic()
        telemetry.emit(telemetry.ChildStarted(pid=member.pid))
        self.note_change()
        self._household.on_ready()

    def _on_start_timeout(self, member: Member) -> None:
        if member.state == "starting":
            text = f"A child process was not ready within {self._options.start_timeout:g} s (worker_proc_alive_timeout)"
            self.on_start_failed(member, ImproperlyConfigured(text))
            self.kill(member)

    def on_start_failed(self, member: Member, error: CeleriacError) -> None:
        """The child will not come to work."""
        member.state = "doomed"
        self._note_failed_start(error)

    def _note_failed_start(self, error: CeleriacError) -> None:
        self._failed_starts += 1
        if not self.is_started or self._failed_starts >= _MAX_FAILED_STARTS:
            self.failure = error
        else:
            _log.error("A child process could not start: %s", error)
        self.note_change()

    def _start_later(self) -> None:
        if self.is_started:
            self._loop.call_later(min(0.5 * 2**self._failed_starts, _LONGEST_PAUSE), self._start_missing)

    # ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_report(self, report: Report) -> None:
        if isinstance(report, Gone):
            member = self.members.get(report.key)
            if member is not None:
                self._bury(member, describe_exit(report.status))
        elif isinstance(report, Born):
            member = self.members.get(report.key)
            if member is not None:
                member.pid = report.pid
        elif isinstance(report, Unborn):
            member = self.members.get(report.key)
            if member is not None:
                self.on_start_failed(member, OperationalError(f"A child process cannot be started: {report.reason}"))
                self._bury(member, report.reason)

    def _on_pipe_end(self, member: Member) -> None:
        """The child has closed its socket. The nursery's word on it follows; without a nursery there is none."""
        if not member.link.is_open:
            self._bury(member, "killed, because the process that started it ended")
        else:  # most likely it has just exited; if a task has closed our socket, it is of no more use
            self.kill(member)

    def _bury(self, member: Member, detail: str) -> None:
        """The child is dead: let the pool answer for what it had, start another."""
        if self.members.pop(member.key, None) is None:
            return
        self._household.on_death(member, detail)
        if member.state in ("starting", "ready"):
            self._judge_start(member, detail)
        member.close()
        self.note_change()
        if self.is_stopping or self.failure is not None:
            return
        self._close_former()
        if self._failed_starts == 0:
            self._start_missing()
        else:
            self._start_later()

    def _judge_start(self, member: Member, detail: str) -> None:
        """Whether a child that ended unasked had come to work at all."""
        lived = 0.0 if member.ready_at is None else self._monotonic() - member.ready_at
        if member.taken or lived >= _EARLY_DEATH:
            self._failed_starts = 0
        elif not self.is_stopping:
            self.on_start_failed(member, OperationalError(f"A child process ended as soon as it started: {detail}"))

    # ── the nursery's death ──────────────────────────────────────────────────────────────────────────────────

    def _on_nursery_lost(self, link: NurseryLink) -> None:
        """The nursery died, and its children with it (by the parent-death signal, or by the end of their bell)."""
        for member in list(self.members.values()):
            if member.link is not link:
                continue
            if not member.pipe.is_open or member.state == "starting":
                self._bury(member, "the process that starts children ended")
            else:
                self._loop.call_later(2.0, self._bury, member, "the process that starts children ended")
        if link is self.link and self.is_started and not self.is_stopping and self._mending is None:
            _log.error("The process that starts children ended; starting another")
            self._mending = self._loop.create_task(self._mend())

    async def _mend(self) -> None:
        if self.link is not None:
            await self.link.close()
        try:
            self.link = await self._next_nursery()
        except CeleriacError as error:
            self.failure = error
            self.note_change()
            return
        finally:
            self._mending = None
        self._failed_starts = 0
        self._start_missing()

    async def _next_nursery(self) -> NurseryLink:
        pause = 0.5
        while True:
            try:
                return await self._start_nursery()
            except OSError as error:  # no processes or no memory left: that may pass
                _log.error("The process that starts children cannot be started (%s); again in %g s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────

    def note_change(self) -> None:
        self._changed.set()
        self._household.on_change()

    async def next_change(self, timeout: float | None = None) -> None:
        """Until something has changed that a start, a stop or a renewal may wait for, or the time is over."""
        changed = self._changed
        changed.clear()
        try:
            async with asyncio.timeout(timeout):
                await changed.wait()
        except TimeoutError:
            pass
