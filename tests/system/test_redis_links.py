"""Connections to real servers: TLS, rights, sockets, Sentinels, a cluster; and one clear error for what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import os
import re
import socket
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from tests.loop_store import LoopStore

from celeriac import Celeriac
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError, BackendStoreError, CeleriacError, ImproperlyConfigured
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.redis.address import address_of
from celeriac.redis.connect import Links, open_link
from celeriac.redis.errors import Fault, LinkBroken, Translating, fault_of
from celeriac.redis.looped import AsyncLink
from celeriac.results.redis import RedisStore
from celeriac.results.waiting import Waiter
from celeriac.settings import Settings
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.transport import message
from celeriac.testing.servers import ClusterServers, RedisServer, SentinelGroup, ServerMissing, free_port
from celeriac.transports.base import ACK, QueueSpec, Settlement
from celeriac.transports.redis.transport import RedisTransport
from celeriac.wire.revocation import Revocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celeriac.redis.address import Address

pytestmark = pytest.mark.system
DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "brokers" / "redis.md"
#: seconds within which what cannot work must be said
DEADLINE = 30.0


def started(make: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = make()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    yield from started(RedisServer)


def address(url: str, **options: Any) -> Address:
    use_ssl = options.pop("use_ssl", None)
    return address_of(url, setting="result_backend", options=options, use_ssl=use_ssl)


@contextlib.contextmanager
def opened(url: str, kind: type[RedisStore] = RedisStore, **settings: Any) -> Iterator[RedisStore]:
    store = kind(url, Settings(**settings), SYSTEM_CLOCK)
    try:
        yield store
    finally:
        store.close()


def is_used(store: RedisStore, name: str = "one") -> None:
    """Written, read, waited for, forgotten."""
    store.write([record(name, "STARTED")])
    waiter = Waiter(store, SYSTEM_CLOCK)
    writing = threading.Timer(0.05, store.write, [[record(name)]])
    writing.start()
    assert set(waiter.wait([name], 10.0)) == {name}
    writing.join(10.0)
    assert store.read([name])[name].status == "SUCCESS"
    store.forget([name])
    assert not store.read([name])


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Authority:
    """Makes certificates in a folder."""

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "house")])
        self.path = self._write(
            "ca", self._key, self._sign(self._key.public_key(), self._name, [], 1, is_authority=True)
        )

    def _sign(self, key: Any, name: Any, hosts: list[str], days: int, is_authority: bool = False) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )  # fmt: skip
        if hosts:
            names = [
                x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
                for host in hosts
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, *hosts: str, days: int = 1) -> Path:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._write(name, key, self._sign(key.public_key(), subject, list(hosts), days))

    def _write(self, name: str, key: Any, certificate: Any) -> Path:
        from cryptography.hazmat.primitives import serialization as form

        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(form.Encoding.PEM))
        text = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (self.folder / f"{name}.key").write_bytes(text)
        return path


class Secured(RedisServer):
    def __init__(self) -> None:
        self.tls_port = free_port()
        super().__init__("--tls-port", str(self.tls_port))
        self.authority = Authority(self.folder)
        for name, hosts, days in (("good", ("localhost", "127.0.0.1"), 1), ("other", ("example.org",), 1)):
            self.authority.issue(name, *hosts, days=days)
        self.authority.issue("old", "127.0.0.1", days=-1)
        self.authority.issue("client")
        self._options = (
            *self._options,
            "--tls-ca-cert-file",
            str(self.authority.path),
            "--tls-auth-clients",
            "optional",
        )
        self._options += ("--tls-cert-file", f"{self.folder}/good.pem", "--tls-key-file", f"{self.folder}/good.key")

    def shows(self, name: str) -> None:
        """Use another certificate from now on."""
        with redis.Redis(port=self.port) as client:
            client.execute_command(
                "CONFIG",
                "SET",
                "tls-cert-file",
                f"{self.folder}/{name}.pem",
                "tls-key-file",
                f"{self.folder}/{name}.key",
            )

    def tls_url(self, **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://127.0.0.1:{self.tls_port}/0?{query}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    yield from started(Secured)


def test_tls_with_a_known_authority(secured: Secured):
    secured.shows("good")
    with opened(secured.tls_url(ssl_ca_certs=str(secured.authority.path))) as store:
        is_used(store)
    options = {"ca_certs": str(secured.authority.path), "cert_reqs": "required"}
    with opened(f"redis://localhost:{secured.tls_port}/0", redis_backend_use_ssl=options) as store:
        is_used(store)


def test_the_event_loop_reads_and_writes_large_things_over_tls(secured: Secured):
    secured.shows("good")
    link = open_link(address(secured.tls_url(ssl_ca_certs=str(secured.authority.path))))

    async def asked() -> None:
        asking = AsyncLink(link)
        large = [bytes([65 + number]) * (3 << 20) for number in range(3)]
        answers = [asking.call("RPUSH", "large", value) for value in large]
        async with asyncio.timeout(30):
            assert [await answer for answer in answers] == [1, 2, 3]
            assert await asking.call("LRANGE", "large", 0, -1) == large
            assert await asking.call("DEL", "large") == 1
        asking.close()

    asyncio.run(asked())


def test_a_consumer_over_tls(secured: Secured):
    secured.shows("good")
    url = secured.tls_url(ssl_ca_certs=str(secured.authority.path))
    transport = RedisTransport(url, Settings(), SYSTEM_CLOCK)
    bodies = {b"%d" % number: b"x" * 100_000 for number in range(200)}
    publisher = transport.publisher()
    publisher.publish([message("q", body=name + body) for name, body in bodies.items()], time.monotonic() + 30)
    publisher.close()

    async def received() -> None:
        consumer = transport.consumer([QueueSpec(name="q")], "w")
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < len(bodies):
                found += await consumer.receive(1000, 1.0)
            assert [one.envelope.body for one in found] == [name + body for name, body in bodies.items()]
            assert not await consumer.settle([Settlement(one.receipt, ACK) for one in found])
            await consumer.close()

    asyncio.run(received())
    transport.close()


def test_tls_with_a_certificate_of_ones_own(secured: Secured):
    secured.shows("good")
    folder = secured.folder
    with redis.Redis(port=secured.port) as client:
        client.config_set("tls-auth-clients", "yes")
        try:
            with (
                pytest.raises((BackendError, ImproperlyConfigured)),
                opened(secured.tls_url(ssl_ca_certs=str(secured.authority.path))) as store,
            ):
                store.read(["x"])
            own = {"ssl_certfile": f"{folder}/client.pem", "ssl_keyfile": f"{folder}/client.key"}
            with opened(secured.tls_url(ssl_ca_certs=str(secured.authority.path), **own)) as store:
                is_used(store)
        finally:
            client.config_set("tls-auth-clients", "optional")


@pytest.mark.parametrize(
    ("certificate", "options", "says"),
    [
        ("good", {}, "certificate is not trusted"),
        ("other", {"ssl_ca_certs": "CA"}, "not valid for '127.0.0.1'"),
        ("old", {"ssl_ca_certs": "CA"}, "expired"),
        ("good", {"ssl_ca_certs": "/nowhere.pem"}, "No such file"),
    ],
)
def test_tls_that_cannot_be_trusted(secured: Secured, certificate: str, options: dict[str, str], says: str):
    secured.shows(certificate)
    given = {name: str(secured.authority.path) if value == "CA" else value for name, value in options.items()}
    with (
        opened(secured.tls_url(**given)) as store,
        pytest.raises((ImproperlyConfigured, BackendError), match=says) as caught,
    ):
        store.read(["x"])
    assert "result_backend" in str(caught.value)


def test_a_port_of_tls_spoken_to_plainly(secured: Secured):
    with opened(f"redis://127.0.0.1:{secured.tls_port}/0") as store, pytest.raises(BackendError, match="rediss://"):
        store.read(["x"])


def test_tls_unverified_is_possible(secured: Secured):
    secured.shows("old")
    with opened(secured.tls_url(ssl_cert_reqs="none")) as store:
        is_used(store)
        assert any("nobody looks" in one.text for one in store.examine()) is False  # at home it does not matter


# ── rights ───────────────────────────────────────────────────────────────────────────────────────────────────


def rules(name: str) -> str:
    """The ACL rules for a user that the docs show."""
    found = re.search(rf"<!-- acl: {name} -->\n    (ACL SETUSER .*)\n", DOCS.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def test_the_rights_of_the_docs_suffice_for_results(server: RedisServer):
    with redis.Redis(port=server.port) as client:
        client.execute_command(*rules("results").split())
        client.set("foreign", "1")
        try:
            with opened(f"redis://results:secret@127.0.0.1:{server.port}/1", result_compression="gzip") as store:
                is_used(store)
                store.write([record("squeezed", "FAILURE", 10**300)])
                store.write([record("squeezed", value=10**300)])
                store.save_group("g", b"payload", 60.0)
                assert store.restore_group("g") == b"payload"
                store.delete_group("g")
                store.add_revocations([Revocation("gone")], 60.0)
                assert len(store.read_revocations(0, 10).standing) == 1
                assert not [finding for finding in store.examine() if finding.level != "note"]
            with contextlib.closing(open_link(address(f"redis://results:secret@127.0.0.1:{server.port}/0"))) as link:
                for command in (("GET", "foreign"), ("KEYS", "*"), ("FLUSHALL",), ("PUBLISH", "celeryev", "x")):
                    with pytest.raises(redis.ResponseError, match="NOPERM"):
                        link.call(*command)
        finally:
            client.acl_deluser("results")


def test_without_the_channel_results_are_found_all_the_same(server: RedisServer):
    with redis.Redis(port=server.port) as client:
        client.execute_command(*rules("results").replace("&celery-task-meta-*", "&elsewhere").split())
        try:
            with opened(f"redis://results:secret@127.0.0.1:{server.port}/1") as store:
                store.write([record("quiet")])
                assert store.read(["quiet"])["quiet"].status == "SUCCESS"
                assert [finding for finding in store.examine() if "publish" in finding.text]
        finally:
            client.acl_deluser("results")


# ── what is wrong is said once, in time ──────────────────────────────────────────────────────────────────────


class Stranger:
    """Listens, and answers nothing or something that is not Redis."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._held.append(connection)
                if self._answer is not None:
                    connection.recv(100)
                    connection.sendall(self._answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5.0)
        for connection in self._held:
            connection.close()


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("redis://nobody:wrong@127.0.0.1:{port}/0", ImproperlyConfigured, "refuses these credentials"),
        ("redis://127.0.0.1:{port}/99", ImproperlyConfigured, "DB index is out of range"),
        ("redis://127.0.0.1:1/0", BackendError, "Connection refused"),
        ("redis://no.such.host.invalid/0", BackendError, "cannot be reached"),
        ("redis+socket:///no/such.sock", BackendError, "No such file"),
        ("rediss://127.0.0.1:{port}/0?socket_connect_timeout=1", BackendError, "no TLS was agreed upon"),
        ("redis://127.0.0.1:{http}/0", ImproperlyConfigured, "is not what the URL says"),
        ("redis://127.0.0.1:{mute}/0?socket_connect_timeout=1", BackendError, "did not answer in time"),
        ("sentinel://127.0.0.1:{port}/0?master_name=main", BackendError, "SENTINEL"),
        (
            "redis+cluster://127.0.0.1:{port}/0?global_keyprefix=%7Ba%7D",
            ImproperlyConfigured,
            "cluster support disabled",
        ),
    ],
)
def test_what_is_wrong_is_said_in_time(server: RedisServer, url: str, kind: type[CeleriacError], says: str):
    http, mute = Stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Stranger(None)
    began = time.monotonic()
    try:
        ports = {"port": server.port, "http": http.port, "mute": mute.port}
        with opened(url.format(**ports)) as store, pytest.raises(kind, match=says) as caught:
            store.read(["x"])
    finally:
        http.close()
        mute.close()
    assert type(caught.value) is kind
    assert "(result_backend)" in str(caught.value)
    assert "wrong@" not in str(caught.value)
    assert time.monotonic() - began < DEADLINE


