"""Sample records through inference, without services."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset, KafkaTopic, RedisStream, load_dataset
from headrace.infer.declaration_text import declaration_text
from headrace.infer.documents import read_documents
from headrace.infer.draft import Draft, FieldDraft
from headrace.infer.fields import fields_of
from headrace.infer.inference import fill_draft
from headrace.infer.sample import Sample
from headrace.infer.trial import Trial, try_sample
from headrace.record import KafkaRecord, Record
from headrace.settings import Settings


def records_of(pairs: Sequence[tuple[bytes | None, bytes | None]]) -> list[Record]:
    """Keys and values as records of one partition."""
    return [KafkaRecord(number, 1_700_000_000_000, key, value, ()) for number, (key, value) in enumerate(pairs)]


def json_records(documents: Sequence[dict[str, Any]], key: str | None = None) -> list[Record]:
    """Documents as records, keyed by a field."""
    return records_of(
        [(str(document[key]).encode() if key else None, json.dumps(document).encode()) for document in documents]
    )


def inferred(
    records: Sequence[Record], folder: Path, name: str = "things", *, stream: bool = False
) -> tuple[Dataset, Trial, Draft]:
    """The dataset that is declared for a sample, the trial of the sample, and the draft."""
    source, text = KafkaTopic(topic=name), f'KafkaTopic(topic="{name}")'
    draft = Draft(name, source, text, f"topic {name}")
    if stream:
        draft = Draft(name, RedisStream(stream=name), f'RedisStream(stream="{name}")', f"stream {name}")
    settings = Settings(home=folder)
    sample = Sample([(0, record) for record in records], len(records))
    fill_draft(draft, sample, read_documents("things", records, settings), all_text=stream)
    declared = declaration_text(draft)
    (folder / f"{name}.py").write_text(declared)
    return load_dataset(folder, name), try_sample(declared, name, sample, settings), draft


def types(documents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The types of the fields of documents, as they are written; `?` behind those that may be absent."""
    fields, _ = fields_of(documents)
    return {field.source_name: shown(field) for field in fields}


def shown(field: FieldDraft) -> str:
    """A field's type, with `?` if it may be absent."""
    return f"{field.type}{'?' if field.is_optional else ''}"
