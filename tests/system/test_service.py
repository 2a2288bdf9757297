"""A worker as a service: restarts with new code, going to the background, several of them, saving files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.conftest import House, Worker

pytestmark = pytest.mark.system

EDITION = """
@app.task
def edition():
    return "EDITION"
"""


def write_edition(house: House, name: str) -> None:
    """The app with a task that tells which edition of the code it is from."""
    path = house.folder / "house.py"
    text = path.read_text().partition("\n# edition\n")[0]
    new = path.with_suffix(".new")
    new.write_text(f"{text}\n# edition\n" + EDITION.replace("EDITION", name))
    new.replace(path)


def break_code(house: House) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write("\ndef broken(:\n")


def edition(house: House) -> str:
    return house.python("print(app.send_task('house.edition').get(timeout=60))").strip()


def is_ready_again(house: House, worker: Worker, times: int) -> None:
    house.until(lambda: worker.log.count("ready.") >= times, 30, "the worker is ready again")


def test_a_hang_up_loads_new_code_after_what_runs_has_ended(house: House) -> None:
    write_edition(house, "first")
    worker = house.worker("-c", "1")
    assert edition(house) == "first"
    house.python("mark.delay(1, seconds=1.0)")
    house.until(lambda: house.notes("start"))
    write_edition(house, "second")
    worker.process.send_signal(signal.SIGHUP)
    is_ready_again(house, worker, 2)
    assert edition(house) == "second"
    assert worker.process.poll() is None, "the same process"
    assert len(house.notes("start")) == len(house.notes("end")) == 1, "what ran has ended, and ran once"
    assert worker.stop() == 0


def test_code_that_does_not_load_is_no_reason_to_stop(house: House) -> None:
    write_edition(house, "first")
    worker = house.worker("-c", "1")
    break_code(house)
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("no restart (told to by SIGHUP)", 30)
    worker.wait_for("SyntaxError", 30)
    write_edition(house, "second")  # so that this test's own clients load
    assert edition(house) == "first"
    worker.process.send_signal(signal.SIGHUP)
    is_ready_again(house, worker, 2)
    assert edition(house) == "second"
    assert worker.stop() == 0


def test_a_restart_waits_beyond_the_grace_until_it_is_told_to_end(house: House) -> None:
    house.extra["CELERIAC_WORKER_SHUTDOWN_GRACE"] = "0.5"
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=120)")
    house.until(lambda: house.notes("start"))
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("restart, as soon as what runs has ended", 30)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("warm shutdown, 0.5 s")
    assert worker.process.wait(60) == 1
    assert house.waiting() == 1, "and the task is kept"


def test_what_has_not_started_goes_back_at_once(house: House) -> None:
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=120)")
    house.until(lambda: house.notes("start"))
    house.python("[add.delay(n, n) for n in range(10)]")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("warm shutdown")
    house.until(lambda: house.query("select count(*) from held") == [(1,)], 30, "only what runs is held")
    assert worker.process.poll() is None
    assert worker.stop(signal.SIGQUIT) == 1
    assert house.waiting() == 11


def test_a_soft_stop_ends_with_what_runs_or_at_the_second_word(house: House) -> None:
    house.settings["worker_soft_shutdown_timeout"] = 120.0
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=1)")
    house.until(lambda: house.notes("start"))
    assert worker.stop(signal.SIGQUIT, timeout=60) == 0
    assert len(house.notes("end")) == 1
    worker = house.worker("-c", "1")
    house.python("mark.delay(2, seconds=120)")
    house.until(lambda: len(house.notes("start")) == 2)
    worker.process.send_signal(signal.SIGQUIT)
    worker.wait_for("soft shutdown, 120 s")
    assert worker.stop(signal.SIGQUIT, timeout=60) == 1
    assert house.waiting() == 1


def test_term_can_mean_quit(house: House) -> None:
    house.extra["REMAP_SIGTERM"] = "SIGQUIT"
    worker = house.worker("-c", "1")
    house.python("mark.delay(1, seconds=120)")
    house.until(lambda: house.notes("start"))
    assert worker.stop(signal.SIGTERM) == 1
    assert house.waiting() == 1


def test_a_saved_file_restarts_a_worker_of_development(house: House) -> None:
    write_edition(house, "first")
    break_code(house)
    worker = house.worker("-c", "1", "--reload", wait=0)
    worker.wait_for("Waiting for a file to be saved", 30)
    write_edition(house, "first")
    is_ready_again(house, worker, 1)
    write_edition(house, "second")
    worker.wait_for("restart (house.py changed)", 30)
    is_ready_again(house, worker, 2)
    break_code(house)
    worker.wait_for("no restart (house.py changed), since the code does not load", 30)
    write_edition(house, "third!")
    is_ready_again(house, worker, 3)
    assert edition(house) == "third!"
    assert worker.stop() == 0


# ── in the background ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def is_gone(is_alive: Callable[[int], bool]) -> Iterator[Callable[[Path], bool]]:
    """Whether the process of a pid file has ended; what is left is killed at the end."""
    seen: set[int] = set()

    def gone(path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):  # it is removed at any moment
            seen.add(int(path.read_text()))
        return not any(map(is_alive, seen))

    yield gone
    for pid in filter(is_alive, seen):
        os.kill(pid, signal.SIGKILL)


def test_a_detached_worker_is_ready_when_the_command_returns(house: House, is_gone: Callable[[Path], bool]) -> None:
    files = ("--pidfile", "%n.pid", "--logfile", "%n%I.log")
    command = ("-A", "house", "worker", "-n", "w1", "-c", "1", "-l", "INFO", "--umask", "077", *files)
    first = house.celeriac(*command, "--detach")
    path = house.folder / "celery.pid"  # -n w1 is a host
    log = house.folder / "celery.log"
    assert first.returncode == 0, first.stderr
    try:
        assert not is_gone(path)
        assert "celery@w1 ready." in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600
        assert house.python("print(add.delay(1, 2).get(timeout=60))").strip() == "3"
        house.until(lambda: "succeeded" in log.read_text())
        for again in (house.celeriac(*command), house.celeriac(*command, "-D")):
            assert again.returncode == 73
            assert "is held by process" in again.stderr
    finally:
        os.kill(int(path.read_text()), signal.SIGTERM)
    house.until(lambda: is_gone(path), 30)
    assert not path.exists()


def test_what_keeps_a_detached_worker_from_starting_is_told_to_the_caller(house: House) -> None:
    for arguments, words in (
        (("--logfile", "nowhere/at/all.log"), "cannot be written"),
        (("-P", "nosuchpool"), "nosuchpool"),
        (("--pool", "solo", "--time-limit", "5"), ""),
    ):
        done = house.celeriac("-A", "house", "worker", "--detach", "--pidfile", "w.pid", *arguments)
        if words:
            assert done.returncode != 0
            assert words in done.stderr
        elif done.returncode == 0:
            os.kill(int((house.folder / "w.pid").read_text()), signal.SIGTERM)
            house.until(lambda: not (house.folder / "w.pid").exists())


def test_several_workers_are_started_restarted_and_stopped(house: House, is_gone: Callable[[Path], bool]) -> None:
    files = ("--pidfile=run/%n.pid", "--logfile=run/%n%I.log")
    nodes = ("-A", "house", "multi")
    paths = [house.folder / "run" / f"{name}.pid" for name in ("image", "video")]
    options = ("image", "video", "-c", "1", "-c:video", "2", "-l", "INFO", *files)
    started = house.celeriac(*nodes, "start", *options)
    assert started.returncode == 0, started.stdout + started.stderr
    pids = [int(path.read_text()) for path in paths]
    assert not any(map(is_gone, paths))
    again = house.celeriac(*nodes, "start", *options)
    assert again.returncode == 1
    assert f"runs already, process {pids[0]}" in again.stderr
    assert house.python("print(add.delay(1, 2).get(timeout=60))").strip() == "3"
    restarted = house.celeriac(*nodes, "restart", *options)
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    assert not set(pids) & {int(path.read_text()) for path in paths}
    assert not any(map(is_gone, paths))
    stopped = house.celeriac("multi", "stopwait", "image", "video", files[0])
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not any(path.exists() for path in paths)
    assert all(map(is_gone, paths))
    assert {path.name for path in (house.folder / "run").iterdir()} >= {"image.log", "video.log"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_another_user_for_good(tmp_path: Path) -> None:
    code = """
import os
from celeriac.cli.privileges import drop_privileges
drop_privileges("nobody", None)
drop_privileges("nobody", None)  # a restart comes by here again
print(os.getresuid(), os.getresgid(), 0 in os.getgroups())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    import pwd

    nobody = pwd.getpwnam("nobody")
    assert done.stdout == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} False\n"


def test_a_number_that_is_another_processs_by_now_holds_no_pid_file(house: House) -> None:
    path = house.folder / "w.pid"
    path.write_text(f"{os.getpid()}\n")
    long_ago = time.time() - 100 * 86400
    os.utime(path, (long_ago, long_ago))
    worker = house.worker("-c", "1", "--pidfile", "w.pid")
    assert int(path.read_text()) == worker.pid
    assert worker.stop() == 0
