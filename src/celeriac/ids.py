"""Identifiers: tasks, leases, nodes.

Task ids are UUID text as Celery's clients make them, of the kind that begins with the time (version 7): indexes by
task id then grow at one end instead of everywhere. Drawing the noise in blocks from the kernel keeps ``delay`` cheap.
Fork-safe: a child never repeats its parent's ids.
"""

from __future__ import annotations

import os
import re
import threading
from itertools import count
from time import time

#: what an identifier that comes from outside may look like (semantics SR6)
_SAFE_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,255}\Z")

_BLOCK = 64
#: of RFC 9562: two fixed bits, and two that are noise, in the place of one hexadecimal digit
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_lock = threading.Lock()
_pool: list[str] = []
#: the millisecond of the last id and how it is written; replaced whole
_last = (0, "")
#: what the tags of this process begin with
_process = ""


def _refill() -> None:
    noise = os.urandom(10 * _BLOCK).hex()
    _pool.extend(
        [
            f"-7{noise[at + 1 : at + 4]}-{_VARIANT[noise[at + 4]]}{noise[at + 5 : at + 8]}-{noise[at + 8 : at + 20]}"
            for at in range(0, len(noise), 20)
        ]
    )


def task_id() -> str:
    """A new UUID7 (RFC 9562) as text: 48 bits of milliseconds, 74 random bits. Thread-safe.

    The time matters to the embedded file: with random ids, the results of one batch of 64 went to 64 pages of the
    index, and each page is written twice (``benchmarks/sqlite_transport.py``: commit 64, 15.5 µs → 10 µs of CPU).
    """
    global _last
    try:
        tail = _pool.pop()
    except IndexError:
        with _lock:
            _refill()
        return task_id()
    now = int(time() * 1000)
    moment, text = _last
    if moment != now:
        text = f"{now >> 16:08x}-{now & 0xFFFF:04x}"
        _last = now, text
    return text + tail


def unique_tag() -> str:
    """Text that nobody else writes, at a quarter of the price of an id: of this process, and counted. Thread-safe.

    For what has to be told apart and need not be guarded from being guessed, such as delivery tags.
    """
    return f"{_process}-{next(_numbers):x}"


def _renew() -> None:
    global _process
    _pool.clear()
    _process = os.urandom(12).hex()


_numbers = count()
_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def is_safe_id(text: object) -> bool:
    """Whether ``text`` may be used as a key, a file name or a row id (SR6: ≤ 255 of ``[A-Za-z0-9_.:@-]``)."""
    return isinstance(text, str) and _SAFE_ID.match(text) is not None


def host_name() -> str:
    import socket  # late: only who sends or serves needs it, and it is dear to import

    return socket.gethostname()


def anonymous_node() -> str:
    """``gen<pid>@<host>``: how a client signs the messages it sends (the ``origin`` header)."""
    return f"gen{os.getpid()}@{host_name()}"


def node_name(name: str | None, default: str = "celery") -> str:
    """A worker's full node name from what the user gave (``None``, ``w1``, ``w1@%h``), with Celery's expansions.

    ``%h`` full host, ``%n`` name part, ``%d`` domain, ``%%`` a percent. Text without ``@`` is the host part.
    """
    host = host_name()
    given = name or f"{default}@%h"
    left, at, right = given.partition("@")
    if not at:
        left, right = default, given
    short = left or default
    table = {"%h": host, "%n": short, "%d": host.partition(".")[2], "%%": "%"}
    return re.sub(r"%[hnd%]", lambda found: table[found[0]], f"{short}@{right}")
