"""Counts what a worker does, for ``/metrics``: from batches as they pass, and from telemetry that is rare anyway.

Only there where probes are asked for. Written on the worker's loop, read by the thread of the probes, which copies:
there is no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.executors.base import Failed, Ignored, Lost, Rejected, Succeeded, WantsRetry

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from celeriac.clock import Clock
    from celeriac.executors.base import InWork, Outcome
    from celeriac.worker.claims import Claims

#: seconds: the buckets of both histograms
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: names of tasks, and of queues, that are told apart; what comes after these is counted as OTHER. So is a task that
#: is not known here: whoever can send a message could fill the memory with names
_MOST_NAMES = 500
OTHER = "(other)"
#: messages whose wait is measured at one time; one of each batch
_SAMPLES = 64


class Tally:
    """What became of the tasks of one name."""

    __slots__ = ("buckets", "dead", "endings", "expired", "lost", "lost_for_good", "revoked", "seconds", "started")

    def __init__(self) -> None:
        self.endings: dict[type[Any], int] = dict.fromkeys((Succeeded, Failed, WantsRetry, Ignored, Rejected), 0)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.started = 0
        self.lost = 0
        self.lost_for_good = 0  #: of these, how many have failed thereby
        self.dead = 0
        self.revoked = 0
        self.expired = 0

    def ended(self) -> int:
        """Attempts that have begun and are over."""
        return sum(self.endings.values()) + self.lost


class Meter:
    """The counts of one worker."""

    def __init__(self, claims: Claims, known: Container[str], clock: Clock) -> None:
        self._claims = claims
        self._known = known
        self._clock = clock
        self.tallies: dict[str, Tally] = {}
        self.wait_buckets = [0] * (len(BOUNDS) + 1)
        self.wait_seconds = 0.0
        self._sampled: dict[str, float] = {}
        self.quarantined: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.leases_lost = 0
        self.processes_started = 0
        self.processes_exited = 0
        self.processes_crashed = 0
        self.broker_errors = 0
        self.reconnects = 0
        self.settle_failures = 0
        self.service_failures = 0

    # ── the batches ──────────────────────────────────────────────────────────────────────────────────────────

    def take_in(self) -> None:
        """A batch has been admitted: remember when, for one of it."""
        ready, sampled = self._claims.ready, self._sampled
        if ready and len(sampled) < _SAMPLES:
            sampled[ready[-1].id] = self._clock.monotonic()

    def take_out(self, outcomes: Sequence[Outcome]) -> None:
        """A batch of outcomes."""
        held, tallies, sampled = self._claims.held, self.tallies, self._sampled
        for outcome in outcomes:
            claim = held.get(outcome.id)
            # conclusions, and what was lost, are told by telemetry
            if claim is None or claim.request.failure is not None or isinstance(outcome, Lost):
                continue
            tally = tallies.get(claim.request.task)
            if tally is None:
                tally = self._tally(claim.request.task)
            runtime = outcome.runtime
            tally.endings[type(outcome)] += 1
            tally.seconds += runtime
            tally.buckets[bisect_left(BOUNDS, runtime)] += 1
            if sampled and (since := sampled.pop(outcome.id, None)) is not None:
                self._note_wait(self._clock.monotonic() - runtime - since)

    def _note_wait(self, seconds: float) -> None:
        seconds = max(seconds, 0.0)
        self.wait_seconds += seconds
        self.wait_buckets[bisect_left(BOUNDS, seconds)] += 1

    def _tally(self, name: str) -> Tally:
        if name not in self.tallies and (name not in self._known or len(self.tallies) >= _MOST_NAMES):
            name = OTHER
        return self.tallies.setdefault(name, Tally())

    def look(self, in_work: Sequence[InWork]) -> None:
        """Once a second: what has started is what has ended and what runs. It never grows less."""
        held = self._claims.held
        running: Counter[str] = Counter()
        for work in in_work:
            claim = held.get(work.id)
            if claim is not None:
                running[claim.request.task] += 1
        for name in running.keys() - self.tallies.keys():
            self._tally(name)
        for name, tally in self.tallies.items():
            tally.started = max(tally.started, tally.ended() + running[name])
        if self._sampled:
            self._sampled = {task_id: at for task_id, at in self._sampled.items() if task_id in held}

    # ── telemetry ────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self) -> Callable[[], None]:
        """Hear what is rare. Returns what ends that."""
        sinks: dict[type[telemetry.Event], Callable[[Any], None]] = {
            telemetry.TaskRevoked: self._revoked,
            telemetry.TaskLost: self._lost,
            telemetry.MessageQuarantined: lambda found: self._count(self.quarantined, found.queue),
            telemetry.MessageDead: self._died,
            telemetry.LeaseWasLost: lambda _: self._add("leases_lost"),
            telemetry.ChildStarted: lambda _: self._add("processes_started"),
            telemetry.ChildExited: lambda found: self._add(
                "processes_exited" if found.expected else "processes_crashed"
            ),
            telemetry.BrokerLost: lambda _: self._add("broker_errors"),
            telemetry.BrokerBack: lambda _: self._add("reconnects"),
            telemetry.SettleDelayed: lambda _: self._add("settle_failures"),
            telemetry.ServiceFailed: lambda _: self._add("service_failures"),
        }
        ends = [telemetry.subscribe(kind, sink) for kind, sink in sinks.items()]

        def end() -> None:
            for each in ends:
                each()

        return end

    def _add(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)

    def _count(self, counter: Counter[str], name: str) -> None:
        counter[name if name in counter or len(counter) < _MOST_NAMES else OTHER] += 1

    def _revoked(self, found: telemetry.TaskRevoked) -> None:
        tally = self._tally(found.name)
        if found.expired:
            tally.expired += 1
        else:
            tally.revoked += 1
        tally.lost += found.terminated

    def _lost(self, found: telemetry.TaskLost) -> None:
        tally = self._tally(found.name)
        tally.lost += 1
        tally.lost_for_good += found.outcome == "failed"

    def _died(self, found: telemetry.MessageDead) -> None:
        self._tally(found.name).dead += 1
        self._count(self.dead, found.queue)
