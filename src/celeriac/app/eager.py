"""Running a task in the calling process: ``task.apply()`` and ``task_always_eager``.

Same order of events as in a worker: hooks, retries, callbacks, errbacks. What differs is said in the request
(``is_eager``): a retry starts at once instead of waiting, and nothing is stored unless ``store_eager_result`` says so.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac import current
from celeriac.app.calls import signatures
from celeriac.app.result import EagerResult
from celeriac.canvas.signature import maybe_signature
from celeriac.errors import Ignore, Reject, Retry
from celeriac.executors.context import Context
from celeriac.executors.error_info import ErrorInfo
from celeriac.ids import task_id as new_id
from celeriac.rules import states
from celeriac.wire.failure import traceback_text
from celeriac.wire.serializers import dumps, loads

if TYPE_CHECKING:
    from celeriac.app.task import Task


def round_trip(args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments serialized and read again. Raises ``EncodeError`` for what can't travel."""
    data, content_type, content_encoding = dumps([list(args), dict(kwargs)], serializer)
    # our own bytes: any serializer may read what it has just written
    back = loads(data, content_type, content_encoding, frozenset({content_type}))
    return tuple(back[0]), dict(back[1])


class _Run(NamedTuple):
    """One eager attempt."""

    task: Task[Any, Any]
    request: Context
    throw: bool
    options: dict[str, Any]


def apply(
    task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
) -> EagerResult[Any]:
    """See ``Task.apply``; ``given``: the call's options, ``throw``, ``retries`` and ``headers`` among them."""
    run = _attempt(task, args, kwargs, given)
    current.push(task, run.request)
    try:
        try:
            task.before_start(_id(run), args, kwargs)
            value = task(*args, **kwargs)
            if task.is_coroutine:
                from celeriac.client.coroutines import run_to_end

                value = run_to_end(value)
        except Retry as asked:
            _on_retry(run, asked)
            again = asked
        except Exception as error:
            return _ended(run, error)
        else:
            return _succeeded(run, value)
    finally:
        current.pop()
    return apply(task, again.sig.args, again.sig.kwargs, _again(run, again))


async def apply_on_loop(
    task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
) -> EagerResult[Any]:
    """:func:`apply` on the running loop: a coroutine task is awaited here."""
    if not task.is_coroutine:
        return apply(task, args, kwargs, given)
    run = _attempt(task, args, kwargs, given)
    current.push(task, run.request)
    try:
        try:
            task.before_start(_id(run), args, kwargs)
            value = await task(*args, **kwargs)
        except Retry as asked:
            _on_retry(run, asked)
            again = asked
        except Exception as error:
            return _ended(run, error)
        else:
            return _succeeded(run, value)
    finally:
        current.pop()
    return await apply_on_loop(task, again.sig.args, again.sig.kwargs, _again(run, again))


