"""The producing side of a benchmark, run inside the measured product's own interpreter.

``client.py MODULE ACTION AMOUNT`` prints one line of JSON. Actions: ``fill N`` (send N, as fast as the product can);
``delay SECONDS`` (one at a time); ``bulk N`` (one group of at most N); ``concurrent SECONDS`` (200 coroutines);
``roundtrip SECONDS`` (send, wait for the result, again). A product whose functions are coroutines is measured in one
event loop.
"""

import asyncio
import importlib
import inspect
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "apps"))

#: messages in one group; what the row for bulk sending is about
GROUP = 10_000
#: coroutines that send at the same time
SENDERS = 200
#: seconds that one group may take; slow products get a smaller one
PATIENCE = 3.0
#: most round trips in one run
TRIPS = 2_000
#: round trips before those that count
WARM_UP = int(os.environ.get("BENCH_WARM_UP", "20"))


def portions(count):
    return [range(start, min(start + GROUP, count)) for start in range(0, count, GROUP)]


def rate(count, began):
    seconds = time.perf_counter() - began
    return {"count": count, "seconds": seconds, "rate": count / seconds}


def spread(times):
    times = sorted(times)
    return {"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)], "count": len(times)}


class Blocking:
    """Products that are called from plain functions."""

    def __init__(self, app):
        self.app = app

    def fill(self, amount):
        began = time.perf_counter()
        for portion in portions(int(amount)):
            self.app.bulk(portion)
        return rate(int(amount), began)

    def delay(self, amount):
        send, count = self.app.send, 0
        for _ in range(20):
            send(0)  # connections, declarations
        began = time.perf_counter()
        ends = began + amount
        while time.perf_counter() < ends:
            send(count)
            count += 1
        return rate(count, began)

    def bulk(self, amount):
        self.app.send(0)
        began = time.perf_counter()
        self.app.bulk(range(200))
        count = fitting(200, began, amount)
        began = time.perf_counter()
        self.app.bulk(range(count))
        return rate(count, began)

    def concurrent(self, amount):
        return asyncio.run(concurrent(self.app.concurrent_send, amount))

    def roundtrip(self, amount):
        send, fetch, times = self.app.send, self.app.fetch, []
        for n in range(WARM_UP):
            assert fetch(send(n)) == n
        ends = time.perf_counter() + amount
        while time.perf_counter() < ends and len(times) < TRIPS:
            began = time.perf_counter()
            assert fetch(send(len(times))) == len(times)
            times.append(time.perf_counter() - began)
        return spread(times)


class Coroutines:
    """Products that are called from coroutines."""

    def __init__(self, app):
        self.app = app

    async def fill(self, amount):
        began = time.perf_counter()
        for portion in portions(int(amount)):
            await self.app.bulk(portion)
        return rate(int(amount), began)

    async def delay(self, amount):
        send, count = self.app.send, 0
        for _ in range(20):
            await send(0)
        began = time.perf_counter()
        ends = began + amount
        while time.perf_counter() < ends:
            await send(count)
            count += 1
        return rate(count, began)

    async def bulk(self, amount):
        await self.app.send(0)
        began = time.perf_counter()
        await self.app.bulk(range(200))
        count = fitting(200, began, amount)
        began = time.perf_counter()
        await self.app.bulk(range(count))
        return rate(count, began)

    async def concurrent(self, amount):
        return await concurrent(self.app.send, amount)

    async def roundtrip(self, amount):
        send, fetch, times = self.app.send, self.app.fetch, []
        for n in range(WARM_UP):
            assert await fetch(await send(n)) == n
        ends = time.perf_counter() + amount
        while time.perf_counter() < ends and len(times) < TRIPS:
            began = time.perf_counter()
            assert await fetch(await send(len(times))) == len(times)
            times.append(time.perf_counter() - began)
        return spread(times)


def fitting(sent, began, most):
    """How many can be sent within :data:`PATIENCE`, judging by the first few."""
    return max(200, min(int(most), int(sent / (time.perf_counter() - began) * PATIENCE)))


async def concurrent(send, seconds):
    ends = 0.0

    async def sender():
        count = 0
        while time.perf_counter() < ends:
            await send(count)
            count += 1
        return count

    await send(0)
    began = time.perf_counter()
    ends = began + seconds
    return rate(sum(await asyncio.gather(*(sender() for _ in range(SENDERS)))), began)


async def in_loop(app, action, amount):
    await app.opened()
    try:
        return await getattr(Coroutines(app), action)(amount)
    finally:
        await app.closed()


def main():
    module, action, amount = sys.argv[1], sys.argv[2], float(sys.argv[3])
    app = importlib.import_module(module)
    if inspect.iscoroutinefunction(app.bulk):
        try:
            from uvloop import run  # the fastest that the products' docs recommend
        except ImportError:
            run = asyncio.run
        answer = run(in_loop(app, action, amount))
    else:
        answer = getattr(Blocking(app), action)(amount)
    print(json.dumps(answer))


main()
