"""What can go wrong between us and an AMQP broker.

Owns the exceptions of this room; drivers turn them into those of ``celeriac.errors`` in one table.

    AmqpError
    ├─ Unencodable            a value of ours that AMQP cannot express
    ├─ Malformed              bytes of one message that cannot be understood; the connection lives on
    ├─ ConnectionClosed       by the broker, by us, or lost
    │  ├─ ConnectFailed       there was never a connection
    │  │  └─ LoginRefused · VhostRefused · TlsFailed · NotAmqp
    │  ├─ ConnectionLost      silence, a reset, an end without a word
    │  └─ ProtocolViolation   the peer does not keep to the protocol
    ├─ ChannelClosed          by the broker, with a code such as 404, 405, 406
    ├─ ConsumerCancelled      by the broker: its queue is gone or has moved
    ├─ ConnectionBlocked      the broker takes no messages now; nothing was sent
    └─ DeadlinePassed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from typing import Self


class AmqpError(CeleriacError):
    """Root of what the AMQP room raises."""


class Unencodable(AmqpError):
    """A value that has no form in AMQP, or a table over the limits."""


class Malformed(AmqpError):
    """Bytes inside one message that do not parse, or exceed a limit."""


class ConnectionClosed(AmqpError):
    """The connection is over. ``code`` is the broker's, 0 where it said none."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def again(self) -> Self:
        """The same, to be raised: what is kept must not be, lest by its traceback it keep whoever met it."""
        return type(self)(self.code, self.text)

    def __str__(self) -> str:
        return f"{self.text} ({self.code})" if self.code else self.text


class ConnectFailed(ConnectionClosed):
    """No connection came about."""


class LoginRefused(ConnectFailed):
    """The broker does not accept user, password or login method."""


class VhostRefused(ConnectFailed):
    """There is no such virtual host, or the user may not enter it."""


class TlsFailed(ConnectFailed):
    """The TLS handshake failed: certificate, host name, or no TLS on that port."""


class NotAmqp(ConnectFailed):
    """Whatever answers on that port does not speak AMQP 0-9-1."""


class ConnectionLost(ConnectionClosed):
    """The connection ended without a word, or fell silent."""


class ProtocolViolation(ConnectionClosed):
    """The peer sent what the protocol does not allow; the connection is given up."""


class ChannelClosed(AmqpError):
    """The broker closed the channel, and says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def again(self) -> Self:
        """As that of :class:`ConnectionClosed`."""
        return type(self)(self.code, self.text)

    def __str__(self) -> str:
        return f"{self.text} ({self.code})" if self.code else self.text


class ConsumerCancelled(AmqpError):
    """The broker cancelled a consumer."""

    def __init__(self, consumer_tag: str) -> None:
        super().__init__(consumer_tag)
        self.consumer_tag = consumer_tag

    def __str__(self) -> str:
        return f"The broker cancelled the consumer {self.consumer_tag}: its queue was deleted or has moved."


class ConnectionBlocked(AmqpError):
    """The broker is short of memory or disk and takes no messages; nothing was sent."""


class DeadlinePassed(AmqpError):
    """The broker did not answer in time."""
