"""What dbt has built and what it has not: headrace.claims against the ledger, and headrace.builds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from headrace.postgres.ledger import RunContext

SCHEMA = "marts"  # of the target `prod` in dbt/profiles.yml
MESSAGE_LENGTH_MAX = 10_000  # kept of a model's message, and of each failed test's: some quote whole statements


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What one pass did with one model or function; `test` is a test of no model, `project` dbt itself.

    behind: of one that was skipped, the models whose failure is why.
    """

    schema: str
    model: str
    kind: str
    status: str
    rows: int | None
    seconds: float
    failed_tests: tuple[str, ...]
    message: str | None
    started_at: datetime
    finished_at: datetime
    behind: tuple[str, ...] = ()

    def document(self, number: int) -> dict[str, Any]:
        """The result as JSON types; number: of the pass, from 1."""
        return {
            "pass": number,
            "schema": self.schema,
            "model": self.model,
            "kind": self.kind,
            "status": self.status,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "failed_tests": list(self.failed_tests),
            "message": self.message,
        }


def is_up_to_date(connection: Connection[Any], project: str, tests: bool) -> bool:
    """Whether the last whole build succeeded with this project, all it made is there, and nothing is unclaimed.

    Nor may anything have failed since in a build of a part. tests: whether it must have run the data tests.
    """
    (last_is_whole,) = connection.execute(
        """
        select coalesce(bool_and(
            project = %(project)s and status = 'success' and tested >= %(tests)s
            and case kind
                when 'model' then to_regclass(format('%%I.%%I', schema, model)) is not null and (
                    not has_claim or exists (
                        select from headrace.claims as c where (c.schema, c.identifier) = (b.schema, b.model)
                    )
                )
                when 'function' then exists (
                    select from pg_proc as p where p.proname = b.model and p.pronamespace = to_regnamespace(b.schema)
                )
                else true
            end
        ), false)
        from headrace.builds as b
        where build_id = (
            select build_id from headrace.builds where selection is null order by finished_at desc limit 1
        )
        """,
        {"project": project, "tests": tests},
    ).fetchone() or (False,)
    return (
        bool(last_is_whole)
        and not _has_failed_since(connection, tests)
        and not _has_unseen_changes(connection)
        and not unclaimed(connection, newest_batches(connection), None)
    )


def _has_failed_since(connection: Connection[Any], tests: bool) -> bool:
    """Whether something failed in a build of a part, after the last whole one, and did not succeed since."""
    row = connection.execute(
        """
        select exists (
            select from headrace.builds as b
            where
                b.finished_at > (select max(w.finished_at) from headrace.builds as w where w.selection is null)
                and b.status in ('error', 'failed tests')
                and (b.status = 'error' or %(tests)s)
                and not exists (
                    select from headrace.builds as later
                    where
                        later.finished_at > b.finished_at
                        and case
                            when b.kind = 'project' then later.kind <> 'project'
                            else
                                (later.schema, later.model) = (b.schema, b.model)
                                and later.status = 'success'
                                and later.tested >= (b.status = 'failed tests')
                        end
                )
        )
        """,
        {"tests": tests},
    ).fetchone()
    return row == (True,)


def _has_unseen_changes(connection: Connection[Any]) -> bool:
    """Whether an upstream of a maintained model changed since, or is one of which only its contents can tell."""
    row = connection.execute(
        """
        select exists (
            select from headrace.model_upstreams as u
            left join headrace.model_states as s on u.upstream = s.schema || '.' || s.identifier
            where
                u.schema = %s
                and u.kind <> 'dataset'
                and (u.kind = 'content' or (s.table_oid::text, s.build::text) is distinct from (u.identity, u.position))
        )
        """,
        (SCHEMA,),
    ).fetchone()
    return row == (True,)


def stateless_models(connection: Connection[Any]) -> set[str]:
    """The models that have claims, and no state as maintained models: an earlier version built their tables."""
    rows = connection.execute(
        """
        select identifier from headrace.claims where schema = %s
        except
        select identifier from headrace.model_states where schema = %s
        """,
        (SCHEMA, SCHEMA),
    )
    return {identifier for (identifier,) in rows}


