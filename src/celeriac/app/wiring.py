"""What an app is made of, worked out from its settings: broker, store, queues, routes, publish policy.

Pure composition: functions from settings to parts, no state. Construction of drivers does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac import plugins
from celeriac.app.calls import publish_policy, queue_option
from celeriac.client.sender import PublishPolicy
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.rules.routing import MissingQueues, Router
from celeriac.settings.loading import embedded_path
from celeriac.transports.base import Expects, QueueSpec, Transport

if TYPE_CHECKING:
    from celeriac.limiters.base import Limiter
    from celeriac.results.base import ResultStore
    from celeriac.settings import Settings

#: options of a queue given as a mapping, and what our declaration calls them
_QUEUE_OPTIONS = {
    "exchange": "exchange", "exchange_type": "exchange_type", "routing_key": "routing_key", "durable": "durable",
    "auto_delete": "auto_delete", "exclusive": "exclusive", "max_priority": "max_priority", "expires": "expires",
    "message_ttl": "message_ttl", "queue_arguments": "arguments", "arguments": "arguments",
    "binding_arguments": "binding_arguments",
}  # fmt: skip


# ── broker and store ─────────────────────────────────────────────────────────────────────────────────────────


def broker_url(settings: Settings, app_name: str) -> str:
    """Where messages go: the configured broker, or the embedded file of the app."""
    given = settings.broker_write_url or settings.broker_url
    if not given:
        return embedded_url(app_name)
    return str(given)


def reading_url(settings: Settings, app_name: str) -> str:
    """Where a worker takes messages from."""
    given = settings.broker_read_url or settings.broker_url
    return str(given) if given else embedded_url(app_name)


def embedded_url(app_name: str) -> str:
    from urllib.parse import quote

    return f"sqlite:///{quote(str(embedded_path(app_name)))}"


def open_transport(url: str, settings: Settings, queue_of: Callable[[str], QueueSpec] | None = None) -> Transport:
    """``queue_of``: how the app declares a queue, for brokers that have to be told before something is sent there."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ImproperlyConfigured(f"broker_url: {url!r} is not a URL such as sqlite:///tasks.sqlite3 or memory://")
    transport: Transport = plugins.load("transport", scheme)(url, settings, SYSTEM_CLOCK)
    if queue_of is not None and isinstance(transport, Expects):
        transport.expect(queue_of)
    return transport


def open_store(settings: Settings, broker: str) -> ResultStore | None:
    """The result store, or ``None`` where results are not kept."""
    given = settings.result_backend
    if not given:
        if not broker.startswith("sqlite:"):
            return None
        given = broker
    if given.partition("://")[0] in ("disabled", "disabled:"):
        return None
    driver, url = _store_driver(given, settings)
    store: ResultStore = driver(url, settings, SYSTEM_CLOCK)
    return store


def _store_driver(given: str, settings: Settings) -> tuple[Any, str]:
    """``alias``, ``scheme://…`` or ``alias+url``: the class, and the URL it gets."""
    name, separator, rest = given.partition("://")
    override = settings.override_backends.get(name)
    if override is not None:
        return plugins.resolve(override), given
    if name not in plugins.CATALOGUE["result_store"] and separator and "+" in name:
        name, _, inner = name.partition("+")
        given = f"{inner}://{rest}"
    return plugins.load("result_store", name), given


def open_limiter(settings: Settings, broker: str) -> Limiter:
    """What counts for limits: ``task_limit_store``, else the broker or the result store, if they can."""
    places = [("task_limit_store", settings.task_limit_store)]
    if not settings.task_limit_store:
        places = [("broker_url", broker), ("result_backend", settings.result_backend)]
    for origin, given in places:
        url = str(given or "")
        scheme = url.partition("://")[0]
        if scheme in plugins.names("limiter"):
            limiter: Limiter = plugins.load("limiter", scheme)(url, settings, SYSTEM_CLOCK, origin)
            return limiter
    if settings.task_limit_store:
        plugins.load("limiter", str(settings.task_limit_store).partition("://")[0])
    shown = " and ".join(
        f"{origin} ({str(given).partition('://')[0]})" if given else f"{origin} (not set)" for origin, given in places
    )  # fmt: skip
    raise ImproperlyConfigured(
        f"neither of {shown} can count for all workers: set task_limit_store to a Redis or a SQLite file, such as "
        "'redis://localhost/0' or 'sqlite:////var/lib/app/limits.sqlite3'"
    )


