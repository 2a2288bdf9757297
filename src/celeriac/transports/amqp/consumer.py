"""Receives and settles: asyncio, over a connection of its own with heartbeats.

The connection is the lease: what is unsettled when it ends goes to somebody else. A queue that the broker cancels, or
whose channel it closes, is taken up again while the others go on; when none is left, or the connection is gone,
``receive`` raises and the engine builds another consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from copy import copy
from typing import TYPE_CHECKING, Any

from celeriac.amqp.errors import AmqpError, ChannelClosed, ConnectionClosed, ConsumerCancelled
from celeriac.errors import OperationalError
from celeriac.transports.amqp.errors import NOT_FOUND, as_operational, is_ack_timeout, is_internal, operational
from celeriac.transports.amqp.feed import Feed
from celeriac.transports.amqp.prefetch import Prefetch
from celeriac.transports.amqp.settling import Settler
from celeriac.transports.threads import Lane

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from celeriac.amqp.asynchronous import AsyncConnection
    from celeriac.clock import Clock
    from celeriac.transports.amqp.addresses import Addresses
    from celeriac.transports.amqp.feed import Receipt
    from celeriac.transports.amqp.settling import Copies
    from celeriac.transports.amqp.transport import AmqpSettings
    from celeriac.transports.base import Delivery, QueueAdmin, QueueSpec, Settlement

logger = logging.getLogger("celeriac.transports.amqp")

#: seconds for one question to the broker
_ANSWER_TIMEOUT = 10.0
#: seconds for closing
_CLOSE_TIMEOUT = 3.0
#: seconds between two looks for messages that lie here unasked for
_LOOK = 1.0
#: seconds before a queue that failed is tried again: at first, and at most
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0


class AmqpConsumer:
    def __init__(
        self, addresses: Addresses, queues: Sequence[QueueSpec], owner: str, admin: QueueAdmin, copies: Copies,
        settings: AmqpSettings, clock: Clock,
    ) -> None:  # fmt: skip
        self._addresses = addresses
        self._specs = {spec.name: spec for spec in queues}
        self._owner = owner
        self._admin = admin
        self._settings = settings
        self._clock = clock
        self._lane = Lane(f"celeriac-amqp-{owner}")
        self._connection: AsyncConnection | None = None
        self._feeds: dict[int, Feed] = {}
        self._settler = Settler(self._feeds, copies, self._lane, settings.broker_publish_timeout, clock)
        self._prefetch = Prefetch(len(self._specs))
        self._news = asyncio.Event()
        #: one change of the consumers at a time
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._handed_out = 0
        self._turn = 0
        self._error: OperationalError | None = None
        self._closed = False

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = self._clock.monotonic() + wait
        if self._opening is None and not self._closed:
            self._opening = self._start(self._open(limit))
        if self._opening is not None:
            # shielded: what has begun to be opened or changed is not left half done by a caller that gives up
            await asyncio.shield(self._opening)
        while not self._closed:
            self._news.clear()
            found = await self._take(limit)
            if found:
                self._handed_out += len(found)
                return found
            if self._error is not None:
                raise copy(self._error)  # what is raised leads here by its traceback
            if self._is_starved(limit):
                await asyncio.shield(self._start(self._resize()))
                continue
            left = ends - self._clock.monotonic()
            if left <= 0:
                break
            await self._rest(left)
        return []

    async def _rest(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    async def _take(self, limit: int) -> list[Delivery]:
        """What is here, beginning with another queue each time, so that a long one starves nobody."""
        found: list[Delivery] = []
        feeds = list(self._feeds.values())
        self._turn += 1
        for place in range(len(feeds)):
            feed = feeds[(self._turn + place) % len(feeds)]
            try:
                if feed.is_over:
                    error = feed.channel.error
                    raise ConnectionClosed(0, "The connection is closed.") if error is None else error.again()
                if len(found) < limit:
                    found.extend(await feed.take(limit - len(found)))
            except ConsumerCancelled as error:
                if feed.is_retired:
                    continue
                logger.warning("queue %r: %s It is declared anew.", feed.spec.name, error)
                self._start(self._heal(feed.spec, feed))
            except ChannelClosed as error:
                self._lose(feed, error)
            except ConnectionClosed as error:
                self._break(error)
                return []  # what was just taken is on its way to somebody else
        return found

    def _is_starved(self, limit: int) -> bool:
        feeds = self._feeds.values()
        count = self._prefetch.count
        held = sum(len(feed.held) for feed in feeds)
        return any(len(feed.held) >= count and not feed.is_retired for feed in feeds) and self._prefetch.starved(
            held, limit
        )

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _open(self, limit: int) -> None:
        until = self._clock.monotonic() + self._settings.broker_connection_timeout * len(self._addresses.urls)
        self._prefetch.begin(limit)
        pause = _FIRST_PAUSE
        while (failure := await self._try_to_open(until)) is not None:
            # RabbitMQ closes the connection of whoever consumes a quorum queue while that is being declared
            if not is_internal(failure.__cause__) or self._clock.monotonic() + pause > until:
                self._error = copy(failure)
                try:
                    raise failure
                finally:
                    del failure  # it leads here by its traceback
            await self._clock.sleep(pause)
            pause *= 2
        self._start(self._watch())

    async def _try_to_open(self, until: float) -> OperationalError | None:
        """Connect and consume; why not one queue could be consumed."""
        connection = await self._addresses.open_async(f"consumer {self._owner}", until)
        self._connection = connection
        first: OperationalError | None = None
        for spec in self._specs.values():
            try:
                await self._begin(spec)
            except OperationalError as error:
                first = first or error
                if connection.is_closed:
                    self._feeds.clear()
                    break
                logger.warning("queue %r cannot be consumed now: %s", spec.name, error)
                self._start(self._heal(spec, None))
        return None if self._feeds else first

    async def _begin(self, spec: QueueSpec) -> None:
        """Consume a queue; declare it if it is not there."""
        try:
            await self._feed(spec)
        except ChannelClosed as error:
            if error.code != NOT_FOUND:
                raise operational(error, f"Consuming queue {spec.name!r}") from error
            await self._lane.run(lambda: self._admin.declare([spec]))
            await self._feed_again(spec)
        except (AmqpError, OSError) as error:
            raise operational(error, f"Consuming queue {spec.name!r}") from error

    async def _feed_again(self, spec: QueueSpec) -> None:
        try:
            await self._feed(spec)
        except (AmqpError, OSError) as error:
            raise operational(error, f"Consuming queue {spec.name!r}") from error

    async def _feed(self, spec: QueueSpec) -> None:
        assert self._connection is not None
        async with self._changing:
            feed = await Feed.open(
                self._connection, spec, self._prefetch.count, self._settings.task_crash_budget, self._news.set,
                self._clock.monotonic() + _ANSWER_TIMEOUT,
            )  # fmt: skip
            self._feeds[feed.serial] = feed

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        """Consume these from now on; what is held of the others stays held."""
        self._specs = {spec.name: spec for spec in queues}
        if self._opening is None:
            return True
        await asyncio.shield(self._opening)
        deadline = self._clock.monotonic() + _ANSWER_TIMEOUT
        try:
            async with self._changing:
                for feed in self._feeds.values():
                    if feed.spec.name not in self._specs and not feed.is_retired and not feed.is_over:
                        await feed.retire(deadline)
                    elif feed.is_retired and feed.spec.name in self._specs and not feed.is_over:
                        await feed.consume(self._prefetch.count, deadline)
        except (AmqpError, OSError) as error:
            raise as_operational(operational(error, "Changing the queues")) from error
        consumed = {feed.spec.name for feed in self._feeds.values()}
        for spec in queues:
            if spec.name not in consumed:
                await self._begin(spec)
        return True

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────

    def _lose(self, feed: Feed, error: ChannelClosed) -> None:
        """The channel of one queue is gone, and with it what was held of it."""
        del self._feeds[feed.serial]
        name = feed.spec.name
        if is_ack_timeout(error):
            logger.warning(
                "queue %r: RabbitMQ took back %d messages, since one was held longer than the broker's "
                "consumer_timeout allows. Tasks still running go on here, their messages are adopted when they come "
                "again. Raise consumer_timeout in rabbitmq.conf above the longest run of a task. It said: %s",
                name, len(feed.held), error.text,
            )  # fmt: skip
        else:
            logger.warning("queue %r: RabbitMQ closed its channel: %s", name, error)
        if feed.is_retired:
            return
        if self._feeds:
            self._start(self._heal(feed.spec, None))
        elif self._error is None:
            self._error = as_operational(operational(error, f"Consuming queue {name!r}"))

    def _break(self, error: ConnectionClosed) -> None:
        self._feeds.clear()
        if self._error is None:
            self._error = as_operational(operational(error))

    async def _heal(self, spec: QueueSpec, feed: Feed | None) -> None:
        """Take up a queue again: in its channel if that still stands, for the sake of the messages held there."""
        pause = _FIRST_PAUSE
        while not self._closed and self._error is None:
            try:
                await self._lane.run(lambda: self._admin.declare([spec]))
                if feed is not None and not feed.is_over:
                    async with self._changing:
                        await feed.consume(self._prefetch.count, self._clock.monotonic() + _ANSWER_TIMEOUT)
                else:
                    await self._feed_again(spec)
                logger.info("queue %r is consumed again", spec.name)
                return
            except (OperationalError, AmqpError) as error:
                if isinstance(error, ConnectionClosed) or self._connection is None or self._connection.is_closed:
                    return
                if feed is not None and feed.is_over:
                    self._feeds.pop(feed.serial, None)
                    feed = None
                logger.warning("queue %r cannot be consumed, next try in %.1f s: %s", spec.name, pause, error)
                if not self._feeds:
                    self._error = as_operational(error)
                    self._news.set()
                    return
            await self._clock.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waits for it; nobody does when the caller has given up

    # ── how much is held ─────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Give back what nobody here asks for."""
        while not self._closed and self._error is None:
            await self._clock.sleep(_LOOK)
            held = sum(len(feed.held) for feed in self._feeds.values())
            lying = sum(feed.lying for feed in self._feeds.values())
            if self._prefetch.look(held, lying, self._handed_out):
                with contextlib.suppress(OperationalError):
                    await self._resize(give_back=True)

    async def _resize(self, give_back: bool = False) -> None:
        """Tell the broker the new number."""
        deadline = self._clock.monotonic() + _ANSWER_TIMEOUT
        async with self._changing:
            for feed in [feed for feed in self._feeds.values() if not feed.is_retired]:
                try:
                    await feed.resize(self._prefetch.count, deadline)
                    if give_back:
                        await feed.give_back()
                except ConsumerCancelled:
                    self._start(self._heal(feed.spec, feed))
                except (ChannelClosed, ConnectionClosed):
                    self._news.set()  # the next look at the channel finds out
                except AmqpError as error:
                    raise operational(error, f"Consuming queue {feed.spec.name!r}") from error

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self._settler.settle(batch, self._prefetch.count)

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Nothing has to be renewed while the connection stands."""
        return [receipt for receipt in receipts if self._settler.holding(receipt) is None]

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._news.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT)
        deadline = self._clock.monotonic() + _CLOSE_TIMEOUT
        connection, self._connection = self._connection, None
        try:
            if connection is not None and not connection.is_closed:
                for feed in self._feeds.values():
                    if not feed.is_over:
                        with contextlib.suppress(AmqpError):
                            await feed.end(deadline)
        finally:
            self._feeds.clear()
            self._lane.close()
            if connection is not None:
                await connection.close(deadline)
