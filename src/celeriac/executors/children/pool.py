"""The executor of all pools but solo: child processes, each with a crew, kept alive and fed by the parent.

Everything here runs on the worker's loop; no call blocks. A request is in exactly one place: in ``_waiting``, in a
member's ``outstanding`` (given, perhaps running), or answered. Who is given how much, and when it is taken back, is
decided in :meth:`_dispatch` and :meth:`_watch`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from celeriac import telemetry
from celeriac.clock import SYSTEM_CLOCK, Clock
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.executors.base import Cancel, Condition, Failed, InWork, Loader, Lost, Outcome, PoolOptions, Request
from celeriac.executors.children import pipes
from celeriac.executors.children.births import Births
from celeriac.executors.children.member import Member, Sentence, Verdict
from celeriac.executors.children.pace import Paces
from celeriac.executors.children.pipes import Item, Kind
from celeriac.executors.selection import crew_traits
from celeriac.wire.safe_repr import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.executors.time_limits import Cause

_log = logging.getLogger("celeriac.executors")

#: seconds of silence after which a child that has more than it can run at once is asked to give it back
SILENCE = 0.015
#: seconds of silence of a child that has work and runs none of it, after which that is worth a note
STALL = 1.0
#: seconds between two looks at requests with a limit, at most
_LONGEST_LOOK = 0.25
_SHORTEST_LOOK = 0.002
#: seconds that a stopping executor waits for children to give back what they have not started
_RECALL_PATIENCE = 1.0
#: seconds that it waits, when a task was lost, for word whether that has to be concluded
_CONCLUSION_PATIENCE = 1.0


class ChildrenExecutor:
    """Runs requests in child processes. After :meth:`stop` has returned, :meth:`outcomes` does not wait any more: it
    returns what is left, and then an empty sequence.
    """

    def __init__(self, options: PoolOptions, loader: Loader, clock: Clock = SYSTEM_CLOCK) -> None:
        traits = crew_traits(options.pool)
        self._options = options
        self._asks_first = traits.asks_first
        self._monotonic = clock.monotonic
        self._paces = Paces(options.look_ahead)
        self._births = Births(options, loader, traits.prelude, clock.monotonic, self)
        self._members = self._births.members
        self._waiting: deque[Request] = deque()
        #: while it stops: what has failed already, and whose hooks and error callbacks are still to be called
        self._conclusions: deque[Request] = deque()
        self._lost_at = 0.0  #: monotonic, when a child died last
        self._ended: list[Outcome] = []
        self._number = 0
        self._dispatch_is_due = False
        self._watch_timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._is_ending = False  #: stopping, and past the time for conclusions
        self._is_stopped = False
        self._stop_at: float | None = None  #: monotonic; None: not told to stop yet
        self._loop: asyncio.AbstractEventLoop

    # ── the seam ─────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Returns when every slot can take work. Raises ``ImproperlyConfigured`` when the user's code can't load."""
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()
        try:
            await self._births.start()
        except BaseException:
            self._is_stopping = self._is_stopped = True
            await self._close()
            raise

    @property
    def slots(self) -> int:
        """How many requests can run at one time when every child that is wanted has come."""
        return self._births.wanted * self._options.slots_per_child

    def resize(self, children: int) -> None:
        """Have so many processes from now on; what runs in those that go is let end."""
        if not self._is_stopping:
            self._births.resize(children)

    def renew(self, reload: bool) -> None:
        """Replace the processes one by one; ``reload``: by ones that import the user's code anew.

        Raises ``ImproperlyConfigured`` where it cannot be imported by name.
        """
        if not self._is_stopping:
            self._births.renew(reload)

    def room(self) -> int:
        ahead = self._paces.typical_ahead()
        free = -len(self._waiting)
        silent_since = self._monotonic() - SILENCE
        for member in self._members.values():
            if member.state == "ready" and not self._is_spent(member):
                load = len(member.outstanding)
                # who has work and says nothing has a task that is not short, whatever the others were
                is_slow = member.is_stuck or (load and member.heard_at < silent_since)
                free += member.slots + (0 if is_slow else ahead) - load
        return max(free, 0)

    def submit(self, batch: Sequence[Request]) -> None:
        if self._is_stopping:
            if self._is_ending or any(request.failure is None for request in batch):
                raise OperationalError("The executor is stopping and takes no more requests")
            self._conclusions.extend(batch)
            self._births.note_change()
        else:
            self._waiting.extend(batch)
        if not self._dispatch_is_due:
            self._dispatch()  # at once: a round of the loop is some percent of a short task's round trip

    async def outcomes(self) -> Sequence[Outcome]:
        """Wait for at least one outcome and return all there are. One caller at a time.

        Raises what keeps the pool from going on (the user's code can't load any more).
        """
        while not self._ended:
            if self._births.failure is not None and not self._is_stopping:
                raise self._births.failure
            if self._is_stopped:
                return ()
            self._has_ended.clear()
            await self._has_ended.wait()
        ended, self._ended = self._ended, []
        if self._is_stopping and self._births.is_started:
            self._births.note_change()
        return ended

    def cancel(self, task_id: str, how: Cancel) -> bool:
        for request in self._waiting:
            if request.id == task_id:
                self._waiting.remove(request)
                self._answer(Lost(task_id, False, "revoked", "cancelled before it started"))
                return True
        for member in self._members.values():
            for number, request in member.outstanding.items():
                if request.id == task_id:
                    self._cancel_given(member, number, how)
                    return True
        return False

    def in_work(self) -> Sequence[InWork]:
        return [
            InWork(member.outstanding[running.number].id, member.pid, running.since)
            for member in self._members.values()
            for running in member.running()
        ]

    def processes(self) -> Sequence[int]:
        return [member.pid for member in self._members.values() if member.pid]

    def condition(self) -> Condition:
        members = [member for member in self._members.values() if member.state in ("ready", "leaving")]
        heard = self._monotonic() - STALL
        stalled = (member.outstanding and member.heard_at < heard and not member.running() for member in members)
        return Condition(len(members), sum(map(bool, stalled)))

    def spare(self, is_wanted: Callable[[Request], bool]) -> Sequence[Request]:
        spared = [request for request in self._waiting if is_wanted(request)]
        if spared:
            gone = {id(request) for request in spared}
            self._waiting = deque(request for request in self._waiting if id(request) not in gone)
        return spared

    async def recall(self) -> Sequence[Request]:
        """Start nothing more; what has not started comes back as soon as the children have said so."""
        self._is_stopping = self._births.is_stopping = True
        return await self._take_back() if self._births.is_started else ()

    async def stop(self, grace: float) -> Sequence[Request]:
        """Stop; may be called again with another grace to hasten the end (the second call returns nothing).

        Outcomes of what is finished meanwhile stay readable through :meth:`outcomes`.
        """
        deadline = self._monotonic() + grace
        if self._stop_at is not None:
            self._stop_at = min(self._stop_at, deadline)
            self._births.note_change()
            while not self._is_stopped:
                await self._births.next_change()
            return ()
        self._is_stopping = self._births.is_stopping = True
        if not self._births.is_started:
            self._is_stopped = True
            return ()
        self._stop_at = deadline
        unstarted = await self._take_back()
        await self._until_idle(lambda: self._stop_at or 0.0)
        self._is_ending = True
        if self._is_busy():
            self._interrupt_all("stopped")
            end = self._monotonic() + self._options.kill_grace
            await self._until_idle(lambda: end)
        for member in list(self._members.values()):
            if member.outstanding:
                self._condemn(member, list(member.outstanding), "stopped", "the worker stopped before it was finished")
            else:
                member.tell_to_leave()
        end = self._monotonic() + self._options.kill_grace
        while self._members and self._monotonic() < end and self._births.link is not None and self._births.link.is_open:
            await self._births.next_change(end - self._monotonic())
        await self._close()
        unstarted += [*self._waiting, *self._conclusions]
        self._waiting.clear()
        self._conclusions.clear()
        self._is_stopped = True
        self._has_ended.set()
        self._births.note_change()
        return unstarted

    # ── giving ───────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule_dispatch(self) -> None:
        if not self._dispatch_is_due:
            self._dispatch_is_due = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give waiting requests to children: evenly, in order, ahead only of short tasks."""
        self._dispatch_is_due = False
        waiting = self._conclusions if self._is_stopping else self._waiting
        if not waiting or self._is_ending:
            return
        members = [member for member in self._members.values() if member.state == "ready" and not member.recalling]
        if not members:
            if self._is_stopping and not self._births.start_last():
                self._drop_conclusions()
            return
        members.sort(key=lambda member: len(member.outstanding) / member.slots)
        total = len(waiting) + sum(len(member.outstanding) for member in members)
        level = -(-total // len(members))
        for member in members:
            if member.key in self._members:  # filling another may have shown that this one is dead
                self._fill(member, level, waiting)
            if not waiting:
                break
        if any(member.limited or member.slots > 1 or len(member.outstanding) > 1 for member in members):
            self._watch_within(SILENCE)

    def _drop_conclusions(self) -> None:
        """There is nobody left who could call hooks: what is known of these must do."""
        for request in self._conclusions:
            self._answer(Lost(request.id, False, "not_started", "the worker stops"))
        self._conclusions.clear()
        self._births.note_change()

    def _fill(self, member: Member, level: int, waiting: deque[Request]) -> None:
        slots = member.slots
        load = len(member.outstanding)
        level = max(level, slots)
        if self._options.max_tasks_per_child is not None:
            level = min(level, load + self._options.max_tasks_per_child - member.taken)
        items: list[Item] = []
        number = self._number
        ahead, name = 0, ""
        while waiting and load < level:
            request = waiting[0]
            if request.task != name:
                name = request.task
                ahead = 0 if member.is_stuck else self._paces.ahead(name)
            if load >= slots + ahead:
                break
            waiting.popleft()
            number += 1
            load += 1
            items.append((number, request))
            if request.hard_limit is not None or request.soft_limit is not None:
                member.limited.add(number)
        self._number = number
        if not items:
            return
        if load == len(items):  # it was idle: its silence begins now
            member.heard_at = self._monotonic()
        try:
            member.give(items)
        except Exception:  # one of them holds what a frame cannot
            self._give_one_by_one(member, items)

    def _is_spent(self, member: Member) -> bool:
        """Whether the child has taken as many requests as it may; told to leave when all are answered, since till then
        it may give some back."""
        most = self._options.max_tasks_per_child
        return most is not None and member.taken >= most

    def _give_one_by_one(self, member: Member, items: list[Item]) -> None:
        for place, (number, request) in enumerate(items):
            if member.key not in self._members:  # giving the one before has shown that it is dead
                self._wait_again([request for _, request in items[place:]])
                break
            try:
                member.give([(number, request)])
            except Exception as error:  # such as an integer of more than 64 bits in a header
                member.limited.discard(number)
                reason = f"the message cannot be handed to a child process: {error!r}"
                self._answer(Failed(request.id, None, [], 0.0, safe_repr(error), "", True, reason))
        self._schedule_dispatch()  # what was refused has left room

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame(self, member: Member, kind: int, payload: memoryview) -> None:
        if kind == Kind.OUTCOMES:
            self._take_outcomes(member, pipes.decode_outcomes(payload))
        elif kind == Kind.RECALLED:
            self._take_recalled(member, pipes.decode_numbers(payload))
        elif kind == Kind.READY:
            self._births.on_ready(member, pipes.decode_number(payload))
        elif kind == Kind.LEAVING:
            _log.info("%s (pid %s) leaves: %s", member.name, member.pid, pipes.decode_text(payload))
            member.tell_to_leave()
        elif kind == Kind.FAILED:
            self._births.on_start_failed(member, ImproperlyConfigured(pipes.decode_text(payload)))

    def _take_outcomes(self, member: Member, batch: Sequence[pipes.Ended]) -> None:
        if member.asked or member.limited:
            self._take_limited(member, batch)
        else:
            self._take_plain(member, batch)
        member.heard_at = self._monotonic()
        member.is_stuck = False
        if member.to_cancel:
            member.to_cancel = {n: how for n, how in member.to_cancel.items() if n in member.outstanding}
        self._has_ended.set()
        if not member.outstanding and self._is_spent(member):
            member.tell_to_leave()
        if self._is_stopping:
            self._births.note_change()
        if self._waiting:
            self._schedule_dispatch()

    def _take_plain(self, member: Member, batch: Sequence[pipes.Ended]) -> None:
        """The usual outcomes: what a name has taken is summed up over its neighbours."""
        pop, ended = member.outstanding.pop, self._ended
        name, count, total, slowest = "", 0, 0.0, 0.0
        for number, outcome in batch:
            request = pop(number, None)
            if request is None:  # read before, from the slate of a dying child
                continue
            ended.append(outcome)
            if isinstance(outcome, Lost):
                continue
            if request.task != name:
                self._paces.learn_all(name, count, total, slowest)
                name, count, total, slowest = request.task, 0, 0.0, 0.0
            runtime = outcome.runtime
            count += 1
            total += runtime
            slowest = max(slowest, runtime)
        self._paces.learn_all(name, count, total, slowest)

    def _take_limited(self, member: Member, batch: Sequence[pipes.Ended]) -> None:
        forget, learn, ended = member.forget, self._paces.learn, self._ended
        for number, outcome in batch:
            asked = member.asked.get(number) if member.asked else None
            request = forget(number)
            if request is None:  # read before, from the slate of a dying child
                continue
            if not isinstance(outcome, Lost):
                learn(request.task, outcome.runtime)
            elif asked is not None:
                outcome = Lost(outcome.id, outcome.started, asked.cause, asked.detail)
            ended.append(outcome)

    def _take_recalled(self, member: Member, numbers: Sequence[int]) -> None:
        member.recalling = False
        if member.state == "leaving":
            # Perhaps again: the thread that has given these back reads what had come, and the other one, which is to
            # leave, may sleep until something comes.
            member.tell_to_leave()
        member.heard_at = self._monotonic()
        back: list[Request] = []
        for number in numbers:
            request = member.forget(number)
            if request is None:
                continue
            member.taken -= 1
            if member.to_cancel.pop(number, None) is not None:
                self._answer(Lost(request.id, False, "revoked", "cancelled before it started"))
            else:
                back.append(request)
        self._wait_again(back)
        to_cancel, member.to_cancel = member.to_cancel, {}
        for number, how in to_cancel.items():
            if number in member.outstanding:
                self._cancel_given(member, number, how)
        self._births.note_change()
        self._schedule_dispatch()

    def on_ready(self) -> None:
        """A child takes work."""
        self._schedule_dispatch()

    def on_change(self) -> None:
        """Perhaps the pool cannot go on, and whoever waits for outcomes must know."""
        if self._births.failure is not None:
            self._has_ended.set()

    def on_death(self, member: Member, detail: str) -> None:
        """Read what the child left, and answer for what it had."""
        member.pipe.drain()
        self._take_outcomes(member, member.leftover())
        lost, unstarted = member.verdicts(detail)
        self._ended.extend(lost)
        self._lost_at = self._monotonic()
        self._wait_again(unstarted)
        expected = member.state in ("leaving", "doomed") and not any(loss.cause == "died" for loss in lost)
        telemetry.emit(telemetry.ChildExited(pid=member.pid, reason=detail, expected=expected))
        self._has_ended.set()
        self._schedule_dispatch()

    def _wait_again(self, requests: Sequence[Request]) -> None:
        """These were given to a child, which has not started them."""
        if self._is_stopping:
            self._conclusions.extendleft(request for request in reversed(requests) if request.failure is not None)
            requests = [request for request in requests if request.failure is None]
        self._waiting.extendleft(reversed(requests))

    def _answer(self, outcome: Outcome) -> None:
        self._ended.append(outcome)
        self._has_ended.set()

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────

    def _watch_within(self, seconds: float) -> None:
        timer = self._watch_timer
        if timer is not None:
            if timer.when() <= self._loop.time() + seconds + _SHORTEST_LOOK:
                return
            timer.cancel()
        self._watch_timer = self._loop.call_later(seconds, self._watch)

    def _watch(self) -> None:
        """Look after children that are silent with work waiting behind, and after time limits."""
        self._watch_timer = None
        now = self._monotonic()
        next_look: float | None = None
        for member in list(self._members.values()):
            if self._holds_back(member) and member.state in ("ready", "leaving"):
                silent = now - member.heard_at
                if silent >= SILENCE and not member.recalling:
                    self._unstick(member, now)
                next_look = min(next_look or 1.0, max(SILENCE - silent, SILENCE / 3))
            if member.limited:
                due = self._enforce_limits(member, now)
                next_look = due if next_look is None else min(next_look, due)
            if member.asked:
                due = self._enforce_hard_ends(member, now)
                next_look = due if next_look is None else min(next_look, due)
        if next_look is not None:
            self._watch_within(max(next_look, _SHORTEST_LOOK))

    def _holds_back(self, member: Member) -> bool:
        """Whether the child has requests that it does not run, or outcomes that it has not sent."""
        load = len(member.outstanding)
        return load > member.slots or (member.slots > 1 and load > len(member.running()))

    def _unstick(self, member: Member, now: float) -> None:
        member.is_stuck = True
        for running in member.running():
            self._paces.learn(member.outstanding[running.number].task, now - running.since)
        member.recall()

    def _enforce_limits(self, member: Member, now: float) -> float:
        """Act on limits that are over; seconds until the next look."""
        due = _LONGEST_LOOK
        for running in member.running():
            if running.number not in member.limited:
                continue
            request = member.outstanding[running.number]
            if request.soft_limit is not None and running.number not in member.warned:
                left = running.since + request.soft_limit - now
                if left <= 0:
                    member.warned.add(running.number)
                    member.interrupt(running.number, "limit")
                else:
                    due = min(due, left)
            if request.hard_limit is not None:
                left = running.since + request.hard_limit - now
                if left <= 0:
                    text = f"hard time limit of {request.hard_limit:g} s exceeded"
                    self._end_hard(member, running.number, "hard_limit", text)
                else:
                    due = min(due, left)
        return due

    def _enforce_hard_ends(self, member: Member, now: float) -> float:
        """Kill what was asked to end and has not; seconds until the next look."""
        due = _LONGEST_LOOK
        for number, verdict in list(member.asked.items()):
            if verdict.deadline <= now:
                self._condemn(member, [number], verdict.cause, verdict.detail)
            else:
                due = min(due, verdict.deadline - now)
        return due

    # ── ending tasks from outside ────────────────────────────────────────────────────────────────────────────

    def _cancel_given(self, member: Member, number: int, how: Cancel) -> None:
        if any(running.number == number for running in member.running()):
            if how == "hard":
                self._end_hard(member, number, "revoked", "terminated on request")
            elif how == "soft":
                member.interrupt(number, "revoked")
        else:  # not started, or finished, or just about to start: its answer to a recall will tell
            member.to_cancel[number] = how
            member.recall()

    def _end_hard(self, member: Member, number: int, cause: Sentence, detail: str) -> None:
        """Make it end: by killing its process, which where many share that is done only to what heeds nothing."""
        if not self._asks_first:
            self._condemn(member, [number], cause, detail)
        elif number not in member.asked:
            grace = self._options.kill_grace
            member.asked[number] = Verdict(self._monotonic() + grace, cause, detail)
            member.interrupt(number, cause)
            self._watch_within(grace)

    def _condemn(self, member: Member, numbers: Sequence[int], cause: Sentence, detail: str) -> None:
        """Kill the child on account of these requests."""
        for number in numbers:
            member.condemned.setdefault(number, (cause, detail))
        if member.state != "doomed":
            member.state = "doomed"
            self._births.kill(member)

    def _interrupt_all(self, cause: Cause) -> None:
        for member in self._members.values():
            for running in member.running():
                member.interrupt(running.number, cause)

    # ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────

    def _is_busy(self) -> bool:
        return bool(self._conclusions) or any(member.outstanding for member in self._members.values())

    def _untold(self) -> float:
        """Seconds to wait until it is known whether a task that was lost has to be concluded."""
        if not any(isinstance(outcome, Lost) for outcome in self._ended):
            return 0.0
        return max(0.0, self._lost_at + _CONCLUSION_PATIENCE - self._monotonic())

    async def _take_back(self) -> list[Request]:
        """What is not started: from here and from the children."""
        for member in self._members.values():
            if member.outstanding and member.state != "doomed":
                member.recall()
        end = self._monotonic() + _RECALL_PATIENCE
        while any(member.recalling for member in self._members.values()) and self._monotonic() < end:
            await self._births.next_change(end - self._monotonic())
        unstarted, self._waiting = list(self._waiting), deque()
        self._wait_again([request for request in unstarted if request.failure is not None])
        self._schedule_dispatch()
        return [request for request in unstarted if request.failure is None]

    async def _until_idle(self, deadline: Callable[[], float]) -> None:
        while (left := deadline() - self._monotonic()) > 0:
            if not self._is_busy():
                if not (untold := self._untold()):
                    return
                left = min(left, untold)
            await self._births.next_change(left)

    async def _close(self) -> None:
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        await self._births.close()
