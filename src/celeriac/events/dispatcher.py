"""``celery.events.dispatcher`` under our name."""

from __future__ import annotations

from celeriac.app.events import EventDispatcher

__all__ = ["EventDispatcher"]
