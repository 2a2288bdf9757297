"""The way of a message through the worker, for every way it can go."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.errors import PoisonTask, TaskRevokedError
from celeriac.executors.base import Failed, Ignored, Lost, Rejected, Request, WantsRetry
from celeriac.transports.base import Envelope, Outgoing, Route
from celeriac.wire.result_record import encode_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.worker.conftest import Message, Rig

    MakeRig = Callable[..., Rig]


def record(request: Request, status: str, result: object = None) -> Any:
    return encode_record(task_id=request.id, status=status, result=result, date_done=None)


def failed(request: Request, quarantine: str | None = None) -> Failed:
    error = ValueError("boom")
    return Failed(request.id, record(request, "FAILURE", error), [], 0.1, repr(error), "Trace", False, quarantine)


def follow_up(task_id: str) -> Outgoing:
    return Outgoing(Envelope(b"[]", {"id": task_id, "task": "app.add"}, {}), Route("", "celery"))


def iso(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize("commits", [False, True])
def test_success_is_stored_then_acknowledged(make_rig: MakeRig, commits: bool) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(20):
                rig.broker.put(task_id=f"t{number}")
            await rig.settled(*(f"t{number}" for number in range(20)))
        assert rig.code == 0
        assert [task_id for _, task_id, _ in rig.broker.log] == [f"t{number}" for number in range(20)]
        assert {verdict for verdict, _, _ in rig.broker.log} == {"ack"}
        assert {rig.store.state(f"t{number}") for number in range(20)} == {"SUCCESS"}
        assert not rig.broker.held
        assert not rig.claims.held

    asyncio.run(story(make_rig(commits=commits)))


def test_one_transaction_carries_results_follow_ups_and_acknowledgements(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        from tests.unit.worker.conftest import success

        rig.executor.script["app.add"] = lambda request: success(request, [follow_up("next")])
        async with rig.running():
            rig.broker.put()
            await rig.settled("t1")
        assert rig.broker.commit_sizes == [(1, 1, 1)]
        assert [sent.envelope.headers["id"] for sent in rig.broker.published] == ["next"]

    asyncio.run(story(make_rig(commits=True)))


def test_what_a_child_is_handed(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.limited", "a")
            rig.broker.put("app.limited", "b", attempt=1, timelimit=[20, None])
            await rig.settled("a", "b")
        first, second = rig.executor.taken
        assert (first.queue, first.routing_key, first.redelivered, first.delivery) == ("celery", "celery", False, 1)
        assert (first.hard_limit, first.soft_limit) == (9.0, 5.0)
        assert (second.redelivered, second.delivery) == (True, 2)
        assert (second.hard_limit, second.soft_limit) == (20, 5.0)
        assert first.envelope.body[:2] == b"[["

    asyncio.run(story(make_rig()))


@pytest.mark.parametrize(
    ("task", "outcome", "verdict", "state"),
    [
        ("app.add", failed, "ack", "FAILURE"),
        ("app.strict", failed, "dead", "FAILURE"),
        ("app.add", lambda r: failed(r, "the body is not JSON"), "quarantine", "FAILURE"),
        ("app.add", lambda r: Ignored(r.id, [], 0.1), "ack", None),
        ("app.add", lambda r: Rejected(r.id, False, "no", record(r, "FAILURE"), 0.1), "dead", "FAILURE"),
        ("app.add", lambda r: Lost(r.id, True, "hard_limit", "9 s"), "ack", "FAILURE"),
        ("app.strict", lambda r: Lost(r.id, True, "hard_limit", "9 s"), "release", "FAILURE"),
        ("app.add", lambda r: Lost(r.id, True, "revoked", "SIGTERM"), "ack", "REVOKED"),
    ],
)
def test_every_outcome_has_its_verdict(
    make_rig: MakeRig, task: str, outcome: Callable[[Request], Any], verdict: str, state: str | None
) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.script[task] = lambda request: None if request.delivery > 1 else outcome(request)
        async with rig.running():
            rig.broker.put(task)
            await rig.settled("t1")
            if verdict == "release":
                await rig.started("t1")
                rig.executor.finish("t1")
        assert rig.broker.verdicts("t1")[0] == verdict
        assert rig.store.state("t1") == ("SUCCESS" if verdict == "release" else state)

    asyncio.run(story(make_rig()))


def test_a_retry_is_published_and_runs_after_the_first_attempt_is_settled(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        def script(request: Request) -> Any:
            retries = request.envelope.headers["retries"]
            if retries == 2:
                from tests.unit.worker.conftest import success

                return success(request)
            # the broker delivers the next attempt before this one is settled
            rig.broker.put(task_id="t1", retries=retries + 1)
            return WantsRetry(request.id, record(request, "RETRY"), [], 0.1, "why", "in 0s")

        rig.executor.script["app.add"] = script
        async with rig.running():
            rig.broker.put(task_id="t1")
            await rig.until(lambda: rig.store.state("t1") == "SUCCESS")
            await rig.until(lambda: rig.broker.verdicts("t1") == ["ack", "ack", "ack"])
        assert [request.envelope.headers["retries"] for request in rig.executor.taken] == [0, 1, 2]

    asyncio.run(story(make_rig()))


def test_a_rejected_message_that_is_requeued_runs_again(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        answers = iter([lambda r: Rejected(r.id, True, "later", None, 0.1), lambda _: None])
        rig.executor.script["app.add"] = lambda request: next(answers)(request)
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: len(rig.executor.taken) == 2)
            await rig.started("t1")
            rig.executor.finish("t1")
        assert rig.broker.log == [("release", "t1", ""), ("ack", "t1", "")]
        assert rig.executor.taken[1].delivery == 1, "not counted"

    asyncio.run(story(make_rig()))


# ── admission ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_for_later_is_parked_at_the_broker(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(task_id="later", eta=iso(0.4))
            await rig.settled("later")
            assert not rig.executor.taken
            await rig.until(lambda: rig.store.state("later") == "SUCCESS")
        assert rig.broker.verdicts("later") == ["park", "ack"]

    asyncio.run(story(make_rig()))


def test_a_broker_without_delays_has_them_kept_by_the_worker(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(task_id="last", eta=iso(1.2))
            rig.broker.put(task_id="first", eta=iso(0.9))
            await rig.settled("last", "first")
        assert [request.id for request in rig.executor.taken] == ["first", "last"]
        assert rig.broker.log == [("ack", "first", ""), ("ack", "last", "")]

    asyncio.run(story(make_rig(delays=False)))


def test_messages_kept_here_are_bounded_and_given_back_at_the_end(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(30):
                rig.broker.put(task_id=f"t{number}", eta=iso(60))
            await rig.until(lambda: rig.claims.later_count >= 5)
            await asyncio.sleep(0.05)
            assert rig.claims.later_count < 30
        assert rig.code == 0
        assert len(rig.broker.waiting) == 30

    asyncio.run(story(make_rig(delays=False, held_limit=5)))


def test_an_expired_message_is_recorded_as_revoked(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(task_id="old", expires=iso(-1))
            rig.broker.put("app.quiet", "quiet", expires=iso(-1))
            await rig.settled("old", "quiet")
        assert rig.broker.log == [("ack", "old", ""), ("ack", "quiet", "")]
        assert rig.store.state("old") == "REVOKED"
        assert isinstance(rig.store.result("old"), TaskRevokedError)
        assert rig.store.state("quiet") is None
        assert not rig.executor.taken

    asyncio.run(story(make_rig()))


def test_an_unknown_task_is_set_aside_and_its_neighbours_run(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.nobody", "lost")
            rig.broker.put(task_id="found")
            await rig.settled("lost", "found")
        assert ("ack", "found", "") in rig.broker.log
        assert ("quarantine", "lost", "no task named 'app.nobody' is registered here") in rig.broker.log
        assert rig.store.state("lost") == "FAILURE"

    asyncio.run(story(make_rig()))


@pytest.mark.parametrize(
    "headers",
    [{"eta": "soon"}, {"task_id": "../x"}, {"timelimit": 7}, {"timelimit": [1, "x"]}, {"task": None}, {"expires": []}],
)
def test_senseless_messages_go_to_quarantine(make_rig: MakeRig, headers: dict[str, Any]) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(**headers)
            rig.broker.put(task_id="good")
            await rig.settled("good")
            await rig.until(lambda: len(rig.broker.log) == 2)
        assert sorted(verdict for verdict, _, _ in rig.broker.log) == ["ack", "quarantine"]
        assert all(reason for verdict, _, reason in rig.broker.log if verdict == "quarantine")

    asyncio.run(story(make_rig()))


def test_what_the_driver_could_not_read_goes_to_quarantine(make_rig: MakeRig, message: type[Message]) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put_message(message(Envelope(b"\xff", {}, {}), Route("", "celery"), malformed="not JSON"))
            await rig.until(lambda: rig.broker.log)
        assert rig.broker.log == [("quarantine", "None", "not JSON")]

    asyncio.run(story(make_rig()))


# ── lost processes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_that_costs_every_process_is_dead_after_the_budget(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.script["app.add"] = lambda request: Lost(request.id, True, "died", "signal 11 (SIGSEGV)")
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: "dead" in rig.broker.verdicts("t1"))
        assert rig.broker.log[:2] == [("release", "t1", "counted")] * 2
        assert "SIGSEGV" in rig.broker.log[2][2]
        assert len(rig.executor.taken) == 3
        assert rig.store.state("t1") == "FAILURE"
        assert rig.executor.concluded == ["t1"]
        assert [sent.envelope.body for sent in rig.broker.published] == [b"errback"]

    asyncio.run(story(make_rig()))


def test_a_victim_of_its_neighbours_is_run_alone_before_it_is_given_up(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        def script(request: Request) -> Any:
            if request.delivery <= 3:  # each time the process had others in it
                return Lost(request.id, True, "died", "signal 11 (SIGSEGV)", alone=False)
            return None

        rig.executor.script["app.add"] = script
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: [request.delivery for request in rig.executor.taken] == [1, 2, 3, 4])
            rig.broker.put("app.slow", "other")
            await rig.until(lambda: len(rig.broker.held) == 2)
            assert set(rig.executor.running) == {"t1"}
            rig.executor.finish("t1")
            await rig.started("other")
            rig.executor.finish("other")
            await rig.settled("other")
        assert rig.broker.log[:4] == [("release", "t1", "counted")] * 3 + [("ack", "t1", "")]
        assert rig.store.state("t1") == "SUCCESS"

    asyncio.run(story(make_rig()))


def test_poison_from_elsewhere_does_not_even_start(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put(attempt=5)
            await rig.settled("t1")
        assert rig.broker.verdicts("t1") == ["dead"]
        assert isinstance(rig.store.result("t1"), PoisonTask)
        assert not rig.executor.taken
        assert rig.executor.concluded == ["t1"]
        assert [sent.envelope.body for sent in rig.broker.published] == [b"errback"]

    asyncio.run(story(make_rig()))


def test_a_pool_that_has_room_again_gets_work_although_nothing_ended(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        slots, rig.executor.ahead = rig.executor.slots, -rig.executor.slots  # its children are being replaced
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: rig.claims.ready)
            assert not rig.executor.taken
            rig.executor.ahead = slots
            await rig.settled("t1")

    asyncio.run(story(make_rig()))


def test_a_suspect_runs_alone(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "before")
            await rig.started("before")
            rig.broker.put("app.slow", "suspect", attempt=3)
            rig.broker.put("app.slow", "after")
            await rig.until(lambda: len(rig.broker.held) == 3)
            assert set(rig.executor.running) == {"before"}
            rig.executor.finish("before")
            await rig.started("suspect")
            await asyncio.sleep(0.02)
            assert set(rig.executor.running) == {"suspect"}
            rig.executor.finish("suspect")
            await rig.started("after")
            rig.executor.finish("after")
            await rig.settled("after")
        assert rig.code == 0

    asyncio.run(story(make_rig()))


def test_an_unstarted_request_of_a_lost_process_is_released_uncounted(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        answers = iter([lambda r: Lost(r.id, False, "not_started", "exit status 1"), lambda _: None])
        rig.executor.script["app.add"] = lambda request: next(answers)(request)
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: len(rig.executor.taken) == 2)
            rig.executor.finish("t1")
        assert rig.broker.log == [("release", "t1", ""), ("ack", "t1", "")]

    asyncio.run(story(make_rig()))


def test_a_lost_process_may_count_as_a_retry(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.script["app.resent"] = lambda request: Lost(request.id, True, "died", "signal 9 (SIGKILL)")
        async with rig.running():
            rig.broker.put("app.resent")
            await rig.settled("t1")
        assert rig.broker.verdicts("t1") == ["ack"]
        assert rig.store.state("t1") == "RETRY"
        assert rig.executor.concluded == ["t1"]
        assert [sent.envelope.body for sent in rig.broker.published] == [b"again"]

    asyncio.run(story(make_rig()))


def test_a_retry_whose_hooks_cost_another_process_is_sent_all_the_same(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.script["app.resent"] = lambda request: Lost(request.id, True, "died", "signal 9 (SIGKILL)")
        rig.executor.conclude = lambda request: Lost(request.id, True, "died", "signal 9 (SIGKILL)")
        async with rig.running():
            rig.broker.put("app.resent")
            await rig.settled("t1")
        assert rig.broker.verdicts("t1") == ["ack"]
        assert rig.store.state("t1") == "RETRY"
        (sent,) = rig.broker.published
        assert sent.envelope.headers["retries"] == 1
        assert sent.not_before is not None
        assert sent.route == Route("", "celery")

    asyncio.run(story(make_rig()))


# ── early acknowledgement ────────────────────────────────────────────────────────────────────────────────────────


def test_an_early_message_is_acknowledged_before_it_starts(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        seen: list[list[str]] = []
        rig.executor.script["app.early"] = lambda request: seen.append(rig.broker.verdicts(request.id))
        async with rig.running():
            rig.broker.put("app.early", "e1")
            await rig.started("e1")
            rig.executor.finish("e1")
            await rig.until(lambda: rig.store.state("e1") == "SUCCESS")
        assert seen == [["ack"]]
        assert rig.broker.log == [("ack", "e1", "")]

    asyncio.run(story(make_rig()))


def test_an_early_message_whose_process_dies_is_a_recorded_failure(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.early", "e1")
            await rig.started("e1")
            rig.executor.finish("e1", Lost("e1", True, "died", "signal 9 (SIGKILL)"))
            await rig.until(lambda: rig.store.state("e1") == "FAILURE")
        assert "SIGKILL" in str(rig.store.result("e1"))
        assert rig.broker.log == [("ack", "e1", "")]
        assert [sent.envelope.body for sent in rig.broker.published] == [b"errback"]

    asyncio.run(story(make_rig()))


def test_a_failure_whose_error_callbacks_cost_another_process_is_recorded_all_the_same(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.conclude = lambda request: Lost(request.id, True, "died", "signal 11 (SIGSEGV)")
        async with rig.running():
            rig.broker.put(attempt=5)
            await rig.settled("t1")
        assert rig.broker.verdicts("t1") == ["dead"]
        assert isinstance(rig.store.result("t1"), PoisonTask)
        assert not rig.broker.published

    asyncio.run(story(make_rig()))


def test_an_early_message_that_never_started_is_published_anew(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.executor.unstarted.add("e1")
        async with rig.running():
            rig.broker.put("app.early", "e1")
            await rig.started("e1")
        assert rig.code == 0
        assert [sent.envelope.headers["id"] for sent in rig.broker.published] == ["e1"]

    asyncio.run(story(make_rig()))


def test_an_early_message_that_somebody_else_has_does_not_run(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            original = rig.broker.apply

            def lose(batch: Any) -> Any:
                rig.broker.held.clear()
                rig.broker.apply = original  # type: ignore[method-assign]
                return original(batch)

            rig.broker.apply = lose  # type: ignore[method-assign]
            rig.broker.put("app.early", "e1")
            await rig.until(lambda: rig.broker.apply == original and not rig.claims.held)
        assert not rig.executor.taken

    asyncio.run(story(make_rig()))


# ── back-pressure ────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_more_is_held_than_room_and_prefetch_allow(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(50):
                rig.broker.put("app.slow", f"t{number}")
            await rig.until(lambda: len(rig.broker.held) >= 2)
            await asyncio.sleep(0.05)
            assert len(rig.executor.running) == 2
            assert len(rig.broker.held) == 2 + 2 * 2  # room, and (multiplier - 1) x slots ready behind it
            rig.executor.kill_now.set()
        assert rig.code == 1
        assert len(rig.broker.waiting) == 50

    asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=3)))


def test_a_multiplier_of_one_holds_nothing_back(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(10):
                rig.broker.put("app.slow", f"t{number}")
            await rig.started("t0", "t1")
            await asyncio.sleep(0.05)
            assert len(rig.broker.held) == 2
            rig.executor.finish("t0")
            await rig.started("t2")
            rig.executor.kill_now.set()

    asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=1, look_ahead=0)))


def test_outcomes_that_pile_up_stop_the_intake(make_rig: MakeRig) -> None:
    from celeriac.errors import BackendError

    async def story(rig: Rig) -> None:
        rig.store.fail("write", BackendError("the store is away"), 4)
        async with rig.running():
            for number in range(200):
                rig.broker.put(task_id=f"t{number}")
            await rig.until(lambda: len(rig.broker.log) == 200)
        assert rig.code == 0
        assert len(rig.store.records) == 200

    async def watch(rig: Rig) -> None:
        most = 0
        story_task = asyncio.create_task(story(rig))
        while not story_task.done():
            if rig.worker.pipeline is not None:
                most = max(most, rig.worker.pipeline.settle.backlog)
            await asyncio.sleep(0.001)
        await story_task
        assert most < 40, "bounded by the limit plus what had been asked for"

    asyncio.run(watch(make_rig(backlog=8)))
