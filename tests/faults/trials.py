"""The trials: each does one thing to a loader at one moment, lets others finish the work, and is then judged."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults.checks import Violation
from tests.faults.lane import Ended, Lane, Run, Stuck
from tests.faults.proxy import Cut, How
from tests.faults.traffic import Traffic

STEPS = ("fetched", "advanced", "copying", "staged", "copying_dead", "dead_lettered", "before_commit", "committed")
HOLDING = STEPS[1:7]  # inside the transaction: the checkpoint's row is locked
# quick enough for hundreds of trials; that the defaults stay below 20 s is a trial of its own
IMPATIENT = {"lock_timeout_ms": 150, "stuck_after_ms": 400}
REPLACEMENT_LIMIT_S = 20.0  # what a zombie may cost its replacement
BATCHES_MIN = 3  # a trial counts only if so many were in play


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: what kind, where in the loader, and all its randomness from a seed."""

    name: str
    kind: str
    step: str = ""
    nth: int = 1

    def random(self, seed: int) -> random.Random:
        """The trial's own random: repeated by the seed and the name, whatever ran before."""
        return random.Random(f"{seed}/{self.name}/{self.kind}")


@dataclass(slots=True)
class Verdict:
    """What became of a trial."""

    trial: Trial
    fired: bool = False
    batches: int = 0
    violations: list[Violation] = field(default_factory=list)
    notes: str = ""
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the fault happened, with enough in play to go wrong."""
        return self.fired and self.batches >= BATCHES_MIN


class Scene:
    """What a trial works with: a lane, its random, its traffic and the verdict that it writes."""

    def __init__(self, lane: Lane, trial: Trial, rng: random.Random) -> None:
        self.lane = lane
        self.trial = trial
        self.rng = rng
        self.verdict = Verdict(trial)
        self.traffic = Traffic(rng, lane.users_file)
        self.lag_is_expected = False

    def send(self, least: int = 80) -> None:
        """Put the trial's records into the topic and wait until they can be read."""
        self.traffic.send(self.lane.sender, self.lane.stream.log, least=least)
        self.lane.settle(self.lane.stream.log)

    def start(self, *actions: dict[str, Any], **request: Any) -> Run:
        """Start a loader that does something at its barriers."""
        request["settings"] = {**self._settings, **request.get("settings", {})}
        return self.lane.start(actions=list(actions), **request)

    def run(self, *actions: dict[str, Any], **request: Any) -> Ended:
        """Start one and wait for its end."""
        return self.lane.note(self.start(*actions, **request).end())

    @property
    def _settings(self) -> dict[str, Any]:
        return self.verdict.settings

    def expect(self, check: str, is_so: bool, message: str) -> None:
        """A violation unless it is so."""
        if not is_so:
            self.verdict.violations.append(Violation(check, f"{self.lane.stream.name}: {message}"))

    def expect_fenced(self, ended: Ended, who: str) -> None:
        """It may have finished before, or was told clearly that another run was first; nothing else stopped it."""
        self.expect(
            "fence",
            ended.how == "done" or (ended.error == "CheckpointMoved" and "run" in ended.message),
            f"{who} ended with {ended.text}, expected to be told by the fence that another run was first",
        )


Play = Callable[[Scene], None]


def play(lane: Lane, trial: Trial, seed: int) -> Verdict:
    """Run one trial: traffic, fault, healing, checks."""
    began = time.monotonic()
    lane.begin_trial()
    rng = trial.random(seed)
    scene = Scene(lane, trial, rng)
    verdict = scene.verdict
    verdict.settings = {
        "batch_rows": rng.choice([10, 15, 20]),
        "batch_bytes": rng.choice([16 * 1024 * 1024, 16 * 1024 * 1024, 6_000]),
    }
    try:
        lines = _lines(lane)
        stream = lane.stream
        KINDS[trial.kind](scene)
        heals = lane.heal()
        verdict.notes = verdict.notes or heals[-1].text
        if heals[-1].how != "done":
            scene.expect(
                "8 no lag", False, f"a drain without faults ended with {heals[-1].text}, expected it to finish"
            )
        violations = lane.judge()
        verdict.violations += violations
        verdict.batches = _lines(lane) - (lines if lane.stream is stream else 0)
    except Stuck as stuck:
        verdict.violations.append(Violation("ends", f"{lane.stream.name}: {stuck}"))
    finally:
        lane.end_trial()
        if verdict.violations or trial.kind in SPOILING:
            lane.new_stream()
    verdict.seconds = time.monotonic() - began
    return verdict


