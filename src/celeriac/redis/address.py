"""Where a Redis is and how to log in: what the URLs and options that Celery's users write say, as one value.

Pure: no I/O. Everything wrong is an ``ImproperlyConfigured`` that names the setting and the option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from celeriac import plugins
from celeriac.errors import ImproperlyConfigured
from celeriac.redis.options import SECURITY, Options, security_of
from celeriac.transports.url import BrokerUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

#: scheme → how the server is found, and whether TLS is spoken
_SCHEMES: dict[str, tuple[Literal["plain", "socket", "sentinel", "cluster"], bool]] = {
    "redis": ("plain", False),
    "rediss": ("plain", True),
    "valkey": ("plain", False),
    "valkeys": ("plain", True),
    "redis+socket": ("socket", False),
    "sentinel": ("sentinel", False),
    "sentinels": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS = {"plain": 6379, "cluster": 6379, "sentinel": 26379}
#: seconds that connecting may take, and that the server may be silent while an answer is due
CONNECT_TIMEOUT = 4.0
ANSWER_TIMEOUT = 10.0


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """How to introduce oneself. Its ``repr`` shows no secrets."""

    username: str | None = None
    password: str | None = None
    provider: Any = None  #: has ``get_credentials()``; replaces user and password
    #: options of TLS as redis-py takes them, None: no TLS
    security: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Login(username={self.username!r}, tls={self.security is not None})"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One server: ``host`` and ``port``, or the ``path`` of its socket."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    login: Login = Login()

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that connecting needs to know. ``str()`` shows no secrets."""

    setting: str  #: the setting that holds the URL, for errors
    shown: str
    kind: Literal["plain", "sentinel", "cluster"] = "plain"
    #: plain: tried in turn; sentinel: the sentinels; cluster: nodes to ask
    endpoints: tuple[Endpoint, ...]
    keyprefix: str = ""  #: ``global_keyprefix`` as given
    connect_timeout: float = CONNECT_TIMEOUT
    answer_timeout: float = ANSWER_TIMEOUT
    keepalive: bool = True
    keepalive_options: dict[int, Any] = {}
    max_connections: int | None = None
    health_check_interval: float = 25.0
    retry_on_timeout: bool = False
    client_name: str | None = None
    # sentinels alone:
    master_name: str = ""
    min_other_sentinels: int = 0
    sentinel_login: Login = Login()

    def __str__(self) -> str:
        return self.shown

    @property
    def db(self) -> int:
        return self.endpoints[0].db

    @property
    def engine_key(self) -> tuple[str, ...]:
        """Equal where two drivers use the same database under the same names with the same rights."""
        first = self.endpoints[0]
        where = ",".join(str(endpoint) for endpoint in self.endpoints)
        if self.kind == "sentinel":
            where = f"{self.master_name}@{where}"
        return ("redis", where, str(first.db), self.keyprefix, first.login.username or "")

    @property
    def hash_tag(self) -> str | None:
        """What a cluster computes the slot of our keys from, when the prefix decides it."""
        before, _, rest = self.keyprefix.partition("{")
        tag, closed, _ = rest.partition("}")
        return tag if closed and tag and "}" not in before else None


def address_of(
    url: str, *, setting: str, options: Mapping[str, Any], use_ssl: bool | Mapping[str, Any] | None = None,
    connect_timeout: float | None = None, answer_timeout: float | None = None, parts: Mapping[str, Any] | None = None,
    provider: Any = None,
) -> Address:  # fmt: skip
    """Read a URL or a fail-over list joined with ``;``.

    ``setting``: ``broker_url`` or ``result_backend``. ``options``: transport options; what the URL's query says wins.
    ``connect_timeout``, ``answer_timeout``: seconds, where neither says. ``parts``: host, port, db, username and
    password where the URL is silent (the ``redis_host`` family).
    """
    urls = _urls(url, setting)
    kind, _ = _scheme(urls[0], setting)
    query: dict[str, Any] = {}
    for one in urls:
        if _family(_scheme(one, setting)[0]) != _family(kind):
            raise ImproperlyConfigured(
                f"{setting}: a fail-over list cannot mix {urls[0].scheme}:// and {one.scheme}://"
            )
        query.update(one.query)
    query_options = Options({**options, **query}, setting)
    query_options.refuse_unknown(query)
    provider = _provider(query_options.take("credential_provider", provider), setting)
    endpoints = tuple(_endpoint(one, setting, use_ssl, query_options, parts or {}, provider) for one in urls)
    answer = query_options.seconds("socket_timeout", answer_timeout or ANSWER_TIMEOUT)
    connect = query_options.seconds("socket_connect_timeout", connect_timeout or min(CONNECT_TIMEOUT, answer))
    address = Address(
        setting=setting,
        shown=";".join(str(one) for one in urls),
        kind="plain" if kind == "socket" else kind,
        endpoints=endpoints,
        keyprefix=query_options.text("global_keyprefix") or "",
        connect_timeout=connect,
        answer_timeout=answer,
        keepalive=query_options.flag("socket_keepalive", True),
        keepalive_options=query_options.mapping("socket_keepalive_options"),
        max_connections=query_options.count("max_connections"),
        health_check_interval=query_options.seconds("health_check_interval", 25.0, zero=True),
        retry_on_timeout=query_options.flag("retry_on_timeout", False),
        client_name=query_options.text("client_name"),
    )
    if kind == "sentinel":
        return _with_sentinels(address, query_options, urls[0].scheme)
    if kind == "cluster" and address.hash_tag is None:
        raise ImproperlyConfigured(
            f"{setting}: on a Redis Cluster all keys must lie in one slot. Set global_keyprefix to a name in braces, "
            f"such as '{{celeriac}}', in {_options_name(setting)}; it is {address.keyprefix!r}"
        )
    return address


