"""Revokes, and writes down when that was accepted. usage: revoke.py PLAN (JSON) {"ids": [...], "others": N, "seed"}"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from pathlib import Path

import lab_app
import record

plan = json.loads(Path(sys.argv[1]).read_text())
for begin in range(0, len(plan["ids"]), 50):
    ids = plan["ids"][begin : begin + 50]
    lab_app.app.control.revoke(ids)
    for task_id in ids:
        record.note("revoked", id=task_id)
dice = random.Random(plan["seed"])
began = time.monotonic()
for begin in range(0, plan["others"], 1000):
    lab_app.app.control.revoke(
        [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(min(1000, plan["others"] - begin))]
    )
record.note("call", what="revoke others", seconds=time.monotonic() - began, count=plan["others"])
