"""Sources that changed: refused, with the range at risk and the command that accepts it."""

import pytest

from headrace.exceptions import AnotherCluster, DatasetError, HeadraceError, SourceChanged
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import drain_plan, plan
from headrace.repair.generations import accept_loss, adopt, preview_adopt
from headrace.verify import verify
from tests.support import topics
from tests.support.adoption import force_adopt
from tests.support.command_line import assert_refused, run
from tests.support.interrupts import at, drain
from tests.support.jobs import job, recreate, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, coordinates, ledger_lines
from tests.support.stage import Stage


def test_first_contact_with_a_log_that_begins_later_says_so_in_the_ledger(stage: Stage) -> None:
    send_jobs(stage, 30)
    topics.delete_records(servers(stage), topic_of(stage), {0: 4, 2: 10})
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.records == 6 + 10
    assert ledger_lines(stage) == [
        ("adopt", 1, 0, 0, 4, 0),
        ("drain", 1, 0, 4, 10, 6),
        ("drain", 1, 1, 0, 10, 10),
        ("adopt", 1, 2, 0, 10, 0),
    ]
    assert_ledger(stage, [(0, n) for n in range(4, 10)] + [(1, n) for n in range(10)])


@pytest.mark.parametrize("beside", ["nothing", "recreated", "missing", "retention"])
def test_another_cluster_is_refused_before_anything_else_is_judged(beside: str, stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    found = stage.value("select cluster_id from headrace.generations")
    stage.execute("update headrace.generations set cluster_id = 'old-cluster'")
    observed = stage.query("select partition, end_offset from headrace.observations order by 1")
    send_jobs(stage, 30)
    if beside == "recreated":
        recreate(stage)
    elif beside == "missing":
        topics.delete(servers(stage), topic_of(stage))
    elif beside == "retention":
        topics.delete_records(servers(stage), topic_of(stage), {0: 15})
    with pytest.raises(AnotherCluster) as caught:
        drain_dataset(stage.deployment, "jobs")
    assert str(caught.value) == (
        f"jobs: another cluster answers at this address: found cluster id {found}, expected old-cluster, of which "
        f"generation 1 read {topic_of(stage)}; nothing was changed; point HEADRACE_KAFKA_BOOTSTRAP_SERVERS (in "
        "Airflow: the connection headrace_kafka) back to the old cluster and run `headrace drain jobs`; only if the "
        "new one is intended, `headrace adopt jobs` closes generation 1 and reads the new one from its start"
    )
    assert stage.query("select partition, end_offset from headrace.observations order by 1") == observed
    assert stage.value("select cluster_id from headrace.generations") == "old-cluster"
    (finding,) = verify(stage.deployment, "jobs").findings
    assert (finding.check, finding.found) == ("source", str(caught.value))
    assert finding.remedy.startswith("point the address back to the old cluster")
    if beside == "retention":
        with pytest.raises(AnotherCluster):
            accept_loss(stage.deployment, stage.deployment.dataset("jobs"), 0, 15)
    if beside == "nothing":
        adopt(stage.deployment, stage.deployment.dataset("jobs"))
        assert stage.value("select cluster_id from headrace.generations where is_open") == found


def test_cluster_of_an_older_generation_is_stored_by_the_next_plan_and_an_untold_one_passes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_jobs(stage, 3)
    drain_dataset(stage.deployment, "jobs")
    found = stage.value("select cluster_id from headrace.generations")
    assert len(found) >= 16
    stage.execute("update headrace.generations set cluster_id = null")
    with monkeypatch.context() as patch:
        patch.setattr("headrace.sources.kafka.KafkaSource._cluster_id", lambda _: None)  # a broker that has none
        plan(stage.deployment, stage.deployment.dataset("jobs"))
        assert stage.value("select cluster_id from headrace.generations") is None
    plan(stage.deployment, stage.deployment.dataset("jobs"))
    assert stage.value("select cluster_id from headrace.generations") == found
    with monkeypatch.context() as patch:
        patch.setattr("headrace.sources.kafka.KafkaSource._cluster_id", lambda _: None)
        plan(stage.deployment, stage.deployment.dataset("jobs"))
    assert stage.value("select cluster_id from headrace.generations") == found


@pytest.mark.parametrize("records", [0, 6, 90])
def test_topic_recreated_is_refused_and_adopted(records: int, stage: Stage) -> None:
    old = send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    recreate(stage)
    sent = send_jobs(stage, records)
    for _ in range(2):
        with pytest.raises(SourceChanged) as caught:
            drain_dataset(stage.deployment, "jobs")
        text = str(caught.value)
        assert "it was deleted and created again" in text
        for partition in range(3):
            assert f"{topic_of(stage)}[{partition}] from 10 on" in text
        assert "`headrace adopt jobs` closes generation 1" in text
        assert_ledger(stage, old)
    assert adopt(stage.deployment, stage.deployment.dataset("jobs")) == 2
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)
    assert stage.value("select count(*) from staging.jobs where _generation = 1") == 30
    assert stage.query("select generation, is_open from headrace.generations order by 1") == [(1, False), (2, True)]
    assert stage.value("select count(*) from headrace.batches where kind = 'adopt' and generation = 2") == 3


