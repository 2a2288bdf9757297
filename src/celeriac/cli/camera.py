"""``celeriac events --camera``: a process that takes pictures, at the terminal or in the background."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.detach import Background, check_log_file, detach
from celeriac.cli.failures import EX_UNAVAILABLE, Failure
from celeriac.cli.origin import DETACHED, pop_marker
from celeriac.cli.pidfile import held
from celeriac.cli.privileges import drop_privileges, set_umask
from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celeriac.cli.invocation import Invocation


def run_camera(
    invocation: Invocation, camera: str, frequency: float, maxrate: str | None, options: dict[str, Any]
) -> None:
    """Take pictures until told to stop. ``options``: those of a daemon, as the command line gave them."""
    from celeriac.app.snapshot import seconds_between

    try:
        seconds_between(maxrate)
    except ValueError as error:
        raise Failure(f"--maxrate: {error}") from error
    app = invocation.app()

    def chosen(name: str) -> Any:
        given = options[name]
        return getattr(app.settings, f"events_{name}") if given is None else given

    if options["detach"] and not pop_marker(DETACHED):
        raise click.exceptions.Exit(detach(invocation.origin, chosen("executable"), invocation.quiet))
    set_umask(chosen("umask"))
    drop_privileges(chosen("uid"), chosen("gid"))
    log_file, pid_file = chosen("logfile"), chosen("pidfile")
    check_log_file(log_file)
    with held(Path(pid_file)) if pid_file else contextlib.nullcontext():
        background = Background(log_file)
        try:
            _log(options["loglevel"], log_file)
            with as_failure():
                _take_pictures(app, camera, frequency, maxrate, background)
        except BaseException as error:
            background.failed(error)
            raise


def _take_pictures(app: Any, camera: str, frequency: float, maxrate: str | None, background: Background) -> None:
    from celeriac.app.snapshot import take_pictures

    # as Ctrl-C does it: the pid file goes, the camera is told
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    take_pictures(app, camera, frequency, maxrate, on_ready=background.ready)


def _log(level: str | int, log_file: str | None) -> None:
    from celeriac.worker import logs

    logs.setup(logs.LogOptions(level=level, file=log_file and os.path.abspath(log_file)))


@contextlib.contextmanager
def as_failure() -> Iterator[None]:
    """What the broker has against it, as one line and a status."""
    try:
        yield
    except CeleriacError as error:
        raise Failure(f"broker: {error}", EX_UNAVAILABLE) from error
