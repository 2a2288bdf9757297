from __future__ import annotations

from typing import Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.transports.base import QueueSpec
from celeriac.transports.memory import MemoryTransport
from celeriac.worker.assembly import store_url, transport_url
from celeriac.worker.banner import banner
from celeriac.worker.options import Plan, WorkerOptions, plan, usable_processors

QUEUES = (QueueSpec(name="celery", exchange="celery", routing_key="celery"),)


def made(settings: dict[str, Any] | None = None, **options: Any) -> Plan:
    return plan(WorkerOptions(hostname="w@h", queues=QUEUES, **options), Settings(**(settings or {})))


def test_options_win_over_settings_and_settings_over_the_machine() -> None:
    assert made().slots == usable_processors()
    assert made({"worker_concurrency": 3}).slots == 3
    assert made({"worker_concurrency": 3}, concurrency=5).slots == 5
    assert made({"worker_concurrency": "auto"}).slots == usable_processors()
    assert made({"worker_shutdown_grace": 7.0}).shutdown_grace == 7.0
    assert made({"worker_shutdown_grace": 7.0}, shutdown_grace=0.0).shutdown_grace == 0.0


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"pool": "prefork", "concurrency": 4}, (4, 1)),
        ({"pool": "processes", "concurrency": 4}, (4, 1)),
        ({"pool": "threads", "concurrency": 20, "children": 2}, (2, 10)),
        ({"pool": "asyncio", "concurrency": 21, "children": 2}, (2, 11)),
        ({"pool": "threads", "concurrency": 1, "children": 4}, (1, 1)),
        ({"pool": "solo", "concurrency": 8}, (1, 1)),
    ],
)
def test_the_shape_of_a_pool(options: dict[str, Any], shape: tuple[int, int]) -> None:
    numbers = made(**options)
    assert (numbers.children, numbers.slots_per_child) == shape


def sizes(numbers: Plan) -> list[tuple[str, int, int]]:
    return [(one.pool, one.children, one.slots_per_child) for one in numbers.pools]


def test_several_pools_have_their_own_numbers() -> None:
    several = made(pool="prefork:4,asyncio:100", children=2)
    assert sizes(several) == [("prefork", 4, 1), ("asyncio", 2, 50)]
    assert (several.pool, several.slots, several.children, several.slots_per_child) == ("prefork,asyncio", 104, 4, 1)
    assert several.shape(1).slots == 100
    assert sizes(made({"worker_pool": "threads:3,prefork:2"}, children=1)) == [("threads", 1, 3), ("prefork", 2, 1)]
    assert sizes(made({"worker_concurrency": 7}, pool="prefork:4,asyncio:10", children=1))[0] == ("prefork", 4, 1)


def test_a_single_pool_may_have_its_number_too_and_is_not_several() -> None:
    one = made(pool="prefork:3")
    assert (one.pool, one.slots, one.pools) == ("prefork", 3, ())
    assert one.shape().slots == 3


def test_the_usual_number_is_for_the_first_pool_without_one() -> None:
    numbers = made(pool="asyncio:10,prefork,threads", concurrency=5, children=1)
    assert [one.slots for one in numbers.pools] == [10, 5, usable_processors()]
    with pytest.raises(ImproperlyConfigured, match=r"-c 8 and -P prefork:4,asyncio:100: every pool has its own number"):
        made(pool="prefork:4,asyncio:100", concurrency=8)
    with pytest.raises(ImproperlyConfigured, match="-c 8 and -P prefork:4"):
        made(pool="prefork:4", concurrency=8)


def test_autoscale_is_for_the_first_pool() -> None:
    numbers = made(pool="prefork,asyncio:10", autoscale=(6, 2), children=1)
    assert [one.slots for one in numbers.pools] == [2, 10]
    with pytest.raises(ImproperlyConfigured, match="prefork:4 has a size"):
        made(pool="prefork:4,asyncio:10", autoscale=(6, 2))


def test_one_at_a_time_means_no_looking_ahead() -> None:
    assert made().look_ahead > 0
    assert made(prefetch_multiplier=1).look_ahead == 0
    fetching_none = made({"worker_disable_prefetch": True})
    assert (fetching_none.look_ahead, fetching_none.prefetch_multiplier) == (0, 1)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="no queue"):
        plan(WorkerOptions(hostname="w@h", queues=()), Settings())


def test_the_banner_says_what_matters_and_no_secret() -> None:
    settings = Settings(broker_url="redis://me:secret@host:6379/0", result_backend="sqlite:////tmp/x.sqlite3")
    broker = MemoryTransport("memory://banner", settings, SYSTEM_CLOCK)
    text = banner(
        made({}, pool="threads", concurrency=20, children=2), "1.0", "proj", transport_url(settings),
        store_url(settings, broker, None), ["proj.add", "celery.chord"], True, False, True,
    )  # fmt: skip
    for words in (
        "w@h  celeriac 1.0", "app:         proj", "redis://me:**@host:6379/0", "sqlite:////tmp/x.sqlite3",
        "20 (threads, 2 x 10)", "at least once", ".> celery  exchange=celery(direct) key=celery", "  . proj.add",
    ):  # fmt: skip
        assert words in text
    assert "secret" not in text
    assert "celery.chord" not in text
    several = made({}, pool="prefork,asyncio:100", autoscale=(9, 2), children=2)
    text = banner(several, "1.0", "proj", "", "", [], True, False, False)
    assert ".> concurrency: 102 ({min=2, max=9} prefork; 100 asyncio, 2 x 50)" in text
