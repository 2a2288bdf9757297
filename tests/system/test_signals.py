"""Signals reach their receivers in the process where Celery has them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import House

pytestmark = pytest.mark.system

RECEIVERS = """
from celeriac import signals

FACTS = {
    "task_prerun": ("task_id", "args"), "task_postrun": ("state", "retval"), "task_success": ("result",),
    "task_failure": ("exception",), "task_retry": ("reason",), "task_received": ("request",),
    "task_unknown": ("name",), "task_revoked": ("request", "expired"), "worker_shutting_down": ("how", "exitcode"),
}

def noted(name):
    def receive(signal, sender, **facts):
        facts = {key: value for key, value in facts.items() if key in FACTS.get(name, ())}
        words = [f"{key}={getattr(value, 'name', value)!r}" for key, value in sorted(facts.items())]
        note("signal", name, os.getpid(), *words)
    return receive

for name in (
    "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_received", "task_unknown",
    "task_revoked", "worker_init", "celeryd_init", "celeryd_after_setup", "worker_ready", "worker_shutting_down",
    "worker_shutdown", "heartbeat_sent", "worker_process_init", "worker_process_shutdown", "after_setup_logger",
):
    getattr(signals, name).connect(noted(name), weak=False)
"""


def test_signals_reach_the_processes_they_belong_to(house: House) -> None:
    module = house.folder / "house.py"
    module.write_text(module.read_text() + RECEIVERS)
    worker = house.worker("-c", "1")
    for arguments in (
        ["house.add", "-a", "[2, 3]", "--task-id", "good"], ["house.boom"],
        ["house.flaky", "-a", "[1]", "--task-id", "again"], ["house.nobody"],
        ["house.add", "-a", "[1, 1]", "--expires", "0.001", "--task-id", "late"],
    ):  # fmt: skip
        done = house.celeriac("-A", "house", "call", *arguments)
        assert done.returncode == 0, done.stderr

    def lines() -> list[list[str]]:
        return [line.split(" ", 3)[1:] for line in house.journal.read_text().splitlines() if line.startswith("signal")]

    def everything_happened() -> bool:
        if not house.journal.exists():
            return False
        names = [line[0] for line in lines()]
        return names.count("task_postrun") == 4 and {"task_unknown", "task_revoked", "heartbeat_sent"} <= set(names)

    house.until(everything_happened, 30, "signals")
    os.kill(worker.process.pid, signal.SIGTERM)
    assert worker.process.wait(60) == 0
    heard = {(name, int(pid) == worker.process.pid, *rest) for name, pid, *rest in lines()}
    in_child = {entry[0] for entry in heard if not entry[1]}
    in_parent = {entry[0] for entry in heard if entry[1]}
    assert {
        "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "worker_process_init",
        "worker_process_shutdown", "after_setup_logger",
    } <= in_child  # fmt: skip
    assert {
        "task_received", "task_unknown", "task_revoked", "worker_init", "celeryd_init", "celeryd_after_setup",
        "worker_ready", "worker_shutting_down", "worker_shutdown", "heartbeat_sent", "after_setup_logger",
    } <= in_parent  # fmt: skip
    assert not {"task_prerun", "task_success"} & in_parent
    assert ("task_prerun", False, "args=[2, 3] task_id='good'") in heard
    assert ("task_postrun", False, "retval=5 state='SUCCESS'") in heard
    assert ("task_unknown", True, "name='house.nobody'") in heard
    assert ("task_revoked", True, "expired=True request='house.add'") in heard
    assert ("worker_shutting_down", True, "exitcode=0 how='Warm'") in heard
    assert any(name == "task_retry" and "not yet" in rest[0] for name, _, *rest in heard)
