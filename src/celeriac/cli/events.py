"""``celeriac events``: what workers tell, on a screen, as lines, or to a camera."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.camera import as_failure, run_camera
from celeriac.cli.failures import EX_USAGE, Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import LOG_LEVEL
from celeriac.cli.output import console, one_line, say
from celeriac.errors import CeleriacError
from celeriac.settings.censor import censored_url

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac

#: seconds between two pictures of the screen
_REFRESH = 0.25


@click.command()
@click.option("-d", "--dump", is_flag=True, help="Print every event as a line.")
@click.option("-j", "--json", "wants_json", is_flag=True, help="Print every event as a line of JSON.")
@click.option("-c", "--camera", metavar="CLASS", help="Take pictures of the state with this class (module:Class).")
@click.option("-F", "--frequency", "--freq", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Seconds between two pictures.")  # fmt: skip
@click.option("-r", "--maxrate", metavar="RATE", help="The most pictures, such as 10/m.")
@click.option("-D", "--detach", is_flag=True, help="Take the pictures in the background.")
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", show_default=True, help="Of a camera.")
@click.option("-f", "--logfile", metavar="FILE", help="Where a camera logs, instead of stderr.")
@click.option("--pidfile", metavar="FILE", help="Hold this file while taking pictures.")
@click.option("--uid", metavar="USER", help="Become this user, by name or number; as root only.")
@click.option("--gid", metavar="GROUP", help="Become this group. Default: that of --uid.")
@click.option("--umask", metavar="OCTAL", help="Take these rights off files that are made.")
@click.option("--executable", metavar="PYTHON", help="The interpreter that --detach starts.")
@click.argument("ignored", nargs=-1)
@pass_invocation
def events(
    invocation: Invocation, /, dump: bool, wants_json: bool, camera: str | None, frequency: float,
    maxrate: str | None, ignored: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Watch workers and tasks, live: a screen on a terminal, lines in a pipe.

    Workers tell about tasks when they were started with -E, or after: celeriac control enable_events.
    """
    if camera:
        run_camera(invocation, camera, frequency, maxrate, options)
        return
    if options["detach"]:
        raise Failure("--detach needs something to do in the background: name a --camera.", EX_USAGE)
    app = invocation.app()
    if dump or wants_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print(app, wants_json)
    else:
        _watch(app, invocation.color)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _print(app: Celeriac, wants_json: bool) -> None:
    receiver = app.events.Receiver(handlers={"*": _say_json if wants_json else _say_line})
    try:
        receiver.capture()
    except (KeyboardInterrupt, BrokenPipeError):
        receiver.stop()


def _say_json(event: dict[str, Any]) -> None:
    import msgspec

    say(msgspec.json.encode(event, enc_hook=str).decode())
    sys.stdout.flush()


def _say_line(event: dict[str, Any]) -> None:
    say(line_of(event))
    sys.stdout.flush()


def line_of(event: dict[str, Any]) -> str:
    """``2030-12-31 23:59:58.123 w1@host task-succeeded [id] result='4' runtime=0.2``."""
    shown = {key: value for key, value in event.items() if key not in _SAID_OTHERWISE and value is not None}
    at = datetime.fromtimestamp(event["timestamp"]).isoformat(" ", "milliseconds")
    words = [at, event["hostname"], event["type"]]
    if event.get("uuid"):
        words.append(f"[{event['uuid']}]")
    words.extend(f"{key}={value!r}" if isinstance(value, str) else f"{key}={value}" for key, value in shown.items())
    return one_line(" ".join(words))


_SAID_OTHERWISE = frozenset(
    {"timestamp", "hostname", "type", "uuid", "utcoffset", "pid", "clock", "local_received", "root_id"}
)

# ── screen ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _watch(app: Celeriac, color: bool) -> None:
    from rich.live import Live

    from celeriac.app.snapshot import Receiving
    from celeriac.cli.watch.keyboard import Keyboard
    from celeriac.cli.watch.model import Model
    from celeriac.cli.watch.view import draw
    from celeriac.clock import SYSTEM_CLOCK

    def act(command: str, arguments: dict[str, Any]) -> str:
        try:
            app.control.broadcast(command, arguments)
        except CeleriacError as error:
            return f"{command}: {error}"
        return f"{command}: sent"

    model = Model(app.events.State(), SYSTEM_CLOCK.monotonic, act)
    receiver = app.events.Receiver(handlers={"*": model.hear})
    screen, title = console(color), censored_url(app.broker_url)
    with Receiving(receiver) as thread, Keyboard() as keyboard, Live(console=screen, screen=True) as live:
        try:
            while not model.is_over and thread.is_alive():
                live.update(draw(model, title, screen.width, screen.height), refresh=True)
                key = keyboard.key(_REFRESH)
                if key is not None:
                    model.press(key)
        except KeyboardInterrupt:
            pass
    with as_failure():
        thread.check()
