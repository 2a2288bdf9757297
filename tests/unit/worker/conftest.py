"""A worker in a bottle: a broker, a store and an executor that do what the test says, and the real engine between."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import OperationalError
from celeriac.executors.base import Failed, Lost, Outcome, Request, RunnableOptions, Succeeded, WantsRetry
from celeriac.limiters.memory import MemoryLimiter
from celeriac.rules.limit import bind
from celeriac.rules.limit_keys import Parameters
from celeriac.settings import Settings
from celeriac.transports.base import (
    Ack,
    Bury,
    Capabilities,
    Delivery,
    Envelope,
    Outgoing,
    Park,
    QueueSpec,
    Release,
    Route,
    Settlement,
)  # fmt: skip
from celeriac.wire.failure import exception_from_wire
from celeriac.wire.limits import DEFAULT_LIMITS
from celeriac.wire.result_record import ResultRecord, decode_record, encode_record
from celeriac.worker.assembly import Parts, Show, Worker
from celeriac.worker.limited import Limited
from celeriac.worker.logs import LogOptions
from celeriac.worker.options import Plan, WorkerOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from celeriac.rules.limit import Limit

QUEUE = QueueSpec(name="celery", exchange="celery", routing_key="celery")
DEADLINE = 60.0
#: what was counted under a name stays while the process lives
_numbers = count(1)
BODY = json.dumps([[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()


class Message(msgspec.Struct):
    envelope: Envelope
    route: Route
    attempt: int = 0
    redelivered: bool = False
    malformed: str | None = None
    not_before: float = 0.0


class Faults:
    """``fail("settle", error, times)``: the next calls of that name raise."""

    def __init__(self) -> None:
        self.planned: dict[str, deque[Exception]] = {}

    def fail(self, call: str, error: Exception, times: int = 1) -> None:
        self.planned.setdefault(call, deque()).extend([error] * times)

    def check(self, call: str) -> None:
        if self.planned.get(call):
            raise self.planned[call].popleft()


class Broker(Faults):
    """Keeps messages, gives them out under receipts, writes down every verdict."""

    engine_key = ("bottle",)

    def __init__(self, delays: bool = True, commits: bool = False, store: Store | None = None) -> None:
        super().__init__()
        self.capabilities = Capabilities(
            leases=True, delays=delays, priorities=0, fanout=False, counts_attempts=True, confirms=True,
            dead_letters=True, ordered=True, survives_restart=False, max_batch=1000,
        )  # fmt: skip
        self.commits = commits
        self.store = store
        self.waiting: deque[Message] = deque()
        self.held: dict[int, Message] = {}
        self.owners: dict[int, int] = {}
        self.log: list[tuple[str, str, str]] = []  #: verdict, id, detail
        self.published: list[Outgoing] = []
        self.consumers = 0
        self.renewals: list[int] = []
        self.commit_sizes: list[tuple[int, int, int]] = []
        self.arrived = asyncio.Event()
        self.receiving = 0  #: how many fetches have had to wait
        self._receipt = 0

    def put(
        self, task: str = "app.add", task_id: str = "t1", *, body: bytes = BODY, attempt: int = 0, **headers: Any
    ) -> None:
        made = {"lang": "py", "task": task, "id": task_id, "retries": 0, **headers}
        properties = {"content_type": "application/json", "content_encoding": "utf-8", "reply_to": "me"}
        self.put_message(Message(Envelope(body, made, properties), Route("", "celery"), attempt, attempt > 0))

    def put_message(self, message: Message) -> None:
        self.waiting.append(message)
        self.arrived.set()

    def take(self, limit: int, consumer: int) -> list[Delivery]:
        taken: list[Delivery] = []
        later: list[Message] = []
        while self.waiting and len(taken) < limit:
            message = self.waiting.popleft()
            if message.not_before > SYSTEM_CLOCK.time():
                later.append(message)
                continue
            self._receipt += 1
            self.held[self._receipt] = message
            self.owners[self._receipt] = consumer
            taken.append(
                Delivery(
                    message.envelope, "celery", self._receipt, message.route, message.attempt, message.redelivered,
                    message.malformed,
                )
            )  # fmt: skip
        self.waiting.extend(later)
        return taken

    def take_away(self, task_id: str) -> Message:
        """The lease of this message ends behind the worker's back."""
        receipt = next(key for key, message in self.held.items() if message.envelope.headers["id"] == task_id)
        return self.held.pop(receipt)

    def apply(self, batch: Sequence[Settlement]) -> list[int]:
        lost = []
        for settlement in batch:
            message = self.held.pop(settlement.receipt, None)
            if message is None:
                lost.append(settlement.receipt)
                continue
            task_id = str(message.envelope.headers.get("id"))
            match settlement.verdict:
                case Ack():
                    self.log.append(("ack", task_id, ""))
                case Release(count_attempt=counted):
                    self.log.append(("release", task_id, "counted" if counted else ""))
                    message.attempt += counted
                    message.redelivered = True
                    self.waiting.appendleft(message)
                    self.arrived.set()
                case Park(until=until):
                    self.log.append(("park", task_id, f"{until:.3f}"))
                    message.not_before = until
                    self.waiting.append(message)
                case Bury(reason=reason, quarantine=quarantine):
                    self.log.append(("quarantine" if quarantine else "dead", task_id, reason))
        return lost

    def verdicts(self, task_id: str) -> list[str]:
        return [verdict for verdict, which, _ in self.log if which == task_id]

    # the seam
    def publisher(self) -> Broker:
        return self

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        self.check("publish")
        self.published.extend(batch)

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> BottleConsumer:
        self.check("consumer")
        self.consumers += 1
        kind = CommittingConsumer if self.commits else BottleConsumer
        return kind(self, self.consumers)

    def admin(self) -> Broker:
        return self

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        self.check("declare")

    def depth(self, queue: str) -> int:
        return len(self.waiting)

    def purge(self, queue: str) -> int:
        count = len(self.waiting)
        self.waiting.clear()
        return count

    def close(self) -> None:
        pass


