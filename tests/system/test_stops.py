"""A worker of each pool, stopped under load in each way there is. Long form: experiments 51 to 56 of the scorecard."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from scorecard.experiments.stops import POOLS, stop_and_judge
from scorecard.lab import Lab
from scorecard.products import CELERIAC
from scorecard.sites import SqliteSite

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.mark.parametrize("pool", POOLS)
def test_stops_lose_nothing_and_double_nothing_but_what_was_cut(pool: str, tmp_path: Path) -> None:
    if pool in ("gevent", "eventlet") and find_spec(pool) is None:
        pytest.skip(f"{pool} is not installed")
    seed = POOLS.index(pool)
    quit_grace = ("cold", 0.0) if seed % 2 else ("soft", 10.0)
    lab = Lab(tmp_path, CELERIAC, SqliteSite(tmp_path), seed=seed, quick=True, deadline=150.0)
    with closing(lab):
        stops = ["restart", "QUIT"]
        lab.dice.shuffle(stops)
        stop_and_judge(lab, pool, [quit_grace], stops)
    assert lab.findings.ok, "\n".join(map(str, lab.findings.checks))
