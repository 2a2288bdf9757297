"""What type checkers must see in settings; read by mypy and pyright, never run.

Lines with ``type: ignore`` are errors that must be reported: an unused ignore fails the check.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from typing import Any, Literal, assert_type

from celeriac.settings import BrokerSettings, RedisSettings, ResultSettings, Settings, TaskSettings
from celeriac.settings.loading import Configuration, load, zone


def reading(settings: Settings) -> None:
    assert_type(settings.task_acks_late, bool)
    assert_type(settings.broker_url, str | None)
    assert_type(settings.broker_lease, float)
    assert_type(settings.task_time_limit, float | None)
    assert_type(settings.result_expires, float | None)
    assert_type(settings.worker_concurrency, int | Literal["auto"] | None)
    assert_type(settings.imports, Sequence[str])
    assert_type(settings.beat_schedule, Mapping[str, Any])
    assert_type(settings.redis_host, str | None)
    assert_type(settings.security_key_password, bytes | None)
    print(settings.task_ack_late)  # type: ignore[attr-defined]  # pyright: ignore


def building() -> None:
    Settings(task_acks_late=False, broker_url="redis://", task_time_limit=timedelta(minutes=1), imports=["a"])
    Settings(broker_url=["a://", "b://"], result_expires=None, worker_concurrency="auto", broker_lease=5)
    BrokerSettings(broker_url="redis://")
    Settings(task_acks_late="no")  # type: ignore[arg-type]  # pyright: ignore
    Settings(task_time_limit="10")  # type: ignore[arg-type]  # pyright: ignore
    Settings(task_ack_late=True)  # type: ignore[call-arg]  # pyright: ignore
    BrokerSettings(task_acks_late=True)  # type: ignore[call-arg]  # pyright: ignore
    assert_type(Settings().replace(task_acks_late=False), Settings)


def passing(settings: Settings) -> None:
    def broker(_: BrokerSettings) -> None: ...
    def task(_: TaskSettings) -> None: ...
    def result(_: ResultSettings) -> None: ...
    def redis(_: RedisSettings) -> None: ...

    broker(settings)
    task(settings)
    result(settings)
    redis(settings)
    result(RedisSettings())
    redis(ResultSettings())  # type: ignore[arg-type]  # pyright: ignore


def configuration() -> None:
    conf = load({"task_acks_late": False})
    assert_type(conf, Configuration)
    assert_type(conf.settings, Settings)
    assert_type(conf.settings.task_acks_late, bool)
    assert_type(conf.task_acks_late, bool)
    assert_type(conf.result_expires, float | timedelta | None)
    assert_type(conf.broker_url, str | Sequence[str] | None)
    assert_type(conf.worker_concurrency, int | Literal["auto"] | None)
    assert_type(conf.MY_OWN, Any)
    conf.task_time_limit = timedelta(minutes=1)
    conf.MY_OWN = 1
    conf.task_acks_late = "no"  # type: ignore[assignment]  # pyright: ignore
    assert_type(zone(conf.settings), tzinfo)
