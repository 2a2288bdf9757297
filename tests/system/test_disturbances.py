"""A worker disturbed from outside: stopped and continued, signalled, its file locked or taken away."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import House

pytestmark = pytest.mark.system


def test_a_worker_that_was_stopped_longer_than_its_lease_is_fenced_off(house: House) -> None:
    house.settings["broker_lease"] = 2
    sleeper = house.worker("-c", "1")
    task = house.python("print(gated.delay().id)").strip()
    house.until(lambda: house.notes("start"))
    family = [sleeper.pid, *sleeper.children()]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    other = house.worker("-c", "1")
    house.until(lambda: len(house.notes("start")) == 2, 15, "the other worker has taken over")
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    house.gate.touch()
    house.until(lambda: len(house.notes("end")) == 2, 15, "both have ended")
    house.until(lambda: house.waiting() == 0, 15)
    assert house.states() == {task: "SUCCESS"}
    values = house.python("print([add.delay(n, 1).get(timeout=60) for n in range(20)])")
    assert values.strip() == str(list(range(1, 21)))
    assert sleeper.stop() == 0
    assert other.stop() == 0
    assert len(house.notes("start")) == 2


def test_a_locked_file_does_not_make_a_running_task_run_twice(house: House) -> None:
    """The session breaks, but the messages of what runs stay with this worker."""
    house.settings["broker_lease"] = 24
    first, second = house.worker("-c", "1"), house.worker("-c", "1")
    house.python("gated.delay()")
    house.until(lambda: house.notes("start"))
    with closing(sqlite3.connect(house.file, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        # the first renewal is tried after a third of the lease, and gives up after 5 seconds
        house.until(lambda: all("broker lost" in worker.log for worker in (first, second)), 30)
        connection.execute("ROLLBACK")
    house.until(lambda: all("broker is back" in worker.log for worker in (first, second)), 30)
    house.gate.touch()
    house.until(lambda: house.notes("end"), 30)
    house.until(lambda: house.waiting() == 0)
    assert len(house.notes("start")) == 1, first.log + second.log
    assert (first.stop(), second.stop()) == (0, 0)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_sigterm_for_the_whole_group_stops_warm(house: House, pool: str) -> None:
    """As service managers send it: to every process of the service."""
    worker = house.worker("-c", "1", "-P", pool)
    house.python("mark.delay(1, seconds=2.0); mark.delay(2, seconds=2.0)")
    house.until(lambda: house.notes("start"))
    for pid in [worker.pid, *worker.children()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert worker.process.wait(60) == 0, worker.log
    assert len(house.notes("start")) == len(house.notes("end")) >= 1
    assert Counter(house.states().values()) == {"SUCCESS": len(house.notes("end"))}
    assert house.waiting() == 2 - len(house.notes("end"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_users_code_loads_ends_the_worker(house: House, signum: int) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write("\nnote('loading')\ntime.sleep(120)\n")
    worker = house.worker("-c", "1", wait=0)
    house.until(lambda: house.notes("loading"), 20)
    worker.process.send_signal(signum)
    worker.process.wait(60)
    assert "Traceback" not in worker.log


def test_two_interrupts_end_a_hanging_task(house: House, is_alive: Callable[[int], bool]) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write(
            "\nimport ctypes\n@app.task\ndef hang():\n    note('start', 'hang')\n"
            "    ctypes.PyDLL(None).sleep(1000)\n"  # holds the interpreter lock
        )
    worker = house.worker("-c", "1")
    house.python("hang.delay()")
    house.until(lambda: house.notes("start"))
    family = worker.children()
    worker.process.send_signal(signal.SIGINT)
    worker.wait_for("warm")
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(60) == 1
    house.until(lambda: not any(map(is_alive, family)), 20)
    assert house.waiting() == 1
    assert house.query("select attempts from ready") == [(0,)]


def test_a_deleted_file_is_made_anew(house: House) -> None:
    worker = house.worker("-c", "1")
    house.python("add.delay(1, 1).get(timeout=60)")
    for name in ("house.sqlite3",):
        (house.folder / name).unlink()
    answers = house.python("print([add.delay(n, 1).get(timeout=60) for n in range(5)])", timeout=90)
    assert answers.strip() == "[1, 2, 3, 4, 5]"
    assert house.integrity() == "ok"
    assert worker.process.poll() is None
    assert worker.stop() == 0


def test_a_deleted_folder_is_made_anew(house: House) -> None:
    import shutil

    data = house.folder / "data"
    house.file = data / "house.sqlite3"
    worker = house.worker("-c", "1")
    house.python("add.delay(1, 1).get(timeout=60)")
    shutil.rmtree(data)
    answers = house.python("print([add.delay(n, 1).get(timeout=60) for n in range(5)])", timeout=90)
    assert answers.strip() == "[1, 2, 3, 4, 5]"
    assert house.integrity() == "ok"
    assert worker.stop() == 0


def test_a_file_overwritten_with_garbage_ends_the_worker_with_a_clear_line(house: House) -> None:
    worker = house.worker("-c", "1")
    house.python("add.delay(1, 1).get(timeout=60)")
    with house.file.open("r+b") as file:
        file.write(os.urandom(house.file.stat().st_size))
    for name in ("house.sqlite3-wal",):
        with (house.folder / name).open("r+b") as file:
            file.write(os.urandom(4096))
    text = house.python(
        "try:\n    add.delay(1, 1).get(timeout=5)\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    assert text.startswith("ImproperlyConfigured"), text
    assert "damaged" in text
    assert worker.process.wait(60) == 2, worker.log
    assert "damaged" in worker.log
    assert "Traceback" not in worker.log, worker.log


def test_what_tasks_start_can_be_terminated(house: House) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write(
            "\nimport multiprocessing, subprocess\n"
            "@app.task\ndef start_and_end():\n"
            "    context = multiprocessing.get_context('fork')\n"
            "    with context.Pool(2) as pool:\n"
            "        squares = pool.map(abs, range(5))\n"
            "    process = context.Process(target=time.sleep, args=(60,))\n"
            "    process.start()\n    process.terminate()\n    process.join(10)\n"
            "    program = subprocess.Popen(['sleep', '60'])\n    program.terminate()\n"
            "    return squares, process.exitcode, program.wait(10)\n"
        )
    house.worker("-c", "1")
    assert house.python("print(start_and_end.delay().get(timeout=60))").strip() == "[[0, 1, 2, 3, 4], -15, -15]"
