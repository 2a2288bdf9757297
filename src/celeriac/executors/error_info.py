"""What the ``on_failure``, ``on_retry`` and ``after_return`` hooks get as ``einfo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class ErrorInfo:
    """An exception with its traceback as text; prints as the traceback."""

    __slots__ = ("exception", "traceback")

    def __init__(self, exception: BaseException, traceback: str) -> None:
        self.exception = exception
        self.traceback = traceback

    @property
    def type(self) -> type[BaseException]:
        return type(self.exception)

    @property
    def tb(self) -> TracebackType | None:
        return self.exception.__traceback__

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ErrorInfo: {self.exception!r}>"
