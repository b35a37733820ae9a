"""What `headrace env` prints and Airflow is given: addresses in every form, and no secret in any."""

import dataclasses
import json
import os
import stat
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import make_conninfo

from headrace.exceptions import LocalServiceError, SettingError
from headrace.local import services
from headrace.local.addresses import dsn_parameters, given
from headrace.local.airflow_options import database_url, options, write_passwords
from headrace.settings import Settings, read_services

PASSWORD = "s3cret:with\\odd'characters"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "a home"
    (home / "airflow").mkdir(parents=True)
    dsn = f"postgresql://headrace@127.0.0.1:5444/headrace?passfile={str(home).replace(' ', '%20')}/postgres/pgpass"
    remembered = {
        "postgres": {"address": dsn, "port": 5444},
        "kafka": {"address": "127.0.0.1:9444", "port": 9444, "controller_port": 9445},
        "airflow": {"address": "http://127.0.0.1:8444", "port": 8444},
    }
    (home / "services.json").write_text(json.dumps(remembered))
    return home


def test_environment_of_local_services_names_all_of_them(home: Path) -> None:
    assert services.environment(Settings(home=home)) == {
        "HEADRACE_HOME": str(home),
        "HEADRACE_POSTGRES_DSN": read_services(home)["postgres"]["address"],
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9444",
        "HEADRACE_AIRFLOW_URL": "http://127.0.0.1:8444",
        "HEADRACE_AIRFLOW_USER": "admin",
        "HEADRACE_AIRFLOW_PASSWORD_FILE": str(home / "airflow" / "password"),
        "HEADRACE_DBT_HOST": "127.0.0.1",
        "HEADRACE_DBT_PORT": "5444",
        "HEADRACE_DBT_USER": "headrace",
        "HEADRACE_DBT_DBNAME": "headrace",
        "HEADRACE_DBT_THREADS": "2",
        "HEADRACE_THRESHOLD_TEMPERATURE": "80",
        "HEADRACE_THRESHOLD_HUMIDITY": "70",
        "HEADRACE_THRESHOLD_PRESSURE": "1050",
        "HEADRACE_THRESHOLD_VIBRATION": "5",
        "PGCLIENTENCODING": "UTF8",
        "PGPASSFILE": str(home / "postgres" / "pgpass"),
    }


def test_environment_is_read_back_as_the_same_settings(home: Path) -> None:
    printed = services.environment(Settings(home=home))

    again = Settings.from_environment(printed)

    assert services.environment(again) == printed
    assert [given(again, service) for service in ("postgres", "kafka", "airflow")] == [None, None, None]


def test_environment_before_the_first_up_names_only_the_home(tmp_path: Path) -> None:
    assert services.environment(Settings(home=tmp_path / "none")) == {"HEADRACE_HOME": str(tmp_path / "none")}


@pytest.mark.parametrize("text", ["", '{"postgres": {"addr', "[]", '{"postgres": 7}'])
def test_environment_with_broken_services_json_is_as_before_the_first_up(home: Path, text: str) -> None:
    (home / "services.json").write_text(text)

    assert services.environment(Settings(home=home)) == {"HEADRACE_HOME": str(home)}


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://etl:s3cret%3Awith%5Codd%27characters@db.example:6000/sales?sslmode=require",
        r"host=db.example port=6000 user=etl dbname=sales sslmode=require password='s3cret:with\\odd\'characters'",
        "postgresql://etl@db.example:6000/sales?sslmode=require&password=s3cret%3Awith%5Codd%27characters",
    ],
)
def test_environment_of_given_dsn_hands_its_password_over_in_a_file(home: Path, dsn: str) -> None:
    printed = services.environment(Settings(home=home, postgres_dsn=dsn))

    assert "s3cret" not in json.dumps(printed)
    assert printed["PGPASSFILE"] == str(home / "pgpass")
    assert stat.S_IMODE((home / "pgpass").stat().st_mode) == 0o600
    assert (home / "pgpass").read_text() == r"db.example:*:*:etl:s3cret\:with\\odd'characters" + "\n"
    assert dsn_parameters(printed["HEADRACE_POSTGRES_DSN"]) == {
        "host": "db.example",
        "port": "6000",
        "user": "etl",
        "dbname": "sales",
        "sslmode": "require",
        "passfile": str(home / "pgpass"),
    }
    assert printed["HEADRACE_DBT_HOST"] == "db.example"
    assert "s3cret" not in " ".join(services.psql_command(Settings(home=home, postgres_dsn=dsn)))


