"""`headrace dead-letters` and `headrace replay`: listed, shown, replayed and exported."""

import json
import re
from base64 import b64decode
from pathlib import Path

from click.testing import CliRunner

from headrace.cli import main
from headrace.ingest.parallel import drain_dataset
from tests.support import topics
from tests.support.command_line import CommandResult, assert_refused
from tests.support.declarations import allow_refunds
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import environment
from tests.support.replays import HEADERS, refund
from tests.support.stage import Stage


def run(stage: Stage, *arguments: str) -> CommandResult:
    """Run a command in this process: a dozen of them in their own would take ten times as long."""
    result = CliRunner().invoke(main, arguments, env=environment(stage.deployment.settings))
    return CommandResult(result.exit_code, result.stdout, result.stderr)


def send_four(stage: Stage, value: bytes, raw: bytes) -> None:
    """A value that the contract refuses, bytes that are no text, a tombstone without a key, a large value."""
    with topics.producer(servers(stage)) as client:
        client.send(topic_of(stage), partition=0, key=b"101", value=value, timestamp_ms=1_551_434_400_123)
        client.send(topic_of(stage), partition=0, key=None, value=raw, headers=HEADERS)
        client.send(topic_of(stage), partition=1, key=b"", value=None)
        client.send(topic_of(stage), partition=2, key=b"big", value=b"x" * 40_000)
        client.flush()


def assert_exported(out: Path, value: bytes, raw: bytes, replayed_by: str) -> None:
    """The export holds the four dead letters: value as text, raw bytes as base64, and who replayed the first."""
    found = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert [(f["generation"], f["partition"], f["offset"]) for f in found] == [
        (1, 0, 0),
        (1, 0, 1),
        (1, 1, 0),
        (1, 2, 0),
    ]
    assert (found[0]["key"], found[0]["value"], found[0]["timestamp"]) == (
        "101", value.decode(), "2019-03-01T10:00:00.123+00:00",
    )  # fmt: skip
    assert found[0]["replayed_by"] == replayed_by
    assert (found[1]["key"], b64decode(found[1]["value_base64"])) == (None, raw)
    assert "value" not in found[1]
    assert [header["key"] for header in found[1]["headers"] if "key" in header][:2] == ["trace", "trace"]
    assert (found[2]["key"], found[2]["value"], found[2]["headers"]) == ("", None, [])
    assert found[3]["value"] == "x" * 40_000


def test_commands_list_show_export_and_replay_dead_letters(stage: Stage, tmp_path: Path) -> None:
    value, raw = refund(101), b"\xff\x00\x1b[2Jbad"
    send_four(stage, value, raw)
    assert run(stage, "dead-letters", "jobs").stdout == "jobs: no dead letters\n"
    drain_dataset(stage.deployment, "jobs")

    listed = run(stage, "dead-letters", "jobs", "--limit", "2").stdout.splitlines()
    assert listed[0] == "jobs: 4 dead letters, 0 more were replayed"
    assert [line.split() for line in listed[1:5]] == [
        ["invalid_json", "1"], ["invalid_utf8", "1"], ["key_mismatch", "1"], ["out_of_range", "1"],
    ]  # fmt: skip
    assert listed[5] == "the newest, by generation:partition:offset"
    assert len(listed) == 8
    only = run(stage, "dead-letters", "jobs", "--reason", "out_of_range").stdout.splitlines()
    assert only[0] == "jobs: 1 dead letters, 0 more were replayed"
    assert re.fullmatch(r"  1:0:0 +out_of_range at \$\.REVENUE: REVENUE: found .*", only[-1])

    text = run(stage, "dead-letters", "jobs", "--show", "0:0").stdout
    assert text.startswith(
        "jobs[0] offset 0 of generation 1\ntime      2019-03-01 10:00:00.123+00:00\nreason    out_of"
    )
    assert f"\nkey       3 bytes of text\n101\nvalue     {len(value)} bytes of text\n{value.decode()}\n" in text
    binary = run(stage, "dead-letters", "jobs", "--show", "1:0:1").stdout
    assert "\x1b" not in binary
    shown = re.search(r"value +9 bytes .*\n(\S+)\n00000000  ff 00 1b 5b .*  \|\.\.\.\[2Jbad\|\n$", binary)
    assert shown is not None
    assert b64decode(shown[1]) == raw
    assert "\nkey       null\n" in binary
    assert "\nheader    trace = a\nheader    trace = b\nheader    binary = base64 AP8=\n" in binary
    assert json.loads(run(stage, "dead-letters", "jobs", "--show", "1:0", "--json").stdout)["value"] is None
    assert_refused(run(stage, "dead-letters", "jobs", "--show", "0:9"), "jobs[0] 9: no dead letter there")
    assert_refused(run(stage, "dead-letters", "jobs", "--show", "x"), "'x': expected PARTITION:OFFSET")

    allow_refunds(stage)
    assert run(stage, "replay", "jobs", "--dry-run").stdout.startswith("jobs: 1 of 4 dead letters would be replayed")
    assert run(stage, "replay", "jobs", "--reason", "out_of_range").stdout.startswith("jobs: 1 of 1 dead letters were")
    document = json.loads(run(stage, "dead-letters", "jobs", "--json").stdout)
    assert {"reason": "out_of_range", "dead": 0, "replayed": 1, "acknowledged": 0} in document["reasons"]
    assert len(document["newest"]) == 3

    out = tmp_path / "dlq.jsonl"
    assert run(stage, "dead-letters", "jobs", "--export", str(out)).stdout == f"jobs: 4 dead letters in {out}\n"
    assert_exported(out, value, raw, str(stage.value("select _batch_id from staging.jobs")))
    before = out.read_bytes()
    stage.execute("alter table headrace.dead_letters rename column value to elsewhere")
    assert_refused(run(stage, "dead-letters", "jobs", "--export", str(out)), "postgres: ")
    assert out.read_bytes() == before
    assert list(tmp_path.glob("*.partial")) == []
