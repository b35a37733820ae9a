"""A dbt project of random models that uses the package headrace_dbt, in a database of its own."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg

from headrace.settings import ROOT
from tests.support.interrupts import apart
from tests.support.marts_oracle import current
from tests.support.random_models import Model
from tests.support.random_truth import difference, recompute
from tests.support.warehouse import Warehouse

SCHEMA = "random"
PACKAGE = ROOT / "dbt" / "packages" / "headrace_dbt"
KEYS = {"jobs": "jobidentifier", "users": "userid", "events": "event_id", "rides": ""}
WINS = {"events": "first"}

PROJECT = """\
name: random
version: 1.0.0
config-version: 2
profile: headrace
packages-install-path: packages
flags:
  send_anonymous_usage_stats: false
models:
  random:
    +materialized: maintained
"""
MACROS = "{% macro current(dataset) -%} {{ headrace_dbt.current(dataset) }} {%- endmacro %}\n"
SOURCES = """\
sources:
  - name: staging
    tables:
      - name: jobs
        config: {meta: {key: jobidentifier}}
      - name: users
        config: {meta: {key: userid}}
      - name: events
        config: {meta: {key: event_id, wins: first}}
      - name: rides
"""


@dataclass
class RandomProject:
    """The project's folder, its database and its models, each after what it reads.

    package: the folder of headrace_dbt, or of a changed copy of it. sources: YAML of more sources.
    """

    folder: Path
    warehouse: Warehouse
    models: tuple[Model, ...]
    package: Path = PACKAGE
    sources: str = ""
    manifest: Any = None
    written: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write what has changed of the project; the next invocation parses it."""
        files = {
            "dbt_project.yml": PROJECT,
            "packages.yml": "packages:\n  - local: packages/headrace_dbt\n",
            "profiles.yml": (ROOT / "dbt" / "profiles.yml")
            .read_text()
            .replace("schema: marts\n", f"schema: {SCHEMA}\n"),
            "macros/current.sql": MACROS,
            "models/sources.yml": SOURCES + self.sources,
            **{f"models/{model.name}.sql": model.file() for model in self.models},
        }
        if not self.written:
            shutil.copytree(self.package, self.folder / "packages" / "headrace_dbt")
        for name, text in files.items():
            if self.written.get(name) != text:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                self.manifest = None
        self.written = files

    def replace(self, model: Model) -> None:
        """Put another model in the place of the one of the same name."""
        self.models = tuple(model if model.name == other.name else other for other in self.models)
        self.write()

    def invoke(self, command: str, *arguments: str, threads: int = 2) -> dict[str, str]:
        """dbt in this process, warm; of each model its status, or the message of its error."""
        from tests.support.warm_dbt import spared_runner  # dbt takes 2.5 s to import

        with self._environment():
            if self.manifest is None:
                parsed = spared_runner().invoke(["parse", *self._options()])
                if parsed.exception is not None:
                    raise parsed.exception
                self.manifest = parsed.result
            outcome = spared_runner(self.manifest).invoke(
                [command, "--threads", str(threads), "--no-write-json", *self._options(), *arguments]
            )
        if outcome.exception is not None:
            raise outcome.exception
        return {
            result.node.name: str(result.message) if result.status == "error" else str(result.status)
            for result in outcome.result.results  # type: ignore[union-attr]
        }

    def run(self, *arguments: str) -> None:
        """`dbt run`, which must succeed."""
        statuses = self.invoke("run", *arguments)
        failed = {name: status for name, status in statuses.items() if status != "success"}
        assert not failed, "\n".join(f"{name}: {status}" for name, status in failed.items())

    @contextmanager
    def apart(self, *arguments: str) -> Iterator[BaseProcess]:
        """The `dbt` command in a process of its own; its exit status is dbt's."""
        from tests.support.warm_dbt import run_dbt

        self._parse()
        options = [*self._options(f"target-{os.urandom(4).hex()}"), "--no-write-json"]
        parsed = self.folder / "target" / "partial_parse.msgpack"
        options += ["--partial-parse-file-path", str(parsed)]
        with apart(run_dbt, [arguments[0], *options, *arguments[1:]], self.warehouse.environment()) as process:
            yield process

    def differences(self, schema: str = SCHEMA) -> list[str]:
        """The models that are not what their SELECT gives now, each with what differs."""
        found = []
        with psycopg.connect(self.warehouse.dsn) as connection:
            recompute(connection, "truth", self.models, self._current())
            for model in self.models:
                rows = difference(connection, schema, "truth", model)
                if rows:
                    told = "; ".join(f"{'too much' if side > 0 else 'missing'} {image}" for side, image in rows[:4])
                    found.append(f"{model.name}: {len(rows)} rows differ from the SELECT: {told}")
            connection.rollback()
        return found

    def _current(self) -> dict[str, list[Mapping[str, Any]]]:
        """The current rows of every dataset that the models read; a ride is an entity of its own."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for dataset in {model.dataset for model in self.models if model.dataset}:
            versions = self.warehouse.versions(dataset)
            if not KEYS[dataset]:
                found[dataset] = [
                    {**version.columns, "_generation": version.generation, "_partition": version.partition}
                    | {"_offset": version.offset}
                    for version in versions
                    if version.columns is not None
                ]
                continue
            rows = current(versions, wins=WINS.get(dataset, "newest"))
            found[dataset] = [{**columns, KEYS[dataset]: key} for key, columns in rows.items()]
        return found

    def _parse(self) -> None:
        if self.manifest is None:
            self.invoke("run", "--select", "no_such_model")

    @contextmanager
    def _environment(self) -> Iterator[None]:
        saved = dict(os.environ)
        os.environ.update(self.warehouse.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(saved)

    def _options(self, target: str = "target") -> list[str]:
        folder = str(self.folder)
        return [
            *("--project-dir", folder, "--profiles-dir", folder, "--target", "prod", "--log-level", "none"),
            *(
                "--log-level-file",
                "none",
                "--target-path",
                str(self.folder / target),
                "--log-path",
                str(self.folder / "logs"),
            ),
        ]
