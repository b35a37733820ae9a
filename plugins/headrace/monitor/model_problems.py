"""Problems of models: one for a failed model with those behind it, or for what several failed models share."""

from collections.abc import Iterator, Mapping, Sequence

from headrace.command import Command
from headrace.monitor.figures import ModelStatus
from headrace.monitor.problem import Problem, problem_of
from headrace.postgres.connection import DISK_FULL, NO_ANSWER, NO_CONNECTION, NO_PERMISSION, READ_ONLY

# dbt tells no SQLSTATE: the beginnings and ends of Postgres's messages, and the cause, as drains name it
_CAUSES: Mapping[str, str] = {
    "No space left on device": DISK_FULL,
    "in a read-only transaction": READ_ONLY,
    "permission denied for": NO_PERMISSION,
    "too many clients already": NO_CONNECTION,
    "Connection refused": NO_ANSWER,
    "server closed the connection unexpectedly": NO_ANSWER,
    "terminating connection due to": NO_ANSWER,
    "expected a server that answers": NO_ANSWER,
}


def of_models(models: Sequence[ModelStatus]) -> Iterator[Problem]:
    """The problems of failed models and tests."""
    behind = _behind(models)
    for model in models:
        if (found := _of_model(model, behind.get(model.model, ()))) is not None:
            yield found


def failed_readers(models: Sequence[ModelStatus]) -> Mapping[str, Sequence[str]]:
    """Per dataset the models that read it and failed, or were skipped behind a failed one."""
    readers: dict[str, list[str]] = {}
    for model in models:
        if model.status in ("error", "skipped") or model.failed_tests:
            for dataset in model.reads:
                readers.setdefault(dataset, []).append(model.model)
    return readers


def _behind(models: Sequence[ModelStatus]) -> Mapping[str, Sequence[str]]:
    """Per failed model those that were skipped because of it."""
    behind: dict[str, list[str]] = {}
    for model in models:
        for failed in model.behind if model.status == "skipped" else ():
            behind.setdefault(failed, []).append(f"marts.{model.model}")
    return behind


def _of_model(model: ModelStatus, behind: Sequence[str]) -> Problem | None:
    about = model.model if model.kind == "project" else f"marts.{model.model}"
    selection = f"{model.model}+" if behind else model.model
    again = Command("build") if model.kind in ("project", "test") else Command("build", "--select", selection)
    after = f"; {len(behind)} behind it not built: {', '.join(behind)}" if behind else ""
    if model.status == "error":
        message = model.message or "no message"
        text = f"failed at {model.finished_at:%H:%M:%S} UTC: {message}{after}"
        cause = next((cause for words, cause in _CAUSES.items() if words in message), None)
    elif model.failed_tests:
        tests = "; ".join(model.failed_tests)
        text, cause = f"failed {tests}{after}", f"failed {tests}"  # a test may read several models
    else:
        return None
    affected = behind if model.kind == "project" else (about, *behind)
    return problem_of(
        "error",
        "model" if model.status == "error" else "tests",
        about,
        text,
        again,
        dataset=None,
        datasets=(),
        models=affected,
        since=model.failing_since or model.finished_at,
        run=model.run,
        cause=cause,
    )
