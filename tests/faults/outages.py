"""Trials in which a server is killed, restarted or frozen; they need their own servers."""

import time

from tests.faults.loaders import LoaderRun, RunEnd
from tests.faults.sandbox import Sandbox
from tests.faults.servers import Servers
from tests.faults.trials import Fault, TrialRun, at


class OutageSandbox(Sandbox):
    """A sandbox whose servers may be killed."""

    servers: Servers


def _servers(trial_run: TrialRun) -> Servers:
    assert isinstance(trial_run.sandbox, OutageSandbox)
    return trial_run.sandbox.servers


def _run_to_the_barrier(trial_run: TrialRun) -> LoaderRun | None:
    trial_run.send()
    run = trial_run.start(at(trial_run.trial, "wait"))
    if run.wait_for(trial_run.trial.step) is None:
        trial_run.sandbox.note(run.end())
        return None
    return run


def _finish(trial_run: TrialRun, run: LoaderRun) -> RunEnd:
    ended = trial_run.sandbox.note(run.end(120))
    trial_run.verdict.notes = f"the run ended with {ended.text}"
    trial_run.expect(
        "outage",
        ended.how == "done"
        or ended.error in ("DatabaseUnavailable", "SourceUnavailable", "SourceError", "CheckpointMoved"),
        f"the run ended with {ended.text}, expected it to finish, or an error that says to try again",
    )
    return ended


def _postgres_goes(trial_run: TrialRun, how: str) -> None:
    run = _run_to_the_barrier(trial_run)
    if run is None:
        return
    servers = _servers(trial_run)
    trial_run.sandbox.forget_connection()
    goes_on_meanwhile = trial_run.rng.random() < 0.5
    if how == "kill":
        servers.kill_postgres()
    else:
        servers.shut_postgres_down()
    trial_run.verdict.fired = True
    if goes_on_meanwhile:
        run.go()
        time.sleep(trial_run.rng.uniform(0, 0.3))
    servers.start()
    if not goes_on_meanwhile:
        run.go()
    _finish(trial_run, run)


def postgres_killed(trial_run: TrialRun) -> None:
    """Kill the postmaster (SIGKILL), then start it again."""
    _postgres_goes(trial_run, "kill")


def postgres_restarted(trial_run: TrialRun) -> None:
    """Shut Postgres down (fast), then start it again."""
    _postgres_goes(trial_run, "shutdown")


def postgres_crashed(trial_run: TrialRun) -> None:
    """Kill the drain's backend (SIGKILL): the whole server recovers."""
    run = _run_to_the_barrier(trial_run)
    if run is None:
        return
    backends = trial_run.sandbox.backends()
    trial_run.sandbox.forget_connection()
    if backends:
        _servers(trial_run).crash_postgres(backends[0])
        trial_run.verdict.fired = True
    run.go()
    _finish(trial_run, run)


def broker_killed(trial_run: TrialRun) -> None:
    """Kill the broker (SIGKILL) during a run, then start it again."""
    run = _run_to_the_barrier(trial_run)
    if run is None:
        return
    _servers(trial_run).kill_broker()
    trial_run.verdict.fired = True
    run.go()
    _servers(trial_run).start()
    _finish(trial_run, run)


def broker_frozen(trial_run: TrialRun) -> None:
    """Freeze the broker (SIGSTOP) for a while."""
    run = _run_to_the_barrier(trial_run)
    if run is None:
        return
    run.go()
    _servers(trial_run).freeze_broker(trial_run.rng.uniform(0.3, 2.5))
    trial_run.verdict.fired = True
    _finish(trial_run, run)


OUTAGES: dict[str, Fault] = {
    function.__name__: function
    for function in (postgres_killed, postgres_restarted, postgres_crashed, broker_killed, broker_frozen)
}
