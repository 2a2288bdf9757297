"""No result store: nothing is kept, and asking for a result says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from celeriac.errors import ImproperlyConfigured
from celeriac.results.base import StoreCapabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import ResultRecord


class DisabledStore:
    """Takes records and keeps none."""

    capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
        persistent=False, expires=True, watch=False, groups=False, counts_chords=False
    )
    engine_key: tuple[str, ...] = ("disabled",)

    def __init__(self, url: str, settings: object, clock: Clock) -> None:
        """Nothing to set up."""

    def write(self, records: Sequence[ResultRecord]) -> None:
        """Forget them at once."""

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        _refuse()

    def forget(self, ids: Sequence[str]) -> None:
        """There is nothing to forget."""

    def cleanup(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to close."""


def _refuse() -> NoReturn:
    raise ImproperlyConfigured(
        "No result store is configured, so results cannot be read. Set result_backend, for example to "
        "'sqlite:///results.sqlite3'."
    )
