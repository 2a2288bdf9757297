"""Results of several tasks, waited for together with one look at the store instead of one per task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celeriac import current
from celeriac.app.result import AsyncResult, ResultTuple, assert_will_not_block
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.ids import task_id as new_id

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac

R = TypeVar("R")


class ResultSet(Generic[R]):
    """A changeable, ordered set of results."""

    def __init__(self, results: Iterable[AsyncResult[R]], app: Celeriac | None = None) -> None:
        self._app = app
        self.results: list[AsyncResult[R]] = list(results)

    @property
    def app(self) -> Celeriac:
        app = self._app or (self.results[0].app if self.results else current.get_current_app())
        if app is None:
            raise ImproperlyConfigured("there is no app to look up these results with: create a Celeriac()")
        return cast("Celeriac", app)

    @property
    def backend(self) -> Any:
        return self.app.backend

    # ── membership ───────────────────────────────────────────────────────────────────────────────────────────

    def add(self, result: AsyncResult[R]) -> None:
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: AsyncResult[R] | str) -> None:
        """Take it out. Raises ``KeyError`` if it is not in."""
        try:
            self.results.remove(cast("AsyncResult[R]", result))
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: AsyncResult[R] | str) -> None:
        if result in self.results:
            self.remove(result)

    def update(self, results: Iterable[AsyncResult[R]]) -> None:
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results.clear()

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────

    def leaves(self) -> list[AsyncResult[Any]]:
        """The single results, those of inner groups included."""
        return [leaf for result in self.results for leaf in result.leaves()]

    def _refresh(self) -> list[AsyncResult[Any]]:
        """The single results, having read with one look all those not known to be ready."""
        leaves = self.leaves()
        unknown = [leaf for leaf in leaves if leaf.known_meta() is None]
        if unknown:
            metas = self.app.backend.get_task_metas([leaf.id for leaf in unknown])
            for leaf in unknown:
                if leaf.id in metas:
                    leaf.remember_meta(metas[leaf.id])
        return leaves

    def ready(self) -> bool:
        return all(leaf.known_meta() is not None for leaf in self._refresh())

    def waiting(self) -> bool:
        """Whether any of them is not ready."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether all of them have succeeded."""
        return all((leaf.known_meta() or {}).get("status") == "SUCCESS" for leaf in self._refresh())

    def failed(self) -> bool:
        """Whether any of them has failed."""
        return any((leaf.known_meta() or {}).get("status") == "FAILURE" for leaf in self._refresh())

    def completed_count(self) -> int:
        """How many have succeeded."""
        return sum((leaf.known_meta() or {}).get("status") == "SUCCESS" for leaf in self._refresh())

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        for result in self.results:
            result.maybe_throw(propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None, no_ack: bool = True, on_message: Any = None,
        disable_sync_subtasks: bool = True, on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:  # fmt: skip
        """Wait for all and return their values in order; with ``propagate`` the first failure seen is raised.

        ``callback(task_id, value)`` is called for each in order, and the list is empty then, as in Celery.
        Raises ``TimeoutError``; inside a task ``RuntimeError``.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        for leaf in self._arrivals(timeout, interval, on_interval):
            if propagate:
                leaf.maybe_throw()
        values = [result.get(propagate=propagate, disable_sync_subtasks=False) for result in self.results]
        if callback is None:
            return values
        for result, value in zip(self.results, values, strict=True):
            callback(result.id, value)
        return []

    join = get
    join_native = get

    def iter_native(
        self, timeout: float | None = None, interval: float = 0.5, no_ack: bool = True, on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
        """``(task id, meta)`` of each as it becomes ready."""
        for leaf in self._arrivals(timeout, interval, on_interval):
            yield leaf.id, leaf.latest_meta()

    def _arrivals(
        self, timeout: float | None, interval: float, on_interval: Callable[[], Any] | None
    ) -> Iterator[AsyncResult[Any]]:
        """The single results in the order in which they become ready."""
        deadline = None if timeout is None else SYSTEM_CLOCK.monotonic() + timeout
        missing: dict[str, list[AsyncResult[Any]]] = {}
        for leaf in self.leaves():
            if leaf.known_meta() is not None:
                yield leaf
            else:
                missing.setdefault(leaf.id, []).append(leaf)
        try:
            while missing:
                remaining = None if deadline is None else max(0.0, deadline - SYSTEM_CLOCK.monotonic())
                pause = remaining
                if on_interval is not None:
                    pause = interval if remaining is None else min(interval, remaining)
                found = self.app.tracker.wait_any(list(missing), pause)
                for task_id, record in found.items():
                    meta = self.app.backend.decode(record)
                    for leaf in missing.pop(task_id, ()):
                        leaf.remember_meta(meta)
                        yield leaf
                if on_interval is not None:
                    on_interval()
                if missing and deadline is not None and SYSTEM_CLOCK.monotonic() >= deadline:
                    raise self._too_late(timeout, len(missing))
        finally:
            self.app.tracker.rest()

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, *, disable_sync_subtasks: bool = True
    ) -> list[R]:
        """:meth:`get` for coroutines."""
        if disable_sync_subtasks:
            assert_will_not_block()
        missing = {leaf.id for leaf in self.leaves() if leaf.known_meta() is None}
        if missing:
            _ = self.app.backend.store  # a missing store is this coroutine's error
            records = await self.app.tracker.await_all(missing, timeout)
            for leaf in self.leaves():
                if leaf.id in records:
                    leaf.remember_meta(self.app.backend.decode(records[leaf.id]))
            if len(records) < len(missing):
                raise self._too_late(timeout, len(missing) - len(records))
        return [await result.aget(propagate=propagate, disable_sync_subtasks=False) for result in self.results]

    ajoin = aget

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.aget().__await__()

    def _too_late(self, timeout: float | None, missing: int) -> ResultTimeout:
        return ResultTimeout(f"{missing} of {len(self.leaves())} results are not there after {timeout} seconds")

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────

    def forget(self) -> None:
        for result in self.results:
            result.forget()

    def revoke(self, connection: Any = None, terminate: bool = False, signal: Any = None, **_: Any) -> None:
        self.app.control.revoke([leaf.id for leaf in self.leaves()], terminate=terminate, signal=signal)

    # ── as a value ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def supports_native_join(self) -> bool:
        return True

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[R]:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return bool(other.results == self.results)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(result.id for result in self.results)}]>"


class GroupResult(ResultSet[R]):
    """The results of one group, with the group's id."""

    def __init__(
        self, id: str | None = None, results: Iterable[AsyncResult[R]] | None = None,  # noqa: A002 - Celery's name
        parent: AsyncResult[Any] | GroupResult[Any] | None = None, app: Celeriac | None = None,
    ) -> None:  # fmt: skip
        super().__init__(results or (), app)
        self.id = id or new_id()
        self.parent = parent

    @property
    def children(self) -> Sequence[AsyncResult[R]]:
        return self.results

    def forget(self) -> None:
        super().forget()
        if self.parent is not None:
            self.parent.forget()

    def as_tuple(self) -> ResultTuple:
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [result.as_tuple() for result in self.results]

    def as_list(self) -> list[str]:
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return bool(other.id == self.id and other.results == self.results)
        return NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]  # unlike a ResultSet it has an identity
        return hash(self.id)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(result.id for result in self.results)}]>"

    def __reduce__(self) -> Any:
        from celeriac.app.result import result_from_tuple

        return result_from_tuple, (self.as_tuple(),)
