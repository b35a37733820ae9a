"""From a name to the files of a dataset: sample, draft, texts, and the sample through the declaration."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.infer.declaration_text import declaration_text, quoted
from headrace.infer.documents import Documents, check_delimiter, read_documents
from headrace.infer.draft import Draft, KeyDraft
from headrace.infer.fields import fields_of, usual
from headrace.infer.keys import find_key, find_time_column
from headrace.infer.model_texts import model_texts
from headrace.infer.names import dataset_name
from headrace.infer.options import InferOptions, Kind
from headrace.infer.origins import kind_of
from headrace.infer.sample import Sample, read_sample
from headrace.infer.schemas import of_subject, of_table
from headrace.infer.trial import Trial, try_sample
from headrace.private_files import replaced_file
from headrace.settings import Settings
from headrace.sources.declarations import File, KafkaTopic, RedisStream, SourceDeclaration


@dataclass(frozen=True, slots=True)
class Inference:
    """The files of a dataset, by their paths, and the trial of the sample."""

    draft: Draft
    files: dict[Path, str]
    trial: Trial

    def existing(self) -> list[Path]:
        """The files that exist and differ: writing replaces them."""
        return [path for path, text in self.files.items() if path.exists() and path.read_text() != text]

    def write(self) -> None:
        """Write all files; each is complete or not there."""
        for path, text in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(path) as file:
                file.write(text.encode())
            path.chmod(0o644)  # code, as a checkout has it

    def lines(self) -> Iterator[str]:
        """What was inferred, and what would become of the sample."""
        draft = self.draft
        yield f"{draft.name}: {len(draft.fields)} fields from {draft.origin}"
        for note in draft.notes:
            yield f"  {note}"
        for field in draft.fields:
            comment = f"  # {field.comment}" if field.comment else ""
            yield f"  {field.name}: {field.type}{' or null' if field.is_optional else ''}{comment}"
        yield f"  key: {_shown(draft.key)}"
        yield f"  time column: {draft.time_column.name if draft.time_column else 'none'}"
        yield from self.trial.lines()


def _shown(key: KeyDraft | None) -> str:
    if key is None:
        return "none: every record is an entity of its own"
    return f"{key.field.name}{f': {key.comment}' if key.comment else ''}"


def infer(deployment: Deployment, name: str, options: InferOptions) -> Inference:
    """Infer a dataset; writes nothing.

    Raises DatasetError if the sample has no documents, or if nothing of that name is found; and the sources' errors.
    """
    kind = options.kind or kind_of(deployment, name)
    if kind == "subject":
        draft, sample = of_subject(deployment, name, options)
    elif kind == "table":
        draft, sample = of_table(deployment, name, options)
    else:
        draft, sample = _of_records(deployment, kind, name, options)
    settings = deployment.settings
    text = declaration_text(draft)
    files = {settings.datasets_dir / f"{draft.name}.py": text}
    files |= {settings.dbt_dir / path: text for path, text in model_texts(draft).items()}
    return Inference(draft, files, try_sample(text, draft.name, sample, settings))


def _of_records(deployment: Deployment, kind: Kind, name: str, options: InferOptions) -> tuple[Draft, Sample]:
    source, text, path = source_of(deployment.settings, kind, name, options.topic)
    read: SourceDeclaration = File(path=path.name) if path is not None else source
    sample = read_sample(deployment, read, options.records, path)
    draft = Draft(_name(options, Path(name).name if kind == "file" else name), source, text, "")
    documents = read_documents(name, [record for _, record in sample.records], deployment.settings)
    is_csv = path is not None and ".csv" in path.suffixes
    if is_csv:
        check_delimiter(name, documents)
    fill_draft(draft, sample, documents, all_text=kind == "stream" or is_csv)
    draft.origin = f"{len(sample.records):,} of {sample.size:,} records of {_target(read, path)}"
    return draft, sample


def _target(source: SourceDeclaration, path: Path | None) -> str:
    return f"file {path.name}" if path is not None else source.target


def source_of(
    settings: Settings, kind: Kind, name: str, topic: str | None
) -> tuple[SourceDeclaration, str, Path | None]:
    """The declared source, its expression, and the file to read instead."""
    if kind == "stream":
        return RedisStream(stream=name), f"RedisStream(stream={quoted(name)})", None
    if kind == "topic":
        return KafkaTopic(topic=name), f'KafkaTopic(topic="{name}")', None
    path = Path(name) if Path(name).exists() or Path(name).is_absolute() else settings.data_dir / name
    if topic is not None:
        return KafkaTopic(topic=topic), f'KafkaTopic(topic="{topic}")', path
    if not path.resolve().is_relative_to(settings.data_dir.resolve()):
        raise DatasetError(
            f"{path}: found a file outside {settings.data_dir}, expected one below it; copy it there, or name the "
            "topic that has such records: --topic"
        )
    declared = str(path.resolve().relative_to(settings.data_dir.resolve()))
    return File(path=declared), f"File(path={quoted(declared)})", path


def _name(options: InferOptions, source: str) -> str:
    return options.name or dataset_name(options.topic or _without_suffixes(source))


def _without_suffixes(name: str) -> str:
    suffixes = (".gz", ".ndjson", ".jsonl", ".csv", ".parquet")
    for suffix in suffixes:
        name = name.removesuffix(suffix)
    return name


def fill_draft(draft: Draft, sample: Sample, documents: Documents, *, all_text: bool) -> None:
    """Fields, key and time column from the documents of a sample."""
    found = [document for document in documents.found if document is not None]
    if not found:
        raise DatasetError(
            f"{draft.source.target}: found no record in the sample, expected some; produce records, or infer from a "
            "file: headrace infer FILE --topic TOPIC"
        )
    kept = usual(found)
    if len(kept) < len(found):
        draft.notes.append(f"{len(found) - len(kept)} records have other fields than the others and are left out")
    draft.fields, notes = fields_of(kept, all_text=all_text)
    draft.notes += notes
    if not draft.fields:
        raise DatasetError(f"{draft.source.target}: found records without fields, expected JSON objects with fields")
    draft.format_text = documents.text
    chosen = {id(document) for document in kept}
    pairs = [
        (record, document)
        for (_, record), document in zip(sample.records, documents.found, strict=True)
        if document is not None and id(document) in chosen
    ]
    has_tombstones = any(record.value is None for _, record in sample.records)
    draft.key = find_key(draft.fields, pairs, has_tombstones=has_tombstones, format=documents.format)
    draft.time_column = find_time_column(draft.fields)
