"""The click group of all commands, and how a refusal ends the process."""

from typing import TYPE_CHECKING, Any

import click

from headrace import __version__, logs
from headrace.exceptions import HeadraceError
from headrace.output import OutputNotWritten, complain, shown
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.deployment import Deployment


class HeadraceGroup(click.Group):
    """A group whose commands end with one line and status 1 for a HeadraceError."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print a HeadraceError, or that output cannot be written, in one line; exit with status 1."""
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            refuse(error)
            ctx.exit(1)
        except OutputNotWritten as error:
            complain(f"headrace: {error}")
            ctx.exit(1)
        except click.UsageError as error:  # it quotes arguments, which may come from a shell's pattern
            raise click.UsageError(shown(error.format_message()), error.ctx) from error


def refuse(error: HeadraceError) -> None:
    """Print why a command, or its part for one dataset, failed: one line."""
    line = f"headrace: {error}"
    if not logs.refused(line):
        complain(line)


@click.group(cls=HeadraceGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="headrace")
def main() -> None:
    """Load Kafka topics into Postgres staging tables, exactly once, and build dbt marts from them.

    Exit status: 0 done, 1 refused or failed (one line says why), 2 wrong usage. Settings are HEADRACE_*
    environment variables; without them the local services of `headrace up` are used.
    """
    logs.guard()


def read_settings() -> Settings:
    """Read the settings and configure logging."""
    settings = Settings.from_environment()
    logs.configure(settings)
    return settings


def open_deployment() -> "Deployment":
    """The deployment that the settings name; nothing is connected yet."""
    from headrace.deployment import Deployment

    return Deployment.from_settings(read_settings())
