"""Watches the cluster as a monitor does, until the event ``task-quit``; then prints what it has seen. celeriac only."""

from __future__ import annotations

import json
import sys

import lab_app

state = lab_app.app.events.State()
receiver = lab_app.app.events.Receiver(
    handlers={
        "*": state.event,
        "task-quit": lambda _: receiver.stop(),
        "task-here": lambda _: print("here", flush=True),
    }
)
receiver.capture()
print(json.dumps({"refused": receiver.refused, "workers": sorted(state.workers), "tasks": sorted(state.tasks)}))
sys.stdout.flush()
