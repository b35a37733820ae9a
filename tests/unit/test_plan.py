"""Plans: limited, split, and from task to task."""

import json
from dataclasses import replace

import pytest

from headrace.exceptions import AnotherCluster, SourceChanged
from headrace.ingest.identity import check_identity
from headrace.ingest.plan import Plan
from headrace.postgres.checkpoints import Generation
from headrace.sources.base import PartitionState, Range, SourceState


def plan(**ranges: tuple[int, int]) -> Plan:
    return Plan(
        "jobs", 2, "jobs", "id", {int(p.removeprefix("p")): Range(*bounds) for p, bounds in ranges.items()}, waiting=4
    )


PLAN = plan(p0=(0, 10), p1=(5, 105), p7=(3, 33))


def test_plan_lag_is_the_offsets_to_read() -> None:
    assert PLAN.lag == 140
    assert plan().lag == 0


@pytest.mark.parametrize(
    ("limit", "ranges"),
    [
        (None, {0: (0, 10), 1: (5, 105), 7: (3, 33)}),
        (1_000, {0: (0, 10), 1: (5, 105), 7: (3, 33)}),
        (140, {0: (0, 10), 1: (5, 105), 7: (3, 33)}),
        (111, {0: (0, 10), 1: (5, 105), 7: (3, 4)}),
        (110, {0: (0, 10), 1: (5, 105)}),
        (25, {0: (0, 10), 1: (5, 20)}),
        (10, {0: (0, 10)}),
        (1, {0: (0, 1)}),
        (0, {}),
    ],
)
def test_plan_limited_reads_no_more_offsets_than_allowed(limit: int | None, ranges: dict[int, tuple[int, int]]) -> None:
    limited = PLAN.limited(limit)
    assert {p: (bounds.start, bounds.end) for p, bounds in limited.ranges.items()} == ranges
    assert limited.lag == min(PLAN.lag, PLAN.lag if limit is None else limit)
    assert (limited.topic_id, limited.generation, limited.waiting) == ("id", 2, 4)


def test_plan_rest_begins_behind_what_is_committed() -> None:
    rest = PLAN.remaining({0: 10, 1: 25}, {1: "7-0"})
    assert rest.ranges == {1: Range(25, 105, "7-0"), 7: Range(3, 33)}
    assert (rest.topic_id, rest.generation, rest.waiting) == ("id", 2, 4)
    assert PLAN.remaining({}, {}) == PLAN


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 4, 100])
def test_plan_split_gives_every_partition_to_exactly_one_share(parts: int) -> None:
    shares = PLAN.split(parts)
    assert len(shares) == max(min(parts, 3), 1)
    assert sorted(item for share in shares for item in share.ranges.items()) == sorted(PLAN.ranges.items())
    assert all(share.ranges for share in shares)


def test_plan_split_in_two_gives_the_longest_partition_a_share_of_its_own() -> None:
    assert [share.lag for share in PLAN.split(2)] == [100, 40]


def test_plan_split_of_nothing_is_nothing() -> None:
    assert plan().split(3) == []


@pytest.mark.parametrize("original", [PLAN, plan(), plan(p0=(2**62, 2**63 - 1))])
def test_plan_survives_json(original: Plan) -> None:
    assert Plan.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def state(topic_id: str = "id", topic: str = "jobs", **partitions: tuple[int, int]) -> SourceState:
    return SourceState(
        topic, topic_id, {int(p.removeprefix("p")): PartitionState(lo, hi, hi) for p, (lo, hi) in partitions.items()}
    )


def test_check_identity_of_the_same_source_is_silent() -> None:
    check_identity(Generation("jobs", 1, "jobs", "id", {0: 5, 1: 9}), state(p0=(5, 5), p1=(0, 9), p2=(0, 3)))


def test_check_identity_of_a_cluster_that_does_not_tell_or_was_never_asked_passes() -> None:
    told = replace(state(p0=(5, 5)), cluster_id="a")
    check_identity(Generation("jobs", 1, "jobs", "id", {0: 5}), told)
    check_identity(Generation("jobs", 1, "jobs", "id", {0: 5}, cluster_id="a"), told)
    check_identity(Generation("jobs", 1, "jobs", "id", {0: 5}, cluster_id="a"), state(p0=(5, 5)))


def test_check_identity_of_another_cluster_comes_first() -> None:
    found = replace(state("other", "else", p0=(9, 9)), cluster_id="b")
    with pytest.raises(AnotherCluster, match="found cluster id b, expected a, of which generation 1 read jobs"):
        check_identity(Generation("jobs", 1, "jobs", "id", {0: 5}, cluster_id="a"), found)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (state("other", p0=(0, 3)), "topic jobs has id other, expected id: it was deleted and created again; at risk: "
                                    "records of the old one: jobs[0] from 5 on; `headrace adopt jobs` closes"),
        (state(topic="else", p0=(0, 9)), "the topic is else, generation 1 belongs to jobs; at risk: jobs[0] from 5 on"),
        (state(p1=(0, 9)), "jobs[0]: the partition is gone, its checkpoint is 5"),
        (state(p0=(6, 9)), "retention overtook the checkpoint: [5, 6) is no longer served and was never read; "
                           "`headrace accept-loss jobs --partition 0 --to 6`"),
        (state(p0=(0, 4)), "the checkpoint is 5, the log ends at 4: [4, 5) was read and the source lost it; "),
        (state(p0=(0, 9), p1=(2, 9)), "jobs[1]: a new partition whose log starts at 2, expected 0: [0, 2) is lost; "
                                      "`headrace accept-loss jobs --partition 1 --to 2`"),
    ],
)  # fmt: skip
def test_check_identity_of_another_source_names_range_and_command(found: SourceState, message: str) -> None:
    with pytest.raises(SourceChanged) as caught:
        check_identity(Generation("jobs", 1, "jobs", "id", {0: 5}), found)
    assert message in str(caught.value)
