"""The same app for Celery 5.7: BENCH_TRANSPORT chooses its SQLAlchemy or its filesystem transport."""

import os

from celery import Celery

file = os.environ["BENCH_FILE"]
if os.environ.get("BENCH_TRANSPORT") == "filesystem":
    app = Celery("bench", broker="filesystem://", backend=f"db+sqlite:///{file}")
    folders = {name: f"{file}.{name}" for name in ("messages", "control")}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    app.conf.broker_transport_options = {
        "data_folder_in": folders["messages"],
        "data_folder_out": folders["messages"],
        "control_folder": folders["control"],
    }
else:
    app = Celery("bench", broker=f"sqla+sqlite:///{file}.broker", backend=f"db+sqlite:///{file}")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="bench.noop")
def noop(n):
    return n
