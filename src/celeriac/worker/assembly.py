"""Builds a worker and runs it: read this first.

    Consumer ─▶ intake ─▶ admit ─▶ claims ─▶ dispatch ─▶ Executor ─▶ endings ─▶ settle ─▶ results · follow-ups · acks

One loop, one table of claims, no lock. The executor starts before any thread exists, because its nursery forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac import signals, telemetry
from celeriac.clock import SYSTEM_CLOCK, LamportClock
from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import Divided, PoolOptions
from celeriac.ids import task_id
from celeriac.results.base import registry_among
from celeriac.rules.admission import AdmissionPolicy
from celeriac.wire.limits import Limits
from celeriac.worker import hooks, logs
from celeriac.worker.admit import Admission, Alarm
from celeriac.worker.autoscale import Autoscaler
from celeriac.worker.banner import banner
from celeriac.worker.cancelling import Cancelling
from celeriac.worker.claims import Claims, facts_of
from celeriac.worker.departure import Departure
from celeriac.worker.dispatch import Dispatch, RoomWatch
from celeriac.worker.divided import Crowd, DividedDispatch, DividedIntake, OfOnePool
from celeriac.worker.endings import Endings
from celeriac.worker.examination import Examination
from celeriac.worker.gate import Gate
from celeriac.worker.hoard import Hoard
from celeriac.worker.intake import Intake, Watchdog
from celeriac.worker.lane import Lane
from celeriac.worker.leases import Leases
from celeriac.worker.limited import Limited
from celeriac.worker.options import Plan, WorkerOptions, plan
from celeriac.worker.pacing import Pacing
from celeriac.worker.plane import plane_of
from celeriac.worker.pools import executor_of
from celeriac.worker.probes import bind
from celeriac.worker.probing import probes_of
from celeriac.worker.revocations import RevocationWatch
from celeriac.worker.session import Session
from celeriac.worker.settle import Settle
from celeriac.worker.shutdown import FORCED, LOST_CONTACT, Shutdown
from celeriac.worker.state_file import StateFile, restored
from celeriac.worker.supervisor import Service, ServiceGaveUp, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor, Loader, Runnable
    from celeriac.limiters.base import Limiter
    from celeriac.results.base import ResultStore
    from celeriac.settings import Settings
    from celeriac.transports.base import QueueSpec, Transport
    from celeriac.worker.options import UserSteps
    from celeriac.worker.restart import Restart
    from celeriac.worker.steps.extension import Extension

logger = logging.getLogger("celeriac.worker")

#: seconds a thread keeps the interpreter while another waits for it. The driver's lanes and the loop hand it to each
#: other with every batch: draining SQLite with two children, 0.2 ms gives 20 k/s where CPython's 5 ms give 14 k/s.
_SWITCH_INTERVAL = 0.0002
#: seconds for the last revocations to be written down
_LAST_ENTRIES = 3.0
#: new objects between two looks of the garbage collector (CPython: 700)
_YOUNG_OBJECTS = 20_000


def build_worker(
    options: WorkerOptions, settings: Settings, tasks: Mapping[str, Runnable], loader: Loader, transport: Transport,
    store: ResultStore | None, clock: Clock = SYSTEM_CLOCK, outlet: Transport | None = None,
    find_queue: Callable[[str], QueueSpec] | None = None, steps: UserSteps | None = None,
    open_limiter: Callable[[], Limiter] | None = None,
) -> Worker:  # fmt: skip
    """Compose a worker. No I/O. Raises ``ImproperlyConfigured`` for what can't work.

    ``outlet``: the broker that follow-up messages go to, if it is not the one that messages come from.
    ``find_queue``: the declaration of a queue that the worker is told to consume from while it runs.
    ``steps``: what the app adds.
    ``open_limiter``: gives what counts for limits over all workers; asked only if there are such limits.
    """
    numbers = plan(options, settings)
    limits = Limits(
        wire_bytes=settings.broker_max_message_bytes, decompressed_bytes=settings.task_max_decompressed_bytes
    )
    log_options = logs.LogOptions(
        level=options.log_level,
        file=options.log_file or settings.worker_logfile,
        format=settings.worker_log_format,
        task_format=settings.worker_task_log_format,
        date_format=settings.worker_log_datefmt,
        task_date_format=settings.worker_task_log_datefmt,
        color=settings.worker_log_color if options.log_color is None else options.log_color,
        hijack_root=settings.worker_hijack_root_logger,
        redirect=settings.worker_redirect_stdouts,
        redirect_level=settings.worker_redirect_stdouts_level,
    )
    shows_results = logs.level_of(options.log_level) <= logging.INFO or numbers.task_events
    pool_options = PoolOptions(
        hostname=options.hostname,
        max_tasks_per_child=numbers.max_tasks_per_child,
        max_memory_per_child_kib=options.max_memory_per_child_kib or settings.worker_max_memory_per_child,
        start_timeout=max(settings.worker_proc_alive_timeout, PoolOptions().start_timeout),
        start_method="spawn" if settings.worker_pool_start_method == "spawn" else "fork",
        loop=options.loop or settings.worker_loop,
        look_ahead=numbers.look_ahead,
        hard_limit=options.time_limit,
        show_results=shows_results,
        logs=log_options,
        limits={"wire_bytes": limits.wire_bytes, "decompressed_bytes": limits.decompressed_bytes},
    )
    executor, warning = executor_of(numbers, pool_options, tasks, loader)
    limited = Limited(tasks, settings.task_queue_limits, limits)
    limiter = _limiter_for(limited, open_limiter) if limited else None
    parts = Parts(
        numbers, tasks, executor, transport, store, limits, clock, outlet, limited, limiter, warning
    )  # fmt: skip
    show = Show(
        options,
        log_options,
        transport_url(settings),
        store_url(settings, transport, store),
        settings,
        find_queue,
        steps,
    )
    return Worker(parts, show, Random())


def _limiter_for(limited: Limited, open_limiter: Callable[[], Limiter] | None) -> Limiter:
    try:
        if open_limiter is None:
            raise ImproperlyConfigured("nothing was given that counts for all workers")
        return open_limiter()
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{limited.first} has limits, and {error}") from error


def transport_url(settings: Settings) -> str:
    """The broker's URL, secrets masked; it is only shown."""
    return _masked(settings.broker_url or "sqlite (embedded)")


