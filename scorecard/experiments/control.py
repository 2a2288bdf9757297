"""44: hostile control requests and events, and secrets that must not be seen. (The dashboard is not part of it yet.)"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.fleet import peak_kib
from scorecard.lab import Lab
from scorecard.products import APPS
from scorecard.sites import RedisSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scorecard.fleet import Worker

_NODE = "w1@lab"
_REQUESTS, _EVENTS = "celery.pidbox", "celeryev"
#: a secret that stands in the settings and in the environment, and must stand nowhere else
_CANARY = "canary-7f3a91"
_MOST_MIB = 250


def requests(trap: Path) -> Iterator[dict[str, Any]]:
    """What no worker may heed. ``trap``: a file that is there afterwards if code was run."""
    evil = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    bodies: list[bytes] = [
        b"", b"\xff\xfe", b"[]", b"null", b"7", b"[" * 200_000, b'{"a":' * 100_000, b'{"method": "' + b"x" * 5_000_000,
        b'{"method": 5}', b'{"method": "ping", "arguments": []}',
        b'{"method": "__import__", "arguments": {"name": "os"}}', b'{"method": "../../etc", "arguments": {}}',
        b'{"method": "\\u001b[2Jclear", "arguments": {}}', b'{"method": "nobody_knows", "arguments": {}}',
        b'{"method": "shutdown", "arguments": {}, "pattern": "(a+)+$", "matcher": "pcre"}',
        b'{"method": "shutdown", "arguments": {}, "destination": "w1@lab"}',
    ]  # fmt: skip
    calls: list[tuple[str, dict[str, Any]]] = [
        ("revoke", {"task_id": {"a": 1}}), ("revoke", {"task_id": ["../../x", "\x00"]}),
        ("revoke", {"task_id": "*" * 500}), ("revoke", {"task_id": ["x"] * 50_000}),
        ("revoke", {"state": 1, "task_id": "x"}),
        ("terminate", {"task_id": "x", "signal": "NOSUCH"}), ("terminate", {"task_id": "x", "signal": -9}),
        ("time_limit", {"task_name": "lab.mark", "hard": -1}), ("time_limit", {"task_name": "lab.mark", "soft": "1"}),
        ("add_consumer", {"queue": "a\x00b"}), ("add_consumer", {"queue": ["x"]}),
        ("add_consumer", {"queue": "x" * 9999}), ("cancel_consumer", {"queue": {"celery": 1}}),
        ("pool_grow", {"n": 1_000_000}),
        ("pool_grow", {"n": "9"}), ("pool_shrink", {"n": 1_000_000}), ("autoscale", {"max": 10**9, "min": 0}),
        ("pool_restart", {"modules": ["os"]}),
    ]  # fmt: skip
    bodies += [json.dumps({"method": method, "arguments": arguments}).encode() for method, arguments in calls]
    bodies += [
        json.dumps({"method": "ping", "ticket": "t", "reply_to": {"exchange": name, "routing_key": "celery"}}).encode()
        for name in ("", "celery", "celeryev")
    ]
    yield from (_said(_REQUESTS, body) for body in bodies)
    for kind in ("application/x-python-serialize", "application/x-nonsense"):
        yield _said(_REQUESTS, evil, content_type=kind)
    yield _said(_REQUESTS, b"not gzip at all", headers={"compression": "application/x-gzip"})


def events() -> Iterator[dict[str, Any]]:
    """What no monitor may show."""
    good = {"type": "task-failed", "hostname": "h", "timestamp": 1, "uuid": "stranger", "exception": "e"}
    wrong: list[dict[str, Any]] = [
        {"type": 5}, {"hostname": 5}, {"hostname": "h" * 9999}, {"timestamp": "now"}, {"uuid": ["x"]},
        {"uuid": "u" * 9999}, {"clock": -1}, {"utcoffset": 1e9}, {"type": "task-\x1b[2J"}, {"pid": "1"},
    ]  # fmt: skip
    bodies = [
        b"",
        b"[",
        b"7",
        b"null",
        b"[" * 200_000,
        b"\xff",
        *(json.dumps({**good, **odd}).encode() for odd in wrong),
    ]
    yield from (_said(_EVENTS, body) for body in bodies)


def _said(exchange: str, body: bytes, **more: Any) -> dict[str, Any]:
    return {"exchange": exchange, "body": base64.b64encode(body).decode(), "content_type": "application/json", **more}


@experiment(44, "Hostile control", brokers=("sqlite", "redis", "rabbitmq"), quick=90, full=120, peers=())
def hostile_control(lab: Lab) -> None:
    """Requests and events of a stranger between good tasks: they change nothing, and each is counted."""
    lab.settings["security_key_password"] = _CANARY
    worker = lab.worker(concurrency=2, more=("-E", "--probes", "127.0.0.1:0"))
    pid = worker.pid
    watcher = lab.helper("monitor", "watch.py")
    lab.until(lambda: tell_here(lab) and "here" in watcher.words(), 20)
    lab.send(10, limit=10.0)
    lab.drain(20)
    before = _state(lab)
    trap = lab.folder / "trap"
    said, told = list(requests(trap)), list(events())
    _shout(lab, [*said, *told])
    extra = _shout_raw(lab)
    wanted = before["refused"] + len(said) + extra
    is_counted = lab.until(lambda: _refused(lab) >= wanted, 20)
    lab.send(10, limit=10.0)
    lab.drain(20)
    after = _state(lab)
    say_quit(lab)
    watcher.wait(lab.left(15))
    seen = json.loads(watcher.words().strip().splitlines()[-1]) if watcher.status == 0 else {}
    metrics = _metrics(worker)
    judge(lab)
    changed = [name for name in before if name != "refused" and before[name] != after[name]]
    found = int(re.findall(r'requests_total{outcome="refused"} (\d+)', metrics)[0])
    lab.findings.add(
        checkers.holds("counted", "each request is counted", is_counted and after["refused"] == wanted,
                       f"{after['refused'] - before['refused']} of {wanted - before['refused']}"),
        checkers.holds("metrics", "/metrics has the same count", found == after["refused"], f"{found}"),
        checkers.holds("unchanged", "the worker is as it was", not changed, ", ".join(changed)),
        checkers.holds("events", "no event is believed, each is counted",
                       seen.get("refused") == len(told) + extra and "stranger" not in seen["tasks"], str(seen)[:200]),
        checkers.holds("code", "no code is run", not trap.exists()),
        checkers.holds("memory", f"the worker takes less than {_MOST_MIB} MiB", peak_kib(pid) < _MOST_MIB * 1024),
        checkers.holds("alive", "the worker lives", worker.status is None and worker.pid == pid),
        checkers.holds("secrets", "no secret is shown", not (where := _leaks(lab, worker, metrics)), ", ".join(where)),
        checkers.holds("settled", "no reply was led into a queue of tasks", lab.until(
            lambda: lab.site.outstanding() in (0, None), 15)),
    )  # fmt: skip
    lab.findings.numbers.update(requests=len(said) + extra, events=len(told) + extra)


def tell_here(lab: Lab) -> bool:
    """Say to ``apps/watch.py`` that it is heard; it prints that once it hears."""
    return _shout(lab, [_said(_EVENTS, _event("task-here"))])


def say_quit(lab: Lab) -> bool:
    """Tell ``apps/watch.py`` to end."""
    return _shout(lab, [_said(_EVENTS, _event("task-quit"))])


def _event(kind: str) -> bytes:
    return json.dumps({"type": kind, "hostname": "lab", "timestamp": 1}).encode()


def _shout(lab: Lab, said: list[dict[str, Any]]) -> bool:
    lines = "".join(json.dumps(one) + "\n" for one in said)
    subprocess.run(
        [lab.product.python, str(APPS / "shout.py")], input=lines, text=True, check=True, env=lab.environment(),
        cwd=lab.folder, timeout=lab.left(60.0), capture_output=True,
    )  # fmt: skip
    return True


def _shout_raw(lab: Lab) -> int:
    """What is no message at all, where a broker takes such things; how many of each kind."""
    if not isinstance(lab.site, RedisSite):
        return 0
    raw = [b"this is no JSON", b"[1]", b'{"method": "shutdown"}', b'{"type": "task-failed", "uuid": "stranger"}']
    with closing(lab.site.client) as client:
        for payload in raw:
            client.publish("/0.celery.pidbox", payload)
            client.publish("/0.celeryev/task.failed", payload)
    return len(raw)


def _inspect(lab: Lab, what: str) -> Any:
    command = [lab.product.python, "-m", lab.product.module, "-A", "lab_app", "inspect", what]
    done = subprocess.run(
        [*command, "-d", _NODE, "-t", "20", "-j"], env=lab.environment(), cwd=lab.folder, capture_output=True,
        text=True, timeout=lab.left(60.0), check=True,
    )  # fmt: skip
    return json.loads(done.stdout)[_NODE]


def _refused(lab: Lab) -> int:
    return int(_inspect(lab, "stats")["control"]["refused"])


def _state(lab: Lab) -> dict[str, Any]:
    """What requests could change."""
    stats = _inspect(lab, "stats")
    return {
        "refused": stats["control"]["refused"],
        "pool": stats["pool"],
        "queues": _inspect(lab, "active_queues"),
        "revoked": _inspect(lab, "revoked"),
        "registered": _inspect(lab, "registered"),
        "conf": _inspect(lab, "conf"),
    }


def _metrics(worker: Worker) -> str:
    address = re.findall(r"probes: (http://\S+)/live", worker.words())[0]
    with urllib.request.urlopen(f"{address}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def _leaks(lab: Lab, worker: Worker, metrics: str) -> list[str]:
    """Where the secret is seen."""
    shown = {
        "log": worker.words(),
        "metrics": metrics,
        "conf": json.dumps(_inspect(lab, "conf")),
        "report": json.dumps(_inspect(lab, "report")),
        "ps": "".join(
            Path(f"/proc/{one}/cmdline").read_text(errors="replace") for one in (worker.pid, *worker.children())
        ),
    }
    return [where for where, text in shown.items() if _CANARY in text]