def test_adopt_of_a_topic_that_is_what_it_was_is_refused(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    for step in (preview_adopt, adopt):
        with pytest.raises(DatasetError, match="jobs: nothing was ingested yet; `headrace drain jobs` begins"):
            step(stage.deployment, dataset)
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    sent = send_jobs(stage, 30)  # records that wait are no reason either
    topics.delete_records(servers(stage), topic_of(stage), {0: 7})  # nor is retention of what was read
    before = ledger_lines(stage)
    for step in (preview_adopt, adopt):
        with pytest.raises(DatasetError) as refused:
            step(stage.deployment, dataset)
        assert str(refused.value) == (
            f"jobs: found {topic_of(stage)} unchanged since generation 1 read it, expected another topic or id, or "
            "offsets that do not match a checkpoint; nothing was changed: 23 offsets would be read and staged a "
            "second time"
        )
    assert_refused(run(stage, "adopt", "jobs", "--yes"), "unchanged since generation 1 read it", "a second time")
    assert ledger_lines(stage) == before
    assert stage.value("select count(*) from headrace.generations") == 1
    drain_dataset(stage.deployment, "jobs")
    assert len(coordinates(stage)) == 30 + len(sent)


def test_adopt_of_a_file_is_refused(stage: Stage) -> None:
    with pytest.raises(DatasetError, match=r"users: comes from a file, .*; `headrace load users` merges a file that"):
        adopt(stage.deployment, stage.deployment.dataset("users"))


def test_topic_recreated_with_fewer_partitions_is_refused_and_adopted(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    recreate(stage, 1)
    sent = send_jobs(stage, 5, 1)
    with pytest.raises(SourceChanged, match="`headrace adopt jobs`"):
        drain_dataset(stage.deployment, "jobs")
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_topic_recreated_after_it_was_planned_is_refused_before_anything_is_stored(stage: Stage) -> None:
    send_jobs(stage, 30)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    recreate(stage)
    send_jobs(stage, 30)
    with pytest.raises(SourceChanged, match=r"has id .*, expected .*: the source was replaced while it was read"):
        drain_plan(stage.deployment, dataset, planned)
    assert_ledger(stage, [])


def test_topic_recreated_while_it_is_read_is_refused_before_the_next_batch(stage: Stage) -> None:
    send_jobs(stage, 600, 1)

    def replace_topic() -> None:
        recreate(stage)
        send_jobs(stage, 600, 1)

    with pytest.raises(HeadraceError):
        drain(stage, at("committed", replace_topic, occurrence=1))
    assert_ledger(stage)
    assert 0 < len(coordinates(stage)) < 600


def test_dataset_that_names_another_topic_is_refused_and_adopted(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    old, new = topic_of(stage), f"{topic_of(stage)}-b"
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    declared.write_text(declared.read_text().replace(f'topic="{old}"', f'topic="{new}"'))
    topics.create(servers(stage), new, 2)
    sent = topics.send(servers(stage), new, [(1, b"10", job(10))])
    with pytest.raises(
        SourceChanged, match=rf"the topic is {new}, generation 1 belongs to {old}; at risk: .*headrace adopt"
    ):
        drain_dataset(stage.deployment, "jobs")
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_retention_that_overtook_the_checkpoint_is_refused_and_accepted_as_a_loss(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    sent = send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    sent += send_jobs(stage, 30)
    topics.delete_records(servers(stage), topic_of(stage), {1: 15, 2: 7})
    with pytest.raises(SourceChanged) as caught:
        drain_dataset(stage.deployment, "jobs")
    assert "jobs[1]: retention overtook the checkpoint: [10, 15) is no longer served and was never read; " in str(
        caught.value
    )
    assert "`headrace accept-loss jobs --partition 1 --to 15` continues after it" in str(caught.value)
    assert accept_loss(stage.deployment, dataset, 1, 15) == (10, 15)
    assert ("accept_loss", 1, 1, 10, 15, 0) in ledger_lines(stage)
    assert stage.value("select note from headrace.batches where kind = 'accept_loss'") == (
        "abandons [10, 15), 5 offsets that were never read: the log starts at 15"
    )
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, [(p, o) for p, o in sent if not (p == 1 and 10 <= o < 15)])


@pytest.mark.parametrize(
    ("partition", "to"), [(1, 16), (1, 10), (1, 9), (0, 11), (0, 20), (3, 1)], ids=lambda number: str(number)
)
def test_loss_of_anything_that_the_source_still_serves_is_not_accepted(partition: int, to: int, stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 30)
    topics.delete_records(servers(stage), topic_of(stage), {1: 15})
    before = ledger_lines(stage)
    with pytest.raises(DatasetError, match=rf"jobs\[{partition}\]: "):
        accept_loss(stage.deployment, dataset, partition, to)
    assert ledger_lines(stage) == before
    assert_ledger(stage)


def test_loss_is_not_accepted_before_first_contact_nor_of_another_topic(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    with pytest.raises(DatasetError, match="no such partition in an open generation"):
        accept_loss(stage.deployment, dataset, 0, 1)
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    recreate(stage)
    send_jobs(stage, 60)
    topics.delete_records(servers(stage), topic_of(stage), {0: 20})
    with pytest.raises(DatasetError, match="no such partition in an open generation"):
        accept_loss(stage.deployment, dataset, 0, 20)
    assert_ledger(stage)


def test_part_of_a_loss_can_be_accepted_and_then_the_rest(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 30)
    topics.delete_records(servers(stage), topic_of(stage), {1: 15})
    assert accept_loss(stage.deployment, dataset, 1, 12) == (10, 12)
    with pytest.raises(SourceChanged, match=r"\[12, 15\)"):
        drain_dataset(stage.deployment, "jobs")
    assert accept_loss(stage.deployment, dataset, 1, 15) == (12, 15)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage)


def test_new_partition_whose_head_is_gone_is_refused_and_accepted_as_a_loss(stage: Stage) -> None:
    sent = send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    with topics.admin(servers(stage)) as client:
        client.create_partitions({topic_of(stage): 4})
    topics.wait_for_end(servers(stage), topic_of(stage), [10, 10, 10, 0])
    sent += topics.send(servers(stage), topic_of(stage), [(3, b"%d" % n, job(n)) for n in range(8)])
    topics.delete_records(servers(stage), topic_of(stage), {3: 5})
    with pytest.raises(SourceChanged, match=r"jobs\[3\]: a new partition whose log starts at 5.*--partition 3 --to 5"):
        drain_dataset(stage.deployment, "jobs")
    assert accept_loss(stage.deployment, stage.deployment.dataset("jobs"), 3, 5) == (0, 5)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, [(p, o) for p, o in sent if not (p == 3 and o < 5)])


def test_checkpoint_beyond_the_end_of_the_log_is_refused_and_adopted(stage: Stage) -> None:
    sent = send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    stage.execute("update headrace.checkpoints set next_offset = 12 where partition = 1")  # the log lost its tail
    with pytest.raises(
        SourceChanged, match=r"jobs\[1\]: the checkpoint is 12, the log ends at 10: \[10, 12\) was read and"
    ):
        drain_dataset(stage.deployment, "jobs")
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    drain_dataset(stage.deployment, "jobs")
    assert coordinates(stage) == sorted(sent)


def test_adoption_while_a_drain_runs_stops_it(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    sent = send_jobs(stage, 600, 1)
    with pytest.raises(HeadraceError, match="generation 1 is closed or gone"):
        drain(stage, at("committed", lambda: force_adopt(stage.deployment, dataset), occurrence=1))
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)
