"""``app.events.State``: the picture of the cluster that events draw, with Celery's names, for threads.

How events change it is in ``rules/cluster.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.clock import SYSTEM_CLOCK
from celeriac.rules import states
from celeriac.rules.cluster import Cluster, Task, Worker

if TYPE_CHECKING:
    from celeriac.wire.event_message import EventFields

T = TypeVar("T")


class State:
    """A picture of the cluster: feed it with events, ask for workers and tasks. Thread-safe."""

    def __init__(
        self, callback: Callable[[State, EventFields], Any] | None = None, max_workers_in_memory: int = 5_000,
        max_tasks_in_memory: int = 10_000, on_node_join: Callable[[Worker], Any] | None = None,
        on_node_leave: Callable[[Worker], Any] | None = None,
    ) -> None:  # fmt: skip
        self._cluster = Cluster(SYSTEM_CLOCK.time, max_workers_in_memory, max_tasks_in_memory)
        self._cluster.on_node_join = on_node_join
        self._cluster.on_node_leave = on_node_leave
        self._callback = callback
        self._lock = threading.RLock()

    @property
    def workers(self) -> dict[str, Worker]:
        return self._cluster.workers

    @property
    def tasks(self) -> dict[str, Task]:
        return self._cluster.tasks

    @property
    def event_count(self) -> int:
        return self._cluster.event_count

    @property
    def task_count(self) -> int:
        return self._cluster.task_count

    def event(self, event: EventFields) -> tuple[Worker | Task | None, str]:
        """Take in one event; whom it is about, and what happened."""
        with self._lock:
            if self._callback is not None:
                self._callback(self, event)
            return self._cluster.event(event)

    def freeze_while(self, fun: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function while nothing changes."""
        clear_after = kwargs.pop("clear_after", False)
        with self._lock:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self.clear()

    def alive_workers(self) -> list[Worker]:
        return self.freeze_while(self._cluster.alive_workers)

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        with self._lock:
            chosen = list(self.tasks.items())[:limit]
        yield from chosen

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, Task]]:
        """The newest first, unless not ``reverse``."""
        return self._chosen(lambda task: True, limit, reverse)

    tasks_by_timestamp = tasks_by_time

    def tasks_by_type(self, name: str, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, Task]]:
        return self._chosen(lambda task: task.name == name, limit, reverse)

    def tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Task]]:
        return self._chosen(lambda task: task.worker == hostname, limit, reverse)

    def _chosen(
        self, is_wanted: Callable[[Task], bool], limit: int | None, reverse: bool
    ) -> Iterator[tuple[str, Task]]:
        with self._lock:
            found = [(key, task) for key, task in self.tasks.items() if is_wanted(task)]
        found.sort(key=lambda entry: (entry[1].clock, entry[1].timestamp), reverse=reverse)
        yield from found[:limit]

    def task_types(self) -> list[str]:
        """The names of the tasks that were seen."""
        with self._lock:
            return sorted({task.name for task in self.tasks.values() if task.name})

    def get_or_create_worker(self, hostname: str, **_: Any) -> tuple[Worker, bool]:
        with self._lock:
            known = hostname in self.workers
            return self._cluster.worker(hostname), not known

    def get_or_create_task(self, uuid: str) -> tuple[Task, bool]:
        with self._lock:
            known = uuid in self.tasks
            return self._cluster.task(uuid), not known

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget the tasks that have ended; without ``ready`` all of them."""
        with self._lock:
            kept = {k: t for k, t in self.tasks.items() if t.state not in states.READY_STATES} if ready else {}
            self.tasks.clear()
            self.tasks.update(kept)

    def clear(self, ready: bool = True) -> None:
        """Forget tasks and workers, and start to count anew."""
        with self._lock:
            self.clear_tasks(ready)
            self.workers.clear()
            self._cluster.event_count = self._cluster.task_count = 0

    def rebuild_taskheap(self) -> None:
        """Nothing to do: there is no heap that could be out of order."""
