"""Threads that publish at the same time: whoever has the connection sends for all who wait for it.

A confirmed publish costs a round trip and the broker's disk however many messages it holds.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from celeriac.errors import OperationalError, PublishTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celeriac.amqp.messages import Publication

#: messages that are gathered from several threads; a larger batch of one thread still goes at once
_GATHERED = 1000


class Job:
    """One thread's batch, and its end."""

    __slots__ = ("delayed", "error", "is_alone", "is_done", "is_left", "is_taken", "publications", "queues")

    def __init__(self, publications: Sequence[Publication], queues: list[str], delayed: list[str]) -> None:
        self.publications = publications
        self.queues = queues
        self.delayed = delayed
        self.is_taken = False  #: somebody is sending it
        self.is_done = False
        self.is_left = False  #: its thread has given up
        self.is_alone = False  #: not to be sent with others again: it was among them when something failed
        self.error: Exception | None = None

    def end(self, error: Exception | None) -> None:
        self.error = error
        self.is_done = True


class Crowd:
    """The jobs that wait. Thread-safe, fork-safe."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()

    @property
    def is_empty(self) -> bool:
        """Nobody waits in this process."""
        return not self._waiting or self._pid != os.getpid()

    @contextlib.contextmanager
    def waiting(self, job: Job) -> Iterator[None]:
        """Inside, somebody else may take the job. Raises ``PublishTimeout`` if it was taken and no end is in sight."""
        if self._pid != os.getpid():  # the jobs are those of the parent's threads
            self._reset()
        self._waiting.append(job)
        try:
            yield
        except OperationalError:
            if not self._withdraw(job) and not job.is_done:
                raise PublishTimeout(
                    "The deadline passed while another thread was sending this message; it may be stored."
                ) from None
            if not job.is_done:
                raise
        finally:
            self._withdraw(job, for_good=True)

    def _withdraw(self, job: Job, for_good: bool = False) -> bool:
        """Whether nobody has taken it."""
        with self._lock:
            job.is_left = for_good
            if job in self._waiting:
                self._waiting.remove(job)
            return not job.is_taken

    def take(self, mine: Job, fits: Callable[[Job], bool]) -> list[Job]:
        """Mine, and those of the others that fit."""
        with self._lock:
            self._waiting.remove(mine)
            if mine.is_alone or not self._waiting or not fits(mine):
                return [mine]
            taken, count = [mine], len(mine.publications)
            for job in list(self._waiting):
                if count + len(job.publications) <= _GATHERED and not job.is_alone and fits(job):
                    count += len(job.publications)
                    taken.append(job)
                    job.is_taken = True
                    self._waiting.remove(job)
            return taken

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Nothing of these was sent."""
        with self._lock:
            for job in jobs:
                if not job.is_done and not job.is_left:
                    job.is_alone, job.is_taken = True, False
                    self._waiting.append(job)
