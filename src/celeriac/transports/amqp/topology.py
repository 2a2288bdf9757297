"""Queues, exchanges and bindings, declared exactly as Celery declares them, so that a mixed fleet shares them.

What exists already with other arguments is used as it is, with one warning that says what differs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celeriac.amqp.errors import ChannelClosed
from celeriac.errors import OperationalError, QueueNotFound
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.errors import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, RESOURCE_LOCKED, operational
from celeriac.transports.base import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.transports.amqp.link import Line

logger = logging.getLogger("celeriac.transports.amqp")


def arguments_of(spec: QueueSpec) -> dict[str, Any]:
    """The ``x-`` arguments of a queue; those given literally come first, as Celery has it."""
    arguments: dict[str, Any] = {}
    if spec.expires is not None:
        arguments["x-expires"] = int(spec.expires * 1000)
    if spec.message_ttl is not None:
        arguments["x-message-ttl"] = int(spec.message_ttl * 1000)
    if spec.max_priority is not None:
        arguments["x-max-priority"] = spec.max_priority
    arguments.update(spec.arguments)
    return arguments


def is_quorum(spec: QueueSpec) -> bool:
    return spec.arguments.get("x-queue-type") == "quorum"


def is_durable(exchange: str) -> bool:
    """Celery's exchanges for remote control vanish with the broker, all others stay."""
    return not exchange.endswith(".pidbox")


class Specs:
    """How queues are to be declared: as this process has been told, else as the app says, else as Celery does."""

    def __init__(self) -> None:
        self._told: dict[str, QueueSpec] = {}
        self._hidden: dict[str, QueueSpec] = {}
        self._app: Callable[[str], QueueSpec] | None = None
        self._warned: set[str] = set()

    def ask(self, app: Callable[[str], QueueSpec]) -> None:
        self._app = app

    def tell(self, spec: QueueSpec, hidden: bool = False) -> None:
        """``hidden``: a queue of the driver's own, not to be listed."""
        (self._hidden if hidden else self._told)[spec.name] = spec

    def forget(self, queue: str) -> None:
        self._told.pop(queue, None)

    def names(self) -> list[str]:
        return sorted(self._told)

    def of(self, queue: str) -> QueueSpec | None:
        """None: nobody may create it here."""
        told = self._told.get(queue) or self._hidden.get(queue)
        if told is not None:
            return told
        if self._app is None:
            return QueueSpec(name=queue, exchange=queue, routing_key=queue)
        try:
            return self._app(queue)
        except QueueNotFound:
            return None

    def served_by_ladder(self, exchange: str, routing_key: str) -> QueueSpec | None:
        """A queue through whose exchange delayed messages come back from the ladder, and through no other exchange.

        Celery binds the exit of the ladder to the exchanges of its quorum queues, by routing key alone.
        """
        found: QueueSpec | None = None
        for spec in self._told.values():
            if is_quorum(spec) and spec.exchange and spec.exchange_type != "direct":
                if spec.exchange == exchange:
                    found = spec
                elif _may_match(spec.routing_key, routing_key):
                    return None
        return found

    def warn(self, text: str) -> None:
        """Once per process."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)


def _may_match(bound: str, routing_key: str) -> bool:
    """Whether what is bound as ``#.bound`` might get a message with this key."""
    return "*" in bound or "#" in bound or f".{routing_key}".endswith(f".{bound}")