def test_given_dsn_that_cannot_be_read_is_refused_without_quoting_it() -> None:
    with pytest.raises(SettingError, match=r"postgres: the DSN cannot be read; .* HEADRACE_POSTGRES_DSN$") as caught:
        dsn_parameters("postgresql://etl:s3cret@[db/sales")

    assert "s3cret" not in str(caught.value)


def test_given_address_of_yesterdays_local_server_means_the_local_one(home: Path) -> None:
    stale = read_services(home)["postgres"]["address"].replace("5444", "5432")

    assert given(Settings(home=home, postgres_dsn=stale), "postgres") is None
    assert given(Settings(home=home, kafka_bootstrap_servers="broker:9092"), "kafka") == "broker:9092"


def test_psql_and_env_and_drains_use_the_same_database(home: Path) -> None:
    local = read_services(home)["postgres"]["address"]
    stale = local.replace("5444", "5432").replace("/headrace?", "/another?")

    settings = Settings.from_environment({"HEADRACE_HOME": str(home), "HEADRACE_POSTGRES_DSN": stale})

    assert settings.require_postgres_dsn() == local.replace("/headrace?", "/another?")
    assert services.psql_command(settings)[1] == settings.require_postgres_dsn()
    printed = services.environment(settings)
    assert printed["HEADRACE_POSTGRES_DSN"] == settings.require_postgres_dsn()
    assert (printed["HEADRACE_DBT_PORT"], printed["HEADRACE_DBT_DBNAME"]) == ("5444", "another")


def test_local_servers_login_that_builds_is_dbts_user_and_airflows_connection(home: Path) -> None:
    remembered = read_services(home)
    remembered["postgres"]["builder"] = "headrace_builder"
    (home / "services.json").write_text(json.dumps(remembered))
    local = remembered["postgres"]["address"].replace("/headrace?", "/another?")
    stale = local.replace("5444", "5432")
    settings = Settings.from_environment({"HEADRACE_HOME": str(home), "HEADRACE_POSTGRES_DSN": stale})

    assert settings.require_dbt_dsn() == local.replace("headrace@", "headrace_builder@")
    assert services.environment(settings)["HEADRACE_DBT_USER"] == "headrace_builder"
    connections = [json.loads(options(settings)[f"AIRFLOW_CONN_HEADRACE_{name}"]) for name in ("POSTGRES", "DBT")]
    assert [(each["login"], each["schema"]) for each in connections] == [
        ("headrace", "another"),
        ("headrace_builder", "another"),
    ]
    for given_dsn in ("postgresql://etl@db/sales", local.replace("pgpass", "other")):
        assert replace(settings, postgres_dsn=given_dsn).require_dbt_dsn() == given_dsn
    assert (
        replace(settings, dbt_dsn="postgresql://builder@db/sales").require_dbt_dsn() == "postgresql://builder@db/sales"
    )


