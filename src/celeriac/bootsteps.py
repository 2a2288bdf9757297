"""``celery.bootsteps`` under our name: what a worker's own steps derive from, and what they receive messages with."""

from __future__ import annotations

from celeriac.worker.steps.classes import CLOSE, RUN, TERMINATE, Blueprint, ConsumerStep, StartStopStep, Step
from celeriac.worker.steps.messages import Consumer, Message

__all__ = ["CLOSE", "RUN", "TERMINATE", "Blueprint", "Consumer", "ConsumerStep", "Message", "StartStopStep", "Step"]
