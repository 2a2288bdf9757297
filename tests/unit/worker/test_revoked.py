"""What is revoked is remembered, for a while and bounded; what waits here is dropped at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from celeriac.clock import LamportClock
from celeriac.executors.base import Lost
from celeriac.rules.acking import AckPolicy, Fate, after_loss
from celeriac.rules.admission import is_stamped
from celeriac.testing.conformance.clock import SteppedClock
from celeriac.transports.base import Delivery
from celeriac.wire.envelope import Route
from celeriac.wire.kombu_json import encode_envelope
from celeriac.wire.limits import DEFAULT_LIMITS
from celeriac.wire.sealed import Heads, read_sealed
from celeriac.wire.task_message import TaskCall, encode_task
from celeriac.worker.revoked import Revoked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.worker.conftest import Rig

    MakeRig = Callable[..., Rig]


def test_ids_are_forgotten_after_their_time() -> None:
    clock = SteppedClock()
    revoked = Revoked(clock, kept=100.0)
    assert not revoked
    revoked.add(["a", "b"])
    clock.advance(60)
    revoked.add(["b", "c"])
    assert list(revoked) == ["a", "b", "c"]
    clock.advance(50)
    assert ("a" in revoked, "b" in revoked) == (False, True)
    assert list(revoked) == ["b", "c"]
    revoked.add(["d"])
    assert len(revoked) == 3


def test_they_are_bounded() -> None:
    revoked = Revoked(SteppedClock(), most=3)
    revoked.add(map(str, range(10)))
    assert list(revoked) == ["7", "8", "9"]
    for number in range(200):
        revoked.add_stamps(f"h{number}", ["v"])
    assert len(revoked.stamps) == 100
    revoked.add_stamps("h", map(str, range(20_000)))
    assert len(revoked.stamps["h"]) == 10_000


def test_stamps() -> None:
    stamps = {"customer": {"7": None}}
    assert is_stamped({"stamps": {"customer": ["7"]}}, stamps)
    assert is_stamped({"stamps": {"customer": 7}}, stamps)
    for headers in ({}, {"stamps": None}, {"stamps": "7"}, {"stamps": {"customer": ["8"]}}, {"stamps": {"other": "7"}}):
        assert not is_stamped(headers, stamps)


def test_what_was_revoked_before_it_started_is_not_run_again() -> None:
    assert after_loss(AckPolicy(), "revoked", False, 1, 0).fate is Fate.ACK
    assert after_loss(AckPolicy(late=False), "revoked", False, 1, 0).fate is Fate.NOTHING
    assert after_loss(AckPolicy(), "revoked", False, 1, 0).state == "REVOKED"


def test_what_waits_here_is_dropped_at_once(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "runs")
            rig.broker.put("app.slow", "runs2")
            await rig.started("runs", "runs2")
            for number in range(4):
                rig.broker.put("app.slow", f"w{number}")
            rig.broker.put("app.slow", "w1")  # behind the first of that name
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            await rig.until(lambda: rig.claims.waiting_count == 5)
            dropped = pipeline.admission.revoke(lambda claim: claim.id in ("w1", "w3", "runs"))
            assert sorted(dropped) == ["w1", "w1", "w3"]
            await rig.until(lambda: len(rig.broker.verdicts("w1")) == 2 and rig.broker.verdicts("w3"))
            assert [claim.id for claim in rig.claims.waiting()] == ["w0", "w2"]
            for task_id in ("runs", "runs2"):
                rig.executor.finish(task_id)
            await rig.started("w0", "w2")
            for task_id in ("w0", "w2"):
                rig.executor.finish(task_id)
            await rig.settled("w0", "w2")
            assert rig.claims.totals.total() == 6
        assert rig.broker.verdicts("w1") == ["ack", "ack"]
        assert (rig.store.state("w1"), rig.store.state("w3")) == ("REVOKED", "REVOKED")
        assert str(rig.store.result("w3")) == "revoked"

    asyncio.run(story(make_rig(slots=2, ahead=0)))


def test_what_the_executor_had_and_did_not_start(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.script["app.add"] = lambda request: Lost(
            request.id, False, "revoked", "cancelled before it started"
        )
        async with rig.running():
            rig.broker.put()
            await rig.settled("t1")
        assert rig.broker.verdicts("t1") == ["ack"]
        assert (rig.store.state("t1"), str(rig.store.result("t1"))) == ("REVOKED", "revoked")

    asyncio.run(story(make_rig()))


def test_the_logical_clock_is_ahead_of_whatever_it_heard() -> None:
    clock = LamportClock()
    assert (clock.forward(), clock.adjust(10), clock.adjust(3), clock.forward()) == (1, 11, 12, 13)


def sealed(task_id: str, **options: Any) -> Heads:
    """A message as the Redis driver hands it over: its headers unread."""
    envelope = encode_task(TaskCall(task="app.slow", id=task_id, **options), 0.0)
    found = read_sealed(encode_envelope(envelope, Route("", "celery")), DEFAULT_LIMITS)
    assert found is not None
    return found.headers


def test_sealed_messages_are_opened_only_where_they_may_be_meant(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            assert rig.worker.pipeline is not None
            admission = rig.worker.pipeline.admission

            def admit(*messages: Heads) -> list[str]:
                """The ids of those that were taken up without being opened."""
                deliveries = [Delivery(one, "celery", None, Route("", "celery")) for one in messages]
                before = set(rig.claims.held)
                admission.admit(deliveries)
                return [
                    claim.id for claim in rig.claims.held.values()
                    if claim.id not in before and type(claim.request.message) is bytes
                ]  # fmt: skip

            assert admit(sealed("a"), sealed("b")) == ["a", "b"]
            admission.revoked.add(["c"])
            assert admit(sealed("c"), sealed("d")) == ["d"]
            assert "c" not in rig.claims.held
            admission.revoked.add_stamps("customer", ["7"])
            stamps = {"stamped_headers": ["customer"], "stamps": {"customer": ["7"]}}
            assert admit(sealed("e", **stamps), sealed("f")) == []
            assert "e" not in rig.claims.held
            assert "f" in rig.claims.held
            rig.executor.kill_now.set()

    asyncio.run(story(make_rig(slots=1, ahead=0)))
