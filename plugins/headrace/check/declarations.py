"""Faults of declarations: what cannot be imported, columns, sources, and sources that two datasets read."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

from pydantic import BaseModel

from headrace.catalog import Declarations
from headrace.check.finding import Finding
from headrace.contracts.columns import columns_of
from headrace.dataset import NAME, Dataset, module_name
from headrace.exceptions import DatasetError, FileSourceError
from headrace.settings import Settings
from headrace.sources.bounds import Bounds


def declaration_findings(settings: Settings, declarations: Declarations) -> Iterator[Finding]:
    """The faults of all declarations of HEADRACE_DATASETS_DIR."""
    folder = settings.datasets_dir
    yield from _names(folder)
    for name, fault in declarations.faults.items():
        yield from _of_fault(folder / f"{name}.py", name, fault.error)
    by_source: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, dataset in declarations.datasets.items():
        if dataset.where is None:  # datasets with a condition share their source
            by_source[dataset.source.kind, dataset.source.name].append(name)
        yield from _source(folder / f"{name}.py", settings, dataset)
    for (kind, source), (first, *others) in by_source.items():
        for other in others:
            path = folder / f"{other}.py"
            yield Finding(
                str(path),
                _line_of_source(path),
                f"reads {kind} {source}, as dataset {first} does",
                "one dataset per source",
                "remove one of them",
            )


def _names(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding(str(folder), None, "not a folder", "the folder of the declarations", "set HEADRACE_DATASETS_DIR")
        return
    for path in sorted(folder.glob("*.py")):
        if not NAME.fullmatch(path.stem) and not path.name.startswith("_"):
            yield Finding(
                str(path),
                None,
                f"the name {path.stem!r}, so that the file is ignored",
                f"a dataset's name, {NAME.pattern}",
                "rename the file",
            )


def _of_fault(path: Path, name: str, error: DatasetError) -> Iterator[Finding]:
    """The error, and what it hides: an error in `Dataset(...)` ends the import before the contract is compiled."""
    source = path.read_text(errors="replace")
    module = sys.modules.get(module_name(name))
    faults = [(model, fault) for model in _models(module) for fault in columns_of(model)[1]]
    for model, fault in faults:
        line = _line_of_field(source, model.__name__, fault)
        yield Finding(str(path), line, f"{model.__name__}: {fault}")
    hidden = {f"{model.__name__}: {'; '.join(f for m, f in faults if m is model)}" for model, _ in faults}
    if str(error) not in hidden:
        yield Finding(str(path), _line_of_error(path, error), _message(path, error))


def _message(path: Path, error: DatasetError) -> str:
    return str(error).removeprefix(f"{path}: ").removesuffix("; correct the file")


def _models(module: ModuleType | None) -> list[type[BaseModel]]:
    """The models that a module defines; none of the one that could not be executed up to its first class."""
    return [
        value
        for value in vars(module or object).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and module is not None
        and value.__module__ == module.__name__
        and value in _contracts(module, value)
    ]


def _contracts(module: ModuleType, model: type[BaseModel]) -> list[type[BaseModel]]:
    """The contracts of a dataset and its children; the model itself without a dataset. Others become no columns."""
    dataset = getattr(module, "DATASET", None)
    if not isinstance(dataset, Dataset):
        return [model]
    return [dataset.contract, *(child.contract for child in dataset.children)]


def _line_of_error(path: Path, error: BaseException | None) -> int | None:
    """The last line of the file that raised an error or one of its causes."""
    line = None
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            return error.lineno
        for frame, number in walk_tb(error.__traceback__):
            if frame.f_code.co_filename == str(path):
                line = number
        error = error.__cause__
    return line


def _line_of_field(source: str, model: str, fault: str) -> int | None:
    """The line of the field that a fault of `columns_of` names first."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == model:
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and fault.startswith(f"field {ast.unparse(item.target)!r} "):
                    return item.lineno
            return node.lineno
    return None


def _line_of_source(path: Path) -> int | None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "source":
            return node.value.lineno
    return None


def _source(path: Path, settings: Settings, dataset: Dataset) -> Iterator[Finding]:
    """The faults of a file's declaration that show before it is read; topics were checked when they were declared."""
    if not dataset.source.is_file:
        return
    try:
        dataset.source.open(_Offline(settings), (), Bounds()).close()
    except FileSourceError as error:
        yield Finding(str(path), _line_of_source(path), str(error))


class _Offline:
    """No services: a file needs none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def kafka(self) -> dict[str, str]:
        """No broker."""
        return {}

    def redis(self) -> str:
        """No server."""
        return ""
