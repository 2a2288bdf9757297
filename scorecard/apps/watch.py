"""Watches the cluster as a monitor does, until the event ``task-quit``; then prints what it has seen. celeriac only."""

from __future__ import annotations

import json
import sys
import time

import lab_app
from celeriac.errors import OperationalError

seen_all: list[bool] = []
state = lab_app.app.events.State()
receiver = lab_app.app.events.Receiver(
    handlers={
        "*": state.event,
        "task-quit": lambda _: (seen_all.append(True), receiver.stop()),
        "task-here": lambda _: print("here", flush=True),
    }
)
while not seen_all:
    try:
        receiver.capture()
    except OperationalError:  # the link was cut
        time.sleep(0.2)
print(json.dumps({"refused": receiver.refused, "workers": sorted(state.workers), "tasks": sorted(state.tasks)}))
sys.stdout.flush()
