"""The no-op app of celeriac."""

import os

import tally

from celeriac import Celeriac

BROKER = os.environ["BENCH_BROKER"]
RESULTS = os.environ.get("BENCH_RESULTS")

app = Celeriac("bench", broker=BROKER, backend=RESULTS or "disabled://")
app.conf.task_ignore_result = not RESULTS
if BROKER.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": os.environ.get("BENCH_CONFIRMS") != "0"}


@app.task
def noop(n: int) -> int:
    tally.tick()
    return n


send = noop.delay
concurrent_send = noop.adelay


def bulk(numbers):
    noop.delay_many((n,) for n in numbers)


def fetch(result):
    return result.get(timeout=10)
