"""Private instances of real brokers for tests: started on free ports of the loopback address, stopped for good.

Nothing is shared with a server that the machine may already run: every instance has a folder, a port and, for
RabbitMQ, a node name and a port mapper of its own. ``kill`` and ``pause`` are for tests of what happens then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

#: seconds that a server may take to answer after its start
START_TIMEOUT = 60.0
_LOOPBACK = "127.0.0.1"


class ServerMissing(Exception):
    """The server's program is not installed."""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Server:
    """A process that listens on a port. Use as a context manager, or ``start`` and ``stop``."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        # short, since a socket's path may have 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="cs-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Any:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Start, or start again over what the last process left; returns when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        ends = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command()[0]} ended with {self.process.returncode}:\n{self._last_words()}")
            if time.monotonic() > ends:
                raise RuntimeError(f"{self.command()[0]} does not answer on port {self.port}:\n{self._last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and remove what it kept."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """``kill -9``; what it kept stays, for the next ``start``."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10.0)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP), as a server that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "the server is not running"
        os.killpg(self.process.pid, number)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def answers(self) -> bool:
        raise NotImplementedError


class RedisServer(Server):
    """A Redis (or Valkey) server that keeps an append-only file, so that it survives :meth:`kill`."""

    def __init__(self, *options: str, port: int | None = None, program: str = "redis-server") -> None:
        found = shutil.which(program) or shutil.which("valkey-server")
        if found is None:
            raise ServerMissing(f"{program} is not installed")
        super().__init__(port)
        self._program = found
        self._options = options

    def url(self, db: int = 0) -> str:
        return f"redis://{_LOOPBACK}:{self.port}/{db}"

    def command(self) -> list[str]:
        return [
            self._program, "--port", str(self.port), "--bind", _LOOPBACK, "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--maxmemory-policy", "noeviction", *self._options,
        ]  # fmt: skip

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self.port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            # an instance with a password or with TLS alone answers, too
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))
        return False


class RabbitServer(Server):
    """A RabbitMQ node with its management API, for virtual hosts, alarms and closing connections."""

    def __init__(self, configuration: str = "", port: int | None = None) -> None:
        self._program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if not self._program.exists():
            raise ServerMissing("rabbitmq-server is not installed")
        super().__init__(port)
        self.api_port = free_port()
        self.node = f"celeriac{self.port}@localhost"
        self._mapper_port = free_port()
        self._distribution_port = free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {_LOOPBACK}:{self.port}\n"
            f"management.tcp.ip = {_LOOPBACK}\nmanagement.tcp.port = {self.api_port}\n"
            f"disk_free_limit.absolute = 10MB\ncollect_statistics_interval = 1000\n{configuration}"
        )

    def url(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> str:
        return f"amqp://{user}:{password}@{_LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def command(self) -> list[str]:
        return [str(self._program)]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HOME": folder,  # the Erlang cookie
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": _LOOPBACK,
        }

    def answers(self) -> bool:
        try:
            socket.create_connection((_LOOPBACK, self.port), 1.0).close()
            return self.api("GET", "/overview") is not None
        except OSError:
            return False

    def start(self) -> None:
        if self._mapper is None:
            found = next(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
            # in the foreground, as our own child: the one that Erlang would start detaches itself
            self._mapper = subprocess.Popen(
                [str(found), "-address", _LOOPBACK, "-port", str(self._mapper_port)], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait(10.0)
            self._mapper = None

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the management API (``/vhosts/x``, ``/connections`` …); the decoded answer, if there is one."""
        request = urllib.request.Request(
            f"http://{_LOOPBACK}:{self.api_port}/api{path}", method=method,
            data=None if body is None else msgspec.json.encode(body),
            headers={
                "Authorization": "Basic " + b64encode(b"guest:guest").decode(), "Content-Type": "application/json",
            },
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            text = answer.read()
        return msgspec.json.decode(text) if text else {}

    def add_vhost(self, name: str) -> str:
        """A virtual host of its own for a test; its URL."""
        self.api("PUT", f"/vhosts/{quote(name, safe='')}", {})
        self.api(
            "PUT", f"/permissions/{quote(name, safe='')}/guest", {"configure": ".*", "write": ".*", "read": ".*"}
        )  # fmt: skip
        return self.url(name)

    def remove_vhost(self, name: str) -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            self.api("DELETE", f"/vhosts/{quote(name, safe='')}")

    def close_connections(self) -> int:
        """What an operator does with ``rabbitmqctl close_all_connections``; how many there were."""
        connections = self.api("GET", "/connections")
        for connection in connections:
            with contextlib.suppress(urllib.error.HTTPError):
                self.api("DELETE", f"/connections/{quote(connection['name'], safe='')}")
        return len(connections)

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl``; what it printed."""
        done = subprocess.run(
            ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", self.node, *arguments], env=self.environment(), check=True,
            capture_output=True, text=True, timeout=60.0,
        )  # fmt: skip
        return done.stdout
