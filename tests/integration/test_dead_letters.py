"""Dead letters: the sent bytes, their coordinate and their reason."""

from headrace.ingest.parallel import drain_dataset
from headrace.sample.generate.jobs import DEFECTS
from tests.support import topics
from tests.support.jobs import job, jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage

JOB = {
    "JOBCREATEDATE": "2019-03-01 10:00:00",
    "JOBDATE": "2019-03-01 11:00:00",
    "JOBIDENTIFIER": 1,
    "JOBSTATUS": "SUCCESS",
    "LOCATION": "LOC_1",
    "REVENUE": 12.5,
    "SERVICENAME": "S",
    "USERID": 7,
}


def test_dead_letters_of_every_defect_hold_bytes_coordinates_reason_and_place(stage: Stage) -> None:
    sent: list[tuple[int, int, bytes, bytes, int, str, str]] = []
    with topics.producer(servers(stage)) as client:
        futures = []
        for n, defect in enumerate(DEFECTS):
            key, value = b"1", defect.make_invalid(dict(JOB))
            at = 1_551_434_400_000 + n
            headers = [("n", b"%d" % n), ("raw", b"\xff")]
            futures.append(
                client.send(topic_of(stage), partition=n % 3, key=key, value=value, timestamp_ms=at, headers=headers)
            )
            sent.append((n % 3, n // 3, key, value, at, defect.reason, defect.json_path))
        client.flush()
    assert [(f.get(5).partition, f.get(5).offset) for f in futures] == [row[:2] for row in sent]
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.staged, result.dead) == (0, len(DEFECTS))
    found = stage.query(
        'select partition, "offset", key, value, (extract(epoch from "timestamp") * 1000)::bigint, reason, json_path '
        'from headrace.dead_letters order by "offset", partition'
    )
    assert found == sent
    headers_of = dict(stage.query('select partition * 100 + "offset", headers from headrace.dead_letters'))
    for n in range(len(DEFECTS)):
        assert headers_of[n % 3 * 100 + n // 3] == [{"key": "n", "value": str(n)}, {"key": "raw", "base64": "/w=="}]
    assert stage.query("select distinct dataset, generation, replayed_by is null from headrace.dead_letters") == [
        ("jobs", 1, True)
    ]
    assert_ledger(stage)


def test_dead_letters_do_not_keep_their_neighbours_from_being_staged(stage: Stage) -> None:
    bad = [defect.make_invalid(dict(JOB)) for defect in DEFECTS]
    good = jobs(40, 1)
    mixed = [message for n, value in enumerate(bad) for message in ((0, b"1", value), good[n])]
    sent = topics.send(servers(stage), topic_of(stage), mixed)
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.staged, result.dead) == (len(bad), len(bad))
    assert stage.query("select _offset from staging.jobs order by 1") == [(2 * n + 1,) for n in range(len(bad))]
    assert_ledger(stage, sent)


def test_dead_letters_of_records_that_would_break_the_text_columns_are_stored(stage: Stage) -> None:
    values = [
        b'{"\\u0000":1,"\\u0000":2}',
        b'{"\\ud800":1,"\\ud800":2}',
        b'{"a\\nb\\u2028":1,"a\\nb\\u2028":2}',
        b"\xff" * 2_000,
    ]
    keys = [b"\0", b"\xff\xfe", b"", None]
    messages: list[topics.Message] = [(0, key, value) for key, value in zip(keys, values, strict=True)]
    sent = topics.send(servers(stage), topic_of(stage), [*messages, (0, b"909", job(909))])
    drain_dataset(stage.deployment, "jobs")
    assert stage.query('select key, value from headrace.dead_letters order by "offset"') == list(
        zip(keys, values, strict=True)
    )
    assert all(len(path) < 600 for (path,) in stage.query("select json_path || detail from headrace.dead_letters"))
    assert_ledger(stage, sent)


def test_status_counts_dead_letters_by_reason(stage: Stage) -> None:
    topics.send(
        servers(stage), topic_of(stage), [(0, b"a", b"bad"), (1, b"b", b"bad"), (2, b"c", b""), (2, b"4", job(4))]
    )
    drain_dataset(stage.deployment, "jobs")
    assert stage.query("select dead_by_reason from headrace.status where partition = 0") == [
        ({"invalid_json": 2, "empty_payload": 1},)
    ]


def test_dead_letter_of_a_value_over_the_limit_keeps_it_whole(stage: Stage) -> None:
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    declared.write_text(
        declared.read_text().replace('    key="JOBIDENTIFIER",', '    key="JOBIDENTIFIER",\n    max_value_bytes=500,')
    )
    at_limit = job(1).ljust(500)
    topics.send(servers(stage), topic_of(stage), [(0, b"1", at_limit), (0, b"1", at_limit + b" ")])
    drain_dataset(stage.deployment, "jobs")
    assert stage.query('select "offset", reason, detail, value from headrace.dead_letters') == [
        (1, "too_large", "value has 501 bytes, expected at most 500", at_limit + b" ")
    ]
