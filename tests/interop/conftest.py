"""Real brokers, a real Celery and a celeriac beside it: what the tests of this folder are given."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import CELERY, CELERY_PYTHON, OURS, Place, Servers, missing

from celeriac.testing.servers import ServerMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: (who sends, who runs). With INTEROP_PARTIES=celery Celery takes both parts: a test that fails then is wrong itself.
DIRECTIONS = [(CELERY, OURS), (OURS, CELERY)]
if os.environ.get("INTEROP_PARTIES") == CELERY:
    DIRECTIONS = [(CELERY, CELERY)]
#: the parties of a fleet of two workers
MIXED = DIRECTIONS[0]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("fleets"))
    yield made
    made.end()


def require(broker: str, *sides: str) -> None:
    """Skip, loudly, what this machine or this state of the project cannot do."""
    if not CELERY_PYTHON:
        pytest.skip("CELERIAC_INTEROP_PYTHON is not set: a fleet of Celery and celeriac is NOT tested")
    reason = missing(broker) if OURS in sides else None
    if reason:
        pytest.skip(reason)


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DIRECTIONS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def direction(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Who sends, who runs."""
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def fleet(servers: Servers, broker: str, direction: tuple[str, str]) -> Place:
    """A place of the session where the second of ``direction`` runs a worker."""
    require(broker, *direction)
    try:
        return servers.fleet(broker, direction[1])
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def both(servers: Servers, broker: str) -> Place:
    """A place of the session where each party runs a worker on the same queues."""
    require(broker, *MIXED)
    try:
        return servers.fleet(broker, *MIXED)
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def apart(servers: Servers, broker: str, direction: tuple[str, str]) -> Place:
    """A place of the session where each party has a queue of its own: the first of ``direction`` reads ``here``, the
    second ``there``."""
    require(broker, *direction)
    try:
        return servers.fleet(broker, *direction, queues=("here", "there"))
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def place(servers: Servers, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place for this test alone: ``place("redis", "celery", …parties)`` with settings as keywords."""
    made: list[Place] = []

    def make(broker: str, *sides: str, **settings: object) -> Place:
        require(broker, *sides)
        try:
            made.append(Place(servers, broker, tmp_path / f"place{len(made)}", settings))
        except ServerMissing as error:
            pytest.skip(f"{error}: a fleet on {broker} is NOT tested")
        return made[-1]

    yield make
    for each in made:
        each.end()
