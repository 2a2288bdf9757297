"""``celery.loaders.default`` under our name."""

from __future__ import annotations

from celeriac.app.loader import Loader

__all__ = ["Loader"]
