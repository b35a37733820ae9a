"""A sandbox: a database, topics and loaders, in which trials run one after another."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined]
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.settings import Settings
from tests.faults.checks import Violation, judge
from tests.faults.evidence import Evidence, Stream, gather
from tests.faults.proxy import Proxy
from tests.faults.traffic import Log, PartitionOffset, Sender, digest
from tests.support.databases import create_database

ROOT = Path(__file__).resolve().parents[2]
RUN_LIMIT_S = 60.0  # a longer run counts as hanging
QUIET_LIMIT_S = 30.0  # time to reach the last stable offsets after the faults
STREAM_TRIALS_MAX = 15  # checks read a whole stream, so a new one begins before that takes long
HEALS_MAX = 4
CRASHED = "runs end with an error of Headrace"

# the loader's sessions, locks and temporary tables, without those of the sandbox's own connection
LEFTOVERS = """
select format('session %s (%s, %s): %s', pid, application_name, state, query)
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
union all
select format('lock %s on %s held by pid %s', mode, coalesce(relation::regclass::text, locktype), pid)
from pg_locks
where database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
    and pid not in (select pid from pg_stat_activity where backend_type <> 'client backend')
union all
select format('temporary table %s', oid::regclass)
from pg_class
where relpersistence = 't'
union all
select format('prepared transaction %s', gid)
from pg_prepared_xacts
where database = current_database()
"""


class TimedOut(Exception):
    """A run did not reach the expected state in time."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run: `how` is done, error or killed."""

    how: str
    run_id: str
    error: str = ""
    message: str = ""
    trace: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    connects: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    barriers: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The end, for messages."""
        return {"done": "done", "killed": "killed"}.get(self.how, f"{self.error}: {self.message}")


class LoaderRun:
    """A loader in its own process, as the sandbox controls it."""

    def __init__(self, channel: socket.socket, run_id: str) -> None:
        self._channel = channel
        self.run_id = run_id
        self.planned: dict[str, Any] | None = None
        self.barriers: dict[str, int] = defaultdict(int)
        self._end: RunEnd | None = None
        self.pid = int((self._receive(10) or {})["pid"])
        self._handle = os.pidfd_open(self.pid)
        self.go()

    def go(self) -> None:
        """Let it continue from the barrier where it waits."""
        with suppress(OSError):
            self._channel.send(b"g")

    def wait_for(self, *steps: str, limit_s: float = RUN_LIMIT_S) -> str | None:
        """Wait until it reports one of these barriers and return its name; None if it ended before."""
        deadline = time.monotonic() + limit_s
        while self._end is None:
            message = self._receive(deadline - time.monotonic())
            if message is not None and message.get("at") in steps:
                return str(message["at"])
        return None

    def wait_until_planned(self) -> dict[str, Any] | None:
        """Wait for its plan; None if it ended without one."""
        deadline = time.monotonic() + RUN_LIMIT_S
        while self._end is None and self.planned is None:
            self._receive(deadline - time.monotonic())
        return self.planned

    def end(self, limit_s: float = RUN_LIMIT_S) -> RunEnd:
        """Wait until it has ended."""
        deadline = time.monotonic() + limit_s
        while self._end is None:
            self._receive(deadline - time.monotonic())
        return self._end

    def has_ended(self) -> bool:
        """Whether it has ended; reads its reports."""
        while self._end is None and select.select([self._channel], [], [], 0)[0]:
            self._receive(1)
        return self._end is not None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def wait_until_stopped(self) -> None:
        """After SIGSTOP: wait until the process no longer runs."""
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt":
            if time.monotonic() > deadline:
                raise TimedOut(f"pid {self.pid} did not stop")
            time.sleep(0.002)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.signal(signal.SIGKILL)
        self._channel.close()
        os.close(self._handle)

    def _receive(self, limit_s: float) -> dict[str, Any] | None:
        if not select.select([self._channel], [], [], max(limit_s, 0))[0]:
            raise TimedOut(f"run {self.run_id} said nothing in time; barriers so far: {dict(self.barriers)}")
        try:
            data = self._channel.recv(1_000_000)
        except ConnectionError:
            data = b""
        if not data:
            self._end = RunEnd("killed", self.run_id, barriers=dict(self.barriers))
            return None
        message: dict[str, Any] = json.loads(data)
        if "planned" in message:
            self.planned = message["planned"]
        elif "at" in message:
            self.barriers[message["at"]] = message["nth"]
        elif "end" in message:
            known = {name: message[name] for name in RunEnd.__slots__ if name in message}
            self._end = RunEnd(how=message["end"], run_id=self.run_id, **known)
        return message


class ForkServer:
    """The process that forks a sandbox's loaders, from the copy of the loader below `plugins`."""

    def __init__(self, plugins: Path, log: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(plugins)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # the kernel continues stopped processes of a process group whose leader ends
                start_new_session=True,
            )
        theirs.close()
        hello = self._control.recv(65_536)
        if not hello:
            raise RuntimeError(f"the loader below {plugins} cannot be imported:\n{log.read_text()[-2_000:]}")
        loader = Path(json.loads(hello)["loader"])
        assert loader.is_relative_to(plugins), f"found the loader {loader}, expected one below {plugins}"

    def fork(self, request: dict[str, Any]) -> LoaderRun:
        """Start a run."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        theirs.close()
        return LoaderRun(ours, request.get("run_id", request["what"]))

    def close(self) -> None:
        """End the fork server and its children."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Sandbox:
    """Runs loaders against streams, and checks the results."""

    def __init__(
        self,
        name: str,
        folder: Path,
        postgres_dsn: str,
        bootstrap_servers: str,
        *,
        plugins: Path = ROOT / "plugins",
        undefended: bool = False,
    ) -> None:
        self.name = name
        self.bootstrap_servers = bootstrap_servers
        self._undefended = undefended
        self._folder = folder / name
        (self._folder / "datasets").mkdir(parents=True)
        self._server_dsn = postgres_dsn
        self._database = f"faults_{name}"
        self.dsn = create_database(postgres_dsn, self._database)
        info = conninfo_to_dict(self.dsn)
        self.proxy = Proxy(int(str(info["port"])))
        self.proxied_dsn = make_conninfo(
            "", **info | {"port": self.proxy.port, "sslmode": "disable", "gssencmode": "disable"}
        )
        self.settings: dict[str, Any] = {
            "home": str(self._folder),
            "postgres_dsn": self.dsn,
            "kafka_bootstrap_servers": bootstrap_servers,
            "datasets_dir": str(self._folder / "datasets"),
            "batch_rows": 20,
        }
        initialise(Deployment.from_settings(Settings(postgres_dsn=self.dsn, datasets_dir=self._folder / "datasets")))
        self.users_file = self._folder / "users.ndjson"
        users = (ROOT / "data-files" / "users.ndjson").read_text().splitlines()[:200]
        self.users_file.write_text("\n".join(users) + "\n")
        self.fork_server = ForkServer(plugins, self._folder / "fork_server.log")
        self.sender = Sender(bootstrap_servers, f"{name}-{os.getpid()}")
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self._connection: psycopg.Connection[Any] | None = None
        self._streams = 0
        self._run_numbers = 0
        self._runs: list[LoaderRun] = []
        self.ended: list[RunEnd] = []
        self._readers: dict[int, _SecondClient] = {}  # by log identity: a topic created again keeps its name
        self.stream = self.new_stream()

    @property
    def sql(self) -> psycopg.Connection[Any]:
        """The sandbox's own connection; opened again if a fault closed it."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.dsn, autocommit=True, application_name="faults checker")
        return self._connection

    def forget_connection(self) -> None:
        """Close the sandbox's own connection before a server is stopped."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # streams

    def new_stream(self, partitions: int = 3) -> Stream:
        """A new dataset that reads a new topic."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._streams += 1
        name = f"jobs_{self._streams}"
        self.stream = Stream(
            name, {1: self.create_topic(f"{self._database}-{os.getpid()}-{self._streams}", partitions)}
        )
        declared = (ROOT / "plugins" / "datasets" / "jobs.py").read_text()
        assert 'topic="jobs"' in declared
        assert 'name="jobs"' in declared
        declared = declared.replace('topic="jobs"', f'topic="{self.stream.log.topic}"').replace(
            'name="jobs"', f'name="{name}"'
        )
        (self._folder / "datasets" / f"{name}.py").write_text(declared)
        if self._undefended:
            self._remove_defences(name)
        return self.stream

    def _remove_defences(self, name: str) -> None:
        """Drop the indexes that refuse a duplicate row, so that the checks have to find it."""
        plan = self.run(what="plan")
        assert plan.how != "killed", plan
        for statement in (
            f"alter table staging.{name} drop constraint if exists _pkey_{name}",
            "alter table headrace.dead_letters drop constraint if exists dead_letters_pkey",
            "alter table headrace.dead_letters drop constraint if exists dead_letters_batch_id_fkey",
            "drop index if exists headrace.batches_chain",
        ):
            self.sql.execute(statement.encode())

    def create_topic(self, topic: str, partitions: int) -> Log:
        """Create a topic and wait until it accepts records."""
        config = {"retention.ms": "-1"}  # otherwise records with old timestamps are deleted within minutes
        self.admin.create_topics([NewTopic(topic, partitions, config=config)])[topic].result(30)
        return Log(topic, partitions)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and wait until the broker no longer lists it."""
        self.admin.delete_topics([topic])[topic].result(30)
        deadline = time.monotonic() + 30
        while topic in self.admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"{topic} is still there"
            time.sleep(0.02)

    def delete_records(self, log: Log, partition: int, before: int) -> None:
        """Delete the records of a partition below `before`, as retention does."""
        self.admin.delete_records([TopicPartition(log.topic, partition, before)])[
            TopicPartition(log.topic, partition)
        ].result(30)

    def add_partitions(self, log: Log, partitions: int) -> None:
        """Give a topic more partitions."""
        self.admin.create_partitions([NewPartitions(log.topic, partitions)])[log.topic].result(30)
        log.partitions = partitions
        deadline = time.monotonic() + 30
        while len(self.admin.list_topics(log.topic, 10).topics[log.topic].partitions) < partitions:
            assert time.monotonic() < deadline, f"{log.topic}: {partitions} partitions did not appear"

    def stable_ends(self, log: Log) -> dict[int, int]:
        """The last stable offsets."""
        return self._ends(log, IsolationLevel.READ_COMMITTED)

    def settle(self, log: Log) -> dict[int, int]:
        """Wait until the broker has written the markers of all ended transactions; return the last stable offsets."""
        deadline = time.monotonic() + 30
        while True:
            ends = self.stable_ends(log)
            if log.open or ends == self._ends(log, IsolationLevel.READ_UNCOMMITTED):
                return ends
            assert time.monotonic() < deadline, f"{log.topic}: a transaction is still open: {ends}"
            time.sleep(0.005)

    def _ends(self, log: Log, isolation: IsolationLevel) -> dict[int, int]:
        asked = {
            TopicPartition(log.topic, p): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for p in range(log.partitions)
        }
        deadline = time.monotonic() + 30
        while True:
            try:
                found = self.admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
                return {tp.partition: future.result(15).offset for tp, future in found.items()}
            except Exception:  # the topic is new, or the broker has just restarted
                if time.monotonic() > deadline:
                    raise
                with suppress(KafkaException):
                    self.admin.list_topics(log.topic, 5)
                time.sleep(0.05)

    # runs

    def start(self, *, through_proxy: bool = False, what: str = "drain", **request: Any) -> LoaderRun:
        """Start a loader; `actions` define what it does at which barrier."""
        if through_proxy:
            request["drain_dsn"] = self.proxied_dsn
        settings = {**self.settings, **request.pop("settings", {})}
        request = {"what": what, "settings": settings, "dataset": self.stream.name, **request}
        self._run_numbers += 1
        request.setdefault("run_id", f"{self.stream.name}-{self._run_numbers}")
        run = self.fork_server.fork(request)
        self._runs.append(run)
        return run

    def run(self, **request: Any) -> RunEnd:
        """Start a loader and wait until it has ended."""
        return self.note(self.start(**request).end())

    def note(self, ended: RunEnd) -> RunEnd:
        """Store how a run ended, for the checks."""
        self.ended.append(ended)
        return ended

    def backends(self) -> list[int]:
        """The pids of the backends that serve the stream's drains."""
        found = self.sql.execute(
            "select pid from pg_stat_activity where datname = current_database() and application_name = %s",
            (f"headrace drain {self.stream.name}",),
        ).fetchall()
        return [pid for (pid,) in found]

    # the end of a trial

    def heal(self) -> list[RunEnd]:
        """Drain without faults until nothing is left to read."""
        ends: list[RunEnd] = []
        for _ in range(HEALS_MAX):
            ends.append(self.run())
            if ends[-1].how == "done" and not self._lag():
                break
        return ends

    def _lag(self) -> int:
        rows = self.sql.execute(
            "select c.partition, c.next_offset from headrace.checkpoints as c "
            "inner join headrace.generations as g using (dataset, generation) where g.dataset = %s and g.is_open",
            (self.stream.name,),
        ).fetchall()
        at: dict[int, int] = dict(rows)
        return sum(end - at.get(partition, 0) for partition, end in self.stable_ends(self.stream.log).items())

    def evidence(self) -> Evidence:
        """The evidence at this moment."""
        ends = self.settle(self.stream.log)
        seen = {}
        for generation, log in self.stream.logs.items():
            reader = self._readers.get(id(log)) or _SecondClient(self.bootstrap_servers, log)
            self._readers[id(log)] = reader
            seen[generation] = reader.read(ends if log is self.stream.log else None)
        return gather(self.sql, self.stream, seen, ends)

    def judge(self) -> list[Violation]:
        """Run all checks, and compare the reports of the runs, after the faults have ended."""
        evidence = self.evidence()
        violations = judge(evidence)
        violations += [Violation("honest runs", message) for message in _wrong_claims(self.ended, evidence)]
        violations += [Violation("8 nothing left", message) for message in self._leftovers()]
        violations += [
            Violation(
                CRASHED, f"{run.run_id} ended with {run.text}, expected one of Headrace's own errors\n{run.trace}"
            )
            for run in self.ended
            if run.trace
        ]
        return violations

    def _leftovers(self) -> list[str]:
        deadline = time.monotonic() + QUIET_LIMIT_S
        while True:
            found = [text for (text,) in self.sql.execute(LEFTOVERS).fetchall()]
            if not found or time.monotonic() > deadline:
                return [f"{QUIET_LIMIT_S:.0f} s after the faults: found {text}, expected nothing" for text in found]
            time.sleep(0.05)

    def begin_trial(self) -> None:
        """Clear the last trial's runs; create a new stream if the last one has grown."""
        self.end_trial()
        if self.stream.users >= STREAM_TRIALS_MAX:
            self.new_stream()
        self.stream.users += 1

    def end_trial(self) -> None:
        """Kill all loaders that still run."""
        self.proxy.disarm()
        for run in self._runs:
            run.close()
        self._runs.clear()
        self.ended.clear()

    def close(self) -> None:
        """End everything and drop the database."""
        self.end_trial()
        self.fork_server.close()
        for reader in self._readers.values():
            reader.close()
        self.forget_connection()
        with psycopg.connect(self._server_dsn, autocommit=True) as connection:
            connection.execute(f"drop database {self._database} with (force)".encode())


