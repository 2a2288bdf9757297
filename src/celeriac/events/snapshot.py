"""``celery.events.snapshot`` under our name. The class: app/snapshot.py; ``celeriac events --camera`` runs it."""

from __future__ import annotations

from celeriac.app.snapshot import Polaroid

__all__ = ["Polaroid"]
