"""Trials in which a server goes down: they need servers of their own."""

import time

from tests.faults.lane import Ended, Lane, Run
from tests.faults.servers import Servers
from tests.faults.trials import KINDS, Play, Scene, at


class OutageLane(Lane):
    """A lane that may kill its servers."""

    servers: Servers


def _servers(scene: Scene) -> Servers:
    assert isinstance(scene.lane, OutageLane)
    return scene.lane.servers


def _run_to_the_barrier(scene: Scene) -> Run | None:
    scene.send()
    run = scene.start(at(scene.trial, "wait"))
    if run.wait_for(scene.trial.step) is None:
        scene.lane.note(run.end())
        return None
    return run


def _finish(scene: Scene, run: Run) -> Ended:
    ended = scene.lane.note(run.end(120))
    scene.verdict.notes = f"the run ended with {ended.text}"
    scene.expect(
        "outage",
        ended.how == "done"
        or ended.error in ("DatabaseUnavailable", "SourceUnavailable", "SourceError", "CheckpointMoved"),
        f"the run ended with {ended.text}, expected it to finish, or an error that says to try again",
    )
    return ended


def _postgres_goes(scene: Scene, how: str) -> None:
    run = _run_to_the_barrier(scene)
    if run is None:
        return
    servers = _servers(scene)
    scene.lane.forget_connection()
    goes_on_meanwhile = scene.rng.random() < 0.5
    if how == "kill":
        servers.kill_postgres()
    else:
        servers.shut_postgres_down()
    scene.verdict.fired = True
    if goes_on_meanwhile:
        run.go()
        time.sleep(scene.rng.uniform(0, 0.3))
    servers.start()
    if not goes_on_meanwhile:
        run.go()
    _finish(scene, run)


def postgres_killed(scene: Scene) -> None:
    """kill -9 for the postmaster, then a restart."""
    _postgres_goes(scene, "kill")


def postgres_restarted(scene: Scene) -> None:
    """A fast shutdown, then a start."""
    _postgres_goes(scene, "shutdown")


def postgres_crashed(scene: Scene) -> None:
    """kill -9 for the backend that serves the drain: the whole server recovers."""
    run = _run_to_the_barrier(scene)
    if run is None:
        return
    backends = scene.lane.backends()
    scene.lane.forget_connection()
    if backends:
        _servers(scene).crash_postgres(backends[0])
        scene.verdict.fired = True
    run.go()
    _finish(scene, run)


def broker_killed(scene: Scene) -> None:
    """kill -9 for the broker while a run is under way, then a restart."""
    run = _run_to_the_barrier(scene)
    if run is None:
        return
    _servers(scene).kill_broker()
    scene.verdict.fired = True
    run.go()
    _servers(scene).start()
    _finish(scene, run)


def broker_frozen(scene: Scene) -> None:
    """The broker stops for a while, and goes on."""
    run = _run_to_the_barrier(scene)
    if run is None:
        return
    run.go()
    _servers(scene).freeze_broker(scene.rng.uniform(0.3, 2.5))
    scene.verdict.fired = True
    _finish(scene, run)


OUTAGES: dict[str, Play] = {
    function.__name__: function
    for function in (postgres_killed, postgres_restarted, postgres_crashed, broker_killed, broker_frozen)
}
KINDS.update(OUTAGES)
