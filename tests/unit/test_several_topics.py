"""Datasets of several topics: their declaration, and the identity of each topic."""

import json
from typing import Any

import pytest

from headrace.exceptions import CheckpointMoved, DatasetError, SourceChanged
from headrace.ingest.identity import changed_topics, check_identity
from headrace.ingest.plan import Plan, make_plan
from headrace.origin import Origin
from headrace.postgres.checkpoints import SEVERAL_TOPICS, Generation
from headrace.repair.topics import adopts_topics, renumbered
from headrace.sources.base import PartitionState, SourceState
from headrace.sources.declarations import KafkaTopics

EU, US, ASIA = Origin("eu", "E", 0), Origin("us", "U", 0), Origin("asia", "A", 0)
US_1 = US._replace(partition=1)


def state(origins: dict[int, Origin], **bounds: tuple[int, int]) -> SourceState:
    """Every partition is served from 0 to 10, unless its bounds say otherwise."""
    found = {p: bounds.get(f"p{p}", (0, 10)) for p in origins}
    return SourceState(
        "eu, us", "ids", {p: PartitionState(*each, each[1]) for p, each in found.items()}, "c", origins=origins
    )


def generation(*partitions: tuple[int, Origin, int], first_free: int = 3) -> Generation:
    return Generation(
        "orders",
        1,
        "eu, us",
        SEVERAL_TOPICS,
        {number: next_offset for number, _, next_offset in partitions},
        {number: None for number, _, _ in partitions},
        "c",
        {number: origin for number, origin, _ in partitions},
        first_free,
    )


OPEN = generation((0, EU, 5), (1, US, 10), (2, US_1, 0))
SAME = {0: EU, 1: US, 2: US_1}


def test_topics_as_they_were_read_are_accepted_and_so_are_new_ones() -> None:
    check_identity(OPEN, state(SAME))
    check_identity(OPEN, state(SAME | {3: ASIA}, p3=(7, 9)))  # it begins at its log start, as the first ones did
    assert changed_topics(OPEN, state(SAME)) == {}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            state({0: EU, 3: Origin("us", "V", 0)}),
            "orders: topic us has id V, expected U: it was deleted and created again; at risk: us[0] from 10 on, us[1] "
            "from 0 on; `headrace adopt orders` closes its partitions, 1, 2, and reads the new one, if there is one, "
            "from its start",
        ),
        (
            state({1: US, 2: US_1}),
            "orders: topic eu is gone, or the declaration does not name it any more; at risk: eu[0] from 5 on; "
            "`headrace adopt orders` closes its partitions, 0,",
        ),
        (state({0: EU, 1: US}), "orders: the partition us[1] is gone; at risk: us[0] from 10 on, us[1] from 0 on;"),
        (
            state(SAME, p1=(0, 9)),
            "orders[1] (us[0]): the checkpoint is 10, the log ends at 9: [9, 10) was read and the source lost it; "
            "`headrace adopt orders` closes its partitions, 1, 2,",
        ),
        (
            state(SAME, p0=(6, 10)),
            "orders[0] (eu[0]): retention overtook the checkpoint: [5, 6) is no longer served and was never read; "
            "`headrace accept-loss orders --partition 0 --to 6`",
        ),
        (
            state(SAME | {3: US._replace(partition=2)}, p3=(4, 9)),
            "orders[3] (us[2]): a new partition whose log starts at 4, expected 0: [0, 4) is lost; "
            "`headrace accept-loss orders --partition 3 --to 4`",
        ),
    ],
)
def test_topic_that_changed_is_refused_by_its_name(found: SourceState, message: str) -> None:
    with pytest.raises(SourceChanged) as caught:
        check_identity(OPEN, found)
    assert message in str(caught.value)
    assert caught.value.command is not None


@pytest.mark.parametrize("found", [{0: EU, 2: US, 1: US_1}, {0: EU, 1: ASIA, 2: US_1, 3: US}])
def test_numbers_that_another_run_gave_meanwhile_are_retried(found: dict[int, Origin]) -> None:
    with pytest.raises(CheckpointMoved, match="another run numbered the partitions of new topics meanwhile"):
        check_identity(OPEN, state(found))


def test_dataset_of_one_topic_that_becomes_one_of_several_is_refused() -> None:
    with pytest.raises(
        SourceChanged, match=r"the topic is eu, us, generation 1 belongs to eu; at risk: eu\[0\] from 4"
    ):
        check_identity(Generation("orders", 1, "eu", "E", {0: 4}), state(SAME))


def test_adopted_topics_get_numbers_that_no_partition_had() -> None:
    new = Origin("us", "V", 0)
    found = state({0: EU, 5: new, 6: ASIA})
    assert adopts_topics(OPEN, found)
    assert renumbered(OPEN, found, changed_topics(OPEN, found)) == {5: 5}
    lost = state(SAME | {6: ASIA}, p2=(0, 4), p1=(0, 3))  # the same topic, without records that were read
    assert renumbered(OPEN, lost, changed_topics(OPEN, lost)) == {1: 7, 2: 8}
    another = SourceState("eu, us", "ids", found.partitions, "another cluster", found.origins)
    assert not adopts_topics(OPEN, another)


def test_plan_names_topics_and_passes_from_task_to_task() -> None:
    planned = make_plan(OPEN, state(SAME))
    assert {p: (bounds.start, bounds.end) for p, bounds in planned.ranges.items()} == {0: (5, 10), 2: (0, 10)}
    passed = Plan.from_dict(json.loads(json.dumps(planned.to_dict())))
    assert passed.origins == SAME
    assert [passed.label(partition) for partition in (2, 9)] == ["[2] us[1]", "[9]"]
    pinned_before = {name: value for name, value in planned.to_dict().items() if name != "origins"}
    assert Plan.from_dict(pinned_before).origins == {}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"topics": ("eu",)}, "expected two topics or more, or a pattern"),
        ({"topics": "eu"}, "expected two topics or more, or a pattern"),
        ({}, "expected two topics or more, or a pattern"),
        ({"topics": ("eu", "us"), "pattern": "e."}, "expected two topics or more, or a pattern"),
        ({"topics": ("eu",), "pattern": "u."}, "expected two topics or more, or a pattern"),
        ({"topics": ("eu", "us", "eu")}, "expected each of them once"),
        ({"topics": ("eu", "u s")}, "expected .* as Kafka does"),
        ({"pattern": "("}, "expected a regular expression"),
        ({"pattern": "orders_.*", "dead_letter_topic": "orders_dlq"}, "the drain would read its dead letters again"),
        ({"topics": ("eu", "us"), "dead_letter_topic": "us"}, "the drain would read its dead letters again"),
    ],
)
def test_declaration_that_is_none_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        KafkaTopics(**parameters)


def test_declaration_names_its_topics() -> None:
    listed, matching = KafkaTopics(topics=("eu", "us")), KafkaTopics(pattern="orders_.*")
    assert (listed.name, matching.name) == ("eu, us", "pattern orders_.*")
    assert listed.commands("orders") == ("headrace drain orders",)
