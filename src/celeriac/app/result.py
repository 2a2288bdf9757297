"""The result of one task: asked for by id, waited for from threads and coroutines alike.

``AsyncResult`` looks into the result store; ``EagerResult`` is the same for a task that was run on the spot. Results of
several tasks are in ``group_result.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from celeriac import current
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError, ImproperlyConfigured, IncompleteStream, TaskRevokedError
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.results.base import LEAST_LOOK
from celeriac.rules import states

if TYPE_CHECKING:
    from celeriac.app.backend import Backend, Meta
    from celeriac.app.celery import Celeriac
    from celeriac.app.group_result import GroupResult

R = TypeVar("R")
T = TypeVar("T")

#: ``((id, parent), children)``: how a result travels in messages and records
ResultTuple = tuple[tuple[str, Any], Any]


def assert_will_not_block() -> None:
    """Raise ``RuntimeError`` where waiting for a result would block a worker's slot."""
    if current.join_would_block():
        raise RuntimeError(
            "Never wait for a result inside a task: it blocks the slot that the other task may need. Use a callback "
            "(link) or a workflow, or say allow_join_result() / disable_sync_subtasks=False where you know better"
        )


def allow_join_result() -> AbstractContextManager[None]:
    """Waiting for results inside a task is allowed in this context."""
    return current.join_permission(True)


def denied_join_result() -> AbstractContextManager[None]:
    """Waiting for results inside a task is an error in this context (the default)."""
    return current.join_permission(False)


