"""The answers of the probes: who may ask what and how, and what of the worker is seen in them."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, cast

import pytest

from celeriac import telemetry
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.executors.base import Condition, InWork, Lost, Request, WantsRetry
from celeriac.rules.health import Patience
from celeriac.worker import probes
from celeriac.worker.meter import OTHER, Meter
from celeriac.worker.pages import Page, Pages
from celeriac.worker.probes import Address, Probes, address_of, bind

DEADLINE = 30.0
ANYWHERE = Address("127.0.0.1", 0)


class Book:
    """Pages of which one is wrong."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, path: str) -> Page | None:
        self.asked.append(path)
        if path == "/wrong":
            raise ZeroDivisionError
        return Page(200, "text/plain", "live\n" * (100_000 if path == "/long" else 1)) if path != "/nothing" else None


def serve(story: Callable[[Probes, Book], Awaitable[None]]) -> None:
    async def whole() -> None:
        book = Book()
        service = Probes(ANYWHERE, cast("Pages", book))
        started = asyncio.Event()
        running = asyncio.create_task(service.run(started.set))
        try:
            async with asyncio.timeout(DEADLINE):
                await started.wait()
                await story(service, book)
        finally:
            running.cancel()
            await asyncio.wait((running,))

    asyncio.run(whole())


async def say(service: Probes, request: bytes, end: bool = False) -> bytes:
    """Everything that is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection(*service.address)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /live HTTP/1.1", 200),
        (b"GET /live?verbose HTTP/1.0", 200),
        (b"HEAD /live HTTP/1.1", 200),
        (b"GET /nothing HTTP/1.1", 404),
        (b"POST /live HTTP/1.1", 405),
        (b"\xff\xfe /live HTTP/1.1", 405),
        (b"GET /live", 400),
        (b"", 400),
        (b"GET /live SMTP/1.1", 400),
        (b"GET /wrong HTTP/1.1", 500),
    ],
)
def test_a_request_is_answered(request_line: bytes, status: int):
    async def story(service: Probes, book: Book) -> None:
        answer = await say(service, request_line + b"\r\nHost: here\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"Connection: close" in head
        length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
        assert body == b"" if request_line.startswith(b"HEAD") else len(body) == length
        assert set(book.asked) <= {"/live", "/nothing", "/wrong"}

    serve(story)


def test_bad_clients_do_not_keep_good_ones_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "PATIENCE", 1.0)

    async def story(service: Probes, book: Book) -> None:
        slow = [await asyncio.open_connection(*service.address) for _ in range(probes.CONNECTIONS + 10)]
        for _, writer in slow:
            writer.write(b"GET /live HT")
        # more than there is room for are closed at once, the others when their time is over
        rest = [await asyncio.wait_for(_end_of(reader), DEADLINE) for reader, _ in slow]
        assert rest == [b""] * len(slow)
        assert (await say(service, b"GET /live HTTP/1.1\r\n\r\n")).endswith(b"live\n")
        huge = await say(service, b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n")
        assert huge == b"" or huge.startswith(b"HTTP/1.1 431 ")
        assert await say(service, b"GET /li", end=True) == b""
        reader, writer = await asyncio.open_connection(*service.address, limit=1024)
        writer.write(b"GET /long HTTP/1.1\r\n\r\n")  # and does not read
        assert (await say(service, b"GET /live HTTP/1.1\r\n\r\n")).endswith(b"live\n")
        for _, each in [*slow, (reader, writer)]:
            each.transport.abort()
        assert "/" + "x" * 1_000_000 not in book.asked

    serve(story)


async def _end_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_the_address_is_free_again_afterwards():
    async def story(service: Probes, book: Book) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"--probes \(worker_probes\)"):
            bind(service.address)
        seen.append(service.address)

    seen: list[Address] = []
    serve(story)
    bind(seen[0]).close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("9100", ("127.0.0.1", 9100)),
        (" 0.0.0.0:0 ", ("0.0.0.0", 0)),
        ("[::1]:9100", ("::1", 9100)),
        ("localhost:9100", ("localhost", 9100)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]):
    assert address_of(text) == address


@pytest.mark.parametrize("text", [":9100", "here", "127.0.0.1", "127.0.0.1:", "h:99999", "h:-1", "h:٣", ""])
def test_no_addresses(text: str):
    with pytest.raises(ImproperlyConfigured, match=r"127\.0\.0\.1:9100"):
        address_of(text)


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(ImproperlyConfigured, match=r"192\.0\.2\.1:9100"):
        bind(Address("192.0.2.1", 9100))


def test_ipv6_is_shown_in_brackets():
    assert str(Address("::1", 9100)) == "[::1]:9100"


# ── a worker ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Client:
    """Asks from another thread, as the worker's loop is this one."""

    def __init__(self, rig: Any) -> None:
        self._rig = rig

    async def ask(self, path: str) -> tuple[int, str]:
        service = next(one for one in self._rig.worker.pipeline.supervisor._services if one.name == "probes")
        return await asyncio.to_thread(fetch, service.address, path)

    async def until(self, path: str, holds: Callable[[int, str], bool]) -> str:
        async with asyncio.timeout(DEADLINE):
            while True:
                status, text = await self.ask(path)
                if holds(status, text):
                    return text
                await asyncio.sleep(0.05)

    async def metrics(self, *lines: str) -> str:
        return await self.until("/metrics", lambda _, text: set(lines) <= set(text.splitlines()))


