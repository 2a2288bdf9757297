"""What one message of celeriac costs on its way, stage by stage, against a real broker: where the next step is.

    python benchmarks/stages.py redis://localhost:6379/0 [RESULTS_URL]

Each stage runs alone in one process: wall time with the waits for the broker in it, and processor time of all the
process's threads. The engine's own stages and the child's are measured without a broker.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from celeriac import Celeriac, plugins
from celeriac.clock import SYSTEM_CLOCK
from celeriac.settings import Settings
from celeriac.transports.base import ACK, Commits, Delivery, Outgoing, Route, Settlement
from celeriac.wire.result_record import ResultRecord
from executor import pool_cost, runner_cost
from pipeline import PAYLOAD, QUEUE, engine, envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from places import Place

#: messages that the worker moves at once when it is busy
BATCH = 64
ROUTE = Route("", "celery")


class Watch:
    """Adds up wall and processor time over the parts of a loop."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> Watch:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu

    def per(self, count: int) -> tuple[float, float]:
        return self.wall / count * 1e6, self.cpu / count * 1e6


class Bench:
    """The drivers that a URL names, as app and worker would open them."""

    def __init__(self, broker: str, results: str) -> None:
        settings = Settings(broker_url=broker, result_backend=results)
        scheme, store = broker.partition("://")[0], results.partition("://")[0]
        self.transport = plugins.load("transport", scheme)(broker, settings, SYSTEM_CLOCK)
        self.store = plugins.load("result_store", store)(results, settings, SYSTEM_CLOCK)
        self.shares_engine = self.store.engine_key == self.transport.engine_key
        self.transport.admin().declare([QUEUE])
        self.publisher = self.transport.publisher()

    def publish(self, count: int, size: int) -> tuple[float, float]:
        watch = Watch()
        for _ in range(0, count, size):
            batch = [Outgoing(envelope(), ROUTE) for _ in range(size)]
            with watch:
                self.publisher.publish(batch, time.monotonic() + 30)
        return watch.per(-(-count // size) * size)

    async def consume(self, count: int, *, results: bool) -> tuple[tuple[float, float], tuple[float, float]]:
        """Claiming and settling, in batches; the queue holds ``count`` messages."""
        consumer = self.transport.consumer([QUEUE], "bench")
        claims, ends, done = Watch(), Watch(), 0
        while done < count:
            with claims:
                found = await consumer.receive(BATCH, 1.0)
            if not found:
                raise RuntimeError(f"{count - done} of {count} messages did not come")
            with ends:
                await self._settle(consumer, found, results=results)
            done += len(found)
        await consumer.close()
        return claims.per(done), ends.per(done)

    async def _settle(self, consumer: Any, found: Sequence[Delivery], *, results: bool) -> None:
        settlements = [Settlement(one.receipt, ACK) for one in found]
        records = [
            ResultRecord(one.envelope.headers["id"], "SUCCESS", PAYLOAD.payload, expires_in=86400.0) for one in found
        ] if results else []  # fmt: skip
        if records and not (isinstance(consumer, Commits) and self.shares_engine):
            self.store.write(records)
            records = []
        if isinstance(consumer, Commits):
            await consumer.commit(records, (), settlements)
        else:
            await consumer.settle(settlements)

    def close(self) -> None:
        self.publisher.close()
        self.store.close()
        self.transport.close()


def encoding(count: int) -> tuple[float, float]:
    """``delay()`` up to the message that is handed to the driver."""
    app = Celeriac("bench", broker="memory://")

    @app.task
    def noop(n: int) -> int:
        return n

    task: Any = noop
    plan = task._plan_now()
    task.delay(1)
    watch = Watch()
    with watch:
        for n in range(count):
            args, kwargs = task._checked(plan, (n,), {}, {})
            task._prepared(app, plan, args, kwargs, {})
    return watch.per(count)


def measured(broker: str, results: str, scale: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """Name of each stage, its wall and its processor time in µs per message."""
    count = max(640, int(12_800 * scale) // BATCH * BATCH)
    yield "delay(): make the message", encoding(count)
    bench = Bench(broker, results)
    try:
        bench.publish(BATCH * 2, BATCH)
        asyncio.run(bench.consume(BATCH * 2, results=True))
        yield "publish, 1 at a time", bench.publish(count // 10, 1)
        yield f"publish, {BATCH} at a time", bench.publish(count, BATCH)
        yield "publish, 1000 at a time", bench.publish(count // 1000 * 1000 or 1000, 1000)
        waiting = count // 10 + count + (count // 1000 * 1000 or 1000)
        claim, settle = asyncio.run(bench.consume(waiting // 2, results=False))
        yield f"claim {BATCH}: receive and decode", claim
        yield f"settle {BATCH}: acknowledge", settle
        _, settle = asyncio.run(bench.consume(waiting - waiting // 2 - BATCH, results=True))
        yield f"settle {BATCH}: store results, acknowledge", settle
    finally:
        bench.close()
    names = {
        "admit": "engine: admit", "dispatch": "engine: dispatch", "outcomes": "engine: take outcomes",
        "settle": "engine: prepare settling",
    }  # fmt: skip
    for name, value in asyncio.run(engine(BATCH, count)).items():
        yield names[name], (value, value)
    rate, cost, _ = asyncio.run(pool_cost("prefork", 2, 1, count))
    yield "pipe to 2 children and back: parent", (1e6 / rate, cost)
    run = runner_cost(count)
    yield "child: run a no-op, encode its result", (run, run)


def of(place: Place, scale: float) -> Iterator[tuple[str, tuple[float, float]]]:
    site = place.fresh()
    yield from measured(site.broker, site.results, max(0.1, scale))


def main() -> None:
    broker = sys.argv[1]
    for name, (wall, cpu) in measured(broker, sys.argv[2] if len(sys.argv) > 2 else broker, 1.0):
        print(f"{name:<44} wall {wall:8.1f}   cpu {cpu:8.1f} µs per message")


if __name__ == "__main__":
    main()
