"""Remote control across: a party's commands reach the other one's workers, and their replies come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fleet import OURS, is_there

if TYPE_CHECKING:
    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]


@pytest.fixture(autouse=True)
def _has_control(direction: Direction) -> None:
    if OURS in direction and not is_there("celeriac.app.control"):
        pytest.skip("celeriac.app.control does not exist yet: remote control is NOT tested between the parties")


def call(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "options": options}


def test_a_waiting_task_is_revoked(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    revoked, other = fleet.send(producer, call("mark", "revoked", countdown=2), call("mark", "other", countdown=2))
    fleet.until(lambda: any(revoked in line for line in fleet.workers[0].lines) or fleet.broker == "redis", timeout=2.0)
    fleet.ask(producer, "revoke", ids=[revoked])
    outcomes = fleet.get(producer, [revoked, other])
    assert [found["state"] for found in outcomes] == ["REVOKED", "SUCCESS"]
    assert outcomes[0]["error"].endswith("TaskRevokedError")
    assert fleet.notes("mark", revoked) == []


def test_a_running_task_is_terminated(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    (task_id,) = fleet.send(producer, call("wait", str(fleet.folder / "never")))
    fleet.until(lambda: fleet.notes("mark", task_id))
    fleet.ask(producer, "revoke", ids=[task_id], options={"terminate": True, "signal": "SIGTERM"})
    assert fleet.get(producer, [task_id])[0]["state"] == "REVOKED"


@pytest.mark.parametrize("what", ["ping", "registered", "active_queues", "stats", "active", "reserved"])
def test_inspection_is_answered(fleet: Place, direction: Direction, what: str) -> None:
    producer, consumer = direction
    found = fleet.ask(producer, "inspect", what=what, within=1.0)
    assert list(found) == [f"{consumer}1@party"]
    (answer,) = found.values()
    if what == "ping":
        assert answer == {"ok": "pong"}
    elif what == "registered":
        assert "party.add" in [name.partition(" ")[0] for name in answer]
    elif what == "active_queues":
        assert {queue["name"] for queue in answer} == set(fleet.settings["task_queues"])
    elif what == "stats":
        assert answer["pid"] == fleet.workers[0].process.pid
