"""Delays kept by RabbitMQ: the ladder of ``celery_delayed_*`` queues that newer Celerys use with quorum queues."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from fleet import CELERY, MIXED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]
LADDER = {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}


def call(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "options": options}


def test_delays_of_one_party_are_kept_for_the_other(place: Callable[..., Place], direction: Direction) -> None:
    producer, consumer = direction
    here = place("rabbitmq", **LADDER)
    here.worker(consumer)
    began = time.time()
    ids = here.send(producer, call("mark", "soon", countdown=2.2), call("mark", "eta", eta_in=2.2), call("mark", "now"))
    here.send(producer, call("mark", "late", countdown=3600), call("mark", "late", eta_in=3600))
    assert [found["state"] for found in here.get(producer, ids)] == ["SUCCESS"] * 3
    for task_id in ids[:2]:
        ((*_, at),) = here.notes("mark", task_id)
        assert at >= began + 2.2
    here.until(lambda: here.ask(CELERY, "ladder") == 2, "those that are due in an hour rest on the ladder")


def test_retries_and_delays_of_a_mixed_fleet(place: Callable[..., Place]) -> None:
    here = place("rabbitmq", **LADDER)
    workers = [here.worker(side, wait=False) for side in MIXED]
    for worker in workers:
        worker.wait_for(" ready")
    marks = [task_id for side in MIXED for task_id in here.send(side, *[call("mark", countdown=1.2)] * 10)]
    tries = [task_id for side in MIXED for task_id in here.send(side, *[call("flaky", 2, 1)] * 4)]
    for side in MIXED:
        assert {found["state"] for found in here.get(side, marks)} == {"SUCCESS"}
        assert {found["repr"] for found in here.get(side, tries)} == {"2"}
    assert Counter(note[1] for note in here.notes("mark", *marks)) == Counter(marks)
    assert all([note[2] for note in here.notes("try", task_id)] == [0, 1, 2] for task_id in tries)


def test_a_message_that_waited_for_nobody(place: Callable[..., Place], direction: Direction) -> None:
    """Sent with a delay before any worker has been there; the delay is over when the first one comes."""
    producer, consumer = direction
    here = place("rabbitmq", **LADDER)
    here.worker(producer).kill()  # the ladder is set up by workers
    (task_id,) = here.send(producer, call("mark", countdown=1))
    late = time.time() + 1.5
    here.until(lambda: time.time() > late)
    here.worker(consumer)
    assert here.get(producer, [task_id])[0]["state"] == "SUCCESS"
