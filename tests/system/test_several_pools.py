"""One worker with a pool for what computes and a pool for what waits: neither stops the other, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

MORE_TASKS = """
import asyncio

@app.task(bind=True)
def hold(self, flag):
    note("start", self.request.id, os.getpid(), time.time())
    while not os.path.exists(flag):
        time.sleep(0.02)
    note("end", self.request.id, os.getpid(), time.time())

@app.task(bind=True)
async def ponder(self, flag=None):
    note("start", self.request.id, os.getpid(), time.time())
    while flag is not None and not os.path.exists(flag):
        await asyncio.sleep(0.02)
    note("end", self.request.id, os.getpid(), time.time())

@app.task(pool="threads")
def stray():
    return "ran"
"""


def started(house: House, ids: set[str]) -> dict[str, str]:
    """Of these, which have begun: id → process."""
    return {words[1]: words[2] for words in house.notes("start") if words[1] in ids}


def ended(house: House, ids: set[str]) -> set[str]:
    return {words[1] for words in house.notes("end")} & ids


def test_each_pool_goes_its_own_way(house: House) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write(MORE_TASKS)
    worker = house.worker("-P", "prefork:1,asyncio:10", "--children", "1")
    assert "11 (1 prefork; 10 asyncio, 1 x 10)" in worker.log
    assert "run in prefork: house.stray (pool 'threads')" in worker.log

    # more long tasks than a worker looks past at one time, and then coroutines
    sent = house.python(
        "print(*(hold.delay('go').id for _ in range(80)))\n"
        "print(*(ponder.delay().id for _ in range(20)))\n"
        "print(stray.delay().id)"
    ).splitlines()
    held, pondered, last = set(sent[0].split()), set(sent[1].split()), sent[2]
    house.until(lambda: ended(house, pondered) == pondered, what="coroutines run past the long tasks")
    assert len(started(house, held)) == 1
    process = set(started(house, held).values())
    assert len(set(started(house, pondered).values())) == 1
    assert not process & set(started(house, pondered).values())

    # terminated, the function takes its process with it, the coroutine does not
    thinker = house.python("print(ponder.delay('never').id)").strip()
    house.until(lambda: started(house, {thinker}), what="a coroutine waits")
    [first] = started(house, held)
    said = house.python(
        f"app.control.revoke([{first!r}, {thinker!r}], terminate=True)\n"
        "print(app.control.pool_grow(1, pool='asyncio', reply=True, limit=1))\n"
        "print(app.control.pool_shrink(1, reply=True, limit=1))\n"
        "print(app.control.broadcast('stats', reply=True, limit=1))"
    )
    assert "pool will grow" in said
    assert "the pool has 1 processes; it cannot shrink by 1" in said
    assert "'implementation': 'celeriac.executors:prefork,asyncio', 'max-concurrency': 21" in said
    assert "'prefork': {'max-concurrency': 1, " in said
    assert "'asyncio': {'max-concurrency': 20, " in said
    house.until(lambda: {house.states().get(one) for one in (first, thinker)} == {"REVOKED"}, what="both are ended")
    (house.folder / "go").touch()
    house.until(lambda: ended(house, held) == held - {first}, what="all that had to wait has run")
    house.until(lambda: house.states().get(last) == "SUCCESS", what="a task without its pool runs")
    assert not process & {words[2] for words in house.notes("end")}

    # a hard limit in each
    limited = house.python(
        "print(hold.apply_async(('never',), time_limit=0.3).id, ponder.apply_async(('never',), time_limit=0.3).id)"
    ).split()
    house.until(lambda: [house.states().get(one) for one in limited] == ["FAILURE"] * 2, what="limits hold")
    assert not ended(house, set(limited))

    # a warm stop lets both end what they run and gives back the rest
    sent = house.python(
        "print(*(hold.delay('gone').id for _ in range(5)))\nprint(*(ponder.delay('gone').id for _ in range(3)))"
    ).splitlines()
    held, pondered = set(sent[0].split()), set(sent[1].split())
    house.until(lambda: len(started(house, held)) == 1 and len(started(house, pondered)) == 3, what="all is busy")
    worker.process.terminate()
    worker.wait_for("warm shutdown")
    (house.folder / "gone").touch()
    assert worker.process.wait(60) == 0
    begun = set(started(house, held | pondered))
    assert begun >= pondered
    assert ended(house, held | pondered) == begun
    assert {house.states().get(one) for one in begun} == {"SUCCESS"}
    assert house.waiting() == 8 - len(begun)
