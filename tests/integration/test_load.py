"""Loading the users: unchanged files are skipped, changed ones merged, absent entities kept or tombstoned."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, FileSourceError, SourceChanged
from headrace.ingest.load import LoadOptions, load_file
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.settings import Settings
from headrace.verify import verify
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.stage import Stage
from tests.support.users import CURRENT, load, user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.ndjson"


def test_load_of_all_users_stages_each_once_and_skips_them_the_next_time(stage: Stage) -> None:
    first = load_file(stage.deployment, "users")
    assert (first.result.staged, first.result.dead, first.unchanged, first.absent) == (21_467, 0, False, 0)
    assert first.summary() == "users: 21467 staged and 0 dead from users.ndjson"
    lines = (Settings().data_dir / "users.ndjson").read_bytes().splitlines()
    expected = sorted((row["USERID"], row["LOCATION"]) for row in map(json.loads, lines))
    assert stage.query("select userid, location from staging.users order by 1") == expected
    assert_ledger(stage, [(0, n) for n in range(1, 21_468)], "users")
    again = load_file(stage.deployment, "users")
    assert (again.unchanged, again.result.batches, again.absent) == (True, 0, 0)
    assert again.summary() == "users: unchanged, skipped users.ndjson"
    assert stage.value("select count(*) from headrace.generations") == 1
    assert_nothing_left(stage)


def test_load_of_a_changed_file_merges_it_and_keeps_the_absent(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2), user(3))
    result = load(stage, path, user(2), user(3, "moved"), user(4))
    assert (result.result.staged, result.absent, result.replaced) == (3, 1, 0)
    assert result.summary().endswith("1 no longer in the file: kept (--replace tombstones them)")
    assert stage.query(CURRENT) == [(1, "L"), (2, "L"), (3, "moved"), (4, "L")]
    assert_ledger(stage, dataset="users")


def test_load_with_replace_tombstones_the_absent_once(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2), user(3))
    result = load(stage, path, user(3), user(4), replace=True)
    assert (result.result.staged, result.absent, result.replaced) == (2, 0, 2)
    assert result.summary().endswith("2 no longer in the file: tombstoned")
    assert stage.query(CURRENT) == [(3, "L"), (4, "L")]
    assert_ledger(stage, dataset="users")
    before = stage.value("select count(*) from headrace.batches")
    again = load_file(stage.deployment, "users", path=path, options=LoadOptions(replace=True))
    assert (again.unchanged, again.replaced) == (True, 0)
    assert stage.value("select count(*) from headrace.batches") == before


def test_load_with_replace_writes_a_line_of_its_own_kind_that_is_counted(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2))
    load(stage, path, user(2), user(3), replace=True, max_removed=50)
    lines = "select kind, generation, start_offset, end_offset, tombstones from headrace.batches order by seq"
    assert stage.query(lines) == [("load", 1, 1, 3, 0), ("load", 2, 1, 3, 0), ("replace", 2, 3, 4, 1)]
    assert verify(stage.deployment, "users").is_clean
    assert stage.query("select tombstones from headrace.status where dataset = 'users'") == [(1,)]
    stage.execute("update headrace.batches set kind = 'load' where kind = 'replace'")  # as before migration 0022
    assert verify(stage.deployment, "users").is_clean


def test_load_with_replace_of_a_file_that_was_loaded_without_tombstones_the_absent(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2))
    load(stage, path, user(2))
    assert (
        load_file(stage.deployment, "users", path=path, options=LoadOptions(replace=True, max_removed=50)).replaced == 1
    )
    assert stage.query(CURRENT) == [(2, "L")]
    assert_ledger(stage, dataset="users")


def test_load_of_a_user_who_returns_brings_them_back(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2))
    load(stage, path, user(2), replace=True)
    load(stage, path, user(1, "back"), user(2))
    assert stage.query(CURRENT) == [(1, "back"), (2, "L")]
    assert load_file(stage.deployment, "users", path=path, options=LoadOptions(replace=True)).replaced == 0
    assert_ledger(stage, dataset="users")


def test_load_of_an_earlier_content_is_a_change_too(stage: Stage, path: Path) -> None:
    load(stage, path, user(1, "a"))
    load(stage, path, user(1, "b"))
    assert load(stage, path, user(1, "a")).result.staged == 1
    assert stage.query(CURRENT) == [(1, "a")]
    assert stage.value("select count(*) from headrace.generations where is_open") == 1


def test_load_of_bad_lines_dead_letters_them_with_their_line_numbers(stage: Stage, path: Path) -> None:
    result = load(stage, path, user(1), "not JSON", "", '{"USERID":"2 ","LOCATION":"L"}', '{"USERID":3}', user(4))
    assert (result.result.staged, result.result.dead, result.result.empty) == (2, 3, 1)
    assert stage.query('select "offset", reason, json_path, value from headrace.dead_letters order by 1') == [
        (2, "invalid_json", "$", b"not JSON"),
        (4, "wrong_type", "$.USERID", b'{"USERID":"2 ","LOCATION":"L"}'),
        (5, "missing_field", "$.LOCATION", b'{"USERID":3}'),
    ]
    assert_ledger(stage, [(0, n) for n in (1, 2, 4, 5, 6)], "users")


def test_load_of_a_compressed_copy_is_another_file_with_the_same_users(stage: Stage, path: Path) -> None:
    load(stage, path, user(1), user(2))
    packed = path.with_name("users.ndjson.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert load_file(stage.deployment, "users", path=packed).absent == 0
    assert stage.query(CURRENT) == [(1, "L"), (2, "L")]


@pytest.mark.parametrize("lines", [200, 400, 401, 10_000, 20_000])
def test_load_of_a_file_of_any_length_writes_no_empty_ledger_line(lines: int, stage: Stage, path: Path) -> None:
    load(stage, path, *(user(n) for n in range(lines)))
    assert stage.value("select count(*) from headrace.batches where start_offset = end_offset") == 0
    assert_ledger(stage, [(0, n) for n in range(1, lines + 1)], "users")


def test_load_of_an_empty_file_is_refused_and_keeps_all_entities(stage: Stage, path: Path) -> None:
    load(stage, path, user(1))
    for replace_them in (False, True):
        with pytest.raises(FileSourceError, match="found an empty file, expected one JSON document per line"):
            load(stage, path, replace=replace_them)
    assert stage.query(CURRENT) == [(1, "L")]


def test_load_of_a_file_that_changes_after_it_was_planned_is_refused(stage: Stage, path: Path) -> None:
    dataset = stage.deployment.dataset("users")
    path.write_text(user(1) + "\n")
    planned = plan(stage.deployment, dataset, path=path)
    path.write_text(user(2) + "\n")
    with pytest.raises(SourceChanged, match="the source was replaced"):
        drain_plan(stage.deployment, dataset, planned, path=path)
    assert_ledger(stage, [], "users")
    load_file(stage.deployment, "users", path=path)
    assert stage.query(CURRENT) == [(2, "L")]


def test_load_of_a_file_that_changes_while_it_is_read_is_refused_and_goes_well_the_next_time(
    stage: Stage, path: Path
) -> None:
    dataset = stage.deployment.dataset("users")
    path.write_text("".join(user(n) + "\n" for n in range(25_000)))
    planned = plan(stage.deployment, dataset, path=path)

    def append(step: str) -> None:
        if step == "committed":
            with path.open("a") as file:
                file.write(user(99_999) + "\n")

    with pytest.raises(SourceChanged, match="the file changed while it was read; load it again"):
        drain_plan(stage.deployment, dataset, planned, path=path, options=RunOptions(barrier=append))
    assert 0 < stage.value("select count(*) from staging.users") < 25_000
    load_file(stage.deployment, "users", path=path)
    assert len(stage.query(CURRENT)) == 25_001
    assert_ledger(stage, dataset="users")


def test_load_of_a_link_that_leads_out_of_the_data_is_refused(stage: Stage, tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside.ndjson"
    data.mkdir()
    outside.write_text(user(1) + "\n")
    (data / "users.ndjson").symlink_to(outside)
    deployment = Deployment.from_settings(replace(stage.deployment.settings, data_dir=data))
    with pytest.raises(FileSourceError, match=r"leads to .*outside.ndjson, expected a file below"):
        load_file(deployment, "users")


def test_load_of_a_topic_is_refused(stage: Stage) -> None:
    with pytest.raises(DatasetError, match="use `headrace drain jobs`"):
        load_file(stage.deployment, "jobs")


TABULAR = ["users.csv", "users.csv.gz", "users.parquet"]


@pytest.mark.parametrize("name", TABULAR)
def test_load_of_the_users_as_a_table_gives_the_rows_of_the_lines(name: str, stage: Stage, tmp_path: Path) -> None:
    columns = "select userid, location, _partition, _deleted, _extra, _key from staging.users order by _offset"
    load_file(stage.deployment, "users")
    expected = stage.query(columns)
    stage.execute("truncate staging.users")
    frame = pandas.read_json(Settings().data_dir / "users.ndjson", lines=True, dtype={"USERID": "int64"})
    if name == "users.parquet":
        frame.to_parquet(tmp_path / name, index=False)
    else:
        frame.to_csv(tmp_path / name, index=False)
    seen: list[tuple[int, int]] = []
    result = load_file(
        stage.deployment,
        "users",
        path=tmp_path / name,
        options=LoadOptions(on_progress=lambda done, total: seen.append((done, total))),
    )
    assert (result.result.staged, result.result.dead) == (21_467, 0)
    assert stage.query(columns) == expected
    lines = 21_467 + (name != "users.parquet")
    assert seen[-1] == (lines, lines)
    assert len(seen) > 100
    assert load_file(stage.deployment, "users", path=tmp_path / name).unchanged


def test_load_of_a_csv_dead_letters_its_bad_lines_with_their_numbers_and_bytes(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_bytes(
        b'USERID,LOCATION,AGE\r\n1,"a ""b""\r\nc",30\r\n2,b,31,more\r\n"3,c\r\n\r\nx,d,1\r\n,e,2\r\n12.5,f,\r\n'
        b'5,\xff,\r\n{"USERID":6,"LOCATION":"x"},,,,\r\n7,g,\r\n'
    )
    result = load_file(stage.deployment, "users", path=path)
    assert (result.result.staged, result.result.dead, result.result.empty) == (2, 7, 3)
    assert stage.query("select _offset, userid, location, _extra from staging.users order by 1") == [
        (2, 1, 'a "b"\r\nc', {"AGE": "30"}),
        (12, 7, "g", None),
    ]
    assert stage.query('select "offset", reason, detail, value from headrace.dead_letters order by 1') == [
        (4, "malformed_row", "line 4: 4 fields, expected at most 3", b"2,b,31,more"),
        (5, "malformed_row", "line 5: a quote that is not closed", b'"3,c'),
        (
            7,
            "wrong_type",
            "USERID: found 'x', expected a whole number",
            b'{"USERID":"x","LOCATION":"d","AGE":"1"}',
        ),
        (8, "missing_field", "USERID: missing", b'{"LOCATION":"e","AGE":"2"}'),
        (9, "wrong_type", "USERID: found 12.5, expected a whole number", b'{"USERID":12.5,"LOCATION":"f"}'),
        (10, "invalid_utf8", "byte 24 is 0xff, expected UTF-8", b'{"USERID":5,"LOCATION":"\xff"}'),
        (11, "malformed_row", "line 11: text after a closing quote", b'{"USERID":6,"LOCATION":"x"},,,,'),
    ]
    assert_ledger(stage, [(0, n) for n in (2, 4, 5, 7, 8, 9, 10, 11, 12)], "users")
    verification = verify(stage.deployment, "users")
    assert verification.is_clean, list(verification.lines())


def test_load_of_a_table_of_something_else_is_refused_and_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id;place\n1;a\n")
    with pytest.raises(
        FileSourceError,
        match="found columns 'id;place', expected all that the contract requires: LOCATION, USERID; missing: ",
    ):
        load_file(stage.deployment, "users", path=path)
    assert stage.value("select count(*) from headrace.generations") == 0


def test_verify_deep_of_a_table_says_that_its_rows_were_not_compared(stage: Stage, tmp_path: Path) -> None:
    deployment = Deployment.from_settings(replace(stage.deployment.settings, data_dir=tmp_path))
    declared = deployment.settings.datasets_dir / "users.py"
    declared.write_text(declared.read_text().replace("users.ndjson", "users.csv"))
    (tmp_path / "users.csv").write_text("USERID,LOCATION\n1,a\n")
    assert load_file(deployment, "users").result.staged == 1
    verification = verify(deployment, "users", deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "no second reader for .csv: its records were not compared" in verification.reports[0].notes
