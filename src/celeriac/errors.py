"""Every exception of celeriac, in one tree.

Owns the names that travel on the wire and stand in users' ``except`` clauses: Celery's names are kept for what
Celery names. Knows nothing else of ours.

    CeleriacError
    ├─ ImproperlyConfigured ── UnknownSetting · UnknownDriver · MissingExtra · UnsafeCombination
    ├─ OperationalError ────── BrokerUnavailable · BrokerFull · PublishTimeout · PublishUnknown · PublishRejected
    │                          · Unroutable · LeaseLost · QueueNotFound (also KeyError)
    ├─ BackendError ────────── BackendStoreError · BackendGetMetaError · ResultTooLarge
    ├─ MessageError ────────── DecodeError · EncodeError · ContentDisallowed · InvalidTaskError
    │                          · NotRegistered (also KeyError) · SignatureInvalid
    ├─ TimeoutError (also the built-in) ── waiting for a result
    ├─ TaskPredicate ───────── Ignore · Reject · Retry                     flow, not faults
    ├─ TaskFailure ─────────── MaxRetriesExceededError · TaskRevokedError · SoftTimeLimitExceeded
    │                          · TimeLimitExceeded · WorkerLostError · Terminated · PoisonTask · RemoteError
    └─ AlreadyRegistered · IncompleteStream · ChordError · SecurityError
    WorkerShutdown · WorkerTerminate (SystemExit)
    CeleryWarning ── AlwaysEagerIgnored · DuplicateNodenameWarning · DuplicateTaskNameWarning · FixupWarning
                     · NotConfigured · SecurityWarning
"""

from __future__ import annotations

import builtins
from typing import Any


class CeleriacError(Exception):
    """Root of everything celeriac raises on purpose."""


CeleryError = CeleriacError  #: the name under which ported code catches the root


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────


class ImproperlyConfigured(CeleriacError):
    """Settings, URLs or arguments that cannot work; retrying will not help."""


class UnknownSetting(ImproperlyConfigured):
    """A setting name that nobody declared."""


class UnknownDriver(ImproperlyConfigured):
    """A broker, store, pool, serializer or compressor name that is not in the catalogue."""


class MissingExtra(ImproperlyConfigured):
    """The driver exists, but the package it needs is not installed."""


class UnsafeCombination(ImproperlyConfigured):
    """Settings that contradict each other or would lose work."""


# ── brokers ──────────────────────────────────────────────────────────────────────────────────────────────────


class OperationalError(CeleriacError):
    """The broker could not do it now; trying again later is sensible."""


class BrokerUnavailable(OperationalError):
    """No connection to the broker within the deadline."""


class BrokerFull(OperationalError):
    """The broker refuses new messages for want of disk or memory; it still gives messages out."""


class PublishRejected(OperationalError):
    """The message was certainly not stored."""


class PublishUnknown(OperationalError):
    """The message may or may not be stored; publishing it again with the same id is safe."""


class PublishTimeout(PublishUnknown):
    """The broker did not confirm within the deadline."""


class Unroutable(PublishRejected):
    """No queue is bound where the message was sent."""


class LeaseLost(OperationalError):
    """The claim on a message expired or was taken over; its settlement was refused."""


class QueueNotFound(OperationalError, KeyError):
    """The queue is not declared and ``task_create_missing_queues`` is off."""

    def __str__(self) -> str:  # KeyError would print the repr
        return Exception.__str__(self)


# ── result stores ────────────────────────────────────────────────────────────────────────────────────────────


class BackendError(CeleriacError):
    """The result store could not do it."""


class BackendGetMetaError(BackendError):
    """A record could not be read."""

    def __init__(self, *args: Any, task_id: str = "") -> None:
        super().__init__(*args)
        self.task_id = task_id


class BackendStoreError(BackendError):
    """A record could not be written."""

    def __init__(self, *args: Any, state: str | None = None, task_id: str | None = None) -> None:
        super().__init__(*args)
        self.state = state
        self.task_id = task_id


