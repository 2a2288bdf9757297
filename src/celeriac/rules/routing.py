"""Which queue, exchange and routing key a call goes to: call options, then ``task_routes``, then the default queue.

Facts: Celery's ``Router`` and ``amqp.send_task_message``. Knows no settings object and imports nothing by name: who
holds dotted paths passes ``resolve``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from celeriac.errors import ImproperlyConfigured, QueueNotFound
from celeriac.transports.base import QueueSpec
from celeriac.wire.envelope import Route

#: what a route may be: a queue's name, or options with perhaps a ``queue`` among them
Destination = str | Mapping[str, Any] | None
#: ``(name, args, kwargs, options, task=None)`` → destination
RouteFunction = Callable[..., Destination]

#: options that decide where a message goes; a call without them may use the remembered answer for its task
_DECIDING = frozenset({"queue", "exchange", "exchange_type", "routing_key"})
#: how many task names are remembered before the memory is emptied
_REMEMBERED = 4096


class MissingQueues(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about a queue that nobody declared."""

    create: bool = True
    exchange_type: str = "direct"
    max_priority: int | None = None
    arguments: dict[str, Any] = {}


CREATE_MISSING = MissingQueues()


class Routed(NamedTuple):
    """Where a call goes and with which options."""

    route: Route
    queue: QueueSpec  #: what has to exist before publishing
    options: dict[str, Any]  #: call options over route options, without those that :attr:`route` answers


class PatternRoutes:
    """Routes by task name: an exact name first, then globs (``*``) and regular expressions in their order."""

    def __init__(self, routes: Mapping[Any, Destination] | Iterable[tuple[Any, Destination]]) -> None:
        self._exact: dict[str, Destination] = {}
        self._patterns: list[tuple[re.Pattern[str], Destination]] = []
        pairs = cast("Iterable[tuple[Any, Destination]]", routes.items() if isinstance(routes, Mapping) else routes)
        for pattern, destination in pairs:
            if isinstance(pattern, re.Pattern):
                self._patterns.append((pattern, destination))
            elif "*" in pattern:
                self._patterns.append((_glob(pattern), destination))
            else:
                self._exact[pattern] = destination

    def find(self, name: str) -> Destination:
        if name in self._exact:
            return self._exact[name]
        for pattern, destination in self._patterns:
            if pattern.match(name):
                return destination
        return None


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")) + r"\Z", re.DOTALL)


def compile_routes(routes: object, resolve: Callable[[str], Any] | None = None) -> list[PatternRoutes | RouteFunction]:
    """What ``task_routes`` may hold, as an ordered list of things to ask.

    A mapping, a list of pairs, a function, an object with ``route_for_task``, a dotted path to one of these, or a
    list of any of them. Raises ``ImproperlyConfigured`` for anything else.
    """
    if routes is None:
        return []
    entries: Iterable[Any] = routes if isinstance(routes, list | tuple) else [routes]
    compiled: list[PatternRoutes | RouteFunction] = []
    pairs: list[tuple[Any, Destination]] = []
    for entry in entries:
        if _is_pair(entry):
            pairs.append(entry)
            continue
        if pairs:
            compiled.append(PatternRoutes(pairs))
            pairs = []
        compiled.append(_compile_one(entry, resolve))
    if pairs:
        compiled.append(PatternRoutes(pairs))
    return compiled


def _is_pair(entry: object) -> bool:
    return (
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str | re.Pattern)
        and isinstance(entry[1], str | Mapping)
    )


def _compile_one(entry: Any, resolve: Callable[[str], Any] | None) -> PatternRoutes | RouteFunction:
    if isinstance(entry, str):
        if resolve is None:
            raise ImproperlyConfigured(f"task_routes: {entry!r} is a dotted path and nothing here can import it")
        entry = resolve(entry)
        if isinstance(entry, type):
            entry = entry()
    if isinstance(entry, Mapping):
        return PatternRoutes(entry)
    if isinstance(entry, list | tuple):
        if all(_is_pair(pair) for pair in entry):
            return PatternRoutes(entry)
        raise ImproperlyConfigured(f"task_routes: expected pairs of (pattern, destination), got {entry!r}")
    by_method = getattr(entry, "route_for_task", None)
    if by_method is not None:
        return _adapt_method(by_method)
    if callable(entry):
        return cast("RouteFunction", entry)
    raise ImproperlyConfigured(f"task_routes: {entry!r} is no mapping, pair, function or router object")


