"""The worker and the registry of revocations: what it reads before it works, what it writes, and when neither works."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.embedded.volatile import VolatileEngine
from celeriac.errors import BrokerUnavailable, OperationalError
from celeriac.results.base import News, Revocation
from celeriac.wire.revocation import PARDON
from celeriac.worker import revocations
from celeriac.worker.revocations import RevocationWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.unit.worker.conftest import Rig

    MakeRig = Callable[..., Rig]

#: seconds; nobody waits for it
LONG = 20.0


class Registry:
    """In memory, and out of order when the test says so."""

    def __init__(self) -> None:
        self.engine = VolatileEngine()
        self.failing = 0
        self.open = threading.Event()
        self.open.set()
        self.reads = 0
        self.written: list[str] = []

    def add(self, *values: str, signal: str = "", header: str = "") -> None:
        self.engine.add_revocations([Revocation(value, header, signal) for value in values], 1000.0, 0.0)

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        self._check()
        self.written += [entry.value for entry in entries]
        self.engine.add_revocations(entries, kept, 0.0)

    def read_revocations(self, mark: int, limit: int) -> News:
        assert self.open.wait(LONG)
        self._check()
        self.reads += 1
        return self.engine.read_revocations(mark, limit, 0.0)

    def _check(self) -> None:
        if self.failing:
            self.failing -= 1
            raise BrokerUnavailable("away")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(revocations, "_INTERVAL", 0.02)
    return Registry()


def rig_with(make_rig: MakeRig, registry: Registry, **options: Any) -> Rig:
    rig = make_rig(**options)
    broker: Any = rig.broker
    broker.add_revocations, broker.read_revocations = registry.add_revocations, registry.read_revocations
    return rig


def watch_of(rig: Rig) -> RevocationWatch:
    assert rig.worker.pipeline is not None
    assert rig.worker.pipeline.revocations is not None
    return rig.worker.pipeline.revocations


def test_it_is_read_before_the_first_message_is_taken(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        registry.add(*map(str, range(12_000)), "gone")  # more than one page
        registry.add("7", header="customer")
        registry.open.clear()
        rig.broker.put(task_id="gone")
        rig.broker.put(task_id="stamped", stamped_headers=["customer"], stamps={"customer": "7"})
        rig.broker.put(task_id="kept")
        serving = asyncio.create_task(rig.worker.serve(rig.stop))
        await rig.until(lambda: rig.worker.pipeline and rig.worker.pipeline.session.first_contact.is_set())
        assert not rig.broker.held
        registry.open.set()
        await rig.settled("gone", "stamped", "kept")
        assert [request.id for request in rig.executor.taken] == ["kept"]
        assert (rig.store.state("gone"), rig.store.state("stamped")) == ("REVOKED", "REVOKED")
        rig.stop.set()
        assert await serving == 0

    asyncio.run(story(rig_with(make_rig, registry)))


def test_a_registry_that_is_away_stops_nobody(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        registry.failing = 5
        registry.add("gone")
        async with rig.running():
            rig.broker.put(task_id="first")
            await rig.settled("first")
            await rig.until(lambda: "gone" in rig.worker.pipeline.admission.revoked)  # type: ignore[union-attr]
            rig.broker.put(task_id="gone")
            await rig.settled("gone")
        assert [request.id for request in rig.executor.taken] == ["first"]

    asyncio.run(story(rig_with(make_rig, registry)))


def test_nobody_waits_long_for_one_that_hangs(
    make_rig: MakeRig, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "_PATIENCE", 0.05)

    async def story(rig: Rig) -> None:
        registry.open.clear()
        async with rig.running():
            rig.broker.put(task_id="first")
            await rig.settled("first")
            registry.add("gone")
            registry.open.set()
            await rig.until(lambda: "gone" in rig.worker.pipeline.admission.revoked)  # type: ignore[union-attr]

    asyncio.run(story(rig_with(make_rig, registry)))


def test_news_reach_what_waits_and_what_runs(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for name in ("runs", "ended"):
                rig.broker.put("app.slow", name)
            await rig.started("runs", "ended")
            rig.broker.put("app.slow", "waits")
            await rig.until(lambda: rig.claims.waiting_count == 1)
            registry.add("waits", "runs")
            registry.add("ended", signal="SIGTERM")
            await rig.settled("waits")
            await rig.until(lambda: ("ended", "hard") in rig.executor.cancelled)
            assert ("runs", "hard") not in rig.executor.cancelled
            rig.executor.finish("runs")
            rig.executor.finish("ended")
            await rig.settled("runs", "ended")
        assert rig.store.state("waits") == "REVOKED"
        assert (rig.store.state("runs"), rig.code) == ("SUCCESS", 0)

    asyncio.run(story(rig_with(make_rig, registry, ahead=0)))


def test_it_is_read_again_after_the_broker_was_away(
    make_rig: MakeRig, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "_INTERVAL", 60.0)

    async def story(rig: Rig) -> None:
        async with rig.running():
            session = rig.worker.pipeline.session  # type: ignore[union-attr]
            before = session.epoch
            registry.add("gone")
            rig.broker.fail("receive", OperationalError("cut"))
            await rig.until(lambda: session.epoch > before)
            rig.broker.put(task_id="gone")
            await rig.settled("gone")
        assert not rig.executor.taken

    asyncio.run(story(rig_with(make_rig, registry)))


def test_what_is_recorded_is_written_in_the_end(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            registry.failing = 3
            watch_of(rig).record([Revocation("a"), Revocation("b")])
            watch_of(rig).record([Revocation("a")], 5000.0)
            await rig.until(lambda: registry.written)
            registry.failing = 10_000
            watch_of(rig).record([Revocation("last")])
            await rig.until(lambda: registry.failing < 9_990)
            registry.failing = 0
        assert registry.written == ["a", "b", "last"]

    asyncio.run(story(rig_with(make_rig, registry)))


def test_without_a_registry_nobody_asks(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            assert (pipeline.revocations, pipeline.session.before_work) == (None, None)

    asyncio.run(story(make_rig()))


def test_a_pardon_is_obeyed_and_outlives_what_others_remember(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        registry.add("a", "b")
        registry.add("7", header="customer")
        async with rig.running():
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            revoked, cancelling = pipeline.admission.revoked, pipeline.cancelling
            assert ("a" in revoked, "b" in revoked, list(revoked.stamps)) == (True, True, ["customer"])
            registry.add("a", signal=PARDON)
            registry.add("7", header="customer", signal=PARDON)
            await rig.until(lambda: "a" not in revoked and not revoked.stamps)
            assert "b" in revoked
            # what a neighbour, or a file, still knows does not bring it back
            assert cancelling.remember(["a", "c"]) == ["c"]
            watch_of(rig).record([Revocation("a"), Revocation("d")], remembered=True)
            await rig.until(lambda: "d" in registry.written)
            assert "a" not in registry.written
            rig.broker.put(task_id="a")
            await rig.settled("a")
            # who revokes it anew means it
            watch_of(rig).record([Revocation("a")])
            await rig.until(lambda: "a" in registry.written)
            found = {one.entry for one in registry.read_revocations(0, 100).standing}
            assert Revocation("a") in found
            assert Revocation("a", "", PARDON) not in found
        assert [request.id for request in rig.executor.taken] == ["a"]

    asyncio.run(story(rig_with(make_rig, registry)))


def test_an_order_that_is_not_written_yet_is_later_than_the_registry(make_rig: MakeRig, registry: Registry) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            registry.failing = 1_000_000
            registry.add("a", signal=PARDON)
            registry.add("b")
            pipeline.admission.revoked.add(["a"])
            watch_of(rig).record([Revocation("a")])
            watch_of(rig).record([Revocation("b", "", PARDON)])
            registry.failing = 0
            await rig.until(lambda: {"a", "b"} <= set(registry.written))
            assert ("a" in pipeline.admission.revoked, "b" in pipeline.admission.revoked) == (True, False)

    asyncio.run(story(rig_with(make_rig, registry)))
