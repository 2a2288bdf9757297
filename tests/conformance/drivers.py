"""The drivers that the conformance suites run against."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from celeriac.results.key_value import key_value_store
from celeriac.results.memory import MemoryStore
from celeriac.results.sqlite import SqliteStore
from celeriac.testing.conformance.clock import SteppedClock, WrongClock
from celeriac.testing.conformance.results import ResultDriver
from celeriac.testing.conformance.transport import TransportDriver
from celeriac.transports.base import Taken
from celeriac.transports.box import box_transport
from celeriac.transports.memory import MemoryTransport
from celeriac.transports.sqlite import SqliteTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from celeriac.wire.result_record import ResultRecord


class Numbers:
    """The settings that drivers read."""

    broker_lease = 30.0
    broker_max_message_bytes = 1 << 20
    task_dead_letter_expires = 14 * 86400.0
    result_serializer = "json"


class DequeBox:
    """A box of queues in memory: the least that a broker can be."""

    _shelves: ClassVar[dict[str, dict[str, deque[tuple[int, bytes]]]]] = defaultdict(lambda: defaultdict(deque))
    _changed = threading.Condition()
    _numbers = iter(range(1, 1 << 60))

    def __init__(self, url: str, settings: Any, clock: Any) -> None:
        self._queues = self._shelves[url]
        self._taken: dict[int, tuple[str, bytes]] = {}
        self._interrupted = False

    def put(self, queue: str, items: Sequence[bytes]) -> None:
        with self._changed:
            self._queues[queue].extend((next(self._numbers), item) for item in items)
            self._changed.notify_all()

    def take(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Taken]:
        ends = time.monotonic() + wait
        found: list[Taken] = []
        with self._changed:
            while True:
                while len(found) < limit and any(self._queues[queue] for queue in queues):
                    for queue in queues:
                        if self._queues[queue] and len(found) < limit:
                            number, item = self._queues[queue].popleft()
                            self._taken[number] = (queue, item)
                            found.append(Taken(queue, number, item))
                left = ends - time.monotonic()
                if found or left <= 0 or self._interrupted:
                    self._interrupted = False
                    return found
                self._changed.wait(left)

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def done(self, receipts: Sequence[int]) -> None:
        for number in receipts:
            del self._taken[number]

    def give_back(self, receipts: Sequence[int]) -> None:
        with self._changed:
            for number in sorted(receipts, reverse=True):
                queue, item = self._taken.pop(number)
                self._queues[queue].appendleft((number, item))
            self._changed.notify_all()

    def count(self, queue: str) -> int:
        return len(self._queues[queue])

    def purge(self, queue: str) -> int:
        with self._changed:
            removed = len(self._queues[queue])
            self._queues[queue].clear()
            return removed


class DirectoryBucket:
    """A bucket whose values are files: ``expiry time, newline, value``."""

    def __init__(self, url: str, settings: Any, clock: Any) -> None:
        from pathlib import Path

        self._directory = Path(url.removeprefix("directory://"))
        self._clock = clock

    def get(self, key: str) -> bytes | None:
        with suppress(FileNotFoundError):
            expires, _, value = (self._directory / key).read_bytes().partition(b"\n")
            if not expires or float(expires) > self._clock.time():
                return value
        return None

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found = {key: self.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set(self, key: str, value: bytes, expires_in: float | None) -> None:
        expires = b"" if expires_in is None else b"%f" % (self._clock.time() + expires_in)
        path = self._directory / key
        path.with_name(path.name + ".new").write_bytes(expires + b"\n" + value)
        path.with_name(path.name + ".new").replace(path)

    def add(self, key: str, value: bytes, expires_in: float | None) -> bool:
        if self.get(key) is not None:
            return False
        self.set(key, value, expires_in)
        return True

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            (self._directory / key).unlink(missing_ok=True)


DequeTransport = box_transport("deque", DequeBox)
DirectoryStore = key_value_store("directory", DirectoryBucket, expires=True)


def transport_driver(name: str, folder: Path) -> TransportDriver:
    clock = SteppedClock()
    urls = {
        "sqlite": f"sqlite:///{folder}/queue.sqlite3",
        "memory": f"memory://{folder.name}",
        "box": f"deque://{folder}",
    }
    classes: dict[str, Any] = {"sqlite": SqliteTransport, "memory": MemoryTransport, "box": DequeTransport}
    stores: dict[str, Any] = {"sqlite": SqliteStore, "memory": MemoryStore}
    url = urls[name]

    def read_result(task_id: str) -> ResultRecord | None:
        store = stores[name](url, Numbers, clock)
        found: ResultRecord | None = store.read([task_id]).get(task_id)
        store.close()
        return found

    return TransportDriver(
        name=name, open=lambda: classes[name](url, Numbers, clock), advance=clock.advance, time=clock.time,
        open_ahead=lambda seconds: classes[name](url, Numbers, WrongClock(clock, seconds)),
        lease=Numbers.broker_lease, max_bytes=Numbers.broker_max_message_bytes, read_result=read_result,
    )  # fmt: skip


def result_driver(name: str, folder: Path) -> ResultDriver:
    clock = SteppedClock()
    urls = {
        "sqlite": f"sqlite:///{folder}/results.sqlite3",
        "memory": f"memory://{folder.name}",
        "key_value": f"directory://{folder}",
    }
    classes: dict[str, Any] = {"sqlite": SqliteStore, "memory": MemoryStore, "key_value": DirectoryStore}
    return ResultDriver(name=name, open=lambda: classes[name](urls[name], Numbers, clock), advance=clock.advance)
