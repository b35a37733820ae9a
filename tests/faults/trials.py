"""The trials: each injects one fault into a loader at one step, lets other loaders finish, and checks the database."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults.checks import Violation
from tests.faults.proxy import Cut, How
from tests.faults.sandbox import LoaderRun, RunEnd, Sandbox, TimedOut
from tests.faults.traffic import Traffic

STEPS = ("fetched", "advanced", "copying", "staged", "copying_dead", "dead_lettered", "before_commit", "committed")
LOCKING_STEPS = STEPS[1:7]  # inside the transaction: the checkpoint's row is locked
# short, for hundreds of trials; one trial checks that the defaults stay below 20 s
SHORT_TIMEOUTS = {"lock_timeout_ms": 150, "stuck_after_ms": 400}
REPLACEMENT_LIMIT_S = 20.0  # the longest delay of a replacement by a frozen run
BATCHES_MIN = 3  # a trial counts only with this many batches


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial: its kind, the step of the fault, and the seed of all its random choices."""

    name: str
    kind: str
    step: str = ""
    nth: int = 1

    def random(self, seed: int) -> random.Random:
        """The trial's own random generator: depends only on the seed and the name."""
        return random.Random(f"{seed}/{self.name}/{self.kind}")


@dataclass(slots=True)
class Verdict:
    """The result of a trial."""

    trial: Trial
    fired: bool = False
    batches: int = 0
    violations: list[Violation] = field(default_factory=list)
    notes: str = ""
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the fault happened, and enough batches were committed."""
        return self.fired and self.batches >= BATCHES_MIN


class TrialRun:
    """A trial's environment: sandbox, random generator, records, and the verdict that it writes."""

    def __init__(self, sandbox: Sandbox, trial: Trial, rng: random.Random) -> None:
        self.sandbox = sandbox
        self.trial = trial
        self.rng = rng
        self.verdict = Verdict(trial)
        self.traffic = Traffic(rng, sandbox.users_file)
        self.lag_is_expected = False

    def send(self, least: int = 80) -> None:
        """Produce the trial's records and wait until they can be read."""
        self.traffic.send(self.sandbox.sender, self.sandbox.stream.log, least=least)
        self.sandbox.settle(self.sandbox.stream.log)

    def start(self, *actions: dict[str, Any], **request: Any) -> LoaderRun:
        """Start a loader with actions at its barriers."""
        request["settings"] = {**self._settings, **request.get("settings", {})}
        return self.sandbox.start(actions=list(actions), **request)

    def run(self, *actions: dict[str, Any], **request: Any) -> RunEnd:
        """Start a loader and wait for its end."""
        return self.sandbox.note(self.start(*actions, **request).end())

    @property
    def _settings(self) -> dict[str, Any]:
        return self.verdict.settings

    def expect(self, check: str, is_so: bool, message: str) -> None:
        """Add a violation unless the condition holds."""
        if not is_so:
            self.verdict.violations.append(Violation(check, f"{self.sandbox.stream.name}: {message}"))

    def expect_fenced(self, ended: RunEnd, who: str) -> None:
        """Expect that a run finished, or ended with the error that another run was first."""
        self.expect(
            "fence",
            ended.how == "done" or (ended.error == "CheckpointMoved" and "run" in ended.message),
            f"{who} ended with {ended.text}, expected to be told by the fence that another run was first",
        )


Fault = Callable[[TrialRun], None]


def run_trial(sandbox: Sandbox, trial: Trial, seed: int) -> Verdict:
    """Run one trial: produce, inject the fault, drain without faults, check."""
    began = time.monotonic()
    sandbox.begin_trial()
    rng = trial.random(seed)
    trial_run = TrialRun(sandbox, trial, rng)
    verdict = trial_run.verdict
    verdict.settings = {
        "batch_rows": rng.choice([10, 15, 20]),
        "batch_bytes": rng.choice([16 * 1024 * 1024, 16 * 1024 * 1024, 6_000]),
    }
    try:
        lines = _lines(sandbox)
        stream = sandbox.stream
        FAULTS[trial.kind](trial_run)
        heals = sandbox.heal()
        verdict.notes = verdict.notes or heals[-1].text
        if heals[-1].how != "done":
            trial_run.expect(
                "8 no lag", False, f"a drain without faults ended with {heals[-1].text}, expected it to finish"
            )
        violations = sandbox.judge()
        verdict.violations += violations
        verdict.batches = _lines(sandbox) - (lines if sandbox.stream is stream else 0)
    except TimedOut as stuck:
        verdict.violations.append(Violation("ends", f"{sandbox.stream.name}: {stuck}"))
    finally:
        sandbox.end_trial()
        if verdict.violations or trial.kind in SPOILING:
            sandbox.new_stream()
    verdict.seconds = time.monotonic() - began
    return verdict


