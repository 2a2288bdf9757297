"""Limits over several worker processes: what the journal of the tasks says, on every broker."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celeriac import Celeriac, Limit
from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

_numbers = count(1)

TASKS = """
from celeriac import Limit

def moment():
    return repr(time.monotonic())

@app.task(bind=True, limits=[Limit(concurrency=2, key="args.tenant")])
def work(self, tenant, seconds=0.1):
    note("start", self.request.id, tenant, moment())
    time.sleep(seconds)
    note("end", self.request.id, tenant, moment())

@app.task(bind=True, limits=[Limit(rate="20/s", burst=2)])
def paced(self, number):
    note("start", self.request.id, "paced", moment())

@app.task(bind=True, limits=[Limit(concurrency=1)])
def stuck_once(self, flag):
    first = not os.path.exists(flag)
    open(flag, "a").close()
    note("start", self.request.id, "once", moment())
    if first:
        time.sleep(60)
    note("end", self.request.id, "once", moment())
"""


@pytest.fixture(params=["sqlite", "redis", "rabbitmq"])
def limited(request: pytest.FixtureRequest, house: House) -> House:
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + TASKS)
    if request.param == "redis":
        prefix = f"global_keyprefix={{limits{next(_numbers)}-{os.getpid()}}}:"
        house.extra["HOUSE_BROKER"] = f"{request.getfixturevalue('redis_server').url()}?{prefix}"
    elif request.param == "rabbitmq":
        vhost = f"limits{next(_numbers)}"
        house.extra["HOUSE_BROKER"] = request.getfixturevalue("rabbit_server").add_vhost(vhost)
        house.extra["HOUSE_RESULTS"] = f"sqlite:///{house.file}"  # which also counts
    return house


def runs(house: House) -> dict[str, list[tuple[float, int]]]:
    """kind or tenant → (when, +1 for a start, -1 for an end), in order of time."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for kind, step in (("start", 1), ("end", -1)):
        for _, _, which, moment in house.notes(kind):
            found[which].append((float(moment), step))
    return {which: sorted(steps) for which, steps in found.items()}


def most_at_once(steps: list[tuple[float, int]]) -> int:
    return max(itertools.accumulate(step for _, step in steps))


def test_two_workers_keep_one_limit(limited: House) -> None:
    house = limited
    for name in ("w1", "w2"):
        house.worker("-c", "4", "-n", f"{name}@house", wait=0)
    began = time.monotonic()
    house.python("""
for number in range(20):
    work.delay("acme")
    work.delay(tenant="bolt", seconds=0.05)
    paced.delay(number)
""")
    house.until(lambda: len(house.notes("start")) == 60 and len(house.notes("end")) == 40, 60.0, "all have run")
    found = runs(house)
    assert most_at_once(found["acme"]) <= 2
    assert most_at_once(found["bolt"]) <= 2
    # two at once and then 20 a second; how long it takes from the store's word to the start varies
    for number, (moment, _) in enumerate(found["paced"]):
        assert moment >= began + (number - 1) / 20


@pytest.mark.parametrize("limited", ["sqlite"], indirect=True)
def test_what_waits_is_shown(limited: House) -> None:
    house = limited
    worker = house.worker("-c", "4", "-n", "w1@house")
    house.python("""
for number in range(3):
    work.delay("acme", 600.0)
""")
    worker.wait_for("limit task/house.work|0|acme|c is reached")

    def ask(what: str) -> Any:
        said = house.celeriac("-A", "house", "inspect", what, "-d", "w1@house", "-t", "60", "-j")
        return json.loads(said.stdout)["w1@house"]

    (key,) = ask("limits")
    assert (key["key"], key["waiting"], key["held"]) == ("task/house.work|0|acme|c", 1, 2)
    (waiting,) = ask("scheduled")
    assert waiting["limit"] == "task/house.work|0|acme|c"
    assert waiting["request"]["name"] == "house.work"

    # changed while it runs, for workers that start later, too, and given back to the code
    def control(*words: str) -> str:
        said = house.celeriac("-A", "house", "control", "-t", "60", "-d", "w1@house", *words)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def declared(node: str = "w1@house") -> dict[str, Any]:
        found = app.control.inspect(node, timeout=60.0, limit=1).declared_limits()
        return {one["limit"]: one for one in found}["task/house.work#0"]

    app = Celeriac("house", broker=f"sqlite:///{house.file}", set_as_current=False)
    assert "limit task/house.work#0: concurrency 3, for all workers" in control("limit", "house.work", "concurrency=3")
    house.until(lambda: len(house.notes("start")) == 3, what="the third has started")
    in_code = {"rate": None, "concurrency": 2, "burst": None}
    house.until(lambda: declared()["concurrency"] == 3)
    assert declared() == {"limit": "task/house.work#0", **in_code, "concurrency": 3, "key": "args.tenant",
                          "in_code": in_code}  # fmt: skip
    house.worker("-c", "1", "-n", "w2@house").wait_for("limit task/house.work#0 is concurrency 3, as changed")
    assert "there is no limit 'nobody'" in control("limit", "nobody", "rate=1/s")
    assert "concurrency 2" in control("reset_limit", "task/house.work")
    house.until(lambda: declared()["in_code"] is None)
    house.until(lambda: declared("w2@house")["concurrency"] == 2)
    app.close()


