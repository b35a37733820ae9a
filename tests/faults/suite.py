"""Runs trials in lanes, each lane a process of its own, and tells what came of them."""

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import tests.faults.builds  # noqa: F401 - registers its kinds
from tests.faults.builds import BuildLane
from tests.faults.checks import Violation
from tests.faults.lane import ROOT, Lane
from tests.faults.outages import OutageLane
from tests.faults.servers import Servers
from tests.faults.trials import BATCHES_MIN, Trial, Verdict, play

TRIAL_LIMIT_S = 300.0  # a lane that says nothing for so long hangs
REPORT_EVERY_S = 15.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """What a lane's process needs to know."""

    name: str
    deck: str
    folder: Path
    postgres_dsn: str
    bootstrap_servers: str
    plugins: Path = ROOT / "plugins"
    undefended: bool = False
    servers: Servers | None = None  # that it may kill

    def open(self) -> Lane:
        """The lane itself."""
        kind = {"build": BuildLane, "outage": OutageLane, "postgres": OutageLane}.get(self.deck, Lane)
        lane = kind(
            self.name,
            self.folder,
            self.postgres_dsn,
            self.bootstrap_servers,
            plugins=self.plugins,
            undefended=self.undefended,
        )
        if isinstance(lane, OutageLane):
            assert self.servers is not None
            lane.servers = self.servers
        return lane


class LaneProcess:
    """A lane in a process of its own."""

    def __init__(self, spec: LaneSpec, seed: int) -> None:
        context = multiprocessing.get_context("spawn")  # librdkafka's threads do not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, seed), name=f"lane {spec.name}")
        self._process.start()
        theirs.close()

    def play(self, trial: Trial) -> Verdict:
        """Run a trial there and wait for its verdict; a lane that breaks is a verdict too."""
        try:
            self._connection.send(trial)
            if self._connection.poll(TRIAL_LIMIT_S):
                answer = self._connection.recv()
                if isinstance(answer, Verdict):
                    return answer
                return Verdict(trial, violations=[Violation(BROKEN, answer)])
            broken = f"said nothing for {TRIAL_LIMIT_S:.0f} s"
        except (EOFError, OSError) as error:
            broken = f"its process ended: {error!r}"
        return Verdict(trial, violations=[Violation(BROKEN, broken)])

    def close(self) -> None:
        """Let the lane clean up and end."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


BROKEN = "the lane itself"


def _serve(connection: Connection, spec: LaneSpec, seed: int) -> None:
    lane: Lane | None = None
    try:
        while (trial := connection.recv()) is not None:
            try:
                lane = lane or spec.open()
                connection.send(play(lane, trial, seed))
            except Exception:
                connection.send(traceback.format_exc())
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        if lane is not None:
            lane.close()


@dataclass
class Tally:
    """The verdicts of a run."""

    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counted(self) -> list[Verdict]:
        """Trials whose fault fired with enough batches in play."""
        return [verdict for verdict in self.verdicts if verdict.counts]

    @property
    def violations(self) -> list[tuple[Trial, Violation]]:
        """Everything that was found wrong, in trials that count or not."""
        return [(verdict.trial, violation) for verdict in self.verdicts for violation in verdict.violations]

    def progress(self, total: int | None) -> str:
        """One line."""
        rate = len(self.counted) / self.seconds * 60 if self.seconds else 0.0
        return (
            f"faults: {len(self.verdicts)}{f' of {total}' if total else ''} trials in {self.seconds:.0f} s, "
            f"{len(self.counted)} counted ({rate:.0f}/min), {len(self.violations)} violations"
        )

    def table(self) -> str:
        """A line per kind of fault."""
        kinds: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            kinds.setdefault(verdict.trial.kind, []).append(verdict)
        lines = [
            f"{'fault':<20} {'trials':>6} {'counted':>7} {'not fired':>9} {'few batches':>11} {'violations':>10} "
            f"{'s each':>6}"
        ]
        for kind, verdicts in sorted(kinds.items()):
            fired = [verdict for verdict in verdicts if verdict.fired]
            lines.append(
                f"{kind:<20} {len(verdicts):>6} {sum(v.counts for v in verdicts):>7} {len(verdicts) - len(fired):>9} "
                f"{sum(v.batches < BATCHES_MIN for v in fired):>11} {sum(len(v.violations) for v in verdicts):>10} "
                f"{sum(v.seconds for v in verdicts) / len(verdicts):>6.1f}"
            )
        return "\n".join(lines)

    def complaints(self) -> str:
        """Every violation, with the command that repeats its trial."""
        return "\n".join(
            f"{trial.name} ({trial.kind} {trial.step} {trial.nth}): {violation.check}: {violation.message}\n"
            f"    again: make faults SEED={self.seed} TRIAL={trial.name}"
            for trial, violation in self.violations
        )


@dataclass(frozen=True, slots=True)
class Work:
    """Lanes that share a source of trials."""

    specs: list[LaneSpec]
    trials: Iterator[Trial]


def run(work: list[Work], seed: int, report: Report, *, total: int | None = None) -> Tally:
    """Run all trials; the first failed lane ends its part."""
    tally = Tally(seed)
    began = time.monotonic()
    lock = threading.Lock()
    next_report = REPORT_EVERY_S
    lanes = [(LaneProcess(spec, seed), part) for part in work for spec in part.specs]

    def serve(lane: LaneProcess, part: Work) -> None:
        nonlocal next_report
        while True:
            with lock:
                trial = next(part.trials, None)
            if trial is None:
                return
            verdict = lane.play(trial)
            with lock:
                tally.verdicts.append(verdict)
                tally.seconds = time.monotonic() - began
                for violation in verdict.violations:
                    report(
                        f"{trial.name} ({trial.kind} {trial.step} {trial.nth}): {violation.check}: {violation.message}"
                    )
                if tally.seconds >= next_report:
                    next_report = tally.seconds + REPORT_EVERY_S
                    report(tally.progress(total))
            if any(violation.check == BROKEN for violation in verdict.violations):
                return

    threads = [threading.Thread(target=serve, args=pair) for pair in lanes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        closers = [threading.Thread(target=lane.close) for lane, _ in lanes]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
    return tally
