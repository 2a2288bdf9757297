"""Limits over all workers in the engine: who may not start takes no slot, no prefetch, and nobody else's time."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from celeriac import Limit, telemetry
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import OperationalError
from celeriac.executors.base import Lost
from celeriac.limiters.memory import MemoryLimiter
from celeriac.rules.counting import GRANTED, Demand, Need

if TYPE_CHECKING:
    from collections.abc import Callable

    Rig = Any
    MakeRig = Callable[..., Any]

_numbers = count(1)
ONE = {"app.one": [Limit(concurrency=1)]}
BY_TENANT = {"app.tenant": [Limit(concurrency=1, key="args.tenant")]}


def body(*args: Any, **kwargs: Any) -> bytes:
    return json.dumps([args, kwargs, {}]).encode()


class Watched(MemoryLimiter):
    """Counts calls, and does not answer when told so."""

    def __init__(self) -> None:
        super().__init__(f"memory://watched-{next(_numbers)}", None, SYSTEM_CLOCK)
        self.calls: list[str] = []
        self.asked: list[int] = []
        self.is_away = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.is_away:
            raise OperationalError("the store is away")

    def take(self, demands: Any, quota: int, lease: float) -> Any:
        self._call("take")
        self.asked.append(len(demands))
        return super().take(demands, quota, lease)

    def renew(self, permits: Any, lease: float) -> Any:
        self._call("renew")
        return super().renew(permits, lease)

    def release(self, permits: Any) -> None:
        self._call("release")
        super().release(permits)

    def free(self, key: str, most: int) -> int:
        """How many of ``most`` permits nobody has; leaves them so."""
        free = 0
        while (
            free <= most
            and MemoryLimiter.take(self, [Demand(f"probe{free}", (Need(key, most=most),))], 1, 60.0)[0] == GRANTED
        ):
            free += 1
        for number in range(free):
            self._counters.tables.permits[key].pop(f"probe{number}")
        return free


def test_no_more_run_than_the_limit_allows_and_the_next_follows_at_once(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(4):
                rig.broker.put("app.one", task_id=f"o{number}")
            for number in range(4):
                await rig.started(f"o{number}")
                assert list(rig.executor.running) == [f"o{number}"]
                rig.executor.finish(f"o{number}")
            await rig.settled("o0", "o1", "o2", "o3")
        assert [request.id for request in rig.executor.taken] == ["o0", "o1", "o2", "o3"]

    asyncio.run(story(make_rig(limits=ONE, slots=4)))


def test_who_waits_is_not_in_the_way_of_others(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            # more than the worker would fetch ahead
            for number in range(60):
                rig.broker.put("app.one", task_id=f"o{number}")
            rig.broker.put(task_id="free")
            await rig.settled("free")
            assert len(rig.executor.taken) == 2
            assert rig.claims.ready_count == 0
            assert rig.claims.later_count == 59

    asyncio.run(story(make_rig(limits=ONE, prefetch_multiplier=1, look_ahead=0, shutdown_grace=0.1)))


def test_keys_are_counted_apart_however_the_argument_is_given(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.tenant", task_id="a0", body=body("acme", 1))
            rig.broker.put("app.tenant", task_id="a1", body=body(tenant="acme", number=2))
            rig.broker.put("app.tenant", task_id="b0", body=body("bolt", 3))
            await rig.started("a0", "b0")
            await rig.until(lambda: "a1" in rig.claims.lined)
            rig.executor.finish("b0")
            await rig.settled("b0")
            assert "a1" not in rig.executor.running
            rig.executor.finish("a0")
            await rig.started("a1")
            rig.executor.finish("a1")

    asyncio.run(story(make_rig(limits=BY_TENANT, slots=4)))


def test_turns_are_kept_and_used(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        starts: list[float] = []
        async with rig.running():
            rig.executor.script["app.paced"] = lambda request: starts.append(time.monotonic())
            for number in range(6):
                rig.broker.put("app.paced", task_id=f"p{number}")
            await rig.started(*(f"p{number}" for number in range(6)))
            for number in range(6):
                rig.executor.finish(f"p{number}")
        assert starts[-1] - starts[0] >= 5 * 0.05 - 0.01

    asyncio.run(story(make_rig(limits={"app.paced": [Limit(rate="20/s", burst=1)]}, slots=8)))


def test_what_may_start_much_later_goes_back_to_the_broker(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(3):
                rig.broker.put("app.hourly", task_id=f"h{number}")
            await rig.started("h0")
            await rig.settled("h1", "h2")
            rig.executor.finish("h0")
            await rig.settled("h0")
        assert [request.id for request in rig.executor.taken] == ["h0"]
        assert rig.broker.verdicts("h1") == rig.broker.verdicts("h2") == ["park"]
        until = [float(detail) - time.time() for verdict, _, detail in rig.broker.log if verdict == "park"]
        assert all(200 < left <= 600 for left in until), until

    asyncio.run(story(make_rig(limits={"app.hourly": [Limit(rate="1/h")]})))


def test_a_broker_without_delays_keeps_nothing_so_the_worker_does(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(3):
                rig.broker.put("app.hourly", task_id=f"h{number}")
            rig.broker.put(task_id="free")
            await rig.settled("free")
            await rig.started("h0")
            await rig.until(lambda: len(rig.claims.lined) == 2)
            assert rig.broker.verdicts("h1") == []
            rig.executor.finish("h0")
        # a warm stop hands them back
        assert rig.broker.verdicts("h1") == rig.broker.verdicts("h2") == ["release"]

    asyncio.run(story(make_rig(limits={"app.hourly": [Limit(rate="1/h")]}, delays=False)))


def test_queues_have_limits_too(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", task_id="s0")
            rig.broker.put("app.early", task_id="e0")
            await rig.until(lambda: len(rig.claims.lined) == 1)
            (first,) = rig.executor.running
            rig.executor.finish(first)
            await rig.until(lambda: set(rig.executor.running) == {"s0", "e0"} - {first})
            rig.executor.finish("e0" if first == "s0" else "s0")

    asyncio.run(story(make_rig(queue_limits={"celery": [{"concurrency": 1}]})))


def test_several_limits_hold_together(make_rig: MakeRig) -> None:
    limits = {"app.both": [Limit(concurrency=2), Limit(concurrency=1, key="headers.tenant")]}

    async def story(rig: Rig) -> None:
        async with rig.running():
            for number, tenant in enumerate("aabc"):
                rig.broker.put("app.both", task_id=f"{tenant}{number}", tenant=tenant)
            await rig.started("a0", "b2")
            await rig.until(lambda: len(rig.claims.lined) == 2)
            rig.executor.finish("b2")
            await rig.started("c3")
            rig.executor.finish("a0")
            await rig.started("a1")
            for task_id in ("a1", "c3"):
                rig.executor.finish(task_id)

    asyncio.run(story(make_rig(limits=limits, slots=6)))


def test_revoked_and_expired_ones_end_while_they_wait(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
            rig.broker.put("app.one", task_id="first")
            await rig.started("first")
            rig.broker.put("app.one", task_id="revoked")
            rig.broker.put("app.one", task_id="late", expires=soon)
            rig.broker.put("app.one", task_id="last")
            await rig.until(lambda: len(rig.claims.lined) == 3)
            revoked = rig.worker.pipeline.admission.revoke(lambda claim: claim.id == "revoked")
            assert revoked == ["revoked"]
            await rig.settled("revoked", "late")
            await rig.until(lambda: rig.store.state("late"))
            rig.executor.finish("first")
            await rig.started("last")
            rig.executor.finish("last")
        assert rig.store.state("revoked") == rig.store.state("late") == "REVOKED"
        assert [request.id for request in rig.executor.taken] == ["first", "last"]

    asyncio.run(story(make_rig(limits=ONE)))


def test_a_message_does_not_wait_at_the_broker_beyond_its_expiry(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            expires = datetime.now(UTC) + timedelta(seconds=60)
            rig.broker.put("app.hourly", task_id="h0")
            rig.broker.put("app.hourly", task_id="h1", expires=expires.isoformat())
            await rig.settled("h1")
            await rig.started("h0")
            rig.executor.finish("h0")
        (until,) = [float(detail) for verdict, task_id, detail in rig.broker.log if task_id == "h1"]
        assert until <= expires.timestamp() + 0.001

    asyncio.run(story(make_rig(limits={"app.hourly": [Limit(rate="1/h")]})))


def test_a_warm_stop_hands_back_what_waits_and_every_permit(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(4):
                rig.broker.put("app.one", task_id=f"o{number}")
            await rig.started("o0")
            await rig.until(lambda: len(rig.claims.lined) == 3)
            asyncio.get_running_loop().call_later(0.05, rig.executor.finish, "o0")
        assert rig.code == 0
        for number in (1, 2, 3):
            assert rig.broker.verdicts(f"o{number}") == ["release"]
        assert limiter.free("task/app.one|0|c", 1) == 1

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter)))


def test_permits_come_back_however_a_task_ends(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.one", task_id="dies")
            await rig.started("dies")
            rig.executor.finish("dies", Lost("dies", True, "hard_limit", "signal 9 (SIGKILL)"))
            rig.broker.put("app.one", task_id="next")
            await rig.started("next")
            rig.executor.finish("next")
            await rig.settled("next")
            await rig.until(lambda: limiter.free("task/app.one|0|c", 1) == 1)

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter)))


def test_permits_are_renewed_while_their_tasks_run(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.one", task_id="long")
            await rig.started("long")
            before = limiter.calls.count("renew")
            await rig.until(lambda: limiter.calls.count("renew") >= before + 3)
            assert limiter.free("task/app.one|0|c", 1) == 0
            rig.executor.finish("long")

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter, lease=1.0)))


def test_a_permit_of_a_message_that_went_away_unstarted_is_given_back(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.one", task_id="o0")
            await rig.started("o0")
            # as when the consumer is lost: nobody says so to the gate
            claim = rig.claims.held.pop("o0")
            rig.executor.running.pop("o0")
            claim.state = 6
            await rig.until(lambda: limiter.free("task/app.one|0|c", 1) == 1)

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter)))


def test_nothing_limited_starts_without_the_store_and_nothing_else_waits(make_rig: MakeRig) -> None:
    limiter = Watched()
    told: list[Any] = []

    async def story(rig: Rig) -> None:
        async with rig.running():
            limiter.is_away = True
            for number in range(30):
                rig.broker.put("app.one", task_id=f"o{number}")
            for number in range(30):
                rig.broker.put(task_id=f"free{number}")
            await rig.settled(*(f"free{number}" for number in range(30)))
            assert not any(request.task == "app.one" for request in rig.executor.taken)
            limiter.is_away = False
            gate = rig.worker.pipeline.gate
            gate._lines.closed.next_at = gate._lines.due_at = 0.0  # the next try is now
            gate.wake()
            await rig.until(lambda: rig.executor.running)
            rig.executor.finish(next(iter(rig.executor.running)))

    end = telemetry.subscribe(telemetry.LimitsUnavailable, told.append)
    try:
        asyncio.run(
            story(make_rig(limits=ONE, limiter=limiter, prefetch_multiplier=1, look_ahead=0, shutdown_grace=0.1))
        )
    finally:
        end()
    assert len(told) == 1
    assert "away" in told[0].error


def test_a_full_key_is_told_once(make_rig: MakeRig) -> None:
    told: list[Any] = []

    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(20):
                rig.broker.put("app.tenant", task_id=f"a{number}", body=body("acme", number))
            await rig.started("a0")
            await rig.until(lambda: len(rig.claims.lined) == 19)
            rig.executor.finish("a0")
            await rig.started("a1")
            rig.executor.finish("a1")

    end = telemetry.subscribe(telemetry.TasksLimited, told.append)
    try:
        asyncio.run(story(make_rig(limits=BY_TENANT, shutdown_grace=0.1)))
    finally:
        end()
    assert [(event.key, event.name) for event in told] == [("task/app.tenant|0|acme|c", "app.tenant")]


def test_a_body_that_cannot_be_read_here_counts_with_its_like(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.tenant", task_id="x0", body=b"[not json")
            rig.broker.put("app.tenant", task_id="x1", body=b"[1, 2, 3")
            await rig.until(lambda: len(rig.claims.lined) == 1)
            (first,) = rig.executor.running  # a child says what is wrong with it
            rig.executor.finish(first)
            await rig.settled(first)
            await rig.until(lambda: rig.executor.running)
            rig.executor.finish(next(iter(rig.executor.running)))

    asyncio.run(story(make_rig(limits=BY_TENANT)))


def test_a_suspect_needs_a_permit_as_well(make_rig: MakeRig, message: Any) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.one", task_id="first")
            await rig.started("first")
            rig.broker.put("app.one", task_id="suspect", attempt=3)
            await rig.until(lambda: "suspect" in rig.claims.lined)
            rig.executor.finish("first")
            await rig.started("suspect")
            rig.executor.finish("suspect")
            await rig.settled("suspect")

    asyncio.run(story(make_rig(limits=ONE)))


def test_one_question_for_many_and_none_for_those_behind(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(100):
                rig.broker.put("app.one", task_id=f"o{number}")
            await rig.started("o0")
            await rig.until(lambda: len(rig.claims.lined) == 99)
            assert sum(limiter.asked) <= 100 + 20  # some ask again meanwhile
            asked = len(limiter.asked)
            assert asked <= 60
            rig.executor.finish("o0")
            await rig.started("o1")
            rig.executor.finish("o1")

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter, shutdown_grace=0.1)))


def test_without_limits_there_is_no_gate(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(task_id="free")
            await rig.settled("free")
            assert rig.worker.pipeline.gate is None
            assert rig.claims.is_limited is None

    asyncio.run(story(make_rig()))


def test_limited_and_unlimited_share_a_busy_worker(make_rig: MakeRig) -> None:
    """More of each than there is room for, all the time: neither starves."""

    async def story(rig: Rig) -> None:
        done: list[str] = []
        rig.executor.script["app.slow"] = rig.executor.script["app.many"] = lambda request: None
        async with rig.running():
            for number in range(40):
                rig.broker.put("app.slow", task_id=f"s{number}")
                rig.broker.put("app.many", task_id=f"m{number}")
            while len(done) < 60:
                await rig.until(lambda: rig.executor.running)
                for task_id in list(rig.executor.running):
                    done.append(task_id)
                    rig.executor.finish(task_id)
                await asyncio.sleep(0.002)
            limited = sum(task_id.startswith("m") for task_id in done)
            assert 15 <= limited <= 45, limited
            await rig.until(lambda: (not rig.broker.waiting and not rig.claims.held) or _finish(rig))

    def _finish(rig: Rig) -> bool:
        for task_id in list(rig.executor.running):
            rig.executor.finish(task_id)
        return False

    asyncio.run(story(make_rig(limits={"app.many": [Limit(concurrency=50)]}, slots=2, ahead=0)))


def test_a_store_that_is_away_is_not_besieged(make_rig: MakeRig) -> None:
    limiter = Watched()

    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.one", task_id="o0")
            await rig.started("o0")
            limiter.is_away = True
            before = len(limiter.calls)
            rig.executor.finish("o0")  # its permit is to be given back
            await rig.settled("o0")
            await asyncio.sleep(0.5)
            assert len(limiter.calls) - before < 20
            limiter.is_away = False
            gate = rig.worker.pipeline.gate
            gate._lines.closed.next_at = 0.0
            gate.wake()
            await rig.until(lambda: limiter.free("task/app.one|0|c", 1) == 1)

    asyncio.run(story(make_rig(limits=ONE, limiter=limiter)))


def test_one_slot_is_shared_as_well(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        done: list[str] = []
        rig.executor.script["app.many"] = lambda request: None
        async with rig.running():
            for number in range(20):
                rig.broker.put("app.slow", task_id=f"s{number}")
                rig.broker.put("app.many", task_id=f"m{number}")
            while len(done) < 20:
                await rig.until(lambda: rig.executor.running)
                (task_id,) = rig.executor.running
                done.append(task_id[0])
                rig.executor.finish(task_id)
            assert done.count("m") >= 3, done
            assert done.count("s") >= 3, done
            rig.executor.script["app.slow"] = rig.executor.script["app.many"] = rig.executor.script["app.add"]
            for task_id in list(rig.executor.running):
                rig.executor.finish(task_id)
            await rig.until(lambda: not rig.broker.waiting and not rig.claims.held)

    asyncio.run(story(make_rig(limits={"app.many": [Limit(concurrency=50)]}, slots=1, ahead=0)))


# ── changed while it runs ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_felt_by_those_who_wait_and_can_be_taken_back(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            gate = rig.worker.pipeline.gate
            counter = gate.limited.find("app.one").counter
            for number in range(6):
                rig.broker.put("app.one", task_id=f"o{number}")
            await rig.started("o0")
            await gate.change(counter, b'{"concurrency":3}')
            await rig.started("o1", "o2")
            assert sorted(rig.executor.running) == ["o0", "o1", "o2"]
            await gate.change(counter, None)
            await rig.until(lambda: gate.limited.all()[0].most == 1)
            for number in range(3):
                rig.executor.finish(f"o{number}")
            await rig.settled("o0", "o1", "o2")
            await rig.started("o3")
            assert list(rig.executor.running) == ["o3"]
            await gate.change(counter, b'{"concurrency":null}')
            await rig.started("o4", "o5")
            for number in range(3, 6):
                rig.executor.finish(f"o{number}")
            await rig.settled("o3", "o4", "o5")

    asyncio.run(story(make_rig(limits=ONE, slots=8)))


def test_what_cannot_be_read_of_a_change_changes_nothing(make_rig: MakeRig, caplog: Any) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            gate = rig.worker.pipeline.gate
            counter = gate.limited.find("app.one").counter
            for bad in (b"\xff", b'{"concurrency":"three"}', b'{"concurrency":-1}', b'{"color":1}'):
                await gate.change(counter, bad)
                await gate.change("task/elsewhere|0", bad)
            rig.broker.put("app.one", task_id="o0")
            await rig.started("o0")
            assert gate.limited.all()[0].most == 1
            rig.executor.finish("o0")
            await rig.settled("o0")
        assert caplog.text.count("is not heeded") == 1

    asyncio.run(story(make_rig(limits=ONE, slots=8)))
