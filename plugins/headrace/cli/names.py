"""Types of arguments that name things of a project: shells complete them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from headrace.dataset_files import dataset_names
from headrace.exceptions import HeadraceError
from headrace.settings import Settings

if TYPE_CHECKING:
    _Text = click.ParamType[str]
    _Items = list[CompletionItem[str]]
else:  # neither is generic before click 8.4, which the constraints of Airflow 3.1 exclude
    _Text = click.ParamType
    _Items = list

_OPERATORS = re.compile(r"(?:\S+\s+)*[+@]?")


class ProjectName(_Text):
    """A name that a shell completes; whether it exists is the command's question, which has the better message."""

    def names(self, settings: Settings, ctx: click.Context) -> Iterable[str]:
        """The names that there are. Imports nothing heavy: a shell waits for it."""
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> _Items:
        """The names that begin so; none if the settings cannot be used."""
        try:
            names = sorted(set(self.names(Settings.from_environment(), ctx)))
        except (HeadraceError, OSError):
            return []
        prefix = self.operators(incomplete)
        return [CompletionItem(prefix + name) for name in names if name.startswith(incomplete.removeprefix(prefix))]

    def operators(self, incomplete: str) -> str:
        """What stands before the name."""
        return ""


class DatasetName(ProjectName):
    """The name of a declared dataset."""

    name = "dataset"

    def names(self, settings: Settings, ctx: click.Context) -> Iterable[str]:
        """Those of the files in HEADRACE_DATASETS_DIR."""
        return dataset_names(settings.datasets_dir)


class DatasetOrFile(DatasetName):
    """The name of a declared dataset, or a path."""

    name = "dataset or file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> _Items:
        """Datasets that begin so; paths if none does."""
        return super().shell_complete(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


class ReasonName(ProjectName):
    """A reason for dead letters."""

    name = "reason"

    def names(self, settings: Settings, ctx: click.Context) -> Iterable[str]:
        """Headrace's own, and those that the declarations of the named datasets raise; of all if none is named."""
        from headrace.contracts.reasons import Reason, raised_reasons

        # click has not assigned arguments yet where the last option has no value
        named = ctx.params.get("datasets") or ctx.params.get("dataset") or ctx.args
        named = (named,) if isinstance(named, str) else named
        for name in named or dataset_names(settings.datasets_dir):
            path = settings.datasets_dir / f"{name}.py"
            yield from raised_reasons(path.read_text(errors="replace")) if path.is_file() else ()
        yield from (reason.value for reason in Reason)


class ModelName(ProjectName):
    """dbt's node selection, of which names of models are completed."""

    name = "selection"

    def names(self, settings: Settings, ctx: click.Context) -> Iterable[str]:
        """Those of the files below the dbt project's models/."""
        return model_names(settings.dbt_dir)

    def operators(self, incomplete: str) -> str:
        """The models before, and dbt's + or @ of the last one: `jobs +us` is completed to `jobs +users`."""
        found = _OPERATORS.match(incomplete)
        return "" if found is None else found[0]


class KafkaTool(ProjectName):
    """The name of one of Kafka's own tools."""

    name = "tool"

    def names(self, settings: Settings, ctx: click.Context) -> Iterable[str]:
        """Those of Kafka's scripts."""
        from headrace.local.kafka_tools import CLASSES

        return CLASSES


def model_names(dbt_dir: Path) -> list[str]:
    """The models of a dbt project by their files, in alphabetical order."""
    return sorted(path.stem for path in (dbt_dir / "models").rglob("*.sql"))


DATASET, DATASET_OR_FILE, REASON = DatasetName(), DatasetOrFile(), ReasonName()
MODEL, KAFKA_TOOL = ModelName(), KafkaTool()
