"""Every setting of Celery is there, with its default, type and old name, unless a difference is declared."""

import json
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured, UnknownSetting
from celeriac.settings import BrokerSettings, ResultSettings, Settings, TaskSettings
from celeriac.settings.stores import RedisSettings
from celeriac.settings.values import coerce

CELERY: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "celery_settings.json").read_text())
UNDECLARED_IN_CELERY: dict[str, Any] = {
    **{
        f"{command}_{option}": None
        for command in ("worker", "beat", "events")
        for option in ("logfile", "pidfile", "uid", "gid", "umask", "executable")
    },
    "override_backends": {},
    "result_backend_thread_safe": False,
    "redis_backend_health_check_interval": None,
    "redis_backend_credential_provider": None,
    "redis_client_name": None,
    "cassandra_secure_bundle_path": None,
    "dynamodb_endpoint_url": None,
    "gcs_threadpool_maxsize": 10,
    "firestore_project": None,
}
OURS = {
    "broker_lease": 30.0,
    "broker_publish_timeout": 10.0,
    "broker_max_message_bytes": 16 * 1024 * 1024,
    "task_max_decompressed_bytes": 64 * 1024 * 1024,
    "task_crash_budget": 3,
    "task_dead_letter_expires": 14 * 24 * 3600.0,
    "task_queue_limits": {},
    "task_limit_store": None,
    "task_revoke_expires": 30 * 24 * 3600.0,
    "worker_shutdown_grace": 30.0,
    "worker_children": None,
    "worker_look_ahead": 256,
    "worker_loop": "auto",
    "worker_probes": None,
    "worker_probe_patience": 30.0,
}
#: values that Celery's declared type lets a user give
EXAMPLES: dict[str, list[Any]] = {"bool": [True, False], "int": [1], "float": [1.5], "dict": [{}]}


#: ours and Celery's
DIFFERENT = {
    "task_acks_late": (True, False),
    "redis_socket_timeout": (10.0, 120.0),
    "worker_prefetch_multiplier": (None, 4),
}


def celerys_default(name: str) -> Any:
    return eval(CELERY[name]["default"], {"timedelta": timedelta, "inf": inf})


def test_there_are_celerys_settings_and_ours_and_no_others() -> None:
    assert set(Settings.declarations) == {*CELERY, *UNDECLARED_IN_CELERY, *OURS}
    assert {name for name, declared in Settings.declarations.items() if declared.ours} == set(OURS)


@pytest.mark.parametrize("name", CELERY)
def test_default_is_celerys_or_declared_to_differ(name: str) -> None:
    declared = Settings.declarations[name]
    if name in DIFFERENT:
        assert (declared.default, declared.differs is not None and declared.differs.celery) == DIFFERENT[name]
    else:
        assert declared.default == celerys_default(name)
        assert type(declared.default) is type(celerys_default(name))


@pytest.mark.parametrize("name", [*UNDECLARED_IN_CELERY, *OURS])
def test_default_of_the_others(name: str) -> None:
    assert getattr(Settings(), name) == {**UNDECLARED_IN_CELERY, **OURS}[name]


@pytest.mark.parametrize("name", CELERY)
def test_old_name_is_celerys(name: str) -> None:
    assert Settings.declarations[name].was == CELERY[name]["was"]


def test_other_settings_have_no_old_name() -> None:
    assert [name for name in (*UNDECLARED_IN_CELERY, *OURS) if Settings.declarations[name].was] == []


@pytest.mark.parametrize("name", Settings.declarations)
def test_default_is_of_the_declared_type(name: str) -> None:
    declared = Settings.declarations[name]
    assert coerce(declared.default, declared.annotation) == declared.initial
    assert declared.type_text
    assert declared.doc.endswith((".", "…"))
    assert declared.group


@pytest.mark.parametrize("name", CELERY)
def test_values_of_celerys_type_are_taken(name: str) -> None:
    declared = Settings.declarations[name]
    for example in EXAMPLES.get(CELERY[name]["type"], []):
        declared.coerced(example)


