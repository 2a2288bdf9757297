"""Settings of results that hold for every store; ``stores.py`` has those of single stores."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from math import inf
from typing import Any

from celeriac.settings.base import Differs, SettingsGroup, maybe_seconds, seconds, setting, url
from celeriac.settings.values import MaybeSeconds, Seconds, Url


class ResultSettings(SettingsGroup, title="result", was="CELERY_{name}"):
    """What a result store is given."""

    result_backend: Url = url(
        "URL, name or class path of the result store. None: the embedded file when it is the broker, else no store.",
        differs=Differs(
            "disabled", "Results work wherever the app works by itself.",
            ours="the embedded SQLite file when it is the broker, else disabled",
        ),
    )  # fmt: skip
    result_expires: MaybeSeconds = maybe_seconds(
        timedelta(days=1), "Time that results are kept. None or 0: for ever.", was="CELERY_TASK_RESULT_EXPIRES"
    )
    result_failure_expires: MaybeSeconds = maybe_seconds(
        None, "Time that failures are kept. None: as `result_expires`; 0: for ever.", derive="result_expires"
    )
    result_chord_expires: MaybeSeconds = maybe_seconds(
        None, "Time that the bookkeeping of unfinished chords is kept. None: as `result_expires`; 0: for ever.",
        derive="result_expires",
    )  # fmt: skip
    result_serializer: str = setting("json", "Serializer of stored results.")
    result_accept_content: Collection[str] | None = setting(
        None, "Serializer names or MIME types that stored results may use. None: `accept_content`.",
        was="RESULT_ACCEPT_CONTENT", derive="accept_content",
    )  # fmt: skip
    result_compression: str | None = setting(None, "Compression of stored results, by name. None: none.")
    result_extended: bool = setting(
        False, "Store the task's name, arguments, worker, retries and queue with its result."
    )
    result_cache_max: int | None = setting(
        -1, "Results that a client remembers. -1: none; None or 0: all of them.", was="CELERY_MAX_CACHED_RESULTS"
    )
    result_chord_join_timeout: Seconds = seconds(
        3.0, "Wait for each result of a chord's header as its body is started."
    )
    result_chord_retry_interval: Seconds = seconds(
        1.0, "Pause between two looks at an unfinished chord, in stores that cannot count its parts."
    )
    result_backend_always_retry: bool = setting(False, "Try again when the store reports a passing fault.")
    result_backend_max_retries: float = setting(inf, "How often.")
    result_backend_base_sleep_between_retries_ms: int = setting(10, "First pause between attempts, in milliseconds.")
    result_backend_max_sleep_between_retries_ms: int = setting(10_000, "Longest pause, in milliseconds.")
    result_backend_transport_options: Mapping[str, Any] = setting(
        {}, "Options of the store; each store's page lists them."
    )
    result_backend_thread_safe: bool = setting(
        False, "Let threads share one store object where a store of your own allows it.", was=None
    )
    result_persistent: bool | None = setting(
        None, "With results sent as messages, let them outlive a broker restart. None: they do not."
    )
    result_exchange: str = setting("celeryresults", "Kept for old configurations; nothing reads it.")
    result_exchange_type: str = setting("direct", "Kept for old configurations; nothing reads it.")
