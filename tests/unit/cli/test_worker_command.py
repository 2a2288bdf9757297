"""The worker command's own decisions: queues, file names, the pid file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.cli.failures import EX_CANTCREAT, Failure
from celeriac.cli.nodes import expand_path
from celeriac.cli.pidfile import held
from celeriac.cli.worker import select_queues
from celeriac.plugins import resolve
from celeriac.rules.routing import MissingQueues, Router
from celeriac.transports.base import QueueSpec

KNOWN = {name: QueueSpec(name=name) for name in ("mail", "reports")}


def names(only: list[str] | None, excluded: list[str] | None, *, create: bool = True) -> list[str]:
    router = Router(KNOWN, None, "mail", MissingQueues(create=create), resolve)
    return [queue.name for queue in select_queues(KNOWN, only, excluded, router.queue)]


def test_queues_are_the_configured_the_named_less_the_excluded():
    assert names(None, None) == ["mail", "reports"]
    assert names(["reports"], None) == ["reports"]
    assert names(None, ["mail"]) == ["reports"]
    assert names(["new", "mail", "new"], None) == ["new", "mail"]


def test_an_unknown_queue_is_refused_when_none_may_be_created():
    with pytest.raises(Failure, match=r"-Q: .*new"):
        names(["new"], None, create=False)


def test_no_queue_left_is_refused():
    with pytest.raises(Failure, match="No queue is left"):
        names(["mail"], ["mail"])


def test_file_names_take_parts_of_the_node_name():
    assert expand_path("/log/%n@%d-%h%I.%i.%%", "w1@box.example.com") == "/log/w1@example.com-box.example.com.0.%"


def test_a_pid_file_is_held_and_given_up(tmp_path: Path):
    path = tmp_path / "worker.pid"
    with held(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_pid_file_of_a_living_process_is_respected(tmp_path: Path):
    path = tmp_path / "worker.pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(Failure, match="is held by process") as refused, held(path):
        pass
    assert refused.value.exit_code == EX_CANTCREAT
    assert path.exists()


def test_a_pid_file_of_a_dead_process_is_replaced(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=30)
    path = tmp_path / "worker.pid"
    path.write_text(f"{gone.pid}\n")
    with held(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_with_other_contents_is_not_touched(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(Failure, match="is not one"), held(path):
        pass
    assert path.read_text() == "dear diary"
