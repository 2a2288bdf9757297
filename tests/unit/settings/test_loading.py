"""Sources, their precedence, names old and new, and the mapping that ``app.conf`` is."""

import copy
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from celeriac.errors import CeleryWarning, ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.loading import Configuration, load


def configured(given: Any = None, namespace: str | None = None, **keywords: Any) -> Configuration:
    return load(given, namespace=namespace, environ={}, **keywords)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("configuration_for_tests")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_sources_of_every_kind(module: ModuleType) -> None:
    class Config:
        task_default_queue = "q"

    module.task_default_queue = "q"  # type: ignore[attr-defined]
    module.Config = Config  # type: ignore[attr-defined]
    name = module.__name__
    for given in (
        {"task_default_queue": "q"}, Config, Config(), module, name, f"{name}:Config", f"{name}.Config",
        configured({"task_default_queue": "q"}), Settings(task_default_queue="q"),
    ):  # fmt: skip
        configuration = configured(given)
        assert configuration.task_default_queue == "q", given
        assert configuration.settings == Settings(task_default_queue="q"), given


def test_nothing_is_imported_before_it_is_needed() -> None:
    configuration = configured("no_such_module_at_all")
    configuration.task_acks_late = False
    configuration["include"] = ["a"]
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        _ = configuration.task_acks_on_timeout


def test_a_missing_module_may_be_silent() -> None:
    configuration = Configuration(environ={})
    configuration.config_from_object("no_such_module_at_all", silent=True)
    assert configuration.task_default_queue == "celery"
    with pytest.raises(ImportError):
        configuration.config_from_object("no_such_module_at_all", force=True)


def test_a_file_name_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configuration_file.py").write_text("task_acks_late = False")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="'configuration_file'"):
        configured("configuration_file.py").finalize()


def test_an_import_error_inside_the_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configuration_broken.py").write_text("import no_such_module_within")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_within"):
        configured("configuration_broken").finalize()


def test_a_missing_attribute_is_named(module: ModuleType) -> None:
    with pytest.raises(ImportError, match="has no 'Nothing'"):
        configured(f"{module.__name__}:Nothing").finalize()


def test_the_module_may_be_named_by_the_environment(module: ModuleType) -> None:
    module.task_default_queue = "q"  # type: ignore[attr-defined]
    configuration = Configuration(environ={"CONFIG": module.__name__})
    assert configuration.config_from_envvar("CONFIG") is True
    assert configuration.task_default_queue == "q"
    assert configuration.config_from_envvar("OTHER", silent=True) is False
    with pytest.raises(ImproperlyConfigured, match="OTHER is not set"):
        configuration.config_from_envvar("OTHER")


def test_precedence() -> None:
    environ = {"CELERY_BROKER_URL": "env://"}
    configuration = Configuration({"broker_url": "keyword://", "task_default_queue": "keyword"}, environ=environ)
    configuration.config_from_object({"task_default_queue": "object", "include": ["object"], "imports": ["object"]})
    assert configuration.broker_url == "env://"
    assert configuration.task_default_queue == "keyword"
    configuration.add_defaults({"include": ["added"], "task_default_queue": "added"})
    configuration.add_defaults(lambda: {"task_serializer": "yaml"})
    assert (configuration.include, configuration.imports) == (["added"], ["object"])
    assert (configuration.task_serializer, configuration.task_default_queue) == ("yaml", "keyword")
    configuration.task_default_queue = "changed"
    configuration.broker_url = "changed://"
    assert (configuration.task_default_queue, configuration.broker_url) == ("changed", "env://")
    configuration.override({"task_default_queue": "line", "broker_url": "line://"})
    assert (configuration.settings.task_default_queue, configuration.settings.broker_url) == ("line", "line://")


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"CELERY_BROKER_URL": "a://", "CELERIAC_BROKER_URL": "b://"}, "broker_url", "b://"),
        ({"CELERY_BROKER_URL": "a://", "CELERIAC_BROKER_URL": ""}, "broker_url", "a://"),
        ({"CELERY_BROKER_URL": "a://"}, "broker_read_url", "a://"),
        ({"CELERY_BROKER_URL": "a://", "CELERY_BROKER_WRITE_URL": "w://"}, "broker_write_url", "w://"),
        ({"CELERIAC_BROKER_READ_URL": "r://"}, "broker_read_url", "r://"),
        ({"CELERIAC_RESULT_BACKEND": "x://"}, "result_backend", "x://"),
        ({"CELERY_TASK_ACKS_LATE": "0"}, "task_acks_late", True),
    ],
)
def test_addresses_come_from_the_environment(environ: dict[str, str], name: str, value: Any) -> None:
    configuration = Configuration(environ=environ)
    assert configuration[name] == getattr(configuration, name) == getattr(configuration.settings, name) == value


