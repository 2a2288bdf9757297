"""Workers that come and go under load, as deploys do: warm stops lose nothing and run nothing twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House, Worker

pytestmark = pytest.mark.system

PRODUCER = """
import itertools, random
for n in itertools.count():
    if os.path.exists("enough"):
        break
    note("ok", mark.delay(n, seconds=random.choice([0, 0, 0, 0.05])).id)
    if n % 10 == 0:
        for call in add.delay_many([(n, 1) for n in range(20)]):
            note("ok", call.id)
    if n % 10 == 5:
        note("ok", flaky.delay(1).id)
        note("ok", mark.apply_async((1,), countdown=0.3).id)
    time.sleep(0.004)
"""


#: as many as the test has time for; 50 of each pool are experiments 51 to 56 of the scorecard
STOPS = 16


def test_warm_stops_under_load_lose_and_double_nothing(house: House) -> None:
    dice = random.Random(50)
    pools = ["prefork", "prefork", "threads", "asyncio"]
    workers: list[Worker] = [house.worker("-c", "2", "-P", pool) for pool in pools[:3]]
    producer = house.start("-c", "from house import *\n" + PRODUCER)
    stopped: list[Worker] = []
    for _ in range(STOPS):
        time.sleep(dice.uniform(0, 0.4))
        leaver = workers.pop(dice.randrange(len(workers)))
        if dice.random() < 0.8:
            leaver.wait_for("ready")
        leaver.process.send_signal(signal.SIGTERM)
        stopped.append(leaver)
        workers.append(house.worker("-c", "2", "-P", dice.choice(pools), wait=0))
    (house.folder / "enough").touch()
    assert producer.wait(60) == 0
    for worker in stopped:
        assert worker.process.wait(60) in (0, -signal.SIGTERM), worker.log  # -15: told before it had begun
    accepted = {words[1] for words in house.notes("ok")}
    assert len(accepted) > 10 * STOPS
    house.until(lambda: house.waiting() == 0, 90, "all is settled")
    states = house.states()
    assert Counter(states.get(task, "lost") for task in accepted) == {"SUCCESS": len(accepted)}
    twice = [task for task, count in Counter(words[1] for words in house.notes("start")).items() if count > 1]
    assert twice == []
    for worker in workers:
        assert worker.stop() == 0
    assert house.query("select count(*) from held") == [(0,)]
    assert house.query("select count(*) from holder") == [(0,)]
    assert [path.name for path in house.folder.glob("*-bells/*")] == []
    assert house.integrity() == "ok"
