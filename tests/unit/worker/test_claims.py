"""The table of held messages: who adopts a redelivery, and who does not."""

from __future__ import annotations

import pytest

from celeriac.executors.base import Request
from celeriac.rules.claim import FINISHED, READY, RUNNING, advance
from celeriac.transports.base import ACK, RELEASE, RELEASE_COUNTED, Bury, Envelope, Park, Route, Verdict
from celeriac.worker.claims import Claim, Claims


def delivered(receipt: int, retries: int = 0) -> Claim:
    envelope = Envelope(b"[[], {}, null]", {"id": "x", "task": "t", "retries": retries}, {})
    request = Request("x", "t", envelope, "celery", "", "celery", receipt > 1, receipt, None, None)
    return Claim("x", request, receipt, Route("", "celery"), None)


def finished(verdict: Verdict) -> tuple[Claims, Claim]:
    """A table whose one claim has ended and is on its way to the broker."""
    claims, claim = Claims(), delivered(1)
    claims.held["x"] = claim
    for state in (READY, RUNNING, FINISHED):
        advance(claim, state)
    claim.verdict = verdict
    return claims, claim


@pytest.mark.parametrize("verdict", [RELEASE, RELEASE_COUNTED, Park(until=1.0, count_attempt=True)])
def test_a_message_just_given_back_is_not_adopted_by_the_run_that_gave_it_back(verdict: Verdict) -> None:
    claims, claim = finished(verdict)
    assert not claims.add_again(delivered(2), redelivered=True)
    assert claim.receipt == 1


def test_a_redelivery_of_what_is_to_be_acknowledged_and_has_lost_its_message_is_adopted() -> None:
    claims, claim = finished(ACK)
    claims.mark_lost(claim)
    assert claims.add_again(delivered(2), redelivered=True)
    assert claim.receipt == 2


def test_a_redelivery_waits_while_the_attempt_has_its_message() -> None:
    """It may be a second message: adopted, the first would stay with the broker, held for ever."""
    claims, claim = finished(ACK)
    second = delivered(2)
    assert not claims.add_again(second, redelivered=True)
    assert claim.receipt == 1
    assert {one.receipt for one in claims.unsettled()} == {1, 2}
    claims.finish_settled([claim])
    assert claims.held["x"] is second
    assert second.state == READY


def test_what_waited_behind_an_attempt_that_lost_its_message_is_settled_as_that_would_have_been() -> None:
    claims, claim = finished(ACK)
    dropped: list[Claim] = []
    claims.on_done_before = dropped.append
    second = delivered(2)
    claims.add_again(second, redelivered=True)
    claims.remember_done([claim])
    claims.finish_settled([claim])
    assert dropped == [second]
    assert second.verdict == ACK
    assert not claims.held


@pytest.mark.parametrize("verdict", [RELEASE, RELEASE_COUNTED, Park(until=1.0, count_attempt=True)])
def test_what_was_to_be_given_back_is_not_done(verdict: Verdict) -> None:
    """Its message was lost before the broker heard so: it comes again and has to run."""
    claims, claim = finished(verdict)
    claims.remember_done([claim])
    assert claims.was_done(delivered(2)) is None


def test_a_dead_letter_whose_message_was_lost_is_one_when_it_comes_again() -> None:
    claims, claim = finished(Bury("it has cost three processes"))
    claims.remember_done([claim])
    assert claims.was_done(delivered(2)) == claim.verdict


def test_a_message_whose_time_has_come_may_have_to_wait_for_another_of_its_id() -> None:
    claims, claim = finished(ACK)
    later = delivered(2)
    claims.add_later(later, 5.0)
    assert claims.take_due(6.0) == [later]
    assert not claims.add_again(later, redelivered=False)
    claims.finish_settled([claim])
    assert claims.held["x"] is later


def test_a_retry_that_is_due_before_the_attempt_that_sent_it_is_settled_waits_for_it() -> None:
    claims, first = finished(ACK)
    again = delivered(2, retries=1)
    claims.add_later(again, until=5.0)
    assert claims.take_due(now=5.0) == [again]
    assert not claims.add_again(again, redelivered=False)
    claims.finish_settled([first])
    assert claims.held["x"] is again
    assert list(claims.ready) == [again]


def test_a_message_whose_time_has_come_may_have_to_wait_once_more() -> None:
    claims, claim = Claims(), delivered(1)
    claims.add_later(claim, until=5.0)
    assert claims.take_due(now=5.0) == [claim]
    claims.add_later(claim, until=7.0)
    assert claims.take_due(now=6.0) == []
    assert claims.take_due(now=7.0) == [claim]
