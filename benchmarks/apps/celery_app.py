"""The no-op app of Celery, on any of its brokers."""

import os

import tally
from celery import Celery, group

BROKER = os.environ["BENCH_BROKER"]
RESULTS = os.environ.get("BENCH_RESULTS")

app = Celery("bench", broker=BROKER, backend=RESULTS or None)
app.conf.broker_connection_retry_on_startup = True
app.conf.task_ignore_result = not RESULTS
# "for many short tasks, where throughput matters, 50 or 150 may make sense" (Celery's optimizing guide)
app.conf.worker_prefetch_multiplier = 128
if BROKER.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": os.environ.get("BENCH_CONFIRMS") != "0"}
if BROKER.startswith("filesystem"):
    folders = {name: f"{os.environ['BENCH_FILES']}.{name}" for name in ("messages", "control")}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    app.conf.broker_transport_options = {
        "data_folder_in": folders["messages"],
        "data_folder_out": folders["messages"],
        "control_folder": folders["control"],
    }


@app.task(name="bench.noop")
def noop(n):
    tally.tick()
    return n


send = noop.delay


def bulk(numbers):
    group(noop.s(n) for n in numbers).apply_async()


def fetch(result):
    # the interval counts only where the result store cannot notify (SQLAlchemy)
    return result.get(timeout=10, interval=0.001)
