"""The marts against a plain-Python oracle, on a real Postgres."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from headrace.exceptions import BuildError
from tests.support.mart_rows import COLUMNS, START, job
from tests.support.random_batches import RandomBatches
from tests.support.warehouse import ALL_OF_JOBS, MARTS, Warehouse

# the models that read marts.jobs, or what was made of it
DOWNSTREAM = (
    "jobs_per_minute",
    "visitor_revenues",
    "top_users_by_location",
    "latest_jobs_by_location",
    "latest_jobs_by_service",
)


def test_first_build_makes_every_mart_and_the_next_one_does_not_start_dbt(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.clear()
    batches = RandomBatches(3)
    for dataset in [*COLUMNS, *COLUMNS]:
        warehouse.stage(dataset, *batches.batch(dataset))
    warehouse.build()
    warehouse.assert_right()
    monkeypatch.setattr("headrace.marts.dbt.DbtRunner.run_pass", None)  # to start dbt would fail
    result = warehouse.build()
    assert result.passes == ()
    assert result.summary() == "build: nothing new; every model has built every batch"


def test_warm_build_makes_no_debug_messages_and_opens_one_connection_per_thread(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbt.adapters.postgres.connections import PostgresConnectionManager
    from dbt_common.events import event_manager

    levels: list[str] = []
    opened: list[Any] = []
    make: Any = vars(event_manager)["msg_from_base_event"]
    open_connection: Any = vars(PostgresConnectionManager)["open"].__func__

    def note_message(event: Any, level: Any = None) -> Any:
        message = make(event, level=level)
        levels.append(message.info.level)
        return message

    def note_connection(connection: Any) -> Any:
        opened.append(connection)
        return open_connection(PostgresConnectionManager, connection)

    monkeypatch.setattr(event_manager, "msg_from_base_event", note_message)
    monkeypatch.setattr(PostgresConnectionManager, "open", staticmethod(note_connection))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=ALL_OF_JOBS)
    assert "info" in levels and "debug" not in levels
    assert 2 <= len(opened) <= 4  # two builders, the main thread, one that lists relations; not one for each model
    warehouse.assert_right(*DOWNSTREAM)


def test_build_with_something_dropped_makes_it_again(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()))
    for gone in ("table marts.jobs_per_minute", "function marts.top_users"):
        warehouse.execute(f"drop {gone} cascade")
        warehouse.build()
        warehouse.assert_right()
        assert warehouse.query("select * from marts.top_users('A')") == []


def test_rows_of_a_batch_are_found_in_every_partition_from_its_first_to_its_last_offset(warehouse: Warehouse) -> None:
    for partition in range(3):
        warehouse.jobs(*((at, 100 * partition + at, job(minute=at)) for at in (7, 8, 9)), partition=partition)
        warehouse.build()
        warehouse.assert_right()


def test_downstream_built_alone_never_claims_more_than_its_upstream(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.jobs((1, 2, job(minute=5)))
    warehouse.users((1, 1, "C"))
    warehouse.build(select=DOWNSTREAM)
    assert {warehouse.claims()[model, "jobs"] for model in DOWNSTREAM} == {1}
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert {warehouse.claims()[model, "jobs"] for model in DOWNSTREAM} == {2}


def test_upstream_built_from_zero_makes_downstream_start_from_zero(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job(minute=1)), (1, 2, job(minute=2)))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.execute("update staging.jobs set jobcreatedate = jobcreatedate + interval '1 hour'")  # no batch tells
    warehouse.build(select="jobs", full_refresh=True)
    assert warehouse.marts()["jobs_per_minute"] != warehouse.expected()["jobs_per_minute"]
    warehouse.build(select="jobs_per_minute")
    warehouse.assert_right("jobs_per_minute")
    warehouse.build()
    warehouse.assert_right()


def test_dataset_that_was_reset_makes_its_models_start_from_zero(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()), (1, 2, job(minute=2)))
    warehouse.jobs((2, 3, job()))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.execute(
        "truncate staging.jobs; delete from headrace.batches where dataset = 'jobs'; "
        "update headrace.datasets set last_seq = 0, built = gen_random_uuid() where dataset = 'jobs'"
    )
    warehouse.jobs((0, 1, job(minute=7)))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert warehouse.value("select count(*) from marts.jobs") == 1


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("drop column minute cascade", "", "marts.jobs_per_minute.minute: found no column, expected timestamp"),
        ("add column extra text", "drop column extra", "extra: found text, expected no column as the model has it"),
        ("alter column jobs type int", "alter column jobs type bigint", "jobs: found integer, expected bigint"),
        (
            "alter column revenue type numeric(15,2)",
            "alter column revenue type numeric",
            "revenue: found numeric(15,2), expected numeric",
        ),
    ],
    ids=["missing", "surplus", "another type", "rounded"],
)
def test_table_whose_columns_are_not_the_models_is_refused_with_the_remedy(
    change: str, back: str, said: str, warehouse: Warehouse
) -> None:
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((1, 2, job(minute=5)))
    warehouse.execute(f"alter table marts.jobs_per_minute {change}")
    before = warehouse.claims()["jobs_per_minute", "jobs"]
    with pytest.raises(BuildError) as refused:
        warehouse.build(select="jobs jobs_per_minute")
    assert said in str(refused.value)
    remedy = (
        "nothing was changed; alter the table, which keeps grants and views: dbt run --full-refresh --select jobs_per"
    )
    assert remedy in str(refused.value)
    assert warehouse.claims()["jobs_per_minute", "jobs"] == before
    if back:
        warehouse.execute(f"alter table marts.jobs_per_minute {back}")
        warehouse.build(select="jobs jobs_per_minute")
    else:
        warehouse.build(select="jobs_per_minute", full_refresh=True)
    warehouse.assert_right("jobs", "jobs_per_minute")


def test_empty_run_moves_no_claim_and_keeps_the_functions(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=ALL_OF_JOBS)
    before = warehouse.claims()
    warehouse.jobs((1, 2, job()))
    no_tests = ("--exclude-resource-type", "unit_test", "--exclude-resource-type", "test")
    assert warehouse.run_dbt("build", "--empty", "--select", "+top_users", *no_tests) == (True, "")
    assert warehouse.claims() == before
    assert warehouse.query("select userid from marts.top_users('A')") == [(1,)]
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    warehouse.run_dbt("run", "--empty", "--full-refresh", "--select", "jobs", "rides")
    assert not {("jobs", "jobs"), ("rides", "rides")} & set(warehouse.claims())
    assert warehouse.marts()["jobs"] == set()
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()


def test_developers_target_builds_beside_production_with_claims_of_its_own(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((1, 2, job(minute=3)))
    assert warehouse.run_dbt("run", "--target", "dev") == (True, "")
    assert warehouse.marts("marts_dev") == warehouse.expected()
    assert warehouse.claims()["jobs", "jobs"] == 1
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.assert_right("jobs", "jobs_per_minute")


def test_aggregate_writes_the_touched_buckets_and_no_other(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"), (1, 2, "B"))
    warehouse.jobs(*((n, n, job(location=f"L{n % 50}", userid=1 + n % 2, minute=n)) for n in range(100)))
    warehouse.build(select=ALL_OF_JOBS)
    newest = {name: warehouse.value(f"select max(xmin::text::bigint) from marts.{name}") for name in DOWNSTREAM}
    # job 7 moves from minute 7 and L7 to minute 300 and L8, job 11 goes, job 500 comes late
    warehouse.jobs((100, 7, job(location="L8", userid=2, minute=300)), (101, 11, None))
    warehouse.jobs((102, 500, job(location="L20", userid=1, minute=20.5)))
    result = warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    rows = {node.model: node.rows for node in result.passes[0] if node.kind == "model"}
    assert rows["jobs"] == 3
    assert rows["jobs_per_minute"] == 4  # 7 and 11 are emptied, 20 and 300 counted again
    assert rows["visitor_revenues"] == 4  # (L7, 2), (L8, 2), (L11, 2), (L20, 1)

    def written(name: str, columns: str) -> set[tuple[object, ...]]:
        return set(warehouse.query(f"select {columns} from marts.{name} where xmin::text::bigint > %s", newest[name]))

    minutes = {START + timedelta(minutes=20), START + timedelta(minutes=300)}
    assert {minute for (minute,) in written("jobs_per_minute", "minute")} == minutes
    assert written("visitor_revenues", "location, userid") == {("L7", 2), ("L8", 2), ("L11", 2), ("L20", 1)}
    assert {location for (location,) in written("top_users_by_location", "location")} == {"L7", "L8", "L11", "L20"}
    assert {location for (location,) in written("latest_jobs_by_location", "location")} == {
        "L8",
        "L20",
    }  # others only lost


def test_revenues_are_right_after_a_user_moves_to_where_their_job_leaves(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "A"), (1, 2, "A"))
    warehouse.jobs((0, 1, job("A")), (1, 2, job("B")), (2, 3, job("B", userid=2)))
    warehouse.build(select="+visitor_revenues")
    warehouse.jobs((3, 4, job("A")))  # at home: no visitor's
    warehouse.build(select="+visitor_revenues")
    warehouse.assert_right("visitor_revenues")
    # in one build: neither the user's new location nor their jobs of now name B
    warehouse.users((2, 1, "B"))
    warehouse.jobs((4, 2, job("C")))
    warehouse.build(select="+visitor_revenues")
    warehouse.assert_right("visitor_revenues")
    assert {location for location, userid, _ in warehouse.marts()["visitor_revenues"] if userid == 1} == {"A", "C"}


def test_tombstoned_and_replayed_records_leave_the_marts_right(warehouse: Warehouse) -> None:
    warehouse.jobs((5, 1, job(minute=1)), (6, 1, None))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((4, 1, job(minute=9)))  # replayed: it keeps its old place, so the tombstone still wins
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.assert_right("jobs", "jobs_per_minute")
    assert warehouse.value("select count(*) from marts.jobs") == 0


def test_user_who_moves_changes_every_location_with_a_job_of_theirs(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "C"), (1, 2, "C"))
    warehouse.jobs((0, 1, job("A")), (1, 2, job("B")), (2, 3, job("C")), (3, 4, job("A", userid=2)))
    warehouse.build(select="+top_users_by_location")
    warehouse.users((2, 1, "B"))
    warehouse.build(select="+top_users_by_location")
    warehouse.assert_right("visitor_revenues", "top_users_by_location")
    assert {location for location, userid, _ in warehouse.marts()["visitor_revenues"] if userid == 1} == {"A", "C"}
    warehouse.users((3, 1, None))
    warehouse.build(select="+top_users_by_location")
    warehouse.assert_right("visitor_revenues", "top_users_by_location")
    assert {userid for _, _, userid, _ in warehouse.marts()["top_users_by_location"]} == {2}


def test_reloaded_rows_correct_the_buckets_in_which_they_were(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "C"))
    warehouse.jobs((0, 1, job("A", minute=1)), (1, 2, job("A", minute=2)))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.jobs((0, 1, job("B", minute=8)))  # the same offset: the old row moves to staging._replaced_jobs
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    warehouse.jobs((1, 9, job("B", minute=9)))  # job 2 is left without any row
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert warehouse.query("select jobidentifier from marts.jobs order by 1") == [(1,), (9,)]


def test_jobs_without_dates_or_revenue_are_kept_and_in_no_minute(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    exact = job(revenue="71.30000000000001", minute=3)
    warehouse.jobs((0, 9, job(minute=None, revenue=None)), (1, 10, job(minute=None)), (2, 1000000, exact))
    warehouse.build(tests=True)
    warehouse.assert_right()
    warehouse.jobs((3, 1000000, job(minute=None, revenue=None)), (4, 9, exact))  # one loses its minute, one gets it
    warehouse.build(tests=True)
    warehouse.assert_right()
    assert warehouse.query("select jobidentifier, revenue, reported_revenue from marts.jobs order by 1") == [
        (9, Decimal("71.30000000000001"), Decimal("71.30000000000001")),
        (10, Decimal("1.00"), Decimal("1.00")),
        (1000000, 0, None),
    ]
    assert warehouse.query("select jobs, revenue from marts.jobs_per_minute") == [(1, Decimal("71.30000000000001"))]
    assert [row[0] for row in warehouse.query("select jobidentifier from marts.jobs_by_location('A')")] == [
        9,
        10,
        1000000,
    ]


def test_models_pass_their_unit_tests(warehouse: Warehouse) -> None:
    succeeded, messages = warehouse.run_dbt("test", "--select", "test_type:unit")
    assert succeeded, messages


def test_build_forgets_claims_state_and_logs_of_models_that_are_gone_or_no_longer_claim(warehouse: Warehouse) -> None:
    claim = (
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
        "values (%s, %s, 'jobs', 0, '{\"headrace.datasets\": \"before a rename\"}')"
    )
    for schema, model in (("marts", "renamed"), ("marts", "stg_kafka__jobs"), ("marts_dev", "renamed")):
        warehouse.execute(claim, schema, model)
    warehouse.execute(
        "create table marts.renamed (); create table marts_log.renamed (); create table marts_log._turn_renamed (); "
        "insert into headrace.model_states "
        "select 'marts', 'renamed', 'marts.renamed'::regclass, '', '{}', 1, 1, 0, false"
    )
    warehouse.jobs((0, 1, job()))
    lines: list[str] = []
    warehouse.build(select="jobs", print_line=lines.append)
    assert any(line.startswith("build: forgot the claims of renamed, stg_kafka__jobs and dropped") for line in lines)
    gone = "select to_regclass(name)::text from unnest(%s::text[]) as name"
    assert warehouse.query(gone, ["marts_log.renamed", "marts_log._turn_renamed", "marts.renamed"]) == [
        (None,),
        (None,),
        ("marts.renamed",),
    ]
    warehouse.execute("drop table marts.renamed")
    assert not warehouse.query("select from headrace.model_states where identifier = 'renamed'")
    assert {model for model, _ in warehouse.claims()} == set(MARTS)
    assert warehouse.value("select count(*) from headrace.claims where schema = 'marts_dev'") == 1
    warehouse.build()
    assert warehouse.build().passes == ()  # the datasets are no longer stale: no check runs dbt
    warehouse.assert_right()
