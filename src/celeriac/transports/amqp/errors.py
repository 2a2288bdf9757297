"""What the AMQP room raises → what ``celeriac.errors`` knows: the one table for every channel and connection error."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from celeriac.amqp.errors import (
    AmqpError,
    ChannelClosed,
    ConnectFailed,
    ConnectionBlocked,
    ConnectionClosed,
    ConsumerCancelled,
    DeadlinePassed,
    LoginRefused,
    NotAmqp,
    TlsFailed,
    Unencodable,
    VhostRefused,
)
from celeriac.errors import (
    BrokerFull,
    BrokerUnavailable,
    CeleriacError,
    ImproperlyConfigured,
    OperationalError,
    PublishRejected,
    QueueNotFound,
)

if TYPE_CHECKING:
    from celeriac.transports.url import BrokerUrl

ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
NO_ROUTE = 312
INTERNAL_ERROR = 541

#: these will be the same at the next attempt: settings have to change
_SETTINGS = (LoginRefused, VhostRefused, TlsFailed, NotAmqp)


class _Row(NamedTuple):
    error: type[OperationalError]
    advice: str


_BY_CODE: dict[int, _Row] = {
    311: _Row(PublishRejected, "The message is too large for the broker (its max_message_size)."),
    320: _Row(BrokerUnavailable, "An operator closed the connection, or the broker shuts down."),
    ACCESS_REFUSED: _Row(OperationalError, "Check the user's permissions on the virtual host."),
    NOT_FOUND: _Row(QueueNotFound, "The queue or exchange was deleted, or never declared."),
    RESOURCE_LOCKED: _Row(OperationalError, "The queue is exclusive to another connection."),
    PRECONDITION_FAILED: _Row(OperationalError, ""),
    504: _Row(BrokerUnavailable, ""),
    506: _Row(BrokerUnavailable, "The broker is short of a resource."),
    530: _Row(OperationalError, ""),
    INTERNAL_ERROR: _Row(BrokerUnavailable, "The broker had an internal error."),
}


def operational(error: AmqpError | OSError, what: str = "") -> CeleriacError:
    """The error to raise ``from error``. ``what`` was being done."""
    prefix = f"{what}: " if what else ""
    match error:
        case ChannelClosed() | ConnectFailed():
            row = _BY_CODE.get(error.code, _Row(OperationalError, ""))
        case ConnectionClosed():
            row = _BY_CODE.get(error.code, _Row(BrokerUnavailable, ""))
        case ConnectionBlocked():
            return BrokerFull(
                f"{prefix}RabbitMQ takes no messages until its alarm is over: memory or disk is short. It still gives "
                f"messages out, so workers make room."
            )
        case DeadlinePassed():
            row = _Row(BrokerUnavailable, "")
        case ConsumerCancelled():
            row = _Row(QueueNotFound, "")
        case Unencodable():
            return PublishRejected(f"{prefix}A message cannot be written: {error}")
        case _:
            row = _Row(BrokerUnavailable, "")
    return row.error(f"{prefix}{error}{' ' if row.advice else ''}{row.advice}")


def as_operational(error: BaseException) -> OperationalError:
    """What the engine heals from."""
    return error if isinstance(error, OperationalError) else BrokerUnavailable(str(error))


def connect_error(error: AmqpError | OSError, url: BrokerUrl, met_before: bool) -> CeleriacError:
    """Why there is no connection to ``url``, the setting at fault named and secrets masked.

    ``met_before``: this broker has let us in since the process started, so the settings are sound and it may again.
    """
    text = f"broker_url {url}: {error}"
    if isinstance(error, _SETTINGS) and not met_before:
        return ImproperlyConfigured(text)
    return BrokerUnavailable(text)


#: what RabbitMQ says when a message was held for too long without an acknowledgement
_TIMED_OUT = "delivery acknowledgement on channel"


def is_ack_timeout(error: BaseException) -> bool:
    """Whether the broker closed the channel because a message was held for longer than its ``consumer_timeout``."""
    return isinstance(error, ChannelClosed) and error.code == PRECONDITION_FAILED and _TIMED_OUT in error.text


def is_internal(error: BaseException | None) -> bool:
    """Whether the broker closed the connection for a fault of its own."""
    return isinstance(error, ConnectionClosed) and error.code == INTERNAL_ERROR