def test_a_configuration_object_is_read_live() -> None:
    given = SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=False)
    configuration = configured(given, namespace="CELERY")
    assert configuration.settings.task_always_eager is False
    given.CELERY_TASK_ALWAYS_EAGER = True
    assert configuration.task_always_eager is True
    configuration.refresh()
    assert configuration.settings.task_always_eager is True


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_old_names_are_understood_everywhere() -> None:
    configuration = configured({"CELERY_ACKS_LATE": False, "CELERYD_TASK_TIME_LIMIT": 5, "BROKER_URL": "a://"})
    for name in ("task_acks_late", "CELERY_ACKS_LATE"):
        assert configuration[name] is False
        assert getattr(configuration, name) is False
        assert name in configuration
    assert configuration.settings.task_time_limit == 5.0
    configuration.CELERY_ACKS_LATE = True
    assert configuration.task_acks_late is True
    with pytest.warns(CeleryWarning, match="BROKER_URL -> broker_url"):
        assert configuration.maybe_warn_deprecated_settings() is True
    assert configured({"task_acks_late": False}).maybe_warn_deprecated_settings() is False


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"task_acks_late": True, "include": [], "BROKER_URL": "a://"}, "BROKER_URL -> broker_url"),
        ({"task_acks_late": True, "CELERY_INCLUDE": [], "BROKER_URL": "a://"}, "task_acks_late -> CELERY_ACKS_LATE"),
        ({"task_acks_late": True, "BROKER_URL": "a://"}, "BROKER_URL -> broker_url"),
    ],
)
def test_mixing_names_in_one_source_is_refused(given: dict[str, Any], advice: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=advice):
        configured(given).finalize()


def test_a_setting_under_both_names_is_no_mixture() -> None:
    configuration = configured({"task_acks_late": False, "include": [], "CELERY_ACKS_LATE": True})
    assert configuration.task_acks_late is False


def test_keywords_may_have_other_names_than_the_object() -> None:
    configuration = configured({"CELERY_ACKS_LATE": False, "BROKER_URL": "a://"}, task_default_queue="q")
    assert (configuration.task_acks_late, configuration.task_default_queue) == (False, "q")


def test_namespace() -> None:
    given = {
        "CELERY_TASK_DEFAULT_QUEUE": "q", "task_default_exchange": "plain", "CELERY_TASK_DEFAULT_EXCHANGE": "x",
        "task_default_routing_key": "key", "CELERY_ACKS_LATE": False, "TIME_ZONE": "Europe/Berlin", "SECRET_KEY": "s",
        "CELERY_MINE": 1,
    }  # fmt: skip
    configuration = configured(given, namespace="CELERY")
    settings = configuration.settings
    assert (settings.task_default_queue, settings.task_default_exchange) == ("q", "x")
    assert settings.task_default_routing_key == "key"
    assert settings.task_acks_late is True  # old names are not read in a namespace
    assert settings.timezone == configuration.timezone == "Europe/Berlin"
    assert configuration.CELERY_TASK_DEFAULT_QUEUE == "q"
    assert configuration.MINE == configuration.CELERY_MINE == 1
    assert configuration.SECRET_KEY == "s"
    assert "SECRET_KEY" not in configuration.without_defaults()
    assert configured({"celery_task_default_queue": "q"}, namespace="celery").task_default_queue == "q"


# ── mapping ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_are_passed_on_as_given() -> None:
    queues, limit = [object()], timedelta(seconds=3)
    configuration = configured({"task_queues": queues, "task_time_limit": limit})
    assert configuration.task_queues is queues
    assert configuration.settings.task_queues is queues
    assert configuration.task_time_limit is limit
    assert configuration.result_expires == timedelta(days=1)
    assert configuration.accept_content == ("json",)


