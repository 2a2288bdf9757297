"""What is found in a configuration, and how bad it is."""

from datetime import timedelta
from typing import Any

import pytest

from celeriac.settings import Settings
from celeriac.settings.check import Finding, check, check_configuration, differences
from celeriac.settings.loading import Configuration, load


def findings(**values: Any) -> set[tuple[str, str]]:
    return {(finding.level, finding.setting) for finding in check(Settings(**values), values)}


def test_defaults_are_without_findings() -> None:
    assert check(Settings(), {}) == []


@pytest.mark.parametrize(
    ("values", "level", "setting"),
    [
        ({"accept_content": ["json", "pickle"]}, "warning", "accept_content"),
        ({"accept_content": ["json", "application/x-python-serialize"]}, "warning", "accept_content"),
        ({"result_accept_content": ["json", "pickle"]}, "warning", "result_accept_content"),
        ({"task_serializer": "yaml"}, "warning", "task_serializer"),
        ({"result_serializer": "msgpack", "result_accept_content": ["json"]}, "warning", "result_serializer"),
        ({"task_serializer": "auth", "accept_content": ["auth"]}, "error", "security_key"),
        ({"task_reject_on_worker_lost": True}, "note", "task_reject_on_worker_lost"),
        ({"task_reject_on_worker_lost": True, "task_acks_late": False}, "warning", "task_reject_on_worker_lost"),
        ({"task_acks_late": False}, "note", "task_acks_late"),
        ({"task_acks_late": False, "task_acks_on_failure": False}, "note", "task_acks_on_failure"),
        ({"task_soft_time_limit": 10, "task_time_limit": 10}, "warning", "task_soft_time_limit"),
        ({"task_time_limit": 10, "worker_pool": "solo"}, "warning", "task_time_limit"),
        ({"task_time_limit": 300}, "note", "worker_shutdown_grace"),
        ({"task_time_limit": 20}, "note", "broker_lease"),
        ({"broker_lease": 1}, "warning", "broker_lease"),
        ({"broker_lease": timedelta(hours=1)}, "warning", "broker_lease"),
        ({"broker_lease": 0}, "error", "broker_lease"),
        (
            {"broker_transport_options": {"visibility_timeout": 60}, "task_time_limit": 90},
            "warning",
            "broker_transport_options",
        ),
        (
            {
                "broker_transport_options": {"visibility_timeout": 60},
                "beat_schedule": {"x": {"task": "t", "schedule": 1, "options": {"countdown": 90}}},
            },
            "warning",
            "broker_transport_options",
        ),
        ({"result_expires": None}, "warning", "result_expires"),
        ({"result_expires": 0}, "warning", "result_expires"),
        ({"result_expires": -1}, "error", "result_expires"),
        ({"result_failure_expires": 0}, "warning", "result_failure_expires"),
        ({"task_always_eager": True}, "warning", "task_always_eager"),
        ({"task_protocol": 3}, "error", "task_protocol"),
        ({"task_protocol": 1}, "warning", "task_protocol"),
        ({"task_default_queue_type": "stream"}, "error", "task_default_queue_type"),
        ({"task_default_rate_limit": "10/d"}, "error", "task_default_rate_limit"),
        ({"worker_redirect_stdouts_level": "LOUD"}, "error", "worker_redirect_stdouts_level"),
        ({"worker_prefetch_multiplier": 0}, "warning", "worker_prefetch_multiplier"),
        ({"worker_prefetch_multiplier": -1}, "error", "worker_prefetch_multiplier"),
        ({"worker_max_tasks_per_child": 0}, "error", "worker_max_tasks_per_child"),
        ({"timezone": "Europe/Berlim"}, "error", "timezone"),
        ({"control_queue_durable": True}, "error", "control_queue_durable"),
        ({"event_queue_durable": True}, "error", "event_queue_durable"),
        ({"broker_url": "memory://"}, "warning", "broker_url"),
        ({"result_backend": "cache+memory://"}, "warning", "result_backend"),
        ({"result_backend": "db"}, "error", "database_url"),
        ({"broker_url": "a://", "broker_host": "h"}, "note", "broker_host"),
        ({"broker_pool_limit": 0}, "note", "broker_pool_limit"),
        ({"task_queues": {"a": {}}, "task_create_missing_queues": False}, "error", "task_default_queue"),
        (
            {"task_queues": {"celery": {}}, "task_create_missing_queues": False, "task_routes": {"x": {"queue": "b"}}},
            "error",
            "task_routes",
        ),
        ({"beat_schedule": {"x": {"task": "t"}}}, "error", "beat_schedule"),
        ({"beat_schedule": {"x": {"task": "t", "schedule": 1, "arguments": ()}}}, "warning", "beat_schedule"),
        ({"task_publish_retry_policy": {"retries": 3}}, "warning", "task_publish_retry_policy"),
        ({"task_queue_max_priority": 9, "task_default_queue_type": "quorum"}, "warning", "task_queue_max_priority"),
        ({"worker_disable_rate_limits": True, "task_default_rate_limit": 3}, "warning", "task_default_rate_limit"),
        ({"task_track_started": True, "task_ignore_result": True}, "note", "task_track_started"),
        (
            {"worker_deduplicate_successful_tasks": True, "broker_url": "redis://"},
            "warning",
            "worker_deduplicate_successful_tasks",
        ),
    ],
)
def test_rules(values: dict[str, Any], level: str, setting: str) -> None:
    assert (level, setting) in findings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"task_soft_time_limit": 10, "task_time_limit": 30},
        {"task_serializer": "yaml", "accept_content": ["application/x-yaml", "json"]},
        {"control_queue_durable": True, "control_queue_exclusive": False},
        {"task_default_rate_limit": "10/m"},
        {"timezone": "Europe/Berlin"},
        {"task_queues": {"celery": {}}, "task_create_missing_queues": False},
        {"beat_schedule": {"x": {"task": "t", "schedule": 1}}},
        {"broker_host": "h"},
    ],
)
def test_what_is_right_is_left_alone(values: dict[str, Any]) -> None:
    assert findings(**values) == set()


