"""What a worker is told: :class:`WorkerOptions` from the command line, :class:`Plan` with every question answered.

Only :func:`plan` and ``assembly.py`` see the settings; the engines get the plan.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.placing import Wanted, wanted_pools
from celeriac.executors.selection import shares
from celeriac.rules.health import Patience
from celeriac.transports.base import QueueSpec
from celeriac.worker.probes import Address, address_of

if TYPE_CHECKING:
    from celeriac.settings import Settings

#: pools whose children run many tasks at one time; strangers are asked
_SHARING_POOLS = frozenset({"threads", "asyncio", "gevent", "eventlet"})
_SEPARATING_POOLS = frozenset({"prefork", "processes"})
#: prefetch multiplier where a pool grows by need and nobody has set one
_AUTOSCALED = 4


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``None``: the setting decides."""

    hostname: str
    queues: tuple[QueueSpec, ...]
    app_name: str = "default"
    pool: str | None = None
    concurrency: int | None = None  #: tasks at one time, over all children
    #: the most and the fewest tasks at one time, between which the pool sizes itself
    autoscale: tuple[int, int] | None = None
    autoscale_quiet: float = 30.0  #: seconds of less need before it shrinks
    children: int | None = None  #: processes of the pools that share one among many tasks
    prefetch_multiplier: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    shutdown_grace: float | None = None
    task_events: bool | None = None
    probes: str | None = None  #: where /live, /ready and /metrics are answered
    heartbeat: bool = True  #: tell monitors every ``heartbeat_interval`` seconds that the worker lives
    heartbeat_interval: float = 2.0
    mingle: bool = True  #: ask the neighbours, when it starts, what is revoked
    state_file: str | None = None
    purge: bool = False  #: empty the queues before starting
    loop: str | None = None  #: ``auto``, ``uvloop`` or ``asyncio``
    log_level: str | int = "WARNING"
    log_file: str | None = None
    log_color: bool | None = None  #: None: on a terminal
    quiet: bool = False  #: no banner
    #: SIGTERM means what SIGQUIT means (``REMAP_SIGTERM=SIGQUIT``)
    term_is_cold: bool = False
    #: seconds the broker is asked to wait for a message; the longest a warm stop waits for a fetch in flight
    receive_wait: float = 1.0


class UserSteps(msgspec.Struct, frozen=True):
    """What an app adds to its workers (``celeriac.bootsteps``)."""

    app: Any
    worker: tuple[Any, ...]
    consumer: tuple[Any, ...]
    options: dict[str, Any]  #: of ``app.user_options["worker"]``
    #: what was given for a queue (a name, a mapping, an object like kombu's) → its declaration
    queue_of: Callable[[Any], QueueSpec]


