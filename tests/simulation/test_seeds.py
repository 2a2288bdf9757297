"""Whole workers over virtual time: whatever a seed does to them, no invariant breaks; the same seed, the same run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scorecard.simulation.seeds import CORPUS, corpus, examine

#: of the seeds that are run with every ``make test``; the scorecard runs 20,000
CHUNK, CHUNKS = 15, 8


def check(seed: int) -> None:
    finding = examine(seed)
    assert finding.error is None, f"seed {seed}: {finding.text}"
    assert finding.calls > 0


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_invariant_breaks(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        check(seed)


def test_what_once_failed_does_not_fail_again() -> None:
    assert corpus(), CORPUS
    for seed in corpus():
        check(seed)


def test_the_same_seed_makes_the_same_run() -> None:
    for seed in (3, 4, 36, 86):
        assert examine(seed).fingerprint == examine(seed).fingerprint
    assert examine(3).fingerprint != examine(4).fingerprint


def test_the_same_seed_makes_the_same_run_in_another_process() -> None:
    program = "from scorecard.simulation.seeds import examine; print([examine(n).fingerprint for n in range(30, 40)])"
    path = os.pathsep.join(["src", ".", os.environ.get("PYTHONPATH", "")])
    told = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1
