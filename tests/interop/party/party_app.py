"""The app that both parties run: the same tasks, declared with Celery or with celeriac.

Environment: ``PARTY`` (``celery`` or ``celeriac``) chooses the library, ``PARTY_SETTINGS`` (JSON) is its configuration,
``PARTY_JOURNAL`` a file for lines that tests read. Runs in either interpreter, so it may use nothing else of the tests.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

SIDE = os.environ["PARTY"]
if SIDE == "celeriac":
    from celeriac import Celery
    from celeriac.exceptions import Ignore, Reject, SoftTimeLimitExceeded
else:
    from celery import Celery
    from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

#: values that JSON has no notation for; a call names one of them
SAMPLES: dict[str, Any] = {
    "json": [1, -2.5, True, None, "ünï\u2028 \x00", [], {}, {"nested": [{"deep": [2**70, 1e300]}]}, ""],
    "extended": {
        "datetime": datetime(2024, 1, 2, 3, 4, 5, 678), "aware": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "date": date(2024, 1, 2), "time": time_of_day(3, 4, 5), "decimal": Decimal("1.50"), "uuid": uuid.UUID(int=5),
        "bytes": b"abc", "binary": b"\xff\x00", "nested": [[b"\x00", {"d": Decimal("0")}]],
    },
    "python": {"set": {1}, "tuple": (1, (2,)), "complex": 1j, "bytes": b"\xff", "keys": {1: "one"}},
    "binary": {"bytes": b"\xff\x00", "list": [b"", "text", 1, None, 2.5]},
    "yaml": {"list": [1, "two", None, 2.5, True], "text": "ünï: - #", "nested": {"a": [{"b": []}]}},
    "long": ["x" * 20_000, list(range(2000))],
}  # fmt: skip


class Custom(Exception):
    """An exception that both parties have, in a module of the same name."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Stubborn(Exception):
    """Cannot be made of its ``args``."""

    def __init__(self) -> None:
        super().__init__("one", "two", "three")


ERRORS: dict[str, Any] = {
    "value": lambda: ValueError("boom", 9), "key": lambda: KeyError("k"), "custom": lambda: Custom(7, "custom"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "odd": lambda: ValueError(object()),
    "stubborn": Stubborn, "os": lambda: FileNotFoundError(2, "No such file", "nowhere"),
}  # fmt: skip


def note(*words: object) -> None:
    """One line in the journal, in one write: lines of several processes do not mix."""
    handle = os.open(os.environ["PARTY_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (json.dumps([*words, SIDE, os.getpid(), time.time()]) + "\n").encode())
    os.close(handle)


def make_app(settings: dict[str, Any]) -> Any:
    app = Celery("party", set_as_current=True)
    app.conf.update(settings)
    _declare_values(app)
    _declare_endings(app)
    _declare_waits(app)
    return app


def _declare_values(app: Any) -> None:
    @app.task(name="party.add")
    def add(x: Any, y: Any = 0) -> Any:
        return x + y

    @app.task(name="party.echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    @app.task(name="party.sample")
    def sample(name: str) -> Any:
        return SAMPLES[name]

    @app.task(name="party.check")
    def check(value: Any, name: str) -> bool:
        """Whether the argument arrived as the sample it was (YAML sorts keys)."""
        return bool(value == SAMPLES[name]) and sorted(repr(value)) == sorted(repr(SAMPLES[name]))

    @app.task(name="party.side")
    def side() -> str:
        return SIDE

    @app.task(name="party.request", bind=True)
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        of = self.request
        found = {
            name: getattr(of, name, None)
            for name in (
                "id", "root_id", "parent_id", "group", "group_index", "retries", "eta", "expires", "argsrepr",
                "kwargsrepr", "origin", "correlation_id", "reply_to", "ignore_result", "shadow", "my_header", "task",
                "replaced_task_nesting", "stamps", "stamped_headers",
            )
        }  # fmt: skip
        found["timelimit"] = list(of.timelimit) if of.timelimit else None
        delivery = of.delivery_info or {}
        found["delivery"] = {name: delivery.get(name) for name in ("exchange", "routing_key", "priority")}
        found["side"] = SIDE
        return found

    @app.task(name="party.mark", bind=True)
    def mark(self: Any, *args: Any, **kwargs: Any) -> Any:
        note("mark", self.request.id, *args)
        return args[0] if args else None

    @app.task(name="party.ignored", ignore_result=True, bind=True)
    def ignored(self: Any, *args: Any) -> str:
        note("mark", self.request.id, *args)
        return "nobody reads this"

    @app.task(name="party.ours_only" if SIDE == "celeriac" else "party.theirs_only")
    def not_there() -> str:
        return SIDE


def _declare_endings(app: Any) -> None:
    @app.task(name="party.boom")
    def boom(kind: str = "value", *args: Any) -> None:
        raise ERRORS[kind]()

    @app.task(name="party.flaky", bind=True, max_retries=None)
    def flaky(self: Any, until: int, countdown: float = 0, **more: Any) -> Any:
        note("try", self.request.id, self.request.retries)
        if self.request.retries < until:
            raise self.retry(exc=ValueError("not yet"), countdown=countdown, max_retries=more.get("max_retries", 20))
        return self.request.retries

    @app.task(name="party.auto", bind=True, autoretry_for=(KeyError,), max_retries=2, default_retry_delay=0.2)
    def auto(self: Any, *args: Any) -> None:
        note("try", self.request.id, self.request.retries)
        raise KeyError("again")

    @app.task(name="party.reject", bind=True, acks_late=True)
    def reject(self: Any) -> None:
        note("mark", self.request.id)
        raise Reject("no", requeue=False)

    @app.task(name="party.reject_once", bind=True, acks_late=True)
    def reject_once(self: Any) -> str:
        note("mark", self.request.id)
        if not self.request.delivery_info.get("redelivered"):
            raise Reject("not me", requeue=True)
        return "second time"

    @app.task(name="party.ignore", bind=True)
    def ignore(self: Any) -> None:
        note("mark", self.request.id)
        raise Ignore

    @app.task(name="party.errback")
    def errback(task_id: str) -> None:
        note("errback", task_id)


def _declare_waits(app: Any) -> None:
    @app.task(name="party.wait", bind=True)
    def wait(self: Any, flag: str, seconds: float = 300.0, state: str | None = None) -> str:
        """Until the file ``flag`` is there."""
        if state:
            self.update_state(state=state, meta={"done": 1, "of": 2})
        note("mark", self.request.id)
        ends = time.monotonic() + seconds
        while not Path(flag).exists():
            if time.monotonic() > ends:
                return "waited in vain"
            time.sleep(0.01)
        return "seen"

    @app.task(name="party.tracked", bind=True, track_started=True)
    def tracked(self: Any, flag: str) -> str:
        return str(wait.run(flag))

    @app.task(name="party.soft", bind=True)
    def soft(self: Any, seconds: float = 120.0) -> str:
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            return "told to end"
        return "not told"

    @app.task(name="party.hang", bind=True, acks_late=True, reject_on_worker_lost=True)
    def hang(self: Any, flag: str) -> str:
        """The first attempt hangs until its process dies; the next one ends."""
        note("start", self.request.id)
        if not Path(flag).exists():
            Path(flag).touch()
            time.sleep(50)
        return SIDE


app = make_app(json.loads(os.environ.get("PARTY_SETTINGS", "{}")))