def fetch(address: Address, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def make(make_rig: Any) -> Callable[..., Any]:
    return lambda **plan: make_rig(**{"probes": ANYWHERE, **plan})


def test_what_a_worker_does_is_counted(make: Callable[..., Any]):
    async def story() -> None:
        async with make().running() as rig:
            client = Client(rig)
            rig.executor.script["app.strict"] = lambda request: WantsRetry(request.id, None, [], 0.3, "no", "in 1s")
            for number in range(5):
                rig.broker.put("app.add", f"t{number}")
            rig.broker.put("app.strict", "again")
            rig.broker.put("app.slow", "slow")
            rig.broker.put("app.nobody", "unknown")
            rig.broker.put("app.add", "late", expires="2001-01-01T00:00:00+00:00")
            await rig.settled("t4", "again", "unknown", "late")
            await rig.started("slow")
            text = await client.metrics(
                'celeriac_task_received_total{task="app.add"} 5',
                'celeriac_task_succeeded_total{task="app.add"} 5',
                'celeriac_task_started_total{task="app.add"} 5',
                'celeriac_task_expired_total{task="app.add"} 1',
                'celeriac_task_retried_total{task="app.strict"} 1',
                'celeriac_task_runtime_seconds_bucket{task="app.strict",le="0.25"} 0',
                'celeriac_task_runtime_seconds_bucket{task="app.strict",le="0.5"} 1',
                'celeriac_task_runtime_seconds_sum{task="app.add"} 0.05',
                'celeriac_messages_quarantined_total{queue="celery"} 1',
                'celeriac_worker_messages{state="prefetched"} 0',
                "celeriac_worker_slots 2",
                "celeriac_worker_live 1",
                "celeriac_worker_ready 1",
            )
            assert "app.nobody" not in text
            rig.executor.finish("slow", Lost("slow", True, "died", "signal 9 (SIGKILL)"))
            await client.metrics('celeriac_task_lost_total{task="app.slow"} 1')
            await rig.started("slow")
            rig.executor.finish("slow")
            await rig.settled("slow")

    asyncio.run(story())


def test_a_worker_that_stops_is_not_ready(make: Callable[..., Any]):
    async def story() -> None:
        async with make().running() as rig:
            client = Client(rig)
            rig.broker.put("app.slow", "slow")
            await rig.started("slow")
            assert await client.until("/ready", lambda status, _: status == 200) == "ready\n"
            rig.stop.set()
            text = await client.until("/ready", lambda status, _: status == 503)
            assert text == "not ready: the worker is stopping\n"
            assert await client.ask("/live") == (200, "live\n")
            rig.executor.finish("slow")

    asyncio.run(story())


def test_a_broker_that_is_away_makes_a_worker_unready_but_not_wedged(make: Callable[..., Any]):
    async def story() -> None:
        async with make(patience=Patience(1.0, 0.2)).running() as rig:
            client = Client(rig)
            rig.broker.fail("receive", OperationalError("cut"))
            rig.broker.fail("consumer", OperationalError("refused"), 4)
            await client.until("/ready", lambda _, text: "no connection to the broker" in text)
            await client.until("/ready", lambda status, _: status == 200)
            text = await client.metrics("celeriac_worker_broker_reconnects_total 1")
            assert int(re.findall(r"broker_errors_total (\d+)", text)[0]) >= 2

    asyncio.run(story())


def test_messages_that_never_come_though_consumers_are_built_anew_wedge_a_worker(make: Callable[..., Any]):
    async def story() -> None:
        async with make(silence=0.2, receive_wait=0.02, delays=False).running() as rig:
            client = Client(rig)
            assert (await client.ask("/live"))[0] == 200
            rig.broker.take = lambda limit, consumer: []
            rig.broker.put("app.add", "never")
            text = await client.until("/live", lambda status, _: status == 503)
            assert re.match(
                r"not live: 1 messages wait and slots are free, yet none is delivered, .* \d consumers", text
            )
            del rig.broker.take
            rig.broker.put("app.add", "at last")
            await rig.settled("at last")
            await client.until("/live", lambda status, _: status == 200)

    asyncio.run(story())


def test_a_pool_that_does_not_begin_what_it_was_given_wedges_a_worker(make: Callable[..., Any]):
    async def story() -> None:
        rig = make(patience=Patience(1.0, 0.2))
        condition = Condition(2, 0)
        rig.executor.condition = lambda: condition
        async with rig.running():
            client = Client(rig)
            await client.until("/live", lambda status, _: status == 200)
            condition = Condition(2, 1)
            await client.until("/live", lambda _, text: "the pool does not answer: 1 processes" in text)
            condition = Condition(0, 0)
            await client.until("/live", lambda _, text: "the pool has had no process for" in text)
            await client.until("/ready", lambda _, text: "no process that takes work" in text)
            condition = Condition(2, 0)
            assert await client.until("/live", lambda status, _: status == 200) == "live\n"

    asyncio.run(story())


def test_a_loop_that_stands_still_is_seen_from_outside_of_it(make: Callable[..., Any]):
    async def story() -> None:
        async with make(patience=Patience(1.0, 0.3)).running() as rig:
            client = Client(rig)
            await client.until("/live", lambda status, _: status == 200)
            asked = asyncio.create_task(client.ask("/live"))
            service = next(one for one in rig.worker.pipeline.supervisor._services if one.name == "probes")
            answers: list[tuple[int, str]] = []
            asker = asyncio.to_thread(lambda: answers.append(_ask_until_bad(service.address)))
            waiting = asyncio.create_task(asker)
            await asked
            ends = time.monotonic() + DEADLINE
            while not answers and time.monotonic() < ends:
                time.sleep(0.01)  # noqa: ASYNC251 - that is what is wrong with it
            await waiting
            assert answers[0][0] == 503
            assert "the event loop has stood still for" in answers[0][1]
            await client.until("/live", lambda status, _: status == 200)

    asyncio.run(story())


def _ask_until_bad(address: Address) -> tuple[int, str]:
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        answer = fetch(address, "/live")
        if answer[0] != 200:
            return answer
    return answer


def test_nothing_is_counted_where_nobody_wants_probes(make_rig: Any):
    async def story() -> None:
        async with make_rig().running() as rig:
            assert rig.worker.pipeline.endings.on_outcomes is None
            assert rig.worker.pipeline.intake.on_received is None
            assert not telemetry.wanted(telemetry.ChildStarted)

    asyncio.run(story())


def test_a_port_in_use_keeps_a_worker_from_starting(make_rig: Any):
    async def story() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            rig = make_rig(probes=Address("127.0.0.1", taken.getsockname()[1]))
            with pytest.raises(ImproperlyConfigured, match="each worker needs its own"):
                await rig.worker.serve(rig.stop)

    asyncio.run(story())


# ── the meter ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_bounded_and_a_strangers_are_not_told_apart():
    claims: Any = type("Claims", (), {"held": {}, "ready": ()})()
    known = {f"task{number}" for number in range(600)}
    meter = Meter(claims, known, SYSTEM_CLOCK)
    end = meter.listen()
    try:
        for number in range(1000):
            telemetry.emit(telemetry.TaskRevoked(id="x", name=f"stranger{number}", expired=False))
            telemetry.emit(telemetry.MessageQuarantined(queue=f"queue{number}", id="x", reason="bad"))
        for name in sorted(known):
            telemetry.emit(telemetry.TaskRevoked(id="x", name=name, expired=True))
    finally:
        end()
    assert meter.tallies[OTHER].revoked == 1000
    assert len(meter.tallies) == 500
    assert meter.tallies[OTHER].expired == 600 - 499
    assert len(meter.quarantined) == 501
    assert meter.quarantined.total() == 1000


def test_starts_never_grow_less():
    request = Request("a", "task", cast("Any", None), "q", "", "", False, 1, None, None)
    claim: Any = type("Claim", (), {"request": request})()
    claims: Any = type("Claims", (), {"held": {"a": claim}, "ready": ()})()
    meter = Meter(claims, {"task"}, SYSTEM_CLOCK)
    meter.look([InWork("a", 1, 0.0), InWork("gone", 1, 0.0)])
    assert meter.tallies["task"].started == 1
    meter.look([])  # it has ended, and that is not told yet
    assert meter.tallies["task"].started == 1
