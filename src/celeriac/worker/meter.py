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
#: messages whose wait is measured at one time, and seconds between two of them
_SAMPLES, _SAMPLE_EVERY = 64, 0.05


class Tally:
    """What became of the tasks of one name. Each number only grows, also for a reader in another thread."""

    __slots__ = (
        "buckets",
        "dead",
        "endings",
        "expired",
        "lost",
        "lost_for_good",
        "revoked",
        "seconds",
        "started",
        "succeeded",
    )

    def __init__(self) -> None:
        self.endings: dict[type[Any], int] = dict.fromkeys((Failed, WantsRetry, Ignored, Rejected), 0)
        self.succeeded = 0
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
        return sum(self.buckets) + self.lost


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
        self._next_sample = 0.0
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
        if ready and len(sampled) < _SAMPLES and (now := self._clock.monotonic()) >= self._next_sample:
            self._next_sample = now + _SAMPLE_EVERY
            sampled[ready[-1].id] = now

    def take_out(self, outcomes: Sequence[Outcome]) -> None:
        """A batch of outcomes."""
        held, tallies = self._claims.held, self.tallies
        name, tally, buckets = "", None, self.wait_buckets
        for outcome in outcomes:
            claim = held.get(outcome.id)
            kind = type(outcome)
            # conclusions, and what was lost, are told by telemetry
            if claim is None or kind is Lost or claim.request.failure is not None:
                continue
            if claim.request.task != name or tally is None:
                name = claim.request.task
                tally = tallies.get(name) or self._tally(name)
                buckets = tally.buckets
            runtime: float = outcome.runtime  # type: ignore[union-attr]  # not Lost
            tally.seconds += runtime
            buckets[bisect_left(BOUNDS, runtime)] += 1
            if kind is Succeeded:
                tally.succeeded += 1
            else:
                tally.endings[kind] += 1
        if self._sampled:
            self._note_waits(outcomes)

    def _note_waits(self, outcomes: Sequence[Outcome]) -> None:
        now = self._clock.monotonic()
        for outcome in outcomes:
            since = self._sampled.pop(outcome.id, None)
            if since is not None and not isinstance(outcome, Lost):
                self._note_wait(now - outcome.runtime - since)

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
