"""docker-compose.yml, Dockerfile and .env.example, as far as they can be judged without running them."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace import __version__
from headrace.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()

ONE_SHOT = {"init"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
AIRFLOW = sorted(name for name, service in SERVICES.items() if "build" in service)
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]*}")
VARIABLE = re.compile(r"\$\{([A-Z_]+)[^}]*}")


def environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


@pytest.mark.security("S2")
@pytest.mark.parametrize("service", SERVICES)
def test_image_has_a_pinned_tag_and_digest(service: str) -> None:
    image = SERVICES[service]["image"]
    digest = "" if service in AIRFLOW else r"@sha256:[0-9a-f]{64}"  # ours is built here
    assert re.fullmatch(rf"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?{digest}", image), f"{service}: {image}"


def test_our_image_carries_the_version_of_the_project() -> None:
    assert {SERVICES[service]["image"] for service in AIRFLOW} == {f"headrace:{__version__}"}


@pytest.mark.parametrize("service", SERVICES)
def test_published_ports_are_bound_to_the_loopback(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+}:\d+", port), f"{service}: {port}"


def test_published_ports_differ() -> None:
    published = [port.rsplit(":", 1)[0] for service in SERVICES.values() for port in service.get("ports", [])]
    defaults = [re.sub(r"\D", "", port.rpartition(":-")[2]) for port in published]
    assert len(published) >= 5
    assert len(set(defaults)) == len(defaults), defaults


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_long_running_service_has_a_health_check_and_comes_back(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"} and len(check["test"]) > 1
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
    assert "start_interval" not in check, "Engines before 25 refuse it, Debian 12's among them"
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", ONE_SHOT)
def test_one_shot_service_runs_once(service: str) -> None:
    assert SERVICES[service]["restart"] == "no"


@pytest.mark.parametrize("service", SERVICES)
def test_dependencies_are_waited_for_until_they_work(service: str) -> None:
    for name, how in SERVICES[service].get("depends_on", {}).items():
        expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
        assert how == {"condition": expected}, f"{service} -> {name}"


def test_volumes_are_named_and_declared() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == COMPOSE["volumes"].keys()


def test_postgres_volume_is_where_18_keeps_its_data() -> None:
    assert SERVICES["postgres"]["image"].startswith("postgres:18.")
    assert SERVICES["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]


# secrets


@pytest.mark.parametrize("service", SERVICES)
def test_secret_is_never_literal(service: str) -> None:
    for name, value in environment(service).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEY$|AUTH$", name) and not name.endswith("_FILE"):
            assert REQUIRED.fullmatch(value), f"{service}: {name}"
        for credentials in re.findall(r"://([^/@]*)@", value):
            assert REQUIRED.fullmatch(credentials.partition(":")[2]), f"{service}: {name}"


@pytest.mark.security("S4")
@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_is_on_a_command_line(service: str) -> None:
    """Compose puts a variable's value where its name stands; $$ leaves the name to the container's shell."""
    words = [*SERVICES[service].get("command", []), *SERVICES[service]["healthcheck"].get("test", [])]
    assert not [word for word in words if re.search(r"(?<!\$)\$(?!\$)", word.replace("$$", ""))]


# privileges


@pytest.mark.security("S3")
@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_capability_and_gains_none(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"] and "cap_add" not in SERVICES[service]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "network_mode", "devices"} & SERVICES[service].keys()
    assert "docker.sock" not in str(SERVICES[service])


@pytest.mark.security("S3")
@pytest.mark.parametrize("service", SERVICES)
def test_containers_own_file_system_is_read_only(service: str) -> None:
    assert SERVICES[service]["read_only"] is (service != "kafka"), "kafka: the file says why not"
    if service in AIRFLOW:
        own = [path for path in SERVICES[service]["tmpfs"] if not path.endswith(":uid=50000,gid=50000,mode=0700")]
        assert own == ["/tmp"], "writable for its own user alone"


@pytest.mark.security("S3")
def test_kafka_ui_is_off_by_default_and_has_a_login() -> None:
    assert SERVICES["kafka-ui"]["profiles"] == ["ui"]
    given = environment("kafka-ui")
    assert given["AUTH_TYPE"] == "LOGIN_FORM" and given["SPRING_SECURITY_USER_NAME"] == "admin"
    assert given["SPRING_SECURITY_USER_PASSWORD"] == "${KAFKA_UI_PASSWORD:?see .env.example}"
    assert given["KAFKA_CLUSTERS_0_READONLY"] == "true"


def test_no_secret_has_a_default() -> None:
    with_default = set(re.findall(r"\$\{([A-Z_]+):?[-+]", TEXT))
    assert with_default and all(name.endswith("_PORT") for name in with_default - {"AIRFLOW_EXECUTOR"}), with_default


def test_env_example_names_exactly_what_compose_reads() -> None:
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", ENV_EXAMPLE, re.MULTILINE))
    optional = dict(re.findall(r"^# ([A-Z_]+_PORT|AIRFLOW_EXECUTOR)=(\w+)$", ENV_EXAMPLE, re.MULTILINE))
    assert given.keys() == set(REQUIRED.findall(TEXT))
    assert all(value.startswith("replace-me-") for value in given.values()), "a placeholder that init refuses"
    assert optional.items() == set(re.findall(r"\$\{([A-Z_]+):-(\w+)}", TEXT))
    assert given.keys() | optional.keys() == set(VARIABLE.findall(TEXT))


def test_env_example_names_nothing_that_headrace_on_the_host_would_refuse() -> None:
    assert not re.search(r"^#? ?HEADRACE_", ENV_EXAMPLE, re.MULTILINE), "an exported .env must not be a setting"


def run_init(
    tmp_path: Path, secrets: dict[str, str], failing: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run init's script with stand-ins for its commands; the second value is what it called."""
    bash = shutil.which("bash")
    assert bash
    calls = tmp_path / "calls"
    calls.touch()
    for name in ("python", "airflow", "headrace"):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!{bash}\necho {name} "$@" >> {calls}\nexit {int(name == failing)}\n')
        stand_in.chmod(0o755)
    _, options, script = SERVICES["init"]["command"]
    environ = dict.fromkeys(environment("init"), "secret") | secrets | {"PATH": f"{tmp_path}"}
    done = subprocess.run(
        [bash, options, script.replace("$$", "$")], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    return done, calls.read_text().splitlines()


def test_init_with_secrets_prepares_databases_in_order(tmp_path: Path) -> None:
    done, calls = run_init(tmp_path, {})
    assert (done.returncode, done.stderr) == (0, "")
    assert calls == ["python -", "airflow db migrate", "headrace init"]


@pytest.mark.parametrize(("failing", "called"), [("python", 1), ("airflow", 2), ("headrace", 3)])
def test_init_stops_at_the_step_that_fails(tmp_path: Path, failing: str, called: int) -> None:
    done, calls = run_init(tmp_path, {}, failing)
    assert done.returncode == 1
    assert len(calls) == called


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (variable, name)
        for name, value in environment("init").items()
        for variable in [REQUIRED.fullmatch(value)]
        if variable and name != "DBT_ENV_SECRET_HEADRACE_PASSWORD"  # POSTGRES_PASSWORD again
    ],
)
def test_init_with_a_placeholder_refuses_before_any_change(tmp_path: Path, variable: re.Match[str], name: str) -> None:
    placeholder = re.search(rf"^{variable[1]}=(.*)$", ENV_EXAMPLE, re.MULTILINE)
    assert placeholder
    done, calls = run_init(tmp_path, {name: placeholder[1]})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: found the placeholder of .env.example")
    assert calls == []


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "VALKEY_PASSWORD"])
@pytest.mark.parametrize("password", ["p@ss", "a/b", "50%", "a b", "a#b"])
def test_init_with_a_password_that_breaks_an_address_refuses(tmp_path: Path, name: str, password: str) -> None:
    done, calls = run_init(tmp_path, {name: password})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: found a character that an address cannot hold")
    assert calls == []


