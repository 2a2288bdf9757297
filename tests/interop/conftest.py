"""Real brokers, a real Celery and a celeriac beside it: what the tests of this folder are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import DIRECTIONS, MIXED, Place, Servers, require_celery

from celeriac.testing.servers import ServerMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("fleets"))
    yield made
    made.end()


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
    require_celery()
    try:
        return servers.fleet(broker, direction[1])
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def both(servers: Servers, broker: str) -> Place:
    """A place of the session where each party runs a worker on the same queues."""
    require_celery()
    try:
        return servers.fleet(broker, *MIXED)
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def apart(servers: Servers, broker: str, direction: tuple[str, str]) -> Place:
    """A place of the session where each party has a queue of its own: the first of ``direction`` reads ``here``, the
    second ``there``."""
    require_celery()
    try:
        return servers.fleet(broker, *direction, queues=("here", "there"))
    except ServerMissing as error:
        pytest.skip(f"{error}: a fleet on {broker} is NOT tested")


@pytest.fixture
def place(servers: Servers, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place for this test alone: ``place("redis")``, with settings as keywords (parties: for the reader)."""
    made: list[Place] = []

    def make(broker: str, *_parties: str, **settings: object) -> Place:
        require_celery()
        try:
            made.append(Place(servers, broker, tmp_path / f"place{len(made)}", settings))
        except ServerMissing as error:
            pytest.skip(f"{error}: a fleet on {broker} is NOT tested")
        return made[-1]

    yield make
    for each in made:
        each.end()
