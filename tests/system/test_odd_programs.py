"""Programs that do unusual things: fork, start threads and leave them, print a lot, send megabytes, call each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

TASKS = """
import multiprocessing, subprocess, threading

@app.task
def echo(value):
    return value

@app.task
def leaves_threads():
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    threading.Thread(target=time.sleep, args=(0.5,)).start()
    return threading.active_count()

@app.task
def prints(count):
    for n in range(count):
        print("x" * 100)
        print("y" * 100, file=sys.stderr)
    os.write(1, b"\\xff\\x00 not text\\n")
    return count

@app.task
def squares(count):
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        return pool.map(abs, range(count))

@app.task
def calls(n):
    result = add.delay(n, 1)
    return result.get(timeout=60, disable_sync_subtasks=False)

@app.task
def forks_and_calls():
    pid = os.fork()
    if pid == 0:
        add.delay(1, 1).get(timeout=60, disable_sync_subtasks=False)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@app.task
def closes_output():
    os.close(1)
    os.close(2)
    return "closed"
"""


def with_tasks(house: House) -> House:
    path = house.folder / "house.py"
    path.write_text(path.read_text() + TASKS)
    return house


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_tasks_that_do_odd_things(house: House, pool: str) -> None:
    worker = with_tasks(house).worker("-c", "2", "-P", pool, "--children", "2")
    text = house.python(
        """
print(leaves_threads.delay().get(timeout=60) > 5)
print(prints.delay(3000).get(timeout=60))
print(squares.delay(4).get(timeout=60))
print([call.get(timeout=60) for call in [calls.delay(n) for n in range(1)]])
print(forks_and_calls.delay().get(timeout=60))
print(closes_output.delay().get(timeout=60))
print([call.get(timeout=60) for call in [add.delay(n, 1) for n in range(20)]] == list(range(1, 21)))
""",
    )
    assert text.splitlines() == ["True", "3000", "[0, 1, 2, 3]", "[1]", "7", "closed", "True"]
    assert worker.stop() == 0


def test_ten_megabytes_go_there_and_back(house: House) -> None:
    worker = with_tasks(house).worker("-c", "2")
    text = house.python(
        """
import celeriac.errors
big = "x" * 10_000_000
calls = [echo.delay(big) for _ in range(4)] + [add.delay(1, n) for n in range(10)]
print([call.get(timeout=60) == big for call in calls[:4]], [call.get(timeout=60) for call in calls[4:]])
try:
    echo.delay("x" * 20_000_000)
except celeriac.errors.OperationalError as error:
    print(type(error).__name__)
""",
    )
    assert text.splitlines() == [f"{[True] * 4} {list(range(1, 11))}", "PublishRejected"]
    assert house.waiting() == 0
    assert worker.stop() == 0


def test_a_server_that_forks_after_it_has_sent(house: House) -> None:
    """As web servers do that load the app once: the parent has called, the children call and wait."""
    with_tasks(house).worker("-c", "2")
    text = house.python(
        """
import threading
print(add.delay(0, 0).get(timeout=60))
stop = threading.Event()
def busy():
    while not stop.is_set():
        add.delay(0, 0).get(timeout=60)
threads = [threading.Thread(target=busy) for _ in range(3)]
[thread.start() for thread in threads]
pids = []
for n in range(6):
    pid = os.fork()
    if pid == 0:
        try:
            ok = all(add.delay(n, k).get(timeout=60) == n + k for k in range(10))
            os._exit(0 if ok else 3)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(4)
    pids.append(pid)
    time.sleep(0.05)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
stop.set()
[thread.join() for thread in threads]
print(add.delay(1, 1).get(timeout=60))
""",
    )
    assert text.splitlines() == ["0", "[0, 0, 0, 0, 0, 0]", "2"]
    assert house.integrity() == "ok"


def test_nothing_grows_with_the_work(house: House) -> None:
    worker = house.worker("-c", "2", "-l", "WARNING", wait=0)

    def work() -> None:
        house.python("add.delay_many((n, 1) for n in range(15000)); [boom.delay() for n in range(100)]")
        house.until(lambda: house.waiting() == 0, 60)

    def size() -> list[tuple[int, int, int]]:
        found = []
        for pid in [worker.pid, *worker.children()]:
            status = Path(f"/proc/{pid}/status").read_text()
            kib = int(status.partition("VmRSS:")[2].split()[0])
            files, threads = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task"))
            found.append((kib, files, threads))
        return found

    work()
    before = size()
    for _ in range(3):
        work()
    after = size()
    for (kib, files, threads), (kib_after, files_after, threads_after) in zip(before, after, strict=True):
        assert kib_after < kib + 4096, (before, after)
        assert (files_after, threads_after) == (files, threads)
    assert worker.stop() == 0
    assert [path.name for path in house.folder.glob("*-bells/*")] == []
