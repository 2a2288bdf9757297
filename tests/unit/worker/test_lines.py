"""Who waits here and who goes back to the broker, and for how long."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from celeriac.rules.counting import Need, Refused
from celeriac.worker.lines import LINE, Line

TURNS = Need("t", interval=1.0)
PERMITS = Need("p", most=2)


def fill(line: Line, count: int) -> None:
    applicants: list[Any] = [None] * count
    line.waiting.extend(applicants)


def test_turns_are_asked_for_when_they_are_due() -> None:
    line = Line(TURNS, 100.0)
    line.refused(TURNS, Refused(0, 0.4), 100.0)
    assert line.next_at == pytest.approx(100.4)
    assert line.is_closed(100.3)
    assert not line.is_closed(100.5)
    assert line.portion(50) == 2  # the second tells when to come back
    fill(line, 3)
    assert line.is_closed(100.5)
    assert line.expected(100.0) == pytest.approx(3.4)


def test_permits_are_asked_for_ever_less_often_until_one_is_free_here() -> None:
    line = Line(PERMITS, 0.0)
    waits = []
    now = 0.0
    for _ in range(20):
        line.refused(PERMITS, Refused(0, 0.0, 5), now)
        waits.append(line.next_at - now)
        now = line.next_at
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.05)
    assert waits[-1] == pytest.approx(1.0)
    line.freed(now)
    assert line.next_at == now
    assert line.portion(50) == 2


def test_the_pace_of_all_workers_is_known_from_the_store() -> None:
    line = Line(PERMITS, 0.0)
    for number in range(11):
        line.refused(PERMITS, Refused(0, 0.0, number * 10), number / 2)
    fill(line, 40)
    assert line.expected(5.0) == pytest.approx(40 * 0.05 + line.next_at - 5.0, rel=0.01)
    # nothing has come back for a minute: it may take as long again, but not a minute for each
    line.refused(PERMITS, Refused(0, 0.0, 100), 65.0)
    assert 50 < line.expected(65.0) < 70
    # and the pace after a stall is what it was before, about
    line.refused(PERMITS, Refused(0, 0.0, 101), 66.0)
    assert line.expected(66.0) < 10


def test_a_store_that_has_begun_anew_is_no_riddle() -> None:
    line = Line(PERMITS, 0.0)
    line.refused(PERMITS, Refused(0, 0.0, 1000), 0.0)
    line.refused(PERMITS, Refused(0, 0.0, 3), 1.0)
    line.refused(PERMITS, Refused(0, 0.0, 13), 2.0)
    fill(line, 10)
    assert line.expected(2.0) == pytest.approx(1.0 + line.next_at - 2.0, rel=0.01)


def test_who_will_start_soon_stays() -> None:
    line = Line(TURNS, 0.0)
    fill(line, 4)
    assert line.has_room(0.0)
    fill(line, 2)
    assert not line.has_room(0.0)
    permits = Line(PERMITS, 0.0)
    fill(permits, LINE - 1)
    assert permits.has_room(0.0)  # nobody knows yet
    fill(permits, 1)
    assert not permits.has_room(0.0)
    line.waiting.clear()
    for _ in range(100):
        line.absence(line.expected(0.0), 1.0, 0.0, Random(1))
    assert line.has_room(0.0), "whoever comes by keeps the line from running out"


def test_those_far_behind_come_back_after_half_of_the_time_and_are_counted() -> None:
    line, random = Line(TURNS, 0.0), Random(1)
    fill(line, 5)
    absences = [line.absence(line.expected(0.0), 1.0, 0.0, random) for _ in range(100)]
    assert absences[0] == pytest.approx(2.5)
    assert absences[99] == pytest.approx((5 + 99) / 2)
    assert line.count_away() == 100
    assert line.expected(60.0) == pytest.approx(5.0)  # they are all back


@pytest.mark.parametrize(("need", "longest"), [(TURNS, 600.0), (PERMITS, 60.0)])
def test_nobody_is_away_for_ever(need: Need, longest: float) -> None:
    line, random = Line(need, 0.0), Random(1)
    absences = [line.absence(1e9, 1.0, 0.0, random) for _ in range(50)]
    assert all(longest / 2 <= away <= longest for away in absences)
    assert len(set(absences)) > 40  # and they don't all come at once
