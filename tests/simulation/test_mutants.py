"""The simulation can fail: an engine that is broken on purpose is found within a few dozen seeds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.rules import acking
from celeriac.transports.base import ACK, Settlement
from celeriac.worker import claims as claims_module
from celeriac.worker.admit import Admission
from celeriac.worker.cancelling import Cancelling
from celeriac.worker.claims import Claims
from celeriac.worker.gate import Gate
from celeriac.worker.intake import Intake
from celeriac.worker.leases import Leases
from celeriac.worker.session import Session
from celeriac.worker.settle import Settle, _Batch
from celeriac.worker.shutdown import Shutdown
from scorecard.simulation import broker
from scorecard.simulation.seeds import examine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: seeds within which each mutant has to be found; most are within ten.
SEEDS = 60
#: where looking for those begins that only few seeds find
FIRST = {
    "takes_what_was_to_be_given_back_for_done": 230, "drops_what_it_held_at_the_stop": 75,
    "starts_what_has_expired": 30,
}  # fmt: skip


def settles_before_it_stores(patch: pytest.MonkeyPatch) -> None:
    async def write_once(self: Any, batch: Any) -> None:
        records, sends = batch.records_and_sends()
        consumer = await self._session.consumer()
        lost = await consumer.settle(batch.settlements())
        await self._write_apart_from_broker(batch, records, sends)
        self._finish(batch, lost)

    patch.setattr(Settle, "_write_once", write_once)


def never_renews(patch: pytest.MonkeyPatch) -> None:
    async def renew(self: Any) -> None:
        pass

    patch.setattr(Leases, "renew", renew)


def forgets_what_waits_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Claims, "_promote", lambda self, task_id: self._behind.pop(task_id))


def runs_a_second_message_beside_the_first(patch: pytest.MonkeyPatch) -> None:
    def add_again(self: Any, claim: Any, redelivered: bool) -> bool:
        self.held[claim.id] = claim
        self.add_ready([claim])
        return False

    patch.setattr(Claims, "add_again", add_again)


def gives_back_what_runs(patch: pytest.MonkeyPatch) -> None:
    async def end(self: Any, consumer: Any) -> None:
        with contextlib.suppress(broker.OperationalError):
            await consumer.close()

    patch.setattr(Session, "_end", end)


def takes_what_was_to_be_given_back_for_done(patch: pytest.MonkeyPatch) -> None:
    def remember_done(self: Any, claims: Any) -> None:
        for claim in claims:
            self._done[claim.id] = claims_module._retries(claim.request), ACK

    patch.setattr(Claims, "remember_done", remember_done)


def drops_what_it_held_at_the_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shutdown, "_release", lambda self, claims: None)

    async def nothing(self: Any) -> None:
        pass

    patch.setattr(Session, "close", nothing)


def loses_a_fetch(patch: pytest.MonkeyPatch) -> None:
    real = Intake._take
    count = 0

    async def take(self: Any, deliveries: Sequence[Any]) -> None:
        nonlocal count
        count += 1
        if count % 7:
            await real(self, deliveries)

    patch.setattr(Intake, "_take", take)


def counts_a_lost_process_as_success(patch: pytest.MonkeyPatch) -> None:
    from celeriac.worker import endings

    patch.setattr(endings, "after_loss", lambda *_: acking.Loss(acking.Fate.ACK, None))


def ignores_revocations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cancelling, "obey", lambda self, standing: None)


def starts_what_has_expired(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "unexpired", lambda self, taken: taken)


def starts_before_its_time(patch: pytest.MonkeyPatch) -> None:
    from celeriac.worker import admit

    real = admit.decide

    def decide(headers: Any, *arguments: Any, **named: Any) -> Any:
        return real({**headers, "eta": None}, *arguments, **named)

    patch.setattr(admit, "decide", decide)


def publishes_follow_ups_after_the_settlement_only_once(patch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = _Batch.records_and_sends

    def records_and_sends(self: Any) -> Any:
        records, sends = real(self)
        for claim in (*self.finished, *self.dropped):
            claim.sends = None  # a second attempt has none
        return records, sends

    patch.setattr(_Batch, "records_and_sends", records_and_sends)


def starts_without_a_permit(patch: pytest.MonkeyPatch) -> None:
    from celeriac.worker.limited import Limited

    patch.setattr(Limited, "applies", lambda self, claim: False)


def never_rests(patch: pytest.MonkeyPatch) -> None:
    async def rest(self: Any, now: float) -> None:
        await self._clock.sleep(0.001)

    patch.setattr(Gate, "_rest", rest)


def acknowledges_what_was_only_received(patch: pytest.MonkeyPatch) -> None:
    async def take(self: Any, deliveries: Sequence[Any]) -> None:
        consumer = await self._session.consumer()
        try:
            await consumer.settle([Settlement(delivery.receipt, ACK) for delivery in deliveries])
        except broker.OperationalError as error:
            self._session.fail(self._session.epoch, error)
        self._admission.admit(deliveries)
        self._dispatch.pump()

    patch.setattr(Intake, "_take", take)


MUTANTS = [
    settles_before_it_stores, never_renews, forgets_what_waits_behind, runs_a_second_message_beside_the_first,
    gives_back_what_runs, takes_what_was_to_be_given_back_for_done, drops_what_it_held_at_the_stop, loses_a_fetch,
    counts_a_lost_process_as_success, ignores_revocations, starts_what_has_expired, starts_before_its_time,
    publishes_follow_ups_after_the_settlement_only_once, starts_without_a_permit, never_rests,
    acknowledges_what_was_only_received,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_is_found(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    first = FIRST.get(mutant.__name__, 0)
    found = any(examine(seed).error is not None for seed in range(first, first + SEEDS))
    assert found, f"{mutant.__name__}: {SEEDS} seeds and nobody has noticed"
