"""The command line of either party asks and tells the workers of the other, and both hear each other's events."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fleet import CELERY, OURS, environment, python_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]

#: hears events for some seconds and prints those that a test waits for; the argument is the type of the last one
LISTENER = """
import json, sys
from party_app import make_app
import os
app = make_app(json.loads(os.environ["PARTY_SETTINGS"]))
state = app.events.State()
def hear(event):
    state.event(event)
    print("HEARD " + json.dumps(event), flush=True)
    if event["type"] == sys.argv[1]:
        receiver.should_stop = True
with app.connection_for_read() if hasattr(app, "connection_for_read") else app as connection:
    receiver = app.events.Receiver(connection, handlers={"*": hear})
    print("LISTENING", flush=True)
    receiver.capture(limit=None, timeout=120, wakeup=True)
tasks = {uuid: [task.state, task.name, task.worker and getattr(task.worker, "hostname", task.worker)]
         for uuid, task in state.tasks.items()}
print("TASKS " + json.dumps(tasks), flush=True)
print("ALIVE " + json.dumps([worker.hostname for worker in state.alive_workers()]), flush=True)
"""


def command(place: Place, side: str, *words: str, code: int = 0) -> str:
    """What ``celery …`` or ``celeriac …`` printed."""
    library = "celeriac" if side == OURS else "celery"
    done = subprocess.run(
        [python_of(side), "-m", library, "-A", "party_app", *words], text=True, capture_output=True, timeout=150,
        cwd=place.folder, env=environment(side, place.settings, place.journal),
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def answer(place: Place, side: str, *words: str) -> Any:
    """What the one worker said to a command line."""
    node = f"{place.workers[0].side}1@party"  # named, so that nobody waits for more answers
    found = json.loads(command(place, side, *words, "--json", "-t", "60", "-d", node))
    if words[0] == "control":
        (found,) = found
    (said,) = found.values()
    return said


def ask(place: Place, side: str, name: str, **arguments: Any) -> Any:
    """What the one worker said to the other party's ``app.control``."""
    node = f"{place.workers[0].side}1@party"
    options = {"arguments": arguments, "destination": [node]}
    (found,) = place.ask(side, "broadcast", command=name, options=options)
    return found[node]


def test_inspect(fleet: Place, direction: Direction) -> None:
    asker, _ = direction
    assert answer(fleet, asker, "inspect", "ping") == {"ok": "pong"}
    said = answer(fleet, asker, "inspect", "stats")
    assert said["pid"] == fleet.workers[0].process.pid
    assert said["clock"].isdigit()
    assert len(said["pool"]["processes"]) == 2
    assert said["broker"]["transport"].startswith(("redis", "amqp"))
    assert "password" not in said["broker"]
    assert {"utime", "maxrss", "nivcsw"} <= said["rusage"].keys()
    registered = ask(fleet, asker, "registered", taskinfoitems=["rate_limit"])
    assert "party.add" in {name.partition(" ")[0] for name in registered}
    queues = ask(fleet, asker, "active_queues")
    assert {queue["name"] for queue in queues} == set(fleet.settings["task_queues"])
    assert {"name", "exchange", "routing_key", "durable", "bindings", "max_priority"} <= queues[0].keys()
    assert ask(fleet, asker, "clock")["clock"] > 0
    assert "settings ->" in ask(fleet, asker, "report")["ok"]
    assert ask(fleet, asker, "query_task", ids=["absent"]) == {}
    assert "result_backend" in ask(fleet, asker, "conf", with_defaults=True)
    for name in ("scheduled", "reserved", "revoked"):
        assert isinstance(ask(fleet, asker, name), list)
    assert ask(fleet, asker, "hello", from_node="x@y", revoked={})["clock"] > 0
    assert ask(fleet, asker, "no_such_thing") == {"error": "KeyError('no_such_thing')"}


