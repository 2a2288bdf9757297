"""The laboratory itself works: one short experiment per broker, in its quick form, with real processes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from scorecard import report
from scorecard.experiments import CATALOGUE
from scorecard.products import CELERIAC
from scorecard.run import Runner, speaks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system
_PROGRAMS = {"redis": "redis-server", "rabbitmq": "rabbitmq-server"}


@pytest.mark.parametrize(("number", "broker"), [(2, "sqlite"), (1, "redis"), (1, "rabbitmq")])
def test_an_experiment(number: int, broker: str, tmp_path: Path) -> None:
    if broker in _PROGRAMS and shutil.which(_PROGRAMS[broker]) is None:
        pytest.skip(f"{_PROGRAMS[broker]} is not installed")
    assert speaks(CELERIAC, broker)
    [experiment] = [one for one in CATALOGUE if one.number == number]
    runner = Runner(tmp_path, quick=True, seed=7, keep=False, show=lambda _: None)
    try:
        outcome = runner.run(experiment, broker, CELERIAC)
    finally:
        runner.close()
    assert outcome.verdict == "pass", report.failures([outcome])
    report.write(tmp_path, [outcome], ["celeriac"], {"seed": 7})
    assert "| pass |" in (tmp_path / "scorecard.md").read_text()


def test_numbers_are_unique_and_every_experiment_has_a_broker() -> None:
    numbers = [one.number for one in CATALOGUE]
    assert len(set(numbers)) == len(numbers)
    assert all(set(one.brokers) <= {"sqlite", "redis", "rabbitmq"} and one.brokers for one in CATALOGUE)
