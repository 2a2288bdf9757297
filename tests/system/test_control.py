"""Remote control and events with a real worker on the embedded broker: asked, told, listened to, attacked."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.process_log import ProcessLog

from celeriac import Celeriac
from celeriac.errors import TaskRevokedError
from celeriac.transports.base import Outgoing
from celeriac.wire.envelope import Envelope, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import House, Worker

pytestmark = pytest.mark.system

JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
NODE = "w1@house"


@pytest.fixture
def app(house: House) -> Iterator[Celeriac]:
    made = Celeriac("house", broker=f"sqlite:///{house.file}", set_as_current=False)
    yield made
    made.close()


def worker_of(house: House, *options: str) -> Worker:
    worker = house.worker("-c", "2", "-n", NODE, *options)
    app = Celeriac("house", broker=f"sqlite:///{house.file}", set_as_current=False)
    house.until(lambda: app.control.ping([NODE], timeout=1.0), what="the worker answers")
    app.close()
    return worker


def only(replies: list[dict[str, Any]] | None) -> Any:
    """What the one worker said."""
    assert replies is not None
    [reply] = replies
    return reply[NODE]


def say(app: Celeriac, body: bytes, exchange: str = "celery.pidbox", properties: dict[str, Any] | None = None) -> None:
    broadcast = app.transport.broadcast()
    envelope = Envelope(body, {}, JSON if properties is None else properties)
    broadcast.publish([Outgoing(envelope, Route(exchange, "", "fanout"))], time.monotonic() + 5)
    broadcast.close()


def test_waiting_kept_and_running_tasks_are_revoked(house: House, app: Celeriac) -> None:
    worker_of(house, "--prefetch-multiplier", "4")
    running = [app.send_task("house.mark", (n, 60)) for n in range(2)]
    house.until(lambda: len(house.notes("start")) == 2)
    waiting = app.send_task("house.mark", (3,))
    behind = app.send_task("house.mark", (4,))
    soon = app.send_task("house.mark", (5,), countdown=1.5)
    house.until(lambda: len(only(app.control.broadcast("reserved", destination=[NODE], reply=True))) == 2)
    waiting.revoke()
    with pytest.raises(TaskRevokedError, match="revoked"):
        waiting.get(timeout=30)
    soon.revoke()
    with pytest.raises(TaskRevokedError):
        soon.get(timeout=20)
    # without terminate what runs is not touched
    assert only(app.control.revoke(running[0].id, [NODE], reply=True))["ok"].endswith("flagged as revoked")
    active = only(app.control.broadcast("active", destination=[NODE], reply=True))
    assert {task["id"] for task in active} == {task.id for task in running}
    assert [task["args"] for task in active] == [[0, 60], [1, 60]] or [task["args"][1] for task in active] == [60, 60]
    began = time.monotonic()
    said = app.control.terminate([task.id for task in running], [NODE], reply=True)
    assert only(said)["ok"].startswith("terminate: ")
    for task in running:
        with pytest.raises(TaskRevokedError, match="terminated"):
            task.get(timeout=30)
    assert time.monotonic() - began < 50  # they would sleep for 60 s
    assert behind.get(timeout=20) == 4
    assert {note[1] for note in house.notes("start")} == {*(task.id for task in running), behind.id}
    assert set(only(app.control.broadcast("revoked", destination=[NODE], reply=True))) == {
        waiting.id, soon.id, *(task.id for task in running)
    }  # fmt: skip


def test_stamped_tasks_are_revoked(house: House, app: Celeriac) -> None:
    worker_of(house)
    said = app.control.revoke_by_stamped_headers({"customer": ["7", "8"]}, [NODE], reply=True)
    assert "flagged as revoked" in only(said)["ok"]
    stamped, other = (
        app.send_task("house.mark", (n,), headers={"stamped_headers": ["customer"], "stamps": {"customer": n}})
        for n in (7, 9)
    )
    assert other.get(timeout=20) == 9
    with pytest.raises(TaskRevokedError):
        stamped.get(timeout=20)


def test_a_worker_told_to_shut_down_gives_back_what_waits(house: House, app: Celeriac) -> None:
    worker = worker_of(house)
    runs = [app.send_task("house.mark", (n, 1.0)) for n in range(2)]
    waits = [app.send_task("house.mark", (n,), queue="celery") for n in range(5)]
    house.until(lambda: len(house.notes("start")) >= 2)
    assert app.control.shutdown([NODE]) is None
    assert worker.process.wait(30) == 0
    assert [task.state for task in runs] == ["SUCCESS", "SUCCESS"]
    done = sum(task.state == "SUCCESS" for task in waits)
    assert house.waiting() == 5 - done


def test_queues_come_and_go(house: House, app: Celeriac) -> None:
    worker_of(house)
    long = app.send_task("house.mark", (1, 2.5))
    house.until(lambda: house.notes("start"))
    assert only(app.control.add_consumer("extra", destination=[NODE], reply=True)) == {"ok": "add consumer extra"}
    assert app.send_task("house.mark", (2,), queue="extra").get(timeout=30) == 2
    for queue in ("extra", "celery"):
        said = only(app.control.cancel_consumer(queue, destination=[NODE], reply=True))
        assert said == {"ok": f"no longer consuming from {queue}"}
    kept = app.send_task("house.mark", (3,))
    assert long.get(timeout=20) == 1  # it ran on, and could still be settled
    assert kept.state == "PENDING"
    assert only(app.control.broadcast("active_queues", destination=[NODE], reply=True)) == []
    app.control.add_consumer("celery", destination=[NODE])
    assert kept.get(timeout=20) == 3
    assert len(house.notes("start")) == 3


def test_time_and_rate_limits_change(house: House, app: Celeriac) -> None:
    worker_of(house)
    assert "ok" in only(app.control.time_limit("house.mark", hard=0.5, destination=[NODE], reply=True))
    failed = app.send_task("house.mark", (1, 60))
    with pytest.raises(Exception, match=r"0\.5"):
        failed.get(timeout=20)
    said = only(app.control.rate_limit("house.add", "1/h", destination=[NODE], reply=True))
    assert said == {"ok": "new rate limit set successfully"}
    assert "house.add [rate_limit=1/h]" in only(app.control.broadcast("registered", destination=[NODE], reply=True))
    first, second = (app.send_task("house.add", (n, n)) for n in (1, 2))
    house.until(lambda: "SUCCESS" in (first.state, second.state))
    assert sorted([first.state, second.state]) == ["PENDING", "SUCCESS"]


HOSTILE = [
    b"", b"\xff\xfe", b"[]", b"null", b'{"method": 5}', b'{"method": "ping", "arguments": []}', b"[" * 200_000,
    b'{"method": "__import__", "arguments": {"name": "os"}}',
    b'{"method": "revoke", "arguments": {"task_id": {"a": 1}}}',
    b'{"method": "revoke", "arguments": {"task_id": ["../../x"]}}',
    b'{"method": "revoke", "arguments": {"state": 1, "task_id": "x"}}',
    b'{"method": "terminate", "arguments": {"task_id": "x", "signal": "NOSUCH"}}',
    b'{"method": "time_limit", "arguments": {"task_name": "house.add", "hard": -1}}',
    b'{"method": "add_consumer", "arguments": {"queue": "a\\u0000b"}}',
    b'{"method": "add_consumer", "arguments": {"queue": ["x"]}}',
    b'{"method": "pool_grow", "arguments": {"n": 1000000}}',
    b'{"method": "shutdown", "arguments": {}, "pattern": "(a+)+$", "matcher": "pcre"}',
    b'{"method": "shutdown", "arguments": {}, "destination": "w1@house"}',
    b'{"method": "ping", "arguments": {}, "ticket": "t", "reply_to": {"exchange": "celery", "routing_key": "celery"}}',
    b'{"method": "' + b"x" * 5_000_000 + b'"}',
]  # fmt: skip


def test_hostile_requests_change_nothing_and_are_counted(house: House, app: Celeriac) -> None:
    worker = worker_of(house)
    before = only(app.control.broadcast("stats", destination=[NODE], reply=True))
    queues = only(app.control.broadcast("active_queues", destination=[NODE], reply=True))
    for body in HOSTILE:
        say(app, body)
    say(app, b"cos\nsystem\n(S'touch /tmp/x'\ntR.", properties={"content_type": "application/x-python-serialize"})
    after: dict[str, Any] = {}

    def counted() -> bool:
        after.update(only(app.control.broadcast("stats", destination=[NODE], reply=True)))
        return bool(after["control"]["refused"] == before["control"]["refused"] + len(HOSTILE) + 1)

    house.until(counted, 20, "every one is counted")
    assert only(app.control.broadcast("active_queues", destination=[NODE], reply=True)) == queues
    assert only(app.control.broadcast("revoked", destination=[NODE], reply=True)) == []
    assert app.send_task("house.add", (1, 2)).get(timeout=20) == 3
    assert house.waiting() == 0  # no reply was led into a queue of tasks
    assert worker.process.poll() is None
    refusals = [line for line in worker.lines if "control request" in line]
    assert 0 < len(refusals) < len(HOSTILE) / 2  # and the log is not filled


def test_commands_of_the_users_own(house: House, app: Celeriac) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write('''
from celeriac.worker.control import inspect_command, control_command

@inspect_command(args=[("n", int)])
def twice(state, n=1):
    """Say a number twice."""
    time.sleep(0.3)
    return {"n": n, "again": n, "host": state.hostname, "app": state.app.main}

@control_command()
def fall(state):
    raise LookupError("fell")
''')
    worker_of(house)
    done = house.celeriac("-A", "house", "inspect", "twice", "21", "--json", "-d", NODE)
    assert json.loads(done.stdout) == {NODE: {"n": 21, "again": 21, "host": NODE, "app": "house"}}
    assert only(app.control.broadcast("fall", destination=[NODE], reply=True)) == {"error": "LookupError('fell')"}
    assert "Say a number twice." in house.celeriac("-A", "house", "inspect", "--list").stdout


def test_the_command_line(house: House) -> None:
    worker = worker_of(house)

    def ran(*words: str, code: int = 0) -> str:
        done = house.celeriac("-A", "house", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert f"->  {NODE}: OK\n    pong\n\n1 node online." in ran("inspect", "ping", "-t", "2")
    assert json.loads(ran("inspect", "stats", "-j", "-d", NODE))[NODE]["pid"] == worker.pid
    status = json.loads(ran("status", "-j", "-t", "2"))
    assert [(row["worker"], row["pid"], row["slots"]) for row in status["workers"]] == [(NODE, worker.pid, 2)]
    assert NODE in ran("status", "-t", "2")
    assert "->  w1@house: ERROR\n    unknown task" in ran("control", "rate_limit", "nobody", "1/s", "-d", NODE)
    assert "Did you mean 'revoke'?" in ran("control", "revok", "x", code=2)
    assert "No nodes replied within time constraint" in ran("inspect", "ping", "-d", "else@where", "-t", "0.2", code=69)
    ran("control", "shutdown", "-d", NODE, "-t", "0.2")
    assert worker.process.wait(30) == 0


def test_the_python_of_control(house: House, app: Celeriac) -> None:
    worker_of(house)
    heard: list[Any] = []
    inspect = app.control.inspect(NODE, timeout=5.0, callback=heard.append)
    assert inspect.ping() == {"ok": "pong"}
    assert heard == [{NODE: {"ok": "pong"}}]
    everybody = app.control.inspect(timeout=2.0)
    assert everybody.clock()[NODE]["clock"] > 0
    assert everybody.query_task(["absent"]) == {NODE: {}}
    assert app.control.inspect(["x@y"], timeout=0.2).ping() is None
    assert app.control.inspect(pattern="w*@house", matcher="glob", timeout=2.0).ping() == {NODE: {"ok": "pong"}}
    assert app.control.inspect(pattern="x*", matcher="glob", timeout=0.3).ping() is None
    with pytest.raises(ValueError, match="must be a list"):
        app.control.broadcast("ping", destination=NODE)

    async def story() -> None:
        assert await app.control.aping([NODE], timeout=5.0) == [{NODE: {"ok": "pong"}}]
        assert await app.control.inspect(NODE, timeout=5.0).aask("ping") == {"ok": "pong"}
        waits = [app.send_task("house.mark", (n, 60)) for n in range(2)]
        await asyncio.to_thread(house.until, lambda: len(house.notes("start")) == 2)
        await app.control.arevoke([task.id for task in waits], terminate=True)
        for task in waits:
            with pytest.raises(TaskRevokedError):
                await task.aget(timeout=20)

    asyncio.run(story())


@contextmanager
def listening(house: House, *words: str) -> Iterator[Any]:
    process = house.start("-m", "celeriac", "-A", "house", "events", *words)
    from tests.system.conftest import Worker

    yield Worker(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_events_come_while_somebody_listens(house: House, app: Celeriac) -> None:
    worker_of(house)
    with listening(house, "--json") as dump:
        dump.wait_for("worker-heartbeat")
        assert app.send_task("house.add", (1, 1)).get(timeout=20) == 2  # told by nobody: they are not enabled
        assert only(app.control.enable_events([NODE], reply=True)) == {"ok": "task events enabled"}
        said = [app.send_task("house.add", (2, n)) for n in range(50)]
        failed = app.send_task("house.boom", ("b\x1bm",))
        slow = app.send_task("house.mark", (1, 60))
        late = app.send_task("house.add", (1, 1), expires=-5)
        for task in said:
            task.get(timeout=20)
        dump.wait_for(f'"uuid":"{slow.id}"')
        house.until(lambda: any("task-started" in line and slow.id in line for line in dump.lines))
        app.control.terminate(slow.id)
        for task_id, kind in ((late.id, "revoked"), (failed.id, "failed"), (slow.id, "revoked")):
            house.until(lambda kind=kind, task_id=task_id: any(kind in line and task_id in line for line in dump.lines))
        house.until(lambda: sum("task-succeeded" in line for line in dump.lines) == 50)
        app.control.disable_events([NODE], reply=True)
        app.send_task("house.add", (9, 9)).get(timeout=20)
        lines = [json.loads(line) for line in dump.lines if line.startswith("{")]
    by_id: dict[str, list[Any]] = {}
    for event in lines:
        if event["type"].startswith("task-"):
            by_id.setdefault(event["uuid"], []).append(event)
    assert len(by_id) == 53
    for task in said:
        kinds = [event["type"] for event in sorted(by_id[task.id], key=lambda event: event["clock"])]
        assert kinds == ["task-received", "task-started", "task-succeeded"]
        times = [event["timestamp"] for event in sorted(by_id[task.id], key=lambda event: event["clock"])]
        assert times[0] <= times[2]
    clocks = [event["clock"] for event in lines if event["type"].startswith("task-")]
    assert len(set(clocks)) == len(clocks)
    [ended] = [event for event in by_id[slow.id] if event["type"] == "task-revoked"]
    assert (ended["terminated"], ended["signum"], ended["expired"]) == (True, 15, False)


def test_hostile_events_are_not_shown_and_counted(house: House, app: Celeriac) -> None:
    state = app.events.State()
    receiver = app.events.Receiver(handlers={"*": state.event, "task-quit": lambda event: receiver.stop()})
    good = b'{"type": "task-failed", "hostname": "h", "timestamp": 1, "uuid": "u", "exception": "e"}'
    bad = [b"", b"[", b"7", b'{"type": 1}', good.replace(b'"h"', b"5"), good.replace(b": 1,", b": 1e999,"), b"x" * 100]
    capturing = receiver.itercapture(timeout=10)
    first = app.events.publish  # opened by the first message
    assert callable(first)
    import threading

    def send() -> None:
        house.until(lambda: app.transport.broadcast().anybody("celeryev"))  # type: ignore[attr-defined]
        for body in (*bad, good, b"[" + good + b", 3]"):
            say(app, body, "celeryev")
        app.events.tell("task-quit", {})

    sender = threading.Thread(target=send)
    sender.start()
    for _ in capturing:
        pass
    sender.join(10)
    assert receiver.refused == len(bad) + 1
    assert state.event_count == 2
    assert state.tasks["u"].exception == "e"


def test_the_screen_on_a_terminal(house: House, app: Celeriac) -> None:
    worker_of(house, "-E")
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "rows", "40", "cols", "140"], stdin=theirs, check=True, timeout=10)
    process = subprocess.Popen(
        [sys.executable, "-m", "celeriac", "-A", "house", "events"], cwd=house.folder, stdin=theirs, stdout=theirs,
        stderr=theirs, env={**house.env, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def shows(text: str) -> None:
        import select

        ends = time.monotonic() + 20
        while text.encode() not in seen:
            left = ends - time.monotonic()
            assert left > 0, f"{text!r} was not shown:\n{seen[-3000:].decode(errors='replace')}"
            if select.select([ours], [], [], left)[0]:
                seen.extend(os.read(ours, 65536))

    try:
        shows(NODE)
        task = app.send_task("house.mark", (7, 60))
        shows("STARTED")
        os.write(ours, b"jc")
        shows("y/n")
        os.write(ours, b"y")
        shows("REVOKED")
        with pytest.raises(TaskRevokedError):
            task.get(timeout=30)
        os.write(ours, b"q")
        ends = time.monotonic() + 15
        while process.poll() is None and time.monotonic() < ends:
            shows("") if not seen else None
            import select

            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen.extend(os.read(ours, 65536))
                except OSError:  # the other end is closed
                    break
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(ours)


def is_pictured(app: Celeriac, camera: Any) -> bool:
    """Run one more task; whether any has been seen. Workers look twice a second whether somebody listens."""
    app.send_task("house.add", (1, 1)).get(timeout=60)
    return any("'SUCCESS'" in line for line in camera.lines)


def test_a_camera_takes_pictures(house: House, app: Celeriac) -> None:
    (house.folder / "cam.py").write_text("""
