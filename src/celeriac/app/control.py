"""``app.control``: ask and tell the workers, with Celery's names and reply shapes.

Every order is a broadcast. ``destination`` names the nodes that are meant (else all are), ``reply=True`` collects
what they say as ``[{node: reply}]``, waiting ``timeout`` seconds for each further one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celeriac.client.coroutines import in_thread
from celeriac.client.remote import Question
from celeriac.errors import CeleriacError
from celeriac.wire.revocation import PARDON, Revocation, revoked_ids, revoked_stamps, signal_name, stamp_values

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.client.remote import Remote

#: what most orders return: nothing, or the replies
Replies = list[dict[str, Any]] | None

#: ids in one order; workers take twice as many
_IDS_AT_ONCE = 5000
#: keywords of every order that say how to ask, not what
_HOW = frozenset({"reply", "timeout", "limit", "callback", "pattern", "matcher", "connection", "channel"})


def flatten_reply(reply: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``[{node: reply}, …]`` as one mapping; of a node that answered twice the last word."""
    return {node: said for one in reply for node, said in one.items()}


class Inspect:
    """Questions to workers. Each method returns ``{node: reply}``, or ``None`` when nobody answered.

    With one node as ``destination`` (text, not a list) the reply of that node itself.
    """

    def __init__(
        self, destination: str | Sequence[str] | None = None, timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], Any] | None = None, connection: Any = None, app: Celeriac | None = None,
        limit: int | None = None, pattern: str | None = None, matcher: str | None = None,
    ) -> None:  # fmt: skip
        if app is None:
            from celeriac import current

            app = current.get_current_app()
        assert app is not None, "there is no app to inspect the workers of"
        self.app = app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def ask(self, command: str, **arguments: Any) -> Any:
        """Ask anything, custom commands too."""
        destination = [self.destination] if isinstance(self.destination, str) else self.destination
        replies = self.app.control.broadcast(
            command, arguments, destination, reply=True, timeout=self.timeout, limit=self.limit,
            callback=self.callback, pattern=self.pattern, matcher=self.matcher,
        )  # fmt: skip
        by_node = flatten_reply(replies or [])
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        return by_node or None

    def report(self) -> Any:
        """Versions, platform and settings as text."""
        return self.ask("report")

    def clock(self) -> Any:
        """The logical clocks."""
        return self.ask("clock")

    def active(self, safe: bool | None = None) -> Any:
        """The tasks that run."""
        return self.ask("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """The tasks that workers keep until their time."""
        return self.ask("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """The tasks that workers have taken and that wait for a slot."""
        return self.ask("reserved")

    def stats(self) -> Any:
        """Counts, pool, broker and resources."""
        return self.ask("stats")

    def limits(self) -> Any:
        """The limits of the whole cluster that tasks wait for, or have permits of."""
        return self.ask("limits")

    def declared_limits(self) -> Any:
        """The limits of the whole cluster: their numbers of today, and in the code."""
        return self.ask("declared_limits")

    def revoked(self) -> Any:
        """The ids of revoked tasks."""
        return self.ask("revoked")

    def revoked_stamps(self) -> Any:
        """The values of stamped headers that are revoked."""
        return self.ask("revoked_stamps")

    def registered(self, *taskinfoitems: str) -> Any:
        """The tasks that workers know, with these attributes of each."""
        return self.ask("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def ping(self, destination: str | Sequence[str] | None = None) -> Any:
        """Who is there."""
        if destination:
            self.destination = destination
        return self.ask("ping")

    def active_queues(self) -> Any:
        """The queues that workers take messages from."""
        return self.ask("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Where tasks are, by id; also as one list."""
        if len(ids) == 1 and isinstance(ids[0], list | tuple):
            ids = tuple(ids[0])
        return self.ask("query_task", ids=list(ids))

    def conf(self, with_defaults: bool = False) -> Any:
        """The configurations, secrets masked."""
        return self.ask("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """What workers tell one that starts."""
        return self.ask("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """The memory of the workers' own processes."""
        return self.ask("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """The same as text."""
        return self.ask("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:  # noqa: A002
        """A graph of objects; celeriac's workers draw none."""
        return self.ask("objgraph", num=n, max_depth=max_depth, type=type)

    aask = in_thread(ask)


class Control:
    """Orders to workers. The methods with an ``a`` in front are for coroutines."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app

    @property
    def remote(self) -> Remote:
        """What sends and collects."""
        return self.app.remote

    def inspect(
        self, destination: str | Sequence[str] | None = None, timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], Any] | None = None, connection: Any = None, app: Any = None,
        limit: int | None = None, pattern: str | None = None, matcher: str | None = None,
    ) -> Inspect:  # fmt: skip
        """Questions: ``app.control.inspect().active()``."""
        return Inspect(destination, timeout, callback, connection, app or self.app, limit, pattern, matcher)

    def broadcast(
        self, command: str, arguments: Mapping[str, Any] | None = None, destination: Sequence[str] | None = None,
        connection: Any = None, reply: bool = False, timeout: float = 1.0, limit: int | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None, channel: Any = None, pattern: str | None = None,
        matcher: str | None = None, **extra: Any,
    ) -> Replies:  # fmt: skip
        """Send any command. ``extra`` keywords are arguments of it. ``connection`` and ``channel`` are not needed.

        Raises ``ValueError`` for a destination that is no list, ``OperationalError`` without a broker.
        """
        if destination is not None and not isinstance(destination, list | tuple):
            raise ValueError(f"destination must be a list or tuple of node names, not {destination!r}")
        question = Question(
            method=command, arguments={**(arguments or {}), **extra}, destination=destination, pattern=pattern,
            matcher=matcher, timeout=timeout, limit=limit, callback=callback,
        )  # fmt: skip
        if reply:
            return self.remote.ask(question)
        self.remote.tell(question)
        return None

    def purge(self, connection: Any = None) -> int:
        """Throw away all messages that wait in the app's queues; how many."""
        admin = self.app.transport.admin()
        try:
            return sum(admin.purge(name) for name in self.app.queues)
        finally:
            admin.close()

    discard_all = purge

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:  # noqa: A002
        """Hold an election among Celery's workers; ours take no part."""
        self.broadcast("election", {"id": id, "topic": topic, "action": action})

    def revoke(
        self, task_id: str | Iterable[str], destination: Sequence[str] | None = None, terminate: bool = False,
        signal: Any = "SIGTERM", **how: Any,
    ) -> Replies:  # fmt: skip
        """Keep tasks from being run, by id or ids; ``terminate`` ends those that run.

        It lasts: workers that are down now read of it when they start. Raises ``OperationalError`` or ``BackendError``
        where that could not be written down, after the workers that live were told.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        named = _signal_name(signal)
        with self._written(revoked_ids(ids, _recorded(named) if terminate else "")):
            replies: list[dict[str, Any]] = []
            for start in range(0, len(ids), _IDS_AT_ONCE):
                some: str | list[str] = ids[start : start + _IDS_AT_ONCE] if not isinstance(task_id, str) else task_id
                arguments = {"task_id": some, "terminate": terminate, "signal": named}
                replies += self._order("revoke", arguments, destination, dict(how)) or []
        return replies if how.get("reply") else None

    def revoke_by_stamped_headers(
        self, headers: Mapping[str, Any], destination: Sequence[str] | None = None, terminate: bool = False,
        signal: Any = "SIGTERM", **how: Any,
    ) -> Replies:  # fmt: skip
        """Keep tasks from being run that are stamped with these headers; those that are sent later, too.

        It lasts as :meth:`revoke` does, unless it is told to chosen workers alone (``destination``, ``pattern``).
        """
        named = _signal_name(signal)
        arguments = {"headers": dict(headers), "terminate": terminate, "signal": named}
        entries = revoked_stamps(stamp_values(headers), _recorded(named) if terminate else "")
        with self._written(entries if _is_for_all(destination, how) else []):
            return self._order("revoke_by_stamped_headers", arguments, destination, how)

    def unrevoke(self, task_id: str | Iterable[str], destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Take revocations back, by id or ids: what is delivered or sent from now on runs.

        What a worker has dropped by then is gone. It lasts, and raises, as :meth:`revoke` does.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        with self._written(revoked_ids(ids, PARDON)):
            replies: list[dict[str, Any]] = []
            for start in range(0, len(ids), _IDS_AT_ONCE):
                arguments = {"task_id": ids[start : start + _IDS_AT_ONCE]}
                replies += self._order("unrevoke", arguments, destination, dict(how)) or []
        return replies if how.get("reply") else None

    def unrevoke_by_stamped_headers(
        self, headers: Mapping[str, Any], destination: Sequence[str] | None = None, **how: Any
    ) -> Replies:
        """Take revocations back, by stamped headers; told to chosen workers, it is not written down."""
        entries = revoked_stamps(stamp_values(headers), PARDON)
        with self._written(entries if _is_for_all(destination, how) else []):
            return self._order("unrevoke_by_stamped_headers", {"headers": dict(headers)}, destination, how)

    @contextmanager
    def _written(self, entries: list[Revocation]) -> Iterator[None]:
        """Write down what is revoked, then tell whoever listens: even if the former has failed, which is said then."""
        failure: CeleriacError | None = None
        registry = self.app.revocations
        if registry is not None and entries:
            try:
                registry.add_revocations(entries, self.app.settings.task_revoke_expires)
            except CeleriacError as error:
                failure = error
        yield
        if failure is not None:
            raise failure

    def terminate(
        self, task_id: str | Iterable[str], destination: Sequence[str] | None = None, signal: Any = "SIGTERM",
        **how: Any,
    ) -> Replies:  # fmt: skip
        """End tasks that run, by id or ids; they are revoked as well."""
        return self.revoke(task_id, destination, True, signal, **how)

    def ping(self, destination: Sequence[str] | None = None, timeout: float = 1.0, **how: Any) -> list[dict[str, Any]]:
        """Who is there: ``[{node: {"ok": "pong"}}]``."""
        return self.broadcast("ping", None, destination, reply=True, timeout=timeout, **how) or []

    def rate_limit(
        self, task_name: str, rate_limit: Any, destination: Sequence[str] | None = None, **how: Any
    ) -> Replies:
        """Set how often tasks of one name may start on each worker, such as ``"10/m"``."""
        return self._order("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, destination, how)

    def limit(
        self, name: str, destination: Sequence[str] | None = None, *, rate: Any = ..., concurrency: Any = ...,
        burst: Any = ..., **how: Any,
    ) -> Replies:  # fmt: skip
        """Change a limit over all workers while they run: ``limit("proj.report", rate="50/m")``; None lifts it.

        ``name``: a task's, if that has one such limit, or what ``inspect().declared_limits()`` calls it. It is kept
        where limits are counted, until :meth:`reset_limit`; some worker that has the limit has to be there to do so.
        """
        given = {"rate": rate, "concurrency": concurrency, "burst": burst}
        values = {field: value for field, value in given.items() if value is not ...}
        return self._order("limit", {"limit": name, "values": values}, destination, how)

    def reset_limit(self, name: str, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Give a limit the numbers that the code has."""
        return self._order("reset_limit", {"limit": name}, destination, how)

    def time_limit(
        self, task_name: str, soft: float | None = None, hard: float | None = None,
        destination: Sequence[str] | None = None, **how: Any,
    ) -> Replies:  # fmt: skip
        """Set the time limits, in seconds, of tasks of one name that start from now on."""
        return self._order("time_limit", {"task_name": task_name, "hard": hard, "soft": soft}, destination, how)

    def add_consumer(
        self, queue: str, exchange: str | None = None, exchange_type: str = "direct", routing_key: str | None = None,
        options: Mapping[str, Any] | None = None, destination: Sequence[str] | None = None, **how: Any,
    ) -> Replies:  # fmt: skip
        """Have workers take messages from one more queue."""
        arguments = {
            "queue": queue, "exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key,
            **(options or {}),
        }  # fmt: skip
        return self._order("add_consumer", arguments, destination, how)

    def cancel_consumer(self, queue: str, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers take no more messages from a queue."""
        return self._order("cancel_consumer", {"queue": queue}, destination, how)

    def enable_events(self, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers send task events."""
        return self._order("enable_events", {}, destination, how)

    def disable_events(self, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers send no task events."""
        return self._order("disable_events", {}, destination, how)

    def heartbeat(self, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers send a sign of life now."""
        return self._order("heartbeat", {}, destination, how)

    def pool_grow(self, n: int = 1, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers run more tasks at one time; ``pool``: in which one, where they have several."""
        return self._order("pool_grow", {"n": n}, destination, how)

    def pool_shrink(self, n: int = 1, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers run fewer tasks at one time; ``pool`` as with :meth:`pool_grow`."""
        return self._order("pool_shrink", {"n": n}, destination, how)

    def pool_restart(
        self, modules: Sequence[str] | None = None, reload: bool = False, reloader: Any = None,
        destination: Sequence[str] | None = None, **how: Any,
    ) -> Replies:  # fmt: skip
        """Have workers replace their processes."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self._order("pool_restart", arguments, destination, how)

    def autoscale(self, max: int, min: int, destination: Sequence[str] | None = None, **how: Any) -> Replies:  # noqa: A002
        """Set the limits between which pools size themselves."""
        return self._order("autoscale", {"max": max, "min": min}, destination, how)

    def shutdown(self, destination: Sequence[str] | None = None, **how: Any) -> Replies:
        """Have workers stop, warm. They do not answer."""
        return self._order("shutdown", {}, destination, how)

    def _order(
        self, command: str, arguments: dict[str, Any], destination: Sequence[str] | None, how: dict[str, Any]
    ) -> Replies:
        asking = {key: value for key, value in how.items() if key in _HOW}
        arguments.update((key, value) for key, value in how.items() if key not in _HOW)
        return self.broadcast(command, arguments, destination, **asking)

    abroadcast = in_thread(broadcast)
    aping = in_thread(ping)
    apurge = in_thread(purge)
    arevoke = in_thread(revoke)
    arevoke_by_stamped_headers = in_thread(revoke_by_stamped_headers)
    aunrevoke = in_thread(unrevoke)
    aunrevoke_by_stamped_headers = in_thread(unrevoke_by_stamped_headers)
    aterminate = in_thread(terminate)
    arate_limit = in_thread(rate_limit)
    alimit = in_thread(limit)
    areset_limit = in_thread(reset_limit)
    atime_limit = in_thread(time_limit)
    aadd_consumer = in_thread(add_consumer)
    acancel_consumer = in_thread(cancel_consumer)
    aenable_events = in_thread(enable_events)
    adisable_events = in_thread(disable_events)
    apool_grow = in_thread(pool_grow)
    apool_shrink = in_thread(pool_shrink)
    ashutdown = in_thread(shutdown)


def _is_for_all(destination: Sequence[str] | None, how: Mapping[str, Any]) -> bool:
    """Told to chosen workers alone, it is a matter of theirs."""
    return destination is None and not how.get("pattern")


def _recorded(signal: Any) -> str:
    """As it stands in the registry: one that nobody knows ends nothing there, and the workers refuse it."""
    try:
        return signal_name(signal)
    except ValueError:
        return ""


def _signal_name(signal: Any) -> Any:
    """Signals travel by name, as they differ in number between systems."""
    name = getattr(signal, "name", None)
    return name if isinstance(name, str) else signal
