"""The drain against a real broker and a real Postgres."""

from pathlib import Path

from headrace.generate import generate_jobs
from headrace.ingest import drain_dataset
from headrace.produce import produce
from tests.integration.conftest import Stage


def _produce_jobs(stage: Stage, path: Path, records: int, bad_percent: float = 5, seed: int = 3) -> list[bytes]:
    lines = list(generate_jobs(records, seed, bad_percent, stage.deployment.settings.data_dir / "users.ndjson"))
    path.write_bytes(b"".join(lines))
    produce(stage.deployment.dataset("jobs"), stage.deployment.kafka(), path)
    return [line.rstrip(b"\n") for line in lines]


def test_drain_of_a_topic_stages_or_dead_letters_every_record_once(stage: Stage, tmp_path: Path) -> None:
    produced = _produce_jobs(stage, tmp_path / "jobs.kafka", 2_000)
    plan, result = drain_dataset(stage.deployment, "jobs")
    assert result.records == plan.lag == 2_000
    assert result.batches >= 3
    staged = stage.value("select count(*) from staging.jobs")
    dead = stage.query("select key, value from headrace.dead_letters")
    assert staged + len(dead) == 2_000
    assert {key + b"|" + value for key, value in dead} <= set(produced)
    ledger = stage.query(
        "select seq, end_offset - start_offset, staged + dead + tombstones + empty from headrace.batches order by seq"
    )
    assert [seq for seq, _, _ in ledger] == list(range(1, len(ledger) + 1))
    assert all(length == accounted for _, length, accounted in ledger)


def test_drain_with_nothing_new_writes_no_ledger_line(stage: Stage, tmp_path: Path) -> None:
    _produce_jobs(stage, tmp_path / "jobs.kafka", 300)
    drain_dataset(stage.deployment, "jobs")
    before = stage.value("select count(*) from headrace.batches")
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.batches == 0
    assert stage.value("select count(*) from headrace.batches") == before
