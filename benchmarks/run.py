"""Measures celeriac and its peers on the embedded database, side by side in one run: ``make bench``.

Every figure is the median of several runs; only the ratios carry over to another machine. The raw limit of the
disk (one fsynced commit per message) is measured in the same run. Prints tables and writes benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
console = Console(width=120)


@dataclass
class Product:
    """One contender: how its worker is started and how finished tasks are counted."""

    name: str
    module: str
    python: str
    worker: list[str]
    count_sql: str
    env: dict[str, str] = field(default_factory=dict)
    #: whether messages pass through the worker's parent process (Huey's children read the queue themselves)
    has_parent: bool = True
    #: how many messages a run gets, as a share of celeriac's (the peers are slower)
    share: float = 1.0

    def environment(self, file: Path) -> dict[str, str]:
        inherited = dict(os.environ)
        # make sets it for the repository's sake; who installs a package has its bytecode compiled
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **inherited,
            "BENCH_FILE": str(file),
            "PYTHONPATH": os.pathsep.join([str(HERE / "apps"), os.environ.get("PYTHONPATH", "")]),
            **self.env,
        }

    def client(self, file: Path, *arguments: str) -> dict[str, float]:
        done = subprocess.run(
            [self.python, str(HERE / "client.py"), self.module, *arguments],
            env=self.environment(file), capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name} client failed: {done.stderr[-2000:]}")
        answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer

    def finished(self, file: Path) -> int:
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
                return int(connection.execute(self.count_sql).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def products() -> list[Product]:
    own = sys.executable
    peers = str(PEERS_PYTHON)
    celery = [peers, "-m", "celery", "-A", "celery_app", "worker", "-c", "2", "-l", "ERROR"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    found = [
        Product(
            "celeriac", "celeriac", own, [own, "-m", "celeriac", "-A", "celeriac_app", "worker", "-c", "2"],
            "select count(*) from result",
        )
    ]  # fmt: skip
    if PEERS_PYTHON.exists():
        count = "select count(*) from celery_taskmeta"
        found += [
            Product("Celery 5.7, SQLAlchemy", "celery", peers, celery + quiet, count, share=0.01),
            Product(
                "Celery 5.7, filesystem", "celery", peers, celery + quiet, count,
                env={"BENCH_TRANSPORT": "filesystem"}, share=0.02,
            ),
            Product(
                "Huey, SQLite", "huey", peers,
                [f"{PEERS_PYTHON.parent}/huey_consumer", "huey_app.huey", "-w", "2", "-k", "process", "-d", "0.001"],
                "select count(*) from kv", share=0.05, has_parent=False,
            ),
        ]  # fmt: skip
    return found


@contextmanager
def worker(product: Product, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    with words_of(file).open("wb") as words:  # a file: a pipe that nobody reads would fill up and stop the worker
        process = subprocess.Popen(
            product.worker, env=product.environment(file), cwd=HERE / "apps",
            stdout=subprocess.DEVNULL, stderr=words, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def words_of(file: Path) -> Path:
    return file.with_name("worker-stderr")


def cpu_seconds(pid: int, *, main_thread: bool = False) -> float:
    """Of the process, or of its main thread alone: there celeriac's loop runs, and its database has other threads."""
    stat = Path(f"/proc/{pid}/task/{pid}/stat" if main_thread else f"/proc/{pid}/stat")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory figure for process {pid}")


