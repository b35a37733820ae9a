"""Run trials in sandboxes, each in its own process, and report the verdicts."""

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.faults.builds import BuildSandbox
from tests.faults.checks import Violation
from tests.faults.kinds import run_trial
from tests.faults.loaders import ROOT
from tests.faults.outages import OutageSandbox
from tests.faults.sandbox import Sandbox
from tests.faults.servers import Servers
from tests.faults.trials import BATCHES_MIN, Trial, Verdict

TRIAL_LIMIT_S = 300.0  # a sandbox without a report for this time counts as hanging
REPORT_EVERY_S = 15.0

PrintLine = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The parameters of a sandbox's process."""

    name: str
    schedule: str
    folder: Path
    postgres_dsn: str
    bootstrap_servers: str
    plugins: Path = ROOT / "plugins"
    undefended: bool = False
    servers: Servers | None = None  # servers that its trials may kill

    def open(self) -> Sandbox:
        """The sandbox itself."""
        kind = {"build": BuildSandbox, "outage": OutageSandbox, "postgres": OutageSandbox}.get(self.schedule, Sandbox)
        sandbox = kind(
            self.name,
            self.folder,
            self.postgres_dsn,
            self.bootstrap_servers,
            plugins=self.plugins,
            undefended=self.undefended,
        )
        if isinstance(sandbox, OutageSandbox):
            assert self.servers is not None
            sandbox.servers = self.servers
        return sandbox


class SandboxProcess:
    """A sandbox in its own process."""

    def __init__(self, spec: SandboxSpec, seed: int) -> None:
        context = multiprocessing.get_context("spawn")  # librdkafka's threads do not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, seed), name=f"sandbox {spec.name}")
        self._process.start()
        theirs.close()

    def play(self, trial: Trial) -> Verdict:
        """Run a trial there and wait for its verdict; a sandbox that fails is a verdict too."""
        try:
            self._connection.send(trial)
            if self._connection.poll(TRIAL_LIMIT_S):
                response = self._connection.recv()
                if isinstance(response, Verdict):
                    return response
                return Verdict(trial, violations=[Violation(BROKEN, response)])
            broken = f"said nothing for {TRIAL_LIMIT_S:.0f} s"
        except (EOFError, OSError) as error:
            broken = f"its process ended: {error!r}"
        return Verdict(trial, violations=[Violation(BROKEN, broken)])

    def close(self) -> None:
        """Let the sandbox clean up and end."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


BROKEN = "the sandbox itself"


def _serve(connection: Connection, spec: SandboxSpec, seed: int) -> None:
    sandbox: Sandbox | None = None
    try:
        while (trial := connection.recv()) is not None:
            try:
                sandbox = sandbox or spec.open()
                connection.send(run_trial(sandbox, trial, seed))
            except Exception:
                connection.send(traceback.format_exc())
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        if sandbox is not None:
            sandbox.close()


@dataclass
class RunSummary:
    """The verdicts of a run."""

    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counted(self) -> list[Verdict]:
        """Trials whose fault happened with enough batches."""
        return [verdict for verdict in self.verdicts if verdict.counts]

    @property
    def violations(self) -> list[tuple[Trial, Violation]]:
        """All violations, of trials that count or not."""
        return [(verdict.trial, violation) for verdict in self.verdicts for violation in verdict.violations]

    def progress_line(self, total: int | None) -> str:
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

    def violation_lines(self) -> str:
        """Every violation, with the command that repeats its trial."""
        return "\n".join(
            f"{trial.name} ({trial.kind} {trial.step} {trial.nth}): {violation.check}: {violation.message}\n"
            f"    again: make faults SEED={self.seed} TRIAL={trial.name}"
            for trial, violation in self.violations
        )


@dataclass(frozen=True, slots=True)
class TrialQueue:
    """Sandboxes that take trials from one schedule."""

    specs: list[SandboxSpec]
    trials: Iterator[Trial]


def run(work: list[TrialQueue], seed: int, print_line: PrintLine, *, total: int | None = None) -> RunSummary:
    """Run all trials; a sandbox that fails ends its share."""
    summary = RunSummary(seed)
    began = time.monotonic()
    lock = threading.Lock()
    next_report = REPORT_EVERY_S
    sandboxes = [(SandboxProcess(spec, seed), part) for part in work for spec in part.specs]

    def serve(sandbox: SandboxProcess, part: TrialQueue) -> None:
        nonlocal next_report
        while True:
            with lock:
                trial = next(part.trials, None)
            if trial is None:
                return
            verdict = sandbox.play(trial)
            with lock:
                summary.verdicts.append(verdict)
                summary.seconds = time.monotonic() - began
                for violation in verdict.violations:
                    print_line(
                        f"{trial.name} ({trial.kind} {trial.step} {trial.nth}): {violation.check}: {violation.message}"
                    )
                if summary.seconds >= next_report:
                    next_report = summary.seconds + REPORT_EVERY_S
                    print_line(summary.progress_line(total))
            if any(violation.check == BROKEN for violation in verdict.violations):
                return

    threads = [threading.Thread(target=serve, args=pair) for pair in sandboxes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        closers = [threading.Thread(target=sandbox.close) for sandbox, _ in sandboxes]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
    return summary
