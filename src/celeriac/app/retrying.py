"""Trying again: what ``self.retry`` builds and raises, and retries that happen by themselves.

The next attempt is not published here. It travels with this attempt's outcome, so that it is sent exactly when the
message of this attempt is done with: a broker that can't take it now costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.canvas.signature import Signature
from celeriac.errors import Ignore, Retry
from celeriac.rules.retry import backoff

if TYPE_CHECKING:
    import random

    from celeriac.app.task import Task
    from celeriac.executors.context import Context

#: what a dead-lettering broker adds to a message; a new message must not claim that history
_DEAD_LETTER_HEADERS = (
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
    "x-last-death-queue", "x-last-death-reason",
)  # fmt: skip


def retry(
    task: Task[Any, Any], *, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, exc: BaseException | None,
    throw: bool, eta: Any, countdown: float | None, max_retries: int | None, options: Mapping[str, Any],
) -> Retry:  # fmt: skip
    """See ``Task.retry``."""
    request = task.request
    if request.called_directly:
        raise exc or Retry("Task can be retried", None)
    if max_retries is not None:
        request.override_max_retries = max_retries
    else:
        max_retries = task.max_retries
    retries = (request.retries or 0) + 1
    if not eta and countdown is None:
        countdown = task.default_retry_delay
    if max_retries is not None and retries > max_retries:
        raised = exc or task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{tuple(request.args or ())} kwargs:{request.kwargs}",
            task_args=request.args, task_kwargs=request.kwargs,
        )  # fmt: skip
        try:
            raise raised
        finally:
            del exc, raised
    when = {"eta": eta} if countdown is None else {"countdown": countdown}
    again = signature_of(task, request, args, kwargs, {**when, "retries": retries, **options})
    asked = Retry(exc=exc, when=eta or countdown, is_eager=bool(request.is_eager), sig=again)
    if throw:
        try:
            raise asked
        finally:  # an exception that its own traceback leads to would keep the arguments alive
            del asked, exc
    record(task, request, asked)
    return asked


def record(task: Task[Any, Any], request: Context, asked: Retry) -> None:
    """Have the next attempt sent when this one has ended, however it ends (``throw=False``)."""
    if asked.is_eager:
        return  # whoever applies the task runs it again if the Retry is raised
    outgoing, _ = task.prepare(asked.sig.args, asked.sig.kwargs, asked.sig.options)
    request.sends.append(outgoing)
    asked.recorded = outgoing  # type: ignore[attr-defined]  # raised after all, it must not be sent twice


def signature_of(
    task: Task[Any, Any], request: Context, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None,
    changes: Mapping[str, Any],
) -> Signature[Any]:  # fmt: skip
    """The attempt ``request`` as a signature with other arguments and options: same id, same place in its workflow."""
    args, kwargs = _arguments(task, request, args, kwargs)
    options = {name: value for name, value in request.as_execution_options().items() if value is not None}
    if _says_ignore_result(request):
        options["ignore_result"] = request.ignore_result
    headers = {name: value for name, value in (request.headers or {}).items() if name not in _DEAD_LETTER_HEADERS}
    options.pop("headers", None)
    if headers:
        options["headers"] = headers
    options.update(_delivery(request))
    if "queue" in changes or "exchange" in changes or "routing_key" in changes:
        for name in ("queue", "exchange", "routing_key"):
            options.pop(name, None)
    if changes.get("countdown") is not None or changes.get("eta") is not None:
        options.pop("eta", None)
    options.update({name: value for name, value in changes.items() if value is not None})
    return Signature(task, args, kwargs, options, app=task.app)


def _says_ignore_result(request: Context) -> bool:
    known = request.__dict__.get("_request")
    return known is None or known.envelope.headers.get("ignore_result") is not None


def _delivery(request: Context) -> dict[str, Any]:
    info = request.delivery_info or {}
    found: dict[str, Any] = {}
    exchange, routing_key = info.get("exchange"), info.get("routing_key")
    if exchange:
        found.update(exchange=exchange, routing_key=routing_key)
    elif routing_key:  # the broker's own exchange: the key is the queue's name
        found["queue"] = routing_key
    if info.get("priority") is not None:
        found["priority"] = info["priority"]
    return found


def _arguments(
    task: Task[Any, Any], request: Context, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What is given replaces what was; the other half stays, less what would now be given twice."""
    old_args, old_kwargs = tuple(request.args or ()), dict(request.kwargs or {})
    if args is None and kwargs is None:
        return old_args, old_kwargs
    if args is not None and kwargs is not None:
        return tuple(args), dict(kwargs)
    names = getattr(task.__header__, "positional", ())
    only_by_position = getattr(task.__header__, "positional_only", ())
    if args is not None:
        taken = {name for name in names[: len(args)] if name not in only_by_position}
        return tuple(args), {name: value for name, value in old_kwargs.items() if name not in taken}
    given = dict(kwargs or {})
    merged = [
        given.pop(name) if name in given and name not in only_by_position else value
        for name, value in zip(names, old_args, strict=False)
    ]
    return (*merged, *old_args[len(names) :]), given


# ── retries by themselves ────────────────────────────────────────────────────────────────────────────────────


def add_autoretry(task: Task[Any, Any], options: Mapping[str, Any]) -> None:
    """Wrap the body so that the exceptions in ``autoretry_for`` become retries."""

    def setting(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    wanted = tuple(setting("autoretry_for", ()) or ())
    if not wanted or getattr(task, "_orig_run", None) is not None:
        return
    rule = _AutoRetry(
        task,
        wanted,
        unwanted=tuple(setting("dont_autoretry_for", ()) or ()),
        kwargs=dict(setting("retry_kwargs", {}) or {}),
        factor=float(setting("retry_backoff", False) or 0),
        longest=int(setting("retry_backoff_max", 600)),
        jitter=bool(setting("retry_jitter", True)),
    )
    is_coroutine = task.is_coroutine
    body = task.run
    task._orig_run = body
    task.run = rule.around_coroutine(body) if is_coroutine else rule.around(body)  # type: ignore[method-assign]


class _AutoRetry:
    def __init__(
        self, task: Task[Any, Any], wanted: tuple[type[BaseException], ...], *,
        unwanted: tuple[type[BaseException], ...], kwargs: dict[str, Any], factor: float, longest: int, jitter: bool,
    ) -> None:  # fmt: skip
        self.task = task
        self.wanted = wanted
        self.unwanted: tuple[type[BaseException], ...] = (Ignore, Retry, *unwanted)
        self.kwargs = kwargs
        self.factor = factor
        self.longest = longest
        self.jitter = jitter

    def around(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return body(*args, **kwargs)
            except self.unwanted:
                raise
            except self.wanted as error:
                self.again(error)

        return run

    def around_coroutine(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        async def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return await body(*args, **kwargs)
            except self.unwanted:
                raise
            except self.wanted as error:
                self.again(error)

        return run

    def again(self, error: BaseException) -> None:
        how = dict(self.kwargs)
        request = self.task.request
        if self.factor:
            how["countdown"] = backoff(
                request.retries or 0, int(max(1.0, self.factor)), self.longest, _chance() if self.jitter else None
            )
        if request.override_max_retries is not None:
            how["max_retries"] = request.override_max_retries
        try:
            raise self.task.retry(exc=error, **how)
        finally:
            del error


@functools.cache
def _chance() -> random.Random:
    import random  # only tasks that retry with jitter need it

    return random.Random()
