"""``celeriac result``: wait for the result of a task and print it."""

from __future__ import annotations

import click

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, lines, one_line, say
from celeriac.errors import TimeoutError as ResultTimeout

EX_TASK_FAILED = 1
EX_NO_RESULT = 3


@click.command()
@click.argument("task_id")
@click.option("-t", "--task", "task_name", help="The task's name: its result store is asked.")
@click.option("--traceback", "wants_traceback", is_flag=True, help="Print the traceback of a failed task.")
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds to wait; 0: only look.")
@click.option("--json", "wants_json", is_flag=True, help="Print everything that is stored, as JSON.")
@pass_invocation
def result(
    invocation: Invocation, task_id: str, task_name: str | None, wants_traceback: bool, timeout: float, wants_json: bool
) -> None:
    """Print the result of the task TASK_ID.

    Exit status: 0 the task succeeded, 1 it failed, 3 there is no result yet.
    """
    app = invocation.app()
    if task_name is None:
        handle = app.AsyncResult(task_id)
    elif task_name in app.tasks:
        handle = app.tasks[task_name].AsyncResult(task_id)
    else:
        raise Failure(f"The app has no task {task_name!r}.")
    try:
        value = handle.get(timeout=timeout, propagate=False)
    except ResultTimeout as error:
        raise Failure(
            f"There is no result of {task_id} after {timeout:g} s (state {handle.state}).", EX_NO_RESULT
        ) from error
    state = str(handle.state)
    if wants_json:
        shown = value if state == "SUCCESS" else {"type": type(value).__name__, "message": str(value)}
        say(as_json({"id": task_id, "state": state, "result": shown, "traceback": handle.traceback}))
    elif wants_traceback:
        say(lines(handle.traceback or ""))
    elif state == "SUCCESS":
        say(lines(value))
    if state != "SUCCESS":
        if wants_json or wants_traceback:
            raise click.exceptions.Exit(EX_TASK_FAILED)
        raise Failure(f"{state}: {type(value).__name__}: {one_line(value)}", EX_TASK_FAILED)
