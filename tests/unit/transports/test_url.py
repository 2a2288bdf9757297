"""Broker URLs are read right and shown without secrets."""

from __future__ import annotations

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.transports.url import BrokerUrl, parse_many


def test_all_parts() -> None:
    url = BrokerUrl.parse("amqp://us%40er:p%2Fw%3A@host.example:5673/%2Fvhost?heartbeat=10&ssl=1")
    assert (url.scheme, url.username, url.password, url.host, url.port) == (
        "amqp",
        "us@er",
        "p/w:",
        "host.example",
        5673,
    )
    assert url.path == "/vhost"
    assert url.query == {"heartbeat": "10", "ssl": "1"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///relative.sqlite3", "relative.sqlite3"),
        ("sqlite:////abs/a b.sqlite3", "/abs/a b.sqlite3"),
        ("memory://", ""),
        ("amqp://h//", "/"),
        ("redis://h:1/2", "2"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert BrokerUrl.parse(text).path == path


@pytest.mark.parametrize(
    "text",
    [
        "amqp://guest:**@host:5672//", "memory://", "sqlite:///q.sqlite3", "sqlite:////a/q.sqlite3", "redis://[::1]:6379/0",
        "memory", "sqla+postgresql://u@h/db", "redis://:**@h", "amqp://h?heartbeat=1",
    ],
)  # fmt: skip
def test_shown_as_written(text: str) -> None:
    assert str(BrokerUrl.parse(text)) == text


def test_secrets_are_not_shown() -> None:
    url = BrokerUrl.parse("redis://user:s3cret@h/0?password=s3cret&Access_Key=s3cret&db=1")
    for shown in (str(url), repr(url), f"{url}"):
        assert "s3cret" not in shown
        assert "db=1" in shown
    assert BrokerUrl.parse(url.reveal()) == url


@pytest.mark.parametrize("text", ["", "://x", "1x://h", "amqp://u:s3cret@h:port/", "amqp://u:s3cret@[h/"])
def test_senseless_urls_are_refused_without_quoting_them(text: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        BrokerUrl.parse(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_fail_over_lists() -> None:
    assert [url.host for url in parse_many("redis://a;redis://b; redis://c")] == ["a", "b", "c"]
    assert [url.host for url in parse_many(["redis://a", "redis://b"])] == ["a", "b"]
    with pytest.raises(ImproperlyConfigured):
        parse_many(" ; ")
