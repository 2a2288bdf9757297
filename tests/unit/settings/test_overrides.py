"""Settings on the command line."""

from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured, UnknownSetting
from celeriac.settings.loading import parse_overrides


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("worker.prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        ("WORKER_Prefetch_Multiplier=1", {"worker_prefetch_multiplier": 1}),
        (".prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        ("_prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        ("prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        ("enable_utc=no", {"enable_utc": False}),
        ("broker.heartbeat=(int)0", {"broker_heartbeat": 0.0}),
        ("broker.heartbeat=none", {"broker_heartbeat": None}),
        ("task.acks_late=ON", {"task_acks_late": True}),
        ("task.time_limit=2.5", {"task_time_limit": 2.5}),
        ("task.default_queue=none", {"task_default_queue": "none"}),
        ("broker.url=a://u:p=q@h", {"broker_url": "a://u:p=q@h"}),
        ("worker.concurrency=auto", {"worker_concurrency": "auto"}),
        ("worker.concurrency=8", {"worker_concurrency": 8}),
        ("imports=a, b,", {"imports": ("a", "b")}),
        ('imports=["a"]', {"imports": ("a",)}),
        ('accept_content=(list)["json","yaml"]', {"accept_content": ("json", "yaml")}),
        ('broker.transport_options={"a": 1}', {"broker_transport_options": {"a": 1}}),
        ("broker.use_ssl=true", {"broker_use_ssl": True}),
        ('broker.use_ssl=(json){"ca_certs": "x"}', {"broker_use_ssl": {"ca_certs": "x"}}),
        ("task.compression=(json)null", {"task_compression": None}),
        ("result.backend_max_retries=inf", {"result_backend_max_retries": float("inf")}),
    ],
)
def test_text_becomes_the_declared_type(argument: str, expected: dict[str, Any]) -> None:
    found = parse_overrides([argument], "worker")
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        ("worker.prefetch_multiplyer=1", UnknownSetting, "Did you mean 'worker_prefetch_multiplier'"),
        ("worker.prefetch_multiplier", ImproperlyConfigured, "sets nothing"),
        ("=1", ImproperlyConfigured, "sets nothing"),
        ("task.acks_late=maybe", ImproperlyConfigured, "task_acks_late must be bool, which 'maybe' is not"),
        ("worker.prefetch_multiplier=(int)x", ImproperlyConfigured, "must be int"),
        ("worker.prefetch_multiplier=(json){", ImproperlyConfigured, "must be int"),
        ("imports=(dict)[]", ImproperlyConfigured, "must be list of str"),
        ("imports=(foo)[]", ImproperlyConfigured, r"no cast \(foo\)"),
        ("broker.port=secret", ImproperlyConfigured, "broker_port must be int or None"),
    ],
)
def test_mistakes_are_explained(argument: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parse_overrides([argument], "worker")


def test_later_arguments_win() -> None:
    assert parse_overrides([".concurrency=1", ".concurrency=2"], "worker") == {"worker_concurrency": 2}
