"""``celery.utils`` under our name, for code that was ported by changing its imports; nothing of ours lives here."""

from __future__ import annotations

from celeriac.ids import task_id as uuid

__all__ = ["uuid"]