def _lines(lane: Lane) -> int:
    row = lane.sql.execute("select count(*) from headrace.batches where dataset = %s", (lane.stream.name,)).fetchone()
    return row[0] if row else 0


def at(trial: Trial, do: str, **more: Any) -> dict[str, Any]:
    """What the trial's loader does at the trial's barrier."""
    return {"step": trial.step, "nth": trial.nth, "do": do, **more}


# processes that die


def calm(scene: Scene) -> None:
    """No fault at all: counts for nothing, but must be clean."""
    scene.send()
    ended = scene.run()
    scene.expect("8 no lag", ended.how == "done", f"a run without faults ended with {ended.text}, expected done")


def kill(scene: Scene) -> None:
    """SIGKILL at a barrier."""
    scene.send()
    ended = scene.run(at(scene.trial, "kill"))
    scene.verdict.fired = ended.how == "killed"


def kill_twice(scene: Scene) -> None:
    """SIGKILL, and the run that takes over dies as well."""
    scene.send()
    ended = scene.run(at(scene.trial, "kill"))
    again = scene.run({"step": scene.rng.choice(STEPS), "nth": scene.rng.choice([1, 2]), "do": "kill"})
    scene.verdict.fired = ended.how == again.how == "killed"


def kill_anywhen(scene: Scene) -> None:
    """SIGKILL from outside, at a random moment."""
    scene.send()
    run = scene.start(settings={"batch_rows": 10})
    run.wait_until_planned()
    time.sleep(scene.rng.uniform(0.0, 0.3))
    scene.verdict.fired = not run.has_ended()
    run.signal(signal.SIGKILL)
    scene.lane.note(run.end())


def interrupt(scene: Scene) -> None:
    """Ctrl-C, or Airflow's own time limit: an exception out of nowhere unwinds the run."""
    scene.send()
    ended = scene.run(at(scene.trial, "interrupt"))
    scene.verdict.fired = ended.error == "KeyboardInterrupt"


# connections that are lost


def terminate(scene: Scene) -> None:
    """An administrator ends the backend, or its server restarts: the run connects again and goes on."""
    _strike(scene, "pg_terminate_backend", HOLDING)


def cancel(scene: Scene) -> None:
    """A statement is cancelled, as by a time limit: roll back all, try again."""
    _strike(scene, "pg_cancel_backend", ("copying", "copying_dead"))


def _strike(scene: Scene, function: str, certain: tuple[str, ...]) -> None:
    scene.send()
    run = scene.start(at(scene.trial, "wait"))
    if run.wait_for(scene.trial.step) is not None:
        backends = scene.lane.backends()
        for pid in backends:
            scene.lane.sql.execute(f"select {function}(%s)".encode(), (pid,))
        scene.verdict.fired = bool(backends)
        if function == "pg_terminate_backend":
            _wait(lambda: not set(backends) & set(scene.lane.backends()))
        run.go()
    ended = scene.lane.note(run.end())
    if scene.verdict.fired and scene.trial.step in certain:
        scene.expect(
            "recovers", ended.how == "done", f"the run ended with {ended.text}, expected it to try again and finish"
        )


def cut(scene: Scene) -> None:
    """The line is cut at a COMMIT, or in the middle of COPY; the run must find out by itself what happened."""
    scene.send()
    how: How = scene.trial.step  # type: ignore[assignment]
    fault = scene.lane.proxy.arm(Cut(how, scene.trial.nth))
    ended = scene.run(through_proxy=True)
    scene.verdict.fired = fault.fired.is_set()
    if scene.verdict.fired:
        scene.expect(
            "recovers", ended.how == "done", f"the run ended with {ended.text}, expected it to go on by itself"
        )


def silence(scene: Scene) -> None:
    """The network swallows a COMMIT and stays silent; a replacement runs; then the old connection breaks."""
    scene.send()
    scene.verdict.settings |= IMPATIENT
    fault = scene.lane.proxy.arm(Cut("silence", scene.trial.nth))
    run = scene.start(through_proxy=True)
    scene.verdict.fired = fault.fired.wait(20)
    replacement = scene.run()
    scene.expect("fence", replacement.how == "done", f"the replacement ended with {replacement.text}, expected done")
    fault.heal()
    ended = scene.lane.note(run.end())
    scene.expect_fenced(ended, "the run that was cut off")


# zombies and rivals


def zombie(scene: Scene) -> None:
    """SIGSTOP, a replacement runs to the end, SIGCONT: the zombie ends with a clear error and has written nothing."""
    scene.verdict.settings |= IMPATIENT
    _zombie(scene)