def test_durations_are_seconds_inside() -> None:
    assert Settings().result_expires == 86400.0
    assert type(Settings().broker_connection_timeout) is float
    assert type(Settings(broker_heartbeat=7).broker_heartbeat) is float
    assert Settings(task_time_limit=timedelta(minutes=2)).task_time_limit == 120.0


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("task_acks_late", 0, False),
        ("imports", ["a", "b"], ("a", "b")),
        ("imports", "a", ("a",)),
        ("accept_content", {"pickle", "json"}, ("json", "pickle")),
        ("worker_concurrency", 4.0, 4),
        ("worker_concurrency", "auto", "auto"),
        ("worker_state_db", Path("state.db"), "state.db"),
        ("security_key_password", "abc", b"abc"),
        ("broker_url", ["a://", "b://"], "a://;b://"),
        ("result_backend_max_retries", 3, 3.0),
        ("broker_use_ssl", {"ca_certs": "x"}, {"ca_certs": "x"}),
    ],
)
def test_what_loses_nothing_is_converted(name: str, value: Any, becomes: Any) -> None:
    found = getattr(Settings(**{name: value}), name)
    assert (found, type(found)) == (becomes, type(becomes))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("task_acks_late", "no", "task_acks_late must be bool, not 'no' of type str"),
        ("task_acks_late", None, "task_acks_late must be bool, not None of type NoneType"),
        ("task_time_limit", "10", "task_time_limit must be seconds or timedelta or None, not '10' of type str"),
        ("result_backend_max_retries", float("nan"), "result_backend_max_retries must be float, not nan of type float"),
        ("broker_pool_limit", True, "broker_pool_limit must be int or None, not True of type bool"),
        ("worker_concurrency", "many", "worker_concurrency must be int or 'auto' or None, not 'many' of type str"),
        ("imports", 3, "imports must be list of str, not 3 of type int"),
        ("beat_schedule", [], "beat_schedule must be dict, not [] of type list"),
        ("broker_url", [], "broker_url must be URL or None, not [] of type list"),
        (
            "broker_url",
            ["a://u:secret@h", 3],
            "broker_url must be URL or None, not ['a://u:********@h', 3] of type list",
        ),
        ("broker_password", 12345, "broker_password must be str or None, not a hidden value of type int"),
    ],
)
def test_what_does_not_fit_is_refused_with_name_value_and_type(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Settings(**{name: value})
    assert str(caught.value) == expected


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"task_acks_late .*; imports "):
        Settings(task_acks_late="x", imports=1)  # type: ignore[arg-type]


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownSetting, match="Did you mean 'task_acks_late'"):
        Settings(task_ack_late=True)  # type: ignore[call-arg]
    with pytest.raises(UnknownSetting, match="old name of 'task_acks_late'"):
        Settings(CELERY_ACKS_LATE=True)  # type: ignore[call-arg]
    with pytest.raises(UnknownSetting, match="BrokerSettings has no setting"):
        BrokerSettings(task_acks_late=True)  # type: ignore[call-arg]


def test_settings_are_frozen_and_replaced() -> None:
    settings = Settings(broker_url="a://")
    with pytest.raises(AttributeError, match=r"replace\(task_acks_late="):
        settings.task_acks_late = False
    with pytest.raises(AttributeError):
        del settings.task_acks_late
    changed = settings.replace(broker_url="b://")
    assert (settings.broker_read_url, changed.broker_read_url) == ("a://", "b://")
    assert changed == Settings(broker_url="b://")
    assert changed != settings


def test_none_falls_back_to_what_it_stands_for() -> None:
    settings = Settings(
        task_default_queue="q", result_expires=5, accept_content=["yaml"], broker_connection_retry=False
    )
    assert (settings.task_default_exchange, settings.task_default_routing_key) == ("q", "q")
    assert (settings.result_chord_expires, settings.result_failure_expires) == (5.0, 5.0)
    assert settings.result_accept_content == ("yaml",)
    assert settings.broker_connection_retry_on_startup is False
    assert settings.task_acks_on_failure is None  # the task's own options come in between
    assert ResultSettings().result_accept_content is None


def test_the_parts_of_an_address_make_a_url() -> None:
    assert BrokerSettings().broker_url is None
    parts = BrokerSettings(broker_host="h", broker_user="u", broker_password="p/@", broker_port=5, broker_vhost="v")
    assert parts.broker_url == parts.broker_write_url == "amqp://u:p%2F%40@h:5/v"
    assert BrokerSettings(broker_transport="redis").broker_url == "redis://localhost/"
    assert BrokerSettings(broker_host="redis://h").broker_url == "redis://h"
    assert BrokerSettings(broker_host="h", broker_url="memory://").broker_url == "memory://"


def test_everything_is_every_group() -> None:
    settings = Settings()
    for group in (BrokerSettings, TaskSettings, ResultSettings, RedisSettings):
        assert isinstance(settings, group)
        assert {name: getattr(group(), name) for name in group.declarations}.keys() <= Settings.declarations.keys()
    assert "result_expires" in RedisSettings.declarations
    assert "redis_host" not in ResultSettings.declarations


def test_defaults_are_not_shared() -> None:
    first, second = Settings(), Settings()
    first.beat_schedule["x"] = {}  # type: ignore[index]
    assert second.beat_schedule == {}
    assert Settings.declarations["beat_schedule"].default == {}


def test_repr_shows_what_was_set_without_secrets() -> None:
    settings = Settings(broker_url="amqp://u:hidden@h//", task_acks_late=False, redis_password="hidden")
    assert "hidden" not in repr(settings)
    assert "task_acks_late=False" in repr(settings)
    assert repr(Settings()) == "Settings()"


def test_settings_can_be_copied_and_pickled() -> None:
    import copy
    import pickle

    settings = Settings(broker_url="a://", task_time_limit=3)
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    assert pickle.loads(pickle.dumps(settings)).replace(task_time_limit=4).broker_read_url == "a://"
