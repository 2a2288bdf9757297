"""The fault proxy, between plain sockets and a server that echoes."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celeriac.testing.proxy import Bandwidth, CutAt, FaultProxy, Hold, Latency, Limit, Slicer
from celeriac.testing.toxics import Search

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it is sent, and remembers what came and how connections ended."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.news = threading.Condition()
        self.received = b""
        self.pieces: list[bytes] = []
        self.ends: list[str] = []

    def note(self, data: bytes = b"", end: str = "") -> None:
        with self.news:
            self.received += data
            self.pieces += [data] if data else []
            self.ends += [end] if end else []
            self.news.notify_all()

    def until_received(self, data: bytes) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.received == data, timeout=10), self.received

    def until_ended(self, count: int = 1) -> list[str]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.ends) >= count, timeout=10), self.ends
        return self.ends


class EchoHandler(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.server.note(data)
                self.request.sendall(data)
            self.server.note(end="closed")
        except OSError:
            self.server.note(end="reset")


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=60)


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    host, port = echo.server_address
    with FaultProxy(str(host), port, seed=1) as made:
        yield made


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connect(proxy) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=10)


def read(client: socket.socket, count: int) -> bytes:
    """``count`` bytes, or fewer if the connection ends before them."""
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def is_silent(client: socket.socket, seconds: float = 0.1) -> bool:
    client.settimeout(seconds)
    try:
        return client.recv(1) == b"never"
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


def test_bytes_pass_unchanged_in_both_directions(proxy: FaultProxy, client: socket.socket) -> None:
    data = bytes(range(256)) * 2000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert read(client, len(data)) == data
    sender.join(timeout=60)
    counters = proxy.counters
    assert (counters.accepted, counters.open, counters.ended) == (1, 1, 0)
    assert counters.bytes_to_server == counters.bytes_to_client == len(data)


def test_a_half_close_passes(client: socket.socket, echo: Echo) -> None:
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"last words"
    assert echo.until_ended() == ["closed"]


def test_latency_delays_without_narrowing(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.to_server.add(Latency(0.5, jitter=0.02))
    began = time.monotonic()
    for _ in range(20):
        client.sendall(b"x" * 1000)
        time.sleep(0.001)  # so that they travel one by one
    assert len(read(client, 20_000)) == 20_000
    assert 0.48 <= time.monotonic() - began < 20 * 0.48  # that is one after the other


def test_bandwidth(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.to_client.add(Bandwidth(100_000))
    began = time.monotonic()
    client.sendall(b"x" * 30_000)
    assert len(read(client, 30_000)) == 30_000
    assert time.monotonic() - began >= 0.25


def test_the_slicer_tears_bytes_apart(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    proxy.to_server.add(Slicer(2, pause=0.005))
    client.sendall(b"0123456789")
    assert read(client, 10) == b"0123456789"
    assert len(echo.pieces) > 1


def test_a_hold_of_one_direction_is_a_half_open_connection(
    proxy: FaultProxy, client: socket.socket, echo: Echo
) -> None:
    held = proxy.to_client.add(Hold())
    client.sendall(b"heard")
    echo.until_received(b"heard")
    assert is_silent(client)
    held.remove()
    assert read(client, 5) == b"heard"


def test_a_hold_of_writes_keeps_the_end_of_the_client_from_the_server(
    proxy: FaultProxy, client: socket.socket, echo: Echo
) -> None:
    proxy.to_server.add(Hold())
    client.sendall(b"held")
    client.close()
    assert proxy.counters.bytes_to_server == 0
    assert echo.ends == []
    proxy.heal()
    echo.until_received(b"held")
    echo.until_ended()


def test_pause_holds_everything_and_resume_loses_nothing(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"one ")
    assert read(client, 4) == b"one "
    proxy.pause()
    client.sendall(b"two")
    assert is_silent(client)
    assert echo.received == b"one "
    proxy.resume()
    assert read(client, 3) == b"two"


def test_cut_closes_both_ends(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"x")
    assert read(client, 1) == b"x"
    assert proxy.cut() == 1
    assert client.recv(1) == b""
    assert echo.until_ended() == ["closed"]
    with connect(proxy) as again:
        again.sendall(b"y")
        assert read(again, 1) == b"y"
    assert proxy.counters.ended == 1


def test_reset(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"x")
    assert read(client, 1) == b"x"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.until_ended() == ["reset"]


@pytest.mark.parametrize(("after", "arrives"), [(False, b"a-MARK-b-"), (True, b"a-MARK-b-MARK")])
def test_cut_at_the_nth_marker(proxy: FaultProxy, client: socket.socket, after: bool, arrives: bytes) -> None:
    placed = proxy.to_client.add(CutAt(b"MARK", nth=2, after=after))
    client.sendall(b"a-MARK-b-MARK-c")
    assert read(client, 100) == arrives
    assert placed.wait(60)
    assert (placed.seen, placed.strikes) == (2, 1)
    with connect(proxy) as again:
        again.sendall(b"MARK again")
        assert read(again, 10) == b"MARK again"
    assert not placed.wait(0)


def test_markers_are_counted_over_connections_and_found_across_pieces(proxy: FaultProxy, echo: Echo) -> None:
    placed = proxy.to_client.add(CutAt(b"MARK", nth={2, 3}, after=True, how="reset"))
    with connect(proxy) as first, connect(proxy) as second:
        for client in (first, second):
            client.sendall(b"MA")
            assert read(client, 2) == b"MA"
            client.sendall(b"RK")
        assert read(first, 2) + read_until_reset(second) == b"RKRK"
        assert placed.wait(60)
    with connect(proxy) as third:
        third.sendall(b"MARK")
        read_until_reset(third)
        assert placed.wait(60)
    assert placed.strikes == 2
    assert set(echo.until_ended(3)) <= {"reset", "closed"}


def read_until_reset(client: socket.socket) -> bytes:
    data = b""
    try:
        while more := client.recv(100):
            data += more
    except ConnectionResetError:
        pass
    return data


def test_a_stall_at_a_marker_is_released_by_heal(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    placed = proxy.to_server.add(CutAt(b"|", how="stall"))
    client.sendall(b"one|two")
    assert placed.wait(60)
    echo.until_received(b"one")
    assert read(client, 3) == b"one"
    assert is_silent(client)
    proxy.heal()
    assert read(client, 4) == b"|two"


def test_limit(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    placed = proxy.to_server.add(Limit(5))
    client.sendall(b"0123456789")
    assert placed.wait(60)
    echo.until_received(b"01234")
    placed.remove()
    with connect(proxy) as again:
        again.sendall(b"0123456789")
        assert read(again, 10) == b"0123456789"


def test_new_connections_are_refused_and_old_ones_stay(proxy: FaultProxy, client: socket.socket) -> None:
    client.sendall(b"x")
    assert read(client, 1) == b"x"
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    client.sendall(b"y")
    assert read(client, 1) == b"y"
    proxy.accept()
    with connect(proxy) as again:
        again.sendall(b"z")
        assert read(again, 1) == b"z"


def test_a_server_that_is_away_resets_its_clients() -> None:
    with socket.socket() as seat:
        seat.bind(("127.0.0.1", 0))
        with FaultProxy("127.0.0.1", seat.getsockname()[1]) as proxy:
            with pytest.raises(ConnectionResetError), connect(proxy) as client:
                client.recv(1)
            assert proxy.counters.unreachable == 1


def test_stop_is_prompt_whatever_is_under_way(echo: Echo) -> None:
    host, port = echo.server_address
    proxy = FaultProxy(str(host), port)
    proxy.start()
    proxy.to_client.add(Latency(60))
    proxy.to_server.add(CutAt(b"|", how="stall"))
    with connect(proxy) as client, connect(proxy) as other:
        client.sendall(b"slow")
        other.sendall(b"|")
        echo.until_received(b"slow")
        began = time.monotonic()
        proxy.stop()
        proxy.stop()
        assert time.monotonic() - began < 50
        assert client.recv(1) == b""
    with pytest.raises(RuntimeError, match="not running"):
        proxy.cut()


def test_the_address_in_urls(proxy: FaultProxy) -> None:
    assert proxy.url("redis://:secret@redis.example:6379/3") == f"redis://:secret@127.0.0.1:{proxy.port}/3"
    assert proxy.url("amqp://h:1/%2F?heartbeat=5") == f"amqp://127.0.0.1:{proxy.port}/%2F?heartbeat=5"


@pytest.mark.parametrize("cut", [*range(1, 9)])
def test_a_marker_is_found_however_it_is_torn(cut: int) -> None:
    text = b"-abab-ab"
    search = Search(b"ab")
    first, second = text[:cut], text[cut:]
    ends = search.ends(first) + [cut + end for end in search.ends(second)]
    assert ends == [3, 5, 8]


def test_occurrences_do_not_overlap() -> None:
    assert Search(b"aa").ends(b"aaaa") == [2, 4]
    search = Search(b"aa")
    assert search.ends(b"aaa") == [2]
    assert search.ends(b"a") == [1]
    with pytest.raises(ValueError, match="at least one byte"):
        Search(b"")
