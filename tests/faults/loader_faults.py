"""Trials in which a loader dies, is interrupted, or loses its connection."""

import signal
import time
from contextlib import suppress

from tests.faults.loaders import TimedOut
from tests.faults.proxy import Cut, How
from tests.faults.trials import LOCKING_STEPS, SHORT_TIMEOUTS, STEPS, Fault, TrialRun, at, wait_until

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
    # a run connects with its first batch: small ones, so that the first fetch has one
    small = {"batch_rows": 5} if trial_run.trial.step == "fetched" else {}
    run = trial_run.start(at(trial_run.trial, "wait"), settings=small)
    if run.wait_for(trial_run.trial.step) is not None:
        if small:
            with suppress(TimedOut):  # a first fetch of fewer records
                wait_until(lambda: bool(trial_run.sandbox.backends()), 5)
        backends = trial_run.sandbox.backends()
        for pid in backends:
            trial_run.sandbox.sql.execute(f"select {function}(%s)".encode(), (pid,))
        trial_run.verdict.fired = bool(backends)
        if function == "pg_terminate_backend":
            wait_until(lambda: not set(backends) & set(trial_run.sandbox.backends()))
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


LOADER_FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (calm, kill, kill_twice, kill_anywhen, interrupt, terminate, cancel, cut, silence)
}
