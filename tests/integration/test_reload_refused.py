"""Refused reloads: invalid ranges, changed sources, records that are no longer served."""

import re
from datetime import timedelta

import pytest

from headrace.exceptions import DatasetError, SourceChanged
from headrace.ingest.parallel import drain_dataset
from headrace.repair.reload import reload_range
from headrace.verify import verify
from tests.support import topics
from tests.support.adoption import force_adopt
from tests.support.command_line import assert_refused, run
from tests.support.interrupts import at
from tests.support.jobs import send_jobs, servers, topic_of
from tests.support.reloads import START, reload_lines, reloaded, send_timed, state
from tests.support.stage import Stage


def test_reload_of_what_is_no_longer_served_is_refused_with_what_can_be_had(stage: Stage) -> None:
    send_timed(stage, 60)
    drain_dataset(stage.deployment, "jobs")
    topics.delete_records(servers(stage), topic_of(stage), {0: 5})
    before = state(stage)
    with pytest.raises(DatasetError) as refused:
        reloaded(stage, 3, 9, 0)
    assert str(refused.value) == (
        "jobs[0]: [3, 5) is no longer served, the log starts at 5; nothing was changed; available: "
        "`headrace reload jobs --partition 0 --from 5 --to 9`"
    )
    with pytest.raises(DatasetError, match="nothing of the range is available; what is staged stays"):
        reloaded(stage, 3, 5, 0)
    with pytest.raises(DatasetError) as refused:
        reloaded(stage, START.isoformat(), (START + timedelta(seconds=30)).isoformat())
    assert "jobs[0]: offset 0, of that time, is no longer served, the log starts at 5" in str(refused.value)
    assert state(stage) == before
    commands = re.findall("`headrace reload jobs --partition (.) --from (.*?) --to (.*?)`", str(refused.value))
    assert commands == [("0", "5", "10"), ("1", "0", "10"), ("2", "0", "10")]
    for partition, start, end in commands:
        reloaded(stage, start, end, int(partition))
    # the time of nothing that is gone
    reloaded(stage, (START + timedelta(seconds=15)).isoformat(), (START + timedelta(seconds=30)).isoformat())
    assert reload_lines(stage)[3:] == [(p, 5, 10, 5, 0, 0, 0) for p in range(3)]
    verification = verify(stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())


NO_RANGES = [
    (0, 5, None, "offsets are those of one partition, expected --partition, one of 0, 1, 2; times reload them all"),
    (0, 5, 3, "jobs[3]: no such partition, expected one of 0, 1, 2"),
    ("2026-01-01", "2026-01-02", 3, "jobs[3]: no such partition"),
    (5, 5, 0, "found --from 5 and --to 5, expected --to above --from"),
    ("2026-01-02", "2026-01-01", None, "expected --to above --from"),
    (5, "2026-01-01", 0, "found --from 5 and --to 2026-01-01, expected two offsets or two times"),
    ("-1", 5, 0, "found --from '-1', expected an offset, as 1200, or a time, as 2026-01-31T09:30:00Z"),
    (0, "yesterday", 0, "found --to 'yesterday', expected an offset"),
    (0, 10**30, 0, "found --to '1000"),
    ("0001-01-01T00:00+10", 5, 0, "found --from '0001-01-01T00:00+10', expected an offset"),
]


def test_reload_of_what_is_no_range_is_refused(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    before = state(stage)
    for start, end, partition, message in NO_RANGES:
        with pytest.raises(DatasetError, match=re.escape(message)):
            reloaded(stage, start, end, partition)
    assert state(stage) == before


def test_reload_of_a_source_that_is_not_the_one_that_was_read_is_refused(stage: Stage) -> None:
    with pytest.raises(DatasetError, match="jobs: nothing was ingested yet; `headrace drain jobs` begins"):
        reloaded(stage, 0, 5, 0)
    with pytest.raises(DatasetError, match=r"users: comes from a file, .*: load the file again, `headrace load users"):
        reload_range(stage.deployment, stage.deployment.dataset("users"), "0", "5")
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 3)
    send_jobs(stage, 60)
    before = state(stage)
    with pytest.raises(SourceChanged, match="it was deleted and created again"):
        reloaded(stage, 0, 5, 0)
    assert state(stage) == before


def test_reload_whose_generation_is_closed_meanwhile_changes_nothing(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")

    def adopt_it() -> None:
        force_adopt(stage.deployment, stage.deployment.dataset("jobs"))

    with pytest.raises(SourceChanged, match="generation 1 was closed while it was read again"):
        reloaded(stage, 0, 5, 0, barrier=at("read", adopt_it, occurrence=1))
    assert stage.value("select count(*) from staging._replaced_jobs") == 0
    assert reload_lines(stage) == []


def test_reload_command_says_what_it_did_or_why_not(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    outcome = run(stage, "reload", "jobs", "--from", "2", "--to", "7", "--partition", "1")
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    assert outcome.stdout == "jobs[1]: [2, 7) read again: 5 staged, 0 tombstones, 5 rows replaced\n"
    assert_refused(run(stage, "reload", "jobs", "--from", "2", "--to", "7"), "expected --partition, one of 0, 1, 2")
    assert run(stage, "reload", "jobs", "--from", "2").status == 2
    assert len(reload_lines(stage)) == 1
