"""How many messages a consumer may hold, for engines of every temper."""

from __future__ import annotations

from celeriac.transports.amqp.prefetch import LIMIT, Prefetch


def begun(consumers: int, limit: int) -> Prefetch:
    prefetch = Prefetch(consumers)
    prefetch.begin(limit)
    return prefetch


def test_it_begins_with_the_first_request_shared_out() -> None:
    assert begun(1, 32).count == 32
    assert begun(3, 32).count == 11
    assert begun(8, 1).count == 1
    assert begun(1, 1_000_000).count == LIMIT


def test_it_grows_when_the_engine_starves() -> None:
    prefetch = begun(1, 32)
    assert not prefetch.starved(10, 22)
    assert prefetch.starved(32, 20)
    assert prefetch.count == 52
    # one more at a time would be a round trip each
    assert prefetch.starved(52, 1)
    assert prefetch.count == 65
    prefetch.count = LIMIT - 1
    assert prefetch.starved(LIMIT, 512)
    assert prefetch.count == LIMIT


def test_it_shrinks_when_messages_lie_here() -> None:
    prefetch = begun(1, 2000)
    assert not prefetch.look(32, 1968, 2000), "they have just come"
    assert prefetch.look(32, 1966, 2002)
    assert prefetch.count == 34
    assert not prefetch.look(32, 0, 2010)


def test_it_stays_while_messages_flow() -> None:
    prefetch = begun(1, 2000)
    for handed_out in range(0, 100_000, 20_000):
        assert not prefetch.look(500, 1500, handed_out)
    assert prefetch.count == 2000


def test_it_does_not_grow_by_shrinking() -> None:
    prefetch = begun(2, 4)
    prefetch.look(50, 2, 10)
    assert not prefetch.look(50, 2, 10)
    assert prefetch.count == 2
