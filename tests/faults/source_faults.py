"""Trials in which the topic changes: transactions, growth, large records, recreation, retention, new partitions."""

from tests.faults.checks import Violation
from tests.faults.trials import Fault, TrialRun, at

# sources that change


def open_transaction(trial_run: TrialRun) -> None:
    """A producer leaves a transaction open while the drain runs and is killed; later it commits or aborts."""
    log, sender = trial_run.sandbox.stream.log, trial_run.sandbox.sender
    trial_run.send(least=50)
    sender.send(
        log, trial_run.traffic.batch(trial_run.rng.randint(2, 12), log.partitions), transaction=True, end="open"
    )
    behind = trial_run.traffic.batch(trial_run.rng.randint(10, 30), log.partitions)
    sender.send(log, behind, transaction=False, end="visible")
    ended = trial_run.run(at(trial_run.trial, "kill"))
    trial_run.verdict.fired = ended.how == "killed"
    again = trial_run.run()
    trial_run.expect(
        "pinned", again.how == "done", f"with a transaction open the drain ended with {again.text}, expected done"
    )
    hidden = [
        record
        for coordinate, record in log.records.items()
        if coordinate[1] >= trial_run.sandbox.stable_ends(log)[coordinate[0]]
    ]
    fates = [record.fate for record in hidden]
    for record in hidden:
        record.fate = "open"  # nothing at or behind the stable end may be stored yet
    trial_run.verdict.violations += _without_truths(trial_run.sandbox.judge())
    for record, fate in zip(hidden, fates, strict=True):
        record.fate = fate
    sender.end_open(log, trial_run.rng.choice(["visible", "aborted"]))
    trial_run.sandbox.settle(log)


def _without_truths(violations: list[Violation]) -> list[Violation]:
    # a record behind an open transaction is visible to its producer alone
    return [violation for violation in violations if violation.check != "0 truths agree"]


def growing(trial_run: TrialRun) -> None:
    """Producers continue after the plan: the run ends at its pinned ends."""
    trial_run.send(least=60)
    log = trial_run.sandbox.stream.log
    run = trial_run.start({"step": "planned", "nth": 1, "do": "wait"}, at(trial_run.trial, "wait"))
    run.wait_until_planned()
    pinned = trial_run.sandbox.settle(log)
    trial_run.send(least=20)
    run.go()
    if run.wait_for(trial_run.trial.step) is not None:
        trial_run.send(least=20)
        trial_run.verdict.fired = True
        run.go()
    ended = trial_run.sandbox.note(run.end())
    trial_run.expect("pinned", ended.how == "done", f"the run ended with {ended.text}, expected done")
    for line in trial_run.sandbox.evidence().lines:
        if line.run_id == ended.run_id:
            trial_run.expect(
                "pinned",
                line.end_offset <= pinned[line.partition],
                f"[{line.partition}] offset {line.end_offset}: the end of line {line.seq}, expected at most "
                f"{pinned[line.partition]}, where the log ended when the run was planned",
            )


def large_records(trial_run: TrialRun) -> None:
    """Records larger than a batch and a fetch, while a run is killed: they are read anyway."""
    trial_run.verdict.settings["batch_bytes"] = 4_000
    log = trial_run.sandbox.stream.log
    for _ in range(3):
        trial_run.send(least=15)
        records = trial_run.traffic.large(trial_run.rng.randint(4, 12), log.partitions)
        trial_run.sandbox.sender.send(log, records, transaction=trial_run.rng.random() < 0.5, end="visible")
    trial_run.sandbox.settle(log)
    ended = trial_run.run(at(trial_run.trial, "kill"))
    trial_run.verdict.fired = ended.how == "killed"