def test_people_see_the_answers(fleet: Place, direction: Direction) -> None:
    asker, worker = direction
    # "-d", as else nobody can tell when all have answered
    shown = command(fleet, asker, "status", "-t", "60", "-d", f"{worker}1@party")
    assert f"{worker}1@party" in shown
    assert "1 node online" in shown


def test_what_runs_is_shown_and_ended(fleet: Place, direction: Direction) -> None:
    asker, worker = direction
    (task_id,) = fleet.send(asker, {"task": "party.wait", "args": [str(fleet.folder / "never")]})
    fleet.until(lambda: fleet.notes("mark", task_id))
    [shown] = answer(fleet, asker, "inspect", "active")
    assert (shown["id"], shown["name"], shown["type"]) == (task_id, "party.wait", "party.wait")
    assert (shown["args"], shown["kwargs"], shown["hostname"]) == (
        [str(fleet.folder / "never")],
        {},
        f"{worker}1@party",
    )
    assert shown["delivery_info"]["routing_key"] == "celery"
    assert shown["worker_pid"] in ask(fleet, asker, "stats")["pool"]["processes"]
    assert ask(fleet, asker, "query_task", ids=[task_id])[task_id][0] == "active"
    said = answer(fleet, asker, "control", "terminate", "SIGTERM", task_id)
    assert task_id in said["ok"]
    assert fleet.get(asker, [task_id])[0]["state"] == "REVOKED"
    assert task_id in ask(fleet, asker, "revoked")


def test_control(fleet: Place, direction: Direction) -> None:
    asker, _ = direction

    def said(name: str, **arguments: Any) -> Any:
        return ask(fleet, asker, name, **arguments)

    new = {"ok": "new rate limit set successfully"}
    assert answer(fleet, asker, "control", "rate_limit", "party.add", "1000/s") == new
    assert said("rate_limit", task_name="nobody", rate_limit="10/m") == {"error": "unknown task"}
    wrong = said("rate_limit", task_name="party.add", rate_limit="often")
    assert wrong["error"].startswith("Invalid rate limit string: ValueError(")
    assert answer(fleet, asker, "control", "time_limit", "party.add", "30", "60") == {
        "ok": "time limits set successfully"
    }
    assert said("time_limit", task_name="nobody", soft=30) == {"error": "unknown task"}
    assert said("enable_events")["ok"] in ("task events enabled", "task events already enabled")
    assert said("enable_events") == {"ok": "task events already enabled"}
    assert said("disable_events") == {"ok": "task events disabled"}
    assert said("disable_events") == {"ok": "task events already disabled"}
    assert said("heartbeat") is None
    assert said("autoscale", max=4, min=1) == {"error": "ValueError('Autoscale not enabled')"}
    assert said("pool_restart") == {"error": "ValueError('Pool restarts not enabled')"}
    assert said("revoke", task_id=["x1"]) == {"ok": "tasks {'x1'} flagged as revoked"}
    assert said("terminate", signal="SIGTERM", task_id="x2") == {"ok": "terminate: tasks unknown"}
    stamped = said("revoke_by_stamped_headers", headers={"customer": ["7"]})
    assert stamped == {"ok": "headers {'customer': ['7']} flagged as revoked, but not terminated"}
    (done,) = fleet.run(asker, {"task": "party.add", "args": [1, 2]})
    assert done["value"] == 3


