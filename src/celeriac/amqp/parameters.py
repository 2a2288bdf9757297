"""Everything one needs to know to connect: read from a broker URL, its query and the settings.

TLS verifies certificate and host name unless told otherwise in so many words.
"""

from __future__ import annotations

import math
import ssl
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from celeriac import __version__
from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT, TLS_PORT = 5672, 5671
LOGIN_METHODS = ("PLAIN", "AMQPLAIN", "EXTERNAL")
FRAME_MAX_BYTES = 131072
CHANNEL_MAX = 2047
MESSAGE_LIMIT_BYTES = 16 * 1024 * 1024


class Address(Protocol):
    """What is read of a broker URL (``transports/url.py``)."""

    @property
    def scheme(self) -> str: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> dict[str, str]: ...


def _client_properties() -> dict[str, Any]:
    return {
        "product": "celeriac",
        "version": __version__,
        "platform": "Python",
        "capabilities": {
            "consumer_cancel_notify": True, "basic.nack": True, "publisher_confirms": True, "connection.blocked": True,
            "authentication_failure_close": True, "exchange_exchange_bindings": True,
        },
    }  # fmt: skip


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a broker. Its ``repr`` shows no password."""

    host: str = "localhost"
    port: int = PORT
    vhost: str = "/"
    username: str = "guest"
    password: str = "guest"
    login_method: str = "PLAIN"
    tls: ssl.SSLContext | None = None
    #: whose certificate it must be; None: nobody's in particular
    server_name: str | None = None
    #: seconds; 0: none
    heartbeat: float = 60.0
    frame_max: int = FRAME_MAX_BYTES
    channel_max: int = CHANNEL_MAX
    #: bytes; longer bodies are thrown away as they come, and reported
    message_limit: int = MESSAGE_LIMIT_BYTES
    #: seconds for one attempt to connect and log in
    connect_timeout: float = 4.0
    client_properties: dict[str, Any] = msgspec.field(default_factory=_client_properties)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        return f"Parameters({scheme}://{self.username}@{self.address}/{self.vhost})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


def parameters_of(
    url: Address, *, use_ssl: bool | Mapping[str, Any] = False, options: Mapping[str, Any] | None = None,
    heartbeat: float | None = None, connect_timeout: float = 4.0, login_method: str | None = None,
    message_limit: int = MESSAGE_LIMIT_BYTES,
) -> Parameters:  # fmt: skip
    """Read the address and the settings. Raises ``ImproperlyConfigured``.

    ``options``: broker_transport_options; of them, and of the URL's query, these are read: ``frame_max``,
    ``channel_max``, ``heartbeat``, ``login_method``, ``connect_timeout``, ``client_properties``.
    """
    given = {**(options or {}), **url.query}
    tls_wanted = url.scheme == "amqps" or bool(use_ssl) or any(name.startswith("ssl_") for name in given)
    host = url.host or "localhost"
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    if tls_wanted:
        context, server_name = _tls(dict(use_ssl) if not isinstance(use_ssl, bool) else {}, given, host)
    method = str(given.get("login_method") or login_method or "PLAIN").upper()
    if method not in LOGIN_METHODS:
        raise ImproperlyConfigured(f"broker_login_method is {method}; RabbitMQ knows {', '.join(LOGIN_METHODS)}.")
    properties = _client_properties()
    properties.update(options.get("client_properties") or {} if options else {})
    return Parameters(
        host=host,
        port=url.port or (TLS_PORT if tls_wanted else PORT),
        vhost=vhost_of(url.path),
        username=url.username or "guest",
        password="guest" if url.password is None else url.password,
        login_method=method,
        tls=context,
        server_name=server_name,
        heartbeat=max(0.0, _number(given, "heartbeat", heartbeat or 0.0)),
        frame_max=_frame_max(given),
        channel_max=min(0xFFFF, max(1, int(_number(given, "channel_max", CHANNEL_MAX)))),
        message_limit=message_limit,
        connect_timeout=_number(given, "connect_timeout", connect_timeout),
        client_properties=properties,
    )


def vhost_of(path: str) -> str:
    """The virtual host that a URL's decoded path names: ``''`` and ``'/'`` are ``'/'``, all else is itself."""
    return path or "/"


