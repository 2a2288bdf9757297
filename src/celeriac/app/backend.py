"""The result store as Celery's users know it: ``app.backend``, metas in and out.

Drivers move records as bytes (``results/base.py``); here they become mappings with ``status``, ``result`` … and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.rules import states
from celeriac.wire.result_record import decode_record, encode_record
from celeriac.wire.serializers import accept_set

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.results.base import ResultRecord, ResultStore

NO_BACKEND = (
    "No result backend is configured: set result_backend (for example to 'sqlite:///results.sqlite3') "
    "to read and keep results"
)

Meta = dict[str, Any]


class Backend:
    """Reads and writes task states. Thread-safe; made by the app, one per app."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self._accept: frozenset[str] | None = None

    @property
    def store(self) -> ResultStore:
        """The driver. Raises ``NotImplementedError`` where no result store is configured, as Celery does."""
        store = self.app.store
        if store is None:
            raise NotImplementedError(NO_BACKEND)
        return store

    @property
    def is_disabled(self) -> bool:
        return self.app.store is None

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def decode(self, record: ResultRecord) -> Meta:
        if self._accept is None:
            settings = self.app.settings
            self._accept = accept_set(settings.result_accept_content or settings.accept_content)
        return decode_record(record, self._accept)

    def get_task_meta(self, task_id: str, deadline: float | None = None) -> Meta:
        """The stored meta, or that of a task nobody has heard of (PENDING). ``deadline``: on ``time.monotonic()``."""
        return self.get_task_metas([task_id], deadline).get(task_id) or {"status": states.PENDING, "result": None}

    def get_task_metas(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, Meta]:
        """The metas there are; unknown ids are missing."""
        return {task_id: self.decode(record) for task_id, record in self.store.read(ids, deadline).items()}

    def get_state(self, task_id: str) -> str:
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> str | None:
        return self.get_task_meta(task_id).get("traceback")

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> Any:
        """Write a state at once; blocking. ``request``: the running task's, for its children and group."""
        self.store.write([self.record(task_id, result, state, traceback, request)])
        return result

    def record(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> ResultRecord:
        """The record of a state, with the lifetime and the serializer that the settings say."""
        settings = self.app.settings
        return encode_record(
            task_id=task_id,
            status=state,
            result=result,
            traceback=traceback,
            children=None if request is None else [child.as_tuple() for child in request.children],
            date_done=self.app.now().isoformat() if state in states.READY_STATES else None,
            group_id=None if request is None else request.group,
            parent_id=None if request is None else request.parent_id,
            extended=_extended(request) if request is not None and settings.result_extended else None,
            serializer=settings.result_serializer,
            expires_in=settings.result_expires or None,
            reply_to=None if request is None else request.reply_to,
        )

    def forget(self, task_id: str | Iterable[str]) -> None:
        self.store.forget([task_id] if isinstance(task_id, str) else list(task_id))

    def cleanup(self) -> int:
        """Remove expired records; returns how many."""
        return self.store.cleanup()


def _extended(request: Any) -> dict[str, Any]:
    shown = {
        "name": request.task,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.retries,
        "queue": (request.delivery_info or {}).get("routing_key"),
    }
    if request.stamped_headers and request.stamps:
        shown["stamped_headers"] = request.stamped_headers
        shown.update(request.stamps)
    return shown
