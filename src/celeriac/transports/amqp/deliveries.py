"""A message of the broker → a :class:`Delivery` of the engine. Pure; one per queue that is consumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.amqp.errors import Malformed
from celeriac.transports.amqp import delays
from celeriac.transports.base import Delivery, Envelope, Route

if TYPE_CHECKING:
    from celeriac.amqp.messages import Message

#: counts starts whose process was lost; the broker cannot count them, so a copy of the message does
ATTEMPTS = "x-celeriac-attempts"
#: how often a quorum queue has handed the message out: also when nobody had started it
_DELIVERIES = "x-delivery-count"
#: what the broker writes on a message that has come down the ladder
_DEATHS = (
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
    "x-last-death-queue", "x-last-death-reason",
)  # fmt: skip
_ROUTES_KEPT = 256


class Deliveries:
    """Reads the messages of ``queue``. ``crash_budget``: starts after which the engine runs a message alone."""

    def __init__(self, queue: str, crash_budget: int) -> None:
        self._queue = queue
        self._crash_budget = crash_budget
        self._here = Route("", queue)
        self._routes: dict[tuple[str, str], Route] = {("", queue): self._here}

    def read(self, message: Message, receipt: Any) -> Delivery:
        if message.oversize:
            return self._unread(message, receipt, f"its body has {message.oversize} bytes, more than are accepted")
        try:
            properties, headers = message.decoded()
        except Malformed as error:
            return self._unread(message, receipt, str(error))
        route = self._routes.get((message.exchange, message.routing_key))
        if route is None:
            route = self._route(message)
        if route is self._here and message.exchange:
            for name in _DEATHS:
                headers.pop(name, None)
        attempt = 0
        if ATTEMPTS in headers:
            counted = headers.pop(ATTEMPTS)
            attempt = counted if type(counted) is int and counted > 0 else 0
        if _DELIVERIES in headers:
            deliveries = headers.pop(_DELIVERIES)
            # an upper bound: enough to be careful with the message, not to call it poison (semantics 3.10)
            if type(deliveries) is int and deliveries >= self._crash_budget > attempt:
                attempt = self._crash_budget
        envelope = Envelope(message.body, headers, properties)
        return Delivery(envelope, self._queue, receipt, route, attempt, message.redelivered or attempt > 0)

    def _unread(self, message: Message, receipt: Any, reason: str) -> Delivery:
        unread = Envelope(message.body, {}, {})
        return Delivery(unread, self._queue, receipt, self._here, 0, message.redelivered, malformed=reason)

    def _route(self, message: Message) -> Route:
        """Where a retry of the message is to go: for one that was delayed, straight to this queue."""
        address = (message.exchange, message.routing_key)
        route = self._here if delays.has_passed(*address) else Route(*address)
        if len(self._routes) < _ROUTES_KEPT:
            self._routes[address] = route
        return route


def attempts_of(headers: dict[str, Any]) -> int:
    """The starts that are counted in raw headers."""
    counted = headers.get(ATTEMPTS, 0)
    return counted if type(counted) is int and counted > 0 else 0


def counted(headers: dict[str, Any], by: int) -> dict[str, Any]:
    """The headers of a copy: the broker's own marks removed, ``by`` added to the count."""
    copied = {name: value for name, value in headers.items() if name not in _DEATHS and name != _DELIVERIES}
    attempts = attempts_of(headers) + by
    if attempts:
        copied[ATTEMPTS] = attempts
    return copied
