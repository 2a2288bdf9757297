"""Where a Redis is that is not the broker: the result store's, and that of the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from celeriac.redis.address import address_of

if TYPE_CHECKING:
    from celeriac.redis.address import Address


class StoreSettings(Protocol):
    """What says where it is."""

    @property
    def result_backend_transport_options(self) -> Mapping[str, Any]: ...
    @property
    def redis_backend_use_ssl(self) -> Mapping[str, Any] | bool | None: ...
    @property
    def redis_host(self) -> str | None: ...
    @property
    def redis_port(self) -> int | None: ...
    @property
    def redis_db(self) -> int | str | None: ...
    @property
    def redis_username(self) -> str | None: ...
    @property
    def redis_password(self) -> str | None: ...
    @property
    def redis_max_connections(self) -> int | None: ...
    @property
    def redis_socket_timeout(self) -> float | None: ...
    @property
    def redis_socket_connect_timeout(self) -> float | None: ...
    @property
    def redis_socket_keepalive(self) -> bool: ...
    @property
    def redis_retry_on_timeout(self) -> bool: ...
    @property
    def redis_backend_health_check_interval(self) -> float | None: ...
    @property
    def redis_backend_credential_provider(self) -> Any: ...
    @property
    def redis_client_name(self) -> str | None: ...


def store_address(url: str, settings: StoreSettings, setting: str = "result_backend") -> Address:
    """Where the results are: the URL, the transport options, and the ``redis_…`` settings for what neither says."""
    given = {
        "max_connections": settings.redis_max_connections,
        "socket_keepalive": settings.redis_socket_keepalive,
        "retry_on_timeout": settings.redis_retry_on_timeout,
        "health_check_interval": settings.redis_backend_health_check_interval or 0,
        "client_name": settings.redis_client_name,
        "socket_timeout": settings.redis_socket_timeout,
        "socket_connect_timeout": settings.redis_socket_connect_timeout,
    }
    options = {name: value for name, value in given.items() if value is not None}
    options.update(settings.result_backend_transport_options)
    return address_of(
        url, setting=setting, options=options, use_ssl=settings.redis_backend_use_ssl,
        provider=settings.redis_backend_credential_provider,
        parts={
            "host": settings.redis_host, "port": settings.redis_port, "db": settings.redis_db,
            "username": settings.redis_username, "password": settings.redis_password,
        },
    )  # fmt: skip
