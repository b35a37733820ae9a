"""A trial: it does one thing to a loader at one moment, lets others finish the work, and is then judged."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.checks import Violation
from tests.faults.loaders import LoaderRun, RunEnd, TimedOut
from tests.faults.sandbox import Sandbox
from tests.faults.traffic import Traffic

STEPS = ("fetched", "advanced", "copying", "staged", "copying_dead", "dead_lettered", "before_commit", "committed")
LOCKING_STEPS = STEPS[1:7]  # inside the transaction: the checkpoint's row is locked
# short, for hundreds of trials; one trial checks that the defaults stay below 20 s
SHORT_TIMEOUTS = {"lock_timeout_ms": 150, "stuck_after_ms": 400}
BATCHES_MIN = 3  # a trial counts only if so many were in play


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


def at(trial: Trial, do: str, **more: Any) -> dict[str, Any]:
    """The action of the trial's loader at the trial's barrier."""
    return {"step": trial.step, "nth": trial.nth, "do": do, **more}


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for a moment; TimedOut, if it does not come."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOut(f"waited {limit_s:.0f} s for a moment that did not come")
        time.sleep(0.005)


def blocked_sessions(sandbox: Sandbox) -> int:
    """How many sessions of the sandbox's database wait for a lock."""
    row = sandbox.sql.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ).fetchone()
    return row[0] if row else 0
