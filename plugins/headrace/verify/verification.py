"""The verification of datasets: all checks, ordered so that the first finding explains the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.callbacks import ProgressCallback
from headrace.catalog import InvalidDeclaration, load_declarations
from headrace.dataset_files import similar
from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError, DatasetError, HeadraceError
from headrace.postgres.checkpoints import origin_texts
from headrace.postgres.connection import Connect, connector, database
from headrace.settings import Settings
from headrace.verify.canonical import CanonicalRow
from headrace.verify.claims import PRODUCTION_SCHEMA, check_claims, check_mart, orphaned_claims
from headrace.verify.coordinates import check_checkpoint, check_exactly_one, check_rows_outside_batch
from headrace.verify.elements import check_elements
from headrace.verify.ledger import check_arithmetic, check_chain, check_generations, check_seq
from headrace.verify.readers import RecordReader
from headrace.verify.records import RecordCheck, RecordCounts
from headrace.verify.report import DatasetReport, Verification
from headrace.verify.rereading import plan_records
from headrace.verify.rows import check_counts, check_tables, missing_columns
from headrace.verify.snapshot import Subject, snapshot
from headrace.verify.sources import check_source

ReaderFactory = Callable[[Subject], RecordReader]


def verify(
    deployment: Deployment,
    names: str | Sequence[str] | None = None,
    *,
    deep: bool = False,
    reader: ReaderFactory | None = None,
    on_progress: ProgressCallback = lambda _done, _total: None,
    build_settings: Settings | None = None,
) -> Verification:
    """Compare ledger, rows, dead letters and claims of one, several or all datasets; change nothing.

    deep: re-read the source and compare every record with what is stored. reader: another client to re-read with.
    build_settings: with the DSN that dbt uses, where it is not that of the deployment's settings; marts are read by it.
    Raises DatasetError for a dataset that is neither declared nor in the database.
    """
    subjects, faults = _subjects(deployment, [names] if isinstance(names, str) else names)
    connect_marts = connector((build_settings or deployment.settings).require_dbt_dsn(), "headrace verify")
    run = _Run(deployment=deployment, connect_marts=connect_marts, deep=deep, reader=reader, on_progress=on_progress)
    reports = [_isolated(run, subject) for subject in subjects]
    for report in reports:
        if (fault := faults.get(report.dataset)) is not None:
            report.error = str(fault.error)  # without the declaration only what is in the database was compared
    if not names:
        reports += orphaned_claims(deployment.connect("headrace verify"))
    return Verification(reports, deep)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What a verification is done with."""

    deployment: Deployment
    connect_marts: Connect
    deep: bool
    reader: ReaderFactory | None
    on_progress: ProgressCallback


def _subjects(
    deployment: Deployment, names: Sequence[str] | None
) -> tuple[list[Subject], Mapping[str, InvalidDeclaration]]:
    """The datasets to verify, all if none is named, and the declarations that cannot be used."""
    declared = load_declarations(deployment.settings.datasets_dir)
    with database(deployment.connect("headrace verify")) as connection:
        found = connection.execute("select dataset from headrace.datasets").fetchall()
    known = {row[0] for row in found} | set(declared.names)
    for name in names or ():
        if name not in known:
            raise DatasetError(
                f"dataset {name!r}: neither declared in {deployment.settings.datasets_dir} nor in the database"
                f"{similar(name, known)}; expected one of {', '.join(sorted(known)) or 'none'}"
            )
    datasets = {each: dataset.connected(deployment.settings) for each, dataset in declared.datasets.items()}
    return [Subject(each, datasets.get(each)) for each in names or sorted(known)], declared.faults


def _isolated(run: _Run, subject: Subject) -> DatasetReport:
    """The report of one dataset; what Postgres refuses at its tables leaves the other datasets to be verified."""
    try:
        return _verify_one(run, subject)
    except DatabaseError as error:
        return DatasetReport(subject.name, error=str(error))


def _verify_one(run: _Run, subject: Subject) -> DatasetReport:
    report = DatasetReport(subject.name)
    connect = run.deployment.connect(f"headrace verify {subject.name}")
    lock_timeout_ms = run.deployment.settings.lock_timeout_ms
    with snapshot(connect, subject, lock_timeout_ms) as view:
        report.topics = origin_texts(view.connection, subject.name)
        check_generations(view, report)
        check_seq(view, report)
        check_chain(view, report)
        check_arithmetic(view, report)
        has_tables = check_tables(view, report)
        if has_tables:
            check_counts(view, report)
            check_rows_outside_batch(view, report)
            check_checkpoint(view, report)
            check_exactly_one(view, report)
            check_elements(view, report)
        check_claims(view, report)
        check_source(run.deployment, view, report, deep=run.deep)
    # in a moment of its own: a full refresh waits for it, and must not wait for a deep check
    with snapshot(run.connect_marts, subject, lock_timeout_ms, mart=(PRODUCTION_SCHEMA, subject.name)) as view:
        check_mart(view, report)
    if run.deep and has_tables and subject.declared is not None and report.error is None:
        _verify_records(run, subject, report)
    return report


def _verify_records(run: _Run, subject: Subject, report: DatasetReport) -> None:
    assert subject.declared is not None
    connect = run.deployment.connect(f"headrace verify {subject.name}")
    silent = DatasetReport(subject.name)  # the source was checked before; here its offsets are what counts
    with snapshot(connect, subject, run.deployment.settings.lock_timeout_ms) as view:
        state = check_source(run.deployment, view, silent, deep=True)
        if state is None:
            report.error = report.error or silent.error
            return
        plan = plan_records(run.deployment, view, report, state)
        if plan is None:
            return
        canonical = CanonicalRow(subject.declared.second())
        missing = missing_columns(view, canonical.names)
        if missing:
            report.error = f"staging.{subject.name} has no column {', '.join(missing)}; `headrace init` adds it"
            return
        report.checks += ["records", "hashes", "empty"]
        check = RecordCheck(view, canonical, report, plan.is_compacted)
        client = run.reader(subject) if run.reader else plan.reader
        total, done = sum(part.end - part.start for part in plan.ranges), 0
        try:
            subject.declared.require_masking_key()
            for part in plan.ranges:
                for reached in check.compare(part, client):
                    run.on_progress(done + reached, total)
                done += part.end - part.start
        except HeadraceError as error:
            report.error = str(error)
        finally:
            client.close()
    _add_notes(check.counts, report, plan.taken_by)


def _add_notes(counts: RecordCounts, report: DatasetReport, taken_by: str) -> None:
    report.counts["records re-read"] = counts.records
    report.counts["hashes equal"] = counts.equal
    if counts.compacted:
        report.notes.append(f"{counts.compacted} rows whose records {taken_by} removed since: not compared")
    if counts.older_contract:
        offsets = ", ".join(counts.examples["older"])
        report.notes.append(
            f"{counts.older_contract} rows were staged before the contract named a field: its column is null, and what "
            f"the record held of it is in _extra: {offsets}"
        )
    if counts.masked_otherwise:
        report.notes.append(
            f"{counts.masked_otherwise} dead letters do not mask what the contract of today masks; a reload of their "
            "range does"
        )
    if counts.rejected_today:
        offsets = ", ".join(counts.examples["rejected"])
        report.notes.append(f"{counts.rejected_today} staged records break the contract of today: {offsets}")
