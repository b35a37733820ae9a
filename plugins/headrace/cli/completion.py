"""The command that prints a shell's completion script: completion."""

import click

from headrace.cli.group import main

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_HEADRACE_COMPLETE"  # click's name for it: the script calls `headrace` with it


@main.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(headrace completion bash)".

    It completes commands, options, and the names of datasets, reasons, models and Kafka's tools. Put the line into
    ~/.bashrc or ~/.zshrc; for fish: headrace completion fish > ~/.config/fish/completions/headrace.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "headrace", VARIABLE).source(), nl=False)  # for a shell, so not escaped
