"""Probes of real workers: what the wedged and the busy answer, in every pool, and who can still start."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House, Worker

pytestmark = pytest.mark.system

STUCK = """
from celeriac import signals

@signals.task_received.connect
def hang(request, **_):
    if request.name == "house.boom":  # receivers run on the worker's loop
        time.sleep(120)
"""
BUSY = """
@app.task(bind=True)
def spin(self):
    note("start", self.request.id, os.getpid(), time.time())
    while not os.path.exists("gate"):
        pass
"""


class Probed:
    """A worker with probes."""

    def __init__(self, house: House, *options: str, **settings: Any) -> None:
        self.house = house
        house.settings.update(settings)
        self.worker: Worker = house.worker("--probes", "127.0.0.1:0", *options)
        self.url = self.worker.wait_for("probes: http").split("probes: ")[1].split("/live")[0]
        self.until("/ready", 200)

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def until(self, path: str, status: int, text: str = "") -> None:
        def holds() -> bool:
            found = self.ask(path)
            return found[0] == status and text in found[1]

        self.house.until(holds, 60.0, f"{path}: {status} {text}")

    def number(self, metric: str) -> float:
        """A number of /metrics; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(metric)} (.+)$", self.ask("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "gevent", "eventlet", "solo"])
def test_every_pool_answers(house: House, pool: str):
    probed = Probed(house, "-P", pool, "-c", "2")
    assert probed.ask("/live") == (200, "live\n")
    house.python("for n in range(20): add.delay(n, n)\nboom.delay()")
    house.until(lambda: probed.number('celeriac_task_succeeded_total{task="house.add"}') == 20)
    house.until(lambda: probed.number('celeriac_task_failed_total{task="house.boom"}') == 1)
    assert probed.number('celeriac_task_runtime_seconds_count{task="house.add"}') == 20
    assert probed.number("celeriac_worker_slots") >= 1
    assert probed.number("celeriac_worker_processes") >= 1
    assert probed.worker.stop() == 0


def test_a_busy_worker_is_live_and_a_hanging_pool_is_not(house: House):
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + BUSY)
    probed = Probed(house, "-c", "2", worker_probe_patience=4.0)
    house.python("for n in range(2): spin.delay()\nfor n in range(50): mark.delay(n)")
    house.until(lambda: len(house.notes("start")) == 2)
    answers, began = set(), time.monotonic()
    while time.monotonic() - began < 6 or len(answers) < 2:  # longer than the patience, and the others wait
        answers |= {probed.ask("/live"), probed.ask("/ready")}
    assert len(house.notes("start")) == 2
    assert {(200, "live\n"), (200, "ready\n")} <= answers
    # on a machine that stalls, the worker's own loop may have stood still for that long
    assert not [text for _, text in answers if "pool" in text]
    house.gate.touch()
    house.until(lambda: len(house.notes("end")) == 50)
    pool = [pid for pid in probed.worker.children() if _is_child_of_the_pool(pid)]
    assert len(pool) == 2
    for pid in pool:
        os.kill(pid, signal.SIGSTOP)
    house.python("mark.delay(1)")
    probed.until("/live", 503, "the pool does not answer: 1 processes have begun none of their work for")
    probed.until("/ready", 503, "the pool does not answer")
    for pid in pool:
        os.kill(pid, signal.SIGCONT)
    probed.until("/live", 200)
    os.kill(pool[0], signal.SIGKILL)
    house.until(lambda: probed.number("celeriac_worker_processes_crashed_total") == 1)
    house.until(lambda: probed.number("celeriac_worker_processes_started_total") == 1)


def _is_child_of_the_pool(pid: int) -> bool:
    """Not the process that starts them: it has children itself."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return not file.read()


def test_a_worker_whose_loop_stands_still_says_so(house: House):
    (house.folder / "house.py").write_text((house.folder / "house.py").read_text() + STUCK)
    probed = Probed(house, "-c", "1", worker_probe_patience=1.0)
    probed.until("/live", 200)
    house.python("boom.delay()")
    probed.until("/live", 503, "not live: the event loop has stood still for")
    probed.until("/ready", 503, "the event loop has stood still")
    assert probed.number("celeriac_worker_live") == 0
    house.until(lambda: probed.number("celeriac_worker_loop_lag_seconds") > 1)


def test_a_port_in_use_is_a_clear_error(house: House):
    probed = Probed(house, "-c", "1")
    address = probed.url.removeprefix("http://")
    done = house.celeriac("-A", "house", "worker", "-c", "1", "--probes", address)
    assert done.returncode == 2
    assert f"probes cannot be answered at {address}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    # the setting does the same; and once the first has gone, even killed, the address is free
    probed.worker.kill()
    house.extra["CELERIAC_WORKER_PROBES"] = address
    again = house.worker("-c", "1")
    again.wait_for(f"probes: http://{address}/live")