class AsyncResult(Generic[R]):
    """What has become, or will become, of a task. Cheap to make: nothing is read until something is asked."""

    __slots__ = ("__weakref__", "_app", "_backend", "_ignored", "_meta", "_on_ready", "id", "parent", "task_name")

    TimeoutError: ClassVar[type[Exception]] = ResultTimeout

    def __init__(
        self, id: str, backend: Backend | None = None, task_name: str | None = None, app: Celeriac | None = None,  # noqa: A002
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
    ) -> None:  # fmt: skip
        if not id:
            raise ValueError("a result needs the id of its task")
        self.id = id
        self.task_name = task_name
        self.parent = parent
        self._app = app
        self._backend = backend
        self._meta: Meta | None = None
        self._ignored: bool | None = None
        self._on_ready: list[tuple[Callable[..., Any], Callable[..., Any] | None]] | None = None

    @property
    def app(self) -> Celeriac:
        app = self._app or current.get_current_app()
        if app is None:
            raise ImproperlyConfigured(f"there is no app to look up the result of {self.id} with: create a Celeriac()")
        return cast("Celeriac", app)

    @property
    def backend(self) -> Backend:
        return self._backend or self.app.backend

    @property
    def task_id(self) -> str:
        return self.id

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, no_ack: bool = True,
        follow_parents: bool = True, callback: Callable[[str, R], Any] | None = None, on_message: Any = None,
        on_interval: Callable[[], Any] | None = None, disable_sync_subtasks: bool = True,
    ) -> R:  # fmt: skip
        """Wait for the task and return what it returned, or raise what it raised.

        ``timeout``: seconds, ``None`` waits as long as it takes. ``propagate=False`` returns the exception instead of
        raising it. ``follow_parents``: a failed task before this one in a chain is raised at once. ``interval``: how
        often parents are looked at and ``on_interval`` is called; news itself comes as fast as the store tells it.
        Raises ``TimeoutError``; inside a task ``RuntimeError``. Where the result is known not to be stored
        (``ignore_result``), ``None`` at once.
        """
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        look_up = self._parents() if follow_parents and propagate else []
        meta = self.known_meta()
        if meta is None:
            meta = self._wait(timeout, interval, look_up, on_interval)
        return self._answer(meta, propagate, callback)

    wait = get

    def _wait(
        self, timeout: float | None, interval: float, parents: list[AsyncResult[Any]],
        on_interval: Callable[[], Any] | None,
    ) -> Meta:  # fmt: skip
        tracker, backend = self.app.tracker, self.backend
        deadline = None if timeout is None else SYSTEM_CLOCK.monotonic() + timeout
        ids = [self.id]
        while True:
            remaining = None if deadline is None else max(0.0, deadline - SYSTEM_CLOCK.monotonic())
            pause = remaining
            if parents or on_interval is not None:
                _raise_from(parents, deadline)
                pause = interval if remaining is None else min(interval, remaining)
            record = tracker.wait(ids, pause).get(self.id)
            if record is not None:
                return self.remember_meta(backend.decode(record))
            if on_interval is not None:
                on_interval()
            if deadline is not None and SYSTEM_CLOCK.monotonic() >= deadline:
                raise self._too_late(timeout)

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, *, disable_sync_subtasks: bool = True
    ) -> R:
        """:meth:`get` for coroutines: ``await result.aget(timeout=10)``, or just ``await result``."""
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        meta = self._meta
        if meta is None:
            backend = self.backend
            _ = backend.store  # a missing store is this coroutine's error, not that of the waiting thread
            records = await self.app.tracker.await_all([self.id], timeout)
            if self.id not in records:
                raise self._too_late(timeout)
            meta = self.remember_meta(backend.decode(records[self.id]))
        return self._answer(meta, propagate, None)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def _too_late(self, timeout: float | None) -> ResultTimeout:
        name = f" of {self.task_name}" if self.task_name else ""
        try:
            # a store that hangs must not make this much later than it was to be
            meta = self.latest_meta(SYSTEM_CLOCK.monotonic() + LEAST_LOOK)
            ending = f"its state is {meta['status']}"
        except BackendError as error:
            ending = f"its state cannot be read: {error}"
        return ResultTimeout(f"no result{name} [{self.id}] after {timeout} seconds; {ending}")

    def _parents(self) -> list[AsyncResult[Any]]:
        found: list[AsyncResult[Any]] = []
        node = self.parent
        while node is not None:
            found.extend([node] if isinstance(node, AsyncResult) else node.leaves())
            node = node.parent
        return found

    def _answer(self, meta: Meta, propagate: bool, callback: Callable[[str, R], Any] | None) -> R:
        value = meta.get("result")
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            self._throw(meta)
        if callback is not None:
            callback(self.id, cast("R", value))
        return cast("R", value)

    def _throw(self, meta: Meta) -> None:
        error = meta.get("result")
        if not isinstance(error, BaseException):
            error = TaskRevokedError(str(error)) if meta["status"] == states.REVOKED else RuntimeError(str(error))
        traceback = meta.get("traceback")
        if traceback and self.app.settings.task_remote_tracebacks and not getattr(error, "__notes__", None):
            error.add_note(f"In the worker:\n{traceback}")
        raise error

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, R], Any] | None = None) -> Any:
        """Raise the task's exception if it has failed by now; else its result so far."""
        return self._answer(self.latest_meta(), propagate, callback)

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Raise the task's exception."""
        self._throw(self.latest_meta())

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def known_meta(self) -> Meta | None:
        """What is known for good: a ready state never changes for its reader."""
        return self._meta

    def latest_meta(self, deadline: float | None = None) -> Meta:
        """The meta as it is stored now; not read again once it is final. ``deadline``: on ``time.monotonic()``."""
        if self._meta is not None:
            return self._meta
        return self.remember_meta(self.backend.get_task_meta(self.id, deadline))

    def remember_meta(self, meta: Meta) -> Meta:
        """Keep ``meta`` if it is final, and call back those who wait for that."""
        if meta["status"] in states.READY_STATES:
            self._meta = meta
            callbacks, self._on_ready = self._on_ready, None
            for callback, on_error in callbacks or ():
                self._call_back(meta, callback, on_error)
        return meta

    @property
    def state(self) -> str:
        """PENDING (also for an id nobody knows), STARTED, RETRY, SUCCESS, FAILURE, REVOKED or a state of your own."""
        return str(self.latest_meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The return value, the exception, or what ``update_state`` stored; ``None`` if there is nothing yet."""
        return self.latest_meta().get("result")

    info = result

    @property
    def traceback(self) -> str | None:
        return self.latest_meta().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        stored = self.latest_meta().get("date_done")
        return datetime.fromisoformat(stored) if isinstance(stored, str) else stored

    @property
    def children(self) -> list[AsyncResult[Any] | GroupResult[Any]] | None:
        """The results of the tasks that this one sent; ``None`` while that is not known."""
        stored = self.latest_meta().get("children")
        if stored is None:
            return None
        return [result_from_tuple(child, self._app) for child in stored]

    @property
    def name(self) -> str | None:
        """The task's name; like args, kwargs, worker, retries and queue it needs ``result_extended``."""
        return self.latest_meta().get("name")

    @property
    def args(self) -> Any:
        return self.latest_meta().get("args")

    @property
    def kwargs(self) -> Any:
        return self.latest_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        return self.latest_meta().get("worker")

    @property
    def retries(self) -> int | None:
        return self.latest_meta().get("retries")

    @property
    def queue(self) -> str | None:
        return self.latest_meta().get("queue")

    def ready(self) -> bool:
        """Whether it is over: SUCCESS, FAILURE or REVOKED."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether anything is stored under this id."""
        return self._meta is not None or bool(self.backend.store.read([self.id]))

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────

    def forget(self) -> None:
        """Remove the stored result, and those of the tasks before it in a chain."""
        self._meta = None
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget(self.id)

    def revoke(
        self, connection: Any = None, terminate: bool = False, signal: Any = None, wait: bool = False,
        timeout: float | None = None,
    ) -> None:  # fmt: skip
        """Tell the workers not to run the task; ``terminate`` ends it if it runs. ``wait`` for them to say that they
        have heard, up to ``timeout`` seconds (1)."""
        self.app.control.revoke(
            self.id, terminate=terminate, signal=signal, reply=wait, timeout=1.0 if timeout is None else timeout
        )

    def revoke_by_stamped_headers(
        self, headers: Mapping[str, Any], connection: Any = None, terminate: bool = False, signal: Any = None,
        wait: bool = False, timeout: float | None = None,
    ) -> None:  # fmt: skip
        """Tell the workers not to run tasks that are stamped with these headers."""
        self.app.control.revoke_by_stamped_headers(
            headers, terminate=terminate, signal=signal, reply=wait, timeout=1.0 if timeout is None else timeout
        )

    def then(
        self, callback: Callable[[AsyncResult[R]], Any], on_error: Callable[..., Any] | None = None, weak: bool = False
    ) -> AsyncResult[R]:
        """Call ``callback(result)`` when this object learns that the task has succeeded.

        It learns it when it is asked: by ``get``, ``ready``, ``state`` … or at once if it is known already.
        """
        if self._meta is not None:
            self._call_back(self._meta, callback, on_error)
        else:
            self._on_ready = [*(self._on_ready or ()), (callback, on_error)]
        return self

    def _call_back(self, meta: Meta, callback: Callable[..., Any], on_error: Callable[..., Any] | None) -> None:
        if meta["status"] == states.SUCCESS:
            callback(self)
        elif on_error is not None:
            on_error(meta.get("result"))

    # ── families ─────────────────────────────────────────────────────────────────────────────────────────────

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, AsyncResult[Any] | GroupResult[Any]]]:
        """``(parent, result)`` of this result and all that came out of it, breadth first."""
        waiting: list[tuple[Any, Any]] = [(None, self)]
        while waiting:
            parent, node = waiting.pop(0)
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or [])
            elif not intermediate:
                raise IncompleteStream(f"{node.id} is not ready")

    def collect(self, intermediate: bool = False, **how: Any) -> Iterator[tuple[Any, Any]]:
        """``(result, value)`` of this result and all that came out of it; waits for each."""
        for _, node in self.iterdeps(intermediate):
            yield node, node.get(**how)

    def get_leaf(self) -> Any:
        """The value of the last result in :meth:`collect`."""
        value = None
        for _, value in self.collect():  # noqa: B007 - the last one is wanted
            pass
        return value

    def as_tuple(self) -> ResultTuple:
        parent = self.parent
        return (self.id, parent.as_tuple() if parent is not None else None), None

    def as_list(self) -> list[str]:
        """This id and those of the tasks before it."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def leaves(self) -> list[AsyncResult[Any]]:
        return [self]

    @property
    def supports_native_join(self) -> bool:
        return True

    @property
    def ignored(self) -> bool:
        """Whether the task's result is known not to be stored: the call said so, or the task does."""
        if self._ignored is not None:
            return self._ignored
        task = self.app.tasks.get(self.task_name) if self.task_name else None
        return task is not None and bool(task.runnable_options.ignore_result)

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    # ── as a value ───────────────────────────────────────────────────────────────────────────────────────────

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __copy__(self) -> AsyncResult[R]:
        return AsyncResult(self.id, self._backend, self.task_name, self._app, self.parent)

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncResult[R]:
        return self.__copy__()

    def __reduce__(self) -> Any:
        return result_from_tuple, (self.as_tuple(),)