def names_found(given: dict[str, Any], namespace: str | None = None) -> list[Finding]:
    return check(Settings(), given, namespace)


def test_unknown_names() -> None:
    assert names_found({"task_ack_late": 1}) == [
        Finding("warning", "task_ack_late", "There is no setting 'task_ack_late'. Did you mean 'task_acks_late'?")
    ]
    assert names_found({"CELERY_ACK_LATE": 1})[0].text.endswith("Did you mean 'CELERY_ACKS_LATE'?")
    assert names_found({"CELERY_ABSOLUTELY_OTHER": 1})[0].level == "warning"
    assert names_found({"acccept_content": 1})[0].text.endswith("Did you mean 'accept_content'?")
    assert names_found({"FOO": 1, "bar": 2}) == [
        Finding("note", "FOO", "No settings of celeriac, and kept for you: FOO, bar.")
    ]
    assert names_found({"TIME_ZONE": "UTC"}) == []


def test_names_in_a_namespace() -> None:
    assert names_found({"CELERY_TASK_ACKS_LATE": 1, "task_serializer": "json"}, "CELERY") == []
    assert names_found({"CELERY_TASK_ACK_LATE": 1}, "CELERY")[0].text.endswith("Did you mean 'CELERY_TASK_ACKS_LATE'?")
    old = names_found({"CELERY_ACKS_LATE": 1}, "CELERY")[0]
    assert (old.level, "write CELERY_TASK_ACKS_LATE" in old.text) == ("warning", True)


def test_old_names_are_noted() -> None:
    found = names_found({"CELERY_ACKS_LATE": True, "include": ["a"]})
    assert [(finding.level, finding.setting) for finding in found] == [("note", "CELERY_ACKS_LATE")] * 2


def test_the_worst_comes_first() -> None:
    given = {"task_acks_late": False, "task_always_eager": True, "task_protocol": 7}
    assert [finding.level for finding in check(Settings(**given), given)] == ["error", "warning", "note"]  # type: ignore[arg-type]


def test_a_configuration_that_cannot_be_read_is_a_finding() -> None:
    wrong = load({"task_acks_late": "x; y", "imports": 3, "task_ack_late": 1}, environ={})
    found = [(finding.level, finding.setting) for finding in check_configuration(wrong)]
    assert sorted(found) == [("error", "imports"), ("error", "task_acks_late"), ("warning", "task_ack_late")]
    mixed = load({"task_acks_late": True, "BROKER_URL": "a://"}, environ={})
    assert "BROKER_URL -> broker_url" in check_configuration(mixed)[0].text
    missing = load("no_such_module_at_all", environ={})
    assert check_configuration(missing)[0].level == "error"


def test_a_configuration_is_checked_as_it_was_given() -> None:
    configuration = Configuration({"task_always_eager": True}, namespace="CELERY", environ={})
    configuration.config_from_object({"CELERY_ACKS_LATE": False, "CELERY_TASK_PROTOCOL": 1, "DEBUG": True})
    found = [(finding.level, finding.setting) for finding in check_configuration(configuration)]
    assert sorted(found) == [
        ("warning", "CELERY_ACKS_LATE"),
        ("warning", "task_always_eager"),
        ("warning", "task_protocol"),
    ]


def test_differences_come_from_the_declarations() -> None:
    found = {difference.name: difference for difference in differences()}
    assert {"broker_url", "result_backend", "task_acks_late", "task_reject_on_worker_lost"} <= set(found)
    assert (found["task_acks_late"].ours, found["task_acks_late"].celerys) == ("`True`", "`False`")
    assert all(difference.why for difference in found.values())
