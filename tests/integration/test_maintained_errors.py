"""What the materialization `maintained` refuses, and what it says."""

from pathlib import Path

import psycopg
import pytest

from tests.support.maintained import Trial
from tests.support.warehouse import shared_warehouse

PLACES = """{{ config(grain='place', unique_key='place') }}
select place, count(*) as visits from {{ ref('visits') }} group by 1"""


@pytest.fixture
def trial(postgres_dsn: str, session_home: Path, tmp_path: Path) -> Trial:
    """Visits by place, built."""
    trial = Trial.begin(shared_warehouse(postgres_dsn, session_home), tmp_path, places=PLACES)
    trial.build()
    return trial


def test_upstream_that_nothing_maps_to_the_grain_is_refused_with_what_to_write(trial: Trial) -> None:
    select = """select visits.place, count(*) as visits from {{ ref('visits') }} as visits
    inner join {{ ref('people') }} as people on visits.person = people.id group by 1"""
    trial.write(places="{{ config(grain='place') }} " + select)
    message = trial.error("places")
    assert "trial.places: found nothing that says which place a row of trial.people touches" in message
    assert 'column "place" does not exist' in message
    assert "touched={'people': \"select place from changed inner join" in message
    trial.write(places="{{ config(grain={'place': {'visits': 'place'}}) }} " + select)
    assert "row of trial.people touches (place)" in trial.error("places")
    trial.write(places="{{ config(grain='place', touched={'persons': 'x'}) }} " + select)
    assert "found 'persons' in touched, expected an upstream: visits, people" in trial.error("places")
    touched = "select place from changed inner join \" ~ ref('visits') ~ \" as visits on changed.id = visits.person"
    trial.write(places="{{ config(grain='place', touched={'people': \"" + touched + '"}) }} ' + select)
    assert "found its own name in touched, expected {{ ref('...') }} inside the quotes" in trial.error("places")
    trial.write(places="{{ config(grain='area') }} select place as area from {{ ref('visits') }}")
    assert "a row of trial.visits touches" in trial.error("places")
    trial.write(places="{{ config(grain={'area': 'place'}) }} select place from {{ ref('visits') }}")
    assert "found no column area in its SELECT" in trial.error("places", "--full-refresh")


def test_rows_with_one_unique_key_are_refused_and_named(trial: Trial) -> None:
    trial.execute("insert into raw.visits values (7, 1, 'P1', 1), (8, 1, 'P1', 1)")
    message = trial.error("visits")
    assert "trial.visits: found several rows with one id: (7) (2 rows), (8) (2 rows), expected one" in message
    trial.write(places="{{ config(unique_key='person') }} select person, place from {{ ref('visits') }}")
    trial.execute("delete from raw.visits where id in (7, 8)")
    assert "trial.places" in (message := trial.error("places", "--full-refresh"))
    assert "found several rows with one person: (1) (" in message


def test_changed_columns_are_refused_until_a_full_refresh_alters_the_table(trial: Trial) -> None:
    trial.execute(
        "create schema if not exists reporting; create view reporting.places as select place from trial.places"
    )
    trial.write(places=PLACES.replace("count(*) as visits", "count(*)::text as visits, sum(minutes) as minutes"))
    message = trial.error("places")
    assert "trial.places.visits: found bigint, expected text as the model has it; nothing was changed" in message
    assert "dbt run --full-refresh --select places" in message
    trial.build("--full-refresh", "--select", "places")
    trial.assert_equal("places")
    assert trial.query("select count(*) from reporting.places") == trial.query("select count(*) from trial.places")
    trial.write(places=PLACES.replace("place, count(*)", "1 as place, count(*)").replace(" group by 1", ""))
    message = trial.error("places", "--full-refresh")
    assert "trial.places: found view reporting.places of headrace, expected nothing that needs the columns" in message
    trial.execute("drop schema reporting cascade")


def test_changes_by_hand_are_refused(trial: Trial) -> None:
    for statement in ("delete from trial.places", "update trial.places set visits = 0", "truncate trial.places"):
        with pytest.raises(
            psycopg.errors.RaiseException, match=r"trial\.places: found a change by hand, expected changes only"
        ):
            trial.execute(statement)


def test_error_in_a_select_names_the_file_and_the_line_of_the_compiled_one(trial: Trial) -> None:
    trial.write(places=PLACES + "\nhaving true\nand nonsense")
    message = trial.error("places")
    assert 'column "nonsense" does not exist' in message
    assert "(models/places.sql)" in message
    assert "compiled code at " in message
    line = int(message.partition("LINE ")[2].partition(":")[0])
    compiled = (trial.folder / "target" / "run" / "trial" / "models" / "places.sql").read_text().splitlines()
    assert compiled[line - 1] == "and nonsense"


def test_data_tests_are_constraints_of_the_table(trial: Trial) -> None:
    tests = (
        "models: [{name: visits, columns: [{name: id, data_tests: [not_null, unique]}, "
        "{name: place, data_tests: [%s]}]}]"
    )
    values = "{accepted_values: {arguments: {values: [P0, P1, P2, P3, P4, P5, P6]}}}"
    (trial.folder / "models" / "visits.yml").write_text(tests % f"not_null, {values}")
    trial.build()
    trial.execute("update raw.visits set place = 'P9' where id = 7")
    assert 'violates check constraint "visits_place_accepted_' in trial.error("visits")
    trial.execute("update raw.visits set place = null where id = 7")
    assert 'null value in column "place" of relation "visits" violates not-null constraint' in trial.error("visits")
    for config in ("severity: warn", "error_if: '> 10'"):  # these find rows that may be there
        (trial.folder / "models" / "visits.yml").write_text(tests % f"not_null: {{config: {{{config}}}}}")
        trial.build()
    trial.assert_equal("visits", "places")


def test_audit_finds_a_wrong_grain_and_the_table_is_built_as_a_whole_until_it_is_corrected(trial: Trial) -> None:
    ranked = "select place, person, rank() over (order by minutes) as rank from {{ ref('visits') }}"
    trial.write(places="{{ config(grain=['place', 'person']) }} " + ranked)
    trial.build("--full-refresh")
    trial.execute("update raw.visits set minutes = -1 where id = 150")
    message = trial.error("places")
    assert "trial.places: an audit found place=P" in message
    assert "a row that the SELECT does not give" in message or "no row that the SELECT gives" in message
    assert "correct grain or touched, or remove grain" in message
    trial.build()
    trial.assert_equal("places")
    trial.execute("update raw.visits set minutes = -2 where id = 151")
    trial.build()
    trial.assert_equal("places")
    assert trial.query("select is_distrusted from headrace.model_states where identifier = 'places'") == [(True,)]
    trial.write(places="{{ config(grain='place') }} " + ranked.replace("over (", "over (partition by place "))
    trial.build()
    assert trial.query("select is_distrusted from headrace.model_states where identifier = 'places'") == [(False,)]


def test_audit_of_everything_finds_a_row_that_was_changed_by_hand(trial: Trial) -> None:
    everything = ("--vars", "headrace_audit: all")
    trial.build(*everything)
    trial.warehouse.tamper("update trial.places set visits = 0 where place = 'P1'")
    assert "trial.places: an audit found place=P1: visits is 0, not 2" in trial.error("places", *everything)
    trial.build()
    trial.assert_equal("places")
    trial.build(*everything)
