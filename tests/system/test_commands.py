"""The commands around a worker, as processes: what they print, and how they fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system


def ran(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def one_line_of_complaint(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_call_and_result(house: House) -> None:
    house.worker("-c", "1")
    sent = ran(house.celeriac("-A", "house", "call", "house.add", "-a", "[20]", "-k", '{"y": 22}')).strip()
    assert ran(house.celeriac("-A", "house", "result", sent)) == "42\n"
    shown = json.loads(ran(house.celeriac("-A", "house", "result", sent, "--json")))
    assert (shown["state"], shown["result"]) == ("SUCCESS", 42)

    failed = ran(house.celeriac("-A", "house", "call", "house.boom", "-a", r'["a\u001b[2Jb"]')).strip()
    told = house.celeriac("-A", "house", "result", failed)
    assert one_line_of_complaint(told, 1) == "Error: FAILURE: ValueError: a\\x1b[2Jb\n"
    assert "ValueError" in ran(house.celeriac("-A", "house", "result", failed, "--traceback"), 1)


def test_what_was_set_aside_is_shown_replayed_and_discarded(house: House) -> None:
    house.worker("-c", "1")
    for name in ("house.nobody", "house.nobody", "house.stranger"):
        ran(house.celeriac("-A", "house", "call", name))
    house.until(lambda: len(house.query("select 1 from buried")) == 3, 20, "set aside")
    listed = json.loads(ran(house.celeriac("-A", "house", "dead", "list", "--json")))
    assert [(one["task"], one["kind"], one["queue"]) for one in listed] == [
        ("house.stranger", "quarantined", "celery"), *[("house.nobody", "quarantined", "celery")] * 2
    ]  # fmt: skip
    assert "no task named" in ran(house.celeriac("-A", "house", "dead", "list", "-t", "house.stranger"))
    assert ran(house.celeriac("-A", "house", "dead", "list", "--only", "dead")) == "Nothing was set aside.\n"
    shown = ran(house.celeriac("-A", "house", "dead", "show", listed[0]["task_id"]))
    assert "header task" in shown
    assert "body:" in shown
    assert "Name the entries" in one_line_of_complaint(house.celeriac("-A", "house", "dead", "replay"))
    assert "under 4711" in one_line_of_complaint(house.celeriac("-A", "house", "dead", "replay", "4711"))
    assert ran(house.celeriac("-A", "house", "dead", "discard", "--all", "-t", "house.nobody", "-f")) == (
        "2 messages thrown away\n"
    )
    assert ran(house.celeriac("-A", "house", "dead", "replay", listed[0]["entry"])) == "1 message put back\n"
    house.until(lambda: len(house.query("select 1 from buried")) == 1, 20, "set aside again")


def test_no_result_yet_is_an_exit_status_of_its_own(house: House) -> None:
    told = house.celeriac("-A", "house", "result", "nobody", "--timeout", "0.1")
    assert "no result of nobody" in one_line_of_complaint(told, 3)


def test_status_and_purge(house: House) -> None:
    for arguments in (["house.add"], ["house.add", "--queue", "other"], ["house.add", "--countdown", "600"]):
        ran(house.celeriac("-A", "house", "call", *arguments))
    # nobody works there: 69, as monitors expect it
    rows = json.loads(ran(house.celeriac("-A", "house", "status", "--json", "-t", "0.2"), 69))["queues"]
    assert [(row["queue"], row["waiting"], row["delayed"], row["held"]) for row in rows] == [
        ("celery", 1, 1, 0),
        ("other", 1, 0, 0),
    ]
    assert "celery        1        1" in ran(house.celeriac("-A", "house", "status", "-t", "0.2"), 69)
    assert ran(house.celeriac("-A", "house", "purge", "-f")) == "celery: 2 messages removed\n"
    assert json.loads(ran(house.celeriac("-A", "house", "purge", "-f", "-Q", "other", "--json"))) == {"other": 1}
    assert house.waiting() == 0


def test_purge_asks_first(house: House) -> None:
    ran(house.celeriac("-A", "house", "call", "house.add"))
    house.celeriac("-A", "house", "purge")  # no answer on stdin
    assert house.waiting() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-A", "nowhere", "worker"], "there is no module 'nowhere'"),
        (["-A", "house:nobody", "worker"], "nobody"),
        (["-A", "house", "-b", "nonsense://x", "worker"], "nonsense"),
        (["-A", "house", "-b", "no url", "worker"], "no url"),
        (["--config", "no_such_settings", "-A", "house", "status"], "no_such_settings"),
        (["-A", "house", "worker", "-P", "treads"], "Did you mean 'threads'?"),
        (["-A", "house", "worker", "--", "task_acks_lat=1"], "Did you mean 'task_acks_late'?"),
        (["-A", "house", "worker", "--", "worker.concurrency=many"], "worker_concurrency"),
        (["-A", "house", "worker", "-I", "not_there"], "not_there"),
        (["-A", "house", "worker", "-X", "celery"], "No queue is left"),
        (["-A", "house", "result", "x", "-t", "no.task"], "no.task"),
    ],
)
def test_what_cannot_work_is_one_line(house: House, arguments: list[str], words: str) -> None:
    assert words in one_line_of_complaint(house.celeriac(*arguments, timeout=30))


def test_a_broken_app_names_the_place(house: House) -> None:
    (house.folder / "broken.py").write_text("import house\n\nraise RuntimeError('not today')\n")
    complaint = one_line_of_complaint(house.celeriac("-A", "broken", "worker"))
    assert "RuntimeError: not today" in complaint
    assert "broken.py, line 3" in complaint


def test_settings_and_modules_of_the_command_line_reach_the_children(house: House) -> None:
    (house.folder / "more.py").write_text("from house import app\n\n@app.task\ndef hello():\n    return 'hello'\n")
    house.worker("-c", "1", "-I", "more", "--", "result.extended=true")
    text = house.python("result = app.send_task('more.hello')\nprint(result.get(timeout=60), result.name)")
    assert text.split() == ["hello", "more.hello"]


def test_a_spawned_pool_gets_them_too(house: House) -> None:
    house.worker("-c", "1", "--pool-start-method", "spawn", "--", "result.extended=true")
    text = house.python("result = add.delay(1, 1)\nprint(result.get(timeout=60), result.name)")
    assert text.split() == ["2", "house.add"]


def test_check_finds_what_is_wrong_and_what_differs(house: House) -> None:
    shown = ran(house.celeriac("-A", "house", "check"))
    assert "task_acks_late" in shown
    (house.folder / "wrong.py").write_text(
        "from celeriac import Celeriac\napp = Celeriac('wrong')\napp.conf.worker_concurrency = 'lots'\n"
    )
    found = json.loads(ran(house.celeriac("-A", "wrong", "check", "--json"), 1))["findings"]
    assert ("error", "worker_concurrency") in {(one["level"], one["setting"]) for one in found}


def test_report_leaves_secrets_out(house: House) -> None:
    (house.folder / "secret.py").write_text(
        "from celeriac import Celeriac\napp = Celeriac('s', broker='amqp://user:hunter2@host//')\n"
        "app.conf.redis_password = 'hunter3'\n"
    )
    shown = ran(house.celeriac("-A", "secret", "report"))
    assert "celeriac:" in shown
    assert "amqp://user" in shown
    assert "hunter" not in shown
    assert "hunter" not in ran(house.celeriac("-A", "secret", "report", "--json"))


def test_a_second_worker_with_the_pid_file_is_refused(house: House) -> None:
    path = house.folder / "worker.pid"
    worker = house.worker("-c", "1", "--pidfile", str(path))
    assert path.read_text().strip() == str(worker.pid)
    told = house.celeriac("-A", "house", "worker", "--pidfile", str(path))
    assert f"is held by process {worker.pid}" in one_line_of_complaint(told, 73)
    assert worker.stop() == 0
    assert not path.exists()


def test_a_log_file_is_named_after_the_node(house: House) -> None:
    worker = house.worker("-c", "1", "-n", "w1@box", "-f", str(house.folder / "%n-%h.log"), wait=0)
    log = house.folder / "w1-box.log"
    house.until(lambda: log.exists() and "w1@box ready" in log.read_text(), 20, "log file")
    assert worker.stop(signal.SIGTERM) == 0


def test_options_come_from_the_environment_too(house: House) -> None:
    env = {**house.env, "CELERY_APP": "house", "CELERY_WORKER_POOL": "treads", "CELERIAC_WORKER_HOSTNAME": "x@y"}
    told = subprocess.run(
        [sys.executable, "-m", "celeriac", "worker"],
        cwd=house.folder, env=env, text=True, capture_output=True, timeout=30,
    )  # fmt: skip
    assert "treads" in one_line_of_complaint(told)
