"""Checks of each coordinate: a row or a dead letter, in its batch's range, below the checkpoint, and only once."""

from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot


def check_rows_outside_batch(snapshot: Snapshot, report: DatasetReport) -> None:
    """Every row and dead letter names a batch of the ledger (`batch`) and lies inside its range (`range`)."""
    report.checks += ["batch", "range"]
    rows_outside_batch = snapshot.rows(
        """
        with landed as (
            select
                'staged row' as what,
                _generation as generation,
                _partition as partition,
                _offset as at,
                _batch_id as batch_id
            from {staging}
            union all
            select 'replaced row', _generation, _partition, _offset, _batch_id from {replaced}
            union all
            select 'replacement', _generation, _partition, _offset, _replaced_by from {replaced}
            union all
            select 'dead letter', generation, partition, "offset", batch_id
            from headrace.dead_letters
            where dataset = %(dataset)s
        )

        select
            landed.*,
            lines.batch_id is null as is_unknown,
            lines.seq,
            lines.generation as line_generation,
            lines.partition as line_partition,
            lines.start_offset,
            lines.end_offset,
            count(*) over (partition by lines.batch_id is null) as total,
            row_number() over (
                partition by lines.batch_id is null order by landed.generation, landed.partition, landed.at
            ) as place
        from landed
        left join headrace.batches as lines on landed.batch_id = lines.batch_id and lines.dataset = %(dataset)s
        where
            lines.batch_id is null
            or (landed.generation, landed.partition) <> (lines.generation, lines.partition)
            or landed.at < lines.start_offset
            or landed.at >= lines.end_offset
        order by place
        limit %(limit)s
        """,
        limit=2 * LISTED_MAX,
    )
    for row in rows_outside_batch:
        check = "batch" if row["is_unknown"] else "range"
        if row["place"] > LISTED_MAX:
            continue
        if row["is_unknown"]:
            expected = "one of the ledger's"
        else:
            expected = (
                f"its batch's place, [{row['start_offset']}, {row['end_offset']}) of partition "
                f"{row['line_partition']}, generation {row['line_generation']} (seq {row['seq']})"
            )
        report.add(
            check,
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=f"a {row['what']} under batch {row['batch_id']}",
            expected=expected,
            remedy=snapshot.subject.restage,
        )
    for check, is_unknown in (("batch", True), ("range", False)):
        of_check = [row for row in rows_outside_batch if row["is_unknown"] is is_unknown]
        report.hide(check, of_check[0]["total"] if of_check else 0, min(len(of_check), LISTED_MAX))


def check_checkpoint(snapshot: Snapshot, report: DatasetReport) -> None:
    """Nothing lies at or beyond a checkpoint: it would be staged a second time."""
    report.checks.append("checkpoint")
    beyond = snapshot.rows(
        """
        select
            c.generation,
            c.partition,
            c.next_offset,
            beyond.what,
            beyond.at,
            count(*) over () as total
        from headrace.checkpoints as c
        cross join lateral (
            select 'staged row' as what, s._offset as at
            from {staging} as s
            where s._generation = c.generation and s._partition = c.partition and s._offset >= c.next_offset
            union all
            select 'dead letter', d."offset"
            from headrace.dead_letters as d
            where
                d.dataset = c.dataset and d.generation = c.generation and d.partition = c.partition
                and d."offset" >= c.next_offset
        ) as beyond
        where c.dataset = %(dataset)s
        order by c.generation, c.partition, beyond.at
        limit %(limit)s
        """,
        limit=LISTED_MAX,
    )
    for row in beyond:
        report.add(
            "checkpoint",
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=f"a {row['what']}",
            expected=f"none at or beyond the checkpoint, {row['next_offset']}",
            remedy=snapshot.subject.restage,
        )
    report.hide("checkpoint", beyond[0]["total"] if beyond else 0, len(beyond))


def check_exactly_one(snapshot: Snapshot, report: DatasetReport) -> None:
    """A coordinate is a staged row or an unreplayed dead letter, never both, and none was lost on the way."""
    report.checks.append("exactly_one")
    wrong = snapshot.rows(
        """
        with letters as (
            select generation, partition, "offset" as at, replayed_by
            from headrace.dead_letters
            where dataset = %(dataset)s
        ),

        staged as not materialized (
            select _generation as generation, _partition as partition, _offset as at, _batch_id as batch_id
            from {staging}
        ),

        replaced as not materialized (
            select
                _generation as generation,
                _partition as partition,
                _offset as at,
                _batch_id as batch_id,
                _replaced_by as replaced_by
            from {replaced}
        ),

        wrong as (
            select
                generation,
                partition,
                at,
                'a staged row and a dead letter that was not replayed' as found,
                'one of the two' as expected
            from letters
            inner join staged using (generation, partition, at)
            where letters.replayed_by is null
            union all
            select
                generation,
                partition,
                at,
                'a dead letter replayed by batch ' || letters.replayed_by || ', and no row',
                'the row that the replay staged'
            from letters
            left join staged using (generation, partition, at)
            where letters.replayed_by is not null and staged.batch_id is null
            union all
            select
                generation,
                partition,
                at,
                'a dead letter replayed by batch ' || letters.replayed_by || ', its row under another',
                'the row under the batch that replayed it, in staging or replaced by a reload'
            from letters
            inner join staged using (generation, partition, at)
            left join replaced using (generation, partition, at)
            where letters.replayed_by is not null and staged.batch_id <> letters.replayed_by
            group by generation, partition, at, letters.replayed_by
            having not coalesce(bool_or(replaced.batch_id = letters.replayed_by), false)
            union all
            select
                generation,
                partition,
                at,
                'a row replaced by batch ' || replaced.replaced_by || ', and nothing in its place',
                'the row or the dead letter that replaced it'
            from replaced
            left join staged using (generation, partition, at)
            left join letters using (generation, partition, at)
            where staged.batch_id is null and (letters.at is null or letters.replayed_by is not null)
            union all
            select
                generation,
                partition,
                at,
                'a row staged by replay ' || lines.batch_id,
                'the dead letter that it was'
            from headrace.batches as lines
            inner join staged using (generation, partition, batch_id)
            left join letters using (generation, partition, at)
            where
                lines.dataset = %(dataset)s
                and lines.kind = 'replay'
                and letters.replayed_by is distinct from lines.batch_id
        )

        select *, count(*) over () as total
        from wrong
        order by generation, partition, at
        limit %(limit)s
        """,
        limit=LISTED_MAX,
    )
    for row in wrong:
        report.add(
            "exactly_one",
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=row["found"],
            expected=row["expected"],
            remedy=snapshot.subject.restage,
        )
    report.hide("exactly_one", wrong[0]["total"] if wrong else 0, len(wrong))
