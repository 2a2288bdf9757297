"""``celery.events`` under our name, for code that was ported by changing its imports. The classes: app/events.py."""

from __future__ import annotations

from celeriac.app.events import EventDispatcher
from celeriac.app.events import Receiver as EventReceiver
from celeriac.events.event import Event, group_from

__all__ = ["Event", "EventDispatcher", "EventReceiver", "group_from"]
