"""Every executor of ours against its suite."""

from __future__ import annotations

from celeriac.testing.conformance.executor import ExecutorSuite
from celeriac.testing.conformance.executor_children import ChildrenSuite


class TestPrefork(ChildrenSuite):
    pool = "prefork"


class TestPreforkOfTwo(ChildrenSuite):
    pool = "prefork"
    children = 2


class TestThreads(ChildrenSuite):
    pool = "threads"
    slots_per_child = 3


class TestAsyncio(ChildrenSuite):
    pool = "asyncio"
    slots_per_child = 3


class TestSolo(ExecutorSuite):
    pool = "solo"
