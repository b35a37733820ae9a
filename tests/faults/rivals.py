"""Trials in which a loader meets another: frozen ones, retries, two at once, an adoption meanwhile."""

import signal
import time

import psycopg

from tests.faults.trials import LOCKING_STEPS, SHORT_TIMEOUTS, Fault, TrialRun, at, blocked_sessions, wait_until

REPLACEMENT_LIMIT_S = 20.0  # what a zombie may cost its replacement


# zombies and rivals


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
        wait_until(lambda: second.has_ended() or blocked_sessions(trial_run.sandbox) > 0)
    else:
        wait_until(second.has_ended)
    first.go()
    for run, who in ((first, "the first try"), (second, "the second try")):
        trial_run.expect_fenced(trial_run.sandbox.note(run.end()), who)


def slow_beside_fast(trial_run: TrialRun) -> None:
    """A drain that is slow at every step beside a fast one: neither ends the other."""
    trial_run.send()
    # two naps without a statement between them stay below what counts as stuck, all together are far above it
    trial_run.verdict.settings |= {"lock_timeout_ms": 150, "stuck_after_ms": 1_000}
    naps = [
        {"step": step, "nth": 1, "do": "sleep", "seconds": 0.35} for step in LOCKING_STEPS if step != "copying_dead"
    ]
    fast = trial_run.start({"step": "fetched", "nth": 1, "do": "wait"})
    fast.wait_for("fetched")
    slow = trial_run.start(*naps)
    slow.wait_for("advanced")
    fast.go()
    wait_until(lambda: fast.has_ended() or slow.has_ended() or blocked_sessions(trial_run.sandbox) > 0)
    trial_run.verdict.fired = not fast.has_ended() and not slow.has_ended()
    for run, who in ((slow, "the slow drain"), (fast, "the fast drain")):
        ended = trial_run.sandbox.note(run.end())
        trial_run.expect_fenced(ended, who)
        ended_others = [line for line in ended.log if "ended backend" in line]
        trial_run.expect(
            "healthy drains are left alone", not ended_others, f"{who}: {ended_others}, expected it to wait"
        )
        connects = ended.connects.get(f"headrace drain {trial_run.sandbox.stream.name}", 0)
        opened = 1 if run is slow else 2  # the fast one's observer has a connection of its own
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
        wait_until(
            lambda: blocked_sessions(trial_run.sandbox) == 1
        )  # it holds the checkpoints, and waits for the dataset's row
        run.go()
        wait_until(lambda: blocked_sessions(trial_run.sandbox) == 2)
        gate.commit()
    adopted = trial_run.sandbox.note(adoption.end())
    trial_run.verdict.fired = adopted.how == "done"
    trial_run.sandbox.stream.logs[int(adopted.result["generation"])] = trial_run.sandbox.stream.log
    ended = trial_run.sandbox.note(run.end())
    trial_run.expect(
        "fence", ended.error == "CheckpointMoved", f"ended with {ended.text}, expected to hear of the adoption"
    )


RIVALS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (zombie, zombie_defaults, two_at_once, retried, slow_beside_fast, adopted_meanwhile, adopted_under_it)
}
