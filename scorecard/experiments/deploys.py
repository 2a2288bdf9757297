"""22: a rolling deploy: workers of this version and of an earlier one work side by side and take each other's place."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.lab import Lab
from scorecard.products import SOURCE
from scorecard.sites import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    from scorecard.fleet import Worker

#: merges that lie between this version and the earlier one, where there is no release yet
_MERGES = 50
_PATIENCE = 30.0


@experiment(22, "Rolling deploy", brokers=("sqlite", "redis", "rabbitmq"), quick=90, full=450, peers=())
def rolling_deploy(lab: Lab) -> None:
    """Four workers are restarted in turn under load: stopped, with the other version in their place, or with HUP."""
    lasts, rate = lab.size(15.0, 300.0), lab.size(100, 200)
    revision, source = _earlier(lab.folder)
    sources = {"old": source, "new": SOURCE}
    fleet = [_Member(lab, f"w{index}", sources, "old" if index % 2 else "new") for index in range(4)]
    producers = lab.produce(100_000, producers=4, rate=rate / 4, limit=10.0)
    ends, step, wrong = time.monotonic() + lasts, 0, list[str]()
    while time.monotonic() < ends:
        member = fleet[step % len(fleet)]
        wrong += member.restart() if step % 3 == 2 else member.replace()
        step += 1
        goal = lab.ended() + rate // 4
        lab.until(lambda goal=goal: lab.ended() >= goal, 30)  # type: ignore[misc]
    for producer in producers:
        producer.signal(signal.SIGTERM)
    lab.finish(producers)
    drained = lab.drain(60)
    for member in fleet:
        wrong += member.stop()
    judge(lab, at_most=0)
    lab.findings.add(
        checkers.holds("stops", "every stop and restart ends as it should", not wrong, "; ".join(wrong)),
        checkers.holds("drained", "everything is done in the end", drained),
    )
    lab.findings.numbers.update(earlier=revision[:8], restarts=step)


class _Member:
    """One place in the fleet, and the version that stands in it."""

    def __init__(self, lab: Lab, name: str, sources: dict[str, Path], version: str) -> None:
        self._lab, self._name, self._sources = lab, name, sources
        self._version = version
        self._worker = self._start()

    def _start(self) -> Worker:
        return self._lab.worker(
            f"{self._name}{self._version}", concurrency=1, source=self._sources[self._version], wait=_PATIENCE
        )  # fmt: skip

    def replace(self) -> list[str]:
        """A warm stop, and the other version."""
        self._lab.say(f"replace {self._name}")
        wrong = self.stop()
        self._version = "old" if self._version == "new" else "new"
        self._worker = self._start()
        return wrong

    def stop(self) -> list[str]:
        status = self._worker.stop(self._lab.left(_PATIENCE))
        if status is None:
            self._worker.end()
        return [] if status == 0 else [f"{self._worker.name}: status {status} after TERM"]

    def restart(self) -> list[str]:
        """SIGHUP: the same process and version."""
        self._lab.say(f"restart {self._name}")
        worker, before = self._worker, self._worker.started()
        worker.signal(signal.SIGHUP)
        done = self._lab.until(lambda: worker.started() > before or worker.status is not None, _PATIENCE)
        if done and worker.status is None:
            return []
        wrong = [f"{worker.name}: status {worker.status} after HUP"]
        worker.end()
        self._worker = self._start()
        return wrong


def _earlier(folder: Path) -> tuple[str, Path]:
    """An earlier version from the repository's history: what LAB_PREVIOUS names, else the latest release, else some
    merges ago. Its commit, and where its source lies."""
    revision = os.environ.get("LAB_PREVIOUS") or _git("describe", "--tags", "--abbrev=0").strip()
    if not revision:
        merges = _git("rev-list", "--merges", f"--max-count={_MERGES}", "HEAD").split()
        revision = merges[-1] if len(merges) == _MERGES else ""
    commit = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip() if revision else ""
    if not commit:
        raise Unsupported("NOT CHECKED: there is no git history with an earlier version (LAB_PREVIOUS names one)")
    done = subprocess.run(
        ["git", "archive", commit, "src"], cwd=SOURCE.parent, capture_output=True, check=True, timeout=60.0
    )
    place = folder / "earlier"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place, filter="data")
    return commit, place / "src"


def _git(*words: str) -> str:
    """What git says; nothing where there is no git, no repository, or no such thing."""
    try:
        done = subprocess.run(["git", *words], cwd=SOURCE.parent, capture_output=True, text=True, timeout=60.0)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