def _lines(sandbox: Sandbox) -> int:
    row = sandbox.sql.execute(
        "select count(*) from headrace.batches where dataset = %s", (sandbox.stream.name,)
    ).fetchone()
    return row[0] if row else 0


def at(trial: Trial, do: str, **more: Any) -> dict[str, Any]:
    """The action of the trial's loader at the trial's barrier."""
    return {"step": trial.step, "nth": trial.nth, "do": do, **more}


# processes that die


def calm(trial_run: TrialRun) -> None:
    """No fault: never counts, but must be clean."""
    trial_run.send()
    ended = trial_run.run()
    trial_run.expect("8 no lag", ended.how == "done", f"a run without faults ended with {ended.text}, expected done")


def kill(trial_run: TrialRun) -> None:
    """SIGKILL at a barrier."""
    trial_run.send()
    ended = trial_run.run(at(trial_run.trial, "kill"))
    trial_run.verdict.fired = ended.how == "killed"


def kill_twice(trial_run: TrialRun) -> None:
    """SIGKILL at a barrier, also for the run that takes over."""
    trial_run.send()
    ended = trial_run.run(at(trial_run.trial, "kill"))
    again = trial_run.run({"step": trial_run.rng.choice(STEPS), "nth": trial_run.rng.choice([1, 2]), "do": "kill"})
    trial_run.verdict.fired = ended.how == again.how == "killed"


def kill_anywhen(trial_run: TrialRun) -> None:
    """SIGKILL from outside, at a random moment."""
    trial_run.send()
    run = trial_run.start(settings={"batch_rows": 10})
    run.wait_until_planned()
    time.sleep(trial_run.rng.uniform(0.0, 0.3))
    trial_run.verdict.fired = not run.has_ended()
    run.signal(signal.SIGKILL)
    trial_run.sandbox.note(run.end())


def interrupt(trial_run: TrialRun) -> None:
    """Raise an exception at a random place, like Ctrl-C or Airflow's time limit."""
    trial_run.send()
    ended = trial_run.run(at(trial_run.trial, "interrupt"))
    trial_run.verdict.fired = ended.error == "KeyboardInterrupt"


# connections that are lost


def terminate(trial_run: TrialRun) -> None:
    """End the run's backend, like an administrator or a restart: the run connects again and continues."""
    _strike(trial_run, "pg_terminate_backend", LOCKING_STEPS)


def cancel(trial_run: TrialRun) -> None:
    """Cancel a statement, like a timeout: the batch is rolled back and tried again."""
    _strike(trial_run, "pg_cancel_backend", ("copying", "copying_dead"))


def _strike(trial_run: TrialRun, function: str, certain: tuple[str, ...]) -> None:
    trial_run.send()
    run = trial_run.start(at(trial_run.trial, "wait"))
    if run.wait_for(trial_run.trial.step) is not None:
        backends = trial_run.sandbox.backends()
        for pid in backends:
            trial_run.sandbox.sql.execute(f"select {function}(%s)".encode(), (pid,))
        trial_run.verdict.fired = bool(backends)
        if function == "pg_terminate_backend":
            _wait(lambda: not set(backends) & set(trial_run.sandbox.backends()))
        run.go()
    ended = trial_run.sandbox.note(run.end())
    if trial_run.verdict.fired and trial_run.trial.step in certain:
        trial_run.expect(
            "recovers", ended.how == "done", f"the run ended with {ended.text}, expected it to try again and finish"
        )


def cut(trial_run: TrialRun) -> None:
    """Cut the connection at a COMMIT or in the middle of COPY; the run must find out whether it committed."""
    trial_run.send()
    how: How = trial_run.trial.step  # type: ignore[assignment]
    fault = trial_run.sandbox.proxy.arm(Cut(how, trial_run.trial.nth))
    ended = trial_run.run(through_proxy=True)
    trial_run.verdict.fired = fault.fired.is_set()
    if trial_run.verdict.fired:
        trial_run.expect(
            "recovers", ended.how == "done", f"the run ended with {ended.text}, expected it to go on by itself"
        )


def silence(trial_run: TrialRun) -> None:
    """Swallow a COMMIT and stay silent; a replacement runs; then reset the old connection."""
    trial_run.send()
    trial_run.verdict.settings |= SHORT_TIMEOUTS
    fault = trial_run.sandbox.proxy.arm(Cut("silence", trial_run.trial.nth))
    run = trial_run.start(through_proxy=True)
    trial_run.verdict.fired = fault.fired.wait(20)
    replacement = trial_run.run()
    trial_run.expect(
        "fence", replacement.how == "done", f"the replacement ended with {replacement.text}, expected done"
    )
    fault.heal()
    ended = trial_run.sandbox.note(run.end())
    trial_run.expect_fenced(ended, "the run that was cut off")