class BottleConsumer:
    def __init__(self, broker: Broker, number: int) -> None:
        self.broker = broker
        self.number = number
        self.is_closed = False

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        broker = self.broker
        broker.check("receive")
        taken = broker.take(limit, self.number)
        if not taken:
            broker.arrived.clear()
            broker.receiving += 1
            try:
                async with asyncio.timeout(wait):
                    await broker.arrived.wait()
            except TimeoutError:
                pass
            if self.is_closed:
                return []
            broker.check("receive")
            taken = broker.take(limit, self.number)
        return taken

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[int]:
        self.broker.check("settle")
        await asyncio.sleep(0)
        return self.broker.apply(batch)

    async def renew(self, receipts: Sequence[int]) -> Sequence[int]:
        self.broker.check("renew")
        self.broker.renewals.append(len(receipts))
        return [receipt for receipt in receipts if receipt not in self.broker.held]

    async def close(self) -> None:
        """What this consumer holds is given back."""
        self.is_closed = True
        for receipt, owner in list(self.broker.owners.items()):
            message = self.broker.held.get(receipt)
            if owner == self.number and message is not None:
                del self.broker.held[receipt]
                message.redelivered = True
                self.broker.put_message(message)


class CommittingConsumer(BottleConsumer):
    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[int]:
        self.broker.check("commit")
        await asyncio.sleep(0)
        self.broker.commit_sizes.append((len(results), len(sends), len(settlements)))
        assert self.broker.store is not None
        self.broker.store.write(results)
        self.broker.published.extend(sends)
        return self.broker.apply(settlements)


class Store(Faults):
    def __init__(self, engine_key: tuple[str, ...] = ("elsewhere",)) -> None:
        super().__init__()
        self.engine_key = engine_key
        self.records: dict[str, ResultRecord] = {}
        self.writes = 0

    def write(self, records: Sequence[ResultRecord]) -> None:
        self.check("write")
        self.writes += 1
        for record in records:
            self.records[record.task_id] = record

    def state(self, task_id: str) -> str | None:
        record = self.records.get(task_id)
        return None if record is None else record.status

    def result(self, task_id: str) -> Any:
        return decode_record(self.records[task_id])["result"]


def success(request: Request, sends: Sequence[Outgoing] = ()) -> Succeeded:
    record = encode_record(task_id=request.id, status="SUCCESS", result=3, date_done=None)
    return Succeeded(request.id, record, list(sends), 0.01, "3")


