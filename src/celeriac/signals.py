"""The moments that user code can hook into, with Celery's names and arguments: ``task_prerun.connect(receiver)``.

Receivers are called on the spot, in the process where the moment happens; one that fails is logged and stops nobody.
A signal without receivers costs a look at a list.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = [
    "Signal", "after_setup_logger", "after_setup_task_logger", "after_task_publish", "beat_embedded_init", "beat_init",
    "before_task_publish", "celeryd_after_setup", "celeryd_init", "eventlet_pool_apply",
    "eventlet_pool_postshutdown", "eventlet_pool_preshutdown", "eventlet_pool_started", "heartbeat_sent",
    "setup_logging", "task_failure", "task_internal_error", "task_postrun", "task_prerun", "task_received",
    "task_rejected", "task_retry", "task_revoked", "task_success", "task_unknown", "worker_before_create_process",
    "worker_init", "worker_process_init", "worker_process_shutdown", "worker_ready", "worker_shutdown",
    "worker_shutting_down",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


class Signal:
    """A moment. Thread-safe as far as connecting while another thread sends goes: receivers are replaced whole."""

    def __init__(self, name: str, providing_args: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.providing_args = providing_args
        #: (identity, how to find the receiver, wanted sender); looked at before anything is gathered to be sent
        self.receivers: list[tuple[Any, Callable[[], Callable[..., Any] | None], Any]] = []

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={sorted(self.providing_args)!r}>"

    @overload
    def connect(self, receiver: F, /) -> F: ...
    @overload
    def connect(
        self, receiver: None = None, /, *, sender: Any = None, weak: bool = True, dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Callable[[F], F]: ...  # fmt: skip
    @overload
    def connect(
        self, receiver: F, /, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> F: ...

    def connect(
        self, receiver: Any = None, /, sender: Any = None, weak: bool = True, dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Any:  # fmt: skip
        """Call ``receiver(signal=…, sender=…, **facts)`` at that moment; also a decorator, bare or with arguments.

        ``sender``: only for this one (text by value, anything else by identity). ``weak``: the receiver is forgotten
        when nobody else holds it. Raises ``ValueError`` for a receiver without ``**kwargs``: facts may be added.
        """
        if receiver is None:
            return lambda chosen: self.connect(chosen, sender, weak, dispatch_uid, retry)
        if not callable(receiver):
            raise TypeError(f"a receiver of {self.name} must be callable, not {receiver!r}")
        if not _takes_anything(receiver):
            raise ValueError(f"the receiver {receiver!r} of {self.name} must take **kwargs")
        key = (_identity(receiver) if dispatch_uid is None else dispatch_uid, _sender_key(sender))
        if all(known != key for known, _, _ in self.receivers):
            self.receivers = [*self.receivers, (key, _reference(receiver, weak and not retry), sender)]
        return receiver

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Any = None
    ) -> bool:
        """Forget a receiver; whether it was connected."""
        key = (_identity(receiver) if dispatch_uid is None else dispatch_uid, _sender_key(sender))
        kept = [entry for entry in self.receivers if entry[0] != key]
        found = len(kept) < len(self.receivers)
        self.receivers = kept
        return found

    def has_listeners(self, sender: Any = None) -> bool:
        return any(_is_for(wanted, sender) and find() is not None for _, find, wanted in self.receivers)

    def send(self, sender: Any, **facts: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers; what each answered, or the exception it raised (which is logged)."""
        answers: list[tuple[Callable[..., Any], Any]] = []
        for key, find, wanted in self.receivers:
            if not _is_for(wanted, sender):
                continue
            receiver = find()
            if receiver is None:
                self.receivers = [entry for entry in self.receivers if entry[0] != key]
                continue
            try:
                answers.append((receiver, receiver(signal=self, sender=sender, **facts)))
            except Exception as error:
                _complain(receiver, self.name)
                answers.append((receiver, error))
        return answers

    send_robust = send


def _complain(receiver: Any, name: str) -> None:
    import logging  # a tenth of what importing an app may cost, for what should not happen

    logging.getLogger("celeriac.signals").exception("receiver %r of signal %s failed", receiver, name)


def _is_for(wanted: Any, sender: Any) -> bool:
    return wanted is None or wanted is sender or (isinstance(wanted, str | bytes) and wanted == sender)


def _sender_key(sender: Any) -> Any:
    return sender if sender is None or isinstance(sender, str | bytes) else id(sender)


def _identity(receiver: Any) -> Any:
    owner = getattr(receiver, "__self__", None)
    return id(receiver) if owner is None else (id(owner), id(receiver.__func__))


def _takes_anything(receiver: Any) -> bool:
    import inspect  # half as long to import as everything else that an app needs

    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return True  # something built in does not tell
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _reference(receiver: Any, weak: bool) -> Callable[[], Callable[..., Any] | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver)
    try:
        return weakref.ref(receiver)
    except TypeError:
        return lambda: receiver


def _signal(name: str, *providing: str) -> Signal:
    return Signal(name, frozenset(providing))


# ── publishing: in the process that sends ────────────────────────────────────────────────────────────────────

#: sender: the task's name. ``body`` is ``(args, kwargs, embed)``; what receivers change in place, is sent
before_task_publish = _signal(
    "before_task_publish", "body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"
)
#: sender: the task's name. The broker has the message
after_task_publish = _signal("after_task_publish", "body", "headers", "exchange", "routing_key")

# ── tasks: in the process that runs them; sender: the task ───────────────────────────────────────────────────

task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = _signal("task_success", "result", "runtime")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)

# ── messages: in the worker's own process ────────────────────────────────────────────────────────────────────

#: sender: the worker
task_received = _signal("task_received", "request")
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
task_rejected = _signal("task_rejected", "message", "exc")

# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────

#: sender: the node name
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")
#: sender: the worker
worker_init = _signal("worker_init")
worker_ready = _signal("worker_ready")
worker_shutdown = _signal("worker_shutdown")
#: sender: the node name
worker_shutting_down = _signal("worker_shutting_down", "sig", "how", "exitcode")
#: in the nursery that starts the children
worker_before_create_process = _signal("worker_before_create_process")
#: in a child; sender: the node name
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")
heartbeat_sent = _signal("heartbeat_sent")

# ── logging: in every process of a worker; sender: None ──────────────────────────────────────────────────────

#: with any receiver, the worker leaves logging alone
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal("after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize")
after_setup_task_logger = _signal("after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize")

# ── beat, and the pool of eventlet ───────────────────────────────────────────────────────────────────────────

beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

# ── of the whole app, known to few ───────────────────────────────────────────────────────────────────────────

import_modules = _signal("import_modules")
user_preload_options = _signal("user_preload_options", "app", "options")
#: deprecated in Celery; use :data:`after_task_publish`
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")
