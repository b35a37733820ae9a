"""A database with a history, and the process that builds it: with this tree's code, or with an older one's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from headrace.settings import ROOT


@dataclass(frozen=True, slots=True)
class Built:
    """A build: seconds in all, and of each model its seconds and the rows that it wrote."""

    seconds: float
    models: dict[str, float]
    rows: dict[str, int]


@dataclass
class GrowthSite:
    """A database and its worker; `tree` has the code that the worker runs."""

    name: str
    dsn: str
    process: subprocess.Popen[str]
    log: Path
    staged: dict[str, int] = field(default_factory=dict)
    built: dict[str, list[Built]] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, home: Path, dsn: str, tree: Path = ROOT) -> Self:
        """A worker of its own, in which dbt stays warm."""
        home.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(tree / "plugins")}
        command = [sys.executable, "-m", "tests.benchmarks.growth_worker", str(home), dsn]
        pipe = subprocess.PIPE
        log = home / "worker.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=file, text=True
            )
        return cls(name, dsn, process, log)

    def close(self) -> None:
        """End the worker."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Autocommit."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            yield connection

    def fill(self, records: int, datasets: list[str]) -> dict[str, float]:
        """Stage a history of each dataset and build it; seconds of each step."""
        self.staged = dict.fromkeys(datasets, records)
        found: dict[str, float] = self._ask("fill", records=records)
        return found

    def build_new(self, dataset: str, records: int) -> Built:
        """Stage so many more records, then build them with the data tests."""
        self._ask("stage", dataset=dataset, records=records)
        self.staged[dataset] += records
        built = Built(**self._ask("build", tests=True))
        written = built.rows[dataset]
        assert 0.8 * records < written <= 2 * records, f"{self.name}: {written} rows of {dataset}, not {records}"
        return built

    def _ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            last = self.log.read_text().strip().splitlines()[-1:]
            raise AssertionError(f"{self.name}: the worker ended with {self.process.wait()}: {last}")
        return json.loads(answer)
