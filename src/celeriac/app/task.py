"""A task: the user's function together with how it is sent, run, retried and stored.

Typed by the function: ``Task[P, R]`` takes its parameters and promises its return value (of a coroutine function: what
awaiting it gives). How an option becomes part of a message is in ``calls.py``, what a retry is in ``retrying.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast

from celeriac import current, errors, telemetry
from celeriac.app import calls
from celeriac.app.arity import Arity, Checker, arity_of
from celeriac.app.result import AsyncResult as Result
from celeriac.canvas.signature import Signature, signature
from celeriac.client.sender import BULK
from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import RunnableOptions
from celeriac.executors.context import Context
from celeriac.rules.limit import bind, limits_of
from celeriac.wire.envelope import Outgoing
from celeriac.wire.serializers import accept_set

if TYPE_CHECKING:
    from celeriac.app.backend import Backend
    from celeriac.app.celery import Celeriac
    from celeriac.app.group_result import GroupResult
    from celeriac.errors import Retry
    from celeriac.rules.limit import BoundLimit, Limit
    from celeriac.rules.limit_keys import Parameters

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["AsyncTask", "Context", "Task"]

#: ``co_flags`` bit of ``async def`` (Python's data model)
_COROUTINE = 0x80

#: decorators around one function that are looked through
_MOST_WRAPPERS = 20
#: attributes besides those declared on Task that decide how a task is sent or run
_DECIDING = frozenset({*calls.EXEC_OPTIONS, "name", "run", "dump_arguments", "_app", "_is_coroutine"})


class TaskEvent(telemetry.Event):
    """An event of the user's own, sent by ``Task.send_event``."""

    kind: str
    id: str
    fields: dict[str, Any]