def test_keys_of_the_users_own_are_kept() -> None:
    configuration = configured({"FOO": 1, "foo_bar": 2})
    assert (configuration.FOO, configuration["foo_bar"], configuration.get("FOO")) == (1, 2, 1)
    assert "FOO" in configuration
    assert {"FOO", "foo_bar"} < set(configuration)
    assert configuration.settings == Settings()
    with pytest.raises(KeyError):
        _ = configuration["BAR"]
    with pytest.raises(AttributeError, match="Did you mean 'task_acks_late'"):
        _ = configuration.task_ack_late
    assert not configuration.__contains__(3)


def test_code_in_a_module_is_no_key(module: ModuleType) -> None:
    module.__dict__.update(sys=sys, helper=lambda: None, Path=Path, mine=1)
    assert configured(module).without_defaults() == {"mine": 1}


def test_changing() -> None:
    configuration = configured({"task_serializer": "yaml"}, task_default_queue="q")
    configuration.update({"include": ["a"]}, imports=["b"])
    configuration["task_serializer"] = "json"
    assert configuration.changes == {
        "task_default_queue": "q", "include": ["a"], "imports": ["b"], "task_serializer": "json"
    }  # fmt: skip
    assert configuration.pop("task_serializer") == "json"
    assert configuration.task_serializer == "yaml"
    assert configuration.pop("task_serializer", None) is None
    with pytest.raises(KeyError):
        configuration.pop("task_serializer")
    del configuration.include
    assert configuration.include == ()
    with pytest.raises(AttributeError):
        del configuration.include
    assert configuration.setdefault("task_default_queue", "other") == "q"
    assert configuration.setdefault("task_default_exchange", "x") == configuration.task_default_exchange == "x"
    with pytest.raises(AttributeError, match="part of the configuration itself"):
        setattr(configuration, "copy", 1)  # noqa: B010
    configuration.clear()
    assert configuration.task_default_queue == "celery"


def test_copies_change_by_themselves() -> None:
    configuration = configured({"task_serializer": "yaml"}, task_default_queue="q")
    twin = configuration.copy()
    twin.task_default_queue = "other"
    assert (configuration.task_default_queue, twin.task_default_queue, twin.task_serializer) == ("q", "other", "yaml")
    assert copy.copy(configuration).task_default_queue == "q"


def test_the_snapshot_is_kept_until_something_changes() -> None:
    configuration = configured({"task_default_queue": "q"})
    first = configuration.settings
    assert configuration.settings is first
    configuration.task_default_queue = "r"
    assert (first.task_default_queue, configuration.settings.task_default_queue) == ("q", "r")
    configuration.finalize().task_default_queue = "s"
    assert configuration.settings.task_default_queue == "s"


def test_a_default_dict_changed_in_place_belongs_to_one_configuration() -> None:
    first, second = configured(), configured()
    kept = first.settings
    first.beat_schedule["tick"] = {"task": "t", "schedule": 1}
    first.broker_transport_options.update(visibility_timeout=1)
    assert first.settings.beat_schedule == kept.beat_schedule == {"tick": {"task": "t", "schedule": 1}}
    assert first.settings.broker_transport_options == {"visibility_timeout": 1}
    assert second.beat_schedule == {}
    assert first.value_set_for("beat_schedule") is False


def test_wrong_values_name_their_source(module: ModuleType) -> None:
    module.CELERY_ACKS_LATE = "yes"  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured) as caught:
        _ = configured(module.__name__).settings
    assert str(caught.value) == (
        "task_acks_late must be bool, not 'yes' of type str (from configuration_for_tests, as CELERY_ACKS_LATE)"
    )


