"""Checks that a source is the one that a generation's checkpoints belong to, and still serves the next offsets."""

from headrace.command import Command
from headrace.exceptions import AnotherCluster, CheckpointMoved, SourceChanged, TopicMissing, Where
from headrace.origin import Origin
from headrace.postgres.checkpoints import Generation
from headrace.sources.base import PartitionState, Source, SourceState, assign


def describe(source: Source, generation: Generation | None) -> SourceState:
    """Ask the source for its state; raise SourceChanged when another cluster answers, with or without the topic."""
    assign(source, *((generation.origins, generation.first_free) if generation is not None else ({}, 0)))
    try:
        state = source.describe()
    except TopicMissing:
        if generation is not None and generation.cluster_id is not None:
            check_cluster(generation, source.cluster_id())
        raise
    if generation is not None:
        check_cluster(generation, state.cluster_id)
    return state


def check_cluster(generation: Generation, cluster_id: str | None) -> None:
    """Refuse a cluster other than the one that the checkpoints belong to: its offsets name other records.

    A cluster without an id passes, and so does a generation without one.
    """
    if None not in (generation.cluster_id, cluster_id) and cluster_id != generation.cluster_id:
        drain = Command("drain", generation.dataset)
        raise AnotherCluster(
            f"{generation.dataset}: another cluster answers at this address: found cluster id {cluster_id}, expected "
            f"{generation.cluster_id}, of which generation {generation.generation} read {generation.topic}; nothing "
            "was changed; point HEADRACE_KAFKA_BOOTSTRAP_SERVERS (in Airflow: the connection headrace_kafka) back to "
            f"the old cluster and run `{drain}`; only if the new one is intended, {_adopt(generation)}",
            command=drain,
            cause=f"another Kafka cluster answers, {cluster_id}, expected {generation.cluster_id}",
            **_where(generation),
        )


def seen_from(source: Source, generation: Generation, state: SourceState) -> SourceState:
    """The source's state as it applies to a generation's checkpoints.

    Raises SourceChanged, with the range at risk and the command, if the source detects that it was replaced.
    """
    if state.topic != generation.topic:
        return state
    try:
        return source.seen_from(state, generation.next_offsets, generation.positions)
    except SourceChanged as error:
        raise SourceChanged(
            f"{generation.dataset}: {error}; at risk: records of the old one: {_at_risk(generation)}; "
            f"{_adopt(generation)}",
            command=Command("adopt", generation.dataset),
            **_where(generation),
        ) from error


def check_identity(generation: Generation, state: SourceState) -> None:
    """Raise SourceChanged if the source is not that of the checkpoints, or lost the offsets that come next."""
    name, adopt, command = generation.dataset, _adopt(generation), Command("adopt", generation.dataset)
    check_cluster(generation, state.cluster_id)
    if generation.has_several_topics and state.origins:
        for refused in changed_topics(generation, state).values():
            raise refused
        _check_new_partitions(generation, state)
        return
    if state.topic != generation.topic:
        raise SourceChanged(
            f"{name}: the topic is {state.topic}, generation {generation.generation} belongs to {generation.topic}; "
            f"at risk: {_at_risk(generation)}; {adopt}",
            command=command,
            **_where(generation),
        )
    if state.topic_id != generation.topic_id:
        raise SourceChanged(
            f"{name}: topic {state.topic} has id {state.topic_id}, expected {generation.topic_id}: it was deleted and "
            f"created again; at risk: records of the old one: {_at_risk(generation)}; {adopt}",
            command=command,
            **_where(generation),
        )
    for partition, next_offset in sorted(generation.next_offsets.items()):
        found = state.partitions.get(partition)
        if found is None:
            raise SourceChanged(
                f"{name}[{partition}]: the partition is gone, its checkpoint is {next_offset}; {adopt}",
                command=command,
                **_where(generation, partition, next_offset),
            )
        _check_offsets(generation, partition, next_offset, found)
    _check_new_partitions(generation, state)


def changed_topics(generation: Generation, state: SourceState) -> dict[str, SourceChanged]:
    """Why topics of a dataset of several are refused, by topic: gone, created again, or without offsets that come next.

    Raises CheckpointMoved if another run numbered the partitions meanwhile.
    """
    numbers = {origin: number for number, origin in state.origins.items()}
    changed: dict[str, SourceChanged] = {}
    for partition, origin in sorted(generation.origins.items()):
        if numbers.get(origin, partition) != partition or state.origins.get(partition, origin) != origin:
            raise CheckpointMoved(
                f"{generation.where(partition)}: another run numbered the partitions of new topics meanwhile; nothing "
                "was changed; run the same command again",
                **_where(generation),
            )
        if origin.topic in changed:
            continue
        try:
            if partition not in state.partitions:
                raise _gone(generation, partition, origin, state)
            _check_offsets(generation, partition, generation.next_offsets[partition], state.partitions[partition])
        except SourceChanged as error:
            changed[origin.topic] = error
    return changed


