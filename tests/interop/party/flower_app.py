"""The app of both parties as Flower is given it: patient, since on a machine at work an answer may take longer than a
second."""

from __future__ import annotations

from functools import partial

from party_app import app

app.control.broadcast = partial(app.control.broadcast, timeout=30.0)

__all__ = ["app"]
