"""What is read from URLs and settings."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from celeriac.amqp.parameters import Parameters, parameters_of
from celeriac.errors import ImproperlyConfigured
from celeriac.transports.url import BrokerUrl


def read(text: str, **settings: Any) -> Parameters:
    return parameters_of(BrokerUrl.parse(text), **settings)


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://h", "/"), ("amqp://h/", "/"), ("amqp://h//", "/"), ("amqp://h/%2F", "/"), ("amqp://h/%2f", "/"),
        ("amqp://h/den", "den"), ("amqp://h//den", "/den"), ("amqp://h/%2Fden", "/den"), ("amqp://h/a%20b", "a b"),
        ("amqp://h/den?heartbeat=3", "den"), ("amqp://", "/"), ("amqp", "/"),
    ],
)  # fmt: skip
def test_virtual_hosts_are_kombus(url: str, vhost: str) -> None:
    assert read(url).vhost == vhost


def test_defaults() -> None:
    found = read("amqp://")
    assert (found.host, found.port, found.username, found.password) == ("localhost", 5672, "guest", "guest")
    assert (found.login_method, found.tls, found.heartbeat, found.frame_max) == ("PLAIN", None, 0.0, 131072)
    assert read("pyamqp://ann@h:1234").address == "h:1234"
    assert read("amqp://ann@h").password == "guest"
    assert read("amqp://ann:@h").password == ""
    assert read("amqp://[::1]").address == "[::1]:5672"


def test_settings_and_options() -> None:
    found = read(
        "amqp://h?frame_max=8192&heartbeat=7", heartbeat=120, connect_timeout=2.0, login_method="AMQPLAIN",
        options={"channel_max": 10, "client_properties": {"connection_name": "w1"}, "frame_max": 5000},
    )  # fmt: skip
    assert (found.frame_max, found.heartbeat, found.connect_timeout, found.channel_max) == (8192, 7.0, 2.0, 10)
    assert found.login_method == "AMQPLAIN"
    assert found.client_properties["connection_name"] == "w1"
    assert found.client_properties["product"] == "celeriac"


def test_no_password_is_shown() -> None:
    found = read("amqps://ann:s3cret@h/den")
    assert "s3cret" not in repr(found)
    assert "s3cret" not in str(found)
    assert repr(found) == "Parameters(amqps://ann@h:5671/den)"


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("amqps://h", {}),
        ("amqp://h", {"use_ssl": True}),
        ("amqp://h", {"use_ssl": {"server_hostname": "h"}}),
        ("amqp://h", {"use_ssl": {"cert_reqs": ssl.CERT_REQUIRED}}),
        ("amqp://h", {"use_ssl": {"ssl_cert_reqs": "CERT_REQUIRED"}}),
        ("amqps://h?ssl_cert_reqs=required", {}),
        ("amqp://h", {"use_ssl": {"context": {"check_hostname": True}}}),
    ],
)
def test_tls_verifies_by_default(url: str, settings: Mapping[str, Any]) -> None:
    found = read(url, **settings)
    assert found.tls is not None
    assert found.tls.verify_mode == ssl.CERT_REQUIRED
    assert found.tls.check_hostname
    assert (found.server_name, found.port) == ("h", 5671)


@pytest.mark.parametrize(
    ("options", "mode", "check"),
    [
        ({"cert_reqs": ssl.CERT_NONE}, ssl.CERT_NONE, False),
        ({"cert_reqs": "none"}, ssl.CERT_NONE, False),
        ({"cert_reqs": 0}, ssl.CERT_NONE, False),
        ({"cert_reqs": "optional"}, ssl.CERT_OPTIONAL, True),
        ({"check_hostname": False}, ssl.CERT_REQUIRED, False),
        ({"ssl_check_hostname": "false"}, ssl.CERT_REQUIRED, False),
    ],
)
def test_verifying_less_must_be_said(options: dict[str, Any], mode: ssl.VerifyMode, check: bool) -> None:
    context = read("amqps://h", use_ssl=options).tls
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (mode, check)


def test_the_name_on_the_certificate() -> None:
    assert read("amqps://h", use_ssl={"server_hostname": "other"}).server_name == "other"
    assert read("amqps://h", use_ssl={"server_hostname": None}).server_name == "h"


def test_a_ready_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()
    assert read("amqp://h", use_ssl={"context": context}).tls is context


@pytest.mark.parametrize(
    ("url", "settings", "word"),
    [
        ("amqp://h", {"use_ssl": {"ca_cert": "typo"}}, "ca_cert"),
        ("amqp://h", {"use_ssl": {"ca_certs": "/no/such/file"}}, "ca_certs"),
        ("amqp://h", {"use_ssl": {"certfile": "/no/such/file"}}, "certfile"),
        ("amqp://h", {"use_ssl": {"cert_reqs": "perhaps"}}, "required, optional or none"),
        ("amqp://h", {"use_ssl": {"cert_reqs": 9}}, "required, optional or none"),
        ("amqp://h", {"use_ssl": {"ciphers": "NOTHING"}}, "ciphers"),
        ("amqp://h", {"login_method": "GSSAPI"}, "broker_login_method"),
        ("amqp://h?frame_max=100", {}, "frame_max"),
        ("amqp://h?heartbeat=often", {}, "heartbeat"),
        ("amqp://h?frame_max=nan", {}, "frame_max"),
        ("amqp://h?channel_max=inf", {}, "channel_max"),
        ("amqp://h", {"options": {"connect_timeout": "nan"}}, "connect_timeout"),
    ],
)
def test_what_cannot_be_used_names_its_setting(url: str, settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=word):
        read(url, **settings)


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ImproperlyConfigured, match="ca_certs"):
        read("amqps://h", use_ssl={"ca_certs": str(tmp_path / "ca.pem")})
