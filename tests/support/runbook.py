"""The runbook's sections and commands."""

import re
from pathlib import Path

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text().split("\n# Backup", 1)[0]

SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))

# incidents that are one problem of `status` from the failed run to the remedy
CARDS = {
    "The database's disk is full",
    "The database accepts no writes",
    "A dataset is late",
    "The topic was deleted and created again",
    "Retention overtook the checkpoint",
    "A new partition has lost its head",
    "The log is shorter than the checkpoint",
    "A Redis stream was created again or restored",
    "The staging table is gone",
    "A permission is missing",
    "A topic is not checked",
}

BLOCK = re.compile(r"^```\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def pattern(shown: str) -> str:
    """The expression that a message must match: `...` and numbers stand for any."""
    escaped = re.escape(shown).replace(re.escape("..."), ".*")
    return re.sub(r"\d+", r"\\d+", escaped)
