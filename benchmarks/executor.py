"""What the executor costs by itself: no broker, no result store, no-op tasks.

    python benchmarks/executor.py [messages]

Prints messages per second and the parent's own CPU time per message (encode requests, decode outcomes, bookkeeping)
at one and two children, fed in batches of 64; and the runner's cost per attempt inside a child.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from celeriac.clock import SYSTEM_CLOCK
from celeriac.executors.base import Loader, PoolOptions
from celeriac.executors.children.pool import ChildrenExecutor
from celeriac.executors.runner import Runner
from celeriac.executors.time_limits import Window
from celeriac.testing.conformance.executor import request_for
from celeriac.testing.conformance.executor_tasks import TARGET, load

BATCH = 64
ROUNDS = 5


async def drain(executor: ChildrenExecutor, total: int) -> tuple[float, float]:
    """Seconds of wall and of the parent's CPU for ``total`` no-ops."""
    requests = [request_for("noop", id=f"00000000-0000-4000-8000-{number:012}") for number in range(total)]
    given = done = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while done < total:
        if given < total and (room := min(executor.room(), BATCH)):
            executor.submit(requests[given : given + room])
            given += room
        done += len(await executor.outcomes())
    return time.perf_counter() - wall, time.process_time() - cpu


async def pool_cost(pool: str, children: int, slots: int, total: int) -> tuple[float, float, float]:
    """Messages per second, the parent's CPU in µs per message, seconds to start."""
    options = PoolOptions(pool=pool, children=children, slots_per_child=slots)
    executor = ChildrenExecutor(options, Loader(TARGET, "suite"), SYSTEM_CLOCK)
    began = time.perf_counter()
    await executor.start()
    started = time.perf_counter() - began
    await drain(executor, total // 10)
    rounds = [await drain(executor, total) for _ in range(ROUNDS)]
    rate = statistics.median(total / wall for wall, _ in rounds)
    cost = statistics.median(cpu / total * 1e6 for _, cpu in rounds)
    await executor.stop(1.0)
    return rate, cost, started


async def measure(pool: str, children: int, slots: int, total: int) -> None:
    rate, cost, started = await pool_cost(pool, children, slots, total)
    print(
        f"{pool:8} {children} x {slots:<3} {rate:10,.0f} messages/s   parent {cost:5.2f} µs/message   "
        f"started in {started * 1000:.0f} ms"
    )


def runner_cost(total: int) -> float:
    """µs of one attempt of a no-op inside a child."""
    runner, window = Runner(load("suite"), "celery@bench"), Window()
    request = request_for("noop", id="00000000-0000-4000-8000-000000000000")
    costs = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(total):
            runner.run(request, window)
        costs.append((time.perf_counter() - began) / total * 1e6)
    return statistics.median(costs)


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"runner alone, result stored as JSON: {runner_cost(total):.1f} µs per attempt")
    for pool, children, slots in (("prefork", 1, 1), ("prefork", 2, 1), ("threads", 1, 8), ("asyncio", 1, 100)):
        asyncio.run(measure(pool, children, slots, total))


if __name__ == "__main__":
    main()
