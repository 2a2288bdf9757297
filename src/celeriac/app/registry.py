"""The tasks of an app by name, and how what follows an attempt becomes messages.

``AppRegistry`` is what a worker's child process loads (``executors.base.Registry``): it finds tasks and builds, but
does not send, the next attempt, the callbacks and the error callbacks; they leave with the outcome of the attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from celeriac.app.arity import Arity
from celeriac.canvas.signature import Signature, maybe_signature
from celeriac.errors import ImproperlyConfigured, NotRegistered
from celeriac.executors.base import Outgoing, ResultRecord, Runnable
from celeriac.wire.failure import traceback_text

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.app.result import AsyncResult
    from celeriac.app.task import Task
    from celeriac.errors import Retry
    from celeriac.executors.context import Context


class TaskRegistry(dict[str, "Task[Any, Any]"]):
    """Task name → task. Looking up a name that nobody registered raises ``NotRegistered``, a ``KeyError``."""

    def __init__(self) -> None:
        super().__init__()
        #: the name a producer uses that runs the app's module as a script → the name it has when imported
        self.aliases: dict[str, str] = {}

    def __missing__(self, name: str) -> Task[Any, Any]:
        if name in self.aliases:
            return self[self.aliases[name]]
        raise NotRegistered(name)

    def register(self, task: Any) -> None:
        """Add a task object, or a task class (its instance)."""
        task = task() if isinstance(task, type) else task
        if not getattr(task, "name", None):
            raise ImproperlyConfigured(f"{task!r} has no name: set the class attribute, or use app.register_task")
        self[task.name] = task

    def unregister(self, name: str | Task[Any, Any]) -> None:
        """Remove it. Raises ``NotRegistered`` if it is not there."""
        key = name if isinstance(name, str) else name.name
        try:
            del self[key]
        except KeyError:
            raise NotRegistered(key) from None

    def regular(self) -> dict[str, Task[Any, Any]]:
        return dict(self)

    def periodic(self) -> dict[str, Task[Any, Any]]:
        return {}


class _Names(Mapping[str, Runnable]):
    """The registry with its aliases among its keys."""

    def __init__(self, tasks: TaskRegistry) -> None:
        self._tasks = tasks

    def __getitem__(self, name: str) -> Runnable:
        return cast("Runnable", self._tasks[name])

    def __iter__(self) -> Iterator[str]:
        yield from self._tasks
        yield from (alias for alias in self._tasks.aliases if alias not in self._tasks)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks or name in self._tasks.aliases


class AppRegistry:
    """What children of a worker need of an app."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self._names = _Names(app.tasks)

    @property
    def tasks(self) -> Mapping[str, Runnable]:
        return self._names

    def retry_message(self, context: Context, retry: Retry) -> Outgoing:
        """The message of the next attempt; see ``executors.base.Registry``."""
        recorded = getattr(retry, "recorded", None)
        if recorded is not None:  # retry(throw=False), then raised: it must leave once
            context.sends[:] = [item for item in context.sends if item is not recorded]
            return cast("Outgoing", recorded)
        sig = retry.sig
        if sig is None:  # raised by hand, without self.retry()
            sig = _same_again(self.app, context, retry)
        outgoing, _ = prepared(self.app, sig, (), {})
        return outgoing

    def follow_ups(self, context: Context, retval: Any) -> list[Outgoing]:
        """Callbacks and the next step of the chain; their results become children of this attempt's."""
        app = self.app
        lineage = _lineage(app, context)
        sends = [
            self._child(context, maybe_signature(callback, app=app, clone=True), retval, lineage)
            for callback in context.callbacks or ()
        ]
        if context.chain:
            following = maybe_signature(context.chain[-1], app=app, clone=True)
            rest = list(context.chain[:-1])
            sends.append(self._child(context, following, retval, {**lineage, "chain": rest or None}))
        if context.chord:
            _warn_of_chord(context)
        return sends

    def _child(self, context: Context, sig: Signature[Any], retval: Any, options: dict[str, Any]) -> Outgoing:
        outgoing, result = prepared(self.app, sig, (retval,), options)
        context.children.append(result)
        return outgoing

    def errbacks(self, context: Context, exc: BaseException) -> list[Outgoing]:
        """The error callbacks: those that take the error are called here and now, the others become messages."""
        return [
            prepared(self.app, sig, (context.id,), _lineage(self.app, context))[0]
            for sig in call_errbacks(self.app, context, exc)
        ]

    def set_up_child(self, name: str) -> None:
        """What the parent has opened is not this process's to use; who keeps such things himself is told."""
        self.app.set_current()
        self.app.on_after_fork.send(self.app)

    def tear_down_child(self) -> None:
        self.app.close()

    def store(self, record: ResultRecord) -> None:
        self.app.backend.store.write([record])


