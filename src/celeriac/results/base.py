"""The seam of the result stores: what a store must do, and what it may do better.

Blocking, thread-safe, batches. The store is the truth; notifications (:class:`Watches`) are hints that let a waiter
look earlier. Drivers raise only ``BackendError`` and its kin, or ``ImproperlyConfigured``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import msgspec

from celeriac.wire.result_record import ResultRecord
from celeriac.wire.revocation import News, Revocation, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Bucket", "GroupStore", "LoopWriter", "News", "Replies", "ResultRecord", "ResultStore", "Revocation",
    "Revocations", "Standing", "StoreCapabilities", "Watches", "WritesOnLoop", "loop_writing",
]  # fmt: skip

#: seconds that a look at the store may take for which there is no time left
LEAST_LOOK = 0.25


class StoreCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a store."""

    persistent: bool  #: any process can read a result, any number of times
    expires: bool  #: the store itself removes records after their time
    watch: bool
    groups: bool  #: has :class:`GroupStore`
    counts_chords: bool
    max_record_bytes: int | None = None


class ResultStore(Protocol):
    """Keeps one record per task id. Construct with ``(url, settings, clock)``; construction does no I/O.

    A stored SUCCESS is never overwritten; any other state is. ``write`` is idempotent.
    """

    capabilities: ClassVar[StoreCapabilities]
    engine_key: tuple[str, ...]

    def write(self, records: Sequence[ResultRecord]) -> None: ...
    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        """The records there are; ids that are unknown are missing from the answer.

        ``deadline``: on ``time.monotonic()``: until then a store that is somewhere else may be silent. None: as long
        as its settings allow.
        """
        ...

    def forget(self, ids: Sequence[str]) -> None: ...
    def cleanup(self) -> int:
        """Remove what has expired (only where the store does not by itself); returns how many."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Watches(Protocol):
    """Optional: tells when records may have changed. Else ``results/waiting.py`` polls."""

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        """Block up to ``wait`` seconds until one of ``ids`` is in a ready state; the ready ones there are.

        Looks before it waits. May return early with nothing. With no ``ids``: nobody waits any more, what earlier
        calls prepared (subscriptions) is undone. Called from one thread at a time.
        """
        ...

    def interrupt(self) -> None:
        """Make a waiting ``watch`` return soon. Called from any thread."""
        ...


class LoopWriter(Protocol):
    """Stores from an event loop. One batch at a time."""

    async def write(self, records: Sequence[ResultRecord]) -> None:
        """As the store's own ``write``."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class WritesOnLoop(Protocol):
    """Optional: stores without a thread that blocks; else the worker has one."""

    def loop_writer(self) -> LoopWriter:
        """For the event loop that runs. Costs nothing before its first use."""
        ...


@runtime_checkable
class GroupStore(Protocol):
    """Optional: keeps saved groups (``GroupResult.save``)."""

    def save_group(self, group_id: str, payload: bytes, expires_in: float | None) -> None: ...
    def restore_group(self, group_id: str) -> bytes | None: ...
    def delete_group(self, group_id: str) -> None: ...


@runtime_checkable
class Replies(Protocol):
    """Optional: results travel as messages to the process that asked, and are read there."""

    def reply_address(self) -> str:
        """Where this process listens: the ``reply_to`` of its calls. Listens from the first call on, so that blocks;
        the others cost nothing. Raises ``BackendError``."""
        ...


@runtime_checkable
class Revocations(Protocol):
    """Optional, also for brokers: keeps what is not to run any more, for workers that were not there to hear it.

    Blocking, thread-safe; raises what the driver raises elsewhere. Entries vanish after their time.
    """

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        """Add them for ``kept`` seconds. Idempotent; what is there already is news again only if it would have ended
        a good deal earlier."""
        ...

    def read_revocations(self, mark: int, limit: int) -> News:
        """Up to ``limit`` of those that came after ``mark``, oldest first; 0: from the first. Nothing new costs one
        short look. May bring an entry a second time, never leaves one out."""
        ...


def registry_among(*drivers: object) -> Revocations | None:
    """The first of these that keeps revocations. Every process of an app has to choose the same: the broker comes
    first, as senders may have no result store."""
    return next((driver for driver in drivers if isinstance(driver, Revocations)), None)


def loop_writing(store: object) -> WritesOnLoop | None:
    """The store, if it can do that."""
    return store if isinstance(store, WritesOnLoop) else None


class Bucket(Protocol):
    """The easy way in: a key-value store; ``results/key_value.py`` makes a full ResultStore of it."""

    def get(self, key: str) -> bytes | None: ...
    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]: ...
    def set(self, key: str, value: bytes, expires_in: float | None) -> None: ...
    def add(self, key: str, value: bytes, expires_in: float | None) -> bool:
        """Set if absent; whether it was."""
        ...

    def delete(self, keys: Sequence[str]) -> None: ...
