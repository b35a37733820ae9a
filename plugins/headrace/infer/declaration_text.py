"""The text of a declaration, plugins/datasets/NAME.py, formatted as ruff does."""

import json
import re
from collections.abc import Iterator

from headrace.contracts.columns import KEY_LENGTH_MAX
from headrace.infer.draft import Draft, FieldDraft
from headrace.infer.names import IMPORTED, class_name

LINE_MAX = 120
_CONTRACT_TYPES = IMPORTED & frozenset((
    "Boolean", "Date", "EpochMilliseconds", "EpochSeconds", "Float", "Identifier", "Integer", "Numeric", "Text",
    "TimeOfDay", "Timestamp",
))  # fmt: skip


def declaration_text(draft: Draft) -> str:
    """The whole file."""
    contract = class_name(draft.name)
    lines = [f'"""{draft.name}: inferred from {_plain(draft.origin)}. Say here what one record is."""', ""]
    lines += [*_imports(draft), "", ""]
    lines += [*(f"# {_plain(note)}"[:LINE_MAX] for note in draft.notes), f"class {contract}(BaseModel):"]
    lines += ["    model_config = CONTRACT_CONFIG", ""]
    for field in draft.fields:
        lines += _field(draft, field)
    lines += ["", "", "DATASET = Dataset("]
    lines += [f"    {argument}" for argument in _arguments(draft, contract)]
    return "\n".join([*lines, ")", ""])


def quoted(text: str) -> str:
    """A text as a literal of Python."""
    return json.dumps(text)


def type_in(draft: Draft, field: FieldDraft) -> str:
    """The expression of a field's type; a key of text has to be short and not empty."""
    is_key = draft.key is not None and draft.key.field is field
    return "Identifier" if is_key and field.type == "Text" else field.type


def is_optional_in(draft: Draft, field: FieldDraft) -> bool:
    """Whether a record may lack the field: a key it may not."""
    return field.is_optional and not (draft.key is not None and draft.key.field is field)


def _field(draft: Draft, field: FieldDraft) -> Iterator[str]:
    kind = type_in(draft, field)
    alias = None if field.name == field.source_name else quoted(field.source_name)
    if is_optional_in(draft, field):
        kind = kind if kind == "Any" else f"{kind} | None"
        default = f" = Field(default=None, validation_alias={alias})" if alias else " = None"
    else:
        default = f" = Field(validation_alias={alias})" if alias else ""
    line = f"    {field.name}: {kind}{default}"
    if field.comment:
        comment = f"# {_plain(field.comment)}"
        if len(line) + len(comment) + 2 > LINE_MAX:
            yield f"    {comment[: LINE_MAX - 4]}"
        else:
            line = f"{line}  {comment}"
    yield line


def _imports(draft: Draft) -> Iterator[str]:
    types = " ".join(type_in(draft, field) for field in draft.fields)
    words = set(types.replace("[", " ").replace("]", " ").replace(",", " ").split())
    typing = sorted(words & {"Any", "Literal"})
    if typing:
        yield f"from typing import {', '.join(typing)}"
    if "UUID" in words:
        yield "from uuid import UUID"
    if typing or "UUID" in words:
        yield ""
    has_alias = any(field.name != field.source_name for field in draft.fields)
    yield f"from pydantic import BaseModel{', Field' if has_alias else ''}"
    yield ""
    used = sorted(words & _CONTRACT_TYPES)
    if used:
        yield f"from headrace.contract import {', '.join(used)}"
    yield f"from headrace.dataset import CONTRACT_CONFIG, Dataset, {type(draft.source).__name__}"
    texts = [text for text in (draft.format_text, draft.key and draft.key.format) if text]
    formats = {name for text in texts for name in re.findall(r"[A-Z]\w+(?=\()", text)}
    if formats:
        yield f"from headrace.formats import {', '.join(sorted(formats))}"


def _arguments(draft: Draft, contract: str) -> Iterator[str]:
    yield f'name="{draft.name}",'
    yield f"contract={contract},"
    yield f"source={draft.source_text},"
    if draft.format_text:
        yield f"format={draft.format_text},"
    if draft.key is not None:
        comment = f"  # {_plain(draft.key.comment)}" if draft.key.comment else ""
        yield f'key="{draft.key.field.name}",{comment}'
        if not draft.key.is_record_key and draft.source.has_record_keys:
            yield "keyed=False,"
        if draft.key.format:
            yield f"key_format={draft.key.format},"
    if draft.time_column is not None:
        yield f'time_column="{draft.time_column.name}",'
    yield f'description="{draft.name}",'


def _plain(text: str) -> str:
    """A text for a comment: one line, without what would end a docstring."""
    plain = " ".join(text.split()).replace("\\", "/").replace('"', "'")
    return "".join(c if c.isprintable() else "?" for c in plain)[:KEY_LENGTH_MAX]