class ResultTooLarge(BackendStoreError):
    """The record is over the store's limit."""


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────


class MessageError(CeleriacError):
    """A message that cannot be understood or must not be; it goes to quarantine."""


class DecodeError(MessageError):
    """Bytes that do not parse as what they claim to be, or exceed a limit."""


class EncodeError(MessageError):
    """A value that the chosen serializer cannot express."""


class ContentDisallowed(MessageError):
    """The content type is not in ``accept_content``."""


class InvalidTaskError(MessageError):
    """A task message with a missing or senseless field."""


class NotRegistered(MessageError, KeyError):
    """The worker has no task of this name."""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return Exception.__str__(self)


class SignatureInvalid(MessageError):
    """The message is unsigned, or its signature does not verify."""


# ── waiting, registries, workflows ───────────────────────────────────────────────────────────────────────────


class TimeoutError(CeleriacError, builtins.TimeoutError):  # noqa: A001 - Celery's name
    """The result did not arrive in time."""


class AlreadyRegistered(CeleriacError):
    """Two tasks want one name."""


class IncompleteStream(CeleriacError):
    """The stream ended before the value was complete."""


class ChordError(CeleriacError):
    """A task of the chord's header failed, or the chord could not be completed."""


class SecurityError(CeleriacError):
    """Something that could run foreign code was refused."""


# ── flow inside a task ───────────────────────────────────────────────────────────────────────────────────────


class TaskPredicate(CeleriacError):
    """Raised by a task to say what should happen to it; never logged as an error."""


class Ignore(TaskPredicate):
    """The worker stores no state for this attempt."""


class Reject(TaskPredicate):
    """The message goes back to the queue (``requeue=True``) or to the dead letters."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task is to run again. ``when`` is seconds from now or a datetime."""

    def __init__(
        self, message: str | None = None, exc: BaseException | str | None = None, when: Any = None,
        is_eager: bool = False, sig: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(exc, when)
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if isinstance(exc, str) else (repr(exc) if exc is not None else None)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig

    def humanize(self) -> str:
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}: {self.excs}" if self.excs else f"Retry {self.humanize()}"


# ── how a task can end badly ─────────────────────────────────────────────────────────────────────────────────


class TaskFailure(CeleriacError):
    """A way for a task to end that is not its own exception."""


class MaxRetriesExceededError(TaskFailure):
    """The retries are used up."""

    def __init__(self, *args: Any, task_args: Any = (), task_kwargs: Any = None, **_: Any) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = dict(task_kwargs or {})


class TaskRevokedError(TaskFailure):
    """Cancelled or expired before it ran."""


class SoftTimeLimitExceeded(TaskFailure):
    """Raised inside the task when its soft time limit is over."""


class TimeLimitExceeded(TaskFailure):
    """The hard time limit was over and the process running the task was killed."""


class WorkerLostError(TaskFailure):
    """The process running the task died."""


class Terminated(TaskFailure):
    """The task was ended on request."""


class PoisonTask(TaskFailure):
    """The task ended the process running it too often and is in the dead letters."""


class RemoteError(TaskFailure):
    """A failure whose class is not known in this process; ``str()`` shows what the worker recorded."""


# ── process flow ─────────────────────────────────────────────────────────────────────────────────────────────


class WorkerShutdown(SystemExit):
    """The worker ends warm."""


class WorkerTerminate(SystemExit):
    """The worker ends at once."""


# ── warnings ─────────────────────────────────────────────────────────────────────────────────────────────────


class CeleryWarning(UserWarning):
    """Root of the warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """``send_task`` ignores ``task_always_eager``."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers have one node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two functions want one task name; the first keeps it."""


class FixupWarning(CeleryWarning):
    """A framework integration could not be set up."""


class NotConfigured(CeleryWarning):
    """No configuration module was found."""


class SecurityWarning(CeleryWarning):
    """Something that weakens security."""
