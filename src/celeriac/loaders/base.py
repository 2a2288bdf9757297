"""``celery.loaders.base`` under our name."""

from __future__ import annotations

from celeriac.app.loader import BaseLoader

__all__ = ["BaseLoader"]