def _warn_of_chord(context: Context) -> None:
    import logging

    logging.getLogger("celeriac.task").warning(
        "%s[%s] is part of a chord that Celery has sent. This release does not count the parts, so the chord's body "
        "will not run; let Celery's workers serve the queue.", context.task, context.id,
    )  # fmt: skip


def _same_again(app: Celeriac, context: Context, retry: Retry) -> Signature[Any]:
    from celeriac.app.retrying import signature_of

    task = app.tasks[cast("str", context.task)]
    when: dict[str, Any] = {"countdown": task.default_retry_delay}
    if retry.when is not None:
        when = {"countdown": retry.when} if isinstance(retry.when, int | float) else {"eta": retry.when}
    return signature_of(task, context, None, None, {**when, "retries": (context.retries or 0) + 1})


def _lineage(app: Celeriac, context: Context) -> dict[str, Any]:
    options: dict[str, Any] = {"parent_id": context.id, "root_id": context.root_id or context.id}
    if app.settings.task_inherit_parent_priority:
        options["priority"] = context.delivery_info.get("priority")
    return options


def prepared(
    app: Celeriac, sig: Signature[Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Outgoing, AsyncResult[Any]]:
    """The message of a signature called with ``args`` first, and its result."""
    if sig.subtask_type:
        raise ImproperlyConfigured(
            f"{sig.subtask_type} signatures cannot follow a task yet: {sig.task}; use single tasks as callbacks"
        )
    merged_args, merged_kwargs, merged = sig.merged(args, {}, options)
    return app.prepare(sig.task, merged_args, merged_kwargs, merged)


def call_errbacks(app: Celeriac, context: Context, exc: BaseException) -> list[Signature[Any]]:
    """Call the error callbacks that take ``(request, exc, traceback)``; return those that want the task's id only.

    One that fails does not keep the next from being called.
    """
    to_send: list[Signature[Any]] = []
    for given in context.errbacks or ():
        sig: Signature[Any] = maybe_signature(given, app=app, clone=True)
        task = app.tasks.get(sig.task)
        if task is None or not _takes_the_error(task, sig):
            to_send.append(sig)
            continue
        args, kwargs, _ = sig.merged((context, exc, traceback_text(exc)), {}, {})
        try:
            task(*args, **kwargs)
        except Exception:
            import logging

            logging.getLogger("celeriac.task").exception(
                "error callback %s of %s[%s] failed", sig.task, context.task, context.id
            )
    return to_send


def _takes_the_error(task: Task[Any, Any], sig: Signature[Any]) -> bool:
    """Whether an error callback is of the newer style. Classes and bound tasks never are: they want the id, as a
    message, so that they can be retried (Celery 5.7, ``Backend._call_task_errbacks``).
    """
    if getattr(task, "__wrapped__", None) is None or getattr(task, "__bound__", False):
        return False
    header = task.__header__
    if not isinstance(header, Arity):
        return False
    # the arguments of a mutable signature come after those of the failure; an immutable one gets no others
    given = ((), {}) if sig.immutable else (sig.args, sig.kwargs)
    return header.room_for_more_than(1, *given)


def send_errbacks(app: Celeriac, context: Context, exc: BaseException) -> None:
    """The same for a task that was run eagerly: what is to be sent is sent."""
    lineage = _lineage(app, context)
    for sig in call_errbacks(app, context, exc):
        sig.apply_async((context.id,), **lineage)
