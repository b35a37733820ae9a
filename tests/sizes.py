"""Sizes of library and tests: `make lint` fails on modules over 350 lines and on functions that are too long.

A function has at most 50 lines, from `def` to its end, and 6 parameters (self and cls not counted). Commands of click
may have more parameters, for each option is one; so may tests and fixtures, for each fixture is one.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "plugins" / "headrace"
TESTS = Path(__file__).parent
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 350, 50, 6

# What stays larger, and why. An entry that is not needed any more fails the check.
EXCEPTIONS: frozenset[str] = frozenset(
    {
        # seven parameters: declarations and their users' tests call it, each is one property of a dataset
        "contracts/contract.py:Contract:__init__",
        "marts/build.py:build",
        "marts/claims.py:record",
        # one loop over the fields of Kafka's record format: a call for each costs half of a drain's reading
        "sources/kafka_records.py:MeteredRecords:_unpack",
    }
)
TEST_EXCEPTIONS: frozenset[str] = frozenset(
    {
        "faults/mutants.py",
        "support/marts_oracle.py:_marts_of_jobs",
        "support/warehouse.py:Warehouse:stage",
    }
)


def check(folder: Path, exceptions: frozenset[str] = EXCEPTIONS) -> list[str]:
    """One line per finding: path, what is too large, its size and the limit; and per exception without a finding."""
    findings = dict(found for path in sorted(folder.rglob("*.py")) for found in _module(path, folder))
    lines = [line for name, line in findings.items() if name not in exceptions]
    unneeded = sorted(exceptions - findings.keys())
    lines += [f"{name}: within the limits now: remove it from tests/sizes.py" for name in unneeded]
    return lines


def _module(path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    name, text = str(path.relative_to(folder)), path.read_text()
    lines = len(text.splitlines())
    if lines > MODULE_LINES:
        yield name, f"{name}: {lines} lines, at most {MODULE_LINES}"
    yield from _functions(ast.parse(text), name)


def _functions(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """The findings below a node; `name` is its path with the names of the classes and functions around it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            continue  # an expression holds no definition
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _functions(child, name)
            continue
        inner = f"{name}:{child.name}"
        yield from _functions(child, inner)
        if isinstance(child, ast.ClassDef):
            continue
        lines = (child.end_lineno or child.lineno) - child.lineno + 1
        parameters = 0 if _is_command(child) or _is_of_pytest(child) else _parameters(child.args)
        found = [f"{lines} lines, at most {FUNCTION_LINES}"] * (lines > FUNCTION_LINES)
        found += [f"{parameters} parameters, at most {PARAMETERS}"] * (parameters > PARAMETERS)
        if found:
            yield inner, f"{inner}: {'; '.join(found)}"


def _parameters(arguments: ast.arguments) -> int:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A function that click calls: one of its decorators is click.command, group.command or the like."""
    calls = (decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call))
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "group") for call in calls)


def _is_of_pytest(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A test or a fixture: pytest passes the arguments."""
    decorators = (getattr(decorator, "func", decorator) for decorator in function.decorator_list)
    is_fixture = any(isinstance(name, ast.Attribute) and name.attr == "fixture" for name in decorators)
    return is_fixture or function.name.startswith("test_")


if __name__ == "__main__":
    findings = check(LIBRARY) + check(TESTS, TEST_EXCEPTIONS)
    sys.exit("\n".join(findings) or None)
