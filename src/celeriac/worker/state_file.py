"""``--statedb``: what is revoked, and the logical clock, in a file of this worker's own, over a restart.

JSON, replaced as a whole, so that it is old or new and never half. A file that is not ours (Celery keeps a shelve of
pickles there) is neither read nor touched; ours then stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.wire.revocation import Standing, checked
from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock, LamportClock
    from celeriac.worker.cancelling import Cancelling
    from celeriac.worker.revocations import RevocationWatch

logger = logging.getLogger("celeriac.worker")

#: a file above this is not read
_MOST_BYTES = 256 << 20
#: ids that are kept, the newest
_MOST_IDS = 100_000
#: seconds between two writes
_PAUSE = 2.0
#: what dbm adds to the names of its files
_SHELVES = (".db", ".dat", ".dir", ".pag")


_FORMAT: Final = "celeriac worker state 1"


class _Content(msgspec.Struct, kw_only=True):
    format: Literal["celeriac worker state 1"]
    clock: int = 0
    #: header, value, seconds since the epoch at which it ends
    revoked: list[tuple[str, str, float]] = []


class StateFile:
    """Reads once, writes whenever something has changed. A service."""

    name = "state file"

    def __init__(self, path: str, cancelling: Cancelling, lamport: LamportClock, clock: Clock) -> None:
        self.path = Path(path)
        self._revoked = cancelling.revoked
        self._lamport = lamport
        self._clock = clock
        self._lane = Lane("celeriac-state")
        self._changed = asyncio.Event()

    def load(self) -> list[Standing]:
        """Remember what stands there, before any message is taken; it is returned too.

        Raises ``ImproperlyConfigured`` where there is no place for such a file.
        """
        content = self._find()
        now = self._clock.time()
        self._lamport.adjust(content.clock)
        found = [
            Standing(entry, min(ends - now, 10 * self._revoked.kept))
            for header, value, ends in content.revoked
            if ends > now and (entry := checked(header, "", value)) is not None
        ]
        self._revoked.learn(found)
        self._write()  # whether that is possible should be known now
        self._revoked.on_change = self._changed.set
        return found

    def _find(self) -> _Content:
        asked = self.path
        for path in (asked, asked.with_name(asked.name + ".celeriac")):
            self.path = path
            try:
                content = _read(path)
            except FileNotFoundError:
                content = None
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                logger.warning(
                    "%s (worker_state_db) is no state file of celeriac's (%s): it stays as it is, and is not read",
                    path,
                    error,
                )
                continue
            others = [shelf for end in _SHELVES if (shelf := path.with_name(path.name + end)).exists()]
            if others and path is asked:
                logger.warning("%s is left alone: celeriac does not read what Celery has remembered", others[0])
            return content or _Content(format=_FORMAT)
        raise ImproperlyConfigured(f"worker_state_db: neither {asked} nor {self.path} may be used; name another file")

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._save()
            except OSError as error:
                logger.warning("%s (worker_state_db) cannot be written: %s", self.path, error)
            await self._clock.sleep(_PAUSE)

    async def _save(self) -> None:
        content = self._content()
        await self._lane.run(partial(_replace, self.path, content))

    async def close(self) -> None:
        """The service has stopped: write what it is now."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await self._save()
        self._lane.close()

    def _content(self) -> _Content:
        now = self._clock.time()
        rows = [(header, value, now + left) for header, value, left in self._revoked.left(_MOST_IDS)]
        return _Content(format=_FORMAT, clock=self._lamport.value, revoked=rows)

    def _write(self) -> None:
        try:
            _replace(self.path, self._content())
        except OSError as error:
            raise ImproperlyConfigured(f"worker_state_db: {self.path} cannot be written: {error}") from error


def _read(path: Path) -> _Content:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return msgspec.json.decode(file.read(), type=_Content)


def _replace(path: Path, content: _Content) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def restored(file: StateFile, watch: RevocationWatch | None) -> None:
    """Load it, and tell the registry, which may have lost what this worker still knows."""
    found = file.load()
    if found and watch is not None:
        watch.record([one.entry for one in found], max(one.left for one in found), remembered=True)