def zombie_defaults(scene: Scene) -> None:
    """The same with the real time limits: the frozen run costs its replacement less than 20 s.

    On a machine that is idle the replacement finishes within them; on a busy one a drain alone takes seconds, which
    are measured first.
    """
    scene.send()
    began = time.monotonic()
    scene.run()
    _zombie(scene, usual_s=time.monotonic() - began)


def _zombie(scene: Scene, usual_s: float = 0.0) -> None:
    scene.send()
    run = scene.start(at(scene.trial, "stop"))
    if run.wait_for(scene.trial.step) is None:
        scene.lane.note(run.end())
        return
    run.wait_until_stopped()
    began = time.monotonic()
    replacement = scene.run(settings={"batch_rows": scene.rng.choice([7, 20, 500])})
    seconds = time.monotonic() - began
    scene.verdict.fired = True
    scene.verdict.notes = f"the replacement of a run that was frozen at {scene.trial.step!r} took {seconds:.1f} s"
    scene.expect("fence", replacement.how == "done", f"the replacement ended with {replacement.text}, expected done")
    scene.expect(
        "fence",
        seconds - usual_s < REPLACEMENT_LIMIT_S,
        f"the replacement took {seconds:.1f} s and a drain alone {usual_s:.1f} s, expected at most "
        f"{REPLACEMENT_LIMIT_S:.0f} s more",
    )
    before = scene.lane.evidence().fingerprint
    run.signal(signal.SIGCONT)
    ended = scene.lane.note(run.end())
    scene.verdict.notes += f"; the zombie ended with {ended.text}"
    scene.expect_fenced(ended, "the zombie")
    scene.expect("zombie wrote nothing", scene.lane.evidence().fingerprint == before, "the zombie wrote after it woke")


def two_at_once(scene: Scene) -> None:
    """Two drains with the same plan, let go at the same moment."""
    scene.send()
    runs = [scene.start({"step": "planned", "nth": 1, "do": "wait"}) for _ in range(2)]
    plans = [run.wait_until_planned() for run in runs]
    scene.verdict.fired = plans[0] is not None and plans[0] == plans[1]
    for run in runs:
        run.go()
    for run in runs:
        scene.expect_fenced(scene.lane.note(run.end()), "one of two drains at once")


def retried(scene: Scene) -> None:
    """A task is tried again while its first try still runs, and waits at a barrier."""
    scene.send()
    first = scene.start(at(scene.trial, "wait"))
    if first.wait_for(scene.trial.step) is None:
        scene.lane.note(first.end())
        return
    second = scene.start()
    scene.verdict.fired = second.wait_until_planned() is not None
    if scene.trial.step in HOLDING:
        _wait(lambda: second.has_ended() or _blocked(scene.lane) > 0)
    else:
        _wait(second.has_ended)
    first.go()
    for run, who in ((first, "the first try"), (second, "the second try")):
        scene.expect_fenced(scene.lane.note(run.end()), who)


def slow_beside_fast(scene: Scene) -> None:
    """A drain that is slow at every step, but alive, beside a fast one: neither ends the other."""
    scene.send()
    # two naps without a statement between them stay below what counts as stuck, all together are far above it
    scene.verdict.settings |= {"lock_timeout_ms": 150, "stuck_after_ms": 1_000}
    naps = [{"step": step, "nth": 1, "do": "sleep", "seconds": 0.35} for step in HOLDING if step != "copying_dead"]
    fast = scene.start({"step": "fetched", "nth": 1, "do": "wait"})
    fast.wait_for("fetched")
    slow = scene.start(*naps)
    slow.wait_for("advanced")
    fast.go()
    _wait(lambda: fast.has_ended() or slow.has_ended() or _blocked(scene.lane) > 0)
    scene.verdict.fired = not fast.has_ended() and not slow.has_ended()
    for run, who in ((slow, "the slow drain"), (fast, "the fast drain")):
        ended = scene.lane.note(run.end())
        scene.expect_fenced(ended, who)
        ended_others = [line for line in ended.log if "ended backend" in line]
        scene.expect("healthy drains are left alone", not ended_others, f"{who}: {ended_others}, expected it to wait")
        connects = ended.connects.get(f"headrace drain {scene.lane.stream.name}", 0)
        opened = 1 if run is slow else 2  # the fast one's observer has a connection of its own
        scene.expect(
            "healthy drains are left alone",
            connects <= opened,
            f"{who} opened {connects} connections, expected {opened}: its own was ended under it",
        )