def test_a_missing_password_is_said():
    for protected in started(lambda: RedisServer("--requirepass", "secret")):
        with (
            opened(f"redis://127.0.0.1:{protected.port}/0") as store,
            pytest.raises(ImproperlyConfigured, match="refuses"),
        ):
            store.write([record("x")])
        with (
            opened(f"redis://:wrong@127.0.0.1:{protected.port}/0") as store,
            pytest.raises(ImproperlyConfigured, match="user name, the password") as caught,
        ):
            store.write([record("x")])
        assert "wrong" not in str(caught.value)
        with opened(f"redis://:secret@127.0.0.1:{protected.port}/0") as store:
            is_used(store)


# ── sockets, forks, limits, silence ──────────────────────────────────────────────────────────────────────────


def test_a_unix_socket():
    class OnSocket(RedisServer):
        def command(self) -> list[str]:
            return [*super().command(), "--unixsocket", f"{self.folder}/r.sock"]

    for local in started(OnSocket):
        with opened(f"redis+socket://{local.folder}/r.sock?virtual_host=2") as store:
            is_used(store)
            store.write([record("kept")])
        with redis.Redis(port=local.port, db=2) as client:
            assert client.exists("celery-task-meta-kept")


def test_an_idle_link_of_a_server_that_came_back_is_not_used():
    for restarted in started(RedisServer):
        links = Links(address(restarted.url()))
        with links.borrow() as link:
            link.call("SET", "a", "1")
        restarted.kill()
        restarted.start()
        with links.borrow() as link:
            assert link.call("GET", "a") == b"1"
        links.close()


