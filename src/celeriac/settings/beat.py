"""Settings of beat, the process that sends periodic tasks."""

from collections.abc import Mapping
from typing import Any

from celeriac.settings.base import SettingsGroup, maybe_seconds, seconds, setting
from celeriac.settings.values import MaybeSeconds, Seconds


class BeatSettings(SettingsGroup, title="beat", was="CELERYBEAT_{rest}"):
    """What beat is given."""

    beat_schedule: Mapping[str, Any] = setting(
        {}, "The periodic tasks: entry name to a dict of `task`, `schedule`, `args`, `kwargs`, `options`, `relative`."
    )
    beat_scheduler: str | type[Any] = setting(
        "celery.beat:PersistentScheduler", "Class path or name of the scheduler; this one keeps its state in a file."
    )
    beat_schedule_filename: str = setting(
        "celerybeat-schedule", "File in which the scheduler keeps when each entry ran last."
    )
    beat_sync_every: int = setting(0, "Tasks sent after which the state is written. 0: by time alone, every 3 minutes.")
    beat_max_loop_interval: Seconds = seconds(
        0, "Longest sleep between two looks at the schedule. 0: what the scheduler thinks best, 5 minutes."
    )
    beat_cron_starting_deadline: MaybeSeconds = maybe_seconds(
        None, "How far back beat looks, as it starts, for crontab runs that were missed. None: without limit."
    )
    beat_enable_remote_control: bool = setting(False, "Answer the remote command `ping`.")
    beat_remote_control_max_tick_age: MaybeSeconds = maybe_seconds(
        None, "Age of the last look at the schedule above which `ping` is left unanswered. 0: always answered; "
        "None: twice the longest sleep, 60 seconds at least.",
    )  # fmt: skip

    beat_logfile: str | None = setting(None, "Log file where `--logfile` gives none. None: standard error.", was=None)
    beat_pidfile: str | None = setting(None, "File that holds the process id while it runs.", was=None)
    beat_uid: int | str | None = setting(None, "User to run as.", was=None)
    beat_gid: int | str | None = setting(None, "Group to run as.", was=None)
    beat_umask: int | str | None = setting(None, "File mode mask; as text it is octal.", was=None)
    beat_executable: str | None = setting(None, "Python to start the detached process with.", was=None)
