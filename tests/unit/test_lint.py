"""`make lint` fails on what the project rules out: each rule is broken once in a copy of the library."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sizes

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = str(Path(sys.executable).with_name("lint-imports"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of plugins/headrace; tests restore what they change."""
    copy = tmp_path_factory.mktemp("plugins") / "headrace"
    shutil.copytree(ROOT / "plugins" / "headrace", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def lint_imports(library: Path) -> subprocess.CompletedProcess[str]:
    command = [LINT_IMPORTS, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=library.parent, capture_output=True, text=True, timeout=60)


def test_lint_imports_passes_on_the_library(library: Path) -> None:
    done = lint_imports(library)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_upward_import_inside_a_function_fails(library: Path) -> None:
    module = library / "durations.py"
    text = module.read_text()
    module.write_text(f"{text}\n\ndef seeded() -> None:\n    from headrace.ingest import plan as plan\n")
    try:
        done = lint_imports(library)
    finally:
        module.write_text(text)
    assert done.returncode == 1
    assert "packages import downwards only BROKEN" in done.stdout
    assert "headrace.durations is not allowed to import headrace.ingest" in done.stdout


def test_import_cycle_within_a_package_fails(library: Path) -> None:
    first, second = library / "postgres" / "seeded_a.py", library / "postgres" / "seeded_b.py"
    first.write_text("import headrace.postgres.seeded_b\n")
    second.write_text("import headrace.postgres.seeded_a\n")
    try:
        done = lint_imports(library)
    finally:
        first.unlink()
        second.unlink()
    assert done.returncode == 1
    assert "no import cycles BROKEN" in done.stdout
    assert "packages import downwards only KEPT" in done.stdout


def test_overlong_function_fails(tmp_path: Path) -> None:
    body = "    pass\n" * sizes.FUNCTION_LINES
    (tmp_path / "seeded.py").write_text(f"class Seeded:\n  def run(self):\n{body}")
    assert sizes.check(tmp_path, frozenset()) == ["seeded.py:Seeded:run: 51 lines, at most 50"]


def test_function_at_the_limits_passes(tmp_path: Path) -> None:
    body = "    pass\n" * (sizes.FUNCTION_LINES - 1)
    (tmp_path / "seeded.py").write_text(f"class Seeded:\n  def run(self, a, b, c, /, d, *, e, f):\n{body}")
    assert sizes.check(tmp_path, frozenset()) == []


def test_function_with_seven_parameters_fails_unless_click_or_pytest_calls_it(tmp_path: Path) -> None:
    function = "def run(a, b, c, d, e, *, f, g):\n    pass\n"
    (tmp_path / "seeded.py").write_text(function)
    (tmp_path / "commands.py").write_text(f"@main.command(name='run')\n{function}")
    (tmp_path / "test_run.py").write_text(f"{function.replace('run', 'test_run')}\n@pytest.fixture\n{function}")
    assert sizes.check(tmp_path, frozenset()) == ["seeded.py:run: 7 parameters, at most 6"]


def test_overlong_module_fails(tmp_path: Path) -> None:
    (tmp_path / "seeded.py").write_text("\n" * (sizes.MODULE_LINES + 1))
    assert sizes.check(tmp_path, frozenset()) == ["seeded.py: 351 lines, at most 350"]


def test_exception_that_is_not_needed_fails(tmp_path: Path) -> None:
    (tmp_path / "seeded.py").write_text("")
    expected = ["seeded.py: within the limits now: remove it from tests/sizes.py"]
    assert sizes.check(tmp_path, frozenset({"seeded.py"})) == expected


def test_ruff_selects_the_rules_on_docstrings_names_complexity_and_imports(tmp_path: Path) -> None:
    (tmp_path / "seeded.py").write_text("from . import x as x\n\n\ndef Run() -> None:\n    pass\n")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--output-format"]
    done = subprocess.run([*command, "concise", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert {"D100", "D103", "N802", "TID252"} <= {
        line.split()[1] for line in done.stdout.splitlines()[:-1] if " " in line
    }


def _statements(path: Path) -> Iterator[ast.expr]:
    """What a module hands to execute(), executemany(), copy() and SQL()."""
    text = path.read_text()
    if not re.search(r"\b(execute|executemany|copy|SQL)\s*\(", text):
        return
    for node in ast.walk(ast.parse(text)):
        name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
        if isinstance(node, ast.Call) and name in ("execute", "executemany", "copy", "SQL") and node.args:
            yield node.args[0]


def _is_composed_as_text(statement: ast.expr) -> bool:
    while isinstance(statement, ast.Call) and isinstance(statement.func, ast.Attribute):
        if statement.func.attr == "encode":
            return True
        statement = statement.func.value
    return any(isinstance(node, ast.FormattedValue | ast.Mod) for node in ast.walk(statement))


def test_no_statement_is_composed_as_text() -> None:
    """psycopg refuses text that is no literal; .encode() evades that, and mypy does not know LiteralString."""
    checked = [
        (path, statement)
        for path in sizes.LIBRARY.rglob("*.py")
        if path.parent.name != "marts"
        for statement in _statements(path)
    ]
    assert len(checked) > 100
    assert [f"{p.name}: {ast.unparse(statement)}" for p, statement in checked if _is_composed_as_text(statement)] == []