# frozen and concurrent runs


def zombie(trial_run: TrialRun) -> None:
    """SIGSTOP; a replacement runs to its end; SIGCONT: the frozen run ends with a clear error and writes nothing."""
    trial_run.verdict.settings |= SHORT_TIMEOUTS
    _zombie(trial_run)


def zombie_defaults(trial_run: TrialRun) -> None:
    """The same with the real time limits: the frozen run costs its replacement less than 20 s.

    On a machine that is idle the replacement finishes within them; on a busy one a drain alone takes seconds, which
    are measured first.
    """
    trial_run.send()
    began = time.monotonic()
    trial_run.run()
    _zombie(trial_run, usual_s=time.monotonic() - began)


def _zombie(trial_run: TrialRun, usual_s: float = 0.0) -> None:
    trial_run.send()
    run = trial_run.start(at(trial_run.trial, "stop"))
    if run.wait_for(trial_run.trial.step) is None:
        trial_run.sandbox.note(run.end())
        return
    run.wait_until_stopped()
    began = time.monotonic()
    replacement = trial_run.run(settings={"batch_rows": trial_run.rng.choice([7, 20, 500])})
    seconds = time.monotonic() - began
    trial_run.verdict.fired = True
    trial_run.verdict.notes = (
        f"the replacement of a run that was frozen at {trial_run.trial.step!r} took {seconds:.1f} s"
    )
    trial_run.expect(
        "fence", replacement.how == "done", f"the replacement ended with {replacement.text}, expected done"
    )
    trial_run.expect(
        "fence",
        seconds - usual_s < REPLACEMENT_LIMIT_S,
        f"the replacement took {seconds:.1f} s and a drain alone {usual_s:.1f} s, expected at most "
        f"{REPLACEMENT_LIMIT_S:.0f} s more",
    )
    before = trial_run.sandbox.evidence().fingerprint
    run.signal(signal.SIGCONT)
    ended = trial_run.sandbox.note(run.end())
    trial_run.verdict.notes += f"; the zombie ended with {ended.text}"
    trial_run.expect_fenced(ended, "the zombie")
    trial_run.expect(
        "zombie wrote nothing", trial_run.sandbox.evidence().fingerprint == before, "the zombie wrote after it woke"
    )


def two_at_once(trial_run: TrialRun) -> None:
    """Two drains with the same plan, released at the same moment."""
    trial_run.send()
    runs = [trial_run.start({"step": "planned", "nth": 1, "do": "wait"}) for _ in range(2)]
    plans = [run.wait_until_planned() for run in runs]
    trial_run.verdict.fired = plans[0] is not None and plans[0] == plans[1]
    for run in runs:
        run.go()
    for run in runs:
        trial_run.expect_fenced(trial_run.sandbox.note(run.end()), "one of two drains at once")


def retried(trial_run: TrialRun) -> None:
    """A task is retried while its first attempt still runs and waits at a barrier."""
    trial_run.send()
    first = trial_run.start(at(trial_run.trial, "wait"))
    if first.wait_for(trial_run.trial.step) is None:
        trial_run.sandbox.note(first.end())
        return
    second = trial_run.start()
    trial_run.verdict.fired = second.wait_until_planned() is not None
    if trial_run.trial.step in LOCKING_STEPS:
        _wait(lambda: second.has_ended() or _blocked(trial_run.sandbox) > 0)
    else:
        _wait(second.has_ended)
    first.go()
    for run, who in ((first, "the first try"), (second, "the second try")):
        trial_run.expect_fenced(trial_run.sandbox.note(run.end()), who)


