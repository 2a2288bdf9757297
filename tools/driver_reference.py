"""Writes docs/reference/drivers.md from the drivers' capabilities: ``python tools/driver_reference.py [--check]``.

The same facts choose the engine's paths and the conformance tests, so the page says what is tested.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from celeriac import plugins
from celeriac.results.base import StoreCapabilities
from celeriac.transports.base import Capabilities
from written_page import main, table

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "drivers.md"

HEAD = """\
# Brokers and result stores

<!-- Written by tools/driver_reference.py from the capabilities that the drivers declare; change those instead. -->

What each driver can do. The engine chooses its ways by these facts; the conformance suites in `celeriac.testing` test
them against the real server. What the promises mean is in [guarantees](../explanation/guarantees.md).
"""

#: driver class → what readers call it
BROKER_NAMES = {
    "AmqpTransport": "RabbitMQ", "RedisTransport": "Redis", "SqliteTransport": "SQLite (embedded)",
    "MemoryTransport": "memory",
}  # fmt: skip
STORE_NAMES = {
    "SqliteStore": "SQLite (embedded)", "RedisStore": "Redis", "RpcStore": "rpc", "MemoryStore": "memory",
    "DisabledStore": "disabled",
}  # fmt: skip


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _priorities(facts: Capabilities) -> str:
    if not facts.priorities:
        return "none"
    levels = "any number" if facts.priorities > 1000 else f"{facts.priorities} levels"
    return f"{levels}, {'highest' if facts.highest_priority_first else 'lowest'} number first"


def _delays(facts: Capabilities) -> str:
    if not facts.delays:
        return "held by the worker"
    longest = "" if facts.max_delay is None else f", up to {facts.max_delay / 86400:,.0f} days"
    exact = f"; the last {facts.delay_resolution:g} s in the worker" if facts.delay_resolution else ""
    return f"kept by the broker{longest}{exact}"


def _bytes(limit: int | None) -> str:
    return "no limit of its own" if limit is None else f"{limit / 1_000_000:,.0f} MB"


BROKER_ROWS: Mapping[str, Callable[[Capabilities], str]] = {
    "accepted means stored": lambda facts: _yes(facts.confirms),
    "messages survive a restart of the broker": lambda facts: _yes(facts.survives_restart),
    "Celery's workers may be there too": lambda facts: _yes(facts.celery),
    "work of a dead worker comes back by itself": lambda facts: _yes(facts.leases),
    "starts are counted, so a killer task ends": lambda facts: _yes(facts.counts_attempts),
    "dead letters and quarantine": lambda facts: _yes(facts.dead_letters),
    "ETA, countdown and retry delays": _delays,
    "priorities": _priorities,
    "first in, first out within a priority": lambda facts: _yes(facts.ordered),
    "remote control and events": lambda facts: _yes(facts.fanout),
    "largest message": lambda facts: _bytes(facts.max_body_bytes),
}

STORE_ROWS: Mapping[str, Callable[[StoreCapabilities], str]] = {
    "any process can read a result": lambda facts: _yes(facts.persistent),
    "removes expired results itself": lambda facts: _yes(facts.expires),
    "tells waiters at once": lambda facts: "yes" if facts.watch else "no, they ask again",
    "saved groups": lambda facts: _yes(facts.groups),
    "largest result": lambda facts: _bytes(facts.max_record_bytes),
}


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## Brokers", "", *_matrix("transport", BROKER_NAMES, BROKER_ROWS)]
    lines += ["## Result stores", "", *_matrix("result_store", STORE_NAMES, STORE_ROWS)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _matrix(kind: str, names: Mapping[str, str], rows: Mapping[str, Callable[[Any], str]]) -> list[str]:
    drivers = _drivers(kind)
    titles = [names[driver.__name__] for driver in drivers]
    urls = ["URL", *(", ".join(f"`{scheme}`" for scheme in schemes) for schemes in drivers.values())]
    facts = [[label, *(tell(driver.capabilities) for driver in drivers)] for label, tell in rows.items()]
    return table(["", *titles], [urls, *facts])


def _drivers(kind: str) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for scheme, entry in plugins.CATALOGUE[kind].items():
        found.setdefault(plugins.resolve(entry.target), []).append(scheme)
    return found


if __name__ == "__main__":
    sys.exit(main(PAGE, page, __doc__))
