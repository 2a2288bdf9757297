"""Flower, as it comes from PyPI, on the same broker as our workers: it shows them and their tasks, and steers them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from fleet import CELERY, OURS, PARTY, environment

from celeriac.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fleet import Place

pytestmark = pytest.mark.interop

PYTHON = os.environ.get("CELERIAC_FLOWER_PYTHON")
#: the first has a pool of a fixed size, the second one that sizes itself
FIXED, SIZED = "celeriac1@party", "celeriac2@party"
PATIENCE = 90.0


class Flower:
    """The process, asked over its HTTP API."""

    def __init__(self, place: Place) -> None:
        assert PYTHON is not None
        self.place = place
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (place.folder / "flower.log").open("w+b")
        self._process = subprocess.Popen(
            [PYTHON, "-m", "celery", "-A", "flower_app", "flower", "--address=127.0.0.1", f"--port={port}",
             "--inspect-timeout=30000"],
            cwd=PARTY, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
            env={**environment(CELERY, place.settings, place.journal), "FLOWER_UNAUTHENTICATED_API": "true"},
        )  # fmt: skip

    def ask(self, path: str, post: dict[str, Any] | None = None) -> Any:
        """What it answers, read as JSON where it is that; an error fails the test."""
        body = None if post is None else urlencode(post).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=PATIENCE) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                pytest.fail(f"{path}: {error.code} {error.read().decode()[:500]}\n{self.log}")
        return json.loads(text) if text.startswith(("{", "[")) else text

    def tell(self, path: str, **post: Any) -> str:
        return str(self.ask(path, post)["message"])

    def tasks(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/api/tasks")
        return found

    def worker(self, node: str) -> Any:
        return self.ask(f"/api/workers?refresh=1&workername={node}")[node]

    def until(self, holds: Callable[[], object], what: str) -> None:
        ends = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > ends:
                pytest.fail(f"not within {PATIENCE} s: {what}\n{self.log}\n{self.place.workers[0].log}")
            time.sleep(0.1)

    def is_up(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/healthcheck", timeout=PATIENCE):
            return True
        assert self._process.poll() is None, self.log
        return False

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._log.close()


@pytest.fixture
def flower(place: Callable[..., Place], broker: str) -> Iterator[Flower]:
    if not PYTHON:
        pytest.skip("CELERIAC_FLOWER_PYTHON is not set: Flower (make flower-env) on our workers is NOT tested")
    here = place(broker)
    made = Flower(here)
    try:
        workers = [
            here.worker(OURS, "-E", wait=False),
            here.worker(OURS, "-E", "--autoscale", "4,1", "-Q", "other", wait=False, worker_pool_restarts=True),
        ]
        for worker in workers:
            worker.wait_for(" ready", PATIENCE)
        made.until(made.is_up, "Flower answers")
        yield made
    finally:
        made.end()


def call(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "options": options}


def test_flower_shows_and_steers(flower: Flower):
    see_workers(flower)
    see_and_revoke_tasks(flower)
    change_limits(flower)
    change_pools(flower)
    change_queues(flower)
    see_pages(flower)
    assert flower.tell(f"/api/worker/shutdown/{FIXED}") == "Shutting down!"
    assert flower.place.workers[0].process.wait(PATIENCE) == 0
    flower.until(lambda: flower.ask("/api/workers?status=1") == {FIXED: False, SIZED: True}, "it has gone")


def see_workers(flower: Flower) -> None:
    flower.until(lambda: flower.ask("/api/workers?status=1") == {FIXED: True, SIZED: True}, "heartbeats")
    assert flower.worker(SIZED)["stats"]["autoscaler"]["max"] == 4  # Flower steers only what it has asked before
    seen = flower.worker(FIXED)
    assert seen["stats"]["pid"] == flower.place.workers[0].process.pid
    assert seen["stats"]["pool"]["max-concurrency"] == len(seen["stats"]["pool"]["processes"]) == 2
    assert "party.add" in seen["registered"]
    assert [queue["name"] for queue in seen["active_queues"]] == ["celery"]
    assert seen["conf"]["result_backend"].startswith("redis://")


def see_and_revoke_tasks(flower: Flower) -> None:
    place = flower.place
    ids = place.send(
        OURS, {**call("add", 1), "kwargs": {"y": 2}}, call("boom", "value"), call("wait", str(place.folder / "never"))
    )
    good, bad, running = ids
    states = ["SUCCESS", "FAILURE", "STARTED"]
    flower.until(
        lambda: [flower.tasks().get(task_id, {}).get("state") for task_id in ids] == states, f"the tasks are {states}"
    )
    info = {task_id: flower.ask(f"/api/task/info/{task_id}") for task_id in ids}
    assert {task["worker"] for task in info.values()} == {FIXED}
    assert (info[good]["name"], info[good]["args"], info[good]["result"]) == ("party.add", "[1]", "3")
    assert info[good]["kwargs"] == "{'y': 2}"
    assert 0 < info[good]["runtime"] < PATIENCE
    assert info[good]["received"] <= info[good]["started"] <= info[good]["succeeded"]
    assert info[bad]["exception"] == "ValueError('boom', 9)"
    assert "raise ERRORS[kind]()" in info[bad]["traceback"]
    assert flower.ask(f"/api/task/result/{good}")["result"] == 3
    assert flower.ask(f"/api/tasks?state=FAILURE&workername={FIXED}").keys() == {bad}
    assert [task["id"] for task in flower.worker(FIXED)["active"]] == [running]
    assert flower.tell(f"/api/task/revoke/{running}?terminate=true") == f"Revoked '{running}'"
    flower.until(lambda: flower.tasks()[running]["state"] == "REVOKED", "the running task was ended")
    assert place.get(OURS, [running])[0]["state"] == "REVOKED"


def change_limits(flower: Flower) -> None:
    said = flower.tell("/api/task/timeout/party.wait", workername=FIXED, soft=20, hard=30)
    assert said == "time limits set successfully"
    said = flower.tell("/api/task/rate-limit/party.mark", workername=FIXED, ratelimit="1/h")
    assert said == "new rate limit set successfully"
    assert "party.mark [rate_limit=1/h]" in flower.worker(FIXED)["registered"]
    said = flower.tell("/api/task/rate-limit/party.mark", workername=FIXED, ratelimit="0")
    assert said == "new rate limit set successfully"  # Celery's words, too
    marks = flower.place.run(OURS, *[call("mark", n) for n in range(3)], timeout=PATIENCE)
    assert [mark["value"] for mark in marks] == [0, 1, 2]
    sent = flower.ask("/api/task/send-task/party.add", {})  # Flower's own form wants JSON; an empty call fails
    flower.until(lambda: flower.tasks().get(sent["task-id"], {}).get("state") == "FAILURE", "what Flower sent has run")


def change_pools(flower: Flower) -> None:
    def size(node: str) -> int:
        pool = flower.worker(node)["stats"]["pool"]
        return pool["max-concurrency"] if len(pool["processes"]) == pool["max-concurrency"] else 0

    assert "Growing" in flower.tell(f"/api/worker/pool/grow/{FIXED}?n=2")
    flower.until(lambda: size(FIXED) == 4, "the pool has grown")
    assert "Shrinking" in flower.tell(f"/api/worker/pool/shrink/{FIXED}?n=3")
    flower.until(lambda: size(FIXED) == 1, "the pool has shrunk")
    assert "Autoscaling" in flower.tell(f"/api/worker/pool/autoscale/{SIZED}?min=2&max=3")
    flower.until(lambda: size(SIZED) == 2, "the pool has the fewest it may")
    before = set(flower.worker(SIZED)["stats"]["pool"]["processes"])
    assert "Restarting" in flower.tell(f"/api/worker/pool/restart/{SIZED}")
    flower.until(
        lambda: size(SIZED) == 2 and not before & set(flower.worker(SIZED)["stats"]["pool"]["processes"]),
        "all processes were replaced",
    )


def change_queues(flower: Flower) -> None:
    place = flower.place
    assert flower.tell(f"/api/worker/queue/add-consumer/{FIXED}?queue=extra") == "add consumer extra"
    assert place.run(OURS, call("add", 2, 2, queue="extra"))[0]["value"] == 4
    said = flower.tell(f"/api/worker/queue/cancel-consumer/{FIXED}?queue=extra")
    assert said == "no longer consuming from extra"
    queues = flower.worker(FIXED)["active_queues"]
    assert [queue["name"] for queue in queues] == ["celery"]


def see_pages(flower: Flower) -> None:
    """The pages for people; what stands in them is made of what was seen above."""
    [some, *_] = flower.tasks()
    for page in ("/", f"/worker/{FIXED}", "/tasks", f"/task/{some}"):
        assert "<html" in str(flower.ask(page))
    assert f'flower_worker_online{{worker="{FIXED}"}} 1.0' in flower.ask("/metrics")
