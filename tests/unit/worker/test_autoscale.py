"""When the autoscaler changes the pool, and by how much."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.worker.autoscale import Autoscaler


class Pool:
    def __init__(self, children: int, per_child: int) -> None:
        self.children, self.per_child = children, per_child
        self.sizes: list[int] = []

    @property
    def slots(self) -> int:
        return self.children * self.per_child

    def resize(self, children: int) -> None:
        self.children = children
        self.sizes.append(children)


class Held:
    def __init__(self) -> None:
        self.running = 0
        self.ready_count = 0

    def running_ids(self) -> list[str]:
        return [str(number) for number in range(self.running)]


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def scene(children: int, most: int, least: int, per_child: int = 1) -> tuple[Any, Pool, Held, HandClock]:
    pool, held, clock = Pool(children, per_child), Held(), HandClock()
    scaler = Autoscaler(pool, held, per_child, most, least, clock, quiet=30.0)  # type: ignore[arg-type]
    return scaler, pool, held, clock


def test_grows_at_once_to_what_is_held_and_no_further_than_allowed() -> None:
    scaler, pool, held, _ = scene(1, 10, 1)
    held.running, held.ready_count = 1, 4
    scaler.look()
    assert pool.sizes == [5]
    held.running, held.ready_count = 5, 100
    scaler.look()
    assert pool.sizes == [5, 10]
    scaler.look()
    assert pool.sizes == [5, 10]


def test_grows_by_one_when_all_are_busy_and_nothing_may_be_held_ahead() -> None:
    scaler, pool, held, _ = scene(2, 10, 1)
    held.running = 2
    scaler.look()
    assert pool.sizes == [3]


def test_shrinks_after_a_quiet_time_to_the_most_that_was_needed_in_it() -> None:
    scaler, pool, held, clock = scene(8, 8, 2)
    held.running = 8
    scaler.look()
    held.running = 5
    clock.now += 10
    scaler.look()
    held.running = 0
    clock.now += 19
    scaler.look()
    assert pool.sizes == []
    clock.now += 1
    scaler.look()
    assert pool.sizes == [5]
    clock.now += 29
    scaler.look()
    clock.now += 1
    scaler.look()
    assert pool.sizes == [5, 2]


def test_what_is_needed_again_begins_the_quiet_time_anew() -> None:
    scaler, pool, held, clock = scene(4, 8, 1)
    clock.now += 29
    held.running = 3
    held.ready_count = 1
    scaler.look()
    held.running = held.ready_count = 0
    clock.now += 29
    scaler.look()
    assert pool.sizes == []


def test_pools_that_share_a_process_change_by_whole_processes() -> None:
    scaler, pool, held, clock = scene(1, 100, 10, per_child=50)
    held.running, held.ready_count = 50, 1
    scaler.look()
    assert pool.sizes == [2]
    held.running = held.ready_count = 0
    clock.now += 30
    scaler.look()
    assert pool.sizes == [2, 1]


def test_new_limits_are_in_force_at_once() -> None:
    scaler, pool, _, _ = scene(2, 10, 1)
    assert scaler.update(20, 6) == (20, 6)
    assert pool.sizes == [6]
    assert scaler.update(4, None) == (4, 4)
    assert pool.sizes == [6, 4]
    for most, least in ((0, 0), (3, 4), (5, -1)):
        with pytest.raises(ValueError, match="max is at least 1"):
            scaler.update(most, least)
    assert scaler.info() == {"max": 4, "min": 4, "current": 4, "qty": 0}


def test_growing_and_shrinking_by_hand_moves_the_limits() -> None:
    scaler, pool, _, _ = scene(3, 3, 3)
    scaler.change(2)
    assert (scaler.most, scaler.least, pool.children) == (5, 3, 5)
    scaler.change(-3)
    assert (scaler.most, scaler.least, pool.children) == (5, 2, 2)