class Task(Generic[P, R]):
    """Base of all tasks. One instance per app and process; its attributes are Celery's.

    ``None`` means that a setting decides (``task_...``). Set an attribute on the class or the instance, through the
    decorator's options, or by ``task_annotations``.
    """

    name: str = None  # type: ignore[assignment]  # every registered task has one
    abstract: bool = True
    typing: bool | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 180
    rate_limit: str | float | None = None
    #: limits of the whole cluster: ``[Limit(rate="100/m", key="args.tenant")]``; ``rate_limit`` is for each worker
    limits: Limit | Mapping[str, Any] | Sequence[Limit | Mapping[str, Any]] | None = None
    ignore_result: bool | None = None
    trail: bool = True
    send_events: bool = True
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    serializer: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    track_started: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None
    throws: tuple[type[BaseException], ...] = ()
    expires: Any = None
    priority: int | None = None
    #: the pool to run in, as ``-P`` names it, where a worker has several
    pool: str | None = None
    resultrepr_maxsize: int = 1024

    MaxRetriesExceededError: ClassVar[type[errors.MaxRetriesExceededError]] = errors.MaxRetriesExceededError
    OperationalError: ClassVar[type[errors.OperationalError]] = errors.OperationalError

    _app: Celeriac | None = None
    _backend: Backend | None = None
    _plan: calls.Plan | None = None
    _options: tuple[object, RunnableOptions] | None = None
    _header: Checker | None = None
    _direct_request: Context | None = None
    _is_coroutine: bool | None = None
    #: prepares a call's arguments on the caller's side (pydantic tasks)
    dump_arguments: Callable[[Any, Any, str], tuple[Any, Any]] | None = None

    # ── what it is ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def app(self) -> Celeriac:
        app = self._app or current.get_current_app()
        if app is None:
            raise ImproperlyConfigured(f"task {self.name} belongs to no app: create a Celeriac() first")
        return cast("Celeriac", app)

    @property
    def backend(self) -> Backend:
        return self._backend or self.app.backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def request(self) -> Context:
        """The attempt that runs here; outside of any, one that says ``called_directly``."""
        top = current.running()
        if top is not None and top.task is self:
            return cast("Context", top.request)
        outer = current.request_of(self)
        if outer is not None:
            return cast("Context", outer)
        if self._direct_request is None:
            self._direct_request = Context()
        return self._direct_request

    @property
    def request_stack(self) -> RequestStack:
        """The requests of this task that are under way in this context."""
        return RequestStack(self)

    def push_request(self, *mappings: Any, **values: Any) -> None:
        current.push(self, Context(*mappings, **values))

    def pop_request(self) -> None:
        current.pop()

    @property
    def is_coroutine(self) -> bool:
        """Whether the body is an ``async def``."""
        known = self._is_coroutine
        if known is None:
            known = self._is_coroutine = is_coroutine_function(getattr(self, "__wrapped__", self.run))
        return known

    @property
    def strict_typing(self) -> bool:
        return self.app.strict_typing if self.typing is None else self.typing

    @property
    def __header__(self) -> Checker:
        """Raises ``TypeError`` for arguments that do not fit; called with ``(args, kwargs)``."""
        if self._header is None:
            wrapped = getattr(self, "__wrapped__", None)
            bound = getattr(self, "__bound__", False)
            self._header = arity_of(self.run) if wrapped is None else arity_of(wrapped, skip=1 if bound else 0)
        return self._header

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # what was worked out from what decides is stale; state of the user's own is not
        if name in _DECIDING or (name in Task.__annotations__ and not name.startswith("_")):
            object.__setattr__(self, "_plan", None)
            object.__setattr__(self, "_options", None)

    @classmethod
    def bind(cls, app: Celeriac) -> Celeriac:
        """Make the class belong to an app."""
        cls._app = app
        cls.on_bound(app)
        return app

    def attach(self, app: Celeriac) -> None:
        """Make this object belong to an app."""
        self._app = app
        self.on_bound(app)

    @classmethod
    def on_bound(cls, app: Celeriac) -> None:
        """Called when the class gets its app."""

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body; a task class of your own defines it."""
        raise NotImplementedError(f"{type(self).__name__} defines no run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the body here, as a plain function."""
        top = current.running()
        if top is not None and top.task is self and "_entered" not in top.request.__dict__:
            top.request.__dict__["_entered"] = True  # whoever pushed the request calls; the next call is the task's own
            return cast("R", self.run(*args, **kwargs))
        request = Context(args=args, kwargs=kwargs, _entered=True)
        if self.is_coroutine:
            return cast("R", self._await_directly(request))
        current.push(self, request)
        try:
            return cast("R", self.run(*args, **kwargs))
        finally:
            current.pop()

    async def _await_directly(self, request: Context) -> Any:
        current.push(self, request)
        try:
            return await self.run(*request.args, **request.kwargs)
        finally:
            current.pop()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Send the task; the arguments are the function's own. Raises ``OperationalError`` if the broker can't."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, task_id: str | None = None,
        producer: Any = None, link: Any = None, link_error: Any = None, shadow: str | None = None, **options: Any,
    ) -> Result[R]:  # fmt: skip
        """Send the task with options: ``countdown``, ``eta``, ``expires``, ``queue``, ``priority`` … (see the docs).

        Returns when the broker has the message. An option nobody knows becomes a property of the message.
        """
        plan = self._plan_now()
        given = _given(options, task_id, link, link_error, shadow)
        args, kwargs = self._checked(plan, args, kwargs, given)
        if plan.always_eager:
            return self._apply_eagerly(plan, args, kwargs, given)
        app = self.app
        outgoing, task_id, policy, parent = self._prepared(app, plan, args, kwargs, given)
        app.sender.send((outgoing,), policy)
        result: Result[R] = Result(task_id, None, self.name, app)
        if given:
            _note_ignored(result, given)
        if parent is not None:
            add_trail(parent, result)
        return result

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """:meth:`delay` for coroutines: concurrent calls share their way to the broker."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, task_id: str | None = None,
        producer: Any = None, link: Any = None, link_error: Any = None, shadow: str | None = None, **options: Any,
    ) -> Result[R]:  # fmt: skip
        """:meth:`apply_async` for coroutines."""
        plan = self._plan_now()
        given = _given(options, task_id, link, link_error, shadow)
        args, kwargs = self._checked(plan, args, kwargs, given)
        if plan.always_eager:
            from celeriac.app.eager import apply_on_loop

            args, kwargs = self._round_trip(plan, args, kwargs, given)
            return await apply_on_loop(self, args, kwargs, given)
        app = self.app
        outgoing, task_id, policy, parent = self._prepared(app, plan, args, kwargs, given)
        await app.outbox.send((outgoing,), policy)
        result: Result[R] = Result(task_id, None, self.name, app)
        if given:
            _note_ignored(result, given)
        if parent is not None:
            add_trail(parent, result)
        return result

    def delay_many(self, arguments: Iterable[Sequence[Any]]) -> list[Result[R]]:
        """Send one task for each tuple of positional arguments, a thousand to a transaction.

        Returns the results in order. What goes wrong with one batch is raised; the batches before it are sent.
        """
        plan = self._plan_now()
        if plan.always_eager or type(self).apply_async is not Task.apply_async:
            return [self.apply_async(_argument_tuple(args, self.name)) for args in arguments]
        app, name = self.app, self.name
        batch: list[Outgoing] = []
        results: list[Result[R]] = []
        with app.sender.stream(plan.policy) as stream:
            for outgoing, task_id in self._many(app, plan, arguments):
                batch.append(outgoing)
                results.append(Result(task_id, None, name, app))
                if len(batch) == BULK:
                    stream.send(batch)
                    batch = []
            stream.send(batch)
        parent = calls.running_request()
        if parent is not None:
            for result in results:
                add_trail(parent, result)
        return results

    def _many(
        self, app: Celeriac, plan: calls.Plan, arguments: Iterable[Sequence[Any]]
    ) -> Iterator[tuple[Outgoing, str]]:
        route, check, name = plan.route, plan.check, self.name
        plain = plan.template is not None and route is not None and current.running() is None
        if not plain or self.dump_arguments is not None or type(self).shadow_name is not Task.shadow_name:
            for args in arguments:
                given: dict[str, Any] = {}
                positional, named = self._checked(plan, _argument_tuple(args, name), None, given)
                outgoing, task_id, _, _ = self._prepared(app, plan, positional, named, given)
                yield outgoing, task_id
            return
        assert route is not None
        app.declare_queue(plan.queue, route.exchange)
        nothing: dict[str, Any] = {}
        for args in arguments:
            if type(args) is not tuple:
                args = _argument_tuple(args, name)
            if check is not None:
                check(args, nothing)
            task_id, envelope = calls.plain_message(plan, route, args, nothing)
            yield Outgoing(envelope, route), task_id

    def _plan_now(self) -> calls.Plan:
        plan = self._plan
        app = self._app
        if app is None:
            app = self.app
        if plan is None or plan.edition is not app.edition:
            plan = self._plan = calls.plan_for(app, self.name, self)
        return plan

    def _checked(
        self, plan: calls.Plan, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, given: dict[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        positional: Sequence[Any] = () if args is None else args
        named: Mapping[str, Any] = {} if kwargs is None else kwargs
        if plan.check is not None:
            try:
                plan.check(positional, named)
            except TypeError:
                calls.check_shape(positional, named, self.name)
                raise
        if self.dump_arguments is not None:
            positional, named = self.dump_arguments(positional, named, given.get("serializer") or plan.serializer)
        if type(self).shadow_name is not Task.shadow_name and "shadow" not in given:
            shadow = self.shadow_name(positional, named, given)
            if shadow:
                given["shadow"] = shadow
        return positional, named

    def _prepared(
        self, app: Celeriac, plan: calls.Plan, args: Sequence[Any], kwargs: Mapping[str, Any], given: dict[str, Any]
    ) -> tuple[Outgoing, str, Any, Context | None]:
        """The message, its id, how to publish it, and the request whose child it will be."""
        top = current.running()
        if not given and top is None and plan.template is not None and plan.route is not None:
            app.declare_queue(plan.queue, plan.route.exchange)
            task_id, envelope = calls.plain_message(plan, plan.route, args, kwargs)
            return Outgoing(envelope, plan.route), task_id, plan.policy, None
        parent = None if top is None else calls.running_request()
        draft = calls.draft_of(app, plan, args, kwargs, given, parent)
        app.declare_queue(draft.queue, draft.route.exchange)
        outgoing = app.sender.prepare(draft.call, draft.route)
        return outgoing, draft.call.id, draft.policy, parent if draft.add_to_parent else None

    def prepare(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Outgoing, Result[R]]:
        """The message of a call that somebody else will publish, and its result."""
        plan = self._plan_now()
        given = {name: value for name, value in options.items() if value is not None}
        args, kwargs = self._checked(plan, args, kwargs, given)
        app = self.app
        outgoing, task_id, _, _ = self._prepared(app, plan, args, kwargs, given)
        return outgoing, Result(task_id, None, self.name, app)

    def shadow_name(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
        """Override to show a call under another name in logs and monitors."""
        return None

    # ── running here ─────────────────────────────────────────────────────────────────────────────────────────

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, link: Any = None,
        link_error: Any = None, task_id: str | None = None, retries: int | None = None, throw: bool | None = None,
        logfile: Any = None, loglevel: Any = None, headers: Mapping[str, Any] | None = None, **options: Any,
    ) -> Result[R]:  # fmt: skip
        """Run the task here and now, with retries and callbacks, and return an ``EagerResult``."""
        from celeriac.app.eager import apply

        given = _given(options, task_id, link, link_error, None)
        given.update(retries=retries or 0, throw=throw, headers=headers, logfile=logfile, loglevel=loglevel)
        return apply(self, () if args is None else args, kwargs or {}, given)

    def _apply_eagerly(
        self, plan: calls.Plan, args: Sequence[Any], kwargs: Mapping[str, Any], given: dict[str, Any]
    ) -> Result[R]:
        from celeriac.app.eager import apply

        args, kwargs = self._round_trip(plan, args, kwargs, given)
        return apply(self, args, kwargs, given)

    def _round_trip(
        self, plan: calls.Plan, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments as a worker would see them: what can't travel fails here as well."""
        from celeriac.app.eager import round_trip

        calls.check_limits(
            given.get("soft_time_limit", self.soft_time_limit), given.get("time_limit", self.time_limit), self.name
        )
        return round_trip(args, kwargs, given.get("serializer") or plan.serializer)

    # ── while it runs ────────────────────────────────────────────────────────────────────────────────────────

    def retry(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None, throw: bool = True, eta: Any = None, countdown: float | None = None,
        max_retries: int | None = None, **options: Any,
    ) -> Retry:  # fmt: skip
        """Have this task run again, with the same id: ``raise self.retry(exc=error, countdown=5)``.

        Raises ``Retry``, or when no retries are left ``exc`` or ``MaxRetriesExceededError``. ``throw=False`` returns
        the ``Retry`` instead; the next attempt is sent when this one has ended.
        """
        from celeriac.app.retrying import retry

        try:
            return retry(
                self, args=args, kwargs=kwargs, exc=exc, throw=throw, eta=eta, countdown=countdown,
                max_retries=max_retries, options=options,
            )  # fmt: skip
        finally:
            del exc  # it may be raised in there: its traceback must not lead to itself

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **more: Any) -> None:
        """Store a state of your own with ``meta`` as its result, to be read with ``AsyncResult``. Blocking."""
        task_id = task_id or self.request.id
        if task_id is None:
            raise ValueError(f"update_state of {self.name}: outside of a running task it needs the task_id")
        self.backend.store_result(task_id, meta, cast("str", state), request=self.request, **more)

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Send an event of your own, such as ``self.send_event("task-progress", percent=20)``, to monitors.

        Also tells whoever listens to this process's telemetry. A broker that is away is no reason to fail.
        """
        if telemetry.wanted(TaskEvent):
            telemetry.emit(TaskEvent(kind=type_, id=self.request.id or "", fields=fields))
        self.app.events.tell(type_, {"uuid": self.request.id, **fields})

    def add_trail(self, result: Result[Any] | GroupResult[Any]) -> Result[Any] | GroupResult[Any]:
        """Count ``result`` among the children of the running attempt."""
        if self.trail:
            self.request.children.append(result)
        return result

    # ── hooks ────────────────────────────────────────────────────────────────────────────────────────────────

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the body."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the body has returned."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task is to run again."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the body has raised."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after success and failure."""

    # ── as data ──────────────────────────────────────────────────────────────────────────────────────────────

    def AsyncResult(self, task_id: str) -> Result[R]:
        """The result of an earlier call."""
        return Result(task_id, self._backend, self.name, self.app)

    def signature(self, args: Sequence[Any] | None = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """A call as data: ``task.signature((2,), {"y": 3}, countdown=5)``."""
        starkwargs.setdefault("app", self.app)
        return cast("Signature[R]", signature(self, args, *starargs, **starkwargs))

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A call as data, to be completed later: ``add.s(2)``."""
        return Signature(self, args, kwargs, app=self.app)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A call as data that takes no more arguments."""
        return Signature(self, args, kwargs, immutable=True, app=self.app)

    def signature_from_request(
        self, request: Context | None = None, args: Any = None, kwargs: Any = None, queue: str | None = None,
        **extra_options: Any,
    ) -> Signature[R]:  # fmt: skip
        """The running attempt as data, with other arguments or options."""
        from celeriac.app.retrying import signature_of

        if queue is not None:
            extra_options["queue"] = queue
        return cast("Signature[R]", signature_of(self, request or self.request, args, kwargs, extra_options))

    subtask_from_request = signature_from_request

    def __reduce__(self) -> Any:
        return _task_named, (self.name, type(self).__module__)

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self._app!r}>" if self._app is not None else f"<unbound {self.name}>"

    # ── for the worker ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def plain_body(self) -> Callable[..., Any] | None:
        """What calling comes to while a request of this task is current; None: somebody else has a say in it."""
        return self.run if type(self).__call__ is _OWN_CALL else None

    @property
    def runnable_options(self) -> RunnableOptions:
        """Attributes and settings resolved, for worker and runner."""
        edition = self.app.edition
        if self._options is None or self._options[0] is not edition:
            self._options = (edition, self._resolve_options())
        return self._options[1]

    def _resolve_options(self) -> RunnableOptions:
        settings = self.app.settings
        both = _first(self.acks_on_failure_or_timeout, settings.task_acks_on_failure_or_timeout)
        throws = tuple(_as_sequence(self.throws))
        return RunnableOptions(
            ignore_result=_first(self.ignore_result, settings.task_ignore_result),
            store_errors_even_if_ignored=_first(
                self.store_errors_even_if_ignored, settings.task_store_errors_even_if_ignored
            ),
            acks_late=_first(self.acks_late, settings.task_acks_late),
            acks_on_failure=_first(self.acks_on_failure, settings.task_acks_on_failure, both),
            acks_on_timeout=_first(self.acks_on_timeout, settings.task_acks_on_timeout, both),
            reject_on_worker_lost=_first(self.reject_on_worker_lost, settings.task_reject_on_worker_lost),
            retry_on_worker_lost=_first(self.retry_on_worker_lost, settings.task_retry_on_worker_lost),
            track_started=_first(self.track_started, settings.task_track_started),
            time_limit=_first(self.time_limit, settings.task_time_limit),
            soft_time_limit=_first(self.soft_time_limit, settings.task_soft_time_limit),
            rate_limit=_first(self.rate_limit, settings.task_default_rate_limit),
            max_retries=self.max_retries,
            default_retry_delay=self.default_retry_delay,
            throws=throws,
            result_serializer=settings.result_serializer,
            result_expires=settings.result_expires or None,
            result_extended=settings.result_extended,
            resultrepr_maxsize=self.resultrepr_maxsize,
            accept_content=accept_set(settings.accept_content),
            limits=self.bound_limits() if self.limits else (),
            parameters=self._parameters() if self.limits or settings.task_queue_limits else None,
            pool=self._pool_wanted(),
        )

    def _pool_wanted(self) -> str | None:
        """A name; tasks that came from elsewhere may keep something else under :attr:`pool`, or make it when asked."""
        holders = (vars(self), *map(vars, type(self).__mro__))
        wanted = next(holder["pool"] for holder in holders if "pool" in holder)
        return wanted if isinstance(wanted, str) else None

    def bound_limits(self) -> tuple[BoundLimit, ...]:
        """:attr:`limits`, made to fit. Raises ``ImproperlyConfigured`` for what can't be counted."""
        where = f"limits of task {self.name}"
        return bind(limits_of(self.limits, where), where, f"task/{self.name}", self._parameters)

    def _parameters(self) -> Parameters | None:
        function, skip = getattr(self, "__wrapped__", None), 1 if getattr(self, "__bound__", False) else 0
        if function is None:
            function, skip = self.run, 0
        for _ in range(_MOST_WRAPPERS):  # what decorates it takes anything; what is decorated names its arguments
            inner = getattr(function, "__wrapped__", None)
            if inner is None:
                break
            function = inner
        check = arity_of(function, skip)
        return check.parameters() if isinstance(check, Arity) else None


