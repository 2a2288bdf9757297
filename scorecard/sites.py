"""Where an experiment takes place: a broker of its own, what can be done to it, and what is left in it.

Looks at brokers with their own tools, never through the product.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import redis

from celeriac.testing.servers import RabbitServer, RedisServer

if TYPE_CHECKING:
    from scorecard.products import Product

QUEUE = "celery"


class Site(Protocol):
    """A broker. ``port`` is None where there is no server."""

    name: str
    port: int | None
    settings: dict[str, Any]
    #: seconds that :meth:`outstanding` may be behind
    staleness: float

    def broker_url(self, product: Product) -> str: ...
    def store_url(self, product: Product) -> str: ...
    def outstanding(self, queue: str = QUEUE) -> int | None:
        """Messages that are not settled, waiting or held; None when it can't be told."""
        ...

    def buried(self, queue: str = QUEUE) -> list[bytes]:
        """The bytes of dead letters and quarantined messages."""
        ...

    def holdings(self) -> dict[str, float]:
        """What lies in it, by name: keys with their lengths, queues, bindings …; not what is kept on purpose."""
        ...

    def kill(self) -> None: ...
    def start(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def keep_logs(self, folder: Path) -> None:
        """Copy what the server said, for who looks into a failure."""
        ...

    def close(self) -> None: ...
    def version(self) -> str: ...


class Unsupported(Exception):
    """This broker has no such thing."""


class SqliteSite:
    """A file. There is no server to kill."""

    name = "sqlite"
    port: int | None = None
    staleness = 0.0

    def __init__(self, folder: Path) -> None:
        self.settings: dict[str, Any] = {}
        self._folder = folder

    def broker_url(self, product: Product) -> str:
        if product.name == "celery":
            return f"sqla+sqlite:///{self._folder}/broker.sqlite3"
        return f"sqlite:///{self._folder}/lab.sqlite3"

    def store_url(self, product: Product) -> str:
        if product.name == "celery":
            return f"db+sqlite:///{self._folder}/results.sqlite3"
        return ""  # the broker's file

    def _count(self, name: str, sql: str) -> int:
        path = self._folder / name
        if not path.exists():
            return 0
        reading = closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10))
        with reading as connection, contextlib.suppress(sqlite3.OperationalError):
            return int(connection.execute(sql).fetchone()[0])
        return 0

    def outstanding(self, queue: str = QUEUE) -> int | None:
        ours = self._count("lab.sqlite3", "select count(*) from message")
        return ours + self._count("broker.sqlite3", "select count(*) from kombu_message where visible")

    def buried(self, queue: str = QUEUE) -> list[bytes]:
        path = self._folder / "lab.sqlite3"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return [bytes(meta) + bytes(body) for meta, body in connection.execute("select meta, body from buried")]

    def holdings(self) -> dict[str, float]:
        path = self._folder / "lab.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            kept = {"revocation", "broadcast"}  # for their time
            return {
                f"rows of {name}": connection.execute(f'select count(*) from "{name}"').fetchone()[0]
                for name in names
                if name not in kept
            }

    def hold(self, seconds: float) -> None:
        """Keep everybody else from writing for so long."""
        path = self._folder / "lab.sqlite3"
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            time.sleep(seconds)
            connection.execute("rollback")

    def kill(self) -> None:
        raise Unsupported("a file can't be killed")

    start = pause = resume = kill

    def keep_logs(self, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass

    def version(self) -> str:
        return sqlite3.sqlite_version


class RedisSite:
    """A Redis server with an append-only file; database 0 for messages, 1 for results."""

    name = "redis"
    staleness = 0.0

    def __init__(self, folder: Path, *options: str) -> None:
        self.settings: dict[str, Any] = {}
        self.server = RedisServer(*options)
        self.server.start()
        self.port: int | None = self.server.port

    @property
    def server_pid(self) -> int:
        assert self.server.process is not None, "the server is not running"
        return self.server.process.pid

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.server.port, socket_timeout=5.0, socket_connect_timeout=5.0)

    def broker_url(self, product: Product) -> str:
        return self.server.url(0)

    def store_url(self, product: Product) -> str:
        return self.server.url(1)

    def outstanding(self, queue: str = QUEUE) -> int | None:
        with contextlib.suppress(redis.RedisError), closing(self.client) as client:
            pipe = client.pipeline()
            for step in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
                pipe.llen(f"{queue}{step}")
            pipe.hlen("unacked")
            pipe.zcard(f"_celeriac.delayed.{queue}")
            for key in client.scan_iter("_celeriac.held.*", count=1000):
                pipe.hlen(key)
            return int(sum(pipe.execute()))
        return None

    def buried(self, queue: str = QUEUE) -> list[bytes]:
        with closing(self.client) as client:
            found: Any = [*client.lrange(f"{queue}.dead", 0, -1), *client.lrange(f"{queue}.quarantine", 0, -1)]
        return [payload_of(epitaph) for epitaph in found]

    def holdings(self) -> dict[str, float]:
        return keys_of(self.server)

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def pause(self) -> None:
        self.server.pause()

    def resume(self) -> None:
        self.server.resume()

    def keep_logs(self, folder: Path) -> None:
        shutil.copy(self.server.log, folder / "redis.log")

    def close(self) -> None:
        self.server.stop()

    def version(self) -> str:
        with closing(self.client) as client:
            info: Any = client.info("server")
        return str(info["redis_version"])


