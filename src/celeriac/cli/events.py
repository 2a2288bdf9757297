"""``celeriac events``: what workers tell, on a screen, as lines, or to a camera."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failures import EX_UNAVAILABLE, Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import console, one_line, say
from celeriac.cli.pidfile import held
from celeriac.errors import CeleriacError
from celeriac.settings.censor import censored_url

if TYPE_CHECKING:
    from collections.abc import Iterator

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
@click.option("--pidfile", metavar="FILE", help="Hold this file while taking pictures.")
@click.argument("ignored", nargs=-1)
@pass_invocation
def events(
    invocation: Invocation, dump: bool, wants_json: bool, camera: str | None, frequency: float, maxrate: str | None,
    pidfile: str | None, ignored: tuple[str, ...],
) -> None:  # fmt: skip
    """Watch workers and tasks, live: a screen on a terminal, lines in a pipe.

    Workers tell about tasks when they were started with -E, or after: celeriac control enable_events.
    """
    app = invocation.app()
    if camera:
        with held(Path(pidfile)) if pidfile else contextlib.nullcontext():
            _picture(app, camera, frequency, maxrate)
    elif dump or wants_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
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

# ── camera ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _picture(app: Celeriac, camera: str, frequency: float, maxrate: str | None) -> None:
    from celeriac.app.snapshot import evcam, seconds_between

    try:
        seconds_between(maxrate)
    except ValueError as error:
        raise Failure(f"--maxrate: {error}") from error
    with _as_failure():
        evcam(camera, frequency, maxrate, app=app)


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
    with _as_failure():
        thread.check()


@contextlib.contextmanager
def _as_failure() -> Iterator[None]:
    try:
        yield
    except CeleriacError as error:
        raise Failure(f"broker: {error}", EX_UNAVAILABLE) from error