def adopted_meanwhile(scene: Scene) -> None:
    """A run is held up while somebody adopts the topic anew: it must not write into the closed generation."""
    scene.send()
    scene.verdict.settings |= IMPATIENT
    run = scene.start(at(scene.trial, "wait"))
    if run.wait_for(scene.trial.step) is None:
        scene.lane.note(run.end())
        return
    adopted = scene.run(what="adopt_anyway")
    scene.verdict.fired = adopted.how == "done"
    stream = scene.lane.stream
    stream.logs[int(adopted.result["generation"])] = stream.log
    run.go()
    ended = scene.lane.note(run.end())
    scene.expect(
        "fence", ended.error == "CheckpointMoved", f"ended with {ended.text}, expected to hear of the adoption"
    )


def adopted_under_it(scene: Scene) -> None:
    """A batch waits for its checkpoint's lock while an adoption that holds it commits."""
    scene.send()
    run = scene.start(at(scene.trial, "wait"))
    if run.wait_for(scene.trial.step) is None:
        scene.lane.note(run.end())
        return
    with psycopg.connect(scene.lane.dsn, application_name="faults gate") as gate:
        gate.execute("select 1 from headrace.datasets where dataset = %s for update", (scene.lane.stream.name,))
        adoption = scene.start(what="adopt_anyway")
        _wait(lambda: _blocked(scene.lane) == 1)  # it holds the checkpoints, and waits for the dataset's row
        run.go()
        _wait(lambda: _blocked(scene.lane) == 2)
        gate.commit()
    adopted = scene.lane.note(adoption.end())
    scene.verdict.fired = adopted.how == "done"
    scene.lane.stream.logs[int(adopted.result["generation"])] = scene.lane.stream.log
    ended = scene.lane.note(run.end())
    scene.expect(
        "fence", ended.error == "CheckpointMoved", f"ended with {ended.text}, expected to hear of the adoption"
    )


# sources that change


def open_transaction(scene: Scene) -> None:
    """A producer hangs in a transaction while the drain runs and is killed; later it commits or aborts."""
    log, sender = scene.lane.stream.log, scene.lane.sender
    scene.send(least=50)
    sender.send(log, scene.traffic.batch(scene.rng.randint(2, 12), log.partitions), transaction=True, end="open")
    behind = scene.traffic.batch(scene.rng.randint(10, 30), log.partitions)
    sender.send(log, behind, transaction=False, end="visible")
    ended = scene.run(at(scene.trial, "kill"))
    scene.verdict.fired = ended.how == "killed"
    again = scene.run()
    scene.expect(
        "pinned", again.how == "done", f"with a transaction open the drain ended with {again.text}, expected done"
    )
    hidden = [record for place, record in log.records.items() if place[1] >= scene.lane.stable_ends(log)[place[0]]]
    fates = [record.fate for record in hidden]
    for record in hidden:
        record.fate = "open"  # nothing at or behind the stable end may be stored yet
    scene.verdict.violations += _without_truths(scene.lane.judge())
    for record, fate in zip(hidden, fates, strict=True):
        record.fate = fate
    sender.end_open(log, scene.rng.choice(["visible", "aborted"]))
    scene.lane.settle(log)


def _without_truths(violations: list[Violation]) -> list[Violation]:
    # a record behind an open transaction is visible to its producer alone
    return [violation for violation in violations if violation.check != "0 truths agree"]


def growing(scene: Scene) -> None:
    """Producers go on after the plan: the run ends at its pinned ends."""
    scene.send(least=60)
    log = scene.lane.stream.log
    run = scene.start({"step": "planned", "nth": 1, "do": "wait"}, at(scene.trial, "wait"))
    run.wait_until_planned()
    pinned = scene.lane.settle(log)
    scene.send(least=20)
    run.go()
    if run.wait_for(scene.trial.step) is not None:
        scene.send(least=20)
        scene.verdict.fired = True
        run.go()
    ended = scene.lane.note(run.end())
    scene.expect("pinned", ended.how == "done", f"the run ended with {ended.text}, expected done")
    for line in scene.lane.evidence().lines:
        if line.run_id == ended.run_id:
            scene.expect(
                "pinned",
                line.end_offset <= pinned[line.partition],
                f"[{line.partition}] offset {line.end_offset}: the end of line {line.seq}, expected at most "
                f"{pinned[line.partition]}, where the log ended when the run was planned",
            )


def large_records(scene: Scene) -> None:
    """Records larger than a batch and a fetch may be, while a run is killed: what is too large for both still flows."""
    scene.verdict.settings["batch_bytes"] = 4_000
    log = scene.lane.stream.log
    for _ in range(3):
        scene.send(least=15)
        records = scene.traffic.large(scene.rng.randint(4, 12), log.partitions)
        scene.lane.sender.send(log, records, transaction=scene.rng.random() < 0.5, end="visible")
    scene.lane.settle(log)
    ended = scene.run(at(scene.trial, "kill"))
    scene.verdict.fired = ended.how == "killed"


