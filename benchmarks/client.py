"""The producing side of a benchmark, run inside the measured product's own interpreter.

``client.py PRODUCT bulk N`` · ``delay N`` · ``roundtrip N``: prints one line of JSON with the seconds measured.
"""

import importlib
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "apps"))


def celeriac_bulk(app, count):
    app.noop.delay_many((n,) for n in range(count))


def plain_bulk(app, count):
    for n in range(count):
        send(app, n)


def send(app, n):
    return app.noop(n) if hasattr(app, "huey") else app.noop.delay(n)


def fetch(app, result, product):
    if product == "huey":
        return result.get(blocking=True, timeout=10, backoff=1.0, max_delay=0.001)
    if product == "celery":
        return result.get(timeout=10, interval=0.001)
    return result.get(timeout=10)


def main():
    product, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    app = importlib.import_module(f"{product}_app")
    if what == "bulk":
        send(app, 0)  # connections, tables
        start = time.perf_counter()
        (celeriac_bulk if product == "celeriac" else plain_bulk)(app, count)
        print(json.dumps({"seconds": time.perf_counter() - start}))
    elif what == "delay":
        send(app, 0)  # connections, tables
        start = time.perf_counter()
        for n in range(count):
            send(app, n)
        print(json.dumps({"seconds": time.perf_counter() - start}))
    elif what == "roundtrip":
        times = []
        warm_up = min(20, count // 5)
        for n in range(count + warm_up):
            start = time.perf_counter()
            assert fetch(app, send(app, n), product) == n
            times.append(time.perf_counter() - start)
        times = sorted(times[warm_up:])
        print(json.dumps({"p50": statistics.median(times), "p99": times[int(len(times) * 0.99) - 1]}))


main()
