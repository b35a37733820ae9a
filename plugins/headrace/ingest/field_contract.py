"""The contract of a single field, for values that are judged without their record."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import create_model, field_validator

from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.dataset import CONTRACT_CONFIG, Dataset


def field_contract(dataset: Dataset, column: Column) -> Contract:
    """The contract of a single field: the field's own validators, and the dataset's strictness."""
    info = dataset.contract.model_fields[column.field]
    validators: dict[str, Any] = {  # pydantic has bound it to the class, create_model binds again: so it is static
        name: field_validator(column.field, mode=found.info.mode)(staticmethod(found.func))
        for name, found in dataset.contract.__pydantic_decorators__.field_validators.items()
        if column.field in found.info.fields or "*" in found.info.fields
    }
    model = create_model(
        f"{dataset.contract.__name__}{column.field}",
        __config__=CONTRACT_CONFIG,
        __validators__=validators,
        **{column.field: (info.annotation, info)},  # type: ignore[call-overload]
    )
    return Contract(
        model,
        zone=UTC if dataset.zone == "UTC" else ZoneInfo(dataset.zone),
        max_value_bytes=dataset.max_value_bytes + len(column.source_names[0].encode()) + 64,
        strict=dataset.strict,
        masking_key=dataset.masking_key,
    )
