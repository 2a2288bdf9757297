"""The process is killed at every step of a message's way: nothing is lost, SUCCESS stays, counts are right.

The steps are functions of the embedded broker, the pool and the child; the app's own file wraps the chosen one, so the
product has no trace of it.
"""

from __future__ import annotations

import importlib
import inspect
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House, Worker

pytestmark = pytest.mark.system

KILLER = '''
def kill_at(place, nth, when):
    """Kill this process right before or after the nth call of ``module:Class.function`` from when it was armed."""
    import importlib
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *owners, name = path.split(".")
    for step in owners:
        owner = getattr(owner, step)
    real = getattr(owner, name)
    flag = os.environ["HOUSE_FLAG"]
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        mine = is_armed(f"{place} {nth} {when}")
        count = count + 1 if mine else 0
        strikes = mine and count == nth
        if strikes and when == "before":
            strike()
        value = real(*args, **kwargs)
        if strikes:
            strike()
        return value

    def is_armed(point):
        try:
            with open(flag) as file:
                return file.read() == point
        except FileNotFoundError:
            return False

    def strike():
        os.unlink(flag)
        note("struck", os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, wrapped)

for point in filter(None, os.environ.get("HOUSE_KILL", "").split(";")):
    place, nth, when = point.split()
    kill_at(place, int(nth), when)
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


Point = tuple[str, int, str]
#: what happens only as a worker starts
AT_THE_START = ("messages:declare", "messages:arrive", "messages:sweep")


class Range:
    """A house whose processes are killed at the points of a list, one after the other."""

    def __init__(self, house: House, points: list[Point]) -> None:
        self.house = house
        self.flag = house.folder / "armed"
        (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + KILLER)
        self.extra = {"HOUSE_KILL": ";".join(f"{place} {nth} {when}" for place, nth, when in points),
                      "HOUSE_FLAG": str(self.flag)}  # fmt: skip
        self.struck = 0

    def arm(self, point: Point) -> None:
        """Replaced as a whole: nobody reads half a point."""
        place, nth, when = point
        new = self.flag.with_suffix(".new")
        new.write_text(f"{place} {nth} {when}")
        new.replace(self.flag)

    def worker(self, wait: float = 20.0) -> Worker:
        self.house.extra = self.extra
        worker = self.house.worker("-c", "1", wait=wait)
        self.house.extra = {}  # clients send undisturbed
        return worker

    def await_strike(self, point: Point) -> int:
        """The pid of what was killed."""
        self.struck += 1
        self.house.until(lambda: len(self.house.notes("struck")) == self.struck, 30, f"something came to {point}")
        return int(self.house.notes("struck")[-1][1])


def check(house: House, what: object = "") -> None:
    """Everything accepted has succeeded; nothing but what was cut off ran again."""
    accepted = {words[1] for words in house.notes("ok")}
    house.until(lambda: accepted <= house.states().keys() and house.waiting() == 0, 45, f"all is settled {what}")
    states = house.states()
    assert {states[task] for task in accepted} <= {"SUCCESS"}, what
    assert house.query("select count(*) from held") == [(0,)]
    assert house.query("select count(*) from buried") == [(0,)]
    assert house.integrity() == "ok"


def places(points: list[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """By function."""
    found: dict[str, list[tuple[str, int]]] = {}
    for place, nth in points:
        found.setdefault(place.rpartition(":")[2], []).append((place, nth))
    return found


@pytest.mark.parametrize("name", places(WORKER_POINTS))
def test_a_worker_killed_at(house: House, name: str) -> None:
    points = [(place, nth, when) for place, nth in places(WORKER_POINTS)[name] for when in ("before", "after")]
    shots = Range(house, points)
    worker: Worker | None = None
    before: Counter[str] = Counter()
    for point in points:
        shots.arm(point)
        if worker is not None and point[0].endswith(AT_THE_START):
            assert worker.stop() == 0
            worker = None
        if worker is None:
            worker = shots.worker(wait=0)
        house.python(WORK)
        in_parent = shots.await_strike(point) == worker.pid
        if in_parent:
            worker.process.wait(60)
            worker = shots.worker()
        check(house, point)
        runs = Counter(words[1] for words in house.notes("end")) - before
        before += runs
        again = [task for task, count in runs.items() if count > 1]
        # a kill of the parent costs what had ended and was not written; of the child, only the one that ran
        assert len(again) <= (30 if in_parent else 1), (point, runs)
        assert max(runs.values()) <= 2, (point, runs)
    assert worker is not None
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


@pytest.mark.parametrize(("place", "nth"), PUBLISHER_POINTS, ids=lambda value: str(value).rpartition(":")[2])
def test_a_publisher_killed_at(house: House, place: str, nth: int) -> None:
    points = [(place, nth, "before"), (place, nth, "after")]
    shots = Range(house, points)
    worker = house.worker("-c", "1")
    settled = 0
    noted: set[str] = set()
    for point in points:
        shots.arm(point)
        house.extra = shots.extra
        process = house.start("-c", "from house import *\n" + PUBLISH)
        assert process.wait(60) == -9, process.stdout and process.stdout.read()
        house.extra = {}
        check(house, point)
        fresh = {words[1] for words in house.notes("ok")} - noted
        noted |= fresh
        assert len(house.states()) - settled - len(fresh) in (0, 1, 200), point
        settled = len(house.states())
        assert max(Counter(words[1] for words in house.notes("end")).values(), default=1) == 1, point
    assert worker.stop() == 0


LEAVING_POINTS = [
    ("celeriac.worker.shutdown:Shutdown._release", 1),
    ("celeriac.worker.settle:Settle.add_released", 1),
    ("celeriac.embedded.messages:give_back_within", 1),
    ("celeriac.embedded.messages:leave", 1),
]


@pytest.mark.parametrize(("place", "nth"), LEAVING_POINTS, ids=lambda value: str(value).rpartition(":")[2])
def test_a_worker_killed_while_it_stops_at(house: House, place: str, nth: int) -> None:
    points = [(place, nth, "before"), (place, nth, "after")]
    shots = Range(house, points)
    house.settings["worker_prefetch_multiplier"] = 4
    worker = shots.worker()
    before: Counter[str] = Counter()
    for point in points:
        house.gate.unlink(missing_ok=True)
        started = len(house.notes("start"))
        house.python("[note('ok', gated.delay(n).id) for n in range(12)]")
        house.until(lambda started=started: len(house.notes("start")) > started)
        house.until(lambda: house.query("select count(*) from held") >= [(2,)], what="another one waits in the worker")
        shots.arm(point)
        worker.process.send_signal(signal.SIGTERM)
        # one runs, the others are to be given back before it ends and they could run, too
        gone = worker.process.poll
        house.until(lambda gone=gone: gone() is not None or house.query("select count(*) from held") <= [(1,)])
        house.gate.touch()
        assert worker.process.wait(60) == -9, point
        worker = shots.worker()
        check(house, point)
        runs = Counter(words[1] for words in house.notes("end")) - before
        before += runs
        assert max(runs.values()) <= 2, point
        assert len([task for task, count in runs.items() if count > 1]) <= 1, point
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
    point = ("celeriac.embedded.messages:forsake", 1, "after")
    shots = Range(house, [point])
    first = house.worker("-c", "1")
    house.python("[note('ok', mark.delay(n, seconds=0.5).id) for n in range(6)]")
    house.until(lambda: house.notes("start"))
    first.kill()
    shots.arm(point)
    second = shots.worker(wait=0)
    assert second.process.wait(60) == -9
    third = house.worker("-c", "1")
    check(house)
    assert third.stop() == 0
