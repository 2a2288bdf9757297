"""The no-op app of Huey: on Redis with blocking reads, or on SQLite, durable (fsync) as the others are."""

import os

import tally
from huey import RedisHuey, SqliteHuey

BROKER = os.environ["BENCH_BROKER"]
RESULTS = bool(os.environ.get("BENCH_RESULTS"))

if BROKER.startswith("redis"):
    huey = RedisHuey("bench", url=BROKER, results=RESULTS, notify_result=os.environ.get("BENCH_WAITS") == "1")
else:
    huey = SqliteHuey("bench", filename=BROKER.removeprefix("sqlite:///"), fsync=True, timeout=30, results=RESULTS)


@huey.task()
def noop(n):
    tally.tick()
    return n


send = noop


def bulk(numbers):
    for n in numbers:
        noop(n)


def fetch(result):
    return result.get(blocking=True, timeout=10, backoff=1.0, max_delay=0.001)
