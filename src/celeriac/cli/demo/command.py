"""``celeriac demo``: sends one task per Python file, runs a worker, shows it working, and sums up.

Interrupted by Ctrl-C it leaves no process behind; run again, it takes up the run where it was.
"""

from __future__ import annotations

import signal
import sysconfig
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.demo.progress import Meter, open_meter
from celeriac.cli.demo.run import DemoRun, RunBook
from celeriac.cli.demo.summary import Summary
from celeriac.cli.demo.worker_process import WorkerProcess
from celeriac.cli.failures import Failure, fail
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import CONCURRENCY
from celeriac.cli.output import note, one_line, say, table
from celeriac.clock import SYSTEM_CLOCK
from celeriac.settings.censor import censored_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.app.celery import Celeriac
    from celeriac.results.base import ResultStore

#: messages per publish; what a crash between two of them could at most send twice
_BATCH = 500
#: results asked for at a time; the queue is in order, so what is next to finish is at the front
_WINDOW = 500
#: seconds between two looks when nothing came
_PAUSE = 0.05
#: seconds without any result after which something must be wrong
_PATIENCE = 120.0

_EX_INTERRUPTED = 130


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-c", "--concurrency", type=CONCURRENCY, default=0, help="Processes of the worker; 0: one per processor.")
@click.option("--fresh", is_flag=True, help="Forget an unfinished run instead of taking it up again.")
@pass_invocation
def demo(invocation: Invocation, folder: Path | None, concurrency: int, fresh: bool) -> None:
    """Parse every Python file of FOLDER, one task each, and show what is in them.

    FOLDER is Python's standard library when not given. The files are parsed, never run.
    """
    from celeriac.cli.demo.tasks import app
    from celeriac.settings.loading import embedded_path

    chosen = (folder or Path(sysconfig.get_path("stdlib"))).resolve()
    book = RunBook(embedded_path(app.name).parent, chosen)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        run = book.open()
    except BlockingIOError:
        fail(f"A demo over {chosen} is running already.")
    with ExitStack() as stack:
        stack.callback(book.close)
        if run is not None and fresh:
            app.transport.admin().purge(run.queue)
            run = None
        resumed = run is not None
        if run is None:
            run = book.begin(SYSTEM_CLOCK.time())
        if not run.files:
            book.finish()
            fail(f"There is no Python file in {chosen}.")
        if app.store is None:
            fail("The demo needs a place for results: say --result-backend URL.")
        Demo(app, app.store, book, run, invocation).play(concurrency or None, resumed=resumed)


class Demo:
    """One run from sending to summary."""

    def __init__(self, app: Celeriac, store: ResultStore, book: RunBook, run: DemoRun, invocation: Invocation) -> None:
        self._app = app
        self._store = store
        self._book = book
        self._run = run
        self._invocation = invocation
        self._summary = Summary()
        self._pending = run.task_ids()
        self._finished = 0  # in this sitting
        self._say: Callable[[str], None] = (lambda _: None) if invocation.quiet else say
        self._worker = WorkerProcess(run.queue, None, book.path.with_suffix(".log"))

    def play(self, concurrency: int | None, *, resumed: bool) -> None:
        run = self._run
        if resumed:
            self._collect()
            self._say(f"Resuming: {len(run.files) - len(self._pending):,} of {len(run.files):,} files are done.")
        else:
            self._say(f"{len(run.files):,} Python files in {one_line(run.folder)}: one task each.")
        self._say(f"queue: {one_line(censored_url(self._app.broker_url))}")
        try:
            sending = self._send()
            working = self._work(concurrency) if self._pending else 0.0
        except KeyboardInterrupt:
            self._worker.stop()
            note(
                f"\nStopped; the worker has ended. {len(self._pending):,} of {len(run.files):,} files are left.\n"
                "Run the same command again to go on, or with --fresh to start over."
            )
            raise click.exceptions.Exit(_EX_INTERRUPTED) from None
        finally:
            self._worker.stop()
        self._book.finish()
        self._tell(sending, working)

    def _send(self) -> float:
        """Hand the tasks that the broker doesn't have yet to it, in bulk; the seconds that took."""
        from celeriac.cli.demo.tasks import measure

        began = time.monotonic()
        run = self._run
        while run.sent < len(run.files):
            batch = run.files[run.sent : run.sent + _BATCH]
            self._app.send_many(measure.s(file).set(task_id=run.task_id(file), queue=run.queue) for file in batch)
            run.sent += len(batch)
            self._book.save(run)
        return time.monotonic() - began

    def _work(self, concurrency: int | None) -> float:
        """Run the worker until every result is there; the seconds from its start to the last result."""
        began = time.monotonic()
        self._worker = WorkerProcess(self._run.queue, concurrency, self._worker.log)
        self._worker.start()
        with ExitStack() as stack:
            meter = open_meter(
                stack, len(self._run.files), len(self._run.files) - len(self._pending),
                color=self._invocation.color, quiet=self._invocation.quiet,
            )  # fmt: skip
            self._watch(meter)
        return time.monotonic() - began

    def _watch(self, meter: Meter) -> None:
        last = time.monotonic()
        while self._pending:
            came = self._collect()
            meter.show(len(self._run.files) - len(self._pending), len(self._summary.failed))
            if came:
                self._finished += came
                last = time.monotonic()
                continue
            status = self._worker.ended()
            if status is not None:
                self._give_up(f"The worker ended with status {status}")
            if time.monotonic() - last > _PATIENCE:
                self._give_up(f"No task has finished for {_PATIENCE:g} s")
            time.sleep(_PAUSE)

    def _collect(self) -> int:
        """Take the results that are there, many in one read; how many came."""
        from celeriac.rules.states import READY_STATES
        from celeriac.wire.result_record import decode_record

        came = 0
        ids = iter(list(self._pending))
        while window := list(islice(ids, _WINDOW)):
            before = came
            for task_id, record in self._store.read(window).items():
                meta: dict[str, Any] = dict(decode_record(record))
                if meta["status"] in READY_STATES:
                    self._summary.add(self._pending.pop(task_id), meta)
                    came += 1
            if came == before and self._worker.pid is not None:
                break  # tasks finish about in order: nothing here, hardly anything behind
        return came

    def _give_up(self, what: str) -> None:
        for line in self._worker.last_words():
            note(f"worker: {one_line(line)}")
        raise Failure(f"{what}; its log: {self._worker.log}. Run the same command again to go on.", 1)

    def _tell(self, sending: float, working: float) -> None:
        summary, run = self._summary, self._run
        self._say("")
        table(
            ["lines", "functions", "classes", "longest function", "module"],
            [
                (found.lines, found.functions, found.classes,
                 f"{found.longest_function} ({found.longest_lines})" if found.longest_function else "",
                 str(Path(file).relative_to(run.folder)))
                for file, found in summary.largest(10)
            ],
            title="the ten largest modules", color=self._invocation.color,
        )  # fmt: skip
        for failed in summary.failed:
            name = Path(failed.file)
            reason = failed.reason.removeprefix(f"{name.name}: ")
            say(f"failed: {one_line(name.relative_to(run.folder))}: {one_line(reason)}")
        say(
            f"{len(summary.measured):,} files parsed: {summary.lines:,} lines, {summary.functions:,} functions, "
            f"{summary.classes:,} classes; {len(summary.failed)} files failed"
        )
        if self._finished:
            say(
                f"{self._finished:,} tasks in {working:.1f} s: {self._finished / working:,.0f} tasks/s, the start of "
                f"the worker included; sending them took {sending:.2f} s"
            )
