"""The no-op app of RQ."""

import os

import tally
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

RESULTS = bool(os.environ.get("BENCH_RESULTS"))
#: seconds that a result is kept; with 0 none is stored
KEPT = 500 if RESULTS else 0

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_BROKER"]), serializer=JSONSerializer)


def noop(n):
    tally.tick()
    return n


def send(n):
    return queue.enqueue(noop, n, result_ttl=KEPT)


def bulk(numbers):
    queue.enqueue_many([Queue.prepare_data(noop, (n,), result_ttl=KEPT) for n in numbers])


def fetch(job):
    return job.latest_result(timeout=10).return_value
