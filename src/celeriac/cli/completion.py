"""``celeriac completion``: the script that teaches a shell our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from celeriac.cli.output import say


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(celeriac completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc;
    fish: celeriac completion fish > ~/.config/fish/completions/celeriac.fish
    """
    made_for = get_completion_class(shell)
    if made_for is None:
        raise click.UsageError(f"There is no completion for {shell!r}.")
    script = made_for(ctx.find_root().command, {}, "celeriac", "_CELERIAC_COMPLETE")
    # not source(): for bash that starts bash to look at its version, which printing does not need
    say(script.source_template % script.source_vars())