from celeriac.events.snapshot import Polaroid, evcam

class Cam(Polaroid):
    def on_shutter(self, state):
        if not state.event_count:  # as the documentation of Celery's begins
            return
        print("CLICK", sorted(state.workers), [task.state for task in state.tasks.values()], flush=True)

    def on_cleanup(self):
        print("CLEANED", flush=True)

@Cam.shutter_signal.connect
def before(sender, state, **kwargs):
    print("SIGNAL", sender is state, flush=True)

if __name__ == "__main__":
    from house import app
    evcam(Cam, freq=0.1, maxrate="20/s", loglevel="INFO", app=app, cleanup_freq=1)
""")
    worker_of(house, "-E")
    with listening(house, "-c", "cam:Cam", "-F", "0.2") as camera:
        camera.wait_for("SIGNAL True")
        camera.wait_for("CLICK ['")
        house.until(lambda: is_pictured(app, camera), what="a task is in a picture")
    camera = ProcessLog(house.start("cam.py"))
    camera.wait_for("CLICK ['", 60)
    house.until(lambda: is_pictured(app, camera), what="a task is in a picture")
    camera.process.send_signal(signal.SIGINT)
    assert camera.process.wait(60) == 0, camera.lines


def test_a_camera_in_the_background(house: House) -> None:
    (house.folder / "cam.py").write_text("""