def test_a_writer_on_the_loop_outlives_its_server():
    for restarted in started(RedisServer):
        with opened(restarted.url(), LoopStore, redis_socket_timeout=0.3) as store:
            store.write([record("first")])
            restarted.kill()
            with pytest.raises(BackendStoreError, match="cannot be reached"):
                store.write([record("refused")])
            restarted.start()
            store.write([record("second")])
            restarted.pause()
            try:
                with pytest.raises(BackendStoreError, match="in time"):
                    store.write([record("silent")])
            finally:
                restarted.resume()
            writes_in_time(store, "third", 30.0)
            assert set(store.read(["refused", "second", "third"])) == {"second", "third"}


def test_a_broken_link_is_let_go_of_at_once(server: RedisServer):
    link, other = (open_link(address(server.url())) for _ in range(2))
    other.call("CLIENT", "KILL", "ID", link.call("CLIENT", "ID"))
    other.close()
    gone = weakref.ref(link)
    gc.disable()  # it has 64 KiB to read into, and the collector may come late
    try:
        with contextlib.suppress(LinkBroken):
            link.call("PING")
            pytest.fail("the link is not broken")
        del link
        assert gone() is None
    finally:
        gc.enable()


def test_a_forked_child_has_links_of_its_own(server: RedisServer):
    links = Links(address(server.url()))
    with links.borrow() as link:
        mine = link.call("CLIENT", "ID")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with links.borrow() as link:
                os.write(writing, str(link.call("CLIENT", "ID")).encode())
            links.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100)) != mine
    with links.borrow() as link:
        assert link.call("CLIENT", "ID") == mine
    links.close()
    os.close(reading)
    os.close(writing)


