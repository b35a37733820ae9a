"""Sample data: repeatable, and as bad as it says."""

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from headrace.contract import Rejection
from headrace.dataset import load_dataset
from headrace.exceptions import FileSourceError
from headrace.sample import generate
from headrace.sample.generate import DATASETS, generate_jobs, generate_records, now
from headrace.settings import Settings
from tests.support import jobs_oracle

DATA_DIR = Settings().data_dir
USERS = DATA_DIR / "users.ndjson"


@cache
def generated(records: int, seed: int = 1, bad_percent: float = 0) -> tuple[bytes, ...]:
    return tuple(generate_jobs(records, seed, bad_percent, USERS))


def documents(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line.partition(b"|")[2]) for line in lines]


def decoded(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [jobs_oracle.decode_job(str(job["JOBIDENTIFIER"]), json.dumps(job)) for job in documents(lines)]


def test_generate_with_the_same_seed_gives_the_same_bytes() -> None:
    digest = hashlib.sha256(b"".join(generated(3_000, seed=7, bad_percent=5))).hexdigest()
    assert digest == "d2ddd706a53218a135080042bb318f85844e2f35ca1dd2490302bd63848c6d04"


def test_generate_with_another_seed_gives_other_bytes() -> None:
    assert generated(100, seed=1) != generated(100, seed=2)


@pytest.mark.parametrize("records", [0, 1, 2, 1_000])
def test_generate_gives_as_many_lines_as_asked_for(records: int) -> None:
    lines = generated(records)
    assert len(lines) == records
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(
    ("records", "bad_percent", "least", "most"), [(2_000, 0, 0, 0), (5_000, 5, 200, 300), (2_000, 100, 2_000, 2_000)]
)
def test_records_are_valid_or_rejected_as_their_producer_says(
    dataset: str, records: int, bad_percent: float, least: int, most: int
) -> None:
    contract = load_dataset(Settings().datasets_dir, dataset).compiled
    bad = 0
    for record in generate_records(dataset, records, 1, bad_percent, DATA_DIR):
        found = contract.decode(record.key, record.value)
        assert (found.reason if isinstance(found, Rejection) else None) == record.reason, (record, found)
        bad += record.reason is not None
    assert least <= bad <= most


def test_records_are_built_without_anything_that_judges_them() -> None:
    """What a producer says of its records is no witness if the contract's own code says it."""
    for path in Path(str(generate.__file__)).parent.glob("*.py"):
        if path.name == "__init__.py":
            continue
        imported = re.findall(r"^(?:from|import) (\S+)", path.read_text(), re.MULTILINE)
        foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
        assert all(name.startswith("headrace.sample.generate.") for name in foreign), (path, foreign)


def test_generate_updates_are_valid_later_versions_of_the_same_job() -> None:
    versions = defaultdict(list)
    for job in decoded(generated(3_000)):
        versions[job["JOBIDENTIFIER"]].append(job)
    updated = [jobs for jobs in versions.values() if len(jobs) > 1]
    assert 90 <= sum(len(jobs) - 1 for jobs in updated) <= 210
    for jobs in updated:
        assert len({(job["JOBCREATEDATE"], job["USERID"], job["LOCATION"]) for job in jobs}) == 1
        times = [job["JOBDATE"] for job in jobs if job["JOBDATE"] and job["JOBDATE"].hour]  # others are a day alone
        assert times == sorted(times)


def test_generate_has_late_ones() -> None:
    created = [job["JOBCREATEDATE"] for job in decoded(generated(3_000)) if job["JOBCREATEDATE"]]
    newest, late = created[0], 0
    for at in created:
        late += at < newest - timedelta(hours=1)
        newest = max(newest, at)
    assert late >= 30


def test_generate_has_jobs_without_success_that_carry_a_revenue() -> None:
    jobs = documents(generated(3_000))
    failed = [job for job in jobs if job["JOBSTATUS"] == "NO SUCCESS"]
    assert 300 <= len(failed) <= 700
    assert any(job.get("REVENUE", 0) for job in failed)
    assert {job.get("REVENUE", "absent") for job in failed} >= {0, None, "absent"}


def test_generate_writes_ids_dates_and_revenues_in_every_way_that_producers_do() -> None:
    jobs = documents(generated(5_000))
    ids = {len(str(job["JOBIDENTIFIER"])) for job in jobs}
    assert ids == {6, 7}  # as text they would sort otherwise
    for field in ("JOBIDENTIFIER", "USERID"):
        assert {type(job[field]) for job in jobs} == {int, str}
    written = {re.sub(r"\d", "9", job["JOBCREATEDATE"] or str(job["JOBCREATEDATE"])) for job in jobs}
    assert written == {
        "9999-99-99 99:99:99", "9999-99-99T99:99:99Z", "9999-99-99 99:99:99.999 UTC", "9999-99-99 99:99:99+99:99",
        "9999-99-99T99:99:99-9999", "", "None",
    }  # fmt: skip
    assert any("JOBDATE" not in job for job in jobs)
    assert any(len(str(job.get("REVENUE"))) > 10 for job in jobs)


def test_generate_plainly_writes_all_jobs_alike() -> None:
    jobs = documents(list(generate_jobs(2_000, 1, 0, USERS, is_plain=True)))
    assert {tuple((name, type(value)) for name, value in job.items() if name != "REVENUE") for job in jobs} == {
        tuple((name, int if name in ("JOBIDENTIFIER", "USERID") else str) for name in job_fields() if name != "REVENUE")
    }
    assert {len(job["JOBCREATEDATE"]) for job in jobs} == {19}


def test_generated_events_come_again_late_bare_and_keyed_by_their_user() -> None:
    records = list(generate_records("events", 5_000, 1, 2, DATA_DIR))
    good = [(record.key, json.loads(record.value)) for record in records if record.reason is None]
    assert all(key == event["user_id"].encode() for key, event in good)
    assert {event["event_type"] for _, event in good} == {"page_view", "click", "purchase"}
    again = len(good) - len({event["event_id"] for _, event in good})
    assert 100 <= again <= 200
    assert any("payload" not in event and "schema_version" not in event for _, event in good)
    assert any(record.key == b"bad" and b'"oops":true' in record.value for record in records)
    times = [datetime.fromisoformat(event["event_time"]) for _, event in good]
    assert all(at.tzinfo for at in times)


def test_generated_readings_are_fields_of_text() -> None:
    for record in generate_records("telemetry", 500, 1, 0, DATA_DIR):
        assert {type(value) for value in json.loads(record.value).values()} == {str}


def job_fields() -> list[str]:
    return ["JOBCREATEDATE", "JOBDATE", "JOBIDENTIFIER", "JOBSTATUS", "LOCATION", "REVENUE", "SERVICENAME", "USERID"]


def test_generated_jobs_of_two_runs_are_not_the_same_ones() -> None:
    """Sample records that are sent without an end are of jobs of their own, whenever it is started again."""
    runs = [{r.key for r in generate_records("jobs", 100, seed, 0, DATA_DIR, now)} for seed in (1, 2)]
    assert not runs[0] & runs[1]


def test_generate_has_fields_that_the_contract_does_not_name() -> None:
    assert any("CHANNEL" in job for job in documents(generated(3_000)))


def test_generate_names_users_of_the_file_away_from_home_too() -> None:
    homes = {user["USERID"]: user["LOCATION"] for user in map(json.loads, USERS.read_bytes().splitlines())}
    jobs = decoded(generated(1_000))
    at_home = sum(homes[job["USERID"]] == job["LOCATION"] for job in jobs)
    assert 600 <= at_home <= 800


@pytest.mark.parametrize("content", [b"not JSON\n", b"[]\n", b'{"USERID":1}\n', b"\xff\n"])
def test_generate_with_a_users_file_of_another_kind_refuses(content: bytes, tmp_path: Path) -> None:
    users = tmp_path / "users.ndjson"
    users.write_bytes(content)
    with pytest.raises(FileSourceError, match="expected lines of LOCATION and USERID"):
        list(generate_jobs(1, 1, 0, users))


def test_generate_without_a_users_file_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match="cannot be read: No such file or directory; expected the users file"):
        list(generate_jobs(1, 1, 0, tmp_path / "users.ndjson"))
