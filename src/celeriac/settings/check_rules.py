"""Rules about the values of settings: what cannot work, what is dangerous, what has no effect.

Each rule is a function from settings to findings. A rule says what happens and what to do, and keeps quiet about
defaults. Knows the names of serializers and schemes, but imports no driver.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from celeriac.errors import ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.base import suggestion
from celeriac.settings.check import Finding
from celeriac.settings.values import is_list, is_mapping

Findings = Iterator[Finding]

_CHOICES: Mapping[str, tuple[object, ...]] = {
    "task_protocol": (1, 2),
    "task_default_delivery_mode": (1, 2, "persistent", "transient"),
    "task_default_queue_type": ("classic", "quorum"),
    "task_create_missing_queue_type": ("classic", "quorum"),
    "broker_native_delayed_delivery_queue_type": ("classic", "quorum"),
    "worker_loop": ("auto", "asyncio", "uvloop"),
    "worker_pool_start_method": ("fork", "spawn"),
}

#: the least value that makes sense
_LEAST: Mapping[str, float] = {
    "broker_heartbeat": 0,
    "broker_max_message_bytes": 1024,
    "broker_pool_limit": 0,
    "task_crash_budget": 0,
    "task_max_decompressed_bytes": 1024,
    "task_repr_maxlevels": 0,
    "result_expires": 0,
    "result_cache_max": -1,
    "result_chord_retry_interval": 0,
    "worker_children": 1,
    "worker_concurrency": 0,
    "worker_eta_task_limit": 1,
    "worker_look_ahead": 0,
    "worker_max_memory_per_child": 1,
    "worker_max_tasks_per_child": 1,
    "worker_prefetch_multiplier": 0,
    "worker_shutdown_grace": 0,
    "worker_soft_shutdown_timeout": 0,
    "beat_max_loop_interval": 0,
    "beat_cron_starting_deadline": 0,
    "beat_sync_every": 0,
}

#: durations that make no sense as zero
_ABOVE_ZERO = (
    "broker_lease", "broker_publish_timeout", "broker_connection_timeout", "broker_heartbeat_checkrate",
    "task_time_limit", "task_soft_time_limit", "task_dead_letter_expires", "worker_timer_precision",
)  # fmt: skip

_MIME_OF: Mapping[str, str] = {
    "json": "application/json",
    "pickle": "application/x-python-serialize",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
    "auth": "application/data",
}

_RATE = re.compile(r"\d+(\.\d+)?\s*(/\s*[smh])?")
_SCHEDULE_KEYS = ("task", "schedule", "args", "kwargs", "options", "relative")
_POLICY_KEYS = ("max_retries", "interval_start", "interval_step", "interval_max", "retry_errors")
_LEVELS = ("CRITICAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET", "FATAL")


def cannot_be(settings: Settings) -> Findings:
    """Values outside what a setting can take."""
    for name, choices in _CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            yield Finding("error", name, f"{name} is {value!r}; it can be {_either(choices)}.")
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if isinstance(value, int | float) and value < least:
            yield Finding("error", name, f"{name} is {value}; it must be at least {least}.")
    for name in _ABOVE_ZERO:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            yield Finding("error", name, f"{name} is {value}; it must be more than 0.")
    rate = settings.task_default_rate_limit
    if isinstance(rate, str) and not _RATE.fullmatch(rate.strip()):
        yield Finding("error", "task_default_rate_limit", f"{rate!r} is no rate; write 10/s, 10/m or 10/h.")
    level = settings.worker_redirect_stdouts_level
    if isinstance(level, str) and level.upper() not in _LEVELS:
        yield Finding("error", "worker_redirect_stdouts_level", f"{level!r} is no log level; WARNING is one.")


def _either(choices: Sequence[object]) -> str:
    return " or ".join(repr(choice) for choice in choices)


def time_zone(settings: Settings) -> Findings:
    from celeriac.settings.places import zone

    try:
        zone(settings)
    except ImproperlyConfigured as error:
        yield Finding("error", "timezone", str(error))


def content(settings: Settings) -> Findings:
    """Serializers that run foreign code, and what is sent but not accepted."""
    accepted = _types(settings.accept_content)
    results = _types(settings.result_accept_content or ())
    for name, types in (("accept_content", accepted), ("result_accept_content", results - accepted)):
        if _MIME_OF["pickle"] in types:
            yield Finding(
                "warning", name, "pickle is accepted, so whoever can write to the broker or the result store can run "
                "any code in your processes. Use json, or sign messages with the auth serializer.",
            )  # fmt: skip
    for name, types in (("task_serializer", accepted), ("event_serializer", accepted), ("result_serializer", results)):
        serializer = getattr(settings, name)
        if _MIME_OF.get(serializer, serializer) not in types:
            where = "result_accept_content" if name == "result_serializer" else "accept_content"
            yield Finding(
                "warning", name, f"{name} is {serializer!r}, which {where} lacks, so this app refuses what it writes.",
            )  # fmt: skip
    uses_signatures = settings.task_serializer == "auth" or _MIME_OF["auth"] in accepted
    for name in ("security_key", "security_certificate", "security_cert_store"):
        if uses_signatures and getattr(settings, name) is None:
            yield Finding("error", name, f"The auth serializer is in use, and needs {name}.")


def _types(names: Any) -> frozenset[str]:
    return frozenset(_MIME_OF.get(name, name) for name in names)


def acknowledging(settings: Settings) -> Findings:
    """Early acknowledgement, and what it makes ineffective."""
    if settings.task_reject_on_worker_lost:
        if settings.task_acks_late:
            yield Finding(
                "note", "task_reject_on_worker_lost", "It is what celeriac does anyway, yet not for ever: a task that "
                "kills its process is started task_crash_budget times and then put with the dead letters.",
            )  # fmt: skip
        else:
            yield Finding(
                "warning", "task_reject_on_worker_lost", "It has no effect while task_acks_late is off: a message "
                "acknowledged at the start of its task cannot be put back.",
            )  # fmt: skip
    if settings.task_acks_late:
        return
    yield Finding("note", "task_acks_late", "It is off: a process that dies takes the tasks it was running with it.")
    for name in ("task_acks_on_failure", "task_acks_on_timeout", "task_acks_on_failure_or_timeout"):
        if getattr(settings, name) is False:
            yield Finding("note", name, f"{name} has no effect while task_acks_late is off.")
    if settings.worker_cancel_long_running_tasks_on_connection_loss:
        yield Finding(
            "note", "worker_cancel_long_running_tasks_on_connection_loss",
            "It concerns only tasks that acknowledge late, and task_acks_late is off.",
        )  # fmt: skip


def time_limits(settings: Settings) -> Findings:
    hard, soft = settings.task_time_limit, settings.task_soft_time_limit
    if hard is not None and soft is not None and soft >= hard:
        yield Finding(
            "warning", "task_soft_time_limit", f"The soft limit ({soft:g} s) never comes before the hard one "
            f"({hard:g} s), so tasks are killed without warning.",
        )  # fmt: skip
    if settings.worker_pool == "solo" and (hard is not None or soft is not None):
        yield Finding(
            "warning", "task_time_limit", "The solo pool runs tasks in the worker itself and can't stop them."
        )
    grace = settings.worker_shutdown_grace
    if hard is not None and hard > grace:
        yield Finding(
            "note", "worker_shutdown_grace", f"Tasks may take {hard:g} s, but only {grace:g} s as a worker ends; those "
            "not done by then are stopped and run again elsewhere.",
        )  # fmt: skip


def leases(settings: Settings) -> Findings:
    """How long a dead worker's messages are gone, against how long tasks take."""
    lease = settings.broker_lease
    if 0 < lease < 3:
        yield Finding(
            "warning", "broker_lease", f"A lease of {lease:g} s is renewed every {lease / 3:.1g} s; a short pause of "
            "the machine or the broker loses it, and tasks run twice. 3 s is little, 30 s is usual.",
        )  # fmt: skip
    if lease > 900:
        yield Finding("warning", "broker_lease", f"Tasks of a worker that died start again only {lease:g} s later.")
    limit = settings.task_time_limit
    if limit is not None and 3 < limit < lease:
        yield Finding(
            "note", "broker_lease", f"Tasks take {limit:g} s at most, but those of a worker that died wait "
            f"{lease:g} s. The lease is renewed while a task runs, so it may be shorter than the limit.",
        )  # fmt: skip
    yield from _visibility_timeout(settings)


