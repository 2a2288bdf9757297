"""What a worker says when it starts: where it works, from what, how, and on which tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celeriac.worker.options import Plan, PoolShape

#: names of tasks that come with the project; the banner shows the user's
_BUILT_IN = "celery."


def _shown(pool: PoolShape) -> str:
    return pool.pool if pool.slots_per_child == 1 else f"{pool.pool}, {pool.children} x {pool.slots_per_child}"


def _range(autoscale: tuple[int, int]) -> str:
    return "{{min={1}, max={0}}}".format(*autoscale)


def banner(
    plan: Plan, version: str, app_name: str, transport: str, results: str, task_names: Iterable[str],
    delivers_late: bool, task_events: bool, show_tasks: bool,
) -> str:  # fmt: skip
    """The text. ``transport`` and ``results`` are URLs with their secrets already masked."""
    delivery = "at least once" if delivers_late else "at most once (task_acks_late is off)"
    pool, size = _shown(plan.shape()), str(plan.slots)
    if plan.pools:
        sizes = [str(one.slots) for one in plan.pools]
        if plan.autoscale is not None:
            sizes[0] = _range(plan.autoscale)
        pool = "; ".join(f"{number} {_shown(one)}" for number, one in zip(sizes, plan.pools, strict=True))
    elif plan.autoscale is not None:
        size = _range(plan.autoscale)
    lines = [
        f"{plan.hostname}  celeriac {version}",
        "",
        "[config]",
        f".> app:         {app_name}",
        f".> transport:   {transport}",
        f".> results:     {results}",
        f".> concurrency: {size} ({pool})",
        f".> delivery:    {delivery}",
        f".> task events: {'ON' if task_events else 'OFF (enable -E to monitor tasks in this worker)'}",
    ]
    if plan.probes is not None:
        lines.append(f".> probes:      http://{plan.probes}/live /ready /metrics")
    lines += ["", "[queues]"]
    width = max((len(queue.name) for queue in plan.queues), default=0)
    for queue in plan.queues:
        exchange, key = queue.exchange or queue.name, queue.routing_key or queue.name
        lines.append(f".> {queue.name:<{width}}  exchange={exchange}({queue.exchange_type}) key={key}")
    if show_tasks:
        lines += ["", "[tasks]"]
        lines += [f"  . {name}" for name in sorted(task_names) if not name.startswith(_BUILT_IN)]
    return "\n".join(lines) + "\n"