def test_no_more_links_than_allowed(server: RedisServer):
    links = Links(address(server.url(), max_connections=2))
    first, second = links.take(), links.take()
    with pytest.raises(LinkBroken, match="all 2 connections are in use"):
        links.take(time.monotonic() + 0.05)
    links.give_back(first)
    assert links.take(time.monotonic() + 5.0) is first
    second.close()
    links.give_back(second)
    third = links.take(time.monotonic() + 5.0)
    assert third is not second
    for link in (first, third):
        links.give_back(link)
    links.close()


def test_silence_ends_with_the_deadline():
    for silent in started(RedisServer):
        links = Links(address(silent.url(), socket_timeout=0.3))
        link = links.take()
        silent.pause()
        try:
            for deadline in (0.1, None):
                began = time.monotonic()
                with pytest.raises(LinkBroken) as caught:
                    link.call("GET", "a", deadline=None if deadline is None else began + deadline)
                assert (caught.value.fault, caught.value.sent) == (Fault.SLOW, True)
                assert time.monotonic() - began < 30
                link = links_open_later(links) if deadline is not None else link
        finally:
            silent.resume()
        with links.borrow() as link:
            assert link.call("PING") == b"PONG"
        links.close()


def test_a_server_that_agrees_to_everything_is_no_redis():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def agree() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                while client.recv(65536):
                    client.sendall(b"+OK\r\n")

        thread = threading.Thread(target=agree, daemon=True)
        thread.start()
        with pytest.raises(LinkBroken, match="not the protocol") as caught:
            open_link(address(f"redis://127.0.0.1:{listener.getsockname()[1]}/0"))
        assert caught.value.fault is Fault.MISPLACED
        thread.join(timeout=10)


def links_open_later(links: Links) -> Any:
    """To a server that sleeps one can connect, but not log in."""
    with pytest.raises((LinkBroken, redis.TimeoutError)) as caught:
        links.take(time.monotonic() + 0.2)
    assert fault_of(caught.value) is Fault.SLOW

    class Late:
        def call(self, *_: object, **__: object) -> None:
            raise LinkBroken("late", Fault.SLOW, sent=True)

    return Late()


def test_waiting_on_a_server_that_hangs_ends_in_time():
    for silent in started(RedisServer):
        with opened(silent.url()) as store:
            waiter = Waiter(store, SYSTEM_CLOCK)
            store.write([record("there")])
            assert waiter.wait(["there"], 5.0)
            silent.pause()
            try:
                began = time.monotonic()
                assert not waiter.wait(["never"], 0.5)
                assert time.monotonic() - began < 30
            finally:
                silent.resume()
            assert waiter.wait(["there"], 10.0)