import logging
from celeriac.events.snapshot import Polaroid

class Cam(Polaroid):
    def on_shutter(self, state):
        logging.getLogger("cam").warning("CLICK %s", state.event_count)
""")
    pid_file, log_file = house.folder / "cam.pid", house.folder / "cam.log"
    command = ("-A", "house", "events", "--camera", "cam:Cam", "-F", "0.1", "--detach", "--pidfile", str(pid_file))
    started = house.celeriac(*command, "--logfile", str(log_file))
    assert started.returncode == 0, started.stderr
    assert "started in the background" in started.stdout
    pid = int(pid_file.read_text())
    try:
        house.until(lambda: "CLICK" in log_file.read_text(), what="a picture is in the log")
        second = house.celeriac(*command)
        assert second.returncode == 73, second.stderr
        assert str(pid) in second.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    house.until(lambda: not pid_file.exists(), what="it has ended and taken its file with it")
    assert house.celeriac("-A", "house", "events", "--detach").returncode == 2


def test_a_client_tells_what_it_sends_and_tasks_tell_more(house: House) -> None:
    with (house.folder / "house.py").open("a") as file:
        file.write("""
@app.task(bind=True)
def progress(self):
    self.send_event("task-progress", percent=20)
    return 1
""")
    worker_of(house, "-E")
    with listening(house, "--json") as dump:
        dump.wait_for("worker-heartbeat")
        house.python("app.conf.task_send_sent_event = True\nprint(progress.delay().get(timeout=20))")
        dump.wait_for("task-progress")
        dump.wait_for("task-succeeded")
        events = {event["type"]: event for event in map(json.loads, filter(lambda x: x.startswith("{"), dump.lines))}
    sent = events["task-sent"]
    assert (sent["name"], sent["queue"], sent["args"]) == ("house.progress", "celery", "()")
    assert sent["hostname"].startswith("gen")
    assert events["task-progress"]["percent"] == 20
    assert events["task-progress"]["uuid"] == sent["uuid"]
