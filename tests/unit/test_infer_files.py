"""`headrace infer` on files as spreadsheets and other tools write them."""

from pathlib import Path

import pytest

from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.infer.inference import infer
from headrace.infer.options import InferOptions
from headrace.settings import Settings


def inferred(folder: Path, name: str, content: str) -> list[str]:
    (folder / name).write_text(content)
    settings = Settings(home=folder, data_dir=folder, datasets_dir=folder / "datasets", dbt_dir=folder / "dbt")
    return list(infer(Deployment.from_settings(settings), name, InferOptions()).lines())


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("semicolons.csv", "id;name\n1;a\n", r"semicolons\.csv: found one column, 'id;name', expected .* by commas"),
        ("tabs.csv", "id\tname\n1\ta\n", r"tabs\.csv: found one column, .* and not by '\\t'; write the file again"),
        ("sheet.tsv", "id\tname\n", r"sheet\.tsv: found a file of another kind, expected \.ndjson"),
        ("array.json", '[{"id": 1}]', r"array\.json: found a file of another kind, expected \.ndjson"),
        ("empty.csv", "", r"empty\.csv: found an empty file"),
    ],
)
def test_file_that_cannot_be_read_is_refused_by_what_is_wrong(
    tmp_path: Path, name: str, content: str, found: str
) -> None:
    with pytest.raises(HeadraceError, match=found):
        inferred(tmp_path, name, content)


def test_header_of_a_file_counts_as_no_record(tmp_path: Path) -> None:
    (first, *lines) = inferred(tmp_path, "orders.csv", 'Order ID,Paid?\n1,yes\n2,"a;b"\n')
    assert first == "orders: 2 fields from 2 of 2 records of file orders.csv"
    assert "of the sample: 2 staged, 0 tombstones, 0 dead letters" in lines
