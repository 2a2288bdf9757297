"""``celeriac worker``: runs tasks. Turns options into what ``worker/assembly.py`` builds a worker from."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from celeriac.cli.additions import add, additions_of
from celeriac.cli.detach import Background, check_log_file, detach
from celeriac.cli.failures import Failure, describe
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.nodes import expand_node, expand_path
from celeriac.cli.options import AUTOSCALE, COMMA_LIST, CONCURRENCY, LOG_LEVEL, later_release
from celeriac.cli.origin import DETACHED, EarlyHangup, pop_marker
from celeriac.cli.pidfile import held
from celeriac.cli.privileges import drop_privileges, set_umask
from celeriac.errors import QueueNotFound
from celeriac.ids import node_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.executors.base import Loader
    from celeriac.transports.base import QueueSpec
    from celeriac.worker.assembly import Worker
    from celeriac.worker.options import WorkerOptions
    from celeriac.worker.restart import Restart


def select_queues(
    known: Iterable[str],
    only: Sequence[str] | None,
    excluded: Sequence[str] | None,
    find: Callable[[str], QueueSpec],
) -> tuple[QueueSpec, ...]:
    """The queues a worker reads: those named with -Q, else all configured ones, less those of -X.

    ``find`` declares or makes up a queue, or raises ``QueueNotFound`` where none may be made up.
    """
    names = [name for name in dict.fromkeys(only or known) if name not in set(excluded or ())]
    if not names:
        raise Failure("No queue is left to read from.")
    try:
        return tuple(find(name) for name in names)
    except QueueNotFound as error:
        raise Failure(f"-Q: {error}") from error


@click.command(context_settings={"allow_interspersed_args": True})
@click.option("-n", "--hostname", metavar="NODE", help="Node name; %h host, %n name, %d domain. Default: celery@%h.")
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", show_default=True)
@click.option("-f", "--logfile", metavar="FILE", help="Log there instead of stderr; takes %n, %h, %i as -n does.")
@click.option("--pidfile", metavar="FILE", help="Hold this file while running; status 73 when somebody else does.")
@click.option(
    "-c",
    "--concurrency",
    type=CONCURRENCY,
    help="Tasks at one time; 0 or auto: one per processor. Of several pools, for the first without a number.",
)
@click.option("--autoscale", type=AUTOSCALE, metavar="MAX[,MIN]", help="Size the (first) pool between these by need.")
@click.option("--children", type=click.IntRange(1), help="Processes of the pools whose processes run many tasks.")
@click.option(
    "-P",
    "--pool",
    metavar="POOL",
    help="prefork (or processes), threads, asyncio, gevent, eventlet, solo; or module:Class of your own. Several, "
    "each with its number of tasks at one time: prefork:4,asyncio:100.",
)
@click.option("--pool-start-method", type=click.Choice(["fork", "spawn"]))
@click.option("-Q", "--queues", type=COMMA_LIST, help="Read these queues only.")
@click.option("-X", "--exclude-queues", type=COMMA_LIST, help="Do not read these.")
@click.option("-I", "--include", type=COMMA_LIST, help="Import these modules too.")
@click.option("--prefetch-multiplier", type=click.IntRange(0), help="Messages held per slot; 0: no limit.")
@click.option("--disable-prefetch", is_flag=True, help="Take a message only when a slot is free.")
@click.option("--time-limit", type=click.FloatRange(0, min_open=True), help="Seconds until a task is killed.")
@click.option("--soft-time-limit", type=click.FloatRange(0, min_open=True), help="Seconds until it is told to end.")
@click.option("--max-tasks-per-child", type=click.IntRange(1))
@click.option("--max-memory-per-child", type=click.IntRange(1), metavar="KIB")
@click.option("--shutdown-grace", type=click.FloatRange(0), help="Seconds running tasks get when the worker stops.")
@click.option("--purge", "--discard", is_flag=True, help="Empty the queues first. There is no way back.")
@click.option("-E", "--task-events", "--events", is_flag=True, help="Send task events to monitors.")
@click.option("-O", "--optimization", type=click.Choice(["default", "fair"]), expose_value=False, hidden=True)
@click.option("--without-gossip", is_flag=True, expose_value=False, hidden=True)
@click.option("--without-mingle", is_flag=True, help="Do not ask other workers what is revoked.")
@click.option("--probes", metavar="HOST:PORT", help="Answer /live, /ready and /metrics there over HTTP.")
@click.option("--without-heartbeat", is_flag=True, help="Send monitors no signs of life.")
@click.option("--heartbeat-interval", type=click.FloatRange(0.1), default=2.0, help="Seconds between two of them.")
@later_release("-B", "--beat", what="The embedded beat")
@click.option(
    "-D", "--detach", is_flag=True, help="Go to the background; the command returns when the worker is ready."
)
@click.option("--reload", is_flag=True, help="Restart when files of the app change; for development.")
@click.option("--load-only", is_flag=True, hidden=True)
@click.option("-S", "--statedb", metavar="FILE", help="Keep revoked ids there over a restart; takes %n, %h as -n does.")
@later_release("-s", "--schedule", "--schedule-filename", what="The embedded beat")
@later_release("--scheduler", what="The embedded beat")
@click.option("--uid", metavar="USER", help="Become this user, by name or number; as root only.")
@click.option("--gid", metavar="GROUP", help="Become this group. Default: that of --uid.")
@click.option("--umask", metavar="OCTAL", help="Take these rights off files that are made.")
@click.option("--executable", metavar="PYTHON", help="The interpreter that --detach starts.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED)
@pass_invocation
def worker(invocation: Invocation, /, **options: Any) -> None:
    """Run tasks until told to stop.

    SIGTERM or Ctrl-C: finish what runs, give the rest back, end. A second time: stop what runs too.
    SIGHUP: finish what runs, then start anew with the code of today.
    Settings may follow after --, as in: celeriac -A proj worker -- worker.prefetch_multiplier=1
    """
    hangup = EarlyHangup()
    is_detached = pop_marker(DETACHED)
    if options["detach"] and not is_detached and not options["load_only"] and "C_FAKEFORK" not in os.environ:
        app, _ = invocation.app_with_tasks()  # what is wrong with it is better said here
        executable = _first(options["executable"], app.settings.worker_executable)
        raise click.exceptions.Exit(detach(invocation.origin, executable, invocation.quiet))
    restart = invocation.origin.as_restart(
        is_detached, on_hangup=hangup.means_restart, on_change=options["reload"]
    )  # fmt: skip
    try:
        status = _run(invocation, options, restart, hangup)
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if not options["reload"] or options["load_only"]:
            raise
        _wait_for_repair(error, restart)
    raise click.exceptions.Exit(status)


def _run(invocation: Invocation, options: dict[str, Any], restart: Restart, hangup: EarlyHangup) -> int:
    """Load, and work until told to stop; the exit status."""
    app, target = invocation.app_with_tasks()
    node = node_name(options["hostname"])
    settings = app.settings
    set_umask(_first(options["umask"], settings.worker_umask))
    drop_privileges(_first(options["uid"], settings.worker_uid), _first(options["gid"], settings.worker_gid))
    pid_file = _first(options["pidfile"], settings.worker_pidfile)
    log_file = _first(options["logfile"], settings.worker_logfile)
    additions = additions_of(options)
    add(app, additions)
    worker = worker_of(app, worker_options(app, node, options, invocation), additions.loader(target), options)
    if options["load_only"]:
        return 0
    check_log_file(expand_path(log_file, node) if log_file else None)
    with held(Path(expand_path(pid_file, node))) if pid_file else nullcontext():
        background = Background(expand_path(log_file, node) if log_file else None)
        try:
            status = run_worker(worker, background, restart, lambda: hangup.has_come)
        except BaseException as error:
            background.failed(error)
            raise
        if worker.is_restarting:
            restart.begin_again()
    return status


def run_worker(worker: Worker, background: Background, restart: Restart, early: Callable[[], bool]) -> int:
    """Run it to its end; its exit status."""
    from celeriac import telemetry

    events = (telemetry.WorkerReady, telemetry.BrokerLost)  # what there is to see of the broker, is in the log
    end = telemetry.subscribe(events, lambda event: background.ready())
    try:
        return worker.run(restart, early)
    finally:
        end()


def _wait_for_repair(error: Exception, restart: Restart) -> NoReturn:
    """``--reload`` with code that does not load: say so, and try again when a file is saved."""
    from celeriac.worker.reload import baseline, wait_for_change

    folders = {os.getcwd(), restart.folder}
    before = baseline(restart.since, folders)
    failure = error if isinstance(error, Failure) else Failure(describe(error))
    failure.show()
    click.echo("Waiting for a file to be saved (--reload).", err=True)
    found = wait_for_change(before, folders)
    click.echo(f"{', '.join(map(os.path.basename, found[:3]))} changed: starting again", err=True)
    restart.begin_again()


def _first(option: Any, setting: Any) -> Any:
    return setting if option is None else option


def worker_options(app: Celeriac, node: str, options: Mapping[str, Any], invocation: Invocation) -> WorkerOptions:
    """What ``build_worker`` is told."""
    from celeriac.worker.options import WorkerOptions

    log_file = _first(options["logfile"], app.settings.worker_logfile)
    return WorkerOptions(
        hostname=node,
        queues=select_queues(app.queues, options["queues"], options["exclude_queues"], app.router.queue),
        app_name=app.name,
        pool=invocation.pool_name(options["pool"]),
        concurrency=options["concurrency"] or None,
        autoscale=options["autoscale"],
        autoscale_quiet=invocation.autoscale_quiet,
        children=options["children"],
        prefetch_multiplier=options["prefetch_multiplier"],
        max_tasks_per_child=options["max_tasks_per_child"],
        max_memory_per_child_kib=options["max_memory_per_child"],
        time_limit=options["time_limit"],
        soft_time_limit=options["soft_time_limit"],
        shutdown_grace=options["shutdown_grace"],
        mingle=not options["without_mingle"],
        state_file=state_file(app, options["statedb"], node),
        purge=options["purge"],
        task_events=True if options["task_events"] else None,
        probes=options["probes"],
        heartbeat=not options["without_heartbeat"],
        heartbeat_interval=options["heartbeat_interval"],
        log_level=options["loglevel"],
        log_file=expand_node(log_file, node) if log_file else None,
        log_color=None if invocation.color else False,
        quiet=invocation.quiet,
        term_is_cold=invocation.term_is_cold,
    )


def state_file(app: Celeriac, given: str | None, node: str) -> str | None:
    template = given or app.settings.worker_state_db
    return expand_path(template, node) if template else None


def worker_of(app: Celeriac, options: WorkerOptions, loader: Loader, given: dict[str, Any]) -> Worker:
    """Import every task module, and build the worker."""
    from celeriac.app.embedded_worker import user_steps
    from celeriac.cli.user_options import chosen
    from celeriac.worker.assembly import build_worker

    tasks = app.worker_registry().tasks
    return build_worker(
        options, app.settings, tasks, loader, app.reading_transport, app.store, outlet=app.transport,
        find_queue=app.router.queue, steps=user_steps(app, chosen(app, "worker", given)),
        open_limiter=app.open_limiter,
    )  # fmt: skip
