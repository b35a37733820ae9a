"""Following: drain and build as records arrive, in one process that keeps its connections and dbt's manifest.

A thread per kind of source waits until something can be read (`notifier`). The main thread drains these datasets and
builds the models that read them (`schedule` has the order). From time to time all datasets are planned together, which
finds new partitions and other runs' commits. An error of one dataset or declaration is reported once and retried after
growing pauses; the other datasets continue.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import Connection

from headrace.callbacks import PrintLine
from headrace.catalog import load_declarations
from headrace.dataset import Dataset, dataset_names
from headrace.deployment import Deployment
from headrace.exceptions import BuildError, DatasetError, DatasetPaused, HeadraceError
from headrace.follow.backoff import Backoff, unexpected_error
from headrace.follow.interrupt import interrupt_build_on
from headrace.follow.leases import Leases
from headrace.follow.notifier import Notifier
from headrace.follow.open_sources import OpenSources
from headrace.follow.schedule import Schedule
from headrace.ingest.observations import save_failure
from headrace.ingest.plans import plan_together
from headrace.ingest.rate_limit import RateLimit
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.marts.build import build
from headrace.marts.claims import unclaimed_datasets
from headrace.postgres.connection import database
from headrace.postgres.ledger import RunContext
from headrace.postgres.pauses import Pause, open_pauses
from headrace.publish.dead_letter_topic import publish_after_drain
from headrace.settings import Settings
from headrace.sources.base import Source
from headrace.sources.together import can_be_described_together

RECHECK_S = 15.0  # between checks for new partitions, lapsed leases and batches of other runs
DRAIN_S = 2.0  # limit of one drain: with a backlog, marts are built in between
BOOTSTRAP_TIMEOUT_MS = 2_000
_BUILD = "build"  # the key of the builds' backoff, besides those of the datasets
_RECHECK = "follow"


@dataclass(slots=True)
class FollowResult:
    """Drained batches, builds, and the last error of each dataset that failed at the end."""

    records: int = 0
    batches: int = 0
    builds: int = 0
    seconds: float = 0.0
    failing: dict[str, HeadraceError] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise the first error that was not cleared at the end."""
        for error in self.failing.values():
            raise error

    def summary(self) -> str:
        """One line for the terminal or the task's log."""
        return (
            f"followed for {self.seconds:.0f} s: {self.records} records in {self.batches} batches, {self.builds} builds"
            + "".join(f"; {name} fails" for name in sorted(self.failing))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """The options of following. max_seconds: defaults to until `stop` is set.

    build_settings: with dbt's DSN, if it is not that of the deployment's settings. run: the committing run, for the
    ledger. print_line: prints drains, builds and errors.
    """

    max_seconds: float | None = None
    build_settings: Settings | None = None
    run: RunContext | None = None
    print_line: PrintLine = lambda _line: None


DEFAULT_OPTIONS = FollowOptions()


def follow(
    deployment: Deployment, names: Sequence[str], *, stop: threading.Event, options: FollowOptions = DEFAULT_OPTIONS
) -> FollowResult:
    """Follow datasets until `stop` is set or the time is over; return the result.

    names: empty for every declared topic and stream.
    Leases keep scheduled runs away; a dataset that another follower holds is left to it until its lease lapses.
    It does not end if a source or Postgres does not answer or a declaration is invalid: the error is reported, and the
    dataset is followed once that is corrected. Raises DatasetError for a file dataset, for a name that is not declared,
    and if no declaration can be used.
    """
    datasets, faults = _declared(deployment, names)
    if not datasets:
        raise next(iter(faults.values()), DatasetError("follow: found no declared topic or stream"))
    with Leases(deployment.connect("headrace follow"), f"{socket.gethostname()}:{os.getpid()}") as leases:
        follower = _Follower(deployment, datasets, faults, leases, stop, options)
        return follower.run(options.max_seconds)


def _without_retries(deployment: Deployment) -> Deployment:
    """The deployment as the follower uses it: `Backoff` retries, so that a stop is noticed."""
    return replace(
        deployment,
        settings=replace(deployment.settings, max_retries=0),
        kafka=lambda: {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS} | dict(deployment.kafka()),
    )


def _declared(deployment: Deployment, names: Sequence[str]) -> tuple[dict[str, Dataset], dict[str, DatasetError]]:
    """The datasets to follow, and the errors of invalid declarations."""
    declared = load_declarations(deployment.settings.datasets_dir)
    for name in names:
        if name not in declared.names:
            deployment.dataset(name)  # raises an error that lists the declared ones
        if name in declared.datasets:
            declared.datasets[name].refuse_file()
    wanted = list(dict.fromkeys(names)) or declared.streams
    return (
        {name: declared.datasets[name] for name in wanted if name in declared.datasets},
        {name: declared.faults[name].error for name in wanted if name in declared.faults},
    )


class _Follower:
    def __init__(
        self,
        deployment: Deployment,
        datasets: dict[str, Dataset],
        faults: Mapping[str, DatasetError],
        leases: Leases,
        stop: threading.Event,
        options: FollowOptions,
    ) -> None:
        self._deployment = _without_retries(deployment)
        self._datasets, self._leases, self._stop = datasets, leases, stop
        self._build_settings = options.build_settings or deployment.settings
        # never None: `status` tells of the errors of a follower's own settings too, as those of a task
        self._run = options.run or RunContext()
        self._print_line = options.print_line
        self._notifier = Notifier(self._deployment)
        self._faulty = set(faults)
        self._backoffs = {name: Backoff(name, self._print_line) for name in (*datasets, *faults, _BUILD, _RECHECK)}
        for name, fault in faults.items():
            self._backoffs[name].print_once(fault)
        self._sources = OpenSources(self._deployment)
        self._pauses: dict[str, Pause] = {}
        self._unplanned: set[str] = set()  # by the last plan of all
        self._rate_limits: dict[str, RateLimit | None] = {}
        self._schedule = Schedule()
        self._result = FollowResult()

    def run(self, max_seconds: float | None) -> FollowResult:
        began = time.monotonic()
        ends = began + max_seconds if max_seconds is not None else float("inf")
        recheck = began
        try:
            while not self._stop.is_set() and (now := time.monotonic()) < ends:
                if now >= recheck:
                    self._recheck()
                    recheck = now + RECHECK_S
                for name in self._due(min(recheck, ends, now + self._seconds_to_build())):
                    self._drain(name)
                self._build()
            for _ in range(2):  # new batches, then all models that are due
                self._schedule.build_due()
                self._build()
        finally:
            self._notifier.end()
            self._sources.close_all()
            self._result.seconds = time.monotonic() - began
        self._result.failing = {name: t.error for name, t in self._backoffs.items() if t.error is not None}
        return self._result

    def _recheck(self) -> None:
        """Take leases, begin with new datasets, and check all of them."""
        self._load_corrected()
        with (
            self._backoffs[_RECHECK].catch_errors(),
            database(self._deployment.connect("headrace follow")) as connection,
        ):
            self._leave_paused(connection)
            held = self._leases.take(connection, self._datasets.keys() - self._pauses.keys())
            for name in self._notifier.datasets - held:
                self._print_line(f"{name}: left to another follower")
                self._leave(name)
            for name in held - self._notifier.datasets:
                self._notifier.add(self._datasets[name])
            self._schedule.recheck(unclaimed_datasets(connection))  # also batches of other runs
            self._plan_all(held)

    def _plan_all(self, names: set[str]) -> None:
        """Plan the datasets together: wait behind those with nothing to read, and drain the others.

        Errors are stored by the plan, and reported here: each dataset would take a while to meet that of their broker.
        """
        together = [name for name in sorted(names) if can_be_described_together(self._datasets[name].source)]
        found = plan_together(self._deployment, [self._datasets[name] for name in together], self._run)
        for name in (*found.empty, *(self._unplanned & {planned.dataset for planned in found.plans})):
            self._backoffs[name].succeeded()
        self._unplanned = set(found.errors)
        for name, planned in found.empty.items():
            self._notifier.notify_behind(self._datasets[name], planned)
        told: set[str] = set()
        for name, error in found.errors.items():
            ours = error if isinstance(error, HeadraceError) else unexpected_error(name, error)
            self._backoffs[name].failed(ours, is_told=str(ours) in told)
            told.add(str(ours))
            self._sources.close(name)
        for name in names - found.empty.keys() - found.errors.keys() - set(found.paused):
            self._notifier.notify(name)

    def _leave(self, name: str) -> None:
        self._notifier.remove(name)
        self._sources.close(name)

    def _leave_paused(self, connection: Connection[Any]) -> None:
        """Leave the datasets that are paused; those that were resumed are taken again like new ones."""
        pauses = open_pauses(connection, self._datasets)
        for name in self._pauses.keys() - pauses.keys():
            self._print_line(f"{name}: resumed")
        for name in pauses.keys() - self._pauses.keys():
            self._print_line(f"{name}: {pauses[name].text()}")
            self._leave(name)
            self._backoffs[name].succeeded()
        self._leases.give_back(connection, pauses.keys() - self._pauses.keys())
        self._pauses = pauses

    def _load_corrected(self) -> None:
        """Add the datasets whose declarations were corrected."""
        for name in sorted(self._faulty & set(dataset_names(self._deployment.settings.datasets_dir))):
            try:
                dataset = self._deployment.dataset(name)
                dataset.refuse_file()
            except HeadraceError as error:
                self._backoffs[name].print_once(error)
                continue
            self._faulty.remove(name)
            self._datasets[name] = dataset
            self._backoffs[name].succeeded()

    def _due(self, until: float) -> list[str]:
        """The notified datasets by priority, without those that wait; waits for the first until that time."""
        names = self._notifier.due(until)
        waiting = {name: seconds for name in names if (seconds := self._seconds_to_drain(name))}
        for name, seconds in waiting.items():
            self._notifier.notify_in(name, seconds)
        return sorted(names - waiting.keys(), key=self._order)

    def _order(self, name: str) -> tuple[int, str]:
        """Sorts by priority, the highest first."""
        return -self._datasets[name].priority, name

    def _seconds_to_drain(self, name: str) -> float:
        """Seconds that the backoff or the rate limit of a dataset keeps it from being read."""
        limit, backoff = self._rate_limits.get(name), self._backoffs[name]
        return max(backoff.seconds_left if backoff.is_waiting else 0.0, 0.0 if limit is None else limit.seconds_left)

    def _drain(self, name: str) -> None:
        if name not in self._notifier.datasets or self._stop.is_set():
            return
        with self._backoffs[name].catch_errors(), suppress(DatasetPaused):  # the next recheck leaves it
            source = self._opened(name)
            dataset = self._datasets[name]
            planned = plan(self._deployment, dataset, source=source, run=self._run)
            limit = self._rate_limits.setdefault(name, RateLimit.of(dataset))
            result = drain_plan(
                self._deployment,
                dataset,
                planned.limited(None if limit is None else limit.burst),
                source=source,
                # the others do not wait for a dataset's rate limit: it is notified later
                options=RunOptions(run=self._run, max_seconds=DRAIN_S, stop=self._stop.is_set, is_paced=False),
            )
            if limit is not None:
                limit.count(result.records + result.ignored)
            if result.batches:
                self._print_line(result.summary(planned))
                self._schedule.add(name)
                self._result.records += result.records
                self._result.batches += result.batches
            if result.dead:
                publish_after_drain(self._deployment, dataset)
            self._notifier.notify_after(dataset, planned, result)
        if self._backoffs[name].error is not None:
            self._sources.close(name)
            self._notifier.notify_in(name, self._backoffs[name].seconds_left)

    def _opened(self, name: str) -> Source:
        """The source of a dataset, and its formats and masks connected; stores an error for `status`."""
        try:
            if name not in self._sources:
                self._datasets[name] = self._datasets[name].connected(self._deployment.settings)
            return self._sources.get(self._datasets[name])
        except Exception as error:
            save_failure(self._deployment.connect("headrace follow"), name, error, self._run)
            raise

    def _seconds_to_build(self) -> float:
        """Seconds until models are due although no record arrives."""
        backoff = self._backoffs[_BUILD]
        if backoff.is_waiting:
            return backoff.seconds_left
        due = self._schedule.seconds_left
        return float("inf") if due is None else due

    def _build(self) -> None:
        backoff = self._backoffs[_BUILD]
        if self._stop.is_set() or backoff.is_waiting or (selection := self._schedule.next()) is None:
            return
        with interrupt_build_on(self._stop, self._print_line):
            try:
                made = build(
                    self._build_settings, select=selection.select, tests=False, may_be_empty=True, run=self._run
                )
            except BuildError as error:
                # the other models were built; these are retried with the next recheck
                backoff.print_once(error)
                self._schedule.failed(selection)
            except HeadraceError as error:
                backoff.failed(error)
            except Exception as error:
                backoff.failed(unexpected_error(_BUILD, error))
            else:
                if self._schedule.built(selection, made):
                    backoff.succeeded()
                if made.passes:
                    self._result.builds += 1
                    self._print_line(made.summary())