def test_queues_come_and_go(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    asker, worker = direction
    there = place(broker)
    there.worker(worker)
    (waits,) = there.send(asker, {"task": "party.wait", "args": [str(there.folder / "go")]})
    there.until(lambda: there.notes("mark", waits))
    assert answer(there, asker, "control", "add_consumer", "extra") == {"ok": "add consumer extra"}
    there.until(lambda: {"celery", "extra"} == {queue["name"] for queue in ask(there, asker, "active_queues")})
    (extra,) = there.run(asker, {"task": "party.add", "args": [1, 2], "options": {"queue": "extra"}})
    assert extra["value"] == 3
    assert ask(there, asker, "cancel_consumer", queue="extra") == {"ok": "no longer consuming from extra"}
    there.until(lambda: {"celery"} == {queue["name"] for queue in ask(there, asker, "active_queues")})
    (there.folder / "go").touch()  # what ran all the time was not disturbed
    assert there.get(asker, [waits])[0]["state"] == "SUCCESS"
    assert len(there.notes("mark", waits)) == 1


def test_shutdown(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    asker, worker = direction
    there = place(broker)
    started = there.worker(worker)
    command(there, asker, "control", "shutdown", "-t", "2", code=69 if asker == CELERY else 0)
    assert started.process.wait(60) == 0


def test_events(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    """Those of the worker reach the other party's receiver and make the right picture of its state."""
    from fleet import Process

    hearer, worker = direction
    there = place(broker)
    # RabbitMQ drops what has expired unless a worker has room for it at once
    started = there.worker(worker, "-E", "--prefetch-multiplier", "4")
    listener = Process(hearer, ["-c", LISTENER, "worker-offline"], there.settings, there.journal)
    try:
        listener.wait_for("worker-heartbeat")
        calls: list[dict[str, Any]] = [
            {"task": "party.add", "args": [1, 2]}, {"task": "party.boom", "args": ["value"]},
            {"task": "party.add", "args": [3, 4], "options": {"expires": -5}},
        ]  # fmt: skip
        ids = there.send(hearer, *calls)
        there.get(hearer, ids)
        for kind, task_id in (("task-succeeded", ids[0]), ("task-failed", ids[1]), ("task-revoked", ids[2])):
            there.until(
                lambda kind=kind, task_id=task_id: any(kind in line and task_id in line for line in listener.lines)
            )
        assert started.stop() == 0
        seen = json.loads(listener.wait_for("TASKS ").removeprefix("TASKS "))
        node = f"{worker}1@party"
        assert seen[ids[0]] == ["SUCCESS", "party.add", node]
        assert seen[ids[1]] == ["FAILURE", "party.boom", node]
        assert seen[ids[2]][0] == "REVOKED"
        assert json.loads(listener.wait_for("ALIVE ").removeprefix("ALIVE ")) == []
    finally:
        listener.end()
    events = [json.loads(line.removeprefix("HEARD ")) for line in listener.lines if line.startswith("HEARD ")]
    by_type = {event["type"]: event for event in events}
    succeeded = by_type["task-succeeded"]
    assert (succeeded["result"], type(succeeded["runtime"]), succeeded["hostname"]) == ("3", float, node)
    failed = by_type["task-failed"]
    assert failed["exception"].startswith("ValueError('boom'")
    assert "Traceback" in failed["traceback"]
    received = next(event for event in events if event["type"] == "task-received" and event["uuid"] == ids[0])
    assert (received["name"], received["args"], received["kwargs"], received["retries"]) == (
        "party.add", "[1, 2]", "{}", 0,
    )  # fmt: skip
    assert by_type["task-revoked"]["expired"] is True
    assert {"active", "processed", "loadavg", "freq", "sw_ident", "sw_ver", "sw_sys"} <= by_type[
        "worker-offline"
    ].keys()
    for event in events:
        assert event["pid"] == started.process.pid
        assert event["utcoffset"] is not None
    numbers = [event["clock"] for event in events if event["type"] in ("task-received", "task-succeeded")]
    assert numbers == sorted(numbers)


def test_events_are_dumped(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    """``events --dump`` of each party shows those of the other."""
    from fleet import Process

    hearer, worker = direction
    there = place(broker)
    there.worker(worker, "-E")
    library = "celeriac" if hearer == OURS else "celery"
    dump = Process(hearer, ["-m", library, "-A", "party_app", "events", "--dump"], there.settings, there.journal)
    try:
        dump.wait_for("heartbeat")
        (done,) = there.run(hearer, {"task": "party.add", "args": [1, 2]})
        dump.wait_for(done["id"])
        dump.wait_for("succeeded")
    finally:
        dump.end()
