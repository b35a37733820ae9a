"""A dbt project of a test's own, whose models the package headrace_dbt maintains in the schema `trial`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from headrace.marts.dbt import profile_environment
from tests.support.interrupts import apart
from tests.support.warehouse import Warehouse

PROJECT = """
name: trial
profile: headrace
packages-install-path: {packages}
flags: {{send_anonymous_usage_stats: false}}
models: {{+materialized: maintained}}
"""
SOURCES = """
sources:
  - name: raw
    schema: raw
    tables: [{name: visits}, {name: people}]
"""
# what the models read: each of these is a table of a schema that others may change, so a content
RAW = """
drop schema if exists raw, trial, trial_log, trial_dev, trial_dev_log cascade;
delete from headrace.model_states where schema like 'trial%';
delete from headrace.claims where schema like 'trial%';
create schema raw;
create table raw.visits (id int, person int, place text, minutes numeric);
create table raw.people (id int, home text);
insert into raw.people select n, 'P' || n % 5 from generate_series(1, 20) as n;
insert into raw.visits select n, 1 + n % 20, 'P' || n % 7, n from generate_series(1, 200) as n;
"""
VISITS = "{{ config(unique_key='id') }}\nselect id, person, place, minutes from {{ source('raw', 'visits') }}"
PEOPLE = "{{ config(unique_key='id') }}\nselect id, home from {{ source('raw', 'people') }}"


@dataclass
class Trial:
    """The project's folder and the database in which it builds."""

    warehouse: Warehouse
    folder: Path

    @classmethod
    def begin(cls, warehouse: Warehouse, folder: Path, **models: str) -> "Trial":
        """A project of visits, people and these models; nothing is built yet."""
        warehouse.execute(RAW)
        trial = cls(warehouse, folder)
        dbt = warehouse.settings.dbt_dir
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "dbt_project.yml").write_text(PROJECT.format(packages=dbt / "packages"))
        profile = (dbt / "profiles.yml").read_text()
        profile = profile.replace("schema: marts\n", "schema: trial\n").replace("marts_dev", "trial_dev")
        (folder / "profiles.yml").write_text(profile)
        (folder / "models" / "sources.yml").write_text(SOURCES)
        trial.write(visits=VISITS, people=PEOPLE, **models)
        return trial

    def write(self, **models: str) -> None:
        """Write models, each as its SQL."""
        for name, sql in models.items():
            (self.folder / "models" / f"{name}.sql").write_text(sql + "\n")

    def dbt(self, command: str, *arguments: str) -> dict[str, tuple[str, str, int | None]]:
        """Run dbt in this process: of each model its status, message and rows; of dbt itself its exception."""
        from tests.support.warm_dbt import spared_runner  # dbt takes 2.5 s to import

        saved = dict(os.environ)
        os.environ.update(self._environment())
        try:
            outcome = spared_runner().invoke([command, *self._options(), *arguments])
        finally:
            os.environ.clear()
            os.environ.update(saved)
        if outcome.exception:
            return {"dbt": ("error", str(outcome.exception), None)}
        return {
            result.node.name: (
                str(result.status),
                str(result.message),
                (result.adapter_response or {}).get("rows_affected"),
            )
            for result in getattr(outcome.result, "results", [])
        }

    def build(self, *arguments: str) -> dict[str, int | None]:
        """`dbt run`, in which nothing may fail; the rows that each model changed."""
        results = self.dbt("run", *arguments)
        failed = {name: message for name, (status, message, _) in results.items() if status != "success"}
        assert not failed, failed
        return {name: rows for name, (_, _, rows) in results.items()}

    def assert_equal(self, *names: str) -> None:
        """Each table has exactly the rows of its compiled SELECT, duplicates too."""
        for name in names:
            sql = (self.folder / "target" / "compiled" / "trial" / "models" / f"{name}.sql").read_text()
            found = f"select _row::text from trial.{name} as _row"
            expected = f"select _row::text from ({sql}) as _row"
            for one, other in ((found, expected), (expected, found)):
                assert self.query(f"({one}) except all ({other})") == [], name

    def error(self, name: str, *arguments: str) -> str:
        """The message of a model that must fail."""
        status, message, _ = self.dbt("run", *arguments).get(name, ("missing", "", None))
        assert status == "error", message
        return message

    @contextmanager
    def process(self, *arguments: str, variables: Mapping[str, str] | None = None) -> Iterator[BaseProcess]:
        """`dbt run` in a process of its own."""
        from tests.support.warm_dbt import run_dbt

        command = ["run", *self._options(), *arguments]
        with apart(run_dbt, command, self._environment() | dict(variables or {})) as process:
            yield process

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self.warehouse.query(statement)

    def execute(self, statement: str) -> None:
        """Run statements and commit."""
        self.warehouse.execute(statement)

    def _environment(self) -> dict[str, str]:
        with psycopg.connect(self.warehouse.dsn, autocommit=True) as connection:
            return profile_environment(self.warehouse.settings, connection)

    def _options(self) -> list[str]:
        logs = self.folder / f"target-{uuid4().hex[:6]}"
        parsed = self.folder / "target" / "partial_parse.msgpack"
        return [
            *("--project-dir", str(self.folder), "--profiles-dir", str(self.folder), "--log-level", "none"),
            *("--target-path", str(self.folder / "target"), "--log-path", str(logs)),
            *(["--partial-parse-file-path", str(parsed)] if parsed.exists() else []),
        ]
