"""``celery.events.receiver`` under our name."""

from __future__ import annotations

from celeriac.app.events import Receiver as EventReceiver

__all__ = ["EventReceiver"]
