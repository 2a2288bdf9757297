"""One seed → one run: who there is, what is sent, what goes wrong when; then healing, drain, and the last look."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import OperationalError, PublishUnknown
from celeriac.executors.base import RunnableOptions
from celeriac.rules.counting import Tables
from celeriac.rules.limit import Limit, bind
from celeriac.settings import Settings
from celeriac.transports.base import Envelope, Outgoing, QueueSpec, Route
from celeriac.wire.limits import DEFAULT_LIMITS
from celeriac.wire.revocation import Revocation
from celeriac.worker.assembly import Parts, Show, Worker
from celeriac.worker.limited import Limited
from celeriac.worker.logs import LogOptions
from celeriac.worker.options import Plan, WorkerOptions
from scorecard.simulation.broker import Queues, SimulatedStore, SimulatedTransport
from scorecard.simulation.ledger import Job, Ledger
from scorecard.simulation.limiter import SimulatedLimiter
from scorecard.simulation.loop import HOST
from scorecard.simulation.pool import SimulatedPool
from scorecard.simulation.world import Broken, Host, World

if TYPE_CHECKING:
    from collections.abc import Sequence


LATE, EARLY, SINGLE, PACED = "sim.late", "sim.early", "sim.single", "sim.paced"
TASKS = (LATE, EARLY, SINGLE, PACED)
QUEUE = QueueSpec(name="celery", exchange="celery", routing_key="celery")
BODY = json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
#: virtual seconds that everything accepted may take to end once nothing goes wrong any more
DRAIN = 300.0
#: virtual seconds of idleness, and how often a worker may wake in one of them
IDLE, MOST_ROUNDS = 5.0, 200.0
#: permits of ``SINGLE``
MOST = 2

OPTIONS = RunnableOptions(
    ignore_result=False, store_errors_even_if_ignored=False, acks_late=True, acks_on_failure=True,
    acks_on_timeout=True, reject_on_worker_lost=None, retry_on_worker_lost=False, track_started=False,
    time_limit=None, soft_time_limit=None, rate_limit=None, max_retries=3, default_retry_delay=1.0,
)  # fmt: skip


class SimulatedTask:
    """What a worker's parent knows of a task."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.runnable_options = msgspec.structs.replace(OPTIONS, **options)


class Script(msgspec.Struct, kw_only=True):
    """What is chosen before anything happens."""

    kind: str
    commits: bool
    workers: int
    slots: int
    ahead: int
    multiplier: int
    lease: float
    receive_wait: float
    latency: float
    error_rate: float
    crash_rate: float
    slow: bool
    jobs: int
    span: float  #: seconds in which jobs are sent and things go wrong
    kills: int
    cuts: int
    jumps: int
    stops: int
    revocations: int
    mix: tuple[int, ...]


def script_of(seed: int) -> Script:
    """Calm runs, and runs in which everything goes wrong at one time."""
    random = Random(seed * 7919 + 17)
    kind = random.choice(("lease", "lease", "connection"))
    calm = random.random() < 0.1
    return Script(
        kind=kind, commits=kind == "lease" and random.random() < 0.7, workers=random.choice((1, 2, 2, 3)),
        slots=random.choice((1, 2, 4)), ahead=random.choice((0, 0, 2, 8)), multiplier=random.choice((1, 1, 4)),
        lease=random.choice((3.0, 6.0, 10.0)), receive_wait=random.choice((1.0, 3.0)),
        latency=random.choice((0.0005, 0.005, 0.05)),
        error_rate=0.0 if calm else random.choice((0.0, 0.0, 0.02, 0.05, 0.15)),
        crash_rate=0.0 if calm else random.choice((0.0, 0.0, 0.03, 0.1)), slow=random.random() < 0.3,
        jobs=random.randint(5, 30), span=random.choice((6.0, 12.0, 20.0)),
        kills=0 if calm else random.choice((0, 0, 1, 1, 2, 4)), cuts=0 if calm else random.choice((0, 0, 1, 3)),
        jumps=0 if calm else random.choice((0, 0, 0, 2)), revocations=random.choice((0, 0, 1, 4)),
        mix=random.choice(((1, 0, 0, 0), (3, 1, 0, 0), (0, 1, 0, 0), (1, 1, 2, 2), (1, 0, 2, 0), (1, 0, 0, 2))),
        stops=random.choice((0, 0, 1, 3)),
    )  # fmt: skip


