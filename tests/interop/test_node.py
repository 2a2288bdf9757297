"""Two clients of Celery's protocol from npm, written by strangers, send us tasks and read what came of them.

``celery-node`` writes the least that a message may have; ``celery-ts`` plain bodies on Redis, one delivery tag for all
its messages and time in milliseconds with a ``Z``. Both also talk to Celery here, which tells their faults from ours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet import CELERY, OURS, require_celery

from celeriac.testing.servers import ServerMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place, Servers

pytestmark = pytest.mark.interop
FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")


@pytest.fixture(params=[OURS, CELERY])
def node_fleet(servers: Servers, broker: str, request: pytest.FixtureRequest) -> Place:
    """Where a worker of the party waits for Node's tasks."""
    if NODE is None:
        pytest.skip("node is not installed: clients that are not Python are NOT tested")
    if not (FOLDER / "node_modules/.ready").exists():
        pytest.skip("make interop-node has not run: clients that are not Python are NOT tested")
    require_celery()
    try:
        return servers.fleet(broker, request.param)
    except ServerMissing as error:
        pytest.skip(f"{error}: clients that are not Python are NOT tested on {broker}")


def run(place: Place, library: str, *calls: dict[str, Any], backend: str | None = None) -> list[dict[str, Any]]:
    assert NODE is not None
    broker, results = place.settings["broker_url"], backend or place.settings["result_backend"]
    done = subprocess.run(
        [NODE, "client.js", library, broker, results], input=json.dumps(calls), cwd=FOLDER, capture_output=True,
        text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, **more}


@pytest.mark.parametrize("protocol", [1, 2])
def test_celery_node(node_fleet: Place, protocol: int) -> None:
    outcomes = run(
        node_fleet, "celery-node", call("add", 2, 3, protocol=protocol),
        call("echo", [1, {"ü": None}], kwargs={"k": "v"}, protocol=protocol), call("boom", "value", protocol=protocol),
        call("flaky", 2, kwargs={"countdown": 0.1}, protocol=protocol), call("request", 1, protocol=protocol),
        *[call("mark", n, protocol=protocol) for n in range(20)],
    )  # fmt: skip
    assert outcomes[0].get("value") == 5, outcomes
    assert outcomes[1]["value"] == [[[1, {"ü": None}]], {"k": "v"}]
    assert (outcomes[2]["state"], outcomes[2]["exc_type"], outcomes[2]["exc_message"]) == (
        "FAILURE", "ValueError", ["boom", 9],
    )  # fmt: skip
    assert outcomes[3].get("value", outcomes[3]) == 2
    assert outcomes[4]["value"]["id"] == outcomes[4]["id"]
    assert [found.get("value", found) for found in outcomes[5:]] == list(range(20))
    for found in outcomes[5:]:
        assert len(node_fleet.notes("mark", found["id"])) == 1


def test_celery_ts(node_fleet: Place) -> None:
    started = time.time()
    outcomes = run(
        node_fleet, "celery-ts", call("add", 2, 3), call("echo", [1, {"ü": None}], kwargs={"k": "v"}),
        call("add", 1, 1, options={"serializer": "yaml"}), call("mark", "later", options={"eta_in": 1.2}),
        call("mark", "in time", options={"expires_in": 600}), call("request", 1, options={"priority": 3}),
    )  # fmt: skip
    assert [found.get("value", found) for found in outcomes[:3]] == [5, [[[1, {"ü": None}]], {"k": "v"}], 2]
    ((*_, at),) = node_fleet.notes("mark", outcomes[3]["id"])
    assert at >= started + 1.2
    assert outcomes[4]["value"] == "in time"
    assert outcomes[5]["value"]["delivery"]["priority"] == 3
    assert outcomes[5]["value"]["kwargsrepr"] == "{}"


def test_many_of_celery_ts_at_once(node_fleet: Place, broker: str) -> None:
    """On Redis all of them have the same delivery tag."""
    outcomes = run(node_fleet, "celery-ts", *[call("mark", n) for n in range(100)])
    assert [found.get("value", found) for found in outcomes] == list(range(100))
    assert sorted(note[2] for note in node_fleet.notes("mark", *[found["id"] for found in outcomes])) == list(
        range(100)
    )


@pytest.mark.parametrize("side", [OURS, CELERY])
def test_results_come_back_over_amqp(place: Callable[..., Place], side: str) -> None:
    if NODE is None or not (FOLDER / "node_modules/.ready").exists():
        pytest.skip("Node's clients are not installed (make interop-node): they are NOT tested")
    here = place("rabbitmq", result_backend="rpc://")
    here.worker(side)
    outcomes = run(
        here,
        "celery-ts",
        *[call("add", n, n) for n in range(20)],
        backend=here.settings["broker_url"].replace("amqp:", "rpc:"),
    )
    assert [found.get("value", found) for found in outcomes] == [2 * n for n in range(20)]
