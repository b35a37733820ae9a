"""The runbook's sections and commands."""

import re
from pathlib import Path

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text().split("\n# Backup", 1)[0]

SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))

BLOCK = re.compile(r"^```\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
