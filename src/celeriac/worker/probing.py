"""The probes of one worker, composed. None of it is there unless it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.worker.meter import Meter
from celeriac.worker.pages import Pages
from celeriac.worker.probes import Probes
from celeriac.worker.vitals import Watch

if TYPE_CHECKING:
    from celeriac.worker.assembly import Parts, Pipeline, Show
    from celeriac.worker.intake import Watchdog
    from celeriac.worker.supervisor import Service


def probes_of(pipeline: Pipeline, watchdog: Watchdog, parts: Parts, show: Show | None) -> list[Service]:
    """The services, to be started before all others and stopped after them; empty where nobody wants probes."""
    plan, clock = parts.plan, parts.clock
    if plan.probes is None:
        return []
    from celeriac import __version__

    meter = Meter(pipeline.claims, pipeline.facts, clock)
    pipeline.intake.on_received = meter.take_in
    pipeline.endings.on_outcomes = meter.take_out
    watch = Watch(
        meter, pipeline.session, pipeline.intake, watchdog, pipeline.settle, pipeline.claims, parts.executor,
        parts.transport, plan.patience, clock,
    )  # fmt: skip
    labels = {"hostname": plan.hostname, "pool": plan.pool, "version": __version__}
    if show is not None:
        labels["app"] = show.options.app_name
    plane = pipeline.plane
    pages = Pages(
        meter, watch, plan.patience, labels, clock, None if plane is None else plane.counts,
        (lambda: 0) if plane is None else lambda: plane.unheard,
    )  # fmt: skip
    return [watch, Probes(plan.probes, pages)]
