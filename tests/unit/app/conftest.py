"""A broker that remembers what it was given, reached by URL like any other, and apps that use it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, current, plugins
from celeriac.executors.base import Request
from celeriac.executors.context import Context
from celeriac.transports.base import Capabilities, Outgoing, QueueSpec
from celeriac.wire.task_message import TaskBody, read_body


class Sent(list[Outgoing]):
    """What reached the broker."""

    @property
    def last(self) -> Outgoing:
        return self[-1]

    @property
    def headers(self) -> dict[str, Any]:
        return self.last.envelope.headers

    @property
    def properties(self) -> dict[str, Any]:
        return self.last.envelope.properties

    @property
    def body(self) -> TaskBody:
        return read_body(self.last.envelope, None)


class RecordingTransport:
    """Publishes into a list. ``failures``: what to raise first, one per publish."""

    capabilities = Capabilities(
        leases=True, delays=True, priorities=10, fanout=False, counts_attempts=True, confirms=True,
        dead_letters=True, ordered=True, survives_restart=False, max_batch=1000,
    )  # fmt: skip
    latest: RecordingTransport

    def __init__(self, url: str, settings: Any, clock: Any) -> None:
        self.url = url
        self.sent = Sent()
        self.batches: list[int] = []
        self.declared: list[QueueSpec] = []
        self.failures: list[Exception] = []
        self.closed = False
        type(self).latest = self

    def publisher(self) -> RecordingTransport:
        return self

    def admin(self) -> RecordingTransport:
        return self

    def declare(self, queues: Any) -> None:
        self.declared.extend(queues)

    def publish(self, batch: Any, deadline: float) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(batch))
        self.sent.extend(batch)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _recording_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("recording_broker")
    module.RecordingTransport = RecordingTransport  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recording_broker", module)
    entry = plugins.Entry("recording_broker:RecordingTransport")
    monkeypatch.setitem(plugins.CATALOGUE["transport"], "recording", entry)
    for name in ("BROKER_URL", "RESULT_BACKEND"):
        monkeypatch.delenv(f"CELERIAC_{name}", raising=False)
        monkeypatch.delenv(f"CELERY_{name}", raising=False)
    before = current.get_current_app()
    yield
    current.set_current_app(before)


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("proj", broker="recording://")


@pytest.fixture
def sent(app: Celeriac) -> Sent:
    transport: Any = app.transport
    return transport.sent


def context_of(outgoing: Outgoing, hostname: str = "w1@here") -> Context:
    """What a worker makes of a message: the context in which its task runs."""
    headers = outgoing.envelope.headers
    hard, soft = headers["timelimit"]
    request = Request(
        id=headers["id"], task=headers["task"], message=outgoing.envelope, queue=outgoing.route.routing_key,
        exchange=outgoing.route.exchange, routing_key=outgoing.route.routing_key, redelivered=False, delivery=1,
        hard_limit=hard, soft_limit=soft,
    )  # fmt: skip
    return Context.from_request(request, read_body(outgoing.envelope, None), hostname)


@pytest.fixture
def running() -> Any:
    """``with running(task, outgoing) as context``: as if a worker ran the message."""
    from contextlib import contextmanager

    @contextmanager
    def run(task: Any, outgoing: Outgoing) -> Iterator[Context]:
        context = context_of(outgoing)
        current.push(task, context)
        try:
            yield context
        finally:
            current.pop()

    return run
