"""All held messages, one owner: the one table that intake, dispatch, settle and leases work on.

Everything happens on the worker's loop, so there is no lock. States change only through ``rules/claim.py``; the
queues here are orders of work, not a second truth.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.executors.base import Request
from celeriac.rules.acking import AckPolicy
from celeriac.rules.claim import (
    DROPPED,
    FINISHED,
    HELD,
    LOST,
    PARKED,
    READY,
    RELEASED,
    RUNNING,
    SETTLED,
    advance,
    advance_all,
)  # fmt: skip
from celeriac.transports.base import Outgoing, Park, Release, Route, Verdict
from celeriac.wire.result_record import ResultRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from celeriac.executors.base import Runnable, RunnableOptions

#: how many ids are remembered whose outcome is written though their message could not be acknowledged
_REMEMBERED = 10_000


class TaskFacts(msgspec.Struct, frozen=True):
    """What the parent needs to know of a task, read once from its options."""

    name: str
    options: Any  #: ``executors.base.RunnableOptions``
    policy: AckPolicy
    late: bool
    hard_limit: float | None
    soft_limit: float | None


class Claim(msgspec.Struct, gc=False):
    """One held message. ``receipt`` None: the broker need not or cannot be told any more."""

    id: str
    request: Request
    receipt: Any
    route: Route
    facts: TaskFacts | None  #: None: the task is not known here
    state: int = HELD
    #: how it is to be settled, from the moment that is known
    verdict: Verdict | None = None
    record: ResultRecord | None = None
    sends: list[Outgoing] | None = None
    expires: float | None = None  #: seconds since the epoch; not to be started any more then


def facts_of(task: Runnable, crash_budget: int, overrides: Mapping[str, float | None]) -> TaskFacts:
    """Boil a task's options down. ``overrides``: limits of the command line, for tasks that have none."""
    options: RunnableOptions = task.runnable_options
    policy = AckPolicy(
        late=options.acks_late,
        on_failure=options.acks_on_failure,
        on_timeout=options.acks_on_timeout,
        reject_on_worker_lost=options.reject_on_worker_lost,
        retry_on_worker_lost=options.retry_on_worker_lost,
        max_retries=options.max_retries,
        crash_budget=crash_budget,
    )
    hard = options.time_limit if options.time_limit is not None else overrides.get("time_limit")
    soft = options.soft_time_limit if options.soft_time_limit is not None else overrides.get("soft_time_limit")
    return TaskFacts(task.name, options, policy, options.acks_late, hard, soft)