def test_fall_backs() -> None:
    configuration = configured({"broker_host": "h", "task_default_queue": "q"})
    assert configuration.broker_url == configuration["broker_read_url"] == "h"
    assert configuration.settings.broker_read_url == "amqp://h/"
    assert configuration.task_default_exchange == configuration.task_default_routing_key == "q"
    assert configuration.first("task_compression", "no_such_key", "task_serializer") == "json"
    assert configuration.first("task_compression") is None


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_explain() -> None:
    configuration = Configuration({"include": ["a"]}, environ={"CELERY_BROKER_URL": "e://"})
    configuration.config_from_object({"CELERY_ACKS_LATE": False, "FOO": 1})
    configuration.task_serializer = "yaml"
    configuration.override({"task_default_queue": "q"})
    sources = {
        name: configuration.explain(name).source
        for name in (
            "include", "broker_url", "broker_read_url", "task_acks_late", "task_serializer", "task_default_queue",
            "task_default_exchange", "timezone", "FOO",
        )
    }  # fmt: skip
    assert sources == {
        "include": "keyword of the app",
        "broker_url": "environment variable CELERY_BROKER_URL",
        "broker_read_url": "broker_url, since broker_read_url is not set",
        "task_acks_late": "the configuration dict, as CELERY_ACKS_LATE",
        "task_serializer": "changed at run time",
        "task_default_queue": "command line",
        "task_default_exchange": "task_default_queue, since task_default_exchange is not set",
        "timezone": "default",
        "FOO": "the configuration dict",
    }
    configuration.result_backend = "redis://:hidden@h"
    explained = configuration.explain("result_backend")
    assert (explained.value, explained.shown) == ("redis://:hidden@h", "redis://:********@h")
    explained = configuration.explain("CELERY_ACKS_LATE")
    assert (explained.name, explained.value, explained.default) == ("task_acks_late", False, True)
    assert (explained.was, bool(explained.doc)) == ("CELERY_ACKS_LATE", True)
    with pytest.raises(KeyError):
        configuration.explain("nothing")


def test_table_and_humanize_hide_secrets() -> None:
    configuration = configured(
        {
            "broker_url": "amqp://me:hidden@h//",
            "result_backend": "redis://:hidden@h/0",
            "redis_password": "hidden",
            "security_key_password": b"hidden",
            "MY_API_TOKEN": "hidden",
            "mongodb_backend_settings": {"user": "me", "password": "hidden"},
            "broker_transport_options": {"sentinel_kwargs": {"password": "hidden"}},
            "task_default_routing_key": "shown",
            "cache_backend": "a://u:hidden@h1;b://u:hid;den@h2",
        }
    )
    assert "hidden" not in str(configuration.table())
    assert "hid" not in configuration.table()["cache_backend"]
    assert "hidden" not in configuration.humanize()
    assert "hidden" not in repr(configuration)
    assert configuration.table()["broker_url"] == "amqp://me:********@h//"
    assert configuration.table()["task_default_routing_key"] == "shown"
    assert configuration.table(censored=False)["redis_password"] == "hidden"
    assert configuration.table()["mongodb_backend_settings"]["user"] == "me"
    assert "task_acks_late" not in configuration.table()
    assert configuration.table(with_defaults=True)["task_acks_late"] is True
    assert "task_default_routing_key: 'shown'" in configuration.humanize().splitlines()


def test_finding_by_parts() -> None:
    configuration = configured({"task_acks_late": False})
    assert configuration.find_option("acks_late")[:2] == ("task", "acks_late")
    assert configuration.find_option("prefetch_multiplier", "worker")[:2] == ("worker", "prefetch_multiplier")
    assert configuration.find_option("enable_utc")[:2] == ("", "enable_utc")
    assert configuration.find_option("TASK_ACKS_LATE").option.default is True
    assert configuration.find_value_for_key("acks_late") is False
    assert configuration.get_by_parts("task", "acks_late") is False
    assert configuration.get_by_parts("", "enable_utc") is True
    with pytest.raises(KeyError):
        configuration.find_option("nothing_like_this")


def test_what_was_set() -> None:
    configuration = Configuration({"include": ["a"]}, environ={"CELERY_BROKER_URL": "e://"})
    configuration.config_from_object({"CELERY_ACKS_LATE": False})
    assert configuration.without_defaults() == {"include": ["a"], "broker_url": "e://", "task_acks_late": False}
    assert configuration.value_set_for("CELERY_ACKS_LATE") is True
    assert configuration.value_set_for("imports") is False
    assert len(configuration) == len(list(configuration)) == len(Settings.declarations)
