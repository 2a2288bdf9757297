"""Outcomes → results, follow-up messages, acknowledgements: one batch, in this order, or one transaction.

While one batch is being written the next gathers. A failure leaves the messages unacknowledged and the outcomes
here: they are tried again with back-off, everything written is idempotent, and a backlog stops the intake.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from celeriac import telemetry
from celeriac.errors import (
    BackendError,
    BrokerFull,
    OperationalError,
    PublishRejected,
    ResultTooLarge,
    Unroutable,
)  # fmt: skip
from celeriac.results.base import loop_writing
from celeriac.rules.claim import DROPPED, advance
from celeriac.rules.retry import reconnect_delay
from celeriac.transports.base import Settlement
from celeriac.worker.claims import Claim
from celeriac.worker.endings import give_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from celeriac.clock import Clock
    from celeriac.results.base import LoopWriter, ResultStore
    from celeriac.transports.base import Outgoing, Publisher, Receipt, Transport
    from celeriac.wire.result_record import ResultRecord
    from celeriac.worker.claims import Claims
    from celeriac.worker.lane import Lane
    from celeriac.worker.options import Plan
    from celeriac.worker.session import Session

logger = logging.getLogger("celeriac.worker")

#: seconds over which the pace (outcomes per second) is averaged
_PACE_WINDOW = 0.25
#: attempts at one settlement under one consumer before that is built anew
_PATIENCE = 3
#: seconds that outcomes wait for company in a crowd: one write costs as much as twenty outcomes in it
_GATHER = 0.003
#: so many outcomes must be likely within that time for it to be worth while, and so many are company enough
_WORTH, _COMPANY = 16, 192
#: tasks still held here and not ended that make a crowd. Fewer: their callers may be waiting for these very outcomes
_CROWD = 64


class Settle:
    """Owns the outcomes that are not written yet."""

    name = "settle"

    def __init__(
        self, session: Session, claims: Claims, transport: Transport, outlet: Transport, store: ResultStore | None,
        plan: Plan, lane: Lane, clock: Clock, random: Random,
    ) -> None:  # fmt: skip
        self._session = session
        self._claims = claims
        self._outlet = outlet
        self._store = store
        self._looped = loop_writing(store)
        self._shares_engine = store is not None and store.engine_key == transport.engine_key
        #: follow-ups go to the broker that the messages come from, so that one transaction can hold both
        self._sends_here = outlet is transport or outlet.engine_key == transport.engine_key
        self._plan = plan
        self._lane = lane
        self._clock = clock
        self._random = random
        self._publisher: Publisher | None = None
        self._writer: LoopWriter | None = None
        self._finished: list[Claim] = []
        self._dropped: list[Claim] = []
        self._writing = 0
        self._under_way: _Batch | None = None
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._pace_since = self._last_at = clock.monotonic()
        self._pace_count = 0
        self.pace = 0.0  #: outcomes per second, of late
        self.on_settled: Callable[[], None] = lambda: None
        self.settled = 0

    def pace_now(self) -> float:
        """:attr:`pace`, or less when nothing has ended for a while."""
        quiet = self._clock.monotonic() - self._last_at
        return self.pace if quiet < 2 * _PACE_WINDOW else min(self.pace, 1.0 / quiet)

    @property
    def backlog(self) -> int:
        """How many outcomes are not written yet."""
        return len(self._finished) + len(self._dropped) + self._writing

    def add_finished(self, claims: list[Claim]) -> None:
        """Claims whose verdict, record and follow-ups are known."""
        self._finished.extend(claims)
        self._pace_count += len(claims)
        self._last_at = self._clock.monotonic()
        elapsed = self._last_at - self._pace_since
        if elapsed >= _PACE_WINDOW:
            self.pace = self._pace_count / elapsed
            self._pace_count = 0
            self._pace_since += elapsed
        self._wake.set()
        self._empty.clear()

    def add_dropped(self, claim: Claim) -> None:
        """A claim that is out of the table and has only to be told to the broker."""
        self._dropped.append(claim)
        self._wake.set()
        self._empty.clear()

    def dropped(self) -> list[Claim]:
        """What is to be told to the broker and stands in no other table: it has to be kept ours until then."""
        under_way = self._under_way
        dropped = self._dropped if under_way is None else [*under_way.dropped, *self._dropped]
        return [claim for claim in dropped if claim.receipt is not None]

    def add_released(self, claims: list[Claim]) -> None:
        """Claims that are to go back unstarted."""
        if claims:
            self._dropped.extend(claims)
            self._wake.set()
            self._empty.clear()

    async def flushed(self, timeout: float) -> bool:
        """Wait until everything is written; whether it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            if self._under_way is None:
                await self._wake.wait()
                if self._is_crowded():
                    await self._clock.sleep(_GATHER)
                self._wake.clear()
                self._under_way = self._take()
            if self._under_way is not None:
                # kept on the instance: should this service be restarted, the batch is taken up again
                await self._write(self._under_way)
                self._under_way = None
            self._writing = 0
            self.on_settled()
            if self._finished or self._dropped:
                self._wake.set()
            else:
                self._empty.set()

    def _is_crowded(self) -> bool:
        waiting = len(self._finished)
        return waiting < _COMPANY and self.pace * _GATHER >= _WORTH and len(self._claims.held) - waiting >= _CROWD

    def _take(self) -> _Batch | None:
        limit = self._plan.batch
        if len(self._finished) <= limit:
            finished, self._finished = self._finished, []
        else:
            finished, self._finished = self._finished[:limit], self._finished[limit:]
        dropped, self._dropped = self._dropped, []
        self._writing = len(finished) + len(dropped)
        return _Batch(finished, dropped) if self._writing else None

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, batch: _Batch) -> None:
        """Until it is written, or as long as the worker lives."""
        failures = 0
        while True:
            epoch = self._session.epoch
            try:
                await self._write_once(batch)
                return
            except (Unroutable, ResultTooLarge) as error:
                await self._write_apart(batch, error)
                return
            except (OperationalError, BackendError) as error:
                failures += 1
                if isinstance(error, PublishRejected) and failures > _PATIENCE:
                    await self._write_apart(batch, error)
                    return
                self._report(batch, failures, error, epoch)
            except Exception as error:
                logger.exception("writing %d outcomes failed in a way no driver should", len(batch))
                if failures >= _PATIENCE:
                    await self._write_apart(batch, error)
                    return
                failures += 1
                self._report(batch, failures, error, epoch)
            await self._clock.sleep(batch.delay)

    def _report(self, batch: _Batch, failures: int, error: Exception, epoch: int) -> None:
        batch.delay = reconnect_delay(failures, self._random)
        telemetry.emit(telemetry.SettleDelayed(count=len(batch), error=str(error), retry_in=batch.delay))
        of_broker = isinstance(error, OperationalError) and not isinstance(error, BrokerFull | PublishRejected)
        if of_broker and batch.is_at_consumer and failures % _PATIENCE == 0:
            self._session.fail(epoch, error)

    async def _write_once(self, batch: _Batch) -> None:
        records, sends = batch.records_and_sends()
        batch.is_at_consumer = False
        commits = self._session.commits
        sends_apart = () if commits is not None and self._sends_here else sends
        # what follows from a result is sent after it is stored
        if commits is None or (records and not self._shares_engine) or sends_apart:
            await self._write_apart_from_broker(batch, records, sends_apart)
        batch.is_at_consumer = True
        consumer = await self._session.consumer()
        # asked anew: the wait may have brought another consumer, and adoptions other receipts
        commits = self._session.commits
        settlements = batch.settlements()
        receipts = [claim.receipt for claim in batch.finished]
        lost: Sequence[Receipt]
        if commits is not None:
            lost = await commits.commit(
                records if self._shares_engine and not batch.is_stored else (),
                () if batch.is_published else sends,
                settlements,
            )
        else:
            if sends and not batch.is_published:
                raise OperationalError("the consumer was replaced while follow-ups were to be sent")
            lost = await consumer.settle(settlements) if settlements else ()
        self._finish(batch, lost)
        self._settle_adopted(batch, receipts)

    def _settle_adopted(self, batch: _Batch, receipts: list[Receipt]) -> None:
        """A redelivery may have been adopted while its task's outcome was on the way: that is told as well."""
        for claim, receipt in zip(batch.finished, receipts, strict=True):
            if claim.receipt is not receipt and claim.receipt is not None:
                again = Claim(claim.id, claim.request, claim.receipt, claim.route, claim.facts)
                advance(again, DROPPED)
                again.verdict = claim.verdict
                self.add_dropped(again)

    async def _write_apart_from_broker(
        self, batch: _Batch, records: Sequence[ResultRecord], sends: Sequence[Outgoing]
    ) -> None:
        store = None if batch.is_stored else self._store
        wanted_sends = () if batch.is_published else sends
        if records and store is not None and self._looped is not None:
            if self._writer is None:
                self._writer = self._looped.loop_writer()
            await self._writer.write(records)
            batch.is_stored, store = True, None
        if (records and store is not None) or wanted_sends:
            deadline = self._clock.monotonic() + self._plan.publish_timeout

            def write() -> None:
                if records and store is not None:
                    store.write(records)
                    batch.is_stored = True
                if wanted_sends:
                    self._publish(wanted_sends, deadline)
                    batch.is_published = True

            await self._lane.run(write)

    def _publish(self, sends: Sequence[Outgoing], deadline: float) -> None:
        if self._publisher is None:
            self._publisher = self._outlet.publisher()
        self._publisher.publish(sends, deadline)

    def _finish(self, batch: _Batch, lost: Sequence[Receipt]) -> None:
        self.settled += len(batch)
        unsettled = [claim for claim in batch.finished if claim.receipt is None and claim.verdict is not None]
        if lost:
            gone = set(lost)
            unsettled.extend(claim for claim in batch.finished if claim.receipt in gone)
        if unsettled:
            # written, yet the message may come again: it must not run a second time here
            self._claims.remember_done(unsettled)
            for claim in unsettled:
                telemetry.emit(telemetry.LeaseWasLost(id=claim.id, name=claim.request.task))
        self._claims.finish_settled(batch.finished)

    async def _write_apart(self, batch: _Batch, error: Exception) -> None:
        """Something in the batch can never be written: find out what, so that its neighbours don't suffer."""
        if len(batch) > 1:
            for single in batch.apart():
                await self._write(single)
            return
        claim = (batch.finished or batch.dropped)[0]
        logger.error("task %s[%s]: its outcome can't be written: %s", claim.request.task, claim.id, error)
        if batch.surrender == 2:
            # the broker does not even take that: the message comes back when its lease ends
            claim.receipt = None
            self._finish(batch, ())
            return
        give_up(claim, error, self._plan.hostname, self._clock)
        if batch.surrender == 1:
            claim.record = None
        await self._write(_Batch(batch.finished, batch.dropped, batch.surrender + 1))

    def close_writer(self) -> None:
        """On the loop."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Blocking; on the lane."""
        if self._publisher is not None:
            self._publisher.close()


