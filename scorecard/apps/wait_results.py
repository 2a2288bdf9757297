"""Waits for results from many threads with ``get(timeout)``: scorecard 27. usage: wait_results.py PLAN (JSON)."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import lab_app
import record


def wait(ids: list[str], timeout: float) -> None:
    for task_id in ids:
        began = time.monotonic()
        facts: dict[str, Any] = {"id": task_id, "what": "get", "limit": timeout}
        try:
            value = lab_app.app.AsyncResult(task_id).get(timeout=timeout)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:300]
            record.note("call", seconds=time.monotonic() - began, error=text, **facts)
        else:
            record.note("call", seconds=time.monotonic() - began, value=value, **facts)


def main() -> None:
    plan = json.loads(sys.argv[1])
    shares = [plan["ids"][index :: plan["threads"]] for index in range(plan["threads"])]
    threads = [threading.Thread(target=wait, args=(share, plan["timeout"])) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(plan["timeout"] * len(plan["ids"]))


main()
