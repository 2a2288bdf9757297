"""Workers with every pool, whole: greenlets, limits, changes of size, stops under load, pools of strangers."""

from __future__ import annotations

import random
import re
import signal
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import House

pytestmark = pytest.mark.system

GREEN = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("gevent", "eventlet")
]
PAGE = Path(__file__).parents[2] / "docs/how-to/extend/pools.md"

MORE_TASKS = '''
from celeriac.exceptions import SoftTimeLimitExceeded

@app.task(bind=True)
def patient(self, seconds):
    """Heeds its soft limit."""
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "heeded"
    return "slept"

@app.task(bind=True)
def stubborn(self):
    note("start", self.request.id, os.getpid(), time.time())
    while True:
        try:
            time.sleep(60)
        except Exception:
            note("defied", self.request.id)

@app.task
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"

together = 0

@app.task
def meet(number):
    """Ends when so many of them run in this process."""
    global together
    together += 1
    while together < number:
        time.sleep(0.01)
'''


@pytest.fixture
def rich_house(house: House) -> House:
    with (house.folder / "house.py").open("a") as file:
        file.write(MORE_TASKS)
    return house


@pytest.mark.parametrize("pool", GREEN)
def test_waiting_tasks_run_side_by_side(rich_house: House, pool: str) -> None:
    house = rich_house
    house.python("for n in range(500): meet.delay(100)")
    worker = house.worker("-P", pool, "-c", "100", "--children", "1")
    house.until(lambda: list(house.states().values()).count("SUCCESS") == 500, 60.0)
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", GREEN)
def test_limits_hold(rich_house: House, pool: str) -> None:
    """A soft one reaches what waits and what computes; a hard one ends what heeds nothing, and neighbours run again."""
    house = rich_house
    ids = house.python(
        "print(patient.apply_async((60,), soft_time_limit=0.3).id)\n"
        "print(spin.apply_async((60,), soft_time_limit=0.3).id)\n"
        "print(patient.apply_async((60,), time_limit=0.5).id)\n"
    ).split()
    worker = house.worker("-P", pool, "-c", "10", "--children", "1")
    house.until(lambda: len(house.states()) >= 3, 30.0)
    assert [house.states()[task] for task in ids] == ["SUCCESS", "FAILURE", "FAILURE"]
    [before] = {words[2] for words in house.notes("start")} or {""}
    assert before == ""
    neighbour = house.python("print(gated.delay().id)").strip()
    house.until(lambda: len(house.notes("start")) == 1)
    stubborn = house.python("print(stubborn.apply_async(time_limit=1.0).id)").strip()
    house.until(lambda: len([words for words in house.notes("start") if words[1] == neighbour]) == 2, 60.0)
    house.gate.touch()
    house.until(lambda: house.states().get(neighbour) == "SUCCESS", 60.0)
    house.until(lambda: stubborn in house.states())
    assert house.states()[stubborn] == "FAILURE"
    assert len([words for words in house.notes("start") if words[1] == neighbour]) == 2
    assert worker.stop() == 0, worker.log


@pytest.mark.parametrize("pool", GREEN)
def test_nothing_is_lost_when_stopped_under_load(rich_house: House, pool: str) -> None:
    house = rich_house
    total, rounds = 400, 3  # experiments 51 to 56 of the scorecard stop each pool 50 times
    chance = random.Random(7)
    house.python(f"for n in range({total}): mark.delay(n, 0.05)")
    for number in range(rounds):
        worker = house.worker("-P", pool, "-c", "20", "--children", "2")
        wanted = min(len(house.notes("end")) + chance.randrange(60), total - 1)  # all, where this process was slow
        house.until(lambda wanted=wanted: len(house.notes("end")) > wanted, 30.0)
        if number % 3 == 2:
            worker.kill()
        else:
            assert worker.stop(signal.SIGTERM) == 0
    worker = house.worker("-P", pool, "-c", "100", "--children", "2")
    house.until(lambda: len(house.states()) == total, 90.0)
    assert set(house.states().values()) == {"SUCCESS"}
    assert house.waiting() == 0
    assert worker.stop() == 0


def test_the_pool_is_sized_by_need(rich_house: House, is_alive: Callable[[int], bool]) -> None:
    house = rich_house
    house.extra["AUTOSCALE_KEEPALIVE"] = "1"
    worker = house.worker("--autoscale", "6,2")
    assert "concurrency: {min=2, max=6}" in worker.log
    house.python("for n in range(60): gated.delay(n)")
    worker.wait_for("to 6 processes (autoscale)")
    house.until(lambda: len({words[2] for words in house.notes("start")}) == 6, what="each has begun one")
    house.gate.touch()
    house.until(lambda: len(house.states()) == 60, 60.0)
    worker.wait_for("to 2 processes (autoscale)", 30.0)
    house.until(lambda: sum(map(is_alive, worker.children())) == 3, 20.0)  # the nursery and two
    assert worker.stop() == 0


def test_the_pool_changes_by_remote_control(rich_house: House) -> None:
    house = rich_house
    with (house.folder / "house.py").open("a") as file:
        file.write("\napp.conf.worker_pool_restarts = True\n@app.task\ndef version(): return 1\n")
    worker = house.worker("-c", "1", "-n", "w1@house")

    def control(*words: str) -> str:
        done = house.celeriac("-A", "house", "control", "--timeout", "60", "-d", "w1@house", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "pool will grow" in control("pool_grow", "2")
    house.until(lambda: len(worker.children()) == 4)
    assert "pool will shrink" in control("pool_shrink", "1")
    house.until(lambda: len(worker.children()) == 3)
    code = "print(version.delay().get(timeout=60))"
    assert house.python(code).strip() == "1"
    text = (house.folder / "house.py").read_text()
    (house.folder / "house.py").write_text(text.replace("def version(): return 1", "def version(): return 2222"))
    house.python("print(app.control.pool_restart(reload=True, reply=True, timeout=60, destination=['w1@house']))")
    house.until(lambda: house.python(code).strip() == "2222", 30.0)
    assert worker.stop() == 0


# ── pools of strangers ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_crew_by_its_path_works_as_the_page_says(rich_house: House) -> None:
    house = rich_house
    [code] = re.findall(r"```python\n# counting\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (house.folder / "counting.py").write_text(textwrap.dedent(code))
    worker = house.worker("-P", "counting:CountingCrew", "-c", "2")
    ids = house.python("for n in range(20): print(add.delay(n, 1).id)").split()
    house.until(lambda: len(house.states()) == 20)
    assert set(ids) == set(house.states())
    worker.wait_for("attempts so far")
    assert worker.stop() == 0


def test_an_executor_by_its_path_works(rich_house: House) -> None:
    house = rich_house
    (house.folder / "mine.py").write_text(
        "from celeriac.executors.inline import InlineExecutor\n"
        "class Mine(InlineExecutor):\n"
        "    async def start(self):\n"
        "        print('mine starts', flush=True)\n"
        "        await super().start()\n"
    )
    house.extra["CELERY_CUSTOM_WORKER_POOL"] = "mine:Mine"
    worker = house.worker("-P", "custom", "-c", "1")
    assert "mine starts" in worker.log
    assert house.python("print(add.delay(1, 2).get(timeout=60))").strip() == "3"
    assert worker.stop() == 0


def test_a_pool_that_is_none_is_told(rich_house: House) -> None:
    (rich_house.folder / "mine.py").write_text("class Mine: ...\n")
    done = rich_house.celeriac("-A", "house", "worker", "-P", "mine:Mine")
    assert done.returncode != 0
    assert "neither an executor (start() is missing) nor a crew" in done.stderr
