"""Every URL and option that Celery's users write, and one clear error for each that cannot be."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.redis.address import Address, address_of


def read(url: str, **options: Any) -> Address:
    given = {name: options.pop(name) for name in ("use_ssl", "parts", "provider", "connect_timeout") if name in options}
    return address_of(url, setting="broker_url", options=options, **given)


def test_a_plain_url():
    address = read("redis://me:p%40ss@host:1234/7")
    (endpoint,) = address.endpoints
    assert (endpoint.host, endpoint.port, endpoint.db) == ("host", 1234, 7)
    assert (endpoint.login.username, endpoint.login.password) == ("me", "p@ss")
    assert endpoint.login.security is None
    assert address.kind == "plain"


def test_what_is_left_out_has_defaults():
    (endpoint,) = read("redis://").endpoints
    assert (endpoint.host, endpoint.port, endpoint.db) == ("localhost", 6379, 0)
    assert read("redis://:secret@host").endpoints[0].login.password == "secret"
    assert read("redis://host/").db == 0
    assert read("redis://host/?virtual_host=4").db == read("redis://host?db=4").db == 4


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_verifies_unless_told_otherwise(scheme: str):
    security = read(f"{scheme}://host").endpoints[0].login.security
    assert security == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("required", "required"), ("CERT_REQUIRED", "required"), ("CERT_OPTIONAL", "optional"), ("CERT_NONE", "none")],
)
def test_tls_options_of_a_url(given: str, meant: str):
    url = f"rediss://host?ssl_cert_reqs={given}&ssl_ca_certs=%2Fca.pem&ssl_certfile=%2Fc.pem&ssl_keyfile=%2Fk.pem"
    security = read(url).endpoints[0].login.security
    assert security is not None
    assert security["ssl_cert_reqs"] == meant
    assert security["ssl_check_hostname"] is (meant != "none")
    paths = (security["ssl_ca_certs"], security["ssl_certfile"], security["ssl_keyfile"])
    assert paths == ("/ca.pem", "/c.pem", "/k.pem")


def test_tls_options_of_the_settings():
    named = read("redis://host", use_ssl={"ssl_cert_reqs": ssl.CERT_NONE, "ca_certs": "/ca.pem"})
    assert named.endpoints[0].login.security == {
        "ssl_cert_reqs": "none", "ssl_check_hostname": False, "ssl_ca_certs": "/ca.pem",
    }  # fmt: skip
    assert read("redis://host", use_ssl=True).endpoints[0].login.security is not None
    assert read("redis://host", use_ssl=False).endpoints[0].login.security is None


def test_a_unix_socket():
    (endpoint,) = read("redis+socket:///run/redis/redis.sock?virtual_host=5").endpoints
    assert (endpoint.path, endpoint.db) == ("/run/redis/redis.sock", 5)
    assert read("redis+socket://:pw@/run/r.sock").endpoints[0].login.password == "pw"


@pytest.mark.parametrize(
    "url", ["sentinel://a:1/2;sentinel://b:26380/2", "sentinel://a:1/2;b:26380/2", "sentinels://a:1/2;b:26380/2"]
)
def test_sentinels(url: str):
    address = read(url, master_name="main", min_other_sentinels=1, sentinel_kwargs={"password": "watch"})
    assert address.kind == "sentinel"
    assert [(one.host, one.port, one.db) for one in address.endpoints] == [("a", 1, 2), ("b", 26380, 2)]
    assert (address.master_name, address.min_other_sentinels) == ("main", 1)
    assert address.sentinel_login.password == "watch"
    assert (address.sentinel_login.security is not None) is url.startswith("sentinels")


def test_sentinels_may_be_plain_where_the_master_is_not():
    address = read("sentinel://a:1", master_name="main", use_ssl={"ca_certs": "/ca.pem"})
    assert address.endpoints[0].login.security is not None
    assert address.sentinel_login.security is None
    secured = read("sentinel://a:1", master_name="main", use_ssl=True, sentinel_kwargs={"ssl": True})
    assert secured.sentinel_login.security is not None


def test_a_cluster_needs_a_hash_tag():
    address = read("redis+cluster://a:1;redis+cluster://b:2", global_keyprefix="x{tag}y")
    assert (address.kind, address.hash_tag) == ("cluster", "tag")
    for prefix in ("", "plain", "{}", "{open"):
        with pytest.raises(ImproperlyConfigured, match=r"global_keyprefix .* '\{celeriac\}'"):
            read("redis+cluster://a:1", global_keyprefix=prefix)


def test_a_list_of_servers():
    address = read("redis://a:1/0;rediss://b:2/3")
    assert [(one.host, one.db, one.login.security is not None) for one in address.endpoints] == [
        ("a", 0, False), ("b", 3, True),
    ]  # fmt: skip


def test_options_come_from_the_settings_and_the_url_wins():
    address = read(
        "redis://host?socket_timeout=3&max_connections=5", socket_timeout=60,
        socket_connect_timeout=timedelta(seconds=2), socket_keepalive=False, client_name="shop",
        health_check_interval=0, retry_on_timeout=True, socket_keepalive_options={1: 2}, visibility_timeout=3600,
    )  # fmt: skip
    assert (address.answer_timeout, address.connect_timeout, address.max_connections) == (3.0, 2.0, 5)
    assert (address.keepalive, address.keepalive_options, address.client_name) == (False, {1: 2}, "shop")
    assert (address.health_check_interval, address.retry_on_timeout) == (0.0, True)


def test_no_timeout_is_endless():
    address = read("redis://host", socket_timeout=0, socket_connect_timeout=None)
    assert address.answer_timeout == 10.0
    assert address.connect_timeout == 4.0
    assert read("redis://host", socket_timeout=1).connect_timeout == 1.0


class Provider:
    def get_credentials(self) -> tuple[str, str]:
        return ("me", "pw")


def test_credentials_may_be_supplied():
    dotted = "redis.credentials.UsernamePasswordCredentialProvider"
    login = read(f"redis://a:b@host?credential_provider={dotted}").endpoints[0].login
    assert login.password is None
    assert callable(login.provider.get_credentials)
    assert read("redis://host", provider=Provider).endpoints[0].login.provider.get_credentials() == ("me", "pw")


def test_parts_stand_in_for_what_a_bare_name_does_not_say():
    parts = {"host": "h", "port": 1, "db": "2", "username": "u", "password": "p"}
    (endpoint,) = read("redis", parts=parts).endpoints
    assert (endpoint.host, endpoint.port, endpoint.db, endpoint.login.username) == ("h", 1, 2, "u")
    (endpoint,) = read("redis://other:5/0", parts=parts).endpoints
    assert (endpoint.host, endpoint.port, endpoint.db) == ("other", 5, 0)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("redis://host/x", {}, "database must be a number"),
        ("redis://host/-1", {}, "database must be a number"),
        ("http://host", {}, "not a scheme of Redis"),
        ("redis://host:port", {}, "malformed host or port"),
        ("", {}, "empty"),
        ("redis://host?sokcet_timeout=1", {}, "'sokcet_timeout'.*'socket_timeout'"),
        ("redis://host?ssl_cert_reqs=none", {}, "rediss://"),
        ("rediss://host?ssl_cert_reqs=maybe", {}, "ssl_cert_reqs must be"),
        ("redis://host", {"use_ssl": {"cipher": "x"}}, "ssl_cipher"),
        ("redis://host", {"socket_timeout": "soon"}, "socket_timeout must be a number of seconds"),
        ("redis://host", {"socket_timeout": -1}, "socket_timeout must be a number of seconds"),
        ("redis://host", {"max_connections": "many"}, "max_connections must be a whole number"),
        ("redis://host", {"socket_keepalive": "perhaps"}, "socket_keepalive must be true or false"),
        ("redis://host", {"socket_keepalive_options": 3}, "socket_keepalive_options must be a mapping"),
        ("redis://host", {"client_name": 3}, "client_name must be a text"),
        ("redis://host", {"credential_provider": object()}, "get_credentials"),
        ("sentinel://host", {}, "master_name in broker_transport_options"),
        ("sentinel://host", {"master_name": "m", "sentinel_kwargs": {"pass_word": 1}}, "sentinel_kwargs: pass_word"),
        ("redis://a;sentinel://b", {}, "cannot mix"),
        ("redis+socket://", {}, "path of the socket"),
        ("redis+cluster://a/3", {"global_keyprefix": "{a}"}, "no databases but 0"),
    ],
)
def test_what_cannot_be_is_said(url: str, options: dict[str, Any], says: str):
    with pytest.raises(ImproperlyConfigured, match=rf"^broker_url: .*{says}"):
        read(url, **options)


def test_secrets_are_not_shown():
    address = read("sentinel://u:hunter2@a:1;u:hunter2@b", master_name="m", sentinel_kwargs={"password": "hunter2"})
    assert "hunter2" not in f"{address} {address!r} {address.engine_key} {address.endpoints}"
    with pytest.raises(ImproperlyConfigured) as caught:
        read("redis://u:hunter2@host/x?bad=1")
    assert "hunter2" not in str(caught.value)


def test_the_engine_key_tells_databases_apart():
    same = read("redis://host/0").engine_key
    assert same == read("redis://host:6379").engine_key == read("redis://:pw@host:6379").engine_key
    others = ["redis://host/1", "redis://host:6380", "redis://other", "redis://me:pw@host"]
    assert len({same, *(read(url).engine_key for url in others)}) == 5
    assert read("redis://host", global_keyprefix="a").engine_key != same
    assert read("sentinel://host:6379", master_name="m").engine_key != same