def store_url(settings: Settings, transport: Transport, store: ResultStore | None) -> str:
    """The result store's URL, secrets masked; it is only shown."""
    if settings.result_backend:
        return _masked(settings.result_backend)
    if store is not None and store.engine_key == transport.engine_key:
        return "in the broker's file" if settings.broker_url else "sqlite (embedded)"
    return "disabled"


def _masked(url: object) -> str:
    text = str(url)
    head, at, tail = text.rpartition("@")
    scheme, colon, rest = head.partition("://")
    if not at or not colon:
        return text
    user, has_password, _ = rest.partition(":")
    return f"{scheme}://{user}{':**' if has_password else ''}@{tail}"


class Parts(NamedTuple):
    """What a pipeline is made of."""

    plan: Plan
    tasks: Mapping[str, Runnable]
    executor: Executor
    transport: Transport
    store: ResultStore | None
    limits: Limits
    clock: Clock
    outlet: Transport | None = None  #: where follow-up messages go, if not to ``transport``
    limited: Limited | None = None  #: the limits over all workers
    limiter: Limiter | None = None  #: what counts for them; None: there are none
    warning: str = ""  #: to be logged when the worker starts


class Show(NamedTuple):
    """What is only shown, or only matters to a worker that is a process of its own."""

    options: WorkerOptions
    logs: logs.LogOptions
    transport: str
    results: str
    settings: Settings
    find_queue: Callable[[str], QueueSpec] | None = None
    steps: UserSteps | None = None


