"""Saying in the result store that a task was revoked, at once, as Celery's workers do.

The worker that drops the message says so in any case, with all it knows of the task; but that may be hours from now.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from celeriac.errors import CeleriacError, TaskRevokedError
from celeriac.rules import states
from celeriac.wire.failure import exception_to_wire
from celeriac.wire.result_record import encode_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celeriac.results.base import ResultStore
    from celeriac.wire.result_record import ResultRecord
    from celeriac.worker.commands.state import WorkerState

logger = logging.getLogger("celeriac.worker")

#: states that say of no task that it runs; a task that keeps its beginning to itself has none at all
_NOT_BEGUN = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})


async def mark_revoked(state: WorkerState, ids: Iterable[str]) -> None:
    """Store REVOKED for those that do not run here and of which nothing is stored that says more."""
    store = state.store
    if store is None or not store.capabilities.persistent:
        return
    wanted = [task_id for task_id in ids if not state.cancelling.is_running(task_id)]
    records = {task_id: _record(state, task_id) for task_id in wanted}
    try:
        await state.lane.run(partial(_write, store, records))
    except CeleriacError as error:
        logger.warning("%d revoked tasks could not be marked as such: %s", len(wanted), error)


def _write(store: ResultStore, records: dict[str, ResultRecord]) -> None:
    stored = store.read(list(records))
    waiting = [
        record for task_id, record in records.items()
        if task_id not in stored or stored[task_id].status in _NOT_BEGUN
    ]  # fmt: skip
    if waiting:
        store.write(waiting)


def _record(state: WorkerState, task_id: str) -> ResultRecord:
    settings = state.settings
    return encode_record(
        task_id=task_id,
        status=states.REVOKED,
        result=exception_to_wire(TaskRevokedError("revoked"), settings.result_serializer),
        date_done=state.clock.now().isoformat(),
        serializer=settings.result_serializer,
        expires_in=settings.result_expires,
    )
