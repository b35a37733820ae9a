"""The health of Airflow's own components, and the DAG files that it cannot import, as the page and `status` show them.

The page reads them in Airflow's API server; a shell asks Airflow's stable REST API (`/api/v2/monitor/health`, without a
login, and `/api/v2/importErrors`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from headrace.command import Command, ShellCommand
from headrace.monitor.grouping import named
from headrace.monitor.problem import LOST, UNSEEN, Problem, problem_of

NAMES: Mapping[str, str] = {"scheduler": "scheduler", "dag_processor": "DAG processor", "triggerer": "triggerer"}
_PROGRAMS: Mapping[str, str] = {"scheduler": "scheduler", "dag_processor": "dag-processor", "triggerer": "triggerer"}
STACK_LENGTH_MAX = 100_000  # of a stack trace that is searched for Headrace's name
OURS = "headrace"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """A component of Airflow; is_healthy is None for one that was never started, which some deployments leave out."""

    name: str
    is_healthy: bool | None
    heartbeat_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DagImportError:
    """A DAG file that Airflow cannot import. message: the last line of the stack trace.

    is_ours: whether the file, or the stack trace, names Headrace.
    """

    file: str
    message: str
    since: datetime | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class AirflowHealth:
    """Airflow's components and import errors.

    error: why they are not known, with remedy. is_local: whether `headrace up` runs this Airflow.
    """

    components: Sequence[ComponentHealth] = ()
    import_errors: Sequence[DagImportError] = ()
    error: str | None = None
    remedy: Command = ShellCommand("airflow", "db", "check")  # noqa: RUF009 - immutable
    is_local: bool = False

    @property
    def is_scheduling(self) -> bool:
        """Whether the scheduler is not known to be down."""
        return all(each.is_healthy is not False for each in self.components if each.name == "scheduler")

    def document(self) -> dict[str, Any]:
        """The health as JSON types; the messages of import errors are in the problems."""
        return {
            "components": {
                each.name: {
                    "is_healthy": each.is_healthy,
                    "heartbeat_at": None if each.heartbeat_at is None else each.heartbeat_at.isoformat(),
                }
                for each in self.components
            },
            "import_errors": len(self.import_errors),
            "error": self.error,
        }


def with_airflow(found: Sequence[Problem], health: AirflowHealth) -> list[Problem]:
    """The problems with those of Airflow itself; a scheduler that is down explains sources that no run checks."""
    ours = list(problems_of(health))
    if health.is_scheduling:
        return [*found, *ours]
    waiting = [each for each in found if each.cause in (UNSEEN, LOST)]
    datasets = [name for each in waiting for name in each.datasets]
    text = f"; not checked since: {named(datasets, 'dataset')}" if datasets else ""
    ours = [
        replace(each, datasets=datasets, text=f"{each.text}{text}") if each.kind == "airflow" else each for each in ours
    ]
    return [*(each for each in found if each not in waiting), *ours]


def components_of(document: Mapping[str, Any]) -> list[ComponentHealth]:
    """The components in a document of `/api/v2/monitor/health`.

    Raises ValueError if Airflow's database does not answer: the components are then unhealthy for want of it.
    """
    if (document.get("metadatabase") or {}).get("status") == "unhealthy":
        raise ValueError("Airflow's metadata database does not answer")
    found: list[ComponentHealth] = []
    for name in NAMES:
        stated = document.get(name) or {}
        status, heartbeat = stated.get("status"), stated.get(f"latest_{name}_heartbeat")
        at = datetime.fromisoformat(str(heartbeat)) if heartbeat else None
        found.append(ComponentHealth(name, None if status is None else status == "healthy", at))
    return found


def import_error_of(file: str | None, stack_trace: str | None, since: datetime | None) -> DagImportError:
    """An import error as Airflow stores it."""
    stack = (stack_trace or "")[-STACK_LENGTH_MAX:]
    lines = [line.strip() for line in stack.splitlines() if line.strip()]
    is_ours = OURS in (file or "").lower() or OURS in stack.lower()
    return DagImportError(file or "a DAG file", lines[-1] if lines else "no message", since, is_ours)


def problems_of(health: AirflowHealth) -> Iterator[Problem]:
    """The problems of Airflow itself: one for all components that do not run, one for each cause of import errors."""
    if health.error is not None:
        yield problem_of(
            "error", "airflow", "Airflow", health.error, health.remedy, dataset=None, datasets=(), cause="Airflow"
        )
    down = [each for each in health.components if each.is_healthy is False]
    if down:
        yield _of_components(down, is_local=health.is_local)
    for error in health.import_errors:
        about = error.file if error.is_ours else "DAG files of others"
        cause = f"a DAG file cannot be imported: {error.message}" if error.is_ours else "DAG files of others"
        text = f"{'' if error.is_ours else f'{error.file}: '}cannot be imported: {error.message}"
        yield problem_of(
            "error" if error.is_ours else "warning",
            "import_error",
            about,
            text,
            ShellCommand("airflow", "dags", "list-import-errors"),
            dataset=None,
            datasets=(),
            since=error.since,
            cause=cause,
        )


def _of_components(down: Sequence[ComponentHealth], *, is_local: bool) -> Problem:
    names = [NAMES[each.name] for each in down]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    beats = [each.heartbeat_at for each in down if each.heartbeat_at is not None]
    since = min(beats, default=None)
    is_scheduler = any(each.name == "scheduler" for each in down)
    last = "never" if since is None else f"at {since:%H:%M:%S} UTC"
    effect = "no DAG run starts" if is_scheduler else "changed DAG files or deferred tasks wait"
    return problem_of(
        "error" if is_scheduler else "warning",
        "airflow",
        f"Airflow's {listed}",
        f"last heartbeat {last}: {effect}",
        Command("up", "--only", "airflow") if is_local else ShellCommand("airflow", _PROGRAMS[down[0].name]),
        dataset=None,
        datasets=(),
        since=since,
        cause="Airflow's components do not run",
    )