def newest_batches(connection: Connection[Any]) -> dict[str, int]:
    """The seq of each dataset's newest batch; 0 before the first."""
    return dict(connection.execute("select dataset, last_seq from headrace.datasets").fetchall())


def claims(connection: Connection[Any], newest: Mapping[str, int]) -> set[tuple[Any, ...]]:
    """The claims as far as the batches that this build is about go: newer ones do not keep it going."""
    rows = connection.execute(
        "select identifier, dataset, to_seq, built, seen::text from headrace.claims where schema = %s", (SCHEMA,)
    )
    return {(model, dataset, min(to_seq, newest.get(dataset, 0)), *rest) for model, dataset, to_seq, *rest in rows}


def unclaimed(connection: Connection[Any], newest: Mapping[str, int], models: set[str] | None) -> set[str]:
    """The models (of those given; None: of all) that have batches to build or must start from zero."""
    return {model for model, _ in _unclaimed(connection, newest) if models is None or model in models}


def unclaimed_datasets(connection: Connection[Any]) -> set[str]:
    """The datasets of which some model has batches to build."""
    return {dataset for _, dataset in _unclaimed(connection, newest_batches(connection))}


def _unclaimed(connection: Connection[Any], newest: Mapping[str, int]) -> set[tuple[str, str]]:
    rows = connection.execute(
        """
        select
            c.identifier,
            c.dataset,
            c.to_seq,
            exists (
                select from jsonb_each_text(c.seen) as s (upstream, built)
                where s.built is distinct from case s.upstream
                    when 'headrace.datasets' then (
                        select d.built::text from headrace.datasets as d where d.dataset = c.dataset
                    )
                    else (
                        select u.built::text from headrace.claims as u
                        where u.schema || '.' || u.identifier = s.upstream and u.dataset = c.dataset
                    )
                end
            ) or c.to_seq > coalesce((select d.last_seq from headrace.datasets as d where d.dataset = c.dataset), 0)
        from headrace.claims as c
        where c.schema = %s
        """,
        (SCHEMA,),
    )
    return {
        (model, dataset) for model, dataset, to_seq, is_stale in rows if is_stale or to_seq < newest.get(dataset, 0)
    }


def record(
    connection: Connection[Any],
    build_id: UUID,
    pass_number: int,
    nodes: Sequence[NodeResult],
    selection: str | None,
    project: str,
    tests: bool,
    run: RunContext,
) -> None:
    """Write a pass's lines into headrace.builds, all or none. run: the task that builds."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into headrace.builds (
                build_id, pass, schema, model, kind, status, rows, seconds, failed_tests, message, has_claim,
                selection, project, tested, started_at, finished_at, behind, dag_id, run_id, task_id, try_number,
                map_index
            )
            values (
                %(build_id)s, %(pass)s, %(schema)s, %(model)s, %(kind)s, %(status)s, %(rows)s, %(seconds)s,
                %(failed_tests)s, %(message)s,
                exists (
                    select from headrace.claims as c where (c.schema, c.identifier) = (%(schema)s, %(model)s)
                ),
                %(selection)s, %(project)s, %(tested)s, %(started_at)s, %(finished_at)s, %(behind)s,
                %(dag_id)s, %(run_id)s, %(task_id)s, %(try_number)s, %(map_index)s
            )
            """,
            [
                {
                    "build_id": build_id,
                    "pass": pass_number,
                    "schema": node.schema,
                    "model": node.model,
                    "kind": node.kind,
                    "status": node.status,
                    "rows": node.rows,
                    "seconds": node.seconds,
                    "failed_tests": [_storable(test) for test in node.failed_tests],
                    "message": None if node.message is None else _storable(node.message),
                    "selection": selection,
                    "project": project,
                    "tested": tests,
                    "started_at": node.started_at,
                    "finished_at": node.finished_at,
                    "behind": list(node.behind),
                    **asdict(run),
                }
                for node in nodes
            ],
        )


def _storable(text: str) -> str:
    """Text that a column of Postgres holds, cut where it is endless."""
    left = len(text) - MESSAGE_LENGTH_MAX
    cut = f" ... ({left} more characters)" if left > 0 else ""
    return text[:MESSAGE_LENGTH_MAX].replace("\0", "\\0") + cut
