"""Private instances of real brokers for tests: started on free ports of the loopback address, stopped for good.

Nothing is shared with a server that the machine may already run: every instance has a folder, a port and, for
RabbitMQ, a node name and a port mapper of its own. ``kill`` and ``pause`` are for tests of what happens then.
"""

from __future__ import annotations

import contextlib
import itertools
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
from random import SystemRandom
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

#: seconds that a server may take to answer after its start
START_TIMEOUT = 180.0
_LOOPBACK = "127.0.0.1"
#: the kernel gives the ports above to whoever asks for any, and so may give away the one of a server that restarts
_PORTS = range(10_000, 32_768)
#: not the one that tests seed
_dice = SystemRandom()


class ServerMissing(Exception):
    """The server's program is not installed."""


def free_port() -> int:
    """A port that nobody listens on at this moment, and that nobody is given who did not choose it."""
    for _ in range(1000):
        port = _dice.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return port
    raise RuntimeError(f"no port of {_PORTS} is free")


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
            process.wait(60.0)

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
    """A Redis (or Valkey) server that keeps an append-only file, so that it survives :meth:`kill`.

    ``appendfsync no``: every answer's effect has been handed to the kernel. With ``everysec``, Redis keeps up to two
    seconds to itself while the disk is busy.
    """

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
            "--appendonly", "yes", "--appendfsync", "no", "--maxmemory-policy", "noeviction", *self._options,
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
            self._mapper.wait(60.0)
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
        with urllib.request.urlopen(request, timeout=60.0) as answer:
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
            capture_output=True, text=True, timeout=180.0,
        )  # fmt: skip
        return done.stdout


def ask(port: int, command: str) -> str:
    """One command to a Redis of this machine; what it answered, as it stands on the wire."""
    with socket.create_connection((_LOOPBACK, port), 30.0) as connection:
        connection.sendall(f"{command}\r\n".encode())
        answer = connection.recv(1 << 16)
    return answer.decode(errors="replace")


def until(true: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    """Look again and again; ``what`` is for the error when the time is over."""
    ends = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError):
            if true():
                return
        if time.monotonic() > ends:
            raise RuntimeError(f"{what}: not within {timeout} seconds")
        time.sleep(0.05)


class _Sentinel(RedisServer):
    def __init__(self, name: str, master: int, quorum: int) -> None:
        super().__init__()
        self._configuration = self.folder / "sentinel.conf"  # it writes what it learns into it
        self._configuration.write_text(
            f"port {self.port}\nbind {_LOOPBACK}\ndir {self.folder}\n"
            f"sentinel monitor {name} {_LOOPBACK} {master} {quorum}\nsentinel down-after-milliseconds {name} 1500\n"
            f"sentinel failover-timeout {name} 3000\n"
        )

    def command(self) -> list[str]:
        return [self._program, str(self._configuration), "--sentinel"]


class SentinelGroup:
    """A master, a replica and three Sentinels that watch over them. Fails over in about three seconds."""

    def __init__(self, name: str = "mymaster", sentinels: int = 3) -> None:
        self.name = name
        at_once = ("--repl-diskless-sync-delay", "0")
        self.servers = [RedisServer(*at_once)]
        self.servers.append(RedisServer(*at_once, "--replicaof", _LOOPBACK, str(self.servers[0].port)))
        self.sentinels = [_Sentinel(name, self.servers[0].port, sentinels // 2 + 1) for _ in range(sentinels)]

    def url(self, db: int = 0) -> str:
        return ";".join(f"sentinel://{_LOOPBACK}:{sentinel.port}/{db}" for sentinel in self.sentinels)

    def __enter__(self) -> SentinelGroup:
        try:
            for server in [*self.servers, *self.sentinels]:
                server.start()
            until(self._is_complete, "the Sentinels do not know each other")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.stop()

    def _is_complete(self) -> bool:
        return all(
            ask(sentinel.port, f"SENTINEL CKQUORUM {self.name}").startswith(f"+OK {len(self.sentinels)} usable")
            and self._replica_is_known(sentinel.port)
            for sentinel in self.sentinels
        )

    def _replica_is_known(self, port: int) -> bool:
        return "master-link-status\r\n$2\r\nok" in ask(port, f"SENTINEL REPLICAS {self.name}")

    def master_port(self) -> int:
        """What most Sentinels say."""
        said = [self._master_at(sentinel.port) for sentinel in self.sentinels if sentinel.process is not None]
        return max(set(said), key=said.count)

    def _master_at(self, port: int) -> int:
        return int(ask(port, f"SENTINEL GET-MASTER-ADDR-BY-NAME {self.name}").split("\r\n")[4])

    @property
    def master(self) -> RedisServer:
        return next(server for server in self.servers if server.port == self.master_port())

    def fail_over(self) -> RedisServer:
        """``kill -9`` the master; the one that was killed, when another has taken over."""
        killed = self.master
        killed.kill()
        until(
            lambda: self.master_port() != killed.port and "role:master" in ask(self.master_port(), "INFO replication"),
            "no replica took over",
        )
        return killed


class _ClusterNode(RedisServer):
    def __init__(self) -> None:
        self.bus_port = free_port()
        super().__init__(
            "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--cluster-node-timeout", "15000"
        )


class ClusterServers:
    """A Redis Cluster of masters without replicas."""

    def __init__(self, size: int = 3) -> None:
        self.nodes = [_ClusterNode() for _ in range(size)]

    def url(self) -> str:
        return f"redis+cluster://{_LOOPBACK}:{self.nodes[0].port}/0"

    def __enter__(self) -> ClusterServers:
        try:
            share = -(-16384 // len(self.nodes))
            for number, node in enumerate(self.nodes):
                node.start()
                slots = range(number * share, min(16384, (number + 1) * share))
                ask(node.port, f"CLUSTER ADDSLOTS {' '.join(map(str, slots))}")
            for node, other in itertools.combinations(self.nodes, 2):
                ask(node.port, f"CLUSTER MEET {_LOOPBACK} {other.port} {other.bus_port}")
            until(self._is_whole, "the cluster does not come together")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def _is_whole(self) -> bool:
        return all(
            "cluster_state:ok" in (state := ask(node.port, "CLUSTER INFO"))
            and f"cluster_known_nodes:{len(self.nodes)}" in state
            for node in self.nodes
        )
