"""The Dockerfile of docs/your-airflow.md: Airflow's image with Headrace and a project, and a run of its DAG."""

import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
from psycopg.rows import TupleRow

from headrace.local import services
from headrace.settings import Settings
from tests.compose.engine import Engine, run
from tests.support.your_airflow import PAGE, RELEASES, Api, build_wheel, free_port

RELEASE = "3.1"
ORDERS = (
    '1|{"order_id": 1, "customer": "Ada", "amount": 12.5, "ordered_at": "2026-01-01T10:00:00Z"}\n'
    '2|{"order_id": 2, "customer": "Bob", "amount": -3, "ordered_at": "2026-01-01T10:00:30Z"}\n'
)
LIMIT_S = 600


def dockerfile() -> str:
    """The page's one Dockerfile."""
    (text,) = re.findall(r"^```dockerfile\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(text)


def airflow_image() -> str:
    """The image that it extends."""
    (image,) = re.findall(r"^FROM (\S+)$", dockerfile(), re.MULTILINE)
    assert RELEASES[RELEASE][0] in image
    return str(image)


def check_extended(engine: Engine, room: Path, say: Callable[[str], None]) -> None:
    """Build the image as the page says, and run the example's DAGs with it."""
    room.chmod(0o755)  # PostgreSQL runs as another user
    image = _built(engine, room)
    say(f"build: the page's Dockerfile, on {airflow_image()}")
    name = f"headrace-test-{secrets.token_hex(4)}"
    try:
        _check_unprivileged(engine, image)
        say("container: user 50000, a root file system that is read-only; headrace check, plugin and DAGs are found")
        with _services(room / "home") as (settings, variables):
            _check_run(engine, image, name, settings, variables)
        say("first run: the DAGs of the image staged, built and rejected as the page says")
    except BaseException:
        print(engine.docker("logs", "--tail", "60", name, check=False))
        raise
    finally:
        engine.docker("rm", "--force", "--volumes", name, check=False)
        engine.docker("image", "rm", "--force", image, check=False)


def _built(engine: Engine, room: Path) -> str:
    """The image of the page's Dockerfile; pip finds the wheel of this checkout, which PyPI does not have."""
    base, image = "headrace-test-airflow-with-wheels", "headrace-test-extended"
    build_wheel(room, "0.1.0")
    (room / "base.Dockerfile").write_text(
        f"FROM {airflow_image()}\nCOPY wheels /wheels\nENV PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
    )
    environment = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    # our engine's bridges have no way out, and pip needs one
    build = ["docker", "build", "--quiet", *(["--network", "host"] if engine.is_ours else [])]
    run([*build, "--file", str(room / "base.Dockerfile"), "--tag", base, str(room)], environment)
    context = room / "context"
    context.mkdir()
    run([str(Path(sys.executable).with_name("headrace")), "new", str(context / "sales")], engine.environment)
    text = dockerfile().replace(f"FROM {airflow_image()}\n", f"FROM {base}\n")
    assert f"FROM {base}" in text
    (context / "Dockerfile").write_text(text)
    run([*build, "--tag", image, str(context)], environment, limit_s=1_800)
    return image


def _check_unprivileged(engine: Engine, image: str) -> None:
    """As Airflow's own user, with a root file system that cannot be written to."""
    script = """
        set -euo pipefail
        id -u
        headrace --version
        cd /opt/airflow/dags/sales && headrace check
        export AIRFLOW_CONFIG=/tmp/airflow.cfg  # Airflow writes it beside its database and logs
        export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:////tmp/airflow.db AIRFLOW__LOGGING__BASE_LOG_FOLDER=/tmp/logs
        cd /tmp && airflow db migrate > /tmp/migrate.log 2>&1 || { cat /tmp/migrate.log; exit 1; }
        airflow plugins
        airflow dags reserialize > /tmp/dags.log 2>&1 || { cat /tmp/dags.log; exit 1; }
        airflow dags list --output plain
        airflow dags list-import-errors
        touch /opt/airflow/x 2>&1 || true
    """
    options = ("--rm", "--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL")
    said = engine.docker("run", *options, image, "bash", "-c", script)
    assert said.splitlines()[:2] == ["50000", "headrace, version 0.1.0"], said
    for found in ("no faults", "headrace", "ingest_orders", "build_marts", "No data found", "Read-only file system"):
        assert found in said, f"{found} in:\n{said}"


@contextmanager
def _services(home: Path) -> Iterator[tuple[Settings, dict[str, str]]]:
    """A PostgreSQL and a broker of this machine, and the variables by which a container reaches them."""
    home.mkdir()
    settings = Settings(home=home)
    try:
        started = services.up(settings, only=("postgres", "kafka"), print_line=lambda _line: None)
        address = urlsplit(started["postgres"]["address"])
        (passfile,) = parse_qs(address.query)["passfile"]
        password = Path(passfile).read_text().splitlines()[0].rpartition(":")[2]
        dsn = f"postgresql://{address.username}:{password}@{address.hostname}:{address.port}{address.path}"
        yield (
            settings,
            {
                "HEADRACE_POSTGRES_DSN": dsn,
                "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": started["kafka"]["address"],
            },
        )
    finally:
        services.down(settings, print_line=lambda _line: None)


def _check_run(engine: Engine, image: str, name: str, settings: Settings, variables: dict[str, str]) -> None:
    """All of Airflow in one container; as root, because local servers take connections of this user only."""
    port = free_port()
    variables = variables | {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True", "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname", "AIRFLOW__CORE__PARALLELISM": "4",
    }  # fmt: skip
    options = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
    common = ("--network", "host", "--user", "0:0", *options, image)
    engine.docker("run", "--rm", *common, "bash", "-c", "headrace init")
    produce = f"cat > /tmp/orders.txt <<'END'\n{ORDERS}END\nheadrace produce orders /tmp/orders.txt"
    engine.docker("run", "--rm", *common, "bash", "-c", produce)
    engine.docker("run", "--detach", "--name", name, *common, "standalone")
    api = Api(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + LIMIT_S
    for dag_id in ("ingest_orders", "build_marts"):
        while not _unpaused(api, dag_id):
            assert time.monotonic() < deadline, f"{dag_id} is not found"
            time.sleep(2)
    with psycopg.connect(variables["HEADRACE_POSTGRES_DSN"], autocommit=True) as connection:
        while not (rows := _rows(connection, "marts.orders", "order_id, customer")):
            assert time.monotonic() < deadline, "no mart"
            time.sleep(2)
        assert rows == [(1, "Ada")]
        assert _rows(connection, "headrace.dead_letters", "reason") == [("out_of_range",)]
    assert [each["dataset"] for each in api.get("/headrace/status")["datasets"]] == ["orders"]
    assert settings.home.exists()


def _unpaused(api: Api, dag_id: str) -> bool:
    try:
        return api.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False}).status_code == 200
    except (httpx.HTTPError, KeyError, ValueError):
        return False  # it is still starting


def _rows(connection: "psycopg.Connection[TupleRow]", table: str, columns: str) -> list[TupleRow]:
    there = connection.execute("select to_regclass(%s) is not null", (table,)).fetchone()
    return connection.execute(f"select {columns} from {table}".encode()).fetchall() if there and there[0] else []
