"""The case's jobs as other producers write them: one more field, 1.5 kB of more fields, null, escapes, text, zones.

Each shape has a topic, a dataset of the same contract and, where it is compared with the limit, its own prebuilt COPY.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.repair.generations import reset
from headrace.sample.generate import generate
from headrace.sample.produce import produce
from headrace.settings import ROOT
from tests.benchmarks.limit import Limit
from tests.benchmarks.outcome import PrintLine, Spread, table
from tests.benchmarks.site import HEADRACE, Site, Speed

PROCESSES = 3
RECORDS_MAX = 300_000  # of a shape: seven topics of a million are more than they tell
PLAIN, LARGE = "plain", "undeclared_1500_bytes"
NUMBERS, TIMES = ("JOBIDENTIFIER", "USERID", "REVENUE"), ("JOBCREATEDATE", "JOBDATE")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordShape:
    """How a producer writes a job.

    change: what becomes of a job's document. least: the least ratio to the plain shape, or to the shape's own COPY.
    """

    change: Callable[[int, Document], Document]
    least: float | None = None
    of_its_copy: bool = False


SHAPES: Mapping[str, RecordShape] = {
    PLAIN: RecordShape(lambda _i, job: job),
    "undeclared_field": RecordShape(lambda _i, job: job | {"SOURCE": "mobile-app"}, least=0.8),
    LARGE: RecordShape(
        lambda i, job: job | {f"ATTRIBUTE_{n}": f"what a producer adds, {i + n}" for n in range(32)},
        least=0.5,
        of_its_copy=True,
    ),
    "undeclared_object": RecordShape(
        lambda i, job: job | {"META": {"trace": f"t-{i}", "tags": ["a", "b"], "depth": {"x": 1.5}}}
    ),
    "null": RecordShape(lambda _i, job: job | {"JOBDATE": None, "REVENUE": None}),
    "defaulted": RecordShape(lambda _i, job: {name: job[name] for name in job if name not in ("JOBDATE", "REVENUE")}),
    "escaped": RecordShape(lambda i, job: job | {"LOCATION": f"Zürich {i % 2_000}", "SERVICENAME": 'Größe \\ "x"'}),
    "text_numbers": RecordShape(
        lambda _i, job: job | {name: str(job[name]) for name in NUMBERS if job.get(name) is not None}
    ),
    "zoned_times": RecordShape(
        lambda _i, job: job | {name: f"{job[name][:10]}T10:00:00.123+03:00" for name in TIMES if job.get(name)}
    ),
}


class Shapes:
    """Topics of all shapes beside the site's own, and what their drains took."""

    def __init__(self, site: Site, print_line: PrintLine) -> None:
        datasets_dir = site.settings.home / "shapes"
        datasets_dir.mkdir()
        declaration = (ROOT / "plugins" / "datasets" / "jobs.py").read_text()
        for name in SHAPES:
            text = declaration.replace('name="jobs"', f'name="{name}"').replace('topic="jobs"', f'topic="{name}"')
            (datasets_dir / f"{name}.py").write_text(text)
        self._site = site
        self._datasets_dir = datasets_dir
        self.records = min(site.records, RECORDS_MAX)
        self._deployment = Deployment.from_settings(replace(site.settings, datasets_dir=datasets_dir))
        initialise(self._deployment)
        for name, shape in SHAPES.items():
            self._fill(name, shape)
        print_line(f"{self.records:,} jobs in each of {len(SHAPES)} shapes produced")
        self._drain(LARGE)
        self._copied = Limit(site, LARGE)

    def measurements(self) -> Iterator[tuple[str, Callable[[], Speed]]]:
        """What is measured in each round, by row."""
        for name in SHAPES:
            yield name, lambda name=name: self._drain(name)  # type: ignore[misc]
        yield _copy_of(LARGE), self._copy

    def _fill(self, name: str, shape: RecordShape) -> None:
        path = Path(self._site.settings.home) / f"{name}.kafka"
        lines = islice(generate("jobs", self.records, 1, 0.0, ROOT / "data-files"), self.records)
        with path.open("wb") as file:
            for i, line in enumerate(lines):
                key, _, text = line.partition(b"|")
                document = shape.change(i, json.loads(text))
                file.write(key + b"|" + json.dumps(document, separators=(",", ":")).encode() + b"\n")
        produce(self._deployment, self._deployment.dataset(name), path)
        path.unlink()

    def _drain(self, name: str) -> Speed:
        reset(self._deployment, self._deployment.dataset(name))
        self._site.settle()
        subprocess.run(
            [HEADRACE, "drain", name, "--parallel", str(PROCESSES)],
            env=self._site.environ("kafka-python") | {"HEADRACE_DATASETS_DIR": str(self._datasets_dir)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with self._site.connect() as connection:
            found = connection.execute(
                "select sum(staged), extract(epoch from max(committed_at) - min(started_at)) "
                "from headrace.batches where dataset = %s and kind = 'drain'",
                (name,),
            ).fetchone()
        assert found is not None
        assert int(found[0]) == self.records, f"{name}: {found[0]} of {self.records} staged"
        return Speed(self.records, float(found[1]))

    def _copy(self) -> Speed:
        reset(self._deployment, self._deployment.dataset(LARGE))
        return self._copied.copy(self._site)


def _copy_of(name: str) -> str:
    return f"limit: prebuilt COPY, {name}"


def outcome(speeds: Mapping[str, list[float]], records: int) -> tuple[str, dict[str, float], list[str]]:
    """Markdown, ratios, and what is below its least ratio."""
    medians = {row: Spread.of(values).median for row, values in speeds.items()}
    rows, ratios, missed = [], {}, []
    for name, shape in SHAPES.items():
        base = _copy_of(name) if shape.of_its_copy else PLAIN
        ratio = medians[name] / medians[base]
        ratios[f"{name} / {base}"] = ratio
        rows.append(
            [name, f"{medians[name]:,.0f}", base, f"{ratio:.2f}", "" if shape.least is None else f"{shape.least:g}"]
        )
        if shape.least is not None and ratio < shape.least:
            missed.append(f"throughput: {name}: {ratio:.2f} of {base}, expected at least {shape.least:g}")
    text = f"{records:,} jobs in each shape, {PROCESSES} processes, kafka-python, records per second:\n\n" + table(
        ["shape", "median", "against", "ratio", "at least"], rows
    )
    return text, ratios, missed
