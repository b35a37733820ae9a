"""Checks of marts: claims against the ledger, marts against staging."""

from collections.abc import Sequence
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from headrace.command import Command
from headrace.postgres.connection import Connect, database
from headrace.verify.mart import foreign_code, kind_of
from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot, exists, may_read, query

PRODUCTION_SCHEMA = "marts"
DBT_LOGIN = "set HEADRACE_DBT_DSN (in Airflow: the connection headrace_dbt) to a login in headrace_dbt"


def check_claims(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that no model has built a batch that the ledger, or its upstream model, does not have.

    A claim whose upstreams were rebuilt since (a reset, a full refresh) does not count: its model starts from zero at
    its next build, and a note says that. Batches that are not yet built are counted.
    """
    report.checks.append("claims")
    claims = [
        claim for claim in _claims(snapshot) if claim["schema"] == PRODUCTION_SCHEMA
    ]  # not those of a developer's schema
    for claim in claims:
        model, to_seq = claim["model"], claim["to_seq"]
        if claim["is_stale"]:
            report.notes.append(f"{model} starts from zero at its next build: its upstreams were rebuilt")
        elif to_seq > claim["limit_seq"]:
            report.add(
                "claims",
                found=f"a claim of {model} up to seq {to_seq}",
                expected=f"at most {claim['limit_seq']}, the newest that {claim['limited_by']} has",
                remedy=f"`{_rebuild(claim['identifier'])}`",
            )
    unclaimed = snapshot.row(
        """
        select count(*) as batches from headrace.batches
        where dataset = %(dataset)s and seq > coalesce(%(claimed)s, 0)
        """,
        claimed=min((claim["to_seq"] for claim in claims), default=None),
    )
    report.counts["batches not yet built"] = unclaimed["batches"]


def _claims(snapshot: Snapshot) -> list[dict[str, Any]]:
    return snapshot.rows(query("claims"))


def check_mart(snapshot: Snapshot, report: DatasetReport) -> None:
    """If marts.<dataset> has built every batch, check that its keys are those of current, undeleted versions."""
    subject = snapshot.subject
    keys = subject.declared.key_columns if subject.declared else ()
    claim = next((c for c in _claims(snapshot) if c["model"] == f"{PRODUCTION_SCHEMA}.{subject.name}"), None)
    newest = snapshot.row("select max(seq) as seq from headrace.batches where dataset = %(dataset)s")["seq"]
    if not keys or claim is None or claim["is_stale"] or claim["to_seq"] != newest or not snapshot.has_tables:
        return
    if _is_comparable(snapshot, report, keys):
        _compare_keys(snapshot, report, f"{PRODUCTION_SCHEMA}.{subject.name}", keys)


def _is_comparable(snapshot: Snapshot, report: DatasetReport, keys: Sequence[str]) -> bool:
    """Whether the mart is a table with the key that this role may read; if not, report what it is."""
    subject = snapshot.subject
    mart = f"{PRODUCTION_SCHEMA}.{subject.name}"
    if exists(snapshot.connection, PRODUCTION_SCHEMA, subject.name) and not may_read(
        snapshot.connection, PRODUCTION_SCHEMA, subject.name
    ):
        report.notes.append(f"{mart} may not be read by this role: not compared; {DBT_LOGIN}")
        return False
    found = snapshot.rows(
        "select attname from pg_attribute "
        "where attrelid = to_regclass(%(mart)s) and attname = any(%(keys)s) and not attisdropped",
        mart=mart,
        keys=list(keys),
    )
    report.checks.append("marts")
    if (kind := kind_of(snapshot.connection, PRODUCTION_SCHEMA, subject.name)) is not None:
        report.add(
            "marts",
            found=f"{kind} in the place of {mart}",
            expected=f"the table {mart} as dbt builds it",
            remedy=f"`headrace build --full-refresh --select {subject.name}+`",
        )
        return False
    if len(found) < len(keys):
        report.add(
            "marts",
            found=f"no table {mart} with a column {', '.join(keys)}, and a claim that it is built",
            expected=f"{mart} as dbt builds it",
            remedy=f"`{_rebuild(subject.name)}`",
        )
        return False
    codes = (foreign_code(snapshot.connection, PRODUCTION_SCHEMA, subject.name, key) for key in keys)
    if (code := next(filter(None, codes), None)) is not None:
        report.checks.remove("marts")
        report.notes.append(f"{mart} has {code}, who may do less than this user: not compared; {DBT_LOGIN}")
        return False
    return True


def _compare_keys(snapshot: Snapshot, report: DatasetReport, mart: str, keys: Sequence[str]) -> None:
    """Check that the mart's keys are those of staging's current versions without a tombstone."""
    subject = snapshot.subject
    names = [Identifier(key) for key in keys]
    texts = [SQL("coalesce(winners.{0}, m.{0})::text").format(name) for name in names]
    has_positions = subject.declared is not None and subject.declared.compiled.has_positions
    versions = SQL(query("versions_by_position")).format(keys=SQL(", ").join(names), staging=subject.staging)
    compared = SQL(query("mart_keys")).format(
        keys=SQL(", ").join(names),
        first_key=names[0],
        key_text=texts[0] if len(texts) == 1 else SQL("concat_ws(', ', {})").format(SQL(", ").join(texts)),
        same_key=SQL(" and ").join(SQL("winners.{0} = m.{0}").format(name) for name in names),
        mart=Identifier(PRODUCTION_SCHEMA, subject.name),
        staging=versions if has_positions else subject.staging,
        newest=SQL("_newest" if has_positions else "null::bigint[]"),
    )
    with snapshot.connection.cursor(row_factory=dict_row) as cursor:
        totals = cursor.execute(
            compared
            + SQL(
                " select count(*) filter (where is_found) as found, count(*) filter (where is_expected) as expected,"
                " count(*) filter (where is_found <> is_expected) as wrong from compared"
            )
        ).fetchone()
        assert totals is not None
        report.counts[f"keys of {mart} equal to staging's"] = totals["expected"]
        if not totals["wrong"]:
            return
        wrong = cursor.execute(
            compared
            + SQL(
                " select * from compared where is_found <> is_expected order by generation, partition, at, key limit %s"
            ),
            (LISTED_MAX,),
        ).fetchall()
    for row in wrong:
        what = "a row" if row["is_found"] else "no row"
        report.add(
            "marts",
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=f"{what} of {', '.join(keys)} {row['key']:.80} in {mart}, which has {totals['found']}",
            expected=f"{'one' if row['is_expected'] else 'none'}: {totals['expected']} keys are current in staging",
            remedy=f"`{_rebuild(subject.name)}`",
        )
    report.hide("marts", totals["wrong"], len(wrong))
    del report.counts[f"keys of {mart} equal to staging's"]


def orphaned_claims(connect: Connect) -> list[DatasetReport]:
    """A report for every dataset that has claims and is not in headrace.datasets."""
    with database(connect) as connection:
        found = connection.execute(
            "select dataset, string_agg(schema || '.' || identifier, ', ' order by schema, identifier) "
            "from headrace.claims where schema = %s and dataset not in (select dataset from headrace.datasets) "
            "group by dataset",
            (PRODUCTION_SCHEMA,),
        ).fetchall()
    reports = []
    for dataset, models in found:
        report = DatasetReport(dataset, checks=["claims"])
        report.add(
            "claims",
            found=f"claims of {models}",
            expected="claims of datasets that headrace.datasets knows",
            remedy="remove the models' claim of it, then `headrace build --full-refresh`",
        )
        reports.append(report)
    return reports


def _rebuild(model: str) -> Command:
    return Command("build", "--full-refresh", "--select", f"{model}+")