class Pipeline:
    """The stages of one worker, wired. Made on the loop that runs them."""

    def __init__(
        self, parts: Parts, random: Random, overrides: Mapping[str, float | None], show: Show | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        numbers, clock, transport, executor = parts.plan, parts.clock, parts.transport, parts.executor
        self.facts = facts = {
            name: facts_of(task, numbers.crash_budget, overrides) for name, task in parts.tasks.items()
        }
        capabilities = transport.capabilities
        policy = AdmissionPolicy(
            crash_budget=numbers.crash_budget,
            broker_keeps_delays=capabilities.delays,
            max_delay=capabilities.max_delay,
            # what may come early is kept here: parked again, it would come at once
            horizon=max(AdmissionPolicy().horizon, 2 * capabilities.delay_resolution),
        )
        self.lane = Lane("celeriac-settle")
        self.claims = claims = Claims()
        self.session = session = Session(transport, numbers.queues, numbers.hostname, claims, self.lane, clock, random)
        self.settle = settle = Settle(
            session, claims, transport, parts.outlet or transport, parts.store, numbers, self.lane, clock, random
        )
        divided = executor if isinstance(executor, Divided) else None
        self.dispatch = dispatch = (
            Dispatch(claims, executor, session) if divided is None else DividedDispatch(claims, divided, session)
        )
        self.pacing = Pacing(facts, numbers.rate_limits)
        self.admission = Admission(claims, settle, facts, policy, parts.limits, self.pacing, numbers.hostname, clock)
        self.admission.revoked.kept = numbers.revoke_expires
        claims.on_done_before, claims.dropped = settle.add_dropped, settle.dropped
        dispatch.unexpired, dispatch.unrevoked = self.admission.unexpired, self.admission.unrevoked
        shares = [numbers.shape(place).slots_per_child > 1 for place in range(len(numbers.pools) or 1)]
        self.cancelling = Cancelling(
            claims, self.admission, executor, lambda task: shares[0 if divided is None else divided.place(task)]
        )
        self.lamport = LamportClock()
        registry = registry_among(parts.outlet or transport, parts.store)
        self.revocations = None if registry is None else RevocationWatch(registry, self.cancelling, clock)
        self.state_file: StateFile | None = None
        if numbers.state_file is not None:
            self.state_file = StateFile(numbers.state_file, self.cancelling, self.lamport, clock)
            restored(self.state_file, self.revocations)
        self.endings = Endings(executor, claims, settle, dispatch, numbers.hostname, clock)
        intake_class = Intake if divided is None else DividedIntake
        self.intake = intake_class(session, claims, executor, self.admission, dispatch, settle, numbers, clock)
        self.leases = Leases(session, claims, numbers.lease, clock)
        self.shutdown = Shutdown(self.intake, dispatch, self.endings, settle, claims, executor, numbers, clock)
        self.endings.on_room = self.intake.wake
        settle.on_settled = claims.on_freed = self._go_on
        room = RoomWatch(self._go_on, clock)
        dispatch.on_blocked = self.intake.on_blocked = room.blocked
        examination = Examination((transport, parts.outlet, parts.store), self.lane, clock, random)
        services: list[Service] = [examination, session, self.endings, settle, dispatch, room, self.intake]
        self.gate: Gate | None = None
        if parts.limiter is not None and parts.limited is not None:
            self.gate = gate = Gate(
                parts.limited, parts.limiter, claims, dispatch, executor, self.admission, Lane("celeriac-limits"),
                numbers.lease, task_id()[-12:], clock, random,
            )  # fmt: skip
            claims.is_limited, dispatch.on_gated = parts.limited.applies, gate.wake
            self.endings.on_finished = gate.ended
            services.insert(-1, gate)
        self.hoard = Hoard(self.intake, dispatch, settle, claims, executor, clock)
        if divided is not None and isinstance(dispatch, DividedDispatch):
            self.hoard = Crowd(self.intake, dispatch, settle, claims, divided, self.admission, numbers, clock, random)
        if divided is not None or numbers.prefetch_multiplier != 0:
            services.append(self.hoard)
        services.append(Alarm(claims, self.admission, dispatch, clock))
        if capabilities.leases:
            services.append(self.leases)
        watchdog = Watchdog(session, self.intake, claims, transport, self.lane, numbers.silence, clock)
        services.append(watchdog)
        if self.revocations is not None:
            services.append(self.revocations)
        if self.state_file is not None:
            services.append(self.state_file)
        self.autoscaler: Autoscaler | None = None
        if numbers.autoscale is not None:
            load = OfOnePool(claims, dispatch, 0) if isinstance(dispatch, DividedDispatch) else claims
            self.autoscaler = Autoscaler(
                executor if divided is None else divided.pools[0], load, numbers.slots_per_child, *numbers.autoscale,
                clock, numbers.autoscale_quiet,
            )  # fmt: skip
            services.append(self.autoscaler)
        self.plane = None if show is None else plane_of(self, parts, show, stop, random)
        if self.plane is not None:
            services.extend(self.plane.services)
        services[:0] = probes_of(self, watchdog, parts, show)
        if self.revocations is not None:
            session.before_work = self.revocations.before_work
        elif self.plane is not None and self.plane.mingle is not None:
            session.before_work = self.plane.mingle.before_work
        self.supervisor = Supervisor(services, clock, random)

    def _go_on(self) -> None:
        self.dispatch.pump()  # a claim may have waited behind one of the same id
        self.intake.wake()

    async def close(self) -> None:
        """The services have stopped: let go of the broker."""
        if self.plane is not None:
            await self.plane.close()
        if self.gate is not None:
            await self.gate.close()
        if self.state_file is not None:
            await self.state_file.close()
        if self.revocations is not None:
            await self.revocations.close(_LAST_ENTRIES)
        with contextlib.suppress(Exception):
            await self.session.close()
        self.settle.close_writer()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5.0):
                await self.lane.run(self.settle.close)
        self.lane.close()


