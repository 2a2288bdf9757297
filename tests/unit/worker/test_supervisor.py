from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.worker.supervisor import ServiceGaveUp, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable


class Recorder:
    """A service that writes down when it starts and ends, and fails as often as it is told."""

    def __init__(self, name: str, story: list[str], error: Exception | None = None, failures: int = 0) -> None:
        self.name = name
        self.story = story
        self.error = error
        self.failures = failures
        self.steady = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        self.story.append(f"{self.name} starts")
        started()
        try:
            if self.failures and self.error is not None:
                self.failures -= 1
                raise self.error
            self.steady.set()
            await asyncio.Event().wait()
        finally:
            self.story.append(f"{self.name} ends")


def supervised(*services: Recorder) -> Supervisor:
    return Supervisor(services, SYSTEM_CLOCK, Random(1))


def test_services_start_in_order_and_end_in_reverse() -> None:
    async def story() -> list[str]:
        seen: list[str] = []
        supervisor = supervised(*(Recorder(name, seen) for name in "abc"))
        await supervisor.start()
        await supervisor.stop()
        return seen

    assert asyncio.run(story()) == ["a starts", "b starts", "c starts", "c ends", "b ends", "a ends"]


def test_a_failing_service_is_started_again() -> None:
    async def story() -> list[str]:
        seen: list[str] = []
        service = Recorder("a", seen, OSError("reset"), 2)
        supervisor = supervised(service)
        await supervisor.start()
        async with asyncio.timeout(60):
            await service.steady.wait()
        assert not supervisor.failed.done()
        await supervisor.stop()
        return seen

    assert asyncio.run(story()) == ["a starts", "a ends"] * 3


@pytest.mark.parametrize(
    ("error", "failures", "raised"),
    [(OSError("reset"), 99, ServiceGaveUp), (ImproperlyConfigured("bad"), 1, ImproperlyConfigured)],
)
def test_what_cannot_go_on_says_why(error: Exception, failures: int, raised: type[Exception]) -> None:
    async def story() -> None:
        supervisor = supervised(Recorder("a", [], error, failures))
        await supervisor.start()
        try:
            async with asyncio.timeout(60):
                await supervisor.failed
        finally:
            await supervisor.stop()

    with pytest.raises(raised, match=r"reset|bad"):
        asyncio.run(story())


def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    async def story() -> None:
        supervisor = supervised(Recorder("a", []))
        await supervisor.stop()
        await supervisor.stop()

    asyncio.run(story())
