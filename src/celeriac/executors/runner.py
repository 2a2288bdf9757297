"""One attempt at one task, read top-down: open the message, call the task, turn the ending into an outcome.

Every crew and the inline executor use it. It knows no broker and no result store: what must be written or sent
leaves in the outcome (only STARTED is stored at once). Never raises for the task's own faults.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac import current, signals
from celeriac.clock import SYSTEM_CLOCK, Clock
from celeriac.errors import (
    Ignore,
    InvalidTaskError,
    MessageError,
    NotRegistered,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
)
from celeriac.executors import base
from celeriac.executors.base import Failed, Lost, Outcome, Request, ResultRecord, Succeeded
from celeriac.executors.context import Context
from celeriac.executors.error_info import ErrorInfo
from celeriac.executors.time_limits import InterruptibleCoroutine, Window
from celeriac.wire.failure import exception_from_wire, traceback_text
from celeriac.wire.limits import DEFAULT_LIMITS, Limits
from celeriac.wire.result_record import encode_record
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.sealed import Essentials, essentials_of
from celeriac.wire.task_message import load, read_plain_body, shape_body

_log = logging.getLogger("celeriac.task")

#: values whose repr is short and cannot run user code
_PLAIN = frozenset({int, float, bool, type(None)})
#: what an interrupter can raise; may surface a moment after the user's code has ended
_INTERRUPTIONS = (SoftTimeLimitExceeded, TimeLimitExceeded, Terminated)


class _Known(msgspec.Struct):
    """A task with what is asked of it for every attempt, looked up once."""

    task: base.Runnable
    options: base.RunnableOptions
    is_coroutine: bool
    call: Callable[..., Any]
    entered: bool  #: ``call`` is the body itself


class _Attempt(msgspec.Struct, gc=False):
    request: Request
    task: base.Runnable
    options: base.RunnableOptions
    context: Context
    message: Essentials
    call: Callable[..., Any]
    ignored: bool  #: nobody wants the result
    began: float  #: monotonic


class Runner:
    """Runs attempts for one process or thread pool. Thread-safe; ``wants_exit`` says that the process is to leave."""

    def __init__(
        self, registry: base.Registry, hostname: str, clock: Clock = SYSTEM_CLOCK, limits: Limits = DEFAULT_LIMITS,
        show_results: bool = True,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._hostname = hostname
        self._clock = clock
        self._monotonic = clock.monotonic
        self._limits = limits
        self._show_results = show_results
        self._known: dict[str, _Known] = {}
        #: the last second that was written, and how
        self._moment = (-1, "")
        #: a task has raised SystemExit or KeyboardInterrupt
        self.wants_exit = False

    def is_coroutine(self, request: Request) -> bool:
        """Whether the request is for :meth:`arun`. Unknown tasks and conclusions are for :meth:`run`."""
        if request.failure is not None:
            return False
        known = self._known.get(request.task) or self._look_up(request.task)
        return known is not None and known.is_coroutine

    # ── the attempt ──────────────────────────────────────────────────────────────────────────────────────────

    def run(self, request: Request, window: Window | None = None) -> Outcome:
        """Make the attempt in this thread. ``window``: where an interrupter may strike."""
        attempt = self._open(request)
        if type(attempt) is not _Attempt:
            return attempt  # type: ignore[return-value]  # narrowing by type() keeps the hot path free of isinstance
        if window is None:
            window = Window()
        context, task = attempt.context, attempt.task
        current.push(task, context)
        try:
            if request.failure is not None:
                return self._concluded(attempt, request.failure)
            if attempt.options.track_started and not attempt.ignored:
                self._store_started(attempt)
            if signals.task_prerun.receivers:
                _tell_prerun(attempt)
            try:
                window.open()
                task.before_start(request.id, context.args, context.kwargs)
                value = attempt.call(*context.args, **context.kwargs)
                window.close()
            except BaseException as error:
                window.close()
                return self._ended(attempt, error, window)
            return self._succeeded(attempt, value)
        except _INTERRUPTIONS as late:
            window.close()
            return self._ended(attempt, late, window)
        finally:
            current.pop()

    async def arun(self, request: Request, window: Window | None = None) -> Outcome:
        """Make the attempt at a coroutine task on the running loop. Cancelling the asyncio task interrupts it."""
        attempt = self._open(request)
        if type(attempt) is not _Attempt:
            return attempt  # type: ignore[return-value]
        if window is None:
            window = Window()
        context, task = attempt.context, attempt.task
        current.push(task, context)
        try:
            if attempt.options.track_started and not attempt.ignored:
                await asyncio.to_thread(self._store_started, attempt)
            if signals.task_prerun.receivers:
                _tell_prerun(attempt)
            try:
                window.open()
                task.before_start(request.id, context.args, context.kwargs)
                value = await InterruptibleCoroutine(attempt.call(*context.args, **context.kwargs), window)
                window.close()
            except BaseException as error:
                window.close()
                return self._ended(attempt, error, window)
            return self._succeeded(attempt, value)
        finally:
            current.pop()

    def _open(self, request: Request) -> _Attempt | Failed:
        """The message becomes a task, arguments and a context; or a failure that puts it into quarantine."""
        began = self._monotonic()
        known = self._known.get(request.task) or self._look_up(request.task)
        if known is None:
            return self._refused(request, NotRegistered(request.task), None)
        options = known.options
        try:
            found = essentials_of(request.message, self._limits)
            body = None
            if found.content_type == "application/json" and found.compression is None:
                body = read_plain_body(found.body, options.accept_content, self._limits)
            if body is None:
                body = shape_body(
                    load(
                        found.body, found.compression, found.content_type, found.content_encoding,
                        options.accept_content, self._limits,
                    )
                )  # fmt: skip
        except MessageError as error:
            return self._refused(request, error, options)
        except Exception as error:  # a decoder's fault must not end the process
            refusal = InvalidTaskError(f"the body of {request.task}[{request.id}] cannot be read: {error!r}")
            return self._refused(request, refusal, options)
        context = Context.from_request(request, body, self._hostname, known.entered)
        ignored = found.ignore_result
        if ignored is None:
            ignored = options.ignore_result
        return _Attempt(request, known.task, options, context, found, known.call, bool(ignored), began)

    def _look_up(self, name: str) -> _Known | None:
        task = self._registry.tasks.get(name)
        if task is None:
            return None
        body: Callable[..., Any] | None = getattr(task, "plain_body", None)
        known = _Known(task, task.runnable_options, bool(task.is_coroutine), body or task, body is not None)
        self._known[name] = known
        return known

    # ── the ways to end ──────────────────────────────────────────────────────────────────────────────────────

    def _succeeded(self, attempt: _Attempt, value: Any) -> Outcome:
        context, request, options = attempt.context, attempt.request, attempt.options
        runtime = self._monotonic() - attempt.began
        sends: list[base.Outgoing] = context.__dict__.get("sends") or []
        record = None
        try:
            if context.callbacks or context.chain or context.chord:
                sends = [*sends, *self._registry.follow_ups(context, value)]
            if not attempt.ignored:
                record = self._record(attempt, "SUCCESS", _storable(value))
        except Exception as error:
            return self._failed(attempt, error)
        args, kwargs, task = context.args, context.kwargs, attempt.task
        try:
            task.on_success(value, request.id, args, kwargs)
        except Exception:
            self._hook_failed("on_success", request)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=value, runtime=runtime)
        self._after_return(attempt, "SUCCESS", value, None)
        if not self._show_results:
            shown = ""
        elif type(value) in _PLAIN:
            shown = repr(value)
        else:
            shown = safe_repr(value, options.resultrepr_maxsize)
        return Succeeded(request.id, record, sends, runtime, shown)

    def _ended(self, attempt: _Attempt, error: BaseException, window: Window) -> Outcome:
        if error.__traceback__ is not None:  # the first frame is the runner's own
            error.__traceback__ = error.__traceback__.tb_next
        cause = window.ended_by(error)
        if cause is not None and cause != "limit":
            return Lost(attempt.request.id, True, cause, str(error) or repr(error))
        if isinstance(error, Retry):
            return self._retried(attempt, error)
        if isinstance(error, Ignore):
            sends = attempt.context.__dict__.get("sends") or []
            self._tell_postrun(attempt, "IGNORED", error)
            return base.Ignored(attempt.request.id, sends, self._monotonic() - attempt.began)
        if isinstance(error, Reject):
            return self._rejected(attempt, error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            self.wants_exit = True
        return self._failed(attempt, error)

    def _failed(self, attempt: _Attempt, error: BaseException) -> Failed:
        context, request, options = attempt.context, attempt.request, attempt.options
        runtime = self._monotonic() - attempt.began
        text = traceback_text(error)
        record = None
        if not attempt.ignored or options.store_errors_even_if_ignored:
            record = self._error_record(attempt, "FAILURE", error, text)
        sends: list[base.Outgoing] = context.__dict__.get("sends") or []
        sends = [*sends, *self._errbacks(attempt, error)]
        info = ErrorInfo(error, text)
        try:
            attempt.task.on_failure(error, request.id, context.args, context.kwargs, info)
        except Exception:
            self._hook_failed("on_failure", request)
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=attempt.task, task_id=request.id, exception=error, args=context.args, kwargs=context.kwargs,
                traceback=error.__traceback__, einfo=info,
            )  # fmt: skip
        self._after_return(attempt, "FAILURE", error, info)
        expected = bool(options.throws) and isinstance(error, options.throws)
        return Failed(request.id, record, sends, runtime, safe_repr(error), text, expected)

    def _concluded(self, attempt: _Attempt, failure: dict[str, Any]) -> Outcome:
        """What the parent has decided about an attempt that could not tell its end."""
        error = exception_from_wire(failure)
        retry_in = failure.get("retry_in")
        if retry_in is not None:
            return self._retried(attempt, Retry(exc=error, when=retry_in))
        return self._failed(attempt, error)

    def _errbacks(self, attempt: _Attempt, error: BaseException) -> list[base.Outgoing]:
        context, request = attempt.context, attempt.request
        if not context.errbacks and not context.chord:
            return []
        try:
            return self._registry.errbacks(context, error)
        except Exception:
            _log.exception("the errbacks of %s[%s] could not be built", request.task, request.id)
            return []

    def _retried(self, attempt: _Attempt, retry: Retry) -> Outcome:
        context, request = attempt.context, attempt.request
        try:
            message = self._registry.retry_message(context, retry)
        except Exception as error:
            return self._failed(attempt, error)
        reason = retry.exc if retry.exc is not None else retry.excs
        text = traceback_text(retry)
        record = None
        if not attempt.ignored:
            record = self._error_record(attempt, "RETRY", retry.exc, text)
        info = ErrorInfo(retry, text)
        try:
            attempt.task.on_retry(retry.exc, request.id, context.args, context.kwargs, info)
        except Exception:
            self._hook_failed("on_retry", request)
        if signals.task_retry.receivers:
            signals.task_retry.send(sender=attempt.task, request=context, reason=retry, einfo=info)
        self._tell_postrun(attempt, "RETRY", retry)
        sends = [*(context.__dict__.get("sends") or ()), message]
        runtime = self._monotonic() - attempt.began
        error_shown = "" if reason is None else reason if isinstance(reason, str) else safe_repr(reason)
        return base.WantsRetry(request.id, record, sends, runtime, error_shown, retry.humanize())

    def _rejected(self, attempt: _Attempt, reject: Reject) -> base.Rejected:
        record = None
        sends: list[base.Outgoing] = attempt.context.__dict__.get("sends") or []
        if not reject.requeue:
            if not attempt.ignored:
                record = self._error_record(attempt, "FAILURE", reject, None)
            sends = [*sends, *self._errbacks(attempt, reject)]
        reason = "" if reject.reason is None else safe_repr(reject.reason)
        runtime = self._monotonic() - attempt.began
        self._tell_postrun(attempt, "REJECTED", reject)
        return base.Rejected(attempt.request.id, reject.requeue, reason, record, runtime, sends)

    def _refused(self, request: Request, error: MessageError, options: base.RunnableOptions | None) -> Failed:
        """The message itself is bad: nothing of the user's was called; a caller who waits is told all the same."""
        record = None
        if request.envelope.headers.get("ignore_result") is not True and not (options and options.ignore_result):
            record = encode_record(
                task_id=request.id, status="FAILURE", result=error, date_done=self._now_text(),
                group_id=request.envelope.headers.get("group"), parent_id=request.envelope.headers.get("parent_id"),
                serializer=options.result_serializer if options else "json",
                expires_in=options.result_expires if options else None,
                reply_to=request.envelope.properties.get("reply_to"),
            )  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        return Failed(request.id, record, [], 0.0, safe_repr(error), "", True, reason)

    # ── hooks ────────────────────────────────────────────────────────────────────────────────────────────────

    def _after_return(self, attempt: _Attempt, status: str, value: Any, info: ErrorInfo | None) -> None:
        context = attempt.context
        try:
            attempt.task.after_return(status, value, attempt.request.id, context.args, context.kwargs, info)
        except Exception:
            self._hook_failed("after_return", attempt.request)
        self._tell_postrun(attempt, status, value)

    def _tell_postrun(self, attempt: _Attempt, status: str, value: Any) -> None:
        if signals.task_postrun.receivers and attempt.request.failure is None:
            context = attempt.context
            signals.task_postrun.send(
                sender=attempt.task, task_id=attempt.request.id, task=attempt.task, args=context.args,
                kwargs=context.kwargs, retval=value, state=status,
            )  # fmt: skip

    def _hook_failed(self, hook: str, request: Request) -> None:
        _log.exception("%s of %s[%s] failed; the task's result stands", hook, request.task, request.id)

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def _store_started(self, attempt: _Attempt) -> None:
        try:
            self._registry.store(
                self._record(attempt, "STARTED", {"pid": os.getpid(), "hostname": self._hostname}, ready=False)
            )
        except Exception:
            _log.exception("STARTED of %s[%s] could not be stored", attempt.request.task, attempt.request.id)

    def _error_record(
        self, attempt: _Attempt, status: str, error: BaseException | None, text: str | None
    ) -> ResultRecord:
        ready = status == "FAILURE"
        try:
            return self._record(attempt, status, error, text, ready=ready)
        except Exception as reason:  # an exception whose arguments cannot be stored
            stand_in = RuntimeError(f"{safe_repr(error)} (could not be stored: {safe_repr(reason)})")
            return self._record(attempt, status, stand_in, text, ready=ready)

    def _record(
        self, attempt: _Attempt, status: str, result: Any, traceback: str | None = None, ready: bool = True
    ) -> ResultRecord:
        request, options, context = attempt.request, attempt.options, attempt.context
        message = attempt.message
        children = context.__dict__.get("children")
        return encode_record(
            task_id=request.id,
            status=status,
            result=result,
            traceback=traceback,
            children=[_storable(child) for child in children] if children else (),
            date_done=self._now_text() if ready else None,
            group_id=message.group,
            parent_id=message.parent_id,
            extended=self._extended(attempt) if options.result_extended else None,
            serializer=options.result_serializer,
            expires_in=options.result_expires,
            reply_to=message.reply_to or None,
        )

    def _extended(self, attempt: _Attempt) -> dict[str, Any]:
        context = attempt.context
        values: dict[str, Any] = {
            "name": attempt.request.task, "args": context.args, "kwargs": context.kwargs, "worker": self._hostname,
            "retries": context.retries, "queue": attempt.request.routing_key,
        }  # fmt: skip
        if context.stamped_headers:
            stamps = context.stamps or {}
            values["stamped_headers"] = context.stamped_headers
            values.update({name: stamps[name] for name in context.stamped_headers if name in stamps})
        return values

    def _now_text(self) -> str:
        now = self._clock.time()
        second = int(now)
        known, text = self._moment
        if known != second:  # a third of the record's cost otherwise
            text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
            self._moment = second, text
        return f"{text}.{int((now - second) * 1e6):06d}+00:00"


def _tell_prerun(attempt: _Attempt) -> None:
    task, context = attempt.task, attempt.context
    signals.task_prerun.send(
        sender=task, task_id=attempt.request.id, task=task, args=context.args, kwargs=context.kwargs
    )


def _storable(value: Any) -> Any:
    """Results of other tasks are stored as what they can be rebuilt from."""
    if type(value) in _PLAIN:
        return value
    as_tuple: Callable[[], Any] | None = getattr(type(value), "as_tuple", None)
    return value if as_tuple is None else value.as_tuple()
