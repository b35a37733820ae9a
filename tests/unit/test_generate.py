"""Sample data: repeatable, and as bad as it says."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from headrace.contract import Rejection
from headrace.dataset import load_dataset
from headrace.exceptions import FileSourceError
from headrace.generate import DEFECTS, generate_jobs
from headrace.settings import Settings

USERS = Settings().data_dir / "users.ndjson"
JOBS = load_dataset(Settings().datasets_dir, "jobs").compiled


def generated(records: int, seed: int = 1, bad_percent: float = 0) -> list[bytes]:
    return list(generate_jobs(records, seed, bad_percent, USERS))


def documents(lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line.partition(b"|")[2]) for line in lines]


def is_rejected(line: bytes) -> bool:
    key, _, value = line.rstrip(b"\n").partition(b"|")
    return isinstance(JOBS.decode(key, value), Rejection)


def test_generate_with_the_same_seed_gives_the_same_bytes() -> None:
    digest = hashlib.sha256(b"".join(generated(3_000, seed=7, bad_percent=5))).hexdigest()
    assert digest == "b23ed8ca4d9ef6c6f0d6d95d8d98cc695c43fc1432baa66c72f45049c7ae5b6a"


def test_generate_with_another_seed_gives_other_bytes() -> None:
    assert generated(100, seed=1) != generated(100, seed=2)


@pytest.mark.parametrize("records", [0, 1, 2, 1_000])
def test_generate_gives_as_many_lines_as_asked_for(records: int) -> None:
    lines = generated(records)
    assert len(lines) == records
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


def test_generate_without_bad_ones_gives_none() -> None:
    assert not any(map(is_rejected, generated(3_000)))


def test_generate_with_five_percent_bad_gives_about_so_many() -> None:
    assert 200 <= sum(map(is_rejected, generated(5_000, bad_percent=5))) <= 300


def test_generate_with_only_bad_ones_is_rejected_throughout() -> None:
    assert all(map(is_rejected, generated(1_000, bad_percent=100)))


@pytest.mark.parametrize("index", range(len(DEFECTS)))
def test_generate_defect_is_rejected_whatever_the_job(index: int) -> None:
    for job in documents(generated(300)):
        assert is_rejected(DEFECTS[index](job)), DEFECTS[index](job)


def test_generate_updates_are_valid_later_versions_of_the_same_job() -> None:
    versions = defaultdict(list)
    for job in documents(generated(3_000)):
        versions[job["JOBIDENTIFIER"]].append(job)
    updated = [jobs for jobs in versions.values() if len(jobs) > 1]
    assert 90 <= sum(len(jobs) - 1 for jobs in updated) <= 210
    for jobs in updated:
        assert len({(job["JOBCREATEDATE"], job["USERID"], job["LOCATION"]) for job in jobs}) == 1
        assert [job["JOBDATE"] for job in jobs] == sorted(job["JOBDATE"] for job in jobs)


def test_generate_has_late_ones() -> None:
    newest, late = "", 0
    for job in documents(generated(3_000)):
        late += job["JOBCREATEDATE"][:13] < newest[:13]
        newest = max(newest, job["JOBCREATEDATE"])
    assert late >= 30


def test_generate_has_jobs_without_success_that_carry_a_revenue() -> None:
    jobs = documents(generated(3_000))
    failed = [job for job in jobs if job["JOBSTATUS"] == "NO SUCCESS"]
    assert 300 <= len(failed) <= 700
    assert any(job["REVENUE"] > 0 for job in failed)
    assert any(job["REVENUE"] == 0 for job in failed)


def test_generate_has_fields_that_the_contract_does_not_name() -> None:
    assert any("CHANNEL" in job for job in documents(generated(3_000)))


def test_generate_names_users_of_the_file_away_from_home_too() -> None:
    homes = {user["USERID"]: user["LOCATION"] for user in map(json.loads, USERS.read_bytes().splitlines())}
    jobs = documents(generated(1_000))
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
