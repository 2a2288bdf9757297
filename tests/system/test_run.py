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
values = [call.get(timeout=20) for call in calls]
failed = boom.delay("what").get(timeout=20, propagate=False)
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
    boom.delay("remote").get(timeout=20)
except ValueError as error:
    print("raised", error)
result = boom.delay("remote")
result.get(timeout=20, propagate=False)
print(result.state, "boom" in result.traceback)
"""
    )
    assert text.splitlines() == ["raised remote", "FAILURE True"]


def test_retries_run_again_under_the_same_id(house: House) -> None:
    house.worker("-c", "2")
    assert house.python("print(flaky.delay(3).get(timeout=20))").strip() == "3"
    text = house.python(
        """
result = flaky.delay(9)
print(type(result.get(timeout=20, propagate=False)).__name__)
"""
    )
    assert text.strip() == "RuntimeError"


def test_callbacks_run_with_the_result(house: House) -> None:
    house.worker("-c", "2")
    code = """
result = add.apply_async((1, 2), link=add.s(10, ).set(task_id="linked"))
print(app.AsyncResult("linked").get(timeout=20))
"""
    assert house.python(code).strip() == "13"


def test_countdown_and_expiry(house: House) -> None:
    house.worker("-c", "1")
    text = house.python(
        """
start = time.time()
late = mark.apply_async((1,), countdown=1.0)
gone = mark.apply_async((2,), expires=-5)
print(late.get(timeout=20), 1.0 <= time.time() - start < 4.0)
print(type(gone.get(timeout=20, propagate=False)).__name__, gone.state)
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
print(type(soft.get(timeout=20, propagate=False)).__name__, type(hard.get(timeout=20, propagate=False)).__name__)
print(add.delay(1, 1).get(timeout=20))
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
    assert house.worker("-c", "2").stop(signum, timeout=10) == 0


def test_a_second_signal_stops_cold_and_the_work_is_kept(house: House, is_alive: Callable[[int], bool]) -> None:
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=60)")
    house.until(lambda: house.notes("start"))
    family = worker.children()
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("warm")
    assert worker.stop(signal.SIGTERM, timeout=20) == 1
    assert house.waiting() == 1
    house.until(lambda: not any(map(is_alive, family)), 5)


@pytest.mark.timeout(60)
def test_many_small_tasks_all_succeed(house: House) -> None:
    house.python("add.delay_many((n, 1) for n in range(5000))")
    worker = house.worker("-c", "2")
    house.until(lambda: len(house.states()) == 5000, 40)
    assert set(house.states().values()) == {"SUCCESS"}
    assert house.waiting() == 0
    assert worker.stop() == 0