def test_a_timeout_holds_on_a_server_that_hangs():
    """Reading a result and waiting for it, with connections that are idle and with new ones."""
    for silent in started(RedisServer):
        app = Celeriac("hanging", broker="memory://", backend=silent.url())
        store = app.backend.store
        store.write([record("there")])
        assert app.AsyncResult("there").get(timeout=30) is not None
        silent.pause()
        try:
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(BackendError):
                    store.read(["there"], began + 0.2)
                assert time.monotonic() - began < 9.0  # left to itself it would take ten
                began = time.monotonic()
                with pytest.raises(ResultTimeout, match="cannot be read"):
                    app.AsyncResult("never").get(timeout=0.3)
                assert time.monotonic() - began < 5.0
        finally:
            silent.resume()
        assert set(store.read(["there"], time.monotonic() + 30)) == {"there"}
        app.close()


def test_the_time_of_a_large_value_is_no_silence(server: RedisServer):
    with contextlib.closing(open_link(address(server.url(), socket_timeout=2))) as link:
        large = os.urandom(1 << 20) * 30
        link.call("SET", "large", large)
        assert link.call("GET", "large") == large
        link.call("DEL", "large")


# ── several servers ──────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_list_the_first_master_is_used(server: RedisServer):
    for replica in started(lambda: RedisServer("--replicaof", "127.0.0.1", str(server.port))):
        url = f"redis://127.0.0.1:1/0;{replica.url()};{server.url()}"
        with opened(url) as store:
            is_used(store)
        link = open_link(address(url))
        assert link.endpoint.port == server.port
        link.close()
        nobody = address(f"redis://127.0.0.1:1/0;{replica.url()}")
        with pytest.raises(BackendStoreError, match="no master"), Translating("writing", "result_backend", str(nobody)):
            open_link(nobody)


@pytest.fixture(scope="module")
def group() -> Iterator[SentinelGroup]:
    yield from started(SentinelGroup)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"master_name": "mymaster", "min_other_sentinels": 9}, "min_other_sentinels is 9"),
        ({"master_name": "nobody"}, "No such master"),
    ],
)
def test_sentinels_that_do_not_agree(group: SentinelGroup, options: dict[str, Any], says: str):
    with (
        opened(group.url(), result_backend_transport_options=options) as store,
        pytest.raises(BackendError, match=says),
    ):
        store.read(["before"])


def test_sentinels_lead_to_the_new_master():
    for group in started(SentinelGroup):
        options = {"master_name": group.name, "min_other_sentinels": 2}
        with opened(group.url(), result_backend_transport_options=options) as store:
            is_used(store)
            store.write([record("before")])
            found: list[Any] = []
            waiting = threading.Thread(target=waits, args=(Waiter(store, SYSTEM_CLOCK), "after", found))
            waiting.start()
            killed = group.fail_over()
            writes_in_time(store, "after", 30.0)
            waiting.join(15.0)
            assert set(found[0]) == {"after"}
            # the old master comes back as a replica
            killed.start()
            assert open_link(store.address).endpoint.port == group.master_port() != killed.port
            # and a master that is made a replica under our feet is left
            with redis.Redis(port=group.master_port()) as demoted:
                demoted.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
                with pytest.raises(BackendStoreError, match="cannot serve now"):
                    store.write([record("refused")])
                demoted.execute_command("REPLICAOF", "NO", "ONE")
            writes_in_time(store, "refused", 30.0)


def waits(waiter: Waiter, name: str, found: list[Any]) -> None:
    found.append(waiter.wait([name], 40.0))


def writes_in_time(store: RedisStore, name: str, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            store.write([record(name)])
        except BackendStoreError:
            assert time.monotonic() < ends
            time.sleep(0.1)
        else:
            return


def test_a_cluster_is_used_by_its_hash_tag():
    for cluster in started(ClusterServers):
        ports = set()
        for tag in ("{a}", "{b}", "{c}", "x{d}y"):
            options = {"global_keyprefix": tag}
            with opened(cluster.url(), result_backend_transport_options=options) as store:
                is_used(store)
                store.write([record(f"many-{n}") for n in range(100)])
                assert len(store.read([f"many-{n}" for n in range(100)])) == 100
                link = open_link(store.address)
                ports.add(link.endpoint.port)
                link.close()
        assert len(ports) > 1
        with opened(f"redis://127.0.0.1:{cluster.nodes[0].port}/0") as store:
            assert [
                finding for finding in store.examine() if finding.level == "error" and "redis+cluster" in finding.text
            ]