def _attempt(
    task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
) -> _Run:  # fmt: skip
    options = dict(given)
    task_id = options.get("task_id") or new_id()
    throw = options.pop("throw", None)
    if throw is None:
        throw = task.app.settings.task_eager_propagates
    outer = current.running()
    parent_id = options.get("parent_id") or (outer.request.id if outer else None)
    root_id = options.get("root_id") or (outer.request.root_id if outer else None) or task_id
    limits = [options.get("time_limit", task.time_limit), options.get("soft_time_limit", task.soft_time_limit)]
    ignored = options.get("ignore_result")
    stamped = options.get("stamped_headers")
    request = Context(
        id=task_id,
        task=task.name,
        args=args,
        kwargs=kwargs,
        parent_id=parent_id,
        root_id=root_id,
        retries=options.get("retries") or 0,
        is_eager=True,
        called_directly=False,
        logfile=options.get("logfile"),
        loglevel=options.get("loglevel") or 0,
        hostname=socket.gethostname(),
        callbacks=_signatures(options.get("link"), "link", task),
        errbacks=_signatures(options.get("link_error"), "link_error", task),
        chain=options.get("chain"),
        chord=options.get("chord"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        shadow=options.get("shadow"),
        headers=options.get("headers"),
        timelimit=None if limits == [None, None] else limits,
        ignore_result=task.runnable_options.ignore_result if ignored is None else ignored,
        stamped_headers=stamped,
        stamps={name: options.get(name) for name in stamped} if stamped else None,
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    )
    return _Run(task, request, bool(throw), options)


def _id(run: _Run) -> str:
    return str(run.request.id)


def _signatures(value: Any, option: str, task: Task[Any, Any]) -> list[Any] | None:
    return None if value is None else signatures(value, option, task.name)


# ── the ways to end ──────────────────────────────────────────────────────────────────────────────────────────


def _succeeded(run: _Run, value: Any) -> EagerResult[Any]:
    task, request = run.task, run.request
    try:
        _send_follow_ups(run, value)
    except Exception as error:
        return _ended(run, error)
    _store(run, value, states.SUCCESS, None)
    task.on_success(value, _id(run), request.args, request.kwargs)
    task.after_return(states.SUCCESS, value, _id(run), request.args, request.kwargs, None)
    return _result(run, value, states.SUCCESS, None)


def _send_follow_ups(run: _Run, value: Any) -> None:
    """Callbacks and the rest of the chain go their usual way: eagerly where all is eager, else to the broker."""
    request, app = run.request, run.task.app
    lineage = {"parent_id": request.id, "root_id": request.root_id}
    for callback in request.callbacks or ():
        maybe_signature(callback, app=app, clone=True).apply_async((value,), **lineage)
    if request.chain:
        following = maybe_signature(request.chain[-1], app=app, clone=True)
        following.apply_async((value,), chain=list(request.chain[:-1]) or None, **lineage)


def _on_retry(run: _Run, asked: Retry) -> None:
    request = run.request
    text = traceback_text(asked)
    _store(run, asked.exc, states.RETRY, text)
    run.task.on_retry(asked.exc, _id(run), request.args, request.kwargs, ErrorInfo(asked, text))
    if asked.sig is None:  # raised by hand: the same call again
        from celeriac.app.retrying import signature_of

        asked.sig = signature_of(run.task, request, None, None, {"retries": (request.retries or 0) + 1})


def _again(run: _Run, asked: Retry) -> dict[str, Any]:
    """The options of the next attempt: the clock does not tick for eager tasks, so there is no countdown."""
    options = dict(asked.sig.options)
    for timing in ("countdown", "eta"):
        options.pop(timing, None)
    options["throw"] = run.throw
    return options


def _ended(run: _Run, error: Exception) -> EagerResult[Any]:
    text = traceback_text(error)
    if isinstance(error, Ignore):
        return _result(run, error, states.IGNORED, text)
    if isinstance(error, Reject):
        return _result(run, error, states.REJECTED, text)
    task, request = run.task, run.request
    _store(run, error, states.FAILURE, text)
    info = ErrorInfo(error, text)
    task.on_failure(error, _id(run), request.args, request.kwargs, info)
    if request.errbacks:
        from celeriac.app.registry import send_errbacks

        send_errbacks(task.app, request, error)
    task.after_return(states.FAILURE, error, _id(run), request.args, request.kwargs, info)
    if run.throw:
        raise error
    return _result(run, error, states.FAILURE, text)


def _result(run: _Run, value: Any, state: str, text: str | None) -> EagerResult[Any]:
    return EagerResult(_id(run), value, state, traceback=text, name=run.task.name, app=run.task.app)


def _store(run: _Run, value: Any, state: str, text: str | None) -> None:
    task = run.task
    wanted = task.store_eager_result
    if wanted is None:
        wanted = task.app.settings.task_store_eager_result
    if wanted and not run.request.ignore_result:
        task.backend.store_result(_id(run), value, state, text, request=run.request)
