"""Sending from coroutines: one publisher thread per process gathers concurrent sends into batches.

A thousand concurrent ``adelay()`` cost a few round trips and one hop back to each event loop per batch. The thread
starts with the first send, ends when idle, and is made anew in a forked child.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from celeriac.errors import PublishRejected

if TYPE_CHECKING:
    from celeriac.client.sender import PublishPolicy, Sender
    from celeriac.wire.envelope import Outgoing

#: seconds without work after which the thread ends; the next send starts another
IDLE = 10.0
#: most messages in one publish
BATCH = 1000


class _Parcel:
    """What one ``send`` asked for, and who waits for it."""

    __slots__ = ("failure", "future", "items", "loop", "policy")

    def __init__(
        self, items: Sequence[Outgoing], policy: PublishPolicy | None, loop: asyncio.AbstractEventLoop
    ) -> None:  # fmt: skip
        self.items = items
        self.policy = policy
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.failure: BaseException | None = None


class Outbox:
    """Awaitable sends over a blocking :class:`Sender`."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._parcels: deque[_Parcel] = deque()
        self._thread: threading.Thread | None = None

    async def send(self, items: Sequence[Outgoing], policy: PublishPolicy | None = None) -> None:
        """Returns when the broker has accepted ``items``; raises what :meth:`Sender.send` raises.

        Cancelling the wait does not take back what is already on its way.
        """
        if self._pid != os.getpid():
            self._reset()
        parcel = _Parcel(items, policy, asyncio.get_running_loop())
        with self._wake:
            self._parcels.append(parcel)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="celeriac-outbox", daemon=True)
                self._thread.start()
            else:
                self._wake.notify()
        await parcel.future

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._parcels and not self._wake.wait_for(lambda: self._parcels, timeout=IDLE):
                    self._thread = None
                    return
                batch = self._take()
            self._publish(batch)
            _tell(batch)

    def _take(self) -> list[_Parcel]:
        """The parcels at the front that can share one publish (same policy, bounded size)."""
        first = self._parcels.popleft()
        taken, size = [first], len(first.items)
        while self._parcels:
            following = self._parcels[0]
            size += len(following.items)
            if size > BATCH or following.policy is not first.policy:
                break
            taken.append(self._parcels.popleft())
        return taken

    def _publish(self, parcels: Sequence[_Parcel]) -> None:
        try:
            self._sender.send([item for parcel in parcels for item in parcel.items], parcels[0].policy)
        except PublishRejected as error:
            if len(parcels) == 1:
                parcels[0].failure = error
                return
            for parcel in parcels:  # nothing is stored: find out whose message it was
                self._publish([parcel])
        except BaseException as error:  # whatever it is, those who wait must hear of it
            for parcel in parcels:
                parcel.failure = error


def _tell(parcels: Sequence[_Parcel]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Parcel]] = {}
    for parcel in parcels:
        by_loop.setdefault(parcel.loop, []).append(parcel)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _resolve(parcels: Sequence[_Parcel]) -> None:
    for parcel in parcels:
        if parcel.future.done():
            continue
        if parcel.failure is None:
            parcel.future.set_result(None)
        else:
            parcel.future.set_exception(parcel.failure)
