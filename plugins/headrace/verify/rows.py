"""Checks of staged rows and dead letters against the ledger: set-based, a few passes over the tables."""

from typing import Any

from headrace.verify.report import LISTED_MAX, Report
from headrace.verify.snapshot import Snapshot


def check_tables(snapshot: Snapshot, report: Report) -> bool:
    """Whether the dataset's staging tables exist; without them nothing may have been staged."""
    if snapshot.has_tables:
        return True
    lines = snapshot.row("select count(*) as lines from headrace.batches where dataset = %(dataset)s")["lines"]
    name = snapshot.subject.name
    if lines:
        report.checks.append("counts")
        report.add(
            "counts",
            found=f"no table staging.{name} or staging.{name}_replaced",
            expected=f"the rows of {lines} batches",
            remedy="restore a backup; `headrace init` makes the tables anew, empty",
        )
    return False


def check_counts(snapshot: Snapshot, report: Report) -> None:
    """Each line's staged, tombstones and dead are the rows and dead letters that name it, inside its range.

    Rows that a reload replaced count for the batch that staged them, dead letters for the one that wrote them.
    """
    report.checks.append("counts")
    wrong = snapshot.rows(
        """
        with lines as (
            select * from headrace.batches where dataset = %(dataset)s
        ),

        landed as (
            select _batch_id, _generation, _partition, _offset, _deleted from {staging}
            union all
            select _batch_id, _generation, _partition, _offset, _deleted from {replaced}
        ),

        landed_counts as (
            select
                lines.batch_id,
                count(*) filter (where not landed._deleted) as staged,
                count(*) filter (where landed._deleted) as tombstones
            from landed
            inner join lines
                on landed._batch_id = lines.batch_id
                and landed._generation = lines.generation
                and landed._partition = lines.partition
                and landed._offset >= lines.start_offset
                and landed._offset < lines.end_offset
            group by lines.batch_id
        ),

        dead_counts as (
            select lines.batch_id, count(*) as dead
            from headrace.dead_letters as letters
            inner join lines
                on letters.batch_id = lines.batch_id
                and letters.generation = lines.generation
                and letters.partition = lines.partition
                and letters."offset" >= lines.start_offset
                and letters."offset" < lines.end_offset
            where letters.dataset = %(dataset)s
            group by lines.batch_id
        )

        select
            lines.*,
            coalesce(landed_counts.staged, 0) as found_staged,
            coalesce(landed_counts.tombstones, 0) as found_tombstones,
            coalesce(dead_counts.dead, 0) as found_dead,
            count(*) over () as total
        from lines
        left join landed_counts using (batch_id)
        left join dead_counts using (batch_id)
        where
            (lines.staged, lines.tombstones, lines.dead)
            <> (coalesce(landed_counts.staged, 0), coalesce(landed_counts.tombstones, 0), coalesce(dead_counts.dead, 0))
        order by lines.generation, lines.partition, lines.start_offset, lines.seq
        limit %(limit)s
        """,
        limit=LISTED_MAX,
    )
    for line in wrong:
        missing, first = _uncovered(snapshot, line)
        hint = ""
        if missing:
            which = "the first is" if line["empty"] == 0 else "the first to hold neither row nor dead letter is"
            hint = f"; {missing} missing, {which} {first}"
        report.add(
            "counts",
            generation=line["generation"],
            partition=line["partition"],
            offset=first if missing else None,
            found=(
                f"{line['found_staged']} staged, {line['found_tombstones']} tombstones and {line['found_dead']} dead "
                f"in [{line['start_offset']}, {line['end_offset']}), batch {line['batch_id']}{hint}"
            ),
            expected=f"{line['staged']}, {line['tombstones']} and {line['dead']} as its line says (seq {line['seq']})",
            remedy=f"`headrace verify {snapshot.subject.name} --deep` names the records; {snapshot.subject.restage}",
        )
    report.hide("counts", wrong[0]["total"] if wrong else 0, len(wrong))
    _count(snapshot, report)


def _uncovered(snapshot: Snapshot, line: dict[str, Any]) -> tuple[int, int]:
    """How many offsets of a drain's range hold nothing beyond the empty ones, and the first that holds nothing."""
    if line["kind"] not in ("drain", "load"):
        return 0, 0
    found = snapshot.row(
        """
        with present as (
            select _offset as held from {staging}
            where
                _generation = %(generation)s and _partition = %(partition)s
                and _offset >= %(start_offset)s and _offset < %(end_offset)s
            union
            select _offset from {replaced}
            where
                _generation = %(generation)s and _partition = %(partition)s
                and _offset >= %(start_offset)s and _offset < %(end_offset)s and _batch_id = %(batch_id)s
            union
            select "offset" from headrace.dead_letters
            where
                dataset = %(dataset)s and generation = %(generation)s and partition = %(partition)s
                and "offset" >= %(start_offset)s and "offset" < %(end_offset)s
            union
            select %(start_offset)s - 1
        ),

        gaps as (
            select held + 1 as gap_start, lead(held, 1, %(end_offset)s) over (order by held) as gap_end from present
        )

        select coalesce(sum(gap_end - gap_start), 0) as free, min(gap_start) filter (where gap_end > gap_start) as first_free
        from gaps
        """,
        **{name: line[name] for name in ("generation", "partition", "start_offset", "end_offset", "batch_id")},
    )
    return max(int(found["free"]) - line["empty"], 0), found["first_free"] or line["start_offset"]


