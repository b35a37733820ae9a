"""The HTML of a dataset's page and of a dead letter's: hostile text stays text, and bytes are what they are."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from headrace.airflow.page_dataset_template import DeadLetterPage, render_dataset, render_dead_letter
from headrace.airflow.page_values import shown_value
from headrace.dataset import Dataset, KafkaTopic
from headrace.monitor.dataset_detail import DatasetDetail, DeadLetterDetail, MartReader, RunStatus
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from headrace.postgres.dead_letter_pages import DeadLetter
from headrace.repair.preview import Preview, preview
from tests.support.statuses import HOSTILE, NOW, batch, dataset, dead_letter, model, partition, status
from tests.unit.test_page_template import Elements


class Job(BaseModel):
    """A job."""

    id: int
    name: str


JOBS = Dataset(name="jobs", contract=Job, key="id", source=KafkaTopic(topic="jobs", dead_letter_topic="jobs_dlq"))


def overview(text: str = "no JSON") -> Overview:
    return find_problems_by(
        status(
            dataset(
                "jobs", topic=text, last_error=text, dead_by_reason={"invalid_json": 3}, recent_dead=3,
                partitions=[partition(number) for number in range(300)],
            ),
            models=[model("jobs", status="error", message=text)],
            dead_letters=[dead_letter(detail=text)],
        ),
        {"jobs": AlertThresholds()},
    )  # fmt: skip


def dead_letter_detail(**values: Any) -> DeadLetterDetail:
    given: dict[str, Any] = {
        "dataset": "jobs", "generation": 1, "partition": 0, "offset": 5, "timestamp": None, "reason": "invalid_json",
        "detail": "no JSON", "json_path": "$", "masked": None, "stored_headers": None, "key_size": None, "key": None,
        "value_size": 3, "value": b"{,}", "published_at": None, "seq": 7, "committed_at": NOW, "dag_id": "ingest_jobs",
        "run_id": "a+b", "task_id": "drain", "map_index": -1, "replayed_seq": None, "replayed_at": None,
    }  # fmt: skip
    return DeadLetterDetail(**given | values)


def stored(value: bytes, **values: Any) -> DeadLetter:
    given: dict[str, Any] = {
        "dataset": "jobs", "generation": 1, "partition": 0, "offset": 5, "timestamp": None, "key": b"1", "value": value,
        "stored_headers": None, "reason": "invalid_json", "detail": "no JSON", "json_path": "$",
        "batch_id": UUID(int=1), "replayed_by": None, "published_at": None, "masked": None,
    }  # fmt: skip
    return DeadLetter(**given | values)


def test_dataset_page_has_partitions_runs_marts_and_contract_and_escapes_all_of_it() -> None:
    detail = DatasetDetail(
        [batch(run_id=HOSTILE)],
        [RunStatus("ingest_jobs", HOSTILE, 2, 10, 1, NOW)],
        [MartReader("jobs", 1, ["jobs"]), MartReader(HOSTILE, 2, [HOSTILE])],
    )
    html = render_dataset(overview(HOSTILE), "jobs", detail, JOBS, is_readable=True)
    page = Elements(html)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "100 more: <code>headrace status --partitions</code>" in html
    addresses = {each["href"] for each in page.of("a")}
    assert {"../datasets/jobs/dead-letters/1:0:5", "../../dags/ingest_jobs"} <= addresses
    assert all((each or "").startswith(("#", "../")) for each in addresses)
    text = " ".join(page.text)
    assert "bigint" in text
    assert "jobs_dlq" in text
    assert "id key" in " ".join(text.split())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"partitions", "runs", "batches", "marts", "contract", "problems", "dead-letters"} <= set(ids)
    hidden = render_dataset(overview(), "jobs", detail, JOBS, is_readable=False)
    assert "dead-letters/1:0:5" not in hidden


def test_dataset_without_a_declaration_says_so() -> None:
    gone = find_problems_by(status(dataset("gone")), {})
    html = render_dataset(gone, "gone", DatasetDetail([], [], []), None, is_readable=True)
    assert "no longer declared" in html
    assert "../../dags/" not in html


def test_dead_letter_page_escapes_all_of_it() -> None:
    raw = HOSTILE.encode()
    found = dead_letter_detail(
        detail=HOSTILE, json_path=HOSTILE, key=raw, key_size=len(raw), value=raw, value_size=len(raw),
        stored_headers=[{"key": HOSTILE, "value": HOSTILE}], masked=[HOSTILE], topic=HOSTILE,
    )  # fmt: skip
    row = ((HOSTILE, HOSTILE), ("x", None))
    for outcome in (Preview("staged", row), Preview("rejected", reason=HOSTILE, detail=HOSTILE, json_path=HOSTILE)):
        html = render_dead_letter(DeadLetterPage(overview(), found, JOBS, outcome))
        assert "<script>alert" not in html
        assert "<img" not in html
        assert "".join(Elements(html).text).count("<img src=x onerror") >= 8
    assert "jobs/1/0/5" in html
    assert "jobs_dlq" in html


def test_bytes_are_shown_as_text_or_as_what_they_are() -> None:
    text = shown_value('{"a":\n\t"ü\u202e"}'.encode(), 15)
    assert text is not None
    assert (text.kind, str(text.html), text.is_cut) == (
        "15 bytes of text",
        "{&#34;a&#34;:\n\t&#34;ü\\u202e&#34;}",
        False,
    )
    binary = shown_value(b"\x00<b>\xff", 5)
    assert binary is not None
    assert binary.kind == "5 bytes that are not text"
    assert "00 3c 62 3e ff" in binary.html
    assert "|.&lt;b&gt;.|" in binary.html
    cut = shown_value(("ü" * 10).encode()[:-1], 1_000_000)  # cut within a character
    assert cut is not None
    assert (str(cut.html), cut.is_cut) == ("ü" * 9, True)
    assert shown_value(None, None) is None


def test_preview_decodes_by_todays_contract() -> None:
    staged = preview(JOBS, stored(b'{"id": "1", "name": "a"}'))
    assert (staged.outcome, dict(staged.row)["id"], dict(staged.row)["_offset"]) == ("staged", "1", "5")
    rejected = preview(JOBS, stored(b'{"id": 1}'))
    assert (rejected.outcome, rejected.reason, rejected.json_path) == ("rejected", "missing_field", "$.name")
    assert preview(replace(JOBS, key=None), stored(b"{")).reason == "invalid_json"


def test_dead_letter_that_was_replayed_offers_no_dry_run() -> None:
    at: datetime = NOW
    html = render_dead_letter(DeadLetterPage(overview(), dead_letter_detail(replayed_seq=9, replayed_at=at), JOBS))
    assert "dry-run" not in html
    assert "Batch 9 replayed it" in html
