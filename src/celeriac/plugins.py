"""The catalogue of drivers: a name or URL scheme → where its class lives → which extra it needs.

Nothing is imported until its name is used. Strangers add drivers by entry points (``celeriac.transports``,
``celeriac.result_stores`` …; Celery's ``celery.result_backends`` too) or by a dotted path wherever a name is taken.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from celeriac.errors import ImproperlyConfigured, MissingExtra, UnknownDriver


class Entry(NamedTuple):
    target: str  #: ``module:Class``
    extra: str | None = None  #: what to name in ``pip install 'celeriac[…]'``


_AMQP = Entry("celeriac.transports.amqp.transport:AmqpTransport")
_REDIS = Entry("celeriac.transports.redis.transport:RedisTransport", "redis")
_REDIS_STORE = Entry("celeriac.results.redis:RedisStore", "redis")
#: every scheme of a Redis URL that brokers and result stores share
_REDIS_SCHEMES = (
    "redis", "rediss", "redis+socket", "sentinel", "sentinels", "redis+cluster", "rediss+cluster", "valkey", "valkeys",
)  # fmt: skip
_ROOMS = "celeriac.executors.children.pool:ChildrenExecutor"

CATALOGUE: dict[str, dict[str, Entry]] = {
    "transport": {
        "sqlite": Entry("celeriac.transports.sqlite:SqliteTransport"),
        "memory": Entry("celeriac.transports.memory:MemoryTransport"),
        **dict.fromkeys(("amqp", "amqps", "pyamqp", "librabbitmq"), _AMQP),
        **dict.fromkeys(_REDIS_SCHEMES, _REDIS),
    },
    "result_store": {
        "sqlite": Entry("celeriac.results.sqlite:SqliteStore"),
        "memory": Entry("celeriac.results.memory:MemoryStore"),
        "cache+memory": Entry("celeriac.results.memory:MemoryStore"),
        "disabled": Entry("celeriac.results.disabled:DisabledStore"),
        **dict.fromkeys(_REDIS_SCHEMES, _REDIS_STORE),
        "rpc": Entry("celeriac.results.rpc:RpcStore"),
    },
    "limiter": {
        "sqlite": Entry("celeriac.limiters.sqlite:SqliteLimiter"),
        "memory": Entry("celeriac.limiters.memory:MemoryLimiter"),
        "cache+memory": Entry("celeriac.limiters.memory:MemoryLimiter"),
        **dict.fromkeys(_REDIS_SCHEMES, Entry("celeriac.limiters.redis:RedisLimiter", "redis")),
    },
    "executor": {
        "prefork": Entry(_ROOMS),
        "processes": Entry(_ROOMS),
        "threads": Entry(_ROOMS),
        "asyncio": Entry(_ROOMS),
        "gevent": Entry(_ROOMS),
        "eventlet": Entry(_ROOMS),
        "solo": Entry("celeriac.executors.inline:InlineExecutor"),
    },
    "crew": {
        "prefork": Entry("celeriac.executors.crews.sequential:SequentialCrew"),
        "processes": Entry("celeriac.executors.crews.sequential:SequentialCrew"),
        "threads": Entry("celeriac.executors.crews.threads:ThreadsCrew"),
        "asyncio": Entry("celeriac.executors.crews.coroutines:CoroutinesCrew"),
        "gevent": Entry("celeriac.executors.crews.greenlets:GeventCrew", "gevent"),
        "eventlet": Entry("celeriac.executors.crews.greenlets:EventletCrew", "eventlet"),
    },
}

_GROUPS = {
    "transport": ("celeriac.transports",),
    "result_store": ("celeriac.result_stores", "celery.result_backends"),
    "limiter": ("celeriac.limiters",),
    "executor": ("celeriac.executors",),
    "crew": ("celeriac.crews",),
}

_KIND_NAMES = {
    "transport": "Broker transport",
    "result_store": "Result store",
    "limiter": "Limiter",
    "executor": "Pool",
    "crew": "Crew",
}


def names(kind: str) -> list[str]:
    """The names of a kind that this installation knows, built-in ones first."""
    from importlib.metadata import entry_points  # twenty modules that most processes never need

    known = list(CATALOGUE[kind])
    for group in _GROUPS[kind]:
        known.extend(point.name for point in entry_points(group=group) if point.name not in known)
    return known


def load(kind: str, name: str) -> Any:
    """The driver class called ``name``: catalogue, then entry points, then a dotted path (``module:Class``).

    Raises ``UnknownDriver`` (with a suggestion) or ``MissingExtra`` (with the command that installs it).
    """
    entry = CATALOGUE[kind].get(name)
    if entry is None:
        import difflib
        from importlib.metadata import entry_points

        for group in _GROUPS[kind]:
            for point in entry_points(group=group, name=name):
                return _import(point.value, kind, name, None)
        if "." in name or ":" in name:
            return _import(name, kind, name, None)
        close = difflib.get_close_matches(name, names(kind), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(sorted(names(kind)))}."
        raise UnknownDriver(f"{_KIND_NAMES[kind]} {name!r} does not exist.{hint}")
    return _import(entry.target, kind, name, entry.extra)


def _import(target: str, kind: str, name: str, extra: str | None) -> Any:
    try:
        return resolve(target)
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        raise MissingExtra(
            f"{_KIND_NAMES[kind]} {name!r} needs a package that is not installed ({error.name}): "
            f"pip install 'celeriac[{extra}]'"
        ) from error


def resolve(target: str) -> Any:
    """Import ``package.module:attr`` or ``package.module.attr`` and return the attribute."""
    module_name, colon, attribute = target.partition(":")
    if not colon:
        module_name, _, attribute = target.rpartition(".")
    if not module_name or not attribute:
        raise ImproperlyConfigured(f"{target!r} is not a dotted path of the form package.module:name")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ImproperlyConfigured(f"{module_name} has no attribute {attribute!r} ({target})") from error
    return found
