"""A child: the process that runs tasks. Loads the user's code (unless the nursery has), then its crew works.

Started by the nursery: forked, or as a fresh interpreter. Leaves by ``os._exit``: what the parent process registered
for its own end is not this process's business.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Literal

import msgspec

from celeriac import plugins, signals
from celeriac.errors import ImproperlyConfigured
from celeriac.executors import logs
from celeriac.executors.base import PoolOptions, Registry
from celeriac.executors.children import natives, pipes
from celeriac.executors.children.desk import Desk, ParentGone
from celeriac.executors.children.pipes import Kind
from celeriac.executors.children.slate import Slate
from celeriac.executors.crews import loops
from celeriac.executors.runner import Runner
from celeriac.wire.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What nursery and children are told; travels as JSON to fresh interpreters."""

    options: PoolOptions
    target: str
    argument: str
    path: list[str]  #: sys.path
    #: ``loaded``: the nursery imports the user's code and forks; ``bare``: it forks and each child imports, because
    #: the user's code starts threads; ``spawn``: every child is a fresh interpreter
    mode: Literal["loaded", "bare", "spawn"] = "loaded"
    #: ``module:function``, called in every child before anything else is imported; children are then spawned
    prelude: str = ""


class Ends(msgspec.Struct, frozen=True):
    """The child's ends of what it shares with the parent, as file descriptors."""

    data: int
    bell: int
    slate: int


def load(setup: Setup, call: Callable[[], Registry] | None) -> Registry:
    """The user's registry. Raises whatever the user's code raises."""
    if call is not None:
        return call()
    loader = plugins.resolve(setup.target)
    registry: Registry = loader(setup.argument)
    return registry


def describe_failure(setup: Setup, error: BaseException) -> str:
    """Why the user's code did not load: one line, then where."""
    what = setup.argument or setup.target
    where = "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, ImproperlyConfigured):
        return f"{error}\n{where}"
    return f"{what} cannot be loaded: {type(error).__name__}: {error}\n{where}"


def run(setup: Setup, ends: Ends, name: str, registry: Registry | None, call: Callable[[], Registry] | None) -> int:
    """Be a child until told to leave; returns the exit status."""
    _adopt_signals()
    options = setup.options
    data = natives.NativeSocket(fileno=ends.data)
    bell = natives.NativeSocket(fileno=ends.bell)
    try:
        if registry is None:
            registry = load(setup, call)
        logs.name_process(name)
        if options.logs is not None:
            logs.setup(
                options.logs, place=int(name.rpartition("-")[2])
            )  # after the user's modules, which may have set up logging when imported
            logs.redirect_output(options.logs)
        registry.set_up_child(name)
        signals.worker_process_init.send(sender=options.hostname)
        desk = Desk(
            data, bell, Slate(ends.slate, options.slots_per_child), max_memory_kib=options.max_memory_per_child_kib
        )
        runner = Runner(registry, options.hostname, limits=Limits(**options.limits), show_results=options.show_results)
        loops.choose(options.loop)
        crew = plugins.load("crew", options.pool)(desk, runner, options.slots_per_child)
    except BaseException as error:
        data.sendall(pipes.frame(Kind.FAILED, describe_failure(setup, error)))
        return 1
    try:
        crew.run()
    except ParentGone:
        return 0
    signals.worker_process_shutdown.send(sender=options.hostname, pid=os.getpid(), exitcode=0)
    registry.tear_down_child()
    return 0


def _adopt_signals() -> None:
    """Terminal and service managers talk to the worker's parent; user code finds default dispositions."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_termination_to_parent()
    # Until a crew wants it, a late interruption must not kill the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def _leave_termination_to_parent() -> None:
    """Service managers send SIGTERM to every process of a service; the parent decides what becomes of what runs.

    Not ignored, since programs that tasks start would inherit that. What tasks fork has the default again, for
    :mod:`multiprocessing` ends its processes in this way; blocked meanwhile, since Python forgets in a fork what
    arrives just then.
    """

    def do_nothing(number: int, frame: object) -> None: ...

    before: list[set[int]] = []

    def block() -> None:
        before.append(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.pop())

    def unblock_in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is do_nothing:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    signal.signal(signal.SIGTERM, do_nothing)
    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=unblock_in_child)


def lead_and_die_with(parent: int) -> None:
    """Lead an own process group, so that a hard end reaches what tasks have started; and die with the nursery."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def leave(status: int) -> None:
    """End this process now, with its output written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(status)


def main() -> None:
    """Entry of a fresh interpreter: ``argv`` is the setup, the fds, the name and the nursery's pid."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    ends = msgspec.json.decode(sys.argv[2], type=Ends)
    status = 1
    try:
        lead_and_die_with(int(sys.argv[4]))
        status = run(setup, ends, sys.argv[3], None, None)
    except BaseException:
        traceback.print_exc()
    finally:
        leave(status)


def bootstrap(module: str, prelude: str = "") -> str:
    """The program of a fresh interpreter: import as the parent does, run the prelude, then ``module``'s ``main``."""
    program = [
        "import json, sys",
        "sys.path[:] = json.loads(sys.argv[1])['path']",
        f"import {natives.__name__}",  # keeps what a prelude replaces
    ]
    if prelude:
        first, _, function = prelude.partition(":")
        program += [f"from {first} import {function}", f"{function}()"]
    return "; ".join([*program, f"from {module} import main", "main()"])


__all__ = ["Ends", "Setup", "bootstrap", "describe_failure", "lead_and_die_with", "leave", "load", "run"]
