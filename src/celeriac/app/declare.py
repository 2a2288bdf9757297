"""Functions become tasks: what ``@app.task`` and ``@shared_task`` do, and the proxies for what is current.

The overloads keep a function's parameters and return value; ``bind=True`` takes its first parameter away.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from celeriac import current
from celeriac.app.proxy import Proxy
from celeriac.app.retrying import add_autoretry
from celeriac.app.task import AsyncTask, Task, is_coroutine_function
from celeriac.errors import DuplicateTaskNameWarning

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac

P = ParamSpec("P")
R = TypeVar("R")


class Declare(Protocol):
    """A decorator that makes a task of a function."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...


class DeclareBound(Protocol):
    """The same for ``bind=True``: the function's first parameter is the task itself."""

    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


# ── declaring on one app ─────────────────────────────────────────────────────────────────────────────────────


def declare(app: Celeriac, fun: Callable[..., Any], options: Mapping[str, Any]) -> Task[Any, Any]:
    """Make a task of ``fun`` and register it; a name that is taken keeps its first task."""
    options = dict(options)
    name = options.pop("name", None) or app.gen_task_name(fun.__name__, fun.__module__)
    known = app.registry.get(name)
    if known is not None:
        if not _same_function(getattr(known, "__wrapped__", known), fun):
            warnings.warn(
                f"{_place(fun)} wants the task name {name!r}, which {_place(getattr(known, '__wrapped__', known))} "
                "has: the first one keeps it. Give one of them another name",
                DuplicateTaskNameWarning,
                stacklevel=3,
            )
        return known
    task = _build(app, fun, name, options)
    app.add_task(task)
    return task


def _build(app: Celeriac, fun: Callable[..., Any], name: str, options: dict[str, Any]) -> Task[Any, Any]:
    base: type[Task[Any, Any]] = options.pop("base", None) or app.Task
    bind = bool(options.pop("bind", False))
    wrap = options.pop("filter", None)
    for when in ("shared", "lazy"):  # tasks are made at once: nothing about them needs the configuration
        options.pop(when, None)
    pydantic = {key: options.pop(key) for key in list(options) if key.startswith("pydantic")}
    body = wrap(fun) if wrap is not None else fun
    if pydantic.get("pydantic"):
        from celeriac.app.pydantic_tasks import validated

        body = validated(app, body, name, pydantic)
    is_coroutine = is_coroutine_function(fun)
    attributes = {
        **options,
        "name": name,
        "abstract": False,
        "run": body if bind else staticmethod(body),
        "_app": app,
        "_is_coroutine": is_coroutine,
        "__bound__": bind,
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__qualname__": fun.__qualname__,
    }
    bases: tuple[type, ...] = (base,)
    if is_coroutine:
        bases = (AsyncTask,) if issubclass(AsyncTask, base) else (AsyncTask, base)
    task: Task[Any, Any] = type(fun.__name__, bases, attributes)()
    task.__dict__["__wrapped__"] = fun
    task.__dict__["__name__"] = fun.__name__
    task.__dict__["__qualname__"] = fun.__qualname__
    dump = getattr(body, "__dump_arguments__", None)
    if dump is not None:
        task.dump_arguments = dump
    add_autoretry(task, options)
    if task.limits:
        task.bound_limits()  # a mistake is one of this line
    return task


def _same_function(one: Any, other: Any) -> bool:
    """Whether two function objects come from the same line of the same file: a module that was loaded twice."""
    first, second = getattr(one, "__code__", None), getattr(other, "__code__", None)
    if one is other or first is None or second is None:
        return one is other
    return (first.co_filename, first.co_firstlineno) == (second.co_filename, second.co_firstlineno)


def _place(fun: Any) -> str:
    return f"{getattr(fun, '__module__', '?')}.{getattr(fun, '__qualname__', type(fun).__qualname__)}"


def importable_name(module: str) -> str:
    """What a module is called when it is imported: a script that runs as ``__main__`` has a name too."""
    if module != "__main__":
        return module
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name).removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    if not path:
        return module
    return str(path).replace("\\", "/").rpartition("/")[2].removesuffix(".py")


# ── declaring on every app ───────────────────────────────────────────────────────────────────────────────────


class _Shared:
    """A function that is a task of every app."""

    def __init__(self, fun: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.fun = fun
        self.options = options

    def on(self, app: Celeriac) -> Task[Any, Any]:
        return declare(app, self.fun, self.options)

    def name_on(self, app: Celeriac) -> str:
        return self.options.get("name") or app.gen_task_name(self.fun.__name__, self.fun.__module__)

    def current(self) -> Task[Any, Any]:
        app = current_or_default_app()
        return app.tasks[self.name_on(app)]


_shared: list[_Shared] = []
_apps: weakref.WeakSet[Celeriac] = weakref.WeakSet()
_lock = threading.RLock()


def remember_app(app: Celeriac) -> None:
    """Shared tasks that are declared from now on are declared on this app too."""
    with _lock:
        _apps.add(app)


def declare_shared(app: Celeriac) -> None:
    """Give ``app`` every shared task there is."""
    with _lock:
        shared = list(_shared)
    for entry in shared:
        entry.on(app)


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> DeclareBound: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Any) -> Declare: ...
def shared_task(fun: Any = None, /, **options: Any) -> Any:
    """Make a task of a function without an app at hand: every app has it, and calls go to the current one."""
    if fun is None:
        return functools.partial(_share, options=options)
    return _share(fun, options)


def _share(fun: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(fun, Task):
        raise TypeError(f"{fun.name} is a task already: shared_task takes the function")
    if not callable(fun):
        raise TypeError(f"shared_task takes a function, not {fun!r}; its options are keywords")
    entry = _Shared(fun, options)
    with _lock:
        _shared.append(entry)
        apps = [app for app in _apps if app.finalized]
    for app in apps:
        entry.on(app)
    proxy = Proxy(entry.current)
    return cast("Task[Any, Any]", proxy)


# ── what is current ──────────────────────────────────────────────────────────────────────────────────────────


def current_or_default_app() -> Celeriac:
    """The current app; where nobody made one, a default app that uses the embedded broker."""
    app = current.get_current_app()
    if app is None:
        with _lock:
            app = current.get_current_app()
            if app is None:
                from celeriac.app.celery import Celeriac

                app = Celeriac("default", set_as_current=False)
                current.set_default_app(app)
    return cast("Celeriac", app)


class _NoTask:
    """What ``current_task`` is outside of tasks: like ``None``, but its attributes are missed with a reason."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no task is running here, so current_task has no {name}: ask `if current_task` first")

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _NoTask)

    def __hash__(self) -> int:
        return hash(None)

    def __repr__(self) -> str:
        return "None"


_NO_TASK = _NoTask()


def _running_task() -> Any:
    top = current.running()
    return _NO_TASK if top is None else top.task


if TYPE_CHECKING:
    current_app: Celeriac
    current_task: Task[..., Any]
else:
    current_app = Proxy(current_or_default_app)
    current_task = Proxy(_running_task)

__all__ = [
    "Declare", "DeclareBound", "current_app", "current_task", "declare", "shared_task",
]  # fmt: skip
