"""Makes ``drivers`` importable, as test directories are no packages; a Redis with a database for each test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celeriac.testing.servers import RedisServer, ServerMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis of the module's own: a database for each of its tests."""
    try:
        started = RedisServer("--databases", "64")
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with started:
        yield started
