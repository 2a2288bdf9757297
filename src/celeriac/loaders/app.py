"""``celery.loaders.app`` under our name."""

from __future__ import annotations

from celeriac.app.loader import AppLoader

__all__ = ["AppLoader"]
