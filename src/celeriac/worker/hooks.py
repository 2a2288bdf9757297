"""Celery's signals of a worker's own process, told by listening to telemetry. Costs nothing where nobody is connected.

Receivers run on the worker's loop: one that takes long holds it up. Tasks have signals of their own, in the children.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celeriac import signals, telemetry
from celeriac.wire.task_message import read_body, timestamp_of

if TYPE_CHECKING:
    from celeriac.executors.base import Request
    from celeriac.signals import Signal


class ReceivedRequest:
    """A message as receivers of Celery's signals know it. Its body is read only when somebody asks for it."""

    def __init__(self, request: Request, hostname: str) -> None:
        self._request = request
        self.hostname = hostname
        self.id = self.task_id = request.id
        self.name = self.task_name = request.task

    def __repr__(self) -> str:
        return f"<ReceivedRequest {self.name}[{self.id}]>"

    @property
    def request_dict(self) -> dict[str, Any]:
        """The headers."""
        return self._request.envelope.headers

    headers = request_dict

    @property
    def body(self) -> bytes:
        return self._request.envelope.body

    @property
    def properties(self) -> dict[str, Any]:
        return self._request.envelope.properties

    @cached_property
    def _payload(self) -> Any:
        kind = str(self.properties.get("content_type"))
        return read_body(
            self._request.envelope, frozenset({kind}) if kind != "application/x-python-serialize" else None
        )

    @property
    def args(self) -> list[Any]:
        """Raises ``MessageError`` for a body that can't be read; pickle is not read here."""
        args: list[Any] = self._payload.args
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = self._payload.kwargs
        return kwargs

    @property
    def argsrepr(self) -> str:
        return str(self.request_dict.get("argsrepr") or "")

    @property
    def kwargsrepr(self) -> str:
        return str(self.request_dict.get("kwargsrepr") or "")

    @property
    def eta(self) -> datetime | None:
        return self._moment("eta")

    @property
    def expires(self) -> datetime | None:
        return self._moment("expires")

    def _moment(self, header: str) -> datetime | None:
        seconds = timestamp_of(self.request_dict.get(header))
        return None if seconds is None else datetime.fromtimestamp(seconds).astimezone()

    @property
    def retries(self) -> int:
        return int(self.request_dict.get("retries") or 0)

    @property
    def delivery_info(self) -> dict[str, Any]:
        request = self._request
        return {
            "exchange": request.exchange, "routing_key": request.routing_key, "redelivered": request.redelivered,
            "priority": self.properties.get("priority"),
        }  # fmt: skip


def listen(worker: Any, hostname: str) -> Callable[[], None]:
    """Tell the connected receivers from now on. Returns what ends that."""

    def view(event: Any) -> ReceivedRequest | None:
        return None if event.request is None else ReceivedRequest(event.request, hostname)

    def received(event: telemetry.TaskReceived) -> None:
        signals.task_received.send(sender=worker, request=view(event))

    def revoked(event: telemetry.TaskRevoked) -> None:
        signals.task_revoked.send(
            sender=worker, request=view(event), terminated=event.terminated, signum=event.signum,
            expired=event.expired,
        )  # fmt: skip

    def set_aside(event: telemetry.MessageQuarantined) -> None:
        if event.unknown:
            signals.task_unknown.send(
                sender=worker, message=view(event), exc=KeyError(event.unknown), name=event.unknown, id=event.id
            )
        else:
            signals.task_rejected.send(sender=worker, message=view(event), exc=ValueError(event.reason))

    def ready(event: telemetry.WorkerReady) -> None:
        signals.worker_ready.send(sender=worker)

    def stopping(event: telemetry.WorkerStopping) -> None:
        signals.worker_shutting_down.send(
            sender=hostname,
            sig=event.sig,
            how="Warm" if event.how == "warm" else "Cold",
            exitcode=0 if event.how == "warm" else 1,
        )

    wanted: list[tuple[type[telemetry.Event], Callable[[Any], None], tuple[Signal, ...]]] = [
        (telemetry.TaskReceived, received, (signals.task_received,)),
        (telemetry.TaskRevoked, revoked, (signals.task_revoked,)),
        (telemetry.MessageQuarantined, set_aside, (signals.task_unknown, signals.task_rejected)),
        (telemetry.WorkerReady, ready, (signals.worker_ready,)),
        (telemetry.WorkerStopping, stopping, (signals.worker_shutting_down,)),
    ]
    ends = [
        telemetry.subscribe(kind, sink) for kind, sink, of in wanted if any(signal.has_listeners() for signal in of)
    ]

    def end() -> None:
        for each in ends:
            each()

    return end