class _Batch:
    """What is written together, and how far that is."""

    __slots__ = ("delay", "dropped", "finished", "is_at_consumer", "is_published", "is_stored", "surrender")

    def __init__(self, finished: list[Claim], dropped: list[Claim], surrender: int = 0) -> None:
        self.finished = finished
        self.dropped = dropped
        self.is_stored = False
        self.is_published = False
        self.is_at_consumer = False
        #: 0: as the task ended; 1: as a failure to write that, the message kept; 2: without any record
        self.surrender = surrender
        self.delay = 0.0

    def __len__(self) -> int:
        return len(self.finished) + len(self.dropped)

    def records_and_sends(self) -> tuple[list[ResultRecord], list[Outgoing]]:
        records: list[ResultRecord] = []
        sends: list[Outgoing] = []
        for claims in (self.finished, self.dropped):
            for claim in claims:
                if claim.record is not None:
                    records.append(claim.record)
                if claim.sends:
                    sends.extend(claim.sends)
        return records, sends

    def settlements(self) -> list[Settlement]:
        """With the receipts of this moment: an adoption may have brought newer ones."""
        settlements: list[Settlement] = []
        for claims in (self.finished, self.dropped):
            settlements += [
                Settlement(claim.receipt, claim.verdict)
                for claim in claims
                if claim.receipt is not None and claim.verdict is not None
            ]
        return settlements

    def apart(self) -> list[_Batch]:
        return [_Batch([claim], []) for claim in self.finished] + [_Batch([], [claim]) for claim in self.dropped]
