"""dbt profiles other than the project's own."""

from dataclasses import dataclass
from pathlib import Path

PRODUCTION = "prod"  # the target of a project's profiles.yml


@dataclass(frozen=True, slots=True)
class Profile:
    """The folder of a profiles.yml, and a target in it."""

    folder: Path
    target: str


def copied_profile(project: Path, folder: Path, target: str, schema: str) -> Profile:
    """Write the project's production target into a folder, under another name and with another schema.

    No model then knows the target as production. Values are copied as they are written: dbt reads the environment.
    """
    import yaml  # comes with dbt

    name = yaml.safe_load((project / "dbt_project.yml").read_text())["profile"]
    output = yaml.safe_load((project / "profiles.yml").read_text())[name]["outputs"][PRODUCTION]
    output |= {"schema": schema, "application_name": target}
    (folder / "profiles.yml").write_text(yaml.safe_dump({name: {"target": target, "outputs": {target: output}}}))
    return Profile(folder, target)
