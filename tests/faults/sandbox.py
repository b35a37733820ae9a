"""A sandbox: a database, topics and loaders, in which trials run one after another."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined]
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.settings import Settings
from tests.faults.checks import Violation, judge
from tests.faults.evidence import Evidence, Stream, gather
from tests.faults.loaders import ROOT, ForkServer, LoaderRun, RunEnd
from tests.faults.proxy import Proxy
from tests.faults.run_claims import wrong_claims
from tests.faults.second_client import SecondClient
from tests.faults.traffic import Log, Sender
from tests.support.databases import create_database

QUIET_LIMIT_S = 30.0  # faults.md, check 8
STREAM_TRIALS_MAX = 15  # every check reads a whole stream: a new one begins before that takes long
HEALS_MAX = 4
CRASHED = "runs end with an error of Headrace"

# the loader's sessions, locks and temporary tables, without those of the sandbox's own connection
LEFTOVERS = """
select format('session %s (%s, %s): %s', pid, application_name, state, query)
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
    and application_name <> 'headrace tests'
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
        self._readers: dict[int, SecondClient] = {}  # by log identity: a topic created again keeps its name
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
            reader = self._readers.get(id(log)) or SecondClient(self.bootstrap_servers, log)
            self._readers[id(log)] = reader
            seen[generation] = reader.read(ends if log is self.stream.log else None)
        return gather(self.sql, self.stream, seen, ends)

    def judge(self) -> list[Violation]:
        """Run all checks, and compare the reports of the runs, after the faults have ended."""
        evidence = self.evidence()
        violations = judge(evidence)
        violations += [Violation("honest runs", message) for message in wrong_claims(self.ended, evidence)]
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