def slow_beside_fast(trial_run: TrialRun) -> None:
    """A drain that is slow at every step beside a fast one: neither ends the other."""
    trial_run.send()
    # two pauses without a statement between them are shorter than the stuck limit, all together are much longer
    trial_run.verdict.settings |= {"lock_timeout_ms": 150, "stuck_after_ms": 1_000}
    naps = [
        {"step": step, "nth": 1, "do": "sleep", "seconds": 0.35} for step in LOCKING_STEPS if step != "copying_dead"
    ]
    fast = trial_run.start({"step": "fetched", "nth": 1, "do": "wait"})
    fast.wait_for("fetched")
    slow = trial_run.start(*naps)
    slow.wait_for("advanced")
    fast.go()
    _wait(lambda: fast.has_ended() or slow.has_ended() or _blocked(trial_run.sandbox) > 0)
    trial_run.verdict.fired = not fast.has_ended() and not slow.has_ended()
    for run, who in ((slow, "the slow drain"), (fast, "the fast drain")):
        ended = trial_run.sandbox.note(run.end())
        trial_run.expect_fenced(ended, who)
        ended_others = [line for line in ended.log if "ended backend" in line]
        trial_run.expect(
            "healthy drains are left alone", not ended_others, f"{who}: {ended_others}, expected it to wait"
        )
        connects = ended.connects.get(f"headrace drain {trial_run.sandbox.stream.name}", 0)
        opened = 1 if run is slow else 2  # the fast one's lock watchdog opens a second connection
        trial_run.expect(
            "healthy drains are left alone",
            connects <= opened,
            f"{who} opened {connects} connections, expected {opened}: its own was ended under it",
        )


def adopted_meanwhile(trial_run: TrialRun) -> None:
    """A run pauses while the topic is adopted: it must not write into the closed generation."""
    trial_run.send()
    trial_run.verdict.settings |= SHORT_TIMEOUTS
    run = trial_run.start(at(trial_run.trial, "wait"))
    if run.wait_for(trial_run.trial.step) is None:
        trial_run.sandbox.note(run.end())
        return
    adopted = trial_run.run(what="adopt_anyway")
    trial_run.verdict.fired = adopted.how == "done"
    stream = trial_run.sandbox.stream
    stream.logs[int(adopted.result["generation"])] = stream.log
    run.go()
    ended = trial_run.sandbox.note(run.end())
    trial_run.expect(
        "fence", ended.error == "CheckpointMoved", f"ended with {ended.text}, expected to hear of the adoption"
    )


def adopted_under_it(trial_run: TrialRun) -> None:
    """A batch waits for its checkpoint's lock while an adoption that holds it commits."""
    trial_run.send()
    run = trial_run.start(at(trial_run.trial, "wait"))
    if run.wait_for(trial_run.trial.step) is None:
        trial_run.sandbox.note(run.end())
        return
    with psycopg.connect(trial_run.sandbox.dsn, application_name="faults gate") as gate:
        gate.execute("select 1 from headrace.datasets where dataset = %s for update", (trial_run.sandbox.stream.name,))
        adoption = trial_run.start(what="adopt_anyway")
        _wait(lambda: _blocked(trial_run.sandbox) == 1)  # it holds the checkpoints, and waits for the dataset's row
        run.go()
        _wait(lambda: _blocked(trial_run.sandbox) == 2)
        gate.commit()
    adopted = trial_run.sandbox.note(adoption.end())
    trial_run.verdict.fired = adopted.how == "done"
    trial_run.sandbox.stream.logs[int(adopted.result["generation"])] = trial_run.sandbox.stream.log
    ended = trial_run.sandbox.note(run.end())
    trial_run.expect(
        "fence", ended.error == "CheckpointMoved", f"ended with {ended.text}, expected to hear of the adoption"
    )


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
        record.fate = "open"  # nothing at or after the last stable offset may be stored yet
    trial_run.verdict.violations += _without_truths(trial_run.sandbox.judge())
    for record, fate in zip(hidden, fates, strict=True):
        record.fate = fate
    sender.end_open(log, trial_run.rng.choice(["visible", "aborted"]))
    trial_run.sandbox.settle(log)


def _without_truths(violations: list[Violation]) -> list[Violation]:
    # a record after the start of an open transaction is visible only to its producer
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
    # during a run the broker may report it first; the next run names the range at risk
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
    old.starts = ends  # the second client can no longer read it
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


_DIE = (calm, kill, kill_twice, kill_anywhen, interrupt)
_CUT_OFF = (terminate, cancel, cut, silence)
_RIVALS = (zombie, zombie_defaults, two_at_once, retried, slow_beside_fast, adopted_meanwhile, adopted_under_it)
_SOURCES = (open_transaction, growing, large_records, recreated, retention, new_partition)

FAULTS: dict[str, Fault] = {fault.__name__: fault for fault in (*_DIE, *_CUT_OFF, *_RIVALS, *_SOURCES)}
# kinds whose streams are not used again
SPOILING = {"adopted_meanwhile", "adopted_under_it", "recreated", "retention", "new_partition"}


def _wait(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOut(f"waited {limit_s:.0f} s for a moment that did not come")
        time.sleep(0.005)


def _blocked(sandbox: Sandbox) -> int:
    row = sandbox.sql.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchone()
    return row[0] if row else 0
