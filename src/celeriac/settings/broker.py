"""Settings of the connection to the broker. See ``transports/`` for the URLs and options of each."""

from collections.abc import Mapping
from typing import Any

from celeriac.settings.base import Differs, SettingsGroup, maybe_seconds, seconds, setting, url
from celeriac.settings.values import MaybeSeconds, Seconds, Url


def address_of(settings: "BrokerSettings") -> str | None:
    """The URL that the separate parts (``broker_host`` and friends) describe, None if none of them is set."""
    host, transport = settings.broker_host, settings.broker_transport
    if host and "://" in host:
        return host
    parts = (
        host,
        transport,
        settings.broker_port,
        settings.broker_user,
        settings.broker_password,
        settings.broker_vhost,
    )
    if all(part is None for part in parts):
        return None
    from urllib.parse import quote

    user = quote(settings.broker_user or "", safe="")
    password = f":{quote(settings.broker_password, safe='')}" if settings.broker_password else ""
    at = "@" if user or password else ""
    port = f":{settings.broker_port}" if settings.broker_port else ""
    vhost = quote(settings.broker_vhost, safe="/") if settings.broker_vhost else ""
    return f"{transport or 'amqp'}://{user}{password}{at}{host or 'localhost'}{port}/{vhost}"


class BrokerSettings(SettingsGroup, title="broker", was="{name}"):
    """What a transport is given."""

    broker_url: Url = url(
        "Address of the broker; several, as a list or joined with `;`, are tried in turn. "
        "None: an embedded SQLite file named after the app.",
        differs=Differs(
            "`amqp://guest@localhost:5672//`", "An app runs before any server is installed.",
            ours="embedded SQLite file in the user's state directory",
        ),
        derive=address_of,
    )  # fmt: skip
    broker_read_url: Url = url("Address to consume from. None: `broker_url`.", derive="broker_url")
    broker_write_url: Url = url("Address to publish to. None: `broker_url`.", derive="broker_url")
    broker_transport_options: Mapping[str, Any] = setting(
        {}, "Options of the transport; each broker's page lists them.",
        differs=Differs(
            "RabbitMQ is not asked to confirm", "A message is not sent before the broker has it.",
            ours="RabbitMQ confirms every message, unless `confirm_publish` is False",
        ),
    )  # fmt: skip
    broker_use_ssl: bool | Mapping[str, Any] = setting(
        False,
        "TLS to the broker: False, True, or a dict of options such as `ca_certs`, `certfile`, `keyfile`, `cert_reqs`.",
    )
    broker_login_method: str | None = setting(None, "SASL mechanism of AMQP. None: PLAIN.")
    broker_failover_strategy: Any = setting(
        None, "Order in which several URLs are tried: `round-robin` (also None), `shuffle` or a callable over them."
    )

    broker_connection_timeout: Seconds = seconds(4, "Time that one attempt to connect may take.")
    broker_connection_retry: bool = setting(True, "Connect again when the connection is lost.")
    broker_connection_retry_on_startup: bool | None = setting(
        None, "Keep trying when the broker is away as the worker starts. None: as `broker_connection_retry`.",
        derive="broker_connection_retry",
    )  # fmt: skip
    broker_connection_max_retries: int | None = setting(
        100, "Attempts to reconnect before the worker gives up. None: never gives up; 0: no second attempt."
    )
    broker_channel_error_retry: bool = setting(False, "Also reconnect when the broker closes only the channel.")
    broker_heartbeat: MaybeSeconds = maybe_seconds(
        120, "Silence after which broker and worker take each other for dead, where the protocol has heartbeats. "
        "None or 0: no heartbeats.",
        differs=Differs(
            "120 s", "A broker that hangs is noticed within 25 s, and so is a worker that has vanished.",
            ours="10 s on RabbitMQ; any other value is obeyed",
        ),
    )  # fmt: skip
    broker_heartbeat_checkrate: float = setting(3.0, "Checks per heartbeat interval.")
    broker_pool_limit: int | None = setting(
        10, "Connections kept open for publishing. None or 0: each use opens and closes its own."
    )
    broker_pool_acquire_timeout: MaybeSeconds = maybe_seconds(
        None, "Wait for a free connection when all are in use. None: wait as long as it takes."
    )
    broker_native_delayed_delivery_queue_type: str = setting(
        "quorum", "Type of the `celery_delayed_*` queues on RabbitMQ: `quorum` or `classic`."
    )

    broker_lease: Seconds = seconds(
        30.0, "Time that a fetched message stays the worker's without being renewed; when the worker dies, others get "
        "its messages this much later. Renewed every third of it.", ours=True,
    )  # fmt: skip
    broker_publish_timeout: Seconds = seconds(
        10.0, "Time within which the broker must have confirmed a published message.", ours=True
    )
    broker_max_message_bytes: int = setting(
        16 * 1024 * 1024, "Largest message, in bytes on the wire, that is sent or accepted.", ours=True
    )

    broker_host: str | None = setting(None, "Part of the address, used while `broker_url` is None.")
    broker_port: int | None = setting(None, "Part of the address, used while `broker_url` is None.")
    broker_user: str | None = setting(None, "Part of the address, used while `broker_url` is None.")
    broker_password: str | None = setting(None, "Part of the address, used while `broker_url` is None.", secret=True)
    broker_vhost: str | None = setting(None, "Part of the address, used while `broker_url` is None.")
    broker_transport: str | None = setting(None, "Scheme of the address, used while `broker_url` is None.")
