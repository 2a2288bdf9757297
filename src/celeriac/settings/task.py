"""Settings of tasks: how they are sent, routed, limited and acknowledged. A task's own options win over them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celeriac.settings.base import Differs, SettingsGroup, maybe_seconds, seconds, setting, url
from celeriac.settings.values import MaybeSeconds, Seconds, Url


class TaskSettings(SettingsGroup, title="task", was="CELERY_{rest}"):
    """Defaults of every task."""

    # delivery
    task_acks_late: bool = setting(
        True, "Acknowledge a message after its task has ended, so that a lost worker's tasks run again; "
        "off: acknowledge as the task starts.",
        differs=Differs(False, "A queue should not lose work because a machine did."),
    )  # fmt: skip
    task_acks_on_failure: bool | None = setting(
        None, "With late acknowledgement, what happens to the message of a task that failed: True acknowledges it, "
        "False rejects it for good. None: as `task_acks_on_failure_or_timeout`.",
    )  # fmt: skip
    task_acks_on_timeout: bool | None = setting(
        None, "The same for a task stopped by its hard time limit, except that False puts it back in its queue.",
    )  # fmt: skip
    task_acks_on_failure_or_timeout: bool = setting(True, "Both of these at once, for those that are None.")
    task_reject_on_worker_lost: bool | None = setting(
        None, "What happens to a task whose process died: False records a failure; None and True run it again within "
        "`task_crash_budget`, then it goes to the dead letters.",
        differs=Differs(
            "recorded as failed", "A process killed by the machine says nothing about the task; one that kills "
            "processes must not do so for ever.", ours="runs again, `task_crash_budget` times at most",
        ),
    )  # fmt: skip
    task_retry_on_worker_lost: bool = setting(
        False, "Apply the task's own retry rules when its process died; wins over `task_reject_on_worker_lost`."
    )
    task_crash_budget: int = setting(
        3, "How many starts a task has that take down the process running it, or exceed its hard time limit where it "
        "is put back for that, before it is put with the dead letters.", ours=True,
    )  # fmt: skip
    task_dead_letter_expires: Seconds = seconds(
        timedelta(days=14), "Time that dead letters and quarantined messages are kept.", ours=True
    )
    task_revoke_expires: Seconds = seconds(
        timedelta(days=30), "Time that revoked ids and stamps are remembered. Make it longer than the longest "
        "countdown and the longest wait in a queue, or a revoked task may run after all.", ours=True,
    )  # fmt: skip
    task_max_decompressed_bytes: int = setting(
        64 * 1024 * 1024, "Largest message body, in bytes after decompression, that is accepted.", ours=True
    )

    # running
    task_time_limit: MaybeSeconds = maybe_seconds(
        None, "Time after which the process running a task is killed. None: no limit.", was="CELERYD_TASK_TIME_LIMIT"
    )
    task_soft_time_limit: MaybeSeconds = maybe_seconds(
        None, "Time after which `SoftTimeLimitExceeded` is raised inside the task. None: no limit.",
        was="CELERYD_TASK_SOFT_TIME_LIMIT",
    )  # fmt: skip
    task_default_rate_limit: str | int | float | None = setting(
        None, "Rate of tasks that have none of their own, such as `10/m`; a number is per second. None: unlimited."
    )
    task_queue_limits: Mapping[str, Any] = setting(
        {}, "Limits over all workers of what runs from a queue: a dict of queue name to a list of `Limit`, or of dicts "
        "such as `{'rate': '100/m'}`.", ours=True,
    )  # fmt: skip
    task_limit_store: Url = url(
        "Where limits over all workers are counted: a Redis or a SQLite file. None: the broker, else the result store, "
        "whichever can.", ours=True,
    )  # fmt: skip
    task_annotations: Any = setting(
        None, "Changes to attributes of tasks: a dict of task name (or `*`) to attributes, or a list of dicts and "
        "objects with `annotate(task)`.",
    )  # fmt: skip
    task_always_eager: bool = setting(False, "Run tasks in the calling process instead of sending them; for tests.")
    task_eager_propagates: bool = setting(
        False, "Raise the errors of eager tasks in the caller.", was="CELERY_EAGER_PROPAGATES_EXCEPTIONS"
    )
    task_store_eager_result: bool = setting(False, "Put the results of eager tasks in the result store as well.")
    task_remote_tracebacks: bool = setting(False, "Send tracebacks that the caller can raise again; needs `tblib`.")
    task_allow_error_cb_on_chord_header: bool = setting(
        False, "Give the error callbacks of a chord to every task of its header too."
    )

    # results
    task_ignore_result: bool = setting(False, "Store no results.")
    task_store_errors_even_if_ignored: bool = setting(False, "Store failures of tasks whose results are ignored.")
    task_track_started: bool = setting(False, "Record when a task starts, as the state STARTED.")

    # messages
    task_serializer: str = setting("json", "Serializer of arguments.", was="CELERY_TASK_SERIALIZER")
    task_compression: str | None = setting(
        None, "Compression of message bodies, by name. None: none.", was="CELERY_MESSAGE_COMPRESSION"
    )
    task_protocol: int = setting(2, "Version of the message protocol to send: 1 or 2.", was="CELERY_TASK_PROTOCOL")
    task_repr_maxlevels: int | None = setting(
        3, "Depth to which arguments are shown in events and logs. None or 0: all of it."
    )
    task_publish_retry: bool = setting(
        True, "Try again when the broker cannot take a message.", was="CELERY_TASK_PUBLISH_RETRY"
    )
    task_publish_retry_policy: Mapping[str, Any] = setting(
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "How often and with which pauses, in seconds; None as `max_retries` never gives up.",
        was="CELERY_TASK_PUBLISH_RETRY_POLICY",
    )
    task_send_sent_event: bool = setting(
        False, "Publish an event for each task sent.", was="CELERY_SEND_TASK_SENT_EVENT"
    )

    # routing
    task_queues: Any = setting(
        None, "The queues that workers read: a list of `Queue` or a dict of name to options. None: the default queue."
    )
    task_routes: Any = setting(
        None, "Where tasks go: a dict of name or pattern to options, a list of pairs, a callable, or its dotted path."
    )
    task_default_queue: str = setting("celery", "Queue of tasks that no route places.")
    task_default_queue_type: str = setting("classic", "RabbitMQ type of that queue: `classic` or `quorum`.")
    task_default_exchange: str | None = setting(
        None, "Exchange of that queue. None: named like the queue.", derive="task_default_queue"
    )
    task_default_exchange_type: str = setting("direct", "Type of that exchange.")
    task_default_routing_key: str | None = setting(
        None, "Routing key of that queue. None: named like the queue.", derive="task_default_queue"
    )
    task_default_delivery_mode: int | str = setting(
        2, "2 or `persistent`: messages outlive a broker restart; 1 or `transient`: they may not."
    )
    task_default_priority: int | None = setting(None, "Priority of tasks sent without one.")
    task_inherit_parent_priority: bool = setting(
        False, "Tasks sent by a task take over its priority unless they are given one."
    )
    task_queue_max_priority: int | None = setting(None, "Highest priority, as RabbitMQ's `x-max-priority`, of queues.")
    task_create_missing_queues: bool = setting(True, "Create queues on first use that `task_queues` does not have.")
    task_create_missing_queue_type: str = setting("classic", "RabbitMQ type of such queues: `classic` or `quorum`.")
    task_create_missing_queue_exchange_type: str | None = setting(
        None, "Exchange type of such queues. None: `task_default_exchange_type`."
    )
