"""Each line of "Who can do what" in docs/security.md has a test, and each test has its line."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_line_of_the_security_table_has_a_test() -> None:
    documented = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    tried = {
        line
        for path in (ROOT / "tests").rglob("test_*.py")
        for line in re.findall(r"^@pytest\.mark\.security\(\"([A-Z]\d+)\"\)$", path.read_text(), re.MULTILINE)
    }
    assert len(documented) == len(set(documented))
    assert set(documented) == tried
