"""Who is measured on which broker, how each is started, and what a reader must know of its configuration.

Everybody gets two processes that run tasks, and what its own documentation recommends for many short tasks.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from places import Site

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: two environments: arq and saq do not work with the redis-py of the others
PEERS = ROOT / ".venv-peers" / "bin"
OLD_REDIS = ROOT / ".venv-peers-redis5" / "bin"


@dataclass(frozen=True)
class Product:
    """One contender on one broker."""

    name: str
    module: str
    python: Path
    commands: tuple[tuple[str, ...], ...]
    #: keys (Redis) or table (SQLite) of its results
    results: str
    note: str
    #: tasks per second to expect before anything is measured: sizes the first run
    guess: int = 1_000
    #: whether messages pass through a parent process that runs no task
    has_parent: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    own: bool = False
    #: what it can do beside draining and sending one at a time
    concurrent: bool = False
    #: whether it can send to RabbitMQ without waiting for confirms, and whether it waits unless told otherwise
    unconfirmed: bool = True
    confirms: bool = False

    def variables(self, site: Site, *, results: bool, **more: str) -> dict[str, str]:
        inherited = dict(os.environ)
        # make sets it for the repository's sake; who installs a package has its bytecode compiled
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        inherited.pop("VIRTUAL_ENV", None)
        # ours is measured as it stands in this checkout, wherever the environment's editable install leads
        path = [str(HERE / "apps"), *([str(ROOT / "src")] if self.own else ())]
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "BENCH_BROKER": self.url(site.broker),
            "BENCH_RESULTS": self.results_url(site.results) if results else "",
            "BENCH_TALLY": str(site.tally),
            "BENCH_FILES": str(site.folder / "files"),
            **self.environment,
            **more,
        }

    def url(self, broker: str) -> str:
        kind = self.environment.get("BENCH_TRANSPORT")
        if kind == "filesystem":
            return "filesystem://"
        return f"sqla+{broker}.broker" if kind == "sqlalchemy" else broker

    def results_url(self, results: str) -> str:
        return f"db+{results}" if "BENCH_TRANSPORT" in self.environment else results


def own(broker: str) -> Product:
    command = (sys.executable, "-m", "celeriac", "-A", "celeriac_app", "worker", "-c", "2", "-l", "ERROR")
    note = (
        "worker -c 2 (prefork), uvloop; acknowledges late and, where results are stored, after the result; everything "
        "else is its default"
    )
    results = {"redis": "celery-task-meta-*", "rabbitmq": "celery-task-meta-*", "sqlite": "result"}[broker]
    return Product(
        "celeriac", "celeriac_app", Path(sys.executable), (command,), results, note, 20_000, has_parent=True, own=True,
        concurrent=True, confirms=True,
    )  # fmt: skip


def celery(kind: str) -> Product:
    def command(*more: str) -> tuple[str, ...]:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        return (str(PEERS / "celery"), "-A", "celery_app", "worker", "-l", "ERROR", *quiet, *more)

    common = "without gossip, mingle and heartbeat; prefetch multiplier 128; early acknowledgement (its default)"
    commands: tuple[tuple[str, ...], ...]
    if kind == "prefork":
        commands, note = (command("-P", "prefork", "-c", "2"),), f"worker -P prefork -c 2, {common}"
    else:
        commands = (command("-P", "solo", "-n", "one@%h"), command("-P", "solo", "-n", "two@%h"))
        note = f"two workers -P solo, {common}"
    return Product(
        f"Celery {kind}", "celery_app", PEERS / "python", commands, "celery-task-meta-*", note,
        has_parent=kind == "prefork",
    )  # fmt: skip


def celery_embedded(kind: str) -> Product:
    base = celery("prefork")
    return Product(
        f"Celery {kind}", base.module, base.python, base.commands, "celery_taskmeta", f"{base.note}; its {kind} "
        "transport, results in SQLite", 120, has_parent=True, environment={"BENCH_TRANSPORT": kind},
    )  # fmt: skip


def dramatiq(broker: str) -> Product:
    command = (str(PEERS / "dramatiq"), "-p", "2", "-t", "8", "--skip-logging", "dramatiq_app")
    note = "2 processes of 8 threads (its defaults), dramatiq_queue_prefetch=128; results in Redis where stored"
    environment = {"dramatiq_queue_prefetch": "128"}
    return Product(
        "Dramatiq", "dramatiq_app", PEERS / "python", (command,), "dramatiq-results:*", note, 2_000,
        environment=environment,
    )  # fmt: skip


def taskiq(kind: str) -> Product:
    command = (
        str(PEERS / "taskiq"), "worker", "taskiq_app:broker", "-w", "2", "--no-configure-logging", "--no-parse",
        "--max-async-tasks", "100", "--max-prefetch", "100",
    )  # fmt: skip
    brokers = {
        "list": "ListQueueBroker (a message is gone once it is read)",
        "stream": "RedisStreamBroker (acknowledges)",
        "aio-pika": "AioPikaBroker, classic queue, prefetch 200, always confirms",
    }
    note = (
        f"{brokers[kind]}; 2 workers, 100 coroutines each, uvloop; no bulk API: gathers 200 sends; "
        "waits by looking every 0.5 ms"
    )
    return Product(
        f"TaskIQ {kind}", "taskiq_app", PEERS / "python", (command,), "taskiq-result:*", note, 3_000,
        environment={"BENCH_KIND": kind}, concurrent=True, unconfirmed=kind != "aio-pika", confirms=True,
    )  # fmt: skip


def huey(broker: str) -> Product:
    command = (str(PEERS / "huey_consumer"), "huey_app.huey", "-w", "2", "-k", "process", "-q", "-n", "-d", "0.001")
    if broker == "redis":
        note, results = (
            "RedisHuey (blocking reads), 2 processes; no bulk API; waits with notify_result",
            "hash huey.results.bench",
        )
    else:
        note, results = "SqliteHuey with fsync, 2 processes, polls every millisecond; no bulk API", "kv"
    return Product("Huey", "huey_app", PEERS / "python", (command,), results, note, 2_000)


def rq() -> Product:
    command = (
        str(PEERS / "rq"), "worker-pool", "-n", "2", "-w", "rq.worker.SimpleWorker", "-S", "json", "-q",
        "-u", "{broker}", "bench",
    )  # fmt: skip
    note = "worker-pool of 2 SimpleWorkers (no fork per job), JSON; enqueue_many in bulk; result_ttl 0 without results"
    return Product("RQ", "rq_app", PEERS / "python", (command,), "rq:results:*", note, 400)


def arq() -> Product:
    command = (str(OLD_REDIS / "arq"), "arq_app.WorkerSettings")
    note = (
        "two workers, max_jobs 100, poll_delay 1 ms, uvloop in the client; no bulk API: gathers 200 sends; waits by "
        "looking every 0.5 ms"
    )
    return Product(
        "arq", "arq_app", OLD_REDIS / "python", (command, command), "arq:result:*", note, 400, concurrent=True
    )


def saq() -> Product:
    command = (str(OLD_REDIS / "saq"), "saq_app.settings", "--workers", "2", "--quiet")
    note = (
        "2 workers, concurrency 100, uvloop in the client; no bulk API: gathers 200 sends; ttl -1 without results; "
        "waits by looking every 0.5 ms"
    )
    return Product("saq", "saq_app", OLD_REDIS / "python", (command,), "saq:job:bench:*", note, 1_000, concurrent=True)


def contenders(broker: str, *, with_peers: bool) -> list[Product]:
    found = [own(broker)]
    if not with_peers:
        return found
    if broker == "redis":
        found += [
            celery("prefork"), celery("solo"), dramatiq(broker), taskiq("list"), taskiq("stream"), huey(broker), rq(),
            arq(), saq(),
        ]  # fmt: skip
    elif broker == "rabbitmq":
        found += [celery("prefork"), celery("solo"), dramatiq(broker), taskiq("aio-pika")]
    else:
        found += [celery_embedded("sqlalchemy"), celery_embedded("filesystem"), huey(broker)]
    return [product for product in found if product.python.exists()]
