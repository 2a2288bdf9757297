"""The registry that the executor suite runs: tasks that do what tasks do, well and badly.

Importable, so that children can be spawned as well as forked: ``Loader(TARGET, "suite")``.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celeriac import current
from celeriac.errors import Ignore, Reject, Retry, SoftTimeLimitExceeded, Terminated
from celeriac.executors.base import Outgoing, RunnableOptions
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.task_message import TaskCall, encode_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.executors.base import ResultRecord, Runnable
    from celeriac.executors.context import Context

TARGET = f"{__name__}:load"

#: nothing that a test waits for takes longer
PATIENCE = 90.0

OPTIONS = RunnableOptions(
    ignore_result=False,
    store_errors_even_if_ignored=False,
    acks_late=True,
    acks_on_failure=True,
    acks_on_timeout=True,
    reject_on_worker_lost=None,
    retry_on_worker_lost=False,
    track_started=False,
    time_limit=None,
    soft_time_limit=None,
    rate_limit=None,
    max_retries=3,
    default_retry_delay=180.0,
    throws=(LookupError,),
)


class PlainTask:
    """A function as a task."""

    def __init__(self, name: str, function: Callable[..., Any], options: RunnableOptions) -> None:
        self.name = name
        self.runnable_options = options
        self.is_coroutine = asyncio.iscoroutinefunction(function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None: ...
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None: ...
    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...
    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...
    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...


class SuiteRegistry:
    """Tasks by name; follow-ups are addressed to a queue of their own so that a test can tell them apart."""

    def __init__(self) -> None:
        self.tasks: dict[str, Runnable] = {}
        for function in _FUNCTIONS:
            self.tasks[function.__name__] = PlainTask(function.__name__, function, OPTIONS)

    def retry_message(self, context: Context, retry: Any) -> Outgoing:
        call = TaskCall(
            task=context.task or "", id=context.id or "", args=context.args, kwargs=context.kwargs,
            retries=context.retries + 1,
        )  # fmt: skip
        return Outgoing(encode_task(call, time.time()), Route("", "retries"))

    def follow_ups(self, context: Context, retval: Any) -> list[Outgoing]:
        return [self._signature(signature, [retval], "callbacks") for signature in context.callbacks or ()]

    def errbacks(self, context: Context, exc: BaseException) -> list[Outgoing]:
        return [self._signature(signature, [context.id], "errbacks") for signature in context.errbacks or ()]

    def _signature(self, signature: Any, args: list[Any], queue: str) -> Outgoing:
        call = TaskCall(task=signature["task"], id=signature["options"]["task_id"], args=args)
        return Outgoing(encode_task(call, time.time()), Route("", queue))

    def set_up_child(self, name: str) -> None:
        """Nothing to set up."""

    def tear_down_child(self) -> None:
        """Nothing to tear down."""

    def store(self, record: ResultRecord) -> None:
        raise AssertionError("no task of the suite has track_started")


def load(argument: str) -> SuiteRegistry:
    """What a child calls. ``argument`` chooses: ``suite``, ``broken`` (does not import), ``threaded`` (starts a
    thread), ``slow`` (to import).
    """
    if argument == "broken":
        raise ImportError("no module named 'left_out'")
    if argument == "slow":
        time.sleep(PATIENCE)
    if argument == "threaded":
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return SuiteRegistry()


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────


def add(x: int, y: int) -> int:
    return x + y


async def add_async(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


def noop() -> None:
    return None


def where() -> list[int]:
    return [os.getpid(), threading.get_ident()]


def big(size: int) -> str:
    return "x" * size


def show_request() -> dict[str, Any]:
    running = current.running()
    assert running is not None
    request = running.request
    return {
        "id": request.id,
        "headers": request.headers,
        "delivery_info": request.delivery_info,
        "hostname": request.hostname,
        "called_directly": request.called_directly,
        "limits": [request.time_limit, request.soft_time_limit],
    }


def fail(text: str) -> None:
    raise ValueError(text, 9)


async def fail_async(text: str) -> None:
    raise ValueError(text, 9)


def fail_as_expected() -> None:
    raise KeyError("missing")


def return_what_cannot_be_stored() -> object:
    return object()


def ask_for_retry() -> None:
    raise Retry(exc=OSError("busy"), when=5)


def ignore_me() -> None:
    raise Ignore


def reject_me(requeue: bool) -> None:
    raise Reject("not mine", requeue=requeue)


def leave_process() -> None:
    raise SystemExit(3)


def exit_at_once(status: int) -> None:
    os._exit(status)


def exit_if(path: str) -> None:
    """Harmless until ``path`` exists."""
    if os.path.exists(path):
        os._exit(1)


def kill_myself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(PATIENCE)


def segfault() -> None:
    faulthandler.disable()  # a test runner's report would only be noise
    ctypes.string_at(0)


def close_every_file() -> None:
    os.closerange(3, 4096)


def mark(path: str) -> None:
    """Append a line: how often did this run?"""
    with open(path, "a", encoding="ascii") as file:
        file.write("ran\n")


def block(path: str) -> str:
    """Say that it has started (``path``), and go on when told to (``path.go``)."""
    mark(path)
    deadline = time.monotonic() + PATIENCE
    while not Path(path + ".go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return "went on"


async def block_async(path: str) -> str:
    mark(path)
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(path + ".go") and time.monotonic() < deadline:  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.005)
    return "went on"


def clean_up(path: str) -> str:
    """Heeds the soft limit."""
    try:
        return block(path)
    except SoftTimeLimitExceeded:
        return "cleaned up"


async def clean_up_async(path: str) -> str:
    try:
        return await block_async(path)
    except SoftTimeLimitExceeded:
        return "cleaned up"


async def clean_up_slowly(path: str) -> list[Any]:
    try:
        return [await block_async(path)]
    except SoftTimeLimitExceeded:
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0.01)
        task = asyncio.current_task()
        return [task.cancelling() if task else None, "cleaned up"]


def defy(path: str) -> str:
    """Heeds nothing."""
    while True:
        try:
            return block(path)
        except (SoftTimeLimitExceeded, Terminated):
            mark(path + ".defied")


def doze(seconds: float) -> int:
    """Waits as a well-behaved task does; the process it did so in."""
    time.sleep(seconds)
    return os.getpid()


def compute(path: str) -> str:
    """As ``block``, and lets nobody else run."""
    mark(path)
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(path + ".go") and time.monotonic() < deadline:
        pass
    return "computed"


def patched() -> list[bool]:
    """Whether the standard library was patched when this module was imported, and is."""
    return [_SLEEP_AT_IMPORT is not _plain_sleep(), time.sleep is not _plain_sleep()]


async def use_thread() -> int:
    return await asyncio.to_thread(add, 1, 2)


def run_a_loop() -> int:
    """A task that is no coroutine may run one."""
    return asyncio.run(add_async(3, 4))


def _plain_sleep() -> Any:
    import sys

    plain: Any = sys.modules["celeriac.executors.children.natives"].sleep
    return plain


_SLEEP_AT_IMPORT = time.sleep


def start_process(path: str) -> None:
    """Start a process that outlives the task, note its pid, and go on."""
    import subprocess

    process = subprocess.Popen(["sleep", "3600"])
    Path(path + ".part").write_text(str(process.pid), encoding="ascii")
    os.rename(path + ".part", path)
    block(path + ".blocked")


def start_process_and_defy(path: str) -> None:
    """The same, and it heeds nothing."""
    while True:
        try:
            start_process(path)
        except (SoftTimeLimitExceeded, Terminated):
            mark(path + ".defied")


def send_later() -> None:
    """Adds a message to the attempt's outcome."""
    running = current.running()
    assert running is not None
    running.request.sends.append(Outgoing(Envelope(b"{}", {"task": "later"}, {}), Route("", "later")))


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    add, add_async, noop, where, big, show_request, fail, fail_async, fail_as_expected,
    return_what_cannot_be_stored, ask_for_retry, ignore_me, reject_me, leave_process, exit_at_once, exit_if,
    kill_myself, segfault, close_every_file, mark, block, block_async, clean_up, clean_up_async,
    clean_up_slowly, defy, doze, compute, patched, use_thread, run_a_loop, start_process,
    start_process_and_defy, send_later,
)  # fmt: skip
