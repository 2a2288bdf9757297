"""The bridge from a blocking driver to the asyncio worker: two lanes, a batch per hop.

One thread receives, the other settles, renews and commits, so that an acknowledgement never waits behind a
blocking receive. A message that a thread has claimed is never dropped on the way: when the coroutine that asked for
it is gone, it waits here for the next one that asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from celeriac.errors import OperationalError
from celeriac.transports.base import BlockingConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.transports.base import Delivery, Outgoing, QueueSpec, Receipt, Settlement
    from celeriac.wire.result_record import ResultRecord

T = TypeVar("T")

#: seconds that closing may take before the threads are left to themselves
CLOSE_TIMEOUT = 5.0


class Lane:
    """One thread that works off jobs in order. A daemon, so that a stuck driver cannot keep the process alive."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread. Cancelling gives up the wait, not the work."""
        return await self.submit(work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._closed:
            raise OperationalError(f"{self._name} is closed")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        if self._thread is None:
            self._thread = threading.Thread(target=self._work_off, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Take no more jobs; the thread ends after those it has."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended within ``timeout`` seconds."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _work_off(self) -> None:
        # no time limit on this get: close() puts the end mark, and a daemon thread dies with its process
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # or the next wait would keep its deliveries alive


class _Job:
    __slots__ = ("_loop", "_work", "future")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self._work = work
        self._loop = loop
        self.future = future

    def run(self) -> None:
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = self._work()
        except BaseException as caught:
            error = caught
        # a closed loop: nobody is left to tell; the leases end by themselves
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, answer, error)

    def _deliver(self, answer: Any, error: BaseException | None) -> None:
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(answer)
        else:
            self.future.set_exception(error)


class CommittingBlockingConsumer(BlockingConsumer, Protocol):
    """A blocking driver that is also the result store."""

    def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]: ...
    def close_keeping(self, receipts: Sequence[Receipt]) -> None: ...


class ThreadedConsumer:
    """A :class:`~celeriac.transports.base.Consumer` made of a blocking one. One owner, one event loop."""

    def __init__(self, inner: BlockingConsumer, name: str) -> None:
        self._inner = inner
        self._receiving = Lane(f"celeriac-receive-{name}")
        self._settling = self._receiving if inner.same_lane else Lane(f"celeriac-settle-{name}")
        #: the receive that a thread is busy with although its coroutine may be gone
        self._under_way: asyncio.Future[Sequence[Delivery]] | None = None
        self._left_over: list[Delivery] = []
        self._closing = False

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = time.monotonic() + wait
        while not self._closing:
            if self._left_over:
                found, self._left_over = self._left_over[:limit], self._left_over[limit:]
                return found
            left = max(0.0, ends - time.monotonic())
            if self._under_way is None:
                self._under_way = self._receiving.submit(partial(self._inner.receive, limit, left))
                self._under_way.add_done_callback(self._note_received)
            future = self._under_way
            try:
                # shielded: what the thread brings belongs to this object, not to the coroutine that is waiting
                await asyncio.shield(future)
            except asyncio.CancelledError:
                self._inner.interrupt()
                raise
            finally:
                if future.done():  # its callbacks run only in the loop's next round, which may be too late
                    self._note_received(future)
            if not self._left_over and time.monotonic() >= ends:
                break
        return []

    def _note_received(self, future: asyncio.Future[Sequence[Delivery]]) -> None:
        if self._under_way is not future:
            return
        self._under_way = None
        if not future.cancelled() and future.exception() is None:
            self._left_over.extend(future.result())

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self.settling(lambda: self._inner.settle(batch))

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return await self.settling(lambda: self._inner.renew(receipts))

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        redirect = getattr(self._inner, "redirect", None)
        if redirect is None:
            return False
        done = self._receiving.submit(partial(redirect, queues))
        self._inner.interrupt()
        await done
        return True

    async def settling(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the lane that settles."""
        future = self._settling.submit(work)
        if self._settling is self._receiving:
            self._inner.interrupt()
        return await future

    async def close(self) -> None:
        await self.closing(self._inner.close)

    async def closing(self, last_job: Callable[[], None]) -> None:
        """Let both lanes end; ``last_job`` is the driver's own closing."""
        if self._closing:
            return
        self._closing = True
        self._left_over.clear()  # still held by the driver, whose close gives everything back
        self._inner.interrupt()
        lanes = [self._receiving] if self._settling is self._receiving else [self._settling, self._receiving]
        ends = time.monotonic() + CLOSE_TIMEOUT
        # the driver's own close comes when both lanes have nothing more to do with it
        last_words = [lane.submit(_nothing) for lane in lanes[:-1]]
        for lane in lanes[:-1]:
            lane.close()
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + CLOSE_TIMEOUT):
            for future in last_words:
                await asyncio.shield(future)
            closed = lanes[-1].submit(last_job)
            lanes[-1].close()
            await asyncio.shield(closed)
        for lane in lanes:
            lane.join(ends - time.monotonic())


def _nothing() -> None:
    pass


class CommittingConsumer:
    """The same for a driver that is also the result store."""

    def __init__(self, inner: CommittingBlockingConsumer, name: str) -> None:
        self._inner = inner
        self._bridge = ThreadedConsumer(inner, name)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        return await self._bridge.receive(limit, wait)

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self._bridge.settle(batch)

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return await self._bridge.renew(receipts)

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        return await self._bridge.settling(lambda: self._inner.commit(results, sends, settlements))

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        return await self._bridge.redirect(queues)

    async def close(self) -> None:
        await self._bridge.close()

    async def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        await self._bridge.closing(lambda: self._inner.close_keeping(receipts))
