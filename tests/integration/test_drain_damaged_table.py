"""Drains into a table that an administrator changed: they fail in one line, and continue after the repair."""

from collections.abc import Callable

import pytest

from headrace.exceptions import DatabaseError, DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import drain_plan, plan
from tests.support import topics
from tests.support.jobs import jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.stage import Stage

Damage = Callable[[Stage], list[str]]  # breaks the table; returns the statements that repair it


def _dropped_column(stage: Stage) -> list[str]:
    stage.execute("alter table staging.jobs drop column revenue")
    return ["alter table staging.jobs add column revenue numeric"]


def _dropped_bookkeeping_column(stage: Stage) -> list[str]:
    stage.execute("alter table staging.jobs drop column _headers")
    return ["alter table staging.jobs add column _headers jsonb"]


def _retyped_column(stage: Stage) -> list[str]:
    stage.execute("alter table staging.jobs alter column userid type text")
    return ["alter table staging.jobs alter column userid type bigint using userid::bigint"]


def _dropped_table(stage: Stage) -> list[str]:
    stage.execute("alter table staging.jobs rename to elsewhere")
    return ["alter table staging.elsewhere rename to jobs"]


def _dead_letters_read_only(stage: Stage) -> list[str]:
    stage.execute(
        "create function refuse() returns trigger language plpgsql as $$begin raise exception 'refused'; end$$",
        "create trigger refuse before insert on headrace.dead_letters for each row execute function refuse()",
    )
    return ["drop trigger refuse on headrace.dead_letters"]


def _extra_constraint(stage: Stage) -> list[str]:
    stage.execute("alter table staging.jobs add check (_offset < 3)")
    return ["alter table staging.jobs drop constraint jobs__offset_check"]


@pytest.mark.parametrize(
    "damage",
    [
        _dropped_column, _dropped_bookkeeping_column, _retyped_column, _dropped_table, _dead_letters_read_only,
        _extra_constraint,
    ],
)  # fmt: skip
def test_drain_into_a_damaged_table_fails_loudly_changes_nothing_and_goes_on_after_the_repair(
    damage: Damage, stage: Stage
) -> None:
    dataset = stage.deployment.dataset("jobs")
    sent = topics.send(servers(stage), topic_of(stage), [*jobs(12), (0, b"bad", b"bad")])
    planned = plan(stage.deployment, dataset)
    repairs = damage(stage)
    with pytest.raises((DatabaseError, DatasetError)) as caught:
        drain_plan(stage.deployment, dataset, planned)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("postgres: ", "staging.jobs"))
    assert stage.value("select count(*) from headrace.dead_letters") == 0
    assert_nothing_left(stage)
    stage.execute(*repairs)
    assert_ledger(stage)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drain_after_a_contract_column_was_dropped_names_the_migration(stage: Stage) -> None:
    stage.execute("alter table staging.jobs drop column location")
    with pytest.raises(DatasetError, match=r'alter table staging."jobs" add column "location" text'):
        drain_dataset(stage.deployment, "jobs")
