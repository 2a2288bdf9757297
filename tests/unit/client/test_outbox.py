"""Coroutines share their way to the broker, and each hears of its own message."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from typing import Any

import pytest

from celeriac.client import outbox as outbox_module
from celeriac.client.outbox import Outbox
from celeriac.client.sender import PublishPolicy
from celeriac.errors import BrokerUnavailable, Unroutable
from celeriac.wire.envelope import Envelope, Outgoing, Route


def on_a_loop(test: Any) -> Any:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Sender:
    """Sends into a list, once its gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.error: Exception | None = None

    def send(self, batch: Any, policy: Any = None) -> None:
        self.began.release()
        assert self.gate.wait(timeout=60)
        names = [item.route.routing_key for item in batch]
        if self.error is not None:
            raise self.error
        if "bad" in names:
            raise Unroutable("bad")
        self.batches.append(names)


def item(name: str) -> Outgoing:
    return Outgoing(Envelope(b"", {}, {}), Route("", name))


def box(sender: Sender) -> Outbox:
    return Outbox(sender)  # type: ignore[arg-type]


async def began(sender: Sender) -> None:
    assert await asyncio.to_thread(sender.began.acquire, timeout=10)


@on_a_loop
async def test_concurrent_sends_share_batches():
    sender = Sender()
    outbox = box(sender)
    sender.gate.clear()
    first = asyncio.create_task(outbox.send([item("first")]))
    await began(sender)
    rest = [asyncio.create_task(outbox.send([item(str(number))])) for number in range(200)]
    await asyncio.sleep(0)
    sender.gate.set()
    await asyncio.wait_for(asyncio.gather(first, *rest), 10)
    assert [len(batch) for batch in sender.batches] == [1, 200]


@on_a_loop
async def test_different_policies_do_not_share_a_batch():
    sender = Sender()
    outbox = box(sender)
    sender.gate.clear()
    tasks = [asyncio.create_task(outbox.send([item("first")]))]
    await began(sender)
    policy = PublishPolicy(timeout=1)
    tasks += [asyncio.create_task(outbox.send([item(name)], policy)) for name in "ab"]
    tasks += [asyncio.create_task(outbox.send([item("c")]))]
    await asyncio.sleep(0)
    sender.gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert sender.batches == [["first"], ["a", "b"], ["c"]]


@on_a_loop
async def test_one_refused_message_does_not_hurt_its_neighbours():
    sender = Sender()
    outbox = box(sender)
    sender.gate.clear()
    tasks = [asyncio.create_task(outbox.send([item("first")]))]
    await began(sender)
    tasks += [asyncio.create_task(outbox.send([item(name)])) for name in ("good", "bad", "fine")]
    await asyncio.sleep(0)
    sender.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(answer) for answer in answers] == [type(None), type(None), Unroutable, type(None)]
    assert sender.batches == [["first"], ["good"], ["fine"]]


@on_a_loop
async def test_everyone_hears_that_the_broker_is_gone():
    sender = Sender()
    sender.error = BrokerUnavailable("gone")
    outbox = box(sender)
    answers = await asyncio.gather(*(outbox.send([item("x")]) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BrokerUnavailable] * 5


@on_a_loop
async def test_who_gives_up_does_not_disturb_the_others():
    sender = Sender()
    outbox = box(sender)
    sender.gate.clear()
    given_up = asyncio.create_task(outbox.send([item("a")]))
    await began(sender)
    other = asyncio.create_task(outbox.send([item("b")]))
    await asyncio.sleep(0)
    given_up.cancel()
    sender.gate.set()
    await asyncio.wait_for(other, 10)
    with pytest.raises(asyncio.CancelledError):
        await given_up


@on_a_loop
async def test_an_idle_thread_ends_and_comes_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox_module, "IDLE", 0.01)
    sender = Sender()
    outbox = box(sender)
    await outbox.send([item("a")])
    thread = outbox._thread
    if thread is not None:
        await asyncio.to_thread(thread.join, timeout=10)
        assert not thread.is_alive()
    await outbox.send([item("b")])
    assert sender.batches == [["a"], ["b"]]


def test_loops_in_several_threads_share_one_outbox():
    sender = Sender()
    outbox = box(sender)

    def work(name: str) -> None:
        asyncio.run(outbox.send([item(name)]))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(name for batch in sender.batches for name in batch) == list("abcd")


def test_a_forked_child_has_a_thread_of_its_own():
    outbox = box(Sender())
    asyncio.run(outbox.send([item("a")]))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(asyncio.wait_for(outbox.send([item("b")]), 10))
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