class Topology:
    """Declares over one line. Raises ``OperationalError``, and the AMQP room's errors when the connection goes."""

    def __init__(self, line: Line, specs: Specs, ladder_type: str, deadline: float) -> None:
        self._line = line
        self._specs = specs
        self._ladder_type = ladder_type
        self._deadline = deadline

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────

    def ensure(self, queue: str) -> None:
        """Have a queue before something is sent to it; asks the broker once per line."""
        if queue in self._line.queues:
            return
        spec = self._specs.of(queue)
        if spec is None:
            self._find(queue, f"The queue {queue!r} does not exist, and task_create_missing_queues is off.")
        else:
            self.declare(spec)
        self._line.queues.add(queue)

    def declare(self, spec: QueueSpec) -> None:
        """The queue with its exchange and binding."""
        self._declare_queue(spec)
        if spec.exchange:
            self._declare_exchange(spec.exchange, spec.exchange_type)
            if spec.exchange_type != "direct" or spec.routing_key or spec.binding_arguments:
                self._bind(spec, spec.routing_key)
        if is_quorum(spec) and spec.exchange and spec.exchange_type != "direct":
            self._serve_celery(spec)

    def _declare_queue(self, spec: QueueSpec) -> None:
        arguments = arguments_of(spec)
        channel = self._line.asking(self._deadline)
        try:
            channel.declare_queue(
                spec.name, durable=spec.durable, auto_delete=spec.auto_delete, exclusive=spec.exclusive,
                arguments=arguments, deadline=self._deadline,
            )  # fmt: skip
        except ChannelClosed as error:
            if error.code not in (PRECONDITION_FAILED, ACCESS_REFUSED, RESOURCE_LOCKED):
                raise operational(error, f"Declaring queue {spec.name!r}") from error
            asked = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
            self._find(
                spec.name, f"Queue {spec.name!r} cannot be declared as configured ({asked}): {error.text}"
            )  # fmt: skip
            if error.code == PRECONDITION_FAILED:
                self._specs.warn(
                    f"Queue {spec.name!r} exists with other properties than configured ({asked}) and is used as it "
                    f"is: {error.text}"
                )

    def _find(self, queue: str, complaint: str) -> None:
        try:
            self._line.asking(self._deadline).declare_queue(queue, passive=True, deadline=self._deadline)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                raise QueueNotFound(complaint) from error
            raise OperationalError(f"{complaint} {error.text}") from error

    def _declare_exchange(self, name: str, kind: str) -> None:
        try:
            if not name.startswith("amq."):  # the broker's own
                self._line.asking(self._deadline).declare_exchange(
                    name, kind, durable=is_durable(name), deadline=self._deadline
                )
        except ChannelClosed as error:
            if error.code == PRECONDITION_FAILED:
                self._specs.warn(f"Exchange {name!r} exists and is used as it is: {error.text}")
            elif error.code != ACCESS_REFUSED:  # who may not declare it may yet use it
                raise operational(error, f"Declaring exchange {name!r}") from error

    def _bind(self, spec: QueueSpec, routing_key: str) -> None:
        try:
            self._line.asking(self._deadline).bind_queue(
                spec.name, spec.exchange, routing_key, arguments=spec.binding_arguments, deadline=self._deadline
            )
        except ChannelClosed as error:
            if error.code != ACCESS_REFUSED:
                raise operational(error, f"Binding queue {spec.name!r} to {spec.exchange!r}") from error
            self._specs.warn(f"Queue {spec.name!r} could not be bound to exchange {spec.exchange!r}: {error.text}")

    def ensure_exchange(self, name: str, kind: str) -> None:
        """For what is published whether or not somebody listens."""
        if name and (name, "") not in self._line.proven:
            self._declare_exchange(name, kind)
            self._line.proven.add((name, ""))

    # ── delays ───────────────────────────────────────────────────────────────────────────────────────────────

    def ensure_delayed(self, queue: str) -> None:
        """Have the ladder, and ``queue`` at its end."""
        if queue in self._line.delayed:
            return
        self.ensure(queue)
        self._ensure_ladder()
        self._line.asking(self._deadline).bind_queue(
            queue, delays.EXIT, delays.exit_key(queue), deadline=self._deadline
        )
        self._line.delayed.add(queue)

    def rebind_delayed(self, queue: str) -> None:
        """A queue that was declared anew gets what still waits on a ladder, if there is one."""
        try:
            channel = self._line.asking(self._deadline)
            channel.bind_queue(queue, delays.EXIT, delays.exit_key(queue), deadline=self._deadline)
        except ChannelClosed as error:
            if error.code not in (NOT_FOUND, ACCESS_REFUSED):
                raise

    def _serve_celery(self, spec: QueueSpec) -> None:
        """Celery's producers delay through the ladder when they see a quorum queue; its workers bind it like this."""
        self._ensure_ladder()
        key = spec.routing_key if spec.routing_key.startswith("#") else f"#.{spec.routing_key}"
        channel = self._line.asking(self._deadline)
        channel.bind_exchange(spec.exchange, delays.EXIT, key, deadline=self._deadline)
        self._bind(spec, key)

    def _ensure_ladder(self) -> None:
        if self._line.has_ladder:
            return
        channel = self._line.asking(self._deadline)
        channel.declare_exchange(delays.EXIT, "topic", durable=True, deadline=self._deadline)
        for rung in delays.ladder(self._ladder_type):
            self._declare_rung(rung)
        self._line.has_ladder = True

    def _declare_rung(self, rung: delays.Rung) -> None:
        deadline = self._deadline
        self._line.asking(deadline).declare_exchange(rung.name, "topic", durable=True, deadline=deadline)
        try:
            self._declare_level(rung.name, rung.arguments)
        except ChannelClosed as error:
            if error.code != PRECONDITION_FAILED:
                raise
            self._use_other_level(rung, error)
        channel = self._line.asking(deadline)
        channel.bind_queue(rung.name, rung.name, rung.rests, deadline=deadline)
        channel.bind_exchange(rung.below, rung.name, rung.falls, deadline=deadline)

    def _declare_level(self, name: str, arguments: dict[str, Any]) -> None:
        self._line.asking(self._deadline).declare_queue(
            name, durable=True, arguments=arguments, deadline=self._deadline
        )

    def _use_other_level(self, rung: delays.Rung, refusal: ChannelClosed) -> None:
        """Somebody has declared the level otherwise, or the broker's quorum queues know no time to live."""
        try:
            self._line.asking(self._deadline).declare_queue(rung.name, passive=True, deadline=self._deadline)
            return
        except ChannelClosed as error:
            if error.code != NOT_FOUND or self._ladder_type == "classic":
                raise operational(refusal, f"Declaring queue {rung.name!r}") from refusal
        self._specs.warn(f"The broker refuses quorum queues for delays, classic ones are used: {refusal.text}")
        level = int(rung.name.rpartition("_")[2])
        self._declare_level(rung.name, delays.ladder("classic")[level].arguments)
