"""Every result store of this repository that needs no server, against the suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drivers import result_driver

from celeriac.testing.conformance.results import ResultDriver, ResultSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestResults(ResultSuite):
    @pytest.fixture(params=["sqlite", "memory", "key_value"])
    def driver(self, request: pytest.FixtureRequest, tmp_path: Path) -> ResultDriver:
        return result_driver(request.param, tmp_path)
