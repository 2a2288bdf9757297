"""What steps see of the worker: the attributes that steps of Celery's use, as far as they mean something here.

Everything may be used from any thread. What is not there says so, with what is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.executors.base import Divided, Inspectable, Renewable, Resizable
from celeriac.worker.steps.messages import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.executors.base import Executor
    from celeriac.worker.options import Plan, WorkerOptions
    from celeriac.worker.steps.bridge import Bridge, Timer
    from celeriac.worker.steps.classes import Blueprint
    from celeriac.worker.steps.receiving import Receiving


class _Handle:
    """One that explains what it does not have."""

    _what = "worker"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        there = ", ".join(sorted(key for key in {*vars(self), *dir(type(self))} if not key.startswith("_")))
        raise AttributeError(f"celeriac's {self._what} has no attribute {name!r}; it has {there}")


class PoolHandle(_Handle):
    """``worker.pool``."""

    _what = "pool"

    def __init__(self, executor: Executor, plan: Plan, bridge: Bridge) -> None:
        self._executor, self._plan, self._bridge = executor, plan, bridge

    @property
    def num_processes(self) -> int:
        return self._executor.slots

    limit = num_processes

    @property
    def processes(self) -> list[int]:
        """Process ids."""
        return list(self._executor.processes()) if isinstance(self._executor, Inspectable) else []

    @property
    def info(self) -> dict[str, Any]:
        return {
            "implementation": self._plan.pool, "max-concurrency": self._executor.slots, "processes": self.processes,
            "max-tasks-per-child": self._plan.max_tasks_per_child or "N/A",
        }  # fmt: skip

    def grow(self, n: int = 1) -> None:
        self._resize(n)

    def shrink(self, n: int = 1) -> None:
        self._resize(-n)

    def _resize(self, by: int) -> None:
        """Of several pools, the first."""
        executor = self._executor.pools[0] if isinstance(self._executor, Divided) else self._executor
        if not isinstance(executor, Resizable):
            raise NotImplementedError(f"the pool {self._plan.shape().pool} cannot change its size")
        self._bridge.tell(executor.resize, max(executor.slots // self._plan.slots_per_child + by, 1))

    def restart(self) -> None:
        """Replace its processes, one by one."""
        executor = self._executor
        if not isinstance(executor, Renewable):
            raise NotImplementedError(f"the pool {self._plan.pool} has no processes that could be replaced")
        self._bridge.tell(executor.renew, False)


class WorkerHandle(_Handle):
    """What worker steps are given as their parent."""

    def __init__(
        self, app: Any, plan: Plan, options: WorkerOptions, given: dict[str, Any], blueprint: Blueprint,
        executor: Executor, bridge: Bridge, timer: Timer, stop: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self.app = app
        self.hostname = plan.hostname
        self.pid = os.getpid()
        self.options = given  #: the values of ``app.user_options["worker"]``
        self.concurrency = self.max_concurrency = plan.slots
        self.pool_cls = plan.pool
        self.pool = PoolHandle(executor, plan, bridge)
        self.timer = timer
        self.loglevel = options.log_level
        self.logfile = options.log_file
        self.queues = [queue.name for queue in plan.queues]
        self.prefetch_multiplier = plan.prefetch_multiplier
        self.blueprint = blueprint
        self.steps: list[Any] = []
        self.consumer: ConsumerHandle | None = None
        self.exitcode: int | None = None
        self._stop = stop
        self._bridge = bridge

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Let the worker end, warm; returns at once."""
        self._bridge.tell(self._stop, False)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Let it end, cold; returns at once."""
        self._bridge.tell(self._stop, True)

    def info(self) -> dict[str, Any]:
        return {"pid": self.pid, "hostname": self.hostname, **self.blueprint.info(self)}

    def stats(self) -> dict[str, Any]:
        return {**self.info(), "pool": self.pool.info}


class Connection(_Handle):
    """``consumer.connection``: there is none to touch, but steps ask it for a channel."""

    _what = "connection"

    def __init__(self, receiving: Receiving, shown: str) -> None:
        self._receiving, self._shown = receiving, shown

    def channel(self) -> Channel:
        return Channel(self._receiving)

    default_channel = property(channel)

    def as_uri(self, include_password: bool = False) -> str:
        """Secrets are masked, whatever is asked for."""
        return self._shown

    def clone(self) -> Connection:
        return self

    def close(self) -> None:
        """The worker sees to it."""


class Dispatcher(_Handle):
    """``consumer.event_dispatcher``."""

    _what = "event dispatcher"

    def __init__(self, bridge: Bridge, tell: Callable[[str, dict[str, Any]], Any] | None, hostname: str) -> None:
        self._bridge, self._tell, self.hostname = bridge, tell, hostname
        self.enabled = tell is not None

    def send(self, type: str, blind: bool = False, **fields: Any) -> None:  # noqa: A002
        """One event; nothing where events are off, or nobody listens."""
        if self._tell is not None:
            self._bridge.ask(self._tell(type, fields))


class ConsumerHandle(_Handle):
    """What consumer steps are given as their parent."""

    _what = "consumer"
    connection_errors: tuple[type[Exception], ...] = (OperationalError,)
    channel_errors: tuple[type[Exception], ...] = ()

    def __init__(
        self, controller: WorkerHandle, blueprint: Blueprint, connection: Connection, dispatcher: Dispatcher,
        change_queue: Callable[[Any, bool], Any],
    ) -> None:  # fmt: skip
        self.controller = self.worker = controller
        self.app = controller.app
        self.hostname = controller.hostname
        self.pool = controller.pool
        self.timer = controller.timer
        self.connection = connection
        self.event_dispatcher = dispatcher
        self.blueprint = blueprint
        self.steps: list[Any] = []
        self.restart_count = -1
        self._change_queue = change_queue
        self._bridge = controller._bridge  # pyright: ignore[reportPrivateUsage]  # one room

    def add_task_queue(
        self, queue: Any, exchange: str | None = None, exchange_type: str | None = None,
        routing_key: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Take tasks from one more queue."""
        if exchange is not None or exchange_type is not None or routing_key is not None or options:
            queue = {
                "name": queue, "exchange": exchange or queue, "exchange_type": exchange_type or "direct",
                "routing_key": routing_key or queue, **options,
            }  # fmt: skip
        self._bridge.ask(self._change_queue(queue, True))

    def cancel_task_queue(self, queue: Any) -> None:
        """Take no more tasks from a queue."""
        self._bridge.ask(self._change_queue(getattr(queue, "name", queue), False))

    def call_soon(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call it in the thread of steps, as soon as that is free."""
        self.timer.call_after(0.0, fun, args, kwargs)

    @property
    def task_consumer(self) -> Any:
        raise ImproperlyConfigured(
            "c.task_consumer: tasks are received by the worker's own engine; "
            "c.add_task_queue and c.cancel_task_queue change its queues, app.steps['consumer'] adds consumers beside it"
        )
