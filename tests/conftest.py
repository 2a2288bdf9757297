"""What every test run has: a loud word on what was not run."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from celeriac.testing.servers import RabbitServer, RedisServer, ServerMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


# What people have who install nothing more; the tests of uvloop name it.
os.environ["CELERIAC_WORKER_LOOP"] = "asyncio"
# A shell that starts this in the background has SIGINT ignored, which every process below would inherit: the tests
# of Ctrl-C need what a terminal gives.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: workers would take it for their user's wish
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# A machine at work takes its time for an example, and for thinking of one. The same examples every time: who looks for
# new ones says HYPOTHESIS_PROFILE=search.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", settings.get_profile("patient"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))


def _redis() -> Iterator[RedisServer]:
    try:
        server = RedisServer()
    except ServerMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A private Redis for the whole run; take a database or a key prefix of your own."""
    yield from _redis()


@pytest.fixture(scope="module")
def private_redis() -> Iterator[RedisServer]:
    """A Redis of the module's own, for tests that empty, configure or kill it."""
    yield from _redis()


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """A private RabbitMQ for the whole run; take a virtual host of your own (``add_vhost``)."""
    try:
        server = RabbitServer()
    except ServerMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests by reason, as the last thing that is read."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
        reasons[reason.removeprefix("Skipped: ")] += 1
    if not reasons:
        return
    terminalreporter.section(f"{reasons.total()} TESTS DID NOT RUN", sep="!", yellow=True, bold=True)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5}  {reason}")


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The garbage collector stands still."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
