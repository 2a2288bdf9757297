"""Options of a Redis connection: read from URLs (as text) or settings (as values); errors name them."""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celeriac.errors import ImproperlyConfigured

#: options of TLS that redis-py knows
SECURITY = frozenset({
    "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password",
    "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
})  # fmt: skip
#: what the query of a URL may say besides
QUERY = frozenset({
    "db", "virtual_host", "username", "password", "credential_provider", "client_name", "socket_timeout",
    "socket_connect_timeout", "socket_keepalive", "retry_on_timeout", "max_connections", "health_check_interval",
    "global_keyprefix", "master_name", "min_other_sentinels", "protocol",
})  # fmt: skip

_VERIFY: Mapping[Any, str] = {
    "required": "required", "cert_required": "required", ssl.CERT_REQUIRED: "required",
    "optional": "optional", "cert_optional": "optional", ssl.CERT_OPTIONAL: "optional",
    "none": "none", "cert_none": "none", ssl.CERT_NONE: "none", None: "none",
}  # fmt: skip
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on", "t", "y"}), frozenset({"0", "false", "no", "off", "f", "n", ""})


class Options:
    """A mapping whose values are asked for by kind."""

    def __init__(self, given: Mapping[str, Any], setting: str) -> None:
        self._given = given
        self._setting = setting

    def refuse_unknown(self, names: Mapping[str, Any]) -> None:
        known = SECURITY | QUERY
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}"
                raise ImproperlyConfigured(f"{self._setting}: unknown option {name!r} in the URL. {hint}")

    def take(self, name: str, default: Any = None) -> Any:
        value = self._given.get(name)
        return default if value is None else value

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a text", value)
        return value or None

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name, default)
        text = str(value).strip().lower()
        if text in _TRUE | _FALSE:
            return text in _TRUE
        raise self._wrong(name, "true or false", value)

    def count(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise self._wrong(name, "a whole number", value) from None
        if number < 0:
            raise self._wrong(name, "a whole number from 0", value)
        return number or None

    def seconds(self, name: str, default: float, *, zero: bool = False) -> float:
        """``zero``: whether 0 is an answer, too; else it stands for the default, since no wait is without an end."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, timedelta):
            value = value.total_seconds()
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._wrong(name, "a number of seconds", value) from None
        if not 0 <= number < float("inf"):
            raise self._wrong(name, "a number of seconds", value)
        return number if number or zero else default

    def mapping(self, name: str) -> dict[Any, Any]:
        value = self.take(name, {})
        if not isinstance(value, Mapping):
            raise self._wrong(name, "a mapping", value)
        return dict(value)

    def _wrong(self, name: str, wanted: str, value: object) -> ImproperlyConfigured:
        return ImproperlyConfigured(f"{self._setting}: the option {name} must be {wanted}, not {value!r}")


def security_of(
    use_ssl: bool | Mapping[str, Any] | None, query: Mapping[str, Any], setting: str
) -> dict[str, Any]:  # fmt: skip
    """Options of TLS as redis-py takes them; certificates and host names are verified unless they say otherwise.

    ``use_ssl``: ``broker_use_ssl`` or ``redis_backend_use_ssl``, whose names may lack the ``ssl_``.
    """
    named = dict(use_ssl) if isinstance(use_ssl, Mapping) else {}
    given = {name if name.startswith("ssl_") else f"ssl_{name}": value for name, value in named.items()}
    given.update(query)
    unknown = sorted(set(given) - SECURITY)
    if unknown:
        raise ImproperlyConfigured(
            f"{setting}: unknown options of TLS: {', '.join(unknown)}. Known: {', '.join(sorted(SECURITY))}"
        )
    verify = given.get("ssl_cert_reqs", "required")
    key = verify.lower() if isinstance(verify, str) else verify
    if key not in _VERIFY:
        raise ImproperlyConfigured(f"{setting}: ssl_cert_reqs must be required, optional or none, not {verify!r}")
    given["ssl_cert_reqs"] = _VERIFY[key]
    options = Options(given, setting)
    # a host name that is not looked at would make any certificate of a known authority good enough
    given["ssl_check_hostname"] = given["ssl_cert_reqs"] != "none" and options.flag("ssl_check_hostname", True)
    return {name: value for name, value in given.items() if value is not None}
