"""What one worker had fetched while tasks were short is run by others when it is busy with long ones."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

    from celeriac.testing.servers import RabbitServer, RedisServer

pytestmark = pytest.mark.system

_numbers = count(1)


def others_run_what_waits(house: House) -> None:
    first = house.worker("-c", "2")
    house.python("add.delay_many((n, n) for n in range(4_000)); [mark.delay(n, seconds=120.0) for n in range(12)]")
    house.until(lambda: len(house.notes("start")) == 2, what="long tasks run")
    second = house.worker("-c", "4")
    house.until(lambda: len(house.notes("start")) == 6, what="the other worker runs what waits")
    assert not house.notes("end")
    first.kill()
    second.kill()


def test_embedded(house: House) -> None:
    others_run_what_waits(house)


def test_redis(house: House, redis_server: RedisServer) -> None:
    house.extra["HOUSE_BROKER"] = redis_server.url(9)
    others_run_what_waits(house)


def test_rabbit(house: House, rabbit_server: RabbitServer) -> None:
    house.extra["HOUSE_BROKER"] = rabbit_server.add_vhost(f"hoarding{next(_numbers)}")
    house.extra["HOUSE_RESULTS"] = f"sqlite:///{house.file}"
    others_run_what_waits(house)
