"""The command ``celeriac``: its global options, and sub-commands that are imported only when they are called.

``celeriac --help`` must stay fast, so this file imports click and the invocation, neither the app nor rich.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

import click

import celeriac
from celeriac.cli.failures import Failure, explained
from celeriac.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

#: name → (where its click command lives, its line in ``celeriac --help``)
COMMANDS: dict[str, tuple[str, str]] = {
    "worker": ("celeriac.cli.worker:worker", "Run tasks."),
    "multi": ("celeriac.cli.multi.command:multi", "Start, stop and restart several workers in the background."),
    "call": ("celeriac.cli.call:call", "Send a task by its name and print its id."),
    "result": ("celeriac.cli.result:result", "Wait for the result of a task and print it."),
    "status": ("celeriac.cli.status:status", "Show the workers that answer, and what is in the queues."),
    "inspect": ("celeriac.cli.remote:inspect", "Ask running workers: active, reserved, stats, ping …"),
    "control": ("celeriac.cli.remote:control", "Tell running workers: revoke, shutdown, add_consumer …"),
    "events": ("celeriac.cli.events:events", "Watch workers and tasks, live."),
    "dead": ("celeriac.cli.dead:dead", "Look at dead letters and quarantined messages; replay or discard them."),
    "purge": ("celeriac.cli.purge:purge", "Throw away the messages that wait in queues."),
    "rescue": ("celeriac.cli.rescue:rescue", "Give back messages that Celery's workers left behind (Redis)."),
    "check": ("celeriac.cli.check:check", "Look for mistakes and dangers in the settings."),
    "report": ("celeriac.cli.report:report", "Show versions, platform and settings, for bug reports."),
    "demo": ("celeriac.cli.demo.command:demo", "Watch it work: one task per Python file of a folder."),
    "completion": ("celeriac.cli.completion:completion", "Print the completion script of a shell."),
}

#: option names that belong before the sub-command
_GLOBAL_OPTIONS = {
    "-A", "--app", "-b", "--broker", "--result-backend", "--config", "--workdir", "-C", "--no-color",
    "--loader",
}  # fmt: skip


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        _honour_environment(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with explained():
            try:
                return super().invoke(ctx)
            except click.NoSuchOption as error:
                if isinstance(ctx.obj, Invocation) and isinstance(ctx.obj.found, Failure):
                    raise ctx.obj.found from None  # perhaps an option of the app's
                if error.option_name not in _GLOBAL_OPTIONS:
                    raise
                name = ctx.invoked_subcommand or "COMMAND"
                raise click.UsageError(
                    f"The option {error.option_name} belongs to celeriac itself and stands before the command: "
                    f"celeriac {error.option_name} … {name} …",
                    ctx,
                ) from None


def _honour_environment(command: click.Command, name: str) -> None:
    """Let every option of a command be given as ``CELERIAC_<COMMAND>_<OPTION>``, or with Celery's prefix."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None and option.name:
            suffix = f"{name}_{option.name}".upper().replace("-", "_")
            option.envvar = [f"CELERIAC_{suffix}", f"CELERY_{suffix}"]


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "-A", "--app", "app_target", metavar="MODULE[:NAME]", envvar=["CELERIAC_APP", "CELERY_APP", "APP"],
    help="The app: a module that holds it, or module:name.",
)  # fmt: skip
@click.option(
    "-b", "--broker", metavar="URL",
    envvar=["CELERIAC_BROKER_URL", "CELERIAC_BROKER", "CELERY_BROKER_URL", "CELERY_BROKER", "BROKER_URL"],
    help="The broker, instead of the one in the settings.",
)  # fmt: skip
@click.option(
    "--result-backend", metavar="URL",
    envvar=["CELERIAC_RESULT_BACKEND", "CELERY_RESULT_BACKEND", "RESULT_BACKEND"],
    help="Where results are stored, instead of what the settings say.",
)  # fmt: skip
@click.option(
    "--config", "config_module", metavar="MODULE",
    envvar=["CELERIAC_CONFIG_MODULE", "CELERY_CONFIG_MODULE", "CONFIG_MODULE"],
    help="The module with the settings.",
)  # fmt: skip
@click.option(
    "--loader", metavar="MODULE:CLASS", envvar=["CELERIAC_LOADER", "CELERY_LOADER", "LOADER"],
    help="The class that reads the settings and is told of the worker's moments.",
)  # fmt: skip
@click.option(
    "--workdir", metavar="FOLDER", type=click.Path(exists=True, file_okay=False),
    help="Go there first; modules are found there.",
)  # fmt: skip
@click.option("-C", "--no-color", is_flag=True, envvar="NO_COLOR", help="No colours.")
@click.option("-q", "--quiet", is_flag=True, help="Only what was asked for; no notes, no progress.")
@click.version_option(celeriac.__version__, message="celeriac %(version)s")
@click.pass_context
def main(
    ctx: click.Context, app_target: str | None, broker: str | None, result_backend: str | None,
    config_module: str | None, loader: str | None, workdir: str | None, no_color: bool, quiet: bool,
) -> None:  # fmt: skip
    """Distributed tasks for Python."""
    ctx.obj = Invocation(
        app_target=app_target, broker=broker, config_module=config_module, color=not no_color, quiet=quiet
    )
    ctx.obj.apply(
        broker=broker, result_backend=result_backend, config_module=config_module, loader=loader, workdir=workdir
    )
    if no_color:
        ctx.color = False
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    elif app_target and not ctx.resilient_parsing and ctx.invoked_subcommand != "multi":
        _add_user_options(ctx, ctx.invoked_subcommand)


def _add_user_options(ctx: click.Context, name: str) -> None:
    assert isinstance(ctx.command, click.Group)
    command = ctx.command.get_command(ctx, name)
    invocation: Invocation = ctx.obj
    try:
        app = invocation.app()
    except Failure:
        return  # the command will say so; if it does not need the app, it need not know
    if command is not None and app.user_options:
        from celeriac.cli.user_options import add_user_options

        add_user_options(ctx, command, name, app)


def run(arguments: Sequence[str]) -> None:
    """What ``Celeriac.start`` and ``worker_main`` call: the command line with these arguments. Ends the process."""
    main(args=list(arguments), prog_name="celeriac")
