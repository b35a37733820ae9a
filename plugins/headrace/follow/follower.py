"""Following: drain and build as records arrive, in one process that stays warm.

A thread per dataset waits at the source until something can be read; the main thread drains what rang, builds what the
new batches feed, and goes on. While records go on to come, the models that read staging are built each time and those
that read other models every few seconds, so that these do not hold up the others. An error of one dataset, its
declaration's included, is reported once and tried again, ever more slowly; the other datasets continue.
"""

import _thread
import logging
import os
import queue
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from headrace.catalog import load_declarations
from headrace.dataset import Dataset, dataset_names
from headrace.deployment import Deployment
from headrace.exceptions import BuildError, DatasetError, HeadraceError, PermanentError
from headrace.follow.leases import Leases
from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.ingest.runs import drain_plan, open_source, plan
from headrace.marts.build import BuildResult, build
from headrace.marts.claims import first_models, unclaimed_datasets
from headrace.postgres.connection import database
from headrace.postgres.ledger import RunContext
from headrace.publish.dead_letter_topic import publish_after_drain
from headrace.settings import Settings
from headrace.sources.base import Source, SourcePosition

RECHECK_S = 15.0  # new partitions, lapsed leases and what others staged are looked for this often
DRAIN_S = 2.0  # under backlog marts follow after each of so long
FURTHER_S = 2.0  # models that read other models are built this long after they were, at the earliest
WAIT_S = 1.0  # how long a source is asked to wait at a time: a stop is heeded after that
BACKOFF_MAX_S = 30.0
BOOTSTRAP_TIMEOUT_MS = 2_000
BUILD_GRACE_S = 2.0  # a build that is stopped may go on for so long before it is cut off