class AsyncTask(Task[P, R]):
    """A task whose body is an ``async def``: called as a function it gives a coroutine."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...  # type: ignore[override]  # the one difference


#: what calls a task unless a subclass, or a tracer that wraps the method, does
_OWN_CALL = Task.__call__


class RequestStack:
    """What ``task.request_stack`` is in Celery."""

    def __init__(self, task: Task[Any, Any]) -> None:
        self._task = task

    @property
    def top(self) -> Context | None:
        return cast("Context | None", current.request_of(self._task))

    def push(self, request: Context) -> None:
        current.push(self._task, request)

    def pop(self) -> None:
        current.pop()


def add_trail(parent: Context, result: Result[Any]) -> None:
    top = current.running()
    if top is not None and top.request is parent and top.task.trail:
        parent.children.append(result)


def is_coroutine_function(function: Any) -> bool:
    """Whether calling ``function`` gives a coroutine; looks through methods, partials and callable objects."""
    while True:
        # how inspect (3.12) and asyncio.coroutines mark a plain function that returns a coroutine
        if any(getattr(function, mark, None) for mark in ("_is_coroutine_mark", "_is_coroutine")):
            return True
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        if inner is None:
            break
        function = inner
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None) if callable(function) else None
    return code is not None and bool(code.co_flags & _COROUTINE)


def _given(
    options: dict[str, Any], task_id: str | None, link: Any, link_error: Any, shadow: str | None
) -> dict[str, Any]:
    """The options of a call as one mapping; empty for the plain call."""
    if task_id is not None:
        options["task_id"] = task_id
    if link is not None:
        options["link"] = link
    if link_error is not None:
        options["link_error"] = link_error
    if shadow is not None:
        options["shadow"] = shadow
    return options


def _note_ignored(result: Result[Any], given: Mapping[str, Any]) -> None:
    """What the call says of its result goes before what the task says."""
    ignored = given.get("ignore_result")
    if ignored is not None:
        result.ignored = bool(ignored)


def _argument_tuple(args: Any, name: str) -> tuple[Any, ...]:
    if isinstance(args, list | tuple):
        return tuple(args)
    raise TypeError(f"delay_many of {name} takes a tuple of arguments for each call, such as (2, 2), not {args!r}")


def _first(*values: Any) -> Any:
    """The first value that is not ``None``."""
    for value in values:
        if value is not None:
            return value
    return None


def _as_sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _task_named(name: str, module: str) -> Any:
    """Unpickle a task: import where it was defined, then ask the current app."""
    import importlib

    importlib.import_module(module)
    return current.get_current_app().tasks[name]
