"""The common paths, through real processes: results, retries, links, coroutines, shutdown."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import House

pytestmark = pytest.mark.system


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_results_come_back_in_every_pool(house: House, as_json: Callable[[str], Any], pool: str) -> None:
    house.worker("-P", pool, "-c", "2")
    text = house.python(
        """
import json
calls = [add.delay(n, n) for n in range(50)] + [gather.delay(n) for n in range(50)]
values = [call.get(timeout=60) for call in calls]
failed = boom.delay("what").get(timeout=60, propagate=False)
print(json.dumps([values, type(failed).__name__, str(failed)]))
"""
    )
    values, kind, words = as_json(text)
    assert values == [n * 2 for n in range(50)] * 2
    assert (kind, words) == ("ValueError", "what")


def test_a_failure_is_raised_where_it_is_awaited(house: House) -> None:
    house.worker("-c", "1")
    text = house.python(
        """
try:
    boom.delay("remote").get(timeout=60)
except ValueError as error:
    print("raised", error)
result = boom.delay("remote")
result.get(timeout=60, propagate=False)
print(result.state, "boom" in result.traceback)
"""
    )
    assert text.splitlines() == ["raised remote", "FAILURE True"]


def test_retries_run_again_under_the_same_id(house: House) -> None:
    house.worker("-c", "2")
    assert house.python("print(flaky.delay(3).get(timeout=60))").strip() == "3"
    text = house.python(
        """
result = flaky.delay(9)
print(type(result.get(timeout=60, propagate=False)).__name__)
"""
    )
    assert text.strip() == "RuntimeError"


def test_callbacks_run_with_the_result(house: House) -> None:
    house.worker("-c", "2")
    code = """
result = add.apply_async((1, 2), link=add.s(10, ).set(task_id="linked"))
print(app.AsyncResult("linked").get(timeout=60))
"""
    assert house.python(code).strip() == "13"


def test_countdown_and_expiry(house: House) -> None:
    house.worker("-c", "1")
    text = house.python(
        """
start = time.time()
late = mark.apply_async((1,), countdown=1.0)
gone = mark.apply_async((2,), expires=-5)
print(late.get(timeout=60), time.time() - start >= 1.0)
print(type(gone.get(timeout=60, propagate=False)).__name__, gone.state)
"""
    )
    assert text.splitlines() == ["1 True", "TaskRevokedError REVOKED"]
    assert len(house.notes("start")) == 1


def test_time_limits(house: House) -> None:
    house.worker("-c", "2")
    text = house.python(
        """
soft = mark.apply_async((1, 30), soft_time_limit=0.5)
hard = mark.apply_async((1, 30), time_limit=0.5)
print(type(soft.get(timeout=60, propagate=False)).__name__, type(hard.get(timeout=60, propagate=False)).__name__)
print(add.delay(1, 1).get(timeout=60))
"""
    )
    assert text.splitlines() == ["SoftTimeLimitExceeded TimeLimitExceeded", "2"]


def test_a_warm_stop_finishes_what_runs_and_hands_back_the_rest(house: House) -> None:
    worker = house.worker("-c", "1")
    house.python("[mark.delay(n, seconds=1.5) for n in range(20)]")
    house.until(lambda: house.notes("start"))
    assert worker.stop() == 0
    started, ended = house.notes("start"), house.notes("end")
    assert len(started) == len(ended) < 20
    assert list(house.states().values()).count("SUCCESS") == len(ended)
    assert house.waiting() == 20 - len(ended)
    assert house.query("select count(*) from held") == [(0,)], "what was not started is there for others at once"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_worker_stops_at_once_with_code_0(house: House, signum: int) -> None:
    assert house.worker("-c", "2").stop(signum) == 0


def test_a_second_signal_stops_cold_and_the_work_is_kept(house: House, is_alive: Callable[[int], bool]) -> None:
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=60)")
    house.until(lambda: house.notes("start"))
    family = worker.children()
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("warm")
    assert worker.stop(signal.SIGTERM) == 1
    assert house.waiting() == 1
    house.until(lambda: not any(map(is_alive, family)), 20)


def test_many_small_tasks_all_succeed(house: House) -> None:
    house.python("add.delay_many((n, 1) for n in range(5000))")
    worker = house.worker("-c", "2")
    house.until(lambda: len(house.states()) == 5000, 40)
    assert set(house.states().values()) == {"SUCCESS"}
    assert house.waiting() == 0
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_error_callbacks_hear_of_failures_that_the_task_could_not_tell(house: House, pool: str) -> None:
    house.settings["task_crash_budget"] = 2
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + ERROR_CALLBACKS)
    worker = house.worker("-P", pool, "-c", "1")
    text = house.python(
        """
def told(result):
    error = result.get(timeout=60, propagate=False)
    return type(error).__name__
errbacks = [by_id.s("kept"), by_error.s()]
print(told(mark.apply_async((1, 60), time_limit=0.5, task_id="limit", link_error=errbacks)))
print(told(die.apply_async(task_id="crash", link_error=errbacks)))
print(add.delay(1, 1).get(timeout=60))
"""
    )
    assert text.splitlines() == ["TimeLimitExceeded", "WorkerLostError", "2"]
    wanted = {
        "by_id limit kept", "by_error limit TimeLimitExceeded 0.5 [1,60]", "hook limit TimeLimitExceeded",
        "by_id crash kept", "by_error crash WorkerLostError",
    }  # fmt: skip
    house.until(lambda: len(told_of(house)) >= len(wanted))
    assert {line.partition(" Worker exited")[0] for line in told_of(house)} == wanted
    assert worker.stop() == 0


ERROR_CALLBACKS = """
@app.task
def by_id(task_id, extra):
    note("told", "by_id", task_id, extra)

@app.task
def by_error(request, error, traceback):
    more = [error.args[0], str(request.args).replace(" ", "")] if "Limit" in type(error).__name__ else []
    note("told", "by_error", request.id, type(error).__name__, *more)

mark.on_failure = lambda error, task_id, args, kwargs, einfo: note("told", "hook", task_id, type(error).__name__)
"""


def told_of(house: House) -> list[str]:
    if not house.journal.exists():
        return []
    lines = house.journal.read_text().splitlines()
    return [line.removeprefix("told ") for line in lines if line.startswith("told ")]


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_tasks_log_and_print_as_themselves(house: House, pool: str) -> None:
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + TALKING)
    worker = house.worker("-P", pool, "-c", "1")
    house.python('talk.apply_async(task_id="t1").get(timeout=60)\ntalk_too.apply_async(task_id="t2").get(timeout=60)')
    worker.wait_for("house.talk_too[t2] succeeded")
    assert worker.stop() == 0
    process = "MainProcess" if pool == "solo" else "ChildProcess-1"
    shown = [line.partition(": ")[2] for line in worker.lines if "said" in line]
    assert shown == [
        f"INFO/{process}] house.talk[t1]: said by talk", f"WARNING/{process}] printed, said talk",
        f"INFO/{process}] house.talk_too[t2]: said by talk_too", f"WARNING/{process}] printed, said talk_too",
    ]  # fmt: skip


TALKING = """
from celeriac.utils.log import get_task_logger
log = get_task_logger(__name__)

@app.task
def talk():
    log.info("said by talk")
    log.debug("said too quietly")
    print("printed, said", "talk")

@app.task
async def talk_too():
    log.info("said by %s", "talk_too")
    print("printed, said talk_too")
"""