def test_init_code_in_python_compiles() -> None:
    script = SERVICES["init"]["command"][2]
    blocks = re.findall(r"python - <<'END'\n(.*?)\nEND\n", script, re.DOTALL)
    assert len(blocks) == 1
    compile(blocks[0], "init", "exec")
    for service in SERVICES.values():
        if service["healthcheck"].get("test", [])[:3] == ["CMD", "python", "-c"]:
            compile(service["healthcheck"]["test"][3], "healthcheck", "exec")


# settings


@pytest.mark.parametrize("service", AIRFLOW)
def test_headrace_variables_are_settings(service: str) -> None:
    in_image = dict(re.findall(r"\b(HEADRACE_[A-Z_]+)=(\S+)", DOCKERFILE))
    settings = Settings.from_environment(environment(service) | in_image | {"HEADRACE_HOME": os.devnull})
    assert settings.kafka_bootstrap_servers == "kafka:9092"
    assert settings.postgres_dsn and "@postgres:5432/headrace" in settings.postgres_dsn
    assert (settings.dbt_host, settings.dbt_port) == ("postgres", 5432)
    assert (settings.dbt_user, settings.dbt_dbname) == ("headrace", "headrace")


def test_airflow_processes_share_one_environment() -> None:
    shared = COMPOSE["x-environment"]
    for service in AIRFLOW:
        given = environment(service)
        assert given.items() >= shared.items(), service
        if service not in ONE_SHOT:
            assert given == shared, service


