"""Which delays through a named exchange may go by Celery's ladder."""

from __future__ import annotations

import pytest

from celeriac.transports.amqp.topology import Specs
from celeriac.transports.base import QueueSpec

QUORUM = {"x-queue-type": "quorum"}


def specs(*queues: QueueSpec) -> Specs:
    made = Specs()
    for queue in queues:
        made.tell(queue)
    return made


def queue(name: str, exchange: str, key: str, kind: str = "topic", quorum: bool = True) -> QueueSpec:
    arguments = QUORUM if quorum else {}
    return QueueSpec(name=name, exchange=exchange, exchange_type=kind, routing_key=key, arguments=arguments)


@pytest.mark.parametrize(
    "others",
    [(), (queue("b", "other", "b"),), (queue("b", "things", "a"),), (queue("b", "other", "a", quorum=False),)],
)
def test_the_exchange_of_a_quorum_queue_is_served(others: tuple[QueueSpec, ...]) -> None:
    found = specs(queue("a", "things", "a"), *others).served_by_ladder("things", "a")
    assert found is not None
    assert found.exchange == "things"


@pytest.mark.parametrize(
    ("queues", "key"),
    [
        ([], "a"),
        ([queue("a", "things", "a", kind="direct")], "a"),
        ([queue("a", "things", "a", quorum=False)], "a"),
        ([queue("a", "things", "a"), queue("b", "other", "a")], "a"),
        ([queue("a", "things", "x.#"), queue("b", "other", "a")], "x.a"),
        ([queue("a", "things", "a"), queue("b", "other", "#")], "a"),
    ],
)
def test_what_the_ladder_cannot_keep_apart_stays_with_the_worker(queues: list[QueueSpec], key: str) -> None:
    assert specs(*queues).served_by_ladder("things", key) is None
