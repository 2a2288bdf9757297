"""The pure rules, over every combination of options, against the table."""

from __future__ import annotations

import pytest
from tests.unit.rules.acks_table import COMBINATIONS, OUTCOMES, policy_of, row_for

from celeriac.rules.acking import AckPolicy, Fate, after_failure, after_loss, after_reject, after_success

TOLD = {
    Fate.ACK: "ack", Fate.RETRY: "ack", Fate.RELEASE: "release", Fate.RELEASE_COUNTED: "release counted",
    Fate.DEAD: "dead", Fate.NOTHING: None,
}  # fmt: skip
CAUSES = {
    "hard limit": "hard_limit", "process lost": "died", "process lost, no retries left": "died",
    "neighbour ended": "stopped", "terminated": "revoked",
}  # fmt: skip


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_combination_is_in_one_row_and_the_rules_say_the_same(outcome: str) -> None:
    for combination in COMBINATIONS:
        row = row_for(outcome, combination)
        if row is None or outcome in ("expired", "revoked"):  # those are rules/admission.py's
            continue
        policy, state = policy_of(combination), row.state
        if outcome in CAUSES:
            retries = 3 if "left" in outcome else 0
            for start, verdict in enumerate(row.verdicts or (None,), 1):
                loss = after_loss(policy, CAUSES[outcome], True, start, retries)
                if outcome == "neighbour ended" and start > 1:
                    continue  # it ends by itself then
                if policy.late or loss.fate is not Fate.RETRY:
                    assert TOLD[loss.fate] == verdict, (combination, start)
                is_last = start == max(len(row.verdicts), 1)
                if is_last and outcome != "neighbour ended":
                    assert loss.state == state, (combination, start)
                assert (loss.fate is Fate.RETRY) == row.is_sent_again
            continue
        fate = {
            "exception": after_failure(policy),
            "reject": after_reject(policy, requeue=False),
            "reject and requeue": after_reject(policy, requeue=True),
        }.get(outcome, after_success(policy))
        assert TOLD[fate] == (row.verdicts[0] if row.verdicts else None), combination


def test_who_may_be_a_victim_is_run_alone_before_it_is_set_aside() -> None:
    policy = AckPolicy(crash_budget=3)
    assert after_loss(policy, "died", True, 3, 0, alone=False).fate is Fate.RELEASE_COUNTED
    assert after_loss(policy, "died", True, 4, 0, alone=True).fate is Fate.DEAD
    assert after_loss(policy, "died", True, 5, 0, alone=False).fate is Fate.DEAD
