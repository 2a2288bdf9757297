"""The bridge from blocking drivers loses no message whatever is cancelled when."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.errors import OperationalError
from celeriac.transports.base import ACK, Delivery, Envelope, Route, Settlement
from celeriac.transports.threads import ThreadedConsumer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class Broker:
    """A blocking consumer that waits where the test tells it to."""

    def __init__(self, same_lane: bool = False) -> None:
        self.same_lane = same_lane
        self.waiting: deque[int] = deque()
        self.held: set[int] = set()
        self.changed = threading.Condition()
        self.interrupted = False
        self.entered = threading.Event()
        self.may_return = threading.Event()
        self.may_return.set()
        self.error: Exception | None = None
        self.threads: set[str] = set()
        self.closed = 0

    def put(self, *numbers: int) -> None:
        with self.changed:
            self.waiting.extend(numbers)
            self.changed.notify_all()

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        self.threads.add("receive " + threading.current_thread().name)
        found = []
        with self.changed:
            self.entered.set()
            self.changed.wait_for(lambda: self.waiting or self.interrupted or self.error, wait)
            self.interrupted = False
            while self.waiting and len(found) < limit:
                found.append(self.waiting.popleft())
            self.held.update(found)
        assert self.may_return.wait(60)
        if self.error:
            raise self.error
        return [Delivery(Envelope(b"", {}, {}), "q", number, Route("", "q")) for number in found]

    def settle(self, batch: Sequence[Settlement]) -> Sequence[int]:
        self.threads.add("settle " + threading.current_thread().name)
        with self.changed:
            lost = [one.receipt for one in batch if one.receipt not in self.held]
            self.held.difference_update(one.receipt for one in batch)
        return lost

    def renew(self, receipts: Sequence[int]) -> Sequence[int]:
        return [receipt for receipt in receipts if receipt not in self.held]

    def interrupt(self) -> None:
        with self.changed:
            self.interrupted = True
            self.changed.notify_all()

    def close(self) -> None:
        self.closed += 1
        self.held.clear()


def run(work: Awaitable[Any]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """A thread brings it about; the deadline is that of the test."""
    while not condition():  # noqa: ASYNC110 - the thread knows no event of this loop
        await asyncio.sleep(0)


async def started(broker: Broker, limit: int = 10) -> tuple[ThreadedConsumer, asyncio.Task[Sequence[Delivery]]]:
    consumer = ThreadedConsumer(broker, "test")
    task = asyncio.ensure_future(consumer.receive(limit, 10))
    await asyncio.to_thread(broker.entered.wait, 10)
    return consumer, task


def test_cancelled_after_the_thread_has_claimed() -> None:
    async def scenario() -> None:
        broker = Broker()
        broker.may_return.clear()
        consumer, task = await started(broker)
        broker.put(1, 2, 3)
        await until(lambda: not broker.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        broker.may_return.set()
        # what came in vain comes now, within the limit, and nothing is claimed beyond it
        assert [one.receipt for one in await consumer.receive(2, 10)] == [1, 2]
        assert [one.receipt for one in await consumer.receive(2, 10)] == [3]
        assert not await consumer.settle([Settlement(number, ACK) for number in (1, 2, 3)])
        await consumer.close()

    run(scenario())


def test_cancelled_in_the_very_tick_of_the_delivery() -> None:
    async def scenario() -> None:
        broker = Broker()
        consumer, task = await started(broker)
        broker.put(1)
        future = consumer._under_way
        assert future is not None
        future.add_done_callback(lambda _: task.cancel())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [one.receipt for one in await consumer.receive(1, 10)] == [1]
        await consumer.close()

    run(scenario())


def test_a_cancelled_wait_frees_the_thread() -> None:
    async def scenario() -> None:
        broker = Broker()
        consumer, task = await started(broker)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        broker.put(7)
        assert [one.receipt for one in await consumer.receive(1, 10)] == [7]
        await consumer.close()

    run(scenario())


@pytest.mark.parametrize("same_lane", [False, True])
def test_settling_does_not_wait_for_a_receive(same_lane: bool) -> None:
    async def scenario() -> None:
        broker = Broker(same_lane)
        consumer, task = await started(broker)
        assert list(await consumer.settle([Settlement(99, ACK)])) == [99]
        assert list(await consumer.renew([98])) == [98]
        assert not task.done()  # and the receive goes on
        broker.put(1)
        assert len(await task) == 1
        assert len({name.split(" ", 1)[1] for name in broker.threads}) == (1 if same_lane else 2)
        await consumer.close()

    run(scenario())


@pytest.mark.parametrize("same_lane", [False, True])
def test_closing_ends_both_threads(same_lane: bool) -> None:
    async def scenario() -> None:
        broker = Broker(same_lane)
        consumer, task = await started(broker)
        await consumer.settle([])
        await consumer.close()
        await consumer.close()
        assert list(await task) == []
        assert broker.closed == 1
        with pytest.raises(OperationalError):
            await consumer.settle([])
        assert list(await consumer.receive(1, 10)) == []

    before = threading.active_count()
    run(scenario())
    assert threading.active_count() <= before


def test_errors_reach_the_caller_and_the_next_call_works() -> None:
    async def scenario() -> None:
        broker = Broker()
        consumer, task = await started(broker)
        with broker.changed:
            broker.error = OperationalError("gone")
            broker.changed.notify_all()
        with pytest.raises(OperationalError, match="gone"):
            await task
        broker.error = None
        broker.put(1)
        assert len(await consumer.receive(1, 10)) == 1
        await consumer.close()

    run(scenario())


def test_an_error_that_nobody_waits_for_is_not_raised_later() -> None:
    async def scenario() -> None:
        broker = Broker()
        broker.error = OperationalError("gone")
        broker.may_return.clear()
        consumer, task = await started(broker)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        broker.may_return.set()
        await until(lambda: consumer._under_way is None)
        broker.error = None
        broker.put(1)
        assert len(await consumer.receive(1, 10)) == 1
        await consumer.close()

    run(scenario())


def test_asked_again_in_the_tick_in_which_the_thread_answered() -> None:
    """A future is done before its callbacks run; a receive in between must neither spin nor overlook it."""

    async def scenario() -> None:
        consumer = ThreadedConsumer(Broker(), "test")
        future: asyncio.Future[Sequence[Delivery]] = asyncio.get_running_loop().create_future()
        future.add_done_callback(consumer._note_received)
        consumer._under_way = future
        future.set_result([Delivery(Envelope(b"", {}, {}), "q", number, Route("", "q")) for number in (1, 2)])
        assert [one.receipt for one in await consumer.receive(1, 10)] == [1]
        assert [one.receipt for one in await consumer.receive(5, 10)] == [2]
        await consumer.close()

    run(scenario())
