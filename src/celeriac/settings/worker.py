"""Settings of the worker: its pool, what it fetches, how it logs and how it ends."""

from typing import Any, Literal

from celeriac.settings.base import Differs, SettingsGroup, seconds, setting
from celeriac.settings.values import Seconds


class WorkerSettings(SettingsGroup, title="worker", was="CELERYD_{rest}"):
    """What a worker is given."""

    # pool
    worker_pool: str | type[Any] = setting(
        "prefork", "Where tasks run: name of a pool, or its class or class path; several as `prefork:4,asyncio:100`."
    )
    worker_concurrency: int | Literal["auto"] | None = setting(
        None, "Tasks that run at once. None or 0: one per CPU; `auto`: as many as affinity and cgroup quota allow."
    )
    worker_children: int | None = setting(
        None, "Processes that the slots of the `threads` and `asyncio` pools are spread over. None: one.", ours=True
    )
    worker_pool_start_method: str = setting("fork", "How child processes begin: `fork` or `spawn`.")
    worker_loop: str = setting(
        "auto",
        "Event loop of workers and of coroutine tasks: `asyncio`, `uvloop`, or `auto`: uvloop where it is installed.",
        ours=True,
    )
    worker_pool_putlocks: bool = setting(True, "Hand a child process a task only when it has a free slot.")
    worker_pool_restarts: bool = setting(False, "Allow the remote command `pool_restart`.")
    worker_max_tasks_per_child: int | None = setting(
        None, "Tasks after which a child process is replaced. None: never."
    )
    worker_max_memory_per_child: int | None = setting(
        None, "Resident memory, in KiB, above which a child process is replaced after its task. None: no limit."
    )
    worker_proc_alive_timeout: Seconds = seconds(4.0, "Time that a new child process may take to report for work.")
    worker_lost_wait: Seconds = seconds(
        10.0, "Wait for a late result of a process that has gone before its task counts as lost.",
        was="CELERYD_WORKER_LOST_WAIT",
    )  # fmt: skip
    worker_autoscaler: str | type[Any] = setting(
        "celery.worker.autoscale:Autoscaler", "Class path of what sizes the pool between two limits."
    )

    # fetching
    worker_prefetch_multiplier: int | None = setting(
        None, "Messages held, times the slots of the pool; 1: none but what can start, 0: as many as the broker gives. "
        "None: while tasks are short, as many as are run during one fetch; while they are long, what can start.",
        differs=Differs(4, "Messages that wait behind long tasks of one worker are not run by others that are idle."),
    )  # fmt: skip
    worker_look_ahead: int = setting(
        256,
        "Messages that may wait inside the worker beyond its free slots, so that a batch is always at hand.",
        ours=True,
    )
    worker_disable_prefetch: bool = setting(False, "Fetch a message only when a slot is free to run it.")
    worker_enable_prefetch_count_reduction: bool = setting(
        True, "After a reconnect fetch fewer messages until the tasks that were running have ended."
    )
    worker_eta_task_limit: int | None = setting(
        None, "Tasks with a later start time that the worker may hold at once. None: no limit."
    )
    worker_detect_quorum_queues: bool = setting(
        True, "Use what quorum queues need (prefetch per consumer, delays in the broker) when one is configured."
    )
    worker_direct: bool = setting(
        False, "Also read a queue of the worker's own, `<node name>.dq2`.", was="CELERY_WORKER_DIRECT"
    )
    worker_disable_rate_limits: bool = setting(
        False, "Run tasks without regard to their rate limits.", was="CELERY_DISABLE_RATE_LIMITS"
    )
    worker_deduplicate_successful_tasks: bool = setting(
        False, "Skip a message delivered again whose task the result store knows to have succeeded."
    )
    worker_cancel_long_running_tasks_on_connection_loss: bool = setting(
        False, "Stop running tasks that acknowledge late when the connection is lost, as others will be given them."
    )
    worker_state_db: str | None = setting(
        None, "File that keeps revoked ids and the logical clock over a restart, for brokers and stores that keep no "
        "registry of them. None: there is no file."
    )  # fmt: skip
    worker_timer: str | type[Any] | None = setting(None, "Class path of the timer. None: the worker's own.")
    worker_timer_precision: Seconds = seconds(1.0, "Longest time between two looks at tasks that wait for their start.")

    # control and events
    worker_send_task_events: bool = setting(
        False, "Publish events from the start, as `-E` does.", was="CELERY_SEND_EVENTS"
    )
    worker_enable_remote_control: bool = setting(
        True, "Listen to remote control commands.", was="CELERY_ENABLE_REMOTE_CONTROL"
    )
    worker_agent: str | type[Any] | None = setting(None, "Class path of an agent to start with the worker.")
    worker_consumer: str | type[Any] = setting(
        "celery.worker.consumer:Consumer", "Class path of the consumer, for steps that extend it."
    )

    # probes
    worker_probes: str | None = setting(
        None,
        "Where `/live`, `/ready` and `/metrics` are answered over HTTP, such as `127.0.0.1:9100`. None: nowhere.",
        ours=True,
    )
    worker_probe_patience: Seconds = seconds(
        30.0,
        "Time that the worker's event loop may stand still, or its pool not begin what it was given, before `/live` "
        "says that the worker is wedged.",
        ours=True,
    )

    # ending
    worker_shutdown_grace: Seconds = seconds(
        30.0, "Time that running tasks get to end after the first signal; then they go back to their queues.", ours=True
    )
    worker_soft_shutdown_timeout: Seconds = seconds(
        0.0, "Time that running tasks get before they are cut, after SIGQUIT or a second SIGTERM. 0: none."
    )
    worker_enable_soft_shutdown_on_idle: bool = setting(
        False, "Accepted, without effect: what waits for its start is handed back at once, whatever kind of stop it is."
    )

    # logging
    worker_hijack_root_logger: bool = setting(True, "Replace the handlers of the root logger by the worker's own.")
    worker_log_color: bool | None = setting(None, "Colour in logs. None: on a terminal only.")
    worker_log_format: str = setting(
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s", "Format of the worker's log lines."
    )
    worker_log_datefmt: str | None = setting(None, "Format of the time in them. None: that of `logging`.")
    worker_task_log_format: str = setting(
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        "Format of log lines written by tasks.",
    )
    worker_task_log_datefmt: str | None = setting(None, "Format of the time in them. None: that of `logging`.")
    worker_redirect_stdouts: bool = setting(
        True, "Turn what tasks print into log lines.", was="CELERY_REDIRECT_STDOUTS"
    )
    worker_redirect_stdouts_level: str | int = setting(
        "WARNING", "Level of those lines.", was="CELERY_REDIRECT_STDOUTS_LEVEL"
    )

    # daemon
    worker_logfile: str | None = setting(None, "Log file where `--logfile` gives none. None: standard error.", was=None)
    worker_pidfile: str | None = setting(None, "File that holds the process id while it runs.", was=None)
    worker_uid: int | str | None = setting(None, "User to run as.", was=None)
    worker_gid: int | str | None = setting(None, "Group to run as.", was=None)
    worker_umask: int | str | None = setting(None, "File mode mask; as text it is octal.", was=None)
    worker_executable: str | None = setting(None, "Python to start the detached process with.", was=None)
