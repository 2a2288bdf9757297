"""``celery.events.snapshot`` under our name. The class, and what runs it: app/snapshot.py."""

from __future__ import annotations

from celeriac.app.snapshot import Polaroid, evcam

__all__ = ["Polaroid", "evcam"]
