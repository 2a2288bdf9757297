"""The brokers of a URL, one or a fail-over list: in which order they are tried, and why none could be reached."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from celeriac.amqp.blocking import BlockingConnection
from celeriac.amqp.errors import AmqpError
from celeriac.amqp.parameters import Parameters, parameters_of
from celeriac.errors import BrokerUnavailable, ImproperlyConfigured
from celeriac.transports.amqp.errors import connect_error
from celeriac.transports.url import is_loopback, parse_many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from random import Random

    from celeriac.amqp.asynchronous import AsyncConnection
    from celeriac.errors import CeleriacError

logger = logging.getLogger("celeriac.transports.amqp")

#: seconds between heartbeats, unless broker_heartbeat was set: Celery's default finds a dead peer after minutes
_HEARTBEAT, _UNTOUCHED = 10.0, 120.0


class ConnectionSettings(Protocol):
    """What of the broker settings decides how a connection is made."""

    broker_transport_options: Mapping[str, Any]
    broker_use_ssl: Any
    broker_connection_timeout: float
    broker_heartbeat: float | None
    broker_login_method: str | None
    broker_failover_strategy: Any
    broker_max_message_bytes: int


class Addresses:
    """Opens connections to whichever broker answers, beginning with the one that did last."""

    def __init__(self, url: str, settings: ConnectionSettings, random: Random) -> None:
        self.urls = parse_many(url)
        self._settings = settings
        self._random = random
        self._parameters: dict[int, Parameters] = {}
        self._last = 0
        self._met: set[int] = set()

    def open(self, purpose: str, deadline: float) -> BlockingConnection:
        """A connection without heartbeats, for callers without a thread to send them. Raises ``BrokerUnavailable``,
        or ``ImproperlyConfigured`` for what trying again cannot help."""
        failures: list[CeleriacError] = []
        for place in self._in_turn():
            parameters = self._named(place, purpose, 0.0)
            until = min(deadline, time.monotonic() + parameters.connect_timeout)
            try:
                connection = BlockingConnection.open(parameters, until)
            except (AmqpError, OSError) as error:
                failures.append(connect_error(error, self.urls[place], place in self._met))
                continue
            self._answered(place)
            return connection
        try:
            raise _told(failures)
        finally:
            failures.clear()  # what is raised leads here by its traceback

    async def open_async(self, purpose: str, deadline: float) -> AsyncConnection:
        """A connection with heartbeats."""
        from celeriac.amqp.asynchronous import AsyncConnection  # asyncio is nothing that publishers should load

        failures: list[CeleriacError] = []
        for place in self._in_turn():
            parameters = self._named(place, purpose, None)
            until = min(deadline, time.monotonic() + parameters.connect_timeout)
            try:
                connection = await AsyncConnection.open(parameters, until)
            except (AmqpError, OSError) as error:
                failures.append(connect_error(error, self.urls[place], place in self._met))
                continue
            self._answered(place)
            return connection
        try:
            raise _told(failures)
        finally:
            failures.clear()  # what is raised leads here by its traceback

    def _answered(self, place: int) -> None:
        self._last = place
        if place in self._met:
            return
        self._met.add(place)
        url = self.urls[place]
        if self._parameters[place].tls is None and not is_loopback(url.host or "localhost"):
            logger.warning(
                "%s: messages and password travel unencrypted. Use amqps://, or set broker_use_ssl.", url
            )  # fmt: skip

    def _in_turn(self) -> Iterator[int]:
        places = list(range(len(self.urls)))
        strategy = self._settings.broker_failover_strategy or "round-robin"
        if strategy == "shuffle":
            self._random.shuffle(places)
            return iter(places)
        if strategy == "round-robin":
            return iter(places[self._last :] + places[: self._last])
        if not callable(strategy):
            raise ImproperlyConfigured(
                f"broker_failover_strategy is {strategy!r}; it must be round-robin, shuffle or a callable."
            )
        return self._by(strategy)

    def _by(self, strategy: Any) -> Iterator[int]:
        """As a function orders them; Celery's may go on for ever, each address is worth one try here."""
        texts = [url.reveal() for url in self.urls]
        for _, text in zip(texts, strategy(texts), strict=False):
            if text in texts:
                yield texts.index(text)

    def _named(self, place: int, purpose: str, heartbeat: float | None) -> Parameters:
        """``purpose``: shown with the connection in RabbitMQ's management pages."""
        parameters = self._parameters.get(place)
        if parameters is None:
            settings = self._settings
            parameters = self._parameters[place] = parameters_of(
                self.urls[place],
                use_ssl=settings.broker_use_ssl,
                options=settings.broker_transport_options,
                heartbeat=_HEARTBEAT if settings.broker_heartbeat == _UNTOUCHED else settings.broker_heartbeat,
                connect_timeout=settings.broker_connection_timeout,
                login_method=settings.broker_login_method,
                message_limit=settings.broker_max_message_bytes,
            )
        name = {"connection_name": f"celeriac {purpose} (pid {os.getpid()})"}
        return msgspec.structs.replace(
            parameters,
            client_properties={**name, **parameters.client_properties},
            heartbeat=parameters.heartbeat if heartbeat is None else heartbeat,
        )


def _told(failures: list[CeleriacError]) -> CeleriacError:
    """One error for all addresses."""
    if not failures:
        return ImproperlyConfigured("broker_failover_strategy gave no address to try.")
    if len(failures) == 1:
        return failures[0]
    text = "None of the brokers can be reached. " + " ".join(str(failure) for failure in failures)
    if all(isinstance(failure, ImproperlyConfigured) for failure in failures):
        return ImproperlyConfigured(text)
    return BrokerUnavailable(text)
