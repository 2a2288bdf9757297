"""Which broker is tried when, what is declared how, and how errors are told."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from celeriac.amqp.errors import ChannelClosed, ConnectionClosed, ConnectionLost, DeadlinePassed, LoginRefused
from celeriac.errors import (
    BrokerUnavailable,
    ImproperlyConfigured,
    OperationalError,
    PublishRejected,
    QueueNotFound,
)
from celeriac.transports.amqp.addresses import Addresses
from celeriac.transports.amqp.errors import connect_error, is_ack_timeout, operational
from celeriac.transports.amqp.topology import Specs, arguments_of, is_durable
from celeriac.transports.base import QueueSpec
from celeriac.transports.url import BrokerUrl


class Settings:
    broker_transport_options: ClassVar[Any] = {}
    broker_use_ssl: Any = False
    broker_connection_timeout = 0.5
    broker_heartbeat: float | None = 120.0
    broker_login_method = None
    broker_failover_strategy: Any = None
    broker_max_message_bytes = 1000


def addresses(strategy: Any = None, **others: Any) -> Addresses:
    settings: Any = type("Chosen", (Settings,), {"broker_failover_strategy": strategy, **others})
    return Addresses(
        "amqp://u:secret@127.0.0.1:1/a;amqp://127.0.0.1:1/b;amqp://127.0.0.1:1/c", settings, random.Random(1)
    )


def order(of: Addresses) -> list[int]:
    return list(of._in_turn())


def test_round_robin_begins_with_the_last_that_answered() -> None:
    turn = addresses()
    assert order(turn) == [0, 1, 2]
    turn._named(1, "test", 0.0)
    turn._answered(1)
    assert order(turn) == [1, 2, 0]


def test_shuffle_and_functions_order_the_addresses() -> None:
    shuffled = addresses("shuffle")
    assert len({tuple(order(shuffled)) for _ in range(50)}) > 1
    assert sorted(order(shuffled)) == [0, 1, 2]

    def backwards(urls: list[str]) -> Any:
        while True:  # as Celery's strategies do
            yield from reversed(urls)

    assert order(addresses(backwards)) == [2, 1, 0]
    with pytest.raises(ImproperlyConfigured, match="broker_failover_strategy"):
        order(addresses("by magic"))


def test_the_failure_of_all_is_one_error_without_secrets() -> None:
    with pytest.raises(BrokerUnavailable) as told:
        addresses().open("test", float("inf"))
    text = str(told.value)
    assert text.count("broker_url") == 3
    assert "secret" not in text
    assert "amqp://u:**@127.0.0.1:1/a" in text


@pytest.mark.parametrize(("setting", "interval"), [(120.0, 10.0), (30.0, 30.0), (0, 0.0), (None, 0.0)])
def test_heartbeats_are_frequent_unless_set(setting: float | None, interval: float) -> None:
    assert addresses(broker_heartbeat=setting)._named(0, "consumer", None).heartbeat == interval


def test_publishers_have_no_heartbeats_and_a_name() -> None:
    parameters = addresses()._named(0, "publisher", 0.0)
    assert parameters.heartbeat == 0
    assert str(parameters.client_properties["connection_name"]).startswith("celeriac publisher")


def test_arguments_are_those_that_celery_sends() -> None:
    spec = QueueSpec(
        name="q", max_priority=9, expires=1.5, message_ttl=60.0, arguments={"x-queue-type": "quorum", "x-expires": 7}
    )
    assert arguments_of(spec) == {
        "x-expires": 7, "x-message-ttl": 60000, "x-max-priority": 9, "x-queue-type": "quorum"
    }  # fmt: skip
    assert is_durable("celeryev")
    assert not is_durable("reply.celery.pidbox")


def test_queues_are_declared_as_told_then_as_the_app_says() -> None:
    specs = Specs()
    default = specs.of("q")
    assert default == QueueSpec(name="q", exchange="q", routing_key="q")

    def app(name: str) -> QueueSpec:
        if name == "unknown":
            raise QueueNotFound("no")
        return QueueSpec(name=name, max_priority=3)

    specs.ask(app)
    assert specs.of("q") == QueueSpec(name="q", max_priority=3)
    assert specs.of("unknown") is None
    specs.tell(QueueSpec(name="q", durable=False))
    specs.tell(QueueSpec(name="q.dead"), hidden=True)
    assert specs.of("q") == QueueSpec(name="q", durable=False)
    assert specs.names() == ["q"]
    specs.forget("q")
    assert specs.of("q") == QueueSpec(name="q", max_priority=3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ChannelClosed(403, "ACCESS_REFUSED"), OperationalError),
        (ChannelClosed(404, "NOT_FOUND"), QueueNotFound),
        (ChannelClosed(405, "RESOURCE_LOCKED"), OperationalError),
        (ChannelClosed(406, "PRECONDITION_FAILED"), OperationalError),
        (ChannelClosed(311, "CONTENT_TOO_LARGE"), PublishRejected),
        (ConnectionClosed(320, "CONNECTION_FORCED"), BrokerUnavailable),
        (ConnectionClosed(541, "INTERNAL_ERROR"), BrokerUnavailable),
        (ConnectionLost(0, "gone"), BrokerUnavailable),
        (DeadlinePassed("late"), BrokerUnavailable),
        (OSError("reset"), BrokerUnavailable),
    ],
)
def test_every_error_of_the_broker_has_a_kind(error: Any, kind: type[Exception]) -> None:
    found = operational(error, "Doing")
    assert type(found) is kind
    assert str(found).startswith("Doing: ")


def test_wrong_settings_are_fatal_only_before_the_first_contact() -> None:
    url = BrokerUrl.parse("amqp://me:secret@host//")
    refused = LoginRefused(403, "refused")
    assert isinstance(connect_error(refused, url, met_before=False), ImproperlyConfigured)
    later = connect_error(refused, url, met_before=True)
    assert isinstance(later, BrokerUnavailable)
    assert "secret" not in str(later)


def test_an_acknowledgement_timeout_is_recognised() -> None:
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms."
    assert is_ack_timeout(ChannelClosed(406, text))
    assert not is_ack_timeout(ChannelClosed(406, "PRECONDITION_FAILED - unknown delivery tag 3"))
