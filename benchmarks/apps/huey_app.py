"""The same app for Huey on SQLite, durable (fsync) as the others are."""

import os

from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["BENCH_FILE"], fsync=True, timeout=30)


@huey.task()
def noop(n):
    return n
