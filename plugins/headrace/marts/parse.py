"""dbt's parser without a database: every fault of a project, each with its file.

dbt stops at the first fault. So a copy of the project is parsed, and after each fault again without the file that has
it, until the rest can be parsed.
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.optional import needs
from headrace.output import shown

FAULTS_MAX = 100
_FILE = re.compile(r"\(([\w./ -]+\.(?:sql|yml|yaml|md|csv|py))\)")
_READING = re.compile(r"Error reading \w+: ([\w./ -]+\.(?:yml|yaml|md))")
_PATCH = re.compile(r"in the '\w+' section of file '([^']+)'")
_MISSING = re.compile(r"depends on a (?:node|source) named '([^']+)' which was not found")
_LINE = re.compile(r"\bline (\d+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# warnings that name a mistake of the author's
_WARNINGS = frozenset({"NoNodeForYamlKey", "ValidationWarning", "UnusedResourceConfigPath", "MacroNotFoundForPatch"})


@dataclass(frozen=True, slots=True)
class ParseFault:
    """What dbt says of a file; file: below the project's folder, None where dbt names none."""

    file: str | None
    line: int | None
    message: str


@dataclass(slots=True)
class Parsed:
    """manifest: dbt's, of the files without faults; None where dbt could not parse the rest either."""

    manifest: Any = None
    faults: list[ParseFault] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # path below the project's folder: text


def parse_project(project: Path) -> Parsed:
    """Parse a dbt project offline. Takes about 3 s, and 1 s more for each fault."""
    parsed = Parsed()
    with tempfile.TemporaryDirectory(prefix="headrace-check-") as folder:
        copy = Path(folder, "project")
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns("target", "logs", "__pycache__"))
        while len(parsed.faults) < FAULTS_MAX:
            parsed.manifest, error, warnings = _parse(copy, Path(folder))
            if error is None:
                parsed.faults += [fault for fault in warnings if not _is_about(fault, parsed.left_out)]
                break
            fault = _fault(str(error), copy)
            if not _is_about(fault, parsed.left_out):
                parsed.faults.append(fault)
            if fault.file is None:
                break
            parsed.left_out[fault.file] = (copy / fault.file).read_text(errors="replace")
            (copy / fault.file).unlink()
    return parsed


def _parse(project: Path, folder: Path) -> tuple[Any, BaseException | None, list[ParseFault]]:
    with needs("dbt"):
        from dbt.cli.main import dbtRunner  # 2.5 s of imports

    warnings: list[ParseFault] = []
    options = [
        *("--project-dir", str(project), "--profiles-dir", str(project), "--target-path", str(folder / "target")),
        *("--log-path", str(folder / "logs"), "--log-level", "none", "--log-level-file", "none"),
        *("--no-version-check", "--no-write-json"),
    ]
    outcome = dbtRunner(callbacks=[_collector(project, warnings)]).invoke(["parse", *options])
    if outcome.exception is not None and not isinstance(outcome.exception, Exception):
        raise outcome.exception
    return outcome.result, outcome.exception, warnings


def _collector(project: Path, warnings: list[ParseFault]) -> Callable[[Any], None]:
    def collect(event: Any) -> None:
        if event.info.level == "warn" and event.info.name in _WARNINGS:
            warnings.append(_fault(event.info.msg.removeprefix("[WARNING]: "), project))

    return collect


def _fault(message: str, project: Path) -> ParseFault:
    text = _COLOURS.sub("", message).removeprefix("[WARNING]: ")
    found = _FILE.search(text) or _READING.search(text) or _PATCH.search(text)
    file = found[1] if found else None
    if file is not None and not (project / file).is_file():  # below one of the folders of the project
        file = next((str(path.relative_to(project)) for path in project.glob(f"*/{file}")), None)
    line = _LINE.search(text)
    shortened = text.split("-----", 1)[0]
    return ParseFault(file, int(line[1]) if line else None, shown(" ".join(shortened.split())))


def _is_about(fault: ParseFault, left_out: dict[str, str]) -> bool:
    """Whether a fault only says that something is missing which is in a file that has a fault itself."""
    missing = _MISSING.search(fault.message)
    named = missing[1].rpartition(".")[2] if missing else None
    if named is None:
        patch = re.search(r"patch with name '([^']+)'", fault.message)
        named = patch[1] if patch else None
    if named is None:
        return False
    return any(
        Path(path).stem == named or re.search(rf"- name: ['\"]?{re.escape(named)}['\"]?\s*$", text, re.MULTILINE)
        for path, text in left_out.items()
    )
