"""The app: configuration, tasks, and everything needed to send and to wait, composed on first use.

The one place of the façade that composes (ARCHITECTURE, section 2.1); what a part is made of is in ``wiring.py``.
Nothing here opens a connection, starts a thread or reads a configuration file before it is used.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from celeriac import current
from celeriac.app import calls
from celeriac.app.declare import (
    Declare,
    DeclareBound,
    declare,
    declare_shared,
    importable_name,
    remember_app,
)  # fmt: skip
from celeriac.app.registry import AppRegistry, TaskRegistry
from celeriac.app.result import AsyncResult as Result
from celeriac.app.signals import AppSignal
from celeriac.app.task import AsyncTask, add_trail
from celeriac.app.task import Task as BaseTask
from celeriac.canvas.signature import Signature, signature
from celeriac.client.sender import BULK
from celeriac.clock import SYSTEM_CLOCK, LamportClock
from celeriac.errors import AlwaysEagerIgnored, ImproperlyConfigured
from celeriac.ids import anonymous_node
from celeriac.ids import task_id as new_id
from celeriac.settings.loading import Configuration, from_environment, zone

if TYPE_CHECKING:
    from types import ModuleType

    from celeriac.app.backend import Backend
    from celeriac.app.control import Control
    from celeriac.app.events import Events
    from celeriac.app.group_result import GroupResult as Group
    from celeriac.app.group_result import ResultSet as Results
    from celeriac.app.loader import BaseLoader
    from celeriac.client.outbox import Outbox
    from celeriac.client.remote import Channel, Remote
    from celeriac.client.sender import PublishPolicy, Sender
    from celeriac.client.tracker import Tracker
    from celeriac.limiters.base import Limiter
    from celeriac.results.base import Replies, ResultStore, Revocations
    from celeriac.rules.routing import Router
    from celeriac.settings import Settings
    from celeriac.transports.base import QueueSpec, Transport
    from celeriac.wire.envelope import Outgoing

P = ParamSpec("P")
R = TypeVar("R")

#: arguments of Celery's constructor that choose parts we do not have
_NOT_OURS = ("amqp", "events", "log", "control", "fixups")


class Celeriac:
    """An app: its configuration and its tasks. ``main`` is the name of the module it lives in."""

    task_cls: type[BaseTask[Any, Any]] = BaseTask

    def __init__(
        self, main: str | None = None, *, broker: str | None = None, backend: str | None = None,
        include: str | Sequence[str] | None = None, set_as_current: bool = True, tasks: TaskRegistry | None = None,
        changes: Mapping[str, Any] | None = None, config_source: Any = None, config_source_silent: bool = False,
        task_cls: type[BaseTask[Any, Any]] | str | None = None, autofinalize: bool = True, namespace: str | None = None,
        strict_typing: bool = True, loader: Any = None, **settings: Any,
    ) -> None:  # fmt: skip
        """Keywords beyond the named ones are settings: ``Celeriac("hello", task_acks_late=False)``."""
        for name in _NOT_OURS:
            if settings.pop(name, None) is not None:
                raise ImproperlyConfigured(f"{name}= is not supported: celeriac has no replaceable {name}")
        self.main = main
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.finalized = False
        #: the tasks, without the side effects of :attr:`tasks`
        self.registry = TaskRegistry() if tasks is None else tasks
        self.on_configure = AppSignal("on_configure")
        self.on_after_configure = AppSignal("on_after_configure")
        self.on_after_finalize = AppSignal("on_after_finalize")
        self.on_after_fork = AppSignal("on_after_fork")
        # the module that makes the app: where other processes look for it
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # inspect is dear to import
        self._home: str = caller.f_globals.get("__name__", "__main__")
        self._task_cls = task_cls
        self._configured = False
        self._finalizing = False
        self._lock = threading.RLock()
        self._discoveries: list[tuple[Iterable[str] | Callable[[], Iterable[str]], str | None]] = []
        self._parts: dict[str, Any] = {}
        self._parts_edition: object = None
        self._connections: dict[str, Any] = {}
        self._own: dict[str, Any] = {}  #: parts that outlive :meth:`close`
        #: options that the app adds to commands: ``user_options["worker"].add(click.Option(["--token"]))``
        self.user_options: defaultdict[str, set[Any]] = defaultdict(set)
        #: classes of ``celeriac.bootsteps`` that start and stop with a worker: ``steps["worker"].add(MyStep)``
        self.steps: defaultdict[str, set[Any]] = defaultdict(set)
        self._by_name: dict[str, calls.Plan] = {}
        named = {"broker_url": broker, "result_backend": backend, "include": _as_list(include)}
        keywords = {**(changes or {}), **{key: value for key, value in named.items() if value}, **settings}
        self._arguments = {
            "main": main, "set_as_current": set_as_current, "autofinalize": autofinalize, "namespace": namespace,
            "strict_typing": strict_typing, "config_source": config_source, "task_cls": task_cls, "loader": loader,
        }  # fmt: skip
        #: the configuration; reading it opens its sources, writing does not
        self.conf = Configuration(keywords, namespace=namespace)
        if config_source is not None:
            self.config_from_object(config_source, silent=config_source_silent)
        else:
            self.conf.config_from_envvar("CELERIAC_CONFIG_MODULE", silent=True)
        self._loader = loader or from_environment("CELERIAC_LOADER", "CELERY_LOADER")
        if self._loader:
            self.conf.add_defaults(lambda: self.loader.read_configuration() or {})
        if set_as_current:
            self.set_current()
        remember_app(self)
        self.on_init()

    def on_init(self) -> None:
        """Called at the end of construction; for subclasses."""

    # ── configuration ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def settings(self) -> Settings:
        """The configuration checked, typed and frozen; the same object until something changes."""
        if not self._configured:
            self._configure()
        return self.conf.settings

    @property
    def edition(self) -> object:
        """What identifies the present state of the configuration: whatever was worked out from another is stale."""
        return self.settings

    def _configure(self) -> None:
        with self._lock:
            if self._configured:
                return
            self._configured = True
            self.on_configure.send(self)
            self.conf.finalize()
            self.on_after_configure.send(self, source=self.conf)

    @property
    def configured(self) -> bool:
        return self._configured

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read settings from a module (or its name), class, mapping or another app, on first use or now (``force``)."""
        self._configured = False
        self.namespace = namespace or self.namespace
        source = dict(obj.conf.without_defaults()) if isinstance(obj, Celeriac) else obj
        self.conf.config_from_object(source, silent=silent, force=force, namespace=self.namespace)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Read settings from the module an environment variable names. Raises ``ImproperlyConfigured`` if unset."""
        self._configured = False
        return self.conf.config_from_envvar(variable_name, silent=silent, force=force, namespace=self.namespace)

    def add_defaults(self, fun: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add settings that others override; a function is called when the configuration is first read."""
        self.conf.add_defaults(fun)

    @property
    def timezone(self) -> tzinfo:
        return cast("tzinfo", self._part("timezone", lambda settings: zone(settings)))

    def now(self) -> datetime:
        """The time in the app's zone."""
        moment = SYSTEM_CLOCK.now()
        return moment if self.timezone is UTC else moment.astimezone(self.timezone)

    def uses_utc_timezone(self) -> bool:
        return self.timezone is UTC

    def either(self, default_key: str, *values: Any) -> Any:
        """The first value that is not ``None``, else the setting."""
        return next((value for value in values if value is not None), None) or self.conf.get(default_key)

    @property
    def loader(self) -> BaseLoader:
        """Reads settings and is told of the worker's moments; another class of it is ``Celeriac(loader=…)``."""

        def make() -> BaseLoader:
            from celeriac.app.loader import loader_of

            return loader_of(self, self._loader)

        return cast("BaseLoader", self._own.get("loader") or self._own.setdefault("loader", make()))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, name: str, make: Callable[[Settings], Any]) -> Any:
        """What was worked out from the present settings, made on first use."""
        settings = self.settings
        if self._parts_edition is not settings:
            self._parts, self._parts_edition = {}, settings
        try:
            return self._parts[name]
        except KeyError:
            return self._parts.setdefault(name, make(settings))

    def _connection(self, name: str, make: Callable[[], Any]) -> Any:
        """A part that lives until :meth:`close`: changing settings under an open connection changes nothing."""
        found = self._connections.get(name)
        if found is None:
            with self._lock:
                found = self._connections.get(name)
                if found is None:
                    found = self._connections[name] = make()
        return found

    @property
    def name(self) -> str:
        """What the app is called in files and banners."""
        return self.main if self.main and self.main != "__main__" else importable_name(self._home)

    @property
    def queues(self) -> Mapping[str, QueueSpec]:
        """The declared queues by name."""
        from celeriac.app.wiring import queues_of

        return cast("Mapping[str, QueueSpec]", self._part("queues", queues_of))

    @property
    def router(self) -> Router:
        found = self._parts.get("router") if self._parts_edition is self.settings else None
        if found is None:
            from celeriac.app.wiring import router_of

            found = self._part("router", lambda settings: router_of(settings, self.queues))
        return cast("Router", found)

    @property
    def routes_are_static(self) -> bool:
        from celeriac.app.wiring import routes_are_static

        return bool(self._part("routes_are_static", routes_are_static))

    @property
    def publish_policy(self) -> PublishPolicy:
        from celeriac.app.wiring import policy_of

        return cast("PublishPolicy", self._part("publish_policy", policy_of))

    @property
    def broker_url(self) -> str:
        """The URL messages go to; secrets included, so not for showing."""
        from celeriac.app.wiring import broker_url

        return cast("str", self._part("broker_url", lambda settings: broker_url(settings, self.name)))

    @property
    def transport(self) -> Transport:
        """The broker; made on first use, connected when something is sent."""

        return cast(
            "Transport",
            self._connections.get("transport")
            or self._connection("transport", lambda: self._open_transport(self.broker_url)),
        )

    def _open_transport(self, url: str) -> Transport:
        from celeriac.app.wiring import open_transport

        # asked anew each time: settings may change under an open connection
        return open_transport(url, self.settings, lambda name: self.router.queue(name))

    @property
    def reading_transport(self) -> Transport:
        """The broker that workers take messages from: :attr:`transport`, unless ``broker_read_url`` says otherwise."""
        from celeriac.app.wiring import reading_url

        url = reading_url(self.settings, self.name)
        if url == self.broker_url:
            return self.transport
        return cast("Transport", self._connection("reading", lambda: self._open_transport(url)))

    @property
    def store(self) -> ResultStore | None:
        """The result store; ``None`` where results are not kept."""

        def make() -> tuple[ResultStore | None]:
            from celeriac.app.wiring import open_store

            return (open_store(self.settings, self.broker_url),)

        return cast("tuple[ResultStore | None]", self._connection("store", make))[0]

    def open_limiter(self) -> Limiter:
        """What counts for limits of the whole cluster. Raises ``ImproperlyConfigured`` where nothing can."""
        from celeriac.app.wiring import open_limiter, reading_url

        return open_limiter(self.settings, reading_url(self.settings, self.name))

    @property
    def revocations(self) -> Revocations | None:
        """What keeps revoked tasks in mind for workers that are down; None where neither broker nor store does."""
        from celeriac.results.base import registry_among

        return registry_among(self.transport, self.store)

    @property
    def replies(self) -> Replies | None:
        """The result store, if results are sent to the process that asked for them (``rpc://``)."""
        if not self.settings.result_backend:
            return None  # the embedded file, which need not be opened for this
        from celeriac.results.base import Replies

        store: object = self.store
        return store if isinstance(store, Replies) else None

    @property
    def backend(self) -> Backend:
        """The result store as metas, with Celery's method names."""

        def make() -> Backend:
            from celeriac.app.backend import Backend

            return Backend(self)

        return cast("Backend", self._connection("backend", make))

    @property
    def sender(self) -> Sender:
        def make() -> Sender:
            from celeriac.client.sender import Sender

            sender = Sender(lambda: self.transport, self.publish_policy, SYSTEM_CLOCK)
            if self.settings.task_send_sent_event:
                sender.on_sent = self.events.tell_sent
            return sender

        return cast("Sender", self._connections.get("sender") or self._connection("sender", make))

    @property
    def outbox(self) -> Outbox:
        def make() -> Outbox:
            from celeriac.client.outbox import Outbox

            return Outbox(self.sender)

        return cast("Outbox", self._connection("outbox", make))

    @property
    def tracker(self) -> Tracker:
        def make() -> Tracker:
            from celeriac.client.tracker import Tracker

            return Tracker(lambda: self.backend.store, SYSTEM_CLOCK)

        return cast("Tracker", self._connection("tracker", make))

    @property
    def clock(self) -> LamportClock:
        """Counts what this process sends and hears of remote control and events (Celery's ``app.clock``)."""
        return cast("LamportClock", self._connection("clock", LamportClock))

    @property
    def remote(self) -> Remote:
        """What talks to the workers; ``control`` is its face."""

        def make() -> Remote:
            from celeriac.client.remote import Remote

            return Remote(lambda: self.transport, lambda: self.control_channel, self.clock, SYSTEM_CLOCK)

        return cast("Remote", self._connection("remote", make))

    @property
    def control_channel(self) -> Channel:
        from celeriac.client.remote import Channel

        return cast("Channel", self._part("control_channel", Channel.of))

    @property
    def control(self) -> Control:
        """Asks and tells the workers: ``app.control.ping()``, ``app.control.inspect().active()``."""

        def make() -> Control:
            from celeriac.app.control import Control

            return Control(self)

        return cast("Control", self._connection("control", make))

    @property
    def events(self) -> Events:
        """Hears and sends events: ``app.events.Receiver``, ``.Dispatcher``, ``.State``."""

        def make() -> Events:
            from celeriac.app.events import Events

            return Events(self)

        return cast("Events", self._connection("events", make))

    def close(self) -> None:
        """Close all connections; using the app again opens new ones."""
        with self._lock:
            parts, self._connections = self._connections, {}
        for name in ("sender", "remote", "events"):
            if name in parts:
                parts[name].close()
        for part in (parts.get("transport"), parts.get("reading"), *parts.get("store", ())):
            if part is not None:
                part.close()

    def __enter__(self) -> Celeriac:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Any) -> DeclareBound: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Any) -> Declare: ...
    @overload
    def task(self, fun: Callable[..., Any], /, *, bind: bool = False, **options: Any) -> BaseTask[..., Any]: ...
    def task(self, *function: Any, **options: Any) -> Any:  # type: ignore[misc]  # mypy: Callable[...] and *function
        """Make a task of a function: ``@app.task`` or ``@app.task(bind=True, queue="mail")``.

        Options are ``name``, ``base``, ``bind``, ``filter``, ``pydantic…``, ``autoretry_for`` and its kin, and every
        attribute of ``Task``; unknown ones become attributes too.
        """
        if not function:
            return functools.partial(self.task, **options)
        (fun,) = function
        if isinstance(fun, BaseTask):
            raise TypeError(f"{fun.name} is a task already")
        if not callable(fun):
            raise TypeError(f"app.task takes a function, not {fun!r}; its options are keywords")
        return declare(self, fun, options)

    @property
    def Task(self) -> type[BaseTask[Any, Any]]:
        """The base of this app's tasks, bound to it."""
        found = self._connections.get("Task")
        if found is None:
            base = self._task_cls or self.task_cls
            if isinstance(base, str):
                from celeriac import plugins

                base = cast("type[BaseTask[Any, Any]]", plugins.resolve(base))
            attributes = {"_app": self, "abstract": True, "__module__": base.__module__, "__doc__": base.__doc__}
            found = self._connection("Task", lambda: type(base.__name__, (base,), attributes))
        return cast("type[BaseTask[Any, Any]]", found)

    def register_task(self, task: BaseTask[Any, Any] | type[BaseTask[Any, Any]], **options: Any) -> BaseTask[Any, Any]:
        """Register a task object or class of your own; without a name it gets that of its module and class."""
        from celeriac.app.retrying import add_autoretry

        made = task() if isinstance(task, type) else task
        if not getattr(made, "name", None):
            made.name = self.gen_task_name(type(made).__name__, type(made).__module__)
        for name, value in options.items():
            setattr(made, name, value)
        made.attach(self)
        add_autoretry(made, options)
        if made.limits:
            made.bound_limits()
        self.add_task(made)
        return made

    def add_task(self, task: BaseTask[Any, Any]) -> None:
        """Put a task in the registry, with the name that producers know it by which run its module as a script."""
        self.registry[task.name] = task
        home = importable_name(self._home)
        prefix = f"{home}."
        if self.main and self.main != home and task.name.startswith(prefix):
            self.registry.aliases[f"{self.main}.{task.name.removeprefix(prefix)}"] = task.name
        if self.finalized:
            self._annotate(task)

    def gen_task_name(self, name: str, module: str) -> str:
        """``module.name``; a module that runs as a script goes by the app's name, or by its own if it has none."""
        if module == "__main__":
            module = self.main or importable_name(module)
        return f"{module}.{name}" if module else name

    @property
    def tasks(self) -> TaskRegistry:
        """The tasks by name; asking finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self.registry

    def finalize(self, auto: bool = False) -> None:
        """Complete the registry: shared tasks and annotations. Happens by itself on first use."""
        if self._is_final():
            return
        with self._lock:
            if self._is_final():  # by another thread, meanwhile
                return
            if auto and not self.autofinalize:
                raise RuntimeError("the app is not finalized: call app.finalize() (autofinalize is off)")
            self._finalizing = True
            try:
                annotations = self.settings.task_annotations
                declare_shared(self)
                for task in list(self.registry.values()) if annotations else ():
                    self._annotate(task)
                self.finalized = True
            finally:
                self._finalizing = False
        self.on_after_finalize.send(self)

    def _is_final(self) -> bool:
        return self.finalized or self._finalizing

    def _annotate(self, task: BaseTask[Any, Any]) -> None:
        if self.settings.task_annotations:
            from celeriac.app.annotations import annotate

            annotate(task, self.settings.task_annotations)

    def autodiscover_tasks(
        self, packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks", force: bool = False,
    ) -> None:  # fmt: skip
        """Import the module ``tasks`` (or ``related_name``) of each package when a worker starts, or now (``force``).

        A package without such a module is passed over; errors inside one are not.
        """
        if packages is None:
            raise ImproperlyConfigured("autodiscover_tasks needs the packages to look into")
        self._discoveries.append((packages, related_name))
        if force:
            self._discover()

    def _discover(self) -> None:
        from celeriac.app.loading import discover

        pending, self._discoveries = self._discoveries, []
        for packages, related_name in pending:
            discover(packages() if callable(packages) else packages, related_name)

    def import_default_modules(self) -> list[ModuleType]:
        """Import every module that is to hold tasks: ``imports``, ``include``, and what autodiscovery finds."""
        from celeriac.app.loading import import_task_modules

        settings = self.settings
        modules = list(import_task_modules([*_as_list(settings.imports), *_as_list(settings.include)]))
        self._discover()
        return modules

    def worker_registry(self) -> AppRegistry:
        """What a worker's children run tasks from; imports every task module."""
        if self._loader:
            from celeriac.app.loader import connect

            connect(self.loader)
        self.import_default_modules()
        self.finalize()
        return AppRegistry(self)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Any]:
        """Send a task by name; it need not exist here. Options are those of ``Task.apply_async``."""
        outgoing, draft = self._prepared(name, args, kwargs, options)
        self.sender.send((outgoing,), draft.policy)
        return self._sent(draft, name)

    async def asend_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Any]:
        """:meth:`send_task` for coroutines."""
        outgoing, draft = self._prepared(name, args, kwargs, options)
        await self.outbox.send((outgoing,), draft.policy)
        return self._sent(draft, name)

    def send_many(self, signatures: Iterable[Signature[R]]) -> list[Result[R]]:
        """Send many calls, a thousand to a transaction; the results are in order.

        What goes wrong with one batch is raised; the batches before it are sent.
        """
        batch: list[Outgoing] = []
        results: list[Result[R]] = []
        for sig in signatures:
            if sig.subtask_type:
                raise ImproperlyConfigured(f"send_many takes single tasks, not a {sig.subtask_type}")
            outgoing, result = self.prepare(sig.task, sig.args, sig.kwargs, sig.options)
            batch.append(outgoing)
            results.append(result)
            if len(batch) == BULK:
                self.sender.send_bulk(batch)
                batch = []
        self.sender.send_bulk(batch)
        return results

    def prepare(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Outgoing, Result[Any]]:
        """The message of a call that somebody else will publish, and its result."""
        task = self.tasks.get(name)
        if task is not None:
            return task.prepare(args, kwargs, options)
        given = {option: value for option, value in options.items() if value is not None}
        draft = calls.draft_of(self, self._plan_by_name(name), args, kwargs, given, calls.running_request())
        self.declare_queue(draft.queue, draft.route.exchange)
        return self.sender.prepare(draft.call, draft.route), Result(draft.call.id, None, name, self)

    def _prepared(
        self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]
    ) -> tuple[Outgoing, calls.Draft]:
        calls.check_name(name)
        plan = self._plan_by_name(name)
        if plan.always_eager:
            warnings.warn(AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=3)
        draft = calls.draft_of(
            self, plan, () if args is None else args, {} if kwargs is None else kwargs, options, calls.running_request()
        )
        self.declare_queue(draft.queue, draft.route.exchange)
        return self.sender.prepare(draft.call, draft.route), draft

    def _sent(self, draft: calls.Draft, name: str) -> Result[Any]:
        result: Result[Any] = Result(draft.call.id, None, name, self)
        if draft.call.ignore_result is not None:
            result.ignored = draft.call.ignore_result
        parent = calls.running_request() if draft.add_to_parent else None
        if parent is not None:
            add_trail(parent, result)
        return result

    def _plan_by_name(self, name: str) -> calls.Plan:
        plan = self._by_name.get(name)
        if plan is None or plan.edition is not self.edition or plan.task is not self.registry.get(name):
            if len(self._by_name) > 4096:  # names that come from outside must not pile up
                self._by_name.clear()
            plan = calls.plan_for(self, name, self.registry.get(name), by_name=True)
            self._by_name[name] = plan
        return plan

    def declare_queue(self, queue: QueueSpec | None, exchange: str) -> None:
        """Make sure that a queue bound to an exchange is there before something is sent to the exchange."""
        if exchange and queue is not None:
            self.sender.declare(queue)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        kwargs["app"] = self
        return signature(*args, **kwargs)

    subtask = signature

    # ── results ──────────────────────────────────────────────────────────────────────────────────────────────

    def AsyncResult(
        self, id: str, backend: Backend | None = None, task_name: str | None = None, parent: Any = None,  # noqa: A002
    ) -> Result[Any]:  # fmt: skip
        """The result of the task with this id."""
        return Result(id, backend, task_name, self, parent)

    def ResultSet(self, results: Iterable[Result[R]]) -> Results[R]:
        from celeriac.app.group_result import ResultSet

        return ResultSet(results, app=self)

    def GroupResult(
        self, id: str | None = None, results: Iterable[Result[R]] | None = None, parent: Any = None,  # noqa: A002
    ) -> Group[R]:  # fmt: skip
        from celeriac.app.group_result import GroupResult

        return GroupResult(id, results, parent, app=self)

    def revoke(self, task_id: str | Iterable[str], terminate: bool = False, **how: Any) -> Any:
        """Take tasks back: no worker will run them, one that is down now neither; ``terminate`` ends those that run.

        As ``app.control.revoke``, whose further options it takes.
        """
        return self.control.revoke(task_id, terminate=terminate, **how)

    # ── being current ────────────────────────────────────────────────────────────────────────────────────────

    def set_current(self) -> None:
        """Make this the app that ``current_app`` means."""
        current.set_current_app(self)

    def set_default(self) -> None:
        """Make this the app that ``current_app`` means where no other is current."""
        current.set_default_app(self)

    @property
    def current_task(self) -> BaseTask[Any, Any] | None:
        """The task that runs here, called as a function or by a worker."""
        top = current.running()
        return None if top is None else cast("BaseTask[Any, Any]", top.task)

    @property
    def current_worker_task(self) -> BaseTask[Any, Any] | None:
        """The task that a worker runs here."""
        return None if calls.running_request() is None else self.current_task

    @property
    def origin(self) -> str:
        """How this process signs what it sends."""
        return cast("str", self._part(f"origin {os.getpid()}", lambda settings: anonymous_node()))

    @functools.cached_property
    def oid(self) -> str:
        """A name for this app object, unlike any other's."""
        return new_id()

    # ── shells ───────────────────────────────────────────────────────────────────────────────────────────────

    def Worker(self, **options: Any) -> Any:
        """A worker in this process; ``.run()`` blocks until it ends. Options as on the command line."""
        # the façade may know the engine here: Celery's API demands it (ARCHITECTURE, section 2.3)
        from celeriac.app.embedded_worker import worker_of

        return worker_of(self, options)

    WorkController = Worker

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Run the command line with this app. Ends with ``SystemExit``."""
        # allowed late import of the shell, as above
        from celeriac.cli.main import run

        arguments = list(sys.argv[1:] if argv is None else argv)
        target = self.import_target()
        if target and not {"-A", "--app"} & set(arguments):
            arguments[:0] = ["-A", target]
        run(arguments)

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """:meth:`start` for the worker: ``app.worker_main(["worker", "-l", "INFO"])``."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in arguments:
            raise ValueError("the worker sub-command must be specified in argv: worker_main(['worker', …])")
        self.start(arguments)

    def import_target(self) -> str | None:
        """``module:attribute`` under which other processes find this app; ``None`` if it has no such place."""
        module = sys.modules.get(self._home)
        for attribute, value in vars(module).items() if module is not None else ():
            if value is self:
                return f"{importable_name(self._home)}:{attribute}"
        return None

    # ── as a value ───────────────────────────────────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.conf.changes)


def _rebuild(kind: type[Celeriac], arguments: dict[str, Any], changes: dict[str, Any]) -> Celeriac:
    options: dict[str, Any] = {**arguments, "changes": changes}
    return kind(**options)


def _as_list(value: Any) -> list[Any]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


Celery = Celeriac