@contextmanager
def workspace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="celeriac-bench-"))
    try:
        yield folder / "bench.sqlite3"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def drain(product: Product, count: int, backlog: int = 0) -> dict[str, float]:
    """Rate over the last 90 % of the tasks, so that the worker's start is not in it."""
    with workspace() as file:
        if backlog:
            product.client(file, "bulk", str(backlog))
        product.client(file, "bulk", str(count))
        with worker(product, file) as process:
            first = watch(product, file, max(1, count // 10), process)
            cpu, loop = cpu_seconds(process.pid), cpu_seconds(process.pid, main_thread=True)
            last = watch(product, file, count, process)
            cpu, loop = cpu_seconds(process.pid) - cpu, cpu_seconds(process.pid, main_thread=True) - loop
            done = last[1] - first[1]
            rate = done / (last[0] - first[0])
            return {"rate": rate, "parent_us": cpu / done * 1e6, "loop_us": loop / done * 1e6}


def last_words(file: Path) -> str:
    return words_of(file).read_text("utf-8", errors="replace")[-2000:]


def watch(product: Product, file: Path, goal: int, process: subprocess.Popen[bytes]) -> tuple[float, int]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        done = product.finished(file)
        if done >= goal:
            return time.perf_counter(), done
        if process.poll() is not None:
            raise RuntimeError(f"{product.name} worker ended: {last_words(file)}")
        time.sleep(0.02)
    raise RuntimeError(f"{product.name}: {product.finished(file)} of {goal} tasks after 300 s")


def send_rate(product: Product, how: str, count: int) -> float:
    with workspace() as file:
        return count / product.client(file, how, str(count))["seconds"]


def round_trip(product: Product, count: int) -> dict[str, float]:
    with workspace() as file, worker(product, file):
        return product.client(file, "roundtrip", str(count))


def idle_memory(product: Product) -> float:
    with workspace() as file:
        product.client(file, "delay", "1")
        with worker(product, file) as process:
            watch(product, file, 2, process)
            time.sleep(1)
            return memory_mib(process.pid)


def import_ms(python: str, code: str, env: dict[str, str]) -> float:
    def once(text: str) -> float:
        start = time.perf_counter()
        # with pipes to read, the end is seen at once; a bare wait with a deadline looks only every 50 ms
        subprocess.run([python, "-c", text], env=env, check=True, timeout=60, capture_output=True)
        return time.perf_counter() - start

    once(code)  # compiles the bytecode
    pairs = [(once(code), once("pass")) for _ in range(15)]  # in turn, so that other load falls on both
    return (statistics.median(full for full, _ in pairs) - statistics.median(bare for _, bare in pairs)) * 1000


def fsync_limit() -> float:
    """Commits per second of one row each, fsynced: what no durable one-by-one sender on this disk can beat.

    The log is filled before: commits that overwrite it are about twice as quick as those that make it longer.
    """
    with workspace() as file, closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t(id integer primary key, b blob)")
        connection.execute("pragma synchronous=off")
        connection.execute("pragma wal_autocheckpoint=5000")
        for _ in range(5000):
            connection.execute("insert into t(b) values(?)", (b"x" * 400,))
        connection.execute("pragma wal_checkpoint(restart)").fetchall()
        connection.execute("pragma synchronous=full")
        start = time.perf_counter()
        for _ in range(2000):
            connection.execute("begin immediate")
            connection.execute("insert into t(b) values(?)", (b"x" * 400,))
            connection.execute("commit")
        return 2000 / (time.perf_counter() - start)


def median_of(runs: int, measure: Callable[[], Any]) -> Any:
    values = [measure() for _ in range(runs)]
    if isinstance(values[0], dict):
        return {key: statistics.median(value[key] for value in values) for key in values[0]}
    return statistics.median(values)


class Report:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, product: str, value: float, unit: str, goal: str = "") -> None:
        self.rows.append({"what": what, "product": product, "value": value, "unit": unit, "goal": goal})
        console.print(f"  {what:<34} {product:<24} {value:>12,.2f} {unit}")

    def show(self) -> None:
        table = Table("figure", "product", "median", "unit", "celeriac is", "to reach", title="celeriac and its peers")
        base = {row["what"]: row["value"] for row in self.rows if row["product"] == "celeriac"}
        for row in self.rows:
            ratio = ""
            if row["product"] != "celeriac" and row["what"] in base and row["value"]:
                own = base[row["what"]]
                better = own / row["value"] if row["unit"].endswith("/s") else row["value"] / own
                ratio = f"{better:,.1f} × better"
            table.add_row(row["what"], row["product"], f"{row['value']:,.2f}", row["unit"], ratio, row["goal"])
        console.print(table)

    def save(self) -> None:
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        file = folder / time.strftime("sqlite-%Y%m%d-%H%M%S.json")
        about = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
        about["sqlite"] = sqlite3.sqlite_version
        file.write_text(json.dumps({"about": about, "rows": self.rows}, indent=1))
        console.print(f"written: {file.relative_to(ROOT)}")


def measure_all(arguments: argparse.Namespace) -> Report:
    report = Report()
    runs = arguments.runs
    contenders = products()[:1] if arguments.own else products()
    own = contenders[0]
    scale = arguments.scale
    wanted = arguments.only.split(",") if arguments.only else ["send", "drain", "roundtrip", "million", "start"]
    if "send" in wanted:
        report.add("fsynced commits (the disk's limit)", "sqlite3", median_of(runs, fsync_limit), "commits/s")
        for product in contenders:
            count = max(200, int(100_000 * scale * product.share))
            rate = median_of(runs, lambda p=product, n=count: send_rate(p, "bulk", n))
            report.add("bulk send", product.name, rate, "tasks/s", "≥ 50,000" if product is own else "")
            count = max(200, int(5_000 * scale * min(1.0, product.share * 5)))
            rate = median_of(runs, lambda p=product, n=count: send_rate(p, "delay", n))
            report.add("delay() one at a time", product.name, rate, "tasks/s", "≥ 3,000" if product is own else "")
    if "drain" in wanted:
        for product in contenders:
            count = max(200, int(60_000 * scale * product.share))
            figures = median_of(runs, lambda p=product, n=count: drain(p, n))
            mine = product is own
            report.add("drain, results stored", product.name, figures["rate"], "tasks/s", "≥ 10,000" if mine else "")
            if product.has_parent:
                report.add("parent CPU", product.name, figures["parent_us"], "µs/task", "≤ 15" if mine else "")
            if mine:
                report.add("parent CPU, loop without SQLite", product.name, figures["loop_us"], "µs/task")
    if "roundtrip" in wanted:
        for product in contenders:
            # Celery looks for results on these stores about once a second
            count = max(15, int(1_000 * scale * (1.0 if product.share >= 0.05 else 0.015)))
            figures = median_of(runs, lambda p=product, n=count: round_trip(p, n))
            mine = product is own
            report.add("round trip p50", product.name, figures["p50"] * 1000, "ms", "< 2" if mine else "")
            report.add("round trip p99", product.name, figures["p99"] * 1000, "ms", "< 10" if mine else "")
    if "million" in wanted:
        million(report, own, int(1_000_000 * scale), min(runs, 3))
    if "start" in wanted:
        starts(report, contenders)
    return report


def million(report: Report, own: Product, backlog: int, runs: int) -> None:
    """Send and drain on top of a million waiting tasks, against the same on an empty file."""
    sends, drains = [], []
    for _ in range(runs):
        with workspace() as file:
            own.client(file, "bulk", str(backlog))
            sends.append(20_000 / own.client(file, "bulk", "20000")["seconds"])
            with worker(own, file) as process:
                first = watch(own, file, 5_000, process)
                last = watch(own, file, 40_000, process)
                drains.append((last[1] - first[1]) / (last[0] - first[0]))
    empty_send = median_of(runs, lambda: send_rate(own, "bulk", 20_000))
    empty_drain = median_of(runs, lambda: drain(own, 40_000))["rate"]
    report.add("bulk send, 1 M tasks waiting", "celeriac", statistics.median(sends), "tasks/s")
    report.add("bulk send, same size, empty", "celeriac", empty_send, "tasks/s")
    report.add(
        "slower with 1 M waiting: send", "celeriac", (1 - statistics.median(sends) / empty_send) * 100, "%", "≤ 20"
    )
    report.add("drain, 1 M tasks waiting", "celeriac", statistics.median(drains), "tasks/s")
    report.add("drain, same size, empty", "celeriac", empty_drain, "tasks/s")
    report.add(
        "slower with 1 M waiting: drain", "celeriac", (1 - statistics.median(drains) / empty_drain) * 100, "%", "≤ 20"
    )


def starts(report: Report, contenders: list[Product]) -> None:
    with workspace() as file:
        for product in contenders:
            mine = product.name == "celeriac"
            env = product.environment(file)
            took = import_ms(product.python, f"import {product.module}_app", env)
            report.add("import and one task", product.name, took, "ms", "< 60" if mine else "")
    for product in contenders:
        mine = product.name == "celeriac"
        report.add("idle worker's parent", product.name, idle_memory(product), "MiB", "< 45" if mine else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs per figure; the median is shown (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of tasks (default 1)")
    parser.add_argument("--only", default="", help="comma list of send,drain,roundtrip,million,start")
    parser.add_argument("--own", action="store_true", help="leave the peers out")
    arguments = parser.parse_args()
    if not PEERS_PYTHON.exists() and not arguments.own:
        console.print("[bold]the peers are not installed (make bench installs them); measuring celeriac alone[/bold]")
    report = measure_all(arguments)
    report.show()
    report.save()


if __name__ == "__main__":
    main()
