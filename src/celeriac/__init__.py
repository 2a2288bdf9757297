"""celeriac: a distributed task queue with Celery's API and message protocol.

The public names, resolved on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac as Celeriac
    from celeriac.app.celery import Celeriac as Celery
    from celeriac.app.declare import current_app as current_app
    from celeriac.app.declare import current_task as current_task
    from celeriac.app.declare import shared_task as shared_task
    from celeriac.app.result import AsyncResult as AsyncResult
    from celeriac.app.task import Task as Task
    from celeriac.canvas.signature import Signature as Signature
    from celeriac.canvas.signature import maybe_signature as maybe_signature
    from celeriac.canvas.signature import signature as signature
    from celeriac.canvas.signature import signature as subtask
    from celeriac.ids import task_id as uuid
    from celeriac.rules.limit import Limit as Limit

_WHERE = {
    "Celeriac": "celeriac.app.celery:Celeriac",
    "Celery": "celeriac.app.celery:Celeriac",
    "Task": "celeriac.app.task:Task",
    "AsyncResult": "celeriac.app.result:AsyncResult",
    "shared_task": "celeriac.app.declare:shared_task",
    "current_app": "celeriac.app.declare:current_app",
    "current_task": "celeriac.app.declare:current_task",
    "signature": "celeriac.canvas.signature:signature",
    "subtask": "celeriac.canvas.signature:signature",
    "maybe_signature": "celeriac.canvas.signature:maybe_signature",
    "Signature": "celeriac.canvas.signature:Signature",
    "Limit": "celeriac.rules.limit:Limit",
    "uuid": "celeriac.ids:task_id",
}

__all__ = [
    "AsyncResult",
    "Celeriac",
    "Celery",
    "Limit",
    "Signature",
    "Task",
    "__version__",
    "current_app",
    "current_task",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
]


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _WHERE[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
