"""The process is killed at every step of a message's way, once each: nothing is lost, SUCCESS stays, counts are right.

The steps are functions of the embedded broker, the pool and the child; the app's own file wraps the chosen one, so the
product has no trace of it.
"""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

KILLER = '''

def kill_at(place, when, nth):
    """Kill this process right before or after the nth call of ``module:Class.function``, once per flag file."""
    import importlib
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *owners, name = path.split(".")
    for step in owners:
        owner = getattr(owner, step)
    real = getattr(owner, name)
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        strikes = count == nth and not os.path.exists(os.environ["HOUSE_FLAG"])
        if strikes and when == "before":
            strike()
        value = real(*args, **kwargs)
        if strikes:
            strike()
        return value

    def strike():
        open(os.environ["HOUSE_FLAG"], "w").close()
        note("struck", os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, wrapped)

if os.environ.get("HOUSE_KILL"):
    place, when, nth = os.environ["HOUSE_KILL"].split()
    kill_at(place, when, int(nth))
'''

WORK = """
ids = [mark.delay(n).id for n in range(30)] + [flaky.delay(2).id for _ in range(5)]
ids += [add.apply_async((1, 2), link=mark.si(99), countdown=0.5).id for _ in range(5)]
for id in ids:
    note("ok", id)
"""

#: where a worker is killed: (function, which call)
WORKER_POINTS = [
    ("celeriac.embedded.messages:declare", 1),
    ("celeriac.embedded.messages:arrive", 1),
    ("celeriac.embedded.messages:sweep", 1),
    ("celeriac.embedded.messages:claim", 1),
    ("celeriac.embedded.messages:claim", 3),
    ("celeriac.worker.admit:Admission.admit", 1),
    ("celeriac.executors.children.pool:ChildrenExecutor.submit", 1),
    ("celeriac.executors.children.pool:ChildrenExecutor.submit", 2),
    ("celeriac.executors.children.member:Member.give", 1),
    ("celeriac.executors.children.desk:Desk.begin", 1),
    ("celeriac.executors.children.desk:Desk.begin", 9),
    ("celeriac.executors.runner:Runner.run", 3),
    ("celeriac.executors.children.desk:Desk.hand_in", 1),
    ("celeriac.executors.children.desk:Desk.hand_in", 12),
    ("celeriac.executors.children.slate:Slate.keep", 2),
    ("celeriac.executors.children.slate:Slate.finish", 2),
    ("celeriac.executors.children.slate:Slate.empty", 1),
    ("celeriac.worker.endings:Endings.take", 1),
    ("celeriac.embedded.records:settle", 1),
    ("celeriac.embedded.records:settle", 3),
    ("celeriac.embedded.messages:send_within", 1),
    ("celeriac.embedded.messages:give_back_within", 1),
]


def prepare(house: House, place: str, when: str, nth: int) -> dict[str, str]:
    path = house.folder / "house.py"
    if KILLER not in path.read_text():
        path.write_text(path.read_text() + KILLER)
    return {"HOUSE_KILL": f"{place} {when} {nth}", "HOUSE_FLAG": str(house.folder / "struck")}


def check(house: House) -> None:
    """Everything accepted has succeeded; nothing but what was cut off ran again."""
    accepted = {words[1] for words in house.notes("ok")}
    house.until(lambda: accepted <= house.states().keys() and house.waiting() == 0, 45, "all is settled")
    states = house.states()
    assert {states[task] for task in accepted} <= {"SUCCESS"}
    assert house.query("select count(*) from held") == [(0,)]
    assert house.query("select count(*) from buried") == [(0,)]
    assert house.integrity() == "ok"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("place", "nth"), WORKER_POINTS, ids=lambda value: str(value).rpartition(":")[2])
def test_a_worker_killed_at(house: House, place: str, nth: int, when: str) -> None:
    house.extra = prepare(house, place, when, nth)
    worker = house.worker("-c", "1", wait=0)
    house.extra = {}
    house.python(WORK)
    house.until(lambda: house.notes("struck"), 30, f"the worker came to {place}")
    in_parent = house.notes("struck")[0][1] == str(worker.pid)
    if in_parent:
        worker.process.wait(10)
        worker = house.worker("-c", "1")
    check(house)
    runs = Counter(words[1] for words in house.notes("end"))
    again = [task for task, count in runs.items() if count > 1]
    # a kill of the parent costs what had ended and was not written; of the child, only the one that ran
    assert len(again) <= (30 if in_parent else 1), runs
    assert max(runs.values()) <= 2
    assert worker.stop() == 0


#: each line is noted once it is accepted; the last is one batch
PUBLISH = """
for n in range(10):
    note("ok", mark.delay(n).id)
calls = add.delay_many([(n, 1) for n in range(200)])
for call in calls:
    note("ok", call.id)
for n in range(100):
    note("ok", mark.delay(n).id)
"""

