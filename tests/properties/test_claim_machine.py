"""Whatever happens in whatever order: no message is lost, none runs twice at one time, each is settled once."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from celeriac.executors.base import Request
from celeriac.rules import claim as table
from celeriac.rules.claim import FINISHED, HELD, LOST, READY, RUNNING, advance, advance_all
from celeriac.transports.base import Envelope, Route
from celeriac.worker.claims import Claim, Claims

IDS = st.sampled_from(["a", "b", "c"])


class ClaimMachine(RuleBasedStateMachine):
    """The table of claims against a broker that delivers, loses and redelivers as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.receipts = itertools.count(1)
        self.ours: dict[int, Any] = {}  #: receipt → claim that should know it
        self.executing: dict[str, Claim] = {}
        self.settled: list[int] = []

    def deliver(self, task_id: str, retries: int, redelivered: bool) -> None:
        receipt = next(self.receipts)
        envelope = Envelope(b"[]", {"id": task_id, "task": "t", "retries": retries}, {})
        request = Request(task_id, "t", envelope, "q", "", "q", redelivered, 1, None, None)
        claim = Claim(task_id, request, receipt, Route("", "q"), None)
        if claim.id in self.claims.held:
            old = self.claims.held[task_id].receipt
            if self.claims.add_again(claim, redelivered):
                self.ours.pop(old, None)
        else:
            self.claims.held[task_id] = claim
            self.claims.add_ready([claim])
        self.ours[receipt] = claim

    @rule(task_id=IDS, retries=st.integers(0, 2))
    def new_message(self, task_id: str, retries: int) -> None:
        self.deliver(task_id, retries, redelivered=False)

    @rule(task_id=IDS, retries=st.integers(0, 2))
    def redelivery(self, task_id: str, retries: int) -> None:
        self.deliver(task_id, retries, redelivered=True)

    @precondition(lambda self: self.claims.ready)
    @rule()
    def start(self) -> None:
        claim = self.claims.ready.popleft()
        advance(claim, RUNNING)
        assert claim.id not in self.executing, "one id runs twice at one time"
        self.executing[claim.id] = claim

    @precondition(lambda self: self.executing)
    @rule(data=st.data())
    def finish_and_settle(self, data: st.DataObject) -> None:
        claim = self.executing.pop(data.draw(st.sampled_from(sorted(self.executing))))
        advance_all([claim], FINISHED)
        if claim.receipt is None:
            self.claims.remember_done([claim])
        else:
            assert claim.receipt not in self.settled
            self.settled.append(claim.receipt)
            del self.ours[claim.receipt]
        self.claims.finish_settled([claim])

    @precondition(lambda self: self.executing)
    @rule(data=st.data())
    def given_back_unstarted(self, data: st.DataObject) -> None:
        claim = self.executing[data.draw(st.sampled_from(sorted(self.executing)))]
        if claim.state != RUNNING:
            return
        del self.executing[claim.id]
        self.claims.put_back(claim)
        del self.ours[claim.receipt]

    @precondition(lambda self: self.ours)
    @rule(data=st.data())
    def lease_lost(self, data: st.DataObject) -> None:
        receipt = data.draw(st.sampled_from(sorted(self.ours)))
        holder = next((claim for claim in self.claims.unsettled() if claim.receipt == receipt), None)
        del self.ours[receipt]
        if holder is not None:
            self.claims.mark_lost(holder)

    @rule()
    def session_lost(self) -> None:
        self.claims.drop_unstarted()
        running = {claim.receipt for claim in self.executing.values()}
        self.ours = {receipt: claim for receipt, claim in self.ours.items() if receipt in running}

    @rule()
    def stop_intake(self) -> None:
        for claim in self.claims.take_unstarted():
            assert claim.state == table.RELEASED
            self.ours.pop(claim.receipt, None)

    @invariant()
    def what_the_broker_gave_us_is_known(self) -> None:
        known = {claim.receipt for claim in self.claims.unsettled()}
        assert set(self.ours) <= known, "a message that nobody would ever settle or renew"

    @invariant()
    def the_table_agrees_with_the_executor(self) -> None:
        running = {claim.id for claim in self.claims.held.values() if claim.state in (RUNNING, LOST)}
        assert running == set(self.executing)
        assert all(claim.state == READY for claim in self.claims.ready)
        assert all(claim.state != HELD for claim in self.claims.held.values())


ClaimMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestClaimMachine = ClaimMachine.TestCase
