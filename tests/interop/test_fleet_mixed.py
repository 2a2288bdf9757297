"""A worker of Celery and one of celeriac on the same queues: every task runs where it will, and runs once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from fleet import CELERY, MIXED, OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place, Process

pytestmark = pytest.mark.interop
#: so that a killed worker's messages come back within a test (Redis; RabbitMQ sees the connection go)
FAST_RECOVERY: dict[str, Any] = {
    "broker_transport_options": {
        "unacked_restore_interval": 0.2, "unacked_restore_throttle": 1, "polling_interval": 0.1,
    },
    "broker_lease": 4.0,
}  # fmt: skip


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, "options": options}


def test_five_hundred_tasks_run_once_each(both: Place) -> None:
    ids = [task_id for side in MIXED for task_id in both.send(side, *[call("mark", n) for n in range(250)])]
    both.until(lambda: len(both.notes("mark", *ids)) >= len(ids))
    outcomes = both.get(CELERY, ids)
    notes = both.notes("mark", *ids)
    assert Counter(note[1] for note in notes) == Counter(ids)
    assert {note[3] for note in notes} == set(MIXED)
    assert {found["state"] for found in outcomes} == {"SUCCESS"}


#: Celery sends the retry before it stores RETRY: without a pause the outcome of a faster worker is overwritten by that
PAUSE = 0.4


def test_retries_are_counted_wherever_they_run(both: Place) -> None:
    ids = [id_ for side in MIXED for id_ in both.send(side, *[call("flaky", 4, kwargs={"countdown": PAUSE})] * 6)]
    for side in MIXED:
        assert [found["repr"] for found in both.get(side, ids)] == ["4"] * len(ids)
    for task_id in ids:
        assert [note[2] for note in both.notes("try", task_id)] == [0, 1, 2, 3, 4]
    assert {note[3] for note in both.notes("try", *ids)} == set(MIXED)


def test_retries_end_where_they_should(both: Place) -> None:
    ids = [task_id for side in MIXED for task_id in both.send(side, *[call("auto")] * 5)]
    ids += [
        id_
        for side in MIXED
        for id_ in both.send(side, *[call("flaky", 9, kwargs={"max_retries": 2, "countdown": PAUSE})] * 5)
    ]
    for side in MIXED:
        outcomes = both.get(side, ids)
        assert [found["state"] for found in outcomes] == ["FAILURE"] * len(ids)
        errors = Counter(found["error"] for found in outcomes)
        assert errors == {"builtins.KeyError": len(ids) // 2, "builtins.ValueError": len(ids) // 2}
    for task_id in ids:
        assert [note[2] for note in both.notes("try", task_id)] == [0, 1, 2]


def test_delayed_tasks_run_once_each(both: Place) -> None:
    ids = [task_id for side in MIXED for task_id in both.send(side, *[call("mark", countdown=1.0)] * 20)]
    assert {found["state"] for found in both.get(CELERY, ids)} == {"SUCCESS"}
    assert Counter(note[1] for note in both.notes("mark", *ids)) == Counter(ids)


@pytest.mark.parametrize("leaver", dict.fromkeys(MIXED))
def test_a_worker_that_ends_leaves_the_rest_to_the_other(place: Callable[..., Place], broker: str, leaver: str) -> None:
    """What it had taken and not begun goes back, in both parties' ways."""
    stayer = MIXED[leaver == MIXED[0]]
    here = place(broker)
    worker = here.worker(leaver)
    flag = here.folder / "go"
    first = here.send(leaver, call("wait", str(flag)), call("wait", str(flag)))
    here.until(lambda: len(here.notes("mark", *first)) == 2)
    rest = here.send(leaver, *[call("mark", n) for n in range(20)], call("mark", "later", countdown=1.5))
    worker.process.terminate()
    worker.wait_for("arm shutdown")
    flag.touch()
    worker.process.wait(60)
    assert {found["repr"] for found in here.get(leaver, first)} == {"'seen'"}
    if broker == "redis" and leaver == OURS:
        assert "celery: 1 delayed message" in here.celeriac("rescue", "--delayed", "--force")
    here.worker(stayer)
    assert {found["state"] for found in here.get(leaver, rest)} == {"SUCCESS"}
    assert Counter(note[1] for note in here.notes("mark", *rest)) == Counter(rest)


@pytest.mark.parametrize("victim", dict.fromkeys(MIXED))
def test_a_killed_worker_loses_nothing(place: Callable[..., Place], broker: str, victim: str) -> None:
    """On RabbitMQ whoever is there takes over; on Redis another worker of the same party or a command gives it back."""
    other = MIXED[victim == MIXED[0]]
    here = place(broker, **FAST_RECOVERY)
    doomed = here.worker(victim)
    (task_id,) = here.send(other, call("hang", str(here.folder / "begun")))
    here.until(lambda: here.notes("start", task_id))
    here.worker(other)
    doomed.kill()
    if broker == "redis":
        if victim == OURS:
            here.worker(victim)
        else:
            here.celeriac("rescue", "--older-than", "0", "--force")
    (found,) = here.get(other, [task_id])
    starts = here.notes("start", task_id)
    assert (found["state"], len(starts)) == ("SUCCESS", 2)
    assert starts[0][2] == victim
    if broker == "rabbitmq":
        assert found["value"] == other
    after = here.send(victim, *[call("mark", n) for n in range(10)])
    assert {found["state"] for found in here.get(other, after)} == {"SUCCESS"}


def test_a_whole_worker_killed_under_load(place: Callable[..., Place], broker: str) -> None:
    """Every task of late acknowledgement ends; only those that ran at the kill may have run twice."""
    here = place(broker, **FAST_RECOVERY, task_acks_late=True, task_reject_on_worker_lost=True)
    workers: list[Process] = [here.worker(side, wait=False) for side in MIXED]
    for worker in workers:
        worker.wait_for(" ready")
    ids = [task_id for side in MIXED for task_id in here.send(side, *[call("mark", n) for n in range(100)])]
    here.until(lambda: len(here.notes("mark", *ids)) > 20)
    workers[-1].kill()
    if broker == "redis":
        here.worker(MIXED[-1])
    assert {found["state"] for found in here.get(CELERY, ids)} == {"SUCCESS"}
    runs = Counter(note[1] for note in here.notes("mark", *ids))
    assert len(runs) == len(ids)
    assert max(runs.values()) <= 2
