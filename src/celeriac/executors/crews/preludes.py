"""What is done in a child's fresh interpreter before anything else is imported: making the standard library
cooperative. Celery's variables that forbid it are heeded.
"""

from __future__ import annotations

import os


def for_gevent() -> None:
    """Patch the standard library for gevent."""
    if "GEVENT_NOPATCH" not in os.environ:
        from gevent import monkey

        monkey.patch_all()


def for_eventlet() -> None:
    """Patch the standard library for eventlet."""
    if "EVENTLET_NOPATCH" not in os.environ:
        import eventlet

        eventlet.monkey_patch()
