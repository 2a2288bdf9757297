from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.rules.admission import (
    ISOLATE,
    RUN,
    AdmissionPolicy,
    Decision,
    Discard,
    Hold,
    Park,
    Poison,
    Quarantine,
    Unknown,
    decide,
)  # fmt: skip

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
POLICY = AdmissionPolicy()


def admit(policy: AdmissionPolicy = POLICY, attempt: int | None = 0, **headers: Any) -> Decision:
    return decide({"task": "app.add", "id": "abc", **headers}, {"app.add"}, attempt, NOW, policy, {"gone"})


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def test_the_usual_message_runs() -> None:
    assert admit() is RUN
    assert admit(attempt=None) is RUN
    assert admit(attempt=2, eta=at(-1), expires=at(1)) is RUN


def test_a_later_message_waits_at_the_broker_if_that_can_keep_it() -> None:
    assert admit(eta=at(60)) == Park(NOW + 60)
    assert admit(AdmissionPolicy(max_delay=900), eta=at(4000)) == Park(NOW + 900)
    assert admit(AdmissionPolicy(broker_keeps_delays=False), eta=at(60)) == Hold(NOW + 60)


def test_what_is_due_in_a_moment_is_not_sent_back() -> None:
    assert admit(eta=at(0.125)) == Hold(NOW + 0.125)


def test_what_expires_before_it_is_due_comes_back_when_it_expires() -> None:
    assert admit(eta=at(60), expires=at(30)) == Park(NOW + 30)


def test_expired_and_revoked_messages_are_dropped() -> None:
    assert admit(expires=at(-1)) == Discard("expired")
    assert admit(expires=at(0), eta=at(60)) == Discard("expired")
    assert admit(id="gone") == Discard("revoked")


def test_the_crash_budget_ends_in_isolation_and_then_for_good() -> None:
    assert admit(attempt=2) is RUN
    assert admit(attempt=3) is admit(attempt=4) is ISOLATE
    assert admit(attempt=5) == Poison(5)
    assert admit(AdmissionPolicy(crash_budget=5), attempt=4) is RUN
    assert admit(attempt=4, eta=at(60)) == Park(NOW + 60)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"task": None}, "names no task"),
        ({"task": ["app.add"]}, "names no task"),
        ({"id": None}, "task id None"),
        ({"id": "../../etc/passwd"}, "task id"),
        ({"id": {"a": 1}}, "task id"),
        ({"id": "x" * 256}, "task id"),
        ({"eta": "tomorrow"}, "eta: "),
        ({"expires": {"a": 1}}, "expires: "),
        ({"eta": "2026-11-22T12:00:00", "expires": "never"}, "expires: "),
    ],
)
def test_senseless_headers_go_to_quarantine(headers: dict[str, Any], reason: str) -> None:
    decision = admit(**headers)
    assert isinstance(decision, Quarantine)
    assert reason in decision.reason


def test_an_unknown_task_is_set_aside_under_its_name() -> None:
    assert admit(task="app.mul") == Unknown("app.mul")
