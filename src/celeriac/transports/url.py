"""Broker URLs: what they say, several in a row, and how they are shown without their secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from celeriac.errors import ImproperlyConfigured

_MASK = "**"
#: options in the query whose values are not shown
_SECRET_WORDS = ("password", "passwd", "secret", "token", "key", "credential", "signature")


class BrokerUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's address. ``str()`` masks secrets, :meth:`reveal` does not."""

    scheme: str
    username: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    #: what follows the first slash, decoded: a virtual host, a database number, a file
    path: str = ""
    query: dict[str, str] = {}
    #: False for a bare name such as ``memory``
    has_address: bool = True

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read one URL, or the bare name of a transport. Raises ``ImproperlyConfigured`` without quoting secrets."""
        text = text.strip()
        scheme, colon, rest = text.partition("://")
        if not scheme or not _is_scheme(scheme):
            raise ImproperlyConfigured(
                "A broker URL must begin with a transport's name: scheme://user:password@host:port/path"
            )
        if not colon:
            return cls(scheme=scheme, has_address=False)
        # a second scheme ("sqla+postgresql") or an underscore would stop urlsplit from seeing the authority
        try:
            parts = urlsplit("//" + rest)
            port = parts.port
            host = unquote(parts.hostname) if parts.hostname else None
        except ValueError:
            raise ImproperlyConfigured(
                f"The {scheme} URL has a malformed host or port. Quote special characters in the password (%40 for @)."
            ) from None
        return cls(
            scheme=scheme,
            username=_decoded(parts.username),
            password=_decoded(parts.password),
            host=host,
            port=port,
            path=unquote(parts.path[1:]),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        )

    def reveal(self) -> str:
        """The URL with its secrets."""
        return self._text(self.password, self.query)

    def __str__(self) -> str:
        hidden = {
            name: _MASK if any(word in name.lower() for word in _SECRET_WORDS) else value
            for name, value in self.query.items()
        }
        return self._text(None if self.password is None else _MASK, hidden)

    def __repr__(self) -> str:
        return f"BrokerUrl({str(self)!r})"

    def __rich_repr__(self) -> Any:
        yield str(self)

    def _text(self, password: str | None, query: dict[str, str]) -> str:
        if not self.has_address:
            return self.scheme
        user = quote(self.username or "", safe="")
        secret = "" if password is None else ":" + (password if password == _MASK else quote(password, safe=""))
        at = "@" if user or secret else ""
        host = f"[{self.host}]" if self.host and ":" in self.host else quote(self.host or "", safe=".-_~")
        port = "" if self.port is None else f":{self.port}"
        options = "&".join(f"{quote(name)}={quote(value, safe='*')}" for name, value in query.items())
        path = "/" + quote(self.path, safe="/") if self.path else ""
        tail = f"?{options}" if options else ""
        return f"{self.scheme}://{user}{secret}{at}{host}{port}{path}{tail}"


def _is_scheme(text: str) -> bool:
    return text[0].isalpha() and all(letter.isalnum() or letter in "+-._:" for letter in text)


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_many(text: str | list[str] | tuple[str, ...]) -> list[BrokerUrl]:
    """The addresses of a fail-over list: a sequence, or text with ``;`` between them."""
    parts = text.split(";") if isinstance(text, str) else text
    found = [BrokerUrl.parse(part) for part in parts if part.strip()]
    if not found:
        raise ImproperlyConfigured("The broker URL is empty. Unset it to use the embedded file.")
    return found
