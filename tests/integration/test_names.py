"""Names that are SQL keywords, and datasets named like objects of another dataset."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.deployment import Deployment
from headrace.exceptions import BuildError, DatasetError
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.postgres.staging import replaced_name
from headrace.repair.fill import fill
from headrace.repair.generations import reset
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.jobs import servers
from tests.support.stage import Stage

# the dataset's name, its key and its other columns are reserved in SQL, or a function without parentheses
DECLARATION = """
from typing import Annotated

from pydantic import BaseModel, Field

from headrace.contract import Integer, Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Order(BaseModel):
    model_config = CONTRACT_CONFIG

    user: Integer
    Select: Annotated[Integer, Field(le=9)]
    table: Text
    PRIMARY: Text | None = None
    current_date: Text | None = None


DATASET = Dataset(name="order", contract=Order, source=KafkaTopic(topic="{topic}"), key="user", keyed=False)
"""
COLUMNS = ["user", "select", "table", "primary", "current_date"]
MODEL = """
{{
    config(
        alias='order',
        unique_key='user',
        meta={'emptied': '"table" is null'},
        pre_hook="{{ claim('order') }}",
        indexes=[{'columns': ['"user"'], 'unique': true}],
    )
}}

with

versions as (
    {{ staged_versions('order', ['user', 'SELECT', 'table', 'primary as "primary"', 'current_date as current_date']) }}
),

current_versions as (
    {{ current_version('versions', 'order', key='user') }}
)

select "user", "select", "table", "primary", "current_date" from current_versions
{{ without_emptied() }}
"""
PROPERTIES = """
sources:
  - name: staging
    tables:
      - name: order
        config: {meta: {key: user}}
"""

FILE_DECLARATION = """
from pydantic import BaseModel

from headrace.contract import Integer
from headrace.dataset import CONTRACT_CONFIG, Dataset, File


class Row(BaseModel):
    model_config = CONTRACT_CONFIG

    ID: Integer