def recreated(trial_run: TrialRun) -> None:
    """The topic is deleted and created again, longer or shorter, before the plan or in the middle of a run."""
    sandbox = trial_run.sandbox
    stream = sandbox.new_stream()
    trial_run.send()
    before = trial_run.run(*([{"step": "committed", "nth": 3, "do": "kill"}] if trial_run.rng.random() < 0.3 else []))
    in_the_middle = trial_run.trial.step != "planned"
    run = None
    if in_the_middle:
        trial_run.send()
        run = trial_run.start(at(trial_run.trial, "wait"))
        if run.wait_for(trial_run.trial.step) is None:
            sandbox.note(run.end())
            return
    sandbox.evidence()  # the second client reads the old topic to its end
    old = stream.log
    ends = sandbox.stable_ends(old)
    sandbox.delete_topic(old.topic)
    new = sandbox.create_topic(old.topic, old.partitions)
    sandbox.sender.renew()
    stream.logs[2] = new
    trial_run.traffic.send(sandbox.sender, new, least=trial_run.rng.choice([30, 300]))
    sandbox.settle(new)
    if run is not None:
        run.go()
        ended = sandbox.note(run.end())
    else:
        ended = trial_run.run()
    trial_run.verdict.fired = before.how in ("done", "killed")
    trial_run.verdict.notes = ended.text
    # in the middle of a run the broker may be the first to notice; who comes next is told what is at risk
    noticed = {"SourceChanged", "SourceUnavailable"} if in_the_middle else {"SourceChanged"}
    trial_run.expect(
        "refuses", ended.error in noticed, f"{old.topic} was created again, the run ended with {ended.text}"
    )
    again = trial_run.run()
    trial_run.expect(
        "refuses",
        again.error == "SourceChanged" and "at risk" in again.message,
        f"the next run ended with {again.text}, expected it to refuse and to name the range at risk",
    )
    old.starts = ends  # the second client cannot read it any more
    adopted = trial_run.run(what="adopt")
    trial_run.expect("refuses", adopted.how == "done", f"adopt ended with {adopted.text}, expected done")


def retention(trial_run: TrialRun) -> None:
    """Retention overtakes the checkpoint: the run is refused and names the range; accept-loss continues after it."""
    sandbox = trial_run.sandbox
    stream = sandbox.new_stream()
    trial_run.send()
    trial_run.run({"step": "committed", "nth": trial_run.trial.nth, "do": "kill"})
    evidence = sandbox.evidence()
    log = stream.log
    partition = trial_run.rng.choice(
        [p for p, end in evidence.stable_ends.items() if evidence.checkpoints.get((1, p), 0) < end]
    )
    checkpoint = evidence.checkpoints.get((1, partition), 0)
    to = trial_run.rng.randint(checkpoint + 1, evidence.stable_ends[partition])
    sandbox.delete_records(log, partition, to)
    refused = trial_run.run()
    log.starts[partition] = to
    log.lost.append((partition, checkpoint, to))
    trial_run.verdict.fired = True
    trial_run.expect(
        "refuses",
        refused.error == "SourceChanged" and f"[{checkpoint}, {to})" in refused.message,
        f"[{partition}]: with [{checkpoint}, {to}) gone the run ended with {refused.text}, expected it to name that",
    )
    accepted = trial_run.run(what="accept_loss", partition=partition, to=to)
    trial_run.expect("refuses", accepted.how == "done", f"accept-loss ended with {accepted.text}, expected done")


def new_partition(trial_run: TrialRun) -> None:
    """A partition is added during a run: the next run finds it and begins at 0."""
    sandbox = trial_run.sandbox
    stream = sandbox.new_stream(2)
    trial_run.send()
    run = trial_run.start(at(trial_run.trial, "kill"))
    ended = sandbox.note(run.end())
    sandbox.add_partitions(stream.log, 4)
    trial_run.send()
    trial_run.verdict.fired = ended.how == "killed"


SOURCE_FAULTS: dict[str, Fault] = {
    fault.__name__: fault for fault in (open_transaction, growing, large_records, recreated, retention, new_partition)
}
