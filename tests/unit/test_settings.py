"""Settings."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from headrace.exceptions import SettingError
from headrace.settings import Settings, read_services


def test_settings_of_an_empty_environment_are_the_defaults(tmp_path: Path) -> None:
    settings = Settings.from_environment({"HEADRACE_HOME": str(tmp_path), "PATH": "/bin", "HOME": "/"})
    assert settings == Settings(home=tmp_path)


def test_settings_given_values_have_their_types(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "HEADRACE_HOME": str(tmp_path),
            "HEADRACE_BATCH_ROWS": "12",
            "HEADRACE_POSTGRES_PORT": "5433",
            "HEADRACE_DATA_DIR": "~/data",
            "HEADRACE_POSTGRES_DSN": "postgresql:///x",
            "HEADRACE_DBT_HOST": "int-host",
        }
    )
    assert (settings.batch_rows, settings.postgres_port, settings.dbt_host) == (12, 5433, "int-host")
    assert settings.data_dir == Path("~/data").expanduser()
    assert settings.require_postgres_dsn() == "postgresql:///x"


def test_settings_given_an_empty_value_use_the_default(tmp_path: Path) -> None:
    settings = Settings.from_environment({"HEADRACE_HOME": str(tmp_path), "HEADRACE_BATCH_ROWS": ""})
    assert settings.batch_rows == Settings().batch_rows


@pytest.mark.parametrize("variable", ["HEADRACE_POSTGRES", "HEADRACE_batch_rows", "HEADRACE_SERVICES", "HEADRACE_"])
def test_settings_given_an_unknown_one_refuse_and_list_those_that_there_are(variable: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"^{variable}: not a setting; expected .*HEADRACE_[A-Z]"):
        Settings.from_environment({"HEADRACE_HOME": str(tmp_path), variable: "x"})


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5", "1e3", " "])
def test_settings_given_a_bad_number_refuse(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^HEADRACE_BATCH_ROWS: found .*, expected a whole number above 0$"):
        Settings.from_environment({"HEADRACE_HOME": str(tmp_path), "HEADRACE_BATCH_ROWS": text})


def test_settings_whose_home_cannot_be_read_refuse(tmp_path: Path) -> None:
    (tmp_path / "services.json").mkdir()  # root may read any file, and no directory as one
    with pytest.raises(SettingError, match=f"^HEADRACE_HOME: {tmp_path} cannot be read: Is a directory"):
        Settings.from_environment({"HEADRACE_HOME": str(tmp_path)})


def test_settings_whose_home_is_a_file_or_absent_know_no_services(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert read_services(tmp_path / "file") == {}
    assert read_services(tmp_path / "absent") == {}


@pytest.mark.parametrize("cut_off", [b"", b'{"postgres": {"addr', b"[1]", b"\xff\xfe", b'{"postgres": 1}', b"null"])
def test_settings_with_services_json_cut_off_know_no_services(cut_off: bytes, tmp_path: Path) -> None:
    (tmp_path / "services.json").write_bytes(cut_off)
    settings = Settings.from_environment({"HEADRACE_HOME": str(tmp_path)})
    assert settings.services == {}
    with pytest.raises(SettingError, match="run `headrace up` or set HEADRACE_POSTGRES_DSN"):
        settings.require_postgres_dsn()
    with pytest.raises(SettingError, match="run `headrace up` or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS"):
        settings.require_kafka_bootstrap_servers()


def test_settings_given_and_local_prefer_the_given(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text('{"kafka": {"address": "local:9092"}, "airflow": {"address": "http://l"}}')
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "given:9092"}
    settings = Settings.from_environment(environ)
    assert settings.require_kafka_bootstrap_servers() == "given:9092"
    assert settings.require_airflow_url() == "http://l"


@pytest.mark.parametrize("text", ["hot", "nan", "Infinity", "1,5"])
def test_threshold_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=f"HEADRACE_THRESHOLD_HUMIDITY: found '{text}', expected a number"):
        Settings.from_environment({"HEADRACE_THRESHOLD_HUMIDITY": text})


def test_zones_and_kpis_of_telemetry_are_lists_and_added_kpis_may_have_thresholds(tmp_path: Path) -> None:
    environ = {
        "HEADRACE_HOME": str(tmp_path),
        "HEADRACE_TELEMETRY_ZONES": " zone-e, Halle 7 ,",
        "HEADRACE_TELEMETRY_KPIS": "co2-level,noise,humidity",
        "HEADRACE_THRESHOLD_CO2_LEVEL": "900.5",
        "HEADRACE_THRESHOLD_NOISE": "",
    }
    settings = Settings.from_environment(environ)
    assert settings.telemetry_zones == ("zone-e", "Halle 7")
    assert settings.telemetry_kpis == ("co2-level", "noise", "humidity")
    assert settings.added_thresholds == {"HEADRACE_THRESHOLD_CO2_LEVEL": Decimal("900.5")}
    assert settings.thresholds == Settings().thresholds | {
        "HEADRACE_TELEMETRY_KPIS": "co2-level,noise,humidity",
        "HEADRACE_THRESHOLD_CO2_LEVEL": "900.5",
    }
    with pytest.raises(SettingError, match=r"^HEADRACE_THRESHOLD_CO2_LEVEL: found 'much', expected a number$"):
        Settings.from_environment(environ | {"HEADRACE_THRESHOLD_CO2_LEVEL": "much"})
    with pytest.raises(SettingError, match=r"^HEADRACE_THRESHOLD_RADIATION: not a setting; expected .*THRESHOLD"):
        Settings.from_environment(environ | {"HEADRACE_THRESHOLD_RADIATION": "1"})


@pytest.mark.parametrize("kpis", ["Temperature", "a b,a-b"])
def test_kpis_that_share_the_variable_of_a_threshold_are_refused(kpis: str) -> None:
    with pytest.raises(SettingError, match=r"^HEADRACE_TELEMETRY_KPIS: found .* and .*HEADRACE_THRESHOLD_"):
        Settings.from_environment({"HEADRACE_TELEMETRY_KPIS": kpis})


def test_thresholds_default_to_what_the_dbt_project_defaults_to() -> None:
    macro = (Settings().dbt_dir / "macros" / "telemetry.sql").read_text()
    assert dict(re.findall(r"env_var\('(\w+)', '(\w+)'\)", macro)) == Settings().thresholds


@pytest.mark.parametrize(("text", "retries"), [("0", 0), ("7", 7)])
def test_settings_given_a_number_of_retries_take_0_too(text: str, retries: int, tmp_path: Path) -> None:
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_MAX_RETRIES": text}
    assert Settings.from_environment(environ).max_retries == retries


@pytest.mark.parametrize("text", ["-1", "many", "1.5"])
def test_settings_given_a_bad_number_of_retries_refuse(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^HEADRACE_MAX_RETRIES: found .*, expected 0 or a whole number above it$"):
        Settings.from_environment({"HEADRACE_HOME": str(tmp_path), "HEADRACE_MAX_RETRIES": text})


def test_settings_given_a_kafka_client_know_both(tmp_path: Path) -> None:
    assert Settings.from_environment({"HEADRACE_HOME": str(tmp_path)}).kafka_client == "kafka-python"
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_KAFKA_CLIENT": "confluent"}
    assert Settings.from_environment(environ).kafka_client == "confluent"
    with pytest.raises(SettingError, match=r"^HEADRACE_KAFKA_CLIENT: found 'x', expected kafka-python or confluent$"):
        Settings.from_environment(environ | {"HEADRACE_KAFKA_CLIENT": "x"})


def test_settings_given_a_log_format_know_text_and_json(tmp_path: Path) -> None:
    for text in ("text", "json"):
        environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_LOG_FORMAT": text}
        assert Settings.from_environment(environ).log_format == text
    with pytest.raises(SettingError, match=r"^HEADRACE_LOG_FORMAT: found 'JSON', expected text or json$"):
        Settings.from_environment({"HEADRACE_HOME": str(tmp_path), "HEADRACE_LOG_FORMAT": "JSON"})


def test_secrets_are_read_from_the_files_that_their_variables_name(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://etl:in-a-file@db/sales\n")
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_POSTGRES_DSN_FILE": str(tmp_path / "dsn")}
    assert Settings.from_environment(environ).postgres_dsn == "postgresql://etl:in-a-file@db/sales"
    assert Settings.from_environment(environ | {"HEADRACE_POSTGRES_DSN_FILE": ""}).postgres_dsn is None


def test_secrets_in_files_keep_their_blanks_and_lose_what_an_editor_adds(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes("\ufeff pass wörd \r\n".encode())
    (tmp_path / "url").write_bytes(b" redis://cache:6379/0 \n\n")
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}
    settings = Settings.from_environment(environ | {"HEADRACE_REDIS_URL_FILE": str(tmp_path / "url")})
    assert settings.kafka_sasl_password == " pass wörd "
    assert settings.redis_url == "redis://cache:6379/0"


@pytest.mark.parametrize(
    ("name", "address", "beside", "is_taken"),
    [
        ("REDIS_URL", "redis://etl:s3cret@cache/1", "redis://etl@cache/1", True),
        ("REDIS_URL", "redis://etl:s3cret@cache/1", "redis://etl:s3cret@cache/1", True),
        ("REDIS_URL", "redis://etl:s3cret@cache/1", "redis://etl@other/1", False),
        ("REDIS_URL", "redis://etl:s3cret@cache/1", "redis://etl:another@cache/1", False),
        ("POSTGRES_DSN", "postgresql://etl:s3cret@db/x", "host=db user=etl dbname=x", True),
        ("POSTGRES_DSN", "postgresql://etl:s3cret@db/x", "host=db user=etl dbname=y", False),
        ("KAFKA_SASL_PASSWORD", "s3cret", "another", False),
    ],
)
def test_address_beside_the_one_in_a_file_is_taken_where_only_its_secret_is_missing(
    name: str, address: str, beside: str, is_taken: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(address)
    environ = {f"HEADRACE_{name}": beside, f"HEADRACE_{name}_FILE": str(tmp_path / "file")}
    if is_taken:
        assert getattr(Settings.from_environment(environ), name.lower()) == address
        return
    with pytest.raises(SettingError, match=f"HEADRACE_{name}_FILE: found HEADRACE_{name} too") as caught:
        Settings.from_environment(environ)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HEADRACE_REDIS_URL_FILE": "{}/absent"}, "HEADRACE_REDIS_URL_FILE: .*/absent cannot be read: No such file"),
        ({"HEADRACE_REDIS_URL_FILE": "{}"}, "HEADRACE_REDIS_URL_FILE: .* cannot be read: Is a directory"),
        ({"HEADRACE_REDIS_URL_FILE": "{}/empty"}, "HEADRACE_REDIS_URL_FILE: .*/empty is empty, expected the secret"),
        ({"HEADRACE_REDIS_URL_FILE": "{}/url", "HEADRACE_REDIS_URL": "redis://a"}, "found HEADRACE_REDIS_URL too"),
        ({"HEADRACE_BATCH_ROWS_FILE": "{}/url"}, "HEADRACE_BATCH_ROWS_FILE: not a setting"),
    ],
)
def test_secrets_whose_file_cannot_be_used_are_refused(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://b")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingError, match=message):
        Settings.from_environment({name: text.format(tmp_path) for name, text in variables.items()})


def test_settings_given_a_word_that_is_none_of_theirs_refuse() -> None:
    with pytest.raises(SettingError, match=r"^HEADRACE_KAFKA_SASL_MECHANISM: found 'GSSAPI', expected PLAIN or SCRAM-"):
        Settings.from_environment({"HEADRACE_KAFKA_SASL_MECHANISM": "GSSAPI"})