def _raise_from(parents: list[AsyncResult[Any]], deadline: float | None) -> None:
    if parents and deadline is not None:
        deadline = max(deadline, SYSTEM_CLOCK.monotonic() + LEAST_LOOK)
    for parent in parents:
        parent._answer(parent.latest_meta(deadline), True, None)


class EagerResult(AsyncResult[R]):
    """The result of a task that was run here; always ready."""

    __slots__ = ()

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None,  # noqa: A002
        app: Celeriac | None = None,
    ) -> None:  # fmt: skip
        super().__init__(id, task_name=name, app=app)
        self._meta = {"status": state, "result": ret_value, "traceback": traceback, "children": [], "name": name}

    @property
    def _kept(self) -> Meta:
        assert self._meta is not None
        return self._meta

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, no_ack: bool = True,
        follow_parents: bool = True, callback: Callable[[str, R], Any] | None = None, on_message: Any = None,
        on_interval: Callable[[], Any] | None = None, disable_sync_subtasks: bool = True,
    ) -> R:  # fmt: skip
        """What the task returned; raises what it raised. States other than success and failure give ``None``."""
        state = self._kept["status"]
        if state == states.SUCCESS:
            return cast("R", self._kept["result"])
        if state in states.PROPAGATE_STATES:
            return self._answer(self._kept, propagate, None)
        return cast("R", None)

    wait = get

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, *, disable_sync_subtasks: bool = True
    ) -> R:
        return self.get(propagate=propagate)

    def _throw(self, meta: Meta) -> None:
        error = meta["result"]
        raise error if isinstance(error, BaseException) else RuntimeError(str(error))

    def ready(self) -> bool:
        return True

    def exists(self) -> bool:
        return True

    def forget(self) -> None:
        """Nothing is stored, so there is nothing to remove."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Too late to stop it; from now on it says that it was revoked."""
        self._kept.update(status=states.REVOKED, result=TaskRevokedError("revoked"))

    @property
    def supports_native_join(self) -> bool:
        return False

    def __reduce__(self) -> Any:
        kept = self._kept
        return EagerResult, (self.id, kept["result"], kept["status"], kept["traceback"], self.task_name)

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"


def result_from_tuple(r: Any, app: Celeriac | None = None) -> AsyncResult[Any] | GroupResult[Any]:
    """The result (or group of results) that ``as_tuple`` gave; results pass through."""
    from celeriac.app.group_result import GroupResult, ResultSet

    if isinstance(r, AsyncResult | ResultSet):
        return cast("AsyncResult[Any]", r)
    head, children = r
    task_id, parent = head if isinstance(head, list | tuple) else (head, None)
    owner = result_from_tuple(parent, app) if parent else None
    if children is None:
        return AsyncResult(task_id, app=app, parent=owner)
    members = [cast("AsyncResult[Any]", result_from_tuple(child, app)) for child in children]
    return GroupResult(task_id, members, app=app, parent=owner)
