"""GCRA and permits against what they promise."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.rules.counting import GRANTED, Demand, Lease, Need, Refused, Tables, decide, turn

if TYPE_CHECKING:
    from celeriac.rules.counting import Answer

_PAUSES = st.floats(0, 3, allow_nan=False)


class Bucket:
    """The same promise in another form: a bucket of ``burst`` tokens that is filled at the rate (leaky bucket)."""

    def __init__(self, interval: float, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self.tokens, self.at = float(burst), 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) / self.interval)
        self.at = now
        if self.tokens < 1 - 1e-6:
            return False
        self.tokens -= 1
        return True


@given(interval=st.floats(0.01, 2), burst=st.integers(1, 6), pauses=st.lists(_PAUSES, max_size=120))
def test_turns_are_those_of_a_token_bucket(interval: float, burst: int, pauses: list[float]) -> None:
    tat, now, bucket = None, 0.0, Bucket(interval, burst)
    for pause in pauses:
        now += pause
        wait, after = turn(tat, now, interval, burst)
        if abs(bucket.tokens + (now - bucket.at) / interval - 1) < 1e-5:
            return  # a rounding error decides from here on
        assert (wait == 0) == bucket.take(now)
        if wait == 0:
            tat = after


@given(interval=st.floats(0.01, 2), burst=st.integers(1, 6), pauses=st.lists(_PAUSES, max_size=120))
def test_no_window_holds_more_turns_than_allowed(interval: float, burst: int, pauses: list[float]) -> None:
    tat, now, starts = None, 0.0, []
    for pause in pauses:
        now += pause
        wait, after = turn(tat, now, interval, burst)
        if wait == 0:
            tat = after
            starts.append(now)
    for first, last in itertools.combinations(range(len(starts)), 2):
        assert last - first + 1 <= burst + (starts[last] - starts[first]) / interval + 1e-6


@given(interval=st.floats(0.01, 2), burst=st.integers(1, 6), count=st.integers(1, 20))
def test_who_waits_as_told_gets_the_next_turn(interval: float, burst: int, count: int) -> None:
    tat, now = None, 50.0
    for _ in range(count):
        wait, after = turn(tat, now, interval, burst)
        if wait:
            now += wait
            wait, after = turn(tat, now, interval, burst)
        assert wait == 0
        tat = after
    # and none is given away: so many turns take no longer than they must
    assert now - 50.0 <= max(0, count - burst) * interval + 1e-6


def test_a_time_that_cannot_be_is_forgotten() -> None:
    """The machine was started anew, and its clock with it."""
    assert turn(1_000_000.0, 5.0, 60.0, 2) == (0.0, 65.0)
    tables = Tables(permits={"k": {"old": Lease(1_000_000.0, 1_000_030.0)}})
    assert decide([Demand("h", (Need("k", most=1),))], 1, 5.0, 30.0, tables) == [GRANTED]


@given(st.data())
def test_permits_never_exceed_their_number(data: st.DataObject) -> None:
    """Random takers, releases, crashes and pauses; every holder that has not gone silent renews in time."""
    most, lease = data.draw(st.integers(1, 3)), 10.0
    tables, now = Tables(), 0.0
    alive: dict[str, float] = {}  # holder → when its lease ends
    for step in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["take", "release", "crash", "pass", "renew"])):
            case "take":
                expected = len(alive) + len(crashed(tables, alive, now)) < most
                answer: Answer = decide([Demand(f"h{step}", (Need("k", most=most),))], 1, now, lease, tables)[0]
                assert (answer == GRANTED) == expected
                if answer == GRANTED:
                    alive[f"h{step}"] = now + lease
                else:
                    assert isinstance(answer, Refused)
            case "release" if alive:
                holder = data.draw(st.sampled_from(sorted(alive)))
                del alive[holder]
                del tables.permits["k"][holder]
            case "crash" if alive:
                del alive[data.draw(st.sampled_from(sorted(alive)))]
            case "renew":
                for holder in alive:
                    tables.permits["k"][holder] = Lease(now, now + lease)
                    alive[holder] = now + lease
            case "pass":
                later = now + data.draw(st.floats(0, 9))
                if alive and min(alive.values()) <= later:
                    later = max(now, min(alive.values()) - 0.5)  # nobody alive forgets to renew
                now = later
        assert len(alive) <= most


def crashed(tables: Tables, alive: dict[str, float], now: float) -> list[str]:
    """Holders that are gone, and whose leases have not ended."""
    return [name for name, one in tables.permits.get("k", {}).items() if name not in alive and one.is_good(now)]


@pytest.mark.parametrize("quota", [0, 1, 2, 5])
def test_quota(quota: int) -> None:
    answers = decide([Demand(f"h{n}", (Need("k", most=3),)) for n in range(5)], quota, 0.0, 1.0, Tables())
    assert sum(answer == GRANTED for answer in answers) == min(quota, 3)
