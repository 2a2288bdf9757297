"""An object that stands for another one, found anew each time it is used.

For ``current_app``, ``current_task`` and shared tasks: what they mean depends on when and where they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class Proxy:
    """Does everything on what ``find()`` returns. ``isinstance`` sees through it."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[], Any]) -> None:
        object.__setattr__(self, "_find", find)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_find")(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(found(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(found(self), name)

    @property  # type: ignore[misc]  # read-only, unlike object's: isinstance() asks it
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(found(self))

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(found(self), "__doc__", None)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return dict(vars(found(self)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return found(self)(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return found(self)[key]

    def __contains__(self, item: Any) -> bool:
        return item in found(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(found(self))

    def __len__(self) -> int:
        return len(found(self))

    def __bool__(self) -> bool:
        try:
            return bool(found(self))
        except RuntimeError:
            return False

    def __eq__(self, other: object) -> bool:
        return bool(found(self) == (found(other) if type(other) is Proxy else other))

    def __hash__(self) -> int:
        return hash(found(self))

    def __repr__(self) -> str:
        return repr(found(self))

    def __str__(self) -> str:
        return str(found(self))

    def __dir__(self) -> list[str]:
        return dir(found(self))

    def __reduce__(self) -> Any:
        return found(self).__reduce__()


def found(proxy: Any) -> Any:
    """What a proxy stands for at this moment."""
    return object.__getattribute__(proxy, "_find")()
