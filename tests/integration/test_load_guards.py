"""Limits on how a file affects earlier entities: --replace, concurrent loads, corrections, unusual files."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, DatasetError, FileSourceError, HeadraceError
from headrace.ingest.load import LoadOptions, LoadResult, load_file
from headrace.ingest.runner import plan
from headrace.repair.generations import reset
from headrace.verify import verify
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage
from tests.support.users import CURRENT, load, user

TWO = [(1, "LOC_1"), (2, "LOC_2")]
KNOWN = [user(1, "before"), user(2, "before"), user(3, "before")]
BEFORE = [(n, "before") for n in (1, 2, 3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.ndjson"


def names(*numbers: int) -> list[str]:
    return [user(number) for number in numbers]


# small files as others send them
GOOD = {
    "cr-only.csv": b"LOCATION,USERID\rLOC_1,1\rLOC_2,2\r",
    "blank-in-header.csv": b"LOCATION, USERID\nLOC_1,1\nLOC_2,2\n",
    "bom.ndjson": b'\xef\xbb\xbf{"LOCATION": "LOC_1", "USERID": 1}\n{"LOCATION": "LOC_2", "USERID": 2}\n',
    "bom.csv": b"\xef\xbb\xbfLOCATION,USERID,SINCE\r\nLOC_1,1,2020\r\nLOC_2,2,\r\n",
}
BAD = {
    "column-missing.csv": (b"USERID\n1\n2\n", "found columns 'USERID', expected .* missing: LOCATION"),
    "column-missing-cr.csv": (b"USERID\r1\r2\r", "found columns 'USERID', expected .* missing: LOCATION"),
    "lower-case.csv": (b"userid,location\n1,a\n", "expected .* missing: LOCATION, USERID"),
    "empty.csv": (b"", "found an empty file"),
    "empty.ndjson": (b"\n", "found an empty file"),
    "twice.csv": (b"USERID,LOCATION,USERID\n1,a,2\n", "found column 'USERID' twice"),
    "utf-16.csv": ("USERID,LOCATION\n1,a\n".encode("utf-16"), "found UTF-16"),
}


def test_load_of_odd_files_reads_them_or_is_one_error_and_removes_no_entity(stage: Stage, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"LOCATION": ["LOC_1", "LOC_2"], "USERID": [1, None]})  # so that pandas makes floats
    frame.fillna({"USERID": 2.0}).to_parquet(tmp_path / "floats.parquet")
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    ours = stage.deployment
    for name in [*GOOD, "floats.parquet"]:
        load(stage, tmp_path / "known.ndjson", *KNOWN)
        result = load_file(ours, "users", path=tmp_path / name, options=LoadOptions(replace=True, max_removed=34))
        assert (result.result.staged, result.result.dead, result.replaced) == (2, 0, 1), name
        assert stage.query(CURRENT) == TWO
        reset(ours, ours.dataset("users"))
    load(stage, tmp_path / "known.ndjson", *KNOWN)
    for name, (content, message) in BAD.items():
        (tmp_path / name).write_bytes(content)
        for is_replaced in (False, True):
            with pytest.raises(FileSourceError, match=message):
                load_file(stage.deployment, "users", path=tmp_path / name, options=LoadOptions(replace=is_replaced))
    assert stage.query(CURRENT) == BEFORE
    assert stage.value("select count(*) from headrace.generations where is_open and topic = 'known.ndjson'") == 1
    assert_ledger(stage, dataset="users")


def test_load_with_replace_keeps_the_entities_of_invalid_lines(stage: Stage, path: Path) -> None:
    load(stage, path, *KNOWN)
    # two names its user, and breaks the contract elsewhere
    result = load(stage, path, user(1), '{"USERID": 2}', replace=True)
    assert (result.result.staged, result.result.dead, result.replaced) == (1, 1, 1)
    assert stage.query(CURRENT) == [(1, "L"), (2, "before")]
    assert load_file(stage.deployment, "users", path=path, options=LoadOptions(replace=True)).replaced == 0
    # the second does not tell whose it is: it may be anybody's
    result = load(stage, path, user(1, "moved"), '{"LOCATION": "LOC_2", "USERID": "two"}', replace=True, max_removed=0)
    assert (result.result.staged, result.result.dead, result.replaced, result.absent) == (1, 1, 0, 1)
    assert result.summary().endswith(
        "1 no longer in the file: kept (1 invalid lines have no readable key; correct them and --replace again)"
    )
    assert stage.query(CURRENT) == [(1, "moved"), (2, "before")]
    for line in ("no JSON", '{"USERID": 2, "USERID": 1}', '{"LOCATION": "x"}', '{"USERID": null, "LOCATION": "x"}'):
        assert load(stage, path, user(1, line), line, replace=True).replaced == 0
    assert len(stage.query(CURRENT)) == 2
    assert_ledger(stage, dataset="users")


def test_load_with_replace_of_ids_that_a_float_does_not_hold_removes_no_entity(stage: Stage, tmp_path: Path) -> None:
    load(stage, tmp_path / "known.ndjson", *KNOWN)
    pandas.DataFrame({"LOCATION": ["a", "b"], "USERID": [1.0, 2.0**60]}).to_parquet(tmp_path / "users.parquet")
    result = load_file(
        stage.deployment, "users", path=tmp_path / "users.parquet", options=LoadOptions(replace=True, max_removed=100)
    )
    assert (result.result.staged, result.result.dead, result.replaced, result.absent) == (1, 1, 0, 2)
    assert len(stage.query(CURRENT)) == 3


def test_load_with_replace_that_would_remove_much_is_refused_and_loads_nothing(stage: Stage, path: Path) -> None:
    load(stage, path, *names(*range(1, 31)))
    before = stage.query("select generation, topic_id, is_open from headrace.generations")
    with pytest.raises(DatasetError) as refused:
        load(stage, path, *names(*range(1, 27), 99), replace=True, max_removed=10)
    assert str(refused.value) == (
        "users: --replace would remove 4 of 30 (13.3%), expected at most 10%; nothing was loaded; if the file is "
        "right, add --max-removed 14%"
    )
    with pytest.raises(
        DatasetError,
        match=r"found 2 invalid lines, the first: .*, expected at least one valid record .*nothing was loaded",
    ):
        load(stage, path, "x", '{"USERID": 1}', replace=True)
    csv = path.with_suffix(".csv")
    csv.write_text("USERID,LOCATION\n")
    with pytest.raises(DatasetError, match="found no record, expected at least one valid record"):
        load_file(stage.deployment, "users", path=csv, options=LoadOptions(replace=True, max_removed=100))
    assert stage.query("select generation, topic_id, is_open from headrace.generations") == before
    assert len(stage.query(CURRENT)) == 30
    assert load(stage, path, *names(*range(1, 27), 99), replace=True, max_removed=14).replaced == 4
    assert load(stage, path, *names(*range(1, 27)), replace=True, max_removed=10).replaced == 1
    assert stage.value("select note from headrace.batches where tombstones = 1") == "--replace removed 1 of 27"
    assert_ledger(stage, dataset="users")
    assert verify(stage.deployment, "users").is_clean


def test_load_with_replace_while_another_begins_tombstones_no_entity(stage: Stage, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.ndjson", tmp_path / "other.ndjson"
    load(stage, mine, *names(1, 2))
    mine.write_text("\n".join(names(1, 3)))
    other.write_text("\n".join(names(1, 2, 3)))

    def begin_another(_done: int, _total: int) -> None:
        plan(stage.deployment, stage.deployment.dataset("users"), path=other)  # its generation is open, and empty

    with pytest.raises(
        CheckpointMoved,
        match="generation 3 is at 1, this load committed generation 2 up to 3: another load began meanwhile; "
        "the file was merged, nothing was tombstoned; run the same command again",
    ):
        load_file(
            stage.deployment,
            "users",
            path=mine,
            options=LoadOptions(replace=True, max_removed=100, on_progress=begin_another),
        )
    assert [number for number, _ in stage.query(CURRENT)] == [1, 2, 3]
    assert load_file(stage.deployment, "users", path=other).result.staged == 3
    assert_ledger(stage, dataset="users")


def test_loads_at_once_remove_no_entity_of_the_newest(stage: Stage, tmp_path: Path) -> None:
    all_ids = range(1, 301)
    load(stage, tmp_path / "first.ndjson", *names(*all_ids))

    def attempt(path: Path) -> LoadResult | HeadraceError:
        try:
            return load_file(stage.deployment, "users", path=path, options=LoadOptions(replace=True, max_removed=100))
        except HeadraceError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for trial in range(12):
            paths = [tmp_path / f"{trial}-{side}.ndjson" for side in (0, 1)]
            for side, path in enumerate(paths):  # both name everybody but one, who differs
                path.write_text("".join(user(n, path.stem) + "\n" for n in all_ids if n != 1 + side))
            outcomes = list(pool.map(attempt, paths))
            current = {number for number, _ in stage.query(CURRENT)}
            assert current >= set(all_ids) - {1, 2}, (trial, outcomes)
            assert all(isinstance(o, LoadResult | CheckpointMoved) for o in outcomes), outcomes
    assert_ledger(stage, dataset="users")
    assert verify(stage.deployment, "users").is_clean


def test_load_of_the_unchanged_file_does_not_undo_a_correction(stage: Stage, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ours = Deployment.from_settings(replace(stage.deployment.settings, data_dir=data))
    own, correction = data / "users.ndjson", tmp_path / "elsewhere" / "users.ndjson"  # of the same name
    own.write_text("\n".join(KNOWN))
    correction.parent.mkdir()
    correction.write_text(user(2, "corrected"))
    assert load_file(ours, "users").result.staged == 3
    assert load_file(ours, "users", path=correction).result.staged == 1
    corrected = [(1, "before"), (2, "corrected"), (3, "before")]
    for path in (None, own, data / ".." / "data" / "users.ndjson"):  # the hourly run, in any spelling
        again = load_file(ours, "users", path=path)
        assert (again.unchanged, again.result.batches, again.newer) == (True, 0, "users.ndjson")
        assert again.summary() == (
            "users: unchanged, skipped users.ndjson: users.ndjson was loaded since; --again loads it over that"
        )
        assert stage.query(CURRENT) == corrected
    with pytest.raises(DatasetError, match=r"unchanged since it was loaded, and users\.ndjson loaded after it"):
        load_file(ours, "users", options=LoadOptions(replace=True))
    assert load_file(ours, "users", path=correction).unchanged
    # it changes, or a rebuild is asked for
    own.write_text("\n".join([*KNOWN, user(4)]))
    assert load_file(ours, "users").result.staged == 4
    assert stage.query(CURRENT)[1] == (2, "before")
    assert load_file(ours, "users", path=correction).newer == "users.ndjson"
    assert load_file(ours, "users", path=correction, options=LoadOptions(again=True)).result.staged == 1
    assert load_file(ours, "users", options=LoadOptions(again=True)).result.staged == 4
    assert load_file(ours, "users", options=LoadOptions(again=True)).unchanged
    # behind a reset nothing is loaded any more
    reset(ours, ours.dataset("users"))
    assert load_file(ours, "users").result.staged == 4
    assert_ledger(stage, dataset="users")


def test_load_of_a_link_that_leads_elsewhere_again_loads_what_it_leads_to(stage: Stage, tmp_path: Path) -> None:
    ours = Deployment.from_settings(replace(stage.deployment.settings, data_dir=tmp_path))
    for name in ("a", "b"):
        (tmp_path / f"{name}.ndjson").write_text(user(1, name))
    for name in ("a", "b", "a"):
        (tmp_path / "users.ndjson").unlink(missing_ok=True)
        (tmp_path / "users.ndjson").symlink_to(f"{name}.ndjson")
        assert load_file(ours, "users").result.staged == 1
        assert stage.query(CURRENT) == [(1, name)]


def test_upgrade_remembers_what_was_loaded(stage: Stage, tmp_path: Path) -> None:
    own, correction = tmp_path / "users.ndjson", tmp_path / "corrected.ndjson"
    ours = Deployment.from_settings(replace(stage.deployment.settings, data_dir=tmp_path))
    own.write_text("\n".join(KNOWN))
    correction.write_text(user(2, "corrected"))
    load_file(ours, "users")
    load_file(ours, "users", path=correction)
    stage.execute("delete from headrace.loaded_files")
    text = (
        Path(__file__).parents[2] / "plugins/headrace/postgres/sql/migrations/0013_irreversible_commands.sql"
    ).read_text()
    stage.execute(text[text.index("insert into headrace.loaded_files") :])
    assert load_file(ours, "users").newer == "corrected.ndjson"
    assert stage.query(CURRENT)[1] == (2, "corrected")


def test_load_of_a_file_that_is_refused_is_a_problem_of_the_datasets_own_alone(stage: Stage, tmp_path: Path) -> None:
    ours = Deployment.from_settings(replace(stage.deployment.settings, data_dir=tmp_path))
    error = "select error from headrace.observations where dataset = 'users'"
    steps: list[tuple[Callable[[], Any], list[Any]]] = [
        (lambda: load_file(ours, "users", path=tmp_path / "other.ndjson"), []),
        (lambda: load_file(ours, "users"), ["cannot be read"]),
    ]
    for step, expected in steps:
        with pytest.raises(FileSourceError, match="cannot be read: No such file"):
            step()
        assert [part for (text,) in stage.query(error) for part in expected if part in text] == expected
    (tmp_path / "users.ndjson").write_text(json.dumps({"USERID": 1, "LOCATION": "a"}))
    load_file(ours, "users")
    assert stage.value(error) is None
