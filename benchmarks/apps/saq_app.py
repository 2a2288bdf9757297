"""The no-op app of saq."""

import asyncio
import os
import time

import tally
from saq import Queue

RESULTS = bool(os.environ.get("BENCH_RESULTS"))
queue = Queue.from_url(os.environ["BENCH_BROKER"], name="bench", max_concurrent_ops=200)


async def noop(context, *, n):
    tally.tick()
    return n


settings = {"queue": queue, "functions": [("noop", noop)], "concurrency": 100}


async def opened():
    await queue.connect()


async def closed():
    await queue.disconnect()


async def send(n):
    # a time to live of -1: nothing is kept when it has ended
    return await queue.enqueue("noop", n=n, ttl=600 if RESULTS else -1)


async def bulk(numbers):
    numbers = list(numbers)
    for start in range(0, len(numbers), 200):
        await asyncio.gather(*map(send, numbers[start : start + 200]))


async def fetch(job):
    # saq's own apply() looks again and again as well; listening misses jobs that end before it has begun
    ends = time.monotonic() + 10
    while not job.completed and time.monotonic() < ends:
        await asyncio.sleep(0.0005)
        await job.refresh()
    return job.result
