"""Where a measurement happens: brokers of our own, emptied for every run, near or behind a slow line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import redis

from celeriac.testing.servers import RabbitServer, RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Site:
    """An empty broker and an empty result store, for one run."""

    broker: str
    results: str
    folder: Path  #: of the run's own files; goes away with the place
    server_pids: tuple[int, ...] = ()

    @property
    def tally(self) -> Path:
        path = self.folder / "tally"
        path.mkdir(exist_ok=True)
        return path


class Place:
    """A broker's servers. Use as a context manager."""

    name = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="celeriac-bench-"))
        self._runs = 0

    def __enter__(self) -> Place:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        pass

    def fresh(self) -> Site:
        """Everything of the run before is gone."""
        raise NotImplementedError

    def stored(self, site: Site, pattern: str) -> int:
        """How many results there are."""
        raise NotImplementedError

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        self._runs += 1
        shutil.rmtree(self.folder / str(self._runs - 1), ignore_errors=True)
        folder = self.folder / str(self._runs)
        folder.mkdir()
        return folder


class Redis(Place):
    """Redis with its append-only file, flushed to disk once a second, as a production broker has it."""

    name = "redis"

    def __init__(self) -> None:
        super().__init__()
        # rewriting the file in the middle of a run would be noise; it is rewritten between runs
        self.server = RedisServer("--auto-aof-rewrite-percentage", "0", "--appendfsync", "everysec")

    def start(self) -> None:
        self.server.start()

    def fresh(self) -> Site:
        self.empty()
        assert self.server.process is not None
        url = self.server.url()
        return Site(url, url, self._new_folder(), (self.server.process.pid,))

    def empty(self) -> None:
        with redis.Redis.from_url(self.server.url(), socket_timeout=30) as client:
            client.flushall()
            client.bgrewriteaof()
            ends = time.monotonic() + 30
            while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < ends:
                time.sleep(0.02)

    def stored(self, site: Site, pattern: str) -> int:
        with redis.Redis.from_url(self.server.url(), socket_timeout=30) as client:
            kind, _, name = pattern.partition(" ")
            if kind == "hash":
                return int(client.hlen(name))
            return sum(1 for _ in client.scan_iter(match=pattern, count=10_000))

    def version(self) -> str:
        with redis.Redis.from_url(self.server.url(), socket_timeout=30) as client:
            return f"Redis {client.info('server')['redis_version']}"

    def close(self) -> None:
        self.server.stop()
        super().close()


class Rabbit(Place):
    """RabbitMQ, a virtual host for each run; results go to Redis beside it."""

    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self.server = RabbitServer()
        self.redis = Redis()
        self.vhost = ""

    def start(self) -> None:
        self.redis.start()
        self.server.start()

    def fresh(self) -> Site:
        results = self.redis.fresh()
        if self.vhost:
            self.server.remove_vhost(self.vhost)
        folder = self._new_folder()
        self.vhost = f"run{self._runs}"
        url = self.server.add_vhost(self.vhost)
        assert self.server.process is not None
        return Site(url, results.results, folder, (self.server.process.pid, *results.server_pids))

    def stored(self, site: Site, pattern: str) -> int:
        return self.redis.stored(site, pattern)

    def version(self) -> str:
        return f"RabbitMQ {self.server.api('GET', '/overview')['rabbitmq_version']}"

    def close(self) -> None:
        self.server.stop()
        self.redis.close()
        super().close()


class Sqlite(Place):
    """A file on this machine's disk; nothing serves it."""

    name = "sqlite"

    def fresh(self) -> Site:
        folder = self._new_folder()
        url = f"sqlite:///{folder / 'bench.sqlite3'}"
        return Site(url, url, folder)

    def stored(self, site: Site, pattern: str) -> int:
        import sqlite3
        from contextlib import closing

        table, _, suffix = pattern.partition(" ")
        file = f"{site.broker.removeprefix('sqlite:///')}{suffix}"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
            return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


class Far:
    """Another place's broker behind a line with a long way: every byte arrives ``delay`` seconds later."""

    def __init__(self, place: Place, round_trip: float) -> None:
        self.place = place
        self.name = place.name
        self.round_trip = round_trip
        self._lines: list[subprocess.Popen[bytes]] = []

    def fresh(self) -> Site:
        self.close()
        site = self.place.fresh()
        near = urlsplit(site.broker)
        assert near.port is not None
        port = self.line_to(near.port)
        far = urlunsplit(near._replace(netloc=near.netloc.replace(f":{near.port}", f":{port}")))
        return replace(site, broker=far, results=far if site.results == site.broker else site.results)

    def line_to(self, port: int) -> int:
        """The port of a line that leads to ``port``."""
        listening = free_port()
        line = subprocess.Popen(
            [sys.executable, str(HERE / "line.py"), str(listening), str(port), str(self.round_trip / 2)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._lines.append(line)
        assert line.stdout is not None
        if not line.stdout.readline():
            raise RuntimeError("the slow line did not start")
        return listening

    def stored(self, site: Site, pattern: str) -> int:
        return self.place.stored(site, pattern)

    def cpu_pids(self) -> Sequence[int]:
        return [line.pid for line in self._lines]

    def close(self) -> None:
        for line in self._lines:
            line.kill()
            line.wait(10)
            if line.stdout is not None:
                line.stdout.close()
        self._lines = []

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