def _count(snapshot: Snapshot, report: Report) -> None:
    counted = snapshot.row(
        """
        select
            count(*) as batches,
            coalesce(sum(staged), 0)::bigint as rows,
            coalesce(sum(dead), 0)::bigint as dead,
            coalesce(sum(tombstones), 0)::bigint as tombstones,
            coalesce(sum(empty), 0)::bigint as empty
        from headrace.batches
        where dataset = %(dataset)s
        """
    )
    report.counts |= {
        "batches": counted["batches"],
        "staged rows": counted["rows"],
        "tombstones": counted["tombstones"],
        "dead letters": counted["dead"],
        "empty offsets": counted["empty"],
    }
    partitions = snapshot.rows(
        """
        select c.partition, c.next_offset, coalesce(min(b.start_offset), c.next_offset) as start_offset, c.generation
        from headrace.checkpoints as c
        inner join headrace.generations as g on c.dataset = g.dataset and c.generation = g.generation and g.is_open
        left join headrace.batches as b
            on c.dataset = b.dataset and c.generation = b.generation and c.partition = b.partition
            and b.kind in ('drain', 'load')
        where c.dataset = %(dataset)s
        group by c.partition, c.next_offset, c.generation
        order by c.generation, c.partition
        """
    )
    report.ranges += [f"[{row['partition']}] [{row['start_offset']}, {row['next_offset']})" for row in partitions]


def check_strays(snapshot: Snapshot, report: Report) -> None:
    """Every row and dead letter names a batch of the ledger (`batch`) and lies inside its range (`range`)."""
    report.checks += ["batch", "range"]
    strays = snapshot.rows(
        """
        with landed as (
            select 'staged row' as what, _generation as generation, _partition as partition, _offset as at, _batch_id as batch_id
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
    for row in strays:
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
        of_check = [row for row in strays if row["is_unknown"] is is_unknown]
        report.hide(check, of_check[0]["total"] if of_check else 0, min(len(of_check), LISTED_MAX))


def check_checkpoint(snapshot: Snapshot, report: Report) -> None:
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


def check_exactly_one(snapshot: Snapshot, report: Report) -> None:
    """A coordinate is a staged row or an unreplayed dead letter, never both, and none was lost on the way."""
    report.checks.append("exactly_one")
    wrong = snapshot.rows(
        """
        with letters as (
            select generation, partition, "offset" as at, replayed_by from headrace.dead_letters where dataset = %(dataset)s
        ),

        wrong as (
            select
                letters.generation,
                letters.partition,
                letters.at,
                'a staged row and a dead letter that was not replayed' as found,
                'one of the two' as expected
            from letters
            inner join {staging} as s on (letters.generation, letters.partition, letters.at) = (s._generation, s._partition, s._offset)
            where letters.replayed_by is null
            union all
            select
                letters.generation,
                letters.partition,
                letters.at,
                'a dead letter replayed by batch ' || letters.replayed_by || ', and no row',
                'the row that the replay staged'
            from letters
            where
                letters.replayed_by is not null
                and not exists (
                    select from {staging} as s
                    where (s._generation, s._partition, s._offset) = (letters.generation, letters.partition, letters.at)
                )
            union all
            select
                letters.generation,
                letters.partition,
                letters.at,
                'a dead letter replayed by batch ' || letters.replayed_by || ', its row under another',
                'the row under the batch that replayed it, in staging or replaced by a reload'
            from letters
            inner join {staging} as s on (letters.generation, letters.partition, letters.at) = (s._generation, s._partition, s._offset)
            where
                letters.replayed_by is not null
                and s._batch_id <> letters.replayed_by
                and not exists (
                    select from {replaced} as r
                    where
                        r._batch_id = letters.replayed_by
                        and (r._generation, r._partition, r._offset) = (letters.generation, letters.partition, letters.at)
                )
            union all
            select
                r._generation,
                r._partition,
                r._offset,
                'a row replaced by batch ' || r._replaced_by || ', and nothing in its place',
                'the row or the dead letter that replaced it'
            from {replaced} as r
            where
                not exists (
                    select from {staging} as s
                    where (s._generation, s._partition, s._offset) = (r._generation, r._partition, r._offset)
                )
                and not exists (
                    select from letters
                    where
                        letters.replayed_by is null
                        and (letters.generation, letters.partition, letters.at) = (r._generation, r._partition, r._offset)
                )
            union all
            select
                s._generation,
                s._partition,
                s._offset,
                'a row staged by replay ' || b.batch_id,
                'the dead letter that it was'
            from headrace.batches as b
            inner join {staging} as s on b.batch_id = s._batch_id
            where
                b.dataset = %(dataset)s
                and b.kind = 'replay'
                and not exists (
                    select from letters
                    where
                        letters.replayed_by = b.batch_id
                        and (letters.generation, letters.partition, letters.at) = (s._generation, s._partition, s._offset)
                )
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
