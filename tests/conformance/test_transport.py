"""Every transport of this repository that needs no server, against the suite."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drivers import transport_driver

from celeriac.testing.conformance.transport import TransportDriver, TransportSuite

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestTransports(TransportSuite):
    @pytest.fixture(params=["sqlite", "memory", "box"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[TransportDriver]:
        # pytest's own temporary directories have names too long for a socket beside the file
        with tempfile.TemporaryDirectory(prefix="house") as name:
            yield transport_driver(request.param, Path(name))
