"""A dataset of change events and the mart of its current rows, in a dbt project of its own."""

from pathlib import Path

from headrace.settings import Settings
from tests.support.random_models import Model
from tests.support.random_project import SCHEMA, RandomProject
from tests.support.warehouse import Warehouse

SOURCE = """\
      - name: customers
        config: {meta: {key: id, versions: position}}
"""


def project_of(folder: Path, settings: Settings, dsn: str, columns: str) -> RandomProject:
    """The project, written: the model `customers` has these columns of the dataset's current rows."""
    sql = f"select {columns} from {{{{ current('customers') }}}}"
    model = Model("customers", sql, {"id": "bigint"}, key=("id",), unique=True)
    project = RandomProject(folder, Warehouse(settings, dsn), (model,), sources=SOURCE)
    project.write()
    return project


def mart(project: RandomProject, columns: str) -> list[tuple[object, ...]]:
    """The rows of the mart."""
    return project.warehouse.query(f"select {columns} from {SCHEMA}.customers order by id")