def recreated(scene: Scene) -> None:
    """The topic is deleted and made anew, longer or shorter, before the plan or in the middle of a run."""
    lane = scene.lane
    stream = lane.new_stream()
    scene.send()
    before = scene.run(*([{"step": "committed", "nth": 3, "do": "kill"}] if scene.rng.random() < 0.3 else []))
    in_the_middle = scene.trial.step != "planned"
    run = None
    if in_the_middle:
        scene.send()
        run = scene.start(at(scene.trial, "wait"))
        if run.wait_for(scene.trial.step) is None:
            lane.note(run.end())
            return
    lane.evidence()  # the second client reads the old topic to its end
    old = stream.log
    ends = lane.stable_ends(old)
    lane.delete_topic(old.topic)
    new = lane.create_topic(old.topic, old.partitions)
    lane.sender.renew()
    stream.logs[2] = new
    scene.traffic.send(lane.sender, new, least=scene.rng.choice([30, 300]))
    lane.settle(new)
    if run is not None:
        run.go()
        ended = lane.note(run.end())
    else:
        ended = scene.run()
    scene.verdict.fired = before.how in ("done", "killed")
    scene.verdict.notes = ended.text
    # in the middle of a run the broker may be the first to notice; who comes next is told what is at risk
    noticed = {"SourceChanged", "SourceUnavailable"} if in_the_middle else {"SourceChanged"}
    scene.expect("refuses", ended.error in noticed, f"with {old.topic} made anew the run ended with {ended.text}")
    again = scene.run()
    scene.expect(
        "refuses",
        again.error == "SourceChanged" and "at risk" in again.message,
        f"the next run ended with {again.text}, expected it to refuse and to name the range at risk",
    )
    old.starts = ends  # the second client cannot read it any more
    adopted = scene.run(what="adopt")
    scene.expect("refuses", adopted.how == "done", f"adopt ended with {adopted.text}, expected done")


def retention(scene: Scene) -> None:
    """Retention overtakes the checkpoint: refuse, name the range, go on behind it only when told to."""
    lane = scene.lane
    stream = lane.new_stream()
    scene.send()
    scene.run({"step": "committed", "nth": scene.trial.nth, "do": "kill"})
    evidence = lane.evidence()
    log = stream.log
    partition = scene.rng.choice(
        [p for p, end in evidence.stable_ends.items() if evidence.checkpoints.get((1, p), 0) < end]
    )
    checkpoint = evidence.checkpoints.get((1, partition), 0)
    to = scene.rng.randint(checkpoint + 1, evidence.stable_ends[partition])
    lane.delete_records(log, partition, to)
    refused = scene.run()
    log.starts[partition] = to
    log.lost.append((partition, checkpoint, to))
    scene.verdict.fired = True
    scene.expect(
        "refuses",
        refused.error == "SourceChanged" and f"[{checkpoint}, {to})" in refused.message,
        f"[{partition}]: with [{checkpoint}, {to}) gone the run ended with {refused.text}, expected it to name that",
    )
    accepted = scene.run(what="accept_loss", partition=partition, to=to)
    scene.expect("refuses", accepted.how == "done", f"accept-loss ended with {accepted.text}, expected done")


def new_partition(scene: Scene) -> None:
    """A partition is added while a run is under way: the next one finds it and begins at 0."""
    lane = scene.lane
    stream = lane.new_stream(2)
    scene.send()
    run = scene.start(at(scene.trial, "kill"))
    ended = lane.note(run.end())
    lane.add_partitions(stream.log, 4)
    scene.send()
    scene.verdict.fired = ended.how == "killed"


_DIE = (calm, kill, kill_twice, kill_anywhen, interrupt)
_CUT_OFF = (terminate, cancel, cut, silence)
_RIVALS = (zombie, zombie_defaults, two_at_once, retried, slow_beside_fast, adopted_meanwhile, adopted_under_it)
_SOURCES = (open_transaction, growing, large_records, recreated, retention, new_partition)

KINDS: dict[str, Play] = {play_.__name__: play_ for play_ in (*_DIE, *_CUT_OFF, *_RIVALS, *_SOURCES)}
# their streams are not used again
SPOILING = {"adopted_meanwhile", "adopted_under_it", "recreated", "retention", "new_partition"}


def _wait(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise Stuck(f"waited {limit_s:.0f} s for a moment that did not come")
        time.sleep(0.005)


def _blocked(lane: Lane) -> int:
    row = lane.sql.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchone()
    return row[0] if row else 0