class Worker:
    """A worker process. :meth:`run` blocks and owns the process; :meth:`serve` runs on somebody else's loop."""

    def __init__(self, parts: Parts, show: Show, random: Random) -> None:
        self._parts = parts
        self._show = show
        self._random = random
        self._is_forced = False
        self._signal = ""
        self._restart: Restart | None = None
        self._early: Callable[[], bool] = lambda: False
        #: after the end, to be started anew; see :class:`Restart`
        self.is_restarting = False
        self.pipeline: Pipeline | None = None

    @property
    def hostname(self) -> str:
        return self._parts.plan.hostname

    @property
    def app(self) -> Any:
        """The app, for receivers of signals."""
        return None if self._show.steps is None else self._show.steps.app

    def force(self) -> None:
        """Stop without waiting for running tasks. From the loop's thread."""
        self._is_forced = True
        if self.pipeline is not None:
            self.pipeline.shutdown.force()

    def note_signal(self, name: str) -> None:
        """For those who are told why the worker stops."""
        self._signal = name
        if self.pipeline is not None:
            self.pipeline.shutdown.signal = name

    async def serve(self, stop: asyncio.Event) -> int:
        """Work until ``stop`` is set, then go through the shutdown; the exit code.

        Raises ``ImproperlyConfigured`` when the worker can't start, ``ServiceGaveUp`` when it can't go on.
        """
        parts = self._parts
        telemetry.emit(telemetry.WorkerStarting(hostname=self.hostname))
        if parts.plan.probes is not None:  # now only tried: what is forked would hold on to the port
            bind(parts.plan.probes).close()
        if parts.warning:
            logger.warning("%s", parts.warning)
        extension = self._extension(stop)
        await parts.executor.start()
        options = self._show.options
        overrides = {"time_limit": options.time_limit, "soft_time_limit": options.soft_time_limit}
        self.pipeline = pipeline = Pipeline(parts, self._random, overrides, self._show, stop.set)
        pipeline.shutdown.signal = self._signal
        if self._is_forced:
            pipeline.shutdown.force()
        if options.purge:
            await pipeline.lane.run(self._purge)
        code = LOST_CONTACT
        try:
            await pipeline.supervisor.start()
            if extension is not None:
                await extension.start(pipeline, self._random)
            await self._work(pipeline, stop, extension)
            leaving = None if extension is None else asyncio.create_task(extension.leave())
            code = await pipeline.shutdown.run()
            if leaving is not None:
                await leaving
        finally:
            pipeline.dispatch.paused = True
            # nothing may run here any more when the broker gives the messages to somebody else
            await parts.executor.stop(0.0)
            if extension is not None:
                await extension.stop(code)
            await pipeline.supervisor.stop()
            await pipeline.close()
        session = pipeline.session
        if code == 0 and session.was_refused and not session.first_contact.is_set():
            code = LOST_CONTACT
        telemetry.emit(telemetry.WorkerStopped(hostname=self.hostname, handed_back=pipeline.shutdown.handed_back))
        return code

    def _extension(self, stop: asyncio.Event) -> Extension | None:
        """What drives the app's own steps; None: it has none."""
        steps = self._show.steps
        if steps is None or not (steps.worker or steps.consumer):
            return None
        from celeriac.worker.steps.extension import Extension

        def end(is_cold: bool) -> None:
            if is_cold:
                self.force()
            stop.set()

        return Extension(steps, self._parts, self._show, end)

    async def _work(self, pipeline: Pipeline, stop: asyncio.Event, extension: Extension | None) -> None:
        failed = pipeline.supervisor.failed
        troubles = (failed,) if extension is None else (failed, extension.failed)
        contact = asyncio.create_task(pipeline.session.first_contact.wait())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((contact, stopped, *troubles), return_when=asyncio.FIRST_COMPLETED)
            if contact.done() and not failed.done():
                telemetry.emit(telemetry.WorkerReady(hostname=self.hostname))
            await asyncio.wait((stopped, *troubles), return_when=asyncio.FIRST_COMPLETED)
            for trouble in troubles:
                if trouble.done():
                    trouble.result()
        finally:
            contact.cancel()
            stopped.cancel()

    def _purge(self) -> None:
        admin = self._parts.transport.admin()
        try:
            admin.declare(self._parts.plan.queues)
            for queue in self._parts.plan.queues:
                logger.warning("queue %s: %d messages removed (--purge)", queue.name, admin.purge(queue.name))
        finally:
            admin.close()

    # ── as a process of its own ─────────────────────────────────────────────────────────────────────────────────

    def run(self, restart: Restart | None = None, early: Callable[[], bool] = lambda: False) -> int:
        """Work until a signal says to stop; the exit code: 0 warm, 1 forced, 2 lost contact. Main thread.

        ``restart``: how to begin again, where a hang-up is to mean that; :attr:`is_restarting` then tells whether to.
        ``early``: whether one has come before the worker listened.
        """
        self._restart, self._early = restart, early
        settings, hostname = self._show.settings, self.hostname
        signals.celeryd_init.send(sender=hostname, instance=self, conf=settings, options=self._show.options)
        logs.setup(self._show.logs)
        end_of_logs = logs.listen()
        signals.worker_init.send(sender=self)
        end_of_hooks = hooks.listen(self, hostname)
        signals.celeryd_after_setup.send(sender=hostname, instance=self, conf=settings)
        if not self._show.options.quiet:
            sys.stdout.write(self._banner())
            sys.stdout.flush()
        # only there do tasks print in this process
        end_of_output = logs.redirect_output(self._show.logs) if self._parts.plan.pool == "solo" else None
        sys.setswitchinterval(_SWITCH_INTERVAL)
        gc.freeze()  # what is imported by now lives as long as the process
        if self._parts.plan.pool != "solo":
            collect_less()
        if hasattr(signal, "SIGUSR1"):
            faulthandler.register(signal.SIGUSR1, all_threads=True)
        try:
            with asyncio.Runner(loop_factory=_loop_factory(self._show.options.loop or settings.worker_loop)) as runner:
                return runner.run(self._serve_with_signals())
        except ServiceGaveUp as error:
            logger.critical("%s; the worker ends", error)
            return LOST_CONTACT
        except KeyboardInterrupt:  # before the signal handlers stood
            return FORCED
        finally:
            if end_of_output is not None:
                end_of_output()
            signals.worker_shutdown.send(sender=self)
            end_of_hooks()
            end_of_logs()

    async def _serve_with_signals(self) -> int:
        stop = asyncio.Event()
        departure = Departure(self, stop, self._restart, term_is_cold=self._show.options.term_is_cold)
        departure.listen()
        if self._early():
            departure.begin_again("told to by SIGHUP")
        try:
            return await self.serve(stop)
        finally:
            departure.close()
            if self.is_restarting:
                # the loop's end takes the handler away; what comes now is kept for the process that follows
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

    def _banner(self) -> str:
        from celeriac import __version__

        show, settings = self._show, self._show.settings
        return banner(
            self._parts.plan, __version__, show.options.app_name, show.transport, show.results, self._parts.tasks,
            settings.task_acks_late, bool(show.options.task_events), logs.level_of(show.logs.level) <= logging.INFO,
        )  # fmt: skip


def collect_less() -> None:
    """Let the collector look less often, in this process alone: in the children it is for the users' objects.

    At 20,000 messages a second, 700 new dicts are there every 2 ms, and none is in a cycle: looking for them at
    Python's rate costs 1.5 µs per message (benchmarks/run.py, parent CPU).
    """
    usual = gc.get_threshold()
    if usual[0] < _YOUNG_OBJECTS and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(gc.set_threshold, *usual))
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """``auto``: uvloop where it is installed."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise ImproperlyConfigured("worker_loop 'uvloop' needs: pip install 'celeriac[uvloop]'") from None
        return None
    factory: Any = uvloop.new_event_loop
    return factory  # type: ignore[no-any-return]