class Member:
    """A worker's place in the fleet: one process after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.is_leaving = False
        self.host: Host
        self.stop: asyncio.Event
        self.serving: asyncio.Task[int]


@functools.cache
def _settings() -> Settings:
    return Settings()


class Scene:
    """One run."""

    def __init__(self, seed: int, shows: bool = False) -> None:
        self.world = World(seed, shows)
        self.script = script_of(seed)
        self.world.latency = self.script.latency
        self.ledger = Ledger(self.world)
        self.ledger.limited = frozenset((SINGLE, PACED))
        self.queues = Queues(self.world)
        self.queues.declare((QUEUE,))
        self.records = self.queues if self.script.commits else Queues(self.world)
        self.tables = Tables()
        self.members = [Member(f"w{number}") for number in range(1, self.script.workers + 1)]
        self.random = Random(seed + 2)
        bound = bind((Limit(concurrency=MOST),), SINGLE, f"task/{SINGLE}", lambda: None)
        paced = bind((Limit(rate="5/s"),), PACED, f"task/{PACED}", lambda: None)
        self.tasks: dict[str, Any] = {
            task.name: task
            for task in (
                SimulatedTask(LATE), SimulatedTask(EARLY, acks_late=False), SimulatedTask(SINGLE, limits=bound),
                SimulatedTask(PACED, limits=paced),
            )
        }  # fmt: skip
        self.limited = Limited(self.tasks, None, DEFAULT_LIMITS)

    # ── the fleet ────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, member: Member) -> None:
        """A process begins in this place."""
        script, world = self.script, self.world
        member.generation += 1
        host = member.host = Host(f"{member.name}.{member.generation}", world)
        host.skew = self.random.choice((0.0, 0.0, 0.0, 2.0, -2.0)) if script.jumps else 0.0
        world.note(host.name, "begins")
        plan = Plan(
            hostname=member.name, queues=(QUEUE,), children=script.slots, prefetch_multiplier=script.multiplier,
            look_ahead=script.ahead, lease=script.lease, receive_wait=script.receive_wait, silence=20.0,
            remote_control=False, heartbeat=None, mingle=False, shutdown_grace=5.0, batch=64,
        )  # fmt: skip
        pool = SimulatedPool(world, host, script.slots, script.ahead, script.crash_rate, script.slow)
        transport: Any = SimulatedTransport(self.queues, host, script.kind, script.lease, script.commits)
        store: Any = SimulatedStore(self.records, host, shares=script.commits)
        parts = Parts(
            plan, self.tasks, pool, transport, store, DEFAULT_LIMITS, host, None, self.limited,
            SimulatedLimiter(self.tables, self.ledger, host),
        )  # fmt: skip
        show = Show(WorkerOptions(hostname=member.name, queues=(QUEUE,)), LogOptions(), "", "", _settings())
        worker = Worker(parts, show, Random(self.random.random()))
        member.stop = asyncio.Event()
        context = contextvars.copy_context()
        context.run(HOST.set, host)
        member.serving = world.loop.create_task(worker.serve(member.stop), context=context)

    async def restart(self, member: Member) -> None:
        await asyncio.sleep(self.random.choice((0.05, 0.5, 3.0)))
        if member.host.is_dead:
            self.start(member)

    # ── producers ────────────────────────────────────────────────────────────────────────────────────────────────

    async def produce(self, host: Host, ids: Sequence[str]) -> None:
        transport = SimulatedTransport(self.queues, host, self.script.kind, self.script.lease, False)
        for task_id in ids:
            await asyncio.sleep(self.random.random() * 2 * self.script.span / len(ids))
            await self._send(transport, task_id)

    async def _send(self, transport: SimulatedTransport, task_id: str) -> None:
        random, world = self.random, self.world
        task = random.choices(TASKS, self.script.mix)[0]
        headers = {"lang": "py", "task": task, "id": task_id, "retries": 0, "eta": None, "expires": None}
        job = self.ledger.jobs[task_id] = Job(id=task_id, task=task, late=task != EARLY)
        not_before = None
        if random.random() < 0.2:
            job.eta = world.wall + random.choice((0.1, 1.0, 5.0))
            headers["eta"] = datetime.fromtimestamp(job.eta, UTC).isoformat()
            not_before = job.eta if random.random() < 0.6 else None  # senders of Celery's leave it to the worker
        if random.random() < 0.15:
            job.expires = world.wall + random.choice((0.3, 2.0, 6.0))
            headers["expires"] = datetime.fromtimestamp(job.expires, UTC).isoformat()
        outgoing = Outgoing(
            Envelope(BODY, headers, {"content_type": "application/json", "content_encoding": "utf-8"}),
            Route("", QUEUE.name), not_before,
        )  # fmt: skip
        world.note("producer", "send", (task_id, task, headers["eta"], headers["expires"]))
        perhaps = False
        for _ in range(4):
            try:
                await world.loop.run_in_executor(None, transport.publish, [outgoing], 0.0)
                job.fate = "ok"
                break
            except PublishUnknown:
                perhaps = True
            except OperationalError:
                pass
            await asyncio.sleep(0.1)
        else:
            job.fate = "info" if perhaps else "fail"
        world.note("producer", job.fate, task_id)

    async def revoke(self, host: Host) -> None:
        transport = SimulatedTransport(self.queues, host, self.script.kind, self.script.lease, False)
        for _ in range(self.script.revocations):
            await asyncio.sleep(self.random.random() * self.script.span / 2)
            if not self.ledger.jobs:
                continue
            task_id = self.random.choice(sorted(self.ledger.jobs))
            entry = Revocation(task_id, signal=self.random.choice(("", "", "SIGKILL")))
            try:
                await self.world.loop.run_in_executor(None, transport.add_revocations, [entry], 600.0)
            except OperationalError:
                continue
            self.world.note("producer", "revoked", task_id)
            self.ledger.jobs[task_id].revoked_at = self.world.loop.time()

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────

    async def strike(self, what: str) -> None:
        """Once, at any time."""
        random, world = self.random, self.world
        await asyncio.sleep(random.random() * self.script.span)
        member = random.choice(self.members)
        host = member.host
        if host.is_dead:
            return
        match what:
            case "stop":
                await self._replace(member)
            case "kill" if random.random() < 0.3:
                world.kill(host)
            case "kill":
                when = random.choice(("dies before", "dies after"))
                host.dies_in = random.randrange(12), when  # type: ignore[assignment]
            case "cut":
                host.cut_until = world.loop.time() + random.choice((0.5, 3.0, 8.0))
                host.troubled_at = host.cut_until
                world.note(host.name, "cut", f"until {host.cut_until:.2f}")
            case _:
                host.skew = random.uniform(-3.0, 3.0)
                world.note(host.name, "clock", f"{host.skew:+.2f}")

    async def _replace(self, member: Member) -> None:
        """A worker is stopped in the midst of its work, and another one started."""
        if member.is_leaving:
            return
        host, began = member.host, self.world.loop.time()
        self.world.note(host.name, "stops")
        member.is_leaving = True
        member.stop.set()
        await asyncio.wait((member.serving,), timeout=120.0)
        member.is_leaving = False
        if host.is_dead:
            return
        if not member.serving.done():
            raise Broken(f"{host.name} does not stop")
        code = member.serving.result()
        self.world.note(host.name, "ends", code)
        kept = [receipt for receipt, one in self.queues.holdings.items() if one.host is host and not one.was_lost]
        if kept and code == 0 and host.troubled_at < began - self.script.lease:
            raise Broken(f"I1: {host.name} has stopped and {len(kept)} messages are still held")
        self.start(member)

    def died(self, host: Host) -> None:
        """The world has killed a host: the broker notices, and somebody starts another."""
        member = next(member for member in self.members if member.host is host)
        outside = contextvars.Context()
        self.world.loop.create_task(self.restart(member), context=outside)
        if self.script.kind == "connection":
            delay = self.random.choice((0.01, 2.0))
            self.world.loop.call_later(delay, self.queues.disconnect, host, context=outside)

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def play(self) -> None:
        script, world = self.script, self.world
        world.on_death = self.died
        world.note("world", "script", script)
        for member in self.members:
            self.start(member)
        world.error_rate = script.error_rate
        producers = [Host(f"p{number}", world) for number in (1, 2)]
        ids = [f"t{number}" for number in range(script.jobs)]
        acts = [self.produce(host, ids[index::2]) for index, host in enumerate(producers) if ids[index::2]]
        acts += [self.revoke(producers[0])]
        acts += [self.strike("kill") for _ in range(script.kills)]
        acts += [self.strike("cut") for _ in range(script.cuts)]
        acts += [self.strike("jump") for _ in range(script.jumps)]
        acts += [self.strike("stop") for _ in range(script.stops)]
        await asyncio.gather(*acts)
        world.note("world", "heals")
        world.error_rate = 0.0
        for member in self.members:
            member.host.dies_in, member.host.cut_until = None, 0.0
        await self._drain()
        await self._idle()
        await self._leave()

    async def _drain(self) -> None:
        ends, quiet = self.world.loop.time() + DRAIN, 0
        while quiet < 3:  # what is acknowledged early is nowhere until it starts
            quiet = 0 if self.queues.left() or self.ledger.unfinished() or self.ledger.at_work else quiet + 1
            for member in self.members:
                if member.serving.done() and not member.host.is_dead and not member.is_leaving:
                    raise Broken(f"{member.host.name} has ended: {member.serving.exception()!r}")
            if self.world.loop.time() > ends:
                open_ = ", ".join(job.id for job in self.ledger.unfinished())
                raise Broken(f"I1: not at rest {DRAIN:g} s after the healing: {self.queues.left()} messages, {open_}")
            await asyncio.sleep(0.5)

    async def _idle(self) -> None:
        """Who has nothing to do, does next to nothing."""
        before = self.world.loop.rounds
        await asyncio.sleep(IDLE)
        pace = (self.world.loop.rounds - before) / IDLE / len(self.members)
        if pace > MOST_ROUNDS:
            raise Broken(f"an idle worker wakes {pace:.0f} times a second")

    async def _leave(self) -> None:
        for member in self.members:
            if member.host.is_dead:  # and about to be restarted
                await asyncio.sleep(5.0)
            member.stop.set()
        for member in self.members:
            try:
                async with asyncio.timeout(60.0):
                    code = await member.serving
            except TimeoutError:
                raise Broken(f"{member.host.name} does not stop") from None
            if code:
                raise Broken(f"{member.host.name} stopped with {code}")
        if self.queues._held:
            raise Broken("I1: workers have stopped and messages are still held")
        if self.world.loop.errors:
            raise Broken(f"an error that nobody caught: {self.world.loop.errors[0]!r}")

    def run(self) -> None:
        """Raises ``Broken``, or whatever else breaks."""
        try:
            self.world.loop.run_until_complete(self.play())
        except RuntimeError:  # the loop was stopped
            if self.world.error is None:
                raise
            raise self.world.error from None
        finally:
            self.world.is_over = True
            self.world.loop.abandon()