PrintLine = Callable[[str], None]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class FollowResult:
    """What following did: batches and builds, and the datasets that could not be followed at its end, with why."""

    records: int = 0
    batches: int = 0
    builds: int = 0
    seconds: float = 0.0
    failing: dict[str, HeadraceError] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise what is wrong with a dataset, or with building, that could not be followed at the end."""
        for error in self.failing.values():
            raise error

    def summary(self) -> str:
        """One line for people."""
        return (
            f"followed for {self.seconds:.0f} s: {self.records} records in {self.batches} batches, {self.builds} builds"
            + "".join(f"; {name} fails" for name in sorted(self.failing))
        )


def follow(
    deployment: Deployment,
    names: Sequence[str],
    *,
    stop: threading.Event,
    max_seconds: float | None = None,
    build_settings: Settings | None = None,
    run: RunContext | None = None,
    print_line: PrintLine = lambda _line: None,
) -> FollowResult:
    """Follow datasets until `stop` is set or the time is over; returns what was done.

    names: none for every topic and stream that is declared. build_settings: with the DSN that dbt uses, where it is not
    that of the deployment's settings.
    Their leases keep scheduled runs away; datasets that another follower holds are left to it until its lease lapses.
    Neither a source nor Postgres that does not answer ends it, nor a declaration that cannot be used: that one is
    reported, and followed once it is corrected. Raises DatasetError for a file dataset, for a name that is not
    declared, and where no declaration can be used.
    """
    datasets, faults = _declared(deployment, names)
    if not datasets:
        raise next(iter(faults.values()), DatasetError("follow: found no topic or stream that is declared"))
    # what does not answer is asked again from here, where a stop is heeded
    without_retries = replace(
        deployment,
        settings=replace(deployment.settings, max_retries=0),
        kafka=lambda: {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS} | dict(deployment.kafka()),
    )
    with Leases(deployment.connect("headrace follow"), f"{socket.gethostname()}:{os.getpid()}") as leases:
        settings = build_settings or deployment.settings
        follower = _Follower(without_retries, datasets, faults, leases, stop, settings, run, print_line)
        return follower.run(max_seconds)


def _declared(deployment: Deployment, names: Sequence[str]) -> tuple[dict[str, Dataset], dict[str, DatasetError]]:
    """The datasets to follow, and why others of them cannot be."""
    declared = load_declarations(deployment.settings.datasets_dir)
    for name in names:
        if name not in declared.names:
            deployment.dataset(name)  # which says what there is
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
        build_settings: Settings,
        run: RunContext | None,
        print_line: PrintLine,
    ) -> None:
        self._deployment, self._datasets, self._leases, self._stop = deployment, datasets, leases, stop
        self._build_settings, self._run, self._print_line = build_settings, run, print_line
        self._notified: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._notifiers: dict[str, _Notifier] = {}
        self._faulty = set(faults)
        self._backoffs = {name: _Backoff(name, print_line) for name in (*datasets, *faults, _BUILD, _RECHECK)}
        for name, fault in faults.items():
            self._backoffs[name].print_once(fault)
        self._sources: dict[str, Source] = {}
        self._first_models: dict[str, set[str]] = {}
        self._to_build = {_BUILD}  # first of all everything that there is
        self._to_build_further: set[str] = set()  # built are only the models that read staging
        self._further_at = 0.0
        self._broken: set[str] = set()  # of which some model does not build
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
                further = self._further_at if self._to_build_further else ends
                for name in self._due(min(recheck, ends, further)):
                    self._drain(name)
                self._build()
            if self._to_build_further:
                self._further_at = 0.0
                self._build()
        finally:
            for notifier in self._notifiers.values():
                notifier.end()
            for name in list(self._sources):
                self._close_source(name)
            self._result.seconds = time.monotonic() - began
        self._result.failing = {name: t.error for name, t in self._backoffs.items() if t.error is not None}
        return self._result

    def _recheck(self) -> None:
        """Take leases, begin with the datasets that are new, and look at all of them."""
        self._load_corrected()
        with (
            self._backoffs[_RECHECK].catch_errors(),
            database(self._deployment.connect("headrace follow")) as connection,
        ):
            held = self._leases.take(connection, self._datasets)
            for name in self._notifiers.keys() - held:
                self._print_line(f"{name}: left to another follower")
                self._notifiers.pop(name).end()
            for name in sorted(held - self._notifiers.keys()):
                self._notifiers[name] = _Notifier(self._deployment, self._datasets[name], self._notified)
            for name in self._notifiers:
                self._notified.put(name)
            self._to_build |= unclaimed_datasets(connection) | self._broken  # also what others staged meanwhile

    def _load_corrected(self) -> None:
        """Follow the datasets too whose declarations were corrected meanwhile."""
        for name in sorted(self._faulty & set(dataset_names(self._deployment.settings.datasets_dir))):
            try:
                dataset = self._deployment.dataset(name)
                dataset.refuse_file()
            except DatasetError as error:
                self._backoffs[name].print_once(error)
                continue
            self._faulty.remove(name)
            self._datasets[name] = dataset
            self._backoffs[name].succeeded()

    def _due(self, until: float) -> list[str]:
        """The datasets that rang, once each; waits for the first until that time."""
        names: set[str] = set()
        with suppress(queue.Empty):
            names.add(self._notified.get(timeout=max(min(until - time.monotonic(), WAIT_S), 0.0)))
            while True:
                names.add(self._notified.get_nowait())
        waiting = [name for name in names if self._backoffs[name].is_waiting]
        for name in waiting:
            self._notifiers[name].notify_in(self._backoffs[name].seconds_left)
        return sorted(names - set(waiting))

    def _drain(self, name: str) -> None:
        dataset, notifier = self._datasets[name], self._notifiers.get(name)
        if notifier is None or self._stop.is_set():
            return
        with self._backoffs[name].catch_errors():
            if name not in self._sources:
                self._sources[name] = open_source(self._deployment, dataset)
            source = self._sources[name]
            planned = plan(self._deployment, dataset, source=source, run=self._run)
            result = drain_plan(
                self._deployment,
                dataset,
                planned,
                source=source,
                run=self._run,
                max_seconds=DRAIN_S,
                stop=self._stop.is_set,
            )
            if result.batches:
                self._print_line(result.summary(planned))
                if name not in self._broken:
                    self._to_build.add(name)
                self._result.records += result.records
                self._result.batches += result.batches
            if result.dead:
                publish_after_drain(self._deployment, dataset)
            notifier.notify_after(planned, result)
        if self._backoffs[name].error is not None:
            self._close_source(name)
            notifier.notify_in(self._backoffs[name].seconds_left)

    def _close_source(self, name: str) -> None:
        if (source := self._sources.pop(name, None)) is not None:
            with suppress(HeadraceError):
                source.close()

    def _build(self) -> None:
        backoff = self._backoffs[_BUILD]
        if self._stop.is_set() or backoff.is_waiting or not (self._to_build or self._to_build_further):
            return
        fed, is_whole = set(self._to_build), _BUILD in self._to_build
        is_first = not is_whole and time.monotonic() < self._further_at
        select: list[str] | None = None
        if is_first:
            select = sorted(model for name in fed for model in self._first_models.get(name, ()))
        elif not is_whole:
            fed |= self._to_build_further
            select = [f"source:staging.{name}+,resource_type:model" for name in sorted(fed)]
        if select == []:  # all that is left is not yet due
            self._to_build_further |= fed
            self._to_build.clear()
            return
        with _interrupt_build_on(self._stop):
            try:
                made = self._built(select)
            except BuildError as error:
                # what could be built was; the rest is tried again at the next look at everything
                backoff.print_once(error)
                self._broken |= fed
                self._to_build.clear()
            except HeadraceError as error:
                backoff.failed(error)
            except Exception as error:
                backoff.failed(_unexpected(_BUILD, error))
            else:
                self._to_build.clear()
                if is_first:
                    self._to_build_further |= fed
                else:
                    self._to_build_further.clear()
                    self._further_at = time.monotonic() + FURTHER_S
                    self._broken -= self._broken if is_whole else fed
                    if not self._broken:
                        backoff.succeeded()
                if made.passes:
                    self._result.builds += 1
                    self._print_line(made.summary())

    def _built(self, select: list[str] | None) -> BuildResult:
        """Build a selection, or everything; then what claims the ledger is known, though a model may not build."""
        try:
            return build(self._build_settings, select=select, tests=False, may_be_empty=True)
        finally:
            if select is None:
                with database(self._deployment.connect("headrace follow")) as connection:
                    self._first_models = first_models(connection)


_BUILD = "build"
_RECHECK = "follow"


class _Backoff:
    """What is wrong with a dataset, or with building: said once, tried again after ever longer pauses."""

    def __init__(self, name: str, print_line: PrintLine) -> None:
        self._name, self._print_line = name, print_line
        self.error: HeadraceError | None = None
        self._attempts = 0
        self._again_at = 0.0

    @property
    def seconds_left(self) -> float:
        return max(self._again_at - time.monotonic(), 0.0)

    @property
    def is_waiting(self) -> bool:
        return self.error is not None and self.seconds_left > 0

    @contextmanager
    def catch_errors(self) -> Iterator[None]:
        """Errors end here; without one, the trouble is over."""
        try:
            yield
        except HeadraceError as error:
            self.failed(error)
        except Exception as error:  # of a user's function, or a defect: the other datasets have no part in it
            self.failed(_unexpected(self._name, error))
        else:
            self.succeeded()

    def print_once(self, error: HeadraceError) -> None:
        """Say it, unless it was the last thing said."""
        if self.error is None or str(error) != str(self.error):
            self._print_line(f"{error}")
        self.error = error

    def failed(self, error: HeadraceError) -> None:
        """Say it, and pause before the next attempt."""
        self.print_once(error)
        self._attempts += 1
        pause = min(2.0 ** (self._attempts - 1), BACKOFF_MAX_S) * random.uniform(0.8, 1.2)
        self._again_at = time.monotonic() + pause

    def succeeded(self) -> None:
        """All is well again."""
        if self.error is not None:
            self._print_line(f"{self._name}: goes on")
        self.error, self._attempts = None, 0


def _unexpected(name: str, error: Exception) -> HeadraceError:
    """An error that is not one of ours, as one that is; its traceback is logged."""
    logger.warning("%s: unexpected error", name, exc_info=error)
    return PermanentError(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")


class _Notifier:
    """A thread that waits at a dataset's source and puts the dataset's name into a queue when there is something."""

    def __init__(self, deployment: Deployment, dataset: Dataset, notified: "queue.SimpleQueue[str]") -> None:
        self._deployment, self._dataset, self._notified = deployment, dataset, notified
        self._armed = threading.Event()
        self._ended = threading.Event()
        self._behind: Mapping[int, SourcePosition] = {}
        self._pause = 0.0
        self._thread = threading.Thread(target=self._wait, name=f"follow {dataset.name}", daemon=True)
        self._thread.start()

    def notify_after(self, planned: Plan, result: DrainResult) -> None:
        """Ring when a record at or behind what was drained can be read."""
        if any(result.next_offsets.get(p) != bounds.end for p, bounds in planned.ranges.items()):
            self._notified.put(self._dataset.name)  # out of time: there is more
            return
        self._behind, self._pause = planned.behind, 0.0
        self._armed.set()

    def notify_in(self, seconds: float) -> None:
        """Ring after a pause, whatever the source says."""
        self._behind, self._pause = {}, seconds
        self._armed.set()

    def end(self) -> None:
        """Stop waiting; the thread ends by itself within a second."""
        self._ended.set()
        self._armed.set()

    def _wait(self) -> None:
        source: Source | None = None
        while not self._ended.is_set():
            self._armed.wait()
            self._armed.clear()
            if self._ended.wait(self._pause):
                break
            try:
                source = source or open_source(self._deployment, self._dataset)
                while self._behind and not self._ended.is_set() and not source.wait(self._behind, WAIT_S):
                    if self._armed.is_set():
                        break
            except Exception:  # whatever it is, the drain will meet it and say so
                source = None
                if self._ended.wait(WAIT_S):
                    break
            if not self._ended.is_set():
                self._notified.put(self._dataset.name)
        if source is not None:
            source.close()


@contextmanager
def _interrupt_build_on(stop: threading.Event) -> Iterator[None]:
    """A build that is under way when `stop` is set gets a moment, then is interrupted; its claims roll back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if stop.is_set() and not ended.wait(BUILD_GRACE_S):
                _thread.interrupt_main()
                return

    def interrupt(*_: object) -> None:
        if not ended.is_set():  # else it comes too late to be meant
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    watcher = threading.Thread(target=watch, name="follow: stop", daemon=True)
    watcher.start()
    try:
        yield
        ended.set()
    except KeyboardInterrupt:
        stop.set()
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
