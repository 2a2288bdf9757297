"""Every result store of this repository that needs no server, against the suite."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drivers import result_driver

from celeriac.testing.conformance.results import ResultDriver, ResultSuite

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestResults(ResultSuite):
    @pytest.fixture(params=["sqlite", "memory", "key_value"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[ResultDriver]:
        # pytest's own temporary directories have names too long for a socket beside the file
        with tempfile.TemporaryDirectory(prefix="house") as name:
            yield result_driver(request.param, Path(name))
