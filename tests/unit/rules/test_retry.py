from random import Random

import pytest

from celeriac.rules.retry import are_exhausted, backoff, reconnect_delay


@pytest.mark.parametrize(("retries", "delay"), [(0, 3), (1, 6), (2, 12), (8, 600), (10_000_000, 600)])
def test_backoff_doubles_up_to_the_maximum(retries: int, delay: int) -> None:
    assert backoff(retries, 3, 600, None) == delay


def test_jitter_takes_any_whole_second_up_to_the_delay() -> None:
    random = Random(7)
    seen = {backoff(2, 1, 600, random) for _ in range(200)}
    assert seen == {0, 1, 2, 3, 4}


def test_backoff_of_nothing_is_nothing() -> None:
    assert backoff(4, 0, 600, Random(1)) == 0
    assert backoff(4, 5, 0, Random(1)) == 0


def test_retries_run_out_only_where_there_is_a_limit() -> None:
    assert [are_exhausted(retries, 2) for retries in range(4)] == [False, False, True, True]
    assert not are_exhausted(10**9, None)


def test_reconnecting_waits_between_a_twentieth_and_five_seconds() -> None:
    random = Random(3)
    first = [reconnect_delay(1, random) for _ in range(100)]
    assert 0.05 <= min(first) <= max(first) <= 0.1
    late = [reconnect_delay(10_000, random) for _ in range(100)]
    assert 2.5 <= min(late) <= max(late) <= 5.0
