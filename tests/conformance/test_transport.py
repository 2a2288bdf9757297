"""Every transport of this repository that needs no server, against the suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drivers import transport_driver

from celeriac.testing.conformance.transport import TransportDriver, TransportSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestTransports(TransportSuite):
    @pytest.fixture(params=["sqlite", "memory", "box"])
    def driver(self, request: pytest.FixtureRequest, tmp_path: Path) -> TransportDriver:
        return transport_driver(request.param, tmp_path)
