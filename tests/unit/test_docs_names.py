"""Names of functions, modules and files in docs exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "docs/architecture.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs/testing.md",
    ROOT / "docs/glossary.md",
    *(ROOT / "docs/decisions").glob("*.md"),
]
PACKAGES = "|".join(
    sorted(
        path.stem
        for path in (ROOT / "plugins/headrace").iterdir()
        if path.suffix in ("", ".py") and not path.name.startswith("_")
    )
)
NAME = re.compile(rf"`(?:headrace\.)?((?:{PACKAGES})(?:\.[A-Za-z_]+)+)`")
FILE = re.compile(r"`((?:plugins|dags|dbt|tests|docs|data-files)/[\w./*-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_page_exist(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in NAME.findall(text) if not _exists(name)]
    files = [name.rstrip("/") for name in FILE.findall(text) if not re.search(r"NAME|MODULE|NNNN", name)]
    missing += [name for name in files if not list(ROOT.glob(name)) and not list(ROOT.glob(f"{name}.py"))]
    assert not missing


def _exists(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = ROOT / "plugins/headrace" / "/".join(parts[:cut])
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if not source.exists():
            continue
        text = source.read_text()
        return all(
            re.search(rf"^\s*(?:class|def|async def) {part}\b|^\s*{part}\b *[:=]", text, re.MULTILINE)
            for part in parts[cut:]
        )
    return path.is_dir()
