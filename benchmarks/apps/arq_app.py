"""The no-op app of arq."""

import asyncio
import os

import tally
from arq import create_pool, func
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_BROKER"])
RESULTS = bool(os.environ.get("BENCH_RESULTS"))


async def noop(context, n):
    tally.tick()
    return n


class WorkerSettings:
    functions = (func(noop, name="noop", keep_result=3600 if RESULTS else 0),)
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.001  # the default of half a second would be all of a round trip
    log_results = False


pool = None


async def opened():
    global pool
    pool = await create_pool(SETTINGS)


async def closed():
    await pool.aclose()


async def send(n):
    return await pool.enqueue_job("noop", n)


async def bulk(numbers):
    numbers = list(numbers)
    for start in range(0, len(numbers), 200):
        await asyncio.gather(*map(send, numbers[start : start + 200]))


async def fetch(job):
    return await job.result(timeout=10, poll_delay=0.0005)
