"""A producer: publishes as its plan says, one call at a time, and writes down what each call did.

usage: produce.py PLAN (JSON). The ids and payloads follow from the seed alone. Runs with either product.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
import uuid
from datetime import datetime, timezone
from typing import Any

import lab_app
import record

stop = threading.Event()


def outcome_of(error: BaseException) -> tuple[str, bool]:
    """``fail`` when the message is certainly not stored, else ``info``; and whether the error is a documented one."""
    if lab_app.App.__module__.startswith("celery"):
        from kombu.exceptions import OperationalError  # type: ignore[import-not-found]

        return "info", isinstance(error, OperationalError)
    from celeriac import errors

    is_typed = isinstance(error, errors.OperationalError | errors.ImproperlyConfigured)
    return ("fail" if is_typed and not isinstance(error, errors.PublishUnknown) else "info"), is_typed


def publish(plan: dict[str, Any], n: int, task_id: str, options: dict[str, Any]) -> bool:
    """One call; whether it returned normally."""
    began = time.monotonic()
    facts = {"id": task_id, "limit": plan.get("limit", 0.0)}
    record.note("invoke", n=n, task=plan["task"], queue=plan.get("queue") or "", **facts, **epochs(options))
    try:
        lab_app.app.send_task(plan["task"], args=[n], kwargs=plan.get("kwargs"), task_id=task_id, **options)
    except Exception as error:
        kind, is_typed = outcome_of(error)
        text = f"{type(error).__name__}: {error}"[:300]
        record.note(kind, error=text, typed=is_typed, seconds=time.monotonic() - began, **facts)
        return False
    record.note("ok", seconds=time.monotonic() - began, **facts)
    return True


def epochs(options: dict[str, Any]) -> dict[str, float]:
    return {name: options[name].timestamp() for name in ("eta", "expires") if name in options}


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(time.time() + seconds, timezone.utc)  # noqa: UP017 - Celery's Python may be older


def options_of(plan: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = dict(plan.get("options", {}))
    if plan.get("queue"):
        options["queue"] = plan["queue"]
    if plan.get("eta"):
        options["eta"] = moment(dice.uniform(*plan["eta"]))
    if plan.get("expires"):
        options["expires"] = moment(plan["expires"])
    return options


def main() -> None:
    plan = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    dice = random.Random(plan["seed"])
    began = time.monotonic()
    for step in range(plan["count"]):
        task_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        n = plan.get("first", 0) + step
        call = {**plan, **plan["calls"][step]} if "calls" in plan else plan
        options = options_of(call, dice)
        # an id whose fate is unknown is sent again, as the docs tell users to
        while not publish(call, n, task_id, options) and plan.get("resolve") and not stop.wait(0.2):
            pass
        if stop.is_set():
            break
        if plan.get("rate"):
            stop.wait(max(0.0, began + (step + 1) / plan["rate"] - time.monotonic()))
    record.note("produced")


main()