class PoolShape(msgspec.Struct, frozen=True):
    """One pool of several."""

    pool: str
    children: int
    slots_per_child: int

    @property
    def slots(self) -> int:
        return self.children * self.slots_per_child


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Every number the engines need."""

    hostname: str
    queues: tuple[QueueSpec, ...]
    #: its name; the names of several, joined by commas. Size and shape are those of the first
    pool: str = "prefork"
    children: int = 1
    slots_per_child: int = 1
    #: all of them, where there are several
    pools: tuple[PoolShape, ...] = ()
    #: the most and the fewest tasks at one time; ``children`` is then only where the pool begins
    autoscale: tuple[int, int] | None = None
    autoscale_quiet: float = 30.0
    prefetch_multiplier: int = 1  #: 0: no limit
    max_tasks_per_child: int | None = None
    look_ahead: int = 256  #: requests handed to a child beyond its slots while its tasks are short
    crash_budget: int = 3
    lease: float = 30.0  #: seconds
    publish_timeout: float = 10.0
    shutdown_grace: float = 30.0
    soft_timeout: float = 0.0  #: seconds a cold stop still waits for running tasks
    receive_wait: float = 1.0
    #: the most messages one receive may bring, and one settlement may carry
    batch: int = 512
    #: outcomes waiting to be written above which no more messages are asked for
    backlog: int = 2048
    #: messages for later that this worker keeps itself, where the broker can't
    held_limit: int = 10_000
    #: seconds without a delivery, with room here and messages there, after which the consumer is built anew
    silence: float = 60.0
    remote_control: bool = True
    task_events: bool = False
    #: seconds between two signs of life; None: there are none
    heartbeat: float | None = 2.0
    rate_limits: bool = True
    #: where probes are answered; None: nowhere, and nothing is counted for them
    probes: Address | None = None
    patience: Patience = Patience()
    mingle: bool = True
    state_file: str | None = None
    #: seconds that what is revoked is remembered
    revoke_expires: float = 30 * 86400.0
    #: seconds for the last outcomes to be written when the worker stops
    flush_timeout: float = 10.0

    @property
    def slots(self) -> int:
        return sum(pool.slots for pool in self.pools) or self.children * self.slots_per_child

    def shape(self, place: int = 0) -> PoolShape:
        """Of the first pool, or of another."""
        return self.pools[place] if self.pools else PoolShape(self.pool, self.children, self.slots_per_child)


def plan(options: WorkerOptions, settings: Settings) -> Plan:
    """Answer what the options leave open. Raises ``ImproperlyConfigured`` for what can't work."""
    if not options.queues:
        raise ImproperlyConfigured("the worker has no queue to consume from; name one with -Q or in task_queues")
    pool = options.pool or settings.worker_pool
    if not isinstance(pool, str):
        pool = f"{pool.__module__}:{pool.__qualname__}"
    pools = _pools(wanted_pools(pool), options, settings)
    first = pools[0]
    multiplier = options.prefetch_multiplier
    if multiplier is None:
        multiplier = settings.worker_prefetch_multiplier
    one_at_a_time = multiplier == 1 or bool(settings.worker_disable_prefetch)
    if multiplier is None:
        # what waits here is what tells an autoscaler how much to grow
        multiplier = 1 if options.autoscale is None else _AUTOSCALED
    grace = options.shutdown_grace
    return Plan(
        hostname=options.hostname,
        queues=tuple(options.queues),
        pool=",".join(one.pool for one in pools),
        children=first.children,
        slots_per_child=first.slots_per_child,
        pools=pools if len(pools) > 1 else (),
        autoscale=options.autoscale,
        autoscale_quiet=options.autoscale_quiet,
        prefetch_multiplier=1 if settings.worker_disable_prefetch else multiplier,
        look_ahead=0 if one_at_a_time else settings.worker_look_ahead,
        crash_budget=settings.task_crash_budget,
        lease=settings.broker_lease,
        publish_timeout=settings.broker_publish_timeout,
        shutdown_grace=settings.worker_shutdown_grace if grace is None else grace,
        soft_timeout=settings.worker_soft_shutdown_timeout,
        receive_wait=options.receive_wait,
        held_limit=settings.worker_eta_task_limit or 10_000,
        max_tasks_per_child=options.max_tasks_per_child or settings.worker_max_tasks_per_child,
        remote_control=settings.worker_enable_remote_control,
        task_events=settings.worker_send_task_events if options.task_events is None else options.task_events,
        heartbeat=options.heartbeat_interval if options.heartbeat else None,
        mingle=options.mingle,
        state_file=options.state_file or settings.worker_state_db,
        revoke_expires=settings.task_revoke_expires,
        rate_limits=not settings.worker_disable_rate_limits,
        probes=None if not (probes := options.probes or settings.worker_probes) else address_of(probes),
        patience=Patience(
            usual=max(settings.worker_probe_patience, 0.1), start=max(settings.worker_proc_alive_timeout, 30.0)
        ),
    )


def _pools(wanted: list[Wanted], options: WorkerOptions, settings: Settings) -> tuple[PoolShape, ...]:
    """``-c`` is for the first pool without a number of its own, ``--autoscale`` for the first of all."""
    if options.autoscale is not None and wanted[0].number is not None:
        raise ImproperlyConfigured(
            f"--autoscale sizes the first pool, and {wanted[0].name}:{wanted[0].number} has a size; say one of the two"
        )
    given = options.concurrency
    if given and all(one.number is not None for one in wanted):
        shown = ",".join(f"{one.name}:{one.number}" for one in wanted)
        raise ImproperlyConfigured(
            f"-c {given} and -P {shown}: every pool has its own number; leave out one of the two"
        )
    usual: int | None = given or _number(settings.worker_concurrency)
    shapes: list[PoolShape] = []
    for one in wanted:
        number = one.number
        if number is None:
            number, usual = usual or usable_processors(), None
        is_scaled = options.autoscale is not None and not shapes
        if is_scaled and options.autoscale is not None:
            number = options.autoscale[0]
        children, per_child = _shape(one.name, number, options.children or settings.worker_children)
        if is_scaled and options.autoscale is not None:
            children = max(-(-options.autoscale[1] // per_child), 1)
        shapes.append(PoolShape(one.name, children, per_child))
    return tuple(shapes)


def _shape(pool: str, concurrency: int, children: int | None) -> tuple[int, int]:
    """Processes, and tasks at one time in each."""
    if pool == "solo":
        return 1, 1
    if pool not in _SHARING_POOLS and (pool in _SEPARATING_POOLS or not shares(pool)):
        return concurrency, 1
    processes = min(children or usable_processors(), concurrency)
    return processes, -(-concurrency // processes)


def _number(value: object) -> int | None:
    """``worker_concurrency`` may be a number, its text, or ``auto``."""
    if value is None or value == "auto":
        return None
    try:
        number = int(str(value))
    except ValueError:
        raise ImproperlyConfigured(f"worker_concurrency: {value!r} is neither a number nor 'auto'") from None
    if number < 0:
        raise ImproperlyConfigured(f"worker_concurrency: {number} is below 0")
    return number


def usable_processors() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
