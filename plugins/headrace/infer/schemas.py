"""Drafts from what already describes records: a subject of a registry, a table of Postgres."""

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.formats.registry import Registry
from headrace.infer.documents import WIRE_FORMATS, read_documents
from headrace.infer.draft import Draft, KeyDraft
from headrace.infer.keys import KEY_TYPES, find_key, find_time_column
from headrace.infer.names import dataset_name
from headrace.infer.options import InferOptions
from headrace.infer.sample import Sample, exists, read_sample
from headrace.infer.subjects import subject_fields, topic_of, versions
from headrace.infer.tables import Table
from headrace.postgres.connection import database
from headrace.settings import Settings
from headrace.sources.declarations import KafkaTopic


def of_subject(deployment: Deployment, subject: str, options: InferOptions) -> tuple[Draft, Sample]:
    """The fields of the schema; the key from the topic's records, if there are any."""
    schemas = versions(Registry(deployment.settings), subject)
    if not schemas:
        raise DatasetError(f"subject {subject}: found no such subject in the registry; name one that it has")
    topic = options.topic or topic_of(subject)
    source = KafkaTopic(topic=topic)
    draft = Draft(
        options.name or dataset_name(topic),
        source,
        f'KafkaTopic(topic="{topic}")',
        f"subject {subject}",
        subject_fields(schemas, subject),
        WIRE_FORMATS[schemas[-1].kind][1],
    )
    sample = Sample([], 0)
    if exists(deployment, source):
        sample = read_sample(deployment, source, options.records)
    _fill_keys(draft, sample, deployment.settings)
    return draft, sample


def _fill_keys(draft: Draft, sample: Sample, settings: Settings) -> None:
    records = [record for _, record in sample.records]
    if any(record.value is not None for record in records):
        documents = read_documents(draft.source.target, records, settings)
        pairs = [(r, d) for r, d in zip(records, documents.found, strict=True) if d is not None]
        has_tombstones = any(record.value is None for record in records)
        draft.key = find_key(draft.fields, pairs, has_tombstones=has_tombstones, format=documents.format)
    else:
        draft.notes.append(f"{draft.source.target} has no records: the key was not inferred")
    draft.time_column = find_time_column(draft.fields)


def of_table(deployment: Deployment, name: str, options: InferOptions) -> tuple[Draft, Sample]:
    """The columns of a table, for a topic of its rows as JSON objects; its primary key is the records' key."""
    with database(deployment.connect("headrace infer")) as connection:
        table = Table(connection, name)
        fields, notes, key = table.fields(), table.notes(), table.key()
        sample = table.sample(options.records)
    topic = options.topic or name
    draft = Draft(
        options.name or dataset_name(options.topic or name.partition(".")[2]),
        KafkaTopic(topic=topic),
        f'KafkaTopic(topic="{topic}")',
        f"table {name}",
        fields,
        notes=notes,
    )
    key_fields = [field for field in fields if field.source_name == key and field.type in KEY_TYPES]
    draft.key = KeyDraft(key_fields[0], True) if key_fields else None
    draft.time_column = find_time_column(fields)
    return draft, sample