def _gone(generation: Generation, partition: int, origin: Origin, state: SourceState) -> SourceChanged:
    """Why a partition of one of several topics is not among those of the source."""
    ids = {each.topic_id for each in state.origins.values() if each.topic == origin.topic}
    what = f"topic {origin.topic} is gone, or the declaration does not name it any more"
    if origin.topic_id in ids:
        what = f"the partition {origin} is gone"
    elif ids:
        what = f"topic {origin.topic} has id {ids.pop()}, expected {origin.topic_id}: it was deleted and created again"
    return SourceChanged(
        f"{generation.dataset}: {what}; at risk: {_at_risk(generation, origin.topic)}; "
        f"{_adopt(generation, origin.topic)}",
        command=Command("adopt", generation.dataset),
        **_where(generation, partition, generation.next_offsets[partition]),
    )


def is_new_topic(generation: Generation, origin: Origin | None) -> bool:
    """Whether none of the partitions of a partition's topic was read yet."""
    return origin is not None and all(known[:2] != origin[:2] for known in generation.origins.values())


def _check_new_partitions(generation: Generation, state: SourceState) -> None:
    """Refuse a new partition of a known topic that lost its first offsets; a new topic begins at its log starts."""
    for partition, found in sorted(state.partitions.items()):
        origin = state.origins.get(partition)
        if partition in generation.next_offsets or is_new_topic(generation, origin):
            continue
        if found.log_start_offset > 0:
            accept = accept_loss_command(generation.dataset, partition, found.log_start_offset)
            where = f"{generation.dataset}[{partition}]{f' ({origin})' if origin else ''}"
            raise SourceChanged(
                f"{where}: a new partition whose log starts at {found.log_start_offset}, expected 0: "
                f"[0, {found.log_start_offset}) is lost; `{accept}` continues after it",
                command=accept,
                **_where(generation, partition, 0),
            )


def accept_loss_command(dataset: str, partition: int, to: int) -> Command:
    """The command that moves the checkpoint past the range that the source lost, to the offset `to`."""
    return Command("accept-loss", dataset, "--partition", partition, "--to", to)


def _check_offsets(generation: Generation, partition: int, next_offset: int, found: PartitionState) -> None:
    where, origin = generation.where(partition), generation.origins.get(partition)
    topic = origin.topic if origin else None
    if next_offset < found.log_start_offset:
        accept = accept_loss_command(generation.dataset, partition, found.log_start_offset)
        raise SourceChanged(
            f"{where}: retention overtook the checkpoint: [{next_offset}, {found.log_start_offset}) is no longer "
            f"served and was never read; `{accept}` continues after it",
            command=accept,
            **_where(generation, partition, next_offset),
        )
    if next_offset > found.high_watermark:
        raise SourceChanged(
            f"{where}: the checkpoint is {next_offset}, the log ends at {found.high_watermark}: "
            f"[{found.high_watermark}, {next_offset}) was read and the source lost it; {_adopt(generation, topic)}",
            command=Command("adopt", generation.dataset),
            **_where(generation, partition, found.high_watermark),
        )


def _where(generation: Generation, partition: int | None = None, offset: int | None = None) -> Where:
    where: Where = {"dataset": generation.dataset, "generation": generation.generation}
    return where if partition is None or offset is None else {**where, "partition": partition, "offset": offset}


def _adopt(generation: Generation, topic: str | None = None) -> str:
    adopt = Command("adopt", generation.dataset)
    if topic is not None:
        numbers = ", ".join(str(p) for p, origin in sorted(generation.origins.items()) if origin.topic == topic)
        return f"`{adopt}` closes its partitions, {numbers}, and reads the new one, if there is one, from its start"
    return f"`{adopt}` closes generation {generation.generation} and reads the new one from its start"


def _at_risk(generation: Generation, topic: str | None = None) -> str:
    return ", ".join(
        f"{generation.origins.get(p) or f'{generation.topic}[{p}]'} from {offset} on"
        for p, offset in sorted(generation.next_offsets.items())
        if topic is None or generation.origins[p].topic == topic
    )