def concluded(request: Request) -> Failed | WantsRetry:
    """What a child answers that has called the error callbacks of a task the parent calls failed, or the hooks of one
    that is to be retried."""
    assert request.failure is not None
    status = "RETRY" if "retry_in" in request.failure else "FAILURE"
    error = exception_from_wire(request.failure)
    record = encode_record(task_id=request.id, status=status, result=error, date_done=None)
    if status == "RETRY":
        again = Outgoing(Envelope(b"again", {"id": request.id, "retries": 1}, {}), Route("", "celery"))
        return WantsRetry(request.id, record, [again], 0.01, "told", "in 180s")
    errback = Outgoing(Envelope(b"errback", {}, {}), Route("", "celery"))
    return Failed(request.id, record, [errback], 0.01, "told", "", False)


class ScriptedExecutor:
    """Runs nothing: every task ends as its script says, or when the test says so."""

    def __init__(self, slots: int = 2, ahead: int = 4) -> None:
        self.slots = slots
        self.ahead = ahead
        self.script: dict[str, Callable[[Request], Outcome | None]] = {"app.add": success}
        self.taken: list[Request] = []
        self.running: dict[str, Request] = {}
        self.unstarted: set[str] = set()  #: ids that are given back when the executor stops
        self.waiting: set[str] = set()  #: ids that no child has
        self.cancelled: list[tuple[str, str]] = []
        self.concluded: list[str] = []  #: ids of what was to be concluded, not run
        self.conclude: Callable[[Request], Outcome] = concluded
        self.is_stopping = False
        self._outcomes: list[Outcome] = []
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self.is_stopped = False
        self.kill_now = asyncio.Event()

    async def start(self) -> None:
        pass

    def room(self) -> int:
        return self.slots + self.ahead - len(self.running)

    def submit(self, batch: Sequence[Request]) -> None:
        if self.is_stopping and batch[0].failure is not None:
            raise OperationalError("stopping")
        assert not self.is_stopped, "work was given to a pool that has stopped"
        assert len(batch) <= self.room()
        for request in batch:
            assert request.id not in self.running, "one id runs twice at one time"
            if request.failure is not None:
                self.concluded.append(request.id)
                self.running[request.id] = request
                self.finish(request.id, self.conclude(request))
                continue
            self.taken.append(request)
            self.running[request.id] = request
            outcome = self.script.get(request.task, success)(request)
            if outcome is not None:
                self.finish(request.id, outcome)

    def spare(self, is_wanted: Callable[[Request], bool]) -> Sequence[Request]:
        spared = [self.running[name] for name in sorted(self.waiting & set(self.running))]
        spared = [request for request in spared if is_wanted(request)]
        for request in spared:
            del self.running[request.id]
        return spared

    def finish(self, task_id: str, outcome: Outcome | None = None) -> None:
        request = self.running.pop(task_id)
        self._outcomes.append(success(request) if outcome is None else outcome)
        self._wake.set()
        self._ended.set()

    async def outcomes(self) -> Sequence[Outcome]:
        while not self._outcomes:
            self._wake.clear()
            await self._wake.wait()
        batch, self._outcomes = self._outcomes, []
        return batch

    def cancel(self, task_id: str, how: Literal["soft", "hard"]) -> bool:
        self.cancelled.append((task_id, how))
        return task_id in self.running

    async def stop(self, grace: float) -> Sequence[Request]:
        self.is_stopping = True
        back = [self.running.pop(task_id) for task_id in list(self.running) if task_id in self.unstarted]
        if grace == 0:
            self.kill_now.set()
        kill = asyncio.ensure_future(self.kill_now.wait())
        try:
            async with asyncio.timeout(grace or None):
                while self.running and not self.kill_now.is_set():
                    self._ended.clear()
                    ended = asyncio.ensure_future(self._ended.wait())
                    await asyncio.wait((ended, kill), return_when=asyncio.FIRST_COMPLETED)
                    ended.cancel()
        except TimeoutError:
            pass
        finally:
            kill.cancel()
        for task_id in list(self.running):
            self.finish(task_id, Lost(task_id, True, "stopped", "signal 9 (SIGKILL)"))
        self.is_stopped = True
        return back


OPTIONS = RunnableOptions(
    ignore_result=False, store_errors_even_if_ignored=False, acks_late=True, acks_on_failure=True,
    acks_on_timeout=True, reject_on_worker_lost=None, retry_on_worker_lost=False, track_started=False,
    time_limit=None, soft_time_limit=None, rate_limit=None, max_retries=3, default_retry_delay=180.0,
)  # fmt: skip