def _number(given: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = given.get(name)
    if value is None:
        return otherwise
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ImproperlyConfigured(f"The broker's option {name} must be a number, not {value!r:.50}.")
    return number


def _frame_max(given: Mapping[str, Any]) -> int:
    asked = int(_number(given, "frame_max", FRAME_MAX_BYTES))
    if not 4096 <= asked <= 16 * 1024 * 1024:
        raise ImproperlyConfigured("The broker's option frame_max must be from 4096 to 16777216 bytes.")
    return asked


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────

_REQUIREMENTS = {
    "required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE,
    "cert_required": ssl.CERT_REQUIRED, "cert_optional": ssl.CERT_OPTIONAL, "cert_none": ssl.CERT_NONE,
}  # fmt: skip
_TLS_OPTIONS = frozenset({
    "ca_certs", "ca_path", "certfile", "keyfile", "keyfile_password", "password", "cert_reqs", "check_hostname",
    "server_hostname", "ciphers", "context", "tls_minimum_version", "tls_maximum_version",
    # of py-amqp, without a meaning here: what they ask for is always so
    "ssl_version", "server_side", "do_handshake_on_connect", "suppress_ragged_eofs",
})  # fmt: skip


def _tls(wishes: dict[str, Any], given: Mapping[str, Any], host: str) -> tuple[ssl.SSLContext, str | None]:
    """A context, and the name that the broker's certificate must bear."""
    for name, value in [*wishes.items(), *given.items()]:
        if name.startswith("ssl_") and name != "ssl_version":
            wishes.setdefault(name[4:], value)
            wishes.pop(name, None)
    unknown = sorted(wishes.keys() - _TLS_OPTIONS)
    if unknown:
        raise ImproperlyConfigured(
            f"broker_use_ssl has unknown options: {', '.join(unknown)}. Known are {', '.join(sorted(_TLS_OPTIONS))}."
        )
    name = wishes.get("server_hostname") or host
    ready = wishes.get("context")
    if isinstance(ready, ssl.SSLContext):
        return ready, name
    if isinstance(ready, dict):  # py-amqp's second shape: the arguments of ssl.create_default_context
        wishes = {**{_CONTEXT_NAMES.get(str(key), str(key)): value for key, value in ready.items()}, **wishes}
    try:
        context = ssl.create_default_context(cafile=wishes.get("ca_certs"), capath=wishes.get("ca_path"))
        if wishes.get("certfile"):
            password = wishes.get("keyfile_password") or wishes.get("password")
            context.load_cert_chain(wishes["certfile"], wishes.get("keyfile"), password)
        if wishes.get("ciphers"):
            context.set_ciphers(wishes["ciphers"])
        if wishes.get("tls_minimum_version"):
            context.minimum_version = wishes["tls_minimum_version"]
        if wishes.get("tls_maximum_version"):
            context.maximum_version = wishes["tls_maximum_version"]
    except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ImproperlyConfigured(
            f"The files or ciphers of broker_use_ssl cannot be used: {error}. Check ca_certs, certfile and keyfile."
        ) from None
    requirement = _requirement(wishes.get("cert_reqs"))
    context.check_hostname = requirement != ssl.CERT_NONE and _truth(wishes.get("check_hostname", True))
    context.verify_mode = requirement
    return context, name


_CONTEXT_NAMES = {"cafile": "ca_certs", "capath": "ca_path"}


def _truth(value: Any) -> bool:
    return value.strip().lower() not in ("false", "0", "no", "off") if isinstance(value, str) else bool(value)


def _requirement(value: Any) -> ssl.VerifyMode:
    if value is None:
        return ssl.CERT_REQUIRED
    if isinstance(value, str):
        found = _REQUIREMENTS.get(value.lower())
        if found is not None:
            return found
    elif isinstance(value, int):
        try:
            return ssl.VerifyMode(int(value))
        except ValueError:
            pass
    raise ImproperlyConfigured(f"cert_reqs of broker_use_ssl is {value!r:.50}; it must be required, optional or none.")
