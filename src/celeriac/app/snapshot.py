"""Cameras: classes of users that look at the cluster's state now and then, as ``celeriac events --camera`` runs them.

Subclass :class:`Polaroid` and write ``on_shutter(state)``; the API is that of ``celery.events.snapshot``.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from celeriac.clock import SYSTEM_CLOCK
from celeriac.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.app.celery import Celeriac
    from celeriac.app.cluster import State
    from celeriac.app.events import Receiver

#: seconds that a receiver may take to end
_PATIENCE = 5.0


class Polaroid:
    """Takes a picture every ``freq`` seconds. ``maxrate``: pictures per second at most, such as ``"10/m"``."""

    timer: Any = None  #: kept for cameras that look at it; pictures are taken by :meth:`run`
    clear_after = False  #: forget the state after every picture
    #: sent before every picture and every cleanup, with the state as sender
    shutter_signal = Signal("shutter_signal", frozenset({"state"}))
    cleanup_signal = Signal("cleanup_signal")

    def __init__(
        self, state: State, freq: float = 1.0, maxrate: str | float | None = None, cleanup_freq: float = 3600.0,
        timer: Any = None, app: Celeriac | None = None,
    ) -> None:  # fmt: skip
        self.state = state
        self.app = app
        self.freq = max(freq, seconds_between(maxrate))
        self.maxrate = maxrate
        self.cleanup_freq = cleanup_freq
        self.timer = timer if timer is not None else self.timer
        self._end = threading.Event()
        self._cleaned_at = SYSTEM_CLOCK.monotonic()

    def on_shutter(self, state: State) -> None:
        """A picture is to be taken; nothing changes meanwhile."""

    def on_cleanup(self) -> None:
        """Every ``cleanup_freq`` seconds: remove old pictures."""

    def shutter(self) -> None:
        """Take a picture of the state as it is."""
        self.shutter_signal.send(sender=self.state, state=self.state)
        self.on_shutter(self.state)

    def capture(self) -> None:
        """Stop the state, and take a picture of it."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cleanup(self) -> None:
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def install(self) -> None:
        """Called once, before the first picture."""

    def cancel(self) -> None:
        self._end.set()

    def run(self, receiver: Receiver) -> None:
        """Take pictures until the receiver ends; an error of the camera ends it too."""
        self.install()
        while not self._end.wait(self.freq) and not receiver.should_stop:
            self.capture()
            if SYSTEM_CLOCK.monotonic() - self._cleaned_at >= self.cleanup_freq:
                self._cleaned_at = SYSTEM_CLOCK.monotonic()
                self.cleanup()

    def __enter__(self) -> Polaroid:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class Receiving(threading.Thread):
    """Captures in the background until the block ends."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(name="celeriac-events", daemon=True)
        self._receiver = receiver
        self.error: BaseException | None = None  #: what ended the receiver

    def run(self) -> None:
        try:
            self._receiver.capture()
        except BaseException as error:
            self.error = error
            self._receiver.should_stop = True

    def check(self) -> None:
        """Raise what ended the receiver."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Receiving:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.stop()
        self.join(_PATIENCE)


def evcam(
    camera: Any, freq: float = 1.0, maxrate: str | float | None = None, loglevel: Any = 0, logfile: str | None = None,
    pidfile: str | None = None, timer: Any = None, app: Celeriac | None = None, **options: Any,
) -> None:  # fmt: skip
    """Run a camera, a class or ``module:Class``, until it is interrupted. Blocking.

    Log and pid files are the program's own affair and not read here; ``celeriac events --camera`` knows them.
    Raises what ends the receiver or the camera, ``ValueError`` for a rate that is none.
    """
    from celeriac.app.events import current_app

    take_pictures(app if app is not None else current_app(), camera, freq, maxrate, timer=timer, **options)


def take_pictures(
    app: Celeriac, camera: Any, freq: float, maxrate: str | float | None, *, timer: Any = None,
    on_ready: Callable[[], None] | None = None, **options: Any,
) -> None:  # fmt: skip
    """As :func:`evcam`. ``on_ready``: called when the broker tells of events."""
    from celeriac import plugins

    state = app.events.State()
    taker = (plugins.resolve(camera) if isinstance(camera, str) else camera)(
        state, freq=freq, maxrate=maxrate, timer=timer, app=app, **options
    )
    receiver = app.events.Receiver(handlers={"*": state.event})
    receiver.on_ready = on_ready
    with Receiving(receiver) as receiving, taker:
        with contextlib.suppress(KeyboardInterrupt):
            taker.run(receiver)
        receiving.check()


def seconds_between(rate: str | float | None) -> float:
    """``"10/m"`` → 6.0. Raises ``ValueError``."""
    if not rate:
        return 0.0
    count, _, unit = str(rate).partition("/")
    per = {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit.strip())
    if per is None or float(count) <= 0:
        raise ValueError(f"{rate!r} is not a rate like 10/s, 10/m or 10/h")
    return per / float(count)