PUBLISHER_POINTS = [
    ("celeriac.embedded.messages:send", 1),
    ("celeriac.embedded.messages:send", 7),
    ("celeriac.embedded.messages:send_within", 1),
    ("celeriac.embedded.rows:Insert.statements", 5),
    ("celeriac.embedded.doorbell:Doorbells.ring", 4),
    ("celeriac.embedded.reserve:Reserve.restore", 3),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("place", "nth"), PUBLISHER_POINTS, ids=lambda value: str(value).rpartition(":")[2])
def test_a_publisher_killed_at(house: House, place: str, nth: int, when: str) -> None:
    house.extra = prepare(house, place, when, nth)
    process = house.start("-c", "from house import *\n" + PUBLISH)
    assert process.wait(30) == -9, process.stdout and process.stdout.read()
    house.extra = {}
    worker = house.worker("-c", "1")
    check(house)
    total = len(house.states())
    assert total - len({words[1] for words in house.notes("ok")}) in (0, 1, 200)
    assert max(Counter(words[1] for words in house.notes("end")).values(), default=1) == 1
    assert worker.stop() == 0


LEAVING_POINTS = [
    ("celeriac.worker.shutdown:Shutdown._release", 1),
    ("celeriac.worker.settle:Settle.add_released", 1),
    ("celeriac.embedded.messages:give_back_within", 1),
    ("celeriac.embedded.messages:leave", 1),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("place", "nth"), LEAVING_POINTS, ids=lambda value: str(value).rpartition(":")[2])
def test_a_worker_killed_while_it_stops_at(house: House, place: str, nth: int, when: str) -> None:
    house.extra = prepare(house, place, when, nth)
    worker = house.worker("-c", "1", "--prefetch-multiplier", "4")  # there is something to give back
    house.extra = {}
    house.python("[note('ok', mark.delay(n, seconds=0.3).id) for n in range(12)]")
    house.until(lambda: house.notes("end"))
    assert worker.stop() == -9
    worker = house.worker("-c", "1")
    check(house)
    runs = Counter(words[1] for words in house.notes("end"))
    assert max(runs.values()) <= 2
    assert len([task for task, count in runs.items() if count > 1]) <= 1
    assert worker.stop() == 0


#: steps of the embedded engine at which no process is killed, and why
OTHERS = {
    "messages": {
        "acknowledge_within": "a part of records:settle, in its transaction",
        "bindings": "reads", "buried": "reads", "casts_since": "reads", "counts": "reads", "depth": "reads",
        "encode_meta": "no I/O", "holders": "reads", "holds_any": "reads", "last_cast": "reads",
        "milliseconds": "no I/O", "names": "reads", "outlook": "reads", "rank_of": "no I/O", "sort_verdicts": "no I/O",
        "take_lost": "a part of records:settle, in its transaction",
        "cast": "events and control: never promised to arrive",
        "delete": "a person asks for it", "discard": "a person asks for it", "purge": "a person asks for it",
        "replay": "a person asks for it; one transaction",
        "forsake": "test_a_worker_killed_while_it_takes_over_from_a_dead_one",
        "renew": "one statement; leases end by themselves",
    },
    "records": {
        "delete_group": "a person asks for it", "forget": "a person asks for it", "read": "reads",
        "restore_group": "reads", "save_group": "no message", "tidy": "no message",
        "write": "a store beside another broker: idempotent, then the message is settled",
    },
}  # fmt: skip


@pytest.mark.parametrize("module", ["messages", "records"])
def test_every_step_of_the_embedded_engine_is_a_point(module: str) -> None:
    source = importlib.import_module(f"celeriac.embedded.{module}")
    steps = {name for name, found in vars(source).items() if inspect.isfunction(found) and not name.startswith("_")}
    steps = {name for name in steps if getattr(source, name).__module__ == source.__name__}
    places = [place for place, *_ in (*WORKER_POINTS, *PUBLISHER_POINTS, *LEAVING_POINTS)]
    points = {place.partition(":")[2] for place in places if place.startswith(f"celeriac.embedded.{module}:")}
    assert points.isdisjoint(OTHERS[module])
    assert steps == points | set(OTHERS[module]), "a new step: kill the process there, or say why not"


def test_a_worker_killed_while_it_takes_over_from_a_dead_one(house: House) -> None:
    first = house.worker("-c", "1")
    house.python("[note('ok', mark.delay(n, seconds=0.5).id) for n in range(6)]")
    house.until(lambda: house.notes("start"))
    first.kill()
    house.extra = prepare(house, "celeriac.embedded.messages:forsake", "after", 1)
    second = house.worker("-c", "1", wait=0)
    house.extra = {}
    assert second.process.wait(20) == -9
    third = house.worker("-c", "1")
    check(house)
    assert third.stop() == 0