def _visibility_timeout(settings: Settings) -> Findings:
    timeout = settings.broker_transport_options.get("visibility_timeout")
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        return
    name = "broker_transport_options"
    longest = settings.task_time_limit or settings.task_soft_time_limit
    if longest is not None and longest > timeout:
        yield Finding(
            "warning", name, f"Tasks may take {longest:g} s. Celery's workers on the same queues give a task out again "
            f"after visibility_timeout, {timeout:g} s, while it still runs.",
        )  # fmt: skip
    for entry, options in _schedule_options(settings):
        countdown = options.get("countdown")
        if isinstance(countdown, int | float) and countdown > timeout:
            yield Finding(
                "warning", name, f"The entry {entry!r} of beat_schedule delays its task by {countdown:g} s, longer "
                f"than visibility_timeout, {timeout:g} s: Celery's workers would run it more than once.",
            )  # fmt: skip


def _schedule_options(settings: Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry, fields in settings.beat_schedule.items():
        options = fields.get("options") if is_mapping(fields) else None
        if is_mapping(options):
            yield entry, options


def fetching(settings: Settings) -> Findings:
    if settings.worker_prefetch_multiplier == 0:
        yield Finding(
            "warning", "worker_prefetch_multiplier", "0 is no limit: one worker fetches all there is, others stay idle."
        )
    if settings.worker_disable_rate_limits and settings.task_default_rate_limit is not None:
        yield Finding("warning", "task_default_rate_limit", "It has no effect: worker_disable_rate_limits is on.")
    quorum = "quorum" in (settings.task_default_queue_type, settings.task_create_missing_queue_type)
    if quorum and settings.task_queue_max_priority is not None:
        yield Finding("warning", "task_queue_max_priority", "Quorum queues take no x-max-priority.")
    if settings.worker_deduplicate_successful_tasks and settings.broker_url and not _stores_results(settings):
        yield Finding(
            "warning", "worker_deduplicate_successful_tasks", "It needs stored results, and there is no result_backend."
        )


def _stores_results(settings: Settings) -> bool:
    return settings.result_backend not in (None, "", "disabled", "disabled://") and not settings.task_ignore_result


def results(settings: Settings) -> Findings:
    for name in ("result_expires", "result_failure_expires"):
        if not getattr(settings, name) and (name == "result_expires" or settings.result_expires):
            yield Finding("warning", name, "Results are kept for ever, so the result store only grows.")
    if settings.task_track_started and settings.task_ignore_result:
        yield Finding("note", "task_track_started", "It has no effect on tasks whose results are ignored.")
    if settings.result_backend in ("db", "database") and settings.database_url is None:
        yield Finding("error", "database_url", "result_backend is 'database' without an address; set database_url.")


def addresses(settings: Settings) -> Findings:
    """Brokers that reach nobody, and addresses that nobody reads."""
    if (settings.broker_url or "").startswith("memory:"):
        yield Finding(
            "warning", "broker_url", "memory:// is one process alone: no worker elsewhere gets what you send."
        )
    if (settings.result_backend or "").startswith(("memory:", "cache+memory:")):
        yield Finding("warning", "result_backend", "Results in memory can be read only by the process that wrote them.")
    if "broker_url" in settings.given():
        for part in ("host", "port", "user", "password", "vhost", "transport"):
            if getattr(settings, f"broker_{part}") is not None:
                yield Finding("note", f"broker_{part}", f"broker_{part} is not read, since broker_url is set.")
    if not settings.broker_pool_limit:
        yield Finding("note", "broker_pool_limit", "Without a pool every send opens a connection, which is slow.")


def eager(settings: Settings) -> Findings:
    if settings.task_always_eager:
        yield Finding(
            "warning", "task_always_eager", "Tasks run in the caller and nothing is sent; meant for tests, where the "
            "memory broker comes closer to the truth.",
        )  # fmt: skip
    if settings.task_store_eager_result and not settings.task_always_eager:
        yield Finding("note", "task_store_eager_result", "It concerns only eager tasks.")


def private_queues(settings: Settings) -> Findings:
    for kind in ("control", "event"):
        if getattr(settings, f"{kind}_queue_durable") and getattr(settings, f"{kind}_queue_exclusive"):
            yield Finding(
                "error", f"{kind}_queue_durable", f"A queue cannot be durable and exclusive; set "
                f"{kind}_queue_exclusive to False.",
            )  # fmt: skip


def queues(settings: Settings) -> Findings:
    """Queues that must exist and do not."""
    names = _queue_names(settings.task_queues)
    if not names or settings.task_create_missing_queues:
        return
    if settings.task_default_queue not in names:
        yield Finding(
            "error", "task_default_queue", f"task_queues has no {settings.task_default_queue!r}, and "
            "task_create_missing_queues is off, so tasks without a route cannot be sent.",
        )  # fmt: skip
    routes = settings.task_routes
    for pattern, route in routes.items() if is_mapping(routes) else ():
        queue = route.get("queue") if is_mapping(route) else route
        if isinstance(queue, str) and queue not in names:
            yield Finding(
                "error", "task_routes", f"{pattern!r} goes to {queue!r}, which task_queues does not have, and "
                "task_create_missing_queues is off.",
            )  # fmt: skip


def _queue_names(queues: Any) -> frozenset[str]:
    if is_mapping(queues):
        return frozenset(str(name) for name in queues)
    if is_list(queues):
        return frozenset(str(getattr(queue, "name", queue)) for queue in queues)
    return frozenset()


def schedule(settings: Settings) -> Findings:
    """Entries of the periodic schedule that beat cannot use."""
    for entry, fields in settings.beat_schedule.items():
        if not is_mapping(fields):
            continue  # an entry object made by a scheduler of the user's
        for needed in ("task", "schedule"):
            if needed not in fields:
                yield Finding("error", "beat_schedule", f"The entry {entry!r} has no {needed!r}.")
        yield from _strange_keys("beat_schedule", f"The entry {entry!r}", fields, _SCHEDULE_KEYS)


def retry_policy(settings: Settings) -> Findings:
    yield from _strange_keys(
        "task_publish_retry_policy", "The policy", settings.task_publish_retry_policy, _POLICY_KEYS
    )  # fmt: skip


def _strange_keys(name: str, owner: str, given: Mapping[str, Any], known: Sequence[str]) -> Findings:
    for key in given:
        if key not in known:
            close = suggestion(str(key), known, cutoff=0.6)
            hint = f"Did you mean {close!r}?" if close else f"Known are {', '.join(known)}."
            yield Finding("warning", name, f"{owner} has {key!r}, which nothing reads. {hint}")


def old_protocol(settings: Settings) -> Findings:
    if settings.task_protocol == 1:
        yield Finding(
            "warning", "task_protocol", "Version 1 carries no group index, root, parent or argument texts; it is for "
            "workers of Celery 3.",
        )  # fmt: skip


RULES: tuple[Callable[[Settings], Findings], ...] = (
    cannot_be, time_zone, content, acknowledging, time_limits, leases, fetching, results, addresses, eager,
    private_queues, queues, schedule, retry_policy, old_protocol,
)  # fmt: skip
