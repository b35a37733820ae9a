"""The materialization `maintained` under dbt's commands and options, and with upstreams that are not maintained."""

import shutil
from pathlib import Path

import pytest

from tests.support.maintained import Trial
from tests.support.warehouse import shared_warehouse

PLACES = """{{ config(grain='place', unique_key='place') }}
select place, count(*) as visits from {{ ref('visits') }} group by 1"""


@pytest.fixture
def trial(postgres_dsn: str, session_home: Path, tmp_path: Path) -> Trial:
    """Visits by place, not built."""
    return Trial.begin(shared_warehouse(postgres_dsn, session_home), tmp_path, places=PLACES)


def state(trial: Trial) -> list[tuple[object, ...]]:
    """What each model has seen, and the number of its newest build."""
    return trial.query(
        "select schema, identifier, build, upstream, position from headrace.model_states "
        "left join headrace.model_upstreams using (schema, identifier) where schema like 'trial%' order by 1, 2, 4"
    )


@pytest.mark.parametrize("part", [("--empty",), ("--sample", "1 day")], ids=["empty", "sample"])
def test_part_of_the_rows_leaves_no_state(trial: Trial, part: tuple[str, ...]) -> None:
    trial.build(*part)  # where there is no table yet
    assert state(trial) == []
    trial.build()
    trial.assert_equal("visits", "places")
    before = state(trial)
    trial.execute("update raw.visits set place = 'P9' where id < 20")
    trial.build(*part)  # where there is one
    assert state(trial) == before
    trial.build()
    trial.assert_equal("visits", "places")
    trial.build("--full-refresh", *part)
    assert state(trial) == []
    trial.build()
    trial.assert_equal("visits", "places")


def test_developers_target_has_its_own_tables_and_state_and_may_defer_or_clone(trial: Trial) -> None:
    trial.build()
    shutil.copytree(trial.folder / "target", trial.folder / "production")
    production = ("--target", "dev", "--state", str(trial.folder / "production"))
    before = state(trial)
    trial.build("--select", "places", "--defer", *production)
    places = "select place, visits from {}.places order by 1"
    assert trial.query(places.format("trial_dev")) == trial.query(places.format("trial"))
    assert [row for row in state(trial) if row[0] == "trial"] == before
    trial.execute("update raw.visits set place = 'P9' where id < 20")
    trial.build()
    trial.build("--select", "places", "--defer", *production)  # reads production's log
    assert trial.query(places.format("trial_dev")) == trial.query(places.format("trial"))
    trial.execute("drop schema trial_dev cascade")
    assert {result[0] for result in trial.dbt("clone", *production).values()} == {"success"}
    trial.build("--select", "places", "--target", "dev")  # reads a view of production
    trial.execute("update raw.visits set place = 'P8' where id > 150")
    trial.build()
    trial.build("--select", "places", "--target", "dev")
    assert trial.query(places.format("trial_dev")) == trial.query(places.format("trial"))
    trial.build("--target", "dev")
    assert trial.query(places.format("trial_dev")) == trial.query(places.format("trial"))


def test_show_and_retry_work(trial: Trial) -> None:
    trial.write(places=PLACES.replace("count(*)", "count(*) / (select count(*) - 199 from {{ ref('visits') }})"))
    trial.execute("delete from raw.visits where id = 1")
    assert trial.dbt("run")["places"][0] == "error"
    trial.execute("delete from raw.visits where id = 2")
    trial.build("--select", "visits")
    trial.dbt("run")
    shown = trial.dbt("show", "--select", "places")
    assert shown["places"][0] == "success"
    trial.write(places=PLACES.replace("count(*)", "count(*) + nonsense"))
    assert trial.dbt("run")["places"][0] == "error"
    trial.write(places=PLACES)
    assert {name: status for name, (status, _, _) in trial.dbt("retry").items()} == {"places": "success"}
    trial.assert_equal("places")


def test_views_seeds_and_ephemeral_models_may_be_upstreams(trial: Trial) -> None:
    trial.write(
        long="{{ config(materialized='view') }} select id, place from {{ ref('visits') }} where minutes > 10",
        short="{{ config(materialized='ephemeral') }} select id, place from {{ ref('visits') }} where minutes <= 10",
        places=PLACES.replace("visits')", "short')"),
        mixed="select long.place, areas.area, count(*) as visits from {{ ref('long') }} as long "
        "left join {{ ref('areas') }} as areas on long.place = areas.place group by 1, 2",
    )
    (trial.folder / "seeds").mkdir()
    (trial.folder / "seeds" / "areas.csv").write_text("place,area\nP1,north\nP2,south\n")
    trial.dbt("seed")
    trial.build()
    trial.assert_equal("places", "mixed")
    assert trial.build()["mixed"] == 0
    trial.execute("update raw.visits set place = 'P2' where id in (5, 6, 7, 11, 12)")
    trial.build()
    trial.assert_equal("places", "mixed")
    (trial.folder / "seeds" / "areas.csv").write_text("place,area\nP1,north\nP2,west\n")
    trial.dbt("seed")
    assert trial.build()["mixed"] == 1
    trial.assert_equal("places", "mixed")
