"""Rates as Celery writes them, and the order in which starts are given out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.rules.limits import REMEMBERED, Pace, parse_rate


@pytest.mark.parametrize(
    ("rate", "per_second"),
    [
        ("10/s", 10.0), ("6/m", 0.1), ("36/h", 0.01), (5, 5.0), ("2.5", 2.5), (0, None), ("0/m", None), (None, None),
        (" 1 / s ", 1.0),
    ],
)  # fmt: skip
def test_rates_are_read(rate: Any, per_second: float | None) -> None:
    found = parse_rate(rate)
    assert found == per_second if per_second is None else found == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["10/d", "fast", "-1/s", "", -1, float("nan"), float("inf"), True, [1]])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(rate)


def test_starts_are_a_steady_interval_apart() -> None:
    pace = Pace(10.0)
    assert [pace.slot(str(n), 100.0) for n in range(4)] == pytest.approx([100.0, 100.1, 100.2, 100.3])
    assert pace.slot("2", 100.1) == pytest.approx(100.2)  # it keeps its time
    assert pace.slot("1", 100.15) == pytest.approx(100.1)  # late, and free to start
    assert pace.slot("late", 200.0) == 200.0  # nothing is saved up


def test_a_slot_is_used_once() -> None:
    pace = Pace(1.0)
    assert pace.slot("a", 0.0) == 0.0
    assert pace.slot("b", 0.0) == 1.0
    assert pace.slot("b", 1.0) == 1.0
    assert pace.slot("b", 1.0) == 2.0


def test_what_is_remembered_is_bounded() -> None:
    pace = Pace(1.0)
    for number in range(REMEMBERED * 2):
        pace.slot(str(number), 0.0)
    assert len(pace._slots) <= REMEMBERED
    assert pace.slot("new", 3 * REMEMBERED) == 3 * REMEMBERED
    assert not pace._slots


@given(
    per_second=st.floats(0.1, 100), calls=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 2)), max_size=80)
)  # fmt: skip
def test_no_window_holds_more_starts_than_the_rate_allows(per_second: float, calls: list[tuple[int, float]]) -> None:
    pace, now, starts = Pace(per_second), 0.0, []
    for number, pause in calls:
        now += pause
        slot = pace.slot(str(number), now)
        if slot <= now:
            starts.append(max(slot, 0.0))
    starts.sort()
    for one, other in itertools.pairwise(starts):
        assert other - one >= 1 / per_second - 1e-6
