"""``celeriac worker``: runs tasks. Turns options into what ``worker/assembly.py`` builds a worker from."""

from __future__ import annotations

import importlib
import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from celeriac.cli.failures import Failure, describe
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import AUTOSCALE, COMMA_LIST, CONCURRENCY, LOG_LEVEL, later_release
from celeriac.cli.pidfile import held
from celeriac.errors import QueueNotFound
from celeriac.ids import node_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.executors.base import Loader, Registry
    from celeriac.transports.base import QueueSpec
    from celeriac.worker.options import WorkerOptions


def expand_path(template: str, node: str) -> str:
    """A log or pid file's name with ``%h %n %d %p %i %I %%`` filled in for the worker's own process."""
    name, _, host = node.partition("@")
    table = {"%h": host, "%n": name, "%d": host.partition(".")[2], "%p": node, "%i": "0", "%I": "", "%%": "%"}
    return re.sub(r"%[hndpiI%]", lambda found: table[found[0]], template)


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
@click.option("-c", "--concurrency", type=CONCURRENCY, help="Tasks at one time; 0 or auto: one per processor.")
@click.option("--autoscale", type=AUTOSCALE, metavar="MAX[,MIN]", help="Size the pool between these by need.")
@click.option("--children", type=click.IntRange(1), help="Processes of the pools whose processes run many tasks.")
@click.option(
    "-P",
    "--pool",
    metavar="POOL",
    help="prefork (or processes), threads, asyncio, gevent, eventlet, solo; or module:Class of your own.",
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
@click.option("--without-heartbeat", is_flag=True, help="Send monitors no signs of life.")
@click.option("--heartbeat-interval", type=click.FloatRange(0.1), default=2.0, help="Seconds between two of them.")
@later_release("-B", "--beat", what="The embedded beat")
@later_release("-D", "--detach", what="Detaching")
@click.option("-S", "--statedb", metavar="FILE", help="Keep revoked ids there over a restart; takes %n, %h as -n does.")
@later_release("-s", "--schedule", "--schedule-filename", what="The embedded beat")
@later_release("--scheduler", what="The embedded beat")
@later_release("--uid", what="Changing the user")
@later_release("--gid", what="Changing the group")
@later_release("--umask", what="Setting the umask")
@later_release("--executable", what="Detaching")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED)
@pass_invocation
def worker(invocation: Invocation, /, **options: Any) -> None:
    """Run tasks until told to stop.

    SIGTERM or Ctrl-C: finish what runs, give the rest back, end. A second time: stop what runs too.
    Settings may follow after --, as in: celeriac -A proj worker -- worker.prefetch_multiplier=1
    """
    app, target = invocation.app_with_tasks()
    node = node_name(options["hostname"])
    additions = _additions(options)
    _add(app, additions)
    with ExitStack() as stack:
        if options["pidfile"]:
            stack.enter_context(held(Path(expand_path(options["pidfile"], node))))
        status = run_worker(app, worker_options(app, node, options, invocation), additions.loader(target))
    raise click.exceptions.Exit(status)


class Additions(NamedTuple):
    """What the command line adds to an app; the worker's children load the app anew and need the same."""

    include: tuple[str, ...]
    settings: tuple[str, ...]  #: as written after ``--``

    def apply(self, app: Celeriac) -> None:
        """Import the modules, and set the settings over every other source of them."""
        from celeriac.settings.overrides import parse_overrides

        if self.settings:
            app.conf.override(parse_overrides(self.settings, "worker"))
        for module in self.include:
            importlib.import_module(module)

    def loader(self, target: str) -> Loader:
        """How children get the same tasks."""
        from celeriac.executors.base import Loader

        if self == NOTHING_ADDED:
            return Loader("celeriac.app.loading:load_registry", target)
        words = [target, *(f"-I{module}" for module in self.include), "--", *self.settings]
        return Loader("celeriac.cli.worker:load_registry", shlex.join(words))


NOTHING_ADDED = Additions((), ())


def load_registry(argument: str) -> Registry:
    """In a child: the tasks of an app with what the command line added (see :meth:`Additions.loader`)."""
    from celeriac.app.loading import find_app, load_registry

    target, *words = shlex.split(argument)
    end = words.index("--")
    additions = Additions(tuple(word.removeprefix("-I") for word in words[:end]), tuple(words[end + 1 :]))
    additions.apply(find_app(target))
    return load_registry(target)


def _add(app: Celeriac, additions: Additions) -> None:
    try:
        additions.apply(app)
    except ImportError as error:
        raise Failure(f"-I: {describe(error)}") from error


def _additions(options: Mapping[str, Any]) -> Additions:
    settings = list(options["settings"])
    if options["pool_start_method"]:
        settings.append(f"worker_pool_start_method={options['pool_start_method']}")
    if options["disable_prefetch"]:
        settings.append("worker_disable_prefetch=true")
    if options["task_events"]:
        settings.append("worker_send_task_events=true")
    return Additions(tuple(options["include"] or ()), tuple(settings))


def worker_options(app: Celeriac, node: str, options: Mapping[str, Any], invocation: Invocation) -> WorkerOptions:
    """What ``build_worker`` is told."""
    from celeriac.worker.options import WorkerOptions

    log_file = options["logfile"]
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
        heartbeat=not options["without_heartbeat"],
        heartbeat_interval=options["heartbeat_interval"],
        log_level=options["loglevel"],
        log_file=expand_path(log_file, node) if log_file else None,
        log_color=None if invocation.color else False,
        quiet=invocation.quiet,
        term_is_cold=invocation.term_is_cold,
    )


def state_file(app: Celeriac, given: str | None, node: str) -> str | None:
    template = given or app.settings.worker_state_db
    return expand_path(template, node) if template else None


def run_worker(app: Celeriac, options: WorkerOptions, loader: Loader) -> int:
    """Build the worker and run it to its end; its exit status."""
    from celeriac.worker.assembly import build_worker

    tasks = app.worker_registry().tasks
    return build_worker(
        options, app.settings, tasks, loader, app.reading_transport, app.store, outlet=app.transport,
        find_queue=app.router.queue,
    ).run()  # fmt: skip
