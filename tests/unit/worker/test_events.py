"""Events of a worker: what of telemetry becomes which message, when they cost something, what a stranger can't do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import telemetry
from celeriac.clock import SYSTEM_CLOCK, LamportClock
from celeriac.embedded.volatile import forget_engines
from celeriac.executors.base import InWork, Request
from celeriac.settings import Settings
from celeriac.transports.base import Envelope, QueueSpec
from celeriac.transports.memory import MemoryTransport
from celeriac.wire.event_message import decode_events
from celeriac.worker.announcer import Announcer
from celeriac.worker.events import Events

EAR = QueueSpec(name="ear", exchange="celeryev", exchange_type="topic", routing_key="#")


class Pool:
    """An executor that shows what runs."""

    def __init__(self) -> None:
        self.work: list[InWork] = []

    def in_work(self) -> list[InWork]:
        return self.work

    def processes(self) -> list[int]:
        return [1]


class Scene:
    def __init__(self, enabled: bool = True) -> None:
        self.transport = MemoryTransport("memory://events", Settings(), SYSTEM_CLOCK)
        self.pool = Pool()
        executor: Any = self.pool
        self.announcer = Announcer(self.transport, SYSTEM_CLOCK)
        self.events = Events(
            self.announcer, executor, "w1@h", "celeryev", "json", LamportClock(), SYSTEM_CLOCK, enabled=enabled
        )
        self.heard: list[dict[str, Any]] = []

    def run(self, story: Callable[[], Any]) -> None:
        async def whole() -> None:
            service = asyncio.create_task(self.events.run(lambda: None))
            try:
                async with asyncio.timeout(60):
                    await story()
            finally:
                service.cancel()
                await asyncio.wait((service,))
                await self.announcer.close()

        asyncio.run(whole())

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():  # noqa: ASYNC110 - the thread that publishes tells nobody
            await asyncio.sleep(0.01)

    async def hear(self, subscription: Any, count: int) -> list[dict[str, Any]]:
        while len(self.heard) < count:
            for one in await asyncio.to_thread(subscription.receive, 100, 0.5):
                self.heard.extend(decode_events(one.envelope).events)
        return self.heard


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_engines()
    yield
    forget_engines()


def request(task_id: str, **headers: Any) -> Request:
    envelope = Envelope(b"", {"argsrepr": "(1,)", "kwargsrepr": "{}", "root_id": "r", "retries": 2, **headers}, {})
    return Request(task_id, "app.add", envelope, "celery", "", "celery", False, 1, None, None)


def received(task_id: str, **headers: Any) -> telemetry.TaskReceived:
    return telemetry.TaskReceived(id=task_id, name="app.add", queue="celery", request=request(task_id, **headers))


def test_nobody_listens_nothing_is_gathered() -> None:
    scene = Scene()

    async def story() -> None:
        await asyncio.sleep(0.3)
        assert not telemetry.wanted(telemetry.TaskSucceeded)
        ear = scene.transport.broadcast().subscribe(EAR)
        scene.events.look()
        await scene.until(lambda: telemetry.wanted(telemetry.TaskSucceeded))
        telemetry.emit(telemetry.TaskSucceeded(id="t", name="n", runtime=0.5, result="3"))
        assert [event["type"] for event in await scene.hear(ear, 2)] == ["task-started", "task-succeeded"]
        ear.close()
        await scene.until(lambda: not telemetry.wanted(telemetry.TaskSucceeded))

    scene.run(story)


def test_not_enabled() -> None:
    scene = Scene(enabled=False)

    async def story() -> None:
        ear = scene.transport.broadcast().subscribe(EAR)
        await asyncio.sleep(0.2)
        assert not telemetry.wanted(telemetry.TaskSucceeded)
        assert scene.events.enable()
        assert not scene.events.enable()
        telemetry.emit(telemetry.TaskSucceeded(id="t", name="n", runtime=0.5, result="3"))
        await scene.hear(ear, 2)
        assert scene.events.disable()
        assert not scene.events.disable()
        assert not telemetry.wanted(telemetry.TaskSucceeded)
        await scene.events.tell_worker("worker-heartbeat", {"freq": 2.0})  # these come nevertheless
        assert (await scene.hear(ear, 3))[-1]["type"] == "worker-heartbeat"
        ear.close()

    scene.run(story)


def test_every_kind() -> None:
    scene = Scene()
    told = [
        received("a", eta="2030-01-01T00:00:00", parent_id="p"),
        telemetry.TaskFailed(id="b", name="n", runtime=0.1, error="E()", traceback="T"),
        telemetry.TaskRetried(id="c", name="n", error="E()", when="in 5s"),
        telemetry.TaskRejected(id="d", name="n", requeue=True, reason="r"),
        telemetry.TaskRejected(id="k", name="n", requeue=False, reason="'r'"),
        telemetry.TaskRevoked(id="e", name="n", expired=True),
        telemetry.TaskRevoked(id="f", name="n", expired=False, terminated=True),
        telemetry.TaskLost(id="g", name="n", detail="signal 9", outcome="failed"),
        telemetry.TaskLost(id="h", name="n", detail="signal 9", outcome="retried"),
        telemetry.MessageDead(queue="q", id="i", name="n", reason="poison"),
        telemetry.MessageQuarantined(queue="q", id="j", reason="no such task"),
        telemetry.MessageQuarantined(queue="q", id="", reason="garbage"),
    ]

    async def story() -> None:
        ear = scene.transport.broadcast().subscribe(EAR)
        scene.events.enable()
        for event in told:
            telemetry.emit(event)
        heard = await scene.hear(ear, 13)
        common = {"hostname", "utcoffset", "pid", "clock", "timestamp", "type", "uuid"}
        kinds = {event["uuid"] + " " + event["type"]: event for event in heard}
        assert set(kinds) == {
            "a task-received", "b task-started", "b task-failed", "c task-retried", "d task-rejected",
            "e task-revoked", "f task-revoked", "g task-failed", "i task-failed", "j task-failed",
            "k task-started", "k task-failed", "k task-rejected",
        }  # fmt: skip
        assert all(common <= event.keys() for event in heard)
        first = kinds["a task-received"]
        assert (first["name"], first["args"], first["retries"], first["eta"], first["root_id"], first["parent_id"]) == (
            "app.add", "(1,)", 2, "2030-01-01T00:00:00", "r", "p",
        )  # fmt: skip
        assert kinds["b task-failed"]["traceback"] == "T"
        assert kinds["k task-failed"]["exception"] == "Reject('r', requeue=False)"
        assert (kinds["e task-revoked"]["expired"], kinds["e task-revoked"]["signum"]) == (True, None)
        assert (kinds["f task-revoked"]["terminated"], kinds["f task-revoked"]["signum"]) == (True, 15)
        ear.close()

    scene.run(story)


def test_a_start_is_told_while_the_task_runs_and_once() -> None:
    scene = Scene()

    async def story() -> None:
        ear = scene.transport.broadcast().subscribe(EAR)
        scene.events.enable()
        began, when = SYSTEM_CLOCK.monotonic() - 10, SYSTEM_CLOCK.time() - 10
        scene.pool.work = [InWork("long", 7, began)]
        [started] = await scene.hear(ear, 1)
        assert (started["type"], started["uuid"]) == ("task-started", "long")
        assert abs(started["timestamp"] - when) < 2
        await asyncio.sleep(0.8)
        scene.pool.work = []
        telemetry.emit(telemetry.TaskSucceeded(id="long", name="n", runtime=11.0, result="x"))
        assert [event["type"] for event in await scene.hear(ear, 2)] == ["task-started", "task-succeeded"]
        ear.close()

    scene.run(story)


def test_strange_headers_spoil_nothing() -> None:
    scene = Scene()
    strange: list[dict[str, Any]] = [
        {"retries": 1 << 80}, {"retries": {"a": 1}}, {"argsrepr": b"\xff"}, {"argsrepr": "\ud800"}, {"eta": [1]},
        {"kwargsrepr": "x" * 1_000_000}, {"root_id": {"deep": [[[]]]}, "parent_id": 7, "expires": object()},
    ]  # fmt: skip

    async def story() -> None:
        ear = scene.transport.broadcast().subscribe(EAR)
        scene.events.enable()
        for number, headers in enumerate(strange):
            telemetry.emit(received(f"t{number}", **headers))
        heard = await scene.hear(ear, len(strange))
        assert [event["uuid"] for event in heard] == [f"t{number}" for number in range(len(strange))]
        assert max(len(event["kwargs"]) for event in heard) < 5000
        ear.close()

    scene.run(story)


def test_what_cannot_be_said_is_bounded() -> None:
    scene = Scene()
    scene.events.enable()
    for number in range(50_000):
        telemetry.emit(telemetry.TaskSucceeded(id=f"t{number}", name="n", runtime=0.1, result="1"))
    assert scene.events.told == 100_000

    async def story() -> None:
        ear = scene.transport.broadcast().subscribe(EAR)
        heard = await scene.hear(ear, 20_000)
        assert len(heard) == 20_000
        assert heard[-1]["uuid"] == "t49999"
        ear.close()

    scene.run(story)
