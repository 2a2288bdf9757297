"""Two parties on one broker: workers and producers of Celery and of celeriac as processes that tests talk to.

A :class:`Place` is a virtual host or a database with everybody in it; ``conftest.py`` says which ones there are.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.process_log import ProcessLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.testing.servers import RabbitServer, RedisServer

CELERY_PYTHON = os.environ.get("CELERIAC_INTEROP_PYTHON")
PARTY = Path(__file__).parent / "party"
CELERY, OURS = "celery", "celeriac"
#: seconds for whatever ought to happen at once
SOON = 90.0

#: (who sends, who runs). With INTEROP_PARTIES=celery Celery takes both parts: a test that fails then is wrong itself.
DIRECTIONS = [(CELERY, OURS), (OURS, CELERY)]
if os.environ.get("INTEROP_PARTIES") == CELERY:
    DIRECTIONS = [(CELERY, CELERY)]
#: the parties of a fleet of two workers
MIXED = DIRECTIONS[0]


def require_celery() -> None:
    """Skip, loudly, where the other party is missing."""
    if not CELERY_PYTHON:
        pytest.skip("CELERIAC_INTEROP_PYTHON is not set: a fleet of Celery and celeriac is NOT tested")


class Process:
    """A process with a log that is read as it comes. Killed with everything it started."""

    def __init__(self, side: str, arguments: Sequence[str], settings: dict[str, Any], journal: Path) -> None:
        self.side = side
        self.process = subprocess.Popen(
            [python_of(side), *arguments], cwd=PARTY, env=environment(side, settings, journal), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._log = ProcessLog(self.process)

    @property
    def lines(self) -> list[str]:
        return self._log.all_of_it()

    @property
    def log(self) -> str:
        return "\n".join(line[:300] for line in self.lines[-60:])

    def wait_for(self, text: str, timeout: float = SOON, start: int = 0) -> str:
        """The first line with ``text``, from line ``start`` on, waiting for it."""
        return self._log.wait_for(text, timeout, start, f"{self.side}: ")

    def stop(self, timeout: float = SOON) -> int:
        """SIGTERM, as an operator does it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def end(self) -> None:
        self.kill()
        self._log.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def python_of(side: str) -> str:
    if side == OURS:
        return sys.executable
    assert CELERY_PYTHON is not None
    return CELERY_PYTHON


def environment(side: str, settings: dict[str, Any], journal: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(PARTY)]
    if side == OURS and "PYTHONPATH" in os.environ:
        paths.append(os.environ["PYTHONPATH"])
    return {
        **inherited, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PARTY": side,
        "PARTY_SETTINGS": json.dumps(settings), "PARTY_JOURNAL": str(journal), "C_FORCE_ROOT": "1",
    }  # fmt: skip


class Producer(Process):
    """``party/party_client.py``: one process for a whole session, since its settings come with each order."""

    def __init__(self, side: str, folder: Path) -> None:
        super().__init__(side, ["party_client.py"], {}, folder / f"producer-{side}.journal")
        self._numbers = itertools.count(1)

    def ask(self, do: str, settings: dict[str, Any], **order: Any) -> Any:
        start = len(self.lines)
        number = next(self._numbers)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"number": number, "do": do, "settings": settings, **order}) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.wait_for(f'{{"number": {number},', 2 * SOON, start))
        if "error" in reply:
            raise PartyError(self.side, reply)
        return reply["answer"]

    @property
    def log(self) -> str:
        return "\n".join(line[:300] for line in self.lines[-5:])


class PartyError(Exception):
    """The producer raised."""

    def __init__(self, side: str, reply: dict[str, str]) -> None:
        super().__init__(f"{side}: {reply['error']}: {reply['text']}\n{reply['tb']}")
        self.kind = reply["error"]
        self.text = reply["text"]


