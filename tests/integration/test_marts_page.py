"""docs/marts.md, "A mart in five minutes", and the README's "Add a mart", followed exactly."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.exceptions import BuildError
from tests.support.mart_rows import job
from tests.support.warehouse import Warehouse, shared_warehouse

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    """What is to be written into each file: the last one that the paragraph before a block names."""
    found = {}
    for match in FENCE.finditer(page):
        before = page[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        names = re.findall(r"`(dbt/models/marts/\w+\.\w+)`", before)
        if match[1] in ("sql", "yaml") and names:
            found[names[-1]] = match[2]
    return found


@pytest.fixture
def checkout(postgres_dsn: str, session_home: Path, tmp_path: Path) -> Warehouse:
    """A database in which everything is built, and a copy of the dbt project."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    return replace(warehouse, settings=replace(warehouse.settings, dbt_dir=tmp_path / "dbt"))


def test_page_followed_exactly_makes_marts_on_marts(checkout: Warehouse) -> None:
    page = (ROOT / "docs" / "marts.md").read_text()
    files, root = files_of(page), checkout.settings.dbt_dir.parent
    selections = re.findall(r"^headrace build --select (.*)$", page, re.MULTILINE)
    made = {name.removeprefix("dbt/models/marts/").removesuffix(".sql") for name in files if name.endswith(".sql")}
    assert made == {name for selection in selections for name in selection.split()}
    for name, text in files.items():
        assert not (root / name).exists()
        (root / name).write_text(text)
    checkout.users((0, 1, "B"), (1, 2, "A"))
    checkout.jobs((0, 1, job()), (1, 2, job(minute=4)), (2, 3, job(userid=2, service="Courier")))
    checkout.build(select="users jobs")
    for selection in selections:
        checkout.build(select=selection, tests=True)
    # a late job, a moved one, a user who is gone
    checkout.users((2, 2, None))
    checkout.jobs((3, 4, job(minute=-90, service="Courier")), (4, 2, job(minute=130, userid=2)))
    checkout.build(select=["users", "jobs", *made], tests=True)
    assert checkout.query("select userid, jobs from marts.busy_users order by 1") == [(1, 2), (2, 2)]
    assert checkout.query("select jobs from marts.jobs_per_hour order by hour") == [(1,), (2,), (1,)]
    assert checkout.query("select * from marts.favourite_services order by 1, 2") == [
        (1, 1, "Courier", 1),
        (1, 2, "Driver", 1),
    ]
    described = (
        "select obj_description('marts.jobs_per_hour'::regclass), col_description('marts.jobs_per_hour'::regclass, 1)"
    )
    assert checkout.query(described) == [("One row per hour (UTC) in which a job was created.", "Its start.")]
    path = root / "dbt/models/marts/favourite_services.sql"
    text = path.read_text().replace("grain='userid'", "grain='servicename'")
    path.write_text(re.sub(r"\n +touched=.*", "", text))
    with pytest.raises(BuildError, match=r"found nothing that says which servicename a row of marts\.users touches"):
        checkout.build(select="favourite_services")
    checkout.execute("drop table marts.busy_users, marts.jobs_per_hour, marts.favourite_services cascade")


def test_new_aggregate_takes_eight_lines_of_sql_and_six_of_yaml() -> None:
    section = (ROOT / "README.md").read_text().split("## Add a mart\n", 1)[1].split("\n## ", 1)[0]
    lengths = {name: len(text.splitlines()) for name, text in files_of(section).items()}
    assert lengths == {
        "dbt/models/marts/payments_per_hour.sql": 7,
        "dbt/models/marts/payments_per_hour.yml": 6,
    }


def test_marts_have_at_most_thirty_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "dbt/models/marts").rglob("*.sql")}
    assert len(lengths) >= 13
    assert {name: length for name, length in lengths.items() if length > 30} == {}
