"""Captures what a real Celery puts on the wire and into its result store, as golden files for ``tests/wire``.

Run it with the interpreter of a virtual environment that has the newest Celery::

    python3 -m venv .venv-celery
    .venv-celery/bin/pip install "celery[msgpack,yaml,zstd,brotli]" backports.zstd
    .venv-celery/bin/python tools/capture_golden.py tests/wire/golden

Messages are published through kombu's filesystem transport and read back from its files; results are stored by the
file backend and read back from its files, so every byte is Celery's own. Each message is also decoded by kombu and
Celery's worker code, and that reading (as Python reprs) is the expectation. Ids and node names are made constant.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import celery
import celery.app.amqp
import kombu
import kombu.transport.virtual.base
import kombu.utils
import kombu.utils.json
from celery import Celery, chain, chord, group
from celery.app.trace import build_tracer
from celery.exceptions import ChordError, Ignore, Reject, TaskRevokedError, WorkerLostError
from celery.utils.saferepr import saferepr
from celery.worker.strategy import hybrid_to_proto2, proto1_to_proto2
from kombu.serialization import loads

ETA = datetime(2036, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EXPIRES = datetime(2036, 1, 3, tzinfo=timezone(timedelta(hours=2)))
EXTENDED = {
    "datetime": datetime(2024, 1, 2, 3, 4, 5, 678),
    "aware": ETA,
    "date": date(2024, 1, 2),
    "time": time(3, 4, 5),
    "decimal": Decimal("1.50"),
    "uuid": uuid.UUID(int=5),
    "bytes": b"abc",
    "binary": b"\xff\x00",
    "nested": [{"deep": Decimal("-0.1")}, (1, 2)],
}
ODD_JSON = {
    "nan": math.nan, "inf": math.inf, "minus_inf": -math.inf, "huge": 1e300, "big": 2**80, "text": "ünï\u2028 \x7f",
    "surrogate": "\ud800", "keys": {1: 2, 1.5: 3, False: 4, None: 5}, "empty": [[], {}, ""],
}  # fmt: skip


def freeze_the_accidental() -> None:
    """Ids count up and the node has a fixed name."""
    counter = itertools.count(1)

    def numbered() -> uuid.UUID:
        return uuid.UUID(int=next(counter), version=4)

    kombu.utils.uuid.__defaults__ = (numbered,)  # the function: it shadows its module
    celery.app.amqp.anon_nodename = lambda: "gen1@host"


class OwnError(Exception):
    """A class that no reader has."""


def build_app(folder: Path) -> Celery:
    for name in ("queue", "processed", "control", "results"):
        (folder / name).mkdir()
    app = Celery("golden", broker="filesystem://", backend=f"file://{folder / 'results'}", set_as_current=True)
    app.conf.broker_transport_options = {
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "processed_folder": str(folder / "processed"),
        "control_folder": str(folder / "control"),
    }
    app.conf.accept_content = ["json", "pickle", "yaml", "msgpack"]
    app.set_current()
    return app


def add_tasks(app: Celery) -> dict[str, Any]:
    @app.task(name="golden.add")
    def add(*args: Any, **kwargs: Any) -> Any:
        return list(args)

    @app.task(name="golden.give")
    def give(value: Any) -> Any:
        return value

    @app.task(name="golden.fail")
    def fail(kind: str) -> None:
        errors = {
            "value": lambda: ValueError("boom", 9),
            "unserializable": lambda: KeyError("k", object),
            "own": lambda: OwnError("mine", 1),
            "chord": lambda: ChordError("Dependency x raised ValueError('boom')"),
            "lost": lambda: WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 1."),
        }
        raise errors[kind]()

    @app.task(name="golden.retry", bind=True)
    def retry(self: Any) -> None:
        raise self.retry(exc=KeyError("k"), countdown=30)

    @app.task(name="golden.progress", bind=True)
    def progress(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"done": 3, "of": 10})
        raise Ignore

    return {"add": add, "give": give, "fail": fail, "retry": retry, "progress": progress}


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────


class Messages:
    """Publishes and collects what landed in the transport's folder."""

    def __init__(self, app: Celery, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self.cases: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def case(self, name: str, protocol: int = 2) -> Iterator[None]:
        amqp = self.app.amqp
        amqp.__dict__["create_task_message"] = amqp.task_protocols[protocol]
        amqp.__dict__["send_task_message"] = amqp._create_task_sender()
        self.app.conf.task_protocol = protocol
        yield
        files = sorted((self.folder / "queue").iterdir())
        if not files:
            raise SystemExit(f"case {name!r} published nothing")
        for index, path in enumerate(files):
            data = path.read_bytes()
            path.unlink()
            title = name if len(files) == 1 else f"{name} #{index}"
            self.cases.append({"name": title, "envelope": as_base64(data), "expect": read_as_celery(data)})


def read_as_celery(data: bytes) -> dict[str, Any]:
    """What kombu and Celery's worker make of an envelope, as reprs."""
    payload = kombu.utils.json.loads(data)
    message = kombu.Message(
        body=base64.b64decode(payload["body"]), headers=payload["headers"], properties=payload["properties"],
        content_type=payload["content-type"], content_encoding=payload["content-encoding"],
    )  # fmt: skip
    # kombu's Message has decompressed it
    body = loads(message.body, message.content_type, message.content_encoding, accept=None, force=True)
    headers = dict(message.headers)
    protocol = 2
    if "task" not in headers:
        (args, kwargs, embed), headers, _, _ = proto1_to_proto2(message, body)
        protocol = 1
    elif isinstance(body, dict) and "args" in body:
        (args, kwargs, embed), headers, _, _ = hybrid_to_proto2(message, body)
        protocol = 0
    else:
        args, kwargs, embed = body
    kept = (
        "task", "id", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
        "shadow", "argsrepr", "kwargsrepr", "ignore_result", "stamped_headers", "stamps", "my", "origin",
    )  # fmt: skip
    return {
        "protocol": protocol,
        "args": repr(list(args)),
        "kwargs": repr(kwargs),
        "embed": {key: repr(embed.get(key)) for key in ("callbacks", "errbacks", "chain", "chord")},
        "headers": {key: headers[key] for key in kept if key in headers},
        "delivery_info": payload["properties"]["delivery_info"],
        "priority": payload["properties"]["priority"],
        "expiration": "expiration" in payload["properties"],
    }


def capture_messages(app: Celery, tasks: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    messages = Messages(app, folder)
    for protocol in (1, 2):
        capture_encodings(messages, tasks, protocol)
        capture_options(messages, tasks, protocol)
    capture_workflows(messages, tasks)
    return messages.cases


def capture_encodings(messages: Messages, tasks: dict[str, Any], protocol: int) -> None:
    add, give = tasks["add"], tasks["give"]
    for serializer in ("json", "pickle", "yaml", "msgpack"):
        with messages.case(f"protocol {protocol}, {serializer}", protocol):
            add.apply_async((2, "x"), {"y": [3, None]}, task_id="t-1", serializer=serializer)
    for method in ("gzip", "zlib", "bzip2", "lzma", "brotli", "zstd"):
        with messages.case(f"protocol {protocol}, json, {method}", protocol):
            add.apply_async((2,), {"text": "ab" * 400}, task_id="t-2", compression=method)
    with messages.case(f"protocol {protocol}, pickle, gzip", protocol):
        add.apply_async(({1, 2},), {}, task_id="t-3", serializer="pickle", compression="gzip")
    with messages.case(f"protocol {protocol}, extended JSON", protocol):
        give.apply_async((EXTENDED,), task_id="t-7")
    with messages.case(f"protocol {protocol}, odd JSON", protocol):
        give.apply_async((ODD_JSON,), task_id="t-8")


def capture_options(messages: Messages, tasks: dict[str, Any], protocol: int) -> None:
    add, give = tasks["add"], tasks["give"]
    with messages.case(f"protocol {protocol}, eta and expires", protocol):
        add.apply_async((1,), task_id="t-4", eta=ETA, expires=EXPIRES)
    with messages.case(f"protocol {protocol}, options", protocol):
        add.apply_async(
            (1,), task_id="t-5", priority=7, headers={"my": "header"}, shadow="other", time_limit=30,
            soft_time_limit=20.5, ignore_result=True, queue="fast", group_id="g", group_index=3, root_id="r",
            parent_id="p", retries=2,
        )  # fmt: skip
    with messages.case(f"protocol {protocol}, links", protocol):
        add.apply_async((1,), task_id="t-6", link=give.s(), link_error=[give.si(1), give.si(2)])
    with messages.case(f"protocol {protocol}, no arguments", protocol):
        add.apply_async(task_id="t-9")
    with messages.case(f"protocol {protocol}, send_task", protocol):
        messages.app.send_task("golden.unknown", (1,), task_id="t-10")


def capture_workflows(messages: Messages, tasks: dict[str, Any]) -> None:
    add, give = tasks["add"], tasks["give"]
    with messages.case("chain of three"):
        chain(add.s(1, 2), add.s(3), add.s(4)).apply_async(task_id="t-11")
    with messages.case("group of two"):
        group(add.s(1), add.s(2)).apply_async()
    with messages.case("chord of two"):
        chord([add.s(1), add.s(2)])(give.s())
    with messages.case("chain into a group"):
        chain(add.s(1), group(add.s(2), add.s(3))).apply_async()
    with messages.case("stamped"):
        stamped = add.s(1)
        stamped.stamp(tenant="acme")
        stamped.apply_async(task_id="t-12")
    with messages.case("signature with own options"):
        add.signature((1,), {"k": 2}, immutable=True).set(priority=3, expires=EXPIRES).apply_async(task_id="t-13")
    with messages.case("long and deep arguments"):
        add.apply_async(("x" * 3000, [[[[1]]]], list(range(500))), task_id="t-14")


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────


class Results:
    """Lets Celery store states with one serializer and collects what the file backend wrote."""

    def __init__(self, app: Celery, tasks: dict[str, Any], folder: Path, serializer: str) -> None:
        app.conf.result_serializer = serializer
        app.conf.result_accept_content = [serializer]
        self.app = app
        self.tasks = tasks
        self.folder = folder
        self.serializer = serializer
        self.backend = app._get_backend()
        app._backend_cache = self.backend
        app._local.backend = self.backend
        hide_paths(self.backend)
        self.cases: list[dict[str, Any]] = []

    def collect(self, name: str, task_id: str) -> None:
        path = self.folder / "results" / f"celery-task-meta-{task_id}"
        payload = path.read_bytes()
        path.unlink()
        meta = self.backend.meta_from_decoded(self.backend.decode(payload))
        self.cases.append(
            {
                "name": f"{name}, {self.serializer}",
                "task_id": task_id,
                "content_type": self.backend.content_type,
                "content_encoding": self.backend.content_encoding,
                "payload": as_base64(payload),
                "expect": {key: repr(value) for key, value in meta.items()},
            }
        )

    def run(self, name: str, function: Any, *args: Any, **request: Any) -> None:
        """Run one attempt with Celery's own tracer, which stores the outcome."""
        task_id = "r-" + name.replace(" ", "-")
        request = {"id": task_id, "delivery_info": {"routing_key": "celery"}, "hostname": "w@host", **request}
        build_tracer(function.name, function, app=self.app)(task_id, args, {}, request)
        self.collect(name, task_id)

    def capture(self) -> list[dict[str, Any]]:
        give, fail = self.tasks["give"], self.tasks["fail"]
        self.run("success", give, 3)
        self.run("success of a mapping", give, {"a": [1, None, "ü"]})
        if self.serializer == "json":
            self.run("success of extended types", give, EXTENDED)
        self.run("success in a group", give, 1, group="g-1", parent_id="p-1", root_id="p-1")
        self.app.conf.result_extended = True
        self.run("extended", give, 5, task=give.name, args=(5,), kwargs={}, retries=1)
        self.app.conf.result_extended = False
        for kind in ("value", "unserializable", "own", "chord", "lost"):
            self.run(f"failure {kind}", fail, kind)
        self.run("retry", self.tasks["retry"], called_directly=False, args=(), kwargs={}, retries=0)
        self.run("custom state", self.tasks["progress"], called_directly=False)
        self.backend.mark_as_revoked("r-revoked", "revoked", store_result=True)
        self.collect("revoked", "r-revoked")
        self.backend.store_result("r-terminated", TaskRevokedError("terminated"), "REVOKED")
        self.collect("terminated", "r-terminated")
        self.backend.store_result("r-reject", Reject("no", requeue=False), "FAILURE")
        self.collect("reject stored as failure", "r-reject")
        self.backend.mark_as_started("r-started", pid=1, hostname="host")
        self.collect("started", "r-started")
        return self.cases


def hide_paths(backend: Any) -> None:
    """Tracebacks name the files of this machine: shorten them before they are stored."""
    original = backend.store_result

    def store_result(task_id: str, result: Any, state: str, traceback: Any = None, **kwargs: Any) -> Any:
        if traceback is not None:
            traceback = re.sub(r'File "[^"]*/([^/"]+)"', r'File "\1"', str(traceback))
        return original(task_id, result, state, traceback=traceback, **kwargs)

    backend.store_result = store_result


# ── reprs ────────────────────────────────────────────────────────────────────────────────────────────────────


def capture_reprs() -> list[dict[str, str]]:
    """``saferepr`` of values that can be written as Python source."""
    sources = [
        "()", "(1,)", "(1, 2)", "[]", "{}", "set()", "frozenset()", "{1}", "frozenset({1})", "'a'", '"it\'s"', "b'x'",
        "b'\\xff'", "None", "True", "1.5", "float('nan')", "10**30", "('a'*5, b'x', {'k': [1, {'z': [1, 2]}]}, 1.5)",
        "[[[[]]]]", "[[[[1]]]]", "{'a': {'b': {'c': 1}}}", "{1: (2,), None: [3]}", "('\u00fc\u4e2d',)", "('a\"b',)",
        "('back\\\\slash',)", "[1, [2, [3, [4, [5]]]]]", "(Decimal('1.5'),)", "(object,)", "({'a', },)", "range(3)",
        "[{}, [], ()]", "{'k': b'v'}", "(-1, 0, 1e300)", "[[[{1}]]]", "[[[()]]]", "{(1, 2): 3}", "[[[frozenset([1])]]]",
    ]  # fmt: skip
    names = {"Decimal": Decimal}
    return [{"source": text, "repr": saferepr(eval(text, names), 1024)} for text in sources]  # noqa: S307 - constants


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def main(target: Path) -> None:
    freeze_the_accidental()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = build_app(folder)
        tasks = add_tasks(app)
        messages = capture_messages(app, tasks, folder)
        results = [
            case
            for serializer in ("json", "pickle", "yaml", "msgpack")
            for case in Results(app, tasks, folder, serializer).capture()
        ]
    versions = {"celery": celery.__version__, "kombu": kombu.__version__}
    target.mkdir(parents=True, exist_ok=True)
    for title, cases in (("messages", messages), ("results", results), ("reprs", capture_reprs())):
        text = json.dumps({"versions": versions, "cases": cases}, indent=1)
        (target / f"{title}.json").write_text(text + "\n")
        print(f"{len(cases)} {title} → {target / (title + '.json')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/wire/golden"))
