"""docker-compose.yml and .env.example, as far as they can be judged without running them."""

import importlib.util
import os
import re
import runpy
from pathlib import Path

import pytest
import yaml

from headrace import __version__
from headrace.settings import Settings
from tests.support.compose_file import (
    AIRFLOW,
    COMPOSE,
    DOCKERFILE,
    ENV_EXAMPLE,
    LONG_RUNNING,
    ONE_SHOT,
    REQUIRED,
    ROOT,
    SERVICES,
    TEXT,
    VARIABLE,
    environment,
)


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
