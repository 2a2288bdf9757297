"""17: what was accepted is on the disk, and not only on its way there."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scorecard import baseline, checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.history import History
from scorecard.lab import Lab
from scorecard.sites import RedisSite
from scorecard.tracing import strace, traced

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


@experiment(17, "fsync honesty", brokers=("sqlite", "redis"), quick=45, full=120, redis_options=_ALWAYS, peers=())
def fsync_honesty(lab: Lab) -> None:
    """Whoever writes is traced: each publish is written, then synced, and only then accepted."""
    tasks = lab.size(200, 2000)
    prefix = lab.folder / "trace"
    if isinstance(lab.site, RedisSite):
        kept = "appendonly"
        with _watched(lab, lab.site.server_pid):
            lab.send(tasks, producers=4, limit=10.0)
    else:
        kept = "lab.sqlite3"
        lab.under = strace(prefix, "-f", "--seccomp-bpf")
        lab.send(tasks, producers=4, limit=20.0)
        lab.under = []
    lab.worker(concurrency=2)
    lab.drain(lab.size(20, 60))
    history = judge(lab)
    seen = list(traced(lab.folder.glob("trace.*"), kept))
    syncs = sum(event.kind == "sync" for event in seen)
    lab.findings.add(
        baseline.synced_before_ok(History([*history.events, *seen])),
        checkers.holds("traced", "the writer was seen", syncs > 0, f"{syncs} syncs"),
    )
    lab.findings.numbers.update(publishes=tasks, syncs=syncs)


@contextmanager
def _watched(lab: Lab, pid: int) -> Iterator[None]:
    """Trace a process that runs already."""
    log = lab.folder / "strace.log"
    with log.open("wb") as file:
        command = strace(lab.folder / "trace", "-p", str(pid))
        command.remove("-qq")  # so that it says when it is there
        watcher = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        if not lab.until(lambda: "attached" in log.read_text() or watcher.poll() is not None, 20):
            raise RuntimeError("strace does not begin")
        if watcher.poll() is not None:
            raise RuntimeError(f"strace: {log.read_text()}")
        yield
    finally:
        watcher.terminate()
        watcher.wait(10)
