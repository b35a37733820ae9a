"""Table, connector, topic, staging, mart: after each round of random transactions the mart equals the table.

make debezium ROUNDS=100      so many rounds
make debezium SEED=5          the same transactions again
"""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.settings import Settings
from headrace.verify import verify
from tests.debezium import shop
from tests.debezium.connector import PREFIX, Connector
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine
from tests.support.change_project import mart, project_of
from tests.support.databases import create_database
from tests.support.interrupts import apart
from tests.support.postgres_servers import server
from tests.support.stage import Stage

SEED = int(os.environ.get("DEBEZIUM_SEED") or random.randrange(100_000))
ROUNDS = int(os.environ.get("DEBEZIUM_ROUNDS") or 100)
TOPIC = f"{PREFIX}.public.customers"
PARTITIONS = 3
LIMIT_S = float(os.environ.get("DEBEZIUM_LIMIT_S") or 300)
TRANSACTIONS = 60
VERIFY_EVERY = 5


@pytest.fixture
def source() -> Iterator[str]:
    """The DSN of a server whose log a connector can read."""
    with server(18, "-c", "wal_level=logical") as dsn:
        shop.create(dsn)
        yield dsn


@pytest.fixture
def site(source: str, print_line: PrintLine) -> Iterator["Site"]:
    """Everything between the table and the mart."""
    servers = Servers(only=("kafka",))
    folder = Path(tempfile.mkdtemp(prefix="headrace-debezium-"))
    folder.chmod(0o755)
    try:
        servers.start()
        site = Site(source, servers, folder)
        try:
            yield site
        finally:
            site.connector.kill()
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)


class Site:
    """A topic, a connector, a deployment and a dbt project."""

    def __init__(self, source: str, servers: Servers, folder: Path) -> None:
        self.source = source
        bootstrap_servers = servers.address("kafka")
        admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
        admin.create_topics(
            [
                NewTopic(TOPIC, PARTITIONS, 1),
                *(NewTopic(name, 1, 1) for name in (f"__debezium-heartbeat.{PREFIX}", f"{PREFIX}.transaction")),
            ]
        )
        admin.close()
        config = {
            "table.include.list": "public.customers",
            "heartbeat.interval.ms": 500,
            "provide.transaction.metadata": "true",
            "skipped.operations": "none",
        }
        self.connector = Connector(servers.settings, bootstrap_servers, source, config)
        (folder / "datasets").mkdir()
        (folder / "datasets" / "customers.py").write_text(shop.DECLARATION)
        dsn = create_database(source, "headrace")
        settings = Settings(
            home=servers.home,
            postgres_dsn=dsn,
            kafka_bootstrap_servers=bootstrap_servers,
            datasets_dir=folder / "datasets",
            batch_rows=50,
        )
        self.stage = Stage(Deployment.from_settings(settings), dsn)
        initialise(self.stage.deployment)
        self.columns = shop.COLUMNS
        self.project = project_of(folder / "dbt", settings, dsn, f"{self.columns}, added")

    def mark(self, number: int) -> None:
        """Write a row that says where the round ends; each partition's end is read with it, or after it."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            for key in range(-number * 100 - 20, -number * 100):  # keys of all partitions
                connection.execute("insert into public.customers (id) values (%s)", (key,))

    def drain_to(self, number: int) -> None:
        """Drain until the rows of `mark` are staged: the connector sends in the order of commits."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            drain_dataset(self.stage.deployment, "customers")
            found = self.stage.value(
                "select count(distinct id) from staging.customers where id >= %s and id < %s",
                *(-number * 100 - 20, -number * 100),
            )
            if found == 20:
                return
            self.connector.require_running()
            assert time.monotonic() < deadline, f"the connector sent {found} of 20 marks in {LIMIT_S:.0f} s"
            time.sleep(0.3)

    def assert_equal(self, is_wider: bool) -> None:
        """The mart has the table's rows, to the last digit."""
        added = "added" if is_wider else "null::bigint"
        with psycopg.connect(self.source) as connection:
            expected = connection.execute(
                f"select {shop.AS_MART}, {added} from public.customers order by id".encode()
            ).fetchall()
        assert mart(self.project, f"{self.columns}, added") == expected

    def assert_accounted(self) -> None:
        """Every record is staged or ignored: none is dead."""
        assert self.stage.query('select reason, detail, "offset" from headrace.dead_letters limit 3') == []
        report = verify(self.stage.deployment, "customers", deep=True)
        assert report.is_clean, list(report.lines())


def _drain(stage: Stage) -> None:
    drain_dataset(stage.deployment, "customers")


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_mart_equals_the_table_after_every_round(site: Site, print_line: PrintLine) -> None:
    rng = random.Random(SEED)
    print_line(f"\nmake debezium SEED={SEED} ROUNDS={ROUNDS}")
    kills = drains = 0
    is_wider = False
    site.connector.start()
    for number in range(1, ROUNDS + 1):
        if number == ROUNDS // 3 + 1:
            with psycopg.connect(site.source, autocommit=True) as connection:
                connection.execute("alter table public.customers add column added bigint")
            is_wider = True
        if is_wider:
            shop.widen(site.source, rng)
        shop.write(site.source, rng, TRANSACTIONS)
        if rng.random() < 0.3:
            (site.connector.kill if rng.random() < 0.7 else site.connector.stop)()
            kills += 1
            if rng.random() < 0.5:  # some of the changes are made while none reads
                shop.write(site.source, rng, TRANSACTIONS)
            site.connector.start()
        with apart(_drain, site.stage) as process:
            process.join(rng.random() * 1.5)
            drains += process.exitcode is None
        if rng.random() < 0.3:
            site.project.run()
        site.mark(number)
        site.drain_to(number)
        site.project.run()
        site.assert_equal(is_wider)
        if number % VERIFY_EVERY == 0 or number == ROUNDS:
            site.assert_accounted()
            print_line(f"round {number}: equal; {kills} connectors restarted, {drains} drains killed")
    again = site.stage.value(
        "select count(*) from (select _position, id, lag(_position) over "
        "(partition by id, _partition order by _offset) as former from staging.customers where _op <> 'r') as each "
        "where _position <= former"
    )
    print_line(f"{ROUNDS} rounds, {again} changes were sent again")
