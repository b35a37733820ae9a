"""`headrace verify` names every defect of ledger, rows and dead letters."""

import pytest

from tests.support.drained_topic import DEAD, END, ONE_ROW, TOMBSTONE, Drained

BATCH_AT = "(select batch_id from headrace.batches where dataset = 'jobs' and partition = %d and start_offset = %d)"
# offset 11 is an aborted record's: its batch counts it as empty
TWIN = (
    f"create temp table twin as select * from staging.jobs where {ONE_ROW % 9}; "
    "update twin set _offset = 11; insert into staging.jobs select * from twin"
)

# name -> statement, check, first wrong offset
SHALLOW = {
    "a staged row is gone": (f"delete from staging.jobs where {ONE_ROW % 3}", "counts", 3),
    "a tombstone is gone": (f"delete from staging.jobs where {ONE_ROW % TOMBSTONE}", "counts", 10),
    "a dead letter is gone": ("delete from headrace.dead_letters", "counts", 10),
    "a tombstone became a row": (
        f"update staging.jobs set _deleted = false where {ONE_ROW % TOMBSTONE}",
        "counts",
        None,
    ),
    "a row is at the checkpoint": (f"update staging.jobs set _offset = {END} where {ONE_ROW % 3}", "checkpoint", END),
    "a row is in another partition's range": (
        f"update staging.jobs set _batch_id = {BATCH_AT % (1, 0)} where {ONE_ROW % 3}",
        "range",
        3,
    ),
    "a row is in another batch of its partition": (
        f"update staging.jobs set _batch_id = {BATCH_AT % (0, 0)} where {ONE_ROW % 20}",
        "range",
        20,
    ),
    "a row is under no batch": (
        f"update staging.jobs set _batch_id = gen_random_uuid() where {ONE_ROW % 3}",
        "batch",
        3,
    ),
    "a row is staged and dead": (
        'insert into headrace.dead_letters (dataset, generation, partition, "offset", reason, detail, batch_id) '
        f"select 'jobs', 1, 0, 3, 'x', '', _batch_id from staging.jobs where {ONE_ROW % 3}",
        "exactly_one",
        3,
    ),
    "a replayed dead letter has no row": (
        "update headrace.dead_letters set replayed_by = batch_id",
        "exactly_one",
        DEAD,
    ),
    "a replaced row has no successor": (
        f"with gone as (delete from staging.jobs where {ONE_ROW % 3} returning *) "
        "insert into staging._replaced_jobs select *, _batch_id from gone",
        "exactly_one",
        3,
    ),
    "the first line of a chain is gone": (
        "delete from headrace.batches where partition = 0 and start_offset = 0",
        "chain",
        0,
    ),
    "a line's range is shifted": (
        "update headrace.batches set start_offset = start_offset + 1, end_offset = end_offset + 1 "
        "where partition = 0 and start_offset = 0",
        "chain",
        0,
    ),
    "two lines overlap": (
        "update headrace.batches set end_offset = end_offset + 1, empty = empty + 1 "
        "where partition = 0 and start_offset = 0",
        "chain",
        8,
    ),
    "the checkpoint went back": ("update headrace.checkpoints set next_offset = 20 where partition = 0", "chain", 20),
    "the checkpoint ran ahead": (
        f"update headrace.checkpoints set next_offset = {END + 5} where partition = 0",
        "source",
        END,
    ),
    "a line counts too much": (
        "alter table headrace.batches drop constraint batches_sum; "
        "update headrace.batches set empty = empty + 1 where partition = 0 and start_offset = 0",
        "arithmetic",
        0,
    ),
    "a duplicate under a free coordinate": (
        TWIN,
        "counts",
        None,
    ),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_verify_finds_that(drained: Drained, name: str) -> None:
    statement, check, offset = SHALLOW[name]
    drained.execute(statement)
    finding = drained.assert_found(check, offset)
    if offset is not None:
        assert finding.line().startswith(f"jobs[0] offset {offset} of generation 1: {check}: found ")


DEEP = {
    "a value is a cent off": (f"update staging.jobs set revenue = revenue + 0.01 where {ONE_ROW % 3}", "hashes", 3),
    "a time is a microsecond off": (
        f"update staging.jobs set jobdate = jobdate + interval '1 microsecond' where {ONE_ROW % 3}",
        "hashes",
        3,
    ),
    "a key has another byte": (f"update staging.jobs set _key = '4' where {ONE_ROW % 3}", "hashes", 3),
    "a header is gone": (f"update staging.jobs set _headers = _headers - 1 where {ONE_ROW % 3}", "hashes", 3),
    "a dead letter has another byte": (
        "update headrace.dead_letters set value = set_byte(value, 5, get_byte(value, 5) # 1)",
        "hashes",
        DEAD,
    ),
    "a row moved to an aborted record's offset": (
        f"update staging.jobs set _offset = 11 where {ONE_ROW % 9}",
        "records",
        9,
    ),
    "a row is gone and its line agrees": (
        f"delete from staging.jobs where {ONE_ROW % 3}; "
        "update headrace.batches set staged = staged - 1, empty = empty + 1 where partition = 0 and start_offset = 0",
        "records",
        3,
    ),
    "a dead letter is gone and its line agrees": (
        "delete from headrace.dead_letters; update headrace.batches set dead = 0, empty = empty + dead where dead > 0",
        "records",
        DEAD,
    ),
    "an invented row, and its line agrees": (
        f"{TWIN}; "
        "update headrace.batches as b set staged = staged + 1, empty = empty - 1 from twin where batch_id = _batch_id",
        "records",
        11,
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_verify_deep_finds_that(drained: Drained, name: str) -> None:
    statement, check, offset = DEEP[name]
    drained.execute(statement)
    drained.assert_found(check, offset, deep=True)


def test_verify_deep_prints_both_hashes_and_values(drained: Drained) -> None:
    drained.execute(f"update staging.jobs set revenue = revenue + 0.01 where {ONE_ROW % 3}")
    finding = drained.assert_found("hashes", 3, deep=True)
    assert "(revenue 15.51)" in finding.found
    assert "(revenue 15.5)" in finding.expected
    assert finding.found[:16] != finding.expected[:16]


def test_verify_deep_decides_empty_offsets(drained: Drained) -> None:
    # what was counted as empty at one batch and staged at another evens out; the source tells
    drained.execute(
        "update headrace.batches set staged = staged + case start_offset when 0 then -1 else 1 end, "
        "empty = empty - case start_offset when 0 then -1 else 1 end where partition = 0 and start_offset in (0, 8)"
    )
    finding = drained.assert_found("empty", 0, deep=True)
    assert finding.expected == "0, as at the source"


def test_verify_without_a_line_finds_the_missing_seq(drained: Drained) -> None:
    seq = drained.stage.value("select seq from headrace.batches where partition = 1 and start_offset = 0")
    drained.execute("delete from headrace.batches where seq = %s", seq)
    finding = drained.assert_found("seq", None, partition=None)
    assert finding.found == f"no line with seq {seq}"
    drained.assert_found("chain", 0, partition=1)
    drained.assert_found("batch", 0, partition=1)


def test_verify_with_another_topic_of_that_name_names_both_ids(drained: Drained) -> None:
    drained.execute("update headrace.generations set topic_id = 'other'")
    finding = drained.assert_found("source", None, partition=None)
    assert finding.expected.endswith("with id other, as generation 1 has it")


def test_verify_with_a_second_open_generation_finds_it(drained: Drained) -> None:
    drained.execute("drop index headrace.generations_one_open")
    drained.execute("insert into headrace.generations select dataset, 2, topic, topic_id from headrace.generations")
    drained.assert_found("generations", None, partition=None)
