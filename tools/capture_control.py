"""Captures the control requests, replies and events that a real Celery worker and client exchange over Redis.

Run it with the interpreter of a virtual environment that has the newest Celery with Redis, and ``redis-server`` on
the path (see ``capture_golden.py``)::

    .venv-celery/bin/python tools/capture_control.py tests/wire/golden

The bytes are what Redis was told (``MONITOR``), so they are Celery's and kombu's own; only tracebacks are cut.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import celery
import kombu
import redis
from celery import Celery

NODE = "w1@golden"
TASKS = """
import time
from celery import Celery
app = Celery("golden_control")
app.conf.update(task_send_sent_event=True, task_track_started=True, worker_hijack_root_logger=True)

@app.task
def add(x, y=1):
    return x + y

@app.task(bind=True, max_retries=1)
def flaky(self):
    try:
        raise KeyError("k")
    except KeyError as error:
        raise self.retry(exc=error, countdown=0)

@app.task(rate_limit="10/m")
def boom():
    raise ValueError("boom", 9)

@app.task
def nap(seconds):
    time.sleep(seconds)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def overhear(client: redis.Redis, heard: list[tuple[str, str, str]], ready: threading.Event) -> None:
    """Note what is published and what is pushed to reply lists."""
    with client.monitor() as monitor, contextlib.suppress(redis.ConnectionError, ValueError, OSError):
        ready.set()
        for entry in monitor.listen():
            verb, _, rest = entry["command"].partition(" ")
            if verb in ("PUBLISH", "LPUSH"):
                key, _, payload = rest.partition(" ")
                if payload.startswith("{"):
                    heard.append((verb, key, payload))


def main(folder: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory() as name:
        server = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", name], stdout=-3)
        Path(name, "golden_control.py").write_text(TASKS)
        client = redis.Redis(port=port, socket_timeout=None)
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.05)
        heard: list[tuple[str, str, str]] = []
        ready = threading.Event()
        threading.Thread(target=overhear, args=(client, heard, ready), daemon=True).start()
        ready.wait(10)
        environment = {**os.environ, "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url, "PYTHONPATH": name}
        command = [sys.executable, "-m", "celery", "-A", "golden_control", "worker", "-E", "-n", NODE, "-c", "2"]
        worker = subprocess.Popen(command, env=environment, cwd=name)
        try:
            os.environ.update(environment)
            sys.path.insert(0, name)
            import golden_control  # type: ignore[import-not-found]

            replies = talk(golden_control.app, golden_control)
            time.sleep(3)
        finally:
            for process in (worker, server):
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(15)
    (folder / "control.json").write_text(json.dumps(sorted_out(heard, replies), indent=1) + "\n")


def talk(app: Celery, tasks: Any) -> dict[str, Any]:
    """Ask and order everything once; what Celery's client made of the replies."""
    control, said = app.control, {}
    while not control.ping(timeout=0.5):
        time.sleep(0.2)
    napping = tasks.nap.delay(60)
    later = tasks.add.apply_async((1,), {"y": 2}, countdown=3600)
    for call in (tasks.add.s(2, 2), tasks.flaky.s(), tasks.boom.s()):
        call.delay().get(timeout=20, propagate=False)
    app.send_task("nobody.knows", task_id="unknown-1")
    inspect = control.inspect(destination=[NODE], timeout=3.0)
    for name in ("ping", "stats", "active", "scheduled", "reserved", "revoked", "registered", "active_queues", "clock",
                 "conf", "report", "memsample"):  # fmt: skip
        said[name] = getattr(inspect, name)()
    said["query_task"] = inspect.query_task(napping.id, later.id, "absent")
    said["hello"] = inspect.hello("other@host", {"x": 1.0})
    said["registered items"] = inspect.registered("rate_limit", "name")
    order = {"destination": [NODE], "reply": True, "timeout": 3.0}
    said["rate_limit"] = control.rate_limit("golden_control.add", "5/m", **order)
    said["rate_limit unknown"] = control.rate_limit("nothing", "5/m", **order)
    said["rate_limit wrong"] = control.rate_limit("golden_control.add", "often", **order)
    said["rate_limit off"] = control.rate_limit("golden_control.add", "0", **order)
    said["time_limit"] = control.time_limit("golden_control.add", soft=1, hard=2, **order)
    said["time_limit unknown"] = control.time_limit("nothing", soft=1, **order)
    said["add_consumer"] = control.add_consumer("more", **order)
    said["add_consumer again"] = control.add_consumer("more", **order)
    said["cancel_consumer"] = control.cancel_consumer("more", **order)
    said["disable_events"] = control.disable_events(**order)
    said["disable_events again"] = control.disable_events(**order)
    said["enable_events"] = control.enable_events(**order)
    said["enable_events again"] = control.enable_events(**order)
    said["heartbeat"] = control.heartbeat(**order)
    said["pool_grow"] = control.pool_grow(1, **order)
    said["pool_shrink"] = control.pool_shrink(1, **order)
    said["pool_restart"] = control.pool_restart(**order)
    said["autoscale"] = control.autoscale(4, 1, **order)
    # no election: an action of nobody ends a Celery worker that is alone (IndexError in its gossip)
    said["unknown command"] = control.broadcast("no_such_thing", **{**order, "timeout": 1.0})
    said["wrong arguments"] = control.broadcast("revoke", arguments={"nonsense": 1}, **order)
    said["revoke"] = control.revoke(["r1"], **order)
    said["revoke later"] = control.revoke(later.id, **order)
    said["revoked after"] = inspect.revoked()
    said["terminate"] = control.terminate(napping.id, **order)
    said["terminate unknown"] = control.terminate("absent", **order)
    said["stamped"] = control.revoke_by_stamped_headers({"customer": ["7"]}, **order)
    said["pattern"] = control.broadcast("ping", pattern="w*@golden", matcher="glob", reply=True, timeout=1.0)
    said["shutdown"] = control.shutdown(**{**order, "timeout": 1.0})
    return said


def sorted_out(heard: list[tuple[str, str, str]], replies: dict[str, Any]) -> dict[str, Any]:
    cases = []
    for verb, key, payload in heard:
        key = key.strip('"')
        if verb == "LPUSH" and not key.endswith(".reply.celery.pidbox"):
            continue
        if "celery-task-meta-" in key:  # news of a stored result
            continue
        envelope = json.loads(payload)
        body = json.loads(base64.b64decode(envelope["body"]))
        for event in body if isinstance(body, list) else []:
            if "traceback" in event:  # it names folders of the machine
                event["traceback"] = "Traceback (most recent call last):\n ..."
                envelope["body"] = base64.b64encode(json.dumps(body).encode()).decode()
                payload = json.dumps(envelope)
        if ".celery.pidbox" in key and verb == "PUBLISH":
            kind, name = "request", body["method"]
        elif verb == "LPUSH":
            kind, name = "reply", envelope["headers"]["ticket"]
        else:
            kind = "event"
            name = ",".join(event["type"] for event in body) if isinstance(body, list) else body["type"]
        cases.append({"kind": kind, "name": name, "key": key, "envelope": payload})
    versions = {"celery": celery.__version__, "kombu": kombu.__version__}
    return {"versions": versions, "cases": cases, "said": replies}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
