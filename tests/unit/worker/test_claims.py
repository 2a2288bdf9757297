"""The table of held messages: who adopts a redelivery, and who does not."""

from __future__ import annotations

import pytest

from celeriac.executors.base import Request
from celeriac.rules.claim import FINISHED, READY, RUNNING, advance
from celeriac.transports.base import ACK, RELEASE, RELEASE_COUNTED, Envelope, Park, Route, Verdict
from celeriac.worker.claims import Claim, Claims


def delivered(receipt: int) -> Claim:
    envelope = Envelope(b"[[], {}, null]", {"id": "x", "task": "t", "retries": 0}, {})
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


def test_a_redelivery_of_what_is_to_be_acknowledged_is_adopted() -> None:
    claims, claim = finished(ACK)
    assert claims.add_again(delivered(2), redelivered=True)
    assert claim.receipt == 2
