"""The integration tests of the package headrace_dbt, as its README says to run them."""

import json
from pathlib import Path

from headrace.settings import ROOT
from tests.support.random_project import RandomProject

PROJECT = ROOT / "dbt" / "packages" / "headrace_dbt" / "integration_tests"


def test_package_passes_its_integration_tests(project: RandomProject, tmp_path: Path) -> None:
    for batch in (1, 2):
        succeeded, messages = project.warehouse.run_dbt(
            *("build", "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target", "test"),
            *("--target-path", str(tmp_path / "target"), "--vars", json.dumps({"batch": batch})),
        )
        assert succeeded, messages
    changed = project.warehouse.query(
        "select _headrace_is_new, id from headrace_dbt_tests_log.visits order by _headrace_is_new, id"
    )
    assert changed == [(False, 3), (False, 4), (False, 6), (True, 3), (True, 5), (True, 6)]
