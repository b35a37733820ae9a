"""Contracts that change: a new optional field gets a column and is filled; other changes are refused with the SQL."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.repair.fill import FillResult, fill
from headrace.repair.options import RepairOptions
from headrace.repair.reload import reload_range
from headrace.settings import Settings
from tests.support import topics
from tests.support.command_line import assert_refused, run
from tests.support.declarations import LAST_FIELD, add_field, change_contract
from tests.support.interrupts import at, killed_at
from tests.support.jobs import job, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_proven
from tests.support.reloads import state
from tests.support.stage import Stage


def filled(stage: Stage, name: str, dataset: str = "jobs", **options: Any) -> FillResult:
    return fill(stage.deployment, stage.deployment.dataset(dataset), name, options=RepairOptions(**options))


def send(stage: Stage, *extras: tuple[int, str | None]) -> None:
    """Jobs with something behind their fields, as JSON text; None for a tombstone."""
    messages: list[topics.Message] = []
    for n, (partition, extra) in enumerate(extras):
        value = job(n)[:-1] + (f", {extra}" if extra else "").encode() + b"}"
        messages.append((partition, b"%d" % n, None if extra is None else value))
    topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")


def test_fill_moves_values_from_extra_into_their_column_as_batches(stage: Stage) -> None:
    send(
        stage, (0, '"CHANNEL": "web"'), (0, '"CHANNEL": "app", "OTHER": 1'), (0, ""), (0, None), (1, '"CHANNEL": "ü"'),
        (2, '"OTHER": {"CHANNEL": "deep"}'),
    )  # fmt: skip
    before = stage.query("select * from staging.jobs order by _partition, _offset")
    checkpoints = state(stage)[4]
    add_field(stage, "CHANNEL: Text | None = None")
    result = filled(stage, "CHANNEL")
    assert result.summary() == "jobs.channel: 3 rows filled from _extra in 2 batches"
    assert stage.query("select _partition, _offset, channel, _extra from staging.jobs order by 1, 2") == [
        (0, 0, "web", None),
        (0, 1, "app", {"OTHER": 1}),
        (0, 2, None, None),
        (0, 3, None, None),
        (1, 0, "ü", None),
        (2, 0, None, {"OTHER": {"CHANNEL": "deep"}}),
    ]
    assert stage.query(
        "select partition, start_offset, end_offset, staged, dead, tombstones, empty from headrace.batches "
        "where kind = 'fill' order by seq"
    ) == [(0, 0, 2, 2, 0, 0, 0), (1, 0, 1, 1, 0, 0, 0)]
    old = stage.query("select * from staging._replaced_jobs order by _partition, _offset")
    kept = [row[: len(before[0])] for row in before if (row[9], row[10]) in {(0, 0), (0, 1), (1, 0)}]
    assert [row[: len(before[0])] for row in old] == kept
    assert state(stage)[4] == checkpoints
    assert_proven(stage)
    again = filled(stage, "CHANNEL")
    assert again.summary() == "jobs.channel: nothing to fill: no row holds CHANNEL in _extra"
    assert stage.value("select count(*) from headrace.batches where kind = 'fill'") == 2


FIELDS: list[tuple[str, str, list[str], list[str], list[Any]]] = [
    ("PRICE: Money | None = None", "PRICE", ["12.50", "0.1", "3", '"1.5"'], ["1.005", "1e20", "true", "[]"],
     [Decimal("12.50"), Decimal("0.10"), Decimal("3.00"), Decimal("1.50")]),
    ("COUNT: Integer | None = None", "COUNT", ["7", "-9223372036854775808", '"8"', "9.0"],
     ["9223372036854775808", "1.5", '"x"', "{}"], [7, -(2**63), 8, 9]),
    ("SEEN: Timestamp | None = None", "SEEN", ['"2019-03-01 10:00:00"', '"2019-03-01T10:00:00+01:00"'],
     ['"2019-02-30"', "1551434400"], [datetime(2019, 3, 1, 10, tzinfo=UTC), datetime(2019, 3, 1, 9, tzinfo=UTC)]),
    ("DETAILS: dict[str, Any] | None = None", "DETAILS", ['{"a": [1.10, "ü", {}]}'], ['"x"', "[1]"],
     [{"a": [1.1, "ü", {}]}]),
    ("IS_NEW: bool | None = None", "IS_NEW", ["true", "false"], ['"yes"', "1"], [True, False]),
    ("NOTE: Text | None = None", "NOTE", ['"x"', "7"], ['"%s"' % ("x" * 256), "true"], ["x", "7"]),
]  # fmt: skip


def test_fill_judges_every_value_as_if_it_came_with_a_record(stage: Stage) -> None:
    fits = [(n % 3, f'"{name}": {text}') for n, (_, name, good, _, _) in enumerate(FIELDS) for text in good]
    breaks = [(n % 3, f'"{name}": {text}') for n, (_, name, _, bad, _) in enumerate(FIELDS) for text in bad]
    send(stage, *fits, *breaks, (0, '"PRICE": null'))
    change_contract(stage, ("from typing import Annotated", "from typing import Any, Annotated"))
    change_contract(stage, ("import Integer, Numeric", "import Integer, Money, Numeric"))
    for definition, *_ in reversed(FIELDS):
        add_field(stage, definition)
    for _, name, good, bad, expected in FIELDS:
        result = filled(stage, name)
        nulls = name == "PRICE"  # JSON's null fits, and is null
        assert (result.filled, result.left.total()) == (len(good) + nulls, len(bad)), name
        column = name.lower()
        found = [value for (value,) in stage.query(f"select {column} from staging.jobs where {column} is not null")]
        assert sorted(map(str, found)) == sorted(map(str, expected))
        assert stage.value("select count(*) from staging.jobs where _extra ? %s", name) == len(bad)
    # today's contract rejects the records whose values stayed, and stores the others as they are
    assert_proven(stage)


def test_fill_asks_the_fields_own_validators(stage: Stage) -> None:
    send(stage, (0, '"GRADE": "a"'), (0, '"GRADE": "z"'))
    change_contract(
        stage,
        (
            LAST_FIELD,
            f"{LAST_FIELD}    GRADE: Text | None = None\n\n"
            '    @field_validator("GRADE")\n    @classmethod\n    def known(cls, value: str | None) -> str | None:\n'
            '        if value == "z":\n            raise ValueError("no grade")\n        return value\n',
        ),
        ("from pydantic import BaseModel, Field", "from pydantic import BaseModel, Field, field_validator"),
    )
    result = filled(stage, "GRADE")
    assert result.summary() == (
        "jobs.grade: 1 rows filled from _extra in 1 batches; "
        "1 values break the contract and stay in _extra: business_rule 1"
    )
    assert stage.query("select grade, _extra from staging.jobs order by _offset") == [
        ("a", None),
        (None, {"GRADE": "z"}),
    ]


def test_fill_of_a_field_whose_validator_needs_the_others_is_refused(stage: Stage) -> None:
    send(stage, (0, '"GRADE": "a"'))
    change_contract(
        stage,
        (
            LAST_FIELD,
            f"{LAST_FIELD}    GRADE: Text | None = None\n\n"
            '    @field_validator("GRADE")\n    @classmethod\n    def known(cls, value: str, info: Any) -> str:\n'
            '        return value + info.data["LOCATION"]\n',
        ),
        ("from pydantic import BaseModel, Field", "from pydantic import BaseModel, Field, field_validator"),
        ("from typing import Annotated", "from typing import Any, Annotated"),
    )
    with pytest.raises(DatasetError, match="a validator of GRADE failed without the record's other fields: KeyError"):
        filled(stage, "GRADE")
    assert stage.query("select grade, _extra from staging.jobs") == [(None, {"GRADE": "a"})]


def test_fill_in_pages_takes_every_row_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.repair.fill.PAGE_ROWS", 100)
    messages: list[topics.Message] = [(n % 2, b"%d" % n, job(n, SEAT=n)) for n in range(1_001)]
    topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    add_field(stage, "SEAT: Integer | None = None")
    seen: list[tuple[int, int]] = []
    assert filled(stage, "SEAT", on_progress=lambda done, total: seen.append((done, total))).filled == 1_001
    assert seen == [*((100 * n, 1_001) for n in range(1, 11)), (1_001, 1_001)]
    assert stage.query("select count(*), count(distinct seat), count(_extra) from staging.jobs") == [(1_001, 1_001, 0)]
    assert_proven(stage)


@pytest.mark.parametrize("step", ["read", "before_commit"])
def test_fill_killed_changes_nothing_and_the_next_one_does_it(step: str, stage: Stage) -> None:
    send(stage, *((n % 3, f'"SEAT": {n}') for n in range(30)))
    add_field(stage, "SEAT: Integer | None = None")
    initialise(stage.deployment)
    before = state(stage)
    killed_at(step, filled, stage, "SEAT")
    assert_proven(stage)
    assert state(stage) == before
    assert filled(stage, "SEAT").filled == 30
    assert_proven(stage)


def test_fill_whose_rows_are_reloaded_meanwhile_leaves_them_alone(stage: Stage) -> None:
    send(stage, *((0, f'"SEAT": {n}') for n in range(20)))
    add_field(stage, "SEAT: Integer | None = None")

    def reload() -> None:
        reload_range(stage.deployment, stage.deployment.dataset("jobs"), "5", "10", partition=0)

    assert filled(stage, "SEAT", barrier=at("read", reload, occurrence=1)).filled == 15
    assert stage.query("select seat from staging.jobs order by _offset") == [(n,) for n in range(20)]
    assert stage.value("select count(*) from staging._replaced_jobs") == 20
    assert_proven(stage)


def test_fill_of_a_file_and_of_older_generations(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    for generation in (1, 2):
        rows = [{"USERID": n, "LOCATION": "L", "AGE": n + generation} for n in range(3)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        load_file(stage.deployment, "users", path=path)
    declared = stage.deployment.settings.datasets_dir / "users.py"
    declared.write_text(declared.read_text().replace(LAST_FIELD, LAST_FIELD + "    AGE: Integer | None = None\n"))
    assert filled(stage, "AGE", "users").batches == 2
    assert stage.query("select _generation, _offset, age from staging.users order by 1, 2") == [
        (1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 2), (2, 2, 3), (2, 3, 4),
    ]  # fmt: skip
    assert_proven(stage, "users", deep=False)


def test_fill_is_seen_by_marts_without_a_full_refresh(stage: Stage) -> None:
    declared = Settings().datasets_dir
    for name in ("events", "rides", "telemetry"):
        (stage.deployment.settings.datasets_dir / f"{name}.py").write_text((declared / f"{name}.py").read_text())
    initialise(stage.deployment)
    send(stage, *((n % 3, "") for n in range(30)))
    jobs = "select jobidentifier, jobdate from marts.jobs order by 1"
    # as if the contract had not named JOBDATE at first
    stage.execute("create table staged as select jobidentifier, jobdate from staging.jobs order by 1")
    stage.execute(
        "update staging.jobs set _extra = jsonb_build_object('JOBDATE', jobdate), jobdate = null where _offset < 5"
    )
    settings = stage.deployment.settings
    build(settings, select="users jobs", tests=False)
    assert stage.value("select count(*) from marts.jobs where jobdate is null") == 15
    assert filled(stage, "JOBDATE").filled == 15
    build(settings, select="users jobs", tests=False)
    assert stage.query(jobs) == stage.query("select * from staged")
    assert stage.value("select count(jobdate) from marts.jobs") == 30
    assert_proven(stage)


def test_fill_command_says_what_it_did_or_why_not(stage: Stage) -> None:
    send(stage, (0, '"CHANNEL": "web"'))
    add_field(stage, "CHANNEL: Text | None = None")
    outcome = run(stage, "fill", "jobs", "CHANNEL")
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    assert outcome.stdout == "jobs.channel: 1 rows filled from _extra in 1 batches\n"
    assert_refused(
        run(stage, "fill", "jobs", "channel"), "the contract names no field 'channel', expected one of ", "CHANNEL"
    )


CHANGES: list[tuple[str, str, str, tuple[str, ...]]] = [
    (
        LAST_FIELD,
        "    USERID: Text\n",
        "staging.jobs.userid: found bigint, expected text; nothing was changed; restore the field, or write a "
        "migration: {sql}; then rebuild the marts: `headrace build --full-refresh`",
        (
            'alter table staging."jobs" alter column "userid" type text using "userid"::text',
            'alter table staging."_replaced_jobs" alter column "userid" type text using "userid"::text',
        ),
    ),
    (
        "    LOCATION: Text\n",
        "    LOCATION: Timestamp | None = None\n",
        "staging.jobs.location: found text, expected timestamp with time zone; nothing was changed; restore the "
        "field, or write a migration: {sql}; then rebuild the marts: `headrace build --full-refresh`; where a text "
        "does not convert, `headrace reset jobs` deletes what was staged and the next run reads the source from "
        "its start",
        (
            'alter table staging."jobs" alter column "location" type timestamptz using "location"::timestamptz',
            'alter table staging."_replaced_jobs" alter column "location" type timestamptz '
            'using "location"::timestamptz',
        ),
    ),
    (
        LAST_FIELD,
        LAST_FIELD + "    CHANNEL: Text\n",
        "staging.jobs: has no column channel, which the contract requires; nothing was changed; give the field a "
        "default, or write a migration: {sql}",
        (
            'alter table staging."jobs" add column "channel" text',
            'alter table staging."_replaced_jobs" add column "channel" text',
        ),
    ),
    (
        "    SERVICENAME: Text\n",
        "",
        "staging.jobs.servicename: found a column that the contract does not name, expected its field; nothing was "
        "changed; restore the field (it may be optional), or write a migration that keeps what was staged under "
        "another name: {sql}",
        (
            'alter table staging."jobs" rename column "servicename" to "_former_servicename"',
            'alter table staging."_replaced_jobs" rename column "servicename" to "_former_servicename"',
        ),
    ),
]


@pytest.mark.parametrize(("old", "new", "message", "migration"), CHANGES, ids=["type", "time", "required", "removed"])
def test_incompatible_change_is_refused_with_the_migration_that_makes_it_possible(
    old: str, new: str, message: str, migration: tuple[str, ...], stage: Stage
) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"1", job(1, LOCATION="2019-03-01"))])
    drain_dataset(stage.deployment, "jobs")
    change_contract(stage, (old, new))
    send_jobs(stage, 3)
    before = state(stage)
    steps: list[Callable[[], object]] = [
        lambda: drain_dataset(stage.deployment, "jobs"),
        lambda: initialise(stage.deployment),
        lambda: reload_range(stage.deployment, stage.deployment.dataset("jobs"), "0", "1", partition=0),
        lambda: filled(stage, "USERID"),
    ]
    for step in steps:
        with pytest.raises(DatasetError) as refused:
            step()
        assert str(refused.value) == message.format(sql="; ".join(migration))
    assert state(stage) == before
    stage.execute(*migration)
    drain_dataset(stage.deployment, "jobs")
    assert stage.value("select sum(next_offset) from headrace.checkpoints") == 4
    assert_proven(stage, deep=False)
    # what was staged under the old contract still moves
    reload_range(stage.deployment, stage.deployment.dataset("jobs"), "0", "1", partition=0)
    assert_proven(stage, deep=False)


def test_field_of_another_name_is_refused_with_both_migrations(stage: Stage) -> None:
    send_jobs(stage, 3)
    drain_dataset(stage.deployment, "jobs")
    change_contract(stage, ("    SERVICENAME: Text\n", "    SERVICE: Text\n"))
    with pytest.raises(DatasetError) as refused:
        drain_dataset(stage.deployment, "jobs")
    assert str(refused.value).endswith(
        ', or, as the field of another name, alter table staging."jobs" rename column "servicename" to "service"; '
        'alter table staging."_replaced_jobs" rename column "servicename" to "service"'
    )


def test_migration_of_one_table_alone_is_refused_for_the_other(stage: Stage) -> None:
    send_jobs(stage, 3)
    drain_dataset(stage.deployment, "jobs")
    change_contract(stage, (LAST_FIELD, "    USERID: Text\n"))
    stage.execute("alter table staging.jobs alter column userid type text using userid::text")
    with pytest.raises(DatasetError, match=r"staging\._replaced_jobs\.userid: found bigint, expected text"):
        drain_dataset(stage.deployment, "jobs")