def _adapt_method(route_for_task: Callable[..., Destination]) -> RouteFunction:
    def ask(
        name: str, args: Sequence[Any], kwargs: Mapping[str, Any], _options: Mapping[str, Any], task: Any = None
    ) -> Destination:
        return route_for_task(name, args, kwargs)

    return ask


class Router:
    """Answers where calls go. Thread-safe: what it remembers is only ever replaced whole."""

    def __init__(
        self,
        queues: Mapping[str, QueueSpec],
        routes: object = None,
        default_queue: str = "celery",
        missing: MissingQueues = CREATE_MISSING,
        resolve: Callable[[str], Any] | None = None,
    ) -> None:
        self._queues = queues
        self._asked = compile_routes(routes, resolve)
        self._default_queue = default_queue
        self._missing = missing
        self._is_static = all(isinstance(asked, PatternRoutes) for asked in self._asked)
        self._remembered: dict[str, Routed] = {}
        #: queues that callers brought along
        self._brought: dict[str, QueueSpec] = {}

    def queue(self, name: str) -> QueueSpec:
        """The declared queue, or one made on demand. Raises ``QueueNotFound`` where that is switched off."""
        known = self._queues.get(name) or self._brought.get(name)
        if known is not None:
            return known
        missing = self._missing
        if not missing.create:
            raise QueueNotFound(
                f"queue {name!r} is not in task_queues and task_create_missing_queues is off; declare it there"
            )
        return QueueSpec(
            name=name,
            exchange=name,
            exchange_type=missing.exchange_type,
            routing_key=name,
            max_priority=missing.max_priority,
            arguments=dict(missing.arguments),
        )

    def route(
        self,
        options: Mapping[str, Any],
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task: Any = None,
    ) -> Routed:
        """Where a call of task ``name`` with these options goes. Options that are ``None`` count as not given."""
        if self._is_static and _DECIDING.isdisjoint(options):
            known = self._remembered.get(name)
            if known is None:
                known = self._decide({}, self._from_routes(name, (), {}, {}, None))
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered = {}
                self._remembered[name] = known
            if not options:
                return Routed(known.route, known.queue, dict(known.options))
            merged = {**known.options, **{key: value for key, value in options.items() if value is not None}}
            return Routed(known.route, known.queue, merged)
        given = {key: value for key, value in options.items() if value is not None}
        return self._decide(given, self._from_routes(name, args, kwargs or {}, given, task))

    def _from_routes(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any
    ) -> dict[str, Any]:
        for asked in self._asked:
            if isinstance(asked, PatternRoutes):
                found = asked.find(name)
            else:
                found = asked(name, args, kwargs, options, task=task)
            if found:
                return {"queue": found} if isinstance(found, str) else dict(found)
        return {}

    def _decide(self, given: dict[str, Any], routed: dict[str, Any]) -> Routed:
        options = {key: value for key, value in routed.items() if value is not None}
        options.update(given)
        wanted = options.pop("queue", None)
        if isinstance(wanted, QueueSpec):
            queue = wanted
            if len(self._brought) < _REMEMBERED:
                self._brought.setdefault(wanted.name, wanted)
        else:
            queue = self.queue(wanted or self._default_queue)
        exchange = options.pop("exchange", None)
        routing_key = options.pop("routing_key", None)
        exchange_type = options.pop("exchange_type", None) or queue.exchange_type
        if exchange_type == "direct" and not (exchange and routing_key):
            # The broker's own exchange finds the queue by name: no binding has to be in place (wire.md, 7). As in
            # Celery a direct exchange is used only where a call or route names both it and the key.
            return Routed(Route("", queue.name), queue, options)
        route = Route(
            exchange if exchange is not None else queue.exchange,
            routing_key if routing_key is not None else (queue.routing_key or queue.name),
            exchange_type,
        )
        return Routed(route, queue, options)
