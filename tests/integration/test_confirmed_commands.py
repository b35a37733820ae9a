"""Irreversible commands print their effects, and require --yes."""

from headrace.ingest.parallel import drain_dataset
from tests.support import topics
from tests.support.command_line import run
from tests.support.jobs import recreate, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, ledger_lines
from tests.support.stage import Stage


def told(stage: Stage, *command: str) -> list[str]:
    """What a command says that waits for --yes, and changes nothing."""
    before = ledger_lines(stage)
    outcome = run(stage, *command)
    assert outcome.status == 1
    assert outcome.stderr == f"headrace: nothing was changed; `headrace {' '.join(command)} --yes` does it\n"
    assert ledger_lines(stage) == before
    return outcome.stdout.splitlines()


def test_commands_that_cannot_be_undone_say_what_they_do_and_wait_for_yes(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 30)
    topic = topic_of(stage)
    topics.delete_records(servers(stage), topic, {1: 15})
    assert told(stage, "accept-loss", "jobs", "--partition", "1", "--to", "15") == [
        "jobs[1]: abandons [10, 15), 5 offsets that were never read: the log starts at 15",
        "jobs[1]: the next run continues at 15",
    ]
    # the same topic: retention is the reason, and what it still holds of what was read would be there twice
    assert told(stage, "adopt", "jobs") == [
        "jobs: jobs[1]: retention overtook the checkpoint: [10, 15) is no longer served and was never read",
        f"jobs[0]: reads [0, 20) of {topic}; 10 offsets of it were read before and will be staged "
        "twice; 10 rows of generation 1 stay",
        f"jobs[1]: reads [15, 20) of {topic}; 10 rows of generation 1 stay",
        f"jobs[2]: reads [0, 20) of {topic}; 10 offsets of it were read before and will be staged "
        "twice; 10 rows of generation 1 stay",
    ]
    recreate(stage, 1)
    sent = send_jobs(stage, 5, 1)
    effects = told(stage, "adopt", "jobs")
    assert f"jobs: topic {topic} has id " in effects[0]
    assert effects[1:] == [
        f"jobs[0]: reads [0, 5) of {topic}; records of {topic} from 10 on are abandoned; 10 rows of generation 1 stay",
        *(
            f"jobs[{p}]: the partition is gone; records of {topic} from 10 on are abandoned; 10 rows of generation 1 "
            "stay"
            for p in (1, 2)
        ),
    ]
    outcome = run(stage, "adopt", "jobs", "--yes")
    assert (outcome.status, outcome.stdout.splitlines()) == (0, [*effects, "jobs: generation 2 is open"])
    assert stage.value("select note from headrace.batches where kind = 'adopt'").startswith(f"topic {topic} has id ")
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)
    (effect,) = told(stage, "reset", "jobs")
    assert effect == (
        "jobs: deletes 35 staged, 0 dead, 5 batches, 4 checkpoints; the next run reads the source from its start"
    )
    assert run(stage, "reset", "jobs", "--yes").stdout.splitlines() == [
        effect,
        "jobs: deleted 35 staged, 0 dead, 5 batches, 4 checkpoints",
    ]
    assert run(stage, "reset", "jobs").stdout == "jobs: nothing to delete\n"
