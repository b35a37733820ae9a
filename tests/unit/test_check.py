"""`headrace check` on declarations: every fault in one run, with its file and line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.catalog import load_declarations
from headrace.check.declarations import declaration_findings
from headrace.check.finding import Finding
from headrace.cli import main
from headrace.settings import Settings

GOOD = '''"""Payments."""

from pydantic import BaseModel

from headrace.contract import Identifier, Integer
from headrace.dataset import CONTRACT_CONFIG, Dataset, File, KafkaTopic


class Payment(BaseModel):
    model_config = CONTRACT_CONFIG

    id: Identifier
    amount: Integer


DATASET = Dataset(name="payments", contract=Payment, source=KafkaTopic(topic="payments"), key="id")
'''


def findings(folder: Path, **files: str) -> list[Finding]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return list(declaration_findings(Settings(datasets_dir=folder, home=folder), load_declarations(folder)))


def test_check_of_a_good_declaration_finds_nothing(tmp_path: Path) -> None:
    assert findings(tmp_path, payments=GOOD, _shared="x = 1") == []


@pytest.mark.parametrize(
    ("old", "new", "line", "found"),
    [
        ("    id: Identifier\n", "    id: Identifier)\n", 12, "SyntaxError"),
        ("contract import Identifier", "contract import Identity", 5, "ImportError: cannot import name 'Identity'"),
        ("    amount: Integer", "    amount: complex", 13, "field 'amount' is complex, which no column holds"),
        ("    amount: Integer", "    ctid: Integer", 13, "field 'ctid' cannot be a column"),
        ('key="id"', 'key="no"', 16, "key 'no' is not a field of Payment"),
        ('topic="payments"', 'topic="a b"', 16, "topic 'a b': expected"),
        ('KafkaTopic(topic="payments")', 'File(path="x.xls")', 16, "found a file of another kind"),
        ('name="payments"', 'name="others"', None, "expected `DATASET = Dataset(name='payments', ...)`"),
        ("DATASET = ", "raise SystemExit(0)\nDATASET = ", 16, "SystemExit"),
    ],
)
def test_check_of_a_fault_gives_file_and_line(tmp_path: Path, old: str, new: str, line: int | None, found: str) -> None:
    assert old in GOOD
    (finding,) = findings(tmp_path, payments=GOOD.replace(old, new))
    assert finding.file == str(tmp_path / "payments.py")
    assert finding.line == line
    assert found in finding.found
    assert finding.text().startswith(f"{tmp_path}/payments.py:{line}: " if line else f"{tmp_path}/payments.py: ")


def test_check_reports_all_faults_of_all_declarations_at_once(tmp_path: Path) -> None:
    broken = GOOD.replace("amount: Integer", "amount: complex").replace("id: Identifier", "id: set[int]")
    found = findings(
        tmp_path,
        payments=broken.replace('key="id"', 'key="no"'),  # a fault of the dataset hides those of its contract
        others=GOOD.replace('"payments"', '"others"').replace("amount: Integer", "cmin: Integer"),
        refunds=GOOD.replace('name="payments"', 'name="refunds"'),
        returns=GOOD.replace('name="payments"', 'name="returns"'),
        Shipments=GOOD,
    )
    assert sorted((Path(f.file).name, f.line, f.found[:40]) for f in found) == [
        ("Shipments.py", None, "the name 'Shipments', so that the file i"),
        ("others.py", 13, "Payment: field 'cmin' cannot be a column"),
        ("payments.py", 12, "Payment: field 'id' is set, which no col"),
        ("payments.py", 13, "Payment: field 'amount' is complex, whic"),
        ("payments.py", 16, "payments: key 'no' is not a field of Pay"),
        ("returns.py", 16, "reads topic payments, as dataset refunds"),
    ]


def test_check_without_the_folder_names_its_setting(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path / "none")
    assert "HEADRACE_DATASETS_DIR" in finding.text()


def test_check_of_named_models_without_marts_is_a_usage_error() -> None:
    refused = CliRunner().invoke(main, ["check", "jobs_per_minute"])
    assert refused.exit_code == 2
    assert "MODELS and --seed need --marts" in refused.output
