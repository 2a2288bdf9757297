"""Answers ``/live``, ``/ready`` and ``/metrics`` over HTTP, in a thread and on a loop of its own.

Of its own, so that a worker whose loop stands still can say so. Whoever connects may be anybody: an exchange has a
deadline, a request a size and the connections a number, and none of them can reach the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.worker.pages import Page, Pages

logger = logging.getLogger("celeriac.worker")

#: seconds that one exchange may take
PATIENCE = 5.0
#: bytes of a request's line and headers; its body is not read
REQUEST_BYTES = 8192
#: connections at one time; one more is closed unheard
CONNECTIONS = 32
#: seconds that the thread gets to end
_JOIN_TIMEOUT = 3.0

_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class Address(NamedTuple):
    """Where to listen. Port 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(text: str) -> Address:
    """``127.0.0.1:9100``, ``[::1]:9100``, or a port alone, which is heard on this machine only.

    Raises ``ImproperlyConfigured``.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ImproperlyConfigured(
            f"probes: {text!r} is not like 127.0.0.1:9100 (0.0.0.0:9100 is heard on every network; "
            "a port alone on this machine only)"
        )
    return Address(host, int(port))


def bind(address: Address) -> socket.socket:
    """A socket that holds the address. Raises ``ImproperlyConfigured``."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ImproperlyConfigured(f"probes cannot be answered at {address}: {error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(CONNECTIONS)
    except OSError as error:
        made.close()
        raise ImproperlyConfigured(
            f"probes cannot be answered at {address}: {error.strerror or error}. Give --probes (worker_probes) an "
            "address of this machine and a port that nobody else uses; each worker needs its own."
        ) from error
    return made


class Probes:
    """The service: its thread lives as long as :meth:`run`."""

    name = "probes"

    def __init__(self, address: Address, pages: Pages) -> None:
        self._wanted = address
        self._pages = pages
        #: where it really listens, once it does
        self.address = address
        self._connections = 0

    async def run(self, started: Callable[[], None]) -> None:
        listener = bind(self._wanted)
        self.address = Address(self._wanted.host, listener.getsockname()[1])
        worker_loop = asyncio.get_running_loop()
        over = worker_loop.create_future()
        loop, stop = asyncio.new_event_loop(), asyncio.Event()

        def tell(error: BaseException | None) -> None:
            if not over.done():
                over.set_exception(error or RuntimeError("the thread of the probes has ended"))

        def main() -> None:
            error: BaseException | None = None
            try:
                with asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.run(self._serve(listener, stop))
            except Exception as found:
                error = found
            with contextlib.suppress(RuntimeError):  # the worker's loop has ended before
                worker_loop.call_soon_threadsafe(tell, error)

        thread = threading.Thread(target=main, name="celeriac-probes", daemon=True)
        thread.start()
        try:
            started()
            logger.info("probes: http://%s/live /ready /metrics", self.address)
            await over
        finally:
            with contextlib.suppress(RuntimeError):  # its loop has ended before
                loop.call_soon_threadsafe(stop.set)
            thread.join(_JOIN_TIMEOUT)
            listener.close()

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._answer, sock=listener, limit=REQUEST_BYTES)
        await stop.wait()
        server.close()  # the runner cancels what is being answered

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= CONNECTIONS:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(self._reply(await _request_line(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            writer.transport.abort()  # whatever is left; nothing, if all went well

    def _reply(self, line: str) -> bytes:
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(431 if line == _TOO_LARGE else 400)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response(405, "Allow: GET, HEAD\r\n")
        try:
            page = self._pages.find(target.partition("?")[0])
        except Exception:
            logger.exception("a probe could not be answered")
            return _response(500)
        if page is None:
            return _response(404)
        return _response(page.status, page=page, has_body=method == "GET")


_TOO_LARGE = "(too large)"


async def _request_line(reader: asyncio.StreamReader) -> str:
    """The first line; the headers are read and forgotten."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _TOO_LARGE
    return head.partition(b"\r\n")[0].decode("latin-1")


def _response(status: int, more: str = "", page: Page | None = None, has_body: bool = True) -> bytes:
    kind = "text/plain; charset=utf-8" if page is None else page.content_type
    body = (f"{_REASONS[status].lower()}\n" if page is None else page.text).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode("ascii") + (body if has_body else b"")
