"""``celery.exceptions`` under our name, for code that was ported by changing its imports. The classes: errors.py."""

from __future__ import annotations

from celeriac.errors import (
    AlreadyRegistered,
    AlwaysEagerIgnored,
    BackendError,
    BackendGetMetaError,
    BackendStoreError,
    CeleryError,
    CeleryWarning,
    ChordError,
    DuplicateNodenameWarning,
    DuplicateTaskNameWarning,
    FixupWarning,
    Ignore,
    ImproperlyConfigured,
    IncompleteStream,
    InvalidTaskError,
    MaxRetriesExceededError,
    NotConfigured,
    NotRegistered,
    OperationalError,
    QueueNotFound,
    Reject,
    Retry,
    SecurityError,
    SecurityWarning,
    SoftTimeLimitExceeded,
    TaskPredicate,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    TimeoutError,  # noqa: A004 - Celery's name
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)

__all__ = [
    "AlreadyRegistered", "AlwaysEagerIgnored", "BackendError", "BackendGetMetaError", "BackendStoreError",
    "CeleryError", "CeleryWarning", "ChordError", "DuplicateNodenameWarning", "DuplicateTaskNameWarning",
    "FixupWarning", "Ignore", "ImproperlyConfigured", "IncompleteStream", "InvalidTaskError",
    "MaxRetriesExceededError", "NotConfigured", "NotRegistered", "OperationalError", "QueueNotFound", "Reject",
    "Retry", "SecurityError", "SecurityWarning", "SoftTimeLimitExceeded", "TaskPredicate", "TaskRevokedError",
    "Terminated", "TimeLimitExceeded", "TimeoutError", "WorkerLostError", "WorkerShutdown", "WorkerTerminate",
]  # fmt: skip