DATASET = Dataset(name="{name}", contract=Row, source=File(path="rows.ndjson"), key="ID")
"""


def project(tmp_path: Path, model: str = MODEL) -> Path:
    """A dbt project of ours with this one model."""
    dbt = tmp_path / "dbt"
    shutil.copytree(Settings().dbt_dir, dbt, ignore=shutil.ignore_patterns("target", "logs", "models", "tests"))
    shutil.rmtree(dbt / "functions")
    for folder in ("models/marts", "functions", "tests"):
        (dbt / folder).mkdir(parents=True)
    (dbt / "models/marts/orders.sql").write_text(model)
    (dbt / "models/marts/orders.yml").write_text(PROPERTIES)
    return dbt


def order(user: int, select: int, **others: Any) -> tuple[int, None, bytes]:
    return 0, None, json.dumps({"user": user, "Select": select, "table": f"t{user}", **others}).encode()


def test_dataset_whose_names_are_words_of_sql_is_served_everywhere(stage: Stage, topic: str, tmp_path: Path) -> None:
    settings = replace(stage.deployment.settings, dbt_dir=project(tmp_path))
    declared = settings.datasets_dir / "order.py"
    declared.write_text(DECLARATION.replace("{topic}", topic))
    (settings.datasets_dir / "jobs.py").unlink()
    ours = Deployment.from_settings(settings)
    initialise(ours)
    topics.send(servers(stage), topic, [order(1, 1), order(2, 10), order(3, 3, OFFSET="x"), order(1, 4, PRIMARY="p")])
    drain_dataset(ours, "order")

    def mart() -> list[tuple[Any, ...]]:
        build(settings, tests=False)
        assert verify(ours, "order", deep=True).is_clean
        return stage.query('select "user", "select", "table", "primary", "current_date" from marts."order" order by 1')

    assert mart() == [(1, 4, "t1", "p", None), (3, 3, "t3", None, None)]
    # from here on incremental: a dead letter that passes now, rows of a reload, a field that the contract names now
    text = declared.read_text().replace("le=9", "le=99")
    declared.write_text(text.replace("    PRIMARY", "    OFFSET: Text | None = None\n    PRIMARY"))
    assert replay(ours, ours.dataset("order")).staged == 1
    assert fill(ours, ours.dataset("order"), "OFFSET").filled == 1
    topics.send(servers(stage), topic, [order(1, 5, current_date="d")])
    drain_dataset(ours, "order")
    assert mart() == [(1, 5, "t1", None, "d"), (2, 10, "t2", None, None), (3, 3, "t3", None, None)]
    assert stage.query('select "user", "offset" from staging."order" where "offset" is not null') == [(3, "x")]
    assert reload_range(ours, ours.dataset("order"), "0", "5", partition=0).partitions[0].replaced == 5
    assert len(mart()) == 3
    assert stage.value('select count(*) from staging."_replaced_order"') == 6
    # advice that is printed can be run as it is
    declared.write_text(
        declared.read_text().replace("    user: Integer", "    user: Text").replace('key="user"', "key=None")
    )
    with pytest.raises(DatasetError, match=r'alter table staging\."order" alter column "user" type text') as refused:
        initialise(ours)
    stage.execute(str(refused.value).partition("write a migration: ")[2].partition("; then rebuild")[0])
    initialise(ours)
    assert stage.query('select distinct "user" from staging."order" order by 1') == [("1",), ("2",), ("3",)]
    assert reset(ours, ours.dataset("order"))["staged"] == 5


@contextmanager
def declared_files(stage: Stage, tmp_path: Path, *names: str) -> Iterator[Deployment]:
    for path in stage.deployment.settings.datasets_dir.glob("*.py"):
        path.unlink()
    for name in names:
        (stage.deployment.settings.datasets_dir / f"{name}.py").write_text(FILE_DECLARATION.replace("{name}", name))
    (tmp_path / "rows.ndjson").write_text('{"ID": 1}\n{"ID": 2}\n')
    yield Deployment.from_settings(replace(stage.deployment.settings, data_dir=tmp_path))


LONGEST = "x" * 41


def test_datasets_named_like_what_is_made_for_another_one_keep_their_rows(stage: Stage, tmp_path: Path) -> None:
    # tables, indexes and constraints as they are called now, were called before, and as Postgres would call them
    names = ["x", "x_replaced", "x_pkey", "x_id_idx", "x_replaced_id_idx", "replaced_x", "pkey_x", "claimed_x", LONGEST]
    with declared_files(stage, tmp_path, *names) as ours:
        for _ in range(2):
            initialise(ours)
            for name in names:
                load_file(ours, name)
                assert stage.query(f'select id from staging."{name}" order by 1') == [(1,), (2,)], name
        verification = verify(ours)
        assert [report.dataset for report in verification.reports if report.findings] == []
        reset(ours, ours.dataset("x"))
        assert stage.value("select count(*) from staging.x_replaced") == 2
    tables = stage.query("select relname from pg_class where relnamespace = 'staging'::regnamespace and relkind = 'r'")
    assert {name for (name,) in tables} >= {replaced_name(LONGEST), "_replaced_x_replaced"}
    # all that is made for a dataset has a name that none can have
    made = stage.query(
        "select relname from pg_class where relnamespace = 'staging'::regnamespace and relname not in "
        "(select dataset from headrace.datasets)"
    )
    assert {name[0] for (name,) in made} == {"_"}


def test_upgrade_renames_the_tables_of_replaced_rows_and_keeps_them(stage: Stage, tmp_path: Path) -> None:
    with declared_files(stage, tmp_path, "x", "y", "y_replaced") as ours:
        initialise(ours)
        for name in ("x", "y", "y_replaced"):
            load_file(ours, name)
        # as it was before: x has replaced rows; y_replaced's own table took the place of y's
        stage.execute(
            "delete from headrace.migrations where name = '0012_derived_names'",
            "drop table staging._replaced_y",
            "alter table staging._replaced_x rename to x_replaced",
            "alter index staging._pkey_x rename to x_pkey",
            "alter index staging._key_x rename to x_id_idx",
            "alter index staging._rkey_x rename to x_replaced_id_idx",
            "alter index staging._rby_x rename to x_replaced__replaced_by_idx",
            "alter index staging._rbatch_x rename to x_replaced__batch_id_idx",
            "insert into staging.x_replaced (id, _generation, _partition, _offset, _batch_id, _replaced_by) "
            "select id, _generation, _partition, _offset, _batch_id, _batch_id from staging.x",
            "create view public.history as select id from staging.x_replaced",
            "create index x_partition on staging.x (_partition)",  # another user's
        )
        with pytest.raises(DatasetError, match=r"staging\._replaced_x: found no table, .* run `headrace init`"):
            load_file(ours, "x")
        assert initialise(ours) == ["0012_derived_names"]
        assert stage.query("select id from staging._replaced_x order by 1") == [(1,), (2,)]
        assert stage.query("select id from public.history order by 1") == [(1,), (2,)]
        assert stage.query("select id from staging.y_replaced order by 1") == [(1,), (2,)]
        indexes = "select indexname from pg_indexes where schemaname = 'staging' and tablename ~ '^(_replaced_)?x$'"
        expected = ["_key_x", "_pkey_x", "_rbatch_x", "_rby_x", "_rkey_x", "x_partition"]
        assert sorted(name for (name,) in stage.query(indexes)) == expected
        for name in ("x", "y", "y_replaced"):
            assert load_file(ours, name).unchanged
        assert stage.value("select count(*) from staging._replaced_y") == 0


def test_model_under_a_name_that_dbt_drops_is_refused(stage: Stage, topic: str, tmp_path: Path) -> None:
    dbt = project(tmp_path)
    (dbt / "models/marts/orders__dbt_backup.sql").write_text(MODEL.replace("alias='order',", ""))
    settings = replace(stage.deployment.settings, dbt_dir=dbt)
    (settings.datasets_dir / "order.py").write_text(DECLARATION.replace("{topic}", topic))
    initialise(Deployment.from_settings(settings))
    with pytest.raises(BuildError, match="orders__dbt_backup: found __dbt_ in the name of a model, expected a name"):
        build(settings, tests=False)
