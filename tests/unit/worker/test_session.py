"""The consumer's life: what is begun at its end is ended."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, cast

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import OperationalError
from celeriac.transports.base import QueueSpec
from celeriac.worker.claims import Claims
from celeriac.worker.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable


class SlowToClose:
    """A consumer and all that leads to it."""

    def __init__(self) -> None:
        self.begins, self.may_end, self.is_closed = asyncio.Event(), asyncio.Event(), False

    async def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def consumer(self, queues: Any, owner: str) -> Any:
        return self

    async def close_slowly(self) -> None:
        self.begins.set()
        await self.may_end.wait()
        self.is_closed = True

    def close(self) -> Any:
        return self.close_slowly()


def test_a_consumer_that_is_dropped_as_the_worker_ends_is_closed_nevertheless() -> None:
    async def story() -> None:
        broker: Any = SlowToClose()
        lane = cast("Any", broker)
        session = Session(broker, (QueueSpec(name="q"),), "owner", Claims(), lane, SYSTEM_CLOCK, Random(1))
        session._declare = lambda: None  # type: ignore[method-assign]
        running = asyncio.create_task(session.run(lambda: None))
        async with asyncio.timeout(30):
            await session.consumer()
            session.fail(session.epoch, OperationalError("gone"))
            await broker.begins.wait()
            running.cancel()
            await asyncio.wait((running,))
            closing = asyncio.create_task(session.close())
            broker.may_end.set()
            await closing
        assert broker.is_closed

    asyncio.run(story())
