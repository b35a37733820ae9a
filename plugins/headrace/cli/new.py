"""The command that makes a project folder: new."""

from pathlib import Path

import click

from headrace.cli.group import main
from headrace.output import say


@main.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.option("--upgrade", is_flag=True, help="Replace the dbt package of an existing project by that of this version.")
def new(project: Path, upgrade: bool) -> None:
    """Create a project folder: declarations, dbt models, the file for Airflow's DAGs, a workflow for CI.

    PROJECT must not exist, or be empty. Its example, the dataset orders, passes `headrace check`; replace it by your
    own, which `headrace infer` writes.
    """
    from headrace.new import create
    from headrace.new import upgrade as upgrade_package

    if upgrade:
        changed = upgrade_package(project)
        say(f"{project}: dbt/packages/headrace_dbt {'replaced' if changed else 'is that of this version already'}")
        return
    for path in create(project):
        say(f"wrote {project / path}")
    say(f"next: cd {project}, then `headrace check`; README.md says how Airflow finds it")