@pytest.mark.parametrize("limited", ["sqlite", "redis"], indirect=True)
def test_permits_of_a_killed_worker_come_back(limited: House) -> None:
    house = limited
    house.settings["broker_lease"] = 3
    first = house.worker("-c", "1", "-n", "w1@house")
    house.python(f"stuck_once.delay({str(house.folder / 'flag')!r})")
    house.until(lambda: house.notes("start"), 30.0, "the first has started")
    os.killpg(first.pid, signal.SIGKILL)
    house.worker("-c", "2", "-n", "w2@house")
    house.python(f"stuck_once.delay({str(house.folder / 'flag')!r})")
    # the one that was cut off, and the other
    house.until(lambda: len(house.notes("end")) == 2, 60.0, "both have run")
    steps = [(float(moment), 1) for _, _, _, moment in house.notes("start")[1:]]
    steps += [(float(moment), -1) for _, _, _, moment in house.notes("end")]
    assert most_at_once(sorted(steps)) == 1


@pytest.mark.parametrize("limited", ["sqlite"], indirect=True)
def test_a_warm_stop_hands_back_and_another_worker_goes_on(limited: House) -> None:
    house = limited
    first = house.worker("-c", "2", "-n", "w1@house")
    house.python("for number in range(8): work.delay('acme', 0.3)")
    house.until(lambda: len(house.notes("start")) >= 2, 30.0, "two have started")
    assert first.stop() == 0
    assert len(house.notes("start")) == len(house.notes("end"))
    house.worker("-c", "2", "-n", "w2@house")
    house.until(lambda: len(house.notes("end")) == 8, 30.0, "all have run")
    assert most_at_once(runs(house)["acme"]) <= 2


def test_where_nothing_can_count_the_worker_does_not_start(house: House) -> None:
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + TASKS)
    house.extra["HOUSE_BROKER"] = "amqp://nobody@127.0.0.1:1//"
    house.extra["HOUSE_RESULTS"] = "rpc://"
    said = house.celeriac("-A", "house", "worker")
    assert said.returncode != 0
    assert "task house." in said.stderr
    assert "neither of broker_url (amqp) and result_backend (rpc) can count for all workers" in said.stderr
    assert "set task_limit_store" in said.stderr
    assert "Traceback" not in said.stderr
    checked = house.celeriac("-A", "house", "check", "--json")
    assert checked.returncode == 1, checked.stdout + checked.stderr
    found = {(one["level"], one["setting"]): one["text"] for one in json.loads(checked.stdout)["findings"]}
    assert "There are limits (house.paced, house.stuck_once, house.work)" in found["error", "task_limit_store"]
    assert "Nothing keeps what is revoked" in found["note", "result_backend"]


def test_which_store_counts() -> None:
    def kind(broker: str, **settings: Any) -> str:
        app = Celeriac("where", broker=broker, set_as_current=False, changes=settings)
        return type(app.open_limiter()).__name__

    assert kind("memory://") == "MemoryLimiter"
    assert kind("sqlite:////tmp/x.sqlite3", result_backend="redis://localhost") == "SqliteLimiter"
    assert kind("redis://localhost") == "RedisLimiter"
    assert kind("amqp://localhost", result_backend="redis://localhost") == "RedisLimiter"
    assert kind("redis://localhost", task_limit_store="sqlite:////tmp/x.sqlite3") == "SqliteLimiter"
    with pytest.raises(ImproperlyConfigured, match="Limiter 'amqp' does not exist"):
        kind("redis://localhost", task_limit_store="amqp://localhost")
    with pytest.raises(ImproperlyConfigured, match="result_backend"):
        kind("amqp://localhost")
    assert Limit(rate=1)