def test_airflow_options_hold_connections_and_settings_but_no_database_password(home: Path) -> None:
    settings = Settings(home=home, batch_rows=77, postgres_port=5444)

    values = options(settings)

    connection = json.loads(values["AIRFLOW_CONN_HEADRACE_POSTGRES"])
    assert connection["port"] == 5444
    assert connection["extra"] == {"passfile": str(home / "postgres" / "pgpass")}
    assert json.loads(values["AIRFLOW_CONN_HEADRACE_KAFKA"])["extra"] == {"bootstrap.servers": "127.0.0.1:9444"}
    assert values["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert values["AIRFLOW__API__PORT"] == "8444"
    assert values["HEADRACE_BATCH_ROWS"] == "77"
    assert "HEADRACE_POSTGRES_PORT" not in values
    Settings.from_environment(values)  # every HEADRACE_ variable is a known one
    assert options(settings) == values  # keys are made once


def test_airflow_tasks_know_the_zones_and_kpis_that_were_added(home: Path) -> None:
    thresholds = {"HEADRACE_THRESHOLD_NOISE": Decimal("70.5")}
    settings = Settings(
        home=home, telemetry_zones=("zone-e", "hall 7"), telemetry_kpis=("noise", "co2"), added_thresholds=thresholds
    )
    read = Settings.from_environment({k: v for k, v in options(settings).items() if k.startswith("HEADRACE_")})
    assert (read.telemetry_zones, read.telemetry_kpis) == (("zone-e", "hall 7"), ("noise", "co2"))
    assert read.added_thresholds == thresholds


def test_airflow_password_is_kept_in_both_files_for_the_user_alone(home: Path) -> None:
    settings = Settings(home=home, airflow_user="ops")

    write_passwords(settings)
    write_passwords(dataclasses.replace(settings))

    password = (home / "airflow" / "password").read_text().strip()
    assert len(password) > 30
    assert json.loads((home / "airflow" / "passwords.json").read_text()) == {"ops": password}
    for name in ("password", "passwords.json"):
        assert stat.S_IMODE((home / "airflow" / name).stat().st_mode) == 0o600


def test_airflow_database_url_keeps_libpq_parameters_and_drops_the_password() -> None:
    parameters = {"host": "db", "user": "a b", "password": "s3cret", "sslmode": "require", "dbname": "sales"}

    assert (
        database_url(parameters, "postgresql+psycopg2") == "postgresql+psycopg2://a%20b@db:5432/airflow?sslmode=require"
    )


def test_airflow_environment_puts_this_interpreters_programs_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MISSPELT", "1")

    values = services.airflow_environment(Settings(home=home))

    assert (Path(values["PATH"].split(os.pathsep)[0]) / "python").exists()
    assert "HEADRACE_MISSPELT" not in values


def test_environment_of_given_services_hands_every_secret_over_in_a_file(home: Path) -> None:
    ca = home / "ca.pem"
    settings = Settings(
        home=home,
        postgres_dsn="postgresql://etl:s3cret-1@db/sales?sslmode=verify-full&sslrootcert=/ca.pem",
        dbt_dsn="postgresql://builder:s3cret-2@db/sales?sslmode=verify-full&sslrootcert=/ca.pem",
        redis_url="redis://etl:s3cret-3@cache:6379/0",
        kafka_bootstrap_servers="broker:9092",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="etl",
        kafka_sasl_password="s3cret-4",
        kafka_ssl_cafile=ca,
        kafka_ssl_password="s3cret-5",
        masking_key="s3cret-6-of-16-characters",
    )

    printed = services.environment(settings)

    assert "s3cret" not in json.dumps(printed)
    assert printed["HEADRACE_DBT_USER"] == "builder"
    assert printed["PGPASSFILE"] == str(home / "pgpass-dbt")
    assert (printed["PGSSLMODE"], printed["PGSSLROOTCERT"]) == ("verify-full", "/ca.pem")
    files = {name: Path(value) for name, value in printed.items() if name.endswith("_FILE") and "AIRFLOW" not in name}
    assert {name: path.read_text() for name, path in files.items()} == {
        "HEADRACE_REDIS_URL_FILE": "redis://etl:s3cret-3@cache:6379/0",
        "HEADRACE_KAFKA_SASL_PASSWORD_FILE": "s3cret-4",
        "HEADRACE_KAFKA_SSL_PASSWORD_FILE": "s3cret-5",
        "HEADRACE_MASKING_KEY_FILE": "s3cret-6-of-16-characters",
    }
    for path in (*files.values(), home / "pgpass", home / "pgpass-dbt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Settings.from_environment(printed)
    assert services.environment(again) == printed
    assert (again.redis_url, again.kafka_sasl_password) == (settings.redis_url, settings.kafka_sasl_password)
    assert dsn_parameters(str(again.dbt_dsn))["user"] == "builder"


def test_airflow_is_given_connections_that_say_how_brokers_and_dbt_are_reached(home: Path) -> None:
    settings = Settings(
        home=home,
        dbt_dsn="postgresql://builder@db/sales",
        redis_url="redis://etl:s3cret-3@cache:6379/0",
        kafka_bootstrap_servers="broker:9092",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="etl",
        kafka_sasl_password="s3cret-4",
    )

    values = options(settings)

    assert json.loads(values["AIRFLOW_CONN_HEADRACE_DBT"])["login"] == "builder"
    assert json.loads(values["AIRFLOW_CONN_HEADRACE_REDIS"])["password"] == "s3cret-3"
    assert json.loads(values["AIRFLOW_CONN_HEADRACE_KAFKA"])["extra"] == {
        "bootstrap.servers": "broker:9092",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "etl",
        "sasl.password": "s3cret-4",
    }
    assert [name for name, value in values.items() if "s3cret" in value and not name.startswith("AIRFLOW_CONN_")] == []
    again = Settings.from_environment({name: text for name, text in values.items() if name.startswith("HEADRACE_")})
    assert again.kafka_sasl_password == "s3cret-4"


@pytest.mark.security("M3")
@pytest.mark.parametrize(
    "password", ["s3cret#one", "s3cret  two ", "s3cret@:/?%&=+", "s3cr'et\"\\", "s3cret-é日", "s3cret*'()!~$(x)`y`"]
)
def test_environment_holds_no_secret_of_an_address_and_is_read_back_as_the_same(home: Path, password: str) -> None:
    escaped = quote(password, safe="")
    for dsn, redis_url in (
        (f"postgresql://etl:{escaped}@db/sales", f"redis://:{escaped}@cache:6379/0"),
        (f"postgresql://etl@h1:1,h2:2/sales?password={escaped}", f"redis://cache/0?password={escaped}&db=1"),
        (f"postgresql://etl@db/sales?sslkey=/k&sslpassword={escaped}", f"rediss://cache?ssl_password={escaped}"),
        (make_conninfo(host="/run/pg", user="etl", password=password), f"unix://u:{escaped}@/run/v.sock?db=1"),
        (make_conninfo(hostaddr="10.0.0.1", password=password, sslpassword=password), "redis://cache"),
    ):
        settings = Settings(home=home, postgres_dsn=dsn, dbt_dsn=dsn, redis_url=redis_url)
        printed = services.environment(settings)
        assert "s3cr" not in json.dumps(printed)
        again = Settings.from_environment(printed)
        assert services.environment(again) == printed
        assert again.redis_url == redis_url
        for name in ("postgres_dsn", "dbt_dsn"):
            read, given = dsn_parameters(getattr(again, name)), dsn_parameters(dsn)
            passfile = read.pop("passfile", None)
            assert read.get("password", given.get("password")) == given.pop("password", None)
            assert read == given
            if passfile is not None:
                kept = Path(passfile).read_text().splitlines()
                escaped_line = password.replace("\\", "\\\\").replace(":", "\\:")
                assert all(line.endswith(f":{escaped_line}") for line in kept)
                assert stat.S_IMODE(Path(passfile).stat().st_mode) == 0o600
        for path in (path for name, path in printed.items() if name.endswith("_FILE") and "AIRFLOW" not in name):
            assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        connections = options(dataclasses.replace(settings, redis_url="redis://cache"))
        assert [n for n, value in connections.items() if "s3cr" in value and not n.startswith("AIRFLOW_")] == []


def test_password_file_names_the_hosts_as_libpq_looks_for_them(home: Path) -> None:
    for dsn, hosts in (
        ("host=a,,b password=s3cret", ["a", "localhost", "b"]),
        ("host=/run/pg password=s3cret", ["/run/pg", "localhost"]),
        ("hostaddr=10.0.0.1 password=s3cret", ["localhost", "10.0.0.1"]),
        ("password=s3cret", ["localhost"]),
    ):
        services.environment(Settings(home=home, postgres_dsn=dsn))
        assert (home / "pgpass").read_text() == "".join(f"{host}:*:*:*:s3cret\n" for host in hosts)


def test_password_that_no_password_file_can_hold_is_refused(home: Path) -> None:
    settings = Settings(home=home, postgres_dsn=make_conninfo(host="db", password="s3cret\nline"))
    with pytest.raises(SettingError, match="found a line break in the password") as caught:
        services.environment(settings)
    assert "s3cret" not in str(caught.value)


def test_psql_is_not_started_with_a_secret_among_its_arguments(home: Path) -> None:
    settings = Settings(home=home, postgres_dsn="postgresql://etl@db/sales?sslkey=/k&sslpassword=s3cret")
    with pytest.raises(LocalServiceError, match="psql: found a secret beside the password in the DSN"):
        services.psql_command(settings)


def test_airflow_is_given_the_redis_connection_as_redis_reads_it(home: Path) -> None:
    for url, expected in (
        ("redis://cache/3?password=s3%23cret", {"host": "cache", "login": "", "password": "s3#cret", "db": 3}),
        ("rediss://etl:s3%40cret@[::1]:1", {"host": "::1", "login": "etl", "password": "s3@cret", "db": 0}),
    ):
        connection = json.loads(options(Settings(home=home, redis_url=url))["AIRFLOW_CONN_HEADRACE_REDIS"])
        assert connection | {"db": connection["extra"]["db"]} == connection | expected
    with pytest.raises(SettingError, match="HEADRACE_REDIS_URL: found a socket"):
        options(Settings(home=home, redis_url="unix:///run/valkey.sock"))