def test_airflow_variables_are_airflows() -> None:
    """A misspelt AIRFLOW__ variable is ignored without a word."""
    airflow = importlib.util.find_spec("airflow")
    assert airflow and airflow.submodule_search_locations
    folder = Path(airflow.submodule_search_locations[0])
    known = yaml.load((folder / "config_templates" / "config.yml").read_text(), Loader=yaml.CSafeLoader)
    # run by itself: an import of the provider imports all of Airflow, which takes seconds
    known |= runpy.run_path(str(folder / "providers/celery/get_provider_info.py"))["get_provider_info"]()["config"]
    names = set(COMPOSE["x-environment"]) | set(re.findall(r"\b(AIRFLOW__[A-Z_]+)=", DOCKERFILE))
    for name in sorted(name for name in names if name.startswith("AIRFLOW__")):
        _, section, option = name.split("__")
        assert option.lower() in known[section.lower()]["options"], name


def test_airflow_in_its_container_matches_the_published_port() -> None:
    shared = COMPOSE["x-environment"]
    host, outside, inside = re.fullmatch(  # type: ignore[union-attr]
        r"([\d.]+):(\$\{[^}]+}):(\d+)", SERVICES["api-server"]["ports"][0]
    ).groups()
    assert shared["AIRFLOW__API__PORT"] == inside
    assert shared["AIRFLOW__API__BASE_URL"] == f"http://{host}:{outside}"
    assert shared["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://api-server:{inside}/execution/"


# the executor


def test_one_variable_chooses_the_executor_and_the_default_needs_no_worker() -> None:
    assert COMPOSE["x-environment"]["AIRFLOW__CORE__EXECUTOR"] == "${AIRFLOW_EXECUTOR:-LocalExecutor}"
    assert [name for name in SERVICES if "scale" in SERVICES[name].get("profiles", [])] == ["worker"]
    assert "container_name" not in SERVICES["worker"] and "ports" not in SERVICES["worker"], "there may be many"


def test_workers_are_told_what_to_do_apart_from_telemetry() -> None:
    shared = COMPOSE["x-environment"]
    broker, streams = shared["AIRFLOW__CELERY__BROKER_URL"], shared["HEADRACE_REDIS_URL"]
    assert broker.rpartition("/")[0] == streams.rpartition("/")[0] and broker != streams, "another database of Valkey"
    assert shared["AIRFLOW__CELERY__RESULT_BACKEND"] == f"db+{shared['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']}"


def test_lock_of_the_workers_is_the_lock_and_more() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+(?:\[[a-z0-9,-]+])?==\S+)", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements-celery.txt") > pins("requirements.txt")
    assert pins("requirements-dev.txt") > pins("requirements-celery.txt"), "what is tested is what runs"


# Kafka


def test_kafka_advertises_each_side_its_own_address() -> None:
    kafka = environment("kafka")
    listeners = dict(item.split("://") for item in kafka["KAFKA_LISTENERS"].split(","))
    advertised = dict(item.split("://") for item in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    published, _, container_port = SERVICES["kafka"]["ports"][0].rpartition(":")
    assert advertised == {
        "INSIDE": COMPOSE["x-environment"]["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"],
        "OUTSIDE": published,
    }
    assert listeners["INSIDE"] == ":9092"
    assert listeners["OUTSIDE"] == f":{container_port}"
    assert (
        listeners.keys()
        == dict(item.split(":") for item in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")).keys()
    )


@pytest.mark.parametrize(
    "setting",
    [
        "DEFAULT_REPLICATION_FACTOR",
        "MIN_INSYNC_REPLICAS",
        "OFFSETS_TOPIC_REPLICATION_FACTOR",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
        "TRANSACTION_STATE_LOG_MIN_ISR",
        "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR",
        "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR",
    ],
)
def test_kafka_with_one_broker_asks_for_one_replica(setting: str) -> None:
    assert environment("kafka")[f"KAFKA_{setting}"] == "1"


def test_kafka_creates_no_topic_by_accident() -> None:
    assert environment("kafka")["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


# the image


def test_dockerfile_installs_the_lock_with_hashes_and_runs_without_root() -> None:
    instructions = DOCKERFILE.replace("\\\n", "")
    installs = re.findall(r"^RUN (pip install .*)$", instructions, re.MULTILINE)
    assert len(installs) == 3
    for install, lock in zip(installs, ("requirements.txt", "requirements-celery.txt"), strict=False):
        assert "--no-deps --require-hashes --only-binary :all:" in install and lock in install
    assert "--no-deps" in installs[2] and "--no-build-isolation" in installs[2]
    assert "--editable" in installs[2], "a copy in site-packages would have no SQL files and another ROOT"
    assert re.findall(r"^USER (\S+)$", instructions, re.MULTILINE)[-1:] == ["headrace"]
    base = re.findall(r"^ARG PYTHON_IMAGE=(\S+)\nFROM \$\{PYTHON_IMAGE}$", instructions, re.MULTILINE)
    assert len(base) == 1 and re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base[0])


def test_dockerignore_sends_what_the_dockerfile_copies_and_no_secret() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = {
        source
        for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert rules[0] == "*", "everything is left out that is not named"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
