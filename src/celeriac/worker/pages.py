"""What ``/live``, ``/ready`` and ``/metrics`` say.

Read by the thread of the probes; nothing here touches the worker.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from celeriac.executors.base import Failed, Ignored, Rejected, WantsRetry
from celeriac.rules.health import Patience, not_ready, wedged
from celeriac.wire.metrics_text import CONTENT_TYPE, MetricsText
from celeriac.worker.meter import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.worker.commands.state import Counts
    from celeriac.worker.meter import Meter, Tally
    from celeriac.worker.vitals import Watch

_TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    status: int
    content_type: str
    text: str


class Pages:
    """Makes pages. ``control`` and ``unheard``: what became of control messages, how many events could not be sent."""

    def __init__(
        self, meter: Meter, watch: Watch, patience: Patience, labels: dict[str, str], clock: Clock,
        control: Counts | None = None, unheard: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._meter = meter
        self._watch = watch
        self._patience = patience
        self._labels = labels
        self._clock = clock
        self._control = control
        self._unheard = unheard
        self._started_at = clock.time()

    def find(self, path: str) -> Page | None:
        """The page of this path; None: there is none."""
        match path:
            case "/live":
                return _verdict("live", self._wedged())
            case "/ready":
                return _verdict("ready", not_ready(self._watch.vitals, self._clock.monotonic(), self._patience))
            case "/metrics":
                self._watch.read_at = self._clock.monotonic()
                return Page(200, CONTENT_TYPE, str(self._metrics()))
            case _:
                return None

    def _wedged(self) -> list[str]:
        return wedged(self._watch.vitals, self._clock.monotonic(), self._patience)

    def _metrics(self) -> MetricsText:
        made = MetricsText()
        self._add_worker(made)
        self._add_tasks(made)
        self._add_troubles(made)
        _add_process(made, self._started_at)
        return made

    def _add_worker(self, made: MetricsText) -> None:
        figures, vitals, now = self._watch.figures, self._watch.vitals, self._clock.monotonic()
        beat = 0.0 if vitals is None else now - vitals.at
        made.add("celeriac_worker_info", "gauge", "What this worker is; always 1.", [(self._labels, 1)])
        made.add("celeriac_worker_live", "gauge", "1: not wedged, as /live says.", int(not self._wedged()))
        ready = not not_ready(vitals, now, self._patience)
        made.add("celeriac_worker_ready", "gauge", "1: takes messages, as /ready says.", int(ready))
        connected = vitals is not None and vitals.is_connected
        made.add("celeriac_worker_broker_connected", "gauge", "1: connected to the broker.", int(connected))
        made.add("celeriac_worker_slots", "gauge", "Tasks that can run at one time.", figures.slots)
        made.add("celeriac_worker_processes", "gauge", "Processes of the pool that take work.", figures.processes)
        made.add("celeriac_worker_tasks_active", "gauge", "Tasks that run now.", figures.running)
        made.add(
            "celeriac_worker_messages",
            "gauge",
            "Messages held: prefetched, to be run; kept until their time; run, with the outcome not yet written.",
            [({"state": "prefetched"}, figures.ready), ({"state": "scheduled"}, figures.later),
             ({"state": "unwritten"}, figures.unwritten)],
        )  # fmt: skip
        # a loop that stands still cannot say so
        lag = max(figures.lag, beat - self._watch.interval)
        made.add("celeriac_worker_loop_lag_seconds", "gauge", "The event loop's longest delay of the last minute.", lag)
        queues = sorted(dict(self._watch.queues).items())
        made.add(
            "celeriac_queue_length",
            "gauge",
            "Messages that wait in the broker, counted every 15 s while somebody asks.",
            [({"queue": name}, count) for name, count in queues],
        )

    def _add_tasks(self, made: MetricsText) -> None:
        tallies = sorted(dict(self._meter.tallies).items())

        def count(name: str, text: str, of: Callable[[Tally], int]) -> None:
            made.add(
                f"celeriac_task_{name}_total", "counter", text,
                [({"task": task}, of(tally)) for task, tally in tallies],
            )  # fmt: skip

        received = sorted(dict(self._watch.received()).items())
        made.add(
            "celeriac_task_received_total", "counter", "Messages taken up, to be run.",
            [({"task": task}, number) for task, number in received],
        )  # fmt: skip
        count("started", "Attempts begun.", lambda tally: max(tally.started, tally.ended()))
        count("succeeded", "Attempts that succeeded.", lambda tally: tally.succeeded)
        count("failed", "Attempts that failed for good.", lambda tally: tally.endings[Failed] + tally.lost_for_good)
        count("retried", "Attempts that asked for another.", lambda tally: tally.endings[WantsRetry])
        count("ignored", "Attempts that raised Ignore.", lambda tally: tally.endings[Ignored])
        count("rejected", "Attempts that raised Reject.", lambda tally: tally.endings[Rejected])
        count("revoked", "Tasks revoked, before they ran or while.", lambda tally: tally.revoked)
        count("expired", "Tasks dropped because they came too late.", lambda tally: tally.expired)
        count("lost", "Attempts whose process was lost or ended.", lambda tally: tally.lost)
        count("dead", "Tasks buried as dead letters.", lambda tally: tally.dead)
        made.add_histogram(
            "celeriac_task_runtime_seconds", "How long attempts ran.", BOUNDS,
            [({"task": task}, list(tally.buckets), tally.seconds) for task, tally in tallies],
        )  # fmt: skip
        meter = self._meter
        made.add_histogram(
            "celeriac_task_prefetch_seconds", "How long messages waited in the worker; one in 50 ms is measured.",
            BOUNDS, [({}, list(meter.wait_buckets), meter.wait_seconds)],
        )  # fmt: skip

    def _add_troubles(self, made: MetricsText) -> None:
        meter, control = self._meter, self._control
        by_queue = (
            ("quarantined", "Messages that could not be understood, set aside.", meter.quarantined),
            ("dead", "Messages buried as dead letters.", meter.dead),
        )
        for name, text, counter in by_queue:
            made.add(
                f"celeriac_messages_{name}_total", "counter", text,
                [({"queue": queue}, number) for queue, number in sorted(dict(counter).items())],
            )  # fmt: skip
        numbers = (
            ("leases_lost", "Messages no longer held here while their task ran.", meter.leases_lost),
            ("processes_started", "Processes of the pool started after the first ones.", meter.processes_started),
            ("processes_crashed", "Processes of the pool that ended unasked.", meter.processes_crashed),
            ("processes_retired", "Processes of the pool that ended as they should.", meter.processes_exited),
            ("broker_errors", "Connections to the broker that failed or broke.", meter.broker_errors),
            ("broker_reconnects", "Connections to the broker that came back.", meter.reconnects),
            ("write_failures", "Attempts to write outcomes that failed; they are tried again.", meter.settle_failures),
            ("service_failures", "Parts of the worker that failed and were started again.", meter.service_failures),
            ("events_unsent", "Events and replies that the broker did not take.", self._unheard()),
        )
        for name, text, number in numbers:
            made.add(f"celeriac_worker_{name}_total", "counter", text, number)
        answered, refused = (0, 0) if control is None else (control.answered, control.refused)
        made.add(
            "celeriac_control_requests_total", "counter", "Requests of remote control; refused: they changed nothing.",
            [({"outcome": "answered"}, answered), ({"outcome": "refused"}, refused)],
        )  # fmt: skip


def _verdict(what: str, reasons: list[str]) -> Page:
    if not reasons:
        return Page(200, _TEXT, f"{what}\n")
    return Page(503, _TEXT, "".join(f"not {what}: {reason}\n" for reason in reasons))


def _add_process(made: MetricsText, started_at: float) -> None:
    """As Prometheus' own clients name them; of the worker's own process, not of its pool."""
    times = os.times()
    made.add("process_cpu_seconds_total", "counter", "Processor time.", times.user + times.system)
    made.add("process_start_time_seconds", "gauge", "When it started, since the epoch.", started_at)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError, IndexError):  # not on every system
        return
    made.add("process_resident_memory_bytes", "gauge", "Resident memory.", resident)
    made.add("process_open_fds", "gauge", "Open file descriptors.", descriptors)
