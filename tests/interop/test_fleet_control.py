"""Remote control across: a party's commands reach the other one's workers, and their replies come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fleet import MIXED, OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]


def call(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "options": options}


def test_a_waiting_task_is_revoked(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    for delay in (1.2, 5.0, 15.0):  # the shorter ones may be over before a machine at work has told the worker
        revoked, other = fleet.send(
            producer, call("mark", "revoked", countdown=delay), call("mark", "other", countdown=delay)
        )
        fleet.ask(producer, "revoke", ids=[revoked])
        outcomes = fleet.get(producer, [revoked, other])
        if outcomes[0]["state"] == "REVOKED":
            break
    assert [found["state"] for found in outcomes] == ["REVOKED", "SUCCESS"]
    assert outcomes[0]["error"].endswith("TaskRevokedError")
    assert fleet.notes("mark", revoked) == []


def test_a_running_task_is_terminated(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    (task_id,) = fleet.send(producer, call("wait", str(fleet.folder / "never")))
    fleet.until(lambda: fleet.notes("mark", task_id))
    fleet.ask(producer, "revoke", ids=[task_id], options={"terminate": True, "signal": "SIGTERM"})
    assert fleet.get(producer, [task_id])[0]["state"] == "REVOKED"


def test_inspection_is_answered(fleet: Place, direction: Direction) -> None:
    producer, consumer = direction
    node = f"{consumer}1@party"
    # without a node, all are waited for: nobody can tell when all have answered
    fleet.until(lambda: fleet.ask(producer, "inspect", what="ping", within=0.6) == {node: {"ok": "pong"}})
    answers = {
        what: fleet.ask(producer, "inspect", what=what, within=60.0, node=node)[node]
        for what in ("registered", "active_queues", "stats", "active", "reserved", "scheduled", "revoked")
    }
    assert "party.add" in [name.partition(" ")[0] for name in answers["registered"]]
    assert {queue["name"] for queue in answers["active_queues"]} == set(fleet.settings["task_queues"])
    assert answers["stats"]["pid"] == fleet.workers[0].process.pid
    assert [type(answers[what]) for what in ("active", "reserved", "scheduled", "revoked")] == [list] * 4


@pytest.mark.parametrize("order", dict.fromkeys([MIXED, MIXED[::-1]]), ids="-then-".join)
def test_a_newcomer_is_told_what_is_revoked(place: Callable[..., Place], broker: str, order: tuple[str, str]) -> None:
    """Mingle: a worker that starts asks its neighbours, of either party."""
    veteran, newcomer = order
    here = place(broker)
    first = here.worker(veteran, "--mingle")
    here.ask(veteran, "revoke", ids=["doomed"])
    node = f"{veteran}1@party"
    # a command and a task take different ways: wait until this one has arrived
    here.until(lambda: here.ask(veteran, "inspect", what="revoked", within=60.0, node=node) == {node: ["doomed"]})
    for _ in range(10):
        second = here.worker(newcomer, "--mingle")
        if newcomer == OURS:  # it asks beside its work
            second.wait_for(" neighbours, ")
        if "mingle: all alone" not in second.log and "mingle: 0 neighbours" not in second.log:
            break
        second.kill()  # a second for answers, or a few, are more than a machine at work may keep
    else:
        pytest.fail(f"nobody answered it in time:\n{second.log}")
    first.kill()
    # the state says little: Celery stores REVOKED when it is told to revoke
    here.send(veteran, call("mark", task_id="doomed"))
    for _ in range(3):  # behind it in the queue, and behind each other
        assert here.run(veteran, call("mark"))[0]["state"] == "SUCCESS"
    assert here.notes("mark", "doomed") == []
