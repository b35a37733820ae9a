"""One problem per cause: consequences are left out, and what several datasets share is stated once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headrace.command import Command
from headrace.monitor.problem import Problem, ProblemKind

NAMED = 5  # datasets or models that a text names before it counts the others
ARGUMENTS_MAX = 20  # datasets that a command names
_FOR_SEVERAL = frozenset({"drain", "load", "describe", "follow", "resume"})  # commands that take several datasets
_BLOCKING: frozenset[ProblemKind] = frozenset({"declaration", "source", "drain"})
_OF_READING: frozenset[ProblemKind] = frozenset({"lag", "freshness", "unseen", "follower"})
_ORDER: Sequence[ProblemKind] = ("airflow", "declaration", "source", "drain", "import_error")


def without_consequences(found: Sequence[Problem]) -> list[Problem]:
    """The problems of one dataset without those that another one of it explains.

    A source that cannot be read, or a drain that fails, explains lag, age and the missing checks. A failed drain that
    shares its cause with nothing is explained by a source that cannot be read since. Missing checks explain the rest.
    """
    kinds = {each.kind for each in found}
    kept = list(found)
    if kinds & _BLOCKING:
        kept = [each for each in kept if each.kind not in _OF_READING or _waits_for_a_build(each)]
    sources = [each.cause for each in found if each.kind == "source"]
    if sources:
        kept = [each for each in kept if each.kind != "drain" or (each.cause and None not in sources)]
    for explains in ("follower", "unseen"):
        if explains in {each.kind for each in kept}:
            kept = _folded(kept, explains)
    return kept


def _folded(found: Sequence[Problem], kind: str) -> list[Problem]:
    """Without the other problems of reading, whose severity the one of this kind takes over."""
    gone = [each for each in found if each.kind in _OF_READING and each.kind != kind and not _waits_for_a_build(each)]
    is_error = any(each.severity == "error" for each in gone)
    return [
        replace(each, severity="error") if each.kind == kind and is_error else each
        for each in found
        if each not in gone
    ]


def _waits_for_a_build(problem: Problem) -> bool:
    return problem.command.arguments[0] == "build"


def one_per_cause(found: Iterable[Problem], readers: Mapping[str, Sequence[str]]) -> list[Problem]:
    """One problem per cause, the most severe first.

    readers: per dataset the failed models that read it, or stand behind those that do: they explain that its batches
    are in no mart.
    """
    problems = [each for each in found if not _is_explained(each, readers)]
    groups: dict[object, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(_cause(problem), []).append(problem)
    merged = [_merged(group) for group in groups.values()]
    return sorted(merged, key=lambda problem: (problem.severity != "error", _rank(problem.kind)))


def _cause(problem: Problem) -> object:
    """What problems of the same cause share: without a stated one, the text of a source's error."""
    return problem.cause or (problem.kind, problem.text if problem.kind == "source" else problem.about)


def _is_explained(problem: Problem, readers: Mapping[str, Sequence[str]]) -> bool:
    is_of_marts = problem.kind in ("unbuilt", "freshness") and _waits_for_a_build(problem)
    return is_of_marts and problem.dataset is not None and bool(readers.get(problem.dataset))


def _rank(kind: ProblemKind) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _merged(group: Sequence[Problem]) -> Problem:
    group = sorted(group, key=lambda problem: (problem.severity != "error", _rank(problem.kind)))
    first = group[0]
    if len(group) == 1:
        return first
    datasets = _unique(name for each in group for name in each.datasets)
    models = _unique(name for each in group for name in each.models)
    since = min((each.since for each in group if each.since is not None), default=None)
    run = next((each.run for each in group if each.run is not None), None)
    merged = replace(first, since=since, datasets=datasets, models=models, run=run)
    if len({each.about for each in group}) == 1:
        return merged
    affected = " and ".join(filter(None, (named(datasets, "dataset"), named(models, "model"))))
    return replace(
        merged,
        about=first.cause or f"{len(datasets) or len(models)} {'datasets' if datasets else 'models'}",
        text=f"{affected}: {first.text}",
        dataset=None,
        command=_common_command([each.command for each in group], first.command),
    )


def _common_command(commands: Sequence[Command], first: Command) -> Command:
    """The command that remedies all of them; the first one's if there is none."""
    verbs = {command.arguments[0] for command in commands}
    if len(verbs) > 1 or first.arguments[0] not in _FOR_SEVERAL:
        return first
    names = _unique(name for command in commands for name in command.arguments[1:])
    if len(names) > ARGUMENTS_MAX:
        return Command("follow") if first.arguments[0] == "drain" else first
    return Command(first.arguments[0], *names)


def named(names: Sequence[str], noun: str) -> str:
    """`4 datasets (events, jobs, rides, telemetry)`; of many the first, and how many more; empty for none."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {noun}{'' if len(names) == 1 else 's'} ({', '.join(names[:NAMED])}{more})"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
