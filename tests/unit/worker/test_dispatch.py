"""What becomes unwanted between its admission and its start does not start, and nothing that is held is forgotten."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendStoreError
from celeriac.rules.counting import Need
from celeriac.worker.lines import Applicant, Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.unit.worker.conftest import Rig

    MakeRig = Callable[..., Rig]


def in_a_moment(seconds: float) -> tuple[float, str]:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return at.timestamp(), at.isoformat()


def test_what_expires_while_it_waits_for_a_slot_does_not_start(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "first")
            await rig.started("first")
            end, text = in_a_moment(0.5)
            rig.broker.put("app.add", "late", expires=text)
            await rig.until(lambda: rig.claims.waiting_count == 1 or rig.store.state("late"))
            await rig.until(lambda: SYSTEM_CLOCK.time() > end)
            rig.executor.finish("first")
            await rig.settled("late")
            assert rig.store.state("late") == "REVOKED"
            assert [request.id for request in rig.executor.taken] == ["first"]

    rig = make_rig(slots=1, ahead=0)
    asyncio.run(story(rig))


def test_what_is_revoked_while_it_is_acknowledged_early_does_not_start(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        real = rig.broker.apply

        def apply(batch: Sequence[Any]) -> list[int]:
            assert rig.worker.pipeline is not None
            rig.worker.pipeline.admission.revoked.add(["gone"])
            return real(batch)

        rig.broker.apply = apply  # type: ignore[method-assign]
        async with rig.running():
            rig.broker.put("app.early", "gone")
            await rig.until(lambda: rig.store.state("gone"))
            assert rig.store.state("gone") == "REVOKED"
            assert not rig.executor.taken

    asyncio.run(story(make_rig()))


def test_what_is_to_be_told_to_the_broker_is_kept_until_it_is_told(make_rig: MakeRig) -> None:
    """While the result store is away, the message of an expired task must not come back, counted as a start."""

    async def story(rig: Rig) -> None:
        rig.store.fail("write", BackendStoreError("away"), times=3)
        async with rig.running():
            _, text = in_a_moment(-1.0)
            rig.broker.put("app.add", "over", expires=text)
            await rig.until(lambda: len(rig.store.planned["write"]) < 3)
            assert [claim.id for claim in rig.claims.unsettled()] == ["over"] or rig.broker.verdicts("over")
            await rig.settled("over")
            assert not list(rig.claims.unsettled())

    asyncio.run(story(make_rig()))


def test_lines_that_everybody_has_left_are_not_due() -> None:
    """The gate would wake a thousand times a second for them."""
    lines = Lines(0.0)
    line = lines.of(Need("key", most=1), 0.0)
    lines.join(Applicant(None, (), "x"), line, first=False)  # type: ignore[arg-type]  # nobody asks whose it is
    assert lines.due(1.0) == [line]
    lines.leave()
    assert lines.due_at == float("inf")
    assert not lines.busy()
    assert not line.waiting
