"""The moments in an app's life that user code can hook into: ``app.on_after_configure.connect(...)``."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])


class AppSignal:
    """Receivers are called in the order they connected, on the thread of the sender; their errors propagate."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._receivers: list[tuple[Any, Callable[[], Callable[..., Any] | None], Any]] = []

    @overload
    def connect(self, receiver: F, /) -> F: ...
    @overload
    def connect(
        self, receiver: None = None, /, *, sender: Any = None, weak: bool = True, dispatch_uid: Any = None
    ) -> Callable[[F], F]: ...
    @overload
    def connect(self, receiver: F, /, *, sender: Any = None, weak: bool = True, dispatch_uid: Any = None) -> F: ...

    def connect(
        self, receiver: Any = None, /, *, sender: Any = None, weak: bool = True, dispatch_uid: Any = None
    ) -> Any:  # fmt: skip
        """Call ``receiver(sender=…, **facts)`` at that moment; usable as a decorator.

        ``weak``: the receiver is forgotten when nobody else holds it, as in Celery.
        """
        if receiver is None:
            return lambda chosen: self.connect(chosen, sender=sender, weak=weak, dispatch_uid=dispatch_uid)
        key = _identity(receiver) if dispatch_uid is None else dispatch_uid
        if all(known != key for known, _, _ in self._receivers):
            self._receivers.append((key, _reference(receiver, weak), sender))
        return receiver

    def disconnect(self, receiver: Any = None, *, sender: Any = None, dispatch_uid: Any = None) -> bool:
        """Forget it; whether it was connected."""
        key = _identity(receiver) if dispatch_uid is None else dispatch_uid
        before = len(self._receivers)
        self._receivers = [entry for entry in self._receivers if entry[0] != key]
        return len(self._receivers) < before

    def send(self, sender: Any, **facts: Any) -> None:
        for key, find, wanted in list(self._receivers):
            if wanted is not None and wanted is not sender:
                continue
            receiver = find()
            if receiver is None:
                self._receivers = [entry for entry in self._receivers if entry[0] != key]
            else:
                receiver(sender=sender, **facts)


def _identity(receiver: Any) -> Any:
    owner = getattr(receiver, "__self__", None)
    return id(receiver) if owner is None else (id(owner), id(receiver.__func__))


def _reference(receiver: Any, weak: bool) -> Callable[[], Callable[..., Any] | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__self__"):
        return weakref.WeakMethod(receiver)
    return weakref.ref(receiver)
