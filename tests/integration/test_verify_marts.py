"""`headrace verify` compares the claims of marts with the ledger, and marts with their staged rows."""

from dataclasses import replace

import pytest

from headrace.catalog import Declarations
from headrace.formats import JSON
from headrace.ingest.parallel import drain_dataset
from headrace.repair.generations import reset
from headrace.verify import verification as verify_module
from headrace.verify import verify
from tests.support.drained_topic import TOMBSTONE, Drained

CLAIM = (
    "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
    "select 'marts', 'jobs', dataset, last_seq, jsonb_build_object('headrace.datasets', built) "
    "from headrace.datasets where dataset = 'jobs'"
)
MART = (
    "create table marts.jobs as select distinct jobidentifier, revenue from staging.jobs where not _deleted "
    "and jobidentifier not in (select jobidentifier from staging.jobs where _deleted)"
)


def test_verify_with_a_claim_beyond_the_ledger_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute("update headrace.claims set to_seq = to_seq + 1")
    finding = drained.assert_found("claims", None, partition=None)
    assert "a claim of marts.jobs up to seq" in finding.found


def test_verify_with_a_claim_beyond_its_upstream_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute(
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
        "select schema, 'jobs_per_minute', dataset, to_seq, jsonb_build_object('marts.jobs', built) "
        "from headrace.claims"
    )
    drained.execute("update headrace.claims set to_seq = to_seq - 1 where identifier = 'jobs'")
    finding = drained.assert_found("claims", None, partition=None)
    assert "the newest that marts.jobs has" in finding.expected


def test_verify_leaves_claims_of_a_developer_alone(drained: Drained) -> None:
    drained.execute(CLAIM.replace("'marts'", "'marts_dev'"))
    drained.execute("update headrace.claims set to_seq = to_seq + 1")
    assert verify(drained.stage.deployment).is_clean


def test_verify_with_a_claim_of_an_unknown_dataset_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute("update headrace.claims set dataset = 'jobz'")
    found = verify(drained.stage.deployment).findings
    assert [(finding.dataset, finding.check) for finding in found] == [("jobz", "claims")]


def test_verify_after_a_reset_takes_old_claims_for_stale(drained: Drained) -> None:
    drained.execute(CLAIM)
    reset(drained.stage.deployment, drained.stage.deployment.dataset("jobs"))
    verification = drained.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "marts.jobs starts from zero at its next build" in verification.reports[0].notes[0]
    drain_dataset(drained.stage.deployment, "jobs")
    assert drained.verify(deep=True).is_clean


def test_verify_of_a_built_mart_names_the_row_that_is_missing(drained: Drained) -> None:
    drained.execute(MART)
    drained.execute(CLAIM)
    verification = drained.verify()
    assert verification.is_clean, list(verification.lines())
    assert verification.reports[0].counts["keys of marts.jobs equal to staging's"] == 44
    drained.execute("delete from marts.jobs where jobidentifier = 20")
    finding = drained.assert_found("marts", 17)
    assert finding.found == "no row of jobidentifier 20 in marts.jobs, which has 43"
    # where batches are not yet built there is nothing to compare
    drained.execute("update headrace.claims set to_seq = to_seq - 1")
    verification = drained.verify()
    assert verification.is_clean
    assert verification.reports[0].counts["batches not yet built"] == 1


def test_verify_of_a_built_mart_names_the_row_that_should_be_deleted(drained: Drained) -> None:
    drained.execute(MART)
    drained.execute(CLAIM)
    drained.execute("insert into marts.jobs values (3, 0), (98, 0)")
    assert drained.assert_found("marts", TOMBSTONE).found.startswith("a row of jobidentifier 3 ")


def test_verify_compares_a_mart_whose_key_has_several_fields(drained: Drained, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, keys_of = drained.stage.deployment.dataset("jobs"), ("JOBIDENTIFIER", "USERID")
    two_fields = replace(jobs, key=keys_of, keyed=False, format=JSON)
    monkeypatch.setattr(verify_module, "load_declarations", lambda _: Declarations({"jobs": two_fields}, {}))
    # a tombstone has one of the two fields, and deletes nothing
    drained.execute(
        "create table marts.jobs as select distinct jobidentifier, userid from staging.jobs where userid >= 0"
    )
    drained.execute(CLAIM)
    result = drained.verify()
    assert result.is_clean, list(result.lines())
    (keys,) = drained.stage.query("select count(*) from marts.jobs")[0]
    assert result.reports[0].counts["keys of marts.jobs equal to staging's"] == keys > 40
    drained.execute("update marts.jobs set userid = userid + 1 where jobidentifier = 20")
    found = [finding.found for finding in drained.verify().findings]
    assert found == [
        f"no row of jobidentifier, userid 20, 20 in marts.jobs, which has {keys}",
        f"a row of jobidentifier, userid 20, 21 in marts.jobs, which has {keys}",
    ]
