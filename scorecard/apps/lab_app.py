"""The app of the laboratory, the same for celeriac and for Celery: ``LAB_PRODUCT`` says which library it is made with.

Its tasks write down their start and their end and do what they are told in between.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import re
import signal
import time
from typing import Any

import record

if os.environ["LAB_PRODUCT"] == "celery":
    from celery import Celery as App  # type: ignore[import-not-found]
else:
    from celeriac import Celeriac as App

app: Any = App("lab", broker=os.environ["LAB_BROKER"], backend=os.environ.get("LAB_BACKEND") or None)
app.conf.update(json.loads(os.environ.get("LAB_SETTINGS", "{}")))


def began(request: Any) -> None:
    record.note(
        "start", id=request.id, attempt=request.retries or 0, delivery=getattr(request, "delivery", 0) or 0,
    )  # fmt: skip


def ended(request: Any, value: Any) -> Any:
    record.note("end", id=request.id, attempt=request.retries or 0, value=value)
    return value


@app.task(bind=True, name="lab.mark")
def mark(self: Any, n: int, seconds: float = 0.0, spin: float = 0.0) -> int:
    """Sleep or keep the processor busy, and return ``n``."""
    began(self.request)
    if seconds:
        time.sleep(seconds)
    until = time.monotonic() + spin
    while spin and time.monotonic() < until:
        pass
    return ended(self.request, n)  # type: ignore[no-any-return]


@app.task(bind=True, name="lab.flaky", max_retries=1000)
def flaky(self: Any, n: int, times: int = 1, countdown: float = 0.0, seconds: float = 0.0) -> int:
    """Ask for ``times`` retries, then return how many there were."""
    began(self.request)
    if seconds:
        time.sleep(seconds)
    if self.request.retries < times:
        record.note("retry", id=self.request.id, attempt=self.request.retries)
        raise self.retry(exc=RuntimeError("not yet"), countdown=countdown)
    return ended(self.request, self.request.retries)  # type: ignore[no-any-return]


@app.task(bind=True, name="lab.die")
def die(self: Any, n: int) -> int:
    """Take the process down, always."""
    began(self.request)
    record.note("fault", what="a task killed its process", pids=[os.getpid()])
    os.kill(os.getpid(), signal.SIGKILL)
    return n


@app.task(bind=True, name="lab.swallow")
def swallow(self: Any, n: int, load: Any = None) -> int:
    """Take any argument and look at none of it."""
    began(self.request)
    return ended(self.request, n)  # type: ignore[no-any-return]


@app.task(bind=True, name="lab.hold")
def hold(self: Any, n: int, seconds: float = 1.0, how: str = "call") -> int:
    """Keep the interpreter's lock for so long, in C: nothing else in this process can run Python meanwhile."""
    began(self.request)
    if how == "regex":
        _match_for(seconds)
    else:
        # PyDLL, unlike CDLL, does not let go of the lock
        ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
    return ended(self.request, n)  # type: ignore[no-any-return]


def _match_for(seconds: float) -> None:
    """One search that takes at least ``seconds``: each further letter doubles the work."""
    letters, took = 16, 0.0
    while took < 0.05:
        letters += 1
        at = time.thread_time()  # whatever else the machine does meanwhile
        re.match("(a+)+$", "a" * letters + "b")
        took = time.thread_time() - at
    re.match("(a+)+$", "a" * (letters + math.ceil(math.log2(seconds / took))) + "b")


@app.task(bind=True, name="lab.endure")
def endure(self: Any, n: int, how: str = "sleep", seconds: float = 2.0) -> int:
    """Last so long: asleep, computing, or in a call to C that heeds nobody and leaves the interpreter's lock alone."""
    began(self.request)
    until = time.monotonic() + seconds
    if how == "sleep":
        time.sleep(seconds)
    elif how == "call":
        while (left := until - time.monotonic()) > 0:
            ctypes.CDLL(None).poll(None, 0, max(1, int(left * 1000)))
    else:
        while time.monotonic() < until:
            pass
    return ended(self.request, n)  # type: ignore[no-any-return]


if os.environ["LAB_PRODUCT"] != "celery":

    @app.task(bind=True, name="lab.aendure")
    async def aendure(self: Any, n: int, how: str = "sleep", seconds: float = 2.0) -> int:
        """The same in a coroutine: waiting, or never waiting."""
        began(self.request)
        until = time.monotonic() + seconds
        if how == "sleep":
            await asyncio.sleep(seconds)
        while time.monotonic() < until:
            pass
        return ended(self.request, n)  # type: ignore[no-any-return]


@app.task(bind=True, name="lab.fail")
def fail(self: Any, n: int) -> int:
    """Fail, always."""
    began(self.request)
    raise ValueError(f"{n} is not to my liking")
