"""Project folders: what `headrace new` makes, refuses and replaces."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.catalog import load_declarations
from headrace.cli import main
from headrace.exceptions import UsageError
from headrace.new import create, package_differs, upgrade

PACKAGE = Path("dbt", "packages", "headrace_dbt")


def test_new_project_has_a_dataset_models_dags_and_ci(tmp_path: Path) -> None:
    project = tmp_path / "deep" / "sales"
    made = {str(path) for path in create(project)}
    assert made == {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert {
        "datasets/orders.py", "dags/headrace.py", ".env.example", ".gitignore", ".airflowignore",
        ".github/workflows/check.yml", "dbt/dbt_project.yml", "dbt/profiles.yml", "dbt/macros/session.sql",
        "dbt/models/marts/orders.sql", "dbt/packages/headrace_dbt/macros/maintained/materialization.sql",
    } <= made  # fmt: skip
    assert not any(path.is_symlink() for path in project.rglob("*"))
    declared = load_declarations(project / "datasets")
    assert (list(declared.datasets), declared.faults) == (["orders"], {})
    code = [line for line in (project / "dags/headrace.py").read_text().splitlines() if line and line[0] not in '#"']
    assert len(code) == 3


def test_new_refuses_a_folder_with_contents_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(main, ["new", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{tmp_path}: found a folder or file with contents, expected none" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_upgrade_replaces_the_dbt_package_and_nothing_else(tmp_path: Path) -> None:
    project = tmp_path / "sales"
    create(project)
    assert not package_differs(project / "dbt")
    assert not upgrade(project)
    (project / PACKAGE / "macros" / "current.sql").write_text("{# of another version #}")
    (project / PACKAGE / "macros" / "removed.sql").write_text("{# since then #}")
    (project / "dbt" / "models" / "marts" / "orders.sql").write_text("select 1 as mine")
    assert package_differs(project / "dbt")
    assert upgrade(project)
    assert not package_differs(project / "dbt")
    assert not (project / PACKAGE / "macros" / "removed.sql").exists()
    assert (project / "dbt" / "models" / "marts" / "orders.sql").read_text() == "select 1 as mine"


def test_upgrade_refuses_what_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found no dbt/dbt_project.yml, expected a project made by `headrace new"):
        upgrade(tmp_path)
