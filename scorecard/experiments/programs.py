"""Experiments that are programs of their own: the simulation, and the enumeration of the points to be killed at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scorecard import checkers
from scorecard.experiments.catalogue import experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scorecard.lab import Lab

_ROOT = Path(__file__).resolve().parents[2]
#: processes that share the seeds
_PROCESSES = 2


def _run(lab: Lab, words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """To its end, or to the experiment's; status and what it said."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=_ROOT, env={**os.environ, **environment}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=lab.left())
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate(timeout=10.0)
        return -1, f"not done in time; {said}"
    return process.returncode, said


@experiment(29, "Killed at every step", brokers=("sqlite", "redis"), quick=300, full=900, peers=())
def crash_points(lab: Lab) -> None:
    """A process is killed before and after each step that changes something in the broker."""
    file = "test_crash_points.py" if lab.site.name == "sqlite" else "test_redis_crash_points.py"
    points = lab.size("few", "all") if lab.site.name == "redis" else "all"
    words = ["-m", "pytest", "-q", "-n", str(_PROCESSES), f"tests/system/{file}"]
    status, said = _run(lab, words, {"CELERIAC_CRASH_POINTS": points})
    lab.findings.numbers.update(points=points)
    lab.findings.add(checkers.holds("I1-I6", "kills at every step lose nothing", status == 0, said[-2000:]))


@experiment(39, "Simulation", brokers=("sqlite",), quick=120, full=1800, peers=())
def simulation(lab: Lab) -> None:
    """Whole workers over virtual time, with everything left to seeds; no broker takes part."""
    count = lab.size(500, 20_000)
    words = ["-m", "scorecard.simulation", "--corpus", "--seed", str(lab.seed * 1_000_000), "--count", str(count)]
    status, said = _run(lab, [*words, "--processes", str(_PROCESSES)], {})
    lab.findings.numbers.update(seeds=count)
    lab.findings.add(checkers.holds("I0-I13", f"{count} seeds break no invariant", status == 0, said[-2000:]))
