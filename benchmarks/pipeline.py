"""What one message costs the worker's parent process, stage by stage.

    python benchmarks/pipeline.py [--batch 64] [--messages 50000] [--transports memory,sqlite] [--profile]

An executor that answers at once stands for the pool, so that nothing but the engine and the driver is measured. The
first table times each stage of the engine by itself, in batches; the second whole runs, in CPU time of the process
(all threads) and of the loop's thread. Numbers are the best of three: other load only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from celeriac import plugins
from celeriac.clock import SYSTEM_CLOCK
from celeriac.executors.base import Request, RunnableOptions, Succeeded
from celeriac.ids import task_id
from celeriac.settings import Settings
from celeriac.transports.base import (
    Capabilities,
    Delivery,
    Envelope,
    Outgoing,
    QueueSpec,
    Route,
    Settlement,
)  # fmt: skip
from celeriac.wire.limits import DEFAULT_LIMITS
from celeriac.wire.result_record import encode_record
from celeriac.worker.assembly import Parts, Pipeline, Show, Worker
from celeriac.worker.logs import LogOptions
from celeriac.worker.options import Plan, WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUEUE = QueueSpec(name="celery", exchange="celery", routing_key="celery")
BODY = json.dumps([[2, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
OPTIONS = RunnableOptions(
    ignore_result=False, store_errors_even_if_ignored=False, acks_late=True, acks_on_failure=True,
    acks_on_timeout=True, reject_on_worker_lost=None, retry_on_worker_lost=False, track_started=False,
    time_limit=None, soft_time_limit=None, rate_limit=None, max_retries=3, default_retry_delay=180.0,
)  # fmt: skip


class Task:
    name = "app.add"
    runnable_options = OPTIONS


def envelope() -> Envelope:
    identifier = task_id()
    headers: dict[str, Any] = {
        "lang": "py", "task": "app.add", "id": identifier, "shadow": None, "eta": None, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": identifier,
        "parent_id": None, "argsrepr": "(2, 2)", "kwargsrepr": "{}", "origin": "gen1@here", "ignore_result": False,
        "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    properties = {
        "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": identifier,
        "reply_to": "", "delivery_mode": 2, "priority": 0,
    }  # fmt: skip
    return Envelope(BODY, headers, properties)


PAYLOAD = encode_record(task_id=task_id(), status="SUCCESS", result=4, date_done="2026-11-22T12:00:00+00:00")


def outcome(request: Request) -> Succeeded:
    record = type(PAYLOAD)(request.id, "SUCCESS", PAYLOAD.payload)
    return Succeeded(request.id, record, [], 0.0001, "4")


class InstantExecutor:
    """Every request has succeeded the moment it is submitted; outcomes come in the next turn of the loop."""

    def __init__(self, slots: int = 2, ahead: int = 64) -> None:
        self.slots = slots
        self._capacity = slots * (1 + ahead)
        self._ended: list[Any] = []
        self._wake = asyncio.Event()
        self._is_stopped = False

    async def start(self) -> None:
        pass

    def room(self) -> int:
        return self._capacity - len(self._ended)

    def submit(self, batch: Sequence[Request]) -> None:
        self._ended.extend([outcome(request) for request in batch])
        self._wake.set()

    async def outcomes(self) -> Sequence[Any]:
        while not self._ended and not self._is_stopped:
            self._wake.clear()
            await self._wake.wait()
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, task_id: str, how: str) -> bool:
        return False

    async def stop(self, grace: float) -> Sequence[Request]:
        self._is_stopped = True
        self._wake.set()
        return ()


class NoBroker:
    """A transport that does nothing, to time the engine alone."""

    engine_key = ("nothing",)
    capabilities = Capabilities(
        leases=True, delays=True, priorities=0, fanout=False, counts_attempts=True, confirms=True, dead_letters=True,
        ordered=True, survives_restart=False, max_batch=1000,
    )  # fmt: skip

    async def commit(
        self, results: Sequence[Any], sends: Sequence[Any], settlements: Sequence[Settlement]
    ) -> tuple[()]:
        return ()


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(3))


def deliveries(count: int, base: int) -> list[Delivery]:
    route = Route("", "celery")
    return [Delivery(envelope(), "celery", base + number, route, 0) for number in range(count)]


async def engine(batch: int, messages: int) -> dict[str, float]:
    """µs per message of each stage of the engine, without a broker and without children."""
    executor = InstantExecutor(ahead=batch)
    plan = Plan(hostname="w@here", queues=(QUEUE,), children=2)
    transport: Any = NoBroker()
    store: Any = NoBroker()
    tasks: Any = {"app.add": Task()}
    parts = Parts(plan, tasks, executor, transport, store, DEFAULT_LIMITS, SYSTEM_CLOCK)
    names = ("admit", "dispatch", "outcomes", "settle")
    totals: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(3):
        pipeline = Pipeline(parts, Random(1), {})
        session: Any = pipeline.session
        session._consumer = session.commits = transport
        session._up.set()
        sums = dict.fromkeys(names, 0.0)
        clock = time.perf_counter
        for start in range(0, messages, batch):
            arrived = deliveries(batch, start)
            t0 = clock()
            pipeline.admission.admit(arrived)
            t1 = clock()
            pipeline.dispatch.pump()
            t2 = clock()
            ended = await executor.outcomes()
            t3 = clock()
            pipeline.endings.take(ended)
            t4 = clock()
            taken = pipeline.settle._take()
            assert taken is not None
            await pipeline.settle._write_once(taken)
            t5 = clock()
            sums["admit"] += t1 - t0
            sums["dispatch"] += t2 - t1
            sums["outcomes"] += t4 - t3
            sums["settle"] += t5 - t4
        assert not pipeline.claims.held
        pipeline.supervisor.failed.cancel()
        for name in names:
            totals[name].append(sums[name] / messages * 1e6)
    # the instant executor builds the outcomes inside of submit
    requests = [Request("a", "b", envelope(), "q", "", "q", False, 1, None, None) for _ in range(batch)]
    t0 = time.perf_counter()
    for _ in range(200):
        [outcome(request) for request in requests]
    answering = (time.perf_counter() - t0) / 200 / batch * 1e6
    lowest = {name: min(values) for name, values in totals.items()}
    lowest["dispatch"] -= answering
    return lowest


async def stages(batch: int, messages: int) -> None:
    lowest = await engine(batch, messages)
    print(f"\nengine alone, batches of {batch}, µs per message")
    for name, value in lowest.items():
        print(f"  {name:<10} {value:6.2f}")
    print(f"  {'sum':<10} {sum(lowest.values()):6.2f}   (target: at most 8)")


async def whole(scheme: str, messages: int, folder: Path, show: Callable[[str], None]) -> None:
    url = f"sqlite:///{folder / 'bench.sqlite3'}" if scheme == "sqlite" else f"{scheme}://"
    settings = Settings(broker_url=url, result_backend=url if scheme == "sqlite" else "cache+memory://")
    transport = plugins.load("transport", scheme)(url, settings, SYSTEM_CLOCK)
    store = plugins.load("result_store", scheme)(url, settings, SYSTEM_CLOCK)
    transport.admin().declare([QUEUE])
    publisher = transport.publisher()
    route = Route("", "celery")
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, messages, 500):
        batch = [Outgoing(envelope(), route) for _ in range(min(500, messages - start))]
        publisher.publish(batch, time.monotonic() + 30)
    sent, sent_cpu = time.perf_counter() - began, time.process_time() - cpu
    plan = Plan(hostname="w@here", queues=(QUEUE,), children=2, receive_wait=0.2)
    tasks: Any = {"app.add": Task()}
    executor: Any = InstantExecutor()
    parts = Parts(plan, tasks, executor, transport, store, DEFAULT_LIMITS, SYSTEM_CLOCK)
    options = WorkerOptions(hostname="w@here", queues=(QUEUE,))
    worker = Worker(parts, Show(options, LogOptions(), "", "", settings), Random(1))
    stop = asyncio.Event()
    serving = asyncio.create_task(worker.serve(stop))
    while worker.pipeline is None or not worker.pipeline.session.is_up:  # noqa: ASYNC110 - a benchmark may poll
        await asyncio.sleep(0.001)
    began, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    while worker.pipeline.settle.settled < messages:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.01)
    elapsed = time.perf_counter() - began
    cpu, thread = time.process_time() - cpu, time.thread_time() - thread
    stop.set()
    code = await serving
    per = 1e6 / messages
    show(
        f"  {scheme:<8} {messages / elapsed:9.0f}/s   loop {thread * per:6.1f}   all threads {cpu * per:6.1f}"
        f"   publish {sent_cpu * per:6.1f} ({messages / sent:.0f}/s)   exit {code}"
    )
    transport.close()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--transports", default="memory,sqlite")
    parser.add_argument("--profile", action="store_true", help="profile the first whole run instead")
    options = parser.parse_args()
    sys.setswitchinterval(0.001)
    if not options.profile:
        asyncio.run(stages(options.batch, options.messages - options.messages % options.batch))
        print("\nwhole runs, µs of CPU per message")
    for scheme in filter(None, options.transports.split(",")):
        for _ in range(1 if options.profile else 3):
            with tempfile.TemporaryDirectory() as folder:
                if options.profile:
                    import cProfile
                    import pstats

                    profile = cProfile.Profile()
                    profile.runcall(asyncio.run, whole(scheme, options.messages, Path(folder), print))
                    pstats.Stats(profile).sort_stats("tottime").print_stats(30)
                    return
                asyncio.run(whole(scheme, options.messages, Path(folder), print))


if __name__ == "__main__":
    main()
