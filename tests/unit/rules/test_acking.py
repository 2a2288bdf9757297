import pytest

from celeriac.rules.acking import AckPolicy, Fate, after_failure, after_loss, after_reject, after_success

EARLY = AckPolicy(late=False)
LATE = AckPolicy()


def test_early_acknowledged_messages_have_nothing_left_to_settle() -> None:
    assert after_success(EARLY) is after_failure(EARLY) is after_reject(EARLY, requeue=True) is Fate.NOTHING


def test_late_messages_are_settled_by_how_the_task_ended() -> None:
    assert after_success(LATE) is after_failure(LATE) is Fate.ACK
    assert after_failure(AckPolicy(on_failure=False)) is Fate.DEAD
    assert after_reject(LATE, requeue=True) is Fate.RELEASE
    assert after_reject(LATE, requeue=False) is Fate.DEAD


@pytest.mark.parametrize(
    ("policy", "cause", "delivery", "retries", "fate", "state"),
    [
        (LATE, "died", 1, 0, Fate.RELEASE_COUNTED, None),
        (LATE, "died", 2, 0, Fate.RELEASE_COUNTED, None),
        (LATE, "died", 3, 0, Fate.DEAD, "FAILURE"),
        (AckPolicy(reject_on_worker_lost=True), "died", 1, 0, Fate.RELEASE_COUNTED, None),
        (AckPolicy(reject_on_worker_lost=False), "died", 1, 0, Fate.ACK, "FAILURE"),
        (AckPolicy(reject_on_worker_lost=False, on_failure=False), "died", 1, 0, Fate.DEAD, "FAILURE"),
        (AckPolicy(retry_on_worker_lost=True), "died", 1, 0, Fate.RETRY, "RETRY"),
        (AckPolicy(retry_on_worker_lost=True, reject_on_worker_lost=True), "died", 1, 3, Fate.ACK, "FAILURE"),
        (AckPolicy(retry_on_worker_lost=True, max_retries=None), "died", 1, 99, Fate.RETRY, "RETRY"),
        (AckPolicy(retry_on_worker_lost=True), "stopped", 1, 0, Fate.RELEASE, None),
        (EARLY, "died", 1, 0, Fate.NOTHING, "FAILURE"),
        (EARLY, "stopped", 1, 0, Fate.NOTHING, "FAILURE"),
        (LATE, "stopped", 9, 0, Fate.RELEASE, None),
        (LATE, "hard_limit", 1, 0, Fate.ACK, "FAILURE"),
        (AckPolicy(on_timeout=False), "hard_limit", 1, 0, Fate.RELEASE_COUNTED, "FAILURE"),
        (EARLY, "hard_limit", 1, 0, Fate.NOTHING, "FAILURE"),
        (LATE, "revoked", 1, 0, Fate.ACK, "REVOKED"),
        (EARLY, "revoked", 1, 0, Fate.NOTHING, "REVOKED"),
    ],
)
def test_lost_processes(
    policy: AckPolicy, cause: str, delivery: int, retries: int, fate: Fate, state: str | None
) -> None:
    loss = after_loss(policy, cause, started=True, delivery=delivery, retries=retries)
    assert (loss.fate, loss.state) == (fate, state)


def test_what_never_started_is_never_lost() -> None:
    assert after_loss(LATE, "not_started", False, 3, 0).fate is Fate.RELEASE
    assert after_loss(EARLY, "died", False, 1, 0).fate is Fate.RESEND
