"""The `headrace` command, as far as it goes without services."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from headrace import __version__
from headrace.cli import main

HEAVY = ("kafka", "pandas", "psycopg", "pydantic", "airflow", "dbt", "rich", "orjson", "fastapi", "sqlalchemy")
PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


def run(*arguments: str, home: Path | None = None, **settings: str) -> Result:
    environ = {"HEADRACE_HOME": str(home or "/nonexistent")} | settings
    return CliRunner().invoke(main, arguments, env=environ)


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("headrace: ")
    assert all(part in result.stderr for part in parts), result.stderr


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_command_help_explains_it_and_succeeds(command: tuple[str, ...]) -> None:
    for option in ("--help", "-h"):
        result = run(*command, option)
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"Usage: main {' '.join(command)}")
        assert len(result.output.splitlines()) >= 5


def test_command_help_lists_every_command_with_a_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in main.commands.values():
        assert command.get_short_help_str(limit=30), command.name
        assert f"\n  {command.name} " in result.output


def test_command_version_succeeds() -> None:
    assert run("--version").output == f"headrace, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("dance",),
        ("drain",),
        ("drain", "jobs", "--parallel", "0"),
        ("drain", "jobs", "--max-records", "none"),
        ("drain", "jobs", "--what"),
        ("generate", "jobs", "--records", "1"),
        ("generate", "jobs", "--records", "-1", "--out", "x"),
        ("generate", "jobs", "--records", "1", "--bad-percent", "101", "--out", "x"),
        ("accept-loss", "jobs", "--partition", "0"),
        ("accept-loss", "jobs", "--partition", "-1", "--to", "5"),
        ("produce", "jobs"),
        ("reset",),
        ("load", "users", "--max-removed", "many"),
        ("load", "users", "--max-removed", "101%"),
        ("status", "--json", "--watch"),
    ],
    ids=" ".join,
)
def test_command_used_wrongly_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr


@pytest.mark.parametrize("command", [("drain", "jobs"), ("load", "users"), ("init",), ("adopt", "jobs"), ("status",)])
def test_command_without_any_service_is_refused_in_one_line(command: tuple[str, ...]) -> None:
    assert_refused(run(*command), "no address", "run `headrace up` or set HEADRACE_")


@pytest.mark.parametrize(
    "command", [("drain", "dance"), ("load", "dance"), ("produce", "dance", "x"), ("adopt", "dance")]
)
def test_command_for_an_unknown_dataset_is_refused_in_one_line(command: tuple[str, ...]) -> None:
    assert_refused(run(*command), "dataset 'dance': not declared", "expected one of", "jobs")


def test_command_with_an_unknown_setting_is_refused_in_one_line() -> None:
    assert_refused(run("status", HEADRACE_POSTGRE_DSN="x"), "HEADRACE_POSTGRE_DSN: not a setting")


def test_command_with_a_bad_number_is_refused_in_one_line() -> None:
    assert_refused(run("status", HEADRACE_BATCH_ROWS="many"), "HEADRACE_BATCH_ROWS: found 'many'")


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        (("drain", "users"), "headrace load users"),
        (("load", "jobs"), "headrace drain jobs"),
        (("produce", "users", "x"), "load"),
    ],
)
def test_command_for_the_other_kind_of_source_names_the_right_one(command: tuple[str, ...], instead: str) -> None:
    assert_refused(
        run(*command, HEADRACE_POSTGRES_DSN="postgresql:///x", HEADRACE_KAFKA_BOOTSTRAP_SERVERS="x:1"), instead
    )


def test_command_generate_writes_what_it_says(tmp_path: Path) -> None:
    out = tmp_path / "jobs.kafka"
    result = run("generate", "jobs", "--records", "12", "--seed", "4", "--bad-percent", "50", "--out", str(out))
    assert (result.exit_code, result.output) == (0, f"12 lines in {out}\n")
    assert out.read_bytes().count(b"\n") == 12
    assert list(tmp_path.iterdir()) == [out]


def test_command_generate_into_no_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "absent" / "jobs.kafka"
    assert_refused(run("generate", "jobs", "--records", "1", "--out", str(out)), f"{out}: cannot be written")


def test_command_generate_that_fails_half_way_leaves_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_text("not JSON\n")
    out = tmp_path / "jobs.kafka"
    out.write_text("earlier")
    assert_refused(run("generate", "jobs", "--records", "1", "--out", str(out), HEADRACE_DATA_DIR=str(tmp_path)))
    assert out.read_text() == "earlier"
    assert not list(tmp_path.glob("*.partial"))


def test_command_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom headrace.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "HEAVY []"


def test_plugins_folder_on_the_path_shadows_no_client() -> None:
    """Airflow puts plugins/ on sys.path and imports what lies there by bare name."""
    script = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from importlib.util import find_spec\n"
        "specs = map(find_spec, ('kafka', 'dbt.version', 'redis', 'airflow'))\n"
        "print(*(spec.origin for spec in specs if spec), sep='\\n')"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    output = subprocess.run(
        [sys.executable, "-c", script, str(PLUGINS)], capture_output=True, text=True, check=True, env=environ
    ).stdout
    origins = output.split()
    assert any(origin.endswith("/kafka/__init__.py") for origin in origins)
    assert all("site-packages" in origin and str(PLUGINS) not in origin for origin in origins)


def test_plugins_folder_keeps_airflow_out_of_our_packages() -> None:
    ignored = (PLUGINS / ".airflowignore").read_text().split()
    for package in ("headrace", "datasets"):
        assert any(package in line for line in ignored)