class FakeTask:
    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.runnable_options = msgspec.structs.replace(OPTIONS, **options)


class Rig:
    """Everything around one worker."""

    def __init__(
        self, delays: bool = True, commits: bool = False, slots: int = 2, ahead: int = 4,
        limits: Mapping[str, Sequence[Limit]] | None = None, queue_limits: Any = None, limiter: Any = None, **plan: Any,
    ) -> None:  # fmt: skip
        self.store = Store(("bottle",) if commits else ("elsewhere",))
        self.broker = Broker(delays, commits, self.store)
        self.executor = ScriptedExecutor(slots, ahead)
        self.tasks = {
            task.name: task
            for task in (
                FakeTask("app.add"),
                FakeTask("app.slow"),
                FakeTask("app.early", acks_late=False),
                FakeTask("app.quiet", ignore_result=True),
                FakeTask("app.strict", acks_on_failure=False, acks_on_timeout=False),
                FakeTask("app.resent", retry_on_worker_lost=True),
                FakeTask("app.limited", time_limit=9.0, soft_time_limit=5.0),
                FakeTask("app.paced", rate_limit="20/s"),
                FakeTask("app.hourly", rate_limit="1/h"),
            )
        }
        parameters = Parameters(positional=("tenant", "number"))
        for name, some in (limits or {}).items():
            bound = bind(some, name, f"task/{name}", lambda: parameters)
            self.tasks[name] = FakeTask(name, limits=bound, parameters=parameters)
            self.executor.script[name] = lambda _: None
        self.limited = Limited(self.tasks, queue_limits, DEFAULT_LIMITS)  # type: ignore[arg-type]  # fakes
        self.limiter = limiter or (
            MemoryLimiter(f"memory://rig-{next(_numbers)}", None, SYSTEM_CLOCK) if self.limited else None
        )
        self.executor.script["app.slow"] = lambda _: None
        self.executor.script["app.early"] = lambda _: None
        defaults: dict[str, Any] = {
            "hostname": "w1@here", "queues": (QUEUE,), "pool": "scripted", "receive_wait": 0.02, "lease": 30.0,
            "shutdown_grace": 5.0, "flush_timeout": 5.0, "prefetch_multiplier": 4,
        }  # fmt: skip
        self.plan = Plan(**{**defaults, **plan})
        self.stop = asyncio.Event()
        self.worker = Worker(self._parts(), self._show(), Random(1))
        self.code: int | None = None

    def _parts(self) -> Parts:
        tasks: Any = self.tasks
        transport: Any = self.broker
        store: Any = self.store
        return Parts(
            self.plan, tasks, self.executor, transport, store, DEFAULT_LIMITS, SYSTEM_CLOCK, None, self.limited,
            self.limiter,
        )  # fmt: skip

    def _show(self) -> Show:
        options = WorkerOptions(hostname="w1@here", queues=(QUEUE,))
        return Show(options, LogOptions(), "bottle", "bottle", Settings())

    @property
    def claims(self) -> Any:
        assert self.worker.pipeline is not None
        return self.worker.pipeline.claims

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for an effect; the deadline is a failure."""
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110 - the effects are those of fakes, which tell nobody
                await asyncio.sleep(0.001)

    async def settled(self, *task_ids: str) -> None:
        await self.until(lambda: all(self.broker.verdicts(task_id) for task_id in task_ids))

    async def started(self, *task_ids: str) -> None:
        await self.until(lambda: all(task_id in self.executor.running for task_id in task_ids))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """The worker serves inside; at the end it is stopped warm and :attr:`code` is its exit code."""
        serving = asyncio.create_task(self.worker.serve(self.stop))
        try:
            await self.until(lambda: serving.done() or (self.worker.pipeline and self.worker.pipeline.session.is_up))
            yield self
            self.stop.set()
            async with asyncio.timeout(DEADLINE):
                self.code = await serving
        finally:
            if not serving.done():
                serving.cancel()
                await asyncio.wait((serving,))


@pytest.fixture
def make_rig() -> type[Rig]:
    return Rig


@pytest.fixture
def message() -> type[Message]:
    return Message