class Claims:
    """The table. One claim per task id runs or may run; a second message of the same id waits behind it."""

    def __init__(self) -> None:
        self.held: dict[str, Claim] = {}
        self.ready: deque[Claim] = deque()
        #: ready, but to be acknowledged before they may start
        self.early: list[Claim] = []
        #: ready, but to run with nothing beside them
        self.suspects: deque[Claim] = deque()
        self._behind: dict[str, deque[Claim]] = {}
        self._later: list[tuple[float, int, Claim]] = []
        self._later_count = 0
        self._sequence = 0
        #: id → retries of attempts that ended here while their message was lost, and what is to become of that: its
        #: redelivery needs no second run
        self._done: dict[str, tuple[int, Verdict]] = {}
        #: whether any message that came here had a time to expire
        self.may_expire = False
        self.duplicates = 0
        #: how many messages of each task were taken up
        self.totals: Counter[str] = Counter()
        #: told of a message that waited behind an attempt, and need not run now that this has ended
        self.on_done_before: Callable[[Claim], None] = lambda _: None
        #: gives what is out of the table and not yet told to the broker
        self.dropped: Callable[[], Iterable[Claim]] = tuple
        #: told when something unstarted has left: there may be room for more
        self.on_freed: Callable[[], None] = lambda: None
        #: whether a claim needs more than room to start (worker/gate.py); None: nothing is limited
        self.is_limited: Callable[[Claim], bool] | None = None
        #: ready, but for what the limits of the cluster allow; the newest of them, and the ids of those in line
        self.gated: dict[str, Claim] = {}
        self.newly_gated: deque[Claim] = deque()
        self.lined: set[str] = set()
        self._gated_suspects: set[str] = set()

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_ready(self, claims: list[Claim]) -> None:
        """New claims whose ids are not held yet."""
        advance_all(claims, READY)
        if self.is_limited is not None:
            for claim in claims:
                self._make_ready(claim)
            return
        self.ready.extend(claims)
        totals = self.totals
        for claim in claims:
            totals[claim.request.task] += 1

    def add_suspect(self, claim: Claim) -> None:
        """A new claim that was held too often when a worker died; its id is not held yet."""
        advance(claim, READY)
        self.held[claim.id] = claim
        if self.is_limited is not None and self.is_limited(claim):
            self._gated_suspects.add(claim.id)
            self._make_ready(claim)
        else:
            self.suspects.append(claim)
            self.totals[claim.request.task] += 1

    def _make_ready(self, claim: Claim) -> None:
        if self.is_limited is not None and self.is_limited(claim):
            self.gated[claim.id] = claim
            self.newly_gated.append(claim)
        else:
            self.ready.append(claim)
            self.totals[claim.request.task] += 1

    def pass_gate(self, claims: list[Claim]) -> None:
        """Nothing but room keeps these gated ones from starting, and they are the next."""
        for claim in reversed(claims):
            self._ungate(claim)
            self.totals[claim.request.task] += 1  # not before: it may come and go many times until it starts
            if claim.id in self._gated_suspects:
                self._gated_suspects.discard(claim.id)
                self.suspects.append(claim)
            else:
                self.ready.appendleft(claim)

    def leave_gate(self, claim: Claim) -> None:
        """This gated one is not to start here now: out of the table; its state stays."""
        self._ungate(claim)
        self._gated_suspects.discard(claim.id)
        self._leave(claim.id)

    def _ungate(self, claim: Claim) -> None:
        del self.gated[claim.id]
        self.lined.discard(claim.id)

    def add_again(self, claim: Claim, redelivered: bool) -> bool:
        """A message whose id is held already. Returns whether it was adopted by the claim that is there.

        A redelivery of the very attempt that is here, and whose message was lost, gives its receipt to it; anything
        else (the next attempt of a retry, a second message with the same id) waits behind. So does a message that this
        worker has just given back and that comes before it has heard so: adopted, it would be given back, and counted,
        a second time. And so does one of an attempt that still has its message: that has to be kept and settled, too.
        """
        if self.adopt(claim, redelivered):
            return True
        advance(claim, PARKED)
        self._behind.setdefault(claim.id, deque()).append(claim)
        return False

    def adopt(self, claim: Claim, redelivered: bool) -> bool:
        """Whether it is the message of an attempt that is here and had lost it; that has it again then."""
        there = self.held[claim.id]
        given_back = isinstance(there.verdict, Release | Park)
        is_bereft = there.state == LOST or (
            redelivered and there.state == FINISHED and there.receipt is None and there.verdict is not None
        )
        if is_bereft and not given_back and _same_attempt(there, claim):
            self.duplicates += 1
            there.receipt = claim.receipt
            if there.state == LOST:
                advance(there, RUNNING)
            return True
        return False

    def add_later(self, claim: Claim, until: float) -> None:
        """A message this worker keeps until its time."""
        advance(claim, PARKED)
        self._sequence += 1
        self._later_count += 1
        heappush(self._later, (until, self._sequence, claim))

    def take_due(self, now: float) -> list[Claim]:
        """The kept messages whose time has come; they are in nobody's hands then."""
        due = []
        while self._later and self._later[0][0] <= now:
            claim = heappop(self._later)[2]
            if claim.state == PARKED:
                self._later_count -= 1
                due.append(claim)
        return due

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    # ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def later_count(self) -> int:
        """What waits here for its time, or for what others have."""
        return self._later_count + len(self.lined)

    @property
    def waiting_count(self) -> int:
        """What is held and not given to the executor."""
        return self.ready_count + self.later_count + sum(map(len, self._behind.values()))

    @property
    def ready_count(self) -> int:
        """What may run as soon as there is room, as far as is known."""
        return len(self.ready) + len(self.early) + len(self.suspects) + self.gated_count

    @property
    def gated_count(self) -> int:
        """What is limited and may have a chance at once."""
        return len(self.gated) - len(self.lined)

    def running_ids(self) -> list[str]:
        return [claim.id for claim in self.held.values() if claim.state == RUNNING or claim.state == LOST]

    def unsettled(self) -> Iterator[Claim]:
        """Everything that has a receipt to be kept alive."""
        yield from self.dropped()
        for claim in self.held.values():
            if claim.receipt is not None:
                yield claim
        for queue in self._behind.values():
            yield from queue
        for _, _, claim in self._later:
            if claim.state == PARKED:
                yield claim

    def waiting(self) -> Iterator[Claim]:
        """What may run as soon as there is room, or somebody before it has ended."""
        yield from self.early
        yield from self.suspects
        yield from self.ready
        for claim in self.gated.values():
            if claim.id not in self.lined:
                yield claim
        for queue in self._behind.values():
            yield from queue

    def later(self) -> list[tuple[float, Claim]]:
        """What is kept here until its time, by that time."""
        return [(until, claim) for until, _, claim in sorted(self._later, key=_by_time) if claim.state == PARKED]

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def finish_settled(self, claims: list[Claim]) -> None:
        """These are written and the broker knows; whoever waited behind one of them is ready now."""
        advance_all(claims, SETTLED)
        held = self.held
        for claim in claims:
            del held[claim.id]
        if self._behind:
            for claim in claims:
                if claim.id in self._behind:
                    self._promote(claim.id)

    def _leave(self, task_id: str) -> None:
        del self.held[task_id]
        if task_id in self._behind:
            self._promote(task_id)

    def _promote(self, task_id: str) -> None:
        queue = self._behind[task_id]
        while queue:
            claim = queue.popleft()
            verdict = self.was_done(claim) if was_given_before(claim.request) else None
            if verdict is None:
                advance(claim, READY)
                self.held[task_id] = claim
                self._make_ready(claim)
                break
            advance(claim, DROPPED)
            claim.verdict = verdict
            self.on_done_before(claim)
        if not queue:
            del self._behind[task_id]

    def take_unstarted(self) -> list[Claim]:
        """Everything that was not given to the executor, out of the table, to be released; in order of arrival."""
        taken = self._empty()
        advance_all(taken, RELEASED)
        return taken

    def drop_unstarted(self) -> int:
        """The session is gone and with it everything that does not run; the broker gives it out again."""
        dropped = self._empty()
        advance_all(dropped, LOST)
        self.on_freed()
        return len(dropped)

    def _empty(self) -> list[Claim]:
        taken = [*self.early, *self.suspects, *self.ready, *self.gated.values()]
        for claim in taken:
            del self.held[claim.id]
        for gate in (self.gated, self.newly_gated, self.lined, self._gated_suspects):
            gate.clear()
        self.ready.clear()
        self.early.clear()
        self.suspects.clear()
        for queue in self._behind.values():
            taken.extend(queue)
        self._behind.clear()
        taken.extend(claim for _, _, claim in self._later if claim.state == PARKED)
        self._later.clear()
        self._later_count = 0
        return taken

    def take_waiting(self, is_wanted: Callable[[Claim], bool]) -> list[Claim]:
        """Out of the table, whatever of it was not given to the executor and is wanted; their state stays."""
        taken = [claim for _, claim in self.later() if is_wanted(claim)]
        self._later_count -= len(taken)
        gone = set(map(id, taken))
        self._later = [entry for entry in self._later if id(entry[2]) not in gone]
        heapify(self._later)
        for key, behind in list(self._behind.items()):
            taken.extend(_taken_from(behind, is_wanted))
            if not behind:
                del self._behind[key]
        for queue in (self.ready, self.early, self.suspects):
            for claim in _taken_from(queue, is_wanted):
                taken.append(claim)
                self._leave(claim.id)
        for claim in [claim for claim in self.gated.values() if is_wanted(claim)]:
            taken.append(claim)
            self.leave_gate(claim)
        return taken

    def leave_ready(self, claim: Claim) -> None:
        """This one, taken from what is ready, is not to start: out of the table; its state stays."""
        self._leave(claim.id)

    def take_newest(self, count: int) -> list[Claim]:
        """Of what is ready, out of the table, to be released; in order of arrival."""
        taken = [self.ready.pop() for _ in range(min(count, len(self.ready)))]
        taken.reverse()
        advance_all(taken, RELEASED)
        for claim in taken:
            self._leave(claim.id)
        return taken

    def take_ready(self, claims: Collection[Claim]) -> None:
        """These, of what is ready, out of the table; they will come again, and their state stays."""
        gone = set(map(id, claims))
        for claim in _taken_from(self.ready, lambda claim: id(claim) in gone):
            self.totals[claim.request.task] -= 1
            self._leave(claim.id)

    def put_back(self, claim: Claim) -> Claim:
        """The executor did not start it: out of the table, to be released."""
        advance(claim, RELEASED)
        self._leave(claim.id)
        return claim

    def mark_lost(self, claim: Claim) -> None:
        """Its message is no longer ours. What runs, runs on; what does not is forgotten."""
        claim.receipt = None
        if claim.state == RUNNING:
            advance(claim, LOST)
        elif claim.state == READY:
            advance(claim, LOST)
            for queue in (self.ready, self.early, self.suspects):
                if claim in queue:
                    queue.remove(claim)
            if self.gated.get(claim.id) is claim:
                self._ungate(claim)
                self._gated_suspects.discard(claim.id)
            self._leave(claim.id)
            self.on_freed()
        elif claim.state == PARKED:
            advance(claim, LOST)
            self._forget_parked(claim)
            self.on_freed()

    def _forget_parked(self, claim: Claim) -> None:
        queue = self._behind.get(claim.id)
        if queue is not None and claim in queue:
            queue.remove(claim)
            if not queue:
                del self._behind[claim.id]
            return
        self._later_count -= 1  # the heap drops it when its time comes

    # ── outcomes whose message was lost ─────────────────────────────────────────────────────────────────────────

    def remember_done(self, claims: Iterable[Claim]) -> None:
        """Their outcome is written, their message may come again: it need not run a second time. One that was to be
        given back is to run again, so there is nothing to remember."""
        for claim in claims:
            verdict = claim.verdict
            if verdict is None or isinstance(verdict, Release | Park):
                continue
            self.duplicates += 1
            if len(self._done) >= _REMEMBERED:
                del self._done[next(iter(self._done))]
            self._done[claim.id] = _retries(claim.request), verdict

    def was_done(self, claim: Claim) -> Verdict | None:
        """How to settle a message whose attempt has ended here; None: it has not."""
        done = self._done.get(claim.id) if self._done else None
        return done[1] if done is not None and done[0] == _retries(claim.request) else None


def _taken_from(queue: deque[Claim] | list[Claim], is_wanted: Callable[[Claim], bool]) -> list[Claim]:
    chosen = [claim for claim in queue if is_wanted(claim)]
    if chosen:
        gone = set(map(id, chosen))
        kept = [claim for claim in queue if id(claim) not in gone]
        queue.clear()
        queue.extend(kept)
    return chosen


def _by_time(entry: tuple[float, int, Claim]) -> tuple[float, int]:
    return entry[:2]


def was_given_before(request: Request) -> bool:
    """Whether the broker has given its message to somebody before, as far as it tells."""
    return request.redelivered or request.delivery > 1


def _retries(request: Request) -> int:
    retries = request.envelope.headers.get("retries")
    return retries if isinstance(retries, int) else 0


def _same_attempt(one: Claim, other: Claim) -> bool:
    return _retries(one.request) == _retries(other.request) and one.request.envelope.body == other.request.envelope.body
