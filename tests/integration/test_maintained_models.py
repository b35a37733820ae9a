"""The materialization `maintained`: a table equals its SELECT after every build, and only what differs is written."""

from pathlib import Path

import pytest

from tests.support.maintained import VISITS, Trial
from tests.support.warehouse import shared_warehouse

PLACES = """{{ config(grain='place', unique_key='place') }}
select place, count(*) as visits, sum(minutes) as minutes
from {{ ref('visits') }} group by 1"""

GUESTS = """{{ config(
    grain=['place', 'person'],
    touched={'people': "select v.place, changed.id as person from changed
        inner join {{ ref('visits') }} as v on changed.id = v.person"},
) }}
with visits as (select * from {{ ref('visits') }}), people as (select * from {{ ref('people') }})
select visits.place, visits.person, sum(visits.minutes) as minutes, jsonb_agg(visits.id order by visits.id)::json as ids
from visits inner join people on visits.person = people.id
where people.home is distinct from visits.place group by 1, 2"""

RANKS = """{{ config(
    grain='place', unique_key=['place', 'rank'], indexes=[{'columns': ['place', 'person'], 'unique': true}],
) }}
select place, person, rank from (
    select place, person, row_number() over (partition by place order by minutes desc, person) as rank
    from {{ ref('guests') }}
) as ranked where rank <= 3"""

TOTAL = "select count(*) as visits, round(avg(minutes), 3) as average from {{ ref('visits') }}"


