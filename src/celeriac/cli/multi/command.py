"""The commands of ``celeriac multi``: start, stop, stopwait, restart, kill, show, get, names, expand."""

from __future__ import annotations

import shlex
import signal
import time
from typing import TYPE_CHECKING

import click

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.multi.nodes import OWN, OWN_FLAGS, expand, names_of, nodes_of
from celeriac.cli.multi.words import parse, take_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.cli.multi.nodes import Node
    from celeriac.cli.multi.words import Wish

#: seconds between two looks whether stopped workers are gone
_LOOK = 0.2
#: seconds that they may take: they let end what they run, as long as their grace says
_PATIENCE = 3600.0

_HELP = """Start, stop and restart several workers in the background.

\b
start NODES…      start them, detached
stop NODES…       send SIGTERM, or the signal named last (-9, -QUIT)
stopwait NODES…   the same, and wait until they are gone
restart NODES…    stop each, wait, and start it again
kill NODES…       SIGKILL
show NODES…       print the command lines
get NODE NODES…   print the command line of one
names NODES…      print the nodes' names
expand TEXT NODES…  print TEXT with %n (name), %d (host), %p (both) filled in

NODES is a number or names. Further options are the worker's; -c:1-3 4, -Q:image,video a,b and --loglevel:1=DEBUG are
for some nodes. Pid and log files: --pidfile=/var/run/celery/%n.pid, --logfile=/var/log/celery/%n%I.log.
"""


@click.command(
    help=_HELP, add_help_option=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)  # fmt: skip
@click.argument("command", required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@pass_invocation
def multi(invocation: Invocation, /, ctx: click.Context, command: str | None, words: tuple[str, ...]) -> None:
    # the help is above, since it must not be wrapped
    if command in (None, "help", "--help", "-h"):
        click.echo(ctx.get_help())
        return
    name = {"stop_verify": "stopwait"}.get(command or "", command or "")
    if name not in _COMMANDS:
        raise click.UsageError(f"There is no command {command!r}. There are: {', '.join(_COMMANDS)}.", ctx)
    run = Multi(invocation, list(words))
    raise click.exceptions.Exit(_COMMANDS[name](run))


class Multi:
    """One call."""

    def __init__(self, invocation: Invocation, words: list[str]) -> None:
        self._words = words
        self._globals = [] if invocation.app_target is None else ["-A", invocation.app_target]
        self._is_quiet = invocation.quiet

    def _wish(self, words: Sequence[str] | None = None) -> Wish:
        wish = parse([*self._globals, *(self._words if words is None else words)], _takes_value)
        self._is_quiet = self._is_quiet or bool({"-q", "--quiet"} & wish.options.keys())
        return wish

    def _nodes(self, words: Sequence[str] | None = None) -> list[Node]:
        nodes = nodes_of(self._wish(words))
        if not nodes:
            raise Failure("Which nodes? Say a number, as in celeriac multi start 3, or names.")
        return nodes

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            click.echo(text)

    # ── commands that print ──────────────────────────────────────────────────────────────────────────────────

    def show(self) -> int:
        for node in self._nodes():
            click.echo(shlex.join(node.command))
        return 0

    def get(self) -> int:
        wanted, words = _first_word(self._words, "node")
        for node in self._nodes(words):
            if wanted in (node.name, node.name.partition("@")[0]):
                click.echo(shlex.join(node.command))
                return 0
        return 1

    def names(self) -> int:
        for name in names_of(self._wish()):
            click.echo(name)
        return 0

    def expand(self) -> int:
        template, words = _first_word(self._words, "text")
        for name in names_of(self._wish(words)):
            click.echo(expand(template, name))
        return 0

    # ── commands that act ────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> int:
        return int(not all([self._start(node) for node in self._nodes()]))  # noqa: C419 - all are to be started

    def _start(self, node: Node) -> bool:
        self._say(f"> {node.name}: starting")
        if (pid := node.pid) is not None:
            click.echo(f"> {node.name}: runs already, process {pid}", err=True)
            return False
        status = node.start()
        self._say(f"> {node.name}: {'started' if status == 0 else f'NOT started, status {status}'}")
        return status == 0

    def stop(self) -> int:
        self._send(*self._told(signal.SIGTERM))
        return 0

    def kill(self) -> int:
        nodes = self._nodes()
        self._wait(self._send(nodes, signal.SIGKILL), lambda node: node.forget())
        return 0

    def stopwait(self) -> int:
        return int(not self._wait(self._send(*self._told(signal.SIGTERM)), lambda _: None))

    def restart(self) -> int:
        nodes, number = self._told(signal.SIGTERM)
        started: list[bool] = []

        def again(node: Node) -> None:
            started.append(self._start(node))

        running = self._send(nodes, number)
        for node in nodes:
            if node not in running:
                again(node)
        return int(not self._wait(running, again) or not all(started))

    def _told(self, default: int) -> tuple[list[Node], int]:
        words, number = take_signal(self._words, default)
        return self._nodes(words), number

    def _send(self, nodes: list[Node], number: int) -> list[Node]:
        """Send the signal; those that run."""
        running: list[Node] = []
        for node in nodes:
            pid = node.signal(number)
            if pid is None:
                self._say(f"> {node.name}: not running")
                continue
            self._say(f"> {node.name}: {signal.Signals(number).name} to process {pid}")
            running.append(node)
        return running

    def _wait(self, nodes: list[Node], when_gone: Callable[[Node], None]) -> bool:
        """Until they are gone; whether that was in time."""
        left = list(nodes)
        ends = time.monotonic() + _PATIENCE
        while left:
            for node in left[:]:
                if node.pid is None:
                    self._say(f"> {node.name}: gone")
                    left.remove(node)
                    when_gone(node)
            if time.monotonic() > ends:
                click.echo(f"still running: {', '.join(node.name for node in left)}", err=True)
                return False
            if left:
                time.sleep(_LOOK)
        return True


_COMMANDS: dict[str, Callable[[Multi], int]] = {
    "start": Multi.start, "stop": Multi.stop, "stopwait": Multi.stopwait, "restart": Multi.restart, "kill": Multi.kill,
    "show": Multi.show, "get": Multi.get, "names": Multi.names, "expand": Multi.expand,
}  # fmt: skip


def _first_word(words: list[str], what: str) -> tuple[str, list[str]]:
    if not words:
        raise Failure(f"Which {what}? It stands before the nodes.")
    return words[0], words[1:]


def _takes_value(option: str) -> bool:
    """Whether the word after it is its value: for short options of strangers yes, as with Celery, for long ones no."""
    if option in OWN:
        return option not in OWN_FLAGS
    from celeriac.cli.main import main
    from celeriac.cli.worker import worker

    for param in (*worker.params, *main.params):
        if isinstance(param, click.Option) and option in param.opts:
            return not param.is_flag
    return not option.startswith("--")
