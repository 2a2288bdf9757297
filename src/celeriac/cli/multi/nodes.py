"""The workers that ``celeriac multi`` starts and stops: their command lines, and their processes by their pid files."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from celeriac.cli.failures import EX_CANTCREAT, fail
from celeriac.cli.multi.words import Options, chosen, node_names
from celeriac.cli.pidfile import holder
from celeriac.ids import host_name

if TYPE_CHECKING:
    from celeriac.cli.multi.words import Wish

#: options of multi itself
OWN = frozenset({
    "--cmd", "--append", "--prefix", "--suffix", "--range-prefix", "--nosplash", "--quiet", "-q", "--verbose",
    "--no-color", "--hostname", "-n", "--executable",
})  # fmt: skip
#: those of them that have no value
OWN_FLAGS = frozenset({"--nosplash", "--quiet", "-q", "--verbose", "--no-color"})
#: options that stand before the command
_GLOBAL = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-C")

_PID_FILE = "/var/run/celery/%n.pid"
_LOG_FILE = "/var/log/celery/%n%I.log"


class Node(msgspec.Struct, frozen=True):
    """One worker."""

    name: str
    command: tuple[str, ...]
    pid_file: Path
    log_file: str

    @property
    def pid(self) -> int | None:
        """Its process, if it lives."""
        return holder(self.pid_file)

    def start(self) -> int:
        """Start it in the background; returns when it is ready, with the exit status of its command."""
        for file in (self.pid_file, Path(self.log_file)):
            try:
                file.absolute().parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                fail(
                    f"The folder {file.parent} cannot be made: {error.strerror}. Name others with --pidfile and "
                    "--logfile.", EX_CANTCREAT,
                )  # fmt: skip
        return subprocess.run(self.command, check=False, stdin=subprocess.DEVNULL).returncode

    def signal(self, number: int) -> int | None:
        """Send it to the process; its id, or None where there is none."""
        pid = self.pid
        if pid is None:
            return None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        except PermissionError:
            fail(f"{self.name}: process {pid} belongs to somebody else.", 1)
        return pid

    def forget(self) -> None:
        """Its process has been killed and cannot take its pid file away itself."""
        if self.pid is None:
            with contextlib.suppress(OSError):
                self.pid_file.unlink(missing_ok=True)


def expand(template: str, name: str) -> str:
    """``%n %N`` short name, ``%h %p`` full name, ``%d`` host; ``%i`` and ``%I`` are left to the worker."""
    short, _, host = name.partition("@")
    table = {"%n": short, "%N": short, "%h": name, "%p": name, "%d": host, "%%": "%%"}
    return re.sub(r"%[nNhpd%]", lambda found: table[found[0]], template)


def names_of(wish: Wish) -> list[str]:
    options = wish.options
    return node_names(
        wish.names, options.get("-n") or options.get("--hostname") or host_name(),
        prefix=options.get("--prefix") or "", suffix=options.get("--suffix"),
        range_prefix=options.get("--range-prefix") or "celery",
    )  # fmt: skip


def nodes_of(wish: Wish) -> list[Node]:
    """Every node with the options that are its own. Ends the command for an option that is for no node."""
    names = names_of(wish)
    whole = {option: value for option, value in wish.options.items() if option not in OWN}
    own: list[Options] = [dict(whole) for _ in names]
    for which, option, value in wish.some:
        for place in chosen(which, names, wish.options.get("--prefix") or ""):
            own[place][option] = value
    return [_node(name, options, wish) for name, options in zip(names, own, strict=True)]


def _node(name: str, options: Options, wish: Wish) -> Node:
    given = {option: None if value is None else expand(value, name) for option, value in options.items()}
    python = wish.options.get("--executable") or sys.executable
    before = [word for option in _GLOBAL if option in given for word in _written(option, given.pop(option))]
    pid_file = given.pop("--pidfile", None) or expand(_PID_FILE, name)
    log_file = given.pop("-f", None) or given.pop("--logfile", None) or expand(_LOG_FILE, name)
    program, words = _called(wish.options.get("--cmd"))
    command = [python, *program, *before, *words, "--detach"]
    for option, value in given.items():
        command += _written(option, value)
    command += ["-n", name, f"--pidfile={pid_file}", f"--logfile={log_file}", f"--executable={python}"]
    if append := wish.options.get("--append"):
        command += shlex.split(expand(append, name))
    if wish.passed_on:
        command += ["--", *wish.passed_on]
    return Node(name, tuple(command), Path(pid_file.replace("%I", "").replace("%i", "0").replace("%%", "%")), log_file)


def _called(given: str | None) -> tuple[list[str], list[str]]:
    """``--cmd="celery worker"``: what to run, and its words after the global options."""
    words = shlex.split(given) if given else ["celeriac", "worker"]
    if words[0] in ("celery", "celeriac"):
        return ["-m", "celeriac"], words[1:]
    if words[:2] in (["-m", "celery"], ["-m", "celeriac"]):
        return ["-m", "celeriac"], words[2:]
    return words[:1], words[1:]


def _written(option: str, value: str | None) -> list[str]:
    if value is None:
        return [option]
    return [f"{option}={value}"] if option.startswith("--") else [option, value]