def _options_name(setting: str) -> str:
    return "broker_transport_options" if setting.startswith("broker") else "result_backend_transport_options"


def _family(kind: str) -> str:
    return "plain" if kind == "socket" else kind


def _urls(text: str, setting: str) -> list[BrokerUrl]:
    scheme = text.partition("://")[0]
    parts = [part.strip() for part in text.split(";") if part.strip()]
    try:
        # sentinel://a:26379;b:26379 names the scheme once
        urls = [BrokerUrl.parse(part if "://" in part or len(parts) == 1 else f"{scheme}://{part}") for part in parts]
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{setting}: {error}") from None
    if not urls:
        raise ImproperlyConfigured(f"{setting}: the URL is empty")
    return urls


def _scheme(url: BrokerUrl, setting: str) -> tuple[Literal["plain", "socket", "sentinel", "cluster"], bool]:
    if url.scheme not in _SCHEMES:
        raise ImproperlyConfigured(
            f"{setting}: {url.scheme}:// is not a scheme of Redis. Known: {', '.join(sorted(_SCHEMES))}"
        )
    return _SCHEMES[url.scheme]


def _endpoint(
    url: BrokerUrl, setting: str, use_ssl: bool | Mapping[str, Any] | None, options: Options, parts: Mapping[str, Any],
    provider: Any,
) -> Endpoint:  # fmt: skip
    kind, tls = _scheme(url, setting)
    given = {name: value for name, value in url.query.items() if name in SECURITY}
    if given and not tls and not use_ssl:
        raise ImproperlyConfigured(f"{setting}: {', '.join(sorted(given))} in a URL without TLS. Use rediss://")
    security = security_of(use_ssl, given, setting) if (tls or use_ssl) and kind != "socket" else None
    username = url.username or url.query.get("username") or parts.get("username")
    password = url.password or url.query.get("password") or parts.get("password")
    if provider is not None:
        username = password = None
    login = Login(username=username or None, password=password or None, provider=provider, security=security)
    silent = not url.has_address or url.host is None
    if kind == "socket":
        if not url.path:
            raise ImproperlyConfigured(f"{setting}: redis+socket:///path/of/the.sock needs the path of the socket")
        return Endpoint(
            path="/" + url.path, db=_db(options.take("virtual_host", options.take("db")), setting), login=login
        )
    host = url.host or (parts.get("host") if silent else None) or "localhost"
    port = url.port or (parts.get("port") if silent else None) or _PORTS[kind]
    named = url.path.strip("/") or options.take("virtual_host", options.take("db"))
    db = _db(parts.get("db") if not named and silent else named, setting)
    if kind == "cluster" and db:
        raise ImproperlyConfigured(f"{setting}: a Redis Cluster has no databases but 0; the URL says {db}")
    return Endpoint(host=str(host), port=int(port), db=db, login=login)


def _db(given: Any, setting: str) -> int:
    text = str(given if given is not None else "").strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ImproperlyConfigured(f"{setting}: the database must be a number such as redis://host/0, not {text!r}")
    return int(text)


def _provider(given: Any, setting: str) -> Any:
    if given is None or given == "":
        return None
    found = plugins.resolve(given) if isinstance(given, str) else given
    if isinstance(found, type):
        found = found()
    if not callable(getattr(found, "get_credentials", None)):
        raise ImproperlyConfigured(f"{setting}: credential_provider {given!r} has no method get_credentials()")
    return found


def _with_sentinels(address: Address, options: Options, scheme: str) -> Address:
    name = options.text("master_name")
    if not name:
        raise ImproperlyConfigured(
            f"{address.setting}: {scheme}:// needs the option master_name in {_options_name(address.setting)}"
        )
    given = dict(options.mapping("sentinel_kwargs"))
    security = address.endpoints[0].login.security
    wants = given.pop("ssl", None)
    own = {key: given.pop(key) for key in list(given) if key in SECURITY}
    if wants or own or (wants is None and scheme == "sentinels"):
        security = security_of({**(security or {}), **own}, {}, f"{address.setting}: sentinel_kwargs")
    else:
        security = None
    login = Login(username=given.pop("username", None), password=given.pop("password", None), security=security)
    for harmless in ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "client_name", "db", "protocol"):
        given.pop(harmless, None)
    if given:
        raise ImproperlyConfigured(f"{address.setting}: unknown options in sentinel_kwargs: {', '.join(sorted(given))}")
    return msgspec.structs.replace(
        address, master_name=name, min_other_sentinels=options.count("min_other_sentinels") or 0, sentinel_login=login
    )
