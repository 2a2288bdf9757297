"""Settings of the whole app: content, time, modules; events and control; message signing."""

from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo

from celeriac.settings.base import SettingsGroup, maybe_seconds, setting
from celeriac.settings.values import MaybeSeconds


class GeneralSettings(SettingsGroup, title="general", was="CELERY_{name}"):
    """What every process of the app agrees on."""

    accept_content: Collection[str] = setting(
        ("json",),
        "Serializer names or MIME types that tasks, events and control messages may use; all else is refused.",
    )
    enable_utc: bool = setting(
        True, "Write times in messages in UTC, and take UTC as the time zone when none is set.", was="ENABLE_UTC"
    )
    imports: Sequence[str] = setting((), "Modules that the worker imports for the tasks in them.")
    include: Sequence[str] = setting((), "More such modules, imported after `imports`; `-I` adds to it.")
    timezone: str | tzinfo | None = setting(
        None,
        "Zone of schedules and local times, as an IANA name. None: UTC, or the machine's zone without `enable_utc`.",
    )
    override_backends: Mapping[str, str] = setting(
        {}, "Names for result stores, each with the class it stands for; looked up before the built-in names.", was=None
    )


class EventSettings(SettingsGroup, title="events", was="CELERY_{name}"):
    """How events travel to monitors."""

    event_exchange: str = setting("celeryev", "Exchange that events are published to.")
    event_queue_durable: bool = setting(
        False, "Let a monitor's queue outlive a broker restart; not together with `event_queue_exclusive`."
    )
    event_queue_exclusive: bool = setting(True, "Keep a monitor's queue to the connection that opened it.")
    event_queue_expires: MaybeSeconds = maybe_seconds(
        60.0, "Time without a reader after which a monitor's queue is deleted."
    )
    event_queue_prefix: str = setting("celeryev", "Start of the names of monitors' queues; a UUID follows.")
    event_queue_ttl: MaybeSeconds = maybe_seconds(5.0, "Time after which an event that nobody fetched is dropped.")
    event_serializer: str = setting("json", "Serializer of event bodies.")


class ControlSettings(SettingsGroup, title="control", was="{name}"):
    """How remote control commands and their answers travel."""

    control_exchange: str = setting(
        "celery", "Base name: commands go through `<name>.pidbox`, answers through `reply.<name>.pidbox`."
    )
    control_queue_durable: bool = setting(
        False, "Let command and answer queues outlive a broker restart; not together with `control_queue_exclusive`."
    )
    control_queue_exclusive: bool = setting(True, "Keep command and answer queues to the connection that opened them.")
    control_queue_expires: MaybeSeconds = maybe_seconds(
        10.0, "Time without a reader after which such a queue is deleted."
    )
    control_queue_ttl: MaybeSeconds = maybe_seconds(
        300.0, "Time after which a command or answer that nobody fetched is dropped."
    )


class SecuritySettings(SettingsGroup, title="security", was="CELERY_{name}"):
    """Keys of the signed `auth` serializer."""

    security_cert_store: str | None = setting(None, "Glob of the PEM certificates whose signatures are trusted.")
    security_certificate: str | None = setting(None, "Path of this process's own PEM certificate.")
    security_digest: str = setting("sha256", "Hash that signatures are made over.")
    security_key: str | None = setting(None, "Path of the PEM private key that signs what this process sends.")
    security_key_password: bytes | None = setting(None, "Pass phrase of the private key.", secret=True)


class EventsCommandSettings(SettingsGroup, title="events command"):
    """Daemon options of `celeriac events` where its command line gives none."""

    events_logfile: str | None = setting(None, "Log file. None: standard error.")
    events_pidfile: str | None = setting(None, "File that holds the process id while it runs.")
    events_uid: int | str | None = setting(None, "User to run as.")
    events_gid: int | str | None = setting(None, "Group to run as.")
    events_umask: int | str | None = setting(None, "File mode mask; as text it is octal.")
    events_executable: str | None = setting(None, "Python to start the detached process with.")
