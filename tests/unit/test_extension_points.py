"""docs/architecture.md says which module a new column type, reason or source kind changes: here it is changed alone.

A copy of the library gets the lines that a maintainer would write, and a process that imports the copy uses them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

COLUMN_TYPE = (
    "contracts/column_types.py",
    "COLUMN_TYPES = (\n",
    dedent("""
    from datetime import timedelta


    def _duration(value: Any) -> timedelta:
        if isinstance(value, str) and value.endswith(" s") and value[:-2].isdigit():
            return timedelta(seconds=int(value[:-2]))
        raise wrong("seconds, as 5 s")


    def _store_duration(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> timedelta:
        if not isinstance(value, timedelta):
            raise Unstorable(field, value, "a duration")
        return value


    COLUMN_TYPES = (
        ColumnType(
            python=timedelta, sql_type="interval", schema="timedelta", convert=_duration,
            convert_strictly=_duration, store=_store_duration,
        ),
    """),
)
REASON = (
    "contracts/reasons.py",
    "    REJECTED_BY_POSTGRES = ",
    '    UNKNOWN_CODEC = "unknown_codec", Scope.RECORD, "the value is compressed in a way that is not known"\n\n'
    "    REJECTED_BY_POSTGRES = ",
)
SOURCE_KIND = (
    "sources/declarations.py",
    "@dataclass(frozen=True, slots=True, kw_only=True)\nclass File:",
    dedent('''
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Archive:
        """Records are the members of an archive."""

        kind: ClassVar[str] = "archive"
        is_file: ClassVar[bool] = True
        can_reload: ClassVar[bool] = False
        has_record_keys: ClassVar[bool] = False
        has_malformed_rows: ClassVar[bool] = False
        created_partitions: ClassVar[int | None] = None
        dead_letter_topic: ClassVar[str | None] = None
        dead_letter_partitions: ClassVar[int] = 1

        name: str

        @property
        def target(self) -> str:
            return f"archive {self.name}"

        def commands(self, dataset: str) -> Sequence[str]:
            return (f"headrace load {dataset} [FILE]",)

        def open(self, services: Services, columns: Sequence[Column], bounds: Bounds, path: Path | None = None) -> Any:
            return "opened", self.name, [column.name for column in columns]


    @dataclass(frozen=True, slots=True, kw_only=True)
    class File:'''),
)

USE = """
import json
import sys
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from headrace.catalog import load_declarations
from headrace.contracts.rejection import Rejection
from headrace.deployment import Deployment
from headrace.ingest.opening import open_source
from headrace.monitor import describe
from headrace.postgres import staging
from headrace.settings import Settings
from headrace.verify.canonical import CanonicalRow

catalog = load_declarations(Path(sys.argv[1]))
(dataset,) = catalog.datasets.values()
decode = dataset.compiled.decode
accepted = decode(None, b'{"id": "a", "took": "5 s", "waited": "", "each": ["1 s", "2 s"]}')
rejected = decode(None, b'{"id": "a", "took": 5}')
definitions = ", ".join(each.as_string() for each in staging._definitions(staging.records_table(dataset)))
deployment = Deployment.from_settings(Settings())
print(json.dumps({
    "accepted": repr(accepted[:4]),
    "rejected": [rejected.reason, rejected.detail],
    "columns": staging.columns(dataset)[:4],
    "definitions": definitions,
    "described": list(describe.lines(dataset)),
    "streams": catalog.streams,
    "faults": [[fault.name, fault.is_file] for fault in catalog.faults.values()],
    "verified": CanonicalRow(dataset).names[:4],
    "opened": open_source(deployment, dataset),
}))
"""

DECLARATION = """
from datetime import timedelta

from headrace.contract import Identifier
from headrace.dataset import Dataset
from headrace.sources.declarations import Archive
from pydantic import BaseModel


class Visit(BaseModel):
    id: Identifier
    took: timedelta
    waited: timedelta | None = None
    each: list[timedelta] = []


DATASET = Dataset(name="{name}", contract=Visit, key="id", source=Archive(name="visits.zip"){more})
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the library says of a dataset that uses all three."""
    home = tmp_path_factory.mktemp("extended")
    library = shutil.copytree(ROOT / "plugins" / "headrace", home / "headrace")
    for name, line, lines in (COLUMN_TYPE, REASON, SOURCE_KIND):
        text = (library / name).read_text()
        assert text.count(line) == 1, f"{name}: {line!r} stands {text.count(line)} times"
        (library / name).write_text(text.replace(line, lines))
    datasets = home / "datasets"
    datasets.mkdir()
    (datasets / "visits.py").write_text(DECLARATION.format(name="visits", more=""))
    (datasets / "broken.py").write_text(DECLARATION.format(name="broken", more=", zone='Nowhere'"))
    (home / "use.py").write_text(USE)
    used = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(home)!r}); import runpy; "
         f"runpy.run_path({str(home / 'use.py')!r})", datasets],
        capture_output=True, text=True, check=False, env={},
    )  # fmt: skip
    assert used.returncode == 0, used.stderr
    found: dict[str, Any] = json.loads(used.stdout)
    return found


def test_column_type_added_in_one_module_is_decoded_stored_described_and_verified(extended: dict[str, Any]) -> None:
    seconds = "datetime.timedelta(seconds={})".format
    assert extended["accepted"] == f"['a', {seconds(5)}, None, [{seconds(1)}, {seconds(2)}]]"
    assert extended["rejected"] == ["wrong_type", "took: found 5, expected seconds, as 5 s"]
    assert extended["columns"] == [["id", "text"], ["took", "interval"], ["waited", "interval"], ["each", "interval[]"]]
    assert '"took" interval' in extended["definitions"]
    assert extended["verified"] == ["id", "took", "waited", "each"]
    took = next(line for line in extended["described"] if line.startswith("took"))
    assert took.split() == ["took", "took", "interval", "yes", "missing_field,", "wrong_type"]


def test_reason_added_in_one_module_is_described(extended: dict[str, Any]) -> None:
    whole = next(line for line in extended["described"] if line.startswith("a record as a whole"))
    assert "unknown_codec" in whole


def test_source_kind_added_in_one_package_is_loaded_opened_and_described(extended: dict[str, Any]) -> None:
    assert extended["opened"] == ["opened", "visits.zip", ["id", "took", "waited", "each"]]
    assert "source        archive visits.zip" in extended["described"]
    assert "  headrace load visits [FILE]" in extended["described"]
    assert extended["streams"] == []
    assert extended["faults"] == [["broken", True]]  # read from its text: it cannot be loaded
