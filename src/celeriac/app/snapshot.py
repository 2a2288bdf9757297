"""Cameras: classes of users that look at the cluster's state now and then, as ``celeriac events --camera`` runs them.

Subclass :class:`Polaroid` and write ``on_shutter(state)``; the API is that of ``celery.events.snapshot``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celeriac.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.app.cluster import State
    from celeriac.app.events import Receiver


class Polaroid:
    """Takes a picture every ``freq`` seconds. ``maxrate``: pictures per second at most, such as ``"10/m"``."""

    clear_after = False  #: forget the state after every picture

    def __init__(
        self, state: State, freq: float = 1.0, maxrate: str | float | None = None, cleanup_freq: float = 3600.0,
        timer: Any = None, app: Celeriac | None = None,
    ) -> None:  # fmt: skip
        self.state = state
        self.app = app
        self.freq = max(freq, seconds_between(maxrate))
        self.cleanup_freq = cleanup_freq
        self._end = threading.Event()
        self._cleaned_at = SYSTEM_CLOCK.monotonic()

    def on_shutter(self, state: State) -> None:
        """A picture is to be taken; nothing changes meanwhile."""

    def on_cleanup(self) -> None:
        """Every ``cleanup_freq`` seconds: remove old pictures."""

    def shutter(self) -> None:
        """Take a picture."""
        self.capture()

    def capture(self) -> None:
        self.state.freeze_while(self.on_shutter, self.state, clear_after=self.clear_after)

    def cleanup(self) -> None:
        self.on_cleanup()

    def install(self) -> None:
        """Called once, before the first picture."""

    def cancel(self) -> None:
        self._end.set()

    def run(self, receiver: Receiver) -> None:
        """Take pictures until the receiver ends; an error of the camera ends it too."""
        self.install()
        while not self._end.wait(self.freq) and not receiver.should_stop:
            self.shutter()
            if SYSTEM_CLOCK.monotonic() - self._cleaned_at >= self.cleanup_freq:
                self._cleaned_at = SYSTEM_CLOCK.monotonic()
                self.cleanup()

    def __enter__(self) -> Polaroid:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def seconds_between(rate: str | float | None) -> float:
    """``"10/m"`` → 6.0. Raises ``ValueError``."""
    if not rate:
        return 0.0
    count, _, unit = str(rate).partition("/")
    per = {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit.strip())
    if per is None or float(count) <= 0:
        raise ValueError(f"{rate!r} is not a rate like 10/s, 10/m or 10/h")
    return per / float(count)