class Place:
    """A broker for one fleet, with its workers, its journal and its producers."""

    def __init__(
        self, servers: Servers, broker: str, folder: Path, settings: dict[str, Any] | None = None, **more: Any
    ) -> None:
        self.broker = broker
        self.servers = servers
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.journal = folder / "journal.txt"
        self.database = servers.database()
        self.vhost = servers.add_vhost() if broker == "rabbitmq" else None
        results = servers.redis.url(self.database)
        self.settings: dict[str, Any] = {
            "broker_url": servers.rabbit.url(self.vhost) if self.vhost else results,
            "result_backend": results,
            "accept_content": ["json", "pickle", "msgpack", "yaml"],
            "broker_connection_retry_on_startup": True,
            **(settings or {}), **more,
        }  # fmt: skip
        self.workers: list[Process] = []
        self._names = itertools.count(1)

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def worker(self, side: str, *options: str, wait: bool = True, **settings: Any) -> Process:
        """Start one; returns when it is ready."""
        library = "celeriac" if side == OURS else "celery"
        node = f"{side}{next(self._names)}@party"
        words = ["-m", library, "-A", "party_app", "worker", "-l", "INFO", "-n", node]
        if "-c" not in options:
            words += ["-c", "2"]
        if "--mingle" in options:
            options = tuple(option for option in options if option != "--mingle")
        else:
            words += ["--without-mingle", "--without-gossip"]
        made = Process(side, [*words, *options], {**self.settings, **settings}, self.journal)
        self.workers.append(made)
        if wait:
            made.wait_for(" ready")
        return made

    def celeriac(self, *words: str) -> str:
        """A command of ours; what it printed."""
        done = subprocess.run(
            [python_of(OURS), "-m", "celeriac", "-A", "party_app", *words], cwd=PARTY, capture_output=True, text=True,
            env=environment(OURS, self.settings, self.journal), timeout=SOON, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # ── producers ────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, side: str, do: str, settings: dict[str, Any] | None = None, **order: Any) -> Any:
        return self.servers.producer(side).ask(do, {**self.settings, **(settings or {})}, **order)

    def send(self, side: str, *calls: dict[str, Any], **settings: Any) -> list[str]:
        """The ids of the tasks that ``side`` has sent."""
        found: list[str] = self.ask(side, "send", settings, calls=calls)
        return found

    def get(
        self, side: str, ids: Sequence[str], timeout: float = SOON, *, may_lack: bool = False, **settings: Any
    ) -> list[dict[str, Any]]:  # fmt: skip
        """What ``side`` reads as their outcomes."""
        found: list[dict[str, Any]] = self.ask(side, "get", settings, ids=list(ids), within=timeout)
        late = [outcome["id"] for outcome in found if "timeout" in outcome]
        if late and not may_lack:
            pytest.fail(f"no outcome of {late} within {timeout} s\n{self.seen}")
        return found

    def run(self, side: str, *calls: dict[str, Any], timeout: float = SOON, **settings: Any) -> list[dict[str, Any]]:
        """Send and get."""
        return self.get(side, self.send(side, *calls, **settings), timeout, **settings)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def notes(self, kind: str, *ids: str) -> list[list[Any]]:
        """Lines of the journal: ``[kind, id, …, side, pid, time]``; of these tasks, if ids are given."""
        if not self.journal.exists():
            return []
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if line[0] == kind and (not ids or line[1] in ids)]

    @property
    def seen(self) -> str:
        """The ends of the journal and of every worker's log."""
        logs = "\n\n".join(f"── {worker.side}\n{worker.log}" for worker in self.workers)
        return f"journal:\n{self.journal.read_text()[-2000:] if self.journal.exists() else '(none)'}\n{logs}"

    def until(self, holds: Callable[[], object], what: str = "", timeout: float = SOON) -> None:
        ends = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > ends:
                pytest.fail(f"not within {timeout} s: {what or holds}\n{self.seen}")
            time.sleep(0.02)

    def queue(self, name: str) -> dict[str, Any]:
        """RabbitMQ: what the management API says of a queue."""
        found: dict[str, Any] = self.servers.rabbit.api("GET", f"/queues/{self.vhost}/{name}")
        return found

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        if self.vhost is not None:
            self.servers.rabbit.remove_vhost(self.vhost)


class Servers:
    """The brokers of a session, started when somebody asks for them, and the producers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._redis: RedisServer | None = None
        self._rabbit: RabbitServer | None = None
        self._producers: dict[str, Producer] = {}
        self._numbers = itertools.count(1)
        self._fleets: dict[Any, Place] = {}

    @property
    def redis(self) -> RedisServer:
        if self._redis is None:
            from celeriac.testing.servers import RedisServer

            self._redis = RedisServer("--databases", "1024")
            self._redis.start()
        return self._redis

    @property
    def rabbit(self) -> RabbitServer:
        if self._rabbit is None:
            from celeriac.testing.servers import RabbitServer

            self._rabbit = RabbitServer()
            self._rabbit.start()
        return self._rabbit

    def database(self) -> int:
        return next(self._numbers)

    def add_vhost(self) -> str:
        name = f"v{next(self._numbers)}"
        self.rabbit.add_vhost(name)
        return name

    def producer(self, side: str) -> Producer:
        if side not in self._producers:
            self._producers[side] = Producer(side, self._folder)
        return self._producers[side]

    def fleet(self, broker: str, *sides: str, queues: Sequence[str] = ()) -> Place:
        """The place where a worker of each side serves the whole session; tests tell their tasks by their ids.

        ``queues``: the one that each of the workers reads, in their order; else each reads all.
        """
        key = (broker, *sides, *queues)
        if key not in self._fleets:
            made = Place(self, broker, self._folder / "-".join(key), FLEET_SETTINGS)
            self._fleets[key] = made
            options = [("-Q", queue) for queue in queues] or [()] * len(sides)
            for worker in [made.worker(side, *words, wait=False) for side, words in zip(sides, options, strict=True)]:
                worker.wait_for(" ready")
        return self._fleets[key]

    def end(self) -> None:
        for place in self._fleets.values():
            place.end()
        for producer in self._producers.values():
            producer.end()
        for server in (self._redis, self._rabbit):
            if server is not None:
                server.stop()


#: what every fleet has: a queue of each kind that both parties have to agree about
FLEET_SETTINGS: dict[str, Any] = {
    "task_queues": {
        "celery": {"exchange": "celery", "exchange_type": "direct", "routing_key": "celery"},
        "steep": {"exchange": "steep", "routing_key": "steep", "queue_arguments": {"x-max-priority": 9}},
        "wild": {"exchange": "things", "exchange_type": "topic", "routing_key": "thing.#"},
        "exact": {"exchange": "posts", "exchange_type": "direct", "routing_key": "letter"},
        "second": {"exchange": "posts", "exchange_type": "direct", "routing_key": "parcel"},
    },
    "task_routes": {"party.side": {"queue": "second"}},
}
