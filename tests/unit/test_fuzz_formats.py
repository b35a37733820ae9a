"""Broken values of each format with a schema, held to what another reader makes of them: a row or a rejection."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from headrace.contracts.rejection import Rejection
from headrace.dataset import load_dataset
from tests.support import fuzz_oracle
from tests.support.document_oracle import Undecided
from tests.support.fuzz_targets import FORMATS, PLAIN_FORMATS, registry_targets
from tests.support.schemas import Registered

SEED = 20_261_128
BATCH_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
COUNT = 800
REASONS = {
    "undecodable", "out_of_range", "invalid_utf8", "invalid_json", "unknown_schema", "wrong_type", "missing_field",
    "duplicate_key", "nul_character", "invalid_timestamp", "invalid_value", "too_large", "too_deep", "empty_payload",
    "incompatible_schema", "key_mismatch", "missing_key",
}  # fmt: skip


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in PLAIN_FORMATS])
def test_broken_values_become_what_another_reader_makes_of_them(format: str, tmp_path: Path) -> None:
    registry = Registered()
    (target,) = (found for found in registry_targets(registry) if found.format == format)
    target.declare(tmp_path, target.name)
    dataset = load_dataset(tmp_path, target.name)
    dataset = replace(dataset, format=replace(dataset.format, schemas=registry))  # type: ignore[type-var]
    contract, bind = dataset.compiled, dataset.copy_line_binder
    assert bind is not None
    make_line, kinds = bind(1, 0, BATCH_ID), {column.field: column.sql_type for column in contract.columns}
    outcomes = Counter[str]()
    for payload in target.payloads(SEED, COUNT):
        said = f"{payload!r:.1000}"
        found = contract.decode(payload.key, payload.value)
        line = payload.value and make_line(5, "2026-01-01", payload.key, payload.value, "\\N")
        try:
            expected = target.oracle(payload.key, payload.value)
        except Undecided:
            outcomes["undecided"] += 1
            continue
        if isinstance(found, Rejection):
            assert (expected, not line) == (None, True), f"{said} became {found}"
            assert found.reason in REASONS
            assert found.detail == found.detail.encode().decode() and "\0" not in found.detail
            outcomes[found.reason] += 1
        else:
            assert expected is not None, f"{said} became {found}"
            assert _row(kinds, found) == expected, said
            outcomes["line" if line else "row"] += 1
    assert outcomes["line"] > COUNT // 20, outcomes
    assert sum(outcomes[reason] for reason in REASONS) > COUNT // 5, outcomes
    assert outcomes["undecided"] < COUNT // 20, outcomes


def _row(kinds: dict[str, str], values: list[Any]) -> dict[str, Any]:
    row = dict(zip([*kinds, "_extra"], values, strict=True))
    return {
        name: fuzz_oracle.exact_json(value) if kinds.get(name, "jsonb") == "jsonb" and value is not None else value
        for name, value in row.items()
    }
