"""What each operation of the embedded broker costs, on an empty file and with a million rows of each kind in it.

    python benchmarks/sqlite_transport.py [--rows 1000000] [--directory DIR]

Wall time includes the disk; CPU is the process's own, per message.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from celeriac.clock import SYSTEM_CLOCK
from celeriac.ids import task_id
from celeriac.results.sqlite import SqliteStore
from celeriac.transports.base import ACK, Delivery, Envelope, Outgoing, QueueSpec, Route, Settlement
from celeriac.transports.sqlite import SqliteTransport
from celeriac.wire.result_record import ResultRecord

BODY = b'[[2, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
PAYLOAD = (
    b'{"status": "SUCCESS", "result": 4, "traceback": null, "children": [], "date_done": '
    b'"2026-11-22T15:21:50.462153+00:00", "task_id": "6f1f7c1e-5c34-4f0e-9d3a-0f1a2b3c4d5e"}'
)


class Numbers:
    broker_lease = 3600.0
    broker_max_message_bytes = 1 << 24
    task_dead_letter_expires = 86400.0


def message(queue: str, not_before: float | None = None) -> Outgoing:
    identity = task_id()
    headers: dict[str, Any] = {
        "lang": "py", "task": "project.tasks.add", "id": identity, "shadow": None, "eta": None, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": identity,
        "parent_id": None, "argsrepr": "(2, 2)", "kwargsrepr": "{}", "origin": "gen1234@host",
        "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    properties = {
        "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": identity,
        "reply_to": identity, "delivery_mode": 2, "priority": 0,
    }  # fmt: skip
    return Outgoing(Envelope(BODY, headers, properties), Route("", queue), not_before)


def messages(count: int, queue: str = "celery", not_before: float | None = None) -> list[Outgoing]:
    return [message(queue, not_before) for _ in range(count)]


def line(what: str, count: int, wall: float, cpu: float) -> None:
    print(
        f"  {what:<34} {count / wall:>10,.0f}/s   wall {wall / count * 1e6:7.1f} us   cpu {cpu / count * 1e6:6.1f} us"
    )


def timed(what: str, steps: Iterator[int]) -> None:
    """Run the steps, each worth as many messages as it yields."""
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    for done in steps:
        count += done
    line(what, count, time.perf_counter() - wall, time.process_time() - cpu)


class Bench:
    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.transport = SqliteTransport(self.url, Numbers, SYSTEM_CLOCK)
        self.publisher = self.transport.publisher()
        self.consumer = self.transport.blocking_consumer([QueueSpec(name="celery")])
        self.store = SqliteStore(self.url, Numbers, SYSTEM_CLOCK)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        self.publisher.publish(batch, time.monotonic() + 60)

    def publishing(self, batches: Sequence[Sequence[Outgoing]]) -> Iterator[int]:
        for batch in batches:
            self.publish(batch)
            yield len(batch)

    def claimed(self, what: str, count: int, finish: Callable[[Sequence[Delivery]], None], size: int = 64) -> None:
        claims, ends = [0.0, 0.0], [0.0, 0.0]
        done = 0
        while done < count:
            wall, cpu = time.perf_counter(), time.process_time()
            found = self.consumer.receive(size, 0)
            between, cpu_between = time.perf_counter(), time.process_time()
            finish(found)
            claims[0] += between - wall
            claims[1] += cpu_between - cpu
            ends[0] += time.perf_counter() - between
            ends[1] += time.process_time() - cpu_between
            done += len(found)
        line(f"claim {size}", done, *claims)
        line(what, done, *ends)

    def settle(self, found: Sequence[Delivery]) -> None:
        self.consumer.settle([Settlement(one.receipt, ACK) for one in found])

    def commit(self, found: Sequence[Delivery]) -> None:
        records = [ResultRecord(task_id(), "SUCCESS", PAYLOAD, expires_in=86400.0) for _ in found]
        self.consumer.commit(records, (), [Settlement(one.receipt, ACK) for one in found])

    def publish_from_threads(self, count: int, threads: int = 8) -> None:
        batches = [[one] for one in messages(count)]

        def work(place: int) -> None:
            for batch in batches[place::threads]:
                self.publish(batch)

        workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
        wall, cpu = time.perf_counter(), time.process_time()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        line(f"publish 1, {threads} threads", count, time.perf_counter() - wall, time.process_time() - cpu)

    def operations(self, count: int) -> None:
        timed("publish 1", self.publishing([[one] for one in messages(count // 10)]))
        self.publish_from_threads(count // 10)
        timed("publish 64", self.publishing([messages(64) for _ in range(count // 64)]))
        timed("publish 1000", self.publishing([messages(1000) for _ in range(count // 1000)]))
        self.claimed("settle 64 (acknowledge)", count // 2, self.settle)
        self.claimed("commit 64 (record + acknowledge)", count // 2, self.commit)
        self.claimed("commit 1 (record + acknowledge)", count // 10, self.commit, size=1)

    def drain(self) -> None:
        while found := self.consumer.receive(1000, 0):
            self.settle(found)

    async def pipeline(self, count: int) -> None:
        """The worker's two lanes at full speed, one batch under way in each."""
        consumer = self.transport.consumer([QueueSpec(name="celery")], "bench")
        wall, cpu = time.perf_counter(), time.process_time()
        done, writing = 0, None
        while done < count:
            found = await consumer.receive(64, 0)
            done += len(found)
            if writing is not None:
                await writing
            records = [ResultRecord(task_id(), "SUCCESS", PAYLOAD, expires_in=86400.0) for _ in found]
            settlements = [Settlement(one.receipt, ACK) for one in found]
            writing = asyncio.ensure_future(consumer.commit(records, (), settlements))
        if writing is not None:
            await writing
        line("asyncio: receive and commit 64", done, time.perf_counter() - wall, time.process_time() - cpu)
        await consumer.close()

    async def wake_ups(self, count: int) -> None:
        """From the call of publish in one thread to the delivery in a waiting consumer, and back to a watcher."""
        consumer = self.transport.consumer([QueueSpec(name="ping")], "bench")
        there, back = [], []
        for _ in range(count):
            receiving = asyncio.ensure_future(consumer.receive(1, 5))
            await asyncio.sleep(0.002)
            sent = message("ping")
            identity = sent.envelope.headers["id"]
            watching = asyncio.get_running_loop().run_in_executor(None, self.store.watch, [identity], 5.0)
            began = time.perf_counter()
            await asyncio.to_thread(self.publish, [sent])
            (found,) = await receiving
            there.append(time.perf_counter() - began)
            settlement = Settlement(found.receipt, ACK)
            await consumer.commit([ResultRecord(identity, "SUCCESS", PAYLOAD)], (), [settlement])
            await watching
            back.append(time.perf_counter() - began)
        for what, times in (("publish → delivery", there), ("publish → delivery → result", back)):
            cuts = statistics.quantiles(times, n=100)
            print(f"  {what:<34} p50 {cuts[49] * 1e3:.2f} ms   p99 {cuts[98] * 1e3:.2f} ms")
        await consumer.close()

    def fill(self, kind: str, rows: int) -> None:
        later = time.time() + 86400 if kind == "delayed" else None
        for _ in range(0, rows, 10_000):
            self.publish(messages(10_000, "other" if kind == "queued elsewhere" else "celery", later))
        if kind == "held":
            for _ in range(0, rows, 1000):
                self.consumer.receive(1000, 0)

    def close(self) -> None:
        self.consumer.close()
        self.publisher.close()
        self.store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--directory")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.directory, prefix="bench"))
    try:
        bench = Bench(folder / "empty.sqlite3")
        print("empty")
        bench.operations(options.count)
        bench.drain()
        bench.publish(messages(options.count))
        asyncio.run(bench.pipeline(options.count))
        asyncio.run(bench.wake_ups(200))
        bench.close()
        for kind in ("queued", "delayed", "held") if options.rows else ():
            bench = Bench(folder / f"{kind}.sqlite3")
            bench.fill(kind, options.rows)
            size = (folder / f"{kind}.sqlite3").stat().st_size
            print(f"{options.rows:,} {kind} ({size >> 20} MiB)")
            bench.operations(options.count)
            bench.close()
            for leftover in folder.glob(f"{kind}*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    finally:
        shutil.rmtree(folder)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
