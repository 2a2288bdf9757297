"""The ladder: what it is made of, and which keys lead down it."""

from __future__ import annotations

import pytest

from celeriac.transports.amqp import delays
from celeriac.transports.bindings import topic_matches


def steps_of(key: str) -> list[int]:
    """The levels on which a message with ``key`` rests, found by following the bindings."""
    rungs = {rung.name: rung for rung in delays.ladder("classic")}
    rested = []
    at = delays.ENTRANCE
    while at != delays.EXIT:
        rung = rungs[at]
        rests, falls = topic_matches(rung.rests, key), topic_matches(rung.falls, key)
        assert rests != falls, "one way only"
        if rests:
            rested.append(int(at.rpartition("_")[2]))
        at = rung.below
    return rested


@pytest.mark.parametrize("seconds", [1, 2, 5, 59, 3600, 86_400 * 365, delays.MAX_DELAY])
def test_a_message_rests_for_its_seconds(seconds: int) -> None:
    key = delays.delayed_key(seconds, "celery")
    assert key is not None
    assert sum(1 << level for level in steps_of(key)) == seconds


def test_keys_are_celerys() -> None:
    assert delays.delayed_key(5, "celery") == ("0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.celery")


def test_the_last_rung_leads_out() -> None:
    assert delays.ladder("quorum")[0].below == delays.EXIT
    assert delays.ladder("quorum")[-1].name == delays.ENTRANCE


def test_arguments_are_celerys() -> None:
    assert delays.ladder("quorum")[3].arguments == {
        "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-message-ttl": 8000,
        "x-dead-letter-exchange": "celery_delayed_2", "x-dead-letter-strategy": "at-least-once",
    }  # fmt: skip
    assert "x-dead-letter-strategy" not in delays.ladder("classic")[3].arguments


def test_a_queue_takes_its_own_from_the_exit() -> None:
    key = delays.delayed_key(9, "other.celery")
    assert key is not None
    assert topic_matches(delays.exit_key("other.celery"), key)
    assert not topic_matches(delays.exit_key("celery"), key)


def test_delays_are_rounded_down_and_bounded() -> None:
    assert delays.seconds_of(10.9, 5.0) == 5
    assert delays.seconds_of(5.9, 5.0) == 0
    assert delays.seconds_of(1.0, 5.0) == 0
    assert delays.seconds_of(1e12, 0.0) == delays.MAX_DELAY


def test_a_key_too_long_is_told() -> None:
    assert delays.delayed_key(1, "q" * 199) is not None
    assert delays.delayed_key(1, "q" * 200) is None
    assert delays.delayed_key(1, "ü" * 150) is None


def test_what_came_down_the_ladder_is_known() -> None:
    key = delays.delayed_key(5, "celery")
    assert key is not None
    assert delays.has_passed(delays.EXIT, "whatever")
    assert delays.has_passed("celery", key)
    for exchange, plain in (("", "celery"), ("tasks", "1.0"), ("tasks", "1.0.1"), ("tasks", "a.b.c" * 30)):
        assert not delays.has_passed(exchange, plain)
