"""Who sends what when several threads publish at once."""

from __future__ import annotations

import os

import pytest

from celeriac.amqp.messages import Publication
from celeriac.errors import BrokerUnavailable, PublishRejected, PublishTimeout
from celeriac.transports.amqp.crowd import Crowd, Job


def job(count: int = 1) -> Job:
    return Job([Publication("", "q", {}, None, b"")] * count, ["q"], [])


def always(_: Job) -> bool:
    return True


def test_whoever_has_the_connection_sends_for_all_who_fit() -> None:
    crowd = Crowd()
    first, second, odd, large = job(), job(3), job(), job(1000)
    with crowd.waiting(first), crowd.waiting(second), crowd.waiting(odd), crowd.waiting(large):
        taken = crowd.take(first, lambda one: one is not odd)
        assert taken == [first, second]
        assert [one.is_taken for one in (second, odd, large)] == [True, False, False]
        assert crowd.take(odd, lambda one: one is not odd) == [odd]
        assert crowd.take(large, always) == [large]


def test_what_failed_together_is_tried_alone() -> None:
    crowd = Crowd()
    first, second, third = job(), job(), job()
    with crowd.waiting(first), crowd.waiting(second), crowd.waiting(third):
        taken = crowd.take(first, always)
        crowd.put_back(taken[1:])
        assert crowd.take(second, always) == [second]
        assert crowd.take(third, always) == [third]


def test_a_thread_that_gave_up_leaves_nothing_behind() -> None:
    crowd = Crowd()
    first, gone = job(), job()
    with crowd.waiting(first):
        with pytest.raises(BrokerUnavailable), crowd.waiting(gone):
            raise BrokerUnavailable("busy")
        assert crowd.take(first, always) == [first]


def test_a_deadline_that_passes_while_another_sends_is_unknown() -> None:
    crowd = Crowd()
    first, slow = job(), job()
    with crowd.waiting(first):
        taken: list[Job] = []

        def wait_in_vain() -> None:
            with crowd.waiting(slow):
                taken.extend(crowd.take(first, always))
                raise BrokerUnavailable("the lock was not free in time")

        with pytest.raises(PublishTimeout):
            wait_in_vain()
        crowd.put_back(taken[1:])
    with crowd.waiting(job()) as _:
        later = job()
        with crowd.waiting(later):
            assert slow not in crowd.take(later, always)


def test_an_end_that_came_in_time_counts() -> None:
    crowd = Crowd()
    first, second = job(), job()
    with crowd.waiting(first), crowd.waiting(second):
        crowd.take(first, always)
        second.end(PublishRejected("no"))
        raise BrokerUnavailable("the lock was not free in time")
    assert isinstance(second.error, PublishRejected)


def test_a_forked_child_does_not_wait_for_its_parents_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd()
    of_parent = job()
    context = crowd.waiting(of_parent)
    context.__enter__()
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        mine = job()
        with crowd.waiting(mine):
            assert crowd.take(mine, always) == [mine]
