"""kill -9 at random: of the worker, of a child, of the client. Nothing that was accepted is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import House

pytestmark = pytest.mark.system

PRODUCER = """
from celeriac.errors import OperationalError
while True:
    try:
        result = mark.delay(1)
    except OperationalError:
        continue
    note("ok", result.id)
    time.sleep(0.001)
"""


#: of all three kinds; experiments 2 and 3 of the scorecard kill more
KILLS = 72


@pytest.mark.timeout(600)
def test_nothing_accepted_is_lost_in_many_kills(house: House) -> None:
    dice = random.Random(20261122)
    house.settings["task_crash_budget"] = 1000  # no task is to blame
    worker = house.worker("-c", "2")
    client = house.start("-c", "from house import *\n" + PRODUCER)
    for round_number in range(KILLS):
        time.sleep(dice.uniform(0.005, 0.12))
        match dice.choice(["parent", "child", "client"]):
            case "parent":
                worker.kill()
                worker = house.worker("-c", "2", wait=0 if dice.random() < 0.5 else 20)
            case "client":
                client.kill()
                client.wait(60)
                client = house.start("-c", "from house import *\n" + PRODUCER)
            case _:
                family = worker.children()
                if family:
                    _kill_quietly(dice.choice(family))
        if round_number % 24 == 23:
            assert house.integrity() == "ok"
    client.kill()
    accepted = {words[1] for words in house.notes("ok")}
    assert len(accepted) > KILLS
    house.until(lambda: accepted <= house.states().keys(), 60, "every accepted task has a state")
    states = house.states()
    assert {states[task] for task in accepted} == {"SUCCESS"}
    assert house.integrity() == "ok"


def _kill_quietly(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_work_of_a_killed_worker_restarts_before_its_lease_ends(house: House) -> None:
    first = house.worker("-c", "1")
    task = house.python("print(mark.delay(1, seconds=3.0).id)").strip()
    house.until(lambda: house.notes("start"), what="the task has started")
    first.kill()
    killed = time.time()
    house.worker("-c", "1")
    house.until(lambda: len(house.notes("start")) == 2, 25, "the task has started again")
    assert float(house.notes("start")[1][3]) - killed < 28  # seconds; the lease has 30
    house.until(lambda: house.states().get(task) == "SUCCESS", 20)


def test_a_killed_worker_leaves_no_orphans(house: House, is_alive: Callable[[int], bool]) -> None:
    worker = house.worker("-c", "2")
    house.python("[mark.delay(n, seconds=600.0) for n in range(2)]")
    house.until(lambda: len(house.notes("start")) == 2)
    family = worker.children()
    assert len(family) >= 3
    worker.kill()
    house.until(lambda: not any(map(is_alive, family)), 20, "all processes of the worker are gone")


def test_a_task_that_kills_its_process_once_is_run_again(house: House) -> None:
    worker = house.worker("-c", "2")
    flag = house.folder / "flag"
    task = house.python(f"print(die_once.delay({str(flag)!r}).id)").strip()
    house.until(lambda: house.states().get(task) == "SUCCESS", 30)
    assert len(house.notes("start")) == 2
    assert worker.process.poll() is None


def test_a_task_that_always_kills_its_process_is_set_aside_after_the_budget(house: House) -> None:
    worker = house.worker("-c", "2")
    task = house.python("print(die.delay().id); [add.delay(n, n) for n in range(50)]").split()[0]
    house.until(lambda: house.states().get(task) == "FAILURE", 40)
    house.until(lambda: list(house.states().values()).count("SUCCESS") == 50, 30, "the neighbours ran")
    assert len(house.notes("start")) == 3
    assert worker.process.poll() is None
    assert house.waiting() == 0
    dead = house.query("select kind, reason from buried")
    assert len(dead) == 1
    assert dead[0][0] == "dead"
    assert "SIGKILL" in dead[0][1] or "died" in dead[0][1]