@pytest.fixture
def trial(postgres_dsn: str, session_home: Path, tmp_path: Path) -> Trial:
    """Two models on sources and four on these; nothing is built yet."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    return Trial.begin(warehouse, tmp_path, places=PLACES, guests=GUESTS, ranks=RANKS, total=TOTAL)


MODELS = ("visits", "people", "places", "guests", "ranks", "total")

# each changes rows of raw; grains come and go, are null, keys move, ranks swap, digits change
CHANGES = (
    "update raw.visits set place = 'P9' where id = 7",
    "update raw.visits set place = null where id in (7, 8, 9)",
    "update raw.people set home = 'P1' where id in (3, 4); delete from raw.people where id = 6",
    "delete from raw.visits where place is null; insert into raw.visits values (999, null, null, 1.0)",
    "update raw.visits set minutes = 1.00 where id = 999; insert into raw.people values (21, null)",
    "update raw.visits set minutes = 1000 - minutes where place in ('P1', 'P2')",
    "update raw.visits set person = null where id % 50 = 1; update raw.visits set place = 'P0' where id = 999",
    "truncate raw.visits",
    "insert into raw.visits select n, n, 'P' || n % 3, n from generate_series(1, 20) as n",
)


def test_models_equal_their_selects_after_every_change(trial: Trial) -> None:
    assert all(trial.build().values())
    trial.assert_equal(*MODELS)
    assert not any(trial.build().values())
    for change in CHANGES:
        trial.execute(change)
        trial.build()
        trial.assert_equal(*MODELS)


def test_only_rows_that_differ_are_written_and_logged(trial: Trial) -> None:
    trial.build()
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 7")
    assert trial.build() == {"visits": 1, "people": 0, "places": 1, "guests": 1, "ranks": 0, "total": 1}
    logged = "select _headrace_is_new, id, minutes from trial_log.visits order by 1"
    assert trial.query(logged) == [(False, 7, 7), (True, 7, 8)]
    assert trial.query("select count(*) from trial_log.places") == [(0,)]  # no model reads it
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 8")
    trial.build()
    assert {row[1] for row in trial.query(logged)} == {8}  # both readers have seen the change of 7
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 9")
    trial.build("--select", "visits", "places")
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 10")
    trial.build("--select", "visits", "places")
    assert {row[1] for row in trial.query(logged)} == {9, 10}  # guests have not
    assert trial.build()["guests"] == 2
    trial.assert_equal(*MODELS)


@pytest.mark.parametrize(
    "loss",
    [
        "truncate trial_log.visits; update headrace.model_states set floor = build where identifier = 'visits'",
        "drop table trial.visits cascade",
        "drop table trial_log.visits",
        "update headrace.model_states set table_oid = 1 where identifier = 'visits'",
        "delete from headrace.model_states where schema = 'trial' and identifier = 'visits'",
    ],
)
def test_reader_of_a_lost_log_builds_its_whole_table(trial: Trial, loss: str) -> None:
    trial.build()
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 7")
    trial.build("--select", "visits")
    trial.execute(loss)
    trial.build()
    trial.assert_equal(*MODELS)
    trial.execute("update raw.visits set minutes = minutes + 1 where id = 8")
    trial.build()
    trial.assert_equal(*MODELS)


def test_log_beyond_the_cap_is_trimmed_and_an_absent_reader_recovers(trial: Trial) -> None:
    trial.build()
    cap = ("--vars", "log_rows_max: 5")
    for n in range(4):
        trial.execute(f"update raw.visits set minutes = minutes + 1 where id = {n + 1}")
        trial.build("--select", "visits", *cap)
        assert trial.query("select count(*) <= 5 from trial_log.visits") == [(True,)]
    trial.build(*cap)
    trial.assert_equal(*MODELS)


def test_changed_select_is_compared_as_a_whole_and_readers_stay_incremental(trial: Trial) -> None:
    trial.build()
    assert trial.build()["visits"] == 0
    where = "select oid from pg_class where oid = 'trial.visits'::regclass"
    before = trial.query(where)
    trial.write(visits=VISITS + " where id <> 7")
    assert trial.build() == {"visits": 1, "people": 0, "places": 1, "guests": 1, "ranks": 0, "total": 1}
    trial.assert_equal(*MODELS)
    assert trial.query(where) == before


def test_few_touched_grains_are_looked_up_by_the_index_of_the_upstream(trial: Trial) -> None:
    trial.write(
        visits="{{ config(unique_key='id', indexes=[{'columns': ['person']}]) }}"
        " select id, person, place, minutes from {{ source('raw', 'visits') }}",
        places="{{ config(grain='person') }} select person, count(*) as visits from {{ ref('visits') }} group by 1",
    )
    trial.execute("insert into raw.visits select n, n, 'far', 1 from generate_series(1000, 60000) as n")
    trial.build("--select", "visits", "places")
    trial.execute("analyze trial.visits; update raw.visits set minutes = 2, person = 5001 where id = 5000")
    trial.build("--select", "visits")
    trial.execute("select pg_stat_reset()")
    assert trial.build("--select", "places") == {"places": 2}
    read = trial.query("select seq_tup_read from pg_stat_user_tables where relid = 'trial.visits'::regclass")
    assert read == [(0,)]


def test_table_of_another_materialization_is_taken_over_with_its_grants_and_views(trial: Trial) -> None:
    incremental = "{{ config(materialized='incremental', unique_key='place', indexes=[{'columns': ['place']}]) }}"
    trial.write(places=PLACES.replace("{{ config(grain='place', unique_key='place') }}", incremental))
    trial.build("--select", "visits", "people", "places")
    trial.execute(
        "grant select on trial.places to public; create view raw.places as select place, visits from trial.places; "
        "update trial.places set minutes = 0 where place = 'P1'; alter table trial.places add former int"
    )
    rights = "select oid, relacl::text from pg_class where oid = 'trial.places'::regclass"
    before = trial.query(rights)
    trial.write(places=PLACES)
    trial.build()
    trial.assert_equal("places")
    assert trial.query(rights) == before
    assert trial.query("select count(*) from raw.places") == [(7,)]
    indexes = "select indexrelid::regclass::text from pg_index where indrelid = 'trial.places'::regclass"
    assert trial.query(indexes) == [("trial.places_place_key",)]


def test_first_ranks_are_read_in_the_order_of_an_index_that_has_the_grain(trial: Trial) -> None:
    ranked = "row_number() over (partition by place order by minutes desc, id) as rank from {{ ref('visits') }}"
    trial.write(ranks=f"{{{{ config(grain='place') }}}} select * from (select place, {ranked}) as r where rank <= 3")
    scans = "select sum(idx_scan) > 0 from pg_stat_all_indexes where schemaname = 'trial' and indexrelname ~ 'minutes'"
    for has_grain in (False, True):  # without it, each grain would read rows of the others
        columns = ["place"] * has_grain + ["minutes desc", "id"]
        trial.write(
            visits=f"{{{{ config(unique_key='id', indexes=[{{'columns': {columns}}}]) }}}}" + VISITS.partition("}}")[2]
        )
        trial.build("--full-refresh", "--select", "visits", "ranks")
        trial.execute(f"update raw.visits set minutes = {1000 + has_grain} where id = 7")
        trial.build("--select", "visits", "ranks")
        trial.assert_equal("ranks")
        assert trial.query(scans) == [(has_grain,)]