class _SecondClient:
    """Reads a topic with confluent-kafka, read_committed: the second independent list of records."""

    def __init__(self, bootstrap_servers: str, log: Log) -> None:
        self._log = log
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "faults-checker",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "check.crcs": True,
                "log_level": 0,
            }
        )
        self._ends: dict[int, int] = {}
        self._seen: dict[PartitionOffset, str] = {}
        self._partitions = 0

    def read(self, ends: dict[int, int] | None) -> dict[PartitionOffset, str]:
        """Read up to these stable ends; None: the topic is deleted, and what was read is complete."""
        if ends is None:
            return self._seen
        if self._partitions != self._log.partitions:
            self._partitions = self._log.partitions
            starts = {p: self._ends.get(p, self._log.starts.get(p, 0)) for p in range(self._partitions)}
            self._consumer.assign([TopicPartition(self._log.topic, p, start) for p, start in starts.items()])
        deadline = time.monotonic() + 60
        while any(self._ends.get(p, 0) < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimedOut(f"the second client read {self._log.topic} up to {self._ends}, expected {ends}")
            for message in self._consumer.consume(1_000, 0.05):
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                error = message.error()
                if error is None:
                    headers: Any = message.headers() or ()
                    raw = digest(message.key(), message.value(), headers, message.timestamp()[1])
                    self._seen[partition, offset] = raw
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._ends[partition] = offset
                elif not error.retriable() and error.code() not in (
                    KafkaError._ALL_BROKERS_DOWN,
                    KafkaError._TRANSPORT,
                ):
                    raise RuntimeError(f"{self._log.topic}[{partition}]: {error}")
        return self._seen

    def close(self) -> None:
        self._consumer.close()


def _wrong_claims(runs: list[RunEnd], evidence: Evidence) -> list[str]:
    """Compare what runs reported with the ledger."""
    found = []
    for run in runs:
        lines = [line for line in evidence.lines if line.run_id == run.run_id and line.kind == "drain"]
        if run.how == "done" and run.result and "batches" in run.result:
            said = run.result
            stored = {"batches": len(lines)} | {
                name: sum(getattr(line, name) for line in lines)
                for name in ("staged", "dead", "tombstones", "empty", "bytes")
            }
            if said != stored:
                found.append(f"{run.run_id}: the run says {said}, expected what the ledger holds of it: {stored}")
        if run.how == "error" and run.error == "CheckpointMoved" and "another run committed" in run.message:
            start = int(run.message.partition("this batch starts at ")[2].partition(":")[0])
            partition = int(run.message.partition("[")[2].partition("]")[0])
            for line in lines:
                if line.partition == partition and line.start_offset <= start < line.end_offset:
                    found.append(
                        f"{run.run_id}: {run.message}: but its own line {line.seq} "
                        f"[{line.start_offset}, {line.end_offset}) covers that offset, expected it to know its batch"
                    )
    return found
