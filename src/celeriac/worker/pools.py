"""The executor that a plan asks for: of one pool, or of several as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import Resizable
from celeriac.executors.placing import place_tasks, told_of_strays
from celeriac.executors.selection import executor_class
from celeriac.executors.several import SeveralPools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celeriac.executors.base import Executor, Loader, PoolOptions, Runnable
    from celeriac.worker.options import Plan


def executor_of(
    numbers: Plan, usual: PoolOptions, tasks: Mapping[str, Runnable], loader: Loader
) -> tuple[Executor, str]:
    """It, and what is to be said of it when the worker starts. ``usual``: all of the options but the shape.

    Raises ``ImproperlyConfigured`` for what can't work.
    """
    shapes = numbers.pools or (numbers.shape(),)
    names = [shape.pool for shape in shapes]
    pools: list[Executor] = [
        executor_class(shape.pool)(
            msgspec.structs.replace(
                usual, pool=shape.pool, children=shape.children, slots_per_child=shape.slots_per_child
            ),
            loader,
        )
        for shape in shapes
    ]
    if numbers.autoscale is not None and not isinstance(pools[0], Resizable):
        raise ImproperlyConfigured(f"--autoscale: pool {names[0]!r} cannot change its size")
    placement = place_tasks(tasks, names)
    executor = pools[0] if len(pools) == 1 else SeveralPools(names, pools, placement.places)
    return executor, told_of_strays(placement, names[0])
