"""A project folder, as DAGs and tasks see it: its declarations, and the settings that the environment does not give."""

import os
from dataclasses import dataclass
from pathlib import Path

from headrace.catalog import Declarations, load_declarations
from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class AirflowProject:
    """datasets: the folder of the declarations. None: the environment's, or its default.

    dbt/ and data-files/ are beside the folder of the declarations. What builds write is below AIRFLOW_HOME, because
    deployments often mount their DAGs read-only. HEADRACE_* variables override all of it.
    """

    datasets: Path | None = None

    def settings(self) -> Settings:
        """The settings of a task; raises SettingError."""
        if self.datasets is None:
            return Settings.from_environment()
        airflow_home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
        defaults = {
            "HEADRACE_PROJECT": str(self.datasets.parent),
            "HEADRACE_DATASETS_DIR": str(self.datasets),
            "HEADRACE_HOME": str(airflow_home / "headrace"),
        }
        return Settings.from_environment(defaults | {name: value for name, value in os.environ.items() if value})

    def declarations(self) -> Declarations:
        """Every declaration, usable or not; contracts that have not changed are compiled by what decodes with them."""
        settings = self.settings()
        return load_declarations(settings.datasets_dir, settings.home)


def project_of(datasets: Path | str | None) -> AirflowProject:
    """The project of a folder of declarations."""
    return AirflowProject(None if datasets is None else Path(datasets).expanduser().resolve())
