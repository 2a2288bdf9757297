"""The current app and the current task: the only globals of the project.

``current_app`` is per process with a per-context override; the stack of running requests is per context, so threads
and coroutines each see their own. The values are opaque here: floors above know their types.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Running(NamedTuple):
    """One task under way in this context."""

    task: Any  #: the task object (an ``app.task.Task``)
    request: Any  #: its ``executors.context.Context``


_default_app: Any = None
_app: ContextVar[Any] = ContextVar("celeriac_app", default=None)
_running: ContextVar[tuple[Running, ...]] = ContextVar("celeriac_running", default=())
_join_allowed: ContextVar[bool] = ContextVar("celeriac_join_allowed", default=False)


def set_default_app(app: Any) -> None:
    """Make ``app`` what every context sees that has not chosen its own."""
    global _default_app
    _default_app = app


def set_current_app(app: Any) -> None:
    """Make ``app`` current in this context, and the default of the process."""
    set_default_app(app)
    _app.set(app)


def get_current_app() -> Any:
    """The current app or ``None``."""
    return _app.get() or _default_app


def running() -> Running | None:
    """The innermost task that runs in this context, or ``None`` outside of tasks."""
    stack = _running.get()
    return stack[-1] if stack else None


def request_of(task: Any) -> Any:
    """The request of the innermost run of ``task`` in this context, other tasks inside it aside; or ``None``."""
    return next((run.request for run in reversed(_running.get()) if run.task is task), None)


def push(task: Any, request: Any) -> None:
    _running.set((*_running.get(), Running(task, request)))


def pop() -> None:
    _running.set(_running.get()[:-1])


def join_would_block() -> bool:
    """Whether waiting for a result here would block a worker's slot."""
    return bool(_running.get()) and not _join_allowed.get()


@contextmanager
def join_permission(allowed: bool) -> Iterator[None]:
    token = _join_allowed.set(allowed)
    try:
        yield
    finally:
        _join_allowed.reset(token)
