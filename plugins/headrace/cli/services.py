"""Commands for the services: up, down, env, init, psql, kafka."""

import os

import click

from headrace.cli.group import main, open_deployment, read_settings
from headrace.optional import needs
from headrace.output import complain, say


@main.command()
@click.option(
    "--only",
    multiple=True,
    help="Start only this service: postgres, kafka, redis or airflow; may be repeated. registry starts only so.",
)
def up(only: tuple[str, ...]) -> None:
    """Start the local services that the settings do not give; running ones are left alone."""
    from headrace.deployment import Deployment
    from headrace.exceptions import DatasetsRejected
    from headrace.ingest.prepare import initialise

    with needs("local"):
        from headrace.local import services

    settings = read_settings()
    wanted = only or services.SERVICES
    rejected: DatasetsRejected | None = None
    if "postgres" in wanted:
        services.up(settings, only=("postgres",), print_line=say)
        try:  # before Airflow's first scheduled run asks for it
            initialise(Deployment.from_settings(read_settings()), print_line=complain)
        except DatasetsRejected as error:
            rejected = error
    services.up(read_settings(), only=wanted, print_line=say)
    say("`headrace env` prints the addresses")
    if rejected is not None:
        raise rejected


@main.command()
def down() -> None:
    """Stop the local services, and nothing else."""
    with needs("local"):
        from headrace.local import services

    services.down(read_settings(), print_line=say)


@main.command()
def env() -> None:
    """Print `export NAME='value'` lines for a shell: eval "$(headrace env)"."""
    with needs("local"):
        from headrace.local import services

    for name, value in services.environment(read_settings()).items():
        click.echo(f"export {name}={_quoted(value)}")  # for a shell, so not escaped for a terminal


@main.command()
def init() -> None:
    """Create or migrate the tables of headrace.* and staging.*, and the roles that may use them."""
    from headrace.ingest.prepare import initialise

    applied = initialise(open_deployment(), print_line=complain)
    say(f"applied {', '.join(applied)}" if applied else "nothing to do")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; arguments go to psql."""
    with needs("local"):
        from headrace.local import services

    command = services.psql_command(read_settings())
    os.execv(command[0], [*command, *arguments])


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("tool")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kafka(tool: str, arguments: tuple[str, ...]) -> None:
    """Run one of Kafka's own tools: console-producer, console-consumer, topics, get-offsets, ...

    The broker's address is filled in.
    """
    with needs("local"):
        from headrace.local.home import locked
        from headrace.local.jars import tool_command

    settings = read_settings()
    servers = settings.require_kafka_bootstrap_servers()
    with locked(settings.home, complain) as home:
        command = tool_command(home, tool, complain)
    given = () if "--bootstrap-server" in arguments else ("--bootstrap-server", servers)
    os.execv(command[0], [*command, *given, *arguments])


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
