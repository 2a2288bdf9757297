"""One experiment's workbench: its folder, its broker behind a proxy, its fleet, what it sent, and what became of it.

Every wait here ends at the experiment's deadline with :class:`OutOfTime`.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.testing.proxy import FaultProxy
from scorecard import checkers
from scorecard.fleet import Helper, Worker, until
from scorecard.history import Event, History, events_of
from scorecard.products import APPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from scorecard.checkers import Check
    from scorecard.products import Product
    from scorecard.sites import Site

_HOST = "127.0.0.1"
#: seconds without a start or an end after which the store is asked about what is missing
_STILL = 2.0


class OutOfTime(Exception):
    """The experiment's deadline is over."""


class Findings:
    """What an experiment has to say: checks, and numbers for the table."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.numbers: dict[str, Any] = {}

    def add(self, *checks: Check) -> None:
        self.checks += checks

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


class Lab:
    """See the module. ``quick``: the short form of the experiment."""

    def __init__(
        self, folder: Path, product: Product, site: Site, *, seed: int, quick: bool, deadline: float,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.product = product
        self.site = site
        self.seed = seed
        self.quick = quick
        self.dice = random.Random(seed)
        self.say = say
        self.findings = Findings()
        self.settings: dict[str, Any] = {**product.settings, **site.settings}
        self.store_url = site.store_url(product)
        #: where the processes that are started next find the broker
        self.broker_url: Callable[[Product], str] = site.broker_url
        #: a command that the helpers which are started next run under
        self.under: list[str] = []
        self._ends = time.monotonic() + deadline
        self._history = folder / "history"
        self._history.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(self._history / "lab.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._helpers: list[Helper] = []
        self._reader: _Reader | None = None
        self._proxy: FaultProxy | None = None
        self._elsewhere = ""
        self._tails: dict[Path, int] = {}
        self._accepted: set[str] = set()
        self._ended: set[str] = set()
        self._started = 0
        self._produced = 0

    # ── time and chance ─────────────────────────────────────────────────────────────────────────────────────────

    def size(self, quick: Any, full: Any) -> Any:
        """A figure of the procedure, in its short and its full form."""
        return quick if self.quick else full

    def left(self, at_most: float = float("inf")) -> float:
        """Seconds that may still be waited."""
        left = min(at_most, self._ends - time.monotonic())
        if left <= 0:
            raise OutOfTime
        return left

    def pause(self, seconds: float) -> None:
        """Let things happen for so long."""
        time.sleep(self.left(seconds))

    def until(self, condition: Callable[[], object], timeout: float) -> bool:
        """Whether it came true within ``timeout``."""
        if until(condition, self.left(timeout)):
            return True
        self.left()
        return False

    # ── writing history ─────────────────────────────────────────────────────────────────────────────────────────

    def note(self, kind: str, **facts: Any) -> None:
        event = Event(t=time.monotonic(), wall=time.time(), proc="lab", pid=os.getpid(), kind=kind, **facts)
        os.write(self._journal, msgspec.json.encode(event) + b"\n")

    def sample(self, proc: str, state: str, value: dict[str, float]) -> None:
        """Write down what a process or a broker holds now; see ``baseline.py``."""
        event = Event(t=time.monotonic(), wall=time.time(), proc=proc, kind="sample", state=state, value=value)
        os.write(self._journal, msgspec.json.encode(event) + b"\n")

    def strike(self, what: str, procs: Sequence[str] = (), pids: Iterable[int] = ()) -> None:
        """Write down a fault that begins (or happens) now."""
        self.say(what)
        self.note("fault", what=what, procs=list(procs), pids=list(pids))

    def heal(self, what: str) -> None:
        self.note("heal", what=what)

    def history(self) -> History:
        return History.read(self._history)

    def history_of(self, *kinds: str) -> History:
        """Only events of these kinds."""
        return History(self.history().of(*kinds))

    def progress(self) -> None:
        """Read what has been added to the history since the last look."""
        for path in self._history.glob("*.jsonl"):
            begin = self._tails.get(path, 0)
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            self._tails[path] = begin + len(data)
            for event in events_of(data):
                match event.kind:
                    case "ok":
                        self._accepted.add(event.id)
                    case "end":
                        self._ended.add(event.id)
                    case "start":
                        self._started += 1
                    case "produced":
                        self._produced += 1

    def started(self) -> int:
        """How many runs have begun."""
        self.progress()
        return self._started

    def ended(self) -> int:
        """How many tasks have run to an end."""
        self.progress()
        return len(self._ended)

    def accepted(self) -> int:
        """How many were accepted."""
        self.progress()
        return len(self._accepted)

    # ── the fleet ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def proxy(self) -> FaultProxy:
        """Stands before the broker; made at its first use."""
        if self._proxy is None:
            assert self.site.port is not None, f"{self.site.name} has no port to stand before"
            self._proxy = FaultProxy(_HOST, self.site.port, seed=self.seed)
            self._proxy.start()
        return self._proxy

    def environment(self, through: FaultProxy | None = None, **settings: Any) -> dict[str, str]:
        """``through``: the broker is reached by this proxy (results are not)."""
        url = self._elsewhere or self.broker_url(self.product)
        return {
            **self.product.environment(),
            "LAB_BROKER": through.url(url) if through else url,
            "LAB_BACKEND": self.store_url,
            "LAB_SETTINGS": json.dumps({**self.settings, **settings}),
            "LAB_HISTORY": str(self._history),
        }

    def point_at(self, port: int | None) -> None:
        """What is started from now on takes this port for the broker's; None: the broker itself."""
        site = self.site.broker_url(self.product)
        self._elsewhere = "" if port is None else site.replace(f":{self.site.port}/", f":{port}/")

    def worker(
        self, name: str = "w1", *, concurrency: int = 2, pool: str = "prefork", queues: str = "",
        through: FaultProxy | None = None, wait: float = 20.0, more: tuple[str, ...] = (),
        source: Path | None = None, **settings: Any,
    ) -> Worker:  # fmt: skip
        """Start one, and wait until it is ready (0: don't). ``source``: of another version of the product."""
        product = msgspec.structs.replace(self.product, source=source) if source else self.product
        command = product.worker_command(name, concurrency, pool, queues, more)
        environment = {**self.environment(through, **settings), **product.search_path()}
        worker = Worker(name, command, environment, self.folder)
        self._helpers.append(worker)
        self.start(worker, wait)
        return worker

    def start(self, worker: Worker, wait: float = 20.0) -> None:
        """Start it, or another one in its place."""
        before = worker.started()
        worker.start()
        self.note("worker", what="started", procs=[worker.name], pids=[worker.pid])
        if wait and not self.until(lambda: worker.started() > before or worker.status is not None, wait):
            raise RuntimeError(f"{worker.name} is not ready:\n{worker.words()[-2000:]}")
        if wait and worker.status is not None:
            raise RuntimeError(f"{worker.name} ended with {worker.status}:\n{worker.words()[-2000:]}")

    def helper(self, name: str, script: str, *arguments: str, through: FaultProxy | None = None) -> Helper:
        """One of the scripts in ``apps``, in the product's interpreter."""
        command = [*self.under, self.product.python, str(APPS / script), *arguments]
        helper = Helper(name, command, self.environment(through), self.folder)
        self._helpers.append(helper)
        helper.start()
        return helper

    def produce(
        self, count: int, *, task: str = "lab.mark", producers: int = 1, through: FaultProxy | None = None,
        **plan: Any,
    ) -> list[Helper]:  # fmt: skip
        """Start publishing ``count`` tasks; see ``apps/produce.py`` for what a plan may hold."""
        found = []
        for index in range(producers):
            share = count // producers + (index < count % producers)
            number = len(self._helpers)
            whole = {"seed": self.seed * 1000 + number, "count": share, "first": number * 100_000, "task": task, **plan}
            found.append(self.helper(f"p{number}", "produce.py", json.dumps(whole), through=through))
        return found

    def send(self, count: int, **plan: Any) -> None:
        """Publish, and wait until it is done."""
        self.finish(self.produce(count, **plan))

    def finish(self, producers: Iterable[Helper]) -> None:
        for producer in producers:
            status = producer.wait(self.left())
            self.left()
            if status != 0:
                raise RuntimeError(f"{producer.name} ended with {status}:\n{producer.words()[-2000:]}")

    def inject(self, messages: Sequence[dict[str, Any]], queue: str = "celery") -> None:
        """Publish raw bodies and headers; see ``apps/inject.py``."""
        lines = "".join(json.dumps(message) + "\n" for message in messages)
        done = subprocess.run(
            [self.product.python, str(APPS / "inject.py")], input=lines, text=True, capture_output=True,
            env={**self.environment(), "LAB_QUEUE": queue}, cwd=self.folder, timeout=self.left(60.0),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"inject: {done.stderr[-2000:]}")

    # ── the nemesis ─────────────────────────────────────────────────────────────────────────────────────────────

    def kill_parent(self, worker: Worker) -> list[int]:
        """``kill -9`` a worker's parent and start another in its place; the pids of the dead."""
        family = [worker.pid, *worker.children()]
        self.strike("kill -9 worker", pids=family)
        worker.kill()
        return family

    def sample_depth(self) -> None:
        """Write down how much the broker still has."""
        began = time.monotonic()
        count = self.site.outstanding()
        if count is not None:
            self.note("depth", count=count, seconds=time.monotonic() - began + self.site.staleness)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def drain(self, timeout: float, *, stored: bool = True) -> bool:
        """Wait until everything accepted has an end, and read all results; whether it came to that in time."""
        ends = time.monotonic() + self.left(timeout)
        moved, before = time.monotonic(), (-1, -1)
        while True:
            missing = self._unended()
            now = time.monotonic()
            if (self._started, len(missing)) != before:
                moved, before = now, (self._started, len(missing))
            # what fails never comes to its end: when nothing moves, the store is asked
            if missing and stored and now - moved > _STILL:
                missing = self._not_terminal(missing)
                moved = time.monotonic()
            if not missing or now > ends:
                break
            time.sleep(0.05)
        return self._read_all(ends) if stored else not missing

    def _unended(self) -> list[str]:
        self.progress()
        return sorted(self._accepted - self._ended)

    def _not_terminal(self, ids: list[str]) -> list[str]:
        states = self._states(ids)
        return [id_ for id_ in ids if states[id_][0] not in checkers.TERMINAL]

    def _states(self, ids: list[str]) -> dict[str, list[Any]]:
        if self._reader is None:
            self._reader = _Reader(self)
        return self._reader.read(ids)

    def _read_all(self, ends: float) -> bool:
        """Into the history, once each; what has just ended gets until ``ends`` to be stored."""
        missing = sorted(self._accepted)
        while True:
            states = self._states(missing)
            late = [id_ for id_ in missing if states[id_][0] not in checkers.TERMINAL]
            is_over = time.monotonic() > ends
            for id_ in missing if is_over else set(missing) - set(late):
                state, value = states[id_]
                self.note("result", id=id_, state=state, value=value)
            if not late or is_over:
                return not late
            missing = late
            time.sleep(0.2)

    def close(self) -> None:
        """End whatever was started here, and the broker with it."""
        if self._reader is not None:
            self._reader.close()
        for helper in self._helpers:
            helper.end()
        if self._proxy is not None:
            self._proxy.stop()
        self.site.close()
        os.close(self._journal)


class _Reader:
    """A process that reads results with the product's own API."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._log = (lab.folder / "reader.log").open("ab")
        self._process = subprocess.Popen(
            [lab.product.python, str(APPS / "read_results.py")], env=lab.environment(), cwd=lab.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def read(self, ids: list[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for begin in range(0, len(ids), 200):
            found.update(self._ask(ids[begin : begin + 200]))
        return found

    def _ask(self, ids: list[str]) -> dict[str, list[Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(ids).encode() + b"\n")
        self._process.stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], self._lab.left(30.0))
            data = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise RuntimeError("the reader of results does not answer; see reader.log")
            answer += data
        found: dict[str, list[Any]] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()
