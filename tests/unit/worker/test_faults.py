"""What the worker does when the broker, the store or the network let it down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from celeriac import telemetry
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import (
    BackendStoreError,
    BrokerFull,
    BrokerUnavailable,
    ImproperlyConfigured,
    OperationalError,
    ResultTooLarge,
    Unroutable,
)  # fmt: skip
from celeriac.executors.base import Request, WantsRetry
from celeriac.rules import claim as claim_states
from celeriac.transports.base import Envelope, Outgoing, Route
from celeriac.worker.claims import Claim, Claims
from celeriac.worker.leases import Leases
from celeriac.worker.supervisor import ServiceGaveUp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.unit.worker.conftest import Rig

    MakeRig = Callable[..., Rig]


@pytest.fixture
def events() -> Iterator[list[telemetry.Event]]:
    seen: list[telemetry.Event] = []
    end = telemetry.subscribe(
        (telemetry.SettleDelayed, telemetry.BrokerLost, telemetry.BrokerBack, telemetry.LeaseWasLost), seen.append
    )
    yield seen
    end()


@pytest.mark.parametrize(("commits", "call"), [(False, "write"), (False, "settle"), (True, "commit")])
def test_an_outcome_that_cannot_be_written_stays_until_it_can(
    make_rig: MakeRig, events: list[telemetry.Event], commits: bool, call: str
) -> None:
    async def story(rig: Rig) -> None:
        source = rig.store if call == "write" else rig.broker
        source.fail(call, BackendStoreError("away") if call == "write" else BrokerFull("full"), 2)
        async with rig.running():
            for number in range(5):
                rig.broker.put(task_id=f"t{number}")
            await rig.settled(*(f"t{number}" for number in range(5)))
        assert rig.code == 0
        assert len(rig.executor.taken) == 5, "nothing ran twice"
        assert sum(isinstance(event, telemetry.SettleDelayed) for event in events) == 2

    asyncio.run(story(make_rig(commits=commits)))


def test_nothing_is_acknowledged_before_its_result_and_follow_ups_are_safe(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        from tests.unit.worker.conftest import success

        sent = Outgoing(Envelope(b"[]", {"id": "next"}, {}), Route("", "celery"))
        rig.executor.script["app.add"] = lambda request: success(request, [sent])
        rig.broker.fail("publish", BrokerUnavailable("away"), 2)
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: rig.store.state("t1") == "SUCCESS")
            assert not rig.broker.verdicts("t1")
            await rig.settled("t1")
        assert rig.store.writes == 1, "the stored part is not written again"
        assert rig.broker.published == [sent]

    asyncio.run(story(make_rig()))


def test_a_retry_that_cannot_be_routed_keeps_the_message(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        sent = Outgoing(Envelope(b"[]", {"id": "t1"}, {}), Route("", "nowhere"))
        rig.executor.script["app.strict"] = lambda r: WantsRetry(r.id, None, [sent], 0.1, "why", "in 5s")
        rig.broker.fail("publish", Unroutable("no queue 'nowhere'"), 2)
        async with rig.running():
            rig.broker.put("app.strict", "t1")
            rig.broker.put("app.add", "t2")
            await rig.settled("t1", "t2")
        assert rig.broker.verdicts("t2") == ["ack"]
        assert rig.broker.log[0][:2] == ("dead", "t1") or rig.broker.log[1][:2] == ("dead", "t1")
        assert any("nowhere" in reason for _, _, reason in rig.broker.log)

    asyncio.run(story(make_rig()))


def test_a_result_that_is_too_large_fails_its_task_alone(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        write = rig.store.write

        def refuse(records: Any) -> None:
            if any(record.task_id == "big" and record.status == "SUCCESS" for record in records):
                raise ResultTooLarge("20 MiB, the limit is 16")
            write(records)

        rig.store.write = refuse  # type: ignore[method-assign]
        async with rig.running():
            for task_id in ("a", "big", "b"):
                rig.broker.put(task_id=task_id)
            await rig.settled("a", "big", "b")
        assert [rig.store.state(task_id) for task_id in ("a", "big", "b")] == ["SUCCESS", "FAILURE", "SUCCESS"]
        assert isinstance(rig.store.result("big"), ResultTooLarge)
        assert {verdict for verdict, _, _ in rig.broker.log} == {"ack"}

    asyncio.run(story(make_rig()))


def test_a_broken_consumer_is_built_anew(make_rig: MakeRig, events: list[telemetry.Event]) -> None:
    async def story(rig: Rig) -> None:
        rig.broker.fail("declare", BrokerUnavailable("connection refused"), 3)
        async with rig.running():
            rig.broker.put(task_id="before")
            await rig.settled("before")
            rig.broker.fail("receive", OperationalError("connection reset"))
            rig.broker.arrived.set()
            await rig.until(lambda: rig.broker.consumers == 2)
            rig.broker.put(task_id="after")
            await rig.settled("after")
        assert rig.code == 0
        assert sum(isinstance(event, telemetry.BrokerLost) for event in events) == 4
        assert sum(isinstance(event, telemetry.BrokerBack) for event in events) == 2

    asyncio.run(story(make_rig()))


def test_what_does_not_run_goes_back_with_a_broken_consumer_and_what_runs_is_adopted(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(4):
                rig.broker.put("app.slow", f"t{number}")
            await rig.until(lambda: len(rig.broker.held) == 4)
            await rig.started("t0", "t1")
            # the connection breaks; the broker gives out everything anew, t0 and t1 among it
            rig.broker.fail("renew", OperationalError("connection reset"))
            await rig.until(lambda: rig.broker.consumers == 2 and len(rig.broker.held) == 4)
            assert len(rig.executor.taken) == 2
            for number in range(4):
                await rig.started(f"t{number}")
                rig.executor.finish(f"t{number}")
            await rig.settled("t0", "t1", "t2", "t3")
        assert len(rig.executor.taken) == 4, "each ran once"
        assert sorted(rig.broker.log) == [("ack", f"t{number}", "") for number in range(4)]
        assert rig.claims.duplicates == 2

    asyncio.run(story(make_rig(lease=0.06, slots=2, ahead=0, prefetch_multiplier=2, look_ahead=0)))


def test_a_settlement_that_keeps_failing_builds_the_consumer_anew(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.broker.fail("settle", OperationalError("channel closed"), 3)
        async with rig.running():
            rig.broker.put()
            await rig.settled("t1")
        assert rig.broker.consumers == 2
        assert len(rig.executor.taken) == 1
        assert rig.broker.log == [("ack", "t1", "")]

    asyncio.run(story(make_rig()))


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_held_is_renewed(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(6):
                rig.broker.put("app.slow", f"t{number}")
            await rig.until(lambda: 6 in rig.broker.renewals)
            rig.executor.kill_now.set()

    asyncio.run(story(make_rig(lease=0.03, slots=2, ahead=0, prefetch_multiplier=3, look_ahead=0)))


def test_a_lost_lease_drops_what_waits_and_leaves_what_runs(make_rig: MakeRig, events: list[telemetry.Event]) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(3):
                rig.broker.put("app.slow", f"t{number}")
            await rig.started("t0")
            await rig.until(lambda: len(rig.broker.held) == 3)
            rig.broker.take_away("t0")
            rig.broker.take_away("t1")
            await rig.until(lambda: len(events) == 2)
            rig.executor.finish("t0")
            await rig.started("t2")
            rig.executor.finish("t2")
            await rig.settled("t2")
            await rig.until(lambda: not rig.claims.held)
        assert [request.id for request in rig.executor.taken] == ["t0", "t2"]
        assert rig.store.state("t0") == "SUCCESS", "what ran to its end is recorded all the same"
        assert rig.broker.log == [("ack", "t2", "")]

    asyncio.run(story(make_rig(lease=0.03, slots=1, ahead=0, prefetch_multiplier=3, look_ahead=0)))


def test_a_message_that_comes_back_after_its_task_ended_here_is_not_run_again(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "t1")
            await rig.started("t1")
            stolen = rig.broker.take_away("t1")
            rig.executor.finish("t1")
            await rig.until(lambda: rig.claims.duplicates == 1)
            stolen.redelivered = True
            rig.broker.put_message(stolen)
            await rig.settled("t1")
            # a new message with the same id is another matter
            rig.broker.put("app.slow", "t1")
            await rig.started("t1")
            rig.executor.finish("t1")
            await rig.until(lambda: len(rig.broker.log) == 2)
        assert len(rig.executor.taken) == 2

    asyncio.run(story(make_rig()))


def test_a_second_message_with_the_id_of_a_running_task_waits_for_it(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "t1")
            await rig.started("t1")
            rig.broker.put("app.slow", "t1")
            rig.broker.put("app.slow", "t2")
            await rig.started("t2")
            assert len(rig.executor.taken) == 2
            rig.executor.finish("t1")
            await rig.until(lambda: len(rig.executor.taken) == 3)
            rig.executor.finish("t1")
            rig.executor.finish("t2")
            await rig.until(lambda: len(rig.broker.log) == 3)

    asyncio.run(story(make_rig()))


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_configuration_error_ends_the_worker_with_its_text(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.broker.fail("declare", ImproperlyConfigured("queue 'celery' exists with other arguments"))
        with pytest.raises(ImproperlyConfigured, match="other arguments"):
            await rig.worker.serve(rig.stop)

    asyncio.run(story(make_rig()))


def test_a_service_that_keeps_failing_ends_the_worker(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.broker.fail("receive", ZeroDivisionError("a bug in a driver"), 5)
        with pytest.raises(ServiceGaveUp, match="'intake' failed 5 times"):
            async with asyncio.timeout(60):
                await rig.worker.serve(rig.stop)

    asyncio.run(story(make_rig()))


def test_a_service_that_fails_once_goes_on(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.broker.fail("receive", ZeroDivisionError("a bug in a driver"))
        async with rig.running():
            rig.broker.put()
            await rig.settled("t1")
        assert rig.code == 0

    asyncio.run(story(make_rig()))


def test_silence_with_messages_waiting_rebuilds_the_consumer(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            take = rig.broker.take
            rig.broker.take = lambda limit, consumer: take(limit, consumer) if consumer > 1 else []  # type: ignore[method-assign]
            rig.broker.put()
            await rig.settled("t1")
        assert rig.broker.consumers == 2

    asyncio.run(story(make_rig(delays=False, silence=0.2)))


@pytest.mark.parametrize("state", [claim_states.FINISHED, claim_states.SETTLED])
def test_what_is_settled_while_it_is_renewed_is_not_lost(state: int, events: list[telemetry.Event]) -> None:
    claims = Claims()
    request = Request("t1", "app.add", b"", "celery", "", "celery", False, 1, None, None)
    claim = Claim("t1", request, 7, Route("", "celery"), None)
    claims.held["t1"] = claim
    claims.add_ready([claim])

    class Session:
        """The broker has settled it before it is asked to renew it."""

        epoch = 1

        async def consumer(self) -> Session:
            return self

        async def renew(self, receipts: Sequence[int]) -> Sequence[int]:
            claim_states.advance(claim, claim_states.RUNNING)
            claim_states.advance(claim, claim_states.FINISHED)
            if state == claim_states.SETTLED:
                claims.finish_settled([claim])
            return receipts

    leases = Leases(cast("Any", Session()), claims, 30.0, SYSTEM_CLOCK)
    asyncio.run(leases.renew())
    assert leases.lost == 0
    assert claim.receipt == 7
    assert not events
