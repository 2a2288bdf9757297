"""The socket under a blocking connection: made, read and written with deadlines, over TLS or not."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING

from celeriac.amqp.errors import ConnectFailed, ConnectionLost, DeadlinePassed, TlsFailed
from celeriac.polling import READABLE, WRITABLE, Poller, poller

if TYPE_CHECKING:
    from celeriac.amqp.parameters import Parameters
    from celeriac.clock import Clock

READ_BYTES = 256 * 1024


class Wire:
    """A connected socket that never blocks by itself, and a way to wake who waits on it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        #: whether there may be something to read that no poll tells of
        self.is_secured = isinstance(connected, ssl.SSLSocket)
        self._reading = self._poller(READABLE)

    @classmethod
    def connect(cls, parameters: Parameters, deadline: float, clock: Clock) -> Wire:
        """Raises ``ConnectFailed``, ``TlsFailed`` or ``DeadlinePassed``."""
        try:
            plain = _connect(parameters, deadline, clock)
        except TimeoutError:
            raise DeadlinePassed(f"{parameters.address} did not accept the connection in time.") from None
        except OSError as error:
            raise connect_failed(parameters, error) from None
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if parameters.tls is not None:
                plain.settimeout(max(0.001, deadline - clock.monotonic()))
                plain = parameters.tls.wrap_socket(plain, server_hostname=parameters.server_name)
            plain.setblocking(False)
        except TimeoutError:
            plain.close()
            raise DeadlinePassed(f"{parameters.address} did not finish the TLS handshake in time.") from None
        except (OSError, ValueError) as error:
            plain.close()
            raise (tls_failed if parameters.tls else connect_failed)(parameters, error) from None
        return cls(plain)

    def read(self) -> bytes | None:
        """What is there; empty at the end, None if nothing is there yet. Raises ``ConnectionLost``."""
        try:
            return self._socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (OSError, ValueError) as error:
            raise lost(error) from None

    def write(self, data: memoryview) -> int:
        """Write what fits; how much that was. Raises ``ConnectionLost``."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError) as error:
            raise lost(error) from None

    def wait(self, seconds: float, writing: bool = False) -> bool:
        """Sleep until there is something to read (or room to write), or :meth:`wake`; whether a read is worth it."""
        if self._wake_read < 0:  # closed: the next read says so, and the numbers may be somebody else's by now
            return True
        try:
            chosen = self._poller(READABLE | WRITABLE) if writing else self._reading
            ready = chosen.poll(max(0.0, seconds) * 1000)
        except (OSError, ValueError):  # closed meanwhile
            return True
        if self._wake_read not in [number for number, _ in ready]:
            return len(ready) > 0
        with contextlib.suppress(OSError):
            os.read(self._wake_read, 4096)
        return len(ready) > 1

    def _poller(self, socket_events: int) -> Poller:
        made = poller()
        made.register(self._socket.fileno(), socket_events)
        made.register(self._wake_read, READABLE)
        return made

    def wake(self) -> None:
        """From any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        if self._wake_read < 0:
            return
        numbers, self._wake_read, self._wake_write = (self._wake_read, self._wake_write), -1, -1
        with contextlib.suppress(OSError):
            self._socket.close()
        for number in numbers:
            os.close(number)


def _connect(parameters: Parameters, deadline: float, clock: Clock) -> socket.socket:
    """Try the host's addresses in turn; one that does not answer leaves the others their share of the time.

    The time that the system takes to resolve a name cannot be bounded from here.
    """
    found = socket.getaddrinfo(parameters.host, parameters.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address for {parameters.host}")
    for place, (family, kind, protocol, _, address) in enumerate(found):
        remaining = deadline - clock.monotonic()
        if remaining <= 0:
            raise TimeoutError
        attempt = socket.socket(family, kind, protocol)
        try:
            attempt.settimeout(remaining / (len(found) - place))
            attempt.connect(address)
        except OSError as error:
            attempt.close()
            failure = error
        else:
            return attempt
    raise failure


def connect_failed(parameters: Parameters, error: Exception) -> ConnectFailed:
    reason = getattr(error, "strerror", None) or str(error)
    return ConnectFailed(
        0, f"There is no connection to {parameters.address}: {reason}. Check host and port of the broker URL."
    )


def tls_failed(parameters: Parameters, error: Exception) -> TlsFailed:
    reason = str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "Check ca_certs and server_hostname of broker_use_ssl, and the host of the broker URL."
    elif "WRONG_VERSION_NUMBER" in reason or "UNEXPECTED_EOF" in reason or isinstance(error, ConnectionError):
        hint = "Perhaps that port has no TLS: check scheme and port of the broker URL."
    else:
        hint = "Check broker_use_ssl."
    return TlsFailed(0, f"The TLS handshake with {parameters.address} failed: {reason}. {hint}")


def lost(error: Exception) -> ConnectionLost:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConnectionLost(0, f"The connection to the broker is lost: {reason}.")
