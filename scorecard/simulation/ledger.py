"""What really happened, as nobody in the simulated system can know it, and what must hold of it at every step."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from celeriac.transports.base import Ack, Bury, Release
from scorecard.simulation.world import Broken

if TYPE_CHECKING:
    from celeriac.executors.base import Request
    from celeriac.transports.base import Verdict
    from scorecard.simulation.world import Host, World

READY = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
#: seconds that a decision may take to become an act on the same host
HAIR = 0.05
#: (task id, retries): what one message is about
Attempt = tuple[str, int]


class Job(msgspec.Struct, kw_only=True):
    """A call of a producer, and what has become of it."""

    id: str
    task: str
    late: bool
    eta: float = 0.0
    expires: float = 0.0
    fate: str = ""  #: ok, fail, info
    revoked_at: float | None = None
    #: ends that are recorded, in order
    ends: list[tuple[str, Any]] = []
    values: list[str] = []  #: what its runs have returned
    buried: str = ""
    #: why it may have no end, or another one
    excuses: set[str] = set()


class Run(msgspec.Struct, kw_only=True, eq=False):
    """One start."""

    attempt: Attempt
    host: Host
    began: float
    ended: float | None = None
    was_cut: bool = False  #: its process died, or was made to end


class Ledger:
    """Raises ``Broken`` at the very step that breaks an invariant."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.ledger = self
        self.jobs: dict[str, Job] = {}
        self.runs: dict[Attempt, list[Run]] = defaultdict(list)
        self.at_work: dict[tuple[str, str], Run] = {}  #: (host, id)
        #: messages of this attempt that were ever put into the broker
        self.copies: Counter[Attempt] = Counter()
        #: times that the broker has given one out
        self.deliveries: Counter[Attempt] = Counter()
        #: times that it had to take one back by itself
        self.redeliveries: Counter[Attempt] = Counter()
        self.known_revoked: dict[str, dict[str, float]] = defaultdict(dict)  #: host → id → since
        #: permits and turns that were ever granted, by task
        self.grants: Counter[str] = Counter()
        self.limited: frozenset[str] = frozenset()
        self.starts = 0
        self.starts_of: dict[str, list[float]] = defaultdict(list)  #: task → times

    def _break(self, name: str, text: str) -> NoReturn:
        self._world.end(Broken(f"{name}: {text}"))

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, attempt: Attempt) -> None:
        self.copies[attempt] += 1

    def delivered(self, attempt: Attempt) -> None:
        self.deliveries[attempt] += 1

    def ran_out(self, attempt: Attempt, host: Host, taken_at: float, renewed_at: float, was_lost: bool) -> None:
        """The broker takes a message back from a holder who did not renew it any more."""
        self.redeliveries[attempt] += 1
        job = self.jobs.get(attempt[0])
        # what could not be acknowledged early is let go, and renewed perhaps until then
        since = renewed_at if job is None or job.late else taken_at
        if not (host.is_dead or was_lost or host.troubled_at >= since):
            self._break("lease", f"{attempt} ran out on {host.name}, whose line was sound since {since:.2f}")

    def settled(self, attempt: Attempt, verdict: Verdict, host: Host) -> None:
        """The broker obeys a verdict."""
        job = self.jobs.get(attempt[0])
        if job is None:
            return
        if isinstance(verdict, Bury):
            job.buried = verdict.reason
        elif isinstance(verdict, Ack) and job.late:
            went_on = any(self.copies[attempt[0], later] for later in range(attempt[1] + 1, attempt[1] + 4))
            if not job.ends and not went_on:
                self._break("I2", f"{attempt} was acknowledged by {host.name} and has no recorded end")
        elif isinstance(verdict, Ack):
            job.excuses.add(f"acknowledged early by {host.name}")
        elif isinstance(verdict, Release) and self.copies[attempt] == 1:
            runs = self.runs[attempt]
            last = runs[-1] if runs else None
            if last is not None and last.host is host and last.ended is None:
                self._break("I5", f"{attempt} was given back by {host.name}, where it runs")

    def wrote(self, task_id: str, status: str, value: Any) -> None:
        """A record has changed."""
        job = self.jobs.get(task_id)
        if job is None or status not in READY:
            return
        if job.ends and job.ends[-1] != (status, value):
            is_single = all(count == 1 for key, count in self.copies.items() if key[0] == task_id)
            if is_single and not any(self.redeliveries[key] for key in self.copies if key[0] == task_id):
                self._break("I6", f"{task_id} was {job.ends[-1]}, now {status} {value}")
        if status == "SUCCESS" and value not in job.values:
            self._break("I3", f"{task_id} is stored as {value!r}, its runs returned {job.values}")
        if not job.ends or job.ends[-1] != (status, value):
            job.ends.append((status, value))

    def handed_over(self, request: Request, host: Host) -> None:
        """The engine gives it to the pool."""
        job, clock = self.jobs.get(request.id), min(self._world.wall, host.time())
        if job is not None and job.expires and clock > job.expires + HAIR and request.failure is None:
            self._break("I13", f"{job.id} is handed over on {host.name} {clock - job.expires:.2f} s after it expired")

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def started(self, request: Request, host: Host) -> Run:
        world, now = self._world, self._world.loop.time()
        attempt = (request.id, request.envelope.headers.get("retries") or 0)
        job = self.jobs.get(request.id)
        if job is None or (job.fate == "fail" and not self.copies[attempt]):
            self._break("I0", f"{attempt} runs on {host.name} and was never sent")
        if (host.name, request.id) in self.at_work:
            self._break("I5", f"{attempt} runs twice at one time on {host.name}")
        if host.is_dead:
            self._break("I5", f"{attempt} starts on {host.name}, which is dead")
        for run in self.runs[attempt]:
            if run.ended is None and self.copies[attempt] == 1 and not self.redeliveries[attempt]:
                self._break("I5", f"{attempt} starts on {host.name} while it runs on {run.host.name}")
        if len(self.runs[attempt]) >= self.deliveries[attempt]:
            self._break("I4", f"{attempt} was delivered {self.deliveries[attempt]}× and starts once more")
        if not job.late and len(self.runs[attempt]) >= self.copies[attempt]:
            self._break("I4", f"{attempt} is at most once, and starts again on {host.name}")
        since = self.known_revoked[host.name].get(request.id)
        if since is not None and now > since + HAIR:
            self._break("I9", f"{attempt} starts on {host.name}, which knew since {since:.2f} that it is revoked")
        if job.eta and not attempt[1] and max(world.wall, host.time()) < job.eta - HAIR:
            self._break("I12", f"{attempt} starts {job.eta - world.wall:.2f} s early")
        if request.task in self.limited and len(self.starts_of[request.task]) >= self.grants[request.task]:
            self._break("I10", f"{attempt} starts on {host.name} without having been allowed to")
        self.starts += 1
        self.starts_of[request.task].append(now)
        run = Run(attempt=attempt, host=host, began=now)
        self.runs[attempt].append(run)
        self.at_work[host.name, request.id] = run
        return run

    def ended(self, run: Run, value: str | None, was_cut: bool = False) -> None:
        run.ended, run.was_cut = self._world.loop.time(), was_cut
        self.at_work.pop((run.host.name, run.attempt[0]), None)
        if value is not None:
            self.jobs[run.attempt[0]].values.append(value)

    def host_died(self, host: Host) -> None:
        for (name, _), run in list(self.at_work.items()):
            if name == host.name:
                self.ended(run, None, was_cut=True)
        self.known_revoked.pop(host.name, None)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def unfinished(self) -> list[Job]:
        """What was accepted and has no end yet."""
        return [
            job
            for job in self.jobs.values()
            if job.fate == "ok" and not job.ends and not job.buried and (job.late or not job.excuses)
        ]  # fmt: skip