# ── queues and routes ────────────────────────────────────────────────────────────────────────────────────────


def queues_of(settings: Settings) -> dict[str, QueueSpec]:
    """``task_queues``; where there are none, the default queue."""
    given = settings.task_queues
    if not given:
        queue = default_queue(settings)
        return {queue.name: queue}
    if isinstance(given, Mapping):
        return {name: _queue(name, options, settings) for name, options in given.items()}
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ImproperlyConfigured(f"task_queues must be a mapping or a list of queues, not {given!r}")
    specs = [_queue(None, queue, settings) for queue in given]
    return {spec.name: spec for spec in specs}


def default_queue(settings: Settings) -> QueueSpec:
    name = settings.task_default_queue
    return QueueSpec(
        name=name,
        exchange=settings.task_default_exchange or name,
        exchange_type=settings.task_default_exchange_type,
        routing_key=settings.task_default_routing_key or name,
        max_priority=settings.task_queue_max_priority,
        arguments=_queue_type(settings.task_default_queue_type),
    )


def _queue_type(kind: str) -> dict[str, Any]:
    return {"x-queue-type": "quorum"} if kind == "quorum" else {}


def declared_queue(given: Any, settings: Settings) -> QueueSpec:
    """The declaration of a queue given as an entry of ``task_queues``. Raises ``ImproperlyConfigured``."""
    return _queue(None, given, settings)


def _queue(name: str | None, given: Any, settings: Settings) -> QueueSpec:
    if isinstance(given, str):
        given, name = {}, given
    if not isinstance(given, Mapping) and given is not None:
        try:
            spec = queue_option(given)
        except TypeError as error:
            raise ImproperlyConfigured(f"task_queues: {error}") from None
        assert isinstance(spec, QueueSpec)
        return spec
    options = dict(given or {})
    queue_name = name or options.pop("name", None)
    if not queue_name:
        raise ImproperlyConfigured(f"task_queues: a queue without a name: {given!r}")
    options.pop("name", None)
    unknown = sorted(set(options) - set(_QUEUE_OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"task_queues: queue {queue_name!r} has options nobody knows: {', '.join(unknown)}; "
            f"known: {', '.join(sorted(_QUEUE_OPTIONS))}"
        )
    values = {_QUEUE_OPTIONS[key]: value for key, value in options.items() if value is not None}
    exchange = values.get("exchange")
    if exchange is not None and not isinstance(exchange, str):  # kombu's Exchange
        values["exchange"] = exchange.name
        values.setdefault("exchange_type", exchange.type)
    values.setdefault("exchange", queue_name)
    values.setdefault("exchange_type", settings.task_default_exchange_type)
    values.setdefault("routing_key", queue_name)
    values.setdefault("max_priority", settings.task_queue_max_priority)
    return QueueSpec(name=queue_name, **values)


def router_of(settings: Settings, queues: Mapping[str, QueueSpec]) -> Router:
    missing = MissingQueues(
        create=settings.task_create_missing_queues,
        exchange_type=settings.task_create_missing_queue_exchange_type or settings.task_default_exchange_type,
        max_priority=settings.task_queue_max_priority,
        arguments=_queue_type(settings.task_create_missing_queue_type),
    )
    known = dict(queues)
    known.setdefault(settings.task_default_queue, default_queue(settings))
    return Router(known, settings.task_routes, settings.task_default_queue, missing, plugins.resolve)


def routes_are_static(settings: Settings) -> bool:
    """Whether a task's name alone decides where its plain calls go."""
    routes = settings.task_routes
    return not routes or isinstance(routes, Mapping)


def policy_of(settings: Settings) -> PublishPolicy:
    base = PublishPolicy(timeout=settings.broker_publish_timeout)
    if not settings.task_publish_retry:
        return publish_policy({"max_retries": 0}, base)
    return publish_policy(settings.task_publish_retry_policy, base)