class RabbitSite:
    """A virtual host of a RabbitMQ node with a quorum queue; the results lie in a Redis of their own."""

    name = "rabbitmq"
    staleness = 10.0  # quorum queues tell their figures every five seconds, and those are gathered later

    def __init__(self, folder: Path, node: RabbitServer, vhost: str, *, owns_node: bool = False) -> None:
        self.node = node
        self._owns_node = owns_node
        self.vhost = vhost
        self.port: int | None = node.port
        self.url = node.add_vhost(vhost)
        self.store = RedisServer()
        self.store.start()
        self.settings: dict[str, Any] = {"task_default_queue_type": "quorum"}

    def broker_url(self, product: Product) -> str:
        return self.url

    def store_url(self, product: Product) -> str:
        return self.store.url(1)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the management API below this virtual host; ``{vhost}`` in the path is filled in."""
        return self.node.api(method, path.format(vhost=quote(self.vhost, safe="")), body)

    def outstanding(self, queue: str = QUEUE) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            found = self.api("GET", "/queues/{vhost}")
            # what waits for its time lies in the queues of the delay ladder
            return sum(
                int(one.get("messages", 0))
                for one in found
                if one["name"] == queue or one["name"].startswith("celery_delayed_")
            )
        return None

    def buried(self, queue: str = QUEUE) -> list[bytes]:
        found = []
        for name in (f"{queue}.dead", f"{queue}.quarantine"):
            with contextlib.suppress(OSError):
                ask = {"count": 10_000, "ackmode": "ack_requeue_true", "encoding": "base64"}
                for message in self.api("POST", f"/queues/{{vhost}}/{quote(name, safe='')}/get", ask):
                    body = message["payload"]
                    found.append(base64.b64decode(body) if message["payload_encoding"] == "base64" else body.encode())
        return [payload_of(body) for body in found]

    def holdings(self) -> dict[str, float]:
        found = keys_of(self.store)
        for one in self.api("GET", "/queues/{vhost}"):
            found[f"queue {one['name']}"] = 1
            found[f"messages of {one['name']}"] = one.get("messages", 0)
        found.update({f"exchange {one['name']}": 1 for one in self.api("GET", "/exchanges/{vhost}")})
        for one in self.api("GET", "/bindings/{vhost}"):
            found[f"binding {one['source']} -> {one['destination']} by {one['routing_key']}"] = 1
        found["connections"] = len(self.api("GET", "/vhosts/{vhost}/connections"))
        found["channels"] = len(self.api("GET", "/vhosts/{vhost}/channels"))
        return found

    def kill(self) -> None:
        self.node.kill()

    def start(self) -> None:
        self.node.start()

    def pause(self) -> None:
        self.node.pause()

    def resume(self) -> None:
        self.node.resume()

    def keep_logs(self, folder: Path) -> None:
        for log in self.node.folder.glob("*.log"):
            shutil.copy(log, folder / f"rabbitmq-{log.name}")

    def close(self) -> None:
        self.store.stop()
        if self._owns_node:
            self.node.stop()
            return
        with contextlib.suppress(OSError):
            self.node.remove_vhost(self.vhost)

    def version(self) -> str:
        return str(self.node.api("GET", "/overview")["rabbitmq_version"])


def keys_of(server: RedisServer) -> dict[str, float]:
    """Every key with how much is in it, but for the registry of revocations, and how many clients there are."""
    found: dict[str, float] = {}
    lengths = {"list": "llen", "hash": "hlen", "set": "scard", "zset": "zcard", "stream": "xlen"}
    with closing(redis.Redis(port=server.port, socket_timeout=5.0)) as client:
        info: Any = client.info()
        found["clients"] = info["connected_clients"]
        databases = [int(name[2:]) for name in info if re.fullmatch(r"db\d+", name)]
    for number in databases:
        with closing(redis.Redis(port=server.port, db=number, socket_timeout=5.0)) as client:
            for key in client.scan_iter(count=1000):
                name: Any = client.type(key)
                kind = name.decode()
                if b"{revoked}" not in key:
                    size = getattr(client, lengths[kind])(key) if kind in lengths else client.exists(key)
                    found[f"{number}:{key.decode(errors='replace')}"] = size
    return found


def payload_of(epitaph: bytes) -> bytes:
    """What an epitaph (JSON with the message in base64) was written for; other bytes are the message itself."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return base64.b64decode(json.loads(epitaph)["payload"])
    return epitaph
