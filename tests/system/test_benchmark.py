"""The benchmark still runs: a very short look at celeriac alone, from the command line to the files it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=110, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_names_its_rows() -> None:
    names = bench("--list").split()
    assert {"redis.drain", "rabbitmq.delay-confirmed", "sqlite.million", "redis.stages"} <= set(names)


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_a_short_look(broker: str) -> None:
    if broker == "redis" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    rows = f"{broker}.drain-results,{broker}.delay,{broker}.roundtrip,{broker}.stages"
    shown = bench("--own", "--scale", "0.02", "--runs", "1", "--only", rows)
    written = ROOT / f"{shown.partition('written: ')[2].split()[0].removesuffix('.md')}.json"
    document = json.loads(written.read_text())
    for ending in (".json", ".md"):
        written.with_suffix(ending).unlink()
    assert "failed" not in shown
    for figure in document["figures"]:
        assert figure["median"] > 0
        assert not figure["note"]
    assert len(document["stages"][broker]) > 10
