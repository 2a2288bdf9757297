"""Every executor of ours against its suite."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from celeriac.testing.conformance.executor import ExecutorSuite
from celeriac.testing.conformance.executor_children import ChildrenSuite
from celeriac.testing.conformance.executor_greenlets import GreenletsSuite


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


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
class TestAsyncioOnUvloop(TestAsyncio):
    loop = "uvloop"


class TestSolo(ExecutorSuite):
    pool = "solo"


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
class TestGevent(GreenletsSuite):
    pool = "gevent"
    slots_per_child = 3


@pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
class TestEventlet(GreenletsSuite):
    pool = "eventlet"
    slots_per_child = 3
