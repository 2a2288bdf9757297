"""``celery.events.state`` under our name. The classes: app/cluster.py, rules/cluster.py."""

from __future__ import annotations

from celeriac.app.cluster import State
from celeriac.rules.cluster import Task, Worker

__all__ = ["State", "Task", "Worker"]
