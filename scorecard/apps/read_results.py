"""Reads results with the product's own API: a JSON list of ids per line in, ``{id: [state, value]}`` out."""

from __future__ import annotations

import json
import sys
from typing import Any

import lab_app


def look(task_id: str) -> list[Any]:
    try:
        found = lab_app.app.AsyncResult(task_id)
        state = found.state
        value = found.result
    except Exception as error:
        return ["?", f"{type(error).__name__}: {error}"[:300]]
    is_plain = value is None or isinstance(value, (int, float, str, bool))
    return [state, value if is_plain else repr(value)[:300]]


for line in sys.stdin:
    print(json.dumps({task_id: look(task_id) for task_id in json.loads(line)}), flush=True)
